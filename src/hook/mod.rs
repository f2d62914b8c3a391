//! Floor 5: rows in, rows out, inside a live ggml graph.
//!
//! llama.cpp calls one function for every node of its graph (`cb_eval`); a [`Hook`] is what stands behind that function.
//! It picks the nodes that hold its hook points (the residual stream after block L is `l_out-L`), finds out which token each
//! row belongs to, edits or copies the rows, and lets the graph run on.
//!
//! *Which token is it?* The callback sees tensors, not the batch. Positions come from the graph itself: some operand of
//! every attention block is the input `inp_pos`, one position a row, and in the last block `inp_out_ids` says which rows
//! are left. Sequence numbers and the line between prompt and answer are nowhere in the graph: the caller may announce
//! them ([`Hook::announce`]). A row whose token can't be told is never edited; it is counted and reported.
//!
//! *Failures* can't leave through the callback: returning false would silently drop the rest of the graph. They are kept,
//! the model runs on unsteered, and [`Hook::finish`] reports the first.
//!
//! *Cost*: a yes for a node splits the graph there and waits for it, some microseconds where ggml's threads are kept
//! (`llama_attach_threadpool`; the engine does) and some 40 where they start anew; a node that is not wanted costs a few
//! nanoseconds.

mod graph;
mod host;
mod probe;
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use host::{Fields, Functions, Host, Layout, TYPE_F32, TYPE_I32, Tensor};
pub use probe::{Lookup, Probed};

use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::plan::{Compiled, RowMeta, Scratch};
use graph::Graph;

/// What a hook saw and did since the last [`Hook::finish`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows at hook points with a plan or a capture.
    pub rows_seen: u64,
    /// Rows that a plan changed.
    pub rows_edited: u64,
    /// Rows that a plan could have changed, but that were left alone because their token could not be told, or because
    /// the edit was not finite.
    pub rows_skipped: u64,
    /// Rows copied for the caller.
    pub rows_captured: u64,
}

/// Rows of one hook point, copied out of the graph.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// `[n_rows, d_model]`, row-major.
    pub rows: Vec<f32>,
    /// The token of each row; position −1 when it could not be told.
    pub meta: Vec<RowMeta>,
}

/// Any edit of the rows `[meta.len(), d_model]` of a hook point; a row whose token could not be told has position −1.
pub type Patch = dyn FnMut(&mut [f32], &[RowMeta]) -> Result<()> + Send;

/// Reads and edits the residual stream while llama.cpp computes.
///
/// Its life: make it with the host's table; give `cb_eval` [`Hook::eval`] and keep the hook at one address while the
/// context lives; set a plan, change it, clear it, between any two decodes; call [`Hook::finish`] after a decode.
pub struct Hook {
    host: Host,
    plan: Option<Arc<Compiled>>,
    scratch: Scratch,
    architecture: String,
    patches: BTreeMap<HookPoint, Box<Patch>>,
    capture: BTreeSet<HookPoint>,
    captured: BTreeMap<HookPoint, Captured>,
    stop_after: Option<usize>,
    announced: Vec<RowMeta>,
    graph: Graph,
    rows: Vec<f32>,
    meta: Vec<RowMeta>,
    report: Report,
    failure: Option<Error>,
}

