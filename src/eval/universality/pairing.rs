//! Which token of one model stands for the same text as which token of another.
//!
//! Texts are cut into pieces, and both models read the same piece. With one tokenizer, tokens are paired one by one.
//! With two, a word's last token in A is paired with its last token in B, if both end where the word does: a token that
//! goes on behind the word has another row. Position 0 of a piece is the model's attention sink, whatever token is
//! there, and is left out.
//!
//! A word is a run of letters and digits. Where words are not parted by blanks, as in Chinese, there are few pairs.

use super::tokens::{Item, Texts, normal};

/// A piece as a tokenizer cut it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What the tokens spell, one after the other. Control tokens spell nothing.
    pub bytes: Vec<u8>,
    /// Where each token ends in it.
    pub ends: Vec<usize>,
}

impl Cut {
    /// Of the bytes of tokens.
    pub fn new(tokens: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut cut = Self { bytes: Vec::new(), ends: Vec::new() };
        for token in tokens {
            cut.bytes.extend(token);
            cut.ends.push(cut.bytes.len());
        }
        cut
    }

    fn start(&self, token: usize) -> usize {
        token.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }

    fn text(&self, from: usize, to: usize) -> String {
        String::from_utf8_lossy(self.bytes.get(from..to).unwrap_or_default()).into_owned()
    }

    /// The token that ends at byte `end`, if it is not at position 0.
    fn ending(&self, end: usize) -> Option<usize> {
        let at = self.ends.partition_point(|&e| e < end);
        (at > 0 && self.ends.get(at) == Some(&end)).then_some(at)
    }
}

/// A pair of tokens: their positions, and what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Position in A.
    pub a: usize,
    /// Position in B.
    pub b: usize,
    /// The token, or the word.
    pub item: Item,
}

/// The pairs of a piece that one tokenizer cut for both.
pub fn token_by_token(cut: &Cut, texts: &mut Texts) -> Vec<Place> {
    let words = words(&cut.bytes);
    let last = cut.ends.len().saturating_sub(1);
    (1..cut.ends.len())
        .map(|t| {
            let token = cut.text(cut.start(t), cut.ends[t]);
            let (from, to) = (cut.start(t.saturating_sub(2)), cut.ends[(t + 2).min(last)]);
            let own = normal(&token);
            let near = words.iter().filter(|(start, end)| *start >= from && *end <= to);
            let whole = !own.is_empty() && near.into_iter().any(|&(start, end)| normal(&cut.text(start, end)) == own);
            Place { a: t, b: t, item: Item { text: texts.id(&token), whole } }
        })
        .collect()
}

/// The pairs of a piece that two tokenizers cut; none if they do not spell the same text. A blank that a tokenizer puts
/// in front of every text makes no difference.
pub fn word_by_word(a: &Cut, b: &Cut, texts: &mut Texts) -> Option<Vec<Place>> {
    let blanks = |cut: &Cut| cut.bytes.iter().take_while(|&&byte| byte == b' ').count();
    let (front_a, front_b) = (blanks(a), blanks(b));
    let text = a.bytes.get(front_a..)?;
    if Some(text) != b.bytes.get(front_b..) {
        return None;
    }
    let pair = |(start, end): (usize, usize)| {
        let (at_a, at_b) = a.ending(front_a + end).zip(b.ending(front_b + end))?;
        let word = String::from_utf8_lossy(text.get(start..end)?);
        Some(Place { a: at_a, b: at_b, item: Item { text: texts.id(&word), whole: true } })
    };
    Some(words(text).into_iter().filter_map(pair).collect())
}

/// Where words start and end: runs of letters and digits.
fn words(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut words, mut at, mut start) = (Vec::new(), 0, None);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match (c.is_alphanumeric(), start) {
                (true, None) => start = Some(at),
                (false, Some(from)) => {
                    words.push((from, at));
                    start = None;
                }
                _ => {}
            }
            at += c.len_utf8();
        }
        if !chunk.invalid().is_empty() {
            words.extend(start.take().map(|from| (from, at)));
            at += chunk.invalid().len();
        }
    }
    words.extend(start.map(|from| (from, at)));
    words
}

