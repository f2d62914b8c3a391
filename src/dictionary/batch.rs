//! Encode many rows, on several threads.
//!
//! Few features of many are active, so a batch is screened first: the products of all rows with all features in 16-bit
//! integers ([`screen`]), which costs half of a matrix product in `f32`, and then the exact pre-activation of every feature
//! that may be active by the bound on the error. What comes out is to the bit what [`Dictionary::encode_sparse`] gives row
//! by row. A few rows, which a screening of the whole dictionary would not pay for, share each encoder row as it is read.

use std::ops::Range;

use super::Dictionary;
use super::encode::{Rule, Units};
use crate::num::screen::{self, PANEL, Rounded, TILE};

/// Codes of many rows, compressed by rows (CSR).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes {
    /// Row r has the entries from `offsets[r]` to `offsets[r + 1]`; `n_rows + 1` of them.
    offsets: Vec<usize>,
    entries: Vec<(u32, f32)>,
}

impl Codes {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Active features of all rows: rows times L0.
    pub fn n_active(&self) -> usize {
        self.entries.len()
    }

    /// Row `r` as (feature, activation), features ascending.
    ///
    /// # Panics
    /// If there is no row `r`.
    pub fn row(&self, r: usize) -> &[(u32, f32)] {
        &self.entries[self.offsets[r]..self.offsets[r + 1]]
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[(u32, f32)]> {
        self.offsets.windows(2).map(|w| &self.entries[w[0]..w[1]])
    }

    /// Where rows begin and end: `n_rows + 1` offsets into [`Codes::entries`].
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The entries of all rows, one row after the other.
    pub fn entries(&self) -> &[(u32, f32)] {
        &self.entries
    }

    fn with_rows(n: usize) -> Self {
        let mut offsets = Vec::with_capacity(n + 1);
        offsets.push(0);
        Self { offsets, entries: Vec::new() }
    }

    fn end_row(&mut self) {
        self.offsets.push(self.entries.len());
    }

    fn append(&mut self, other: &Self) {
        let start = self.entries.len();
        self.offsets.extend(other.offsets.iter().skip(1).map(|o| start + o));
        self.entries.extend_from_slice(&other.entries);
    }
}

/// Rows screened at once: the encoder is read and rounded once for so many.
const BLOCK: usize = 2048;
/// Fewer rows are not worth rounding the encoder for.
const MIN_SCREENED: usize = 16;
/// Weights that are worth a thread of their own: it takes as long to start as to read them.
const MIN_WEIGHTS: usize = 1 << 18;

impl Dictionary {
    /// Codes of `rows` `[n, d_model]`, on at most `threads` threads: for each row exactly those that
    /// [`Dictionary::encode_sparse`] gives.
    ///
    /// Costs about n·n_features·d_model operations, half of what a matrix product takes, and one row the time that its
    /// encoder takes to read. Memory beside the codes: 2,048 rows, in `f32` and in 16 bits, and 1 MB a thread.
    ///
    /// # Panics
    /// If `rows` is no whole number of rows.
    pub fn encode_batch(&self, rows: &[f32], threads: usize) -> Codes {
        let d = self.d_model();
        assert!(rows.len().is_multiple_of(d), "{} values are no rows of width {d}", rows.len());
        let mut codes = Codes::with_rows(rows.len() / d);
        for rows in rows.chunks(BLOCK * d) {
            let n = rows.len() / d;
            let weights = self.n_features().saturating_mul(d).saturating_mul(n);
            let threads = threads.clamp(1, weights.div_ceil(MIN_WEIGHTS));
            let inputs: Vec<f32> = rows.chunks_exact(d).flat_map(|x| self.input(x).0.into_owned()).collect();
            if n < MIN_SCREENED {
                self.encode_few(&inputs, threads, &mut codes)
            } else {
                self.encode_many(&inputs, threads, &mut codes)
            }
        }
        codes
    }

