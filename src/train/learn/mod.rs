//! An instruction, distilled into features of each layer (PSR, arXiv 2605.03907, and more directions than its one).
//!
//! A model that is told to do something computes other rows than one that is not, over the same answer. The difference is
//! what the instruction does; the residual stream adds up, so every edited layer l answers only for its own part of it:
//!
//! ```text
//! Δ_l = A_l − B_l           rows of the asked run less those of the plain run, token by token
//! δ_l = Δ_l − Δ_l'          l' is the edited layer before l; Δ_l' = 0 for the first
//! z_0 = mean(δ_l)/‖·‖       the first direction; z_1, z_2, … are those besides along which x predicts most of δ
//! s_k = δ_l·z_k             how much of it a row needs, regressed on the row that a steered run will have, x = A_l − δ_l:
//! w_k, b_k = argmin Σ ω (s_k − w·x − b)² + λ σ² ‖w‖²       ω sum to 1, σ² is the mean variance of x
//! ```
//!
//! Each is a ReLU feature: encoder row w, bias b, decoder row z; but for the first there are two, (w, b, z) and (−w, −b, −z),
//! for they are needed both ways. `amplify` by α is the gated form x + α·Σ relu(w·x + b)·z; `add` of α multiples of the mean,
//! ‖mean δ_l‖ along z_0, is the constant form x + α·mean(δ_l), a control vector.
//!
//! *More than one direction*: the mean explains a few percent of δ, sixteen directions two to three times as much on rows
//! that they were not fitted on. SmolLM2 then says three times as many words of a subject, at the same perplexity.
//!
//! *Rows that do not count*: where a token holds attention (a sink) in one of the runs only, both differ by many times as much
//! as elsewhere, and a mean over all rows points at that. They are left out, and gates do there what they do on average.
//!
//! *When not to act*: rows of messages for which the instruction is not meant join with target 0, and weigh as much together
//! as all others. Gates then open above what 95 % of them reach, and are scaled back to their mean on the others.
//!
//! *Cost*: a Gram matrix of n·d² products and a Cholesky factor of d³/3 for each layer; the smaller of both sides is factored,
//! so few rows of a wide model are cheap. What comes out does not depend on the number of threads.
//!
//! | file | holds |
//! |---|---|
//! | `layer.rs` | the features of one layer |
//! | `detector.rs` | what tells rows apart and does nothing |
//! | `ridge.rs` | many regressions on the same rows |

mod detector;
mod layer;
mod ridge;

pub use detector::{Detector, detect};

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::num::{check_finite, parallel};
use crate::progress::{Progress, report};

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

impl Sides {
    /// ω of the pairs, then of the silent rows, then of the hard ones: both sides weigh alike, and so do hard silent rows and
    /// others.
    fn weights(&self, d: usize) -> Vec<f64> {
        let [n, silent, hard] = [&self.asked, &self.silent, &self.hard].map(|rows| rows.len() / d);
        let own = if silent + hard > 0 { 0.5 } else { 1.0 };
        let half = if silent > 0 && hard > 0 { 0.25 } else { 0.5 };
        let mut weights = vec![own / n as f64; n];
        weights.resize(n + silent, half / silent.max(1) as f64);
        weights.resize(n + silent + hard, half / hard.max(1) as f64);
        weights
    }
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
        let n = self.layers.values().map(|s| s.asked.len() + s.plain.len() + s.silent.len() + s.hard.len());
        n.sum::<usize>() * size_of::<f32>()
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
    /// 0 along the mean; others come in pairs of opposite decoder rows.
    pub direction: usize,
    /// w `[d_model]`.
    pub encoder: Vec<f32>,
    /// b.
    pub bias: f32,
    /// z `[d_model]`, of length 1.
    pub decoder: Vec<f32>,
    /// Along the mean ‖mean δ‖, otherwise the mean activation among the rows.
    pub mean: f32,
    /// Largest activation among the rows.
    pub max: f32,
    /// Share of the rows on which it fires.
    pub density: f32,
    /// Share of the sum of squares of δ that relu(w·x + b)·z explains.
    pub explained: f32,
}

