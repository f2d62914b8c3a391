//! The files inside a package: wheels are zip files, source archives and npm's packages are compressed tar files, and
//! dpkg-deb turns a Debian package into a tar stream.

use super::client::{Client, client, hinted};
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tiller::{Error, Result};

/// A package on disk whose files can be read.
pub(super) struct Archive {
    path: PathBuf,
    client: Client,
}

/// No text that we read is larger; a member that claims to be would exhaust memory.
const MAX_MEMBER: u64 = 256 << 20;

impl Archive {
    /// The package at `path`, which `client` brought.
    pub(super) fn new(path: PathBuf, client: Client) -> Self {
        Self { path, client }
    }

    /// The contents of the files whose name `wanted` accepts, with their names, in the order of the names.
    pub(super) fn files(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Vec<u8>)>> {
        let failed = |e: io::Error| Error::format(&self.path, format!("cannot unpack: {e}"));
        let mut found = match self.client {
            Client::Wheel(_) => self.zipped(wanted)?,
            Client::Sdist | Client::Npm => {
                let file = File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
                tar_files(GzDecoder::new(file), wanted).map_err(failed)?
            }
            Client::Apt => {
                let mut child = client("dpkg-deb")
                    .arg("--fsys-tarfile")
                    .arg(&self.path)
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .map_err(|e| Error::io("run", Path::new("dpkg-deb"), e))?;
                let found = child.stdout.take().map(|tar| tar_files(tar, wanted)).unwrap_or_else(|| Ok(Vec::new()));
                let status = child.wait().map_err(|e| Error::io("wait for", Path::new("dpkg-deb"), e))?;
                let found = found.map_err(failed)?;
                if !status.success() {
                    let hint = format!("remove {} and fetch again", self.path.display());
                    return Err(hinted(format!("{}: dpkg-deb cannot read it ({status})", self.path.display()), hint));
                }
                found
            }
        };
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// The contents of the file whose name ends in `suffix`.
    pub(super) fn file(&self, suffix: &str) -> Result<Vec<u8>> {
        let absent = || Error::format(&self.path, format!("no file {suffix} in it"));
        self.files(&|name| name.ends_with(suffix))?.into_iter().next().map(|(_, bytes)| bytes).ok_or_else(absent)
    }

    /// The text of the file whose name ends in `suffix`.
    pub(super) fn text(&self, suffix: &str) -> Result<String> {
        Ok(decode(self.file(suffix)?))
    }

    /// An error about what this package holds.
    pub(super) fn malformed(&self, what: impl std::fmt::Display) -> Error {
        Error::format(&self.path, what)
    }

    fn zipped(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Vec<u8>)>> {
        let failed = |e: zip::result::ZipError| Error::format(&self.path, format!("cannot unpack: {e}"));
        let file = File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        let mut zip = zip::ZipArchive::new(file).map_err(failed)?;
        let names: Vec<String> = zip.file_names().filter(|name| wanted(name)).map(str::to_owned).collect();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let mut bytes = Vec::new();
            let member = zip.by_name(&name).map_err(failed)?;
            member.take(MAX_MEMBER).read_to_end(&mut bytes).map_err(|e| Error::io("unpack", &self.path, e))?;
            found.push((name, bytes));
        }
        Ok(found)
    }
}

/// UTF-8, or Latin-1 where that fails: some of these files are older than UTF-8's victory.
pub(super) fn decode(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| e.as_bytes().iter().map(|&byte| char::from(byte)).collect())
}

/// The only member of a zip file in memory whose name ends in `suffix`, as text.
pub(super) fn unzip(bytes: &[u8], suffix: &str) -> io::Result<String> {
    let mut zip = zip::ZipArchive::new(io::Cursor::new(bytes))?;
    let absent = || io::Error::new(io::ErrorKind::NotFound, format!("no file {suffix} in it"));
    let name = zip.file_names().find(|name| name.ends_with(suffix)).map(str::to_owned).ok_or_else(absent)?;
    let mut text = Vec::new();
    zip.by_name(&name)?.take(MAX_MEMBER).read_to_end(&mut text)?;
    Ok(decode(text))
}

const BLOCK: usize = 512;

