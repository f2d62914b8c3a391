//! `tiller bench`: measurements, one JSON object a line with `--json`.
//!
//! Every case stands beside a baseline that was measured in the same run, pair by pair, so that a busy machine disturbs
//! both alike: `ratio` is the median over the pairs of value over baseline; `value` and `baseline` are medians too.

mod concepts;
mod encode;
mod explain;
mod harvest;
mod map;
mod overhead;
mod steering;
mod temporal;
mod train;

use clap::{Args as Clap, ValueEnum};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tiller::{Error, Result};

use crate::open::Machine;
use crate::output::{Out, when_cancelled};
use crate::paths::check_outputs;
use crate::plot::Panel;

/// Tokens a continuation.
const TOKENS: usize = 50;

/// Measure what steering costs and what it does
#[derive(Clap)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_enum, default_value = "all")]
    what: What,
    /// A model; several for overhead
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,
    /// The dictionary to steer with, for concepts
    #[arg(long, value_name = "FILE")]
    dictionary: Option<PathBuf>,
    /// Explanations of the dictionary, for concepts: one file an estimator
    #[arg(long, value_name = "FILE", num_args = 1..)]
    explanations: Vec<PathBuf>,
    /// Concepts and prompts, for concepts, in place of the ones that are built in
    #[arg(long, value_name = "FILE")]
    suite: Option<PathBuf>,
    /// Only the first N concepts, or the ones with these names; behaviours by their names
    #[arg(long, value_name = "N|NAMES", value_delimiter = ',')]
    concepts: Vec<String>,
    /// Tokens a continuation, for concepts; wishes are written as `tiller run` does [default: 50, of wishes 100]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Features a concept
    #[arg(short = 'n', long, default_value_t = 6, value_name = "N")]
    features: usize,
    /// What ranks the features of a concept, for concepts
    #[arg(long, default_value = "output")]
    rank: crate::wish::Rank,
    /// Largest perplexity, relative to the unsteered text, that the search for a strength allows
    #[arg(long, default_value_t = 1.6, value_name = "RATIO")]
    max_perplexity: f64,
    /// Numbers of latents, for temporal [default: 16,32,64,128]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    latents: Vec<usize>,
    /// Also draw how time grows with size, for train and temporal
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Pairs to measure, or seeds for temporal; 0 takes what fits the case
    #[arg(long, default_value_t = 0, value_name = "N")]
    pairs: usize,
    /// Only the cases whose name holds this, for overhead: decode, prefill/empty, callback, ...; only these methods, for
    /// steering: asked,constant,gated,...
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    case: String,
    /// Also write the continuations to this file, a JSON object a line, for concepts
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Keep finished cases with their texts in this file, and go on from what it has, for steering, behaviours, wishes and talk
    #[arg(long, value_name = "FILE.jsonl")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// What the hook costs a decode and a prefill, in six cases
    Overhead,
    /// Whether steering by words works, over a list of concepts
    Concepts,
    /// Steering by what is learned from an instruction, beside asking, dictionaries and random directions
    Steering,
    /// The same for manners that no list of words names: formal, angry, in French, …
    Behaviours,
    /// Whether what users wished for comes, learned and used with all defaults
    Wishes,
    /// What is left of an instruction and of what is learned after 1,500 tokens of other talk, and of two at once
    Talk,
    /// Tokens a second of the trainers
    Train,
    /// Encoding one row against reading the weights, and many rows against a matrix product
    Encode,
    /// What the temporal estimator finds of a known process, and in what time
    Temporal,
    /// Opening a dictionary of 1 GB and steering with it
    Map,
    /// What ending a graph early saves
    Harvest,
    /// How long explanations take
    Explain,
    /// All of them, as far as models and dictionaries are given
    All,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let inputs = args.model.iter().chain(&args.dictionary).chain(&args.explanations).chain(&args.suite);
    check_outputs(args.plot.iter().chain(&args.texts), inputs)?;
    let mut lines = Lines { out, n: 0, held: Vec::new(), panels: Vec::new() };
    let measured = measure(args, &mut lines);
    if measured.is_err() && lines.n == 0 {
        return measured;
    }
    // What was measured before a failure, or before Ctrl-C, is shown.
    let shown = lines.finish(args.plot.as_deref());
    measured.map_err(when_cancelled("what was measured before is above")).and(shown)
}

fn measure(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let all = args.what == What::All;
    let wants = |what: What| all || args.what == what;
    let needs = |what: What, given: bool, flags: &str| {
        if given || all {
            Ok(given)
        } else {
            Err(Error::argument(format!("bench --what {} needs {flags}", name(what))))
        }
    };
    if wants(What::Train) {
        train::run(args, lines)?;
    }
    if wants(What::Encode) {
        encode::run(args, lines)?;
    }
    if wants(What::Temporal) {
        temporal::run(args, lines)?;
    }
    if wants(What::Map) {
        map::run(args, lines)?;
    }
    if wants(What::Explain) {
        explain::run(args, lines)?;
    }
    if wants(What::Overhead) && needs(What::Overhead, !args.model.is_empty(), "--model")? {
        overhead::run(args, lines)?;
    }
    if wants(What::Harvest) && needs(What::Harvest, !args.model.is_empty(), "--model")? {
        harvest::run(args, lines)?;
    }
    // These take an hour, so they are not among all.
    for (what, suite) in [
        (What::Steering, steering::Suite::Concepts),
        (What::Behaviours, steering::Suite::Behaviours),
        (What::Wishes, steering::Suite::Wishes),
        (What::Talk, steering::Suite::Talk),
    ] {
        if args.what == what && needs(what, !args.model.is_empty(), "--model")? {
            steering::run(args, suite, lines)?;
        }
    }
    let given = !args.model.is_empty() && args.dictionary.is_some();
    if wants(What::Concepts) && needs(What::Concepts, given, "--model and --dictionary")? {
        concepts::run(args, lines)?;
    }
    Ok(())
}

