//! Pearson's correlation of every feature of A with every feature of B, from a stream of codes.
//!
//! ```text
//! R[a,b] = (n Σ f_a f_b − Σ f_a Σ f_b) / √((n Σ f_a² − (Σ f_a)²)(n Σ f_b² − (Σ f_b)²))
//! ```
//!
//! Codes are sparse, so Σ f_a f_b grows by L0_A·L0_B products a row, not by F_A·F_B. The sums are F_A·F_B numbers in
//! `f64` and nothing else grows with the text. Each sum is taken in the order of rows by one thread, so that results do
//! not depend on threads. 4,096 × 4,096 features over 200,000 rows with 32 codes each take about 3 seconds on one
//! thread.

use crate::dictionary;
use crate::error::{Error, Result};
use crate::file::zeros;
use crate::num::parallel;

/// Codes of some rows, as [`dictionary::Codes`] holds them.
#[derive(Clone, Copy, Debug)]
pub struct Codes<'c> {
    /// Row r has the entries from `offsets[r]` to `offsets[r + 1]`.
    pub offsets: &'c [usize],
    /// (feature, activation), each feature once a row.
    pub entries: &'c [(u32, f32)],
}

impl<'c> From<&'c dictionary::Codes> for Codes<'c> {
    fn from(codes: &'c dictionary::Codes) -> Self {
        Self { offsets: codes.offsets(), entries: codes.entries() }
    }
}

impl<'c> Codes<'c> {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Row `r`; empty if there is none.
    pub fn row(&self, r: usize) -> &'c [(u32, f32)] {
        let at = |i: usize| self.offsets.get(i).copied().unwrap_or_default();
        self.entries.get(at(r)..at(r + 1)).unwrap_or_default()
    }

    fn check(&self, side: &str, n_features: usize) -> Result<()> {
        let whole = self.offsets.is_sorted() && self.offsets.last().copied().unwrap_or_default() <= self.entries.len();
        if !whole {
            return Err(Error::argument(format!("codes of {side}: expected offsets that rise up to the entries")));
        }
        match self.entries.iter().find(|(id, f)| *id as usize >= n_features || !f.is_finite()) {
            None => Ok(()),
            Some((id, f)) if f.is_finite() => {
                Err(Error::argument(format!("codes of {side}: expected a feature below {n_features}, found {id}")))
            }
            Some((id, f)) => Err(Error::numeric(format!("codes of {side}: feature {id} has the activation {f}"))),
        }
    }
}

/// Sums of one feature.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    fires: u64,
    sum: f64,
    squares: f64,
}

impl Moments {
    /// √(n Σf² − (Σf)²); none if the feature does not vary, as far as rounding lets one tell.
    fn spread(&self, n: f64) -> Option<f64> {
        let spread = n * self.squares - self.sum * self.sum;
        (spread > 1e-12 * n * self.squares).then(|| spread.sqrt())
    }
}

/// The feature of A that goes with a feature of B best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// It.
    pub a: u32,
    /// R[a,b].
    pub r: f64,
}

/// Sums over rows; see the [module](self).
pub struct Correlation {
    n_rows: u64,
    a: Vec<Moments>,
    b: Vec<Moments>,
    /// Σ f_a f_b, `[n_features_a, n_features_b]`.
    cross: Vec<f64>,
}

/// Rows of sums that a thread takes at once.
const LINES: usize = 16;

impl Correlation {
    /// No rows yet, for `n_a` and `n_b` features; the sums may take `most_bytes`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) with the bytes needed if they take more;
    /// [`Kind::Io`](crate::Kind::Io) if the system does not have them.
    pub fn new(n_a: usize, n_b: usize, most_bytes: usize) -> Result<Self> {
        let bytes = n_a.checked_mul(n_b).and_then(|n| n.checked_mul(size_of::<f64>()));
        if bytes.is_none_or(|bytes| bytes > most_bytes) {
            let needed = bytes.map_or_else(|| "more than any machine has".into(), |b| format!("{b} bytes"));
            let what = format!("correlations of {n_a} × {n_b} features take {needed}, allowed are {most_bytes}");
            return Err(Error::unsupported(what).hinted("allow more, or take smaller dictionaries"));
        }
        let (a, b) = (zeros(n_a, "sums")?, zeros(n_b, "sums")?);
        Ok(Self { n_rows: 0, a, b, cross: zeros(n_a * n_b, "correlations")? })
    }

