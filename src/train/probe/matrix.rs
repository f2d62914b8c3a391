//! The rows of a regression, standardised, with the two products that solvers need.

use crate::num::parallel::each;
use crate::num::{axpy, dot};

/// Rows in a piece of work. Sums of `f32` over a piece go on in `f64`, in the order of the pieces.
const PIECE: usize = 256;

/// A matrix `[n, d]`.
pub(super) struct Matrix {
    pub(super) n: usize,
    pub(super) d: usize,
    /// Row-major, or column-major if so asked for.
    values: Vec<f32>,
    /// What was subtracted from a column, and what it was divided by.
    mean: Vec<f64>,
    scale: Vec<f64>,
    threads: usize,
}

impl Matrix {
    /// Copies `x` `[n, d]`; constant columns become zero when standardised.
    pub(super) fn new(x: &[f32], d: usize, standardize: bool, columns: bool, threads: usize) -> Self {
        /// Fewer values than this are not worth a thread.
        const SMALL: usize = 1 << 18;
        let n = x.len() / d;
        let threads = if x.len() < SMALL { 1 } else { threads };
        let (mut mean, mut scale) = (vec![0f64; d], vec![1f64; d]);
        if standardize {
            for row in x.chunks_exact(d) {
                mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
            }
            mean.iter_mut().for_each(|m| *m /= n as f64);
            scale.fill(0.0);
            for row in x.chunks_exact(d) {
                for j in 0..d {
                    scale[j] += (f64::from(row[j]) - mean[j]).powi(2);
                }
            }
            for (s, m) in scale.iter_mut().zip(&mean) {
                *s = (*s / n as f64).sqrt();
                // What is left of a constant column is rounding.
                if *s <= 1e-7 * m.abs() || *s == 0.0 {
                    *s = f64::INFINITY;
                }
            }
        }
        let mut values = vec![0f32; n * d];
        for (i, row) in x.chunks_exact(d).enumerate() {
            for j in 0..d {
                let at = if columns { j * n + i } else { i * d + j };
                values[at] = ((f64::from(row[j]) - mean[j]) / scale[j]) as f32;
            }
        }
        Self { n, d, values, mean, scale, threads }
    }

    /// Weights and intercept for the columns as they were given.
    pub(super) fn restore(&self, weights: &[f64], bias: f64) -> (Vec<f32>, f32) {
        let plain: Vec<f64> = weights.iter().zip(&self.scale).map(|(w, s)| w / s).collect();
        let shift: f64 = plain.iter().zip(&self.mean).map(|(w, m)| w * m).sum();
        (plain.iter().map(|&w| w as f32).collect(), (bias - shift) as f32)
    }

    /// Column `j` of a column-major matrix.
    pub(super) fn column(&self, j: usize) -> &[f32] {
        &self.values[j * self.n..(j + 1) * self.n]
    }

    /// `out = X·w + b`.
    pub(super) fn times(&self, w: &[f64], b: f64, out: &mut [f64]) {
        let w: Vec<f32> = w.iter().map(|&w| w as f32).collect();
        let pieces = self.values.chunks(PIECE * self.d).zip(out.chunks_mut(PIECE));
        each(self.threads, pieces, |(rows, out)| {
            for (out, row) in out.iter_mut().zip(rows.chunks_exact(self.d)) {
                *out = f64::from(dot(row, &w)) + b;
            }
        });
    }

    /// `Xᵀ·v` and `Σ v`.
    pub(super) fn transposed_times(&self, v: &[f64]) -> (Vec<f64>, f64) {
        let mut sums: Vec<Vec<f32>> = v.chunks(PIECE).map(|_| Vec::new()).collect();
        let pieces = self.values.chunks(PIECE * self.d).zip(v.chunks(PIECE)).zip(&mut sums);
        each(self.threads, pieces, |((rows, v), sum)| {
            sum.resize(self.d, 0.0);
            for (row, &v) in rows.chunks_exact(self.d).zip(v) {
                axpy(v as f32, row, sum);
            }
        });
        let mut out = vec![0f64; self.d];
        for sum in &sums {
            out.iter_mut().zip(sum).for_each(|(out, &s)| *out += f64::from(s));
        }
        (out, v.iter().sum())
    }

    /// `Σ_i h_i·x_ij²` for every column.
    pub(super) fn squares(&self, h: &[f64]) -> Vec<f64> {
        let mut out = vec![0f64; self.d];
        for (row, &h) in self.values.chunks_exact(self.d).zip(h) {
            out.iter_mut().zip(row).for_each(|(out, &x)| *out += h * f64::from(x) * f64::from(x));
        }
        out
    }
}
