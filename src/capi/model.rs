use std::ffi::{CString, c_char};

use super::arguments::{Options, Report, expect_len, opt_text, options, path, report, slice_mut, some};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::text::{c_string, tiller_text};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::plan::Target;

/// A GGUF language model seen from outside: sizes, vocabulary, unembedding. It is mapped, not run.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_model {
    pub(super) model: Model,
    architecture: CString,
    name: CString,
    fingerprint: CString,
    quantization: CString,
}

/// The model that a plan is compiled for. tiller_model_target(), tiller_engine_target() and tiller_llama_target() of
/// tiller_llama.h fill it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_target {
    /// sizeof(tiller_target).
    pub size: u32,
    /// Number of blocks.
    pub n_layer: u32,
    /// Width of the residual stream.
    pub d_model: usize,
    /// `general.architecture` of the GGUF file; NULL or "" if it is not known: sites inside a block are then taken on trust,
    /// until a hook sees the graph.
    pub architecture: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first, numbers and a pointer that may be NULL.
unsafe impl Options for tiller_target {
    const NAME: &'static str = "tiller_target";
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_target {
    const NAME: &'static str = "tiller_target";
}

impl tiller_target {
    /// `architecture` is a C string that the caller keeps.
    pub(super) fn new(n_layer: usize, d_model: usize, architecture: &CString) -> Self {
        Self { size: 0, n_layer: n_layer as u32, d_model, architecture: architecture.as_ptr() }
    }

    /// The model that C describes.
    ///
    /// # Safety
    /// If `given` is not NULL, it points to as many bytes as its `size` says; its architecture is NULL or a C string.
    pub(super) unsafe fn read(given: *const Self) -> Result<Target> {
        if given.is_null() {
            return Err(Error::argument("target is NULL"));
        }
        // SAFETY: the caller's contract.
        let Self { n_layer, d_model, architecture, .. } = unsafe { options(given) }?;
        let target = Target::new(n_layer as usize, d_model);
        // SAFETY: the caller's contract.
        let architecture = unsafe { opt_text(architecture, "tiller_target.architecture") }?;
        Ok(architecture.map_or(target.clone(), |name| target.with_architecture(name)))
    }
}

/// Opens a GGUF model; of a model in several files, the first.
///
/// On success `*out` owns a new object; free it with tiller_model_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_model_open(
    file: *const c_char,
    out: Out<'_, tiller_model>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires a C string.
        let model = Model::open(unsafe { path(file, "file") }?)?;
        let (architecture, name) = (c_string(model.architecture()), c_string(model.name()));
        let quantization = c_string(model.quantization());
        Ok(tiller_model { architecture, name, quantization, fingerprint: c_string(model.fingerprint()), model })
    })
}

/// Its architecture, such as "llama". Valid, like the three below, until `model` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_architecture(model: Option<&tiller_model>) -> *const c_char {
    model.map_or(c"".as_ptr(), |m| m.architecture.as_ptr())
}

/// Its own name.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_name(model: Option<&tiller_model>) -> *const c_char {
    model.map_or(c"".as_ptr(), |m| m.name.as_ptr())
}

/// The name of its quantization, such as "Q4_K_M".
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_quantization(model: Option<&tiller_model>) -> *const c_char {
    model.map_or(c"".as_ptr(), |m| m.quantization.as_ptr())
}

/// What binds dictionaries to it: 64 hexadecimal digits from its architecture, sizes, vocabulary and weights.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_fingerprint(model: Option<&tiller_model>) -> *const c_char {
    model.map_or(c"".as_ptr(), |m| m.fingerprint.as_ptr())
}

/// Number of blocks. 0 if `model` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_n_layer(model: Option<&tiller_model>) -> usize {
    model.map_or(0, |m| m.model.n_layer())
}

/// Width of the residual stream. 0 if `model` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_d_model(model: Option<&tiller_model>) -> usize {
    model.map_or(0, |m| m.model.d_model())
}

