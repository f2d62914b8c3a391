use std::ffi::c_char;

use super::arguments::{some, text};
use super::engine::tiller_engine;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard};
use super::progress::{reporter, tiller_progress};
use super::text::tiller_text;
use crate::eval::evaluate::evaluate;

/// Evaluates the model with features from files and others that are fitted on the spot.
///
/// `request` is JSON. {"evaluate": "entanglement"} asks whether features say one concept each, and whether steering by
/// one leaves the others alone (arXiv 2512.15134), on built-in sentences in which two concepts are correlated by "rho"
/// (a list of numbers from 0 to 1), or on "data", a JSONL file of {"sentence": "...", "concept": true, ...}, grouped by
/// "attributes". Other keys: "sentences", "test", "layer", "read_layer", "pooling" ("last", "mean"), "files"
/// (dictionaries, learned features, coders), "fit" (a list of "topk", "batchtopk", "relu", "ssae", "conca", "neurons",
/// "diff_mean", "probe"), "n_features", "k", "steps", "columns", "steer", "strength", "pairs", "random", "generate",
/// "seed", "threads"; all may be left out. `*report` is JSON: for each correlation and featurizer MCC, k-sparse
/// probing, DCI, effects, selectivity, leak and additivity. Open the engine with several sequences: sentences are read
/// side by side. No plan is in force afterwards; progress counts sentences.
///
/// On success `*report` owns a text, to be freed with tiller_text_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_evaluate(
    engine: Option<&mut tiller_engine>,
    request: *const c_char,
    progress: Option<&tiller_progress>,
    report: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let (engine, report) = (&mut some(engine, "engine")?.0, some(report, "report")?);
        // SAFETY: the header requires a C string.
        let request = unsafe { text(request, "request") }?;
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let json = evaluate(engine, request, &mut progress)?;
        report.write(Some(Box::new(tiller_text::from(json.as_str()))));
        Ok(())
    })
}
