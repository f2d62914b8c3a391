//! Text files, read for what they are: UTF-8, whole or line by line.
//!
//! Compressed and binary files and other encodings are refused by name: as text they would be prose without meaning. A byte
//! order mark of UTF-8 is skipped. Errors read `file:line: expected …, found …`.

use std::fmt::Display;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Bytes at the start of a file that tell what it is.
const HEAD: usize = 8192;
/// Of so many bytes one may be a control character; random bytes hold three times as many.
const CONTROLS: usize = 32;
/// Where a tar archive says that it is one, and how.
const TAR: (usize, &[u8]) = (257, b"ustar");
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What is no text: its first bytes, whether they settle it alone (letters count beside binary bytes only), its name, what
/// to do with it.
const KINDS: &[(&[u8], bool, &str, &str)] = &[
    (b"\x1f\x8b", true, "gzip", "unpack it first: gunzip FILE"),
    (b"\x28\xb5\x2f\xfd", true, "Zstandard", "unpack it first: zstd -d FILE"),
    (b"\xfd7zXZ\0", true, "xz", "unpack it first: xz -d FILE"),
    (b"BZh", false, "bzip2", "unpack it first: bzip2 -d FILE"),
    (b"PK\x03\x04", true, "a zip archive", "unpack it first; save a document in it as plain text"),
    (b"%PDF-", true, "PDF", "turn it into text first: pdftotext FILE"),
    (b"PAR1", false, "Parquet", COLUMNS),
    (b"ARROW1", false, "Arrow", COLUMNS),
    (b"\xff\xff\xff\xff", true, "Arrow", COLUMNS),
    (b"GGUF", false, "GGUF", "a model or dictionary stands in the place of another file: check the order of the files"),
    (b"\x93NUMPY", true, "a NumPy array", "an array stands in the place of another file: check the order of the files"),
    (b"SQLite format 3\0", true, "an SQLite database", "export the table as JSON lines first"),
    (b"\x89HDF\r\n", true, "HDF5", COLUMNS),
    (b"\x89PNG", true, "a PNG image", "a picture stands in the place of another file"),
    (b"\xff\xd8\xff", true, "a JPEG image", "a picture stands in the place of another file"),
    (
        b"version https://git-lfs.github.com/spec/",
        true,
        "a pointer of Git LFS",
        "fetch what it points to: git lfs pull",
    ),
    (b"\xff\xfe\0\0", true, "UTF-32", "convert it first: iconv -f UTF-32 -t UTF-8 FILE"),
    (b"\xff\xfe", true, "UTF-16", UTF_16),
    (b"\xfe\xff", true, "UTF-16", UTF_16),
];
const COLUMNS: &str = "write its rows as JSON lines first, such as pandas' to_json(orient=\"records\", lines=True)";
const UTF_16: &str = "convert it first: iconv -f UTF-16 -t UTF-8 FILE";

/// [`Kind::Format`] at `line` of `path`.
pub(crate) fn wrong(path: &Path, line: usize, what: impl Display) -> Error {
    Error::new(Kind::Format, format!("{}:{line}: {what}", path.display()))
}

/// The text of the regular file at `path`, at most `limit` bytes of UTF-8.
///
/// # Errors
/// As [`read`](super::read); [`Kind::Format`] names what it holds in place of text, or the first byte that is no UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    let mut bytes = super::read(path, limit)?;
    check(path, bytes.get(..HEAD).unwrap_or(&bytes))?;
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(binary(path, &bytes, at));
    }
    String::from_utf8(bytes).map_err(|e| encoding(path, 1, e.as_bytes(), e.utf8_error().valid_up_to()))
}

/// Calls `take` with the number (from 1) and the text of every line of `path` that is not blank. A line has at most `limit`
/// bytes.
pub(crate) fn for_each_line(path: &Path, limit: u64, mut take: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let mut head = Vec::new();
    super::open(path)?.take(HEAD as u64).read_to_end(&mut head).map_err(|e| Error::io("read", path, e))?;
    check(path, &head)?;
    super::for_each_line(path, limit, |number, bytes| {
        let bytes = if number == 1 { bytes.strip_prefix(MARK).unwrap_or(bytes) } else { bytes };
        let text = std::str::from_utf8(bytes).map_err(|e| encoding(path, number, bytes, e.valid_up_to()))?;
        if text.trim().is_empty() { Ok(()) } else { take(number, text) }
    })
}

/// Refuses what begins with `head`, if it is no text.
fn check(path: &Path, head: &[u8]) -> Result<()> {
    match no_text(head) {
        Some((name, hint)) => Err(Error::format(path, format_args!("expected text, found {name}")).hinted(hint)),
        None => Ok(()),
    }
}

/// The name of what begins with `head`, if it is no text, and what to do with it.
fn no_text(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let is_control = |byte: &&u8| matches!(**byte, 0..=7 | 11 | 14..=26 | 28..=31 | 127);
    let zeros = |start: usize| head.iter().skip(start).step_by(2).filter(|&&byte| byte == 0).count();
    let binary = head.iter().filter(is_control).count() * CONTROLS > head.len() || head.contains(&0);
    let known = KINDS.iter().find(|(first, alone, ..)| head.starts_with(first) && (binary || *alone));
    if let Some((.., name, hint)) = known {
        return Some((name, hint));
    }
    // Western text in UTF-16 without a mark: every other byte is 0.
    if zeros(0).abs_diff(zeros(1)) * 3 > head.len() && zeros(0).min(zeros(1)) == 0 {
        return Some(("UTF-16 without a byte order mark", UTF_16));
    }
    binary.then_some(("binary data", "only text in UTF-8 can be read"))
}

