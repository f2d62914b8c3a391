//! What a run is asked to do, and what it tells on the way.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::train::schedule::Decay;

/// R: what stands between the encoder and the codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regularizer {
    /// Mean 0 and variance 1 over the latents of a row.
    #[default]
    LayerNorm,
    /// The same within each of so many groups of neighbouring latents.
    GroupNorm(usize),
    /// Mean 0 and variance 1 of each latent over the rows of a batch; a trained coder uses running averages instead.
    BatchNorm,
    /// This share of the codes is set to zero, the others are scaled up; nothing once trained.
    Dropout(f32),
}

impl Regularizer {
    /// As files and the command spell it: `layer_norm`, `group_norm:8`, `batch_norm`, `dropout:0.1`.
    pub fn name(self) -> String {
        match self {
            Self::LayerNorm => "layer_norm".into(),
            Self::GroupNorm(groups) => format!("group_norm:{groups}"),
            Self::BatchNorm => "batch_norm".into(),
            Self::Dropout(share) => format!("dropout:{share}"),
        }
    }

    /// Latents that are normalised together, counted in groups: 0 where each row is not normalised by itself.
    pub(super) fn groups(self) -> usize {
        match self {
            Self::LayerNorm => 1,
            Self::GroupNorm(groups) => groups,
            Self::BatchNorm | Self::Dropout(_) => 0,
        }
    }

    /// Whether it has a gain and a shift that are trained.
    pub(super) fn is_affine(self) -> bool {
        !matches!(self, Self::Dropout(_))
    }
}

impl std::str::FromStr for Regularizer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, argument) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let wrong = || {
            let known = "layer_norm, group_norm:GROUPS, batch_norm or dropout:SHARE";
            Error::argument(format!("regularizer: expected {known}, found \"{text}\""))
        };
        match (name, argument) {
            ("layer_norm", None) => Ok(Self::LayerNorm),
            ("batch_norm", None) => Ok(Self::BatchNorm),
            ("group_norm", Some(n)) => n.parse().map(Self::GroupNorm).map_err(|_| wrong()),
            ("group_norm", None) => Ok(Self::GroupNorm(4)),
            ("dropout", Some(share)) => share.parse().map(Self::Dropout).map_err(|_| wrong()),
            ("dropout", None) => Ok(Self::Dropout(0.1)),
            _ => Err(wrong()),
        }
    }
}

/// g: what ConCA's codes go through before their norm is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sparsity {
    /// `log(1 + e^z)`.
    #[default]
    SoftPlus,
    /// 1.0507·(z for z > 0, else 1.67326·(e^z − 1)).
    Selu,
    /// z for z > 0, else e^z − 1.
    Elu,
}

impl Sparsity {
    /// As the command spells it: `softplus`, `selu`, `elu`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SoftPlus => "softplus",
            Self::Selu => "selu",
            Self::Elu => "elu",
        }
    }

    /// `|g(z)|` and its derivative.
    #[inline]
    pub(super) fn value(self, z: f32) -> (f32, f32) {
        const SCALE: f32 = 1.050_701;
        const SLOPE: f32 = 1.673_263_2;
        match self {
            Self::SoftPlus => {
                let e = (-z.abs()).exp();
                let sigmoid = if z >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) };
                (z.max(0.0) + e.ln_1p(), sigmoid)
            }
            Self::Elu if z > 0.0 => (z, 1.0),
            Self::Elu => (-z.exp_m1(), -z.exp()),
            Self::Selu if z > 0.0 => (SCALE * z, SCALE),
            Self::Selu => (-SCALE * SLOPE * z.exp_m1(), -SCALE * SLOPE * z.exp()),
        }
    }
}

