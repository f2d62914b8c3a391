//! The host table, filled from the ggml that this library carries.

use std::ffi::{c_char, c_int, c_void};

use ggml_sys as sys;

use crate::hook::{Fields, Functions, Host, Tensor};

/// The table for the engine's own graphs.
pub(super) fn table() -> Host {
    Host::new(Functions { name, contiguous, get, set, op: Some(op) }, Fields::Asked { dtype, shape, data, src })
}

fn ggml(t: *const Tensor) -> *const sys::ggml_tensor {
    t.cast()
}

unsafe extern "C" fn name(t: *const Tensor) -> *const c_char {
    // SAFETY: the hook passes on the tensor that ggml gave it, alive for the call; the address of a field is in bounds.
    unsafe { (&raw const (*ggml(t)).name).cast() }
}

unsafe extern "C" fn dtype(t: *const Tensor) -> c_int {
    // SAFETY: as in `name`.
    unsafe { (*ggml(t)).type_ as c_int }
}

unsafe extern "C" fn shape(t: *const Tensor, out: *mut i64) {
    // SAFETY: as in `name`; the hook passes room for four extents.
    unsafe { out.cast::<[i64; 4]>().write((*ggml(t)).ne) }
}

unsafe extern "C" fn contiguous(t: *const Tensor) -> bool {
    // SAFETY: as in `name`.
    unsafe { sys::ggml_is_contiguous(ggml(t)) }
}

unsafe extern "C" fn data(t: *const Tensor) -> *mut c_void {
    // SAFETY: as in `name`.
    let (buffer, view, data) = unsafe { ((*ggml(t)).buffer, (*ggml(t)).view_src, (*ggml(t)).data) };
    // SAFETY: a view's source outlives the view.
    let buffer = if view.is_null() { buffer } else { unsafe { (*view).buffer } };
    // SAFETY: the buffer belongs to a tensor of the graph that runs.
    if !buffer.is_null() && unsafe { sys::ggml_backend_buffer_is_host(buffer) } { data } else { std::ptr::null_mut() }
}

unsafe extern "C" fn get(t: *const Tensor, to: *mut c_void, offset: usize, size: usize) {
    // SAFETY: the hook asks for bytes inside the tensor and passes room for them.
    unsafe { sys::ggml_backend_tensor_get(ggml(t), to, offset, size) }
}

unsafe extern "C" fn set(t: *mut Tensor, from: *const c_void, offset: usize, size: usize) {
    // SAFETY: the hook writes bytes inside the tensor and passes that many.
    unsafe { sys::ggml_backend_tensor_set(t.cast(), from, offset, size) }
}

unsafe extern "C" fn src(t: *const Tensor, i: c_int) -> *const Tensor {
    // SAFETY: as in `name`.
    let sources = unsafe { &(*ggml(t)).src };
    usize::try_from(i).ok().and_then(|i| sources.get(i)).map_or(std::ptr::null(), |p| p.cast_const().cast())
}

unsafe extern "C" fn op(t: *const Tensor) -> *const c_char {
    // SAFETY: as in `name`.
    unsafe { sys::ggml_op_desc(ggml(t)) }
}
