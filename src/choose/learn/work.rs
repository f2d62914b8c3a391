//! How far the work is, and how much time is left for it.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::progress::{Progress, Step};

/// Counts answers that were written, read or judged.
pub(in crate::choose) struct Work<'p> {
    progress: &'p mut Progress<'p>,
    done: u64,
    total: u64,
    started: Instant,
    limit: Option<Duration>,
    /// What was done, and how many seconds after the start it was.
    marks: Vec<(&'static str, f64)>,
}

impl<'p> Work<'p> {
    pub(in crate::choose) fn new(progress: &'p mut Progress<'p>, minutes: f64, total: u64) -> Self {
        let limit = (minutes > 0.0).then(|| Duration::try_from_secs_f64(60.0 * minutes).unwrap_or(Duration::MAX));
        Self { progress, done: 0, total, started: Instant::now(), limit, marks: Vec::new() }
    }

    /// `n` more answers are done; `note` says what comes next.
    pub(super) fn step(&mut self, n: usize, note: &str) -> Result<()> {
        self.done += n as u64;
        self.total = self.total.max(self.done);
        if self.go_on(note) { Ok(()) } else { Err(Error::cancelled()) }
    }

    /// Whether the caller wants more; asked often, also within an answer.
    pub(super) fn go_on(&mut self, note: &str) -> bool {
        (self.progress)(Step { done: self.done, total: self.total, note })
    }

    /// Whether more than `share` of the time is gone.
    pub(super) fn is_past(&self, share: f64) -> bool {
        self.limit.is_some_and(|limit| self.started.elapsed() > limit.mul_f64(share))
    }

    /// What was worked on since the last mark.
    pub(super) fn mark(&mut self, what: &'static str) {
        self.marks.push((what, self.seconds()));
    }

    /// The seconds that each part took.
    pub(super) fn parts(&self) -> Vec<(String, f64)> {
        let before = std::iter::once(0.0).chain(self.marks.iter().map(|(_, end)| *end));
        self.marks.iter().zip(before).map(|((what, end), start)| ((*what).to_owned(), end - start)).collect()
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
