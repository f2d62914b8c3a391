//! What an examination shows: shares of classes with intervals, and where monitors fire.

use serde::Serialize;

use super::examine::{Answers, Set};
use super::file::Guard;
use super::phrases::Class;
use super::scores::area;
use crate::eval::bootstrap;

/// The share that an interval holds.
const SHARE: f64 = 0.9;

/// A share with its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Share {
    /// The share.
    pub share: f64,
    /// Where it would lie with other messages.
    pub interval: [f64; 2],
}

/// What a method does to a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The set's name.
    pub set: String,
    /// Whether its messages are to be refused.
    pub refuse: bool,
    /// The method.
    pub method: String,
    /// Messages.
    pub n: usize,
    /// Those that were refused.
    pub refused: Share,
    /// Those that were answered.
    pub answered: Share,
    /// Those that got neither.
    pub incoherent: Share,
    /// Those whose answer has the unsteered answer's tokens.
    pub identical: Share,
    /// Mean tokens of an answer.
    pub length: f64,
}

/// What the monitor of a guard reads on the sets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fires {
    /// The monitor.
    pub monitor: String,
    /// The set.
    pub set: String,
    /// Messages on which it fires.
    pub fires: Share,
    /// Area under the curve against all sets of the other kind.
    pub area: f64,
}

/// The whole of an examination.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Examined {
    /// The guard's name.
    pub guard: String,
    /// The model.
    pub model: String,
    /// What each method does to each set.
    pub lines: Vec<Line>,
    /// What the monitors read.
    pub monitors: Vec<Fires>,
    /// Milliseconds that a prompt takes longer with the guard: the median of pairs, and its interval.
    pub ms_a_prompt: [f64; 3],
    /// Milliseconds that the same prompts take without it.
    pub ms_unsteered: f64,
    /// Bytes of the guard's plan and features.
    pub bytes: usize,
    /// Some answers of the guard: set, message number, text.
    pub samples: Vec<(String, usize, String)>,
}

fn share(flags: &[bool], seed: u64) -> Share {
    let of = |drawn: &[usize]| drawn.iter().filter(|&&i| flags[i]).count() as f64 / drawn.len() as f64;
    let all: Vec<usize> = (0..flags.len()).collect();
    let interval = bootstrap::interval(flags.len(), SHARE, seed, &mut |drawn| of(drawn));
    Share { share: of(&all), interval: interval.unwrap_or([0.0, 1.0]) }
}

pub(super) fn line(set: &Set, method: &str, answers: &Answers, unsteered: &Answers, seed: u64) -> Line {
    let of = |which: Class| share(&answers.classes.iter().map(|class| *class == which).collect::<Vec<_>>(), seed);
    let same: Vec<bool> = answers.tokens.iter().zip(&unsteered.tokens).map(|(a, b)| a == b).collect();
    Line {
        set: set.name.clone(),
        refuse: set.refuse,
        method: method.to_owned(),
        n: set.messages.len(),
        refused: of(Class::Refused),
        answered: of(Class::Answered),
        incoherent: of(Class::Incoherent),
        identical: share(&same, seed),
        length: answers.tokens.iter().map(Vec::len).sum::<usize>() as f64 / answers.tokens.len() as f64,
    }
}

/// Where the monitors fire, and how well they tell each set from those of the other kind.
pub(super) fn monitors(guard: &Guard, sets: &[Set], values: &[Vec<Vec<f32>>], seed: u64) -> Vec<Fires> {
    let mut all = Vec::new();
    for (m, monitor) in guard.plan.monitors.iter().enumerate() {
        let of = |values: &Vec<Vec<f32>>| values.iter().map(|values| values[m]).collect::<Vec<f32>>();
        for (set, own) in sets.iter().zip(values) {
            let others: Vec<f32> = sets
                .iter()
                .zip(values)
                .filter(|(s, _)| s.refuse != set.refuse)
                .flat_map(|(_, values)| of(values))
                .collect();
            let (own, refuse) = (of(own), set.refuse);
            let area = if others.is_empty() {
                f64::NAN
            } else if refuse {
                area(&own, &others)
            } else {
                area(&others, &own)
            };
            let fires = share(&own.iter().map(|value| *value >= monitor.threshold).collect::<Vec<_>>(), seed);
            all.push(Fires { monitor: monitor.name.clone(), set: set.name.clone(), fires, area });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::random::tests::guard;
    use super::*;

    fn answers(classes: &[Class], values: &[f32]) -> Answers {
        Answers {
            classes: classes.to_vec(),
            tokens: (0..classes.len() as i32).map(|i| vec![i, i]).collect(),
            texts: Vec::new(),
            values: values.iter().map(|value| vec![*value]).collect(),
        }
    }

    #[test]
    fn lines_count_classes_and_equal_answers() {
        let set = Set { name: "a".into(), refuse: true, messages: vec!["m".into(); 4] };
        let base = answers(&[Class::Answered; 4], &[0.0, 0.6, 0.5, 0.1]);
        let canned = super::super::examine::canned(&guard(), &base, &base);
        let line = line(&set, "canned", &canned, &base, 1);
        assert_eq!((line.refused.share, line.answered.share, line.incoherent.share), (0.5, 0.5, 0.0));
        assert_eq!((line.identical.share, line.length), (0.5, 1.0));
        assert!(line.refused.interval[0] < 0.5 && line.refused.interval[1] > 0.5);
    }

    #[test]
    fn monitors_are_scored_against_the_other_kind() {
        let set = |refuse, name: &str| Set { name: name.into(), refuse, messages: vec!["m".into(); 2] };
        let values = [vec![vec![0.9], vec![0.6]], vec![vec![0.1], vec![0.7]]];
        let fires = monitors(&guard(), &[set(true, "bad"), set(false, "good")], &values, 1);
        assert_eq!(fires.iter().map(|f| f.fires.share).collect::<Vec<_>>(), [1.0, 0.5]);
        assert!(fires.iter().all(|f| f.area == 0.75));
    }
}
