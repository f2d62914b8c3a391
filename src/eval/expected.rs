//! What a plan does to the next word, in expectation: no text is drawn, so nothing is left to chance.
//!
//! Counting the words of a concept in drawn texts is what a user sees, and a noisy measure: of 24 short texts, an unsteered
//! model says one such word or none. Here the model reads neutral texts that it wrote unsteered, once without and once with
//! the plan. After each token t the two distributions p and p' of the next one say what would be drawn:
//!
//! ```text
//! gain        = Σ_t p'(words | t) / Σ_t p(words | t)          words by the tokens that begin them
//! perplexity  = exp( 1/n Σ_t [ H(p'_t, p_t) − H(p_t) ] )      H(p', p) = −Σ_v p'(v) log p(v)
//! ```
//!
//! The first is the ratio of the expected numbers of words, the second that of the perplexities which the unsteered model
//! gives to what either draws: the figures of [`concepts`](super::concepts) at temperature 1, one word ahead. What a text does
//! to its own continuation is not in them, so drawn texts move further.

use std::sync::Arc;

use half::f16;

use super::concepts::{Effect, Found, Trial};
use super::output::first_tokens;
use super::trial::telling;
use crate::engine::{Engine, Generate};
use crate::error::{Error, Result};
use crate::plan::Compiled;
use crate::progress::Progress;

/// Strengths that are tried for a cost: the first, the limits, how many, and how near its logarithm is near enough. In
/// multiples of a feature's mean activation.
const FIRST: f32 = 1.5;
/// The weakest strength that is tried.
pub const WEAKEST: f32 = 0.01;
const STRONGEST: f32 = 20.0;
const TRIALS: usize = 8;
const SLACK: f64 = 0.1;
/// Log perplexity grows about like this power of the strength.
const POWER: f64 = 1.5;

/// Neutral texts, and what the unsteered model expects after each of their tokens.
pub struct Expectation {
    texts: Vec<Vec<i32>>,
    /// log p of every token of the vocabulary after each token of each text but the first, in the order of `predict`.
    before: Vec<f16>,
    n_vocab: usize,
    /// Σ_t H(p_t)
    entropy: f64,
}

impl Expectation {
    /// Continues every prompt unsteered, as `draft` says, and reads the texts. Keeps two bytes for each of their tokens and
    /// each token of the vocabulary. No plan is in force afterwards.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) for more prompts than the engine has sequences, and what it returns.
    pub fn new(engine: &mut Engine, prompts: &[String], draft: &Generate) -> Result<Self> {
        engine.set_plan(None)?;
        let written = engine.generate_many(prompts, draft)?;
        let texts: Vec<Vec<i32>> = written.iter().map(|g| [g.prompt(), g.tokens()].concat()).collect();
        let mut made = Self { texts, before: Vec::new(), n_vocab: engine.n_vocab(), entropy: 0.0 };
        if made.texts.iter().all(|text| text.len() < 2) {
            return Err(Error::argument("expectation: expected a text of two tokens or more"));
        }
        let (before, entropy) = (&mut made.before, &mut made.entropy);
        engine.predict(&made.texts, &mut |_, position, logits| {
            if position > 0 {
                let base = log_sum_exp(logits);
                before.extend(logits.iter().map(|&logit| f16::from_f32(logit - base)));
                let terms = logits.iter().map(|&logit| (logit - base).exp() * (base - logit));
                *entropy += terms.filter(|term| !term.is_nan()).map(f64::from).sum::<f64>();
            }
        })?;
        Ok(made)
    }

    /// What `plan` does to the share of `words`, and at what cost. [`Effect::distinct`] is 1: nothing is written. No plan is
    /// in force afterwards.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if no token begins any word; [`Numeric`](crate::Kind::Numeric) if the hook had to
    /// skip rows; what the engine returns.
    pub fn effect(&self, engine: &mut Engine, plan: &Arc<Compiled>, words: &[&str]) -> Result<Effect> {
        let mut tokens: Vec<usize> = first_tokens(engine, words)?.into_iter().flatten().collect();
        tokens.sort_unstable();
        tokens.dedup();
        let (mut with, mut without, mut cross) = (0f64, 0f64, 0f64);
        let mut before = self.before.chunks_exact(self.n_vocab);
        let mut n = 0usize;
        engine.set_plan(Some(plan.clone()))?;
        let read = engine.predict(&self.texts, &mut |_, position, logits| {
            let Some(before) = (position > 0).then(|| before.next()).flatten() else { return };
            n += 1;
            let base = log_sum_exp(logits);
            for &token in &tokens {
                with += logits.get(token).map_or(0.0, |logit| f64::from(logit - base).exp());
                without += before.get(token).map_or(0.0, |log| f64::from(*log).exp());
            }
            // In blocks, so that 32 bits are enough for each sum.
            for (logits, before) in logits.chunks(4096).zip(before.chunks(4096)) {
                let terms = logits.iter().zip(before).map(|(logit, log)| (logit - base).exp() * -log.to_f32());
                cross += f64::from(terms.filter(|term| term.is_finite()).sum::<f32>());
            }
        });
        let hooked = engine.finish();
        engine.set_plan(None)?;
        read?;
        hooked.ok()?;
        let perplexity = ((cross - self.entropy) / n.max(1) as f64).exp();
        Ok(Effect { gain: with / without.max(f64::MIN_POSITIVE), perplexity, distinct: 1.0, broken: 0.0 })
    }

