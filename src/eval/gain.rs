//! How much more a model speaks of a concept when it is steered by the concept's words: choose features, search the
//! strength on some prompts, write on others, count *other* words of the concept there. See [`concepts`](super::concepts).

use std::sync::Arc;

use super::concepts::{Concept, Continuation, Effect, Found, Search, Suite, Tally, Trial};
use super::expected::Expectation;
use super::output::{self, Output};
use super::trial::{Comparison, drafts, wanted};
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Generate};
use crate::error::{Error, Result};
use crate::explain::{Explanations, Match};
use crate::num::rng;
use crate::plan::{Compiled, Feature, Op, Plan, Route, Rule, Strength, Target};
use crate::progress::Progress;
use rand::Rng;

/// How gains are measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Features a concept, at most.
    pub features: usize,
    /// Ranks features by what they make the model say; else by their explanations alone.
    pub output: Option<Output>,
    /// How strengths are searched.
    pub search: SearchBy,
    /// How the texts that are scored are written.
    pub drafts: Vec<Generate>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            features: 6,
            output: Some(Output::default()),
            search: SearchBy::Texts { search: Search::default(), drafts: drafts(40).into_iter().skip(1).collect() },
            drafts: drafts(50).to_vec(),
        }
    }
}

/// What a search judges a strength by.
#[derive(Clone, Debug)]
pub enum SearchBy {
    /// Words in texts that are written under it.
    Texts {
        /// Strengths in multiples of a feature's mean activation, and what counts as fluent.
        search: Search,
        /// How the texts are written: all of these ways.
        drafts: Vec<Generate>,
    },
    /// The expected next words in unsteered texts, written in the way of `draft`: the strength whose expected ratio of
    /// perplexities is `cost`. Nothing is left to chance, and it is several times faster. See [`expected`](super::expected).
    Expectation {
        /// How the texts are written.
        draft: Generate,
        /// The ratio.
        cost: f64,
    },
}

/// What steering by a concept's words did.
#[derive(Clone, Debug)]
pub struct Gain {
    /// The features that were chosen, best first; none if no explanation holds any of the words.
    pub matches: Vec<Match>,
    /// What the search tried.
    pub found: Option<Found>,
    /// The texts, steered by what the search found best; without it the unsteered ones.
    pub texts: Vec<Continuation>,
    /// Held-out words in them.
    pub steered: Tally,
    /// Held-out words in the unsteered texts.
    pub unsteered: Tally,
}

impl Gain {
    /// Steered over unsteered; 1 throughout for a concept that could not be steered.
    pub fn effect(&self) -> Effect {
        Effect::between(&self.steered, &self.unsteered)
    }

    /// The strength that the search found.
    pub fn strength(&self) -> Option<f32> {
        self.found.as_ref().and_then(|found| found.best).map(|best| best.strength)
    }
}

/// A model, and what it writes unsteered: made once, for any number of dictionaries and concepts.
pub struct Gauge {
    options: Options,
    searching: Searching,
    scoring: Comparison,
}

/// The unsteered texts of the search.
enum Searching {
    Texts(Comparison, Search),
    Expectation(Expectation, f64),
}

impl Gauge {
    /// Writes the unsteered texts.
    ///
    /// # Errors
    /// See [`Comparison::new`] and [`Expectation::new`].
    pub fn new(engine: &mut Engine, suite: &Suite, options: Options) -> Result<Self> {
        let prompts = &suite.search_prompts;
        let searching = match &options.search {
            SearchBy::Texts { search, drafts } => {
                Searching::Texts(Comparison::new(engine, prompts.clone(), drafts)?, search.clone())
            }
            SearchBy::Expectation { draft, cost } => {
                Searching::Expectation(Expectation::new(engine, prompts, draft)?, *cost)
            }
        };
        let scoring = Comparison::new(engine, suite.prompts.clone(), &options.drafts)?;
        Ok(Self { options, searching, scoring })
    }

    /// Steers by the words of `concept`, and counts. Progress counts trials of strengths.
    ///
    /// # Errors
    /// See [`output::rank`], [`Comparison::search`], [`Comparison::steered`].
    pub fn gain(
        &self,
        engine: &mut Engine,
        dictionary: &Arc<Dictionary>,
        explanations: &Explanations,
        concept: &Concept,
        progress: &mut Progress<'_>,
    ) -> Result<Gain> {
        let words: Vec<&str> = concept.words.iter().map(String::as_str).collect();
        let matches = output::choose(
            engine,
            dictionary,
            explanations,
            &words,
            self.options.features,
            self.options.output.as_ref(),
            progress,
        )?;
        if matches.is_empty() {
            return Ok(self.unsteered(concept));
        }
        let target = engine.target();
        let plan = |strength| steer(dictionary, &matches, strength, &target);
        let target = wanted(&words.join(" "), &matches);
        let found = match &self.searching {
            Searching::Texts(texts, search) => texts.search(engine, search, &target, &plan, progress)?,
            Searching::Expectation(texts, cost) => {
                let target: Vec<&str> = target.iter().map(String::as_str).collect();
                texts.at_cost(engine, *cost, &target, &plan, progress)?
            }
        };
        let texts = match found.best {
            Some(best) => self.scoring.steered(engine, &plan(best.strength)?)?,
            None => self.scoring.unsteered().to_vec(),
        };
        let made = self.unsteered(concept);
        let steered = Tally::beside(&texts, &concept.held_out, Some(made.unsteered.perplexity()));
        Ok(Gain { matches, found: Some(found), texts, steered, ..made })
    }

