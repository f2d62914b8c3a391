//! `tiller train vector`: directions from pairs of rows or texts.

use clap::{Args as Clap, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use tiller::plan::ControlVector;
use tiller::train::Rows;
use tiller::train::vector::{Direction, Method, direction, save_directions};
use tiller::{Error, Result};

use super::source::Kinds;
use crate::open::Machine;
use crate::output::{Out, ending};
use crate::paths::{check_outputs, shown};

/// Directions that tell two kinds of rows apart, as a control vector, .npy or safetensors
#[derive(Clap)]
pub(crate) struct Args {
    #[command(flatten)]
    kinds: Kinds,
    /// How a direction is found
    #[arg(long, value_enum, default_value = "caa")]
    method: How,
    /// Make directions of norm 1 (principal axes always are)
    #[arg(long)]
    unit: bool,
    /// What to write: .gguf is llama.cpp's control vector, .npy the numbers of one layer, .safetensors those of all
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    /// Difference of the two means; the numbers of rows may differ
    Mean,
    /// Mean of the differences of pairs (CAA)
    Caa,
    /// First principal axis of the differences as they are (llama.cpp's generator, repeng's pca_center)
    Pca,
    /// First principal axis of the differences around their mean (repeng's pca_diff)
    PcaCentred,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let method = match args.method {
        How::Mean => Method::Mean,
        How::Caa => Method::Contrastive,
        How::Pca => Method::Pca,
        How::PcaCentred => Method::PcaCentred,
    };
    ending(&args.out, &["gguf", "npy", "safetensors"])?;
    check_outputs([&args.out], args.kinds.inputs())?;
    let (pairs, architecture) = args.kinds.read(&args.machine, out)?;
    let mut found: Vec<(Option<usize>, Direction)> = Vec::new();
    let mut bar = out.bar("vector", "rows");
    for pair in &pairs {
        let (up, down) =
            (Rows::from_slice(pair.d_model, &pair.positive)?, Rows::from_slice(pair.d_model, &pair.negative)?);
        let mut one = direction(&up, &down, method, args.machine.n_threads(), &mut |step| bar.step(step))?;
        if args.unit {
            let norm = one.norm();
            one.values.iter_mut().for_each(|v| *v /= norm);
        }
        found.push((pair.layer, one));
    }
    drop(bar);
    save(args, &found, architecture.as_deref().unwrap_or_default())?;
    for (layer, one) in &found {
        let separation = one.separation.is_finite().then_some(one.separation);
        let explained = one.explained.is_finite().then_some(one.explained);
        let agreement = one.agreement.is_finite().then_some(one.agreement);
        if out.json() {
            out.object(&json!({
                "file": shown(&args.out), "layer": layer, "method": method.name(), "norm": one.norm(),
                "agreement": agreement, "separation": separation, "explained": explained,
            }))?;
            continue;
        }
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.4}"));
        out.facts(&[
            ("layer", layer.map_or_else(String::new, |layer| layer.to_string())),
            ("norm", format!("{:.4}", one.norm())),
            ("pairs that agree", number(agreement)),
            ("separation (d′)", number(separation)),
            ("share of the axis", number(explained)),
        ])?;
    }
    Ok(())
}

fn save(args: &Args, found: &[(Option<usize>, Direction)], architecture: &str) -> Result<()> {
    let known = |layer: &Option<usize>| {
        layer.ok_or_else(|| Error::argument("rows of a file do not say their layer: give it with --layer"))
    };
    match args.out.extension().and_then(|e| e.to_str()) {
        Some("npy") => match found {
            [(_, one)] => one.save_npy(&args.out),
            _ => Err(Error::argument(".npy holds one direction: give one layer, or write .safetensors or .gguf")),
        },
        Some("safetensors") => {
            let all = found.iter().map(|(layer, one)| Ok((known(layer)?, one))).collect::<Result<Vec<_>>>()?;
            save_directions(&args.out, &all)
        }
        Some("gguf") => {
            let width = found.first().map_or(0, |(_, one)| one.values.len());
            let mut vector = ControlVector::new(width);
            for (layer, one) in found {
                vector.add(known(layer)?, &one.values)?;
            }
            vector.save(&args.out, architecture)
        }
        _ => ending(&args.out, &["gguf", "npy", "safetensors"]),
    }
}
