use std::ffi::{CStr, CString, c_char};

use crate::error::{Error, Kind};

/// Result of every call that can fail. 0 is success; names are stable, values are never reused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // C reads the names
pub enum tiller_status {
    /// The call did what it says.
    TILLER_OK = 0,
    /// An argument broke the documented contract (NULL, wrong length, out of range).
    TILLER_E_ARGUMENT = 1,
    /// The operating system refused: a file is missing, unreadable, or the disk is full.
    TILLER_E_IO = 2,
    /// A file or text is not what its format says it should be.
    TILLER_E_FORMAT = 3,
    /// The input is valid, but this build or version cannot handle it.
    TILLER_E_UNSUPPORTED = 4,
    /// Two things that were put together do not belong together (dictionary and model, plan and dictionary).
    TILLER_E_MISMATCH = 5,
    /// A computation met NaN, infinity or a singular system.
    TILLER_E_NUMERIC = 6,
    /// Your progress or stream function asked to stop.
    TILLER_E_CANCELLED = 7,
    /// A bug in this library, or a system out of threads. The handles passed in may only be freed.
    TILLER_E_PANIC = 8,
}

/// Why a call failed. Owned by the caller; free with tiller_error_free().
///
/// Thread safety: immutable; may be read from any thread.
pub struct tiller_error {
    pub(super) status: tiller_status,
    message: CString,
    hint: Option<CString>,
}

impl From<Kind> for tiller_status {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Argument => Self::TILLER_E_ARGUMENT,
            Kind::Io => Self::TILLER_E_IO,
            Kind::Format => Self::TILLER_E_FORMAT,
            Kind::Unsupported => Self::TILLER_E_UNSUPPORTED,
            Kind::Mismatch => Self::TILLER_E_MISMATCH,
            Kind::Numeric => Self::TILLER_E_NUMERIC,
            Kind::Cancelled => Self::TILLER_E_CANCELLED,
            Kind::Panic => Self::TILLER_E_PANIC,
        }
    }
}

impl From<Error> for tiller_error {
    fn from(error: Error) -> Self {
        let status = error.kind().into();
        let hint = error.hint().map(super::text::c_string);
        Self { status, message: super::text::c_string(error.message()), hint }
    }
}

/// The message: English, UTF-8, no final newline; it names the file, the place, what was expected and what was
/// found. Never NULL.
///
/// Borrowed: valid until `error` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_error_message(error: Option<&tiller_error>) -> *const c_char {
    error.map_or(c"no error".as_ptr(), |e| e.message.as_ptr())
}

/// What to do about it: one line, no final period. NULL where there is no more to say than the message does.
///
/// Borrowed: valid until `error` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_error_hint(error: Option<&tiller_error>) -> *const c_char {
    error.and_then(|e| e.hint.as_deref()).map_or(std::ptr::null(), CStr::as_ptr)
}

/// The status that came with `error`. TILLER_OK if `error` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_error_status(error: Option<&tiller_error>) -> tiller_status {
    error.map_or(tiller_status::TILLER_OK, |e| e.status)
}

/// Frees `error`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_error_free(error: Option<Box<tiller_error>>) {
    drop(error);
}
