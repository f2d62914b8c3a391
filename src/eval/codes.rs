//! Rows to codes and back, on files, whoever made them.
//!
//! Rows come as `.npy`, `.npz`, `.safetensors` or a torch file that holds one array `[n_rows, d_model]`, or as a directory of
//! harvested rows. Codes are dense in a `.npy` file, `[n_rows, n_features]`, or sparse in a `.safetensors` file: `row` and
//! `feature` (u32) and `value` (f32), one entry for each active feature, and `shape` (i64, two numbers). Both decode to the
//! same bytes. Rows go through memory some thousand at a time; sparse codes and decoded rows are held whole.

use std::borrow::Cow;
use std::path::Path;

use crate::activations::Activations;
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::file::safetensors::{Dtype, Writer};
use crate::file::{Sink, Tensors, npy};
use crate::num::check_finite;
use crate::progress::{Progress, report};

/// Rows computed at once.
const BLOCK: usize = 4096;

/// Rows from a file or a harvest.
pub struct Rows(Origin);

enum Origin {
    Harvest(Box<Activations>),
    File { tensors: Box<Tensors>, name: String, shape: [usize; 2] },
}

impl Rows {
    /// Opens rows `[n, width]`; `name` says which array, if a file holds several.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) for several arrays without a name, or one of another shape;
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) for another width; [`Kind::Io`](crate::Kind::Io).
    pub fn open(path: &Path, name: Option<&str>, width: usize) -> Result<Self> {
        let rows = if path.is_dir() {
            Self(Origin::Harvest(Box::new(Activations::open(path)?)))
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
            Self(Origin::File { tensors: Box::new(tensors), name, shape })
        };
        if rows.width() != width {
            let (path, found) = (path.display(), rows.width());
            return Err(Error::mismatch(format!("{path}: expected rows of width {width}, found {found}")));
        }
        Ok(rows)
    }

    fn width(&self) -> usize {
        match &self.0 {
            Origin::Harvest(rows) => rows.d_model(),
            Origin::File { shape, .. } => shape[1],
        }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        match &self.0 {
            Origin::Harvest(rows) => rows.n_rows(),
            Origin::File { shape, .. } => shape[0],
        }
    }

    /// Calls `use_block` with the number of the first row of each block and its rows.
    ///
    /// # Errors
    /// What reading an array as numbers and `use_block` return.
    pub fn for_each_block(&self, use_block: &mut dyn FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        let width = self.width();
        match &self.0 {
            Origin::Harvest(rows) => {
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
            Origin::File { tensors, name, .. } => {
                let all: Cow<'_, [f32]> = tensors.get(name)?.to_f32()?;
                let blocks = all.chunks((BLOCK * width).max(1));
                (0..).step_by(BLOCK).zip(blocks).try_for_each(|(first, rows)| use_block(first, rows))
            }
        }
    }
}

/// What was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Rows.
    pub n_rows: usize,
    /// Active features of all rows: rows times L0.
    pub n_active: usize,
}

