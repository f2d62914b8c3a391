//! What work costs on any machine, busy or not: pages and bytes, no seconds. How long it takes is for the benchmarks.

use std::fs::read_to_string;

/// What a piece of work took of the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Times that a page of memory was missing. Of a mapped file one brings 16 pages at most, 64 KB, so a gigabyte that is
    /// looked at costs 16,384.
    pub(crate) faults: u64,
    /// Bytes that were read into memory by system calls.
    pub(crate) read: u64,
}

/// The cost of `work` on this thread, nothing of other threads; zeros where the system does not tell.
pub(crate) fn cost(work: impl FnOnce()) -> Cost {
    let before = counters();
    work();
    let after = counters();
    Cost { faults: after.faults - before.faults, read: after.read - before.read }
}

fn counters() -> Cost {
    // Read first: the files below are read, too.
    let io = read_to_string("/proc/thread-self/io").unwrap_or_default();
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap_or(0);
    let stat = read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // After the name in parentheses: the minor faults are field 8, the major ones field 10.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |i: usize| fields.get(i).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Cost { faults: field(7) + field(9), read }
}
