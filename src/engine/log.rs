//! llama.cpp's log, kept instead of printed: its first error of a call says why the call failed. Later ones only say that
//! it did.
//!
//! llama.cpp knows one log for the process, so its lines are kept for the thread that they come from: two engines that are
//! opened side by side do not mix their reasons.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Once;

use ggml_sys as sys;

thread_local! {
    static LINES: RefCell<Lines> = const { RefCell::new(Lines { error: String::new(), warning: String::new() }) };
}

struct Lines {
    /// The first error.
    error: String,
    /// The last warning before it.
    warning: String,
}

/// Takes over the log of the copy of llama.cpp inside this library, and forgets what this thread heard before.
pub(super) fn start() {
    static ONCE: Once = Once::new();
    // SAFETY: the callback has the type that llama.cpp asks for and needs no user data.
    ONCE.call_once(|| unsafe { sys::llama_log_set(Some(keep), std::ptr::null_mut()) });
    LINES.with_borrow_mut(|lines| {
        lines.error.clear();
        lines.warning.clear();
    });
}

/// Why the last call of this thread failed.
pub(super) fn reason() -> String {
    LINES.with_borrow(|lines| {
        let line = if lines.error.is_empty() { &lines.warning } else { &lines.error };
        if line.is_empty() { "no reason given".to_owned() } else { plain(line).to_owned() }
    })
}

/// A line without the names of llama.cpp's functions in front of it.
fn plain(line: &str) -> &str {
    let name = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:~".contains(&b));
    let mut rest = line;
    while let Some((head, tail)) = rest.split_once(": ")
        && (head == "error loading model" || (head.contains('_') && name(head)))
    {
        rest = tail.trim_start();
    }
    rest
}

unsafe extern "C" fn keep(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() || (level != sys::GGML_LOG_LEVEL_ERROR && level != sys::GGML_LOG_LEVEL_WARN) {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated line that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line = text.trim();
    // A thread that ends has no place for lines any more.
    let _ = LINES.try_with(|lines| {
        let Ok(mut lines) = lines.try_borrow_mut() else { return };
        if line.is_empty() || !lines.error.is_empty() {
            return;
        }
        let slot = if level == sys::GGML_LOG_LEVEL_ERROR { &mut lines.error } else { &mut lines.warning };
        line.clone_into(slot);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(level: sys::ggml_log_level, text: &CStr) {
        // SAFETY: a C string.
        unsafe { keep(level, text.as_ptr(), std::ptr::null_mut()) }
    }

    #[test]
    fn the_first_error_of_this_thread_is_the_reason() {
        start();
        assert_eq!(reason(), "no reason given");
        say(sys::GGML_LOG_LEVEL_WARN, c"load: odd\n");
        assert_eq!(reason(), "load: odd");
        say(sys::GGML_LOG_LEVEL_ERROR, c"llama_model_load: error loading model: missing tensor 'a: b'\n");
        say(sys::GGML_LOG_LEVEL_ERROR, c"llama_model_load_from_file_impl: failed to load model\n");
        std::thread::spawn(|| say(sys::GGML_LOG_LEVEL_ERROR, c"another engine's\n")).join().unwrap();
        assert_eq!(reason(), "missing tensor 'a: b'");
        start();
        assert_eq!(reason(), "no reason given");
    }
}
