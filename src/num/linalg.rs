//! Dense solvers in `f64`, on crate `nalgebra`.

use super::{Mat, gemm};
use crate::error::{Error, Result};
use nalgebra::{Cholesky, DMatrix, Dyn};

/// A symmetric positive definite matrix, factored once for many right sides.
pub struct Factor(Cholesky<f64, Dyn>);

impl Factor {
    /// Factors `a` `[n, n]`, row-major, of which the lower triangle is read.
    ///
    /// # Errors
    /// [`Kind::Numeric`](crate::Kind::Numeric) if it is not positive definite, [`Kind::Argument`](crate::Kind::Argument) if it
    /// is no square.
    pub fn new(a: &[f64], n: usize) -> Result<Self> {
        if n == 0 || n.checked_mul(n) != Some(a.len()) {
            return Err(Error::argument(format!("solve: {} values are no square of {n}", a.len())));
        }
        let factor = Cholesky::new(DMatrix::from_row_slice(n, n, a));
        factor.map(Self).ok_or_else(|| Error::numeric(format!("the [{n}, {n}] matrix is not positive definite")))
    }

    /// X of A·X = B: `b` and the result are `[n, m]`, row-major.
    ///
    /// # Errors
    /// [`Kind::Numeric`](crate::Kind::Numeric) if there is no finite solution, [`Kind::Argument`](crate::Kind::Argument) if the
    /// sizes do not agree.
    pub fn solve(&self, b: &[f64]) -> Result<Vec<f64>> {
        let n = self.0.l_dirty().nrows();
        if !b.len().is_multiple_of(n) {
            return Err(Error::argument(format!("solve: {} values are no right side of {n} unknowns", b.len())));
        }
        let x = self.0.solve(&DMatrix::from_row_slice(n, b.len() / n, b));
        if x.iter().any(|v| !v.is_finite()) {
            return Err(Error::numeric(format!("the [{n}, {n}] system has no finite solution")));
        }
        // Column-major X is row-major Xᵀ.
        Ok(x.transpose().as_slice().to_vec())
    }
}

/// Solves A·X = B once, as [`Factor`] does.
pub fn cholesky_solve(a: &[f64], b: &[f64], n: usize) -> Result<Vec<f64>> {
    Factor::new(a, n)?.solve(b)
}

/// Eigenvectors of a symmetric `a` `[n, n]` as rows of `[n, n]`, that of the largest eigenvalue first.
pub fn eigenvectors(a: &[f64], n: usize) -> Vec<f64> {
    let eigen = DMatrix::from_row_slice(n, n, a).symmetric_eigen();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]).then(a.cmp(&b)));
    order.into_iter().flat_map(|i| eigen.eigenvectors.column(i).iter().copied().collect::<Vec<_>>()).collect()
}

/// Ridge regression: W `[d_in, d_out]` that minimises ‖X·W − Y‖² + λ·‖W‖² for rows `x` `[n, d_in]` and `y` `[n, d_out]`.
/// No intercept: centre the rows, or append a column of ones.
///
/// Solves the normal equations (XᵀX + λI)·W = XᵀY; blocks of rows are multiplied in `f32` and summed in `f64`.
pub fn ridge(x: &[f32], y: &[f32], d_in: usize, d_out: usize, lambda: f64, threads: usize) -> Result<Vec<f32>> {
    let mut normal = Normal::new(d_in, d_out);
    normal.add(x, y, threads)?;
    normal.solve(lambda)
}

/// The normal equations of a ridge regression, filled from as many batches of rows as there are.
#[derive(Clone, Debug)]
pub struct Normal {
    d_in: usize,
    d_out: usize,
    /// XᵀX, `[d_in, d_in]`.
    gram: Vec<f64>,
    /// XᵀY, `[d_in, d_out]`.
    cross: Vec<f64>,
}

impl Normal {
    /// No rows yet.
    pub fn new(d_in: usize, d_out: usize) -> Self {
        Self { d_in, d_out, gram: vec![0.0; d_in * d_in], cross: vec![0.0; d_in * d_out] }
    }

