//! What the model writes, and how both of its selves judge that: asked, and not asked.
//!
//! ```text
//! asked(y) = mean over the tokens of y of  log p(y | x', asked) − log p(y | x, unsteered)
//! effect   = (asked(steered) − asked(unsteered)) / (asked(asked) − asked(unsteered))
//! ```
//!
//! No judge and no word list: the model itself says how much a text looks like one that was asked for. 0 is what it writes
//! anyway, 1 what it writes when it is told. A text that is broken adds nothing above the line.

use std::sync::Arc;

use serde::Serialize;

use super::asking::Case;
use super::work::Work;
use crate::engine::{Engine, Generate, Generation, Stop};
use crate::error::{Error, Result};
use crate::eval::fluency::Fluency;
use crate::plan::Compiled;

/// An answer and its judges.
#[derive(Clone, Debug)]
pub(in crate::choose) struct Answer {
    pub(super) text: String,
    pub(super) tokens: Vec<i32>,
    /// −log p(y | x, unsteered), summed over tokens.
    pub(super) plain: f64,
    /// −log p(y | x', asked).
    pub(super) asked: f64,
}

impl Answer {
    /// Whether it is none: nothing, or a loop.
    pub(super) fn is_broken(&self) -> bool {
        self.tokens.is_empty() || Fluency::of(&self.text).broken().is_some()
    }
}

/// Answers taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Sum {
    /// asked(y), in nats a token.
    pub(super) asked: f64,
    /// Perplexity under the unsteered model.
    pub(super) perplexity: f64,
    /// Share of distinct pairs of words, the mean over texts.
    pub(super) distinct: f64,
    /// Share of texts that are broken.
    pub(super) broken: f64,
}

impl Sum {
    pub(super) fn of(answers: &[Answer]) -> Self {
        let n = answers.len().max(1) as f64;
        let n_tokens = answers.iter().map(|a| a.tokens.len()).sum::<usize>().max(1) as f64;
        let whole = || answers.iter().filter(|a| !a.is_broken());
        Self {
            asked: whole().map(|a| a.plain - a.asked).sum::<f64>() / n_tokens,
            perplexity: (answers.iter().map(|a| a.plain).sum::<f64>() / n_tokens).exp(),
            distinct: answers.iter().map(|a| Fluency::of(&a.text).distinct_2()).sum::<f64>() / n,
            broken: 1.0 - whole().count() as f64 / n,
        }
    }
}

/// What the model does to some messages, asked and not asked: what steering is held against.
pub(in crate::choose) struct Frame {
    pub(super) cases: Vec<Case>,
    pub(super) unsteered: Vec<Answer>,
    pub(super) asked: Vec<Answer>,
    pub(super) max_tokens: usize,
}

/// What steering did, held against a frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(in crate::choose) struct Effect {
    /// 0 is unsteered, 1 asked.
    pub(in crate::choose) effect: f64,
    /// Perplexity under the unsteered model, over that of its own answers.
    pub(in crate::choose) perplexity: f64,
    /// Share of distinct pairs of words.
    pub(super) distinct: f64,
    /// Share of answers that are empty or run in circles.
    pub(super) broken: f64,
}

impl Frame {
    /// Has the model answer `cases`, asked and not.
    pub(in crate::choose) fn new(
        engine: &mut Engine,
        cases: Vec<Case>,
        max_tokens: usize,
        work: &mut Work<'_>,
    ) -> Result<Self> {
        let mut frame = Self { cases, unsteered: Vec::new(), asked: Vec::new(), max_tokens };
        frame.unsteered = frame.answers(engine, None, false, work)?;
        frame.asked = frame.answers(engine, None, true, work)?;
        Ok(frame)
    }

    /// Answers under `plan`, to the messages as they are or with the instruction.
    pub(in crate::choose) fn answers(
        &self,
        engine: &mut Engine,
        plan: Option<&Arc<Compiled>>,
        asked: bool,
        work: &mut Work<'_>,
    ) -> Result<Vec<Answer>> {
        let prompts: Vec<Vec<i32>> =
            self.cases.iter().map(|case| if asked { case.asked.clone() } else { case.plain.clone() }).collect();
        let written = write(engine, plan, &prompts, self.max_tokens, work)?;
        judge(engine, &self.cases, &written, work)
    }