impl std::str::FromStr for Sparsity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::SoftPlus, Self::Selu, Self::Elu];
        all.into_iter()
            .find(|g| g.name() == text)
            .ok_or_else(|| Error::argument(format!("sparsity: expected softplus, selu or elu, found \"{text}\"")))
    }
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// `E‖x̂ − x‖² + α·E Σ|g(z)|`.
    Conca {
        /// α.
        alpha: f32,
        /// g.
        sparsity: Sparsity,
    },
    /// The mean squared error of an entry, subject to `mean|z| ≤ level`.
    Ssae {
        /// The largest mean of |z|, in units of differences with mean squared norm `d_model`.
        level: f32,
        /// What the multiplier grows by in a step in which mean|z| is twice the level.
        dual_rate: f32,
    },
}

/// The settings of a run. All of them but `threads` and `checkpoint_every` shape the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What is minimised.
    pub objective: Objective,
    /// R.
    pub regularizer: Regularizer,
    /// Codes.
    pub n_latents: usize,
    /// Rows in a step; fewer rows than this make the batch smaller.
    pub batch: usize,
    /// Steps.
    pub steps: u64,
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
    /// Whether rows are centred and scaled first.
    pub scale_rows: bool,
    /// Chooses the start, the order of the rows and what drops out.
    pub seed: u64,
    /// Rows that the statistics at the end are counted over, at most.
    pub statistics_rows: usize,
    /// Threads; 0: all that the machine has. The result doesn't depend on it.
    #[serde(skip_serializing)]
    pub threads: usize,
    /// Steps between two checkpoints.
    #[serde(skip_serializing)]
    pub checkpoint_every: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self::conca()
    }
}

impl Options {
    /// ConCA as in the paper, but for its size: 32k latents and 20,000 steps of 10,000 rows there.
    pub fn conca() -> Self {
        Self {
            objective: Objective::Conca { alpha: 1e-4, sparsity: Sparsity::SoftPlus },
            regularizer: Regularizer::LayerNorm,
            n_latents: 4096,
            batch: 2048,
            steps: 2000,
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            warm_up: 200,
            decay: Decay::None,
            decay_share: 0.0,
            scale_rows: true,
            seed: 0,
            statistics_rows: 1 << 16,
            threads: 0,
            checkpoint_every: 500,
        }
    }

    /// SSAE with the level of the paper's baseline.
    pub fn ssae() -> Self {
        Self { objective: Objective::Ssae { level: 0.005, dual_rate: 1e-3 }, lr: 1e-3, ..Self::conca() }
    }

    /// Checks every field; the message names the field, what it must be and what it is.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::argument(format!("train option {text}")));
        let limit = u32::MAX as usize / 4;
        for (name, value) in [("n_latents", self.n_latents), ("batch", self.batch)] {
            if value == 0 || value > limit {
                return wrong(format!("{name} must lie between 1 and {limit}, found {value}"));
            }
        }
        if self.steps == 0 {
            return wrong("steps must be at least 1, found 0".into());
        }
        let positive = f32::MIN_POSITIVE;
        let mut ranges = vec![
            ("lr", self.lr, positive, f32::MAX),
            ("beta1", self.beta1, 0.0, 0.999_999),
            ("beta2", self.beta2, 0.0, 0.999_999),
            ("eps", self.eps, 0.0, 1.0),
            ("decay_share", self.decay_share, 0.0, 1.0),
        ];
        match self.objective {
            Objective::Conca { alpha, .. } => ranges.push(("alpha", alpha, 0.0, f32::MAX)),
            Objective::Ssae { level, dual_rate } => {
                ranges.extend([("level", level, positive, f32::MAX), ("dual_rate", dual_rate, 0.0, f32::MAX)]);
            }
        }
        match self.regularizer {
            Regularizer::Dropout(share) => ranges.push(("dropout", share, 0.0, 0.99)),
            Regularizer::GroupNorm(groups) => {
                if groups == 0 || !self.n_latents.is_multiple_of(groups) || groups >= self.n_latents {
                    let n = self.n_latents;
                    return wrong(format!(
                        "group_norm must divide n_latents ({n}) into groups of two or more, found {groups}"
                    ));
                }
            }
            Regularizer::LayerNorm if self.n_latents < 2 => return wrong("n_latents: a LayerNorm needs two".into()),
            Regularizer::LayerNorm | Regularizer::BatchNorm => (),
        }
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return wrong(format!("{name} must lie between {low} and {high}, found {value}"));
            }
        }
        Ok(())
    }

    /// The settings that shape the result, as one line of JSON: what a coder's recipe and a checkpoint carry.
    pub fn recipe(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Settings from JSON; what it leaves out is as in `base`. Enumerations are spelled as [`Options::recipe`] does.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for unknown names and wrong types.
    pub fn from_json(json: &str, base: &Self) -> Result<Self> {
        let wrong = |e: serde_json::Error| Error::argument(format!("train options: {e}"));
        let given: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).map_err(wrong)?;
        let mut all = serde_json::to_value(base).map_err(wrong)?;
        if let Some(all) = all.as_object_mut() {
            all.insert("threads".into(), base.threads.into());
            all.insert("checkpoint_every".into(), base.checkpoint_every.into());
            all.extend(given);
        }
        serde_json::from_value(all).map_err(wrong)
    }
}

