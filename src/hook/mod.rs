//! Floor 5: rows in, rows out, inside a live ggml graph.
//!
//! llama.cpp calls one function for every node of its graph (`cb_eval`); a [`Hook`] is what stands behind that function.
//! It finds the nodes that hold its hook points, finds out which token each row belongs to, edits or copies the rows, and
//! lets the graph run on.
//!
//! * *Which node*: names are hints; what decides is who reads a node (`sites.rs`).
//! * *Which graph*: micro-batches, reused graphs, batches of embeddings, graphs that shift the cache, and graphs of other
//!   contexts are told apart (`graph.rs`).
//! * *Which row*: tokens, positions and the cells of the cache come from the graph; sequences and the line between prompt
//!   and answer from the caller ([`Hook::announce`]). Both are held against each other (`attribute.rs`). A rule leaves
//!   rows alone that it cannot be judged on.
//! * *Failures* can't leave through the callback: returning false would silently drop the rest of the graph. They are
//!   kept, the model runs on, and [`Hook::finish`] tells them beside the counts.
//!
//! *Cost*: a yes for a node splits the graph there and waits for it, some microseconds where ggml's threads are kept
//! (`llama_attach_threadpool`; the engine does) and some 40 where they start anew; a node that is not wanted costs some
//! ten nanoseconds. Nodes whose rows no rule of the plan can reach are not wanted.

mod attribute;
mod board;
mod editor;
mod graph;
mod host;
mod ledger;
mod node;
mod probe;
mod samples;
mod sites;
mod trail;

use std::sync::Arc;

pub use board::Steering;
pub use host::{Fields, Functions, Host, Layout, TYPE_F32, TYPE_I32, TYPE_I64, Tensor};
pub use ledger::{Fault, Ledger};
pub use probe::{Lookup, Probed};

use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::plan::{Compiled, Row, Watched};
use editor::Editor;
use node::Node;

/// Rows of one hook point, copied out of the graph.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// `[n_rows, d_model]`, row-major.
    pub rows: Vec<f32>,
    /// The token of each row, as far as it could be told.
    pub meta: Vec<Row>,
}

/// Any edit of the rows `[meta.len(), d_model]` of a hook point.
pub type Patch = dyn FnMut(&mut [f32], &[Row]) -> Result<()> + Send;

/// Reads and edits the residual stream while llama.cpp computes.
///
/// Its life: make it with the host's table; give `cb_eval` [`Hook::eval`] and keep the hook at one address while the
/// context lives; set a plan, change it, clear it, between any two decodes; call [`Hook::finish`] after a decode.
///
/// A hook belongs to one context: the first whose graph it sees when it has something to do. Graphs of others (a draft
/// model's context inherits the callback) pass untouched and are counted.
pub struct Hook {
    host: Host,
    board: Steering,
    editor: Editor,
}

impl Hook {
    /// A hook with nothing to do yet.
    pub fn new(host: Host) -> Self {
        let mut editor = Editor::default();
        editor.restart();
        Self { host, board: Steering::default(), editor }
    }

    /// Says which architecture's graphs it will see (`general.architecture` of the GGUF file): hook points other than the
    /// residual stream after a block are called differently in each.
    pub fn set_architecture(&mut self, architecture: &str) {
        self.board.set_architecture(architecture);
        self.rebind();
    }

    /// Says how many sequences the context was made for (`n_seq_max`). With one, every row is of sequence 0, also
    /// unannounced.
    pub fn set_sequences(&mut self, n_sequences: usize) {
        self.editor.alone = n_sequences == 1;
    }

    /// Belongs to the next context whose graph it sees.
    pub fn rebind(&mut self) {
        self.editor.unbind();
    }

    /// A handle that sets plans from other threads, also during a decode.
    pub fn steering(&self) -> Steering {
        self.board.clone()
    }

    /// Whether `plan` could be set: for callers that have something else to set with it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if the architecture's graph does not show a hook point.
    pub fn check_plan(&self, plan: &Compiled) -> Result<()> {
        self.board.check_plan(plan)
    }

    /// Applies `plan` from the next decode on; `None` steers nothing. Sequence gates of rules that stay the same keep their
    /// memory. What the plan compiled to a control vector is not the hook's to apply: hand [`Compiled::control_vector`]
    /// to llama.cpp.
    ///
    /// # Errors
    /// As [`check_plan`](Self::check_plan); nothing changes then. So do [`patch`](Self::patch) and
    /// [`capture`](Self::capture).
    pub fn set_plan(&mut self, plan: Option<Arc<Compiled>>) -> Result<()> {
        self.board.set_callback(plan)?;
        self.editor.restart();
        self.editor.catch_up(&self.board);
        Ok(())
    }

