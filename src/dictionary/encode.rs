//! Encode and decode one row, as formats.md §2 has it:
//! a = s(x) − \[apply\]·b_dec, p = E·a + b_enc (·‖Dᵢ‖ if rescaled), f by [`Activation`](super::Activation).

use std::borrow::Cow;

use super::{Activation, Codes, Dictionary, Normalization};
use crate::num::{self, top_k};

/// What layer norm adds to the standard deviation.
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// How pre-activations become activations, with what the dictionary has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Each feature for itself: [`Unit::activate`] is all.
    Alone,
    /// The k largest of the row.
    TopK(usize),
    /// The largest of each of k groups.
    GroupMax(usize),
}

impl Rule {
    /// Appends the features that win under a rule of competition, features ascending.
    pub(super) fn keep(self, p: &[f32], out: &mut Vec<(u32, f32)>) {
        match self {
            Self::Alone => out.extend((0u32..).zip(p.iter().copied()).filter(|v| v.1 > 0.0)),
            Self::TopK(k) => {
                let mut best = Vec::new();
                top_k(p, k, &mut best);
                best.retain(|v| v.1 > 0.0);
                best.sort_unstable_by_key(|v| v.0);
                out.append(&mut best);
            }
            Self::GroupMax(k) => {
                let group = (p.len() / k.max(1)).max(1);
                for (g, p) in p.chunks(group).enumerate() {
                    // Strictly greater: the lower index wins, and NaN never.
                    let largest = |best: (u32, f32), (i, &p): (u32, &f32)| if p > best.1 { (i, p) } else { best };
                    let best = ((g * group) as u32..).zip(p).fold((0, 0.0), largest);
                    out.extend((best.1 > 0.0).then_some(best));
                }
            }
        }
    }
}

impl Rule {
    /// The same among the pre-activations of some features, ascending, to which all winners of a row belong.
    pub(super) fn keep_among(self, p: &[(u32, f32)], n_features: usize, out: &mut Vec<(u32, f32)>) {
        match self {
            Self::Alone => out.extend(p.iter().filter(|v| v.1 > 0.0)),
            Self::TopK(_) => {
                let values: Vec<f32> = p.iter().map(|v| v.1).collect();
                let start = out.len();
                self.keep(&values, out);
                // Places become features; both ascend, so ties go to the same one.
                out.iter_mut().skip(start).for_each(|v| v.0 = p[v.0 as usize].0);
            }
            Self::GroupMax(k) => {
                let group = (n_features / k.max(1)).max(1) as u32;
                for p in p.chunk_by(|a, b| a.0 / group == b.0 / group) {
                    let best = p.iter().fold((0, 0.0), |best, &v| if v.1 > best.1 { v } else { best });
                    out.extend((best.1 > 0.0).then_some(best));
                }
            }
        }
    }
}

/// What one feature needs beside its encoder row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    pub(crate) bias: f32,
    /// Multiplies E·a before the bias: exp(r_mag) of gated dictionaries, else 1.
    pub(crate) inner: f32,
    /// Multiplies p after the bias: ‖Dᵢ‖ if rescaled, else 1.
    pub(crate) outer: f32,
    /// p must exceed it; 0 for ReLU.
    pub(crate) threshold: f32,
    /// Must exceed 0 when added to E·a; infinite where there is no gate.
    pub(crate) gate: f32,
}

impl Unit {
    /// p from z = Eᵢ·a.
    #[inline]
    pub(super) fn preactivate(self, z: f32) -> f32 {
        (self.inner * z + self.bias) * self.outer
    }

    /// Whether no z up to this one makes it active: p rises with z. Of NaN nothing is known.
    #[inline]
    pub(super) fn is_silent_up_to(self, z: f32) -> bool {
        let p = self.preactivate(z);
        p <= self.threshold || p <= 0.0 || z + self.gate <= 0.0
    }

    /// f from z = Eᵢ·a. NaN is not active.
    #[inline]
    pub(crate) fn activate(self, z: f32) -> f32 {
        let p = self.preactivate(z);
        if p > self.threshold && p > 0.0 && z + self.gate > 0.0 { p } else { 0.0 }
    }
}

