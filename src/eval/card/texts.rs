//! Texts that are written under plans, and how the model without a plan judges them.

use std::sync::Arc;
use std::time::Instant;

use super::report::Whole;
use crate::engine::{Engine, Generate, Stop};
use crate::error::{Error, Result};
use crate::eval::divergence::{self, Moved, Turned};
use crate::eval::fluency::{Broken, Fluency};
use crate::plan::Compiled;
use crate::progress::{Progress, Step};

/// Perplexities above this are told as this: JSON has no infinity.
const MOST_PERPLEXITY: f64 = 1e9;

/// A prompt in all its forms, as tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Case {
    /// For people.
    pub(super) prompt: String,
    /// What texts go on from, with the plan and without.
    pub(super) plain: Vec<i32>,
    /// The same where the model is asked for what the plan is meant for.
    pub(super) asked: Option<Vec<i32>>,
    /// The same where it is asked for one aim alone, of each aim that is asked for.
    pub(super) aims: Vec<Vec<i32>>,
}

/// What was written, and its judges.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    /// The case that it goes on from.
    pub(super) case: usize,
    pub(super) text: String,
    pub(super) tokens: Vec<i32>,
    /// Whether the text alone shows that it is broken, as a loop does.
    pub(super) looped: bool,
    /// −log p without the plan, in nats.
    pub(super) nll: f64,
    /// −log p of the model that is asked for each aim.
    pub(super) asked: Vec<f64>,
    /// Along the text; empty if only likelihoods were asked for.
    pub(super) moved: Moved,
}

impl Text {
    /// How it is broken, where unsteered texts have this perplexity. An empty text counts as a loop: nothing is said.
    pub(super) fn broken(&self, usual: Option<f64>) -> Option<Broken> {
        if self.tokens.is_empty() {
            return Some(Broken::Loops);
        }
        Fluency::of(&self.text).judged((self.nll / self.tokens.len() as f64).exp(), usual).broken()
    }
}

/// How texts are judged.
pub(super) enum Depth<'t> {
    /// By their likelihood without the plan.
    Likelihood,
    /// Also by the divergence of distributions along them.
    Divergence(Option<&'t mut Turned>),
}

/// How whole texts are, where unsteered ones have the perplexity `usual`.
pub(super) fn whole(texts: &[&Text], usual: Option<f64>) -> Whole {
    let broken: Vec<Option<Broken>> = texts.iter().map(|text| text.broken(usual)).collect();
    let tokens = texts.iter().map(|text| text.tokens.len()).sum::<usize>();
    let distinct = texts.iter().map(|text| Fluency::of(&text.text).distinct_2()).sum::<f64>();
    let perplexity = (texts.iter().map(|text| text.nll).sum::<f64>() / tokens.max(1) as f64).exp();
    Whole {
        texts: texts.len(),
        tokens,
        perplexity: if perplexity.is_nan() { MOST_PERPLEXITY } else { perplexity.min(MOST_PERPLEXITY) },
        distinct: distinct / texts.len().max(1) as f64,
        loops: broken.iter().filter(|b| **b == Some(Broken::Loops)).count(),
        gibberish: broken.iter().filter(|b| **b == Some(Broken::Gibberish)).count(),
    }
}

/// How far the work is.
pub(super) struct Work<'p> {
    progress: &'p mut Progress<'p>,
    done: u64,
    total: u64,
    started: Instant,
    marks: Vec<(String, f64)>,
    note: &'static str,
}

impl<'p> Work<'p> {
    pub(super) fn new(progress: &'p mut Progress<'p>, total: u64) -> Self {
        Self { progress, done: 0, total, started: Instant::now(), marks: Vec::new(), note: "" }
    }

    /// What is worked on now.
    pub(super) fn begin(&mut self, note: &'static str) {
        self.end();
        self.note = note;
    }

    fn end(&mut self) {
        let before: f64 = self.marks.iter().map(|(_, seconds)| seconds).sum();
        if !self.note.is_empty() {
            self.marks.push((self.note.to_owned(), self.seconds() - before));
        }
    }

    /// `n` texts more are done.
    pub(super) fn step(&mut self, n: usize) -> Result<()> {
        self.done += n as u64;
        self.total = self.total.max(self.done);
        if self.go_on() { Ok(()) } else { Err(Error::cancelled()) }
    }

    /// Whether the caller wants more; asked often, also within a text.
    pub(super) fn go_on(&mut self) -> bool {
        (self.progress)(Step { done: self.done, total: self.total, note: self.note })
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Seconds of each part.
    pub(super) fn parts(&mut self) -> Vec<(String, f64)> {
        self.end();
        self.note = "";
        std::mem::take(&mut self.marks)
    }
}

/// A model and the prompts that it goes on from.
pub(super) struct Bench<'e, 'p> {
    pub(super) engine: &'e mut Engine,
    pub(super) cases: Vec<Case>,
    pub(super) max_tokens: usize,
    pub(super) work: Work<'p>,
}

impl Bench<'_, '_> {
    /// Writes greedily on from the cases at `places` under `plan`, side by side, and has the texts judged. The i-th text of a
    /// wave has sequence id i. No plan is in force afterwards.
    pub(super) fn write(
        &mut self,
        plan: Option<&Arc<Compiled>>,
        places: &[usize],
        depth: Depth<'_>,
    ) -> Result<Vec<Text>> {
        let prompts = places.iter().map(|&place| self.cases[place].plain.clone()).collect::<Vec<_>>();
        let texts = self.generate(plan, places, &prompts)?;
        self.judge(texts, plan, depth)
    }

