//! GGUF, the container of llama.cpp's models, of control vectors and of our dictionaries.
//!
//! A file is: the letters `GGUF`, a version, the number of tensors and of keys, the keys with their values, the list of
//! tensors (name, shape, type, offset), padding, and the tensors' data. [`Gguf::open`] maps the file and reads up to the
//! padding; the data stays where it is until [`Gguf::data`] asks for it. Cost: the size of the header, a few
//! milliseconds with a vocabulary of 262,144 strings, microseconds without one.
//!
//! Shapes are in ggml's order: the first dimension is the one whose elements lie side by side, a "row".

mod cursor;
mod dequantize;
mod ggml_type;
mod read;
mod value;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub use ggml_type::GgmlType;
pub use value::{Array, Element, Value, ValueType};
pub use write::Writer;

use crate::error::{Error, Kind, Result};
use crate::file::Map;

/// A tensor's entry in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tensor {
    /// Its name, unique in the file.
    pub name: String,
    /// Its shape in ggml's order: the first dimension is contiguous. At most four dimensions, none for a single number.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub kind: GgmlType,
    /// Where its data starts, in bytes from the start of the file.
    pub offset: usize,
    /// Bytes of its data.
    pub n_bytes: usize,
}

impl Tensor {
    /// Elements of a row: the first dimension.
    pub fn row_len(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Number of rows: the product of the other dimensions.
    pub fn n_rows(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.kind.row_bytes(self.row_len()).unwrap_or(0)
    }
}

/// An open GGUF file.
pub struct Gguf {
    map: Arc<Map>,
    header: read::Header,
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.map.path())
            .field("keys", &self.header.keys.len())
            .field("tensors", &self.header.tensors.len())
            .finish()
    }
}

impl Gguf {
    /// Maps the file at `path` and reads its header.
    ///
    /// # Errors
    /// [`Kind::Io`] if it cannot be opened, [`Kind::Format`] if it is no valid GGUF file,
    /// [`Kind::Unsupported`] for version 1, big-endian files, arrays of arrays, and one part of a split model.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_map(Map::open(path)?)
    }

    /// Reads the header of a file that is mapped already.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_map(map: Arc<Map>) -> Result<Self> {
        let header = read::header(&map, true)?;
        Ok(Self { map, header })
    }

    /// As [`Gguf::open`], but also opens one part of a model in several files.
    pub(crate) fn open_part(path: &Path) -> Result<Self> {
        let map = Map::open(path)?;
        let header = read::header(&map, false)?;
        Ok(Self { map, header })
    }

    /// The map; clone it to keep the data after this value is gone.
    pub fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// GGUF's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// What tensors' offsets are multiples of.
    pub fn alignment(&self) -> usize {
        self.header.alignment
    }

    /// All keys with their values, in the order of the file.
    pub fn keys(&self) -> &[(String, Value)] {
        &self.header.keys
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        find(&self.header.key_index, key, &self.header.keys).map(|(_, value)| value)
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[Tensor] {
        &self.header.tensors
    }

    /// The tensor called `name`, if there is one.
    pub fn opt_tensor(&self, name: &str) -> Option<&Tensor> {
        find(&self.header.tensor_index, name, &self.header.tensors)
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Kind::Format`] if the file has none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.opt_tensor(name).ok_or_else(|| {
            let n = self.tensors().len();
            Error::format(self.path(), format_args!("expected a tensor \"{name}\", found none among {n} tensors"))
        })
    }

    /// The data of a tensor of this file. (A tensor of another file may not lie in this one: then it is empty.)
    pub fn data(&self, tensor: &Tensor) -> &[u8] {
        let end = tensor.offset.saturating_add(tensor.n_bytes);
        self.map.bytes().get(tensor.offset..end).unwrap_or_default()
    }

    /// Row `i` of a tensor of this file; none behind its last row.
    pub fn row(&self, tensor: &Tensor, i: usize) -> Option<&[u8]> {
        let n = tensor.row_bytes();
        let start = i.checked_mul(n)?;
        self.data(tensor).get(start..start.checked_add(n)?)
    }

    /// The string of `key`, if it is there.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is no string.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// The integer of `key`, stored in any width, if it is there and from 0 to 2^32−1.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is something else.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer from 0 to 4294967295", |v| u32::try_from(v.as_int()?).ok())
    }

    /// As [`Gguf::opt_u32`], as a `usize`.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is something else.
    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "an integer from 0", |v| usize::try_from(v.as_int()?).ok())
    }

    /// The number of `key`, stored as `f32` or `f64`, if it is there.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is something else.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a floating-point number", |v| v.as_f64().map(|v| v as f32))
    }

    /// The truth value of `key`, if it is there.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is something else.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", Value::as_bool)
    }

    /// The array of `key`, if it is there.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is something else.
    pub fn opt_array(&self, key: &str) -> Result<Option<&Array>> {
        self.typed(key, "an array", Value::as_array)
    }

    /// The string of `key`.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is missing or no string.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.opt_str(key)?.ok_or_else(|| self.missing(key, "a string"))
    }

    /// The integer of `key`, stored in any width, from 0 to 2^32−1.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is missing or something else.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.opt_u32(key)?.ok_or_else(|| self.missing(key, "an integer"))
    }

    /// As [`Gguf::u32`], as a `usize`.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is missing or something else.
    pub fn usize(&self, key: &str) -> Result<usize> {
        self.opt_usize(key)?.ok_or_else(|| self.missing(key, "an integer"))
    }

    /// The number of `key`, stored as `f32` or `f64`.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is missing or something else.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.opt_f32(key)?.ok_or_else(|| self.missing(key, "a floating-point number"))
    }

    /// The truth value of `key`.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is missing or something else.
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.opt_bool(key)?.ok_or_else(|| self.missing(key, "a bool"))
    }

    /// The array of `key`.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is missing or something else.
    pub fn array(&self, key: &str) -> Result<&Array> {
        self.opt_array(key)?.ok_or_else(|| self.missing(key, "an array"))
    }

    fn typed<'a, T>(&'a self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if let Some(v) = read(value) {
            return Ok(Some(v));
        }
        let kind = value.describe();
        let found = value.as_int().map_or_else(|| kind.to_string(), |v| format!("{kind} {v}"));
        Err(Error::format(self.path(), format_args!("key \"{key}\": expected {expected}, found {found}")))
    }

    fn missing(&self, key: &str, expected: &str) -> Error {
        let text = format!("{}: key \"{key}\": expected {expected}, found no such key", self.path().display());
        Error::new(Kind::Format, text)
    }
}

/// The entry that `index` has for `name`.
fn find<'a, T>(index: &HashMap<String, usize>, name: &str, all: &'a [T]) -> Option<&'a T> {
    index.get(name).and_then(|&i| all.get(i))
}
