//! What steering by a featurizer's features does to the concepts that probes read at a later layer.
//!
//! ```text
//! feature(c) = argmax_j |Σ f_j ∂logit_c/∂f_j| = argmax_j |Σ_x f_j(x)·⟨d_j, w_c⟩|
//! f'_j       = 5 · max f_j
//! ```
//!
//! after arXiv 2512.15134; w_c is a probe at the layer of the features, and what they do not explain of a row stays.
//! The sum is over training rows that have the concept, our decision: over all rows it would vanish for codes that are
//! counted from their mean. Probes read at a later layer, because at the same one a linear probe adds edits up by
//! construction.

use rand::Rng;
use rand::seq::SliceRandom;

use super::correlation::Moments;
use super::data::Data;
use super::effect::{INDEPENDENT, Logits, collisions, interaction, mean, overlap, selectivity};
use super::featurizer::{Featurizer, push};
use super::report::{Additivity, Steering, Summary};
use super::request::Request;
use crate::error::Result;
use crate::eval::bootstrap;
use crate::num::{dot, norm, rng};
use crate::plan::{Compiled, Target};
use crate::train::probe::Probe;

/// Features of a concept whose space is compared with those of other concepts.
const SPACE: usize = 5;
/// Share of what is drawn that an interval holds.
const SHARE: f64 = 0.9;

/// Reads rows `[n, d_model]` of the same sentences at the later layer, with a plan or without.
pub type Read<'r> = dyn FnMut(Option<Compiled>) -> Result<Vec<f32>> + 'r;

/// What steering needs of a model.
pub struct Bench<'b> {
    /// What plans are made for.
    pub target: Target,
    /// The layer of the features.
    pub layer: usize,
    /// The probes at that layer.
    pub probes: &'b [Probe],
    /// The probes at the later one.
    pub readers: &'b [Probe],
    /// Rows at the later one.
    pub read: &'b mut Read<'b>,
}

/// A concept's feature and what its code becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edit {
    /// The feature.
    pub feature: usize,
    /// f'.
    pub value: f32,
}

/// The features of each concept, best first, `SPACE` at most, and the edit of the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// One for each concept.
    pub edits: Vec<Edit>,
    /// Directions `[k, d_model]` of each concept's best features.
    spaces: Vec<Vec<f32>>,
    /// Median length of what the edits add to a row.
    length: f64,
}

/// Chooses by the sums of codes over the training rows.
pub fn choose(featurizer: &Featurizer, moments: &Moments, probes: &[Probe], strength: f32) -> Chosen {
    let c = probes.len();
    let with = moments.means_with();
    let mut ranked: Vec<Vec<(f64, usize)>> = vec![Vec::new(); c];
    for j in 0..featurizer.n_features() {
        let direction = featurizer.direction(j);
        for (k, probe) in probes.iter().enumerate() {
            let attribution = (with[j * c + k] * f64::from(dot(&direction, &probe.weights))).abs();
            let list = &mut ranked[k];
            if list.len() < SPACE || list[list.len() - 1].0 < attribution {
                let at = list.partition_point(|(other, _)| *other >= attribution);
                list.insert(at, (attribution, j));
                list.truncate(SPACE);
            }
        }
    }
    let (max, means) = (moments.max(), moments.means());
    let edit = |list: &Vec<(f64, usize)>| {
        let feature = list.first().map_or(0, |(_, j)| *j);
        Edit { feature, value: strength * max[feature] }
    };
    let edits: Vec<Edit> = ranked.iter().map(edit).collect();
    let length =
        |e: &Edit| (f64::from(e.value) - means[e.feature]).abs() * f64::from(norm(&featurizer.direction(e.feature)));
    let lengths: Vec<f32> = edits.iter().map(|e| length(e) as f32).collect();
    let space = |list: &Vec<(f64, usize)>| list.iter().flat_map(|(_, j)| featurizer.direction(*j)).collect();
    Chosen { spaces: ranked.iter().map(space).collect(), length: crate::num::stats::median(&lengths), edits }
}

impl Bench<'_> {
    /// Logits `[n, C]` of the sentences under a plan.
    pub fn logits(&mut self, plan: Option<Compiled>) -> Result<Vec<f32>> {
        let rows = (self.read)(plan)?;
        Ok(logits(self.readers, &rows))
    }
}

