//! `tiller run`: text from a model, steered or not, or both side by side.

mod compare;
mod documents;

use clap::Args as Clap;
use serde_json::json;
use std::path::PathBuf;
use tiller::Error;
use tiller::Result;
use tiller::engine::{Engine, Generate, Generation, Stop};
use tiller::eval::trial;
use tiller::hook::Ledger;

use crate::choice::{Choice, Wanted, Writing, prompt_tokens};
use crate::open::{Context, Machine, Sampling, Strict, Texts};
use crate::output::Out;

/// Generate text, steered by a plan or by a concept in words
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// What the model goes on from; control tokens such as <|im_start|> are read as such
    #[arg(long, value_name = "TEXT", required_unless_present = "prompts")]
    prompt: Option<String>,
    /// Go on from every document of these files, side by side, and write documents, a line of JSON each: a "text" with its
    /// continuation, "messages" up to the last user's with an answer. Control tokens that are spelled in them stay text
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with_all = ["prompt", "compare", "chat"])]
    prompts: Vec<PathBuf>,
    /// What to do to the residual stream
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "prompted", "steer", "avoid"])]
    plan: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    /// Write the plan down, with the features and the strength that were chosen: give it to --plan, and nothing is searched
    #[arg(long, value_name = "FILE")]
    save_plan: Option<PathBuf>,
    /// Write the prompt as a user's message in the model's chat template, where all of it is text
    #[arg(long)]
    chat: bool,
    /// Show the text without and with the plan, side by side
    #[arg(long)]
    compare: bool,
    /// Beside them, what the model writes when it is simply asked in the prompt: "Talk about WORDS.", or this TEXT
    #[arg(long, value_name = "TEXT", num_args = 0..=1, require_equals = true, requires = "compare")]
    asked: Option<Option<String>>,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 100, value_name = "N")]
    max_tokens: usize,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    machine: Machine,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let mut engine = args.context.engine(&args.model, &args.machine, trial::SEQUENCES, out)?;
    let generate = args.sampling.generate(args.chat, args.max_tokens);
    // What cannot be read is told before features are chosen, which takes its time.
    let Some(prompt) = &args.prompt else {
        let documents = Texts::read(&args.prompts, args.strict, out)?.usable(&mut |document| {
            engine.check_prompt(&engine.prompt_tokens(&documents::asked(document))?, generate.max_tokens)
        })?;
        let choice = choice(args, &mut engine, &generate, out)?;
        engine.set_plan(choice.map(|choice| choice.compiled))?;
        return documents::go_on(&mut engine, &documents, &generate, out);
    };
    let prompt = prompt_tokens(&engine, args.chat, prompt)?;
    engine.check_prompt(&prompt, generate.max_tokens).map_err(|e| e.context("--prompt"))?;
    let choice = choice(args, &mut engine, &generate, out)?;
    if let (Some(path), Some(choice)) = (&args.save_plan, &choice) {
        choice.plan.save(path)?;
        out.note(format!("wrote {}", path.display()));
    }
    if args.compare {
        return compare::show(args, &mut engine, &prompt, &generate, choice.as_ref(), out);
    }
    if let Some(choice) = &choice {
        engine.set_plan(Some(choice.compiled.clone()))?;
    }
    let made = write(&mut engine, &prompt, &generate, !out.json(), out)?;
    let ledger = engine.finish();
    if out.json() {
        out.object(&json!({
            "prompt": args.prompt, "text": made.text(), "tokens": made.tokens().len(), "stop": made.stop().map(Stop::name),
            "steering": choice.as_ref().map(Choice::json),
            "ledger": recorded(&ledger),
        }))?;
    } else {
        out.line("")?;
    }
    ledger.ok().map_err(|e| e.context("the text above is not what the plan says"))?;
    match made.stop() {
        Some(Stop::Caller) => Err(Error::cancelled().hinted("what was written is above")),
        Some(Stop::Verdict) => {
            out.note("note: a verdict of the plan ended the text");
            Ok(())
        }
        Some(Stop::Context) => {
            full(&engine, "the text ends here", out);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Says that the context was full.
fn full(engine: &Engine, what: &str, out: &Out) {
    let context = engine.options().context;
    out.note(format!("note: the context of {context} tokens is full; {what}. A larger one: --context N"));
}

/// What the hook saw and did, for `--json`.
fn recorded(ledger: &Ledger) -> serde_json::Value {
    let rules = ledger.rules.iter().map(|rule| {
        let unjudged: serde_json::Map<_, _> =
            rule.unjudged_rows().map(|(why, n)| (why.name().to_owned(), json!(n))).collect();
        let edited = rule.rows;
        json!({
            "rows": edited, "mean_code": rule.mean_code(), "relative_size": rule.relative_size(), "unjudged": unjudged,
        })
    });
    let faults = ledger.faults.iter().map(|fault| json!({"what": fault.what, "count": fault.count}));
    json!({
        "graphs": ledger.graphs, "rows_seen": ledger.rows_seen, "rows_edited": ledger.rows_edited,
        "rows_not_needed": ledger.rows_not_needed, "rows_refused": ledger.rows_refused,
        "rows_restored": ledger.rows_restored, "rules": rules.collect::<Vec<_>>(), "faults": faults.collect::<Vec<_>>(),
    })
}

/// What the arguments ask for, if anything.
fn choice(args: &Args, engine: &mut Engine, generate: &Generate, out: &Out) -> Result<Option<Choice>> {
    match &args.plan {
        Some(path) => Choice::open(engine, path, &args.wanted, out).map(Some),
        None => {
            let writing = Writing { prompt: args.prompt.as_deref(), chat: args.chat, generate: generate.clone() };
            args.wanted.choose(engine, &writing, out)
        }
    }
}

/// Generates; streams to standard output if `show`.
fn write(engine: &mut Engine, prompt: &[i32], generate: &Generate, show: bool, out: &Out) -> Result<Generation> {
    let mut failed = Ok(());
    let generation = engine.generate_tokens(prompt, generate, &mut |piece| {
        if show {
            failed = out.text(piece);
        }
        failed.is_ok() && !crate::interrupt::asked()
    })?;
    failed?;
    Ok(generation)
}
