//! Gated (arXiv 2404.16014): whether a feature is active and how strongly are decided by two paths that share a direction.
//!
//! `π = u + b_gate` opens the gate where it is positive; `m = exp(r)·u + b_mag` is the magnitude; `f = [π > 0]·max(m, 0)`.
//! The objective is `‖x̂(f) − x‖² + λ·Σ max(π, 0) + ‖x̂'(max(π, 0)) − x‖²`, where x̂' rebuilds with a frozen copy of the
//! decoder (eq. 8): so the penalty shrinks the gate's scores, not the magnitudes.
//!
//! The scan passes what has an open gate: a score is π.

use super::{Penalty, Row};
use crate::train::weights::State;

/// The numbers of the two paths, and the penalty of a step.
pub(in crate::train) struct Gate {
    weight: f32,
    share: f32,
    gate_bias: Vec<f32>,
    magnitude_bias: Vec<f32>,
    /// exp(r).
    gain: Vec<f32>,
}

impl Gate {
    pub(super) fn new(state: &State, weight: f32, share: f32) -> Self {
        Self {
            weight,
            share,
            gate_bias: state.encoder_bias.values.clone(),
            magnitude_bias: state.extras[0].values.clone(),
            gain: state.extras[1].values.iter().map(|r| r.exp()).collect(),
        }
    }

    pub(super) fn activate(&self, features: &[u32], scores: &[f32], values: &mut [f32]) {
        for ((value, &score), &f) in values.iter_mut().zip(scores).zip(features) {
            let f = f as usize;
            *value = (self.gain[f] * (score - self.gate_bias[f]) + self.magnitude_bias[f]).max(0.0);
        }
    }

    /// `∂/∂u = e^r·∂/∂m + ∂/∂π`, with `∂/∂m` where the magnitude is positive and `∂/∂π = pull + λ`.
    pub(super) fn differentiate(&self, row: &mut Row<'_>) -> Penalty {
        let mut sum = 0f64;
        for (j, side) in row.sides.iter_mut().enumerate() {
            let f = row.features[j] as usize;
            let by_magnitude = if row.values[j] > 0.0 { row.slopes[j] } else { 0.0 };
            let by_gate = row.pulls[j] + self.weight * self.share;
            let scaled = self.gain[f] * by_magnitude;
            row.slopes[j] = scaled + by_gate;
            *side = [by_gate, by_magnitude, scaled * (row.scores[j] - self.gate_bias[f])];
            sum += f64::from(row.scores[j]);
        }
        Penalty { value: f64::from(self.weight) * sum, ..Penalty::default() }
    }
}
