//! What a plan watches for, and what follows from it: monitors, conditions over them, and verdicts. Data only; the
//! [module](super) defines what they mean.

use super::rule::Unit;
use super::selector::{Scope, Selector};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Monitors that a plan may have: each is read on every row that it selects.
pub(super) const MAX_MONITORS: usize = 64;
/// Names in one condition, and how deep it may be nested.
const MAX_CONDITION: usize = 256;
const MAX_DEPTH: usize = 16;

/// A named detector: the mean positive activation of features, held against a threshold on every row that it selects.
///
/// ```
/// use tiller::plan::{Action, Monitor, Plan, Selector, Verdict, When};
///
/// let harm = Monitor::new("harm", [24], 0.4).of("guard").select(Selector::prompt());
/// let refuse = Verdict::new("harm", When::fires("harm"), Action::Report);
/// let plan = Plan::default().watch([harm]).tell([refuse]);
/// # plan.check().unwrap();
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// What conditions call it.
    pub name: String,
    /// The dictionary's name as the caller gives it to [`Plan::compile`](super::Plan::compile); may be left out if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<String>,
    /// The features that it reads, all of one layer.
    pub features: Vec<u32>,
    /// It fires where the mean of the features reaches this.
    pub threshold: f32,
    /// `raw` or `activation`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unit: Unit,
    /// Which rows it reads.
    #[serde(default, skip_serializing_if = "Selector::is_default")]
    pub select: Selector,
    /// Whether it counts as firing on the row alone, or from there on in its sequence.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scope: Scope,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Monitor {
    /// Fires where the mean of `features` reaches `threshold` (raw).
    pub fn new(name: impl Into<String>, features: impl IntoIterator<Item = u32>, threshold: f32) -> Self {
        Self {
            name: name.into(),
            dictionary: None,
            features: features.into_iter().collect(),
            threshold,
            unit: Unit::default(),
            select: Selector::default(),
            scope: Scope::default(),
            note: None,
        }
    }

    /// The same, with features of the dictionary of this name.
    pub fn of(self, dictionary: impl Into<String>) -> Self {
        Self { dictionary: Some(dictionary.into()), ..self }
    }

    /// The same, with a threshold in this unit.
    pub fn unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    /// The same on these rows.
    pub fn select(self, select: Selector) -> Self {
        Self { select, ..self }
    }

    /// The same, firing from the first such row on.
    pub fn over_sequence(self) -> Self {
        Self { scope: Scope::Sequence, ..self }
    }

    /// The same with free text.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    fn check(&self) -> Result<()> {
        if self.name.trim().is_empty() {
            return Err(Error::argument("name: expected a name, found none"));
        }
        super::check::condition(&self.features, self.threshold, self.unit)?;
        super::check::selector(&self.select).map_err(|e| e.context("select"))
    }
}

/// A condition over monitors, judged on a row. In JSON a name, or `{"any": […]}`, `{"all": […]}`, `{"not": …}`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a monitor's name, or {\"any\": […]}, {\"all\": […]} or {\"not\": …}")]
pub enum When {
    /// The monitor of this name fires.
    Fires(String),
    /// At least one holds.
    Any(Any),
    /// All hold.
    All(All),
    /// It does not hold.
    Not(Not),
}

/// `{"any": […]}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Any {
    /// The conditions.
    pub any: Vec<When>,
}

/// `{"all": […]}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct All {
    /// The conditions.
    pub all: Vec<When>,
}

/// `{"not": …}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Not {
    /// The condition.
    pub not: Box<When>,
}

impl When {
    /// The monitor of this name fires.
    pub fn fires(name: impl Into<String>) -> Self {
        Self::Fires(name.into())
    }

    /// At least one holds.
    pub fn any(of: impl IntoIterator<Item = When>) -> Self {
        Self::Any(Any { any: of.into_iter().collect() })
    }

    /// All hold.
    pub fn all(of: impl IntoIterator<Item = When>) -> Self {
        Self::All(All { all: of.into_iter().collect() })
    }

    /// It does not hold.
    pub fn unless(of: When) -> Self {
        Self::Not(Not { not: Box::new(of) })
    }

