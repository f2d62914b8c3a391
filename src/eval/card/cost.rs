//! What a plan costs: time of one text's tokens, and memory.

use std::sync::Arc;
use std::time::Instant;

use super::report::Cost;
use super::subject::Subject;
use super::texts::Work;
use crate::engine::{Engine, Generate};
use crate::error::Result;
use crate::plan::{Compiled, Route};

/// Tokens that are timed, and how often, without the plan and with it in turn: the shortest time counts.
const TOKENS: usize = 32;
const TURNS: usize = 3;

pub(super) fn cost(engine: &mut Engine, subject: &Subject, prompt: &[i32], work: &mut Work<'_>) -> Result<Cost> {
    let plan = subject.compile(engine, &subject.plan, Route::Auto)?;
    let mut times = [f64::INFINITY; 2];
    let mut rows = [0; 2];
    for turn in 0..2 * TURNS {
        let with = turn % 2;
        engine.set_plan((with == 1).then(|| plan.clone()))?;
        let time = timed(engine, prompt);
        let ledger = engine.finish();
        engine.set_plan(None)?;
        times[with] = times[with].min(time?);
        if with == 1 {
            rows = [ledger.rows_edited, ledger.rows_seen];
        }
        work.step(0)?;
    }
    let [ms_without, ms_with] = times;
    let bytes = bytes(engine, subject, &plan)?;
    Ok(Cost { ms_without, ms_with, bytes, plan_bytes: subject.file.bytes, rows })
}

/// Milliseconds a token behind the prompt. A text that ends sooner has fewer.
fn timed(engine: &mut Engine, prompt: &[i32]) -> Result<f64> {
    let options = Generate { max_tokens: TOKENS, ..Generate::default() };
    let mut start = None;
    let made = engine.generate_tokens(prompt, &options, &mut |_| {
        // The first token has the prompt's time in it.
        start.get_or_insert_with(Instant::now);
        true
    })?;
    let n = made.tokens().len().saturating_sub(1).max(1);
    Ok(start.map_or(0.0, |start| 1e3 * start.elapsed().as_secs_f64() / n as f64))
}

/// What the rules hold: an encoder row and a decoder row a feature, a direction a layer.
fn bytes(engine: &Engine, subject: &Subject, plan: &Arc<Compiled>) -> Result<u64> {
    let width = (engine.d_model() * size_of::<f32>()) as u64;
    let constant = plan.control_vector.as_ref().map_or(0, |vector| vector.directions().len() as u64 * width);
    let mut rows = 0;
    for rule in subject.plan.rules.iter().filter(|rule| rule.vector.is_none() && !rule.is_unconditional_add()) {
        let n = match subject.assets(rule) {
            Some(assets) if rule.features.is_all() => assets.dictionary.n_features(),
            _ => rule.features.len() + rule.gate.as_ref().map_or(0, |gate| gate.features.len()),
        };
        rows += 2 * n as u64 * width;
    }
    let vectors = plan.points.len() as u64 * width;
    let only_vectors = rows == 0 && constant == 0;
    Ok(constant + rows + if only_vectors { vectors } else { 0 })
}
