//! Questions put to the model: answers, last rows, and what a plan costs.

use std::sync::Arc;

use super::answers::{Said, compared, partners};
use super::contrast::Contrast;
use super::groups::Group;
use super::report::Cost;
use super::request::Request;
use super::split::Split;
use crate::dictionary::Dictionary;
use crate::engine::{Document, Engine, Generate, Message};
use crate::error::{Error, Result};
use crate::eval::choices::{self, Asked, SideEffects};
use crate::eval::divergence::{self, Case, Divergence, Moved};
use crate::eval::trial::PROMPTS;
use crate::hook_point::HookPoint;
use crate::plan::Compiled;
use crate::progress::{Progress, Step};

/// Answers and what they say, a list a group.
type Answered = (Vec<Vec<String>>, Vec<Vec<Said>>);

/// What a chat model is told besides, so that answers can be compared.
const SHORT: &str = "Answer with one or two words only.";
/// Tokens that go on behind a neutral beginning.
const NEUTRAL: usize = 24;
/// Texts that were read or answered.
struct Work<'p, 'q> {
    progress: &'p mut Progress<'q>,
    done: u64,
    total: u64,
    note: &'static str,
}

impl Work<'_, '_> {
    fn go_on(&mut self) -> bool {
        (self.progress)(Step { done: self.done.min(self.total), total: self.total, note: self.note })
    }

    fn step(&mut self, n: usize) -> Result<()> {
        self.done += n as u64;
        if self.go_on() { Ok(()) } else { Err(Error::cancelled()) }
    }
}

/// A question's ways to ask, as the model's tokens.
pub(super) type Prompts = Vec<Vec<Vec<i32>>>;

/// The model, and how it is asked.
pub(super) struct Bench<'e, 'p, 'q> {
    pub(super) engine: &'e mut Engine,
    chat: bool,
    max_tokens: usize,
    work: Work<'p, 'q>,
}

impl<'e, 'p, 'q> Bench<'e, 'p, 'q> {
    pub(super) fn new(
        engine: &'e mut Engine,
        request: &Request,
        chat: bool,
        parts: &Split,
        progress: &'p mut Progress<'q>,
    ) -> Result<Self> {
        let n = |groups: &[Group]| groups.iter().map(|group| group.texts.len()).sum::<usize>();
        let (fit, choose, score) = (n(&parts.fit), n(&parts.choose), n(&parts.score));
        let total = 2 * fit + (1 + request.strengths.len()) * choose + (2 + request.controls) * score;
        let work = Work { progress, done: 0, total: total as u64, note: "" };
        Ok(Self { engine, chat, max_tokens: request.max_tokens, work })
    }

    pub(super) fn prompts(&self, groups: &[Group]) -> Result<Prompts> {
        let one = |text: &String| match self.chat {
            true => self.engine.chat_tokens(&[Message::user(format!("{text} {SHORT}"))], true),
            false => self.engine.document_tokens(&Document::Text(format!("Question: {text}\nAnswer:"))),
        };
        groups.iter().map(|group| group.texts.iter().map(one).collect()).collect()
    }

    /// The answers, and what they say, a list a group.
    pub(super) fn ask(
        &mut self,
        plan: Option<&Arc<Compiled>>,
        groups: &[Group],
        prompts: &Prompts,
        note: &'static str,
    ) -> Result<Answered> {
        self.work.note = note;
        let flat: Vec<Vec<i32>> = prompts.iter().flatten().cloned().collect();
        let greedy = Generate { max_tokens: self.max_tokens, ..Generate::default() };
        self.engine.set_plan(plan.cloned())?;
        let mut texts = Vec::with_capacity(flat.len());
        let mut asked = Ok(());
        for wave in flat.chunks(self.engine.sequences()) {
            let work = &mut self.work;
            asked = self.engine.generate_while(wave, &greedy, &mut || work.go_on()).and_then(|written| {
                texts.extend(written.iter().map(|made| made.text().to_owned()));
                work.step(wave.len())
            });
            if asked.is_err() {
                break;
            }
        }
        let hooked = self.engine.finish();
        self.engine.set_plan(None)?;
        asked?;
        hooked.ok()?;
        let mut texts = texts.into_iter();
        let answers: Vec<Vec<String>> =
            prompts.iter().map(|group| texts.by_ref().take(group.len()).collect()).collect();
        let said = compared(groups, &answers);
        Ok((answers, said))
    }

