//! Monitors at work: what they read, where they fired, and which verdicts follow.
//!
//! A monitor writes down, row by row, what it read. Rules of the same graph ask whether it fired on a row; verdicts are
//! passed once the graph is through, when every monitor has seen every row. Memory is bounded: of rows, those of the graph
//! at hand; of sequences, the first firing; of what the host did not collect, [`MOST_READINGS`].

use std::collections::HashMap;
use std::sync::Arc;

use super::apply::Condition;
use super::compile::World;
use super::monitor::{Action, All, Any, Monitor, Not, Verdict, When};
use super::row::Row;
use super::rule::Rule;
use super::select::{Latches, Rows, Unknown};
use super::selector::{Phase, Scope};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;

/// Readings and verdicts that are kept for the host; of more, the number.
const MOST_READINGS: usize = 1 << 16;

/// What a monitor read on a row, in one of the row's sequences.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The monitor's place in the plan.
    pub monitor: usize,
    /// Its name.
    pub name: Arc<str>,
    /// The sequence.
    pub sequence: i32,
    /// The position.
    pub position: i32,
    /// Whether the model wrote the row's token; unknown where nobody announced it.
    pub generated: Option<bool>,
    /// The mean over its features.
    pub value: f32,
    /// Whether the value reaches the threshold.
    pub fired: bool,
}

/// A verdict at a row.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The verdict's place in the plan.
    pub verdict: usize,
    /// Its name.
    pub name: Arc<str>,
    /// The sequence.
    pub sequence: i32,
    /// The position.
    pub position: i32,
    /// What the host should do.
    pub action: Action,
    /// For [`Action::Replace`]: what stands in place of the answer.
    pub text: Option<Arc<str>>,
}

/// What came of a plan's monitors since the host last asked.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watched {
    /// What monitors read, in order.
    pub readings: Vec<Reading>,
    /// Verdicts, in order.
    pub verdicts: Vec<Passed>,
    /// Readings and verdicts that were not kept, because the host did not ask in time.
    pub lost: u64,
}

/// A monitor, ready to read.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    /// Its place in the plan.
    pub(super) monitor: usize,
    pub(super) name: Arc<str>,
    /// Hash of all that it reads.
    pub(super) identity: u64,
    pub(super) rows: Rows,
    /// [`Condition::sequence`]: it counts from the first row on which it fires.
    pub(super) condition: Condition,
}

/// A condition over monitors by their places.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Judged {
    Fires(usize),
    Any(Vec<Judged>),
    All(Vec<Judged>),
    Not(Box<Judged>),
}

impl Judged {
    pub(super) fn of(when: &When, monitors: &[Monitor]) -> Self {
        let list = |of: &[When]| of.iter().map(|when| Self::of(when, monitors)).collect();
        match when {
            // The plan was checked: every name is one of them.
            When::Fires(name) => Self::Fires(monitors.iter().position(|m| m.name == *name).unwrap_or(usize::MAX)),
            When::Any(Any { any }) => Self::Any(list(any)),
            When::All(All { all }) => Self::All(list(all)),
            When::Not(Not { not }) => Self::Not(Box::new(Self::of(not, monitors))),
        }
    }

    /// Whether it holds, given which monitors count as firing.
    fn holds(&self, fires: &dyn Fn(usize) -> bool) -> bool {
        match self {
            Self::Fires(monitor) => fires(*monitor),
            Self::Any(of) => of.iter().any(|judged| judged.holds(fires)),
            Self::All(of) => of.iter().all(|judged| judged.holds(fires)),
            Self::Not(of) => !of.holds(fires),
        }
    }

    /// The monitors in it.
    pub(super) fn monitors(&self) -> Vec<usize> {
        match self {
            Self::Fires(monitor) => vec![*monitor],
            Self::Any(of) | Self::All(of) => of.iter().flat_map(Self::monitors).collect(),
            Self::Not(of) => of.monitors(),
        }
    }
}

/// What verdicts need of a plan, when all monitors have read a graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Bench {
    verdicts: Vec<(Judged, Told)>,
    /// The identities of the monitors whose firing lasts.
    lasting: HashMap<usize, u64>,
}

/// What a host is told with a verdict.
#[derive(Clone, Debug)]
struct Told {
    name: Arc<str>,
    action: Action,
    text: Option<Arc<str>>,
}

