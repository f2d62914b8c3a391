//! Products of one row with rows of `q8_0` blocks in integers: half the work of products in `f32`, and with a bound on the
//! error that holds always, so that whoever looks for the few large ones computes only these exactly.
//!
//! A row a is rounded once to a = s·X + δ, X in 16 bits. With the scales d and quants q of the blocks b of the other row,
//! a·e = s·Σ_b d_b·(X_b·q_b) + Σ_b d_b·(δ_b·q_b), and the second sum is at most Σ_b |d_b|·128·‖δ_b‖₁: a product of the scales
//! with numbers that are known beforehand, block by block, so that an outlier of the row costs no precision in other blocks.
//! Where e was rounded to its blocks, by at most half a step of each, Σ_b |d_b|·‖a_b‖₁/2 comes on top.
//! The eight 32-bit sums of a block stay below 2²⁴, where `f32` is exact.

use super::cpu::Cpu;
use super::q8_0::{Q8_0_BYTES, Q8_0_LEN};

/// |X|.
const LARGEST: f32 = 32_766.0;
/// Rows without a larger entry are not rounded but counted as error: their step would underflow.
const SMALLEST: f32 = 1e-20;
/// What terms may lose that are too small for a normal `f32`.
const UNDERFLOW: f32 = 1e-38;
/// |error| beyond which sums could overflow on the way.
const OVERFLOW: f32 = 1e30;
/// |q|.
const QUANT: f32 = 128.0;
/// How far a value may be from one that [`round_q8_0`](super::round_q8_0) made of it, in steps of its scale.
pub(crate) const ROUNDED: f32 = 0.501;
/// Blocks whose scales fill a vector register: there are weights for whole registers.
const GROUP: usize = 8;

/// A row, rounded.
#[derive(Clone, Debug)]
pub(crate) struct Estimator {
    /// X.
    blocks: Vec<[i16; Q8_0_LEN]>,
    /// s.
    step: f32,
    /// By how much an error grows with the scale of each block.
    weights: Vec<f32>,
    /// What it is at least.
    least: f32,
}

impl Estimator {
    /// Of the row `a`, filled up with zeros to whole blocks, for rows that are known but for an `error` in steps of their
    /// scales: 0, or [`ROUNDED`]. None if an entry of `a` is not finite: then nothing can be told.
    pub(crate) fn new(a: &[f32], error: f32) -> Option<Self> {
        let n_blocks = a.len().div_ceil(Q8_0_LEN);
        // What an exact product in `f32`, in any order of ours, and the estimate may lose of Σ|aⱼ·eⱼ|, and as much again.
        let slack = (3 * n_blocks + 64) as f32 * f32::EPSILON;
        let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
        if !a.iter().all(|v| v.is_finite()) {
            return None;
        }
        let (inverse, step) = if largest < SMALLEST { (0.0, 0.0) } else { (LARGEST / largest, largest / LARGEST) };
        let mut blocks = vec![[0; Q8_0_LEN]; n_blocks];
        let mut weights = vec![0.0; n_blocks.next_multiple_of(GROUP)];
        for ((values, block), weight) in a.chunks(Q8_0_LEN).zip(&mut blocks).zip(&mut weights) {
            let (mut lost, mut sum) = (0.0, 0.0);
            for (&v, x) in values.iter().zip(block) {
                let rounded = (v * inverse).round_ties_even();
                *x = rounded as i16;
                lost += (v - rounded * step).abs();
                sum += v.abs();
            }
            *weight = 1.001 * (QUANT * (lost + slack * sum) + error * sum);
        }
        Some(Self { blocks, step, weights, least: if largest > 0.0 { UNDERFLOW } else { 0.0 } })
    }

    /// a·e for a row e of `q8_0` blocks, and how far from it the product may be that `f32` gives, in whatever order it sums;
    /// NaN if that cannot be told.
    ///
    /// # Panics
    /// If the row has another number of blocks.
    #[inline]
    pub(crate) fn estimate(&self, row: &[u8]) -> (f32, f32) {
        assert_eq!(row.len(), self.blocks.len() * Q8_0_BYTES, "a row of q8_0 blocks of the same width");
        self.estimate_on(Cpu::detect(), row)
    }

