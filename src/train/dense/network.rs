//! Parameters, and one pass forward and back.
//!
//! The batch goes through in chunks of a fixed number of rows, whose gradients add up; BatchNorm, whose rows depend on
//! each other, takes the batch whole. With `w = 1/batch` a chunk `u` `[n, d]` costs five products:
//! `p = v·W_encᵀ`, `e = z·W_dec + b_dec − u`, `∂z = 2w·e·W_decᵀ`, `∂W_dec += zᵀ·2we`, `∂W_enc += ∂pᵀ·v`, where v is u, or
//! `LN(u) − b_dec` for SSAE.

use super::normalizer::{self, Kept, standardize};
use super::options::{Objective, Options, Regularizer, Sparsity};
use crate::num::parallel::each;
use crate::num::{Mat, gemm};
use crate::train::adam::{Rates, adam};
use crate::train::kernel::{add, dot};
use crate::train::start::unit;
use crate::train::weights::Parameter;

/// Rows in a chunk: enough for the products to run at full speed.
const CHUNK: usize = 512;
/// Parameters that one thread updates at a time, in rows of a matrix.
const PIECE: usize = 16;
/// The share of a batch in BatchNorm's running averages, as in PyTorch.
const MOMENTUM: f32 = 0.1;

/// The six parameters.
pub(super) struct Network {
    pub(super) d: usize,
    pub(super) n: usize,
    /// `W_enc [n_latents, d]`.
    pub(super) encoder: Parameter,
    /// `W_dec [n_latents, d]`.
    pub(super) decoder: Parameter,
    /// `b_enc [n_latents]`.
    pub(super) encoder_bias: Parameter,
    /// `b_dec [d]`.
    pub(super) decoder_bias: Parameter,
    /// R's gain and shift `[n_latents]`.
    pub(super) gain: Parameter,
    pub(super) shift: Parameter,
    /// BatchNorm's running mean and variance `[n_latents]`.
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
}

/// Gradients, in the shapes of the parameters.
#[derive(Default)]
pub(super) struct Gradients {
    pub(super) encoder: Vec<f32>,
    pub(super) decoder: Vec<f32>,
    pub(super) encoder_bias: Vec<f32>,
    pub(super) decoder_bias: Vec<f32>,
    pub(super) gain: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

/// Buffers that live as long as the run.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) gradients: Gradients,
    input: Vec<f32>,
    normalized: Vec<f32>,
    codes: Vec<f32>,
    slopes: Vec<f32>,
    errors: Vec<f32>,
}

/// What a batch gave, summed over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// `Σ ‖x̂ − x‖²`.
    pub(super) error: f64,
    /// `Σ ‖x‖²`.
    pub(super) size: f64,
    /// ConCA: `Σ |g(z)|`; SSAE: `Σ |z|`.
    pub(super) sparsity: f64,
}

/// What a step is told besides the rows.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) options: &'a Options,
    /// SSAE's multiplier.
    pub(super) multiplier: f32,
    /// The number of the batch's first row in the run.
    pub(super) first: u64,
    pub(super) threads: usize,
}

impl Network {
    /// The loss of the batch `u` `[batch, d]` and its gradients, in `buffers`.
    pub(super) fn differentiate(&mut self, u: &[f32], pass: Pass<'_>, buffers: &mut Buffers) -> Totals {
        let batch = u.len() / self.d;
        buffers.gradients.clear(self.n, self.d);
        let size = if pass.options.regularizer == Regularizer::BatchNorm { batch } else { CHUNK };
        let mut totals = Totals::default();
        for (i, chunk) in u.chunks(size * self.d).enumerate() {
            let pass = Pass { first: pass.first + (i * size) as u64, ..pass };
            let one = self.chunk(chunk, batch, pass, buffers);
            totals.error += one.error;
            totals.size += one.size;
            totals.sparsity += one.sparsity;
        }
        totals
    }

