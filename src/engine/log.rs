//! llama.cpp's log, kept instead of printed: the last error line explains a failed call.

use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, Once, PoisonError};

use ggml_sys as sys;

static LAST: Mutex<String> = Mutex::new(String::new());
static ONCE: Once = Once::new();

/// Takes over the log of the copy of llama.cpp inside this library. Its own log callback is global, hence the static.
pub(super) fn capture() {
    // SAFETY: the callback has the type that llama.cpp asks for and needs no user data.
    ONCE.call_once(|| unsafe { sys::llama_log_set(Some(keep), std::ptr::null_mut()) });
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The last error or warning.
pub(super) fn last() -> String {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_empty() { "no reason given".to_owned() } else { last.clone() }
}

unsafe extern "C" fn keep(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() || (level != sys::GGML_LOG_LEVEL_ERROR && level != sys::GGML_LOG_LEVEL_WARN) {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated line that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line = text.trim();
    if !line.is_empty()
        && let Ok(mut last) = LAST.lock()
    {
        line.clone_into(&mut last);
    }
}
