//! What the trainer is held against: finite differences of a plain loss in f64.

use super::fit::{Run, State};
use super::frame::Frame;
use super::network::Network;
use super::options::{Objective, Options, Regularizer, Sparsity};
use crate::train::rows::Rows;
use crate::train::start::unit;
use crate::train::weights::Parameter;
use rand::Rng;

const D: usize = 5;
const N: usize = 64;
const BATCH: usize = 6;

fn noise(n: usize, seed: u64, size: f32) -> Vec<f32> {
    let mut rng = crate::num::rng(seed);
    (0..n).map(|_| size * rng.random_range(-1f32..1.0)).collect()
}

fn state(options: &Options) -> State {
    let mut decoder = noise(N * D, 2, 1.0);
    decoder.chunks_mut(D).for_each(unit);
    let affine = options.regularizer.is_affine();
    let gain = if affine { noise(N, 5, 0.3).iter().map(|g| 1.0 + g).collect() } else { vec![1.0; N] };
    let network = Network {
        d: D,
        n: N,
        encoder: Parameter::new(noise(N * D, 1, 1.0)),
        decoder: Parameter::new(decoder),
        encoder_bias: Parameter::new(noise(N, 3, 0.3)),
        decoder_bias: Parameter::new(noise(D, 4, 0.3)),
        gain: Parameter::new(gain),
        shift: Parameter::new(if affine { noise(N, 6, 0.3) } else { vec![0.0; N] }),
        mean: vec![0.0; N],
        variance: vec![1.0; N],
    };
    State { network, frame: Frame { middle: vec![0.0; D], scale: 1.0, limit: f32::INFINITY }, multiplier: 0.7, step: 0 }
}

/// The loss, written down once more as plainly as can be. `values` are W_enc, W_dec, b_enc, b_dec, gain, shift; `keep` says
/// what drops out.
fn loss(values: &[f64], x: &[f32], options: &Options, multiplier: f64, keep: &[f64]) -> f64 {
    let (encoder, rest) = values.split_at(N * D);
    let (decoder, rest) = rest.split_at(N * D);
    let (b_enc, rest) = rest.split_at(N);
    let (b_dec, rest) = rest.split_at(D);
    let (gain, shift) = rest.split_at(N);
    let ssae = matches!(options.objective, Objective::Ssae { .. });
    let standard = |v: &[f64]| -> Vec<f64> {
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let var = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
        v.iter().map(|x| (x - mean) / (var + 1e-5).sqrt()).collect()
    };
    let mut p = Vec::new();
    for row in x.chunks(D) {
        let mut v: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        if ssae {
            v = standard(&v).iter().zip(b_dec).map(|(v, b)| v - b).collect();
        }
        for i in 0..N {
            p.push((0..D).map(|j| encoder[i * D + j] * v[j]).sum::<f64>() + b_enc[i]);
        }
    }
    match options.regularizer {
        Regularizer::LayerNorm => p = p.chunks(N).flat_map(standard).collect(),
        Regularizer::GroupNorm(groups) => p = p.chunks(N / groups).flat_map(standard).collect(),
        Regularizer::BatchNorm => {
            for i in 0..N {
                let column: Vec<f64> = p.iter().skip(i).step_by(N).copied().collect();
                p.iter_mut().skip(i).step_by(N).zip(standard(&column)).for_each(|(p, x)| *p = x);
            }
        }
        Regularizer::Dropout(_) => p.iter_mut().zip(keep).for_each(|(p, k)| *p *= k),
    }
    let z: Vec<f64> = p.iter().enumerate().map(|(i, p)| gain[i % N] * p + shift[i % N]).collect();
    let mut error = 0.0;
    for (row, z) in x.chunks(D).zip(z.chunks(N)) {
        for j in 0..D {
            let out: f64 = (0..N).map(|i| z[i] * decoder[i * D + j]).sum::<f64>() + b_dec[j];
            error += (out - f64::from(row[j])).powi(2);
        }
    }
    let batch = (x.len() / D) as f64;
    match options.objective {
        Objective::Conca { alpha, sparsity } => {
            let g = |z: f64| match sparsity {
                Sparsity::SoftPlus => z.exp().ln_1p(),
                Sparsity::Elu => {
                    if z > 0.0 {
                        z
                    } else {
                        z.exp() - 1.0
                    }
                }
                Sparsity::Selu => 1.050_700_987 * if z > 0.0 { z } else { 1.673_263_242 * (z.exp() - 1.0) },
            };
            error / batch + f64::from(alpha) * z.iter().map(|&z| g(z).abs()).sum::<f64>() / batch
        }
        Objective::Ssae { level, .. } => {
            let mean = z.iter().map(|z| z.abs()).sum::<f64>() / z.len() as f64;
            error / (batch * D as f64) + multiplier * mean / f64::from(level)
        }
    }
}

