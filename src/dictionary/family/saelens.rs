//! SAELens directories: `cfg.json`, `sae_weights.safetensors`, and `sparsity.safetensors` where there is one.
//!
//! Architectures: `standard`, `topk`, `jumprelu`, `gated`; `batchtopk` and `matryoshka_batchtopk`, which are saved as
//! `jumprelu`, and as themselves in training checkpoints; `transcoder`, `jumprelu_transcoder` and both with a skip
//! connection. `temporal`, `matching_pursuit` and `abs_topk` are refused: no plan can edit their features. Configurations of version 6 (details under `metadata`) and before (all flat, other names). `W_dec`
//! `[d_sae, d_out]` is feature-major already; `W_enc` `[d_in, d_sae]` is not, and is turned round in memory by the first
//! encode of a whole row: convert a dictionary that encodes often ([`Dictionary::save_gguf`]).
//!
//! What SAELens leaves outside of its directories is written into [`Info::notes`].

use serde_json::Value;

#[cfg(doc)]
use super::super::Dictionary;
use super::super::matrix::{Matrix, Shared, Values};
use super::super::{Activation, Info, Normalization, Settings, SharedGate, SharedStats};
use super::config::Config;
use super::reader::{Draft, Lies, Reader};
use super::source::Source;
use crate::error::{Error, Result};
use crate::file::Tensors;

pub(in super::super) const CONFIG: &str = "cfg.json";
pub(in super::super) const WEIGHTS: &str = "sae_weights.safetensors";
pub(in super::super) const SPARSITY: &str = "sparsity.safetensors";

/// Families of models whose residual stream no version of TransformerLens has centred: they have RMS norms.
const RMS_NORM_MODELS: [&str; 9] =
    ["gemma", "llama", "mistral", "mixtral", "qwen", "smollm", "olmo-2", "phi-3", "deepseek"];

/// Kinds whose features no operator of a plan can edit: codes are read off one encoder row each, and are not negative.
const REFUSED: [(&str, &str); 3] = [
    ("temporal", "its codes depend on earlier rows"),
    ("matching_pursuit", "its codes come one after the other, each from what the ones before left"),
    ("abs", "its codes may be negative"),
];

/// Reads the directory.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Draft> {
    let source = reader.source();
    let Some(path) = source.beside(CONFIG) else {
        return Err(Error::format(source.path(), format!("saelens: expected {CONFIG} beside the weights, found none")));
    };
    let config = Configuration::new(Config::read(&path, &["metadata"])?);
    let keys = &config.keys;
    let (d_in, d_sae) = (keys.size("d_in")?, keys.size("d_sae")?);
    let transcodes = config.architecture().ends_with("transcoder");
    let d_out = if transcodes { keys.size("d_out")? } else { d_in };
    let encoder = reader.matrix("W_enc", d_sae, d_in, Lies::ByPlace)?;
    let decoder = decoder(reader, d_out, d_sae)?;
    let activation = config.activation()?;
    let gated = activation == Activation::Gated;
    let settings = config.settings(activation, transcodes, &mut reader.notes)?;
    let info = config.info(source, transcodes, &mut reader.notes);
    let encoder_bias = reader.vector(if gated { "b_mag" } else { "b_enc" }, d_sae)?;
    let decoder_bias = reader.vector("b_dec", d_out)?;
    let mut draft = Draft::new((encoder, encoder_bias), (decoder, decoder_bias), settings, info);
    if gated {
        draft.gate =
            Some(SharedGate { bias: reader.vector("b_gate", d_sae)?, log_scale: reader.vector("r_mag", d_sae)? });
    }
    if config.architecture().contains("skip") {
        reader.tensors().get("W_skip")?;
        draft.skip = reader.skip("W_skip", d_out, d_in, false)?;
    }
    draft.threshold = threshold(reader, activation, d_sae)?;
    draft.stats = density(source, d_sae)?;
    Ok(draft)
}

