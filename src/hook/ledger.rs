//! What a hook saw and did: counts, and everything that went wrong.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};
use crate::plan::RuleTally;

/// Different faults that are kept; more of them are counted.
const FAULTS: usize = 64;

/// What a hook saw and did since the last [`finish`](super::Hook::finish).
///
/// Each row that a plan is interested in counts once for each hook point: as edited, not needed, refused or restored.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Ledger {
    /// Graphs of the hook's own context: one for each micro-batch.
    pub graphs: u64,
    /// Graphs of other contexts, which passed untouched.
    pub foreign_graphs: u64,
    /// Rows at hook points with a plan or a capture.
    pub rows_seen: u64,
    /// Rows that a plan changed.
    pub rows_edited: u64,
    /// Rows that the plan has nothing to do with, or leaves as they are.
    pub rows_not_needed: u64,
    /// Rows that were left alone because it could not be told whether the plan reaches them, or which rows they are.
    pub rows_refused: u64,
    /// Rows put back as the model wrote them, because their edit was not finite.
    pub rows_restored: u64,
    /// Rows copied for the caller.
    pub rows_captured: u64,
    /// What each rule of the plan in force did, in the plan's order; shorter if the last rules did nothing.
    pub rules: Vec<RuleTally>,
    /// What went wrong, each different thing once.
    pub faults: Vec<Fault>,
    /// How often further faults came, of which only that was kept.
    pub more_faults: u64,
}

/// Something that went wrong, as often as it did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Fault {
    /// Of which kind.
    pub kind: Kind,
    /// What happened, and where.
    pub what: String,
    /// How often: rows where it is about rows, else graphs.
    pub count: u64,
}

impl Ledger {
    /// The ledger if nothing went wrong, else its first fault: for callers that only want yes or no.
    ///
    /// # Errors
    /// The fault, with its count and the number of other faults.
    pub fn ok(self) -> Result<Self> {
        let Some(first) = self.faults.first() else { return Ok(self) };
        let others = self.faults.len() as u64 - 1 + self.more_faults;
        let more = match others {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        Err(Error::new(first.kind, format!("{}{more}", first.what)))
    }

    /// Rows that a plan should have been applied to, or judged on, and was not.
    pub fn rows_left(&self) -> u64 {
        self.rows_refused + self.rows_restored
    }
}

/// Faults as they come: equal ones are one.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kept: Vec<Fault>,
    index: BTreeMap<String, usize>,
    more: u64,
}

impl Faults {
    pub(super) fn add(&mut self, kind: Kind, what: impl Into<String>, count: u64) {
        let what = what.into();
        if let Some(&i) = self.index.get(&what) {
            self.kept[i].count += count;
        } else if self.kept.len() < FAULTS {
            self.index.insert(what.clone(), self.kept.len());
            self.kept.push(Fault { kind, what, count });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn take(&mut self, into: &mut Ledger) {
        let Self { kept, more, .. } = std::mem::take(self);
        (into.faults, into.more_faults) = (kept, more);
    }
}
