//! `tiller convert`: a dictionary of any family to our GGUF, or to the directories of SAELens and sparsify.

use clap::{Args as Clap, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use tiller::dictionary::{Dictionary, Family};
use tiller::eval::codes::Rows;
use tiller::eval::quality::{Meter, Quality};
use tiller::file::gguf::GgmlType;
use tiller::{Error, Result};

use crate::codes::{family, threads};
use crate::output::Out;
use crate::paths::{check_outputs, shown};

/// Convert a dictionary, and say what that costs
#[derive(Clap)]
pub(crate) struct Args {
    /// The dictionary, of any family: a file or a directory
    dictionary: PathBuf,
    /// Where to write: a file for gguf, a directory for the others
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// Whose format
    #[arg(long, value_enum, default_value = "gguf")]
    to: To,
    /// How weights are stored in a gguf: f32, f16, bf16, q8_0, or what ggml quantizes to: q4_0, q4_1, q5_0, q5_1, q4_k, ...
    #[arg(long, default_value = "f16", value_parser = stored, value_name = "TYPE")]
    quant: GgmlType,
    /// Who made the dictionary's files, if they do not tell
    #[arg(long, value_parser = family, value_name = "FAMILY")]
    family: Option<Family>,
    /// Of features that live at several layers, take those of this one
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    /// Leave out the features that never fired when statistics were counted; the others are renumbered
    #[arg(long)]
    drop_dead: bool,
    /// Rows [n, d_model] to measure L0 and FVU on, before and after: .npy or a directory of `tiller harvest`
    #[arg(long, value_name = "FILE|DIR")]
    rows: Option<PathBuf>,
    /// Threads; 0 takes all
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum To {
    Gguf,
    Saelens,
    Sparsify,
}

/// A type by its name.
fn stored(text: &str) -> std::result::Result<GgmlType, String> {
    let known = "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl";
    GgmlType::from_name(text).ok_or_else(|| format!("expected a type of ggml's, such as {known}"))
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    if args.to == To::Gguf {
        check_outputs([&args.out], [&args.dictionary].into_iter().chain(&args.rows))?;
    }
    let mut dictionary = Dictionary::open_as(&args.dictionary, args.family)?;
    if let Some(layer) = args.layer {
        dictionary = dictionary.at_layer(layer).map_err(|e| e.context(args.dictionary.display()))?;
    }
    if args.to != To::Gguf {
        dictionary.check_one_layer("a directory of another program")?;
    }
    if args.rows.is_some() {
        dictionary.check_one_layer("measuring L0 and FVU")?;
    }
    if args.drop_dead {
        let before = dictionary.n_features();
        dictionary = dictionary.without_dead().map_err(|e| e.context(args.dictionary.display()))?;
        out.note(format!("{} of {before} features never fired", before - dictionary.n_features()));
    }
    dictionary.info().notes.iter().for_each(|note| out.note(format!("note: {note}")));
    let loss = match args.to {
        To::Gguf => Some(tiller::engine::convert(&dictionary, &args.out, args.quant)?),
        To::Saelens => dictionary.save_saelens(&args.out).map(|()| None)?,
        To::Sparsify => dictionary.save_sparsify(&args.out).map(|()| None)?,
    };
    let quality = match &args.rows {
        Some(path) => {
            let converted = Dictionary::open(&args.out)?;
            let rows = Rows::open(path, None, dictionary.d_model())?;
            Some((measure(&dictionary, &rows, args.threads)?, measure(&converted, &rows, args.threads)?))
        }
        None => None,
    };
    if out.json() {
        let cosine = loss.map(|loss| {
            json!({"encoder": {"min": loss.encoder.min, "mean": loss.encoder.mean},
                   "decoder": {"min": loss.decoder.min, "mean": loss.decoder.mean}})
        });
        let change = quality.map(|(before, after)| {
            json!({"rows": before.n_rows, "l0": [before.l0, after.l0], "fvu": [before.fvu, after.fvu]})
        });
        return out.object(&json!({"dictionary": shown(&args.out), "cosine": cosine, "quality": change}));
    }
    let mut facts = vec![("dictionary", args.out.display().to_string())];
    if let Some(loss) = loss {
        let text =
            |fidelity: tiller::dictionary::Fidelity| format!("worst {:.6}, mean {:.6}", fidelity.min, fidelity.mean);
        facts.push(("cosine of encoder rows", text(loss.encoder)));
        facts.push(("cosine of decoder rows", text(loss.decoder)));
    }
    if let Some((before, after)) = quality {
        facts.push(("L0", format!("{:.3}, was {:.3}", after.l0, before.l0)));
        facts.push(("FVU", format!("{:.5}, was {:.5}", after.fvu, before.fvu)));
    }
    out.facts(&facts)
}

fn measure(dictionary: &Dictionary, rows: &Rows, given: usize) -> Result<Quality> {
    let mut meter = Meter::new(dictionary);
    rows.for_each_block(&mut |_, block| {
        meter.add(block, threads(given));
        Ok(())
    })?;
    meter.finish().map_err(|e: Error| e.context("rows"))
}
