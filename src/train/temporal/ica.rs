//! Independent components of residuals: symmetric FastICA (Hyvärinen 1999) with g(y) = y / (c + |y|).
//!
//! g is the derivative of |y| − c·log(1 + |y|/c), between the logistic and the Laplace likelihood: as efficient as tanh for
//! long-tailed noise, without a transcendental function for each of the `rows · n` values of a step. The rows are made
//! orthogonal by Newton and Schulz's iteration, which is products of matrices and so as fast as they are.

use nalgebra::DMatrix;

use crate::error::{Error, Result};
use crate::num::{Mat, dot, gemm};
use crate::progress::{Progress, report};

/// The constant c of g, in standard deviations.
const SOFTNESS: f32 = 0.5;
/// Rows that are turned at a time.
const BLOCK: usize = 2048;
/// A step that turns no row by more than this is the last: 1 − |cos|.
const TOLERANCE: f32 = 1e-5;

/// The rotation W `[n, n]`, row-major, that makes the columns of X Wᵀ as independent as they get, for white rows `x`
/// `[m, n]`, starting from `w`. Stops after `steps` steps at the latest.
pub(super) fn unmix(
    x: &[f32],
    mut w: Vec<f32>,
    n: usize,
    steps: usize,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<f32>> {
    orthogonalize(&mut w, n, threads)?;
    let (mut y, mut next, mut slope) = (Vec::new(), vec![0f32; n * n], vec![0f64; n]);
    for step in 0..steps {
        next.fill(0.0);
        slope.fill(0.0);
        for x in x.chunks(BLOCK * n) {
            let m = x.len() / n;
            y.resize(m * n, 0.0);
            gemm(Mat::new(x, m, n), Mat::new(&w, n, n).t(), false, &mut y, threads);
            for row in y.chunks_exact_mut(n) {
                for (v, slope) in row.iter_mut().zip(&mut slope) {
                    let below = 1.0 / (SOFTNESS + v.abs());
                    *slope += f64::from(SOFTNESS * below * below);
                    *v *= below;
                }
            }
            gemm(Mat::new(&y, m, n).t(), Mat::new(x, m, n), true, &mut next, threads);
        }
        let rows = (x.len() / n) as f32;
        for ((next, w), slope) in next.chunks_exact_mut(n).zip(w.chunks_exact(n)).zip(&slope) {
            let slope = (slope / f64::from(rows)) as f32;
            next.iter_mut().zip(w).for_each(|(v, w)| *v = *v / rows - slope * w);
        }
        orthogonalize(&mut next, n, threads)?;
        let turned = next.chunks_exact(n).zip(w.chunks_exact(n)).map(|(a, b)| 1.0 - dot(a, b).abs());
        let turned = turned.fold(0f32, f32::max);
        std::mem::swap(&mut w, &mut next);
        report(progress, step as u64 + 1, steps as u64, &format!("unmixing: turned by {turned:.1e}"))?;
        if turned < TOLERANCE {
            break;
        }
    }
    Ok(w)
}

/// W ← (W Wᵀ)^(−1/2) W by X ← 1.5 X − 0.5 X Xᵀ X, which converges where all singular values lie below √3.
fn orthogonalize(w: &mut [f32], n: usize, threads: usize) -> Result<()> {
    for row in w.chunks_exact_mut(n) {
        let length = crate::num::norm(row);
        if !(length.is_finite() && length > 0.0) {
            return Err(Error::numeric("unmixing: a component vanished; give more rows or fewer latents"));
        }
        row.iter_mut().for_each(|v| *v /= length);
    }
    let (mut gram, mut product) = (vec![0f32; n * n], vec![0f32; n * n]);
    let mut scale = true;
    for _ in 0..100 {
        gemm(Mat::new(w, n, n), Mat::new(w, n, n).t(), false, &mut gram, threads);
        if scale {
            // The largest row sum bounds the largest eigenvalue of W Wᵀ.
            let bound = gram.chunks_exact(n).map(|row| row.iter().map(|v| v.abs()).sum::<f32>()).fold(0f32, f32::max);
            let factor = 1.0 / bound.max(1.0);
            gram.iter_mut().for_each(|v| *v *= factor);
            w.iter_mut().for_each(|v| *v *= factor.sqrt());
            scale = false;
        }
        let off = gram.iter().enumerate().map(|(at, v)| (v - f32::from(u8::from(at / n == at % n))).abs());
        if off.fold(0f32, f32::max) < 1e-5 {
            break;
        }
        gemm(Mat::new(&gram, n, n), Mat::new(w, n, n), false, &mut product, threads);
        w.iter_mut().zip(&product).for_each(|(w, p)| *w = 1.5 * *w - 0.5 * p);
    }
    match w.iter().all(|v| v.is_finite()) {
        true => Ok(()),
        false => Err(Error::numeric("unmixing: the components ran into each other; give more rows or fewer latents")),
    }
}

/// `x ← x·mᵀ` for rows `x` `[rows, n]`, in 32 bits.
pub(super) fn map_rows(x: &mut [f32], m: &DMatrix<f64>, threads: usize) {
    let n = m.nrows();
    let rows = to_rows(m);
    let mut out = vec![0f32; BLOCK.min(x.len() / n.max(1)) * n];
    for x in x.chunks_mut(BLOCK * n) {
        let k = x.len() / n;
        gemm(Mat::new(x, k, n), Mat::new(&rows, n, n).t(), false, &mut out[..k * n], threads);
        x.copy_from_slice(&out[..k * n]);
    }
}

/// Row-major 32-bit values of a matrix.
pub(super) fn to_rows(m: &DMatrix<f64>) -> Vec<f32> {
    m.transpose().as_slice().iter().map(|&v| v as f32).collect()
}

/// The matrix of row-major 32-bit values.
pub(super) fn from_rows(values: &[f32], rows: usize, columns: usize) -> DMatrix<f64> {
    DMatrix::from_row_iterator(rows, columns, values.iter().map(|&v| f64::from(v)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng;
    use crate::progress::silent;
    use rand::Rng;

    /// Laplace noise of variance 1, turned: the turn is found again, up to order and sign, on any number of threads.
    #[test]
    fn a_rotation_of_laplace_noise_is_undone() {
        let (n, m) = (6, 8000);
        let mut rng = rng(2);
        let mut laplace = || {
            let u: f32 = rng.random_range(-0.5..0.5f32);
            -u.signum() * (1.0 - 2.0 * u.abs()).max(1e-7).ln() / 2f32.sqrt()
        };
        let noise: Vec<f32> = (0..n * m).map(|_| laplace()).collect();
        let mut turn: Vec<f32> = (0..n * n).map(|at| ((at * 37 + 11) % 23) as f32 - 11.0).collect();
        orthogonalize(&mut turn, n, 1).unwrap();
        let mut x = vec![0f32; n * m];
        gemm(Mat::new(&noise, m, n), Mat::new(&turn, n, n).t(), false, &mut x, 1);
        let start: Vec<f32> = (0..n * n).map(|at| if at / n == at % n { 1.0 } else { 0.0 }).collect();
        let w = unmix(&x, start.clone(), n, 100, 1, &mut silent).unwrap();
        assert_eq!(w, unmix(&x, start, n, 100, 3, &mut silent).unwrap(), "threads change nothing");
        let mut p = vec![0f32; n * n];
        gemm(Mat::new(&w, n, n), Mat::new(&turn, n, n), false, &mut p, 1);
        for row in p.chunks_exact(n) {
            let mut sizes: Vec<f32> = row.iter().map(|v| v.abs()).collect();
            sizes.sort_by(f32::total_cmp);
            assert!(sizes[n - 1] > 0.99 && sizes[n - 2] < 0.06, "{row:?}");
        }
    }
}
