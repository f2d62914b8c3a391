//! Does steering by a concept work: how much more does the text speak of it, and what does that cost in fluency?
//!
//! A [`Concept`] has words that choose its features and *other* words that score the text, so that a model which merely
//! repeats what it was steered with gains nothing. Texts are compared as wholes: the held-out words per 100 tokens, with
//! half a hit added to either side so that an unsteered count of zero gives no infinite gain, and the perplexity of the
//! written tokens as the *unsteered* model judges them. A text that runs in circles has a low perplexity; so the share of
//! distinct word pairs stands beside it, and texts that loop or are gibberish are counted ([`Fluency`]).
//!
//! [`search_strength`] finds how hard to steer: the strength with the largest gain among those that stay fluent. Nothing here
//! runs a model: the caller writes the texts, and tests do without.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::fluency::{Broken, Fluency, words};
use crate::error::{Error, Kind, Result};

/// A concept: words for choosing its features, and held-out words for scoring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concept {
    /// What it is called in tables.
    pub name: String,
    /// Words that choose features.
    pub words: Vec<String>,
    /// Words that score text, with every form that counts; a plural or possessive s need not be listed.
    pub held_out: Vec<String>,
}

/// Concepts, and the prompts to try them on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The concepts.
    pub concepts: Vec<Concept>,
    /// Prompts that scores are measured on.
    pub prompts: Vec<String>,
    /// Prompts that strengths are searched on.
    pub search_prompts: Vec<String>,
}

impl Suite {
    /// Sixteen concepts, 24 prompts to score and ten to search on: `examples/concepts.json`.
    ///
    /// # Errors
    /// None: a test reads it.
    pub fn built_in() -> Result<Self> {
        Self::from_json(include_str!("../../examples/concepts.json"), "the built-in concepts")
    }

    /// Reads and checks a suite from JSON text; `name` stands in error messages.
    ///
    /// # Errors
    /// [`Kind::Format`] if it is not such JSON, or if a held-out word could be a form of a word that chooses, or a prompt
    /// holds a word of a concept, or a prompt is used both to search and to score.
    pub fn from_json(text: &str, name: &str) -> Result<Self> {
        let wrong = |what: String| Error::new(Kind::Format, format!("{name}: {what}"));
        let suite: Self = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        suite.check().map_err(wrong)?;
        Ok(suite)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let prompts = || self.prompts.iter().chain(&self.search_prompts);
        let mut seen = HashSet::new();
        if let Some(prompt) = prompts().find(|prompt| !seen.insert(prompt.as_str())) {
            return Err(format!("expected each prompt once, found {prompt:?} again"));
        }
        if self.prompts.is_empty() || self.search_prompts.is_empty() {
            return Err("expected prompts and search_prompts, found none".into());
        }
        for Concept { name, words, held_out } in &self.concepts {
            if words.is_empty() || held_out.is_empty() {
                return Err(format!("{name}: expected words and held_out words, found none"));
            }
            for word in words {
                if let Some(other) = held_out.iter().find(|other| related(word, other)) {
                    return Err(format!("{name}: the held-out word {other:?} may be a form of {word:?}"));
                }
            }
            let every: Vec<String> = words.iter().chain(held_out).cloned().collect();
            if let Some(prompt) = prompts().find(|prompt| hits(prompt, &every) > 0) {
                return Err(format!("{name}: the prompt {prompt:?} holds a word of the concept"));
            }
        }
        Ok(())
    }
}

/// Whether two words may be forms of one: the shorter one, less a final e or y, begins the longer one. Strict on purpose.
fn related(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let (short, long) = if a.len() <= b.len() { (&a, &b) } else { (&b, &a) };
    let stem = short.strip_suffix(['e', 'y']).filter(|stem| stem.len() >= 3).unwrap_or(short);
    long.starts_with(stem)
}

