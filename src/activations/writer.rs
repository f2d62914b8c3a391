//! Shards as they are written: each whole or not at all, one writer to a directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::{FORMAT, Meta, RowType, read_meta, shard_path};
use crate::error::{Error, Result};
use crate::file::{Lock, Map, write_atomic};

/// Writes a directory of shards, one window of text after the other. No two write to one directory at a time.
pub struct Writer {
    pub(super) directory: PathBuf,
    _lock: Lock,
    pub(super) meta: Meta,
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
    pub(super) fn place(&self) -> Place {
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
