//! Encoding at F 16,384, d 2,304: one row in each storage against a plain sum over the same bytes on the same threads, in
//! GB/s; and 4,096 rows against the product of the rows with the encoder (`matrixmultiply`'s sgemm in `f32`, the rows shared
//! out among the same threads), in rows a second.
//!
//! Weights and rows are random; a few features in a thousand are active. One row in F32 may be faster than the sum: after
//! some rows the dictionary reads a rounded copy of its encoder, and of the encoder itself only what may be active.

use std::hint::black_box;
use std::path::Path;

use rand::Rng;
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::file::gguf::{GgmlType, Gguf};
use tiller::num::{Mat, gemm, rng};
use tiller::{Error, Result};

use super::{Args, Lines, Pairs, seconds};

const D: usize = 2304;
const F: usize = 16_384;
const ROWS: usize = 4096;
const MODEL: &str = "random dictionary, F 16384, d 2304";

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("tiller-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(|e| Error::io("create", &dir, e))?;
    let result = measure(&dir, args, lines);
    let _ = std::fs::remove_dir_all(&dir);
    result
}

fn measure(dir: &Path, args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let threads = args.machine.n_threads();
    let weights = random(F * D, 1, 0.05);
    let x = random(ROWS * D, 2, 2.0);
    let kinds = [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0];
    for kind in kinds {
        let path = dir.join("one.gguf");
        let dictionary = dictionary(&weights, Activation::JumpRelu, kind, &path)?;
        let file = Gguf::open(&path)?;
        let bytes = file.data(file.tensor("enc.weight")?);
        let gigabytes = bytes.len() as f64 / 1e9;
        let n = if args.pairs > 0 { args.pairs } else { 101 };
        let row = &x[..D];
        let encode = &mut || {
            let (time, _) = seconds(|| Ok(black_box(dictionary.encode_batch(black_box(row), threads))))?;
            Ok(gigabytes / time)
        };
        let sum = &mut || Ok(gigabytes / seconds(|| Ok(black_box(plain_sum(black_box(bytes), threads))))?.0);
        let case = format!("one row {}", kind.label());
        lines.push(Pairs::measure(n, lines.out, &case, encode, sum)?.line("encode", case, MODEL, "GB/s"))?;
    }
    let mut product = vec![0f32; ROWS * F];
    for (activation, kind) in [
        (Activation::JumpRelu, GgmlType::F32),
        (Activation::JumpRelu, GgmlType::Q8_0),
        (Activation::TopK { k: 64 }, GgmlType::F32),
        (Activation::TopK { k: 64 }, GgmlType::Q8_0),
    ] {
        let dictionary = dictionary(&weights, activation, kind, &dir.join("many.gguf"))?;
        let n = if args.pairs > 0 { args.pairs } else { 5 };
        let mut l0 = 0.0;
        let encode = &mut || {
            let (time, codes) = seconds(|| Ok(dictionary.encode_batch(black_box(&x), threads)))?;
            l0 = codes.n_active() as f64 / ROWS as f64;
            Ok(ROWS as f64 / time)
        };
        let sgemm = &mut || {
            let (a, e) = (Mat::new(black_box(&x), ROWS, D), Mat::new(&weights, F, D).t());
            let (time, ()) = seconds(|| {
                gemm(a, e, false, black_box(&mut product), threads);
                Ok(())
            })?;
            Ok(ROWS as f64 / time)
        };
        let case = format!("batch {} {}", activation.name(), kind.label());
        let pairs = Pairs::measure(n, lines.out, &case, encode, sgemm)?;
        lines.push(pairs.line("encode", format!("{case}, L0 {l0:.0}"), MODEL, "rows/s"))?;
    }
    Ok(())
}

fn random(n: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut random = rng(seed);
    (0..n).map(|_| random.random_range(-scale..scale)).collect()
}

fn dictionary(weights: &[f32], activation: Activation, kind: GgmlType, path: &Path) -> Result<Dictionary> {
    // z has the deviation ‖e‖·σ(x); 2.7 of them leave 4 features in a thousand.
    let threshold = 2.7 * (D as f32 / 3.0).sqrt() * 0.05 * 2.0 / 3f32.sqrt();
    let jumps = activation == Activation::JumpRelu;
    Dictionary::from_parts(Parts {
        d_model: D,
        encoder: weights.to_vec(),
        decoder: vec![0.01; F * D],
        encoder_bias: vec![0.0; F],
        decoder_bias: vec![0.01; D],
        threshold: jumps.then(|| vec![threshold; F]),
        gate: None,
        stats: None,
        settings: Settings { apply_b_dec_to_input: true, ..Settings::new(activation) },
        info: Info::default(),
    })?
    .save_gguf(path, kind)?;
    Dictionary::open(path)
}

/// A sum that does nothing but read, shared out among threads.
fn plain_sum(bytes: &[u8], threads: usize) -> u64 {
    let sum = |bytes: &[u8]| {
        let mut lanes = [0u64; 32];
        for chunk in bytes.as_chunks::<256>().0 {
            for (lane, v) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
                *lane = lane.wrapping_add(u64::from_le_bytes(*v));
            }
        }
        lanes.iter().fold(0, |a: u64, b| a.wrapping_add(*b))
    };
    let part = bytes.len().div_ceil(threads.max(1)).next_multiple_of(256).max(1);
    std::thread::scope(|scope| {
        let (first, others) = bytes.split_at(part.min(bytes.len()));
        let running: Vec<_> = others.chunks(part).map(|bytes| scope.spawn(move || sum(bytes))).collect();
        running.into_iter().fold(sum(first), |all, thread| all.wrapping_add(thread.join().unwrap_or_default()))
    })
}