/// How many words of `text` are among `wanted`: whole words, any case; a plural or possessive s may be added.
pub fn hits(text: &str, wanted: &[String]) -> u64 {
    let wanted: HashSet<String> = wanted.iter().map(|word| word.to_lowercase()).collect();
    let is_one = |word: &str| {
        wanted.contains(word)
            || ["'s", "’s", "es", "s"]
                .iter()
                .any(|end| word.strip_suffix(end).is_some_and(|base| wanted.contains(base)))
    };
    words(text).filter(|word| is_one(word)).count() as u64
}

/// A text that a model wrote, and how the unsteered model judges it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Continuation {
    /// What was written, without the prompt.
    pub text: String,
    /// Its length in tokens.
    pub n_tokens: usize,
    /// Sum of the negative log-likelihoods of its tokens under the unsteered model, in nats.
    pub nll: f64,
}

impl Continuation {
    /// The perplexity that the unsteered model gives it.
    pub fn perplexity(&self) -> f64 {
        (self.nll / self.n_tokens.max(1) as f64).exp()
    }

    /// Whether it is whole, where `usual` is the perplexity of unsteered texts of its kind, if that is known.
    pub fn fluency(&self, usual: Option<f64>) -> Fluency {
        Fluency::of(&self.text).judged(self.perplexity(), usual)
    }
}

/// Sums over texts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Words of the concept.
    pub hits: u64,
    /// Tokens.
    pub n_tokens: u64,
    /// Negative log-likelihood, in nats.
    pub nll: f64,
    /// Pairs of neighbouring words.
    pub pairs: u64,
    /// Pairs that had not come before in the same text.
    pub distinct_pairs: u64,
    /// Texts.
    pub n_texts: u64,
    /// Texts that loop.
    pub loops: u64,
    /// Texts that are gibberish.
    pub gibberish: u64,
}

impl Tally {
    /// Sums up unsteered `texts`, counting `wanted` words.
    pub fn of(texts: &[Continuation], wanted: &[String]) -> Self {
        Self::beside(texts, wanted, None)
    }

    /// Sums up `texts`, counting `wanted` words, where unsteered ones have this perplexity.
    pub fn beside(texts: &[Continuation], wanted: &[String], usual: Option<f64>) -> Self {
        let mut sum = Self::default();
        for text in texts {
            let fluency = text.fluency(usual);
            sum.hits += hits(&text.text, wanted);
            sum.n_tokens += text.n_tokens as u64;
            sum.nll += text.nll;
            sum.pairs += fluency.pairs as u64;
            sum.distinct_pairs += fluency.distinct_pairs as u64;
            sum.n_texts += 1;
            sum.loops += u64::from(fluency.broken() == Some(Broken::Loops));
            sum.gibberish += u64::from(fluency.broken() == Some(Broken::Gibberish));
        }
        sum
    }

    /// Share of texts that loop or are gibberish.
    pub fn broken(&self) -> f64 {
        (self.loops + self.gibberish) as f64 / self.n_texts.max(1) as f64
    }

    /// 100 (hits + 0.5) / tokens.
    pub fn per_100(&self) -> f64 {
        100.0 * (self.hits as f64 + 0.5) / (self.n_tokens.max(1)) as f64
    }

    /// exp of the mean negative log-likelihood.
    pub fn perplexity(&self) -> f64 {
        (self.nll / self.n_tokens.max(1) as f64).exp()
    }

    /// Share of word pairs that had not come before in their text; 1 for texts without pairs.
    pub fn distinct(&self) -> f64 {
        if self.pairs == 0 { 1.0 } else { self.distinct_pairs as f64 / self.pairs as f64 }
    }
}

/// What steering did to a set of texts, as ratios of steered over unsteered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Words of the concept per 100 tokens.
    pub gain: f64,
    /// Perplexity under the unsteered model.
    pub perplexity: f64,
    /// Share of distinct word pairs.
    pub distinct: f64,
    /// No ratio: the share of texts that loop or are gibberish, less the share of unsteered ones; 0 if they are no more.
    pub broken: f64,
}

