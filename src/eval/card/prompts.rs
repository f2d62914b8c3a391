//! What texts go on from: users' messages, or neutral beginnings.

use super::aim::Aims;
use super::report::Measure;
use super::request::Request;
use super::texts::Case;
use crate::engine::{Document, Engine, Message};
use crate::error::{Error, Result};
use crate::eval::concepts::Suite;

/// What users say where nobody says what.
pub(super) fn messages() -> impl Iterator<Item = &'static str> {
    include_str!("messages.txt").lines()
}

/// Whether prompts stand in the chat template.
pub(super) fn is_chat(engine: &Engine, request: &Request, aims: &Aims) -> Result<bool> {
    let template = engine.chat(&[Message::user("a")], true);
    match (request.chat, template) {
        (Some(true), Err(error)) => Err(error.hinted("leave chat out: texts then go on from plain beginnings")),
        (Some(chat), _) => Ok(chat),
        (None, template) => Ok(template.is_ok() && aims.measure == Measure::Asked),
    }
}

/// The prompts as tokens.
pub(super) fn cases(engine: &Engine, request: &Request, aims: &Aims, chat: bool, suite: &Suite) -> Result<Vec<Case>> {
    let own: Vec<String> = match chat {
        true => messages().map(str::to_owned).collect(),
        false => suite.prompts.clone(),
    };
    let prompts = if request.prompts.is_empty() { &own } else { &request.prompts };
    let tokens = |text: &str, told: Option<&str>| match (chat, told) {
        (true, Some(told)) => engine.chat_tokens(&[Message::user(format!("{text} {told}"))], true),
        (true, None) => engine.chat_tokens(&[Message::user(text)], true),
        (false, Some(told)) => engine.document_tokens(&Document::Text(format!("{told}\n{text}"))),
        (false, None) => engine.document_tokens(&Document::Text(text.to_owned())),
    };
    let case = |text: &String| {
        let (plain, told) =
            (tokens(text, None)?, aims.told.as_deref().map(|told| tokens(text, Some(told))).transpose()?);
        let aimed = aims.names.iter().take(aims.n_asked()).map(|name| tokens(text, Some(name)));
        let aimed = aimed.collect::<Result<Vec<_>>>()?;
        let longest = told.as_ref().unwrap_or(&plain).len().max(plain.len()) + request.max_tokens;
        if longest > engine.longest() {
            let (start, most) = (text.chars().take(40).collect::<String>(), engine.longest());
            return Err(Error::argument(format!(
                "prompt {start:?}: {longest} tokens with a text, expected at most {most}"
            )));
        }
        let prompt = text.clone();
        Ok(match (aims.against, told) {
            // What is asked for is what the plan turns against: the texts that it changes are those that were asked for.
            (true, Some(told)) => {
                Case { prompt, plain: told, asked: Some(plain.clone()), aims: vec![plain; aimed.len()] }
            }
            (_, told) => Case { prompt, plain, asked: told, aims: aimed },
        })
    };
    prompts.iter().take(request.texts.max(request.prompts.len())).map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::concepts::hits;

    #[test]
    fn prompts_are_neutral_and_no_others() {
        let (suite, mut seen) = (Suite::built_in().unwrap(), std::collections::HashSet::new());
        assert!(messages().count() >= Request::default().texts);
        let learned = include_str!("../../choose/learn/messages.txt");
        for message in messages() {
            assert!(!learned.lines().any(|other| other == message), "learning has seen it: {message}");
            assert!(seen.insert(message), "twice: {message}");
            for concept in &suite.concepts {
                let words = [concept.words.as_slice(), &concept.held_out].concat();
                assert_eq!(hits(message, &words), 0, "{}: {message}", concept.name);
            }
        }
    }
}
