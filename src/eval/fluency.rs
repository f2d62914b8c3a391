//! Is a text whole, or did steering break it?
//!
//! Perplexity alone praises loops: a text that repeats one sentence is the likeliest of all. So three figures stand side by
//! side, and two words say which of them is out of bounds:
//!
//! ```text
//! distinct_2      = different pairs of neighbouring words / all pairs
//! longest_repeat  = the most words in a row that occur twice in the text; the two places may overlap
//! perplexity      = exp(nll / n_tokens), as the unsteered model judges the text
//!
//! loops      : distinct_2 < 0.6, or longest_repeat ≥ 16
//! gibberish  : perplexity > 3 × max(that of an unsteered text, 4), or fewer than a third of the signs are letters or digits
//! ```
//!
//! The bounds are those that people's texts pass: of 4,947 pieces of 40 to 300 words from news, books, talk and chats, 11 count
//! as loops, most of them lists and paragraphs that were pasted twice. The word may be wrong for a refrain; the figures stand
//! beside it.

use std::collections::{HashMap, HashSet};

/// A share of different word pairs below this is a loop.
pub const LEAST_DISTINCT: f64 = 0.6;
/// As many words in a row that occur twice are a loop.
pub const LONGEST_REPEAT: usize = 16;
/// Of fewer words nothing is said.
const LEAST_WORDS: usize = 8;
/// A perplexity above this multiple of an unsteered text's is gibberish.
pub const MOST_PERPLEXITY: f64 = 3.0;
/// The unsteered perplexity counts as this at least: a greedy text has 1.5 to 3, a good steered one up to 8.
const LEAST_PERPLEXITY: f64 = 4.0;
/// Of signs that are not blanks, a smaller share of letters and digits is gibberish; a table of numbers has a half.
const LEAST_LETTERS: f64 = 1.0 / 3.0;
/// Of fewer signs nothing is said.
const LEAST_SIGNS: usize = 24;

/// How a text is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// It goes in circles.
    Loops,
    /// No one would write it: the unsteered model finds it far too unlikely, or it holds hardly a letter.
    Gibberish,
}

impl Broken {
    /// `loops` or `gibberish`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loops => "loops",
            Self::Gibberish => "gibberish",
        }
    }
}

/// The figures that tell whether a text is whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fluency {
    /// Words.
    pub n_words: usize,
    /// Pairs of neighbouring words.
    pub pairs: usize,
    /// Different ones among them.
    pub distinct_pairs: usize,
    /// The most words in a row that occur twice.
    pub longest_repeat: usize,
    /// The perplexity that the unsteered model gives it, if it was asked.
    pub perplexity: Option<f64>,
    /// What such a text has without steering, if that is known.
    pub usual: Option<f64>,
    /// Signs that are not blanks, and letters and digits among them.
    signs: [usize; 2],
}

impl Fluency {
    /// What the text alone tells.
    pub fn of(text: &str) -> Self {
        let mut numbers = HashMap::new();
        let ids: Vec<u32> = units(text)
            .map(|word| {
                let next = numbers.len() as u32;
                *numbers.entry(word).or_insert(next)
            })
            .collect();
        let pairs: HashSet<&[u32]> = ids.windows(2).collect();
        let visible = || text.chars().filter(|c| !c.is_whitespace());
        Self {
            n_words: ids.len(),
            pairs: ids.len().saturating_sub(1),
            distinct_pairs: pairs.len(),
            longest_repeat: longest_repeat(&ids),
            perplexity: None,
            usual: None,
            signs: [visible().count(), visible().filter(|c| c.is_alphanumeric()).count()],
        }
    }

    /// The same, with the perplexity that the unsteered model gives the text, and the one that its own texts have (`None`
    /// if that is not known, or if the text is one of them).
    pub fn judged(self, perplexity: f64, usual: Option<f64>) -> Self {
        Self { perplexity: Some(perplexity), usual, ..self }
    }

