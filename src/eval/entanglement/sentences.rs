//! Sentences whose concepts are known: made by a grammar, or read from a file of somebody's own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use rand::seq::SliceRandom;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::num::rng;

/// A file of sentences has some megabytes.
const MAX_BYTES: u64 = 256 << 20;
/// Concepts that a file may have: matrices of concepts by concepts are held, and every one is steered.
const MOST_CONCEPTS: usize = 64;

/// A binary concept and the attribute of which it is a value.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Concept {
    /// Its name.
    pub name: String,
    /// The attribute: concepts of one attribute exclude each other, and are not held against each other.
    pub attribute: String,
}

/// Sentences and which concepts each of them has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentences {
    /// The concepts, C in all.
    pub concepts: Vec<Concept>,
    /// The texts, n in all, no two alike.
    pub texts: Vec<String>,
    /// Whether sentence i has concept c: `[n, C]`.
    pub labels: Vec<bool>,
}

/// Numbers of sentences, dealt into two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Those that featurizers and probes are fitted on.
    pub train: Vec<usize>,
    /// Those that are measured.
    pub test: Vec<usize>,
}

impl Sentences {
    /// Reads JSONL: a "sentence" a line, every other key is an attribute or a concept. A value of true, false, 1 or 0
    /// says whether the sentence has the concept of that name; a text says which value an attribute has, and each value
    /// that occurs is a concept "attribute=value". `attributes` groups yes-or-no concepts: a name, and the concepts
    /// under it.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io); [`Kind::Format`](crate::Kind::Format) with the line, for what is no such file;
    /// [`Kind::Argument`](crate::Kind::Argument) for a group that names a concept which the file does not have.
    pub fn read(path: &Path, attributes: &BTreeMap<String, Vec<String>>) -> Result<Self> {
        let text = crate::file::read_text(path, MAX_BYTES)?;
        Self::parse(&text, path, attributes)
    }

    /// As [`read`](Self::read), of text; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, path: &Path, attributes: &BTreeMap<String, Vec<String>>) -> Result<Self> {
        let mut lines = Lines::default();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            lines.push(line).map_err(|what| {
                Error::format(path, format!("line {number}: {what}"))
                    .hinted("a line is {\"sentence\": \"…\", \"concept\": true, \"attribute\": \"value\"}")
            })?;
        }
        let mut made = lines.finish(path)?;
        for (attribute, members) in attributes {
            for member in members {
                let found = made.concepts.iter_mut().find(|concept| concept.name == *member);
                let concept = found.ok_or_else(|| {
                    Error::argument(format!(
                        "attributes: {attribute:?}: no sentence of {} has {member:?}",
                        path.display()
                    ))
                })?;
                concept.attribute.clone_from(attribute);
            }
        }
        Ok(made)
    }

    /// Number of sentences.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Which of `rows` have concept `c`.
    pub fn column(&self, c: usize, rows: &[usize]) -> Vec<bool> {
        rows.iter().map(|&row| self.labels[row * self.concepts.len() + c]).collect()
    }

    /// The place of a concept.
    pub fn concept(&self, name: &str) -> Option<usize> {
        self.concepts.iter().position(|concept| concept.name == name)
    }

    /// φ, the correlation of two concepts over all sentences; NaN if one of them is constant.
    pub fn phi(&self, a: usize, b: usize) -> f64 {
        let all: Vec<usize> = (0..self.len()).collect();
        let of = |c| self.column(c, &all).into_iter().map(|yes| f32::from(u8::from(yes))).collect::<Vec<f32>>();
        crate::num::stats::pearson(&of(a), &of(b))
    }

    /// Deals the sentences out: `share` of them are tested, chosen by the seed.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if a concept has fewer than two sentences with it, or without, in a
    /// part.
    pub fn split(&self, share: f64, seed: u64) -> Result<Split> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut rng(seed));
        let train = order.split_off((self.len() as f64 * share).round() as usize);
        let split = Split { train, test: order };
        for (name, part) in [("train", &split.train), ("test", &split.test)] {
            for (c, concept) in self.concepts.iter().enumerate() {
                let yes = self.column(c, part).into_iter().filter(|yes| *yes).count();
                if yes < 2 || part.len() - yes < 2 {
                    let (concept, n) = (&concept.name, part.len());
                    return Err(Error::argument(format!(
                        "sentences: expected two with {concept:?} and two without in the {name} part, found {yes} among {n}"
                    ))
                    .hinted("give more sentences, or leave the concept out"));
                }
            }
        }
        Ok(split)
    }
}

/// What has been read of a file.
#[derive(Default)]
struct Lines {
    texts: Vec<String>,
    seen: HashSet<String>,
    /// Place of a column, by name.
    places: HashMap<String, usize>,
    names: Vec<Concept>,
    /// The columns that each sentence has.
    has: Vec<Vec<usize>>,
    /// Attributes by text, to refuse a name that is both.
    plain: BTreeMap<String, bool>,
    keys: Option<Vec<String>>,
}

impl Lines {
    fn push(&mut self, line: &str) -> std::result::Result<(), String> {
        let fields: serde_json::Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let text = match fields.get("sentence") {
            Some(Value::String(text)) if !text.trim().is_empty() => text.clone(),
            Some(other) => return Err(format!("sentence: expected text, found {other}")),
            None => return Err("expected the key \"sentence\", found none".into()),
        };
        if !self.seen.insert(text.clone()) {
            return Err(format!("sentence: expected each one once, found {text:?} again"));
        }
        let keys: Vec<String> = fields.keys().filter(|key| *key != "sentence").cloned().collect();
        if keys.is_empty() {
            return Err("expected a concept beside the sentence, found none".into());
        }
        if let Some(before) = self.keys.as_ref().filter(|before| **before != keys) {
            return Err(format!(
                "expected the concepts of the first line ({}), found {}",
                before.join(", "),
                keys.join(", ")
            ));
        }
        self.keys = Some(keys);
        let mut has = Vec::new();
        for (key, value) in fields.iter().filter(|(key, _)| *key != "sentence") {
            self.field(key, value, &mut has)?;
        }
        self.texts.push(text);
        self.has.push(has);
        Ok(())
    }