/// What drops out in the first batch, found by coding with weights that show it.
fn kept(rows: &Rows<'_>, options: &Options) -> Vec<f64> {
    let Regularizer::Dropout(share) = options.regularizer else { return vec![1.0; BATCH * N] };
    let mut ones = vec![1f32; rows.len() * N];
    super::normalizer::forward(options.regularizer, &mut ones, N, options.seed, 0, 1);
    assert!(ones.iter().all(|&v| v == 0.0 || (v - 1.0 / (1.0 - share)).abs() < 1e-6));
    let dropped = ones.iter().filter(|&&v| v == 0.0).count() as f32 / ones.len() as f32;
    assert!((dropped - share).abs() < 0.1, "{dropped} of {share}");
    ones.iter().map(|&v| f64::from(v)).collect()
}

/// Every gradient of every variant against central differences. Tolerance: normalised error 1e-3 of each parameter.
#[test]
fn gradients_agree_with_finite_differences() {
    let data = noise(BATCH * D, 9, 2.0);
    let rows = Rows::from_slice(D, &data).unwrap();
    let regularizers = [
        Regularizer::LayerNorm,
        Regularizer::GroupNorm(4),
        Regularizer::GroupNorm(8),
        Regularizer::GroupNorm(16),
        Regularizer::GroupNorm(32),
        Regularizer::BatchNorm,
        Regularizer::Dropout(0.3),
    ];
    let mut objectives: Vec<Objective> = [Sparsity::SoftPlus, Sparsity::Selu, Sparsity::Elu]
        .map(|sparsity| Objective::Conca { alpha: 0.05, sparsity })
        .to_vec();
    objectives.push(Objective::Ssae { level: 0.3, dual_rate: 0.0 });
    for regularizer in regularizers {
        for &objective in &objectives {
            let plain = Options { objective, regularizer, n_latents: N, batch: BATCH, steps: 1, ..Options::conca() };
            let options = Options { beta1: 0.0, warm_up: 0, scale_rows: false, threads: 2, ..plain };
            let mut run = Run::with_state(&rows, options.clone(), state(&options));
            let network = &run.state.network;
            let parts = [&network.encoder, &network.decoder, &network.encoder_bias, &network.decoder_bias];
            let parts = parts.into_iter().chain([&network.gain, &network.shift]);
            let values: Vec<f64> = parts.flat_map(|p| &p.values).map(|&v| f64::from(v)).collect();
            run.differentiate().unwrap();
            // The batch is the rows in the order of the first pass.
            let order = crate::train::rows::order(BATCH, options.seed, 0);
            let x: Vec<f32> =
                order.iter().flat_map(|&i| &data[i as usize * D..(i as usize + 1) * D]).copied().collect();
            let keep = kept(&rows, &options);
            let at = |i: usize, by: f64| {
                let mut moved = values.clone();
                moved[i] += by;
                loss(&moved, &x, &options, 0.7, &keep)
            };
            let want: Vec<f64> = (0..values.len()).map(|i| (at(i, 1e-5) - at(i, -1e-5)) / 2e-5).collect();
            let g = &run.buffers.gradients;
            let parts = [&g.encoder, &g.decoder, &g.encoder_bias, &g.decoder_bias, &g.gain, &g.shift];
            let mut want = &want[..];
            for (part, name) in parts.iter().zip(["W_enc", "W_dec", "b_enc", "b_dec", "gain", "shift"]) {
                let (these, rest) = want.split_at(part.len());
                want = rest;
                if !regularizer.is_affine() && ["gain", "shift"].contains(&name) {
                    continue;
                }
                let off: f64 = these.iter().zip(*part).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum();
                let size: f64 = these.iter().map(|a| a * a).sum();
                // A BatchNorm takes the encoder's bias away again: its gradient is zero, up to rounding.
                if name == "b_enc" && regularizer == Regularizer::BatchNorm {
                    assert!(off.sqrt() < 1e-4, "{regularizer:?} {objective:?} {name}: {off}");
                    continue;
                }
                let error = (off / size).sqrt();
                assert!(
                    size > 0.0 && error <= 1e-3,
                    "{regularizer:?} {objective:?} {name}: {error} of {}",
                    size.sqrt()
                );
            }
        }
    }
}
