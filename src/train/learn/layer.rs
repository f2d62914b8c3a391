//! The features of one layer.

use std::ops::RangeInclusive;

use rand::Rng;

use super::ridge::Ridge;
use super::{At, Contrast, Feature, Fit, Gate};
use crate::error::{Error, Result};
use crate::num::{Mat, dot, gemm, linalg, norm, rng};

/// Differences longer than this many times the median are none of the instruction's: a token that holds attention (a sink)
/// in one of the runs only, for example.
const LONG: f32 = 4.0;
/// Share of the silent rows on which a gate stays shut.
const SHUT: f64 = 0.95;
/// The most that a gate is scaled back by after it was raised.
const MOST_SCALE: f64 = 8.0;
/// Rounds of the search for directions. What is left of others after them is less than what rows of another text change.
const ROUNDS: usize = 6;
/// Directions that the search keeps beyond those that are wanted.
const SPARE: usize = 4;

/// What the instruction does at a layer, row by row.
struct Moved {
    /// δ `[n, d]`; zeros where both runs differ for another reason.
    delta: Vec<f32>,
    /// Which rows count.
    usual: Vec<bool>,
    /// The mean of δ over those.
    mean: Vec<f32>,
}

impl Moved {
    fn new(mut delta: Vec<f32>, d: usize) -> Self {
        let usual = usual(&delta, d);
        let mean = mean_row(&delta, &usual, d);
        for (row, _) in delta.chunks_exact_mut(d).zip(&usual).filter(|(_, usual)| !**usual) {
            row.fill(0.0);
        }
        Self { delta, usual, mean }
    }

    /// δ·v for each of `directions` `[r, d]`, a row for each of `n` rows: where nothing is known of the instruction, the mean's.
    fn along(&self, directions: &[f32], r: usize, threads: usize) -> Vec<f32> {
        let d = self.mean.len();
        let (n, directions) = (self.usual.len(), Mat::new(directions, r, d));
        let (mut s, mut middle) = (vec![0f32; n * r], vec![0f32; r]);
        gemm(Mat::new(&self.delta, n, d), directions.t(), false, &mut s, threads);
        gemm(Mat::new(&self.mean, 1, d), directions.t(), false, &mut middle, threads);
        for (row, _) in s.chunks_exact_mut(r).zip(&self.usual).filter(|(_, usual)| !**usual) {
            row.copy_from_slice(&middle);
        }
        s
    }
}

impl Contrast {
    /// The features of a layer, those along the mean first.
    pub(super) fn fit_layer(&self, (layer, before): At, how: Fit, threads: usize) -> Result<Vec<Feature>> {
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
        let mut x: Vec<f32> = sides.asked.iter().zip(&delta).map(|(a, delta)| a - delta).collect();
        x.extend_from_slice(&sides.silent);
        x.extend_from_slice(&sides.hard);
        let moved = Moved::new(delta, d);
        let length = norm(&moved.mean);
        if !(length.is_finite() && length > 0.0) {
            return Err(Error::numeric(format!("learn: layer {layer}: both runs have the same rows")));
        }
        let ridge = Ridge::new(x, sides.weights(d), d, how.lambda, threads)?;
        let mut directions: Vec<f32> = moved.mean.iter().map(|v| v / length).collect();
        directions.extend(others(&ridge, &moved, &directions, how.rank.min(d) - 1, threads)?);
        let layer = Layer { number: layer, n_hard: sides.hard.len() / d, ridge, moved, gate: how.gate };
        layer.features(&directions, threads)
    }
}

/// What the features of a layer are made of.
struct Layer {
    number: usize,
    /// The last rows of the regression that are hard ones.
    n_hard: usize,
    ridge: Ridge,
    moved: Moved,
    gate: Gate,
}

impl Layer {
    /// The features along `directions` `[r, d]`: one for the first, two for each of the others, for it is needed both ways.
    fn features(&self, directions: &[f32], threads: usize) -> Result<Vec<Feature>> {
        let (d, n) = (self.moved.mean.len(), self.moved.usual.len());
        let r = directions.len() / d;
        let s = self.moved.along(directions, r, threads);
        let gates = match self.gate {
            Gate::Need => self.ridge.solve(&s, r)?,
            Gate::Class { .. } => self.ridge.solve(&vec![1.0; n], 1)?,
        };
        let turn = |row: &[f32], sign: f64| row.iter().map(|&v| (sign * f64::from(v)) as f32).collect::<Vec<f32>>();
        let mut features = Vec::with_capacity(2 * r - 1);
        for (k, (w, b)) in gates.into_iter().enumerate() {
            let both: &[f64] = if k == 0 { &[1.0] } else { &[1.0, -1.0] };
            for &sign in both {
                let needs: Vec<f64> = s[k..].iter().step_by(r).map(|&s| sign * f64::from(s)).collect();
                let decoder = turn(&directions[k * d..(k + 1) * d], sign);
                features.push(self.feature(k, (turn(&w, sign), sign * b), decoder, &needs));
            }
        }
        Ok(features)
    }

