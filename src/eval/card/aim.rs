//! What a plan is meant for, and how much of that its texts do.
//!
//! ```text
//! asked(y) = mean over the tokens of y of  log p(y | asked) − log p(y | unsteered)
//! effect   = (asked(steered) − asked(unsteered)) / (asked(asked) − asked(unsteered))      of an instruction
//! effect   = log (words per 100 tokens, steered) − log (the same, unsteered)              of words, half a word added
//! ```
//!
//! The first is how [features are learned](crate::choose::learn): the model itself says how much a text looks like one that
//! was asked for. A text that is broken adds nothing above the line. A plan that does *less* of something is tried where the
//! model is asked for it: prompts change their roles, and 1 is a text that nobody asked for.

use super::report::Measure;
use super::subject::Subject;
use super::texts::Text;
use crate::eval::bootstrap::interval;
use crate::eval::concepts::{Suite, hits};
use crate::explain::query_words;
use crate::plan::{Op, Rule};

/// Nats a token by which asking must change texts: less is noise.
const LEAST_GAP: f64 = 0.02;
/// What an interval holds.
const SHARE: f64 = 0.9;
/// Instructions of one plan that are asked for, at most: each judges every text.
const MOST_AIMS: usize = 4;
/// Words of each explanation, where these say what a plan is for.
const EXPLAINED: usize = 3;

/// What a plan is for.
#[derive(Clone, Debug, Default)]
pub(super) struct Aims {
    pub(super) measure: Measure,
    /// Instructions, or one list of words as text.
    pub(super) names: Vec<String>,
    /// What the model is told, for all of them.
    pub(super) told: Option<String>,
    /// The plan turns against them.
    pub(super) against: bool,
    /// Words that score.
    pub(super) words: Vec<String>,
    /// Concepts of the suite that the plan is meant for.
    pub(super) own: Vec<usize>,
}

impl Aims {
    /// What `subject` is for: by the words that are given, by the instructions that it learned, or by its explanations.
    pub(super) fn of(subject: &Subject, given: (&[String], &[String], Option<&str>), suite: &Suite) -> Self {
        let (words, held_out, told) = given;
        let rules = &subject.plan.rules;
        let mut learned: Vec<String> =
            rules.iter().filter_map(|rule| Some(subject.learned(rule)?.instruction.clone())).collect();
        learned.dedup();
        learned.truncate(MOST_AIMS);
        let mut all = if !words.is_empty() {
            Self::by_words(words, held_out, told)
        } else if let Some(told) = told {
            Self {
                measure: Measure::Asked,
                names: vec![told.to_owned()],
                told: Some(told.to_owned()),
                ..Self::default()
            }
        } else if !learned.is_empty() {
            Self { measure: Measure::Asked, told: Some(learned.join(" ")), names: learned, ..Self::default() }
        } else {
            match explained(subject) {
                words if words.is_empty() => Self::default(),
                words => Self::by_words(&words, held_out, None),
            }
        };
        all.against = all.told.is_some() && !rules.is_empty() && rules.iter().all(suppresses);
        all.own = own(&[all.names.join(" "), words.join(" ")].join(" "), suite);
        if all.measure == Measure::Words && !all.own.is_empty() {
            // Words of the concept that chose nothing.
            all.measure = Measure::HeldOut;
            all.words = all.own.iter().flat_map(|&i| suite.concepts[i].held_out.clone()).collect();
        }
        all
    }

    fn by_words(words: &[String], held_out: &[String], told: Option<&str>) -> Self {
        let spoken = words.join(" ");
        Self {
            measure: if held_out.is_empty() { Measure::Words } else { Measure::HeldOut },
            told: Some(told.map_or_else(|| format!("Talk about {spoken} in your answer."), str::to_owned)),
            names: vec![spoken],
            against: false,
            words: if held_out.is_empty() { query_words(&[words.join(" ").as_str()]) } else { held_out.to_vec() },
            own: Vec::new(),
        }
    }

    /// How many of them the asked model judges.
    pub(super) fn n_asked(&self) -> usize {
        if self.measure == Measure::Asked { self.names.len() } else { 0 }
    }