/// What all features need beside their encoder rows: the vectors, found once.
#[derive(Clone, Copy)]
pub(super) struct Units<'a> {
    bias: &'a [f32],
    /// None where nothing but 0 must be exceeded.
    threshold: Option<&'a [f32]>,
    /// r_mag and b_gate.
    gate: Option<(&'a [f32], &'a [f32])>,
    /// None where activations are not rescaled.
    norms: Option<&'a [f32]>,
}

impl Units<'_> {
    #[inline]
    pub(super) fn get(self, i: usize) -> Unit {
        self.with_norm(i, self.norms.map_or(1.0, |norms| norms[i]))
    }

    #[inline]
    fn with_norm(self, i: usize, outer: f32) -> Unit {
        let (inner, gate) = self.gate.map_or((1.0, f32::INFINITY), |(scale, bias)| (scale[i].exp(), bias[i]));
        Unit { bias: self.bias[i], inner, outer, threshold: self.threshold.map_or(0.0, |t| t[i]), gate }
    }

    /// Of features that compete, which have no gate: biases, and norms to multiply with.
    #[inline]
    pub(super) fn competing(&self, features: std::ops::Range<usize>) -> (&[f32], Option<&[f32]>) {
        (&self.bias[features.clone()], self.norms.map(|norms| &norms[features]))
    }

    /// For each feature a bound that z = E·a exceeds wherever the feature is active: most can be passed over by one
    /// comparison. A little low, for rounding.
    pub(super) fn bounds(self) -> Vec<f32> {
        let bound = |i| {
            let unit = self.get(i);
            let z = (unit.threshold.max(0.0) / unit.outer - unit.bias) / unit.inner;
            let z = z.max(-unit.gate);
            let slack = 1e-5 * (z.abs() + (unit.bias / unit.inner).abs());
            // An infinite threshold is never exceeded; what overflowed or is no number is always looked at.
            if z == f32::INFINITY {
                z
            } else if (z - slack).is_nan() {
                f32::NEG_INFINITY
            } else {
                z - slack
            }
        };
        (0..self.bias.len()).map(bound).collect()
    }
}

/// How a row is normalised, s(x) = (x − shift)·factor, and how that is undone: x = out·scale + shift.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Undo {
    pub(crate) scale: f32,
    pub(crate) shift: f32,
    pub(crate) factor: f32,
}

impl Dictionary {
    /// f `[n_features]` of the row `x` `[d_model]`: reads the whole encoder once. A row with NaN activates nothing.
    ///
    /// # Panics
    /// If a length is wrong; so do the other functions on rows.
    pub fn encode(&self, x: &[f32], out: &mut [f32]) {
        assert_eq!(out.len(), self.n_features(), "codes have one place for each feature");
        let mut codes = Vec::new();
        self.encode_sparse(x, &mut codes);
        out.fill(0.0);
        codes.iter().for_each(|&(i, f)| out[i as usize] = f);
    }

    /// The active features of the row `x` `[d_model]` as (feature, activation), features ascending.
    pub fn encode_sparse(&self, x: &[f32], out: &mut Vec<(u32, f32)>) {
        let mut codes = Codes::with_rows(1);
        self.encode_few(&self.input(x).0, 1, &mut codes);
        out.clear();
        out.extend_from_slice(codes.entries());
    }

    /// f·D + b_dec, in the units of s(x): `out` `[d_out]`. Where inputs are normalised, [`Dictionary::reconstruct`]
    /// brings it back to the residual stream.
    pub fn decode(&self, codes: &[(u32, f32)], out: &mut [f32]) {
        out.copy_from_slice(&self.decoder_bias);
        let rows = self.decoder.rows();
        for &(i, f) in codes {
            let i = i as usize;
            rows.get(i).axpy(f / self.rescale(i), out);
        }
    }

    /// x̂ `[d_out]`, the reconstruction of the row `x` from its codes: s⁻¹(f·D + b_dec), with x's own mean and scale; of a
    /// transcoder f·D + b_dec, in the units of its output hook point. A skip connection adds W·x, of the row as it came.
    pub fn reconstruct(&self, x: &[f32], codes: &[(u32, f32)], out: &mut [f32]) {
        let undo = self.undo(x);
        self.decode(codes, out);
        if let Some(skip) = &self.skip {
            let rows = skip.rows();
            out.iter_mut().enumerate().for_each(|(i, v)| *v += rows.get(i).dot(x));
        }
        if self.settings.transcodes {
            return;
        }
        if undo.scale != 1.0 || undo.shift != 0.0 {
            out.iter_mut().for_each(|v| *v = *v * undo.scale + undo.shift);
        }
    }

