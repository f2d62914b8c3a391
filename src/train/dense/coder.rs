//! A trained coder.

use super::fit::{State, read};
use super::frame::Frame;
use super::normalizer::{EPS, standardize};
use super::options::{Objective, Options, Regularizer};
use crate::dictionary::{Activation, Dictionary, FeatureStats, Info, Parts, Settings};
use crate::error::{Error, Result};
use crate::num::parallel::{count, each};
use crate::num::{self, Mat, gemm};
use crate::progress::{Progress, report};
use crate::train::rows::{Rows, order};

/// Rows coded at once.
const BLOCK: usize = 512;

/// `z = gain∘R(W_enc·n(x) + b_enc) + shift`, `x̂ = z·W_dec + b_dec`, in the units of the rows; n is the identity, or a
/// row's own LayerNorm (SSAE).
///
/// Row `i` of `W_dec` is the direction of code `i`: what steering adds. The file is safetensors, for anybody to read:
///
/// | tensor | shape | |
/// |---|---|---|
/// | `W_enc`, `W_dec` | `[n_latents, d_model]` | a row for each code |
/// | `b_enc`, `gain`, `shift` | `[n_latents]` | |
/// | `b_dec` | `[d_model]` | |
/// | `running.mean`, `running.variance` | `[n_latents]` | BatchNorm only: R is `(p − mean)/√(variance + 1e-5)` |
/// | `spread` | `[groups]` | Layer- and GroupNorm: mean over rows of a group's standard deviation |
/// | `stats.density`, `stats.max`, `stats.mean` | `[n_latents]` | share of rows with z > 0, largest z, mean of positive z |
///
/// Metadata: `format`, `regularizer` (`layer_norm`, `group_norm:8`, `batch_norm`, `dropout:0.1`), `input` (`none`,
/// `layer_norm`), `recipe`, `name`, `model`, `model_fingerprint`, `layer`, `hook`.
#[derive(Clone, Debug, PartialEq)]
pub struct Coder {
    pub(super) d: usize,
    pub(super) n: usize,
    pub(super) regularizer: Regularizer,
    /// Whether a row goes through a LayerNorm of its own first.
    pub(super) normalizes_input: bool,
    pub(super) encoder: Vec<f32>,
    pub(super) decoder: Vec<f32>,
    pub(super) encoder_bias: Vec<f32>,
    pub(super) decoder_bias: Vec<f32>,
    pub(super) gain: Vec<f32>,
    pub(super) shift: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
    pub(super) spread: Vec<f32>,
    pub(super) stats: Vec<FeatureStats>,
    pub(super) info: Info,
}

impl Coder {
    /// The coder that a run has come to, folded to the units of the rows; statistics are missing still.
    pub(super) fn of(state: &State, options: &Options, rows: &Rows<'_>) -> Result<Self> {
        let State { network, frame, .. } = state;
        let Frame { middle, scale, .. } = frame;
        let (n, d) = (network.n, network.d);
        let mut encoder = network.encoder.values.clone();
        let mut encoder_bias = network.encoder_bias.values.clone();
        let mut decoder = network.decoder.values.clone();
        let (mut gain, mut shift) = (network.gain.values.clone(), network.shift.values.clone());
        let bias = &network.decoder_bias.values;
        let inner = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let ssae = matches!(options.objective, Objective::Ssae { .. });
        for (row, b) in encoder.chunks_exact_mut(d).zip(&mut encoder_bias) {
            if ssae {
                *b = (f64::from(*b) - inner(row, bias)) as f32;
            } else {
                *b = (f64::from(*b) - f64::from(*scale) * inner(row, middle)) as f32;
                row.iter_mut().for_each(|w| *w *= scale);
            }
        }
        if ssae {
            // Decoder rows stay at norm 1, so the codes carry the unit.
            gain.iter_mut().chain(&mut shift).for_each(|v| *v /= scale);
        } else {
            decoder.iter_mut().for_each(|w| *w /= scale);
        }
        let coder = Self {
            d,
            n,
            regularizer: options.regularizer,
            normalizes_input: ssae,
            encoder,
            decoder,
            encoder_bias,
            decoder_bias: bias.iter().zip(middle).map(|(b, m)| b / scale + m).collect(),
            gain,
            shift,
            mean: network.mean.clone(),
            variance: network.variance.clone(),
            spread: vec![1.0; options.regularizer.groups()],
            stats: vec![FeatureStats::default(); n],
            info: Info { recipe: options.recipe(), ..rows.info().clone() },
        };
        coder.check().map_err(Error::numeric)?;
        Ok(coder)
    }

