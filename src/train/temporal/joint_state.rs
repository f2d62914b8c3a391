//! The parameters of a joint run, and its checkpoint.

use std::path::Path;

use super::frame::Frame;
use super::joint_batch::Batch;
use super::model::{Mixing, Temporal};
use super::order::ranks;
use super::sequences::Sequences;
use crate::error::{Error, Result};
use crate::file::safetensors::{Dtype, File, Writer};
use crate::num::{norm, rng};
use rand::Rng;

const FORMAT: &str = "tiller temporal checkpoint 1";
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPS: f32 = 1e-8;

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
    pub(super) fn step(&mut self, gradient: &[f32], lr: f32, beta: f32, t: u64, frozen: impl Fn(usize) -> bool) {
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

    pub(super) fn forget(&mut self, at: usize, value: f32) {
        (self.values[at], self.first[at], self.second[at]) = (value, 0.0, 0.0);
    }
}

/// A run between two steps.
pub(super) struct State {
    pub(super) n: usize,
    pub(super) width: usize,
    pub(super) lags: usize,
    /// The columns of the rows are the latents.
    pub(super) codes: bool,
    pub(super) step: u64,
    pub(super) order: Vec<usize>,
    pub(super) rank: Vec<usize>,
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
    pub(super) fn normalize(&mut self) {
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
