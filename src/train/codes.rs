//! The codes of a batch, row after row.

use super::score::Lane;
use super::variant::{Rule, Side};

/// The codes of a batch.
#[derive(Default)]
pub(super) struct Codes {
    /// Row `r` owns `offsets[r]..offsets[r + 1]`.
    pub(super) offsets: Vec<usize>,
    /// Selected features, ascending in a row.
    pub(super) features: Vec<u32>,
    /// What the scan found, if codes are something else.
    pub(super) scores: Vec<f32>,
    /// The codes: positive, or 0 for a feature that only its threshold or gate takes notice of.
    pub(super) values: Vec<f32>,
    /// ∂L/∂u, with `u` the product of the encoder's row and the row.
    pub(super) slopes: Vec<f32>,
    /// Gradients by the numbers of the feature, in variants that have some.
    pub(super) sides: Vec<Side>,
}

impl Codes {
    /// Takes the selection over from the lanes; `name` turns a lane's number into a feature.
    pub(super) fn take(&mut self, lanes: &[Lane], rule: &Rule, name: impl Fn(u32) -> u32) {
        self.offsets.clear();
        self.features.clear();
        self.values.clear();
        self.scores.clear();
        self.sides.clear();
        self.offsets.push(0);
        for lane in lanes {
            self.features.extend(lane.items.iter().map(|item| name(item.1)));
            self.values.extend(lane.items.iter().map(|item| item.0));
            self.offsets.push(self.features.len());
        }
        self.slopes.clear();
        self.slopes.resize(self.features.len(), 0.0);
        if rule.converts() {
            self.scores.extend_from_slice(&self.values);
            rule.activate(&self.features, &self.scores, &mut self.values);
            self.sides.resize(self.features.len(), Side::default());
        }
    }

    /// Active codes.
    pub(super) fn active(&self) -> usize {
        self.values.iter().filter(|&&value| value > 0.0).count()
    }
}
