//! `tiller train probe`: logistic regressions on two kinds of rows.

use clap::{Args as Clap, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use tiller::num::rng;
use tiller::plan::ControlVector;
use tiller::train::probe::{Options, Penalty, Probe, Score, fit, k_sparse};
use tiller::{Error, Result};

use super::source::{Kinds, Pair};
use crate::open::Machine;
use crate::output::{Out, ending};
use crate::paths::{check_outputs, shown};

/// A linear probe that tells two kinds of rows apart, as safetensors, .npy or a control vector
#[derive(Clap)]
pub(crate) struct Args {
    #[command(flatten)]
    kinds: Kinds,
    /// What keeps weights small
    #[arg(long, value_enum, default_value = "l2", conflicts_with = "k")]
    penalty: Which,
    /// The best so many columns alone: ranked by an L1 regression at C = 0.1, refitted with L2
    #[arg(short, long, value_name = "K")]
    k: Option<usize>,
    /// The weight of the data against the penalty, as in scikit-learn
    #[arg(long, default_value_t = 1.0)]
    c: f64,
    /// Leave columns as they are; by default they are brought to mean 0 and variance 1 first
    #[arg(long)]
    raw: bool,
    /// The share of the rows that is held out to be tested on
    #[arg(long, default_value_t = 0.2, value_name = "SHARE")]
    test: f64,
    /// What to write: .safetensors holds weights and bias, .npy the weights, .gguf the unit direction for llama.cpp
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    L1,
    L2,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    if !(0.0..1.0).contains(&args.test) {
        return Err(Error::argument(format!("--test must lie between 0 and 1, found {}", args.test)));
    }
    ending(&args.out, &["safetensors", "npy", "gguf"])?;
    check_outputs([&args.out], args.kinds.inputs())?;
    let (pairs, architecture) = args.kinds.read(&args.machine, out)?;
    let [pair] = &pairs[..] else {
        return Err(Error::argument("a probe is of one layer: give one --layer"));
    };
    let (train, test) = split(pair, args.test);
    let options = Options {
        penalty: match args.penalty {
            Which::L1 => Penalty::L1,
            Which::L2 => Penalty::L2,
        },
        c: args.c,
        standardize: !args.raw,
        threads: args.machine.threads,
        ..Options::default()
    };
    let mut bar = out.bar("probe", "steps");
    let d = pair.d_model;
    let (probe, features) = match args.k {
        None => (fit(&train.0, d, &train.1, &options, &mut |step| bar.step(step))?, None),
        Some(k) => {
            let mut all = k_sparse(&train.0, d, &train.1, &[k], &options, &mut |step| bar.step(step))?;
            let one = all.pop().ok_or_else(|| Error::argument("no probe"))?;
            (one.probe, Some(one.features))
        }
    };
    drop(bar);
    save(args, &probe, pair.layer, architecture.as_deref().unwrap_or_default())?;
    let (seen, held) = (probe.score(&train.0, &train.1), (!test.1.is_empty()).then(|| probe.score(&test.0, &test.1)));
    let used = probe.weights.iter().filter(|w| **w != 0.0).count();
    let figures = |score: &Score| json!({ "accuracy": score.accuracy, "auc": score.auc, "pearson": score.pearson, "loss": score.loss });
    if out.json() {
        return out.object(&json!({
            "file": shown(&args.out), "layer": pair.layer, "columns": used, "features": features, "steps": probe.steps,
            "converged": probe.converged, "train": figures(&seen), "test": held.as_ref().map(figures),
        }));
    }
    let text = |s: &Score| format!("accuracy {:.4}  AUC {:.4}  |Pearson| {:.4}", s.accuracy, s.auc, s.pearson);
    out.facts(&[
        ("probe", args.out.display().to_string()),
        ("columns used", used.to_string()),
        ("columns", features.map_or_else(String::new, |f| f.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))),
        ("on its rows", text(&seen)),
        ("on rows held out", held.as_ref().map_or_else(String::new, text)),
    ])
}

/// Rows, one after another, and the label of each.
type Labelled = (Vec<f32>, Vec<bool>);

/// Rows and labels to fit and to test on. Pairs stay together, so that no word is on both sides.
fn split(pair: &Pair, share: f64) -> (Labelled, Labelled) {
    use rand::Rng;
    let (mut train, mut test) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for (rows, label) in [(&pair.positive, true), (&pair.negative, false)] {
        // The same draws for both kinds.
        let mut rng = rng(0);
        for row in rows.chunks_exact(pair.d_model) {
            let side = if rng.random::<f64>() < share { &mut test } else { &mut train };
            side.0.extend_from_slice(row);
            side.1.push(label);
        }
    }
    (train, test)
}

fn save(args: &Args, probe: &Probe, layer: Option<usize>, architecture: &str) -> Result<()> {
    match args.out.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => probe.save(&args.out),
        Some("npy") => probe.save_npy(&args.out),
        Some("gguf") => {
            let layer =
                layer.ok_or_else(|| Error::argument("rows of a file do not say their layer: give it with --layer"))?;
            let direction = probe.direction().ok_or_else(|| Error::numeric("all weights are zero: no direction"))?;
            let mut vector = ControlVector::new(direction.len());
            vector.add(layer, &direction)?;
            vector.save(&args.out, architecture)
        }
        _ => ending(&args.out, &["safetensors", "npy", "gguf"]),
    }
}
