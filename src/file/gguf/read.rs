//! The checked reader: bytes in, [`Gguf`](super::Gguf) or an error that says where.
//!
//! Nothing in a file is trusted: every count is held against the bytes that are left before anything is allocated for
//! it, so memory stays within a small multiple of the header, whatever the header says.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::cursor::Cursor;
use super::value::{Array, Value, ValueType};
use super::{GgmlType, Tensor};
use crate::error::{Error, Result};
use crate::file::{Map, name_contents};

/// The first four bytes of every GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// Version 1 had 32-bit counts and was gone within weeks of 2023.
const VERSION_MIN: u32 = 2;
/// The newest version there is; 3 differs from 2 only in allowing big-endian files.
pub(super) const VERSION_MAX: u32 = 3;
/// What a file without `general.alignment` is aligned to.
pub(super) const DEFAULT_ALIGNMENT: usize = 32;
/// Alignments past this waste more than they could serve: it is the largest page of common systems.
pub(super) const MAX_ALIGNMENT: usize = 1 << 16;
/// ggml's tensors have up to four dimensions.
pub(super) const MAX_DIMS: usize = 4;
/// ggml keeps names in 64 bytes, the last one zero.
pub(super) const MAX_TENSOR_NAME: usize = 63;
/// The specification's limit on keys.
pub(super) const MAX_KEY: usize = 65535;
/// Ten times what the largest mixture-of-experts models have.
pub(super) const MAX_TENSORS: usize = 1 << 17;
/// Models have some forty keys; a thousand times that is no model.
pub(super) const MAX_KEYS: usize = 1 << 16;
/// The longest strings that are met are whole `tokenizer.json` files, some 30 MB.
pub(super) const MAX_STRING: usize = 1 << 28;
/// Ends of strings are kept in 32 bits.
const MAX_STRING_ARRAY_BYTES: usize = u32::MAX as usize;

/// The least a key takes: length, one letter, type, one byte of value.
const MIN_KEY_BYTES: usize = 8 + 1 + 4 + 1;
/// The least a tensor takes: length of the name, number of dimensions, type, offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// What a header says.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: usize,
    pub(super) keys: Vec<(String, Value)>,
    pub(super) key_index: HashMap<String, usize>,
    pub(super) tensors: Vec<Tensor>,
    pub(super) tensor_index: HashMap<String, usize>,
}

/// Things in the order of the file, and where each name is among them.
type Indexed<T> = (Vec<T>, HashMap<String, usize>);

/// Reads and checks the header of `map`; `whole` refuses one part of a model in several files.
pub(super) fn header(map: &Arc<Map>, whole: bool) -> Result<Header> {
    let mut cursor = Cursor { map, at: 0 };
    let version = cursor.version()?;
    let n_tensors = cursor.count("the number of tensors", MAX_TENSORS)?;
    let n_keys = cursor.count("the number of keys", MAX_KEYS)?;
    cursor.fits(n_keys, MIN_KEY_BYTES, "keys")?;
    let (keys, key_index) = cursor.keys(n_keys)?;
    let find = |name: &str| key_index.get(name).and_then(|&i| keys.get(i)).map(|(_, value)| value);
    let alignment = cursor.alignment(find("general.alignment"))?;
    if whole {
        cursor.refuse_splits(find("split.count"))?;
    }
    cursor.fits(n_tensors, MIN_TENSOR_BYTES, "tensors")?;
    let (tensors, tensor_index) = cursor.tensors(n_tensors, alignment)?;
    Ok(Header { version, alignment, keys, key_index, tensors, tensor_index })
}

