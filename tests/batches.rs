//! Batches of many sequences, as llama.cpp really splits and reorders them: each sequence has a rule of its own, and ends as
//! it does alone.
//!
//! Logits of a sequence in a batch differ from those of its run alone by rounding: llama.cpp sums in another order. How much,
//! the same runs without steering tell: on the mean steered ones may lie apart as far, and any one of them as far as llama.cpp's
//! rounding reaches (`agree`), or reached in the same runs cut otherwise. The rules push in directions that differ by far more, so that two sequences that are taken for
//! each other show.
#![cfg(feature = "engine")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use ggml_sys as sys;
use tiller::hook::{Hook, Ledger, Tensor};
use tiller::plan::{Plan, Route, Row, Rule, Selector, SequenceSet, Strength, Target};

use support::agree;
use support::raw::{Context, Entry, Model, Options, Value, host};

/// Sequences side by side.
const N: usize = 8;
/// Tokens that are decoded one by one after the prompts.
const STEPS: usize = 1;
/// How much further apart than unsteered runs steered ones may be on the mean: which value is rounded another way is chance.
const SLACK: f32 = 4.0;
/// What one value that is rounded another way does to the mean over a batch's logits; 1/24 of what it does to one row of them.
const ROUNDED: f32 = 4e-3;

/// A model, and how hard it is pushed: a share of the length of its rows.
struct Subject {
    name: &'static str,
    model: Model,
    n_vocab: i32,
}

/// A hybrid of random weights, whose memory always splits batches equally.
fn hybrid() -> Subject {
    Subject {
        name: "falcon-h1, tiny",
        model: Model::new(
            "falcon-h1",
            &[
                ("context_length", Value::Count(512)),
                ("embedding_length", Value::Count(64)),
                ("block_count", Value::Count(3)),
                ("feed_forward_length", Value::Count(96)),
                ("vocab_size", Value::Count(128)),
                ("attention.head_count", Value::Count(4)),
                ("attention.head_count_kv", Value::Count(2)),
                ("attention.layer_norm_rms_epsilon", Value::Real(1e-5)),
                ("rope.dimension_count", Value::Count(16)),
                ("ssm.conv_kernel", Value::Count(4)),
                ("ssm.inner_size", Value::Count(128)),
                ("ssm.state_size", Value::Count(16)),
                ("ssm.time_step_rank", Value::Count(4)),
                ("ssm.group_count", Value::Count(1)),
            ],
        )
        .expect("a tiny hybrid"),
        n_vocab: 128,
    }
}

fn real(name: &'static str) -> Option<Subject> {
    let path = support::model(name)?;
    Some(Subject { name, model: Model::open(&path).expect(name), n_vocab: 4096 })
}

/// One that is made, and one that was trained.
fn two() -> impl Iterator<Item = Subject> {
    [Some(hybrid()), real(support::SMOLLM)].into_iter().flatten()
}

impl Subject {
    fn layer(&self) -> usize {
        self.model.n_layer() / 2
    }

    /// A direction of its own for each sequence, as long as rows there are.
    fn direction(&self, sequence: usize, size: f32) -> Vec<f32> {
        let wave = |i: usize| ((i * (2 * sequence + 3)) % 17) as f32 / 8.0 - 1.0;
        (0..self.model.n_embd()).map(|i| size * wave(i)).collect()
    }

    fn rule(&self, direction: usize, size: f32, select: Selector) -> Rule {
        Rule::vector(self.direction(direction, size), Strength::raw(1.0)).at_layer(self.layer()).select(select)
    }

    fn hook(&self, rules: Vec<Rule>) -> Hook {
        let target = Target::new(self.model.n_layer(), self.model.n_embd());
        let plan = Plan::new(rules).compile(&[], &target, Route::Callback).expect("a plan");
        let mut hook = Hook::new(host());
        hook.set_plan(Some(Arc::new(plan))).expect("a plan for it");
        hook
    }

