//! Which of the features that *read* a concept also *write* it: their effect on the model's next word.
//!
//! Explanations say on what text a feature fires. Steering needs features whose direction makes the model *speak* of a
//! concept, and the two are not the same: a feature that fires on the token "army" may only prepare what follows it. The
//! output score (in the sense of arXiv 2505.20063, which found it to be what tells good features for steering) asks the
//! model itself. Every candidate is pushed on its own, by a vector of `push` times the row's length, on neutral prompts:
//!
//! ```text
//! p(w | t)  = Σ_{v ∈ first tokens of w} softmax(logits_t)_v         one word w, after token t of a prompt
//! lift(c)   = mean over w, t of  log p_c(w | t) − log p(w | t)       in nats; p without steering, p_c with c pushed
//! ```
//!
//! All candidates and prompts run side by side as sequences of a few batches: some hundred tokens in all.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::dictionary::Dictionary;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::explain::{Explanations, Match, lens};
use crate::model::Model;
use crate::num::{dot, norm};
use crate::plan::{Compiled, Op, Plan, Route, Rule, Selector, Strength};
use crate::progress::{Progress, Step};

/// How output scores are measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Length of the pushed vector, relative to the row's.
    pub push: f32,
    /// Neutral beginnings, each read with every candidate.
    pub prompts: Vec<String>,
    /// A feature is kept if its lift is at least this share of the best one's.
    pub share: f32,
}

/// Decoder rows with a larger cosine count as one.
const TWINS: f32 = 0.95;

/// How many candidates to search for by words, so that `n` can be chosen among them.
pub fn candidates(n: usize) -> usize {
    n.saturating_mul(4).max(24)
}

impl Default for Output {
    fn default() -> Self {
        let prompts = super::trial::PROMPTS.iter().take(5).map(|&prompt| prompt.to_owned()).collect();
        Self { push: 0.3, prompts, share: 0.25 }
    }
}

/// The at most `n` features that mean `words` by their explanations and make the model say them, best first. Where none
/// makes the model say them, and without `options`, those that mean them best; none if no explanation holds any word.
/// If explanations name fewer than `n`, features whose directions point at the words stand for election too.
///
/// # Errors
/// See [`Explanations::check`], [`Explanations::find`] and [`rank`].
pub fn choose(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    explanations: &Explanations,
    words: &[&str],
    n: usize,
    options: Option<&Output>,
    progress: &mut Progress<'_>,
) -> Result<Vec<Match>> {
    explanations.check(dictionary)?;
    let Some(options) = options else { return explanations.find(words, n) };
    let mut found = explanations.find(words, candidates(n))?;
    if found.len() < n {
        found.extend(pointing(engine, dictionary, explanations, words, &found, candidates(n))?);
    }
    if found.is_empty() {
        return Ok(found);
    }
    let ranked = rank(engine, dictionary, &found, words, n, options, progress)?;
    if ranked.is_empty() {
        found.truncate(n);
        return Ok(found);
    }
    Ok(ranked)
}

/// Features, other than those of `known`, whose decoder rows point at the words' tokens in the unembedding: what the lens
/// sees, without a vocabulary. Where text was too short to count, this finds what to try.
fn pointing(
    engine: &Engine,
    dictionary: &Arc<Dictionary>,
    explanations: &Explanations,
    words: &[&str],
    known: &[Match],
    n: usize,
) -> Result<Vec<Match>> {
    let model = Model::open(engine.path())?;
    let tokens: Vec<usize> = first_tokens(engine, words)?.into_iter().flatten().collect();
    let mut scored = lens::pointing_at(&model, dictionary, &tokens)?;
    scored.retain(|(feature, score)| *score > 0.0 && known.iter().all(|m| m.feature != *feature));
    scored.truncate(n.saturating_sub(known.len()));
    Ok(scored.into_iter().map(|(feature, _)| explanations.match_of(feature)).collect())
}

