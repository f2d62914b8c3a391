//! What tells, from products in integers and the bound on their error, which features of a row may be active.
//!
//! Independent features are compared with a bound of their own. Of features that compete, a row's bar rises with what the
//! k best are sure to reach, and who cannot reach it is dropped. Comparisons are made so that NaN, of which nothing is
//! known, passes: the exact product decides.

use std::ops::Range;

use super::encode::{Rule, Units};
use super::matrix::Rows;
use crate::num::screen::{self, PANEL, Rounded};
use crate::num::strassen::{self, GROUP, Side};

/// A feature that may be active, and between what its pre-activation lies.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) feature: u32,
    low: f32,
    high: f32,
}

impl Candidate {
    /// Whether it may; of NaN nothing is known.
    fn reaches(self, bar: f32) -> bool {
        self.high >= bar || self.high.is_nan()
    }
}

/// Rounds encoder rows, and lays them out as they are multiplied.
pub(super) struct Packer<'a> {
    rows: Rows<'a>,
    row: Vec<f32>,
    integers: Vec<i32>,
    panels: Vec<[i32; PANEL]>,
    scratch: Vec<[i32; PANEL]>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(rows: Rows<'a>, d: usize) -> Self {
        let pairs = screen::n_pairs(d);
        let panels = vec![[0; PANEL]; GROUP * pairs];
        Self { rows, row: vec![0.0; d], integers: vec![0; PANEL * pairs], panels, scratch: Vec::new() }
    }

    /// The parts of a group of panels, at most `GROUP * PANEL` features.
    pub(super) fn pack(&mut self, features: Range<usize>, parts: &mut [[i32; PANEL]]) -> [[Rounded; PANEL]; GROUP] {
        let pairs = screen::n_pairs(self.row.len());
        let mut of = [[Rounded::default(); PANEL]; GROUP];
        let mut left = features;
        for (of, panel) in of.iter_mut().zip(self.panels.chunks_exact_mut(pairs)) {
            let features = left.start..(left.start + PANEL).min(left.end);
            left.start = features.end;
            let len = features.len();
            for ((i, of), integers) in features.zip(of).zip(self.integers.chunks_exact_mut(pairs)) {
                self.rows.get(i).decode(&mut self.row);
                *of = screen::round(&self.row, integers);
            }
            screen::pack(&self.integers[..len * pairs], pairs, panel);
        }
        strassen::spread(Side::Right, &self.panels, &mut self.scratch, parts);
        of
    }
}

/// What the features of a panel need to be sifted, column by column. The last panel is filled up with features that
/// need nothing.
pub(super) struct Panel {
    first: usize,
    len: usize,
    step: [f32; PANEL],
    norm: [f32; PANEL],
    error: [f32; PANEL],
    /// Of independent features: what z exceeds wherever one is active.
    bound: [f32; PANEL],
    /// Of competing ones: p = (z + bias)·outer.
    bias: [f32; PANEL],
    outer: [f32; PANEL],
}

impl Panel {
    fn new(features: &Range<usize>, of: &[Rounded; PANEL]) -> Self {
        let column = |get: fn(&Rounded) -> f32| std::array::from_fn(|j| get(&of[j]));
        Self {
            first: features.start,
            len: features.len(),
            step: column(|of| of.step),
            norm: column(|of| of.norm),
            error: column(|of| of.error),
            bound: [f32::INFINITY; PANEL],
            bias: [0.0; PANEL],
            outer: [0.0; PANEL],
        }
    }

    pub(super) fn alone(features: Range<usize>, of: &[Rounded; PANEL], bounds: &[f32]) -> Self {
        let mut panel = Self::new(&features, of);
        panel.bound[..features.len()].copy_from_slice(&bounds[features]);
        panel
    }

    pub(super) fn competing(features: Range<usize>, of: &[Rounded; PANEL], units: Units<'_>) -> Self {
        let mut panel = Self::new(&features, of);
        let (bias, norms) = units.competing(features.clone());
        panel.bias[..features.len()].copy_from_slice(bias);
        match norms {
            None => panel.outer[..features.len()].fill(1.0),
            Some(norms) => panel.outer[..features.len()].copy_from_slice(norms),
        }
        panel
    }

