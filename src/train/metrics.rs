//! What a run tells on the way.

use serde::Serialize;

/// The state of a run after a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Rows seen.
    pub rows: u64,
    /// The learning rate of the step.
    pub lr: f32,
    /// Mean squared error of a row, summed over its entries, in scaled units (mean squared norm `d_model`).
    pub loss: f64,
    /// What the objective adds to that: the weighted sparsity penalty; Gated's auxiliary reconstruction and the errors of
    /// a Matryoshka's shorter prefixes belong to it.
    pub penalty: f64,
    /// The weight of the sparsity penalty; 0 in variants that have none.
    pub coefficient: f64,
    /// The part of the loss that dead features are trained with; 0 when none is dead.
    pub aux_loss: f64,
    /// Mean number of active features.
    pub l0: f64,
    /// Fraction of variance unexplained: squared error over squared distance from the mean row.
    pub fvu: f64,
    /// Features that did not fire for `dead_after` rows.
    pub dead: usize,
    /// Measured after this step on documents kept out of training, if it was time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
}

/// What a dictionary does on rows that it was not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeldOut {
    /// Rows measured.
    pub rows: usize,
    /// Mean number of active features.
    pub l0: f64,
    /// Fraction of variance unexplained.
    pub fvu: f64,
}

impl Metrics {
    /// One line for people.
    pub(super) fn note(&self) -> String {
        format!("loss {:.3}  L0 {:.1}  FVU {:.4}  dead {}", self.loss, self.l0, self.fvu, self.dead)
    }
}
