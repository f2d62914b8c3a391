//! What else a plan makes the model speak of: words of the sixteen built-in concepts.
//!
//! ```text
//! r_j         = words of j per 100 tokens
//! T_j         = (r_j − mean r_j of random directions) / max(their deviation, one word in the plan's texts)
//! leak        = max_{j not own} T_j / T_own                                                  arXiv 2512.15134
//! selectivity = T_own / (T_own + Σ_{j not own, T_j ≥ 3} T_j)
//! ```
//!
//! Held-out words count; where an instruction chose the features, and no words, all words of a concept do. Only rises count: a
//! text that speaks of one thing speaks less of all others. Of sixteen concepts one rises by two words by chance, so T below 3
//! is noise and counts as none. T_own is the largest of the concepts that the plan is meant for and of its effect, which is
//! all that a manner or a language has.

use super::aim::{log_gain, per_100, refs};
use super::random::spread;
use super::report::{Gains, Leak};
use super::texts::Text;
use crate::eval::concepts::{Concept, Suite};

/// T below this is noise.
pub(super) const NOISE: f64 = 3.0;

/// The words of each concept that count.
pub(super) fn words(suite: &Suite, all: bool) -> Vec<Vec<String>> {
    let of = |concept: &Concept| match all {
        true => [concept.words.as_slice(), &concept.held_out].concat(),
        false => concept.held_out.clone(),
    };
    suite.concepts.iter().map(of).collect()
}

/// A row of the matrix: the logarithm of the gain of each list of words.
pub(super) fn gains(name: impl Into<String>, texts: &[Text], unsteered: &[Text], words: &[Vec<String>]) -> Gains {
    let (texts, unsteered) = (refs(texts), refs(unsteered));
    Gains { name: name.into(), logs: words.iter().map(|words| log_gain(&texts, &unsteered, words)).collect() }
}

/// r of each list of words, and the rate of one word.
pub(super) fn rates(texts: &[Text], words: &[Vec<String>]) -> (Vec<f64>, f64) {
    let texts = refs(texts);
    let n = texts.iter().map(|text| text.tokens.len()).sum::<usize>().max(1);
    (words.iter().map(|words| per_100(&texts, words)).collect(), 100.0 / n as f64)
}

