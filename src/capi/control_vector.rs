use std::ffi::c_char;

use super::arguments::{expect_len, path, slice, slice_mut, some, text};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use crate::error::Error;
use crate::plan::ControlVector;

/// One constant direction a layer, for layers 1 and up: llama.cpp's control vectors and their GGUF file.
///
/// Thread safety: one thread at a time.
pub struct tiller_control_vector(ControlVector);

/// A control vector without directions, of width `d_model`.
///
/// On success `*out` owns a new object; free it with tiller_control_vector_free().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_control_vector_new(
    d_model: usize,
    out: Out<'_, tiller_control_vector>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || match d_model {
        0 => Err(Error::argument("d_model is 0")),
        _ => Ok(tiller_control_vector(ControlVector::new(d_model))),
    })
}

/// Reads a control vector file. A file that asks for another operator than "add" is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_control_vector_open(
    file: *const c_char,
    out: Out<'_, tiller_control_vector>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || ControlVector::open(unsafe { path(file, "file") }?).map(tiller_control_vector))
}

/// Width of a direction. 0 if `vector` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_control_vector_d_model(vector: Option<&tiller_control_vector>) -> usize {
    vector.map_or(0, |v| v.0.d_model())
}

/// Adds `n` = d_model floats to the direction of `layer`, which acts on the node l_out-`layer`; `layer` is at least 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_control_vector_add(
    vector: Option<&mut tiller_control_vector>,
    layer: u32,
    direction: *const f32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n` floats.
        some(vector, "vector")?.0.add(layer as usize, unsafe { slice(direction, n, "direction") }?)
    })
}

/// What llama_set_adapter_cvec() takes: (n_layer - 1) * d_model floats, layer 1 first, zeros where there is no direction.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_control_vector_data(
    vector: Option<&tiller_control_vector>,
    n_layer: usize,
    data: *mut f32,
    n_data: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let floats = some(vector, "vector")?.0.data(n_layer)?;
        expect_len(n_data, floats.len(), "data")?;
        // SAFETY: the header requires `n_data` writable floats.
        unsafe { slice_mut(data, n_data, "data") }?.copy_from_slice(&floats);
        Ok(())
    })
}

/// Writes a file that llama.cpp's programs take with --control-vector; `model_hint` is the model's architecture.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_control_vector_save(
    vector: Option<&tiller_control_vector>,
    file: *const c_char,
    model_hint: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires C strings.
        let (file, model_hint) = unsafe { (path(file, "file")?, text(model_hint, "model_hint")?) };
        some(vector, "vector")?.0.save(file, model_hint)
    })
}

/// Frees `vector`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_control_vector_free(vector: Option<Box<tiller_control_vector>>) {
    drop(vector);
}
