//! Features for sets of layers, along one direction or several.

use std::sync::Arc;

use super::pack;
use super::work::Work;
use crate::dictionary::{Dictionary, Form, Info};
use crate::error::Result;
use crate::train::learn::{Contrast, Feature, Fit, Gate, fit};

/// Directions a layer.
pub(super) const RANK: usize = 16;
/// λ of gates. 0.1 and 1 are as good at the strength that suits them.
pub(super) const LAMBDA: f64 = 0.3;

/// The layers that can be edited: the first has no place in a control vector, and of the last only rows of answers exist.
pub(super) fn all(n_layer: usize) -> Vec<usize> {
    (1..n_layer.saturating_sub(1).max(2)).collect()
}

/// Sets of them, by name; the first is the best of most instructions.
pub(super) fn sets(n_layer: usize) -> Vec<(&'static str, Vec<usize>)> {
    let all = all(n_layer);
    let second = all.iter().copied().filter(|layer| layer % 2 == 1).collect();
    let upper = all.iter().copied().filter(|layer| 2 * layer >= n_layer).collect();
    let mut sets = vec![("every layer", all), ("every 2nd", second), ("upper half", upper)];
    sets.retain(|(_, set)| !set.is_empty());
    sets
}

/// Features to use in a form.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) form: Form,
    pub(super) layers: &'static str,
    pub(super) rank: usize,
    pub(super) features: Vec<Feature>,
    pub(super) dictionary: Arc<Dictionary>,
}

impl Candidate {
    /// Of `features` those along the first `rank` directions.
    fn new(form: Form, layers: &'static str, rank: usize, features: &[Feature]) -> Result<Self> {
        let features: Vec<Feature> = features.iter().filter(|f| f.direction < rank).cloned().collect();
        let dictionary = Arc::new(pack::dictionary(&features, Info::default())?);
        Ok(Self { form, layers, rank, features, dictionary })
    }

    /// The layers that it edits.
    pub(super) fn layers(&self) -> Vec<usize> {
        let mut layers: Vec<usize> = self.features.iter().map(|f| f.layer).collect();
        layers.dedup();
        layers
    }
}

/// What was fitted for every set of layers.
pub(super) struct Fitted {
    sets: Vec<(&'static str, Vec<Feature>)>,
}

impl Fitted {
    pub(super) fn new(n_layer: usize, rows: &Contrast, threads: usize, work: &mut Work<'_>) -> Result<Self> {
        let (names, layers): (Vec<_>, Vec<_>) = sets(n_layer).into_iter().unzip();
        let how = Fit { rank: RANK, lambda: LAMBDA, gate: Gate::Need };
        let fitted = fit(rows, &layers, how, threads, &mut |_| work.go_on("fitting"))?;
        Ok(Self { sets: names.into_iter().zip(fitted).collect() })
    }

    /// What may be taken in the gated form: every set along all directions, and one along the mean alone.
    pub(super) fn gated(&self) -> Result<Vec<Candidate>> {
        let all = self.sets.iter().map(|(name, features)| Candidate::new(Form::Gated, name, RANK, features));
        let few =
            self.sets.iter().skip(1).take(1).map(|(name, features)| Candidate::new(Form::Gated, name, 1, features));
        all.chain(few).collect()
    }
}

impl Candidate {
    /// The same set of layers in the constant form.
    pub(super) fn constant(&self) -> Result<Self> {
        Self::new(Form::Constant, self.layers, 1, &self.features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_leave_the_first_and_the_last_layer_out() {
        let of = |n| sets(n).into_iter().map(|(_, set)| set).collect::<Vec<_>>();
        assert_eq!(of(8), [vec![1, 2, 3, 4, 5, 6], vec![1, 3, 5], vec![4, 5, 6]]);
        assert!(of(2).iter().all(|set| set == &[1]));
        assert_eq!(sets(30)[1].1.len(), 14);
    }
}
