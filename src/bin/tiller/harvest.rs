//! `tiller harvest`: rows of the residual stream, from text.

use clap::{Args as Clap, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use tiller::activations::RowType;
use tiller::engine::{Engine, Harvest, Options};
use tiller::file::Lock;
use tiller::hook_point::Site;
use tiller::{Error, Result};

use crate::open::{self, Machine, Strict, Texts};
use crate::output::{Out, when_cancelled};
use crate::paths::shown;

/// Run text through a model and keep the residual rows after a layer
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// Text: .jsonl holds a document a line ("text" or "messages"), any other file is one document
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Block whose rows are read, from 0; several (9,29) go to layer-L inside the directory
    #[arg(long, required = true, value_delimiter = ',', value_name = "L")]
    layer: Vec<usize>,
    /// Site of the block: resid_post, resid_pre, attn_out, resid_mid or mlp_out
    #[arg(long, default_value = "resid_post", value_parser = site, value_name = "SITE")]
    hook: Site,
    /// Directory for the shards
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How rows are stored
    #[arg(long, value_enum, default_value = "f16")]
    dtype: Dtype,
    /// Longest window, in tokens
    #[arg(long, default_value_t = 512, value_name = "N")]
    context: usize,
    /// Tokens computed at once, over windows side by side
    #[arg(long, default_value_t = 512, value_name = "N")]
    batch: usize,
    /// Stop after this many tokens, or less than a window more; 0 takes all the text
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_tokens: u64,
    /// Run a copy of the model requantized to this type, such as F16: the same weights, up to twice as fast where the
    /// model's own type has no fast kernel. The rows are marked as the model's
    #[arg(long, value_name = "TYPE")]
    run_as: Option<String>,
    /// Go on with a harvest that was interrupted
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    F16,
    F32,
}

pub(crate) fn site(text: &str) -> std::result::Result<Site, String> {
    text.parse().map_err(|e: Error| e.message().to_owned())
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    // Of a harvest that was killed before its first shard, the lock may be left.
    let begun = |entry: std::io::Result<std::fs::DirEntry>| entry.is_ok_and(|entry| !Lock::is_lock(&entry.path()));
    let begun = args.out.read_dir().is_ok_and(|mut entries| entries.any(begun));
    if begun && !args.resume {
        let dir = args.out.display();
        return Err(Error::argument(format!(
            "{dir}: is not empty; add --resume to go on with it, or take another directory"
        )));
    }
    let text = Texts::read(&args.text, args.strict, out)?;
    let batch = args.batch.max(args.context);
    let options = Options {
        threads: args.machine.threads,
        gpu_layers: args.machine.gpu_layers,
        context: batch,
        batch,
        sequences: batch.min(64),
        ..Options::default()
    };
    let copy = args.run_as.as_ref().map(|kind| open::requantized(&args.model, kind, None, args.machine.threads, out));
    let copy = copy.transpose()?;
    let mut engine = Engine::open(copy.as_deref().unwrap_or(&args.model), &options)?;
    open::notes(&engine, out);
    let text = text.readable(&engine)?;
    let harvest = Harvest {
        layers: args.layer.clone(),
        site: args.hook,
        dtype: match args.dtype {
            Dtype::F16 => RowType::F16,
            Dtype::F32 => RowType::F32,
        },
        window: args.context,
        max_tokens: args.max_tokens,
        counts_as: copy.is_some().then(|| args.model.clone()),
        ..Harvest::default()
    };
    let mut bar = out.bar("harvest", "tokens");
    let made = engine
        .harvest(&text, &args.out, &harvest, &mut |step| bar.step(step))
        .map_err(when_cancelled("the rows so far are kept: the same command with --resume goes on after them"))?;
    drop(bar);
    let speed = made.n_tokens as f64 / made.seconds.max(1e-9);
    if out.json() {
        return out.object(&json!({
            "directory": shown(&args.out), "documents": text.len(), "layers": args.layer, "rows": made.n_rows,
            "tokens": made.n_tokens, "seconds": made.seconds, "tokens_per_second": speed,
        }));
    }
    out.facts(&[
        ("directory", args.out.display().to_string()),
        ("rows a layer", made.n_rows.to_string()),
        ("tokens computed", made.n_tokens.to_string()),
        ("seconds", format!("{:.1}", made.seconds)),
        ("tokens/s", format!("{speed:.0}")),
    ])
}
