//! The estimator `data`: mutual information, counted over windows of harvested text.
//!
//! a_c says that feature c fires in a window, b_w that word w occurs in it. Over W windows
//!
//! ```text
//! I(a_c; b_w) = Σ_{a,b ∈ {0,1}} p_ab · ln(p_ab / (p_a· p_·b))      in nats, with the sign of p_11 − p_1· p_·1
//! ```
//!
//! It needs no lens, so it works at any layer (ours; the paper's own estimator is [`lens`](super::lens)). Only words that
//! come with the feature more often than chance explain it: scores that are not positive are left out.
//!
//! Cost: words are sparse, so for each word the active features of the windows that hold it are counted: about
//! W · (features a window) · (words a window) additions into one line of `n_features` counters, which stay in the first
//! cache. Bitsets and popcounts need n_features · n_words · W / 64 operations instead; `benches/explain.rs` runs both.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::best::Best;
use super::windows::{Lists, Windows};

/// What [`count`] keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// Words kept per feature.
    pub top: usize,
    /// Windows in which feature and word must come together to count at all: rarer pairs are chance.
    pub min_together: u32,
    /// Windows times information, in nats, that a pair must reach. Twice that is the G statistic of independence, χ² with one
    /// degree of freedom: at 15 one pair in 2·10⁷ passes by chance, and that many pairs are looked at.
    pub min_evidence: f64,
    /// A feature that fires in a larger share of the windows is left without words.
    pub max_share: f32,
    /// Threads; 0 is taken as 1. The answer does not depend on it.
    pub threads: usize,
}

impl Default for Count {
    fn default() -> Self {
        Self { top: super::TOP_WORDS, min_together: 3, min_evidence: 15.0, max_share: 0.5, threads: 1 }
    }
}

/// x ln x for whole x, from a table: the four cells of a pair cost four look-ups.
struct Entropy {
    table: Vec<f64>,
}

impl Entropy {
    fn new(n: usize) -> Self {
        let table = (0..=n).map(|x| if x == 0 { 0.0 } else { x as f64 * (x as f64).ln() }).collect();
        Self { table }
    }

    /// I(a; b) in nats over `n` windows: a in `a` of them, b in `b`, both in `both`.
    fn information(&self, n: u32, a: u32, b: u32, both: u32) -> f64 {
        let h = |x: u32| self.table[x as usize];
        let cells = h(both) + h(a - both) + h(b - both) + h(n + both - a - b);
        let margins = h(a) + h(n - a) + h(b) + h(n - b);
        (cells - margins + h(n)) / f64::from(n)
    }
}

/// The words of every feature, best first, with I(a_c; b_w) in nats: `[n_features]` lists of (rank of the word, score).
pub fn count(windows: &Windows, options: &Count) -> Vec<Vec<(u32, f32)>> {
    let n_features = windows.n_features();
    let holders = windows.words.transposed(windows.n_words);
    let fires = windows.features.holders(n_features);
    let too_dense = (f64::from(options.max_share) * windows.len() as f64) as u32;
    let shared = Shared { windows, options, holders, fires, too_dense, entropy: Entropy::new(windows.len()) };
    let next = AtomicUsize::new(0);
    let mut parts: Vec<Vec<Best>> = std::thread::scope(|scope| {
        // What no thread could be started for is done by the others.
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, || shared.work(&next)).ok();
        let workers: Vec<_> = (1..options.threads.max(1)).filter_map(start).collect();
        let own = shared.work(&next);
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        std::iter::once(own).chain(workers.into_iter().map(join)).collect()
    });
    let mut all = parts.pop().unwrap_or_default();
    for part in parts {
        all.iter_mut().zip(&part).for_each(|(best, more)| best.merge(more));
    }
    all.into_iter().map(Best::into_sorted).collect()
}

struct Shared<'a> {
    windows: &'a Windows,
    options: &'a Count,
    /// Per word, the windows that hold it.
    holders: Lists,
    /// Per feature, the number of windows in which it fires.
    fires: Vec<u32>,
    too_dense: u32,
    entropy: Entropy,
}

impl Shared<'_> {
    /// Takes words until none is left.
    fn work(&self, next: &AtomicUsize) -> Vec<Best> {
        let mut best = vec![Best::new(self.options.top); self.fires.len()];
        let mut together = vec![0u32; self.fires.len()];
        loop {
            let word = next.fetch_add(1, Ordering::Relaxed);
            if word >= self.holders.len() {
                return best;
            }
            let holders = self.holders.list(word);
            for &window in holders {
                self.windows.features.list(window as usize).iter().for_each(|&f| together[f as usize] += 1);
            }
            self.offer(word as u32, holders.len() as u32, &together, &mut best);
            together.fill(0);
        }
    }

    fn offer(&self, word: u32, held: u32, together: &[u32], best: &mut [Best]) {
        let n = self.windows.len() as u32;
        for ((&both, &fires), best) in together.iter().zip(&self.fires).zip(best) {
            if both < self.options.min_together.max(1) || fires > self.too_dense {
                continue;
            }
            // The sign, in whole numbers: p_11 > p_1· p_·1.
            if u64::from(both) * u64::from(n) > u64::from(fires) * u64::from(held) {
                let information = self.entropy.information(n, fires, held, both);
                if information * f64::from(n) >= self.options.min_evidence {
                    best.offer(word, information as f32);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_is_what_the_formula_says() {
        let entropy = Entropy::new(1000);
        for (n, a, b, both) in
            [(1000u32, 100u32, 50u32, 40u32), (10, 5, 5, 5), (1000, 3, 3, 3), (8, 4, 2, 1), (7, 7, 3, 3)]
        {
            let cell = |count: u32, row: u32, column: u32| {
                let (p, pq) =
                    (f64::from(count) / f64::from(n), f64::from(row) * f64::from(column) / f64::from(n).powi(2));
                if count == 0 { 0.0 } else { p * (p / pq).ln() }
            };
            let expected = cell(both, a, b)
                + cell(a - both, a, n - b)
                + cell(b - both, n - a, b)
                + cell(n + both - a - b, n - a, n - b);
            let found = entropy.information(n, a, b, both);
            assert!((found - expected).abs() < 1e-10, "{n} {a} {b} {both}: {found} {expected}");
        }
        assert!((entropy.information(10, 5, 5, 5) - 2f64.ln()).abs() < 1e-12);
        assert!(entropy.information(8, 4, 2, 1).abs() < 1e-12);
    }
}
