//! Following one graph: where it begins, whose it is, and what it shows of its rows.
//!
//! *A graph begins* with the first node after a batch was announced or a run was finished; where the node that began the
//! last one comes again; where a node of block 0 comes after one of a later block; or where the batch's tokens or
//! embeddings are read again after a block began. Names of first nodes would not do: batches of embeddings start with
//! another node than batches of tokens, and graphs that shift the cache or load a state have neither.
//!
//! *Whose it is*: a graph writes to a cache; the address of the first cache tensor tells contexts apart, and the address of
//! the token embeddings tells models apart (a draft model's context may inherit the callback).
//!
//! *What it shows*: the tokens, their positions, the cells that they are written to, and which rows the last block keeps.
//! These inputs share memory with later nodes, so each is read when its first reader is asked about.

use super::attribute::Shown;
use super::node::{Node, Source};
use super::trail::Trail;

/// What is known of the graph that runs now.
#[derive(Default)]
pub(super) struct Graph {
    /// A boundary: the next node begins a graph.
    restart: bool,
    /// It is followed.
    running: bool,
    /// The node that the graph began with.
    first: usize,
    /// The block that was entered last: one whose weights were read, with rows of the residual stream.
    pub(super) block: Option<usize>,
    /// What the current block reads.
    pub(super) entry: Option<usize>,
    /// The way through it.
    pub(super) trail: Trail,
    /// Width of the residual stream.
    pub(super) width: usize,
    /// It is another context's.
    pub(super) foreign: bool,
    /// It has tokens or embeddings.
    pub(super) has_input: bool,
    tokens: Option<Vec<i32>>,
    positions: Option<Vec<i32>>,
    streams: Option<Vec<i32>>,
    unified: bool,
    outputs: Option<Vec<i32>>,
    n_tokens: Option<usize>,
    /// Counts what was learned, so that rows are attributed anew when there is more.
    pub(super) learned: usize,
    /// The first cache tensor was met.
    placed: bool,
    /// The context that the hook belongs to, by its first cache tensor; and its model, by its token embeddings.
    context: Option<usize>,
    model: Option<usize>,
    /// The largest micro-batch of this context so far.
    largest: usize,
}

/// What a node that is asked about means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It begins a graph.
    Begins,
    /// It belongs to the graph that runs.
    GoesOn,
    /// Nobody followed the graph that runs from its start.
    Lost,
}

impl Graph {
    /// The next node begins a graph.
    pub(super) fn restart(&mut self) {
        self.restart = true;
    }

    /// The next context that is seen is the hook's.
    pub(super) fn unbind(&mut self) {
        (self.context, self.model, self.largest) = (None, None, 0);
        self.trail.forget();
        self.restart = true;
    }

    /// Whether a graph with rows is under way.
    pub(super) fn is_open(&self) -> bool {
        self.running && self.has_input
    }

    /// The graph has ended.
    pub(super) fn close(&mut self) {
        self.running = false;
    }

    /// A graph runs that is not followed: where it begins is past.
    pub(super) fn leave(&mut self) {
        (self.running, self.restart) = (false, false);
    }

    /// Looks at a node that is asked about, before anything else is done with it. `block` is that whose weights it reads.
    pub(super) fn meet(&mut self, node: Node, block: Option<usize>) -> Step {
        let reads = block.is_none() && reads_batch(node);
        let falls = block == Some(0) && self.block > Some(0);
        match self.running {
            _ if self.restart => Step::Begins,
            true if falls || node.address() == self.first || (reads && self.block.is_some()) => Step::Begins,
            true => {
                // Nobody looks for the entries of another context's blocks.
                if self.foreign {
                    self.block = self.block.max(block);
                }
                Step::GoesOn
            }
            false if reads => Step::Begins,
            false => Step::Lost,
        }
    }

    /// A graph begins with this node. `settled`: the points that are looked for are known.
    pub(super) fn begin(&mut self, node: Node, settled: bool) {
        let mut trail = std::mem::take(&mut self.trail);
        trail.begin(settled);
        let Self { context, model, largest, .. } = *self;
        *self = Self { running: true, first: node.address(), context, model, largest, trail, ..Self::default() };
    }

