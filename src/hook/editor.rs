//! What is done with the nodes of a graph: the plan's edits, patches and captures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attribute::{self, Announced, Assigned};
use super::board::Steering;
use super::graph::{Graph, Step};
use super::ledger::{Faults, Ledger};
use super::node::Node;
use super::sites::{Found, Sites};
use super::{Captured, Patch};
use crate::error::{Error, Kind, Result};
use crate::hook_point::HookPoint;
use crate::plan::{Compiled, PointOps, Row, Scratch, Watched};

/// The part of a hook that a graph passes by.
#[derive(Default)]
pub(super) struct Editor {
    plan: Option<Arc<Compiled>>,
    /// The version of the plan on the board.
    version: u64,
    scratch: Scratch,
    pub(super) patches: BTreeMap<HookPoint, Box<Patch>>,
    pub(super) capture: BTreeSet<HookPoint>,
    pub(super) captured: BTreeMap<HookPoint, Captured>,
    pub(super) stop_after: Option<usize>,
    pub(super) alone: bool,
    announced: Option<Announced>,
    graph: Graph,
    sites: Sites,
    /// The rows of this micro-batch, as of what had been learned then.
    assigned: Option<(usize, Assigned)>,
    /// The rows that the node at hand holds.
    meta: Vec<Row>,
    buffer: Vec<f32>,
    /// The node after which the graph ends early.
    ends: Option<usize>,
    ended: bool,
    /// Rows of this graph were changed.
    edited: bool,
    ledger: Ledger,
    faults: Faults,
}

impl Editor {
    /// A batch will be decoded that holds `rows`.
    pub(super) fn announce(&mut self, rows: &[Row]) {
        self.end_graph();
        self.announced = Some(Announced::new(rows));
        self.graph.restart();
    }

    /// The announced batch was not decoded.
    pub(super) fn withdraw(&mut self) {
        self.announced = None;
        self.graph.restart();
    }

    /// No batch is under way: the next node begins a graph.
    pub(super) fn restart(&mut self) {
        self.end_graph();
        self.graph.restart();
    }

    /// The next context that is seen is the hook's.
    pub(super) fn unbind(&mut self) {
        self.restart();
        self.graph.unbind();
        self.sites.forget();
    }

    /// What was seen and done since the last call.
    pub(super) fn finish(&mut self) -> Ledger {
        self.end_graph();
        let waiting = self.announced.take().filter(|announced| announced.is_fresh() && !self.is_idle());
        if let Some(announced) = waiting.filter(|announced| announced.left() > 0 && self.ledger.graphs == 0) {
            let n = announced.left() as u64;
            self.faults.add(Kind::Mismatch, "tokens were announced, and no graph came that the callback saw", n);
        }
        self.graph.restart();
        let mut ledger = std::mem::take(&mut self.ledger);
        ledger.rules = self.scratch.tally().take();
        for (rule, tally) in ledger.rules.iter().enumerate() {
            for (why, n) in tally.unjudged_rows() {
                self.faults.add(Kind::Mismatch, format!("rules[{rule}]: rows were left unsteered: {why}"), n);
            }
        }
        for (why, n) in self.scratch.take_unwatched() {
            self.faults.add(Kind::Mismatch, format!("monitors: rows were not read: {why}"), n);
        }
        self.faults.take(&mut ledger);
        ledger
    }

    /// What monitors read since the last call, the graph at hand included, which is over.
    pub(super) fn take_watched(&mut self) -> Watched {
        self.end_graph();
        self.scratch.take_watched()
    }

    pub(super) fn fail(&mut self, error: &Error) {
        self.faults.add(error.kind(), error.message(), 1);
    }

    /// Closes the gates of a sequence.
    pub(super) fn forget_sequence(&mut self, sequence: i32) {
        self.scratch.forget_sequence(sequence);
    }

    /// Nothing is to be done in any graph.
    pub(super) fn is_idle(&self) -> bool {
        self.plan.is_none() && self.patches.is_empty() && self.capture.is_empty() && self.stop_after.is_none()
    }

    /// A graph in which there is nothing to do is not followed.
    pub(super) fn rest(&mut self) {
        self.graph.leave();
    }

    /// Whether the plan on the board is another one.
    pub(super) fn is_behind(&self, board: &Steering) -> bool {
        board.has_newer(self.version)
    }

