//! What the trainer is held against: finite differences of a plain loss, and ten steps of PyTorch.

use super::fit::Run;
use super::options::{Options, Variant};
use super::reconstruct::Codes;
use super::rows::Rows;
use super::schedule::Decay;
use super::start::unit;
use super::weights::{Parameter, State};

/// `n` numbers in [−1, 1): the same formula as in `tests/data/train_reference.py`.
fn noise(n: usize, salt: u64) -> Vec<f32> {
    let low = |x: u64| x & 0xffff_ffff;
    let one = |i: u64| {
        let x = low((i + 1).wrapping_mul(2_654_435_761).wrapping_add(salt * 40_503));
        let x = low((x ^ (x >> 15)).wrapping_mul(2_246_822_519));
        let x = low((x ^ (x >> 13)).wrapping_mul(3_266_489_917));
        ((x ^ (x >> 16)) as f64 / 2f64.powi(31) - 1.0) as f32
    };
    (0..n as u64).map(one).collect()
}

fn state(d: usize, n: usize) -> State {
    let mut decoder = noise(n * d, 2);
    decoder.chunks_mut(d).for_each(unit);
    let tenth = |n, salt| noise(n, salt).iter().map(|x| 0.1 * x).collect();
    State {
        d,
        n,
        encoder: Parameter::new(decoder.clone()),
        decoder: Parameter::new(decoder),
        encoder_bias: Parameter::new(tenth(n, 3)),
        decoder_bias: Parameter::new(tenth(d, 4)),
        idle: vec![0; n],
        scale: 1.0,
        limit: f32::INFINITY,
        mean: vec![0.0; d],
        step: 0,
    }
}

fn options(variant: Variant, k: usize, batch: usize) -> Options {
    let (n_features, lr, decay) = (64, 1e-2, Decay::None);
    let plain = Options { variant, n_features, k, batch, lr, decay, epochs: 1, warm_up: 0, ..Options::default() };
    Options { threads: 2, aux_k: 0, ..plain }
}

/// Losses of ten steps from the same start, each within 1e-4 of PyTorch's in float64.
#[test]
fn ten_steps_agree_with_pytorch() {
    let golden: std::collections::HashMap<String, Vec<f64>> =
        serde_json::from_str(include_str!("../../tests/data/train_reference.json")).unwrap();
    let (d, n, k, batch, steps) = (24, 64, 4, 32, 10);
    let data = noise(steps * batch * d, 1);
    let rows = Rows::from_slice(d, &data).unwrap();
    for (variant, name) in [(Variant::TopK, "topk"), (Variant::BatchTopK, "batchtopk")] {
        let mut run = Run::with_state(&rows, options(variant, k, batch), state(d, n));
        (run.epoch, run.order) = (Some(0), (0..rows.len() as u32).collect());
        for (step, want) in golden[name].iter().enumerate() {
            let loss = run.step().unwrap().loss;
            assert!((loss / want - 1.0).abs() <= 1e-4, "{name} step {step}: {loss}, PyTorch {want}");
        }
    }
}

/// The parameters in f64: W_enc, W_dec, b_enc, b_dec, one after the other.
struct Plain {
    d: usize,
    n: usize,
    values: Vec<f64>,
}

impl Plain {
    fn of(state: &State) -> Self {
        let all = [&state.encoder, &state.decoder, &state.encoder_bias, &state.decoder_bias];
        let values = all.iter().flat_map(|p| &p.values).map(|&x| f64::from(x)).collect();
        Self { d: state.d, n: state.n, values }
    }

    /// Σ_i z_i W_dec[i] of the selected features, for the row `y`.
    fn rebuild(&self, y: &[f32], features: &[u32]) -> Vec<f64> {
        let (size, d) = (self.n * self.d, self.d);
        let (encoder, decoder) = (&self.values[..size], &self.values[size..2 * size]);
        let (b_enc, b_dec) = self.values[2 * size..].split_at(self.n);
        let mut out = vec![0.0; d];
        for &f in features {
            let f = f as usize;
            let score: f64 = (0..d).map(|j| encoder[f * d + j] * (f64::from(y[j]) - b_dec[j])).sum::<f64>() + b_enc[f];
            (0..d).for_each(|j| out[j] += score.max(0.0) * decoder[f * d + j]);
        }
        out
    }

