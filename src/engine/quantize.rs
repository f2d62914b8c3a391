//! ggml's quantizers: of single rows, and of whole models with llama.cpp's own function.

use std::path::Path;

use ggml_sys as sys;

use super::c_path;
use super::guard::{self, Fault};
use crate::dictionary::{Dictionary, Loss};
use crate::error::{Error, Result};
use crate::file::gguf::GgmlType;
use crate::file::write_atomic_by_name;
use crate::model::Model;

/// The type that weights of `kind` run faster in on this processor, in batches of many rows; none where their own is as fast.
/// Where llama.cpp was built for AMX, tiles take most quantized types, but neither Q5_0 nor Q5_1; elsewhere its repacked
/// kernels leave these and Q4_1 out, and F16 runs up to twice as fast.
pub fn faster_type(kind: GgmlType) -> Option<GgmlType> {
    // SAFETY: says how ggml was compiled; touches nothing.
    let tiles = unsafe { sys::ggml_cpu_has_amx_int8() } != 0;
    match kind {
        GgmlType::Q5_0 | GgmlType::Q5_1 if tiles => Some(GgmlType::Q8_0),
        GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1 if !tiles => Some(GgmlType::F16),
        _ => None,
    }
}

/// Writes the model at `from` to `to` with other weights. `kind` is llama.cpp's name: `F32`, `F16`, `BF16`, `Q8_0`,
/// `Q5_K_M`, `Q4_0`, `Q4_1`, `Q4_K_M`, `Q3_K_M`, `Q2_K`. Sources that are quantized already are dequantized first. `to` is
/// written whole or not at all; several processes may write it at once.
pub fn requantize(from: &Path, to: &Path, kind: &str, threads: usize) -> Result<()> {
    Model::open(from)?.check_limits()?;
    let ftype = match kind.to_ascii_uppercase().as_str() {
        "F32" => sys::LLAMA_FTYPE_ALL_F32,
        "F16" => sys::LLAMA_FTYPE_MOSTLY_F16,
        "BF16" => sys::LLAMA_FTYPE_MOSTLY_BF16,
        "Q8_0" => sys::LLAMA_FTYPE_MOSTLY_Q8_0,
        "Q5_K_M" => sys::LLAMA_FTYPE_MOSTLY_Q5_K_M,
        "Q4_0" => sys::LLAMA_FTYPE_MOSTLY_Q4_0,
        "Q4_1" => sys::LLAMA_FTYPE_MOSTLY_Q4_1,
        "Q4_K_M" => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
        "Q3_K_M" => sys::LLAMA_FTYPE_MOSTLY_Q3_K_M,
        "Q2_K" => sys::LLAMA_FTYPE_MOSTLY_Q2_K,
        other => return Err(Error::argument(format!("unknown model type \"{other}\""))),
    };
    let source = c_path(from)?;
    // SAFETY: plain defaults.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = ftype;
    params.allow_requantize = true;
    params.nthread = i32::try_from(threads).unwrap_or(0);
    // llama.cpp opens files by name and follows links: it gets a name that nobody can have planted anything at.
    write_atomic_by_name(to, |part| {
        let target = c_path(part)?;
        let (source, target) = (source.as_ptr(), target.as_ptr());
        // SAFETY: both names are NUL-terminated and outlive the call.
        let quantized = guard::call(|| unsafe { guard::llama_model_quantize(source, target, &raw const params) });
        let fault = quantized.and_then(|status| if status == 0 { Ok(()) } else { Err(Fault::logged()) });
        fault.map_err(|fault| Error::format(from, format_args!("llama.cpp cannot requantize to {kind}: {fault}")))
    })
}

/// Writes `dictionary` as one of our GGUF files in any type that ggml quantizes to, and returns what that cost. F32, F16,
/// BF16 and Q8_0 are packed by [`Dictionary::convert`] itself.
///
/// # Errors
/// As [`Dictionary::convert`], and [`Kind::Unsupported`](crate::Kind::Unsupported) for types that ggml cannot pack rows into
/// without an importance matrix, or at all.
pub fn convert(dictionary: &Dictionary, path: &Path, kind: GgmlType) -> Result<Loss> {
    match kind {
        GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 | GgmlType::Q8_0 => dictionary.convert(path, kind),
        other => dictionary.convert_with(path, other, &mut packer(other)?),
    }
}