impl Cursor<'_> {
    fn version(&mut self) -> Result<u32> {
        let found = self.map.bytes().get(..MAGIC.len()).unwrap_or(self.map.bytes());
        if found != MAGIC {
            let wanted = "not a GGUF file: expected \"GGUF\"";
            return Err(match name_contents(self.map.bytes()) {
                Some((name, hint)) => self.error(0, format_args!("{wanted}, found {name}")).hinted(hint),
                None => self.error(0, format_args!("{wanted}, found \"{}\"", found.escape_ascii())),
            });
        }
        self.at = MAGIC.len();
        let version = self.u32("the version")?;
        let wanted = format_args!("expected {VERSION_MIN} or {VERSION_MAX}, little-endian");
        // Seen from the wrong end, a small version is a multiple of 65,536.
        if version != 0 && version & 0xffff == 0 {
            let (path, version) = (self.path().display(), version.swap_bytes());
            let error = Error::unsupported(format!("{path}: GGUF version: {wanted}, found big-endian {version}"));
            return Err(error.hinted("fetch or convert the model for little-endian machines"));
        }
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            let path = self.path().display();
            return Err(Error::unsupported(format!("{path}: GGUF version: {wanted}, found {version}")));
        }
        Ok(version)
    }

    fn keys(&mut self, n: usize) -> Result<Indexed<(String, Value)>> {
        let mut keys = Vec::with_capacity(n);
        let mut index = HashMap::with_capacity(n);
        for i in 0..n {
            let at = self.at;
            let key = self.string(MAX_KEY, format_args!("key {i}"))?;
            if key.is_empty() {
                return Err(self.error(at, format_args!("key {i}: expected a name, found an empty string")));
            }
            let value = self.value(key)?;
            if index.insert(key.to_owned(), i).is_some() {
                return Err(self.error(at, format_args!("key {i}: expected a new name, found \"{key}\" again")));
            }
            keys.push((key.to_owned(), value));
        }
        Ok((keys, index))
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType> {
        let at = self.at;
        let id = self.u32(format_args!("the type of key \"{key}\""))?;
        ValueType::from_id(id).ok_or_else(|| {
            self.error(at, format_args!("key \"{key}\": expected a value type from 0 to 12, found {id}"))
        })
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        let kind = self.value_type(key)?;
        let at = self.at;
        let what = format_args!("key \"{key}\"");
        Ok(match kind {
            ValueType::U8 => Value::U8(self.number(key)?),
            ValueType::I8 => Value::I8(self.number(key)?),
            ValueType::U16 => Value::U16(self.number(key)?),
            ValueType::I16 => Value::I16(self.number(key)?),
            ValueType::U32 => Value::U32(self.number(key)?),
            ValueType::I32 => Value::I32(self.number(key)?),
            ValueType::U64 => Value::U64(self.number(key)?),
            ValueType::I64 => Value::I64(self.number(key)?),
            ValueType::F32 => Value::F32(self.number(key)?),
            ValueType::F64 => Value::F64(self.number(key)?),
            ValueType::Bool => match self.number::<u8>(key)? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(self.error(at, format_args!("{what}: expected a bool, 0 or 1, found {other}"))),
            },
            ValueType::Str => Value::Str(self.string(MAX_STRING, what)?.to_owned()),
            ValueType::Array => Value::Array(self.array(key)?),
        })
    }

    fn number<T: super::value::Element>(&mut self, key: &str) -> Result<T> {
        let at = self.at;
        let bytes = self.take(size_of::<T>(), format_args!("key \"{key}\""))?;
        T::read(bytes).ok_or_else(|| self.error(at, format_args!("key \"{key}\": expected a {}", T::KIND.name())))
    }

    fn array(&mut self, key: &str) -> Result<Array> {
        let at = self.at;
        let kind = self.value_type(key)?;
        let n = self.u64(format_args!("the length of the array of key \"{key}\""))?;
        let what = format_args!("elements of key \"{key}\"");
        let n =
            usize::try_from(n).map_err(|_| self.error(at, format_args!("{n} {what} are more than memory can hold")))?;
        let start = self.at;
        let ends = match kind {
            ValueType::Str => {
                self.fits(n, 8, what)?;
                self.string_ends(n, key)?
            }
            // GGUF's text allows arrays of arrays; ggml reads none, so no model has one.
            ValueType::Array => {
                let path = self.path().display();
                let text = format!(
                    "{path}: at byte {at}: key \"{key}\": expected an array of numbers or strings, found an array of arrays"
                );
                return Err(Error::unsupported(text));
            }
            _ => {
                let width = kind.width().unwrap_or(1);
                self.fits(n, width, what)?;
                self.take(n.saturating_mul(width), what)?;
                Vec::new()
            }
        };
        Ok(Array::mapped(kind, n, Arc::clone(self.map), start..self.at, ends))
    }

    /// Walks `n` strings; returns where each one ends, counted from the first.
    fn string_ends(&mut self, n: usize, key: &str) -> Result<Vec<u32>> {
        let bytes = self.map.bytes().get(self.at..).unwrap_or_default();
        let mut ends = Vec::with_capacity(n);
        let mut at = 0usize;
        for i in 0..n {
            let Some(end) = string_end(bytes, at) else { return Err(self.bad_string(at, i, key)) };
            ends.push(end);
            at = usize::try_from(end).unwrap_or(usize::MAX);
        }
        self.at = self.at.saturating_add(at);
        Ok(ends)
    }

    /// Why string `i`, `at` bytes from here, has no end: the slow way, which words the error.
    fn bad_string(&mut self, at: usize, i: usize, key: &str) -> Error {
        self.at = self.at.saturating_add(at);
        let what = format_args!("string {i} of key \"{key}\"");
        let read = self.count(&format!("the length of {what}"), MAX_STRING).and_then(|n| self.take(n, what));
        let total = format_args!(
            "strings of key \"{key}\": expected at most {MAX_STRING_ARRAY_BYTES} bytes in all, found more"
        );
        read.err().unwrap_or_else(|| self.error(self.at, total))
    }

    fn alignment(&self, value: Option<&Value>) -> Result<usize> {
        let Some(value) = value else { return Ok(DEFAULT_ALIGNMENT) };
        let found = match value {
            Value::U32(v) => match usize::try_from(*v) {
                Ok(v) if v.is_power_of_two() && v <= MAX_ALIGNMENT => return Ok(v),
                _ => format!("{v}"),
            },
            other => other.describe().into_owned(),
        };
        let what = format_args!("a u32, a power of two up to {MAX_ALIGNMENT}");
        Err(Error::format(self.path(), format_args!("key \"general.alignment\": expected {what}, found {found}")))
    }

    /// A model cut into several files (`-00001-of-00003.gguf`) has a part of its tensors here and the others elsewhere.
    fn refuse_splits(&self, count: Option<&Value>) -> Result<()> {
        let parts = match count {
            Some(value) => value.as_int().unwrap_or(2),
            None => i128::from(self.path().file_name().and_then(|n| split_of(n.to_str()?)).unwrap_or(1)),
        };
        if parts <= 1 {
            return Ok(());
        }
        let text = format!(
            "{}: expected a whole GGUF file, found one of {parts} parts; join them first: llama-gguf-split --merge FIRST-PART WHOLE",
            self.path().display()
        );
        Err(Error::unsupported(text))
    }

    fn tensors(&mut self, n: usize, alignment: usize) -> Result<Indexed<Tensor>> {
        let mut tensors = Vec::with_capacity(n);
        let mut index = HashMap::with_capacity(n);
        for i in 0..n {
            let at = self.at;
            let tensor = self.tensor(i, alignment)?;
            if index.insert(tensor.name.clone(), i).is_some() {
                let what = format_args!("tensor {i}: expected a new name, found \"{}\" again", tensor.name);
                return Err(self.error(at, what));
            }
            tensors.push(tensor);
        }
        self.place(&mut tensors, alignment)?;
        Ok((tensors, index))
    }

    /// One entry of the tensor list; its offset still counts from the start of the data.
    fn tensor(&mut self, i: usize, alignment: usize) -> Result<Tensor> {
        let at = self.at;
        let name = self.string(MAX_TENSOR_NAME, format_args!("the name of tensor {i}"))?;
        let n_dims = self.u32(format_args!("the dimensions of tensor \"{name}\""))?;
        let n_dims = usize::try_from(n_dims).ok().filter(|&n| n <= MAX_DIMS).ok_or_else(|| {
            self.error(at, format_args!("tensor \"{name}\": expected at most {MAX_DIMS} dimensions, found {n_dims}"))
        })?;
        let mut shape = Vec::with_capacity(n_dims);
        for _ in 0..n_dims {
            let n = self.u64(format_args!("the shape of tensor \"{name}\""))?;
            // ggml counts elements in signed 64 bits.
            let n = i64::try_from(n).ok().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| {
                self.error(at, format_args!("tensor \"{name}\": expected a dimension below 2^63, found {n}"))
            })?;
            shape.push(n);
        }
        let id = self.u32(format_args!("the type of tensor \"{name}\""))?;
        let kind = GgmlType::from_id(id).ok_or_else(|| {
            let what = format_args!("tensor \"{name}\": expected a type that ggml has, found number {id}");
            self.error(at, what)
        })?;
        let n_bytes = tensor_bytes(kind, &shape).map_err(|what| {
            self.error(at, format_args!("tensor \"{name}\" of type {kind}, shape {shape:?}: {what}"))
        })?;
        let offset = self.u64(format_args!("the offset of tensor \"{name}\""))?;
        let offset = usize::try_from(offset).ok().filter(|o| o.is_multiple_of(alignment)).ok_or_else(|| {
            self.error(at, format_args!("tensor \"{name}\": expected an offset aligned to {alignment}, found {offset}"))
        })?;
        Ok(Tensor { name: name.to_owned(), shape, kind, offset, n_bytes })
    }

    /// Makes offsets absolute and checks that every tensor lies in the file and none in another.
    fn place(&self, tensors: &mut [Tensor], alignment: usize) -> Result<()> {
        let data = self.at.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
        let size = self.map.bytes().len();
        for t in tensors.iter_mut() {
            let start = t.offset.checked_add(data);
            let end = start.and_then(|s| s.checked_add(t.n_bytes));
            match (start, end) {
                (Some(start), Some(end)) if end <= size => t.offset = start,
                _ => {
                    let (name, n, from) = (&t.name, t.n_bytes, t.offset);
                    let place =
                        format_args!("{n} bytes from byte {from} of the data, which starts at byte {data} of the file");
                    let what = format_args!("tensor \"{name}\": expected {place}, found the file's end at byte {size}");
                    return Err(Error::format(self.path(), what));
                }
            }
        }
        let mut order: Vec<Range<usize>> = Vec::with_capacity(tensors.len());
        let mut sorted: Vec<&Tensor> = tensors.iter().filter(|t| t.n_bytes > 0).collect();
        sorted.sort_by_key(|t| t.offset);
        for t in sorted {
            let range = t.offset..t.offset.saturating_add(t.n_bytes);
            if let Some(before) = order.last().filter(|before| before.end > range.start) {
                let what = format_args!(
                    "tensor \"{}\": expected its data behind that of the tensor before it, which ends at byte {}, found it at byte {}",
                    t.name, before.end, range.start
                );
                return Err(Error::format(self.path(), what));
            }
            order.push(range);
        }
        Ok(())
    }
}

