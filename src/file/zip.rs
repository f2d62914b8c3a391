//! The directory of a zip archive: what NumPy's npz files and torch's files are.
//!
//! Crates that read archives copy an entry out of them. Here an entry is a matrix that is to be used where it lies, so the
//! directory is read by hand, strictly: each name once, each entry's bytes its own, the entry's own header in agreement.
//! Entries are stored or deflated; encryption, other compressions and archives in several parts are refused.
//!
//! The checksums of stored entries are not checked: that would read every page of a file of which some rows are wanted.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use flate2::read::DeflateDecoder;

use super::Map;
use super::allowance::Allowance;
use super::source::Source;
use crate::error::{Error, Result};

/// The signatures of an entry's own header, of its line in the directory, and of the three parts of the archive's end.
const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";

/// Bytes of these, without what has a length of its own.
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
const LOCATOR_64_BYTES: usize = 20;

/// The longest comment that the end of an archive can have.
const MAX_COMMENT: usize = 0xffff;
/// Deflate makes 258 bytes of two bits at best.
const MAX_RATIO: usize = 1032;
/// Memory that inflating begins with.
const FIRST_BYTES: usize = 64 << 10;

/// An archive.
pub(super) struct Zip {
    map: Arc<Map>,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

/// A file in an archive.
pub(super) struct Entry {
    pub(super) name: String,
    /// Where its bytes are in the archive.
    at: Range<usize>,
    deflated: bool,
    /// Its bytes, when inflated.
    size: usize,
    crc: u32,
}

/// What the end of an archive says of its directory.
struct End {
    n_entries: u64,
    bytes: u64,
    offset: u64,
    /// Where the end itself starts.
    at: usize,
}

/// Numbers, one after another, little-endian.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of `n` bytes.
    fn number(&mut self, n: usize) -> Option<u64> {
        Some(self.take(n)?.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
    }

    fn size(&mut self, n: usize) -> Option<usize> {
        self.number(n).and_then(|v| usize::try_from(v).ok())
    }

    fn is(&mut self, signature: &[u8]) -> Option<()> {
        (self.take(signature.len())? == signature).then_some(())
    }
}

/// Whether a file that starts with these bytes is an archive.
pub(super) fn recognize(bytes: &[u8]) -> bool {
    bytes.starts_with(LOCAL) || bytes.starts_with(END)
}

impl Zip {
    /// Reads the directory of the archive that `map` is.
    pub(super) fn open(map: Arc<Map>) -> Result<Self> {
        let wrong = |what: String| Error::format(map.path(), what);
        let bytes = map.bytes();
        let end = end(bytes).map_err(wrong)?;
        let directory = usize::try_from(end.offset)
            .ok()
            .and_then(|from| Some(from..from.checked_add(usize::try_from(end.bytes).ok()?)?))
            .filter(|range| range.end <= end.at);
        let found = directory.clone().and_then(|range| bytes.get(range).zip(directory));
        let Some((lines, directory)) = found else {
            let what = "zip directory: expected it before the archive's end";
            return Err(wrong(format!("{what} at byte {}, found {} bytes at byte {}", end.at, end.bytes, end.offset)));
        };
        let n = match usize::try_from(end.n_entries) {
            Ok(n) if n <= lines.len() / CENTRAL_BYTES => n,
            _ => {
                let (n, len) = (end.n_entries, lines.len());
                return Err(wrong(format!("zip directory: expected its entries in {len} bytes, found {n} entries")));
            }
        };
        let (mut entries, mut index, mut lines) = (Vec::with_capacity(n), HashMap::with_capacity(n), Fields(lines));
        for i in 0..n {
            let entry = entry(bytes, directory.start, &mut lines, map.path(), i)?;
            if index.insert(entry.name.clone(), i).is_some() {
                return Err(wrong(format!("zip directory: expected each name once, found \"{}\" twice", entry.name)));
            }
            entries.push(entry);
        }
        if !lines.0.is_empty() {
            let left = lines.0.len();
            return Err(wrong(format!("zip directory: expected {n} entries, found {left} more bytes behind them")));
        }
        let zip = Self { entries, index, map: map.clone() };
        zip.check_overlaps().map_err(wrong)?;
        Ok(zip)
    }

    pub(super) fn path(&self) -> &Path {
        self.map.path()
    }

    /// In the order of the directory.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(*self.index.get(name)?)
    }