    /// Takes the plan from the board.
    pub(super) fn catch_up(&mut self, board: &Steering) {
        if let Some(plan) = board.newer(&mut self.version) {
            self.scratch.keep(plan.as_deref());
            let adds = |plan: &Option<Arc<Compiled>>| plan.as_ref().is_some_and(|plan| plan.control_vector.is_some());
            // A control vector changes the graph.
            if adds(&plan) != adds(&self.plan) {
                self.sites.forget();
            }
            self.plan = plan;
            self.watch();
        }
    }

    /// Says which points are looked for.
    pub(super) fn watch(&mut self) {
        let planned = self.plan.iter().flat_map(|plan| plan.points.keys());
        let points = planned.chain(self.patches.keys()).chain(&self.capture).copied();
        self.graph.trail.forget();
        self.sites.set(points.chain(self.stop_after.map(HookPoint::from)).collect());
    }

    /// A node will be computed: is it wanted?
    pub(super) fn ask(&mut self, node: Node, board: &Steering) -> bool {
        let follows = self.graph.goes_on() && !self.ended;
        if follows && self.graph.trail.passes(node.address()) {
            return false;
        }
        let before = (self.graph.state(), self.sites.changes());
        let wanted = self.look(node, board);
        if self.graph.goes_on() && !self.ended {
            let quiet = follows && !wanted && before == (self.graph.state(), self.sites.changes());
            self.graph.trail.note(node, quiet);
        }
        wanted
    }

    /// As [`ask`](Self::ask), of a node at which something may happen.
    fn look(&mut self, node: Node, board: &Steering) -> bool {
        let (name, block) = (node.name(), node.reads_weights_of());
        match self.graph.meet(node, block) {
            Step::Begins => {
                self.end_graph();
                if self.announced.as_ref().is_none_or(Announced::is_fresh) {
                    self.catch_up(board);
                }
                self.graph.begin(node, self.sites.are_settled());
                self.sites.begin();
                (self.assigned, self.ends, self.ended, self.edited) = (None, None, false, false);
            }
            Step::GoesOn => {}
            Step::Lost => return false,
        }
        self.graph.learn(node, name);
        if self.graph.foreign {
            return false;
        }
        if self.ended {
            return true;
        }
        for (i, found) in self.sites.read_by(node, block, &mut self.graph) {
            self.found(i, found, node);
        }
        let mut wanted = self.ends == Some(node.address());
        for i in self.sites.meet(node, name, &self.graph) {
            wanted |= self.needs(i, node);
        }
        wanted
    }

    /// A wanted node was computed; false ends the graph.
    pub(super) fn arrive(&mut self, node: Node) -> bool {
        if self.ended || self.ends == Some(node.address()) {
            self.ended = true;
            return false;
        }
        for i in self.sites.at(node, node.name(), &self.graph) {
            let point = self.sites.point(i);
            let ends_here = self.ends_at(point);
            if self.sites.wait(i, node) {
                self.act(node, point);
                self.ended |= ends_here;
            }
        }
        self.sites.stopped();
        !self.ended
    }

    fn ends_at(&self, point: HookPoint) -> bool {
        self.stop_after.is_some() && self.stop_after == point.resid_post()
    }

    /// The reader of a point's node, `reader`, is about to be computed.
    fn found(&mut self, i: usize, found: Found, reader: Node) {
        let point = self.sites.point(i);
        match found {
            Found::Here(node) => {
                self.act(node, point);
                if self.ends_at(point) {
                    self.ends = Some(reader.address());
                }
            }
            Found::Late(what) => {
                let what =
                    format!("its rows were left: the node {what} before it was known; the next graph's are edited");
                self.refuse(point, &what);
            }
            // Rows that were edited are counted as such.
            Found::Wrong { what, edited: true } => self.faults.add(Kind::Unsupported, format!("{point}: {what}"), 1),
            Found::Wrong { what, edited: false } => self.refuse(point, &what),
        }
    }

