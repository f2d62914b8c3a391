//! `tiller encode` and `tiller decode`: rows to codes and back, on files ([`tiller::eval::codes`]).

use clap::Args as Clap;
use serde_json::json;
use std::path::PathBuf;
use tiller::Result;
use tiller::dictionary::{Dictionary, Family};
use tiller::eval::codes::{decode_file, encode_file};

use crate::output::Out;
use crate::paths::{check_outputs, shown};

/// Encode rows: which features are active in each, and how much
#[derive(Clap)]
pub(crate) struct EncodeArgs {
    /// The dictionary, of any family
    dictionary: PathBuf,
    /// Rows [n, d_model]: .npy, .npz, .safetensors, a torch file, or a directory of `tiller harvest`
    #[arg(long, value_name = "FILE|DIR")]
    rows: PathBuf,
    /// Name of the array in that file, if it holds several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Codes: dense as .npy [n, n_features], sparse as .safetensors (row, feature, value)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    how: How,
}

/// Decode codes to rows
#[derive(Clap)]
pub(crate) struct DecodeArgs {
    /// The dictionary, of any family
    dictionary: PathBuf,
    /// Codes as `tiller encode` writes them, or any array [n, n_features]
    #[arg(long, value_name = "FILE")]
    codes: PathBuf,
    /// The rows that were encoded: for dictionaries that normalise each row by itself
    #[arg(long, value_name = "FILE|DIR")]
    rows: Option<PathBuf>,
    /// Rows [n, d_model] as .npy
    #[arg(long, value_name = "FILE.npy")]
    out: PathBuf,
    #[command(flatten)]
    how: How,
}

#[derive(Clap)]
struct How {
    /// Who made the dictionary's files, if they do not tell
    #[arg(long, value_parser = family, value_name = "FAMILY")]
    family: Option<Family>,
    /// Threads; 0 takes all
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

impl How {
    fn threads(&self) -> usize {
        threads(self.threads)
    }
}

/// A family by its name.
pub(crate) fn family(text: &str) -> std::result::Result<Family, String> {
    let names = || Family::ALL.map(Family::name).join(", ");
    Family::from_name(text).ok_or_else(|| format!("expected one of {}", names()))
}

/// All threads for 0.
pub(crate) fn threads(given: usize) -> usize {
    if given == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { given }
}

pub(crate) fn encode(args: &EncodeArgs, out: &Out) -> Result<()> {
    check_outputs([&args.out], [&args.dictionary, &args.rows])?;
    let dictionary = Dictionary::open_as(&args.dictionary, args.how.family)?;
    let mut bar = out.bar("encode", "rows");
    let (name, threads) = (args.name.as_deref(), args.how.threads());
    let done = encode_file(&dictionary, &args.rows, name, &args.out, threads, &mut |step| bar.step(step))?;
    drop(bar);
    let (n, active, n_features) = (done.n_rows, done.n_active, dictionary.n_features());
    let l0 = active as f64 / n.max(1) as f64;
    if out.json() {
        return out.object(
            &json!({"codes": shown(&args.out), "rows": n, "features": n_features, "active": active, "l0": l0}),
        );
    }
    out.facts(&[("codes", args.out.display().to_string()), ("rows", n.to_string()), ("L0", format!("{l0:.2}"))])
}

pub(crate) fn decode(args: &DecodeArgs, out: &Out) -> Result<()> {
    check_outputs([&args.out], [&args.dictionary, &args.codes].into_iter().chain(&args.rows))?;
    let dictionary = Dictionary::open_as(&args.dictionary, args.how.family)?;
    let n = decode_file(&dictionary, &args.codes, args.rows.as_deref(), &args.out)?;
    let d_out = dictionary.d_out();
    if out.json() {
        return out.object(&json!({"rows": shown(&args.out), "n": n, "width": d_out}));
    }
    out.facts(&[("rows", args.out.display().to_string()), ("n", n.to_string()), ("width", d_out.to_string())])
}
