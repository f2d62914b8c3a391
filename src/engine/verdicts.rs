//! What a plan's verdicts do to answers: between two tokens, before the next is drawn.

use super::Engine;
use super::generate::Generation;
use crate::plan::Watched;

impl Engine {
    /// What the plan's monitors read since the last call, and the verdicts that followed. Verdicts whose action is `stop` or
    /// `replace` have ended their generations by then, with [`Stop::Verdict`](super::Stop::Verdict).
    pub fn take_watched(&mut self) -> Watched {
        let last = self.hook_mut().take_watched();
        self.watched.extend(last);
        std::mem::take(&mut self.watched)
    }

    /// Ends generations on whose rows a verdict was passed in the decode that ran.
    pub(super) fn heed<'g>(&mut self, generations: impl IntoIterator<Item = &'g mut Generation>) {
        if !self.plan.as_ref().is_some_and(|plan| plan.watches()) {
            return;
        }
        let fresh = self.hook_mut().take_watched();
        for generation in generations {
            fresh.verdicts.iter().for_each(|passed| generation.heed(passed));
        }
        self.watched.extend(fresh);
    }
}
