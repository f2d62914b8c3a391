//! What was found.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::file::write_atomic;

/// The methods side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The model's file.
    pub model: String,
    /// The dictionary's name.
    pub dictionary: String,
    /// Its layer.
    pub layer: Option<usize>,
    /// Rows on which features were explained, and held-out windows.
    pub rows: u64,
    /// See `rows`.
    pub windows: usize,
    /// A row each.
    pub methods: Vec<Method>,
    /// The features that were compared, with their words under each method.
    pub sampled: Vec<Sampled>,
}

/// What a method's explanations are worth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// Features of the sample that it explains.
    pub explained: usize,
    /// Share of the vocabulary's other words that are used.
    pub diversity: f64,
    /// Share of the superficial words that are used; lower is better.
    pub lexical: f64,
    /// Share of used words that explain more than a tenth of the features; lower is better.
    pub dominate: f64,
    /// Diversity − lexical.
    pub total: f64,
    /// Mean AUC on held-out windows; a feature without words has 0.5.
    pub auc: f64,
    /// The interval of 95 % over features.
    pub auc_interval: [f64; 2],
    /// Mean output score.
    pub output: f64,
    /// Mean lift, in nats.
    pub lift: f64,
    /// The interval of 95 % over features.
    pub lift_interval: [f64; 2],
}

/// A feature with its words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Its number.
    pub feature: u32,
    /// The first words under each method.
    pub words: BTreeMap<String, Vec<String>>,
    /// AUC under each method.
    pub auc: BTreeMap<String, f64>,
    /// Lift under each method, in nats.
    pub lift: BTreeMap<String, f64>,
    /// The spans on which it fires most, the token where it does in ⟦ ⟧.
    pub spans: Vec<String>,
}

impl Report {
    /// Writes the sampled features for outside judges: a line each with its spans, and its words under every method. A judge
    /// answers with labels, `{"feature": 17, "label": "war"}`, which `tiller explain --labels` takes.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io).
    pub fn save_for_judges(&self, path: &Path) -> Result<()> {
        write_atomic(path, |out| {
            for one in &self.sampled {
                let line = json!({"feature": one.feature, "spans": one.spans, "words": one.words, "label": ""});
                writeln!(out, "{line}").map_err(|e| Error::io("write", path, e))?;
            }
            Ok(())
        })
    }
}
