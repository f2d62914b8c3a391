//! Encode many rows: one matrix product per block of rows, on all threads.

use std::cell::OnceCell;

use super::Dictionary;
use super::encode::{Rule, Units};
use crate::num::{Mat, gemm_columns};

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

impl Dictionary {
    /// Codes of `rows` `[n, d_model]`, on at most `threads` threads; they do not depend on the number of threads.
    /// Sums run in another order than in [`Dictionary::encode_sparse`], so values differ in the last bits, and a
    /// feature at its threshold may fall on the other side.
    ///
    /// Costs 2·n·n_features·d_model operations; memory 16 MB a thread beside the codes.
    ///
    /// # Panics
    /// If `rows` is no whole number of rows.
    pub fn encode_batch(&self, rows: &[f32], threads: usize) -> Codes {
        let d = self.d_model();
        assert!(rows.len().is_multiple_of(d), "{} values are no rows of width {d}", rows.len());
        let n = rows.len() / d;
        let block = self.block_rows();
        let threads = threads.clamp(1, n.div_ceil(MIN_ROWS).max(1));
        if threads == 1 {
            return self.encode_rows(rows, block);
        }
        let part = n.div_ceil(threads);
        let mut codes = Codes::with_rows(n);
        std::thread::scope(|scope| {
            let run = |part| scope.spawn(move || self.encode_rows(part, block));
            let parts: Vec<_> = rows.chunks(part * d).map(run).collect();
            for part in parts {
                match part.join() {
                    Ok(part) => codes.append(&part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        codes
    }

    /// Rows of a block: as many as make a good matrix product, unless their pre-activations outgrow 16 MB.
    fn block_rows(&self) -> usize {
        const VALUES: usize = 4 << 20;
        (VALUES / self.n_features()).clamp(16, 256)
    }

    fn encode_rows(&self, rows: &[f32], block: usize) -> Codes {
        /// Features of one product: their weights, decoded, should stay in the cache of second level.
        const CHUNK_VALUES: usize = 1 << 18;
        let (d, n_features) = (self.d_model(), self.n_features());
        let chunk = (CHUNK_VALUES / d).clamp(64, 2048).min(n_features);
        let mut codes = Codes::with_rows(rows.len() / d);
        let (mut a, mut weights, mut z) = (Vec::new(), Vec::new(), Vec::new());
        let (units, bounds) = (self.units(), OnceCell::new());
        for rows in rows.chunks(block * d) {
            let n = rows.len() / d;
            if n < MIN_PRODUCT {
                self.encode_singly(rows, &mut codes);
                continue;
            }
            a.clear();
            rows.chunks_exact(d).for_each(|x| a.extend_from_slice(&self.input(x).0));
            z.resize(n * n_features, 0.0);
            for first in (0..n_features).step_by(chunk) {
                let features = first..(first + chunk).min(n_features);
                let e = self.encoder.rows_f32(features.clone(), &mut weights);
                gemm_columns(Mat::new(&a, n, d), Mat::new(e, features.len(), d).t(), &mut z, first, n_features);
            }
            for z in z.chunks_exact_mut(n_features) {
                match self.rule() {
                    Rule::Alone => activate_alone(units, bounds.get_or_init(|| units.bounds()), z, &mut codes.entries),
                    rule => {
                        units.preactivate(z);
                        rule.keep(z, &mut codes.entries);
                    }
                }
                codes.end_row();
            }
        }
        codes
    }

    fn encode_singly(&self, rows: &[f32], codes: &mut Codes) {
        let mut row = Vec::new();
        for x in rows.chunks_exact(self.d_model()) {
            self.encode_sparse(x, &mut row);
            codes.entries.extend_from_slice(&row);
            codes.end_row();
        }
    }
}

/// Appends the active features of a row, given z = E·a and bounds that z exceeds wherever one is active.
fn activate_alone(units: Units<'_>, bounds: &[f32], z: &[f32], out: &mut Vec<(u32, f32)>) {
    /// Features passed over by one test.
    const GROUP: usize = 32;
    for (g, (z, bounds)) in z.chunks(GROUP).zip(bounds.chunks(GROUP)).enumerate() {
        if !z.iter().zip(bounds).fold(false, |any, (z, bound)| any | (z > bound)) {
            continue;
        }
        for (i, &z) in (g * GROUP..).zip(z) {
            let f = units.get(i).activate(z);
            if f > 0.0 {
                out.push((i as u32, f));
            }
        }
    }
}

/// Fewer rows are not worth a thread.
const MIN_ROWS: usize = 16;
/// Fewer rows are encoded one by one: a matrix product of so few would spend its time on packing.
const MIN_PRODUCT: usize = 4;
