//! What distinguishes dictionaries: activation function, normalisation of inputs, origin.

use crate::hook_point::HookPoint;

/// How activations come from pre-activations p.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// f = max(p, 0).
    Relu,
    /// The `k` largest p of a row, if positive. Per-feature thresholds, where stored, serve slices only.
    TopK {
        /// Features a row.
        k: usize,
    },
    /// Trained by keeping the n·k largest of a batch of n rows; encodes by threshold as JumpReLU does. Without
    /// thresholds (a dictionary whose training never set them) it encodes as TopK.
    BatchTopK {
        /// Features a row, on average.
        k: usize,
    },
    /// f = p where p > θ and p > 0, else 0.
    JumpRelu,
    /// z = E·a; f = max(exp(r)·z + b_mag, 0) where z + b_gate > 0, else 0.
    Gated,
}

impl Activation {
    /// As files spell it: `relu`, `topk`, `batchtopk`, `jumprelu`, `gated`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::TopK { .. } => "topk",
            Self::BatchTopK { .. } => "batchtopk",
            Self::JumpRelu => "jumprelu",
            Self::Gated => "gated",
        }
    }

    /// The k of TopK and BatchTopK.
    pub fn k(self) -> Option<usize> {
        match self {
            Self::TopK { k } | Self::BatchTopK { k } => Some(k),
            Self::Relu | Self::JumpRelu | Self::Gated => None,
        }
    }
}

/// The normalisation s of input rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Normalization {
    /// s(x) = x.
    #[default]
    None,
    /// s(x) = (x − mean)/(std + 1e-5), std unbiased; decoding multiplies by std and adds the mean.
    LayerNorm,
    /// s(x) = x·√d/‖x‖; decoding divides.
    ConstantNorm,
    /// s(x) = c·x with a constant of the data set, c = √d/E‖x‖; decoding divides.
    ExpectedAverage {
        /// c.
        scale: f32,
    },
}

impl Normalization {
    /// As SAELens and our files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LayerNorm => "layer_norm",
            Self::ConstantNorm => "constant_norm_rescale",
            Self::ExpectedAverage { .. } => "expected_average_only_in",
        }
    }
}

/// How a dictionary encodes and decodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The activation function.
    pub activation: Activation,
    /// Whether b_dec is subtracted from the (normalised) input.
    pub apply_b_dec_to_input: bool,
    /// The normalisation of inputs.
    pub normalization: Normalization,
    /// Whether pre-activations are multiplied by ‖Dᵢ‖ and activations divided by it before decoding.
    pub rescale_by_decoder_norm: bool,
    /// Whether a row's mean is subtracted before all else: dictionaries trained on models whose writing weights were
    /// centred (TransformerLens) have never seen one.
    pub center_input: bool,
}

impl Settings {
    /// The plainest dictionary with this activation: b_dec subtracted, nothing normalised.
    pub fn new(activation: Activation) -> Self {
        Self {
            activation,
            apply_b_dec_to_input: true,
            normalization: Normalization::None,
            rescale_by_decoder_norm: false,
            center_input: false,
        }
    }
}

/// Where a dictionary comes from and belongs to. Empty strings say "unknown".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// A name for people.
    pub name: String,
    /// The model it was trained on.
    pub model_name: String,
    /// That model's fingerprint.
    pub model_fingerprint: String,
    /// The layer whose output it reads.
    pub layer: Option<usize>,
    /// The hook point, as TransformerLens names it.
    pub hook: String,
    /// How it was trained: text, or the options as JSON.
    pub recipe: String,
    /// What a reader should know about an import: what was assumed, folded or left out.
    pub notes: Vec<String>,
}

impl Info {
    /// The name, or "dictionary".
    pub(crate) fn title(&self) -> &str {
        if self.name.is_empty() { "dictionary" } else { &self.name }
    }
}

/// What a feature did on a data set. NaN where a file does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FeatureStats {
    /// Share of rows in which it was active.
    pub density: f32,
    /// Largest activation.
    pub max: f32,
    /// Mean of its positive activations.
    pub mean: f32,
}

/// The L for which `l_out-L` is what the hook point shows: `blocks.L.hook_resid_post`, `blocks.(L+1).hook_resid_pre`, or
/// `model.layers.L` of Hugging Face.
pub(super) fn layer_of_hook(hook: &str) -> Option<usize> {
    hook.parse::<HookPoint>().ok()?.resid_post()
}
