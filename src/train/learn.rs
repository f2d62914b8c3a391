//! An instruction, distilled into one feature a layer (PSR, arXiv 2605.03907).
//!
//! A model that is told to do something computes other rows than one that is not, over the same answer. The difference is
//! what the instruction does; the residual stream adds up, so every edited layer l answers only for its own part of it:
//!
//! ```text
//! Δ_l = A_l − B_l           rows of the asked run less those of the plain run, token by token
//! δ_l = Δ_l − Δ_l'          l' is the edited layer before l; Δ_l' = 0 for the first
//! z_l = mean(δ_l)/‖·‖       the direction
//! s   = δ_l·z_l             how much of it a row needs, regressed on the row that a steered run will have, x = A_l − δ_l:
//! w_l, b_l = argmin Σ ω (s − w·x − b)² + λ σ² ‖w‖²       ω sum to 1, σ² is the mean variance of x
//! ```
//!
//! That is one ReLU feature a layer: encoder row w, bias b, decoder row z, mean activation ‖mean δ_l‖. `amplify` by α is the
//! gated form x + α·relu(w·x + b)·z; `add` of α multiples of the mean is the constant form x + α·mean(δ_l), a control vector.
//!
//! *When not to act*: rows of messages for which the instruction is not meant join with target 0, and weigh as much together
//! as all others. The gate then opens above what 95 % of them reach, and is scaled back to its mean on the others.
//!
//! *Cost*: a Gram matrix of n·d² products and a Cholesky factor of d³/3 for each layer and λ; the smaller of both sides is
//! factored, so few rows of a wide model are cheap. What comes out does not depend on the number of threads.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::num::linalg::{Normal, cholesky_solve};
use crate::num::{Mat, check_finite, gemm, norm, parallel};
use crate::progress::{Progress, report};

/// Share of the silent rows on which the gate stays shut.
const SHUT: f64 = 0.95;
/// The most that a gate is scaled back by after it was raised.
const MOST_SCALE: f64 = 8.0;
/// Memory that the work on layers side by side may take.
const SIDE_BY_SIDE: usize = 1 << 30;

/// Rows of both runs at some layers.
#[derive(Clone, Debug)]
pub struct Contrast {
    d_model: usize,
    layers: BTreeMap<usize, Sides>,
}

/// The rows at one layer.
#[derive(Clone, Debug, Default)]
struct Sides {
    /// A `[n, d_model]`.
    asked: Vec<f32>,
    /// B `[n, d_model]`.
    plain: Vec<f32>,
    /// Rows at which the feature must be silent. `[m, d_model]`
    silent: Vec<f32>,
    /// Those of them that are hardest to tell from the pairs. `[h, d_model]`
    hard: Vec<f32>,
}

impl Contrast {
    /// No rows yet.
    pub fn new(d_model: usize) -> Self {
        Self { d_model, layers: BTreeMap::new() }
    }

    /// Adds rows `[n, d_model]` of a layer from the asked run and from the plain one: row i of both is one token.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if these are no rows, or not as many; [`Kind::Numeric`](crate::Kind::Numeric)
    /// for numbers that are not finite.
    pub fn add(&mut self, layer: usize, asked: &[f32], plain: &[f32]) -> Result<()> {
        if asked.len() != plain.len() {
            let (a, b) = (asked.len(), plain.len());
            return Err(Error::argument(format!("learn: expected rows in pairs, found {a} and {b} numbers")));
        }
        self.check(asked)?;
        self.check(plain)?;
        let sides = self.layers.entry(layer).or_default();
        sides.asked.extend_from_slice(asked);
        sides.plain.extend_from_slice(plain);
        Ok(())
    }

    /// Adds rows `[m, d_model]` of a layer at which the feature must be silent.
    ///
    /// # Errors
    /// As [`Contrast::add`].
    pub fn add_silent(&mut self, layer: usize, rows: &[f32]) -> Result<()> {
        self.check(rows)?;
        self.layers.entry(layer).or_default().silent.extend_from_slice(rows);
        Ok(())
    }

