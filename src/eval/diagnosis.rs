//! What is wrong with a dictionary that does not fit, found by trying what could be.
//!
//! A dictionary that is read a little wrong still gives numbers: the flag of a bias flipped, a scale left out, a matrix
//! taken for its transpose, rows of the next layer. Each of these has been met in files and loaders that people use. So
//! when a dictionary explains rows of the actual model badly, every such alternative is tried on the same rows, and the one
//! that explains them clearly better is named.
//!
//! An alternative is judged by J = ln FVU + ½ |ln (L0 / L0 promised)|, where the file promises an L0 (k, or the densities
//! of its features); it has to gain more than [`MARGIN`]. Costs one encode of the rows for each alternative, a dozen or two.

use std::collections::BTreeMap;
use std::fmt;

use super::quality::Meter;
use crate::dictionary::{Activation, Dictionary, Normalization, Settings};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::num::{norm, stats::median};
use crate::progress::{Progress, report};

/// By how much the judgement J of an alternative has to be better: a tenth of the FVU, or a fifth of L0.
pub const MARGIN: f64 = 0.1;
/// Judgements nearer than this are the same.
const TIE: f64 = 1e-3;
/// A dictionary whose FVU is above this explains hardly anything.
const POOR: f64 = 0.6;
/// An L0 further from what the file promises than this factor is worth a word.
const L0_FACTOR: f64 = 2.0;

/// Something that may be wrong; the text says what would be right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// The rows of another hook point.
    Point(HookPoint),
    /// `apply_b_dec_to_input` has the other value.
    DecoderBias(bool),
    /// Rows have their mean subtracted, or not.
    Centering(bool),
    /// Rows are normalised in another way.
    Normalization(Normalization),
    /// Pre-activations are rescaled by decoder norms, or not.
    DecoderNorms(bool),
    /// The encoder lies transposed in the file.
    EncoderTransposed,
    /// The decoder lies transposed in the file.
    DecoderTransposed,
    /// Thresholds are multiplied by the decoder norms.
    ThresholdTimesNorm,
    /// Thresholds are divided by the decoder norms.
    ThresholdOverNorm,
    /// The thresholds are logarithms.
    ThresholdExp,
    /// There are no thresholds.
    NoThreshold,
    /// The thresholds are multiplied by a factor, the constant of the inputs.
    ThresholdScaled(f32),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let is = |flag: bool| if flag { "is" } else { "is not" };
        match self {
            Self::Point(point) => write!(f, "it belongs to {point}"),
            Self::DecoderBias(flag) => {
                write!(f, "b_dec {} subtracted from the input (apply_b_dec_to_input)", is(*flag))
            }
            Self::Centering(flag) => write!(f, "each row's mean {} subtracted first", is(*flag)),
            Self::Normalization(Normalization::ExpectedAverage { scale }) => {
                write!(f, "inputs are multiplied by a constant, about {scale:.4}, that the file leaves out")
            }
            Self::Normalization(Normalization::None) => f.write_str("inputs are not normalised"),
            Self::Normalization(other) => write!(f, "inputs are normalised by {}", other.name()),
            Self::DecoderNorms(flag) => {
                write!(f, "pre-activations {} multiplied by decoder norms", is(*flag).replace("is", "are"))
            }
            Self::EncoderTransposed => f.write_str("the encoder lies transposed in the file"),
            Self::DecoderTransposed => f.write_str("the decoder lies transposed in the file"),
            Self::ThresholdTimesNorm => f.write_str("thresholds have to be multiplied by the decoder norms"),
            Self::ThresholdOverNorm => f.write_str("thresholds have to be divided by the decoder norms"),
            Self::ThresholdExp => f.write_str("what the file calls thresholds are their logarithms"),
            Self::NoThreshold => f.write_str("the thresholds do not belong to these weights: without them it fits"),
            Self::ThresholdScaled(scale) => {
                write!(f, "thresholds have to be multiplied by {scale:.4}, the scale of the inputs")
            }
        }
    }
}

/// How a dictionary, or an alternative, explains the rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Mean number of active features in a row.
    pub l0: f64,
    /// Fraction of variance unexplained; infinite where it cannot be told.
    pub fvu: f64,
}