impl Hook {
    /// A hook with nothing to do yet.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            plan: None,
            scratch: Scratch::default(),
            architecture: String::new(),
            patches: BTreeMap::new(),
            capture: BTreeSet::new(),
            captured: BTreeMap::new(),
            stop_after: None,
            announced: Vec::new(),
            graph: Graph::default(),
            rows: Vec::new(),
            meta: Vec::new(),
            report: Report::default(),
            failure: None,
        }
    }

    /// Says which architecture's graphs it will see (`general.architecture` of the GGUF file): hook points other than the
    /// residual stream after a block are called differently in each.
    pub fn set_architecture(&mut self, architecture: &str) {
        architecture.clone_into(&mut self.architecture);
        self.watch();
    }

    /// Applies `plan` from the next graph on; `None` steers nothing. What the plan compiled to a control vector is not the
    /// hook's to apply: hand [`Compiled::control_vector`] to llama.cpp.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported), as [`patch`](Self::patch) and [`capture`](Self::capture), if the
    /// architecture's graph does not show a hook point; nothing changes then.
    pub fn set_plan(&mut self, plan: Option<Arc<Compiled>>) -> Result<()> {
        self.check(plan.iter().flat_map(|plan| plan.points.keys()).copied())?;
        self.plan = plan.filter(|plan| !plan.points.is_empty());
        self.scratch = Scratch::default();
        self.watch();
        Ok(())
    }

    /// Runs `patch` over the rows at `point` after the plan: for what no plan can say, such as putting a dictionary's
    /// reconstruction in place of the residual stream. `None` takes it away.
    pub fn patch(&mut self, point: impl Into<HookPoint>, patch: Option<Box<Patch>>) -> Result<()> {
        let point = point.into();
        self.check([point])?;
        match patch {
            Some(patch) => self.patches.insert(point, patch),
            None => self.patches.remove(&point),
        };
        self.watch();
        Ok(())
    }

    /// Copies the rows at these points (after any edit) until told otherwise; collect them with [`Hook::take_captured`].
    pub fn capture(&mut self, points: impl IntoIterator<Item = impl Into<HookPoint>>) -> Result<()> {
        let points: BTreeSet<HookPoint> = points.into_iter().map(Into::into).collect();
        self.check(points.iter().copied())?;
        self.capture = points;
        self.captured.clear();
        self.watch();
        Ok(())
    }

    /// Copies nothing any more, and forgets what was copied.
    pub fn capture_nothing(&mut self) {
        self.capture.clear();
        self.captured.clear();
        self.watch();
    }

    /// The rows copied at `point` since the last call.
    pub fn take_captured(&mut self, point: impl Into<HookPoint>) -> Captured {
        self.captured.remove(&point.into()).unwrap_or_default()
    }

    fn check(&self, points: impl IntoIterator<Item = HookPoint>) -> Result<()> {
        points.into_iter().try_for_each(|point| point.node(&self.architecture).map(|_| ()))
    }

    /// Tells the graph which nodes are wanted.
    fn watch(&mut self) {
        let planned = self.plan.iter().flat_map(|plan| plan.points.keys());
        let points = planned.chain(self.patches.keys()).chain(&self.capture);
        self.graph.watch(points.map(|point| point.site()), &self.architecture);
    }

    /// Ends every graph after `layer`, which saves the work above it; logits are then meaningless. For harvesting.
    pub fn stop_after(&mut self, layer: Option<usize>) {
        self.stop_after = layer;
    }

    /// Says what the next `llama_decode` holds: one entry a token, in the order of the batch.
    ///
    /// Without it, positions come from the graph, every row is of sequence 0, and a graph of a single row past position 0
    /// counts as generated. With it, a batch that the graph contradicts is not steered, but reported.
    pub fn announce(&mut self, batch: &[RowMeta]) {
        self.announced.clear();
        self.announced.extend_from_slice(batch);
        self.graph.restart();
    }

    /// Ends a run: what was seen and done since the last call, or the first failure since then.
    pub fn finish(&mut self) -> Result<Report> {
        let report = std::mem::take(&mut self.report);
        self.announced.clear();
        self.graph.restart();
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(report),
        }
    }

    /// The body of `cb_eval`. `ask`: is this node wanted? Otherwise: here it is, computed. False only to end the graph
    /// early, on purpose.
    ///
    /// # Safety
    /// `tensor` is the node that the host's scheduler asks about, valid for this call, and the host's table fits it.
    pub unsafe fn eval(&mut self, tensor: *mut Tensor, ask: bool) -> bool {
        if self.is_idle() {
            return !ask;
        }
        // SAFETY: the caller vouches for the tensor.
        let Some(point) = (unsafe { self.graph.visit(&self.host, tensor, ask) }) else { return false };
        let steers = self.plan.as_ref().is_some_and(|plan| plan.points.contains_key(&point));
        let patched = self.patches.contains_key(&point);
        let captures = self.capture.contains(&point);
        let stops = self.stop_after.is_some() && self.stop_after == point.resid_post();
        if ask {
            return steers || patched || captures || stops;
        }
        if steers || patched || captures {
            // SAFETY: the caller vouches for the tensor.
            if let Err(error) = unsafe { self.rows(tensor, point) } {
                self.fail(error.context(point));
            }
        }
        !stops
    }

    /// Nothing is to be done in any graph.
    fn is_idle(&self) -> bool {
        self.plan.is_none() && self.patches.is_empty() && self.capture.is_empty() && self.stop_after.is_none()
    }

    /// Keeps `error` for [`Hook::finish`], if it is the first.
    pub fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Edits and copies the rows at `point`.
    ///
    /// # Safety
    /// As [`Hook::eval`].
    unsafe fn rows(&mut self, tensor: *mut Tensor, point: HookPoint) -> Result<()> {
        // SAFETY: the caller vouches for the tensor.
        let (d_model, n_rows) = unsafe { graph::matrix(&self.host, tensor) }?;
        self.report.rows_seen += n_rows as u64;
        let known = self.graph.attribute(n_rows, &self.announced, &mut self.meta);
        let n_bytes = n_rows * d_model * size_of::<f32>();
        // SAFETY: the caller vouches for the tensor.
        let data = unsafe { self.host.data(tensor) }.cast::<f32>();
        let in_place = !data.is_null() && data.is_aligned();
        let rows = if in_place {
            // SAFETY: `matrix` checked that the tensor is contiguous f32 of this size; the graph waits for the callback.
            unsafe { std::slice::from_raw_parts_mut(data, n_rows * d_model) }
        } else {
            self.rows.resize(n_rows * d_model, 0.0);
            // SAFETY: the buffer has room for the whole tensor.
            unsafe { self.host.get(tensor, self.rows.as_mut_ptr().cast(), 0, n_bytes) };
            &mut self.rows[..]
        };
        let (mut outcome, mut changed) = (Ok(()), false);
        if let Some(ops) = self.plan.as_ref().and_then(|plan| plan.points.get(&point)) {
            if ops.d_model() != d_model {
                return Err(Error::mismatch(format!(
                    "the plan is {} wide, the residual stream {d_model}",
                    ops.d_model()
                )));
            }
            match known {
                Ok(()) => {
                    let done = ops.apply(rows, &self.meta, &mut self.scratch);
                    self.report.rows_edited += done.edited;
                    self.report.rows_skipped += done.failed;
                    if let Some(fault) = self.scratch.take_fault() {
                        outcome = Err(Error::numeric(fault.to_string()));
                    }
                    changed |= done.edited > 0;
                }
                Err(why) => {
                    self.report.rows_skipped += n_rows as u64;
                    outcome = Err(Error::mismatch(format!("{n_rows} rows left unsteered: {why}")));
                }
            }
        }
        if let Some(patch) = self.patches.get_mut(&point) {
            changed = true;
            outcome = outcome.and(patch(rows, &self.meta));
        }
        if changed && !in_place {
            // SAFETY: the buffer holds the whole tensor.
            unsafe { self.host.set(tensor, rows.as_ptr().cast(), 0, n_bytes) };
        }
        if self.capture.contains(&point) {
            let captured = self.captured.entry(point).or_default();
            captured.rows.extend_from_slice(rows);
            captured.meta.extend_from_slice(&self.meta);
            self.report.rows_captured += n_rows as u64;
        }
        outcome
    }
}