    /// Adds rows `[h, d_model]` of a layer at which the feature must be silent and which look most like the pairs: rows of the
    /// same place in other messages. They weigh as much together as all other silent rows, so that a gate learns what is
    /// said, not where. Without them, on Qwen2.5-Coder-0.5B, a detector reads 0.97 on harmful and 0.77 on benign rows before
    /// the answer; with them 0.92 and 0.13.
    ///
    /// # Errors
    /// As [`Contrast::add`].
    pub fn add_hard(&mut self, layer: usize, rows: &[f32]) -> Result<()> {
        self.check(rows)?;
        self.layers.entry(layer).or_default().hard.extend_from_slice(rows);
        Ok(())
    }

    /// Pairs of rows at each layer.
    pub fn n_rows(&self) -> usize {
        self.layers.values().next().map_or(0, |sides| sides.asked.len() / self.d_model.max(1))
    }

    /// Bytes that all rows take.
    pub fn bytes(&self) -> usize {
        let n: usize =
            self.layers.values().map(|s| s.asked.len() + s.plain.len() + s.silent.len() + s.hard.len()).sum();
        n * size_of::<f32>()
    }

    /// Width of a row.
    pub fn d_model(&self) -> usize {
        self.d_model
    }

    fn check(&self, rows: &[f32]) -> Result<()> {
        if self.d_model == 0 || !rows.len().is_multiple_of(self.d_model) {
            let (n, d) = (rows.len(), self.d_model);
            return Err(Error::argument(format!("learn: {n} numbers are no rows of width {d}")));
        }
        check_finite(rows, self.d_model, 0).map_err(|e| e.context("learn"))
    }

    fn sides(&self, layer: usize) -> Result<&Sides> {
        let found = self.layers.get(&layer).filter(|sides| !sides.asked.is_empty());
        found.ok_or_else(|| Error::argument(format!("learn: there are no rows of layer {layer}")))
    }
}

/// A learned feature of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// The block after which it acts.
    pub layer: usize,
    /// w `[d_model]`.
    pub encoder: Vec<f32>,
    /// b.
    pub bias: f32,
    /// z `[d_model]`, of length 1.
    pub decoder: Vec<f32>,
    /// ‖mean δ‖, the mean of s.
    pub mean: f32,
    /// Largest activation among the rows.
    pub max: f32,
    /// Share of the rows on which it fires.
    pub density: f32,
    /// Share of the sum of squares of δ that relu(w·x + b)·z explains.
    pub explained: f32,
}

impl Feature {
    /// mean δ `[d_model]`: what the constant form adds.
    pub fn constant(&self) -> Vec<f32> {
        self.decoder.iter().map(|z| z * self.mean).collect()
    }

    /// relu(w·x + b).
    pub fn activation(&self, x: &[f32]) -> f32 {
        (crate::num::dot(&self.encoder, x) + self.bias).max(0.0)
    }
}

/// What a gate is regressed on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Gate {
    /// s, how much of the direction a row needs.
    Need,
    /// 1 for the pairs and 0 for silent rows, each side with half of the weight: the gate learns *when*. It opens above what
    /// `shut` of the silent rows reach, and is scaled so that the mean pair gets the mean increment.
    Class {
        /// Share of the silent rows on which it stays shut.
        shut: f64,
    },
}

