//! The nouns of a plan: rules, features, strengths. Data only; the [module](super) defines what they mean.

use super::monitor::When;
use super::selector::{Gate, Selector};
use crate::dictionary::{Form, Learned};
use crate::hook_point::Site;
use serde::{Deserialize, Serialize};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

/// One thing to do: an operator, what it acts on, how strongly, and on which rows.
///
/// ```
/// use tiller::plan::{Gate, Op, Plan, Rule, Selector, Strength};
///
/// let ships = Gate::new([77], 0.5).over_sequence();
/// let sea = Rule::new(Op::MinClamp, [812, 3301], Strength::activation(2.0)).at_layer(19);
/// let plan = Plan::new([sea.select(Selector::generated()).gate(ships).note("once ships came up")]);
/// # plan.check().unwrap();
/// ```
#[non_exhaustive]
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
    #[serde(default, skip_serializing_if = "Features::is_none")]
    pub features: Features,
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
    /// Only on rows where this holds of the plan's monitors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Rule {
    /// A rule on features; [`Op::Ablate`] has no strength (`None`).
    pub fn new(
        op: Op,
        features: impl IntoIterator<Item = impl Into<Feature>>,
        strength: impl Into<Option<Strength>>,
    ) -> Self {
        Self {
            op,
            dictionary: None,
            layer: None,
            hook: None,
            features: Features::Only(features.into_iter().map(Into::into).collect()),
            vector: None,
            propagate: None,
            strength: strength.into(),
            norm_preserve: false,
            select: Selector::default(),
            gate: None,
            when: None,
            note: None,
        }
    }

    /// A rule on every feature of a dictionary, each at its own layer: for learned features.
    pub fn all(op: Op, strength: impl Into<Option<Strength>>) -> Self {
        Self { features: Features::All, ..Self::new(op, std::iter::empty::<u32>(), strength) }
    }

    /// The rule that uses a dictionary of learned features as it is best used: in its form, at `factor` times the strength that
    /// was chosen. A negative factor turns the features against the instruction, in multiples of the strength that was
    /// measured for that ([`Learned::avoid`]), or of the chosen one.
    pub fn learned(learned: &Learned, factor: f32) -> Self {
        let strength = if factor < 0.0 { learned.avoid.unwrap_or(learned.strength) } else { learned.strength };
        let value = factor * strength;
        let rule = match learned.form {
            Form::Constant => Self::all(Op::Add, Strength::activation(value)),
            Form::Gated => Self::all(Op::Amplify, Strength::raw(value)),
        };
        rule.note(&learned.instruction)
    }

    /// A rule that adds `strength` times a direction: [`at_layer`](Self::at_layer) says where, which a file may leave to
    /// its directions.
    pub fn vector(vector: impl Into<Vector>, strength: Strength) -> Self {
        Self { vector: Some(vector.into()), ..Self::new(Op::Add, std::iter::empty::<u32>(), strength) }
    }

    /// The same, with the dictionary of this name.
    pub fn of(self, dictionary: impl Into<String>) -> Self {
        Self { dictionary: Some(dictionary.into()), ..self }
    }

    /// The same at this block, from 0.
    pub fn at_layer(self, layer: usize) -> Self {
        Self { layer: Some(layer), ..self }
    }

    /// The same at this site of the block.
    pub fn at_site(self, site: Site) -> Self {
        Self { hook: Some(site), ..self }
    }

    /// The same with what the features drive in the same row, as the [temporal model](crate::train::temporal) in `file` has
    /// it (arXiv 2509.23323); `features` are latents of rows, if the model is one of rows and not of a dictionary.
    pub fn propagating(self, file: impl Into<PathBuf>) -> Self {
        Self { propagate: Some(file.into()), ..self }
    }

    /// The same, with the row rescaled to the norm that it had before.
    pub fn preserving_norm(self) -> Self {
        Self { norm_preserve: true, ..self }
    }

    /// The same on these rows.
    pub fn select(self, select: Selector) -> Self {
        Self { select, ..self }
    }

    /// The same where the gate's condition holds.
    pub fn gate(self, gate: Gate) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// The same where this holds of the plan's monitors.
    pub fn when(self, when: When) -> Self {
        Self { when: Some(when), ..self }
    }

    /// The same with free text.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// Whether a control vector can carry the rule: a constant added to every row. Layer and order are the compiler's matter.
    pub fn is_unconditional_add(&self) -> bool {
        self.op == Op::Add
            && !self.norm_preserve
            && self.gate.is_none()
            && self.when.is_none()
            && self.strength.is_some_and(|s| s.unit != Unit::Norm)
            && self.select.is_every_row()
    }
}

