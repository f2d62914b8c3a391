//! `tiller train sae`: a dictionary from harvested rows.

use clap::{Args as Clap, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use tiller::activations::Activations;
use tiller::file::gguf::GgmlType;
use tiller::train::{Options, Rows, Variant, fit};
use tiller::{Error, Result};

use crate::output::Out;

/// A sparse dictionary
#[derive(Clap)]
pub(crate) struct Args {
    /// Directories that `tiller harvest` wrote, all of one model and layer
    #[arg(required = true)]
    rows: Vec<PathBuf>,
    /// Which codes are kept
    #[arg(long, value_enum, default_value = "batchtopk")]
    variant: Which,
    /// Features of the dictionary
    #[arg(long, default_value_t = 4096, value_name = "N")]
    features: usize,
    /// Active features a row
    #[arg(long, default_value_t = 32, value_name = "N")]
    k: usize,
    /// Rows a step
    #[arg(long, default_value_t = 4096, value_name = "N")]
    batch: usize,
    /// Times that every row is seen
    #[arg(long, default_value_t = 4, value_name = "N")]
    epochs: u32,
    /// Learning rate
    #[arg(long, default_value_t = Options::default().lr)]
    lr: f32,
    /// Seed of the start and of the order of rows
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The dictionary to write
    #[arg(long, value_name = "FILE.gguf")]
    out: PathBuf,
    /// How weights are stored: f32, f16, bf16 or q8_0
    #[arg(long, default_value = "f16", value_parser = stored)]
    quant: GgmlType,
    /// Where to keep the state now and then; if the file is there, go on from it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Threads; 0 takes all. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    #[value(name = "topk")]
    TopK,
    #[value(name = "batchtopk")]
    BatchTopK,
}

pub(super) fn stored(text: &str) -> std::result::Result<GgmlType, String> {
    let kind = GgmlType::from_name(&text.to_uppercase());
    let fits = |kind: &GgmlType| [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0].contains(kind);
    kind.filter(fits).ok_or_else(|| "expected f32, f16, bf16 or q8_0".into())
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let rows = args.rows.iter().map(|dir| Activations::open(dir)).collect::<Result<Vec<_>>>()?;
    let options = Options {
        variant: match args.variant {
            Which::TopK => Variant::TopK,
            Which::BatchTopK => Variant::BatchTopK,
        },
        n_features: args.features,
        k: args.k,
        batch: args.batch,
        epochs: args.epochs,
        lr: args.lr,
        seed: args.seed,
        threads: args.threads,
        ..Options::default()
    };
    let mut bar = out.bar("train", "rows");
    let mut last = String::new();
    let start = std::time::Instant::now();
    let rows = Rows::from_activations(&rows.iter().collect::<Vec<_>>())?;
    let n_rows = rows.len();
    let dictionary = fit(&rows, &options, args.checkpoint.as_deref(), &mut |step| {
        if step.note.starts_with("loss") {
            step.note.clone_into(&mut last);
        }
        bar.step(step)
    })?;
    drop(bar);
    dictionary.save_gguf(&args.out, args.quant)?;
    let seconds = start.elapsed().as_secs_f64();
    let n_bytes = std::fs::metadata(&args.out).map_err(|e| Error::io("open", &args.out, e))?.len();
    let dead = dictionary.feature_stats().map(|stats| stats.iter().filter(|s| s.density == 0.0).count());
    if out.json() {
        return out.object(&json!({
            "dictionary": args.out, "rows": n_rows, "features": dictionary.n_features(), "k": args.k, "bytes": n_bytes,
            "seconds": seconds, "dead": dead, "last": last,
        }));
    }
    out.facts(&[
        ("dictionary", args.out.display().to_string()),
        ("rows", n_rows.to_string()),
        ("features", dictionary.n_features().to_string()),
        ("dead", dead.map_or_else(String::new, |n| n.to_string())),
        ("last step", last),
        ("bytes", n_bytes.to_string()),
        ("seconds", format!("{seconds:.1}")),
    ])
}
