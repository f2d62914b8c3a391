//! The same message with and without the instruction, as the model's tokens.

use super::request::Place;
use super::wording::sentence;
use crate::engine::{Document, Engine, Message};
use crate::error::{Error, Result};

/// How messages are put to the model.
pub(in crate::choose) struct Asking {
    instruction: String,
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
}

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
        let mut asking = Self { instruction: sentence(instruction), place, tail: 0 };
        let (one, other) = (asking.plain(engine, "One.")?, asking.plain(engine, "Why not?")?);
        asking.tail = common(&one, &other).max(1);
        Ok(asking)
    }

    pub(in crate::choose) fn place(&self) -> Place {
        self.place
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
            Ok(Case { message: message.clone(), plain, asked })
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
