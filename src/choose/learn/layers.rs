//! Features for sets of layers, with gates of several λ.

use std::sync::Arc;

use super::pack;
use super::work::Work;
use crate::dictionary::{Dictionary, Form, Info};
use crate::error::Result;
use crate::train::learn::{Contrast, Feature, Gate, fit};

/// λ of gates: the usual one, one that follows each row more closely, and a stiffer one.
const LAMBDAS: [f64; 3] = [0.3, 0.1, 1.0];

/// The layers that can be edited: the first has no place in a control vector, and of the last only rows of answers exist.
pub(super) fn all(n_layer: usize) -> Vec<usize> {
    (1..n_layer.saturating_sub(1).max(2)).collect()
}

/// Sets of them, by name; the first is the best of most instructions.
pub(super) fn sets(n_layer: usize) -> Vec<(&'static str, Vec<usize>)> {
    let all = all(n_layer);
    let every = |step: usize| all.iter().copied().filter(|layer| layer % step == step - 1).collect::<Vec<_>>();
    let upper = all.iter().copied().filter(|layer| 2 * layer >= n_layer).collect();
    let mut sets =
        vec![("upper half", upper), ("every 2nd", every(2)), ("every 4th", every(4)), ("every layer", all.clone())];
    sets.retain(|(_, set)| !set.is_empty());
    sets
}

/// Features to use in a form.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) form: Form,
    pub(super) layers: &'static str,
    pub(super) lambda: f64,
    pub(super) features: Vec<Feature>,
    pub(super) dictionary: Arc<Dictionary>,
}

impl Candidate {
    fn new(form: Form, layers: &'static str, lambda: f64, features: &[Feature]) -> Result<Self> {
        let dictionary = Arc::new(pack::dictionary(features, Info::default())?);
        Ok(Self { form, layers, lambda, features: features.to_vec(), dictionary })
    }
}

/// What was fitted for every set of layers and every λ.
pub(super) struct Fitted {
    sets: Vec<(&'static str, Vec<Vec<Feature>>)>,
}

impl Fitted {
    pub(super) fn new(n_layer: usize, rows: &Contrast, threads: usize, work: &mut Work<'_>) -> Result<Self> {
        let (names, layers): (Vec<_>, Vec<_>) = sets(n_layer).into_iter().unzip();
        let fitted = fit(rows, &layers, &LAMBDAS, Gate::Need, threads, &mut |_| work.go_on("fitting"))?;
        Ok(Self { sets: names.into_iter().zip(fitted).collect() })
    }

    /// Every set in a form, with gates of the usual λ.
    pub(super) fn candidates(&self, form: Form) -> Result<Vec<Candidate>> {
        self.sets.iter().map(|(name, fitted)| Candidate::new(form, name, LAMBDAS[0], &fitted[0])).collect()
    }

    /// The same set of layers with gates of every other λ.
    pub(super) fn other_gates(&self, candidate: &Candidate) -> Result<Vec<Candidate>> {
        let fitted = self.sets.iter().find(|(name, _)| *name == candidate.layers);
        let gates = LAMBDAS.into_iter().zip(fitted.map_or(&[][..], |(_, fitted)| fitted));
        let others = gates.filter(|(lambda, _)| *lambda != candidate.lambda);
        others.map(|(lambda, gates)| Candidate::new(candidate.form, candidate.layers, lambda, gates)).collect()
    }

    /// The same set of layers in the constant form.
    pub(super) fn constant(&self, candidate: &Candidate) -> Result<Candidate> {
        Candidate::new(Form::Constant, candidate.layers, candidate.lambda, &candidate.features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_leave_the_first_and_the_last_layer_out() {
        let of = |n| sets(n).into_iter().map(|(_, set)| set).collect::<Vec<_>>();
        assert_eq!(of(8), [vec![4, 5, 6], vec![1, 3, 5], vec![3], vec![1, 2, 3, 4, 5, 6]]);
        assert!(of(2).iter().all(|set| set == &[1]));
        assert_eq!(sets(30)[2].1, [3, 7, 11, 15, 19, 23, 27]);
    }
}
