//! dictionary_learning: `ae.pt`, a state dictionary, and `config.json` with the trainer's options beside it.
//!
//! | class | told by | activation |
//! |---|---|---|
//! | AutoEncoder | `bias` | ReLU; its loader makes decoder rows unit vectors and moves their norms into the codes |
//! | AutoEncoderNew | `decoder.bias` | ReLU, b_dec not subtracted |
//! | GatedAutoEncoder | `gate_bias` | gated |
//! | AutoEncoderTopK | `k`, dict_class | TopK |
//! | BatchTopKSAE | `k`, `threshold` | one threshold for all; −1 says that training never set it |
//! | MatryoshkaBatchTopKSAE | `group_sizes` | the same |
//! | JumpReluAutoEncoder | `threshold` `[dict_size]` | JumpReLU, b_dec not subtracted |
//!
//! Inputs were normalised in training, if at all, and the weights were scaled back before saving: nothing is left to do.

use serde_json::Value;

use super::super::{Activation, Info, Settings, SharedGate};
use super::config::Config;
use super::reader::{Draft, Lies, Reader};
use super::source::Source;
use crate::error::Result;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Draft> {
    let config = reader.source().beside("config.json").map(|path| Config::read(&path, &["trainer"])).transpose()?;
    let info = info(reader.source(), config.as_ref());
    let (w_enc, w_dec) = (reader.first(&["encoder.weight", "W_enc"]), reader.first(&["decoder.weight", "W_dec"]));
    let [e_lies, d_lies] = match w_enc {
        "W_enc" => [Lies::ByPlace, Lies::ByFeature],
        _ => [Lies::ByFeature, Lies::ByPlace],
    };
    let b_dec = reader.first(&["bias", "decoder_bias", "b_dec", "decoder.bias"]);
    let b_enc = reader.first(&["encoder.bias", "b_enc", "mag_bias"]);
    let (n, d) = (reader.len(b_enc)?, reader.len(b_dec)?);
    let encoder = reader.matrix(w_enc, n, d, e_lies)?;
    let decoder = reader.matrix(w_dec, n, d, d_lies)?;
    let (activation, class) = activation(reader, config.as_ref(), n)?;
    let mut settings = Settings::new(activation);
    settings.apply_b_dec_to_input = !matches!(class, Class::New | Class::JumpRelu);
    if class == Class::Plain {
        // Of torch.allclose: |v − 1| ≤ 1e-8 + 1e-5.
        settings.rescale_by_decoder_norm = decoder.norms().iter().any(|norm| (norm - 1.0).abs() > 1.001e-5);
        if settings.rescale_by_decoder_norm {
            reader.note(
                "activations count in units of decoder rows of length one, as the loader of dictionary_learning has it",
            );
        }
    }
    let biases = (reader.vector(b_enc, n)?, reader.vector(b_dec, d)?);
    let mut draft = Draft::new((encoder, biases.0), (decoder, biases.1), settings, info);
    match class {
        Class::Gated => {
            let (bias, log_scale) = (reader.vector("gate_bias", n)?, reader.vector("r_mag", n)?);
            draft.gate = Some(SharedGate { bias, log_scale });
        }
        Class::JumpRelu => draft.threshold = Some(reader.thresholds("threshold", n)?),
        Class::Batch => {
            let threshold = reader.tensors().get("threshold")?.scalar_f32()?;
            if threshold.is_nan() {
                return Err(reader.wrong("tensor \"threshold\": expected a number, found NaN"));
            } else if threshold >= 0.0 {
                draft.threshold = Some(vec![threshold; n].into());
            } else {
                reader.note(format!(
                    "its threshold was never set ({threshold}): the k largest of each row are kept, calibrate it for slices"
                ));
            }
        }
        Class::Plain | Class::New | Class::TopK => {}
    }
    Ok(draft)
}

/// What the classes differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Plain,
    New,
    Gated,
    TopK,
    Batch,
    JumpRelu,
}

