//! What a batch says about the parameters of a joint run: the loss, its gradients, the step, and the causal order.

use std::ops::Range;

use super::frame::Frame;
use super::joint::Losses;
use super::joint_state::State;
use super::order::{causal_order, ranks};
use super::sequences::Sequences;
use crate::error::Result;
use crate::num::{Mat, gemm};

/// What a reversed edge must leave at most, of what the edge leaves, to be turned.
const MARGIN: f64 = 0.99;

/// Pieces of text, and what they say about the parameters.
#[derive(Default)]
pub(super) struct Batch {
    /// Rows of all pieces with their past, `[rows, width]`.
    rows: Vec<f32>,
    raw: Vec<f32>,
    piece: Vec<f32>,
    /// Latents of the targets (0) and of the rows 1 … lags before them, `[targets, n]` each.
    pub(super) z: Vec<Vec<f32>>,
    /// ε̂ of the targets.
    pub(super) noise: Vec<f32>,
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
    use rand::Rng;

    use super::super::joint_state::Parameter;
    use super::*;
    use crate::num::rng;

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
