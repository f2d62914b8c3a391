//! Text files as documents: what is read, harvested and trained on.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::{Engine, Message};
use crate::error::{Error, Result};

/// One piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Plain text.
    Text(String),
    /// A conversation, to be written by the model's own chat template.
    Chat(Vec<Message>),
}

/// The documents of text files, in order.
///
/// A `.jsonl` file holds one document a line, `{"text": …}` or `{"messages": [{"role": …, "content": …}, …]}`, other keys
/// are ignored. Any other file is one document.
pub fn documents(files: &[PathBuf]) -> Result<Vec<Document>> {
    let mut all = Vec::new();
    for path in files {
        if path.extension().is_some_and(|e| e == "jsonl") {
            let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
            for (number, line) in (1..).zip(BufReader::new(file).lines()) {
                let line = line.map_err(|e| Error::io("read", path, e))?;
                if !line.trim().is_empty() {
                    all.push(
                        document(&line).map_err(|what| Error::format(path, format_args!("line {number}: {what}")))?,
                    );
                }
            }
        } else {
            let bytes = std::fs::read(path).map_err(|e| Error::io("open", path, e))?;
            all.push(Document::Text(String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(all)
}

fn document(line: &str) -> std::result::Result<Document, String> {
    #[derive(serde::Deserialize)]
    struct Line {
        text: Option<String>,
        messages: Option<Vec<Message>>,
    }
    let line: Line = serde_json::from_str(line).map_err(|e| e.to_string())?;
    match (line.text, line.messages) {
        (Some(text), None) => Ok(Document::Text(text)),
        (None, Some(messages)) => Ok(Document::Chat(messages)),
        _ => Err("expected \"text\" or \"messages\"".into()),
    }
}

impl Engine {
    /// The tokens of a document, BOS in front where the model wants it.
    pub fn document_tokens(&self, document: &Document) -> Result<Vec<i32>> {
        match document {
            Document::Text(text) => self.tokenize(text, true),
            Document::Chat(messages) => self.tokenize(&self.chat(messages, false)?, true),
        }
    }
}

/// A hash of the text.
pub(super) fn identity(text: &[Document]) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    };
    for document in text {
        match document {
            Document::Text(text) => add(text),
            Document::Chat(messages) => messages.iter().for_each(|m| {
                add(&m.role);
                add(&m.content);
            }),
        }
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