    /// Share of different word pairs; 1 for a text without pairs.
    pub fn distinct_2(&self) -> f64 {
        if self.pairs == 0 { 1.0 } else { self.distinct_pairs as f64 / self.pairs as f64 }
    }

    /// What is wrong with it, if anything. Of a text that is both, its loops are told: they can be seen.
    pub fn broken(&self) -> Option<Broken> {
        let [signs, letters] = self.signs;
        let loops = self.n_words >= LEAST_WORDS && self.distinct_2() < LEAST_DISTINCT;
        let unlikely = self.perplexity.zip(self.usual).is_some_and(|(own, usual)| {
            // A perplexity that is no number is of no text.
            own.is_nan() || own > MOST_PERPLEXITY * usual.max(LEAST_PERPLEXITY)
        });
        let unreadable = signs >= LEAST_SIGNS && (letters as f64) < LEAST_LETTERS * signs as f64;
        match (loops || self.longest_repeat >= LONGEST_REPEAT, unlikely || unreadable) {
            (true, _) => Some(Broken::Loops),
            (_, true) => Some(Broken::Gibberish),
            _ => None,
        }
    }

    /// One line for people: `perplexity 2.1, distinct pairs 0.97, longest repeat 3 words`, and `: loops` behind a broken text.
    pub fn describe(&self) -> String {
        let perplexity = self.perplexity.map_or_else(String::new, |p| format!("perplexity {p:.1}, "));
        let (distinct, repeat) = (self.distinct_2(), self.longest_repeat);
        let broken = self.broken().map_or_else(String::new, |broken| format!(": {}", broken.name()));
        format!("{perplexity}distinct pairs {distinct:.2}, longest repeat {repeat} words{broken}")
    }
}

/// The words of `text` in lower case: runs of letters and digits.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> {
    let inside = |c: char| c.is_alphanumeric() || c == '\'' || c == '’';
    text.split(move |c: char| !inside(c)).map(|w| w.trim_matches(['\'', '’']).to_lowercase()).filter(|w| !w.is_empty())
}

/// A longer word is none: its signs are taken one at a time, so that `10000000…` is a loop.
const LONGEST_WORD: usize = 32;

/// [`words`], where scripts without blanks between words (Chinese, Japanese, Thai) give a sign at a time.
fn units(text: &str) -> impl Iterator<Item = String> {
    let alone = |c: char| matches!(c, '\u{0e00}'..='\u{0eff}' | '\u{2e80}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}');
    words(text).flat_map(move |word| match word.contains(alone) || word.chars().count() > LONGEST_WORD {
        true => word.chars().map(String::from).collect(),
        false => vec![word],
    })
}

