//! The kernels for x86-64 with AVX2, FMA and F16C: four accumulators of eight lanes, unaligned loads.
#![cfg(target_arch = "x86_64")]

use super::portable;
use super::q8_0::{Q8_0_BYTES, Q8_0_LEN};
use super::screen::{PANEL, TILE};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX2, FMA and F16C: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        let present =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }
}

macro_rules! entries {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {
        impl Avx2 {
            $(
                #[inline]
                pub(super) fn $name(self, $($arg: $type),*) $(-> $out)? {
                    // SAFETY: `self` proves that the CPU has the three features.
                    unsafe { $name($($arg),*) }
                }
            )*
        }
    };
}

entries! {
    fn dot(a: &[f32], x: &[f32]) -> f32;
    fn dot_f16(a: &[u16], x: &[f32]) -> f32;
    fn dot_bf16(a: &[u16], x: &[f32]) -> f32;
    fn dot_q8_0(a: &[u8], x: &[f32]) -> f32;
    fn estimate_q8_0(a: &[u8], x: &[[i16; Q8_0_LEN]], weights: &[f32]) -> (f32, f32);
    fn axpy(c: f32, a: &[f32], y: &mut [f32]);
    fn dot8(rows: &[f32], x: &[f32]) -> [f32; 8];
    fn axpy8(c: &[f32; 8], rows: &[f32], y: &mut [f32]);
    fn axpy_f16(c: f32, a: &[u16], y: &mut [f32]);
    fn axpy_bf16(c: f32, a: &[u16], y: &mut [f32]);
    fn axpy_q8_0(c: f32, a: &[u8], y: &mut [f32]);
    fn products(tile: &[[i32; TILE]], panel: &[[i32; PANEL]], out: &mut [[i32; PANEL]; TILE]);
}

const LANES: usize = 8;
const UNROLL: usize = 4;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(from: &[f32; LANES]) -> __m256 {
    // SAFETY: the array is 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(to: &mut [f32; LANES], v: __m256) {
    // SAFETY: the array is 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_16bit(from: &[u16; LANES]) -> __m128i {
    // SAFETY: the array is 16 readable bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_f16(from: &[u16; LANES]) -> __m256 {
    _mm256_cvtph_ps(load_16bit(from))
}

/// A bf16 is the upper half of an f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_bf16(from: &[u16; LANES]) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_16bit(from))))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_i8(from: &[u8; LANES]) -> __m256 {
    // SAFETY: the array is 8 readable bytes; the load needs no alignment.
    let bytes = unsafe { _mm_loadl_epi64(from.as_ptr().cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_i8_as_i16(from: &[u8; 2 * LANES]) -> __m256i {
    // SAFETY: the array is 16 readable bytes; the load needs no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_i16(from: &[i16; 2 * LANES]) -> __m256i {
    // SAFETY: the array is 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_all(v: [__m256; UNROLL]) -> f32 {
    sum(_mm256_add_ps(_mm256_add_ps(v[0], v[1]), _mm256_add_ps(v[2], v[3])))
}

/// Asks for what lies two kilobytes behind `from`: the processor itself looks ahead no further than to the end of a page, and
/// rows of a dictionary follow each other through many.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
#[allow(unused_unsafe)] // The oldest Rust that this builds with counts a prefetch as unsafe.
fn look_ahead<T>(from: &T) {
    const AHEAD: usize = 2048;
    let at = std::ptr::from_ref(from).cast::<i8>().wrapping_add(AHEAD);
    // SAFETY: a prefetch reads nothing and never faults, wherever it points.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
}

macro_rules! dot_of {
    ($name:ident, $type:ty, $load:ident) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $name(a: &[$type], x: &[f32]) -> f32 {
            let (a_chunks, a_rest) = a.as_chunks::<LANES>();
            let (x_chunks, x_rest) = x.as_chunks::<LANES>();
            let (a_groups, a_chunks) = a_chunks.as_chunks::<UNROLL>();
            let (x_groups, x_chunks) = x_chunks.as_chunks::<UNROLL>();
            let mut sums = [_mm256_setzero_ps(); UNROLL];
            for (a, x) in a_groups.iter().zip(x_groups) {
                look_ahead(&a[0]);
                look_ahead(&a[UNROLL / 2]);
                for i in 0..UNROLL {
                    sums[i] = _mm256_fmadd_ps($load(&a[i]), load(&x[i]), sums[i]);
                }
            }
            for (a, x) in a_chunks.iter().zip(x_chunks) {
                sums[0] = _mm256_fmadd_ps($load(a), load(x), sums[0]);
            }
            sum_all(sums) + portable::$name(a_rest, x_rest)
        }
    };
}

dot_of!(dot, f32, load);
dot_of!(dot_f16, u16, load_f16);
dot_of!(dot_bf16, u16, load_bf16);

/// The scale and the quants of a block. `half` would ask for every number anew what the CPU can do.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn split_q8_0(block: &[u8; Q8_0_BYTES]) -> (f32, &[[u8; LANES]]) {
    let [low, high, quants @ ..] = block;
    let bits = _mm_cvtsi32_si128(i32::from(u16::from_le_bytes([*low, *high])));
    (_mm_cvtss_f32(_mm_cvtph_ps(bits)), quants.as_chunks::<LANES>().0)
}

