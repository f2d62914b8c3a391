//! Qwen-Scope: `layer{n}.sae.pt` with `W_enc` `[d_sae, d_in]` and `W_dec` `[d_in, d_sae]`, SAELens' names the other way
//! round. TopK, b_dec not subtracted.
//!
//! Neither k nor the model is in the files: both stand in the name of the repository,
//! `SAE-Res-Qwen3-1.7B-Base-W32K-L0_50`.

use super::super::{Activation, Info, Settings};
use super::reader::{Draft, Lies, Reader};
use super::source::number_behind;
use crate::error::{Error, Result};

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Draft> {
    let (n, d) = (reader.len("b_enc")?, reader.len("b_dec")?);
    let encoder = reader.matrix("W_enc", n, d, Lies::ByFeature)?;
    let decoder = reader.matrix("W_dec", n, d, Lies::ByPlace)?;
    let source = reader.source();
    let repository = source.names().find(|name| name.contains("SAE-Res-"));
    let k = repository.or(source.names().nth(1)).and_then(|name| number_behind(name, "L0_"));
    let Some(k) = k else {
        let what = "qwen_scope: expected k in the name of the directory, as in SAE-Res-Qwen3-1.7B-Base-W32K-L0_50, \
                    found none: its files do not say k";
        return Err(Error::format(source.path(), what));
    };
    let model = repository.and_then(|name| name.split_once("SAE-Res-")).map(|(_, rest)| rest);
    let model = model.and_then(|rest| rest.rsplit_once("-W")).map_or("", |(model, _)| model);
    let layer = number_behind(source.stem(), "layer");
    let info = Info {
        name: source.stem().trim_end_matches(".sae").to_owned(),
        model_name: model.to_owned(),
        hook: layer.map(|layer| format!("blocks.{layer}.hook_resid_post")).unwrap_or_default(),
        ..Info::default()
    };
    let mut settings = Settings::new(Activation::TopK { k });
    settings.apply_b_dec_to_input = false;
    let biases = (reader.vector("b_enc", n)?, reader.vector("b_dec", d)?);
    Ok(Draft::new((encoder, biases.0), (decoder, biases.1), settings, info))
}
