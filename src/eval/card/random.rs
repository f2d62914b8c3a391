//! Random directions: what any edit of the same length does at the same places.
//!
//! The length is measured: while the plan's own texts are read under it, the hook books the mean of ‖x′ − x‖ / ‖x‖ of every
//! rule at every layer. A random direction adds, at each of these places and to every row but the first, a vector of that
//! length, drawn from the normal distribution. Each direction has sequences of its own, so several run side by side.

use std::sync::Arc;

use rand::Rng;

use super::aim::{Aims, refs};
use super::report::Random;
use super::subject::Subject;
use super::texts::{Bench, Depth, Text, whole};
use crate::error::Result;
use crate::hook_point::HookPoint;
use crate::num::{norm, rng};
use crate::plan::{Compiled, Plan, Route, Rule, Selector, Strength};

/// Rules of a plan, with room for others: a plan holds 1,024.
const MOST_RULES: usize = 1000;

/// The mean length of the plan's edits relative to the row, over all rows but the first, at each place where it acts.
pub(super) fn sizes(bench: &mut Bench<'_, '_>, subject: &Subject, texts: &[Text]) -> Result<Vec<(HookPoint, f64)>> {
    let (rules, points): (Vec<Rule>, Vec<HookPoint>) = subject.places(bench.engine)?.into_iter().unzip();
    let plan = subject.compile(bench.engine, &subject.with(rules), Route::Callback)?;
    let mut sums = vec![0.0; points.len()];
    let mut n_rows = 0;
    let n = bench.engine.sequences();
    for part in texts.chunks(n) {
        let prompt = |text: &Text| bench.cases[text.case].plain.clone();
        let read: Vec<Vec<i32>> = part.iter().map(|text| [prompt(text), text.tokens.clone()].concat()).collect();
        let written: Vec<usize> = part.iter().map(|text| prompt(text).len()).collect();
        n_rows += read.iter().map(|tokens| tokens.len().saturating_sub(1)).sum::<usize>();
        bench.engine.set_plan(Some(plan.clone()))?;
        let read = bench.engine.predict_written(&read, &written, &mut |_, _, _| {});
        let ledger = bench.engine.finish();
        bench.engine.set_plan(None)?;
        read?;
        for (sum, rule) in sums.iter_mut().zip(ledger.ok()?.rules) {
            *sum += rule.relative_size().unwrap_or(0.0) * rule.rows as f64;
        }
    }
    Ok(points.into_iter().zip(sums).map(|(point, sum)| (point, sum / n_rows.max(1) as f64)).collect())
}

/// What random directions do on the first cases.
pub(super) struct Drawn {
    /// The texts of each direction.
    pub(super) texts: Vec<Vec<Text>>,
    /// Their cases.
    pub(super) n: usize,
    sizes: Vec<(HookPoint, f64)>,
}

impl Drawn {
    /// Has the model write under `directions` random directions of these lengths, on at most `n` cases each.
    pub(super) fn new(
        bench: &mut Bench<'_, '_>,
        subject: &Subject,
        sizes: Vec<(HookPoint, f64)>,
        (directions, n): (usize, usize),
        seed: u64,
    ) -> Result<Self> {
        let n = n.min(bench.cases.len()).min(bench.engine.sequences());
        let acting: Vec<(HookPoint, f64)> = sizes.iter().copied().filter(|(_, size)| *size > 0.0).collect();
        let mut texts = Vec::with_capacity(directions);
        let at_once = (bench.engine.sequences() / n).min(MOST_RULES / acting.len().max(1)).max(1);
        while texts.len() < directions && !acting.is_empty() {
            let wave = at_once.min(directions - texts.len());
            let mut rules = Vec::with_capacity(wave * acting.len());
            for i in 0..wave {
                let mut rng = rng(seed.wrapping_add((texts.len() + i) as u64));
                for &(point, size) in &acting {
                    let random: Vec<f32> = (0..bench.engine.d_model()).map(|_| gauss(&mut rng)).collect();
                    let sequences = (i * n..(i + 1) * n).map(|sequence| sequence as i32);
                    rules.push(rule(point, size as f32, random).select(Selector::default().sequences(sequences)));
                }
            }
            let plan: Arc<Compiled> = subject.compile(bench.engine, &Plan::new(rules), Route::Callback)?;
            let places: Vec<usize> = (0..wave).flat_map(|_| 0..n).collect();
            let written = bench.write(Some(&plan), &places, Depth::Likelihood)?;
            texts.extend(written.chunks(n).map(<[Text]>::to_vec));
        }
        Ok(Self { texts, n, sizes })
    }

    /// Effects of each direction.
    pub(super) fn effects(&self, aims: &Aims, unsteered: &[Text], asked: Option<&[Text]>) -> Vec<f64> {
        let first = |texts: &'_ [Text]| texts.iter().take(self.n).cloned().collect::<Vec<_>>();
        let (unsteered, asked) = (first(unsteered), asked.map(first));
        let effect = |texts: &Vec<Text>| aims.effect_alone((texts, &unsteered, asked.as_deref()));
        self.texts.iter().filter_map(effect).collect()
    }

    pub(super) fn report(&self, effects: &[f64], usual: f64) -> Random {
        let all: Vec<&Text> = self.texts.iter().flat_map(|texts| refs(texts)).collect();
        let found = whole(&all, Some(usual));
        let (mean, deviation) = spread(effects).unzip();
        Random {
            directions: self.texts.len(),
            texts: self.n,
            sizes: self.sizes.iter().map(|(point, size)| (point.layer(), *size)).collect(),
            mean,
            deviation,
            broken: found.broken(),
            perplexity: if all.is_empty() { 1.0 } else { found.perplexity / usual },
        }
    }
}

/// What adds a direction as long as `size` times the row.
fn rule(point: HookPoint, size: f32, direction: Vec<f32>) -> Rule {
    let length = norm(&direction).max(f32::MIN_POSITIVE);
    let unit: Vec<f32> = direction.iter().map(|v| v / length).collect();
    Rule::vector(unit, Strength::norm(size)).at_layer(point.layer()).at_site(point.site())
}

/// Mean and standard deviation (of a sample); none of fewer than two values.
pub(super) fn spread(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (square / (values.len() - 1) as f64).sqrt()))
}

/// A number of the standard normal distribution (Box and Muller 1958).
fn gauss(rng: &mut impl Rng) -> f32 {
    let (u, v): (f32, f32) = (rng.random_range(f32::EPSILON..1.0), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_normal_and_their_spread_is_known() {
        let mut rng = rng(1);
        let values: Vec<f64> = (0..20_000).map(|_| f64::from(gauss(&mut rng))).collect();
        let (mean, deviation) = spread(&values).unwrap();
        assert!(mean.abs() < 0.03 && (deviation - 1.0).abs() < 0.03, "{mean} {deviation}");
        assert_eq!(spread(&[1.0, 3.0]), Some((2.0, 2f64.sqrt())));
        assert_eq!(spread(&[1.0]), None);
    }

    #[test]
    fn a_direction_is_as_long_as_it_is_told() {
        let rule = rule(HookPoint::from(3), 0.25, vec![3.0, 4.0]);
        assert_eq!((rule.layer, rule.strength), (Some(3), Some(Strength::norm(0.25))));
        let Some(crate::plan::Vector::Values(values)) = rule.vector else { unreachable!() };
        assert!((norm(&values) - 1.0).abs() < 1e-6);
    }
}
