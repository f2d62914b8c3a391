//! Do the rules of a plan add up: each alone, and all at once, on the same prompts.
//!
//! ```text
//! I(aim) = (E(all) + E(none) − Σ_r E(r)) / Σ_r |E(r)|       E(none) = 0        arXiv 2512.15134
//! ```
//!
//! A true joint edit: every rule acts while the others do. 0 is a sum, below 0 they are in each other's way, above 0 they do
//! more together.

use super::aim::{Aims, per_100, refs};
use super::report::{Additivity, Measure};
use super::subject::Subject;
use super::texts::{Bench, Depth, Text};
use crate::error::Result;
use crate::plan::Route;

/// Rules that are tried alone, at most.
const MOST: usize = 6;

/// The texts of each rule alone; none where there are not two to compare.
pub(super) fn alone(bench: &mut Bench<'_, '_>, subject: &Subject) -> Result<Vec<(String, Vec<Text>)>> {
    let rules = &subject.plan.rules;
    if !(2..=MOST).contains(&rules.len()) {
        return Ok(Vec::new());
    }
    let places: Vec<usize> = (0..bench.cases.len()).collect();
    let mut all = Vec::with_capacity(rules.len());
    for rule in rules {
        let plan = subject.compile(bench.engine, &subject.with(vec![rule.clone()]), Route::Auto)?;
        all.push((subject.describe(rule), bench.write(Some(&plan), &places, Depth::Likelihood)?));
    }
    Ok(all)
}

/// Effects alone and together.
pub(super) fn additivity(
    aims: &Aims,
    alone: &[(String, Vec<Text>)],
    (together, unsteered, asked): (&[Text], &[Text], Option<&[Text]>),
) -> Option<Additivity> {
    let asked = asked.map(refs);
    if alone.is_empty() || !aims.is_measured(&refs(unsteered), asked.as_deref()) {
        return None;
    }
    let effects = |texts: &[Text]| match aims.measure {
        Measure::Asked => aims.each(&refs(texts), &refs(unsteered), asked.as_deref()),
        _ => vec![per_100(&refs(texts), &aims.words) - per_100(&refs(unsteered), &aims.words)],
    };
    let each: Vec<Vec<f64>> = alone.iter().map(|(_, texts)| effects(texts)).collect();
    let together = effects(together);
    let interaction = interaction(&each, &together);
    Some(Additivity {
        rules: alone.iter().map(|(name, _)| name.clone()).collect(),
        aims: aims.names.clone(),
        mean: super::aim::mean(&interaction.iter().map(|i| i.abs()).collect::<Vec<_>>()),
        alone: each,
        together,
        interaction,
    })
}

/// I of each aim; 0 where no rule does anything, alone or together.
fn interaction(alone: &[Vec<f64>], together: &[f64]) -> Vec<f64> {
    let of = |(aim, together): (usize, &f64)| {
        let sum: f64 = alone.iter().map(|effects| effects[aim]).sum();
        let size: f64 = alone.iter().map(|effects| effects[aim].abs()).sum();
        let size = size.max(f64::MIN_POSITIVE);
        if *together == sum { 0.0 } else { ((together - sum) / size).clamp(-10.0, 10.0) }
    };
    together.iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_interaction_shows_and_a_sum_does_not() {
        assert_eq!(interaction(&[vec![0.5], vec![0.25]], &[0.75]), [0.0]);
        assert_eq!(interaction(&[vec![0.5], vec![0.5]], &[2.0]), [1.0], "more together");
        assert_eq!(interaction(&[vec![0.5], vec![0.5]], &[0.5]), [-0.5], "in each other's way");
        assert_eq!(interaction(&[vec![0.5, 0.0], vec![-0.5, 0.0]], &[0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(interaction(&[vec![0.0], vec![0.0]], &[3.0]), [10.0], "nothing alone, much together");
    }

    #[test]
    fn words_are_counted_per_100_tokens() {
        let text = |text: &str| vec![Text { text: text.into(), tokens: vec![1; 50], ..Text::default() }];
        let aims =
            Aims { measure: Measure::Words, names: vec!["sea".into()], words: vec!["sea".into()], ..Aims::default() };
        let alone = [("a".to_owned(), text("sea")), ("b".to_owned(), text("sea sea"))];
        let found = additivity(&aims, &alone, (&text("sea sea sea"), &text(""), None)).unwrap();
        assert_eq!((found.alone, found.together), (vec![vec![2.0], vec![4.0]], vec![6.0]));
        assert_eq!(found.interaction, [0.0]);
        assert_eq!(additivity(&aims, &[], (&text(""), &text(""), None)), None);
    }
}
