//! Gemma Scope: JumpReLU dictionaries of Gemma 2 (`params.npz`) and Gemma 3 (`params.safetensors`, `config.json`).
//!
//! The first writes nothing but arrays: layer, site, width and mean L0 stand in the names of its directories
//! (`gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`). Neither subtracts b_dec from the input. Dictionaries of the
//! embedding were trained on rows divided by √d. A decoder of three dimensions is a cross-layer transcoder's: its rows here
//! are sums over the layers that it writes to, good for saying what a feature means.

use super::super::matrix::{Matrix, Shared, Values};
use super::super::{Activation, Info, Normalization, Settings};
use super::config::Config;
use super::reader::{Draft, Lies, Reader};
use super::source::{Source, number_behind};
use crate::error::Result;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Draft> {
    let source = reader.source();
    let config = source.beside("config.json").map(|path| Config::read(&path, &[])).transpose()?;
    if let Some(config) = &config {
        let architecture = config.text(&["architecture"]);
        if !matches!(architecture.as_str(), "" | "jump_relu" | "jumprelu") {
            return Err(config.unsupported("architecture", "jump_relu", &architecture));
        }
    }
    let [w_enc, w_dec] = [&["w_enc", "W_enc"], &["w_dec", "W_dec"]].map(|names| reader.first(names));
    let (n, d_out) = (reader.len("b_enc")?, reader.len("b_dec")?);
    let mut info = info(source, config.as_ref());
    let transcodes = !info.hook_out.is_empty();
    let d_in = if transcodes { other_side(reader, w_enc, n)? } else { d_out };
    let encoder = reader.matrix(w_enc, n, d_in, Lies::ByPlace)?;
    let decoder = match reader.tensors().get(w_dec)?.shape() {
        [_, layers, _] => {
            reader.note(format!(
                "a cross-layer transcoder: its decoder rows are sums over the {layers} layers that it writes to"
            ));
            info.hook_out = "several layers".to_owned();
            sum_of_layers(reader, w_dec, n, d_out)?
        }
        _ => reader.matrix(w_dec, n, d_out, Lies::ByFeature)?,
    };
    let mut settings = Settings::new(Activation::JumpRelu);
    settings.apply_b_dec_to_input = false;
    settings.transcodes = transcodes;
    let mut decoder_bias = reader.vector("b_dec", d_out)?;
    if info.hook == "hook_embed" {
        // x/√d in, everything but b_dec times √d out: b_dec is brought to the units of the input.
        let root = (d_in as f32).sqrt();
        settings.normalization = Normalization::ExpectedAverage { scale: 1.0 / root };
        decoder_bias = decoder_bias.iter().map(|v| v / root).collect::<Vec<_>>().into();
    }
    if info.hook.is_empty() {
        reader.note("neither a configuration nor the names of directories say which site it reads");
    }
    let encoder_bias = reader.vector("b_enc", n)?;
    let mut draft = Draft::new((encoder, encoder_bias), (decoder, decoder_bias), settings, info);
    draft.threshold = Some(reader.thresholds("threshold", n)?);
    draft.skip = reader.skip("affine_skip_connection", d_out, d_in, true)?;
    Ok(draft)
}

/// The dimension of `name` that is not `n`.
pub(super) fn other_side(reader: &Reader<'_>, name: &str, n: usize) -> Result<usize> {
    match *reader.tensors().get(name)?.shape() {
        [rows, columns] if columns == n && rows > 0 => Ok(rows),
        [rows, columns] if rows == n && columns > 0 => Ok(columns),
        ref shape => Err(reader
            .wrong(format!("tensor \"{name}\": expected two dimensions, {n} features among them, found {shape:?}"))),
    }
}

/// Sums over the middle dimension of `name` `[n_features, n_layers, width]`.
pub(super) fn sum_of_layers(reader: &Reader<'_>, name: &str, n: usize, width: usize) -> Result<Matrix> {
    let view = reader.tensors().get(name)?;
    let &[rows, layers, columns] = view.shape() else {
        return Err(reader.wrong(format!("tensor \"{name}\": expected three dimensions, found {:?}", view.shape())));
    };
    if rows != n || columns != width {
        let found = view.shape();
        return Err(reader.wrong(format!("tensor \"{name}\": expected [{n}, layers, {width}], found {found:?}")));
    }
    let all = view.to_f32()?;
    let mut sums = vec![0f32; n * width];
    for (sum, rows) in sums.chunks_exact_mut(width).zip(all.chunks_exact((layers * width).max(1))) {
        rows.chunks_exact(width).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, v)| *s += v));
    }
    let sums: Shared<f32> = sums.into();
    Matrix::new(Values::F32(sums), n, width).ok_or_else(|| reader.wrong(format!("tensor \"{name}\": no whole rows")))
}

