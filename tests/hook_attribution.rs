//! Which graph, which node and which row: graphs that a fake host plays, with what reality rarely shows (device memory,
//! names that mislead, broken announcements, other contexts).

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Arc;

use tiller::Kind;
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::hook::{Captured, Fields, Functions, Hook, Host, Ledger, Tensor};
use tiller::hook_point::{HookPoint, Site};
use tiller::plan::{
    Action, Compiled, Monitor, Plan, Route, Row, Rule, Selector, SequenceSet, Strength, Target, Verdict, When,
};

const F32: c_int = 0;
const I32: c_int = 26;
const I64: c_int = 27;
/// Width of the rows.
const D: usize = 2;

/// A tensor of the fake host.
struct Fake {
    name: CString,
    op: &'static std::ffi::CStr,
    dtype: c_int,
    shape: [i64; 4],
    bytes: Vec<u32>,
    /// Readable by the CPU in place.
    host: bool,
    operands: [*const Fake; 3],
}

impl Fake {
    fn new(name: &str, dtype: c_int, shape: [i64; 4], bytes: Vec<u32>) -> Box<Self> {
        let name = CString::new(name).unwrap();
        Box::new(Self { name, op: c"NONE", dtype, shape, bytes, host: true, operands: [std::ptr::null(); 3] })
    }

    fn values(&self) -> Vec<f32> {
        self.bytes.iter().map(|&b| f32::from_bits(b)).collect()
    }
}

fn fake<'a>(t: *const Tensor) -> &'a Fake {
    // SAFETY: every tensor of these tests is a `Fake` that outlives the graph.
    unsafe { &*t.cast::<Fake>() }
}

thread_local! {
    /// How often names were asked for.
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

unsafe extern "C" fn name(t: *const Tensor) -> *const c_char {
    LOOKS.set(LOOKS.get() + 1);
    fake(t).name.as_ptr()
}
unsafe extern "C" fn op(t: *const Tensor) -> *const c_char {
    fake(t).op.as_ptr()
}
unsafe extern "C" fn dtype(t: *const Tensor) -> c_int {
    fake(t).dtype
}
unsafe extern "C" fn shape(t: *const Tensor, out: *mut i64) {
    // SAFETY: the hook gives room for four extents.
    unsafe { out.cast::<[i64; 4]>().write(fake(t).shape) }
}
unsafe extern "C" fn contiguous(_: *const Tensor) -> bool {
    true
}
unsafe extern "C" fn data(t: *const Tensor) -> *mut c_void {
    let fake = fake(t);
    if fake.host { fake.bytes.as_ptr().cast_mut().cast() } else { std::ptr::null_mut() }
}
unsafe extern "C" fn get(t: *const Tensor, to: *mut c_void, offset: usize, size: usize) {
    let bytes: &[u8] = bytemuck::cast_slice(&fake(t).bytes);
    // SAFETY: the hook gives room for `size` bytes.
    unsafe { std::ptr::copy_nonoverlapping(bytes[offset..offset + size].as_ptr(), to.cast(), size) }
}
unsafe extern "C" fn set(t: *mut Tensor, from: *const c_void, offset: usize, size: usize) {
    // SAFETY: as in `fake`; the hook holds no reference to the tensor's own memory here.
    let fake = unsafe { &mut *t.cast::<Fake>() };
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut fake.bytes);
    // SAFETY: the hook gives `size` bytes.
    unsafe { std::ptr::copy_nonoverlapping(from.cast(), bytes[offset..offset + size].as_mut_ptr(), size) }
}
unsafe extern "C" fn src(t: *const Tensor, i: c_int) -> *const Tensor {
    fake(t).operands.get(i as usize).map_or(std::ptr::null(), |o| o.cast())
}

fn host() -> Host {
    Host::new(Functions { name, contiguous, get, set, op: Some(op) }, Fields::Asked { dtype, shape, data, src })
}

/// A number of a tensor in a [`Graph`].
type Id = usize;

/// What a batch holds, and how the context is made.
#[derive(Clone)]
struct Batch {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    /// Rows that the last block keeps.
    outputs: Vec<i32>,
    /// The stream that each row is written to, where a cache has several.
    streams: Option<Vec<i64>>,
    /// Rows come as embeddings.
    embeddings: bool,
    /// What a block's output is called; the sum that the next block reads, where that is another.
    output: &'static str,
    sum_is: &'static str,
    n_layer: usize,
    on_device: bool,
    /// Where the graph goes on on another device.
    border: Border,
}

/// What is copied to another device.
#[derive(Clone, Copy, PartialEq)]
enum Border {
    None,
    /// The input of this block.
    Input(usize),
    /// What the first norm of this block gives, and the block's input for the sum.
    Norm(usize),
}

impl Batch {
    fn new(tokens: &[i32], positions: &[i32]) -> Self {
        let last = tokens.len() as i32 - 1;
        Self {
            tokens: tokens.to_vec(),
            positions: positions.to_vec(),
            outputs: vec![last],
            streams: None,
            embeddings: false,
            output: "l_out",
            sum_is: "l_out",
            n_layer: 2,
            on_device: false,
            border: Border::None,
        }
    }
}

/// The tensors of a context that outlive its graphs: the weights of its model and its cache.
struct Context {
    embeddings: Box<Fake>,
    cache: Box<Fake>,
}

/// Cells of each stream of a cache.
const CELLS: i64 = 16;

fn context(streams: i64) -> Context {
    Context {
        embeddings: Fake::new("token_embd.weight", F32, [D as i64, 9, 1, 1], vec![0; 9 * D]),
        cache: Fake::new("cache_k_l0", F32, [1, CELLS, streams, 1], vec![]),
    }
}

