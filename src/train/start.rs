//! Where a run starts: the scale of the rows, the bias at their middle, decoder rows at random, the encoder tied to them.

use rand::Rng;

use super::kernel::{add, dot};
use super::options::Options;
use super::rows::{Rows, Split, generator, order};
use super::sparsity::Pressure;
use super::variant::{Variant, jumprelu};
use super::weights::{Parameter, State};
use crate::error::{Error, Result};
use crate::file::room;
use crate::num::{Mat, gemm};

/// Rows that the scale and the middle are estimated from.
const SAMPLE: usize = 16_384;
/// How far from the middle a row may be, in medians of that distance. Beyond it lie attention sinks other than position 0:
/// one row in 30,000 of SmolLM2 has a hundred times the norm of the others, and would be most of the squared error.
const FAR: f32 = 3.0;
/// Steps of Weiszfeld's iteration; it converges linearly and the bias is trained afterwards.
const WEISZFELD: usize = 10;

/// The state before step 0.
pub(super) fn start(rows: &Rows<'_>, split: &Split, options: &Options) -> Result<State> {
    let (d, n) = (rows.d_model(), options.n_features);
    // Both matrices and their two moments.
    room(n.saturating_mul(d).saturating_mul(6 * size_of::<f32>()), format_args!("{n} features of width {d}"))?;
    let sample = sample(rows, split, options.seed)?;
    let mean = mean(&sample, d);
    let middle = median(&sample, d, &mean);
    let distances: Vec<f32> = sample.chunks_exact(d).map(|row| distance2(row, &middle).sqrt()).collect();
    let limit = FAR * crate::num::stats::median(&distances) as f32;
    let spread = distances.iter().map(|&far| f64::from(far.min(limit)).powi(2)).sum::<f64>() / distances.len() as f64;
    let scale = (d as f64 / spread).sqrt() as f32;
    if !scale.is_finite() || scale == 0.0 {
        return Err(Error::numeric(format!(
            "rows: expected rows that differ, found a mean squared spread of {spread}"
        )));
    }
    let decoder = directions(n, d, options.seed);
    let mut encoder_bias = vec![0.0; n];
    let mut extras = extras(options);
    if options.start_l0 > 0 && options.variant.has_penalty() {
        let bars = bars(&sample, &middle, scale, limit, &decoder, options);
        match (options.variant, &mut extras[..]) {
            (Variant::JumpRelu, [thresholds]) => {
                let parameters = bars.iter().map(|&bar| jumprelu::parameter(options, bar));
                *thresholds = Parameter::new(parameters.collect());
            }
            _ => encoder_bias.iter_mut().zip(&bars).for_each(|(bias, bar)| *bias = -bar),
        }
    }
    drop(sample);
    Ok(State {
        d,
        n,
        encoder: Parameter::new(decoder.clone()),
        decoder: Parameter::new(decoder),
        encoder_bias: Parameter::new(encoder_bias),
        decoder_bias: Parameter::new(middle.iter().map(|x| x * scale).collect()),
        extras,
        pressure: Pressure::new(options),
        idle: vec![0; n],
        scale,
        limit: scale * limit,
        mean: mean.iter().map(|x| x * scale).collect(),
        step: 0,
    })
}

/// The parameters that only the variant has.
pub(super) fn extras(options: &Options) -> Vec<Parameter> {
    let all = options.variant.extras(options);
    all.into_iter().map(|(_, value)| Parameter::new(vec![value; options.n_features])).collect()
}

/// The first rows of a seeded order.
fn sample(rows: &Rows<'_>, split: &Split, seed: u64) -> Result<Vec<f32>> {
    let d = rows.d_model();
    let mut chosen = order(split.train.len(), seed, u32::MAX);
    chosen.truncate(SAMPLE);
    split.train.name(&mut chosen);
    let mut sample = vec![0f32; chosen.len() * d];
    for (row, &i) in sample.chunks_exact_mut(d).zip(&chosen) {
        rows.read(i as usize, row)?;
    }
    Ok(sample)
}

/// For each feature, the score that `start_l0 / n_features` of the sample's first rows exceed.
fn bars(sample: &[f32], middle: &[f32], scale: f32, limit: f32, encoder: &[f32], options: &Options) -> Vec<f32> {
    /// Rows that are scored.
    const ROWS: usize = 2048;
    /// Features at a time: scores take 2 MB.
    const FEATURES: usize = 256;
    let (d, n) = (middle.len(), options.n_features);
    let mut rows: Vec<f32> = sample.iter().take(ROWS * d).copied().collect();
    for row in rows.chunks_exact_mut(d) {
        row.iter_mut().zip(middle).for_each(|(x, middle)| *x -= middle);
        let far = dot(row, row).sqrt();
        row.iter_mut().for_each(|x| *x *= scale * (limit / far).min(1.0));
        if !options.subtract_bias {
            row.iter_mut().zip(middle).for_each(|(x, middle)| *x += scale * middle);
        }
    }
    let n_rows = rows.len() / d;
    let above = (n_rows * options.start_l0.min(n.div_ceil(2)) / n).min(n_rows - 1);
    let mut bars = Vec::with_capacity(n);
    let mut scores = Vec::new();
    for some in encoder.chunks(FEATURES * d) {
        let width = some.len() / d;
        scores.resize(width * n_rows, 0.0);
        gemm(Mat::new(some, width, d), Mat::new(&rows, n_rows, d).t(), false, &mut scores, options.thread_count());
        let bar = |scores: &mut [f32]| *scores.select_nth_unstable_by(above, |a, b| b.total_cmp(a)).1;
        bars.extend(scores.chunks_exact_mut(n_rows).map(bar));
    }
    bars.iter().map(|&bar| bar.max(0.0)).collect()
}

