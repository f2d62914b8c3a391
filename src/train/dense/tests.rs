//! Runs as a whole: threads, interruptions, files, and what the coders are for.

use super::*;
use crate::Kind;
use crate::progress::{Step, silent};
use crate::train::Rows;
use rand::Rng;
use std::path::Path;

const D: usize = 16;

/// Rows that are sums of three of 24 unit directions around a common centre, far from the origin.
fn planted(n: usize) -> Vec<f32> {
    let mut rng = crate::num::rng(3);
    let mut directions: Vec<f32> = (0..24 * D).map(|_| rng.random_range(-1.0..1.0)).collect();
    directions.chunks_mut(D).for_each(crate::train::start::unit);
    let mut rows = vec![0f32; n * D];
    for row in rows.chunks_mut(D) {
        row.iter_mut().enumerate().for_each(|(j, x)| *x = 8.0 - j as f32);
        for _ in 0..3 {
            let f = rng.random_range(0..24u64) as usize;
            crate::num::axpy(rng.random_range(1.0..3.0), &directions[f * D..(f + 1) * D], row);
        }
    }
    rows
}

fn small(regularizer: Regularizer, steps: u64) -> Options {
    let plain = Options { regularizer, n_latents: 64, batch: 600, steps, lr: 3e-3, warm_up: 5, ..Options::conca() };
    Options { threads: 2, checkpoint_every: 4, statistics_rows: 500, ..plain }
}

const ALL: [Regularizer; 4] =
    [Regularizer::LayerNorm, Regularizer::GroupNorm(8), Regularizer::BatchNorm, Regularizer::Dropout(0.2)];

fn bits(coder: &Coder) -> Vec<u32> {
    let mut all = coder.encode(&planted(3), 1);
    (0..coder.n_latents()).for_each(|i| all.extend_from_slice(coder.decoder_row(i)));
    all.extend((0..coder.n_latents()).map(|i| coder.stats(i).mean));
    all.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn nothing_depends_on_the_number_of_threads() {
    let data = planted(3000);
    let rows = Rows::from_slice(D, &data).unwrap();
    for regularizer in ALL {
        for ssae in [false, true] {
            let objective = if ssae { Options::ssae().objective } else { Options::conca().objective };
            let with = |threads| {
                let options = Options { threads, objective, ..small(regularizer, 12) };
                bits(&fit(&rows, &options, None, &mut silent).unwrap())
            };
            let one = with(1);
            assert!(one == with(2) && one == with(5), "{regularizer:?} ssae {ssae}");
        }
    }
}

/// Cancelled at any step, and gone on from the checkpoint with another number of threads.
#[test]
fn a_resumed_run_ends_bit_for_bit_as_if_it_had_never_stopped() {
    let data = planted(2000);
    let rows = Rows::from_slice(D, &data).unwrap();
    for regularizer in ALL {
        for objective in [Options::conca().objective, Options::ssae().objective] {
            let options = Options { objective, ..small(regularizer, 11) };
            let whole = bits(&fit(&rows, &options, None, &mut silent).unwrap());
            for stop in [1u64, 4, 7] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("run.safetensors");
                let mut told = 0;
                let mut progress = |_: Step<'_>| {
                    told += 1;
                    told < stop
                };
                let error = fit(&rows, &options, Some(&path), &mut progress).unwrap_err();
                assert_eq!(error.kind(), Kind::Cancelled);
                let mut first = None;
                let options = Options { threads: 3, ..options.clone() };
                let resumed = fit_with(&rows, &options, Some(&path), &mut silent, &mut |m| {
                    first.get_or_insert(m.step);
                });
                assert_eq!(bits(&resumed.unwrap()), whole, "{regularizer:?} {objective:?} stopped at {stop}");
                assert_eq!(first, Some(stop + 1));
            }
        }
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let data = planted(900);
    let rows = Rows::from_slice(D, &data).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let options = small(Regularizer::LayerNorm, 3);
    fit(&rows, &options, Some(&path), &mut silent).unwrap();
    let other = Options { lr: 1.0, ..options.clone() };
    let error = fit(&rows, &other, Some(&path), &mut silent).unwrap_err();
    assert!(error.kind() == Kind::Mismatch && error.message().contains("lr"), "{error}");
    let shorter = Rows::from_slice(D, &data[..800 * D]).unwrap();
    let error = fit(&shorter, &options, Some(&path), &mut silent).unwrap_err();
    assert!(error.kind() == Kind::Mismatch && error.message().contains("other rows"), "{error}");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(fit(&rows, &options, Some(&path), &mut silent).unwrap_err().kind(), Kind::Format);
    assert_eq!(Coder::open(&path).unwrap_err().kind(), Kind::Format);
}

/// Every variant learns to rebuild rows, far better than their mean does, in the units of the rows.
#[test]
fn every_variant_rebuilds_rows() {
    let data = planted(4000);
    let rows = Rows::from_slice(D, &data).unwrap();
    let mut mean = [0f64; D];
    data.chunks(D).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x) / 4000.0));
    let spread: f64 = data.chunks(D).flatten().zip(mean.iter().cycle()).map(|(&x, m)| (f64::from(x) - m).powi(2)).sum();
    for regularizer in ALL {
        for sparsity in [Sparsity::SoftPlus, Sparsity::Selu, Sparsity::Elu] {
            let objective = Objective::Conca { alpha: 1e-4, sparsity };
            let options = Options { objective, ..small(regularizer, 300) };
            let coder = fit(&rows, &options, None, &mut silent).unwrap();
            let rebuilt = coder.decode(&coder.encode(&data, 1), 1);
            let error: f64 = data.iter().zip(&rebuilt).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            assert!(error / spread < 0.2, "{regularizer:?} {sparsity:?}: FVU {}", error / spread);
        }
    }
}

