//! Features that the model itself turns when it is told: no words choose them, theirs then explain the choice.
//!
//! ```text
//! Δf_j = mean f_j(A) − mean f_j(B)          over the rows of an answer and of the template in front of it
//! ```
//!
//! A: the model's own answers behind messages with the instruction; B: the same answers behind the messages alone. Features
//! are ranked by the length of what they add to the row, Δf_j ‖d_j‖. Dictionaries of several layers are read in one pass.

use std::sync::Arc;

use super::learn::asking::{Asking, common, has_template};
use super::learn::{Place, messages};
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Generate};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::progress::{Progress, report};

/// Messages that are answered where nobody says how many.
pub const ANSWERS: usize = 24;
/// Tokens of an answer, at most, where nobody says.
pub const MAX_TOKENS: usize = 48;

/// One text read twice: with the instruction, and without it. Both end with the same tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// A
    pub told: Vec<i32>,
    /// B
    pub plain: Vec<i32>,
    /// How many tokens at the end of both are compared.
    pub compared: usize,
}

/// A feature that an instruction turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turned {
    /// Its number in its dictionary.
    pub feature: u32,
    /// Mean f(A) − mean f(B).
    pub change: f32,
    /// Mean f(A).
    pub told: f32,
    /// The length of `change` in the residual stream.
    pub length: f32,
}

/// The model's own answers to the first `n` [`messages`] that are told `instruction`, of at most `max_tokens`.
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
    let place = if has_template(engine) { Place::Appended } else { Place::Front };
    let asking = Asking::new(engine, instruction, place)?;
    let all: Vec<String> = messages().take(n).map(str::to_owned).collect();
    let cases = asking.cases(engine, &all, max_tokens)?;
    let prompts: Vec<Vec<i32>> = cases.iter().map(|case| case.asked.clone()).collect();
    let greedy = Generate { max_tokens, ..Generate::default() };
    engine.set_plan(None)?;
    let (mut step, mut cancelled) = (0, false);
    let written = engine.generate_while(&prompts, &greedy, &mut || {
        step += 1;
        cancelled |= report(progress, step.min(max_tokens as u64), max_tokens as u64, "writing answers").is_err();
        !cancelled
    })?;
    if cancelled {
        return Err(Error::cancelled());
    }
    let pair = |(case, made): (&super::learn::asking::Case, &crate::engine::Generation)| {
        let answer = made.tokens();
        let (told, plain) = ([case.asked.as_slice(), answer].concat(), [case.plain.as_slice(), answer].concat());
        // The template behind the message belongs to the answer: its last row predicts the first token.
        let compared = common(&told, &plain).min(asking.tail + answer.len()).min(plain.len() - 1);
        Pair { told, plain, compared }
    };
    Ok(cases.iter().zip(&written).map(pair).filter(|pair| pair.compared > 0).collect())
}

/// Of each dictionary the features that the pairs turn up, the longest change first. The dictionaries may be of several
/// layers; features that fire on more than `max_density` of the rows of B say nothing of the instruction and are left out.
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
    let n_rows: usize = pairs.iter().map(|pair| pair.compared).sum();
    for (done, wave) in (0..).step_by(8).zip(pairs.chunks(8)) {
        report(progress, done, pairs.len() as u64, "reading answers")?;
        for side in [0, 1] {
            let text = |pair: &Pair| if side == 0 { pair.told.clone() } else { pair.plain.clone() };
            let texts: Vec<Vec<i32>> = wave.iter().map(text).collect();
            engine.read_rows(&texts, &distinct, &mut |text, at, rows| {
                let own = rows.get(rows.len().saturating_sub(wave[text].compared * d)..).unwrap_or_default();
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
    let share = 1.0 / n_rows.max(1) as f64;
    let rank = |(dictionary, sums): (&Arc<Dictionary>, &Vec<[f64; 3]>)| {
        let mut all: Vec<Turned> = (0..)
            .zip(sums)
            .filter(|(_, [told, plain, fired])| told > plain && fired * share <= f64::from(max_density))
            .map(|(feature, [told, plain, _])| {
                let change = ((told - plain) * share) as f32;
                let length = change * dictionary.decoder_norm(feature as usize);
                Turned { feature, change, told: (told * share) as f32, length }
            })
            .collect();
        all.sort_by(|a, b| b.length.total_cmp(&a.length).then(a.feature.cmp(&b.feature)));
        all
    };
    Ok(dictionaries.iter().zip(&sums).map(rank).collect())
}
