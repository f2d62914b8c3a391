//! One model, its batches, and the comparison of what was done to a site with what the model reads.

use std::collections::BTreeMap;

use ggml_sys as sys;
use tiller::hook_point::{HookPoint, Site};

use super::architecture::{Architecture, Block};
use super::hooked::{Hooked, Rows, factor};
use super::observer::{Graph, Reading, Stream, Watch};
use super::support::raw::{self, Context, Entry, Input, Model, Observer, Options};

/// Numbers pass through at most four roundings to f32 between an edit and where it is read (the edit itself, a scale, and
/// the adds of the edited and of the untouched run), each at most 2^-24 of the largest number there.
const ROUNDINGS: f64 = 4.0 / (1 << 24) as f64;

/// What came of one site of one block.
pub(crate) enum Outcome {
    Steered,
    Refused(String),
    /// Refused by name, before any graph.
    Named(String),
    Wrong(String),
}

/// A batch, and what is known of it from an untouched run.
struct Batch {
    entries: Vec<Entry>,
    watch: Watch,
    streams: Vec<Stream>,
    /// The names of the graph's nodes, in order: every run of the batch has to have the same graph.
    names: Vec<String>,
    untouched: Reading,
}

/// A model with its context, and batches that follow each other: a prompt of five tokens, of which two ask for logits; one
/// token; three rows in place of embeddings, as images come; tokens and rows in one.
pub(crate) struct Bench<'m> {
    architecture: &'m Architecture,
    context: Context<'m>,
    batches: Vec<Batch>,
    v: Vec<f32>,
    controlled: bool,
}

impl<'m> Bench<'m> {
    /// `controlled`: with a control vector of llama.cpp's on.
    pub(crate) fn new(architecture: &'m Architecture, model: &'m Model, controlled: bool) -> Self {
        let (n_layer, width) = (model.n_layer(), model.n_embd());
        let encodes = architecture.gguf == "bert";
        let mut context = Context::new(model, Options { embeddings: encodes, ..Options::default() }).unwrap();
        if controlled {
            context.control(&vec![0.5; (n_layer - 1) * width], width, n_layer);
        }
        let v = (0..width).map(|k| ((k * 7) % 5) as f32 * 0.5 - 1.0).collect();
        let mut bench = Self { architecture, context, batches: Vec::new(), v, controlled };
        let prompt = (0..5).map(|i| Entry::token(7 + 11 * i, i, 0, encodes || [1, 4].contains(&i))).collect();
        let row =
            |i: i32| Input::Row((0..width).map(|k| ((k * 7 + i as usize * 13) % 11) as f32 * 0.1 - 0.5).collect());
        let entry = |input, position, logits| Entry { input, position, sequences: vec![0], logits };
        let rows = (6..9).map(|i| entry(row(i), i, i == 8)).collect();
        let both = [Input::Token(3), row(10), row(11), Input::Token(4)];
        let both = both.into_iter().zip(9..).map(|(input, i)| entry(input, i, i == 12)).collect();
        let mut batches = vec![prompt, vec![Entry::token(9, 5, 0, true)], rows, both];
        // An encoder keeps nothing for a next batch.
        batches.truncate(if encodes {
            1
        } else if architecture.rows {
            3
        } else {
            2
        });
        for entries in batches {
            let mut graph = Graph::default();
            let look = &mut |tensor, ask: bool| {
                if ask {
                    graph.add(tensor);
                }
                !ask
            };
            decode(architecture, &mut bench.context, &entries, look);
            let closed = architecture.block(0) == Block::Closed;
            let streams = graph.streams(architecture, if closed { 0 } else { n_layer });
            let streams = streams.unwrap_or_else(|why| panic!("{}: {why}", architecture.name));
            let watch = Watch::new(&graph, &streams);
            bench.batches.push(Batch { entries, watch, streams, names: graph.names, untouched: Reading::new() });
        }
        bench.clear();
        for i in 0..bench.batches.len() {
            bench.batches[i].untouched = bench.run(i, &mut |_, ask| !ask);
        }
        bench
    }

    /// Forgets all tokens.
    fn clear(&mut self) {
        // SAFETY: the context is alive.
        let memory = unsafe { sys::llama_get_memory(self.context.pointer()) };
        if !memory.is_null() {
            // SAFETY: the context's own memory.
            unsafe { sys::llama_memory_clear(memory, true) };
        }
    }

