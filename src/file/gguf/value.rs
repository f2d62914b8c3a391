//! The values of GGUF's metadata.
//!
//! A vocabulary is an array of up to 262,144 strings. Arrays therefore stay in the map as the bytes of the file; for
//! strings, which have no fixed width, the reader keeps where each one ends (4 bytes a string).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::file::Map;

/// The type of a metadata value, as GGUF numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Str,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|t| *t as u32 == id)
    }

    /// The name that GGUF's own tools print, such as `u32`, `str`, `arr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "str",
            Self::Array => "arr",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// Bytes of one element; none for strings and arrays, which have no fixed width.
    pub(crate) fn width(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Str | Self::Array => None,
        }
    }
}

/// A metadata value.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(String),
    Array(Array),
}

impl Value {
    /// Its type.
    pub fn kind(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F32(_) => ValueType::F32,
            Self::F64(_) => ValueType::F64,
            Self::Bool(_) => ValueType::Bool,
            Self::Str(_) => ValueType::Str,
            Self::Array(_) => ValueType::Array,
        }
    }

    /// The integer, of whatever width it was stored; none if it is no integer.
    pub fn as_int(&self) -> Option<i128> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::I8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::I16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::I32(v) => Some(v.into()),
            Self::U64(v) => Some(v.into()),
            Self::I64(v) => Some(v.into()),
            _ => None,
        }
    }

    /// The number, if it is stored as `f32` or `f64`.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            _ => None,
        }
    }

    /// The truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(v) = *self { Some(v) } else { None }
    }

    /// The string.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(v) = self { Some(v) } else { None }
    }

    /// The array.
    pub fn as_array(&self) -> Option<&Array> {
        if let Self::Array(v) = self { Some(v) } else { None }
    }

    /// The type in words, for messages: `u32`, `array of str`.
    pub(crate) fn describe(&self) -> Cow<'static, str> {
        match self {
            Self::Array(a) => Cow::Owned(format!("array of {}", a.kind().name())),
            other => Cow::Borrowed(other.kind().name()),
        }
    }
}

macro_rules! from {
    ($($t:ty => $variant:ident),*) => {$(
        impl From<$t> for Value {
            fn from(v: $t) -> Self {
                Self::$variant(v.into())
            }
        }
    )*};
}
from!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32, f64 => F64,
    bool => Bool, String => Str, &str => Str, Array => Array);

/// The bytes of an array, ours or the file's.
#[derive(Clone, Debug)]
enum Bytes {
    Owned(Vec<u8>),
    Mapped { map: Arc<Map>, range: Range<usize> },
}

/// A one-dimensional array of metadata. Cheap to read from a file of any size; cloning one that lives in a file clones
/// no data but the ends of its strings.
#[derive(Clone, Debug)]
pub struct Array {
    kind: ValueType,
    len: usize,
    /// Elements as GGUF stores them: little-endian numbers, or strings with an 8-byte length in front.
    bytes: Bytes,
    /// For strings: where each one ends within `bytes`.
    ends: Vec<u32>,
}

/// Bytes of the length in front of a string.
const LENGTH_BYTES: usize = 8;

