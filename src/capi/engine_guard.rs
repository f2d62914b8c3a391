use std::ffi::c_char;

use super::arguments::{some, text};
use super::engine::tiller_engine;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::progress::{reporter, tiller_progress};
use super::text::tiller_text;
use super::watched::{tiller_guard, tiller_watched};
use crate::error::{Error, Result};
use crate::guard::{Examination, Request, examine, learn};
use crate::model::Model;

/// Learns a guard: a monitor that fires on messages like some and not on messages like others, and a rule that refuses where
/// it does.
///
/// `request` is JSON: {"for": [messages to be refused], "not": [messages to be answered]}, and if wanted "name",
/// "instruction" (what the model is told where it learns what refusing is), "false_positives" (the knob), "strength" (0 tries
/// some), "messages", "max_tokens", "seed", "threads", "counts_as". `*report` is JSON: the monitor's layer and threshold, how
/// well it tells the messages apart that set it, and what strengths did. Open the engine with several sequences. No plan is in
/// force afterwards; progress counts messages.
///
/// On success `*out` owns a new guard, to be freed with tiller_guard_free(), after tiller_guard_save(), and `*report`, which
/// may be NULL, a text, to be freed with tiller_text_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_guard_learn(
    engine: Option<&mut tiller_engine>,
    request: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_guard>,
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
        let json = json(&made.report)?;
        if let Some(report) = report {
            report.write(Some(Box::new(tiller_text::from(json.as_str()))));
        }
        out.write(Some(Box::new(tiller_guard(made.guard))));
        Ok(())
    })
}

/// Examines a guard on messages that it was not learned from.
///
/// `request` is JSON: {"sets": [{"name": "mine", "refuse": true, "messages": […]}, …]}, and if wanted "max_tokens",
/// "directions" (random ones that it is held against), "prompted" (whether a system prompt is tried), "seed". The report is
/// JSON: for each set and method the shares that were refused, answered and neither, with intervals; where the monitors fire;
/// what a prompt costs. No plan is in force afterwards; progress counts answers.
///
/// On success `*out` owns a new text; free it with tiller_text_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_guard_test(
    engine: Option<&mut tiller_engine>,
    guarding: Option<&tiller_guard>,
    request: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let (engine, guarding) = (&mut some(engine, "engine")?.0, &some(guarding, "guard")?.0);
        // SAFETY: the header requires a C string.
        let request = Examination::from_json(unsafe { text(request, "request") }?)?;
        guarding.check_model(&Model::open(engine.path())?)?;
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        Ok(tiller_text::from(json(&examine(engine, guarding, &request, &mut progress)?)?.as_str()))
    })
}

/// What the monitors of the engine's plan read since the last call, and the verdicts that followed; see tiller_hook_watched().
///
/// On success `*out` owns a new object; free it with tiller_watched_free().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_engine_watched(
    engine: Option<&mut tiller_engine>,
    out: Out<'_, tiller_watched>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || Ok(some(engine, "engine")?.0.take_watched().into()))
}

fn json(report: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(report).map_err(|e| Error::numeric(format!("report: {e}")))
}
