//! `tiller eval explained`: six ways to explain features, side by side.

use clap::Args as Clap;
use std::path::PathBuf;
use tiller::Result;
use tiller::eval::explained::{Report, Request, explained};
use tiller::eval::trial::PROMPTS;

use crate::open::{Machine, notes};
use crate::output::Out;
use crate::paths::check_outputs;

/// Which way to explain features is best: six methods side by side, by their words, on held-out text, and by effect
#[derive(Clap)]
pub(crate) struct Args {
    /// The dictionary
    dictionary: PathBuf,
    /// The model
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Rows of its layer on which features are explained, as `tiller harvest` writes them
    #[arg(long, num_args = 1.., required = true, value_name = "DIR")]
    rows: Vec<PathBuf>,
    /// Rows of other text, on which words are tested
    #[arg(long, num_args = 1.., required = true, value_name = "DIR")]
    held_out: Vec<PathBuf>,
    /// Rows of the last layer for the same text as --rows, for the method tuned
    #[arg(long, value_name = "DIR")]
    final_rows: Option<PathBuf>,
    /// Features to compare
    #[arg(long, default_value_t = Request::default().features, value_name = "N")]
    features: usize,
    /// Words of a feature that count
    #[arg(long, default_value_t = Request::default().shown, value_name = "N")]
    shown: usize,
    /// Words of the vocabulary, made from --rows
    #[arg(long, default_value_t = Request::default().vocabulary, value_name = "N")]
    vocab_size: usize,
    /// Spans of a feature
    #[arg(long, default_value_t = Request::default().spans, value_name = "N")]
    spans: usize,
    /// Draws the features
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the features for outside judges: JSONL with spans and words; labels come back by `tiller explain --labels`
    #[arg(long, value_name = "FILE.jsonl")]
    judges: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let inputs = [&args.dictionary, &args.model].into_iter().chain(&args.rows).chain(&args.held_out);
    check_outputs(&args.judges, inputs.chain(&args.final_rows))?;
    let request = Request {
        dictionary: args.dictionary.clone(),
        rows: args.rows.clone(),
        held_out: args.held_out.clone(),
        final_rows: args.final_rows.clone(),
        features: args.features,
        shown: args.shown,
        vocabulary: args.vocab_size,
        spans: args.spans,
        seed: args.seed,
        ..Request::default()
    };
    request.check()?;
    let mut engine = args.machine.engine(&args.model, 512, PROMPTS.len())?;
    notes(&engine, out);
    let mut bar = out.bar("explained", "");
    let report = explained(&mut engine, &request, &mut |step| bar.step(step))?;
    drop(bar);
    if let Some(path) = &args.judges {
        report.save_for_judges(path)?;
        out.note(format!("{}: {} features", path.display(), report.sampled.len()));
    }
    if out.json() { out.object(&report) } else { tell(&report, out) }
}

fn tell(report: &Report, out: &Out) -> Result<()> {
    out.facts(&[
        ("dictionary", format!("{}, layer {}", report.dictionary, report.layer.map_or("?".into(), |l| l.to_string()))),
        ("text", format!("{} rows; {} held-out windows", report.rows, report.windows)),
        ("features", report.sampled.len().to_string()),
    ])?;
    out.table(
        &["method", "explained", "diversity", "lexical", "dominate", "total", "AUC", "output", "lift"],
        report.methods.iter().map(|m| {
            let shares = [m.diversity, m.lexical, m.dominate, m.total].map(|v| format!("{v:.3}"));
            let ([a, b], [c, d]) = (m.auc_interval, m.lift_interval);
            let last = [
                format!("{:.3} ({a:.3} to {b:.3})", m.auc),
                format!("{:.4}", m.output),
                format!("{:+.3} ({c:+.3} to {d:+.3})", m.lift),
            ];
            [vec![m.name.clone(), m.explained.to_string()], shares.to_vec(), last.to_vec()].concat()
        }),
    )
}