    /// The bytes of `entry`: where they lie, or inflated.
    pub(super) fn read(&self, entry: &Entry, allowance: &mut Allowance) -> Result<Source> {
        let Entry { name, at, size, .. } = entry;
        if !entry.deflated {
            return Ok(Source::Mapped(self.map.clone(), at.clone()));
        }
        let wrong = |what: String| Error::format(self.path(), format_args!("zip entry \"{name}\": {what}"));
        let deflated = self.map.bytes().get(at.clone()).unwrap_or_default();
        if *size > deflated.len().saturating_mul(MAX_RATIO) {
            return Err(wrong(format!(
                "expected {size} bytes, found {}, which cannot inflate to them",
                deflated.len()
            )));
        }
        allowance.take(*size, self.path(), format_args!("zip entry \"{name}\""))?;
        let damaged = |e| wrong(format!("expected deflated bytes, found damaged ones: {e}"));
        let (mut decoder, mut out) = (DeflateDecoder::new(deflated), Vec::new());
        // Memory is taken for what has come, not for what is said to come.
        while out.len() < *size {
            let step = (2 * out.len()).max(FIRST_BYTES).min(*size - out.len());
            out.try_reserve_exact(step).map_err(|e| wrong(format!("{size} bytes: {e}")))?;
            if decoder.by_ref().take(step as u64).read_to_end(&mut out).map_err(damaged)? < step {
                return Err(wrong(format!("expected {size} bytes, inflated {}", out.len())));
            }
        }
        if decoder.read(&mut [0]).map_err(damaged)? > 0 {
            return Err(wrong(format!("expected {size} bytes, inflated at least {}", out.len() + 1)));
        }
        let mut crc = flate2::Crc::new();
        crc.update(&out);
        if crc.sum() != entry.crc {
            return Err(wrong(format!("expected the checksum {:08x}, found {:08x}", entry.crc, crc.sum())));
        }
        Ok(Source::memory(out))
    }

    /// Two entries that share bytes are how a small archive becomes a large one.
    fn check_overlaps(&self) -> std::result::Result<(), String> {
        let mut by_start: Vec<&Entry> = self.entries.iter().collect();
        by_start.sort_by_key(|e| (e.at.start, e.at.end));
        for pair in by_start.windows(2) {
            if let [a, b] = pair
                && a.at.end > b.at.start
            {
                return Err(format!(
                    "zip entry \"{}\": expected bytes of its own, found those of \"{}\"",
                    b.name, a.name
                ));
            }
        }
        Ok(())
    }
}

/// Finds the end of the archive: it is the last thing but for a comment whose length it gives.
fn end(bytes: &[u8]) -> std::result::Result<End, String> {
    let last = bytes.len().checked_sub(END_BYTES);
    let at = last.and_then(|last| {
        let first = last.saturating_sub(MAX_COMMENT);
        (first..=last).rev().find(|&at| {
            let tail = bytes.get(at..).unwrap_or_default();
            let comment = tail.get(END_BYTES - 2..).and_then(|rest| Fields(rest).size(2));
            tail.starts_with(END) && comment.and_then(|n| n.checked_add(END_BYTES)) == Some(tail.len())
        })
    });
    let at = at.ok_or("zip archive: expected the end of its directory, found none: cut short?")?;
    let parse = || {
        let mut f = Fields(bytes.get(at..)?);
        f.is(END)?;
        let disks = [f.number(2)?, f.number(2)?];
        let n = [f.number(2)?, f.number(2)?];
        Some((disks, n, End { n_entries: n[1], bytes: f.number(4)?, offset: f.number(4)?, at }))
    };
    let (disks, n, end) = parse().ok_or("zip archive: expected the end of its directory, found half of it")?;
    let locator = at.checked_sub(LOCATOR_64_BYTES).and_then(|from| bytes.get(from..at));
    if let Some(locator) = locator.filter(|l| l.starts_with(LOCATOR_64)) {
        return end_64(bytes, locator, at - LOCATOR_64_BYTES);
    }
    if disks != [0, 0] || n[0] != n[1] {
        return Err(format!("zip archive: expected one part, found number {} of several", disks[0]));
    }
    Ok(end)
}

/// The end of an archive with 64-bit numbers, to which `locator`, at byte `at`, points.
fn end_64(bytes: &[u8], locator: &[u8], at: usize) -> std::result::Result<End, String> {
    let parse = || {
        let mut l = Fields(locator.get(LOCATOR_64.len() + 4..)?);
        let start = l.size(8)?;
        let mut f = Fields(bytes.get(start..at)?);
        f.is(END_64)?;
        // Its own size, and the versions that wrote it and can read it.
        f.take(8 + 2 + 2)?;
        let disks = [f.number(4)?, f.number(4)?];
        let n = [f.number(8)?, f.number(8)?];
        Some((disks, n, End { n_entries: n[1], bytes: f.number(8)?, offset: f.number(8)?, at: start }))
    };
    match parse() {
        Some((disks, n, end)) if disks == [0, 0] && n[0] == n[1] => Ok(end),
        Some((disks, ..)) => Err(format!("zip archive: expected one part, found number {} of several", disks[0])),
        None => Err("zip archive: expected its 64-bit end where the locator points, found something else".to_owned()),
    }
}

