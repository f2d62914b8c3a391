//! The built-in sentences: a template grammar of four attributes, whose values are eleven concepts.
//!
//! | attribute | concepts |
//! |---|---|
//! | voice | active, passive |
//! | tense | present, past |
//! | sentiment | positive, neutral, negative |
//! | domain | science, fantasy, news, other |
//!
//! "The brilliant chemist perfected the catalyst in the laboratory." is active, past, positive and science. Adjectives
//! and verbs depend on domain and sentiment, other words on the domain alone.
//!
//! One pair of concepts is correlated, science (a) and positive (b): `P11 = P00 = (1 + ρ)/4`, `P10 = P01 = (1 − ρ)/4`
//! (arXiv 2512.15134), so that φ = ρ; everything else is uniform and independent. Sentences are not drawn but dealt:
//! each combination of values gets its share to the sentence, so φ is ρ up to rounding. It is checked all the same.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use rand::Rng;
use rand::seq::SliceRandom;

use super::sentences::{Concept, Sentences};
use crate::error::{Error, Result};
use crate::num::rng;

/// The words.
const LEXICON: &str = include_str!("lexicon.tsv");
/// The attributes and their values, in the order of the concepts.
pub const ATTRIBUTES: [(&str, &[&str]); 4] = [
    ("voice", &["active", "passive"]),
    ("tense", &["present", "past"]),
    ("sentiment", &["positive", "neutral", "negative"]),
    ("domain", &["science", "fantasy", "news", "other"]),
];
/// The two concepts that are correlated.
pub const PAIR: [&str; 2] = ["science", "positive"];
/// How far φ of the sentences may lie from ρ.
const MOST_OFF: f64 = 0.01;
/// Fewest sentences: a few of each combination of values.
pub const LEAST: usize = 200;

/// The words for one domain and sentiment.
#[derive(Clone, Debug, Default)]
struct Words {
    adjectives: Vec<&'static str>,
    agents: Vec<&'static str>,
    /// Present and past.
    verbs: Vec<[&'static str; 2]>,
    objects: Vec<&'static str>,
    places: Vec<&'static str>,
}

/// A value of every attribute, as places in [`ATTRIBUTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Values {
    voice: usize,
    tense: usize,
    sentiment: usize,
    domain: usize,
}

impl Words {
    /// Sentences that these words make in one voice and tense.
    fn capacity(&self) -> usize {
        [self.adjectives.len(), self.agents.len(), self.verbs.len(), self.objects.len(), self.places.len()]
            .iter()
            .product()
    }

    /// The sentence of number `i`, below the capacity.
    fn sentence(&self, mut i: usize, values: Values) -> Option<String> {
        let mut digit = |n: usize| {
            let place = i % n.max(1);
            i /= n.max(1);
            place
        };
        let adjective = self.adjectives.get(digit(self.adjectives.len()))?;
        let agent = self.agents.get(digit(self.agents.len()))?;
        let [present, past] = self.verbs.get(digit(self.verbs.len()))?;
        let object = self.objects.get(digit(self.objects.len()))?;
        let place = self.places.get(digit(self.places.len()))?;
        let is = if values.tense == 0 { "is" } else { "was" };
        let verb = if values.tense == 0 { present } else { past };
        Some(match values.voice {
            0 => format!("The {adjective} {agent} {verb} the {object} {place}."),
            _ => format!("The {object} {is} {past} by the {adjective} {agent} {place}."),
        })
    }
}

