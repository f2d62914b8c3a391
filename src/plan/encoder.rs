//! A rule's features, dense: what the hot path needs of a dictionary, copied once when a plan is compiled.
//!
//! A feature's code depends on its own encoder row alone, so |S| rows of `d_model` floats are enough: 64 features of width
//! 576 are 147 KB and stay in the L2 cache. The input's normalisation and bias are taken out of the product,
//! `E·((x − shift)·factor − b_dec) = factor·(E·x − shift·ΣE) − E·b_dec`, so the row is read as it lies in the graph.
//!
//! The exception is a TopK dictionary without thresholds, where whether a feature is active depends on all others: it
//! encodes the whole row, exact but at full cost, and allocates.

use crate::dictionary::{Dictionary, Slice, Undo, Unit};
use crate::error::Result;
use crate::file::zeros;
use crate::num::{dot, dot8};

/// Some features of a dictionary, ready to encode.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    pub(super) features: Vec<Feature>,
    pub(super) kind: Kind,
    slice: Slice,
}

/// What a feature needs beside its encoder row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feature {
    pub(super) unit: Unit,
    /// `E·b_dec`, or 0 if the dictionary does not subtract it.
    pub(super) offset: f32,
    /// `ΣE`
    pub(super) sum: f32,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Encoder rows `[n_features, d_model]`.
    Rows(Vec<f32>),
    /// All features of a TopK dictionary compete.
    Whole,
}

impl Encoder {
    /// The features `ids` of a dictionary that has them.
    pub(super) fn of(dictionary: &Dictionary, ids: &[u32]) -> Result<Self> {
        let slice = dictionary.slice(ids)?;
        let d = dictionary.d_model();
        let mut rows: Vec<f32> = zeros(ids.len() * d, "encoder rows of a plan")?;
        let mut features = Vec::with_capacity(ids.len());
        for (j, row) in rows.chunks_exact_mut(d).enumerate() {
            slice.encoder_row(j, row);
            let subtracts = dictionary.settings().apply_b_dec_to_input;
            let offset = if subtracts { dot(row, dictionary.decoder_bias()) } else { 0.0 };
            features.push(Feature { unit: slice.unit(j), offset, sum: row.iter().sum() });
        }
        let kind = if slice.is_full() { Kind::Whole } else { Kind::Rows(rows) };
        Ok(Self { features, kind, slice })
    }

    /// Number of features.
    pub(super) fn len(&self) -> usize {
        self.features.len()
    }

    /// Why codes are not those of the dictionary's own encode, or cost more than their rows.
    pub(super) fn warning(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Whole => {
                Some("a TopK or GroupMax dictionary without thresholds encodes every row whole: exact, but slow")
            }
            Kind::Rows(_) if !self.slice.is_exact() => Some(
                "features of a TopK or GroupMax dictionary are read by their thresholds, an approximation of the k largest",
            ),
            Kind::Rows(_) => None,
        }
    }

    /// Codes of the rows of a block that `active` names, into `codes` `[active.len(), n_features]`, and how each row is
    /// normalised. Each encoder row is read once a block; a code does not depend on the rows beside it.
    pub(super) fn encode(
        &self,
        block: &[f32],
        d_model: usize,
        active: &[usize],
        codes: &mut [f32],
        frames: &mut Vec<Undo>,
    ) {
        let row = |r: usize| &block[r * d_model..][..d_model];
        let n = self.len();
        frames.clear();
        frames.extend(active.iter().map(|&r| self.frame(row(r))));
        match &self.kind {
            Kind::Whole => {
                for (codes, &r) in codes.chunks_exact_mut(n).zip(active) {
                    self.slice.encode(row(r), codes);
                }
            }
            Kind::Rows(rows) => {
                let eights = rows.chunks_exact(8 * d_model);
                let single = eights.remainder();
                for (i, e) in eights.enumerate() {
                    for (k, &r) in active.iter().enumerate() {
                        codes[k * n + 8 * i..][..8].copy_from_slice(&dot8(e, row(r)));
                    }
                }
                for (i, e) in (n / 8 * 8..).zip(single.chunks_exact(d_model)) {
                    for (k, &r) in active.iter().enumerate() {
                        codes[k * n + i] = dot(e, row(r));
                    }
                }
                for (codes, frame) in codes.chunks_exact_mut(n).zip(&*frames) {
                    for (code, &Feature { unit, offset, sum }) in codes.iter_mut().zip(&self.features) {
                        *code = unit.activate(frame.factor * (*code - frame.shift * sum) - offset);
                    }
                }
            }
        }
    }

    fn frame(&self, row: &[f32]) -> Undo {
        self.slice.dictionary().undo(row)
    }

    /// The dictionary.
    pub(super) fn dictionary(&self) -> &Dictionary {
        self.slice.dictionary()
    }
}
