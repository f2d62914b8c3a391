//! What an adoption has done so far: a JSON file in `work/`.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::activations::RowType;
use crate::error::{Error, Result};
use crate::file::{json, read_text_if_there, write_atomic};

/// The file's name.
pub(super) const FILE: &str = "state.json";
/// It has some kilobytes.
const MAX_BYTES: u64 = 4 << 20;
/// What helps against every mistake in it.
const HINT: &str = "remove the file: the adoption starts anew, with the rows that are there";

/// What must be the same when an adoption goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) model: String,
    pub(super) layers: Vec<usize>,
    pub(super) features: usize,
    pub(super) text: String,
}

/// How the model runs here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Speed {
    /// The type of a copy that runs faster than the model itself.
    pub(super) run_as: Option<String>,
    /// Tokens a second up to the last candidate layer.
    pub(super) tokens: f64,
    /// How rows are stored: in F16, unless some of this model's are too large for it.
    pub(super) rows: RowType,
}

/// A layer that was tried with a small dictionary.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tried {
    /// The layer.
    pub layer: usize,
    /// Rows that its dictionary was trained on.
    pub rows: usize,
    /// Features of that dictionary.
    pub features: usize,
    /// Fraction of variance unexplained on those rows.
    pub fvu: f64,
    /// Rows a second of its training, over all passes.
    pub train_rows_per_second: f64,
    /// Steered over unsteered, of each concept: how often other words of it come, and the perplexity.
    pub gains: Vec<(String, f64, f64)>,
}

impl Tried {
    /// The geometric mean of the gains. One below 1 counts as 1: who sees it does not steer, and the counts behind it are
    /// small.
    pub fn gain(&self) -> f64 {
        let logs: f64 = self.gains.iter().map(|(_, gain, _)| gain.max(1.0).ln()).sum();
        (logs / self.gains.len().max(1) as f64).exp()
    }
}

/// An instruction that was learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// What the model was told.
    pub instruction: String,
    /// The file, beside the dictionary; none if the model does not follow.
    pub file: Option<String>,
    /// How much of what asking does its features do.
    pub effect: f64,
    /// Perplexity of their text under the unsteered model, over that of its own.
    pub perplexity: f64,
    /// Whether the text stays as fluent as when the model is asked.
    pub fluent: bool,
    /// Whether it was learned in the model's chat template.
    pub chat: bool,
    /// A message, the answer without them, and with them.
    pub sample: [String; 3],
}

/// What steering by a concept's words did to a greedy text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// The words.
    pub words: String,
    /// Multiples of the features' mean activations.
    pub strength: f32,
    /// The beginning.
    pub prompt: String,
    /// How the model goes on without steering.
    pub before: String,
    /// And with it.
    pub after: String,
    /// Words of the concept in both.
    pub hits: [u64; 2],
}

/// How the finished dictionary did on text that it was not trained on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tested {
    /// Rows that it was trained on.
    pub rows: usize,
    /// Times that each was seen.
    pub epochs: u32,
    /// Features that it was trained with, and that were kept because they fire.
    pub features: (usize, usize),
    /// Mean number of active features in a row.
    pub l0: f64,
    /// Fraction of variance unexplained.
    pub fvu: f64,
    /// Cross-entropy recovered.
    pub recovered: f64,
    /// Share of features that held-out text did not activate.
    pub dead: f64,
    /// What the self-test says.
    pub verdict: String,
    /// Whether it says that the dictionary fits.
    pub fits: bool,
    /// Steered over unsteered, of each concept: how often other words of it come, and the perplexity.
    pub gains: Vec<(String, f64, f64)>,
    /// Features whose explanation has words.
    #[serde(default)]
    pub explained: usize,
    /// Texts that steering was seen to bring to a concept, the most telling first; none if it never was.
    #[serde(default)]
    pub shown: Vec<Shown>,
}

impl Tested {
    /// The median gain over the concepts; none if there was no time for any.
    pub fn median_gain(&self) -> Option<f64> {
        median(self.gains.iter().map(|gain| gain.1))
    }

    /// The median ratio of perplexities.
    pub fn median_perplexity(&self) -> Option<f64> {
        median(self.gains.iter().map(|gain| gain.2))
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// Seconds so far, since the last time that it was given more.
    pub(super) spent: f64,
    /// Seconds before that.
    #[serde(default)]
    pub(super) earlier: f64,
    /// Seconds since the beginning that it may take.
    #[serde(default)]
    pub(super) given: f64,
    /// What was learned.
    #[serde(default)]
    pub(super) learned: Vec<Learned>,
    /// The share of the time before which that ended.
    #[serde(default)]
    pub(super) learned_until: Option<f64>,
    pub(super) speed: Option<Speed>,
    /// Tokens to harvest of the candidate layers, and of the chosen one.
    pub(super) trial_tokens: u64,
    pub(super) main_tokens: u64,
    pub(super) tried: Vec<Tried>,
    /// Whether the layers are compared.
    #[serde(default)]
    pub(super) compared: bool,
    /// Features and epochs of the dictionary.
    pub(super) shape: Option<(usize, u32)>,
    pub(super) tested: Option<Tested>,
}

impl State {
    /// What an earlier call left in `work`, or a new state.
    pub(super) fn open(work: &Path, settings: Settings) -> Result<Self> {
        let path = work.join(FILE);
        let Some(text) = read_text_if_there(&path, MAX_BYTES)? else {
            return Ok(Self { settings, ..Self::default() });
        };
        let state: Self = serde_json::from_str(&text).map_err(|e| json::error(&e, &text, path.display(), 1, HINT))?;
        if state.settings != settings {
            return Err(Error::mismatch(format!(
                "{}: belongs to an adoption of another model, or with other options; take another directory",
                path.display()
            )));
        }
        Ok(state)
    }

    /// Takes note of the seconds that it may take in all. If it was finished in fewer, the additional ones go to the layer
    /// that was taken: its rows, a larger dictionary, its explanations and tests.
    pub(super) fn give(&mut self, seconds: f64) {
        if self.tested.is_some() && seconds > self.given {
            self.earlier += std::mem::take(&mut self.spent);
            (self.tested, self.shape, self.main_tokens) = (None, None, 0);
        }
        self.given = self.given.max(seconds);
    }

    pub(super) fn save(&self, work: &Path) -> Result<()> {
        let path = work.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|e| Error::numeric(e.to_string()))?;
        write_atomic(&path, |file| file.write_all(&text).map_err(|e| Error::io("write", &path, e)))
    }
}
