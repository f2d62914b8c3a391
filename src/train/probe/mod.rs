//! Linear probes: logistic regressions that read a yes or no off a row.
//!
//! The objective is scikit-learn's, `R(w) + C·Σ_i log(1 + exp(−y_i(w·x_i + b)))` with `R = ½‖w‖²` or `‖w‖₁`, y = ±1, and an
//! intercept that is not penalised; both are convex, so the answer is the same whoever finds it (checked against
//! scikit-learn). [`Penalty::L2`] is solved by Newton's method with conjugate gradients (`newton.rs`), [`Penalty::L1`] by
//! coordinate descent on Newton's quadratic model (`lasso.rs`).
//!
//! With [`Options::standardize`], columns are brought to mean 0 and variance 1 first, and the result is written for the
//! columns as they were: a penalty treats all columns alike, and a residual stream's differ by a factor of a hundred.
//!
//! A probe's weights are a direction: along them the logit rises fastest. [`Probe::direction`] hands it on to a control
//! vector.

mod lasso;
mod matrix;
mod newton;
mod sparse;

use std::path::Path;

use crate::error::{Error, Result};
use crate::file::{Dtype, Tensors, npy, safetensors};
use crate::num;
use crate::progress::{Progress, report};
use matrix::Matrix;
pub use sparse::{Sparse, k_sparse};

/// What keeps weights small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Penalty {
    /// `½‖w‖²`.
    #[default]
    L2,
    /// `‖w‖₁`: most weights are exactly zero.
    L1,
}

/// How a probe is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The penalty.
    pub penalty: Penalty,
    /// C, the weight of the data against the penalty.
    pub c: f64,
    /// Whether columns are standardised first.
    pub standardize: bool,
    /// The gradient, relative to that of no weights at all, at which the solver stops.
    pub tolerance: f64,
    /// Newton steps at most.
    pub max_steps: usize,
    /// Threads; 0: all that the machine has. The result doesn't depend on it.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { penalty: Penalty::L2, c: 1.0, standardize: true, tolerance: 1e-6, max_steps: 100, threads: 0 }
    }
}

/// A logistic regression: `p(yes | x) = 1/(1 + exp(−(w·x + b)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// w `[d]`.
    pub weights: Vec<f32>,
    /// b.
    pub bias: f32,
    /// Newton steps taken.
    pub steps: usize,
    /// Whether the tolerance was reached.
    pub converged: bool,
}

/// How well a probe reads rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Share of rows on the right side of zero.
    pub accuracy: f64,
    /// Share of pairs of a yes and a no in which the yes has the larger logit (ties count half).
    pub auc: f64,
    /// |Pearson| between logits and labels.
    pub pearson: f64,
    /// Mean of −log p(label), in nats.
    pub loss: f64,
}

/// Fits a probe to `x`, rows `[n, d]`, and a label for each. Progress counts Newton steps.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) if the sizes do not agree, only one label occurs, or an option is out of
/// range; [`Kind::Numeric`](crate::Kind::Numeric) if a value is not finite; [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn fit(x: &[f32], d: usize, labels: &[bool], options: &Options, progress: &mut Progress<'_>) -> Result<Probe> {
    check(x, d, labels, options)?;
    let threads = crate::num::parallel::count(options.threads);
    let mut matrix = Matrix::new(x, d, options.standardize, options.penalty == Penalty::L1, threads);
    let problem = Problem { labels, c: options.c, tolerance: options.tolerance, max_steps: options.max_steps };
    let mut told = |step: usize, note: &str| report(progress, step as u64, 0, note);
    let solution = match options.penalty {
        Penalty::L2 => newton::solve(&mut matrix, &problem, &mut told)?,
        Penalty::L1 => lasso::solve(&matrix, &problem, &mut told)?,
    };
    let (weights, bias) = matrix.restore(&solution.weights, solution.bias);
    Ok(Probe { weights, bias, steps: solution.steps, converged: solution.converged })
}

/// What the solvers are given besides the matrix.
struct Problem<'a> {
    labels: &'a [bool],
    c: f64,
    tolerance: f64,
    max_steps: usize,
}

/// What they find.
struct Solution {
    weights: Vec<f64>,
    bias: f64,
    steps: usize,
    converged: bool,
}

/// `log(1 + exp(−m))` without overflow.
fn softplus_of_minus(m: f64) -> f64 {
    if m > 0.0 { (-m).exp().ln_1p() } else { m.exp().ln_1p() - m }
}

fn sigmoid(m: f64) -> f64 {
    if m >= 0.0 {
        1.0 / (1.0 + (-m).exp())
    } else {
        let e = m.exp();
        e / (1.0 + e)
    }
}

