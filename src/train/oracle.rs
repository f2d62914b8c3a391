//! What the trainer is held against: finite differences of a plain loss, and ten steps of PyTorch.

use super::codes::Codes;
use super::fit::Run;
use super::options::Options;
use super::rows::Rows;
use super::schedule::Decay;
use super::sparsity::{Pressure, Sparsity};
use super::start::unit;
use super::variant::Variant;
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

fn state(d: usize, options: &Options) -> State {
    let n = options.n_features;
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
        extras: super::start::extras(options),
        pressure: Pressure::new(options),
        idle: vec![0; n],
        scale: 1.0,
        limit: f32::INFINITY,
        mean: vec![0.0; d],
        step: 0,
    }
}

fn options(variant: Variant, k: usize, batch: usize) -> Options {
    let (n_features, lr, decay) = (64, 1e-2, Decay::None);
    let plain = Options { variant, n_features, k, batch, lr, decay, epochs: 1, warm_up: 0, ..Options::of(variant) };
    Options { threads: 2, aux_k: 0, sparsity_warm_up: 0, sparsity: Sparsity::Fixed(0.3), beta1: 0.9, ..plain }
}

fn run<'a>(rows: &'a Rows<'a>, options: Options, state: State) -> Run<'a> {
    let split = rows.split(0.0, 0).unwrap();
    let mut run = Run::with_state(rows, options, split, state);
    (run.epoch, run.order) = (Some(0), (0..rows.len() as u32).collect());
    run
}

/// What the peer computes on rows of `salt`.
#[derive(serde::Deserialize)]
struct Reference {
    salt: u64,
    losses: Vec<f64>,
}

