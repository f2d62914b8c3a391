//! Encode many rows, on several threads.
//!
//! Few features of many are active, so a batch is screened first: the products of all rows with all features in 16-bit
//! integers ([`screen`]), by fewer multiplications than the definition takes ([`strassen`]), which costs less than half of a
//! matrix product in `f32`, and then the exact pre-activation of every feature that may be active by the bound on the error. What comes out is to the bit what [`Dictionary::encode_sparse`] gives row
//! by row. A few rows, which a screening of the whole dictionary would not pay for, go another way ([`few`](super::few)).

use std::ops::Range;

use super::Dictionary;
use super::encode::Rule;
use super::sieve::{Candidate, Packer, Panel, Sieve, thin_out};
use crate::num::parallel::each;
use crate::num::screen::{self, PANEL, Rounded, Sums, TILE};
use crate::num::strassen::{self, GROUP, PRODUCTS, Side};

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

    pub(super) fn with_rows(n: usize) -> Self {
        let mut offsets = Vec::with_capacity(n + 1);
        offsets.push(0);
        Self { offsets, entries: Vec::new() }
    }

    /// Appends the row that `write` appends to the entries.
    pub(super) fn push_row(&mut self, write: impl FnOnce(&mut Vec<(u32, f32)>)) {
        write(&mut self.entries);
        self.offsets.push(self.entries.len());
    }

    fn append(&mut self, other: &Self) {
        let start = self.entries.len();
        self.offsets.extend(other.offsets.iter().skip(1).map(|o| start + o));
        self.entries.extend_from_slice(&other.entries);
    }
}

/// Rows screened at once: the encoder is read and rounded once for so many.
const BLOCK: usize = 4096;
/// Groups of tiles, and of panels, that are multiplied before their products are looked at.
const TILE_GROUPS: usize = 8;
const PANEL_GROUPS: usize = 4;
/// Fewer rows are not worth rounding the encoder for.
const MIN_SCREENED: usize = 16;
/// Weights that are worth a thread of their own: it takes as long to start as to read them.
pub(super) const MIN_WEIGHTS: usize = 1 << 18;

impl Dictionary {
    /// Codes of `rows` `[n, d_model]`, on at most `threads` threads: for each row exactly those that
    /// [`Dictionary::encode_sparse`] gives.
    ///
    /// Costs about .4 of the matrix product in `f32`, and one row the time that its encoder takes to read. Memory beside the
    /// codes: 4,096 rows, in `f32` and three times in 16 bits, and some megabytes a thread. Who encodes more
    /// than some rows one by one, or a few at a time, with an encoder in F32 keeps it once more in `q8_0`, a quarter of its
    /// size: almost all that is read then is that.
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
            let mut inputs = vec![0.0; rows.len()];
            let share = n.div_ceil(threads) * d;
            each(threads, rows.chunks(share).zip(inputs.chunks_mut(share)), |(rows, inputs)| {
                let pairs = rows.chunks_exact(d).zip(inputs.chunks_exact_mut(d));
                pairs.for_each(|(x, a)| a.copy_from_slice(&self.input(x).0));
            });
            if n < MIN_SCREENED {
                self.encode_few(&inputs, threads, &mut codes)
            } else {
                self.encode_many(&inputs, threads, &mut codes)
            }
        }
        codes
    }

    /// Codes of many inputs a: screened, then exact.
    fn encode_many(&self, inputs: &[f32], threads: usize, codes: &mut Codes) {
        let (d, n_features, rule) = (self.d_model(), self.n_features(), self.rule());
        let n = inputs.len() / d;
        let rounded = Inputs::new(inputs, d, threads);
        let bounds = if rule == Rule::Alone { self.units().bounds() } else { Vec::new() };
        let screened =
            on_threads(n_features, threads, GROUP * PANEL, |features| self.screen(&rounded, features, rule, &bounds));
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
        let units = self.units();
        let len = PRODUCTS * inputs.part;
        let mut packer = Packer::new(self.encoder.rows(), self.d_model());
        let mut packed = vec![[0i32; PANEL]; PANEL_GROUPS * len];
        let mut sieve = Sieve::new(rule, inputs.n);
        let mut results = Vec::new();
        for first in features.clone().step_by(PANEL_GROUPS * GROUP * PANEL) {
            let chunk = first..(first + PANEL_GROUPS * GROUP * PANEL).min(features.end);
            let mut panels = Vec::with_capacity(PANEL_GROUPS * GROUP);
            for (start, packed) in chunk.step_by(GROUP * PANEL).zip(packed.chunks_exact_mut(len)) {
                let of = packer.pack(start..(start + GROUP * PANEL).min(features.end), packed);
                panels.extend((start..).step_by(PANEL).zip(&of).map(|(start, of)| {
                    let features = start.min(features.end)..(start + PANEL).min(features.end);
                    if rule == Rule::Alone {
                        Panel::alone(features, of, bounds)
                    } else {
                        Panel::competing(features, of, units)
                    }
                }));
            }
            for start in (0..inputs.n).step_by(TILE_GROUPS * GROUP * TILE) {
                let rows = start..(start + TILE_GROUPS * GROUP * TILE).min(inputs.n);
                inputs.products(rows.clone(), &packed[..panels.len() / GROUP * len], &mut results);
                for (t, tile) in rows.clone().step_by(TILE).enumerate() {
                    for (panels, results) in
                        panels.as_chunks::<GROUP>().0.iter().zip(results.iter().skip(t / GROUP).step_by(TILE_GROUPS))
                    {
                        for (panel, sums) in panels.iter().zip(&results[t % GROUP * GROUP..]) {
                            (tile..rows.end).zip(sums).for_each(|(r, sums)| sieve.sift(panel, r, inputs.of[r], sums));
                        }
                    }
                }
            }
            if let Rule::GroupMax(_) = rule {
                sieve.found.iter_mut().for_each(|found| thin_out(found, rule, self.n_features()));
            }
        }
        sieve.found
    }

    /// Codes of inputs whose active features are among the candidates. Features are gone through in order, some at a time
    /// for all inputs that the cache holds, so that their rows are read once.
    fn exact(&self, inputs: &[f32], candidates: &[Vec<Candidate>]) -> Codes {
        const FEATURES: u32 = 16;
        const CACHED: usize = 8 << 20;
        let cached = (CACHED / (self.d_model() * size_of::<f32>())).max(1);
        if candidates.len() > cached {
            let mut codes = Codes::with_rows(candidates.len());
            let parts = inputs.chunks(cached * self.d_model()).zip(candidates.chunks(cached));
            parts.for_each(|(inputs, candidates)| codes.append(&self.exact(inputs, candidates)));
            return codes;
        }
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
            codes.push_row(|out| {
                if rule == Rule::Alone {
                    let active = z.iter().map(|&(i, z)| (i, units.get(i as usize).activate(z)));
                    out.extend(active.filter(|code| code.1 > 0.0));
                } else {
                    let p = |&(i, z): &(u32, f32)| (i, units.get(i as usize).preactivate(z));
                    rule.keep_among(&z.iter().map(p).collect::<Vec<_>>(), self.n_features(), out);
                }
            });
        }
        codes
    }
}

