//! Learned features as a dictionary, and as plans.

use std::sync::Arc;

use crate::dictionary::{Activation, Dictionary, FeatureStats, Form, Info, Learned, Parts, Settings};
use crate::engine::Engine;
use crate::error::Result;
use crate::plan::{Compiled, ControlVector, Plan, Route, Rule};
use crate::train::learn::Feature;

/// Features as a dictionary of several layers.
pub(super) fn dictionary(features: &[Feature], info: Info) -> Result<Dictionary> {
    let d_model = features.first().map_or(0, |f| f.decoder.len());
    let stats = features.iter().map(|f| FeatureStats { density: f.density, max: f.max, mean: f.mean });
    Dictionary::from_parts(Parts {
        d_model,
        encoder: features.iter().flat_map(|f| f.encoder.iter().copied()).collect(),
        decoder: features.iter().flat_map(|f| f.decoder.iter().copied()).collect(),
        encoder_bias: features.iter().map(|f| f.bias).collect(),
        decoder_bias: vec![0.0; d_model],
        threshold: None,
        gate: None,
        stats: Some(stats.collect()),
        settings: Settings { apply_b_dec_to_input: false, ..Settings::new(Activation::Relu) },
        info: Info { layers: features.iter().map(|f| f.layer).collect(), ..info },
    })
}

/// The plan that uses them in a form with a strength.
pub(super) fn compile(
    engine: &Engine,
    dictionary: &Arc<Dictionary>,
    form: Form,
    strength: f32,
) -> Result<Arc<Compiled>> {
    let learned = Learned { form, strength, ..Learned::default() };
    let plan = Plan::new([Rule::learned(&learned, 1.0)]);
    Ok(Arc::new(plan.compile(&[("learned", dictionary.clone())], &engine.target(), Route::Auto)?))
}

/// The constant form of features as llama.cpp's control vector.
pub(super) fn control_vector(features: &[Feature], strength: f32) -> Result<ControlVector> {
    let mut vector = ControlVector::new(features.first().map_or(0, |f| f.decoder.len()));
    for feature in features {
        let row: Vec<f32> = feature.constant().iter().map(|v| v * strength).collect();
        vector.add(feature.layer, &row)?;
    }
    Ok(vector)
}
