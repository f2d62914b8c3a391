//! Floor 2: shards of residual rows on disk, with token ids, positions and document bounds.
//!
//! A directory holds `meta.json` and `rows-00000.safetensors`, `rows-00001.safetensors`, …, which NumPy and PyTorch read
//! without us. Tensors of a shard:
//!
//! | name | shape | type | meaning |
//! |---|---|---|---|
//! | `rows` | `[n, d_model]` | F16 or F32 | the residual stream after block `layer` |
//! | `tokens` | `[n]` | I32 | the token at each row |
//! | `positions` | `[n]` | I32 | its position in its window; rows at position 0 are attention sinks: leave them out of statistics |
//! | `documents` | `[n_documents + 1]` | I64 | where each window starts in this shard, and the end |
//!
//! A shard is complete or absent (temp file, then rename), and `meta.json` counts the complete ones and says where in the
//! text they end: a harvest that was killed goes on there. Rows of a harvest that was stopped and went on are to the bit those
//! of one in a single run; only the shard at the stop is shorter.
//! The metadata of a shard say where it ends, too: of several layers, some of which have one shard more than the others,
//! that shard is given up ([`align`]).

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file::{Map, json, read_text};
use crate::hook_point::HookPoint;

mod writer;

pub use writer::{Writer, align};

const FORMAT: u32 = 1;
/// What helps against every mistake in `meta.json`.
const HINT: &str = "`tiller harvest` writes this file; harvest the rows again, or with the same version of tiller";
/// A shard takes some twenty bytes of `meta.json`: this is a million of them.
const MAX_META_BYTES: u64 = 32 << 20;
/// The widest residual streams have some ten thousand numbers.
const MAX_WIDTH: usize = 1 << 20;

/// How rows are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowType {
    /// 16-bit floats: half the space, relative error 5e-4.
    #[default]
    F16,
    /// 32-bit floats.
    F32,
}

/// What `meta.json` says of a directory of shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Version of this layout.
    pub format: u32,
    /// The model's own name.
    pub model: String,
    /// Fingerprint of the model file.
    pub model_fingerprint: String,
    /// The block after which the rows were read.
    pub layer: usize,
    /// The site of the block: `resid_post`, or another [`Site`](crate::hook_point::Site).
    pub hook: String,
    /// Width of the residual stream.
    pub d_model: usize,
    /// How rows are stored.
    pub dtype: RowType,
    /// Longest window, in tokens.
    pub window: usize,
    /// Rows in all complete shards.
    pub n_rows: u64,
    /// Rows of each complete shard.
    pub shards: Vec<u64>,
    /// Documents of the text that are done.
    pub documents_done: u64,
    /// Windows of the next document that are done; 0 is not written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub windows_done: u64,
    /// Identifies the text, so that a harvest is never resumed on another one.
    pub text: String,
    /// Whether the whole text was harvested.
    pub complete: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Rows of one shard, mapped.
pub struct Shard {
    map: Arc<Map>,
    dtype: RowType,
    d_model: usize,
    rows: Range<usize>,
    tokens: Vec<i32>,
    positions: Vec<i32>,
    documents: Vec<usize>,
}

/// A directory of shards.
pub struct Activations {
    directory: PathBuf,
    meta: Meta,
    shards: Vec<Shard>,
    /// First row of each shard, and the number of rows.
    starts: Vec<usize>,
}

impl Activations {
    /// Opens every complete shard of `directory`. Rows stay on disk until they are read.
    pub fn open(directory: &Path) -> Result<Self> {
        let meta = read_meta(directory)?;
        let (mut shards, mut starts, mut total) = (Vec::new(), vec![0], 0);
        for (i, &n_rows) in meta.shards.iter().enumerate() {
            let shard = Shard::open(&shard_path(directory, i), &meta)?;
            if shard.n_rows() as u64 != n_rows {
                let path = shard_path(directory, i);
                return Err(Error::format(&path, format_args!("{} rows, but meta.json says {n_rows}", shard.n_rows())));
            }
            total += shard.n_rows();
            starts.push(total);
            shards.push(shard);
        }
        Ok(Self { directory: directory.to_owned(), meta, shards, starts })
    }

    /// Where it was opened.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `meta.json` says.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Where the rows were read.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a site that this version does not know.
    pub fn point(&self) -> Result<HookPoint> {
        let site = self.meta.hook.parse().map_err(|e: Error| e.context(self.directory.display()))?;
        Ok(HookPoint::new(site, self.meta.layer))
    }

    /// Width of a row.
    pub fn d_model(&self) -> usize {
        self.meta.d_model
    }