    /// The names in it, in order, each as often as it stands there.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Fires(name) => vec![name],
            Self::Any(Any { any: of }) | Self::All(All { all: of }) => of.iter().flat_map(Self::names).collect(),
            Self::Not(Not { not }) => not.names(),
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Fires(_) => 1,
            Self::Any(Any { any: of }) | Self::All(All { all: of }) => {
                1 + of.iter().map(Self::depth).max().unwrap_or(0)
            }
            Self::Not(Not { not }) => 1 + not.depth(),
        }
    }

    fn has_empty_list(&self) -> bool {
        match self {
            Self::Fires(_) => false,
            Self::Any(Any { any: of }) | Self::All(All { all: of }) => {
                of.is_empty() || of.iter().any(Self::has_empty_list)
            }
            Self::Not(Not { not }) => not.has_empty_list(),
        }
    }

    pub(super) fn check(&self, monitors: &[Monitor]) -> Result<()> {
        if self.depth() > MAX_DEPTH || self.names().len() > MAX_CONDITION {
            let what = format!("expected at most {MAX_CONDITION} names, nested {MAX_DEPTH} deep, found more");
            return Err(Error::argument(what));
        }
        if self.has_empty_list() {
            return Err(Error::argument("expected at least one condition in a list, found an empty one"));
        }
        let known = |name: &str| monitors.iter().any(|monitor| monitor.name == name);
        match self.names().into_iter().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => {
                let names: Vec<String> = monitors.iter().map(|m| format!("\"{}\"", m.name)).collect();
                let names = if names.is_empty() { "none".into() } else { names.join(", ") };
                Err(Error::argument(format!("expected the name of a monitor ({names}), found \"{name}\"")))
            }
        }
    }
}

/// What a host is told, and should do, in a sequence where a condition holds.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// What the host knows it by.
    pub name: String,
    /// It is passed at the first row of a sequence where this holds.
    pub when: When,
    /// What should follow.
    pub action: Action,
    /// For [`Action::Replace`]: what stands in place of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What follows from a verdict. The model's rows are a rule's matter; this is the host's.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing: the host is told.
    Report,
    /// The answer ends.
    Stop,
    /// The answer ends, and a text takes its place.
    Replace,
}

impl Action {
    /// `report`, `stop` or `replace`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Stop => "stop",
            Self::Replace => "replace",
        }
    }
}

impl Verdict {
    /// A verdict without a text.
    pub fn new(name: impl Into<String>, when: When, action: Action) -> Self {
        Self { name: name.into(), when, action, text: None, note: None }
    }

    /// Replaces the answer by `text`.
    pub fn replace(name: impl Into<String>, when: When, text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::new(name, when, Action::Replace) }
    }

    fn check(&self, monitors: &[Monitor]) -> Result<()> {
        if self.name.trim().is_empty() {
            return Err(Error::argument("name: expected a name, found none"));
        }
        self.when.check(monitors).map_err(|e| e.context("when"))?;
        match (self.action, &self.text) {
            (Action::Replace, None) => Err(Error::argument("text: `replace` needs one, found none")),
            (Action::Report | Action::Stop, Some(_)) => {
                Err(Error::argument(format!("text: only `replace` has one, found action `{}`", self.action.name())))
            }
            _ => Ok(()),
        }
    }
}

/// Checks monitors and verdicts, whose names are unique.
pub(super) fn check(monitors: &[Monitor], verdicts: &[Verdict]) -> Result<()> {
    for (key, n) in [("monitors", monitors.len()), ("verdicts", verdicts.len())] {
        if n > MAX_MONITORS {
            return Err(Error::argument(format!("{key}: expected at most {MAX_MONITORS}, found {n}")));
        }
    }
    let mut names = HashSet::new();
    for (i, monitor) in monitors.iter().enumerate() {
        monitor.check().map_err(|e| e.context(format!("monitors[{i}]")))?;
        if !names.insert(&monitor.name) {
            return Err(Error::argument(format!("monitors[{i}].name: \"{}\" is given twice", monitor.name)));
        }
    }
    names.clear();
    for (i, verdict) in verdicts.iter().enumerate() {
        verdict.check(monitors).map_err(|e| e.context(format!("verdicts[{i}]")))?;
        if !names.insert(&verdict.name) {
            return Err(Error::argument(format!("verdicts[{i}].name: \"{}\" is given twice", verdict.name)));
        }
    }
    Ok(())
}
