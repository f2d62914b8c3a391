//! How well a featurizer's features say what concepts are.

use super::correlation::{ASSOCIATED, Best, Mean, Moments, OneToMany, best, interval};
use super::data::{Data, Part, numbers};
use super::dci::Dci;
use super::featurizer::Featurizer;
use super::fitting::partners;
use super::probing::{KS, Probed, Table, probe};
use super::report::Reading;
use super::request::Request;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Rows coded at once.
const BLOCK: usize = 256;
/// Codes that a probe is fitted on, at most: they are held three times.
const MOST_CODES: usize = 1 << 28;

/// Sums of the codes of a part.
pub fn moments(featurizer: &Featurizer, part: &Part, data: &Data, threads: usize) -> Result<Moments> {
    let (c, truth) = (data.n_concepts(), numbers(&part.labels));
    let mut moments = Moments::new(featurizer.n_features(), c);
    for (rows, labels) in part.rows.chunks(BLOCK * data.d_model).zip(truth.chunks(BLOCK * c)) {
        let codes = featurizer.encode(rows, threads);
        if codes.iter().any(|z| !z.is_finite()) {
            return Err(Error::numeric(format!("{}: expected finite codes", featurizer.name)));
        }
        moments.add(&codes, labels);
    }
    Ok(moments)
}

/// Measures on the test rows; what is fitted or chosen is so on the training rows, whose sums are `trained`.
///
/// # Errors
/// [`Kind::Numeric`](crate::Kind::Numeric) for codes that are not finite; as [`probe`];
/// [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn read(
    featurizer: &Featurizer,
    data: &Data,
    trained: &Moments,
    request: &Request,
    progress: &mut Progress<'_>,
) -> Result<Reading> {
    let (c, threads) = (data.n_concepts(), request.threads);
    let tested = moments(featurizer, &data.test, data, threads)?;
    let found = tested.correlations();
    let at_train = trained.correlations();
    let mean = |values: &[f64]| Mean::of(values, &data.attributes);
    let values = |all: &[Best]| all.iter().map(|b| b.correlation).collect::<Vec<f64>>();
    let signed = best(&found, c, false);
    let chosen = best(&at_train, c, true);
    let held_out: Vec<f64> = (0..c).map(|k| found[chosen[k].feature * c + k].abs()).collect();

    let wanted = screened(&at_train, c, request.columns);
    let widest = wanted.iter().map(Vec::len).max().unwrap_or(0);
    if (data.train.labels.len() / c).saturating_mul(widest) > MOST_CODES {
        let n = data.train.labels.len() / c;
        return Err(Error::argument(format!("columns: {widest} codes of {n} rows are too many for a probe"))
            .hinted("let fewer features enter the probes, or give fewer sentences"));
    }
    let shown: Vec<usize> = signed.iter().map(|b| b.feature).collect();
    let mut probed = Vec::with_capacity(c);
    for (k, columns) in wanted.iter().enumerate() {
        probed.push(of_concept(featurizer, data, columns, k, threads, progress)?);
    }
    let columns = gather(featurizer, &data.test, data.d_model, &shown, threads);
    let columns: Vec<Vec<f32>> = (0..c).map(|k| columns.iter().skip(k).step_by(c).copied().collect()).collect();
    let labels: Vec<Vec<bool>> = (0..c).map(|k| data.test.column(k, c)).collect();
    let mut relevance = vec![0.0; featurizer.n_features() * c];
    for (k, (columns, one)) in wanted.iter().zip(&probed).enumerate() {
        columns.iter().zip(&one.relevance).for_each(|(&j, r)| relevance[j * c + k] = *r);
    }
    let accuracies: Vec<f64> = probed.iter().map(|one| one.accuracy).collect();
    let at = |i: usize| probed.iter().map(|one| one.pearson[i]).sum::<f64>() / c as f64;
    Ok(Reading {
        l0: tested.l0(),
        mcc: mean(&values(&signed)),
        interval: interval(&columns, &labels, request.seed),
        by_size: mean(&values(&best(&found, c, true))),
        held_out: mean(&held_out),
        pairs: of_pairs(featurizer, data, request).map(|values| mean(&values)),
        best: signed,
        one_to_many: OneToMany::of(&found, c, ASSOCIATED),
        ks: KS.to_vec(),
        sparse: (0..KS.len()).map(at).collect(),
        sparse_by_concept: probed.into_iter().map(|one| one.pearson).collect(),
        dci: Dci::of(&relevance, c, &accuracies),
    })
}

/// For each concept the `n` features that correlate most with it, in order of their numbers; 0 takes all. Features that
/// do not correlate at all are left out, but one.
fn screened(correlations: &[f64], n_concepts: usize, n: usize) -> Vec<Vec<usize>> {
    let n_features = correlations.len() / n_concepts;
    let size = |j: usize, c: usize| correlations[j * n_concepts + c].abs();
    let one = |c: usize| {
        let mut order: Vec<usize> = (0..n_features).filter(|&j| size(j, c) > 0.0).collect();
        order.sort_by(|&a, &b| size(b, c).total_cmp(&size(a, c)).then(a.cmp(&b)));
        order.truncate(if n == 0 { n_features } else { n });
        order.sort_unstable();
        if order.is_empty() { vec![0] } else { order }
    };
    (0..n_concepts).map(one).collect()
}

/// Codes of some features of a part, `[n, features]`.
fn gather(featurizer: &Featurizer, part: &Part, d: usize, features: &[usize], threads: usize) -> Vec<f32> {
    let n = featurizer.n_features();
    let mut all = Vec::with_capacity(part.rows.len() / d * features.len());
    for rows in part.rows.chunks(BLOCK * d) {
        for codes in featurizer.encode(rows, threads).chunks_exact(n) {
            all.extend(features.iter().map(|&j| codes[j]));
        }
    }
    all
}

fn of_concept(
    featurizer: &Featurizer,
    data: &Data,
    columns: &[usize],
    k: usize,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Probed> {
    let (d, c) = (data.d_model, data.n_concepts());
    let codes = [&data.train, &data.test].map(|part| gather(featurizer, part, d, columns, threads));
    let labels = [&data.train, &data.test].map(|part| part.column(k, c));
    let [train, test] = [0, 1].map(|i| Table { codes: &codes[i], labels: &labels[i] });
    probe(train, test, columns.len(), &KS, threads, progress)
}

/// Of a coder of differences: the best correlation by size, for each concept, of codes of differences of test rows with
/// the differences of their labels.
fn of_pairs(featurizer: &Featurizer, data: &Data, request: &Request) -> Option<Vec<f64>> {
    let (d, c) = (data.d_model, data.n_concepts());
    let other = partners(&data.test.rows, d, request.seed);
    let truth = numbers(&data.test.labels);
    let other_truth = partners(&truth, c, request.seed);
    let less = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f32>>();
    let (rows, labels) = (less(&other, &data.test.rows), less(&other_truth, &truth));
    let mut moments = Moments::new(featurizer.n_features(), c);
    for (rows, labels) in rows.chunks(BLOCK * d).zip(labels.chunks(BLOCK * c)) {
        moments.add(&featurizer.encode_differences(rows, request.threads)?, labels);
    }
    Some(best(&moments.correlations(), c, true).iter().map(|b| b.correlation).collect())
}
