//! What is to be learned, as data: the same in Rust, on the command line and in C's JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Fewest messages that can be split for fitting, choosing and scoring.
const LEAST: usize = 12;
/// Fewest examples that show what they have in common.
const LEAST_EXAMPLES: usize = 4;

/// What to learn, and how much may be spent on it. In JSON every key but `instruction` may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// What the model is told: "Talk about the sea." Beside examples it only names what they show.
    pub instruction: String,
    /// Examples in place of an instruction. Each message is asked behind some of them, as a conversation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
    /// What users say; half is fitted on, the rest chooses and scores. Empty: 120 messages of all kinds that come with tiller.
    pub messages: Vec<String>,
    /// Messages for which the instruction is not meant: the features stay silent on them.
    pub unless: Vec<String>,
    /// Where the instruction stands.
    pub place: Place,
    /// Also finds how strongly the features can be turned against the instruction.
    pub avoid: bool,
    /// Answers to fit on, at most.
    pub answers: usize,
    /// Tokens of an answer that is fitted on, at most.
    pub max_tokens: usize,
    /// Deals the messages out.
    pub seed: u64,
    /// Minutes that it may take; 0 sets no limit. Fewer answers and trials where time is short.
    pub minutes: f64,
    /// Threads of what is not the model; 0 takes all.
    pub threads: usize,
    /// Another quantization of the engine's model, for which the features are meant: where the engine runs a copy of it with
    /// weights of a type that is faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts_as: Option<PathBuf>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            instruction: String::new(),
            examples: Vec::new(),
            messages: Vec::new(),
            unless: Vec::new(),
            place: Place::Auto,
            avoid: false,
            answers: 48,
            max_tokens: 60,
            seed: 0,
            minutes: 0.0,
            threads: 0,
            counts_as: None,
        }
    }
}

/// What to do and what not to do, shown on a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What the user says.
    pub message: String,
    /// An answer as it should be.
    #[serde(rename = "do")]
    pub wanted: String,
    /// An answer as it should not be.
    #[serde(rename = "dont", default, skip_serializing_if = "Option::is_none")]
    pub unwanted: Option<String>,
}

/// Where an instruction stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Of those that the model has, the one by which its answers are changed most.
    #[default]
    Auto,
    /// A system message.
    System,
    /// Behind the user's message.
    Appended,
    /// A line in front of the text, for models without a chat template.
    Front,
}

impl Place {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::System => "system",
            Self::Appended => "appended",
            Self::Front => "front",
        }
    }
}

impl Request {
    /// To learn `instruction` with all defaults.
    pub fn new(instruction: impl Into<String>) -> Self {
        Self { instruction: instruction.into(), ..Self::default() }
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Kind::Argument`] for what is none, with line, column and key; as [`check`](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        let hint = "keys are instruction, examples, messages, unless, place, avoid, answers, max_tokens, seed, minutes, threads, counts_as";
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
        if self.instruction.trim().is_empty() && self.examples.is_empty() {
            return Err(Error::argument("instruction: expected what the model is to do, found nothing")
                .hinted("for example \"Talk about the sea.\""));
        }
        if !self.examples.is_empty() && self.examples.len() < LEAST_EXAMPLES {
            let n = self.examples.len();
            return Err(Error::argument(format!("examples: expected {LEAST_EXAMPLES} or more, found {n}")));
        }
        if let Some(at) = self.examples.iter().position(|e| e.message.trim().is_empty() || e.wanted.trim().is_empty()) {
            return Err(Error::argument(format!("examples[{at}]: expected a message and what to do, found nothing")));
        }
        for (key, list) in [("messages", &self.messages), ("unless", &self.unless)] {
            if !list.is_empty() && list.len() < LEAST {
                let n = list.len();
                return Err(Error::argument(format!("{key}: expected {LEAST} messages or more, found {n}"))
                    .hinted("half is learned from, the rest chooses and scores"));
            }
            if let Some(at) = list.iter().position(|message| message.trim().is_empty()) {
                return Err(Error::argument(format!("{key}[{at}]: expected a message, found nothing")));
            }
        }
        if let Some(both) = self.unless.iter().find(|message| self.messages.contains(message)) {
            return Err(Error::argument(format!("unless: {both:?} is among the messages that it is meant for, too")));
        }
        for (key, found, least) in [("answers", self.answers, 4), ("max_tokens", self.max_tokens, 8)] {
            if found < least {
                return Err(Error::argument(format!("{key}: expected {least} or more, found {found}")));
            }
        }
        if !(self.minutes.is_finite() && self.minutes >= 0.0) {
            return Err(Error::argument(format!("minutes: expected 0 or more, found {}", self.minutes)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_from_json() {
        let request = Request { seed: 7, place: Place::System, ..Request::new("Talk about the sea.") };
        assert_eq!(Request::from_json(&serde_json::to_string(&request).unwrap()).unwrap(), request);
        assert_eq!(Request::from_json("{\"instruction\": \"Rhyme.\"}").unwrap(), Request::new("Rhyme."));
    }

    #[test]
    fn mistakes_are_named() {
        let few = ["a", "b"].map(String::from).to_vec();
        let many: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        let ok = Request::new("Rhyme.");
        for (request, text) in [
            (Request::default(), "instruction"),
            (Request { messages: few.clone(), ..ok.clone() }, "messages: expected 12"),
            (Request { unless: few, ..ok.clone() }, "unless: expected 12"),
            (Request { unless: many.clone(), messages: many, ..ok.clone() }, "is meant for, too"),
            (Request { minutes: f64::NAN, ..ok.clone() }, "minutes"),
            (Request { max_tokens: 1, ..ok.clone() }, "max_tokens"),
            (Request { examples: vec![Example::default()], ..ok.clone() }, "examples: expected 4"),
            (Request { examples: vec![Example::default(); 4], ..ok.clone() }, "examples[0]"),
            (Request { answers: 0, ..ok }, "answers"),
        ] {
            let error = request.check().unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
        for (json, text) in [("{}", "instruction"), ("{\"instruction\": 3}", "request"), ("{\"what\": 3}", "what")] {
            let error = Request::from_json(json).unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
        }
    }
}
