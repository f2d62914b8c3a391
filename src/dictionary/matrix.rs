//! Rows and vectors that lie in a map or in memory.

use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;

use crate::file::Map;
use crate::num::{Q8_0_BYTES, Q8_0_LEN, Row};

/// A slice that somebody else keeps alive too. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) enum Shared<T> {
    Mapped { map: Arc<Map>, start: usize, len: usize },
    Owned(Arc<Vec<T>>),
}

impl<T> From<Vec<T>> for Shared<T> {
    fn from(values: Vec<T>) -> Self {
        Self::Owned(Arc::new(values))
    }
}

impl<T: Pod> Shared<T> {
    /// `bytes` of the file. None if they are not whole, aligned elements of the map.
    pub(super) fn mapped(map: &Arc<Map>, bytes: Range<usize>) -> Option<Self> {
        let values: &[T] = bytemuck::try_cast_slice(map.bytes().get(bytes.clone())?).ok()?;
        Some(Self::Mapped { map: map.clone(), start: bytes.start, len: values.len() })
    }
}

impl<T> Shared<T> {
    /// Gives the memory of the file that the values lie in back to the system, if they do; they come back when read.
    fn release(&self) {
        if let Self::Mapped { map, .. } = self {
            map.release(0..map.bytes().len());
        }
    }
}

impl<T: Pod> Deref for Shared<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            // Range and alignment were checked by `mapped`, and a map neither moves nor shrinks.
            Self::Mapped { map, start, len } => {
                bytemuck::cast_slice(&map.bytes()[*start..*start + *len * size_of::<T>()])
            }
            Self::Owned(values) => values,
        }
    }
}

/// `[n_rows, n_cols]`, row-major.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    values: Values,
    n_rows: usize,
    n_cols: usize,
}

/// The values in one of the four storages of [`Row`].
#[derive(Clone, Debug)]
pub(super) enum Values {
    F32(Shared<f32>),
    F16(Shared<u16>),
    Bf16(Shared<u16>),
    Q8_0(Shared<u8>),
}

/// The rows of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// All of them, end to end.
    values: Row<'a>,
    n_cols: usize,
}

impl<'a> Rows<'a> {
    #[inline]
    pub(super) fn get(self, i: usize) -> Row<'a> {
        let n = self.n_cols;
        match self.values {
            Row::F32(v) => Row::F32(&v[i * n..(i + 1) * n]),
            Row::F16(v) => Row::F16(&v[i * n..(i + 1) * n]),
            Row::Bf16(v) => Row::Bf16(&v[i * n..(i + 1) * n]),
            Row::Q8_0(v) => {
                let n = n / Q8_0_LEN * Q8_0_BYTES;
                Row::Q8_0(&v[i * n..(i + 1) * n])
            }
        }
    }
}

impl Matrix {
    /// None if the values are not `n_rows` rows of `n_cols`.
    pub(super) fn new(values: Values, n_rows: usize, n_cols: usize) -> Option<Self> {
        let (len, row) = match &values {
            Values::F32(v) => (v.len(), n_cols),
            Values::F16(v) | Values::Bf16(v) => (v.len(), n_cols),
            Values::Q8_0(v) if n_cols.is_multiple_of(Q8_0_LEN) => (v.len(), n_cols / Q8_0_LEN * Q8_0_BYTES),
            Values::Q8_0(_) => return None,
        };
        (n_rows.checked_mul(row) == Some(len)).then_some(Self { values, n_rows, n_cols })
    }

    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn n_cols(&self) -> usize {
        self.n_cols
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self.values {
            Values::F32(_) => "F32",
            Values::F16(_) => "F16",
            Values::Bf16(_) => "BF16",
            Values::Q8_0(_) => "Q8_0",
        }
    }

    pub(super) fn row(&self, i: usize) -> Row<'_> {
        self.rows().get(i)
    }

    /// All rows, to be taken one by one: finding out where they lie costs as much as a short product.
    pub(super) fn rows(&self) -> Rows<'_> {
        let values = match &self.values {
            Values::F32(v) => Row::F32(v),
            Values::F16(v) => Row::F16(v),
            Values::Bf16(v) => Row::Bf16(v),
            Values::Q8_0(v) => Row::Q8_0(v),
        };
        Rows { values, n_cols: self.n_cols }
    }

    /// The rows as `f32`: where they lie if that is how they are stored, otherwise decoded into `scratch`.
    pub(super) fn rows_f32<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        let n = self.n_cols;
        if let Values::F32(v) = &self.values {
            return &v[rows.start * n..rows.end * n];
        }
        scratch.resize(rows.len() * n, 0.0);
        for (i, out) in rows.zip(scratch.chunks_exact_mut(n)) {
            self.row(i).decode(out);
        }
        scratch
    }

    /// A matrix in memory of some of the rows, stored as they are.
    pub(super) fn gather(&self, rows: &[usize]) -> Self {
        fn pick<T: Pod>(values: &Shared<T>, n: usize, rows: &[usize]) -> Shared<T> {
            rows.iter().flat_map(|i| values[i * n..(i + 1) * n].iter().copied()).collect::<Vec<T>>().into()
        }
        let n = self.n_cols;
        let values = match &self.values {
            Values::F32(v) => Values::F32(pick(v, n, rows)),
            Values::F16(v) => Values::F16(pick(v, n, rows)),
            Values::Bf16(v) => Values::Bf16(pick(v, n, rows)),
            Values::Q8_0(v) => Values::Q8_0(pick(v, n / Q8_0_LEN * Q8_0_BYTES, rows)),
        };
        Self { values, n_rows: rows.len(), n_cols: n }
    }

    /// Gives the memory of the file that the rows lie in back to the system, if they do; they come back when read.
    pub(super) fn release(&self) {
        match &self.values {
            Values::F32(v) => v.release(),
            Values::F16(v) | Values::Bf16(v) => v.release(),
            Values::Q8_0(v) => v.release(),
        }
    }

    /// ‖rowᵢ‖.
    pub(super) fn norm(&self, i: usize) -> f32 {
        let mut row = vec![0.0; self.n_cols];
        self.row(i).decode(&mut row);
        crate::num::norm(&row)
    }
}
