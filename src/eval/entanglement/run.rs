//! The run: sentences, rows, featurizers, figures.

use std::sync::Arc;
use std::time::Instant;

use super::data::Data;
use super::featurizer::Featurizer;
use super::reading::{moments, read};
use super::sentences::{Sentences, Split};
use super::steering::{Bench, Chosen, choose, steer};
use super::written::written;
use super::{Found, Report, Request, Run, fitting, grammar, rows};
use crate::dictionary::Dictionary;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::progress::{Progress, Step, report};
use crate::train::dense::Coder;
use crate::train::probe::Probe;

/// Bytes that the rows of all sentences may take.
const MEMORY: usize = 4 << 30;

/// Measures what `request` asks for on the engine's model. Open the engine with several sequences: sentences are read
/// side by side. No plan is in force afterwards. Progress counts sentences that were read.
///
/// # Errors
/// As [`Request::check`] and [`Sentences::read`]; [`Kind::Argument`](crate::Kind::Argument) for layers that the model
/// lacks; [`Kind::Mismatch`](crate::Kind::Mismatch) for a file of another layer or width; those of the trainers and the
/// engine; [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn entanglement(engine: &mut Engine, request: &Request, progress: &mut Progress<'_>) -> Result<Report> {
    request.check()?;
    let started = Instant::now();
    let (layer, read_layer) = layers(engine, request)?;
    engine.set_plan(None)?;
    let mut work = Work { progress, done: 0, total: 0 };
    let mut made = Report {
        model: engine.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        layer,
        read_layer,
        pooling: request.pooling.name().to_owned(),
        seed: request.seed,
        ..Report::default()
    };
    let sets: Vec<Option<f64>> = match request.data {
        Some(_) => vec![None],
        None => request.rho.iter().copied().map(Some).collect(),
    };
    let places = Places { layer, read_layer };
    for (i, rho) in sets.iter().enumerate() {
        let one = run(engine, request, places, (*rho, sets.len() - i), &mut work);
        let rested = engine.set_plan(None);
        made.runs.push(one?);
        rested?;
    }
    made.seconds = started.elapsed().as_secs_f64();
    Ok(made)
}

/// Where rows are featurized and steered, and where they are read.
#[derive(Clone, Copy)]
struct Places {
    layer: usize,
    read_layer: usize,
}

/// Counts sentences that were read.
struct Work<'p, 'q> {
    progress: &'p mut Progress<'q>,
    done: u64,
    total: u64,
}

impl Work<'_, '_> {
    fn step(&mut self, n: usize, note: &str) -> Result<()> {
        self.done += n as u64;
        report(self.progress, self.done, self.total.max(self.done), note)
    }

    /// Work that reads no sentence, told by its own notes behind `name`.
    fn aside<'w>(&'w mut self, name: &'w str) -> impl FnMut(Step<'_>) -> bool + 'w {
        move |step| {
            let note = if step.note.is_empty() { name.to_owned() } else { format!("{name}: {}", step.note) };
            (self.progress)(Step { done: self.done, total: self.total.max(self.done), note: &note })
        }
    }
}

/// The layers, checked against the model.
fn layers(engine: &Engine, request: &Request) -> Result<(usize, usize)> {
    let n = engine.n_layer();
    let said = match (request.layer, request.files.first()) {
        (Some(layer), _) => Some(layer),
        (None, Some(path)) if path.is_file() && Coder::recognize(path)? => Coder::open(path)?.info().layer,
        (None, Some(path)) => {
            let dictionary = Dictionary::open(path)?;
            dictionary.layer().or(dictionary.layers().first().copied())
        }
        (None, None) => None,
    };
    let layer = said.unwrap_or(n / 2);
    if layer >= n {
        return Err(Error::argument(format!("layer: expected 0 to {}, found {layer}", n - 1)));
    }
    let steers = request.steer > 0;
    let read_layer = request.read_layer.unwrap_or((layer + (n - layer).div_ceil(2)).min(n - 1));
    if read_layer >= n || (steers && read_layer <= layer) {
        return Err(Error::argument(format!(
            "read_layer: expected a layer behind {layer} and up to {}, found {read_layer}",
            n - 1
        ))
        .hinted("at the layer that is steered a linear probe adds edits up by construction; or steer no sentences"));
    }
    Ok((layer, read_layer))
}

