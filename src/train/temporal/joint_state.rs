//! The parameters of a joint run, their gradients on a batch, and the checkpoint.

use std::ops::Range;
use std::path::Path;

use super::frame::Frame;
use super::joint::Losses;
use super::model::{Mixing, Temporal};
use super::order::{causal_order, ranks};
use super::sequences::Sequences;
use crate::error::{Error, Result};
use crate::file::safetensors::{Dtype, File, Writer};
use crate::num::{Mat, gemm, norm, rng};
use rand::Rng;

const FORMAT: &str = "tiller temporal checkpoint 1";
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPS: f32 = 1e-8;
/// What a reversed edge must leave at most, of what the edge leaves, to be turned.
const MARGIN: f64 = 0.99;

/// Values and what Adam keeps of their gradients.
#[derive(Clone, Default)]
pub(super) struct Parameter {
    pub(super) values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Parameter {
    fn zeros(len: usize) -> Self {
        Self { values: vec![0.0; len], first: vec![0.0; len], second: vec![0.0; len] }
    }

    /// One step of Adam, then the soft threshold of `beta` in Adam's metric; entries where `frozen` stay as they are.
    fn step(&mut self, gradient: &[f32], lr: f32, beta: f32, t: u64, frozen: impl Fn(usize) -> bool) {
        let bias = |b: f32| 1.0 - f64::from(b).powf(t as f64);
        let (stride, root) = ((f64::from(lr) / bias(BETA1)) as f32, (1.0 / bias(BETA2).sqrt()) as f32);
        for (at, &g) in gradient.iter().enumerate() {
            if frozen(at) {
                continue;
            }
            let (m, v) = (&mut self.first[at], &mut self.second[at]);
            *m = BETA1 * *m + (1.0 - BETA1) * g;
            *v = BETA2 * *v + (1.0 - BETA2) * g * g;
            let metric = v.sqrt() * root + EPS;
            let p = &mut self.values[at];
            *p -= stride * *m / metric;
            if beta > 0.0 {
                *p = p.signum() * (p.abs() - lr * beta / metric).max(0.0);
            }
        }
    }

    fn forget(&mut self, at: usize, value: f32) {
        (self.values[at], self.first[at], self.second[at]) = (value, 0.0, 0.0);
    }
}

/// A run between two steps.
pub(super) struct State {
    pub(super) n: usize,
    width: usize,
    lags: usize,
    /// The columns of the rows are the latents.
    codes: bool,
    pub(super) step: u64,
    pub(super) order: Vec<usize>,
    rank: Vec<usize>,
    /// `[n, width]` each; empty for codes.
    pub(super) encoder: Parameter,
    pub(super) decoder: Parameter,
    /// `[lags, n, n]`
    pub(super) b: Parameter,
    /// `[n, n]`
    pub(super) m: Parameter,
}

impl State {
    pub(super) fn empty(n: usize, width: usize, lags: usize, codes: bool) -> Self {
        let mixed = if codes { 0 } else { n * width };
        let order: Vec<usize> = (0..n).collect();
        Self {
            n,
            width,
            lags,
            codes,
            step: 0,
            rank: order.clone(),
            order,
            encoder: Parameter::zeros(mixed),
            decoder: Parameter::zeros(mixed),
            b: Parameter::zeros(lags * n * n),
            m: Parameter::zeros(n * n),
        }
    }

    /// Directions by chance, no weights.
    pub(super) fn start_random(&mut self, seed: u64) {
        let mut random = rng(seed);
        self.decoder.values.iter_mut().for_each(|v| *v = random.random_range(-1.0..1.0));
        self.normalize();
        self.encoder.values.clone_from(&self.decoder.values);
    }

