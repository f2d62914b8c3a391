//! Rows to codes and back, on files, whoever made them.
//!
//! Rows come as `.npy`, `.npz`, `.safetensors` or a torch file that holds one array `[n_rows, d_model]`, or as a directory of
//! harvested rows. Codes are dense in a `.npy` file, `[n_rows, n_features]`, or sparse in a `.safetensors` file: `row` and
//! `feature` (u32) and `value` (f32), one entry for each active feature, and `shape` (i64, two numbers). Both decode to the
//! same bytes. Rows go through memory some thousand at a time; sparse codes are held whole.

use std::borrow::Cow;
use std::path::Path;

use crate::activations::Activations;
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::file::safetensors::{Dtype, Writer};
use crate::file::{Sink, Tensors, npy, reserve};
use crate::num::check_finite;
use crate::progress::{Progress, report};

/// Rows computed at once.
const BLOCK: usize = 4096;
/// Rows of sparse codes for each code, and without any. Of the sparsest dictionaries most rows have a code; a file of some
/// hundred bytes that speaks of millions of rows would have a disk filled.
const ROWS_A_CODE: usize = 1024;
const EMPTY_ROWS: usize = 1 << 16;

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
            let name = only_array(&tensors, path, name)?;
            let shape = matrix(&tensors, path, &name, width)?;
            Self(Origin::File { tensors: Box::new(tensors), name, shape })
        };
        match rows.width() {
            found if found == width => Ok(rows),
            found => Err(other_width(path, found, width)),
        }
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

/// The array called `name`, or the only one.
fn only_array(tensors: &Tensors, path: &Path, name: Option<&str>) -> Result<String> {
    let names: Vec<&str> = tensors.names().collect();
    match (name, names.as_slice()) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, [name]) => Ok((*name).to_owned()),
        _ => {
            let found = names.join(", ");
            Err(Error::format(path, format_args!("expected one array, found {found}: name one")))
        }
    }
}

/// The shape of a matrix.
fn matrix(tensors: &Tensors, path: &Path, name: &str, width: usize) -> Result<[usize; 2]> {
    let shape = tensors.get(name)?.shape().to_vec();
    <[usize; 2]>::try_from(shape.as_slice())
        .map_err(|_| Error::format(path, format_args!("array \"{name}\": expected [n, {width}], found {shape:?}")))
}

