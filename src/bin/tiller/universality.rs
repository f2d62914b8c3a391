//! `tiller eval universality`: are the features of two dictionaries, or models, the same?

use clap::{Args as Clap, ValueEnum};
use std::path::PathBuf;
use tiller::Result;
use tiller::eval::universality::comparison::Similarity;
use tiller::eval::universality::{Counterpart, OneToOne, Report, Request, labels, universality};
use tiller::explain::Explanations;

use crate::open::Machine;
use crate::output::Out;
use crate::paths::check_outputs;

/// Whether the features of two dictionaries are the same: two models, layers, seeds, widths or quantizations
#[derive(Clap)]
pub(crate) struct Args {
    /// The model of A
    model_a: PathBuf,
    /// The dictionary of A
    dictionary_a: PathBuf,
    /// The model of B; it may be that of A
    model_b: PathBuf,
    /// The dictionary of B
    dictionary_b: PathBuf,
    /// Text that both read
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// The layers whose output A and B read, if not the hook points that the dictionaries name
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    layers: Vec<usize>,
    /// Pairs of tokens to read, at most
    #[arg(long, default_value_t = Request::default().max_tokens, value_name = "N")]
    max_tokens: usize,
    /// Tokens on which a feature has to fire to be compared
    #[arg(long, default_value_t = Request::default().least, value_name = "N")]
    least: u64,
    /// Of several features of B with one best match in A: keep the best correlated, the first, or all
    #[arg(long, value_enum, default_value_t = Keep::Best)]
    one_to_one: Keep,
    /// Pairs correlate by more
    #[arg(long, default_value_t = Request::default().min_r, allow_negative_numbers = true, value_name = "R")]
    min_r: f64,
    /// Pairs whose decoder rows are compared, at most; of more, so many are drawn
    #[arg(long, default_value_t = Request::default().max_pairs, value_name = "N")]
    max_pairs: usize,
    /// Runs with shuffled pairs
    #[arg(long, default_value_t = Request::default().runs, value_name = "N")]
    runs: usize,
    /// Runs with features drawn at random; a tenth of them for svcca_99
    #[arg(long, default_value_t = Request::default().subsets, value_name = "N")]
    subsets: usize,
    /// Semantic categories: a name, a tab and words to a line; eight are built in
    #[arg(long, value_name = "FILE.tsv")]
    categories: Option<PathBuf>,
    /// MiB that the correlations may take: 8 bytes for every pair of features
    #[arg(long, default_value_t = Request::default().memory, value_name = "MIB")]
    memory: usize,
    /// Draws pairs, shuffles and subsets
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write which features of A have counterparts, as labels, to a new file; `tiller explain --labels` takes it
    #[arg(long, value_name = "FILE.jsonl")]
    labels: Option<PathBuf>,
    /// Write these explanations of A with the labels instead, for `tiller find --label`
    #[arg(long, value_name = "FILE.jsonl", requires = "labels")]
    explanations: Option<PathBuf>,
    /// Pairs to show
    #[arg(short, long = "number", default_value_t = 20, value_name = "N")]
    n: usize,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keep {
    Best,
    First,
    Off,
}

impl Args {
    fn request(&self) -> Request {
        Request {
            layer_a: self.layers.first().copied(),
            layer_b: self.layers.get(1).copied(),
            max_tokens: self.max_tokens,
            least: self.least,
            one_to_one: match self.one_to_one {
                Keep::Best => OneToOne::Best,
                Keep::First => OneToOne::First,
                Keep::Off => OneToOne::Off,
            },
            min_r: self.min_r,
            max_pairs: self.max_pairs,
            runs: self.runs,
            subsets: self.subsets,
            categories: self.categories.clone(),
            memory: self.memory,
            seed: self.seed,
            threads: self.machine.threads,
            gpu_layers: self.machine.gpu_layers,
            ..Request::new([&self.model_a, &self.dictionary_a], [&self.model_b, &self.dictionary_b], self.text.clone())
        }
    }
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let files = [&args.model_a, &args.dictionary_a, &args.model_b, &args.dictionary_b];
    let inputs = files.into_iter().chain(&args.text).chain(&args.categories).chain(&args.explanations);
    check_outputs(&args.labels, inputs)?;
    // Found out before the work, not after it.
    args.labels.as_deref().map_or(Ok(()), labels::check_new)?;
    let explanations = args.explanations.as_deref().map(Explanations::load).transpose()?;
    let mut bar = out.bar("universality", "");
    let report = universality(&args.request(), &mut |step| bar.step(step))?;
    drop(bar);
    report.notes.iter().for_each(|note| out.note(format!("warning: {note}")));
    if let Some(path) = &args.labels {
        labels::save(&report, explanations.as_ref(), path)?;
        out.note(format!("{}: {} labels", path.display(), labels::labels(&report).len()));
    }
    if out.json() { out.object(&report) } else { tell(&report, args.n, out) }
}

fn tell(report: &Report, n: usize, out: &Out) -> Result<()> {
    out.table(
        &["", "model", "dictionary", "reads", "features", "that fire", "L0"],
        [("A", &report.a), ("B", &report.b)].map(|(name, side)| {
            vec![
                name.into(),
                side.model.clone(),
                side.dictionary.clone(),
                side.point.clone(),
                side.n_features.to_string(),
                side.alive.to_string(),
                format!("{:.1}", side.l0),
            ]
        }),
    )?;
    let steps = report.steps;
    let unit = if report.same_tokenizer { "tokens" } else { "ends of words" };
    let share = |n: usize| format!("{n} ({:.1} % of B's that fire)", 100.0 * n as f64 / steps.correlated.max(1) as f64);
    out.facts(&[
        ("text", format!("{} {unit}; {} attention sinks left out", report.n_tokens, report.sinks)),
        ("best correlation", format!("{:.3} on average over B's features", report.mean_best_r)),
        ("both list concepts", share(steps.concept)),
        ("lists share a token", share(steps.shared)),
        ("one to one", share(steps.one_to_one)),
        ("r high enough", share(steps.above)),
        ("correlation of pairs", format!("{:.3} on average", report.mean_r)),
    ])?;
    if report.similarity.is_empty() {
        out.line("fewer than three pairs: their directions are not compared")?;
    } else {
        out.line(format!("\nDecoder rows of {} pairs", report.compared))?;
        out.table(&["measure", "value", "shuffled", "p", "subsets", "p"], report.similarity.iter().map(similarity))?;
    }
    subspaces(report, out)?;
    if n > 0 && !report.pairs.is_empty() {
        out.line("\nPairs, the best correlated first")?;
        out.table(&["A", "B", "r", "strongest in A", "strongest in B"], report.pairs.iter().take(n).map(pair))?;
    }
    Ok(())
}

fn subspaces(report: &Report, out: &Out) -> Result<()> {
    if report.subspaces.iter().all(|space| space.similarity.is_empty()) {
        return Ok(());
    }
    out.line("\nSemantic subspaces: value (p shuffled, p among subsets of all pairs)")?;
    let columns = ["category", "pairs", "svcca_99", "svcca_top1", "rsa"];
    out.table(
        &columns,
        report.subspaces.iter().map(|space| {
            let mut row = vec![space.name.clone(), space.pairs.to_string()];
            let told = |s: &Similarity| format!("{:.3} ({:.3}, {:.3})", s.value, s.shuffled.p, s.subsets.p);
            row.extend(space.similarity.iter().map(told));
            row.resize(columns.len(), "–".into());
            row
        }),
    )
}

fn similarity(s: &Similarity) -> Vec<String> {
    let null = |mean: f64, sd: f64| format!("{mean:.4} ± {sd:.4}");
    vec![
        s.measure.name().into(),
        format!("{:.4}", s.value),
        null(s.shuffled.mean, s.shuffled.sd),
        format!("{:.4}", s.shuffled.p),
        null(s.subsets.mean, s.subsets.sd),
        format!("{:.4}", s.subsets.p),
    ]
}

fn pair(p: &Counterpart) -> Vec<String> {
    let (a, b) = (p.a.to_string(), p.b.to_string());
    vec![a, b, format!("{:.3}", p.r), p.tokens_a.join(" "), p.tokens_b.join(" ")]
}
