//! Configurations beside weights: JSON with keys that were renamed over the years, and the flat part of YAML.

use std::path::{Path, PathBuf};

use serde_json::{Map as Object, Value};

use crate::error::{Error, Result};
use crate::file::{name_contents, read_text};

/// A configuration is some kilobytes.
const MAX_BYTES: u64 = 16 << 20;

/// The keys of a configuration. A key is looked for in each of `parts` in turn.
#[derive(Debug, Default)]
pub(super) struct Config {
    path: PathBuf,
    parts: Vec<Object<String, Value>>,
}

impl Config {
    /// The JSON object at `path`; keys are looked for at its top, then in its objects called `inner`.
    pub(super) fn read(path: &Path, inner: &[&str]) -> Result<Self> {
        let text = text(path)?;
        let top: Object<String, Value> = serde_json::from_str(&text).map_err(|e| {
            if let Some((name, hint)) = name_contents(text.as_bytes()) {
                return Error::format(path, format_args!("expected a JSON object, found {name}")).hinted(hint);
            }
            Error::format(path, format!("expected a JSON object: {e}")).hinted(match e.is_eof() {
                true => "the file may be cut short: fetch it again",
                false if text.contains("NaN") || text.contains("Infinity") => {
                    "JSON has no NaN and no Infinity, though Python writes them: put null in their place"
                }
                false => "mend the config, or fetch it again",
            })
        })?;
        let inner: Vec<_> = inner.iter().filter_map(|key| top.get(*key)?.as_object().cloned()).collect();
        Ok(Self { path: path.to_path_buf(), parts: std::iter::once(top).chain(inner).collect() })
    }

    /// The plain `key: value` lines at the top of the YAML file at `path`; every value is a text.
    pub(super) fn read_yaml(path: &Path) -> Result<Self> {
        let text = text(path)?;
        let pairs = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(':').filter(|(key, _)| !key.starts_with([' ', '#', '-']))?;
            let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
            (!value.is_empty()).then(|| (key.trim().to_owned(), Value::from(value)))
        });
        Ok(Self { path: path.to_path_buf(), parts: vec![pairs.collect()] })
    }

    /// The value of the first of `keys` that is there and not null.
    pub(super) fn get(&self, keys: &[&str]) -> Option<&Value> {
        let find = |key: &&str| self.parts.iter().find_map(|part| part.get(*key).filter(|v| !v.is_null()));
        keys.iter().find_map(find)
    }

    /// The text at the first of `keys` that is there; empty if it is none.
    pub(super) fn text(&self, keys: &[&str]) -> String {
        self.get(keys).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// [`Kind::Format`](crate::Kind::Format): the value of `key` is not what was expected.
    pub(super) fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = self.get(&[key]).map_or_else(|| "nothing".to_owned(), |v| shorten(&v.to_string()));
        Error::format(&self.path, format!("key \"{key}\": expected {expected}, found {found}"))
    }

    /// [`Kind::Unsupported`](crate::Kind::Unsupported): nothing wrong with it, but we cannot.
    pub(super) fn unsupported(&self, key: &str, expected: &str, found: &str) -> Error {
        let (path, found) = (self.path.display(), shorten(found));
        Error::unsupported(format!("{path}: key \"{key}\": expected {expected}, found \"{found}\""))
    }

    /// The integer from 1 that `key` is, if it is there.
    pub(super) fn opt_size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(&[key]) else { return Ok(None) };
        let size = value.as_u64().and_then(|v| usize::try_from(v).ok()).filter(|&v| v > 0 && v <= MAX_SIZE);
        size.map(Some).ok_or_else(|| self.wrong(key, "an integer from 1"))
    }

    /// The integer from 1 that `key` is.
    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.opt_size(key)?.ok_or_else(|| self.wrong(key, "an integer from 1"))
    }

    /// The bool that `key` is, or `default`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(&[key]) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// The positive number that `key` is, if it is there.
    pub(super) fn opt_positive(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.get(&[key]) else { return Ok(None) };
        let number = value.as_f64().map(|v| v as f32).filter(|v| v.is_finite() && *v > 0.0);
        number.map(Some).ok_or_else(|| self.wrong(key, "a positive number"))
    }

    /// The k of batch rules is a mean, and may have a fraction.
    pub(super) fn mean_k(&self, key: &str) -> Result<usize> {
        let k = self.get(&[key]).and_then(Value::as_f64).filter(|k| (0.5..1e9).contains(k));
        k.map(|k| k.round() as usize).ok_or_else(|| self.wrong(key, "a number from 1"))
    }

    /// The layer that `key` is, if it is a number.
    pub(super) fn layer(&self, key: &str) -> Option<usize> {
        self.get(&[key]).and_then(Value::as_u64).and_then(|v| usize::try_from(v).ok()).filter(|&v| v < MAX_LAYERS)
    }
}

/// No dictionary has more features than fit the numbers of their entries.
const MAX_SIZE: usize = u32::MAX as usize;
/// No model has so many.
const MAX_LAYERS: usize = 1 << 16;

fn text(path: &Path) -> Result<String> {
    read_text(path, MAX_BYTES)
}

/// Enough of a value for a message.
fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_of_one_level() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "# a comment\nmodel_name: \"a/b\"  # why\nscan: 'x'\nlist:\n  - inner: 3\nempty:\n")
            .unwrap();
        let config = Config::read_yaml(&path).unwrap();
        assert_eq!((config.text(&["model_name"]), config.text(&["scan"])), ("a/b".to_owned(), "x".to_owned()));
        assert!(config.get(&["inner", "list", "empty", "# a comment"]).is_none());
    }
}
