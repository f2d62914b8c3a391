//! EleutherAI's sparsify: `cfg.json` and `sae.safetensors` in a directory called after the module, `layers.10` or
//! `layers.10.mlp`.
//!
//! TopK or GroupMax after ReLU. Both matrices are feature-major and stay in the map. b_dec is subtracted from the input of
//! autoencoders, whatever `normalize_decoder` says, and of transcoders never; a skip connection reads the input as it came.

use super::super::{Activation, Info, Settings};
use super::config::Config;
use super::reader::{Draft, Lies, Reader};
use super::source::{Source, number_behind};
use crate::error::{Error, Result};

pub(in super::super) const CONFIG: &str = "cfg.json";
pub(in super::super) const WEIGHTS: &str = "sae.safetensors";

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Draft> {
    let source = reader.source();
    let Some(path) = source.beside(CONFIG) else {
        return Err(Error::format(
            source.path(),
            format!("sparsify: expected {CONFIG} beside the weights, found none"),
        ));
    };
    let config = Config::read(&path, &[])?;
    let d_in = config.size("d_in")?;
    let n = n_latents(&config, d_in)?;
    let encoder = reader.matrix("encoder.weight", n, d_in, Lies::ByFeature)?;
    let decoder = reader.matrix("W_dec", n, d_in, Lies::ByFeature)?;
    let k = config.size("k")?;
    let activation = match config.text(&["activation"]).as_str() {
        "" | "topk" => Activation::TopK { k },
        "groupmax" => Activation::GroupMax { k },
        other => return Err(config.unsupported("activation", "topk or groupmax", other)),
    };
    if config.flag("signed", false)? {
        return Err(config.unsupported("signed", "false", "true"));
    }
    let transcodes = config.flag("transcode", false)?;
    let mut settings = Settings::new(activation);
    settings.apply_b_dec_to_input = !transcodes;
    settings.transcodes = transcodes;
    let (encoder_bias, decoder_bias) = (reader.vector("encoder.bias", n)?, reader.vector("b_dec", d_in)?);
    let mut draft = Draft::new((encoder, encoder_bias), (decoder, decoder_bias), settings, info(source, transcodes)?);
    if config.flag("skip_connection", false)? {
        reader.tensors().get("W_skip")?;
        draft.skip = reader.skip("W_skip", d_in, d_in, false)?;
    }
    Ok(draft)
}

/// `num_latents`, or `d_in · expansion_factor` where it is 0 or missing.
fn n_latents(config: &Config, d_in: usize) -> Result<usize> {
    match config.get(&["num_latents"]).and_then(serde_json::Value::as_u64) {
        Some(0) => {}
        None if config.get(&["num_latents"]).is_none() => {}
        _ => return config.size("num_latents"),
    }
    let n = d_in.checked_mul(config.size("expansion_factor")?);
    n.ok_or_else(|| config.wrong("expansion_factor", "an integer that fits d_in"))
}

/// The module stands in the directory's name, the model in the run's configuration above it.
fn info(source: &Source, transcodes: bool) -> Result<Info> {
    let module = source.title();
    let layer = ["layers.", "layers_", "h."].iter().find_map(|mark| number_behind(&module, mark));
    let site = |inside: &str| layer.map(|layer| format!("blocks.{layer}.{inside}")).unwrap_or_default();
    let (hook, hook_out) = match (module.ends_with("mlp"), transcodes) {
        (true, true) => (site("mlp.hook_in"), site("hook_mlp_out")),
        (true, false) => (site("hook_mlp_out"), String::new()),
        (false, true) => (site("hook_resid_pre"), site("hook_resid_post")),
        (false, false) if module.ends_with("embed_tokens") || module == "wte" => {
            ("hook_embed".to_owned(), String::new())
        }
        (false, false) if module.ends_with("attn") || module.ends_with("attention") => {
            (site("hook_attn_out"), String::new())
        }
        (false, false) => (site("hook_resid_post"), String::new()),
    };
    let run = source.above("config.json").map(|path| Config::read(&path, &[])).transpose()?;
    let model_name = run.map(|run| run.text(&["model"])).unwrap_or_default();
    Ok(Info { name: module, model_name, hook, hook_out, ..Info::default() })
}
