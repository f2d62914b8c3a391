//! How well a dictionary describes rows of the residual stream: L0, FVU, dead features, and what each feature does.
//!
//! L0 is the mean number of active features in a row. FVU, the fraction of variance unexplained, is
//! Σ‖x − x̂‖² / Σ‖x − mean‖². A feature is dead if no row activates it. Density is the share of rows that do.
//!
//! Attention sinks are set apart, counted, and in none of these figures: the row at position 0, and rows elsewhere that lie
//! far from all others ([`sinks`](super::sinks)): a few of them would be half of all variance.
//!
//! [`report_quality`] measures all of SAEBench's core on a model: what is above, what the model notices of reconstructions
//! ([`recovered`]), how often features fire ([`density`]), how alike directions are ([`geometry`]), whether single features
//! say what a text is ([`labelled`]), and absorption ([`absorption`](mod@absorption)).
//!
//! One pass over the rows, of which a few thousand are in memory at a time. Costs one encode (a matrix product) and L0
//! decoder rows for each; sums are kept in `f64` over fixed groups of rows, so results do not depend on threads.

pub mod absorption;
pub mod density;
pub mod geometry;
pub mod labelled;
mod matched;
#[cfg(feature = "engine")]
pub mod recovered;
#[cfg(test)]
#[path = "quality/tests.rs"]
mod reference;
#[cfg(feature = "engine")]
mod report;
mod request;
#[cfg(feature = "engine")]
mod run;

#[cfg(feature = "engine")]
pub use report::{Report, Scores};
pub use request::Request;
#[cfg(feature = "engine")]
pub use run::report_quality;

use rand::seq::SliceRandom;

use matched::Matched;

use super::sinks::Sinks;
use crate::activations::Activations;
use crate::dictionary::{Dictionary, FeatureStats};
use crate::error::{Error, Result};
use crate::num;
use crate::num::parallel::each;
use crate::progress::{Progress, report};

/// What a dictionary does to the rows that it was shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// Rows shown.
    pub n_rows: u64,
    /// Rows set apart as attention sinks, the ones at position 0 not among them.
    pub n_sinks: u64,
    /// Mean norm of the rows shown.
    pub mean_norm: f64,
    /// Mean number of active features in a row.
    pub l0: f64,
    /// Σ‖x − x̂‖² / Σ‖x − mean‖².
    pub fvu: f64,
    /// Mean sum of the codes of a row.
    pub l1: f64,
    /// Mean of (x − x̂)² over rows and coordinates.
    pub mse: f64,
    /// Mean cosine of x and x̂; 0 counts for a row or reconstruction of length 0.
    pub cosine: f64,
    /// Mean ‖x̂‖ / ‖x‖.
    pub l2_ratio: f64,
    /// Σ‖x̂‖² / Σ x·x̂: below 1 reconstructions are too short.
    pub reconstruction_bias: f64,
    /// Share of features that no row activated.
    pub dead_share: f64,
    /// Of each feature: density, largest and mean positive activation.
    pub features: Vec<FeatureStats>,
}

/// Which rows to look at.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads to use.
    pub threads: usize,
    /// At most about so many rows, in groups taken evenly from all of them; 0: every row.
    pub max_rows: usize,
    /// Whether attention sinks count too.
    pub include_sinks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 1, max_rows: 0, include_sinks: false }
    }
}

/// Rows read, encoded and added at once.
const BLOCK: usize = 4096;

/// A transcoder's reconstruction is of other rows than it reads.
pub(super) fn check_reconstructs(dictionary: &Dictionary) -> Result<()> {
    dictionary.check_one_layer("quality")?;
    if dictionary.settings().transcodes {
        let (from, to) = (dictionary.hook_point(), &dictionary.info().hook_out);
        return Err(Error::mismatch(format!(
            "quality: expected a dictionary that reconstructs what it reads, found a transcoder from \"{from}\" to \"{to}\""
        )));
    }
    Ok(())
}

