//! The variants: which codes of a row are kept, what is added to its squared error, and what follows for the gradients.
//!
//! All of them rebuild a row `x` from codes `f_i` by `x̂ = b_dec + Σ_i f_i·W_dec[i]`, with `u_i = ⟨W_enc[i], x − b_dec⟩`.
//!
//! | file | codes | objective beside `‖x̂ − x‖²` | source |
//! |---|---|---|---|
//! | `topk.rs` | the `k` best of a row | | arXiv 2406.04093 |
//! | `batchtopk.rs` | the `k · batch` best of a batch | | arXiv 2412.06410 |
//! | `matryoshka.rs` | the same | the errors of nested dictionaries | arXiv 2503.17547 |
//! | `relu.rs` | positive scores | `λ·Σ f_i`, or `λ·Σ f_i·‖W_dec[i]‖` | transformer-circuits.pub, 2023 and April 2024 |
//! | `panneal.rs` | positive scores | `λ·Σ f_i^p`, p falling from 1 | arXiv 2408.00113 |
//! | `jumprelu.rs` | scores above a trained threshold | `λ·L0` | arXiv 2407.14435 |
//! | `gated.rs` | magnitudes behind an open gate | `λ·Σ gate_i` and the gate's own error | arXiv 2404.16014 |
//!
//! The first three select, the others pass whatever exceeds a bound; either way the scan (`score.rs`) leaves few scores of
//! a row, and a [`Rule`] says what they mean.

use serde::{Deserialize, Serialize};

use super::options::Options;
use super::sparsity::Sparsity;
use super::weights::State;

pub(super) mod batchtopk;
pub(super) mod gated;
pub(super) mod jumprelu;
pub(super) mod matryoshka;
pub(super) mod panneal;
pub(super) mod relu;
pub(super) mod topk;

/// Which rule keeps codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The `k` largest positive scores of every row (arXiv 2406.04093).
    TopK,
    /// The `k · batch` largest positive scores of the whole batch (arXiv 2412.06410): a row that needs more gets more.
    /// The trained dictionary uses a threshold instead, so a row's codes don't depend on its neighbours.
    #[default]
    BatchTopK,
    /// BatchTopK whose first features also rebuild rows on their own, in several nested sizes (arXiv 2503.17547): general
    /// features come first and are not absorbed by special ones.
    Matryoshka,
    /// Positive scores, with an L1 penalty.
    Relu,
    /// Positive scores, with the penalty `Σ f^p` whose exponent falls from 1 (arXiv 2408.00113).
    PAnneal,
    /// Scores above a threshold that each feature learns, with an L0 penalty (arXiv 2407.14435).
    JumpRelu,
    /// One path decides whether a feature is active, another how strongly (arXiv 2404.16014).
    Gated,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::TopK, Self::BatchTopK, Self::Matryoshka, Self::Relu, Self::PAnneal, Self::JumpRelu, Self::Gated];

    /// As options spell it: `topk`, `batchtopk`, `matryoshka`, `relu`, `panneal`, `jumprelu`, `gated`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopK => "topk",
            Self::BatchTopK => "batchtopk",
            Self::Matryoshka => "matryoshka",
            Self::Relu => "relu",
            Self::PAnneal => "panneal",
            Self::JumpRelu => "jumprelu",
            Self::Gated => "gated",
        }
    }

    /// Whether a penalty makes its codes sparse, rather than a choice.
    pub(super) fn has_penalty(self) -> bool {
        matches!(self, Self::Relu | Self::PAnneal | Self::JumpRelu | Self::Gated)
    }

    /// The parameters that it has beside those of all, one number a feature, and what they start from.
    pub(super) fn extras(self, options: &Options) -> Vec<(&'static str, f32)> {
        match self {
            Self::JumpRelu => vec![("threshold", jumprelu::start(options))],
            Self::Gated => vec![("b_mag", 0.0), ("r_mag", 0.0)],
            _ => Vec::new(),
        }
    }

    /// Brings an extra back into its range after a step of Adam.
    pub(super) fn bound(self, options: &Options, value: &mut f32) {
        // Below zero a threshold would let negative scores pass.
        if self == Self::JumpRelu && !options.log_threshold {
            *value = value.max(0.0);
        }
    }
}