    fn context(&self, n_ubatch: u32, kv_unified: bool, n_seq_max: u32) -> Context<'_> {
        let options = Options { n_ctx: 1024, n_batch: 256, n_ubatch, n_seq_max, kv_unified, ..Options::default() };
        Context::new(&self.model, options).expect("a context")
    }

    /// The mean length of rows after the block that is steered.
    fn size(&self) -> f32 {
        let mut hook = Hook::new(host());
        hook.capture([self.layer()]).unwrap();
        decode(&mut self.context(64, true, 1), &mut hook, &prompt(0, 6, self.n_vocab), &[]);
        let rows = hook.take_captured(self.layer()).rows;
        let lengths = rows.chunks(self.model.n_embd()).skip(1).map(|row| row.iter().map(|x| x * x).sum::<f32>().sqrt());
        let n = lengths.len() as f32;
        lengths.sum::<f32>() / n / (self.model.n_embd() as f32 / 3.0).sqrt()
    }
}

/// The tokens of a prompt as entries of sequence 0.
fn prompt(which: usize, n: usize, n_vocab: i32) -> Vec<Entry> {
    let token = |i: usize| 3 + ((which * 389 + i * 31) as i32) % (n_vocab - 8);
    (0..n).map(|i| Entry::token(token(i), i as i32, 0, i + 1 == n)).collect()
}

/// What rows are announced as: `given` says which were given.
fn announced(batch: &[Entry], given: bool) -> Vec<Row> {
    let row = |entry: &Entry| {
        let sequences = SequenceSet::of(entry.sequences.iter().copied()).unwrap();
        let row = Row::new(entry.position, entry.sequences[0]).shared_by(sequences).generated(!given);
        match entry.input {
            support::raw::Input::Token(token) => row.token(token),
            support::raw::Input::Row(_) => row,
        }
    };
    batch.iter().map(row).collect()
}

fn run(context: &mut Context, hook: &mut Hook, batch: &[Entry]) {
    // SAFETY: llama.cpp passes nodes of the graph that it computes, and the table is that of the same ggml.
    let code = context.decode(batch, &mut |node, ask| unsafe { hook.eval(node.cast::<Tensor>(), ask) });
    assert_eq!(code, 0);
}

/// Decodes a batch that is announced, and gives the logits of those that wanted some.
fn decode(context: &mut Context, hook: &mut Hook, batch: &[Entry], swapped: &[(i32, i32)]) -> Vec<Vec<f32>> {
    let mut rows = announced(batch, true);
    for row in &mut rows {
        let own = row.sequence().unwrap();
        if let Some((_, other)) = swapped.iter().find(|(one, _)| *one == own) {
            *row = row.shared_by(SequenceSet::of([*other]).unwrap());
        }
    }
    hook.announce(&rows);
    run(context, hook, batch);
    let wanted = batch.iter().enumerate().filter(|(_, entry)| entry.logits);
    wanted.map(|(i, _)| context.logits(i).to_vec()).collect()
}

/// ‖a − b‖ / ‖b‖ about b's mean: logits have no zero of their own.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let mean = b.iter().sum::<f32>() / b.len() as f32;
    let apart: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    (apart / b.iter().map(|b| (b - mean) * (b - mean)).sum::<f32>()).sqrt()
}

/// A batch of prompts, in an order of sequences, each of a number of tokens.
struct Case {
    name: &'static str,
    order: [usize; N],
    /// Which prompt each sequence reads.
    prompts: [usize; N],
    lengths: [usize; N],
}

const IN_ORDER: [usize; N] = [0, 1, 2, 3, 4, 5, 6, 7];
const SHUFFLED: [usize; N] = [3, 1, 0, 2, 7, 4, 6, 5];

const CASES: [Case; 4] = [
    Case { name: "equal prompts", order: IN_ORDER, prompts: [0; N], lengths: [4; N] },
    Case { name: "equal prompts, shuffled", order: SHUFFLED, prompts: [0; N], lengths: [4; N] },
    Case { name: "different prompts, shuffled", order: SHUFFLED, prompts: IN_ORDER, lengths: [4; N] },
    Case { name: "different lengths, shuffled", order: SHUFFLED, prompts: IN_ORDER, lengths: [3, 5, 4, 5, 2, 5, 3, 4] },
];

