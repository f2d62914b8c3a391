//! From selected features to values, reconstruction, error, and the gradients of the codes.
//!
//! With `x` the row less `b_dec`, `z_i = relu(⟨W_enc[i], x⟩ + b_enc[i])` for the selected `i`, and the loss
//! `L = 1/B Σ_rows ‖Σ_i z_i W_dec[i] − x‖²`:
//! `g = ∂L/∂x̂ = 2/B (Σ_i z_i W_dec[i] − x)` and `∂L/∂z_i = ⟨W_dec[i], g⟩`. A row's features stay in cache between the two.

use super::kernel::{add_rows, dot, dot_rows};
use super::parallel::each;
use super::score::Lane;
use super::weights::State;

/// Rows in a piece of work.
const PIECE: usize = 32;

/// The codes of a batch, row after row.
#[derive(Default)]
pub(super) struct Codes {
    /// Row `r` owns `offsets[r]..offsets[r + 1]`.
    pub(super) offsets: Vec<usize>,
    /// Selected features.
    pub(super) features: Vec<u32>,
    /// Their values; 0 where the exact score turned out not to be positive.
    pub(super) values: Vec<f32>,
    /// ∂L/∂value; 0 where the value is.
    pub(super) slopes: Vec<f32>,
}

/// What the pieces of a reconstruction add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// `Σ ‖error‖²`.
    pub(super) error: f64,
    /// Positive codes.
    pub(super) active: u64,
    /// The smallest positive code.
    pub(super) least: f32,
}

impl Codes {
    /// Takes the selection over from the lanes; `name` turns a lane's number into a feature.
    pub(super) fn take(&mut self, lanes: &[Lane], name: impl Fn(u32) -> u32) {
        self.offsets.clear();
        self.features.clear();
        self.offsets.push(0);
        for lane in lanes {
            self.features.extend(lane.items.iter().map(|item| name(item.1)));
            self.offsets.push(self.features.len());
        }
        self.values.clear();
        self.values.resize(self.features.len(), 0.0);
        self.slopes.clear();
        self.slopes.resize(self.features.len(), 0.0);
    }
}

/// What is to be rebuilt: rows that the codes are read from, and the target, `scale · base` (the rows themselves, or the
/// error that a first reconstruction left).
pub(super) struct Target<'a> {
    /// Rows less `b_dec`, `[n, d]`.
    pub(super) rows: &'a [f32],
    /// `[n, d]`.
    pub(super) base: &'a [f32],
    /// The factor on `base`.
    pub(super) scale: f32,
    /// The factor on the gradient: 2/B times the weight of this error.
    pub(super) weight: f32,
}

struct Piece<'a> {
    rows: &'a [f32],
    base: &'a [f32],
    offsets: &'a [usize],
    features: &'a [u32],
    values: &'a mut [f32],
    slopes: &'a mut [f32],
    gradients: &'a mut [f32],
    totals: &'a mut Totals,
}

/// Fills `codes.values`, `codes.slopes` and `gradients [n, d]` (`∂L/∂x̂`).
pub(super) fn reconstruct(
    state: &State,
    target: &Target<'_>,
    codes: &mut Codes,
    gradients: &mut [f32],
    threads: usize,
) -> Totals {
    let d = state.d;
    let mut totals =
        vec![Totals { least: f32::INFINITY, ..Totals::default() }; (codes.offsets.len() - 1).div_ceil(PIECE)];
    let (mut values, mut slopes) = (&mut codes.values[..], &mut codes.slopes[..]);
    let mut pieces = Vec::with_capacity(totals.len());
    let rows = target.rows.chunks(PIECE * d).zip(target.base.chunks(PIECE * d)).zip(gradients.chunks_mut(PIECE * d));
    for (i, (((rows, base), gradients), totals)) in rows.zip(&mut totals).enumerate() {
        let offsets = &codes.offsets[i * PIECE..=i * PIECE + rows.len() / d];
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        let (head, tail) = values.split_at_mut(last - first);
        values = tail;
        let (head_slopes, tail) = slopes.split_at_mut(last - first);
        slopes = tail;
        let features = &codes.features[first..last];
        pieces.push(Piece { rows, base, offsets, features, values: head, slopes: head_slopes, gradients, totals });
    }
    each(threads, pieces.into_iter(), |piece| piece.run(state, target));
    totals.iter().fold(Totals { least: f32::INFINITY, ..Totals::default() }, |sum, piece| Totals {
        error: sum.error + piece.error,
        active: sum.active + piece.active,
        least: sum.least.min(piece.least),
    })
}

impl Piece<'_> {
    fn run(self, state: &State, target: &Target<'_>) {
        let d = state.d;
        let first = self.offsets[0];
        let rows = self.rows.chunks_exact(d).zip(self.base.chunks_exact(d)).zip(self.gradients.chunks_exact_mut(d));
        for (((x, base), g), at) in rows.zip(self.offsets.windows(2)) {
            let at = at[0] - first..at[1] - first;
            let (features, values) = (&self.features[at.clone()], &mut self.values[at.clone()]);
            dot_rows(x, features, &state.encoder.values, values);
            for (value, &f) in values.iter_mut().zip(features) {
                *value = (*value + state.encoder_bias.values[f as usize]).max(0.0);
                if *value > 0.0 {
                    self.totals.active += 1;
                    self.totals.least = self.totals.least.min(*value);
                }
            }
            for (g, &base) in g.iter_mut().zip(base) {
                *g = -target.scale * base;
            }
            add_rows(g, values.len(), |j| (values[j], features[j] as usize), &state.decoder.values);
            self.totals.error += f64::from(dot(g, g));
            g.iter_mut().for_each(|g| *g *= target.weight);
            let slopes = &mut self.slopes[at];
            dot_rows(g, features, &state.decoder.values, slopes);
            for (slope, &value) in slopes.iter_mut().zip(&*values) {
                if value <= 0.0 {
                    *slope = 0.0;
                }
            }
        }
    }
}