/// Shows the rows of `activations` to `dictionary`.
///
/// # Errors
/// [`Kind::Mismatch`](crate::Kind::Mismatch) if the widths differ, [`Kind::Argument`](crate::Kind::Argument) without
/// rows, [`Kind::Numeric`](crate::Kind::Numeric) if a row holds NaN or infinity, and when `progress` says stop.
pub fn quality(
    activations: &Activations,
    dictionary: &Dictionary,
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Quality> {
    let (d, found) = (dictionary.d_model(), activations.d_model());
    if found != d {
        return Err(Error::mismatch(format!("quality: expected rows of the dictionary's width {d}, found {found}")));
    }
    check_reconstructs(dictionary)?;
    let blocks: usize = activations.shards().iter().map(|s| s.n_rows().div_ceil(BLOCK)).sum();
    let wanted = if options.max_rows == 0 { blocks } else { options.max_rows.div_ceil(BLOCK).min(blocks) };
    let mut meter = Meter::new(dictionary);
    if options.include_sinks {
        meter.sinks = Some(Sinks::none(d));
    }
    let mut rows = vec![0f32; BLOCK * d];
    let (mut block, mut done) = (0usize, 0usize);
    for shard in activations.shards() {
        for first in (0..shard.n_rows()).step_by(BLOCK) {
            // Of all blocks, those at which the share done so far falls behind the share wanted.
            let chosen = done * blocks <= block * wanted && done < wanted;
            block += 1;
            if !chosen {
                continue;
            }
            done += 1;
            let range = first..(first + BLOCK).min(shard.n_rows());
            let n = range.len();
            shard.read(range.clone(), &mut rows[..n * d]);
            let positions = shard.positions().get(range).unwrap_or_default();
            let kept = if options.include_sinks { n } else { drop_first(&mut rows[..n * d], d, positions) };
            meter.add(&rows[..kept * d], options.threads);
            report(progress, done as u64, wanted as u64, &meter.note())?;
        }
    }
    meter.finish()
}

/// Moves the rows whose position is not 0 to the front and returns their number.
fn drop_first(rows: &mut [f32], d: usize, positions: &[i32]) -> usize {
    let mut kept = 0;
    for (i, _) in positions.iter().enumerate().filter(|(_, p)| **p != 0) {
        rows.copy_within(i * d..(i + 1) * d, kept * d);
        kept += 1;
    }
    kept
}

/// The running sums behind [`Quality`]: for callers whose rows come from elsewhere.
pub struct Meter<'a> {
    dictionary: &'a Dictionary,
    /// Told by the first rows.
    sinks: Option<Sinks>,
    n_rows: u64,
    n_sinks: u64,
    n_active: u64,
    /// Σ‖x‖.
    length: f64,
    /// Σ‖x − x̂‖².
    error: f64,
    /// Of reconstructions besides.
    matched: Matched,
    /// Sums are taken of x − shift, so that a large mean cancels no digits; the mean of the first rows.
    shift: Vec<f32>,
    /// Σ(x − shift).
    sum: Vec<f64>,
    /// Σ‖x − shift‖².
    squares: f64,
    /// Of each feature: rows that activate it, Σf, max f.
    features: Vec<(u64, f64, f32)>,
}

/// Sums over a group of rows.
struct Partial {
    error: f64,
    matched: Matched,
    sum: Vec<f64>,
    squares: f64,
}

impl<'a> Meter<'a> {
    /// No rows yet.
    pub fn new(dictionary: &'a Dictionary) -> Self {
        let d = dictionary.d_model();
        Self {
            dictionary,
            sinks: None,
            n_rows: 0,
            n_sinks: 0,
            n_active: 0,
            length: 0.0,
            error: 0.0,
            matched: Matched::default(),
            shift: Vec::new(),
            sum: vec![0.0; d],
            squares: 0.0,
            features: vec![(0, 0.0, 0.0); dictionary.n_features()],
        }
    }

    /// Adds `rows` `[n, d_model]`, none of them at position 0. The first call should bring enough of them, some hundred, to
    /// tell where rows lie: by these it is told which are attention sinks.
    ///
    /// # Panics
    /// If `rows` is no whole number of rows.
    pub fn add(&mut self, rows: &[f32], threads: usize) {
        /// Rows of one partial sum: fixed, so that threads change nothing.
        const GROUP: usize = 128;
        let d = self.dictionary.d_model();
        if rows.is_empty() {
            return;
        }
        let kept = self.sinks.get_or_insert_with(|| Sinks::of(rows, d)).without(rows);
        let given = rows.len() / d;
        let rows = kept.as_deref().unwrap_or(rows);
        let n = rows.len() / d;
        self.n_sinks += (given - n) as u64;
        if n == 0 {
            return;
        }
        self.length += rows.chunks_exact(d).map(|row| f64::from(num::norm(row))).sum::<f64>();
        let codes = self.dictionary.encode_batch(rows, threads);
        if self.n_rows == 0 {
            let mean = |j| (rows.iter().skip(j).step_by(d).map(|&v| f64::from(v)).sum::<f64>() / n as f64) as f32;
            self.shift = (0..d).map(mean).collect();
        }
        let groups = n.div_ceil(GROUP);
        let mut partials: Vec<Option<Partial>> = (0..groups).map(|_| None).collect();
        let (dictionary, shift, codes_of) = (self.dictionary, &self.shift, &codes);
        each(threads, partials.iter_mut().enumerate(), |(g, out)| {
            let range = g * GROUP..((g + 1) * GROUP).min(n);
            let codes = range.clone().map(|r| codes_of.row(r));
            *out = Some(partial(dictionary, shift, &rows[range.start * d..range.end * d], codes));
        });
        for part in partials.into_iter().flatten() {
            self.error += part.error;
            self.matched.join(part.matched);
            self.squares += part.squares;
            self.sum.iter_mut().zip(&part.sum).for_each(|(sum, v)| *sum += v);
        }
        for &(i, f) in codes.entries() {
            let (count, sum, max) = &mut self.features[i as usize];
            *count += 1;
            *sum += f64::from(f);
            *max = max.max(f);
        }
        self.n_rows += n as u64;
        self.n_active += codes.n_active() as u64;
    }

