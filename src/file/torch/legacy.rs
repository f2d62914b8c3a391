//! Files as torch wrote them before version 1.6: pickles one behind another, then the storages.
//!
//! The pickles are: a number by which such files are known, the version, facts on the machine that wrote it, the object, the
//! keys of the storages in the order in which they follow; each storage is its number of elements in 8 bytes, then these.

use std::collections::HashMap;
use std::path::Path;

use super::pickle::{Object, Pickle};
use super::{Reader, error};
use crate::error::{Error, Result};
use crate::file::allowance::Allowance;
use crate::file::source::Source;
use crate::file::tensors::Contents;
use crate::file::view::width;

/// What such files start with, behind the pickle's protocol: the number 0x1950a86a20f9469cfc6c, and the pickle's end.
const NUMBER: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The only version there is.
const VERSION: i64 = 1001;
/// What errors call the part of the file with the pickles.
const PLACE: &str = "pickle";

/// Whether a file that starts with these bytes is one.
pub(in crate::file) fn recognize(bytes: &[u8]) -> bool {
    start(bytes).is_some()
}

/// Where the second pickle starts, if the first is the number. torch writes protocol 2 unless it is told otherwise; from 4
/// on a pickle begins with the length of a frame.
fn start(bytes: &[u8]) -> Option<usize> {
    let (protocol, rest) = bytes.strip_prefix(b"\x80")?.split_first()?;
    let rest = match protocol {
        2 | 3 => rest,
        4 | 5 => rest.strip_prefix(b"\x95").map_or(Some(rest), |framed| framed.get(8..))?,
        _ => return None,
    };
    Some(bytes.len() - rest.strip_prefix(NUMBER)?.len())
}

/// Reads the file that all of `source` is.
pub(in crate::file) fn read(source: &Source, path: &Path, allowance: &mut Allowance) -> Result<Contents> {
    let bytes = source.bytes();
    let mut at = start(bytes).unwrap_or_default();
    let mut next = || -> Result<(Pickle<'_>, usize)> {
        let from = at;
        let pickle = Pickle::run(bytes.get(from..).unwrap_or_default()).map_err(|f| error(path, PLACE, from, f))?;
        at = at.saturating_add(pickle.end);
        let n = pickle.end;
        Ok((pickle, n))
    };
    let wrong = |what: &str| Error::format(path, format_args!("{PLACE}: {what}"));
    let (version, _) = next()?;
    if !matches!(version.get(version.root()), Object::Int(VERSION)) {
        return Err(wrong("expected version 1001 of torch's old format, found another"));
    }
    let (machine, _) = next()?;
    if !is_little_endian(&machine) {
        let path = path.display();
        return Err(Error::unsupported(format!("{path}: expected a file of a little-endian machine, found another")));
    }
    let (object, n) = next()?;
    let (keys, _) = next()?;
    let Object::List(keys_in_order) = keys.get(keys.root()) else {
        return Err(wrong("expected the keys of the storages in a list, found another object"));
    };
    let mut lengths = HashMap::new();
    for known in object.objects() {
        if let Object::Storage(storage) = known {
            let bytes = storage.len.checked_mul(storage.dtype.map_or(1, width));
            if *lengths.entry(storage.key).or_insert((storage.len, bytes)) != (storage.len, bytes) {
                return Err(wrong("expected a storage to have one length and type, found two"));
            }
        }
    }
    let mut storages = HashMap::new();
    for &key in keys_in_order {
        let Object::Text(key) = keys.get(key) else {
            return Err(wrong("expected the key of a storage to be a string, found another object"));
        };
        let shown = key.escape_debug();
        let place = |what: String| Error::format(path, format_args!("storage \"{shown}\" at byte {at}: {what}"));
        let Some(&(len, Some(n_bytes))) = lengths.get(key) else {
            return Err(place("expected the storage of some tensor, found another key".to_owned()));
        };
        let rest = bytes.get(at..).unwrap_or_default();
        let found = rest.first_chunk().map(|n| u64::from_le_bytes(*n));
        if found.and_then(|n| usize::try_from(n).ok()) != Some(len) {
            let found = found.map_or_else(|| "the end".to_owned(), |n| n.to_string());
            return Err(place(format!("expected {len} elements, found {found}")));
        }
        let start = at.saturating_add(size_of::<u64>());
        let range = start..start.saturating_add(n_bytes);
        let end = range.end;
        let Some(data) = source.slice(range) else {
            let left = bytes.len().saturating_sub(start);
            return Err(place(format!("expected {n_bytes} bytes, found {left} before the end")));
        };
        if storages.insert((*key).to_owned(), data).is_some() {
            return Err(place("expected each storage once, found it twice".to_owned()));
        }
        at = end;
    }
    if at != bytes.len() {
        let left = bytes.len().saturating_sub(at);
        return Err(wrong(&format!("expected the file to end behind its storages, found {left} more bytes")));
    }
    let contents = Reader { pickle: &object, n_bytes: n, path, place: PLACE, swapped: false };
    contents.read(allowance, |storage, _| match storages.get(storage.key) {
        Some(source) => Ok(source.clone()),
        None => {
            let key = storage.key.escape_debug();
            Err(wrong(&format!("expected the storage \"{key}\" behind the pickles, found none")))
        }
    })
}

/// Whether the machine that the dictionary `facts` describes wrote numbers as this one reads them.
fn is_little_endian(facts: &Pickle<'_>) -> bool {
    let Object::Dict(items) = facts.get(facts.root()) else { return false };
    let little = items.iter().find(|(key, _)| matches!(facts.get(*key), Object::Text("little_endian")));
    little.is_some_and(|&(_, value)| matches!(facts.get(value), Object::Bool(true)))
}
