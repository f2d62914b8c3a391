//! Going on from documents, side by side.

use serde_json::json;
use tiller::engine::{Document, Engine, Generate, Generation, Message, Stop};
use tiller::eval::trial;
use tiller::progress::Step;
use tiller::{Error, Result};

use crate::output::Out;

/// Goes on from every document, and writes documents.
pub(super) fn go_on(engine: &mut Engine, documents: &[Document], generate: &Generate, out: &Out) -> Result<()> {
    let mut bar = out.bar("prompts", "prompts");
    let (mut generate, mut n_full, mut n_written) = (generate.clone(), 0, 0);
    for (done, wave) in (0..).step_by(trial::SEQUENCES).zip(documents.chunks(trial::SEQUENCES)) {
        let asked: Vec<Document> = wave.iter().map(asked).collect();
        let prompts = asked.iter().map(|document| engine.prompt_tokens(document)).collect::<Result<Vec<_>>>()?;
        let step = Step { done, total: documents.len() as u64, note: "" };
        let generations = engine.generate_while(&prompts, &generate, &mut || bar.step(step))?;
        // Of a wave that was stopped, what had ended by itself is whole.
        let whole = asked.into_iter().zip(&generations).filter(|(_, made)| made.stop() != Some(Stop::Caller));
        for (document, made) in whole {
            out.object(&continued(document, made))?;
            n_full += usize::from(made.stop() == Some(Stop::Context));
            n_written += 1;
        }
        let all = documents.len();
        if n_written < all && crate::interrupt::asked() {
            return Err(Error::cancelled().hinted(format!("{n_written} of {all} documents were written, each whole")));
        }
        generate.seed = generate.seed.wrapping_add(trial::SEQUENCES as u32);
    }
    drop(bar);
    if n_full > 0 {
        super::full(engine, &format!("{n_full} of {n_written} texts end there, with \"stop\": \"context\""), out);
    }
    engine.finish().ok().map_err(|e| e.context("the texts are not what the plan says"))?;
    Ok(())
}

/// A document with what the model made of it.
fn continued(document: Document, made: &Generation) -> serde_json::Value {
    let stop = made.stop().map(Stop::name);
    match document {
        Document::Text(text) => json!({"text": text + made.text(), "stop": stop}),
        Document::Chat(mut messages) => {
            messages.push(Message::assistant(made.text()));
            json!({"messages": messages, "stop": stop})
        }
    }
}

/// What a document asks: a conversation without what comes after the last user's message.
pub(super) fn asked(document: &Document) -> Document {
    match document {
        Document::Text(text) => Document::Text(text.clone()),
        Document::Chat(messages) => {
            let n = messages.iter().rposition(|m| m.role == "user").map_or(messages.len(), |last| last + 1);
            Document::Chat(messages.iter().take(n).cloned().collect())
        }
    }
}
