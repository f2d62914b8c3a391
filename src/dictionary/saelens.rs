//! SAELens directories: `cfg.json`, `sae_weights.safetensors`, and `sparsity.safetensors` where there is one.
//!
//! Architectures: `standard`, `topk`, `jumprelu`, `gated`; `batchtopk` and `matryoshka_batchtopk`, which are saved as
//! `jumprelu`, and as themselves in training checkpoints. Configurations of version 6 (details under `metadata`) and
//! before (all flat, other names). `W_dec` `[d_sae, d_in]` is feature-major already and stays in the map; `W_enc`
//! `[d_in, d_sae]` is not, and is transposed in memory once: convert a dictionary that is opened often
//! ([`Dictionary::save_gguf`]).
//!
//! What SAELens leaves outside of its directories is written into [`Info::notes`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map as Object, Value};

use super::matrix::{Matrix, Shared, Values};
use super::settings::layer_of_hook;
use super::{Activation, Dictionary, Info, Normalization, Settings, SharedGate, SharedStats, parts};
use crate::error::{Error, Result};
use crate::file::safetensors::{Dtype, File};

const CONFIG: &str = "cfg.json";
const WEIGHTS: &str = "sae_weights.safetensors";
const SPARSITY: &str = "sparsity.safetensors";
/// A configuration is some kilobytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Families whose residual stream no version of TransformerLens has centred: they have RMS norms.
const RMS_NORM_MODELS: [&str; 9] =
    ["gemma", "llama", "mistral", "mixtral", "qwen", "smollm", "olmo-2", "phi-3", "deepseek"];

/// Whether `dir` is one.
pub(super) fn recognize(dir: &Path) -> bool {
    dir.join(CONFIG).is_file() && dir.join(WEIGHTS).is_file()
}

/// Opens the directory.
pub(super) fn open(dir: &Path) -> Result<Dictionary> {
    let config = Config::read(dir.join(CONFIG))?;
    let file = File::open(&dir.join(WEIGHTS))?;
    let mut notes = Vec::new();
    let (d_in, d_sae) = (config.size("d_in")?, config.size("d_sae")?);
    let encoder = encoder(&file, d_in, d_sae)?;
    let decoder = decoder(&file, d_in, d_sae, &mut notes)?;
    let vector = |name: &str, len: usize| vector(&file, name, len);
    let activation = config.activation()?;
    let gated = activation == Activation::Gated;
    let gate = if gated {
        Some(SharedGate { bias: vector("b_gate", d_sae)?, log_scale: vector("r_mag", d_sae)? })
    } else {
        None
    };
    let dictionary = Dictionary {
        encoder,
        decoder,
        encoder_bias: vector(if gated { "b_mag" } else { "b_enc" }, d_sae)?,
        decoder_bias: vector("b_dec", d_in)?,
        threshold: threshold(&file, activation, d_sae)?,
        gate,
        stats: density(dir, d_sae)?,
        settings: config.settings(activation, &mut notes)?,
        info: config.info(dir, notes),
        norms: Arc::default(),
        stats_rows: Arc::default(),
    };
    parts::check(&dictionary).map_err(|what| Error::format(dir, what))?;
    Ok(dictionary)
}

/// `W_enc` `[d_in, d_sae]`, transposed.
fn encoder(file: &File, d_in: usize, d_sae: usize) -> Result<Matrix> {
    let view = file.tensor("W_enc")?.expect_shape(&[d_in, d_sae])?;
    let halves = || view.bytes().as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b)).collect::<Vec<_>>();
    let values = match view.dtype() {
        Dtype::F16 => Values::F16(transpose(&halves(), d_in, d_sae).into()),
        Dtype::BF16 => Values::Bf16(transpose(&halves(), d_in, d_sae).into()),
        _ => Values::F32(transpose(&view.to_f32()?, d_in, d_sae).into()),
    };
    matrix(file, "W_enc", values, d_sae, d_in)
}

/// `W_dec` `[d_sae, d_in]`, where it lies if it can. A finetuning factor, one for each feature, is folded in: SAELens
/// multiplies activations by it before decoding.
fn decoder(file: &File, d_in: usize, d_sae: usize, notes: &mut Vec<String>) -> Result<Matrix> {
    let view = file.tensor("W_dec")?.expect_shape(&[d_sae, d_in])?;
    let factor = match file.opt_tensor("scaling_factor").or_else(|| file.opt_tensor("finetuning_scaling_factor")) {
        Some(factor) => factor.expect_shape(&[d_sae])?.to_f32()?,
        None => [].as_slice().into(),
    };
    // Of numpy.allclose: |v − 1| ≤ 1e-8 + 1e-5.
    if factor.iter().any(|v| (v - 1.0).abs() > 1.001e-5) {
        notes.push("the finetuning factors of SAELens are folded into the decoder".to_owned());
        let mut rows = view.to_f32()?.into_owned();
        for (row, factor) in rows.chunks_exact_mut(d_in).zip(factor.iter()) {
            row.iter_mut().for_each(|v| *v *= factor);
        }
        return matrix(file, "W_dec", Values::F32(rows.into()), d_sae, d_in);
    }
    let mapped = view.mapped().and_then(|(map, bytes)| match view.dtype() {
        Dtype::F32 => Shared::mapped(map, bytes).map(Values::F32),
        Dtype::F16 => Shared::mapped(map, bytes).map(Values::F16),
        Dtype::BF16 => Shared::mapped(map, bytes).map(Values::Bf16),
        _ => None,
    });
    let values = match mapped {
        Some(values) => values,
        None => Values::F32(view.to_f32()?.into_owned().into()),
    };
    matrix(file, "W_dec", values, d_sae, d_in)
}