/// The batches of a case: the prompts, then a token more for each sequence, as often as [`STEPS`] says.
fn batches(case: &Case, n_vocab: i32, only: Option<usize>) -> Vec<Vec<Entry>> {
    let sequences = || case.order.into_iter().filter(move |s| only.is_none_or(|only| only == *s));
    let own = |s: usize| if only.is_some() { 0 } else { s as i32 };
    let read = sequences().flat_map(|s| {
        let entries = prompt(case.prompts[s], case.lengths[s], n_vocab);
        entries.into_iter().map(move |entry| Entry { sequences: vec![own(s)], ..entry })
    });
    let mut all = vec![read.collect::<Vec<_>>()];
    for step in 0..STEPS {
        let token = |s: usize| 5 + (case.prompts[s] * 7 + step) as i32;
        all.push(sequences().map(|s| Entry::token(token(s), (case.lengths[s] + step) as i32, own(s), true)).collect());
    }
    all
}

/// The logits of each sequence after its prompt and each step, and what the hook did.
fn logits(
    subject: &Subject,
    case: &Case,
    context: &mut Context,
    hook: &mut Hook,
    swapped: &[(i32, i32)],
) -> (Vec<Vec<Vec<f32>>>, Ledger) {
    let mut all = vec![Vec::new(); N];
    for batch in batches(case, subject.n_vocab, None) {
        for (s, logits) in case.order.into_iter().zip(decode(context, hook, &batch, swapped)) {
            all[s].push(logits);
        }
    }
    (all, hook.finish())
}

fn alone(subject: &Subject, case: &Case, s: usize, n_ubatch: u32, hook: &mut Hook) -> Vec<Vec<f32>> {
    let mut context = subject.context(n_ubatch, true, 1);
    let batches = batches(case, subject.n_vocab, Some(s));
    let all = batches.iter().flat_map(|batch| decode(&mut context, hook, batch, &[])).collect();
    hook.finish().ok().expect("a run alone");
    all
}

fn farthest(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    found.iter().zip(expected).map(|(a, b)| distance(a, b)).fold(0.0, f32::max)
}

/// How far apart logits of all sequences lie: on the mean, and at most.
fn apart(found: &[Vec<Vec<f32>>], expected: &[Vec<Vec<f32>>]) -> (f32, f32) {
    let each = found.iter().zip(expected).flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| distance(a, b));
    let (sum, most, n) = each.fold((0.0, 0f32, 0), |(sum, most, n), d| (sum + d, most.max(d), n + 1));
    (sum / n as f32, most)
}

fn only(sequence: usize) -> Selector {
    // The first token's row is an attention sink, which no rule touches unless it says so.
    Selector::default().sequences([sequence as i32])
}

/// Runs alone, by prompt, length, the sequence whose rule steers, and size of the micro-batch: cases share them.
type Alone = BTreeMap<(usize, usize, Option<usize>, u32), Vec<Vec<f32>>>;

/// Each sequence of a batch ends as it does alone.
fn ends_as_alone(subject: Option<Subject>) {
    let _turn = support::turn();
    if let Some(subject) = subject {
        let size = 0.5 * subject.size();
        let rules = || (0..N).map(|s| subject.rule(s, size, only(s))).collect::<Vec<_>>();
        let (mut known, mut telling) = (Alone::new(), Vec::new());
        for case in &CASES {
            let mut solo = |n_ubatch: u32, steered: bool| -> Vec<Vec<Vec<f32>>> {
                let mut one = |s: usize| {
                    let mut run = || {
                        let rule = || subject.rule(s, size, Selector::default().from(1));
                        let mut hook = if steered { subject.hook(vec![rule()]) } else { Hook::new(host()) };
                        alone(&subject, case, s, n_ubatch, &mut hook)
                    };
                    let key = (case.prompts[s], case.lengths[s], steered.then_some(s), n_ubatch);
                    known.entry(key).or_insert_with(&mut run).clone()
                };
                (0..N).map(&mut one).collect()
            };
            // What rounding does to steered rows: the same run, cut otherwise.
            let (plain, solo, cut) = (solo(512, false), solo(512, true), solo(2, true));
            let rounded = apart(&cut, &solo);
            for kv_unified in [true, false] {
                for n_ubatch in [4, 8, 512] {
                    let context = || subject.context(n_ubatch, kv_unified, N as u32);
                    let what = format!("{}, {}, unified {kv_unified}, {n_ubatch}", subject.name, case.name);
                    let (bare, _) = logits(&subject, case, &mut context(), &mut Hook::new(host()), &[]);
                    let (steered, ledger) = logits(&subject, case, &mut context(), &mut subject.hook(rules()), &[]);
                    let faults: Vec<_> = ledger.faults.iter().map(|fault| &fault.what).collect();
                    assert!(faults.is_empty(), "{what}: {faults:?}");
                    let rows = (case.lengths.iter().sum::<usize>() + N * STEPS - N) as u64;
                    assert_eq!((ledger.rows_edited, ledger.rows_refused), (rows, 0), "{what}");
                    let noise = apart(&bare, &plain);
                    let noise = (noise.0.max(rounded.0), noise.1.max(rounded.1));
                    let found = apart(&steered, &solo);
                    let bound = SLACK * noise.0.max(ROUNDED);
                    assert!(found.0 <= bound, "{what}: {:.1e} apart, unsteered {:.1e}", found.0, noise.0);
                    let most = (1.5 * noise.1).max(agree::ROW as f32);
                    assert!(found.1 <= most, "{what}: one {:.1e} apart, unsteered {:.1e}", found.1, noise.1);
                    // Two sequences that were taken for each other would show, unless an unsteered row happened to be
                    // rounded so far off that it hides them.
                    let effect = (1..N).map(|s| farthest(&solo[s], &solo[s - 1])).fold(f32::INFINITY, f32::min);
                    telling.push(effect > 1.2 * most);
                    println!(
                        "{what}: {:.1e} apart, at most {:.1e}, unsteered {:.1e}, {:.1e}; rules differ by {effect:.1}",
                        found.0, found.1, noise.0, noise.1
                    );
                }
            }
        }
        let hidden = telling.iter().filter(|told| !**told).count();
        assert!(4 * hidden <= telling.len(), "{}: rounding hides {hidden} of {} cases", subject.name, telling.len());
    }
}