fn other_width(path: &Path, found: usize, expected: usize) -> Error {
    Error::mismatch(format!("{}: expected rows of width {expected}, found {found}", path.display()))
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
    dictionary.check_one_layer("encoding")?;
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

/// The codes of rows, from a file.
enum Codes<'t> {
    /// `[n_rows, n_features]`.
    Dense(Cow<'t, [f32]>),
    /// (row, feature, value) in the order of rows, and the number of rows.
    Sparse(Vec<(u32, u32, f32)>, usize),
}

impl<'t> Codes<'t> {
    fn of(tensors: &'t Tensors, path: &Path, n_features: usize) -> Result<Self> {
        if tensors.opt("feature").is_some() {
            return Self::sparse(tensors, path, n_features);
        }
        let name = only_array(tensors, path, None)?;
        let [_, width] = matrix(tensors, path, &name, n_features)?;
        match width == n_features {
            true => Ok(Self::Dense(tensors.get(&name)?.to_f32()?)),
            false => Err(other_width(path, width, n_features)),
        }
    }

    fn sparse(tensors: &Tensors, path: &Path, n_features: usize) -> Result<Self> {
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
        let most = active.saturating_mul(ROWS_A_CODE).saturating_add(EMPTY_ROWS).min(u32::MAX as usize);
        if n > most {
            return Err(wrong(format!("shape: expected at most {most} rows for {active} codes, found {n}")));
        }
        let mut all = Vec::new();
        reserve(&mut all, active, path.display())?;
        for (i, ((row, feature), &value)) in ids("row")?.into_iter().zip(ids("feature")?).zip(values.iter()).enumerate()
        {
            let row = u32::try_from(row).ok().filter(|&row| (row as usize) < n);
            let feature = u32::try_from(feature).ok().filter(|&id| (id as usize) < n_features);
            match (row, feature) {
                (Some(row), Some(feature)) => all.push((row, feature, value)),
                _ => {
                    return Err(wrong(format!("entry {i}: expected a row below {n} and a feature below {n_features}")));
                }
            }
        }
        // As tiller writes them, they are. The order within a row stays.
        if !all.is_sorted_by_key(|code| code.0) {
            all.sort_by_key(|code| code.0);
        }
        Ok(Self::Sparse(all, n))
    }

    fn n_rows(&self, n_features: usize) -> usize {
        match self {
            Self::Dense(all) => all.len() / n_features.max(1),
            Self::Sparse(_, n) => *n,
        }
    }

    /// The codes of row `i` that are not 0.
    fn row(&self, i: usize, n_features: usize, out: &mut Vec<(u32, f32)>) {
        out.clear();
        match self {
            Self::Dense(all) => {
                let row = all.get(i * n_features..(i + 1) * n_features).unwrap_or_default();
                out.extend((0..).zip(row.iter().copied()).filter(|code| code.1 != 0.0));
            }
            Self::Sparse(all, _) => {
                let first = all.partition_point(|code| (code.0 as usize) < i);
                let row = all.iter().skip(first).take_while(|code| code.0 as usize == i);
                out.extend(row.map(|&(_, feature, value)| (feature, value)));
            }
        }
    }
}

/// Decodes the codes in a file, dense or sparse, to rows `[n, d_out]` in the `.npy` file `out`, and returns n. `rows` are the
/// rows that were encoded: dictionaries that normalise each row by itself, and those with a skip connection, need them.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) if such rows are needed; [`Kind::Mismatch`](crate::Kind::Mismatch) if widths or
/// numbers of rows differ; [`Kind::Format`](crate::Kind::Format) for codes that point outside, and for sparse ones of many
/// more rows than codes; [`Kind::Io`](crate::Kind::Io).
pub fn decode_file(dictionary: &Dictionary, codes: &Path, rows: Option<&Path>, out: &Path) -> Result<usize> {
    dictionary.check_one_layer("decoding")?;
    let (n_features, d_out, d_model) = (dictionary.n_features(), dictionary.d_out(), dictionary.d_model());
    let tensors = Tensors::open(codes)?;
    let codes = Codes::of(&tensors, codes, n_features)?;
    let n = codes.n_rows(n_features);
    let rows = rows.map(|path| Rows::open(path, None, d_model).map(|rows| (path, rows))).transpose()?;
    match &rows {
        None if dictionary.settings().normalization.is_per_row() || dictionary.has_skip() => {
            return Err(Error::argument(
                "the dictionary's output depends on each input row: give the rows that were encoded, too",
            ));
        }
        Some((path, rows)) if rows.n_rows() != n => {
            let (path, found) = (path.display(), rows.n_rows());
            return Err(Error::mismatch(format!("{path}: expected {n} rows, as many as codes, found {found}")));
        }
        _ => {}
    }
    npy::write_with(out, Dtype::F32, &[n, d_out], |sink: &mut Sink<'_>| {
        let (mut of_row, mut decoded) = (Vec::new(), vec![0f32; d_out]);
        let mut put = |i: usize, x: Option<&[f32]>| {
            codes.row(i, n_features, &mut of_row);
            match x {
                None => dictionary.decode(&of_row, &mut decoded),
                Some(x) => dictionary.reconstruct(x, &of_row, &mut decoded),
            }
            sink.put(&decoded.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
        };
        match &rows {
            None => (0..n).try_for_each(|i| put(i, None)),
            Some((_, rows)) => rows.for_each_block(&mut |first, block| {
                (first..).zip(block.chunks_exact(d_model)).try_for_each(|(i, x)| put(i, Some(x)))
            }),
        }
    })?;
    Ok(n)
}
