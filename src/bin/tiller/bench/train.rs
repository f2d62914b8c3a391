//! Tokens a second of the trainers at d 576, 4,096 features, k 32, batches of 4,096.
//!
//! The baseline is the product of the rows with the encoder alone, dense and in 32-bit floats: the least that a trainer
//! which computes every score in full has to do, and it does three to six of them.

use std::time::Instant;

use rand::Rng;
use tiller::Result;
use tiller::num::{Mat, gemm, rng};
use tiller::train::{Decay, Options, Rows, Variant, fit_with};

use super::{Args, Lines, Pairs};

const D: usize = 576;
const F: usize = 4096;
const BATCH: usize = 4096;
/// Steps after which a variant with a penalty is about as sparse as the others.
const SETTLED: u32 = 150;

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let n = if args.pairs > 0 { args.pairs } else { 12 };
    let data = rows(4 * BATCH);
    let threads = args.machine.n_threads();
    for variant in Variant::ALL {
        let case = variant.name();
        // The first step also starts the weights; variants with a penalty start dense.
        let skip = match variant {
            Variant::TopK | Variant::BatchTopK | Variant::Matryoshka => 1,
            Variant::Relu | Variant::PAnneal | Variant::JumpRelu | Variant::Gated => SETTLED,
        };
        let epochs = (n as u32 + skip).div_ceil(4);
        let plain = Options { n_features: F, k: 32, batch: BATCH, epochs, threads, ..Options::of(variant) };
        let options =
            Options { statistics_rows: 0, lr: 1e-3, warm_up: 10, sparsity_warm_up: 10, decay: Decay::None, ..plain };
        let encoder: Vec<f32> = data.iter().take(F * D).copied().collect();
        let mut scores = vec![0.0; BATCH * F];
        let mut bar = lines.out.bar(&format!("train {case}"), "rows");
        let mut pairs = Pairs::default();
        let mut last = Instant::now();
        fit_with(&Rows::from_slice(D, &data)?, &options, None, &mut |step| bar.step(step), &mut |metrics| {
            let step = last.elapsed().as_secs_f64();
            if metrics.step > u64::from(skip) {
                let start = Instant::now();
                let (x, e) = (Mat::new(&data[..BATCH * D], BATCH, D), Mat::new(&encoder, F, D).t());
                gemm(x, e, false, &mut scores, threads);
                pairs.values.push(BATCH as f64 / step);
                pairs.baselines.push(BATCH as f64 / start.elapsed().as_secs_f64());
            }
            last = Instant::now();
        })?;
        lines.push(pairs.line("train", case, "synthetic rows, d 576", "tokens/s"))?;
    }
    Ok(())
}

/// Rows that a dictionary can explain: few of 1,024 random directions each, and noise.
fn rows(n: usize) -> Vec<f32> {
    let mut random = rng(7);
    let directions: Vec<f32> = (0..1024 * D).map(|_| random.random_range(-1.0..1.0)).collect();
    let mut rows: Vec<f32> = (0..n * D).map(|_| random.random_range(-0.3..0.3)).collect();
    for row in rows.chunks_mut(D) {
        for _ in 0..24 {
            let (i, amount) = (random.random_range(0..1024_usize), random.random_range(0.2..1.0_f32));
            let direction = &directions[i * D..(i + 1) * D];
            row.iter_mut().zip(direction).for_each(|(x, d)| *x += amount * d);
        }
    }
    rows
}