#[test]
fn a_hybrids_sequences_end_as_alone() {
    ends_as_alone(Some(hybrid()));
}

#[test]
fn smollms_sequences_end_as_alone() {
    ends_as_alone(real(support::SMOLLM));
}

#[test]
fn gemmas_sequences_end_as_alone() {
    ends_as_alone(real(support::GEMMA));
}

#[test]
fn qwens_sequences_end_as_alone() {
    ends_as_alone(real(support::QWEN));
}

/// What the tests above would see if two sequences were taken for each other: announced so, to a cache that cannot tell.
#[test]
fn a_planted_swap_shows() {
    let _turn = support::turn();
    for subject in two() {
        let size = 0.5 * subject.size();
        let rules = || (0..N).map(|s| subject.rule(s, size, only(s))).collect::<Vec<_>>();
        let case = &CASES[0];
        let swap = [(0, 2), (2, 0)];
        let mut hook = subject.hook(rules());
        let (right, _) = logits(&subject, case, &mut subject.context(512, true, 8), &mut subject.hook(rules()), &[]);
        let (wrong, ledger) = logits(&subject, case, &mut subject.context(512, true, 8), &mut hook, &swap);
        assert!(ledger.ok().is_ok(), "equal prompts in one cache: nothing contradicts it");
        let apart = |s: usize| farthest(&wrong[s], &right[s]);
        assert!(apart(0) > 0.05 && apart(2) > 0.05 && apart(1) < 0.01, "{} {} {}", apart(0), apart(2), apart(1));
        // A cache of several streams tells, whatever was announced.
        let mut hook = subject.hook(rules());
        let (told, ledger) = logits(&subject, case, &mut subject.context(512, false, 8), &mut hook, &swap);
        assert!(ledger.ok().is_ok());
        let apart = (0..N).map(|s| farthest(&told[s], &right[s])).fold(0.0, f32::max);
        assert!(apart < 0.01, "{apart}");
    }
}

/// Rows after [`Subject::layer`] that a plan on generated rows reaches.
fn generated() -> Selector {
    Selector::generated()
}