    /// What steering did, told from its answers.
    pub(in crate::choose) fn effect(&self, answers: &[Answer]) -> Effect {
        let (sum, none) = (Sum::of(answers), Sum::of(&self.unsteered));
        Effect {
            effect: (sum.asked - none.asked) / self.gap().max(f64::MIN_POSITIVE),
            perplexity: sum.perplexity / none.perplexity,
            distinct: sum.distinct,
            broken: sum.broken,
        }
    }

    /// By how many nats a token asking changes the answers.
    pub(super) fn gap(&self) -> f64 {
        Sum::of(&self.asked).asked - Sum::of(&self.unsteered).asked
    }
}

/// Goes on from every prompt under `plan`. No plan is in force afterwards.
pub(super) fn write(
    engine: &mut Engine,
    plan: Option<&Arc<Compiled>>,
    prompts: &[Vec<i32>],
    max_tokens: usize,
    work: &mut Work<'_>,
) -> Result<Vec<Generation>> {
    let greedy = Generate { max_tokens, ..Generate::default() };
    engine.set_plan(plan.cloned())?;
    let mut stopped = false;
    let written = engine.generate_while(prompts, &greedy, &mut || {
        stopped |= !work.go_on("writing answers");
        !stopped
    });
    let hooked = engine.finish();
    engine.set_plan(None)?;
    let written = written?;
    if stopped || written.iter().any(|made| made.stop() == Some(Stop::Caller)) {
        return Err(Error::cancelled());
    }
    hooked.ok()?;
    work.step(prompts.len(), "judging answers")?;
    Ok(written)
}

/// Has the unsteered and the asked model judge what was written.
pub(super) fn judge(
    engine: &mut Engine,
    cases: &[Case],
    written: &[Generation],
    work: &mut Work<'_>,
) -> Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(written.len());
    for (case, made) in cases.iter().zip(written) {
        let tokens = made.tokens().to_vec();
        let (plain, asked) = (nll(engine, &case.plain, &tokens)?, nll(engine, &case.asked, &tokens)?);
        answers.push(Answer { text: made.text().to_owned(), tokens, plain, asked });
        work.step(1, "judging answers")?;
    }
    Ok(answers)
}

/// −log p(y | prompt), summed over the tokens of y, under the plan in force.
pub(in crate::choose) fn nll(engine: &mut Engine, prompt: &[i32], answer: &[i32]) -> Result<f64> {
    if answer.is_empty() { Ok(0.0) } else { Ok(engine.score(&[prompt, answer].concat(), prompt.len())?.nll) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tokens: Vec<i32>, plain: f64, asked: f64) -> Answer {
        let text = tokens.iter().map(|token| format!("w{token} ")).collect();
        Answer { text, tokens, plain, asked }
    }

    fn frame() -> Frame {
        let text = |n: i32| (n..n + 20).collect::<Vec<_>>();
        let unsteered = vec![answer(text(0), 20.0, 30.0)];
        let asked = vec![answer(text(50), 40.0, 20.0)];
        Frame { cases: Vec::new(), unsteered, asked, max_tokens: 20 }
    }

    #[test]
    fn effects_lie_between_unsteered_and_asked() {
        let frame = frame();
        assert!((frame.gap() - 1.5).abs() < 1e-12);
        let (none, all) = (frame.effect(&frame.unsteered), frame.effect(&frame.asked));
        assert!(none.effect.abs() < 1e-12 && (all.effect - 1.0).abs() < 1e-12);
        assert!((all.perplexity - 1f64.exp()).abs() < 1e-9 && all.broken == 0.0);
    }

    #[test]
    fn a_loop_is_no_success() {
        let looped = frame().effect(&[answer([1, 2, 3, 4].repeat(5), 40.0, 20.0)]);
        assert!(looped.broken == 1.0 && looped.effect < 0.5, "{looped:?}");
        let nothing = frame().effect(&[answer(Vec::new(), 0.0, 0.0)]);
        assert_eq!(nothing.broken, 1.0);
    }
}