fn run(
    engine: &mut Engine,
    request: &Request,
    places: Places,
    (rho, left): (Option<f64>, usize),
    work: &mut Work<'_, '_>,
) -> Result<Run> {
    let started = Instant::now();
    let sentences = match &request.data {
        Some(path) => Sentences::read(path, &request.attributes)?,
        None => grammar::generate(request.sentences, rho.unwrap_or_default(), request.seed)?,
    };
    let split = sentences.split(request.test, request.seed)?;
    work.total = work.done + (left * expected(&sentences, request)) as u64;
    let Read { tokens, data, later } = harvest(engine, &sentences, &split, request, places, work)?;
    let probes = fitting::probes(&data, request.threads, &mut work.aside("probes"))?;
    let readers = match &later {
        Some(later) => fitting::probes(later, request.threads, &mut work.aside("probes"))?,
        None => Vec::new(),
    };
    let set =
        Set { data: &data, probes: &probes, readers: &readers, places, texts: &steered(&split, &tokens, request) };
    let phi = || Some(sentences.phi(sentences.concept(grammar::PAIR[0])?, sentences.concept(grammar::PAIR[1])?));
    let accuracy = |(c, probe): (usize, &Probe)| {
        let labels = later.as_ref().map(|data| data.test.column(c, readers.len())).unwrap_or_default();
        probe.score(later.as_ref().map_or(&[][..], |data| data.test.rows.as_slice()), &labels).accuracy
    };
    let mut made = Run {
        rho,
        phi: rho.and_then(|_| phi()),
        concepts: sentences.concepts.clone(),
        sentences: [split.train.len(), split.test.len()],
        readers: readers.iter().enumerate().map(accuracy).collect(),
        ..Run::default()
    };
    for path in &request.files {
        let clock = Instant::now();
        let (middle, rows) = (data.middle(), &data.train.rows);
        let featurizer = Featurizer::open(path, places.layer, rows, &middle, request.threads)?;
        made.featurizers.push(set.measure(engine, &featurizer, request, clock, work)?);
    }
    for &kind in &request.fit {
        let clock = Instant::now();
        let featurizer = fitting::fitted(kind, &data, request, &mut work.aside(kind.name()))?;
        made.featurizers.push(set.measure(engine, &featurizer, request, clock, work)?);
    }
    made.seconds = started.elapsed().as_secs_f64();
    Ok(made)
}

/// Sentences as the model reads them.
struct Read {
    tokens: Vec<Vec<i32>>,
    /// Rows at the layer of the features.
    data: Data,
    /// Rows at the layer that reads, if sentences are steered.
    later: Option<Data>,
}

fn harvest(
    engine: &mut Engine,
    sentences: &Sentences,
    split: &Split,
    request: &Request,
    places: Places,
    work: &mut Work<'_, '_>,
) -> Result<Read> {
    let d = engine.d_model();
    let needed = sentences.len().saturating_mul(2 * d * size_of::<f32>());
    if needed > MEMORY {
        let (n, most) = (sentences.len(), MEMORY >> 30);
        return Err(Error::argument(format!("sentences: the rows of {n} need more than {most} GiB")));
    }
    let tokens = rows::tokens(engine, &sentences.texts)?;
    let mut points = vec![HookPoint::from(places.layer)];
    points.extend((request.steer > 0).then(|| HookPoint::from(places.read_layer)));
    let found = rows::read(engine, &tokens, &points, request.pooling, &mut |n| work.step(n, "reading sentences"))?;
    let mut sets = found.iter().map(|rows| Data::new(sentences, split, rows, d));
    let data = sets.next().ok_or_else(|| Error::numeric("no rows were read"))?;
    let later = sets.next();
    Ok(Read { tokens, data, later })
}

