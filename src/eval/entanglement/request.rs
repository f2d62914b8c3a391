//! What is to be measured, as data: the same in Rust, on the command line and in C's JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::grammar;
use crate::error::{Error, Kind, Result};

/// What to measure, and how much may be spent on it. In JSON every key may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// Sentences with their concepts, JSONL (see [`Sentences::read`](super::sentences::Sentences::read)), in place of
    /// the built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Of those: which yes-or-no concepts are values of one attribute.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Vec<String>>,
    /// Correlations of science and positive in the built-in sentences; all is measured anew with each.
    pub rho: Vec<f64>,
    /// Built-in sentences for each of these.
    pub sentences: usize,
    /// Share of the sentences that is measured; featurizers and probes are fitted on the rest.
    pub test: f64,
    /// The block whose output is featurized and steered, from 0; by default the first file's, else the middle one.
    pub layer: Option<usize>,
    /// The later block whose output probes read while steering; by default halfway from `layer` to the last.
    pub read_layer: Option<usize>,
    /// What stands for a sentence.
    pub pooling: Pooling,
    /// Dictionaries, learned features and coders to measure.
    pub files: Vec<PathBuf>,
    /// Featurizers that are fitted on the sentences' own rows.
    pub fit: Vec<Fitted>,
    /// Features of those that have a size.
    pub n_features: usize,
    /// Active features a row of the sparse ones.
    pub k: usize,
    /// Steps of training, of [`BATCH`] rows.
    pub steps: u64,
    /// Features that enter the probes on codes: for each concept the ones that correlate most with it. 0: all.
    pub columns: usize,
    /// Sentences that are steered; 0: none is.
    pub steer: usize,
    /// What a steered code becomes, in multiples of its largest value.
    pub strength: f32,
    /// Pairs of concepts of two attributes that are steered together, chosen by the seed.
    pub pairs: usize,
    /// Random directions of the same norm.
    pub random: usize,
    /// Tokens that are written while steering, behind ten neutral prompts; 0: none.
    pub generate: usize,
    /// Makes, deals and trains.
    pub seed: u64,
    /// Threads of what is not the model; 0 takes all.
    pub threads: usize,
}

/// Rows in a step of training.
pub const BATCH: usize = 256;

impl Default for Request {
    fn default() -> Self {
        Self {
            data: None,
            attributes: BTreeMap::new(),
            rho: vec![0.0],
            sentences: 20_000,
            test: 0.2,
            layer: None,
            read_layer: None,
            pooling: Pooling::Last,
            files: Vec::new(),
            fit: Fitted::ALL.to_vec(),
            n_features: 1024,
            k: 32,
            steps: 2000,
            columns: 256,
            steer: 32,
            strength: 5.0,
            pairs: 12,
            random: 30,
            generate: 0,
            seed: 0,
            threads: 0,
        }
    }
}

/// What stands for a sentence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The row of its last token.
    #[default]
    Last,
    /// The mean of all rows but the first, which is an attention sink.
    Mean,
}

impl Pooling {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Mean => "mean",
        }
    }
}

/// A featurizer that is fitted on the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fitted {
    /// A dictionary that keeps the k best codes of a row.
    #[serde(rename = "topk")]
    TopK,
    /// One that keeps the best of a batch.
    #[serde(rename = "batchtopk")]
    BatchTopK,
    /// One with an L1 penalty.
    Relu,
    /// A coder of the differences of pairs of rows.
    Ssae,
    /// A coder of log-posteriors.
    Conca,
    /// The row's own coordinates.
    Neurons,
    /// For each concept the mean of the rows with it less that of those without.
    DiffMean,
    /// For each concept a logistic regression on its labels: the skyline.
    Probe,
}

impl Fitted {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::TopK, Self::BatchTopK, Self::Relu, Self::Ssae, Self::Conca, Self::Neurons, Self::DiffMean, Self::Probe];

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopK => "topk",
            Self::BatchTopK => "batchtopk",
            Self::Relu => "relu",
            Self::Ssae => "ssae",
            Self::Conca => "conca",
            Self::Neurons => "neurons",
            Self::DiffMean => "diff_mean",
            Self::Probe => "probe",
        }
    }
}

