//! `tiller find`: features by what they mean.

use clap::Args as Clap;
use std::path::PathBuf;
use tiller::Result;
use tiller::explain::Explanations;

use crate::open::{choose, feature_json, features_table};
use crate::output::Out;

/// Find the features that mean a concept
#[derive(Clap)]
pub(crate) struct Args {
    /// Explanations, as `tiller explain` writes them
    explanations: PathBuf,
    /// The concept, in words
    #[arg(required = true)]
    words: Vec<String>,
    /// How many features to show
    #[arg(short, long = "number", default_value_t = 10, value_name = "N")]
    n: usize,
    /// Search the labels, not the words
    #[arg(long)]
    label: bool,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let explanations = Explanations::load(&args.explanations)?;
    let words = args.words.join(" ");
    let matches =
        if args.label { explanations.find_label(&words, args.n) } else { choose(&explanations, &words, args.n, out)? };
    if out.json() {
        return matches.iter().try_for_each(|found| out.object(&feature_json(found)));
    }
    features_table(&matches, out)
}