/// Encodes the rows in a file or directory into `out`: dense if it ends in `.npy`, sparse if in `.safetensors`. `name` says
/// which array, if the file holds several. Progress counts rows.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for another ending; as [`Rows::open`]; [`Kind::Io`](crate::Kind::Io);
/// [`Kind::Unsupported`](crate::Kind::Unsupported) for more than 2³² rows in a sparse file.
pub fn encode_file(
    dictionary: &Dictionary,
    rows: &Path,
    name: Option<&str>,
    out: &Path,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Encoded> {
    let ending = out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let dense = match ending {
        "npy" => true,
        "safetensors" => false,
        other => return Err(Error::argument(format!("codes: expected .npy or .safetensors, found \".{other}\""))),
    };
    let rows = Rows::open(rows, name, dictionary.d_model())?;
    let n_rows = rows.n_rows();
    let mut step = |done: usize| report(progress, done as u64, n_rows as u64, "");
    let n_active = if dense {
        write_dense(dictionary, &rows, out, threads, &mut step)?
    } else {
        write_sparse(dictionary, &rows, out, threads, &mut step)?
    };
    Ok(Encoded { n_rows, n_active })
}

fn write_dense(
    dictionary: &Dictionary,
    rows: &Rows,
    out: &Path,
    threads: usize,
    step: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<usize> {
    let (n, n_features) = (rows.n_rows(), dictionary.n_features());
    let mut active = 0;
    let counted = &mut active;
    npy::write_with(out, Dtype::F32, &[n, n_features], move |sink: &mut Sink<'_>| {
        let mut dense = vec![0f32; n_features];
        rows.for_each_block(&mut |first, block| {
            check_finite(block, dictionary.d_model(), first)?;
            let codes = dictionary.encode_batch(block, threads);
            *counted += codes.n_active();
            for row in codes.rows() {
                dense.fill(0.0);
                for &(i, f) in row {
                    if let Some(place) = dense.get_mut(i as usize) {
                        *place = f;
                    }
                }
                let bytes: Vec<u8> = dense.iter().flat_map(|v| v.to_le_bytes()).collect();
                sink.put(&bytes)?;
            }
            step(first)
        })
    })?;
    Ok(active)
}

fn write_sparse(
    dictionary: &Dictionary,
    rows: &Rows,
    out: &Path,
    threads: usize,
    step: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<usize> {
    let (n, n_features) = (rows.n_rows(), dictionary.n_features());
    let (mut ids, mut features, mut values) = (Vec::new(), Vec::new(), Vec::new());
    rows.for_each_block(&mut |first, block| {
        check_finite(block, dictionary.d_model(), first)?;
        let codes = dictionary.encode_batch(block, threads);
        for (row, codes) in (first..).zip(codes.rows()) {
            let row = u32::try_from(row).map_err(|_| Error::unsupported("more than 2^32 rows: write .npy"))?;
            for &(i, f) in codes {
                ids.extend(row.to_le_bytes());
                features.extend(i.to_le_bytes());
                values.extend(f.to_le_bytes());
            }
        }
        step(first)
    })?;
    let active = values.len() / size_of::<f32>();
    let shape: Vec<u8> = [n as i64, n_features as i64].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut file = Writer::new();
    file.tensor("row", Dtype::U32, &[active], ids);
    file.tensor("feature", Dtype::U32, &[active], features);
    file.tensor("value", Dtype::F32, &[active], values);
    file.tensor("shape", Dtype::I64, &[2], shape);
    file.write(out)?;
    Ok(active)
}

/// The codes of every row.
fn read_codes(path: &Path, n_features: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    let tensors = Tensors::open(path)?;
    if tensors.opt("feature").is_none() {
        let rows = Rows::open(path, None, n_features)?;
        let mut all = Vec::with_capacity(rows.n_rows());
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

/// Decodes the codes in a file, dense or sparse, to rows `[n, d_out]` in the `.npy` file `out`, and returns n. `rows` are the
/// rows that were encoded: dictionaries that normalise each row by itself, and those with a skip connection, need them.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) if such rows are needed; [`Kind::Mismatch`](crate::Kind::Mismatch) if widths or
/// numbers of rows differ; [`Kind::Format`](crate::Kind::Format) for codes that point outside; [`Kind::Io`](crate::Kind::Io).
pub fn decode_file(dictionary: &Dictionary, codes: &Path, rows: Option<&Path>, out: &Path) -> Result<usize> {
    let codes = read_codes(codes, dictionary.n_features())?;
    let (n, d_out) = (codes.len(), dictionary.d_out());
    let mut decoded = vec![0f32; n * d_out];
    match rows {
        None => {
            if dictionary.settings().normalization.is_per_row() || dictionary.has_skip() {
                return Err(Error::argument(
                    "the dictionary's output depends on each input row: give the rows that were encoded, too",
                ));
            }
            for (codes, row) in codes.iter().zip(decoded.chunks_exact_mut(d_out)) {
                dictionary.decode(codes, row);
            }
        }
        Some(path) => {
            let d_model = dictionary.d_model();
            let rows = Rows::open(path, None, d_model)?;
            if rows.n_rows() != n {
                let (path, found) = (path.display(), rows.n_rows());
                return Err(Error::mismatch(format!("{path}: expected {n} rows, as many as codes, found {found}")));
            }
            let mut left = codes.iter().zip(decoded.chunks_exact_mut(d_out));
            rows.for_each_block(&mut |_, block| {
                for (x, (codes, out)) in block.chunks_exact(d_model).zip(&mut left) {
                    dictionary.reconstruct(x, codes, out);
                }
                Ok(())
            })?;
        }
    }
    let bytes: Vec<u8> = decoded.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy::write(out, Dtype::F32, &[n, d_out], bytes)?;
    Ok(n)
}
