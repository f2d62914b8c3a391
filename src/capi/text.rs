use std::ffi::{CString, c_char};

/// A text that a call made: UTF-8, unless the call says otherwise, followed by a NUL. Owned by the caller; free with
/// tiller_text_free().
///
/// Thread safety: immutable; may be read from any thread.
pub struct tiller_text(Vec<u8>);

/// A NUL cannot stand inside a C string: it becomes U+FFFD.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

impl From<&str> for tiller_text {
    fn from(text: &str) -> Self {
        Self(c_string(text).into_bytes_with_nul())
    }
}

impl From<Vec<u8>> for tiller_text {
    fn from(mut bytes: Vec<u8>) -> Self {
        bytes.push(0);
        Self(bytes)
    }
}

/// The text. "" if `text` is NULL. Borrowed: valid until `text` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_text_data(text: Option<&tiller_text>) -> *const c_char {
    text.map_or(c"".as_ptr(), |t| t.0.as_ptr().cast())
}

/// Its length in bytes, without the NUL. 0 if `text` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_text_length(text: Option<&tiller_text>) -> usize {
    text.map_or(0, |t| t.0.len() - 1)
}

/// Frees `text`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_text_free(text: Option<Box<tiller_text>>) {
    drop(text);
}

/// The version of the library that runs, such as "0.1.0". Never NULL; static.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Whether this library was built with its own llama.cpp, so that the functions under TILLER_ENGINE are in it.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_has_engine() -> bool {
    cfg!(feature = "engine")
}
