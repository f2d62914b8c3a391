//! Where a plan waits for the next decode.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::plan::Compiled;

/// Sets the plan of a [`Hook`](super::Hook) from any thread, also while it computes: the next decode goes by it, whole, and
/// the one under way ends as it began.
///
/// Clones lead to the same hook; one that outlives the hook does nothing.
#[derive(Clone, Default)]
pub struct Steering(Arc<Board>);

#[derive(Default)]
struct Board {
    plan: Mutex<Option<Arc<Compiled>>>,
    /// Whose graphs the hook sees.
    architecture: Mutex<String>,
    /// Counts the plans that were set.
    version: AtomicU64,
}

impl Steering {
    /// Steers by `plan` from the next decode on; `None` steers nothing. Gates of rules that stay the same keep their
    /// memory. When there is an error, nothing has changed.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if the architecture's graph does not show a hook point of the plan;
    /// [`Kind::Argument`](crate::Kind::Argument) for a plan with a part that became a control vector, which only the
    /// thread that decodes may hand to llama.cpp: compile it for the callback alone.
    pub fn set_plan(&self, plan: Option<Arc<Compiled>>) -> Result<()> {
        if plan.as_ref().is_some_and(|plan| plan.control_vector.is_some()) {
            return Err(Error::argument("the plan has a part that is a control vector, which this call cannot set")
                .hinted("compile the plan with the route \"callback\""));
        }
        self.set_callback(plan)
    }

    /// As [`set_plan`](Self::set_plan), of a plan whose control vector the caller hands to llama.cpp.
    ///
    /// # Errors
    /// As [`check_plan`](Self::check_plan).
    pub fn set_callback(&self, plan: Option<Arc<Compiled>>) -> Result<()> {
        plan.iter().try_for_each(|plan| self.check_plan(plan))?;
        self.put(plan);
        Ok(())
    }

    /// Whether `plan` could be set.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if the architecture's graph does not show a hook point of the plan.
    pub fn check_plan(&self, plan: &Compiled) -> Result<()> {
        self.check(plan.points.keys().copied())
    }

    /// Refuses points that the architecture's graph does not show.
    pub(super) fn check(&self, points: impl IntoIterator<Item = HookPoint>) -> Result<()> {
        let architecture = self.architecture();
        points.into_iter().try_for_each(|point| point.check(&architecture))
    }

    fn put(&self, plan: Option<Arc<Compiled>>) {
        let plan = plan.filter(|plan| !plan.points.is_empty());
        let mut held = self.0.plan.lock().unwrap_or_else(PoisonError::into_inner);
        *held = plan;
        self.0.version.fetch_add(1, Ordering::Release);
    }

    /// Whose graphs the hook sees.
    pub(super) fn architecture(&self) -> String {
        self.0.architecture.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_architecture(&self, architecture: &str) {
        architecture.clone_into(&mut self.0.architecture.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts the plans that were set.
    pub(super) fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Whether the plan is another one than that of `version`.
    pub(super) fn has_newer(&self, version: u64) -> bool {
        self.version() != version
    }

    /// The plan, if it is not the one of `version`, which becomes its own.
    pub(super) fn newer(&self, version: &mut u64) -> Option<Option<Arc<Compiled>>> {
        if !self.has_newer(*version) {
            return None;
        }
        let plan = self.0.plan.lock().unwrap_or_else(PoisonError::into_inner);
        *version = self.0.version.load(Ordering::Acquire);
        Some(plan.clone())
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Steering").finish_non_exhaustive()
    }
}
