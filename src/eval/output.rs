//! Which of the features that *read* a concept also *write* it: their effect on the model's next word.
//!
//! Explanations say on what text a feature fires. Steering needs features whose direction makes the model *speak* of a
//! concept, and the two are not the same: a feature that fires on the token "army" may only prepare what follows it. The
//! output score (in the sense of arXiv 2505.20063, which found it to be what tells good features for steering) asks the
//! model itself. Every candidate is pushed on its own, by a vector of `push` times the row's length, on neutral prompts:
//!
//! ```text
//! p(w | x)  = Σ_{s ∈ spellings of w} Π_i p(s_i | x s_1 … s_{i−1})    one word w, behind a prompt x
//! lift(c)   = mean over w, x of  log p_c(w | x) − log p(w | x)       in nats; p without steering, p_c with c pushed
//! ```
//!
//! Words are scored whole: " weddings" is several tokens, and the first of them begins "Wednesday" as well. Spellings are small
//! and capitalised, with and without a blank in front, singular and plural; those that hold less than a hundredth of their
//! word's probability before anything is pushed are left out.
//!
//! All candidates and prompts run side by side as sequences of a few batches: some thousand tokens in all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::dictionary::Dictionary;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::explain::{Explanations, Match, query_words};
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
        let prompts = super::trial::PROMPTS.iter().take(8).map(|&prompt| prompt.to_owned()).collect();
        Self { push: 0.3, prompts, share: 0.25 }
    }
}

/// The at most `n` features that mean `words` by their explanations and make the model say them, best first. Where none
/// makes the model say them, and without `options`, those that mean them best; none if no explanation holds any word.
/// Features whose explanations hold none of the words never join, however few that leaves.
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
    if found.is_empty() {
        return Ok(found);
    }
    // Words that no explanation holds chose nothing: what makes the model say them is not asked for.
    let unknown = explanations.unknown_words(words);
    let known: Vec<String> = query_words(words).into_iter().filter(|word| !unknown.contains(word)).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let ranked = rank(engine, dictionary, &found, &known, n, options, progress)?;
    if ranked.is_empty() {
        found.truncate(n);
        return Ok(found);
    }
    Ok(ranked)
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
    let prompts = options.prompts.iter().map(|p| engine.tokenize(p, true)).collect::<Result<Vec<_>>>()?;
    if !prompts.iter().any(|prompt| prompt.len() > 1) {
        return Err(Error::argument("output scores: expected a prompt of two tokens or more"));
    }
    engine.set_plan(None)?;
    let mut words = spellings(engine, words)?;
    let readings = prompts.iter().map(|prompt| Reading { feature: 0, prompt: prompt.clone() }).collect::<Vec<_>>();
    let mut silent = |_: usize| true;
    let before = whole_words(engine, &readings, &words, &mut |_, _| Ok(()), &mut silent)?;
    prune(&mut words, &before);
    let before = whole_words(engine, &readings, &words, &mut |_, _| Ok(()), &mut silent)?;
    // Every candidate with every prompt.
    let readings: Vec<Reading> = (0..features.len())
        .flat_map(|feature| prompts.iter().map(move |prompt| Reading { feature, prompt: prompt.clone() }))
        .collect();
    let total = readings.len() as u64;
    let mut pushed = |engine: &mut Engine, wave: &[usize]| {
        let plan = push(engine, dictionary, features, wave, options.push)?;
        engine.set_plan(Some(plan))
    };
    let mut go_on = |done: usize| progress(Step { done: done as u64, total, note: "" });
    let after = whole_words(engine, &readings, &words, &mut pushed, &mut go_on);
    let hooked = engine.finish();
    engine.set_plan(None)?;
    let after = after?;
    hooked.ok()?;
    let lift = |own: &[Vec<Vec<f64>>]| {
        let logs = |all: &[Vec<f64>]| all.iter().map(|word| sum(word).max(f64::MIN_POSITIVE).ln()).sum::<f64>();
        let moved: f64 = own.iter().zip(&before).map(|(after, before)| logs(after) - logs(before)).sum();
        (moved / (own.len() * words.len()).max(1) as f64) as f32
    };
    Ok(after.chunks(prompts.len()).map(lift).collect())
}

/// A prompt that is read with a feature pushed.
struct Reading {
    feature: usize,
    prompt: Vec<i32>,
}

