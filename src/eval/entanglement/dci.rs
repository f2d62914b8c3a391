//! DCI: does a feature speak of one concept, and a concept of one feature (Eastwood and Williams 2018)?
//!
//! ```text
//! D_j = 1 − H(R_j· / ΣR_j·) / log C      disentanglement of feature j: 1 if it matters to one concept alone
//! D   = Σ_j D_j · ΣR_j· / ΣR             weighted by how much it matters at all
//! C_c = 1 − H(R_·c / ΣR_·c) / log F      completeness of concept c: 1 if one feature alone matters to it; C is the mean
//! I   = mean test accuracy of the probes
//! ```
//!
//! R `[F, C]` is the relevance of features to concepts: |coefficient| of L1 logistic regressions on standardised codes,
//! our decision where arXiv 2512.15134 is silent.

use serde::Serialize;

/// The three figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Dci {
    /// D.
    pub disentanglement: f64,
    /// C.
    pub completeness: f64,
    /// I.
    pub informativeness: f64,
}

impl Dci {
    /// Of relevances `[F, C]`, none negative, and the accuracy of every concept's probe. Features that matter to
    /// nothing have no weight; a concept to which nothing matters has completeness 0. One concept, or one feature,
    /// leaves no choice: 1.
    pub fn of(relevance: &[f64], n_concepts: usize, accuracies: &[f64]) -> Self {
        let n_features = relevance.len() / n_concepts.max(1);
        let total: f64 = relevance.iter().sum();
        let mut disentanglement = 0.0;
        for row in relevance.chunks_exact(n_concepts.max(1)) {
            disentanglement += concentration(row.iter().copied(), n_concepts) * row.iter().sum::<f64>();
        }
        let column = |c: usize| relevance.iter().copied().skip(c).step_by(n_concepts.max(1));
        let completeness: f64 = (0..n_concepts).map(|c| concentration(column(c), n_features)).sum();
        Self {
            disentanglement: if total > 0.0 { disentanglement / total } else { 0.0 },
            completeness: completeness / n_concepts as f64,
            informativeness: accuracies.iter().sum::<f64>() / accuracies.len() as f64,
        }
    }
}

/// 1 − H(p)/log n, where p is `weights` over their sum; 0 if that is zero.
fn concentration(weights: impl Iterator<Item = f64> + Clone, n: usize) -> f64 {
    let total: f64 = weights.clone().sum();
    if total <= 0.0 {
        return 0.0;
    }
    if n < 2 {
        return 1.0;
    }
    let entropy: f64 = weights.filter(|w| *w > 0.0).map(|w| -(w / total) * (w / total).ln()).sum();
    1.0 - entropy / (n as f64).ln()
}
