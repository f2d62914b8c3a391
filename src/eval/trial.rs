//! Trying plans out on a running model: what it writes with a plan and without, and how the unsteered model judges both.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::concepts::{Continuation, Effect, Found, Search, Tally, search_strength};
use crate::engine::{Engine, Generate, Generation};
use crate::error::{Error, Result};
use crate::explain::{Match, is_stop_word, query_words};
use crate::plan::Compiled;
use crate::progress::{Progress, Step};

/// Sequences that an engine should have for trials to run side by side.
pub const SEQUENCES: usize = 24;

/// Neutral beginnings to search a strength on.
pub const PROMPTS: [&str; 10] = [
    "Once upon a time",
    "I remember when",
    "The problem with",
    "Here is what happened:",
    "It seems to me that",
    "They were surprised when",
    "A friend told me that",
    "The reason for this is",
    "Most of us",
    "For many years,",
];

/// The two ways in which trials write: greedy, and sampled at temperature 0.8 from the upper 95 % of the probability.
pub fn drafts(max_tokens: usize) -> [Generate; 2] {
    let greedy = Generate { max_tokens, ..Generate::default() };
    [greedy.clone(), Generate { temperature: 0.8, top_p: 0.95, seed: 1, ..greedy }]
}

/// A search that takes seconds: strengths in multiples of a feature's mean activation, each tried on the first
/// [`QUICK_PROMPTS`] of [`PROMPTS`] for [`QUICK_TOKENS`] sampled tokens.
pub fn quick() -> Search {
    Search { strengths: vec![0.6, 1.0, 1.6, 2.5, 4.0], refine: 1, max_perplexity: 1.8, ..Search::default() }
}

/// Prompts of a quick search.
pub const QUICK_PROMPTS: usize = 8;
/// Tokens that a quick search writes for each of them.
pub const QUICK_TOKENS: usize = 20;

/// Searches the strength of a plan on the engine's model: see [`Comparison::search`]. No plan is in force afterwards.
///
/// # Errors
/// See [`Comparison::search`].
pub fn find_strength(
    engine: &mut Engine,
    search: &Search,
    wanted: &[String],
    plan: &dyn Fn(f32) -> Result<Arc<Compiled>>,
    progress: &mut Progress<'_>,
) -> Result<Found> {
    let prompts = PROMPTS.iter().take(QUICK_PROMPTS).map(|&prompt| prompt.to_owned()).collect();
    let [_, sampled] = drafts(QUICK_TOKENS);
    Comparison::new(engine, prompts, &[sampled])?.search(engine, search, wanted, plan, progress)
}

