//! What the features of a plan mean, and what they were seen to do.
//!
//! Words come from explanations; a direction that has none is read by the words that it points at in the unembedding. After
//! features are chosen, how well one is explained no longer says how well it steers, so a measured effect stands beside each:
//! by how many nats pushing it alone makes its words likelier ([`output`](crate::eval::output)).

use super::report::{Feature, Meaning};
use super::subject::{Assets, Subject};
use super::texts::Work;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::eval::output::{Output, lifts};
use crate::explain::pointed;
use crate::model::Model;
use crate::plan::Rule;

/// Features that are listed, at most.
pub(super) const FEATURES: usize = 16;
/// Features whose effect is measured.
const LIFTED: usize = 8;
/// Words that are shown of a feature.
const WORDS: usize = 8;
/// Words of a feature whose probability is measured, where nobody names any.
const OWN: usize = 3;

/// The features of a plan. `words`: what the plan is for, where that was said.
pub(super) fn features(
    engine: &mut Engine,
    model: &Model,
    subject: &Subject,
    words: &[String],
    work: &mut Work<'_>,
) -> Result<Meaning> {
    let mut all = Meaning::default();
    for (index, rule) in subject.plan.rules.iter().enumerate() {
        let Some(assets) = subject.assets(rule) else { continue };
        for (feature, weight) in named(rule, assets) {
            if all.features.len() == FEATURES {
                all.more_features += 1;
                continue;
            }
            let mut found = describe(model, assets, feature)?;
            (found.rule, found.weight) = (index, weight);
            if all.features.len() < LIFTED {
                lift(engine, assets, &mut found, words, work)?;
            }
            all.features.push(found);
        }
    }
    Ok(all)
}

/// The features of a rule with their weights; of all, those that add most to the row first.
fn named(rule: &Rule, assets: &Assets) -> Vec<(u32, f32)> {
    if !rule.features.is_all() {
        return rule.features.iter().map(|feature| (feature.id, feature.weight)).collect();
    }
    let dictionary = &assets.dictionary;
    let length = |&i: &u32| {
        let mean = dictionary.stats(i as usize).map_or(1.0, |stats| stats.mean);
        mean * dictionary.decoder_norm(i as usize)
    };
    let mut all: Vec<u32> = (0..dictionary.n_features() as u32).collect();
    all.sort_by(|a, b| length(b).total_cmp(&length(a)).then(a.cmp(b)));
    all.into_iter().map(|i| (i, 1.0)).collect()
}

/// What a feature means.
fn describe(model: &Model, assets: &Assets, feature: u32) -> Result<Feature> {
    let dictionary = &assets.dictionary;
    if feature as usize >= dictionary.n_features() {
        let n = dictionary.n_features();
        return Err(Error::mismatch(format!("feature {feature} does not exist; the dictionary has 0 to {}", n - 1)));
    }
    let layer = dictionary.feature_layer(feature as usize).or(dictionary.layer_out()).or(dictionary.layer());
    let found = Feature { feature, layer, ..Feature::default() };
    let explained = assets.explanations.as_ref().and_then(|all| all.get(feature)).filter(|e| !e.words.is_empty());
    if let Some(explained) = explained {
        let words = explained.summary(WORDS);
        let words = explained.label.as_ref().map_or(words.clone(), |label| format!("[{label}] {words}"));
        let lifted = explained.words.iter().take(OWN).map(|(word, _)| word.clone()).collect();
        return Ok(Feature { words, lifted, ..found });
    }
    let mut row = vec![0f32; dictionary.d_out()];
    dictionary.decoder_row(feature as usize, &mut row);
    let words = match pointed::words(model, &[row], WORDS) {
        Ok(mut words) => words.pop().unwrap_or_default(),
        // A model without a final RMS norm, or a dictionary of another width.
        Err(error) if matches!(error.kind(), Kind::Unsupported | Kind::Mismatch) => Vec::new(),
        Err(error) => return Err(error),
    };
    let words: Vec<String> = words.into_iter().map(|(word, _)| word).collect();
    let lifted = words.iter().take(OWN).cloned().collect();
    Ok(Feature { words: words.join(" "), lifted, by_lens: true, ..found })
}

/// Measures what pushing the feature does to the plan's words, or to its own.
fn lift(
    engine: &mut Engine,
    assets: &Assets,
    found: &mut Feature,
    words: &[String],
    work: &mut Work<'_>,
) -> Result<()> {
    if !words.is_empty() {
        found.lifted = words.to_vec();
    }
    let lifted: Vec<&str> = found.lifted.iter().map(String::as_str).collect();
    let mut go_on = |_: crate::progress::Step<'_>| work.go_on();
    match lifts(engine, &assets.dictionary, &[found.feature], &lifted, &Output::default(), &mut go_on) {
        Ok(lifts) => found.lift = lifts.first().copied().filter(|lift| lift.is_finite()),
        // Words without a token, or a dictionary without a place to push at.
        Err(error) if matches!(error.kind(), Kind::Argument | Kind::Mismatch | Kind::Unsupported) => {}
        Err(error) => return Err(error),
    }
    work.step(1)
}
