//! Goodfire: two linear layers in one pickle, `Llama-3.1-8B-Instruct-SAE-l19.pth`. ReLU, b_dec not subtracted; model and
//! layer stand in the file's name.

use super::super::{Activation, Info, Settings};
use super::reader::{Draft, Lies, Reader};
use super::source::number_behind;
use crate::error::Result;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Draft> {
    let (n, d) = (reader.len("encoder_linear.bias")?, reader.len("decoder_linear.bias")?);
    let encoder = reader.matrix("encoder_linear.weight", n, d, Lies::ByFeature)?;
    let decoder = reader.matrix("decoder_linear.weight", n, d, Lies::ByPlace)?;
    let stem = reader.source().stem();
    let (model, layer) = stem.split_once("-SAE-").map_or(("", None), |(model, rest)| (model, number_behind(rest, "l")));
    let info = Info {
        name: stem.to_owned(),
        model_name: model.to_owned(),
        hook: layer.map(|layer| format!("blocks.{layer}.hook_resid_post")).unwrap_or_default(),
        ..Info::default()
    };
    let mut settings = Settings::new(Activation::Relu);
    settings.apply_b_dec_to_input = false;
    let biases = (reader.vector("encoder_linear.bias", n)?, reader.vector("decoder_linear.bias", d)?);
    Ok(Draft::new((encoder, biases.0), (decoder, biases.1), settings, info))
}
