//! The host table and the callback for graphs of the ggml that this library carries.
//!
//! The engine's own hook uses both. So may a program with contexts of its own, made through the same `llama-cpp-sys-2`
//! (Cargo links one copy of it): [`host`] is how a [`Hook`] sees their graphs, [`eval`] is how llama.cpp calls the hook.

use std::ffi::{c_char, c_int, c_void};

use ggml_sys as sys;

use crate::error::{Error, Kind};
use crate::hook::{Fields, Functions, Hook, Host, Tensor};

/// The table for graphs of `llama-cpp-sys-2`.
///
/// A program with its own context makes a [`Hook`] with it, puts [`eval`] into the context's parameters, and steers:
///
/// ```no_run
/// # use ggml_sys as llama_cpp_sys_2;
/// use tiller::engine::{eval, host};
/// use tiller::hook::Hook;
///
/// // Boxed, because llama.cpp holds its address; it has to outlive the context.
/// let hook = Box::into_raw(Box::new(Hook::new(host())));
/// let mut params = unsafe { llama_cpp_sys_2::llama_context_default_params() };
/// params.cb_eval = Some(eval);
/// params.cb_eval_user_data = hook.cast();
/// // Between decodes: `set_plan`, `announce`, `finish`.
/// unsafe { &mut *hook }.set_sequences(params.n_seq_max as usize);
/// ```
pub fn host() -> Host {
    Host::new(Functions { name, contiguous, get, set, op: Some(op) }, Fields::Asked { dtype, shape, data, src })
}

/// What `cb_eval` of a context's parameters has to be, for a [`Hook`] with the table [`host`]. A panic of the hook becomes
/// a fault of its ledger, and the model runs on.
///
/// # Safety
/// For llama.cpp to call. `user`, `cb_eval_user_data` of the same parameters, points to a [`Hook`] that outlives the
/// context, and that nothing else uses while the context decodes.
pub unsafe extern "C" fn eval(tensor: *mut sys::ggml_tensor, ask: bool, user: *mut c_void) -> bool {
    // SAFETY: the caller's contract.
    let hook = unsafe { &mut *user.cast::<Hook>() };
    // SAFETY: the scheduler passes a node of the graph that runs; the table is that of the same ggml.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe { hook.eval(tensor.cast::<Tensor>(), ask) }))
        .unwrap_or_else(|_| {
            hook.fail(Error::new(Kind::Panic, "internal error: the hook panicked; the model ran on unsteered"));
            !ask
        })
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
