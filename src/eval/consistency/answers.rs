//! Whether answers to paraphrases agree.
//!
//! ```text
//! agreement = 1/G Σ_g  same pairs of g / pairs of g          pairs of answers to one group's texts
//! across    = same pairs / pairs                             of answers to texts of two groups
//! accuracy  = right answers / answers                        where it is known what is right
//! ```
//!
//! A model that always says the same agrees with itself: `across` rises with it, so what counts is agreement − across.
//!
//! Answers are compared by their words, in small letters, up to the end of the first sentence or line, without articles.
//! Where right answers are known, an answer that holds one of them counts as that one: "Paris" and "It is Paris." agree.
//! An answer without a word agrees with none.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::groups::Group;

/// What answers to groups of paraphrases come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Groups.
    pub groups: usize,
    /// Answers.
    pub answers: usize,
    /// Mean over groups of the share of pairs that agree.
    pub agreement: f64,
    /// Share of pairs from two groups that agree.
    pub across: f64,
    /// Share of answers that are right; none where none is known.
    pub accuracy: Option<f64>,
}

/// An answer as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its words, or those of the right answer that it holds.
    pub words: String,
    /// Whether it is right; none where that is not known.
    pub right: Option<bool>,
}

/// What `answer` says to a question whose right answers are `right`.
pub fn said(answer: &str, right: &[String]) -> Said {
    let words = words(answer);
    if right.is_empty() {
        return Said { words, right: None };
    }
    let holds = |right: &String| {
        let right = self::words(right);
        !right.is_empty() && format!(" {words} ").contains(&format!(" {right} "))
    };
    match right.iter().any(holds) {
        true => Said { words: self::words(&right[0]), right: Some(true) },
        false => Said { words, right: Some(false) },
    }
}

/// The words of the first sentence that has any, in small letters, without articles.
fn words(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let sentence = line.split_inclusive(['.', '!', '?']).find(|part| part.contains(char::is_alphanumeric));
    let lower = sentence.unwrap_or_default().to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !matches!(*word, "" | "a" | "an" | "the"));
    words.collect::<Vec<_>>().join(" ")
}

/// Whether two answers agree.
pub fn agree(a: &Said, b: &Said) -> bool {
    !a.words.is_empty() && a.words == b.words
}

/// The figures of `answers`, one list a group.
pub fn figures(answers: &[Vec<Said>]) -> Figures {
    let of_group: Vec<f64> = answers.iter().map(|group| agreement(group)).collect();
    let all = || answers.iter().flatten();
    let known = all().filter(|said| said.right.is_some()).count();
    let right = all().filter(|said| said.right == Some(true)).count();
    Figures {
        groups: answers.len(),
        answers: all().count(),
        agreement: of_group.iter().sum::<f64>() / answers.len().max(1) as f64,
        across: across(answers),
        accuracy: (known > 0).then(|| right as f64 / known as f64),
    }
}

/// The share of a group's pairs that agree.
pub fn agreement(group: &[Said]) -> f64 {
    let pairs = group.len() * group.len().saturating_sub(1) / 2;
    let same = group.iter().enumerate().map(|(i, a)| group[i + 1..].iter().filter(|b| agree(a, b)).count());
    same.sum::<usize>() as f64 / pairs.max(1) as f64
}

/// The share of pairs from two groups that agree: all pairs less those within a group.
fn across(answers: &[Vec<Said>]) -> f64 {
    let (mut pairs, mut same) = (0.0, 0.0);
    let mut everywhere: HashMap<&str, f64> = HashMap::new();
    for group in answers {
        let mut here: HashMap<&str, f64> = HashMap::new();
        group
            .iter()
            .filter(|said| !said.words.is_empty())
            .for_each(|said| *here.entry(&said.words).or_default() += 1.0);
        same -= here.values().map(|n| n * n).sum::<f64>();
        pairs -= (group.len() * group.len()) as f64;
        here.into_iter().for_each(|(words, n)| *everywhere.entry(words).or_default() += n);
    }
    let n: usize = answers.iter().map(Vec::len).sum();
    same += everywhere.values().map(|n| n * n).sum::<f64>();
    pairs += (n * n) as f64;
    if pairs > 0.0 { same / pairs } else { 0.0 }
}

/// Of each answer of a group how many others agree with it, and how many do not.
pub fn partners(group: &[Said]) -> Vec<[usize; 2]> {
    let count = |(i, a): (usize, &Said)| {
        let same = group.iter().enumerate().filter(|(j, b)| *j != i && agree(a, b)).count();
        [same, group.len() - 1 - same]
    };
    group.iter().enumerate().map(count).collect()
}

/// All answers as they are compared, a list a group.
pub fn compared(groups: &[Group], answers: &[Vec<String>]) -> Vec<Vec<Said>> {
    let of = |(group, answers): (&Group, &Vec<String>)| answers.iter().map(|a| said(a, &group.answers)).collect();
    groups.iter().zip(answers).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(words: &str) -> Said {
        said(words, &[])
    }

    #[test]
    fn answers_are_compared_by_their_words() {
        assert_eq!(plain(" The Nile.\nQuestion: what").words, "nile");
        assert_eq!(plain("\"Paris\" ").words, "paris");
        assert_eq!(plain("...").words, "");
        assert_eq!(plain("* South-America! Yes.").words, "south america");
        let right = ["small".to_owned(), "Little".to_owned()];
        assert_eq!(said("The opposite is little.", &right), Said { words: "small".into(), right: Some(true) });
        assert_eq!(said("A smaller one", &right), Said { words: "smaller one".into(), right: Some(false) });
        assert_eq!(said("Big. Small.", &right).right, Some(false), "what comes later is no answer");
    }

    #[test]
    fn figures_are_what_they_say() {
        let group = |words: &[&str]| words.iter().map(|w| plain(w)).collect::<Vec<_>>();
        let all = [group(&["a1", "a1", "b"]), group(&["b", "b"]), group(&["", ""])];
        let found = figures(&all);
        assert_eq!((found.groups, found.answers, found.accuracy), (3, 7, None));
        assert!((found.agreement - (1.0 / 3.0 + 1.0 + 0.0) / 3.0).abs() < 1e-12, "{found:?}");
        // Of 3·2 + 3·2 + 2·2 pairs across groups two agree: b with either b.
        assert!((found.across - 2.0 / 16.0).abs() < 1e-12, "{found:?}");
        assert_eq!(partners(&all[0]), [[1, 1], [1, 1], [0, 2]]);
        assert_eq!(partners(&all[2]), [[0, 1], [0, 1]], "silence agrees with nothing");
        let right = ["a1".to_owned()];
        let known = [vec![said("a1", &right), said("b", &right)], group(&["a1"])];
        assert_eq!(figures(&known).accuracy, Some(0.5));
        assert_eq!(figures(&[]), Figures::default());
    }

    #[test]
    fn a_model_that_always_says_the_same_agrees_across_groups_too() {
        let all = vec![vec![plain("x"); 4]; 5];
        assert_eq!((figures(&all).agreement, figures(&all).across), (1.0, 1.0));
    }
}
