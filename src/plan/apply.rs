//! The hot path: rows of one hook point in, the same rows steered out.
//!
//! Rows are taken in blocks that fit the L1 cache, and every encoder and decoder row is read once a block. What a row
//! becomes does not depend on the rows beside it: prefill in one batch or token by token gives the same bits. After the
//! first call with a batch of some size nothing is allocated.

use super::encoder::Encoder;
use super::row::Row;
use super::select::{Latches, Rows, Unknown, Verdict};
use super::tally::Tally;
use super::watch::{Bench, Judged, Memory, Watched, Watcher};
use crate::dictionary::{Dictionary, Undo};
use crate::hook_point::HookPoint;
use crate::num::{axpy, axpy8, is_bearable, norm};
use std::fmt;
use std::sync::Arc;

/// Bytes of residual rows in a block: half of a small L1 cache, the other half is for eight encoder or decoder rows.
const BLOCK_BYTES: usize = 16 << 10;
/// Fewer rows would read the encoder too often where it is larger than the L2 cache; more save nothing.
const BLOCK_ROWS: (usize, usize) = (4, 16);

/// What [`PointOps::apply`] did.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edited {
    /// Rows seen.
    pub rows: u64,
    /// Rows that were changed.
    pub edited: u64,
    /// Rows that no rule had to change.
    pub skipped: u64,
    /// Rows that no rule changed, and some rule could not be judged on. See [`Scratch::tally`].
    pub unjudged: u64,
    /// Rows put back as the model wrote them, because their edit was not finite. See [`Scratch::take_fault`].
    pub failed: u64,
}

impl std::ops::AddAssign for Edited {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.edited += other.edited;
        self.skipped += other.skipped;
        self.unjudged += other.unjudged;
        self.failed += other.failed;
    }
}

/// Why rows were put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A rule's edit had a NaN or an infinity, or made the row too long for a model's norm, which squares it.
    #[non_exhaustive]
    NotFinite {
        /// Index of the rule in the plan.
        rule: usize,
        /// Where.
        point: HookPoint,
        /// The row.
        row: Row,
    },
    /// The caller's rows do not fit: nothing was edited.
    #[non_exhaustive]
    Shape {
        /// Floats that `meta.len()` rows have.
        expected: usize,
        /// Floats given.
        found: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Fault::NotFinite { rule, point, row } => write!(
                f,
                "rules[{rule}]: the edit at {point}, {row} is not finite, or too large for a model to square; the row was left as the model wrote it"
            ),
            Fault::Shape { expected, found } => {
                write!(f, "rows: expected {expected} floats, found {found}; nothing was edited")
            }
        }
    }
}

/// Working memory of [`PointOps::apply`], and what sequence gates remember. One per context; use it with every hook point.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The block as the model wrote it. `[rows, d_model]`
    original: Vec<f32>,
    /// `[rows, features of a rule]`
    codes: Vec<f32>,
    active: Vec<usize>,
    state: Vec<State>,
    norms: Vec<f32>,
    frames: Vec<Undo>,
    /// The rows before the rule at hand. `[rows, d_model]`
    before: Vec<f32>,
    latches: Latches,
    memory: Memory,
    tally: Tally,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Untouched,
    Unjudged,
    Edited,
    Failed,
}

impl Scratch {
    /// Empty: the first use allocates.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first fault since the last call.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// What each rule did since the last call of [`Tally::take`].
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Closes the sequence gates of a sequence. Needed only where a sequence starts anew at a position after the one that
    /// opened a gate (a restored state): going back closes gates by itself.
    pub fn forget_sequence(&mut self, sequence: i32) {
        self.latches.retain(|_, s| s != sequence);
        self.memory.retain(|_, s| s != sequence);
    }

    /// Closes every sequence gate.
    pub fn forget(&mut self) {
        self.latches.retain(|_, _| false);
        self.memory.retain(|_, _| false);
    }

    /// Ends a graph: its rows are through every hook point, and `plan` passes its verdicts on them.
    pub fn end_graph(&mut self, plan: &super::Compiled) {
        self.memory.judge(&plan.bench);
    }

    /// What monitors read since the last call, and the verdicts that followed.
    pub fn take_watched(&mut self) -> Watched {
        self.memory.take()
    }

    /// Rows that monitors could not be judged on since the last call, by reason.
    pub fn take_unwatched(&mut self) -> Vec<(Unknown, u64)> {
        self.memory.take_unjudged()
    }