    /// What the main features leave of a row.
    fn error(&self, y: &[f32], features: &[u32]) -> Vec<f64> {
        let b_dec = &self.values[2 * self.n * self.d + self.n..];
        let out = self.rebuild(y, features);
        (0..self.d).map(|j| f64::from(y[j]) - b_dec[j] - out[j]).collect()
    }
}

fn features(codes: &Codes, r: usize) -> &[u32] {
    &codes.features[codes.offsets[r]..codes.offsets[r + 1]]
}

/// Every gradient, of live and of dead features, against central differences of the plain loss with the same selection.
/// Tolerance: normalised error 1e-3, of each parameter's whole gradient.
#[test]
fn gradients_agree_with_finite_differences() {
    let (d, n, k, batch) = (11, 64, 4, 18);
    let data: Vec<f32> = noise(batch * d, 5).iter().map(|x| 3.0 * x).collect();
    let rows = Rows::from_slice(d, &data).unwrap();
    for variant in [Variant::TopK, Variant::BatchTopK] {
        let mut start = state(d, n);
        (0..n).step_by(3).for_each(|f| start.idle[f] = 1000);
        let plain = Plain::of(&start);
        // With β1 = 0 Adam's first moment is the gradient.
        let options = Options { beta1: 0.0, aux_k: 3, aux_weight: 0.5, dead_after: 1000, ..options(variant, k, batch) };
        let mut run = Run::with_state(&rows, options, start);
        (run.epoch, run.order) = (Some(0), (0..batch as u32).collect());
        run.step().unwrap();
        let (main, aux) = run.batch.both_codes();
        assert_eq!(main.features.len(), k * batch);
        assert_eq!(aux.features.len(), 3 * batch);

        let row = |r: usize| &data[r * d..(r + 1) * d];
        let left: Vec<Vec<f64>> = (0..batch).map(|r| plain.error(row(r), features(main, r))).collect();
        let loss = |p: &Plain| -> f64 {
            let square = |error: Vec<f64>| error.iter().map(|e| e * e).sum::<f64>();
            let one = |r: usize| {
                let aux = p.rebuild(row(r), features(aux, r));
                let aux = aux.iter().zip(&left[r]).map(|(a, e)| a - e).collect();
                square(p.error(row(r), features(main, r))) + 0.5 * square(aux)
            };
            (0..batch).map(one).sum::<f64>() / batch as f64
        };
        let slope = |i: usize| {
            let at = |delta: f64| {
                let mut values = plain.values.clone();
                values[i] += delta;
                loss(&Plain { d, n, values })
            };
            (at(1e-5) - at(-1e-5)) / 2e-5
        };
        let mut want: Vec<f64> = (0..plain.values.len()).map(slope).collect();
        // The decoder's gradient is projected.
        for f in 0..n {
            let at = n * d + f * d..n * d + (f + 1) * d;
            let along: f64 = want[at.clone()].iter().zip(&plain.values[at.clone()]).map(|(g, w)| g * w).sum();
            want[at.clone()].iter_mut().zip(&plain.values[at]).for_each(|(g, w)| *g -= along * w);
        }
        let state = &run.state;
        let parts = [&state.encoder, &state.decoder, &state.encoder_bias, &state.decoder_bias];
        let mut want = &want[..];
        for (part, name) in parts.iter().zip(["W_enc", "W_dec", "b_enc", "b_dec"]) {
            let (these, rest) = want.split_at(part.values.len());
            want = rest;
            let got = &part.moments.first;
            let off: f64 = these.iter().zip(got).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum();
            let size: f64 = these.iter().map(|a| a * a).sum();
            assert!(size > 0.0 && (off / size).sqrt() <= 1e-3, "{variant:?} {name}: {off} of {size}");
        }
    }
}
