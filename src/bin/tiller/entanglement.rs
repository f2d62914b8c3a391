//! `tiller eval entanglement`: does a feature say one concept, and does steering by it leave the others alone?

use clap::{Args as Clap, ValueEnum};
use std::path::PathBuf;
use tiller::eval::entanglement::{Fitted, Found, Pooling, Report, Request, Run, Summary, entanglement};
use tiller::eval::trial;
use tiller::{Error, Result};

use crate::open::Machine;
use crate::output::{Out, when_cancelled};
use crate::paths::check_outputs;
use crate::plot::{Panel, draw};

/// Tokens that the context holds: sentences of a line, many side by side.
const CONTEXT: usize = 1024;

/// Whether features say one concept each, and steering by one leaves the others alone
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// Dictionaries, learned features and coders to measure, of one layer
    #[arg(long, num_args = 1.., value_name = "FILE")]
    dictionary: Vec<PathBuf>,
    /// Featurizers to fit on the sentences, for comparison; "none" fits none
    #[arg(long, value_delimiter = ',', value_name = "NAMES", default_values_t = Fit::ALL)]
    fit: Vec<Fit>,
    /// Correlations of the concepts science and positive in the built-in sentences
    #[arg(long, value_delimiter = ',', value_name = "R,…", default_value = "0")]
    rho: Vec<f64>,
    /// Own sentences in place of the built-in ones: {"sentence": …, "concept": true, "attribute": "value"} a line
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["rho", "sentences"])]
    data: Option<PathBuf>,
    /// Which of their yes-or-no concepts are values of one attribute
    #[arg(long, num_args = 1.., value_name = "NAME=CONCEPT,…", requires = "data")]
    attribute: Vec<String>,
    /// Built-in sentences for each correlation
    #[arg(long, default_value_t = Request::default().sentences, value_name = "N")]
    sentences: usize,
    /// The block whose output has the features, from 0 [default: the first file's, else the middle one]
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    /// The later block whose output probes read while steering [default: halfway from there to the last]
    #[arg(long, value_name = "M")]
    read_layer: Option<usize>,
    /// What stands for a sentence
    #[arg(long, value_enum, default_value = "last")]
    pooling: Pool,
    /// Features of what is fitted
    #[arg(long, default_value_t = Request::default().n_features, value_name = "F")]
    features: usize,
    /// Active features a row of it
    #[arg(short, default_value_t = Request::default().k, value_name = "K")]
    k: usize,
    /// Steps of its training
    #[arg(long, default_value_t = Request::default().steps, value_name = "N")]
    steps: u64,
    /// Sentences to steer; 0: none
    #[arg(long, default_value_t = Request::default().steer, value_name = "N")]
    steer: usize,
    /// What a steered code becomes, in multiples of its largest value
    #[arg(long, default_value_t = Request::default().strength, value_name = "X")]
    strength: f32,
    /// Pairs of concepts to steer together
    #[arg(long, default_value_t = Request::default().pairs, value_name = "N")]
    pairs: usize,
    /// Random directions to compare with
    #[arg(long, default_value_t = Request::default().random, value_name = "N")]
    random: usize,
    /// Tokens to write under each edit, behind ten neutral prompts; 0: none
    #[arg(long, default_value_t = 0, value_name = "N")]
    generate: usize,
    /// Makes the sentences, deals them out, trains
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draw MCC and selectivity over the correlations
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
enum Fit {
    TopK,
    BatchTopK,
    Relu,
    Ssae,
    Conca,
    Neurons,
    #[value(name = "diff_mean")]
    DiffMean,
    Probe,
    None,
}

impl Fit {
    /// All that can be fitted.
    const ALL: [Self; 8] =
        [Self::TopK, Self::BatchTopK, Self::Relu, Self::Ssae, Self::Conca, Self::Neurons, Self::DiffMean, Self::Probe];

    fn fitted(self) -> Option<Fitted> {
        Self::ALL.iter().position(|one| *one == self).and_then(|at| Fitted::ALL.get(at)).copied()
    }
}

impl std::fmt::Display for Fit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.fitted().map_or("none", Fitted::name))
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Pool {
    /// The row of its last token
    Last,
    /// The mean of all rows but the first
    Mean,
}

