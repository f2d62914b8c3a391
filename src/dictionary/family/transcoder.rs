//! Transcoders with one file a layer, as circuit-tracer reads them, and cross-layer transcoders with two.
//!
//! `layer_L.safetensors` holds `W_enc` `[d_sae, d_in]`, `W_dec` `[d_sae, d_out]` and biases, sometimes `W_skip` and a
//! threshold; ReLU without one. Model and hook points stand in `config.yaml` beside it. A cross-layer transcoder has
//! `W_enc_L`, `b_enc_L`, `b_dec_L` in one file and `W_dec_L` `[d_sae, n_layers, d_out]` in the next: its features are read at
//! one layer and write to all that follow, so its decoder rows here are sums over these, good for saying what a feature
//! means; where to add them, a rule must say itself.

use super::super::matrix::Shared;
use super::super::{Activation, Info, Settings};
use super::config::Config;
use super::gemma_scope::{other_side, sum_of_layers};
use super::reader::{Draft, Lies, Reader};
use super::source::{Source, number_behind};
use crate::error::{Error, Result};

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Draft> {
    if let Some(layer) = layer_of_cross(reader.source()) {
        return read_cross(reader, layer);
    }
    let (n, d_out) = (reader.len("b_enc")?, reader.len("b_dec")?);
    let d_in = other_side(reader, "W_enc", n)?;
    let encoder = reader.matrix("W_enc", n, d_in, Lies::ByFeature)?;
    let decoder = reader.matrix("W_dec", n, d_out, Lies::ByFeature)?;
    let layer = number_behind(reader.source().stem(), "layer_");
    let threshold = reader.first(&["threshold", "activation_function.threshold"]);
    let threshold = reader.has(threshold).then(|| reader.thresholds(threshold, n)).transpose()?;
    let (encoder_bias, decoder_bias) = (reader.vector("b_enc", n)?, reader.vector("b_dec", d_out)?);
    let info = info(reader, layer)?;
    let settings = settings(threshold.is_some());
    let mut draft = Draft::new((encoder, encoder_bias), (decoder, decoder_bias), settings, info);
    draft.threshold = threshold;
    draft.skip = reader.skip("W_skip", d_out, d_in, false)?;
    Ok(draft)
}

/// The L of `W_enc_L`, if there is one.
pub(super) fn layer_of_cross(source: &Source) -> Option<usize> {
    source.weights().names().find_map(|name| name.strip_prefix("W_enc_")?.parse().ok())
}

fn read_cross(reader: &mut Reader<'_>, layer: usize) -> Result<Draft> {
    let source = reader.source();
    let name = |what: &str| format!("{what}_{layer}");
    let (n, d) = (reader.len(&name("b_enc"))?, reader.len(&name("b_dec"))?);
    let encoder = reader.matrix(&name("W_enc"), n, d, Lies::ByFeature)?;
    let threshold = name("threshold");
    let threshold = reader.has(&threshold).then(|| reader.thresholds(&threshold, n)).transpose()?;
    let biases: (Shared<f32>, Shared<f32>) = (reader.vector(&name("b_enc"), n)?, reader.vector(&name("b_dec"), d)?);
    let file = format!("{}.safetensors", name("W_dec"));
    let Some(path) = source.beside(&file) else {
        return Err(Error::format(
            source.path(),
            format!("transcoder: expected {file} beside the encoder, found none"),
        ));
    };
    let decoder = {
        let beside = Source::find(&path)?;
        let mut other = Reader::new(&beside);
        match beside.weights().get(&name("W_dec"))?.shape() {
            [_, layers, _] => {
                reader.note(format!(
                    "a cross-layer transcoder: its decoder rows are sums over the {layers} layers that it writes to"
                ));
                sum_of_layers(&other, &name("W_dec"), n, d)?
            }
            _ => other.matrix(&name("W_dec"), n, d, Lies::ByFeature)?,
        }
    };
    let mut info = info(reader, Some(layer))?;
    info.hook_out = "several layers".to_owned();
    let mut draft = Draft::new((encoder, biases.0), (decoder, biases.1), settings(threshold.is_some()), info);
    draft.threshold = threshold;
    Ok(draft)
}

fn settings(has_threshold: bool) -> Settings {
    let mut settings = Settings::new(if has_threshold { Activation::JumpRelu } else { Activation::Relu });
    settings.apply_b_dec_to_input = false;
    settings.transcodes = true;
    settings
}

/// `config.yaml` says the model and, mostly, the hook points.
fn info(reader: &Reader<'_>, layer: Option<usize>) -> Result<Info> {
    let source = reader.source();
    let config = source.beside("config.yaml").map(|path| Config::read_yaml(&path)).transpose()?.unwrap_or_default();
    let point = |key: &str, usual: &str| {
        let site = Some(config.text(&[key])).filter(|site| !site.is_empty()).unwrap_or_else(|| usual.to_owned());
        layer.map(|layer| format!("blocks.{layer}.{site}")).unwrap_or_default()
    };
    Ok(Info {
        name: source.stem().to_owned(),
        model_name: config.text(&["model_name"]),
        hook: point("feature_input_hook", "mlp.hook_in"),
        hook_out: point("feature_output_hook", "hook_mlp_out"),
        ..Info::default()
    })
}
