//! Files that appear whole or not at all.
//!
//! A reader may have the old file mapped, and a crash may come at any byte: so contents go to a temporary file in the
//! same directory, are flushed to the disk, and take the old one's place by a rename, which is one step for the system.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Large enough that rows of a tensor, a few kilobytes each, leave in few system calls.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes `path` through `fill`: to a temporary file beside it, flushed, then renamed over it. If `fill` fails or panics,
/// or the disk is full, `path` is as it was and no temporary file stays. A symbolic link at `path` is replaced, not
/// followed.
///
/// # Errors
/// What `fill` returns, or [`Kind::Io`](crate::Kind::Io).
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let (temp, file) = Temp::create(path)?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    fill(&mut out)?;
    let file = out.into_inner().map_err(|e| Error::io("write", path, e.into_error()))?;
    file.sync_all().map_err(|e| Error::io("write", path, e))?;
    drop(file);
    temp.persist(path)
}

/// The temporary file's name; removes the file when dropped before [`Temp::persist`].
struct Temp(Option<PathBuf>);

impl Temp {
    /// Creates a file beside `path` that nobody else has.
    fn create(path: &Path) -> Result<(Self, File)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let Some(name) = path.file_name() else {
            return Err(Error::argument(format!("{}: expected the path of a file", path.display())));
        };
        let mut temp = OsString::from(".");
        temp.push(name);
        temp.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let temp = path.with_file_name(temp);
        let file =
            OpenOptions::new().write(true).create_new(true).open(&temp).map_err(|e| Error::io("create", path, e))?;
        Ok((Self(Some(temp)), file))
    }

    /// Renames it to `path` and flushes the directory, so that the name survives a crash as well.
    fn persist(mut self, path: &Path) -> Result<()> {
        let Some(temp) = self.0.as_ref() else { return Ok(()) };
        std::fs::rename(temp, path).map_err(|e| Error::io("replace", path, e))?;
        self.0 = None;
        #[cfg(unix)]
        {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // Some file systems refuse to flush a directory; the file itself is complete either way.
            if let Ok(dir) = File::open(parent) {
                let _ = dir.sync_all();
            }
        }
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(temp) = self.0.take() {
            let _ = std::fs::remove_file(temp);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::error::Kind;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaces_a_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"old").unwrap();
        write_atomic(&path, |w| w.write_all(b"new").map_err(|e| Error::io("write", &path, e))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_failure_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"old").unwrap();
        let failed = write_atomic(&path, |w| {
            w.write_all(b"half").unwrap();
            Err(Error::cancelled())
        });
        assert_eq!(failed.unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_panic_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"old").unwrap();
        let caught = std::panic::catch_unwind(|| write_atomic(&path, |_| panic!("on purpose")));
        assert!(caught.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_mapped_reader_keeps_the_old_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"old").unwrap();
        let map = crate::file::Map::open(&path).unwrap();
        write_atomic(&path, |w| w.write_all(b"longer").map_err(|e| Error::io("write", &path, e))).unwrap();
        assert_eq!(map.bytes(), b"old");
        assert_eq!(crate::file::Map::open(&path).unwrap().bytes(), b"longer");
    }

    #[test]
    fn a_missing_directory_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(&dir.path().join("no/such/a"), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        assert!(error.message().contains("no/such/a"), "{error}");
    }

    #[test]
    fn the_root_is_no_file() {
        assert_eq!(write_atomic(Path::new("/"), |_| Ok(())).unwrap_err().kind(), Kind::Argument);
    }
}
