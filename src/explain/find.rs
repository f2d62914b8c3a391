//! Features by what they mean: the ones that score high for *all* the words of a concept, not for one.
//!
//! A feature that fires on the token "war" has the best score of all for the word *war* and next to nothing for *army*,
//! *soldiers*, *battle*; one that fires wherever the text is about war scores well for all four, and steers better. So the
//! scores of the words are combined by a geometric mean, which one missing word pulls down, and not by a sum:
//!
//! ```text
//! v(c,w)   = √( s(c,w)/max_c' s(c',w)  ·  s(c,w)/max_w' s(c,w') )      how strong c is for w, and how central w is to c
//! score(c) = Π_w max(v(c,w), floor)^(1/n)                              in (0, 1]
//! ```
//!
//! The first factor makes frequent and rare words comparable; the second leaves out features that mean something else and
//! touch the concept at the edge. Only the words that explanations keep have a score: the others count as the floor.
//!
//! A word of the query matches itself, lower-cased; where an explanation lacks it, words of the same stem stand in, when
//! they differ in a plural or possessive ending only (`soldiers` ~ `soldier`, `armies` ~ `army`, `king's` ~ `king`).

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::explanations::{Explanation, Explanations};
use super::vocabulary::scan;
use crate::error::{Error, Result};

/// The exponent of how strong a feature is for a word, against how central the word is to the feature.
const STRONG: f32 = 0.5;

/// How [`Explanations::find_with`] searches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Find {
    /// Features that fire on a larger share of the tokens are left out.
    pub max_density: f32,
    /// The value of a word that a feature's explanation lacks, in (0, 1).
    pub floor: f32,
}

impl Default for Find {
    fn default() -> Self {
        Self { max_density: 0.1, floor: 0.02 }
    }
}

/// A feature that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// Its number in the dictionary.
    pub feature: u32,
    /// How well it means all the words, in (0, 1]; for a search in labels, 1.
    pub score: f32,
    /// Its share of the strength when several features are steered: its score relative to the best match, or by its lift.
    pub weight: f32,
    /// The words of the query that its explanation holds, as written there.
    pub matched: Vec<String>,
    /// Its words, best first.
    pub words: Vec<(String, f32)>,
    /// Its label.
    pub label: Option<String>,
    /// The share of tokens on which it fires.
    pub density: Option<f32>,
    /// Its mean activation where it fires.
    pub mean: Option<f32>,
    /// By how many nats it makes the words likelier when it is pushed, if that was
    /// [measured](crate::eval).
    pub lift: Option<f32>,
}

impl Match {
    /// A feature that was chosen by its number; without an explanation it has no words.
    pub fn of(feature: u32, explanation: Option<&Explanation>) -> Self {
        let nothing = Explanation { feature, ..Explanation::default() };
        Self::new(explanation.unwrap_or(&nothing), 0.0)
    }

    fn new(explanation: &Explanation, score: f32) -> Self {
        Self {
            feature: explanation.feature,
            score,
            weight: 1.0,
            matched: Vec::new(),
            words: explanation.words.iter().take(super::SHOWN_WORDS).cloned().collect(),
            label: explanation.label.clone(),
            density: explanation.density,
            mean: explanation.mean,
            lift: None,
        }
    }
}

/// The stem of a word: what is left of it, and what a plural took away.
fn stem(word: &str) -> (&str, &'static str) {
    let word = word.strip_suffix("'s").or_else(|| word.strip_suffix('\'')).unwrap_or(word);
    if word.len() < 4 {
        return (word, "");
    }
    if let Some(rest) = word.strip_suffix("ies").filter(|rest| rest.len() > 1) {
        return (rest, "y");
    }
    if let Some(rest) = word.strip_suffix("es")
        && ["s", "x", "z", "ch", "sh"].iter().any(|end| rest.ends_with(end))
    {
        return (rest, "");
    }
    match word.strip_suffix('s') {
        Some(rest) if !rest.ends_with(['s', 'u', 'i']) => (rest, ""),
        _ => (word, ""),
    }
}

fn same_stem(a: &str, b: &str) -> bool {
    let ((a, a_end), (b, b_end)) = (stem(a), stem(b));
    a.chars().chain(a_end.chars()).eq(b.chars().chain(b_end.chars()))
}

/// The place in `explanation` of the word that stands for `word`: itself, or else the best one of the same stem.
fn place(explanation: &Explanation, word: &str) -> Option<usize> {
    let exact = explanation.words.iter().position(|(text, _)| text == word);
    exact.or_else(|| explanation.words.iter().position(|(text, _)| same_stem(text, word)))
}

/// Words that say nothing of a topic: a query is searched without them.
const STOP_WORDS: &str = "a about above after again all also am an and any are as at be because been before being below \
    between both but by can could did do does doing down during each few for from further had has have having he her here \
    hers him his how i if in into is it its just me more most my no nor not of off on once only or other our ours out over \
    own same she should so some such than that the their theirs them then there these they this those through to too under \
    until up very was we were what when where which while who whom why will with would you your yours";

