//! One writer at a time.
//!
//! Two harvests into one directory would each write their own shard 7, and the one that is last wins. So whoever is to
//! write for long takes a lock first: the system's own on a hidden file beside the work (`flock`), which ends with the
//! process however that ends. A process that was killed blocks nobody.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::atomic::beside;
use crate::error::{Error, Result};

/// What a lock file says is one short line; more is somebody else's.
const MAX_HOLDER_BYTES: u64 = 300;
/// A lock file may be removed by its holder between being opened and being locked; then the next one is taken.
const TRIES: usize = 100;

/// The right to write a file or the files of a directory, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Open as long as the lock is held. `None` where the file system knows no locks.
    file: Option<File>,
}

impl Lock {
    /// Takes the lock of the directory `path`, which must be there.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) if another process, or another part of this one, holds it: the message names it.
    pub fn of_directory(path: &Path) -> Result<Self> {
        Self::take(path, path.join(".tiller.lock"))
    }

    /// Takes the lock of the file `path`, which need not be there; its directory must.
    ///
    /// # Errors
    /// As [`Lock::of_directory`].
    pub fn of_file(path: &Path) -> Result<Self> {
        Self::take(path, beside(path, "lock"))
    }

    /// Whether `path` is the lock file of a directory, and none of its contents.
    pub fn is_lock(path: &Path) -> bool {
        path.file_name().is_some_and(|name| name == ".tiller.lock")
    }

    fn take(what: &Path, path: PathBuf) -> Result<Self> {
        for _ in 0..TRIES {
            if std::fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
                let found = std::io::Error::other("expected a lock file or none, found something else");
                return Err(Error::io("lock", &path, found));
            }
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = file.map_err(|e| Error::io("lock", what, e))?;
            match file.try_lock() {
                // The holder before removed the file: somebody else may hold the one that is there now.
                Ok(()) if !is_at(&file, &path) => continue,
                Ok(()) => {
                    let told = format!("process {} on {}\n", std::process::id(), host());
                    // The lock holds without these words.
                    let _ = file.set_len(0).and_then(|()| file.write_all(told.as_bytes()));
                    return Ok(Self { path, file: Some(file) });
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = (&mut file).take(MAX_HOLDER_BYTES).read_to_string(&mut holder);
                    let holder = holder.lines().next().filter(|line| !line.is_empty()).unwrap_or("another process");
                    let busy = std::io::Error::new(
                        std::io::ErrorKind::ResourceBusy,
                        format!("{holder} is writing it (lock file {})", path.display()),
                    );
                    return Err(Error::io("write", what, busy).hinted("wait until it is done, or write somewhere else"));
                }
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {
                    return Ok(Self { path, file: None });
                }
                Err(TryLockError::Error(e)) => return Err(Error::io("lock", what, e)),
            }
        }
        Err(Error::io("lock", what, std::io::ErrorKind::ResourceBusy.into()))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held: who opened it before will see that it is no longer there.
        if self.file.as_ref().is_some_and(|file| is_at(file, &self.path)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether `file` is what lies at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let ids = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        match (file.metadata(), std::fs::symlink_metadata(path)) {
            (Ok(open), Ok(there)) => ids(open) == ids(there),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// The name of this machine; files may be shared by several.
fn host() -> String {
    let name = super::read_text(Path::new("/proc/sys/kernel/hostname"), MAX_HOLDER_BYTES).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { "this machine".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_second_is_told_who_the_first_is_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.ckpt");
        for take in
            [&|| Lock::of_directory(dir.path()) as Result<Lock>, &|| Lock::of_file(&file)] as [&dyn Fn() -> _; 2]
        {
            let held = take().unwrap();
            let error = take().unwrap_err();
            let who = format!("process {} on ", std::process::id());
            assert!(error.kind() == Kind::Io && error.message().contains(&who), "{error}");
            drop(held);
            drop(take().unwrap());
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_lock_file_left_by_a_dead_process_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".tiller.lock"), "process 1 on earth, and a long story\n").unwrap();
        let held = Lock::of_directory(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(".tiller.lock")).unwrap();
        assert!(
            text.starts_with(&format!("process {} on ", std::process::id())) && text.lines().count() == 1,
            "{text}"
        );
        drop(held);
    }

    #[test]
    fn of_many_threads_one_holds_it_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, taken) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while taken.load(std::sync::atomic::Ordering::SeqCst) < 200 {
                        let Ok(held) = Lock::of_directory(dir.path()) else { continue };
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        taken.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        #[cfg(unix)]
        {
            let dir = tempfile::tempdir().unwrap();
            let victim = dir.path().join("victim");
            std::fs::write(&victim, "precious").unwrap();
            std::os::unix::fs::symlink(&victim, dir.path().join(".tiller.lock")).unwrap();
            assert!(Lock::of_directory(dir.path()).is_err());
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        }
    }
}