    fn chunk(&mut self, u: &[f32], batch: usize, pass: Pass<'_>, buffers: &mut Buffers) -> Totals {
        let Pass { options, multiplier, first, threads } = pass;
        let (n, d, r) = (self.n, self.d, options.regularizer);
        let rows = u.len() / d;
        let Buffers { gradients, input, normalized, codes, slopes, errors } = buffers;
        let ssae = matches!(options.objective, Objective::Ssae { .. });
        input.clear();
        input.extend_from_slice(u);
        if ssae {
            let bias = &self.decoder_bias.values;
            for row in input.chunks_exact_mut(d) {
                standardize(row);
                row.iter_mut().zip(bias).for_each(|(x, b)| *x -= b);
            }
        }
        for buffer in [&mut *normalized, &mut *codes, &mut *slopes] {
            buffer.resize(rows * n, 0.0);
        }
        // p, R(p), z
        let v = Mat::new(input, rows, d);
        normalized.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(&self.encoder_bias.values));
        gemm(v, Mat::new(&self.encoder.values, n, d).t(), true, normalized, threads);
        let kept = normalizer::forward(r, normalized, n, options.seed, first, threads);
        self.follow(&kept, rows);
        let (gain, shift) = (&self.gain.values, &self.shift.values);
        each(threads, codes.chunks_mut(PIECE * n).zip(normalized.chunks(PIECE * n)), |(codes, normalized)| {
            for (codes, normalized) in codes.chunks_exact_mut(n).zip(normalized.chunks_exact(n)) {
                for i in 0..n {
                    codes[i] = gain[i] * normalized[i] + shift[i];
                }
            }
        });

        // x̂ − x
        errors.clear();
        for row in u.chunks_exact(d) {
            errors.extend(row.iter().zip(&self.decoder_bias.values).map(|(x, b)| b - x));
        }
        gemm(Mat::new(codes, rows, n), Mat::new(&self.decoder.values, n, d), true, errors, threads);
        let square = |x: &[f32]| x.chunks_exact(d).map(|row| f64::from(dot(row, row))).sum::<f64>();
        let (error, size) = (square(errors), square(u));
        let weight = match options.objective {
            Objective::Conca { .. } => 2.0 / batch as f32,
            Objective::Ssae { .. } => 2.0 / (batch * d) as f32,
        };
        errors.iter_mut().for_each(|e| *e *= weight);
        let e = Mat::new(errors, rows, d);
        gemm(Mat::new(codes, rows, n).t(), e, true, &mut gradients.decoder, threads);
        errors.chunks_exact(d).for_each(|row| add(&mut gradients.decoder_bias, 1.0, row));

        // ∂L/∂z
        gemm(e, Mat::new(&self.decoder.values, n, d).t(), false, slopes, threads);
        let sparsity = penalize(options, multiplier, batch, n, codes, slopes, threads);
        if r.is_affine() {
            columns(slopes, Some(normalized), &mut gradients.gain, threads);
            columns(slopes, None, &mut gradients.shift, threads);
            each(threads, slopes.chunks_mut(PIECE * n), |slopes| {
                slopes.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(gain).for_each(|(s, g)| *s *= g));
            });
        }
        // ∂L/∂p
        normalizer::backward(r, &kept, normalized, slopes, n, options.seed, first, threads);
        gemm(Mat::new(slopes, rows, n).t(), v, true, &mut gradients.encoder, threads);
        let mut bias = vec![0f32; n];
        columns(slopes, None, &mut bias, threads);
        if ssae {
            let rows = self.encoder.values.chunks_exact(d);
            rows.zip(&bias).for_each(|(row, &b)| add(&mut gradients.decoder_bias, -b, row));
        }
        add(&mut gradients.encoder_bias, 1.0, &bias);
        Totals { error, size, sparsity }
    }

    /// BatchNorm's running averages, of the unbiased variance.
    fn follow(&mut self, kept: &Kept, rows: usize) {
        let unbiased = rows as f32 / (rows as f32 - 1.0).max(1.0);
        for (i, (mean, variance)) in kept.columns.iter().enumerate() {
            self.mean[i] += MOMENTUM * (mean - self.mean[i]);
            self.variance[i] += MOMENTUM * (variance * unbiased - self.variance[i]);
        }
    }

    /// One step of Adam; SSAE's decoder rows are kept at norm 1, the part of their gradient along them removed.
    pub(super) fn update(&mut self, gradients: &mut Gradients, options: &Options, rates: &Rates, threads: usize) {
        let d = self.d;
        let unit_rows = matches!(options.objective, Objective::Ssae { .. });
        step(&mut self.encoder, &mut gradients.encoder, PIECE * d, rates, threads);
        if unit_rows {
            let rows = gradients.decoder.chunks_exact_mut(d).zip(self.decoder.values.chunks_exact(d));
            rows.for_each(|(g, w)| add(g, -dot(g, w), w));
        }
        step(&mut self.decoder, &mut gradients.decoder, PIECE * d, rates, threads);
        if unit_rows {
            self.decoder.values.chunks_exact_mut(d).for_each(unit);
        }
        step(&mut self.encoder_bias, &mut gradients.encoder_bias, 4096, rates, 1);
        step(&mut self.decoder_bias, &mut gradients.decoder_bias, 4096, rates, 1);
        if options.regularizer.is_affine() {
            step(&mut self.gain, &mut gradients.gain, 4096, rates, 1);
            step(&mut self.shift, &mut gradients.shift, 4096, rates, 1);
        }
    }
}

