//! A stored row, and its products with `f32` vectors: decoded in registers, never copied.

use super::cpu::Cpu;
use super::q8_0::{self, Q8_0_BYTES, Q8_0_LEN};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A row of a matrix as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    /// Plain values.
    F32(&'a [f32]),
    /// Bits of IEEE half-precision numbers.
    F16(&'a [u16]),
    /// Bits of bfloat16 numbers.
    Bf16(&'a [u16]),
    /// Blocks of [`Q8_0_BYTES`] bytes for [`Q8_0_LEN`] values each.
    Q8_0(&'a [u8]),
    /// Blocks that somebody else decodes, some hundred values at a time.
    Coded(&'a [u8], &'a Coding),
}

/// How rows of a storage that has no kernels here are decoded.
pub struct Coding {
    block_len: usize,
    block_bytes: usize,
    decode: Decode,
}

/// Decodes whole blocks.
type Decode = Box<dyn Fn(&[u8], &mut [f32]) + Send + Sync>;

impl Coding {
    /// Values decoded at once, at least one block.
    const PIECE: usize = 256;

    /// Blocks of `block_len` values, at most 256, in `block_bytes` bytes; `decode` gets some of them and has to fill the
    /// other side.
    ///
    /// # Panics
    /// If a size is 0, or blocks are longer.
    pub fn new(
        block_len: usize,
        block_bytes: usize,
        decode: impl Fn(&[u8], &mut [f32]) + Send + Sync + 'static,
    ) -> Self {
        assert!((1..=Self::PIECE).contains(&block_len) && block_bytes > 0, "blocks of {block_len} values");
        Self { block_len, block_bytes, decode: Box::new(decode) }
    }

    /// Bytes of a row of `n` values; none if that is no whole number of blocks.
    pub fn row_bytes(&self, n: usize) -> Option<usize> {
        n.is_multiple_of(self.block_len).then(|| n / self.block_len).and_then(|n| n.checked_mul(self.block_bytes))
    }

    fn len(&self, row: &[u8]) -> usize {
        row.len() / self.block_bytes * self.block_len
    }

    /// Shows the row's values from `start` on, piece by piece.
    fn each_piece(&self, row: &[u8], mut each: impl FnMut(usize, &[f32])) {
        let blocks = Self::PIECE / self.block_len;
        let mut values = [0f32; Self::PIECE];
        for (i, bytes) in row.chunks(blocks * self.block_bytes).enumerate() {
            let values = &mut values[..self.len(bytes)];
            (self.decode)(bytes, values);
            each(i * blocks * self.block_len, values);
        }
    }
}

impl std::fmt::Debug for Coding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Coding({} values in {} bytes)", self.block_len, self.block_bytes)
    }
}

impl Row<'_> {
    /// The number of values.
    pub fn len(self) -> usize {
        match self {
            Self::F32(row) => row.len(),
            Self::F16(row) | Self::Bf16(row) => row.len(),
            Self::Q8_0(row) => row.len() / Q8_0_BYTES * Q8_0_LEN,
            Self::Coded(row, coding) => coding.len(row),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Σ rowᵢ·xᵢ.
    ///
    /// # Panics
    /// If the lengths differ; so do the other functions of this module.
    #[inline]
    pub fn dot(self, x: &[f32]) -> f32 {
        match self {
            Self::F32(row) => dot(row, x),
            Self::F16(row) => dot_f16(row, x),
            Self::Bf16(row) => dot_bf16(row, x),
            Self::Q8_0(row) => dot_q8_0(row, x),
            Self::Coded(row, coding) => {
                same_length(coding.len(row), x.len());
                let mut sum = 0.0;
                coding.each_piece(row, |at, values| sum += dot(values, &x[at..at + values.len()]));
                sum
            }
        }
    }

    /// y += c·row.
    #[inline]
    pub fn axpy(self, c: f32, y: &mut [f32]) {
        match self {
            Self::F32(row) => axpy(c, row, y),
            Self::F16(row) => axpy_f16(c, row, y),
            Self::Bf16(row) => axpy_bf16(c, row, y),
            Self::Q8_0(row) => axpy_q8_0(c, row, y),
            Self::Coded(row, coding) => {
                same_length(coding.len(row), y.len());
                coding.each_piece(row, |at, values| axpy(c, values, &mut y[at..at + values.len()]));
            }
        }
    }

    /// Writes the values to `out`.
    pub fn decode(self, out: &mut [f32]) {
        same_length(self.len(), out.len());
        match self {
            Self::F32(row) => out.copy_from_slice(row),
            Self::F16(row) => bytemuck::cast_slice::<u16, f16>(row).convert_to_f32_slice(out),
            Self::Bf16(row) => bytemuck::cast_slice::<u16, bf16>(row).convert_to_f32_slice(out),
            Self::Q8_0(row) => {
                let blocks = row.as_chunks::<Q8_0_BYTES>().0.iter();
                for (block, out) in blocks.zip(out.as_chunks_mut::<Q8_0_LEN>().0) {
                    let (scale, quants) = q8_0::split(block);
                    for (out, &q) in out.iter_mut().zip(quants) {
                        *out = scale * f32::from(q.cast_signed());
                    }
                }
            }
            Self::Coded(row, coding) => (coding.decode)(row, out),
        }
    }
}

#[inline]
#[track_caller]
fn same_length(row: usize, other: usize) {
    assert_eq!(row, other, "a row of {row} values meets a vector of {other}");
}

#[inline]
#[track_caller]
fn same_length_q8_0(row: usize, other: usize) {
    assert!(row.is_multiple_of(Q8_0_BYTES), "{row} bytes are no whole number of q8_0 blocks");
    same_length(row / Q8_0_BYTES * Q8_0_LEN, other);
}

/// Σ aᵢ·xᵢ.
#[inline]
pub fn dot(a: &[f32], x: &[f32]) -> f32 {
    same_length(a.len(), x.len());
    Cpu::detect().dot(a, x)
}

/// Σ rowᵢ·xᵢ over a row of half-precision bits.
#[inline]
pub fn dot_f16(row: &[u16], x: &[f32]) -> f32 {
    same_length(row.len(), x.len());
    Cpu::detect().dot_f16(row, x)
}

/// Σ rowᵢ·xᵢ over a row of bfloat16 bits.
#[inline]
pub fn dot_bf16(row: &[u16], x: &[f32]) -> f32 {
    same_length(row.len(), x.len());
    Cpu::detect().dot_bf16(row, x)
}

/// Σ rowᵢ·xᵢ over a row of `q8_0` blocks.
#[inline]
pub fn dot_q8_0(row: &[u8], x: &[f32]) -> f32 {
    same_length_q8_0(row.len(), x.len());
    Cpu::detect().dot_q8_0(row, x)
}

/// y += c·a.
#[inline]
pub fn axpy(c: f32, a: &[f32], y: &mut [f32]) {
    same_length(a.len(), y.len());
    Cpu::detect().axpy(c, a, y);
}

/// Σ rowᵢ·x for eight rows `[8, x.len()]`: twice as fast as eight times [`dot`].
#[inline]
pub fn dot8(rows: &[f32], x: &[f32]) -> [f32; 8] {
    same_length(rows.len(), 8 * x.len());
    Cpu::detect().dot8(rows, x)
}

/// y += Σ cᵢ·rowᵢ for eight rows `[8, y.len()]`, added in their order.
#[inline]
pub fn axpy8(c: &[f32; 8], rows: &[f32], y: &mut [f32]) {
    same_length(rows.len(), 8 * y.len());
    Cpu::detect().axpy8(c, rows, y);
}

/// y += c·row over a row of half-precision bits.
#[inline]
pub fn axpy_f16(c: f32, row: &[u16], y: &mut [f32]) {
    same_length(row.len(), y.len());
    Cpu::detect().axpy_f16(c, row, y);
}

/// y += c·row over a row of bfloat16 bits.
#[inline]
pub fn axpy_bf16(c: f32, row: &[u16], y: &mut [f32]) {
    same_length(row.len(), y.len());
    Cpu::detect().axpy_bf16(c, row, y);
}

/// y += c·row over a row of `q8_0` blocks.
#[inline]
pub fn axpy_q8_0(c: f32, row: &[u8], y: &mut [f32]) {
    same_length_q8_0(row.len(), y.len());
    Cpu::detect().axpy_q8_0(c, row, y);
}

#[cfg(test)]
mod tests {
    use super::super::{quantize_q8_0, rng};
    use super::*;
    use rand::Rng;

    /// Around the widths of lanes (8, 16), groups (32) and blocks (32), and real widths.
    const SIZES: [usize; 22] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 39, 40, 41, 63, 64, 65, 96, 576, 2304, 2305];
    /// Of a sum of n products: |error| ≤ tolerance · Σ|aᵢ·xᵢ|. Sixteen lanes keep the growth far below n·2⁻²⁴.
    const TOLERANCE: f64 = 4e-7;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = rng(seed);
        (0..n).map(|_| rng.random_range(-1f32..1.0)).collect()
    }

    fn check_dot(found: f32, a: &[f32], x: &[f32], what: &str) {
        let exact: f64 = a.iter().zip(x).map(|(&a, &x)| f64::from(a) * f64::from(x)).sum();
        let scale: f64 = a.iter().zip(x).map(|(&a, &x)| (f64::from(a) * f64::from(x)).abs()).sum();
        assert!((f64::from(found) - exact).abs() <= TOLERANCE * scale, "{what}, n {}: {found} for {exact}", a.len());
    }

    fn check_axpy(found: &[f32], c: f32, a: &[f32], y: &[f32], what: &str) {
        for i in 0..a.len() {
            let exact = f64::from(c) * f64::from(a[i]) + f64::from(y[i]);
            let scale = (f64::from(c) * f64::from(a[i])).abs() + f64::from(y[i].abs());
            assert!((f64::from(found[i]) - exact).abs() <= TOLERANCE * scale, "{what}, {i} of {}", a.len());
        }
    }

    /// The same row in all four storages: (name, values after rounding, dot, axpy), run with every kernel set at every
    /// start within a vector register.
    #[test]
    fn every_kernel_agrees_with_exact_sums() {
        for cpu in Cpu::all() {
            for n in SIZES {
                for start in [0, 1, 3, 8] {
                    let (a, x, y) = (random(n + start, 1), random(n + start, 2), random(n + start, 3));
                    let x = &x[start..];
                    let a16: Vec<u16> = a.iter().map(|&v| f16::from_f32(v).to_bits()).collect();
                    let ab16: Vec<u16> = a.iter().map(|&v| bf16::from_f32(v).to_bits()).collect();
                    let decoded = |row: Row<'_>| {
                        let mut out = vec![0.0; row.len()];
                        row.decode(&mut out);
                        out
                    };
                    let name = |kernel| format!("{cpu:?} {kernel} from {start}");
                    let c = -1.75;

                    let plain = &a[start..];
                    check_dot(cpu.dot(plain, x), plain, x, &name("dot"));
                    let mut out = y.clone();
                    cpu.axpy(c, plain, &mut out[start..]);
                    check_axpy(&out[start..], c, plain, &y[start..], &name("axpy"));

                    let row = &a16[start..];
                    let values = decoded(Row::F16(row));
                    check_dot(cpu.dot_f16(row, x), &values, x, &name("dot_f16"));
                    let mut out = y.clone();
                    cpu.axpy_f16(c, row, &mut out[start..]);
                    check_axpy(&out[start..], c, &values, &y[start..], &name("axpy_f16"));

                    let row = &ab16[start..];
                    let values = decoded(Row::Bf16(row));
                    check_dot(cpu.dot_bf16(row, x), &values, x, &name("dot_bf16"));
                    let mut out = y.clone();
                    cpu.axpy_bf16(c, row, &mut out[start..]);
                    check_axpy(&out[start..], c, &values, &y[start..], &name("axpy_bf16"));

                    if n.is_multiple_of(Q8_0_LEN) {
                        let mut bytes = vec![0u8; start];
                        quantize_q8_0(plain, &mut bytes);
                        let row = &bytes[start..];
                        let values = decoded(Row::Q8_0(row));
                        check_dot(cpu.dot_q8_0(row, x), &values, x, &name("dot_q8_0"));
                        let mut out = y.clone();
                        cpu.axpy_q8_0(c, row, &mut out[start..]);
                        check_axpy(&out[start..], c, &values, &y[start..], &name("axpy_q8_0"));
                    }
                }
            }
        }
    }

    #[test]
    fn eight_rows_at_once_agree_with_exact_sums() {
        for cpu in Cpu::all() {
            for n in SIZES {
                for start in [0, 1, 3] {
                    let (rows, x, y) = (random(8 * n + start, 1), random(n + start, 2), random(n + start, 3));
                    let (rows, x) = (&rows[start..], &x[start..]);
                    let row = |i: usize| &rows[i * n..][..n];
                    let name = |kernel| format!("{cpu:?} {kernel} from {start}");
                    for (i, found) in cpu.dot8(rows, x).into_iter().enumerate() {
                        check_dot(found, row(i), x, &name("dot8"));
                    }
                    // One coefficient at a time, against exact numbers; then all, against eight single additions.
                    for i in 0..8 {
                        let (mut c, mut out) = ([0.0; 8], y.clone());
                        c[i] = -1.75;
                        cpu.axpy8(&c, rows, &mut out[start..]);
                        check_axpy(&out[start..], c[i], row(i), &y[start..], &name("axpy8"));
                    }
                    let c = std::array::from_fn(|i| i as f32 - 3.5);
                    let (mut out, mut one_by_one) = (y.clone(), y.clone());
                    cpu.axpy8(&c, rows, &mut out[start..]);
                    (0..8).for_each(|i| cpu.axpy(c[i], row(i), &mut one_by_one[start..]));
                    assert_eq!(out, one_by_one, "{}", name("axpy8"));
                }
            }
        }
    }

    #[test]
    fn rows_that_somebody_else_decodes() {
        // Two values in three bytes: a sign in the first, then two numbers.
        let coding = Coding::new(2, 3, |bytes, out| {
            for (block, out) in bytes.as_chunks::<3>().0.iter().zip(out.as_chunks_mut::<2>().0) {
                let sign = if block[0] > 0 { -1.0 } else { 1.0 };
                *out = [sign * f32::from(block[1]), sign * f32::from(block[2])];
            }
        });
        for n in [0, 2, 254, 256, 258, 1000] {
            let bytes: Vec<u8> = (0..n / 2 * 3).map(|i| (i * 7 % 5) as u8).collect();
            let row = Row::Coded(&bytes, &coding);
            assert_eq!((row.len(), coding.row_bytes(n)), (n, Some(bytes.len())));
            let (mut values, x) = (vec![9.0; n], random(n, 5));
            row.decode(&mut values);
            check_dot(row.dot(&x), &values, &x, "coded");
            let mut out = x.clone();
            row.axpy(-1.75, &mut out);
            check_axpy(&out, -1.75, &values, &x, "coded");
        }
        assert_eq!(coding.row_bytes(3), None);
    }

    #[test]
    fn nan_and_infinity_reach_the_sum_from_every_place() {
        for cpu in Cpu::all() {
            for n in [1, 8, 9, 33, 64] {
                for at in [0, n / 2, n - 1] {
                    for (special, is) in
                        [(f32::NAN, f32::is_nan as fn(f32) -> bool), (f32::INFINITY, |v| v == f32::INFINITY)]
                    {
                        let mut a = vec![1.0; n];
                        a[at] = special;
                        let x = vec![1.0; n];
                        let a16: Vec<u16> = a.iter().map(|&v| f16::from_f32(v).to_bits()).collect();
                        let ab16: Vec<u16> = a.iter().map(|&v| bf16::from_f32(v).to_bits()).collect();
                        assert!(is(cpu.dot(&a, &x)) && is(cpu.dot(&x, &a)), "{cpu:?} {special} at {at} of {n}");
                        assert!(is(cpu.dot_f16(&a16, &x)) && is(cpu.dot_bf16(&ab16, &x)));
                        assert!(cpu.dot8(&x.repeat(8), &a).into_iter().all(is));
                        let mut y = x.clone();
                        cpu.axpy(1.0, &a, &mut y);
                        assert!(is(y[at]) && y.iter().filter(|v| v.is_finite()).count() == n - 1);
                    }
                }
            }
            let mut q = Vec::new();
            quantize_q8_0(&[1.0; 32], &mut q);
            let mut x = vec![1.0; 32];
            x[31] = f32::NAN;
            assert!(cpu.dot_q8_0(&q, &x).is_nan());
        }
    }

    #[test]
    fn every_16_bit_pattern_decodes_alike() {
        for cpu in Cpu::all() {
            for bits in 0..=u16::MAX {
                let (row, mut x) = ([bits; 8], [0f32; 8]);
                x[3] = 1.0;
                let expected = f16::from_bits(bits).to_f32();
                if expected.is_finite() {
                    assert_eq!(cpu.dot_f16(&row, &x), expected, "{cpu:?} {bits:#06x}");
                }
                let expected = bf16::from_bits(bits).to_f32();
                if expected.is_finite() {
                    assert_eq!(cpu.dot_bf16(&row, &x), expected, "{cpu:?} {bits:#06x}");
                }
            }
        }
    }

    #[test]
    fn a_row_dispatches_to_its_kernel() {
        let a = random(64, 5);
        let x = random(64, 6);
        let mut q = Vec::new();
        quantize_q8_0(&a, &mut q);
        let f: Vec<u16> = a.iter().map(|&v| f16::from_f32(v).to_bits()).collect();
        let b: Vec<u16> = a.iter().map(|&v| bf16::from_f32(v).to_bits()).collect();
        for row in [Row::F32(&a), Row::F16(&f), Row::Bf16(&b), Row::Q8_0(&q)] {
            assert_eq!(row.len(), 64);
            let (mut values, mut y) = (vec![0.0; 64], x.clone());
            row.decode(&mut values);
            check_dot(row.dot(&x), &values, &x, "row");
            row.axpy(0.5, &mut y);
            check_axpy(&y, 0.5, &values, &x, "row");
        }
    }

    #[test]
    #[should_panic(expected = "a row of 3 values meets a vector of 4")]
    fn lengths_must_agree() {
        dot(&[0.0; 3], &[0.0; 4]);
    }
}
