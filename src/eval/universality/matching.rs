//! Which features of A and B are a pair: the best correlated ones, filtered in the order of arXiv 2410.06981.
//!
//! 1. Pairs of which either feature has a token among its five strongest that stands for no concept are dropped.
//! 2. Pairs whose lists share a token are kept.
//! 3. A feature of A stays with one feature of B (optional).
//! 4. r > `min_r`.

use serde::{Deserialize, Serialize};

use super::correlation::Best;
use super::tokens::{Texts, TopTokens};

/// Which pair a feature of A keeps that is the best match of several features of B.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneToOne {
    /// The best correlated.
    #[default]
    Best,
    /// The first in the order of B, as the paper's code does.
    First,
    /// All of them.
    Off,
}

/// A feature of A and one of B.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Number in A.
    pub a: u32,
    /// Number in B.
    pub b: u32,
    /// Pearson's correlation of their activations.
    pub r: f64,
}

/// Pairs left after each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Steps {
    /// Features of B that fire often enough to be compared: each has a best correlated feature of A.
    pub correlated: usize,
    /// Both lists hold tokens that may stand for concepts.
    pub concept: usize,
    /// The lists share a token.
    pub shared: usize,
    /// One feature of B for a feature of A.
    pub one_to_one: usize,
    /// r > `min_r`.
    pub above: usize,
}

/// The pairs that pass every filter, in the order of B, and how many pass each.
pub fn filter(
    best: &[Option<Best>],
    tokens: [&TopTokens; 2],
    texts: &Texts,
    one_to_one: OneToOne,
    min_r: f64,
) -> (Vec<Pair>, Steps) {
    let [of_a, of_b] = tokens;
    let all = (0..).zip(best).filter_map(|(b, best)| best.map(|best| Pair { a: best.a, b, r: best.r }));
    let mut pairs: Vec<Pair> = all.collect();
    let mut steps = Steps { correlated: pairs.len(), ..Steps::default() };
    pairs.retain(|p| of_a.is_concept(p.a, texts) && of_b.is_concept(p.b, texts));
    steps.concept = pairs.len();
    pairs.retain(|p| of_a.share(p.a, of_b, p.b));
    steps.shared = pairs.len();
    pairs = keep_one(pairs, one_to_one);
    steps.one_to_one = pairs.len();
    pairs.retain(|p| p.r > min_r);
    steps.above = pairs.len();
    (pairs, steps)
}

fn keep_one(mut pairs: Vec<Pair>, one_to_one: OneToOne) -> Vec<Pair> {
    match one_to_one {
        OneToOne::Off => return pairs,
        OneToOne::First => pairs.sort_by_key(|p| (p.a, p.b)),
        OneToOne::Best => pairs.sort_by(|x, y| x.a.cmp(&y.a).then(y.r.total_cmp(&x.r)).then(x.b.cmp(&y.b))),
    }
    pairs.dedup_by_key(|p| p.a);
    pairs.sort_by_key(|p| p.b);
    pairs
}

#[cfg(test)]
mod tests {
    use super::super::correlation::Codes;
    use super::super::tokens::Item;
    use super::*;

    /// Feature i is strongest on the i-th list.
    fn tokens(lists: &[&[&str]], texts: &mut Texts) -> TopTokens {
        let mut top = TopTokens::new(lists.len());
        for (id, list) in (0..).zip(lists) {
            for (i, token) in list.iter().enumerate() {
                let item = Item { text: texts.id(token), whole: true };
                top.add(Codes { offsets: &[0, 1], entries: &[(id, 9.0 - i as f32)] }, &[item]);
            }
        }
        top
    }

    #[test]
    fn each_filter_does_its_part_in_order() {
        let mut texts = Texts::default();
        let a = tokens(&[&["war", "army"], &["sea", ","], &["king"], &["tax"]], &mut texts);
        let b = tokens(
            &[&["army", "navy"], &["sea"], &["King", "queen"], &["queen"], &["king"], &[], &["war"], &["tax"]],
            &mut texts,
        );
        let best: Vec<Option<Best>> = [(0, 0.8), (1, 0.9), (2, 0.5), (2, 0.9), (2, 0.7), (0, 0.9), (0, 0.3), (3, 0.05)]
            .map(|(a, r)| Some(Best { a, r }))
            .to_vec();
        let run = |one| filter(&best, [&a, &b], &texts, one, 0.1);
        let pairs = |one| run(one).0.iter().map(|p| (p.a, p.b)).collect::<Vec<_>>();
        // The comma and the silent feature go first, then king and queen; tax correlates too little.
        let steps = Steps { correlated: 8, concept: 6, shared: 5, one_to_one: 3, above: 2 };
        assert_eq!(run(OneToOne::Best).1, steps);
        assert_eq!(pairs(OneToOne::Best), [(0, 0), (2, 4)]);
        assert_eq!(pairs(OneToOne::First), [(0, 0), (2, 2)]);
        assert_eq!(pairs(OneToOne::Off), [(0, 0), (2, 2), (2, 4), (0, 6)]);
        assert!(filter(&[None; 8], [&a, &b], &texts, OneToOne::Best, 0.1).0.is_empty());
    }
}