    /// What the two-stage estimator found, in the units of `frame`.
    pub(super) fn start_from(&mut self, model: &Temporal, frame: &Frame) {
        let n = self.n;
        self.order = model.order.iter().map(|&i| i as usize).collect();
        self.rank = ranks(&self.order);
        // Codes are scaled one by one; rows share one scale, which cancels.
        let scale = |i: usize| if self.codes { frame.scale()[i] } else { 1.0 };
        for (to, from) in [(&mut self.m.values, &model.instantaneous), (&mut self.b.values, &model.lagged)] {
            to.iter_mut().zip(from).enumerate().for_each(|(at, (to, &w))| {
                *to = w * scale(at / n % n) / scale(at % n);
            });
        }
        if let (false, Some(mixing)) = (self.codes, &model.mixing) {
            self.decoder.values.clone_from(&mixing.directions);
            self.encoder.values.clone_from(mixing.encoder.as_ref().unwrap_or(&mixing.directions));
        }
    }

    pub(super) fn n_weights(&self) -> usize {
        self.b.values.iter().chain(&self.m.values).filter(|w| **w != 0.0).count()
    }

    /// Decoder rows of length 1.
    fn normalize(&mut self) {
        for row in self.decoder.values.chunks_exact_mut(self.width) {
            let length = norm(row).max(f32::MIN_POSITIVE);
            row.iter_mut().for_each(|v| *v /= length);
        }
    }

