//! k-sparse probing: how well do the best k columns read a label?

use super::{Options, Penalty, Probe, fit};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// The weight of the data in the regression that ranks columns.
const RANKING_C: f64 = 0.1;

/// A probe of few columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    /// k as asked for.
    pub k: usize,
    /// The columns, the best first: fewer than k if no more than these have a weight.
    pub features: Vec<u32>,
    /// The probe of all columns; zero but for these.
    pub probe: Probe,
}

/// Ranks columns by |weight| in a logistic regression with penalty L1 and C = 0.1 (arXiv 2512.15134; ties: the lower
/// column), then fits a regression with L2 and `options.c` to the best k, for each k of `ks`. Columns that the ranking
/// leaves at zero are not used. `options.penalty` is not looked at.
///
/// # Errors
/// As [`fit`], and [`Kind::Argument`](crate::Kind::Argument) if a k is 0 or the ranking leaves no column at all.
pub fn k_sparse(
    x: &[f32],
    d: usize,
    labels: &[bool],
    ks: &[usize],
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Vec<Sparse>> {
    if ks.contains(&0) {
        return Err(Error::argument("probe: k must be at least 1, found 0"));
    }
    // How much a column says depends on its spread, so the ranking compares weights of standardised columns.
    let ranking = Options { penalty: Penalty::L1, c: RANKING_C, ..*options };
    let ranked = fit(x, d, labels, &ranking, progress)?;
    let spread = spreads(x, d);
    let weight = |j: usize| (f64::from(ranked.weights[j]) * if options.standardize { spread[j] } else { 1.0 }).abs();
    let mut order: Vec<usize> = (0..d).filter(|&j| ranked.weights[j] != 0.0).collect();
    order.sort_by(|&a, &b| weight(b).total_cmp(&weight(a)).then(a.cmp(&b)));
    if order.is_empty() {
        return Err(Error::argument("probe: no column tells the labels apart at C = 0.1: all weights are zero"));
    }
    let rows = labels.len();
    let mut all = Vec::with_capacity(ks.len());
    for &k in ks {
        let used = &order[..k.min(order.len())];
        let mut part = Vec::with_capacity(rows * used.len());
        for row in x.chunks_exact(d) {
            part.extend(used.iter().map(|&j| row[j]));
        }
        let small = fit(&part, used.len(), labels, &Options { penalty: Penalty::L2, ..*options }, progress)?;
        let mut weights = vec![0f32; d];
        used.iter().zip(&small.weights).for_each(|(&j, &w)| weights[j] = w);
        let features = used.iter().map(|&j| j as u32).collect();
        all.push(Sparse { k, features, probe: Probe { weights, ..small } });
    }
    Ok(all)
}

fn spreads(x: &[f32], d: usize) -> Vec<f64> {
    let n = (x.len() / d) as f64;
    let (mut mean, mut square) = (vec![0f64; d], vec![0f64; d]);
    for row in x.chunks_exact(d) {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n);
    }
    for row in x.chunks_exact(d) {
        for j in 0..d {
            square[j] += (f64::from(row[j]) - mean[j]).powi(2) / n;
        }
    }
    square.iter().map(|s| s.sqrt()).collect()
}
