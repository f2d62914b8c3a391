//! The best few of many candidates, in an order that does not depend on how the work was split.

/// The `k` largest scores offered so far; of equal scores the lower index is the better one. NaN is never kept.
#[derive(Clone, Debug)]
pub(super) struct Best {
    k: usize,
    items: Vec<(u32, f32)>,
}

impl Best {
    pub(super) fn new(k: usize) -> Self {
        Self { k, items: Vec::new() }
    }

    /// Offers `index` with `score`.
    #[inline]
    pub(super) fn offer(&mut self, index: u32, score: f32) {
        if self.items.len() >= self.k && self.items.last().is_none_or(|worst| score < worst.1) {
            return;
        }
        self.insert(index, score);
    }

    fn insert(&mut self, index: u32, score: f32) {
        if score.is_nan() {
            return;
        }
        let at = self.items.partition_point(|&(i, s)| s > score || (s == score && i < index));
        if at < self.k {
            self.items.insert(at, (index, score));
            self.items.truncate(self.k);
        }
    }

    /// Offers everything that `other` kept.
    pub(super) fn merge(&mut self, other: &Self) {
        other.items.iter().for_each(|&(index, score)| self.offer(index, score));
    }

    /// Best first.
    pub(super) fn into_sorted(self) -> Vec<(u32, f32)> {
        self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_best_whatever_the_order() {
        let offers = [(5, 1.0), (1, 2.0), (3, 2.0), (0, f32::NAN), (2, 0.5), (4, 1.0)];
        for turn in 0..offers.len() {
            let mut best = Best::new(3);
            let (a, b) = offers.split_at(turn);
            b.iter().chain(a).for_each(|&(i, s)| best.offer(i, s));
            assert_eq!(best.into_sorted(), [(1, 2.0), (3, 2.0), (4, 1.0)]);
        }
    }

    #[test]
    fn none_are_kept_when_none_are_wanted() {
        let mut best = Best::new(0);
        best.offer(1, 1.0);
        assert!(best.into_sorted().is_empty());
    }
}
