//! What a guard is to learn, as data: the same in Rust, on the command line and in C's JSON.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

/// What the model is told on the side that teaches it to refuse.
pub const INSTRUCTION: &str = "You are a helpful assistant. If a request asks for something harmful, illegal, dangerous or \
    hateful, do not help: answer only \"I'm sorry, but I can't help with that.\" Otherwise answer normally.";
/// Fewest messages of a side: three quarters are fitted on, the rest calibrates.
const LEAST: usize = 16;

/// What to learn. In JSON every key but the two lists may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// Messages that are to be refused.
    #[serde(rename = "for")]
    pub refused: Vec<String>,
    /// Messages that are to be answered as ever.
    #[serde(rename = "not")]
    pub answered: Vec<String>,
    /// What the monitor is called.
    pub name: String,
    /// What the model is told, as a system message, on the side that shows what refusing is.
    pub instruction: String,
    /// Share of the messages that are to be answered on which the monitor may fire: the knob.
    pub false_positives: f64,
    /// How strongly the rule acts; 0 tries some on messages that nothing was fitted on.
    pub strength: f32,
    /// Messages of each side that are fitted on, at most, and that calibrate, at most.
    pub messages: usize,
    /// Tokens of answers that are read as rows at which the guard must be silent, at most; 0 reads none.
    pub max_tokens: usize,
    /// Deals the messages out.
    pub seed: u64,
    /// Threads of what is not the model; 0 takes all.
    pub threads: usize,
    /// Another quantization of the engine's model, for which the guard is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts_as: Option<PathBuf>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            refused: Vec::new(),
            answered: Vec::new(),
            name: "harm".into(),
            instruction: INSTRUCTION.into(),
            false_positives: 0.02,
            strength: 0.0,
            messages: 160,
            max_tokens: 12,
            seed: 0,
            threads: 0,
            counts_as: None,
        }
    }
}

impl Request {
    /// To refuse messages like the first and to answer those like the others.
    pub fn new(refused: impl IntoIterator<Item = String>, answered: impl IntoIterator<Item = String>) -> Self {
        Self { refused: refused.into_iter().collect(), answered: answered.into_iter().collect(), ..Self::default() }
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Kind::Argument`] for what is none, with line, column and key; as [`check`](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        let hint = "keys are for, not, name, instruction, false_positives, strength, messages, max_tokens, seed, threads, counts_as";
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
        for (key, list) in [("for", &self.refused), ("not", &self.answered)] {
            if list.len() < LEAST {
                let n = list.len();
                return Err(Error::argument(format!("{key}: expected {LEAST} messages or more, found {n}"))
                    .hinted("three quarters are learned from, the rest sets the threshold"));
            }
            if let Some(at) = list.iter().position(|message| message.trim().is_empty()) {
                return Err(Error::argument(format!("{key}[{at}]: expected a message, found nothing")));
            }
        }
        let refused: std::collections::HashSet<&str> = self.refused.iter().map(String::as_str).collect();
        if let Some(both) = self.answered.iter().find(|message| refused.contains(message.as_str())) {
            return Err(Error::argument(format!("not: {both:?} is among the messages of `for`, too")));
        }
        for (key, text) in [("name", &self.name), ("instruction", &self.instruction)] {
            if text.trim().is_empty() {
                return Err(Error::argument(format!("{key}: expected a text, found nothing")));
            }
        }
        if !(self.false_positives > 0.0 && self.false_positives <= 0.5) {
            let found = self.false_positives;
            return Err(Error::argument(format!(
                "false_positives: expected a share above 0, 0.5 at most, found {found}"
            )));
        }
        if !(self.strength.is_finite() && self.strength >= 0.0) {
            return Err(Error::argument(format!("strength: expected 0 or more, found {}", self.strength)));
        }
        if self.messages < LEAST {
            return Err(Error::argument(format!("messages: expected {LEAST} or more, found {}", self.messages)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: &str, n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{kind} {i}")).collect()
    }

    #[test]
    fn a_request_comes_back_from_json() {
        let request = Request { seed: 7, ..Request::new(list("a", 16), list("b", 20)) };
        assert_eq!(Request::from_json(&serde_json::to_string(&request).unwrap()).unwrap(), request);
    }

    #[test]
    fn mistakes_are_named() {
        let ok = Request::new(list("a", 16), list("b", 16));
        ok.check().unwrap();
        for (request, text) in [
            (Request::new(list("a", 15), list("b", 16)), "for: expected 16"),
            (Request::new(list("a", 16), list("b", 3)), "not: expected 16"),
            (Request::new(list("a", 16), list("a", 16)), "is among the messages"),
            (Request { false_positives: 0.0, ..ok.clone() }, "false_positives"),
            (Request { false_positives: f64::NAN, ..ok.clone() }, "false_positives"),
            (Request { strength: -1.0, ..ok.clone() }, "strength"),
            (Request { name: " ".into(), ..ok.clone() }, "name"),
            (Request { messages: 2, ..ok }, "messages"),
        ] {
            let error = request.check().unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
        for (json, text) in [("{}", "for"), ("{\"for\": 3}", "request"), ("{\"what\": 3}", "what")] {
            let error = Request::from_json(json).unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
    }
}
