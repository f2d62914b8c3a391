//! Work in pieces of a fixed size, handed to whichever thread is free.
//!
//! Results never depend on who did a piece: pieces own their outputs, and sums over pieces are taken afterwards, in order.

use std::sync::Mutex;

/// The threads to use where `asked` are asked for; 0 asks for all that the machine has.
pub(crate) fn count(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// Runs `work` on every item, on `threads` threads of which the caller's is one: where one is asked for, or there is one
/// item, no thread is started. Returns when all are done.
pub(crate) fn each<T: Send>(threads: usize, items: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    let threads = items.size_hint().1.map_or(threads, |n| threads.min(n));
    let items = Mutex::new(items);
    let drain = || {
        while let Some(item) = next(&items) {
            work(item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // What no thread could be started for is done by the others.
            let _ = std::thread::Builder::new().spawn_scoped(scope, drain);
        }
        drain();
    });
}

/// The next item. A panic of another worker reaches the caller through the scope, so a poisoned lock may be ignored.
fn next<T>(items: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    items.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_item_is_done_once_at_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let mut cells = vec![0u32; 100];
            super::each(threads, cells.iter_mut().enumerate(), |(i, cell)| *cell += i as u32);
            assert!(cells.iter().enumerate().all(|(i, &cell)| cell == i as u32), "{threads} threads");
        }
    }
}
