//! B and M, given the causal order and the covariances: estimates, a test of each weight, and a refit of those that stay.
//!
//! In order, every latent is a regression on its predecessors now and on all latents before: (I − M)⁻¹ is the unit triangle
//! of the Cholesky factor of the residuals' covariance, and B = (I − M) Φ. A weight stays if it is both certain (|t| above
//! `certainty`) and not negligible (above `smallest` in standard deviations). Latents that stand still in all targets, such as
//! a feature of a document's first row, drive others and are driven by none.

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};

use super::moments::{Moments, factor};
use crate::error::{Error, Result};

/// A latent whose targets vary less than this, where its variance is 1 over all rows, stands still.
const STILL: f64 = 1e-6;

/// When a weight counts.
#[derive(Clone, Copy)]
pub(super) struct Test {
    /// Least effect on the driven latent's standard deviation of one standard deviation of the driver's.
    pub(super) smallest: f64,
    /// The same for weights in the same row.
    pub(super) smallest_now: f64,
    /// Least |weight| in standard errors.
    pub(super) certainty: f64,
}

/// What is left, in the units of the moments.
pub(super) struct Structure {
    /// `[n, n]`
    pub(super) m: DMatrix<f64>,
    /// `[n, n·lags]`
    pub(super) b: DMatrix<f64>,
}

/// B and M for latents that stand in `order`. `phi` and `past` come from [`Moments::regress`].
pub(super) fn prune(
    moments: &Moments,
    phi: &DMatrix<f64>,
    past: &Cholesky<f64, Dyn>,
    order: &[usize],
    test: Test,
) -> Result<Structure> {
    let n = moments.n();
    let residual = moments.residual(phi);
    let still = |i: usize| moments.now()[(i, i)] < STILL;
    let ordered = DMatrix::from_fn(n, n, |i, j| match (order[i], order[j]) {
        (i, j) if still(i) || still(j) => f64::from(u8::from(i == j)),
        at => residual[at],
    });
    let factor = factor(&ordered)
        .ok_or_else(|| Error::numeric("the residuals' covariance is singular: latents that are sums of others?"))?;
    let mut unit = factor.unpack();
    let spread = unit.diagonal();
    for (j, &s) in spread.iter().enumerate() {
        unit.column_mut(j).iter_mut().for_each(|v| *v /= s);
    }
    let inverse = unit
        .solve_lower_triangular(&DMatrix::identity(n, n))
        .ok_or_else(|| Error::numeric("the residuals' covariance is singular"))?;
    let rank = super::order::ranks(order);
    // (I − M) in the latents' own numbering.
    let whole = DMatrix::from_fn(n, n, |i, j| inverse[(rank[i], rank[j])]);
    let b = &whole * phi;
    let noise: Vec<f64> = (0..n).map(|i| spread[rank[i]]).collect();
    let deviation = |who: (usize, usize)| moments.entry(who, who).sqrt();
    let rows = (moments.count as f64).sqrt();
    let stays = |weight: f64, error: f64, from: (usize, usize), to: usize| {
        let smallest = if from.0 == 0 { test.smallest_now } else { test.smallest };
        weight.abs() * deviation(from) >= smallest * deviation((0, to)) && weight.abs() >= test.certainty * error
    };
    let past_error = inverse_diagonal(past);

    // Precision of each predecessor given the others, summed up along the order.
    let mut precision = vec![0f64; n];
    let (mut m_out, mut b_out) = (DMatrix::zeros(n, n), DMatrix::zeros(n, phi.ncols()));
    for (k, &i) in order.iter().enumerate() {
        let now: Vec<usize> = order[..k]
            .iter()
            .enumerate()
            .filter(|&(p, &j)| stays(whole[(i, j)], noise[i] * precision[p].sqrt() / rows, (0, j), i))
            .map(|(_, &j)| j)
            .collect();
        let before: Vec<usize> = (0..phi.ncols())
            .filter(|&c| stays(b[(i, c)], noise[i] * past_error[c].sqrt() / rows, (1 + c / n, c % n), i))
            .collect();
        if !still(i) {
            refit(moments, i, now, before, &stays, (&mut m_out, &mut b_out))?;
        }
        for (p, precision) in precision.iter_mut().enumerate().take(k + 1) {
            *precision += (inverse[(k, p)] / spread[k]).powi(2);
        }
    }
    Ok(Structure { m: m_out, b: b_out })
}

