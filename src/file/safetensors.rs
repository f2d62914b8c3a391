//! safetensors, the container of activations and of other people's dictionaries.
//!
//! A file is: 8 bytes with the length of the header, the header in JSON (name, type, shape and byte range of each tensor),
//! the data. The crate `safetensors` checks that ranges fit shapes and that the tensors cover the data exactly; this module
//! maps the file, says in full what is wrong with a bad one, refuses names that occur twice (JSON lets the last one win),
//! and writes: tensors of wide types first, so that each is aligned to its own width and can be used where it lies.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ::safetensors::tensor::TensorInfo;
use ::safetensors::{SafeTensorError, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

pub use ::safetensors::Dtype;

use super::{Map, Sink, write_atomic};
use crate::error::{Error, Result};

/// Bytes of the length in front of the header.
const LENGTH_BYTES: usize = 8;
/// The format's own limit is 100 MB; the largest models have some tens of thousands of tensors at 100 bytes each, and
/// parsing takes several times the memory.
const MAX_HEADER_BYTES: usize = 32 << 20;
/// Tensors' data starts at a multiple of this: a cache line, and more than any element needs.
const ALIGNMENT: usize = 64;
/// The key of the header that holds strings about the file, not a tensor.
const METADATA: &str = "__metadata__";

/// An open safetensors file.
#[derive(Debug)]
pub struct File {
    map: Arc<Map>,
    metadata: HashMap<String, String>,
    /// In the order of their data.
    tensors: Vec<(String, TensorInfo)>,
    index: HashMap<String, usize>,
    /// Where the data starts.
    data: usize,
}

/// A tensor of an open file.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    info: &'a TensorInfo,
    bytes: &'a [u8],
    name: &'a str,
    path: &'a Path,
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
        let names = metadata.offset_keys().into_iter();
        let tensors: Vec<_> = names.filter_map(|name| metadata.info(&name).cloned().map(|info| (name, info))).collect();
        let index = tensors.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { map, metadata, tensors, index, data })
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
        let (name, info) = self.tensors.get(*self.index.get(name)?)?;
        let (from, to) = info.data_offsets;
        let bytes = self.map.bytes().get(self.data.checked_add(from)?..self.data.checked_add(to)?)?;
        Some(View { info, bytes, name, path: self.path() })
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if the file has none.
    pub fn tensor(&self, name: &str) -> Result<View<'_>> {
        self.opt_tensor(name).ok_or_else(|| {
            let some: Vec<_> = self.names().take(12).collect();
            let more = if self.tensors.len() > some.len() { ", …" } else { "" };
            let what = format_args!("expected a tensor \"{name}\", found {}{more}", some.join(", "));
            Error::format(self.path(), what)
        })
    }
}

impl<'a> View<'a> {
    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.info.dtype
    }

    /// The shape, in NumPy's order: the last dimension is contiguous.
    pub fn shape(&self) -> &'a [usize] {
        &self.info.shape
    }

    /// The data as it lies in the file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the data starts in the file.
    pub fn offset(&self, file: &File) -> usize {
        file.data.saturating_add(self.info.data_offsets.0)
    }

    /// The same tensor, if it has `shape`.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if it has another.
    pub fn expect_shape(self, shape: &[usize]) -> Result<Self> {
        if self.shape() == shape {
            return Ok(self);
        }
        let what = format_args!("tensor \"{}\": expected shape {shape:?}, found {:?}", self.name, self.shape());
        Err(Error::format(self.path, what))
    }

    /// The elements as `f32`: borrowed where they are `F32` and aligned, converted from `F64`, `F16` and `BF16`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for other types.
    pub fn to_f32(&self) -> Result<Cow<'a, [f32]>> {
        Ok(match self.dtype() {
            Dtype::F32 => match bytemuck::try_cast_slice(self.bytes) {
                Ok(borrowed) => Cow::Borrowed(borrowed),
                Err(_) => Cow::Owned(convert(self.bytes, f32::from_le_bytes)),
            },
            Dtype::F64 => Cow::Owned(convert(self.bytes, |b| f64::from_le_bytes(b) as f32)),
            Dtype::F16 => Cow::Owned(convert(self.bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Cow::Owned(convert(self.bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
            other => return Err(self.unsupported("F32, F64, F16 or BF16", other)),
        })
    }

    /// The elements as `i64`, from any type of integer.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for other types, and for `U64` past `i64`'s range.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        Ok(match self.dtype() {
            Dtype::BOOL | Dtype::U8 => convert(self.bytes, |b| u8::from_le_bytes(b).into()),
            Dtype::I8 => convert(self.bytes, |b| i8::from_le_bytes(b).into()),
            Dtype::U16 => convert(self.bytes, |b| u16::from_le_bytes(b).into()),
            Dtype::I16 => convert(self.bytes, |b| i16::from_le_bytes(b).into()),
            Dtype::U32 => convert(self.bytes, |b| u32::from_le_bytes(b).into()),
            Dtype::I32 => convert(self.bytes, |b| i32::from_le_bytes(b).into()),
            Dtype::I64 => convert(self.bytes, i64::from_le_bytes),
            Dtype::U64 => {
                let all: Option<Vec<i64>> =
                    convert(self.bytes, |b| i64::try_from(u64::from_le_bytes(b)).ok()).into_iter().collect();
                all.ok_or_else(|| self.unsupported("integers below 2^63", Dtype::U64))?
            }
            other => return Err(self.unsupported("integers", other)),
        })
    }

    fn unsupported(&self, expected: &str, found: Dtype) -> Error {
        let (path, name) = (self.path.display(), self.name);
        Error::unsupported(format!("{path}: tensor \"{name}\": expected {expected}, found {found:?}"))
    }
}

