//! What a card says, as data: everything that the page shows stands here, and the page can be made of it later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::verdict::Verdict;
use crate::error::{Error, Result};
use crate::eval::choices::SideEffects;
use crate::eval::divergence::Divergence;
use crate::plan::Plan;

/// Counts up whenever the same request would give other figures.
pub const VERSION: u32 = 1;

/// A steering card. In JSON as it stands here; [`page`](Self::page) makes it a page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// What the plan is called: its note, its instruction, or its file.
    pub title: String,
    /// What it is.
    pub verdict: Verdict,
    /// The plan as it was measured.
    pub plan: Plan,
    /// Its rules in words.
    pub rules: Vec<String>,
    /// `chat` or `plain`.
    pub setting: String,
    /// What its features mean and do.
    pub meaning: Meaning,
    /// The same prompts three times.
    pub samples: Vec<Sample>,
    /// What it is meant for, and how much of that it does.
    pub effect: Effect,
    /// The plan at other strengths, rising; the plan itself is among them.
    pub doses: Vec<Dose>,
    /// Where the dose–response curve passes one nat: [`OneNat`].
    pub one_nat: Option<OneNat>,
    /// Random directions of the same length.
    pub random: Random,
    /// What it does to distributions of the next word.
    pub divergence: Divergence,
    /// What asking does to them.
    pub asked_divergence: Option<Divergence>,
    /// How fluent the texts are.
    pub fluency: Fluencies,
    /// What it does to questions with choices.
    pub choices: SideEffects,
    /// What else it makes the model speak of.
    pub leak: Leak,
    /// What its rules do together, where there are two or more.
    pub additivity: Option<Additivity>,
    /// What is known of its features besides.
    pub labels: Option<Vec<Label>>,
    /// What it does later in the text, beside what a temporal model predicts.
    pub delayed: Option<Vec<Delayed>>,
    /// What it costs.
    pub cost: Cost,
    /// What was measured, exactly.
    pub identity: Identity,
    /// The command line that makes the same card.
    pub command: String,
    /// What the reader should know: what was left out, and why.
    pub notes: Vec<String>,
    /// Seconds that the card took.
    pub seconds: f64,
    /// Seconds of each part.
    pub parts: Vec<(String, f64)>,
}

/// What the features mean, by explanations and by what they were seen to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meaning {
    /// The features of the plan, the first sixteen.
    pub features: Vec<Feature>,
    /// Features that are not listed.
    pub more_features: usize,
    /// Tokens that the whole plan makes likelier, with their share of all that becomes likelier.
    pub likelier: Vec<(String, f64)>,
    /// Tokens that it makes less likely.
    pub unlikelier: Vec<(String, f64)>,
}

/// One feature.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// The rule that names it, from 0.
    pub rule: usize,
    /// Its number in its dictionary.
    pub feature: u32,
    /// Its weight in the rule.
    pub weight: f32,
    /// The layer that it acts at.
    pub layer: Option<usize>,
    /// What it means: its label and words, or the words that its direction points at.
    pub words: String,
    /// Whether these are of the lens, and not of explanations.
    pub by_lens: bool,
    /// The words that `lift` is about.
    pub lifted: Vec<String>,
    /// By how many nats pushing it alone makes these words likelier.
    pub lift: Option<f32>,
}

/// A prompt, and what the model makes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What was given.
    pub prompt: String,
    /// Written without the plan.
    pub without: String,
    /// Written with it.
    pub with: String,
    /// Written without the plan when the model is asked for the same; none where nothing can be asked for.
    pub asked: Option<String>,
    /// `loops` or `gibberish`, if the text with the plan is.
    pub broken: Option<String>,
}

/// How effects are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// By how much likelier the asked model finds the text: 0 unsteered, 1 asked.
    Asked,
    /// Logarithm of held-out words per 100 tokens over unsteered.
    HeldOut,
    /// The same, of the words that the features were chosen by.
    Words,
    /// Nothing says what the plan is for.
    #[default]
    None,
}

/// How much of what it is meant for the plan does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// How it is told.
    pub measure: Measure,
    /// What each part of the plan is meant for: instructions, or words.
    pub aims: Vec<String>,
    /// Whether it turns against them.
    pub against: bool,
    /// The mean over aims. Of words the natural logarithm of the gain.
    pub value: Option<f64>,
    /// 90 % of a bootstrap over prompts.
    pub interval: Option<[f64; 2]>,
    /// Of each aim.
    pub each: Vec<f64>,
    /// What asking does, in the same units.
    pub asked: Option<f64>,
    /// Standard deviations above the mean of the random directions, on the same prompts.
    pub sigma: Option<f64>,
}

/// What a multiple of the plan does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dose {
    /// The multiple.
    pub factor: f32,
    /// See [`Effect::value`].
    pub effect: Option<f64>,
    /// See [`Effect::interval`].
    pub interval: Option<[f64; 2]>,
    /// Perplexity under the unsteered model, over that of its own texts.
    pub perplexity: f64,
    /// Share of texts that loop or are gibberish.
    pub broken: f64,
    /// Mean KL a token.
    pub kl: f64,
    /// Its 95th percentile.
    pub kl_p95: f64,
}

/// Where plans are compared: the 95th percentile of KL is one nat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OneNat {
    /// The multiple of the plan, between two that were tried.
    pub factor: f64,
    /// The effect there.
    pub effect: Option<f64>,
}

