//! `tiller plan`: plans from words; check and show plans.

use clap::{Args as Clap, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::dictionary::Dictionary;
use tiller::eval::trial;
use tiller::model::Model;
use tiller::plan::{Plan, Route, Rule, Target};
use tiller::{Error, Result};

use crate::open::{self, Context, Machine, Wish, feature_json, features_table};
use crate::output::Out;
use crate::paths::{check_outputs, shown};

/// Make a plan from a concept in words, or check and show one
#[derive(Clap)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// The dictionary whose features are steered
    #[arg(long, value_name = "FILE")]
    dictionary: Option<PathBuf>,
    /// The model to steer: features are then ranked by what they make it say
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Do this: learned features (FILE) or an instruction, which is learned at its first use and kept; :S multiplies its strength
    #[arg(long, value_name = "FILE|TEXT[:S]", requires = "model", conflicts_with_all = ["words", "dictionary"])]
    steer: Vec<String>,
    /// Turn against this; as --steer
    #[arg(long, value_name = "FILE|TEXT[:S]", requires = "model", conflicts_with_all = ["words", "dictionary"])]
    avoid: Vec<String>,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    wish: Wish,
    /// How strongly, in the unit
    #[arg(long, default_value_t = 2.0, value_name = "S", allow_negative_numbers = true)]
    strength: f32,
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

fn make(args: &Args, out: &Out) -> Result<()> {
    if !(args.steer.is_empty() && args.avoid.is_empty()) {
        return steered(args, out);
    }
    if args.wish.words.is_none() {
        return Err(Error::argument("plan needs --words or --steer (or `plan check FILE`, `plan show FILE`)"));
    }
    check_outputs(&args.output, args.dictionary.iter().chain(&args.model).chain(&args.wish.explanations))?;
    let dictionary = match (&args.model, &args.dictionary) {
        (Some(model), Some(path)) => Some(open::dictionary(path, &Model::open(model)?, out)?),
        (None, Some(path)) => Some(Arc::new(Dictionary::open(path)?)),
        _ => None,
    };
    let engine = args.model.as_ref().map(|path| args.context.engine(path, &args.machine, trial::SEQUENCES, out));
    let mut engine = engine.transpose()?;
    let matches = args.wish.choose(args.dictionary.as_deref(), dictionary.as_ref(), engine.as_mut(), out)?;
    let plan = args.wish.plan(&matches, args.strength);
    plan.check()?;
    if let Some(dictionary) = dictionary {
        compile(&plan, &[(String::new(), dictionary)])?;
    }
    let Some(path) = &args.output else { return out.json_text(plan.to_json()) };
    plan.save(path)?;
    if out.json() {
        let features: Vec<_> = matches.iter().map(feature_json).collect();
        return out.object(&json!({"plan": shown(path), "features": features}));
    }
    features_table(&matches, out)?;
    out.note(format!("wrote {}", path.display()));
    Ok(())
}

/// Writes down what `run --steer` would do.
fn steered(args: &Args, out: &Out) -> Result<()> {
    let Some(model) = &args.model else { return Err(Error::argument("--steer needs --model FILE")) };
    check_outputs(&args.output, [model])?;
    let engine = args.context.engine(model, &args.machine, 1, out)?;
    let steering = crate::steer::resolve(&engine, &args.steer, &args.avoid, out)?;
    steering.compile(&engine)?;
    let dictionary = |(name, _, path): &(String, Arc<Dictionary>, PathBuf)| {
        let mark = if name.is_empty() { "" } else { "=" };
        format!("--dictionary {name}{mark}{}", path.display())
    };
    let given: Vec<String> = steering.dictionaries.iter().map(dictionary).collect();
    let Some(path) = &args.output else {
        out.note(format!("run it with {}", given.join(" ")));
        return out.json_text(steering.plan.to_json());
    };
    steering.plan.save(path)?;
    if out.json() {
        let files = steering.dictionaries.iter().map(|(name, _, path)| json!({"name": name, "file": shown(path)}));
        return out.object(&json!({"plan": shown(path), "dictionaries": files.collect::<Vec<_>>()}));
    }
    out.note(format!("wrote {}; run it with {}", path.display(), given.join(" ")));
    Ok(())
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