    /// Whether texts can be told by words, or by what asking did to `asked`.
    pub(super) fn is_measured(&self, unsteered: &[&Text], asked: Option<&[&Text]>) -> bool {
        match self.measure {
            Measure::None => false,
            Measure::Words | Measure::HeldOut => true,
            Measure::Asked => asked.is_some_and(|asked| {
                (0..self.names.len()).all(|aim| moved(asked, aim) - moved(unsteered, aim) >= LEAST_GAP)
            }),
        }
    }

    /// The effect on each aim.
    pub(super) fn each(&self, texts: &[&Text], unsteered: &[&Text], asked: Option<&[&Text]>) -> Vec<f64> {
        match (self.measure, asked) {
            (Measure::Words | Measure::HeldOut, _) => {
                let sign = if self.against { -1.0 } else { 1.0 };
                vec![sign * log_gain(texts, unsteered, &self.words)]
            }
            (Measure::Asked, Some(asked)) => {
                let share = |aim| {
                    let none = moved(unsteered, aim);
                    (moved(texts, aim) - none) / (moved(asked, aim) - none).max(f64::MIN_POSITIVE)
                };
                (0..self.names.len()).map(share).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The mean over aims; none where it cannot be told. Texts are of the same prompts in the same order.
    pub(super) fn effect_alone(&self, (texts, unsteered, asked): Sets<'_>) -> Option<f64> {
        let asked = asked.map(refs);
        self.figure((&refs(texts), &refs(unsteered), asked.as_deref()))
    }

    fn figure(&self, (texts, unsteered, asked): (&[&Text], &[&Text], Option<&[&Text]>)) -> Option<f64> {
        if self.is_measured(unsteered, asked) { mean(&self.each(texts, unsteered, asked)) } else { None }
    }

    /// The same with what 90 % of the bootstrap over prompts lies between.
    pub(super) fn effect(&self, sets: Sets<'_>, seed: u64) -> (Option<f64>, Option<[f64; 2]>) {
        let (texts, unsteered, asked) = sets;
        fn some<'t>(texts: &'t [Text], places: &[usize]) -> Vec<&'t Text> {
            places.iter().filter_map(|&i| texts.get(i)).collect()
        }
        let value = self.effect_alone(sets);
        let n = texts.len().min(unsteered.len());
        let spread = value.and_then(|_| {
            interval(n, SHARE, seed, &mut |drawn| {
                let asked = asked.map(|asked| some(asked, drawn));
                self.figure((&some(texts, drawn), &some(unsteered, drawn), asked.as_deref())).unwrap_or(f64::NAN)
            })
        });
        (value, spread)
    }
}

/// Texts with the plan, without it, and asked.
pub(super) type Sets<'t> = (&'t [Text], &'t [Text], Option<&'t [Text]>);

pub(super) fn refs(texts: &[Text]) -> Vec<&Text> {
    texts.iter().collect()
}

pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// asked(y) over texts, in nats a token.
fn moved(texts: &[&Text], aim: usize) -> f64 {
    let whole = texts.iter().filter(|text| !text.looped);
    whole.map(|text| text.nll - text.asked.get(aim).copied().unwrap_or(text.nll)).sum::<f64>() / n_tokens(texts)
}

/// `wanted` words per 100 tokens.
pub(super) fn per_100(texts: &[&Text], wanted: &[String]) -> f64 {
    let said: u64 = texts.iter().map(|text| hits(&text.text, wanted)).sum();
    100.0 * said as f64 / n_tokens(texts)
}

fn n_tokens(texts: &[&Text]) -> f64 {
    texts.iter().map(|text| text.tokens.len()).sum::<usize>().max(1) as f64
}

/// Natural logarithm of the gain. Either side gets half a word for as many tokens as the unsteered texts have, so that silent
/// texts have a gain of 1, however long they are.
pub(super) fn log_gain(texts: &[&Text], unsteered: &[&Text], wanted: &[String]) -> f64 {
    let half = 50.0 / n_tokens(unsteered);
    ((per_100(texts, wanted) + half) / (per_100(unsteered, wanted) + half)).ln()
}

/// The first words of the explanations of a plan's features.
fn explained(subject: &Subject) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for rule in &subject.plan.rules {
        let Some(explanations) = subject.assets(rule).and_then(|assets| assets.explanations.as_ref()) else { continue };
        for explanation in rule.features.iter().filter_map(|feature| explanations.get(feature.id)) {
            for (word, _) in explanation.words.iter().take(EXPLAINED) {
                if !all.contains(word) {
                    all.push(word.clone());
                }
            }
        }
    }
    all
}

