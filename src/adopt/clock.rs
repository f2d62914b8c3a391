//! The time that an adoption has, over all calls.
//!
//! Who calls says what a second is ([`adopt_by`](super::adopt_by)): every share of the time and every speed is measured by
//! that one clock, so a script can stand in for the machine.

use crate::error::{Kind, Result};
use crate::progress::{Progress, Step};

/// A clock that goes on where an earlier call's stopped.
pub(super) struct Clock<'c> {
    seconds: &'c dyn Fn() -> f64,
    started: f64,
    before: f64,
    total: f64,
    /// The share of the time before the first of the shares that [`until`](Self::until) counts.
    begin: f64,
}

impl<'c> Clock<'c> {
    /// `seconds` tells how many have passed since some moment.
    pub(super) fn new(seconds: &'c dyn Fn() -> f64, total: f64, before: f64) -> Self {
        Self { seconds, started: seconds(), before, total, begin: 0.0 }
    }

    /// From now on shares are of the time that is left after `begin` of all.
    pub(super) fn begin_at(&mut self, begin: f64) {
        self.begin = begin.clamp(0.0, 1.0);
    }

    /// Seconds, earlier calls included.
    pub(super) fn elapsed(&self) -> f64 {
        self.before + (self.seconds)() - self.started
    }

    /// What `work` makes, and the seconds that it took; more than none, so that speeds are finite.
    pub(super) fn timed<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
        let begin = self.elapsed();
        let made = work()?;
        Ok((made, (self.elapsed() - begin).max(1e-9)))
    }

    /// Seconds until `share` of the time has passed; not below 0.
    pub(super) fn until(&self, share: f64) -> f64 {
        ((self.begin + (1.0 - self.begin) * share) * self.total - self.elapsed()).max(0.0)
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Error;
    use crate::progress::{report, silent};

    #[test]
    fn every_second_comes_from_the_clock_that_was_given() {
        let now = Cell::new(1000.0);
        let seconds = || now.get();
        let mut clock = Clock::new(&seconds, 200.0, 30.0);
        assert_eq!((clock.elapsed(), clock.until(0.5)), (30.0, 70.0), "an earlier call's seconds count");
        let made = clock.timed(|| {
            now.set(now.get() + 5.0);
            Ok(7)
        });
        assert_eq!(made.unwrap(), (7, 5.0));
        assert!(clock.timed(|| Ok(())).unwrap().1 > 0.0);
        assert_eq!((clock.elapsed(), clock.until(0.1)), (35.0, 0.0), "not below 0");
        clock.begin_at(0.25);
        assert_eq!((clock.until(0.0), clock.until(0.5), clock.until(1.0)), (15.0, 90.0, 165.0), "shares of the rest");
        clock.begin_at(0.0);
        let mut told = (0, 0, String::new());
        clock.tell(
            &mut |step| {
                told = (step.done, step.total, step.note.to_owned());
                true
            },
            "rows:",
            Step { done: 1, total: 4, note: "" },
        );
        assert_eq!(told, (35, 200, "rows: 25 %".to_owned()));
    }

    #[test]
    fn work_is_broken_off_when_its_time_has_passed_and_only_then() {
        let now = Cell::new(0.0);
        let seconds = || now.get();
        let clock = Clock::new(&seconds, 100.0, 0.0);
        let steps = |n: u64, each: f64| {
            let now = &now;
            move |progress: &mut Progress<'_>| -> Result<u64> {
                for i in 0..n {
                    now.set(now.get() + each);
                    report(progress, i, n, "")?;
                }
                Ok(n)
            }
        };
        assert_eq!(clock.in_time(0.5, "short", &mut silent, steps(4, 10.0)).unwrap(), Some(4));
        assert_eq!(clock.in_time(0.5, "long", &mut silent, steps(4, 10.0)).unwrap(), None, "at second 50");
        assert_eq!(now.get(), 50.0);
        let refused = clock.in_time(0.9, "refused", &mut |_| false, steps(4, 1.0));
        assert_eq!(refused.unwrap_err().kind(), Kind::Cancelled, "the caller's word is not lateness");
        let failed = clock.in_time(0.9, "failed", &mut silent, |_| Err::<(), _>(Error::numeric("x")));
        assert_eq!(failed.unwrap_err().kind(), Kind::Numeric);
    }
}
