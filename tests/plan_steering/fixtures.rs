//! Random dictionaries and rows for the tests of plans.

use rand::Rng;
use std::sync::Arc;
use tiller::dictionary::{Activation, Dictionary, FeatureStats, Gate, Info, Normalization, Parts, Settings};
use tiller::num::rng;
use tiller::plan::Row;

pub(crate) const D: usize = 37;
pub(crate) const F: usize = 24;
pub(crate) const LAYER: usize = 3;
pub(crate) const N_LAYER: usize = 6;

pub(crate) fn numbers(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut rng = rng(seed);
    (0..n).map(|_| (rng.random::<f32>() - 0.5) * scale).collect()
}

/// A random dictionary of [`F`] features of width [`D`] at [`LAYER`]; about half of its features fire on [`rows`].
pub(crate) fn parts(activation: Activation) -> Parts {
    let positive = |seed| numbers(seed, F, 1.0).iter().map(|v| v.abs() + 0.1).collect::<Vec<f32>>();
    let stats = positive(7).iter().map(|&mean| FeatureStats { density: 0.1, max: 4.0 * mean, mean }).collect();
    Parts {
        d_model: D,
        encoder: numbers(1, F * D, 1.0),
        decoder: numbers(2, F * D, 1.0),
        encoder_bias: numbers(3, F, 1.0),
        decoder_bias: numbers(4, D, 1.0),
        threshold: matches!(activation, Activation::JumpRelu | Activation::BatchTopK { .. }).then(|| positive(5)),
        gate: (activation == Activation::Gated)
            .then(|| Gate { bias: numbers(6, F, 2.0), log_scale: numbers(8, F, 1.0) }),
        stats: Some(stats),
        settings: Settings::new(activation),
        info: Info { layer: Some(LAYER), ..Info::default() },
    }
}

/// Dictionaries of every kind, with their names.
pub(crate) fn dictionaries() -> Vec<(String, Arc<Dictionary>)> {
    let mut all = Vec::new();
    let activations = [
        Activation::Relu,
        Activation::JumpRelu,
        Activation::Gated,
        Activation::BatchTopK { k: 5 },
        Activation::TopK { k: 5 },
    ];
    for activation in activations {
        all.push((activation.name().to_owned(), parts(activation)));
    }
    let with = |name: &str, change: &dyn Fn(&mut Settings)| {
        let mut parts = parts(Activation::JumpRelu);
        change(&mut parts.settings);
        (name.to_owned(), parts)
    };
    all.push(with("input bias kept", &|s| s.apply_b_dec_to_input = false));
    all.push(with("rescaled", &|s| s.rescale_by_decoder_norm = true));
    all.push(with("centred", &|s| s.center_input = true));
    all.push(with("layer norm", &|s| s.normalization = Normalization::LayerNorm));
    all.push(with("constant norm", &|s| s.normalization = Normalization::ConstantNorm));
    all.push(with("expected average", &|s| s.normalization = Normalization::ExpectedAverage { scale: 0.7 }));
    all.into_iter().map(|(name, parts)| (name, Arc::new(Dictionary::from_parts(parts).unwrap()))).collect()
}

/// A ReLU dictionary.
pub(crate) fn plain() -> Arc<Dictionary> {
    Arc::new(Dictionary::from_parts(parts(Activation::Relu)).unwrap())
}

/// `n` random rows `[n, D]`.
pub(crate) fn rows(seed: u64, n: usize) -> Vec<f32> {
    numbers(1000 + seed, n * D, 3.0)
}

/// `n` rows of one prompt, from position 1 on.
pub(crate) fn prompt(n: usize) -> Vec<Row> {
    (0..n).map(|i| Row::new(1 + i as i32, 0)).collect()
}

/// Euclidean norm.
pub(crate) fn norm(x: &[f32]) -> f32 {
    tiller::num::norm(x)
}

/// ‖a − b‖/‖b‖
pub(crate) fn error(a: &[f32], b: &[f32]) -> f32 {
    let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(b)
}
