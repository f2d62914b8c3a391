//! safetensors, the container of activations and of other people's dictionaries.
//!
//! A file is: 8 bytes with the length of the header, the header in JSON (name, type, shape and byte range of each tensor),
//! the data. The crate `safetensors` checks that ranges fit shapes and that the tensors cover the data exactly; this module
//! maps the file, says in full what is wrong with a bad one, refuses names that occur twice (JSON lets the last one win),
//! and writes: tensors of wide types first, so that each is aligned to its own width and can be used where it lies.

mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ::safetensors::{SafeTensorError, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

pub use super::view::{Dtype, View};
pub use write::Writer;

use super::Map;
use super::source::{Data, Source};
use super::view::{Tensor, missing};
use crate::error::{Error, Result};

/// Bytes of the length in front of the header.
const LENGTH_BYTES: usize = 8;
/// The format's own limit is 100 MB; the largest models have some tens of thousands of tensors at 100 bytes each, and
/// parsing takes several times the memory.
const MAX_HEADER_BYTES: usize = 32 << 20;

/// An open safetensors file.
#[derive(Debug)]
pub struct File {
    map: Arc<Map>,
    metadata: HashMap<String, String>,
    /// In the order of their data.
    tensors: Vec<(String, Tensor)>,
    index: HashMap<String, usize>,
}

/// Whether a file that starts with these bytes can be one: behind the length comes a JSON object.
pub(super) fn recognize(bytes: &[u8]) -> bool {
    bytes.get(LENGTH_BYTES) == Some(&b'{')
}

impl File {
    /// Maps the file at `path` and reads its header; no data is read.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) if it cannot be opened, [`Kind::Format`](crate::Kind::Format) if it is no valid
    /// safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_map(Map::open(path)?)
    }

    /// Reads the header of a file that is mapped already.
    ///
    /// # Errors
    /// As [`File::open`].
    pub fn from_map(map: Arc<Map>) -> Result<Self> {
        let path = map.path();
        let header = header_bytes(&map)?;
        let names = check_names(header).map_err(|e| Error::format(path, format_args!("header: {e}")))?;
        let (n, metadata) = SafeTensors::read_metadata(map.bytes()).map_err(|e| explain(path, &map, &names, e))?;
        let data = n.saturating_add(LENGTH_BYTES);
        let tensor = |name: String| {
            let info = metadata.info(&name)?;
            let (from, to) = info.data_offsets;
            let at = Source::Mapped(map.clone(), data.checked_add(from)?..data.checked_add(to)?);
            Some((name, Tensor { dtype: info.dtype, shape: info.shape.clone(), data: Data::InOrder(at) }))
        };
        let tensors: Vec<_> = metadata.offset_keys().into_iter().filter_map(tensor).collect();
        let index = tensors.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { map, metadata, tensors, index })
    }

    /// The map; clone it to keep the data after this value is gone.
    pub fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// The names of the tensors, in the order of their data.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    /// The string that the file's metadata has for `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The tensor called `name`, if there is one.
    pub fn opt_tensor(&self, name: &str) -> Option<View<'_>> {
        let (name, tensor) = self.tensors.get(*self.index.get(name)?)?;
        Some(View::new(tensor, name, self.path()))
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if the file has none.
    pub fn tensor(&self, name: &str) -> Result<View<'_>> {
        self.opt_tensor(name).ok_or_else(|| missing(self.path(), name, self.names()))
    }

    /// The tensors by name.
    pub(super) fn into_tensors(self) -> BTreeMap<String, Tensor> {
        self.tensors.into_iter().collect()
    }
}

/// The header's JSON, its length checked.
fn header_bytes(map: &Map) -> Result<&[u8]> {
    let (bytes, path) = (map.bytes(), map.path());
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        let n = bytes.len();
        return Err(Error::format(path, format_args!("not a safetensors file: expected 8 bytes of length, found {n}")));
    };
    let n = u64::from_le_bytes(*length);
    let header = usize::try_from(n).ok().filter(|&n| n <= MAX_HEADER_BYTES).ok_or_else(|| {
        let what = format_args!(
            "not a safetensors file, or a damaged one: expected a header of at most {MAX_HEADER_BYTES} bytes, found {n}"
        );
        Error::format(path, what)
    })?;
    rest.get(..header).ok_or_else(|| {
        let what = format_args!("header: expected {n} bytes, found {} before the end of the file", rest.len());
        Error::format(path, what).hinted("the file is cut short: fetch or write it again")
    })
}

/// The names in a header, none of them twice.
fn check_names(header: &[u8]) -> serde_json::Result<HashSet<String>> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = HashSet<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut names = HashSet::new();
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                if let Some(twice) = names.replace(name) {
                    let text = format!("expected each tensor once, found \"{twice}\" twice");
                    return Err(serde::de::Error::custom(text));
                }
            }
            Ok(names)
        }
    }
    let mut json = serde_json::Deserializer::from_slice(header);
    let names = json.deserialize_map(Names)?;
    json.end()?;
    Ok(names)
}

/// Adds to the crate's errors what they leave out.
fn explain(path: &Path, map: &Map, names: &HashSet<String>, error: SafeTensorError) -> Error {
    match error {
        SafeTensorError::InvalidOffset(name) => {
            let what = "expected its data right behind the tensor before it, found a gap or an overlap";
            Error::format(path, format_args!("tensor \"{name}\": {what}"))
        }
        SafeTensorError::TensorInvalidInfo => {
            let what = "a tensor's byte range: expected the size of its shape and type, found another";
            Error::format(path, format_args!("{what} ({} tensors)", names.len()))
        }
        SafeTensorError::ValidationOverflow => {
            Error::format(path, "a tensor's shape: expected a size that fits 64 bits, found more")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let n = map.bytes().len();
            let what = "expected the tensors' data to end where the file ends";
            Error::format(path, format_args!("{what}, found {n} bytes in the file: cut short, or with bytes left over"))
        }
        SafeTensorError::InvalidHeaderDeserialization(e) => Error::format(path, format_args!("header: {e}")),
        other => Error::format(path, format_args!("header: {other}")),
    }
}