fn activation(reader: &Reader<'_>, config: Option<&Config>, n: usize) -> Result<(Activation, Class)> {
    let stated = config.map(|c| c.text(&["dict_class"])).unwrap_or_default();
    let class = match stated.as_str() {
        "AutoEncoder" => Class::Plain,
        "AutoEncoderNew" => Class::New,
        "GatedAutoEncoder" => Class::Gated,
        "AutoEncoderTopK" => Class::TopK,
        "BatchTopKSAE" | "MatryoshkaBatchTopKSAE" => Class::Batch,
        "JumpReluAutoEncoder" => Class::JumpRelu,
        "" => by_names(reader, n)?,
        other => {
            let known = "AutoEncoder, AutoEncoderNew, GatedAutoEncoder, AutoEncoderTopK, BatchTopKSAE, \
                         MatryoshkaBatchTopKSAE or JumpReluAutoEncoder";
            return Err(match config {
                Some(config) => config.unsupported("dict_class", known, other),
                None => reader.wrong(format!("expected {known}, found {other}")),
            });
        }
    };
    let activation = match class {
        Class::Plain | Class::New => Activation::Relu,
        Class::Gated => Activation::Gated,
        Class::JumpRelu => Activation::JumpRelu,
        Class::TopK => Activation::TopK { k: k(reader, config)? },
        Class::Batch => Activation::BatchTopK { k: k(reader, config)? },
    };
    Ok((activation, class))
}

/// Without a configuration: tensors that only one class has.
fn by_names(reader: &Reader<'_>, n: usize) -> Result<Class> {
    let has = |name| reader.has(name);
    let scalar = || reader.tensors().opt("threshold").is_some_and(|t| t.shape().iter().product::<usize>() == 1);
    Ok(match () {
        () if has("gate_bias") => Class::Gated,
        () if has("bias") => Class::Plain,
        () if has("decoder.bias") => Class::New,
        () if has("group_sizes") => Class::Batch,
        () if has("threshold") && !(scalar() && n > 1) => Class::JumpRelu,
        () => {
            return Err(reader.wrong(
                "dictionary_learning: expected config.json with trainer.dict_class beside it: AutoEncoderTopK and \
                 BatchTopKSAE look alike",
            ));
        }
    })
}

/// `k` of the state, or of the trainer's options.
fn k(reader: &Reader<'_>, config: Option<&Config>) -> Result<usize> {
    if let Some(view) = reader.tensors().opt("k") {
        let k = view.scalar_f32()?;
        return match (1.0..1e9).contains(&k) {
            true => Ok(k as usize),
            false => Err(reader.wrong(format!("tensor \"k\": expected an integer from 1, found {k}"))),
        };
    }
    match config {
        Some(config) => config.size("k"),
        None => Err(reader.wrong("expected a tensor \"k\", or config.json with trainer.k; found neither")),
    }
}

/// `config.json` says layer, model and module.
fn info(source: &Source, config: Option<&Config>) -> Info {
    let Some(config) = config else {
        // DeepSeek-R1's dictionaries: nothing but `…-l15-…pt`.
        let layer = source.number_behind("-l").or_else(|| source.number_behind("_l"));
        let hook = layer.map(|layer| format!("blocks.{layer}.hook_resid_post")).unwrap_or_default();
        return Info { name: source.stem().to_owned(), hook, ..Info::default() };
    };
    let module = config.text(&["submodule_name"]);
    let site = match module.split('_').next() {
        Some("mlp") => "hook_mlp_out",
        Some("attn" | "attention") => "hook_attn_out",
        _ => "hook_resid_post",
    };
    let hook = config.layer("layer").map(|layer| format!("blocks.{layer}.{site}")).unwrap_or_default();
    let model = config.text(&["lm_name"]);
    let recipe = config.get(&["trainer"]).map(Value::to_string).unwrap_or_default();
    let recipe = if recipe.len() < 4096 { recipe } else { String::new() };
    let model_name = model.rsplit('/').next().unwrap_or_default().to_owned();
    Info { name: source.title(), model_name, hook, recipe, ..Info::default() }
}
