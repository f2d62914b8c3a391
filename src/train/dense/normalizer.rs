//! R and its derivative, on matrices `[n, n_latents]` in place.

use rand::Rng;

use super::options::Regularizer;
use crate::num::parallel::each;
use crate::train::rows::generator;

/// What is added to a variance, as in PyTorch.
pub(super) const EPS: f32 = 1e-5;
/// Columns that one thread works on at a time.
const COLUMNS: usize = 64;
/// Rows that one thread works on at a time.
const ROWS: usize = 16;

/// What the derivative needs besides the normalised codes.
#[derive(Default)]
pub(super) struct Kept {
    /// `1/√(var + ε)` of each row's groups, or of each column.
    inverse: Vec<f32>,
    /// BatchNorm: the mean and the biased variance of each column.
    pub(super) columns: Vec<(f32, f32)>,
}

/// Normalises `p` `[n, n_latents]` in place (without gain and shift). `first` is the number of the first row in the run,
/// from which drop-outs are drawn.
pub(super) fn forward(r: Regularizer, p: &mut [f32], n_latents: usize, seed: u64, first: u64, threads: usize) -> Kept {
    let n = p.len() / n_latents;
    match r {
        Regularizer::LayerNorm | Regularizer::GroupNorm(_) => {
            let groups = r.groups();
            let mut inverse = vec![0f32; n * groups];
            let pieces = p.chunks_mut(ROWS * n_latents).zip(inverse.chunks_mut(ROWS * groups));
            each(threads, pieces, |(p, inverse)| {
                for (group, inverse) in p.chunks_exact_mut(n_latents / groups).zip(inverse) {
                    *inverse = standardize(group);
                }
            });
            Kept { inverse, columns: Vec::new() }
        }
        Regularizer::BatchNorm => {
            let mut columns = vec![(0f32, 0f32); n_latents];
            let whole: &[f32] = p;
            each(threads, columns.chunks_mut(COLUMNS).enumerate(), |(c, columns)| {
                let at = c * COLUMNS..c * COLUMNS + columns.len();
                let mut sums = vec![(0f64, 0f64); columns.len()];
                for row in whole.chunks_exact(n_latents) {
                    for (sum, &x) in sums.iter_mut().zip(&row[at.clone()]) {
                        sum.0 += f64::from(x);
                        sum.1 += f64::from(x) * f64::from(x);
                    }
                }
                for (column, (sum, square)) in columns.iter_mut().zip(sums) {
                    let mean = sum / n as f64;
                    *column = (mean as f32, (square / n as f64 - mean * mean).max(0.0) as f32);
                }
            });
            let inverse: Vec<f32> = columns.iter().map(|(_, var)| 1.0 / (var + EPS).sqrt()).collect();
            each(threads, p.chunks_mut(ROWS * n_latents), |p| {
                for row in p.chunks_exact_mut(n_latents) {
                    for (x, ((mean, _), inverse)) in row.iter_mut().zip(columns.iter().zip(&inverse)) {
                        *x = (*x - mean) * inverse;
                    }
                }
            });
            Kept { inverse, columns }
        }
        Regularizer::Dropout(share) => {
            drop_out(share, p, n_latents, seed, first, threads);
            Kept::default()
        }
    }
}

/// Turns `g`, `∂L/∂p̂` `[n, n_latents]`, into `∂L/∂p`; `normalized` is what [`forward`] made.
#[expect(clippy::too_many_arguments, reason = "what the forward pass took and made")]
pub(super) fn backward(
    r: Regularizer,
    kept: &Kept,
    normalized: &[f32],
    g: &mut [f32],
    n_latents: usize,
    seed: u64,
    first: u64,
    threads: usize,
) {
    match r {
        Regularizer::LayerNorm | Regularizer::GroupNorm(_) => {
            let groups = r.groups();
            let size = ROWS * n_latents;
            let pieces = g.chunks_mut(size).zip(normalized.chunks(size)).zip(kept.inverse.chunks(ROWS * groups));
            each(threads, pieces, |((g, x), inverse)| {
                let width = n_latents / groups;
                for ((g, x), inverse) in g.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(inverse) {
                    let (mut sum, mut along) = (0f64, 0f64);
                    for (&g, &x) in g.iter().zip(x) {
                        sum += f64::from(g);
                        along += f64::from(g) * f64::from(x);
                    }
                    let (sum, along) = ((sum / width as f64) as f32, (along / width as f64) as f32);
                    g.iter_mut().zip(x).for_each(|(g, x)| *g = inverse * (*g - sum - x * along));
                }
            });
        }
        Regularizer::BatchNorm => {
            let n = (g.len() / n_latents) as f64;
            let mut means = vec![(0f32, 0f32); n_latents];
            let whole: &[f32] = g;
            each(threads, means.chunks_mut(COLUMNS).enumerate(), |(c, means)| {
                let at = c * COLUMNS..c * COLUMNS + means.len();
                let mut sums = vec![(0f64, 0f64); means.len()];
                for (g, x) in whole.chunks_exact(n_latents).zip(normalized.chunks_exact(n_latents)) {
                    for (sum, (&g, &x)) in sums.iter_mut().zip(g[at.clone()].iter().zip(&x[at.clone()])) {
                        sum.0 += f64::from(g);
                        sum.1 += f64::from(g) * f64::from(x);
                    }
                }
                for (mean, sum) in means.iter_mut().zip(sums) {
                    *mean = ((sum.0 / n) as f32, (sum.1 / n) as f32);
                }
            });
            let pieces = g.chunks_mut(ROWS * n_latents).zip(normalized.chunks(ROWS * n_latents));
            each(threads, pieces, |(g, x)| {
                for (g, x) in g.chunks_exact_mut(n_latents).zip(x.chunks_exact(n_latents)) {
                    for i in 0..n_latents {
                        g[i] = kept.inverse[i] * (g[i] - means[i].0 - x[i] * means[i].1);
                    }
                }
            });
        }
        Regularizer::Dropout(share) => drop_out(share, g, n_latents, seed, first, threads),
    }
}

/// Sets this share to zero and scales the rest; the same for the same seed and rows.
fn drop_out(share: f32, p: &mut [f32], n_latents: usize, seed: u64, first: u64, threads: usize) {
    let scale = 1.0 / (1.0 - share);
    each(threads, p.chunks_mut(ROWS * n_latents).enumerate(), |(piece, p)| {
        for (i, row) in (0..).zip(p.chunks_exact_mut(n_latents)) {
            // Far from the streams of starts and orders.
            let mut rng = generator(seed, (1 << 40) + first + piece as u64 * ROWS as u64 + i);
            row.iter_mut().for_each(|x| *x *= if rng.random::<f32>() < share { 0.0 } else { scale });
        }
    });
}

/// Brings a group to mean 0 and variance 1; returns `1/√(var + ε)`.
pub(super) fn standardize(group: &mut [f32]) -> f32 {
    let n = group.len() as f64;
    let mean = group.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let var = group.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let inverse = (1.0 / (var + f64::from(EPS)).sqrt()) as f32;
    let mean = mean as f32;
    group.iter_mut().for_each(|x| *x = (*x - mean) * inverse);
    inverse
}
