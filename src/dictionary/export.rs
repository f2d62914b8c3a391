//! Dictionaries for other programs: directories that SAELens and sparsify load with their own code.
//!
//! What a family has no key for is folded into the weights where that changes no activation: decoder norms, the constant c of
//! inputs, a decoder bias that is subtracted or not. What cannot be folded is refused, not approximated. Weights are
//! written as F32, each file beside its place first and then renamed.

use std::path::Path;

use serde_json::json;

use super::encode::safe_norm;
use super::family::{saelens, sparsify};
use super::matrix::Matrix;
use super::{Activation, Dictionary, Normalization};
use crate::error::{Error, Result};
use crate::file::safetensors::{Dtype, Writer};
use crate::file::{Sink, write_atomic};
use crate::num::dot;

impl Dictionary {
    /// Writes a SAELens directory: `cfg.json` of version 6, `sae_weights.safetensors`, and `sparsity.safetensors` if the
    /// dictionary knows how often its features fire. BatchTopK is written as SAELens writes it for use: as JumpReLU with its
    /// thresholds, or as TopK without; the thresholds of TopK, which serve slices only, are left out.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for GroupMax, skip connections of autoencoders, and transcoders
    /// that are not ReLU or JumpReLU; [`Kind::Io`](crate::Kind::Io).
    pub fn save_saelens(&self, dir: &Path) -> Result<()> {
        self.check_one_layer("SAELens")?;
        let (settings, info) = (&self.settings, &self.info);
        let refuse = |what: String| Err(Error::unsupported(format!("{}: SAELens has no {what}", info.title())));
        let jump = self.threshold.is_some();
        let architecture = match (settings.activation, settings.transcodes, self.skip.is_some()) {
            (Activation::Relu, true, false) => "transcoder",
            (Activation::Relu, true, true) => "skip_transcoder",
            (Activation::JumpRelu, true, false) => "jumprelu_transcoder",
            (Activation::JumpRelu, true, true) => "jumprelu_skip_transcoder",
            (activation, true, _) => return refuse(format!("{} transcoder", activation.name())),
            (_, false, true) => return refuse("autoencoder with a skip connection".to_owned()),
            (Activation::Relu, ..) => "standard",
            (Activation::TopK { .. }, ..) => "topk",
            (Activation::BatchTopK { .. }, ..) if jump => "jumprelu",
            (Activation::BatchTopK { .. }, ..) => "topk",
            (Activation::JumpRelu, ..) => "jumprelu",
            (Activation::Gated, ..) => "gated",
            (Activation::GroupMax { .. }, ..) => return refuse("groupmax".to_owned()),
        };
        let normalization = match settings.normalization {
            Normalization::ExpectedAverage { .. } => Normalization::None,
            other => other,
        };
        let mut config = json!({
            "architecture": architecture,
            "d_in": self.d_model(),
            "d_sae": self.n_features(),
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": settings.apply_b_dec_to_input,
            "normalize_activations": normalization.name(),
            "reshape_activations": "none",
            "metadata": {
                "sae_lens_version": "6.0.0",
                "model_name": info.model_name,
                "hook_name": info.hook,
                "hook_head_index": null,
                "prepend_bos": true,
                "neuronpedia_id": null,
            },
        });
        if architecture == "topk" {
            config["k"] = json!(settings.activation.k());
            config["rescale_acts_by_decoder_norm"] = json!(false);
        }
        if settings.transcodes {
            config["d_out"] = json!(self.d_out());
            config["metadata"]["hook_name_out"] = json!(info.hook_out);
        }
        if settings.center_input {
            config["metadata"]["model_from_pretrained_kwargs"] = json!({ "center_writing_weights": true });
        }
        let (n, d_in, d_out, folded) = (self.n_features(), self.d_model(), self.d_out(), Folded::of(self));
        let encoder_bias = folded.encoder_bias();
        let mut file = Writer::new();
        file.metadata("format", "pt");
        file.tensor_with("W_enc", Dtype::F32, &[d_in, n], |out| put_columns(&self.encoder, |i| folded.inward(i), out));
        file.tensor_with("W_dec", Dtype::F32, &[n, d_out], |out| put_rows(&self.decoder, |i| folded.outward(i), out));
        vector(&mut file, "b_dec", &folded.decoder_bias());
        match &self.gate {
            Some(gate) => {
                vector(&mut file, "b_mag", &encoder_bias);
                vector(&mut file, "b_gate", &folded.rescaled(&gate.bias));
                vector(&mut file, "r_mag", &gate.log_scale);
            }
            None => vector(&mut file, "b_enc", &encoder_bias),
        }
        if let Some(threshold) = self.threshold.as_ref().filter(|_| architecture.starts_with("jumprelu")) {
            vector(&mut file, "threshold", threshold);
        }
        if let Some(skip) = &self.skip {
            file.tensor_with("W_skip", Dtype::F32, &[d_out, d_in], |out| put_rows(skip, |_| 1.0, out));
        }
        make_dir(dir)?;
        file.write(&dir.join(saelens::WEIGHTS))?;
        if let Some(stats) = &self.stats {
            let logs: Vec<f32> = stats.density.iter().map(|v| (v + 1e-10).log10()).collect();
            let mut file = Writer::new();
            vector(&mut file, "sparsity", &logs);
            file.write(&dir.join(saelens::SPARSITY))?;
        }
        write_json(&dir.join(saelens::CONFIG), &config)
    }

