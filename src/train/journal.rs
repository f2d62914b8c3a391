//! A run's metrics on disk: a line of JSON a step.
//!
//! A run that goes on from a checkpoint does some steps again; lines of steps that are to come are dropped when the file is
//! opened, so that the file reads as that of one uninterrupted run.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::metrics::Metrics;
use crate::error::{Error, Result};
use crate::file::{for_each_line, write_atomic};

/// A line has some three hundred bytes.
const MAX_LINE_BYTES: u64 = 1 << 16;

/// The metrics of a run, being written.
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
}

impl Journal {
    /// A journal at `path`, which is touched with the first step.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    /// Writes the metrics of a step. The first call drops lines of this step and later ones.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn push(&mut self, metrics: &Metrics) -> Result<()> {
        self.line(metrics.step, metrics)
    }

    /// As [`Journal::push`], for metrics of another kind that have a field `step`.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn line(&mut self, step: u64, metrics: &impl serde::Serialize) -> Result<()> {
        if self.file.is_none() {
            write_atomic(&self.path, |out| {
                for_each_step(&self.path, |before, line| match before < step {
                    true => writeln!(out, "{line}").map_err(|e| Error::io("write", &self.path, e)),
                    false => Ok(()),
                })
            })?;
            let file = File::options().append(true).open(&self.path);
            self.file = Some(file.map_err(|e| Error::io("open", &self.path, e))?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_string(metrics).unwrap_or_default();
        line.push('\n');
        file.write_all(line.as_bytes()).map_err(|e| Error::io("write", &self.path, e))
    }
}

/// Calls `take` with the step and the text of every whole line of a journal; of none if there is no file, or a device.
fn for_each_step(path: &Path, mut take: impl FnMut(u64, &str) -> Result<()>) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64();
    for_each_line(path, MAX_LINE_BYTES, |_, line| {
        // A run that was killed may leave half a line.
        let line = std::str::from_utf8(line).unwrap_or_default().trim_end();
        step(line).map_or(Ok(()), |step| take(step, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(step: u64) -> Metrics {
        let held_out = (step == 2).then_some(super::super::HeldOut { rows: 9, l0: 4.0, fvu: 0.5 });
        Metrics {
            step,
            steps: 9,
            rows: 100 * step,
            lr: 0.1,
            loss: 10.0 / step as f64,
            penalty: 0.0,
            coefficient: 0.0,
            aux_loss: 0.0,
            l0: 4.0,
            fvu: 1.0 / step as f64,
            dead: 0,
            held_out,
        }
    }

    #[test]
    fn a_resumed_run_continues_its_journal_and_half_a_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.jsonl");
        let mut journal = Journal::new(&path);
        (1..=4).for_each(|step| journal.push(&metrics(step)).unwrap());
        File::options().append(true).open(&path).unwrap().write_all(b"{\"step\":5,\"st").unwrap();
        let mut journal = Journal::new(&path);
        (3..=6).for_each(|step| journal.push(&metrics(step)).unwrap());
        let mut steps = Vec::new();
        for_each_step(&path, |step, _| {
            steps.push(step);
            Ok(())
        })
        .unwrap();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""held_out":{"rows":9,"l0":4.0,"fvu":0.5}"#), "{text}");
    }
}
