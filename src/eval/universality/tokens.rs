//! The tokens on which features are strongest: what they seem to be about, in a form that can be compared.

use std::collections::HashMap;

use super::correlation::Codes;

/// Tokens kept of a feature.
pub const TOP: usize = 5;

/// The texts of tokens, each once: blanks around them taken off, in small letters.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    ids: HashMap<String, u32>,
    list: Vec<String>,
}

impl Texts {
    /// The number of a token's text.
    pub fn id(&mut self, token: &str) -> u32 {
        let text = normal(token);
        if let Some(&id) = self.ids.get(&text) {
            return id;
        }
        let id = self.list.len() as u32;
        self.list.push(text.clone());
        self.ids.insert(text, id);
        id
    }

    /// The text of a number.
    pub fn text(&self, id: u32) -> &str {
        self.list.get(id as usize).map_or("", String::as_str)
    }

    /// Whether a text may stand for a concept: it has a letter or a digit. Punctuation, blanks and control tokens,
    /// which have no text, do not.
    pub fn is_concept(&self, id: u32) -> bool {
        self.text(id).chars().any(char::is_alphanumeric)
    }
}

/// A token's text as it is compared.
pub(super) fn normal(token: &str) -> String {
    token.trim().to_lowercase()
}

/// A token in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The number of its text.
    pub text: u32,
    /// Whether its text is also a whole word among the two tokens before it, itself, and the two behind it: " may" is,
    /// the first half of "mayor" is not.
    pub whole: bool,
}

/// A place at which a feature is strong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strong {
    /// Its activation there.
    pub value: f32,
    /// The token.
    pub item: Item,
}

/// The [`TOP`] strongest places of every feature, the strongest first; of equal ones the first read.
#[derive(Clone, Debug)]
pub struct TopTokens(Vec<Vec<Strong>>);

impl TopTokens {
    /// No places yet.
    pub fn new(n_features: usize) -> Self {
        Self(vec![Vec::new(); n_features])
    }

    /// Adds rows; row i stands at `items[i]`.
    pub fn add(&mut self, codes: Codes<'_>, items: &[Item]) {
        for (r, &item) in items.iter().enumerate() {
            for &(id, value) in codes.row(r) {
                let Some(list) = self.0.get_mut(id as usize).filter(|_| value > 0.0) else { continue };
                let at = list.partition_point(|strong| strong.value >= value);
                if at < TOP {
                    list.truncate(TOP - 1);
                    list.insert(at, Strong { value, item });
                }
            }
        }
    }

    /// The strongest places of a feature; empty if it never fired.
    pub fn of(&self, feature: u32) -> &[Strong] {
        self.0.get(feature as usize).map_or(&[], Vec::as_slice)
    }

    /// Their texts.
    pub fn texts<'t>(&self, feature: u32, texts: &'t Texts) -> Vec<&'t str> {
        self.of(feature).iter().map(|strong| texts.text(strong.item.text)).collect()
    }

    /// Whether all of a feature's texts may stand for concepts, and there is one.
    pub fn is_concept(&self, feature: u32, texts: &Texts) -> bool {
        let list = self.of(feature);
        !list.is_empty() && list.iter().all(|strong| texts.is_concept(strong.item.text))
    }

    /// Whether feature `a` of this list and `b` of another share a text.
    pub fn share(&self, a: u32, other: &Self, b: u32) -> bool {
        self.of(a).iter().any(|own| other.of(b).iter().any(|its| own.item.text == its.item.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_five_are_kept_in_order() {
        let mut texts = Texts::default();
        let items: Vec<Item> =
            [" War", "army", "the", " war", ",", "sea"].map(|t| Item { text: texts.id(t), whole: true }).to_vec();
        let values = [2.0, 5.0, 1.0, 2.0, -3.0, 4.0];
        let entries: Vec<(u32, f32)> = values.iter().map(|&v| (1, v)).collect();
        let offsets: Vec<usize> = (0..=6).collect();
        let mut top = TopTokens::new(2);
        top.add(Codes { offsets: &offsets, entries: &entries }, &items);
        assert_eq!(top.texts(1, &texts), ["army", "sea", "war", "war", "the"]);
        let more = [(1, 2.0), (1, 3.0)];
        let [comma, the] = [items[4], items[2]];
        top.add(Codes { offsets: &[0, 1, 2], entries: &more }, &[the, comma]);
        assert_eq!(top.texts(1, &texts), ["army", "sea", ",", "war", "war"], "of equal ones the first");
        assert!(!top.is_concept(1, &texts) && !top.is_concept(0, &texts) && top.of(7).is_empty());
    }

    #[test]
    fn punctuation_blanks_and_control_tokens_are_no_concepts() {
        let mut texts = Texts::default();
        for (token, concept) in
            [("", false), ("\n\n", false), (" ,", false), ("\u{fffd}", false), ("…", false), (" a", true), ("7", true)]
        {
            let id = texts.id(token);
            assert_eq!(texts.is_concept(id), concept, "{token:?}");
        }
        assert_eq!(texts.id(" War"), texts.id("war"));
    }
}