/// Logits `[n, C]` of rows `[n, d_model]`.
pub fn logits(probes: &[Probe], rows: &[f32]) -> Vec<f32> {
    let columns: Vec<Vec<f32>> = probes.iter().map(|probe| probe.logits(rows)).collect();
    let n = columns.first().map_or(0, Vec::len);
    (0..n).flat_map(|i| columns.iter().map(move |column| column[i])).collect()
}

/// Steers every concept alone, pairs of them together, and random directions. `tell` is told of every plan that was
/// tried.
///
/// # Errors
/// As [`Plan::compile`](crate::plan::Plan::compile); what reading and `tell` return.
pub fn steer(
    bench: &mut Bench<'_>,
    featurizer: &Featurizer,
    data: &Data,
    chosen: &Chosen,
    request: &Request,
    tell: &mut dyn FnMut() -> Result<()>,
) -> Result<Steering> {
    let (c, layer, target) = (data.n_concepts(), bench.layer, bench.target.clone());
    let base = bench.logits(None)?;
    let all: Vec<usize> = (0..base.len() / c).collect();
    let mut steered = Vec::with_capacity(c);
    for Edit { feature, value } in &chosen.edits {
        steered.push(bench.logits(Some(featurizer.edit(&[(*feature, *value)], layer, &target)?))?);
        tell()?;
    }
    let logits = Logits { n_concepts: c, base: &base, steered: &steered };
    let effects = logits.effects(&all);
    let attributes = &data.attributes;
    let (selective, leak): (Vec<f64>, Vec<f64>) =
        (0..c).map(|i| selectivity(&effects[i * c..(i + 1) * c], i, attributes)).unzip();
    let drawn_mean = &mut |drawn: &[usize]| {
        let drawn = logits.effects(drawn);
        (0..c).map(|i| selectivity(&drawn[i * c..(i + 1) * c], i, attributes).0).sum::<f64>() / c as f64
    };
    let features: Vec<usize> = chosen.edits.iter().map(|e| e.feature).collect();
    let interval = bootstrap::interval(all.len(), SHARE, request.seed, drawn_mean);
    let summary = summarize(&effects, attributes, &(0..c).collect::<Vec<_>>());
    let additivity = together(bench, featurizer, data, chosen, (&base, &steered), request, tell)?;
    let random = random(bench, chosen, &base, attributes, request, tell)?;
    Ok(Steering {
        values: chosen.edits.iter().map(|e| e.value).collect(),
        push: chosen.length / spread(data),
        effects: effects.chunks_exact(c).map(<[f64]>::to_vec).collect(),
        selectivity: selective,
        leak,
        summary,
        interval,
        collisions: collisions(&features),
        overlap: mean_overlap(&chosen.spaces, attributes, data.d_model),
        features,
        additivity,
        random,
        written: None,
    })
}

/// Means over edits with effects `[edits, C]`, of which edit e is meant for concept `meant[e]`.
pub fn summarize(effects: &[f64], attributes: &[usize], meant: &[usize]) -> Summary {
    let c = attributes.len();
    let rows = || effects.chunks_exact(c).zip(meant);
    let each: Vec<(f64, f64)> = rows().map(|(row, &i)| selectivity(row, i, attributes)).collect();
    let n = each.len() as f64;
    let leaks: Vec<f32> = each.iter().map(|(_, leak)| *leak as f32).collect();
    Summary {
        own: rows().map(|(row, &i)| row[i].abs()).sum::<f64>() / n,
        towards: rows().filter(|(row, i)| row[**i] > 0.0).count() as f64 / n,
        selectivity: each.iter().map(|(s, _)| s).sum::<f64>() / n,
        leak: crate::num::stats::median(&leaks),
        independent: each.iter().filter(|(_, leak)| *leak <= INDEPENDENT).count() as f64 / n,
    }
}

