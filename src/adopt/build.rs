//! The dictionary of the chosen layer: rows, training, explanations, tests.

use std::sync::Arc;

use super::Job;
use super::layers;
use super::state::{Shown, Tested};
use super::text::Text;
use crate::activations::Activations;
use crate::dictionary::Dictionary;
use crate::engine::{Document, Engine};
use crate::error::Result;
use crate::eval::concepts::{Concept, Continuation, Suite, hits};
use crate::eval::fluency::Fluency;
use crate::eval::gain::{Gain, Gauge};
use crate::eval::self_test::{self, self_test};
use crate::explain::Explanations;
use crate::file::gguf::GgmlType;
use crate::progress::Progress;
use crate::train::{self, Rows, fit};

/// Rows for each feature.
const ROWS_A_FEATURE: usize = 100;
/// Features at least: of few rows, few features are learned well.
const FEWEST: usize = 512;
/// A feature fires on one row of so many on the mean, at least: one that fires more often has no words.
const SELDOM: usize = 32;
/// Rows that explanations count over, at most.
const EXPLAINED: usize = 1_000_000;
/// Share of the time after which no gain is measured.
const LATEST: f64 = 0.98;
/// Tokens that the self-test reads, and scores, at most; in shorter runs as many as come in this share of the time.
const TEST: (usize, usize) = (20_000, 3_000);
const TESTING: f64 = 0.022;
/// Tokens that it scores at least.
const SCORED: usize = 512;
/// Texts that the report shows.
const SHOWN: usize = 5;
/// Words of a concept that steering has to bring to a text.
const LEAST_HITS: u64 = 2;