impl Request {
    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Kind::Argument`] for what is none, with line, column and key; as [`check`](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        let hint = "keys are data, attributes, rho, sentences, test, layer, read_layer, pooling, files, fit, n_features, \
                    k, steps, columns, steer, strength, pairs, random, generate, seed, threads";
        let request: Self = serde_json::from_str(text).map_err(|e| {
            let error = crate::file::json::error(&e, text, "request", 1, hint);
            Error::new(Kind::Argument, error.message()).hinted(hint)
        })?;
        request.check()?;
        Ok(request)
    }

    /// Checks what can be known without a model.
    ///
    /// # Errors
    /// [`Kind::Argument`], naming the key, what was expected and what was found.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::argument(what));
        if self.files.is_empty() && self.fit.is_empty() {
            return wrong("fit: expected a featurizer here or in files, found none".into());
        }
        if let Some(twice) = self.fit.iter().enumerate().find(|(i, one)| self.fit[..*i].contains(one)) {
            return wrong(format!("fit: expected {:?} once, found it twice", twice.1.name()));
        }
        match &self.data {
            Some(_) if self.rho != Self::default().rho => {
                return wrong("rho: sentences of a file have the correlations that they have: leave it out".into());
            }
            None if !self.attributes.is_empty() => return wrong("attributes: expected data beside them".into()),
            None if self.sentences < grammar::LEAST => {
                return wrong(format!("sentences: expected {} or more, found {}", grammar::LEAST, self.sentences));
            }
            _ => {}
        }
        if self.rho.is_empty() {
            return wrong("rho: expected a correlation, found none".into());
        }
        if let Some(rho) = self.rho.iter().find(|rho| !(0.0..=1.0).contains(*rho)) {
            return wrong(format!("rho: expected 0 to 1, found {rho}"));
        }
        if !(0.05..=0.5).contains(&self.test) {
            return wrong(format!("test: expected 0.05 to 0.5, found {}", self.test));
        }
        if !(self.strength.is_finite() && self.strength > 0.0) {
            return wrong(format!("strength: expected more than 0, found {}", self.strength));
        }
        for (key, found, least) in [("n_features", self.n_features, 8), ("k", self.k, 1)] {
            if found < least {
                return wrong(format!("{key}: expected {least} or more, found {found}"));
            }
        }
        if self.k > self.n_features {
            return wrong(format!("k: expected at most n_features ({}), found {}", self.n_features, self.k));
        }
        if self.steps == 0 {
            return wrong("steps: expected 1 or more, found 0".into());
        }
        if self.steer == 1 {
            return wrong("steer: expected 0, or 2 sentences or more, found 1".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_from_json() {
        let request = Request { seed: 7, rho: vec![0.0, 0.9], fit: vec![Fitted::DiffMean], ..Request::default() };
        assert_eq!(Request::from_json(&serde_json::to_string(&request).unwrap()).unwrap(), request);
        assert_eq!(Request::from_json("{}").unwrap(), Request::default());
        let named: Vec<Fitted> = Fitted::ALL.map(|f| serde_json::from_value(f.name().into()).unwrap()).to_vec();
        assert_eq!(named, Fitted::ALL);
    }

    #[test]
    fn mistakes_are_named() {
        let ok = Request::default();
        let own = Request { data: Some("s.jsonl".into()), ..ok.clone() };
        for (request, text) in [
            (Request { fit: Vec::new(), ..ok.clone() }, "fit: expected a featurizer"),
            (Request { fit: vec![Fitted::Probe; 2], ..ok.clone() }, "\"probe\" once"),
            (Request { rho: vec![0.9], ..own.clone() }, "rho: sentences of a file"),
            (Request { rho: Vec::new(), ..ok.clone() }, "rho: expected a correlation"),
            (Request { rho: vec![1.5], ..ok.clone() }, "rho: expected 0 to 1, found 1.5"),
            (
                Request { attributes: [("a".into(), vec!["b".into()])].into(), ..ok.clone() },
                "attributes: expected data",
            ),
            (Request { sentences: 10, ..ok.clone() }, "sentences: expected 200"),
            (Request { test: 0.9, ..ok.clone() }, "test: expected"),
            (Request { strength: 0.0, ..ok.clone() }, "strength: expected"),
            (Request { k: 2000, ..ok.clone() }, "k: expected at most"),
            (Request { n_features: 1, ..ok.clone() }, "n_features: expected 8"),
            (Request { steps: 0, ..ok.clone() }, "steps: expected 1"),
            (Request { steer: 1, ..ok.clone() }, "steer: expected 0"),
        ] {
            let error = request.check().unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
        for (json, text) in [("{\"what\": 3}", "what"), ("{\"fit\": [\"jumprelu\"]}", "jumprelu"), ("[", "request")] {
            let error = Request::from_json(json).unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
    }
}
