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
//! *More than one direction*: the mean explains a few percent of δ, sixteen directions some three times as much on rows that
//! they were not fitted on, and texts follow: at the perplexity that asking costs, SmolLM2 says ten times as many words of a
//! subject.
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
//! | `ridge.rs` | many regressions on the same rows |

mod layer;
mod ridge;

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

    /// Pairs of rows at each layer.
    pub fn n_rows(&self) -> usize {
        self.layers.values().next().map_or(0, |sides| sides.asked.len() / self.d_model.max(1))
    }

    /// Bytes that all rows take.
    pub fn bytes(&self) -> usize {
        let n: usize = self.layers.values().map(|s| s.asked.len() + s.plain.len() + s.silent.len()).sum();
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

/// For every set of layers the features of all its layers, in order, each with `rank` directions and gates of `lambda`. Layers
/// of a set rise. Progress counts layers; a layer that two sets share behind the same one is computed once.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for layers without rows or that do not rise, no rank, or a λ that is no positive
/// number; [`Kind::Numeric`](crate::Kind::Numeric) if the two runs do not differ at a layer;
/// [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn fit(
    rows: &Contrast,
    sets: &[Vec<usize>],
    (rank, lambda): (usize, f64),
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<Vec<Feature>>> {
    if rank == 0 || !(lambda.is_finite() && lambda > 0.0) {
        let expected = "expected a rank of at least 1 and a positive lambda";
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
        parallel::each(wave.len(), wave.iter_mut(), |job| match rows.fit_layer(job.at, (rank, lambda), inner) {
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
        let n = self.layers.values().map(|s| (s.asked.len() + s.silent.len()) / d.max(1)).max().unwrap_or(0);
        let side = n.min(d);
        (n * (d + 8 * rank) * 8).saturating_add(side * side * 24).max(1)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::layer::mean_row;
    use super::*;
    use crate::Kind;
    use crate::num::{dot, norm, rng};
    use crate::progress::silent;

    const D: usize = 24;

    /// A run with planted directions: after layer 1 a row has moved by s·a, after layer 3 by s·a + 2·b, where s is 1 + 3 for
    /// every row whose number 5 is above 0.
    fn planted(n: usize, seed: u64) -> (Contrast, Vec<f32>) {
        let mut rng = rng(seed);
        let (mut rows, mut needs) = (Contrast::new(D), Vec::new());
        for _ in 0..n {
            let base: Vec<f32> = (0..D).map(|_| rng.random_range(-1f32..1.0)).collect();
            let s = if base[5] > 0.0 { 4.0 } else { 1.0 };
            let moved = |first: f32, second: f32| {
                let mut row = base.clone();
                row[0] += first;
                row[1] += second;
                row
            };
            rows.add(1, &moved(s, 0.0), &base).unwrap();
            rows.add(3, &moved(s, 2.0), &base).unwrap();
            needs.push(s);
        }
        (rows, needs)
    }

    fn one(rows: &Contrast, set: &[usize], threads: usize) -> Vec<Feature> {
        fit(rows, &[set.to_vec()], (1, 1e-3), threads, &mut silent).unwrap().remove(0)
    }

    #[test]
    fn planted_directions_are_found_and_each_layer_answers_for_its_own_part() {
        let (rows, needs) = planted(600, 1);
        let found = one(&rows, &[1, 3], 1);
        assert_eq!(found.iter().map(|f| f.layer).collect::<Vec<_>>(), [1, 3]);
        let mean = needs.iter().sum::<f32>() / needs.len() as f32;
        // Random numbers sum to zero up to rounding: a single axis each.
        assert!((found[0].decoder[0] - 1.0).abs() < 1e-4 && (found[0].mean - mean).abs() < 1e-3, "{:?}", found[0]);
        assert!((found[1].decoder[1] - 1.0).abs() < 1e-4 && (found[1].mean - 2.0).abs() < 1e-3, "{:?}", found[1]);
        // Alone, the later layer answers for both.
        let alone = &one(&rows, &[3], 1)[0];
        assert!((alone.mean - mean.hypot(2.0)).abs() < 1e-2, "{} for {}", alone.mean, mean.hypot(2.0));
    }

    #[test]
    fn the_gate_reads_where_more_is_needed() {
        let (rows, _) = planted(600, 2);
        let gate = &one(&rows, &[1], 1)[0];
        let (fresh, needs) = planted(300, 3);
        let base = &fresh.layers[&1].plain;
        let codes: Vec<f32> = base.chunks_exact(D).map(|x| gate.activation(x)).collect();
        let mean = |kind: f32| {
            let of: Vec<f32> = codes.iter().zip(&needs).filter(|(_, s)| **s == kind).map(|(f, _)| *f).collect();
            of.iter().sum::<f32>() / of.len() as f32
        };
        // The best line through a step between 1 and 4 on U(−1, 1) has the means 1.375 and 3.625 on its two sides.
        assert!((mean(1.0) - 1.375).abs() < 0.2 && (mean(4.0) - 3.625).abs() < 0.2, "{} {}", mean(1.0), mean(4.0));
    }

    /// Silent rows are those of messages that hold −2·c; wanted ones have nothing there.
    #[test]
    fn the_gate_is_shut_on_rows_with_target_zero() {
        let silent_rows = |seed| {
            let (other, _) = planted(400, seed);
            let mut rows = other.layers[&1].plain.clone();
            rows.chunks_exact_mut(D).for_each(|row| row[9] -= 3.0);
            rows
        };
        let mean = |gate: &Feature, rows: &[f32]| {
            rows.chunks_exact(D).map(|x| gate.activation(x)).sum::<f32>() / (rows.len() / D) as f32
        };
        let (mut rows, needs) = planted(400, 4);
        let (fresh, unseen) = (planted(300, 6).0.layers[&1].plain.clone(), silent_rows(7));
        let wanted = needs.iter().sum::<f32>() / needs.len() as f32;
        let open = &one(&rows, &[1], 1)[0];
        assert!(mean(open, &unseen) > 0.5 * wanted, "without silent rows the gate does not know when");
        rows.add_silent(1, &silent_rows(5)).unwrap();
        let gate = &one(&rows, &[1], 1)[0];
        assert!(mean(gate, &unseen) < 0.03 * wanted, "{}", mean(gate, &unseen));
        // Two samples of some hundred needs, each 1 or 4: their means alone differ by up to a tenth.
        assert!((mean(gate, &fresh) / wanted - 1.0).abs() < 0.15, "{} for {wanted}", mean(gate, &fresh));
    }

    #[test]
    fn threads_and_sides_give_the_same_features() {
        let (rows, _) = planted(200, 8);
        assert_eq!(one(&rows, &[1, 3], 1), one(&rows, &[1, 3], 3));
        // Fewer rows than columns: the dual equations have the same solution.
        let (few, _) = planted(D - 4, 9);
        let gate = &one(&few, &[1], 1)[0];
        let sides = &few.layers[&1];
        let s: Vec<f32> = sides
            .asked
            .chunks(D)
            .zip(sides.plain.chunks(D))
            .map(|(a, b)| dot(&gate.decoder, a) - dot(&gate.decoder, b))
            .collect();
        let (mu, middle) = (mean_row(&sides.plain, &vec![true; D - 4], D), s.iter().sum::<f32>() / s.len() as f32);
        let x: Vec<f32> = sides.plain.chunks(D).flat_map(|row| row.iter().zip(&mu).map(|(v, m)| v - m)).collect();
        let y: Vec<f32> = s.iter().map(|s| s - middle).collect();
        let variance = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / D as f64;
        let w = crate::num::linalg::ridge(&x, &y, D, 1, 1e-3 * variance, 1).unwrap();
        let error = norm(&w.iter().zip(&gate.encoder).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(&w);
        assert!(error < 1e-3, "{error}");
    }

    #[test]
    fn a_sink_of_one_run_turns_no_direction() {
        let (mut rows, _) = planted(400, 11);
        let (clean, sides) = (one(&rows, &[1], 1), rows.layers.get_mut(&1).unwrap());
        // One row of twenty differs by a hundred times as much along another axis.
        sides.asked.chunks_exact_mut(D).step_by(20).for_each(|row| row[7] += 300.0);
        let found = one(&rows, &[1], 1);
        assert!(dot(&found[0].decoder, &clean[0].decoder) > 0.999, "{:?}", found[0].decoder);
        assert!((found[0].mean / clean[0].mean - 1.0).abs() < 0.05 && found[0].max < 8.0, "{:?}", found[0]);
    }

    /// A row moves by 2 along axis 0, and along axis 1 by three times what it has on axis 5, either way.
    #[test]
    fn more_directions_bring_what_one_cannot() {
        let (mut rng, mut rows) = (rng(12), Contrast::new(D));
        for _ in 0..500 {
            let base: Vec<f32> = (0..D).map(|_| rng.random_range(-1f32..1.0)).collect();
            let mut moved = base.clone();
            moved[0] += 2.0;
            moved[1] += 3.0 * base[5];
            rows.add(1, &moved, &base).unwrap();
        }
        let set = || [vec![1]];
        let found = fit(&rows, &set(), (2, 1e-3), 1, &mut silent).unwrap().remove(0);
        assert_eq!(found.iter().map(|f| f.direction).collect::<Vec<_>>(), [0, 1, 1]);
        // The mean along axis 1 is zero up to a thirtieth of a standard deviation.
        assert!(found[0].decoder[0] > 0.99 && found[1].decoder[1].abs() > 0.99, "{found:?}");
        assert_eq!(found[1].decoder, found[2].decoder.iter().map(|v| -v).collect::<Vec<_>>());
        let all: f32 = found.iter().map(|f| f.explained).sum();
        assert!(all > 0.98 && found[0].explained < 0.7, "{all} {}", found[0].explained);
        let x = &rows.layers[&1].plain[..D];
        let edit: f32 = found[1..].iter().map(|f| f.activation(x) * f.decoder[1]).sum();
        assert!((edit - 3.0 * x[5]).abs() < 0.1, "{edit} for {}", 3.0 * x[5]);
        let first = fit(&rows, &set(), (1, 1e-3), 1, &mut silent).unwrap().remove(0);
        assert_eq!(first[0], found[0], "more directions leave the first as it is");
        assert_eq!(found, fit(&rows, &set(), (2, 1e-3), 3, &mut silent).unwrap().remove(0));
        assert_eq!(fit(&rows, &set(), (0, 0.1), 1, &mut silent).unwrap_err().kind(), Kind::Argument);
        // As many directions as the rows have: those that are left over are none.
        assert!(fit(&rows, &set(), (D, 0.1), 1, &mut silent).is_ok());
    }

    #[test]
    fn what_is_no_contrast_is_refused() {
        let (rows, _) = planted(40, 10);
        let kind = |rows: &Contrast, set: &[usize], lambda| {
            fit(rows, &[set.to_vec()], (1, lambda), 1, &mut silent).unwrap_err().kind()
        };
        assert_eq!(kind(&rows, &[2], 0.1), Kind::Argument);
        assert_eq!(kind(&rows, &[3, 1], 0.1), Kind::Argument);
        assert_eq!(kind(&rows, &[], 0.1), Kind::Argument);
        assert_eq!(kind(&rows, &[1], 0.0), Kind::Argument);
        assert_eq!(fit(&rows, &[vec![1]], (1, 0.1), 1, &mut |_| false).unwrap_err().kind(), Kind::Cancelled);
        let mut same = Contrast::new(2);
        same.add(1, &[1.0, 2.0], &[1.0, 2.0]).unwrap();
        assert_eq!(kind(&same, &[1], 0.1), Kind::Numeric);
        assert_eq!(same.add(1, &[1.0], &[1.0]).unwrap_err().kind(), Kind::Argument);
        assert_eq!(same.add(1, &[f32::NAN, 1.0], &[1.0, 1.0]).unwrap_err().kind(), Kind::Numeric);
        assert_eq!(same.add_silent(1, &[1.0, f32::INFINITY]).unwrap_err().kind(), Kind::Numeric);
    }
}