/// The length of the longest run of `ids` that occurs twice. If a run does, every shorter part of it does: so lengths are
/// halved.
fn longest_repeat(ids: &[u32]) -> usize {
    let repeats = |length: usize| {
        let mut seen = HashSet::new();
        ids.windows(length).any(|run| !seen.insert(run))
    };
    let (mut low, mut high) = (0, ids.len());
    while low + 1 < high {
        let middle = low.midpoint(high);
        *(if repeats(middle) { &mut low } else { &mut high }) = middle;
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SmolLM2-135M-Instruct wrote, and people.
    const WHOLE: [&str; 5] = [
        "to have a clear understanding of your goals and what you're trying to achieve. This can be achieved by setting SMART \
         goals, which are specific, measurable, actionable, and time-bound.\n\nIn the context of the original code, the goal",
        "Call me Ishmael. Some years ago—never mind how long precisely—having little or no money in my purse, and nothing \
         particular to interest me on shore, I thought I would sail about a little and see the watery part of the world.",
        "1. **Boil** the water.\n2. **Add** the rice.\n3. **Wait** for 12 minutes.\n4. **Drain** and serve.\n\n| step | minutes |\n|---|---|\n| 1 | 5 |\n| 2 | 1 |",
        "fn main() {\n    let total: i32 = (1..=10).filter(|n| n % 2 == 0).map(|n| n * n).sum();\n    println!(\"{total}\");\n}\n",
        "И дольше века длится день, и не кончается объятье; на столетье выпал снег, и сонным стрелкам лень ворочаться.",
    ];
    const LOOPS: [&str; 7] = [
        "I'm so glad you asked! I'm so glad you asked! I'm so glad you asked! I'm so glad you asked!",
        "The ship was a large, sturdy vessel, and it was a large, sturdy vessel. The ship was a large, sturdy vessel, and it was \
         a large, sturdy vessel. The ship was",
        "the sea, the sea, the sea, the sea, the sea, the sea, the sea, the sea",
        "She loved the sea. She loved the ship. She loved the harbor. She loved the sea. She loved the crew. She loved the ship.",
        "我喜欢海我喜欢海我喜欢海我喜欢海我喜欢海",
        "The Lost City of Eldaroth by A.M.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.A.",
        "1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    ];

    #[test]
    fn whole_texts_pass_and_loops_do_not() {
        for text in WHOLE {
            assert_eq!(
                Fluency::of(text).judged(3.0, Some(2.0)).broken(),
                None,
                "{text}: {}",
                Fluency::of(text).describe()
            );
        }
        for text in LOOPS {
            // The likeliest text of all is a loop.
            let fluency = Fluency::of(text).judged(1.2, Some(2.5));
            assert_eq!(fluency.broken(), Some(Broken::Loops), "{text}: {}", fluency.describe());
        }
    }

    #[test]
    fn a_sentence_said_again_late_in_a_long_text_is_found() {
        let refrain = "and the old captain went down to the harbor every evening to look at his ship there ";
        let story: String = (0..60).map(|i| format!("w{i} v{} ", i * 7 % 61)).collect();
        let twice = Fluency::of(&format!("{story}{refrain}{refrain}"));
        assert!(twice.distinct_2() > 0.8, "the share of pairs alone is blind to it: {}", twice.describe());
        assert_eq!((twice.longest_repeat, twice.broken()), (17, Some(Broken::Loops)));
        assert_eq!(Fluency::of(&format!("{story}{refrain}")).broken(), None);
    }

    #[test]
    fn gibberish_is_unlikely_or_has_no_letters() {
        let salad = "anchor thereof marine Louis subsea ocean vessels Lloyd's nautical aboard ship's Atlantic fleet";
        assert_eq!(Fluency::of(salad).broken(), None, "nobody was asked how likely it is");
        assert_eq!(Fluency::of(salad).judged(180.0, Some(2.2)).broken(), Some(Broken::Gibberish));
        assert_eq!(Fluency::of(salad).judged(180.0, Some(90.0)).broken(), None, "the model writes so by itself");
        assert_eq!(Fluency::of(salad).judged(f64::NAN, Some(2.0)).broken(), Some(Broken::Gibberish));
        let dots = "… … ,,,,, ,,,,, !!!! ---- ,,,, !!!! ,,, ...";
        assert_eq!(Fluency::of(dots).broken(), Some(Broken::Gibberish));
        assert_eq!(Fluency::of("!?").broken(), None);
    }

    #[test]
    fn figures_are_counted() {
        let fluency = Fluency::of("A b, a b. A c");
        assert_eq!((fluency.n_words, fluency.pairs, fluency.distinct_pairs), (6, 5, 3));
        assert_eq!(fluency.longest_repeat, 3, "a b a, at two places that overlap");
        assert!((fluency.distinct_2() - 0.6).abs() < 1e-9);
        let empty = Fluency::of("");
        assert_eq!((empty.n_words, empty.longest_repeat, empty.distinct_2(), empty.broken()), (0, 0, 1.0, None));
        for n in [1usize, 2, 3, 50] {
            assert_eq!(longest_repeat(&vec![7; n]), n - 1, "{n} equal ones");
            assert_eq!(longest_repeat(&(0..n as u32).collect::<Vec<_>>()), 0);
        }
    }
}
