//! Are the words of a feature what it makes the model say?
//!
//! ```text
//! output(j) = mean over prompts of (1 − min_t rank_j(t) / V) · max_t p_j(t)        (after arXiv 2505.20063)
//! lift(j)   = mean over prompts and t of log p_j(t) − log p(t), in nats
//! ```
//!
//! t: the first tokens of the explanation's words, each behind a blank; p_j: the next token behind a neutral prompt with
//! feature j pushed. Ours: the push is a vector of a given share of the row's length, and the words are those of the
//! explanation, not those of the logit lens.

use std::sync::Arc;

use crate::dictionary::Dictionary;
use crate::engine::Engine;
use crate::error::Result;
use crate::eval::divergence::log_softmax;
use crate::eval::trial::PROMPTS;
use crate::plan::{Op, Plan, Route, Rule, Selector, Strength};

/// What comes next behind neutral prompts: log-probabilities `[n_vocab]` of each.
pub(super) struct Next(Vec<Vec<f32>>);

impl Next {
    /// With `feature` pushed by `push` times the row's length, or as it is. No plan is in force afterwards.
    ///
    /// # Errors
    /// What the engine returns.
    pub(super) fn read(
        engine: &mut Engine,
        dictionary: &Arc<Dictionary>,
        feature: Option<u32>,
        push: f32,
    ) -> Result<Self> {
        let plan = match feature {
            None => None,
            Some(feature) => {
                let rule = Rule::new(Op::Add, [feature], Strength::norm(push))
                    .select(Selector::default().include_first(false));
                let plan = Plan::new([rule]);
                Some(Arc::new(plan.compile(&[("d", dictionary.clone())], &engine.target(), Route::Auto)?))
            }
        };
        let prompts = PROMPTS.iter().map(|&text| engine.tokenize(text, true)).collect::<Result<Vec<_>>>()?;
        let mut all = vec![Vec::new(); prompts.len()];
        engine.set_plan(plan)?;
        let mut read = Ok(());
        for (first, wave) in (0..).step_by(engine.sequences()).zip(prompts.chunks(engine.sequences())) {
            read = engine.predict(wave, &mut |i, position, logits| {
                if position + 1 == wave[i].len() {
                    all[first + i] = log_softmax(logits);
                }
            });
            if read.is_err() {
                break;
            }
        }
        let hooked = engine.finish();
        engine.set_plan(None)?;
        read?;
        hooked.ok()?;
        Ok(Self(all))
    }

    /// Output score and lift of the tokens of an explanation; none without any.
    pub(super) fn effect(&self, base: &Self, tokens: &[i32]) -> Option<[f64; 2]> {
        let tokens: Vec<usize> = tokens.iter().filter_map(|&token| usize::try_from(token).ok()).collect();
        let pairs = || self.0.iter().zip(&base.0).filter(|(with, _)| !with.is_empty());
        let n = pairs().count();
        if tokens.is_empty() || n == 0 {
            return None;
        }
        let (mut output, mut lift) = (0.0, 0.0);
        for (with, base) in pairs() {
            let own = tokens.iter().filter_map(|&t| Some((*with.get(t)?, *base.get(t)?)));
            let best = own.clone().map(|(with, _)| with).fold(f32::NEG_INFINITY, f32::max);
            let rank = with.iter().filter(|log| **log > best).count();
            output += (1.0 - rank as f64 / with.len() as f64) * f64::from(best).exp();
            lift += own.map(|(with, base)| f64::from(with - base)).sum::<f64>() / tokens.len() as f64;
        }
        Some([output / n as f64, lift / n as f64])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_lift_are_what_they_say() {
        let logs = |p: [f32; 4]| p.map(f32::ln).to_vec();
        let base = Next(vec![logs([0.25; 4]), logs([0.7, 0.1, 0.1, 0.1])]);
        let pushed = Next(vec![logs([0.5, 0.3, 0.1, 0.1]), logs([0.1, 0.7, 0.1, 0.1])]);
        let [output, lift] = pushed.effect(&base, &[1, 2]).unwrap();
        // Token 1 has rank 1 and then 0.
        assert!((output - (0.75 * 0.3 + 0.7) / 2.0).abs() < 1e-6, "{output}");
        let wanted = ((0.3f64 / 0.25).ln() + (0.1f64 / 0.25).ln() + 7f64.ln()) / 4.0;
        assert!((lift - wanted).abs() < 1e-6, "{lift}");
        assert_eq!(pushed.effect(&base, &[]), None);
    }
}