impl Bench {
    pub(super) fn of<'w>(
        verdicts: &[Verdict],
        monitors: &[Monitor],
        watchers: impl Iterator<Item = &'w Watcher>,
    ) -> Self {
        let lasting = watchers.filter(|w| w.condition.sequence).map(|w| (w.monitor, w.identity));
        let told = |v: &Verdict| {
            let (name, text) = (v.name.as_str().into(), v.text.as_deref().map(Arc::from));
            (Judged::of(&v.when, monitors), Told { name, action: v.action, text })
        };
        Self { verdicts: verdicts.iter().map(told).collect(), lasting: lasting.collect() }
    }
}

/// What monitors remember.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// (sequence, position) of this graph → the monitors that fired there, as bits; [`super::monitor::MAX_MONITORS`] fit.
    fired: HashMap<(i32, i32), u64>,
    /// The rows of this graph that some monitor read, in the order of the first.
    rows: Vec<(i32, i32)>,
    latches: Latches,
    watched: Watched,
    unjudged: Vec<(Unknown, u64)>,
}

impl Memory {
    /// Another graph begins: nothing is known of its rows.
    pub(super) fn begin(&mut self) {
        self.fired.clear();
        self.rows.clear();
    }

    /// A monitor read a row.
    pub(super) fn note(&mut self, watcher: &Watcher, row: &Row, value: f32) {
        let fired = value >= watcher.condition.threshold;
        let (Some(sequences), Some(position)) = (row.sequences, row.position) else {
            let why = if row.sequences.is_none() { Unknown::Sequence } else { Unknown::Position };
            return self.unknown(why);
        };
        for sequence in sequences.iter() {
            let bits = self.fired.entry((sequence, position)).or_insert_with(|| {
                self.rows.push((sequence, position));
                0
            });
            let bit = 1u64.checked_shl(watcher.monitor as u32).unwrap_or(0);
            *bits = if fired { *bits | bit } else { *bits & !bit };
            let (monitor, name, generated) = (watcher.monitor, watcher.name.clone(), row.generated);
            self.watched.read(Reading { monitor, name, sequence, position, generated, value, fired });
        }
        if watcher.condition.sequence {
            self.latches.hear(watcher.identity, sequences, position, fired);
        }
    }

    /// A row that a monitor could not be judged on.
    pub(super) fn unknown(&mut self, why: Unknown) {
        match self.unjudged.iter_mut().find(|(known, _)| *known == why) {
            Some((_, n)) => *n += 1,
            None => self.unjudged.push((why, 1)),
        }
    }

    /// Whether a condition holds of a row, in all of its sequences. `None`: it is not known
    /// which row it is.
    pub(super) fn holds(&self, judged: &Judged, bench: &Bench, row: &Row) -> Option<bool> {
        let (sequences, position) = (row.sequences?, row.position?);
        Some(sequences.iter().all(|sequence| judged.holds(&|m| self.fires(m, &bench.lasting, (sequence, position)))))
    }

    fn fires(&self, monitor: usize, lasting: &HashMap<usize, u64>, (sequence, position): (i32, i32)) -> bool {
        match lasting.get(&monitor) {
            Some(&identity) => self.latches.is_open(identity, sequence, position),
            None => self.fired.get(&(sequence, position)).is_some_and(|bits| bits >> monitor.min(63) & 1 == 1),
        }
    }

    /// Passes verdicts on the rows of the graph that ran.
    pub(super) fn judge(&mut self, bench: &Bench) {
        for &(sequence, position) in &self.rows {
            for (verdict, (judged, told)) in bench.verdicts.iter().enumerate() {
                if judged.holds(&|m| self.fires(m, &bench.lasting, (sequence, position))) {
                    let Told { name, action, text } = told.clone();
                    self.watched.pass(Passed { verdict, name, sequence, position, action, text });
                }
            }
        }
        self.begin();
    }

    pub(super) fn take(&mut self) -> Watched {
        std::mem::take(&mut self.watched)
    }

    /// Rows that monitors could not be judged on since the last call, by reason.
    pub(super) fn take_unjudged(&mut self) -> Vec<(Unknown, u64)> {
        std::mem::take(&mut self.unjudged)
    }

    /// Forgets what fired in sequences and monitors that are not kept.
    pub(super) fn retain(&mut self, keeps: impl FnMut(u64, i32) -> bool) {
        self.latches.retain(keeps);
    }
}

impl Watched {
    /// Adds what came later, as far as there is room.
    pub fn extend(&mut self, later: Self) {
        later.readings.into_iter().for_each(|reading| self.read(reading));
        later.verdicts.into_iter().for_each(|passed| self.pass(passed));
        self.lost += later.lost;
    }

    fn read(&mut self, reading: Reading) {
        if self.readings.len() < MOST_READINGS { self.readings.push(reading) } else { self.lost += 1 }
    }

