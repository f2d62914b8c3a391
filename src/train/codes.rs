//! The codes of a batch, row after row.

use super::score::Lane;
use super::variant::{Rule, Side};

/// What passed in some rows: scores and features, row after row.
#[derive(Default)]
pub(super) struct Found {
    /// Where each row ends.
    pub(super) ends: Vec<usize>,
    pub(super) items: Vec<(f32, u32)>,
}

impl Found {
    /// Takes over what the lanes of the rows hold.
    pub(super) fn take(&mut self, lanes: &[Lane]) {
        self.ends.clear();
        self.items.clear();
        self.items.reserve_exact(lanes.iter().map(|lane| lane.items.len()).sum());
        for lane in lanes {
            self.items.extend_from_slice(&lane.items);
            self.ends.push(self.items.len());
        }
    }

    /// Keeps the items that `keep` says to, row after row.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&(f32, u32)) -> bool) {
        let (mut from, mut to) = (0, 0);
        for end in &mut self.ends {
            let row = from..*end;
            from = row.end;
            for at in row {
                if keep(&self.items[at]) {
                    self.items[to] = self.items[at];
                    to += 1;
                }
            }
            *end = to;
        }
        self.items.truncate(to);
    }
}

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
    /// Takes over what was found; `name` turns the number in it into a feature.
    pub(super) fn take(&mut self, found: &[Found], rule: &Rule, name: impl Fn(u32) -> u32) {
        self.offsets.clear();
        self.features.clear();
        self.values.clear();
        self.scores.clear();
        self.sides.clear();
        self.offsets.push(0);
        let n = found.iter().map(|found| found.items.len()).sum();
        self.features.reserve_exact(n);
        self.values.reserve_exact(n);
        for found in found {
            let first = self.features.len();
            self.features.extend(found.items.iter().map(|item| name(item.1)));
            self.values.extend(found.items.iter().map(|item| item.0));
            self.offsets.extend(found.ends.iter().map(|end| first + end));
        }
        self.slopes.clear();
        self.slopes.resize(n, 0.0);
        if rule.converts() {
            self.scores.extend_from_slice(&self.values);
            rule.activate(&self.features, &self.scores, &mut self.values);
            self.sides.resize(n, Side::default());
        }
    }

    /// Active codes.
    pub(super) fn active(&self) -> usize {
        self.values.iter().filter(|&&value| value > 0.0).count()
    }
}
