//! What is to be compared, as data: the same in Rust, on the command line and in C's JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// A dictionary and harvested rows of its layer. In JSON `dictionary`, `rows` and `held_out` are needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// The dictionary's file.
    pub dictionary: PathBuf,
    /// Rows on which features are explained, as a harvest writes them.
    pub rows: Vec<PathBuf>,
    /// Rows of other text, for AUC.
    pub held_out: Vec<PathBuf>,
    /// Rows of the last layer for the text of the first of `rows`; without them `tuned` is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_rows: Option<PathBuf>,
    /// Features that are compared: drawn from those that fire in ten held-out windows, and in no more than half.
    pub features: usize,
    /// Words of a feature that count.
    pub shown: usize,
    /// Words of the vocabulary, made from `rows`.
    pub vocabulary: usize,
    /// Spans of a feature, for `topact` and `n2g`.
    pub spans: usize,
    /// Length of the pushed vector for output and lift, relative to the row's.
    pub push: f32,
    /// Draws the features.
    pub seed: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            dictionary: PathBuf::new(),
            rows: Vec::new(),
            held_out: Vec::new(),
            final_rows: None,
            features: 200,
            shown: 15,
            vocabulary: 5000,
            spans: 10,
            push: 0.3,
            seed: 0,
        }
    }
}

impl Request {
    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Kind::Argument`] for what is none, with line, column and key; as [`check`](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        let hint = "keys are dictionary, rows, held_out, final_rows, features, shown, vocabulary, spans, push, seed";
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
        for (key, list) in [("rows", &self.rows), ("held_out", &self.held_out)] {
            if list.is_empty() {
                return wrong(format!("{key}: expected directories with rows, found none"));
            }
        }
        for (key, found) in
            [("features", self.features), ("shown", self.shown), ("vocabulary", self.vocabulary), ("spans", self.spans)]
        {
            if found == 0 {
                return wrong(format!("{key}: expected 1 or more, found 0"));
            }
        }
        if !(self.push.is_finite() && self.push > 0.0) {
            return wrong(format!("push: expected more than 0, found {}", self.push));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_and_requests_come_back() {
        let ok = Request {
            dictionary: "d".into(),
            rows: vec!["r".into()],
            held_out: vec!["h".into()],
            ..Request::default()
        };
        assert_eq!(Request::from_json(&serde_json::to_string(&ok).unwrap()).unwrap(), ok);
        for (request, text) in [
            (Request::default(), "dictionary"),
            (Request { held_out: Vec::new(), ..ok.clone() }, "held_out"),
            (Request { features: 0, ..ok.clone() }, "features"),
            (Request { push: 0.0, ..ok.clone() }, "push"),
        ] {
            let error = request.check().unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
        assert!(Request::from_json("{\"what\": 3}").unwrap_err().message().contains("what"));
    }
}
