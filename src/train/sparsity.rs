//! How hard codes are pressed: the weight λ of the sparsity penalty over a run.
//!
//! Papers fix λ and report what L0 came of it. Here λ may also follow the number of codes: it is raised while rows have
//! more than `k` and lowered while they have fewer, a proportional part at once and an integral part slowly, both on the
//! logarithm: `ln λ = I + ln(L0/k)`, `I += 0.005·ln(L0/k)`. The weights answer to λ within a few hundred steps, which is
//! the ratio of the two parts; a run of less than 1,000 steps has no time for that, and a larger ratio.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::options::Options;
use super::variant::{Variant, panneal};

/// How the sparsity penalty is weighed. Coefficients are for rows scaled to mean squared norm `d_model`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sparsity {
    /// The coefficient follows the number of codes, so that rows come to have `k` on average.
    #[default]
    Target,
    /// The coefficient λ is fixed, as papers have it, and L0 is what comes of it. (P-annealing starts from λ.)
    Fixed(f32),
    /// JumpReLU only: `λ·(L0/k − 1)²`, where L0 is the batch's mean.
    Quadratic(f32),
}

impl Sparsity {
    /// The coefficient that was given; 1 where it is found on the way.
    pub(super) fn given(self) -> f32 {
        match self {
            Self::Target => 1.0,
            Self::Fixed(value) | Self::Quadratic(value) => value,
        }
    }
}

/// How strongly the integral part answers to an error of one in a step.
const INTEGRAL: f64 = 0.005;
/// The least that it answers over a whole run: short runs raise the share of a step.
const WHOLE_RUN: f64 = 5.0;
/// The largest error that it answers to: before the weights have settled it says little.
const BOUND: f64 = 0.5;
/// The errors that the proportional part answers to. Upwards little: a step with many codes is where a run starts, and a
/// penalty that kills features there is not undone.
const REACH: std::ops::RangeInclusive<f64> = -2.0..=1.0;

/// The weight of the penalty, and what it depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pressure {
    /// λ before the proportional part.
    coefficient: f64,
    /// `ln(L0/k)` of the step before.
    error: f64,
    /// P-annealing: the last batches' penalties at this exponent and the next.
    seen: VecDeque<[f64; 2]>,
}

impl Pressure {
    /// The numbers of a state.
    pub(super) const LEN: usize = 2 + 2 * panneal::MEMORY;

    pub(super) fn new(options: &Options) -> Self {
        Self { coefficient: options.sparsity.given().into(), error: 0.0, seen: VecDeque::new() }
    }

    /// λ at `step` of `steps`.
    pub(super) fn weight(&self, options: &Options, step: u64, steps: u64) -> f64 {
        if !options.variant.has_penalty() {
            return 0.0;
        }
        let warm_up = options.sparsity_warm_up.min(steps / 5);
        let up = if step < warm_up { step as f64 / warm_up as f64 } else { 1.0 };
        let proportional = match options.sparsity {
            Sparsity::Target => self.error.clamp(*REACH.start(), *REACH.end()).exp(),
            _ => 1.0,
        };
        self.coefficient * proportional * up
    }

    /// Takes note of a step's mean number of codes and, in P-annealing, of its penalties at two exponents.
    pub(super) fn note(&mut self, options: &Options, step: u64, steps: u64, l0: f64, powers: [f64; 2]) {
        if options.variant == Variant::PAnneal {
            self.coefficient *= panneal::adapt(&mut self.seen, options, step, steps, powers);
        }
        if options.sparsity == Sparsity::Target && options.variant.has_penalty() {
            self.error = (l0.max(1e-3) / options.k as f64).ln();
            let integral = INTEGRAL.max(WHOLE_RUN / steps as f64);
            self.coefficient *= (integral * self.error.clamp(-BOUND, BOUND)).exp();
        }
    }

    /// As numbers, for a checkpoint.
    pub(super) fn numbers(&self) -> Vec<f64> {
        let mut all = vec![self.coefficient, self.error];
        all.extend(self.seen.iter().flatten());
        all.resize(Self::LEN, f64::NAN);
        all
    }

    /// From numbers of a checkpoint, [`LEN`](Self::LEN) of them.
    pub(super) fn from_numbers(numbers: &[f64]) -> Self {
        let seen = numbers[2..].chunks_exact(2).filter(|two| !two[0].is_nan()).map(|two| [two[0], two[1]]).collect();
        Self { coefficient: numbers[0], error: numbers[1], seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_warms_up_and_follows_the_number_of_codes() {
        let options = Options { k: 10, sparsity_warm_up: 4, ..Options::of(Variant::Relu) };
        let mut pressure = Pressure::new(&options);
        let up: Vec<f64> = (0..6).map(|step| pressure.weight(&options, step, 100)).collect();
        assert_eq!(up, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
        pressure.note(&options, 5, 10_000, 20.0, [0.0; 2]);
        assert!((pressure.weight(&options, 6, 10_000) - 2.0 * (0.5f64 * 0.005).exp()).abs() < 1e-9, "{pressure:?}");
        pressure.note(&options, 6, 10_000, 5.0, [0.0; 2]);
        assert!((pressure.weight(&options, 7, 10_000) - 0.5).abs() < 1e-9, "{pressure:?}");
        pressure.note(&options, 7, 100, 20.0, [0.0; 2]);
        assert!((pressure.weight(&options, 8, 100) - 2.0 * (0.5f64 * 0.05).exp()).abs() < 1e-9, "{pressure:?}");
        let fixed = Options { sparsity: Sparsity::Fixed(3.0), ..options.clone() };
        let mut pressure = Pressure::new(&fixed);
        pressure.note(&fixed, 6, 100, 500.0, [0.0; 2]);
        assert_eq!(pressure.weight(&fixed, 7, 100), 3.0);
        assert_eq!(Pressure::from_numbers(&pressure.numbers()), pressure);
        let topk = Options::of(Variant::TopK);
        assert_eq!(Pressure::new(&topk).weight(&topk, 50, 100), 0.0);
    }
}