    /// Rows added so far.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Adds rows, on `threads` threads (0: all): row i of `a` and of `b` are of one token.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if the numbers of rows differ or a feature does not exist,
    /// [`Kind::Numeric`](crate::Kind::Numeric) for an activation that is not finite.
    pub fn add(&mut self, a: Codes<'_>, b: Codes<'_>, threads: usize) -> Result<()> {
        a.check("A", self.a.len())?;
        b.check("B", self.b.len())?;
        if a.n_rows() != b.n_rows() {
            let (a, b) = (a.n_rows(), b.n_rows());
            return Err(Error::argument(format!("codes: expected as many rows of A as of B, found {a} and {b}")));
        }
        count(&mut self.a, a);
        count(&mut self.b, b);
        self.n_rows += a.n_rows() as u64;
        let (starts, places) = by_feature(a, self.a.len());
        let width = self.b.len().max(1);
        parallel::each(parallel::count(threads), self.cross.chunks_mut(LINES * width).enumerate(), |(block, lines)| {
            for (a, line) in (block * LINES..).zip(lines.chunks_mut(width)) {
                for &(row, f) in &places[starts[a]..starts[a + 1]] {
                    for &(b_id, g) in b.row(row as usize) {
                        line[b_id as usize] += f64::from(f) * f64::from(g);
                    }
                }
            }
        });
        Ok(())
    }

    /// R[a,b]; NaN where a feature does not vary.
    ///
    /// # Panics
    /// If there is no such feature.
    pub fn r(&self, a: usize, b: usize) -> f64 {
        let n = self.n_rows as f64;
        let spread = self.a[a].spread(n).zip(self.b[b].spread(n));
        let above = n * self.cross[a * self.b.len() + b] - self.a[a].sum * self.b[b].sum;
        spread.map_or(f64::NAN, |(a, b)| (above / (a * b)).clamp(-1.0, 1.0))
    }

    /// Whether features of A, and of B, fire on at least `least` rows, and not always alike.
    pub fn alive(&self, least: u64) -> [Vec<bool>; 2] {
        let n = self.n_rows as f64;
        let alive = |side: &[Moments]| {
            side.iter().map(|m| m.fires >= least.max(1) && m.spread(n).is_some()).collect::<Vec<bool>>()
        };
        [alive(&self.a), alive(&self.b)]
    }

    /// For every feature of B the feature of A with the largest, signed, correlation; of equal ones the first. Features
    /// that are not [`alive`](Self::alive) have none and are none.
    pub fn best(&self, least: u64) -> Vec<Option<Best>> {
        let n = self.n_rows as f64;
        let [alive_a, alive_b] = self.alive(least);
        let mut best: Vec<Option<Best>> = vec![None; self.b.len()];
        let scale: Vec<f64> = self.b.iter().map(|m| m.spread(n).map_or(0.0, |s| 1.0 / s)).collect();
        for ((a, line), _) in
            (0..).zip(self.cross.chunks(self.b.len().max(1))).zip(&alive_a).filter(|(_, alive)| **alive)
        {
            let own = &self.a[a as usize];
            let own_scale = own.spread(n).map_or(0.0, |s| 1.0 / s);
            for ((((best, &sum), b), &scale), _) in
                best.iter_mut().zip(line).zip(&self.b).zip(&scale).zip(&alive_b).filter(|(_, alive)| **alive)
            {
                let r = (n * sum - own.sum * b.sum) * own_scale * scale;
                if best.is_none_or(|before| r > before.r) {
                    *best = Some(Best { a, r });
                }
            }
        }
        best.iter_mut().flatten().for_each(|best| best.r = best.r.clamp(-1.0, 1.0));
        best
    }
}

fn count(moments: &mut [Moments], codes: Codes<'_>) {
    for row in (0..codes.n_rows()).map(|r| codes.row(r)) {
        for &(id, f) in row {
            let (own, f) = (&mut moments[id as usize], f64::from(f));
            own.fires += u64::from(f != 0.0);
            own.sum += f;
            own.squares += f * f;
        }
    }
}

