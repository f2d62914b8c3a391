//! How long work tells its caller where it is, and learns that it should stop.

use crate::error::{Error, Result};

/// Where a long piece of work is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step<'a> {
    /// Units done so far (tokens, rows, features: the caller of the work knows).
    pub done: u64,
    /// Units in all; 0 when unknown.
    pub total: u64,
    /// One line on the state, such as `loss 0.0312  L0 32.0  FVU 0.21`; may be empty.
    pub note: &'a str,
}

/// A progress function: called now and then on the thread that called the library; `false` cancels the work.
pub type Progress<'a> = dyn FnMut(Step<'_>) -> bool + 'a;

/// Reports a step; a refusal becomes [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn report(progress: &mut Progress<'_>, done: u64, total: u64, note: &str) -> Result<()> {
    if progress(Step { done, total, note }) { Ok(()) } else { Err(Error::cancelled()) }
}

/// A progress function that only says "go on".
pub fn silent(_: Step<'_>) -> bool {
    true
}
