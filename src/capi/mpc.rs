use std::ffi::c_char;

use super::arguments::{Report, report, slice, some, text};
use super::coder::tiller_coder;
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::progress::{reporter, tiller_progress};
use super::text::tiller_text;
use crate::error::Error;
use crate::eval::mpc::{Concept, Mpc, of_coder, of_dictionary};

/// Concepts, as relations between words: the rows of words without and with each concept, and the log-odds that a logistic
/// regression gives them. What the MPC of a dictionary or coder is measured with (arXiv 2601.20420).
///
/// Its life: tiller_concepts_new() and tiller_concepts_add() for rows of any origin, or tiller_engine_concepts();
/// tiller_concepts_free().
///
/// Thread safety: immutable but for tiller_concepts_add(); may be read from several threads at once.
pub struct tiller_concepts {
    pub(super) d_model: usize,
    pub(super) all: Vec<Concept>,
}

/// No concepts yet, of rows of width `d_model`.
///
/// On success `*out` owns a new object; free it with tiller_concepts_free().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_concepts_new(
    d_model: usize,
    out: Out<'_, tiller_concepts>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || match d_model {
        0 => Err(Error::argument("d_model: expected a width from 1, found 0")),
        _ => Ok(tiller_concepts { d_model, all: Vec::new() }),
    })
}

/// Adds a concept: `n_rows` floats, rows of d_model one after another, one a word (that of its last token, say), and for
/// each word whether it has the concept, 1 or 0. Fits the regression.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_concepts_add(
    concepts: Option<&mut tiller_concepts>,
    name: *const c_char,
    rows: *const f32,
    n_rows: usize,
    labels: *const u8,
    n_labels: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let concepts = some(concepts, "concepts")?;
        // SAFETY: the header requires a C string, `n_rows` floats and `n_labels` bytes.
        let (name, rows, labels) =
            unsafe { (text(name, "name")?, slice(rows, n_rows, "rows")?, slice(labels, n_labels, "labels")?) };
        let labels = labels.iter().map(|&label| label != 0).collect();
        concepts.all.push(Concept::new(name, rows.to_vec(), concepts.d_model, labels)?);
        Ok(())
    })
}

/// Number of concepts. 0 if `concepts` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_concepts_length(concepts: Option<&tiller_concepts>) -> usize {
    concepts.map_or(0, |c| c.all.len())
}

/// Frees `concepts`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_concepts_free(concepts: Option<Box<tiller_concepts>>) {
    drop(concepts);
}

/// How well single features say what concepts are: every concept matched with a feature of its own, so that the mean
/// correlation is largest.
///
/// Its life: tiller_dictionary_mpc() or tiller_coder_mpc(); tiller_mpc_get() for figures, tiller_mpc_match() for every
/// concept's feature; tiller_mpc_free().
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_mpc(Mpc);

/// Mean correlations with the concepts' log-odds, 0 to 1. Compare only featurizers of about the same number of features.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_mpc_figures {
    /// Set it to sizeof(tiller_mpc_figures) before the call.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// That of exp(code - max): the paper's.
    pub mpc: f64,
    /// That of the codes as they are, matched anew.
    pub raw: f64,
    /// `mpc` for labels dealt anew: what chance gives.
    pub shuffled: f64,
    /// `raw` for labels dealt anew.
    pub shuffled_raw: f64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_mpc_figures {
    const NAME: &'static str = "tiller_mpc_figures";
}

/// Matches concepts with the features of `dictionary`. `threads` 0 means 1. Progress counts concepts.
///
/// On success `*out` owns a new object; free it with tiller_mpc_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_mpc(
    dictionary: Option<&tiller_dictionary>,
    concepts: Option<&tiller_concepts>,
    threads: u32,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_mpc>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let (dictionary, concepts) = (&some(dictionary, "dictionary")?.dictionary, some(concepts, "concepts")?);
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        of_dictionary(&concepts.all, dictionary, threads.max(1) as usize, &mut progress).map(tiller_mpc)
    })
}

/// Matches concepts with the codes of `coder`. `threads` 0 means all that the machine has. Progress counts concepts.
///
/// On success `*out` owns a new object; free it with tiller_mpc_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_coder_mpc(
    coder: Option<&tiller_coder>,
    concepts: Option<&tiller_concepts>,
    threads: u32,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_mpc>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let (coder, concepts) = (&some(coder, "coder")?.0, some(concepts, "concepts")?);
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        of_coder(&concepts.all, coder, threads as usize, &mut progress).map(tiller_mpc)
    })
}

/// The figures.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_mpc_get(
    mpc: Option<&tiller_mpc>,
    out: *mut tiller_mpc_figures,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let &Mpc { mpc, raw, shuffled, shuffled_raw, .. } = &some(mpc, "mpc")?.0;
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, tiller_mpc_figures { size: 0, reserved: 0, mpc, raw, shuffled, shuffled_raw }) }
    })
}

/// What concept `i` was matched with: its name, the feature, and their correlation.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_mpc_match(
    mpc: Option<&tiller_mpc>,
    i: usize,
    feature: Option<&mut u32>,
    correlation: Option<&mut f64>,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let matches = &some(mpc, "mpc")?.0.matches;
        let n = matches.len();
        let found = matches.get(i).ok_or_else(|| Error::argument(format!("match {i} of {n}")))?;
        feature.into_iter().for_each(|slot| *slot = found.feature as u32);
        correlation.into_iter().for_each(|slot| *slot = found.correlation);
        Ok(tiller_text::from(found.name.as_str()))
    })
}

/// Frees `mpc`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_mpc_free(mpc: Option<Box<tiller_mpc>>) {
    drop(mpc);
}