    /// z of feature `j`, and how far it may be off.
    #[inline(always)]
    fn z(&self, j: usize, a: Rounded, sum: i32) -> (f32, f32) {
        (sum as f32 * (a.step * self.step[j]), a.error * self.norm[j] + a.norm * self.error[j])
    }

    /// Whether feature `j`, of independent ones, is silent. NaN, of which nothing is known, says no; below, too.
    #[inline(always)]
    fn is_silent(&self, j: usize, a: Rounded, sum: i32) -> bool {
        let (z, reach) = self.z(j, a, sum);
        z + reach <= self.bound[j]
    }

    /// Between what p of feature `j`, of competing ones, lies.
    #[inline(always)]
    fn p(&self, j: usize, a: Rounded, sum: i32) -> (f32, f32) {
        let (z, reach) = self.z(j, a, sum);
        let reach = (reach + 1e-6 * (z.abs() + self.bias[j].abs())) * self.outer[j];
        let p = (z + self.bias[j]) * self.outer[j];
        (p - reach, p + reach)
    }
}

/// Collects what may be active.
pub(super) struct Sieve {
    rule: Rule,
    /// Of each row, features ascending.
    pub(super) found: Vec<Vec<Candidate>>,
    /// Of each row a pre-activation that the winners reach, and for how many candidates it is raised next.
    bars: Vec<(f32, usize)>,
}

impl Sieve {
    pub(super) fn new(rule: Rule, n: usize) -> Self {
        let full = match rule {
            Rule::TopK(k) => Self::full(k),
            _ => usize::MAX,
        };
        Self { rule, found: vec![Vec::new(); n], bars: vec![(f32::NEG_INFINITY, full); n] }
    }

    /// Candidates for k winners that are worth being gone through.
    fn full(k: usize) -> usize {
        2 * k + 64
    }

    /// Looks at the products of row `r` with a panel. Most have nothing to be kept, which one pass without a branch tells.
    #[inline]
    pub(super) fn sift(&mut self, panel: &Panel, r: usize, a: Rounded, sums: &[i32; PANEL]) {
        if self.rule == Rule::Alone {
            if (0..PANEL).fold(true, |all, j| all & panel.is_silent(j, a, sums[j])) {
                return;
            }
            let loud = (0..panel.len).filter(|&j| !panel.is_silent(j, a, sums[j]));
            let candidate = |j| Candidate { feature: (panel.first + j) as u32, low: 0.0, high: 0.0 };
            return self.found[r].extend(loud.map(candidate));
        }
        let bar = self.bars[r].0;
        let high: [f32; PANEL] = std::array::from_fn(|j| panel.p(j, a, sums[j]).1);
        let loses = |j: usize| (high[j] < bar) | (high[j] <= 0.0);
        // A bit for each feature.
        let mut left = (0..PANEL).fold(0u32, |set, j| set | if loses(j) { 0 } else { 1 << j });
        left &= (1 << panel.len) - 1;
        while left != 0 {
            let j = left.trailing_zeros() as usize;
            left &= left - 1;
            self.offer(r, panel.first + j, panel.p(j, a, sums[j]).0, high[j]);
        }
    }

    /// Looks at one feature of row `r`, of those that compete, whose pre-activation lies between two numbers.
    #[inline]
    pub(super) fn offer(&mut self, r: usize, feature: usize, low: f32, high: f32) {
        let (found, (bar, full)) = (&mut self.found[r], &mut self.bars[r]);
        if high < *bar || high <= 0.0 {
            return;
        }
        let low = if low.is_nan() { f32::NEG_INFINITY } else { low };
        found.push(Candidate { feature: feature as u32, low, high });
        if let Rule::TopK(k) = self.rule
            && found.len() >= *full
        {
            *bar = raise(found, k, *bar);
            *full = Self::full(k).max(2 * found.len());
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
    found.retain(|c| c.reaches(bar));
    bar
}

/// Drops candidates that cannot win.
pub(super) fn thin_out(found: &mut Vec<Candidate>, rule: Rule, n_features: usize) {
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
                bars.peek().is_none_or(|bar| c.reaches(bar.1))
            });
        }
    }
}
