//! From selected features to the reconstruction, its error, and the gradients of the codes.
//!
//! With `x` the row less `b_dec` and `f_i` its codes, the error is `1/B Σ_rows ‖Σ_i f_i W_dec[i] − x‖²`, so
//! `g = ∂L/∂x̂ = 2/B (Σ_i f_i W_dec[i] − x)` and `∂L/∂f_i = ⟨W_dec[i], g⟩`. A row's features stay in cache between the two.
//! What a variant adds, and what `f_i` is, its [`Rule`] says.

use super::codes::Codes;
use super::kernel::{add, dot, prefetch};
use super::rounded::{Rounded, round};
use super::variant::{Penalty, Row, Rule, Side, matryoshka};
use crate::num::parallel::each;

/// Rows in a piece of work.
const PIECE: usize = 32;

/// What the pieces of a reconstruction add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// `Σ ‖error‖²`.
    pub(super) error: f64,
    /// Positive codes.
    pub(super) active: u64,
    /// What the objective adds to the error.
    pub(super) penalty: Penalty,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.error += other.error;
        self.active += other.active;
        self.penalty.value += other.penalty.value;
        self.penalty.powers[0] += other.penalty.powers[0];
        self.penalty.powers[1] += other.penalty.powers[1];
    }
}

/// What is to be rebuilt: `scale · rows − bias`, either the rows themselves or the error that a first reconstruction left.
pub(super) struct Target<'a> {
    /// `[n, d]`, or more rows.
    pub(super) rows: &'a Rounded,
    /// The factor on them.
    pub(super) scale: f32,
    /// `b_dec`, if the rows still have it.
    pub(super) bias: Option<&'a [f32]>,
    /// The factor on the gradient: 2/B times the weight of this error.
    pub(super) weight: f32,
    /// Ends of the stretches of features whose errors count, the last being all.
    pub(super) levels: &'a [u32],
}

struct Piece<'a> {
    first: usize,
    offsets: &'a [usize],
    features: &'a [u32],
    scores: &'a [f32],
    values: &'a [f32],
    slopes: &'a mut [f32],
    sides: &'a mut [Side],
    /// For each level, a stretch of its gradients.
    gradients: Vec<(&'a mut [i16], &'a mut [f32])>,
    totals: &'a mut Totals,
}

/// Fills the codes' slopes and, for each level, `gradients [n, d]`: `∂L/∂x̂` of the features in that level.
pub(super) fn reconstruct(
    decoder: &Rounded,
    target: &Target<'_>,
    rule: &Rule,
    codes: &mut Codes,
    gradients: &mut Vec<Rounded>,
    d: usize,
    threads: usize,
) -> Totals {
    let n = codes.offsets.len() - 1;
    let mut totals = vec![Totals::default(); n.div_ceil(PIECE)];
    gradients.resize_with(target.levels.len(), Rounded::default);
    gradients.iter_mut().for_each(|level| level.resize(n, d));
    let mut levels: Vec<_> = gradients.iter_mut().map(|level| level.chunks_mut(PIECE)).collect();
    let (mut slopes, mut sides) = (&mut codes.slopes[..], &mut codes.sides[..]);
    let mut pieces = Vec::with_capacity(totals.len());
    for (i, totals) in totals.iter_mut().enumerate() {
        let gradients: Vec<_> = levels.iter_mut().filter_map(Iterator::next).collect();
        let offsets = &codes.offsets[i * PIECE..=((i + 1) * PIECE).min(n)];
        let at = offsets[0]..offsets[offsets.len() - 1];
        let (head, tail) = std::mem::take(&mut slopes).split_at_mut(at.len());
        slopes = tail;
        let n_sides = at.len().min(sides.len());
        let (head_sides, tail) = std::mem::take(&mut sides).split_at_mut(n_sides);
        sides = tail;
        pieces.push(Piece {
            first: i * PIECE,
            offsets,
            features: &codes.features[at.clone()],
            scores: codes.scores.get(at.clone()).unwrap_or_default(),
            values: &codes.values[at],
            slopes: head,
            sides: head_sides,
            gradients,
            totals,
        });
    }
    each(threads, pieces.into_iter(), |piece| piece.run(decoder, target, rule, d));
    totals.iter().fold(Totals::default(), |mut sum, piece| {
        sum.add(piece);
        sum
    })
}