    /// The same with features drawn at random, each raised by a vector as long as that of its counterpart in `gain`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Kind::Unsupported) if the dictionary has too few other features that fire; see
    /// [`Comparison::steered`].
    pub fn control(
        &self,
        engine: &mut Engine,
        dictionary: &Arc<Dictionary>,
        concept: &Concept,
        gain: &Gain,
    ) -> Result<Gain> {
        let Some(strength) = gain.strength() else { return Ok(self.unsteered(concept)) };
        let rule = random(dictionary, &gain.matches, strength)?;
        let plan = compile(dictionary, rule, &engine.target())?;
        let texts = self.scoring.steered(engine, &plan)?;
        let made = self.unsteered(concept);
        let steered = Tally::beside(&texts, &concept.held_out, Some(made.unsteered.perplexity()));
        Ok(Gain { texts, steered, ..made })
    }

    /// The unsteered texts beside which gains are measured: every prompt by the first draft, then by the next.
    pub fn unsteered_texts(&self) -> &[Continuation] {
        self.scoring.unsteered()
    }

    fn unsteered(&self, concept: &Concept) -> Gain {
        let texts = self.scoring.unsteered().to_vec();
        let unsteered = Tally::of(&texts, &concept.held_out);
        Gain { matches: Vec::new(), found: None, texts, steered: unsteered, unsteered }
    }
}

fn compile(dictionary: &Arc<Dictionary>, rule: Rule, target: &Target) -> Result<Arc<Compiled>> {
    Ok(Arc::new(Plan::new([rule]).compile(&[("d", dictionary.clone())], target, Route::Auto)?))
}

/// What is expected of a dictionary: what steering by the words of `concept` would do to its *other* words, at the strength
/// whose expected ratio of perplexities is `cost`. Nothing is drawn, so dictionaries can be compared by it. None if no
/// explanation holds any of the words, or every strength costs more.
///
/// # Errors
/// See [`output::rank`] and [`Expectation::at_cost`].
pub fn expected(
    engine: &mut Engine,
    texts: &Expectation,
    dictionary: &Arc<Dictionary>,
    explanations: &Explanations,
    concept: &Concept,
    cost: f64,
    progress: &mut Progress<'_>,
) -> Result<Option<Trial>> {
    let Options { features, output, .. } = Options::default();
    let words: Vec<&str> = concept.words.iter().map(String::as_str).collect();
    let held_out: Vec<&str> = concept.held_out.iter().map(String::as_str).collect();
    let matches = output::choose(engine, dictionary, explanations, &words, features, output.as_ref(), progress)?;
    if matches.is_empty() {
        return Ok(None);
    }
    let target = engine.target();
    let plan = |strength| steer(dictionary, &matches, strength, &target);
    Ok(texts.at_cost(engine, cost, &held_out, &plan, progress)?.best)
}

/// Raises the features of `matches`, by their weights, to `strength` multiples of their mean activations.
fn steer(dictionary: &Arc<Dictionary>, matches: &[Match], strength: f32, target: &Target) -> Result<Arc<Compiled>> {
    let features = matches.iter().map(|m| Feature::new(m.feature, m.weight));
    compile(dictionary, Rule::new(Op::MinClamp, features, Strength::activation(strength)), target)
}

/// Random features, as many, each raised to a vector of the same length as its counterpart. Features that hardly ever fire
/// are not drawn.
fn random(dictionary: &Dictionary, matches: &[Match], strength: f32) -> Result<Rule> {
    let d = dictionary;
    let fires = |i: u32| d.stats(i as usize).is_none_or(|s| s.density > 1e-4 && s.density < 0.1);
    let mut random = rng(u64::from(matches.first().map_or(0, |m| m.feature)));
    let mut features: Vec<Feature> = Vec::new();
    for m in matches {
        let mut draws = (0..10_000).map(|_| random.random_range(0..d.n_features() as u32));
        let taken = |id: u32| matches.iter().any(|m| m.feature == id) || features.iter().any(|f| f.id == id);
        let id = draws.find(|&id| fires(id) && !taken(id));
        let id = id.ok_or_else(|| Error::unsupported("the dictionary has no other features that fire"))?;
        let mean = d.stats(m.feature as usize).map_or(1.0, |s| s.mean);
        let length = strength * m.weight * mean * d.decoder_norm(m.feature as usize);
        features.push(Feature { id, weight: length / d.decoder_norm(id as usize) });
    }
    Ok(Rule::new(Op::MinClamp, features, Strength::raw(1.0)))
}
