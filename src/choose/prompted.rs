//! Features that the model itself turns when it is told: no words choose them, theirs then explain the choice.
//!
//! ```text
//! Δf_j   = mean f_j(A) − mean f_j(B)                                  over the rows of an answer
//! lift_j = mean over tokens of  log p(y | x, j pushed) − log p(y | x)
//! ```
//!
//! A: the model's own answers y behind messages with the instruction; B: the same answers behind the messages x alone.
//! [`turned`] ranks features by the length of what they add to the row, Δf_j ‖d_j‖; dictionaries of several layers are read in
//! one pass. Many of these only notice that something was asked. [`acting`] keeps those that bring the answers about, and
//! [`strength`] finds how hard they should be pushed together, as learned features are tried: without words.

use std::sync::Arc;

use super::learn::asking::{Asking, Case, has_template};
use super::learn::dose::Bounds;
use super::learn::trials::{Frame, nll};
use super::learn::work::Work;
use super::learn::{Place, messages};
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Generate, Generation};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::plan::{Compiled, Op, Plan, Route, Rule, Strength};
use crate::progress::{Progress, Step, report};

/// Messages that are answered where nobody says how many.
pub const ANSWERS: usize = 24;
/// Tokens of an answer, at most, where nobody says.
pub const MAX_TOKENS: usize = 48;

/// Pairs on which features are pushed, and candidates for that, for each feature that is wanted.
const PUSHED: usize = 8;
const CANDIDATES: usize = 4;
/// An instruction turns a feature if it is so much stronger in what is answered then.
const MORE: f64 = 2.0;
/// What lifts less than this share of the best feature's lift is chance.
const LEAST_LIFT: f32 = 0.25;
/// How hard, in usual activations: what a little of a feature does counts, for much of one alone makes any text unlikely.
const PUSH: f32 = 0.3;
/// Messages on which a strength is tried: others than those that are answered.
const TRIED: usize = 16;
/// Tokens of an answer there.
const TRIED_TOKENS: usize = 60;

/// A message with what the model answers when it is told, and what it answers anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The message with the instruction, and y'.
    pub told: Vec<i32>,
    /// The message x, and y'.
    pub plain: Vec<i32>,
    /// How many tokens at the end of both are y'.
    pub answer: usize,
    /// The message x, and y.
    pub usual: Vec<i32>,
    /// How many tokens at its end are y.
    pub usual_answer: usize,
}

/// A feature that an instruction turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turned {
    /// Its number in its dictionary.
    pub feature: u32,
    /// Δf
    pub change: f32,
    /// Mean f(y' | x).
    pub told: f32,
    /// The length of `change` in the residual stream.
    pub length: f32,
    /// By how many nats a token the feature alone makes the answers likelier, if that was measured.
    pub lift: Option<f32>,
}

/// What a strength did: see [`strength`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dose {
    /// The strength.
    pub strength: f32,
    /// How much of what asking does: 0 is unsteered, 1 asked.
    pub effect: f64,
    /// Perplexity under the unsteered model, over that of its own answers.
    pub perplexity: f64,
    /// Whether the answers stay as fluent as asked ones.
    pub fluent: bool,
}

impl Pair {
    /// Tokens, and how many of them at the end are the answer: y' for 0, y for 1.
    fn side(&self, side: usize) -> (&Vec<i32>, usize) {
        if side == 0 { (&self.plain, self.answer) } else { (&self.usual, self.usual_answer) }
    }
}

