use super::arguments::{expect_len, slice, slice_mut, some};
use super::dictionary::{check_feature, tiller_dictionary};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use crate::dictionary::{Dictionary, Slice};
use crate::error::{Error, Result};
use crate::num::check_finite;

/// An active feature of a row.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_code {
    /// Its number.
    pub feature: u32,
    /// Its activation, above 0.
    pub activation: f32,
}

/// Encodes one row of `n_row` = d_model floats to `n_activations` = n_features activations.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_encode(
    dictionary: Option<&tiller_dictionary>,
    row: *const f32,
    n_row: usize,
    activations: *mut f32,
    n_activations: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let dictionary = &some(dictionary, "dictionary")?.dictionary;
        dictionary.check_one_layer("encoding")?;
        expect_len(n_row, dictionary.d_model(), "row")?;
        expect_len(n_activations, dictionary.n_features(), "activations")?;
        // SAFETY: the header requires so many floats, and that the arrays do not overlap.
        let (row, out) = unsafe { (slice(row, n_row, "row")?, slice_mut(activations, n_activations, "activations")?) };
        check_finite(row, row.len(), 0)?;
        dictionary.encode(row, out);
        Ok(())
    })
}

/// The active features of each of many rows.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_codes {
    offsets: Vec<usize>,
    codes: Vec<tiller_code>,
}

/// Encodes `n_data` / d_model rows, row by row in `data`, on `threads` threads (0 means 1).
///
/// On success `*out` owns a new object; free it with tiller_codes_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_encode_rows(
    dictionary: Option<&tiller_dictionary>,
    data: *const f32,
    n_data: usize,
    threads: u32,
    out: Out<'_, tiller_codes>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let dictionary = &some(dictionary, "dictionary")?.dictionary;
        dictionary.check_one_layer("encoding")?;
        let d_model = dictionary.d_model();
        if !n_data.is_multiple_of(d_model) {
            return Err(Error::argument(format!("data holds {n_data} values; expected whole rows of {d_model}")));
        }
        // SAFETY: the header requires `n_data` floats.
        let rows = unsafe { slice(data, n_data, "data") }?;
        check_finite(rows, d_model, 0)?;
        let codes = dictionary.encode_batch(rows, threads.max(1) as usize);
        let entries = codes.entries().iter();
        let entries = entries.map(|&(feature, activation)| tiller_code { feature, activation }).collect();
        Ok(tiller_codes { offsets: codes.offsets().to_vec(), codes: entries })
    })
}

/// Number of rows. 0 if `codes` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_codes_n_rows(codes: Option<&tiller_codes>) -> usize {
    codes.map_or(0, |c| c.offsets.len().saturating_sub(1))
}

/// The active features of row `i`, ascending, and their number in `*n`; NULL and 0 if there is no such row. Valid until
/// `codes` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_codes_row(
    codes: Option<&tiller_codes>,
    i: usize,
    n: Option<&mut usize>,
) -> *const tiller_code {
    let row = codes.and_then(|c| c.codes.get(*c.offsets.get(i)?..*c.offsets.get(i.checked_add(1)?)?));
    if let Some(n) = n {
        *n = row.map_or(0, <[_]>::len);
    }
    row.map_or(std::ptr::null(), <[_]>::as_ptr)
}

/// Frees `codes`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_codes_free(codes: Option<Box<tiller_codes>>) {
    drop(codes);
}

/// Decodes `n_codes` active features to `n_row` = d_out floats (d_model but of some transcoders), in the units of the
/// dictionary's input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_decode(
    dictionary: Option<&tiller_dictionary>,
    codes: *const tiller_code,
    n_codes: usize,
    row: *mut f32,
    n_row: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let dictionary = &some(dictionary, "dictionary")?.dictionary;
        dictionary.check_one_layer("decoding")?;
        expect_len(n_row, dictionary.d_out(), "row")?;
        // SAFETY: the header requires so many structs and floats, and that the arrays do not overlap.
        let (codes, out) = unsafe { (slice(codes, n_codes, "codes")?, slice_mut(row, n_row, "row")?) };
        for code in codes {
            check_feature(dictionary, code.feature)?;
        }
        let codes: Vec<(u32, f32)> = codes.iter().map(|c| (c.feature, c.activation)).collect();
        dictionary.decode(&codes, out);
        Ok(())
    })
}

