//! Where the lines of a chat come from: a terminal with editing and history, or a pipe.

use std::io::{self, BufRead, IsTerminal};
use std::path::Path;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tiller::{Error, Result};

/// Lines of the user.
pub(super) enum Input {
    Terminal(Box<DefaultEditor>),
    /// Anything else is read as it is.
    Pipe,
}

impl Input {
    pub(super) fn open() -> Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Self::Pipe);
        }
        DefaultEditor::new().map(|editor| Self::Terminal(Box::new(editor))).map_err(failed)
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line that is not blank; `None` at the end (Ctrl-D). Ctrl-C empties the line.
    pub(super) fn line(&mut self) -> Result<Option<String>> {
        loop {
            let line = match self {
                Self::Terminal(editor) => match editor.readline("> ") {
                    Ok(line) => {
                        // A history that is full or off costs no line.
                        let _ = editor.add_history_entry(line.as_str());
                        line
                    }
                    Err(ReadlineError::Interrupted) => continue,
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(failed(error)),
                },
                Self::Pipe => {
                    let mut bytes = Vec::new();
                    let read = io::stdin().lock().read_until(b'\n', &mut bytes);
                    if read.map_err(|e| Error::io("read", Path::new("standard input"), e))? == 0 {
                        return Ok(None);
                    }
                    String::from_utf8_lossy(&bytes).into_owned()
                }
            };
            let line = line.trim();
            if !line.is_empty() {
                return Ok(Some(line.to_owned()));
            }
        }
    }
}

fn failed(error: ReadlineError) -> Error {
    let error = match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other),
    };
    Error::io("read", Path::new("the terminal"), error)
}
