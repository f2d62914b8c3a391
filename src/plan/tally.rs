//! What each rule of a plan did: how many rows it changed, by how much, and where it could not be judged.

use super::select::Unknown;

/// What one rule did at all of its hook points.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RuleTally {
    /// Rows that it changed.
    pub rows: u64,
    /// Rows whose codes it read.
    pub rows_read: u64,
    code: f64,
    size: f64,
    unjudged: [u64; Unknown::ALL.len()],
}

impl RuleTally {
    /// Mean code of its features before the edit, over the rows that it reached; `None` for a rule that reads no codes.
    pub fn mean_code(&self) -> Option<f64> {
        (self.rows_read > 0).then(|| self.code / self.rows_read as f64)
    }

    /// Mean of ‖x′ − x‖ / ‖x‖ over the rows that it changed; `None` if there are none.
    pub fn relative_size(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.size / self.rows as f64)
    }

    /// Rows on which it could not be judged, by reason.
    pub fn unjudged_rows(&self) -> impl Iterator<Item = (Unknown, u64)> + '_ {
        Unknown::ALL.iter().copied().zip(self.unjudged).filter(|(_, n)| *n > 0)
    }

    pub(super) fn unjudged(&mut self, why: Unknown) {
        if let Some((_, n)) = Unknown::ALL.iter().copied().zip(&mut self.unjudged).find(|(reason, _)| *reason == why) {
            *n += 1;
        }
    }

    /// A row whose codes were read.
    pub(super) fn read(&mut self, codes: &[f32]) {
        self.rows_read += 1;
        self.code += codes.iter().map(|&f| f64::from(f)).sum::<f64>() / codes.len().max(1) as f64;
    }

    /// A row that was changed.
    pub(super) fn changed(&mut self, before: &[f32], after: &[f32]) {
        let (mut moved, mut length) = (0.0f32, 0.0f32);
        for (x, y) in before.iter().zip(after) {
            moved += (y - x) * (y - x);
            length += x * x;
        }
        self.rows += 1;
        self.size += f64::from(moved / length.max(f32::MIN_POSITIVE)).sqrt();
    }
}

/// The tallies of a plan's rules, by their place in the plan.
#[derive(Clone, Debug, Default)]
pub struct Tally(Vec<RuleTally>);

impl Tally {
    /// The tallies so far, which start anew.
    pub fn take(&mut self) -> Vec<RuleTally> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn of(&mut self, rule: usize) -> &mut RuleTally {
        if rule >= self.0.len() {
            self.0.resize(rule + 1, RuleTally::default());
        }
        &mut self.0[rule]
    }
}