impl Args {
    fn request(&self) -> Result<Request> {
        let group = |text: &String| {
            let (name, members) = text.split_once('=').ok_or_else(|| {
                Error::argument(format!("--attribute: expected NAME=CONCEPT,CONCEPT, found {text:?}"))
            })?;
            Ok((name.to_owned(), members.split(',').map(str::to_owned).collect()))
        };
        Ok(Request {
            data: self.data.clone(),
            attributes: self.attribute.iter().map(group).collect::<Result<_>>()?,
            rho: self.rho.clone(),
            sentences: self.sentences,
            layer: self.layer,
            read_layer: self.read_layer,
            pooling: match self.pooling {
                Pool::Last => Pooling::Last,
                Pool::Mean => Pooling::Mean,
            },
            files: self.dictionary.clone(),
            fit: self.fit.iter().filter_map(|fit| fit.fitted()).collect(),
            n_features: self.features,
            k: self.k,
            steps: self.steps,
            steer: self.steer,
            strength: self.strength,
            pairs: self.pairs,
            random: self.random,
            generate: self.generate,
            seed: self.seed,
            threads: self.machine.threads,
            ..Request::default()
        })
    }
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    check_outputs(&args.plot, [&args.model].into_iter().chain(&args.dictionary).chain(&args.data))?;
    if args.plot.is_some() && args.rho.len() < 2 {
        return Err(Error::argument("--plot: curves over correlations need two of them: give --rho 0,0.5,0.9"));
    }
    let request = args.request()?;
    request.check()?;
    let context = CONTEXT.max(trial::PROMPTS.len() * (args.generate + 32));
    let mut engine = args.machine.engine(&args.model, context, trial::SEQUENCES)?;
    crate::open::notes(&engine, out);
    // One at a time: what is done is shown, whatever happens to the next.
    let mut done: Vec<Report> = Vec::new();
    for &rho in &args.rho {
        let mut bar = out.bar(&format!("correlation {rho}"), "sentences");
        let request = Request { rho: vec![rho], ..request.clone() };
        let report = entanglement(&mut engine, &request, &mut |step| bar.step(step));
        drop(bar);
        let report = report.map_err(when_cancelled("correlations that were done before are above"))?;
        show(&report, done.is_empty(), out)?;
        done.push(report);
    }
    match &args.plot {
        Some(path) => draw(path, panels(done.iter().flat_map(|report| &report.runs))),
        None => Ok(()),
    }
}

/// One correlation; what holds for all of them goes with the first.
fn show(report: &Report, first: bool, out: &Out) -> Result<()> {
    if out.json() {
        return out.object(report);
    }
    if first {
        head(report, out)?;
    }
    for run in &report.runs {
        let [train, test] = run.sentences;
        let of = match (run.rho, run.phi) {
            (Some(rho), Some(phi)) => format!("\ncorrelation {rho} (found {phi:.4}), "),
            _ => "\n".to_owned(),
        };
        out.line(format!("{of}{train} sentences to fit on, {test} to measure, {} concepts", run.concepts.len()))?;
        reading(run, out)?;
        probing(run, out)?;
        steering(run, out)?;
        written(run, out)?;
        out.line(format!("{:.1} minutes", run.seconds / 60.0))?;
    }
    Ok(())
}

fn head(report: &Report, out: &Out) -> Result<()> {
    for found in report.runs.iter().flat_map(|run| &run.featurizers) {
        found.notes.iter().for_each(|note| out.note(format!("note: {}: {note}", found.name)));
    }
    out.line(format!(
        "{}: features of layer {}, probes at layer {}, a sentence is {}",
        report.model,
        report.layer,
        report.read_layer,
        if report.pooling == "last" { "its last row" } else { "the mean of its rows" },
    ))
}

fn number(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "∞".to_owned() }
}

fn span(interval: Option<[f64; 2]>) -> String {
    interval.map_or_else(String::new, |[low, high]| format!("{low:.3}–{high:.3}"))
}