/// Random directions at the plan's layers, each as long as the plan's edits are on average there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Random {
    /// Directions.
    pub directions: usize,
    /// Prompts of each.
    pub texts: usize,
    /// Mean length of the plan's edits relative to the row, of each layer.
    pub sizes: Vec<(usize, f64)>,
    /// Mean effect.
    pub mean: Option<f64>,
    /// Standard deviation of the effect.
    pub deviation: Option<f64>,
    /// Mean share of texts that loop or are gibberish.
    pub broken: f64,
    /// Perplexity ratio of all their texts.
    pub perplexity: f64,
}

/// How whole the texts are: without the plan, with it, asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fluencies {
    /// Without the plan.
    pub without: Whole,
    /// With it.
    pub with: Whole,
    /// Asked.
    pub asked: Option<Whole>,
}

/// How whole some texts are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Whole {
    /// Texts.
    pub texts: usize,
    /// Tokens.
    pub tokens: usize,
    /// Perplexity under the unsteered model.
    pub perplexity: f64,
    /// Mean share of distinct pairs of words.
    pub distinct: f64,
    /// Texts that loop, or are empty.
    pub loops: usize,
    /// Texts that are gibberish.
    pub gibberish: usize,
}

impl Whole {
    /// Share of texts that loop or are gibberish.
    pub fn broken(&self) -> f64 {
        (self.loops + self.gibberish) as f64 / self.texts.max(1) as f64
    }
}

/// What the texts speak of: words of each concept per 100 tokens, steered over unsteered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Their names.
    pub concepts: Vec<String>,
    /// Which of them the plan is meant for.
    pub own: Vec<usize>,
    /// The plan, what is held against it, and its rules.
    pub rows: Vec<Gains>,
    /// Standard deviation of the rate over random directions, of each concept; one word of the plan's texts at least.
    pub deviation: Vec<f64>,
    /// Mean of the rate over random directions.
    pub mean: Vec<f64>,
    /// T: by how many standard deviations each concept rises above random directions.
    pub rise: Vec<f64>,
    /// T of what the plan is meant for; or of its effect, whichever is more.
    pub own_rise: Option<f64>,
    /// Largest T of another concept over `own_rise`.
    pub leak: Option<f64>,
    /// The concept of that.
    pub leaks_to: Option<String>,
    /// `own_rise` over all T of 3 and more.
    pub selectivity: Option<f64>,
}

/// One row of the matrix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gains {
    /// Whose it is.
    pub name: String,
    /// Natural logarithm of the gain, of each concept.
    pub logs: Vec<f64>,
}

/// True joint edits: what all rules do at once against what each does alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Additivity {
    /// The rules in words.
    pub rules: Vec<String>,
    /// The aims, or the concepts, on which effects are told.
    pub aims: Vec<String>,
    /// Effects of each rule alone, `[rules][aims]`. Of words: more of them per 100 tokens than unsteered.
    pub alone: Vec<Vec<f64>>,
    /// Effects of all at once, `[aims]`.
    pub together: Vec<f64>,
    /// I = (together − Σ alone) / Σ |alone|, `[aims]`.
    pub interaction: Vec<f64>,
    /// The mean of |I|.
    pub mean: Option<f64>,
}

/// What a file says of a feature.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// Its number.
    pub feature: u32,
    /// What stands there.
    pub facts: BTreeMap<String, serde_json::Value>,
}

/// A temporal model's prediction for one feature, some tokens later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delayed {
    /// The feature that was edited.
    pub feature: u32,
    /// Tokens after the edit.
    pub tokens: usize,
    /// Correlation of what was predicted with what was observed.
    pub correlation: f64,
    /// The same with the predictions for other features.
    pub control: f64,
}

/// What steering costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Milliseconds a token of one text without the plan, the shorter of several.
    pub ms_without: f64,
    /// With it.
    pub ms_with: f64,
    /// Bytes of rows and directions that the plan holds in memory.
    pub bytes: u64,
    /// Bytes of the plan's file.
    pub plan_bytes: u64,
    /// Rows of the residual stream that the plan changed while it wrote, of those that it saw.
    pub rows: [u64; 2],
}

/// What was measured, exactly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of tiller.
    pub tiller: String,
    /// The crate that carries llama.cpp, with its version.
    pub llama_cpp: String,
    /// The model.
    pub model: File,
    /// The dictionaries.
    pub dictionaries: Vec<File>,
    /// The plan: its fingerprint is of what it does to this model.
    pub plan: File,
    /// Of the random directions.
    pub seed: u64,
}

/// A file and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Where it lies.
    pub file: String,
    /// What it calls itself.
    pub name: String,
    /// Of its content.
    pub fingerprint: String,
    /// Its length.
    pub bytes: u64,
}

impl Report {
    /// Reads a card from JSON.
    ///
    /// # Errors
    /// [`Format`](crate::Kind::Format) for what is none.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|e| crate::file::json::error(&e, text, "card", 1, "`tiller card --json` writes them"))
    }

    /// As JSON, indented.
    ///
    /// # Errors
    /// [`Numeric`](crate::Kind::Numeric) for what JSON cannot hold.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::numeric(format!("card: {e}")))
    }
}
