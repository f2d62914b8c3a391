//! Llama Scope, its R1 form, and what OpenMOSS writes since.
//!
//! | form | configuration | weights |
//! |---|---|---|
//! | Llama Scope | `hyperparams.json` | `checkpoints/final.safetensors`: two linear layers |
//! | R1 | `config.json` | `sae_weights.safetensors`: the same and `log_jumprelu_threshold` |
//! | newer | `config.json` | `W_E`, `b_E`, `W_D`, `b_D`, `activation_function.log_jumprelu_threshold` |
//!
//! Rows are scaled to a mean norm of √d by c = √d/norm, a constant of the data set that lies in the configuration or among
//! the tensors. With `sparsity_include_decoder_norm` (the default) features compete, or are compared with θ, by p·‖Dᵢ‖,
//! while f = p: so θᵢ/‖Dᵢ‖ is compared with p. The one `jump_relu_threshold` of Llama Scope was chosen after its authors had
//! folded everything into the weights, decoder rows of length one in the units of the output: θ·c_out/‖Dᵢ‖ on p. (Its
//! values bear it out: θ·c_out is about 2 at every layer, of transcoders too, where c_in is another number.)

use serde_json::Value;

use super::super::encode::safe_norm;
use super::super::matrix::{Matrix, Shared, Values};
use super::super::{Activation, Info, Normalization, Settings};
use super::config::Config;
use super::reader::{Draft, Lies, Reader};
use crate::error::{Error, Result};

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Draft> {
    let source = reader.source();
    let path = source.beside("hyperparams.json").or_else(|| source.beside("config.json"));
    let Some(path) = path else {
        let what = "llama_scope: expected hyperparams.json or config.json beside the weights, found neither";
        return Err(Error::format(source.path(), what));
    };
    let config = Config::read(&path, &["sae"])?;
    let d = config.size("d_model")?;
    let n = match config.opt_size("d_sae")? {
        Some(n) => n,
        None => d.checked_mul(config.size("expansion_factor")?).ok_or_else(|| config.wrong("d_model", "less"))?,
    };
    if config.flag("use_glu_encoder", false)? {
        return Err(config.unsupported("use_glu_encoder", "false", "true"));
    }
    let newer = reader.has("W_E");
    let [w_enc, b_enc, w_dec, b_dec] = match newer {
        true => ["W_E", "b_E", "W_D", "b_D"],
        false => ["encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"],
    };
    let lies = if newer { [Lies::ByPlace, Lies::ByFeature] } else { [Lies::ByFeature, Lies::ByPlace] };
    let encoder = reader.matrix(w_enc, n, d, lies[0])?;
    let mut decoder = reader.matrix(w_dec, n, d, lies[1])?;
    let has_bias = config.flag("use_decoder_bias", true)?;
    let mut decoder_bias = if has_bias { reader.vector(b_dec, d)? } else { vec![0.0; d].into() };
    let info = info(reader, &config);
    let transcodes = !info.hook_out.is_empty();
    let (normalization, out_scale) = normalization(reader, &config, &info, d)?;
    let activation = activation(reader, &config)?;
    let settings = Settings {
        apply_b_dec_to_input: has_bias && !transcodes && config.flag("apply_decoder_bias_to_pre_encoder", false)?,
        normalization,
        // TopK competes by p·‖Dᵢ‖.
        rescale_by_decoder_norm: matches!(activation, Activation::TopK { .. }) && by_norm(&config)?,
        transcodes,
        ..Settings::new(activation)
    };
    let threshold = thresholds(reader, &config, &decoder, activation, out_scale)?;
    if transcodes && out_scale != 1.0 {
        // A transcoder writes rows scaled by another constant than those that it reads: folded in.
        let mut rows = vec![0f32; n * d];
        rows.chunks_exact_mut(d).enumerate().for_each(|(i, row)| decoder.decode_row(i, row));
        rows.iter_mut().for_each(|v| *v /= out_scale);
        decoder_bias = decoder_bias.iter().map(|v| v / out_scale).collect::<Vec<_>>().into();
        let whole = Matrix::new(Values::F32(rows.into()), n, d);
        decoder = whole.ok_or_else(|| reader.wrong(format!("tensor \"{w_dec}\": no whole rows")))?;
    }
    let encoder_bias = reader.vector(b_enc, n)?;
    let mut draft = Draft::new((encoder, encoder_bias), (decoder, decoder_bias), settings, info);
    draft.threshold = threshold;
    Ok(draft)
}