    /// Counts the plans that were set, through whichever handle.
    #[cfg(feature = "engine")]
    pub(crate) fn plan_version(&self) -> u64 {
        self.board.version()
    }

    /// Runs `patch` over the rows at `point` after the plan: for what no plan can say, such as putting a dictionary's
    /// reconstruction in place of the residual stream. `None` takes it away.
    pub fn patch(&mut self, point: impl Into<HookPoint>, patch: Option<Box<Patch>>) -> Result<()> {
        let point = point.into();
        self.board.check([point])?;
        match patch {
            Some(patch) => self.editor.patches.insert(point, patch),
            None => self.editor.patches.remove(&point),
        };
        self.watch();
        Ok(())
    }

    /// Copies the rows at these points (after any edit) until told otherwise; collect them with [`Hook::take_captured`].
    pub fn capture(&mut self, points: impl IntoIterator<Item = impl Into<HookPoint>>) -> Result<()> {
        let points: Vec<HookPoint> = points.into_iter().map(Into::into).collect();
        self.board.check(points.iter().copied())?;
        self.editor.capture = points.into_iter().collect();
        self.editor.captured.clear();
        self.watch();
        Ok(())
    }

    /// Copies nothing any more, and forgets what was copied.
    pub fn capture_nothing(&mut self) {
        self.editor.capture.clear();
        self.editor.captured.clear();
        self.watch();
    }

    /// The rows copied at `point` since the last call.
    pub fn take_captured(&mut self, point: impl Into<HookPoint>) -> Captured {
        self.editor.captured.remove(&point.into()).unwrap_or_default()
    }

    /// Ends every graph after `layer`, which saves the work above it; logits are then meaningless. For harvesting.
    pub fn stop_after(&mut self, layer: Option<usize>) {
        self.editor.stop_after = layer;
        self.watch();
    }

    fn watch(&mut self) {
        self.editor.restart();
        self.editor.watch();
    }

    /// Says what the next `llama_decode` holds: one entry a token, in the order of the batch. It counts for this decode only.
    ///
    /// What an entry leaves open, the graph may tell. Without an announcement nobody knows which sequences rows are of,
    /// where llama.cpp keeps several in one cache, or which the model wrote: rules that depend on it leave rows alone, and
    /// [`finish`](Self::finish) says so. Nothing is believed of a batch that the graph contradicts, and that is a fault.
    pub fn announce(&mut self, batch: &[Row]) {
        self.editor.announce(batch);
    }

    /// Takes the announcement back: the batch was not decoded.
    pub fn withdraw(&mut self) {
        self.editor.withdraw();
    }

    /// Closes the sequence gates of a sequence. Needed only where one starts anew at a later position (a restored state).
    pub fn forget_sequence(&mut self, sequence: i32) {
        self.editor.forget_sequence(sequence);
    }

    /// Ends a run: what was seen and done since the last call, and all that went wrong. [`Ledger::ok`] makes an error of
    /// that.
    pub fn finish(&mut self) -> Ledger {
        self.editor.finish()
    }

    /// What the plan's monitors read since the last call, and the verdicts that followed. Call it after a decode: a host that
    /// asks after each one learns of every token.
    pub fn take_watched(&mut self) -> Watched {
        self.editor.take_watched()
    }

    /// The body of `cb_eval`. `ask`: is this node wanted? Otherwise: here it is, computed. False only to end the graph
    /// early, on purpose.
    ///
    /// # Safety
    /// `tensor` is the node that the host's scheduler asks about, valid for this call, and the host's table fits it.
    pub unsafe fn eval(&mut self, tensor: *mut Tensor, ask: bool) -> bool {
        if self.editor.is_idle() && !self.editor.is_behind(&self.board) {
            self.editor.rest();
            return !ask;
        }
        // SAFETY: the caller vouches for the tensor.
        let node = unsafe { Node::new(&self.host, tensor) };
        if ask { self.editor.ask(node, &self.board) } else { self.editor.arrive(node) }
    }

    /// Keeps `error` for [`Hook::finish`].
    pub fn fail(&mut self, error: Error) {
        self.editor.fail(&error);
    }
}
