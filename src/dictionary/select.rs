//! A dictionary of some of another's features.

use super::parts::Gate;
use super::settings::Activation;
use super::{Dictionary, FeatureStats, Info, Parts};
use crate::error::{Error, Result};

impl Dictionary {
    /// The features `features` alone, in that order, renumbered from 0; weights become f32.
    ///
    /// Rows on which none of the others would be active are encoded as before.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if there are none, or one is out of range;
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for GroupMax, whose groups lie side by side.
    pub fn select(&self, features: &[u32]) -> Result<Self> {
        let n = self.n_features();
        if features.is_empty() {
            return Err(Error::argument("expected features to keep, found none"));
        }
        if let Some(feature) = features.iter().find(|&&feature| feature as usize >= n) {
            return Err(Error::argument(format!("feature {feature}: the dictionary has {n}")));
        }
        if matches!(self.settings.activation, Activation::GroupMax { .. }) {
            return Err(Error::unsupported("GroupMax chooses among neighbours: its features cannot be taken apart"));
        }
        let matrix = |width: usize, read: &dyn Fn(usize, &mut [f32])| {
            let mut rows = vec![0f32; features.len() * width];
            features.iter().zip(rows.chunks_mut(width)).for_each(|(&feature, row)| read(feature as usize, row));
            rows
        };
        let some = |all: &[f32]| features.iter().map(|&f| all[f as usize]).collect::<Vec<f32>>();
        let gate = self.gate.as_ref().map(|g| Gate { bias: some(&g.bias), log_scale: some(&g.log_scale) });
        let stats = |f: &u32| self.stats(*f as usize);
        let layers = features.iter().filter_map(|&f| self.layers().get(f as usize).copied()).collect();
        let made = Self::from_parts(Parts {
            d_model: self.d_model(),
            encoder: matrix(self.d_model(), &|i, row| self.encoder_row(i, row)),
            decoder: matrix(self.d_out(), &|i, row| self.decoder_row(i, row)),
            encoder_bias: some(&self.encoder_bias),
            decoder_bias: self.decoder_bias.to_vec(),
            threshold: self.threshold.as_ref().map(|t| some(t)),
            gate,
            stats: features.iter().map(stats).collect::<Option<Vec<FeatureStats>>>(),
            settings: self.settings,
            info: Info { layers, ..self.info.clone() },
        })?;
        Ok(Self { skip: self.skip.clone(), ..made })
    }

    /// Without the features that never fired when statistics were counted; all of them where there are no statistics.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn without_dead(&self) -> Result<Self> {
        let fires = |&feature: &u32| self.stats(feature as usize).is_none_or(|stats| stats.density > 0.0);
        self.select(&(0..self.n_features() as u32).filter(fires).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activation, Settings};
    use super::*;

    fn three() -> Dictionary {
        let stats = |density| FeatureStats { density, max: 2.0, mean: 1.0 };
        Dictionary::from_parts(Parts {
            d_model: 2,
            encoder: vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0],
            decoder: vec![1.0, 0.0, 0.0, 2.0, -3.0, 0.0],
            encoder_bias: vec![0.0, -0.5, 0.25],
            decoder_bias: vec![0.5, 0.0],
            threshold: Some(vec![0.1, 0.2, 0.3]),
            gate: None,
            stats: Some(vec![stats(0.5), stats(0.0), stats(0.25)]),
            settings: Settings::new(Activation::JumpRelu),
            info: Info { layer: Some(3), ..Info::default() },
        })
        .unwrap()
    }

    #[test]
    fn what_is_kept_encodes_and_decodes_as_before() {
        let (all, some) = (three(), three().select(&[2, 0]).unwrap());
        let x = [-1.5, 4.0];
        let (mut before, mut after) = ([0f32; 3], [0f32; 2]);
        all.encode(&x, &mut before);
        some.encode(&x, &mut after);
        assert_eq!(after, [before[2], before[0]]);
        assert!(after[0] > 0.0);
        let mut row = [0f32; 2];
        some.decoder_row(0, &mut row);
        assert_eq!(row, [-3.0, 0.0]);
        assert_eq!((some.stats(0), some.layer()), (all.stats(2), Some(3)));
    }

    #[test]
    fn dead_features_are_dropped() {
        let alive = three().without_dead().unwrap();
        assert_eq!(alive.n_features(), 2);
        assert_eq!(alive.stats(1), three().stats(2));
    }

    #[test]
    fn features_out_of_range_and_none_are_refused() {
        assert!(three().select(&[3]).unwrap_err().message().contains("feature 3: the dictionary has 3"));
        assert!(three().select(&[]).is_err());
    }
}
