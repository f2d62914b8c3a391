//! JumpReLU (arXiv 2407.14435): a feature is active where its score `z = u + b_enc` exceeds its own threshold θ > 0, and
//! `λ·L0` is added to the error.
//!
//! Neither the jump nor L0 has a useful derivative by θ. In its place stands one smeared over a rectangle of width ε around
//! the threshold (eqs. 11, 12), `K = 1/ε` where `|z − θ| < ε/2`, else 0:
//! `∂f/∂θ = −θ·K` and `∂L0/∂θ = −K`. By the weights the derivative is that of what is active, as in ReLU.
//!
//! The scan therefore passes what exceeds `θ − ε/2`: a score of the scan is `z − θ + ε/2`, and ε/2 tells what is active.

use super::{Penalty, Row};
use crate::train::options::Options;
use crate::train::weights::State;

/// The thresholds and the penalty of a step.
pub(in crate::train) struct Jump {
    weight: f32,
    share: f32,
    half: f32,
    log: bool,
    thresholds: Vec<f32>,
}

/// What a threshold's parameter starts from.
pub(super) fn start(options: &Options) -> f32 {
    parameter(options, options.threshold)
}

/// The parameter that stands for a threshold.
pub(in crate::train) fn parameter(options: &Options, threshold: f32) -> f32 {
    if options.log_threshold { threshold.max(1e-9).ln() } else { threshold }
}

/// The threshold that a parameter stands for.
pub(in crate::train) fn threshold(options: &Options, parameter: f32) -> f32 {
    if options.log_threshold { parameter.exp() } else { parameter }
}

/// What the scan adds to `u`.
pub(super) fn offset(options: &Options, bias: f32, parameter: f32) -> f32 {
    bias - threshold(options, parameter) + options.bandwidth / 2.0
}

impl Jump {
    pub(super) fn new(options: &Options, state: &State, weight: f32, share: f32) -> Self {
        let thresholds = state.extras[0].values.iter().map(|&p| threshold(options, p)).collect();
        Self { weight, share, half: options.bandwidth / 2.0, log: options.log_threshold, thresholds }
    }

    pub(super) fn activate(&self, features: &[u32], scores: &[f32], values: &mut [f32]) {
        for ((value, &score), &f) in values.iter_mut().zip(scores).zip(features) {
            let beyond = score - self.half;
            *value = if beyond > 0.0 { beyond + self.thresholds[f as usize] } else { 0.0 };
        }
    }

    /// `λ·(L0/k − 1)²`: its derivative by L0 takes the place of λ. Returns the penalty.
    pub(super) fn settle(&mut self, k: usize, l0: f64) -> f64 {
        let (k, weight) = (k as f64, f64::from(self.weight));
        let off = l0 / k - 1.0;
        self.weight = (2.0 * weight * off / k) as f32;
        // Every code adds λ to the penalty; the sum over the batch is to be the square instead.
        weight * off * off - f64::from(self.weight) * l0
    }

    pub(super) fn differentiate(&self, row: &mut Row<'_>) -> Penalty {
        let (kernel, price) = (0.5 / self.half, self.weight * self.share);
        let mut active = 0u32;
        for (j, side) in row.sides.iter_mut().enumerate() {
            let (pull, threshold) = (row.slopes[j], self.thresholds[row.features[j] as usize]);
            let beyond = row.scores[j] - self.half;
            let near = beyond.abs() < self.half;
            let slope = if beyond > 0.0 { pull } else { 0.0 };
            let by_threshold = if near { -kernel * (threshold * pull + price) } else { 0.0 };
            active += u32::from(beyond > 0.0);
            row.slopes[j] = slope;
            *side = [slope, if self.log { threshold * by_threshold } else { by_threshold }, 0.0];
        }
        Penalty { value: f64::from(self.weight) * f64::from(active), ..Penalty::default() }
    }
}
