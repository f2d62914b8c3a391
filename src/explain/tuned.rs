//! The estimator `tuned`: the lens behind a linear map from the dictionary's layer to the final residual.
//!
//! The unembedding reads the final residual; a decoder row of a middle layer speaks another language. A ridge regression
//! over rows x of layer l and y of the last layer, at the same tokens, learns to translate:
//!
//! ```text
//! M = argmin Σ ‖x M + b − y‖² + λ ‖M‖²,    λ = ridge · Σ‖x − x̄‖² / d_model        (ours)
//! ```
//!
//! Decoder rows are directions: they go through M alone, without b.

use crate::error::{Error, Result};
use crate::num::linalg::Normal;

/// The ridge of [`Fit::solve`] that is usual.
pub const DEFAULT_RIDGE: f64 = 1e-3;

/// A regression that is filled with rows, batch by batch.
#[derive(Clone, Debug)]
pub struct Fit {
    d_model: usize,
    normal: Normal,
    /// What is taken off x and y: the means of the first batch, so that the sums stay well conditioned.
    shift: Option<(Vec<f32>, Vec<f32>)>,
    square: f64,
    n_rows: u64,
}

impl Fit {
    /// No rows yet.
    pub fn new(d_model: usize) -> Self {
        Self { d_model, normal: Normal::new(d_model + 1, d_model), shift: None, square: 0.0, n_rows: 0 }
    }

    /// Adds rows of the dictionary's layer and of the last layer at the same tokens, both `[n, d_model]`.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if the lengths differ, [`Numeric`](crate::Kind::Numeric) if a row is not finite.
    pub fn add(&mut self, from: &[f32], to: &[f32], threads: usize) -> Result<()> {
        let d = self.d_model;
        if from.len() != to.len() || d == 0 || !from.len().is_multiple_of(d) {
            let (from, to) = (from.len(), to.len());
            return Err(Error::argument(format!("tuned: {from} and {to} values are not rows of {d}")));
        }
        if from.is_empty() {
            return Ok(());
        }
        if from.iter().chain(to).any(|v| !v.is_finite()) {
            return Err(Error::numeric("tuned: a residual row is not finite"));
        }
        let (shift_x, shift_y) = self.shift.get_or_insert_with(|| (mean_row(from, d), mean_row(to, d)));
        // A column of ones takes up what is left of the intercept.
        let mut x = Vec::with_capacity(from.len() / d * (d + 1));
        let mut y = Vec::with_capacity(to.len());
        for (from, to) in from.chunks(d).zip(to.chunks(d)) {
            x.extend(from.iter().zip(&*shift_x).map(|(v, shift)| v - shift));
            x.push(1.0);
            y.extend(to.iter().zip(&*shift_y).map(|(v, shift)| v - shift));
        }
        self.square += x.chunks(d + 1).flat_map(|row| &row[..d]).map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        self.n_rows += (from.len() / d) as u64;
        self.normal.add(&x, &y, threads.max(1))
    }

    /// The number of rows added.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// The map M, `[d_model, d_model]`, row-major: y ≈ x·M. `ridge` is the penalty relative to the mean variance of x.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if there were fewer rows than `d_model` or the ridge is not positive;
    /// [`Numeric`](crate::Kind::Numeric).
    pub fn solve(&self, ridge: f64) -> Result<Vec<f32>> {
        if self.n_rows < self.d_model as u64 {
            let (n, d) = (self.n_rows, self.d_model);
            return Err(Error::argument(format!("tuned: expected at least {d} rows to fit a map, found {n}")));
        }
        if !(ridge > 0.0 && ridge.is_finite()) {
            return Err(Error::argument(format!("tuned: expected a positive ridge, found {ridge}")));
        }
        let mut map = self.normal.solve(ridge * self.square / self.d_model as f64)?;
        map.truncate(self.d_model * self.d_model);
        Ok(map)
    }
}

fn mean_row(rows: &[f32], d: usize) -> Vec<f32> {
    let mut sum = vec![0f64; d];
    rows.chunks(d).for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v)));
    let n = (rows.len() / d) as f64;
    sum.into_iter().map(|sum| (sum / n) as f32).collect()
}
