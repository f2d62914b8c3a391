//! P-annealing (arXiv 2408.00113): ReLU codes with the penalty `λ·Σ f_i^p`, whose exponent falls from 1 in a few steps.
//!
//! Small p comes closer to counting codes but is hard to optimise from the start. When p falls, λ is multiplied by the
//! ratio of the penalties at the old and the new exponent, averaged over the last batches (algorithm 1), so that the
//! strength of the penalty doesn't jump.

use std::collections::VecDeque;

use super::{Penalty, Row};
use crate::train::options::Options;

/// Batches that λ is adapted on.
pub(in crate::train) const MEMORY: usize = 10;
/// Codes below this are rounding of the scan; the derivative p·f^(p−1) is taken no nearer to zero.
const LEAST: f32 = 1e-4;

/// The penalty of a step.
pub(in crate::train) struct Lp {
    weight: f32,
    share: f32,
    p: f32,
    next: Option<f32>,
}

/// The step of the `j`-th change of the exponent: evenly from the first share of the run to the second.
fn change(options: &Options, j: u32, steps: u64) -> u64 {
    let at = |share: f32| (f64::from(share) * steps as f64).round() as u64;
    let (first, last) = (at(options.anneal.0), at(options.anneal.1));
    let parts = u64::from(options.anneal_updates.max(2) - 1);
    first + (last - first) * u64::from(j) / parts
}

/// The exponent after the `j`-th change.
fn exponent(options: &Options, j: u32) -> f32 {
    let last = options.anneal_updates.max(2) - 1;
    let share = f64::from(j.min(last)) / f64::from(last);
    (1.0 + (f64::from(options.p_end) - 1.0) * share) as f32
}

/// The exponent at `step`, and the next one once the fall has begun.
fn exponents(options: &Options, step: u64, steps: u64) -> (f32, Option<f32>) {
    let n = options.anneal_updates.max(2);
    // A change at step s is seen from step s + 1 on; the first sets 1, where the exponent is already.
    match (0..n).take_while(|&j| change(options, j, steps) < step).count() as u32 {
        0 => (1.0, None),
        done => (exponent(options, done - 1), Some(exponent(options, done))),
    }
}

/// The factor on λ after `step`, whose penalties at this exponent and the next were `powers`.
pub(in crate::train) fn adapt(
    seen: &mut VecDeque<[f64; 2]>,
    options: &Options,
    step: u64,
    steps: u64,
    powers: [f64; 2],
) -> f64 {
    if exponents(options, step, steps).1.is_none() {
        return 1.0;
    }
    seen.push_back(powers);
    if seen.len() > MEMORY {
        seen.pop_front();
    }
    if !(1..options.anneal_updates.max(2)).any(|j| change(options, j, steps) == step) {
        return 1.0;
    }
    let sum = |i: usize| seen.iter().map(|two| two[i]).sum::<f64>();
    let ratio = sum(0) / sum(1);
    if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 }
}

impl Lp {
    pub(super) fn new(options: &Options, step: u64, steps: u64, weight: f32, share: f32) -> Self {
        let (p, next) = exponents(options, step, steps);
        Self { weight, share, p, next }
    }

    /// `∂/∂f_i = λ·p·f_i^(p−1)`.
    pub(super) fn differentiate(&self, row: &mut Row<'_>) -> Penalty {
        let price = self.weight * self.share * self.p;
        let mut powers = [0f64; 2];
        for (slope, &value) in row.slopes.iter_mut().zip(row.values) {
            if self.p == 1.0 {
                *slope += price;
                powers[0] += f64::from(value);
            } else {
                let least = value.max(LEAST);
                let power = least.powf(self.p);
                *slope += price * power / least;
                powers[0] += f64::from(power);
            }
            if let Some(next) = self.next {
                powers[1] += f64::from(value.max(LEAST).powf(next));
            }
        }
        Penalty { value: f64::from(self.weight) * powers[0], powers }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Variant;
    use super::*;

    #[test]
    fn the_exponent_falls_evenly_and_the_coefficient_keeps_the_penalty() {
        let options = Options { anneal: (0.2, 0.8), anneal_updates: 4, p_end: 0.4, ..Options::of(Variant::PAnneal) };
        let at = |step| exponents(&options, step, 100);
        assert_eq!(at(0), (1.0, None));
        assert_eq!(at(20), (1.0, None));
        assert_eq!(at(21), (1.0, Some(0.8)));
        assert_eq!(at(40), (1.0, Some(0.8)));
        assert_eq!(at(41), (0.8, Some(0.6)));
        assert_eq!(at(61), (0.6, Some(0.4)));
        assert_eq!(at(81), (0.4, Some(0.4)));
        let mut seen = VecDeque::new();
        assert_eq!(adapt(&mut seen, &options, 20, 100, [1.0, 0.0]), 1.0);
        for step in 21..40 {
            assert_eq!(adapt(&mut seen, &options, step, 100, [6.0, 3.0]), 1.0, "step {step}");
        }
        assert_eq!(seen.len(), MEMORY);
        assert_eq!(adapt(&mut seen, &options, 40, 100, [6.0, 3.0]), 2.0);
    }
}
