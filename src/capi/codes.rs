use std::ffi::c_char;

use super::arguments::{Report, opt_text, path, report, some};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::guard::{ErrorOut, guard};
use super::progress::{reporter, tiller_progress};
use crate::eval::codes::{decode_file, encode_file};

/// What was encoded.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_encoded {
    /// Set it to sizeof(tiller_encoded) before the call.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Rows.
    pub n_rows: u64,
    /// Active features of all rows: rows times L0.
    pub n_active: u64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_encoded {
    const NAME: &'static str = "tiller_encoded";
}

/// Encodes the rows in a file (.npy, .npz, .safetensors, torch; one array [n, d_model]) or a directory of harvested rows,
/// on `threads` threads (0 means 1). `name` says which array, if the file holds several, or is NULL. Codes go to `file`:
/// dense [n, n_features] if it ends in .npy; if in .safetensors, sparse as `row`, `feature` (u32) and `value` (f32), and
/// `shape` (i64). Progress counts rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_encode_file(
    dictionary: Option<&tiller_dictionary>,
    rows: *const c_char,
    name: *const c_char,
    file: *const c_char,
    threads: u32,
    progress: Option<&tiller_progress>,
    out: *mut tiller_encoded,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let dictionary = &some(dictionary, "dictionary")?.dictionary;
        // SAFETY: the header requires C strings, and a function that may be called.
        let (rows, name, file, mut progress) =
            unsafe { (path(rows, "rows")?, opt_text(name, "name")?, path(file, "file")?, reporter(progress)) };
        let done = encode_file(dictionary, rows, name, file, threads.max(1) as usize, &mut progress)?;
        let found = tiller_encoded { size: 0, reserved: 0, n_rows: done.n_rows as u64, n_active: done.n_active as u64 };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, found) }
    })
}

/// Decodes the codes in a file, dense or sparse as tiller_dictionary_encode_file() writes them, to rows [n, d_out] in the
/// .npy file `file`; their number goes to `*n_rows`, which may be NULL. `rows` are the rows that were encoded, for
/// dictionaries that normalise each row by itself or have a skip connection, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_decode_file(
    dictionary: Option<&tiller_dictionary>,
    codes: *const c_char,
    rows: *const c_char,
    file: *const c_char,
    n_rows: Option<&mut u64>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let dictionary = &some(dictionary, "dictionary")?.dictionary;
        // SAFETY: the header requires C strings, or NULL for `rows`.
        let (codes, file) = unsafe { (path(codes, "codes")?, path(file, "file")?) };
        // SAFETY: as above.
        let rows = if rows.is_null() { None } else { Some(unsafe { path(rows, "rows") }?) };
        let n = decode_file(dictionary, codes, rows, file)?;
        if let Some(out) = n_rows {
            *out = n as u64;
        }
        Ok(())
    })
}