    /// Codes of a few inputs a: every encoder row is read once.
    fn encode_few(&self, inputs: &[f32], threads: usize, codes: &mut Codes) {
        let (d, n_features) = (self.d_model(), self.n_features());
        let n = inputs.len() / d;
        let rows = self.encoder.rows();
        let shares = on_threads(n_features, threads, 1, |features| {
            let mut z = vec![0.0; n * features.len()];
            let len = features.len();
            for (j, i) in features.enumerate() {
                let row = rows.get(i);
                inputs.chunks_exact(d).enumerate().for_each(|(r, a)| z[r * len + j] = row.dot(a));
            }
            z
        });
        let (units, rule) = (self.units(), self.rule());
        let mut z = Vec::with_capacity(n_features);
        for r in 0..n {
            z.clear();
            shares.iter().for_each(|share| z.extend_from_slice(&share[r * (share.len() / n)..][..share.len() / n]));
            if rule == Rule::Alone {
                let active = z.iter().enumerate().map(|(i, &z)| (i as u32, units.get(i).activate(z)));
                codes.entries.extend(active.filter(|code| code.1 > 0.0));
            } else {
                units.preactivate(&mut z);
                rule.keep(&z, &mut codes.entries);
            }
            codes.end_row();
        }
    }

    /// Codes of many inputs a: screened, then exact.
    fn encode_many(&self, inputs: &[f32], threads: usize, codes: &mut Codes) {
        let (d, n_features, rule) = (self.d_model(), self.n_features(), self.rule());
        let n = inputs.len() / d;
        let rounded = Inputs::new(inputs, d, threads);
        let bounds = if rule == Rule::Alone { self.units().bounds() } else { Vec::new() };
        let screened =
            on_threads(n_features, threads, PANEL, |features| self.screen(&rounded, features, rule, &bounds));
        let parts = on_threads(n, threads, 1, |range| {
            let candidates: Vec<Vec<Candidate>> = range
                .clone()
                .map(|r| {
                    let mut all: Vec<Candidate> = screened.iter().flat_map(|share| share[r].iter().copied()).collect();
                    thin_out(&mut all, rule, n_features);
                    all
                })
                .collect();
            self.exact(&inputs[range.start * d..range.end * d], &candidates)
        });
        parts.iter().for_each(|part| codes.append(part));
    }

    /// For each input the features of a range that may be active, ascending, and a few more.
    fn screen(&self, inputs: &Inputs, features: Range<usize>, rule: Rule, bounds: &[f32]) -> Vec<Vec<Candidate>> {
        /// Bytes of panels that stay in the cache of second level while all rows pass by.
        const CHUNK_BYTES: usize = 256 << 10;
        let (d, pairs, n_features) = (self.d_model(), inputs.pairs, self.n_features());
        let panels = (CHUNK_BYTES / (pairs * PANEL * 4).max(1)).max(1);
        let (rows, units) = (self.encoder.rows(), self.units());
        let mut found = vec![Vec::new(); inputs.n];
        let mut bars = vec![f32::NEG_INFINITY; inputs.n];
        let (mut row, mut packed) = (vec![0f32; d], vec![[0i32; PANEL]; panels * pairs]);
        let mut integers = vec![0i32; PANEL * pairs];
        let mut of = vec![Rounded::default(); panels * PANEL];
        for first in features.clone().step_by(panels * PANEL) {
            let chunk = first..(first + panels * PANEL).min(features.end);
            let count = chunk.len().div_ceil(PANEL);
            of.fill(Rounded::default());
            for (p, start) in chunk.clone().step_by(PANEL).enumerate() {
                let some = start..(start + PANEL).min(chunk.end);
                for (j, i) in some.clone().enumerate() {
                    rows.get(i).decode(&mut row);
                    of[p * PANEL + j] = screen::round(&row, &mut integers[j * pairs..(j + 1) * pairs]);
                }
                screen::pack(&integers[..some.len() * pairs], pairs, &mut packed[p * pairs..(p + 1) * pairs]);
            }
            for start in (0..inputs.n).step_by(TILE) {
                // The last tile is filled up with its last row.
                let tile = std::array::from_fn(|t| inputs.row((start + t).min(inputs.n - 1)));
                for p in 0..count {
                    let sums = screen::products(&tile, &packed[p * pairs..(p + 1) * pairs]);
                    let at = first + p * PANEL;
                    let panel =
                        Panel { first: at, len: PANEL.min(chunk.end - at), of: &of[p * PANEL..(p + 1) * PANEL] };
                    for (r, sums) in (start..inputs.n).zip(&sums) {
                        match rule {
                            Rule::Alone => panel.alone(inputs.of[r], sums, bounds, &mut found[r]),
                            _ => {
                                panel.competing(inputs.of[r], sums, units, bars[r], &mut found[r]);
                                if let Rule::TopK(k) = rule
                                    && found[r].len() >= 2 * k + 64
                                {
                                    bars[r] = raise(&mut found[r], k, bars[r]);
                                }
                            }
                        }
                    }
                }
            }
            if let Rule::GroupMax(_) = rule {
                found.iter_mut().for_each(|found| thin_out(found, rule, n_features));
            }
        }
        found
    }