/// A graph as llama.cpp builds them, in the order in which it is computed.
#[derive(Default)]
struct Graph {
    #[allow(clippy::vec_box)] // operands point at them
    tensors: Vec<Box<Fake>>,
    nodes: Vec<Id>,
    /// The block that is being built.
    block: usize,
    /// A tensor, its copy, and the number of the node before which it is made.
    copies: Vec<(Id, Id, usize)>,
}

impl Graph {
    fn of(context: &Context, batch: &Batch) -> Self {
        let (mut g, n) = (Self::default(), batch.tokens.len());
        let ints = |list: &[i32]| list.iter().map(|v| v.cast_unsigned()).collect::<Vec<u32>>();
        let tokens = g.leaf("inp_tokens", I32, [n as i64, 1, 1, 1], ints(&batch.tokens));
        let positions = g.leaf("inp_pos", I32, [n as i64, 1, 1, 1], ints(&batch.positions));
        let kept = batch.outputs.len();
        let outputs = g.leaf("out_ids", I32, [kept as i64, 1, 1, 1], ints(&batch.outputs));
        let cells: Vec<i64> = match &batch.streams {
            Some(streams) => streams.iter().zip(&batch.positions).map(|(s, p)| s * CELLS + i64::from(*p)).collect(),
            None => (0..n as i64).collect(),
        };
        let cells = cells.iter().flat_map(|c| [*c as u32, (*c >> 32) as u32]).collect();
        let cells = g.leaf("attn_inp_k_idxs", I64, [n as i64, 1, 1, 1], cells);
        // In a graph for embeddings it is there, too, but never computed.
        let looked_up = if batch.embeddings { "node_0" } else { "embd" };
        let looked_up = g.node(looked_up, c"GET_ROWS", n, [Err(&context.embeddings), Ok(tokens)]);
        let mut x = looked_up;
        if batch.embeddings {
            x = g.leaf("embd", F32, [D as i64, n as i64, 1, 1], vec![0; n * D]);
        }
        let host = !batch.on_device;
        let rows = |n: usize, value: f32| (0..n).flat_map(|i| [i as f32, value]).map(f32::to_bits).collect::<Vec<_>>();
        for block in 0..batch.n_layer {
            g.block = block;
            let last = block + 1 == batch.n_layer;
            let name = |stem: &str| format!("{stem}-{block}");
            if batch.border == Border::Input(block) {
                x = g.copy(x);
            }
            let mut norm = g.node(&name("norm"), c"RMS_NORM", n, [Ok(x)]);
            if batch.border == Border::Norm(block) {
                (norm, x) = (g.copy(norm), g.copy(x));
            }
            let normed = g.weighted(&name("attn_norm"), c"MUL", n, norm, &format!("blk.{block}.attn_norm.weight"));
            let key = g.weighted(&name("Kcur"), c"ROPE", n, normed, "");
            g.operand(key, 1, positions);
            let view = g.node("cache_k_l0 (view)", c"VIEW", n, [Err(&context.cache)]);
            let stored = g.node(" (view)", c"SET_ROWS", n, [Ok(key), Ok(cells)]);
            g.operand(stored, 2, view);
            let mut attention = g.node(&name("attn_out"), c"MUL_MAT", n, [Ok(stored), Ok(normed)]);
            let (mut residual, mut m) = (x, n);
            if last {
                m = kept;
                attention = g.node(&format!("node_{}", g.nodes.len()), c"GET_ROWS", m, [Ok(attention), Ok(outputs)]);
                residual = g.node(&format!("node_{}", g.nodes.len()), c"GET_ROWS", m, [Ok(residual), Ok(outputs)]);
            }
            let middle = g.node(&name("ffn_inp"), c"ADD", m, [Ok(attention), Ok(residual)]);
            let norm = g.node(&name("norm"), c"RMS_NORM", m, [Ok(middle)]);
            let normed = g.weighted(&name("ffn_norm"), c"MUL", m, norm, &format!("blk.{block}.ffn_norm.weight"));
            let mlp_name = if batch.output == batch.sum_is { "ffn_out" } else { batch.output };
            let mlp = g.weighted(&name(mlp_name), c"MUL_MAT", m, normed, "");
            x = g.node(&name(batch.sum_is), c"ADD", m, [Ok(mlp), Ok(middle)]);
            g.tensors[x].bytes = rows(m, 10.0 * (block + 1) as f32);
            g.tensors[x].host = host;
        }
        let norm = g.node("norm", c"RMS_NORM", kept, [Ok(x)]);
        g.weighted("result_norm", c"MUL", kept, norm, "output_norm.weight");
        g
    }

    fn leaf(&mut self, name: &str, dtype: c_int, shape: [i64; 4], bytes: Vec<u32>) -> Id {
        self.tensors.push(Fake::new(name, dtype, shape, bytes));
        self.tensors.len() - 1
    }

    fn node<const N: usize>(
        &mut self,
        name: &str,
        op: &'static std::ffi::CStr,
        n: usize,
        operands: [Result<Id, &Fake>; N],
    ) -> Id {
        let id = self.leaf(name, F32, [D as i64, n as i64, 1, 1], vec![0; n * D]);
        self.tensors[id].op = op;
        for (i, operand) in operands.into_iter().enumerate() {
            self.tensors[id].operands[i] = match operand {
                Ok(id) => &raw const *self.tensors[id],
                Err(outside) => outside,
            };
        }
        self.nodes.push(id);
        id
    }

    /// A tensor's copy on another device, made before the next node.
    fn copy(&mut self, id: Id) -> Id {
        let (name, shape) = (self.tensors[id].name.to_str().unwrap(), self.tensors[id].shape);
        let (name, bytes) = (format!("B#{name}#0"), self.tensors[id].bytes.clone());
        let copy = self.leaf(&name, F32, shape, bytes);
        self.copies.push((id, copy, self.nodes.len()));
        copy
    }

