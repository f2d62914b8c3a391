//! A causal order from weights: causes first.

/// The order in which the weights `[n, n]` (row-major, `weights[i·n + j]` for j → i) that point backwards are least, as far as
/// a greedy choice finds it: each next latent is the one that those still waiting drive least, in squares. Weights of an
/// acyclic graph are ordered without error. n² steps.
pub(super) fn causal_order(weights: &[f64], n: usize) -> Vec<usize> {
    let square = |i: usize, j: usize| if i == j { 0.0 } else { weights[i * n + j] * weights[i * n + j] };
    let mut driven: Vec<f64> = (0..n).map(|i| (0..n).map(|j| square(i, j)).sum()).collect();
    // Sums lose their last digits when terms are taken off; what is left then counts as nothing.
    let rounding: Vec<f64> = driven.iter().map(|d| d * 1e-12).collect();
    let mut waiting: Vec<usize> = (0..n).collect();
    let mut order = Vec::with_capacity(n);
    while !waiting.is_empty() {
        let cost = |i: usize| if driven[i] <= rounding[i] { 0.0 } else { driven[i] };
        let (at, &next) = waiting
            .iter()
            .enumerate()
            .min_by(|a, b| cost(*a.1).total_cmp(&cost(*b.1)).then(a.1.cmp(b.1)))
            .expect("the loop runs while latents wait");
        waiting.remove(at);
        waiting.iter().for_each(|&i| driven[i] -= square(i, next));
        order.push(next);
    }
    order
}

/// Where each latent stands in `order`.
pub(super) fn ranks(order: &[usize]) -> Vec<usize> {
    let mut ranks = vec![0; order.len()];
    order.iter().enumerate().for_each(|(rank, &i)| ranks[i] = rank);
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acyclic_weights_keep_their_order_and_weak_cycles_are_cut() {
        let n = 5;
        let mut weights = vec![0.0; n * n];
        // 3 → 1 → 4 → 0, 3 → 2
        for (i, j) in [(1, 3), (4, 1), (0, 4), (2, 3)] {
            weights[i * n + j] = -0.5;
        }
        weights[3 * n] = 0.01;
        let rank = ranks(&causal_order(&weights, n));
        assert!(rank[3] < rank[1] && rank[1] < rank[4] && rank[4] < rank[0] && rank[3] < rank[2], "{rank:?}");
    }
}
