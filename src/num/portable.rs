//! The kernels in plain Rust: the oracle of the fast ones, and what runs where those do not.
//!
//! Sums run in 16 fixed lanes, so the compiler may keep them in vector registers (NEON, SSE, AVX) without having to
//! reorder floating-point additions, which it is not allowed to do by itself.

use super::q8_0::{self, Q8_0_BYTES, Q8_0_LEN};
use super::screen::{PANEL, TILE};
use half::{bf16, f16};

const LANES: usize = 16;

/// Σ decode(aᵢ)·xᵢ.
#[inline(always)]
fn dot_with<T: Copy>(a: &[T], x: &[f32], decode: impl Fn(T) -> f32) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for (a, x) in a_chunks.iter().zip(x_chunks) {
        for i in 0..LANES {
            lanes[i] += decode(a[i]) * x[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(x_rest).map(|(&a, &x)| decode(a) * x).sum();
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn axpy_with<T: Copy>(c: f32, a: &[T], y: &mut [f32], decode: impl Fn(T) -> f32) {
    for (y, &a) in y.iter_mut().zip(a) {
        *y += c * decode(a);
    }
}

pub(super) fn dot(a: &[f32], x: &[f32]) -> f32 {
    dot_with(a, x, |v| v)
}

pub(super) fn dot_f16(a: &[u16], x: &[f32]) -> f32 {
    dot_with(a, x, |v| f16::from_bits(v).to_f32())
}

pub(super) fn dot_bf16(a: &[u16], x: &[f32]) -> f32 {
    dot_with(a, x, |v| bf16::from_bits(v).to_f32())
}

pub(super) fn dot_q8_0(a: &[u8], x: &[f32]) -> f32 {
    let (blocks, x_blocks) = (a.as_chunks::<Q8_0_BYTES>().0, x.as_chunks::<Q8_0_LEN>().0);
    let mut lanes = [0f32; LANES];
    for (block, x) in blocks.iter().zip(x_blocks) {
        let (scale, quants) = q8_0::split(block);
        for half in [0, LANES] {
            for i in 0..LANES {
                lanes[i] += scale * (f32::from(quants[half + i].cast_signed()) * x[half + i]);
            }
        }
    }
    lanes.iter().sum()
}

/// Σ_b d_b·(q_b·x_b) and Σ_b |d_b|·weight_b.
pub(super) fn estimate_q8_0(a: &[u8], x: &[[i16; Q8_0_LEN]], weights: &[f32]) -> (f32, f32) {
    let (mut sum, mut reach) = (0.0, 0.0);
    for ((block, x), weight) in a.as_chunks::<Q8_0_BYTES>().0.iter().zip(x).zip(weights) {
        let (scale, quants) = q8_0::split(block);
        let product = |(&q, &x): (&u8, &i16)| i32::from(q.cast_signed()) * i32::from(x);
        sum += scale * quants.iter().zip(x).map(product).sum::<i32>() as f32;
        reach += scale.abs() * weight;
    }
    (sum, reach)
}

pub(super) fn axpy(c: f32, a: &[f32], y: &mut [f32]) {
    axpy_with(c, a, y, |v| v);
}

/// Eight rows, one after the other.
pub(super) fn dot8(rows: &[f32], x: &[f32]) -> [f32; 8] {
    std::array::from_fn(|i| dot(&rows[i * x.len()..][..x.len()], x))
}

pub(super) fn axpy8(c: &[f32; 8], rows: &[f32], y: &mut [f32]) {
    for (i, &c) in c.iter().enumerate() {
        axpy(c, &rows[i * y.len()..][..y.len()], y);
    }
}

pub(super) fn axpy_f16(c: f32, a: &[u16], y: &mut [f32]) {
    axpy_with(c, a, y, |v| f16::from_bits(v).to_f32());
}

pub(super) fn axpy_bf16(c: f32, a: &[u16], y: &mut [f32]) {
    axpy_with(c, a, y, |v| bf16::from_bits(v).to_f32());
}

pub(super) fn axpy_q8_0(c: f32, a: &[u8], y: &mut [f32]) {
    let (blocks, y_blocks) = (a.as_chunks::<Q8_0_BYTES>().0, y.as_chunks_mut::<Q8_0_LEN>().0);
    for (block, y) in blocks.iter().zip(y_blocks) {
        let (scale, quants) = q8_0::split(block);
        axpy_with(c * scale, quants, y, |v| f32::from(v.cast_signed()));
    }
}

/// Sums of products of pairs of 16-bit integers; that they fit is the caller's choice of rows.
pub(super) fn products(tile: &[[i32; TILE]], panel: &[[i32; PANEL]], out: &mut [[i32; PANEL]; TILE]) {
    let parts = |pair: i32| (i32::from(pair as i16), pair >> 16);
    *out = Default::default();
    for (rows, features) in tile.iter().zip(panel) {
        for (&pair, sums) in rows.iter().zip(out.iter_mut()) {
            let (low, high) = parts(pair);
            for (sum, &feature) in sums.iter_mut().zip(features) {
                let (feature_low, feature_high) = parts(feature);
                *sum = sum.wrapping_add(low * feature_low).wrapping_add(high * feature_high);
            }
        }
    }
}
