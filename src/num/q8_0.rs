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