/// Words that tell whether text speaks of a concept, as far as a search can know: the ones that were asked for, and of the
/// first ten words of each chosen feature those that two of the features share. A word that one feature has alone may be
/// what it means besides.
pub fn wanted(words: &str, matches: &[Match]) -> Vec<String> {
    let first = |m: &'_ Match| m.words.iter().take(10).map(|(word, _)| word.clone()).collect::<Vec<_>>();
    let lists: Vec<Vec<String>> = matches.iter().map(first).collect();
    let shared = |word: &&String| lists.iter().filter(|list| list.contains(word)).count() > 1;
    let explained = lists.iter().flatten().filter(|word| word.len() > 3 && !is_stop_word(word)).filter(shared).cloned();
    query_words(&[words]).into_iter().chain(explained).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Continues every prompt, given as tokens, under `plan`, then has the unsteered model judge what was written. No plan is in force
/// afterwards.
///
/// # Errors
/// What the engine returns; rows that the hook had to skip are an error too: the text would not be what it says.
pub fn write(
    engine: &mut Engine,
    plan: Option<&Arc<Compiled>>,
    prompts: &[Vec<i32>],
    generate: &Generate,
) -> Result<Vec<Continuation>> {
    engine.set_plan(plan.cloned())?;
    let written = engine.generate_many_tokens(prompts, generate);
    let hooked = engine.finish();
    engine.set_plan(None)?;
    let written = written?;
    hooked.ok()?;
    written.iter().map(|made| judge(engine, made.prompt(), made)).collect()
}

/// What was written, as the model under the plan in force judges it after `prompt`: the generation's own, or the same without
/// the instruction that it had.
///
/// # Errors
/// What the engine returns.
pub fn judge(engine: &mut Engine, prompt: &[i32], made: &Generation) -> Result<Continuation> {
    let tokens = made.tokens();
    let nll = if tokens.is_empty() { 0.0 } else { engine.score(&[prompt, tokens].concat(), prompt.len())?.nll };
    Ok(Continuation { text: made.text().to_owned(), n_tokens: tokens.len(), nll })
}

/// A model compared with its unsteered self on the same prompts.
pub struct Comparison {
    /// Prompts as tokens, and how each of them is continued.
    sets: Vec<(Vec<Vec<i32>>, Generate)>,
    unsteered: Vec<Continuation>,
}

impl Comparison {
    /// Writes the unsteered texts: every prompt by every draft.
    ///
    /// # Errors
    /// See [`write`].
    pub fn new(engine: &mut Engine, prompts: Vec<String>, drafts: &[Generate]) -> Result<Self> {
        let prompts: Vec<_> = prompts.iter().map(|prompt| engine.tokenize(prompt, true)).collect::<Result<_>>()?;
        Self::of(engine, drafts.iter().map(|draft| (prompts.clone(), draft.clone())).collect())
    }

    /// As [`new`](Self::new), of prompts given as tokens, each set with its own way to write.
    ///
    /// # Errors
    /// See [`write`].
    pub fn of(engine: &mut Engine, sets: Vec<(Vec<Vec<i32>>, Generate)>) -> Result<Self> {
        let mut all = Self { sets, unsteered: Vec::new() };
        all.unsteered = all.texts(engine, None)?;
        Ok(all)
    }

    /// What the model writes without steering.
    pub fn unsteered(&self) -> &[Continuation] {
        &self.unsteered
    }

    /// What the model writes under `plan`: every prompt by every draft, in the order of [`unsteered`](Self::unsteered).
    ///
    /// # Errors
    /// See [`write`].
    pub fn steered(&self, engine: &mut Engine, plan: &Arc<Compiled>) -> Result<Vec<Continuation>> {
        self.texts(engine, Some(plan))
    }

    fn texts(&self, engine: &mut Engine, plan: Option<&Arc<Compiled>>) -> Result<Vec<Continuation>> {
        let mut texts = Vec::new();
        for (prompts, draft) in &self.sets {
            texts.extend(write(engine, plan, prompts, draft)?);
        }
        Ok(texts)
    }

    /// What `plan` does to the share of `wanted` words, and at what cost.
    ///
    /// # Errors
    /// See [`write`].
    pub fn effect(&self, engine: &mut Engine, plan: &Arc<Compiled>, wanted: &[String]) -> Result<Effect> {
        let usual = Tally::of(&self.unsteered, wanted);
        let steered = Tally::beside(&self.steered(engine, plan)?, wanted, Some(usual.perplexity()));
        Ok(Effect::between(&steered, &usual))
    }

    /// The strength at which the model speaks most of `wanted` words and stays fluent. `plan` makes the plan of a strength;
    /// progress counts trials.
    ///
    /// # Errors
    /// See [`write`] and [`search_strength`]; what `plan` returns; [`Cancelled`](crate::Kind::Cancelled).
    pub fn search(
        &self,
        engine: &mut Engine,
        search: &Search,
        wanted: &[String],
        plan: &dyn Fn(f32) -> Result<Arc<Compiled>>,
        progress: &mut Progress<'_>,
    ) -> Result<Found> {
        let total = search.strengths.len() + search.refine;
        // One text more that is broken may be chance, however few there are.
        let one = 1.0 / self.unsteered.len().max(1) as f64 + f64::EPSILON;
        let search = &Search { max_broken: search.max_broken.max(one), ..search.clone() };
        search_strength(search, &mut telling(total, progress, |strength| self.effect(engine, &plan(strength)?, wanted)))
    }
}

/// `effect`, which tells `progress` of every trial of at most `total`, and what the one before did; a cancelled one fails.
pub(super) fn telling<'a>(
    total: usize,
    progress: &'a mut Progress<'_>,
    mut effect: impl FnMut(f32) -> Result<Effect> + 'a,
) -> impl FnMut(f32) -> Result<Effect> + 'a {
    let (mut done, mut note) = (0, String::new());
    move |strength| {
        if !progress(Step { done, total: total as u64, note: &note }) {
            return Err(Error::cancelled());
        }
        let effect = effect(strength)?;
        done += 1;
        note = format!("strength {strength:.2}: gain {:.1}, perplexity {:.2}", effect.gain, effect.perplexity);
        Ok(effect)
    }
}