    /// Writes a sparsify directory: `cfg.json` and `sae.safetensors`. sparsify tells the module by the directory's name:
    /// call it `layers.10`, or `layers.10.mlp`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for activations other than TopK and GroupMax (BatchTopK without
    /// thresholds is TopK), for normalised or centred inputs, and for transcoders whose output has another width;
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn save_sparsify(&self, dir: &Path) -> Result<()> {
        self.check_one_layer("sparsify")?;
        let (settings, info) = (&self.settings, &self.info);
        let refuse = |what: String| Err(Error::unsupported(format!("{}: sparsify has no {what}", info.title())));
        let (activation, k) = match settings.activation {
            Activation::TopK { k } => ("topk", k),
            Activation::GroupMax { k } => ("groupmax", k),
            Activation::BatchTopK { k } if self.threshold.is_none() => ("topk", k),
            other => return refuse(format!("activation {}, only topk and groupmax", other.name())),
        };
        if let Normalization::LayerNorm | Normalization::ConstantNorm = settings.normalization {
            return refuse(format!("normalisation of inputs such as {}", settings.normalization.name()));
        }
        if settings.center_input {
            return refuse("centring of inputs".to_owned());
        }
        let (n, d_in, folded) = (self.n_features(), self.d_model(), Folded::of(self));
        if self.d_out() != d_in {
            return refuse(format!("transcoder from width {d_in} to width {}", self.d_out()));
        }
        let config = json!({
            "activation": activation,
            "expansion_factor": n.div_ceil(d_in),
            "normalize_decoder": false,
            "num_latents": n,
            "k": k,
            "multi_topk": false,
            "skip_connection": self.skip.is_some(),
            "transcode": settings.transcodes,
            "d_in": d_in,
        });
        let (mut encoder_bias, decoder_bias) = (folded.encoder_bias(), folded.decoder_bias());
        if !settings.transcodes && !settings.apply_b_dec_to_input {
            // sparsify subtracts b_dec whether or not we do: E·b_dec is added back.
            let mut row = vec![0.0; d_in];
            self.encoder.each_row(|i, stored| {
                stored.decode(&mut row);
                encoder_bias[i] += folded.inward(i) * dot(&row, &decoder_bias);
                Ok(())
            })?;
        }
        let mut file = Writer::new();
        file.metadata("format", "pt");
        let rows = [n, d_in];
        file.tensor_with("encoder.weight", Dtype::F32, &rows, |out| put_rows(&self.encoder, |i| folded.inward(i), out));
        file.tensor_with("W_dec", Dtype::F32, &rows, |out| put_rows(&self.decoder, |i| folded.outward(i), out));
        vector(&mut file, "encoder.bias", &encoder_bias);
        vector(&mut file, "b_dec", &decoder_bias);
        if let Some(skip) = &self.skip {
            file.tensor_with("W_skip", Dtype::F32, &[d_in, d_in], |out| put_rows(skip, |_| 1.0, out));
        }
        make_dir(dir)?;
        file.write(&dir.join(sparsify::WEIGHTS))?;
        write_json(&dir.join(sparsify::CONFIG), &config)
    }
}