/// Joint edits of pairs of concepts that belong to different attributes and have different features.
fn together(
    bench: &mut Bench<'_>,
    featurizer: &Featurizer,
    data: &Data,
    chosen: &Chosen,
    (base, steered): (&[f32], &[Vec<f32>]),
    request: &Request,
    tell: &mut dyn FnMut() -> Result<()>,
) -> Result<Option<Additivity>> {
    let (c, attributes) = (data.n_concepts(), &data.attributes);
    let edit = |i: usize| chosen.edits[i];
    let apart = |i: usize, j: usize| attributes[i] != attributes[j] && edit(i).feature != edit(j).feature;
    let mut pairs: Vec<[usize; 2]> =
        (0..c).flat_map(|i| (i + 1..c).map(move |j| [i, j])).filter(|[i, j]| apart(*i, *j)).collect();
    pairs.shuffle(&mut rng(request.seed));
    pairs.truncate(request.pairs);
    let all: Vec<usize> = (0..base.len() / c).collect();
    let level = |logits: &[f32]| mean(logits, c, &all);
    let mut found = Vec::with_capacity(pairs.len());
    for &[i, j] in &pairs {
        let both = [i, j].map(|k| (edit(k).feature, edit(k).value));
        let plan = featurizer.edit(&both, bench.layer, &bench.target.clone())?;
        let both = bench.logits(Some(plan))?;
        found.push(interaction(&level(base), &level(&steered[i]), &level(&steered[j]), &level(&both)));
        tell()?;
    }
    let Some((at, most)) = found.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)) else {
        return Ok(None);
    };
    let average = |drawn: &mut dyn Iterator<Item = f64>| drawn.sum::<f64>() / pairs.len() as f64;
    let interval = bootstrap::interval(found.len(), SHARE, request.seed, &mut |drawn| {
        average(&mut drawn.iter().map(|&i| found[i]))
    });
    let interaction = average(&mut found.iter().copied());
    Ok(Some(Additivity { pairs: pairs.len(), interaction, interval, largest: pairs[at], most }))
}

/// Random directions as long as the median edit, each counted as if it had been meant for every concept.
fn random(
    bench: &mut Bench<'_>,
    chosen: &Chosen,
    base: &[f32],
    attributes: &[usize],
    request: &Request,
    tell: &mut dyn FnMut() -> Result<()>,
) -> Result<Option<Summary>> {
    let (c, d, mut rng) = (attributes.len(), bench.target.d_model, rng(request.seed));
    let mut steered = Vec::with_capacity(request.random);
    for _ in 0..request.random {
        let mut vector: Vec<f32> = (0..d).map(|_| normal(&mut rng)).collect();
        let scale = chosen.length as f32 / norm(&vector);
        vector.iter_mut().for_each(|x| *x *= scale);
        steered.push(bench.logits(Some(push(vector, bench.layer, &bench.target.clone())?))?);
        tell()?;
    }
    if steered.is_empty() {
        return Ok(None);
    }
    let all: Vec<usize> = (0..base.len() / c).collect();
    let effects = Logits { n_concepts: c, base, steered: &steered }.effects(&all);
    let repeated: Vec<f64> = effects.chunks_exact(c).flat_map(|row| row.repeat(c)).collect();
    let meant: Vec<usize> = (0..steered.len()).flat_map(|_| 0..c).collect();
    Ok(Some(summarize(&repeated, attributes, &meant)))
}

/// A draw of the normal distribution (Box and Muller).
fn normal(rng: &mut impl Rng) -> f32 {
    let (a, b): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random_range(0.0..std::f64::consts::TAU));
    ((-2.0 * a.ln()).sqrt() * b.cos()) as f32
}

fn mean_overlap(spaces: &[Vec<f32>], attributes: &[usize], d: usize) -> f64 {
    let pairs = (0..spaces.len()).flat_map(|i| (i + 1..spaces.len()).map(move |j| (i, j)));
    let found: Vec<f64> = pairs
        .filter(|(i, j)| attributes[*i] != attributes[*j])
        .map(|(i, j)| overlap(&spaces[i], &spaces[j], d))
        .collect();
    found.iter().sum::<f64>() / found.len().max(1) as f64
}

/// The mean distance of the test rows from the mean row.
fn spread(data: &Data) -> f64 {
    let middle = data.middle();
    let distance =
        |row: &[f32]| row.iter().zip(&middle).map(|(x, m)| (f64::from(*x) - f64::from(*m)).powi(2)).sum::<f64>().sqrt();
    let n = (data.test.rows.len() / data.d_model) as f64;
    data.test.rows.chunks_exact(data.d_model).map(distance).sum::<f64>() / n
}
