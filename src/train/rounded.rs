//! Rows of 16-bit integers with a step each: what the trainer reads again and again.
//!
//! A row `x` is kept as `q·step` with `q` of norm at most [`NORM`]. By Cauchy–Schwarz `|q·r| ≤ NORM² < 2³¹`, so a dot
//! product of two rows cannot overflow 32 bits, in any order of its terms. Its rounding error is about 1e-5 of
//! `‖x‖·‖y‖`, finer than TF32, at half the memory traffic of `f32` and, with `vpmaddwd`, twice its arithmetic. Weights are
//! trained in `f32`; only what is read per row and feature lies here.

use super::kernel::{adds, dispatch, dot, dots, prefetch};

/// The largest norm of a row of integers: 46,340² < 2³¹, less what rounding can add.
const NORM: f32 = 46_000.0;
/// The largest entry, with room for rounding.
const LARGEST: f32 = 32_766.0;

/// Rows `[n, width]`; `width` is `d_model`, made even.
#[derive(Default)]
pub(super) struct Rounded {
    pub(super) width: usize,
    pub(super) rows: Vec<i16>,
    /// Per row, what an integer is worth.
    pub(super) steps: Vec<f32>,
}

impl Rounded {
    /// `n` rows of zeros for `d` inputs.
    pub(super) fn new(n: usize, d: usize) -> Self {
        let mut rows = Self::default();
        rows.resize(n, d);
        rows
    }

    /// Makes room for `n` rows of `d` inputs; what they hold is unspecified.
    pub(super) fn resize(&mut self, n: usize, d: usize) {
        self.width = d.next_multiple_of(2);
        self.rows.resize(n * self.width, 0);
        self.steps.resize(n, 0.0);
    }

    /// Row `i`.
    pub(super) fn row(&self, i: usize) -> &[i16] {
        &self.rows[i * self.width..(i + 1) * self.width]
    }

    /// The rows in chunks of `size`, to be filled.
    pub(super) fn chunks_mut(&mut self, size: usize) -> impl Iterator<Item = (&mut [i16], &mut [f32])> + Send {
        self.rows.chunks_mut(size * self.width).zip(self.steps.chunks_mut(size))
    }

    /// `y += Σ_j weight · row i` with `(weight, i) = at(j)`, `j` in `0..n`, in order, four rows at a time.
    pub(super) fn add(&self, y: &mut [f32], n: usize, at: impl Fn(usize) -> (f32, usize)) {
        let one = |j: usize| {
            let (weight, i) = at(j);
            (weight * self.steps[i], self.row(i))
        };
        // Four rows cost one pass over y; a weight of zero fills up the last four.
        for j in (0..n).step_by(4) {
            for next in j + 4..(j + 8).min(n) {
                prefetch(self.row(at(next).1));
            }
            let four = [0, 1, 2, 3].map(|o| if j + o < n { one(j + o) } else { (0.0, one(j).1) });
            adds(y, four.map(|(weight, _)| weight), four.map(|(_, row)| row));
        }
    }

    /// `out[j] = ⟨row features[j], q·step⟩`.
    pub(super) fn dot(&self, q: &[i16], step: f32, features: &[u32], out: &mut [f32]) {
        for (features, out) in features.chunks(4).zip(out.chunks_mut(4)) {
            let four = [0, 1, 2, 3].map(|o| features[o.min(features.len() - 1)] as usize);
            let sums = dots(q, four.map(|f| self.row(f)));
            for ((out, sum), f) in out.iter_mut().zip(sums).zip(four) {
                *out = sum as f32 * (self.steps[f] * step);
            }
        }
    }
}

#[inline(always)]
fn round_body<const FMA: bool>(row: &[f32], scale: f32, out: &mut [i16]) {
    /// 1.5 · 2²³: adding it leaves the nearest integer (ties to even) in the low bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    for (out, &x) in out.iter_mut().zip(row) {
        *out = (x * scale + MAGIC).to_bits() as i16;
    }
}

dispatch!(/// `out = round(row · scale)`; `|row · scale|` must stay below 2¹⁵.
    round_to, round_body, (row: &[f32], scale: f32, out: &mut [i16]));

/// Rounds a finite row; returns its step. A row of zeros has step 0.
pub(super) fn round(row: &[f32], out: &mut [i16]) -> f32 {
    let norm = match dot(row, row) {
        square if (1e-20..1e30).contains(&square) => square.sqrt(),
        // Squares beyond the range of f32, or rows of zeros.
        _ => row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32,
    };
    let largest = row.iter().fold(0f32, |m, x| m.max(x.abs()));
    let scale = (NORM / norm).min(LARGEST / largest);
    if !(scale.is_finite() && norm.is_finite()) {
        out.fill(0);
        return 0.0;
    }
    round_to(row, scale, out);
    if let Some(padding) = out.get_mut(row.len()..) {
        padding.fill(0);
    }
    1.0 / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest possible dot product: a row with itself.
    #[test]
    fn sums_cannot_overflow() {
        for d in [1, 2, 576, 4096] {
            for row in [vec![1e30f32; d], vec![-3e-20; d], (0..d).map(|i| if i == 0 { 1e4 } else { 1.0 }).collect()] {
                let mut q = vec![0i16; d];
                round(&row, &mut q);
                let sum: i64 = q.iter().map(|&q| i64::from(q) * i64::from(q)).sum();
                assert!(sum < i64::from(i32::MAX), "d {d}: {sum}");
                assert!(q.iter().any(|&q| q != 0));
            }
        }
        let mut q = [1i16; 4];
        assert_eq!(round(&[0.0; 3], &mut q), 0.0);
        assert_eq!(q, [0; 4]);
    }

    /// Against f64 of the unrounded rows: sums within half a step a row, dot products within 5e-5 of the norms' product.
    #[test]
    fn rows_add_and_multiply_like_the_ones_they_stand_for() {
        for (n, d) in [(1, 1), (3, 7), (4, 16), (5, 33), (9, 576), (7, 577)] {
            let value = |i: usize, j: usize| ((i * 131 + j * 37) % 97) as f32 * 0.1 - 4.0;
            let rows: Vec<Vec<f32>> = (0..n).map(|i| (0..d).map(|j| value(i, j)).collect()).collect();
            let mut rounded = Rounded::new(n, d);
            for ((out, step), row) in rounded.chunks_mut(1).zip(&rows) {
                step[0] = round(row, out);
            }
            let mut y = vec![1f32; d];
            rounded.add(&mut y, n, |j| (0.5 + j as f32, n - 1 - j));
            for c in 0..d {
                let want = 1.0 + (0..n).map(|j| (0.5 + j as f64) * f64::from(rows[n - 1 - j][c])).sum::<f64>();
                let off = (0..n).map(|j| (0.5 + j as f64) * f64::from(rounded.steps[n - 1 - j]) / 2.0).sum::<f64>();
                assert!((f64::from(y[c]) - want).abs() <= off + 1e-4, "{n} {d}: {} {want}", y[c]);
            }
            let features: Vec<u32> = (0..n as u32).rev().collect();
            let mut out = vec![0f32; n];
            rounded.dot(rounded.row(0), rounded.steps[0], &features, &mut out);
            for (got, &f) in out.iter().zip(&features) {
                let (a, b) = (&rows[f as usize], &rows[0]);
                let want: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                let size = f64::from(dot(a, a) * dot(b, b)).sqrt();
                assert!((f64::from(*got) - want).abs() <= 5e-5 * size, "{n} {d}: {got} {want}");
            }
        }
    }
}
