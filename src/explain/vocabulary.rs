//! The words that an explanation may use: the most frequent words of the training text, each once.
//!
//! Explaining a feature by its top activating text favours phrases that recur everywhere; a topic that many different
//! words voice loses. A fixed vocabulary without duplicates removes that bias (arXiv 2502.15576).
//!
//! A *word* is a maximal run of letters, with apostrophes between letters (`don't`) and combining accents after them,
//! lower-cased, 2 to [`LONGEST`] characters long. Longer runs are not words: they come from encoded data, or from
//! scripts that do not part their words. Any bytes are fit input: what is not UTF-8 ends a word.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file::{json, read_text, write_atomic};

/// The number of words that [`Vocabulary::from_texts`] is usually asked for.
pub const DEFAULT_WORDS: usize = 5_000;
/// The shortest word, in characters.
pub const SHORTEST: usize = 2;
/// The longest word, in characters.
pub const LONGEST: usize = 40;
/// A word of a rank below this is superficial.
pub const SUPERFICIAL_RANK: usize = 250;
/// A word of fewer characters than this is superficial.
pub const SUPERFICIAL_LENGTH: usize = 4;

const KIND: &str = "tiller.vocabulary";
const VERSION: u32 = 1;
/// A word takes some fifty bytes: this is a million of them.
const MAX_BYTES: u64 = 64 << 20;
/// What helps against every mistake in a vocabulary.
const HINT: &str =
    "make the vocabulary anew: `tiller explain` without --vocabulary counts the words of the harvested text";

/// Calls `found` with the place in `text` and the normal form of every word, from left to right.
pub fn scan(text: &str, mut found: impl FnMut(Range<usize>, &str)) {
    let mut normal = String::new();
    let mut begin: Option<usize> = None;
    let mut n_chars = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let inner = begin.is_some();
        if c.is_alphabetic() {
            begin.get_or_insert(at);
            normal.extend(c.to_lowercase());
            n_chars += 1;
        } else if inner && is_combining(c) {
            normal.push(c);
        } else if inner && matches!(c, '\'' | '\u{2019}') && chars.peek().is_some_and(|(_, next)| next.is_alphabetic())
        {
            normal.push('\'');
            n_chars += 1;
        } else if let Some(start) = begin.take() {
            if (SHORTEST..=LONGEST).contains(&n_chars) {
                found(start..at, &normal);
            }
            normal.clear();
            n_chars = 0;
        }
    }
    if let Some(start) = begin
        && (SHORTEST..=LONGEST).contains(&n_chars)
    {
        found(start..text.len(), &normal);
    }
}

/// Combining accents: parts of a letter in decomposed text, but not letters themselves.
fn is_combining(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}')
}

/// `word` in normal form, if it is one word and nothing else.
pub fn normalize(word: &str) -> Option<String> {
    let trimmed = word.trim();
    let mut only = None;
    scan(trimmed, |place, normal| {
        if place == (0..trimmed.len()) {
            only = Some(normal.to_owned());
        }
    });
    only
}

/// A word of the vocabulary; its rank is its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// In normal form.
    pub text: String,
    /// How often the training text holds it.
    pub count: u64,
}

/// Counts words, text by text; [`finish`](Counter::finish) keeps the most frequent ones.
#[derive(Debug, Default)]
pub struct Counter {
    counts: HashMap<String, u64>,
}

impl Counter {
    /// An empty counter.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the words of `text`.
    pub fn add(&mut self, text: &str) {
        scan(text, |_, word| match self.counts.get_mut(word) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(word.to_owned(), 1);
            }
        });
    }

    /// Counts the words of any bytes.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        bytes.utf8_chunks().for_each(|chunk| self.add(chunk.valid()));
    }

    /// The `n_words` most frequent words; of equally frequent ones the first in the order of the alphabet.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if no word was counted or `n_words` is 0.
    pub fn finish(self, n_words: usize) -> Result<Vocabulary> {
        let mut words: Vec<Word> = self.counts.into_iter().map(|(text, count)| Word { text, count }).collect();
        words.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.text.cmp(&b.text)));
        words.truncate(n_words);
        if words.is_empty() {
            return Err(Error::argument("vocabulary: expected at least one word, found none in the text"));
        }
        Ok(Vocabulary::from_ranked(words))
    }
}

/// The words that explanations may use, most frequent first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    words: Vec<Word>,
    ranks: HashMap<String, u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    rank: usize,
    word: String,
    count: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    kind: String,
    version: u32,
    words: Vec<Line>,
}

