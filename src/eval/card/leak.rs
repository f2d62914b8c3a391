//! What else a plan makes the model speak of: held-out words of the sixteen built-in concepts.
//!
//! ```text
//! g_j         = log (words of j per 100 tokens, steered) − log (the same, unsteered)       see aim.rs for words that nobody said
//! T_j         = (g_j − mean g_j of random directions) / max(their deviation, 0.5)
//! leak        = max_{j not own} T_j / T_own                                                  arXiv 2512.15134
//! selectivity = T_own / (T_own + Σ_{j not own, T_j ≥ 2} T_j)
//! ```
//!
//! Only rises count: a text that speaks of one thing speaks less of all others. What lies within two deviations of random
//! directions is noise and counts as none. Where the plan is meant for none of the sixteen (a manner, a language), its own T
//! is that of its effect.

use super::aim::{log_gain, refs};
use super::random::spread;
use super::report::{Gains, Leak};
use super::texts::Text;
use crate::eval::concepts::Suite;

/// T below this is noise.
pub(super) const NOISE: f64 = 2.0;
/// The deviation counts as this at least: where no random direction said a word, the first one is no wonder.
const LEAST_DEVIATION: f64 = 0.5;

/// Logarithms of the gains of each concept.
pub(super) fn logs(texts: &[Text], unsteered: &[Text], suite: &Suite) -> Vec<f64> {
    let (texts, unsteered) = (refs(texts), refs(unsteered));
    suite.concepts.iter().map(|concept| log_gain(&texts, &unsteered, &concept.held_out)).collect()
}

/// The matrix. `rows`: the plan first, then what is held against it; `random`: the logarithms of each random direction;
/// `effect`: T of the effect, where that was measured.
pub(super) fn leak(suite: &Suite, own: &[usize], rows: Vec<Gains>, random: &[Vec<f64>], effect: Option<f64>) -> Leak {
    let column = |j: usize| random.iter().map(|logs| logs[j]).collect::<Vec<f64>>();
    let spreads: Vec<(f64, f64)> =
        (0..suite.concepts.len()).map(|j| spread(&column(j)).unwrap_or((0.0, LEAST_DEVIATION))).collect();
    let plan = rows.first().map(|row| row.logs.clone()).unwrap_or_default();
    let rise: Vec<f64> = plan
        .iter()
        .zip(&spreads)
        .map(|(log, (mean, deviation))| (log - mean) / deviation.max(LEAST_DEVIATION))
        .collect();
    let own_rise = match own.iter().map(|&j| rise.get(j).copied().unwrap_or(0.0)).reduce(f64::max) {
        Some(rise) => Some(rise),
        None => effect,
    };
    let others: Vec<(usize, f64)> = rise.iter().copied().enumerate().filter(|(j, _)| !own.contains(j)).collect();
    let worst = others.iter().copied().filter(|(_, t)| *t >= NOISE).max_by(|a, b| a.1.total_cmp(&b.1));
    let sum: f64 = others.iter().map(|(_, t)| *t).filter(|t| *t >= NOISE).sum();
    let own_rise = own_rise.filter(|t| t.is_finite());
    Leak {
        concepts: suite.concepts.iter().map(|concept| concept.name.clone()).collect(),
        own: own.to_vec(),
        rows,
        mean: spreads.iter().map(|(mean, _)| *mean).collect(),
        deviation: spreads.iter().map(|(_, deviation)| deviation.max(LEAST_DEVIATION)).collect(),
        leak: own_rise.filter(|t| *t > 0.0).map(|own| worst.map_or(0.0, |(_, t)| t) / own),
        leaks_to: worst.map(|(j, _)| suite.concepts[j].name.clone()),
        selectivity: own_rise.filter(|t| *t > 0.0).map(|own| own / (own + sum)),
        rise,
        own_rise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan whose concepts gain so, among random directions with a deviation of one.
    fn found(gains: &[(usize, f64)], own: &[usize], effect: Option<f64>) -> Leak {
        let suite = Suite::built_in().unwrap();
        let n = suite.concepts.len();
        let mut logs = vec![0.0; n];
        gains.iter().for_each(|&(j, log)| logs[j] = log);
        let random = [vec![-1.0; n], vec![0.0; n], vec![1.0; n]];
        leak(&suite, own, vec![Gains { name: "plan".into(), logs }], &random, effect)
    }

    #[test]
    fn a_concept_alone_is_selective_and_noise_is_none() {
        let alone = found(&[(1, 6.0), (4, 1.9)], &[1], None);
        assert_eq!((alone.selectivity, alone.leak, alone.leaks_to.as_deref()), (Some(1.0), Some(0.0), None));
        let two = found(&[(1, 6.0), (0, 3.0)], &[1], None);
        assert_eq!((two.leak, two.leaks_to.as_deref()), (Some(0.5), Some("war")));
        assert!((two.selectivity.unwrap() - 6.0 / 9.0).abs() < 1e-12);
        let falls = found(&[(1, 6.0), (0, -5.0)], &[1], None);
        assert_eq!(falls.selectivity, Some(1.0), "speaking less of others is no leak");
    }

    #[test]
    fn a_manner_has_the_rise_of_its_effect_and_nothing_known_has_none() {
        let manner = found(&[(2, 4.0)], &[], Some(8.0));
        assert_eq!((manner.own_rise, manner.leak), (Some(8.0), Some(0.5)));
        assert_eq!(found(&[(2, 4.0)], &[], None).selectivity, None);
        assert_eq!(found(&[(2, 4.0)], &[1], None).leak, None, "what does not rise has nothing to leak from");
    }

    #[test]
    fn a_first_word_among_silent_directions_is_no_wonder() {
        let suite = Suite::built_in().unwrap();
        let n = suite.concepts.len();
        let row = Gains { name: String::new(), logs: vec![3f64.ln(); n] };
        let silent = leak(&suite, &[0], vec![row], &[vec![0.0; n], vec![0.0; n]], None);
        assert!(silent.rise[0] < 2.3 && silent.deviation[0] == LEAST_DEVIATION, "{silent:?}");
    }
}
