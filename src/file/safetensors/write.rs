//! The streaming writer: tensors of wide types first, then by name, so that each lies aligned to its own width.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;

use super::{Dtype, LENGTH_BYTES, MAX_HEADER_BYTES};
use crate::error::{Error, Result};
use crate::file::sink::{Data, Sink};
use crate::file::write_atomic;

/// Tensors' data starts at a multiple of this: a cache line, and more than any element needs.
const ALIGNMENT: usize = 64;
/// The key of the header that holds strings about the file, not a tensor.
const METADATA: &str = "__metadata__";

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
                tensor.data.write(out, path, &tensor.name, size)?;
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
    use std::borrow::Cow;

    use ::safetensors::SafeTensors;

    use super::*;
    use crate::error::Kind;
    use crate::file::safetensors::File;

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
            assert_eq!(view.mapped().unwrap().1.start % width, 0, "{name}");
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