/// For every set of layers, for every λ, one feature a layer: `[sets][lambdas][layers]`. Layers of a set rise. Progress counts
/// layers; a layer that two sets share behind the same one is computed once.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for layers without rows or that do not rise, or a λ that is no positive number;
/// [`Kind::Numeric`](crate::Kind::Numeric) if the two runs do not differ at a layer;
/// [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn fit(
    rows: &Contrast,
    sets: &[Vec<usize>],
    lambdas: &[f64],
    gate: Gate,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<Vec<Vec<Feature>>>> {
    if let Some(bad) = lambdas.iter().find(|l| !(l.is_finite() && **l > 0.0)) {
        return Err(Error::argument(format!("learn: lambda: expected a positive number, found {bad}")));
    }
    let mut made: BTreeMap<(usize, Option<usize>), Vec<Feature>> = BTreeMap::new();
    for set in sets {
        if set.is_empty() || !set.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(Error::argument(format!("learn: layers: expected rising ones, found {set:?}")));
        }
        for (i, &layer) in set.iter().enumerate() {
            rows.sides(layer)?;
            made.insert((layer, i.checked_sub(1).map(|before| set[before])), Vec::new());
        }
    }
    let threads = parallel::count(threads);
    let side_by_side = (SIDE_BY_SIDE / rows.job_bytes()).clamp(1, threads);
    let total = made.len() as u64;
    let mut jobs: Vec<Job<'_>> =
        made.iter_mut().map(|(at, features)| Job { at: *at, features, failed: None }).collect();
    let mut done = 0;
    for wave in jobs.chunks_mut(side_by_side) {
        report(progress, done, total, "")?;
        done += wave.len() as u64;
        let inner = (threads / wave.len()).max(1);
        parallel::each(wave.len(), wave.iter_mut(), |job| match rows.fit_layer(job.at, lambdas, gate, inner) {
            Ok(features) => *job.features = features,
            Err(error) => job.failed = Some(error),
        });
        if let Some(error) = wave.iter_mut().find_map(|job| job.failed.take()) {
            return Err(error);
        }
    }
    report(progress, done, total, "")?;
    let at = |set: &[usize], i: usize| &made[&(set[i], i.checked_sub(1).map(|before| set[before]))];
    let of = |set: &[usize], lambda: usize| (0..set.len()).map(|i| at(set, i)[lambda].clone()).collect();
    Ok(sets.iter().map(|set| (0..lambdas.len()).map(|lambda| of(set, lambda)).collect()).collect())
}

/// A layer, and the edited layer before it.
type At = (usize, Option<usize>);

/// A detector of a layer, fitted to tell the plain rows of the pairs from the silent ones: w·x + b is about 1 on those and
/// about 0 on these. The class-balanced ridge of [`Gate::Class`], as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// The block after which it reads.
    pub layer: usize,
    /// w `[d_model]`.
    pub weights: Vec<f32>,
    /// b.
    pub bias: f32,
}

impl Detector {
    /// w·x + b.
    pub fn read(&self, x: &[f32]) -> f32 {
        crate::num::dot(&self.weights, x) + self.bias
    }
}

/// Fits the detector of a layer.
///
/// # Errors
/// As [`fit`]; [`Kind::Argument`](crate::Kind::Argument) if there are no silent rows.
pub fn detect(rows: &Contrast, layer: usize, lambda: f64, threads: usize) -> Result<Detector> {
    let (sides, d) = (rows.sides(layer)?, rows.d_model);
    let n = sides.plain.len() / d;
    if sides.silent.is_empty() && sides.hard.is_empty() {
        return Err(Error::argument(format!(
            "learn: layer {layer}: there are no rows on which a detector must be silent"
        )));
    }
    let regression = Regression::new(sides.plain.clone(), vec![1.0; n], sides, d);
    let (weights, bias) = regression.solve(d, &[lambda], parallel::count(threads))?.remove(0);
    Ok(Detector { layer, weights, bias: bias as f32 })
}

struct Job<'f> {
    at: At,
    features: &'f mut Vec<Feature>,
    failed: Option<Error>,
}

/// What a gate is regressed on.
struct Regression {
    /// x: pairs first, then silent rows. `[n + m, d]`
    x: Vec<f32>,
    /// s, and zeros. `[n + m]`
    s: Vec<f64>,
    /// ω.
    weights: Vec<f64>,
}

impl Contrast {
    /// What the work on one layer holds: the rows twice, and a Gram matrix in three forms.
    fn job_bytes(&self) -> usize {
        let d = self.d_model;
        let n =
            self.layers.values().map(|s| (s.asked.len() + s.silent.len() + s.hard.len()) / d.max(1)).max().unwrap_or(0);
        let side = n.min(d);
        (n * d * 8).saturating_add(side * side * 24).max(1)
    }

