//! A few features of a dictionary: what steering works with. Only their rows are ever read.
//!
//! A slice keeps a copy of its rows, as they are stored, side by side: 2·|S| rows of memory, and no page fault in the
//! middle of a decode step. The file's own pages go back to the system as soon as the copy is made.

use super::encode::{Rule, Unit, safe_norm};
use super::matrix::Matrix;
use super::{Activation, Dictionary};
use crate::error::{Error, Result};

/// A set of features, in the order in which they were asked for; `j` counts within it.
///
/// TopK and GroupMax features are not alone: whether one is active depends on all others. With per-feature thresholds
/// ([`Dictionary::with_thresholds`]) a slice approximates them by p > θᵢ, and [`Slice::is_exact`] says so; without, each
/// [`Slice::encode`] encodes the whole row: exact, at full cost ([`Slice::is_full`]).
#[derive(Clone, Debug)]
pub struct Slice {
    dictionary: Dictionary,
    features: Vec<Feature>,
    /// Eⱼ `[len, d_model]` and Dⱼ `[len, d_out]`.
    encoder: Matrix,
    decoder: Matrix,
    full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Feature {
    id: u32,
    unit: Unit,
    /// ‖Dᵢ‖ as stored.
    norm: f32,
    /// What one unit of activation adds to s(x), over Dᵢ: 1/‖Dᵢ‖ if rescaled, else 1.
    amount: f32,
}

impl Dictionary {
    /// The slice of `features`; an id may come twice. Reads one encoder and one decoder row for each.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if the dictionary has no such feature;
    /// [`Kind::Numeric`](crate::Kind::Numeric) if one of its rows holds NaN or infinity.
    pub fn slice(&self, features: &[u32]) -> Result<Slice> {
        let full = self.rule() != Rule::Alone && self.threshold.is_none();
        let (name, n) = (self.info.title(), self.n_features());
        let rows: Vec<usize> = features.iter().map(|&id| id as usize).collect();
        if let Some(id) = rows.iter().find(|i| **i >= n) {
            return Err(Error::argument(format!("{name}: expected features 0 to {}, found {id}", n - 1)));
        }
        let (encoder, decoder) = (self.encoder.gather(&rows), self.decoder.gather(&rows));
        let feature = |(j, &id)| self.sliced(id, encoder.norm(j), decoder.norm(j));
        let features = features.iter().enumerate().map(feature).collect::<Result<_>>()?;
        self.release();
        Ok(Slice { dictionary: self.clone(), features, encoder, decoder, full })
    }

    /// What the slice knows of feature `id`, whose rows have the norms ‖Eᵢ‖ and ‖Dᵢ‖.
    fn sliced(&self, id: u32, encoder_norm: f32, norm: f32) -> Result<Feature> {
        if !(encoder_norm.is_finite() && norm.is_finite()) {
            let name = self.info.title();
            return Err(Error::numeric(format!("{name}: feature {id}: expected finite rows, found NaN or infinity")));
        }
        let outer = if self.settings.rescale_by_decoder_norm { safe_norm(norm) } else { 1.0 };
        Ok(Feature { id, unit: self.unit_with(id as usize, outer), norm, amount: 1.0 / outer })
    }
}

impl Slice {
    /// Number of features.
    pub fn len(&self) -> usize {
        self.features.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.features.is_empty()
    }

    /// The features' ids.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = u32> {
        self.features.iter().map(|f| f.id)
    }

    /// What feature `j` needs beside its encoder row.
    pub(crate) fn unit(&self, j: usize) -> Unit {
        self.features[j].unit
    }

    /// Encoder row Eⱼ `[d_model]` as stored, from the slice's own copy.
    pub(crate) fn encoder_row(&self, j: usize, out: &mut [f32]) {
        self.encoder.decode_row(j, out);
    }

    /// The dictionary that it is a slice of.
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// Whether [`Slice::encode`] gives what [`Dictionary::encode`] gives. False for TopK and GroupMax by thresholds.
    pub fn is_exact(&self) -> bool {
        self.full || !matches!(self.dictionary.activation(), Activation::TopK { .. } | Activation::GroupMax { .. })
    }

    /// Whether every [`Slice::encode`] costs a full encode: TopK or GroupMax without thresholds.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// f of the slice's features for the row `x` `[d_model]`: `out` `[len]`.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn encode(&self, x: &[f32], out: &mut [f32]) {
        assert_eq!(out.len(), self.len(), "codes have one place for each feature of the slice");
        let dictionary = &self.dictionary;
        if self.full {
            let mut codes = Vec::new();
            dictionary.encode_sparse(x, &mut codes);
            for (f, feature) in out.iter_mut().zip(&self.features) {
                *f = codes.binary_search_by_key(&feature.id, |c| c.0).map_or(0.0, |at| codes[at].1);
            }
            return;
        }
        let a = dictionary.input(x).0;
        for (j, (f, feature)) in out.iter_mut().zip(&self.features).enumerate() {
            *f = feature.unit.activate(self.encoder.rows().get(j).dot(&a));
        }
    }

    /// What one unit of s(x) is in the residual stream at the row `x`: its standard deviation under layer norm, ‖x‖/√d
    /// under constant norm, 1/c under expected average, else 1; 1 for transcoders. An edit of activations must be scaled by it; take it
    /// from the unedited row.
    pub fn scale(&self, x: &[f32]) -> f32 {
        self.dictionary.undo(x).scale
    }

    /// x += `amount`·Dⱼ, where `amount` counts units of activation: give δf·[`scale`](Slice::scale) to change the
    /// activation by δf.
    ///
    /// # Panics
    /// If there is no feature `j`, or `x` has another length than `d_out`.
    pub fn add_decoder(&self, j: usize, amount: f32, x: &mut [f32]) {
        self.decoder.rows().get(j).axpy(amount * self.features[j].amount, x);
    }

    /// x += scale(x)·Σⱼ δⱼ·Dⱼ: changes activations by `deltas` `[len]` with the error term kept.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn edit(&self, deltas: &[f32], x: &mut [f32]) {
        assert_eq!(deltas.len(), self.len(), "one change for each feature of the slice");
        let scale = self.scale(x);
        for (j, &delta) in deltas.iter().enumerate() {
            if delta != 0.0 {
                self.add_decoder(j, delta * scale, x);
            }
        }
    }

    /// The norm of what one unit of activation adds to s(x): ‖Dⱼ‖, or 1 where activations are rescaled by it.
    ///
    /// # Panics
    /// If there is no feature `j`.
    pub fn decoder_norm(&self, j: usize) -> f32 {
        let feature = &self.features[j];
        feature.norm * feature.amount
    }
}
