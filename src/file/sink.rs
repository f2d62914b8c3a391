//! How the data of a tensor gets into a file, whichever the container.
//!
//! It is at hand, or a function makes it while the file is written, so that a matrix of any size can be converted row by
//! row without ever being held.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// A function that puts a tensor's data into a [`Sink`].
type Make<'a> = Box<dyn FnOnce(&mut Sink<'_>) -> Result<()> + 'a>;

/// The data of a tensor that is to be written.
pub(super) enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    Made(Make<'a>),
}

impl Data<'_> {
    /// Writes the data of `tensor`, which must come to `total` bytes.
    pub(super) fn write(self, out: &mut dyn Write, path: &Path, tensor: &str, total: usize) -> Result<()> {
        let mut sink = Sink::new(out, path, tensor, total as u64);
        match self {
            Self::Bytes(bytes) => sink.put(&bytes)?,
            Self::Made(make) => make(&mut sink)?,
        }
        sink.finish()
    }
}

/// Where the data of one tensor goes while a file is written: it counts, so that a tensor gets exactly the bytes that its
/// header announced.
pub struct Sink<'a> {
    out: &'a mut dyn Write,
    path: &'a Path,
    tensor: &'a str,
    total: u64,
    left: u64,
}

impl<'a> Sink<'a> {
    fn new(out: &'a mut dyn Write, path: &'a Path, tensor: &'a str, total: u64) -> Self {
        Self { out, path, tensor, total, left: total }
    }

    /// Appends `bytes` to the tensor.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if the tensor's shape has no room for them;
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let n = bytes.len() as u64;
        self.left = self.left.checked_sub(n).ok_or_else(|| {
            let written = self.total - self.left;
            self.wrong(format_args!("at least {}", written.saturating_add(n)))
        })?;
        self.out.write_all(bytes).map_err(|e| Error::io("write", self.path, e))
    }

    /// Bytes that the tensor still lacks.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn finish(self) -> Result<()> {
        if self.left == 0 { Ok(()) } else { Err(self.wrong(format_args!("{}", self.total - self.left))) }
    }

    fn wrong(&self, found: std::fmt::Arguments<'_>) -> Error {
        let (path, tensor, total) = (self.path.display(), self.tensor, self.total);
        Error::argument(format!("{path}: tensor \"{tensor}\": its shape takes {total} bytes of data, found {found}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_takes_exactly_its_bytes() {
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out, Path::new("f"), "t", 4);
        sink.put(b"abc").unwrap();
        assert_eq!(sink.left(), 1);
        let error = sink.put(b"de").unwrap_err();
        assert_eq!(error.message(), "f: tensor \"t\": its shape takes 4 bytes of data, found at least 5");
        let mut sink = Sink::new(&mut out, Path::new("f"), "t", 4);
        sink.put(b"abc").unwrap();
        assert_eq!(sink.finish().unwrap_err().message(), "f: tensor \"t\": its shape takes 4 bytes of data, found 3");
    }
}