    fn parameters(&self) -> [(&'static str, &Parameter); 4] {
        [("encoder", &self.encoder), ("decoder", &self.decoder), ("B", &self.b), ("M", &self.m)]
    }

    /// Writes the checkpoint.
    pub(super) fn save(&self, path: &Path, recipe: &str) -> Result<()> {
        let mut w = Writer::new();
        w.metadata("format", FORMAT);
        w.metadata("recipe", recipe);
        w.metadata("step", &self.step.to_string());
        let order: Vec<u8> = self.order.iter().flat_map(|&i| (i as u64).to_le_bytes()).collect();
        w.tensor("order", Dtype::U64, &[self.n], order);
        for (name, p) in self.parameters() {
            for (suffix, values) in [("", &p.values), (".m", &p.first), (".v", &p.second)] {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                w.tensor(&format!("{name}{suffix}"), Dtype::F32, &[values.len()], bytes);
            }
        }
        w.write(path)
    }

    /// Takes up a run where its checkpoint left it; `false` if there is no file.
    pub(super) fn load(&mut self, path: &Path, recipe: &str) -> Result<bool> {
        if !path.exists() {
            return Ok(false);
        }
        let file = File::open(path)?;
        let found = file.metadata("format").unwrap_or("none");
        if found != FORMAT {
            return Err(Error::format(path, format!("metadata format: expected {FORMAT:?}, found {found:?}")));
        }
        if file.metadata("recipe") != Some(recipe) {
            let what = "the checkpoint is of other options or other rows; remove it or name another";
            return Err(Error::mismatch(format!("{}: {what}", path.display())));
        }
        let step = file.metadata("step").and_then(|s| s.parse().ok());
        self.step = step.ok_or_else(|| Error::format(path, "metadata step: expected a number"))?;
        let order = file.tensor("order")?.expect_shape(&[self.n])?;
        self.order = order
            .bytes()
            .chunks_exact(8)
            .filter_map(|b| b.try_into().ok())
            .map(u64::from_le_bytes)
            .map(|v| v as usize)
            .collect();
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if !sorted.iter().enumerate().all(|(i, &v)| i == v) || sorted.len() != self.n {
            return Err(Error::format(path, "tensor \"order\": expected every latent once"));
        }
        self.rank = ranks(&self.order);
        let parameters =
            [("encoder", &mut self.encoder), ("decoder", &mut self.decoder), ("B", &mut self.b), ("M", &mut self.m)];
        for (name, p) in parameters {
            for (suffix, values) in [("", &mut p.values), (".m", &mut p.first), (".v", &mut p.second)] {
                let tensor = file.tensor(&format!("{name}{suffix}"))?.expect_shape(&[values.len()])?;
                *values = tensor.to_f32()?.into_owned();
            }
        }
        Ok(true)
    }

    /// The model in the units of the rows.
    pub(super) fn finish(
        &self,
        sequences: &Sequences<'_>,
        frame: &Frame,
        recipe: String,
        threads: usize,
    ) -> Result<Temporal> {
        let n = self.n;
        // Rows share one scale, which their latents carry along.
        let scale: Vec<f32> = if self.codes { frame.scale().to_vec() } else { vec![frame.scale()[0]; n] };
        let own = |values: &[f32]| -> Vec<f32> {
            values.iter().enumerate().map(|(at, w)| w * scale[at % n] / scale[at / n % n]).collect()
        };
        let (mixing, mean) = if self.codes {
            let directions = sequences.directions().to_vec();
            let d = directions.len() / n;
            let known = !directions.is_empty();
            (known.then(|| Mixing { directions, encoder: None, offset: vec![0.0; d] }), frame.mean.clone())
        } else {
            let encoder = Some(self.encoder.values.clone());
            (
                Some(Mixing { directions: self.decoder.values.clone(), encoder, offset: frame.mean.clone() }),
                vec![0.0; n],
            )
        };
        let mut model = Temporal {
            n,
            lags: self.lags,
            lagged: own(&self.b.values),
            instantaneous: own(&self.m.values),
            order: self.order.iter().map(|&i| i as u32).collect(),
            mean,
            deviation: Vec::new(),
            noise: Vec::new(),
            mixing,
            features: if self.codes { sequences.features().to_vec() } else { Vec::new() },
            origin: sequences.origin().clone(),
            recipe,
        };
        (model.deviation, model.noise) = self.spread(sequences, frame, &scale, threads)?;
        Ok(model)
    }

    /// Standard deviations of the latents and E|ε|, in the units of the rows, counted in one pass.
    fn spread(
        &self,
        sequences: &Sequences<'_>,
        frame: &Frame,
        scale: &[f32],
        threads: usize,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let n = self.n;
        let (mut sum, mut squares, mut sizes) = (vec![0f64; n], vec![0f64; n], vec![0f64; n]);
        let mut count = 0usize;
        let mut batch = Batch::default();
        for document in 0..sequences.n_documents() {
            let len = sequences.document_len(document);
            for first in (self.lags..len).step_by(super::frame::CHUNK) {
                let last = (first + super::frame::CHUNK).min(len);
                batch.clear();
                batch.add(sequences, frame, document, first - self.lags..last, threads)?;
                batch.differentiate(self, last - first, 0.0, threads);
                count += last - first;
                for (z, e) in batch.z[0].chunks_exact(n).zip(batch.noise.chunks_exact(n)) {
                    for i in 0..n {
                        sum[i] += f64::from(z[i]);
                        squares[i] += f64::from(z[i]) * f64::from(z[i]);
                        sizes[i] += f64::from(e[i].abs());
                    }
                }
            }
        }
        let total = count.max(1) as f64;
        let deviation = |i: usize| (squares[i] / total - (sum[i] / total).powi(2)).max(0.0).sqrt() as f32 / scale[i];
        let noise = |i: usize| (sizes[i] / total) as f32 / scale[i];
        Ok(((0..n).map(deviation).collect(), (0..n).map(noise).collect()))
    }
}

/// Pieces of text, and what they say about the parameters.
#[derive(Default)]
pub(super) struct Batch {
    /// Rows of all pieces with their past, `[rows, width]`.
    rows: Vec<f32>,
    raw: Vec<f32>,
    piece: Vec<f32>,
    /// Latents of the targets (0) and of the rows 1 … lags before them, `[targets, n]` each.
    z: Vec<Vec<f32>>,
    /// ε̂ of the targets.
    noise: Vec<f32>,
    pub(super) encoder: Vec<f32>,
    pub(super) decoder: Vec<f32>,
    pub(super) b: Vec<f32>,
    pub(super) m: Vec<f32>,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }

    pub(super) fn add(
        &mut self,
        sequences: &Sequences<'_>,
        frame: &Frame,
        document: usize,
        rows: Range<usize>,
        threads: usize,
    ) -> Result<()> {
        self.raw.resize(rows.len() * sequences.width(), 0.0);
        sequences.read(document, rows, &mut self.raw)?;
        frame.apply(&mut self.raw, &mut self.piece, threads);
        self.rows.extend_from_slice(&self.piece);
        Ok(())
    }