fn by_norm(config: &Config) -> Result<bool> {
    config.flag("sparsity_include_decoder_norm", true)
}

fn activation(reader: &Reader<'_>, config: &Config) -> Result<Activation> {
    match config.text(&["act_fn"]).to_lowercase().as_str() {
        "jumprelu" => Ok(Activation::JumpRelu),
        "topk" => Ok(Activation::TopK { k: config.size("top_k")? }),
        "relu" => Ok(Activation::Relu),
        "" if config.get(&["jump_relu_threshold"]).is_some() || log_threshold(reader).is_some() => {
            Ok(Activation::JumpRelu)
        }
        other => Err(config.unsupported("act_fn", "jumprelu, topk or relu", other)),
    }
}

fn log_threshold(reader: &Reader<'_>) -> Option<&'static str> {
    let name = reader.first(&["log_jumprelu_threshold", "activation_function.log_jumprelu_threshold"]);
    reader.has(name).then_some(name)
}

fn thresholds(
    reader: &Reader<'_>,
    config: &Config,
    decoder: &Matrix,
    activation: Activation,
    out_scale: f32,
) -> Result<Option<Shared<f32>>> {
    if activation != Activation::JumpRelu {
        return Ok(None);
    }
    let n = decoder.n_rows();
    let mut thresholds: Vec<f32> = match log_threshold(reader) {
        Some(name) => reader.vector(name, n)?.iter().map(|v| v.exp()).collect(),
        None => {
            let key = "jump_relu_threshold";
            let threshold = config.get(&[key]).and_then(Value::as_f64).map(|v| v as f32).filter(|v| v.is_finite());
            vec![threshold.ok_or_else(|| config.wrong(key, "a number"))? * out_scale; n]
        }
    };
    if by_norm(config)? {
        thresholds.iter_mut().zip(decoder.norms()).for_each(|(threshold, norm)| *threshold /= safe_norm(norm));
    }
    Ok(Some(thresholds.into()))
}

/// How rows are scaled on the way in, and by what the output was scaled in training.
fn normalization(reader: &mut Reader<'_>, config: &Config, info: &Info, d: usize) -> Result<(Normalization, f32)> {
    let norm = |side: &str, hook: &str| -> Result<Option<f32>> {
        let tensor = format!("dataset_average_activation_norm.{hook}");
        let stated = match reader.tensors().opt(&tensor) {
            Some(view) => Some(f64::from(view.scalar_f32()?)),
            None => config.get(&["dataset_average_activation_norm"]).and_then(|v| v.get(side)).and_then(Value::as_f64),
        };
        match stated.map(|v| v as f32) {
            Some(v) if v.is_finite() && v > 0.0 => Ok(Some((d as f32).sqrt() / v)),
            Some(v) => {
                Err(reader.wrong(format!("the mean norm of rows at {side}: expected a positive number, found {v}")))
            }
            None => Ok(None),
        }
    };
    let key = "norm_activation";
    match config.text(&[key]).as_str() {
        "inference" => Ok((Normalization::None, 1.0)),
        "token-wise" => Ok((Normalization::ConstantNorm, 1.0)),
        "" | "dataset-wise" => {
            let written = if info.hook_out.is_empty() { &info.hook } else { &info.hook_out };
            let Some(scale) = norm("in", &info.hook)? else {
                reader.note(
                    "trained on rows scaled to a mean norm of sqrt(d), by a constant that its files lack: not applied, \
                     set the input scale if L0 is off",
                );
                return Ok((Normalization::None, 1.0));
            };
            let out = norm("out", written)?.unwrap_or(scale);
            Ok((Normalization::ExpectedAverage { scale }, out))
        }
        other => Err(config.unsupported(key, "dataset-wise, token-wise or inference", other)),
    }
}

fn info(reader: &Reader<'_>, config: &Config) -> Info {
    let source = reader.source();
    let (hook, out) = (config.text(&["hook_point_in"]), config.text(&["hook_point_out"]));
    let llama = source.names().any(|name| name.contains("Llama3_1-8B-Base") || name.contains("Llama-Scope"));
    Info {
        name: source.title(),
        model_name: if llama { "Llama-3.1-8B".to_owned() } else { config.text(&["model_name", "model"]) },
        hook_out: if out == hook { String::new() } else { out },
        hook,
        ..Info::default()
    }
}
