//! Rows of any element type as `f32`.
//!
//! The four types that dictionaries and embeddings come in (F32, F16, BF16, Q8_0) are decoded here; with feature `engine`,
//! every other type goes through ggml's own table of conversions, so that we agree with ggml to the bit.

use super::GgmlType;
use crate::error::{Error, Result};

impl GgmlType {
    /// Whether [`GgmlType::dequantize`] can decode this type in this build.
    pub fn can_dequantize(self) -> bool {
        match self {
            Self::F32 | Self::F16 | Self::BF16 | Self::Q8_0 => true,
            #[cfg(feature = "engine")]
            other => ggml::to_float(other).is_some(),
            #[cfg(not(feature = "engine"))]
            _ => false,
        }
    }

    /// Decodes `row`, whole blocks of this type, into `out`, one `f32` an element.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if `row` is not the size that `out` needs;
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for types that hold no weights (integers, `q8_1`, `q8_K`) and, without
    /// feature `engine`, for all but F32, F16, BF16 and Q8_0.
    pub fn dequantize(self, row: &[u8], out: &mut [f32]) -> Result<()> {
        if self.row_bytes(out.len()) != Some(row.len()) {
            let (n, found) = (out.len(), row.len());
            return Err(Error::argument(format!("{n} elements of {self}: expected their bytes, found {found}")));
        }
        match self {
            Self::F32 => each(row, out, f32::from_le_bytes),
            Self::F16 => each(row, out, |b| half::f16::from_le_bytes(b).to_f32()),
            Self::BF16 => each(row, out, |b| half::bf16::from_le_bytes(b).to_f32()),
            Self::Q8_0 => q8_0(row, out),
            other => return through_ggml(other, row, out),
        }
        Ok(())
    }
}

fn each<const N: usize>(row: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (x, &bytes) in out.iter_mut().zip(row.as_chunks::<N>().0) {
        *x = decode(bytes);
    }
}

/// Blocks of a scale (F16) and 32 signed bytes: x = d·q.
fn q8_0(row: &[u8], out: &mut [f32]) {
    for (block, out) in row.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let [d0, d1, quants @ ..] = block;
        let d = half::f16::from_le_bytes([*d0, *d1]).to_f32();
        for (x, &q) in out.iter_mut().zip(quants) {
            *x = d * f32::from(q.cast_signed());
        }
    }
}

#[cfg(not(feature = "engine"))]
fn through_ggml(kind: GgmlType, _: &[u8], _: &mut [f32]) -> Result<()> {
    Err(Error::unsupported(format!(
        "elements of type {kind}: this build has no ggml and decodes f32, f16, bf16 and q8_0 only (feature `engine`)"
    )))
}

#[cfg(feature = "engine")]
fn through_ggml(kind: GgmlType, row: &[u8], out: &mut [f32]) -> Result<()> {
    ggml::dequantize(kind, row, out)
        .ok_or_else(|| Error::unsupported(format!("elements of type {kind}: ggml converts none of these to f32")))
}

#[cfg(feature = "engine")]
mod ggml {
    use super::GgmlType;

    pub(super) fn to_float(kind: GgmlType) -> ggml_sys::ggml_to_float_t {
        // SAFETY: `kind` is an identifier of ggml's own table (a test compares them all), for which ggml returns the
        // address of a constant.
        let traits = unsafe { ggml_sys::ggml_get_type_traits(kind.id()).as_ref() };
        traits?.to_float
    }

