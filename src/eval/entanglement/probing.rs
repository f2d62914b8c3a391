//! Probes on codes: how well do the best k features say what a concept is, and which features matter?

use serde::Serialize;

use crate::error::Result;
use crate::num::stats::pearson;
use crate::progress::Progress;
use crate::train::probe::{self, Options, Penalty, fit, k_sparse};

/// The numbers of features that are tried (arXiv 2512.15134).
pub const KS: [usize; 7] = [1, 2, 5, 10, 25, 50, 100];
/// The weight of the data in the regression that says what matters.
const RELEVANCE_C: f64 = 0.1;

/// Codes of some features and the labels of one concept.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// `[n, width]`.
    pub codes: &'a [f32],
    /// `[n]`.
    pub labels: &'a [bool],
}

/// What probes of one concept found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Probed {
    /// |Pearson| of logit and label on the test rows, for every k. All 0 if no feature tells the labels apart.
    pub pearson: Vec<f64>,
    /// Test accuracy of the L1 regression on all features.
    pub accuracy: f64,
    /// |coefficient| of every feature in it, on standardised codes. `[width]`
    pub relevance: Vec<f64>,
}

/// Ranks features by |coefficient| of an L1 logistic regression (C = 0.1) on the training rows, fits an L2 regression
/// to the best k for each of `ks`, and tests both on other rows. Codes are standardised first.
///
/// # Errors
/// As [`fit`].
pub fn probe(
    train: Table<'_>,
    test: Table<'_>,
    width: usize,
    ks: &[usize],
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Probed> {
    let options = Options { threads, tolerance: 1e-5, ..Options::default() };
    let ranking = Options { penalty: Penalty::L1, c: RELEVANCE_C, ..options };
    let ranked = fit(train.codes, width, train.labels, &ranking, progress)?;
    let spread = deviations(train.codes, width);
    let relevance: Vec<f64> = ranked.weights.iter().zip(&spread).map(|(&w, s)| f64::from(w).abs() * s).collect();
    let accuracy = ranked.score(test.codes, test.labels).accuracy;
    if relevance.iter().all(|r| *r == 0.0) {
        return Ok(Probed { pearson: vec![0.0; ks.len()], accuracy, relevance });
    }
    let curves = k_sparse(train.codes, width, train.labels, ks, &options, progress)?;
    let pearson = curves.iter().map(|one| correlation(&one.probe, test)).collect();
    Ok(Probed { pearson, accuracy, relevance })
}

/// |Pearson| of logit and label; 0 if the logit does not vary.
pub fn correlation(probe: &probe::Probe, test: Table<'_>) -> f64 {
    let truth: Vec<f32> = test.labels.iter().map(|&yes| f32::from(u8::from(yes))).collect();
    let found = pearson(&probe.logits(test.codes), &truth).abs();
    if found.is_nan() { 0.0 } else { found }
}

/// The standard deviation of every column.
fn deviations(codes: &[f32], width: usize) -> Vec<f64> {
    let n = (codes.len() / width) as f64;
    let mut mean = vec![0f64; width];
    codes.chunks_exact(width).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n));
    let mut square = vec![0f64; width];
    for row in codes.chunks_exact(width) {
        square.iter_mut().zip(row).zip(&mean).for_each(|((s, &v), m)| *s += (f64::from(v) - m).powi(2) / n);
    }
    square.into_iter().map(f64::sqrt).collect()
}