    fn pass(&mut self, passed: Passed) {
        if self.verdicts.len() < MOST_READINGS { self.verdicts.push(passed) } else { self.lost += 1 }
    }
}

/// Makes the monitors of a plan ready, each at its hook point.
pub(super) fn watchers(monitors: &[Monitor], world: &World) -> Result<Vec<(HookPoint, Watcher)>> {
    let watcher = |(index, monitor): (usize, &Monitor)| {
        watcher(index, monitor, world).map_err(|e| e.context(format!("monitors[{index}]")))
    };
    monitors.iter().enumerate().map(watcher).collect()
}

fn watcher(index: usize, monitor: &Monitor, world: &World) -> Result<(HookPoint, Watcher)> {
    let (name, dictionary) = world.dictionary(monitor.dictionary.as_deref())?;
    world.check_reads(name, dictionary, "a monitor", false)?;
    world.check_features(name, dictionary, &monitor.features, "features")?;
    let own = |&feature: &u32| dictionary.feature_point(feature as usize).or(dictionary.point());
    let point = monitor.features.first().and_then(own);
    let point = point.ok_or_else(|| Error::mismatch(format!("dictionary: \"{name}\" does not say its layer")))?;
    if let Some(other) = monitor.features.iter().filter_map(own).find(|other| *other != point) {
        return Err(Error::mismatch(format!("features: expected features of one layer, found {point} and {other}")));
    }
    world.check_layer(point.layer())?;
    let sequence = monitor.scope == Scope::Sequence;
    let read = (monitor.features.as_slice(), monitor.unit, monitor.threshold);
    let condition = super::compile::reads((name, dictionary), read, sequence, world)?;
    let rows = super::compile::rows(&monitor.select, false)?;
    Ok((point, Watcher { monitor: index, name: monitor.name.as_str().into(), identity: 0, rows, condition }))
}

/// Refuses a rule that would have to know what a monitor reads later: at a later layer of the same row.
pub(super) fn check_order(
    rule: &Rule,
    point: HookPoint,
    judged: &Judged,
    (monitors, watchers): (&[Monitor], &[(HookPoint, Watcher)]),
) -> Result<()> {
    let late = |&m: &usize| {
        let (Some(monitor), Some((at, _))) = (monitors.get(m), watchers.get(m)) else { return false };
        let before = monitor.select.phase == Phase::Prompt && monitor.scope == Scope::Sequence;
        *at > point && !(before && rule.select.phase == Phase::Generated)
    };
    match judged.monitors().into_iter().find(late) {
        None => Ok(()),
        Some(m) => Err(Error::mismatch(format!(
            "when: \"{}\" reads {}, after the rule acts at {point}",
            monitors[m].name, watchers[m].0
        ))
        .hinted("give the rule a later layer; or have it select generated rows, and the monitor the prompt with scope sequence")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::SequenceSet;
    use super::*;

    #[test]
    fn conditions_combine() {
        let monitors = ["a", "b", "c"].map(|name| Monitor::new(name, [0], 0.5));
        let when = When::all([When::any([When::fires("a"), When::fires("b")]), When::unless(When::fires("c"))]);
        let judged = Judged::of(&when, &monitors);
        for bits in 0..8usize {
            let on = |m: usize| bits >> m & 1 == 1;
            assert_eq!(judged.holds(&on), (on(0) || on(1)) && !on(2), "{bits:b}");
        }
        assert_eq!(judged.monitors(), [0, 1, 2]);
    }

    #[test]
    fn uncollected_readings_are_bounded_and_counted() {
        let mut watched = Watched::default();
        let reading = Reading {
            monitor: 0,
            name: "a".into(),
            sequence: 0,
            position: 1,
            generated: None,
            value: 0.0,
            fired: false,
        };
        (0..MOST_READINGS + 3).for_each(|_| watched.read(reading.clone()));
        assert_eq!((watched.readings.len(), watched.lost), (MOST_READINGS, 3));
    }

    #[test]
    fn a_shared_row_holds_only_if_it_does_in_every_sequence() {
        let mut memory = Memory::default();
        let both = SequenceSet::of([0, 1]).unwrap();
        memory.fired.insert((0, 4), 1);
        let row = Row::new(4, 0);
        assert_eq!(memory.holds(&Judged::Fires(0), &Bench::default(), &row), Some(true));
        assert_eq!(memory.holds(&Judged::Fires(0), &Bench::default(), &row.shared_by(both)), Some(false));
        assert_eq!(memory.holds(&Judged::Fires(0), &Bench::default(), &Row::default()), None);
    }
}