fn convert<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&b| from(b)).collect()
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
        Error::format(path, what)
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

/// A file to be written: fill in metadata and tensors, then [`Writer::write`].
#[derive(Default)]
pub struct Writer<'a> {
    metadata: BTreeMap<String, String>,
    tensors: Vec<Pending<'a>>,
}

struct Pending<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    data: Data<'a>,
}

enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    Made(Box<dyn FnOnce(&mut Sink<'_>) -> Result<()> + 'a>),
}

impl<'a> Writer<'a> {
    /// A file with no tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a string of the file's metadata.
    pub fn metadata(&mut self, key: &str, value: &str) {
        self.metadata.insert(key.to_owned(), value.to_owned());
    }

    /// Adds a tensor of `shape` (NumPy's order: the last dimension is contiguous) whose bytes are at hand.
    pub fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize], data: impl Into<Cow<'a, [u8]>>) {
        let data = Data::Bytes(data.into());
        self.tensors.push(Pending { name: name.to_owned(), dtype, shape: shape.to_vec(), data });
    }

    /// Adds a tensor whose bytes `make` puts into the file when its turn comes, in as many pieces as it likes.
    pub fn tensor_with(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        make: impl FnOnce(&mut Sink<'_>) -> Result<()> + 'a,
    ) {
        let data = Data::Made(Box::new(make));
        self.tensors.push(Pending { name: name.to_owned(), dtype, shape: shape.to_vec(), data });
    }

    /// Writes the file: beside `path` first, then renamed over it. The same contents give the same bytes.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for names, shapes or amounts of data that no file can have,
    /// [`Kind::Io`](crate::Kind::Io), and whatever the functions of [`Writer::tensor_with`] return.
    pub fn write(mut self, path: &Path) -> Result<()> {
        self.tensors.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
        let sizes = self.sizes().map_err(|e| e.context(path.display()))?;
        let header = self.header(&sizes).map_err(|e| e.context(path.display()))?;
        write_atomic(path, |out| {
            out.write_all(&header).map_err(|e| Error::io("write", path, e))?;
            for (tensor, size) in self.tensors.into_iter().zip(sizes) {
                let mut sink = Sink::new(out, path, &tensor.name, size as u64);
                match tensor.data {
                    Data::Bytes(bytes) => sink.put(&bytes)?,
                    Data::Made(make) => make(&mut sink)?,
                }
                sink.finish()?;
            }
            Ok(())
        })
    }

    /// Bytes of each tensor, names and shapes checked.
    fn sizes(&self) -> Result<Vec<usize>> {
        let mut names = HashSet::new();
        let size = |t: &Pending<'_>| {
            let bits = t.shape.iter().try_fold(t.dtype.bitsize(), |n, &d| n.checked_mul(d));
            bits.filter(|b| b.is_multiple_of(8)).map(|b| b / 8)
        };
        self.tensors
            .iter()
            .map(|t| {
                let name = &t.name;
                if name == METADATA || !names.insert(name) {
                    return Err(Error::argument(format!("tensor \"{name}\": expected a new name, found it taken")));
                }
                size(t).ok_or_else(|| {
                    let text = format!("tensor \"{name}\": expected whole bytes below 2^61, found shape {:?}", t.shape);
                    Error::argument(text)
                })
            })
            .collect()
    }

    fn header(&self, sizes: &[usize]) -> Result<Vec<u8>> {
        let mut header = serde_json::Map::new();
        if !self.metadata.is_empty() {
            header.insert(METADATA.to_owned(), serde_json::json!(self.metadata));
        }
        let mut at = 0usize;
        for (t, &size) in self.tensors.iter().zip(sizes) {
            let end =
                at.checked_add(size).ok_or_else(|| Error::argument("tensors: expected less than 2^64 bytes in all"))?;
            let entry = serde_json::json!({ "dtype": t.dtype, "shape": t.shape, "data_offsets": [at, end] });
            header.insert(t.name.clone(), entry);
            at = end;
        }
        let mut json = serde_json::Value::Object(header).to_string().into_bytes();
        // The format allows spaces behind the JSON; they align the data.
        let padded = json.len().saturating_add(LENGTH_BYTES).next_multiple_of(ALIGNMENT) - LENGTH_BYTES;
        json.resize(padded, b' ');
        if json.len() > MAX_HEADER_BYTES {
            let n = json.len();
            return Err(Error::argument(format!("header: expected at most {MAX_HEADER_BYTES} bytes, found {n}")));
        }
        let mut out = (json.len() as u64).to_le_bytes().to_vec();
        out.append(&mut json);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn bytes_of<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
        bytemuck::cast_slice(values).to_vec()
    }

    #[test]
    fn everything_comes_back_aligned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let halves: Vec<half::f16> = [1.0, -0.5, 65504.0].map(half::f16::from_f32).to_vec();
        let mut w = Writer::new();
        w.metadata("what", "a \"test\"");
        w.tensor("bytes", Dtype::U8, &[3], &[1u8, 2, 255][..]);
        w.tensor("halves", Dtype::F16, &[3], bytes_of(&halves));
        w.tensor("brains", Dtype::BF16, &[1], bytes_of(&[half::bf16::from_f32(-2.0)]));
        w.tensor("doubles", Dtype::F64, &[1, 1], bytes_of(&[0.25f64]));
        w.tensor("none", Dtype::F32, &[0, 7], vec![]);
        w.tensor("i64", Dtype::I64, &[2], bytes_of(&[i64::MIN, 7]));
        w.tensor("u64", Dtype::U64, &[1], bytes_of(&[u64::MAX]));
        w.tensor_with("floats", Dtype::F32, &[2, 2], |out| {
            out.put(&bytes_of(&[1f32, 2.0]))?;
            out.put(&bytes_of(&[3f32, f32::NEG_INFINITY]))
        });
        w.write(&path).unwrap();

        let f = File::open(&path).unwrap();
        assert_eq!(f.metadata("what"), Some("a \"test\""));
        assert_eq!(f.metadata("else"), None);
        for name in f.names() {
            let view = f.tensor(name).unwrap();
            let width = (view.dtype().bitsize() / 8).max(1);
            assert_eq!(view.offset(&f) % width, 0, "{name}");
        }
        let floats = f.tensor("floats").unwrap().expect_shape(&[2, 2]).unwrap().to_f32().unwrap();
        assert!(matches!(floats, Cow::Borrowed(_)));
        assert_eq!(*floats, [1.0, 2.0, 3.0, f32::NEG_INFINITY]);
        assert_eq!(*f.tensor("halves").unwrap().to_f32().unwrap(), [1.0, -0.5, 65504.0]);
        assert_eq!(*f.tensor("brains").unwrap().to_f32().unwrap(), [-2.0]);
        assert_eq!(*f.tensor("doubles").unwrap().to_f32().unwrap(), [0.25]);
        assert_eq!(f.tensor("none").unwrap().to_f32().unwrap().len(), 0);
        assert_eq!(f.tensor("i64").unwrap().to_i64().unwrap(), [i64::MIN, 7]);
        assert_eq!(f.tensor("bytes").unwrap().to_i64().unwrap(), [1, 2, 255]);
        assert_eq!(f.tensor("u64").unwrap().to_i64().unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(f.tensor("bytes").unwrap().to_f32().unwrap_err().kind(), Kind::Unsupported);
        let missing = f.tensor("nope").unwrap_err();
        assert!(missing.message().contains("expected a tensor \"nope\", found "), "{missing}");
        let shape = f.tensor("floats").unwrap().expect_shape(&[4]).unwrap_err();
        assert!(shape.message().ends_with("tensor \"floats\": expected shape [4], found [2, 2]"), "{shape}");
        SafeTensors::deserialize(f.map().bytes()).unwrap();
    }

    #[test]
    fn what_no_file_can_hold_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let refused = |w: Writer<'_>, expected: &str| {
            let error = w.write(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Argument);
            assert!(error.message().contains(expected), "{error}");
            assert!(!path.exists());
        };
        let t = |name: &str, shape: &[usize], n: usize| {
            let mut w = Writer::new();
            w.tensor(name, Dtype::F32, shape, vec![0; n]);
            w
        };
        refused(t("t", &[3], 11), "its shape takes 12 bytes of data, found 11");
        refused(t("t", &[3], 13), "its shape takes 12 bytes of data, found at least 13");
        refused(t("__metadata__", &[1], 4), "found it taken");
        refused(t("t", &[usize::MAX, 2], 0), "below 2^61");
        let mut w = t("t", &[1], 4);
        w.tensor("t", Dtype::F32, &[1], vec![0; 4]);
        refused(w, "tensor \"t\": expected a new name, found it taken");
        let mut w = Writer::new();
        w.tensor("t", Dtype::F4, &[3], vec![0; 2]);
        refused(w, "whole bytes");
    }

    #[test]
    fn the_same_contents_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |names: &[&str]| {
            let path = dir.path().join(names.concat());
            let mut w = Writer::new();
            for name in names {
                w.tensor(name, Dtype::U8, &[1], vec![0]);
                w.metadata(name, "x");
            }
            w.write(&path).unwrap();
            std::fs::read(&path).unwrap()
        };
        assert_eq!(write(&["a", "b", "c"]), write(&["c", "a", "b"]));
    }
}
