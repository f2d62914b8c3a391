//! How far a figure would move with other prompts: percentile intervals of the bootstrap (Efron 1979).
//!
//! The cases are drawn anew with replacement, as many as there are, and the figure is taken of each draw; the interval holds
//! the middle share of what comes out. Cases that were measured together (a prompt without and with steering) are drawn
//! together.

use rand::Rng;

use crate::num::rng;

/// Draws: the ends of an interval of 90 % then move by some hundredths of its width.
pub const DRAWS: usize = 1000;

/// The interval that holds `share` of what `figure` makes of drawn cases, given as places below `n`. Draws whose figure is no
/// number are left out; without cases there is no interval. The same for the same seed.
pub fn interval(n: usize, share: f64, seed: u64, figure: &mut dyn FnMut(&[usize]) -> f64) -> Option<[f64; 2]> {
    if n == 0 {
        return None;
    }
    let (mut rng, mut drawn) = (rng(seed), vec![0; n]);
    let mut values = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        drawn.iter_mut().for_each(|place| *place = rng.random_range(0..n));
        values.push(figure(&drawn));
    }
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get(((values.len().saturating_sub(1)) as f64 * share).round() as usize).copied();
    Some([at((1.0 - share) / 2.0)?, at((1.0 + share) / 2.0)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> impl FnMut(&[usize]) -> f64 + '_ {
        |drawn| drawn.iter().map(|&i| values[i]).sum::<f64>() / drawn.len() as f64
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_its_standard_error() {
        let mut rng = rng(5);
        let values: Vec<f64> = (0..400).map(|_| rng.random_range(-1.0..1.0)).collect();
        let [low, high] = interval(values.len(), 0.9, 1, &mut mean(&values)).unwrap();
        let own = values.iter().sum::<f64>() / 400.0;
        // 1.645 standard errors to either side; the ends of 1,000 draws lie within a tenth of the width.
        let width = 2.0 * 1.645 * (1.0f64 / 3.0 / 400.0).sqrt();
        assert!(((high - low) / width - 1.0).abs() < 0.15, "{low} {high}: {width}");
        assert!(((low + high) / 2.0 - own).abs() < 0.1 * width, "{low} {high}: {own}");
        assert_eq!(interval(values.len(), 0.9, 1, &mut mean(&values)), Some([low, high]), "a seed draws alike");
        assert_ne!(interval(values.len(), 0.9, 2, &mut mean(&values)), Some([low, high]));
    }

    #[test]
    fn there_is_no_interval_without_cases_or_numbers() {
        assert_eq!(interval(0, 0.9, 0, &mut |_| 1.0), None);
        assert_eq!(interval(3, 0.9, 0, &mut |_| f64::NAN), None);
        assert_eq!(interval(1, 0.9, 0, &mut |_| 7.0), Some([7.0, 7.0]));
        let mut calls = 0;
        let mut odd = |drawn: &[usize]| {
            calls += 1;
            if calls % 2 == 0 { f64::NAN } else { drawn.len() as f64 }
        };
        assert_eq!(interval(3, 0.9, 0, &mut odd), Some([3.0, 3.0]));
    }
}