    /// A node that reads `input` and a weight.
    fn weighted(&mut self, name: &str, op: &'static std::ffi::CStr, n: usize, input: Id, weight: &str) -> Id {
        let weight = if weight.is_empty() {
            format!("blk.{}.{}.weight", self.block, self.nodes.len())
        } else {
            weight.to_owned()
        };
        let weight = self.leaf(&weight, F32, [D as i64, 1, 1, 1], vec![0; D]);
        self.node(name, op, n, [Ok(input), Ok(weight)])
    }

    fn operand(&mut self, node: Id, i: usize, operand: Id) {
        self.tensors[node].operands[i] = &raw const *self.tensors[operand];
    }

    /// The values of the only node of this name.
    fn values(&self, name: &str) -> Vec<f32> {
        let mut named = self.nodes.iter().filter(|&&id| self.tensors[id].name.to_str() == Ok(name));
        let found = self.tensors[*named.next().unwrap_or_else(|| panic!("no node {name}"))].values();
        assert!(named.next().is_none(), "several nodes {name}");
        found
    }

    /// Runs the nodes past the hook, as ggml's scheduler does; whether the graph ran to its end.
    fn play(&mut self, hook: &mut Hook) -> bool {
        for (i, &id) in self.nodes.iter().enumerate() {
            for &(original, copy, _) in self.copies.iter().filter(|(_, _, before)| *before == i) {
                self.tensors[copy].bytes = self.tensors[original].bytes.clone();
            }
            let t = (&raw mut *self.tensors[id]).cast::<Tensor>();
            // SAFETY: the fakes live through the call and fit the table.
            if unsafe { hook.eval(t, true) } && !unsafe { hook.eval(t, false) } {
                return false;
            }
        }
        true
    }
}

fn play(hook: &mut Hook, context: &Context, batch: &Batch) -> Graph {
    let mut graph = Graph::of(context, batch);
    graph.play(hook);
    graph
}

fn row(position: i32, sequence: i32) -> Row {
    Row::new(position, sequence)
}

fn positions(captured: &Captured) -> Vec<Option<i32>> {
    captured.meta.iter().map(|m| m.position).collect()
}

fn sequences(captured: &Captured) -> Vec<Option<i32>> {
    captured.meta.iter().map(Row::sequence).collect()
}

/// Adds `by` to every row that `select` admits, after block `layer`.
fn adds(by: f32, layer: usize, select: Selector) -> Rule {
    Rule::vector(vec![by; D], Strength::raw(1.0)).at_layer(layer).select(select)
}

fn compile(rules: impl IntoIterator<Item = Rule>) -> Arc<Compiled> {
    Arc::new(Plan::new(rules).compile(&[], &Target::new(2, D), Route::Callback).unwrap())
}

fn steered(rules: impl IntoIterator<Item = Rule>) -> Hook {
    let mut hook = Hook::new(host());
    hook.set_plan(Some(compile(rules))).unwrap();
    hook
}

/// By how much the rows of a node, which start as 0, 1, 2 … in their first number, were moved.
fn moved(graph: &Graph, name: &str) -> Vec<f32> {
    graph.values(name).chunks(D).enumerate().map(|(i, row)| row[0] - i as f32).collect()
}

fn faults(ledger: &Ledger) -> String {
    ledger.faults.iter().map(|f| format!("{} ×{}\n", f.what, f.count)).collect()
}

#[test]
fn positions_tokens_and_outputs_come_from_the_graph() {
    let mut hook = Hook::new(host());
    hook.capture([0, 1]).unwrap();
    let context = context(1);
    let batch = Batch { outputs: vec![1, 3], ..Batch::new(&[7, 8, 7, 6], &[0, 1, 2, 3]) };
    play(&mut hook, &context, &batch);
    play(&mut hook, &context, &Batch::new(&[5], &[4]));
    let (first, last) = (hook.take_captured(0), hook.take_captured(1));
    assert_eq!(positions(&first), [0, 1, 2, 3, 4].map(Some));
    assert_eq!(first.meta.iter().map(|m| m.token).collect::<Vec<_>>(), [7, 8, 7, 6, 5].map(Some));
    assert_eq!(first.rows, [0.0, 10.0, 1.0, 10.0, 2.0, 10.0, 3.0, 10.0, 0.0, 10.0]);
    assert_eq!(positions(&last), [1, 3, 4].map(Some), "the last block holds output rows only");
    assert!(first.meta.iter().all(|m| m.generated.is_none() && m.sequences.is_none()), "nobody said");
    let ledger = hook.finish().ok().unwrap();
    assert_eq!((ledger.graphs, ledger.rows_captured, ledger.rows_seen), (2, 8, 8));
}

#[test]
fn an_announcement_adds_sequences_over_several_micro_batches() {
    let mut hook = Hook::new(host());
    hook.capture([0, 1]).unwrap();
    let context = context(1);
    hook.announce(&[row(0, 5), row(1, 5).generated(true), row(0, 6), row(1, 6), row(2, 6)]);
    play(&mut hook, &context, &Batch::new(&[1, 2, 1], &[0, 1, 0]));
    play(&mut hook, &context, &Batch { outputs: vec![0, 1], ..Batch::new(&[2, 3], &[1, 2]) });
    let first = hook.take_captured(0);
    assert_eq!(sequences(&first), [5, 5, 6, 6, 6].map(Some));
    assert_eq!(
        first.meta.iter().map(|m| m.generated).collect::<Vec<_>>(),
        [false, true, false, false, false].map(Some)
    );
    assert_eq!(positions(&hook.take_captured(1)), [0, 1, 2].map(Some));
    hook.finish().ok().unwrap();
    // It counts for one decode.
    play(&mut hook, &context, &Batch::new(&[9], &[3]));
    assert_eq!(sequences(&hook.take_captured(0)), [None]);
}

