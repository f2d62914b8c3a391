//! How well a monitor's values tell two sides apart.

/// A threshold, and what reaches it fires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Threshold {
    pub(super) value: f32,
}

impl Threshold {
    /// The lowest threshold that at most `share` of `others` reach: just above the next of them. It is never below 0,
    /// which no code is.
    pub(super) fn at(others: &[f32], share: f64) -> Self {
        let mut sorted = others.to_vec();
        sorted.sort_by(f32::total_cmp);
        let allowed = (others.len() as f64 * share).floor() as usize;
        let last = sorted.len().checked_sub(allowed + 1).and_then(|i| sorted.get(i));
        Self { value: last.map_or(0.0, |last| last.max(0.0).next_up()) }
    }

    /// The share of `values` that reach it.
    pub(super) fn share(self, values: &[f32]) -> f64 {
        values.iter().filter(|&&value| value >= self.value).count() as f64 / values.len().max(1) as f64
    }
}

/// The area under the ROC curve: how often a value of `yes` is above one of `no`; equal ones count half (Mann–Whitney).
pub(super) fn area(yes: &[f32], no: &[f32]) -> f64 {
    let mut sorted = no.to_vec();
    sorted.sort_by(f32::total_cmp);
    let above = |value: &f32| {
        let below = sorted.partition_point(|v| v < value);
        let equal = sorted[below..].partition_point(|v| v <= value);
        below as f64 + 0.5 * equal as f64
    };
    yes.iter().map(above).sum::<f64>() / (yes.len() * no.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_lets_no_more_through_than_it_may() {
        let others: Vec<f32> = (0..100).map(|i| i as f32 / 100.0).collect();
        for (share, fires) in [(0.02, 2), (0.1, 10), (0.005, 0), (0.5, 50)] {
            let threshold = Threshold::at(&others, share);
            assert_eq!((threshold.share(&others) * 100.0).round() as i32, fires, "{share}");
        }
        assert!(Threshold::at(&[-3.0; 10], 0.1).value > 0.0, "codes are never negative");
        assert_eq!(Threshold::at(&[0.5; 10], 0.3).share(&[0.5; 10]), 0.0, "ties stay below");
        assert_eq!(Threshold::at(&[], 0.1).share(&[1.0]), 1.0);
    }

    #[test]
    fn areas_are_those_of_all_pairs() {
        assert_eq!(area(&[2.0, 3.0], &[0.0, 1.0]), 1.0);
        assert_eq!(area(&[0.0], &[1.0]), 0.0);
        assert_eq!(area(&[1.0], &[1.0]), 0.5);
        let (yes, no) = ([0.1, 0.4, 0.35, 0.8], [0.2, 0.4, 0.1]);
        let pairs = yes.iter().flat_map(|y| {
            no.iter().map(move |n| {
                if y > n {
                    1.0
                } else if y == n {
                    0.5
                } else {
                    0.0
                }
            })
        });
        assert!((area(&yes, &no) - pairs.sum::<f64>() / 12.0).abs() < 1e-12);
    }
}