    /// The means of the last rows of all prompts.
    pub(super) fn contrast(
        &mut self,
        (dictionary, point): (Option<&Dictionary>, HookPoint),
        prompts: &Prompts,
        said: &[Vec<Said>],
    ) -> Result<Contrast> {
        self.work.note = "reading the questions";
        let d = self.engine.d_model();
        let width = dictionary.map_or(d, |dictionary| dictionary.n_features());
        let mut contrast = Contrast::new(width);
        for (group, said) in prompts.iter().zip(said) {
            let partners = partners(said);
            self.engine.read_rows(group, &[point], &mut |text, _, rows| {
                let last = rows.get(rows.len().saturating_sub(d)..).unwrap_or_default();
                match dictionary {
                    Some(dictionary) => {
                        let codes = dictionary.encode_batch(last, 1);
                        contrast.add(codes.entries().iter().copied(), partners[text]);
                    }
                    None => contrast.add((0..).zip(last.iter().copied()), partners[text]),
                }
                Ok(())
            })?;
            self.work.step(group.len())?;
        }
        Ok(contrast)
    }

    /// What the plan does to neutral texts, and to multiple-choice questions.
    pub(super) fn cost(&mut self, plan: &Arc<Compiled>, questions: bool) -> Result<Cost> {
        self.work.note = "what it costs";
        let prompts = PROMPTS.iter().map(|&text| self.engine.tokenize(text, true)).collect::<Result<Vec<_>>>()?;
        let usual = self.neutral(None, &prompts)?;
        let steered = self.neutral(Some(plan), &prompts)?;
        let nll = |texts: &[Moved]| {
            let n = texts.iter().map(|moved| moved.kl.len()).sum::<usize>().max(1);
            texts.iter().map(|moved| moved.nll).sum::<f64>() / n as f64
        };
        let side_effects = match questions {
            true => Some(self.side_effects(plan)?),
            false => None,
        };
        Ok(Cost { divergence: Divergence::of(&steered), perplexity: (nll(&steered) - nll(&usual)).exp(), side_effects })
    }

    /// Neutral texts under `plan`, as the model without it reads them.
    fn neutral(&mut self, plan: Option<&Arc<Compiled>>, prompts: &[Vec<i32>]) -> Result<Vec<Moved>> {
        let greedy = Generate { max_tokens: NEUTRAL, ..Generate::default() };
        self.engine.set_plan(plan.cloned())?;
        let written = self.engine.generate_many_tokens(prompts, &greedy);
        let hooked = self.engine.finish();
        self.engine.set_plan(None)?;
        let written = written?;
        hooked.ok()?;
        let cases: Vec<Case<'_>> = prompts
            .iter()
            .zip(&written)
            .map(|(prompt, made)| Case { steered: prompt, base: prompt, answer: made.tokens() })
            .collect();
        let mut all = Vec::with_capacity(cases.len());
        for wave in cases.chunks(self.engine.sequences()) {
            all.extend(divergence::read(self.engine, plan, wave, None)?);
            self.work.step(0)?;
        }
        Ok(all)
    }

    fn side_effects(&mut self, plan: &Arc<Compiled>) -> Result<SideEffects> {
        let questions = choices::built_in()?;
        let asked = Asked::new(self.engine, &questions, self.chat)?;
        let mut scores = Vec::with_capacity(2);
        for plan in [None, Some(plan)] {
            let work = &mut self.work;
            scores.push(choices::scores(self.engine, plan, &asked, &mut |_| work.go_on())?);
        }
        let right: Vec<usize> = questions.iter().map(|question| question.answer).collect();
        Ok(SideEffects::of(&right, &scores[0], &scores[1]))
    }
}
