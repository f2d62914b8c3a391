//! How a prompt is put to the model: in its template or as a beginning, with an instruction or without, after other talk.

use tiller::Result;
use tiller::choose::learn;
use tiller::engine::{Document, Engine, Generate, Message};

use super::tasks::Setting;

/// Tokens of other talk that stand between an instruction at the start and the message.
const TALK: usize = 1500;
/// Tokens of an answer in it.
const TURN: usize = 100;

/// A prompt after `talk`, as tokens.
pub(super) fn put(engine: &Engine, setting: Setting, talk: &[Message], prompt: &str) -> Result<Vec<i32>> {
    match setting {
        Setting::Plain => engine.prompt_tokens(&Document::Text(prompt.to_owned())),
        Setting::Chat | Setting::Later => engine.chat_tokens(&[talk, &[Message::user(prompt)]].concat(), true),
    }
}

/// The same where the model is told something: at the place that the learner took, before all talk.
pub(super) fn ask(
    engine: &Engine,
    setting: Setting,
    talk: &[Message],
    prompt: &str,
    (told, place): (&str, &str),
) -> Result<Vec<i32>> {
    if setting == Setting::Plain {
        return put(engine, setting, talk, &format!("{told}\n{prompt}"));
    }
    let mut turns = [talk, &[Message::user(prompt)]].concat();
    match turns.first_mut().filter(|_| place != "system") {
        Some(first) => first.content = format!("{} {told}", first.content),
        None => turns.insert(0, Message::system(told)),
    }
    engine.chat_tokens(&turns, true)
}

/// Messages of the learner's, and what the model answers to each.
pub(super) fn other_talk(engine: &mut Engine) -> Result<Vec<Message>> {
    let (mut n, mut talk) = (0, Vec::new());
    for message in learn::messages() {
        if n >= TALK {
            break;
        }
        let prompt = engine.chat_tokens(&[Message::user(message)], true)?;
        let generate = Generate { max_tokens: TURN, ..Generate::chat() };
        let made = engine.generate_tokens(&prompt, &generate, &mut |_| true)?;
        n += prompt.len() + made.tokens().len();
        talk.extend([Message::user(message), Message::assistant(made.text())]);
    }
    Ok(talk)
}
