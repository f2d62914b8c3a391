//! Which layer steers best: each candidate gets a small dictionary and a few concepts.

use std::path::PathBuf;
use std::sync::Arc;

use super::state::Tried;
use super::text::Text;
use super::{Job, Options};
use crate::activations::Activations;
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Generate};
use crate::error::{Error, Result};
use crate::eval::expected::Expectation;
use crate::eval::gain::{self, SearchBy};
use crate::eval::quality;
use crate::eval::trial;
use crate::explain::counted::Count;
use crate::explain::harvested::{self, Data};
use crate::explain::{Explanations, Vocabulary};
use crate::file::gguf::GgmlType;
use crate::progress::Progress;
use crate::train::{self, Rows, fit};

/// Features of a trial's dictionary, and rows that explanations count over.
const FEATURES: usize = 2048;
const EXPLAINED: usize = 100_000;
/// Words that explanations may use.
const WORDS: usize = 5000;
/// Rows a step.
pub(super) const BATCH: usize = 1024;
/// Learning rate, for that batch.
pub(super) const LR: f32 = 3e-3;
/// Tokens of each text that is read to see what steering would do, and the ratio of perplexities that steering may cost there:
/// what is drawn at that strength has 1.3 to 1.5 times the perplexity.
const READ: usize = 24;
const COST: f64 = 1.25;
/// Share of the time at which no further concept is begun, and at which one is broken off.
const COMPARED: f64 = 0.36;
const LATEST: f64 = 0.45;

/// The layers to try.
pub(super) fn candidates(options: &Options, n_layer: usize) -> Result<Vec<usize>> {
    let mut layers = options.layers.clone();
    if let Some(layer) = layers.iter().find(|&&layer| layer >= n_layer) {
        return Err(Error::argument(format!(
            "adopt: layer {layer} does not exist; the model has 0 to {}",
            n_layer - 1
        )));
    }
    if layers.is_empty() {
        // The last block's rows are only there for tokens whose logits are wanted.
        let at = |share: f64| ((n_layer as f64 * share) as usize).saturating_sub(1).min(n_layer.saturating_sub(2));
        layers = vec![at(1.0 / 2.0), at(2.0 / 3.0), at(5.0 / 6.0)];
    }
    layers.sort_unstable();
    layers.dedup();
    Ok(layers)
}

/// How texts are drawn here. Of a large vocabulary all is sorted to keep the likely part of it, which takes as long as the
/// model does; a lower temperature keeps the unlikely away as well.
fn draft(max_tokens: usize) -> Generate {
    Generate { max_tokens, temperature: 0.7, seed: 1, ..Generate::default() }
}

/// How gains are measured: one sampled text a prompt, at a strength that is calculated.
pub(super) fn gains() -> gain::Options {
    let search = SearchBy::Expectation { draft: draft(READ), cost: COST };
    gain::Options { search, drafts: vec![draft(40)], ..gain::Options::default() }
}