#[test]
fn a_coder_comes_back_as_it_was_written_and_others_can_read_it() {
    let data = planted(900);
    let rows = Rows::from_slice(D, &data).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coder.safetensors");
    for regularizer in ALL {
        let coder = fit(&rows, &small(regularizer, 6), None, &mut silent).unwrap();
        coder.save(&path).unwrap();
        assert!(Coder::recognize(&path).unwrap());
        assert_eq!(Coder::open(&path).unwrap(), coder);
        // With nothing but the tensors: z = gain∘R(W_enc·x + b_enc) + shift.
        let file = crate::file::Tensors::open(&path).unwrap();
        let get = |name: &str| file.get(name).unwrap().to_f32().unwrap().into_owned();
        let (encoder, bias) = (get("W_enc"), get("b_enc"));
        let row = &data[..D];
        let mut p: Vec<f64> = (0..64)
            .map(|i| {
                (0..D).map(|j| f64::from(encoder[i * D + j]) * f64::from(row[j])).sum::<f64>() + f64::from(bias[i])
            })
            .collect();
        match regularizer {
            Regularizer::BatchNorm => {
                let (mean, variance) = (get("running.mean"), get("running.variance"));
                for (i, p) in p.iter_mut().enumerate() {
                    *p = (*p - f64::from(mean[i])) / (f64::from(variance[i]) + 1e-5).sqrt();
                }
            }
            Regularizer::Dropout(_) => (),
            _ => {
                for group in p.chunks_mut(64 / regularizer.groups()) {
                    let n = group.len() as f64;
                    let mean = group.iter().sum::<f64>() / n;
                    let variance = group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                    group.iter_mut().for_each(|x| *x = (*x - mean) / (variance + 1e-5).sqrt());
                }
            }
        }
        let (gain, shift) = (get("gain"), get("shift"));
        for (i, (z, p)) in coder.encode(row, 1).iter().zip(&p).enumerate() {
            let want = f64::from(gain[i]) * p + f64::from(shift[i]);
            assert!((f64::from(*z) - want).abs() < 1e-3 * (1.0 + want.abs()), "{regularizer:?} {i}: {z} {want}");
        }
    }
    let error = Coder::open(Path::new("/nowhere.safetensors")).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
}

/// Exact where R is a line, close where a row's own spread is replaced by the mean.
#[test]
fn the_dictionary_of_a_coder_codes_as_it_does() {
    let data = planted(3000);
    let rows = Rows::from_slice(D, &data).unwrap();
    for regularizer in ALL {
        let coder = fit(&rows, &small(regularizer, 60), None, &mut silent).unwrap();
        let dictionary = coder.to_dictionary().unwrap();
        let mut direction = vec![0f32; D];
        dictionary.decoder_row(5, &mut direction);
        assert_eq!(direction, coder.decoder_row(5));
        assert_eq!(dictionary.info().notes.len(), 1);
        let (mut off, mut size) = (0f64, 0f64);
        let mut codes = vec![0f32; 64];
        for row in data.chunks(D).take(200) {
            dictionary.encode(row, &mut codes);
            for (f, z) in codes.iter().zip(coder.encode(row, 1)) {
                off += f64::from(f - z.max(0.0)).powi(2);
                size += f64::from(z.max(0.0)).powi(2);
            }
        }
        let limit = if regularizer.groups() == 0 { 1e-6 } else { 0.35 };
        assert!((off / size).sqrt() <= limit, "{regularizer:?}: {}", (off / size).sqrt());
    }
}

/// The level is met, decoder rows keep norm 1, and differences are rebuilt better than by nothing.
#[test]
fn ssae_meets_its_level() {
    let all = planted(8000);
    let (first, second) = all.split_at(4000 * D);
    let (first, second) = (Rows::from_slice(D, first).unwrap(), Rows::from_slice(D, second).unwrap());
    let rows = Rows::differences(&first, &second).unwrap();
    let level = 0.15;
    let objective = Objective::Ssae { level, dual_rate: 0.02 };
    let options = Options { objective, ..small(Regularizer::LayerNorm, 1500) };
    let mut last = None;
    let coder = fit_with(&rows, &options, None, &mut silent, &mut |m| last = Some(*m)).unwrap();
    let last = last.unwrap();
    assert!(last.sparsity <= 1.1 * f64::from(level), "{last:?}");
    assert!(last.multiplier > 0.0 && last.fvu < 0.6, "{last:?}");
    for i in 0..coder.n_latents() {
        assert!((crate::num::norm(coder.decoder_row(i)) - 1.0).abs() < 1e-4);
    }
    assert!(coder.codes_differences());
    assert_eq!(coder.to_dictionary().unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(
        Rows::differences(&first, &Rows::from_slice(D, &[0.0; D]).unwrap()).err().unwrap().kind(),
        Kind::Mismatch
    );
}

#[test]
fn bad_rows_are_named() {
    let mut data = planted(50);
    data[17 * D + 3] = f32::NAN;
    let rows = Rows::from_slice(D, &data).unwrap();
    let error = fit(&rows, &small(Regularizer::LayerNorm, 3), None, &mut silent).unwrap_err();
    assert!(error.kind() == Kind::Numeric && error.message().contains("row 17, column 3"), "{error}");
}
