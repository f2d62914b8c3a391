//! What learning found out, for people and for JSON.

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

use super::trials::{Effect, Frame, Sum};

/// What was learned, how it was chosen, and what it does to messages that neither fitted nor chose. In JSON as it stands here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// What the model was told.
    pub instruction: String,
    /// Where it stood: `system`, `appended` or `front`; `examples` if those showed it.
    pub place: String,
    /// The layers that are edited.
    pub layers: Vec<usize>,
    /// `constant` or `gated`.
    pub form: String,
    /// α.
    pub strength: f32,
    /// Directions a layer.
    pub rank: usize,
    /// λ of the gates.
    pub lambda: f64,
    /// Whether the text stayed as fluent as the asked model's; if not, no strength that was tried kept it so.
    pub fluent: bool,
    /// The best strength against the instruction, as a positive number, if it was asked for and one kept the text fluent.
    pub avoid: Option<f32>,
    /// The strength of the constant form alone, where that is fluent.
    pub constant: Option<f32>,
    /// The strength of the gated form alone, where that is fluent.
    pub gated: Option<f32>,
    /// The plan that uses the features so, with no other dictionary.
    pub plan: Plan,
    /// On messages that neither fitted nor chose.
    pub score: Score,
    /// By how much more than the unsteered text's perplexity a text may have to count as fluent.
    pub perplexity_bound: f64,
    /// Strengths that were tried by writing, in the order tried.
    pub doses: Vec<serde_json::Value>,
    /// Answers of the first messages that score.
    pub samples: Vec<Sample>,
    /// Pairs of rows that each layer was fitted on.
    pub n_rows: usize,
    /// Bytes that the rows took.
    pub row_bytes: usize,
    /// Seconds.
    pub seconds: f64,
    /// Seconds of each part.
    pub parts: Vec<(String, f64)>,
}

/// What asking and what the features do, both over unsteered answers to the same messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Messages.
    pub messages: usize,
    /// How much of the effect of asking the features have: 0 is unsteered, 1 asked.
    pub effect: f64,
    /// Perplexity under the unsteered model, over that of its own answers.
    pub perplexity: f64,
    /// The same of the asked answers.
    pub asked_perplexity: f64,
    /// Share of distinct pairs of words.
    pub distinct: f64,
    /// The same of unsteered answers.
    pub unsteered_distinct: f64,
    /// Share of answers that are empty or run in circles.
    pub broken: f64,
    /// The same of unsteered answers.
    pub unsteered_broken: f64,
    /// The same of asked ones.
    pub asked_broken: f64,
    /// The effect on messages for which the instruction is not meant, where there are such.
    pub spill: Option<f64>,
}

/// Three answers to a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What was said.
    pub message: String,
    /// The answer without steering.
    pub unsteered: String,
    /// With the instruction.
    pub asked: String,
    /// With the features, and without the instruction.
    pub learned: String,
}

impl Score {
    pub(super) fn of(frame: &Frame, did: &Effect, spill: Option<f64>) -> Self {
        let (none, all) = (Sum::of(&frame.unsteered), Sum::of(&frame.asked));
        Self {
            messages: frame.cases.len(),
            effect: did.effect,
            perplexity: did.perplexity,
            asked_perplexity: all.perplexity / none.perplexity,
            distinct: did.distinct,
            unsteered_distinct: none.distinct,
            broken: did.broken,
            unsteered_broken: none.broken,
            asked_broken: all.broken,
            spill,
        }
    }
}

/// As JSON, whose numbers are rounded to what they are good for.
pub(super) fn json<T: Serialize>(list: &[T]) -> Vec<serde_json::Value> {
    list.iter().map(|one| rounded(serde_json::to_value(one).unwrap_or_default())).collect()
}

fn rounded(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(n) if n.is_f64() => {
            n.as_f64().map_or(Value::Null, |v| serde_json::json!((v * 1e4).round() / 1e4))
        }
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, rounded(v))).collect()),
        other => other,
    }
}
