//! What a plan is, in words: each word has its number and its threshold, and the first that holds is the verdict.

use serde::{Deserialize, Serialize};

use super::report::{Measure, Report};

/// KL in nats a token below which a plan does nothing: a mean, and a 95th percentile. Quantizing anew moves a model more.
const NOTHING: [f64; 2] = [0.005, 0.02];
/// Share of texts that may loop or be gibberish beyond the unsteered share: two of sixteen.
const BROKEN: f64 = 0.125;
/// How much less likely than unsteered text a text may be, if asked texts are no less likely.
const PERPLEXITY: f64 = 2.0;
/// A perplexity may pass that of asked texts by this factor.
const BESIDE_ASKED: f64 = 1.3;
/// Share of what asking does below which a plan is weak.
const SHARE: f64 = 0.25;
/// Gain of words below which it is weak.
const GAIN: f64 = 1.5;
/// Standard deviations above random directions below which it is weak.
const SIGMA: f64 = 2.0;
/// Share of its rise that its own concept must have at least.
const SELECTIVITY: f64 = 0.5;
/// |I| of rules together above which they are entangled.
const INTERACTION: f64 = 0.5;
/// Largest rise of another concept over its own.
const LEAK: f64 = 0.5;
/// Share of questions whose answers may get worse, less those that get better: six of sixty.
const WORSENED: f64 = 0.1;

/// What a plan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The distributions of the next word stay as they are.
    #[default]
    DoesNothing,
    /// Texts loop, are gibberish, or are such as the model never writes.
    BreaksFluency,
    /// It changes text, and does little of what it is meant for.
    Weak,
    /// Several other things rise with its own, or its rules do not add up.
    Entangled,
    /// One other thing rises with its own, or answers to questions get worse.
    Leaky,
    /// It does what it is meant for, and nothing else that was measured.
    Selective,
    /// Text changes, and nothing says what for.
    Unknown,
}

impl Word {
    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DoesNothing => "does nothing",
            Self::BreaksFluency => "breaks fluency",
            Self::Weak => "weak",
            Self::Entangled => "entangled",
            Self::Leaky => "leaky",
            Self::Selective => "selective",
            Self::Unknown => "of unknown purpose",
        }
    }
}

/// A number and its threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The word that it stands for.
    pub word: Word,
    /// What was measured.
    pub what: String,
    /// The number; none if it was not measured.
    pub value: Option<f64>,
    /// Its bound.
    pub threshold: f64,
    /// Whether numbers above the bound are what the word says; else those below.
    pub above: bool,
}

impl Check {
    /// Whether the word holds.
    pub fn holds(&self) -> bool {
        self.value.is_some_and(|value| if self.above { value > self.threshold } else { value < self.threshold })
    }
}

/// The word, and every number behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The first word that holds.
    pub word: Word,
    /// Others that hold too.
    pub also: Vec<Word>,
    /// All numbers, in the order in which they decide.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Of a card whose figures stand.
    pub(super) fn of(card: &Report) -> Self {
        let checks = checks(card);
        let does_nothing = checks.iter().filter(|check| check.word == Word::DoesNothing).all(Check::holds);
        let mut held: Vec<Word> = if does_nothing { vec![Word::DoesNothing] } else { Vec::new() };
        for check in checks.iter().filter(|check| check.word != Word::DoesNothing && check.holds()) {
            if !held.contains(&check.word) && !does_nothing {
                held.push(check.word);
            }
        }
        let known = card.effect.value.is_some();
        let word = held.first().copied().unwrap_or(if known { Word::Selective } else { Word::Unknown });
        Self { word, also: held.into_iter().skip(1).collect(), checks }
    }

    /// The verdict in a sentence, with the numbers that decided.
    pub fn sentence(&self) -> String {
        let deciding: Vec<String> =
            self.checks.iter().filter(|check| check.word == self.word && check.holds()).map(Check::sentence).collect();
        match (self.word, deciding.is_empty()) {
            (Word::Selective, _) => {
                "It does what it is meant for, its texts stay whole, no other concept rises with it, and answers stay as right."
                    .into()
            }
            (Word::Unknown, _) => "It changes what is written; nothing says what it is meant for.".into(),
            (_, true) => String::new(),
            (_, false) => {
                let text = deciding.join("; ");
                let mut chars = text.chars();
                let first: String = chars.next().map(char::to_uppercase).into_iter().flatten().collect();
                format!("{first}{}.", chars.as_str())
            }
        }
    }
}

