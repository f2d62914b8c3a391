//! Principal axes of rows, in `f64`, on crate `nalgebra`: the left singular vectors U of centred rows X = U·S·Vᵀ.
//!
//! They come from the eigenvectors of the smaller of XXᵀ and XᵀX, which is exact enough for axes that hold a visible
//! share of the variance: an eigenvalue is known to 1e-15 of the largest one.

use super::rng;
use crate::error::{Error, Result};
use nalgebra::{DMatrix, DVector};
use rand::Rng;

/// Rows `x` `[n, d]` as a matrix, each column's mean taken off.
fn centred(x: &[f32], n: usize) -> Result<DMatrix<f64>> {
    if n == 0 || x.is_empty() || !x.len().is_multiple_of(n) {
        return Err(Error::argument(format!("principal axes: {} values are no {n} rows", x.len())));
    }
    let d = x.len() / n;
    super::check_finite(x, d, 0)?;
    let mut x = DMatrix::from_row_iterator(n, d, x.iter().map(|&v| f64::from(v)));
    let before = x.norm();
    for mut column in x.column_iter_mut() {
        let mean = column.mean();
        column.add_scalar_mut(-mean);
    }
    // What rounding leaves of equal rows is no variance.
    if x.norm() > 1e-12 * before { Ok(x) } else { Err(no_variance(n)) }
}

/// XXᵀ or XᵀX, whichever is smaller.
fn gram(x: &DMatrix<f64>) -> DMatrix<f64> {
    if x.nrows() <= x.ncols() { x * x.transpose() } else { x.transpose() * x }
}

fn no_variance(n: usize) -> Error {
    Error::numeric(format!("principal axes: the {n} rows are equal"))
}

/// The first left singular vectors `[n, k]` of the centred rows `x` `[n, d]`: as many as hold `share` of the variance.
///
/// Costs an eigendecomposition of a matrix of size min(n, d).
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) if the values are no n rows; [`Kind::Numeric`](crate::Kind::Numeric) for
/// values that are not finite, and rows without variance.
pub(crate) fn principal(x: &[f32], n: usize, share: f64) -> Result<DMatrix<f64>> {
    let x = centred(x, n)?;
    let eigen = gram(&x).symmetric_eigen();
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let total: f64 = eigen.eigenvalues.iter().map(|v| v.max(0.0)).sum();
    let mut held = 0.0;
    let enough = order.iter().position(|&i| {
        held += eigen.eigenvalues[i].max(0.0);
        held >= share * total
    });
    order.truncate(enough.map_or(order.len(), |at| at + 1));
    let axes = eigen.eigenvectors.select_columns(&order);
    if x.nrows() <= x.ncols() {
        return Ok(axes);
    }
    let mut scores = x * axes;
    for (mut column, &i) in scores.column_iter_mut().zip(&order) {
        column /= eigen.eigenvalues[i].sqrt();
    }
    Ok(scores)
}

/// The scores `[n]` of the centred rows `x` `[n, d]` on their first principal axis, of length 1; the sign is free.
///
/// # Errors
/// As [`principal`].
pub(crate) fn first_scores(x: &[f32], n: usize) -> Result<Vec<f64>> {
    let x = centred(x, n)?;
    let axis = leading(&gram(&x));
    let scores = if x.nrows() <= x.ncols() { axis } else { x * axis };
    let norm = scores.norm();
    Ok(scores.iter().map(|v| v / norm).collect())
}

/// The eigenvector of the largest eigenvalue of a symmetric matrix without negative ones, by Lanczos' iteration with
/// full orthogonalisation, until the residual is 1e-12 of the eigenvalue; exact after as many steps as there are rows.
fn leading(a: &DMatrix<f64>) -> DVector<f64> {
    /// Steps between looks at the small eigenproblem.
    const LOOK: usize = 8;
    let n = a.nrows();
    let mut rng = rng(1);
    let start = DVector::from_fn(n, |_, _| rng.random_range(-1f64..1.0));
    let mut basis = vec![start.normalize()];
    let (mut diagonal, mut beside) = (Vec::new(), Vec::<f64>::new());
    loop {
        let last = basis.len() - 1;
        let mut next = a * &basis[last];
        diagonal.push(next.dot(&basis[last]));
        // Twice is enough to be orthogonal to rounding.
        for _ in 0..2 {
            for q in &basis {
                let along = next.dot(q);
                next.axpy(-along, q, 1.0);
            }
        }
        let norm = next.norm();
        let done = basis.len() == n || norm <= f64::EPSILON * diagonal[0].abs();
        if done || basis.len().is_multiple_of(LOOK) {
            let (value, vector) = largest(&diagonal, &beside);
            if done || norm * vector[last].abs() <= 1e-12 * value {
                let mut sum = DVector::zeros(n);
                basis.iter().zip(vector.iter()).for_each(|(q, &share)| sum.axpy(share, q, 1.0));
                return sum;
            }
        }
        beside.push(norm);
        basis.push(next / norm);
    }
}

/// The largest eigenvalue, and its vector, of a symmetric tridiagonal matrix.
fn largest(diagonal: &[f64], beside: &[f64]) -> (f64, DVector<f64>) {
    let n = diagonal.len();
    let small = DMatrix::from_fn(n, n, |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => beside[i.min(j)],
        _ => 0.0,
    });
    let eigen = small.symmetric_eigen();
    let at = eigen.eigenvalues.imax();
    (eigen.eigenvalues[at], eigen.eigenvectors.column(at).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = rng(seed);
        (0..n).map(|_| rng.random_range(-1f32..1.0)).collect()
    }

    #[test]
    fn axes_are_orthonormal_and_hold_the_variance_on_both_sides() {
        for (n, d) in [(40, 7), (7, 40), (20, 20)] {
            let x = random(n * d, 3);
            let all = principal(&x, n, 1.0 - 1e-12).unwrap();
            let unit = all.transpose() * &all;
            assert!((&unit - DMatrix::identity(unit.nrows(), unit.nrows())).amax() < 1e-9, "{n} {d}");
            // U·Uᵀ·X is X.
            let x = centred(&x, n).unwrap();
            assert!((&all * (all.transpose() * &x) - &x).amax() < 1e-5, "{n} {d}");
            assert!(all.ncols() <= d.min(n - 1));
        }
    }

    #[test]
    fn the_iteration_finds_the_first_axis() {
        for (n, d) in [(60, 9), (9, 60), (150, 120)] {
            let x = random(n * d, 4);
            let first = principal(&x, n, 1e-9).unwrap();
            assert_eq!(first.ncols(), 1);
            let scores = first_scores(&x, n).unwrap();
            let cosine: f64 = scores.iter().zip(first.iter()).map(|(a, b)| a * b).sum();
            assert!(cosine.abs() > 1.0 - 1e-10, "{n} {d}: {cosine}");
        }
    }

    #[test]
    fn rows_without_variance_have_no_axes() {
        for found in [principal(&[0.1; 12], 4, 0.99).err(), first_scores(&[0.1; 12], 4).err()] {
            assert_eq!(found.unwrap().kind(), crate::Kind::Numeric);
        }
        assert_eq!(principal(&[1.0; 5], 2, 0.99).unwrap_err().kind(), crate::Kind::Argument);
        assert_eq!(first_scores(&[f32::NAN; 4], 2).unwrap_err().kind(), crate::Kind::Numeric);
    }
}