#[test]
fn a_contradicted_announcement_steers_nothing_and_says_so() {
    for (announced, what) in [
        (vec![row(0, 0), row(7, 0)], "announced position 7, the graph has 1"),
        (vec![row(0, 0).token(4), row(1, 0).token(4)], "announced token 4, the graph has 5"),
        (vec![row(0, 0)], "2 rows came, and 1 of 1 announced tokens were left"),
    ] {
        let select = Selector::prompt().include_first(true);
        let mut hook = steered([adds(1.0, 0, select)]);
        hook.announce(&announced);
        let graph = play(&mut hook, &context(1), &Batch::new(&[4, 5], &[0, 1]));
        assert_eq!(moved(&graph, "l_out-0"), [0.0, 0.0]);
        let ledger = hook.finish();
        assert_eq!((ledger.rows_seen, ledger.rows_refused), (2, 2));
        assert!(faults(&ledger).contains(what), "{}", faults(&ledger));
        assert_eq!(ledger.ok().unwrap_err().kind(), Kind::Mismatch);
        assert!(hook.finish().ok().is_ok(), "reported once");
    }
}

/// What a rule needs and nobody announced is not guessed.
#[test]
fn rules_on_what_is_not_known_leave_rows_alone() {
    let rules = || {
        [
            adds(1.0, 0, Selector::generated()),
            adds(2.0, 0, Selector::default().sequences([0])),
            adds(4.0, 0, Selector::default().from(1)),
        ]
    };
    let context = context(1);
    let mut hook = steered(rules());
    let graph = play(&mut hook, &context, &Batch::new(&[4, 5], &[0, 1]));
    assert_eq!(moved(&graph, "l_out-0"), [0.0, 4.0]);
    let ledger = hook.finish();
    let all = faults(&ledger);
    // Of position 0 nothing need be known: no rule may touch it.
    assert!(all.contains("rules[0]: rows were left unsteered: the rule tells prompt from generated rows"), "{all}");
    assert!(all.contains("×1\nrules[1]: rows were left unsteered: the rule depends on sequences"), "{all}");
    assert_eq!((ledger.rows_edited, ledger.rules[2].rows), (1, 1));
    // One sequence, and the app says so.
    let mut hook = steered(rules());
    hook.set_sequences(1);
    let graph = play(&mut hook, &context, &Batch::new(&[4, 5], &[0, 1]));
    assert_eq!(moved(&graph, "l_out-0"), [0.0, 6.0]);
    hook.finish();
    hook.announce(&[row(2, 0).generated(true)]);
    let graph = play(&mut hook, &context, &Batch::new(&[6], &[2]));
    assert_eq!(moved(&graph, "l_out-0"), [7.0]);
    hook.finish().ok().unwrap();
}

/// The graph of a cache with several streams tells sequences, in whatever order llama.cpp has them.
#[test]
fn streams_tell_sequences_apart() {
    let only = |id| Selector::default().sequences([id]);
    let context = context(4);
    let shuffled: Vec<Row> = [3, 1, 0, 2].into_iter().flat_map(|s| (1..3).map(move |p| row(p, s).token(5))).collect();
    for announced in [true, false] {
        let mut hook = steered((0..4).map(|id| adds(1.0 + id as f32, 0, only(id))));
        if announced {
            hook.announce(&shuffled);
        }
        // Three graphs: runs of ids that follow each other.
        let mut all = Vec::new();
        for streams in [vec![3, 3], vec![1, 1, 2, 2], vec![0, 0]] {
            let places = [1, 2].repeat(streams.len() / 2);
            let batch = Batch { streams: Some(streams.clone()), ..Batch::new(&vec![5; streams.len()], &places) };
            all.extend(moved(&play(&mut hook, &context, &batch), "l_out-0"));
        }
        assert_eq!(all, [4.0, 4.0, 2.0, 2.0, 3.0, 3.0, 1.0, 1.0], "announced: {announced}");
        hook.finish().ok().unwrap();
    }
    // A swap is found out: the announcement has tokens that stream 1 does not get.
    let mut hook = steered([adds(1.0, 0, only(1))]);
    hook.announce(&[row(1, 0).token(5), row(1, 1).token(6)]);
    let batch = Batch { streams: Some(vec![0, 1]), ..Batch::new(&[6, 5], &[1, 1]) };
    assert_eq!(moved(&play(&mut hook, &context, &batch), "l_out-0"), [0.0, 0.0]);
    assert!(faults(&hook.finish()).contains("announced token 5, the graph has 6"));
}

/// Two ways to split a batch that end with other sequences: neither is believed.
#[test]
fn an_ambiguous_split_is_not_steered_and_reported() {
    let only = |id| Selector::default().sequences([id]);
    let every = Selector::default().from(1);
    let mut hook = steered([adds(1.0, 0, only(1)), adds(2.0, 0, every), adds(4.0, 0, only(2))]);
    let context = context(1);
    // Sequences 0 and 1 of two equal tokens, one after the other, and a micro-batch of two rows whose positions tell.
    let batch: Vec<Row> = (0..2).flat_map(|s| (1..3).map(move |p| row(p, s).token(5))).collect();
    hook.announce(&batch);
    let graph = play(&mut hook, &context, &Batch::new(&[5, 5], &[1, 2]));
    assert_eq!(moved(&graph, "l_out-0"), [2.0, 2.0], "in order: sequence 0");
    let graph = play(&mut hook, &context, &Batch::new(&[5, 5], &[1, 2]));
    assert_eq!(moved(&graph, "l_out-0"), [3.0, 3.0], "sequence 1");
    hook.finish().ok().unwrap();
    // Three sequences at the same position, of which two rows come: the first two, or ids that follow each other?
    hook.announce(&[row(3, 1).token(5), row(3, 0).token(5), row(3, 2).token(5)].map(|row| row.generated(true)));
    let (tokens, places) = ([5, 5], [3, 3]);
    let mut graph = Graph::of(&context, &Batch::new(&tokens, &places));
    // Without a cache that shows that all share it, the split may be by ids.
    graph.nodes.retain(|&id| graph.tensors[id].op != c"SET_ROWS");
    graph.play(&mut hook);
    assert_eq!(moved(&graph, "l_out-0"), [3.0, 2.0], "both ways agree on the first, and a rule takes every row");
    let ledger = hook.finish();
    assert!(faults(&ledger).contains("in more than one way"), "{}", faults(&ledger));
    assert!(faults(&ledger).contains("rules[2]: rows were left unsteered: the rule depends on sequences"));
}

