//! From selected features to the reconstruction, its error, and the gradients of the codes.
//!
//! With `x` the row less `b_dec` and `z_i = ⟨W_enc[i], x⟩ + b_enc[i] > 0` for the selected `i`, the loss is
//! `L = 1/B Σ_rows ‖Σ_i z_i W_dec[i] − x‖²`, so
//! `g = ∂L/∂x̂ = 2/B (Σ_i z_i W_dec[i] − x)` and `∂L/∂z_i = ⟨W_dec[i], g⟩`. A row's features stay in cache between the two.

use super::kernel::{dot, prefetch};
use super::parallel::each;
use super::rounded::{Rounded, round};
use super::score::Lane;

/// Rows in a piece of work.
const PIECE: usize = 32;

/// The codes of a batch, row after row.
#[derive(Default)]
pub(super) struct Codes {
    /// Row `r` owns `offsets[r]..offsets[r + 1]`.
    pub(super) offsets: Vec<usize>,
    /// Selected features.
    pub(super) features: Vec<u32>,
    /// Their positive values.
    pub(super) values: Vec<f32>,
    /// ∂L/∂value.
    pub(super) slopes: Vec<f32>,
}

/// What the pieces of a reconstruction add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// `Σ ‖error‖²`.
    pub(super) error: f64,
    /// Positive codes.
    pub(super) active: u64,
}

impl Codes {
    /// Takes the selection over from the lanes; `name` turns a lane's number into a feature.
    pub(super) fn take(&mut self, lanes: &[Lane], name: impl Fn(u32) -> u32) {
        self.offsets.clear();
        self.features.clear();
        self.values.clear();
        self.offsets.push(0);
        for lane in lanes {
            self.features.extend(lane.items.iter().map(|item| name(item.1)));
            self.values.extend(lane.items.iter().map(|item| item.0));
            self.offsets.push(self.features.len());
        }
        self.slopes.clear();
        self.slopes.resize(self.features.len(), 0.0);
    }
}

/// What is to be rebuilt: `scale · rows`, either the rows themselves or the error that a first reconstruction left.
pub(super) struct Target<'a> {
    /// `[n, d]`, or more rows.
    pub(super) rows: &'a Rounded,
    /// The factor on them.
    pub(super) scale: f32,
    /// The factor on the gradient: 2/B times the weight of this error.
    pub(super) weight: f32,
}

struct Piece<'a> {
    first: usize,
    offsets: &'a [usize],
    features: &'a [u32],
    values: &'a [f32],
    slopes: &'a mut [f32],
    gradients: &'a mut [i16],
    steps: &'a mut [f32],
    totals: &'a mut Totals,
}

/// Fills `codes.slopes` and `gradients [n, d]` (`∂L/∂x̂`).
pub(super) fn reconstruct(
    decoder: &Rounded,
    target: &Target<'_>,
    codes: &mut Codes,
    gradients: &mut Rounded,
    d: usize,
    threads: usize,
) -> Totals {
    let n = codes.offsets.len() - 1;
    let mut totals = vec![Totals::default(); n.div_ceil(PIECE)];
    gradients.resize(n, d);
    let mut slopes = &mut codes.slopes[..];
    let mut pieces = Vec::with_capacity(totals.len());
    for (i, ((gradients, steps), totals)) in gradients.chunks_mut(PIECE).zip(&mut totals).enumerate() {
        let offsets = &codes.offsets[i * PIECE..=i * PIECE + steps.len()];
        let at = offsets[0]..offsets[offsets.len() - 1];
        let (head, tail) = std::mem::take(&mut slopes).split_at_mut(at.len());
        slopes = tail;
        let (features, values) = (&codes.features[at.clone()], &codes.values[at]);
        let first = i * PIECE;
        pieces.push(Piece { first, offsets, features, values, slopes: head, gradients, steps, totals });
    }
    each(threads, pieces.into_iter(), |piece| piece.run(decoder, target, d));
    totals.iter().fold(Totals::default(), |sum, piece| Totals {
        error: sum.error + piece.error,
        active: sum.active + piece.active,
    })
}

impl Piece<'_> {
    fn run(self, decoder: &Rounded, target: &Target<'_>, d: usize) {
        let mut g = vec![0f32; d];
        let start = self.offsets[0];
        let rows = self.gradients.chunks_exact_mut(decoder.width).zip(self.steps).zip(self.offsets.windows(2));
        for (r, ((out, step), at)) in rows.enumerate() {
            let at = at[0] - start..at[1] - start;
            let (features, values) = (&self.features[at.clone()], &self.values[at.clone()]);
            g.fill(0.0);
            target.rows.add(&mut g, 1, |_| (-target.scale, self.first + r));
            decoder.add(&mut g, values.len(), |j| (values[j], features[j] as usize));
            self.totals.error += f64::from(dot(&g, &g));
            self.totals.active += values.len() as u64;
            *step = round(&g, out) * target.weight;
            decoder.dot(out, *step, features, &mut self.slopes[at.clone()]);
            // The rows that the next four codes need come from far away.
            for &f in self.features.iter().skip(at.end).take(4) {
                prefetch(decoder.row(f as usize));
            }
        }
    }
}