fn name(what: What) -> String {
    what.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// One result.
#[derive(Clone, Debug, Serialize)]
struct Line {
    bench: &'static str,
    case: String,
    /// The model, or what stands in its place.
    model: String,
    value: f64,
    unit: &'static str,
    baseline: f64,
    ratio: f64,
    /// Pairs, or texts.
    n: usize,
    /// Where the ratio (of shares and scores the value) lies with a probability of 95 %: with other prompts, or of pairs their
    /// median.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<[f64; 2]>,
}

/// Results: JSON at once, a table at the end.
struct Lines<'o> {
    out: &'o Out,
    n: usize,
    held: Vec<Line>,
    /// What grows with what.
    panels: Vec<Panel>,
}

impl Lines<'_> {
    fn push(&mut self, line: Line) -> Result<()> {
        self.n += 1;
        if self.out.json() {
            return self.out.object(&line);
        }
        self.held.push(line);
        Ok(())
    }

    /// Adds a point to a curve of a diagram.
    fn grow(&mut self, title: &str, x: &'static str, curve: &str, point: (f64, f64)) {
        if !self.panels.iter().any(|panel| panel.title == title) {
            self.panels.push(Panel { title: title.to_owned(), x, powers: true, curves: Vec::new() });
        }
        for panel in self.panels.iter_mut().filter(|panel| panel.title == title) {
            match panel.curves.iter_mut().find(|(name, _)| name == curve) {
                Some((_, points)) => points.push(point),
                None => panel.curves.push((curve.to_owned(), vec![point])),
            }
        }
    }

    fn finish(self, plot: Option<&Path>) -> Result<()> {
        // A plot that cannot be drawn costs no table.
        let drawn = plot.map_or(Ok(()), |path| crate::plot::draw(path, self.panels));
        if self.held.is_empty() {
            return drawn;
        }
        self.out.table(
            &["bench", "case", "model", "value", "baseline", "unit", "ratio", "95 %", "n"],
            self.held.into_iter().map(|l| {
                let number = |v: f64| if v.abs() >= 1000.0 { format!("{v:.0}") } else { format!("{v:.3}") };
                let (value, baseline, ratio) = (number(l.value), number(l.baseline), format!("{:.4}", l.ratio));
                let interval = l.interval.map_or_else(String::new, |[low, high]| format!("{low:.4} to {high:.4}"));
                vec![l.bench.into(), l.case, l.model, value, baseline, l.unit.into(), ratio, interval, l.n.to_string()]
            }),
        )?;
        drawn
    }
}

/// Pairs of measurements.
#[derive(Default)]
struct Pairs {
    values: Vec<f64>,
    baselines: Vec<f64>,
}

impl Pairs {
    /// Measures `n` pairs after one that does not count; which of the two comes first alternates.
    fn measure(
        n: usize,
        out: &Out,
        what: &str,
        value: &mut dyn FnMut() -> Result<f64>,
        baseline: &mut dyn FnMut() -> Result<f64>,
    ) -> Result<Self> {
        let mut bar = out.bar(what, "pairs");
        let mut pairs = Self::default();
        for i in 0..=n {
            let step = tiller::progress::Step { done: i as u64, total: n as u64, note: "" };
            if !bar.step(step) {
                return Err(Error::cancelled());
            }
            let (v, b) = if i % 2 == 0 {
                let v = value()?;
                (v, baseline()?)
            } else {
                let b = baseline()?;
                (value()?, b)
            };
            if i > 0 {
                pairs.values.push(v);
                pairs.baselines.push(b);
            }
        }
        Ok(pairs)
    }

    /// The line of these pairs.
    fn line(self, bench: &'static str, case: impl Into<String>, model: &str, unit: &'static str) -> Line {
        let ratios: Vec<f64> = self.values.iter().zip(&self.baselines).map(|(v, b)| v / b).collect();
        Line {
            bench,
            case: case.into(),
            model: model.to_owned(),
            value: median(&self.values),
            unit,
            baseline: median(&self.baselines),
            ratio: median(&ratios),
            n: ratios.len(),
            interval: interval(&ratios),
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

/// The order statistics between which the median lies with a probability of 95 %: n/2 ± 0.98 √n.
fn interval(values: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let reach = (0.98 * (sorted.len() as f64).sqrt()).ceil() as usize;
    let (low, high) = ((sorted.len() / 2).checked_sub(reach)?, sorted.len().div_ceil(2) + reach);
    Some([*sorted.get(low)?, *sorted.get(high.checked_sub(1)?)?])
}

/// Seconds that `work` takes.
fn seconds<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let made = work()?;
    Ok((start.elapsed().as_secs_f64(), made))
}

/// A model's file name, without the ending.
fn model_name(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}
