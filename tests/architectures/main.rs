//! Every architecture's graph, as it really runs: what is added to a site shows where the model reads it, or the hook says
//! that it was not added.
//!
//! The models are tiny, random and made in memory. An observer of its own finds the residual stream by the *weights* that
//! read it (`observer`), and tiller's hook adds `(1 + position)·v` to one site of one block (`hooked`). Three things are
//! compared: the rows that the hook saw with what the observer reads there, the difference that the edit makes, and every
//! single reading, since a copy that was taken before the edit would leave half of the model unsteered. A site that a block
//! does not have must be refused: an error of `patch`, or a fault at `finish`, with no row edited.
#![cfg(feature = "engine")]

mod hooked;
mod observer;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::collections::BTreeMap;

use ggml_sys as sys;
use hooked::{Hooked, factor};
use observer::{Graph, Reading, Stream, Watch};
use support::raw::{Context, Entry, Model, Observer, Options};
use table::{Architecture, Block};
use tiller::hook_point::{HookPoint, Site};

/// Numbers pass through at most four roundings to f32 between an edit and where it is read (the edit itself, a scale, and
/// the adds of the edited and of the untouched run), each at most 2^-24 of the largest number there.
const ROUNDINGS: f64 = 4.0 / (1 << 24) as f64;

/// What came of one site of one block.
enum Outcome {
    Steered,
    Refused(String),
    Wrong(String),
}

#[test]
fn every_site_of_every_architecture() {
    let mut wrong = Vec::new();
    println!("| architecture | {} |", Site::ALL.map(Site::name).join(" | "));
    println!("|---|{}", "---|".repeat(Site::ALL.len()));
    for architecture in table::all() {
        let model = Model::new(architecture.gguf, &architecture.keys).expect(architecture.name);
        let mut bench = Bench::new(&architecture, &model);
        let mut cells = Vec::new();
        for site in Site::ALL {
            let layers = if site == Site::ResidPre { 1 } else { model.n_layer() };
            let outcomes: Vec<Outcome> = (0..layers).map(|layer| bench.outcome(site, layer)).collect();
            for (layer, outcome) in outcomes.iter().enumerate() {
                let exists = exists(architecture.block(layer), site);
                match outcome {
                    Outcome::Wrong(why) => wrong.push(format!("{} {} {layer}: {why}", architecture.name, site.name())),
                    Outcome::Refused(why) if exists => {
                        wrong.push(format!("{} {} {layer} is refused: {why}", architecture.name, site.name()));
                    }
                    _ => {}
                }
            }
            cells.push(cell(&outcomes));
        }
        println!("| {} | {} |", architecture.name, cells.join(" | "));
    }
    assert!(wrong.is_empty(), "{} of what was tried:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether blocks of this kind have such a site.
fn exists(block: Block, site: Site) -> bool {
    match (block, site) {
        (Block::Closed, _) => false,
        (_, Site::ResidPre | Site::ResidPost) | (Block::Steps(_), _) => true,
        (Block::Parallel, site) => site != Site::ResidMid,
        (Block::Mixer, site) => site == Site::AttnOut,
        (Block::Mlp, site) => site == Site::MlpOut,
        (Block::Streams, _) => false,
    }
}

/// One cell of the table: yes, refused, or for which blocks what.
fn cell(outcomes: &[Outcome]) -> String {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Steered => "yes",
        Outcome::Refused(_) => "refused",
        Outcome::Wrong(_) => "WRONG",
    };
    let mut words: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (layer, outcome) in outcomes.iter().enumerate() {
        words.entry(word(outcome)).or_default().push(layer.to_string());
    }
    match words.len() {
        1 => words.into_keys().collect(),
        _ => {
            words.iter().map(|(word, layers)| format!("{word} ({})", layers.join(", "))).collect::<Vec<_>>().join("; ")
        }
    }
}

/// A batch, and what is known of it from an untouched run.
struct Batch {
    entries: Vec<Entry>,
    watch: Watch,
    streams: Vec<Stream>,
    names: Vec<String>,
    untouched: Reading,
}

/// One model with its context: a prompt of five tokens, of which two ask for logits, and one token after it.
struct Bench<'m> {
    architecture: &'m Architecture,
    context: Context<'m>,
    batches: Vec<Batch>,
    v: Vec<f32>,
}