/// What a file is that begins with `head` and is not what it should be, and what to do with it: for readers of other formats,
/// which meet downloads that brought something else. `None` if that is not known.
pub fn name_contents(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = head.trim_ascii_start();
    let begins = |with: &str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()));
    if head.is_empty() {
        return Some(("an empty file", "nothing arrived: fetch or write it again"));
    }
    if begins("<!doctype html") || begins("<html") {
        return Some((
            "an HTML page",
            "a server answered with a page, such as an error or a login: fetch the file itself",
        ));
    }
    if head.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
        return Some((
            "a tar archive",
            "unpack it first; what torch wrote as tar (2016), load and save again with torch",
        ));
    }
    KINDS.iter().find(|(first, ..)| head.starts_with(first)).map(|&(.., name, hint)| (name, hint))
}

/// A NUL at `at` of what looked like text.
fn binary(path: &Path, bytes: &[u8], at: usize) -> Error {
    let (line, column) = place(bytes, at);
    wrong(path, line, format_args!("expected text, found a NUL at byte {column} of the line"))
        .hinted("only text in UTF-8 can be read; remove the NULs if the rest is text")
}

/// A byte at `at` that is no UTF-8; line `first` is where `bytes` start.
fn encoding(path: &Path, first: usize, bytes: &[u8], at: usize) -> Error {
    let (line, column) = place(bytes, at);
    let byte = bytes.get(at).copied().unwrap_or_default();
    let what = format_args!("expected UTF-8, found 0x{byte:02x} at byte {column} of the line");
    wrong(path, first + line - 1, what)
        .hinted("convert the file first; from Latin-1, for instance: iconv -f LATIN1 -t UTF-8 FILE")
}

/// Line and byte, both from 1, of what stands at `at`.
fn place(bytes: &[u8], at: usize) -> (usize, usize) {
    let before = bytes.get(..at).unwrap_or_default();
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    (line, at - before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(bytes: &[u8]) -> std::result::Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut lines = String::new();
        let by_line = for_each_line(file.path(), 1 << 20, |_, line| {
            lines += line;
            Ok(())
        });
        let whole = read_text(file.path(), 1 << 20);
        assert_eq!(whole.is_ok(), by_line.is_ok(), "{whole:?} {by_line:?}");
        let told = |e: Error| {
            assert!(e.hint().is_some(), "{e}");
            e.message().replace(&file.path().display().to_string(), "F")
        };
        assert!(whole.as_ref().map_or(true, |text| *text == lines));
        whole.map_err(told)
    }

    #[test]
    fn what_is_no_text_is_refused_by_name() {
        let parquet = [b"PAR1\x15\0\x15".as_slice(), &[7; 100]].concat();
        let no_mark: Vec<u8> = "text in UTF-16".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, name) in [
            (b"\x1f\x8b\x08\x08abc".as_slice(), "gzip"),
            (b"\x28\xb5\x2f\xfd\x24", "Zstandard"),
            (b"PK\x03\x04\x14\0", "a zip archive"),
            (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
            (&parquet, "Parquet"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\xff\xfeh\0i\0", "UTF-16"),
            (b"\xfe\xff\0h\0i", "UTF-16"),
            (&no_mark, "UTF-16 without a byte order mark"),
            (b"\x01\x02\x03\x04 and so on", "binary data"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        ] {
            assert_eq!(read_back(bytes), Err(format!("F: expected text, found {name}")));
        }
    }

    #[test]
    fn text_is_text_whatever_it_begins_with() {
        for text in ["GGUF is a format.\n", "PAR1 and BZh too", "tab\there\x1b[1m\x0c\r\n", "naïve 日本語 🙂", ""]
        {
            assert_eq!(read_back(text.as_bytes()).as_deref(), Ok(text));
        }
        assert_eq!(read_back(b"\xef\xbb\xbfmarked").as_deref(), Ok("marked"));
    }

    #[test]
    fn other_encodings_are_refused_with_line_and_byte() {
        let wanted = Err("F:2: expected UTF-8, found 0xe9 at byte 4 of the line".to_owned());
        assert_eq!(read_back(b"a good line\ncaf\xe9 au lait\n"), wanted);
    }

    #[test]
    fn a_nul_far_from_the_start_is_refused_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ["line\n".repeat(4000).as_bytes(), b"nul \0"].concat()).unwrap();
        let error = read_text(file.path(), 1 << 20).unwrap_err();
        assert!(error.message().ends_with(":4001: expected text, found a NUL at byte 5 of the line"), "{error}");
    }

    #[test]
    fn long_files_lines_and_directories_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_text(folder.path(), 9).unwrap_err().message().contains("expected a file, found a directory"));
        let path = folder.path().join("t");
        std::fs::write(&path, "twenty bytes of text").unwrap();
        assert!(read_text(&path, 19).unwrap_err().message().contains("at most 19 bytes"));
        let error = for_each_line(&path, 19, |_, _| Ok(())).unwrap_err();
        assert!(error.message().contains(":1: expected a line of at most 19"), "{error}");
        assert!(read_text(&path, 20).is_ok() && for_each_line(&path, 20, |_, _| Ok(())).is_ok());
    }
}
