//! Our own files: GGUF with `general.architecture = "sae"`.
//!
//! | tensor | shape (ggml order) | type |
//! |---|---|---|
//! | `enc.weight`, `dec.weight` | `[d_model, n_features]` | F32, F16, BF16, Q8_0 |
//! | `enc.bias` | `[n_features]`, of gated ones b_mag | F32 |
//! | `dec.bias` | `[d_model]` | F32 |
//! | `threshold` | `[n_features]`, where there is one | F32 |
//! | `gate.bias`, `gate.log_scale` | `[n_features]`, gated only | F32 |
//! | `stats.density`, `stats.max`, `stats.mean` | `[n_features]`, optional | F32 |
//!
//! Keys: `general.name`, and after the prefix `sae.`: `version` (1), `activation`, `k`, `apply_b_dec_to_input`,
//! `normalization`, `input_scale`, `rescale_by_decoder_norm`, `center_input`, `model.name`, `model.fingerprint`,
//! `layer`, `hook`, `recipe`, `notes`.

use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};

use super::encode::safe_norm;
use super::matrix::{Matrix, Shared, Values};
use super::settings::layer_of_hook;
use super::{Activation, Dictionary, Info, Normalization, Settings, SharedGate, SharedStats, parts};
use crate::error::{Error, Result};
use crate::file::Sink;
use crate::file::gguf::{Array, GgmlType, Gguf, Tensor, Writer};
use crate::num::{Q8_0_LEN, quantize_q8_0};

const ARCHITECTURE: &str = "sae";
const VERSION: u32 = 1;

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
        stats,
        norms: Arc::default(),
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
        "batchtopk" => Activation::BatchTopK { k: k()? },
        "jumprelu" => Activation::JumpRelu,
        "gated" => Activation::Gated,
        other => return Err(wrong("sae.activation", "relu, topk, batchtopk, jumprelu or gated", other)),
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
        layer: file.opt_usize("sae.layer")?.or_else(|| layer_of_hook(&hook)),
        hook,
        recipe: text("sae.recipe")?,
        notes: notes.map_or_else(Vec::new, |a| (0..a.len()).filter_map(|i| a.str(i)).map(str::to_owned).collect()),
    })
}

fn matrix(file: &Gguf, name: &str) -> Result<Matrix> {
    let tensor = file.tensor(name)?;
    let &[n_cols, n_rows] = tensor.shape.as_slice() else {
        let what = format!("tensor \"{name}\": expected shape [d_model, n_features], found {:?}", tensor.shape);
        return Err(Error::format(file.path(), what));
    };
    let values = match tensor.kind {
        GgmlType::F32 => shared(file, tensor).map(Values::F32),
        GgmlType::F16 => shared(file, tensor).map(Values::F16),
        GgmlType::BF16 => shared(file, tensor).map(Values::Bf16),
        GgmlType::Q8_0 => shared(file, tensor).map(Values::Q8_0),
        other => {
            let (path, other) = (file.path().display(), other.name());
            let what = format!("{path}: tensor \"{name}\": expected F32, F16, BF16 or Q8_0, found {other}");
            return Err(Error::unsupported(what));
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

/// Writes `d` with its weights as `kind`.
pub(super) fn save(d: &Dictionary, path: &Path, kind: GgmlType) -> Result<()> {
    let (n, width) = (d.n_features(), d.d_model());
    if !matches!(kind, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 | GgmlType::Q8_0) {
        return Err(Error::argument(format!("dictionaries are stored as F32, F16, BF16 or Q8_0, not {}", kind.name())));
    }
    if kind == GgmlType::Q8_0 && !width.is_multiple_of(Q8_0_LEN) {
        let what = format!("Q8_0 needs a width that is a multiple of {Q8_0_LEN}, found {width}: choose F16");
        return Err(Error::argument(what));
    }
    let folded = |i| if d.settings.rescale_by_decoder_norm { safe_norm(d.decoder.norm(i)) } else { 1.0 };
    let bias: Vec<f32> = d.encoder_bias.iter().enumerate().map(|(i, b)| b * folded(i)).collect();
    let mut file = Writer::new();
    set_keys(&mut file, d);
    file.tensor_with("enc.weight", &[width, n], kind, |out| put_rows(&d.encoder, kind, folded, out));
    file.tensor_with("dec.weight", &[width, n], kind, |out| put_rows(&d.decoder, kind, |i| 1.0 / folded(i), out));
    let mut vector = |name, values: &[f32]| {
        file.tensor(name, &[values.len()], GgmlType::F32, bytemuck::cast_slice::<f32, u8>(values).to_vec());
    };
    vector("enc.bias", &bias);
    vector("dec.bias", &d.decoder_bias);
    if let Some(threshold) = &d.threshold {
        vector("threshold", threshold);
    }
    if let Some(gate) = &d.gate {
        // The gate opens where z + b_gate > 0: its bias grows with z.
        let bias: Vec<f32> = gate.bias.iter().enumerate().map(|(i, b)| b * folded(i)).collect();
        vector("gate.bias", &bias);
        vector("gate.log_scale", &gate.log_scale);
    }
    if let Some(stats) = &d.stats {
        vector("stats.density", &stats.density);
        vector("stats.max", &stats.max);
        vector("stats.mean", &stats.mean);
    }
    file.write(path)
}

fn set_keys(file: &mut Writer<'_>, d: &Dictionary) {
    let (settings, info) = (&d.settings, &d.info);
    file.set("general.architecture", ARCHITECTURE);
    file.set("sae.version", VERSION);
    file.set("sae.activation", settings.activation.name());
    if let Some(k) = settings.activation.k() {
        file.set("sae.k", k as u64);
    }
    file.set("sae.apply_b_dec_to_input", settings.apply_b_dec_to_input);
    file.set("sae.normalization", settings.normalization.name());
    if let Normalization::ExpectedAverage { scale } = settings.normalization {
        file.set("sae.input_scale", scale);
    }
    file.set("sae.rescale_by_decoder_norm", false);
    file.set("sae.center_input", settings.center_input);
    let texts = [
        ("general.name", &info.name),
        ("sae.model.name", &info.model_name),
        ("sae.model.fingerprint", &info.model_fingerprint),
        ("sae.hook", &info.hook),
        ("sae.recipe", &info.recipe),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        file.set(key, text.as_str());
    }
    if let Some(layer) = info.layer {
        file.set("sae.layer", layer as u64);
    }
    if let Some(notes) = Array::strings(&info.notes).filter(|_| !info.notes.is_empty()) {
        file.set("sae.notes", notes);
    }
}

/// Puts every row, times its factor, into the file as `kind`.
fn put_rows(matrix: &Matrix, kind: GgmlType, factor: impl Fn(usize) -> f32, out: &mut Sink<'_>) -> Result<()> {
    let mut row = vec![0f32; matrix.n_cols()];
    let mut bytes = Vec::new();
    for i in 0..matrix.n_rows() {
        matrix.row(i).decode(&mut row);
        let factor = factor(i);
        row.iter_mut().for_each(|v| *v *= factor);
        bytes.clear();
        match kind {
            GgmlType::F16 => bytes.extend(row.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
            GgmlType::BF16 => bytes.extend(row.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
            GgmlType::Q8_0 => quantize_q8_0(&row, &mut bytes),
            _ => bytes.extend_from_slice(bytemuck::cast_slice(&row)),
        }
        out.put(&bytes)?;
    }
    Ok(())
}
