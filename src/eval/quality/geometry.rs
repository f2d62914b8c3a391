//! How alike a dictionary's directions are, and whether features write where they read.
//!
//! A feature whose decoder row has a large cosine with another's says nearly the same; a decoder row far from its own
//! encoder row means that the feature is read off something else than what it writes.

use serde::{Deserialize, Serialize};

use crate::dictionary::Dictionary;
use crate::num::stats::{mean, median, quantile};
use crate::num::{Mat, gemm};

/// Features that are compared with each other: of a larger dictionary, so many taken evenly. Costs n² d multiplications.
const MOST: usize = 16_384;
/// Rows of one product.
const BLOCK: usize = 256;
/// A nearest cosine from which two features count as one.
const TWIN: f32 = 0.9;
/// Pairs that are told.
const TOLD: usize = 10;

/// What the directions of a dictionary are like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Features that were compared with each other.
    pub compared: usize,
    /// Mean over features of the largest cosine of their decoder row with another's.
    pub decoder_mean: f64,
    /// Median of it.
    pub decoder_median: f64,
    /// 95th percentile of it.
    pub decoder_p95: f64,
    /// Share of features with a cosine of more than 0.9 to another.
    pub twins: f64,
    /// Mean over features of the largest cosine of their encoder row with another's.
    pub encoder_mean: f64,
    /// Mean cosine of a feature's own encoder and decoder rows.
    pub own: f64,
    /// The pairs of features with the largest cosines, each once.
    pub nearest: Vec<Near>,
}

/// A feature, and the one whose decoder row is nearest to its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Near {
    /// The feature.
    pub feature: u32,
    /// The other.
    pub other: u32,
    /// The cosine of both.
    pub cosine: f32,
}

/// Compares the directions of `dictionary`.
pub fn geometry(dictionary: &Dictionary, threads: usize) -> Geometry {
    let n = dictionary.n_features();
    let step = n.div_ceil(MOST).max(1);
    let features: Vec<usize> = (0..n).step_by(step).collect();
    let (d_in, d_out) = (dictionary.d_model(), dictionary.d_out());
    let decoder = unit_rows(&features, d_out, &|i, row| dictionary.decoder_row(i, row));
    let encoder = unit_rows(&features, d_in, &|i, row| dictionary.encoder_row(i, row));
    let found = nearest(&decoder, d_out, threads);
    let cosines: Vec<f32> = found.iter().map(|(_, cosine)| *cosine).collect();
    let encoders: Vec<f32> = nearest(&encoder, d_in, threads).into_iter().map(|(_, cosine)| cosine).collect();
    if cosines.is_empty() {
        return Geometry { compared: features.len(), ..Geometry::default() };
    }
    // A transcoder reads and writes in different places: nothing compares.
    let own = |d: usize| {
        let dots = encoder.chunks_exact(d).zip(decoder.chunks_exact(d)).map(|(e, w)| crate::num::dot(e, w));
        mean(&dots.collect::<Vec<f32>>())
    };
    let mut near: Vec<Near> = found
        .iter()
        .zip(&features)
        .map(|(&(other, cosine), &f)| Near { feature: f as u32, other: features[other] as u32, cosine })
        .filter(|near| near.feature < near.other || found[near.other as usize / step].0 != near.feature as usize / step)
        .collect();
    near.sort_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.feature.cmp(&b.feature)));
    near.truncate(TOLD);
    Geometry {
        compared: features.len(),
        decoder_mean: mean(&cosines),
        decoder_median: median(&cosines),
        decoder_p95: quantile(&cosines, 0.95),
        twins: cosines.iter().filter(|cosine| **cosine > TWIN).count() as f64 / cosines.len() as f64,
        encoder_mean: mean(&encoders),
        own: if d_in == d_out { own(d_in) } else { 0.0 },
        nearest: near,
    }
}

/// Rows of length 1, `[features, d]`; a row of zeros stays.
fn unit_rows(features: &[usize], d: usize, read: &dyn Fn(usize, &mut [f32])) -> Vec<f32> {
    let mut rows = vec![0f32; features.len() * d];
    for (row, &i) in rows.chunks_exact_mut(d).zip(features) {
        read(i, row);
        let length = crate::num::norm(row);
        if length > 0.0 {
            row.iter_mut().for_each(|v| *v /= length);
        }
    }
    rows
}

/// Of each of `rows` `[n, d]`, of length 1, the other with the largest cosine, and the cosine; of equal ones the first.
/// Nothing for fewer than two rows.
fn nearest(rows: &[f32], d: usize, threads: usize) -> Vec<(usize, f32)> {
    let n = rows.len() / d;
    if n < 2 {
        return Vec::new();
    }
    let mut all = Vec::with_capacity(n);
    let mut cosines = vec![0f32; BLOCK.min(n) * n];
    for (block, part) in rows.chunks(BLOCK * d).enumerate() {
        let m = part.len() / d;
        let cosines = &mut cosines[..m * n];
        gemm(Mat::new(part, m, d), Mat::new(rows, n, d).t(), false, cosines, threads);
        for (r, row) in cosines.chunks_exact(n).enumerate() {
            let own = block * BLOCK + r;
            let mut best = (usize::from(own == 0), f32::NEG_INFINITY);
            for (i, &cosine) in row.iter().enumerate().filter(|(i, _)| *i != own) {
                if cosine > best.1 {
                    best = (i, cosine);
                }
            }
            all.push(best);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn the_nearest_of_every_row_is_found() {
        let (n, d) = (700, 7);
        let mut rng = crate::num::rng(4);
        let rows: Vec<f32> = (0..n * d).map(|_| rng.random_range(-1f32..1.0)).collect();
        let unit = unit_rows(&(0..n).collect::<Vec<_>>(), d, &|i, row| row.copy_from_slice(&rows[i * d..][..d]));
        for (i, (other, cosine)) in nearest(&unit, d, 2).into_iter().enumerate() {
            let of = |j: usize| {
                let dot: f64 = (0..d).map(|k| f64::from(rows[i * d + k]) * f64::from(rows[j * d + k])).sum();
                dot / f64::from(crate::num::norm(&rows[i * d..][..d]) * crate::num::norm(&rows[j * d..][..d]))
            };
            let best = (0..n).filter(|&j| j != i).max_by(|&a, &b| of(a).total_cmp(&of(b))).unwrap();
            assert!((of(best) - f64::from(cosine)).abs() < 1e-5 && (of(other) - of(best)).abs() < 1e-5, "{i}");
        }
        assert!(nearest(&unit[..d], d, 1).is_empty());
    }
}
