//! Presets: what a small model needs first, as short lists of examples. They are learned on the spot; nothing is shipped that
//! was learned. What is clearly harmful is no preset: bring your own examples of it.
//!
//! A preset is a text file: a line that begins with `!` is what the model is told, `+` a message to be refused, `-` one to be
//! answered that is near to those. The 120 messages of all kinds that come with `tiller learn` are answered, too.

use super::request::Request;
use crate::error::{Error, Result};

/// Name and examples of each.
const PRESETS: [(&str, &str); 3] = [
    ("no-code", include_str!("presets/no-code.txt")),
    ("no-medical", include_str!("presets/no-medical.txt")),
    ("no-personal", include_str!("presets/no-personal.txt")),
];

/// The presets' names.
pub fn presets() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The request of the preset of this name, with `usual` messages that are to be answered besides its own.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for a name that none has.
pub fn preset(name: &str, usual: impl IntoIterator<Item = String>) -> Result<Request> {
    let found = PRESETS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let names = presets().collect::<Vec<_>>().join(", ");
        Error::argument(format!("preset: expected one of {names}, found {name:?}"))
    })?;
    let lines =
        |mark: char| found.1.lines().filter_map(move |line| line.strip_prefix(mark)).map(|line| line.trim().to_owned());
    let answered = lines('-').chain(usual);
    let mut request = Request { name: name.to_owned(), ..Request::new(lines('+'), answered) };
    if let Some(told) = lines('!').next() {
        request.instruction = told;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_whole() {
        let usual = || (0..100).map(|i| format!("message {i}"));
        for name in presets() {
            let request = preset(name, usual()).unwrap();
            request.check().unwrap();
            assert!(request.refused.len() >= 24 && request.answered.len() >= 112, "{name}");
            assert!(request.instruction.contains("answer only") && request.name == name);
        }
        let error = preset("harm", usual()).unwrap_err();
        assert!(error.message().contains("no-code"), "{error}");
    }
}
