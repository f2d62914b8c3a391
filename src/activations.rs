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

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file::{Lock, Map, json, read_text, write_atomic};
use crate::hook_point::HookPoint;

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

/// Writes a directory of shards, one window of text after the other. No two write to one directory at a time.
pub struct Writer {
    directory: PathBuf,
    _lock: Lock,
    meta: Meta,
    shard_rows: usize,
    rows: Vec<u8>,
    tokens: Vec<i32>,
    positions: Vec<i32>,
    documents: Vec<i64>,
}

impl Writer {
    /// Starts, or goes on with, `directory`. `meta` says what is to be written; its counts are ignored. An existing
    /// directory must agree with it in everything else.
    pub fn open(directory: &Path, meta: Meta, shard_rows: usize) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))?;
        let lock = Lock::of_directory(directory)?;
        let path = directory.join("meta.json");
        let fresh = Meta { format: FORMAT, n_rows: 0, shards: Vec::new(), complete: false, ..meta };
        let fresh = Meta { documents_done: 0, windows_done: 0, ..fresh };
        let meta = if path.exists() {
            let found = read_meta(directory)?;
            let same = Meta { complete: false, ..found.clone() }
                == Meta {
                    n_rows: found.n_rows,
                    shards: found.shards.clone(),
                    documents_done: found.documents_done,
                    windows_done: found.windows_done,
                    ..fresh.clone()
                };
            if !same {
                return Err(Error::mismatch(format!(
                    "{}: an earlier harvest of other text, model, layer or type lies here; choose another directory",
                    path.display()
                )));
            }
            found
        } else {
            fresh
        };
        Ok(Self {
            directory: directory.to_owned(),
            _lock: lock,
            meta,
            shard_rows: shard_rows.max(1),
            rows: Vec::new(),
            tokens: Vec::new(),
            positions: Vec::new(),
            documents: vec![0],
        })
    }

    /// What is complete so far.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Adds one window: `rows` is `[tokens.len(), d_model]`.
    pub fn window(&mut self, rows: &[f32], tokens: &[i32]) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        if rows.len() != tokens.len() * self.meta.d_model {
            return Err(Error::argument(format!(
                "{} floats for {} tokens, expected {} a token",
                rows.len(),
                tokens.len(),
                self.meta.d_model
            )));
        }
        let first = self.rows.len();
        match self.meta.dtype {
            RowType::F32 => self.rows.extend(rows.iter().flat_map(|x| x.to_le_bytes())),
            RowType::F16 => self.rows.extend(rows.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
        }
        if self.meta.dtype == RowType::F16
            && let Some(i) = bytemuck::allocation::pod_collect_to_vec::<u8, u16>(&self.rows[first..])
                .iter()
                .position(|&x| !f16::from_bits(x).is_finite())
        {
            self.rows.truncate(first);
            return Err(Error::numeric(format!(
                "the residual stream reaches {} at position {}, more than f16 holds; harvest as f32",
                rows.get(i).copied().unwrap_or(f32::NAN),
                i / self.meta.d_model
            )));
        }
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(0..i32::try_from(tokens.len()).unwrap_or(i32::MAX));
        self.documents.push(self.tokens.len() as i64);
        Ok(())
    }

    /// Whether a shard's worth of rows waits to be written.
    pub fn is_full(&self) -> bool {
        self.tokens.len() >= self.shard_rows
    }

    /// Writes what is left, as [`Writer::flush`]; `complete`: the whole text is done.
    pub fn finish(mut self, documents: u64, windows: u64, complete: bool) -> Result<Meta> {
        self.flush(documents, windows)?;
        self.meta.complete = complete;
        self.write_meta()?;
        Ok(self.meta)
    }

    /// Writes the waiting rows as a shard and notes that `documents` documents of the text are done, and `windows` windows of
    /// the next one.
    pub fn flush(&mut self, documents: u64, windows: u64) -> Result<()> {
        let n = self.tokens.len();
        if n > 0 {
            let dtype = match self.meta.dtype {
                RowType::F16 => Dtype::F16,
                RowType::F32 => Dtype::F32,
            };
            let path = shard_path(&self.directory, self.meta.shards.len());
            let view = |dtype, shape: Vec<usize>, data| {
                TensorView::new(dtype, shape, data).map_err(|e| Error::format(&path, e))
            };
            let views = [
                ("rows", view(dtype, vec![n, self.meta.d_model], &self.rows)?),
                ("tokens", view(Dtype::I32, vec![n], bytemuck::cast_slice(&self.tokens))?),
                ("positions", view(Dtype::I32, vec![n], bytemuck::cast_slice(&self.positions))?),
                ("documents", view(Dtype::I64, vec![self.documents.len()], bytemuck::cast_slice(&self.documents))?),
            ];
            // One key: several would stand in any order, and the same rows make the same bytes.
            let ends = HashMap::from([(ENDS_AT.to_owned(), format!("{documents} {windows}"))]);
            let bytes = safetensors::serialize(views, Some(ends)).map_err(|e| Error::format(&path, e))?;
            write_atomic(&path, |out| {
                std::io::Write::write_all(out, &bytes).map_err(|e| Error::io("write", &path, e))
            })?;
            self.meta.shards.push(n as u64);
            self.meta.n_rows += n as u64;
            self.rows.clear();
            self.tokens.clear();
            self.positions.clear();
            self.documents.truncate(1);
        }
        (self.meta.documents_done, self.meta.windows_done) = (documents, windows);
        self.write_meta()
    }

    /// Where in the text the harvest stands.
    fn place(&self) -> Place {
        Some((self.meta.documents_done, self.meta.windows_done))
    }

    /// Where the shards end if the last `n` are left out, as they say themselves.
    fn place_without(&self, n: usize) -> Result<Place> {
        match self.meta.shards.len().checked_sub(n) {
            None => Ok(None),
            Some(0) => Ok(Some((0, 0))),
            Some(kept) => shard_end(&shard_path(&self.directory, kept - 1)),
        }
    }

    /// Gives up the last `n` shards: the harvest stands at `place` again.
    fn give_up(&mut self, n: usize, place: (u64, u64)) -> Result<()> {
        let kept = self.meta.shards.len().saturating_sub(n);
        let given_up = kept..self.meta.shards.len();
        self.meta.shards.truncate(kept);
        self.meta.n_rows = self.meta.shards.iter().sum();
        (self.meta.documents_done, self.meta.windows_done) = place;
        self.meta.complete = false;
        self.write_meta()?;
        // What `meta.json` does not count is no part of the harvest: the next shards replace it.
        given_up.for_each(|i| drop(std::fs::remove_file(shard_path(&self.directory, i))));
        Ok(())
    }

    fn write_meta(&self) -> Result<()> {
        let path = self.directory.join("meta.json");
        let text = serde_json::to_string_pretty(&self.meta).map_err(|e| Error::format(&path, e))?;
        write_atomic(&path, |out| {
            std::io::Write::write_all(out, text.as_bytes()).map_err(|e| Error::io("write", &path, e))
        })
    }
}

