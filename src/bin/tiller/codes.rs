//! `tiller encode` and `tiller decode`: rows to codes and back, on files.
//!
//! Rows come as `.npy`, `.npz`, `.safetensors` or a torch file that holds one array `[n_rows, d_model]`, or as a directory of
//! `tiller harvest`. Codes are dense in a `.npy` file, `[n_rows, n_features]`, or sparse in a `.safetensors` file: `row` and
//! `feature` (u32) and `value` (f32), one entry for each active feature, and `shape` (i64, two numbers).

use clap::Args as Clap;
use serde_json::json;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use tiller::activations::Activations;
use tiller::dictionary::{Dictionary, Family};
use tiller::file::Tensors;
use tiller::file::safetensors::{Dtype, Writer};
use tiller::file::{Sink, npy};
use tiller::progress::{Step, report};
use tiller::{Error, Result};

use crate::output::Out;

/// Rows computed at once.
const BLOCK: usize = 4096;

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

/// Rows from a file or a harvest.
pub(crate) enum Rows {
    Harvest(Box<Activations>),
    File { tensors: Box<Tensors>, name: String, shape: [usize; 2] },
}

impl Rows {
    /// Opens rows of width `width`.
    pub(crate) fn open(path: &Path, name: Option<&str>, width: usize) -> Result<Self> {
        let rows = if path.is_dir() {
            Self::Harvest(Box::new(Activations::open(path)?))
        } else {
            let tensors = Tensors::open(path)?;
            let names: Vec<&str> = tensors.names().collect();
            let name = match (name, names.as_slice()) {
                (Some(name), _) => name.to_owned(),
                (None, [name]) => (*name).to_owned(),
                _ => {
                    let found = names.join(", ");
                    return Err(Error::format(path, format_args!("expected one array, found {found}: name one")));
                }
            };
            let shape = tensors.get(&name)?.shape().to_vec();
            let Ok(shape) = <[usize; 2]>::try_from(shape.as_slice()) else {
                return Err(Error::format(
                    path,
                    format_args!("array \"{name}\": expected [n, {width}], found {shape:?}"),
                ));
            };
            Self::File { tensors: Box::new(tensors), name, shape }
        };
        if rows.width() != width {
            let (path, found) = (path.display(), rows.width());
            return Err(Error::mismatch(format!("{path}: expected rows of width {width}, found {found}")));
        }
        Ok(rows)
    }

    fn width(&self) -> usize {
        match self {
            Self::Harvest(rows) => rows.d_model(),
            Self::File { shape, .. } => shape[1],
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Harvest(rows) => rows.n_rows(),
            Self::File { shape, .. } => shape[0],
        }
    }