/// A dictionary without rescaling by decoder norms and without the constant c of its inputs: p and f are the same.
struct Folded<'a> {
    dictionary: &'a Dictionary,
    norms: Option<Vec<f32>>,
    scale: f32,
}

impl<'a> Folded<'a> {
    fn of(dictionary: &'a Dictionary) -> Self {
        let settings = dictionary.settings;
        let norms = || dictionary.decoder.norms().into_iter().map(safe_norm).collect();
        let norms = settings.rescale_by_decoder_norm.then(norms);
        let scale = match settings.normalization {
            Normalization::ExpectedAverage { scale } => scale,
            _ => 1.0,
        };
        Self { dictionary, norms, scale }
    }

    fn norm(&self, i: usize) -> f32 {
        self.norms.as_ref().map_or(1.0, |norms| norms[i])
    }

    /// What row i of the encoder is multiplied by.
    fn inward(&self, i: usize) -> f32 {
        self.norm(i) * self.scale
    }

    /// What the output is divided by: a transcoder's was never scaled.
    fn out_scale(&self) -> f32 {
        if self.dictionary.settings.transcodes { 1.0 } else { self.scale }
    }

    /// What row i of the decoder is multiplied by.
    fn outward(&self, i: usize) -> f32 {
        1.0 / (self.norm(i) * self.out_scale())
    }

    fn rescaled(&self, values: &[f32]) -> Vec<f32> {
        values.iter().enumerate().map(|(i, v)| v * self.norm(i)).collect()
    }

    fn encoder_bias(&self) -> Vec<f32> {
        self.rescaled(&self.dictionary.encoder_bias)
    }

    fn decoder_bias(&self) -> Vec<f32> {
        self.dictionary.decoder_bias.iter().map(|v| v / self.out_scale()).collect()
    }
}

fn vector(file: &mut Writer<'_>, name: &str, values: &[f32]) {
    file.tensor(name, Dtype::F32, &[values.len()], bytemuck::cast_slice::<f32, u8>(values).to_vec());
}

fn put_rows(matrix: &Matrix, factor: impl Fn(usize) -> f32, out: &mut Sink<'_>) -> Result<()> {
    let mut row = vec![0f32; matrix.n_cols()];
    matrix.each_row(|i, stored| {
        stored.decode(&mut row);
        row.iter_mut().for_each(|v| *v *= factor(i));
        out.put(bytemuck::cast_slice(&row))
    })
}

/// The transpose, in as few passes through the matrix as 64 MB of memory allow.
fn put_columns(matrix: &Matrix, factor: impl Fn(usize) -> f32, out: &mut Sink<'_>) -> Result<()> {
    const VALUES: usize = 16 << 20;
    let (n_rows, n_cols) = (matrix.n_rows(), matrix.n_cols());
    let step = (VALUES / n_rows).clamp(1, n_cols);
    let (mut row, mut band) = (vec![0f32; n_cols], vec![0f32; step * n_rows]);
    for first in (0..n_cols).step_by(step) {
        let columns = first..(first + step).min(n_cols);
        matrix.each_row(|i, stored| {
            stored.decode(&mut row);
            let to = band.iter_mut().skip(i).step_by(n_rows);
            to.zip(&row[columns.clone()]).for_each(|(to, v)| *to = v * factor(i));
            Ok(())
        })?;
        out.put(bytemuck::cast_slice(&band[..columns.len() * n_rows]))?;
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    use std::io::Write;
    let text = format!("{value:#}\n");
    write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e)))
}
