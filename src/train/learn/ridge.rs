//! Ridge regression of many targets on the same weighted rows, factored once.

use crate::error::Result;
use crate::num::linalg::Factor;
use crate::num::{Mat, gemm};

/// Rows to regress on: min Σ ω (s − w·x − b)² + λ σ² ‖w‖² with ω that sum to 1 and σ² the mean variance of x.
pub(super) struct Ridge {
    /// √ω (x − mean) `[n, d]`.
    x: Vec<f32>,
    /// Its mean under ω.
    mean: Vec<f64>,
    /// √ω.
    roots: Vec<f64>,
    d: usize,
    /// Of XᵀX + λσ²·1 `[d, d]`, or where there are fewer rows than columns of XXᵀ + λσ²·1 `[n, n]`.
    factor: Factor,
    threads: usize,
}

impl Ridge {
    /// `x` `[n, d]`, `weights` ω.
    pub(super) fn new(mut x: Vec<f32>, weights: Vec<f64>, d: usize, lambda: f64, threads: usize) -> Result<Self> {
        let mut mean = vec![0f64; d];
        for (row, weight) in x.chunks_exact(d).zip(&weights) {
            mean.iter_mut().zip(row).for_each(|(mean, &v)| *mean += weight * f64::from(v));
        }
        let roots: Vec<f64> = weights.iter().map(|weight| weight.sqrt()).collect();
        for (row, root) in x.chunks_exact_mut(d).zip(&roots) {
            row.iter_mut().zip(&mean).for_each(|(v, mean)| *v = ((f64::from(*v) - mean) * root) as f32);
        }
        let variance = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / d as f64;
        let n = roots.len();
        let side = n.min(d);
        let (rows, mut gram) = (Mat::new(&x, n, d), vec![0f32; side * side]);
        let (left, right) = if n < d { (rows, rows.t()) } else { (rows.t(), rows) };
        gemm(left, right, false, &mut gram, threads);
        let mut gram: Vec<f64> = gram.into_iter().map(f64::from).collect();
        gram.iter_mut().step_by(side + 1).for_each(|v| *v += lambda * variance);
        Ok(Self { factor: Factor::new(&gram, side)?, x, mean, roots, d, threads })
    }

    /// w and b for each of `m` targets `s`, a row for each of the first rows; the targets of the rest are zero. `[≤ n, m]`
    pub(super) fn solve(&self, s: &[f32], m: usize) -> Result<Vec<(Vec<f32>, f64)>> {
        let (y, middle) = self.centred(s, m);
        let w = self.weights(&y, m)?;
        let one = |k: usize| {
            let w: Vec<f32> = w[k..].iter().step_by(m).copied().collect();
            let at_mean: f64 = w.iter().zip(&self.mean).map(|(&w, mean)| f64::from(w) * mean).sum();
            (w, middle[k] - at_mean)
        };
        Ok((0..m).map(one).collect())
    }

    /// √ω times what the regression predicts of targets beyond their mean. `[n, m]`
    pub(super) fn predict(&self, s: &[f32], m: usize) -> Result<Vec<f32>> {
        let w = self.weights(&self.centred(s, m).0, m)?;
        let mut predicted = vec![0f32; self.roots.len() * m];
        gemm(self.rows(), Mat::new(&w, self.d, m), false, &mut predicted, self.threads);
        Ok(predicted)
    }

    /// w·x + b of every row.
    pub(super) fn codes(&self, w: &[f32], b: f64) -> Vec<f64> {
        let at_mean: f64 = w.iter().zip(&self.mean).map(|(&w, mean)| f64::from(w) * mean).sum();
        let along = |row: &[f32]| row.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>();
        self.x.chunks_exact(self.d).zip(&self.roots).map(|(row, root)| along(row) / root + at_mean + b).collect()
    }

    fn rows(&self) -> Mat<'_> {
        Mat::new(&self.x, self.roots.len(), self.d)
    }

    /// √ω (s − mean) `[n, m]`, and the means.
    fn centred(&self, s: &[f32], m: usize) -> (Vec<f32>, Vec<f64>) {
        let mut middle = vec![0f64; m];
        for (row, root) in s.chunks_exact(m).zip(&self.roots) {
            middle.iter_mut().zip(row).for_each(|(middle, &s)| *middle += root * root * f64::from(s));
        }
        let zeros = vec![0f32; m];
        let rows = s.chunks_exact(m).chain(std::iter::repeat(zeros.as_slice()));
        let one = |(row, root): (&[f32], &f64)| {
            row.iter().zip(&middle).map(|(&s, middle)| ((f64::from(s) - middle) * root) as f32).collect::<Vec<_>>()
        };
        (rows.zip(&self.roots).flat_map(one).collect(), middle)
    }

    /// W `[d, m]` for centred targets `[n, m]`.
    fn weights(&self, y: &[f32], m: usize) -> Result<Vec<f32>> {
        let solve = |right: &[f32]| -> Result<Vec<f32>> {
            let right: Vec<f64> = right.iter().map(|&v| f64::from(v)).collect();
            Ok(self.factor.solve(&right)?.into_iter().map(|v| v as f32).collect())
        };
        let (n, x) = (self.roots.len(), self.rows());
        let mut w = vec![0f32; self.d * m];
        if n < self.d {
            gemm(x.t(), Mat::new(&solve(y)?, n, m), false, &mut w, self.threads);
            return Ok(w);
        }
        gemm(x.t(), Mat::new(y, n, m), false, &mut w, self.threads);
        solve(&w)
    }
}
