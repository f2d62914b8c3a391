//! A place in a mapped file, and the primitives that read from it: no read without a check, no error without a place.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file::Map;

/// A place in the file. Every read says what it was for.
pub(super) struct Cursor<'a> {
    pub(super) map: &'a Arc<Map>,
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn path(&self) -> &Path {
        self.map.path()
    }

    pub(super) fn left(&self) -> usize {
        self.map.bytes().len().saturating_sub(self.at)
    }

    /// A format error at `at`.
    pub(super) fn error(&self, at: usize, what: impl std::fmt::Display) -> Error {
        Error::format(self.path(), format_args!("at byte {at}: {what}"))
    }

    pub(super) fn take(&mut self, n: usize, what: impl std::fmt::Display) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n);
        match end.and_then(|end| Some((end, self.map.bytes().get(self.at..end)?))) {
            Some((end, bytes)) => {
                self.at = end;
                Ok(bytes)
            }
            None => {
                Err(self
                    .error(self.at, format_args!("{what}: expected {n} bytes, found {} before the end", self.left())))
            }
        }
    }

    pub(super) fn u32(&mut self, what: impl std::fmt::Display) -> Result<u32> {
        let bytes = self.take(4, what)?;
        Ok(bytes.iter().rev().fold(0, |v, &b| v << 8 | u32::from(b)))
    }

    pub(super) fn u64(&mut self, what: impl std::fmt::Display) -> Result<u64> {
        let bytes = self.take(8, what)?;
        Ok(bytes.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
    }

    /// A 64-bit count of at most `max`.
    pub(super) fn count(&mut self, what: &str, max: usize) -> Result<usize> {
        let at = self.at;
        let n = self.u64(what)?;
        match usize::try_from(n) {
            Ok(n) if n <= max => Ok(n),
            _ => Err(self.error(at, format_args!("{what}: expected at most {max}, found {n}"))),
        }
    }

    /// Refuses a count whose `n` things of at least `bytes` each cannot be in the file, before room is made for them.
    pub(super) fn fits(&self, n: usize, bytes: usize, what: impl std::fmt::Display) -> Result<()> {
        let left = self.left();
        if n <= left / bytes {
            return Ok(());
        }
        Err(self.error(self.at, format_args!("{n} {what}: expected at least {bytes} bytes each, found {left} in all")))
    }

    pub(super) fn string(&mut self, max: usize, what: impl std::fmt::Display) -> Result<&'a str> {
        let at = self.at;
        let n = self.count(&format!("the length of {what}"), max)?;
        let bytes = self.take(n, &what)?;
        std::str::from_utf8(bytes).map_err(|e| self.error(at, format_args!("{what}: expected UTF-8, found {e}")))
    }
}