/// `W_dec` `[d_sae, d_out]`. A finetuning factor, one for each feature, is folded in: SAELens multiplies activations by it
/// before decoding.
fn decoder(reader: &mut Reader<'_>, d_out: usize, d_sae: usize) -> Result<Matrix> {
    let matrix = reader.matrix("W_dec", d_sae, d_out, Lies::ByFeature)?;
    let name = reader.first(&["scaling_factor", "finetuning_scaling_factor"]);
    if !reader.has(name) {
        return Ok(matrix);
    }
    let factor = reader.vector(name, d_sae)?;
    // Of numpy.allclose: |v − 1| ≤ 1e-8 + 1e-5.
    if factor.iter().all(|v| (v - 1.0).abs() <= 1.001e-5) {
        return Ok(matrix);
    }
    reader.note("the finetuning factors of SAELens are folded into the decoder");
    let mut rows = vec![0f32; d_sae * d_out];
    for ((i, row), factor) in rows.chunks_exact_mut(d_out).enumerate().zip(factor.iter()) {
        matrix.decode_row(i, row);
        row.iter_mut().for_each(|v| *v *= factor);
    }
    Matrix::new(Values::F32(rows.into()), d_sae, d_out).ok_or_else(|| reader.wrong("tensor \"W_dec\": no whole rows"))
}

/// θ: `threshold` `[d_sae]`; in checkpoints of training `log_threshold` `[d_sae]`, or the scalar `topk_threshold`.
fn threshold(reader: &Reader<'_>, activation: Activation, d_sae: usize) -> Result<Option<Shared<f32>>> {
    if !matches!(activation, Activation::JumpRelu | Activation::BatchTopK { .. }) {
        return Ok(None);
    }
    if reader.has("threshold") {
        return reader.vector("threshold", d_sae).map(Some);
    }
    if reader.has("log_threshold") {
        let logs = reader.vector("log_threshold", d_sae)?;
        return Ok(Some(logs.iter().map(|v| v.exp()).collect::<Vec<_>>().into()));
    }
    if reader.has("topk_threshold") {
        return reader.thresholds("topk_threshold", d_sae).map(Some);
    }
    match activation {
        Activation::JumpRelu => reader.tensors().get("threshold").map(|_| None),
        _ => Ok(None),
    }
}

/// Densities: `sparsity` `[d_sae]` holds log10(density + 1e-10). Maxima and means are unknown.
fn density(source: &Source, d_sae: usize) -> Result<Option<SharedStats>> {
    let Some(path) = source.beside(SPARSITY) else { return Ok(None) };
    let logs = Tensors::open(&path)?;
    let logs = logs.get("sparsity")?.expect_shape(&[d_sae])?.to_f32()?.into_owned();
    let density: Vec<f32> = logs.iter().map(|v| (10f32.powf(*v) - 1e-10).max(0.0)).collect();
    let unknown = Shared::from(vec![f32::NAN; d_sae]);
    Ok(Some(SharedStats { density: density.into(), max: unknown.clone(), mean: unknown }))
}

/// `cfg.json`.
struct Configuration {
    keys: Config,
    /// Before version 6: everything at the top.
    flat: bool,
}

impl Configuration {
    fn new(keys: Config) -> Self {
        let version = keys.text(&["sae_lens_version"]);
        let major = version.split('.').next().and_then(|v| v.parse::<u32>().ok());
        Self { keys, flat: major.is_none_or(|v| v < 6) }
    }

    fn architecture(&self) -> &str {
        self.keys.get(&["architecture"]).and_then(Value::as_str).unwrap_or("standard")
    }

