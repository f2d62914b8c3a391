//! What a trainer keeps in memory beside its rows: at most twice its parameters, the optimizer's moments and one batch of
//! rows, and a batch's codes. One test in a test binary of its own: what the whole process allocates is counted.

mod support;

use rand::Rng;
use support::memory::{self, Counting};
use tiller::progress::silent;
use tiller::train::{Metrics, Options, Rows, Variant, fit_with};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const D: usize = 576;
const FEATURES: usize = 4096;
const BATCH: usize = 4096;
/// Bytes of a code: as it is found, by row and by feature, each with its score, slope and the gradients beside it.
const CODE: usize = 64;

/// Sums of few of 1,024 directions each, and noise: rows that a dictionary can explain.
fn rows(n: usize) -> Vec<f32> {
    let mut random = tiller::num::rng(7);
    let directions: Vec<f32> = (0..1024 * D).map(|_| random.random_range(-1.0..1.0)).collect();
    let mut rows: Vec<f32> = (0..n * D).map(|_| random.random_range(-0.3..0.3)).collect();
    for row in rows.chunks_mut(D) {
        for _ in 0..24 {
            let (i, amount) = (random.random_range(0..1024_usize), random.random_range(0.2..1.0));
            tiller::num::axpy(amount, &directions[i * D..(i + 1) * D], row);
        }
    }
    rows
}

#[test]
fn a_trainer_keeps_its_promise_of_memory() {
    let data = rows(4 * BATCH);
    let rows = Rows::from_slice(D, &data).unwrap();
    for variant in Variant::ALL {
        // Features that miss a batch count as dead, and the auxiliary loss has codes as well; on these rows hardly any does.
        let options = Options { n_features: FEATURES, k: 32, batch: BATCH, dead_after: 1, ..Options::of(variant) };
        let mut codes = 0;
        let mut note = |metrics: &Metrics| {
            let auxiliary = if metrics.dead > 0 { options.aux_k.min(metrics.dead) } else { 0 };
            codes = codes.max(BATCH * (metrics.l0 as usize + auxiliary));
        };
        let (_, peak) = memory::peak_of_all(|| fit_with(&rows, &options, None, &mut silent, &mut note).unwrap());
        let parameters = 4 * (2 * FEATURES * D + FEATURES + D);
        let (moments, batch) = (2 * parameters, 4 * BATCH * D);
        let size = 2 * parameters + moments + batch;
        // Nested dictionaries have a gradient each, of 16-bit integers.
        let nested = if variant == Variant::Matryoshka { 4 * 2 * BATCH * D } else { 0 };
        let (name, mb) = (variant.name(), |bytes: usize| bytes as f64 / 1e6);
        let (ratio, codes) = (mb(peak) / mb(size), codes * CODE);
        println!("{name}: {:.1} MB, {ratio:.2} of {:.1} MB; codes {:.1} MB", mb(peak), mb(size), mb(codes));
        assert!(peak <= size + nested + codes, "{name}: {peak} bytes, expected {size} + {nested} + {codes}");
    }
}