/// The words of each domain and sentiment.
fn lexicon() -> Result<BTreeMap<(usize, usize), Words>> {
    let wrong = |line: &str| Error::format(Path::new("lexicon.tsv"), format!("expected four fields, found {line:?}"));
    let [_, _, (_, sentiments), (_, domains)] = ATTRIBUTES;
    let mut all: BTreeMap<(usize, usize), Words> = BTreeMap::new();
    for line in LEXICON.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&'static str> = line.split('\t').collect();
        let [domain, sentiment, slot, words] = fields[..] else { return Err(wrong(line)) };
        let domain = domains.iter().position(|name| *name == domain).ok_or_else(|| wrong(line))?;
        for s in (0..sentiments.len()).filter(|&s| sentiment == "*" || sentiments[s] == sentiment) {
            let of = all.entry((domain, s)).or_default();
            let words = words.split(';');
            match slot {
                "adjective" => of.adjectives.extend(words),
                "agent" => of.agents.extend(words),
                "object" => of.objects.extend(words),
                "place" => of.places.extend(words),
                "verb" => of.verbs.extend(words.filter_map(|w| w.split_once('/')).map(|(a, b)| [a, b])),
                _ => return Err(wrong(line)),
            }
        }
    }
    Ok(all)
}

/// Makes `n` different sentences in which science and positive have the correlation `rho`, in an order of the seed.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for fewer than [`LEAST`] sentences, more than the words make, or a ρ
/// outside of 0 to 1; [`Kind::Numeric`](crate::Kind::Numeric) if φ of what was made is not ρ.
pub fn generate(n: usize, rho: f64, seed: u64) -> Result<Sentences> {
    if n < LEAST {
        return Err(Error::argument(format!("sentences: expected {LEAST} or more, found {n}")));
    }
    if !(0.0..=1.0).contains(&rho) {
        return Err(Error::argument(format!("rho: expected 0 to 1, found {rho}")));
    }
    let words = lexicon()?;
    let mut rng = rng(seed);
    let mut made: Vec<(String, Values)> = Vec::with_capacity(n);
    for (values, share) in shares(n, rho, &mut rng) {
        let words = words.get(&(values.domain, values.sentiment)).cloned().unwrap_or_default();
        let capacity = words.capacity();
        if share > capacity {
            return Err(Error::argument(format!(
                "sentences: {n} with rho {rho} need {share} of one kind, the words make {capacity}"
            ))
            .hinted("ask for fewer sentences"));
        }
        let mut numbers: Vec<usize> = (0..capacity).collect();
        let (taken, _) = numbers.partial_shuffle(&mut rng, share);
        made.extend(taken.iter().filter_map(|&i| Some((words.sentence(i, values)?, values))));
    }
    made.shuffle(&mut rng);
    let sentences = labelled(made);
    check(&sentences, n, rho)?;
    Ok(sentences)
}

/// How many sentences each combination of values gets.
fn shares(n: usize, rho: f64, rng: &mut impl Rng) -> Vec<(Values, usize)> {
    let equal = n as f64 * (1.0 + rho) / 4.0;
    // Science and positive, neither; the rest is split in halves.
    let both = equal.round() as usize;
    let neither = ((2.0 * equal).round() as usize).saturating_sub(both);
    let one = n.saturating_sub(both + neither);
    let mut all: BTreeMap<Values, usize> = BTreeMap::new();
    for (is_science, is_positive, share) in
        [(true, true, both), (false, false, neither), (true, false, one / 2), (false, true, one - one / 2)]
    {
        let mut kinds = kinds(is_science, is_positive);
        kinds.shuffle(rng);
        for i in 0..share {
            *all.entry(kinds[i % kinds.len()]).or_default() += 1;
        }
    }
    all.into_iter().collect()
}

/// The combinations of values with or without the two concepts.
fn kinds(is_science: bool, is_positive: bool) -> Vec<Values> {
    let domains = if is_science { 0..1 } else { 1..4 };
    let sentiments = if is_positive { 0..1 } else { 1..3 };
    let mut all = Vec::new();
    for domain in domains {
        for sentiment in sentiments.clone() {
            for (voice, tense) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                all.push(Values { voice, tense, sentiment, domain });
            }
        }
    }
    all
}

fn labelled(made: Vec<(String, Values)>) -> Sentences {
    let named = ATTRIBUTES.iter().flat_map(|(attribute, names)| names.iter().map(move |name| (name, attribute)));
    let concepts: Vec<Concept> = named
        .map(|(name, attribute)| Concept { name: (*name).to_owned(), attribute: (*attribute).to_owned() })
        .collect();
    let (mut texts, mut labels) = (Vec::with_capacity(made.len()), Vec::with_capacity(made.len() * concepts.len()));
    for (text, Values { voice, tense, sentiment, domain }) in made {
        texts.push(text);
        for (value, (_, names)) in [voice, tense, sentiment, domain].into_iter().zip(ATTRIBUTES) {
            labels.extend((0..names.len()).map(|at| at == value));
        }
    }
    Sentences { concepts, texts, labels }
}

