//! What distinguishes dictionaries: activation function, normalisation of inputs, origin.

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
    /// The largest p of each of `k` groups of n_features/k neighbours, if positive.
    GroupMax {
        /// Groups, and so features a row at most.
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
    /// As files spell it: `relu`, `topk`, `groupmax`, `batchtopk`, `jumprelu`, `gated`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::TopK { .. } => "topk",
            Self::GroupMax { .. } => "groupmax",
            Self::BatchTopK { .. } => "batchtopk",
            Self::JumpRelu => "jumprelu",
            Self::Gated => "gated",
        }
    }

    /// The k of TopK, GroupMax and BatchTopK.
    pub fn k(self) -> Option<usize> {
        match self {
            Self::TopK { k } | Self::GroupMax { k } | Self::BatchTopK { k } => Some(k),
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
    /// Whether each row is normalised by its own numbers, so that decoding has to know the row.
    pub fn is_per_row(self) -> bool {
        matches!(self, Self::LayerNorm | Self::ConstantNorm)
    }

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

/// An instruction that features were distilled from, and how they are best used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learned {
    /// What the model was told.
    pub instruction: String,
    /// What the features do, in words.
    pub explanation: String,
    /// The form that was chosen.
    pub form: Form,
    /// The strength α that was chosen for it.
    pub strength: f32,
    /// The strength, above 0, at which the features are best turned against the instruction; unknown if not measured.
    pub avoid: Option<f32>,
    /// What each strength that was tried did: JSON.
    pub doses: String,
}

/// How learned features act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Each layer's mean increment is added to every row: a control vector.
    #[default]
    Constant,
    /// Each row gets as much as its gate reads.
    Gated,
}

impl Form {
    /// `constant` or `gated`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Gated => "gated",
        }
    }

    /// The form of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Constant, Self::Gated].into_iter().find(|form| form.name() == name)
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
    /// Whether it writes at another place of the model than it reads (a transcoder): then b_dec belongs to the output
    /// alone, and a normalisation of inputs is not undone on outputs.
    pub transcodes: bool,
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
            transcodes: false,
        }
    }
}

/// Where a dictionary comes from and belongs to. Empty strings say "unknown".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Info {
    /// A name for people.
    pub name: String,
    /// The model it was trained on.
    pub model_name: String,
    /// That model's fingerprint.
    pub model_fingerprint: String,
    /// The layer whose output it reads.
    pub layer: Option<usize>,
    /// Where its features live at several layers: for each feature the layer whose output it reads and writes; else empty.
    pub layers: Vec<usize>,
    /// The hook point that it reads, as TransformerLens names it.
    pub hook: String,
    /// The layer at whose output a decoder row may be added with the same effect as at the hook point where it belongs, if
    /// that is not `layer`: of a transcoder or of a dictionary of MLP outputs.
    pub layer_out: Option<usize>,
    /// The hook point that a transcoder writes; empty if it is the one that it reads.
    pub hook_out: String,
    /// Mean number of active features a row that its makers state.
    pub l0: Option<u32>,
    /// How it was trained: text, or the options as JSON.
    pub recipe: String,
    /// What a reader should know about an import: what was assumed, folded or left out.
    pub notes: Vec<String>,
    /// Of learned features: what was learned, and how it is best used.
    pub learned: Option<Learned>,
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

/// What a hook point shows, as far as layers' outputs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The output of layer L, `l_out-L`.
    Output(usize),
    /// What layer L adds to the residual stream last, so that adding to it is adding to `l_out-L`.
    Added(usize),
    /// Another known place: an attention's output, an input of an MLP, the embedding.
    Elsewhere,
    /// No name that we know.
    Unknown,
}

impl Place {
    /// Of names in the manner of TransformerLens (`blocks.19.hook_resid_post`) and of Hugging Face's modules
    /// (`model.layers.19.mlp.output`).
    pub(super) fn of(hook: &str) -> Self {
        let hook = hook.strip_suffix(".output").unwrap_or(hook);
        if matches!(hook, "hook_embed" | "embed_tokens" | "model.embed_tokens") {
            return Self::Elsewhere;
        }
        let inside = |prefix: &str| {
            let (layer, site) = hook.strip_prefix(prefix)?.split_once('.').unzip();
            let layer = layer.or_else(|| hook.strip_prefix(prefix))?.parse::<usize>().ok()?;
            Some((layer, site.unwrap_or_default()))
        };
        let found = ["blocks.", "model.layers.", "layers."].iter().find_map(|prefix| inside(prefix));
        let Some((layer, site)) = found else { return Self::Unknown };
        match site {
            "" | "hook_resid_post" => Self::Output(layer),
            "hook_resid_pre" => layer.checked_sub(1).map_or(Self::Elsewhere, Self::Output),
            "hook_mlp_out" | "mlp" | "mlp.hook_out" | "post_feedforward_layernorm" => Self::Added(layer),
            _ => Self::Elsewhere,
        }
    }

    /// The layer whose output it is.
    pub(super) fn layer(self) -> Option<usize> {
        if let Self::Output(layer) = self { Some(layer) } else { None }
    }

    /// The layer to whose output the same may be added.
    pub(super) fn layer_out(self) -> Option<usize> {
        if let Self::Output(layer) | Self::Added(layer) = self { Some(layer) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::Place::{self, *};

    #[test]
    fn hook_points_and_layers() {
        for (hook, place) in [
            ("blocks.19.hook_resid_post", Output(19)),
            ("blocks.8.hook_resid_pre", Output(7)),
            ("blocks.0.hook_resid_pre", Elsewhere),
            ("model.layers.9", Output(9)),
            ("model.layers.9.output", Output(9)),
            ("layers.5", Output(5)),
            ("layers.5.mlp", Added(5)),
            ("blocks.3.hook_mlp_out", Added(3)),
            ("model.layers.3.post_feedforward_layernorm.output", Added(3)),
            ("blocks.3.hook_attn_out", Elsewhere),
            ("blocks.3.ln2.hook_normalized", Elsewhere),
            ("hook_embed", Elsewhere),
            ("", Unknown),
            ("blocks.x.hook_resid_post", Unknown),
            ("blocks.", Unknown),
            ("residual", Unknown),
        ] {
            assert_eq!(Place::of(hook), place, "{hook}");
        }
    }
}