    /// Loss and gradients of pieces of `targets` targets each: mean over targets of ‖x − x̂‖² + α‖ε̂‖₁. β is the matter of
    /// the step.
    pub(super) fn differentiate(&mut self, state: &State, targets: usize, alpha: f32, threads: usize) -> Losses {
        let &State { n, width, lags, codes, .. } = state;
        let per_piece = targets + lags;
        let pieces = self.rows.len() / width / per_piece;
        let (all, m) = (pieces * per_piece, pieces * targets);
        let encoded = match codes {
            true => std::mem::take(&mut self.rows),
            false => {
                let mut z = vec![0f32; all * n];
                let e = Mat::new(&state.encoder.values, n, width);
                gemm(Mat::new(&self.rows, all, width), e.t(), false, &mut z, threads);
                z
            }
        };
        self.z.resize_with(lags + 1, Vec::new);
        for (k, z) in self.z.iter_mut().enumerate() {
            z.clear();
            for piece in encoded.chunks_exact(per_piece * n) {
                z.extend_from_slice(&piece[(lags - k) * n..(lags - k + targets) * n]);
            }
        }
        // ε̂ = z_t − M z_t − Σ B_τ z_{t−τ}: the products are taken with the other sign first.
        let square = n * n;
        self.noise.clear();
        self.noise.extend(self.z[0].iter().map(|v| -v));
        let weights = std::iter::once(&state.m.values[..]).chain(state.b.values.chunks_exact(square));
        for (w, z) in weights.zip(&self.z) {
            gemm(Mat::new(z, m, n), Mat::new(w, n, n).t(), true, &mut self.noise, threads);
        }
        self.noise.iter_mut().for_each(|v| *v = -*v);
        let size: f64 = self.noise.iter().map(|v| f64::from(v.abs())).sum();
        let unit = alpha / m as f32;
        // The sign of 0 is taken as 0: exact zeros pull nowhere.
        let pull: Vec<f32> = self.noise.iter().map(|&v| if v == 0.0 { 0.0 } else { unit * v.signum() }).collect();
        let mut losses = Losses { error: 0.0, noise: size / (m * n) as f64 };
        if alpha != 0.0 {
            let minus: Vec<f32> = pull.iter().map(|v| -v).collect();
            self.m.resize(square, 0.0);
            self.b.resize(lags * square, 0.0);
            gemm(Mat::new(&minus, m, n).t(), Mat::new(&self.z[0], m, n), false, &mut self.m, threads);
            for (b, z) in self.b.chunks_exact_mut(square).zip(&self.z[1..]) {
                gemm(Mat::new(&minus, m, n).t(), Mat::new(z, m, n), false, b, threads);
            }
            if !codes {
                losses.error = self.mixed(state, targets, &pull, &minus, threads);
            }
        }
        if codes {
            self.rows = encoded;
        }
        losses
    }

