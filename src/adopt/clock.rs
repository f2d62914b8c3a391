//! The time that an adoption has, over all calls.

use std::time::Instant;

use crate::error::{Kind, Result};
use crate::progress::{Progress, Step};

/// A clock that goes on where an earlier call's stopped.
pub(super) struct Clock {
    started: Instant,
    before: f64,
    total: f64,
}

impl Clock {
    pub(super) fn new(total: f64, before: f64) -> Self {
        Self { started: Instant::now(), before, total }
    }

    /// Seconds, earlier calls included.
    pub(super) fn elapsed(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    /// Seconds until `share` of the time has passed; not below 0.
    pub(super) fn until(&self, share: f64) -> f64 {
        (share * self.total - self.elapsed()).max(0.0)
    }

    /// What `work` makes, or nothing if it is not done when `share` of the time has passed.
    pub(super) fn in_time<T>(
        &self,
        share: f64,
        what: &str,
        progress: &mut Progress<'_>,
        work: impl FnOnce(&mut Progress<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut late = false;
        let made = work(&mut |step| {
            late = self.until(share) <= 0.0;
            !late && self.tell(progress, what, step)
        });
        match made {
            Err(e) if late && e.kind() == Kind::Cancelled => Ok(None),
            made => made.map(Some),
        }
    }

    /// Seconds in all.
    pub(super) fn total(&self) -> f64 {
        self.total
    }

    /// Tells `progress` the time and what is being done.
    pub(super) fn tell(&self, progress: &mut Progress<'_>, what: &str, inner: Step<'_>) -> bool {
        let share = match inner.total {
            0 => String::new(),
            total => format!(" {} %", 100 * inner.done.min(total) / total),
        };
        let note = format!("{what}{share} {}", inner.note);
        progress(Step { done: self.elapsed() as u64, total: self.total as u64, note: note.trim_end() })
    }
}
