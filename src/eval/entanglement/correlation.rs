//! How well single features say what concepts are: correlations, MCC, and how many concepts a feature says.
//!
//! ```text
//! C_jc = Pearson(f_j, y_c)        feature j, concept c
//! s_c  = max_j C_jc               MCC: the mean of s_c over concepts (micro), over attributes (macro)
//! A_jc = |C_jc| > 0.3             one-to-many
//! ```
//!
//! after arXiv 2512.15134. Codes may be more than memory holds: sums are taken block by block.

use serde::Serialize;

use crate::eval::bootstrap;

/// A correlation above this counts as one, in [`OneToMany`].
pub const ASSOCIATED: f64 = 0.3;
/// Share of what is drawn that an interval holds.
const SHARE: f64 = 0.9;

/// Sums over rows of codes and labels.
#[derive(Clone, Debug)]
pub struct Moments {
    n_features: usize,
    n_concepts: usize,
    rows: usize,
    active: usize,
    /// The first row: sums are of codes less this, so that a large mean takes no digits away. `[F]`
    shift: Vec<f64>,
    sum: Vec<f64>,
    square: Vec<f64>,
    max: Vec<f32>,
    /// Σ (f_j − shift_j)·y_c, `[F, C]`.
    cross: Vec<f64>,
    /// Σ y_c and Σ y_c², `[C]`.
    labels: Vec<[f64; 2]>,
}

impl Moments {
    /// No rows yet.
    pub fn new(n_features: usize, n_concepts: usize) -> Self {
        Self {
            n_features,
            n_concepts,
            rows: 0,
            active: 0,
            shift: Vec::new(),
            sum: vec![0.0; n_features],
            square: vec![0.0; n_features],
            max: vec![f32::NEG_INFINITY; n_features],
            cross: vec![0.0; n_features * n_concepts],
            labels: vec![[0.0; 2]; n_concepts],
        }
    }

    /// Adds codes `[n, F]` of rows with labels `[n, C]`: 1 or 0, or of pairs of rows the difference of these.
    ///
    /// # Panics
    /// If these are no such rows, or not as many.
    pub fn add(&mut self, codes: &[f32], labels: &[f32]) {
        let (f, c) = (self.n_features, self.n_concepts);
        assert!(codes.len().is_multiple_of(f) && labels.len() == codes.len() / f * c, "codes and labels of rows");
        for (row, labels) in codes.chunks_exact(f).zip(labels.chunks_exact(c)) {
            if self.shift.is_empty() {
                self.shift = row.iter().map(|&v| f64::from(v)).collect();
            }
            self.rows += 1;
            for (sums, &y) in self.labels.iter_mut().zip(labels) {
                sums[0] += f64::from(y);
                sums[1] += f64::from(y).powi(2);
            }
            self.max.iter_mut().zip(row).for_each(|(max, &v)| *max = max.max(v));
            for (j, &value) in row.iter().enumerate() {
                self.active += usize::from(value != 0.0);
                let v = f64::from(value) - self.shift[j];
                // Most codes are what the first row has: zero.
                if v == 0.0 {
                    continue;
                }
                self.sum[j] += v;
                self.square[j] += v * v;
                let cross = &mut self.cross[j * c..(j + 1) * c];
                cross.iter_mut().zip(labels).for_each(|(sum, &y)| *sum += v * f64::from(y));
            }
        }
    }

    /// Number of features.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// Codes a row that are not zero.
    pub fn l0(&self) -> f64 {
        self.active as f64 / self.rows as f64
    }

    /// The largest code of every feature, `[F]`.
    pub fn max(&self) -> &[f32] {
        &self.max
    }

    /// The mean code of every feature, `[F]`.
    pub fn means(&self) -> Vec<f64> {
        self.sum.iter().zip(&self.shift).map(|(sum, shift)| shift + sum / self.rows as f64).collect()
    }

    /// The standard deviation of every feature, `[F]`.
    pub fn deviations(&self) -> Vec<f64> {
        let n = self.rows as f64;
        self.sum.iter().zip(&self.square).map(|(s, q)| (q / n - (s / n).powi(2)).max(0.0).sqrt()).collect()
    }

    /// Mean code of every feature over the rows with a concept, `[F, C]`; NaN without such a row.
    pub fn means_with(&self) -> Vec<f64> {
        let at = |i: usize| self.shift[i / self.n_concepts] + self.cross[i] / self.labels[i % self.n_concepts][0];
        (0..self.cross.len()).map(at).collect()
    }

