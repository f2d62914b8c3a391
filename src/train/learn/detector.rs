//! What tells rows of two kinds apart, and does nothing.

use super::Contrast;
use super::ridge::Ridge;
use crate::error::{Error, Result};
use crate::num::{dot, parallel};

/// A detector of a layer, fitted to tell the plain rows of the pairs from the silent ones: w·x + b is about 1 on those and
/// about 0 on these. The class-balanced ridge of [`Gate::Class`](super::Gate::Class), as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// The block after which it reads.
    pub layer: usize,
    /// w `[d_model]`.
    pub weights: Vec<f32>,
    /// b.
    pub bias: f32,
}

impl Detector {
    /// w·x + b.
    pub fn read(&self, x: &[f32]) -> f32 {
        dot(&self.weights, x) + self.bias
    }
}

/// Fits the detector of a layer.
///
/// # Errors
/// As [`fit`](super::fit); [`Kind::Argument`](crate::Kind::Argument) if there are no silent rows.
pub fn detect(rows: &Contrast, layer: usize, lambda: f64, threads: usize) -> Result<Detector> {
    let (sides, d) = (rows.sides(layer)?, rows.d_model);
    if sides.silent.is_empty() && sides.hard.is_empty() {
        return Err(Error::argument(format!(
            "learn: layer {layer}: there are no rows on which a detector must be silent"
        )));
    }
    let x = [sides.plain.as_slice(), &sides.silent, &sides.hard].concat();
    let ridge = Ridge::new(x, sides.weights(d), d, lambda, parallel::count(threads))?;
    let (weights, bias) = ridge.solve(&vec![1.0; sides.plain.len() / d], 1)?.remove(0);
    Ok(Detector { layer, weights, bias: bias as f32 })
}