    /// Closes the sequence gates of rules that `plan` does not have.
    pub fn keep(&mut self, plan: Option<&super::Compiled>) {
        let kept: Vec<u64> = plan.iter().flat_map(|plan| plan.points.values()).flat_map(PointOps::identities).collect();
        self.latches.retain(|rule, _| kept.contains(&rule));
        self.memory.retain(|monitor, _| kept.contains(&monitor));
        self.tally = Tally::default();
    }
}

/// A condition, ready to be evaluated: `Σ share_c relu(f_c) ≥ threshold`.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) encoder: Arc<Encoder>,
    /// `1/|C|`, or `1/(|C| mean_c)`.
    pub(super) share: Vec<f32>,
    pub(super) threshold: f32,
    pub(super) sequence: bool,
}

impl Condition {
    /// `Σ share_c relu(f_c)`
    fn mean(&self, codes: &[f32]) -> f32 {
        codes.iter().zip(&self.share).map(|(f, share)| f * share).sum()
    }
}

impl Watcher {
    /// Whether the monitor reads the row.
    fn reads(&self, row: &Row) -> Verdict {
        self.rows.admits(row)
    }
}

/// How a code f changes to f', given the feature's strength s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// `f' = f + s` where f > 0.
    ByIfActive,
    /// `f' = f + s f`: scale by m is s = m − 1, ablate is s = −1.
    Times,
    /// `f' = s`
    To,
    /// `f' = max(f, s)`
    AtLeast,
    /// `f' = min(f, s)`
    AtMost,
    /// Toward s, one budget shared by all features; keeps the norm.
    Spread,
}

/// What to do to a row.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a few a plan, and the hot one is the large one
pub(super) enum Edit {
    /// `x' = x + v`. `[d_model]`
    Constant(Vec<f32>),
    /// `x' = x + ‖x‖ v`. `[d_model]`
    Relative(Vec<f32>),
    /// `x' = x + scale(x) v`, for dictionaries that normalise every row by itself. `[d_model]`
    Normalized(Vec<f32>, Arc<Dictionary>),
    /// `x' = x + scale(x) Σ (f'_i − f_i) d_i`; the scale is 1 unless the dictionary normalises rows.
    Codes {
        /// Shared by the rules that name the same features.
        encoder: Arc<Encoder>,
        /// `[n_features, d_model]`, shared as well.
        decoder: Arc<Vec<f32>>,
        change: Change,
        /// `[n_features]`
        strengths: Vec<f32>,
        /// Strengths are multiplied by ‖x‖ / scale(x).
        relative: bool,
    },
}

impl Edit {
    pub(super) fn is_constant(&self) -> bool {
        matches!(self, Edit::Constant(_))
    }
}

/// One compiled rule.
#[derive(Clone, Debug)]
pub(super) struct Action {
    /// Index in the plan.
    pub(super) rule: usize,
    /// Hash of where it acts and all that it does: equal rules of two plans have the same.
    pub(super) identity: u64,
    pub(super) rows: Rows,
    pub(super) condition: Option<Condition>,
    /// What has to hold of the plan's monitors.
    pub(super) when: Option<Judged>,
    pub(super) edit: Edit,
    pub(super) norm_preserve: bool,
}

/// Everything a plan does at one hook point.
#[derive(Clone, Debug)]
pub struct PointOps {
    pub(super) point: HookPoint,
    pub(super) d_model: usize,
    pub(super) actions: Vec<Action>,
    /// The monitors that read here, before any action.
    pub(super) watchers: Vec<Watcher>,
    bench: Arc<Bench>,
}

impl PointOps {
    pub(super) fn new(point: HookPoint, d_model: usize, bench: Arc<Bench>) -> Self {
        Self { point, d_model, actions: Vec::new(), watchers: Vec::new(), bench }
    }

    /// The hook point.
    pub fn point(&self) -> HookPoint {
        self.point
    }

    /// Width of a row.
    pub fn d_model(&self) -> usize {
        self.d_model
    }

    /// Number of rules at this point.
    pub fn n_rules(&self) -> usize {
        self.actions.len()
    }

