//! How good a set of explanations is, without asking anybody (arXiv 2502.15576).
//!
//! A word is *superficial* if it is among the 250 most frequent or shorter than 4 characters
//! ([`Vocabulary::is_superficial`]). Good explanations use many of the other words (diversity), few superficial ones
//! (lexical), and none in most features (dominate).

use std::collections::HashMap;

use super::explanations::Explanations;
use super::vocabulary::Vocabulary;

/// A word that explains more than this share of the features dominates.
const DOMINANT_SHARE: f64 = 0.1;

/// Shares in \[0, 1\].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// The share of the vocabulary's other words that any explanation uses; higher is better.
    pub diversity: f64,
    /// The share of its superficial words that any explanation uses; lower is better.
    pub lexical: f64,
    /// The share of the used words that explain more than a tenth of the features; lower is better.
    pub dominate: f64,
    /// Diversity − lexical.
    pub total: f64,
}

/// The quality of the first `n_shown` words of every explanation.
pub fn quality(explanations: &Explanations, vocabulary: &Vocabulary, n_shown: usize) -> Quality {
    let mut uses: HashMap<u32, usize> = HashMap::new();
    for explanation in explanations.list() {
        for (word, _) in explanation.words.iter().take(n_shown) {
            if let Some(rank) = vocabulary.rank(word) {
                *uses.entry(rank).or_default() += 1;
            }
        }
    }
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let n_superficial = (0..vocabulary.len()).filter(|rank| vocabulary.is_superficial(*rank)).count();
    let superficial_used = uses.keys().filter(|rank| vocabulary.is_superficial(**rank as usize)).count();
    let diversity = share(uses.len() - superficial_used, vocabulary.len() - n_superficial);
    let lexical = share(superficial_used, n_superficial);
    let limit = DOMINANT_SHARE * explanations.list().len() as f64;
    let dominate = share(uses.values().filter(|n| **n as f64 > limit).count(), uses.len());
    Quality { diversity, lexical, dominate, total: diversity - lexical }
}

#[cfg(test)]
mod tests {
    use super::super::explanations::{Estimator, Explanation, Header};
    use super::*;

    #[test]
    fn counts_what_the_paper_counts() {
        // 260 words: w_0 is the most frequent. 250 are superficial by rank, of the last ten one by length ("zz").
        let name = |i: usize| format!("word{}{}", char::from(b'a' + (i / 26) as u8), char::from(b'a' + (i % 26) as u8));
        let mut text = String::new();
        for i in 0..259 {
            text.push_str(&format!("{} ", name(i).replace(|c: char| c.is_numeric(), "")).repeat(300 - i));
        }
        text.push_str("zz");
        let vocabulary = Vocabulary::from_texts([&text], 260).unwrap();
        assert_eq!((vocabulary.len(), vocabulary.rank("zz")), (260, Some(259)));
        let word = |rank: usize| (vocabulary.words()[rank].text.clone(), 1.0);
        let explain = |(feature, ranks): (u32, &[usize])| Explanation {
            feature,
            words: ranks.iter().map(|rank| word(*rank)).collect(),
            ..Explanation::default()
        };
        // 20 features: every one begins with word 0; one uses 250 and 251, one "zz", one has a word that is not shown.
        let mut ranks: Vec<&[usize]> = vec![&[0]; 20];
        (ranks[3], ranks[4], ranks[5]) = (&[0, 250, 251], &[0, 259], &[0, 1, 2, 252]);
        let list = (0..).zip(ranks).map(explain).collect();
        let explanations = Explanations::new(Header::new(Estimator::Data), list).unwrap();
        let quality = quality(&explanations, &vocabulary, 3);
        assert_eq!(quality.diversity, 2.0 / 9.0);
        assert_eq!(quality.lexical, 4.0 / 251.0); // words 0, 1, 2 and "zz"
        assert_eq!(quality.dominate, 1.0 / 6.0);
        assert_eq!(quality.total, 2.0 / 9.0 - 4.0 / 251.0);
    }
}
