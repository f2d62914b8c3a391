//! Floor 0: dot kernels, top-k, matrix products, linear algebra, assignment, statistics, random numbers.
//!
//! Rows are stored in one of four ways ([`Row`]): `f32`, `f16`, `bf16`, or `q8_0` (blocks of 32 signed bytes with one
//! half-precision scale, ggml's layout), or in blocks that a caller decodes. The other side of every product is `f32`. Kernels exist twice: a portable
//! version, the oracle, written in fixed lanes so that a compiler vectorises it on any machine; and AVX2 + FMA + F16C,
//! chosen at run time by a value that only a CPU with these instructions can produce. There is no AVX-512 version: no
//! machine that runs these tests has it, and a kernel that no test has run does not ship.

mod assignment;
mod avx2;
mod cpu;
pub(crate) mod estimate;
mod gemm;
pub mod linalg;
pub(crate) mod parallel;
mod portable;
mod q8_0;
mod row;
pub(crate) mod screen;
pub(crate) mod spectrum;
pub mod stats;
pub(crate) mod strassen;
mod top_k;

pub use assignment::assign;
pub use gemm::{Mat, gemm};
pub(crate) use q8_0::round_q8_0;
pub use q8_0::{Q8_0_BYTES, Q8_0_LEN, quantize_q8_0};
pub use row::{Coding, Row, axpy, axpy_bf16, axpy_f16, axpy_q8_0, axpy8, dot, dot_bf16, dot_f16, dot_q8_0, dot8};
pub use top_k::top_k;

use crate::error::{Error, Result};

/// A random number generator that gives the same numbers for the same seed on every machine.
pub fn rng(seed: u64) -> rand_xoshiro::Xoshiro256PlusPlus {
    rand_xoshiro::rand_core::SeedableRng::seed_from_u64(seed)
}

/// The Euclidean norm ‖x‖₂, accumulated in `f64`: it neither overflows nor loses small entries beside large ones.
pub fn norm(x: &[f32]) -> f32 {
    let mut lanes = [0f64; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(v) * f64::from(v);
        }
    }
    let rest: f64 = rest.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    (lanes.iter().sum::<f64>() + rest).sqrt() as f32
}

/// Refuses rows `[n, width]` that hold NaN or an infinity: codes of such a row would look like those of a row in which
/// nothing fires. `first` is the number of the first row.
///
/// # Errors
/// [`Kind::Numeric`](crate::Kind::Numeric) naming the row and the place in it.
pub fn check_finite(rows: &[f32], width: usize, first: usize) -> Result<()> {
    let Some(at) = rows.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let (row, column) = (first + at / width.max(1), at % width.max(1));
    let error = Error::numeric(format!("row {row}, column {column}: expected a finite number, found {}", rows[at]));
    Err(error.hinted("look where the rows come from: a damaged model, a plan that is too strong, a division by zero"))
}

/// Whether a row is one that a model can compute with: its norm squares the row in f32.
pub(crate) fn is_bearable(norm: f32) -> bool {
    (norm * norm).is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn rows_that_are_not_finite_are_named() {
        let mut rows = vec![0.5; 12];
        assert!(check_finite(&rows, 4, 7).is_ok() && check_finite(&[], 4, 7).is_ok());
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            rows[6] = value;
            let error = check_finite(&rows, 4, 7).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Numeric);
            assert_eq!(error.message(), format!("row 8, column 2: expected a finite number, found {value}"));
        }
    }

    #[test]
    fn norm_of_known_rows() {
        assert_eq!(norm(&[]), 0.0);
        assert_eq!(norm(&[3.0, -4.0]), 5.0);
        assert_eq!(norm(&[1e30, 1e30]), 2f32.sqrt() * 1e30, "no overflow on the way");
        assert_eq!(norm(&[2.0; 100]), 20.0);
        assert!(norm(&[1.0, f32::NAN]).is_nan());
        assert_eq!(norm(&[f32::NEG_INFINITY, 1.0]), f32::INFINITY);
    }

    #[test]
    fn rng_is_pinned() {
        let draw = |seed| rng(seed).random::<u64>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(draw(0), 5987356902031041503, "the generator must not change between releases: recipes name seeds");
    }
}