    /// Codes of inputs whose active features are among the candidates. Features are gone through in order, some at a time
    /// for all inputs, so that their rows are read once.
    fn exact(&self, inputs: &[f32], candidates: &[Vec<Candidate>]) -> Codes {
        const FEATURES: u32 = 64;
        let (d, rule, units) = (self.d_model(), self.rule(), self.units());
        let rows = self.encoder.rows();
        let mut z: Vec<Vec<(u32, f32)>> = candidates.iter().map(|c| Vec::with_capacity(c.len())).collect();
        for end in (0..self.n_features() as u32).step_by(FEATURES as usize).map(|first| first.saturating_add(FEATURES))
        {
            for ((a, candidates), z) in inputs.chunks_exact(d).zip(candidates).zip(&mut z) {
                for c in candidates.get(z.len()..).unwrap_or_default().iter().take_while(|c| c.feature < end) {
                    z.push((c.feature, rows.get(c.feature as usize).dot(a)));
                }
            }
        }
        let mut codes = Codes::with_rows(z.len());
        for z in &z {
            if rule == Rule::Alone {
                let active = z.iter().map(|&(i, z)| (i, units.get(i as usize).activate(z)));
                codes.entries.extend(active.filter(|code| code.1 > 0.0));
            } else {
                let p: Vec<(u32, f32)> = z.iter().map(|&(i, z)| (i, units.get(i as usize).preactivate(z))).collect();
                rule.keep_among(&p, self.n_features(), &mut codes.entries);
            }
            codes.end_row();
        }
        codes
    }
}

/// Inputs a, rounded.
struct Inputs {
    n: usize,
    pairs: usize,
    integers: Vec<i32>,
    of: Vec<Rounded>,
}

impl Inputs {
    fn new(inputs: &[f32], d: usize, threads: usize) -> Self {
        let (n, pairs) = (inputs.len() / d, screen::n_pairs(d));
        let parts = on_threads(n, threads, 1, |range| {
            let (mut integers, mut of) = (vec![0; range.len() * pairs], Vec::with_capacity(range.len()));
            for (a, out) in inputs[range.start * d..range.end * d].chunks_exact(d).zip(integers.chunks_exact_mut(pairs))
            {
                of.push(screen::round(a, out));
            }
            (integers, of)
        });
        let mut all = Self { n, pairs, integers: Vec::with_capacity(n * pairs), of: Vec::with_capacity(n) };
        for (integers, of) in parts {
            all.integers.extend_from_slice(&integers);
            all.of.extend_from_slice(&of);
        }
        all
    }

    fn row(&self, r: usize) -> &[i32] {
        &self.integers[r * self.pairs..(r + 1) * self.pairs]
    }
}

/// A feature that may be active, and between what its pre-activation lies.
#[derive(Clone, Copy)]
struct Candidate {
    feature: u32,
    low: f32,
    high: f32,
}

/// The features of a panel.
struct Panel<'a> {
    first: usize,
    /// Fewer than [`PANEL`] in the last one.
    len: usize,
    of: &'a [Rounded],
}

