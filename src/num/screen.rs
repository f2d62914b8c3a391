//! Products of many rows with many rows in 16-bit integers: more than twice as fast as in `f32`, and with a bound on the
//! error that holds always, so that whoever looks for the few large ones computes only these exactly.
//!
//! A row v is rounded to v ≈ s·q, q in 16 bits. The products q·q' are summed in 32 bits; by Cauchy and Schwarz no partial
//! sum leaves them while ‖q‖·‖q'‖ < 2³¹, so the step s is chosen by the norm, as far as the largest entry lets
//! [Strassen](super::strassen) add up four. With v = s·q + δ,
//! |v·v' − ss'·q·q'| ≤ ‖δ‖·‖v'‖ + ‖s·q‖·‖δ'‖ ([`Rounded::reach`]), some hundredths of ‖v‖·‖v'‖/√d for rows of width d.
//!
//! Two neighbouring entries lie in one `i32`, the unit of the multiply-add of every instruction set; features lie in panels
//! of [`PANEL`] and rows in tiles of [`TILE`], entry pair by entry pair, as the multiplication reads them.

use super::cpu::Cpu;
use super::strassen::LARGEST;

/// Features of a panel.
pub(crate) const PANEL: usize = 16;
/// Rows that are multiplied with a panel at once.
pub(crate) const TILE: usize = 6;
/// ‖q‖ below which two rows' products stay in 31 bits: √2³¹.
const LARGEST_NORM: f64 = 46_340.0;
/// Rows shorter than this are not rounded but counted as error: their step would underflow.
const SHORTEST: f32 = 1e-12;

/// What is known of a row beside its integers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rounded {
    /// s.
    pub(crate) step: f32,
    /// At least ‖v‖ and ‖s·q‖; infinite if an entry is not finite.
    pub(crate) norm: f32,
    /// At least ‖v − s·q‖, and what `f32` sums may lose.
    pub(crate) error: f32,
}

impl Rounded {
    /// How far the product of two rows, in whatever order `f32` sums it, may be from that of their integers. NaN or
    /// infinite if that cannot be told.
    #[cfg(test)]
    fn reach(self, other: Self) -> f32 {
        self.error * other.norm + self.norm * other.error
    }
}

/// Entry pairs of a row of width `d`.
pub(crate) fn n_pairs(d: usize) -> usize {
    d.div_ceil(2)
}

/// Rounds `row` to `out` `[n_pairs(d)]`.
pub(crate) fn round(row: &[f32], out: &mut [i32]) -> Rounded {
    const LANES: usize = 16;
    /// 1.5·2²³: added and taken away, it rounds what is below 2²² to the nearest integer.
    const MAGIC: f32 = 12_582_912.0;
    debug_assert_eq!(out.len(), n_pairs(row.len()));
    let d = row.len() as f64;
    // What sums of squares in 16 lanes, sums of products, and single operations lose, relatively.
    let slack = ((d / 16.0 + 16.0) * f64::from(f32::EPSILON)) as f32;
    let (chunks, rest) = row.as_chunks::<LANES>();
    let (mut squares, mut largest) = ([0f32; LANES], [0f32; LANES]);
    for chunk in chunks {
        for i in 0..LANES {
            squares[i] += chunk[i] * chunk[i];
            largest[i] = if chunk[i].abs() > largest[i] { chunk[i].abs() } else { largest[i] };
        }
    }
    let max = largest.iter().chain(rest.iter()).fold(0f32, |m, v| m.max(v.abs()));
    let sum = squares.iter().sum::<f32>() + rest.iter().map(|v| v * v).sum::<f32>();
    let norm = sum.sqrt() * (1.0 + slack);
    if !norm.is_finite() {
        out.fill(0);
        return Rounded { step: 0.0, norm: f32::INFINITY, error: f32::INFINITY };
    }
    if norm < SHORTEST {
        out.fill(0);
        let norm = max * (d.sqrt() * 1.001) as f32;
        return Rounded { step: 0.0, norm, error: norm };
    }
    // Rounding moves ‖q‖ by √d/2 at most.
    let room = (LARGEST_NORM - d.sqrt() / 2.0 - 2.0).max(0.0) * 0.999;
    let inverse = ((room / f64::from(norm)) as f32).min(LARGEST / max);
    let step = 1.0 / inverse;
    let mut errors = [0f32; LANES];
    let (halves, last) = out.split_at_mut(chunks.len() * LANES / 2);
    for (chunk, out) in chunks.iter().zip(halves.as_chunks_mut::<{ LANES / 2 }>().0) {
        let mut q = [0i32; LANES];
        for i in 0..LANES {
            let rounded = chunk[i] * inverse + MAGIC;
            q[i] = rounded.to_bits() as i32;
            let error = chunk[i] - (rounded - MAGIC) * step;
            errors[i] += error * error;
        }
        // The low 16 bits of the mantissa are those of the integer, in two's complement.
        for i in 0..LANES / 2 {
            out[i] = (q[2 * i] & 0xffff) | (q[2 * i + 1] << 16);
        }
    }
    let mut error = errors.iter().sum::<f32>();
    for (pair, out) in rest.chunks(2).zip(last) {
        let mut q = [0i32; 2];
        for (v, q) in pair.iter().zip(&mut q) {
            let rounded = v * inverse + MAGIC;
            *q = rounded.to_bits() as i32;
            error += (v - (rounded - MAGIC) * step).powi(2);
        }
        *out = (q[0] & 0xffff) | (q[1] << 16);
    }
    let error = error.sqrt() * (1.0 + slack) + norm * slack;
    Rounded { step, norm: norm + error, error }
}

