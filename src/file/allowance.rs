//! How much memory a file may make its reader take.
//!
//! What lies in a file as it is wanted stays in the map and costs nothing. What is deflated, or lies in another order, is
//! put into memory, and there a file of a few kilobytes can ask for terabytes. So everything that a reader takes beside
//! the map is asked for here first.

use std::path::Path;

use crate::error::{Error, Result};

/// Weights shrink to a half or a tenth, not to less: numbers that deflate 32 times say nothing.
const PER_BYTE: usize = 32;
/// Small arrays of zeros deflate a thousand times, and are met: biases before training, counters.
const FREE: usize = 16 << 20;

/// The memory that the readers of one file may still take.
pub(super) struct Allowance {
    left: usize,
}

impl Allowance {
    /// For a file of `n` bytes.
    pub(super) fn new(n: usize) -> Self {
        Self { left: n.saturating_mul(PER_BYTE).saturating_add(FREE) }
    }

    /// Takes `n` bytes for `what`.
    pub(super) fn take(&mut self, n: usize, path: &Path, what: impl std::fmt::Display) -> Result<()> {
        self.left = self.left.checked_sub(n).ok_or_else(|| {
            let left = self.left;
            Error::format(
                path,
                format_args!("{what}: expected at most {left} bytes of memory, for a file of this size, found {n}"),
            )
        })?;
        Ok(())
    }
}
