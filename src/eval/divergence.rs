//! How far a plan moves what comes next, token by token of the text that is written under it: no judge, no word list.
//!
//! ```text
//! KL_t = Σ_v p'_t(v) (log p'_t(v) − log p_t(v))        p' with the plan, p without it, after the same tokens
//! H_t  = −Σ_v p_t(v) log p_t(v)
//! ```
//!
//! KL is the price of an edit in nats a token. Plans are compared at equal KL, never at equal strength: the strength at which
//! the 95th percentile of KL reaches one nat is the same dose of any of them. A lower entropy with the plan says that the text
//! narrows; loops begin so. The tokens v with the largest terms of the sum are what the plan makes the model say.
//!
//! Costs two readings of the text, and memory for the distributions of [`HELD`] numbers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::num::stats::{mean, quantile};
use crate::plan::Compiled;

/// Floats of log-probabilities that are held at once (128 MB).
const HELD: usize = 32 << 20;

/// A text that was written behind `steered` under a plan, to be read behind `base` without it. The two prompts differ where
/// an instruction is compared, and are the same where a plan is.
#[derive(Clone, Copy, Debug)]
pub struct Case<'t> {
    /// The prompt under the plan.
    pub steered: &'t [i32],
    /// The prompt without it.
    pub base: &'t [i32],
    /// The tokens behind either.
    pub answer: &'t [i32],
}

/// What a plan does to the distributions along one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moved {
    /// KL of each token, in nats.
    pub kl: Vec<f32>,
    /// Entropy without the plan before each token, in nats.
    pub entropy_base: Vec<f32>,
    /// Entropy with the plan.
    pub entropy: Vec<f32>,
    /// −log p of the text without the plan, in nats.
    pub nll: f64,
}

/// Figures over all tokens of some texts. In nats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Tokens.
    pub n_tokens: usize,
    /// Mean KL(steered‖base) a token.
    pub mean: f64,
    /// Its 95th percentile.
    pub p95: f64,
    /// Mean entropy without the plan.
    pub entropy_base: f64,
    /// Mean entropy with it.
    pub entropy: f64,
}

impl Divergence {
    /// Over the tokens of `texts`.
    pub fn of<'m>(texts: impl IntoIterator<Item = &'m Moved>) -> Self {
        let (mut kl, mut base, mut with) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            kl.extend_from_slice(&text.kl);
            base.extend_from_slice(&text.entropy_base);
            with.extend_from_slice(&text.entropy);
        }
        if kl.is_empty() {
            return Self::default();
        }
        Self {
            n_tokens: kl.len(),
            mean: mean(&kl),
            p95: quantile(&kl, 0.95),
            entropy_base: mean(&base),
            entropy: mean(&with),
        }
    }
}

/// Which tokens of the vocabulary make up the divergence.
#[derive(Clone, Debug, Default)]
pub struct Turned {
    /// Σ_t p' (log p' − log p), where that is above 0.
    more: Vec<f64>,
    /// Σ_t p (log p − log p').
    less: Vec<f64>,
}

impl Turned {
    /// The `n` tokens that became likelier, and the `n` that became less likely, as text with their share of all such terms.
    pub fn top(&self, engine: &Engine, n: usize) -> [Vec<(String, f64)>; 2] {
        [&self.more, &self.less].map(|terms| {
            let sum: f64 = terms.iter().sum();
            let mut order: Vec<usize> = (0..terms.len()).filter(|&token| terms[token] > 0.0).collect();
            order.sort_by(|&a, &b| terms[b].total_cmp(&terms[a]).then(a.cmp(&b)));
            order.truncate(n);
            order.into_iter().map(|token| (engine.detokenize(&[token as i32]), terms[token] / sum)).collect()
        })
    }

    fn add(&mut self, base: &[f32], with: &[f32]) {
        self.more.resize(base.len(), 0.0);
        self.less.resize(base.len(), 0.0);
        for (((&p, &q), more), less) in base.iter().zip(with).zip(&mut self.more).zip(&mut self.less) {
            let moved = f64::from(q - p);
            if moved > 0.0 {
                *more += f64::from(q).exp() * moved;
            } else if moved < 0.0 {
                *less -= f64::from(p).exp() * moved;
            }
        }
    }
}

