//! The one memory map of the library.
//!
//! Models and dictionaries are larger than what a run needs of them: steering eight features of a 1 GB dictionary
//! reads some forty kilobytes. Mapped, the rest never leaves the disk, and processes share what is read.
//!
//! # Safety of memory maps
//! Rust wants the bytes behind a `&[u8]` not to change. A map of a file cannot promise that: another process may write
//! to the file or truncate it, and a read behind the new end raises SIGBUS. What we do about it: maps are read-only and
//! private, we never write a file in place ([`write_atomic`](crate::file::write_atomic) renames, so a mapped file keeps
//! its old contents), and no parser takes the same fact twice from the map: what was checked is what is kept, as values
//! of our own. A caller who edits a file in place while it is open may see torn numbers and, if it gets shorter, a
//! signal: the same contract as llama.cpp's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A file mapped read-only. Shared as `Arc<Map>`: whoever holds one keeps the bytes alive.
#[derive(Debug)]
pub struct Map {
    map: memmap2::Mmap,
    path: PathBuf,
}

impl Map {
    /// Maps the whole file at `path`. Costs a system call; no byte is read.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) if the file is missing, unreadable, or not a regular file.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let file = super::open(path)?;
        // SAFETY: the map is read-only and private; that nobody truncates the file under it is the contract with the
        // caller that this module's documentation states.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
        Ok(Arc::new(Self { map, path: path.to_path_buf() }))
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the system that few, scattered rows will be read: it then reads single pages from the disk, not 128 KB around
    /// each. Call it once the headers are parsed (those want read-ahead). A hint: where it isn't supported, nothing happens.
    pub fn advise_random(&self) {
        #[cfg(unix)]
        let _ = self.map.advise(memmap2::Advice::Random);
    }

    /// Gives the pages that `range` of the file touches back to the system, which stops counting them as this process's
    /// memory. Reading them again maps them again. A hint: where it isn't supported, nothing happens.
    pub fn release(&self, range: std::ops::Range<usize>) {
        let range = range.start..range.end.min(self.map.len());
        if range.is_empty() {
            return;
        }
        #[cfg(unix)]
        {
            use memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: dropping pages of a map that is never written loses nothing: the next access reads the same bytes
            // from the file, as far as nobody changes it, which is the contract of this module.
            let _ = unsafe { self.map.unchecked_advise_range(DontNeed, range.start, range.len()) };
        }
    }

    /// Tells the system that the whole file will be read front to back.
    pub fn advise_sequential(&self) {
        #[cfg(unix)]
        let _ = self.map.advise(memmap2::Advice::Sequential);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn maps_what_the_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"hello").unwrap();
        let map = Map::open(&path).unwrap();
        map.advise_random();
        map.advise_sequential();
        for range in [0..5, 1..3, 4..99, 7..9] {
            map.release(range);
            assert_eq!(map.bytes(), b"hello");
        }
        assert_eq!(map.path(), path);
    }

    #[test]
    fn an_empty_file_maps_to_no_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(Map::open(&path).unwrap().bytes(), b"");
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Map::open(&dir.path().join("none.gguf")).unwrap_err();
        assert_eq!(missing.kind(), Kind::Io);
        assert!(missing.message().contains("none.gguf"), "{missing}");
        let folder = Map::open(dir.path()).unwrap_err();
        assert_eq!(folder.kind(), Kind::Io);
        assert!(folder.message().contains("a directory"), "{folder}");
    }
}
