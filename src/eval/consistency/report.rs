//! What was found.

use serde::{Deserialize, Serialize};

use super::answers::Figures;
use super::contrast::Turned;
use crate::eval::choices::SideEffects;
use crate::eval::divergence::Divergence;
use crate::plan::Plan;

/// What steering for consistency does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The model's file.
    pub model: String,
    /// Whether questions stood in the chat template.
    pub chat: bool,
    /// Groups that features were found on, that the strength was chosen on, and that are scored.
    pub groups: [usize; 3],
    /// Pairs of answers, of those that features were found on, that agree, and that do not.
    pub pairs: [usize; 2],
    /// The features that are turned, those whose means differ most first; none without a dictionary.
    pub features: Vec<Turned>,
    /// Length of the difference of means: of the codes, or of the rows.
    pub length: f64,
    /// The groups to choose on, without the plan.
    pub usual: Figures,
    /// The same at every strength.
    pub doses: Vec<Dose>,
    /// The strength that was chosen.
    pub strength: f32,
    /// Whether it raised agreement − across of the groups to choose on.
    pub helped: bool,
    /// The groups to score on, without the plan.
    pub before: Figures,
    /// The same with it.
    pub after: Figures,
    /// By how much agreement rose, and the interval of 95 % over groups.
    pub gain: f64,
    /// See `gain`.
    pub gain_interval: [f64; 2],
    /// By how much agreement − across rose.
    pub net_gain: f64,
    /// The same groups, with signs of the edits drawn anew.
    pub controls: Vec<Figures>,
    /// What the plan costs.
    pub cost: Cost,
    /// Answers that the plan changed.
    pub examples: Vec<Example>,
    /// The plan at that strength.
    pub plan: Plan,
    /// What to know besides.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
}

/// One strength.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dose {
    /// α
    pub strength: f32,
    /// What the answers come to.
    pub figures: Figures,
}

/// What a plan costs, on neutral texts and on questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// On ten neutral beginnings that go on under the plan, in nats a token.
    pub divergence: Divergence,
    /// Perplexity that the unsteered model gives to these, over that of its own.
    pub perplexity: f64,
    /// What it does to multiple-choice questions.
    pub side_effects: Option<SideEffects>,
}

/// A text whose answer changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The question.
    pub text: String,
    /// The answer without the plan.
    pub before: String,
    /// With it.
    pub after: String,
    /// What is right, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
}
