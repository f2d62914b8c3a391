//! A direction as a short list of features: orthogonal matching pursuit over decoder rows.
//!
//! ```text
//! r_0 = t / ‖t‖                                     the direction
//! i_k = argmax_i |⟨d_i, r_{k−1}⟩| / ‖d_i‖           the row that points along what is left; lower index wins ties
//! c   = argmin ‖r_0 − Σ_{j ≤ k} c_j d_{i_j}/‖d_{i_j}‖‖    all weights anew, by least squares
//! r_k = what is left then
//! ```
//!
//! It ends after `most` rows, or when one more would explain less than [`LEAST`] of the direction's square. A feature with a
//! negative weight is one of which there is less. Cost: a pass over the decoder for each feature of the list.

use crate::error::{Error, Result};
use crate::num::linalg::cholesky_solve;
use crate::num::{axpy, dot, norm};

/// Share of the square of a direction that a row must explain to be in its list.
pub const LEAST: f32 = 0.01;
/// Added to the diagonal of the Gram matrix of unit rows: two equal rows stay solvable.
const RIDGE: f64 = 1e-6;

/// A direction in terms of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Features and their weights on rows of length 1, where the direction has length 1; in the order found.
    pub parts: Vec<(u32, f32)>,
    /// The share of the direction's square that they explain, 0 to 1.
    pub explained: f32,
}

/// Reads `target` as at most `most` of `n_features` rows, which `row` fills in. A direction of zeros has no parts.
///
/// # Errors
/// [`Numeric`](crate::Kind::Numeric) if the direction or a row is not finite.
pub fn pursue(target: &[f32], n_features: usize, row: &dyn Fn(usize, &mut [f32]), most: usize) -> Result<Reading> {
    let length = norm(target);
    if !length.is_finite() {
        return Err(Error::numeric("reading a direction: it is not finite"));
    }
    let mut reading = Reading { parts: Vec::new(), explained: 0.0 };
    if length == 0.0 {
        return Ok(reading);
    }
    let unit: Vec<f32> = target.iter().map(|v| v / length).collect();
    let (mut rest, mut rows, mut held) = (unit.clone(), Vec::<Vec<f32>>::new(), vec![0f32; target.len()]);
    while rows.len() < most {
        let mut best: Option<(usize, f32)> = None;
        for feature in (0..n_features).filter(|i| reading.parts.iter().all(|(j, _)| *j as usize != *i)) {
            row(feature, &mut held);
            let own = norm(&held);
            if !own.is_finite() {
                return Err(Error::numeric(format!("reading a direction: the row of feature {feature} is not finite")));
            }
            let along = if own > 0.0 { dot(&held, &rest).abs() / own } else { 0.0 };
            if best.is_none_or(|(_, most)| along > most) {
                best = Some((feature, along));
            }
        }
        // One more row explains at least the square of its product with the rest.
        let Some((feature, along)) = best.filter(|(_, along)| along * along >= LEAST) else { break };
        debug_assert!(along.is_finite());
        row(feature, &mut held);
        let own = norm(&held);
        rows.push(held.iter().map(|v| v / own).collect());
        reading.parts.push((u32::try_from(feature).unwrap_or(u32::MAX), 0.0));
        let weights = fit(&unit, &rows)?;
        rest.clone_from(&unit);
        for ((row, weight), part) in rows.iter().zip(&weights).zip(&mut reading.parts) {
            part.1 = *weight;
            axpy(-weight, row, &mut rest);
        }
    }
    reading.explained = (1.0 - dot(&rest, &rest)).clamp(0.0, 1.0);
    Ok(reading)
}

/// The weights of `rows` that come closest to `target`.
fn fit(target: &[f32], rows: &[Vec<f32>]) -> Result<Vec<f32>> {
    let n = rows.len();
    let mut gram = vec![0f64; n * n];
    for (i, a) in rows.iter().enumerate() {
        for (j, b) in rows.iter().enumerate() {
            gram[i * n + j] = f64::from(dot(a, b)) + if i == j { RIDGE } else { 0.0 };
        }
    }
    let along: Vec<f64> = rows.iter().map(|row| f64::from(dot(row, target))).collect();
    Ok(cholesky_solve(&gram, &along, n)?.into_iter().map(|w| w as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng;
    use rand::Rng;

    const D: usize = 64;
    const F: usize = 300;

    fn rows(seed: u64) -> Vec<f32> {
        let mut rng = rng(seed);
        // Of very different lengths, which must not matter.
        (0..F)
            .flat_map(|i| (0..D).map(|_| rng.random_range(-1f32..1.0) * (1.0 + i as f32)).collect::<Vec<_>>())
            .collect()
    }

    fn read(target: &[f32], rows: &[f32], most: usize) -> Reading {
        pursue(target, F, &|i, row| row.copy_from_slice(&rows[i * D..][..D]), most).unwrap()
    }

    #[test]
    fn a_planted_combination_of_three_rows_is_read_back() {
        for seed in 0..5 {
            let rows = rows(seed);
            let planted = [(7usize, 3.0f32), (250, -2.0), (31, 1.5)];
            let mut target = vec![0f32; D];
            for (i, weight) in planted {
                let row = &rows[i * D..][..D];
                axpy(weight / norm(row), row, &mut target);
            }
            let length = norm(&target);
            let reading = read(&target, &rows, 8);
            assert_eq!(reading.parts.len(), 3, "seed {seed}: {reading:?}");
            for (i, weight) in planted {
                let found = reading.parts.iter().find(|(j, _)| *j as usize == i).expect("a planted row").1;
                // The ridge and sums in f32 leave a thousandth.
                assert!((found - weight / length).abs() < 2e-3, "seed {seed}, row {i}: {found}");
            }
            assert!(reading.explained > 0.999);
        }
    }

    #[test]
    fn a_direction_that_is_in_no_row_has_a_short_list() {
        let mut axes = vec![0f32; F * D];
        // All rows but one live in the first half of the places.
        let mut rng = rng(3);
        for i in 0..F {
            (0..D / 2).for_each(|j| axes[i * D + j] = rng.random_range(-1f32..1.0));
        }
        axes[9 * D + D - 1] = 2.0;
        let mut target = vec![0f32; D];
        target[D - 2] = 1.0;
        assert_eq!(read(&target, &axes, 8), Reading { parts: Vec::new(), explained: 0.0 });
        assert!(read(&[0.0; D], &axes, 8).parts.is_empty());
        target[D - 1] = 1.0;
        let reading = read(&target, &axes, 8);
        assert!(reading.parts[0].0 == 9 && reading.parts.len() <= 8 && reading.explained < 0.6, "{reading:?}");
        target[0] = f32::NAN;
        assert!(pursue(&target, F, &|_, row| row.fill(1.0), 8).is_err());
        assert!(pursue(&[1.0; D], F, &|_, row| row.fill(f32::INFINITY), 8).is_err());
    }

    #[test]
    fn equal_rows_are_read_once_and_the_list_ends() {
        let mut rows = rows(1);
        rows.copy_within(5 * D..6 * D, 40 * D);
        let target = rows[5 * D..6 * D].to_vec();
        let reading = read(&target, &rows, 8);
        assert_eq!(reading.parts.len(), 1, "{reading:?}");
        assert_eq!(reading.parts[0].0, 5, "the lower index");
        let mut rng = crate::num::rng(8);
        let any: Vec<f32> = (0..D).map(|_| rng.random_range(-1f32..1.0)).collect();
        let (two, eight) = (read(&any, &rows, 2), read(&any, &rows, 8));
        assert!(two.parts.len() == 2 && two.explained < eight.explained);
    }
}