impl Check {
    /// `mean KL 0.001 nats a token, below 0.005`.
    pub fn sentence(&self) -> String {
        let side = if self.above { "above" } else { "below" };
        match self.value {
            Some(value) => format!("{} {}, {side} {}", self.what, short(value), short(self.threshold)),
            None => format!("{}: not measured", self.what),
        }
    }
}

/// A number as people read it.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "–".into(),
        0.0 => "0".into(),
        v if v < 1.0 => trimmed(format!("{value:.3}")),
        v if v < 10.0 => trimmed(format!("{value:.2}")),
        v if v < 1000.0 => trimmed(format!("{value:.1}")),
        _ => format!("{value:.0}"),
    }
}

/// Without zeros at the end.
fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn checks(card: &Report) -> Vec<Check> {
    let check = |word, what: &str, value: Option<f64>, threshold, above| {
        let value = value.filter(|value| value.is_finite());
        Check { word, what: what.to_owned(), value, threshold, above }
    };
    let whole = &card.fluency;
    let ratio = whole.with.perplexity / whole.without.perplexity;
    let asked = whole.asked.map_or(0.0, |asked| asked.perplexity / whole.without.perplexity);
    let effect = match card.effect.measure {
        Measure::Asked => check(Word::Weak, "share of what asking does", card.effect.value, SHARE, false),
        _ => check(Word::Weak, "gain of the words", card.effect.value.map(f64::exp), GAIN, false),
    };
    let choices = &card.choices;
    let worsened = choices.worsened as f64 - choices.improved as f64;
    let worsened = (choices.questions > 0).then(|| worsened / choices.questions as f64);
    vec![
        check(Word::DoesNothing, "mean KL in nats a token", Some(card.divergence.mean), NOTHING[0], false),
        check(Word::DoesNothing, "95th percentile of KL", Some(card.divergence.p95), NOTHING[1], false),
        check(
            Word::BreaksFluency,
            "share of texts that loop or are gibberish, beyond the unsteered share",
            Some((whole.with.broken() - whole.without.broken()).max(0.0)),
            BROKEN,
            true,
        ),
        check(
            Word::BreaksFluency,
            "perplexity over unsteered",
            Some(ratio),
            PERPLEXITY.max(BESIDE_ASKED * asked),
            true,
        ),
        effect,
        check(Word::Weak, "standard deviations above random directions", card.effect.sigma, SIGMA, false),
        check(Word::Entangled, "selectivity", card.leak.selectivity, SELECTIVITY, false),
        check(
            Word::Entangled,
            "interaction of the rules |I|",
            card.additivity.as_ref().and_then(|found| found.mean),
            INTERACTION,
            true,
        ),
        check(Word::Leaky, "largest rise of another concept over its own", card.leak.leak, LEAK, true),
        check(Word::Leaky, "share of questions answered worse, less those answered better", worsened, WORSENED, true),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::report::{Additivity, Effect, Fluencies, Leak, Whole};
    use super::*;
    use crate::eval::choices::SideEffects;
    use crate::eval::divergence::Divergence;

    /// A plan that does what it should.
    fn good() -> Report {
        let whole = Whole { texts: 16, tokens: 700, perplexity: 2.0, distinct: 0.9, loops: 0, gibberish: 0 };
        Report {
            effect: Effect { measure: Measure::Asked, value: Some(0.9), sigma: Some(8.0), ..Effect::default() },
            divergence: Divergence { n_tokens: 700, mean: 0.6, p95: 2.0, entropy_base: 1.0, entropy: 1.0 },
            fluency: Fluencies {
                without: whole,
                with: Whole { perplexity: 2.6, ..whole },
                asked: Some(Whole { perplexity: 2.6, ..whole }),
            },
            leak: Leak { selectivity: Some(0.9), leak: Some(0.1), ..Leak::default() },
            ..Report::default()
        }
    }

    fn verdict(change: impl FnOnce(&mut Report)) -> Verdict {
        let mut card = good();
        change(&mut card);
        Verdict::of(&card)
    }

    #[test]
    fn each_word_has_its_number() {
        assert_eq!(verdict(|_| ()).word, Word::Selective);
        let nothing = verdict(|card| card.divergence = Divergence { mean: 0.001, p95: 0.004, ..Divergence::default() });
        assert_eq!((nothing.word, nothing.also.len()), (Word::DoesNothing, 0));
        let spikes = verdict(|card| card.divergence = Divergence { mean: 0.001, p95: 0.4, ..Divergence::default() });
        assert_ne!(spikes.word, Word::DoesNothing, "a few tokens move much");
        assert_eq!(verdict(|card| card.fluency.with.loops = 3).word, Word::BreaksFluency);
        assert_eq!(verdict(|card| card.fluency.with.loops = 2).word, Word::Selective, "two of sixteen may be chance");
        assert_eq!(verdict(|card| card.fluency.with.perplexity = 9.0).word, Word::BreaksFluency);
        assert_eq!(verdict(|card| card.effect.value = Some(0.1)).word, Word::Weak);
        assert_eq!(verdict(|card| card.effect.sigma = Some(1.0)).word, Word::Weak);
        assert_eq!(verdict(|card| card.leak.selectivity = Some(0.3)).word, Word::Entangled);
        assert_eq!(verdict(|card| card.leak.leak = Some(0.8)).word, Word::Leaky);
        let harmed = |worsened, improved| SideEffects { questions: 60, worsened, improved, ..SideEffects::default() };
        assert_eq!(verdict(|card| card.choices = harmed(8, 0)).word, Word::Leaky);
        assert_eq!(verdict(|card| card.choices = harmed(8, 5)).word, Word::Selective, "answers that only change");
        let rules = Additivity { mean: Some(0.7), ..Additivity::default() };
        assert_eq!(verdict(|card| card.additivity = Some(rules)).word, Word::Entangled);
    }

    #[test]
    fn the_first_word_that_holds_decides_and_the_others_are_told() {
        let both = verdict(|card| {
            card.fluency.with.gibberish = 9;
            card.leak.leak = Some(0.9);
        });
        assert_eq!((both.word, both.also), (Word::BreaksFluency, vec![Word::Leaky]));
        let text = verdict(|card| card.effect.value = Some(0.1)).sentence();
        assert_eq!(text, "Share of what asking does 0.1, below 0.25.");
    }

    #[test]
    fn texts_that_asking_makes_as_unlikely_are_whole() {
        let verdict = verdict(|card| {
            card.fluency.with.perplexity = 7.0;
            card.fluency.asked.as_mut().unwrap().perplexity = 6.0;
        });
        assert_eq!(verdict.word, Word::Selective);
    }

    #[test]
    fn what_was_not_measured_decides_nothing() {
        let unknown = verdict(|card| {
            card.effect = Effect::default();
            card.leak = Leak::default();
        });
        assert_eq!(unknown.word, Word::Unknown);
        assert!(unknown.checks.iter().any(|check| check.sentence().ends_with("not measured")));
        assert_eq!(verdict(|card| card.effect.sigma = Some(f64::NAN)).word, Word::Selective);
        assert_eq!([0.0, 0.0042, 0.125, 2.0, 31.26, 4200.0].map(short), ["0", "0.004", "0.125", "2", "31.3", "4200"]);
        assert_eq!(short(f64::NAN), "–");
    }
}
