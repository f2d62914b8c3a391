//! Rows and vectors that lie in a map or in memory.
//!
//! Half of the families store one of the two matrices the other way round, one row for each place of the residual stream
//! and not for each feature. Such a matrix stays in the map as it is: opening costs nothing, a few features are gathered
//! from it, a conversion goes through it in bands; the first encode of a whole row turns it round in memory, once.

use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use bytemuck::Pod;

use crate::error::Result;
use crate::file::Map;
use crate::file::gguf::GgmlType;
use crate::num::{Coding, Q8_0_BYTES, Q8_0_LEN, Row};

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

/// `[n_rows, n_cols]`, row-major, or stored as its transpose.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    values: Values,
    n_rows: usize,
    n_cols: usize,
    /// Of a matrix whose values lie `[n_cols, n_rows]`: its rows, once somebody needed all of them.
    turned: Option<Arc<OnceLock<Values>>>,
}

/// The values in one of the storages of [`Row`].
#[derive(Clone, Debug)]
pub(super) enum Values {
    F32(Shared<f32>),
    F16(Shared<u16>),
    Bf16(Shared<u16>),
    Q8_0(Shared<u8>),
    /// Another type of ggml's, decoded by it.
    Coded(Shared<u8>, GgmlType, Arc<Coding>),
}

/// The rows of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// All of them, end to end.
    values: Row<'a>,
    n_cols: usize,
}

impl<'a> Rows<'a> {
    /// All rows, end to end.
    pub(super) fn all(self) -> Row<'a> {
        self.values
    }

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
            Row::Coded(v, coding) => {
                let n = coding.row_bytes(n).unwrap_or(0);
                Row::Coded(&v[i * n..(i + 1) * n], coding)
            }
        }
    }
}

impl Values {
    fn all(&self) -> Row<'_> {
        match self {
            Self::F32(v) => Row::F32(v),
            Self::F16(v) => Row::F16(v),
            Self::Bf16(v) => Row::Bf16(v),
            Self::Q8_0(v) => Row::Q8_0(v),
            Self::Coded(v, _, coding) => Row::Coded(v, coding),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F16(v) | Self::Bf16(v) => v.len(),
            Self::Q8_0(v) | Self::Coded(v, ..) => v.len(),
        }
    }

    fn release(&self) {
        match self {
            Self::F32(v) => v.release(),
            Self::F16(v) | Self::Bf16(v) => v.release(),
            Self::Q8_0(v) | Self::Coded(v, ..) => v.release(),
        }
    }
}

impl Matrix {
    /// None if the values are not `n_rows` rows of `n_cols`.
    pub(super) fn new(values: Values, n_rows: usize, n_cols: usize) -> Option<Self> {
        let row = match &values {
            Values::Q8_0(_) if !n_cols.is_multiple_of(Q8_0_LEN) => return None,
            Values::Q8_0(_) => n_cols / Q8_0_LEN * Q8_0_BYTES,
            Values::Coded(_, _, coding) => coding.row_bytes(n_cols)?,
            _ => n_cols,
        };
        (n_rows.checked_mul(row) == Some(values.len())).then_some(Self { values, n_rows, n_cols, turned: None })
    }

