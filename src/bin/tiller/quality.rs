//! `tiller eval quality`: how good a dictionary is, on the model that it is for.

use clap::Args as Clap;
use std::path::PathBuf;
use tiller::Result;
use tiller::eval::quality::absorption::Absorption;
use tiller::eval::quality::labelled::{KS, Reading};
use tiller::eval::quality::{Report, Request, report_quality};

use crate::open::{Machine, notes};
use crate::output::Out;

/// How good a dictionary is: sparsity, reconstruction, what the model notices, density, directions, probing, absorption
#[derive(Clap)]
pub(crate) struct Args {
    /// The dictionary
    dictionary: PathBuf,
    /// The model
    model: PathBuf,
    /// Text that the dictionary was not trained on
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Tokens on which codes are measured, at most
    #[arg(long, default_value_t = Request::default().max_tokens, value_name = "N")]
    max_tokens: usize,
    /// Tokens on which reconstructions take the place of the residual stream, at most
    #[arg(long, default_value_t = Request::default().score_tokens, value_name = "N")]
    score_tokens: usize,
    /// Longest window, in tokens
    #[arg(long, default_value_t = Request::default().window, value_name = "N")]
    window: usize,
    /// Texts with labels, for k-sparse probing: JSONL with "text" and a label
    #[arg(long, value_name = "FILE.jsonl")]
    labelled: Option<PathBuf>,
    /// The key of the label
    #[arg(long, default_value = "label", value_name = "KEY", requires = "labelled")]
    label: String,
    /// Tokens of a labelled text, at most
    #[arg(long, default_value_t = Request::default().labelled_tokens, value_name = "N")]
    labelled_tokens: usize,
    /// Words on which absorption is measured; 0: it is not
    #[arg(long, default_value_t = Request::default().words, value_name = "N")]
    words: usize,
    /// Deals texts and words
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    machine: Machine,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let request = Request {
        max_tokens: args.max_tokens,
        score_tokens: args.score_tokens,
        window: args.window,
        labelled: args.labelled.clone(),
        label: args.label.clone(),
        labelled_tokens: args.labelled_tokens,
        words: args.words,
        seed: args.seed,
        ..Request::new(&args.dictionary, args.text.clone())
    };
    request.check()?;
    let mut engine = args.machine.engine(&args.model, args.window.max(512), 1)?;
    notes(&engine, out);
    let mut bar = out.bar("quality", "tokens");
    let report = report_quality(&mut engine, &request, &mut |step| bar.step(step))?;
    drop(bar);
    report.notes.iter().for_each(|note| out.note(format!("warning: {note}")));
    if out.json() { out.object(&report) } else { tell(&report, out) }
}

fn percent(v: f64) -> String {
    format!("{:.1} %", 100.0 * v)
}