/// Two sums, of the blocks of even and of odd places.
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_q8_0(a: &[u8], x: &[f32]) -> f32 {
    let (blocks, x_blocks) = (a.as_chunks::<Q8_0_BYTES>().0, x.as_chunks::<Q8_0_LEN>().0);
    let mut sums = [_mm256_setzero_ps(); 2];
    for (blocks, x_blocks) in blocks.chunks(2).zip(x_blocks.chunks(2)) {
        for ((block, x), sum) in blocks.iter().zip(x_blocks).zip(&mut sums) {
            look_ahead(block);
            let ((scale, q), x) = (split_q8_0(block), x.as_chunks::<LANES>().0);
            let first = _mm256_fmadd_ps(load_i8(&q[1]), load(&x[1]), _mm256_mul_ps(load_i8(&q[0]), load(&x[0])));
            let second = _mm256_fmadd_ps(load_i8(&q[3]), load(&x[3]), _mm256_mul_ps(load_i8(&q[2]), load(&x[2])));
            *sum = _mm256_fmadd_ps(_mm256_set1_ps(scale), _mm256_add_ps(first, second), *sum);
        }
    }
    sum(_mm256_add_ps(sums[0], sums[1]))
}

/// The products of a block in eight sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn block_products(block: &[u8; Q8_0_BYTES], x: &[i16; Q8_0_LEN]) -> __m256 {
    const HALF: usize = Q8_0_LEN / 2;
    let [_, _, quants @ ..] = block;
    let (quants, x) = (quants.as_chunks::<HALF>().0, x.as_chunks::<HALF>().0);
    let half = |i: usize| _mm256_madd_epi16(load_i8_as_i16(&quants[i]), load_i16(&x[i]));
    _mm256_cvtepi32_ps(_mm256_add_epi32(half(0), half(1)))
}

/// The bits of four scales. They are put together in one register: a store of each and a load of all would wait for each
/// other.
#[inline(always)]
fn scale_bits(blocks: &[[u8; Q8_0_BYTES]; 4]) -> i64 {
    let bits = |i: usize| u64::from(u16::from_le_bytes([blocks[i][0], blocks[i][1]])) << (16 * i);
    (bits(0) | bits(1) | bits(2) | bits(3)).cast_signed()
}

/// Scales are converted eight at a time before the products of their blocks, which then load each into all lanes.
#[target_feature(enable = "avx2,fma,f16c")]
fn estimate_q8_0(a: &[u8], x: &[[i16; Q8_0_LEN]], weights: &[f32]) -> (f32, f32) {
    const LINE: usize = 64;
    let sign = _mm256_set1_ps(-0.0);
    let (mut sums, mut reach) = ([_mm256_setzero_ps(); UNROLL], _mm256_setzero_ps());
    let mut scales = [0f32; LANES];
    let (groups, rest) = a.as_chunks::<Q8_0_BYTES>().0.as_chunks::<LANES>();
    let (x_groups, x_rest) = x.as_chunks::<LANES>();
    let weights = weights.as_chunks::<LANES>().0;
    for ((blocks, x), weights) in groups.iter().zip(x_groups).zip(weights) {
        let bytes = blocks.as_flattened();
        for line in 0..LANES * Q8_0_BYTES / LINE {
            look_ahead(&bytes[line * LINE]);
        }
        let (halves, _) = blocks.as_chunks::<4>();
        let eight = _mm256_cvtph_ps(_mm_set_epi64x(scale_bits(&halves[1]), scale_bits(&halves[0])));
        reach = _mm256_fmadd_ps(_mm256_andnot_ps(sign, eight), load(weights), reach);
        store(&mut scales, eight);
        for i in 0..LANES {
            let products = block_products(&blocks[i], &x[i]);
            sums[i % UNROLL] = _mm256_fmadd_ps(_mm256_set1_ps(scales[i]), products, sums[i % UNROLL]);
        }
    }
    let mut last = 0.0;
    for ((block, x), weight) in rest.iter().zip(x_rest).zip(weights.get(groups.len()).into_iter().flatten()) {
        let scale = split_q8_0(block).0;
        last += scale.abs() * weight;
        sums[0] = _mm256_fmadd_ps(_mm256_set1_ps(scale), block_products(block, x), sums[0]);
    }
    (sum_all(sums), sum(reach) + last)
}

