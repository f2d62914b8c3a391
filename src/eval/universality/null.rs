//! What a measure is by chance: the same measure, many times, on what has no reason to be alike.

use std::cmp::Ordering;

use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;

use crate::error::Result;
use crate::num::parallel::{count, each};
use crate::num::rng;
use crate::progress::{Progress, report};

/// Values that differ by less are equal but for rounding: a measure that is 1 by counting is 1 in every run.
const TIE: f64 = 1e-9;
/// Runs between reports.
const WAVE: usize = 32;

/// A distribution by chance, and where an observed value lies in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Null {
    /// Its mean.
    pub mean: f64,
    /// Its standard deviation.
    pub sd: f64,
    /// Runs.
    pub runs: usize,
    /// (1 + the number of runs that reach the observed value) / (1 + runs).
    pub p: f64,
}

impl Null {
    /// Calls `run` `runs` times, each with a generator of its own, and compares `observed` with what it returns. The
    /// result is the same on any number of threads. A run without a value (NaN) counts as one that reaches the observed
    /// value.
    ///
    /// # Errors
    /// [`Cancelled`](crate::Kind::Cancelled).
    pub fn of(
        observed: f64,
        runs: usize,
        seed: u64,
        threads: usize,
        progress: &mut Progress<'_>,
        run: &(dyn Fn(&mut Xoshiro256PlusPlus) -> f64 + Sync),
    ) -> Result<Self> {
        let mut values = vec![f64::NAN; runs];
        for (wave, slots) in values.chunks_mut(WAVE).enumerate() {
            report(progress, (wave * WAVE) as u64, runs as u64, "")?;
            each(count(threads), slots.iter_mut().enumerate(), |(i, slot)| {
                let number = (wave * WAVE + i + 1) as u64;
                *slot = run(&mut rng(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            });
        }
        report(progress, runs as u64, runs as u64, "")?;
        let told: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
        let n = told.len() as f64;
        let mean = told.iter().sum::<f64>() / n;
        let sd = (told.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let below = |v: &&f64| v.partial_cmp(&&(observed - TIE)) == Some(Ordering::Less);
        let reach = runs - values.iter().filter(below).count();
        Ok(Self { mean, sd, runs, p: (1 + reach) as f64 / (1 + runs) as f64 })
    }
}

/// The first `m` of the numbers below `n`, shuffled.
pub fn deal(n: usize, m: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut all: Vec<usize> = (0..n).collect();
    let m = m.min(n);
    for i in 0..m {
        let j = rng.random_range(i..n);
        all.swap(i, j);
    }
    all.truncate(m);
    all
}
