//! torch's files (`.pt`, `.pth`, `.bin`): a pickle that says what there is, and the elements.
//!
//! Since torch 1.6 such a file is a zip archive: `<name>/data.pkl` is the pickle, `<name>/data/<key>` is a storage, and
//! tensors are patterns over storages: an offset, a shape, strides. What is in order is used where it lies; a transposed
//! tensor is put in order when it is first asked for. Older files have the same things one behind another.
//!
//! Nothing in a file is run: see [`pickle`].

mod global;
mod legacy;
mod opcode;
mod pickle;
mod rebuild;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub(super) use legacy::{read as read_legacy, recognize as recognize_legacy};

use self::pickle::{Fault, Pickle, Storage};
use super::allowance::Allowance;
use super::source::{Data, Source};
use super::tensors::Contents;
use super::view::{Tensor, width};
use super::zip::{Entry, Zip};
use crate::error::{Error, Result};

/// The newest version of the archive that torch itself knows.
const MAX_VERSION: u32 = 10;
const PICKLE: &str = "/data.pkl";

/// Whether an archive is one of torch's.
pub(super) fn recognize_zip(zip: &Zip) -> bool {
    zip.entries().iter().any(is_pickle)
}

fn is_pickle(entry: &Entry) -> bool {
    entry.name.strip_suffix(PICKLE).is_some_and(|name| !name.contains('/'))
}

/// Reads an archive.
pub(super) fn read_zip(zip: &Zip, allowance: &mut Allowance) -> Result<Contents> {
    let path = zip.path();
    let mut pickles = zip.entries().iter().filter(|entry| is_pickle(entry));
    let (Some(entry), None) = (pickles.next(), pickles.next()) else {
        return Err(Error::format(path, "expected one data.pkl in a file of torch, found several"));
    };
    let place = entry.name.as_str();
    let archive = place.strip_suffix(PICKLE).unwrap_or_default();
    if zip.get(&format!("{archive}/constants.pkl")).is_some() {
        let what = "expected tensors, found a program (TorchScript): save model.state_dict() with torch.save";
        return Err(Error::unsupported(format!("{}: {what}", path.display())));
    }
    let swapped = facts(zip, archive, allowance)?;
    let program = zip.read(entry, allowance)?;
    let bytes = program.bytes();
    let pickle = Pickle::run(bytes).map_err(|fault| error(path, place, 0, fault))?;
    if pickle.end != bytes.len() {
        let left = bytes.len().saturating_sub(pickle.end);
        return Err(Error::format(
            path,
            format_args!("{place}: expected one pickle, found {left} more bytes behind it"),
        ));
    }
    let contents = Reader { pickle: &pickle, n_bytes: bytes.len(), path, place, swapped };
    let mut storages: HashMap<String, Source> = HashMap::new();
    contents.read(allowance, |storage, allowance| {
        if let Some(known) = storages.get(storage.key) {
            return Ok(known.clone());
        }
        let key = storage.key;
        let name = format!("{archive}/data/{key}");
        let Some(entry) = zip.get(&name) else {
            let what = format_args!("{place}: expected the entry \"{}\", found none", name.escape_debug());
            return Err(Error::format(path, what));
        };
        let source = zip.read(entry, allowance)?;
        storages.insert(key.to_owned(), source.clone());
        Ok(source)
    })
}

/// Checks the version of an archive; says whether its elements are big-endian.
fn facts(zip: &Zip, archive: &str, allowance: &mut Allowance) -> Result<bool> {
    let mut text = |name: &str| -> Result<Option<String>> {
        let Some(entry) = zip.get(&format!("{archive}/{name}")) else { return Ok(None) };
        let source = zip.read(entry, allowance)?;
        let start = source.bytes().iter().take(16).copied().collect();
        Ok(String::from_utf8(start).ok().map(|text| text.trim().to_owned()).or_else(|| Some(String::new())))
    };
    let unsupported = |what: String| Error::unsupported(format!("{}: {archive}: {what}", zip.path().display()));
    if let Some(version) = text("version")?
        && !version.parse::<u32>().is_ok_and(|v| (1..=MAX_VERSION).contains(&v))
    {
        let found = version.escape_debug();
        return Err(unsupported(format!("expected version 1 to {MAX_VERSION} of torch's format, found \"{found}\"")));
    }
    match text("byteorder")?.as_deref() {
        None | Some("little") => Ok(false),
        Some("big") => Ok(true),
        Some(other) => {
            Err(unsupported(format!("expected byte order little or big, found \"{}\"", other.escape_debug())))
        }
    }
}

/// A pickle that was run, on its way to tensors.
struct Reader<'a, 'p> {
    pickle: &'a Pickle<'p>,
    n_bytes: usize,
    path: &'a Path,
    /// What errors call the pickle.
    place: &'a str,
    swapped: bool,
}

impl Reader<'_, '_> {
    /// Lays the pickle flat and gives each tensor its elements, from what `storage` finds.
    fn read(
        &self,
        allowance: &mut Allowance,
        mut storage: impl FnMut(&Storage<'_>, &mut Allowance) -> Result<Source>,
    ) -> Result<Contents> {
        let (path, place) = (self.path, self.place);
        let wrong = |what: String| Error::format(path, format_args!("{place}: {what}"));
        let leaves = tree::flatten(self.pickle, self.n_bytes).map_err(wrong)?;
        let mut found = BTreeMap::new();
        for (name, id) in leaves.tensors {
            let Some(tensor) = tree::tensor(self.pickle, id) else { continue };
            let shown = name.escape_debug();
            let source = storage(&tensor.storage, allowance)?;
            let n = tensor.storage.len.checked_mul(tensor.storage.dtype.map_or(1, width));
            let bytes = source.bytes().len();
            if n != Some(bytes) {
                let Storage { key, len, .. } = &tensor.storage;
                let key = key.escape_debug();
                let what = format!("expected {len} elements in storage \"{key}\", found {bytes} bytes");
                return Err(wrong(format!("tensor \"{shown}\": {what}")));
            }
            let (dtype, shape) = (tensor.dtype, &tensor.shape);
            // What has no elements may start anywhere.
            let start = if shape.contains(&0) { Some(0) } else { tensor.offset.checked_mul(width(dtype)) };
            let data = start
                .and_then(|start| source.slice(start..bytes))
                .and_then(|rest| Data::strided(&rest, shape, &tensor.strides, width(dtype), self.swapped));
            let data = data.ok_or_else(|| {
                let (offset, strides) = (tensor.offset, &tensor.strides);
                let what = format!("expected elements of a storage of {bytes} bytes, each once");
                let pattern = format!("shape {shape:?}, strides {strides:?}, offset {offset}, {dtype:?}");
                wrong(format!("tensor \"{shown}\": {what}, found {pattern}"))
            })?;
            allowance.take(data.memory(), path, format_args!("{place}: tensor \"{shown}\""))?;
            found.insert(name, Tensor { dtype, shape: shape.clone(), data });
        }
        Ok(Contents { tensors: found, values: leaves.values, ..Contents::default() })
    }
}

/// The error of a pickle that starts at byte `from` of `place`.
fn error(path: &Path, place: &str, from: usize, fault: Fault) -> Error {
    let at = from.saturating_add(fault.at);
    let what = format_args!("{place}, byte {at}: {}", fault.what);
    if fault.unsupported {
        Error::unsupported(format!("{}: {what}", path.display()))
    } else {
        Error::format(path, what)
    }
}
