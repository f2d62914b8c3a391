//! Files that are read: regular ones, no longer than what is read from them can be.
//!
//! A path is the user's word, and what lies there may be anything: opening a pipe waits for somebody who writes, a device
//! such as `/dev/zero` never ends, and a text of a few lines may be replaced by one of many gigabytes. So every file that
//! the library reads is opened here, and every file that is read whole has a limit.

use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Opens the regular file at `path` for reading.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io) if it is missing or unreadable, or is a directory, a device, a pipe or a socket: those are
/// named, and not opened.
pub fn open(path: &Path) -> Result<File> {
    let regular = |meta: Metadata| match meta.is_file() {
        true => Ok(()),
        false => {
            let found = std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("expected a file, found {}", name_of(&meta)),
            );
            let hint = match meta.is_dir() {
                true => "name the files in it, such as DIRECTORY/*.txt",
                false => "name a regular file; write what a pipe or /dev/stdin brings to one first",
            };
            Err(Error::io("open", path, found).hinted(hint))
        }
    };
    // Before it is opened, because opening a pipe waits for a writer; and after, because another may lie there by then.
    regular(std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?)?;
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    regular(file.metadata().map_err(|e| Error::io("read the size of", path, e))?)?;
    Ok(file)
}

/// The bytes of the regular file at `path`, at most `limit`.
///
/// # Errors
/// As [`open`]; [`Kind::Format`](crate::Kind::Format) if it is longer; [`Kind::Io`](crate::Kind::Io) if there is no memory
/// for it.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let size = file.metadata().map_err(|e| Error::io("read the size of", path, e))?.len();
    let too_long = |found| Error::format(path, format_args!("expected at most {limit} bytes, found {found}"));
    if size > limit {
        return Err(too_long(size));
    }
    let mut bytes = Vec::new();
    reserve(&mut bytes, usize::try_from(size).unwrap_or(usize::MAX), path.display())?;
    // The file may grow while it is read.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    match bytes.len() as u64 {
        n if n > limit => Err(too_long(n)),
        _ => Ok(bytes),
    }
}

/// [`read_text`](super::read_text), or `None` if there is no file.
///
/// # Errors
/// As [`read_text`](super::read_text).
pub fn read_text_if_there(path: &Path, limit: u64) -> Result<Option<String>> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        _ => super::read_text(path, limit).map(Some),
    }
}

/// Calls `take` with the number (from 1) and the bytes of every line of the regular file at `path`, its end included. A line
/// has at most `limit` bytes, so that one without an end does not fill memory.
///
/// # Errors
/// As [`open`]; [`Kind::Format`](crate::Kind::Format) for a longer line; what `take` returns.
pub fn for_each_line(path: &Path, limit: u64, mut take: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
    let mut reader = BufReader::new(open(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = (&mut reader).take(limit.saturating_add(1));
        if limited.read_until(b'\n', &mut line).map_err(|e| Error::io("read", path, e))? == 0 {
            break;
        }
        if line.len() as u64 > limit {
            let what = format_args!("expected a line of at most {limit} bytes, found more");
            return Err(super::text::wrong(path, number, what).hinted("every record stands on a line of its own"));
        }
        take(number, &line)?;
    }
    Ok(())
}

/// Makes room for `n` more items. For amounts that an input or an option has a say in: where there is no memory for them,
/// that is an error, and not the end of the process.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io) naming `what` the memory was for.
pub fn reserve<T>(items: &mut Vec<T>, n: usize, what: impl std::fmt::Display) -> Result<()> {
    items.try_reserve_exact(n).map_err(|_| {
        let bytes = n.saturating_mul(size_of::<T>());
        Error::new(crate::error::Kind::Io, format!("{what}: not enough memory for {bytes} bytes"))
            .hinted("free some memory, or ask for less: fewer features, rows or tokens at once")
    })
}

/// Whether there is memory for `bytes`, which is not kept: asked before work that takes them in many pieces.
///
/// # Errors
/// As [`reserve`].
pub fn room(bytes: usize, what: impl std::fmt::Display) -> Result<()> {
    reserve(&mut Vec::<u8>::new(), bytes, what)
}

/// `n` items, each the default (zero), as [`reserve`] makes room for them.
///
/// # Errors
/// As [`reserve`].
pub fn zeros<T: Default + Clone>(n: usize, what: impl std::fmt::Display) -> Result<Vec<T>> {
    let mut items = Vec::new();
    reserve(&mut items, n, what)?;
    items.resize(n, T::default());
    Ok(items)
}

/// What people call what is no regular file.
pub(super) fn name_of(meta: &Metadata) -> &'static str {
    if meta.is_dir() {
        return "a directory";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = meta.file_type();
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    "a device"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_is_no_file_is_named_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| {
            let error = read(path, 9).unwrap_err();
            assert_eq!(error.kind(), Kind::Io);
            error.message().to_owned()
        };
        assert!(refused(dir.path()).contains("expected a file, found a directory"));
        #[cfg(unix)]
        {
            let pipe = dir.path().join("pipe");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            assert!(refused(&pipe).contains("expected a file, found a pipe"));
            assert!(refused(Path::new("/dev/zero")).contains("expected a file, found a device"));
            let socket = dir.path().join("socket");
            let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            assert!(refused(&socket).contains("found a socket"));
            assert!(for_each_line(&pipe, 9, |_, _| Ok(())).is_err() && crate::file::Map::open(&pipe).is_err());
        }
    }

    #[test]
    fn a_limit_holds_to_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "one\nthree\n").unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"one\nthree\n");
        let error = read(&path, 9).unwrap_err();
        assert!(error.kind() == Kind::Format && error.message().ends_with("at most 9 bytes, found 10"), "{error}");
        let mut lines = Vec::new();
        let mut take = |number: usize, line: &[u8]| {
            lines.push((number, line.len()));
            Ok(())
        };
        for_each_line(&path, 6, &mut take).unwrap();
        let error = for_each_line(&path, 5, &mut take).unwrap_err();
        assert!(error.message().contains(":2: expected a line of at most 5 bytes"), "{error}");
        assert_eq!(lines, [(1, 4), (2, 6), (1, 4)]);
    }

    #[test]
    fn text_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert_eq!(read_text_if_there(&path, 9).unwrap(), None);
        std::fs::write(&path, "text").unwrap();
        assert_eq!(read_text_if_there(&path, 9).unwrap().as_deref(), Some("text"));
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let error = zeros::<u64>(usize::MAX / 16, "codes").unwrap_err();
        assert!(error.message().starts_with("codes: not enough memory for "), "{error}");
        assert_eq!(zeros::<u8>(3, "codes").unwrap(), [0; 3]);
    }
}
