//! Files that appear whole or not at all.
//!
//! A reader may have the old file mapped, and a crash may come at any byte: so contents go to a temporary file in the
//! same directory, are flushed to the disk, and take the old one's place by a rename, which is one step for the system.
//!
//! The temporary file is called `.NAME.RANDOM.tmp` and is never one that was there. A process that is killed while it
//! writes leaves it behind. It blocks nobody and is never read: delete it once its writer is gone.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use super::input::name_of;
use crate::error::{Error, Result};

/// Large enough that rows of a tensor, a few kilobytes each, leave in few system calls.
const BUFFER_BYTES: usize = 1 << 20;
/// Names that are tried before a directory is said to refuse new files.
const TRIES: usize = 64;
/// File systems take names of 255 bytes, some of 143: what stands before and behind a name must fit, too.
const LONGEST_NAME: usize = 100;
/// Links in a row that are followed, as the system does.
const MOST_LINKS: usize = 40;

/// Writes `path` through `fill`: to a temporary file beside it, flushed, then renamed over it. If `fill` fails or panics,
/// or the disk is full, `path` is as it was and no temporary file stays.
///
/// | at `path` lies | what happens |
/// |---|---|
/// | nothing | a new file, with the mode that the process's umask gives |
/// | a file | it is replaced; the new one has its mode and, where the system permits it, its owner |
/// | a symbolic link | what it points to is written, or made |
/// | a character device (`/dev/null`) | `fill` writes to the device itself |
/// | a directory, a pipe, a socket, a disk | an error, and nothing is written |
///
/// # Errors
/// What `fill` returns, or [`Kind::Io`](crate::Kind::Io).
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let finish = |out: BufWriter<File>| out.into_inner().map_err(|e| Error::io("write", path, e.into_error()));
    let (place, old) = match Target::of(path)? {
        Target::Device => {
            let device = OpenOptions::new().write(true).open(path).map_err(|e| Error::io("open", path, e))?;
            let mut out = BufWriter::with_capacity(BUFFER_BYTES, device);
            fill(&mut out)?;
            return finish(out).map(drop);
        }
        Target::File(place, old) => (place, old),
    };
    let (temp, file) = Temp::create(&place, old.as_ref())?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    fill(&mut out)?;
    let file = finish(out)?;
    temp.persist(file, &place, old.as_ref())
}

/// As [`write_atomic`], for writers that open files by themselves: `fill` gets the name of an empty file, which only this
/// call knows, and writes to it.
///
/// # Errors
/// As [`write_atomic`]; [`Kind::Io`](crate::Kind::Io) for a device.
pub fn write_atomic_by_name(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let Target::File(place, old) = Target::of(path)? else { return Err(wrong_kind(path, "a device")) };
    let (temp, file) = Temp::create(&place, old.as_ref())?;
    drop(file);
    fill(temp.name())?;
    let file = OpenOptions::new().write(true).open(temp.name()).map_err(|e| Error::io("open", path, e))?;
    temp.persist(file, &place, old.as_ref())
}

/// Whether [`write_atomic`] can be expected to work, without writing anything: its directory is there, and what lies at
/// `path` is nothing, a file or a character device. For callers that work for hours before they write.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io).
pub fn check_writable(path: &Path) -> Result<()> {
    let Target::File(place, _) = Target::of(path)? else { return Ok(()) };
    let parent = parent_of(&place);
    let meta = std::fs::metadata(parent).map_err(|e| {
        let error = Error::io("create", path, e);
        error.hinted(format!("make the directory {} first", parent.display()))
    })?;
    match meta.is_dir() {
        true => Ok(()),
        false => Err(wrong_kind(parent, name_of(&meta))),
    }
}

/// Where a path leads to.
enum Target {
    /// A regular file or none, behind all links; and what is known of the file.
    File(PathBuf, Option<Metadata>),
    /// A character device.
    Device,
}

