//! Matryoshka BatchTopK (arXiv 2503.17547): a BatchTopK dictionary whose first `n_1 < n_2 < … ≤ n_features` features each
//! rebuild rows on their own as well; the objective is the sum of the errors, `Σ_g ‖b_dec + Σ_{i<n_g} f_i·W_dec[i] − x‖²`.
//!
//! With `e_g` the error of the first `n_g` features, a feature between `n_{g−1}` and `n_g` is pulled by
//! `e_g + e_{g+1} + …`: the errors that it has a part in. All nested reconstructions cost as much as one, plus a pass over
//! `d_model` for each.

use crate::train::kernel::add;
use crate::train::options::Options;

/// Where the nested dictionaries end, ascending, the whole one last.
pub(in crate::train) fn levels(options: &Options) -> Vec<u32> {
    let n = options.n_features;
    let mut ends = match options.prefixes.is_empty() {
        true => [1, 3, 7, 15].map(|part| part * n / 32).to_vec(),
        false => options.prefixes.clone(),
    };
    ends.retain(|&end| 0 < end && end < n);
    ends.dedup();
    ends.push(n);
    ends.into_iter().map(|end| end as u32).collect()
}

/// Turns the errors `[levels, d]` into what pulls each level's own features: the sum of its and all later errors.
pub(in crate::train) fn accumulate(errors: &mut [f32], d: usize) {
    for level in (1..errors.len() / d).rev() {
        let (before, after) = errors.split_at_mut(level * d);
        add(&mut before[(level - 1) * d..], 1.0, &after[..d]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Variant;
    use super::*;

    #[test]
    fn levels_ascend_to_the_whole_dictionary() {
        let with = |n_features, prefixes: &[usize]| {
            let prefixes = prefixes.to_vec();
            levels(&Options { n_features, prefixes, ..Options::of(Variant::Matryoshka) })
        };
        assert_eq!(with(4096, &[]), [128, 384, 896, 1920, 4096]);
        assert_eq!(with(64, &[8, 64]), [8, 64]);
        assert_eq!(with(8, &[]), [1, 3, 8]);
    }

    #[test]
    fn later_errors_pull_earlier_features() {
        let mut errors = [1.0, 2.0, 10.0, 20.0, 100.0, 200.0];
        accumulate(&mut errors, 2);
        assert_eq!(errors, [111.0, 222.0, 110.0, 220.0, 100.0, 200.0]);
    }
}
