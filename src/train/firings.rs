//! The codes of a batch, sorted by feature: what the gradients of a feature's weights are summed over.

use super::codes::Codes;
use super::rounded::Rounded;
use super::variant::Side;

/// A firing of a feature.
#[derive(Clone, Copy, Default)]
pub(super) struct Firing {
    pub(super) row: u32,
    pub(super) value: f32,
    pub(super) slope: f32,
}

/// The firings of a batch, sorted by feature, then by row.
#[derive(Default)]
pub(super) struct Firings {
    offsets: Vec<usize>,
    firings: Vec<Firing>,
    /// Beside them, in variants that have some.
    sides: Vec<Side>,
}

impl Firings {
    /// Sorts the codes.
    pub(super) fn sort(&mut self, n: usize, codes: &Codes) {
        self.offsets.clear();
        self.offsets.resize(n + 1, 0);
        for &f in &codes.features {
            self.offsets[f as usize + 1] += 1;
        }
        for f in 0..n {
            self.offsets[f + 1] += self.offsets[f];
        }
        self.firings.clear();
        self.firings.resize(codes.features.len(), Firing::default());
        self.sides.clear();
        self.sides.resize(codes.sides.len(), Side::default());
        // `offsets[f]` runs from the start of feature f to its end, which is the start of feature f + 1.
        for (r, at) in codes.offsets.windows(2).enumerate() {
            for j in at[0]..at[1] {
                let next = &mut self.offsets[codes.features[j] as usize];
                self.firings[*next] = Firing { row: r as u32, value: codes.values[j], slope: codes.slopes[j] };
                if let Some(side) = self.sides.get_mut(*next) {
                    *side = codes.sides[j];
                }
                *next += 1;
            }
        }
        self.offsets.rotate_right(1);
        self.offsets[0] = 0;
    }

    /// The firings of feature `f`.
    pub(super) fn of(&self, f: usize) -> &[Firing] {
        &self.firings[self.offsets[f]..self.offsets[f + 1]]
    }

    /// The gradients beside them; none in variants without.
    pub(super) fn sides_of(&self, f: usize) -> &[Side] {
        self.sides.get(self.offsets[f]..self.offsets[f + 1]).unwrap_or_default()
    }
}

/// What the gradients are made of: codes with the gradients of what they rebuilt.
pub(super) struct Source<'a> {
    /// Ends of the stretches of features that have gradients of their own.
    pub(super) levels: &'a [u32],
    /// For each of them, `∂L/∂x̂ [batch, d]`.
    pub(super) gradients: &'a [Rounded],
    /// The firings.
    pub(super) firings: &'a Firings,
}

impl Source<'_> {
    /// The gradients of what feature `f` rebuilt.
    pub(super) fn gradients_of(&self, f: usize) -> &Rounded {
        let level = self.levels.partition_point(|&end| end as usize <= f);
        &self.gradients[level.min(self.gradients.len() - 1)]
    }
}