/// What a rule does to a feature's code; the [module](super) has the equations.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Add a constant to the code, so a multiple of the decoder direction to the row.
    Add,
    /// As [`Add`](Op::Add), where the feature is active, and nothing elsewhere (arXiv 2501.11036).
    AddActive,
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
            Op::AddActive => "add_active",
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
    pub const ALL: &[Op] = &[
        Op::Add,
        Op::AddActive,
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
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feature {
    /// Row of the dictionary.
    pub id: u32,
    /// Multiplies the rule's strength for this feature.
    pub weight: f32,
}

impl Feature {
    /// Feature `id` with a weight.
    pub const fn new(id: u32, weight: f32) -> Self {
        Self { id, weight }
    }
}

impl From<u32> for Feature {
    /// Feature `id` with weight 1.
    fn from(id: u32) -> Self {
        Self::new(id, 1.0)
    }
}

/// The features of a rule. In JSON `"all"` or a list. It is read like the list that it holds; `All` names none.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Features {
    /// Every feature of the dictionary.
    All,
    /// These.
    Only(Vec<Feature>),
}

impl Features {
    /// Every feature.
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// Neither all nor any.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(list) if list.is_empty())
    }
}

impl Default for Features {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl Deref for Features {
    type Target = [Feature];

    fn deref(&self) -> &[Feature] {
        match self {
            Self::All => &[],
            Self::Only(list) => list,
        }
    }
}

impl DerefMut for Features {
    fn deref_mut(&mut self) -> &mut [Feature] {
        match self {
            Self::All => &mut [],
            Self::Only(list) => list,
        }
    }
}

/// How strongly. In JSON `{"value": 2, "unit": "activation"}`, or a bare number for raw.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// The number.
    pub value: f32,
    /// What the number counts.
    pub unit: Unit,
}

impl Strength {
    /// In this unit.
    pub fn new(value: f32, unit: Unit) -> Self {
        Self { value, unit }
    }

    /// In the units of the dictionary's codes.
    pub fn raw(value: f32) -> Self {
        Self::new(value, Unit::Raw)
    }

    /// In multiples of each feature's mean positive activation.
    pub fn activation(value: f32) -> Self {
        Self::new(value, Unit::Activation)
    }

    /// Relative to the norm of the row.
    pub fn norm(value: f32) -> Self {
        Self::new(value, Unit::Norm)
    }
}

/// What a strength counts.
#[non_exhaustive]
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
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// `[d_model]`.
    Values(Vec<f32>),
    /// A llama.cpp control vector file.
    #[non_exhaustive]
    File {
        /// Relative to the plan's directory.
        file: PathBuf,
        /// `direction.N` acts at layer `N + shift`. llama.cpp's own generator writes what it measured at `l_out-(N−1)` as
        /// `direction.N`: −1 puts it back where it was measured.
        shift: i32,
    },
}

impl Vector {
    /// The control vector in `file`, whose `direction.N` acts at layer `N + shift`.
    pub fn file(file: impl Into<PathBuf>, shift: i32) -> Self {
        Self::File { file: file.into(), shift }
    }
}

impl From<Vec<f32>> for Vector {
    fn from(values: Vec<f32>) -> Self {
        Self::Values(values)
    }
}