impl Effect {
    /// Compares.
    pub fn between(steered: &Tally, unsteered: &Tally) -> Self {
        Self {
            gain: steered.per_100() / unsteered.per_100(),
            perplexity: steered.perplexity() / unsteered.perplexity(),
            distinct: steered.distinct() / unsteered.distinct().max(f64::MIN_POSITIVE),
            broken: (steered.broken() - unsteered.broken()).max(0.0),
        }
    }
}

/// How a strength is searched for.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Strengths to try, rising.
    pub strengths: Vec<f32>,
    /// Halvings between the best strength and its next, once the strengths are tried.
    pub refine: usize,
    /// Largest ratio of perplexities that still counts as fluent.
    pub max_perplexity: f64,
    /// Smallest ratio of distinct word pairs that still counts as fluent.
    pub min_distinct: f64,
    /// Largest share of texts that may loop or be gibberish, beyond the unsteered share.
    pub max_broken: f64,
    /// The concept is to be spoken of less: the smallest gain is the best one.
    pub suppress: bool,
}

impl Default for Search {
    /// In multiples of a feature's mean activation.
    fn default() -> Self {
        let strengths = vec![0.6, 1.0, 1.5, 2.2, 3.3, 5.0];
        Self { strengths, refine: 1, max_perplexity: 1.5, min_distinct: 0.8, max_broken: 0.1, suppress: false }
    }
}

impl Search {
    /// Whether text with this effect counts as fluent.
    pub fn is_fluent(&self, effect: &Effect) -> bool {
        effect.perplexity <= self.max_perplexity
            && effect.distinct >= self.min_distinct
            && effect.broken <= self.max_broken
    }

    /// Whether `effect` does more of what is wanted than `other`.
    fn is_better(&self, effect: &Effect, other: &Effect) -> bool {
        if self.suppress { effect.gain < other.gain } else { effect.gain > other.gain }
    }
}

/// A strength that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// How hard.
    pub strength: f32,
    /// What it did.
    pub effect: Effect,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The fluent trial with the largest gain (the smallest, to suppress), the weaker one if two gain the same; `None` if no
    /// trial was fluent.
    pub best: Option<Trial>,
    /// Every trial, in the order tried.
    pub trials: Vec<Trial>,
}