/// A prompt that sequences share is steered for all of them or not at all.
#[test]
fn a_token_of_two_sequences_is_both_of_theirs() {
    let shared = row(1, 0).shared_by(SequenceSet::of([0, 1]).unwrap());
    let select = |ids: &[i32]| Selector::default().sequences(ids.iter().copied());
    for (ids, by, refused) in [(&[0, 1][..], 1.0, 0), (&[0], 0.0, 1), (&[1], 0.0, 1), (&[2], 0.0, 0)] {
        let mut hook = steered([adds(1.0, 0, select(ids))]);
        hook.announce(&[shared]);
        let graph = play(&mut hook, &context(1), &Batch::new(&[4], &[1]));
        let ledger = hook.finish();
        assert_eq!((moved(&graph, "l_out-0"), ledger.rows_refused), (vec![by], refused), "{ids:?}");
        assert_eq!(faults(&ledger).contains("shared by several sequences"), refused > 0);
    }
}

/// Embeddings, as images come, have no tokens; what the tokens' input holds is an earlier batch's.
#[test]
fn embeddings_after_tokens_are_rows_of_their_own() {
    let mut hook = Hook::new(host());
    hook.capture([HookPoint::new(Site::ResidPre, 0), 0.into()]).unwrap();
    let context = context(1);
    let mut read = |batch: Batch| {
        // Block 0 is read before its graph shows positions.
        hook.announce(&batch.positions.iter().map(|&p| row(p, 0)).collect::<Vec<_>>());
        play(&mut hook, &context, &batch);
    };
    read(Batch::new(&[4, 5, 6], &[0, 1, 2]));
    read(Batch { embeddings: true, ..Batch::new(&[4, 5], &[3, 4]) });
    read(Batch::new(&[7], &[5]));
    let expected = [(0, Some(4)), (1, Some(5)), (2, Some(6)), (3, None), (4, None), (5, Some(7))];
    for point in [HookPoint::from(0), HookPoint::new(Site::ResidPre, 0)] {
        let rows = hook.take_captured(point);
        let found: Vec<_> = rows.meta.iter().map(|m| (m.position.unwrap(), m.token)).collect();
        assert_eq!(found, expected, "{point}");
    }
    assert_eq!(hook.finish().ok().unwrap().graphs, 3);
}

#[test]
fn a_graph_that_is_computed_again_begins_anew() {
    let mut hook = Hook::new(host());
    hook.capture([0]).unwrap();
    let (context, batch) = (context(1), Batch { n_layer: 1, outputs: vec![0, 1], ..Batch::new(&[4, 5], &[0, 1]) });
    let mut graph = Graph::of(&context, &batch);
    graph.play(&mut hook);
    graph.tensors[1].bytes = vec![2, 3];
    graph.play(&mut hook);
    assert_eq!(positions(&hook.take_captured(0)), [0, 1, 2, 3].map(Some));
    assert_eq!(hook.finish().ok().unwrap().graphs, 2);
}

#[test]
fn another_contexts_graphs_pass_untouched_and_are_counted() {
    let every = || Selector::default().from(1);
    let (own, guest) = (context(1), context(1));
    let draft = Context { embeddings: context(1).embeddings, cache: context(1).cache };
    let mut hook = steered([adds(1.0, 0, every())]);
    let batch = Batch::new(&[4, 5], &[1, 2]);
    for (of, by) in [(&own, 1.0), (&guest, 0.0), (&own, 1.0), (&draft, 0.0)] {
        assert_eq!(moved(&play(&mut hook, of, &batch), "l_out-0"), [by, by]);
    }
    let ledger = hook.finish().ok().unwrap();
    assert_eq!((ledger.graphs, ledger.foreign_graphs, ledger.rows_edited), (2, 2, 4));
    hook.rebind();
    assert_eq!(moved(&play(&mut hook, &guest, &batch), "l_out-0"), [1.0, 1.0]);
    drop((own, draft));
}

/// A graph that shifts the cache has none of the batch's inputs, and is none of the plan's.
#[test]
fn graphs_without_a_batch_are_no_graphs_of_the_plan() {
    let mut hook = steered([adds(1.0, 0, Selector::default().from(1))]);
    let context = context(1);
    hook.announce(&[row(1, 0), row(2, 0)]);
    let mut shift = Graph::default();
    let by = shift.leaf("k_shift", I32, [CELLS, 1, 1, 1], vec![0; CELLS as usize]);
    let view = shift.node("cache_k_l0 (view)", c"VIEW", 1, [Err(&context.cache)]);
    shift.node("K_shifted-0", c"ROPE", 1, [Ok(view), Ok(by)]);
    shift.play(&mut hook);
    let graph = play(&mut hook, &context, &Batch::new(&[4, 5], &[1, 2]));
    assert_eq!(moved(&graph, "l_out-0"), [1.0, 1.0]);
    assert_eq!(hook.finish().ok().unwrap().graphs, 1);
}

