//! The encoder once more, rounded to `q8_0`: what one row after the other is compared with.
//!
//! One row in `f32` takes as long as its encoder takes to read, and almost all of what is read says no more than that a
//! feature is silent. Of a rounded row, about a quarter as long, the same can be said by a bound that holds always
//! ([`Estimator`](crate::num::estimate::Estimator)); the few others are read in full. It costs a quarter more memory, and as
//! much time as some rows take, so it is made for who encodes many rows, one by one, and for encoders in `f32` alone.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::batch::on_threads;
use super::matrix::{Matrix, Rows, Values};
use crate::num::{Q8_0_LEN, Row, round_q8_0};

/// Rows after which it is made: their time and its own are about the same, so that who stops right after has lost half.
const ROWS: usize = 16;

/// Made when it is due. Two threads that find it due at once make it once.
#[derive(Debug, Default)]
pub(super) struct Outline {
    encoded: AtomicUsize,
    rows: OnceLock<Option<Matrix>>,
}

impl Outline {
    /// The rounded rows of `encoder`, once enough rows were encoded: `n` more now. None where it would not help.
    pub(super) fn rows(&self, encoder: &Matrix, n: usize, threads: usize) -> Option<Rows<'_>> {
        let Row::F32(values) = encoder.rows().all() else { return None };
        // Wraps after all rows that a machine can encode in its life, and then only counts anew.
        let before = self.encoded.fetch_add(n, Ordering::Relaxed);
        if before < ROWS && self.rows.get().is_none() {
            return None;
        }
        self.rows.get_or_init(|| round(values, encoder.n_cols(), threads)).as_ref().map(Matrix::rows)
    }
}

/// Rows of width `d`, each filled up with zeros to whole blocks. None if there are none.
fn round(values: &[f32], d: usize, threads: usize) -> Option<Matrix> {
    let n = values.len().checked_div(d)?;
    let parts = on_threads(n, threads, 1, |rows| {
        let mut out = Vec::new();
        values[rows.start * d..rows.end * d].chunks_exact(d).for_each(|row| round_q8_0(row, &mut out));
        out
    });
    Matrix::new(Values::Q8_0(parts.concat().into()), n, d.next_multiple_of(Q8_0_LEN))
}
