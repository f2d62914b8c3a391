//! Featurizers that are fitted on the rows of the sentences.

use rand::seq::SliceRandom;

use super::data::Data;
use super::featurizer::Featurizer;
use super::request::{BATCH, Fitted, Request};
use crate::error::Result;
use crate::num::rng;
use crate::progress::Progress;
use crate::train::probe::{self, Probe};
use crate::train::vector::{Method, direction};
use crate::train::{Options, Rows, Variant, dense, fit};

/// Fits one on the training rows.
///
/// # Errors
/// Those of the trainers; [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn fitted(what: Fitted, data: &Data, request: &Request, progress: &mut Progress<'_>) -> Result<Featurizer> {
    let (d, middle, rows) = (data.d_model, data.middle(), &data.train.rows);
    let coder = |options: dense::Options, rows: &Rows<'_>, progress: &mut Progress<'_>| {
        let coder = dense::fit(rows, &options, None, progress)?;
        Ok(Featurizer::of_coder(what.name(), coder, &data.train.rows, &middle, request.threads))
    };
    match what {
        Fitted::TopK => dictionary(what, Variant::TopK, data, request, progress),
        Fitted::BatchTopK => dictionary(what, Variant::BatchTopK, data, request, progress),
        Fitted::Relu => dictionary(what, Variant::Relu, data, request, progress),
        Fitted::Conca => coder(sized(dense::Options::conca(), request), &Rows::from_slice(d, rows)?, progress),
        Fitted::Ssae => {
            let other = partners(rows, d, request.seed);
            let (first, second) = (Rows::from_slice(d, rows)?, Rows::from_slice(d, &other)?);
            coder(sized(dense::Options::ssae(), request), &Rows::differences(&first, &second)?, progress)
        }
        Fitted::Neurons => Ok(Featurizer::neurons(&middle)),
        Fitted::DiffMean => {
            let mut all = Vec::with_capacity(data.n_concepts() * d);
            for c in 0..data.n_concepts() {
                let (yes, no) = apart(rows, d, &data.train.column(c, data.n_concepts()));
                let (yes, no) = (Rows::from_slice(d, &yes)?, Rows::from_slice(d, &no)?);
                all.extend(direction(&yes, &no, Method::Mean, request.threads, progress)?.values);
            }
            Featurizer::linear(what.name(), all, &middle)
        }
        Fitted::Probe => {
            let probes = probes(data, request.threads, progress)?;
            Featurizer::linear(what.name(), probes.into_iter().flat_map(|p| p.weights).collect(), &middle)
        }
    }
}

/// A logistic regression for each concept.
///
/// # Errors
/// As [`probe::fit`].
pub fn probes(data: &Data, threads: usize, progress: &mut Progress<'_>) -> Result<Vec<Probe>> {
    let options = probe::Options { threads, ..probe::Options::default() };
    let n = data.n_concepts();
    (0..n).map(|c| probe::fit(&data.train.rows, data.d_model, &data.train.column(c, n), &options, progress)).collect()
}

fn dictionary(
    what: Fitted,
    variant: Variant,
    data: &Data,
    request: &Request,
    progress: &mut Progress<'_>,
) -> Result<Featurizer> {
    let n = data.train.rows.len() / data.d_model;
    let batch = BATCH.min(n);
    let epochs = request.steps.div_ceil((n / batch) as u64);
    let options = Options {
        n_features: request.n_features,
        k: request.k,
        batch,
        epochs: u32::try_from(epochs).unwrap_or(u32::MAX),
        // A tenth of the run: rows are few, and each is seen many times.
        dead_after: (request.steps * batch as u64 / 10).max(1),
        seed: request.seed,
        threads: request.threads,
        ..Options::of(variant)
    };
    let made = fit(&Rows::from_slice(data.d_model, &data.train.rows)?, &options, None, progress)?;
    Ok(Featurizer::of_dictionary(what.name(), made))
}

/// The settings of a coder, as large and as long as the request says. The learning rate is ten times the papers', whose
/// runs are ten times as long.
fn sized(options: dense::Options, request: &Request) -> dense::Options {
    dense::Options {
        n_latents: request.n_features,
        batch: BATCH,
        steps: request.steps,
        lr: 1e-3,
        seed: request.seed,
        threads: request.threads,
        ..options
    }
}

/// A partner for each row, another one's: what SSAE is trained on are differences of random pairs.
pub fn partners(rows: &[f32], d: usize, seed: u64) -> Vec<f32> {
    let mut order: Vec<usize> = (0..rows.len() / d).collect();
    order.shuffle(&mut rng(seed));
    order.iter().flat_map(|&i| rows[i * d..(i + 1) * d].iter().copied()).collect()
}

/// The rows with a concept, and those without.
fn apart(rows: &[f32], d: usize, labels: &[bool]) -> (Vec<f32>, Vec<f32>) {
    let (mut yes, mut no) = (Vec::new(), Vec::new());
    for (row, label) in rows.chunks_exact(d).zip(labels) {
        if *label { yes.extend_from_slice(row) } else { no.extend_from_slice(row) }
    }
    (yes, no)
}
