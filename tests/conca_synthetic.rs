//! The synthetic check of ConCA (arXiv 2601.20420, App. M): five binary latents, of which the truth is known.
//!
//! Latents follow a random DAG whose ten expected edges are all that five nodes can have; every conditional probability is
//! drawn from U[.2, .8]. What is observed is the one-hot code of the latents' joint state, its places permuted at random,
//! written as five bits. A small network with a representation of width 10 sees some of the bits, the others masked, and
//! predicts the whole state, as a language model predicts a token. ConCA and a sparse autoencoder then look for the latents
//! in the representation, and are judged by MPC: |Pearson| between a matched feature and the logits of a supervised
//! regression on the true latent.
//!
//! Not known from the paper, and decided here: each bit is masked with probability ½; the predictor has two hidden layers
//! of 64 units; both featurizers have 256 features and get the same rows and steps. The MPC rises with the number of
//! features for ConCA (about .6 at 32, .7 at 64) and hardly for the SAE, so this number is the one that matters most.

use rand::Rng;
use tiller::eval::mpc::{Concept, Mpc, mpc};
use tiller::num::{Mat, gemm, rng};
use tiller::progress::silent;
use tiller::train::Rows;
use tiller::train::dense::{Objective, Options, Sparsity, fit};

const LATENTS: usize = 5;
const STATES: usize = 1 << LATENTS;
const WIDTH: usize = 10;
const FEATURES: usize = 256;
const SAMPLES: usize = 4000;
const SEEDS: u64 = 10;

/// Latents in causal order, each given its parents' values by a table.
struct World {
    order: Vec<usize>,
    tables: Vec<Vec<f64>>,
    permutation: Vec<usize>,
}

fn shuffle(n: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut all: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        all.swap(i, rng.random_range(0..=i as u64) as usize);
    }
    all
}

impl World {
    fn new(rng: &mut impl Rng) -> Self {
        let order = shuffle(LATENTS, rng);
        let tables = (0..LATENTS).map(|i| (0..1 << i).map(|_| rng.random_range(0.2..0.8)).collect()).collect();
        Self { order, tables, permutation: shuffle(STATES, rng) }
    }

    /// The latents, and the five bits that are seen of them.
    fn sample(&self, rng: &mut impl Rng) -> (usize, usize) {
        let (mut latents, mut parents) = (0, 0);
        for (i, &node) in self.order.iter().enumerate() {
            let on = rng.random::<f64>() < self.tables[i][parents];
            parents |= usize::from(on) << i;
            latents |= usize::from(on) << node;
        }
        (latents, self.permutation[latents])
    }
}

/// Inputs, outputs, weights, and Adam's two means.
type Layer = (usize, usize, Vec<f32>, Vec<f32>, Vec<f32>);

/// (bits, mask) → 64 → 64 → representation of width 10 → logits of the 32 states; ReLU between.
struct Predictor {
    layers: Vec<Layer>,
    step: i32,
}

const INPUT: usize = 2 * LATENTS;
const HIDDEN: usize = 64;
const LAST: usize = 3;

/// The bits as −1 and 1, 0 where masked, and the mask.
fn input(seen: usize, mask: u64) -> [f32; INPUT] {
    let mut x = [0f32; INPUT];
    for bit in 0..LATENTS {
        if mask >> bit & 1 == 1 {
            x[LATENTS + bit] = 1.0;
        } else {
            x[bit] = if seen >> bit & 1 == 1 { 1.0 } else { -1.0 };
        }
    }
    x
}

impl Predictor {
    fn new(rng: &mut impl Rng) -> Self {
        let mut layer = |n_in: usize, n_out: usize| {
            let size = (1.0 / n_in as f32).sqrt();
            let w: Vec<f32> = (0..n_in * n_out).map(|_| rng.random_range(-size..size)).collect();
            let n = w.len();
            (n_in, n_out, w, vec![0f32; n], vec![0f32; n])
        };
        Self {
            layers: vec![layer(INPUT, HIDDEN), layer(HIDDEN, HIDDEN), layer(HIDDEN, WIDTH), layer(WIDTH, STATES)],
            step: 0,
        }
    }