/// What the scan adds to a feature's products instead of `bias`, so that what counts exceeds 0.
pub(super) fn offset(options: &Options, bias: f32, extras: &[f32]) -> f32 {
    match (options.variant, extras) {
        (Variant::JumpRelu, &[threshold, ..]) => jumprelu::offset(options, bias, threshold),
        _ => bias,
    }
}

/// Gradients of a code by numbers of its feature: `b_enc`, and the [`extras`](Variant::extras).
pub(super) type Side = [f32; 3];

/// The codes of a row.
pub(super) struct Row<'a> {
    pub(super) features: &'a [u32],
    /// What the scan found; empty where it is `values`.
    pub(super) scores: &'a [f32],
    pub(super) values: &'a [f32],
    /// In: `∂‖x̂−x‖²/∂f_i`, over the batch. Out: `∂L/∂u_i`.
    pub(super) slopes: &'a mut [f32],
    /// Gated: the same for the gate's own reconstruction.
    pub(super) pulls: &'a [f32],
    /// Out, in variants with extras.
    pub(super) sides: &'a mut [Side],
}

/// What a row adds to the penalty: itself, and in P-annealing `Σ f^p` at this exponent and the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Penalty {
    pub(super) value: f64,
    pub(super) powers: [f64; 2],
}

/// What scores mean in a step, and what the objective adds.
pub(super) enum Rule {
    /// Scores are codes; nothing is added.
    Kept,
    L1(relu::L1),
    Lp(panneal::Lp),
    Jump(jumprelu::Jump),
    Gate(gated::Gate),
}

impl Rule {
    /// The rule of the step that `state` is before, for a batch of `n` rows. `norms`: of the decoder's rows, if free.
    pub(super) fn of(options: &Options, state: &State, norms: &[f32], n: usize, steps: u64) -> Self {
        let (weight, share) = (state.pressure.weight(options, state.step, steps) as f32, 1.0 / n as f32);
        match options.variant {
            Variant::TopK | Variant::BatchTopK | Variant::Matryoshka => Self::Kept,
            Variant::Relu => Self::L1(relu::L1 { weight, share, norms: norms.to_vec() }),
            Variant::PAnneal => Self::Lp(panneal::Lp::new(options, state.step, steps, weight, share)),
            Variant::JumpRelu => Self::Jump(jumprelu::Jump::new(options, state, weight, share)),
            Variant::Gated => Self::Gate(gated::Gate::new(state, weight, share)),
        }
    }

    /// Whether codes are made of scores, rather than being them.
    pub(super) fn converts(&self) -> bool {
        matches!(self, Self::Jump(_) | Self::Gate(_))
    }

    /// Codes of scores; 0 where a feature is not active.
    pub(super) fn activate(&self, features: &[u32], scores: &[f32], values: &mut [f32]) {
        match self {
            Self::Jump(rule) => rule.activate(features, scores, values),
            Self::Gate(rule) => rule.activate(features, scores, values),
            Self::Kept | Self::L1(_) | Self::Lp(_) => values.copy_from_slice(scores),
        }
    }

    /// Makes the weight depend on the batch's mean number of codes, if it does; returns what the batch as a whole adds.
    pub(super) fn settle(&mut self, options: &Options, l0: f64) -> f64 {
        match (self, options.sparsity) {
            (Self::Jump(rule), Sparsity::Quadratic(_)) => rule.settle(options.k, l0),
            _ => 0.0,
        }
    }

    /// From the gradients by codes to those by `u`, the biases and the extras.
    pub(super) fn differentiate(&self, row: &mut Row<'_>) -> Penalty {
        match self {
            Self::Kept => Penalty::default(),
            Self::L1(rule) => rule.differentiate(row),
            Self::Lp(rule) => rule.differentiate(row),
            Self::Jump(rule) => rule.differentiate(row),
            Self::Gate(rule) => rule.differentiate(row),
        }
    }

    /// The factor on `Σ f_i · W_dec[i]/‖W_dec[i]‖` in the gradient of a decoder row.
    pub(super) fn shrinks_decoder(&self) -> f32 {
        match self {
            Self::L1(rule) if !rule.norms.is_empty() => rule.weight * rule.share,
            _ => 0.0,
        }
    }
}
