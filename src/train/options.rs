//! What a run is asked to do.

use serde::{Deserialize, Serialize};

use super::schedule::Decay;
use super::sparsity::Sparsity;
use super::variant::{Variant, matryoshka};
use crate::error::{Error, Result};

/// The settings of a training run. All of them but `threads` and `checkpoint_every` shape the result.
///
/// Lengths (`lr`, `bandwidth`, `threshold`) and coefficients are for rows scaled to mean squared norm `d_model` around
/// their middle. As JSON, a field that is left out has its default ([`Options::of`] the variant, which is read first).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The rule that keeps codes.
    pub variant: Variant,
    /// Features of the dictionary.
    pub n_features: usize,
    /// Codes per row: exactly with [`Variant::TopK`], else on average. Variants with a penalty aim at it if
    /// `sparsity` says so.
    pub k: usize,
    /// How the sparsity penalty is weighed, in variants that have one.
    pub sparsity: Sparsity,
    /// Steps in which that weight rises from zero in a straight line; never more than a fifth of the run.
    pub sparsity_warm_up: u64,
    /// Variants with a penalty: codes a row at the start, never more than half of the features. Each feature's bias
    /// (JumpReLU: threshold) is set so that it fires in `start_l0 / n_features` of the rows. 0: biases of 0, as in the
    /// papers, with which half of all features fire: that takes longer, and in short runs it ends worse.
    pub start_l0: usize,
    /// JumpReLU: the width ε of the rectangle that stands for the derivative of the step (arXiv 2407.14435, eq. 11).
    pub bandwidth: f32,
    /// JumpReLU: the thresholds at the start, if `start_l0` is 0.
    pub threshold: f32,
    /// JumpReLU: whether thresholds are trained as logarithms, as the paper does; else as they are, as SAELens does.
    pub log_threshold: bool,
    /// Matryoshka: how many of the first features rebuild a row on their own, ascending; the whole dictionary is added.
    /// Empty: 1/32, 3/32, 7/32, 15/32 of the features.
    pub prefixes: Vec<usize>,
    /// P-annealing: the exponent at the end.
    pub p_end: f32,
    /// P-annealing: the shares of the run at which the exponent begins to fall from 1, and has fallen.
    pub anneal: (f32, f32),
    /// P-annealing: in how many steps it falls; the coefficient is adapted with each.
    pub anneal_updates: u32,
    /// Whether decoder rows are kept at norm 1, with the gradient along them removed. If not, a ReLU dictionary's penalty
    /// is weighed by their norms.
    pub unit_decoder: bool,
    /// Whether `b_dec` is subtracted from a row before the encoder.
    pub subtract_bias: bool,
    /// Rows in a step; a shorter run of rows makes the batch smaller.
    pub batch: usize,
    /// Times that every row is seen.
    pub epochs: u32,
    /// The learning rate between warm-up and decay.
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
    /// The norm that all gradients together are cut to; 0: never.
    pub clip: f32,
    /// Dead features a row may use to explain what the live ones missed (AuxK, arXiv 2406.04093 §A.2); 0: no revival.
    pub aux_k: usize,
    /// The weight of that second error.
    pub aux_weight: f32,
    /// Rows without firing after which a feature counts as dead.
    pub dead_after: u64,
    /// Steps between two times that dead features start anew at rows which are rebuilt badly; 0: never.
    pub resample_every: u64,
    /// The share of the documents that is kept out of training, to measure L0 and FVU on; 0: none.
    pub held_out: f32,
    /// Steps between two such measurements.
    pub evaluate_every: u64,
    /// Chooses the start, the order of the rows and the documents kept out.
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
            sparsity: Sparsity::Target,
            sparsity_warm_up: 200,
            start_l0: 128,
            bandwidth: 0.05,
            threshold: 0.05,
            log_threshold: false,
            prefixes: Vec::new(),
            p_end: 0.2,
            anneal: (0.25, 0.9),
            anneal_updates: 10,
            unit_decoder: true,
            subtract_bias: true,
            batch: 1024,
            epochs: 4,
            lr: 3e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            warm_up: 100,
            decay: Decay::Linear,
            decay_share: 0.3,
            clip: 0.0,
            aux_k: 64,
            aux_weight: 1.0 / 32.0,
            dead_after: 250_000,
            resample_every: 0,
            held_out: 0.0,
            evaluate_every: 250,
            seed: 0,
            statistics_rows: 1 << 20,
            threads: 0,
            checkpoint_every: 500,
        }
    }
}

impl Options {
    /// The default settings of a variant.
    pub fn of(variant: Variant) -> Self {
        let plain = Self { variant, ..Self::default() };
        match variant {
            // Adam as in the papers: no mean of the gradient.
            Variant::JumpRelu | Variant::Gated => Self { beta1: 0.0, ..plain },
            _ => plain,
        }
    }