    /// The feature of a layer for every λ.
    fn fit_layer(&self, (layer, before): At, lambdas: &[f64], gate: Gate, threads: usize) -> Result<Vec<Feature>> {
        let d = self.d_model;
        let sides = self.sides(layer)?;
        let before = before.map(|before| self.sides(before)).transpose()?;
        let n = sides.asked.len() / d;
        if before.is_some_and(|before| before.asked.len() != n * d) {
            return Err(Error::argument(format!("learn: expected {n} pairs of rows at every layer")));
        }
        // δ = A − B − (A' − B'), and x = A − δ.
        let mut delta: Vec<f32> = sides.asked.iter().zip(&sides.plain).map(|(a, b)| a - b).collect();
        if let Some(before) = before {
            let earlier = before.asked.iter().zip(&before.plain);
            delta.iter_mut().zip(earlier).for_each(|(delta, (a, b))| *delta -= a - b);
        }
        let mean = mean_row(&delta, d);
        let length = norm(&mean);
        if !(length.is_finite() && length > 0.0) {
            return Err(Error::numeric(format!("learn: layer {layer}: both runs have the same rows")));
        }
        let decoder: Vec<f32> = mean.iter().map(|v| v / length).collect();
        let along = |row: &[f32]| row.iter().zip(&decoder).map(|(&v, &z)| f64::from(v) * f64::from(z)).sum::<f64>();
        let s: Vec<f64> = match gate {
            Gate::Need => delta.chunks_exact(d).map(along).collect(),
            Gate::Class { .. } => vec![1.0; n],
        };
        let x: Vec<f32> = sides.asked.iter().zip(&delta).map(|(a, delta)| a - delta).collect();
        let regression = Regression::new(x, s, sides, d);
        let (m, n_hard) = (regression.s.len() - n, sides.hard.len() / d);
        let gates = regression.solve(d, lambdas, threads)?;
        let feature = |(w, b): (Vec<f32>, f64)| {
            let codes = regression.codes(&w, b);
            let (share, scales, wanted) = match gate {
                Gate::Need => {
                    let needs = regression.s[..n].iter().map(|s| s.max(0.0));
                    (SHUT, 1.0..=MOST_SCALE, needs.sum::<f64>() / n as f64)
                }
                Gate::Class { shut } => (shut, f64::MIN_POSITIVE..=f64::MAX, f64::from(length)),
            };
            let (w, b, codes) =
                if m > 0 { shut(w, b, codes, (n, n_hard), (share, wanted), scales) } else { (w, b, codes) };
            let fires = codes[..n].iter().filter(|&&f| f > 0.0).count();
            let total: f64 = delta.iter().map(|&v| f64::from(v).powi(2)).sum();
            // ‖δ − f z‖² = ‖δ‖² − 2 f s + f².
            let along = delta.chunks_exact(d).map(along);
            let left: f64 = codes.iter().zip(along).map(|(&f, s)| f.max(0.0) * (f.max(0.0) - 2.0 * s)).sum();
            Feature {
                layer,
                encoder: w,
                bias: b as f32,
                decoder: decoder.clone(),
                mean: length,
                max: codes[..n].iter().copied().fold(0.0, f64::max) as f32,
                density: (fires as f64 / n as f64) as f32,
                explained: (-left / total) as f32,
            }
        };
        Ok(gates.into_iter().map(feature).collect())
    }
}

/// Raises a gate's threshold to what `share` of the silent codes (those after the first n) and of the `n_hard` last ones reach, then scales it within
/// `scales` so that the mean of the first n is `wanted`.
fn shut(
    mut w: Vec<f32>,
    mut b: f64,
    mut codes: Vec<f64>,
    (n, n_hard): (usize, usize),
    (share, wanted): (f64, f64),
    scales: RangeInclusive<f64>,
) -> (Vec<f32>, f64, Vec<f64>) {
    let reach = |codes: &[f64]| {
        let mut sorted = codes.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len().saturating_sub(1) as f64 * share).round() as usize).copied().unwrap_or(0.0)
    };
    let (silent, hard) = codes[n..].split_at(codes.len() - n - n_hard);
    let threshold = reach(silent).max(reach(hard)).max(0.0);
    let left = codes[..n].iter().map(|f| (f - threshold).max(0.0)).sum::<f64>() / n as f64;
    let scale = (wanted / left.max(f64::MIN_POSITIVE)).clamp(*scales.start(), *scales.end());
    w.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
    b = (b - threshold) * scale;
    codes.iter_mut().for_each(|f| *f = (*f - threshold) * scale);
    (w, b, codes)
}

