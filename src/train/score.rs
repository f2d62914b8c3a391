//! The scores of all features, `W_enc·(x − b_dec) + b_enc`, in 16-bit integers, and the candidates among them.
//!
//! This is the only dense work of training, nine tenths of its arithmetic. An AVX2 core multiplies and adds 32 pairs of
//! 16-bit integers a cycle (`vpmaddwd`) but only 16 pairs of floats; `rounded.rs` says why nothing is lost.
//!
//! Features lie in panels of [`WIDE`], rows in groups of [`TALL`]: twelve accumulators stay in registers while a tile runs
//! over all of `d_model`. Scores never reach memory: a tile is compared with each row's limit at once, and what passes is
//! pushed on the row's [`Lane`].

use super::kernel::{dispatch, prefetch};
use super::rounded::round;

/// Features in a panel.
pub(super) const WIDE: usize = 16;
/// Rows in a tile.
pub(super) const TALL: usize = 6;

/// Two consecutive inputs of sixteen features: what one step of a tile reads.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([i16; 2 * WIDE]);

/// The encoder in integers, a panel of [`WIDE`] features after the other.
pub(super) struct Panels {
    pairs: usize,
    lines: Vec<Line>,
    /// Per feature: what an integer is worth, and the bias. Features beyond the last have bias −∞ and are never chosen.
    steps: Vec<f32>,
    biases: Vec<f32>,
}

/// One panel, to be refilled.
pub(super) struct Panel<'a> {
    lines: &'a mut [Line],
    steps: &'a mut [f32],
    biases: &'a mut [f32],
}

/// Rows in integers, `[n, width]`, with their steps: a stretch of [`Rounded`](super::rounded::Rounded).
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) width: usize,
    pub(super) rows: &'a [i16],
    pub(super) steps: &'a [f32],
}

/// A row's candidates: scores above `limit`, with their features.
#[derive(Clone, Default)]
pub(super) struct Lane {
    pub(super) limit: f32,
    pub(super) items: Vec<(f32, u32)>,
}

impl Panels {
    /// Room for `n` features of `d` inputs.
    pub(super) fn new(n: usize, d: usize) -> Self {
        let (pairs, panels) = (d.div_ceil(2), n.div_ceil(WIDE));
        Self {
            pairs,
            lines: vec![Line([0; 2 * WIDE]); panels * pairs],
            steps: vec![0.0; panels * WIDE],
            biases: vec![f32::NEG_INFINITY; panels * WIDE],
        }
    }

    /// The panels, in order; panel `p` holds features `16 p ..`.
    pub(super) fn panels_mut(&mut self) -> impl Iterator<Item = Panel<'_>> + Send {
        let lines = self.lines.chunks_mut(self.pairs.max(1));
        lines.zip(self.steps.chunks_mut(WIDE)).zip(self.biases.chunks_mut(WIDE)).map(|((lines, steps), biases)| Panel {
            lines,
            steps,
            biases,
        })
    }

    /// Fills the panels with rows `features` of `weights [_, d]`.
    pub(super) fn fill(&mut self, d: usize, weights: &[f32], biases: &[f32], features: impl Iterator<Item = usize>) {
        let mut scratch = vec![0i16; 2 * self.pairs];
        let mut features = features;
        for mut panel in self.panels_mut() {
            for lane in 0..WIDE {
                let Some(f) = features.next() else { return };
                panel.set(lane, &weights[f * d..(f + 1) * d], biases[f], &mut scratch);
            }
        }
    }
}

impl Panel<'_> {
    /// Makes `row` and `bias` the feature in `lane`; `scratch` has room for the row, rounded up to even.
    pub(super) fn set(&mut self, lane: usize, row: &[f32], bias: f32, scratch: &mut [i16]) {
        self.steps[lane] = round(row, scratch);
        self.biases[lane] = bias;
        for (line, pair) in self.lines.iter_mut().zip(scratch.chunks_exact(2)) {
            line.0[2 * lane] = pair[0];
            line.0[2 * lane + 1] = pair[1];
        }
    }
}

impl Lane {
    /// Keeps the `k` best (ties: the lower feature) and raises the limit to the last of them.
    pub(super) fn prune(&mut self, k: usize) {
        if self.items.len() > k && k > 0 {
            self.items.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            self.items.truncate(k);
        }
        if self.items.len() == k && k > 0 {
            self.limit = self.items.iter().fold(f32::INFINITY, |low, item| low.min(item.0));
        }
    }
}

type Tile = [[i32; WIDE]; TALL];