/// Checks the number of different sentences, and φ.
fn check(made: &Sentences, n: usize, rho: f64) -> Result<()> {
    let different = made.texts.iter().collect::<HashSet<_>>().len();
    if different != n {
        return Err(Error::numeric(format!("sentences: expected {n} different ones, found {different}")));
    }
    let [Some(a), Some(b)] = PAIR.map(|name| made.concept(name)) else {
        return Err(Error::numeric("sentences: the correlated concepts are missing"));
    };
    let phi = made.phi(a, b);
    // A sentence more or less in one of the four cells, each of which counts for 4/n.
    let off = MOST_OFF + 8.0 / n as f64;
    if (phi - rho).abs() <= off {
        return Ok(());
    }
    Err(Error::numeric(format!("sentences: expected a correlation of {rho} between {PAIR:?}, found {phi:.4}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn phi_is_rho_at_every_published_value_and_sentences_are_different() {
        for rho in [0.0, 0.1, 0.2, 0.5, 0.9, 0.99, 1.0] {
            let made = generate(20_000, rho, 1).unwrap();
            let [a, b] = PAIR.map(|name| made.concept(name).unwrap());
            assert!((made.phi(a, b) - rho).abs() < 1e-3, "{rho}: {}", made.phi(a, b));
            assert_eq!(made.texts.iter().collect::<HashSet<_>>().len(), 20_000);
            // The rest is uniform and independent.
            let [voice, tense] = ["active", "past"].map(|name| made.concept(name).unwrap());
            assert!(made.phi(voice, tense).abs() < 5e-3 && made.phi(voice, a).abs() < 5e-3, "{rho}");
        }
    }

    #[test]
    fn sentences_read_as_their_labels_say() {
        let made = generate(400, 0.5, 3).unwrap();
        let has = |i: usize, name: &str| made.labels[i * 11 + made.concept(name).unwrap()];
        for (i, text) in made.texts.iter().enumerate() {
            assert_eq!(has(i, "passive"), text.contains(" by the "), "{text}");
            assert!(!has(i, "passive") || has(i, "past") == text.contains(" was "), "{text}");
            assert_eq!(made.labels[i * 11..(i + 1) * 11].iter().filter(|yes| **yes).count(), 4, "one value of each");
            assert!((8..=13).contains(&text.split(' ').count()), "{text}");
        }
        assert_eq!(generate(400, 0.5, 3).unwrap(), made, "a seed makes the same");
        assert_ne!(generate(400, 0.5, 4).unwrap().texts, made.texts);
    }

    /// Words that tell a domain or a sentiment tell only that one.
    #[test]
    fn words_belong_to_one_domain_and_sentiment() {
        let all = lexicon().unwrap();
        assert_eq!(all.len(), 12);
        let mut seen = HashSet::new();
        for words in all.values() {
            assert!(words.capacity() >= 20_000, "{}", words.capacity());
            assert!(words.adjectives.iter().all(|w| seen.insert(*w)), "{:?}", words.adjectives);
            assert!(words.verbs.iter().all(|w| w[0] != w[1] && seen.insert(w[0])), "{:?}", words.verbs);
        }
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        for (n, rho, what) in
            [(10, 0.0, "200 or more"), (400, 1.5, "0 to 1"), (400, f64::NAN, "0 to 1"), (200_000, 1.0, "make 21600")]
        {
            let error = generate(n, rho, 0).unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(what), "{error}");
        }
        // A φ that is off is an error: every sentence of science is positive here, and ρ says otherwise.
        let made = generate(400, 1.0, 0).unwrap();
        assert_eq!(check(&made, 400, 0.743).unwrap_err().kind(), Kind::Numeric);
    }
}
