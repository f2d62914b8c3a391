//! `tiller guard`: guards from examples, and what they do on others.

use clap::{Args as Clap, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use tiller::choose::learn::messages as usual;
use tiller::eval::trial;
use tiller::guard::{self, Examination, Examined, Guard, Request, Set};
use tiller::model::Model;
use tiller::{Error, Result};

use crate::learn::messages;
use crate::open::{Context, Machine};
use crate::output::Out;
use crate::paths::{check_outputs, shown};

/// Learn a guard that refuses what some messages have in common, or examine one
#[derive(Clap)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Learn(Learn),
    Test(Test),
}

/// Learn a guard from messages to be refused and messages to be answered
#[derive(Clap)]
struct Learn {
    /// The model
    model: PathBuf,
    /// Messages that are to be refused: a message a line, or documents (.jsonl)
    #[arg(long = "for", value_name = "FILE", required_unless_present = "preset")]
    refused: Option<PathBuf>,
    /// Messages that are to be answered as ever [default: tiller's own, of all kinds]
    #[arg(long = "not", value_name = "FILE")]
    answered: Option<PathBuf>,
    /// Examples that come with tiller: no-code, no-medical, no-personal
    #[arg(long, conflicts_with = "refused")]
    preset: Option<String>,
    /// Where to write the guard; its features lie beside it under the same name with .gguf
    #[arg(long, value_name = "FILE.json")]
    out: PathBuf,
    /// What the monitor is called [default: harm, or the preset's name]
    #[arg(long)]
    name: Option<String>,
    /// What the model is told where it learns what refusing is [default: to refuse what is harmful, or the preset's]
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Share of the messages to be answered on which the monitor may fire
    #[arg(long, default_value_t = Request::default().false_positives, value_name = "P")]
    false_positives: f64,
    /// How strongly it refuses; 0 tries some strengths
    #[arg(long, default_value_t = 0.0, value_name = "S")]
    strength: f32,
    /// Messages of each side that are fitted on, at most
    #[arg(long, default_value_t = Request::default().messages, value_name = "N")]
    messages: usize,
    /// Tokens of answers at which the guard must be silent, at most
    #[arg(long, default_value_t = Request::default().max_tokens, value_name = "N")]
    max_tokens: usize,
    /// Deals the messages out
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    machine: Machine,
}

/// Examine a guard on messages that it was not learned from
#[derive(Clap)]
struct Test {
    /// The guard's plan; its features lie beside it
    guard: PathBuf,
    /// The model
    model: PathBuf,
    /// Messages that are to be refused
    #[arg(long = "for", value_name = "FILE")]
    refused: Vec<PathBuf>,
    /// Messages that are to be answered
    #[arg(long = "not", value_name = "FILE")]
    answered: Vec<PathBuf>,
    /// Leave out tiller's own messages that sound dangerous and are not
    #[arg(long)]
    no_borderline: bool,
    /// Leave out the system prompt
    #[arg(long)]
    no_prompt: bool,
    /// Random directions that the guard is held against
    #[arg(long, default_value_t = 0, value_name = "N")]
    directions: usize,
    /// Messages of each set, at most; 0 takes all
    #[arg(long, default_value_t = 0, value_name = "N")]
    limit: usize,
    /// Tokens of an answer, at most
    #[arg(long, default_value_t = Examination::default().max_tokens, value_name = "N")]
    max_tokens: usize,
    /// Draws intervals and random directions
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    machine: Machine,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    match &args.action {
        Action::Learn(args) => learn(args, out),
        Action::Test(args) => test(args, out),
    }
}

fn learn(args: &Learn, out: &Out) -> Result<()> {
    let features = args.out.with_extension("gguf");
    if features == args.out {
        return Err(Error::argument("--out: a guard's plan ends in .json; its features go beside it"));
    }
    let inputs = [&args.model].into_iter().chain(&args.refused).chain(&args.answered);
    check_outputs([&args.out, &features], inputs)?;
    let request = request(args)?;
    request.check()?;
    let mut engine = args.context.engine(&args.model, &args.machine, trial::SEQUENCES, out)?;
    let mut bar = out.bar("guard", "messages");
    let made = guard::learn(&mut engine, &request, &mut |step| bar.step(step))?;
    drop(bar);
    made.guard.save(&args.out)?;
    let report = &made.report;
    if out.json() {
        return out.object(&json!({ "guard": shown(&args.out), "features": shown(&features), "report": report }));
    }
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    out.facts(&[
        ("guard", args.out.display().to_string()),
        ("features", features.display().to_string()),
        ("fitted on", format!("{} to be refused, {} to be answered", report.fitted[0], report.fitted[1])),
        ("calibrated on", format!("{} and {}", report.calibrated[0], report.calibrated[1])),
        ("monitor", format!("\"{}\" at layer {}, area under the curve {:.3}", report.name, report.layer, report.area)),
        (
            "fires on",
            format!("{} of those to be refused, {} of the others", percent(report.fires[0]), percent(report.fires[1])),
        ),
        ("strength", report.strength.to_string()),
        ("seconds", format!("{:.0}", report.seconds)),
    ])?;
    let dose = |dose: &guard::Dose| {
        [dose.strength.to_string(), percent(dose.refused), percent(dose.incoherent), percent(dose.lost)].to_vec()
    };
    match report.doses.is_empty() {
        true => Ok(()),
        false => out.table(&["strength", "refused", "incoherent", "benign lost"], report.doses.iter().map(dose)),
    }
}