    /// Whether the next node belongs to the graph that runs, as far as is known.
    pub(super) fn goes_on(&self) -> bool {
        self.running && !self.restart && !self.foreign
    }

    /// All that a node may change.
    pub(super) fn state(&self) -> impl PartialEq + use<> {
        (self.learned, self.block, self.entry, self.width, self.has_input, self.placed)
    }

    /// Where the rows of an operand come from, behind views and copies.
    pub(super) fn source<'g>(&self, operand: Node<'g>) -> Source<'g> {
        let mut source = Source { rows: operand, root: operand, moved: false };
        // Chains are short; the bound is for tables that lie.
        for _ in 0..8 {
            let root = source.root;
            if let Some(inner) = root.passed_on() {
                if root.is_copy() {
                    source.rows = inner;
                }
                source.root = inner;
            } else if let Some(origin) = root.copies().and_then(|name| self.trail.named(name, root)) {
                (source.root, source.moved) = (origin, true);
            } else {
                break;
            }
        }
        source
    }

    /// What a node reads that was computed or came in with the batch; no weights.
    pub(super) fn reads<'g>(&self, node: Node<'g>) -> impl Iterator<Item = Source<'g>> {
        let sources = node.operands().map(|operand| self.source(operand));
        sources.filter(|source| source.root.is_computed() || source.root.is_input())
    }

    /// What the norm reads whose rows these are, or these rows, if they are no norm's.
    pub(super) fn before_norm<'g>(&self, source: Source<'g>) -> Option<Source<'g>> {
        if !source.root.is_norm() {
            return Some(source);
        }
        let before = self.source(source.root.src(0)?);
        Some(Source { moved: before.moved || source.moved, ..before })
    }

    /// Whether a node is made from rows that `index` picks, within a few steps.
    fn picks_by(&self, node: Node, index: &[u8], steps: usize) -> bool {
        let node = self.source(node).root;
        let picks = node.src(1).is_some_and(|operand| operand.is_called(index));
        picks || (steps > 0 && node.operands().take(2).any(|operand| self.picks_by(operand, index, steps - 1)))
    }

    /// Learns what a node shows.
    pub(super) fn learn(&mut self, node: Node, name: &[u8]) {
        if let Some(input) = node.src(1).filter(|input| input.dtype() != super::host::TYPE_F32) {
            self.integers(node, input);
        }
        if !self.placed && name.starts_with(b"cache_") {
            self.place(node);
        }
        self.has_input |= !self.has_input && reads_batch(node);
    }

    /// The batch came as embeddings. Its graph has the tokens' input too, with what an earlier batch left in it.
    pub(super) fn comes_as_rows(&mut self, rows: Node) {
        if let Some((width, n)) = rows.rows() {
            (self.width, self.n_tokens) = (width, Some(n));
        }
        self.tokens = None;
        self.learned += 1;
    }

    /// A block reads these rows.
    pub(super) fn enter(&mut self, block: usize, entry: Source) {
        (self.block, self.entry) = (Some(block), Some(entry.root.address()));
        self.has_input = true;
        let Some((width, n)) = entry.rows.rows() else { return };
        if self.n_tokens.is_none() {
            (self.width, self.n_tokens) = (width, Some(n));
            self.learned += 1;
            if self.block == Some(0) && !self.picks_by(entry.root, b"inp_tokens", 6) {
                self.comes_as_rows(entry.rows);
            }
        }
    }

    /// `[d_model, n_rows]` of a node: of several streams side by side (`[d_model, n, streams]`), the first.
    pub(super) fn extent(&self, node: Node) -> Option<(usize, usize)> {
        let (width, n) = node.rows()?;
        let one = usize::try_from(node.shape()[1]).ok().filter(|one| Some(*one) == self.n_rows());
        Some((width, one.map_or(n, |one| one.min(n))))
    }

    /// Whether a matrix holds this graph's rows: all, or those that the last block keeps.
    pub(super) fn holds_rows(&self, node: Node) -> bool {
        let outputs = self.outputs.as_ref().map(Vec::len);
        node.rows().is_some_and(|(d, n)| d == self.width && (Some(n) == self.n_tokens || Some(n) == outputs))
    }

    fn integers(&mut self, node: Node, input: Node) {
        let is = |wanted: &[u8]| input.is_called(wanted);
        let narrow =
            |list: Option<Vec<i64>>| list?.into_iter().map(|v| i32::try_from(v).ok()).collect::<Option<Vec<_>>>();
        if self.tokens.is_none() && is(b"inp_tokens") {
            self.tokens = narrow(input.integers());
            self.has_input = true;
            self.model(node);
        } else if self.positions.is_none() && is(b"inp_pos") {
            self.positions = narrow(input.integers());
            self.has_input = true;
        } else if self.outputs.is_none() && (is(b"out_ids") || is(b"inp_out_ids")) {
            self.outputs = narrow(input.integers());
        } else if self.streams.is_none() && !self.unified && node.src(2).is_some() {
            self.cells(node, input);
        } else {
            return;
        }
        self.learned += 1;
    }

    /// Rows that are written to a cache of several streams: the stream is the sequence.
    fn cells(&mut self, node: Node, input: Node) {
        let Some(cache) = node.src(2).map(cache).filter(|cache| cache.name().starts_with(b"cache_k")) else { return };
        let [_, size, streams, _] = cache.shape();
        if streams < 2 || size < 1 {
            self.unified = true;
            return;
        }
        let stream = |cell: i64| i32::try_from(cell / size).ok().filter(|_| cell >= 0);
        self.streams = input.integers().and_then(|cells| cells.into_iter().map(stream).collect());
    }

    /// The first cache tensor of the graph: the context's own, or another's.
    fn place(&mut self, node: Node) {
        self.placed = true;
        let own = *self.context.get_or_insert(cache(node).address());
        self.foreign |= own != cache(node).address();
    }

    fn model(&mut self, node: Node) {
        let Some(embeddings) = node.src(0).map(Node::address) else { return };
        self.foreign |= *self.model.get_or_insert(embeddings) != embeddings;
    }

    /// Tokens of this micro-batch, as far as they are known to be so many.
    fn n_rows(&self) -> Option<usize> {
        self.n_tokens.or(self.tokens.as_ref().map(Vec::len))
    }

    /// The rows that the graph shows, as many as there are tokens; `None` before their number is known.
    pub(super) fn shown(&self, alone: bool) -> Option<Shown<'_>> {
        let n = self.n_rows()?;
        let of_tokens = |list: &&[i32]| list.len() == n;
        // Multi-section rotary positions hold several numbers a token, the text's first.
        let whole = |list: &&[i32]| list.len() >= n && list.len().is_multiple_of(n.max(1));
        Some(Shown {
            n,
            largest: self.largest.max(n),
            tokens: self.tokens.as_deref().filter(of_tokens),
            positions: self.positions.as_deref().filter(whole),
            streams: self.streams.as_deref().filter(of_tokens),
            unified: self.unified,
            alone,
        })
    }

    /// How many rows a point of this block holds: in the last one only outputs are left.
    pub(super) fn n_rows_of(&self, layer: usize) -> Option<usize> {
        let outputs = self.outputs.as_ref().filter(|_| self.block == Some(layer));
        outputs.map(Vec::len).or(self.n_rows())
    }

    /// The rows that are left in the last block.
    pub(super) fn outputs(&self) -> Option<&[i32]> {
        self.outputs.as_deref()
    }

    /// A micro-batch of the hook's own context is done.
    pub(super) fn count(&mut self, n: usize) {
        self.largest = self.largest.max(n);
    }
}

/// The cache tensor behind views of it and behind nodes that write to it.
fn cache(node: Node) -> Node {
    let mut node = node;
    for _ in 0..8 {
        match (0..3).filter_map(|i| node.src(i)).find(|inner| inner.name().starts_with(b"cache_")) {
            Some(inner) => node = inner,
            None => break,
        }
    }
    node
}

/// Whether a node reads the batch itself: its tokens or embeddings.
fn reads_batch(node: Node) -> bool {
    let is = |operand: Option<Node>, name: &[u8]| operand.is_some_and(|o| !o.is_computed() && o.is_called(name));
    is(node.src(1), b"inp_tokens") || is(node.src(0), b"inp_embd")
}