/// Reads `cases`, at most as many as the engine has sequences, without and with `plan`; the i-th case has sequence id i.
/// `turned` collects which tokens move. No plan is in force afterwards.
///
/// # Errors
/// As [`Engine::predict`]; [`Numeric`](crate::Kind::Numeric) for logits that are not finite; rows that the hook had to skip.
pub fn read(
    engine: &mut Engine,
    plan: Option<&Arc<Compiled>>,
    cases: &[Case<'_>],
    mut turned: Option<&mut Turned>,
) -> Result<Vec<Moved>> {
    let room = (HELD / engine.n_vocab().max(1)).max(1);
    let mut all = vec![Moved::default(); cases.len()];
    let mut start = 0;
    while start < cases.len() {
        let (mut end, mut held) = (start, 0);
        while end < cases.len() && (end == start || held + cases[end].answer.len() <= room) {
            held += cases[end].answer.len();
            end += 1;
        }
        part(engine, plan, cases, start..end, turned.as_deref_mut(), &mut all)?;
        start = end;
    }
    Ok(all)
}

/// As [`read`], of the cases in `range`, whose distributions are held together.
fn part(
    engine: &mut Engine,
    plan: Option<&Arc<Compiled>>,
    cases: &[Case<'_>],
    range: std::ops::Range<usize>,
    mut turned: Option<&mut Turned>,
    all: &mut [Moved],
) -> Result<()> {
    // Cases outside of the range keep their sequence ids, and have no tokens.
    let texts = |prompt: fn(&Case<'_>) -> usize, text: &dyn Fn(&Case<'_>) -> Vec<i32>| {
        let text = |(i, case): (usize, &Case<'_>)| if range.contains(&i) { text(case) } else { Vec::new() };
        let texts: Vec<Vec<i32>> = cases.iter().enumerate().map(text).collect();
        (texts, cases.iter().map(prompt).collect::<Vec<usize>>())
    };
    let whole = |prompt: &[i32], answer: &[i32]| [prompt, answer].concat();
    let mut logs: Vec<Vec<Vec<f32>>> = vec![Vec::new(); cases.len()];
    let mut fault = None;
    let (base, written) = texts(|c| c.base.len(), &|c| whole(c.base, c.answer));
    engine.set_plan(None)?;
    engine.predict_written(&base, &written, &mut |i, position, logits| {
        let Some(t) = (position + 1).checked_sub(written[i]) else { return };
        let Some(&token) = cases[i].answer.get(t) else { return };
        let row = log_softmax(logits);
        let log = usize::try_from(token).ok().and_then(|token| row.get(token)).copied().unwrap_or(f32::NAN);
        if !log.is_finite() {
            fault.get_or_insert_with(|| Error::numeric("the model's logits are not finite"));
        }
        all[i].nll -= f64::from(log);
        all[i].entropy_base.push(entropy(&row));
        logs[i].push(row);
    })?;
    let (steered, written) = texts(|c| c.steered.len(), &|c| whole(c.steered, c.answer));
    engine.set_plan(plan.cloned())?;
    let read = engine.predict_written(&steered, &written, &mut |i, position, logits| {
        let Some(t) = (position + 1).checked_sub(written[i]) else { return };
        let Some(base) = logs[i].get(t) else { return };
        let row = log_softmax(logits);
        let kl = kl(&row, base);
        if !kl.is_finite() {
            fault.get_or_insert_with(|| {
                Error::numeric("the logits under the plan are not finite").hinted("give the plan a smaller strength")
            });
        }
        all[i].kl.push(kl);
        all[i].entropy.push(entropy(&row));
        if let Some(turned) = turned.as_deref_mut() {
            turned.add(base, &row);
        }
    });
    let hooked = engine.finish();
    engine.set_plan(None)?;
    read?;
    hooked.ok()?;
    fault.map_or(Ok(()), Err)
}

/// log p of every token.
pub(super) fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // In blocks, so that 32 bits are enough for each sum.
    let sum: f64 = logits.chunks(4096).map(|part| f64::from(part.iter().map(|v| (v - max).exp()).sum::<f32>())).sum();
    let base = max + sum.ln() as f32;
    logits.iter().map(|logit| logit - base).collect()
}

/// Σ p' (log p' − log p) of two rows of log-probabilities `[n_vocab]`, never below 0. Tokens that the model forbids (−∞ in
/// both) count nothing.
pub(super) fn kl(with: &[f32], base: &[f32]) -> f32 {
    let part = |(with, base): (&[f32], &[f32])| {
        let terms = with.iter().zip(base).filter(|(q, _)| **q > f32::NEG_INFINITY).map(|(q, p)| q.exp() * (q - p));
        f64::from(terms.sum::<f32>())
    };
    let sum: f64 = with.chunks(4096).zip(base.chunks(4096)).map(part).sum();
    // Rounding can leave a little less than nothing; what is no number stays none.
    if sum < 0.0 { 0.0 } else { sum as f32 }
}

/// −Σ p log p of log-probabilities `[n_vocab]`.
fn entropy(logs: &[f32]) -> f32 {
    let part = |logs: &[f32]| {
        let terms = logs.iter().filter(|log| **log > f32::NEG_INFINITY).map(|log| -log.exp() * log);
        f64::from(terms.sum::<f32>())
    };
    logs.chunks(4096).map(part).sum::<f64>() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_and_entropy_of_known_distributions() {
        let [p, q] = [[0.5f32, 0.25, 0.25], [0.25, 0.5, 0.25]].map(|p| p.map(f32::ln));
        // ¼ ln ½ + ½ ln 2 = ¼ ln 2
        assert!((kl(&q, &p) - 0.25 * 2f32.ln()).abs() < 1e-6);
        assert_eq!(kl(&p, &p), 0.0);
        assert!((entropy(&p) - 1.5 * 2f32.ln()).abs() < 1e-6);
        assert!((entropy(&[0.0, f32::NEG_INFINITY])).abs() < 1e-9, "one token alone");
        let forbidden = [q[0], q[1], q[2], f32::NEG_INFINITY];
        assert!((kl(&forbidden, &[p[0], p[1], p[2], f32::NEG_INFINITY]) - 0.25 * 2f32.ln()).abs() < 1e-6);
        assert!(!kl(&p, &[0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]).is_finite(), "what could not be said is said");
    }

    #[test]
    fn a_softmax_sums_to_one_over_a_large_vocabulary() {
        let logits: Vec<f32> = (0..200_000).map(|i| (i % 17) as f32 / 3.0).collect();
        let sum: f64 = log_softmax(&logits).iter().map(|log| f64::from(log.exp())).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
    }

    #[test]
    fn figures_are_over_tokens_and_not_over_texts() {
        let text = |kl: &[f32]| Moved {
            kl: kl.to_vec(),
            entropy_base: vec![2.0; kl.len()],
            entropy: vec![1.0; kl.len()],
            nll: 0.0,
        };
        let all = Divergence::of(&[text(&[1.0]), text(&[0.0, 0.0, 0.0]), text(&[])]);
        assert_eq!((all.n_tokens, all.mean, all.entropy_base, all.entropy), (4, 0.25, 2.0, 1.0));
        assert!(all.p95 > 0.5 && all.p95 <= 1.0, "{all:?}");
        assert_eq!(Divergence::of([]), Divergence::default());
    }

    #[test]
    fn tokens_that_move_have_their_terms() {
        let [p, q] = [[0.5f32, 0.25, 0.25], [0.25, 0.5, 0.25]].map(|p| p.map(f32::ln));
        let mut turned = Turned::default();
        turned.add(&p, &q);
        assert!(turned.more[1] > 0.3 && turned.more[0] == 0.0 && turned.more[2] == 0.0, "{turned:?}");
        assert!(turned.less[0] > 0.3 && turned.less[1] == 0.0, "{turned:?}");
    }
}