/// Where the string at `at` ends, its length in front; none if it does not end in `bytes` or is longer than any may be.
fn string_end(bytes: &[u8], at: usize) -> Option<u32> {
    let length = u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    let length = usize::try_from(length).ok().filter(|&n| n <= MAX_STRING)?;
    let end = at.checked_add(8)?.checked_add(length).filter(|&end| end <= bytes.len())?;
    u32::try_from(end).ok()
}

/// Bytes of a tensor, or what is wrong with its shape.
pub(super) fn tensor_bytes(kind: GgmlType, shape: &[usize]) -> std::result::Result<usize, String> {
    let row = shape.first().copied().unwrap_or(1);
    let row_bytes = kind.row_bytes(row).ok_or_else(|| {
        let block = kind.block_len();
        if row.is_multiple_of(block) {
            format!("expected a size below 2^63 bytes, found rows of {row} elements")
        } else {
            format!("expected rows of a multiple of {block} elements, found {row}")
        }
    })?;
    // Dimensions of 0 may hide an overflow of the others: ggml multiplies them all.
    let total = shape.iter().skip(1).try_fold(row_bytes.max(1), |n, &d| n.checked_mul(d.max(1)));
    match total.and_then(|n| i64::try_from(n).ok()) {
        None => Err("expected a size below 2^63 bytes, found more".to_owned()),
        Some(_) if shape.contains(&0) => Ok(0),
        Some(_) => shape.iter().skip(1).try_fold(row_bytes, |n, &d| n.checked_mul(d)).ok_or_else(String::new),
    }
}

