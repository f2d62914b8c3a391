//! A tensor of an open file, whichever the container: its type, its shape, its bytes where they lie.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use ::safetensors::Dtype;

use super::Map;
use super::source::{Data, Source};
use crate::error::{Error, Result};

/// What a reader knows of a tensor once its header is checked.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
}

/// A tensor of an open file.
#[derive(Clone, Copy)]
pub struct View<'a> {
    tensor: &'a Tensor,
    name: &'a str,
    path: &'a Path,
}

impl<'a> View<'a> {
    pub(super) fn new(tensor: &'a Tensor, name: &'a str, path: &'a Path) -> Self {
        Self { tensor, name, path }
    }

    /// The name by which the file knows it.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.tensor.dtype
    }

    /// The shape, in NumPy's order: the last dimension is contiguous.
    pub fn shape(&self) -> &'a [usize] {
        &self.tensor.shape
    }

    /// The elements, little-endian, one after another. Those that lie in another order in the file are put in order, once,
    /// in memory.
    pub fn bytes(&self) -> &'a [u8] {
        self.tensor.data.bytes()
    }

    /// Where the bytes lie in the file, at any alignment; none if they had to be put together in memory.
    pub fn mapped(&self) -> Option<(&'a Arc<Map>, Range<usize>)> {
        match &self.tensor.data {
            Data::InOrder(Source::Mapped(map, at)) => Some((map, at.clone())),
            _ => None,
        }
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
        let bytes = self.bytes();
        Ok(match self.dtype() {
            Dtype::F32 => match bytemuck::try_cast_slice(bytes) {
                Ok(borrowed) => Cow::Borrowed(borrowed),
                Err(_) => Cow::Owned(convert(bytes, f32::from_le_bytes)),
            },
            Dtype::F64 => Cow::Owned(convert(bytes, |b| f64::from_le_bytes(b) as f32)),
            Dtype::F16 => Cow::Owned(convert(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Cow::Owned(convert(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
            other => return Err(self.unsupported("F32, F64, F16 or BF16", other)),
        })
    }

    /// The elements as `i64`, from any type of integer.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for other types, and for `U64` past `i64`'s range.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        let bytes = self.bytes();
        Ok(match self.dtype() {
            Dtype::BOOL | Dtype::U8 => convert(bytes, |b| u8::from_le_bytes(b).into()),
            Dtype::I8 => convert(bytes, |b| i8::from_le_bytes(b).into()),
            Dtype::U16 => convert(bytes, |b| u16::from_le_bytes(b).into()),
            Dtype::I16 => convert(bytes, |b| i16::from_le_bytes(b).into()),
            Dtype::U32 => convert(bytes, |b| u32::from_le_bytes(b).into()),
            Dtype::I32 => convert(bytes, |b| i32::from_le_bytes(b).into()),
            Dtype::I64 => convert(bytes, i64::from_le_bytes),
            Dtype::U64 => {
                let all: Option<Vec<i64>> =
                    convert(bytes, |b| i64::try_from(u64::from_le_bytes(b)).ok()).into_iter().collect();
                all.ok_or_else(|| self.unsupported("integers below 2^63", Dtype::U64))?
            }
            other => return Err(self.unsupported("integers", other)),
        })
    }

    /// The one element of a tensor that has one, floating or integer, as `f32`.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) if it has another number of elements; as [`View::to_f32`].
    pub fn scalar_f32(&self) -> Result<f32> {
        let values = match self.dtype() {
            Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::BF16 => self.to_f32()?,
            _ => self.to_i64()?.into_iter().map(|v| v as f32).collect(),
        };
        match *values {
            [value] => Ok(value),
            _ => {
                let (name, shape) = (self.name, self.shape());
                Err(Error::format(
                    self.path,
                    format_args!("tensor \"{name}\": expected one element, found shape {shape:?}"),
                ))
            }
        }
    }

    fn unsupported(&self, expected: &str, found: Dtype) -> Error {
        let (path, name) = (self.path.display(), self.name);
        Error::unsupported(format!("{path}: tensor \"{name}\": expected {expected}, found {found:?}"))
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tensor { dtype, shape, .. } = self.tensor;
        f.debug_struct("View").field("name", &self.name).field("dtype", dtype).field("shape", shape).finish()
    }
}

/// The error of a file that lacks the tensor `name` and has `names` instead.
pub(super) fn missing<'a>(path: &Path, name: &str, names: impl Iterator<Item = &'a str>) -> Error {
    const SHOWN: usize = 12;
    let mut some: Vec<_> = names.take(SHOWN + 1).collect();
    let more = if some.len() > SHOWN { ", …" } else { "" };
    some.truncate(SHOWN);
    let found = if some.is_empty() { "none".to_owned() } else { some.join(", ") };
    Error::format(path, format_args!("expected a tensor \"{name}\", found {found}{more}"))
}

/// Bytes of an element.
pub(super) fn width(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

fn convert<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&b| from(b)).collect()
}