/// `Σ log(1 + exp(−y·m))`.
fn loss(margins: &[f64], labels: &[bool]) -> f64 {
    margins.iter().zip(labels).map(|(&m, &yes)| softplus_of_minus(if yes { m } else { -m })).sum()
}

fn check(x: &[f32], d: usize, labels: &[bool], options: &Options) -> Result<()> {
    if d == 0 || labels.len().checked_mul(d) != Some(x.len()) {
        return Err(Error::argument(format!(
            "probe: expected {} rows of width {d}, one for each label, found {} values",
            labels.len(),
            x.len()
        )));
    }
    let yes = labels.iter().filter(|&&label| label).count();
    if yes == 0 || yes == labels.len() {
        let n = labels.len();
        return Err(Error::argument(format!("probe: expected both labels, found {yes} yes among {n}")));
    }
    if let Some(at) = x.iter().position(|v| !v.is_finite()) {
        let (row, column) = (at / d, at % d);
        return Err(Error::numeric(format!(
            "probe: row {row}, column {column}: expected a finite number, found {}",
            x[at]
        )));
    }
    for (name, value) in [("c", options.c), ("tolerance", options.tolerance)] {
        if !(value > 0.0 && value.is_finite()) {
            return Err(Error::argument(format!("probe option {name} must be positive, found {value}")));
        }
    }
    Ok(())
}

impl Probe {
    /// `w·x + b` of every row of `x` `[n, d]`.
    ///
    /// # Panics
    /// If `x` is no whole number of rows.
    pub fn logits(&self, x: &[f32]) -> Vec<f32> {
        let d = self.weights.len();
        assert!(x.len().is_multiple_of(d), "{} values are no rows of width {d}", x.len());
        x.chunks_exact(d).map(|row| num::dot(row, &self.weights) + self.bias).collect()
    }

    /// The weights at norm 1: the direction along which the logit rises fastest. None if all weights are zero.
    pub fn direction(&self) -> Option<Vec<f32>> {
        let norm = num::norm(&self.weights);
        (norm > 0.0).then(|| self.weights.iter().map(|w| w / norm).collect())
    }

    /// Reads `x` `[n, d]` and compares with the labels.
    ///
    /// # Panics
    /// If there is not one label for each row.
    pub fn score(&self, x: &[f32], labels: &[bool]) -> Score {
        let logits = self.logits(x);
        assert_eq!(logits.len(), labels.len(), "one label for each row");
        let truth: Vec<f32> = labels.iter().map(|&yes| f32::from(u8::from(yes))).collect();
        let right = logits.iter().zip(labels).filter(|(l, yes)| (**l > 0.0) == **yes).count();
        let margins: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
        let ranks = num::stats::ranks(&logits);
        let yes = labels.iter().filter(|&&yes| yes).count() as f64;
        let no = labels.len() as f64 - yes;
        let sum: f64 = ranks.iter().zip(labels).filter(|(_, yes)| **yes).map(|(&rank, _)| f64::from(rank)).sum();
        Score {
            accuracy: right as f64 / labels.len() as f64,
            auc: (sum - yes * (yes + 1.0) / 2.0) / (yes * no),
            pearson: num::stats::pearson(&logits, &truth).abs(),
            loss: loss(&margins, labels) / labels.len() as f64,
        }
    }

    /// Writes `weights [d]` and `bias [1]` as safetensors.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut file = safetensors::Writer::new();
        file.metadata("format", "tiller probe 1");
        let bias = [self.bias];
        file.tensor("weights", Dtype::F32, &[self.weights.len()], bytemuck::cast_slice::<f32, u8>(&self.weights));
        file.tensor("bias", Dtype::F32, &[1], bytemuck::cast_slice::<f32, u8>(&bias));
        file.write(path)
    }

    /// Reads what [`Probe::save`] wrote.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io); [`Kind::Format`](crate::Kind::Format) for a file of another kind.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Tensors::open(path)?;
        let weights = file.get("weights")?.to_f32()?.into_owned();
        let bias = file.get("bias")?.scalar_f32()?;
        if weights.is_empty() || weights.iter().any(|w| !w.is_finite()) || !bias.is_finite() {
            return Err(Error::format(path, "tensors \"weights\" and \"bias\": expected finite numbers"));
        }
        Ok(Self { weights, bias, steps: 0, converged: true })
    }

    /// Writes the weights as a NumPy array of shape `[d]`; the bias is left out.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn save_npy(&self, path: &Path) -> Result<()> {
        npy::write(path, Dtype::F32, &[self.weights.len()], bytemuck::cast_slice::<f32, u8>(&self.weights))
    }
}

#[cfg(test)]
mod tests;
