//! The parameters, their Adam moments, and what else a run carries from step to step.

use super::sparsity::Pressure;

/// Adam's two moments of a tensor.
pub(super) struct Moments {
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
}

/// A tensor of parameters.
pub(super) struct Parameter {
    pub(super) values: Vec<f32>,
    pub(super) moments: Moments,
}

/// Everything that a step reads and writes; a checkpoint holds exactly this.
///
/// Rows are scaled before they come here: `y = scale · x`. Decoder rows have norm 1, unless they are free.
pub(super) struct State {
    pub(super) d: usize,
    pub(super) n: usize,
    /// `W_enc [n_features, d_model]`.
    pub(super) encoder: Parameter,
    /// `W_dec [n_features, d_model]`.
    pub(super) decoder: Parameter,
    /// `b_enc [n_features]`.
    pub(super) encoder_bias: Parameter,
    /// `b_dec [d_model]`, subtracted before the encoder and added after the decoder.
    pub(super) decoder_bias: Parameter,
    /// One number a feature each, in the order of [`Variant::extras`](super::variant::Variant::extras).
    pub(super) extras: Vec<Parameter>,
    /// The weight of the sparsity penalty.
    pub(super) pressure: Pressure,
    /// Rows since each feature last fired.
    pub(super) idle: Vec<u64>,
    /// What a row is multiplied by.
    pub(super) scale: f32,
    /// The largest distance of a scaled row from `b_dec`: rows beyond it are drawn in.
    pub(super) limit: f32,
    /// The mean of the scaled rows: the yardstick of FVU.
    pub(super) mean: Vec<f32>,
    /// Steps done.
    pub(super) step: u64,
}

impl State {
    /// Frees Adam's moments: after the last step, when they take as much memory as the dictionary that is made of the rest.
    pub(super) fn forget_moments(&mut self) {
        let Self { encoder, decoder, encoder_bias, decoder_bias, extras, .. } = self;
        for parameter in [encoder, decoder, encoder_bias, decoder_bias].into_iter().chain(extras) {
            parameter.moments = Moments { first: Vec::new(), second: Vec::new() };
        }
    }
}

impl Parameter {
    /// A parameter that Adam has not yet moved.
    pub(super) fn new(values: Vec<f32>) -> Self {
        let n = values.len();
        Self { values, moments: Moments { first: vec![0.0; n], second: vec![0.0; n] } }
    }

    /// Resets the moments of entries `i·size..(i+1)·size`.
    pub(super) fn forget(&mut self, i: usize, size: usize) {
        self.moments.first[i * size..(i + 1) * size].fill(0.0);
        self.moments.second[i * size..(i + 1) * size].fill(0.0);
    }

    /// Values, first and second moments in chunks of `size`.
    pub(super) fn chunks_mut(&mut self, size: usize) -> impl Iterator<Item = Rowset<'_>> {
        let size = size.max(1);
        let moments = self.moments.first.chunks_mut(size).zip(self.moments.second.chunks_mut(size));
        self.values.chunks_mut(size).zip(moments).map(|(values, (first, second))| Rowset { values, first, second })
    }
}

/// A stretch of a parameter.
pub(super) struct Rowset<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) first: &'a mut [f32],
    pub(super) second: &'a mut [f32],
}

impl Rowset<'_> {
    /// Entries `i·size..(i+1)·size`.
    pub(super) fn row(&mut self, i: usize, size: usize) -> Rowset<'_> {
        let at = i * size..(i + 1) * size;
        Rowset {
            values: &mut self.values[at.clone()],
            first: &mut self.first[at.clone()],
            second: &mut self.second[at],
        }
    }
}