    fn field(&mut self, key: &str, value: &Value, has: &mut Vec<usize>) -> std::result::Result<(), String> {
        let (name, yes, plain) = match value {
            Value::Bool(yes) => (key.to_owned(), *yes, true),
            Value::Number(n) if n.as_f64() == Some(1.0) || n.as_f64() == Some(0.0) => {
                (key.to_owned(), n.as_f64() == Some(1.0), true)
            }
            Value::String(value) => (format!("{key}={value}"), true, false),
            other => return Err(format!("{key}: expected true, false, 1, 0 or text, found {other}")),
        };
        if *self.plain.entry(key.to_owned()).or_insert(plain) != plain {
            return Err(format!("{key}: expected a yes or no in every line, or a text in every line"));
        }
        let next = self.names.len();
        let place = *self.places.entry(name.clone()).or_insert(next);
        if place == next {
            if next == MOST_CONCEPTS {
                return Err(format!("expected at most {MOST_CONCEPTS} concepts"));
            }
            self.names.push(Concept { name, attribute: key.to_owned() });
        }
        if yes {
            has.push(place);
        }
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<Sentences> {
        if self.texts.is_empty() {
            return Err(Error::format(path, "expected sentences, found none"));
        }
        let mut labels = vec![false; self.texts.len() * self.names.len()];
        for (row, has) in labels.chunks_exact_mut(self.names.len()).zip(&self.has) {
            has.iter().for_each(|&c| row[c] = true);
        }
        Ok(Sentences { concepts: self.names, texts: self.texts, labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn parse(text: &str, groups: &[(&str, &[&str])]) -> Result<Sentences> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let groups = groups.iter().map(|(name, members)| ((*name).to_owned(), owned(members))).collect();
        Sentences::parse(text, Path::new("s.jsonl"), &groups)
    }

    #[test]
    fn yes_or_no_and_texts_are_read_and_grouped() {
        let text = "{\"sentence\":\"a\",\"loud\":true,\"calm\":0,\"tone\":\"dry\"}\n\n\
                    {\"sentence\":\"b\",\"loud\":false,\"calm\":1,\"tone\":\"wet\"}\n";
        let made = parse(text, &[("volume", &["loud", "calm"])]).unwrap();
        let named: Vec<(&str, &str)> = made.concepts.iter().map(|c| (&*c.name, &*c.attribute)).collect();
        assert_eq!(named, [("calm", "volume"), ("loud", "volume"), ("tone=dry", "tone"), ("tone=wet", "tone")]);
        assert_eq!(made.labels, [false, true, true, false, true, false, false, true]);
        assert!((made.phi(0, 1) + 1.0).abs() < 1e-12);
        assert_eq!(made.column(3, &[1, 0]), [true, false]);
    }

    #[test]
    fn files_that_are_no_such_sentences_are_refused() {
        for (text, what) in [
            ("", "found none"),
            ("{\"a\":1}", "line 1: expected the key \"sentence\""),
            ("{\"sentence\":3,\"a\":1}", "expected text, found 3"),
            ("{\"sentence\":\"x\"}", "expected a concept"),
            ("{\"sentence\":\"x\",\"a\":2}", "a: expected true, false, 1, 0 or text, found 2"),
            ("{\"sentence\":\"x\",\"a\":1}\n{\"sentence\":\"x\",\"a\":1}", "line 2: sentence: expected each one once"),
            (
                "{\"sentence\":\"x\",\"a\":1}\n{\"sentence\":\"y\",\"b\":1}",
                "expected the concepts of the first line (a)",
            ),
            ("{\"sentence\":\"x\",\"a\":1}\n{\"sentence\":\"y\",\"a\":\"1\"}", "a yes or no in every line"),
            ("{\"sentence\":", "line 1: EOF"),
        ] {
            let error = parse(text, &[]).unwrap_err();
            assert!(error.kind() == Kind::Format && error.message().contains(what), "{text}: {error}");
        }
        let error = parse("{\"sentence\":\"x\",\"a\":1}", &[("g", &["b"])]).unwrap_err();
        assert!(error.kind() == Kind::Argument && error.message().contains("has \"b\""), "{error}");
    }

    #[test]
    fn a_split_has_every_sentence_once_and_both_answers_in_each_part() {
        let lines: Vec<String> = (0..100).map(|i| format!("{{\"sentence\":\"s{i}\",\"odd\":{}}}", i % 2)).collect();
        let made = parse(&lines.join("\n"), &[]).unwrap();
        let split = made.split(0.2, 3).unwrap();
        assert_eq!((split.train.len(), split.test.len()), (80, 20));
        let all: HashSet<usize> = split.train.iter().chain(&split.test).copied().collect();
        assert_eq!(all.len(), 100);
        assert_eq!(made.split(0.2, 3).unwrap(), split);
        assert_ne!(made.split(0.2, 4).unwrap(), split);
        let rare: Vec<String> =
            (0..100).map(|i| format!("{{\"sentence\":\"s{i}\",\"a\":{}}}", u8::from(i == 7))).collect();
        let error = parse(&rare.join("\n"), &[]).unwrap().split(0.2, 3).unwrap_err();
        assert!(error.kind() == Kind::Argument && error.message().contains("found"), "{error}");
    }
}