/// The sums of the lanes of eight registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_each(v: [__m256; 8]) -> [f32; 8] {
    let low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    let high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    let mut sums = [0.0; LANES];
    store(
        &mut sums,
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)),
    );
    sums
}

/// x is loaded once for eight rows: nine loads for eight products, where eight single dots need sixteen.
#[target_feature(enable = "avx2,fma,f16c")]
fn dot8(rows: &[f32], x: &[f32]) -> [f32; 8] {
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let row = |i: usize| &rows[i * x.len()..][..x.len()];
    let chunks: [&[[f32; LANES]]; 8] = std::array::from_fn(|i| &row(i).as_chunks::<LANES>().0[..x_chunks.len()]);
    let mut sums = [_mm256_setzero_ps(); 8];
    for (k, x) in x_chunks.iter().enumerate() {
        let x = load(x);
        for i in 0..8 {
            sums[i] = _mm256_fmadd_ps(load(&chunks[i][k]), x, sums[i]);
        }
    }
    let mut sums = sum_each(sums);
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum += portable::dot(row(i).as_chunks::<LANES>().1, x_rest);
    }
    sums
}

/// y is loaded and stored once for eight rows.
#[target_feature(enable = "avx2,fma,f16c")]
fn axpy8(c: &[f32; 8], rows: &[f32], y: &mut [f32]) {
    let len = y.len();
    let (y_chunks, y_rest) = y.as_chunks_mut::<LANES>();
    let row = |i: usize| &rows[i * len..][..len];
    let chunks: [&[[f32; LANES]]; 8] = std::array::from_fn(|i| &row(i).as_chunks::<LANES>().0[..y_chunks.len()]);
    let factors: [__m256; 8] = c.map(|c| _mm256_set1_ps(c));
    for (k, y) in y_chunks.iter_mut().enumerate() {
        let mut sum = load(y);
        for i in 0..8 {
            sum = _mm256_fmadd_ps(factors[i], load(&chunks[i][k]), sum);
        }
        store(y, sum);
    }
    for (i, &c) in c.iter().enumerate() {
        portable::axpy(c, row(i).as_chunks::<LANES>().1, y_rest);
    }
}

macro_rules! axpy_of {
    ($name:ident, $type:ty, $load:ident) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $name(c: f32, a: &[$type], y: &mut [f32]) {
            let (a_chunks, a_rest) = a.as_chunks::<LANES>();
            let (y_chunks, y_rest) = y.as_chunks_mut::<LANES>();
            let factor = _mm256_set1_ps(c);
            for (a, y) in a_chunks.iter().zip(y_chunks) {
                let sum = _mm256_fmadd_ps(factor, $load(a), load(y));
                store(y, sum);
            }
            portable::$name(c, a_rest, y_rest);
        }
    };
}

axpy_of!(axpy, f32, load);
axpy_of!(axpy_f16, u16, load_f16);
axpy_of!(axpy_bf16, u16, load_bf16);

#[target_feature(enable = "avx2,fma,f16c")]
fn axpy_q8_0(c: f32, a: &[u8], y: &mut [f32]) {
    let (blocks, y_blocks) = (a.as_chunks::<Q8_0_BYTES>().0, y.as_chunks_mut::<Q8_0_LEN>().0);
    for (block, y) in blocks.iter().zip(y_blocks) {
        let (scale, quants) = split_q8_0(block);
        let factor = _mm256_set1_ps(c * scale);
        for (quants, y) in quants.iter().zip(y.as_chunks_mut::<LANES>().0) {
            let sum = _mm256_fmadd_ps(factor, load_i8(quants), load(y));
            store(y, sum);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_i32(from: &[i32; LANES]) -> __m256i {
    // SAFETY: the array is 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store_i32(to: &mut [i32; LANES], v: __m256i) {
    // SAFETY: the array is 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
}

/// Twelve sums of eight lanes: one product and one addition for sixteen pairs of entries.
#[target_feature(enable = "avx2,fma,f16c")]
fn products(tile: &[[i32; TILE]], panel: &[[i32; PANEL]], out: &mut [[i32; PANEL]; TILE]) {
    let mut sums = [[_mm256_setzero_si256(); 2]; TILE];
    for (row, pairs) in tile.iter().zip(panel) {
        let halves = pairs.as_chunks::<LANES>().0;
        let (low, high) = (load_i32(&halves[0]), load_i32(&halves[1]));
        for r in 0..TILE {
            let pair = _mm256_set1_epi32(row[r]);
            sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(pair, low));
            sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(pair, high));
        }
    }
    for (out, sums) in out.iter_mut().zip(&sums) {
        for (out, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            store_i32(out, *sum);
        }
    }
}