fn step(parameter: &mut Parameter, gradient: &mut [f32], size: usize, rates: &Rates, threads: usize) {
    each(threads, parameter.chunks_mut(size).zip(gradient.chunks(size)), |(p, g)| {
        adam(rates, p.values, g, p.first, p.second);
    });
}

/// Adds the penalty's derivative to `slopes` and returns the sum of what is penalised.
fn penalize(
    options: &Options,
    multiplier: f32,
    batch: usize,
    n: usize,
    codes: &[f32],
    slopes: &mut [f32],
    threads: usize,
) -> f64 {
    let size = PIECE * n;
    let mut sums = vec![0f64; codes.len().div_ceil(size)];
    let pieces = slopes.chunks_mut(size).zip(codes.chunks(size)).zip(&mut sums);
    match options.objective {
        Objective::Conca { alpha, sparsity } => {
            let weight = alpha / batch as f32;
            each(threads, pieces, |((slopes, codes), sum)| *sum = bend(sparsity, weight, codes, slopes));
        }
        Objective::Ssae { level, .. } => {
            let weight = multiplier / (level * (batch * n) as f32);
            each(threads, pieces, |((slopes, codes), sum)| {
                for (s, &z) in slopes.iter_mut().zip(codes) {
                    *sum += f64::from(z.abs());
                    if z != 0.0 {
                        *s += weight * z.signum();
                    }
                }
            });
        }
    }
    sums.iter().sum()
}

fn bend(sparsity: Sparsity, weight: f32, codes: &[f32], slopes: &mut [f32]) -> f64 {
    let mut sum = 0f64;
    for (s, &z) in slopes.iter_mut().zip(codes) {
        let (value, slope) = sparsity.value(z);
        sum += f64::from(value);
        *s += weight * slope;
    }
    sum
}

/// `out += Σ_rows a ∘ b`, or of `a` alone; rows in their order, columns shared out.
fn columns(a: &[f32], b: Option<&[f32]>, out: &mut [f32], threads: usize) {
    const COLUMNS: usize = 256;
    let n = out.len();
    each(threads, out.chunks_mut(COLUMNS).enumerate(), |(c, out)| {
        let at = c * COLUMNS..c * COLUMNS + out.len();
        match b {
            Some(b) => {
                for (a, b) in a.chunks_exact(n).zip(b.chunks_exact(n)) {
                    let pairs = a[at.clone()].iter().zip(&b[at.clone()]);
                    out.iter_mut().zip(pairs).for_each(|(out, (a, b))| *out += a * b);
                }
            }
            None => a.chunks_exact(n).for_each(|a| add(out, 1.0, &a[at.clone()])),
        }
    });
}

impl Gradients {
    fn clear(&mut self, n: usize, d: usize) {
        for (gradient, len) in [
            (&mut self.encoder, n * d),
            (&mut self.decoder, n * d),
            (&mut self.encoder_bias, n),
            (&mut self.decoder_bias, d),
            (&mut self.gain, n),
            (&mut self.shift, n),
        ] {
            gradient.clear();
            gradient.resize(len, 0.0);
        }
    }
}