    /// The gradients of encoder and decoder; returns the error over the width.
    fn mixed(&mut self, state: &State, targets: usize, pull: &[f32], minus: &[f32], threads: usize) -> f64 {
        let &State { n, width, lags, .. } = state;
        let (per_piece, square) = (targets + lags, n * n);
        let all = self.rows.len() / width;
        let m = pull.len() / n;
        let mut x = Vec::with_capacity(m * width);
        self.rows.chunks_exact(per_piece * width).for_each(|piece| x.extend_from_slice(&piece[lags * width..]));
        // r = x̂ − x
        let mut r: Vec<f32> = x.iter().map(|v| -v).collect();
        let d = Mat::new(&state.decoder.values, n, width);
        gemm(Mat::new(&self.z[0], m, n), d, true, &mut r, threads);
        let error: f64 = r.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        let unit = 2.0 / m as f32;
        r.iter_mut().for_each(|v| *v *= unit);
        self.decoder.resize(n * width, 0.0);
        gemm(Mat::new(&self.z[0], m, n).t(), Mat::new(&r, m, width), false, &mut self.decoder, threads);
        // What reaches the latents of the targets and of the rows before.
        let mut dz = vec![0f32; all * n];
        let mut part = pull.to_vec();
        gemm(Mat::new(minus, m, n), Mat::new(&state.m.values, n, n), true, &mut part, threads);
        gemm(Mat::new(&r, m, width), d.t(), true, &mut part, threads);
        let mut scatter = |part: &[f32], lag: usize| {
            for (to, from) in dz.chunks_exact_mut(per_piece * n).zip(part.chunks_exact(targets * n)) {
                to[(lags - lag) * n..].iter_mut().zip(from).for_each(|(to, v)| *to += v);
            }
        };
        scatter(&part, 0);
        for (k, b) in state.b.values.chunks_exact(square).enumerate() {
            gemm(Mat::new(minus, m, n), Mat::new(b, n, n), false, &mut part, threads);
            scatter(&part, k + 1);
        }
        self.encoder.resize(n * width, 0.0);
        gemm(Mat::new(&dz, all, n).t(), Mat::new(&self.rows, all, width), false, &mut self.encoder, threads);
        error / (m * width) as f64
    }

    /// One step along the gradients of the last [`Batch::differentiate`].
    pub(super) fn apply(&self, state: &mut State, lr: f32, beta: f32) {
        let n = state.n;
        let t = state.step + 1;
        let rank = &state.rank;
        state.b.step(&self.b, lr, beta, t, |_| false);
        state.m.step(&self.m, lr, beta, t, |at| rank[at % n] >= rank[at / n]);
        if !state.codes {
            state.encoder.step(&self.encoder, lr, 0.0, t, |_| false);
            state.decoder.step(&self.decoder, lr, 0.0, t, |_| false);
            state.normalize();
        }
    }

