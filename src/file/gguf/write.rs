//! The streaming writer: keys and shapes first, then each tensor's bytes as they come.
//!
//! A tensor's data is either at hand or made by a function while the file is written, so a dictionary of any size is
//! quantized row by row. The layout is what ggml insists on: tensors in the order of the list, each padded to the
//! alignment of 32, nothing between them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::read::{
    DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS, MAX_KEY, MAX_KEYS, MAX_STRING, MAX_TENSOR_NAME, MAX_TENSORS, VERSION_MAX,
    tensor_bytes,
};
use super::value::{Array, Value};
use super::{GgmlType, ValueType};
use crate::error::{Error, Result};
use crate::file::sink::{Data, Sink};
use crate::file::write_atomic;

/// A file to be written: fill in keys and tensors, then [`Writer::write`].
///
/// ```
/// # use tiller::file::gguf::{GgmlType, Gguf, Writer};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("a.gguf");
/// let mut file = Writer::new();
/// file.set("general.architecture", "sae");
/// file.tensor("dec.bias", &[2], GgmlType::F32, bytemuck::cast_slice(&[1f32, 2.0]));
/// file.tensor_with("dec.weight", &[2, 3], GgmlType::F32, |out| (0..3).try_for_each(|_| out.put(&[0; 8])));
/// file.write(&path)?;
/// assert_eq!(Gguf::open(&path)?.tensor("dec.weight")?.shape, [2, 3]);
/// # Ok::<(), tiller::Error>(())
/// ```
#[derive(Default)]
pub struct Writer<'a> {
    keys: Vec<(String, Value)>,
    tensors: Vec<Pending<'a>>,
}

struct Pending<'a> {
    name: String,
    shape: Vec<usize>,
    kind: GgmlType,
    data: Data<'a>,
}

impl<'a> Writer<'a> {
    /// A file with no keys and no tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`; a second time, the new value takes the old one's place.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.keys.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.to_owned(), value)),
        }
    }

    /// Adds a tensor of `shape` (ggml's order: rows are contiguous) whose bytes are at hand, borrowed or owned.
    pub fn tensor(&mut self, name: &str, shape: &[usize], kind: GgmlType, data: impl Into<Cow<'a, [u8]>>) {
        self.push(name, shape, kind, Data::Bytes(data.into()));
    }

    /// Adds a tensor whose bytes `make` puts into the file when its turn comes, in as many pieces as it likes.
    pub fn tensor_with(
        &mut self,
        name: &str,
        shape: &[usize],
        kind: GgmlType,
        make: impl FnOnce(&mut Sink<'_>) -> Result<()> + 'a,
    ) {
        self.push(name, shape, kind, Data::Made(Box::new(make)));
    }

    fn push(&mut self, name: &str, shape: &[usize], kind: GgmlType, data: Data<'a>) {
        self.tensors.push(Pending { name: name.to_owned(), shape: shape.to_vec(), kind, data });
    }

    /// Writes the file: beside `path` first, then renamed over it.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for names, shapes or amounts of data that no GGUF file can have,
    /// [`Kind::Io`](crate::Kind::Io), and whatever the functions of [`Writer::tensor_with`] return.
    pub fn write(self, path: &Path) -> Result<()> {
        let sizes = self.check().map_err(|e| e.context(path.display()))?;
        let header = self.header(&sizes);
        write_atomic(path, |out| {
            let io = |e| Error::io("write", path, e);
            out.write_all(&header).map_err(io)?;
            for (tensor, size) in self.tensors.into_iter().zip(sizes) {
                tensor.data.write(out, path, &tensor.name, size)?;
                pad(out, size).map_err(io)?;
            }
            Ok(())
        })
    }

    /// Refuses what the reader would refuse; returns the bytes of each tensor.
    fn check(&self) -> Result<Vec<usize>> {
        if self.keys.len() > MAX_KEYS || self.tensors.len() > MAX_TENSORS {
            let (k, t) = (self.keys.len(), self.tensors.len());
            return Err(Error::argument(format!(
                "expected at most {MAX_KEYS} keys and {MAX_TENSORS} tensors, found {k} and {t}"
            )));
        }
        for (key, value) in &self.keys {
            if key.is_empty() || key.len() > MAX_KEY {
                return Err(Error::argument(format!("key: expected 1 to {MAX_KEY} bytes, found {}", key.len())));
            }
            let longest = value.as_str().map_or(0, str::len);
            if longest > MAX_STRING {
                let text = format!("key \"{key}\": expected a string of at most {MAX_STRING} bytes, found {longest}");
                return Err(Error::argument(text));
            }
            if key == "general.alignment" && !matches!(value, Value::U32(v) if *v as usize == DEFAULT_ALIGNMENT) {
                return Err(Error::argument(format!("key \"{key}\": this writer aligns to {DEFAULT_ALIGNMENT} only")));
            }
        }
        let mut names = HashSet::new();
        self.tensors.iter().map(|t| t.check(&mut names)).collect()
    }

    fn header(&self, sizes: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION_MAX.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            put_string(&mut out, key);
            out.extend_from_slice(&(value.kind() as u32).to_le_bytes());
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for (t, &size) in self.tensors.iter().zip(sizes) {
            put_string(&mut out, &t.name);
            out.extend_from_slice(&(t.shape.len() as u32).to_le_bytes());
            for &d in &t.shape {
                out.extend_from_slice(&(d as u64).to_le_bytes());
            }
            out.extend_from_slice(&t.kind.id().to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            offset = offset.saturating_add((size as u64).next_multiple_of(DEFAULT_ALIGNMENT as u64));
        }
        out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
        out
    }
}

impl Pending<'_> {
    fn check<'n>(&'n self, names: &mut HashSet<&'n str>) -> Result<usize> {
        let name = &self.name;
        if name.is_empty() || name.len() > MAX_TENSOR_NAME {
            let text =
                format!("tensor \"{name}\": expected a name of 1 to {MAX_TENSOR_NAME} bytes, found {}", name.len());
            return Err(Error::argument(text));
        }
        if !names.insert(name) {
            return Err(Error::argument(format!("tensor \"{name}\": expected a new name, found it twice")));
        }
        if self.shape.len() > MAX_DIMS {
            let n = self.shape.len();
            return Err(Error::argument(format!(
                "tensor \"{name}\": expected at most {MAX_DIMS} dimensions, found {n}"
            )));
        }
        tensor_bytes(self.kind, &self.shape).map_err(|what| {
            Error::argument(format!("tensor \"{name}\" of type {}, shape {:?}: {what}", self.kind, self.shape))
        })
    }
}

