//! What a card is made of, as data: the same in Rust, on the command line and in C's JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Fewest texts of which an interval can be told.
const LEAST_TEXTS: usize = 4;
/// Most texts side by side and one after the other.
const MOST_TEXTS: usize = 256;
/// Tokens of a text: loops show from some dozen on.
const TOKENS: std::ops::RangeInclusive<usize> = 8..=512;
/// Random directions whose spread can be told.
const DIRECTIONS: std::ops::RangeInclusive<usize> = 2..=1000;
/// Largest multiple of a plan that is tried.
const MOST_FACTOR: f32 = 100.0;

/// Which plan, on which texts. In JSON every key but `plan` may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// A plan (JSON), a file of learned features, or a control vector (GGUF).
    pub plan: PathBuf,
    /// Multiplies the plan's strengths.
    pub factor: f32,
    /// The dictionaries that the plan names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dictionaries: Vec<Named>,
    /// What the plan is meant to make the model speak of, in words. None: what its instruction or its explanations say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// Other words of the same thing, that score texts. None: those of the built-in concept that the words name, else `words`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_out: Vec<String>,
    /// What the model is told where it is asked for the same. None: the instruction that was learned, or one made of the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// Whether prompts are users' messages in the chat template, or beginnings of texts. None: messages for an instruction,
    /// where the model has a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat: Option<bool>,
    /// Prompts in place of tiller's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// Texts that are written with the plan, and without.
    pub texts: usize,
    /// Tokens of a text, at most.
    pub max_tokens: usize,
    /// Random directions of the same length that the plan is held against.
    pub directions: usize,
    /// Texts that are written under each of them, at most.
    pub direction_texts: usize,
    /// Multiples of the plan that are tried besides the plan itself.
    pub doses: Vec<f32>,
    /// Questions with choices in place of tiller's own: JSONL, see [`choices`](crate::eval::choices).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<PathBuf>,
    /// What is known of single features besides: JSONL of objects with a `feature`, such as which of them are universal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// A temporal model on the plan's dictionary, which predicts what an edit does later in the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temporal: Option<PathBuf>,
    /// Draws the random directions and the intervals.
    pub seed: u64,
    /// The command line that makes the same card, as it is to be shown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
}

/// A dictionary by the name that rules use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Empty for the only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// What its features mean. None: the file beside it that ends in .jsonl, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanations: Option<PathBuf>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            plan: PathBuf::new(),
            factor: 1.0,
            dictionaries: Vec::new(),
            words: Vec::new(),
            held_out: Vec::new(),
            instruction: None,
            chat: None,
            prompts: Vec::new(),
            texts: 16,
            max_tokens: 48,
            directions: 30,
            direction_texts: 8,
            doses: vec![0.25, 0.5, 1.5, 2.0, 3.0],
            questions: None,
            labels: None,
            temporal: None,
            seed: 0,
            command: String::new(),
        }
    }
}

impl Request {
    /// A card of the plan in `file` with all defaults.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { plan: file.into(), ..Self::default() }
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Kind::Argument`] for what is none, with line, column and key; as [`check`](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        let hint = "keys are plan, factor, dictionaries, words, held_out, instruction, chat, prompts, texts, max_tokens, \
            directions, direction_texts, doses, questions, labels, temporal, seed, command";
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
        if self.plan.as_os_str().is_empty() {
            return Err(Error::argument("plan: expected a file, found none"));
        }
        let texts = LEAST_TEXTS..=MOST_TEXTS;
        for (key, found, range) in [
            ("texts", self.texts, texts.clone()),
            ("max_tokens", self.max_tokens, TOKENS),
            ("directions", self.directions, DIRECTIONS),
            ("direction_texts", self.direction_texts, 1..=MOST_TEXTS),
        ] {
            if !range.contains(&found) {
                let (low, high) = (range.start(), range.end());
                return Err(Error::argument(format!("{key}: expected {low} to {high}, found {found}")));
            }
        }
        if !self.prompts.is_empty() && !texts.contains(&self.prompts.len()) {
            let (n, least) = (self.prompts.len(), LEAST_TEXTS);
            return Err(Error::argument(format!("prompts: expected {least} to {MOST_TEXTS}, found {n}")));
        }
        if !(self.factor.is_finite() && self.factor.abs() <= MOST_FACTOR) {
            let found = self.factor;
            return Err(Error::argument(format!("factor: expected −{MOST_FACTOR} to {MOST_FACTOR}, found {found}")));
        }
        let is_dose = |dose: &f32| dose.is_finite() && *dose > 0.0 && *dose <= MOST_FACTOR;
        if let Some(other) = self.doses.iter().find(|dose| !is_dose(dose)) {
            return Err(Error::argument(format!(
                "doses: expected numbers above 0 and up to {MOST_FACTOR}, found {other}"
            )));
        }
        for (key, list) in [("prompts", &self.prompts), ("words", &self.words), ("held_out", &self.held_out)] {
            if let Some(at) = list.iter().position(|text| text.trim().is_empty()) {
                return Err(Error::argument(format!("{key}[{at}]: expected text, found none")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_from_json() {
        let request = Request { seed: 7, words: vec!["sea".into()], chat: Some(true), ..Request::new("p.json") };
        assert_eq!(Request::from_json(&serde_json::to_string(&request).unwrap()).unwrap(), request);
        assert_eq!(Request::from_json("{\"plan\": \"p.json\"}").unwrap(), Request::new("p.json"));
        let named = Request::from_json("{\"plan\": \"p\", \"dictionaries\": [{\"file\": \"d.gguf\"}]}").unwrap();
        assert_eq!(named.dictionaries[0], Named { file: "d.gguf".into(), ..Named::default() });
    }

    #[test]
    fn mistakes_are_named() {
        let ok = Request::new("p.json");
        for (request, text) in [
            (Request::default(), "plan"),
            (Request { texts: 1, ..ok.clone() }, "texts: expected 4"),
            (Request { max_tokens: 100_000, ..ok.clone() }, "max_tokens"),
            (Request { directions: 1, ..ok.clone() }, "directions: expected 2"),
            (Request { factor: f32::NAN, ..ok.clone() }, "factor"),
            (Request { doses: vec![1.0, -1.0], ..ok.clone() }, "doses"),
            (Request { prompts: vec!["a".into()], ..ok.clone() }, "prompts: expected 4"),
            (Request { words: vec![" ".into()], ..ok }, "words[0]"),
        ] {
            let error = request.check().unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
        for (json, text) in [("{}", "plan"), ("{\"plan\": 3}", "request"), ("{\"plan\": \"p\", \"what\": 3}", "what")] {
            let error = Request::from_json(json).unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
    }
}
