//! What is to be measured, as data: the same in Rust, on the command line and in C's JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::plan::Phase;

/// Largest multiple of μ⁺ − μ⁻ that is tried.
const MOST_STRENGTH: f32 = 1000.0;
/// Longest answer, in tokens.
const MOST_TOKENS: usize = 256;

/// Which features, on which questions. In JSON every key may be left out, but one of `dictionary` and `layer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// The dictionary whose features are turned. None: the mean row itself is moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<PathBuf>,
    /// The block whose output is moved where there is no dictionary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Groups of paraphrases, JSONL (see [`groups`](super::groups)), in place of the built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<PathBuf>,
    /// Whether questions are users' messages in the chat template. None: where the model has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat: Option<bool>,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Features that are turned.
    pub features: usize,
    /// Strengths α that are tried.
    pub strengths: Vec<f32>,
    /// Rows that are edited.
    pub phase: Phase,
    /// Share of the groups on which features are found.
    pub fit: f64,
    /// Share of the groups on which the strength is chosen.
    pub choose: f64,
    /// An accuracy lower by more than this rules a strength out.
    pub slack: f64,
    /// Runs in which the signs of the edits are drawn anew.
    pub controls: usize,
    /// Whether multiple-choice questions are asked, too: what the plan does to what the model knows.
    pub questions: bool,
    /// Deals groups, draws signs and intervals.
    pub seed: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            dictionary: None,
            layer: None,
            groups: None,
            chat: None,
            max_tokens: 12,
            features: 32,
            strengths: vec![0.5, 1.0, 2.0, 4.0, 8.0],
            phase: Phase::All,
            fit: 0.3,
            choose: 0.15,
            slack: 0.02,
            controls: 3,
            questions: true,
            seed: 0,
        }
    }
}

impl Request {
    /// With this dictionary, and all defaults.
    pub fn new(dictionary: impl Into<PathBuf>) -> Self {
        Self { dictionary: Some(dictionary.into()), ..Self::default() }
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Kind::Argument`] for what is none, with line, column and key; as [`check`](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        let hint = "keys are dictionary, layer, groups, chat, max_tokens, features, strengths, phase, fit, choose, slack, \
                    controls, questions, seed";
        let request: Self = serde_json::from_str(text).map_err(|e| {
            let error = crate::file::json::error(&e, text, "request", 1, hint);
            Error::new(Kind::Argument, error.message()).hinted(hint)
        })?;
        request.check()?;
        Ok(request)
    }

    /// Checks what can be known without files and a model.
    ///
    /// # Errors
    /// [`Kind::Argument`], naming the key, what was expected and what was found.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::argument(what));
        if self.dictionary.is_some() == self.layer.is_some() {
            let found = if self.layer.is_some() { "both" } else { "neither" };
            return wrong(format!("dictionary: expected a dictionary, or a layer without one, found {found}"));
        }
        if !(1..=MOST_TOKENS).contains(&self.max_tokens) {
            return wrong(format!("max_tokens: expected 1 to {MOST_TOKENS}, found {}", self.max_tokens));
        }
        if self.features == 0 {
            return wrong("features: expected 1 or more, found 0".into());
        }
        let is_strength = |s: &&f32| !(**s > 0.0 && **s <= MOST_STRENGTH);
        if let Some(found) = self.strengths.iter().find(is_strength) {
            return wrong(format!("strengths: expected more than 0 and up to {MOST_STRENGTH}, found {found}"));
        }
        if self.strengths.is_empty() {
            return wrong("strengths: expected a number, found none".into());
        }
        for (key, share) in [("fit", self.fit), ("choose", self.choose)] {
            if !(0.05..=0.9).contains(&share) {
                return wrong(format!("{key}: expected 0.05 to 0.9, found {share}"));
            }
        }
        if self.fit + self.choose > 0.95 {
            return wrong(format!("choose: expected less than 0.95 with fit, found {}", self.fit + self.choose));
        }
        if !(0.0..=1.0).contains(&self.slack) {
            return wrong(format!("slack: expected 0 to 1, found {}", self.slack));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_from_json() {
        let request = Request { seed: 7, phase: Phase::Prompt, chat: Some(false), ..Request::new("d.gguf") };
        assert_eq!(Request::from_json(&serde_json::to_string(&request).unwrap()).unwrap(), request);
        assert_eq!(Request::from_json("{\"dictionary\": \"d.gguf\"}").unwrap(), Request::new("d.gguf"));
    }

    #[test]
    fn mistakes_are_named() {
        let ok = Request::new("d.gguf");
        for (request, text) in [
            (Request::default(), "found neither"),
            (Request { layer: Some(3), ..ok.clone() }, "found both"),
            (Request { max_tokens: 0, ..ok.clone() }, "max_tokens"),
            (Request { features: 0, ..ok.clone() }, "features"),
            (Request { strengths: vec![1.0, -1.0], ..ok.clone() }, "strengths: expected more than 0"),
            (Request { strengths: vec![f32::NAN], ..ok.clone() }, "strengths: expected more than 0"),
            (Request { strengths: Vec::new(), ..ok.clone() }, "strengths: expected a number"),
            (Request { fit: 0.0, ..ok.clone() }, "fit"),
            (Request { fit: 0.6, choose: 0.4, ..ok.clone() }, "choose: expected less"),
            (Request { slack: -0.1, ..ok.clone() }, "slack"),
        ] {
            let error = request.check().unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
        for (json, text) in [("{}", "neither"), ("{\"layer\": \"x\"}", "layer"), ("{\"what\": 3}", "what")] {
            let error = Request::from_json(json).unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
    }
}
