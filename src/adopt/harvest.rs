//! Rows: how fast they come, of which copy of the model, and how many there is time for.

use std::path::{Path, PathBuf};

use super::Job;
use super::state::Speed;
use super::text::Text;
use crate::activations::{Activations, RowType};
use crate::engine::{Document, Engine, Harvest, Options, requantize};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Tokens that a speed is measured on.
const PROBE: u64 = 1536;
/// Files above this size are not copied to try another type.
const LARGE: u64 = 1 << 30;
/// A copy has to be faster by this factor.
const FASTER: f64 = 1.15;
/// The type that is tried: the same weights, decoded.
const COPY: &str = "F16";
/// Longest window, in tokens.
const WINDOW: usize = 256;
/// Rows computed together.
const BATCH: usize = 512;
/// Magnitudes from here on are not stored in F16, which ends at 65,504: the probe sees few rows.
const F16_ROOM: f32 = 16_384.0;
/// Share of the text that trials may use.
const TRIAL_TEXT: usize = 3;

impl Job<'_> {
    pub(super) fn engine_options(&self) -> Options {
        Options { threads: self.options.threads, gpu_layers: self.options.gpu_layers, ..Options::default() }
    }

    /// Measures how fast rows come, of the model and of a copy.
    pub(super) fn speed(&mut self, text: &Text, progress: &mut Progress<'_>) -> Result<()> {
        if let Some(speed) = self.state.speed.clone() {
            // A finished adoption has cleared it away.
            if let Some(kind) = speed.run_as.as_deref().filter(|kind| !self.copy(kind).exists()) {
                requantize(self.path, &self.copy(kind), kind, self.options.threads)?;
            }
            // Between two calls the machine may have become busier.
            if self.state.main_tokens == 0 {
                let (tokens, _) = self.probe(speed.run_as.as_deref(), text, progress)?;
                self.state.speed = Some(Speed { tokens, ..speed });
            }
            return Ok(());
        }
        let (tokens, largest) = self.probe(None, text, progress)?;
        let rows = if largest < F16_ROOM { RowType::F16 } else { RowType::F32 };
        let mut speed = Speed { run_as: None, tokens, rows };
        let n_bytes = std::fs::metadata(self.path).map_err(|e| Error::io("open", self.path, e))?.len();
        if n_bytes < LARGE && self.options.gpu_layers == 0 {
            let copy = self.copy(COPY);
            if !copy.exists() {
                requantize(self.path, &copy, COPY, self.options.threads)?;
            }
            let (tokens, _) = self.probe(Some(COPY), text, progress)?;
            if tokens > FASTER * speed.tokens {
                speed = Speed { run_as: Some(COPY.to_owned()), tokens, rows };
            } else {
                std::fs::remove_file(&copy).map_err(|e| Error::io("remove", &copy, e))?;
            }
        }
        self.state.speed = Some(speed);
        self.save()
    }

    pub(super) fn copy(&self, kind: &str) -> PathBuf {
        self.work.join(format!("copy.{kind}.gguf"))
    }

    /// Tokens a second, and the largest magnitude of the residual stream at the candidate layers.
    fn probe(&self, run_as: Option<&str>, text: &Text, progress: &mut Progress<'_>) -> Result<(f64, f32)> {
        let place = self.work.join("probe");
        let _ = std::fs::remove_dir_all(&place);
        let speed = Speed { run_as: run_as.map(str::to_owned), rows: RowType::F32, ..Speed::default() };
        let harvest = Harvest { max_tokens: PROBE, ..self.harvest(&speed, &self.state.settings.layers) };
        let (_, tokens_per_second) =
            self.rows(&speed, &text.train, &place, &harvest, "measuring the model's speed", progress)?;
        let mut largest = 0f32;
        for rows in self.harvested(&place, &harvest.layers)? {
            let mut row = vec![0.0; rows.d_model()];
            for i in 0..rows.n_rows() {
                rows.row(i, &mut row);
                largest = row.iter().fold(largest, |m, x| m.max(x.abs()));
            }
        }
        let _ = std::fs::remove_dir_all(&place);
        Ok((tokens_per_second, largest))
    }

    /// Harvests `text` into `place`: the tokens that were computed, and how many a second.
    fn rows(
        &self,
        speed: &Speed,
        text: &[Document],
        place: &Path,
        harvest: &Harvest,
        what: &str,
        progress: &mut Progress<'_>,
    ) -> Result<(u64, f64)> {
        let mut engine = self.engine(speed.run_as.as_deref())?;
        let (made, seconds) = self
            .clock
            .timed(|| engine.harvest(text, place, harvest, &mut |step| self.clock.tell(progress, what, step)))?;
        Ok((made.n_tokens, made.n_tokens as f64 / seconds))
    }

    /// What a harvest of `layers` left in `place`.
    fn harvested(&self, place: &Path, layers: &[usize]) -> Result<Vec<Activations>> {
        match layers {
            [_] => Ok(vec![Activations::open(place)?]),
            _ => layers.iter().map(|layer| Activations::open(&place.join(format!("layer-{layer}")))).collect(),
        }
    }

    fn engine(&self, run_as: Option<&str>) -> Result<Engine> {
        let options = Options { context: BATCH, batch: BATCH, sequences: 64, ..self.engine_options() };
        match run_as {
            None => Engine::open(self.path, &options),
            Some(kind) => Engine::open(&self.copy(kind), &options),
        }
    }

    fn harvest(&self, speed: &Speed, layers: &[usize]) -> Harvest {
        let counts_as = speed.run_as.as_ref().map(|_| self.path.to_owned());
        let (layers, dtype) = (layers.to_vec(), speed.rows);
        Harvest { layers, window: WINDOW, shard_rows: 16_384, dtype, counts_as, ..Harvest::default() }
    }

    /// The rows of each candidate layer, for its trial.
    pub(super) fn trial_rows(&mut self, text: &Text, progress: &mut Progress<'_>) -> Result<Vec<Activations>> {
        let layers = self.state.settings.layers.clone();
        let speed = self.state.speed.clone().unwrap_or_default();
        if self.state.trial_tokens == 0 {
            self.state.trial_tokens = ((speed.tokens * self.clock.until(0.16)) as u64).max(8192);
            self.save()?;
        }
        let place = self.work.join("trial");
        let harvest = Harvest { max_tokens: self.state.trial_tokens, ..self.harvest(&speed, &layers) };
        let part = text.train.get(..text.train.len() / TRIAL_TEXT).unwrap_or_default();
        let (n_tokens, tokens) = self.rows(&speed, part, &place, &harvest, "rows of a few layers:", progress)?;
        // More tokens tell it better.
        if n_tokens >= PROBE {
            self.state.speed = Some(Speed { tokens, ..speed });
            self.save()?;
        }
        self.harvested(&place, &layers)
    }

    /// More rows of the chosen layer, of other text.
    pub(super) fn main_rows(&mut self, text: &Text, progress: &mut Progress<'_>) -> Result<Activations> {
        let layer = self.layer()?;
        let speed = self.state.speed.clone().unwrap_or_default();
        if self.state.main_tokens == 0 {
            // A lower layer comes faster.
            let last = self.state.settings.layers.iter().copied().max().unwrap_or(layer);
            let faster = (last + 1) as f64 / (layer + 1) as f64;
            self.state.main_tokens = ((speed.tokens * faster * self.clock.until(0.68)) as u64).max(8192);
            self.save()?;
        }
        let place = self.work.join("rows");
        let harvest = Harvest { max_tokens: self.state.main_tokens, ..self.harvest(&speed, &[layer]) };
        let part = text.train.get(text.train.len() / TRIAL_TEXT..).unwrap_or_default();
        self.rows(&speed, part, &place, &harvest, "rows of the chosen layer:", progress)?;
        Activations::open(&place)
    }
}
