//! A guard with random directions: what one of the same length does is not its direction's doing.

use std::sync::Arc;

use rand::Rng;

use super::file::Guard;
use crate::dictionary::{Dictionary, Parts, Settings};
use crate::error::Result;
use crate::num::{norm, rng};

/// The guard with random directions of the same length; gates, monitors and plan stay.
pub(super) fn random(guard: &Guard, seed: u64) -> Result<Guard> {
    let (dictionary, d) = (&guard.dictionary, guard.dictionary.d_model());
    let n = dictionary.n_features();
    let (mut encoder, mut decoder) = (vec![0f32; n * d], vec![0f32; n * d]);
    encoder.chunks_exact_mut(d).enumerate().for_each(|(i, row)| dictionary.encoder_row(i, row));
    let mut rng = rng(seed);
    let mut own = vec![0f32; d];
    for (i, row) in decoder.chunks_exact_mut(d).enumerate() {
        dictionary.decoder_row(i, &mut own);
        // The sum of twelve uniform numbers is close to a normal one.
        row.iter_mut().for_each(|v| *v = (0..12).map(|_| rng.random_range(-0.5f32..0.5)).sum());
        let scale = norm(&own) / norm(row);
        row.iter_mut().for_each(|v| *v *= scale);
    }
    let stats = dictionary.feature_stats().map(<[_]>::to_vec);
    let made = Dictionary::from_parts(Parts {
        d_model: d,
        encoder,
        decoder,
        encoder_bias: dictionary.encoder_bias().to_vec(),
        decoder_bias: vec![0.0; d],
        threshold: None,
        gate: None,
        stats,
        settings: Settings { apply_b_dec_to_input: false, ..Settings::new(dictionary.activation()) },
        info: dictionary.info().clone(),
    })?;
    Ok(Guard { plan: guard.plan.clone(), dictionary: Arc::new(made) })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::file::NAME;
    use super::*;
    use crate::dictionary::{Activation, Info};
    use crate::plan::{Monitor, Op, Plan, Rule, Strength, When};

    /// Two features of width 2: what a rule amplifies, and what a monitor reads.
    pub(in crate::guard) fn guard() -> Guard {
        let dictionary = Dictionary::from_parts(Parts {
            d_model: 2,
            encoder: vec![1.0, 0.0, 0.0, 1.0],
            decoder: vec![3.0, 4.0, 1.0, 0.0],
            encoder_bias: vec![0.0, 0.5],
            decoder_bias: vec![0.0; 2],
            threshold: None,
            gate: None,
            stats: None,
            settings: Settings { apply_b_dec_to_input: false, ..Settings::new(Activation::Relu) },
            info: Info { layers: vec![1, 1], ..Info::default() },
        });
        let rule = Rule::new(Op::Amplify, [0u32], Strength::raw(1.0)).of(NAME).when(When::fires("harm"));
        let plan = Plan::new([rule]).watch([Monitor::new("harm", [1], 0.5).of(NAME)]);
        Guard { plan, dictionary: Arc::new(dictionary.unwrap()) }
    }

    #[test]
    fn random_directions_keep_lengths_and_gates() {
        let (own, made) = (guard(), random(&guard(), 3).unwrap());
        let row = |guard: &Guard, i: usize, encodes: bool| {
            let mut row = vec![0.0; 2];
            match encodes {
                true => guard.dictionary.encoder_row(i, &mut row),
                false => guard.dictionary.decoder_row(i, &mut row),
            }
            row
        };
        for i in 0..2 {
            assert_eq!(row(&own, i, true), row(&made, i, true));
            assert_ne!(row(&own, i, false), row(&made, i, false));
            assert!((norm(&row(&made, i, false)) / norm(&row(&own, i, false)) - 1.0).abs() < 1e-5);
        }
        assert_ne!(row(&random(&own, 4).unwrap(), 0, false), row(&made, 0, false));
    }
}