impl Regression {
    /// Of rows x with their targets, and behind them the silent rows of a layer with target 0, hard ones last. Both sides weigh
    /// alike, and so do hard silent rows and others.
    fn new(mut x: Vec<f32>, mut s: Vec<f64>, sides: &Sides, d: usize) -> Self {
        let n = s.len();
        let (silent, hard) = (sides.silent.len() / d, sides.hard.len() / d);
        x.extend_from_slice(&sides.silent);
        x.extend_from_slice(&sides.hard);
        s.resize(n + silent + hard, 0.0);
        let own = if silent + hard > 0 { 0.5 } else { 1.0 };
        let half = if silent > 0 && hard > 0 { 0.25 } else { 0.5 };
        let mut weights = vec![own / n as f64; n];
        weights.resize(n + silent, half / silent.max(1) as f64);
        weights.resize(n + silent + hard, half / hard.max(1) as f64);
        Self { x, s, weights }
    }

    /// w and b for every λ: the normal equations of the centred, weighted rows, in the space of the fewer of rows and columns.
    fn solve(&self, d: usize, lambdas: &[f64], threads: usize) -> Result<Vec<(Vec<f32>, f64)>> {
        let n = self.s.len();
        let mut mean = vec![0f64; d];
        for (row, weight) in self.x.chunks_exact(d).zip(&self.weights) {
            mean.iter_mut().zip(row).for_each(|(mean, &v)| *mean += weight * f64::from(v));
        }
        let middle: f64 = self.s.iter().zip(&self.weights).map(|(s, weight)| s * weight).sum();
        let mut x = self.x.clone();
        for (row, weight) in x.chunks_exact_mut(d).zip(&self.weights) {
            let root = weight.sqrt();
            row.iter_mut().zip(&mean).for_each(|(v, mean)| *v = ((f64::from(*v) - mean) * root) as f32);
        }
        let s: Vec<f32> = self.s.iter().zip(&self.weights).map(|(s, w)| ((s - middle) * w.sqrt()) as f32).collect();
        let variance = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / d as f64;
        let solved: Vec<Vec<f32>> = if n < d {
            let x = Mat::new(&x, n, d);
            let mut gram = vec![0f32; n * n];
            gemm(x, x.t(), false, &mut gram, threads);
            let gram: Vec<f64> = gram.into_iter().map(f64::from).collect();
            let s: Vec<f64> = s.iter().map(|&s| f64::from(s)).collect();
            let dual = |lambda: &f64| {
                let mut gram = gram.clone();
                gram.iter_mut().step_by(n + 1).for_each(|v| *v += lambda * variance);
                let a: Vec<f32> = cholesky_solve(&gram, &s, n)?.into_iter().map(|v| v as f32).collect();
                let mut w = vec![0f32; d];
                gemm(Mat::new(&a, 1, n), x, false, &mut w, threads);
                Ok(w)
            };
            lambdas.iter().map(dual).collect::<Result<_>>()?
        } else {
            let mut normal = Normal::new(d, 1);
            normal.add(&x, &s, threads)?;
            lambdas.iter().map(|lambda| normal.solve(lambda * variance)).collect::<Result<_>>()?
        };
        let with_bias = |w: Vec<f32>| {
            let at_mean: f64 = w.iter().zip(&mean).map(|(&w, mean)| f64::from(w) * mean).sum();
            (w, middle - at_mean)
        };
        Ok(solved.into_iter().map(with_bias).collect())
    }

    /// w·x + b of every row.
    fn codes(&self, w: &[f32], b: f64) -> Vec<f64> {
        let one = |row: &[f32]| row.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>() + b;
        self.x.chunks_exact(w.len()).map(one).collect()
    }
}

/// The mean of rows, summed in order.
fn mean_row(rows: &[f32], d: usize) -> Vec<f32> {
    let mut sum = vec![0f64; d];
    for row in rows.chunks_exact(d) {
        sum.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let n = (rows.len() / d.max(1)).max(1) as f64;
    sum.into_iter().map(|sum| (sum / n) as f32).collect()
}

#[cfg(test)]
mod tests;
