//! `tiller learn`: an instruction, distilled into features of the model's layers.

use clap::{Args as Clap, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};
use tiller::choose::learn::{self, Example, Outcome, Place, Request};
use tiller::engine::{Document, documents};
use tiller::eval::trial;
use tiller::file::{gguf::GgmlType, read_text};
use tiller::{Error, Result};

use crate::open::{Context, Machine, learner};
use crate::output::Out;
use crate::paths::{check_outputs, shown};

/// Largest file of messages that is read.
const MAX_BYTES: u64 = 64 << 20;
/// Answers that are shown.
const SHOWN: usize = 2;

/// Learn an instruction: features that make the model do it without being told
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// What the model is told: "Talk about the sea."
    instruction: String,
    /// Where to write the features
    #[arg(long, value_name = "FILE.gguf")]
    out: PathBuf,
    /// Also write their constant form as a control vector, which any llama.cpp takes
    #[arg(long, value_name = "FILE.gguf", conflicts_with = "unless")]
    constant: Option<PathBuf>,
    /// Examples in place of the instruction, which then only names them: {"message": …, "do": …, "dont": …} a line, where
    /// "dont" may be left out
    #[arg(long, value_name = "FILE.jsonl")]
    pairs: Option<PathBuf>,
    /// What users say, in place of tiller's own messages: a message a line, or documents (.jsonl), of which the last message of
    /// the user counts
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
    /// Messages for which the instruction is not meant: the features stay silent on them
    #[arg(long, value_name = "FILE")]
    unless: Option<PathBuf>,
    /// Where the instruction stands while the model is told
    #[arg(long, value_enum, default_value = "auto")]
    place: Where,
    /// Also find how strongly the features can be turned against the instruction
    #[arg(long)]
    avoid: bool,
    /// The time that it may take; 0 sets no limit
    #[arg(long, default_value_t = 0.0, value_name = "N")]
    minutes: f64,
    /// Answers to learn from, at most
    #[arg(long, default_value_t = Request::default().answers, value_name = "N")]
    answers: usize,
    /// Tokens of each, at most
    #[arg(long, default_value_t = Request::default().max_tokens, value_name = "N")]
    max_tokens: usize,
    /// Learn with a copy of the model requantized to this type, made once and kept. By default that is F16, or
    /// Q8_0 with AMX, where the model is small and its own type has no fast kernel, and otherwise the model itself
    #[arg(long, value_name = "TYPE")]
    run_as: Option<String>,
    /// Deals the messages out
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clone, Copy, ValueEnum)]
enum Where {
    /// Of system and appended the one that changes the answers more; front for models without a chat template
    Auto,
    /// A system message
    System,
    /// Behind the user's message
    Appended,
    /// A line in front of the text
    Front,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let inputs = [&args.model].into_iter().chain(&args.pairs).chain(&args.messages).chain(&args.unless);
    check_outputs([&args.out].into_iter().chain(&args.constant), inputs)?;
    let read = |path: &Option<PathBuf>| path.as_deref().map_or_else(|| Ok(Vec::new()), messages);
    let request = Request {
        examples: args.pairs.as_deref().map_or_else(|| Ok(Vec::new()), examples)?,
        messages: read(&args.messages)?,
        unless: read(&args.unless)?,
        place: match args.place {
            Where::Auto => Place::Auto,
            Where::System => Place::System,
            Where::Appended => Place::Appended,
            Where::Front => Place::Front,
        },
        avoid: args.avoid,
        answers: args.answers,
        max_tokens: args.max_tokens,
        seed: args.seed,
        minutes: args.minutes,
        threads: args.machine.threads,
        ..Request::new(&args.instruction)
    };
    request.check()?;
    let copy = learner(&args.model, args.run_as.as_deref(), &args.machine, out)?;
    let request = Request { counts_as: copy.as_ref().map(|_| args.model.clone()), ..request };
    let path = copy.as_ref().unwrap_or(&args.model);
    let mut engine = args.context.engine(path, &args.machine, trial::SEQUENCES, out)?;
    let mut bar = out.bar("learn", "answers");
    let made = learn::learn(&mut engine, &request, &mut |step| bar.step(step))?;
    drop(bar);
    made.dictionary.save_gguf(&args.out, GgmlType::F32)?;
    if let (Some(path), Some(vector)) = (&args.constant, &made.control_vector) {
        vector.save(path, engine.architecture())?;
    }
    show(args, &made, out)
}

/// The examples of a file.
fn examples(path: &Path) -> Result<Vec<Example>> {
    let example = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            Error::format(path, format!("line {number}: {e}"))
                .hinted("a line is {\"message\": \"…\", \"do\": \"…\", \"dont\": \"…\"}")
        })
    };
    let text = read_text(path, MAX_BYTES)?;
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).map(example).collect()
}

/// The messages of a file.
pub(crate) fn messages(path: &Path) -> Result<Vec<String>> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if !matches!(ending.as_str(), "jsonl" | "ndjson" | "json") {
        let text = read_text(path, MAX_BYTES)?;
        return Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect());
    }
    let message = |document: Document| match document {
        Document::Text(text) => Ok(text),
        Document::Chat(turns) => {
            let last = turns.into_iter().rev().find(|turn| turn.role == "user");
            last.map(|turn| turn.content)
                .ok_or_else(|| Error::format(path, "expected a message of the user, found none"))
        }
    };
    documents(&[path.to_owned()])?.into_iter().map(message).collect()
}

fn show(args: &Args, made: &Outcome, out: &Out) -> Result<()> {
    let report = &made.report;
    if out.json() {
        return out.object(&json!({
            "dictionary": shown(&args.out), "control_vector": args.constant.as_ref().map(shown), "report": report,
        }));
    }
    let score = &report.score;
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let layers = report.layers.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    out.facts(&[
        ("learned", report.instruction.clone()),
        ("features", args.out.display().to_string()),
        ("told", report.place.clone()),
        ("layers", layers),
        ("form", format!("{} × {:.3}", report.form, report.strength)),
        ("against", report.avoid.map_or_else(String::new, |avoid| format!("× −{avoid:.2}"))),
        ("minutes", format!("{:.1}", report.seconds / 60.0)),
    ])?;
    let row = |name: &str, effect: f64, perplexity: f64, broken: f64| {
        vec![name.to_owned(), percent(effect), format!("{perplexity:.2}"), percent(broken)]
    };
    out.table(
        &["", "effect", "perplexity ratio", "loops"],
        [
            row("unsteered", 0.0, 1.0, score.unsteered_broken),
            row("asked", 1.0, score.asked_perplexity, score.asked_broken),
            row("learned", score.effect, score.perplexity, score.broken),
        ],
    )?;
    if let Some(spill) = score.spill {
        out.line(format!("effect on messages of {}: {}", "--unless", percent(spill)))?;
    }
    for sample in report.samples.iter().take(SHOWN) {
        out.line(format!("\n{}", sample.message))?;
        let row = [&sample.unsteered, &sample.asked, &sample.learned].map(|text| text.trim().to_owned());
        out.table(&["unsteered", "asked", "learned"], [row.to_vec()])?;
    }
    if !report.fluent {
        out.note("warning: at every strength that was tried the text breaks more than without steering");
    }
    Ok(())
}
