//! The coordinates in which estimates are made, and the one loop over rows that all of them share.

use nalgebra::DMatrix;

use super::sequences::Sequences;
use crate::error::{Error, Result};
use crate::num::{Mat, gemm};

/// Target rows of a chunk, at most.
pub(super) const CHUNK: usize = 2048;

/// An affine map of rows: first the mean is taken off, then each column is scaled, or all are mixed.
pub(super) struct Frame {
    /// `[width]`
    pub(super) mean: Vec<f32>,
    map: Map,
}

enum Map {
    Scale(Vec<f32>),
    /// `[n, width]`
    Mix(usize, Vec<f32>),
}

impl Frame {
    /// Columns of mean 0 over all targets, the rows with `lags` rows of their document before them, and of variance 1 over
    /// all rows. Constant columns are an error: nothing can drive them, nor they anything.
    pub(super) fn standard(sequences: &Sequences<'_>, lags: usize) -> Result<Self> {
        let w = sequences.width();
        let (mut sum, mut squares, mut targets) = (vec![0f64; w], vec![0f64; w], vec![0f64; w]);
        let (mut count, mut n_targets) = (0usize, 0usize);
        let mut rows = Vec::new();
        for_rows(sequences, &mut rows, |first, rows| {
            count += rows.len() / w;
            for (row, at) in rows.chunks_exact(w).zip(first..) {
                for ((sum, square), &v) in sum.iter_mut().zip(&mut squares).zip(row) {
                    *sum += f64::from(v);
                    *square += f64::from(v) * f64::from(v);
                }
                if at >= lags {
                    n_targets += 1;
                    targets.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
                }
            }
            Ok(())
        })?;
        let mut scale = Vec::with_capacity(w);
        for (i, (sum, square)) in sum.iter().zip(&squares).enumerate() {
            let mean = sum / count as f64;
            let variance = square / count as f64 - mean * mean;
            if variance.is_nan() || variance <= 1e-12 * (mean * mean).max(1e-30) {
                return Err(Error::numeric(format!("column {i} is constant over all {count} rows: leave it out")));
            }
            scale.push((1.0 / variance.sqrt()) as f32);
        }
        let mean = targets.iter().map(|sum| (sum / n_targets.max(1) as f64) as f32).collect();
        Ok(Self { mean, map: Map::Scale(scale) })
    }

    /// Rows minus `mean`, times `mix` `[n, width]`.
    pub(super) fn mixed(mean: Vec<f32>, mix: &DMatrix<f64>) -> Self {
        let rows = mix.transpose().as_slice().iter().map(|&v| v as f32).collect();
        Self { mean, map: Map::Mix(mix.nrows(), rows) }
    }

    /// Rows minus their mean.
    pub(super) fn centred(sequences: &Sequences<'_>) -> Result<Self> {
        let w = sequences.width();
        let (mut sum, mut count, mut rows) = (vec![0f64; w], 0usize, Vec::new());
        for_rows(sequences, &mut rows, |_, rows| {
            count += rows.len() / w;
            rows.chunks_exact(w).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v)));
            Ok(())
        })?;
        Ok(Self::shifted(sum.iter().map(|s| (s / count as f64) as f32).collect()))
    }

    /// Rows minus their mean, all columns scaled alike so that their mean variance is 1.
    pub(super) fn even(sequences: &Sequences<'_>) -> Result<Self> {
        let Self { mean, .. } = Self::centred(sequences)?;
        let (mut squares, mut count, mut rows) = (0f64, 0usize, Vec::new());
        for_rows(sequences, &mut rows, |_, rows| {
            count += rows.len();
            for row in rows.chunks_exact(mean.len()) {
                squares += row.iter().zip(&mean).map(|(v, m)| f64::from(v - m).powi(2)).sum::<f64>();
            }
            Ok(())
        })?;
        let scale = (count as f64 / squares).sqrt() as f32;
        if !scale.is_finite() {
            return Err(Error::numeric("rows: expected rows that differ, found all equal"));
        }
        Ok(Self { map: Map::Scale(vec![scale; mean.len()]), mean })
    }

    /// Rows minus `mean`.
    pub(super) fn shifted(mean: Vec<f32>) -> Self {
        let scale = vec![1.0; mean.len()];
        Self { mean, map: Map::Scale(scale) }
    }

    /// Values in a row of this frame.
    pub(super) fn n(&self) -> usize {
        match &self.map {
            Map::Scale(scale) => scale.len(),
            Map::Mix(n, _) => *n,
        }
    }

    /// One over the standard deviations, of a standard frame.
    pub(super) fn scale(&self) -> &[f32] {
        match &self.map {
            Map::Scale(scale) => scale,
            Map::Mix(..) => &[],
        }
    }

    /// Maps `rows` `[m, width]` to `out` `[m, n]`.
    pub(super) fn apply(&self, rows: &mut [f32], out: &mut Vec<f32>, threads: usize) {
        let w = self.mean.len();
        for row in rows.chunks_exact_mut(w) {
            row.iter_mut().zip(&self.mean).for_each(|(v, m)| *v -= m);
        }
        out.clear();
        match &self.map {
            Map::Scale(scale) => {
                out.extend(rows.chunks_exact(w).flat_map(|row| row.iter().zip(scale).map(|(v, s)| v * s)));
            }
            Map::Mix(n, mix) => {
                let m = rows.len() / w;
                out.resize(m * n, 0.0);
                gemm(Mat::new(rows, m, w), Mat::new(mix, *n, w).t(), false, out, threads);
            }
        }
    }
}

