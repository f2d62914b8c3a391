//! What the model writes while each concept's edit is in force: does the text have the concept, and the others no more?

use std::sync::Arc;

use super::effect::Logits;
use super::report::Written;
use super::request::Pooling;
use super::rows;
use super::steering::{logits, summarize};
use crate::engine::{Engine, Generate};
use crate::error::Result;
use crate::eval::concepts::Continuation;
use crate::eval::fluency::Fluency;
use crate::eval::trial::{PROMPTS, write};
use crate::hook_point::HookPoint;
use crate::plan::Compiled;
use crate::train::probe::Probe;

/// Texts with and without an edit, as the unsteered model reads them.
struct Texts {
    logits: Vec<f32>,
    made: Vec<Continuation>,
}

/// Continues ten neutral prompts under each plan by `tokens` tokens, greedily, and reads them at `point` without any.
/// `tell` is told of every plan.
///
/// # Errors
/// What the engine and `tell` return.
pub(super) fn written(
    engine: &mut Engine,
    plans: Vec<Compiled>,
    readers: &[Probe],
    (point, pooling): (HookPoint, Pooling),
    attributes: &[usize],
    tokens: usize,
    tell: &mut dyn FnMut() -> Result<()>,
) -> Result<Written> {
    let mut texts = |plan: Option<Arc<Compiled>>| -> Result<Texts> {
        let prompts: Vec<Vec<i32>> = PROMPTS.iter().map(|p| engine.tokenize(p, true)).collect::<Result<_>>()?;
        let generate = Generate { max_tokens: tokens, ..Generate::default() };
        let made = write(engine, plan.as_ref(), &prompts, &generate)?;
        let whole: Vec<String> =
            PROMPTS.iter().zip(&made).map(|(prompt, made)| format!("{prompt}{}", made.text)).collect();
        let read = rows::tokens(engine, &whole)?;
        let found = rows::read(engine, &read, &[point], pooling, &mut |_| Ok(()))?;
        Ok(Texts { logits: logits(readers, found.first().map_or(&[][..], Vec::as_slice)), made })
    };
    let base = texts(None)?;
    let usual = perplexity(&base.made);
    let mut all = Vec::with_capacity(plans.len());
    for plan in plans {
        all.push(texts(Some(Arc::new(plan)))?);
        tell()?;
    }
    let steered: Vec<Vec<f32>> = all.iter().map(|one| one.logits.clone()).collect();
    let c = attributes.len();
    let rows: Vec<usize> = (0..PROMPTS.len()).collect();
    let effects = Logits { n_concepts: c, base: &base.logits, steered: &steered }.effects(&rows);
    let made: Vec<Continuation> = all.into_iter().flat_map(|one| one.made).collect();
    Ok(Written {
        summary: summarize(&effects, attributes, &(0..c).collect::<Vec<_>>()),
        effects: effects.chunks_exact(c).map(<[f64]>::to_vec).collect(),
        perplexity: perplexity(&made) / usual,
        broken: broken(&made, Some(usual)),
        unsteered_broken: broken(&base.made, None),
    })
}

fn perplexity(made: &[Continuation]) -> f64 {
    let (nll, n) = made.iter().fold((0.0, 0), |(nll, n), one| (nll + one.nll, n + one.n_tokens));
    (nll / n.max(1) as f64).exp()
}

fn broken(made: &[Continuation], usual: Option<f64>) -> f64 {
    let broken = made.iter().filter(|one| Fluency::of(&one.text).judged(one.perplexity(), usual).broken().is_some());
    broken.count() as f64 / made.len().max(1) as f64
}
