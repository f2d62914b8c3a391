//! What is wrong with a JSON text, and where: the place in the file, and the path of the key.

use std::fmt::Display;

use serde_json::error::Category;

use crate::error::{Error, Kind};

/// A parser's complaint as `name:line:column: rules[2].strength.unit: what`. `first` is the line at which `text` starts;
/// `schema` is the hint for JSON of another shape than is expected.
pub(crate) fn error(error: &serde_json::Error, text: &str, name: impl Display, first: usize, schema: &str) -> Error {
    let (mut line, mut column) = (error.line(), error.column());
    let full = error.to_string();
    let what = full.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&full);
    if column == 0 && line > 1 {
        // The end of a line is a place of this line, not of the next one, which may not be there.
        line -= 1;
        column = text.lines().nth(line - 1).map_or(0, str::len);
    }
    // What a value's own rules refuse is told at the comma or bracket behind it, which is not part of the value.
    let last = text.lines().nth(line.saturating_sub(1)).and_then(|line| line.as_bytes().get(column.saturating_sub(1)));
    let behind = error.is_data() && matches!(last, Some(b',' | b']'));
    let path = path_at(text.as_bytes(), line, column - usize::from(behind));
    let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
    let hint = match error.classify() {
        Category::Data => schema,
        Category::Eof if text.trim().is_empty() => "the file is empty: write or fetch it again",
        Category::Eof if !text.ends_with('\n') => "the file may be cut short: write or fetch it again",
        Category::Eof => "something is not closed: a string, a bracket, or an object that goes on in the next line",
        _ if what.contains("hex escape") => {
            "an escape such as \\ud83d needs its other half; plain UTF-8 needs no escapes"
        }
        _ => "this is no valid JSON: look for a quote, comma or bracket too many or too few in front of that place",
    };
    let line = first + line.saturating_sub(1);
    Error::new(Kind::Format, format!("{name}:{line}:{column}: {place}{what}")).hinted(hint)
}

/// A container that is open at some point of a JSON text.
enum Open {
    Object(Option<String>),
    Array(usize),
}

/// The path (`rules[2].strength`) of what stands at `line` (from 1) and `column` (bytes, from 1) of a JSON text; the text is
/// valid JSON up to there, or nearly.
fn path_at(text: &[u8], line: usize, column: usize) -> String {
    let start = text.split_inclusive(|&b| b == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum::<usize>();
    let end = start.saturating_add(column).min(text.len());
    let text = text.get(..end).unwrap_or_default();
    let mut open = Vec::new();
    let mut wants_key = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let first = at;
                while let Some(&b) = text.get(at).filter(|&&b| b != b'"') {
                    at += if b == b'\\' { 2 } else { 1 };
                }
                let string = text.get(first..at.min(text.len())).unwrap_or_default();
                at += 1;
                if let (true, Some(Open::Object(key))) = (wants_key, open.last_mut()) {
                    *key = Some(String::from_utf8_lossy(string).into_owned());
                    wants_key = false;
                }
            }
            b'{' => (open.push(Open::Object(None)), wants_key = true).0,
            b'[' => open.push(Open::Array(0)),
            b'}' | b']' => (open.pop(), wants_key = false).1,
            b',' => match open.last_mut() {
                Some(Open::Object(key)) => (*key = None, wants_key = true).0,
                Some(Open::Array(index)) => *index += 1,
                None => {}
            },
            _ => {}
        }
    }
    let mut path = String::new();
    for container in &open {
        match container {
            Open::Object(Some(key)) if path.is_empty() => path.push_str(key),
            Open::Object(Some(key)) => path.extend([".", key]),
            Open::Object(None) => {}
            Open::Array(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::path_at;

    #[test]
    fn a_place_in_a_text_has_a_path() {
        let text = br#"{"a": 1, "rules": [ {"x": "},{"}, {"y": [1, 2], "stren\"gth": {"unit": 3 }} ]}"#;
        let path = |needle: &str| {
            let at = text.windows(needle.len()).position(|w| w == needle.as_bytes()).unwrap();
            path_at(text, 1, at + needle.len())
        };
        assert_eq!(path("{\"a"), "a");
        assert_eq!(path("\"rules\": ["), "rules[0]");
        assert_eq!(path("\"},{\""), "rules[0].x");
        assert_eq!(path("\"y\": [1, 2"), "rules[1].y[1]");
        assert_eq!(path("3"), "rules[1].stren\\\"gth.unit");
        assert_eq!(path("3 }}"), "rules[1]");
        assert_eq!(path_at(text, 9, 9), "");
    }
}
