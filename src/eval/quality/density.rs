//! How often features fire: dead, dense, and what lies between.

use serde::{Deserialize, Serialize};

/// Bins of the histogram, two to a factor of ten, up to a density of 1.
const BINS: usize = 14;

/// How often the features of a dictionary fire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Density {
    /// Share of features that fire on some row.
    pub alive: f64,
    /// Share of features that fire on more than one row in a hundred.
    pub over_1_percent: f64,
    /// Share of features that fire on more than one row in ten: dense ones.
    pub over_10_percent: f64,
    /// Of all firing, the share that is of features with a density of more than one in a hundred.
    pub firing_over_1_percent: f64,
    /// The same of one in ten.
    pub firing_over_10_percent: f64,
    /// Features by log₁₀ of their density, in bins half a unit wide that begin at −7; lower ones count there. Dead
    /// features are in none.
    pub histogram: Vec<Bin>,
}

/// A bin of the histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// log₁₀ of the density where it begins.
    pub from: f64,
    /// Features in it.
    pub features: usize,
}

impl Density {
    /// Of the density of every feature.
    pub fn of(densities: &[f32]) -> Self {
        let n = densities.len().max(1) as f64;
        let over = |limit: f32| densities.iter().filter(|v| **v > limit).count() as f64 / n;
        let all: f64 = densities.iter().map(|v| f64::from(*v)).sum();
        let firing = |limit: f32| {
            let some: f64 = densities.iter().filter(|v| **v > limit).map(|v| f64::from(*v)).sum();
            if all > 0.0 { some / all } else { 0.0 }
        };
        let mut histogram: Vec<Bin> =
            (0..BINS).map(|i| Bin { from: (i as f64 - BINS as f64) / 2.0, features: 0 }).collect();
        for density in densities.iter().filter(|v| **v > 0.0) {
            let bin = (2.0 * f64::from(*density).log10() + BINS as f64).floor().clamp(0.0, (BINS - 1) as f64);
            histogram[bin as usize].features += 1;
        }
        Self {
            alive: over(0.0),
            over_1_percent: over(0.01),
            over_10_percent: over(0.1),
            firing_over_1_percent: firing(0.01),
            firing_over_10_percent: firing(0.1),
            histogram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_counted_where_they_belong() {
        let found = Density::of(&[0.0, 1e-9, 0.005, 0.02, 0.05, 0.5, 1.0, 0.0]);
        assert_eq!((found.alive, found.over_1_percent, found.over_10_percent), (0.75, 0.5, 0.25));
        let all = 1e-9 + 0.005 + 0.02 + 0.05 + 0.5 + 1.0;
        assert!((found.firing_over_1_percent - 1.57 / all).abs() < 1e-6);
        assert!((found.firing_over_10_percent - 1.5 / all).abs() < 1e-6);
        let at = |from: f64| found.histogram.iter().find(|bin| bin.from == from).unwrap().features;
        // log10 of 0.005 is −2.3, of 0.02 −1.7, of 0.05 −1.3, of 0.5 −0.3.
        assert_eq!([-7.0, -2.5, -2.0, -1.5, -0.5].map(at), [1, 1, 1, 1, 2]);
        assert_eq!(found.histogram.iter().map(|bin| bin.features).sum::<usize>(), 6);
        assert_eq!(Density::of(&[]).alive, 0.0);
    }
}
