//! Do the words of a feature predict where it fires? On text that they were not found on.
//!
//! ```text
//! score(window) = how many of the feature's shown words occur in it
//! AUC           = P(score of a window where it fires > score of one where it does not) + ½ P(equal)
//! ```
//!
//! 0.5 is chance. Every word counts alike, so that methods whose scores have other units compare.

use std::collections::HashMap;

use super::explanations::Explanation;
use super::vocabulary::Vocabulary;
use super::windows::Windows;

/// Windows by the words that occur in them.
#[derive(Debug)]
pub struct Detector<'w> {
    vocabulary: &'w Vocabulary,
    /// Of every word the windows that hold it.
    holders: Vec<Vec<u32>>,
    /// Of every feature the windows in which it fires, ascending.
    fired: Vec<Vec<u32>>,
    n_windows: usize,
}

impl<'w> Detector<'w> {
    /// Over `windows` of held-out text.
    pub fn new(windows: &Windows, vocabulary: &'w Vocabulary) -> Self {
        let (mut holders, mut fired) = (vec![Vec::new(); vocabulary.len()], vec![Vec::new(); windows.n_features()]);
        for window in 0..windows.len() {
            windows.words_of(window).iter().for_each(|&word| holders[word as usize].push(window as u32));
            windows.features_of(window).iter().for_each(|&feature| fired[feature as usize].push(window as u32));
        }
        Self { vocabulary, holders, fired, n_windows: windows.len() }
    }

    /// Windows in which `feature` fires, and in which it does not.
    pub fn counts(&self, feature: u32) -> [usize; 2] {
        let n = self.fired.get(feature as usize).map_or(0, Vec::len);
        [n, self.n_windows - n]
    }

    /// The AUC of the first `n_shown` words of `explanation`; 0.5 for one without words. None for a feature that fires in
    /// all windows, or in none.
    pub fn auc(&self, explanation: &Explanation, n_shown: usize) -> Option<f64> {
        let fired = self.fired.get(explanation.feature as usize)?;
        let [positive, negative] = self.counts(explanation.feature);
        if positive == 0 || negative == 0 {
            return None;
        }
        let mut scores: HashMap<u32, usize> = HashMap::new();
        for (word, _) in explanation.words.iter().take(n_shown) {
            let rank = self.vocabulary.rank(word);
            let windows = rank.and_then(|rank| self.holders.get(rank as usize)).into_iter().flatten();
            windows.for_each(|&window| *scores.entry(window).or_default() += 1);
        }
        // Windows with each score, where it fires and where not.
        let mut counts = vec![[0usize; 2]; n_shown + 1];
        for (window, score) in &scores {
            counts[*score][usize::from(fired.binary_search(window).is_err())] += 1;
        }
        let seen = |side: usize| counts.iter().map(|count| count[side]).sum::<usize>();
        counts[0] = [positive - seen(0), negative - seen(1)];
        let (mut below, mut won) = (0usize, 0f64);
        for [yes, no] in counts {
            won += yes as f64 * (below as f64 + 0.5 * no as f64);
            below += no;
        }
        Some(won / (positive as f64 * negative as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::super::windows::{Collector, Text};
    use super::*;
    use rand::Rng;

    /// Six words and three features: 0 fires where "war" or "army" stand, 1 at random, 2 everywhere.
    fn windows(vocabulary: &Vocabulary) -> (Windows, Vec<Vec<u32>>) {
        let mut rng = crate::num::rng(5);
        let words = ["war", "army", "sea", "ship", "tax", "law"];
        let n = 4 * 200;
        let tokens: Vec<i32> = (0..n).map(|_| rng.random_range(0..6)).collect();
        let positions: Vec<i32> = (1..=n).collect();
        let bounds: Vec<usize> = (0..=n as usize).step_by(4).collect();
        let mut collector = Collector::new(vocabulary, 3, 4, 1.0).unwrap();
        let text = Text { tokens: &tokens, positions: &positions, documents: &bounds };
        let rows = collector.text(text, &|token| format!(" {}", words[token as usize]).into_bytes()).unwrap();
        for row in rows {
            let mut codes = vec![(2, 1.0)];
            if tokens[row] < 2 {
                codes.push((0, 1.0));
            }
            if rng.random_bool(0.1) {
                codes.push((1, 1.0));
            }
            collector.row(&codes).unwrap();
        }
        let windows = collector.finish().unwrap();
        let words = (0..windows.len()).map(|w| windows.words_of(w).to_vec()).collect();
        (windows, words)
    }

    fn explained(feature: u32, words: &[&str]) -> Explanation {
        let words = words.iter().map(|word| ((*word).to_owned(), 1.0)).collect();
        Explanation { feature, words, ..Explanation::default() }
    }

    #[test]
    fn words_of_a_feature_predict_where_it_fires() {
        let vocabulary = Vocabulary::from_texts(["war army sea ship tax law"], 6).unwrap();
        let (windows, words) = windows(&vocabulary);
        let detector = Detector::new(&windows, &vocabulary);
        let auc = |feature, words: &[&str]| detector.auc(&explained(feature, words), 15).unwrap();
        assert_eq!(auc(0, &["war", "army"]), 1.0);
        assert!((0.6..0.95).contains(&auc(0, &["war"])));
        assert!(auc(0, &["sea", "ship"]) < 0.5);
        assert_eq!(auc(0, &[]), 0.5);
        assert_eq!(auc(0, &["unknown"]), 0.5);
        assert!((0.4..0.6).contains(&auc(1, &["war", "sea"])));
        assert_eq!(detector.auc(&explained(2, &["war"]), 15), None, "it fires everywhere");
        assert_eq!(detector.auc(&explained(9, &["war"]), 15), None);
        // Pair by pair.
        for feature in [0, 1] {
            for list in [&["war"][..], &["war", "sea", "law"], &["tax", "ship"]] {
                let ranks: Vec<u32> = list.iter().map(|word| vocabulary.rank(word).unwrap()).collect();
                let score = |w: &Vec<u32>| w.iter().filter(|word| ranks.contains(word)).count();
                let (mut won, mut pairs) = (0.0, 0.0);
                for (a, x) in words.iter().enumerate().filter(|(a, _)| windows.features_of(*a).contains(&feature)) {
                    for (b, y) in words.iter().enumerate().filter(|(b, _)| !windows.features_of(*b).contains(&feature))
                    {
                        assert_ne!(a, b);
                        pairs += 1.0;
                        won += match score(x).cmp(&score(y)) {
                            std::cmp::Ordering::Greater => 1.0,
                            std::cmp::Ordering::Equal => 0.5,
                            std::cmp::Ordering::Less => 0.0,
                        };
                    }
                }
                assert!((auc(feature, list) - won / pairs).abs() < 1e-12, "{feature} {list:?}");
            }
        }
    }
}