impl Target {
    fn of(path: &Path) -> Result<Self> {
        if path.file_name().is_none() {
            return Err(Error::argument(format!("{}: expected the path of a file", path.display())));
        }
        let mut place = path.to_owned();
        for _ in 0..MOST_LINKS {
            let meta = match std::fs::symlink_metadata(&place) {
                Ok(meta) => meta,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::File(place, None)),
                Err(e) => return Err(Error::io("create", path, e)),
            };
            if meta.is_symlink() {
                let to = std::fs::read_link(&place).map_err(|e| Error::io("follow", path, e))?;
                place = parent_of(&place).join(to);
            } else if meta.is_file() {
                return Ok(Self::File(place, Some(meta)));
            } else {
                #[cfg(unix)]
                if std::os::unix::fs::FileTypeExt::is_char_device(&meta.file_type()) {
                    return Ok(Self::Device);
                }
                return Err(wrong_kind(path, name_of(&meta)));
            }
        }
        Err(Error::io("follow", path, std::io::Error::other("too many symbolic links")))
    }
}

fn wrong_kind(path: &Path, found: &str) -> Error {
    let found = std::io::Error::new(ErrorKind::InvalidInput, format!("expected a file or none, found {found}"));
    Error::io("write", path, found).hinted("name a file to write, in a directory that is there")
}

/// The directory that `path` is in.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The hidden file `.NAME.END` beside `path`; a long name is shortened.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fits = |at: &usize| *at <= LONGEST_NAME;
    let cut = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(fits).last().unwrap_or(0);
    path.with_file_name(OsString::from(format!(".{}.{end}", &name[..cut])))
}

/// The temporary file's name; removes the file when dropped before [`Temp::persist`].
struct Temp(Option<PathBuf>);

