//! M of rows: among all models that say the same of the rows, the sparsest.
//!
//! Residuals give the noise coordinates y = (I − M) z, up to scale, and the regression y_t = Σ C_τ y_{t−τ} + ε_t. Any acyclic
//! M then explains the rows as well, with B_τ = C_τ (I − M): the data cannot tell them apart, sparsity can. Under the true M
//! the columns of B are sparse, under any other they hold what their children did. So M is found column by column: adding
//! the edge j → i of weight m takes m·C_i off B_j; the edge that leaves the fewest entries is added first, as long as no
//! cycle closes, until no edge pays for itself.
//!
//! Found again this way are edges to latents that have at least two effects later on (a column with one entry is as sparse
//! without the edge). Counting entries, not summing their sizes, gives the direction: a reversed edge leaves the parent's own
//! entries behind.

use crate::error::Result;
use crate::progress::{Progress, report};

/// What one entry of M costs, in entries of B.
const EDGE: f64 = 0.5;
/// Weights that are tried for an edge.
const CANDIDATES: usize = 24;
/// Entries of a column that matter, at most.
const SUPPORT: usize = 512;
/// The smallest weight of an edge, in noise units.
const SMALLEST: f64 = 0.05;

/// C `[rows, n]` by columns, and what is found.
struct Search<'c> {
    c: &'c [Vec<f64>],
    /// Entries of each column that count, the largest first.
    support: Vec<Vec<usize>>,
    /// C (I − M), by columns.
    b: Vec<Vec<f64>>,
    /// `reach[a][b]`: a drives b, by some path; all of themselves.
    reach: Vec<Vec<bool>>,
    /// M by rows.
    m: Vec<f64>,
    /// Entries below this are noise.
    noise: f64,
}

#[derive(Clone, Copy)]
struct Edge {
    gain: f64,
    child: usize,
    weight: f64,
}

/// M `[n, n]`, row-major, that makes C (I − M) sparsest; `c` are the columns of C, of length lags·n.
pub(super) fn sparsest(c: &[Vec<f64>], noise: f64, progress: &mut Progress<'_>) -> Result<Vec<f64>> {
    let n = c.len();
    let support = c.iter().map(|column| {
        let mut at: Vec<usize> = (0..column.len()).filter(|&k| column[k].abs() > noise).collect();
        at.sort_by(|&a, &b| column[b].abs().total_cmp(&column[a].abs()));
        at.truncate(SUPPORT);
        at
    });
    let reach = (0..n).map(|i| (0..n).map(|j| i == j).collect()).collect();
    let mut search = Search { c, support: support.collect(), b: c.to_vec(), reach, m: vec![0.0; n * n], noise };
    let mut best: Vec<Option<Edge>> = Vec::with_capacity(n);
    for j in 0..n {
        best.push(search.best(j));
        report(progress, j as u64 + 1, n as u64, "sparsest edges")?;
    }
    let mut edges = 0;
    // Ties go to the lower index. Every edge leaves fewer entries, so there is an end; the bound is for rounding.
    while edges < 64 * n {
        let gain = |j: &usize| best[*j].map_or(0.0, |edge| edge.gain);
        let Some(j) = (0..n).reduce(|a, b| if gain(&b) > gain(&a) { b } else { a }) else { break };
        let Some(edge) = best[j] else { break };
        // The edge may have been good before another closed its way.
        if !search.reach[edge.child][j] {
            search.add(j, edge);
            edges += 1;
        }
        best[j] = search.best(j);
        report(progress, n as u64, n as u64, "sparsest edges")?;
    }
    Ok(search.m)
}

impl Search<'_> {
    /// What an entry counts: 1, or less where it is about as small as the noise.
    fn count(&self, v: f64) -> f64 {
        (v.abs() / self.noise).min(1.0)
    }

    /// The edge from j that leaves the fewest entries.
    fn best(&self, j: usize) -> Option<Edge> {
        let n = self.c.len();
        let mut best: Option<Edge> = None;
        for child in (0..n).filter(|&i| i != j && !self.reach[i][j]) {
            let (column, b, support) = (&self.c[child], &self.b[j], &self.support[child]);
            let before: f64 = support.iter().map(|&k| self.count(b[k])).sum();
            let price = if self.m[child * n + j] == 0.0 { EDGE } else { 0.0 };
            if before <= price + EDGE / 2.0 {
                continue;
            }
            for &at in support.iter().take(CANDIDATES) {
                let weight = b[at] / column[at];
                if weight.abs() < SMALLEST {
                    continue;
                }
                let after: f64 = support.iter().map(|&k| self.count(b[k] - weight * column[k])).sum();
                let gain = before - after - price;
                if gain > EDGE / 2.0 && best.is_none_or(|best| gain > best.gain) {
                    best = Some(Edge { gain, child, weight });
                }
            }
        }
        best
    }

    fn add(&mut self, j: usize, edge: Edge) {
        let n = self.c.len();
        self.m[edge.child * n + j] += edge.weight;
        self.b[j].iter_mut().zip(&self.c[edge.child]).for_each(|(b, c)| *b -= edge.weight * c);
        let below = self.reach[edge.child].clone();
        for above in self.reach.iter_mut().filter(|row| row[j]) {
            above.iter_mut().zip(&below).for_each(|(to, &reached)| *to |= reached);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::silent;

    /// C = B (I − M)⁻¹ of a chain 0 → 1 → 2 with a side branch: M comes back.
    #[test]
    fn a_chain_is_taken_out_of_the_columns() {
        let n = 4;
        let edges = [(1, 0, 0.7), (2, 1, -0.5), (3, 0, 0.4)];
        let mut b = vec![vec![0.0; 2 * n]; n];
        for (j, column) in b.iter_mut().enumerate() {
            column[j] = 0.4 + 0.1 * j as f64;
            column[n + (j + 1) % n] = -0.3;
        }
        // C_j = B_j + Σ_i M_ij C_i, children first.
        let mut c = b.clone();
        for j in (0..n).rev() {
            for &(i, parent, m) in edges.iter().filter(|e| e.1 == j) {
                let child = c[i].clone();
                c[parent].iter_mut().zip(&child).for_each(|(c, v)| *c += m * v);
            }
        }
        let m = sparsest(&c, 0.02, &mut silent).unwrap();
        for i in 0..n {
            for j in 0..n {
                let want = edges.iter().find(|e| (e.0, e.1) == (i, j)).map_or(0.0, |e| e.2);
                assert!((m[i * n + j] - want).abs() < 1e-9, "M[{i}][{j}] = {}", m[i * n + j]);
            }
        }
    }
}