impl Piece<'_> {
    fn run(mut self, decoder: &Rounded, target: &Target<'_>, rule: &Rule, d: usize) {
        let (start, width) = (self.offsets[0], decoder.width);
        let mut errors = vec![0f32; target.levels.len() * d];
        let mut gate = GatePath { pulls: Vec::new(), error: vec![0.0; d], rounded: vec![0; width] };
        for (r, at) in self.offsets.windows(2).enumerate() {
            let at = at[0] - start..at[1] - start;
            let (features, values) = (&self.features[at.clone()], &self.values[at.clone()]);
            errors.fill(0.0);
            target.add_to(&mut errors[..d], self.first + r);
            let mut from = 0;
            for (level, &end) in target.levels.iter().enumerate() {
                if level > 0 {
                    errors.copy_within((level - 1) * d..level * d, level * d);
                }
                let error = &mut errors[level * d..(level + 1) * d];
                let to = if level + 1 == target.levels.len() {
                    features.len()
                } else {
                    from + features[from..].partition_point(|&f| f < end)
                };
                decoder.add(error, to - from, |j| (values[from + j], features[from + j] as usize));
                let square = f64::from(dot(error, error));
                if level + 1 == target.levels.len() {
                    self.totals.error += square;
                } else {
                    self.totals.penalty.value += square;
                }
                from = to;
            }
            matryoshka::accumulate(&mut errors, d);
            from = 0;
            for (level, (gradients, steps)) in self.gradients.iter_mut().enumerate() {
                let to = from + features[from..].partition_point(|&f| f < target.levels[level]);
                let out = &mut gradients[r * width..(r + 1) * width];
                steps[r] = round(&errors[level * d..(level + 1) * d], out) * target.weight;
                decoder.dot(out, steps[r], &features[from..to], &mut self.slopes[at.start + from..at.start + to]);
                from = to;
            }
            // The rows that the next four codes need come from far away.
            for &f in self.features.iter().skip(at.end).take(4) {
                prefetch(decoder.row(f as usize));
            }
            self.totals.active += values.iter().filter(|&&value| value > 0.0).count() as u64;
            let scores = self.scores.get(at.clone()).unwrap_or_default();
            if let Rule::Gate(_) = rule {
                self.totals.penalty.value += gate.run(decoder, target, self.first + r, features, scores);
            }
            let sides = self.sides.get_mut(at.clone()).unwrap_or_default();
            let slopes = &mut self.slopes[at];
            let mut row = Row { features, scores, values, slopes, pulls: &gate.pulls, sides };
            let penalty = rule.differentiate(&mut row);
            self.totals.add(&Totals { penalty, ..Totals::default() });
        }
    }
}

impl Target<'_> {
    /// Adds what is to be rebuilt of row `r`, negative.
    fn add_to(&self, y: &mut [f32], r: usize) {
        self.rows.add(y, 1, |_| (-self.scale, r));
        if let Some(bias) = self.bias {
            add(y, 1.0, bias);
        }
    }
}

/// Gated's second reconstruction, of the gate's scores by a decoder that it doesn't train.
struct GatePath {
    pulls: Vec<f32>,
    error: Vec<f32>,
    rounded: Vec<i16>,
}

impl GatePath {
    /// Fills `pulls`; returns the squared error.
    fn run(&mut self, decoder: &Rounded, target: &Target<'_>, r: usize, features: &[u32], scores: &[f32]) -> f64 {
        self.error.fill(0.0);
        target.add_to(&mut self.error, r);
        decoder.add(&mut self.error, scores.len(), |j| (scores[j], features[j] as usize));
        let step = round(&self.error, &mut self.rounded) * target.weight;
        self.pulls.clear();
        self.pulls.resize(features.len(), 0.0);
        decoder.dot(&self.rounded, step, features, &mut self.pulls);
        f64::from(dot(&self.error, &self.error))
    }
}