/// Objectives of ten steps from the same start, each within 1e-4 of what the peer's own code computes in float64, on rows
/// that leave no score of JumpReLU where rounding decides.
#[test]
fn ten_steps_agree_with_pytorch() {
    let golden: std::collections::HashMap<String, Reference> =
        serde_json::from_str(include_str!("../../tests/data/train_reference.json")).unwrap();
    let (d, k, batch, steps) = (24, 4, 32, 10);
    let of = |variant| options(variant, k, batch);
    let jump = Options { threshold: 0.3, bandwidth: 0.2, ..of(Variant::JumpRelu) };
    let anneal = Options { anneal: (0.2, 0.8), anneal_updates: 3, p_end: 0.4, ..of(Variant::PAnneal) };
    let nested = Options { prefixes: vec![8, 24], ..of(Variant::Matryoshka) };
    let cases = [
        ("topk", of(Variant::TopK)),
        ("batchtopk", of(Variant::BatchTopK)),
        ("relu, unit decoder", of(Variant::Relu)),
        ("relu, free decoder", Options { unit_decoder: false, clip: 1.0, ..of(Variant::Relu) }),
        ("gated", Options { beta1: 0.0, ..of(Variant::Gated) }),
        ("jumprelu", Options { unit_decoder: false, ..jump.clone() }),
        ("jumprelu, bias kept", Options { unit_decoder: false, subtract_bias: false, ..jump }),
        ("matryoshka", Options { unit_decoder: false, ..nested }),
        ("panneal", anneal),
    ];
    assert_eq!(golden.len(), cases.len());
    let mut wrong = Vec::new();
    for (name, options) in cases {
        let Reference { salt, losses } = &golden[name];
        let data = noise(steps * batch * d, *salt);
        let rows = Rows::from_slice(d, &data).unwrap();
        let state = state(d, &options);
        let mut run = run(&rows, options, state);
        for (step, want) in losses.iter().enumerate() {
            let metrics = run.step().unwrap();
            let loss = metrics.loss + metrics.penalty;
            if (loss / want - 1.0).abs() > 1e-4 {
                wrong.push(format!("{name} step {step}: {loss}, PyTorch {want}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The parameters in f64: W_enc, W_dec, b_enc, b_dec, the extras, one after the other.
#[derive(Clone)]
struct Plain {
    d: usize,
    n: usize,
    values: Vec<f64>,
}

impl Plain {
    fn of(state: &State) -> Self {
        let all = [&state.encoder, &state.decoder, &state.encoder_bias, &state.decoder_bias];
        let all = all.into_iter().chain(&state.extras);
        let values = all.flat_map(|p| &p.values).map(|&x| f64::from(x)).collect();
        Self { d: state.d, n: state.n, values }
    }

    fn encoder(&self, f: usize) -> &[f64] {
        &self.values[f * self.d..(f + 1) * self.d]
    }

    fn decoder(&self, f: usize) -> &[f64] {
        &self.values[(self.n + f) * self.d..(self.n + f + 1) * self.d]
    }

    fn bias(&self, f: usize) -> f64 {
        self.values[2 * self.n * self.d + f]
    }

    fn decoder_bias(&self) -> &[f64] {
        let at = 2 * self.n * self.d + self.n;
        &self.values[at..at + self.d]
    }

    fn extra(&self, i: usize, f: usize) -> f64 {
        self.values[2 * self.n * self.d + self.n + self.d + i * self.n + f]
    }

    /// ⟨W_enc[f], y − b_dec⟩, or ⟨W_enc[f], y⟩.
    fn product(&self, options: &Options, y: &[f32], f: usize) -> f64 {
        let subtract = if options.subtract_bias { 1.0 } else { 0.0 };
        let bias = self.decoder_bias();
        (0..self.d).map(|j| self.encoder(f)[j] * (f64::from(y[j]) - subtract * bias[j])).sum()
    }

    /// ‖y − b_dec − Σ codes · W_dec‖².
    fn error(&self, y: &[f32], codes: impl Iterator<Item = (usize, f64)>) -> f64 {
        let mut left: Vec<f64> = (0..self.d).map(|j| f64::from(y[j]) - self.decoder_bias()[j]).collect();
        for (f, code) in codes {
            left.iter_mut().zip(self.decoder(f)).for_each(|(x, w)| *x -= code * w);
        }
        left.iter().map(|x| x * x).sum()
    }

    /// The objective on the row `y` as the module docs of the variants state it, in which `start` stays what it is:
    /// selections, open gates, frozen copies.
    fn objective(&self, start: &Self, options: &Options, weight: f64, y: &[f32], features: &[usize]) -> f64 {
        let score = |p: &Self, f: usize| p.product(options, y, f) + p.bias(f);
        let kept = || features.iter().map(|&f| (f, score(self, f).max(0.0)));
        match options.variant {
            Variant::TopK | Variant::BatchTopK => self.error(y, kept()),
            Variant::Matryoshka => {
                let ends = options.levels();
                ends.iter().map(|&end| self.error(y, kept().filter(|&(f, _)| f < end as usize))).sum()
            }
            Variant::Relu => {
                let norm = |f: usize| self.decoder(f).iter().map(|w| w * w).sum::<f64>().sqrt();
                let norm = |f: usize| if options.unit_decoder { 1.0 } else { norm(f) };
                self.error(y, kept()) + weight * kept().map(|(f, code)| code * norm(f)).sum::<f64>()
            }
            Variant::PAnneal => self.error(y, kept()) + weight * kept().map(|(_, code)| code).sum::<f64>(),
            Variant::JumpRelu => {
                let threshold =
                    |p: &Self, f: usize| if options.log_threshold { p.extra(0, f).exp() } else { p.extra(0, f) };
                let width = f64::from(options.bandwidth);
                // The step, smeared over the rectangle, as a function of the threshold alone.
                let smeared = |p: &Self, f: usize| ((score(start, f) - threshold(p, f)) / width + 0.5).clamp(0.0, 1.0);
                let moved = |f: usize| smeared(self, f) - smeared(start, f);
                let active = |f: usize| f64::from(u8::from(score(start, f) > threshold(start, f)));
                let code = |f: usize| active(f) * score(self, f) + threshold(start, f) * moved(f);
                let l0: f64 = features.iter().map(|&f| active(f) + moved(f)).sum();
                self.error(y, features.iter().map(|&f| (f, code(f)))) + weight * l0
            }
            Variant::Gated => {
                let magnitude = |f: usize| self.extra(1, f).exp() * self.product(options, y, f) + self.extra(0, f);
                let gates = features.iter().map(|&f| (f, score(self, f)));
                self.error(y, features.iter().map(|&f| (f, magnitude(f).max(0.0))))
                    + weight * gates.clone().map(|(_, gate)| gate).sum::<f64>()
                    + start.error(y, gates)
            }
        }
    }
}

fn features(codes: &Codes, r: usize) -> Vec<usize> {
    codes.features[codes.offsets[r]..codes.offsets[r + 1]].iter().map(|&f| f as usize).collect()
}

/// Every gradient, of live and of dead features, against central differences of the plain objective with the same
/// selection. Tolerance: normalised error 1e-3, of each parameter's whole gradient.
#[test]
fn gradients_agree_with_finite_differences() {
    let (d, k, batch) = (11, 4, 18);
    let data: Vec<f32> = noise(batch * d, 5).iter().map(|x| 3.0 * x).collect();
    let rows = Rows::from_slice(d, &data).unwrap();
    let of = |variant| options(variant, k, batch);
    let jump = Options { threshold: 0.7, bandwidth: 0.5, ..of(Variant::JumpRelu) };
    let aux = |options: Options| Options { aux_k: 3, aux_weight: 0.5, dead_after: 1000, ..options };
    let cases = [
        aux(of(Variant::TopK)),
        aux(of(Variant::BatchTopK)),
        aux(Options { prefixes: vec![5, 30], ..of(Variant::Matryoshka) }),
        Options { unit_decoder: false, subtract_bias: false, ..of(Variant::BatchTopK) },
        aux(of(Variant::Relu)),
        Options { unit_decoder: false, ..of(Variant::Relu) },
        of(Variant::PAnneal),
        aux(jump.clone()),
        Options { unit_decoder: false, subtract_bias: false, ..jump.clone() },
        Options { log_threshold: true, ..jump },
        aux(of(Variant::Gated)),
        Options { subtract_bias: false, ..of(Variant::Gated) },
    ];
    for options in cases {
        // With β1 = 0 Adam's first moment is the gradient.
        let options = Options { beta1: 0.0, ..options };
        let mut start = state(d, &options);
        for (i, extra) in start.extras.iter_mut().enumerate() {
            extra.values.iter_mut().zip(noise(64, 6 + i as u64)).for_each(|(x, noise)| *x += 0.2 * noise);
        }
        (0..64).step_by(3).for_each(|f| start.idle[f] = 1000);
        check_gradients(&rows, &data, options, start);
    }
}

fn check_gradients(rows: &Rows<'_>, data: &[f32], options: Options, start: State) {
    let (d, n, batch, name) = (start.d, start.n, options.batch, options.recipe());
    let plain = Plain::of(&start);
    let weight = start.pressure.weight(&options, 0, 1);
    let mut run = run(rows, options.clone(), start);
    let metrics = run.step().unwrap();
    let (main, aux) = run.batch.both_codes();
    let row = |r: usize| &data[r * d..(r + 1) * d];
    let chosen: Vec<Vec<usize>> = (0..batch).map(|r| features(main, r)).collect();
    assert!(chosen.iter().flatten().count() > batch, "{name}");
    let objective = |p: &Plain| {
        let one = |r: usize| p.objective(&plain, &options, weight, row(r), &chosen[r]);
        (0..batch).map(one).sum::<f64>() / batch as f64
    };
    let want = objective(&plain);
    let got = metrics.loss + metrics.penalty;
    assert!((got / want - 1.0).abs() < 1e-4, "{name}: objective {got}, expected {want}");

    // Dead features rebuild what the others leave over, which is fixed.
    let helpers: Vec<Vec<usize>> =
        (0..batch).map(|r| if options.aux_k > 0 { features(aux, r) } else { Vec::new() }).collect();
    assert!(options.aux_k == 0 || helpers.iter().all(|row| row.len() == options.aux_k), "{name}");
    let left: Vec<Vec<f64>> = (0..batch).map(|r| run.batch.left_over(r)).collect();
    let loss = |p: &Plain| {
        let square = |r: usize| -> f64 {
            let mut left = left[r].clone();
            for &f in &helpers[r] {
                let code = (p.product(&options, row(r), f) + p.bias(f)).max(0.0);
                left.iter_mut().zip(p.decoder(f)).for_each(|(x, w)| *x -= code * w);
            }
            left.iter().map(|x| x * x).sum()
        };
        let aux = if options.aux_k == 0 { 0.0 } else { (0..batch).map(square).sum::<f64>() / batch as f64 };
        objective(p) + f64::from(options.aux_weight) * aux
    };
    let slope = |i: usize| {
        let at = |delta: f64| {
            let mut moved = plain.clone();
            moved.values[i] += delta;
            loss(&moved)
        };
        (at(1e-5) - at(-1e-5)) / 2e-5
    };
    let mut want: Vec<f64> = (0..plain.values.len()).map(slope).collect();
    if options.unit_decoder {
        // The decoder's gradient is projected.
        for f in 0..n {
            let at = n * d + f * d..n * d + (f + 1) * d;
            let along: f64 = want[at.clone()].iter().zip(plain.decoder(f)).map(|(g, w)| g * w).sum();
            want[at].iter_mut().zip(plain.decoder(f)).for_each(|(g, w)| *g -= along * w);
        }
    }
    let state = &run.state;
    let mut parts = vec![&state.encoder, &state.decoder, &state.encoder_bias, &state.decoder_bias];
    parts.extend(&state.extras);
    let mut want = &want[..];
    for (i, part) in parts.iter().enumerate() {
        let (these, rest) = want.split_at(part.values.len());
        want = rest;
        let got = &part.moments.first;
        let off: f64 = these.iter().zip(got).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum();
        let size: f64 = these.iter().map(|a| a * a).sum();
        assert!(size > 0.0 && (off / size).sqrt() <= 1e-3, "{name} parameter {i}: {off} of {size}");
    }
}

/// All gradients together are cut to the norm that is asked for, and no others.
#[test]
fn gradients_are_cut_to_a_norm() {
    let (d, batch) = (11, 18);
    let data: Vec<f32> = noise(batch * d, 5).iter().map(|x| 3.0 * x).collect();
    let rows = Rows::from_slice(d, &data).unwrap();
    for variant in Variant::ALL {
        let gradient = |clip: f32| {
            let options = Options { beta1: 0.0, clip, threshold: 0.7, ..options(variant, 4, batch) };
            let start = state(d, &options);
            let mut run = run(&rows, options, start);
            run.step().unwrap();
            let state = &run.state;
            let all = [&state.encoder, &state.decoder, &state.encoder_bias, &state.decoder_bias];
            let all = all.into_iter().chain(&state.extras);
            all.flat_map(|p| p.moments.first.clone()).collect::<Vec<f32>>()
        };
        let whole = gradient(0.0);
        let norm = |g: &[f32]| g.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let size = norm(&whole);
        assert_eq!(whole, gradient(2.0 * size as f32), "{variant:?}");
        let cut = gradient(0.25 * size as f32);
        assert!((norm(&cut) / size - 0.25).abs() < 1e-4, "{variant:?}");
        let worst = whole.iter().zip(&cut).map(|(a, b)| (a / 4.0 - b).abs()).fold(0f32, f32::max);
        assert!(f64::from(worst) < 1e-5 * size, "{variant:?}: {worst} of {size}");
    }
}