/// Cuts a text into pieces of at most `most` bytes, behind blanks where there are some. Pieces of blanks alone are left
/// out.
pub fn pieces(text: &str, most: usize) -> Vec<&str> {
    let (mut rest, mut pieces) = (text, Vec::new());
    while !rest.is_empty() {
        let fits = rest.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= most.max(4));
        let mut end = fits.last().unwrap_or(rest.len());
        if end < rest.len()
            && let Some(blank) = rest.get(..end).and_then(|part| part.rfind(char::is_whitespace)).filter(|&at| at > 0)
        {
            end = blank;
        }
        let (piece, left) = rest.split_at(end);
        if !piece.trim().is_empty() {
            pieces.push(piece);
        }
        rest = left;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(tokens: &[&str]) -> Cut {
        Cut::new(tokens.iter().map(|t| t.as_bytes().to_vec()))
    }

    #[test]
    fn one_tokenizer_pairs_every_token_but_the_first() {
        let mut texts = Texts::default();
        let places = token_by_token(&cut(&["", "In", " May", " the", " may", "or", " sat", "."]), &mut texts);
        assert_eq!(places.iter().map(|p| (p.a, p.b)).collect::<Vec<_>>(), (1..8).map(|t| (t, t)).collect::<Vec<_>>());
        let told: Vec<(&str, bool)> = places.iter().map(|p| (texts.text(p.item.text), p.item.whole)).collect();
        assert_eq!(
            told,
            [
                ("in", true),
                ("may", true),
                ("the", true),
                // "May" stands two tokens before the first half of "mayor": the paper's rule lets that count.
                ("may", true),
                ("or", false),
                ("sat", true),
                (".", false),
            ]
        );
        let far = token_by_token(&cut(&["x", " a", " b", " may", "or"]), &mut texts);
        assert_eq!(far.iter().map(|p| p.item.whole).collect::<Vec<_>>(), [true, true, false, false]);
    }

    #[test]
    fn two_tokenizers_pair_the_last_tokens_of_words() {
        let mut texts = Texts::default();
        // "can't stop." where A cuts before the apostrophe and B takes "stop." whole: then nothing of it is paired.
        let a = cut(&["", " un", "believ", "able", " news", " can", "'t", " stop", "."]);
        let b = cut(&["unbeliev", "able", " ne", "ws", " can", "'", "t", " stop."]);
        let places = word_by_word(&a, &b, &mut texts).unwrap();
        let told: Vec<(usize, usize, &str)> = places.iter().map(|p| (p.a, p.b, texts.text(p.item.text))).collect();
        assert_eq!(told, [(3, 1, "unbelievable"), (4, 3, "news"), (5, 4, "can"), (6, 6, "t")]);
        assert_eq!(word_by_word(&a, &cut(&["other"]), &mut texts), None);
        let first = word_by_word(&cut(&["one", " two"]), &cut(&["one", " two"]), &mut texts).unwrap();
        assert_eq!(first.len(), 1, "position 0 is left out");
    }

    #[test]
    fn letters_that_tokens_split_are_whole_in_words() {
        let mut texts = Texts::default();
        let bytes = "x größe".as_bytes();
        let a = Cut::new([&bytes[..2], &bytes[2..5], &bytes[5..]].map(<[u8]>::to_vec));
        let b = Cut::new([&bytes[..2], &bytes[2..4], &bytes[4..]].map(<[u8]>::to_vec));
        let places = word_by_word(&a, &b, &mut texts).unwrap();
        assert_eq!((places.len(), texts.text(places[0].item.text)), (1, "größe"));
        assert_eq!(token_by_token(&a, &mut texts).len(), 2);
        assert_eq!(words(b"ab\xffcd e"), [(0, 2), (3, 5), (6, 7)]);
    }

    #[test]
    fn pieces_end_at_blanks_and_lose_no_word() {
        let text = "one two  three\nfour fünf";
        assert_eq!(pieces(text, 10), ["one two ", " three", "\nfour", " fünf"]);
        assert_eq!(pieces("aaaaaaaaaa", 4), ["aaaa", "aaaa", "aa"]);
        assert_eq!(pieces("ääää", 5), ["ää", "ää"]);
        assert!(pieces("", 9).is_empty() && pieces("  \n ", 2).is_empty());
    }
}