    /// Runs batch `i` after those before it, with `edit` at work in it alone; what the observer reads.
    pub(crate) fn edited(&mut self, i: usize, edit: &mut Observer) -> Reading {
        self.clear();
        for before in 0..i {
            self.run(before, &mut |_, ask| !ask);
        }
        self.run(i, edit)
    }

    fn run(&mut self, i: usize, edit: &mut Observer) -> Reading {
        let Self { architecture, context, batches, .. } = self;
        let batch = &batches[i];
        let (mut nodes, mut reading, mut wanted) = (Vec::new(), Reading::new(), false);
        decode(architecture, context, &batch.entries, &mut |tensor, ask| {
            if ask {
                assert_eq!(batch.names.get(nodes.len()), Some(&raw::name(tensor)), "another graph");
                nodes.push(tensor);
                wanted = edit(tensor, true);
                batch.watch.read(&nodes, &mut reading);
                return wanted || batch.watch.wants(nodes.len() - 1);
            }
            !wanted || edit(tensor, false)
        });
        assert_eq!(nodes.len(), batch.names.len(), "{}: another graph", architecture.name);
        reading
    }

    /// Adds to a site where the observer itself sees it, without tiller, in each batch on its own.
    pub(crate) fn planted(&mut self, site: Site, layer: usize) -> Result<(), String> {
        for i in 0..self.batches.len() {
            let stream = &self.batches[i].streams[layer];
            let place = match site {
                Site::ResidPre => stream.pre,
                Site::ResidMid => stream.mid.ok_or("no stream between the sublayers")?,
                _ => stream.post,
            };
            let Some(piece) = self.batches[i].watch.piece(place) else { continue };
            let (reading, rows) = self.plant(i, |at, _| at == piece.root, piece.offset, piece.len, factor);
            self.compare(i, site, layer, &reading, &rows)?;
        }
        Ok(())
    }

    /// Adds `times(position)·v` to the rows that lie at a byte of a node, in batch `i`; what was read, and what they were.
    pub(crate) fn plant(
        &mut self,
        i: usize,
        node: impl Fn(usize, &str) -> bool,
        offset: usize,
        len: usize,
        times: impl Fn(i32) -> f32,
    ) -> (Reading, Rows) {
        let (v, positions) = (self.v.clone(), self.batches[i].positions(len / self.v.len()).expect("rows"));
        let (mut rows, mut at) = (Rows::new(), 0);
        let reading = self.edited(i, &mut |tensor, ask| {
            if ask {
                at += 1;
                return node(at - 1, &raw::name(tensor));
            }
            let mut numbers = raw::part(tensor, offset, len);
            for (&position, row) in positions.iter().zip(numbers.chunks_exact_mut(v.len())) {
                rows.push((position, row.to_vec()));
                row.iter_mut().zip(&v).for_each(|(x, v)| *x += times(position) * v);
            }
            raw::write(tensor, offset, &numbers);
            true
        });
        (reading, rows)
    }

    /// Adds to one site of one block, in each batch on its own.
    pub(crate) fn outcome(&mut self, site: Site, layer: usize) -> Outcome {
        let (mut done, mut refused) = (0, None);
        for i in 0..self.batches.len() {
            let point = HookPoint::new(site, layer);
            let mut hooked = match Hooked::new(self.architecture.gguf, point, self.v.clone()) {
                Ok(hooked) => hooked,
                Err(why) => return Outcome::Named(why),
            };
            // The observer computes nodes apart, which a hook that does not know a point yet cannot see.
            hooked.announce(&self.batches[0].entries);
            // SAFETY: the nodes that ggml asks about; the host's table is of the same ggml.
            let _ = self.edited(0, &mut |tensor, ask| unsafe { hooked.hook.eval(tensor.cast(), ask) });
            hooked.restart();
            hooked.announce(&self.batches[i].entries);
            // SAFETY: as above.
            let reading = self.edited(i, &mut |tensor, ask| unsafe { hooked.hook.eval(tensor.cast(), ask) });
            let n_tokens = self.batches[i].entries.len();
            match hooked.finish() {
                (rows, Some(why)) if rows.is_empty() => refused = self.refusal(i, site, layer, why).or(refused),
                (rows, Some(why)) => return Outcome::Wrong(format!("{} rows edited, and yet: {why}", rows.len())),
                (rows, None) => match self.compare(i, site, layer, &reading, &rows) {
                    Err(why) => return Outcome::Wrong(format!("{why} (batch of {n_tokens})")),
                    Ok(()) => done += 1,
                },
            }
        }
        match refused {
            None => Outcome::Steered,
            Some(why) if done == 0 => Outcome::Refused(why),
            Some(why) => Outcome::Wrong(format!("steered in one graph and refused in another: {why}")),
        }
    }

