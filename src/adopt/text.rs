//! The text to learn from: pieces of what was given, in a seeded order, or what the model writes by itself.

use std::io::Write;

use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use super::Job;
use crate::engine::{Document, Engine, Generate, Message};
use crate::error::{Error, Kind, Result};
use crate::eval::trial;
use crate::file::{json, text, write_atomic};
use crate::num::rng;
use crate::progress::{Progress, Step};

/// Longest piece, in bytes: so that one book is not all of a small budget.
const PIECE: usize = 4000;
/// One piece in so many is kept for the self-test.
const HELD_OUT: usize = 50;
/// Tokens of a sample.
const SAMPLE: usize = 256;
/// Bytes of a line of samples, at most: a sample has some kilobytes.
const MAX_LINE: u64 = 1 << 20;
/// What helps when the samples are damaged.
const HINT: &str = "remove the file: the model writes its samples anew";
/// Share of the time in which the model writes, if it has to.
const WRITE_UNTIL: f64 = 0.3;

/// Pieces of text.
pub(super) struct Text {
    /// To learn from.
    pub(super) train: Vec<Document>,
    /// To test on.
    pub(super) held_out: Vec<Document>,
}

/// A digest of documents.
pub(super) fn identity(text: &[Document]) -> String {
    let mut hash = Sha256::new();
    for document in text {
        hash.update(serde_json::to_vec(&fields(document)).unwrap_or_default());
        hash.update(b"\n");
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn fields(document: &Document) -> serde_json::Value {
    match document {
        Document::Text(text) => serde_json::json!({ "text": text }),
        Document::Chat(messages) => serde_json::json!({ "messages": messages }),
    }
}

impl Job<'_> {
    /// The text of this adoption: the same at every call.
    pub(super) fn text(&mut self, progress: &mut Progress<'_>) -> Result<Text> {
        let own = self.options.text.is_empty();
        let written = if own { self.samples(progress)? } else { Vec::new() };
        let given = if own { &written } else { &self.options.text };
        let as_chat = !given.iter().any(|document| matches!(document, Document::Chat(_))) || self.knows_chat()?;
        let mut pieces: Vec<Document> =
            given.iter().flat_map(|document| if as_chat { cut(document) } else { cut(&plain(document)) }).collect();
        pieces.shuffle(&mut rng(1));
        if pieces.len() < 2 * HELD_OUT {
            return Err(Error::argument(format!(
                "adopt: expected text for a hundred pieces of {PIECE} bytes or shorter documents, found {}",
                pieces.len()
            )));
        }
        let held_out = pieces.split_off(pieces.len() - pieces.len() / HELD_OUT);
        Ok(Text { train: pieces, held_out })
    }

    /// Whether the model has a chat template that can be used; a base model has none.
    fn knows_chat(&self) -> Result<bool> {
        let engine = Engine::open(self.path, &self.engine_options())?;
        match engine.chat(&[Message::user("?")], true) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == Kind::Unsupported => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// What the model writes by itself, in some time, after neutral beginnings; kept in a file.
    fn samples(&self, progress: &mut Progress<'_>) -> Result<Vec<Document>> {
        let path = self.work.join("samples.jsonl");
        if path.exists() {
            let mut samples = Vec::new();
            text::for_each_line(&path, MAX_LINE, |number, line| {
                let sample = serde_json::from_str(line).map(Document::Text);
                samples.push(sample.map_err(|e| json::error(&e, line, path.display(), number, HINT))?);
                Ok(())
            })?;
            return Ok(samples);
        }
        let options = crate::engine::Options {
            context: trial::SEQUENCES * (SAMPLE + 32),
            sequences: trial::SEQUENCES,
            ..self.engine_options()
        };
        let mut engine = Engine::open(self.path, &options)?;
        let mut texts: Vec<String> = Vec::new();
        let all = self.clock.until(WRITE_UNTIL);
        while texts.len() < 4 * HELD_OUT || self.clock.until(WRITE_UNTIL) > 0.0 {
            let done = (100.0 * (1.0 - self.clock.until(WRITE_UNTIL) / all.max(1.0))) as u64;
            if !self.clock.tell(progress, "the model writes", Step { done, total: 100, note: "" }) {
                return Err(Error::cancelled());
            }
            let beginning = |i: usize| trial::PROMPTS[(texts.len() + i) % trial::PROMPTS.len()].to_owned();
            let prompts: Vec<String> = (0..trial::SEQUENCES).map(beginning).collect();
            let seed = texts.len() as u32;
            let generate = Generate { max_tokens: SAMPLE, temperature: 1.0, top_p: 0.95, seed, ..Generate::default() };
            for (prompt, made) in prompts.iter().zip(engine.generate_many(&prompts, &generate)?) {
                texts.push(format!("{prompt}{}", made.text()));
            }
        }
        write_atomic(&path, |file| {
            texts.iter().try_for_each(|text| {
                let line = serde_json::to_string(text).map_err(|e| Error::numeric(e.to_string()))?;
                writeln!(file, "{line}").map_err(|e| Error::io("write", &path, e))
            })
        })?;
        Ok(texts.into_iter().map(Document::Text).collect())
    }
}

/// A conversation as paragraphs.
fn plain(document: &Document) -> Document {
    match document {
        Document::Text(text) => Document::Text(text.clone()),
        Document::Chat(messages) => {
            Document::Text(messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n\n"))
        }
    }
}

/// Pieces of a document, cut between paragraphs, else lines, else words. A conversation stays whole.
fn cut(document: &Document) -> Vec<Document> {
    let Document::Text(text) = document else { return vec![document.clone()] };
    let (mut pieces, mut rest) = (Vec::new(), text.as_str());
    while rest.len() > PIECE {
        let end = (0..=PIECE).rev().find(|&i| rest.is_char_boundary(i)).unwrap_or(0);
        let (head, _) = rest.split_at(end);
        let at = ["\n\n", "\n", ". ", " "]
            .iter()
            .find_map(|mark| head.rfind(mark).map(|at| at + mark.len()).filter(|&at| at > PIECE / 4));
        let (piece, left) = rest.split_at(at.unwrap_or(end).max(1));
        pieces.push(Document::Text(piece.trim().to_owned()));
        rest = left;
    }
    pieces.push(Document::Text(rest.trim().to_owned()));
    pieces.retain(|piece| !matches!(piece, Document::Text(text) if text.is_empty()));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_become_paragraphs() {
        let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let chat = Document::Chat(vec![message("user", "Why?"), message("assistant", "Because.")]);
        assert_eq!(cut(&plain(&chat)), [Document::Text("Why?\n\nBecause.".into())]);
        assert_eq!(cut(&chat), [chat]);
    }

    #[test]
    fn books_become_pieces_and_lose_nothing_but_space() {
        let text: String =
            (0..3000).map(|i| if i % 40 == 39 { format!("wörd{i}.\n\n") } else { format!("wörd{i} ") }).collect();
        for text in [text.clone(), text.replace(char::is_whitespace, "")] {
            let pieces = cut(&Document::Text(text.clone()));
            let mut joined = String::new();
            for piece in &pieces {
                let Document::Text(piece) = piece else { panic!("a piece of text is text") };
                assert!(piece.len() <= PIECE && !piece.is_empty());
                joined += piece;
            }
            let bare = |text: &str| text.replace(char::is_whitespace, "");
            assert!(pieces.len() > 2 && bare(&joined) == bare(&text));
        }
        assert_eq!(cut(&Document::Text(String::new())).len(), 0);
        assert_eq!(identity(&[Document::Text("a".into())]).len(), 16);
    }
}
