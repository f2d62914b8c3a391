use std::ffi::{CString, c_char};

use super::arguments::{expect_len, path, slice_mut, some};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::text::c_string;
use crate::activations::Activations;
use crate::error::{Error, Result};

/// Rows of a residual stream that were harvested: a directory of safetensors shards, mapped. NumPy and PyTorch read
/// them without us.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_activations {
    pub(super) rows: Activations,
    model: CString,
    fingerprint: CString,
}

/// Opens a directory of shards.
///
/// On success `*out` owns a new object; free it with tiller_activations_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_activations_open(
    directory: *const c_char,
    out: Out<'_, tiller_activations>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires a C string.
        let rows = Activations::open(unsafe { path(directory, "directory") }?)?;
        let (model, fingerprint) = (c_string(&rows.meta().model), c_string(&rows.meta().model_fingerprint));
        Ok(tiller_activations { rows, model, fingerprint })
    })
}

/// Number of rows. 0 if `activations` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_activations_n_rows(activations: Option<&tiller_activations>) -> usize {
    activations.map_or(0, |a| a.rows.n_rows())
}

/// Width of a row. 0 if `activations` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_activations_d_model(activations: Option<&tiller_activations>) -> usize {
    activations.map_or(0, |a| a.rows.d_model())
}

/// The block after which the rows were read. 0 if `activations` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_activations_layer(activations: Option<&tiller_activations>) -> usize {
    activations.map_or(0, |a| a.rows.meta().layer)
}

/// The name of the model that they are of. Valid until `activations` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_activations_model(activations: Option<&tiller_activations>) -> *const c_char {
    activations.map_or(c"".as_ptr(), |a| a.model.as_ptr())
}

/// The fingerprint of that model. Valid until `activations` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_activations_fingerprint(activations: Option<&tiller_activations>) -> *const c_char {
    activations.map_or(c"".as_ptr(), |a| a.fingerprint.as_ptr())
}

/// Whether the whole text was harvested.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_activations_complete(activations: Option<&tiller_activations>) -> bool {
    activations.is_some_and(|a| a.rows.meta().complete)
}

fn check(activations: &tiller_activations, i: usize) -> Result<()> {
    let n = activations.rows.n_rows();
    if i < n { Ok(()) } else { Err(Error::argument(format!("row {i} of {n}"))) }
}

/// Row `i` as `n` = d_model floats, with its token and its position in its window (each may be NULL).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_activations_row(
    activations: Option<&tiller_activations>,
    i: usize,
    row: *mut f32,
    n: usize,
    token: Option<&mut i32>,
    position: Option<&mut i32>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let activations = some(activations, "activations")?;
        check(activations, i)?;
        expect_len(n, activations.rows.d_model(), "row")?;
        // SAFETY: the header requires `n` writable floats.
        activations.rows.row(i, unsafe { slice_mut(row, n, "row") }?);
        if let Some(token) = token {
            *token = activations.rows.token(i);
        }
        if let Some(position) = position {
            *position = activations.rows.position(i);
        }
        Ok(())
    })
}

/// Frees `activations`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_activations_free(activations: Option<Box<tiller_activations>>) {
    drop(activations);
}