/// nemotron-h's graphs call what the MLP adds `l_out`.
#[test]
fn a_name_that_misleads_is_found_out_before_an_edit() {
    let every = || Selector::default().from(1);
    let mut hook = steered([adds(1.0, 0, every()), adds(2.0, 1, every())]);
    let context = context(1);
    let batch = Batch { output: "l_out", sum_is: "block_out", outputs: vec![0, 1], ..Batch::new(&[4, 5], &[1, 2]) };
    for _ in 0..2 {
        let graph = play(&mut hook, &context, &batch);
        assert_eq!(moved(&graph, "block_out-0"), [1.0, 1.0]);
        assert_eq!(moved(&graph, "block_out-1"), [2.0, 2.0]);
        assert_eq!(graph.values("l_out-0"), [0.0; 4], "left alone");
    }
    hook.finish().ok().unwrap();
}

#[test]
fn sites_inside_a_block_are_found_by_their_sums() {
    for site in [Site::AttnOut, Site::ResidMid, Site::MlpOut] {
        let rule = adds(1.0, 1, Selector::default().from(1)).at_site(site);
        let mut hook = Hook::new(host());
        let plan = compile([rule]);
        let error = hook.set_plan(Some(plan.clone())).unwrap_err();
        assert!(error.message().contains("unknown architecture has resid_pre, resid_post"), "{error}");
        hook.set_architecture("qwen3");
        hook.set_plan(Some(plan)).unwrap();
        let context = context(1);
        for _ in 0..2 {
            let graph = play(&mut hook, &context, &Batch::new(&[4, 5], &[1, 2]));
            let sum = |name: &str| graph.values(name).iter().sum::<f32>();
            // Attention's part is edited before rows are chosen: all of them; the others hold the output row alone.
            let expected = match site {
                Site::AttnOut => [4.0, 0.0, 0.0],
                Site::ResidMid => [0.0, 2.0, 0.0],
                _ => [0.0, 0.0, 2.0],
            };
            assert_eq!(["attn_out-1", "ffn_inp-1", "ffn_out-1"].map(sum), expected, "{site:?}");
        }
        hook.finish().ok().unwrap();
    }
}

#[test]
fn a_point_that_never_comes_is_a_fault() {
    let mut hook = Hook::new(host());
    hook.set_plan(Some(Arc::new(
        Plan::new([adds(1.0, 5, Selector::default())]).compile(&[], &Target::new(9, D), Route::Callback).unwrap(),
    )))
    .unwrap();
    play(&mut hook, &context(1), &Batch::new(&[4, 5], &[1, 2]));
    let ledger = hook.finish();
    assert_eq!((ledger.graphs, ledger.rows_refused), (1, 2));
    let error = ledger.ok().unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(error.message(), "blocks.5.hook_resid_post: no node of the graph was found to be it");
    // Nor does a batch that no graph comes for go by in silence.
    hook.announce(&[row(3, 0)]);
    assert!(faults(&hook.finish()).contains("no graph came"));
}

/// Every node of these lies where it can be edited in place, so a single bit would tell.
#[test]
fn a_hook_with_nothing_to_do_writes_no_bit() {
    let mut captures = Hook::new(host());
    captures.capture([0, 1]).unwrap();
    for mut hook in [Hook::new(host()), steered([]), captures] {
        let context = context(1);
        let mut graph = Graph::of(&context, &Batch::new(&[4, 5], &[0, 1]));
        // What arithmetic would change: a quiet NaN with a payload, a negative zero, the least subnormal.
        let odd = [0x7fc0_1234, (-0.0f32).to_bits(), 1, 3.0f32.to_bits()];
        graph.tensors.iter_mut().filter(|t| t.dtype == F32).for_each(|t| {
            let n = t.bytes.len();
            t.bytes = odd.into_iter().cycle().take(n).collect();
        });
        let before: Vec<Vec<u32>> = graph.tensors.iter().map(|t| t.bytes.clone()).collect();
        assert!(graph.play(&mut hook));
        assert!(graph.tensors.iter().map(|t| &t.bytes).eq(&before));
        assert_eq!(hook.finish().ok().unwrap().rows_edited, 0);
    }
}

#[test]
fn harvesting_ends_the_graph_after_the_last_wanted_layer() {
    let mut hook = Hook::new(host());
    hook.capture([0]).unwrap();
    hook.stop_after(Some(0));
    let context = context(1);
    let batch = Batch { n_layer: 3, ..Batch::new(&[4, 5, 6], &[0, 1, 2]) };
    assert!(!Graph::of(&context, &batch).play(&mut hook), "after the reader, as it was not known");
    assert!(!Graph::of(&context, &Batch { n_layer: 3, ..Batch::new(&[4, 5], &[0, 1]) }).play(&mut hook));
    assert_eq!(positions(&hook.take_captured(0)), [0, 1, 2, 0, 1].map(Some));
    hook.finish().ok().unwrap();
}

/// Of rows in a device's memory only those travel that the plan touches.
#[test]
fn rows_in_device_memory_are_edited_through_get_and_set() {
    let mut hook = steered([adds(10.0, 0, Selector::default().from(2).to(4))]);
    let batch = Batch { on_device: true, ..Batch::new(&[4, 5, 6, 7, 8], &[0, 1, 2, 3, 4]) };
    assert_eq!(moved(&play(&mut hook, &context(1), &batch), "l_out-0"), [0.0, 0.0, 10.0, 10.0, 0.0]);
    hook.patch(
        1,
        Some(Box::new(|rows, _| {
            rows.iter_mut().for_each(|x| *x *= 10.0);
            Ok(())
        })),
    )
    .unwrap();
    let graph = play(&mut hook, &context(1), &batch);
    assert_eq!(graph.values("l_out-1"), [0.0, 20.0], "of another context");
    hook.rebind();
    assert_eq!(play(&mut hook, &context(1), &batch).values("l_out-1"), [0.0, 200.0]);
}

