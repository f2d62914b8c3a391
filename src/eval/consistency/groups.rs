//! Groups of paraphrases: the same question asked in several ways.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::file::{json, text};

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 1 << 20;
/// Texts of a file, at most: each is answered several times.
const MOST_TEXTS: usize = 100_000;
/// What helps against every mistake in such a file.
const HINT: &str = "a line is {\"texts\": [\"…\", \"…\"], \"answer\": \"…\"}; answer may be a list, or left out";

/// A question asked in several ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Groups of one kind are all fitted on, all chosen on, or all scored.
    pub kind: String,
    /// The ways to ask, two or more.
    pub texts: Vec<String>,
    /// Answers that are right, the first of them by name; none where that is not known.
    pub answers: Vec<String>,
}

/// A line of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    kind: Option<String>,
    texts: Vec<String>,
    #[serde(default)]
    answer: Option<Answers>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answers {
    One(String),
    Several(Vec<String>),
}

impl Group {
    fn check(&self) -> std::result::Result<(), String> {
        if self.texts.len() < 2 {
            return Err(format!("texts: expected two or more, found {}", self.texts.len()));
        }
        for (key, list) in [("texts", &self.texts), ("answer", &self.answers)] {
            if let Some(at) = list.iter().position(|text| text.trim().is_empty()) {
                return Err(format!("{key}[{at}]: expected text, found none"));
            }
        }
        Ok(())
    }
}

/// The groups that come with tiller: some two hundred short questions of 26 kinds, each asked in four ways or five.
///
/// # Errors
/// None: a test reads them.
pub fn built_in() -> Result<Vec<Group>> {
    let (mut all, mut kind, mut asks) = (Vec::new(), "", Vec::new());
    let path = Path::new("the built-in questions");
    for (number, line) in (1..).zip(include_str!("questions.txt").lines()) {
        let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
        match head {
            "" | "#" => {}
            "kind" => (kind, asks) = (rest, Vec::new()),
            "ask" => asks.push(rest),
            _ => {
                let wrong = || text::wrong(path, number, "expected `= subject: answers`");
                let (about, answers) = rest.split_once(": ").filter(|_| head == "=").ok_or_else(wrong)?;
                let group = Group {
                    kind: kind.to_owned(),
                    texts: asks.iter().map(|ask| ask.replace("{}", about)).collect(),
                    answers: answers.split(", ").map(str::to_owned).collect(),
                };
                group.check().map_err(|what| text::wrong(path, number, what))?;
                all.push(group);
            }
        }
    }
    Ok(all)
}

/// The groups of a JSONL file, one a line. A group without a kind is one of its own.
///
/// # Errors
/// [`Io`](crate::Kind::Io); [`Format`](crate::Kind::Format) with file, line and key for what is no group, without any, or
/// with more than 100,000 texts.
pub fn open(path: &Path) -> Result<Vec<Group>> {
    let (mut all, mut n_texts) = (Vec::new(), 0);
    text::for_each_line(path, LONGEST_LINE, |number, line| {
        let read: Line = serde_json::from_str(line).map_err(|e| json::error(&e, line, path.display(), number, HINT))?;
        let answers = match read.answer {
            None => Vec::new(),
            Some(Answers::One(one)) => vec![one],
            Some(Answers::Several(several)) => several,
        };
        let group = Group { kind: read.kind.unwrap_or_else(|| number.to_string()), texts: read.texts, answers };
        group.check().map_err(|what| text::wrong(path, number, what).hinted(HINT))?;
        n_texts += group.texts.len();
        if n_texts > MOST_TEXTS {
            return Err(text::wrong(path, number, format_args!("expected at most {MOST_TEXTS} texts, found more")));
        }
        all.push(group);
        Ok(())
    })?;
    if all.is_empty() {
        return Err(Error::format(path, "expected groups of texts, found none").hinted(HINT));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn two_hundred_groups_of_many_kinds_come_with_tiller() {
        let all = built_in().unwrap();
        let kinds: HashSet<&str> = all.iter().map(|group| group.kind.as_str()).collect();
        assert!(all.len() >= 200 && kinds.len() >= 20, "{} groups, {} kinds", all.len(), kinds.len());
        let mut seen = HashSet::new();
        for group in &all {
            assert!(group.texts.len() >= 4 && !group.answers.is_empty(), "{group:?}");
            for text in &group.texts {
                assert!(seen.insert(text) && !text.contains('{'), "{text}");
            }
        }
    }

    #[test]
    fn mistakes_in_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g.jsonl");
        for (line, what) in [
            ("{\"texts\": [\"a?\"]}", "texts: expected two or more, found 1"),
            ("{\"texts\": [\"a?\", \" \"]}", "texts[1]: expected text"),
            ("{\"texts\": [\"a?\", \"b?\"], \"answer\": [\"x\", \"\"]}", "answer[1]: expected text"),
            ("{\"texts\": [\"a?\", \"b?\"], \"answers\": \"x\"}", "answers"),
            ("{\"texts\": [\"a?\", \"b?\"], \"answer\": 3}", "g.jsonl:1"),
            ("[]", "g.jsonl:1"),
            ("", "found none"),
        ] {
            std::fs::write(&path, format!("{line}\n")).unwrap();
            let error = open(&path).unwrap_err();
            assert!(error.message().contains(what), "{error}");
        }
        let lines =
            "{\"texts\": [\"a?\", \"b?\"]}\n\n{\"kind\": \"k\", \"texts\": [\"c?\", \"d?\"], \"answer\": \"x\"}\n";
        std::fs::write(&path, lines).unwrap();
        let found = open(&path).unwrap();
        assert_eq!((&*found[0].kind, found[0].answers.len()), ("1", 0));
        assert_eq!((&*found[1].kind, &found[1].answers), ("k", &vec!["x".to_owned()]));
    }
}