impl Panel<'_> {
    /// z of feature `j`, and how far it may be off. Comparisons are made so that NaN, of which nothing is known, passes.
    #[inline]
    fn z(&self, j: usize, a: Rounded, sum: i32) -> (f32, f32) {
        let of = self.of[j];
        (sum as f32 * (a.step * of.step), a.error * of.norm + a.norm * of.error)
    }

    /// Features that are independent: `bounds` are exceeded by z of any that is active.
    #[inline]
    fn alone(&self, a: Rounded, sums: &[i32; PANEL], bounds: &[f32], found: &mut Vec<Candidate>) {
        let bounds = &bounds[self.first..self.first + self.len];
        let passes = |j: usize, bound: f32| {
            let (z, reach) = self.z(j, a, sums[j]);
            z + reach <= bound
        };
        if bounds.iter().enumerate().fold(true, |all, (j, &bound)| all & passes(j, bound)) {
            return;
        }
        for (j, &bound) in bounds.iter().enumerate() {
            if !passes(j, bound) {
                found.push(Candidate { feature: (self.first + j) as u32, low: 0.0, high: 0.0 });
            }
        }
    }

    /// Features that compete: `bar` is a pre-activation that the winners reach.
    #[inline]
    fn competing(&self, a: Rounded, sums: &[i32; PANEL], units: Units<'_>, bar: f32, found: &mut Vec<Candidate>) {
        let (bias, norms) = units.competing(self.first..self.first + self.len);
        let p = |j: usize| {
            let (z, reach) = self.z(j, a, sums[j]);
            let outer = norms.map_or(1.0, |norms| norms[j]);
            let reach = (reach + 1e-6 * (z.abs() + bias[j].abs())) * outer;
            let p = (z + bias[j]) * outer;
            (p - reach, p + reach)
        };
        let loses = |high: f32| (high < bar) | (high <= 0.0);
        if (0..self.len).fold(true, |all, j| all & loses(p(j).1)) {
            return;
        }
        for j in 0..self.len {
            let (low, high) = p(j);
            if !loses(high) {
                let low = if low.is_nan() { f32::NEG_INFINITY } else { low };
                found.push(Candidate { feature: (self.first + j) as u32, low, high });
            }
        }
    }
}

/// A bar that the k largest reach: the k-th largest of what the candidates reach at least. Drops those that it leaves
/// behind.
fn raise(found: &mut Vec<Candidate>, k: usize, bar: f32) -> f32 {
    let Some(at) = k.checked_sub(1).filter(|&at| at < found.len()) else { return bar };
    let mut low: Vec<f32> = found.iter().map(|c| c.low).collect();
    let (_, &mut kth, _) = low.select_nth_unstable_by(at, |a, b| b.total_cmp(a));
    let bar = if kth > bar { kth } else { bar };
    found.retain(|c| !(c.high < bar));
    bar
}

/// Drops candidates that cannot win.
fn thin_out(found: &mut Vec<Candidate>, rule: Rule, n_features: usize) {
    match rule {
        Rule::Alone => {}
        Rule::TopK(k) => {
            raise(found, k, f32::NEG_INFINITY);
        }
        Rule::GroupMax(k) => {
            let group = (n_features / k.max(1)).max(1) as u32;
            let mut bars: Vec<(u32, f32)> = Vec::new();
            for c in found.iter() {
                let g = c.feature / group;
                match bars.last_mut() {
                    Some((last, bar)) if *last == g => *bar = bar.max(c.low),
                    _ => bars.push((g, c.low)),
                }
            }
            let mut bars = bars.into_iter().peekable();
            found.retain(|c| {
                while bars.next_if(|bar| bar.0 < c.feature / group).is_some() {}
                bars.peek().is_none_or(|bar| !(c.high < bar.1))
            });
        }
    }
}

/// What `work` makes of the parts of 0..n, which are multiples of `unit` but for the last: one part a thread, the first of
/// which is the caller's.
fn on_threads<T: Send>(n: usize, threads: usize, unit: usize, work: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let part = n.div_ceil(threads.max(1)).next_multiple_of(unit).max(1);
    let ranges: Vec<Range<usize>> = (0..n).step_by(part).map(|first| first..(first + part).min(n)).collect();
    let Some((first, others)) = ranges.split_first() else { return Vec::new() };
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = others.iter().map(|range| scope.spawn(|| work(range.clone()))).collect();
        let mut done = vec![work(first.clone())];
        for thread in running {
            match thread.join() {
                Ok(part) => done.push(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}