/// The codes by feature: where each feature's places start, and the places, (row, activation), in the order of rows.
fn by_feature(codes: Codes<'_>, n_features: usize) -> (Vec<usize>, Vec<(u32, f32)>) {
    let mut starts = vec![0; n_features + 1];
    let rows = || (0..codes.n_rows()).map(|r| codes.row(r));
    rows().flatten().for_each(|&(id, _)| starts[id as usize + 1] += 1);
    for i in 0..n_features {
        starts[i + 1] += starts[i];
    }
    let mut next = starts.clone();
    let mut places = vec![(0, 0.0); starts[n_features]];
    for (r, row) in (0..).zip(rows()) {
        for &(id, f) in row {
            places[next[id as usize]] = (r, f);
            next[id as usize] += 1;
        }
    }
    (starts, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::{rng, stats};
    use rand::Rng;

    /// Dense codes `[n, f]` and the same sparse.
    fn random(n: usize, f: usize, seed: u64) -> (Vec<f32>, Vec<usize>, Vec<(u32, f32)>) {
        let mut rng = rng(seed);
        let (mut dense, mut offsets, mut entries) = (vec![0f32; n * f], vec![0], Vec::new());
        for row in dense.chunks_mut(f) {
            for (id, v) in (0..).zip(row) {
                if rng.random_bool(0.2) {
                    *v = rng.random_range(-0.5f32..2.0);
                    entries.push((id, *v));
                }
            }
            offsets.push(entries.len());
        }
        (dense, offsets, entries)
    }

    #[test]
    fn agrees_with_the_dense_formula_in_any_blocks_on_any_threads() {
        let (n, f_a, f_b) = (300, 37, 21);
        let (dense_a, offsets_a, entries_a) = random(n, f_a, 1);
        let (dense_b, offsets_b, entries_b) = random(n, f_b, 2);
        let mut bits = Vec::new();
        for (threads, block) in [(1, n), (3, 50), (2, 7)] {
            let mut all = Correlation::new(f_a, f_b, 1 << 20).unwrap();
            for first in (0..n).step_by(block) {
                let end = (first + block).min(n);
                let a = Codes { offsets: &offsets_a[first..=end], entries: &entries_a };
                let b = Codes { offsets: &offsets_b[first..=end], entries: &entries_b };
                all.add(a, b, threads).unwrap();
            }
            assert_eq!(all.n_rows(), n as u64);
            let column =
                |dense: &[f32], f: usize, j: usize| dense.iter().skip(j).step_by(f).copied().collect::<Vec<_>>();
            let best = all.best(1);
            for (b, best) in best.iter().enumerate() {
                let right = column(&dense_b, f_b, b);
                let exact: Vec<f64> = (0..f_a).map(|a| stats::pearson(&column(&dense_a, f_a, a), &right)).collect();
                for (a, exact) in exact.iter().enumerate() {
                    assert!((all.r(a, b) - exact).abs() < 1e-9, "{a} {b}: {} {exact}", all.r(a, b));
                }
                let top = (0..f_a).rev().max_by(|&x, &y| exact[x].total_cmp(&exact[y])).unwrap();
                assert_eq!(best.unwrap().a as usize, top);
            }
            bits.push(all.cross.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        }
        assert!(bits.windows(2).all(|two| two[0] == two[1]), "blocks and threads change nothing");
    }

    #[test]
    fn features_that_are_silent_or_rare_have_no_best() {
        // Feature 0 of both fires on every second row, 1 once, 2 never, 3 always alike.
        let rows = |r: usize| {
            [(0, 1.0)]
                .into_iter()
                .filter(move |_| r.is_multiple_of(2))
                .chain((r == 4).then_some((1, 9.0)))
                .chain([(3, 2.0)])
        };
        let (mut offsets, mut entries) = (vec![0], Vec::<(u32, f32)>::new());
        for r in 0..20 {
            entries.extend(rows(r));
            offsets.push(entries.len());
        }
        let codes = Codes { offsets: &offsets, entries: &entries };
        let mut all = Correlation::new(4, 4, 1 << 20).unwrap();
        all.add(codes, codes, 1).unwrap();
        let best = all.best(2);
        assert_eq!(best[0].map(|b| (b.a, (b.r - 1.0).abs() < 1e-12)), Some((0, true)));
        assert!(best[1].is_none() && best[2].is_none() && best[3].is_none());
        assert!(all.best(1)[1].is_some() && all.r(0, 3).is_nan());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = Correlation::new(1 << 16, 1 << 16, 4 << 30).err().unwrap();
        assert!(error.message().contains("34359738368 bytes"), "{error}");
        assert!(Correlation::new(usize::MAX, 2, usize::MAX).is_err());
        let mut all = Correlation::new(2, 2, 1 << 10).unwrap();
        let good = Codes { offsets: &[0, 1], entries: &[(1, 1.0)] };
        for bad in [
            Codes { offsets: &[0, 1], entries: &[(2, 1.0)] },
            Codes { offsets: &[0, 2], entries: &[(1, 1.0)] },
            Codes { offsets: &[0, 1], entries: &[(1, f32::NAN)] },
            Codes { offsets: &[0, 1, 1], entries: &[(1, 1.0)] },
        ] {
            assert!(all.add(good, bad, 1).is_err() && all.add(bad, good, 1).is_err(), "{bad:?}");
        }
        assert_eq!(all.n_rows(), 0, "nothing was added");
    }
}