    fn identities(&self) -> impl Iterator<Item = u64> + '_ {
        let watchers = self.watchers.iter().map(|watcher| watcher.identity);
        self.actions.iter().map(|action| action.identity).chain(watchers)
    }

    /// Whether some rule edits one of these rows, or a rule or a monitor listens to it: `None` if that is not known of any. If
    /// not, [`apply`](Self::apply) need not see them.
    pub fn touches(&self, rows: &[Row]) -> Option<bool> {
        self.reaches(rows, None)
    }

    /// As [`touches`](Self::touches), given what monitors of earlier layers read in the same graph: a rule whose condition does
    /// not hold reaches nothing.
    pub fn touches_after(&self, rows: &[Row], scratch: &Scratch) -> Option<bool> {
        self.reaches(rows, Some(&scratch.memory))
    }

    fn reaches(&self, rows: &[Row], memory: Option<&Memory>) -> Option<bool> {
        let mut known = Some(false);
        let watched = self.watchers.iter().flat_map(|watcher| rows.iter().map(|row| watcher.reads(row)));
        let edited = self.actions.iter().flat_map(|action| rows.iter().map(move |row| (action, row)));
        // A monitor of this very point has yet to read.
        let read = memory.filter(|_| self.watchers.is_empty());
        let edited = edited.map(|(action, row)| match (&action.when, read) {
            _ if action.condition.as_ref().is_some_and(|c| c.sequence) => action.rows.hears(row),
            (Some(when), Some(memory)) if memory.holds(when, &self.bench, row) == Some(false) => Verdict::No,
            _ => action.rows.admits(row),
        });
        for verdict in watched.chain(edited) {
            match verdict {
                Verdict::Yes => return Some(true),
                Verdict::No => {}
                Verdict::Unknown(_) => known = None,
            }
        }
        known
    }

    /// Counts rows that no rule [`touches`](Self::touches), as [`apply`](Self::apply) would.
    pub fn pass(&self, meta: &[Row], scratch: &mut Scratch) -> Edited {
        let mut total = Edited { rows: meta.len() as u64, ..Edited::default() };
        for row in meta {
            self.unread(row, scratch);
            let mut unjudged = false;
            for action in &self.actions {
                if let Verdict::Unknown(why) = action.rows.admits(row) {
                    scratch.tally.of(action.rule).unjudged(why);
                    unjudged = true;
                }
            }
            *if unjudged { &mut total.unjudged } else { &mut total.skipped } += 1;
        }
        total
    }

    /// Steers `rows` `[meta.len(), d_model]` in place.
    ///
    /// Never fails: rows whose edit is not finite are put back and counted, and [`Scratch::take_fault`] says why.
    pub fn apply(&self, rows: &mut [f32], meta: &[Row], scratch: &mut Scratch) -> Edited {
        let n = meta.len();
        let mut total = Edited { rows: n as u64, ..Edited::default() };
        if rows.len() != n * self.d_model {
            scratch.fault.get_or_insert(Fault::Shape { expected: n * self.d_model, found: rows.len() });
            total.failed = total.rows;
            return total;
        }
        let block_rows = (BLOCK_BYTES / (4 * self.d_model).max(1)).clamp(BLOCK_ROWS.0, BLOCK_ROWS.1);
        for (block, meta) in rows.chunks_mut(block_rows * self.d_model).zip(meta.chunks(block_rows)) {
            self.apply_block(block, meta, scratch);
            for state in &scratch.state {
                match state {
                    State::Untouched => total.skipped += 1,
                    State::Unjudged => total.unjudged += 1,
                    State::Edited => total.edited += 1,
                    State::Failed => total.failed += 1,
                }
            }
        }
        total
    }

    fn apply_block(&self, block: &mut [f32], meta: &[Row], scratch: &mut Scratch) {
        scratch.state.clear();
        scratch.state.resize(meta.len(), State::Untouched);
        scratch.original.clear();
        scratch.original.extend_from_slice(block);
        self.watch(block, meta, scratch);
        for action in &self.actions {
            self.select(action, block, meta, scratch);
            self.judge(action, meta, scratch);
            if !scratch.active.is_empty() {
                self.edit(action, block, meta, scratch);
            }
        }
    }

    /// Has the monitors read the block.
    fn watch(&self, block: &[f32], meta: &[Row], scratch: &mut Scratch) {
        for watcher in &self.watchers {
            let Scratch { active, codes, frames, memory, .. } = scratch;
            active.clear();
            for (r, row) in meta.iter().enumerate() {
                match watcher.reads(row) {
                    Verdict::Yes => active.push(r),
                    Verdict::No => {}
                    Verdict::Unknown(why) => memory.unknown(why),
                }
            }
            let encoder = &watcher.condition.encoder;
            let n = encoder.len();
            codes.resize((active.len() * n).max(codes.len()), 0.0);
            encoder.encode(block, self.d_model, active, codes, frames);
            for (codes, &r) in codes.chunks_exact(n).zip(&*active) {
                memory.note(watcher, &meta[r], watcher.condition.mean(codes));
            }
        }
    }

    /// Counts what monitors could not be judged on, of a row that nothing reads.
    fn unread(&self, row: &Row, scratch: &mut Scratch) {
        for watcher in &self.watchers {
            if let Verdict::Unknown(why) = watcher.reads(row) {
                scratch.memory.unknown(why);
            }
        }
    }

    /// Leaves in `scratch.active` those of its rows on which the action's condition over monitors holds.
    fn judge(&self, action: &Action, meta: &[Row], scratch: &mut Scratch) {
        let Some(when) = &action.when else { return };
        let Scratch { active, state, memory, tally, .. } = scratch;
        active.retain(|&r| match memory.holds(when, &self.bench, &meta[r]) {
            Some(holds) => holds,
            None => {
                let why = if meta[r].sequences.is_none() { Unknown::Sequence } else { Unknown::Position };
                tally.of(action.rule).unjudged(why);
                if state[r] == State::Untouched {
                    state[r] = State::Unjudged;
                }
                false
            }
        });
    }

    /// Leaves in `scratch.active` the rows that the action edits.
    fn select(&self, action: &Action, block: &[f32], meta: &[Row], scratch: &mut Scratch) {
        let Scratch { active, codes, state, frames, latches, tally, .. } = scratch;
        let listens = action.condition.as_ref().is_some_and(|c| c.sequence);
        let mut unknown = |state: &mut [State], r: usize, why| {
            tally.of(action.rule).unjudged(why);
            if state[r] == State::Untouched {
                state[r] = State::Unjudged;
            }
        };
        active.clear();
        for (r, row) in meta.iter().enumerate() {
            if state[r] == State::Failed {
                continue;
            }
            match if listens { action.rows.hears(row) } else { action.rows.admits(row) } {
                Verdict::Yes => active.push(r),
                Verdict::No => {}
                Verdict::Unknown(_) if listens => {}
                Verdict::Unknown(why) => unknown(state, r, why),
            }
        }
        let Some(condition) = &action.condition else { return };
        if active.is_empty() && !listens {
            return;
        }
        let n_features = condition.encoder.len();
        codes.resize((active.len() * n_features).max(codes.len()), 0.0);
        condition.encoder.encode(block, self.d_model, active, codes, frames);
        let met = |k: usize| condition.mean(&codes[k * n_features..][..n_features]) >= condition.threshold;
        if !listens {
            let mut rows = 0..;
            active.retain(|_| rows.next().is_some_and(met));
            return;
        }
        // Feed the gate every row of its sequences in order; rows that it may not read count as not met.
        let (mut k, mut kept) = (0, 0);
        for (r, row) in meta.iter().enumerate() {
            let listened = active.get(k) == Some(&r);
            let is_met = listened && met(k);
            k += usize::from(listened);
            match action.rows.concerns(row) {
                Verdict::No => continue,
                Verdict::Yes => {}
                Verdict::Unknown(why) => {
                    unknown(state, r, why);
                    continue;
                }
            }
            let (Some(sequences), Some(position)) = (row.sequences, row.position) else {
                unknown(state, r, if row.sequences.is_none() { Unknown::Sequence } else { Unknown::Position });
                continue;
            };
            if !latches.hear(action.identity, sequences, position, is_met) || state[r] == State::Failed {
                continue;
            }
            match action.rows.admits(row) {
                Verdict::Yes => {
                    active[kept] = r;
                    kept += 1;
                }
                Verdict::No => {}
                Verdict::Unknown(why) => unknown(state, r, why),
            }
        }
        active.truncate(kept);
    }

    /// Edits the rows in `scratch.active`.
    fn edit(&self, action: &Action, block: &mut [f32], meta: &[Row], scratch: &mut Scratch) {
        let d = self.d_model;
        let Scratch { original, before, codes, active, state, norms, frames, fault, tally, .. } = scratch;
        let tally = tally.of(action.rule);
        before.clear();
        before.extend_from_slice(block);
        let spread = matches!(action.edit, Edit::Codes { change: Change::Spread, .. });
        let preserve = action.norm_preserve || spread;
        let relative = matches!(action.edit, Edit::Relative(_) | Edit::Codes { relative: true, .. });
        norms.clear();
        norms.extend(active.iter().map(|&r| if preserve || relative { norm(&block[r * d..][..d]) } else { 1.0 }));

        match &action.edit {
            Edit::Constant(v) => active.iter().for_each(|&r| axpy(1.0, v, &mut block[r * d..][..d])),
            Edit::Relative(v) => {
                active.iter().zip(&*norms).for_each(|(&r, &norm)| axpy(norm, v, &mut block[r * d..][..d]));
            }
            Edit::Normalized(v, dictionary) => {
                for &r in &*active {
                    let row = &mut block[r * d..][..d];
                    axpy(dictionary.undo(row).scale, v, row);
                }
            }
            Edit::Codes { encoder, decoder, change, strengths, relative } => {
                let n_features = encoder.len();
                codes.resize((active.len() * n_features).max(codes.len()), 0.0);
                encoder.encode(block, d, active, codes, frames);
                let mut kept = 0;
                for k in 0..active.len() {
                    let scale = if *relative { norms[k] / frames[k].scale } else { 1.0 };
                    let codes_k = &mut codes[k * n_features..][..n_features];
                    tally.read(codes_k);
                    if change.deltas(codes_k, strengths, scale) {
                        codes.copy_within(k * n_features..(k + 1) * n_features, kept * n_features);
                        (active[kept], norms[kept], frames[kept]) = (active[k], norms[k], frames[k]);
                        kept += 1;
                    }
                }
                active.truncate(kept);
                for (i, rows) in decoder.chunks(8 * d).enumerate() {
                    for (k, &r) in active.iter().enumerate() {
                        let end = (8 * i + 8).min(n_features);
                        add(&codes[k * n_features..][8 * i..end], frames[k].scale, rows, &mut block[r * d..][..d]);
                    }
                }
            }
        }

        for (&r, &length) in active.iter().zip(&*norms) {
            let row = &mut block[r * d..][..d];
            let after = norm(row);
            let ratio = if preserve { length / after } else { 1.0 };
            if is_bearable(after) && ratio.is_finite() {
                if preserve {
                    row.iter_mut().for_each(|v| *v *= ratio);
                }
                state[r] = State::Edited;
                tally.changed(&before[r * d..][..d], row);
            } else {
                row.copy_from_slice(&original[r * d..][..d]);
                state[r] = State::Failed;
                fault.get_or_insert(Fault::NotFinite { rule: action.rule, point: self.point, row: meta[r] });
            }
        }
    }
}