/// The concepts whose name, or one of whose words, `text` holds.
fn own(text: &str, suite: &Suite) -> Vec<usize> {
    let named = |concept: &crate::eval::concepts::Concept| {
        let words: Vec<String> = concept.words.iter().chain([&concept.name]).cloned().collect();
        hits(text, &words) > 0
    };
    (0..suite.concepts.len()).filter(|&i| named(&suite.concepts[i])).collect()
}

/// Why the effect is not measured, for people.
pub(super) fn unmeasured(aims: &Aims) -> String {
    match aims.measure {
        Measure::None => {
            "nothing says what the plan is for: its effect is not measured; give --words or --instruction".into()
        }
        _ => format!(
            "asking for {:?} changes what the model writes by less than {LEAST_GAP} nats a token: the effect is not measured",
            aims.names.join(" ")
        ),
    }
}

/// Whether a rule does less of something: then the texts that are steered are those that were asked for it.
fn suppresses(rule: &Rule) -> bool {
    let value = rule.strength.map_or(0.0, |strength| strength.value);
    match rule.op {
        Op::Ablate | Op::MaxClamp => true,
        Op::Scale => value < 1.0,
        _ => value < 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of different words, so that none of them is a loop.
    fn text(words: &str, nll: f64, asked: f64) -> Text {
        let text = Text { text: words.into(), tokens: vec![1; 20], nll, asked: vec![asked], ..Text::default() };
        Text { looped: text.broken(None).is_some(), ..text }
    }

    #[test]
    fn effects_of_instructions_lie_between_unsteered_and_asked() {
        let aims = Aims { measure: Measure::Asked, names: vec!["Rhyme.".into()], ..Aims::default() };
        let unsteered = vec![text("one two three", 20.0, 30.0); 6];
        let asked = vec![text("four five six", 40.0, 20.0); 6];
        let of = |texts: &[Text]| aims.effect((texts, &unsteered, Some(&asked)), 0).0.unwrap();
        assert!(of(&unsteered).abs() < 1e-12 && (of(&asked) - 1.0).abs() < 1e-12);
        let half = vec![text("seven eight", 30.0, 25.0); 6];
        assert!((of(&half) - 0.5).abs() < 1e-12);
        let looped = vec![text(&"and so on ".repeat(12), 40.0, 20.0); 6];
        assert!(of(&looped) < 0.5, "a loop is no success");
        let deaf = vec![text("one two three", 20.0, 30.0); 6];
        assert_eq!(aims.effect((&half, &unsteered, Some(&deaf)), 0).0, None, "asking does nothing");
        assert_eq!(aims.effect((&half, &unsteered, None), 0).0, None);
    }

    #[test]
    fn effects_of_words_are_logarithms_of_gains() {
        let aims = Aims { measure: Measure::Words, words: vec!["tank".into()], ..Aims::default() };
        let unsteered = vec![text("a man", 20.0, 0.0); 6];
        let steered = vec![text("a tank, tanks", 20.0, 0.0); 6];
        let (value, interval) = aims.effect((&steered, &unsteered, None), 0);
        assert!((value.unwrap() - 25f64.ln()).abs() < 1e-9, "12 words and a half over a half");
        assert_eq!(interval.unwrap()[0], interval.unwrap()[1], "all prompts are alike");
        let short = vec![Text { tokens: vec![1; 3], ..text("a man", 3.0, 0.0) }; 6];
        assert_eq!(
            aims.effect((&short, &unsteered, None), 0).0,
            Some(0.0),
            "short texts that say nothing gain nothing"
        );
        assert_eq!(Aims::default().effect((&steered, &unsteered, None), 0), (None, None));
    }

    #[test]
    fn a_plan_belongs_to_the_concepts_that_its_words_name() {
        let suite = Suite::built_in().unwrap();
        let names = |text| own(text, &suite).into_iter().map(|i| suite.concepts[i].name.clone()).collect::<Vec<_>>();
        assert_eq!(names("Talk about the sea."), ["sea"]);
        assert_eq!(names("doctor disease patients"), ["medicine"]);
        assert!(names("Answer in French.").is_empty());
    }
}