    /// Rows so far.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// What was told by the first rows; none before them.
    pub fn sinks(&self) -> Option<&Sinks> {
        self.sinks.as_ref()
    }

    /// The mean row `[d_model]`; zeros before any.
    pub fn mean_row(&self) -> Vec<f32> {
        let n = self.n_rows.max(1) as f64;
        let shift = self.shift.iter().chain(std::iter::repeat(&0.0));
        self.sum.iter().zip(shift).map(|(sum, &shift)| (f64::from(shift) + sum / n) as f32).collect()
    }

    /// The state in a line.
    fn note(&self) -> String {
        let l0 = self.n_active as f64 / self.n_rows.max(1) as f64;
        format!("L0 {l0:.1}  FVU {:.3}", self.fvu())
    }

    fn fvu(&self) -> f64 {
        let mean_part: f64 = self.sum.iter().map(|s| s * s).sum::<f64>() / self.n_rows.max(1) as f64;
        self.error / (self.squares - mean_part)
    }

    /// The result.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) without rows, [`Kind::Numeric`](crate::Kind::Numeric) if a row held NaN
    /// or infinity, or if all rows are the same.
    pub fn finish(self) -> Result<Quality> {
        if self.n_rows == 0 {
            return Err(Error::argument("quality: expected rows, found none"));
        }
        let fvu = self.fvu();
        if !(self.squares.is_finite() && self.error.is_finite()) {
            return Err(Error::numeric("quality: expected finite rows and reconstructions, found NaN or infinity"));
        }
        if !fvu.is_finite() {
            return Err(Error::numeric("quality: expected rows that differ, found no variance"));
        }
        let n = self.n_rows as f64;
        let stats = |&(count, sum, max): &(u64, f64, f32)| FeatureStats {
            density: (count as f64 / n) as f32,
            max,
            mean: if count == 0 { 0.0 } else { (sum / count as f64) as f32 },
        };
        let dead = self.features.iter().filter(|f| f.0 == 0).count();
        Ok(Quality {
            n_rows: self.n_rows,
            n_sinks: self.n_sinks,
            mean_norm: self.length / n,
            l0: self.n_active as f64 / n,
            fvu,
            l1: self.matched.l1 / n,
            mse: self.error / (n * self.sum.len() as f64),
            cosine: self.matched.cosine / n,
            l2_ratio: self.matched.l2_ratio / n,
            reconstruction_bias: self.matched.bias(),
            dead_share: dead as f64 / self.features.len() as f64,
            features: self.features.iter().map(stats).collect(),
        })
    }
}

/// Places below `n`, dealt by the seed: four of five to train on, the rest to test on.
fn split_words(n: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut places: Vec<usize> = (0..n).collect();
    places.shuffle(&mut num::rng(seed));
    let test = places.split_off(n - n / 5);
    (places, test)
}

