//! Our own files: GGUF with `general.architecture = "sae"`.
//!
//! | tensor | shape (ggml order) | type |
//! |---|---|---|
//! | `enc.weight` | `[d_model, n_features]` | F32, F16, BF16, Q8_0; with feature `engine` all that ggml decodes |
//! | `dec.weight` | `[d_out, n_features]` | the same |
//! | `skip.weight` | `[d_model, d_out]`, where there is a skip connection | the same |
//! | `enc.bias` | `[n_features]`, of gated ones b_mag | F32 |
//! | `dec.bias` | `[d_out]` | F32 |
//! | `threshold` | `[n_features]`, where there is one | F32 |
//! | `gate.bias`, `gate.log_scale` | `[n_features]`, gated only | F32 |
//! | `stats.density`, `stats.max`, `stats.mean` | `[n_features]`, optional | F32 |
//!
//! Keys: `general.name`, and after the prefix `sae.`: `version` (1), `activation`, `k`, `apply_b_dec_to_input`,
//! `normalization`, `input_scale`, `rescale_by_decoder_norm`, `center_input`, `transcodes`, `model.name`,
//! `model.fingerprint`, `layer`, `layers` (one for each feature, in place of `layer`), `hook`, `layer_out`, `hook_out`, `l0`,
//! `recipe`, `notes`; of learned features `learned.instruction`, `learned.explanation`, `learned.form`, `learned.strength`,
//! `learned.avoid`, `learned.doses`.

use std::path::Path;
use std::sync::Arc;

use super::matrix::{Matrix, Shared, Values};
use super::settings::Place;
use super::{Activation, Dictionary, Form, Info, Learned, Normalization, Settings, SharedGate, SharedStats, parts};
use crate::error::{Error, Result};
use crate::file::gguf::{GgmlType, Gguf, Tensor};
use crate::num::Coding;

pub(super) const ARCHITECTURE: &str = "sae";
pub(super) const VERSION: u32 = 1;

/// Maps the file and checks everything but the values of the matrices.
pub(super) fn open(path: &Path) -> Result<Dictionary> {
    let file = Gguf::open(path)?;
    let architecture = file.str("general.architecture")?;
    if architecture != ARCHITECTURE {
        let what = format!("expected a dictionary (general.architecture \"{ARCHITECTURE}\"), found \"{architecture}\"");
        return Err(Error::format(path, what));
    }
    let version = file.u32("sae.version")?;
    if version != VERSION {
        let path = path.display();
        return Err(Error::unsupported(format!("{path}: expected version {VERSION} of the format, found {version}")));
    }
    let encoder = matrix(&file, "enc.weight")?;
    let gate = opt_vector(&file, "gate.bias")?
        .map(|bias| Ok::<_, Error>(SharedGate { bias, log_scale: vector(&file, "gate.log_scale")? }))
        .transpose()?;
    let stats = opt_vector(&file, "stats.density")?
        .map(|density| {
            let (max, mean) = (vector(&file, "stats.max")?, vector(&file, "stats.mean")?);
            Ok::<_, Error>(SharedStats { density, max, mean })
        })
        .transpose()?;
    let dictionary = Dictionary {
        info: info(&file)?,
        settings: settings(&file)?,
        encoder,
        decoder: matrix(&file, "dec.weight")?,
        encoder_bias: vector(&file, "enc.bias")?,
        // Read with every row, and small: not worth keeping pages of the file around it in memory.
        decoder_bias: vector(&file, "dec.bias")?.to_vec().into(),
        threshold: opt_vector(&file, "threshold")?,
        gate,
        skip: file.opt_tensor("skip.weight").map(|_| matrix(&file, "skip.weight")).transpose()?,
        stats,
        norms: Arc::default(),
        outline: Arc::default(),
        stats_rows: Arc::default(),
    };
    parts::check(&dictionary).map_err(|what| Error::format(path, what))?;
    dictionary.release();
    Ok(dictionary)
}

fn settings(file: &Gguf) -> Result<Settings> {
    let wrong = |key: &str, expected: &str, found: &str| {
        let path = file.path().display();
        Error::unsupported(format!("{path}: key \"{key}\": expected {expected}, found \"{found}\""))
    };
    let k = || file.usize("sae.k");
    let activation = match file.str("sae.activation")? {
        "relu" => Activation::Relu,
        "topk" => Activation::TopK { k: k()? },
        "groupmax" => Activation::GroupMax { k: k()? },
        "batchtopk" => Activation::BatchTopK { k: k()? },
        "jumprelu" => Activation::JumpRelu,
        "gated" => Activation::Gated,
        other => return Err(wrong("sae.activation", "relu, topk, groupmax, batchtopk, jumprelu or gated", other)),
    };
    let normalization = match file.opt_str("sae.normalization")?.unwrap_or("none") {
        "none" => Normalization::None,
        "layer_norm" => Normalization::LayerNorm,
        "constant_norm_rescale" => Normalization::ConstantNorm,
        "expected_average_only_in" => {
            let scale = file.f32("sae.input_scale")?;
            if !(scale.is_finite() && scale > 0.0) {
                let what = format!("key \"sae.input_scale\": expected a positive number, found {scale}");
                return Err(Error::format(file.path(), what));
            }
            Normalization::ExpectedAverage { scale }
        }
        other => {
            let expected = "none, layer_norm, constant_norm_rescale or expected_average_only_in";
            return Err(wrong("sae.normalization", expected, other));
        }
    };
    Ok(Settings {
        activation,
        apply_b_dec_to_input: file.bool("sae.apply_b_dec_to_input")?,
        normalization,
        rescale_by_decoder_norm: file.opt_bool("sae.rescale_by_decoder_norm")?.unwrap_or(false),
        center_input: file.opt_bool("sae.center_input")?.unwrap_or(false),
        transcodes: file.opt_bool("sae.transcodes")?.unwrap_or(false),
    })
}