impl<'m> Bench<'m> {
    fn new(architecture: &'m Architecture, model: &'m Model) -> Self {
        let embeddings = architecture.gguf == "bert";
        let context = Context::new(model, Options { embeddings, ..Options::default() }).expect(architecture.name);
        let v = (0..model.n_embd()).map(|k| ((k * 7) % 5) as f32 * 0.5 - 1.0).collect();
        let mut bench = Self { architecture, context, batches: Vec::new(), v };
        let prompt = (0..5).map(|i| Entry::token(7 + 11 * i, i, 0, embeddings || [1, 4].contains(&i))).collect();
        let mut batches = vec![prompt, vec![Entry::token(9, 5, 0, true)]];
        // An encoder keeps nothing for a next token.
        batches.truncate(if embeddings { 1 } else { 2 });
        for entries in batches {
            let mut graph = Graph::default();
            decode(architecture, &mut bench.context, &entries, &mut |tensor, ask| {
                if ask {
                    graph.add(tensor);
                }
                !ask
            });
            let closed = architecture.block(0) == Block::Closed;
            let streams = graph.streams(architecture, if closed { 0 } else { model.n_layer() });
            let streams = streams.unwrap_or_else(|why| panic!("{}: {why}", architecture.name));
            let watch = Watch::new(&graph, &streams);
            bench.batches.push(Batch { entries, watch, streams, names: graph.names, untouched: Reading::new() });
        }
        bench.clear();
        for i in 0..bench.batches.len() {
            bench.batches[i].untouched = bench.run(i, None);
        }
        bench
    }

    /// Forgets all tokens. What an encoder–decoder decodes has to be encoded first.
    fn clear(&mut self) {
        // SAFETY: the context is alive.
        let memory = unsafe { sys::llama_get_memory(self.context.pointer()) };
        if !memory.is_null() {
            // SAFETY: the context's own memory.
            unsafe { sys::llama_memory_clear(memory, true) };
        }
    }

    /// Runs batch `i`, with a hook or without.
    fn run(&mut self, i: usize, mut hooked: Option<&mut Hooked>) -> Reading {
        let Self { architecture, context, batches, .. } = self;
        let batch = &batches[i];
        let (mut nodes, mut reading, mut wanted) = (Vec::new(), Reading::new(), false);
        if let Some(hooked) = &mut hooked {
            hooked.announce(&batch.entries);
        }
        decode(architecture, context, &batch.entries, &mut |tensor, ask| {
            let hook = hooked.as_mut().map(|hooked| &mut hooked.hook);
            if ask {
                assert_eq!(batch.names.get(nodes.len()), Some(&support::raw::name(tensor)), "another graph");
                nodes.push(tensor);
                // SAFETY: the node that ggml asks about; the host's table is of the same ggml.
                wanted = hook.is_some_and(|hook| unsafe { hook.eval(tensor.cast(), true) });
                return wanted || batch.watch.wants(nodes.len() - 1);
            }
            // SAFETY: as above.
            let goes_on = hook.filter(|_| wanted).is_none_or(|hook| unsafe { hook.eval(tensor.cast(), false) });
            batch.watch.read(nodes.len() - 1, &nodes, &mut reading);
            goes_on
        });
        assert_eq!(nodes.len(), batch.names.len(), "{}: another graph", architecture.name);
        reading
    }

