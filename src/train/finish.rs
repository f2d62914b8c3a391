//! From the last state to a dictionary: the scale folded back, thresholds and statistics counted.
//!
//! Codes in the units of the residual stream are the scaled ones divided by the scale, because selection and ReLU commute
//! with it: `W_enc` and `W_dec` stay; biases and thresholds are divided.

use super::batch::Batch;
use super::options::Options;
use super::rows::{Rows, Selection, order};
use super::update::Forms;
use super::variant::{Rule, Variant, jumprelu};
use super::weights::State;
use crate::dictionary::{Activation, Dictionary, FeatureStats, Gate, Info, Parts, Settings};
use crate::error::Result;
use crate::progress::{Progress, report};

/// The stream of the rows that statistics are counted over.
const STREAM: u32 = u32::MAX - 1;
/// Candidates per row, in units of `k`, that TopK's thresholds are estimated from.
const REACH: usize = 4;

/// Counts the features over the rows of `train`, folds the scale back and assembles the dictionary.
pub(super) fn finish(
    state: State,
    forms: &Forms,
    source: &Rows<'_>,
    train: &Selection,
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Dictionary> {
    let mut ids = order(train.len(), options.seed, STREAM);
    ids.truncate(options.statistics_rows);
    train.name(&mut ids);
    let counter =
        Counter { state: &state, forms, source, options, rule: Rule::of(options, &state, &forms.norms, 1, 1) };
    let (census, threshold) = counter.count(&ids, progress)?;

    let divide = |x: &[f32]| -> Vec<f32> { x.iter().map(|x| x / state.scale).collect() };
    let (k, bias) = (options.k, &state.encoder_bias.values);
    let (mut encoder_bias, mut gate) = (divide(bias), None);
    let (activation, thresholds) = match options.variant {
        Variant::TopK => (Activation::TopK { k }, Some(census.thresholds())),
        Variant::BatchTopK | Variant::Matryoshka => (Activation::BatchTopK { k }, Some(vec![threshold; state.n])),
        Variant::Relu | Variant::PAnneal => (Activation::Relu, None),
        Variant::JumpRelu => {
            let thresholds = state.extras[0].values.iter().map(|&p| jumprelu::threshold(options, p)).collect();
            (Activation::JumpRelu, Some(thresholds))
        }
        Variant::Gated => {
            let log_scale = state.extras[1].values.clone();
            let gate_bias = std::mem::replace(&mut encoder_bias, divide(&state.extras[0].values));
            gate = Some(Gate { bias: gate_bias, log_scale });
            (Activation::Gated, None)
        }
    };
    Dictionary::from_parts(Parts {
        d_model: state.d,
        encoder: state.encoder.values,
        decoder: state.decoder.values,
        encoder_bias,
        decoder_bias: divide(&state.decoder_bias.values),
        threshold: thresholds.as_deref().map(divide),
        gate,
        stats: Some(census.statistics(ids.len() as u64, state.scale)),
        settings: Settings { apply_b_dec_to_input: options.subtract_bias, ..Settings::new(activation) },
        info: Info { recipe: options.recipe(), ..source.info().clone() },
    })
}

/// What codes are counted from.
struct Counter<'a> {
    state: &'a State,
    forms: &'a Forms,
    source: &'a Rows<'a>,
    options: &'a Options,
    rule: Rule,
}

impl Counter<'_> {
    /// Counts the codes of rows `ids`; with the threshold that takes a batch rule's place.
    fn count(&self, ids: &[u32], progress: &mut Progress<'_>) -> Result<(Census, f32)> {
        let Self { state, forms, source, options, rule } = self;
        let mut census = Census::new(state.n);
        let by_batch = matches!(options.variant, Variant::BatchTopK | Variant::Matryoshka);
        let threshold = if by_batch { self.threshold(ids)? } else { 0.0 };
        let wide = Options { k: (REACH * options.k).min(state.n), ..(*options).clone() };
        let (mut batch, mut done, panels) = (Batch::default(), 0, &forms.panels);
        for some in ids.chunks(options.batch) {
            batch.gather(state, source, some, options, options.threads)?;
            match options.variant {
                Variant::TopK => batch.select(&wide, rule, panels, None, options.threads),
                _ => batch.pass(rule, panels, threshold, options.threads),
            }
            for at in batch.codes().offsets.windows(2) {
                let (features, values) = (&batch.codes().features[at[0]..at[1]], &batch.codes().values[at[0]..at[1]]);
                match options.variant {
                    Variant::TopK => census.add_best(features, values, options.k),
                    _ => census.add_above(features, values, threshold),
                }
            }
            done += some.len() as u64;
            report(progress, done, ids.len() as u64, "statistics")?;
        }
        Ok((census, threshold))
    }

    /// The threshold that does on its own what the batch rule does: the smallest code that it keeps, on the mean of a few
    /// batches. (A moving average over the steps, as others keep, lags behind the weights: after a short run it halved L0.)
    fn threshold(&self, ids: &[u32]) -> Result<f32> {
        /// Batches; their cuts differ by a few per cent.
        const BATCHES: usize = 16;
        let Self { state, forms, source, options, rule } = self;
        let mut batch = Batch::default();
        let (mut sum, mut count) = (0f64, 0f64);
        for ids in ids.chunks(options.batch).take(BATCHES) {
            batch.gather(state, source, ids, options, options.threads)?;
            batch.select(options, rule, &forms.panels, None, options.threads);
            let least = batch.codes().values.iter().copied().fold(f32::INFINITY, f32::min);
            if least.is_finite() {
                (sum, count) = (sum + f64::from(least), count + 1.0);
            }
        }
        Ok(if count > 0.0 { (sum / count) as f32 } else { 0.0 })
    }
}

