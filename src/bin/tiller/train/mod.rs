//! `tiller train`: what is learned from harvested rows, one file per kind.

mod sae;

use clap::{Args as Clap, Subcommand};
use tiller::Result;

use crate::output::Out;
pub(crate) use sae::stored;

/// Train on harvested rows
#[derive(Clap)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A sparse dictionary (sparse autoencoder)
    Sae(sae::Args),
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    match &args.what {
        What::Sae(args) => sae::run(args, out),
    }
}
