use std::ffi::c_char;

use super::arguments::{some, text};
use super::engine::tiller_engine;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard};
use super::progress::{reporter, tiller_progress};
use super::text::tiller_text;
use crate::eval::evaluate::evaluate;

/// Evaluates features, dictionaries and plans on the model.
///
/// `request` is JSON. {"evaluate": "entanglement"} asks whether features say one concept each, and whether steering by
/// one leaves the others alone (arXiv 2512.15134), on built-in sentences in which two concepts are correlated by "rho"
/// (a list of numbers from 0 to 1), or on "data", a JSONL file of {"sentence": "...", "concept": true, ...}, grouped by
/// "attributes". Other keys: "sentences", "test", "layer", "read_layer", "pooling" ("last", "mean"), "files"
/// (dictionaries, learned features, coders), "fit" (a list of "topk", "batchtopk", "relu", "ssae", "conca", "neurons",
/// "diff_mean", "probe"), "n_features", "k", "steps", "columns", "steer", "strength", "pairs", "random", "generate",
/// "seed", "threads"; all may be left out. `*report` is JSON: for each correlation and featurizer MCC, k-sparse
/// probing, DCI, effects, selectivity, leak and additivity.
///
/// {"evaluate": "quality", "dictionary": "d.gguf", "text": ["t.txt"]} asks how good a dictionary is on the model:
/// sparsity, reconstruction, what the model notices of reconstructions, density, directions, k-sparse probing of
/// "labelled" texts by their key "label", and absorption on "words". Other keys: "max_tokens", "score_tokens",
/// "window", "labelled_tokens", "seed".
///
/// {"evaluate": "consistency", "dictionary": "d.gguf"} asks whether paraphrases are answered alike, and what turning
/// the features that tell does and costs (arXiv 2501.11036); the report has the plan. Other keys: "layer" (in place of
/// a dictionary), "groups", "chat", "max_tokens", "features", "strengths", "phase", "fit", "choose", "slack",
/// "controls", "questions", "seed".
///
/// {"evaluate": "explained", "dictionary": "d.gguf", "rows": ["dir"], "held_out": ["dir"]} compares six ways to explain
/// features. Other keys: "final_rows", "features", "shown", "vocabulary", "spans", "push", "seed".
///
/// {"evaluate": "universality", "model_a": "…", "dictionary_a": "…", "model_b": "…", "dictionary_b": "…", "text":
/// ["t.txt"]} asks whether the features of two dictionaries are the same (arXiv 2410.06981); it opens its own models.
/// {"evaluate": "card", "plan": "p.json"} makes the steering card of a plan, as JSON. examples/command.md names the
/// commands with the same options.
///
/// Open the engine with several sequences: texts are read side by side. No plan is in force afterwards; progress counts
/// texts or tokens.
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