/// Bins of a feature's values: sixteen an octave, from 2⁻⁸ to 2⁸.
const BINS: usize = 256;

/// How often and how strongly features are active.
struct Census {
    active: Vec<u32>,
    sum: Vec<f64>,
    max: Vec<f32>,
    /// TopK only: values of candidates, chosen or not, `[n, BINS]`.
    bins: Vec<u32>,
    /// TopK only: the smallest values that rows chose, to fall back on.
    least: f64,
    rows: u64,
    order: Vec<u32>,
}

impl Census {
    fn new(n: usize) -> Self {
        let (active, sum, max) = (vec![0; n], vec![0.0; n], vec![0.0; n]);
        Self { active, sum, max, bins: Vec::new(), least: 0.0, rows: 0, order: Vec::new() }
    }

    fn count(&mut self, f: u32, value: f32) {
        let f = f as usize;
        self.active[f] += 1;
        self.sum[f] += f64::from(value);
        self.max[f] = self.max[f].max(value);
    }

    /// A row of which everything above `threshold` is active.
    fn add_above(&mut self, features: &[u32], values: &[f32], threshold: f32) {
        for (&f, &value) in features.iter().zip(values) {
            if value > threshold {
                self.count(f, value);
            }
        }
    }

    /// A row of which the `k` best positive values are active, and the others nearly so.
    fn add_best(&mut self, features: &[u32], values: &[f32], k: usize) {
        self.bins.resize(self.active.len() * BINS, 0);
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend((0..features.len() as u32).filter(|&j| values[j as usize] > 0.0));
        order.sort_unstable_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]).then(a.cmp(&b)));
        for (rank, &j) in order.iter().enumerate() {
            let (f, value) = (features[j as usize], values[j as usize]);
            self.bins[f as usize * BINS + bin(value)] += 1;
            if rank < k {
                self.count(f, value);
            }
        }
        if let Some(&j) = order.get(k.min(order.len()).wrapping_sub(1)) {
            self.least += f64::from(values[j as usize]);
            self.rows += 1;
        }
        self.order = order;
    }

    /// Per feature the value that as many candidates exceed as were chosen: encoding by it fires as often as TopK does.
    fn thresholds(&self) -> Vec<f32> {
        let fallback = (self.least / self.rows.max(1) as f64) as f32;
        let threshold = |f: usize| {
            let bins = self.bins.get(f * BINS..(f + 1) * BINS)?;
            let mut left = self.active[f];
            if left == 0 {
                return None;
            }
            for b in (0..BINS).rev() {
                if bins[b] >= left {
                    let (low, high) = (edge(b), edge(b + 1));
                    return Some(high - (high - low) * left as f32 / bins[b] as f32);
                }
                left -= bins[b];
            }
            None
        };
        (0..self.active.len()).map(|f| threshold(f).unwrap_or(fallback)).collect()
    }

    fn statistics(&self, rows: u64, scale: f32) -> Vec<FeatureStats> {
        let one = |f: usize| {
            let density = f64::from(self.active[f]) / rows.max(1) as f64;
            let mean = self.sum[f] / f64::from(self.active[f].max(1)) / f64::from(scale);
            FeatureStats { density: density as f32, max: self.max[f] / scale, mean: mean as f32 }
        };
        (0..self.active.len()).map(one).collect()
    }
}

/// The bin of a positive value: its exponent and the four highest bits of its fraction.
fn bin(value: f32) -> usize {
    let first = 0.003_906_25f32.to_bits() >> 19;
    (value.to_bits() >> 19).saturating_sub(first).min(BINS as u32 - 1) as usize
}

/// The lower edge of bin `b`.
fn edge(b: usize) -> f32 {
    let first = 0.003_906_25f32.to_bits() >> 19;
    f32::from_bits((first + b as u32) << 19)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_cover_values_in_order() {
        for value in [0.0039f32, 0.01, 0.5, 1.0, 1.03, 3.7, 100.0, 255.9] {
            let b = bin(value);
            assert!(value < 0.004 || edge(b) <= value && value < edge(b + 1), "{value}: bin {b}");
        }
        assert_eq!(bin(1e-30), 0);
        assert_eq!(bin(1e30), BINS - 1);
    }

    /// A feature that is second best in half of its rows gets a threshold that half of its candidates exceed.
    #[test]
    fn thresholds_fire_as_often_as_topk_does() {
        let mut census = Census::new(3);
        for i in 0..1000 {
            let a = 1.0 + (i % 100) as f32 / 100.0;
            census.add_best(&[0, 1], &[a, 1.5], 1);
        }
        let thresholds = census.thresholds();
        let above = (0..1000).filter(|i| 1.0 + (i % 100) as f32 / 100.0 > thresholds[0]).count() as i64;
        assert!((above - i64::from(census.active[0])).abs() <= 40, "{above} {}", census.active[0]);
        assert!((thresholds[2] - 1.6).abs() < 0.1, "{thresholds:?}");
        let stats = census.statistics(1000, 2.0);
        assert_eq!(stats[0].density + stats[1].density, 1.0);
        assert_eq!(stats[1].max, 0.75);
        assert_eq!(stats[2], FeatureStats::default());
    }
}
