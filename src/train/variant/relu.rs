//! ReLU: codes are positive scores, `f_i = max(u_i + b_i, 0)`, and `λ·Σ f_i` is added to the error (L1).
//!
//! With a free decoder it is `λ·Σ f_i·‖W_dec[i]‖`, so that long decoder rows can't buy small codes (Anthropic, Circuits
//! Updates April 2024).

use super::{Penalty, Row};

/// The penalty of a step.
pub(in crate::train) struct L1 {
    /// λ.
    pub(super) weight: f32,
    /// 1 / batch.
    pub(super) share: f32,
    /// `‖W_dec[i]‖`; empty where it is 1.
    pub(super) norms: Vec<f32>,
}

impl L1 {
    /// `∂/∂f_i = λ·‖W_dec[i]‖`.
    pub(super) fn differentiate(&self, row: &mut Row<'_>) -> Penalty {
        let mut sum = 0f64;
        for ((slope, &value), &f) in row.slopes.iter_mut().zip(row.values).zip(row.features) {
            let norm = self.norms.get(f as usize).copied().unwrap_or(1.0);
            *slope += self.weight * self.share * norm;
            sum += f64::from(value * norm);
        }
        Penalty { value: f64::from(self.weight) * sum, ..Penalty::default() }
    }
}