    /// Adds to one site of one block in each batch on its own.
    fn outcome(&mut self, site: Site, layer: usize) -> Outcome {
        let (mut done, mut refused) = (0, None);
        for i in 0..self.batches.len() {
            let point = HookPoint::new(site, layer);
            let mut hooked = match Hooked::new(self.architecture.gguf, point, self.v.clone()) {
                Ok(hooked) => hooked,
                Err(why) => return Outcome::Refused(why),
            };
            self.clear();
            for before in 0..i {
                self.run(before, None);
            }
            let reading = self.run(i, Some(&mut hooked));
            match hooked.finish() {
                Err(why) => refused = Some(why),
                Ok(rows) => match self.compare(i, site, layer, &reading, &rows) {
                    Err(why) => return Outcome::Wrong(format!("{why} ({} tokens)", self.batches[i].entries.len())),
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

    /// Compares what the hook saw and did with what the observer reads.
    fn compare(
        &self,
        i: usize,
        site: Site,
        layer: usize,
        reading: &Reading,
        rows: &[(i32, Vec<f32>)],
    ) -> Result<(), String> {
        let batch = &self.batches[i];
        let block = self.architecture.block(layer);
        if !exists(block, site) {
            return Err(format!("said to be steered, {} rows, in a block that has no such site", rows.len()));
        }
        let stream = &batch.streams[layer];
        let mid = || stream.mid.ok_or("no stream between the sublayers");
        let before = |place: usize| batch.rows(&batch.untouched[&place][0], self.v.len());
        // Where it shows, and what the site holds: the sum and what has to be taken from it.
        let (shows, sum, less): (usize, usize, Vec<usize>) = match (block, site) {
            (_, Site::ResidPre) => (stream.pre, stream.pre, vec![]),
            (_, Site::ResidPost) => (stream.post, stream.post, vec![]),
            (Block::Steps(_), Site::ResidMid) => (mid()?, mid()?, vec![]),
            (Block::Steps(_), Site::AttnOut) => (mid()?, mid()?, vec![stream.pre]),
            (Block::Steps(_), Site::MlpOut) => (stream.after, stream.after, vec![mid()?]),
            (Block::Parallel, Site::AttnOut) => (stream.post, mid()?, vec![]),
            (Block::Parallel, Site::MlpOut) => (stream.post, stream.post, vec![stream.pre, mid()?]),
            _ => (stream.post, stream.post, vec![stream.pre]),
        };
        let shown = before(shows)?;
        let whole = before(sum)?;
        let parts: Vec<_> = less.into_iter().map(before).collect::<Result<_, _>>()?;
        let edited = reading.get(&shows).ok_or("the node is not read any more")?;
        for (&position, base) in &shown {
            let seen = rows.iter().find(|row| row.0 == position).ok_or(format!("no row of position {position}"))?;
            for (k, &x) in base.iter().enumerate() {
                let v = f64::from(factor(position) * self.v[k]);
                let held: f64 =
                    f64::from(whole[&position][k]) - parts.iter().map(|p| f64::from(p[&position][k])).sum::<f64>();
                let numbers = parts.iter().chain([&whole, &shown]).map(|rows| f64::from(rows[&position][k]).abs());
                let bound = ROUNDINGS * (numbers.sum::<f64>() + f64::from(seen.1[k]).abs() + v.abs());
                if (f64::from(seen.1[k]) - held).abs() > bound {
                    return Err(format!("row {position} of the site is {}, not {held}, at {k}", seen.1[k]));
                }
                for copy in edited {
                    let y = f64::from(batch.rows(copy, self.v.len())?[&position][k]);
                    if (y - f64::from(x) - v).abs() > bound {
                        return Err(format!("row {position} went from {x} to {y} instead of by {v}, at {k}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Decodes; an encoder–decoder encodes the same first.
fn decode(architecture: &Architecture, context: &mut Context, entries: &[Entry], observer: &mut Observer) {
    if architecture.gguf == "t5" {
        assert_eq!(context.encode(entries, observer), 0);
    }
    assert_eq!(context.decode(entries, observer), 0, "{}", architecture.name);
}

impl Batch {
    /// The rows of a tensor by their positions: those of all tokens, or of the ones with logits.
    fn rows<'a>(&self, numbers: &'a [f32], width: usize) -> Result<BTreeMap<i32, &'a [f32]>, String> {
        let all: Vec<i32> = self.entries.iter().map(|entry| entry.position).collect();
        let outputs = self.entries.iter().filter(|entry| entry.logits).map(|entry| entry.position).collect();
        let n_rows = numbers.len() / width;
        let positions = [all, outputs].into_iter().find(|positions| positions.len() == n_rows);
        let positions = positions.ok_or(format!("{n_rows} rows of {} tokens", self.entries.len()))?;
        Ok(positions.into_iter().zip(numbers.chunks_exact(width)).collect())
    }
}