/// Regresses latent `i` on the latents `now` and the lagged columns `before` alone, and once more without those that fail
/// the test then.
fn refit(
    moments: &Moments,
    i: usize,
    mut now: Vec<usize>,
    mut before: Vec<usize>,
    stays: &impl Fn(f64, f64, (usize, usize), usize) -> bool,
    out: (&mut DMatrix<f64>, &mut DMatrix<f64>),
) -> Result<()> {
    let n = moments.n();
    let rows = (moments.count as f64).sqrt();
    for last in [false, true] {
        // Rows before the target, and latent, of each regressor.
        let who: Vec<(usize, usize)> =
            now.iter().map(|&j| (0, j)).chain(before.iter().map(|&c| (1 + c / n, c % n))).collect();
        if who.is_empty() {
            return Ok(());
        }
        let size = who.len();
        let gram = DMatrix::from_fn(size, size, |a, b| moments.entry(who[a], who[b]));
        let cross = DVector::from_fn(size, |a, _| moments.entry((0, i), who[a]));
        let factor = factor(&gram).ok_or_else(|| {
            Error::numeric(format!("latent {i}: among its {size} drivers are sums of others; leave those features out"))
        })?;
        let weights = factor.solve(&cross);
        if last {
            now.iter().zip(weights.iter()).for_each(|(&j, &w)| out.0[(i, j)] = w);
            before.iter().zip(weights.iter().skip(now.len())).for_each(|(&c, &w)| out.1[(i, c)] = w);
            return Ok(());
        }
        let noise = (moments.now()[(i, i)] - cross.dot(&weights)).max(0.0).sqrt();
        let errors = inverse_diagonal(&factor);
        let keep = |a: usize| stays(weights[a], noise * errors[a].sqrt() / rows, who[a], i);
        let split = now.len();
        now = now.into_iter().enumerate().filter(|&(a, _)| keep(a)).map(|(_, j)| j).collect();
        before = before.into_iter().enumerate().filter(|&(a, _)| keep(split + a)).map(|(_, c)| c).collect();
    }
    Ok(())
}

/// The diagonal of the inverse of what was factored: the squared columns of L⁻¹.
fn inverse_diagonal(factor: &Cholesky<f64, Dyn>) -> Vec<f64> {
    let l = factor.l_dirty();
    let n = l.nrows();
    let mut out = vec![0f64; n];
    // Column j of L⁻¹ starts at row j, so half of the work is left out.
    let mut x = vec![0f64; n];
    for j in 0..n {
        x[j..].fill(0.0);
        x[j] = 1.0;
        let mut sum = 0.0;
        for k in j..n {
            let column = l.column(k);
            let v = x[k] / column[k];
            sum += v * v;
            if v != 0.0 {
                x[k + 1..].iter_mut().zip(column.iter().skip(k + 1)).for_each(|(x, l)| *x -= v * l);
            }
        }
        out[j] = sum;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_has_this_diagonal() {
        let a = DMatrix::from_row_slice(3, 3, &[4.0, 1.0, 0.5, 1.0, 3.0, -1.0, 0.5, -1.0, 2.0]);
        let found = inverse_diagonal(&Cholesky::new(a.clone()).unwrap());
        let want = a.try_inverse().unwrap().diagonal();
        assert!(found.iter().zip(want.iter()).all(|(f, w)| (f - w).abs() < 1e-12), "{found:?} {want}");
    }
}