/// Lays up to [`PANEL`] rounded rows, `rows` `[n, pairs]`, out as a panel `[pairs]`; what is missing counts as zeros.
pub(crate) fn pack(rows: &[i32], pairs: usize, panel: &mut [[i32; PANEL]]) {
    lay_out(rows, pairs, panel);
}

/// Lays up to [`TILE`] rounded rows, `rows` `[n, pairs]`, out as a tile `[pairs]`; what is missing counts as zeros.
pub(crate) fn interleave(rows: &[i32], pairs: usize, tile: &mut [[i32; TILE]]) {
    lay_out(rows, pairs, tile);
}

fn lay_out<const N: usize>(rows: &[i32], pairs: usize, out: &mut [[i32; N]]) {
    debug_assert_eq!(out.len(), pairs);
    if rows.len() < N * pairs {
        out.iter_mut().for_each(|p| *p = [0; N]);
    }
    for (i, row) in rows.chunks_exact(pairs.max(1)).enumerate() {
        for (out, &pair) in out.iter_mut().zip(row) {
            out[i] = pair;
        }
    }
}

/// Σ q·q' of the rows of a tile with the features of a panel, over some of their entry pairs.
#[inline]
pub(crate) fn products(tile: &[[i32; TILE]], panel: &[[i32; PANEL]], out: &mut Sums) {
    assert_eq!(tile.len(), panel.len(), "tile and panel have the same width");
    Cpu::detect().products(tile, panel, out);
}

/// Of the rows of a tile with the features of a panel.
pub(crate) type Sums = [[i32; PANEL]; TILE];

#[cfg(test)]
mod tests {
    use super::super::{dot, rng};
    use super::*;
    use rand::Rng;

    fn check(a: &[f32], e: &[f32], what: &str) {
        let pairs = n_pairs(a.len());
        let (mut qa, mut qe) = (vec![0; pairs], vec![0; pairs]);
        let (ra, re) = (round(a, &mut qa), round(e, &mut qe));
        let mut panel = vec![[0; PANEL]; pairs];
        let rows: Vec<i32> = std::iter::repeat_n(qe.as_slice(), PANEL).flatten().copied().collect();
        pack(&rows, pairs, &mut panel);
        let mut tile = vec![[0; TILE]; pairs];
        interleave(&qa.repeat(TILE), pairs, &mut tile);
        for cpu in Cpu::all() {
            let mut sums = [[7; PANEL]; TILE];
            cpu.products(&tile, &panel, &mut sums);
            let value = sums[0][0] as f32 * (ra.step * re.step);
            let (exact, reach) = (dot(a, e), ra.reach(re));
            assert!(sums.as_flattened().iter().all(|&sum| sum == sums[0][0]), "{cpu:?} {what}");
            assert!((value - exact).abs() <= reach, "{cpu:?} {what}: {value} for {exact}, reach {reach}");
        }
    }

    #[test]
    fn the_error_stays_within_its_bound() {
        let mut random = rng(1);
        for n in [1, 2, 3, 15, 16, 17, 33, 64, 575, 576, 2304] {
            for scale in [1e-20f32, 1e-3, 1.0, 1e12] {
                let mut draw = || (0..n).map(|_| random.random_range(-scale..scale)).collect::<Vec<f32>>();
                let (a, e) = (draw(), draw());
                check(&a, &e, &format!("n {n}, scale {scale}"));
                check(&a, &a, &format!("n {n}, scale {scale}, the same row"));
            }
        }
    }

    #[test]
    fn outliers_and_constants_do_not_overflow() {
        for n in [1, 2, 100, 4096] {
            let mut spike = vec![0.01f32; n];
            spike[n / 2] = 1000.0;
            check(&spike, &spike, "a spike");
            check(&vec![-3.0; n], &vec![3.0; n], "constants");
            check(&vec![0.0; n], &spike, "zeros");
        }
    }

    #[test]
    fn the_reach_is_small() {
        let mut random = rng(2);
        let mut draw = || (0..2304).map(|_| random.random_range(-1f32..1.0)).collect::<Vec<f32>>();
        let (a, mut e) = (draw(), draw());
        let mut q = vec![0; 1152];
        let of = round(&a, &mut q);
        e[7] = 30.0;
        let with_outlier = round(&e, &mut q);
        // Of random rows the product has a deviation of ‖a‖·‖e‖/√d.
        let deviation = of.norm * with_outlier.norm / 48.0;
        assert!(of.reach(with_outlier) < 0.1 * deviation, "{}", of.reach(with_outlier) / deviation);
    }

    #[test]
    fn what_is_not_finite_has_no_bound() {
        for v in [f32::NAN, f32::INFINITY, 1e30] {
            let rounded = round(&[1.0, v, 2.0], &mut [0; 2]);
            assert_eq!(rounded.error, f32::INFINITY);
        }
    }

    #[test]
    fn pairs_are_the_integers() {
        // ‖q‖ is the limit; 3:−4 of it.
        let mut out = [0; 1];
        let rounded = round(&[3.0, -4.0], &mut out);
        let (low, high) = (i32::from(out[0] as i16), out[0] >> 16);
        assert!((low as f32 * rounded.step - 3.0).abs() < 1e-3 && (high as f32 * rounded.step + 4.0).abs() < 1e-3);
    }
}