    /// Counts what the codes do on up to `statistics_rows` of the rows.
    pub(super) fn with_statistics(
        mut self,
        rows: &Rows<'_>,
        options: &Options,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        let chosen = order(rows.len(), options.seed, u32::MAX - 1);
        let chosen = &chosen[..chosen.len().min(options.statistics_rows.max(1))];
        let frame = Frame { middle: vec![0.0; self.d], scale: 1.0, limit: f32::INFINITY };
        let mut x = vec![0f32; BLOCK * self.d];
        let (mut active, mut sum) = (vec![0u32; self.n], vec![0f64; self.n]);
        let mut max = vec![f32::NEG_INFINITY; self.n];
        let mut spread = vec![0f64; self.spread.len()];
        let mut done = 0u64;
        for ids in chosen.chunks(BLOCK) {
            let x = &mut x[..ids.len() * self.d];
            read(rows, ids, &frame, x, options.threads)?;
            let (codes, spreads) = self.encode_with_spread(x, options.threads);
            for row in codes.chunks_exact(self.n) {
                for (i, &z) in row.iter().enumerate() {
                    max[i] = max[i].max(z);
                    if z > 0.0 {
                        active[i] += 1;
                        sum[i] += f64::from(z);
                    }
                }
            }
            if !spread.is_empty() {
                let groups = spread.len();
                for row in spreads.chunks_exact(groups) {
                    spread.iter_mut().zip(row).for_each(|(sum, &s)| *sum += f64::from(s));
                }
            }
            done += ids.len() as u64;
            report(progress, done, chosen.len() as u64, "statistics")?;
        }
        self.spread = spread.iter().map(|sum| (sum / done as f64) as f32).collect();
        let one = |i: usize| FeatureStats {
            density: (f64::from(active[i]) / done as f64) as f32,
            max: max[i],
            mean: (sum[i] / f64::from(active[i].max(1))) as f32,
        };
        self.stats = (0..self.n).map(one).collect();
        Ok(self)
    }

