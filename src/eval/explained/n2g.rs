//! N2G, a baseline (arXiv 2305.19911): the shortest context in front of a token that keeps half of a feature's activation.
//!
//! Each of a feature's strongest spans is cut in front, token by token at first and then faster, until what is left no
//! longer brings [`KEPT`] of the activation; the shortest piece that does is the pattern. Its words explain the feature,
//! by the activation of the spans that hold them. Ours: a line break stands in front of every piece, since a model treats
//! the first token of a text in its own way; and words are completed to both sides. No tokens are replaced, as the paper
//! does to generalise a pattern: the words that are left carry the meaning.
//!
//! *Cost*: about 50 tokens a span.

use crate::dictionary::Dictionary;
use crate::engine::Engine;
use crate::error::Result;
use crate::explain::baselines::Span;
use crate::hook_point::HookPoint;

/// Share of the activation that a pattern keeps.
pub const KEPT: f32 = 0.5;
/// Tokens of the pieces that are tried, the one that fires included.
const LENGTHS: [usize; 7] = [1, 2, 3, 4, 6, 9, 13];

/// The patterns of spans of `feature`; a span that no shorter piece explains stays as far as it reaches up to the word in
/// which the feature fires.
///
/// # Errors
/// What the engine returns.
pub fn patterns(
    engine: &mut Engine,
    dictionary: &Dictionary,
    point: HookPoint,
    feature: u32,
    spans: &[Span],
) -> Result<Vec<Span>> {
    let (d, before) = (dictionary.d_model(), engine.tokenize("\n", true)?);
    let (mut texts, mut pieces) = (Vec::new(), Vec::new());
    for (s, span) in spans.iter().enumerate() {
        for length in LENGTHS.into_iter().filter(|length| *length <= span.at) {
            let piece = span.tokens.get(span.at + 1 - length..=span.at).unwrap_or_default();
            texts.push([before.as_slice(), piece].concat());
            pieces.push((s, length));
        }
    }
    // Longest first, so that the shortest that is enough stays.
    let mut shortest: Vec<usize> = spans.iter().map(|span| span.at + 1).collect();
    let mut activations = vec![0f32; texts.len()];
    if !texts.is_empty() {
        engine.read_rows(&texts, &[point], &mut |text, _, rows| {
            let last = rows.get(rows.len().saturating_sub(d)..).unwrap_or_default();
            let codes = dictionary.encode_batch(last, 1);
            activations[text] = codes.entries().iter().find(|(f, _)| *f == feature).map_or(0.0, |(_, f)| *f);
            Ok(())
        })?;
    }
    for (&(s, length), activation) in pieces.iter().zip(&activations) {
        if *activation >= KEPT * spans[s].activation {
            shortest[s] = shortest[s].min(length);
        }
    }
    let bytes = |token: i32| engine.token_bytes(token, false);
    Ok(spans.iter().zip(shortest).map(|(span, length)| cut(span, length, &bytes)).collect())
}

/// The `length` tokens of a span up to the one that fires, with the rest of the words at both ends.
fn cut(span: &Span, length: usize, bytes: &dyn Fn(i32) -> Vec<u8>) -> Span {
    let goes_on = |token: &i32| bytes(*token).first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80);
    let mut start = (span.at + 1).saturating_sub(length);
    while start > 0 && span.tokens.get(start).is_some_and(goes_on) {
        start -= 1;
    }
    let mut end = span.at + 1;
    while span.tokens.get(end).is_some_and(goes_on) {
        end += 1;
    }
    let tokens = span.tokens.get(start..end).unwrap_or_default().to_vec();
    Span { tokens, at: span.at - start, ..span.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_where_words_do() {
        let pieces = ["the", " war", "ships", " of", " the", " sea", "men", "."];
        let bytes = |token: i32| pieces[token as usize].as_bytes().to_vec();
        let span = |at| Span { row: 9, activation: 2.0, tokens: (0..8).collect(), at };
        let of = |at, length| {
            let found = cut(&span(at), length, &bytes);
            (found.tokens, found.at)
        };
        assert_eq!(of(2, 1), (vec![1, 2], 1), "ships is the end of warships");
        assert_eq!(of(5, 1), (vec![5, 6], 0), "sea goes on as seamen");
        assert_eq!(of(4, 3), (vec![1, 2, 3, 4], 3));
        assert_eq!(of(7, 99), ((0..8).collect(), 7));
    }
}