    /// Adds to a site in two runs of the first batch by one hook, alone with the graph; the logits have to be the same, and
    /// others than without it. A site that is refused is refused in both.
    ///
    /// llama.cpp's rwkv7 computes NaN in some runs, and in some processes in all, without any hook: such a run says nothing.
    /// It is made again; where none was finite, this architecture is left to the tests that look at its rows, and a line
    /// of the test's output says so.
    pub(crate) fn twice(&mut self, site: Site, layer: usize) -> Result<(), String> {
        let runs = (0..8).find_map(|_| self.twice_if_finite(site, layer));
        match runs {
            None if self.architecture.name == "rwkv7" => {
                println!("left out: rwkv7 {} {layer}: llama.cpp computed no finite logits in 8 runs", site.name());
                Ok(())
            }
            None => Err("no run had finite logits".into()),
            Some(found) => found,
        }
    }

    /// The same; none if llama.cpp's logits are not finite.
    fn twice_if_finite(&mut self, site: Site, layer: usize) -> Option<Result<(), String>> {
        let Ok(mut hooked) = Hooked::new(self.architecture.gguf, HookPoint::new(site, layer), self.v.clone()) else {
            return Some(Ok(()));
        };
        let entries = self.batches[0].entries.clone();
        let mut run = |hooked: Option<&mut Hooked>| {
            self.clear();
            let Some(hooked) = hooked else {
                decode(self.architecture, &mut self.context, &entries, &mut |_, ask| !ask);
                return (self.context.logits(entries.len() - 1).to_vec(), None);
            };
            hooked.announce(&entries);
            // SAFETY: the nodes that ggml asks about; the host's table is of the same ggml.
            decode(self.architecture, &mut self.context, &entries, &mut |tensor, ask| unsafe {
                hooked.hook.eval(tensor.cast(), ask)
            });
            let fault = hooked.hook.finish().ok().err();
            (self.context.logits(entries.len() - 1).to_vec(), fault)
        };
        let (plain, _) = run(None);
        let (first, refused) = run(Some(&mut hooked));
        let (next, again) = run(Some(&mut hooked));
        if plain.iter().chain(&first).chain(&next).any(|v| !v.is_finite()) {
            return None;
        }
        if refused.is_some() {
            // Gemma 3n's streams are copied before the first of them is read, so a point has to be known before.
            let known = again.is_some() || (self.architecture.block(0) == Block::Streams && next != plain);
            let left = first == plain && (again.is_none() || next == plain);
            return Some(if known && left { Ok(()) } else { Err(format!("{refused:?}, then {again:?}")) });
        }
        if let Some(fault) = again {
            return Some(Err(format!("only in the second graph: {fault}")));
        }
        // One thread, the same graph, the same batch: nothing sums in another order.
        let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        Some(match (apart(&first, &next), apart(&first, &plain)) {
            (same, effect) if same > 1e-4 => Err(format!("the first graph's logits are {same} apart, of {effect}")),
            (_, effect) if effect < 1e-3 => Err(format!("no effect: {effect}")),
            _ => Ok(()),
        })
    }

    /// A refusal that counts. Rows that stand in an input of the graph, not in a node, may be refused in that graph alone.
    fn refusal(&self, i: usize, site: Site, layer: usize, why: String) -> Option<String> {
        let stream = self.batches[i].streams.get(layer);
        (site != Site::ResidPre || stream.is_none_or(|stream| !stream.pre.is_input())).then_some(why)
    }

