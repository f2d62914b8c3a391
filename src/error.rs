//! The one error type of the library.
//!
//! Every call that can fail returns [`Result`]. An [`Error`] has a [`Kind`], for callers that branch, and a message,
//! for people: it names the file, the place, what was expected and what was found.

use std::path::Path;

/// What went wrong, in the order in which a caller would handle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// An argument broke the documented contract (wrong length, out of range).
    Argument,
    /// The operating system refused: a file is missing, unreadable, or the disk is full.
    Io,
    /// A file is not what its format says it should be.
    Format,
    /// The input is valid, but this build or version cannot handle it.
    Unsupported,
    /// Two things that were put together do not belong together (dictionary and model, plan and dictionary).
    Mismatch,
    /// A computation met NaN, infinity or a singular system.
    Numeric,
    /// The caller's progress function asked to stop.
    Cancelled,
    /// A bug in this library.
    Panic,
}

/// A kind to branch on and a message to show.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<std::io::Error>,
}

/// The result of every call that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` with a message for people: no trailing period or newline.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// [`Kind::Argument`].
    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(Kind::Argument, message)
    }

    /// [`Kind::Mismatch`].
    pub fn mismatch(message: impl Into<String>) -> Self {
        Self::new(Kind::Mismatch, message)
    }

    /// [`Kind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// [`Kind::Numeric`].
    pub fn numeric(message: impl Into<String>) -> Self {
        Self::new(Kind::Numeric, message)
    }

    /// [`Kind::Cancelled`].
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "cancelled by the caller")
    }

    /// [`Kind::Io`]: `what` was being done to `path` (`"open"`, `"write"`) when `source` happened.
    pub fn io(what: &str, path: &Path, source: std::io::Error) -> Self {
        let message = format!("{}: cannot {what}: {source}", path.display());
        Self { kind: Kind::Io, message, hint: None, source: Some(source) }
    }

    /// [`Kind::Format`]: `path` is malformed; `what` says where, what was expected and what was found.
    pub fn format(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::new(Kind::Format, format!("{}: {what}", path.display()))
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, if the place that failed knows better than a reader of the kind does.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The same error with the advice `hint`: one line, no trailing period.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with `context` put in front of its message.
    #[must_use]
    pub fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}