impl Feature {
    /// Along the mean: mean δ `[d_model]`, what the constant form adds.
    pub fn constant(&self) -> Vec<f32> {
        self.decoder.iter().map(|z| z * self.mean).collect()
    }

    /// relu(w·x + b).
    pub fn activation(&self, x: &[f32]) -> f32 {
        (crate::num::dot(&self.encoder, x) + self.bias).max(0.0)
    }
}

/// How features are fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Directions a layer, the mean one among them.
    pub rank: usize,
    /// λ of the gates.
    pub lambda: f64,
    /// What the gates are regressed on.
    pub gate: Gate,
}

/// What a gate is regressed on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Gate {
    /// s, how much of the direction a row needs.
    Need,
    /// 1 for the pairs and 0 for silent rows, each side with half of the weight: the gate learns *when*. It opens above what
    /// `shut` of the silent rows reach, and is scaled so that the mean pair gets the mean increment. One direction only.
    Class {
        /// Share of the silent rows on which it stays shut.
        shut: f64,
    },
}

/// For every set of layers the features of all its layers, in order. Layers of a set rise. Progress counts layers; a layer that two sets share behind the same one is computed once.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for layers without rows or that do not rise, no rank, several with a class gate, or a λ that is no
/// positive number; [`Kind::Numeric`](crate::Kind::Numeric) if the two runs do not differ at a layer;
/// [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn fit(
    rows: &Contrast,
    sets: &[Vec<usize>],
    how: Fit,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<Vec<Feature>>> {
    let Fit { rank, lambda, gate } = how;
    if rank == 0 || rank > 1 && gate != Gate::Need || !(lambda.is_finite() && lambda > 0.0) {
        let expected = "expected a rank of at least 1 (of class gates 1) and a positive lambda";
        return Err(Error::argument(format!("learn: {expected}, found {rank} and {lambda}")));
    }
    let mut made: BTreeMap<At, Vec<Feature>> = BTreeMap::new();
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
    let side_by_side = (SIDE_BY_SIDE / rows.job_bytes(rank)).clamp(1, threads);
    let total = made.len() as u64;
    let mut jobs: Vec<Job<'_>> =
        made.iter_mut().map(|(at, features)| Job { at: *at, features, failed: None }).collect();
    let mut done = 0;
    for wave in jobs.chunks_mut(side_by_side) {
        report(progress, done, total, "")?;
        done += wave.len() as u64;
        let inner = (threads / wave.len()).max(1);
        parallel::each(wave.len(), wave.iter_mut(), |job| match rows.fit_layer(job.at, how, inner) {
            Ok(features) => *job.features = features,
            Err(error) => job.failed = Some(error),
        });
        if let Some(error) = wave.iter_mut().find_map(|job| job.failed.take()) {
            return Err(error);
        }
    }
    report(progress, done, total, "")?;
    let at = |set: &[usize], i: usize| made[&(set[i], i.checked_sub(1).map(|before| set[before]))].clone();
    Ok(sets.iter().map(|set| (0..set.len()).flat_map(|i| at(set, i)).collect()).collect())
}

/// A layer, and the edited layer before it.
type At = (usize, Option<usize>);

struct Job<'f> {
    at: At,
    features: &'f mut Vec<Feature>,
    failed: Option<Error>,
}

impl Contrast {
    /// What the work on one layer holds: the rows twice, a Gram matrix in three forms, and targets.
    fn job_bytes(&self, rank: usize) -> usize {
        let d = self.d_model;
        let n = self.layers.values().map(|s| (s.asked.len() + s.silent.len() + s.hard.len()) / d.max(1));
        let n = n.max().unwrap_or(0);
        let side = n.min(d);
        (n * (d + 8 * rank) * 8).saturating_add(side * side * 24).max(1)
    }
}

#[cfg(test)]
mod tests;