    /// Compares what was seen and done at a site, by position, with what the observer reads.
    pub(crate) fn compare(&self, i: usize, site: Site, layer: usize, got: &Reading, rows: &Rows) -> Result<(), String> {
        let batch = &self.batches[i];
        let block = self.architecture.block(layer);
        if !block.has(site) {
            return Err(format!("said to be steered, {} rows, in a block that has no such site", rows.len()));
        }
        let stream = &batch.streams[layer];
        let mid = || stream.mid.ok_or("no stream between the sublayers");
        let rows_of = |numbers| batch.rows(numbers, self.v.len());
        // Where it shows, and what the site holds: the sum and what has to be taken from it.
        let (shows, sum, less) = match (block, site) {
            (_, Site::ResidPre) => (stream.pre, stream.pre, vec![]),
            (_, Site::ResidPost) => (stream.post, stream.post, vec![]),
            (Block::Steps(_), Site::ResidMid) => (mid()?, mid()?, vec![]),
            (Block::Steps(_), Site::AttnOut) => (mid()?, mid()?, vec![stream.pre]),
            (Block::Steps(_), Site::MlpOut) => (stream.after, stream.after, vec![mid()?]),
            (Block::Parallel, Site::AttnOut) => (stream.post, mid()?, vec![]),
            (Block::Parallel, Site::MlpOut) => (stream.post, stream.post, vec![stream.pre, mid()?]),
            _ => (stream.post, stream.post, vec![stream.pre]),
        };
        // A control vector stands between the last sublayer and the block's output.
        let held_is_known = !(self.controlled && sum == stream.post && !less.is_empty());
        let shown = rows_of(&batch.untouched[&shows][0])?;
        let whole = rows_of(&batch.untouched[&sum][0])?;
        let parts: Vec<_> = less.iter().map(|part| rows_of(&batch.untouched[part][0])).collect::<Result<_, _>>()?;
        let copies: Vec<_> = got[&shows].iter().map(|copy| rows_of(copy)).collect::<Result<_, _>>()?;
        for (&position, base) in &shown {
            let (_, seen) = rows.iter().find(|row| row.0 == position).ok_or(format!("row {position} was not seen"))?;
            for (k, &x) in base.iter().enumerate() {
                let number = |rows: &BTreeMap<i32, &[f32]>| f64::from(rows[&position][k]);
                let (v, seen) = (f64::from(factor(position) * self.v[k]), f64::from(seen[k]));
                let held = number(&whole) - parts.iter().map(number).sum::<f64>();
                let numbers = parts.iter().chain([&whole, &shown]).map(|rows| number(rows).abs()).sum::<f64>();
                let bound = ROUNDINGS * (numbers + seen.abs() + v.abs());
                if held_is_known && (seen - held).abs() > bound {
                    return Err(format!("row {position} of the site was {seen}, not {held}, at {k}"));
                }
                if let Some(y) = copies.iter().map(number).find(|y| (y - f64::from(x) - v).abs() > bound) {
                    return Err(format!("row {position} went from {x} to {y} instead of by {v}, at {k}"));
                }
            }
        }
        Ok(())
    }
}

impl Batch {
    /// The rows of a tensor by their positions: those of all entries, or of the ones with logits.
    fn rows<'a>(&self, numbers: &'a [f32], width: usize) -> Result<BTreeMap<i32, &'a [f32]>, String> {
        Ok(self.positions(numbers.len() / width)?.into_iter().zip(numbers.chunks_exact(width)).collect())
    }

    fn positions(&self, n_rows: usize) -> Result<Vec<i32>, String> {
        let all: Vec<i32> = self.entries.iter().map(|entry| entry.position).collect();
        let outputs = self.entries.iter().filter(|entry| entry.logits).map(|entry| entry.position).collect();
        let positions = [all, outputs].into_iter().find(|positions| positions.len() == n_rows);
        positions.ok_or(format!("{n_rows} rows of {} entries", self.entries.len()))
    }
}

/// Decodes; an encoder–decoder encodes the same first.
fn decode(architecture: &Architecture, context: &mut Context, entries: &[Entry], observer: &mut Observer) {
    if architecture.gguf == "t5" {
        assert_eq!(context.encode(entries, observer), 0);
    }
    assert_eq!(context.decode(entries, observer), 0, "{}", architecture.name);
}