/// The figures. `plan`: its rates and the rate of one word; `random`: the rates of each direction; `effect`: T of the effect,
/// where that was measured.
pub(super) fn leak(
    suite: &Suite,
    own: &[usize],
    rows: Vec<Gains>,
    (plan, one): (&[f64], f64),
    random: &[Vec<f64>],
    effect: Option<f64>,
) -> Leak {
    let concepts = suite.concepts.iter().map(|concept| concept.name.clone()).collect();
    // Among no directions nothing can be told: a plan that edits nothing has none of its length.
    if random.len() < 2 {
        return Leak { concepts, own: own.to_vec(), rows, ..Leak::default() };
    }
    let column = |j: usize| random.iter().map(|rates| rates[j]).collect::<Vec<f64>>();
    let spreads: Vec<(f64, f64)> = (0..plan.len()).map(|j| spread(&column(j)).unwrap_or_default()).collect();
    let rise: Vec<f64> =
        plan.iter().zip(&spreads).map(|(rate, (mean, deviation))| (rate - mean) / deviation.max(one)).collect();
    let own_rises = own.iter().filter_map(|&j| rise.get(j).copied());
    let own_rise = own_rises.chain(effect).filter(|t| t.is_finite()).reduce(f64::max);
    let others = rise.iter().copied().enumerate().filter(|(j, t)| !own.contains(j) && *t >= NOISE);
    let others: Vec<(usize, f64)> = others.collect();
    let worst = others.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    let sum: f64 = others.iter().map(|(_, t)| t).sum();
    // Where nothing rises beyond noise there is nothing to compare.
    let rises = own_rise.filter(|t| *t >= NOISE || (*t > 0.0 && sum > 0.0));
    Leak {
        concepts,
        own: own.to_vec(),
        rows,
        mean: spreads.iter().map(|(mean, _)| *mean).collect(),
        deviation: spreads.iter().map(|(_, deviation)| deviation.max(one)).collect(),
        leak: rises.map(|own| worst.map_or(0.0, |(_, t)| t) / own),
        leaks_to: worst.map(|(j, _)| suite.concepts[j].name.clone()),
        selectivity: rises.map(|own| own / (own + sum)),
        rise,
        own_rise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan whose concepts have so many words in 100 tokens, among random directions with a deviation of one.
    fn found(said: &[(usize, f64)], own: &[usize], effect: Option<f64>) -> Leak {
        let suite = Suite::built_in().unwrap();
        let n = suite.concepts.len();
        let mut rates = vec![1.0; n];
        said.iter().for_each(|&(j, more)| rates[j] += more);
        let random = [vec![0.0; n], vec![1.0; n], vec![2.0; n]];
        leak(&suite, own, Vec::new(), (&rates, 0.5), &random, effect)
    }

    #[test]
    fn a_concept_alone_is_selective_and_noise_is_none() {
        let alone = found(&[(1, 9.0), (4, 2.9)], &[1], None);
        assert_eq!((alone.selectivity, alone.leak, alone.leaks_to.as_deref()), (Some(1.0), Some(0.0), None));
        let two = found(&[(1, 9.0), (0, 4.5)], &[1], None);
        assert_eq!((two.leak, two.leaks_to.as_deref()), (Some(0.5), Some("war")));
        assert!((two.selectivity.unwrap() - 9.0 / 13.5).abs() < 1e-12);
        let little = found(&[(1, 2.0)], &[1], None);
        assert_eq!((little.selectivity, little.own_rise), (None, Some(2.0)), "all of it is noise");
        let falls = found(&[(1, 9.0), (0, -5.0)], &[1], None);
        assert_eq!(falls.selectivity, Some(1.0), "speaking less of others is no leak");
    }

    #[test]
    fn a_manner_has_the_rise_of_its_effect_and_nothing_known_has_none() {
        let manner = found(&[(2, 4.0)], &[], Some(8.0));
        assert_eq!((manner.own_rise, manner.leak), (Some(8.0), Some(0.5)));
        assert_eq!(found(&[(2, 4.0)], &[], None).selectivity, None);
        assert_eq!(found(&[(1, -1.0), (2, 4.0)], &[1], None).leak, None, "what does not rise has nothing to leak from");
    }

    #[test]
    fn among_silent_directions_words_count_one_by_one() {
        let suite = Suite::built_in().unwrap();
        let n = suite.concepts.len();
        let silent = leak(&suite, &[0], Vec::new(), (&vec![0.4; n], 0.2), &[vec![0.0; n], vec![0.0; n]], None);
        let none = leak(&suite, &[0], Vec::new(), (&vec![0.4; n], 0.2), &[], Some(3.0));
        assert_eq!((none.own_rise, none.rise.len()), (None, 0), "no directions, no figures");
        assert!((silent.rise[0] - 2.0).abs() < 1e-12 && silent.leaks_to.is_none(), "two words: {silent:?}");
    }

    #[test]
    fn rows_are_gains_of_lists_of_words() {
        let suite = Suite::built_in().unwrap();
        assert!(words(&suite, true)[1].contains(&"sea".into()) && !words(&suite, false)[1].contains(&"sea".into()));
        let text = |text: &str| [Text { text: text.into(), tokens: vec![1; 50], ..Text::default() }];
        let row = gains("plan", &text("The sea, the captain."), &text("A man."), &words(&suite, true));
        assert!((row.logs[1] - 5f64.ln()).abs() < 1e-12 && row.logs[2] == 0.0, "{row:?}");
        assert_eq!(rates(&text("The sea"), &words(&suite, true)).0[1], 2.0);
    }
}