fn matrix(file: &File, name: &str, values: Values, n_rows: usize, n_cols: usize) -> Result<Matrix> {
    let wrong = || Error::format(file.path(), format!("tensor \"{name}\": expected {n_rows} rows of {n_cols}"));
    Matrix::new(values, n_rows, n_cols).ok_or_else(wrong)
}

fn vector(file: &File, name: &str, len: usize) -> Result<Shared<f32>> {
    Ok(file.tensor(name)?.expect_shape(&[len])?.to_f32()?.into_owned().into())
}

/// θ: `threshold` `[d_sae]`; in checkpoints of training `log_threshold` `[d_sae]`, or the scalar `topk_threshold`.
fn threshold(file: &File, activation: Activation, d_sae: usize) -> Result<Option<Shared<f32>>> {
    let wanted = matches!(activation, Activation::JumpRelu | Activation::BatchTopK { .. });
    if file.opt_tensor("threshold").is_some() {
        return vector(file, "threshold", d_sae).map(Some);
    }
    if wanted && file.opt_tensor("log_threshold").is_some() {
        let logs = vector(file, "log_threshold", d_sae)?;
        return Ok(Some(logs.iter().map(|v| v.exp()).collect::<Vec<_>>().into()));
    }
    if wanted && let Some(view) = file.opt_tensor("topk_threshold") {
        let scalar = view.expect_shape(&[])?.to_f32()?;
        return Ok(scalar.first().map(|&v| vec![v; d_sae].into()));
    }
    if activation == Activation::JumpRelu {
        return file.tensor("threshold").map(|_| None);
    }
    Ok(None)
}

/// Densities: `sparsity` `[d_sae]` holds log10(density + 1e-10). Maxima and means are unknown.
fn density(dir: &Path, d_sae: usize) -> Result<Option<SharedStats>> {
    let path = dir.join(SPARSITY);
    if !path.is_file() {
        return Ok(None);
    }
    let logs = vector(&File::open(&path)?, "sparsity", d_sae)?;
    let density: Vec<f32> = logs.iter().map(|v| (10f32.powf(*v) - 1e-10).max(0.0)).collect();
    let unknown = Shared::from(vec![f32::NAN; d_sae]);
    Ok(Some(SharedStats { density: density.into(), max: unknown.clone(), mean: unknown }))
}

/// `[n_cols, n_rows]` of `[n_rows, n_cols]`, in tiles that fit the cache.
fn transpose<T: Copy + Default>(values: &[T], n_rows: usize, n_cols: usize) -> Vec<T> {
    const TILE: usize = 32;
    let mut out = vec![T::default(); values.len()];
    for (i, band) in values.chunks(TILE * n_cols.max(1)).enumerate() {
        for first in (0..n_cols).step_by(TILE) {
            for j in first..(first + TILE).min(n_cols) {
                let to = out[j * n_rows + i * TILE..].iter_mut();
                to.zip(band.iter().skip(j).step_by(n_cols)).for_each(|(to, v)| *to = *v);
            }
        }
    }
    out
}

/// `cfg.json`.
struct Config {
    path: PathBuf,
    top: Object<String, Value>,
    /// `metadata` of version 6 and later; before, everything is at the top.
    metadata: Object<String, Value>,
    /// Before version 6.
    flat: bool,
}

impl Config {
    fn read(path: PathBuf) -> Result<Self> {
        let size = std::fs::metadata(&path).map_err(|e| Error::io("open", &path, e))?.len();
        if size > MAX_CONFIG_BYTES {
            return Err(Error::format(&path, format!("expected at most {MAX_CONFIG_BYTES} bytes, found {size}")));
        }
        let text = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let top: Object<String, Value> =
            serde_json::from_slice(&text).map_err(|e| Error::format(&path, format!("expected a JSON object: {e}")))?;
        let metadata = top.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        let version = top.get("sae_lens_version").or_else(|| metadata.get("sae_lens_version")).and_then(Value::as_str);
        let major = version.and_then(|v| v.split('.').next()?.parse::<u32>().ok());
        Ok(Self { path, top, metadata, flat: major.is_none_or(|v| v < 6) })
    }

    /// The value of the first of `keys` that is there and not null.
    fn get(&self, keys: &[&str]) -> Option<&Value> {
        let find = |key: &&str| self.top.get(*key).or_else(|| self.metadata.get(*key)).filter(|v| !v.is_null());
        keys.iter().find_map(find)
    }