impl Fit {
    /// J, smaller is better.
    fn judgement(self, promised: Option<f64>) -> f64 {
        let l0 = promised.map_or(0.0, |promised| (self.l0.max(1e-3) / promised).ln().abs());
        self.fvu.max(1e-4).ln() + 0.5 * l0
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// The dictionary as it was given.
    pub given: Fit,
    /// The L0 that its file promises.
    pub promised_l0: Option<f64>,
    /// Every alternative, the best one first.
    pub tried: Vec<(Cause, Fit)>,
    /// The best alternative, if it is clearly better than what was given.
    pub cause: Option<Cause>,
}

impl Diagnosis {
    /// Whether the dictionary fits as it is.
    pub fn fits(&self) -> bool {
        self.cause.is_none() && self.given.fvu < POOR && !self.is_l0_off()
    }

    fn is_l0_off(&self) -> bool {
        let far = |promised: f64| (self.given.l0.max(1e-3) / promised).ln().abs() > L0_FACTOR.ln();
        self.promised_l0.is_some_and(far)
    }
}

impl fmt::Display for Diagnosis {
    /// The verdict, in a sentence.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Fit { l0, fvu } = self.given;
        if let (Some(cause), Some((_, better))) = (self.cause, self.tried.first()) {
            return write!(
                f,
                "does not fit as it is (FVU {fvu:.3}, L0 {l0:.1}): most likely {cause} (then FVU {:.3}, L0 {:.1})",
                better.fvu, better.l0
            );
        }
        if let (true, Some(promised)) = (self.is_l0_off(), self.promised_l0) {
            return write!(
                f,
                "doubtful: L0 is {l0:.1}, its file promises {promised:.1} (FVU {fvu:.3}); no cause was found"
            );
        }
        if fvu >= POOR {
            return write!(f, "does not describe this model's rows (FVU {fvu:.3}, L0 {l0:.1}); no cause was found");
        }
        write!(f, "fits (FVU {fvu:.3}, L0 {l0:.1})")
    }
}

/// The L0 that a dictionary's file promises: the k of TopK, what its makers state, or the sum of its features' densities.
pub fn promised_l0(dictionary: &Dictionary) -> Option<f64> {
    if let Activation::TopK { k } | Activation::GroupMax { k } = dictionary.activation() {
        return Some(k as f64);
    }
    let stated = dictionary.info().l0.map(f64::from);
    let stats = dictionary.feature_stats().unwrap_or_default();
    let sum: f64 = stats.iter().map(|s| f64::from(s.density)).sum();
    let sum = (sum.is_finite() && sum > 0.0).then_some(sum);
    stated.or(sum).or(dictionary.activation().k().map(|k| k as f64))
}