    /// The feature along a direction, of which rows need `needs`.
    fn feature(&self, direction: usize, gate: (Vec<f32>, f64), decoder: Vec<f32>, needs: &[f64]) -> Feature {
        let n = needs.len();
        let mean = |values: &mut dyn Iterator<Item = f64>| values.map(|f| f.max(0.0)).sum::<f64>() / n as f64;
        let (share, scales, wanted) = match self.gate {
            Gate::Need => (SHUT, 1.0..=MOST_SCALE, mean(&mut needs.iter().copied())),
            Gate::Class { shut } => (shut, f64::MIN_POSITIVE..=f64::MAX, f64::from(norm(&self.moved.mean))),
        };
        let codes = self.ridge.codes(&gate.0, gate.1);
        let (w, b, codes) = match codes.len() > n {
            true => shut(gate, codes, (n, self.n_hard), (share, wanted), scales),
            false => (gate.0, gate.1, codes),
        };
        let active: Vec<f64> = codes[..n].iter().map(|f| f.max(0.0)).collect();
        // ‖δ − f z‖² = ‖δ‖² − 2 f s + f².
        let rows = active.iter().zip(needs).zip(&self.moved.usual).filter(|(_, usual)| **usual);
        let left: f64 = rows.map(|((f, s), _)| f * (f - 2.0 * s)).sum();
        let total: f64 = self.moved.delta.iter().map(|&v| f64::from(v).powi(2)).sum();
        let along_mean = direction == 0;
        Feature {
            layer: self.number,
            direction,
            encoder: w,
            bias: b as f32,
            decoder,
            mean: if along_mean { norm(&self.moved.mean) } else { mean(&mut active.iter().copied()) as f32 },
            max: active.iter().copied().fold(0.0, f64::max) as f32,
            density: (active.iter().filter(|f| **f > 0.0).count() as f64 / n as f64) as f32,
            explained: (-left / total) as f32,
        }
    }
}

/// `r` more directions `[r, d]`, at right angles to `first` and to one another: those along which the ridge regression explains
/// most of δ, the best first. They are the leading eigenvectors of ΔᵀHΔ, where H takes targets to what is predicted of them
/// (reduced-rank ridge regression), found by orthogonal iteration.
fn others(ridge: &Ridge, moved: &Moved, first: &[f32], r: usize, threads: usize) -> Result<Vec<f32>> {
    let (d, n) = (first.len(), moved.usual.len());
    let m = (r + SPARE).min(d - 1);
    if r == 0 || m == 0 {
        return Ok(Vec::new());
    }
    let mut rng = rng(0);
    let mut v: Vec<f32> = (0..m * d).map(|_| rng.random_range(-1f32..1.0)).collect();
    orthonormal(&mut v, first);
    for round in 0.. {
        let s = moved.along(&v, m, threads);
        let predicted = ridge.predict(&s, m)?;
        // ΔᵀHΔ·V, a row for each direction.
        let mut turned = vec![0f32; m * d];
        let delta = Mat::new(&moved.delta, n, d);
        gemm(Mat::new(&predicted[..n * m], n, m).t(), delta, false, &mut turned, threads);
        if round == ROUNDS {
            let mut small = vec![0f32; m * m];
            gemm(Mat::new(&v, m, d), Mat::new(&turned, m, d).t(), false, &mut small, threads);
            let small: Vec<f64> = (0..m * m).map(|i| f64::from(small[i] + small[i % m * m + i / m]) / 2.0).collect();
            let rotation: Vec<f32> = linalg::eigenvectors(&small, m)[..r * m].iter().map(|&v| v as f32).collect();
            let mut best = vec![0f32; r * d];
            gemm(Mat::new(&rotation, r, m), Mat::new(&v, m, d), false, &mut best, threads);
            orthonormal(&mut best, first);
            return Ok(best);
        }
        v = turned;
        orthonormal(&mut v, first);
    }
    Ok(v)
}

/// Makes rows `[r, d]` unit vectors at right angles to `first`, a unit vector, and to those before them. A row that lies in the
/// others becomes zero.
fn orthonormal(rows: &mut [f32], first: &[f32]) {
    let d = first.len();
    for i in 0..rows.len() / d {
        let (before, rest) = rows.split_at_mut(i * d);
        let row = &mut rest[..d];
        let length = norm(row);
        // Twice, for what rounding leaves the first time.
        for _ in 0..2 {
            for other in std::iter::once(first).chain(before.chunks_exact(d)) {
                let along = dot(row, other);
                row.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
            }
        }
        let left = norm(row);
        let scale = if left > 1e-5 * length { 1.0 / left } else { 0.0 };
        row.iter_mut().for_each(|v| *v *= scale);
    }
}

/// Raises a gate's threshold to what `share` of the silent codes (those after the first n) and of the `n_hard` last ones
/// reach, then scales it within `scales` so that the mean of the first n is `wanted`.
fn shut(
    (mut w, mut b): (Vec<f32>, f64),
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

/// The mean of the rows that count, summed in order.
pub(super) fn mean_row(rows: &[f32], counts: &[bool], d: usize) -> Vec<f32> {
    let mut sum = vec![0f64; d];
    for (row, _) in rows.chunks_exact(d).zip(counts).filter(|(_, counts)| **counts) {
        sum.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let n = counts.iter().filter(|counts| **counts).count().max(1) as f64;
    sum.into_iter().map(|sum| (sum / n) as f32).collect()
}

/// Which of the differences `[n, d]` are about as long as most.
fn usual(delta: &[f32], d: usize) -> Vec<bool> {
    let lengths: Vec<f32> = delta.chunks_exact(d).map(norm).collect();
    let mut sorted = lengths.clone();
    sorted.sort_by(f32::total_cmp);
    let most = LONG * sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    lengths.iter().map(|length| *length <= most).collect()
}
