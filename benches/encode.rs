//! Encoding: one row over the whole dictionary against a plain sum over the same bytes, a slice, and batches against
//! the matrix product alone. (`tiller bench --what encode` measures the two sides in pairs and gives ratios.) Weights are random, and so is where in a page they start.
//!
//! `cargo bench --no-default-features --bench encode`; under `cargo test --benches` sizes are small and each runs once.

#![allow(missing_docs)]

use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::Rng;
use tiller::dictionary::Dictionary;
use tiller::file::Sink;
use tiller::file::gguf::{GgmlType, Gguf, Writer};
use tiller::num::{self, Mat, gemm};

/// Whether this is a measurement, not a trial run.
fn measuring() -> bool {
    std::env::args().any(|a| a == "--bench")
}

/// Rows of small random numbers in `kind`: one random block of rows, over and over with another start.
fn random_rows(out: &mut Sink<'_>, kind: GgmlType, d: usize, n: usize, rng: &mut impl Rng) -> tiller::Result<()> {
    let row_bytes = kind.row_bytes(d).unwrap_or(0);
    let values: Vec<f32> = (0..64 * d).map(|_| rng.random_range(-0.05f32..0.05)).collect();
    let mut bytes = Vec::new();
    match kind {
        GgmlType::Q8_0 => num::quantize_q8_0(&values, &mut bytes),
        GgmlType::F16 => bytes.extend(values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes())),
        GgmlType::BF16 => bytes.extend(values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes())),
        _ => bytes.extend_from_slice(bytemuck::cast_slice(&values)),
    }
    for _ in 0..n {
        let row = rng.random_range(0..64);
        out.put(&bytes[row * row_bytes..(row + 1) * row_bytes])?;
    }
    Ok(())
}

fn write(path: &Path, kind: GgmlType, d: usize, n: usize) -> Dictionary {
    let mut rng = num::rng(d as u64);
    let padding = rng.random_range(0..128) * 32;
    let mut file = Writer::new();
    file.set("general.architecture", "sae");
    file.set("sae.version", 1u32);
    file.set("sae.activation", "jumprelu");
    file.set("sae.apply_b_dec_to_input", true);
    file.tensor("padding", &[padding / 4 + 8], GgmlType::F32, vec![0u8; padding + 32]);
    let mut decoder_rng = num::rng(1);
    file.tensor_with("enc.weight", &[d, n], kind, |out| random_rows(out, kind, d, n, &mut rng));
    let q8_0 = GgmlType::Q8_0;
    file.tensor_with("dec.weight", &[d, n], q8_0, |out| random_rows(out, q8_0, d, n, &mut decoder_rng));
    file.tensor("enc.bias", &[n], GgmlType::F32, vec![0u8; n * 4]);
    file.tensor("dec.bias", &[d], GgmlType::F32, vec![0u8; d * 4]);
    // z has the deviation ‖e‖·σ(x); 2.7 of them leave 4 features in a thousand, as `tiller bench` has it.
    let threshold = 2.7 * (d as f32 / 3.0).sqrt() * 0.05 * 2.0 / 3f32.sqrt();
    file.tensor("threshold", &[n], GgmlType::F32, bytemuck::cast_slice::<f32, u8>(&vec![threshold; n]).to_vec());
    file.write(path).unwrap();
    Dictionary::open(path).unwrap()
}

/// A sum that does nothing but read, on two threads.
fn plain_sum(bytes: &[u8]) -> u64 {
    let sum = |bytes: &[u8]| {
        let mut lanes = [0u64; 32];
        for chunk in bytes.as_chunks::<256>().0 {
            for (lane, v) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
                *lane = lane.wrapping_add(u64::from_le_bytes(*v));
            }
        }
        lanes.iter().fold(0u64, |a, b| a.wrapping_add(*b))
    };
    let (first, second) = bytes.split_at(bytes.len() / 2);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| sum(second));
        sum(first).wrapping_add(second.join().unwrap())
    })
}

fn row(d: usize, n: usize) -> Vec<f32> {
    let mut rng = num::rng(7);
    (0..d * n).map(|_| rng.random_range(-2f32..2.0)).collect()
}

fn one_row(c: &mut Criterion) {
    let (d, n) = if measuring() { (2304, 16384) } else { (64, 128) };
    let dir = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group(format!("one row, d {d}, F {n}, 2 threads"));
    group.sample_size(10);
    for kind in [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0] {
        let path = dir.path().join("a.gguf");
        let dictionary = write(&path, kind, d, n);
        let file = Gguf::open(&path).unwrap();
        let bytes = file.data(file.tensor("enc.weight").unwrap());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("sum", kind.name()), |b| b.iter(|| plain_sum(black_box(bytes))));
        let x = row(d, 1);
        group.bench_function(BenchmarkId::new("encode", kind.name()), |b| {
            b.iter(|| dictionary.encode_batch(black_box(&x), 2));
        });
    }
    group.finish();
}

fn slices(c: &mut Criterion) {
    let (d, n) = if measuring() { (2304, 16384) } else { (64, 128) };
    let dir = tempfile::tempdir().unwrap();
    let dictionary = write(&dir.path().join("a.gguf"), GgmlType::Q8_0, d, n);
    let mut group = c.benchmark_group(format!("slice, q8_0, d {d}, F {n}"));
    for size in [1, 8, 64] {
        let mut rng = num::rng(3);
        let features: Vec<u32> = (0..size).map(|_| rng.random_range(0..n as u32)).collect();
        let slice = dictionary.slice(&features).unwrap();
        let (mut x, mut f) = (row(d, 1), vec![0.0; size]);
        group.bench_function(BenchmarkId::new("encode", size), |b| b.iter(|| slice.encode(black_box(&x), &mut f)));
        let deltas = vec![1e-6; size];
        group.bench_function(BenchmarkId::new("edit", size), |b| b.iter(|| slice.edit(black_box(&deltas), &mut x)));
    }
    group.finish();
}

fn batches(c: &mut Criterion) {
    let (d, n, rows) = if measuring() { (2304, 16384, 4096) } else { (64, 128, 20) };
    let dir = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group(format!("batch of {rows}, d {d}, F {n}"));
    group.sample_size(10);
    group.throughput(Throughput::Elements(rows as u64));
    let x = row(d, rows);
    let weights = row(d, n);
    let mut out = vec![0f32; rows * n];
    for threads in [2] {
        group.bench_function(BenchmarkId::new("gemm", threads), |b| {
            b.iter(|| gemm(Mat::new(&x, rows, d), Mat::new(&weights, n, d).t(), false, &mut out, threads));
        });
        for kind in [GgmlType::F32, GgmlType::Q8_0] {
            let dictionary = write(&dir.path().join("a.gguf"), kind, d, n);
            group.bench_function(BenchmarkId::new(format!("encode {}", kind.name()), threads), |b| {
                b.iter(|| dictionary.encode_batch(black_box(&x), threads));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, one_row, slices, batches);
criterion_main!(benches);