    /// The strength whose expected ratio of perplexities is `cost`, and what it does to the share of `words`. `plan` makes the
    /// plan of a strength; progress counts trials.
    ///
    /// Log perplexity grows like a power of the strength, so a few steps along that line find it; a bracket keeps them inside
    /// what is known. The best trial is the one nearest to the cost among those that do not pass it by more than a tenth of
    /// its logarithm; none if not even [`WEAKEST`] costs so little.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) for a cost that is not above 1; see [`Expectation::effect`]; what `plan` returns;
    /// [`Cancelled`](crate::Kind::Cancelled).
    pub fn at_cost(
        &self,
        engine: &mut Engine,
        cost: f64,
        words: &[&str],
        plan: &dyn Fn(f32) -> Result<Arc<Compiled>>,
        progress: &mut Progress<'_>,
    ) -> Result<Found> {
        at_cost(cost, &mut telling(TRIALS, progress, |strength| self.effect(engine, &plan(strength)?, words)))
    }
}

/// The search of [`Expectation::at_cost`] over any `effect` of a strength.
fn at_cost(cost: f64, effect: &mut dyn FnMut(f32) -> Result<Effect>) -> Result<Found> {
    if !(cost > 1.0 && cost.is_finite()) {
        return Err(Error::argument(format!("expected a ratio of perplexities above 1, found {cost}")));
    }
    let (mut low, mut high, mut strength) = (WEAKEST, STRONGEST, FIRST);
    let mut found = Found { best: None, trials: Vec::new() };
    for _ in 0..TRIALS {
        let trial = Trial { strength, effect: effect(strength)? };
        found.trials.push(trial);
        // 1 where the cost is met; what is not a number has broken the text.
        let share = trial.effect.perplexity.ln() / cost.ln();
        let above = share.is_nan() || share > 1.0 + SLACK;
        if !above && found.best.is_none_or(|best| best.strength < strength) {
            found.best = Some(trial);
        }
        if (share - 1.0).abs() <= SLACK {
            break;
        }
        *(if above { &mut high } else { &mut low }) = strength;
        let along = f64::from(strength) * (1.0 / share.clamp(0.05, 50.0)).powf(1.0 / POWER);
        strength = match along as f32 {
            next if next > low && next < high => next,
            _ => (low * high).sqrt(),
        };
        if high / low < 1.02 {
            break;
        }
    }
    Ok(found)
}

/// log Σ exp.
fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.chunks(4096).map(|part| f64::from(part.iter().map(|v| (v - max).exp()).sum::<f32>())).sum();
    max + sum.ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// Log perplexity and log gain grow like powers of the strength.
    fn grows(scale: f64, power: f64) -> impl FnMut(f32) -> Result<Effect> {
        move |s| {
            let s = f64::from(s);
            Ok(Effect { gain: (2.0 * s).exp(), perplexity: (scale * s.powf(power)).exp(), distinct: 1.0, broken: 0.0 })
        }
    }

    #[test]
    fn the_strength_of_a_cost_is_found_however_it_grows() {
        for (scale, power) in [(0.1, 1.5), (0.1, 1.0), (0.02, 2.5), (3.0, 1.2), (0.004, 2.0), (0.3, 0.6)] {
            let found = at_cost(1.3, &mut grows(scale, power)).unwrap();
            let best = found.best.unwrap_or_else(|| panic!("{scale} {power}: {found:?}"));
            let share = best.effect.perplexity.ln() / 1.3_f64.ln();
            assert!((share - 1.0).abs() <= SLACK && found.trials.len() <= TRIALS, "{scale} {power}: {found:?}");
        }
    }

    #[test]
    fn what_costs_nothing_is_steered_hard_and_what_breaks_at_once_not_at_all() {
        let free =
            at_cost(1.3, &mut |_| Ok(Effect { gain: 1.0, perplexity: 1.0, distinct: 1.0, broken: 0.0 })).unwrap();
        assert!(free.best.unwrap().strength > 5.0, "{free:?}");
        let broken =
            at_cost(1.3, &mut |_| Ok(Effect { gain: 9.0, perplexity: f64::NAN, distinct: 1.0, broken: 0.0 })).unwrap();
        assert!(broken.best.is_none() && broken.trials.len() == TRIALS, "{broken:?}");
        assert_eq!(at_cost(1.0, &mut grows(0.1, 1.5)).unwrap_err().kind(), Kind::Argument);
        assert_eq!(at_cost(1.3, &mut |_| Err(Error::cancelled())).unwrap_err().kind(), Kind::Cancelled);
    }
}