    /// Rows in all shards.
    pub fn n_rows(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The shards, in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Copies row `i` to `out` as f32.
    ///
    /// # Panics
    /// When there is no row `i`, or `out` is not `d_model` long.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        let (shard, row) = self.locate(i);
        shard.read(row..row + 1, out);
    }

    /// The token at row `i`. Panics when there is no such row.
    pub fn token(&self, i: usize) -> i32 {
        let (shard, row) = self.locate(i);
        shard.tokens[row]
    }

    /// The position of row `i` in its window. Panics when there is no such row.
    pub fn position(&self, i: usize) -> i32 {
        let (shard, row) = self.locate(i);
        shard.positions[row]
    }

    fn locate(&self, i: usize) -> (&Shard, usize) {
        assert!(i < self.n_rows(), "row {i} of {}", self.n_rows());
        let at = self.starts.partition_point(|&start| start <= i) - 1;
        (&self.shards[at], i - self.starts[at])
    }
}

impl Shard {
    fn open(path: &Path, meta: &Meta) -> Result<Self> {
        let map = Map::open(path)?;
        let wrong = |what: String| Error::format(path, what);
        let file = SafeTensors::deserialize(map.bytes()).map_err(|e| wrong(format!("no safetensors file: {e}")))?;
        let tensor = |name: &str, dtype: Dtype, shape: &[usize]| {
            let view = file.tensor(name).map_err(|e| wrong(format!("tensor \"{name}\": {e}")))?;
            let fits = shape.len() == view.shape().len()
                && shape.iter().zip(view.shape()).all(|(&want, &found)| want == usize::MAX || want == found);
            if view.dtype() != dtype || !fits {
                let (found, shape) = (view.dtype(), view.shape());
                return Err(wrong(format!("tensor \"{name}\" is {found:?} {shape:?}, expected {dtype:?}")));
            }
            Ok(view)
        };
        let dtype = match meta.dtype {
            RowType::F16 => Dtype::F16,
            RowType::F32 => Dtype::F32,
        };
        let view = tensor("rows", dtype, &[usize::MAX, meta.d_model])?;
        let n_rows = view.shape().first().copied().unwrap_or(0);
        let start = view.data().as_ptr().addr() - map.bytes().as_ptr().addr();
        let rows = start..start + view.data().len();
        let integers = |view: TensorView<'_>| bytemuck::allocation::pod_collect_to_vec::<u8, i32>(view.data());
        let tokens = integers(tensor("tokens", Dtype::I32, &[n_rows])?);
        let positions = integers(tensor("positions", Dtype::I32, &[n_rows])?);
        let bounds =
            bytemuck::allocation::pod_collect_to_vec::<u8, i64>(tensor("documents", Dtype::I64, &[usize::MAX])?.data());
        let documents: Vec<usize> = bounds.iter().map(|&bound| usize::try_from(bound).unwrap_or(usize::MAX)).collect();
        let ordered = documents.windows(2).all(|w| w[0] < w[1]);
        if documents.first() != Some(&0) || documents.last() != Some(&n_rows) || !ordered {
            return Err(wrong(format!("tensor \"documents\" does not rise from 0 to {n_rows}")));
        }
        Ok(Self { map, dtype: meta.dtype, d_model: meta.d_model, rows, tokens, positions, documents })
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// The token at each row.
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// The position of each row in its window.
    pub fn positions(&self) -> &[i32] {
        &self.positions
    }

    /// Where each window starts, and the number of rows.
    pub fn documents(&self) -> &[usize] {
        &self.documents
    }

    /// Copies rows to `out`, `[rows.len(), d_model]`, as f32.
    ///
    /// # Panics
    /// When `rows` passes the end, or `out` has another length.
    pub fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        assert_eq!(out.len(), rows.len() * self.d_model, "room for the rows");
        let all = &self.map.bytes()[self.rows.clone()];
        let take = |size: usize| &all[rows.start * self.d_model * size..rows.end * self.d_model * size];
        match self.dtype {
            RowType::F16 => half_to_f32(take(2), out),
            RowType::F32 => {
                for (out, bytes) in out.iter_mut().zip(take(4).chunks_exact(4)) {
                    *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
            }
        }
    }
}

fn half_to_f32(bytes: &[u8], out: &mut [f32]) {
    use half::slice::HalfFloatSliceExt;
    match bytemuck::try_cast_slice::<u8, f16>(bytes) {
        Ok(halves) => halves.convert_to_f32_slice(out),
        Err(_) => {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *out = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
    }
}

fn shard_path(directory: &Path, i: usize) -> PathBuf {
    directory.join(format!("rows-{i:05}.safetensors"))
}

fn read_meta(directory: &Path) -> Result<Meta> {
    let path = directory.join("meta.json");
    let text = read_text(&path, MAX_META_BYTES)?;
    let meta: Meta = serde_json::from_str(&text).map_err(|e| json::error(&e, &text, path.display(), 1, HINT))?;
    let wrong = |what: String| Err(Error::format(&path, what).hinted(HINT));
    if meta.format != FORMAT {
        return wrong(format!("format {}, expected {FORMAT}", meta.format));
    }
    if !(1..=MAX_WIDTH).contains(&meta.d_model) {
        return wrong(format!("d_model: expected 1 to {MAX_WIDTH}, found {}", meta.d_model));
    }
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn meta(layer: usize) -> Meta {
        Meta {
            format: FORMAT,
            model: "m".into(),
            model_fingerprint: String::new(),
            layer,
            hook: "resid_post".into(),
            d_model: 2,
            dtype: RowType::F32,
            window: 8,
            n_rows: 0,
            shards: Vec::new(),
            documents_done: 0,
            windows_done: 0,
            text: "t".into(),
            complete: false,
        }
    }

    fn writer(directory: &Path, layer: usize) -> Writer {
        Writer::open(&directory.join(format!("layer-{layer}")), meta(layer), 2).unwrap()
    }

    /// Writes document `i` as a shard.
    fn shard(writer: &mut Writer, i: u64) {
        writer.window(&[i as f32, 1.0, 2.0, 3.0], &[1, 2]).unwrap();
        writer.flush(i + 1, 0).unwrap();
    }

    /// A kill between two layers' shards left one ahead, and the harvest could not go on.
    #[test]
    fn layers_of_which_some_are_a_shard_ahead_meet_at_the_last_common_document() {
        for before in [0, 1, 3] {
            let dir = tempfile::tempdir().unwrap();
            let mut writers = [writer(dir.path(), 4), writer(dir.path(), 9), writer(dir.path(), 11)];
            (0..before).for_each(|i| writers.iter_mut().for_each(|writer| shard(writer, i)));
            writers[..2].iter_mut().for_each(|writer| shard(writer, before));
            drop(writers);
            let mut writers = [writer(dir.path(), 4), writer(dir.path(), 9), writer(dir.path(), 11)];
            align(&mut writers).unwrap();
            assert!(writers.iter().all(|writer| writer.meta.documents_done == before));
            writers.iter_mut().for_each(|writer| shard(writer, before));
            for writer in writers {
                let place = writer.directory.clone();
                let done = writer.finish(before + 1, 0, true).unwrap();
                assert_eq!(done.n_rows, 2 * (before + 1));
                assert_eq!(Activations::open(&place).unwrap().n_rows() as u64, done.n_rows);
            }
        }
    }

    #[test]
    fn documents_without_rows_are_counted_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut writers = [writer(dir.path(), 4), writer(dir.path(), 9)];
        writers.iter_mut().for_each(|writer| shard(writer, 0));
        writers[1].flush(5, 2).unwrap();
        align(&mut writers).unwrap();
        assert_eq!((writers[1].place(), &writers[1].meta.shards[..]), (Some((1, 0)), &[2][..]));
    }

    #[test]
    fn layers_of_different_harvests_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let mut writers = [writer(dir.path(), 4), writer(dir.path(), 9)];
        (0..3).for_each(|i| shard(&mut writers[0], i));
        let error = align(&mut writers).unwrap_err();
        assert!(error.kind() == Kind::Mismatch && error.message().contains("3 here, 0 elsewhere"), "{error}");
        assert_eq!(writers[0].meta.shards, [2, 2, 2]);
    }

    #[test]
    fn a_second_writer_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let held = writer(dir.path(), 4);
        let error = Writer::open(&held.directory, meta(4), 2).err().unwrap();
        let who = format!("process {} on ", std::process::id());
        assert!(error.kind() == Kind::Io && error.message().contains(&who), "{error}");
    }

    #[test]
    fn a_meta_of_impossible_sizes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.json");
        for d_model in [0, usize::MAX, 1 << 21] {
            std::fs::write(&path, serde_json::to_vec(&Meta { d_model, ..meta(1) }).unwrap()).unwrap();
            let error = Activations::open(dir.path()).err().unwrap();
            assert!(error.kind() == Kind::Format && error.message().contains("d_model: expected"), "{error}");
        }
        std::fs::File::create(&path).unwrap().set_len(MAX_META_BYTES + 1).unwrap();
        assert!(Activations::open(dir.path()).err().unwrap().message().contains("at most"));
    }
}