/// Tries `dictionary`, and what may be wrong with it, on rows `[n, d_model]` of some hook points of the model, none of them
/// at position 0: those of the dictionary's own point, and of others that it may belong to.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) without rows of the dictionary's own point (or of any, if it names none);
/// [`Cancelled`](crate::Kind::Cancelled).
pub fn diagnose(
    dictionary: &Dictionary,
    rows: &BTreeMap<HookPoint, Vec<f32>>,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Diagnosis> {
    if dictionary.settings().transcodes {
        return Err(Error::unsupported(
            "diagnosis: a transcoder writes other rows than it reads, and cannot be tried on them",
        ));
    }
    let own = dictionary.point().or_else(|| rows.keys().next().copied());
    let (own, here) = own
        .and_then(|own| Some((own, rows.get(&own)?)))
        .filter(|(_, rows)| rows.len() >= 2 * dictionary.d_model())
        .ok_or_else(|| Error::argument("diagnosis: expected rows of the dictionary's own hook point, found none"))?;
    let promised_l0 = promised_l0(dictionary);
    let given = fit(dictionary, here, threads);
    let alternatives = alternatives(dictionary, here);
    let total = (alternatives.len() + rows.len()) as u64;
    let mut tried = Vec::new();
    for (&point, rows) in rows.iter().filter(|(point, _)| **point != own) {
        tried.push((Cause::Point(point), fit(dictionary, rows, threads)));
        report(progress, tried.len() as u64, total, "")?;
    }
    for (cause, make) in alternatives {
        if let Some(other) = make(dictionary) {
            tried.push((cause, fit(&other, here, threads)));
        }
        report(progress, tried.len() as u64, total, "")?;
    }
    // Some causes amount to the same, up to rounding: of these the one tried first is the simpler.
    let least = tried.iter().map(|t| t.1.judgement(promised_l0)).fold(f64::INFINITY, f64::min);
    let rank = |t: &(Cause, Fit)| ((t.1.judgement(promised_l0) - least) / TIE).floor();
    tried.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let gain = |best: &&(Cause, Fit)| given.judgement(promised_l0) - best.1.judgement(promised_l0) > MARGIN;
    let cause = tried.first().filter(gain).map(|best| best.0);
    Ok(Diagnosis { given, promised_l0, tried, cause })
}

fn fit(dictionary: &Dictionary, rows: &[f32], threads: usize) -> Fit {
    let mut meter = Meter::new(dictionary);
    meter.add(rows, threads);
    match meter.finish() {
        Ok(quality) => Fit { l0: quality.l0, fvu: quality.fvu },
        Err(_) => Fit { l0: 0.0, fvu: f64::INFINITY },
    }
}

/// Makes an alternative; `None` where it makes no sense.
type Make = Box<dyn Fn(&Dictionary) -> Option<Dictionary>>;

/// What may be wrong with the file or the way in which it was read.
fn alternatives(dictionary: &Dictionary, rows: &[f32]) -> Vec<(Cause, Make)> {
    let settings = *dictionary.settings();
    let mut all: Vec<(Cause, Make)> = Vec::new();
    let mut with = |cause: Cause, settings: Settings| {
        all.push((cause, Box::new(move |d: &Dictionary| Some(d.clone().with_settings(settings)))));
    };
    let flag = !settings.apply_b_dec_to_input;
    with(Cause::DecoderBias(flag), Settings { apply_b_dec_to_input: flag, ..settings });
    let flag = !settings.center_input;
    with(Cause::Centering(flag), Settings { center_input: flag, ..settings });
    let flag = !settings.rescale_by_decoder_norm;
    with(Cause::DecoderNorms(flag), Settings { rescale_by_decoder_norm: flag, ..settings });
    // c = √d / E‖x‖, of the rows at hand.
    let d_model = dictionary.d_model();
    let norms: Vec<f32> = rows.chunks_exact(d_model).map(norm).collect();
    let scale = (d_model as f64).sqrt() / median(&norms);
    let average = Normalization::ExpectedAverage { scale: scale as f32 };
    for normalization in [Normalization::None, Normalization::LayerNorm, Normalization::ConstantNorm, average] {
        let same = std::mem::discriminant(&normalization) == std::mem::discriminant(&settings.normalization);
        if !same {
            with(Cause::Normalization(normalization), Settings { normalization, ..settings });
        }
    }
    all.push((
        Cause::EncoderTransposed,
        Box::new(|d| d.clone().with_encoder(transposed(d, Dictionary::encoder_row)).ok()),
    ));
    all.push((
        Cause::DecoderTransposed,
        Box::new(|d| d.clone().with_decoder(transposed(d, Dictionary::decoder_row)).ok()),
    ));
    if dictionary.thresholds().is_some() {
        let mut thresholds = |cause: Cause, change: fn(&Dictionary, usize, f32, f32) -> f32, scale: f32| {
            let make = move |d: &Dictionary| {
                let old = d.thresholds()?;
                let new = (0..).zip(old).map(|(i, &theta)| change(d, i, theta, scale)).collect();
                d.clone().with_thresholds(new).ok()
            };
            all.push((cause, Box::new(make)));
        };
        thresholds(Cause::ThresholdTimesNorm, |d, i, theta, _| theta * d.decoder_norm(i), 1.0);
        thresholds(Cause::ThresholdOverNorm, |d, i, theta, _| theta / d.decoder_norm(i), 1.0);
        thresholds(Cause::ThresholdExp, |_, _, theta, _| theta.exp(), 1.0);
        thresholds(Cause::NoThreshold, |_, _, _, _| 0.0, 1.0);
        thresholds(Cause::ThresholdScaled(scale as f32), |_, _, theta, scale| theta * scale, scale as f32);
        thresholds(Cause::ThresholdScaled(1.0 / scale as f32), |_, _, theta, scale| theta * scale, 1.0 / scale as f32);
    }
    all
}

/// A matrix `[n_features, d_model]` whose numbers were meant as `[d_model, n_features]`.
fn transposed(dictionary: &Dictionary, row: fn(&Dictionary, usize, &mut [f32])) -> Vec<f32> {
    let (n, d) = (dictionary.n_features(), dictionary.d_model());
    let mut numbers = vec![0f32; n * d];
    for (i, out) in numbers.chunks_exact_mut(d).enumerate() {
        row(dictionary, i, out);
    }
    let mut out = Vec::with_capacity(n * d);
    for i in 0..n {
        out.extend((0..d).map(|j| numbers[j * n + i]));
    }
    out
}
