//! Attention sinks: tokens that heads look at when they look for nothing, whose rows lie far from all others.
//!
//! The token at position 0 is one by its place. Others are told by their distance from the middle of all rows, not by their
//! norm: in Gemma 3 270M all rows share one huge component, so that a row of three in a thousand has 8 times the norm of the
//! others, but 23 times their distance from the middle, and these few are 60 % of all variance (layer 11). In SmolLM2-135M
//! one row in 30,000 is a hundred times as long as the others.
//!
//! Other rows mostly lie within 3 median distances. Where there is something between, it counts as far as it stays within
//! [`SINK`]: one row in sixty of SmolLM2's blocks 2 to 7 lies at 5 to 17, three in a thousand of Gemma's block 14 at 9.

use crate::num::stats::median;

/// A row farther from the middle than so many medians of that distance is an attention sink.
pub const SINK: f32 = 10.0;

/// Where rows lie, and how far one has to be from there to be an attention sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Sinks {
    /// `[d_model]`.
    middle: Vec<f32>,
    limit: f32,
}

impl Sinks {
    /// Tells by `rows` `[n, d_model]`, none of them at position 0. A few rows tell nothing: then no row is a sink.
    ///
    /// # Panics
    /// If `d_model` is 0.
    pub fn of(rows: &[f32], d_model: usize) -> Self {
        /// Fewer rows do not tell.
        const FEW: usize = 16;
        let n = rows.len() / d_model;
        let mut sinks = Self { middle: vec![0.0; d_model], limit: f32::INFINITY };
        if n < FEW {
            return sinks;
        }
        let mut column = vec![0f32; n];
        for (j, middle) in sinks.middle.iter_mut().enumerate() {
            column.iter_mut().zip(rows.chunks_exact(d_model)).for_each(|(v, row)| *v = row[j]);
            column.select_nth_unstable_by(n / 2, f32::total_cmp);
            *middle = column[n / 2];
        }
        let distances = rows.chunks_exact(d_model).map(|row| sinks.distance(row));
        let distances: Vec<f32> = distances.filter(|distance| !distance.is_nan()).collect();
        let limit = SINK * median(&distances) as f32;
        if limit > 0.0 {
            sinks.limit = limit;
        }
        sinks
    }

    /// No row is one.
    pub fn none(d_model: usize) -> Self {
        Self { middle: vec![0.0; d_model], limit: f32::INFINITY }
    }

    /// Whether `row` `[d_model]` is an attention sink. A row with NaN is none: it must show in results.
    pub fn contains(&self, row: &[f32]) -> bool {
        self.distance(row) > self.limit
    }

    /// What is left of `rows` `[n, d_model]` without the sinks; none if there are no sinks among them.
    pub fn without(&self, rows: &[f32]) -> Option<Vec<f32>> {
        let rows = rows.chunks_exact(self.middle.len());
        rows.clone()
            .any(|row| self.contains(row))
            .then(|| rows.filter(|row| !self.contains(row)).flatten().copied().collect())
    }

    fn distance(&self, row: &[f32]) -> f32 {
        row.iter().zip(&self.middle).map(|(x, m)| f64::from(x - m).powi(2)).sum::<f64>().sqrt() as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    const D: usize = 6;

    /// Rows with a huge common component.
    fn rows(n: usize) -> Vec<f32> {
        let mut rng = crate::num::rng(1);
        (0..n * D).map(|i| if i % D == 2 { 1000.0 } else { 0.0 } + rng.random_range(-1f32..1.0)).collect()
    }

    #[test]
    fn a_row_that_is_no_longer_than_others_may_be_a_sink() {
        let mut rows = rows(300);
        rows[7 * D + 2] = -1000.0;
        rows[9 * D + 4] = f32::NAN;
        let sinks = Sinks::of(&rows, D);
        let found: Vec<usize> = (0..300).filter(|i| sinks.contains(&rows[i * D..][..D])).collect();
        assert_eq!(found, [7]);
        let left = sinks.without(&rows).unwrap();
        assert_eq!((left.len(), &left[7 * D..8 * D]), (299 * D, &rows[8 * D..9 * D]));
        assert!(sinks.without(&rows[..7 * D]).is_none());
    }

    #[test]
    fn few_rows_and_equal_rows_tell_nothing() {
        for rows in [&rows(300)[..10 * D], &[2.0; 100 * D], &[]] {
            assert!(!Sinks::of(rows, D).contains(&[1e6; D]));
        }
        assert!(!Sinks::none(D).contains(&[1e30; D]));
    }
}