    /// Whether all weights are finite; says which are not.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let all: [(&str, &[f32]); 9] = [
            ("W_enc", &self.encoder),
            ("W_dec", &self.decoder),
            ("b_enc", &self.encoder_bias),
            ("b_dec", &self.decoder_bias),
            ("gain", &self.gain),
            ("shift", &self.shift),
            ("running.mean", &self.mean),
            ("running.variance", &self.variance),
            ("spread", &self.spread),
        ];
        for (name, values) in all {
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return Err(format!("tensor \"{name}\": expected finite numbers, found {} at {at}", values[at]));
            }
        }
        Ok(())
    }

    /// Width of the rows.
    pub fn d_model(&self) -> usize {
        self.d
    }

    /// Number of codes.
    pub fn n_latents(&self) -> usize {
        self.n
    }

    /// R.
    pub fn regularizer(&self) -> Regularizer {
        self.regularizer
    }

    /// Whether it codes differences of rows (SSAE), each through a LayerNorm of its own.
    pub fn codes_differences(&self) -> bool {
        self.normalizes_input
    }

    /// Where it comes from and belongs to.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// What code `i` did on the rows: density is the share of rows with z > 0.
    ///
    /// # Panics
    /// When there is no code `i`.
    pub fn stats(&self, i: usize) -> FeatureStats {
        self.stats[i]
    }

    /// The direction of code `i`, `[d_model]`.
    ///
    /// # Panics
    /// When there is no code `i`.
    pub fn decoder_row(&self, i: usize) -> &[f32] {
        &self.decoder[i * self.d..(i + 1) * self.d]
    }

    /// The codes `[n, n_latents]` of rows `x` `[n, d_model]`. `threads` 0: all that the machine has.
    ///
    /// # Panics
    /// If `x` is no whole number of rows.
    pub fn encode(&self, x: &[f32], threads: usize) -> Vec<f32> {
        self.encode_with_spread(x, count(threads)).0
    }

    /// The codes, and the standard deviation of each row's groups `[n, groups]`.
    fn encode_with_spread(&self, x: &[f32], threads: usize) -> (Vec<f32>, Vec<f32>) {
        let (n, d, r) = (self.n, self.d, self.regularizer);
        assert!(x.len().is_multiple_of(d), "{} values are no rows of width {d}", x.len());
        let rows = x.len() / d;
        let mut input = x.to_vec();
        if self.normalizes_input {
            input.chunks_exact_mut(d).for_each(|row| {
                standardize(row);
            });
        }
        let mut codes = Vec::with_capacity(rows * n);
        (0..rows).for_each(|_| codes.extend_from_slice(&self.encoder_bias));
        gemm(Mat::new(&input, rows, d), Mat::new(&self.encoder, n, d).t(), true, &mut codes, threads);
        let groups = r.groups();
        let mut spread = vec![0f32; rows * groups];
        // Without groups every row still needs a piece of its own.
        let mut none = vec![0f32; if groups == 0 { rows } else { 0 }];
        let spreads = if groups == 0 { none.chunks_mut(1) } else { spread.chunks_mut(groups) };
        each(threads, codes.chunks_exact_mut(n).zip(spreads), |(codes, spread)| {
            match r {
                Regularizer::LayerNorm | Regularizer::GroupNorm(_) => {
                    for (group, spread) in codes.chunks_exact_mut(n / groups).zip(spread) {
                        *spread = 1.0 / standardize(group);
                    }
                }
                Regularizer::BatchNorm => {
                    for (z, (mean, variance)) in codes.iter_mut().zip(self.mean.iter().zip(&self.variance)) {
                        *z = (*z - mean) / (variance + EPS).sqrt();
                    }
                }
                Regularizer::Dropout(_) => (),
            }
            for (z, (gain, shift)) in codes.iter_mut().zip(self.gain.iter().zip(&self.shift)) {
                *z = gain * *z + shift;
            }
        });
        (codes, spread)
    }

    /// The rows `[n, d_model]` that codes `[n, n_latents]` stand for.
    ///
    /// # Panics
    /// If `codes` is no whole number of rows of codes.
    pub fn decode(&self, codes: &[f32], threads: usize) -> Vec<f32> {
        let (n, d) = (self.n, self.d);
        assert!(codes.len().is_multiple_of(n), "{} values are no rows of {n} codes", codes.len());
        let rows = codes.len() / n;
        let mut out = Vec::with_capacity(rows * d);
        (0..rows).for_each(|_| out.extend_from_slice(&self.decoder_bias));
        gemm(Mat::new(codes, rows, n), Mat::new(&self.decoder, n, d), true, &mut out, count(threads));
        out
    }

    /// A dictionary with the same decoder, for steering: plans may `add` its features at no cost, explainers and the rest
    /// of the library take it as any other.
    ///
    /// Its codes are `relu(z)`: exact for BatchNorm and Dropout, whose R is a fixed line once trained. For Layer- and
    /// GroupNorm each row's own spread is replaced by its mean over the rows; the mean of a group is a line and stays
    /// exact. The dictionary's notes say so.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a coder of differences: a row has no code there. Its
    /// [`Coder::decoder_row`]s are directions all the same.
    pub fn to_dictionary(&self) -> Result<Dictionary> {
        if self.normalizes_input {
            return Err(Error::unsupported(
                "a coder of differences has no codes of rows, and so is no dictionary; its decoder rows can be saved as directions",
            ));
        }
        let (n, d) = (self.n, self.d);
        let (mut encoder, mut bias) = (self.encoder.clone(), self.encoder_bias.clone());
        let groups = self.regularizer.groups();
        for g in 0..groups {
            let width = n / groups;
            let at = g * width..(g + 1) * width;
            let mut mean = vec![0f64; d];
            for row in self.encoder[at.start * d..at.end * d].chunks_exact(d) {
                mean.iter_mut().zip(row).for_each(|(m, &w)| *m += f64::from(w) / width as f64);
            }
            let mean_bias = num::stats::mean(&self.encoder_bias[at.clone()]);
            for i in at {
                let row = &mut encoder[i * d..(i + 1) * d];
                row.iter_mut().zip(&mean).for_each(|(w, m)| *w = (f64::from(*w) - m) as f32);
                bias[i] = (f64::from(bias[i]) - mean_bias) as f32;
            }
        }
        for i in 0..n {
            let (centre, spread) = match self.regularizer {
                Regularizer::BatchNorm => (self.mean[i], (self.variance[i] + EPS).sqrt()),
                Regularizer::Dropout(_) => (0.0, 1.0),
                Regularizer::LayerNorm | Regularizer::GroupNorm(_) => (0.0, self.spread[i * groups / n]),
            };
            let factor = self.gain[i] / spread;
            encoder[i * d..(i + 1) * d].iter_mut().for_each(|w| *w *= factor);
            bias[i] = (bias[i] - centre) * factor + self.shift[i];
        }
        let mut info = self.info.clone();
        let how = match groups {
            0 => "its codes, cut off below zero",
            _ => "its codes, cut off below zero, with each row's own spread replaced by the mean spread",
        };
        info.notes.push(format!("made from a coder with {}: features are {how}", self.regularizer.name()));
        let mut settings = Settings::new(Activation::Relu);
        settings.apply_b_dec_to_input = false;
        Dictionary::from_parts(Parts {
            d_model: d,
            encoder,
            decoder: self.decoder.clone(),
            encoder_bias: bias,
            decoder_bias: self.decoder_bias.clone(),
            threshold: None,
            gate: None,
            stats: Some(self.stats.clone()),
            settings,
            info,
        })
    }
}