    /// What each layer puts out for rows `x`: twice hidden (after the ReLU), representation, logits.
    fn forward(&self, x: &[f32], n: usize) -> Vec<Vec<f32>> {
        let mut all: Vec<Vec<f32>> = Vec::new();
        for (i, (n_in, n_out, w, ..)) in self.layers.iter().enumerate() {
            let mut out = vec![0f32; n * n_out];
            let from = if i == 0 { x } else { &all[i - 1] };
            gemm(Mat::new(from, n, *n_in), Mat::new(w, *n_in, *n_out), false, &mut out, 1);
            if i < 2 {
                out.iter_mut().for_each(|v| *v = v.max(0.0));
            }
            all.push(out);
        }
        all
    }

    /// A step of Adam on the cross-entropy; returns it.
    fn learn(&mut self, x: &[f32], truth: &[usize], lr: f32) -> f32 {
        let n = truth.len();
        let all = self.forward(x, n);
        let mut slopes = all[LAST].clone();
        let mut loss = 0.0;
        for (row, &token) in slopes.chunks_mut(STATES).zip(truth) {
            let max = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = row.iter().map(|v| (v - max).exp()).sum();
            loss += sum.ln() + max - row[token];
            row.iter_mut().for_each(|v| *v = (*v - max).exp() / sum / n as f32);
            row[token] -= 1.0 / n as f32;
        }
        self.step += 1;
        let (fix1, fix2) = (1.0 - 0.9f32.powi(self.step), 1.0 - 0.999f32.powi(self.step));
        for i in (0..=LAST).rev() {
            let (n_in, n_out, w, m, v) = &mut self.layers[i];
            let from = if i == 0 { x } else { &all[i - 1] };
            let mut gradient = vec![0f32; w.len()];
            let slope = Mat::new(&slopes, n, *n_out);
            gemm(Mat::new(from, n, *n_in).t(), slope, false, &mut gradient, 1);
            let mut back = vec![0f32; n * *n_in];
            gemm(slope, Mat::new(w, *n_in, *n_out).t(), false, &mut back, 1);
            if i == 1 || i == 2 {
                back.iter_mut().zip(&all[i - 1]).for_each(|(b, h)| *b *= f32::from(u8::from(*h > 0.0)));
            }
            for j in 0..w.len() {
                m[j] = 0.9 * m[j] + 0.1 * gradient[j];
                v[j] = 0.999 * v[j] + 0.001 * gradient[j] * gradient[j];
                w[j] -= lr * (m[j] / fix1) / ((v[j] / fix2).sqrt() + 1e-8);
            }
            slopes = back;
        }
        loss / n as f32
    }
}

/// Representations `[SAMPLES, WIDTH]` of contexts, and their latents.
fn representations(seed: u64) -> (Vec<f32>, Vec<usize>) {
    let mut rng = rng(seed);
    let world = World::new(&mut rng);
    let mut predictor = Predictor::new(&mut rng);
    const BATCH: usize = 256;
    for _ in 0..1500 {
        let (mut x, mut truth) = (Vec::new(), Vec::new());
        for _ in 0..BATCH {
            let (_, seen) = world.sample(&mut rng);
            x.extend(input(seen, rng.random()));
            truth.push(seen);
        }
        predictor.learn(&x, &truth, 3e-3);
    }
    let (mut x, mut latents) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let (z, seen) = world.sample(&mut rng);
        x.extend(input(seen, rng.random()));
        latents.push(z);
    }
    (scaled(predictor.forward(&x, SAMPLES).swap_remove(LAST - 1)), latents)
}