/// The encoder row of a feature, as `n_row` = d_model floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_encoder_row(
    dictionary: Option<&tiller_dictionary>,
    feature: u32,
    row: *mut f32,
    n_row: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires `n_row` writable floats.
    guard(err, || unsafe { matrix_row(dictionary, feature, row, n_row, Dictionary::d_model, Dictionary::encoder_row) })
}

/// The decoder row of a feature, its direction, as `n_row` = d_out floats (d_model but of some transcoders).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_decoder_row(
    dictionary: Option<&tiller_dictionary>,
    feature: u32,
    row: *mut f32,
    n_row: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires `n_row` writable floats.
    guard(err, || unsafe { matrix_row(dictionary, feature, row, n_row, Dictionary::d_out, Dictionary::decoder_row) })
}

/// # Safety
/// `row` holds `n_row` writable floats.
unsafe fn matrix_row(
    dictionary: Option<&tiller_dictionary>,
    feature: u32,
    row: *mut f32,
    n_row: usize,
    width: fn(&Dictionary) -> usize,
    read: fn(&Dictionary, usize, &mut [f32]),
) -> Result<()> {
    let dictionary = &some(dictionary, "dictionary")?.dictionary;
    let feature = check_feature(dictionary, feature)?;
    expect_len(n_row, width(dictionary), "row")?;
    // SAFETY: the caller's contract.
    read(dictionary, feature, unsafe { slice_mut(row, n_row, "row") }?);
    Ok(())
}

/// A dictionary of `n_features` features of another, in that order, renumbered from 0.
///
/// On success `*out` owns a new dictionary; free it with tiller_dictionary_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_select(
    dictionary: Option<&tiller_dictionary>,
    features: *const u32,
    n_features: usize,
    out: Out<'_, tiller_dictionary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_features` numbers.
        let features = unsafe { slice(features, n_features, "features") }?;
        some(dictionary, "dictionary")?.dictionary.select(features).map(tiller_dictionary::from)
    })
}

/// A few features of a dictionary, to encode and edit them at the cost of their own rows.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_slice(Slice);

/// Takes `n_features` features out of the dictionary. Keeps its own reference.
///
/// On success `*out` owns a new slice; free it with tiller_slice_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_slice(
    dictionary: Option<&tiller_dictionary>,
    features: *const u32,
    n_features: usize,
    out: Out<'_, tiller_slice>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_features` numbers.
        let features = unsafe { slice(features, n_features, "features") }?;
        some(dictionary, "dictionary")?.dictionary.slice(features).map(tiller_slice)
    })
}

/// Number of features. 0 if `slice` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_slice_length(slice: Option<&tiller_slice>) -> usize {
    slice.map_or(0, |s| s.0.len())
}

/// Whether tiller_slice_encode() gives exactly what tiller_dictionary_encode() gives. False for TopK dictionaries, whose
/// slices go by a threshold for each feature.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_slice_is_exact(slice: Option<&tiller_slice>) -> bool {
    slice.is_some_and(|s| s.0.is_exact())
}

/// Encodes one row of `n_row` = d_model floats to the activations of the slice's features, in their order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_slice_encode(
    features: Option<&tiller_slice>,
    row: *const f32,
    n_row: usize,
    activations: *mut f32,
    n_activations: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let features = &some(features, "features")?.0;
        expect_len(n_row, features.dictionary().d_model(), "row")?;
        expect_len(n_activations, features.len(), "activations")?;
        // SAFETY: the header requires so many floats, and that the arrays do not overlap.
        let (row, out) = unsafe { (slice(row, n_row, "row")?, slice_mut(activations, n_activations, "activations")?) };
        check_finite(row, row.len(), 0)?;
        features.encode(row, out);
        Ok(())
    })
}

/// Changes the activations of the slice's features in a row by `n_deltas` = tiller_slice_length() amounts, and keeps what
/// the dictionary does not explain: row += sum of deltas[j] * decoder row of feature j.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_slice_edit(
    features: Option<&tiller_slice>,
    deltas: *const f32,
    n_deltas: usize,
    row: *mut f32,
    n_row: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let features = &some(features, "features")?.0;
        expect_len(n_row, features.dictionary().d_out(), "row")?;
        expect_len(n_deltas, features.len(), "deltas")?;
        // SAFETY: the header requires so many floats, and that the arrays do not overlap.
        let (deltas, row) = unsafe { (slice(deltas, n_deltas, "deltas")?, slice_mut(row, n_row, "row")?) };
        features.edit(deltas, row);
        Ok(())
    })
}

/// Frees `slice`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_slice_free(slice: Option<Box<tiller_slice>>) {
    drop(slice);
}
