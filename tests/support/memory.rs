//! Counts what a thread of a test binary allocates, and what all of them do; the binary makes it its allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicIsize, Ordering};

/// The system's allocator, and a count for each thread: what the test harness and other tests allocate beside a measurement
/// is none of its business. What a thread frees for another may take its count below zero.
pub(crate) struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}
static ALL_NOW: AtomicIsize = AtomicIsize::new(0);
static ALL_PEAK: AtomicIsize = AtomicIsize::new(0);
/// One measurement at a time: their files are large.
static ALONE: Mutex<()> = Mutex::new(());

fn count(change: isize) {
    let now = NOW.get() + change;
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
    let now = ALL_NOW.fetch_add(change, Ordering::Relaxed) + change;
    ALL_PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Keeps other measurements out.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// What `work` returns, and the most bytes that this thread had allocated while it ran, beside what it had before.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before).max(0) as usize)
}

/// The same of all threads, for a test that has its binary to itself.
pub(crate) fn peak_of_all<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALL_NOW.load(Ordering::Relaxed);
    ALL_PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, (ALL_PEAK.load(Ordering::Relaxed) - before).max(0) as usize)
}