fn sum(list: &[f64]) -> f64 {
    list.iter().sum()
}

/// The tokens of every spelling of each word.
type Spelled = Vec<Vec<Vec<i32>>>;

/// Singular or plural of an English word: the other one of the two.
fn other_number(word: &str) -> String {
    match word.strip_suffix('s').filter(|base| base.len() > 2 && !base.ends_with(['s', 'u', 'i'])) {
        Some(base) => match base.strip_suffix("ie") {
            Some(stem) => format!("{stem}y"),
            None => base.to_owned(),
        },
        None if ["s", "x", "z", "ch", "sh"].iter().any(|end| word.ends_with(end)) => format!("{word}es"),
        None => match word.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u'])) {
            Some(stem) => format!("{stem}ies"),
            None => format!("{word}s"),
        },
    }
}

/// The spellings of each word: small and capitalised, with and without a blank in front, singular and plural.
fn spellings(engine: &Engine, words: &[&str]) -> Result<Spelled> {
    let mut all = Spelled::with_capacity(words.len());
    for word in words.iter().map(|word| word.to_lowercase()) {
        let mut tokens = BTreeSet::new();
        for form in [other_number(&word), word] {
            for form in [format!(" {form}"), format!(" {}", capital(&form)), capital(&form), form] {
                tokens.insert(engine.tokenize(&form, false)?);
            }
        }
        tokens.remove(&Vec::new());
        if !tokens.is_empty() {
            all.push(tokens.into_iter().collect());
        }
    }
    if all.is_empty() {
        return Err(Error::argument(format!("the model has no tokens for any of {:?}", words.join(" "))));
    }
    Ok(all)
}

fn capital(word: &str) -> String {
    let mut initials = word.chars();
    initials.next().map(char::to_uppercase).into_iter().flatten().chain(initials).collect()
}

/// Drops spellings that hold less than a hundredth of their word's probability, over all prompts.
fn prune(words: &mut Spelled, before: &[Vec<Vec<f64>>]) {
    for (w, spellings) in words.iter_mut().enumerate() {
        let share =
            |s: usize| before.iter().map(|prompt| prompt[w][s] / sum(&prompt[w]).max(f64::MIN_POSITIVE)).sum::<f64>();
        let keep: Vec<bool> = (0..spellings.len()).map(|s| share(s) >= 0.01 * before.len() as f64).collect();
        if keep.contains(&true) {
            let mut keep = keep.into_iter();
            spellings.retain(|_| keep.next().unwrap_or(true));
        }
    }
}

/// What has to be read behind a prompt, so that every token of every spelling is predicted: the spellings without their last
/// token, less those that begin a longer one.
fn stems(words: &Spelled) -> Vec<Vec<i32>> {
    let all: BTreeSet<&[i32]> = words.iter().flatten().map(|s| s.get(..s.len() - 1).unwrap_or_default()).collect();
    let longer = |stem: &[i32]| all.iter().any(|other| other.len() > stem.len() && other.starts_with(stem));
    all.iter().filter(|stem| !longer(stem)).map(|stem| stem.to_vec()).collect()
}