/// What a line of the directory says.
struct Line<'a> {
    flags: u64,
    method: u64,
    crc: u64,
    deflated: u64,
    size: u64,
    offset: u64,
    name: &'a [u8],
}

/// The next line of the directory.
fn line<'a>(lines: &mut Fields<'a>) -> Option<Line<'a>> {
    lines.is(CENTRAL)?;
    lines.take(2 + 2)?;
    let (flags, method) = (lines.number(2)?, lines.number(2)?);
    // The time.
    lines.take(4)?;
    let (crc, mut deflated, mut size) = (lines.number(4)?, lines.number(4)?, lines.number(4)?);
    let (name, extra, comment) = (lines.size(2)?, lines.size(2)?, lines.size(2)?);
    // The part, and attributes of files.
    lines.take(2 + 2 + 4)?;
    let mut offset = lines.number(4)?;
    let name = lines.take(name)?;
    let mut extra = Fields(lines.take(extra)?);
    lines.take(comment)?;
    // 64-bit numbers stand in a field of their own, those that don't fit their place above.
    while let (Some(id), Some(n)) = (extra.number(2), extra.size(2)) {
        let mut field = Fields(extra.take(n)?);
        if id == 1 {
            for narrow in [&mut size, &mut deflated, &mut offset] {
                if *narrow == u64::from(u32::MAX) {
                    *narrow = field.number(8)?;
                }
            }
        }
    }
    Some(Line { flags, method, crc, deflated, size, offset, name })
}

/// Reads entry number `i`: its line, and the header in front of its bytes, which end before `limit`.
fn entry(bytes: &[u8], limit: usize, lines: &mut Fields<'_>, path: &Path, i: usize) -> Result<Entry> {
    let wrong = |what: &str| Error::format(path, format_args!("zip directory, entry {i}: {what}"));
    let line = line(lines).ok_or_else(|| wrong("expected a whole entry, found something else or less"))?;
    let name = name(line.name).map_err(|what| wrong(&what))?;
    let unsupported = |what: &str| {
        let path = path.display();
        Error::unsupported(format!("{path}: zip entry \"{name}\": {what}"))
    };
    // Bit 0: encrypted; bit 6: strongly; bit 13: the directory is.
    if line.flags & (1 | 1 << 6 | 1 << 13) != 0 {
        return Err(unsupported("expected readable bytes, found encrypted ones"));
    }
    let deflated = match line.method {
        0 => false,
        8 => true,
        other => return Err(unsupported(&format!("expected it stored or deflated, found compression {other}"))),
    };
    let local = |offset: u64| {
        let start = usize::try_from(offset).ok()?;
        let mut f = Fields(bytes.get(start..limit)?);
        let whole = f.0.len();
        f.is(LOCAL)?;
        f.take(2 + 2)?;
        let method = f.number(2)?;
        f.take(4 + 4 + 4 + 4)?;
        let (name, extra) = (f.size(2)?, f.size(2)?);
        let name = f.take(name)?;
        f.take(extra)?;
        let at = start.checked_add(whole - f.0.len())?;
        (method == line.method && name == line.name).then_some(at)
    };
    let at = local(line.offset).ok_or_else(|| {
        wrong(&format!("expected the header of \"{name}\" at byte {}, found something else", line.offset))
    })?;
    let range = || {
        let size = usize::try_from(line.size).ok()?;
        let n = usize::try_from(line.deflated).ok()?;
        let end = at.checked_add(n).filter(|&end| end <= limit)?;
        (deflated || n == size).then_some((at..end, size))
    };
    let (at, size) = range().ok_or_else(|| {
        let Line { deflated, size, .. } = line;
        let room = limit.saturating_sub(at);
        wrong(&format!("expected \"{name}\" in {room} bytes, found {deflated} bytes that come to {size}"))
    })?;
    let crc = u32::try_from(line.crc).unwrap_or_default();
    Ok(Entry { name, at, deflated, size, crc })
}

/// A name that can be shown and cannot be mistaken for a place elsewhere.
fn name(bytes: &[u8]) -> std::result::Result<String, String> {
    let name = std::str::from_utf8(bytes).map_err(|e| format!("expected a name in UTF-8, found {e}"))?;
    let elsewhere = name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..");
    if name.is_empty() || elsewhere || name.chars().any(char::is_control) {
        return Err(format!("expected a plain relative name, found \"{}\"", name.escape_debug()));
    }
    Ok(name.to_owned())
}
