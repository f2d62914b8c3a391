//! Semantic subspaces: the features whose strongest tokens are words of one category.
//!
//! A feature belongs to a category if one of its five strongest tokens equals a keyword that is also a whole word
//! within two tokens of that place; a pair belongs if both its features do.

use std::collections::HashSet;
use std::path::Path;

use super::matching::Pair;
use super::tokens::{Texts, TopTokens};
use crate::error::{Error, Result};

/// The categories that come with the library, in the format of [`Category::parse`].
pub const CATEGORIES: &str = include_str!("subspaces.tsv");
/// A file of categories has some kilobytes.
const MAX_BYTES: u64 = 16 << 20;

/// A name and its keywords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Category {
    /// Its name.
    pub name: String,
    /// Words in small letters.
    pub words: HashSet<String>,
}

impl Category {
    /// The categories of [`CATEGORIES`].
    ///
    /// # Errors
    /// None, unless the library was built with others.
    pub fn built_in() -> Result<Vec<Self>> {
        Self::parse(CATEGORIES, Path::new("built-in categories"))
    }

    /// Reads a file in the format of [`parse`](Self::parse).
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io); as [`parse`](Self::parse).
    pub fn load(path: &Path) -> Result<Vec<Self>> {
        Self::parse(&crate::file::read_text(path, MAX_BYTES)?, path)
    }

    /// Reads categories from text: a name, a tab, and words with blanks between; a name may stand on several lines.
    /// Blank lines and lines that start with # are skipped. `path` is what errors call the text.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) for a line without a name or without words, and if there is no category.
    pub fn parse(text: &str, path: &Path) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = line.split_once('\t').map(|(name, words)| (name.trim(), words));
            let Some((name, words)) = fields.filter(|(name, words)| !name.is_empty() && !words.trim().is_empty())
            else {
                let what = format!("line {number}: expected a category, a tab and words, found \"{line}\"");
                return Err(Error::format(path, what));
            };
            let words = words.split_whitespace().map(str::to_lowercase);
            match all.iter_mut().find(|category| category.name == name) {
                Some(category) => category.words.extend(words),
                None => all.push(Self { name: name.to_owned(), words: words.collect() }),
            }
        }
        if all.is_empty() {
            return Err(Error::format(path, "expected categories, found none"));
        }
        Ok(all)
    }

    fn holds(&self, tokens: &TopTokens, feature: u32, texts: &Texts) -> bool {
        tokens.of(feature).iter().any(|s| s.item.whole && self.words.contains(texts.text(s.item.text)))
    }

    /// The places, in `pairs`, of those that belong.
    pub fn members(&self, pairs: &[Pair], tokens: [&TopTokens; 2], texts: &Texts) -> Vec<usize> {
        let [of_a, of_b] = tokens;
        let belongs = |p: &Pair| self.holds(of_a, p.a, texts) && self.holds(of_b, p.b, texts);
        pairs.iter().enumerate().filter(|(_, p)| belongs(p)).map(|(i, _)| i).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::correlation::Codes;
    use super::super::tokens::Item;
    use super::*;

    #[test]
    fn the_built_in_categories_are_the_eight() {
        let all = Category::built_in().unwrap();
        let names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(
            names,
            ["time", "calendar", "months", "people and roles", "nature", "emotions", "countries", "biology"]
        );
        assert!(all.iter().all(|c| c.words.len() >= 14 && c.words.iter().all(|w| *w == w.to_lowercase())));
    }

    #[test]
    fn lines_that_are_no_category_are_named() {
        for (text, says) in [("sea", "line 1"), ("a\tb\n\tc", "line 2"), ("a\t ", "line 1"), ("# a\n", "found none")] {
            let error = Category::parse(text, Path::new("x.tsv")).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
    }

    #[test]
    fn a_pair_belongs_if_both_features_have_a_whole_keyword() {
        let mut texts = Texts::default();
        let mut tokens = TopTokens::new(4);
        for (id, token, whole) in [(0, "May", true), (1, "June", true), (2, "may", false), (3, "sea", true)] {
            let item = Item { text: texts.id(token), whole };
            tokens.add(Codes { offsets: &[0, 1], entries: &[(id, 1.0)] }, &[item]);
        }
        let months = Category::built_in().unwrap().into_iter().find(|c| c.name == "months").unwrap();
        let pairs = [(0, 1), (0, 2), (2, 0), (3, 1), (1, 0)].map(|(a, b)| Pair { a, b, r: 0.5 });
        assert_eq!(months.members(&pairs, [&tokens, &tokens], &texts), [0, 4]);
    }
}