    /// Whether features can be encoded one by one, without the rest of their row.
    pub(super) fn rule(&self) -> Rule {
        match self.settings.activation {
            Activation::TopK { k } => Rule::TopK(k),
            Activation::GroupMax { k } => Rule::GroupMax(k),
            Activation::BatchTopK { k } if self.threshold.is_none() => Rule::TopK(k),
            _ => Rule::Alone,
        }
    }

    /// What features need beside their encoder rows. TopK has its thresholds in it too, for slices.
    pub(super) fn units(&self) -> Units<'_> {
        let norms = self.settings.rescale_by_decoder_norm.then(|| self.norms());
        Units { norms, ..self.units_without_norms() }
    }

    /// The same for feature `i` and a known factor ‖Dᵢ‖ or 1: the norms of all others need not be computed.
    pub(super) fn unit_with(&self, i: usize, outer: f32) -> Unit {
        self.units_without_norms().with_norm(i, outer)
    }

    fn units_without_norms(&self) -> Units<'_> {
        let threshold = match self.settings.activation {
            Activation::Relu | Activation::Gated => None,
            _ => self.threshold.as_deref(),
        };
        let gate = self.gate.as_ref().map(|g| (&*g.log_scale, &*g.bias));
        Units { bias: &self.encoder_bias, threshold, gate, norms: None }
    }

    /// ‖Dᵢ‖ where activations are rescaled by it, else 1.
    fn rescale(&self, i: usize) -> f32 {
        if self.settings.rescale_by_decoder_norm { self.norms()[i] } else { 1.0 }
    }

    /// ‖D‖ of all features; a zero row counts as 1: it decodes to nothing anyway.
    fn norms(&self) -> &[f32] {
        self.norms.get_or_init(|| self.decoder.norms().into_iter().map(safe_norm).collect())
    }

    /// a = s(x) − \[apply\]·b_dec, and how s is undone.
    pub(super) fn input<'a>(&self, x: &'a [f32]) -> (Cow<'a, [f32]>, Undo) {
        assert_eq!(x.len(), self.d_model(), "a row has the width of the residual stream");
        let settings = &self.settings;
        let undo = self.undo(x);
        let plain = settings.normalization == Normalization::None && !settings.center_input;
        if plain && !settings.apply_b_dec_to_input {
            return (Cow::Borrowed(x), undo);
        }
        let mut a = x.to_vec();
        if !plain {
            a.iter_mut().for_each(|v| *v = (*v - undo.shift) * undo.factor);
        }
        if settings.apply_b_dec_to_input {
            a.iter_mut().zip(self.decoder_bias.iter()).for_each(|(v, b)| *v -= b);
        }
        (Cow::Owned(a), undo)
    }

    /// How s is undone for the row `x`.
    pub(crate) fn undo(&self, x: &[f32]) -> Undo {
        let normalization = self.settings.normalization;
        let centered = self.settings.center_input || normalization == Normalization::LayerNorm;
        let shift = if centered { num::stats::mean(x) as f32 } else { 0.0 };
        let root = (x.len() as f64).sqrt();
        let scale = match normalization {
            Normalization::None => 1.0,
            Normalization::LayerNorm => num::stats::variance(x).sqrt() as f32,
            Normalization::ConstantNorm if centered => {
                // ‖x − mean‖² = variance·(d − 1).
                ((num::stats::variance(x) * (x.len() as f64 - 1.0)).sqrt() / root) as f32
            }
            Normalization::ConstantNorm => (f64::from(num::norm(x)) / root) as f32,
            Normalization::ExpectedAverage { scale } => 1.0 / scale,
        };
        // Layer norm divides by std + ε on the way in and multiplies by std on the way out.
        let extra = if normalization == Normalization::LayerNorm { LAYER_NORM_EPSILON } else { 0.0 };
        let factor = 1.0 / (scale + extra);
        // What a transcoder writes has never been normalised.
        let scale = if self.settings.transcodes { 1.0 } else { scale };
        Undo { scale, shift, factor }
    }
}

/// ‖Dᵢ‖ to divide by.
pub(super) fn safe_norm(norm: f32) -> f32 {
    if norm > 0.0 { norm } else { 1.0 }
}