/// The regular files of a tar stream whose name `wanted` accepts. Reads ustar with the long names of GNU and pax, which
/// is what these registries' packages use.
pub(super) fn tar_files(mut tar: impl Read, wanted: &dyn Fn(&str) -> bool) -> io::Result<Vec<(String, Vec<u8>)>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (mut found, mut long_name) = (Vec::new(), None);
    loop {
        let mut header = [0u8; BLOCK];
        match tar.read_exact(&mut header) {
            Ok(()) if header.iter().all(|&byte| byte == 0) => break,
            Ok(()) => {}
            // Some writers leave the closing blocks out.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e),
        }
        let size =
            octal(&header[124..136]).filter(|&size| size <= MAX_MEMBER).ok_or_else(|| bad("tar: bad member size"))?;
        let kind = header[156];
        let short = match field(&header[345..500]) {
            prefix if prefix.is_empty() || &header[257..262] != b"ustar" => field(&header[0..100]),
            prefix => format!("{prefix}/{}", field(&header[0..100])),
        };
        let name = match kind {
            b'L' | b'x' => String::new(),
            _ => long_name.take().unwrap_or(short),
        };
        let keep = matches!(kind, b'L' | b'x') || (matches!(kind, b'0' | 0) && wanted(&name));
        let padded = size.next_multiple_of(BLOCK as u64);
        if keep {
            let mut bytes = Vec::new();
            if (&mut tar).take(padded).read_to_end(&mut bytes)? as u64 != padded {
                return Err(bad("tar: cut short"));
            }
            bytes.truncate(size as usize);
            match kind {
                b'L' => long_name = Some(field(&bytes)),
                b'x' => long_name = pax_path(&bytes).or(long_name),
                _ => found.push((name, bytes)),
            }
        } else if io::copy(&mut (&mut tar).take(padded), &mut io::sink())? != padded {
            return Err(bad("tar: cut short"));
        }
    }
    // dpkg-deb must be able to write its padding, or it reports a broken pipe.
    io::copy(&mut tar, &mut io::sink())?;
    Ok(found)
}

/// A text field, up to its first NUL.
fn field(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

/// A number field: octal digits between blanks and NULs.
fn octal(bytes: &[u8]) -> Option<u64> {
    u64::from_str_radix(field(bytes).trim(), 8).ok()
}

/// The `path` of a pax header, whose records read `LENGTH KEY=VALUE\n`.
fn pax_path(mut records: &[u8]) -> Option<String> {
    while !records.is_empty() {
        let blank = records.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(records.get(..blank)?).ok()?.parse().ok()?;
        let record = records.get(blank + 1..length)?;
        if let Some(path) = record.strip_prefix(b"path=") {
            return Some(String::from_utf8_lossy(path.strip_suffix(b"\n").unwrap_or(path)).into_owned());
        }
        records = records.get(length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, kind: u8, bytes: &[u8]) -> Vec<u8> {
        let mut block = vec![0u8; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        let size = format!("{:011o}\0", bytes.len());
        block[124..136].copy_from_slice(size.as_bytes());
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        block.extend(bytes);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    #[test]
    fn tar_gives_the_wanted_files_with_their_long_names() {
        let mut tar = member("a/b.txt", b'0', b"first");
        tar.extend(member("skip.bin", b'0', &[7; 1000]));
        tar.extend(member("folder/", b'5', b""));
        tar.extend(member("././@LongLink", b'L', b"very/long.txt\0"));
        tar.extend(member("very/lo", b'0', b"second"));
        tar.extend(member("pax", b'x', b"18 path=pax/p.txt\n"));
        tar.extend(member("short", b'0', b"third"));
        tar.extend(vec![0; 2 * BLOCK]);
        let found = tar_files(&tar[..], &|name| name.ends_with(".txt")).unwrap();
        let found: Vec<_> = found.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
        let wanted: [(&str, &[u8]); 3] = [("a/b.txt", b"first"), ("very/long.txt", b"second"), ("pax/p.txt", b"third")];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_tar_cut_short_or_with_a_wild_size_is_an_error() {
        let tar = member("a.txt", b'0', b"first");
        assert!(tar_files(&tar[..tar.len() - 1], &|_| true).unwrap_err().to_string().contains("cut short"));
        assert!(tar_files(&tar[..tar.len() - 1], &|_| false).unwrap_err().to_string().contains("cut short"));
        let mut wild = tar;
        wild[124..136].copy_from_slice(b"77777777777\0");
        assert!(tar_files(&wild[..], &|_| true).unwrap_err().to_string().contains("bad member size"));
        wild[124..136].copy_from_slice(b"9zzzzzzzzzz\0");
        assert!(tar_files(&wild[..], &|_| true).is_err());
    }

    #[test]
    fn text_is_utf8_or_latin1() {
        assert_eq!(decode("naïve".as_bytes().to_vec()), "naïve");
        assert_eq!(decode(vec![b'n', b'a', 0xef, b'v', b'e']), "naïve");
    }
}