    /// Adds rows `x` `[n, d_in]` and `y` `[n, d_out]`.
    pub fn add(&mut self, x: &[f32], y: &[f32], threads: usize) -> Result<()> {
        /// Rows multiplied in `f32` before the sum moves to `f64`.
        const BLOCK: usize = 1024;
        let (d_in, d_out) = (self.d_in, self.d_out);
        let n = x.len() / d_in.max(1);
        if d_in == 0 || d_out == 0 || x.len() != n * d_in || y.len() != n * d_out {
            let (x, y) = (x.len(), y.len());
            return Err(Error::argument(format!("ridge: {x} and {y} values are not rows of {d_in} and {d_out}")));
        }
        let (mut gram, mut cross) = (vec![0f32; d_in * d_in], vec![0f32; d_in * d_out]);
        for (x, y) in x.chunks(BLOCK * d_in).zip(y.chunks(BLOCK * d_out)) {
            let x = Mat::new(x, x.len() / d_in, d_in);
            gemm(x.t(), x, false, &mut gram, threads);
            gemm(x.t(), Mat::new(y, y.len() / d_out, d_out), false, &mut cross, threads);
            self.gram.iter_mut().zip(&gram).for_each(|(sum, v)| *sum += f64::from(*v));
            self.cross.iter_mut().zip(&cross).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        Ok(())
    }

    /// W `[d_in, d_out]`, row-major, for the penalty `lambda` ≥ 0.
    pub fn solve(&self, lambda: f64) -> Result<Vec<f32>> {
        let mut gram = self.gram.clone();
        gram.iter_mut().step_by(self.d_in + 1).for_each(|v| *v += lambda);
        let w = cholesky_solve(&gram, &self.cross, self.d_in)?;
        Ok(w.into_iter().map(|v| v as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng;
    use super::*;
    use crate::error::Kind;
    use rand::Rng;

    #[test]
    fn cholesky_solves_a_known_system() {
        // [[4, 2], [2, 3]] · [[1, 0], [-1, 2]] = [[2, 4], [-1, 6]]; the upper triangle is not read.
        let x = cholesky_solve(&[4.0, f64::NAN, 2.0, 3.0], &[2.0, 4.0, -1.0, 6.0], 2).unwrap();
        for (found, expected) in x.iter().zip([1.0, 0.0, -1.0, 2.0]) {
            assert!((found - expected).abs() < 1e-12, "{x:?}");
        }
    }

    #[test]
    fn an_indefinite_matrix_is_refused() {
        let error = cholesky_solve(&[1.0, 2.0, 2.0, 1.0], &[1.0, 1.0], 2).unwrap_err();
        assert_eq!(error.kind(), Kind::Numeric);
        assert_eq!(cholesky_solve(&[1.0; 3], &[1.0; 2], 2).unwrap_err().kind(), Kind::Argument);
        assert_eq!(cholesky_solve(&[f64::NAN; 4], &[1.0; 2], 2).unwrap_err().kind(), Kind::Numeric);
    }

    #[test]
    fn ridge_finds_the_map_that_made_the_rows() {
        let (n, d_in, d_out) = (3000, 5, 3);
        let mut rng = rng(3);
        let w: Vec<f32> = (0..d_in * d_out).map(|_| rng.random_range(-2f32..2.0)).collect();
        let x: Vec<f32> = (0..n * d_in).map(|_| rng.random_range(-1f32..1.0)).collect();
        let mut y = vec![0.0; n * d_out];
        gemm(Mat::new(&x, n, d_in), Mat::new(&w, d_in, d_out), false, &mut y, 1);
        let found = ridge(&x, &y, d_in, d_out, 1e-6, 2).unwrap();
        for (found, w) in found.iter().zip(&w) {
            assert!((found - w).abs() < 1e-4, "{found} for {w}");
        }
        let shrunk = ridge(&x, &y, d_in, d_out, 1e6, 2).unwrap();
        assert!(crate::num::norm(&shrunk) < 0.01 * crate::num::norm(&w), "a large penalty shrinks the map");
        assert_eq!(ridge(&x, &y[1..], d_in, d_out, 1.0, 1).unwrap_err().kind(), Kind::Argument);
    }
}