/// `tile[r][f] = Σ rows[r]·panel[f]` in plain Rust: the oracle, and what runs where there is no AVX2.
fn tile_portable(rows: &[i16], width: usize, lines: &[Line], tile: &mut Tile) {
    for (r, sums) in tile.iter_mut().enumerate() {
        *sums = [0; WIDE];
        for (pair, line) in rows[r * width..(r + 1) * width].chunks_exact(2).zip(lines) {
            let (a, b) = (i32::from(pair[0]), i32::from(pair[1]));
            for (f, sum) in sums.iter_mut().enumerate() {
                *sum += a * i32::from(line.0[2 * f]) + b * i32::from(line.0[2 * f + 1]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn tile_avx2(rows: &[i16], width: usize, lines: &[Line], tile: &mut Tile) {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_load_si256, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
        _mm256_storeu_si256,
    };
    assert!(rows.len() >= TALL * width && width == 2 * lines.len());
    let mut sums = [[_mm256_setzero_si256(); 2]; TALL];
    let mut at = rows.as_ptr().cast::<i32>();
    for line in lines {
        let line: *const __m256i = (&raw const line.0).cast();
        // SAFETY: a line is 64 bytes, aligned to 64: two aligned vectors.
        let (low, high) = unsafe { (_mm256_load_si256(line), _mm256_load_si256(line.add(1))) };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `at` is pair `i` of row 0 with `i < lines.len() = width / 2`; row `r < TALL` lies `r · width / 2`
            // pairs further, and the assertion above bounds the last of them.
            let pair = unsafe { at.add(r * width / 2).read_unaligned() };
            let pair = _mm256_set1_epi32(pair);
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(pair, low));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(pair, high));
        }
        at = at.wrapping_add(1);
    }
    for (out, sums) in tile.iter_mut().zip(sums) {
        let out: *mut __m256i = out.as_mut_ptr().cast();
        // SAFETY: `out` has room for sixteen i32: two vectors.
        unsafe {
            _mm256_storeu_si256(out, sums[0]);
            _mm256_storeu_si256(out.add(1), sums[1]);
        }
    }
}

/// A row's scores in a tile.
type Scores = [f32; WIDE];

/// `scores = sums · step · steps + biases`, and a bit for each that exceeds `limit`.
#[inline(always)]
fn weigh(sums: &[i32; WIDE], step: f32, steps: &[f32], biases: &[f32], limit: f32) -> (Scores, u32) {
    let (steps, biases) = (&steps[..WIDE], &biases[..WIDE]);
    let mut scores = [0f32; WIDE];
    for f in 0..WIDE {
        scores[f] = sums[f] as f32 * (step * steps[f]) + biases[f];
    }
    let mut most = [f32::NEG_INFINITY; WIDE / 2];
    for f in 0..WIDE / 2 {
        most[f] = if scores[f] > scores[f + WIDE / 2] { scores[f] } else { scores[f + WIDE / 2] };
    }
    // Most rows of most tiles end here.
    let mut any = false;
    for score in most {
        any |= score > limit;
    }
    let mut mask = 0;
    if any {
        for (f, &score) in scores.iter().enumerate() {
            mask |= u32::from(score > limit) << f;
        }
    }
    (scores, mask)
}

#[inline(always)]
fn sift_body<const FMA: bool>(
    tile: &Tile,
    row_steps: &[f32],
    steps: &[f32],
    biases: &[f32],
    base: u32,
    lanes: &mut [Lane],
    keep: Keep,
) {
    for ((sums, lane), &step) in tile.iter().zip(lanes).zip(row_steps) {
        let (scores, mut mask) = weigh(sums, step, steps, biases, lane.limit);
        while mask != 0 {
            let f = mask.trailing_zeros();
            lane.items.push((scores[f as usize % WIDE], base + f));
            mask &= mask - 1;
        }
        if lane.items.len() >= keep.room {
            lane.prune(keep.best);
        }
    }
}

dispatch!(/// Pushes what lies above the rows' limits.
    sift, sift_body, (tile: &Tile, row_steps: &[f32], steps: &[f32], biases: &[f32], base: u32, lanes: &mut [Lane], keep: Keep));

/// How many candidates a lane keeps: at `room` it is pruned to the `best`.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    pub(super) best: usize,
    pub(super) room: usize,
}

impl Keep {
    /// The `k` best.
    pub(super) fn best(k: usize) -> Self {
        Self { best: k, room: 4 * k + WIDE }
    }

    /// Everything above the limit.
    pub(super) fn all() -> Self {
        Self { best: usize::MAX, room: usize::MAX }
    }
}

/// Pushes the features whose score exceeds the limit of their row's lane, in the order of the features. There is one lane
/// for each row of `block`, less the rows that fill up the last tile; `block` holds whole tiles.
pub(super) fn scan(panels: &Panels, block: Block<'_>, lanes: &mut [Lane], keep: Keep) {
    let tall = TALL * block.width;
    debug_assert!(block.rows.len().is_multiple_of(tall) && block.steps.len() >= lanes.len());
    let mut tile: Tile = [[0; WIDE]; TALL];
    let tiles = lanes.len().div_ceil(TALL);
    for (p, lines) in panels.lines.chunks_exact(panels.pairs.max(1)).enumerate() {
        let features = p * WIDE..(p + 1) * WIDE;
        let (steps, biases) = (&panels.steps[features.clone()], &panels.biases[features.clone()]);
        // The next panel comes from far away: it is asked for piece by piece while this one is used.
        let next = panels.lines.get((p + 1) * panels.pairs..).unwrap_or_default();
        let share = panels.pairs.div_ceil(tiles);
        let rows = block.rows.chunks_exact(tall).zip(block.steps.chunks_exact(TALL));
        for (t, ((rows, row_steps), lanes)) in rows.zip(lanes.chunks_mut(TALL)).enumerate() {
            for line in next.iter().skip(t * share).take(share) {
                prefetch(&line.0);
            }
            multiply(rows, block.width, lines, &mut tile);
            sift(&tile, row_steps, steps, biases, features.start as u32, lanes, keep);
        }
    }
}

