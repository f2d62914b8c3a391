//! Which rows a rule edits: its selector, every default resolved, and the memory of its sequence gates.
//!
//! What is not known of a row is not guessed: the answer is yes, no, or what would have to be known.

use std::collections::HashMap;
use std::fmt;

use super::row::{Row, SequenceSet};
use super::selector::Phase;

/// Why a rule could not be judged on a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Unknown {
    /// The rule selects positions, and the row's is unknown.
    Position,
    /// The rule selects sequences or has a sequence gate, and the row's sequence is unknown.
    Sequence,
    /// The row belongs to several sequences, of which the rule selects some.
    Shared,
    /// The rule selects prompt or generated rows, and which the row is was not announced.
    Phase,
}

impl Unknown {
    /// Every reason.
    pub const ALL: &[Self] = &[Self::Position, Self::Sequence, Self::Shared, Self::Phase];

    /// `position`, `sequence`, `shared`, `phase`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::Sequence => "sequence",
            Self::Shared => "shared",
            Self::Phase => "phase",
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Position => "the rule depends on positions, and theirs are unknown",
            Self::Sequence => "the rule depends on sequences, and theirs are unknown: announce the batch",
            Self::Shared => "they are shared by several sequences, of which the rule selects only some",
            Self::Phase => "the rule tells prompt from generated rows, and nobody announced which these are",
        })
    }
}

/// Whether a rule reaches a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Yes,
    No,
    Unknown(Unknown),
}

impl Verdict {
    fn of(known: Option<bool>, otherwise: Unknown) -> Self {
        match known {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Unknown(otherwise),
        }
    }

    /// Both hold. A no decides, whatever else is unknown.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown(why), _) | (_, Self::Unknown(why)) => Self::Unknown(why),
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

/// Which rows a rule edits, every default resolved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    pub(super) phase: Phase,
    pub(super) from: i32,
    pub(super) to: i32,
    pub(super) first: bool,
    /// `None` is all.
    pub(super) sequences: Option<SequenceSet>,
}

impl Rows {
    /// Whether the rule edits the row, its gate aside.
    pub(super) fn admits(&self, row: &Row) -> Verdict {
        let phase = match self.phase {
            Phase::All => Verdict::Yes,
            Phase::Prompt => Verdict::of(row.generated.map(|g| !g), Unknown::Phase),
            Phase::Generated => Verdict::of(row.generated, Unknown::Phase),
        };
        let bounded = self.from > 0 || self.to < i32::MAX;
        let within = match bounded {
            true => Verdict::of(row.position.map(|p| (self.from..self.to).contains(&p)), Unknown::Position),
            false => Verdict::Yes,
        };
        phase.and(within).and(self.hears(row))
    }

    /// Whether a sequence gate of the rule may listen to the row.
    pub(super) fn hears(&self, row: &Row) -> Verdict {
        let first = match self.first {
            true => Verdict::Yes,
            false => Verdict::of(row.position.map(|p| p != 0), Unknown::Position),
        };
        first.and(self.concerns(row))
    }

    pub(super) fn concerns(&self, row: &Row) -> Verdict {
        match (&self.sequences, &row.sequences) {
            (None, _) => Verdict::Yes,
            (Some(_), None) => Verdict::Unknown(Unknown::Sequence),
            (Some(selected), Some(own)) if own.is_within(selected) => Verdict::Yes,
            (Some(selected), Some(own)) if own.meets(selected) => Verdict::Unknown(Unknown::Shared),
            _ => Verdict::No,
        }
    }
}

/// Which sequence gates are open, and since which position.
#[derive(Debug, Default)]
pub(super) struct Latches {
    /// (rule, sequence) → position of the first row that met the condition. A rule is known by what it does, so a plan
    /// that keeps it keeps its memory.
    opened: HashMap<(u64, i32), i32>,
}

impl Latches {
    /// Tells the gate of `rule` of a row, in every sequence that the row belongs to; whether it is open for the row.
    ///
    /// A sequence that goes back to the row which opened the gate, or before it, closes the gate again.
    pub(super) fn hear(&mut self, rule: u64, sequences: SequenceSet, position: i32, met: bool) -> bool {
        let mut open = true;
        for sequence in sequences.iter() {
            let key = (rule, sequence);
            open &= match self.opened.get(&key) {
                Some(&since) if since < position => true,
                Some(_) if !met => {
                    self.opened.remove(&key);
                    false
                }
                _ if met => {
                    self.opened.insert(key, position);
                    true
                }
                _ => false,
            };
        }
        open
    }

    /// Whether the gate of `rule` is open at a position of a sequence.
    pub(super) fn is_open(&self, rule: u64, sequence: i32, position: i32) -> bool {
        self.opened.get(&(rule, sequence)).is_some_and(|&since| since <= position)
    }

    pub(super) fn retain(&mut self, mut keeps: impl FnMut(u64, i32) -> bool) {
        self.opened.retain(|&(rule, sequence), _| keeps(rule, sequence));
    }
}
