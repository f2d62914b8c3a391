//! One JSON object a line, with errors that read `file:line: expected …, found …`.

use std::fmt::Display;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// The longest line that is read, in bytes: a line without an end must not fill memory.
const LONGEST_LINE: u64 = 1 << 22;

/// [`Kind::Format`] at `line` of `path`.
pub(super) fn wrong(path: &Path, line: usize, what: impl Display) -> Error {
    Error::new(Kind::Format, format!("{}:{line}: {what}", path.display()))
}

/// What serde says, with the place where a person looks for it; `first` is the line at which serde's line 1 lies.
pub(super) fn syntax(path: &Path, first: usize, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    let line = first + error.line().saturating_sub(1);
    wrong(path, line, format_args!("column {}: {text}", error.column()))
}

/// Calls `take` with the number (from 1) and the text of every line of `path` that is not blank.
pub(super) fn for_each_line(path: &Path, mut take: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    crate::file::for_each_line(path, LONGEST_LINE, |number, bytes| {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            wrong(path, number, format_args!("expected UTF-8, found other bytes at byte {}", e.valid_up_to()))
        })?;
        if text.trim().is_empty() { Ok(()) } else { take(number, text) }
    })
}
