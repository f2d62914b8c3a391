//! What steering by one concept's feature does to all concepts.
//!
//! ```text
//! S_ij  = mean(logit_j | steer i) − mean(logit_j)        T_ij = S_ij / sd(logit_j)
//! selectivity_i = |T_ii| / (|T_ii| + Σ_j |T_ij|)         leak_i = max_j |T_ij| / |T_ii|      j in other attributes
//! I_k(i,j) = L_k(ij) + L_k(0) − L_k(i) − L_k(j)          interaction of a true joint edit; L_k the mean logit of k
//! ```
//!
//! after arXiv 2512.15134. An interaction is reported as Σ_k |I_k| / Σ_k (|Δ_k(i)| + |Δ_k(j)|), Δ_k(i) = L_k(i) −
//! L_k(0): 0 where edits add up, 1 where what they do together differs from the sum by as much as both do alone.

/// A leak up to this leaves concepts independent.
pub const INDEPENDENT: f64 = 0.1;

/// Logits `[n, C]` of the same rows, without steering and with each concept's edit.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    /// Number of concepts.
    pub n_concepts: usize,
    /// Without steering.
    pub base: &'a [f32],
    /// One for each edit.
    pub steered: &'a [Vec<f32>],
}

impl Logits<'_> {
    /// T `[edits, C]` over the rows of these numbers; effects on a logit that never varies are 0.
    pub fn effects(&self, rows: &[usize]) -> Vec<f64> {
        let c = self.n_concepts;
        let base = mean(self.base, c, rows);
        let mut variance = vec![0.0; c];
        for &row in rows {
            let logits = &self.base[row * c..(row + 1) * c];
            variance.iter_mut().zip(logits).zip(&base).for_each(|((v, &l), m)| *v += (f64::from(l) - m).powi(2));
        }
        let deviation: Vec<f64> = variance.iter().map(|v| (v / (rows.len() as f64 - 1.0)).sqrt()).collect();
        let one = |steered: &Vec<f32>| {
            let moved = mean(steered, c, rows);
            (0..c)
                .map(|j| if deviation[j] > 0.0 { (moved[j] - base[j]) / deviation[j] } else { 0.0 })
                .collect::<Vec<f64>>()
        };
        self.steered.iter().flat_map(one).collect()
    }
}

/// The mean logits over rows of these numbers, `[C]`.
pub fn mean(logits: &[f32], n_concepts: usize, rows: &[usize]) -> Vec<f64> {
    let mut sum = vec![0.0; n_concepts];
    for &row in rows {
        let logits = &logits[row * n_concepts..(row + 1) * n_concepts];
        sum.iter_mut().zip(logits).for_each(|(s, &l)| *s += f64::from(l) / rows.len() as f64);
    }
    sum
}

/// Selectivity and leak of one edit that is meant for concept `i`, with effects `[C]`. An edit without any effect has
/// selectivity 0; a leak of an edit without an effect of its own is infinite.
pub fn selectivity(effects: &[f64], i: usize, attributes: &[usize]) -> (f64, f64) {
    let others = || effects.iter().zip(attributes).filter(|(_, a)| **a != attributes[i]).map(|(t, _)| t.abs());
    let (own, all, most) = (effects[i].abs(), others().sum::<f64>(), others().fold(0.0, f64::max));
    let selectivity = if own + all > 0.0 { own / (own + all) } else { 0.0 };
    let leak = if own > 0.0 {
        most / own
    } else if most > 0.0 {
        f64::INFINITY
    } else {
        0.0
    };
    (selectivity, leak)
}

/// The normalised interaction of two edits, from mean logits `[C]` without steering, with each and with both; 0 if
/// neither does anything, and nor do both.
pub fn interaction(base: &[f64], one: &[f64], other: &[f64], both: &[f64]) -> f64 {
    let (mut interaction, mut alone) = (0.0, 0.0);
    for k in 0..base.len() {
        interaction += (both[k] + base[k] - one[k] - other[k]).abs();
        alone += (one[k] - base[k]).abs() + (other[k] - base[k]).abs();
    }
    if interaction == 0.0 { 0.0 } else { interaction / alone }
}

/// Share of concepts whose feature another concept chose, too.
pub fn collisions(chosen: &[usize]) -> f64 {
    let shared = chosen.iter().filter(|one| chosen.iter().filter(|other| other == one).count() > 1).count();
    shared as f64 / chosen.len() as f64
}

/// ‖Q_aᵀ Q_b‖²_F / min(k_a, k_b) of the spaces that two lists of directions `[k, d]` span: 1 if one holds the other, 0
/// if they are orthogonal.
pub fn overlap(a: &[f32], b: &[f32], d: usize) -> f64 {
    let (a, b) = (orthonormal(a, d), orthonormal(b, d));
    let inner = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let all: f64 = a.iter().flat_map(|x| b.iter().map(move |y| inner(x, y).powi(2))).sum();
    let k = a.len().min(b.len());
    if k == 0 { 0.0 } else { all / k as f64 }
}

/// An orthonormal basis of what rows `[k, d]` span: Gram and Schmidt, twice; rows that add no direction are left out.
fn orthonormal(rows: &[f32], d: usize) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    for row in rows.chunks_exact(d) {
        let mut v: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let before = norm(&v);
        for _ in 0..2 {
            for q in &basis {
                let along: f64 = v.iter().zip(q).map(|(x, y)| x * y).sum();
                v.iter_mut().zip(q).for_each(|(x, q)| *x -= along * q);
            }
        }
        let left = norm(&v);
        if left > 1e-6 * before {
            v.iter_mut().for_each(|x| *x /= left);
            basis.push(v);
        }
    }
    basis
}