/// Finds the strength with the largest gain among those that leave the text fluent.
///
/// Strengths rise until two in a row are not fluent: stronger ones break the text more. Then the gap above the best one is
/// halved [`Search::refine`] times: upwards while fluent and better, downwards otherwise.
///
/// # Errors
/// [`Kind::Argument`] if the strengths are not finite and rising; what `effect` returns.
pub fn search_strength(search: &Search, effect: &mut dyn FnMut(f32) -> Result<Effect>) -> Result<Found> {
    let rising = search.strengths.windows(2).all(|pair| pair[0] < pair[1]);
    if search.strengths.is_empty() || !rising || search.strengths.iter().any(|s| !s.is_finite()) {
        return Err(Error::argument(format!("strengths: expected rising numbers, found {:?}", search.strengths)));
    }
    let mut found = Found { best: None, trials: Vec::new() };
    let mut broken = 0;
    for &strength in &search.strengths {
        broken = if found.attempt(search, strength, effect)? { 0 } else { broken + 1 };
        if broken == 2 {
            break;
        }
    }
    let Some(best) = found.best else { return Ok(found) };
    let above = found.trials.iter().map(|trial| trial.strength).filter(|&s| s > best.strength).reduce(f32::min);
    let (mut low, Some(mut high)) = (best.strength, above) else { return Ok(found) };
    for _ in 0..search.refine {
        let middle = (low + high) / 2.0;
        found.attempt(search, middle, effect)?;
        if found.best.is_some_and(|best| best.strength == middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(found)
}

impl Found {
    /// Tries a strength; whether it left the text fluent.
    fn attempt(
        &mut self,
        search: &Search,
        strength: f32,
        effect: &mut dyn FnMut(f32) -> Result<Effect>,
    ) -> Result<bool> {
        let trial = Trial { strength, effect: effect(strength)? };
        self.trials.push(trial);
        let fluent = search.is_fluent(&trial.effect);
        if fluent && self.best.is_none_or(|best| search.is_better(&trial.effect, &best.effect)) {
            self.best = Some(trial);
        }
        Ok(fluent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    fn suite(words: &[&str], held_out: &[&str], prompt: &str) -> String {
        let concept = Concept { name: "war".into(), words: list(words), held_out: list(held_out) };
        let suite = Suite {
            concepts: vec![concept],
            prompts: vec![prompt.into()],
            search_prompts: list(&["Once upon a time"]),
        };
        serde_json::to_string(&suite).unwrap()
    }

    #[test]
    fn hits_are_whole_words_in_any_case_with_a_plural_s() {
        let wanted = list(&["soldier", "tank", "bus"]);
        assert_eq!(hits("Soldiers' tanks, the SOLDIER’s tank; buses.", &wanted), 5);
        assert_eq!(hits("tanker soldiery thanks bu", &wanted), 0);
    }

    #[test]
    fn a_tally_adds_half_a_hit_and_counts_repeats() {
        let one = Continuation { text: "a tank a tank a tank".into(), n_tokens: 8, nll: 8.0 };
        let two = Continuation { text: "nothing at all".into(), n_tokens: 2, nll: 12.0 };
        let tally = Tally::of(&[one, two], &list(&["tank"]));
        assert_eq!((tally.hits, tally.n_tokens, tally.pairs, tally.distinct_pairs), (3, 10, 7, 4));
        assert!((tally.per_100() - 35.0).abs() < 1e-9);
        assert!((tally.perplexity() - 2_f64.exp()).abs() < 1e-9);
        assert!((tally.distinct() - 4.0 / 7.0).abs() < 1e-9);
    }

    #[test]
    fn an_effect_is_steered_over_unsteered() {
        let unsteered =
            Tally { n_tokens: 100, nll: 100.0, pairs: 10, distinct_pairs: 10, n_texts: 4, ..Tally::default() };
        let (hits, nll) = (5, 100.0 + 100.0 * 2_f64.ln());
        let steered = Tally { hits, nll, distinct_pairs: 5, loops: 2, gibberish: 1, ..unsteered };
        let effect = Effect::between(&steered, &unsteered);
        assert!((effect.gain - 11.0).abs() < 1e-9 && (effect.perplexity - 2.0).abs() < 1e-9);
        assert!((effect.distinct - 0.5).abs() < 1e-9 && (effect.broken - 0.75).abs() < 1e-9);
        let usual = Tally { loops: 4, ..unsteered };
        assert_eq!(Effect::between(&steered, &usual).broken, 0.0, "the model loops by itself");
    }

    #[test]
    fn likely_loops_are_no_success() {
        let text = |text: &str, nll: f64| Continuation { text: text.into(), n_tokens: 20, nll };
        let unsteered = [text("He went home, sat down by the window and read the letter again.", 30.0)];
        let looped = [text("the sea, the sea, the sea, the sea, the sea, the sea, the sea", 5.0)];
        let wanted = list(&["sea"]);
        let usual = Tally::of(&unsteered, &wanted);
        let steered = Tally::beside(&looped, &wanted, Some(usual.perplexity()));
        assert_eq!((steered.loops, steered.gibberish, usual.broken()), (1, 0, 0.0));
        let effect = Effect::between(&steered, &usual);
        assert!(effect.gain > 10.0 && effect.perplexity < 1.0, "the old figures praise it: {effect:?}");
        assert!(!Search { min_distinct: 0.0, ..Search::default() }.is_fluent(&effect));
    }

    #[test]
    fn held_out_words_are_no_forms_of_choosing_words() {
        assert!(Suite::from_json(&suite(&["war", "army"], &["soldier", "battle"], "The"), "s").is_ok());
        for (chosen, held_out) in [("army", "armies"), ("war", "warfare"), ("battle", "battling"), ("Ship", "shipping")]
        {
            let error = Suite::from_json(&suite(&[chosen], &[held_out], "The"), "s.json").unwrap_err();
            assert!(error.message().contains("s.json: war: the held-out word"), "{error}");
        }
    }

    #[test]
    fn prompts_are_neutral_and_used_once() {
        let error = Suite::from_json(&suite(&["war"], &["tank"], "Two tanks"), "s").unwrap_err();
        assert!(error.message().contains("holds a word of the concept"), "{error}");
        let error = Suite::from_json(&suite(&["war"], &["tank"], "Once upon a time"), "s").unwrap_err();
        assert!(error.message().contains("expected each prompt once"), "{error}");
        assert_eq!(Suite::from_json("{", "s").unwrap_err().kind(), Kind::Format);
    }

    /// Gain grows with strength, perplexity too; at `limit` it passes 1.5.
    fn model(limit: f64) -> impl FnMut(f32) -> Result<Effect> {
        move |s| {
            let s = f64::from(s);
            Ok(Effect { gain: 1.0 + s, perplexity: 1.0 + 0.5 * s / limit, distinct: 1.0, broken: 0.0 })
        }
    }

    #[test]
    fn the_search_ends_just_below_where_text_breaks() {
        let search = Search { strengths: vec![0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], refine: 2, ..Search::default() };
        let found = search_strength(&search, &mut model(2.6)).unwrap();
        assert_eq!(found.best.unwrap().strength, 2.5);
        // Two broken strengths (3 and 4) end the climb; 6 is never tried.
        let tried: Vec<f32> = found.trials.iter().map(|t| t.strength).collect();
        assert_eq!(tried, [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 2.5, 2.75]);
    }

    #[test]
    fn the_search_prefers_the_weaker_of_equal_gains_and_avoids_repetition() {
        let distinct = |s: f32| if s > 1.2 { 0.1 } else { 1.0 };
        let mut flat = |s: f32| Ok(Effect { gain: 3.0, perplexity: 1.0, distinct: distinct(s), broken: 0.0 });
        let found = search_strength(&Search::default(), &mut flat).unwrap();
        assert_eq!(found.best.unwrap().strength, 0.6);
        let mut broken = |_| Ok(Effect { gain: 9.0, perplexity: 5.0, distinct: 1.0, broken: 0.0 });
        let found = search_strength(&Search::default(), &mut broken).unwrap();
        assert!(found.best.is_none() && found.trials.len() == 2);
    }

    #[test]
    fn what_suppresses_is_searched_for_the_smallest_gain() {
        let search = Search { suppress: true, refine: 0, strengths: vec![0.25, 0.5, 0.75, 1.0], ..Search::default() };
        let mut less =
            |s: f32| Ok(Effect { gain: 1.0 - 0.5 * f64::from(s), perplexity: 1.0, distinct: 1.0, broken: 0.0 });
        assert_eq!(search_strength(&search, &mut less).unwrap().best.unwrap().strength, 1.0);
        assert_eq!(
            search_strength(&Search { suppress: false, ..search }, &mut less).unwrap().best.unwrap().strength,
            0.25
        );
    }

    #[test]
    fn strengths_must_rise_and_errors_pass_through() {
        for strengths in [vec![], vec![1.0, 1.0], vec![f32::NAN]] {
            let search = Search { strengths, ..Search::default() };
            assert_eq!(search_strength(&search, &mut model(1.0)).unwrap_err().kind(), Kind::Argument);
        }
        let mut fails = |_| Err(Error::cancelled());
        assert_eq!(search_strength(&Search::default(), &mut fails).unwrap_err().kind(), Kind::Cancelled);
    }
}