/// What configuration and names of directories say.
fn info(source: &Source, config: Option<&Config>) -> Info {
    let named = |part: &str| source.names().any(|name| name.contains(part));
    let layer = source.number_behind("layer_");
    let point = |key: &str| config.map(|c| c.text(&[key])).unwrap_or_default();
    let hugging_face = |point: &str| {
        let layer = number_behind(point, "layers.")?;
        let site = match point.trim_start_matches(|c: char| c != '.').split_once(&format!("{layer}.")).map(|s| s.1) {
            Some("output") => "hook_resid_post",
            Some("self_attn.o_proj.input") => "attn.hook_z",
            Some("post_feedforward_layernorm.output") => "hook_mlp_out",
            Some("pre_feedforward_layernorm.output") => "hook_mlp_in",
            _ => return None,
        };
        Some(format!("blocks.{layer}.{site}"))
    };
    let at = |site: &str| layer.map(|layer| format!("blocks.{layer}.{site}"));
    let repository = source.names().find(|name| name.contains("gemma-scope"));
    let transcoder = named("transcoder") || named("clt");
    let ends = |part: &str| repository.is_some_and(|r| r.ends_with(part));
    let by_name = if named("embedding") {
        Some("hook_embed".to_owned())
    } else if transcoder {
        at(if repository.is_some_and(|r| r.contains("gemma-scope-2-")) { "hook_mlp_in" } else { "ln2.hook_normalized" })
    } else if named("resid_post") || ends("-res") {
        at("hook_resid_post")
    } else if named("attn_out") || ends("-att") {
        at("attn.hook_z")
    } else if named("mlp_out") || ends("-mlp") {
        at("hook_mlp_out")
    } else {
        // What nearly all of them are; a directory without its repository says no more.
        at("hook_resid_post").filter(|_| repository.is_none())
    };
    let hook = hugging_face(&point("hf_hook_point_in")).or(by_name).unwrap_or_default();
    let (hf_in, hf_out) = (point("hf_hook_point_in"), point("hf_hook_point_out"));
    let written =
        hugging_face(&hf_out).filter(|_| hf_in != hf_out).or_else(|| at("hook_mlp_out").filter(|_| transcoder));
    let stated = config.and_then(|c| c.get(&["l0"])).and_then(serde_json::Value::as_f64);
    let by_name = source.number_behind("average_l0_");
    let l0 = stated.filter(|l0| (0.5..1e6).contains(l0)).map(|l0| l0.round() as u32);
    Info {
        name: name(source),
        model_name: model(repository, config),
        hook,
        hook_out: written.unwrap_or_default(),
        l0: l0.or_else(|| by_name.and_then(|l0| u32::try_from(l0).ok())),
        ..Info::default()
    }
}

/// `layer_20/width_16k/average_l0_71`: the directories under the repository.
fn name(source: &Source) -> String {
    let mut names: Vec<&str> =
        source.names().skip(1).take_while(|name| !name.contains("gemma-scope")).take(3).collect();
    names.retain(|name| {
        name.contains("layer_") || name.contains("width_") || name.contains("l0_") || *name == "embedding"
    });
    names.reverse();
    names.join("/")
}

fn model(repository: Option<&str>, config: Option<&Config>) -> String {
    let stated = config.map(|c| c.text(&["model_name"])).unwrap_or_default();
    if !stated.is_empty() {
        return stated.rsplit('/').next().unwrap_or_default().replace("-v3", "-3");
    }
    let of = |repository: &str| {
        let (_, rest) = repository.split_once("gemma-scope-")?;
        let (generation, rest) = rest.strip_prefix("2-").map_or(("gemma-2", rest), |rest| ("gemma-3", rest));
        let mut parts = rest.split('-');
        let (size, kind) = (parts.next()?, parts.next()?);
        Some(if kind == "it" { format!("{generation}-{size}-it") } else { format!("{generation}-{size}") })
    };
    repository.and_then(of).unwrap_or_default()
}