/// Inputs a, rounded.
struct Inputs {
    n: usize,
    /// Entry pairs of a part.
    part: usize,
    /// The parts of the groups of tiles, one group after the other.
    parts: Vec<[i32; TILE]>,
    of: Vec<Rounded>,
}

impl Inputs {
    fn new(inputs: &[f32], d: usize, threads: usize) -> Self {
        let (n, pairs) = (inputs.len() / d, screen::n_pairs(d));
        let part = strassen::part_len(pairs);
        let (n_groups, len) = (n.div_ceil(GROUP * TILE), PRODUCTS * part);
        let mut all = Self { n, part, parts: vec![[0; TILE]; n_groups * len], of: vec![Rounded::default(); n] };
        let share = n_groups.div_ceil(threads.max(1)).max(1);
        let rows = share * GROUP * TILE;
        let shares = inputs.chunks(rows * d).zip(all.parts.chunks_mut(share * len)).zip(all.of.chunks_mut(rows));
        each(threads, shares, |((inputs, parts), of)| {
            let mut integers = vec![0; TILE * pairs];
            let mut tiles = vec![[0; TILE]; GROUP * pairs];
            let (mut scratch, mut of) = (Vec::new(), of.iter_mut());
            for (group, parts) in inputs.chunks(GROUP * TILE * d).zip(parts.chunks_exact_mut(len)) {
                let mut rows = group.chunks(TILE * d);
                for tile in tiles.chunks_exact_mut(pairs) {
                    let rows = rows.next().unwrap_or_default().chunks_exact(d);
                    let filled = rows.len() * pairs;
                    for ((row, out), of) in rows.zip(integers.chunks_exact_mut(pairs)).zip(&mut of) {
                        *of = screen::round(row, out);
                    }
                    screen::interleave(&integers[..filled], pairs, tile);
                }
                strassen::spread(Side::Left, &tiles, &mut scratch, parts);
            }
        });
        all
    }

    /// Products of some inputs, at most [`TILE_GROUPS`] groups of tiles of them, with some groups of panels, of which the
    /// parts lie one after the other: for each group of panels [`TILE_GROUPS`] results. What a thread reads in one go
    /// stays in its caches: a part of a panel in the first level while the tiles pass by, all results in the second.
    fn products(&self, rows: Range<usize>, panels: &[[i32; PANEL]], results: &mut Vec<[Sums; GROUP * GROUP]>) {
        let len = PRODUCTS * self.part;
        let groups = rows.start / (GROUP * TILE)..rows.end.div_ceil(GROUP * TILE);
        let tiles = &self.parts[groups.start * len..groups.end * len];
        results.clear();
        results.resize(panels.len() / len * TILE_GROUPS, [Sums::default(); GROUP * GROUP]);
        for m in 0..PRODUCTS {
            let part = m * self.part..(m + 1) * self.part;
            for (panel, results) in panels.chunks_exact(len).zip(results.chunks_exact_mut(TILE_GROUPS)) {
                for (tile, results) in tiles.chunks_exact(len).zip(results) {
                    let mut product = Sums::default();
                    screen::products(&tile[part.clone()], &panel[part.clone()], &mut product);
                    strassen::gather(m, &product, results);
                }
            }
        }
    }
}

/// What `work` makes of the parts of 0..n, which are multiples of `unit` but for the last: one part a thread, the first of
/// which is the caller's.
pub(super) fn on_threads<T: Send>(
    n: usize,
    threads: usize,
    unit: usize,
    work: impl Fn(Range<usize>) -> T + Sync,
) -> Vec<T> {
    let part = n.div_ceil(threads.max(1)).next_multiple_of(unit).max(1);
    let ranges: Vec<Range<usize>> = (0..n).step_by(part).map(|first| first..(first + part).min(n)).collect();
    let Some((first, others)) = ranges.split_first() else { return Vec::new() };
    if others.is_empty() {
        return vec![work(first.clone())];
    }
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
