//! The k largest values.

use std::cmp::Ordering;

/// Writes the `k` largest of `values` to `out` as (index, value), largest first. Among equal values the lower index
/// wins. NaN is never chosen, so fewer than `k` may come out.
///
/// One pass: a block of values is skipped unless one exceeds the k-th best so far; survivors are collected and thinned
/// out by selection. Costs about as much as reading the values once.
pub fn top_k(values: &[f32], k: usize, out: &mut Vec<(u32, f32)>) {
    /// Values that are tested against the bound at once: two registers. Of larger blocks most have a survivor.
    const BLOCK: usize = 16;
    out.clear();
    if k == 0 {
        return;
    }
    let room = 2 * k.min(values.len()) + 64;
    out.reserve(room + BLOCK);
    let mut bound = None;
    for (block, chunk) in values.chunks(BLOCK).enumerate() {
        let first = (block * BLOCK) as u32;
        match bound {
            // A later value equal to the bound loses to the k earlier ones: strictly greater is right.
            Some(bound) => {
                if chunk.iter().fold(false, |any, &v| any | (v > bound)) {
                    let found = (first..).zip(chunk.iter().copied()).filter(|&(_, v)| v > bound);
                    out.extend(found);
                }
            }
            None => out.extend((first..).zip(chunk.iter().copied()).filter(|(_, v)| !v.is_nan())),
        }
        if out.len() >= room || (bound.is_none() && out.len() >= k) {
            keep(out, k);
            bound = out.get(k - 1).map(|&(_, v)| v);
        }
    }
    keep(out, k);
    out.sort_unstable_by(better);
}

fn keep(found: &mut Vec<(u32, f32)>, k: usize) {
    if found.len() > k {
        found.select_nth_unstable_by(k - 1, better);
        found.truncate(k);
    } else if let Some(last) = (0..found.len()).max_by(|&a, &b| better(&found[a], &found[b])) {
        let end = found.len() - 1;
        found.swap(last, end);
    }
}

fn better(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::super::rng;
    use super::*;
    use rand::Rng;

    fn oracle(values: &[f32], k: usize) -> Vec<(u32, f32)> {
        let mut all: Vec<(u32, f32)> = (0..).zip(values.iter().copied()).filter(|v| !v.1.is_nan()).collect();
        all.sort_by(better);
        all.truncate(k);
        all
    }

    fn check(values: &[f32], k: usize) {
        let mut out = vec![(9, 9.0)];
        top_k(values, k, &mut out);
        assert_eq!(out, oracle(values, k), "n {} k {k}", values.len());
    }

    #[test]
    fn agrees_with_a_full_sort() {
        let mut rng = rng(7);
        for n in [0, 1, 2, 63, 64, 65, 127, 128, 129, 1000, 5000] {
            for k in [0, 1, 2, 31, 32, 63, 64, 65, 200, n, n + 1] {
                let smooth: Vec<f32> = (0..n).map(|_| rng.random_range(-1f32..1.0)).collect();
                check(&smooth, k);
                let ties: Vec<f32> = (0..n).map(|_| rng.random_range(-3i32..3) as f32).collect();
                check(&ties, k);
                let rising: Vec<f32> = (0..n).map(|i| i as f32).collect();
                check(&rising, k);
                let falling: Vec<f32> = (0..n).map(|i| -(i as f32)).collect();
                check(&falling, k);
                let special: Vec<f32> = (0..n)
                    .map(|i| [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 0.0, -0.0, 1.0][(i * 7 + i / 5) % 6])
                    .collect();
                check(&special, k);
            }
        }
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        let mut out = Vec::new();
        top_k(&[1.0, 2.0, 2.0, 2.0, 1.0], 2, &mut out);
        assert_eq!(out, [(1, 2.0), (2, 2.0)]);
    }

    #[test]
    fn nan_is_never_chosen() {
        let mut out = Vec::new();
        top_k(&[f32::NAN, f32::NEG_INFINITY, f32::NAN], 3, &mut out);
        assert_eq!(out, [(1, f32::NEG_INFINITY)]);
    }
}