    /// What the model writes when it is asked; none where nothing can be asked for.
    pub(super) fn asked(&mut self) -> Result<Option<Vec<Text>>> {
        let prompts: Option<Vec<Vec<i32>>> = self.cases.iter().map(|case| case.asked.clone()).collect();
        let Some(prompts) = prompts else { return Ok(None) };
        let places: Vec<usize> = (0..self.cases.len()).collect();
        let mut texts = self.generate(None, &places, &prompts)?;
        let n = self.engine.sequences();
        for start in (0..texts.len()).step_by(n) {
            let range = start..(start + n).min(texts.len());
            let case = |text: &'_ Text| text.case;
            let cases: Vec<usize> = texts[range.clone()].iter().map(case).collect();
            let asked = cases.iter().map(|&case| self.cases[case].asked.as_deref().unwrap_or_default());
            let read: Vec<divergence::Case<'_>> = asked
                .zip(&cases)
                .zip(&texts[range.clone()])
                .map(|((steered, &case), text)| divergence::Case {
                    steered,
                    base: &self.cases[case].plain,
                    answer: &text.tokens,
                })
                .collect();
            let moved = divergence::read(self.engine, None, &read, None)?;
            for (text, moved) in texts[range].iter_mut().zip(moved) {
                (text.nll, text.moved) = (moved.nll, moved);
            }
        }
        self.by_aims(&mut texts)?;
        Ok(Some(texts))
    }

    fn generate(&mut self, plan: Option<&Arc<Compiled>>, places: &[usize], prompts: &[Vec<i32>]) -> Result<Vec<Text>> {
        let greedy = Generate { max_tokens: self.max_tokens, ..Generate::default() };
        self.engine.set_plan(plan.cloned())?;
        let mut stopped = false;
        let work = &mut self.work;
        let written = self.engine.generate_while(prompts, &greedy, &mut || {
            stopped |= !work.go_on();
            !stopped
        });
        let hooked = self.engine.finish();
        self.engine.set_plan(None)?;
        let written = written?;
        if stopped || written.iter().any(|made| made.stop() == Some(Stop::Caller)) {
            return Err(Error::cancelled());
        }
        hooked.ok()?;
        self.work.step(places.len())?;
        let text = |(&case, made): (&usize, &crate::engine::Generation)| {
            let (text, tokens) = (made.text().to_owned(), made.tokens().to_vec());
            let text = Text { case, text, tokens, ..Text::default() };
            Text { looped: text.broken(None).is_some(), ..text }
        };
        Ok(places.iter().zip(&written).map(text).collect())
    }

    fn judge(&mut self, mut texts: Vec<Text>, plan: Option<&Arc<Compiled>>, mut depth: Depth<'_>) -> Result<Vec<Text>> {
        let n = self.engine.sequences();
        for part in texts.chunks_mut(n) {
            match &mut depth {
                Depth::Likelihood => {
                    for text in part.iter_mut().filter(|text| !text.tokens.is_empty()) {
                        text.nll = likelihood(self.engine, &self.cases[text.case].plain, &text.tokens)?;
                    }
                }
                Depth::Divergence(turned) => {
                    let cases: Vec<divergence::Case<'_>> = part
                        .iter()
                        .map(|text| {
                            let prompt = self.cases[text.case].plain.as_slice();
                            divergence::Case { steered: prompt, base: prompt, answer: &text.tokens }
                        })
                        .collect();
                    let moved = divergence::read(self.engine, plan, &cases, turned.as_deref_mut())?;
                    for (text, moved) in part.iter_mut().zip(moved) {
                        (text.nll, text.moved) = (moved.nll, moved);
                    }
                }
            }
            self.work.step(0)?;
        }
        self.by_aims(&mut texts)?;
        Ok(texts)
    }

    /// Has the model that is asked for each aim judge texts.
    fn by_aims(&mut self, texts: &mut [Text]) -> Result<()> {
        for text in texts.iter_mut() {
            for aim in 0..self.cases[text.case].aims.len() {
                let prompt = &self.cases[text.case].aims[aim];
                text.asked.push(likelihood(self.engine, prompt, &text.tokens)?);
            }
            self.work.step(1)?;
        }
        Ok(())
    }
}

/// −log p(answer | prompt) under the plan in force.
fn likelihood(engine: &mut Engine, prompt: &[i32], answer: &[i32]) -> Result<f64> {
    if answer.is_empty() { Ok(0.0) } else { Ok(engine.score(&[prompt, answer].concat(), prompt.len())?.nll) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_texts_loops_and_gibberish_are_counted() {
        let text = |text: &str, nll: f64| Text { text: text.into(), tokens: vec![1; 10], nll, ..Text::default() };
        let good = text("The old man went down to the harbour and waited there for his son.", 20.0);
        let looped = text(&"the sea and ".repeat(12), 3.0);
        let salad = text("anchor thereof marine Louis subsea ocean vessels Lloyd nautical aboard fleet", 60.0);
        let found = whole(&[&good, &looped, &salad, &Text::default()], Some(7.0));
        assert_eq!((found.texts, found.tokens, found.loops, found.gibberish), (4, 30, 2, 1));
        assert_eq!(found.broken(), 0.75);
        let mad = Text { nll: f64::INFINITY, ..good };
        assert_eq!(whole(&[&mad], None).perplexity, MOST_PERPLEXITY, "what JSON holds");
    }
}
