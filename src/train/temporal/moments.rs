//! Lagged covariances and what follows from them alone: Φ_τ by block Yule–Walker.

use nalgebra::{Cholesky, DMatrix, Dyn};

use super::frame::{Frame, for_chunks};
use super::sequences::Sequences;
use crate::error::{Error, Result};
use crate::num::gemm;
use crate::progress::{Progress, report};

/// E\[z_{t−a} z_{t−b}ᵀ\] for a, b = 0 … lags, all over the same targets t of all documents: one covariance, without negative
/// eigenvalues. (Blocks of a stationary process depend on b − a alone, but text is none: a feature of a document's first
/// rows varies in the past of the targets and hardly in the targets themselves.)
pub(super) struct Moments {
    /// Targets.
    pub(super) count: usize,
    n: usize,
    lags: usize,
    /// The blocks `[n, n]` with a ≤ b, by rows.
    blocks: Vec<DMatrix<f64>>,
}

impl Moments {
    /// Counts them: `(lags + 1)(lags + 2) / 2 · n²` products a row.
    pub(super) fn of(
        sequences: &Sequences<'_>,
        frame: &Frame,
        lags: usize,
        threads: usize,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        let n = frame.n();
        let total = sequences.n_targets(lags);
        let mut product = vec![0f32; n * n];
        let pairs: Vec<(usize, usize)> = (0..=lags).flat_map(|a| (a..=lags).map(move |b| (a, b))).collect();
        let mut sums = vec![vec![0f64; n * n]; pairs.len()];
        let mut count = 0;
        for_chunks(sequences, frame, lags, threads, |chunk| {
            for (&(a, b), sum) in pairs.iter().zip(&mut sums) {
                gemm(chunk.lagged(a).t(), chunk.lagged(b), false, &mut product, threads);
                sum.iter_mut().zip(&product).for_each(|(s, &v)| *s += f64::from(v));
            }
            count += chunk.len();
            report(progress, count as u64, total as u64, "covariances")
        })?;
        if count <= n * lags {
            return Err(Error::argument(format!(
                "rows: {n} latents and {lags} lags need more than {} rows with a past, found {count}",
                n * lags
            )));
        }
        let blocks = sums
            .into_iter()
            .map(|sum| DMatrix::from_row_iterator(n, n, sum.into_iter().map(|v| v / count as f64)))
            .collect();
        Ok(Self { count, n, lags, blocks })
    }

    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// E\[z_{t−a} z_{t−b}ᵀ\], for a ≤ b.
    fn block(&self, a: usize, b: usize) -> &DMatrix<f64> {
        // Before row a lie lags + 1, lags, … blocks.
        &self.blocks[a * (self.lags + 1) - a * a.saturating_sub(1) / 2 + b - a]
    }

    /// E\[z_t z_tᵀ\].
    pub(super) fn now(&self) -> &DMatrix<f64> {
        self.block(0, 0)
    }

    /// The covariance of two latents, each so many rows before the target: `(rows, latent)`.
    pub(super) fn entry(&self, a: (usize, usize), b: (usize, usize)) -> f64 {
        if a.0 <= b.0 { self.block(a.0, b.0)[(a.1, b.1)] } else { self.block(b.0, a.0)[(b.1, a.1)] }
    }

    /// The same moments of `T z`.
    pub(super) fn mapped(&self, t: &DMatrix<f64>) -> Self {
        let blocks = self.blocks.iter().map(|block| t * block * t.transpose()).collect();
        Self { blocks, n: t.nrows(), ..*self }
    }

    /// E of the lagged rows with each other, `[n·lags, n·lags]`: block (τ, σ) is E\[z_{t−τ} z_{t−σ}ᵀ\].
    pub(super) fn past(&self) -> DMatrix<f64> {
        let (n, lags) = (self.n, self.lags);
        let mut g = DMatrix::zeros(n * lags, n * lags);
        for tau in 0..lags {
            for sigma in 0..lags {
                let mut block = g.view_mut((tau * n, sigma * n), (n, n));
                match sigma >= tau {
                    true => block.copy_from(self.block(1 + tau, 1 + sigma)),
                    false => block.tr_copy_from(self.block(1 + sigma, 1 + tau)),
                }
            }
        }
        g
    }

    /// E\[z_t z_{t−τ}ᵀ\] for τ = 1 … lags, `[n, n·lags]`.
    pub(super) fn cross(&self) -> DMatrix<f64> {
        let n = self.n;
        let mut cross = DMatrix::zeros(n, n * self.lags);
        for k in 0..self.lags {
            cross.columns_mut(k * n, n).copy_from(self.block(0, 1 + k));
        }
        cross
    }

    /// Φ = \[Φ_1 … Φ_lags\] `[n, n·lags]` that minimises E‖z_t − Σ Φ_τ z_{t−τ}‖² + ridge·‖Φ‖², for columns of variance 1,
    /// and the factor of the past's covariance.
    pub(super) fn regress(&self, ridge: f64) -> Result<(DMatrix<f64>, Cholesky<f64, Dyn>)> {
        let mut past = self.past();
        let size = past.nrows();
        let mean = past.diagonal().sum() / size.max(1) as f64;
        for i in 0..size {
            past[(i, i)] += ridge * mean;
        }
        let factor = Cholesky::new(past).ok_or_else(|| {
            Error::numeric(format!("the [{size}, {size}] covariance of the past is singular; raise ridge ({ridge})"))
        })?;
        let phi = factor.solve(&self.cross().transpose()).transpose();
        match phi.iter().all(|v| v.is_finite()) {
            true => Ok((phi, factor)),
            false => Err(Error::numeric("the regression on the past has no finite solution; raise ridge")),
        }
    }

    /// The covariance of z_t − Φ·past.
    pub(super) fn residual(&self, phi: &DMatrix<f64>) -> DMatrix<f64> {
        let half = phi * self.cross().transpose();
        let s = self.now() - &half - half.transpose() + phi * self.past() * phi.transpose();
        (&s + s.transpose()) * 0.5
    }
}

/// The Cholesky factor of a covariance. Its sums are rounded, so what is left of features that nearly repeat each other can
/// come out a little below zero: then a ridge, as small as will do, is added.
pub(super) fn factor(covariance: &DMatrix<f64>) -> Option<Cholesky<f64, Dyn>> {
    /// More than this is no rounding.
    const MOST: f64 = 1e-3;
    let mut ridge = 0.0;
    loop {
        let mut raised = covariance.clone();
        (0..raised.nrows()).for_each(|i| raised[(i, i)] *= 1.0 + ridge);
        match Cholesky::new(raised) {
            Some(factor) => return Some(factor),
            None if ridge >= MOST => return None,
            None => ridge = if ridge == 0.0 { 1e-6 } else { 4.0 * ridge },
        }
    }
}

/// The square root of a symmetric positive matrix or its inverse: V f(Λ) Vᵀ.
pub(super) fn symmetric(s: &DMatrix<f64>, f: impl Fn(f64) -> f64) -> DMatrix<f64> {
    let eigen = s.clone().symmetric_eigen();
    let scaled = DMatrix::from_fn(s.nrows(), s.ncols(), |i, j| eigen.eigenvectors[(i, j)] * f(eigen.eigenvalues[j]));
    scaled * eigen.eigenvectors.transpose()
}
