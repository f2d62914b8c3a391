//! The same message with and without the instruction, as the model's tokens.

use super::request::{Example, Place};
use super::wording::sentence;
use crate::engine::{Document, Engine, Message};
use crate::error::{Error, Result};

/// How messages are put to the model.
pub(in crate::choose) struct Asking {
    instruction: String,
    /// In place of the instruction.
    examples: Vec<Example>,
    place: Place,
    /// Tokens of the template behind a message: the last of them predicts the first token of the answer.
    pub(in crate::choose) tail: usize,
}

/// A message in both forms.
#[derive(Clone, Debug)]
pub(in crate::choose) struct Case {
    pub(in crate::choose) message: String,
    /// x
    pub(in crate::choose) plain: Vec<i32>,
    /// x'
    pub(in crate::choose) asked: Vec<i32>,
    /// What rows are held against in place of x: the same message behind examples of what not to do.
    pub(in crate::choose) against: Option<Vec<i32>>,
}

/// Examples that stand before a message.
const SHOWN: usize = 4;

/// Whether the model has a chat template that llama.cpp knows.
pub(in crate::choose) fn has_template(engine: &Engine) -> bool {
    engine.chat(&[Message::user("a")], true).is_ok()
}

impl Asking {
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a place that needs a template which the model has not.
    pub(in crate::choose) fn new(engine: &Engine, instruction: &str, place: Place) -> Result<Self> {
        if place != Place::Front && !has_template(engine) {
            let (path, place) = (engine.path().display(), place.name());
            return Err(Error::unsupported(format!(
                "{path}: place: {place} needs a chat template, the model has none"
            ))
            .hinted("put the instruction in front"));
        }
        Self::with(engine, Self { instruction: sentence(instruction), examples: Vec::new(), place, tail: 0 })
    }

    /// Asks by examples.
    pub(super) fn by_examples(engine: &Engine, examples: &[Example]) -> Result<Self> {
        let place = if has_template(engine) { Place::Appended } else { Place::Front };
        Self::with(engine, Self { instruction: String::new(), examples: examples.to_vec(), place, tail: 0 })
    }

    fn with(engine: &Engine, mut asking: Self) -> Result<Self> {
        let (one, other) = (asking.plain(engine, "One.")?, asking.plain(engine, "Why not?")?);
        asking.tail = common(&one, &other).max(1);
        Ok(asking)
    }

    /// Where the instruction stands: `system`, `appended`, `front`, or `examples` in its place.
    pub(super) fn name(&self) -> &'static str {
        if self.examples.is_empty() { self.place.name() } else { "examples" }
    }

    /// A message behind examples of what to do, or of what not to do. Other messages have other ones.
    fn shown(&self, engine: &Engine, message: &str, wanted: bool) -> Result<Vec<i32>> {
        let start = message.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let answer = |e: &'_ Example| if wanted { Some(e.wanted.clone()) } else { e.unwanted.clone() };
        let shown = (0..self.examples.len()).map(|i| &self.examples[(start + i) % self.examples.len()]);
        let shown = shown.filter_map(|e| Some((e.message.as_str(), answer(e)?))).take(SHOWN);
        if self.place == Place::Front {
            let before: String = shown.map(|(message, answer)| format!("{message}\n{answer}\n\n")).collect();
            return engine.document_tokens(&Document::Text(format!("{before}{message}\n")));
        }
        let turns = shown.flat_map(|(message, answer)| [Message::user(message), Message::assistant(answer)]);
        engine.chat_tokens(&turns.chain([Message::user(message)]).collect::<Vec<_>>(), true)
    }

    /// A message without the instruction.
    pub(in crate::choose) fn plain(&self, engine: &Engine, message: &str) -> Result<Vec<i32>> {
        match self.place {
            Place::Front => engine.document_tokens(&Document::Text(format!("{message}\n"))),
            _ => engine.chat_tokens(&[Message::user(message)], true),
        }
    }

    /// A message with the instruction.
    fn asked(&self, engine: &Engine, message: &str) -> Result<Vec<i32>> {
        let told = &self.instruction;
        if !self.examples.is_empty() {
            return self.shown(engine, message, true);
        }
        match self.place {
            Place::Front => engine.document_tokens(&Document::Text(format!("{told}\n{message}\n"))),
            Place::System => {
                let system = Message { role: "system".into(), content: told.clone() };
                engine.chat_tokens(&[system, Message::user(message)], true)
            }
            Place::Appended | Place::Auto => engine.chat_tokens(&[Message::user(format!("{message} {told}"))], true),
        }
    }

    /// Messages in both forms; `more` tokens must have room behind each.
    pub(in crate::choose) fn cases(&self, engine: &Engine, messages: &[String], more: usize) -> Result<Vec<Case>> {
        let case = |message: &String| {
            let (plain, asked) = (self.plain(engine, message)?, self.asked(engine, message)?);
            let (n, longest) = (asked.len() + more, engine.longest());
            if n > longest {
                let start: String = message.chars().take(40).collect();
                return Err(Error::argument(format!(
                    "message {start:?}: {n} tokens with the instruction and an answer, expected at most {longest}"
                ))
                .hinted("shorten the message, or ask for shorter answers"));
            }
            let unwanted = self.examples.iter().any(|example| example.unwanted.is_some());
            let against = unwanted.then(|| self.shown(engine, message, false)).transpose()?;
            Ok(Case { message: message.clone(), plain, asked, against })
        };
        messages.iter().map(case).collect()
    }
}

/// Tokens that both end with.
pub(in crate::choose) fn common(a: &[i32], b: &[i32]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_ends_are_counted() {
        assert_eq!(common(&[1, 2, 3], &[9, 2, 3]), 2);
        assert_eq!(common(&[1], &[2]), 0);
        assert_eq!(common(&[2, 3], &[2, 3]), 2);
    }
}