/// Does a feature say a concept?
fn reading(run: &Run, out: &Out) -> Result<()> {
    let row = |found: &Found| {
        let Found { name, n_features, reading: r, .. } = found;
        vec![
            name.clone(),
            n_features.to_string(),
            number(r.l0, 1),
            number(r.mcc.micro, 3),
            span(r.interval),
            number(r.mcc.by_attribute, 3),
            number(r.by_size.micro, 3),
            number(r.held_out.micro, 3),
            r.pairs.map_or_else(String::new, |pairs| number(pairs.micro, 3)),
            number(r.one_to_many.concepts_per_feature, 2),
        ]
    };
    let columns =
        ["one feature", "features", "L0", "MCC", "90 %", "macro", "by size", "held out", "pairs", "concepts each"];
    out.table(&columns, run.featurizers.iter().map(row))
}

/// Do few features?
fn probing(run: &Run, out: &Out) -> Result<()> {
    let row = |found: &Found| {
        let r = &found.reading;
        let dci = [r.dci.disentanglement, r.dci.completeness, r.dci.informativeness];
        [found.name.clone()].into_iter().chain(r.sparse.iter().chain(&dci).map(|v| number(*v, 3))).collect()
    };
    let ks = run.featurizers.first().map_or(&[][..], |found| &found.reading.ks);
    let named: Vec<String> = ks.iter().map(|k| format!("k = {k}")).collect();
    let dci = ["disentangled", "complete", "informative"];
    let columns: Vec<&str> = ["few features"].into_iter().chain(named.iter().map(String::as_str)).chain(dci).collect();
    out.table(&columns, run.featurizers.iter().map(row))
}

/// Does steering by it move that concept alone?
fn steering(run: &Run, out: &Out) -> Result<()> {
    let row = |found: &Found| {
        let s = found.steering.as_ref()?;
        let by_chance = |of: fn(&Summary) -> f64| s.random.as_ref().map_or_else(String::new, |r| number(of(r), 3));
        Some(vec![
            found.name.clone(),
            number(s.push, 2),
            number(s.summary.own, 2),
            format!("{:.0} %", 100.0 * s.summary.towards),
            number(s.summary.selectivity, 3),
            span(s.interval),
            by_chance(|r| r.selectivity),
            number(s.summary.leak, 2),
            format!("{:.0} %", 100.0 * s.summary.independent),
            s.additivity.as_ref().map_or_else(String::new, |a| number(a.interaction, 3)),
            number(s.collisions, 2),
            number(s.overlap, 3),
        ])
    };
    let rows: Vec<Vec<String>> = run.featurizers.iter().filter_map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let columns = [
        "steering",
        "push",
        "own",
        "towards",
        "selectivity",
        "90 %",
        "chance",
        "leak",
        "free",
        "interaction",
        "shared",
        "overlap",
    ];
    out.table(&columns, rows)
}

/// And what is written meanwhile?
fn written(run: &Run, out: &Out) -> Result<()> {
    let row = |found: &Found| {
        let w = found.steering.as_ref()?.written.as_ref()?;
        Some(vec![
            found.name.clone(),
            number(w.summary.own, 2),
            number(w.summary.selectivity, 3),
            number(w.summary.leak, 2),
            number(w.perplexity, 2),
            format!("{:.0} %", 100.0 * w.broken),
            format!("{:.0} %", 100.0 * w.unsteered_broken),
        ])
    };
    let rows: Vec<Vec<String>> = run.featurizers.iter().filter_map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    out.table(&["writing", "own", "selectivity", "leak", "perplexity ratio", "broken", "unsteered"], rows)
}

/// Figures over the correlations, one curve a featurizer.
fn panels<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<Panel> {
    let runs: Vec<&Run> = runs.collect();
    let names: Vec<&String> = runs.first().iter().flat_map(|run| &run.featurizers).map(|f| &f.name).collect();
    let panel = |title: &str, of: &dyn Fn(&Found) -> Option<f64>| {
        let point = |run: &Run, name: &str| {
            let found = run.featurizers.iter().find(|f| f.name == name)?;
            Some((run.rho?, of(found)?))
        };
        let curve = |name: &&String| ((*name).clone(), runs.iter().filter_map(|run| point(run, name)).collect());
        Panel {
            title: title.to_owned(),
            x: "correlation of science and positive",
            powers: false,
            curves: names.iter().map(curve).collect(),
        }
    };
    vec![
        panel("MCC", &|f| Some(f.reading.mcc.micro)),
        panel("selectivity of steering", &|f| f.steering.as_ref().map(|s| s.summary.selectivity)),
    ]
}