/// A number that an array may hold.
pub trait Element: Copy + sealed::Sealed {
    /// How GGUF calls it.
    const KIND: ValueType;
    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Option<Self>;
    #[doc(hidden)]
    fn write(self, out: &mut Vec<u8>);
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! element {
    ($($t:ty => $variant:ident),*) => {$(
        impl sealed::Sealed for $t {}
        impl Element for $t {
            const KIND: ValueType = ValueType::$variant;
            fn read(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_le_bytes)
            }
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
element!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32, f64 => F64);

impl Array {
    /// An array of numbers, for writing.
    pub fn numbers<T: Element>(values: &[T]) -> Self {
        let mut bytes = Vec::with_capacity(std::mem::size_of_val(values));
        for &v in values {
            v.write(&mut bytes);
        }
        Self { kind: T::KIND, len: values.len(), bytes: Bytes::Owned(bytes), ends: Vec::new() }
    }

    /// An array of truth values, for writing.
    pub fn bools(values: &[bool]) -> Self {
        let bytes = values.iter().map(|&v| u8::from(v)).collect();
        Self { kind: ValueType::Bool, len: values.len(), bytes: Bytes::Owned(bytes), ends: Vec::new() }
    }

    /// An array of strings, for writing; none if they come to more than 4 GB.
    pub fn strings<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Option<Self> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for v in values {
            let v = v.as_ref().as_bytes();
            bytes.extend_from_slice(&(v.len() as u64).to_le_bytes());
            bytes.extend_from_slice(v);
            ends.push(u32::try_from(bytes.len()).ok()?);
        }
        Some(Self { kind: ValueType::Str, len: ends.len(), bytes: Bytes::Owned(bytes), ends })
    }

    /// An array that stays in `map`; the reader has checked that `range` lies in the file and that `ends` lie in `range`.
    pub(crate) fn mapped(kind: ValueType, len: usize, map: Arc<Map>, range: Range<usize>, ends: Vec<u32>) -> Self {
        Self { kind, len, bytes: Bytes::Mapped { map, range }, ends }
    }

    /// The type of the elements.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as the file holds them.
    pub fn raw(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped { map, range } => map.bytes().get(range.clone()).unwrap_or_default(),
        }
    }

    /// Element `i` as a `T`; none behind the end or if the array holds another type.
    pub fn number<T: Element>(&self, i: usize) -> Option<T> {
        let width = T::KIND.width().filter(|_| self.kind == T::KIND)?;
        let from = i.checked_mul(width)?;
        T::read(self.raw().get(from..from.checked_add(width)?)?)
    }

    /// All elements as `T`; none if the array holds another type.
    pub fn to_vec<T: Element>(&self) -> Option<Vec<T>> {
        let width = T::KIND.width().filter(|_| self.kind == T::KIND)?;
        self.raw().chunks_exact(width).map(T::read).collect()
    }

    /// String `i` as bytes; none behind the end or if the array holds no strings. Some vocabularies hold tokens that are
    /// not valid UTF-8.
    pub fn bytes(&self, i: usize) -> Option<&[u8]> {
        let end = usize::try_from(*self.ends.get(i)?).ok()?;
        let before = match i.checked_sub(1) {
            Some(j) => usize::try_from(*self.ends.get(j)?).ok()?,
            None => 0,
        };
        self.raw().get(before.checked_add(LENGTH_BYTES)?..end)
    }

    /// String `i`; none behind the end, if the array holds no strings, or if it is not valid UTF-8.
    pub fn str(&self, i: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes(i)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let a = Array::numbers(&[1.5f32, -2.0, f32::INFINITY]);
        assert_eq!((a.kind(), a.len(), a.is_empty()), (ValueType::F32, 3, false));
        assert_eq!(a.to_vec::<f32>().unwrap(), [1.5, -2.0, f32::INFINITY]);
        assert_eq!(a.number::<f32>(1), Some(-2.0));
        assert_eq!(a.number::<f32>(3), None);
        assert_eq!(a.number::<f32>(usize::MAX), None);
        assert_eq!(a.number::<i32>(0), None, "another type");
        assert_eq!(a.to_vec::<u8>(), None, "another type");
        assert_eq!(a.str(0), None);
        assert_eq!(Array::bools(&[true, false]).raw(), [1, 0]);
    }

    #[test]
    fn strings_come_back() {
        let a = Array::strings(["", "a", "▁the", ""]).unwrap();
        assert_eq!(a.len(), 4);
        let all: Vec<_> = (0..5).map(|i| a.str(i)).collect();
        assert_eq!(all, [Some(""), Some("a"), Some("▁the"), Some(""), None]);
        assert_eq!(a.bytes(usize::MAX), None);
        assert_eq!(a.number::<u8>(0), None);
        assert!(Array::strings::<&str>([]).unwrap().is_empty());
    }

    #[test]
    fn values_know_their_type() {
        assert_eq!(Value::from(-3i8).as_int(), Some(-3));
        assert_eq!(Value::from(u64::MAX).as_int(), Some(u64::MAX.into()));
        assert_eq!(Value::from(0.5f64).as_f64(), Some(0.5));
        assert_eq!(Value::from(0.5f32).as_int(), None);
        assert_eq!(Value::from("x").as_str(), Some("x"));
        assert_eq!(Value::from(true).as_bool(), Some(true));
        assert_eq!(Value::from(Array::bools(&[])).describe(), "array of bool");
        for kind in ValueType::ALL {
            assert_eq!(ValueType::from_id(kind as u32), Some(kind));
        }
        assert_eq!(ValueType::from_id(13), None);
    }
}
