//! Ctrl-C: the first one asks the work to stop at its next progress report, so that files stay whole and work can be
//! resumed; the second one ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Forgets that Ctrl-C was pressed and listens again: for work that goes on after it.
pub(crate) fn forget() {
    ASKED.store(false, Ordering::Relaxed);
    install();
}

/// Starts listening.
#[cfg(unix)]
pub(crate) fn install() {
    const SIGINT: i32 = 2;
    const SIG_DFL: usize = 0;
    unsafe extern "C" {
        fn signal(number: i32, handler: usize) -> usize;
    }
    extern "C" fn note(_: i32) {
        ASKED.store(true, Ordering::Relaxed);
        // SAFETY: signal(2) is async-signal-safe, and SIG_DFL is a valid disposition.
        unsafe { signal(SIGINT, SIG_DFL) };
    }
    // SAFETY: `note` has the signature that signal(2) calls, lives for ever, and does only async-signal-safe work.
    unsafe { signal(SIGINT, note as extern "C" fn(i32) as usize) };
}

/// Elsewhere Ctrl-C ends the process at once, as it does by default.
#[cfg(not(unix))]
pub(crate) fn install() {}
