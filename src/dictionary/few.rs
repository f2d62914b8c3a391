//! Encode one row, or a few: each encoder row is read once.
//!
//! Products with a row in `f32` take no time beside reading it. With a row of `q8_0`, a quarter as long, they do: there
//! integers ([`Estimator`]) tell first which few features may be active, and only of these is the product taken. An
//! encoder in `f32` is rounded to such rows for the purpose, if many rows come one by one ([`Outline`](super::outline)).
//! What comes out is to the bit what all products in `f32` give.

use std::ops::Range;

use super::Dictionary;
use super::batch::{Codes, MIN_WEIGHTS, on_threads};
use super::encode::Rule;
use super::matrix::Rows;
use super::sieve::{Candidate, Sieve, thin_out};
use crate::num::Row;
use crate::num::estimate::{Estimator, ROUNDED};

/// An input a, rounded where that helps.
struct Input<'a> {
    a: &'a [f32],
    estimator: Option<Estimator>,
}

impl Input<'_> {
    /// Between what its product with an encoder row lies, if that is known without it; NaN knows nothing.
    #[inline]
    fn estimate(&self, row: Option<Row<'_>>) -> Option<(f32, f32)> {
        let (Some(estimator), Some(Row::Q8_0(blocks))) = (&self.estimator, row) else { return None };
        let (z, reach) = estimator.estimate(blocks);
        Some((z - reach, z + reach))
    }
}

/// Encoder rows as they are, and for estimates in blocks of `q8_0`: the same, or rounded.
#[derive(Clone, Copy)]
struct Encoder<'a> {
    rows: Rows<'a>,
    blocks: Option<Rows<'a>>,
}

impl Dictionary {
    /// Codes of a few inputs a `[n, d_model]`, on at most `threads` threads.
    pub(super) fn encode_few(&self, inputs: &[f32], threads: usize, codes: &mut Codes) {
        let (n_features, rule) = (self.n_features(), self.rule());
        let (rows, inputs) = (self.encoder.rows(), inputs.chunks_exact(self.d_model()));
        let (blocks, error) = match rows.all() {
            Row::Q8_0(_) => (Some(rows), 0.0),
            _ => (self.outline.rows(&self.encoder, inputs.len(), threads), ROUNDED),
        };
        let estimator = |a| blocks.and_then(|_| Estimator::new(a, error));
        let inputs: Vec<Input<'_>> = inputs.map(|a| Input { a, estimator: estimator(a) }).collect();
        let encoder = Encoder { rows, blocks };
        if rule == Rule::Alone {
            let shares = on_threads(n_features, threads, 1, |features| self.active_among(encoder, &inputs, features));
            for r in 0..inputs.len() {
                codes.push_row(|out| shares.iter().for_each(|share| out.extend_from_slice(&share[r])));
            }
            return;
        }
        let shares = on_threads(n_features, threads, 1, |features| self.contenders_among(encoder, &inputs, features));
        for (r, input) in inputs.iter().enumerate() {
            let mut left: Vec<Candidate> = shares.iter().flat_map(|share| share[r].iter().copied()).collect();
            thin_out(&mut left, rule, n_features);
            let p = |i: usize| self.units().get(i).preactivate(rows.get(i).dot(input.a));
            let threads = threads.clamp(1, (left.len() * input.a.len()).div_ceil(MIN_WEIGHTS).max(1));
            let parts = on_threads(left.len(), threads, 1, |range| {
                left[range].iter().map(|c| (c.feature, p(c.feature as usize))).collect::<Vec<_>>()
            });
            codes.push_row(|out| rule.keep_among(&parts.concat(), n_features, out));
        }
    }