fn mean(sample: &[f32], d: usize) -> Vec<f32> {
    let mut sum = vec![0f64; d];
    for row in sample.chunks_exact(d) {
        sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let count = (sample.len() / d) as f64;
    sum.iter().map(|sum| (sum / count) as f32).collect()
}

/// The geometric median by Weiszfeld's iteration, `m ← Σ x/‖x−m‖ / Σ 1/‖x−m‖`: unlike the mean it hardly moves for the
/// few rows of enormous norm that a residual stream has.
fn median(sample: &[f32], d: usize, mean: &[f32]) -> Vec<f32> {
    let mut middle = mean.to_vec();
    for _ in 0..WEISZFELD {
        let mut next = vec![0f32; d];
        let mut total = 0f64;
        for row in sample.chunks_exact(d) {
            let weight = 1.0 / distance2(row, &middle).sqrt().max(1e-6);
            add(&mut next, weight, row);
            total += f64::from(weight);
        }
        middle = next.iter().map(|x| (f64::from(*x) / total) as f32).collect();
    }
    middle
}

fn distance2(a: &[f32], b: &[f32]) -> f32 {
    let gap: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    dot(&gap, &gap)
}

/// `n` random directions, each of norm 1: normal numbers by Box and Muller, scaled.
fn directions(n: usize, d: usize, seed: u64) -> Vec<f32> {
    let mut rng = generator(seed, 0);
    let mut all = vec![0f32; n * d];
    for row in all.chunks_exact_mut(d) {
        for x in row.iter_mut() {
            let (u, angle): (f64, f64) = (1.0 - rng.random::<f64>(), std::f64::consts::TAU * rng.random::<f64>());
            *x = ((-2.0 * u.ln()).sqrt() * angle.cos()) as f32;
        }
        unit(row);
    }
    all
}

/// Scales `row` to norm 1; a row of zeros becomes the first axis.
pub(super) fn unit(row: &mut [f32]) {
    let norm = dot(row, row).sqrt();
    if norm > 0.0 && norm.is_finite() {
        row.iter_mut().for_each(|x| *x /= norm);
    } else if let Some((first, rest)) = row.split_first_mut() {
        *first = 1.0;
        rest.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stays_where_the_rows_are() {
        let mut data: Vec<f32> = (0..999).map(|i| if i % 3 == 0 { 5.0 + (i % 7) as f32 * 0.1 } else { 1.0 }).collect();
        data.extend([1e4, 1e4, 1e4]);
        let mean = mean(&data, 3);
        let middle = median(&data, 3, &mean);
        assert!(mean[1] > 25.0, "{mean:?}");
        assert!((middle[0] - 5.3).abs() < 0.1 && (middle[1] - 1.0).abs() < 0.1, "{middle:?}");
    }

    /// Each feature starts as often as it is asked to, by its bias or its threshold.
    #[test]
    fn features_start_as_often_as_asked() {
        let data: Vec<f32> = (0..16_000).map(|i| ((i * 7919 + i / 8 * 31) % 1009) as f32 * 0.37 + 100.0).collect();
        let rows = Rows::from_slice(8, &data).unwrap();
        let split = rows.split(0.0, 0).unwrap();
        for variant in [Variant::Relu, Variant::Gated, Variant::JumpRelu] {
            let options = Options { n_features: 16, start_l0: 2, ..Options::of(variant) };
            let state = start(&rows, &split, &options).unwrap();
            let mut fired = vec![0; 16];
            for row in data.chunks(8) {
                let x: Vec<f32> =
                    row.iter().zip(&state.decoder_bias.values).map(|(x, b)| x * state.scale - b).collect();
                for (f, fired) in fired.iter_mut().enumerate() {
                    let score = dot(&x, &state.encoder.values[f * 8..f * 8 + 8]) + state.encoder_bias.values[f];
                    let bar = if variant == Variant::JumpRelu { state.extras[0].values[f] } else { 0.0 };
                    *fired += i32::from(score > bar);
                }
            }
            assert!(fired.iter().all(|fired| (fired - 250).abs() <= 40), "{variant:?}: {fired:?} of 2000");
        }
    }

    #[test]
    fn scaled_rows_have_mean_squared_norm_d_around_the_bias() {
        let data: Vec<f32> = (0..4000).map(|i| ((i * 7919 + i / 8 * 31) % 1009) as f32 * 0.37 + 100.0).collect();
        let rows = Rows::from_slice(8, &data).unwrap();
        let split = rows.split(0.0, 0).unwrap();
        let state = start(&rows, &split, &Options { n_features: 16, ..Options::default() }).unwrap();
        let squares = data.chunks(8).map(|row| {
            let scaled: Vec<f32> = row.iter().map(|x| x * state.scale).collect();
            f64::from(distance2(&scaled, &state.decoder_bias.values))
        });
        let mean = squares.sum::<f64>() / 500.0;
        assert!((mean - 8.0).abs() < 0.01, "{mean}");
        for row in state.decoder.values.chunks(8) {
            assert!((dot(row, row) - 1.0).abs() < 1e-5);
        }
        assert_eq!(state.encoder.values, state.decoder.values);
        let same = vec![2.0f32; 80];
        let rows = Rows::from_slice(8, &same).unwrap();
        let split = rows.split(0.0, 0).unwrap();
        let error = start(&rows, &split, &Options::default()).err().unwrap();
        assert!(error.message().contains("rows that differ"), "{error}");
    }
}
