//! What of a known process was found again.

use super::generate::Process;
use super::model::Temporal;
use crate::error::Result;
use crate::num::{assign, stats};

/// How much of a process a model found.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Recovery {
    /// Mean |correlation| of matched latents, 0 … 1.
    pub mcc: f64,
    /// F1 of the support of B, after matching.
    pub f1_lagged: f64,
    /// F1 of the support of M, after matching.
    pub f1_instantaneous: f64,
    /// Weights ≠ 0 of the model's B and M.
    pub n_weights: usize,
}

/// Compares `model` with `process`, on latents `truth` `[rows, n]` and the model's latents `found` of the same rows: pairs
/// are matched so that the sum of |correlations| is largest (Hungarian assignment).
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) if latents are not finite.
///
/// # Panics
/// If the two have other numbers of latents, lags or rows.
pub fn recovery(process: &Process, model: &Temporal, truth: &[f32], found: &[f32]) -> Result<Recovery> {
    let n = process.shape.n_latents;
    assert_eq!((n, process.shape.lags), (model.n_latents(), model.lags()), "latents and lags");
    assert_eq!(truth.len(), found.len(), "rows of both");
    let columns =
        |z: &[f32]| -> Vec<Vec<f32>> { (0..n).map(|i| z.iter().skip(i).step_by(n).copied().collect()).collect() };
    let (truth, found) = (standard(columns(truth)), standard(columns(found)));
    let rows = truth.first().map_or(1, Vec::len) as f64;
    let mut score = Vec::with_capacity(n * n);
    for t in &truth {
        score.extend(found.iter().map(|f| (f64::from(crate::num::dot(t, f)) / rows).abs()));
    }
    let matched = assign(&score, n, n)?;
    let mcc = matched.iter().enumerate().map(|(i, &j)| score[i * n + j]).sum::<f64>() / n as f64;
    let f1 = |truth: &[f32], found: &[f32]| {
        let (mut both, mut all) = (0usize, 0usize);
        for (truth, found) in truth.chunks_exact(n * n).zip(found.chunks_exact(n * n)) {
            for i in 0..n {
                for j in 0..n {
                    let (t, f) = (truth[i * n + j] != 0.0, found[matched[i] * n + matched[j]] != 0.0);
                    both += usize::from(t && f);
                    all += usize::from(t) + usize::from(f);
                }
            }
        }
        if all == 0 { 1.0 } else { 2.0 * both as f64 / all as f64 }
    };
    Ok(Recovery {
        mcc,
        f1_lagged: f1(&process.lagged, model.lagged()),
        f1_instantaneous: f1(&process.instantaneous, model.instantaneous()),
        n_weights: model.lagged().iter().chain(model.instantaneous()).filter(|w| **w != 0.0).count(),
    })
}

/// Columns of mean 0 and variance 1; a constant one becomes 0 and correlates with nothing.
fn standard(mut columns: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    for column in &mut columns {
        let (mean, deviation) = (stats::mean(column), stats::variance(column).sqrt());
        let scale = if deviation > 0.0 { 1.0 / deviation } else { 0.0 };
        column.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
    }
    columns
}
