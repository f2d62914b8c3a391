//! OpenAI's sparse_autoencoder: one state dictionary a layer, `…/resid_post_mlp_v5_32k/autoencoders/8.pt`.
//!
//! `activation` names the function, ReLU or TopK; with TopK rows were layer-normed, says their code, and with ReLU not.
//! Decoders may be tied: then the encoder decodes as well.

use serde_json::Value;

use super::super::matrix::Shared;
use super::super::{Activation, Info, Normalization, Settings, SharedStats};
use super::reader::{Draft, Lies, Reader};
use super::source::Source;
use crate::error::{Error, Result};

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Draft> {
    let (n, d) = (reader.len("latent_bias")?, reader.len("pre_bias")?);
    let encoder = reader.matrix("encoder.weight", n, d, Lies::ByFeature)?;
    let tied = !reader.has("decoder.weight") && reader.has("decoder.linear.weight");
    let decoder = if tied { encoder.clone() } else { reader.matrix("decoder.weight", n, d, Lies::ByPlace)? };
    let activation = activation(reader)?;
    let mut settings = Settings::new(activation);
    if let Activation::TopK { .. } = activation {
        settings.normalization = Normalization::LayerNorm;
    }
    let biases = (reader.vector("latent_bias", n)?, reader.vector("pre_bias", d)?);
    let mut draft = Draft::new((encoder, biases.0), (decoder, biases.1), settings, info(reader.source()));
    if reader.has("latents_activation_frequency") {
        let density = reader.vector("latents_activation_frequency", n)?;
        let unknown = Shared::from(vec![f32::NAN; n]);
        // All ones is how it starts: nobody has counted.
        let counted = density.iter().any(|v| *v != 1.0);
        draft.stats = counted.then(|| SharedStats { density, max: unknown.clone(), mean: unknown });
    }
    Ok(draft)
}

fn activation(reader: &Reader<'_>) -> Result<Activation> {
    let value = |name: &str| reader.tensors().value(name);
    let unsupported = |key: &str, expected: &str, found: &Value| {
        let path = reader.tensors().path().display();
        Error::unsupported(format!("{path}: \"{key}\": expected {expected}, found {found}"))
    };
    match value("activation").map(|v| (v.as_str(), v)) {
        None | Some((Some("ReLU"), _)) => Ok(Activation::Relu),
        Some((Some("TopK"), _)) => {
            let after = "activation_state_dict.postact_fn";
            if let Some(found) = value(after).filter(|v| v.as_str() != Some("ReLU")) {
                return Err(unsupported(after, "\"ReLU\"", found));
            }
            let k = value("activation_state_dict.k").and_then(Value::as_u64).and_then(|k| usize::try_from(k).ok());
            let k =
                k.ok_or_else(|| reader.wrong("\"activation_state_dict.k\": expected an integer from 1, found none"))?;
            Ok(Activation::TopK { k })
        }
        Some((_, found)) => Err(unsupported("activation", "\"ReLU\" or \"TopK\"", found)),
    }
}

/// The file's name is the layer, a directory's the site; all are of GPT-2 small.
fn info(source: &Source) -> Info {
    let named = |part: &str| source.names().any(|name| name.starts_with(part));
    let site = if named("resid_post_attn") {
        "hook_resid_mid"
    } else if named("resid_delta_attn") {
        "hook_attn_out"
    } else if named("resid_delta_mlp") {
        "hook_mlp_out"
    } else if named("mlp_post_act") {
        "mlp.hook_post"
    } else {
        "hook_resid_post"
    };
    let hook = source.stem().parse::<usize>().map(|layer| format!("blocks.{layer}.{site}")).unwrap_or_default();
    let model_name = if named("gpt2-small") { "gpt2-small".to_owned() } else { String::new() };
    Info { name: source.stem().to_owned(), model_name, hook, ..Info::default() }
}
