//! Which layer steers best: each candidate gets a small dictionary and a few concepts.

use std::sync::Arc;
use std::time::Instant;

use super::state::Tried;
use super::text::Text;
use super::{Job, Options};
use crate::activations::Activations;
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Generate};
use crate::error::{Error, Result};
use crate::eval::concepts::{Search, Suite};
use crate::eval::gain::{self, Gauge};
use crate::eval::quality;
use crate::eval::trial;
use crate::explain::counted::Count;
use crate::explain::harvested::{self, Data};
use crate::explain::{Explanations, Vocabulary};
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
/// Concepts that layers are compared on.
const CONCEPTS: usize = 6;

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

/// How gains are measured here: one sampled text a prompt.
fn quick(tokens: usize) -> gain::Options {
    let sampled = Generate { max_tokens: tokens, temperature: 0.8, top_p: 0.95, seed: 1, ..Generate::default() };
    let search =
        Search { strengths: vec![0.5, 1.0, 1.5, 2.0, 3.0], refine: 1, max_perplexity: 1.7, ..Search::default() };
    gain::Options { search, search_drafts: vec![sampled.clone()], drafts: vec![sampled], ..gain::Options::default() }
}

impl Job<'_> {
    pub(super) fn try_layers(&mut self, text: &Text, progress: &mut Progress<'_>) -> Result<()> {
        let layers = self.state.settings.layers.clone();
        if self.state.tried.len() == layers.len() {
            return Ok(());
        }
        let rows = self.trial_rows(text, progress)?;
        let suite = Suite {
            concepts: self.options.suite.concepts.iter().take(CONCEPTS).cloned().collect(),
            ..self.options.suite.clone()
        };
        let (mut engine, gauge) = self.gauge(&suite, 24)?;
        let begin = self.clock.elapsed();
        for (i, (layer, rows)) in layers.iter().zip(&rows).enumerate() {
            if self.state.tried.iter().any(|tried| tried.layer == *layer) {
                continue;
            }
            // Each layer may take its share of what is left.
            let end = begin + (0.40 * self.clock.total() - begin) * (i + 1) as f64 / layers.len() as f64;
            let tried = self.try_layer(*layer, rows, &suite, &gauge, &mut engine, end, progress)?;
            self.state.tried.push(tried);
            self.save()?;
        }
        Ok(())
    }

    /// The engine, and what it writes unsteered.
    pub(super) fn gauge(&self, suite: &Suite, tokens: usize) -> Result<(Engine, Gauge)> {
        let sequences = trial::SEQUENCES;
        let options = crate::engine::Options { context: 4096, sequences, ..self.engine_options() };
        let mut engine = Engine::open(self.path, &options)?;
        let gauge = Gauge::new(&mut engine, suite, quick(tokens))?;
        Ok((engine, gauge))
    }

    #[allow(clippy::too_many_arguments)]
    fn try_layer(
        &self,
        layer: usize,
        rows: &Activations,
        suite: &Suite,
        gauge: &Gauge,
        engine: &mut Engine,
        end: f64,
        progress: &mut Progress<'_>,
    ) -> Result<Tried> {
        let started = Instant::now();
        let shape = train::Options { n_features: FEATURES, epochs: 2, ..self.training() };
        let what = format!("layer {layer}: training");
        let table = Rows::from_activations(&[rows])?;
        let dictionary = fit(&table, &shape, None, &mut |step| self.clock.tell(progress, &what, step))?;
        let seen = 2.0 * table.len() as f64;
        let train_rows_per_second = seen / started.elapsed().as_secs_f64();
        let options = quality::Options { threads: self.threads(), max_rows: 8192, ..quality::Options::default() };
        let fvu = quality::quality(rows, &dictionary, &options, &mut crate::progress::silent)?.fvu;
        let dictionary = Arc::new(dictionary.without_dead()?);
        let (_, explanations) = self.explain(&dictionary, std::slice::from_ref(rows), EXPLAINED, progress)?;
        let mut gains = Vec::new();
        for concept in &suite.concepts {
            if gains.len() >= 2 && self.clock.elapsed() > end {
                break;
            }
            let what = format!("layer {layer}: steering by {}", concept.name);
            let made = gauge.gain(engine, &dictionary, &explanations, concept, &mut |step| {
                self.clock.tell(progress, &what, step)
            })?;
            gains.push((concept.name.clone(), made.effect().gain, made.effect().perplexity));
        }
        Ok(Tried { layer, rows: table.len(), features: FEATURES, fvu, train_rows_per_second, gains })
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
