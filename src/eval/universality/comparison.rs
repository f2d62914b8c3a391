//! Matched vectors compared, beside what chance gives.

use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;

use super::null::{Null, deal};
use super::similarity::Measure;
use crate::error::Result;
use crate::progress::{Progress, Step};

/// A measure, and two distributions by chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Similarity {
    /// Which.
    pub measure: Measure,
    /// Of the pairs as they are.
    pub value: f64,
    /// Of the same vectors, paired at random.
    pub shuffled: Null,
    /// Of as many vectors drawn at random.
    pub subsets: Null,
}

/// How much is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    /// Runs with shuffled pairs.
    pub runs: usize,
    /// Runs with drawn vectors; `svcca_99` makes a tenth of them, because each takes two eigendecompositions.
    pub subsets: usize,
    /// Seed.
    pub seed: u64,
    /// Threads; 0 takes all.
    pub threads: usize,
}

/// Draws two sets of as many vectors as are compared: X' `[n, d_x]` and Y' `[n, d_y]`.
pub type Draw<'d> = dyn Fn(&mut Xoshiro256PlusPlus) -> [Vec<f32>; 2] + Sync + 'd;

/// Every measure of `x` `[n, d_x]` and `y` `[n, d_y]`, row i of both being a pair. `note` goes in front of the
/// progress.
///
/// # Errors
/// As [`Measure::prepare`]; [`Cancelled`](crate::Kind::Cancelled).
pub fn compare(
    [x, y]: [&[f32]; 2],
    n: usize,
    chance: &Chance,
    draw: &Draw<'_>,
    note: &str,
    progress: &mut Progress<'_>,
) -> Result<Vec<Similarity>> {
    let one = |measure: Measure| {
        let (a, b) = (measure.prepare(x, n)?, measure.prepare(y, n)?);
        let as_they_are: Vec<usize> = (0..n).collect();
        let value = a.compare(&b, &as_they_are);
        let mut named = |what: &str, runs: usize, seed: u64, run: &(dyn Fn(&mut Xoshiro256PlusPlus) -> f64 + Sync)| {
            let note = format!("{note}{}, {what}", measure.name());
            let mut step = |step: Step<'_>| progress(Step { note: &note, ..step });
            Null::of(value, runs, chance.seed ^ seed, chance.threads, &mut step, run)
        };
        let shuffled = named("shuffled", chance.runs, 0x5f, &|rng| a.compare(&b, &deal(n, n, rng)))?;
        let subsets = if measure == Measure::Svcca99 { chance.subsets.div_ceil(10) } else { chance.subsets };
        let subsets = named("random subsets", subsets, 0x5b, &|rng| {
            let [x, y] = draw(rng);
            let drawn = measure.prepare(&x, n).and_then(|x| Ok((x, measure.prepare(&y, n)?)));
            drawn.map_or(f64::NAN, |(x, y)| x.compare(&y, &as_they_are))
        })?;
        Ok(Similarity { measure, value, shuffled, subsets })
    };
    Measure::ALL.map(one).into_iter().collect()
}