/// Rows of one document in a frame: `lags` rows of past, then the targets.
pub(super) struct Chunk<'c> {
    rows: &'c [f32],
    n: usize,
    lags: usize,
}

impl Chunk<'_> {
    /// Number of targets.
    pub(super) fn len(&self) -> usize {
        self.rows.len() / self.n - self.lags
    }

    /// The rows `lag` before the targets, `[len, n]`; 0: the targets.
    pub(super) fn lagged(&self, lag: usize) -> Mat<'_> {
        Mat::new(self.values(lag), self.len(), self.n)
    }

    /// The same as values.
    pub(super) fn values(&self, lag: usize) -> &[f32] {
        let first = (self.lags - lag) * self.n;
        &self.rows[first..first + self.len() * self.n]
    }
}

/// Calls `work` on every chunk of at most [`CHUNK`] targets, document after document.
pub(super) fn for_chunks(
    sequences: &Sequences<'_>,
    frame: &Frame,
    lags: usize,
    threads: usize,
    mut work: impl FnMut(Chunk<'_>) -> Result<()>,
) -> Result<()> {
    let (w, n) = (sequences.width(), frame.n());
    let (mut raw, mut rows) = (Vec::new(), Vec::new());
    for document in 0..sequences.n_documents() {
        let len = sequences.document_len(document);
        let mut first = lags;
        while first < len {
            let last = (first + CHUNK).min(len);
            raw.resize((last - first + lags) * w, 0.0);
            sequences.read(document, first - lags..last, &mut raw)?;
            frame.apply(&mut raw, &mut rows, threads);
            work(Chunk { rows: &rows, n, lags })?;
            first = last;
        }
    }
    Ok(())
}

/// Calls `work` on all rows as they are, some thousand of a document at a time, with the place of the first of them.
pub(super) fn for_rows(
    sequences: &Sequences<'_>,
    buffer: &mut Vec<f32>,
    mut work: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let w = sequences.width();
    for document in 0..sequences.n_documents() {
        let len = sequences.document_len(document);
        for first in (0..len).step_by(CHUNK) {
            let last = (first + CHUNK).min(len);
            buffer.resize((last - first) * w, 0.0);
            sequences.read(document, first..last, buffer)?;
            work(first, buffer)?;
        }
    }
    Ok(())
}

/// The mean of all rows and their covariance.
pub(super) fn covariance(sequences: &Sequences<'_>, threads: usize) -> Result<(Vec<f32>, DMatrix<f64>)> {
    let w = sequences.width();
    let frame = Frame::centred(sequences)?;
    let (mut gram, mut total, mut count) = (vec![0f32; w * w], vec![0f64; w * w], 0usize);
    for_chunks(sequences, &frame, 0, threads, |chunk| {
        count += chunk.len();
        gemm(chunk.lagged(0).t(), chunk.lagged(0), false, &mut gram, threads);
        total.iter_mut().zip(&gram).for_each(|(t, &v)| *t += f64::from(v));
        Ok(())
    })?;
    total.iter_mut().for_each(|t| *t /= count as f64);
    // Symmetric, so rows and columns may be taken for each other.
    Ok((frame.mean, DMatrix::from_vec(w, w, total)))
}