/// Whether a word in lower case says nothing of a topic.
pub fn is_stop_word(word: &str) -> bool {
    STOP_WORDS.split(' ').any(|stop| stop == word)
}

/// The words of a query in normal form, each once, without stop words.
pub fn query_words(words: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for text in words {
        scan(text, |_, word| {
            if !is_stop_word(word) && !all.iter().any(|known| known == word) {
                all.push(word.to_owned());
            }
        });
    }
    all
}

/// Letters by which a word of the vocabulary may differ from an unknown one to be suggested for it.
fn near(word: &str) -> usize {
    if word.chars().count() < 5 { 1 } else { 2 }
}

impl Explanations {
    /// The `n` features that mean all of `words`, best first, found with the default [`Find`].
    ///
    /// # Errors
    /// See [`find_with`](Self::find_with).
    pub fn find(&self, words: &[&str], n: usize) -> Result<Vec<Match>> {
        self.find_with(words, n, &Find::default())
    }

    /// The `n` features that mean all of `words`, best first; of equal ones the lower number. Words that no feature's
    /// explanation holds tell nothing and are left out ([`unknown_words`](Self::unknown_words) names them); if that leaves
    /// none, nothing is found.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if `words` holds no word, or the floor is not in (0, 1).
    pub fn find_with(&self, words: &[&str], n: usize, options: &Find) -> Result<Vec<Match>> {
        if !(options.floor > 0.0 && options.floor < 1.0) {
            return Err(Error::argument(format!("find: expected a floor in (0, 1), found {}", options.floor)));
        }
        let query = query_words(words);
        if query.is_empty() {
            let what = format!("find: expected at least one word of two letters that names a topic, found {words:?}");
            return Err(Error::argument(what));
        }
        let fit = |e: &&Explanation| e.density.is_none_or(|d| d <= options.max_density);
        let candidates: Vec<&Explanation> = self.list().iter().filter(fit).collect();
        let places: Vec<Vec<Option<usize>>> =
            candidates.iter().map(|e| query.iter().map(|word| place(e, word)).collect()).collect();
        let score = |e: &Explanation, at: Option<usize>| {
            at.and_then(|at| e.words.get(at)).map(|(_, score)| *score).filter(|score| *score > 0.0)
        };
        // The best score of every word over all features; a word without one is unknown.
        let mut largest = vec![0f32; query.len()];
        for (e, places) in candidates.iter().zip(&places) {
            for (largest, at) in largest.iter_mut().zip(places) {
                *largest = largest.max(score(e, *at).unwrap_or(0.0));
            }
        }
        let n_known = largest.iter().filter(|largest| **largest > 0.0).count().max(1);
        let mut matches: Vec<Match> = Vec::new();
        for (e, places) in candidates.into_iter().zip(&places) {
            let mut log_score = 0f32;
            let mut found = Match::new(e, 0.0);
            for (&at, &largest) in places.iter().zip(&largest).filter(|(_, largest)| **largest > 0.0) {
                let top = e.words.first().map_or(1.0, |(_, top)| *top);
                let value = score(e, at).map_or(0.0, |s| (s / largest).powf(STRONG) * (s / top).powf(1.0 - STRONG));
                log_score += value.max(options.floor).ln();
                found.matched.extend(at.filter(|_| value > 0.0).and_then(|at| e.words.get(at)).map(|(w, _)| w.clone()));
            }
            if !found.matched.is_empty() {
                found.score = (log_score / n_known as f32).exp();
                matches.push(found);
            }
        }
        matches.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.feature.cmp(&b.feature)));
        matches.truncate(n);
        let best = matches.first().map_or(1.0, |best| best.score);
        matches.iter_mut().for_each(|found| found.weight = found.score / best);
        Ok(matches)
    }

    /// At most `n` words of the explanations that are spelled almost like `word`, the nearest first; of equally near ones the
    /// one that more features hold.
    pub fn suggestions(&self, word: &str, n: usize) -> Vec<String> {
        let mut held: HashMap<&str, usize> = HashMap::new();
        let words = self.list().iter().flat_map(|e| &e.words);
        words.for_each(|(text, _)| *held.entry(text).or_default() += 1);
        let word = word.to_lowercase();
        let mut near: Vec<(usize, usize, &str)> = held
            .into_iter()
            .filter(|(text, _)| *text != word && text.len().abs_diff(word.len()) <= near(&word))
            .map(|(text, n)| (strsim::osa_distance(text, &word), usize::MAX - n, text))
            .filter(|(distance, ..)| *distance <= near(&word))
            .collect();
        near.sort_unstable();
        near.into_iter().take(n).map(|(.., text)| text.to_owned()).collect()
    }

    /// The words of a query that no explanation holds.
    pub fn unknown_words(&self, words: &[&str]) -> Vec<String> {
        let known = |word: &String| {
            self.list().iter().any(|e| place(e, word).and_then(|at| e.words.get(at)).is_some_and(|(_, s)| *s > 0.0))
        };
        query_words(words).into_iter().filter(|word| !known(word)).collect()
    }

    /// The first `n` features whose label holds `text`, whatever the case.
    pub fn find_label(&self, text: &str, n: usize) -> Vec<Match> {
        let text = text.to_lowercase();
        let holds = |e: &&Explanation| e.label.as_ref().is_some_and(|label| label.to_lowercase().contains(&text));
        self.list().iter().filter(holds).take(n).map(|e| Match::new(e, 1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::explanations::{Estimator, Header};
    use super::*;

    /// Density and words of a feature.
    type Feature<'a> = (f32, &'a [(&'a str, f32)]);

    fn explanations(list: &[Feature<'_>]) -> Explanations {
        let explain = |(feature, (density, words)): (u32, &Feature<'_>)| Explanation {
            feature,
            density: Some(*density),
            mean: Some(1.0),
            label: Some(format!("Label {feature}")),
            words: words.iter().map(|(word, score)| ((*word).to_owned(), *score)).collect(),
        };
        Explanations::new(Header::new(Estimator::Data), (0..).zip(list).map(explain).collect()).unwrap()
    }

    #[test]
    fn a_topic_beats_a_token_and_dense_features_are_left_out() {
        let all = explanations(&[
            (0.01, &[("war", 0.9), ("the", 0.1)]),
            (0.02, &[("war", 0.3), ("army", 0.25), ("soldier", 0.2), ("battle", 0.2)]),
            (0.02, &[("sea", 0.5), ("army", 0.05), ("war", 0.05), ("battle", 0.04), ("soldiers", 0.04)]),
            (0.60, &[("war", 0.9), ("army", 0.9), ("soldiers", 0.9), ("battle", 0.9)]),
        ]);
        let found = all.find(&["War", "army, soldiers", "battle"], 10).unwrap();
        assert_eq!(found.iter().map(|m| m.feature).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(found[0].matched, ["war", "army", "soldier", "battle"]);
        assert_eq!(found[0].weight, 1.0);
        assert!(found[1].weight < 0.5 && found[0].score <= 1.0);
        assert_eq!(found[0].words[0], ("war".to_owned(), 0.3));
        assert_eq!(all.find(&["army"], 1).unwrap()[0].feature, 1);
    }

    #[test]
    fn words_that_nobody_has_are_named_and_left_out() {
        let all = explanations(&[(0.01, &[("war", 0.9), ("peace", -0.1)])]);
        assert_eq!(all.unknown_words(&["war", "zebra", "peace"]), ["zebra", "peace"]);
        assert_eq!(all.find(&["war", "zebra"], 5).unwrap()[0].score, 1.0);
        assert!(all.find(&["zebra"], 5).unwrap().is_empty());
        assert_eq!(all.find(&["", "!"], 5).unwrap_err().kind(), crate::Kind::Argument);
        assert!(all.find_with(&["war"], 5, &Find { floor: 0.0, ..Find::default() }).is_err());
    }

    #[test]
    fn stop_words_are_dropped_and_near_spellings_suggested() {
        let all = explanations(&[
            (0.01, &[("of", 0.9), ("the", 0.8)]),
            (0.01, &[("ocean", 0.9), ("of", 0.5), ("poem", 0.4)]),
            (0.01, &[("poem", 0.9), ("poet", 0.4)]),
        ]);
        let found = all.find(&["The ocean of it"], 5).unwrap();
        assert_eq!(found.iter().map(|m| (m.feature, m.score)).collect::<Vec<_>>(), [(1, 1.0)], "only the topic counts");
        assert!(all.unknown_words(&["the", "ocean"]).is_empty());
        assert_eq!(all.find(&["of", "the"], 5).unwrap_err().kind(), crate::Kind::Argument);
        assert_eq!(all.suggestions("occean", 3), ["ocean"]);
        assert_eq!(all.suggestions("poes", 3), ["poem", "poet"], "the one that more features hold comes first");
        assert!(all.suggestions("dinosaur", 3).is_empty() && all.suggestions("ocean", 3).is_empty());
    }

    #[test]
    fn stems_fold_plurals_and_possessives_only() {
        for (a, b) in [
            ("armies", "army"),
            ("soldiers", "soldier"),
            ("king's", "kings"),
            ("churches", "church"),
            ("ships", "ship's"),
        ] {
            assert!(same_stem(a, b), "{a} {b}");
        }
        for (a, b) in [("bus", "bu"), ("glass", "glas"), ("crisis", "crisi"), ("war", "wars's"), ("fight", "fighting")]
        {
            assert!(!same_stem(a, b) || a == "war", "{a} {b}");
        }
    }

    #[test]
    fn labels_are_searched_by_substring() {
        let all = explanations(&[(0.0, &[]), (0.0, &[])]);
        assert_eq!(all.find_label("LABEL 1", 9).iter().map(|m| m.feature).collect::<Vec<_>>(), [1]);
        assert_eq!(all.find_label("label", 1).len(), 1);
        assert!(all.find_label("other", 9).is_empty());
    }
}