    /// Whether the rows of a node, which may be the point, have to be seen.
    fn needs(&mut self, i: usize, node: Node) -> bool {
        let point = self.sites.point(i);
        if self.patches.contains_key(&point) || self.capture.contains(&point) || self.ends_at(point) {
            return true;
        }
        let Some(plan) = self.plan.clone() else { return false };
        let Some(ops) = plan.points.get(&point) else { return false };
        let Some((_, n)) = self.graph.extent(node).filter(|(_, n)| self.attribute(*n).is_ok()) else {
            return true; // acting on it says what is wrong
        };
        match ops.touches_after(&self.meta, &self.scratch) {
            Some(true) => return true,
            // A node that only may be the point comes before the graph has shown all.
            None if self.sites.is_sought(i) => return true,
            None | Some(false) => {}
        }
        let passed = ops.pass(&self.meta, &mut self.scratch);
        self.ledger.rows_seen += n as u64;
        self.ledger.rows_not_needed += passed.skipped;
        self.ledger.rows_refused += passed.unjudged;
        self.sites.done(i);
        false
    }

    /// Edits and copies the rows of a node.
    fn act(&mut self, node: Node, point: HookPoint) {
        let plan = self.plan.clone();
        let ops = plan.as_ref().and_then(|plan| plan.points.get(&point));
        if ops.is_none() && !self.patches.contains_key(&point) && !self.capture.contains(&point) {
            return;
        }
        if let Err(error) = self.rows(node, point, ops) {
            self.fail(&error.context(point));
        }
    }

    fn rows(&mut self, node: Node, point: HookPoint, ops: Option<&PointOps>) -> Result<()> {
        let Some((d_model, n_rows)) = self.graph.extent(node).filter(|_| node.is_contiguous()) else {
            let (name, shape) = (String::from_utf8_lossy(node.name()), node.shape());
            let dtype = node.dtype();
            return Err(Error::unsupported(format!(
                "\"{name}\": expected contiguous rows [d_model, n_rows, 1, 1] in f32, found type {dtype} of shape {shape:?}"
            )));
        };
        self.ledger.rows_seen += n_rows as u64;
        if let Err(why) = self.attribute(n_rows) {
            self.meta.clear();
            self.meta.resize(n_rows, Row::default());
            self.faults.add(Kind::Mismatch, format!("{point}: {why}"), n_rows as u64);
        }
        if let Some(width) = ops.map(PointOps::d_model).filter(|width| *width != d_model) {
            self.ledger.rows_refused += n_rows as u64;
            return Err(Error::mismatch(format!("the plan is {width} wide, the residual stream {d_model}")));
        }
        let all = self.patches.contains_key(&point) || self.capture.contains(&point);
        match node.in_place() {
            Some(data) => {
                // SAFETY: `rows` checked that the tensor is contiguous f32 of this size; the graph waits for the callback.
                let rows = unsafe { std::slice::from_raw_parts_mut(data, n_rows * d_model) };
                self.edit(rows, point, ops).1
            }
            None if all => self.across(node, 0, n_rows, d_model, point, ops),
            None => self.spans(node, d_model, point, ops),
        }
    }

    /// Steers those rows of a node in a device's memory that the plan touches; the others do not travel.
    fn spans(&mut self, node: Node, d_model: usize, point: HookPoint, ops: Option<&PointOps>) -> Result<()> {
        let Some(ops) = ops else { return Ok(()) };
        let meta = std::mem::take(&mut self.meta);
        let mut outcome = Ok(());
        let mut from = 0;
        let touched = |row: &Row| ops.touches(std::slice::from_ref(row)) == Some(true);
        for span in meta.chunk_by(|a, b| touched(a) == touched(b)) {
            self.meta.clear();
            self.meta.extend_from_slice(span);
            if span.iter().any(touched) {
                let done = self.across(node, from, span.len(), d_model, point, Some(ops));
                outcome = outcome.and(done);
            } else {
                let passed = ops.pass(span, &mut self.scratch);
                self.ledger.rows_not_needed += passed.skipped;
                self.ledger.rows_refused += passed.unjudged;
            }
            from += span.len();
        }
        outcome
    }

