//! Requantizing a model with llama.cpp's own function.

use std::path::Path;

use ggml_sys as sys;

use super::{c_path, log};
use crate::error::{Error, Result};

/// Writes the model at `from` to `to` with other weights. `kind` is llama.cpp's name: `F32`, `F16`, `BF16`, `Q8_0`,
/// `Q5_K_M`, `Q4_0`, `Q4_1`, `Q4_K_M`, `Q3_K_M`, `Q2_K`. Sources that are quantized already are dequantized first.
pub fn requantize(from: &Path, to: &Path, kind: &str, threads: usize) -> Result<()> {
    std::fs::File::open(from).map_err(|e| Error::io("open", from, e))?;
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
    log::capture();
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = to.with_file_name(name);
    let (source, target) = (c_path(from)?, c_path(&part)?);
    // SAFETY: plain defaults.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = ftype;
    params.allow_requantize = true;
    params.nthread = i32::try_from(threads).unwrap_or(0);
    // SAFETY: both names are NUL-terminated and outlive the call.
    let status = unsafe { sys::llama_model_quantize(source.as_ptr(), target.as_ptr(), &raw const params) };
    if status != 0 {
        let _ = std::fs::remove_file(&part);
        return Err(Error::format(from, format_args!("llama.cpp cannot requantize to {kind}: {}", log::last())));
    }
    std::fs::rename(&part, to).map_err(|e| Error::io("write", to, e))
}