/// `x += Σ scale δ_i d_i` over up to eight decoder rows; those with δ = 0 are not read, unless most of the others are.
fn add(deltas: &[f32], scale: f32, rows: &[f32], x: &mut [f32]) {
    match deltas.try_into() as std::result::Result<&[f32; 8], _> {
        Ok(deltas) if deltas.iter().filter(|&&delta| delta != 0.0).count() > 3 => {
            axpy8(&deltas.map(|delta| delta * scale), rows, x);
        }
        _ => {
            for (&delta, row) in deltas.iter().zip(rows.chunks_exact(x.len())) {
                if delta != 0.0 {
                    axpy(delta * scale, row, x);
                }
            }
        }
    }
}

impl Change {
    /// Replaces the codes of one row by what is to be added of each decoder row; `false` if that is nothing.
    /// Strengths are multiplied by `scale`.
    fn deltas(self, codes: &mut [f32], strengths: &[f32], scale: f32) -> bool {
        let mut any = false;
        let mut lacking = 0.0;
        for (f, &s) in codes.iter_mut().zip(strengths) {
            let s = s * scale;
            *f = match self {
                Change::ByIfActive if *f > 0.0 => s,
                Change::ByIfActive => 0.0,
                Change::Times => s * *f,
                Change::To => s - *f,
                Change::AtLeast | Change::Spread => (s - *f).max(0.0),
                Change::AtMost => (s - *f).min(0.0),
            };
            any |= *f != 0.0;
            lacking += *f;
        }
        if self == Change::Spread && any {
            for (v, &s) in codes.iter_mut().zip(strengths) {
                *v *= s * scale / lacking;
            }
        }
        any
    }
}