/// Copied sequences, shifted positions, a state that is saved and loaded, drafts, another context on the same hook.
#[test]
fn what_apps_do_between_decodes_is_followed() {
    let _turn = support::turn();
    if let Some(subject) = real(support::SMOLLM) {
        let size = 0.5 * subject.size();
        let select = |ids: &[i32]| Selector::default().sequences(ids.iter().copied());
        let mut context = subject.context(512, true, 4);
        let mut hook = subject.hook(vec![
            subject.rule(0, size, select(&[0])),
            subject.rule(1, size, select(&[0, 1])),
            subject.rule(2, size, generated()),
        ]);
        // A prompt that two sequences share: the rule on one of them has to leave it alone.
        let mut shared = prompt(0, 5, subject.n_vocab);
        shared.iter_mut().for_each(|entry| entry.sequences = vec![0, 1]);
        decode(&mut context, &mut hook, &shared, &[]);
        let ledger = hook.finish();
        assert_eq!(ledger.rules.iter().map(|rule| rule.rows).collect::<Vec<_>>(), [0, 4], "{ledger:?}");
        assert!(ledger.ok().unwrap_err().message().contains("shared by several sequences"));

        // Drafts of speculation: rows of one decode, some given, some written.
        let drafts: Vec<Entry> = (0..3).map(|i| Entry::token(9 + i, 5 + i, 0, true)).collect();
        let mut rows = announced(&drafts, true);
        rows[1..].iter_mut().for_each(|row| *row = row.generated(true));
        hook.announce(&rows);
        run(&mut context, &mut hook, &drafts);
        let ledger = hook.finish().ok().unwrap();
        assert_eq!(ledger.rules.iter().map(|rule| rule.rows).collect::<Vec<_>>(), [3, 3, 2]);

        // Positions are shifted: the next decode computes a graph that shifts the cache first.
        let pointer = context.pointer();
        // SAFETY: the context is alive, and so is its memory.
        let memory = unsafe { sys::llama_get_memory(pointer) };
        // SAFETY: as above.
        unsafe {
            sys::llama_memory_seq_rm(memory, 0, 1, 3);
            sys::llama_memory_seq_rm(memory, 1, -1, -1);
            sys::llama_memory_seq_add(memory, 0, 3, -1, -2);
        }
        decode(&mut context, &mut hook, &[Entry::token(7, 6, 0, true)], &[]);
        let ledger = hook.finish().ok().unwrap();
        assert_eq!((ledger.graphs, ledger.rules[0].rows), (1, 1));

        // A state that is saved and loaded into another sequence.
        // SAFETY: as above.
        let n = unsafe { sys::llama_state_seq_get_size(pointer, 0) };
        let mut state = vec![0u8; n];
        // SAFETY: the buffer has the size that llama.cpp asked for.
        let read = unsafe { sys::llama_state_seq_get_data(pointer, state.as_mut_ptr(), n, 0) };
        // SAFETY: what was just written.
        assert!(read > 0 && unsafe { sys::llama_state_seq_set_data(pointer, state.as_ptr(), read, 2) } > 0);
        decode(&mut context, &mut hook, &[Entry::token(7, 7, 2, true), Entry::token(7, 7, 0, true)], &[]);
        let ledger = hook.finish().ok().unwrap();
        assert_eq!((ledger.rows_edited, ledger.rules[0].rows), (1, 1));

        // Another context's graphs pass untouched.
        let batch = prompt(1, 5, subject.n_vocab);
        let mut plain = subject.context(512, true, 1);
        let expected = decode(&mut plain, &mut Hook::new(host()), &batch, &[]);
        let mut guest = subject.context(512, true, 1);
        let found = decode(&mut guest, &mut hook, &batch, &[]);
        assert!(farthest(&found, &expected) < 1e-5);
        let ledger = hook.finish();
        assert_eq!((ledger.graphs, ledger.foreign_graphs, ledger.rows_edited), (0, 1, 0));
    }
}

/// Unannounced, a cache of several streams tells sequences, one that all share does not.
#[test]
fn what_nobody_announced_is_told_by_the_graph_or_not_at_all() {
    let _turn = support::turn();
    for subject in two() {
        let size = 0.5 * subject.size();
        for kv_unified in [false, true] {
            let mut context = subject.context(512, kv_unified, 4);
            let mut hook = subject.hook(vec![subject.rule(0, size, only(1))]);
            let batch: Vec<Entry> = [1, 0]
                .into_iter()
                .flat_map(|s| {
                    let own = prompt(0, 4, subject.n_vocab);
                    own.into_iter().map(move |entry| Entry { sequences: vec![s], ..entry })
                })
                .collect();
            run(&mut context, &mut hook, &batch);
            let ledger = hook.finish();
            let known = (ledger.rows_edited, ledger.faults.is_empty());
            assert_eq!(known, if kv_unified { (0, false) } else { (3, true) }, "{} {kv_unified}", subject.name);
        }
    }
}
