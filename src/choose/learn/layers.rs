//! Which layers, and how stiff a gate: ranked without writing a word.
//!
//! Held-out answers that the asked model wrote are read once more by the model that is steered and not asked. How much of
//! what asking gave it gets back:
//!
//! ```text
//! R = (CE_unsteered − CE_steered) / (CE_unsteered − CE_asked)
//! ```

use std::sync::Arc;

use serde::Serialize;

use super::pack;
use super::trials::{Frame, nll};
use super::work::Work;
use crate::dictionary::{Dictionary, Form, Info};
use crate::engine::Engine;
use crate::error::Result;
use crate::train::learn::{Contrast, Feature, fit};

/// λ that are tried: a gate that follows each row closely, and one that is almost constant.
pub(super) const LAMBDAS: [f64; 2] = [0.03, 0.3];
/// Strengths at which each is tried.
const STRENGTHS: [f32; 2] = [1.0, 1.5];
/// Answers that are read again.
const ANSWERS: usize = 8;

/// Sets of layers, by name. The first layer has no place in a control vector, and of the last one only rows of answers exist.
pub(super) fn sets(n_layer: usize) -> Vec<(&'static str, Vec<usize>)> {
    let all: Vec<usize> = (1..n_layer.saturating_sub(1).max(2)).collect();
    let every = |step: usize| all.iter().copied().filter(|layer| layer % step == step - 1).collect::<Vec<_>>();
    let upper = all.iter().copied().filter(|layer| 2 * layer >= n_layer).collect();
    let mut sets =
        vec![("every layer", all.clone()), ("every 2nd", every(2)), ("every 4th", every(4)), ("upper half", upper)];
    sets.retain(|(_, set)| !set.is_empty());
    sets
}

/// A way to use what was learned, and how much it gets back of what asking gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Ranked {
    /// The set of layers.
    pub(super) layers: &'static str,
    /// `constant` or `gated`.
    pub(super) form: &'static str,
    /// Of the gate; it changes nothing in the constant form.
    pub(super) lambda: f64,
    pub(super) strength: f32,
    /// R.
    pub(super) recovered: f64,
}

/// Features to use in a form.
pub(super) struct Candidate {
    pub(super) form: Form,
    pub(super) layers: &'static str,
    pub(super) lambda: f64,
    pub(super) features: Vec<Feature>,
    pub(super) dictionary: Arc<Dictionary>,
}

/// Fits all sets, and ranks them: the best of each of `forms`, and all that was measured.
pub(super) fn rank(
    engine: &mut Engine,
    rows: &Contrast,
    frame: &Frame,
    (forms, threads): (&[Form], usize),
    work: &mut Work<'_>,
) -> Result<(Vec<Candidate>, Vec<Ranked>)> {
    let sets = sets(engine.n_layer());
    let layers: Vec<Vec<usize>> = sets.iter().map(|(_, set)| set.clone()).collect();
    let fitted = fit(rows, &layers, &LAMBDAS, threads, &mut |_| work.go_on("fitting"))?;
    let mut ranked: Vec<Ranked> = Vec::new();
    let mut best: Vec<(f64, Candidate)> = Vec::new();
    for (&(name, _), by_lambda) in sets.iter().zip(fitted) {
        for (features, &lambda) in by_lambda.into_iter().zip(&LAMBDAS) {
            let dictionary = Arc::new(pack::dictionary(&features, Info::default())?);
            for &form in forms {
                // λ is the gate's matter.
                if form == Form::Constant && lambda != LAMBDAS[0] {
                    continue;
                }
                for strength in STRENGTHS {
                    if work.is_past(0.6) && !best.is_empty() {
                        continue;
                    }
                    let recovered = recovered(engine, &dictionary, form, strength, frame, work)?;
                    ranked.push(Ranked { layers: name, form: form.name(), lambda, strength, recovered });
                    let before = best.iter().position(|(_, candidate)| candidate.form == form);
                    if before.is_some_and(|i| best[i].0 >= recovered) {
                        continue;
                    }
                    let candidate = Candidate {
                        form,
                        layers: name,
                        lambda,
                        features: features.clone(),
                        dictionary: dictionary.clone(),
                    };
                    match before {
                        Some(i) => best[i] = (recovered, candidate),
                        None => best.push((recovered, candidate)),
                    }
                }
            }
        }
    }
    Ok((best.into_iter().map(|(_, candidate)| candidate).collect(), ranked))
}

/// R.
fn recovered(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    form: Form,
    strength: f32,
    frame: &Frame,
    work: &mut Work<'_>,
) -> Result<f64> {
    let (mut plain, mut asked, mut steered) = (0.0, 0.0, 0.0);
    engine.set_plan(Some(pack::compile(engine, dictionary, form, strength)?))?;
    let mut read = || -> Result<()> {
        for (case, answer) in frame.cases.iter().zip(&frame.asked).take(ANSWERS) {
            steered += nll(engine, &case.plain, &answer.tokens)?;
            plain += answer.plain;
            asked += answer.asked;
            work.step(1, "trying layers")?;
        }
        engine.finish().ok().map(drop)
    };
    let worked = read();
    engine.set_plan(None)?;
    worked?;
    Ok((plain - steered) / (plain - asked).max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_leave_the_first_and_the_last_layer_out() {
        let of = |n| sets(n).into_iter().map(|(_, set)| set).collect::<Vec<_>>();
        assert_eq!(of(8), [vec![1, 2, 3, 4, 5, 6], vec![1, 3, 5], vec![3], vec![4, 5, 6]]);
        assert!(of(2).iter().all(|set| set == &[1]));
        assert_eq!(sets(30)[2].1, [3, 7, 11, 15, 19, 23, 27]);
    }
}
