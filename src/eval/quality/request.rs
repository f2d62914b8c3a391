//! What is to be measured, as data: the same in Rust, on the command line and in C's JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Fewest words of which some letters have enough.
const LEAST_WORDS: usize = 100;
/// Most words.
const MOST_WORDS: usize = 20_000;

/// A dictionary, and the text that it is measured on. In JSON `dictionary` and `text` are needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// The dictionary's file.
    pub dictionary: PathBuf,
    /// Text that it was not trained on, as [`documents`](crate::engine::documents) reads it.
    pub text: Vec<PathBuf>,
    /// Tokens on which codes are measured, at most.
    pub max_tokens: usize,
    /// Tokens on which the model is patched, at most: each is read four times.
    pub score_tokens: usize,
    /// Longest window, in tokens.
    pub window: usize,
    /// Texts with labels, JSONL, for k-sparse probing; none: no probing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labelled: Option<PathBuf>,
    /// The key of the label in it.
    pub label: String,
    /// Tokens of a labelled text, at most.
    pub labelled_tokens: usize,
    /// Words for absorption; 0: not measured.
    pub words: usize,
    /// Deals texts and words.
    pub seed: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            dictionary: PathBuf::new(),
            text: Vec::new(),
            max_tokens: 60_000,
            score_tokens: 8_000,
            window: 256,
            labelled: None,
            label: "label".to_owned(),
            labelled_tokens: 128,
            words: 2000,
            seed: 0,
        }
    }
}

impl Request {
    /// Of this dictionary on this text, with all defaults.
    pub fn new(dictionary: impl Into<PathBuf>, text: Vec<PathBuf>) -> Self {
        Self { dictionary: dictionary.into(), text, ..Self::default() }
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Kind::Argument`] for what is none, with line, column and key; as [`check`](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        let hint = "keys are dictionary, text, max_tokens, score_tokens, window, labelled, label, labelled_tokens, words, \
                    seed";
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
        let wrong = |what: String| Err(Error::argument(what));
        if self.dictionary.as_os_str().is_empty() {
            return wrong("dictionary: expected the path of a file, found nothing".into());
        }
        if self.text.is_empty() {
            return wrong("text: expected files, found none".into());
        }
        for (key, found) in [
            ("max_tokens", self.max_tokens),
            ("score_tokens", self.score_tokens),
            ("window", self.window),
            ("labelled_tokens", self.labelled_tokens),
        ] {
            if found < 2 {
                return wrong(format!("{key}: expected 2 or more, found {found}"));
            }
        }
        if self.words != 0 && !(LEAST_WORDS..=MOST_WORDS).contains(&self.words) {
            return wrong(format!("words: expected 0, or {LEAST_WORDS} to {MOST_WORDS}, found {}", self.words));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_from_json() {
        let request = Request { seed: 7, words: 0, ..Request::new("d.gguf", vec!["t.txt".into()]) };
        assert_eq!(Request::from_json(&serde_json::to_string(&request).unwrap()).unwrap(), request);
    }

    #[test]
    fn mistakes_are_named() {
        let ok = Request::new("d.gguf", vec!["t.txt".into()]);
        for (request, text) in [
            (Request::default(), "dictionary"),
            (Request { text: Vec::new(), ..ok.clone() }, "text"),
            (Request { score_tokens: 0, ..ok.clone() }, "score_tokens: expected 2"),
            (Request { window: 1, ..ok.clone() }, "window"),
            (Request { words: 3, ..ok.clone() }, "words: expected 0, or 100"),
        ] {
            let error = request.check().unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
        for (json, text) in [("{}", "dictionary"), ("{\"text\": 3}", "text"), ("{\"what\": 3}", "what")] {
            let error = Request::from_json(json).unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
    }
}