    /// Reads settings from JSON, such as the recipe of a dictionary: what is left out has the variant's default.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for malformed JSON, unknown names and values of another type.
    pub fn from_json(json: &str) -> Result<Self> {
        let wrong = |e: &dyn std::fmt::Display| {
            let hint =
                "a recipe is one JSON object; `tiller info` on a dictionary that tiller trained shows its recipe";
            Error::argument(format!("train options: {e}")).hinted(hint)
        };
        let given: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).map_err(|e| wrong(&e))?;
        let variant = match given.get("variant") {
            Some(name) => Variant::deserialize(name).map_err(|e| wrong(&e))?,
            None => Variant::default(),
        };
        let mut all = serde_json::to_value(Self::of(variant)).map_err(|e| wrong(&e))?;
        if let Some(all) = all.as_object_mut() {
            all.extend(given);
        }
        let read = Self::deserialize(all).map_err(|e| wrong(&e))?;
        Ok(Self { checkpoint_every: Self::default().checkpoint_every, ..read })
    }

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
        if self.variant == Variant::Gated && !self.unit_decoder {
            return Err(Error::argument(
                "train option unit_decoder must be true for gated: nothing else keeps its penalty from vanishing",
            ));
        }
        if self.variant == Variant::PAnneal && !self.unit_decoder {
            return Err(Error::argument("train option unit_decoder must be true for panneal, as in its paper"));
        }
        if matches!(self.sparsity, Sparsity::Quadratic(_)) && self.variant != Variant::JumpRelu {
            return Err(Error::argument("train option sparsity may be quadratic for jumprelu only"));
        }
        let ascending = self.prefixes.windows(2).all(|two| two[0] < two[1]);
        let inside = self.prefixes.iter().all(|&n| (1..=self.n_features).contains(&n));
        if !(ascending && inside) {
            return Err(Error::argument(format!(
                "train option prefixes must ascend from at least 1 to at most n_features ({}), found {:?}",
                self.n_features, self.prefixes
            )));
        }
        let (from, to) = self.anneal;
        if !(0.0 <= from && from < to && to <= 1.0) {
            return Err(Error::argument(format!(
                "train option anneal must be two ascending shares of the run, found {from} and {to}"
            )));
        }
        let ranges = [
            ("sparsity", self.sparsity.given(), 0.0, f32::MAX),
            ("bandwidth", self.bandwidth, 1e-6, f32::MAX),
            ("threshold", self.threshold, if self.log_threshold { 1e-9 } else { 0.0 }, f32::MAX),
            ("p_end", self.p_end, 0.01, 1.0),
            ("clip", self.clip, 0.0, f32::MAX),
            ("held_out", self.held_out, 0.0, 0.5),
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

    /// The stretches of features that rebuild rows on their own, by their ends: one, but for Matryoshka.
    pub(super) fn levels(&self) -> Vec<u32> {
        match self.variant {
            Variant::Matryoshka => matryoshka::levels(self),
            _ => vec![self.n_features as u32],
        }
    }

    /// The settings that shape the result, as one line of JSON: what a dictionary's recipe and a checkpoint carry.
    pub fn recipe(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
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
            (Options { prefixes: vec![3, 3], ..Options::default() }, "prefixes must ascend"),
            (Options { prefixes: vec![5000], ..Options::default() }, "at most n_features (4096)"),
            (Options { anneal: (0.5, 0.5), ..Options::default() }, "anneal must be two ascending"),
            (Options { sparsity: Sparsity::Fixed(-1.0), ..Options::default() }, "sparsity must lie"),
            (Options { sparsity: Sparsity::Quadratic(1.0), ..Options::default() }, "quadratic for jumprelu only"),
            (Options { unit_decoder: false, ..Options::of(Variant::Gated) }, "unit_decoder must be true"),
            (Options { held_out: 0.9, ..Options::default() }, "held_out must lie"),
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

    #[test]
    fn a_recipe_is_read_back_and_what_it_leaves_out_is_the_variants_default() {
        let given = Options {
            sparsity: Sparsity::Fixed(0.25),
            prefixes: vec![8, 64],
            anneal: (0.1, 0.5),
            ..Options::of(Variant::JumpRelu)
        };
        let read = Options::from_json(&given.recipe()).unwrap();
        assert_eq!(read, given);
        let short = Options::from_json(r#"{"variant":"gated","k":7}"#).unwrap();
        assert_eq!(short, Options { k: 7, ..Options::of(Variant::Gated) });
        assert_eq!(short.beta1, 0.0);
        for (json, message) in [
            (r#"{"variant":"top"}"#, "unknown variant `top`"),
            (r#"{"n_feature":7}"#, "unknown field `n_feature`"),
            (r#"{"k":"7"}"#, "invalid type"),
            ("[]", "invalid type"),
            ("{", "EOF"),
        ] {
            let error = Options::from_json(json).unwrap_err();
            assert!(error.message().contains(message), "{json}: {error}");
        }
    }
}