/// One tile on the best instruction set that this machine has.
fn multiply(rows: &[i16], width: usize, lines: &[Line], tile: &mut Tile) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just detected.
        return unsafe { tile_avx2(rows, width, lines, tile) };
    }
    tile_portable(rows, width, lines, tile);
}

#[cfg(test)]
mod tests {
    use super::super::kernel::dot;
    use super::super::rounded::Rounded;
    use super::*;
    use rand::{Rng, SeedableRng};

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect()
    }

    fn rounded(x: &[f32], d: usize) -> Rounded {
        let mut out = Rounded::new((x.len() / d).next_multiple_of(TALL), d);
        for ((q, step), row) in out.chunks_mut(1).zip(x.chunks(d)) {
            step[0] = round(row, q);
        }
        out
    }

    /// Normalised error of a score: |score − exact| / (‖x‖·‖w‖) ≤ 5e-5, at every size around the tile's edges.
    #[test]
    fn scores_are_close_to_exact_ones() {
        for (n, f, d) in [(1, 1, 1), (5, 15, 2), (6, 16, 3), (7, 17, 31), (13, 40, 64), (3, 5, 577)] {
            let (x, w, b) = (random(n * d, 1), random(f * d, 2), random(f, 3));
            let mut panels = Panels::new(f, d);
            panels.fill(d, &w, &b, 0..f);
            let x16 = rounded(&x, d);
            let block = Block { width: x16.width, rows: &x16.rows, steps: &x16.steps };
            let mut lanes = vec![Lane { limit: f32::NEG_INFINITY, items: Vec::new() }; n];
            scan(&panels, block, &mut lanes, Keep::all());
            for (x, lane) in x.chunks(d).zip(&lanes) {
                assert_eq!(lane.items.len(), f);
                for (i, &(score, feature)) in lane.items.iter().enumerate() {
                    assert_eq!(i, feature as usize);
                    let w = &w[i * d..(i + 1) * d];
                    let exact = dot(x, w) + b[i];
                    let size = (dot(x, x) * dot(w, w)).sqrt();
                    assert!((score - exact).abs() <= 5e-5 * size + 1e-6, "{n} {f} {d}: {score} {exact}");
                }
            }
        }
    }

    #[test]
    fn tiles_agree_with_the_portable_one_exactly() {
        for pairs in [1, 2, 7, 288] {
            let width = 2 * pairs;
            let rows: Vec<i16> = random(TALL * width, 4).iter().map(|x| (x * 1300.0) as i16).collect();
            let weights = random(WIDE * width, 5);
            let mut panels = Panels::new(WIDE, width);
            panels.fill(width, &weights, &[0.0; WIDE], 0..WIDE);
            let (mut fast, mut plain) = ([[0; WIDE]; TALL], [[0; WIDE]; TALL]);
            multiply(&rows, width, &panels.lines, &mut fast);
            tile_portable(&rows, width, &panels.lines, &mut plain);
            assert_eq!(fast, plain);
            assert!(plain.iter().flatten().any(|&sum| sum != 0));
        }
    }

    #[test]
    fn the_best_are_kept_and_ties_go_to_the_lower_feature() {
        let (f, d, k) = (300, 24, 5);
        let mut w = random(f * d, 7);
        let (x, best) = (random(d, 8), 17);
        let row: Vec<f32> = x.clone();
        for i in [best, 40, 250] {
            w[i * d..(i + 1) * d].copy_from_slice(&row);
        }
        let mut panels = Panels::new(f, d);
        panels.fill(d, &w, &vec![0.0; f], 0..f);
        let x16 = rounded(&x, d);
        let block = Block { width: x16.width, rows: &x16.rows, steps: &x16.steps };
        let mut all = vec![Lane { limit: f32::NEG_INFINITY, items: Vec::new() }];
        scan(&panels, block, &mut all, Keep::all());
        let mut want = all[0].items.clone();
        want.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        want.truncate(k);
        assert_eq!(want[..3].iter().map(|item| item.1).collect::<Vec<_>>(), [17, 40, 250]);
        let mut lanes = vec![Lane { limit: f32::NEG_INFINITY, items: Vec::new() }];
        scan(&panels, block, &mut lanes, Keep::best(k));
        lanes[0].prune(k);
        lanes[0].items.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        assert_eq!(lanes[0].items, want);
        let mut two = vec![Lane { limit: f32::NEG_INFINITY, items: Vec::new() }];
        scan(&panels, block, &mut two, Keep::best(2));
        two[0].prune(2);
        two[0].items.sort_by_key(|item| item.1);
        assert_eq!(two[0].items.iter().map(|item| item.1).collect::<Vec<_>>(), [17, 40]);
    }
}
