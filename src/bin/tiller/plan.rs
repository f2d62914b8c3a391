//! `tiller plan`: plans from words; check and show plans.

use clap::{Args as Clap, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::dictionary::Dictionary;
use tiller::engine::Generate;
use tiller::eval::trial;
use tiller::plan::{Plan, Route, Rule, Target};
use tiller::{Error, Result};

use crate::choice::{Wanted, Writing, features_json};
use crate::open::{Context, Machine};
use crate::output::Out;
use crate::paths::{check_outputs, shown};
use crate::wish::{Chosen, Named, features_table};

/// Make a plan from a concept in words, or check and show one
#[derive(Clap)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// The model to steer: features are then ranked by what they make it say, and the strength is searched. Without it, auto
    /// is 2
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    /// The strength is searched for messages in the chat template
    #[arg(long, requires = "model")]
    chat: bool,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    machine: Machine,
    /// Where to write the plan; standard output if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Check a plan, and against a dictionary if one is given
    Check(File),
    /// Show what a plan does
    Show(File),
}

#[derive(Clap)]
struct File {
    /// The plan
    plan: PathBuf,
    /// A dictionary that it speaks of: FILE, or NAME=FILE if it has several
    #[arg(long, value_name = "[NAME=]FILE")]
    dictionary: Vec<String>,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    match &args.action {
        Some(Action::Check(file)) => check(file, out),
        Some(Action::Show(file)) => show(file, out),
        None => make(args, out),
    }
}

/// The strength of a plan that no model was asked about.
const UNSEARCHED: f32 = 2.0;
/// Tokens of the texts on which a strength is searched.
const TOKENS: usize = 100;

fn make(args: &Args, out: &Out) -> Result<()> {
    if !args.wanted.is_given() {
        return Err(Error::argument(
            "plan needs --words, --prompted or --steer (or `plan check FILE`, `plan show FILE`)",
        ));
    }
    check_outputs(&args.output, args.wanted.inputs().iter().chain(&args.model))?;
    let (plan, dictionaries, chosen) = match &args.model {
        Some(model) => asked(args, model, out)?,
        None => unasked(&args.wanted, out)?,
    };
    plan.check()?;
    let given: Vec<String> = dictionaries.iter().map(|(name, _, path)| flag(name, path)).collect();
    let Some(path) = &args.output else {
        if !given.is_empty() {
            out.note(format!("run it with {}", given.join(" ")));
        }
        return out.json_text(plan.to_json());
    };
    plan.save(path)?;
    if out.json() {
        let files = dictionaries.iter().map(|(name, _, path)| json!({"name": name, "file": shown(path)}));
        return out.object(&json!({
            "plan": shown(path), "features": features_json(&chosen), "dictionaries": files.collect::<Vec<_>>(),
        }));
    }
    if !chosen.is_empty() {
        features_table(&chosen, out)?;
    }
    let with = if given.is_empty() { String::new() } else { format!("; run it with {}", given.join(" ")) };
    out.note(format!("wrote {}{with}", path.display()));
    Ok(())
}

/// As `run` would choose.
fn asked(args: &Args, model: &Path, out: &Out) -> Result<(Plan, Vec<Named>, Vec<Chosen>)> {
    let mut engine = args.context.engine(model, &args.machine, trial::SEQUENCES, out)?;
    let generate = if args.chat { Generate::chat() } else { Generate::default() };
    let writing = Writing { prompt: None, chat: args.chat, generate: Generate { max_tokens: TOKENS, ..generate } };
    let choice = args.wanted.choose(&mut engine, &writing, out)?;
    let choice = choice.ok_or_else(|| Error::argument("plan: nothing is asked for"))?;
    Ok((choice.plan, choice.dictionaries, choice.chosen))
}

/// By explanations alone.
fn unasked(wanted: &Wanted, out: &Out) -> Result<(Plan, Vec<Named>, Vec<Chosen>)> {
    if !wanted.wish.is_given() {
        return Err(Error::argument("--steer and --avoid need --model FILE"));
    }
    let dictionaries = wanted.dictionaries(None, out)?;
    let chosen = wanted.wish.choose(&dictionaries, None, out)?;
    let plan = wanted.wish.plan(&chosen, wanted.given_strength()?.unwrap_or(UNSEARCHED));
    let named: Vec<(String, Arc<Dictionary>)> = dictionaries.iter().map(|(n, d, _)| (n.clone(), d.clone())).collect();
    if !named.is_empty() {
        compile(&plan, &named)?;
    }
    Ok((plan, dictionaries, chosen))
}