    /// Calls `use_block` with the number of the first row of each block and its rows.
    pub(crate) fn for_each_block(&self, use_block: &mut dyn FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        let width = self.width();
        match self {
            Self::Harvest(rows) => {
                let mut block = Vec::new();
                for first in (0..rows.n_rows()).step_by(BLOCK) {
                    let n = BLOCK.min(rows.n_rows() - first);
                    block.resize(n * width, 0.0);
                    for (i, row) in block.chunks_exact_mut(width).enumerate() {
                        rows.row(first + i, row);
                    }
                    use_block(first, &block)?;
                }
                Ok(())
            }
            Self::File { tensors, name, .. } => {
                let all: Cow<'_, [f32]> = tensors.get(name)?.to_f32()?;
                let blocks = all.chunks((BLOCK * width).max(1));
                (0..).step_by(BLOCK).zip(blocks).try_for_each(|(first, rows)| use_block(first, rows))
            }
        }
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

pub(crate) fn encode(args: &EncodeArgs, out: &Out) -> Result<()> {
    let dictionary = Dictionary::open_as(&args.dictionary, args.how.family)?;
    let rows = Rows::open(&args.rows, args.name.as_deref(), dictionary.d_model())?;
    let (n, n_features, threads) = (rows.len(), dictionary.n_features(), args.how.threads());
    let mut bar = out.bar("encode", "rows");
    let mut active = 0;
    let mut step = |done: usize| report(&mut |step: Step<'_>| bar.step(step), done as u64, n as u64, "");
    match extension(&args.out) {
        "npy" => {
            let active = &mut active;
            npy::write_with(&args.out, Dtype::F32, &[n, n_features], move |sink: &mut Sink<'_>| {
                let mut dense = vec![0f32; n_features];
                rows.for_each_block(&mut |first, block| {
                    let codes = dictionary.encode_batch(block, threads);
                    *active += codes.n_active();
                    for row in codes.rows() {
                        dense.fill(0.0);
                        row.iter().for_each(|&(i, f)| dense[i as usize] = f);
                        let bytes: Vec<u8> = dense.iter().flat_map(|v| v.to_le_bytes()).collect();
                        sink.put(&bytes)?;
                    }
                    step(first)
                })
            })?;
        }
        "safetensors" => {
            let (mut row_ids, mut features, mut values) = (Vec::new(), Vec::new(), Vec::new());
            rows.for_each_block(&mut |first, block| {
                let codes = dictionary.encode_batch(block, threads);
                for (row, codes) in (first..).zip(codes.rows()) {
                    let row = u32::try_from(row).map_err(|_| Error::unsupported("more than 2^32 rows: write .npy"))?;
                    for &(i, f) in codes {
                        row_ids.extend(row.to_le_bytes());
                        features.extend(i.to_le_bytes());
                        values.extend(f.to_le_bytes());
                    }
                }
                active += codes.n_active();
                step(first)
            })?;
            let shape: Vec<u8> = [n as i64, n_features as i64].iter().flat_map(|v| v.to_le_bytes()).collect();
            let mut file = Writer::new();
            file.tensor("row", Dtype::U32, &[active], row_ids);
            file.tensor("feature", Dtype::U32, &[active], features);
            file.tensor("value", Dtype::F32, &[active], values);
            file.tensor("shape", Dtype::I64, &[2], shape);
            file.write(&args.out)?;
        }
        other => return Err(Error::argument(format!("--out: expected .npy or .safetensors, found \".{other}\""))),
    }
    drop(bar);
    let l0 = active as f64 / n.max(1) as f64;
    if out.json() {
        return out.object(&json!({"codes": args.out, "rows": n, "features": n_features, "active": active, "l0": l0}));
    }
    out.facts(&[("codes", args.out.display().to_string()), ("rows", n.to_string()), ("L0", format!("{l0:.2}"))])
}

/// The codes of every row.
fn read_codes(path: &Path, n_features: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    let tensors = Tensors::open(path)?;
    if tensors.opt("feature").is_none() {
        let rows = Rows::open(path, None, n_features)?;
        let mut all = Vec::with_capacity(rows.len());
        rows.for_each_block(&mut |_, block| {
            let sparse = |row: &[f32]| (0..).zip(row.iter().copied()).filter(|code| code.1 != 0.0).collect();
            all.extend(block.chunks_exact(n_features).map(sparse));
            Ok(())
        })?;
        return Ok(all);
    }
    let wrong = |what: String| Error::format(path, what);
    let shape = tensors.get("shape")?.expect_shape(&[2])?.to_i64()?;
    let size = |i: usize| shape.get(i).and_then(|&n| usize::try_from(n).ok());
    let (Some(n), Some(found)) = (size(0), size(1)) else { return Err(wrong(format!("shape: found {shape:?}"))) };
    if found != n_features {
        let path = path.display();
        return Err(Error::mismatch(format!("{path}: expected codes of {n_features} features, found {found}")));
    }
    let values = tensors.get("value")?;
    let active = values.shape().first().copied().unwrap_or_default();
    let values = values.expect_shape(&[active])?.to_f32()?;
    let ids = |name: &str| tensors.get(name)?.expect_shape(&[active])?.to_i64();
    if n > u32::MAX as usize {
        return Err(wrong(format!("shape: expected at most 2^32 rows, found {n}")));
    }
    let mut all = vec![Vec::new(); n];
    for (i, ((row, feature), &value)) in ids("row")?.into_iter().zip(ids("feature")?).zip(values.iter()).enumerate() {
        let row = usize::try_from(row).ok().and_then(|row| all.get_mut(row));
        let feature = u32::try_from(feature).ok().filter(|&id| (id as usize) < n_features);
        match (row, feature) {
            (Some(row), Some(feature)) => row.push((feature, value)),
            _ => return Err(wrong(format!("entry {i}: expected a row below {n} and a feature below {n_features}"))),
        }
    }
    Ok(all)
}

pub(crate) fn decode(args: &DecodeArgs, out: &Out) -> Result<()> {
    let dictionary = Dictionary::open_as(&args.dictionary, args.how.family)?;
    let codes = read_codes(&args.codes, dictionary.n_features())?;
    let (n, d_out) = (codes.len(), dictionary.d_out());
    let mut decoded = vec![0f32; n * d_out];
    match &args.rows {
        None => {
            if dictionary.settings().normalization.is_per_row() || dictionary.has_skip() {
                return Err(Error::argument(
                    "the dictionary's output depends on each input row: give the rows that were encoded with --rows",
                ));
            }
            for (codes, row) in codes.iter().zip(decoded.chunks_exact_mut(d_out)) {
                dictionary.decode(codes, row);
            }
        }
        Some(path) => {
            let d_model = dictionary.d_model();
            let rows = Rows::open(path, None, d_model)?;
            if rows.len() != n {
                let (path, found) = (path.display(), rows.len());
                return Err(Error::mismatch(format!("{path}: expected {n} rows, as many as codes, found {found}")));
            }
            rows.for_each_block(&mut |first, block| {
                for (i, x) in (first..).zip(block.chunks_exact(d_model)) {
                    dictionary.reconstruct(x, &codes[i], &mut decoded[i * d_out..(i + 1) * d_out]);
                }
                Ok(())
            })?;
        }
    }
    let bytes: Vec<u8> = decoded.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy::write(&args.out, Dtype::F32, &[n, d_out], bytes)?;
    if out.json() {
        return out.object(&json!({"rows": args.out, "n": n, "width": d_out}));
    }
    out.facts(&[("rows", args.out.display().to_string()), ("n", n.to_string()), ("width", d_out.to_string())])
}