fn pad(out: &mut BufWriter<File>, size: usize) -> std::io::Result<()> {
    let zeros = [0; DEFAULT_ALIGNMENT];
    let n = size.next_multiple_of(DEFAULT_ALIGNMENT).saturating_sub(size);
    out.write_all(zeros.get(..n).unwrap_or_default())
}

fn put_string(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(&(s.len() as u64).to_le_bytes());
    out.extend_from_slice(s.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::Str(v) => put_string(out, v),
        Value::Array(v) => put_array(out, v),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    debug_assert_ne!(array.kind(), ValueType::Array);
    out.extend_from_slice(&(array.kind() as u32).to_le_bytes());
    out.extend_from_slice(&(array.len() as u64).to_le_bytes());
    out.extend_from_slice(array.raw());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::file::gguf::Gguf;

    fn in_dir(test: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        test(&dir.path().join("a.gguf"));
    }

    #[test]
    fn everything_comes_back() {
        in_dir(|path| {
            let mut w = Writer::new();
            w.set("a.u8", 1u8);
            w.set("a.i8", -1i8);
            w.set("a.u16", 2u16);
            w.set("a.i16", -2i16);
            w.set("a.u32", 3u32);
            w.set("a.i32", -3i32);
            w.set("a.u64", 4u64);
            w.set("a.i64", -4i64);
            w.set("a.f32", 0.5f32);
            w.set("a.f64", 0.25f64);
            w.set("a.bool", false);
            w.set("a.bool", true);
            w.set("a.str", "grüß");
            w.set("a.strs", Array::strings(["x", "", "yz"]).unwrap());
            w.set("a.i32s", Array::numbers(&[5i32, -6]));
            w.set("a.bools", Array::bools(&[true]));
            w.tensor("t.f32", &[3], GgmlType::F32, bytemuck::cast_slice(&[1f32, 2.0, 3.0]));
            w.tensor_with("t.q8", &[32, 2], GgmlType::Q8_0, |out| {
                assert_eq!(out.left(), 68);
                out.put(&[7; 34])?;
                out.put(&[8; 34])
            });
            w.tensor("t.none", &[4, 0], GgmlType::F16, vec![]);
            w.tensor("t.one", &[], GgmlType::I64, 9i64.to_le_bytes().to_vec());
            w.write(path).unwrap();

            let g = Gguf::open(path).unwrap();
            assert_eq!((g.version(), g.alignment(), g.keys().len()), (3, 32, 15));
            let ints: Vec<_> = g.keys().iter().filter_map(|(_, v)| v.as_int()).collect();
            assert_eq!(ints, [1, -1, 2, -2, 3, -3, 4, -4]);
            assert_eq!((g.f32("a.f32").unwrap(), g.f32("a.f64").unwrap()), (0.5, 0.25));
            assert!(g.bool("a.bool").unwrap());
            assert_eq!(g.str("a.str").unwrap(), "grüß");
            assert_eq!(g.u32("a.i64").unwrap_err().kind(), Kind::Format);
            assert_eq!(g.u32("a.u64").unwrap(), 4);
            assert_eq!(g.array("a.strs").unwrap().str(2), Some("yz"));
            assert_eq!(g.array("a.i32s").unwrap().to_vec::<i32>().unwrap(), [5, -6]);
            assert_eq!(g.array("a.bools").unwrap().raw(), [1]);
            let t = g.tensor("t.f32").unwrap();
            assert_eq!(bytemuck::cast_slice::<_, f32>(g.data(t)), [1.0, 2.0, 3.0]);
            let t = g.tensor("t.q8").unwrap();
            assert_eq!((t.kind, t.row_len(), t.n_rows(), t.row_bytes(), t.offset % 32), (GgmlType::Q8_0, 32, 2, 34, 0));
            assert_eq!(g.row(t, 1).unwrap(), [8; 34]);
            assert_eq!(g.row(t, 2), None);
            assert_eq!(g.row(t, usize::MAX), None);
            assert_eq!(g.tensor("t.none").unwrap().n_bytes, 0);
            assert_eq!(g.data(g.tensor("t.one").unwrap()), 9i64.to_le_bytes());
            let missing = g.tensor("nope").unwrap_err();
            assert!(missing.message().ends_with("expected a tensor \"nope\", found none among 4 tensors"), "{missing}");
            let missing = g.str("nope").unwrap_err();
            assert!(missing.message().ends_with("key \"nope\": expected a string, found no such key"), "{missing}");
            let wrong = g.str("a.i8").unwrap_err();
            assert!(wrong.message().ends_with("key \"a.i8\": expected a string, found i8 -1"), "{wrong}");
            let wrong = g.bool("a.strs").unwrap_err();
            assert!(wrong.message().ends_with("key \"a.strs\": expected a bool, found array of str"), "{wrong}");
        });
    }

    #[test]
    fn arrays_read_from_a_file_can_be_written_again() {
        in_dir(|path| {
            let mut w = Writer::new();
            w.set("words", Array::strings(["a", "bc"]).unwrap());
            w.write(path).unwrap();
            let first = Gguf::open(path).unwrap();
            let mut w = Writer::new();
            w.set("words", first.get("words").unwrap().clone());
            w.write(path).unwrap();
            assert_eq!(Gguf::open(path).unwrap().array("words").unwrap().str(1), Some("bc"));
        });
    }

    #[track_caller]
    fn refused(w: Writer<'_>, expected: &str) {
        in_dir(|path| {
            let error = w.write(path).unwrap_err();
            assert_eq!(error.kind(), Kind::Argument);
            assert!(error.message().contains(expected), "{error}");
            assert!(error.message().contains("a.gguf"), "{error}");
            assert!(!path.exists());
        });
    }

    #[test]
    fn what_no_file_can_hold_is_refused() {
        let t = |name: &str, shape: &[usize], kind, n: usize| {
            let mut w = Writer::new();
            w.tensor(name, shape, kind, vec![0; n]);
            w
        };
        refused(t("t", &[3], GgmlType::F32, 11), "its shape takes 12 bytes of data, found 11");
        refused(t("t", &[3], GgmlType::F32, 13), "its shape takes 12 bytes of data, found at least 13");
        refused(t("t", &[33], GgmlType::Q8_0, 34), "multiple of 32 elements, found 33");
        refused(t("t", &[1; 5], GgmlType::F32, 4), "at most 4 dimensions, found 5");
        refused(t(&"t".repeat(64), &[1], GgmlType::F32, 4), "1 to 63 bytes, found 64");
        refused(t("", &[1], GgmlType::F32, 4), "1 to 63 bytes, found 0");
        refused(t("t", &[usize::MAX, usize::MAX], GgmlType::F32, 0), "below 2^63 bytes");
        let mut w = t("t", &[1], GgmlType::F32, 4);
        w.tensor("t", &[1], GgmlType::F32, vec![0; 4]);
        refused(w, "tensor \"t\": expected a new name, found it twice");
        let mut w = Writer::new();
        w.set("", 1u8);
        refused(w, "key: expected 1 to 65535 bytes, found 0");
        let mut w = Writer::new();
        w.set("general.alignment", 64u32);
        refused(w, "aligns to 32 only");
    }

    #[test]
    fn an_error_of_the_data_function_comes_through() {
        in_dir(|path| {
            let mut w = Writer::new();
            w.tensor_with("t", &[1], GgmlType::F32, |_| Err(Error::cancelled()));
            assert_eq!(w.write(path).unwrap_err().kind(), Kind::Cancelled);
            assert!(!path.exists());
        });
    }
}
