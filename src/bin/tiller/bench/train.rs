//! Tokens a second of the trainers at d 576, 4,096 features, k 32, batches of 4,096; and how TopK's grow with either.
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
/// Sizes that show how the cost grows.
const FEATURES: [usize; 4] = [2048, 4096, 8192, 16384];
const WIDTHS: [usize; 4] = [288, 576, 1152, 2304];
/// Steps after which a variant with a penalty is about as sparse as the others.
const SETTLED: u32 = 150;

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let mut base = (f64::NAN, f64::NAN);
    for variant in Variant::ALL {
        let line = measure(args, lines, variant, (D, F))?.line("train", variant.name(), &model(D, F), "tokens/s");
        if variant == Variant::TopK {
            base = (line.value, line.baseline);
        }
        lines.push(line)?;
    }
    // How it grows, by one variant: the others share its products.
    let features = FEATURES.map(|f| (D, f, "tokens/s over features, d 576", "features", f));
    let widths = WIDTHS.map(|d| (d, F, "tokens/s over width, 4,096 features", "d_model", d));
    for (d, f, title, axis, x) in features.into_iter().chain(widths) {
        let (value, baseline) = if (d, f) == (D, F) {
            base
        } else {
            let line = measure(args, lines, Variant::TopK, (d, f))?.line("train", "topk", &model(d, f), "tokens/s");
            let measured = (line.value, line.baseline);
            lines.push(line)?;
            measured
        };
        lines.grow(title, axis, "topk", (x as f64, value));
        lines.grow(title, axis, "the product alone", (x as f64, baseline));
    }
    Ok(())
}

fn model(d: usize, f: usize) -> String {
    format!("synthetic rows, d {d}, {f} features")
}

/// Steps of `variant` with `f` features on rows of width `d`, each beside the product of the rows with the encoder.
fn measure(args: &Args, lines: &Lines<'_>, variant: Variant, (d, f): (usize, usize)) -> Result<Pairs> {
    let n = if args.pairs > 0 { args.pairs } else { 12 };
    let data = rows(4 * BATCH, d);
    let threads = args.machine.n_threads();
    // The first step also starts the weights; variants with a penalty start dense.
    let skip = match variant {
        Variant::TopK | Variant::BatchTopK | Variant::Matryoshka => 1,
        Variant::Relu | Variant::PAnneal | Variant::JumpRelu | Variant::Gated => SETTLED,
    };
    let epochs = (n as u32 + skip).div_ceil(4);
    let plain = Options { n_features: f, k: 32, batch: BATCH, epochs, threads, ..Options::of(variant) };
    let options =
        Options { statistics_rows: 0, lr: 1e-3, warm_up: 10, sparsity_warm_up: 10, decay: Decay::None, ..plain };
    let encoder: Vec<f32> = data.iter().cycle().take(f * d).copied().collect();
    let mut scores = vec![0.0; BATCH * f];
    let mut bar = lines.out.bar(&format!("train {}, d {d}, {f} features", variant.name()), "rows");
    let mut pairs = Pairs::default();
    let mut last = Instant::now();
    fit_with(&Rows::from_slice(d, &data)?, &options, None, &mut |step| bar.step(step), &mut |metrics| {
        let step = last.elapsed().as_secs_f64();
        if metrics.step > u64::from(skip) {
            let start = Instant::now();
            let (x, e) = (Mat::new(&data[..BATCH * d], BATCH, d), Mat::new(&encoder, f, d).t());
            gemm(x, e, false, &mut scores, threads);
            pairs.values.push(BATCH as f64 / step);
            pairs.baselines.push(BATCH as f64 / start.elapsed().as_secs_f64());
        }
        last = Instant::now();
    })?;
    Ok(pairs)
}

/// Rows that a dictionary can explain: few of 1,024 random directions each, and noise.
fn rows(n: usize, d: usize) -> Vec<f32> {
    let mut random = rng(7);
    let directions: Vec<f32> = (0..1024 * d).map(|_| random.random_range(-1.0..1.0)).collect();
    let mut rows: Vec<f32> = (0..n * d).map(|_| random.random_range(-0.3..0.3)).collect();
    for row in rows.chunks_mut(d) {
        for _ in 0..24 {
            let (i, amount) = (random.random_range(0..1024_usize), random.random_range(0.2..1.0_f32));
            let direction = &directions[i * d..(i + 1) * d];
            row.iter_mut().zip(direction).for_each(|(x, along)| *x += amount * along);
        }
    }
    rows
}