    /// Works on `n_rows` rows from row `from` on, in a copy that is written back if it changed.
    fn across(
        &mut self,
        node: Node,
        from: usize,
        n_rows: usize,
        d_model: usize,
        point: HookPoint,
        ops: Option<&PointOps>,
    ) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(n_rows * d_model, 0.0);
        node.read(from * d_model, &mut buffer);
        let (changed, outcome) = self.edit(&mut buffer, point, ops);
        if changed {
            node.write(from * d_model, &buffer);
        }
        self.buffer = buffer;
        outcome
    }

    /// Edits and copies rows; whether they changed.
    fn edit(&mut self, rows: &mut [f32], point: HookPoint, ops: Option<&PointOps>) -> (bool, Result<()>) {
        let (mut outcome, mut changed) = (Ok(()), false);
        if let Some(ops) = ops {
            let done = ops.apply(rows, &self.meta, &mut self.scratch);
            self.ledger.rows_edited += done.edited;
            self.ledger.rows_not_needed += done.skipped;
            self.ledger.rows_refused += done.unjudged;
            self.ledger.rows_restored += done.failed;
            if let Some(fault) = self.scratch.take_fault() {
                outcome = Err(Error::numeric(fault.to_string()));
            }
            changed = done.edited > 0;
        }
        if let Some(patch) = self.patches.get_mut(&point) {
            changed = true;
            outcome = outcome.and(patch(rows, &self.meta));
        }
        if self.capture.contains(&point) {
            let captured = self.captured.entry(point).or_default();
            captured.rows.extend_from_slice(rows);
            captured.meta.extend_from_slice(&self.meta);
            self.ledger.rows_captured += self.meta.len() as u64;
        }
        self.edited |= changed;
        (changed, outcome)
    }

    /// Puts into `meta` which tokens the `n_rows` rows of a node are.
    fn attribute(&mut self, n_rows: usize) -> std::result::Result<(), String> {
        let Some(shown) = self.graph.shown(self.alone) else {
            return Err("the graph shows neither tokens nor rows".into());
        };
        let n = shown.n;
        if self.assigned.as_ref().is_none_or(|(learned, _)| *learned != self.graph.learned) {
            self.assigned = Some((self.graph.learned, attribute::assign(self.announced.as_ref(), &shown)));
        }
        let Some((_, assigned)) = &self.assigned else { return Ok(()) };
        self.meta.clear();
        if n_rows == n {
            self.meta.extend_from_slice(&assigned.rows);
        } else {
            let outputs = self.graph.outputs().filter(|outputs| outputs.len() == n_rows);
            let outputs =
                outputs.ok_or_else(|| format!("{n_rows} rows, but {n} tokens and no such number of outputs"))?;
            for &row in outputs {
                let row = usize::try_from(row).ok().and_then(|row| assigned.rows.get(row));
                self.meta.push(*row.ok_or_else(|| format!("an output row is not one of the {n} tokens"))?);
            }
        }
        Ok(())
    }

    /// Accounts for the graph that ran.
    fn end_graph(&mut self) {
        if !self.graph.is_open() {
            return;
        }
        self.graph.close();
        if self.graph.foreign {
            self.ledger.foreign_graphs += 1;
            if self.edited {
                let what =
                    "rows of another context were edited before its cache was seen: give each context its own hook";
                self.faults.add(Kind::Mismatch, what, 1);
            }
            return;
        }
        self.ledger.graphs += 1;
        if let Some(shown) = self.graph.shown(self.alone) {
            let n = shown.n;
            if let Some(announced) = &mut self.announced {
                let last = self.assigned.take().filter(|(learned, _)| *learned == self.graph.learned);
                let assigned =
                    last.map_or_else(|| attribute::assign(Some(announced), &shown), |(_, assigned)| assigned);
                announced.take(&assigned);
                if announced.is_over() {
                    self.announced = None;
                }
                if let Some(doubt) = assigned.doubt {
                    self.faults.add(Kind::Mismatch, format!("rows of a batch could not be told: {doubt}"), n as u64);
                }
            }
            self.graph.count(n);
        }
        if let Some(plan) = &self.plan {
            self.scratch.end_graph(plan);
        }
        self.miss();
    }

    /// Points that were looked for and did not come.
    fn miss(&mut self) {
        let last = self.stop_after.filter(|_| self.ended);
        let missed: Vec<_> =
            self.sites.missed().filter(|point| last.is_none_or(|last| point.layer() <= last)).collect();
        for point in missed {
            self.refuse(point, "no node of the graph was found to be it");
        }
    }

    /// The rows of a point are left alone.
    fn refuse(&mut self, point: HookPoint, why: &str) {
        let n = self.graph.n_rows_of(point.layer()).unwrap_or(0) as u64;
        self.ledger.rows_seen += n;
        self.ledger.rows_refused += n;
        self.faults.add(Kind::Unsupported, format!("{point}: {why}"), 1);
    }
}