    /// The same from values that lie `[n_cols, n_rows]`. None if they do not, or are blocks.
    pub(super) fn from_columns(values: Values, n_rows: usize, n_cols: usize) -> Option<Self> {
        let fits =
            n_rows.checked_mul(n_cols) == Some(values.len()) && !matches!(values, Values::Q8_0(_) | Values::Coded(..));
        fits.then(|| Self { values, n_rows, n_cols, turned: Some(Arc::default()) })
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
            Values::Coded(_, kind, _) => kind.label(),
        }
    }

    /// The values, row after row.
    fn values(&self) -> &Values {
        match &self.turned {
            None => &self.values,
            Some(turned) => turned.get_or_init(|| self.band(0..self.n_rows)),
        }
    }

    /// All rows, to be taken one by one: finding out where they lie costs as much as a short product.
    pub(super) fn rows(&self) -> Rows<'_> {
        Rows { values: self.values().all(), n_cols: self.n_cols }
    }

    /// The rows as `f32`: where they lie if that is how they are stored, otherwise decoded into `scratch`.
    pub(super) fn rows_f32<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        let n = self.n_cols;
        if let Values::F32(v) = self.values() {
            return &v[rows.start * n..rows.end * n];
        }
        scratch.resize(rows.len() * n, 0.0);
        let all = self.rows();
        for (i, out) in rows.zip(scratch.chunks_exact_mut(n)) {
            all.get(i).decode(out);
        }
        scratch
    }

    /// Writes row `i` to `out`, wherever it lies.
    pub(super) fn decode_row(&self, i: usize, out: &mut [f32]) {
        if self.is_whole() {
            return self.rows().get(i).decode(out);
        }
        self.gather(&[i]).rows().get(0).decode(out);
    }

    /// Whether rows can be had without turning anything round.
    fn is_whole(&self) -> bool {
        self.turned.as_ref().is_none_or(|turned| turned.get().is_some())
    }

    /// Whether the rows lie in a file as they are used.
    pub(super) fn is_mapped(&self) -> bool {
        fn mapped<T>(values: &Shared<T>) -> bool {
            matches!(values, Shared::Mapped { .. })
        }
        self.turned.is_none()
            && match &self.values {
                Values::F32(v) => mapped(v),
                Values::F16(v) | Values::Bf16(v) => mapped(v),
                Values::Q8_0(v) | Values::Coded(v, ..) => mapped(v),
            }
    }

    /// A matrix in memory of some of the rows, stored as they are.
    pub(super) fn gather(&self, rows: &[usize]) -> Self {
        fn pick<T: Pod>(values: &Shared<T>, n: usize, rows: &[usize]) -> Shared<T> {
            rows.iter().flat_map(|i| values[i * n..(i + 1) * n].iter().copied()).collect::<Vec<T>>().into()
        }
        fn pick_columns<T: Pod>(values: &Shared<T>, n_rows: usize, n_cols: usize, rows: &[usize]) -> Shared<T> {
            let all: &[T] = values;
            let mut out = vec![T::zeroed(); rows.len() * n_cols];
            for c in 0..n_cols {
                for (j, i) in rows.iter().enumerate() {
                    out[j * n_cols + c] = all[c * n_rows + i];
                }
                // Each read maps the pages around it along.
                if c % TILE == TILE - 1 {
                    values.release();
                }
            }
            out.into()
        }
        let (n, n_rows) = (self.n_cols, self.n_rows);
        let values = if self.is_whole() {
            match self.values() {
                Values::F32(v) => Values::F32(pick(v, n, rows)),
                Values::F16(v) => Values::F16(pick(v, n, rows)),
                Values::Bf16(v) => Values::Bf16(pick(v, n, rows)),
                Values::Q8_0(v) => Values::Q8_0(pick(v, n / Q8_0_LEN * Q8_0_BYTES, rows)),
                Values::Coded(v, kind, coding) => {
                    Values::Coded(pick(v, coding.row_bytes(n).unwrap_or(0), rows), *kind, coding.clone())
                }
            }
        } else {
            match &self.values {
                Values::F32(v) => Values::F32(pick_columns(v, n_rows, n, rows)),
                Values::F16(v) => Values::F16(pick_columns(v, n_rows, n, rows)),
                Values::Bf16(v) => Values::Bf16(pick_columns(v, n_rows, n, rows)),
                Values::Q8_0(_) | Values::Coded(..) => unreachable!("blocks are never stored as columns"),
            }
        };
        Self { values, n_rows: rows.len(), n_cols: n, turned: None }
    }

    /// Rows `rows` of a matrix that is stored as columns.
    fn band(&self, rows: Range<usize>) -> Values {
        let (n_rows, n_cols) = (self.n_rows, self.n_cols);
        match &self.values {
            Values::F32(v) => Values::F32(turn(v, n_rows, n_cols, rows)),
            Values::F16(v) => Values::F16(turn(v, n_rows, n_cols, rows)),
            Values::Bf16(v) => Values::Bf16(turn(v, n_rows, n_cols, rows)),
            Values::Q8_0(_) | Values::Coded(..) => unreachable!("blocks are never stored as columns"),
        }
    }

    /// Shows every row in order, for work that goes through the whole matrix once: what was read of the file is given back
    /// on the way, and a matrix of columns is turned round band by band. Takes [`BAND_BYTES`] of memory.
    pub(super) fn each_row(&self, mut each: impl FnMut(usize, Row<'_>) -> Result<()>) -> Result<()> {
        let step = (BAND_BYTES / (self.n_cols.max(1) * size_of::<f32>())).max(1);
        for first in (0..self.n_rows).step_by(step) {
            let range = first..(first + step).min(self.n_rows);
            if self.is_whole() {
                let rows = self.rows();
                range.clone().try_for_each(|i| each(i, rows.get(i)))?;
            } else {
                let band = self.band(range.clone());
                let rows = Rows { values: band.all(), n_cols: self.n_cols };
                range.clone().enumerate().try_for_each(|(j, i)| each(i, rows.get(j)))?;
            }
            self.release();
        }
        Ok(())
    }

    /// Gives the memory of the file that the rows lie in back to the system, if they do; they come back when read.
    pub(super) fn release(&self) {
        self.values.release();
    }

    /// ‖rowᵢ‖.
    pub(super) fn norm(&self, i: usize) -> f32 {
        let mut row = vec![0.0; self.n_cols];
        self.decode_row(i, &mut row);
        crate::num::norm(&row)
    }

    /// ‖row‖ of all rows.
    pub(super) fn norms(&self) -> Vec<f32> {
        let (mut norms, mut row) = (Vec::with_capacity(self.n_rows), vec![0.0; self.n_cols]);
        let shown = self.each_row(|_, stored| {
            stored.decode(&mut row);
            norms.push(crate::num::norm(&row));
            Ok(())
        });
        debug_assert!(shown.is_ok());
        norms
    }
}