    /// The caller has checked that `row` holds `out.len()` elements in whole blocks.
    pub(super) fn dequantize(kind: GgmlType, row: &[u8], out: &mut [f32]) -> Option<()> {
        let convert = to_float(kind)?;
        let n = i64::try_from(out.len()).ok()?;
        let mut aligned: Vec<u32> = Vec::new();
        let mut from = row.as_ptr();
        // ggml's blocks hold nothing wider than a `float`; those that hold one have sizes that are multiples of it.
        let alignment = if kind.block_bytes().is_multiple_of(4) { 4 } else { 2 };
        if !from.addr().is_multiple_of(alignment) {
            aligned.resize(row.len().div_ceil(size_of::<u32>()), 0);
            let copy: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
            copy.get_mut(..row.len())?.copy_from_slice(row);
            from = copy.as_ptr();
        }
        // SAFETY: `from` is aligned and has the blocks of `n` elements, `out` has room for `n` floats; ggml's conversions
        // read and write no more, and any bits of a block decode to some number.
        unsafe { convert(from.cast(), out.as_mut_ptr(), n) };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn plain_types_decode() {
        let mut out = [0f32; 2];
        GgmlType::F32.dequantize(bytemuck::cast_slice(&[1.5f32, -2.0]), &mut out).unwrap();
        assert_eq!(out, [1.5, -2.0]);
        let halves = [1.5, -2.0].map(half::f16::from_f32);
        GgmlType::F16.dequantize(bytemuck::cast_slice(&halves), &mut out).unwrap();
        assert_eq!(out, [1.5, -2.0]);
        let brains = [1.5, -2.0].map(half::bf16::from_f32);
        GgmlType::BF16.dequantize(bytemuck::cast_slice(&brains), &mut out).unwrap();
        assert_eq!(out, [1.5, -2.0]);
        let mut block = [0u8; 34];
        block[..2].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
        block[2] = 3;
        block[33] = 0x80;
        let mut out = [9f32; 32];
        GgmlType::Q8_0.dequantize(&block, &mut out).unwrap();
        assert_eq!((out[0], out[1], out[31]), (1.5, 0.0, -64.0));
    }

    #[test]
    fn sizes_must_match() {
        let mut out = [0f32; 2];
        let error = GgmlType::F32.dequantize(&[0; 9], &mut out).unwrap_err();
        assert_eq!(error.message(), "2 elements of f32: expected their bytes, found 9");
        assert_eq!(GgmlType::Q8_0.dequantize(&[0; 34], &mut out).unwrap_err().kind(), Kind::Argument);
    }

    #[test]
    fn integers_are_no_weights() {
        let error = GgmlType::I32.dequantize(&[0; 8], &mut [0f32; 2]).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(!GgmlType::I32.can_dequantize());
        assert!(GgmlType::Q8_0.can_dequantize());
    }

    #[cfg(feature = "engine")]
    #[test]
    fn plain_and_ggml_agree_to_the_bit() {
        use rand::Rng;
        let mut rng = crate::num::rng(1);
        for kind in [GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0] {
            for n in [32, 64, 576, 4096] {
                let bytes: Vec<u8> = (0..kind.row_bytes(n).unwrap()).map(|_| rng.random()).collect();
                let (mut plain, mut theirs) = (vec![0f32; n], vec![1f32; n]);
                kind.dequantize(&bytes, &mut plain).unwrap();
                ggml::dequantize(kind, &bytes, &mut theirs).unwrap();
                for (i, (a, b)) in plain.iter().zip(&theirs).enumerate() {
                    // Quiet and signalling NaN may differ; that both are NaN is what counts.
                    assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{kind} {i}: {a} {b}");
                }
            }
        }
    }

    #[cfg(feature = "engine")]
    #[test]
    fn every_quantized_type_decodes_at_any_address() {
        use rand::Rng;
        let mut rng = crate::num::rng(2);
        let mut decoded = 0;
        for &kind in GgmlType::ALL.iter().filter(|k| k.can_dequantize()) {
            let n = kind.block_len() * 3;
            let size = kind.row_bytes(n).unwrap();
            let bytes: Vec<u8> = (0..size + 1).map(|_| rng.random()).collect();
            let elsewhere = bytes[1..].to_vec();
            let (mut misaligned, mut aligned) = (vec![0f32; n], vec![1f32; n]);
            kind.dequantize(&bytes[1..], &mut misaligned).unwrap();
            kind.dequantize(&elsewhere, &mut aligned).unwrap();
            assert!(misaligned.iter().zip(&aligned).all(|(a, b)| a.to_bits() == b.to_bits()), "{kind}");
            decoded += 1;
        }
        // All but the integers, f64, q8_1 and q8_K.
        assert_eq!(decoded, GgmlType::ALL.len() - 7);
    }

    #[cfg(feature = "engine")]
    #[test]
    fn what_ggml_quantized_comes_back() {
        let values: Vec<f32> = (0..256u16).map(|i| (f32::from(i) * 0.37).sin()).collect();
        for kind in [GgmlType::Q4_1, GgmlType::Q6_K, GgmlType::Q4_K, GgmlType::IQ4_NL] {
            let mut bytes = vec![0u8; kind.row_bytes(256).unwrap()];
            // SAFETY: one row of 256 floats in, room for its blocks out; these types need no importance matrix.
            let n = unsafe {
                ggml_sys::ggml_quantize_chunk(
                    kind.id(),
                    values.as_ptr(),
                    bytes.as_mut_ptr().cast(),
                    0,
                    1,
                    256,
                    std::ptr::null(),
                )
            };
            assert_eq!(n, bytes.len());
            let mut back = vec![0f32; 256];
            kind.dequantize(&bytes, &mut back).unwrap();
            let error: f32 = values.iter().zip(&back).map(|(a, b)| (a - b).powi(2)).sum();
            let power: f32 = values.iter().map(|a| a * a).sum();
            // Normalised squared error of four bits or more.
            assert!(error / power < 0.01, "{kind}: {}", error / power);
        }
    }
}
