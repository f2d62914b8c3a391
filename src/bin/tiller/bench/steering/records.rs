//! What was measured, kept in a file as soon as it is: a line of JSON each.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tiller::{Error, Result};

use super::methods::Method;
use super::tasks::Setting;

/// A file of a few hundred cases has some megabytes.
const MAX_BYTES: u64 = 1 << 30;

/// A text that was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Text {
    pub(super) prompt: String,
    pub(super) text: String,
    pub(super) tokens: usize,
    /// Sum of the negative log-likelihoods under the unsteered and unasked model, in nats.
    pub(super) nll: f64,
}

/// One method on one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) model: String,
    pub(super) max_tokens: usize,
    pub(super) setting: String,
    pub(super) method: String,
    pub(super) task: String,
    /// How strongly, where that was chosen.
    pub(super) strength: Option<f32>,
    /// What it took to learn, or to search.
    pub(super) seconds: f64,
    /// Milliseconds a token, all prompts side by side.
    pub(super) ms: f64,
    /// In groups: one, or of random directions one each.
    pub(super) groups: Vec<Vec<Text>>,
}

pub(super) struct Records {
    model: String,
    max_tokens: usize,
    file: Option<(PathBuf, File)>,
    all: Vec<Record>,
}

impl Records {
    /// Opens what an earlier run kept, if anything. A line that is cut short, at which a run was killed, is written over.
    pub(super) fn open(path: Option<&Path>, model: &str, max_tokens: usize) -> Result<Self> {
        let mut records = Self { model: model.to_owned(), max_tokens, file: None, all: Vec::new() };
        let Some(path) = path else { return Ok(records) };
        let io = |e| Error::io("open", path, e);
        let text = tiller::file::read_text_if_there(path, MAX_BYTES)?.unwrap_or_default();
        let mut file = File::options().write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut good = 0;
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            match serde_json::from_str(line) {
                Ok(record) => records.all.push(record),
                Err(_) if !line.ends_with('\n') => break,
                Err(error) => return Err(Error::format(path, format!("line {number}: {error}"))),
            }
            good += line.len();
        }
        file.set_len(good as u64).and_then(|()| file.seek(SeekFrom::End(0)).map(drop)).map_err(io)?;
        records.file = Some((path.to_owned(), file));
        Ok(records)
    }

    pub(super) fn get(&self, setting: Setting, method: Method, task: &str) -> Option<&Record> {
        self.all.iter().find(|record| {
            record.model == self.model
                && record.max_tokens == self.max_tokens
                && (record.setting.as_str(), record.method.as_str()) == (setting.name(), method.name())
                && record.task == task
        })
    }

    pub(super) fn add(&mut self, record: Record) -> Result<()> {
        if let Some((path, file)) = &mut self.file {
            let mut line = serde_json::to_string(&record).map_err(|e| Error::argument(e.to_string()))?;
            line.push('\n');
            file.write_all(line.as_bytes()).and_then(|()| file.flush()).map_err(|e| Error::io("write", &*path, e))?;
        }
        self.all.push(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_cut_goes_on_behind_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept.jsonl");
        let record = |task: &str| Record {
            model: "m".into(),
            max_tokens: 8,
            setting: "chat".into(),
            method: "asked".into(),
            task: task.into(),
            strength: None,
            seconds: 1.0,
            ms: 2.0,
            groups: vec![vec![Text { prompt: "p".into(), text: "t".into(), tokens: 1, nll: 0.5 }]],
        };
        let mut records = Records::open(Some(&path), "m", 8).unwrap();
        records.add(record("sea")).unwrap();
        records.add(record("war")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let mut records = Records::open(Some(&path), "m", 8).unwrap();
        assert_eq!(records.get(Setting::Chat, Method::Asked, "sea"), Some(&record("sea")));
        assert_eq!(records.get(Setting::Chat, Method::Asked, "war"), None);
        assert_eq!(records.get(Setting::Plain, Method::Asked, "sea"), None);
        records.add(record("war")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        // Another model, or texts of another length, have cases of their own.
        assert!(Records::open(Some(&path), "n", 8).unwrap().get(Setting::Chat, Method::Asked, "sea").is_none());
        assert!(Records::open(Some(&path), "m", 9).unwrap().get(Setting::Chat, Method::Asked, "sea").is_none());
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(Records::open(Some(&path), "m", 8).err().unwrap().message().contains("line 1"));
    }
}