/// What goes through memory at once of a matrix that is read from end to end: runs of a column, some tens of kilobytes
/// each, so that a cold disk is read in few pieces.
const BAND_BYTES: usize = 64 << 20;

/// Columns that are read between two returns of their pages, and the side of a tile that fits the cache.
const TILE: usize = 32;

/// Rows `rows` of the `[n_rows, n_cols]` whose transpose the values are, in tiles that fit the cache.
fn turn<T: Pod>(values: &Shared<T>, n_rows: usize, n_cols: usize, rows: Range<usize>) -> Shared<T> {
    let all: &[T] = values;
    let mut out = vec![T::zeroed(); rows.len() * n_cols];
    for first in (0..n_cols).step_by(TILE) {
        for (i, out) in out.chunks_mut(TILE * n_cols).enumerate() {
            let (start, len) = (rows.start + i * TILE, out.len() / n_cols);
            for c in first..(first + TILE).min(n_cols) {
                let column = &all[c * n_rows + start..][..len];
                out.iter_mut().skip(c).step_by(n_cols).zip(column).for_each(|(to, v)| *to = *v);
            }
        }
        values.release();
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_the_rows_of_their_transpose() {
        // Sizes around the tile of 32.
        for (n_rows, n_cols) in [(1, 1), (3, 70), (70, 3), (32, 32), (33, 31), (65, 100)] {
            let rows: Vec<f32> = (0..n_rows * n_cols).map(|i| i as f32).collect();
            let columns = (0..n_cols * n_rows).map(|i| rows[i % n_rows * n_cols + i / n_rows]).collect::<Vec<_>>();
            let plain = Matrix::new(Values::F32(rows.clone().into()), n_rows, n_cols).unwrap();
            let turned = Matrix::from_columns(Values::F32(columns.into()), n_rows, n_cols).unwrap();
            let mut out = vec![0.0; n_cols];
            for i in 0..n_rows {
                turned.decode_row(i, &mut out);
                assert_eq!(out, rows[i * n_cols..(i + 1) * n_cols]);
            }
            assert_eq!(turned.norms(), plain.norms());
            assert!(!turned.is_whole(), "nothing was turned round yet");
            let ids = [n_rows - 1, 0];
            let (mut a, mut b) = (Vec::new(), Vec::new());
            assert_eq!(turned.gather(&ids).rows_f32(0..2, &mut a), plain.gather(&ids).rows_f32(0..2, &mut b));
            assert_eq!(turned.rows_f32(0..n_rows, &mut a), rows);
            assert!(turned.is_whole());
        }
    }
}