/// Centred, with mean squared norm `WIDTH`: what the trainer of ConCA does by itself, done for both.
fn scaled(mut x: Vec<f32>) -> Vec<f32> {
    let n = (x.len() / WIDTH) as f32;
    let mut mean = [0f32; WIDTH];
    x.iter().enumerate().for_each(|(i, v)| mean[i % WIDTH] += v / n);
    x.iter_mut().enumerate().for_each(|(i, v)| *v -= mean[i % WIDTH]);
    let scale = (WIDTH as f32 * n / x.iter().map(|v| v * v).sum::<f32>()).sqrt();
    x.iter_mut().for_each(|v| *v *= scale);
    x
}

/// A ReLU autoencoder with an L1 penalty, the SAE of the paper: `f = relu(W_e·x + b_e)`.
struct Sae {
    encoder: Vec<f32>,
    decoder: Vec<f32>,
    bias: Vec<f32>,
}

impl Sae {
    fn fit(x: &[f32], steps: usize, l1: f32, lr: f32, seed: u64) -> Self {
        let mut rng = rng(seed);
        const BATCH: usize = 256;
        let n = x.len() / WIDTH;
        let mut w: Vec<f32> = (0..2 * FEATURES * WIDTH + FEATURES).map(|_| rng.random_range(-0.4..0.4)).collect();
        w[2 * FEATURES * WIDTH..].fill(0.0);
        let (mut m, mut v) = (vec![0f32; w.len()], vec![0f32; w.len()]);
        for step in 1..=steps as i32 {
            let rows: Vec<f32> = (0..BATCH)
                .flat_map(|_| {
                    let i = rng.random_range(0..n as u64) as usize;
                    x[i * WIDTH..(i + 1) * WIDTH].to_vec()
                })
                .collect();
            let (encoder, rest) = w.split_at(FEATURES * WIDTH);
            let (decoder, bias) = rest.split_at(FEATURES * WIDTH);
            let codes = codes(encoder, bias, &rows);
            let mut error: Vec<f32> = rows.iter().map(|x| -x).collect();
            gemm(Mat::new(&codes, BATCH, FEATURES), Mat::new(decoder, FEATURES, WIDTH), true, &mut error, 1);
            error.iter_mut().for_each(|e| *e *= 2.0 / BATCH as f32);
            let e = Mat::new(&error, BATCH, WIDTH);
            let mut g = vec![0f32; w.len()];
            gemm(Mat::new(&codes, BATCH, FEATURES).t(), e, false, &mut g[FEATURES * WIDTH..2 * FEATURES * WIDTH], 1);
            let mut slopes = vec![0f32; BATCH * FEATURES];
            gemm(e, Mat::new(decoder, FEATURES, WIDTH).t(), false, &mut slopes, 1);
            slopes.iter_mut().zip(&codes).for_each(|(s, &c)| *s = if c > 0.0 { *s + l1 / BATCH as f32 } else { 0.0 });
            gemm(
                Mat::new(&slopes, BATCH, FEATURES).t(),
                Mat::new(&rows, BATCH, WIDTH),
                false,
                &mut g[..FEATURES * WIDTH],
                1,
            );
            for row in slopes.chunks(FEATURES) {
                g[2 * FEATURES * WIDTH..].iter_mut().zip(row).for_each(|(g, s)| *g += s);
            }
            let (fix1, fix2) = (1.0 - 0.9f32.powi(step), 1.0 - 0.999f32.powi(step));
            for j in 0..w.len() {
                m[j] = 0.9 * m[j] + 0.1 * g[j];
                v[j] = 0.999 * v[j] + 0.001 * g[j] * g[j];
                w[j] -= lr * (m[j] / fix1) / ((v[j] / fix2).sqrt() + 1e-8);
            }
            // Decoder rows of norm 1: the penalty could be dodged otherwise.
            for row in w[FEATURES * WIDTH..2 * FEATURES * WIDTH].chunks_mut(WIDTH) {
                let norm = tiller::num::norm(row).max(1e-6);
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        let bias = w.split_off(2 * FEATURES * WIDTH);
        let decoder = w.split_off(FEATURES * WIDTH);
        Self { encoder: w, decoder, bias }
    }
}

fn codes(encoder: &[f32], bias: &[f32], rows: &[f32]) -> Vec<f32> {
    let n = rows.len() / WIDTH;
    let mut codes: Vec<f32> = (0..n).flat_map(|_| bias.to_vec()).collect();
    gemm(Mat::new(rows, n, WIDTH), Mat::new(encoder, FEATURES, WIDTH).t(), true, &mut codes, 1);
    codes.iter_mut().for_each(|c| *c = c.max(0.0));
    codes
}

fn unexplained(x: &[f32], rebuilt: &[f32]) -> f64 {
    let mut mean = [0f64; WIDTH];
    let n = x.len() / WIDTH;
    x.iter().enumerate().for_each(|(i, &v)| mean[i % WIDTH] += f64::from(v) / n as f64);
    let spread: f64 = x.iter().enumerate().map(|(i, &v)| (f64::from(v) - mean[i % WIDTH]).powi(2)).sum();
    x.iter().zip(rebuilt).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / spread
}

fn judged(x: &[f32], latents: &[usize], encode: &mut dyn FnMut(&[f32]) -> Vec<f32>) -> Mpc {
    let concept = |bit: usize| {
        let labels = latents.iter().map(|z| z >> bit & 1 == 1).collect();
        Concept::new(&format!("z{bit}"), x.to_vec(), WIDTH, labels).unwrap()
    };
    let concepts: Vec<Concept> = (0..LATENTS).map(concept).collect();
    mpc(&concepts, FEATURES, encode, &mut silent).unwrap()
}

fn summary(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}

/// ConCA within the paper's band (.813 ± .031) or above it, and the SAE below ConCA.
#[test]
#[cfg_attr(not(feature = "engine"), ignore = "long, and the same with the engine")]
fn conca_finds_the_latents_and_a_sparse_autoencoder_less() {
    let (mut conca, mut sae, mut sae_raw) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..SEEDS {
        let (x, latents) = representations(seed);
        let rows = Rows::from_slice(WIDTH, &x).unwrap();
        let options = Options {
            objective: Objective::Conca { alpha: 1e-4, sparsity: Sparsity::SoftPlus },
            n_latents: FEATURES,
            batch: 256,
            steps: 1500,
            lr: 1e-3,
            seed,
            threads: 1,
            ..Options::conca()
        };
        let coder = fit(&rows, &options, None, &mut silent).unwrap();
        let one = judged(&x, &latents, &mut |rows| coder.encode(rows, 1));
        let fvu = unexplained(&x, &coder.decode(&coder.encode(&x, 1), 1));
        let dictionary = Sae::fit(&x, 1500, 0.3, 1e-3, seed);
        let of_sae = |rows: &[f32]| codes(&dictionary.encoder, &dictionary.bias, rows);
        let other = judged(&x, &latents, &mut { of_sae });
        let mut rebuilt = vec![0f32; x.len()];
        let decoder = Mat::new(&dictionary.decoder, FEATURES, WIDTH);
        gemm(Mat::new(&of_sae(&x), SAMPLES, FEATURES), decoder, false, &mut rebuilt, 1);
        println!(
            "seed {seed}: ConCA MPC {:.3} (raw {:.3}, FVU {fvu:.4})   SAE MPC {:.3} (raw {:.3}, FVU {:.4})",
            one.mpc,
            one.raw,
            other.mpc,
            other.raw,
            unexplained(&x, &rebuilt)
        );
        conca.push(one.mpc);
        sae.push(other.mpc);
        sae_raw.push(other.raw);
    }
    let ((c, c_sd), (s, s_sd), (r, r_sd)) = (summary(&conca), summary(&sae), summary(&sae_raw));
    println!(
        "ConCA {c:.3} ± {c_sd:.3} (paper .813 ± .031); SAE {s:.3} ± {s_sd:.3} (paper .635 ± .046), raw codes {r:.3} ± {r_sd:.3}"
    );
    assert!(c >= 0.813 - 0.031, "ConCA {c:.3} is below the paper's band");
    assert!(s < c, "the SAE, {s:.3}, is not below ConCA, {c:.3}");
}
