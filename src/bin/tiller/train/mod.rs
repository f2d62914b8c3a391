//! `tiller train`: what is learned from harvested rows, one file per kind.

mod dense;
mod probe;
mod sae;
mod source;
mod temporal;
mod vector;

use clap::{Args as Clap, Subcommand};
use std::path::PathBuf;
use tiller::{Error, Result};

use crate::output::{Out, when_cancelled};
pub(crate) use source::Source;

/// Train on harvested rows
#[derive(Clap)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A sparse dictionary (sparse autoencoder)
    Sae(Box<sae::Args>),
    /// A ConCA coder: codes that are log-posteriors of concepts
    Conca(dense::Conca),
    /// An SSAE: a coder of differences between paired rows
    Ssae(dense::Ssae),
    /// Directions that tell two kinds of rows apart: means, principal axes, CAA
    Vector(vector::Args),
    /// A linear probe that tells two kinds of rows apart
    Probe(probe::Args),
    Temporal(temporal::Args),
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    match &args.what {
        What::Sae(args) => sae::run(args, out),
        What::Conca(args) => dense::conca(args, out),
        What::Ssae(args) => dense::ssae(args, out),
        What::Vector(args) => vector::run(args, out),
        What::Probe(args) => probe::run(args, out),
        What::Temporal(args) => temporal::run(args, out),
    }
}

/// For `map_err`: what a cancelled run left, and how it goes on.
fn stopped(checkpoints: &[PathBuf]) -> impl Fn(Error) -> Error {
    move |error| {
        let hint = match checkpoints.iter().find(|path| path.exists()) {
            Some(path) => format!("the same command goes on from {}", path.display()),
            None if checkpoints.is_empty() => "nothing was kept: --checkpoint FILE keeps the state of a run".to_owned(),
            None => return error,
        };
        when_cancelled(&hint)(error)
    }
}
