//! What is compared, as data: the same in Rust, on the command line and in C's JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::matching::OneToOne;
use super::similarity::LEAST;
use crate::error::{Error, Kind, Result};

/// Two feature spaces and the text that both read. In JSON the models, the dictionaries and the text are needed; every
/// other key may be left out.
///
/// One model and two dictionaries compare layers, seeds, or widths; one dictionary and two files of a model
/// quantizations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// The model of A, a GGUF file.
    pub model_a: PathBuf,
    /// The dictionary of A.
    pub dictionary_a: PathBuf,
    /// The model of B; it may be that of A.
    pub model_b: PathBuf,
    /// The dictionary of B.
    pub dictionary_b: PathBuf,
    /// The layer whose output A reads, if not the hook point that its dictionary names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_a: Option<usize>,
    /// The same of B.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_b: Option<usize>,
    /// Text files, as [`documents`](crate::engine::documents) reads them. Of conversations the contents are read, one
    /// behind the other, because models write them differently.
    pub text: Vec<PathBuf>,
    /// Pairs of tokens to read, at most.
    pub max_tokens: usize,
    /// Bytes of text that are read at once.
    pub piece: usize,
    /// Rows on which a feature has to fire to be compared: of features that fired once, some agree by accident.
    pub least: u64,
    /// Which pair a feature of A keeps.
    pub one_to_one: OneToOne,
    /// Pairs of features correlate by more.
    pub min_r: f64,
    /// Pairs of features whose decoder rows are compared, at most; of more, so many are drawn. Costs n² numbers.
    pub max_pairs: usize,
    /// Runs with shuffled pairs, for each measure.
    pub runs: usize,
    /// Runs with features drawn at random, for each measure.
    pub subsets: usize,
    /// Semantic categories in a file; eight are built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub categories: Option<PathBuf>,
    /// MiB that the sums of correlations may take: 8 bytes for every pair of features.
    pub memory: usize,
    /// Draws pairs, shuffles and subsets.
    pub seed: u64,
    /// Threads; 0 takes all.
    pub threads: usize,
    /// Layers to run on a GPU, if this build has one.
    pub gpu_layers: usize,
}

/// The most pairs whose similarities are held: 400 million numbers a side.
const MOST_PAIRS: usize = 20_000;
/// The shortest piece, in bytes.
const SHORTEST: usize = 32;

impl Default for Request {
    fn default() -> Self {
        Self {
            model_a: PathBuf::new(),
            dictionary_a: PathBuf::new(),
            model_b: PathBuf::new(),
            dictionary_b: PathBuf::new(),
            layer_a: None,
            layer_b: None,
            text: Vec::new(),
            max_tokens: 50_000,
            piece: 1024,
            least: 10,
            one_to_one: OneToOne::Best,
            min_r: 0.1,
            max_pairs: 1000,
            runs: 1000,
            subsets: 100,
            categories: None,
            memory: 4096,
            seed: 0,
            threads: 0,
            gpu_layers: 0,
        }
    }
}

impl Request {
    /// Compares the dictionary of A with that of B, with all defaults.
    pub fn new(a: [impl Into<PathBuf>; 2], b: [impl Into<PathBuf>; 2], text: Vec<PathBuf>) -> Self {
        let ([model_a, dictionary_a], [model_b, dictionary_b]) = (a.map(Into::into), b.map(Into::into));
        Self { model_a, dictionary_a, model_b, dictionary_b, text, ..Self::default() }
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Kind::Argument`] for what is none, with line, column and key; as [`check`](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        let hint = "keys are model_a, dictionary_a, model_b, dictionary_b, layer_a, layer_b, text, max_tokens, piece, \
            least, one_to_one, min_r, max_pairs, runs, subsets, categories, memory, seed, threads, gpu_layers";
        let request: Self = serde_json::from_str(text).map_err(|e| {
            let error = crate::file::json::error(&e, text, "request", 1, hint);
            Error::new(Kind::Argument, error.message()).hinted(hint)
        })?;
        request.check()?;
        Ok(request)
    }

    /// Checks what can be known without the files.
    ///
    /// # Errors
    /// [`Kind::Argument`], naming the key, what was expected and what was found.
    pub fn check(&self) -> Result<()> {
        let files = [
            ("model_a", &self.model_a),
            ("dictionary_a", &self.dictionary_a),
            ("model_b", &self.model_b),
            ("dictionary_b", &self.dictionary_b),
        ];
        if let Some((key, _)) = files.iter().find(|(_, path)| path.as_os_str().is_empty()) {
            return Err(Error::argument(format!("{key}: expected the path of a file, found nothing")));
        }
        if self.text.is_empty() {
            return Err(Error::argument("text: expected files, found none"));
        }
        for (key, found, least) in [
            ("max_tokens", self.max_tokens, LEAST),
            ("piece", self.piece, SHORTEST),
            ("max_pairs", self.max_pairs, LEAST),
            ("runs", self.runs, 1),
            ("subsets", self.subsets, 1),
            ("memory", self.memory, 1),
        ] {
            if found < least {
                return Err(Error::argument(format!("{key}: expected {least} or more, found {found}")));
            }
        }
        if self.max_pairs > MOST_PAIRS {
            let found = self.max_pairs;
            return Err(Error::argument(format!("max_pairs: expected {MOST_PAIRS} or fewer, found {found}")));
        }
        if !(-1.0..=1.0).contains(&self.min_r) {
            return Err(Error::argument(format!("min_r: expected -1 to 1, found {}", self.min_r)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Request {
        Request::new(["a.gguf", "a.sae"], ["b.gguf", "b.sae"], vec!["t.txt".into()])
    }

    #[test]
    fn a_request_comes_back_from_json() {
        let request = Request { seed: 7, one_to_one: OneToOne::First, layer_b: Some(3), ..good() };
        assert_eq!(Request::from_json(&serde_json::to_string(&request).unwrap()).unwrap(), request);
        let short =
            r#"{"model_a":"a.gguf","dictionary_a":"a.sae","model_b":"b.gguf","dictionary_b":"b.sae","text":["t.txt"]}"#;
        assert_eq!(Request::from_json(short).unwrap(), good());
    }

    #[test]
    fn mistakes_are_named() {
        for (request, text) in [
            (Request { model_b: PathBuf::new(), ..good() }, "model_b"),
            (Request { text: Vec::new(), ..good() }, "text"),
            (Request { max_tokens: 2, ..good() }, "max_tokens: expected 3"),
            (Request { max_pairs: 30_000, ..good() }, "max_pairs: expected 20000"),
            (Request { runs: 0, ..good() }, "runs"),
            (Request { subsets: 0, ..good() }, "subsets"),
            (Request { piece: 8, ..good() }, "piece"),
            (Request { memory: 0, ..good() }, "memory"),
            (Request { min_r: f64::NAN, ..good() }, "min_r"),
        ] {
            let error = request.check().unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
        for (json, text) in [("{}", "model_a"), ("{\"text\": 3}", "text"), ("{\"what\": 3}", "what")] {
            let error = Request::from_json(json).unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
    }
}