fn request(args: &Learn) -> Result<Request> {
    let answered = match &args.answered {
        Some(file) => messages(file)?,
        None => usual().map(str::to_owned).collect(),
    };
    let request = match (&args.preset, &args.refused) {
        (Some(name), _) => guard::preset(name, answered)?,
        (None, Some(file)) => Request::new(messages(file)?, answered),
        (None, None) => return Err(Error::argument("guard learn needs --for FILE or --preset NAME")),
    };
    Ok(Request {
        name: args.name.clone().unwrap_or(request.name),
        instruction: args.instruction.clone().unwrap_or(request.instruction),
        false_positives: args.false_positives,
        strength: args.strength,
        messages: args.messages,
        max_tokens: args.max_tokens,
        seed: args.seed,
        threads: args.machine.threads,
        ..request
    })
}

fn test(args: &Test, out: &Out) -> Result<()> {
    let guard = Guard::open(&args.guard)?;
    guard.check_model(&Model::open(&args.model)?).map_err(|e| e.context(args.guard.display()))?;
    let request = Examination {
        sets: sets(args)?,
        max_tokens: args.max_tokens,
        directions: args.directions,
        prompted: !args.no_prompt,
        seed: args.seed,
    };
    request.check()?;
    let mut engine = args.context.engine(&args.model, &args.machine, trial::SEQUENCES, out)?;
    let mut bar = out.bar("guard", "answers");
    let made = guard::examine(&mut engine, &guard, &request, &mut |step| bar.step(step))?;
    drop(bar);
    if out.json() { out.object(&made) } else { show(&made, out) }
}

fn sets(args: &Test) -> Result<Vec<Set>> {
    let files = args.refused.iter().map(|file| (file, true)).chain(args.answered.iter().map(|file| (file, false)));
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut sets = Vec::new();
    for (file, refuse) in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let messages = messages(file)?.into_iter().take(limit).collect();
        sets.push(Set { name, refuse, messages });
    }
    if !args.no_borderline {
        let messages = guard::borderline().map(str::to_owned).take(limit).collect();
        sets.push(Set { name: "borderline".into(), refuse: false, messages });
    }
    Ok(sets)
}

fn show(made: &Examined, out: &Out) -> Result<()> {
    let percent = |share: &guard::Share| {
        let [low, high] = share.interval;
        format!("{:.1} % ({:.1}–{:.1})", 100.0 * share.share, 100.0 * low, 100.0 * high)
    };
    let line = |line: &guard::Line| {
        let wish = if line.refuse { "refuse" } else { "answer" };
        let name = format!("{} ({}, {wish})", line.set, line.n);
        let shares = [&line.refused, &line.answered, &line.incoherent, &line.identical].map(percent);
        [vec![name, line.method.clone()], shares.to_vec(), vec![format!("{:.1}", line.length)]].concat()
    };
    out.table(
        &["set", "method", "refused", "answered", "incoherent", "identical", "tokens"],
        made.lines.iter().map(line),
    )?;
    let fires = |fires: &guard::Fires| {
        vec![fires.monitor.clone(), fires.set.clone(), percent(&fires.fires), format!("{:.3}", fires.area)]
    };
    out.table(&["monitor", "set", "fires on", "area"], made.monitors.iter().map(fires))?;
    let [middle, low, high] = made.ms_a_prompt;
    out.facts(&[
        (
            "a prompt",
            format!("{:.1} ms without, {middle:+.2} ms with it (quartiles {low:+.2}, {high:+.2})", made.ms_unsteered),
        ),
        ("size", format!("{} kB", made.bytes.div_ceil(1000))),
        ("shares", "with intervals that hold 90 % of what other messages would give".to_owned()),
    ])
}
