//! Correlating all features of two dictionaries of 4,096 on synthetic codes: 32 active features a token, on one thread
//! and on two; and the search for the best match.
//!
//! Features are as unequal as real ones: feature i fires about 1/(i + 64) as often as the first. `cargo bench
//! --no-default-features --bench universality`; under `cargo test --benches` sizes are small and each runs once.

#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand::Rng;
use tiller::eval::universality::correlation::{Codes, Correlation};

const FEATURES: usize = 4096;
const ACTIVE: usize = 32;

/// Offsets and entries.
fn codes(n: usize, seed: u64) -> (Vec<usize>, Vec<(u32, f32)>) {
    let mut rng = tiller::num::rng(seed);
    let span = ((FEATURES + 64) as f64 / 64.0).ln();
    let (mut offsets, mut entries) = (vec![0], Vec::with_capacity(n * ACTIVE));
    for _ in 0..n {
        let first = entries.len();
        while entries.len() < first + ACTIVE {
            let rank = 64.0 * ((rng.random_range(0.0..1.0) * span).exp() - 1.0);
            let id = (rank as u32).min(FEATURES as u32 - 1);
            if entries[first..].iter().all(|&(other, _)| other != id) {
                entries.push((id, rng.random_range(0.1f32..4.0)));
            }
        }
        entries[first..].sort_unstable_by_key(|code| code.0);
        offsets.push(entries.len());
    }
    (offsets, entries)
}

fn correlate(c: &mut Criterion) {
    let measuring = std::env::args().any(|a| a == "--bench");
    let n = if measuring { 200_000 } else { 200 };
    let (a, b) = (codes(n, 1), codes(n, 2));
    let empty = || Correlation::new(FEATURES, FEATURES, 1 << 28).unwrap();
    let add = |all: &mut Correlation, threads: usize| {
        for first in (0..n).step_by(2048) {
            let end = (first + 2048).min(n);
            let [a, b] = [&a, &b].map(|(offsets, entries)| Codes { offsets: &offsets[first..=end], entries });
            all.add(a, b, threads).unwrap();
        }
    };
    let mut group = c.benchmark_group("universality");
    group.sample_size(10).throughput(Throughput::Elements(n as u64));
    for threads in [1, 2] {
        group.bench_function(format!("correlate {FEATURES} × {FEATURES}, {threads} threads"), |bench| {
            bench.iter_batched_ref(empty, |all| add(all, threads), BatchSize::PerIteration);
        });
    }
    let mut all = empty();
    add(&mut all, 2);
    group.bench_function("best match", |bench| bench.iter(|| all.best(10)));
    group.finish();
}

criterion_group!(benches, correlate);
criterion_main!(benches);