/// A plan on rows that are not coming costs no stop.
#[test]
fn nothing_is_stopped_for_rows_that_no_rule_reaches() {
    let mut hook = steered([adds(1.0, 0, Selector::generated())]);
    let context = context(1);
    let stops = |hook: &mut Hook, generated: bool| {
        hook.announce(&[row(1, 0).generated(generated), row(2, 0).generated(generated)]);
        let mut graph = Graph::of(&context, &Batch::new(&[4, 5], &[1, 2]));
        let mut stops = 0;
        for id in graph.nodes.clone() {
            let t = (&raw mut *graph.tensors[id]).cast::<Tensor>();
            // SAFETY: the fakes live through the call and fit the table.
            if unsafe { hook.eval(t, true) } {
                stops += 1;
                // SAFETY: as above.
                unsafe { hook.eval(t, false) };
            }
        }
        (stops, hook.finish().ok().unwrap())
    };
    let (n, ledger) = stops(&mut hook, false);
    assert_eq!((n, ledger.rows_seen, ledger.rows_not_needed), (0, 2, 2));
    let (n, ledger) = stops(&mut hook, true);
    assert!(n > 1, "the first time the point is looked for");
    assert_eq!(ledger.rows_edited, 2);
    assert_eq!(stops(&mut hook, true).0, 1);
}

