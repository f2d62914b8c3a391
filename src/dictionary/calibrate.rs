//! Thresholds for dictionaries that come without: what lets TopK steer by slices.

use super::Dictionary;
use super::encode::Rule;
use crate::error::{Error, Result};
use crate::num::parallel::each;
use crate::num::{Mat, gemm};

impl Dictionary {
    /// The same dictionary with a threshold for each feature, estimated from `rows` `[n, d_model]`: halfway between the
    /// pre-activations with which the feature fires exactly as often by p > θᵢ as it does by the k largest of a row. A
    /// feature that never fires gets a hair more than the largest p that it reached, and 0 at least.
    ///
    /// TopK and GroupMax go on encoding whole rows as before, and use the thresholds in slices; BatchTopK without thresholds, the
    /// one other dictionary that this is for, encodes by them from now on. Some thousand rows do: the rarest features
    /// that matter fire a few times in them. Costs two encodes of the rows, and memory for n·256 numbers a thread.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) without rows, or if the dictionary's features are independent already;
    /// [`Kind::Numeric`](crate::Kind::Numeric) if a row holds NaN.
    ///
    /// # Panics
    /// If `rows` is no whole number of rows.
    pub fn calibrate(self, rows: &[f32], threads: usize) -> Result<Self> {
        /// Features of one matrix product.
        const CHUNK: usize = 256;
        if self.rule() == Rule::Alone {
            let name = self.activation().name();
            return Err(Error::argument(format!(
                "calibrate: expected topk, groupmax or batchtopk without thresholds, found {name}"
            )));
        }
        if rows.is_empty() {
            return Err(Error::argument("calibrate: expected rows, found none"));
        }
        let (n_features, d) = (self.n_features(), self.d_model());
        let mut counts = vec![0usize; n_features];
        self.encode_batch(rows, threads).entries().iter().for_each(|&(i, _)| counts[i as usize] += 1);
        let inputs: Vec<f32> = rows.chunks_exact(d).flat_map(|x| self.input(x).0.into_owned()).collect();
        if inputs.iter().any(|v| v.is_nan()) {
            return Err(Error::numeric("calibrate: expected numbers in the rows, found NaN"));
        }
        let mut thresholds = vec![0f32; n_features];
        let part = n_features.div_ceil(threads.max(1));
        each(threads, thresholds.chunks_mut(part).enumerate(), |(t, out)| {
            for (c, out) in out.chunks_mut(CHUNK).enumerate() {
                self.thresholds_of(t * part + c * CHUNK, &inputs, &counts, out);
            }
        });
        self.with_thresholds(thresholds)
    }

    /// θ of the features from `first` on, as many as `out` holds.
    fn thresholds_of(&self, first: usize, inputs: &[f32], counts: &[usize], out: &mut [f32]) {
        let (d, width) = (self.d_model(), out.len());
        let n = inputs.len() / d;
        let (mut scratch, mut z) = (Vec::new(), vec![0f32; width * n]);
        let encoder = self.encoder.rows_f32(first..first + width, &mut scratch);
        gemm(Mat::new(encoder, width, d), Mat::new(inputs, n, d).t(), false, &mut z, 1);
        let units = self.units();
        for (j, (threshold, z)) in out.iter_mut().zip(z.chunks_exact_mut(n)).enumerate() {
            let unit = units.get(first + j);
            z.iter_mut().for_each(|z| *z = unit.preactivate(*z));
            *threshold = cut(z, counts[first + j]);
        }
    }
}

/// The number, from 0, that `count` of the values exceed; in the middle of the gap.
fn cut(values: &mut [f32], count: usize) -> f32 {
    let n = values.len();
    if count >= n {
        return 0.0;
    }
    // Ascending: the largest of those that stay below, then the smallest of those that pass.
    let (_, &mut below, above) = values.select_nth_unstable_by(n - 1 - count, f32::total_cmp);
    let least = above.iter().copied().fold(f32::INFINITY, f32::min);
    // A hair more than the largest: sums in another order may come out a little higher.
    let middle = if count == 0 { below + 1e-4 * below.abs() } else { below + (least - below) / 2.0 };
    middle.max(0.0)
}

