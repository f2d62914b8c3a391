//! A coder on disk; [`Coder`] has the layout.

use std::path::Path;

use super::coder::Coder;
use super::options::Regularizer;
use crate::dictionary::{FeatureStats, Info};
use crate::error::{Error, Kind, Result};
use crate::file::safetensors::{self, Dtype};

/// What tells a coder from other safetensors files.
const FORMAT: &str = "tiller coder 1";

impl Coder {
    /// Writes the coder as safetensors.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn save(&self, path: &Path) -> Result<()> {
        let (n, d, info) = (self.n, self.d, &self.info);
        let mut file = safetensors::Writer::new();
        let layer = info.layer.map_or_else(String::new, |layer| layer.to_string());
        for (key, value) in [
            ("format", FORMAT),
            ("regularizer", &self.regularizer.name()),
            ("input", if self.normalizes_input { "layer_norm" } else { "none" }),
            ("recipe", &info.recipe),
            ("name", &info.name),
            ("model", &info.model_name),
            ("model_fingerprint", &info.model_fingerprint),
            ("layer", &layer),
            ("hook", &info.hook),
        ] {
            file.metadata(key, value);
        }
        let mut put = |name: &str, shape: &[usize], values: &[f32]| {
            file.tensor(name, Dtype::F32, shape, bytemuck::cast_slice::<f32, u8>(values).to_vec());
        };
        put("W_enc", &[n, d], &self.encoder);
        put("W_dec", &[n, d], &self.decoder);
        put("b_enc", &[n], &self.encoder_bias);
        put("b_dec", &[d], &self.decoder_bias);
        put("gain", &[n], &self.gain);
        put("shift", &[n], &self.shift);
        match self.regularizer {
            Regularizer::BatchNorm => {
                put("running.mean", &[n], &self.mean);
                put("running.variance", &[n], &self.variance);
            }
            Regularizer::LayerNorm | Regularizer::GroupNorm(_) => put("spread", &[self.spread.len()], &self.spread),
            Regularizer::Dropout(_) => (),
        }
        let column = |of: fn(&FeatureStats) -> f32| self.stats.iter().map(of).collect::<Vec<_>>();
        put("stats.density", &[n], &column(|s| s.density));
        put("stats.max", &[n], &column(|s| s.max));
        put("stats.mean", &[n], &column(|s| s.mean));
        file.write(path)
    }

    /// Whether the file at `path` says that it is a coder.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn recognize(path: &Path) -> Result<bool> {
        match safetensors::File::open(path) {
            Ok(file) => Ok(file.metadata("format") == Some(FORMAT)),
            Err(e) if e.kind() == Kind::Io => Err(e),
            Err(_) => Ok(false),
        }
    }

    /// Reads what [`Coder::save`] wrote.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io); [`Kind::Format`](crate::Kind::Format) for a file of another kind, or with tensors
    /// that are missing, of other shapes, or not finite.
    pub fn open(path: &Path) -> Result<Self> {
        let file = safetensors::File::open(path)?;
        let field = |key: &str| file.metadata(key).unwrap_or_default().to_owned();
        if field("format") != FORMAT {
            return Err(Error::format(path, format!("expected format {FORMAT:?}, found {:?}", field("format"))));
        }
        let regularizer: Regularizer = field("regularizer").parse().map_err(|e: Error| Error::format(path, e))?;
        let normalizes_input = match field("input").as_str() {
            "none" => false,
            "layer_norm" => true,
            other => {
                let what = format!("metadata input: expected none or layer_norm, found \"{other}\"");
                return Err(Error::format(path, what));
            }
        };
        let layer = match field("layer").as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| Error::format(path, format!("metadata layer: found \"{text}\"")))?),
        };
        let shape = file.tensor("W_enc")?.shape();
        let &[n, d] = shape else {
            return Err(Error::format(path, format!("tensor \"W_enc\": expected two dimensions, found {shape:?}")));
        };
        let groups = regularizer.groups();
        if n == 0
            || d == 0
            || (groups > 0 && !n.is_multiple_of(groups))
            || matches!(regularizer, Regularizer::GroupNorm(0))
        {
            let name = regularizer.name();
            return Err(Error::format(path, format!("tensor \"W_enc\": shape [{n}, {d}] does not go with {name}")));
        }
        let read = |name: &str, shape: &[usize]| {
            Ok::<_, Error>(file.tensor(name)?.expect_shape(shape)?.to_f32()?.into_owned())
        };
        let batch_norm = regularizer == Regularizer::BatchNorm;
        let (mean, variance) = match batch_norm {
            true => (read("running.mean", &[n])?, read("running.variance", &[n])?),
            false => (vec![0.0; n], vec![1.0; n]),
        };
        let spread = if groups > 0 { read("spread", &[groups])? } else { Vec::new() };
        let stats =
            read("stats.density", &[n])?.into_iter().zip(read("stats.max", &[n])?).zip(read("stats.mean", &[n])?);
        let coder = Self {
            d,
            n,
            regularizer,
            normalizes_input,
            encoder: read("W_enc", &[n, d])?,
            decoder: read("W_dec", &[n, d])?,
            encoder_bias: read("b_enc", &[n])?,
            decoder_bias: read("b_dec", &[d])?,
            gain: read("gain", &[n])?,
            shift: read("shift", &[n])?,
            mean,
            variance,
            spread,
            stats: stats.map(|((density, max), mean)| FeatureStats { density, max, mean }).collect(),
            info: Info {
                name: field("name"),
                model_name: field("model"),
                model_fingerprint: field("model_fingerprint"),
                layer,
                hook: field("hook"),
                recipe: field("recipe"),
                ..Info::default()
            },
        };
        coder.check().map_err(|what| Error::format(path, what))?;
        if coder.variance.iter().any(|&v| v < 0.0) || coder.spread.iter().any(|&v| v <= 0.0) {
            return Err(Error::format(path, "expected variances from 0 and spreads above it"));
        }
        Ok(coder)
    }
}