/// The at most `n` of `candidates` that make the model speak most of `words`, best first, with their
/// [`lift`](Match::lift) and weights that share a push among them by it. None if none of them lifts the words at all.
///
/// Two candidates that point the same way (cosine above 0.95) are one: the better one stays. No plan is in force
/// afterwards; progress counts sequences.
///
/// # Errors
/// [`Argument`](crate::Kind::Argument) if no word has a token, or the prompts or the push are not usable;
/// [`Mismatch`](crate::Kind::Mismatch) if the dictionary does not fit the model or has no layer;
/// [`Cancelled`](crate::Kind::Cancelled); what the engine returns.
pub fn rank(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    candidates: &[Match],
    words: &[&str],
    n: usize,
    options: &Output,
    progress: &mut Progress<'_>,
) -> Result<Vec<Match>> {
    let features: Vec<u32> = candidates.iter().map(|m| m.feature).collect();
    let lifts = lifts(engine, dictionary, &features, words, options, progress)?;
    let mut ranked: Vec<Match> =
        candidates.iter().zip(lifts).map(|(m, lift)| Match { lift: Some(lift), ..m.clone() }).collect();
    let lift = |m: &Match| m.lift.unwrap_or_default();
    ranked.sort_by(|a, b| lift(b).total_cmp(&lift(a)).then(a.feature.cmp(&b.feature)));
    let best = ranked.first().map_or(0.0, lift);
    ranked.retain(|m| best > 0.0 && lift(m) >= options.share * best);
    let mut kept: Vec<Match> = Vec::with_capacity(n);
    for m in ranked {
        if kept.len() == n {
            break;
        }
        if kept.iter().all(|k| cosine(dictionary, m.feature, k.feature) <= TWINS) {
            kept.push(m);
        }
    }
    weigh(&mut kept);
    Ok(kept)
}

/// Gives every feature its share of a common push: as long, in the residual stream, as its lift is large, which for
/// directions at right angles is the steepest way up. At strength 1 the whole push is as long as these features are when
/// they fire, however many they are. Weights multiply activations, so each feature's own mean is divided out.
fn weigh(matches: &mut [Match]) {
    let mut means: Vec<f32> = matches.iter().filter_map(|m| m.mean).filter(|mean| *mean > 0.0).collect();
    means.sort_by(f32::total_cmp);
    let typical = means.get(means.len() / 2).copied();
    let squares: f32 = matches.iter().filter_map(|m| m.lift).map(|lift| lift * lift).sum();
    for m in matches {
        let longer = typical.zip(m.mean).filter(|(_, own)| *own > 0.0).map_or(1.0, |(typical, own)| typical / own);
        m.weight = m.lift.unwrap_or(0.0) / squares.sqrt() * longer;
    }
}

/// The cosine between two decoder rows.
fn cosine(dictionary: &Dictionary, a: u32, b: u32) -> f32 {
    let mut rows = [vec![0.0; dictionary.d_model()], vec![0.0; dictionary.d_model()]];
    rows.iter_mut().zip([a, b]).for_each(|(row, feature)| dictionary.decoder_row(feature as usize, row));
    let [a, b] = &rows;
    dot(a, b) / (norm(a) * norm(b)).max(f32::MIN_POSITIVE)
}

/// By how many nats each of `features` makes `words` likelier when it is pushed on its own. See the [module](self).
///
/// # Errors
/// See [`rank`].
pub fn lifts(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    features: &[u32],
    words: &[&str],
    options: &Output,
    progress: &mut Progress<'_>,
) -> Result<Vec<f32>> {
    if !(options.push > 0.0 && options.push.is_finite()) {
        return Err(Error::argument(format!("output scores: expected a push above 0, found {}", options.push)));
    }
    let tokens = first_tokens(engine, words)?;
    let prompts = options.prompts.iter().map(|p| engine.tokenize(p, true)).collect::<Result<Vec<_>>>()?;
    if !prompts.iter().any(|prompt| prompt.len() > 1) {
        return Err(Error::argument("output scores: expected a prompt of two tokens or more"));
    }
    engine.set_plan(None)?;
    let side_by_side = engine.sequences();
    let mut before: Vec<Vec<f64>> = Vec::new();
    for wave in prompts.chunks(side_by_side) {
        before.extend(log_shares(engine, wave, &tokens)?);
    }
    // Every candidate with every prompt.
    let pairs: Vec<(usize, usize)> =
        (0..features.len()).flat_map(|feature| (0..prompts.len()).map(move |prompt| (feature, prompt))).collect();
    let mut sums = vec![(0f64, 0usize); features.len()];
    let mut done = 0;
    let result = pairs.chunks(side_by_side).try_for_each(|wave| {
        if !progress(Step { done, total: pairs.len() as u64, note: "" }) {
            return Err(Error::cancelled());
        }
        done += wave.len() as u64;
        engine.set_plan(Some(push(engine, dictionary, features, wave, options.push)?))?;
        let read: Vec<Vec<i32>> = wave.iter().map(|&(_, prompt)| prompts[prompt].clone()).collect();
        let after = log_shares(engine, &read, &tokens)?;
        engine.finish().ok()?;
        for (&(feature, prompt), after) in wave.iter().zip(after) {
            let (sum, n) = &mut sums[feature];
            *sum += after.iter().zip(&before[prompt]).map(|(after, before)| after - before).sum::<f64>();
            *n += after.len();
        }
        Ok(())
    });
    engine.set_plan(None)?;
    result?;
    Ok(sums.into_iter().map(|(sum, n)| (sum / n.max(1) as f64) as f32).collect())
}

