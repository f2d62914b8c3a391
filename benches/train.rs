//! One training step of every variant at the size of a small model, d_model 576, 4,096 features, k 32, batch 4,096.
//!
//! Time is that of the steps alone: a run of several steps reports each through its callback, and the start of the run and
//! its statistics at the end are left out. Variants with a penalty start dense; they are measured twice, at their first
//! steps and once they are about as sparse as the others. Rows are random sums of a few directions, so that features
//! specialise.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use rand::Rng;
use tiller::progress::silent;
use tiller::train::{Decay, Options, Rows, Variant, fit_with};

const D_MODEL: usize = 576;
const BATCH: usize = 4096;

fn rows() -> Vec<f32> {
    let mut rng = tiller::num::rng(3);
    let directions: Vec<f32> = (0..512 * D_MODEL).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mut rows = vec![0f32; 2 * BATCH * D_MODEL];
    for row in rows.chunks_mut(D_MODEL) {
        for _ in 0..8 {
            let f = rng.random_range(0..512);
            tiller::num::axpy(rng.random_range(0.5..2.0), &directions[f * D_MODEL..(f + 1) * D_MODEL], row);
        }
        row.iter_mut().for_each(|x| *x += rng.random_range(-0.5..0.5));
    }
    rows
}

/// Steps after which a variant with a penalty is sparse. Where `cargo test` only looks whether all runs, one will do.
fn settled() -> u64 {
    if std::env::args().any(|argument| argument == "--bench") { 150 } else { 1 }
}

/// The time of `n` steps after the first `skip`.
fn steps(data: &[f32], variant: Variant, skip: u64, n: u64) -> Duration {
    let rows = Rows::from_slice(D_MODEL, data).expect("whole rows");
    let epochs = (skip + n).div_ceil(2) as u32;
    // Nothing depends on the length of the run: no warm-up, no decay.
    let options = Options { batch: BATCH, epochs, statistics_rows: 1, warm_up: 0, ..Options::of(variant) };
    let options = Options { decay: Decay::None, sparsity_warm_up: 0, aux_k: 0, ..options };
    let (mut total, mut last) = (Duration::ZERO, Instant::now());
    fit_with(&rows, &options, None, &mut silent, &mut |metrics| {
        if (skip + 1..=skip + n).contains(&metrics.step) {
            total += last.elapsed();
        }
        last = Instant::now();
    })
    .expect("a run");
    total
}

fn train(c: &mut Criterion) {
    let data = rows();
    let mut group = c.benchmark_group("train step");
    group.sample_size(10).throughput(Throughput::Elements(BATCH as u64));
    for variant in Variant::ALL {
        let name = variant.name();
        match variant {
            Variant::TopK | Variant::BatchTopK | Variant::Matryoshka => {
                group.bench_function(name, |b| b.iter_custom(|n| steps(&data, variant, 1, n)));
            }
            Variant::Relu | Variant::PAnneal | Variant::JumpRelu | Variant::Gated => {
                let first = |n: u64| -> Duration { (0..n).map(|_| steps(&data, variant, 1, 1)).sum() };
                group.bench_function(format!("{name}, first"), |b| b.iter_custom(first));
                group.bench_function(name, |b| b.iter_custom(|n| steps(&data, variant, settled(), n)));
            }
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    train(&mut criterion);
    criterion.final_summary();
}