    /// C, `[F, C]`. A feature or a concept that does not vary correlates with nothing: 0.
    pub fn correlations(&self) -> Vec<f64> {
        let (n, c) = (self.rows as f64, self.n_concepts);
        let mut all = vec![0.0; self.cross.len()];
        for (j, out) in all.chunks_exact_mut(c).enumerate() {
            let variance = self.square[j] - self.sum[j] * self.sum[j] / n;
            // What is left of a constant is rounding.
            if variance <= 1e-12 * self.square[j] {
                continue;
            }
            for (k, out) in out.iter_mut().enumerate() {
                let [sum, square] = self.labels[k];
                let spread = square - sum * sum / n;
                if spread > 1e-12 * square {
                    let covariance = self.cross[j * c + k] - self.sum[j] * sum / n;
                    *out = covariance / (variance * spread).sqrt();
                }
            }
        }
        all
    }
}

/// A feature, and how well it says what a concept is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Best {
    /// The feature.
    pub feature: usize,
    /// The correlation.
    pub correlation: f64,
}

/// For every concept the feature with the largest correlation of `correlations` `[F, C]`, or the largest by size; of
/// equal ones the first.
pub fn best(correlations: &[f64], n_concepts: usize, by_size: bool) -> Vec<Best> {
    let value = |v: f64| if by_size { v.abs() } else { v };
    let mut all = vec![Best { feature: 0, correlation: f64::NEG_INFINITY }; n_concepts];
    for (feature, row) in correlations.chunks_exact(n_concepts.max(1)).enumerate() {
        for (best, &v) in all.iter_mut().zip(row).filter(|(best, v)| value(**v) > best.correlation) {
            *best = Best { feature, correlation: value(v) };
        }
    }
    all
}

/// Means of what was found of each concept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Mean {
    /// Over concepts.
    pub micro: f64,
    /// Over attributes, of the mean over an attribute's concepts.
    #[serde(rename = "macro")]
    pub by_attribute: f64,
}

impl Mean {
    /// Of values `[C]`; `attributes` numbers the attribute of every concept from 0.
    pub fn of(values: &[f64], attributes: &[usize]) -> Self {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let n = attributes.iter().max().map_or(0, |max| max + 1);
        let members = |a: usize| attributes.iter().zip(values).filter(move |(of, _)| **of == a).map(|(_, v)| *v);
        let means: Vec<f64> = (0..n).map(|a| mean(&members(a).collect::<Vec<f64>>())).filter(|m| !m.is_nan()).collect();
        Self { micro: mean(values), by_attribute: mean(&means) }
    }
}

/// The interval of 90 % in which the micro mean of `Pearson(columns_c, labels_c)` would lie with other rows: rows are
/// drawn together, the feature of each concept stays. `columns` and `labels` are one list of rows for each concept.
pub fn interval(columns: &[Vec<f32>], labels: &[Vec<bool>], seed: u64) -> Option<[f64; 2]> {
    let n = columns.first().map_or(0, Vec::len);
    bootstrap::interval(n, SHARE, seed, &mut |drawn| {
        let each = columns.iter().zip(labels).map(|(x, y)| drawn_pearson(x, y, drawn));
        each.sum::<f64>() / columns.len() as f64
    })
}

fn drawn_pearson(x: &[f32], y: &[bool], drawn: &[usize]) -> f64 {
    let (n, shift) = (drawn.len() as f64, f64::from(x[drawn[0]]));
    let (mut sum, mut square, mut cross, mut yes) = (0.0, 0.0, 0.0, 0.0);
    for &i in drawn {
        let v = f64::from(x[i]) - shift;
        sum += v;
        square += v * v;
        if y[i] {
            cross += v;
            yes += 1.0;
        }
    }
    let spread = (square - sum * sum / n) * yes * (1.0 - yes / n);
    if spread > 0.0 { (cross - sum * yes / n) / spread.sqrt() } else { 0.0 }
}

/// How many concepts features are associated with, and how many features concepts are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OneToMany {
    /// Features that are associated with a concept.
    pub features: usize,
    /// Mean number of concepts of such a feature; 0 without one.
    pub concepts_per_feature: f64,
    /// Share of such features that have two concepts or more.
    pub shared: f64,
    /// Mean number of features of a concept.
    pub features_per_concept: f64,
}

impl OneToMany {
    /// Of correlations `[F, C]`; those whose size is above `threshold` count.
    pub fn of(correlations: &[f64], n_concepts: usize, threshold: f64) -> Self {
        let count = |row: &[f64]| row.iter().filter(|c| c.abs() > threshold).count();
        let counts: Vec<usize> = correlations.chunks_exact(n_concepts.max(1)).map(count).filter(|n| *n > 0).collect();
        let (features, all) = (counts.len(), counts.iter().sum::<usize>() as f64);
        let over = |n: usize| if n > 0 { n as f64 } else { 1.0 };
        Self {
            features,
            concepts_per_feature: all / over(features),
            shared: counts.iter().filter(|n| **n > 1).count() as f64 / over(features),
            features_per_concept: all / over(n_concepts),
        }
    }
}
