use std::ffi::c_char;

use super::arguments::{some, text};
use super::dictionary::tiller_dictionary;
use super::engine::tiller_engine;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard};
use super::progress::{reporter, tiller_progress};
use super::text::tiller_text;
use crate::choose::learn::{Request, learn};
use crate::error::Error;

/// Learns an instruction from what it does to the model: features of its layers, which make the model do it without being told.
///
/// `request` is JSON: {"instruction": "Talk about the sea."}, and if wanted "messages" and "unless" (lists of what users say;
/// on the latter the features stay silent), "place" ("auto", "system", "appended", "front"), "avoid", "answers",
/// "max_tokens", "seed", "minutes", "threads", "counts_as". `*report` is JSON: the layers, form and strength that were chosen,
/// all that was tried, what it does to messages that nothing has seen, answers, and a "plan" for tiller_plan_parse() in which
/// `*out` is the only dictionary. Open the engine with several sequences: answers are written side by side. No plan is in
/// force afterwards; progress counts answers.
///
/// On success `*out` owns a new dictionary, to be freed with tiller_dictionary_free(), after tiller_dictionary_save(), and
/// `*report`, which may be NULL, a text, to be freed with tiller_text_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_learn(
    engine: Option<&mut tiller_engine>,
    request: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_dictionary>,
    report: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let (engine, out) = (&mut some(engine, "engine")?.0, some(out, "out")?);
        // SAFETY: the header requires a C string.
        let request = Request::from_json(unsafe { text(request, "request") }?)?;
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let made = learn(engine, &request, &mut progress)?;
        let json = serde_json::to_string(&made.report).map_err(|e| Error::numeric(format!("report: {e}")))?;
        if let Some(report) = report {
            report.write(Some(Box::new(tiller_text::from(json.as_str()))));
        }
        out.write(Some(Box::new(made.dictionary.into())));
        Ok(())
    })
}