fn tell(report: &Report, out: &Out) -> Result<()> {
    let (model, scores) = (&report.recovered, &report.scores);
    out.facts(&[
        ("dictionary", format!("{}, {} features", report.dictionary, report.n_features)),
        ("rows", format!("{}; {} attention sinks left out", report.rows, report.sinks)),
        ("L0, L1", format!("{:.2}, {:.2}", report.l0, report.l1)),
        ("FVU", format!("{:.4} (explained variance {:.4})", report.fvu, report.explained_variance)),
        ("mean squared error", format!("{:.5}", report.mse)),
        ("cosine", format!("{:.4}", report.cosine)),
        ("length", format!("{:.4} of the row's, bias {:.4}", report.l2_ratio, report.reconstruction_bias)),
    ])?;
    out.line(format!("\nIn place of the residual stream, on {} tokens", model.n_tokens))?;
    let row = |name: &str, ce: f64, kl: f64, shares: [Option<f64>; 2]| {
        let share = |v: Option<f64>| v.map_or(String::new(), percent);
        vec![name.into(), format!("{ce:.4}"), format!("{kl:.4}"), share(shares[0]), share(shares[1])]
    };
    out.table(
        &["", "cross-entropy", "KL", "CE recovered", "KL recovered"],
        [
            row("the model itself", model.cross_entropy, 0.0, [None; 2]),
            row("reconstruction", model.reconstructed.cross_entropy, model.reconstructed.kl, [None; 2]),
            row("zero", model.zero.cross_entropy, model.zero.kl, [Some(scores.ce_zero), Some(scores.kl_zero)]),
            row("the mean row", model.mean.cross_entropy, model.mean.kl, [Some(scores.ce_mean), Some(scores.kl_mean)]),
        ],
    )?;
    let (density, geometry) = (&report.density, &report.geometry);
    out.line("")?;
    out.facts(&[
        ("dead", percent(1.0 - density.alive)),
        (
            "dense",
            format!(
                "{} fire on over 1 % of rows, {} on over 10 %",
                percent(density.over_1_percent),
                percent(density.over_10_percent)
            ),
        ),
        (
            "of all firing",
            format!(
                "{} and {} are theirs",
                percent(density.firing_over_1_percent),
                percent(density.firing_over_10_percent)
            ),
        ),
        (
            "nearest decoder row",
            format!(
                "cosine {:.3} on average, median {:.3}, 95th percentile {:.3}; {} over 0.9",
                geometry.decoder_mean,
                geometry.decoder_median,
                geometry.decoder_p95,
                percent(geometry.twins)
            ),
        ),
        ("nearest encoder row", format!("cosine {:.3} on average", geometry.encoder_mean)),
        ("own encoder and decoder", format!("cosine {:.3} on average", geometry.own)),
    ])?;
    out.line("\nFeatures by log₁₀ of density")?;
    let most = density.histogram.iter().map(|bin| bin.features).max().unwrap_or(0).max(1);
    out.table(
        &["from", "features", ""],
        density.histogram.iter().map(|bin| {
            vec![format!("{:+.1}", bin.from), bin.features.to_string(), "█".repeat(40 * bin.features / most)]
        }),
    )?;
    probing(&report.labels, out)?;
    report.absorption.as_ref().map_or(Ok(()), |found| absorbed(found, out))?;
    let seconds: Vec<String> = report.seconds.iter().map(|(part, s)| format!("{part} {s:.0} s")).collect();
    out.line(format!("\n{}", seconds.join(", ")))
}

fn probing(labels: &[Reading], out: &Out) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    out.line("\nk-sparse probing: test accuracy of the best k features (of the best k coordinates)")?;
    let names: Vec<String> = KS.iter().map(|k| format!("k = {k}")).collect();
    let columns: Vec<&str> =
        ["label", "texts"].into_iter().chain(names.iter().map(String::as_str)).chain(["all coordinates"]).collect();
    let row = |label: String, texts: String, features: &[f64], coordinates: &[f64], rows: f64| {
        let pairs = features.iter().zip(coordinates).map(|(f, c)| format!("{f:.3} ({c:.3})"));
        [label, texts].into_iter().chain(pairs).chain([format!("{rows:.3}")]).collect::<Vec<_>>()
    };
    let mean = |of: &dyn Fn(&Reading) -> f64| labels.iter().map(of).sum::<f64>() / labels.len() as f64;
    let means = |of: fn(&Reading) -> &Vec<f64>| (0..KS.len()).map(|k| mean(&|r| of(r)[k])).collect::<Vec<_>>();
    let last =
        row("mean".into(), String::new(), &means(|r| &r.features), &means(|r| &r.coordinates), mean(&|r| r.rows));
    let rows = labels
        .iter()
        .map(|r| row(r.label.clone(), format!("{} + {}", r.texts[0], r.texts[1]), &r.features, &r.coordinates, r.rows));
    out.table(&columns, rows.chain([last]))
}

fn absorbed(found: &Absorption, out: &Out) -> Result<()> {
    let n = found.letters.len();
    out.line(format!(
        "\nAbsorption of first letters, on {} words: {} of words fully, fraction {:.3}, over {n} letters",
        found.words,
        percent(found.full),
        found.fraction
    ))?;
    out.table(
        &["letter", "words", "fully", "fraction", "F1 of features", "F1 of rows", "features"],
        found.letters.iter().map(|l| {
            let main: Vec<String> = l.main.iter().map(u32::to_string).collect();
            let numbers = [l.fraction, l.f1, l.probe_f1].map(|v| format!("{v:.2}"));
            [vec![l.letter.clone(), l.words.to_string(), percent(l.full)], numbers.to_vec(), vec![main.join(" ")]]
                .concat()
        }),
    )
}
