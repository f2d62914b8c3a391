//! The frame that rows are seen in: their middle, their scale, and how far out they may lie.

use super::options::{Objective, Options};
use crate::error::{Error, Result};
use crate::num::stats::median;
use crate::train::rows::{Rows, order};

/// Rows that the frame is estimated from.
const SAMPLE: usize = 16_384;
/// How far from the middle a row may be, in medians of that distance: beyond lie attention sinks.
const FAR: f32 = 3.0;

/// `u = scale·(x − middle)`, drawn in to `‖u‖ ≤ limit`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// `[d_model]`; zero for differences, whose origin means something.
    pub(super) middle: Vec<f32>,
    pub(super) scale: f32,
    pub(super) limit: f32,
}

impl Frame {
    /// Estimates the frame of `rows`: the mean of those that are not far away, and the scale that gives rows the mean
    /// squared norm `d_model`.
    pub(super) fn of(rows: &Rows<'_>, options: &Options) -> Result<Self> {
        let d = rows.d_model();
        let chosen = order(rows.len(), options.seed, u32::MAX);
        let mut sample = vec![0f32; chosen.len().min(SAMPLE) * d];
        for (row, &i) in sample.chunks_exact_mut(d).zip(&chosen) {
            rows.read(i as usize, row)?;
        }
        if !options.scale_rows {
            return Ok(Self { middle: vec![0.0; d], scale: 1.0, limit: f32::INFINITY });
        }
        let centred = matches!(options.objective, Objective::Conca { .. });
        let mut middle = vec![0f32; d];
        let mut near = vec![true; sample.len() / d];
        let mut far = Vec::new();
        // Three rounds: far rows move the first mean, hardly the second.
        for _ in 0..3 {
            if centred {
                middle = mean(&sample, d, &near);
            }
            far = sample.chunks_exact(d).map(|row| distance(row, &middle)).collect();
            let limit = FAR * median(&far) as f32;
            near = far.iter().map(|&far| far <= limit).collect();
        }
        let limit = FAR * median(&far) as f32;
        let spread = far.iter().map(|&far| f64::from(far.min(limit)).powi(2)).sum::<f64>() / far.len() as f64;
        let scale = (d as f64 / spread).sqrt() as f32;
        if !scale.is_finite() || scale == 0.0 {
            let what = format!("rows: expected rows that differ, found a mean squared spread of {spread}");
            return Err(Error::numeric(what));
        }
        Ok(Self { middle, scale, limit: scale * limit })
    }

    /// Brings a row into the frame.
    pub(super) fn enter(&self, row: &mut [f32]) {
        row.iter_mut().zip(&self.middle).for_each(|(x, m)| *x = self.scale * (*x - m));
        let far = crate::num::norm(row);
        if far > self.limit {
            row.iter_mut().for_each(|x| *x *= self.limit / far);
        }
    }
}

fn mean(sample: &[f32], d: usize, near: &[bool]) -> Vec<f32> {
    let mut sum = vec![0f64; d];
    let rows = sample.chunks_exact(d).zip(near).filter(|(_, near)| **near);
    rows.for_each(|(row, _)| sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x)));
    let n = near.iter().filter(|near| **near).count().max(1) as f64;
    sum.iter().map(|sum| (sum / n) as f32).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_neither_move_the_middle_nor_the_scale() {
        let d = 4;
        let mut data: Vec<f32> = (0..4000).map(|i| ((i * 7919 + i / 4 * 31) % 1009) as f32 / 1009.0 + 5.0).collect();
        let clean = Frame::of(&Rows::from_slice(d, &data).unwrap(), &Options::conca()).unwrap();
        data.extend([1e4; 12]);
        let frame = Frame::of(&Rows::from_slice(d, &data).unwrap(), &Options::conca()).unwrap();
        for (a, b) in frame.middle.iter().zip(&clean.middle) {
            assert!((a - b).abs() < 1e-3 && (a - 5.5).abs() < 0.05, "{a} {b}");
        }
        assert!((frame.scale / clean.scale - 1.0).abs() < 0.02, "{} {}", frame.scale, clean.scale);
        let mut far = vec![1e4f32; 4];
        frame.enter(&mut far);
        assert!((crate::num::norm(&far) / frame.limit - 1.0).abs() < 1e-5);
        let same = vec![2.0f32; 80];
        let error = Frame::of(&Rows::from_slice(8, &same).unwrap(), &Options::conca()).err().unwrap();
        assert!(error.message().contains("rows that differ"), "{error}");
        let differences = Frame::of(&Rows::from_slice(8, &same).unwrap(), &Options::ssae()).unwrap();
        assert_eq!(differences.middle, [0.0; 8], "differences keep their origin");
    }
}