/// The tokens of the sentences that are steered: the first of the test part, which is in no order.
fn steered(split: &Split, tokens: &[Vec<i32>], request: &Request) -> Vec<Vec<i32>> {
    split.test.iter().take(request.steer).map(|&i| tokens[i].clone()).collect()
}

/// Sentences that a run reads, about.
fn expected(sentences: &Sentences, request: &Request) -> usize {
    let featurizers = request.files.len() + request.fit.len();
    let edits = 1 + sentences.concepts.len() + request.pairs + request.random;
    sentences.len() + featurizers * edits * request.steer
}

/// What all featurizers of a run are measured on.
struct Set<'s> {
    data: &'s Data,
    probes: &'s [Probe],
    readers: &'s [Probe],
    places: Places,
    /// The sentences that are steered.
    texts: &'s [Vec<i32>],
}

impl Set<'_> {
    fn measure(
        &self,
        engine: &mut Engine,
        featurizer: &Featurizer,
        request: &Request,
        clock: Instant,
        work: &mut Work<'_, '_>,
    ) -> Result<Found> {
        let named = |e: Error| e.context(&featurizer.name);
        let fitted = clock.elapsed().as_secs_f64();
        let trained = moments(featurizer, &self.data.train, self.data, request.threads)?;
        let reading =
            read(featurizer, self.data, &trained, request, &mut work.aside(&featurizer.name)).map_err(named)?;
        let measured = clock.elapsed().as_secs_f64();
        let steering = match self.texts.is_empty() {
            true => None,
            false => {
                let chosen = choose(featurizer, &trained, self.probes, request.strength);
                let mut steering = self.steer(engine, featurizer, &chosen, request, work).map_err(named)?;
                if request.generate > 0 {
                    steering.written = Some(self.write(engine, featurizer, &chosen, request, work).map_err(named)?);
                }
                Some(steering)
            }
        };
        let notes = featurizer.notes(self.places.layer, &engine.target())?;
        let seconds = [fitted, measured - fitted, clock.elapsed().as_secs_f64() - measured];
        Ok(Found {
            name: featurizer.name.clone(),
            n_features: featurizer.n_features(),
            notes,
            reading,
            steering,
            seconds,
        })
    }

    fn steer(
        &self,
        engine: &mut Engine,
        featurizer: &Featurizer,
        chosen: &Chosen,
        request: &Request,
        work: &mut Work<'_, '_>,
    ) -> Result<super::Steering> {
        let (target, point) = (engine.target(), HookPoint::from(self.places.read_layer));
        let mut reader = |plan: Option<crate::plan::Compiled>| {
            engine.set_plan(plan.map(Arc::new))?;
            let found = rows::read(engine, self.texts, &[point], request.pooling, &mut |_| Ok(()))?;
            Ok(found.into_iter().next().unwrap_or_default())
        };
        let (probes, readers) = (self.probes, self.readers);
        let mut bench = Bench { target, layer: self.places.layer, probes, readers, read: &mut reader };
        let note = format!("{}: steering", featurizer.name);
        steer(&mut bench, featurizer, self.data, chosen, request, &mut || work.step(self.texts.len(), &note))
    }

    fn write(
        &self,
        engine: &mut Engine,
        featurizer: &Featurizer,
        chosen: &Chosen,
        request: &Request,
        work: &mut Work<'_, '_>,
    ) -> Result<super::Written> {
        let target = engine.target();
        let plan =
            |edit: &super::steering::Edit| featurizer.edit(&[(edit.feature, edit.value)], self.places.layer, &target);
        let plans = chosen.edits.iter().map(plan).collect::<Result<Vec<_>>>()?;
        let place = (HookPoint::from(self.places.read_layer), request.pooling);
        let note = format!("{}: writing", featurizer.name);
        engine.set_plan(None)?;
        let tell = &mut || work.step(0, &note);
        written(engine, plans, self.readers, place, &self.data.attributes, request.generate, tell)
    }
}