/// What a plan for it is compiled against, for tiller_plan_compile(). `out->architecture` is valid until `model` is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_model_target(
    model: Option<&tiller_model>,
    out: *mut tiller_target,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let tiller_model { model, architecture, .. } = some(model, "model")?;
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, tiller_target::new(model.n_layer(), model.d_model(), architecture)) }
    })
}

/// Number of tokens of the vocabulary. 0 if `model` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_n_vocab(model: Option<&tiller_model>) -> usize {
    model.map_or(0, |m| m.model.n_vocab())
}

/// Tokens that it was trained to see at once. 0 if `model` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_context_length(model: Option<&tiller_model>) -> usize {
    model.map_or(0, |m| m.model.context_length())
}

/// Whether the unembedding is the embedding.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_tied_unembedding(model: Option<&tiller_model>) -> bool {
    model.is_some_and(|m| m.model.tied_unembedding())
}

/// The token that begins a text; -1 if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_bos(model: Option<&tiller_model>) -> i32 {
    model.and_then(|m| m.model.bos()).unwrap_or(-1)
}

/// The token that ends a text; -1 if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_eos(model: Option<&tiller_model>) -> i32 {
    model.and_then(|m| m.model.eos()).unwrap_or(-1)
}

/// Whether tokenizing puts tiller_model_bos() in front.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_add_bos(model: Option<&tiller_model>) -> bool {
    model.is_some_and(|m| m.model.add_bos())
}

/// The text of a token as the file holds it.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_token_text(
    model: Option<&tiller_model>,
    token: i32,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let found = some(model, "model")?.model.token_text(token);
        Ok(tiller_text::from(found.ok_or_else(|| Error::argument(format!("token {token} does not exist")))?))
    })
}

/// The bytes that a token adds to a text. They may be a part of a character, or hold a NUL: go by tiller_text_length().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_token_bytes(
    model: Option<&tiller_model>,
    token: i32,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let found = some(model, "model")?.model.token_bytes(token);
        Ok(tiller_text::from(found.ok_or_else(|| Error::argument(format!("token {token} does not exist")))?))
    })
}

/// The weight of the final norm, as `n` = d_model floats, and what it adds to the mean square before the root in
/// `*epsilon` (may be NULL).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_model_output_norm(
    model: Option<&tiller_model>,
    weight: *mut f32,
    n: usize,
    epsilon: Option<&mut f32>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let model = &some(model, "model")?.model;
        let norm = model.output_norm()?;
        expect_len(n, norm.len(), "weight")?;
        // SAFETY: the header requires `n` writable floats.
        unsafe { slice_mut(weight, n, "weight") }?.copy_from_slice(&norm);
        if let Some(epsilon) = epsilon {
            *epsilon = model.rms_eps();
        }
        Ok(())
    })
}

/// The row of the unembedding for a token, dequantized, as `n` = d_model floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_model_unembedding_row(
    model: Option<&tiller_model>,
    token: i32,
    row: *mut f32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires `n` writable floats.
    guard(err, || some(model, "model")?.model.unembedding_row(token, unsafe { slice_mut(row, n, "row") }?))
}

/// Checks that `dictionary` belongs to `model`: another width or a missing layer is TILLER_E_MISMATCH. Another
/// fingerprint, as of another quantization, is a warning: then `*warning` (if `warning` is not NULL) owns its text,
/// which is empty if there is nothing to warn of.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_check(
    model: Option<&tiller_model>,
    dictionary: Option<&tiller_dictionary>,
    warning: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let (dictionary, model) = (&some(dictionary, "dictionary")?.dictionary, &some(model, "model")?.model);
        let said = dictionary.check_model(model.d_model(), model.n_layer(), model.fingerprint())?;
        if let Some(out) = warning {
            out.write(Some(Box::new(tiller_text::from(said.as_deref().unwrap_or_default()))));
        }
        Ok(())
    })
}

/// Frees `model`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_model_free(model: Option<Box<tiller_model>>) {
    drop(model);
}
