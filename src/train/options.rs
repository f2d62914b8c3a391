//! What a run is asked to do, and what it tells on the way.

use serde::Serialize;

use super::schedule::Decay;
use crate::error::{Error, Result};

/// Which rule keeps codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The `k` largest positive scores of every row (arXiv 2406.04093).
    TopK,
    /// The `k · batch` largest positive scores of the whole batch (arXiv 2412.06410): a row that needs more gets more.
    /// The trained dictionary uses a threshold instead, so a row's codes don't depend on its neighbours.
    #[default]
    BatchTopK,
}

/// The settings of a training run. All of them but `threads` and `checkpoint_every` shape the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// The rule that keeps codes.
    pub variant: Variant,
    /// Features of the dictionary.
    pub n_features: usize,
    /// Codes per row; on average with [`Variant::BatchTopK`].
    pub k: usize,
    /// Rows in a step; a shorter run of rows makes the batch smaller.
    pub batch: usize,
    /// Times that every row is seen.
    pub epochs: u32,
    /// The learning rate between warm-up and decay, for rows scaled to mean squared norm `d_model`.
    pub lr: f32,
    /// Adam's decay of the gradient's mean.
    pub beta1: f32,
    /// Adam's decay of the squared gradient's mean.
    pub beta2: f32,
    /// Adam's ε.
    pub eps: f32,
    /// Steps of linear warm-up; never more than a fifth of the run.
    pub warm_up: u64,
    /// The shape of the decay to zero.
    pub decay: Decay,
    /// The share of the run, at its end, in which the learning rate decays.
    pub decay_share: f32,
    /// Dead features a row may use to explain what the live ones missed (AuxK, arXiv 2406.04093 §A.2); 0: no revival.
    pub aux_k: usize,
    /// The weight of that second error.
    pub aux_weight: f32,
    /// Rows without firing after which a feature counts as dead.
    pub dead_after: u64,
    /// Chooses the start and the order of the rows.
    pub seed: u64,
    /// Rows that the per-feature statistics at the end are counted over, at most.
    pub statistics_rows: usize,
    /// Threads; 0: all that the machine has. The result doesn't depend on it.
    #[serde(skip)]
    pub threads: usize,
    /// Steps between two checkpoints.
    #[serde(skip)]
    pub checkpoint_every: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            variant: Variant::default(),
            n_features: 4096,
            k: 32,
            batch: 4096,
            epochs: 4,
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            warm_up: 100,
            decay: Decay::Linear,
            decay_share: 0.3,
            aux_k: 64,
            aux_weight: 1.0 / 32.0,
            dead_after: 250_000,
            seed: 0,
            statistics_rows: 1 << 20,
            threads: 0,
            checkpoint_every: 500,
        }
    }
}

/// The state of a run after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Rows seen.
    pub rows: u64,
    /// The learning rate of the step.
    pub lr: f32,
    /// Mean squared error of a row, summed over its entries, in scaled units (mean squared norm `d_model`).
    pub loss: f64,
    /// The part of the loss that dead features are trained with; 0 when none is dead.
    pub aux_loss: f64,
    /// Mean number of active features.
    pub l0: f64,
    /// Fraction of variance unexplained: squared error over squared distance from the mean row.
    pub fvu: f64,
    /// Features that did not fire for `dead_after` rows.
    pub dead: usize,
}

impl Options {
    /// Checks every field; the message names the field, what it must be and what it is.
    pub(super) fn check(&self) -> Result<()> {
        let positive = [("n_features", self.n_features), ("k", self.k), ("batch", self.batch)];
        for (name, value) in positive {
            if value == 0 {
                return Err(Error::argument(format!("train option {name} must be at least 1, found 0")));
            }
        }
        if self.k > self.n_features {
            return Err(Error::argument(format!(
                "train option k must be at most n_features ({}), found {}",
                self.n_features, self.k
            )));
        }
        let limit = u32::MAX as usize / 4;
        if self.n_features > limit || self.batch > limit {
            return Err(Error::argument(format!("train options n_features and batch must be at most {limit}")));
        }
        if self.epochs == 0 {
            return Err(Error::argument("train option epochs must be at least 1, found 0"));
        }
        let ranges = [
            ("lr", self.lr, f32::MIN_POSITIVE, f32::MAX),
            ("beta1", self.beta1, 0.0, 0.999_999),
            ("beta2", self.beta2, 0.0, 0.999_999),
            ("eps", self.eps, 0.0, 1.0),
            ("decay_share", self.decay_share, 0.0, 1.0),
            ("aux_weight", self.aux_weight, 0.0, f32::MAX),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(Error::argument(format!(
                    "train option {name} must lie between {low} and {high}, found {value}"
                )));
            }
        }
        Ok(())
    }

    /// The threads to use.
    pub(super) fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    /// The settings that shape the result, as one line of JSON: what a dictionary's recipe and a checkpoint carry.
    pub fn recipe(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Metrics {
    /// One line for people.
    pub(super) fn note(&self) -> String {
        format!("loss {:.3}  L0 {:.1}  FVU {:.4}  dead {}", self.loss, self.l0, self.fvu, self.dead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_options_are_named() {
        Options::default().check().unwrap();
        let cases = [
            (Options { k: 0, ..Options::default() }, "k must be at least 1"),
            (Options { k: 5000, ..Options::default() }, "at most n_features (4096), found 5000"),
            (Options { lr: f32::NAN, ..Options::default() }, "lr must lie"),
            (Options { beta2: 1.0, ..Options::default() }, "beta2 must lie"),
            (Options { epochs: 0, ..Options::default() }, "epochs"),
            (Options { batch: usize::MAX, ..Options::default() }, "batch"),
        ];
        for (options, message) in cases {
            let error = options.check().unwrap_err();
            assert!(error.message().contains(message), "{error}");
        }
    }

    #[test]
    fn the_recipe_leaves_out_what_cannot_matter() {
        let a = Options { threads: 3, checkpoint_every: 7, ..Options::default() };
        assert_eq!(a.recipe(), Options::default().recipe());
        assert!(a.recipe().contains(r#""variant":"batchtopk""#), "{}", a.recipe());
    }
}
