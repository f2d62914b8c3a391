//! ggml's `q8_0`: 32 values as one half-precision scale and 32 signed bytes, 34 bytes a block.

use half::f16;

/// Values in a block.
pub const Q8_0_LEN: usize = 32;
/// Bytes in a block: the scale, little-endian, then the quants.
pub const Q8_0_BYTES: usize = 34;

/// The scale and the quants of a block.
#[inline(always)]
pub(super) fn split(block: &[u8; Q8_0_BYTES]) -> (f32, &[u8; Q8_0_LEN]) {
    let [low, high, quants @ ..] = block;
    (f16::from_le_bytes([*low, *high]).to_f32(), quants)
}

/// Appends `row` to `out` as `q8_0` blocks: d = max|v|/127, q = round(v/d), ties away from zero, as ggml does.
///
/// # Panics
/// If the length of `row` is no multiple of [`Q8_0_LEN`].
pub fn quantize_q8_0(row: &[f32], out: &mut Vec<u8>) {
    let (blocks, rest) = row.as_chunks::<Q8_0_LEN>();
    assert!(rest.is_empty(), "q8_0 stores blocks of {Q8_0_LEN} values; {} is no multiple", row.len());
    for block in blocks {
        let scale = block.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        out.extend_from_slice(&f16::from_f32(scale).to_le_bytes());
        out.extend(block.iter().map(|v| ((v * inverse).round() as i8).cast_unsigned()));
    }
}

/// Appends `row`, filled up with zeros to whole blocks, such that no value moves by more than half a step of its scale,
/// however small the row: the scale is rounded up, and what is too large for one has an infinite one.
pub(crate) fn round_q8_0(row: &[f32], out: &mut Vec<u8>) {
    /// 1.5·2²³: added to a number below 2²², it leaves the nearest integer in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    out.reserve(row.len().div_ceil(Q8_0_LEN) * Q8_0_BYTES);
    for values in row.chunks(Q8_0_LEN) {
        let largest = values.iter().fold(0f32, |m, v| if v.abs() > m || v.is_nan() { v.abs() } else { m });
        let mut scale = f16::from_f32(largest / 127.0);
        if scale.to_f32() * 127.0 < largest {
            scale = f16::from_bits(scale.to_bits() + 1);
        }
        let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
        let mut block = [0; Q8_0_BYTES];
        let (head, quants) = block.split_at_mut(Q8_0_BYTES - Q8_0_LEN);
        head.copy_from_slice(&scale.to_le_bytes());
        for (q, v) in quants.iter_mut().zip(values) {
            *q = (v * inverse + MAGIC).to_bits() as u8;
        }
        out.extend_from_slice(&block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::Row;

    #[test]
    fn a_block_round_trips_within_half_a_step() {
        let row: Vec<f32> = (0..64).map(|i| (i as f32 - 20.0) * 0.37).collect();
        let mut bytes = Vec::new();
        quantize_q8_0(&row, &mut bytes);
        assert_eq!(bytes.len(), 68);
        let mut back = vec![0f32; 64];
        Row::Q8_0(&bytes).decode(&mut back);
        for (half, limit) in [(0..32, 20.0), (32..64, 43.0)] {
            // Half a step of rounding, and the scale itself is a half-precision number (11 bits).
            let tolerance = limit * 0.37 * (0.5 / 127.0 + 1.0 / 2048.0);
            for i in half {
                assert!((row[i] - back[i]).abs() <= tolerance, "{i}: {} became {}", row[i], back[i]);
            }
        }
    }

    #[test]
    fn rounded_values_move_by_half_a_step_at_most() {
        for largest in [0.0, 1e-30, 3e-8, 1e-7, 7.7e-6, 1e-3, 1.0, 126.97, 8e6] {
            let row: Vec<f32> = (0..70).map(|i| (i as f32 * 0.7).sin() * largest).collect();
            let mut bytes = Vec::new();
            round_q8_0(&row, &mut bytes);
            assert_eq!(bytes.len(), 3 * Q8_0_BYTES);
            for (block, values) in bytes.as_chunks::<Q8_0_BYTES>().0.iter().zip(row.chunks(Q8_0_LEN)) {
                let (scale, quants) = split(block);
                for (q, v) in quants.iter().zip(values) {
                    let error = (scale * f32::from(q.cast_signed()) - v).abs();
                    assert!(error <= 0.5001 * scale, "{largest}: {v} moved by {error}, the scale is {scale}");
                }
                assert!(quants[values.len()..].iter().all(|&q| q == 0));
            }
        }
        for (value, is) in [(f32::NAN, f32::is_nan as fn(f32) -> bool), (f32::INFINITY, |s| s == f32::INFINITY)] {
            let (mut row, mut bytes) = ([1.0; 32], Vec::new());
            row[7] = value;
            round_q8_0(&row, &mut bytes);
            assert!(is(split(bytes.as_chunks().0.first().unwrap()).0), "{value}");
        }
        let mut bytes = Vec::new();
        round_q8_0(&[1e7; 32], &mut bytes);
        assert_eq!(split(bytes.as_chunks().0.first().unwrap()).0, f32::INFINITY, "too large for a scale");
    }

    #[test]
    fn zeros_stay_zeros() {
        let mut bytes = Vec::new();
        quantize_q8_0(&[0.0; 32], &mut bytes);
        assert_eq!(bytes, [0u8; 34]);
    }

    #[test]
    #[should_panic(expected = "no multiple")]
    fn a_partial_block_is_refused() {
        quantize_q8_0(&[0.0; 33], &mut Vec::new());
    }
}
