//! `tiller eval`: what evaluators find, on a model at hand.

use clap::{Args as Clap, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::Result;
use tiller::dictionary::Dictionary;
use tiller::engine::{Options, documents, requantize};
use tiller::eval::drift::{Drift, drift};
use tiller::eval::self_test;

use crate::fetch::cache_dir;
use crate::info::TEXT;
use crate::mpc;
use crate::open::Machine;
use crate::output::Out;

/// Evaluate dictionaries and plans
#[derive(Clap)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What quantizing the model does to a dictionary: the model itself, then requantized
    Drift(DriftArgs),
    /// How well single features of coders and dictionaries say what concepts are (MPC)
    Mpc(mpc::Args),
    Consistency(crate::consistency::Args),
    Entanglement(crate::entanglement::Args),
    Explained(crate::explained::Args),
    Quality(crate::quality::Args),
    SideEffects(crate::side_effects::Args),
    Universality(crate::universality::Args),
}

#[derive(Clap)]
struct DriftArgs {
    /// The model; others are made from it with llama.cpp's own function
    model: PathBuf,
    /// The dictionary
    #[arg(long, value_name = "FILE")]
    dictionary: PathBuf,
    /// Types to requantize to
    #[arg(long, value_delimiter = ',', default_value = "F16,Q8_0,Q4_1,Q2_K", value_name = "TYPES")]
    types: Vec<String>,
    /// Text that the dictionary was not trained on; a short one is built in
    #[arg(long, num_args = 1.., value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Tokens of the text to use at most
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    max_tokens: usize,
    /// Where to keep the requantized models, and find them again [default: quantized/ in the cache folder of fetch]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    match &args.what {
        What::Drift(args) => run_drift(args, out),
        What::Mpc(args) => mpc::run(args, out),
        What::Consistency(args) => crate::consistency::run(args, out),
        What::Entanglement(args) => crate::entanglement::run(args, out),
        What::Explained(args) => crate::explained::run(args, out),
        What::Quality(args) => crate::quality::run(args, out),
        What::SideEffects(args) => crate::side_effects::run(args, out),
        What::Universality(args) => crate::universality::run(args, out),
    }
}

fn run_drift(args: &DriftArgs, out: &Out) -> Result<()> {
    let dictionary = Arc::new(Dictionary::open(&args.dictionary)?);
    let text = match args.text.as_slice() {
        [] => vec![tiller::engine::Document::Text(TEXT.to_owned())],
        files => documents(files)?,
    };
    let dir = match &args.models {
        Some(dir) => dir.clone(),
        None => cache_dir()?.join("quantized"),
    };
    std::fs::create_dir_all(&dir).map_err(|e| tiller::Error::io("create", &dir, e))?;
    let mut models = vec![args.model.clone()];
    let stem = args.model.file_stem().unwrap_or_default().to_string_lossy();
    for kind in &args.types {
        let path = dir.join(format!("{stem}.{}.gguf", kind.to_uppercase()));
        if !path.exists() {
            out.note(format!("requantizing to {kind}"));
            requantize(&args.model, &path, kind, args.machine.threads)?;
        }
        models.push(path);
    }
    let engine = Options { threads: args.machine.threads, context: 512, ..Options::default() };
    let options = self_test::Options { max_tokens: args.max_tokens, ..self_test::Options::default() };
    let mut bar = out.bar("drift", "tokens");
    let found = drift(&models, &dictionary, &text, &engine, &options, &mut |step| bar.step(step))?;
    drop(bar);
    if out.json() {
        return found.iter().try_for_each(|d| out.object(&figures(d)));
    }
    let columns = ["model", "FVU", "L0", "cross-entropy", "recovered", "features changed"];
    out.table(&columns, found.iter().map(row))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn row(d: &Drift) -> Vec<String> {
    let (quality, ce) = (&d.test.quality, &d.test.cross_entropy);
    vec![
        name(&d.model),
        format!("{:.4}", quality.fvu),
        format!("{:.2}", quality.l0),
        format!("{:.4}", ce.clean),
        format!("{:.4}", ce.recovered()),
        format!("{:.2} %", 100.0 * d.changed),
    ]
}

fn figures(d: &Drift) -> serde_json::Value {
    let (quality, ce) = (&d.test.quality, &d.test.cross_entropy);
    json!({
        "model": name(&d.model), "fvu": quality.fvu, "l0": quality.l0, "dead": quality.dead_share,
        "cross_entropy": ce.clean, "with_reconstruction": ce.reconstructed, "recovered": ce.recovered(),
        "features_changed": d.changed, "verdict": d.test.diagnosis.to_string(),
    })
}