    #[inline]
    fn estimate_on(&self, cpu: Cpu, row: &[u8]) -> (f32, f32) {
        let (sum, reach) = cpu.estimate_q8_0(row, &self.blocks, &self.weights);
        let reach = reach + self.least;
        (sum * self.step, if reach < OVERFLOW { reach } else { f32::NAN })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{dot, dot_q8_0, quantize_q8_0, rng, round_q8_0};
    use super::*;
    use half::f16;
    use rand::Rng;

    const SIZES: [usize; 8] = [0, 1, 3, 4, 7, 8, 72, 133];

    fn random(n: usize, seed: u64, scale: f32) -> Vec<f32> {
        let mut rng = rng(seed);
        (0..n).map(|_| rng.random_range(-scale..scale)).collect()
    }

    fn quantized(row: &[f32]) -> Vec<u8> {
        let mut out = Vec::new();
        quantize_q8_0(row, &mut out);
        out
    }

    fn check(a: &[f32], row: &[u8], what: &str) {
        let estimator = Estimator::new(a, 0.0).unwrap();
        for cpu in Cpu::all() {
            let (z, reach) = estimator.estimate_on(cpu, row);
            for exact in Cpu::all().iter().map(|cpu| cpu.dot_q8_0(row, a)) {
                assert!(reach.is_nan() || (z - exact).abs() <= reach, "{cpu:?} {what}: {z} for {exact}, reach {reach}");
            }
        }
    }

    #[test]
    fn the_error_stays_within_its_bound() {
        for n in SIZES.map(|n| n * Q8_0_LEN) {
            for scale in [1e-30, 1e-20, 1e-3, 1.0, 1e4, 1e25] {
                let (mut a, e) = (random(n, 1, scale), quantized(&random(n, 2, 1.0)));
                check(&a, &e, &format!("n {n}, scale {scale}"));
                if n > 0 {
                    a[n / 2] = 3e3 * scale;
                    check(&a, &e, &format!("n {n}, scale {scale}, with an outlier"));
                    check(&a, &quantized(&a.iter().map(|v| v / scale).collect::<Vec<_>>()), "the same row");
                }
            }
        }
    }

    #[test]
    fn of_rounded_rows_too() {
        for n in [1, 31, 32, 33, 576, 2304, 2305] {
            for scale in [1e-30, 1e-7, 1e-3, 1.0, 1e5] {
                let (a, mut e) = (random(n, 1, 3.0), random(n, 2, scale));
                e[n / 2] = 50.0 * scale;
                for e in [e, vec![0.0; n], a.iter().map(|v| v * scale).collect()] {
                    let mut row = Vec::new();
                    round_q8_0(&e, &mut row);
                    let (z, reach) = Estimator::new(&a, ROUNDED).unwrap().estimate(&row);
                    let exact = dot(&a, &e);
                    assert!((z - exact).abs() <= reach, "n {n}, scale {scale}: {z} for {exact}, reach {reach}");
                }
            }
        }
        let (a, e) = (random(2304, 3, 1.0), random(2304, 4, 0.05));
        let mut row = Vec::new();
        round_q8_0(&e, &mut row);
        let reach = Estimator::new(&a, ROUNDED).unwrap().estimate(&row).1;
        let deviation = crate::num::norm(&a) * crate::num::norm(&e) / 48.0;
        assert!(reach < 0.35 * deviation, "{}", reach / deviation);
    }

    #[test]
    fn both_sums_are_exact_where_they_can_be() {
        // Powers of two as scales, and x a multiple of the step, so that nothing is lost.
        for n_blocks in SIZES.into_iter().filter(|&n| n > 0) {
            let mut rng = rng(3);
            let mut row = Vec::new();
            for b in 0..n_blocks {
                row.extend(f16::from_f32([0.5, -2.0, 0.0][b % 3]).to_le_bytes());
                row.extend((0..Q8_0_LEN).map(|_| rng.random::<u8>()));
            }
            let x: Vec<[i16; Q8_0_LEN]> =
                (0..n_blocks).map(|_| std::array::from_fn(|_| rng.random_range(-100..100))).collect();
            let weights: Vec<f32> = (0..n_blocks.next_multiple_of(GROUP)).map(|b| b as f32).collect();
            let (mut sum, mut reach) = (0i64, 0i64);
            for (b, (block, x)) in row.as_chunks::<Q8_0_BYTES>().0.iter().zip(&x).enumerate() {
                let twice = [1, -4, 0][b % 3];
                let product = |(&q, &x): (&u8, &i16)| i64::from(q.cast_signed()) * i64::from(x);
                sum += twice * block[2..].iter().zip(x).map(product).sum::<i64>();
                reach += twice.abs() * b as i64;
            }
            for cpu in Cpu::all() {
                let (found, at_most) = cpu.estimate_q8_0(&row, &x, &weights);
                assert_eq!((found, at_most), (sum as f32 / 2.0, reach as f32 / 2.0), "{cpu:?}, {n_blocks} blocks");
            }
        }
    }

    #[test]
    fn the_largest_integers_are_exact() {
        let mut row = f16::from_f32(1.0).to_le_bytes().to_vec();
        row.extend([128u8; Q8_0_LEN]);
        let x = [[-32_766i16; Q8_0_LEN]];
        for cpu in Cpu::all() {
            assert_eq!(cpu.estimate_q8_0(&row, &x, &[0.0; GROUP]).0, (128 * 32_766 * 32) as f32, "{cpu:?}");
        }
    }

    #[test]
    fn the_reach_is_small_beside_outliers_too() {
        let mut a = random(2304, 4, 1.0);
        let e = random(2304, 5, 1.0);
        let row = quantized(&e);
        let deviation = |a: &[f32]| crate::num::norm(a) * crate::num::norm(&e) / 48.0;
        let reach = Estimator::new(&a, 0.0).unwrap().estimate(&row).1;
        assert!(reach < 0.005 * deviation(&a), "{}", reach / deviation(&a));
        a[7] = 1000.0;
        let reach = Estimator::new(&a, 0.0).unwrap().estimate(&row).1;
        assert!(reach < 0.05 * deviation(&a), "{}", reach / deviation(&a));
    }

    #[test]
    fn what_is_not_finite_cannot_be_told() {
        for v in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(Estimator::new(&[1.0, v], 0.0).is_none());
        }
        for scale in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
            for at in [0, 1] {
                let mut row = quantized(&random(64, 6, 1.0));
                row[at * Q8_0_BYTES..][..2].copy_from_slice(&scale.to_le_bytes());
                for a in [random(64, 7, 1.0), vec![0.0; 64]] {
                    let estimator = Estimator::new(&a, 0.0).unwrap();
                    assert!(Cpu::all().into_iter().all(|cpu| estimator.estimate_on(cpu, &row).1.is_nan()));
                }
            }
        }
        let huge = Estimator::new(&[3e38; 64], 0.0).unwrap();
        let row = quantized(&[3e6; 64]);
        assert!(huge.estimate(&row).1.is_nan() && dot_q8_0(&row, &[3e38; 64]).is_infinite());
        assert_eq!(Estimator::new(&[0.0; 64], 0.0).unwrap().estimate(&row), (0.0, 0.0));
    }
}