fn info(file: &Gguf) -> Result<Info> {
    let text = |key| Ok::<_, Error>(file.opt_str(key)?.unwrap_or_default().to_owned());
    let hook = text("sae.hook")?;
    let notes = file.opt_array("sae.notes")?;
    Ok(Info {
        name: text("general.name")?,
        model_name: text("sae.model.name")?,
        model_fingerprint: text("sae.model.fingerprint")?,
        layer: file.opt_usize("sae.layer")?.or_else(|| Place::of(&hook).layer()),
        layers: layers(file)?,
        hook,
        layer_out: file.opt_usize("sae.layer_out")?,
        hook_out: text("sae.hook_out")?,
        l0: file.opt_u32("sae.l0")?,
        recipe: text("sae.recipe")?,
        notes: notes.map_or_else(Vec::new, |a| (0..a.len()).filter_map(|i| a.str(i)).map(str::to_owned).collect()),
        learned: learned(file)?,
    })
}

/// The layer of each feature, if the file has them.
fn layers(file: &Gguf) -> Result<Vec<usize>> {
    let Some(array) = file.opt_array("sae.layers")? else { return Ok(Vec::new()) };
    let layer = |i: usize| {
        let found = array.number::<u32>(i).and_then(|layer| usize::try_from(layer).ok());
        let kind = array.kind().name();
        found.ok_or_else(|| Error::format(file.path(), format!("key \"sae.layers\": expected u32, found {kind}")))
    };
    (0..array.len()).map(layer).collect()
}

fn learned(file: &Gguf) -> Result<Option<Learned>> {
    let Some(instruction) = file.opt_str("sae.learned.instruction")? else { return Ok(None) };
    let form = file.str("sae.learned.form")?;
    let form = Form::from_name(form).ok_or_else(|| {
        let path = file.path().display();
        Error::unsupported(format!("{path}: key \"sae.learned.form\": expected constant or gated, found \"{form}\""))
    })?;
    let finite = |key: &str, found: f32| match found.is_finite() {
        true => Ok(found),
        false => Err(Error::format(file.path(), format!("key \"{key}\": expected a finite number, found {found}"))),
    };
    let avoid = file.opt_f32("sae.learned.avoid")?.map(|found| finite("sae.learned.avoid", found)).transpose()?;
    Ok(Some(Learned {
        instruction: instruction.to_owned(),
        explanation: file.opt_str("sae.learned.explanation")?.unwrap_or_default().to_owned(),
        form,
        strength: finite("sae.learned.strength", file.f32("sae.learned.strength")?)?,
        avoid,
        doses: file.opt_str("sae.learned.doses")?.unwrap_or_default().to_owned(),
    }))
}

fn matrix(file: &Gguf, name: &str) -> Result<Matrix> {
    let tensor = file.tensor(name)?;
    let &[n_cols, n_rows] = tensor.shape.as_slice() else {
        let what = format!("tensor \"{name}\": expected two dimensions, width first, found {:?}", tensor.shape);
        return Err(Error::format(file.path(), what));
    };
    let values = match tensor.kind {
        GgmlType::F32 => shared(file, tensor).map(Values::F32),
        GgmlType::F16 => shared(file, tensor).map(Values::F16),
        GgmlType::BF16 => shared(file, tensor).map(Values::Bf16),
        GgmlType::Q8_0 => shared(file, tensor).map(Values::Q8_0),
        other if other.can_dequantize() => {
            let coding = Coding::new(other.block_len(), other.block_bytes(), move |blocks, out| {
                // Blocks come whole, and this type can be decoded: it cannot fail; if it could, NaN would tell.
                if other.dequantize(blocks, out).is_err() {
                    out.fill(f32::NAN);
                }
            });
            shared(file, tensor).map(|values| Values::Coded(values, other, Arc::new(coding)))
        }
        other => {
            let (path, other) = (file.path().display(), other.label());
            let known = if cfg!(feature = "engine") {
                "weights of ggml's"
            } else {
                "F32, F16, BF16 or Q8_0 (this build has no ggml to decode others: feature `engine`)"
            };
            return Err(Error::unsupported(format!("{path}: tensor \"{name}\": expected {known}, found {other}")));
        }
    };
    values.and_then(|values| Matrix::new(values, n_rows, n_cols)).ok_or_else(|| misaligned(file, tensor))
}

fn vector(file: &Gguf, name: &str) -> Result<Shared<f32>> {
    let tensor = file.tensor(name)?;
    if tensor.kind != GgmlType::F32 || tensor.shape.len() != 1 {
        let (kind, shape) = (tensor.kind.name(), &tensor.shape);
        let what = format!("tensor \"{name}\": expected F32 with one dimension, found {kind} {shape:?}");
        return Err(Error::format(file.path(), what));
    }
    shared(file, tensor).ok_or_else(|| misaligned(file, tensor))
}

fn opt_vector(file: &Gguf, name: &str) -> Result<Option<Shared<f32>>> {
    file.opt_tensor(name).map(|_| vector(file, name)).transpose()
}

fn shared<T: bytemuck::Pod>(file: &Gguf, tensor: &Tensor) -> Option<Shared<T>> {
    Shared::mapped(file.map(), tensor.offset..tensor.offset.checked_add(tensor.n_bytes)?)
}

fn misaligned(file: &Gguf, tensor: &Tensor) -> Error {
    let (name, offset) = (&tensor.name, tensor.offset);
    Error::format(
        file.path(),
        format!("tensor \"{name}\": expected whole rows at an aligned place, found byte {offset}"),
    )
}