    fn activation(&self) -> Result<Activation> {
        let keys = &self.keys;
        let function = keys.text(&["activation_fn", "activation_fn_str"]);
        if self.flat && function == "topk" {
            // A TopK dictionary that calls itself standard.
            let k = keys.get(&["activation_fn_kwargs"]).and_then(|v| v.get("k")).and_then(Value::as_u64);
            let k = k.and_then(|k| usize::try_from(k).ok());
            return match k.or_else(|| keys.size("k").ok()) {
                Some(k) => Ok(Activation::TopK { k }),
                None => Err(keys.wrong("activation_fn_kwargs", "an object with an integer \"k\"")),
            };
        }
        if self.flat && !matches!(function.as_str(), "" | "relu") {
            return Err(keys.unsupported("activation_fn", "relu or topk", &function));
        }
        match self.architecture() {
            "standard" | "transcoder" | "skip_transcoder" => Ok(Activation::Relu),
            "topk" => Ok(Activation::TopK { k: keys.size("k")? }),
            "jumprelu" | "jumprelu_transcoder" | "jumprelu_skip_transcoder" => Ok(Activation::JumpRelu),
            "gated" => Ok(Activation::Gated),
            "batchtopk" | "matryoshka_batchtopk" => Ok(Activation::BatchTopK { k: keys.mean_k("k")? }),
            other => {
                if let Some((_, why)) = REFUSED.iter().find(|(name, _)| other.contains(name)) {
                    let expected =
                        format!("a kind whose codes are read off a row, one by one, and not negative ({why})");
                    return Err(keys.unsupported("architecture", &expected, other));
                }
                let known = "standard, topk, jumprelu, gated, batchtopk, matryoshka_batchtopk, transcoder, \
                             skip_transcoder, jumprelu_transcoder or jumprelu_skip_transcoder";
                Err(keys.unsupported("architecture", known, other))
            }
        }
    }

    fn settings(&self, activation: Activation, transcodes: bool, notes: &mut Vec<String>) -> Result<Settings> {
        Ok(Settings {
            activation,
            apply_b_dec_to_input: !transcodes && self.keys.flag("apply_b_dec_to_input", true)?,
            normalization: self.normalization(notes)?,
            rescale_by_decoder_norm: self.keys.flag("rescale_acts_by_decoder_norm", false)?,
            center_input: self.centered(notes),
            transcodes,
        })
    }

    fn normalization(&self, notes: &mut Vec<String>) -> Result<Normalization> {
        let key = "normalize_activations";
        let name = match self.keys.get(&[key]) {
            None | Some(Value::Bool(false)) => "none",
            Some(Value::Bool(true)) => "expected_average_only_in",
            Some(Value::String(name)) => name,
            Some(_) => return Err(self.keys.wrong(key, "a string or a bool")),
        };
        match name {
            "none" => Ok(Normalization::None),
            "layer_norm" => Ok(Normalization::LayerNorm),
            "constant_norm_rescale" => Ok(Normalization::ConstantNorm),
            "expected_average_only_in" => {
                if let Some(scale) = self.keys.opt_positive("norm_scaling_factor")? {
                    return Ok(Normalization::ExpectedAverage { scale });
                }
                notes.push(
                    "trained on rows scaled to a mean norm of sqrt(d), by a constant that SAELens keeps outside of the \
                     directory: not applied, set the input scale if L0 is off"
                        .to_owned(),
                );
                Ok(Normalization::None)
            }
            other => {
                let known = "none, layer_norm, constant_norm_rescale or expected_average_only_in";
                Err(self.keys.unsupported(key, known, other))
            }
        }
    }

    /// Whether the model that wrote the rows was centred: then each row's mean is no part of what was learned.
    fn centered(&self, notes: &mut Vec<String>) -> bool {
        let arguments = self.keys.get(&["model_from_pretrained_kwargs"]);
        let asked = arguments.and_then(|v| v.get("center_writing_weights")).and_then(Value::as_bool) == Some(true);
        let model = self.keys.text(&["model_name"]).to_lowercase();
        let centered = asked && !RMS_NORM_MODELS.iter().any(|name| model.contains(name));
        if centered {
            notes.push("trained on a model with centred writing weights: each row's mean is subtracted".to_owned());
        }
        centered
    }

    fn info(&self, source: &Source, transcodes: bool, notes: &mut Vec<String>) -> Info {
        let keys = &self.keys;
        let hook_out = if transcodes { keys.text(&["hook_name_out"]) } else { String::new() };
        if transcodes && hook_out.is_empty() {
            notes.push("a transcoder that does not say where it writes".to_owned());
        }
        let name = keys.text(&["neuronpedia_id"]);
        Info {
            name: if name.is_empty() { source.title() } else { name },
            model_name: keys.text(&["model_name"]),
            hook: keys.text(&["hook_name", "hook_point"]),
            hook_out,
            ..Info::default()
        }
    }
}