/// A dictionary as `run` takes it.
fn flag(name: &str, path: &Path) -> String {
    let mark = if name.is_empty() { "" } else { "=" };
    format!("--dictionary {name}{mark}{}", path.display())
}

/// Compiles against dictionaries alone: as large a model as they need.
fn compile(plan: &Plan, dictionaries: &[(String, Arc<Dictionary>)]) -> Result<String> {
    let given: Vec<(&str, Arc<Dictionary>)> = dictionaries.iter().map(|(name, d)| (name.as_str(), d.clone())).collect();
    let width = dictionaries.first().map_or(0, |(_, d)| d.d_model());
    let named = plan.rules.iter().filter_map(|rule| rule.layer);
    let own = |d: &Dictionary| d.layer().max(d.layers().iter().copied().max());
    let layers = named.chain(dictionaries.iter().filter_map(|(_, d)| own(d))).max().map_or(1, |last| last + 1);
    Ok(plan.compile(&given, &Target::new(layers.max(2), width), Route::Auto)?.fingerprint)
}

/// `FILE` or `NAME=FILE`.
pub(crate) fn named_dictionary(text: &str) -> (String, &Path) {
    match text.split_once('=') {
        Some((name, path)) if !name.contains(['/', '\\', '.']) => (name.to_owned(), Path::new(path)),
        _ => (String::new(), Path::new(text)),
    }
}

fn check(file: &File, out: &Out) -> Result<()> {
    let plan = Plan::open(&file.plan)?;
    let mut dictionaries = Vec::new();
    for text in &file.dictionary {
        let (name, path) = named_dictionary(text);
        dictionaries.push((name, Arc::new(Dictionary::open(path)?)));
    }
    let fingerprint = if dictionaries.is_empty() { None } else { Some(compile(&plan, &dictionaries)?) };
    if out.json() {
        return out.object(
            &json!({"plan": shown(&file.plan), "valid": true, "rules": plan.rules.len(), "fingerprint": fingerprint}),
        );
    }
    let against = if fingerprint.is_some() { " and fits" } else { "; not checked against a dictionary" };
    out.line(format!("{}: valid, {} rules{against}", file.plan.display(), plan.rules.len()))?;
    fingerprint.map_or(Ok(()), |f| out.line(format!("fingerprint {f}")))
}

fn show(file: &File, out: &Out) -> Result<()> {
    let plan = Plan::open(&file.plan)?;
    if out.json() {
        return out.object(&plan);
    }
    if let Some(note) = &plan.note {
        out.line(note)?;
    }
    out.table(&["rule", "op", "strength", "layer", "features", "rows", "gate", "note"], rows(&plan))
}

/// The rules of a plan as rows of a table.
pub(crate) fn rows(plan: &Plan) -> Vec<Vec<String>> {
    plan.rules.iter().enumerate().map(|(index, rule)| row(index, rule)).collect()
}

fn row(index: usize, rule: &Rule) -> Vec<String> {
    let features: Vec<String> = rule
        .features
        .iter()
        .map(|f| if f.weight == 1.0 { f.id.to_string() } else { format!("{}×{}", f.id, f.weight) })
        .collect();
    vec![
        index.to_string(),
        rule.op.name().to_owned(),
        rule.strength.as_ref().map_or_else(String::new, text),
        rule.layer.map_or_else(|| "the dictionary's".into(), |l| l.to_string()),
        match &rule.vector {
            Some(_) => "a vector".into(),
            None if rule.features.is_all() => "all".into(),
            None => features.join(" "),
        },
        text(&rule.select),
        rule.gate.as_ref().map_or_else(String::new, text),
        rule.note.clone().unwrap_or_default(),
    ]
}

/// A part of a rule as it stands in JSON, without the signs.
fn text(part: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(part).unwrap_or_default();
    text.replace(['{', '}', '"'], "").replace(',', ", ").replace(':', ": ")
}