impl Job<'_> {
    pub(super) fn try_layers(&mut self, text: &Text, progress: &mut Progress<'_>) -> Result<()> {
        if self.state.compared {
            return Ok(());
        }
        let layers = self.state.settings.layers.clone();
        let rows = self.trial_rows(text, progress)?;
        for (layer, rows) in layers.iter().zip(&rows) {
            if !self.state.tried.iter().any(|tried| tried.layer == *layer) {
                let tried = self.prepare(*layer, rows, progress)?;
                self.state.tried.push(tried);
                self.save()?;
            }
        }
        if layers.len() > 1 {
            self.compare(progress)?;
        }
        self.state.compared = true;
        self.save()
    }

    /// Asks every layer for one concept after the other, so that all are judged by the same ones, as many as there is
    /// time for.
    fn compare(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        let suite = &self.options.suite;
        let mut engine = self.steering_engine()?;
        let texts = Expectation::new(&mut engine, &suite.search_prompts, &draft(READ))?;
        let mut trials = Vec::new();
        for layer in self.state.tried.iter().map(|tried| tried.layer) {
            let (dictionary, explanations) = self.trial(layer);
            trials.push((layer, Arc::new(Dictionary::open(&dictionary)?), Explanations::load(&explanations)?));
        }
        let done = self.state.tried.first().map_or(0, |tried| tried.gains.len());
        let mut longest = 0f64;
        for (n, concept) in suite.concepts.iter().enumerate().skip(done) {
            let begin = self.clock.elapsed();
            if n > 0 && self.clock.until(COMPARED) < longest {
                break;
            }
            let mut gains = Vec::new();
            for (layer, dictionary, explanations) in &trials {
                let what = format!("layer {layer}: steering by {}:", concept.name);
                let made = self.clock.in_time(LATEST, &what, progress, |progress| {
                    gain::expected(&mut engine, &texts, dictionary, explanations, concept, COST, progress)
                })?;
                let Some(made) = made else { return Ok(()) };
                let (gain, perplexity) = made.map_or((1.0, 1.0), |made| (made.effect.gain, made.effect.perplexity));
                gains.push((concept.name.clone(), gain, perplexity));
            }
            self.state.tried.iter_mut().zip(gains).for_each(|(tried, gain)| tried.gains.push(gain));
            self.save()?;
            longest = longest.max(self.clock.elapsed() - begin);
        }
        Ok(())
    }

    /// The trial dictionary of a layer, and its explanations.
    fn trial(&self, layer: usize) -> (PathBuf, PathBuf) {
        let path = |kind: &str| self.work.join(format!("trial-{layer}.{kind}"));
        (path("gguf"), path("jsonl"))
    }

    /// An engine that reads and writes many texts side by side.
    pub(super) fn steering_engine(&self) -> Result<Engine> {
        let sizes = crate::engine::Options { context: 4096, sequences: trial::SEQUENCES, ..self.engine_options() };
        Engine::open(self.path, &sizes)
    }

    /// A small dictionary for a layer.
    fn prepare(&self, layer: usize, rows: &Activations, progress: &mut Progress<'_>) -> Result<Tried> {
        let shape = train::Options { n_features: FEATURES, epochs: 2, ..self.training() };
        let what = format!("layer {layer}: training");
        let table = Rows::from_activations(&[rows])?;
        let (dictionary, seconds) =
            self.clock.timed(|| fit(&table, &shape, None, &mut |step| self.clock.tell(progress, &what, step)))?;
        let train_rows_per_second = 2.0 * table.len() as f64 / seconds;
        let options = quality::Options { threads: self.threads(), max_rows: 8192, ..quality::Options::default() };
        let fvu = quality::quality(rows, &dictionary, &options, &mut crate::progress::silent)?.fvu;
        let dictionary = dictionary.without_dead()?;
        let (_, explanations) = self.explain(&dictionary, std::slice::from_ref(rows), EXPLAINED, progress)?;
        let (place, meanings) = self.trial(layer);
        dictionary.save_gguf(&place, GgmlType::F32)?;
        explanations.save(&meanings)?;
        Ok(Tried { layer, rows: table.len(), features: FEATURES, fvu, train_rows_per_second, gains: Vec::new() })
    }

    /// How dictionaries are trained.
    pub(super) fn training(&self) -> train::Options {
        train::Options {
            variant: train::Variant::BatchTopK,
            k: 32,
            batch: BATCH,
            lr: LR,
            threads: self.threads(),
            ..train::Options::default()
        }
    }

    /// A vocabulary from `rows`, and what the features mean.
    pub(super) fn explain(
        &self,
        dictionary: &Dictionary,
        rows: &[Activations],
        max_rows: usize,
        progress: &mut Progress<'_>,
    ) -> Result<(Vocabulary, Explanations)> {
        let vocabulary = harvested::vocabulary(rows, &self.model, WORDS)?;
        let count = Count { threads: self.threads(), ..Count::default() };
        let options = Data { max_rows, count, ..Data::default() };
        let made = harvested::data(rows, &self.model, dictionary, &vocabulary, &options, &mut |step| {
            self.clock.tell(progress, "explaining", step)
        })?;
        Ok((vocabulary, made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_lie_in_the_upper_half_and_are_checked() {
        let options = Options::new().unwrap();
        assert_eq!(candidates(&options, 30).unwrap(), [14, 19, 24]);
        assert_eq!(candidates(&options, 18).unwrap(), [8, 11, 14]);
        assert_eq!(candidates(&options, 2).unwrap(), [0]);
        assert_eq!(candidates(&Options { layers: vec![5, 3, 5], ..options.clone() }, 6).unwrap(), [3, 5]);
        assert!(candidates(&Options { layers: vec![6], ..options }, 6).is_err());
    }
}
