use std::ffi::{c_char, c_int, c_void};

use crate::progress::Step;

/// How long work tells you where it is, and how you stop it.
///
/// Called now and then, on the thread that made the call. `done` and `total` count tokens, rows or features, as the
/// call says; `total` is 0 when unknown. `note` is one line on the state, borrowed for this call, never NULL.
/// Return 0 to go on, anything else to cancel: the call then returns TILLER_E_CANCELLED.
pub type tiller_progress_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, done: u64, total: u64, note: *const c_char) -> c_int>;

/// A progress function and what it is called with. Pass NULL where you don't care.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_progress {
    /// May be NULL.
    pub call: tiller_progress_fn,
    /// Given back to `call`, never looked at.
    pub user: *mut c_void,
}

/// The library's side of a progress function.
///
/// # Safety
/// `progress`, if given, holds a function that may be called with its `user` for as long as the result lives.
pub(super) unsafe fn reporter(progress: Option<&tiller_progress>) -> impl FnMut(Step<'_>) -> bool {
    let progress = progress.copied();
    move |step| {
        let Some(tiller_progress { call: Some(call), user }) = progress else { return true };
        let note = super::text::c_string(step.note);
        // SAFETY: the caller of `reporter` promises that the function may be called with `user`.
        unsafe { call(user, step.done, step.total, note.as_ptr()) == 0 }
    }
}