/// The state of a run after a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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
    pub mse: f64,
    /// ConCA: mean of `Σ|g(z)|` over rows. SSAE: mean of |z| over rows and latents.
    pub sparsity: f64,
    /// Squared error over squared distance of the rows from their middle (SSAE: from 0).
    pub fvu: f64,
    /// SSAE's multiplier; 0 for ConCA.
    pub multiplier: f64,
}

impl Metrics {
    /// One line for people.
    pub(super) fn note(&self) -> String {
        format!("MSE {:.3}  FVU {:.4}  sparsity {:.4}", self.mse, self.fvu, self.sparsity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_options_are_named() {
        let base = Options { n_latents: 64, ..Options::conca() };
        base.check().unwrap();
        Options::ssae().check().unwrap();
        let group = |n| Options { regularizer: Regularizer::GroupNorm(n), ..base.clone() };
        let cases = [
            (Options { n_latents: 0, ..base.clone() }, "n_latents must lie"),
            (Options { steps: 0, ..base.clone() }, "steps"),
            (Options { lr: f32::NAN, ..base.clone() }, "lr must lie"),
            (group(7), "group_norm must divide n_latents (64)"),
            (group(64), "groups of two or more"),
            (Options { regularizer: Regularizer::Dropout(1.0), ..base.clone() }, "dropout"),
            (Options { objective: Objective::Ssae { level: 0.0, dual_rate: 1.0 }, ..base.clone() }, "level"),
        ];
        for (options, message) in cases {
            let error = options.check().unwrap_err();
            assert!(error.message().contains(message), "{error}");
        }
    }

    #[test]
    fn names_and_json_come_back() {
        for r in [Regularizer::LayerNorm, Regularizer::GroupNorm(8), Regularizer::BatchNorm, Regularizer::Dropout(0.25)]
        {
            assert_eq!(r.name().parse::<Regularizer>().unwrap(), r);
            let options = Options { regularizer: r, threads: 3, ..Options::ssae() };
            let back = Options::from_json(&options.recipe(), &Options { threads: 3, ..Options::conca() }).unwrap();
            assert_eq!(back, options);
        }
        assert!("group_norm:x".parse::<Regularizer>().is_err());
        assert_eq!(Sparsity::Selu.name().parse::<Sparsity>().unwrap(), Sparsity::Selu);
        let some = Options::from_json(r#"{"steps": 7, "threads": 2}"#, &Options::conca()).unwrap();
        assert_eq!((some.steps, some.threads, some.batch), (7, 2, 2048));
        assert!(Options::from_json(r#"{"step": 7}"#, &Options::conca()).unwrap_err().message().contains("step"));
        assert!(!Options::conca().recipe().contains("threads"));
    }
}
