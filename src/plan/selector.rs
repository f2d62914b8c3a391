//! Where a rule acts: its selector and its gate. Data only; the [module](super) defines what they mean.

use super::rule::Unit;
use serde::{Deserialize, Serialize};

/// Which rows a rule edits.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// Prompt, generated text, or both.
    #[serde(skip_serializing_if = "is_default")]
    pub phase: Phase,
    /// First position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// First position after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// Position 0 too; unset: only for an unconditional add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_first: Option<bool>,
    /// Which sequences of the batch.
    #[serde(skip_serializing_if = "is_default")]
    pub sequences: Sequences,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Selector {
    /// Rows of text that was given.
    pub fn prompt() -> Self {
        Self { phase: Phase::Prompt, ..Self::default() }
    }

    /// Rows of text that the model wrote.
    pub fn generated() -> Self {
        Self { phase: Phase::Generated, ..Self::default() }
    }

    /// The same, from this position on.
    pub fn from(self, position: u32) -> Self {
        Self { from: Some(position), ..self }
    }

    /// The same, up to the position before this one.
    pub fn to(self, position: u32) -> Self {
        Self { to: Some(position), ..self }
    }

    /// The same with position 0, or without it.
    pub fn include_first(self, include: bool) -> Self {
        Self { include_first: Some(include), ..self }
    }

    /// The same in these sequences.
    pub fn sequences(self, ids: impl IntoIterator<Item = i32>) -> Self {
        Self { sequences: Sequences::Only(ids.into_iter().collect()), ..self }
    }

    pub(super) fn is_default(&self) -> bool {
        is_default(self)
    }

    /// Nothing is left out, the first row neither by wish nor by rule.
    pub(super) fn is_every_row(&self) -> bool {
        self.phase == Phase::All
            && self.from.unwrap_or(0) == 0
            && self.to.is_none()
            && self.include_first != Some(false)
            && self.sequences == Sequences::All
    }
}

/// Prompt or generated text.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Every row.
    #[default]
    All,
    /// Rows of text that was given.
    Prompt,
    /// Rows of text that the model wrote.
    Generated,
}

/// Sequences of a batch. In JSON `"all"` or a list of ids.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sequences {
    /// Every sequence.
    #[default]
    All,
    /// These sequence ids.
    Only(Vec<i32>),
}

/// A condition: the mean positive activation of features reaches a threshold.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The condition's dictionary, on the rule's layer; by default the rule's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<String>,
    /// The condition's features.
    pub features: Vec<u32>,
    /// What the mean over the features must reach.
    pub threshold: f32,
    /// `raw` or `activation`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unit: Unit,
    /// Where the condition has to hold.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scope: Scope,
}

impl Gate {
    /// The mean of `features` reaches `threshold` (raw) on the row.
    pub fn new(features: impl IntoIterator<Item = u32>, threshold: f32) -> Self {
        let features = features.into_iter().collect();
        Self { dictionary: None, features, threshold, unit: Unit::default(), scope: Scope::default() }
    }

    /// The same, with features of the dictionary of this name.
    pub fn of(self, dictionary: impl Into<String>) -> Self {
        Self { dictionary: Some(dictionary.into()), ..self }
    }

    /// The same, with a threshold in this unit.
    pub fn unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    /// The same, on the row or an earlier one of its sequence.
    pub fn over_sequence(self) -> Self {
        Self { scope: Scope::Sequence, ..self }
    }
}

/// Where a gate's condition has to hold.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// On the row itself.
    #[default]
    Row,
    /// On the row or an earlier one of its sequence.
    Sequence,
}
