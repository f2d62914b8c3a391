//! What steering costs a row: the edit of one layer alone, without a model around it.
//!
//! Targets (design.md): 64 features on one row of width 576 in at most 25 µs, and at most 1 % of prefill. Inputs are
//! random in content and lie at random offsets in their pages.

use criterion::{BenchmarkId, Criterion, Throughput};
use rand::Rng;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::num::rng;
use tiller::plan::{Op, Plan, PointOps, Route, Row, Rule, Scratch, Strength, Target};

const LAYER: usize = 1;
const N_FEATURES: usize = 256;
/// Floats in a page.
const PAGE: usize = 1024;

fn numbers(n: usize, scale: f32) -> Vec<f32> {
    let mut rng = rng(n as u64);
    (0..n).map(|_| (rng.random::<f32>() - 0.5) * scale).collect()
}

fn dictionary(d_model: usize) -> Arc<Dictionary> {
    let parts = Parts {
        d_model,
        encoder: numbers(N_FEATURES * d_model, 0.2),
        decoder: numbers(N_FEATURES * d_model, 0.2),
        encoder_bias: numbers(N_FEATURES, 0.1),
        decoder_bias: numbers(d_model, 0.1),
        threshold: Some(vec![0.1; N_FEATURES]),
        gate: None,
        stats: None,
        settings: Settings::new(Activation::JumpRelu),
        info: Info { layer: Some(LAYER), ..Info::default() },
    };
    Arc::new(Dictionary::from_parts(parts).expect("a valid dictionary"))
}

fn ops(op: Op, n_features: usize, d_model: usize) -> PointOps {
    let strength = (op != Op::Ablate).then_some(Strength::raw(2.0));
    let plan = Plan::new([Rule::new(op, 0..n_features as u32, strength)]);
    let dictionaries = [("d", dictionary(d_model))];
    let mut compiled =
        plan.compile(&dictionaries, &Target::new(LAYER + 2, d_model), Route::Callback).expect("a valid plan");
    compiled.points.remove(&LAYER.into()).expect("the rule's layer")
}

/// Times the edit of fresh rows: the copy that makes them fresh is timed with it, and alone as `copy`.
fn edit(c: &mut Criterion) {
    for (d_model, n_rows) in [(576, 1), (576, 512), (2304, 1), (2304, 128)] {
        let mut group = c.benchmark_group(format!("edit/d{d_model}/rows{n_rows}"));
        group.throughput(Throughput::Elements(n_rows as u64));
        let clean = numbers(n_rows * d_model, 4.0);
        let meta: Vec<Row> = (0..n_rows as i32).map(|i| Row::new(i + 1, 0)).collect();
        let offset = rng(7).random_range(0..PAGE);
        let mut buffer = vec![0.0; n_rows * d_model + PAGE];
        let mut scratch = Scratch::new();
        group.bench_function("copy", |b| {
            b.iter(|| black_box(&mut buffer[offset..][..clean.len()]).copy_from_slice(&clean));
        });
        let cases = [(Op::Add, 64), (Op::Clamp, 1), (Op::Clamp, 8), (Op::Clamp, 64), (Op::Ablate, 64)];
        for (op, n_features) in cases {
            let ops = ops(op, n_features, d_model);
            group.bench_function(BenchmarkId::new(op.name(), n_features), |b| {
                b.iter(|| {
                    let rows = &mut buffer[offset..][..clean.len()];
                    rows.copy_from_slice(&clean);
                    black_box(ops.apply(rows, &meta, &mut scratch))
                });
            });
        }
        group.finish();
    }
}

fn main() {
    let config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    let mut criterion = config.configure_from_args();
    edit(&mut criterion);
    criterion.final_summary();
}