/// The model's own answers to the first `n` [`messages`] with `instruction` and without, of at most `max_tokens`.
///
/// # Errors
/// What the engine returns; [`Cancelled`](crate::Kind::Cancelled).
pub fn pairs(
    engine: &mut Engine,
    instruction: &str,
    n: usize,
    max_tokens: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<Pair>> {
    let cases = cases(engine, instruction, 0, (n, max_tokens))?;
    let prompts = |of: fn(&Case) -> &Vec<i32>| cases.iter().map(of).cloned().collect::<Vec<_>>();
    let both = [prompts(|case| &case.asked), prompts(|case| &case.plain)].concat();
    let greedy = Generate { max_tokens, ..Generate::default() };
    engine.set_plan(None)?;
    let (mut step, mut cancelled) = (0, false);
    let written = engine.generate_while(&both, &greedy, &mut || {
        step += 1;
        cancelled |= report(progress, step, (2 * max_tokens as u64).max(step), "writing answers").is_err();
        !cancelled
    })?;
    if cancelled {
        return Err(Error::cancelled());
    }
    let (asked, usual) = written.split_at(cases.len().min(written.len()));
    let pair = |((case, asked), usual): ((&Case, &Generation), &Generation)| {
        let (asked, usual) = (asked.tokens(), usual.tokens());
        Pair {
            told: [case.asked.as_slice(), asked].concat(),
            plain: [case.plain.as_slice(), asked].concat(),
            answer: asked.len(),
            usual: [case.plain.as_slice(), usual].concat(),
            usual_answer: usual.len(),
        }
    };
    let pairs = cases.iter().zip(asked).zip(usual).map(pair);
    Ok(pairs.filter(|pair| pair.answer > 0 && pair.usual_answer > 0).collect())
}

/// Messages from the `first` on, with the instruction and without.
fn cases(engine: &Engine, instruction: &str, first: usize, (n, max_tokens): (usize, usize)) -> Result<Vec<Case>> {
    let place = if has_template(engine) { Place::Appended } else { Place::Front };
    let all: Vec<String> = messages().skip(first).take(n).map(str::to_owned).collect();
    Asking::new(engine, instruction, place)?.cases(engine, &all, max_tokens)
}

/// Of each dictionary the features that the pairs turn up, the longest change first. The dictionaries may be of several
/// layers; features that fire on more than `max_density` of the rows of y, or that are not at least twice as strong in y', say
/// nothing of the instruction and are left out.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if a dictionary has no layer or another width; what the engine returns;
/// [`Cancelled`](crate::Kind::Cancelled).
pub fn turned(
    engine: &mut Engine,
    dictionaries: &[Arc<Dictionary>],
    pairs: &[Pair],
    max_density: f32,
    progress: &mut Progress<'_>,
) -> Result<Vec<Vec<Turned>>> {
    let d = engine.d_model();
    let mut points: Vec<HookPoint> = Vec::new();
    for dictionary in dictionaries {
        let point = dictionary.point().filter(|_| dictionary.d_model() == d);
        let what = || Error::mismatch(format!("prompted choice: expected a dictionary with a layer and of width {d}"));
        points.push(point.ok_or_else(what)?);
    }
    let mut distinct = points.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let mut sums: Vec<Vec<[f64; 3]>> = dictionaries.iter().map(|d| vec![[0.0; 3]; d.n_features()]).collect();
    let share = [0, 1].map(|side| 1.0 / pairs.iter().map(|pair| pair.side(side).1).sum::<usize>().max(1) as f64);
    for (done, wave) in (0..).step_by(8).zip(pairs.chunks(8)) {
        report(progress, done, pairs.len() as u64, "reading answers")?;
        for side in [0, 1] {
            let texts: Vec<Vec<i32>> = wave.iter().map(|pair| pair.side(side).0.clone()).collect();
            engine.read_rows(&texts, &distinct, &mut |text, at, rows| {
                let own = rows.get(rows.len().saturating_sub(wave[text].side(side).1 * d)..).unwrap_or_default();
                let here =
                    points.iter().zip(dictionaries).zip(sums.iter_mut()).filter(|((p, _), _)| **p == distinct[at]);
                for ((_, dictionary), sums) in here {
                    for &(feature, value) in dictionary.encode_batch(own, 1).entries() {
                        let sum = &mut sums[feature as usize];
                        sum[side] += f64::from(value);
                        sum[2] += f64::from(u8::from(side == 1 && value > 0.0));
                    }
                }
                Ok(())
            })?;
        }
    }
    let rank = |(dictionary, sums): (&Arc<Dictionary>, &Vec<[f64; 3]>)| {
        let mut all: Vec<Turned> = (0..)
            .zip(sums)
            .map(|(feature, [told, usual, fired])| (feature, told * share[0], usual * share[1], fired * share[1]))
            .filter(|(_, told, usual, fired)| *told > MORE * usual && *fired <= f64::from(max_density))
            .map(|(feature, told, usual, _)| {
                let change = (told - usual) as f32;
                let length = change * dictionary.decoder_norm(feature as usize);
                Turned { feature, change, told: told as f32, length, lift: None }
            })
            .collect();
        all.sort_by(|a, b| b.length.total_cmp(&a.length).then(a.feature.cmp(&b.feature)));
        all
    };
    Ok(dictionaries.iter().zip(&sums).map(rank).collect())
}

/// Of [`turned`] features the `n` that make the pairs' answers likeliest, each clamped on its own to a part of its usual activation; of
/// all dictionaries together, each in its dictionary's list.
///
/// # Errors
/// What the engine returns; [`Cancelled`](crate::Kind::Cancelled).
pub fn acting(
    engine: &mut Engine,
    dictionaries: &[Arc<Dictionary>],
    pairs: &[Pair],
    turned: &[Vec<Turned>],
    n: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<Vec<Turned>>> {
    let each = (CANDIDATES * n).div_ceil(dictionaries.len().max(1));
    let candidates = || turned.iter().enumerate().flat_map(|(d, list)| list.iter().take(each).map(move |t| (d, *t)));
    let (pairs, total) = (&pairs[..pairs.len().min(PUSHED)], candidates().count() as u64 + 1);
    let n_tokens = pairs.iter().map(|pair| pair.answer).sum::<usize>().max(1) as f64;
    let likely = |engine: &mut Engine| -> Result<f64> {
        let mut sum = 0.0;
        for pair in pairs {
            let (message, answer) = pair.plain.split_at(pair.plain.len() - pair.answer);
            sum -= nll(engine, message, answer)?;
        }
        Ok(sum / n_tokens)
    };
    engine.set_plan(None)?;
    report(progress, 0, total, "pushing features")?;
    let usual = likely(engine)?;
    let mut all: Vec<(usize, Turned)> = Vec::new();
    for (done, (d, feature)) in (1..).zip(candidates()) {
        report(progress, done, total, "pushing features")?;
        let rule = Rule::new(Op::MinClamp, [feature.feature], Strength::activation(PUSH));
        let plan = Plan::new([rule]).compile(&[("", dictionaries[d].clone())], &engine.target(), Route::Auto)?;
        engine.set_plan(Some(Arc::new(plan)))?;
        let pushed = likely(engine);
        let hooked = engine.finish();
        engine.set_plan(None)?;
        let lift = (pushed? - usual) as f32;
        hooked.ok()?;
        all.push((d, Turned { lift: Some(lift), ..feature }));
    }
    let most = all.iter().filter_map(|(_, t)| t.lift).fold(0.0, f32::max);
    all.retain(|(_, t)| t.lift.is_some_and(|lift| lift > LEAST_LIFT * most));
    all.sort_by(|(_, a), (_, b)| {
        b.lift.unwrap_or(0.0).total_cmp(&a.lift.unwrap_or(0.0)).then(a.feature.cmp(&b.feature))
    });
    let mut lists = vec![Vec::new(); dictionaries.len()];
    all.into_iter().take(n).for_each(|(d, t)| lists[d].push(t));
    Ok(lists)
}

/// What each of `strengths` does under `plan`, on messages that chose nothing: how much likelier the asked model finds the
/// answers, as features are tried that are [learned](super::learn). No plan is in force afterwards.
///
/// # Errors
/// What the engine and `plan` return; [`Cancelled`](crate::Kind::Cancelled).
pub fn strength(
    engine: &mut Engine,
    instruction: &str,
    strengths: &[f32],
    plan: &dyn Fn(f32) -> Result<Arc<Compiled>>,
    progress: &mut Progress<'_>,
) -> Result<Vec<Dose>> {
    engine.set_plan(None)?;
    let cases = cases(engine, instruction, ANSWERS, (TRIED, TRIED_TOKENS))?;
    let mut pass = |step: Step<'_>| progress(step);
    let mut work = Work::new(&mut pass, 0.0, (2 * TRIED * (strengths.len() + 2)) as u64);
    let frame = Frame::new(engine, cases, TRIED_TOKENS, &mut work)?;
    let bounds = Bounds::of(&frame);
    let mut doses = Vec::with_capacity(strengths.len());
    for &strength in strengths {
        let did = frame.effect(&frame.answers(engine, Some(&plan(strength)?), false, &mut work)?);
        doses.push(Dose { strength, effect: did.effect, perplexity: did.perplexity, fluent: bounds.allow(&did) });
    }
    Ok(doses)
}

/// The fluent dose that does most.
pub fn best(doses: &[Dose]) -> Option<Dose> {
    doses.iter().copied().filter(|dose| dose.fluent).max_by(|a, b| a.effect.total_cmp(&b.effect))
}