#[test]
fn a_plan_set_from_another_thread_is_seen_at_the_next_decode() {
    let every = || Selector::default().from(1);
    let (one, two) = (compile([adds(1.0, 0, every())]), compile([adds(2.0, 0, every())]));
    let mut hook = Hook::new(host());
    let (steering, context) = (hook.steering(), context(1));
    let set = |plan: &Arc<Compiled>| {
        let (steering, plan) = (steering.clone(), plan.clone());
        std::thread::spawn(move || steering.set_plan(Some(plan))).join().unwrap().unwrap();
    };
    set(&one);
    // Two micro-batches of one decode, and a plan that is set between them.
    hook.announce(&[row(1, 0), row(2, 0)]);
    assert_eq!(moved(&play(&mut hook, &context, &Batch::new(&[4], &[1])), "l_out-0"), [1.0]);
    set(&two);
    assert_eq!(moved(&play(&mut hook, &context, &Batch::new(&[4], &[2])), "l_out-0"), [1.0]);
    hook.announce(&[row(3, 0)]);
    assert_eq!(moved(&play(&mut hook, &context, &Batch::new(&[4], &[3])), "l_out-0"), [2.0]);
    hook.finish().ok().unwrap();
    steering.set_plan(None).unwrap();
    assert_eq!(moved(&play(&mut hook, &context, &Batch::new(&[4], &[4])), "l_out-0"), [0.0]);
    // In the midst of a graph that nobody followed nothing is done.
    let mut graph = Graph::of(&context, &Batch::new(&[4], &[5]));
    let half = graph.nodes.split_off(4);
    graph.play(&mut hook);
    set(&one);
    graph.nodes = half;
    graph.play(&mut hook);
    assert_eq!(moved(&graph, "l_out-0"), [0.0]);
    assert_eq!(moved(&play(&mut hook, &context, &Batch::new(&[4], &[6])), "l_out-0"), [1.0]);
    // All or nothing.
    let inner = adds(9.0, 0, every()).at_site(Site::MlpOut);
    assert_eq!(steering.set_plan(Some(compile([inner]))).unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(moved(&play(&mut hook, &context, &Batch::new(&[4], &[7])), "l_out-0"), [1.0]);
}

#[test]
fn rows_of_a_wrong_type_or_width_are_left_alone() {
    let mut hook = Hook::new(host());
    hook.capture([1]).unwrap();
    let context = context(1);
    let mut graph = Graph::of(&context, &Batch::new(&[4, 5], &[1, 2]));
    let node = graph.nodes.iter().copied().find(|&id| graph.tensors[id].name.to_str() == Ok("l_out-1")).unwrap();
    graph.tensors[node].dtype = 1;
    assert!(graph.play(&mut hook));
    let error = hook.finish().ok().unwrap_err();
    assert!(error.message().contains("blocks.1.hook_resid_post"), "{error}");
    let plan = Plan::new([Rule::vector(vec![1.0; 3], Strength::raw(1.0)).at_layer(0)]);
    let mut hook = Hook::new(host());
    hook.set_plan(Some(Arc::new(plan.compile(&[], &Target::new(2, 3), Route::Callback).unwrap()))).unwrap();
    play(&mut hook, &context, &Batch::new(&[4, 5], &[1, 2]));
    let error = hook.finish().ok().unwrap_err();
    assert_eq!(error.message(), "blocks.0.hook_resid_post: the plan is 3 wide, the residual stream 2");
}

/// A model of which some layers are on another device: what is read there are copies.
#[test]
fn rows_are_steered_where_devices_meet() {
    for border in [Border::Input(0), Border::Input(1), Border::Norm(1)] {
        let mut hook = steered([adds(1.0, 0, Selector::default().from(1)), adds(2.0, 1, Selector::default().from(1))]);
        hook.capture([1]).unwrap();
        let context = context(1);
        let batch = Batch { outputs: vec![0, 1], border, ..Batch::new(&[4, 5], &[1, 2]) };
        let graph = play(&mut hook, &context, &batch);
        let first = hook.finish();
        if border == Border::Input(0) {
            assert_eq!(faults(&first), "");
        } else {
            // What was copied before it was known is left.
            assert_eq!(moved(&graph, "l_out-0"), [0.0, 0.0]);
            assert!(
                faults(&first).contains("blocks.0.hook_resid_post: its rows were left: the node was copied"),
                "{first:?}"
            );
            assert_eq!((first.rows_seen, first.rows_edited, first.rows_refused), (4, 2, 2));
        }
        let graph = play(&mut hook, &context, &batch);
        assert_eq!(moved(&graph, "l_out-0"), [1.0, 1.0]);
        assert_eq!(moved(&graph, "l_out-1"), [2.0, 2.0]);
        for &(original, copy, _) in &graph.copies {
            assert_eq!(graph.tensors[copy].bytes, graph.tensors[original].bytes, "copied after the edit");
        }
        let second = hook.finish().ok().unwrap();
        assert_eq!((second.rows_seen, second.rows_edited, second.rows_refused), (4, 4, 0));
        let tokens: Vec<Option<i32>> = hook.take_captured(1).meta.iter().map(|row| row.token).collect();
        assert_eq!(tokens, [Some(4), Some(5), Some(4), Some(5)], "tokens, though the first block reads a copy");
    }
}

/// A graph that is computed again is not looked at anew where nothing happens, and where something does it is.
#[test]
fn a_known_way_is_passed_without_a_look() {
    let mut hook = steered([adds(1.0, 0, Selector::default().from(1))]);
    let context = context(1);
    let mut graph = Graph::of(&context, &Batch { n_layer: 9, outputs: vec![0, 1], ..Batch::new(&[4, 5], &[1, 2]) });
    let looks = |hook: &mut Hook, graph: &mut Graph| {
        let before = LOOKS.get();
        graph.play(hook);
        LOOKS.get() - before
    };
    let first: usize = (0..3).map(|_| looks(&mut hook, &mut graph)).sum();
    let known = looks(&mut hook, &mut graph);
    assert!(known * 3 < first / 3, "{known} looks, {first} in the three times before");
    assert_eq!(moved(&graph, "l_out-0"), [4.0, 4.0]);
    hook.finish().ok().unwrap();
    // At the same addresses the next block reads another node.
    let position = |name: &str| graph.nodes.iter().position(|&id| graph.tensors[id].name.to_str() == Ok(name)).unwrap();
    let (output, other) = (position("l_out-0"), graph.nodes[position("ffn_inp-0")]);
    let (output, norm) = (graph.nodes[output], graph.nodes[output + 1]);
    graph.operand(norm, 0, other);
    looks(&mut hook, &mut graph);
    assert!(faults(&hook.finish()).contains("was edited, but what is read next is \"ffn_inp-0\""));
    // A node more before the block: from there on all is looked at.
    let extra = graph.node("extra", c"ADD", 2, [Ok(other)]);
    graph.operand(norm, 0, output);
    graph.nodes.retain(|id| *id != extra);
    graph.nodes.insert(3, extra);
    let _ = (looks(&mut hook, &mut graph), looks(&mut hook, &mut graph));
    hook.finish().ok().unwrap();
}

/// Reads the first number of a row after block 0, which is its place in the batch.
fn place() -> Arc<Dictionary> {
    let mut settings = Settings::new(Activation::Relu);
    settings.apply_b_dec_to_input = false;
    let parts = Parts {
        d_model: D,
        encoder: vec![1.0, 0.0],
        decoder: vec![1.0, 0.0],
        encoder_bias: vec![0.0],
        decoder_bias: vec![0.0; D],
        threshold: None,
        gate: None,
        stats: None,
        settings,
        info: Info { layer: Some(0), ..Info::default() },
    };
    Arc::new(Dictionary::from_parts(parts).unwrap())
}

/// What a monitor reads after one block, a rule of a later one goes by, wherever rows lie; and the host learns of each row.
#[test]
fn later_layers_go_by_what_a_monitor_read_and_the_host_is_told() {
    let monitor = Monitor::new("late", [0], 3.0).select(Selector::generated());
    let verdict = Verdict::new("stop it", When::fires("late"), Action::Stop);
    let plan =
        Plan::new([adds(10.0, 1, Selector::default()).when(When::fires("late"))]).watch([monitor]).tell([verdict]);
    let plan = Arc::new(plan.compile(&[("d", place())], &Target::new(3, D), Route::Callback).unwrap());
    for on_device in [false, true] {
        let mut hook = Hook::new(host());
        hook.set_plan(Some(plan.clone())).unwrap();
        let batch = Batch { on_device, n_layer: 3, ..Batch::new(&[4, 5, 6, 7, 8], &[1, 2, 1, 2, 3]) };
        let rows: Vec<Row> = [(1, 0), (2, 0), (1, 1), (2, 1), (3, 1)].map(|(p, s)| row(p, s).generated(true)).to_vec();
        for generated in [true, false, true] {
            hook.announce(&rows.iter().map(|row| row.generated(generated)).collect::<Vec<_>>());
            let graph = play(&mut hook, &context(1), &batch);
            let by = if generated { 10.0 } else { 0.0 };
            assert_eq!(moved(&graph, "l_out-1"), [0.0, 0.0, 0.0, by, by], "on a device: {on_device}");
            let watched = hook.take_watched();
            let read: Vec<_> = watched.readings.iter().map(|r| (r.sequence, r.position, r.value, r.fired)).collect();
            let want =
                [(0, 1, 0.0, false), (0, 2, 1.0, false), (1, 1, 2.0, false), (1, 2, 3.0, true), (1, 3, 4.0, true)];
            assert_eq!(read, if generated { want.to_vec() } else { Vec::new() });
            let passed: Vec<_> = watched.verdicts.iter().map(|v| (&*v.name, v.sequence, v.position)).collect();
            assert_eq!(passed.len(), if generated { 2 } else { 0 });
            assert!(passed.iter().all(|v| v.0 == "stop it" && v.1 == 1));
            hook.finish().ok().unwrap();
            hook.rebind();
        }
        // Nobody says who wrote what: nothing is read, nothing is edited, and that is told.
        assert_eq!(moved(&play(&mut hook, &context(1), &batch), "l_out-1"), [0.0; 5]);
        let told = faults(&hook.finish());
        assert!(told.contains("monitors: rows were not read"), "{told}");
    }
}