/// N of a file name that ends in `-00001-of-0000N.gguf`.
fn split_of(name: &str) -> Option<u32> {
    let stem = name.strip_suffix(".gguf")?;
    let (head, count) = stem.rsplit_once("-of-")?;
    let (_, number) = head.rsplit_once('-')?;
    let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
    if digits(number) && digits(count) { count.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_known_by_their_name() {
        assert_eq!(split_of("m-00001-of-00003.gguf"), Some(3));
        assert_eq!(split_of("m-1-of-3.gguf"), None);
        assert_eq!(split_of("house-of-cards.gguf"), None);
        assert_eq!(split_of("m.gguf"), None);
    }

    #[test]
    fn sizes_do_not_overflow() {
        assert_eq!(tensor_bytes(GgmlType::F32, &[]), Ok(4));
        assert_eq!(tensor_bytes(GgmlType::F32, &[3, 5, 2]), Ok(120));
        assert_eq!(tensor_bytes(GgmlType::Q8_0, &[64, 3]), Ok(2 * 34 * 3));
        assert_eq!(tensor_bytes(GgmlType::F32, &[0, 7]), Ok(0));
        assert_eq!(tensor_bytes(GgmlType::F32, &[7, 0]), Ok(0));
        assert!(tensor_bytes(GgmlType::Q8_0, &[33]).unwrap_err().contains("multiple of 32"));
        assert!(tensor_bytes(GgmlType::F32, &[1 << 62]).is_err());
        assert!(tensor_bytes(GgmlType::F32, &[1 << 31, 1 << 31, 1 << 31]).is_err());
        assert!(tensor_bytes(GgmlType::F32, &[1 << 31, 1 << 31, 1 << 31, 0]).is_err());
    }
}