    /// For each input the activations of some features that depend on nothing else.
    fn active_among(&self, encoder: Encoder<'_>, inputs: &[Input<'_>], features: Range<usize>) -> Vec<Vec<(u32, f32)>> {
        let units = self.units();
        let mut active = vec![Vec::new(); inputs.len()];
        for i in features {
            let (blocks, unit) = (encoder.blocks.map(|blocks| blocks.get(i)), units.get(i));
            for (input, active) in inputs.iter().zip(&mut active) {
                if input.estimate(blocks).is_some_and(|(_, high)| unit.is_silent_up_to(high)) {
                    continue;
                }
                let f = unit.activate(encoder.rows.get(i).dot(input.a));
                if f > 0.0 {
                    active.push((i as u32, f));
                }
            }
        }
        active
    }

    /// For each input some features that compete: all that may win, and maybe others.
    fn contenders_among(
        &self,
        encoder: Encoder<'_>,
        inputs: &[Input<'_>],
        features: Range<usize>,
    ) -> Vec<Vec<Candidate>> {
        let units = self.units();
        let mut sieve = Sieve::new(self.rule(), inputs.len());
        for i in features {
            let (blocks, unit) = (encoder.blocks.map(|blocks| blocks.get(i)), units.get(i));
            for (r, input) in inputs.iter().enumerate() {
                let (low, high) = input.estimate(blocks).unwrap_or_else(|| {
                    let z = encoder.rows.get(i).dot(input.a);
                    (z, z)
                });
                sieve.offer(r, i, unit.preactivate(low), unit.preactivate(high));
            }
        }
        sieve.found
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activation, Gate, Info, Parts, Settings};
    use super::*;
    use crate::file::gguf::GgmlType;
    use crate::num::{Q8_0_BYTES, rng};
    use rand::Rng;

    const D: usize = 96;
    const F: usize = 1100;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = rng(seed);
        (0..n).map(|_| rng.random_range(-1f32..1.0)).collect()
    }

    /// Equal rows, a row of zeros, one of tiny numbers, one of huge ones.
    fn encoder() -> Vec<f32> {
        let mut encoder = random(F * D, 1);
        for i in 0..F / 3 {
            encoder.copy_within(i * D..(i + 1) * D, (F - 1 - i) * D);
        }
        encoder[40 * D..41 * D].fill(0.0);
        encoder[41 * D..42 * D].fill(1e-9);
        encoder[42 * D + 3] = 8e6;
        encoder
    }

    /// Rows of zeros, tiny and huge ones, ones of two values, with outliers and with numbers that are none.
    fn rows() -> Vec<f32> {
        let mut rows = random(12 * D, 2);
        rows[D..2 * D].fill(0.0);
        rows[2 * D + 5] = f32::NAN;
        rows[3 * D + 3] = f32::NEG_INFINITY;
        rows[4 * D + 3] = 5000.0;
        rows[5 * D..6 * D].iter_mut().for_each(|v| *v *= 1e-25);
        rows[6 * D..7 * D].iter_mut().for_each(|v| *v *= 1e36);
        rows[7 * D..8 * D].iter_mut().for_each(|v| *v = v.signum());
        rows
    }

    fn dictionary(activation: Activation, rescale: bool, kind: GgmlType) -> Dictionary {
        let mut bias = random(F, 3);
        bias[44] = -1e20;
        bias[45] = 1e20;
        let threshold = |i| if i % 50 == 7 { f32::INFINITY } else { i as f32 * 0.01 - 1.0 };
        let gated = activation == Activation::Gated;
        let gate = || Gate { bias: random(F, 5), log_scale: random(F, 6).iter().map(|v| v * 3.0).collect() };
        let made = Dictionary::from_parts(Parts {
            d_model: D,
            encoder: encoder(),
            decoder: random(F * D, 4),
            encoder_bias: bias,
            decoder_bias: vec![0.0; D],
            threshold: (activation == Activation::JumpRelu).then(|| (0..F).map(threshold).collect()),
            gate: gated.then(gate),
            stats: None,
            settings: Settings {
                apply_b_dec_to_input: false,
                rescale_by_decoder_norm: rescale,
                ..Settings::new(activation)
            },
            info: Info::default(),
        })
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        made.save_gguf(&path, kind).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        if kind == GgmlType::Q8_0 {
            // Two rows whose scales are no numbers.
            let file = crate::file::gguf::Gguf::open(&path).unwrap();
            let data = file.data(file.tensor("enc.weight").unwrap());
            let start = bytes.windows(data.len()).position(|bytes| bytes == data).unwrap();
            let row = D / 32 * Q8_0_BYTES;
            for (i, bits) in [(50, 0x7c00u16), (51, 0x7e00)] {
                bytes[start + i * row..][..2].copy_from_slice(&bits.to_le_bytes());
            }
            std::fs::write(&path, bytes).unwrap();
        }
        Dictionary::open(&path).unwrap()
    }

    /// All products in `f32`.
    fn plain(dictionary: &Dictionary, x: &[f32]) -> Vec<(u32, f32)> {
        let (a, units) = (dictionary.input(x).0, dictionary.units());
        let z = |i| dictionary.encoder.rows().get(i).dot(&a);
        let mut out = Vec::new();
        if dictionary.rule() == Rule::Alone {
            out.extend((0..F).map(|i| (i as u32, units.get(i).activate(z(i)))).filter(|code| code.1 > 0.0));
        } else {
            let p: Vec<f32> = (0..F).map(|i| units.get(i).preactivate(z(i))).collect();
            dictionary.rule().keep(&p, &mut out);
        }
        out
    }

    #[test]
    fn a_few_rows_are_to_the_bit_what_all_products_give() {
        for kind in [GgmlType::F32, GgmlType::Q8_0] {
            for activation in [
                Activation::Relu,
                Activation::JumpRelu,
                Activation::Gated,
                Activation::TopK { k: 7 },
                Activation::TopK { k: F },
                Activation::GroupMax { k: 11 },
            ] {
                for rescale in [false, true] {
                    let (dictionary, rows) = (dictionary(activation, rescale, kind), rows());
                    let plain: Vec<_> = rows.chunks_exact(D).map(|x| plain(&dictionary, x)).collect();
                    assert!(plain.iter().all(|codes| codes.iter().all(|code| code.1 > 0.0)));
                    assert!(plain.iter().filter(|codes| !codes.is_empty()).count() > 8, "features are active");
                    let what = format!("{kind:?} {activation:?}, rescale {rescale}");
                    for threads in [1, 2, 5] {
                        let codes = dictionary.encode_batch(&rows, threads);
                        for (r, plain) in plain.iter().enumerate() {
                            assert_eq!(codes.row(r), plain, "{what}, row {r}, {threads} threads");
                        }
                    }
                    // More rows than are encoded before the rounded rows of an encoder in f32 are made.
                    for (x, plain) in rows.chunks_exact(D).zip(&plain).chain(rows.chunks_exact(D).zip(&plain)) {
                        let (mut sparse, mut dense) = (vec![(9, 9.0)], vec![f32::NAN; F]);
                        dictionary.encode_sparse(x, &mut sparse);
                        dictionary.encode(x, &mut dense);
                        assert_eq!(&sparse, plain, "{what}");
                        plain.iter().for_each(|&(i, f)| assert_eq!(std::mem::take(&mut dense[i as usize]), f));
                        assert!(dense.iter().all(|&f| f == 0.0), "{what}");
                    }
                }
            }
        }
    }
}