/// Packs rows into `kind` by ggml's own quantizer, for
/// [`Dictionary::convert_with`](crate::dictionary::Dictionary::convert_with): appends the blocks of a row to the bytes, and
/// replaces the row by what they decode to.
///
/// # Errors
/// [`Kind::Unsupported`](crate::Kind::Unsupported) for types that ggml quantizes to only with an importance matrix of the
/// columns, or not at all; the packer's: [`Kind::Argument`](crate::Kind::Argument) for a row that is no whole number of
/// blocks, [`Kind::Numeric`](crate::Kind::Numeric) for one that is not finite.
pub fn packer(kind: GgmlType) -> Result<impl FnMut(&mut [f32], &mut Vec<u8>) -> Result<()>> {
    // SAFETY: an identifier of ggml's own table; ggml answers from constants.
    let (quantized, wants_importance) =
        unsafe { (sys::ggml_is_quantized(kind.id()), sys::ggml_quantize_requires_imatrix(kind.id())) };
    if wants_importance {
        let what = "ggml quantizes to it only with an importance matrix, which dictionaries have not";
        return Err(Error::unsupported(format!("{}: {what}; choose another", kind.label())));
    }
    if !quantized || !kind.can_dequantize() {
        return Err(Error::unsupported(format!("{}: ggml has no quantizer for it", kind.label())));
    }
    // SAFETY: fills ggml's own tables for the type, once, under a lock of its own.
    unsafe { sys::ggml_quantize_init(kind.id()) };
    Ok(move |row: &mut [f32], bytes: &mut Vec<u8>| {
        let size = kind.row_bytes(row.len()).ok_or_else(|| {
            let (found, block) = (row.len(), kind.block_len());
            Error::argument(format!("{}: expected rows of whole blocks of {block}, found {found}", kind.label()))
        })?;
        if row.iter().any(|v| !v.is_finite()) {
            return Err(Error::numeric(format!("{}: a row holds NaN or infinity, which blocks cannot", kind.label())));
        }
        let start = bytes.len();
        bytes.resize(start + size, 0);
        let out = bytes.get_mut(start..).unwrap_or_default();
        let (id, width, from, to) = (kind.id(), row.len() as i64, row.as_ptr(), out.as_mut_ptr().cast());
        // SAFETY: one row of `row.len()` floats in, `size` bytes out, as ggml's table has it for the type; quantizers that
        // need an importance matrix were refused above.
        let pack = || unsafe { guard::ggml_quantize_chunk(id, from, to, 0, 1, width, std::ptr::null()) };
        let written = guard::call(pack)
            .map_err(|fault| Error::unsupported(format!("{}: ggml cannot pack a row: {fault}", kind.label())))?;
        if written != size {
            let what = format!("{}: expected {size} bytes of a row, ggml wrote {written}", kind.label());
            return Err(Error::unsupported(what));
        }
        kind.dequantize(out, row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn every_type_that_ggml_quantizes_to_comes_back() {
        let values: Vec<f32> = (0..512u16).map(|i| (f32::from(i) * 0.37).sin()).collect();
        let mut tried = Vec::new();
        // The types of three bits and less that search a grid take half a minute to make their tables.
        let quick = |kind: &&GgmlType| !["IQ1", "IQ2", "IQ3"].iter().any(|slow| kind.label().starts_with(slow));
        for &kind in GgmlType::ALL.iter().filter(quick) {
            let Ok(mut pack) = packer(kind) else { continue };
            let (mut row, mut bytes) = (values.clone(), vec![7u8; 3]);
            pack(&mut row, &mut bytes).unwrap();
            assert_eq!((bytes.len() - 3, &bytes[..3]), (kind.row_bytes(512).unwrap(), &[7, 7, 7][..]), "{kind}");
            let error: f32 = values.iter().zip(&row).map(|(a, b)| (a - b).powi(2)).sum();
            let power: f32 = values.iter().map(|a| a * a).sum();
            // One bit a value leaves about a third of the power.
            let limit = match kind {
                GgmlType::Q1_0 | GgmlType::TQ1_0 | GgmlType::TQ2_0 => 0.6,
                _ => 0.15,
            };
            assert!(error / power < limit, "{kind}: {}", error / power);
            tried.push(kind);
        }
        for kind in [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q5_0, GgmlType::Q5_1, GgmlType::Q4_K, GgmlType::Q6_K] {
            assert!(tried.contains(&kind), "{kind}");
        }
    }

    #[test]
    fn what_cannot_be_packed_says_why() {
        let refused = |kind| packer(kind).err().map(|e| (e.kind(), e.message().to_owned()));
        let (kind, message) = refused(GgmlType::IQ2_XXS).unwrap();
        assert!(kind == Kind::Unsupported && message.contains("importance matrix"), "{message}");
        assert!(refused(GgmlType::I32).unwrap().1.contains("no quantizer"));
        let mut pack = packer(GgmlType::Q4_0).unwrap();
        let error = pack(&mut [0.0; 33], &mut Vec::new()).unwrap_err();
        assert!(error.message().contains("whole blocks of 32, found 33"), "{}", error.message());
        assert_eq!(pack(&mut [f32::NAN; 32], &mut Vec::new()).unwrap_err().kind(), Kind::Numeric);
    }
}