#[cfg(test)]
mod tests {
    use super::super::{Activation, Info, Parts, Settings};
    use super::*;
    use crate::error::Kind;
    use crate::num;
    use rand::Rng;

    const D: usize = 32;
    const F: usize = 300;
    const K: usize = 6;

    fn dictionary(activation: Activation) -> Dictionary {
        let mut rng = num::rng(1);
        let mut rows: Vec<f32> = (0..F * D).map(|_| rng.random_range(-1f32..1.0)).collect();
        // The last feature never fires.
        rows[(F - 1) * D..].fill(0.0);
        Dictionary::from_parts(Parts {
            d_model: D,
            encoder: rows.clone(),
            decoder: rows,
            encoder_bias: vec![0.0; F],
            decoder_bias: vec![0.0; D],
            threshold: None,
            gate: None,
            stats: None,
            settings: Settings::new(activation),
            info: Info::default(),
        })
        .unwrap()
    }

    fn random_rows(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = num::rng(seed);
        (0..n * D).map(|_| rng.random_range(-1f32..1.0)).collect()
    }

    #[test]
    fn cuts_lie_in_the_middle_of_the_gap() {
        for (count, expected) in [(0, 7.0 + 1e-4 * 7.0), (1, 6.0), (2, 4.0), (3, 1.5), (4, 0.0), (5, 0.0)] {
            assert_eq!(cut(&mut [3.0, -4.0, 7.0, 0.0, 5.0], count), expected, "{count}");
        }
    }

    #[test]
    fn features_fire_as_often_as_by_top_k() {
        let rows = random_rows(500, 2);
        let exact = dictionary(Activation::TopK { k: K });
        let mut counts = vec![0i32; F];
        exact.encode_batch(&rows, 2).entries().iter().for_each(|&(i, _)| counts[i as usize] += 1);
        let calibrated = exact.clone().calibrate(&rows, 2).unwrap();
        assert_eq!(calibrated.thresholds(), exact.clone().calibrate(&rows, 1).unwrap().thresholds());
        let all: Vec<u32> = (0..F as u32).collect();
        let slice = calibrated.slice(&all).unwrap();
        assert!(!slice.is_exact() && !slice.is_full());
        let (mut f, mut by_threshold, mut both) = (vec![0.0; F], vec![0i32; F], 0);
        for x in rows.chunks_exact(D) {
            slice.encode(x, &mut f);
            let mut codes = Vec::new();
            exact.encode_sparse(x, &mut codes);
            both += codes.iter().filter(|c| f[c.0 as usize] > 0.0).count();
            by_threshold.iter_mut().zip(&f).for_each(|(n, f)| *n += i32::from(*f > 0.0));
        }
        assert_eq!(by_threshold, counts);
        assert_eq!(counts[F - 1], 0);
        assert!(counts.iter().filter(|c| **c > 0).count() > F / 2);
        // The most that thresholds can agree on is less than all; chance would be K/F = 2 %.
        assert!(both * 2 > 500 * K, "{both} of {}", 500 * K);
    }

    #[test]
    fn batch_top_k_encodes_by_its_thresholds_from_then_on() {
        let rows = random_rows(500, 3);
        let calibrated = dictionary(Activation::BatchTopK { k: K }).calibrate(&rows, 2).unwrap();
        let slice = calibrated.slice(&[5, 9]).unwrap();
        assert!(slice.is_exact() && !slice.is_full());
        let l0 = calibrated.encode_batch(&rows, 1).n_active() as f64 / 500.0;
        assert!((l0 - K as f64).abs() < 0.05, "{l0}");
    }

    #[test]
    fn what_cannot_be_calibrated() {
        let kind = |activation, rows: &[f32]| dictionary(activation).calibrate(rows, 1).unwrap_err().kind();
        assert_eq!(kind(Activation::Relu, &random_rows(5, 1)), Kind::Argument);
        assert_eq!(kind(Activation::TopK { k: K }, &[]), Kind::Argument);
        assert_eq!(kind(Activation::TopK { k: K }, &[f32::NAN; D]), Kind::Numeric);
    }
}