    /// Looks at the causal order again, on the noise of the last batch.
    ///
    /// An edge j → i of weight m is kept unless the reversed edge would leave less than E|ε_j|·E|ε_i| (the Laplace likelihood
    /// of the pair) by more than chance does in a batch; where the order forbids an edge, its wish is the gradient past β.
    pub(super) fn reorder(&self, state: &mut State, alpha: f32, beta: f32) {
        let n = state.n;
        let m = self.noise.len() / n;
        let column = |z: &[f32], i: usize| -> Vec<f32> { z.iter().skip(i).step_by(n).copied().collect() };
        let noise: Vec<Vec<f32>> = (0..n).map(|i| column(&self.noise, i)).collect();
        let size = |v: &[f32]| v.iter().map(|v| f64::from(v.abs())).sum::<f64>() / m as f64;
        let sizes: Vec<f64> = noise.iter().map(|v| size(v)).collect();
        let mut wishes = vec![0f64; n * n];
        let mut turned = vec![0f32; n * n];
        for i in 0..n {
            for j in (0..n).filter(|&j| j != i) {
                let (at, back) = (i * n + j, j * n + i);
                let weight = state.m.values[at];
                if weight != 0.0 {
                    let q: Vec<f32> = noise[i].iter().zip(&noise[j]).map(|(e, p)| e + weight * p).collect();
                    let square: f64 = q.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
                    let cross: f64 = q.iter().zip(&noise[j]).map(|(q, p)| f64::from(*q) * f64::from(*p)).sum();
                    let b = (cross / square.max(f64::MIN_POSITIVE)) as f32;
                    let rest: Vec<f32> = noise[j].iter().zip(&q).map(|(p, q)| p - b * q).collect();
                    let (kept, reversed) = (sizes[i] * sizes[j], size(&q) * size(&rest));
                    if reversed < MARGIN * kept {
                        wishes[back] += f64::from(b.abs());
                        turned[back] = b;
                    } else {
                        wishes[at] += f64::from(weight.abs());
                    }
                } else if state.rank[j] > state.rank[i] && state.m.values[back] == 0.0 {
                    let past = (self.m[at].abs() - 2.0 * beta).max(0.0) / alpha.max(f32::MIN_POSITIVE);
                    wishes[at] += f64::from(past);
                }
            }
        }
        state.order = causal_order(&wishes, n);
        state.rank = ranks(&state.order);
        for at in 0..n * n {
            let allowed = state.rank[at % n] < state.rank[at / n];
            if turned[at] != 0.0 && allowed {
                state.m.forget(at, turned[at]);
            } else if state.m.values[at] != 0.0 && (!allowed || turned[at % n * n + at / n] != 0.0) {
                state.m.forget(at, 0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss as the paper writes it, in f64, on rows that lie in one piece.
    fn loss(state: &State, rows: &[f32], alpha: f64) -> f64 {
        let (n, w, lags) = (state.n, state.width, state.lags);
        let total = rows.len() / w;
        let z = |t: usize, i: usize| -> f64 {
            match state.codes {
                true => f64::from(rows[t * w + i]),
                false => (0..w).map(|c| f64::from(state.encoder.values[i * w + c]) * f64::from(rows[t * w + c])).sum(),
            }
        };
        let mut sum = 0.0;
        for t in lags..total {
            for i in 0..n {
                let mut e = z(t, i);
                for j in 0..n {
                    e -= f64::from(state.m.values[i * n + j]) * z(t, j);
                    for k in 0..lags {
                        e -= f64::from(state.b.values[(k * n + i) * n + j]) * z(t - 1 - k, j);
                    }
                }
                sum += alpha * e.abs();
            }
            if !state.codes {
                for c in 0..w {
                    let back: f64 = (0..n).map(|i| f64::from(state.decoder.values[i * w + c]) * z(t, i)).sum();
                    sum += (back - f64::from(rows[t * w + c])).powi(2);
                }
            }
        }
        sum / (total - lags) as f64
    }

    #[test]
    fn gradients_are_those_of_the_loss() {
        for codes in [false, true] {
            let (n, w, lags, targets) = (4, if codes { 4 } else { 6 }, 2, 9);
            let mut random = rng(11);
            let mut draw = |values: &mut [f32]| values.iter_mut().for_each(|v| *v = random.random_range(-1.0..1.0));
            let mut state = State::empty(n, w, lags, codes);
            for p in [&mut state.encoder, &mut state.decoder, &mut state.b, &mut state.m] {
                draw(&mut p.values);
            }
            let mut rows = vec![0f32; (targets + lags) * w];
            draw(&mut rows);
            let mut batch = Batch { rows: rows.clone(), ..Batch::default() };
            batch.differentiate(&state, targets, 0.7, 2);
            let h = 2e-5f32;
            type Access = fn(&mut State) -> &mut Parameter;
            let checks: [(&str, Access, &[f32]); 4] = [
                ("encoder", |s| &mut s.encoder, &batch.encoder),
                ("decoder", |s| &mut s.decoder, &batch.decoder),
                ("B", |s| &mut s.b, &batch.b),
                ("M", |s| &mut s.m, &batch.m),
            ];
            for (name, parameter, gradient) in checks {
                assert!(codes || !gradient.is_empty(), "{name}");
                for (at, &found) in gradient.iter().enumerate() {
                    let before = parameter(&mut state).values[at];
                    let mut shifted = |by: f32| {
                        let value = before + by;
                        parameter(&mut state).values[at] = value;
                        (loss(&state, &rows, 0.7), f64::from(value))
                    };
                    let ((up, high), (down, low)) = (shifted(h), shifted(-h));
                    parameter(&mut state).values[at] = before;
                    let want = (up - down) / (high - low);
                    // A kink of |ε| inside ±h would show as a jump of at most 2·α·|z|/targets; the seed has none.
                    assert!(
                        (f64::from(found) - want).abs() < 2e-3 * (1.0 + want.abs()),
                        "{name}[{at}]: {found} {want}"
                    );
                }
            }
        }
    }
}
