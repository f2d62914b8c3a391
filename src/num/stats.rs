//! Statistics of samples, accumulated in `f64`. An empty sample, or one without spread where spread is divided by, has
//! no statistic: these functions then return NaN, and never panic.

/// The arithmetic mean.
pub fn mean(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64
}

/// The unbiased variance Σ(x − mean)²/(n − 1).
pub fn variance(x: &[f32]) -> f64 {
    let mean = mean(x);
    x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / (x.len() as f64 - 1.0)
}

/// The median: the mean of the two middle values of an even number. NaN if any value is.
pub fn median(x: &[f32]) -> f64 {
    quantile(x, 0.5)
}

/// The `q`-quantile, 0 ≤ q ≤ 1, linear between order statistics (type 7: NumPy's default). NaN if any value is.
pub fn quantile(x: &[f32], q: f64) -> f64 {
    if x.is_empty() || !(0.0..=1.0).contains(&q) || x.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut x = x.to_vec();
    let at = q * (x.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    let (_, &mut first, above) = x.select_nth_unstable_by(low, f32::total_cmp);
    if low == high {
        return f64::from(first);
    }
    let second = above.iter().copied().fold(f32::INFINITY, f32::min);
    f64::from(first) + (at - low as f64) * (f64::from(second) - f64::from(first))
}

/// The correlation of Pearson: cov(a, b) / (sd(a)·sd(b)).
///
/// # Panics
/// If the lengths differ.
pub fn pearson(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "a correlation needs pairs");
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut aa, mut bb, mut ab) = (0f64, 0f64, 0f64);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a) - mean_a, f64::from(b) - mean_b);
        aa += a * a;
        bb += b * b;
        ab += a * b;
    }
    ab / (aa.sqrt() * bb.sqrt())
}

/// The rank of each value, from 1; equal values share the average of their ranks.
pub fn ranks(x: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut ranks = vec![0f32; x.len()];
    let mut first = 0;
    for group in order.chunk_by(|&a, &b| x[a] == x[b]) {
        // Ranks first + 1 ..= first + n, on average.
        let rank = first as f32 + (group.len() + 1) as f32 / 2.0;
        group.iter().for_each(|&i| ranks[i] = rank);
        first += group.len();
    }
    ranks
}

/// The correlation of Spearman: Pearson over [`ranks`].
///
/// # Panics
/// If the lengths differ.
pub fn spearman(a: &[f32], b: &[f32]) -> f64 {
    pearson(&ranks(a), &ranks(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12 * (1.0 + b.abs())
    }

    #[test]
    fn known_samples() {
        let x = [4.0, 1.0, 3.0, 2.0];
        assert!(close(mean(&x), 2.5) && close(variance(&x), 5.0 / 3.0) && close(median(&x), 2.5));
        assert!(close(median(&[5.0, 1.0, 9.0]), 5.0));
        for (q, expected) in [(0.0, 1.0), (1.0, 4.0), (0.25, 1.75), (1.0 / 3.0, 2.0)] {
            assert!(close(quantile(&x, q), expected), "{q}: {}", quantile(&x, q));
        }
        assert!(close(pearson(&x, &[8.0, 2.0, 6.0, 4.0]), 1.0) && close(pearson(&x, &[-4.0, -1.0, -3.0, -2.0]), -1.0));
        assert!(close(pearson(&[1.0, 2.0, 3.0], &[1.0, 3.0, 2.0]), 0.5));
        assert_eq!(ranks(&[10.0, 5.0, 10.0, 20.0]), [2.5, 1.0, 2.5, 4.0]);
        assert!(close(spearman(&[1.0, 2.0, 3.0], &[1.0, 8.0, 1000.0]), 1.0), "only the order counts");
        // Ranks 1, 2.5, 2.5, 4 against 4, 1, 3, 2: -3 / sqrt(4.5 * 5).
        assert!(close(spearman(&[1.0, 2.0, 2.0, 3.0], &[4.0, 1.0, 3.0, 2.0]), -0.4f64.sqrt()));
    }

    #[test]
    fn nothing_has_no_statistic() {
        assert!(mean(&[]).is_nan() && median(&[]).is_nan() && variance(&[1.0]).is_nan());
        assert!(pearson(&[1.0, 1.0], &[1.0, 2.0]).is_nan(), "no spread");
        assert!(quantile(&[1.0], 1.5).is_nan() && median(&[1.0, f32::NAN]).is_nan());
        assert!(ranks(&[]).is_empty());
    }
}