    fn text(&self, keys: &[&str]) -> String {
        self.get(keys).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = self.get(&[key]).map_or_else(|| "nothing".to_owned(), Value::to_string);
        Error::format(&self.path, format!("key \"{key}\": expected {expected}, found {found}"))
    }

    fn size(&self, key: &str) -> Result<usize> {
        let value = self.get(&[key]).and_then(Value::as_u64).and_then(|v| usize::try_from(v).ok());
        value.filter(|&v| v > 0).ok_or_else(|| self.wrong(key, "an integer from 1"))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(&[key]) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    fn unsupported(&self, key: &str, expected: &str, found: &str) -> Error {
        let path = self.path.display();
        Error::unsupported(format!("{path}: key \"{key}\": expected {expected}, found \"{found}\""))
    }

    fn activation(&self) -> Result<Activation> {
        let architecture = self.get(&["architecture"]).and_then(Value::as_str).unwrap_or("standard");
        let function = self.text(&["activation_fn", "activation_fn_str"]);
        if self.flat && function == "topk" {
            // A TopK dictionary that calls itself standard.
            let k = self.get(&["activation_fn_kwargs"]).and_then(|v| v.get("k")).and_then(Value::as_u64);
            let k = k.and_then(|k| usize::try_from(k).ok());
            return match k.or_else(|| self.size("k").ok()) {
                Some(k) => Ok(Activation::TopK { k }),
                None => Err(self.wrong("activation_fn_kwargs", "an object with an integer \"k\"")),
            };
        }
        if self.flat && !matches!(function.as_str(), "" | "relu") {
            return Err(self.unsupported("activation_fn", "relu or topk", &function));
        }
        match architecture {
            "standard" => Ok(Activation::Relu),
            "topk" => Ok(Activation::TopK { k: self.size("k")? }),
            "jumprelu" => Ok(Activation::JumpRelu),
            "gated" => Ok(Activation::Gated),
            "batchtopk" | "matryoshka_batchtopk" => Ok(Activation::BatchTopK { k: self.mean_k()? }),
            other => {
                let known = "standard, topk, jumprelu, gated, batchtopk or matryoshka_batchtopk";
                Err(self.unsupported("architecture", known, other))
            }
        }
    }

    /// The k of batch rules is a mean, and may have a fraction.
    fn mean_k(&self) -> Result<usize> {
        let k = self.get(&["k"]).and_then(Value::as_f64).filter(|k| (0.5..1e9).contains(k));
        k.map(|k| k.round() as usize).ok_or_else(|| self.wrong("k", "a number from 1"))
    }

    fn settings(&self, activation: Activation, notes: &mut Vec<String>) -> Result<Settings> {
        Ok(Settings {
            activation,
            apply_b_dec_to_input: self.flag("apply_b_dec_to_input", true)?,
            normalization: self.normalization(notes)?,
            rescale_by_decoder_norm: self.flag("rescale_acts_by_decoder_norm", false)?,
            center_input: self.centered(notes),
        })
    }

    fn normalization(&self, notes: &mut Vec<String>) -> Result<Normalization> {
        let key = "normalize_activations";
        let name = match self.get(&[key]) {
            None | Some(Value::Bool(false)) => "none",
            Some(Value::Bool(true)) => "expected_average_only_in",
            Some(Value::String(name)) => name,
            Some(_) => return Err(self.wrong(key, "a string or a bool")),
        };
        match name {
            "none" => Ok(Normalization::None),
            "layer_norm" => Ok(Normalization::LayerNorm),
            "constant_norm_rescale" => Ok(Normalization::ConstantNorm),
            "expected_average_only_in" => {
                let scale = self.get(&["norm_scaling_factor"]).and_then(Value::as_f64).map(|v| v as f32);
                if let Some(scale) = scale.filter(|v| v.is_finite() && *v > 0.0) {
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
                Err(self.unsupported(key, known, other))
            }
        }
    }

    /// Whether the model that wrote the rows was centred: then each row's mean is no part of what was learned.
    fn centered(&self, notes: &mut Vec<String>) -> bool {
        let arguments = self.get(&["model_from_pretrained_kwargs"]);
        let asked = arguments.and_then(|v| v.get("center_writing_weights")).and_then(Value::as_bool) == Some(true);
        let model = self.text(&["model_name"]).to_lowercase();
        let centered = asked && !RMS_NORM_MODELS.iter().any(|name| model.contains(name));
        if centered {
            notes.push("trained on a model with centred writing weights: each row's mean is subtracted".to_owned());
        }
        centered
    }

    fn info(&self, dir: &Path, mut notes: Vec<String>) -> Info {
        let hook = self.text(&["hook_name", "hook_point"]);
        let layer = layer_of_hook(&hook);
        if layer.is_none() {
            notes.push(format!("reads \"{hook}\", which is not the output of a layer"));
        }
        let name = self.text(&["neuronpedia_id"]);
        let of_dir = || dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Info {
            name: if name.is_empty() { of_dir() } else { name },
            model_name: self.text(&["model_name"]),
            model_fingerprint: String::new(),
            layer,
            hook,
            recipe: String::new(),
            notes,
        }
    }
}
