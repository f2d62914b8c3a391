//! A dictionary with one thing changed: what a diagnosis tries.

use std::sync::{Arc, OnceLock};

use super::matrix::{Matrix, Values};
use super::{Dictionary, Settings};
use crate::error::{Error, Result};

impl Dictionary {
    /// The same weights, read by other settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self.norms = Arc::new(OnceLock::new());
        self
    }

    /// The same dictionary with another encoder, E `[n_features, d_model]`.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if the number of values is another.
    pub fn with_encoder(mut self, rows: Vec<f32>) -> Result<Self> {
        self.encoder = self.matrix(rows)?;
        self.outline = Arc::default();
        Ok(self)
    }

    /// The same dictionary with another decoder, D `[n_features, d_model]`.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if the number of values is another.
    pub fn with_decoder(mut self, rows: Vec<f32>) -> Result<Self> {
        self.decoder = self.matrix(rows)?;
        self.norms = Arc::new(OnceLock::new());
        Ok(self)
    }

    fn matrix(&self, rows: Vec<f32>) -> Result<Matrix> {
        let (n, d, found) = (self.n_features(), self.d_model(), rows.len());
        let wrong = || Error::argument(format!("expected {n} rows of {d} numbers, found {found}"));
        Matrix::new(Values::F32(rows.into()), n, d).ok_or_else(wrong)
    }
}
