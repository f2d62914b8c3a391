//! Does the model predict text that it has not seen? Variance explained on held-out documents, beside shuffled time.

use serde::Serialize;

use super::frame::{Frame, for_chunks};
use super::model::Temporal;
use super::sequences::Sequences;
use crate::error::{Error, Result};
use crate::num::{Mat, gemm, rng};
use crate::progress::{Progress, report};
use rand::Rng;

/// Variance explained, mean over latents of 1 − E(z − ẑ)² / Var z; at most 1, below 0 where worse than the mean.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Rows that were predicted.
    pub rows: usize,
    /// ẑ_t = (I − M)⁻¹ Σ B_τ z_{t−τ}: from the rows before alone.
    pub from_past: f64,
    /// The same model with rows before taken from other places of the same text: what time adds is the difference.
    pub from_shuffled_past: f64,
    /// ẑ_t = M z_t + Σ B_τ z_{t−τ}: also from the latents that drive it in the same row.
    pub from_past_and_present: f64,
    /// The same with rows before taken from other places.
    pub from_shuffled_past_and_present: f64,
    /// Variance explained of each latent, from the rows before alone.
    #[serde(skip)]
    pub latents: Vec<f64>,
}

/// How well `model` predicts `sequences`, which it should not have been estimated on. Rows of models of rows are encoded
/// first.
///
/// # Errors
/// [`Kind::Mismatch`](crate::Kind::Mismatch) if they are of other latents; [`Kind::Argument`](crate::Kind::Argument) if no
/// row has a past; [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn forecast(
    model: &Temporal,
    sequences: &Sequences<'_>,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Forecast> {
    let (n, lags) = (model.n_latents(), model.lags());
    if sequences.features() != model.features() {
        return Err(Error::mismatch(
            "temporal model and rows: expected the same features of a dictionary, found others",
        ));
    }
    let frame = match model.mixing().and_then(|mixing| Some((mixing.encoder.as_ref()?, &mixing.offset))) {
        Some((encoder, offset)) if sequences.width() == offset.len() => {
            Frame::mixed(offset.clone(), &super::ica::from_rows(encoder, n, offset.len()))
        }
        None if sequences.width() == n => Frame::shifted(model.mean().to_vec()),
        _ => {
            let found = sequences.width();
            return Err(Error::mismatch(format!("temporal model of {n} latents: found rows of width {found}")));
        }
    };
    let total = sequences.n_targets(lags);
    if total < 2 {
        return Err(Error::argument(format!("rows: expected documents longer than {lags} rows, found none")));
    }
    let threads = threads.max(1);
    let square = n * n;
    let inverse = reduced(model)?;
    let mut sums = Sums::new(n);
    let mut random = rng(0);
    let (mut structural, mut plain) = (Vec::new(), Vec::new());
    let mut done = 0;
    for_chunks(sequences, &frame, lags, threads, |chunk| {
        let m = chunk.len();
        let z = chunk.values(0);
        sums.spread(z);
        for shuffled in [false, true] {
            let order: Vec<usize> = match shuffled {
                false => (0..m).collect(),
                true => (0..m).map(|_| random.random_range(0..m)).collect(),
            };
            // Σ B_τ z_{t−τ}
            structural.clear();
            structural.resize(m * n, 0f32);
            for (k, b) in model.lagged().chunks_exact(square).enumerate() {
                let past = chunk.values(k + 1);
                let rows: Vec<f32> = order.iter().flat_map(|&r| past[r * n..(r + 1) * n].iter().copied()).collect();
                gemm(Mat::new(&rows, m, n), Mat::new(b, n, n).t(), true, &mut structural, threads);
            }
            plain.resize(m * n, 0f32);
            gemm(Mat::new(&structural, m, n), Mat::new(&inverse, n, n).t(), false, &mut plain, threads);
            sums.error(usize::from(shuffled), z, &plain);
            let now = Mat::new(model.instantaneous(), n, n).t();
            gemm(chunk.lagged(0), now, true, &mut structural, threads);
            sums.error(2 + usize::from(shuffled), z, &structural);
        }
        done += m;
        report(progress, done as u64, total as u64, "forecast")
    })?;
    let explained = |kind: usize| (0..n).map(|i| sums.explained(kind, i)).collect::<Vec<f64>>();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n as f64;
    let latents = explained(0);
    Ok(Forecast {
        rows: total,
        from_past: mean(&latents),
        from_shuffled_past: mean(&explained(1)),
        from_past_and_present: mean(&explained(2)),
        from_shuffled_past_and_present: mean(&explained(3)),
        latents,
    })
}

/// (I − M)⁻¹ `[n, n]`, row-major.
fn reduced(model: &Temporal) -> Result<Vec<f32>> {
    let n = model.n_latents();
    let mut columns = Vec::with_capacity(n);
    let mut edit = vec![0f32; n];
    for j in 0..n {
        edit[j] = 1.0;
        columns.push(model.response(&edit, 0)?.swap_remove(0));
        edit[j] = 0.0;
    }
    Ok((0..n * n).map(|at| columns[at % n][at / n]).collect())
}

/// Squared errors of four predictions, and the spread of what they predict.
struct Sums {
    count: usize,
    sum: Vec<f64>,
    squares: Vec<f64>,
    errors: [Vec<f64>; 4],
}

impl Sums {
    fn new(n: usize) -> Self {
        let zeros = || vec![0f64; n];
        Self { count: 0, sum: zeros(), squares: zeros(), errors: [zeros(), zeros(), zeros(), zeros()] }
    }

    fn spread(&mut self, z: &[f32]) {
        let n = self.sum.len();
        self.count += z.len() / n;
        for row in z.chunks_exact(n) {
            for ((sum, square), &v) in self.sum.iter_mut().zip(&mut self.squares).zip(row) {
                *sum += f64::from(v);
                *square += f64::from(v) * f64::from(v);
            }
        }
    }

    fn error(&mut self, kind: usize, z: &[f32], predicted: &[f32]) {
        let n = self.sum.len();
        for (row, predicted) in z.chunks_exact(n).zip(predicted.chunks_exact(n)) {
            for ((error, &v), &p) in self.errors[kind].iter_mut().zip(row).zip(predicted) {
                *error += f64::from(v - p) * f64::from(v - p);
            }
        }
    }

    /// Of a latent that never changes, 0.
    fn explained(&self, kind: usize, i: usize) -> f64 {
        let variance = self.squares[i] - self.sum[i] * self.sum[i] / self.count as f64;
        // Below that the sums differ by their rounding.
        if variance > 1e-9 * self.squares[i] { 1.0 - self.errors[kind][i] / variance } else { 0.0 }
    }
}
