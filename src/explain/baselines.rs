//! The baseline TopAct: a feature's top activating spans of text.
//!
//! What most tools show, and what the mutual information is measured against. Spans of one feature do not overlap: of two
//! rows less than a span apart in the same document, the stronger one stays. The paper's other baselines are N2G, which
//! needs the model to run again on shortened spans (a floor above this one, so it is not here), and the logit lens, which is
//! [`Mode::Logit`](super::lens::Mode::Logit).

use std::collections::BTreeMap;

use super::vocabulary::{Vocabulary, scan};
use super::windows::Text;
use crate::error::{Error, Result};

/// Tokens of a span before the one that fires.
pub const BEFORE: usize = 16;
/// Tokens of a span after the one that fires.
pub const AFTER: usize = 7;
/// Spans of a feature, where nothing else is asked for.
pub const SPANS: usize = 20;

/// A piece of text around a token on which a feature fires.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The row of the token, counted over all text.
    pub row: u64,
    /// The activation there.
    pub activation: f32,
    /// The tokens, in order.
    pub tokens: Vec<i32>,
    /// Which of them fires.
    pub at: usize,
}

impl Span {
    /// Its text; what is not UTF-8 at its edges is left out.
    pub fn text(&self, token_bytes: &dyn Fn(i32) -> Vec<u8>) -> String {
        let bytes: Vec<u8> = self.tokens.iter().flat_map(|&token| token_bytes(token)).collect();
        bytes.utf8_chunks().map(|chunk| chunk.valid()).collect()
    }
}

/// Keeps the top activating spans of every feature, row by row.
#[derive(Clone, Debug)]
pub struct TopAct {
    n_spans: usize,
    spans: Vec<Vec<Span>>,
    n_rows: u64,
}

impl TopAct {
    /// Up to `n_spans` spans for each of `n_features`.
    pub fn new(n_features: usize, n_spans: usize) -> Self {
        Self { n_spans, spans: vec![Vec::new(); n_features], n_rows: 0 }
    }

    /// Takes the codes of row `row` of `text`; call it for the rows of a text in any order, then [`end`](Self::end).
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if the row or a feature is out of range.
    pub fn row(&mut self, text: Text<'_>, row: usize, codes: &[(u32, f32)]) -> Result<()> {
        let n_rows = text.tokens.len();
        let document = text.documents.partition_point(|&bound| bound <= row);
        let (Some(&start), Some(&end)) = (text.documents.get(document.wrapping_sub(1)), text.documents.get(document))
        else {
            return Err(Error::argument(format!("spans: row {row} of {n_rows}")));
        };
        let tokens = row.saturating_sub(BEFORE).max(start)..(row + AFTER + 1).min(end);
        let at = row - tokens.start;
        let tokens = text.tokens.get(tokens).ok_or_else(|| Error::argument(format!("spans: row {row} of {n_rows}")))?;
        let n_features = self.spans.len();
        let place = self.n_rows + row as u64;
        for &(feature, activation) in codes.iter().filter(|code| code.1 > 0.0) {
            let spans = self.spans.get_mut(feature as usize);
            let spans = spans.ok_or_else(|| Error::argument(format!("spans: feature {feature} of {n_features}")))?;
            let full = spans.len() >= self.n_spans;
            if full && spans.last().is_none_or(|last| last.activation >= activation) {
                continue;
            }
            // Within a document a row is as far from another as their numbers are.
            let near = |span: &Span| {
                place.abs_diff(span.row) < (BEFORE + AFTER + 1) as u64
                    && span.row >= self.n_rows + start as u64
                    && span.row < self.n_rows + end as u64
            };
            if spans.iter().any(|span| near(span) && span.activation >= activation) {
                continue;
            }
            spans.retain(|span| !near(span));
            let rank = spans.partition_point(|span| span.activation >= activation);
            spans.insert(rank, Span { row: place, activation, tokens: tokens.to_vec(), at });
            spans.truncate(self.n_spans);
        }
        Ok(())
    }

    /// Ends a text of `n_rows`.
    pub fn end(&mut self, n_rows: usize) {
        self.n_rows += n_rows as u64;
    }

    /// The spans of every feature, strongest first.
    pub fn into_spans(self) -> Vec<Vec<Span>> {
        self.spans
    }
}

/// The words that spans give: the ranks of the vocabulary's words in them, scored by the activation of the spans that hold
/// them, as a share of the activation of all; best first.
pub fn explain_spans(
    spans: &[Span],
    vocabulary: &Vocabulary,
    token_bytes: &dyn Fn(i32) -> Vec<u8>,
    top: usize,
) -> Vec<(u32, f32)> {
    let total: f32 = spans.iter().map(|span| span.activation).sum();
    let mut scores: BTreeMap<u32, f32> = BTreeMap::new();
    for span in spans {
        let mut words: Vec<u32> = Vec::new();
        scan(&span.text(token_bytes), |_, word| words.extend(vocabulary.rank(word)));
        words.sort_unstable();
        words.dedup();
        words.into_iter().for_each(|word| *scores.entry(word).or_default() += span.activation / total);
    }
    let mut scores: Vec<(u32, f32)> = scores.into_iter().collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scores.truncate(top);
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(token: i32) -> Vec<u8> {
        [" war", " sea", " the"].get(token as usize).map_or(Vec::new(), |p| p.as_bytes().to_vec())
    }

    #[test]
    fn the_strongest_spans_stay_and_do_not_overlap() {
        let tokens: Vec<i32> = (0..100).map(|i| if i < 50 { 0 } else { 1 }).collect();
        let text = Text { tokens: &tokens, positions: &tokens, documents: &[0, 50, 100] };
        let mut top = TopAct::new(2, 2);
        for (row, activation) in [(0, 1.0), (5, 3.0), (7, 2.0), (49, 2.5), (51, 2.6), (99, 0.5)] {
            top.row(text, row, &[(1, activation)]).unwrap();
        }
        top.end(100);
        top.row(text, 5, &[(0, 1.0), (1, -1.0)]).unwrap();
        let spans = top.into_spans();
        let found: Vec<_> = spans[1].iter().map(|s| (s.row, s.activation, s.tokens.len(), s.at)).collect();
        assert_eq!(found, [(5, 3.0, 13, 5), (51, 2.6, 9, 1)]);
        assert_eq!(spans[0][0].row, 105);
        assert_eq!(spans[1][0].text(&piece), " war".repeat(13));
    }

    #[test]
    fn rows_and_features_out_of_range_are_refused() {
        let text = Text { tokens: &[0, 1], positions: &[0, 1], documents: &[0, 2] };
        let mut top = TopAct::new(1, 1);
        assert!(top.row(text, 2, &[]).is_err());
        assert!(top.row(text, 1, &[(1, 1.0)]).is_err());
        assert!(top.row(Text { documents: &[], ..text }, 0, &[]).is_err());
    }

    #[test]
    fn words_of_spans_are_weighted_by_activation() {
        let vocabulary = Vocabulary::from_texts(["the war sea"], 9).unwrap();
        let span = |activation, tokens: &[i32]| Span { row: 0, activation, tokens: tokens.to_vec(), at: 0 };
        let spans = [span(3.0, &[2, 0, 0]), span(1.0, &[2, 1])];
        let rank = |word: &str| vocabulary.rank(word).unwrap();
        assert_eq!(explain_spans(&spans, &vocabulary, &piece, 2), [(rank("the"), 1.0), (rank("war"), 0.75)]);
        assert!(explain_spans(&[], &vocabulary, &piece, 2).is_empty());
    }
}