impl Temp {
    /// Creates a file beside `path` that nobody else has, no more open to others than `old` is.
    fn create(path: &Path, old: Option<&Metadata>) -> Result<(Self, File)> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if let Some(old) = old {
            use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
            options.mode(old.mode() & 0o777);
        }
        for attempt in 0..TRIES {
            // The keys of a new `RandomState` are the system's random numbers.
            let temp = beside(path, &format!("{:016x}.tmp", RandomState::new().hash_one(attempt)));
            match options.open(&temp) {
                Ok(file) => return Ok((Self(Some(temp)), file)),
                Err(e) if e.kind() == ErrorKind::AlreadyExists && attempt + 1 < TRIES => {}
                Err(e) => return Err(Error::io("create", path, e)),
            }
        }
        Err(Error::io("create", path, ErrorKind::AlreadyExists.into()))
    }

    fn name(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Flushes it, renames it to `path` and flushes the directory, so that the name survives a crash as well.
    fn persist(mut self, file: File, path: &Path, old: Option<&Metadata>) -> Result<()> {
        if let Some(old) = old {
            #[cfg(unix)]
            {
                use std::os::unix::fs::MetadataExt;
                // Only root may give files away; to others the new file belongs, as it would if they had copied it.
                let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
            }
            file.set_permissions(old.permissions()).map_err(|e| Error::io("set the mode of", path, e))?;
        }
        file.sync_all().map_err(|e| Error::io("write", path, e))?;
        drop(file);
        let Some(temp) = self.0.as_ref() else { return Ok(()) };
        std::fs::rename(temp, path).map_err(|e| Error::io("replace", path, e))?;
        self.0 = None;
        #[cfg(unix)]
        {
            // Some file systems refuse to flush a directory; the file itself is complete either way.
            if let Ok(dir) = File::open(parent_of(path)) {
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

    /// A process number is the same at every start in a container, and a file of that name stayed when one was killed.
    #[test]
    fn temporary_files_of_the_dead_block_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for i in 0..500 {
            std::fs::write(dir.path().join(format!(".a.{}-{i}.tmp", std::process::id())), b"").unwrap();
        }
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let (temp, _) = Temp::create(&path, None).unwrap();
            assert!(seen.insert(temp.name().to_owned()));
            std::mem::forget(temp); // as kill -9 does
        }
        write_atomic(&path, |w| w.write_all(b"new").map_err(|e| Error::io("write", &path, e))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()).len(), 601);
    }

    #[test]
    fn names_as_long_as_they_may_be_are_written() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x".repeat(255), "é".repeat(127)] {
            let path = dir.path().join(&name);
            write_atomic(&path, |_| Ok(())).unwrap();
            assert!(names(dir.path()).contains(&name));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_keeps_its_mode_and_a_new_one_has_the_umasks() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, plain, new) = (dir.path().join("a"), dir.path().join("plain"), dir.path().join("new"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        std::fs::write(&path, b"old").unwrap();
        for wanted in [0o600, 0o640, 0o666] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(wanted)).unwrap();
            write_atomic(&path, |out| {
                assert_eq!(out.get_ref().metadata().unwrap().permissions().mode() & !wanted & 0o777, 0);
                Ok(())
            })
            .unwrap();
            assert_eq!(mode(&path), wanted);
        }
        std::fs::write(&plain, b"").unwrap();
        write_atomic(&new, |_| Ok(())).unwrap();
        assert_eq!(mode(&new), mode(&plain));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_what_it_points_to_is_written() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (sub, link, chain) = (dir.path().join("sub"), dir.path().join("link"), dir.path().join("chain"));
        std::fs::create_dir(&sub).unwrap();
        symlink("sub/real", &link).unwrap();
        symlink(&link, &chain).unwrap();
        for text in ["made", "written"] {
            write_atomic(&chain, |w| w.write_all(text.as_bytes()).map_err(|e| Error::io("write", &chain, e))).unwrap();
            assert_eq!(std::fs::read_to_string(sub.join("real")).unwrap(), text);
            assert!(link.is_symlink() && chain.is_symlink() && names(&sub) == ["real"]);
        }
        let circle = dir.path().join("circle");
        symlink("circle", &circle).unwrap();
        assert_eq!(write_atomic(&circle, |_| Ok(())).unwrap_err().kind(), Kind::Io);
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_written_to_and_never_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let dir = tempfile::tempdir().unwrap();
        // One of our own, where we may make it: should this fail as root, the machine keeps its own.
        let own = dir.path().join("null");
        let made = std::process::Command::new("mknod").arg(&own).args(["c", "1", "3"]).output();
        let made = made.is_ok_and(|made| made.status.success()) && OpenOptions::new().write(true).open(&own).is_ok();
        let null = if made { own.as_path() } else { Path::new("/dev/null") };
        write_atomic(null, |w| w.write_all(b"gone").map_err(|e| Error::io("write", null, e))).unwrap();
        check_writable(null).unwrap();
        assert!(std::fs::metadata(null).unwrap().file_type().is_char_device());
        assert!(write_atomic_by_name(null, |_| Ok(())).is_err());
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, what) in [(pipe.as_path(), "a pipe"), (dir.path(), "a directory")] {
            for error in [write_atomic(path, |_| Ok(())), check_writable(path)] {
                let error = error.unwrap_err();
                assert!(error.message().contains(what), "{error}");
            }
        }
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert!(
            check_writable(&dir.path().join("no/file")).unwrap_err().hint().unwrap().contains("make the directory")
        );
    }

    #[test]
    fn a_writer_that_opens_by_name_gets_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let (mut first, mut second) = (PathBuf::new(), PathBuf::new());
        write_atomic_by_name(&path, |name| {
            first = name.to_owned();
            write_atomic_by_name(&path, |name| {
                second = name.to_owned();
                std::fs::write(name, b"inner").map_err(|e| Error::io("write", name, e))
            })?;
            std::fs::write(name, b"outer").map_err(|e| Error::io("write", name, e))
        })
        .unwrap();
        assert_ne!(first, second);
        assert_eq!(std::fs::read(&path).unwrap(), b"outer");
        write_atomic_by_name(&path, |_| Err(Error::cancelled())).unwrap_err();
        assert_eq!((names(dir.path()), std::fs::read(&path).unwrap()), (vec!["a".to_owned()], b"outer".to_vec()));
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