/// The plan that pushes feature `wave[i].0` on sequence i.
fn push(
    engine: &Engine,
    dictionary: &Arc<Dictionary>,
    features: &[u32],
    wave: &[(usize, usize)],
    push: f32,
) -> Result<Arc<Compiled>> {
    let mut rules: Vec<(usize, Rule, Vec<i32>)> = Vec::new();
    for (sequence, &(feature, _)) in (0_i32..).zip(wave) {
        match rules.last_mut() {
            Some((last, _, sequences)) if *last == feature => sequences.push(sequence),
            _ => {
                let rule = Rule::new(Op::Add, [features[feature]], Strength::norm(push));
                rules.push((feature, rule, vec![sequence]));
            }
        }
    }
    let rules = rules
        .into_iter()
        .map(|(_, rule, sequences)| rule.select(Selector::default().include_first(false).sequences(sequences)));
    let plan = Plan::new(rules.collect::<Vec<_>>());
    Ok(Arc::new(plan.compile(&[("d", dictionary.clone())], &engine.target(), Route::Auto)?))
}

/// The tokens that begin each word: in the middle of a sentence, at its start, and capitalised.
pub(super) fn first_tokens(engine: &Engine, words: &[&str]) -> Result<Vec<Vec<usize>>> {
    let mut all = Vec::with_capacity(words.len());
    for word in words.iter().map(|word| word.to_lowercase()) {
        let mut initials = word.chars();
        let capital: String = initials.next().map(char::to_uppercase).into_iter().flatten().chain(initials).collect();
        let mut tokens = BTreeSet::new();
        for form in [format!(" {word}"), format!(" {capital}"), word.clone(), capital] {
            let first = engine.tokenize(&form, false)?.into_iter().find(|&t| {
                let piece = engine.token_bytes(t, false);
                // A lone space or letter begins too much else.
                piece.trim_ascii().len() >= word.len().min(3)
            });
            tokens.extend(first.and_then(|token| usize::try_from(token).ok()));
        }
        if !tokens.is_empty() {
            all.push(tokens.into_iter().collect());
        }
    }
    if all.is_empty() {
        return Err(Error::argument(format!("no token of the model begins any of {:?}", words.join(" "))));
    }
    Ok(all)
}

/// For every sequence: the log of the probability of every word, after each of its tokens but the first.
fn log_shares(engine: &mut Engine, sequences: &[Vec<i32>], words: &[Vec<usize>]) -> Result<Vec<Vec<f64>>> {
    let mut shares = vec![Vec::new(); sequences.len()];
    engine.predict(sequences, &mut |sequence, position, logits| {
        if position == 0 {
            return;
        }
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = f64::from(logits.iter().map(|&logit| (logit - max).exp()).sum::<f32>());
        for tokens in words {
            let wanted = tokens.iter().filter_map(|&t| logits.get(t));
            let share: f64 = wanted.map(|&logit| f64::from(logit - max).exp()).sum();
            shares[sequence].push((share / total).max(f64::MIN_POSITIVE).ln());
        }
    })?;
    Ok(shares)
}
