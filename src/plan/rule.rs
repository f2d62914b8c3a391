//! The nouns of a plan: rules, features, strengths, selectors, gates. Data only; the [module](super) defines what they mean.

use crate::hook_point::Site;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One thing to do: an operator, what it acts on, how strongly, and on which rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What to do.
    pub op: Op,
    /// The dictionary's name as the caller gives it to [`Plan::compile`](super::Plan::compile); may be left out if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<String>,
    /// Act on this block, counted from 0; by default where the dictionary was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Act on this site of the block; by default where the dictionary was trained, else the residual stream after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Site>,
    /// The features to edit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// In place of features, for [`Op::Add`]: a plain direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vector>,
    /// For [`Op::Add`] on features: the file of a [temporal model](crate::train::temporal), relative to the plan's directory.
    /// Each feature then brings along what it drives in the same row: its direction is A Ψ_0 e_i.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagate: Option<PathBuf>,
    /// How strongly; [`Op::Ablate`] has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<Strength>,
    /// Rescale the row to the norm that it had before the rule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub norm_preserve: bool,
    /// Which rows.
    #[serde(default, skip_serializing_if = "Selector::is_default")]
    pub select: Selector,
    /// Under which condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Rule {
    /// A rule on features, with the default selector and no gate.
    pub fn new(op: Op, features: impl IntoIterator<Item = impl Into<Feature>>, strength: Option<Strength>) -> Self {
        Self {
            op,
            dictionary: None,
            layer: None,
            hook: None,
            features: features.into_iter().map(Into::into).collect(),
            vector: None,
            propagate: None,
            strength,
            norm_preserve: false,
            select: Selector::default(),
            gate: None,
            note: None,
        }
    }

    /// A rule that adds `strength` times a direction at `layer` (`None`: each direction of a file at its own layer).
    pub fn vector(vector: Vector, layer: Option<usize>, strength: Strength) -> Self {
        Self { layer, vector: Some(vector), ..Self::new(Op::Add, std::iter::empty::<u32>(), Some(strength)) }
    }

    /// A rule that adds features of a temporal model together with what they drive in the same row (arXiv 2509.23323);
    /// latents of rows, if the model is one of rows and not of a dictionary. The isolated edit is [`Op::Add`] alone.
    pub fn propagating(
        file: impl Into<PathBuf>,
        features: impl IntoIterator<Item = impl Into<Feature>>,
        strength: Strength,
    ) -> Self {
        Self { propagate: Some(file.into()), ..Self::new(Op::Add, features, Some(strength)) }
    }

    /// Whether a control vector can carry the rule: a constant added to every row. Layer and order are the compiler's matter.
    pub fn is_unconditional_add(&self) -> bool {
        self.op == Op::Add
            && !self.norm_preserve
            && self.gate.is_none()
            && self.strength.is_some_and(|s| s.unit != Unit::Norm)
            && self.select.is_every_row()
    }
}

/// What a rule does to a feature's code; the [module](super) has the equations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Add a constant to the code, so a multiple of the decoder direction to the row.
    Add,
    /// Multiply the code.
    Scale,
    /// Set the code.
    Clamp,
    /// Raise the code to at least the strength.
    MinClamp,
    /// Lower the code to at most the strength.
    #[serde(alias = "cap")]
    MaxClamp,
    /// Set the code to zero.
    Ablate,
    /// Add a multiple of the code to itself.
    Amplify,
    /// Raise the code to at least the strength, as the paper writes it.
    Calibrate,
    /// Spread one strength over the features in proportion to what each lacks, keeping the row's norm.
    CalibrateSpread,
}