/// The probability of every spelling of every word behind each reading's prompt: `[readings][words][spellings]`. `prepare`
/// gets the feature of each sequence of a batch before it is read; `go_on` the number of readings done.
fn whole_words(
    engine: &mut Engine,
    readings: &[Reading],
    words: &Spelled,
    prepare: &mut dyn FnMut(&mut Engine, &[usize]) -> Result<()>,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let stems = stems(words);
    // The tokens that follow each beginning of a spelling.
    let mut next: BTreeMap<&[i32], BTreeSet<i32>> = BTreeMap::new();
    for spelling in words.iter().flatten() {
        (0..spelling.len()).for_each(|i| _ = next.entry(&spelling[..i]).or_default().insert(spelling[i]));
    }
    let mut logs: Vec<BTreeMap<Vec<i32>, f64>> = vec![BTreeMap::new(); readings.len()];
    let all: Vec<(usize, &Vec<i32>)> =
        (0..readings.len()).flat_map(|reading| stems.iter().map(move |stem| (reading, stem))).collect();
    for wave in all.chunks(engine.sequences()) {
        if !go_on(wave.first().map_or(0, |(reading, _)| *reading)) {
            return Err(Error::cancelled());
        }
        let features: Vec<usize> = wave.iter().map(|(reading, _)| readings[*reading].feature).collect();
        prepare(engine, &features)?;
        let texts: Vec<Vec<i32>> =
            wave.iter().map(|(reading, stem)| [readings[*reading].prompt.as_slice(), stem].concat()).collect();
        engine.predict(&texts, &mut |sequence, position, logits| {
            let (reading, stem) = wave[sequence];
            let Some(depth) = (position + 1).checked_sub(readings[reading].prompt.len()) else { return };
            let begun = stem.get(..depth).unwrap_or_default();
            let Some(wanted) = next.get(begun) else { return };
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let base = max + logits.iter().map(|&logit| (logit - max).exp()).sum::<f32>().ln();
            for &token in wanted {
                let log =
                    usize::try_from(token).ok().and_then(|t| logits.get(t)).map_or(f32::NEG_INFINITY, |l| l - base);
                logs[reading].insert([begun, &[token]].concat(), f64::from(log));
            }
        })?;
    }
    let chain = |logs: &BTreeMap<Vec<i32>, f64>, spelling: &[i32]| {
        let log = |end: usize| logs.get(&spelling[..end]).copied().unwrap_or(f64::NEG_INFINITY);
        (1..=spelling.len()).map(log).sum::<f64>().exp()
    };
    let whole = |logs| words.iter().map(|word| word.iter().map(|s| chain(logs, s)).collect()).collect();
    Ok(logs.iter().map(whole).collect())
}

/// The plan that pushes feature `wave[i]` on sequence i.
fn push(
    engine: &Engine,
    dictionary: &Arc<Dictionary>,
    features: &[u32],
    wave: &[usize],
    push: f32,
) -> Result<Arc<Compiled>> {
    let mut rules: Vec<(usize, Rule, Vec<i32>)> = Vec::new();
    for (sequence, &feature) in (0_i32..).zip(wave) {
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

/// The tokens that begin each word: in the middle of a sentence, at its start, and capitalised. Where a spelling is one token,
/// the beginnings of others are left out: they begin other words, too.
pub(super) fn first_tokens(engine: &Engine, words: &[&str]) -> Result<Vec<Vec<usize>>> {
    let mut all = Vec::with_capacity(words.len());
    for word in words.iter().map(|word| word.to_lowercase()) {
        let (mut whole, mut begun) = (BTreeSet::new(), BTreeSet::new());
        for form in [format!(" {word}"), format!(" {}", capital(&word)), capital(&word), word.clone()] {
            let tokens = engine.tokenize(&form, false)?;
            // A lone blank or letter begins too much else.
            let says = |&&t: &&i32| engine.token_bytes(t, false).trim_ascii().len() >= word.len().min(3);
            let first = tokens.iter().find(says).and_then(|&token| usize::try_from(token).ok());
            if tokens.len() == 1 { whole.extend(first) } else { begun.extend(first) }
        }
        let tokens = if whole.is_empty() { begun } else { whole };
        if !tokens.is_empty() {
            all.push(tokens.into_iter().collect());
        }
    }
    if all.is_empty() {
        return Err(Error::argument(format!("no token of the model begins any of {:?}", words.join(" "))));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_number_of_a_word() {
        for (one, other) in [("wedding", "weddings"), ("church", "churches"), ("army", "armies"), ("day", "days")] {
            assert_eq!((other_number(one), capital(one).to_lowercase()), (other.to_owned(), one.to_owned()));
        }
        for (many, one) in [("weddings", "wedding"), ("armies", "army"), ("ships", "ship"), ("glass", "glasses")] {
            assert_eq!(other_number(many), one);
        }
    }

    #[test]
    fn only_the_longest_beginnings_are_read_and_rare_spellings_dropped() {
        let mut words: Spelled = vec![vec![vec![1], vec![2, 3], vec![2, 3, 4]], vec![vec![5, 6]]];
        assert_eq!(stems(&words), [vec![2, 3], vec![5]]);
        assert_eq!(stems(&vec![vec![vec![1], vec![2]]]), [Vec::<i32>::new()], "the prompt alone");
        prune(&mut words, &[vec![vec![0.5, 0.3, 0.0001], vec![1e-9]], vec![vec![0.5, 0.0, 0.0], vec![0.0]]]);
        assert_eq!(words, [vec![vec![1], vec![2, 3]], vec![vec![5, 6]]], "a rare word keeps its only spelling");
    }
}