fn partial<'a>(
    dictionary: &Dictionary,
    shift: &[f32],
    rows: &[f32],
    codes: impl Iterator<Item = &'a [(u32, f32)]>,
) -> Partial {
    let d = shift.len();
    let mut out = Partial { error: 0.0, matched: Matched::default(), sum: vec![0.0; d], squares: 0.0 };
    let mut x_hat = vec![0f32; d];
    for (x, codes) in rows.chunks_exact(d).zip(codes) {
        dictionary.reconstruct(x, codes, &mut x_hat);
        out.matched.add(x, &x_hat, codes);
        out.error += x.iter().zip(&x_hat).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
        for ((sum, &x), &shift) in out.sum.iter_mut().zip(x).zip(shift) {
            let v = f64::from(x) - f64::from(shift);
            *sum += v;
            out.squares += v * v;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dictionary::{Activation, Info, Parts, Settings};
    use crate::error::Kind;
    use rand::Rng;

    const D: usize = 6;
    const F: usize = 9;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = num::rng(seed);
        (0..n).map(|_| rng.random_range(-1f32..1.0)).collect()
    }

    fn dictionary(encoder: Vec<f32>, decoder: Vec<f32>, bias: Vec<f32>) -> Dictionary {
        Dictionary::from_parts(Parts {
            d_model: D,
            encoder,
            decoder,
            encoder_bias: bias,
            decoder_bias: vec![0.0; D],
            threshold: None,
            gate: None,
            stats: None,
            settings: Settings::new(Activation::Relu),
            info: Info::default(),
        })
        .unwrap()
    }

    /// Two features a dimension, one for each sign: reconstructs everything with L0 = d.
    fn perfect() -> Dictionary {
        let mut rows = vec![0.0; 2 * D * D];
        for j in 0..D {
            rows[2 * j * D + j] = 1.0;
            rows[(2 * j + 1) * D + j] = -1.0;
        }
        dictionary(rows.clone(), rows, vec![0.0; 2 * D])
    }

    #[test]
    fn a_perfect_dictionary_explains_everything() {
        let rows = random(300 * D, 1);
        let dictionary = perfect();
        let mut meter = Meter::new(&dictionary);
        meter.add(&rows, 2);
        let quality = meter.finish().unwrap();
        assert!(quality.fvu < 1e-12 && quality.l0 == D as f64 && quality.dead_share == 0.0, "{quality:?}");
    }

    #[test]
    fn sums_agree_with_the_definitions() {
        let mut bias = random(F, 4);
        bias[3] = -1e9;
        let dictionary = dictionary(random(F * D, 2), random(F * D, 3), bias);
        let n = 1000;
        // A mean far from zero, which naive sums in f32 would not survive.
        let rows: Vec<f32> = random(n * D, 5).iter().enumerate().map(|(i, v)| v + 100.0 * (i % D) as f32).collect();
        let mean: Vec<f64> =
            (0..D).map(|j| rows.iter().skip(j).step_by(D).map(|&v| f64::from(v)).sum::<f64>() / n as f64).collect();
        let (mut error, mut variance, mut active) = (0.0, 0.0, [0u64; F]);
        let (mut sums, mut maxima) = ([0f64; F], [0f32; F]);
        for x in rows.chunks_exact(D) {
            let (mut codes, mut x_hat) = (Vec::new(), vec![0.0; D]);
            dictionary.encode_sparse(x, &mut codes);
            dictionary.reconstruct(x, &codes, &mut x_hat);
            error += x.iter().zip(&x_hat).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            variance += x.iter().zip(&mean).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>();
            for (i, f) in codes {
                active[i as usize] += 1;
                sums[i as usize] += f64::from(f);
                maxima[i as usize] = maxima[i as usize].max(f);
            }
        }
        let mut first = None;
        for threads in [1, 2, 3] {
            let mut meter = Meter::new(&dictionary);
            rows.chunks(300 * D).for_each(|rows| meter.add(rows, threads));
            let quality = meter.finish().unwrap();
            assert_eq!(*first.get_or_insert_with(|| quality.clone()), quality, "{threads} threads change the result");
            assert!((quality.fvu / (error / variance) - 1.0).abs() < 1e-4, "{} for {}", quality.fvu, error / variance);
            assert!((quality.l0 - active.iter().sum::<u64>() as f64 / n as f64).abs() < 1e-9);
            let dead = active.iter().filter(|c| **c == 0).count();
            assert!(dead >= 1 && quality.dead_share == dead as f64 / F as f64);
            for (i, stats) in quality.features.iter().enumerate() {
                assert!((stats.density - active[i] as f32 / n as f32).abs() < 1e-6);
                let mean = if active[i] == 0 { 0.0 } else { sums[i] / active[i] as f64 };
                assert!((f64::from(stats.mean) - mean).abs() <= 1e-5 * mean);
                assert!((stats.max - maxima[i]).abs() <= 1e-5 * maxima[i]);
            }
        }
    }

    #[test]
    fn no_rows_equal_rows_and_nan_have_no_quality() {
        let dictionary = perfect();
        let finish = |rows: &[f32]| {
            let mut meter = Meter::new(&dictionary);
            meter.add(rows, 1);
            meter.finish().map_err(|e| e.kind())
        };
        assert_eq!(finish(&[]), Err(Kind::Argument));
        assert_eq!(finish(&[0.0; 5 * D]), Err(Kind::Numeric));
        let mut rows = random(5 * D, 6);
        rows[7] = f32::NAN;
        assert_eq!(finish(&rows), Err(Kind::Numeric));
    }

    #[test]
    fn attention_sinks_are_set_apart() {
        let dictionary = perfect();
        let mut rows = random(300 * D, 7);
        let mut meter = Meter::new(&dictionary);
        meter.add(&rows, 1);
        let clean = meter.finish().unwrap();
        // The mean of all rows would be far off, and so would be the variance.
        rows.splice(D * 17..D * 17, [1e4; D]);
        let mut meter = Meter::new(&dictionary);
        meter.add(&rows, 1);
        meter.add(&[-1e4; D], 1);
        assert!(meter.sinks().is_some_and(|sinks| sinks.contains(&[50.0; D]) && !sinks.contains(&[1.0; D])));
        let found = meter.finish().unwrap();
        let mean_norm =
            rows.chunks_exact(D).map(|row| f64::from(num::norm(row))).filter(|n| *n < 100.0).sum::<f64>() / 300.0;
        assert!((clean.mean_norm - mean_norm).abs() < 1e-9);
        assert_eq!((clean.n_sinks, found.n_sinks, found.n_rows), (0, 2, 300));
        assert_eq!(Quality { n_sinks: 0, ..found }, clean);
    }

    #[test]
    fn rows_at_position_zero_are_dropped() {
        let mut rows: Vec<f32> = (0..5 * 2).map(|i| i as f32).collect();
        assert_eq!(drop_first(&mut rows, 2, &[0, 1, 2, 0, 1]), 3);
        assert_eq!(rows[..6], [2.0, 3.0, 4.0, 5.0, 8.0, 9.0]);
    }

    #[test]
    fn shards_are_read_in_groups_without_first_rows() {
        use crate::activations::{Meta, RowType, Writer};
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta {
            format: 1,
            model: "m".to_owned(),
            model_fingerprint: "f".to_owned(),
            layer: 0,
            hook: "resid_post".to_owned(),
            d_model: D,
            dtype: RowType::F32,
            window: 100,
            n_rows: 0,
            shards: Vec::new(),
            documents_done: 0,
            windows_done: 0,
            text: "t".to_owned(),
            complete: false,
        };
        let mut writer = Writer::open(dir.path(), meta, 6000).unwrap();
        // 200 windows of 100: shards of 6,000 rows, two groups each, and 2,000 at the end.
        for window in 0..200 {
            let mut rows = random(100 * D, window);
            rows[..D].fill(1e4);
            writer.window(&rows, &[0; 100]).unwrap();
            if writer.is_full() {
                writer.flush(window + 1, 0).unwrap();
            }
        }
        writer.finish(200, 0, true).unwrap();
        let (activations, dictionary) = (Activations::open(dir.path()).unwrap(), perfect());
        let run = |options: Options| {
            let mut steps = Vec::new();
            let mut progress = |step: crate::progress::Step<'_>| {
                steps.push((step.done, step.total));
                true
            };
            (quality(&activations, &dictionary, &options, &mut progress).unwrap(), steps)
        };
        let (all, steps) = run(Options::default());
        assert_eq!((all.n_rows, steps.last()), (19_800, Some(&(7, 7))));
        assert!(all.features.iter().all(|f| f.max < 2.0), "first rows are left out");
        let (with_first, _) = run(Options { include_sinks: true, ..Options::default() });
        assert_eq!(with_first.n_rows, 20_000);
        assert!(with_first.features.iter().any(|f| f.max > 1e3));
        let (some, steps) = run(Options { max_rows: 8192, ..Options::default() });
        assert_eq!(steps, [(1, 2), (2, 2)]);
        assert!(some.n_rows < 8192 && some.n_rows > 4000, "{}", some.n_rows);
        let cancelled = quality(&activations, &dictionary, &Options::default(), &mut |_| false).unwrap_err();
        assert_eq!(cancelled.kind(), Kind::Cancelled);
        let narrow = Dictionary::from_parts(Parts {
            d_model: 1,
            encoder: vec![1.0],
            decoder: vec![1.0],
            encoder_bias: vec![0.0],
            decoder_bias: vec![0.0],
            threshold: None,
            gate: None,
            stats: None,
            settings: Settings::new(Activation::Relu),
            info: Info::default(),
        });
        let error = quality(&activations, &narrow.unwrap(), &Options::default(), &mut |_| true).unwrap_err();
        assert_eq!(error.kind(), Kind::Mismatch);
    }
}