impl Vocabulary {
    /// The `n_words` most frequent words of `texts`.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if the texts hold no word.
    pub fn from_texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>, n_words: usize) -> Result<Self> {
        let mut counter = Counter::new();
        texts.into_iter().for_each(|text| counter.add(text.as_ref()));
        counter.finish(n_words)
    }

    fn from_ranked(words: Vec<Word>) -> Self {
        let ranks = words.iter().zip(0u32..).map(|(word, rank)| (word.text.clone(), rank)).collect();
        Self { words, ranks }
    }

    /// The words, most frequent first.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// The number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Always false: a vocabulary has at least one word.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The rank of a word in normal form; 0 is the most frequent one.
    pub fn rank(&self, word: &str) -> Option<u32> {
        self.ranks.get(word).copied()
    }

    /// Whether the word of `rank` says little: it is among the [`SUPERFICIAL_RANK`] most frequent or shorter than
    /// [`SUPERFICIAL_LENGTH`] characters.
    pub fn is_superficial(&self, rank: usize) -> bool {
        rank < SUPERFICIAL_RANK
            || self.words.get(rank).is_none_or(|word| word.text.chars().count() < SUPERFICIAL_LENGTH)
    }

    /// Writes the vocabulary as JSON, one word a line: `{"rank":0,"word":"the","count":61012}`.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io).
    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomic(path, |out| self.write(out).map_err(|e| Error::io("write", path, e)))
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "{{\"kind\":\"{KIND}\",\"version\":{VERSION},\"words\":[")?;
        for (rank, word) in self.words.iter().enumerate() {
            let line = Line { rank, word: word.text.clone(), count: word.count };
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(if rank + 1 == self.words.len() { b"\n" } else { b",\n" })?;
        }
        out.write_all(b"]}\n")
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io); [`Format`](crate::Kind::Format) names the line or the rank, what was expected and what
    /// was found.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &read_text(path, MAX_BYTES)?).map_err(|e| if e.hint().is_none() { e.hinted(HINT) } else { e })
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let file: Document = serde_json::from_str(text).map_err(|e| json::error(&e, text, path.display(), 1, HINT))?;
        if file.kind != KIND {
            return Err(Error::format(path, format_args!("kind: expected {KIND:?}, found {:?}", file.kind)));
        }
        if file.version != VERSION {
            return Err(Error::format(path, format_args!("version: expected {VERSION}, found {}", file.version)));
        }
        if file.words.is_empty() {
            return Err(Error::format(path, "words: expected at least one, found none"));
        }
        let mut words: Vec<Word> = Vec::with_capacity(file.words.len());
        for (at, line) in file.words.into_iter().enumerate() {
            let wrong = |what: String| Err(Error::format(path, format_args!("words[{at}]: {what}")));
            if line.rank != at {
                return wrong(format!("expected rank {at}, found {}", line.rank));
            }
            if normalize(&line.word).as_deref() != Some(line.word.as_str()) {
                return wrong(format!("expected one lower-case word, found {:?}", line.word));
            }
            if let Some(before) = words.last().filter(|before| before.count < line.count) {
                return wrong(format!("expected a count of at most {}, found {}", before.count, line.count));
            }
            words.push(Word { text: line.word, count: line.count });
        }
        let vocabulary = Self::from_ranked(words);
        if vocabulary.ranks.len() < vocabulary.words.len() {
            let twice = vocabulary.words.iter().zip(0u32..).find(|(word, at)| vocabulary.rank(&word.text) != Some(*at));
            let twice = twice.map_or("", |(word, _)| word.text.as_str());
            return Err(Error::format(path, format_args!("words: expected each word once, found {twice:?} twice")));
        }
        Ok(vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        scan(text, |place, word| {
            assert!(text.get(place).is_some());
            all.push(word.to_owned());
        });
        all
    }

    #[test]
    fn a_word_is_a_run_of_letters_with_inner_apostrophes() {
        assert_eq!(words("Don't 'quote' the dogs' x I'm, re-do"), ["don't", "quote", "the", "dogs", "i'm", "re", "do"]);
        assert_eq!(words("It\u{2019}s 3rd GPU2go ÉCOLE"), ["it's", "rd", "gpu", "go", "école"]);
        assert_eq!(words("e\u{301}te\u{301} a"), ["e\u{301}te\u{301}"]);
        assert_eq!(words(""), Vec::<String>::new());
        assert_eq!(words(&"a".repeat(LONGEST)).len(), 1);
        assert_eq!(words(&"a".repeat(LONGEST + 1)).len(), 0);
    }

    #[test]
    fn normalize_takes_one_word_only() {
        assert_eq!(normalize(" War "), Some("war".into()));
        assert_eq!(normalize("two words"), None);
        assert_eq!(normalize("x"), None);
        assert_eq!(normalize("war!"), None);
    }

    #[test]
    fn the_most_frequent_come_first_and_ties_follow_the_alphabet() {
        let vocabulary = Vocabulary::from_texts(["the war the sea", "The army sea"], 3).unwrap();
        let texts: Vec<_> = vocabulary.words().iter().map(|w| (w.text.as_str(), w.count)).collect();
        assert_eq!(texts, [("the", 3), ("sea", 2), ("army", 1)]);
        assert_eq!(vocabulary.rank("sea"), Some(1));
        assert_eq!(vocabulary.rank("war"), None);
    }

    #[test]
    fn bytes_that_are_not_text_end_a_word() {
        let mut counter = Counter::new();
        counter.add_bytes(b"war\xffpeace \xc3(war\xf0\x9f");
        let vocabulary = counter.finish(10).unwrap();
        assert_eq!(vocabulary.rank("war"), Some(0));
        assert_eq!(vocabulary.rank("peace"), Some(1));
        assert_eq!(vocabulary.len(), 2);
    }

    #[test]
    fn superficial_words_are_frequent_or_short() {
        let texts: Vec<String> = (0..300).map(|i| format!("{}ing ", letters(i)).repeat(400 - i)).collect();
        let mut counter = Counter::new();
        texts.iter().for_each(|t| counter.add(t));
        counter.add("sea war");
        let vocabulary = counter.finish(1000).unwrap();
        assert!(vocabulary.is_superficial(0) && vocabulary.is_superficial(249));
        assert!(!vocabulary.is_superficial(250));
        assert!(vocabulary.is_superficial(vocabulary.rank("sea").unwrap() as usize));
    }

    fn letters(i: usize) -> String {
        [b'a' + (i / 26 % 26) as u8, b'a' + (i % 26) as u8].iter().map(|&b| char::from(b)).collect()
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words.json");
        let vocabulary = Vocabulary::from_texts(["it's the école of war, the war"], 100).unwrap();
        vocabulary.save(&path).unwrap();
        assert_eq!(Vocabulary::load(&path).unwrap(), vocabulary);
    }
}
