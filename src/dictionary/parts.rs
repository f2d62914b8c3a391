//! A dictionary made in memory: what the trainers and the importers hand over, checked in one place.

use std::sync::Arc;

use super::matrix::{Matrix, Shared, Values};
use super::{Activation, Dictionary, FeatureStats, Info, Settings, SharedGate, SharedStats};
use crate::error::{Error, Result};

/// The weights of a dictionary, row-major and feature-major.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Width of the residual stream.
    pub d_model: usize,
    /// E `[n_features, d_model]`.
    pub encoder: Vec<f32>,
    /// D `[n_features, d_out]`; d_out is the length of `decoder_bias`.
    pub decoder: Vec<f32>,
    /// b_enc `[n_features]`; of gated dictionaries the bias of the magnitude, b_mag.
    pub encoder_bias: Vec<f32>,
    /// b_dec `[d_out]`: d_out is d_model but for transcoders, which may write rows of another width.
    pub decoder_bias: Vec<f32>,
    /// θ `[n_features]`: JumpReLU needs it, BatchTopK wants it, TopK may bring it for steering by slices.
    pub threshold: Option<Vec<f32>>,
    /// What gated dictionaries have besides.
    pub gate: Option<Gate>,
    /// One for each feature.
    pub stats: Option<Vec<FeatureStats>>,
    /// How it encodes.
    pub settings: Settings,
    /// Where it comes from and belongs to.
    pub info: Info,
}

/// The gate of gated dictionaries.
#[derive(Clone, Debug)]
pub struct Gate {
    /// b_gate `[n_features]`.
    pub bias: Vec<f32>,
    /// r_mag `[n_features]`: magnitudes are scaled by exp(r_mag).
    pub log_scale: Vec<f32>,
}

pub(super) fn assemble(parts: Parts) -> Result<Dictionary> {
    let Parts { d_model, encoder, decoder, encoder_bias, decoder_bias, threshold, gate, stats, settings, info } = parts;
    let n = encoder_bias.len();
    let d_out = if settings.transcodes { decoder_bias.len() } else { d_model };
    let stats = stats.map(|stats| share_stats(&stats, n)).transpose()?;
    let dictionary = Dictionary {
        encoder: matrix(encoder, n, d_model, "encoder")?,
        decoder: matrix(decoder, n, d_out, "decoder")?,
        encoder_bias: encoder_bias.into(),
        decoder_bias: decoder_bias.into(),
        threshold: threshold.map(Shared::from),
        gate: gate.map(|g| SharedGate { bias: g.bias.into(), log_scale: g.log_scale.into() }),
        skip: None,
        stats,
        settings,
        info,
        norms: Arc::default(),
        outline: Arc::default(),
        stats_rows: Arc::default(),
    };
    check(&dictionary).map_err(Error::argument)?;
    Ok(dictionary)
}

/// `values` as `[n_rows, n_cols]`.
pub(super) fn matrix(values: Vec<f32>, n_rows: usize, n_cols: usize, what: &str) -> Result<Matrix> {
    let (found, expected) = (values.len(), n_rows.saturating_mul(n_cols));
    let wrong = || Error::argument(format!("{what}: expected [{n_rows}, {n_cols}] = {expected} values, found {found}"));
    Matrix::new(Values::F32(values.into()), n_rows, n_cols).ok_or_else(wrong)
}

/// Statistics as columns.
pub(super) fn share_stats(stats: &[FeatureStats], n_features: usize) -> Result<SharedStats> {
    if stats.len() != n_features {
        return Err(Error::argument(format!("statistics: expected {n_features}, found {}", stats.len())));
    }
    let column = |of: fn(&FeatureStats) -> f32| Shared::from(stats.iter().map(of).collect::<Vec<_>>());
    Ok(SharedStats { density: column(|s| s.density), max: column(|s| s.max), mean: column(|s| s.mean) })
}

/// Everything that encoding relies on, but for the values of the two matrices, which may be gigabytes. Says what is
/// wrong.
pub(super) fn check(d: &Dictionary) -> std::result::Result<(), String> {
    let (n, d_model) = (d.n_features(), d.d_model());
    if n == 0 || d_model == 0 || u32::try_from(n).is_err() {
        return Err(format!("expected features and width from 1, found {n} features of width {d_model}"));
    }
    let (decoder, d_out) = ((d.decoder.n_rows(), d.decoder.n_cols()), d.d_out());
    let transcodes = d.settings.transcodes;
    if decoder.0 != n || d_out == 0 || (d_out != d_model && !transcodes) {
        return Err(format!("decoder: expected [{n}, {d_model}] as the encoder has, found {decoder:?}"));
    }
    if transcodes && d.settings.apply_b_dec_to_input {
        return Err(
            "transcoder: the decoder bias belongs to the output, and is not subtracted from the input".to_owned()
        );
    }
    if let Some(skip) = &d.skip
        && (skip.n_rows(), skip.n_cols()) != (d_out, d_model)
    {
        let found = (skip.n_rows(), skip.n_cols());
        return Err(format!("skip connection: expected [{d_out}, {d_model}], found {found:?}"));
    }
    let layers = d.layers().len();
    if layers != 0 && layers != n {
        return Err(format!("layers: expected one for each of {n} features, found {layers}"));
    }
    if layers != 0 && (d.info.layer.is_some() || transcodes) {
        let what = if transcodes { "a transcoder" } else { "one layer for all" };
        return Err(format!("layers: expected a layer for each feature and nothing else, found {what} besides"));
    }
    check_vector("encoder bias", &d.encoder_bias, n)?;
    check_vector("decoder bias", &d.decoder_bias, d_out)?;
    if let Some(threshold) = &d.threshold {
        check_thresholds(threshold, n)?;
    }
    if let Some(gate) = &d.gate {
        check_vector("gate bias", &gate.bias, n)?;
        check_vector("gate log scale", &gate.log_scale, n)?;
    }
    if let Some(stats) = &d.stats {
        for (what, values) in [("density", &stats.density), ("max", &stats.max), ("mean", &stats.mean)] {
            if values.len() != n {
                return Err(format!("statistics \"{what}\": expected {n} values, found {}", values.len()));
            }
        }
    }
    match d.settings.activation {
        Activation::TopK { k } | Activation::GroupMax { k } | Activation::BatchTopK { k } if k == 0 || k > n => {
            Err(format!("k: expected 1 to {n} (the features), found {k}"))
        }
        Activation::GroupMax { k } if !n.is_multiple_of(k) => {
            Err(format!("k: groupmax needs groups of equal size, found {k} groups of {n} features"))
        }
        Activation::JumpRelu if d.threshold.is_none() => Err("jumprelu: expected thresholds, found none".to_owned()),
        Activation::Gated if d.gate.is_none() => Err("gated: expected a gate, found none".to_owned()),
        _ => Ok(()),
    }
}

fn check_vector(what: &str, values: &[f32], len: usize) -> std::result::Result<(), String> {
    if values.len() != len {
        return Err(format!("{what}: expected {len} values, found {}", values.len()));
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(format!("{what}: expected finite values, found {} at {at}", values[at])),
        None => Ok(()),
    }
}

/// Infinity is allowed: it switches a feature off.
pub(super) fn check_thresholds(values: &[f32], len: usize) -> std::result::Result<(), String> {
    if values.len() != len {
        return Err(format!("threshold: expected {len} values, found {}", values.len()));
    }
    match values.iter().position(|v| v.is_nan()) {
        Some(at) => Err(format!("threshold: expected numbers, found NaN at {at}")),
        None => Ok(()),
    }
}
