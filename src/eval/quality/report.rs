//! What was found.

use serde::{Deserialize, Serialize};

use super::absorption::Absorption;
use super::density::Density;
use super::geometry::Geometry;
use super::labelled::Reading;
use super::recovered::Recovered;

/// The quality of a dictionary on a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The dictionary's name.
    pub dictionary: String,
    /// The model's file.
    pub model: String,
    /// Features of the dictionary.
    pub n_features: usize,
    /// Rows that were shown, attention sinks left out.
    pub rows: u64,
    /// Attention sinks behind position 0.
    pub sinks: u64,
    /// Mean number of active features in a row.
    pub l0: f64,
    /// Mean sum of the codes of a row.
    pub l1: f64,
    /// Σ‖x − x̂‖² / Σ‖x − mean‖²; 1 − explained variance.
    pub fvu: f64,
    /// 1 − FVU.
    pub explained_variance: f64,
    /// Mean of (x − x̂)² over rows and coordinates.
    pub mse: f64,
    /// Mean cosine of x and x̂.
    pub cosine: f64,
    /// Mean ‖x̂‖ / ‖x‖.
    pub l2_ratio: f64,
    /// Σ‖x̂‖² / Σ x·x̂: below 1 reconstructions are too short.
    pub reconstruction_bias: f64,
    /// What is left of the model with reconstructions in place of the residual stream.
    pub recovered: Recovered,
    /// CE recovered against zero and against the mean row; KL recovered against the same.
    pub scores: Scores,
    /// Dead, dense, and between.
    pub density: Density,
    /// How alike directions are.
    pub geometry: Geometry,
    /// k-sparse probing of every label; empty without labelled text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub labels: Vec<Reading>,
    /// First-letter absorption, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub absorption: Option<Absorption>,
    /// What to know besides.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
    /// Seconds of each part.
    pub seconds: Vec<(String, f64)>,
}

/// Shares of what ablation costs that the reconstruction recovers. 1: the model does not notice it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Cross-entropy, against zero.
    pub ce_zero: f64,
    /// Cross-entropy, against the mean row.
    pub ce_mean: f64,
    /// KL, against zero.
    pub kl_zero: f64,
    /// KL, against the mean row.
    pub kl_mean: f64,
}

impl From<&Recovered> for Scores {
    fn from(found: &Recovered) -> Self {
        Self { ce_zero: found.ce_zero(), ce_mean: found.ce_mean(), kl_zero: found.kl_zero(), kl_mean: found.kl_mean() }
    }
}
