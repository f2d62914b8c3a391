use std::collections::BTreeMap;
use std::ffi::c_char;

use super::arguments::{Report, report, slice, some, text};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::progress::{reporter, tiller_progress};
use super::text::tiller_text;
use crate::error::Error;
use crate::eval::diagnosis::{Diagnosis, diagnose};
use crate::hook_point::HookPoint;

/// Rows of one hook point of a model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_hook_rows {
    /// Its name, such as "blocks.19.hook_resid_post".
    pub hook: *const c_char,
    /// Rows of d_model floats, one after the other, none of them of position 0.
    pub data: *const f32,
    /// Number of floats.
    pub n_data: usize,
}

/// Whether a dictionary fits rows of a model, and if not, what is most likely wrong: found by trying what could be.
///
/// Its life: tiller_dictionary_diagnose() or tiller_engine_diagnose(); tiller_diagnosis_get() for figures,
/// tiller_diagnosis_verdict() for a sentence, tiller_diagnosis_tried() for every alternative; tiller_diagnosis_free().
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_diagnosis(pub(super) Diagnosis);

/// What was found, in figures.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_diagnosed {
    /// Set it to sizeof(tiller_diagnosed) before the call.
    pub size: u32,
    /// 1 if the dictionary fits as it is.
    pub fits: u32,
    /// 1 if a cause was found: it is the first alternative of tiller_diagnosis_tried().
    pub has_cause: u32,
    /// Alternatives that were tried.
    pub n_tried: u32,
    /// Mean number of active features in a row.
    pub l0: f64,
    /// The one that the dictionary's file promises; 0 if it promises none.
    pub promised_l0: f64,
    /// Fraction of variance unexplained; infinite where it cannot be told.
    pub fvu: f64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_diagnosed {
    const NAME: &'static str = "tiller_diagnosed";
}

/// Tries `dictionary`, and what may be wrong with it, on rows of some hook points: its own, and others that it may belong
/// to. Some hundred rows of each do. Progress counts alternatives.
///
/// On success `*out` owns a new object; free it with tiller_diagnosis_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_diagnose(
    dictionary: Option<&tiller_dictionary>,
    rows: *const tiller_hook_rows,
    n_rows: usize,
    threads: u32,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_diagnosis>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let dictionary = &some(dictionary, "dictionary")?.dictionary;
        let mut points: BTreeMap<HookPoint, Vec<f32>> = BTreeMap::new();
        // SAFETY: the header requires `n_rows` structs.
        for rows in unsafe { slice(rows, n_rows, "rows") }? {
            // SAFETY: the header requires a C string, and as many floats as the struct says.
            let (hook, data) = unsafe { (text(rows.hook, "hook")?, slice(rows.data, rows.n_data, "data")?) };
            let d_model = dictionary.d_model();
            if !data.len().is_multiple_of(d_model) {
                let n = data.len();
                return Err(Error::argument(format!(
                    "{hook}: data holds {n} values; expected whole rows of {d_model}"
                )));
            }
            points.entry(hook.parse()?).or_default().extend_from_slice(data);
        }
        // SAFETY: the header requires a function that may be called.
        let mut progress = unsafe { reporter(progress) };
        diagnose(dictionary, &points, threads.max(1) as usize, &mut progress).map(tiller_diagnosis)
    })
}

/// The figures of the dictionary as it was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_diagnosis_get(
    diagnosis: Option<&tiller_diagnosis>,
    out: *mut tiller_diagnosed,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let d = &some(diagnosis, "diagnosis")?.0;
        let found = tiller_diagnosed {
            size: 0,
            fits: d.fits().into(),
            has_cause: d.cause.is_some().into(),
            n_tried: d.tried.len() as u32,
            l0: d.given.l0,
            promised_l0: d.promised_l0.unwrap_or(0.0),
            fvu: d.given.fvu,
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, found) }
    })
}

/// The verdict, in a sentence with figures: that it fits, or what is most likely wrong.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_diagnosis_verdict(
    diagnosis: Option<&tiller_diagnosis>,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || Ok(tiller_text::from(some(diagnosis, "diagnosis")?.0.to_string().as_str())))
}

/// Alternative `i`, the best one first: what would be right, in words, and the L0 and FVU that it gives.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_diagnosis_tried(
    diagnosis: Option<&tiller_diagnosis>,
    i: usize,
    l0: Option<&mut f64>,
    fvu: Option<&mut f64>,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let tried = &some(diagnosis, "diagnosis")?.0.tried;
        let (cause, fit) =
            tried.get(i).ok_or_else(|| Error::argument(format!("alternative {i} of {}", tried.len())))?;
        for (out, value) in [(l0, fit.l0), (fvu, fit.fvu)] {
            if let Some(out) = out {
                *out = value;
            }
        }
        Ok(tiller_text::from(cause.to_string().as_str()))
    })
}

/// Frees `diagnosis`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_diagnosis_free(diagnosis: Option<Box<tiller_diagnosis>>) {
    drop(diagnosis);
}