impl Op {
    /// The operator's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Op::Add => "add",
            Op::Scale => "scale",
            Op::Clamp => "clamp",
            Op::MinClamp => "min_clamp",
            Op::MaxClamp => "max_clamp",
            Op::Ablate => "ablate",
            Op::Amplify => "amplify",
            Op::Calibrate => "calibrate",
            Op::CalibrateSpread => "calibrate_spread",
        }
    }

    /// Every operator.
    pub const ALL: [Op; 9] = [
        Op::Add,
        Op::Scale,
        Op::Clamp,
        Op::MinClamp,
        Op::MaxClamp,
        Op::Ablate,
        Op::Amplify,
        Op::Calibrate,
        Op::CalibrateSpread,
    ];

    /// The strength is a plain factor of the code, without a unit.
    pub(super) fn takes_factor(self) -> bool {
        matches!(self, Op::Scale | Op::Amplify)
    }

    /// A negative strength would do nothing, because codes are never negative (`max_clamp`: would be a clamp).
    pub(super) fn refuses_negative(self) -> bool {
        matches!(self, Op::MinClamp | Op::MaxClamp | Op::Calibrate | Op::CalibrateSpread)
    }
}

/// A feature of a dictionary, and its share of the strength. In JSON the bare id, or `{"id": 7, "weight": 0.5}`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feature {
    /// Row of the dictionary.
    pub id: u32,
    /// Multiplies the rule's strength for this feature.
    pub weight: f32,
}

impl From<u32> for Feature {
    fn from(id: u32) -> Self {
        Self { id, weight: 1.0 }
    }
}

/// How strongly. In JSON `{"value": 2, "unit": "activation"}`, or a bare number for raw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// The number.
    pub value: f32,
    /// What the number counts.
    pub unit: Unit,
}

impl Strength {
    /// In the units of the dictionary's codes.
    pub fn raw(value: f32) -> Self {
        Self { value, unit: Unit::Raw }
    }

    /// In multiples of each feature's mean positive activation.
    pub fn activation(value: f32) -> Self {
        Self { value, unit: Unit::Activation }
    }

    /// Relative to the norm of the row.
    pub fn norm(value: f32) -> Self {
        Self { value, unit: Unit::Norm }
    }
}

/// What a strength counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// The numbers of the dictionary's codes.
    #[default]
    Raw,
    /// Multiples of the feature's mean positive activation.
    Activation,
    /// At 1 the feature contributes a vector as long as the row.
    Norm,
}

/// A plain direction. In JSON `[0.1, …]`, or `{"file": "v.gguf", "shift": 0}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// `[d_model]`.
    Values(Vec<f32>),
    /// A llama.cpp control vector file.
    File {
        /// Relative to the plan's directory.
        file: PathBuf,
        /// `direction.N` acts at layer `N + shift`. llama.cpp's own generator writes what it measured at `l_out-(N−1)` as
        /// `direction.N`: −1 puts it back where it was measured.
        shift: i32,
    },
}

/// Which rows a rule edits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// Prompt, generated text, or both.
    #[serde(skip_serializing_if = "is_default")]
    pub phase: Phase,
    /// First position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// First position after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// Position 0 too; unset: only for an unconditional add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_first: Option<bool>,
    /// Which sequences of the batch.
    #[serde(skip_serializing_if = "is_default")]
    pub sequences: Sequences,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Selector {
    fn is_default(&self) -> bool {
        is_default(self)
    }

    /// Nothing is left out, the first row neither by wish nor by rule.
    fn is_every_row(&self) -> bool {
        self.phase == Phase::All
            && self.from.unwrap_or(0) == 0
            && self.to.is_none()
            && self.include_first != Some(false)
            && self.sequences == Sequences::All
    }
}

/// Prompt or generated text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Every row.
    #[default]
    All,
    /// Rows of text that was given.
    Prompt,
    /// Rows of text that the model wrote.
    Generated,
}

/// Sequences of a batch. In JSON `"all"` or a list of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sequences {
    /// Every sequence.
    #[default]
    All,
    /// These sequence ids.
    Only(Vec<i32>),
}

/// A condition: the mean positive activation of features reaches a threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The condition's dictionary, on the rule's layer; by default the rule's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<String>,
    /// The condition's features.
    pub features: Vec<u32>,
    /// What the mean over the features must reach.
    pub threshold: f32,
    /// `raw` or `activation`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unit: Unit,
    /// Where the condition has to hold.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scope: Scope,
}

/// Where a gate's condition has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// On the row itself.
    #[default]
    Row,
    /// On the row or an earlier one of its sequence.
    Sequence,
}