impl Job<'_> {
    pub(super) fn build(&mut self, text: &Text, progress: &mut Progress<'_>) -> Result<()> {
        if self.state.tested.is_some() {
            return Ok(());
        }
        let main = self.main_rows(text, progress)?;
        let layer = self.layer()?;
        let place = self.work.join("trial");
        let one = self.state.settings.layers.len() == 1;
        let place = if one { place } else { place.join(format!("layer-{layer}")) };
        // A finished adoption has cleared them away; given more time, it has more of the layer's own.
        let trial = place.exists().then(|| Activations::open(&place)).transpose()?;
        let rows: Vec<Activations> = trial.into_iter().chain([main]).collect();
        let (dictionary, n_rows) = self.train(&rows, progress)?;
        let trained = dictionary.n_features();
        let dictionary = dictionary.without_dead()?;
        let kind = if dictionary.d_model().is_multiple_of(32) { GgmlType::Q8_0 } else { GgmlType::F16 };
        dictionary.save_gguf(&self.dictionary(), kind)?;
        let dictionary = Arc::new(Dictionary::open(&self.dictionary())?);
        let (_, explanations) = self.explain(&dictionary, &rows, EXPLAINED, progress)?;
        explanations.save(&self.explanations())?;
        let epochs = self.state.shape.map_or(0, |shape| shape.1);
        let mut tested = self.test(&dictionary, &text.held_out, progress)?;
        self.gains(&dictionary, &explanations, &mut tested, progress)?;
        tested.explained = explanations.list().iter().filter(|explanation| !explanation.words.is_empty()).count();
        self.state.tested =
            Some(Tested { rows: n_rows, epochs, features: (trained, dictionary.n_features()), ..tested });
        self.save()
    }

    /// As many features as the rows are good for, as many passes as there is time for.
    fn train(&mut self, rows: &[Activations], progress: &mut Progress<'_>) -> Result<(Dictionary, usize)> {
        let table = Rows::from_activations(&rows.iter().collect::<Vec<_>>())?;
        let (features, epochs) = match self.state.shape {
            Some(shape) => shape,
            None => {
                let features = match self.options.features {
                    0 => (table.len() / ROWS_A_FEATURE).next_multiple_of(128).clamp(FEWEST, 16_384),
                    n => n,
                };
                // A pass takes longer with more features, in proportion.
                let layer = self.layer()?;
                let tried = self.state.tried.iter().find(|tried| tried.layer == layer);
                let speed = tried.map_or(1.0, |t| t.train_rows_per_second * t.features as f64 / features as f64);
                let passes = self.clock.until(0.80) * speed / table.len() as f64;
                (features, (0.9 * passes).clamp(1.0, 6.0) as u32)
            }
        };
        self.state.shape = Some((features, epochs));
        self.save()?;
        let usual = self.training();
        let options =
            train::Options { n_features: features, epochs, k: usual.k.min(features / SELDOM).max(1), ..usual };
        let checkpoint = self.work.join("training.ckpt");
        let made = fit(&table, &options, Some(&checkpoint), &mut |step| self.clock.tell(progress, "training", step))?;
        Ok((made, table.len()))
    }

    fn test(&self, dictionary: &Arc<Dictionary>, text: &[Document], progress: &mut Progress<'_>) -> Result<Tested> {
        let options = crate::engine::Options { context: 512, ..self.engine_options() };
        let mut engine = Engine::open(self.path, &options)?;
        let speed = self.state.speed.as_ref().map_or(0.0, |speed| speed.tokens);
        let part = (TESTING * self.clock.total() * speed / TEST.0 as f64).min(1.0);
        let tokens = |most: usize| ((part * most as f64) as usize).max(SCORED);
        let options =
            self_test::Options { max_tokens: tokens(TEST.0), score_tokens: tokens(TEST.1), ..Default::default() };
        let made = self_test(&mut engine, dictionary, text, &options, &mut |step| {
            self.clock.tell(progress, "self-test", step)
        })?;
        Ok(Tested {
            l0: made.quality.l0,
            fvu: made.quality.fvu,
            recovered: made.cross_entropy.recovered(),
            dead: made.quality.dead_share,
            verdict: made.diagnosis.to_string(),
            fits: made.diagnosis.fits(),
            ..Tested::default()
        })
    }

    /// The gain of every concept that there is time for, and the texts that tell most.
    fn gains(
        &self,
        dictionary: &Arc<Dictionary>,
        explanations: &Explanations,
        tested: &mut Tested,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let suite = &self.options.suite;
        let mut engine = self.steering_engine()?;
        let gauge = Gauge::new(&mut engine, suite, layers::gains())?;
        for concept in &suite.concepts {
            let what = format!("steering by {}:", concept.name);
            let made = self.clock.in_time(LATEST, &what, progress, |progress| {
                gauge.gain(&mut engine, dictionary, explanations, concept, progress)
            })?;
            let Some(made) = made else { break };
            tested.gains.push((concept.name.clone(), made.effect().gain, made.effect().perplexity));
            tested.shown.extend(shown(suite, concept, &made, gauge.unsteered_texts()));
        }
        tested.shown.sort_by_key(|text| text.hits[0] as i64 - text.hits[1] as i64);
        tested.shown.truncate(SHOWN);
        Ok(())
    }
}

/// The greedy text that steering brought furthest to a concept and left whole; none if none came to it.
fn shown(suite: &Suite, concept: &Concept, made: &Gain, unsteered: &[Continuation]) -> Option<Shown> {
    let words = [concept.words.as_slice(), &concept.held_out].concat();
    let text = |(prompt, (before, after)): (&String, (&Continuation, &Continuation))| Shown {
        words: concept.words.join(" "),
        strength: made.strength().unwrap_or_default(),
        prompt: prompt.clone(),
        before: before.text.clone(),
        after: after.text.clone(),
        hits: [&before.text, &after.text].map(|text| hits(text, &words)),
    };
    // The first draft of every prompt is the greedy one.
    let texts = suite.prompts.iter().zip(unsteered.iter().zip(&made.texts)).map(text);
    let came = texts.filter(|t| t.hits[1] >= t.hits[0] + LEAST_HITS && Fluency::of(&t.after).broken().is_none());
    came.max_by_key(|text| text.hits[1] - text.hits[0])
}