/// Where in a text a shard ends, in documents and in windows of the next one; `None` if it does not say.
type Place = Option<(u64, u64)>;

/// The key of a shard's metadata: the two numbers, with a space between.
const ENDS_AT: &str = "ends_at";

/// Where in the text the shard at `path` ends, as its metadata say; older ones don't.
fn shard_end(path: &Path) -> Result<Place> {
    let map = Map::open(path)?;
    let (_, header) = SafeTensors::read_metadata(map.bytes()).map_err(|e| Error::format(path, e))?;
    let place = header.metadata().as_ref().and_then(|all| all.get(ENDS_AT)).and_then(|text| text.split_once(' '));
    Ok(place.and_then(|(documents, windows)| Some((documents.parse().ok()?, windows.parse().ok()?))))
}

/// Brings the writers of one harvest, a layer each, to one place in the text. They write their shards one after the other: a
/// process that is killed in between leaves some a shard ahead, and those give it up.
///
/// # Errors
/// [`Kind::Mismatch`](crate::Kind::Mismatch) if that does not bring them together: they are of different harvests.
/// [`Kind::Io`](crate::Kind::Io).
pub fn align<'w>(writers: impl IntoIterator<Item = &'w mut Writer>) -> Result<()> {
    let mut writers: Vec<&mut Writer> = writers.into_iter().collect();
    let Some(first) = writers.iter().map(|writer| writer.place()).min() else { return Ok(()) };
    for writer in writers.iter_mut().filter(|writer| writer.place() != first) {
        // Documents without a row count without a shard.
        if writer.place_without(0)? == first {
            writer.give_up(0, first.unwrap_or_default())?;
        } else if writer.place_without(1)? == first {
            writer.give_up(1, first.unwrap_or_default())?;
        } else {
            let (path, found) = (writer.directory.display(), writer.meta.documents_done);
            let expected = first.unwrap_or_default().0;
            return Err(Error::mismatch(format!(
                "{path}: the layers stand at different documents ({found} here, {expected} elsewhere); harvest them \
                 again into an empty directory"
            )));
        }
    }
    Ok(())
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
