//! Text cut into windows: which features fire in each, and which words occur in it.
//!
//! A document of n tokens is cut into ⌈n / length⌉ windows of almost equal size; no window crosses the bound of a
//! document. A word belongs to the window that holds its tokens; one that the edge of a window cuts belongs to both sides,
//! since its pieces fire features on both. Rows at position 0 take no part: the attention sink is no topic.
//!
//! Windows are what [`count`](super::counted::count) counts over. They are collected row by row, so that neither the
//! residual rows nor their codes are ever held: a million tokens at 32 features a token leave about 60 MB here.

use super::vocabulary::{Vocabulary, scan};
use crate::error::{Error, Result};

/// Lists of indices, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    offsets: Vec<usize>,
    items: Vec<u32>,
}

impl Lists {
    fn new() -> Self {
        Self { offsets: vec![0], items: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(super) fn list(&self, at: usize) -> &[u32] {
        &self.items[self.offsets[at]..self.offsets[at + 1]]
    }

    fn end_list(&mut self) {
        self.offsets.push(self.items.len());
    }

    /// List i of the answer holds every j whose list here holds i, ascending; `n` lists.
    pub(super) fn transposed(&self, n: usize) -> Self {
        let mut offsets = vec![0usize; n + 1];
        self.items.iter().for_each(|&i| offsets[i as usize + 1] += 1);
        (0..n).for_each(|i| offsets[i + 1] += offsets[i]);
        let mut next = offsets.clone();
        let mut items = vec![0u32; self.items.len()];
        for (j, at) in (0u32..).zip(0..self.len()) {
            for &i in self.list(at) {
                items[next[i as usize]] = j;
                next[i as usize] += 1;
            }
        }
        Self { offsets, items }
    }

    /// How many lists hold each of the `n` indices.
    pub(super) fn holders(&self, n: usize) -> Vec<u32> {
        let mut holders = vec![0u32; n];
        self.items.iter().for_each(|&i| holders[i as usize] += 1);
        holders
    }
}

/// What one feature did over the rows that took part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fired {
    /// In how many rows it fired.
    pub rows: u64,
    /// The sum of its activations.
    pub sum: f64,
    /// Its largest activation.
    pub max: f32,
}

/// Windows of text with their words and active features.
#[derive(Clone, Debug)]
pub struct Windows {
    pub(super) features: Lists,
    pub(super) words: Lists,
    pub(super) n_words: usize,
    pub(super) fired: Vec<Fired>,
    n_rows: u64,
}

impl Windows {
    /// The number of windows.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no window.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of rows that took part.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// The number of features.
    pub fn n_features(&self) -> usize {
        self.fired.len()
    }

    /// The features that fire in `window`, each once, in no order.
    pub fn features_of(&self, window: usize) -> &[u32] {
        self.features.list(window)
    }

    /// The ranks of the words that occur in `window`, each once, in the order of the text.
    pub fn words_of(&self, window: usize) -> &[u32] {
        self.words.list(window)
    }

    /// What each feature did, `[n_features]`.
    pub fn fired(&self) -> &[Fired] {
        &self.fired
    }

    /// The share of rows in which `feature` fired, and its mean positive activation.
    pub fn density_and_mean(&self, feature: usize) -> (f32, f32) {
        let fired = self.fired.get(feature).copied().unwrap_or_default();
        let density = fired.rows as f64 / self.n_rows.max(1) as f64;
        (density as f32, (fired.sum / fired.rows.max(1) as f64) as f32)
    }
}

/// The text of a shard: tokens in order, their positions, and where its documents begin.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Token ids, `[n_rows]`.
    pub tokens: &'a [i32],
    /// Positions in the context, `[n_rows]`; rows at position 0 take no part.
    pub positions: &'a [i32],
    /// Bounds of the documents, `[n_documents + 1]`, from 0 to `n_rows`.
    pub documents: &'a [usize],
}

impl Text<'_> {
    fn check(&self) -> Result<()> {
        let n = self.tokens.len();
        if self.positions.len() != n {
            return Err(Error::argument(format!("windows: {n} tokens, but {} positions", self.positions.len())));
        }
        let in_order = self.documents.is_sorted();
        if self.documents.first() != Some(&0) || self.documents.last() != Some(&n) || !in_order {
            return Err(Error::argument(format!("windows: document bounds must rise from 0 to {n}")));
        }
        Ok(())
    }
}

/// Collects [`Windows`], text by text and row by row.
///
/// Call [`text`](Self::text) with a shard's tokens, then [`row`](Self::row) once for each of the rows that it asks for,
/// then the next shard; [`finish`](Self::finish) at the end.
#[derive(Debug)]
pub struct Collector<'v> {
    vocabulary: &'v Vocabulary,
    length: usize,
    share: f64,
    n_seen: u64,
    windows: Windows,
    /// Rows that the windows in hand still await.
    awaited: std::collections::VecDeque<usize>,
    /// Per feature and per word: 1 + the last window that got it.
    feature_in: Vec<u32>,
    word_in: Vec<u32>,
}

impl<'v> Collector<'v> {
    /// A collector of windows of up to `length` tokens for a dictionary of `n_features`. Of all windows only `share`
    /// (0 to 1) is kept, spread evenly over the text.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if `length` is 0 or `share` is not in (0, 1].
    pub fn new(vocabulary: &'v Vocabulary, n_features: usize, length: usize, share: f64) -> Result<Self> {
        if length == 0 {
            return Err(Error::argument("windows: expected a length of at least 1 token, found 0"));
        }
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::argument(format!("windows: expected a share in (0, 1], found {share}")));
        }
        let windows = Windows {
            features: Lists::new(),
            words: Lists::new(),
            n_words: vocabulary.len(),
            fired: vec![Fired::default(); n_features],
            n_rows: 0,
        };
        Ok(Self {
            vocabulary,
            length,
            share,
            n_seen: 0,
            windows,
            awaited: std::collections::VecDeque::new(),
            feature_in: vec![0; n_features],
            word_in: vec![0; vocabulary.len()],
        })
    }

    /// Lays the windows of `text` and finds their words. `token_bytes` gives the bytes of a token; none for one that is not
    /// text (a control token), which then ends a word. The answer is the rows whose codes [`row`](Self::row) awaits.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if the text's lengths do not fit together, or if rows of the text before are
    /// still awaited.
    pub fn text(&mut self, text: Text<'_>, token_bytes: &dyn Fn(i32) -> Vec<u8>) -> Result<Vec<usize>> {
        text.check()?;
        self.all_delivered()?;
        let mut rows = Vec::new();
        for bounds in text.documents.windows(2) {
            let (start, end) = (bounds[0], bounds[1]);
            let n_windows = (end - start).div_ceil(self.length);
            if n_windows == 0 {
                continue;
            }
            let first = self.n_seen;
            self.n_seen += n_windows as u64;
            let kept: Vec<bool> = (first..self.n_seen).map(|g| self.keeps(g)).collect();
            if !kept.contains(&true) {
                continue;
            }
            let window_of = |row: usize| (row - start) * n_windows / (end - start);
            self.find_words(&text.tokens[start..end], &kept, &|token| window_of(start + token), token_bytes);
            let mut sizes = vec![0usize; n_windows];
            for row in start..end {
                if kept[window_of(row)] && text.positions[row] != 0 {
                    sizes[window_of(row)] += 1;
                    rows.push(row);
                }
            }
            self.awaited.extend(sizes.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(size, _)| *size));
        }
        self.end_complete();
        Ok(rows)
    }

    /// Whether window `g`, counted over all text, is one of the share.
    fn keeps(&self, g: u64) -> bool {
        let before = (g as f64 * self.share).floor();
        ((g + 1) as f64 * self.share).floor() > before
    }

    fn find_words(
        &mut self,
        tokens: &[i32],
        kept: &[bool],
        window_of: &dyn Fn(usize) -> usize,
        token_bytes: &dyn Fn(i32) -> Vec<u8>,
    ) {
        let mut bytes = Vec::with_capacity(tokens.len() * 5);
        let mut starts = Vec::with_capacity(tokens.len());
        for &token in tokens {
            starts.push(bytes.len());
            let piece = token_bytes(token);
            if piece.is_empty() { bytes.push(b' ') } else { bytes.extend_from_slice(&piece) }
        }
        let token_at = |byte: usize| starts.partition_point(|&s| s <= byte) - 1;
        // Window by window in order; a word is found at the window where it begins.
        let mut current = 0;
        let mut base = 0;
        for chunk in bytes.utf8_chunks() {
            scan(chunk.valid(), |place, word| {
                let Some(rank) = self.vocabulary.rank(word) else { return };
                let first = window_of(token_at(base + place.start));
                let last = window_of(token_at(base + place.end - 1));
                for window in first..=last {
                    self.end_words(&mut current, window, kept);
                    let stamp = self.windows.words.len() as u32 + 1;
                    if kept[window] && self.word_in[rank as usize] != stamp {
                        self.word_in[rank as usize] = stamp;
                        self.windows.words.items.push(rank);
                    }
                }
            });
            base += chunk.valid().len() + chunk.invalid().len();
        }
        self.end_words(&mut current, kept.len(), kept);
    }

    /// Ends the word lists of the kept windows from `current` up to `window`.
    fn end_words(&mut self, current: &mut usize, window: usize, kept: &[bool]) {
        while *current < window {
            if kept[*current] {
                self.windows.words.end_list();
            }
            *current += 1;
        }
    }

    /// The codes of the next awaited row: features with their activations; only positive ones fire.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if no row is awaited, or a feature is out of range.
    pub fn row(&mut self, codes: &[(u32, f32)]) -> Result<()> {
        if self.awaited.is_empty() {
            return Err(Error::argument("windows: a row was delivered, but none is awaited"));
        }
        let stamp = self.windows.features.len() as u32 + 1;
        for &(feature, value) in codes.iter().filter(|code| code.1 > 0.0) {
            let n_features = self.feature_in.len();
            let Some(seen) = self.feature_in.get_mut(feature as usize) else {
                return Err(Error::argument(format!("windows: feature {feature} of {n_features}")));
            };
            if *seen != stamp {
                *seen = stamp;
                self.windows.features.items.push(feature);
            }
            let fired = &mut self.windows.fired[feature as usize];
            fired.rows += 1;
            fired.sum += f64::from(value);
            fired.max = fired.max.max(value);
        }
        self.windows.n_rows += 1;
        if let Some(left) = self.awaited.front_mut() {
            *left -= 1;
        }
        self.end_complete();
        Ok(())
    }

    /// Ends the feature lists of the windows that await no row.
    fn end_complete(&mut self) {
        while self.awaited.front() == Some(&0) {
            self.awaited.pop_front();
            self.windows.features.end_list();
        }
    }

    fn all_delivered(&self) -> Result<()> {
        match self.awaited.iter().sum::<usize>() {
            0 => Ok(()),
            n => Err(Error::argument(format!("windows: {n} rows of the text before were not delivered"))),
        }
    }

    /// The windows.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if rows are still awaited or there is no window at all.
    pub fn finish(self) -> Result<Windows> {
        self.all_delivered()?;
        if self.windows.is_empty() {
            return Err(Error::argument("windows: expected at least one window of text, found none"));
        }
        Ok(self.windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        Vocabulary::from_texts(["war war war sea sea army"], 10).unwrap()
    }

    /// Tokens are pieces of this text; token -1 is a control token.
    fn piece(token: i32) -> Vec<u8> {
        let pieces: [&[u8]; 8] = [b"war", b" sea", b" ar", b"my", b" x", b"\xc3", b"\xa9", b" "];
        pieces.get(token as usize).map_or(Vec::new(), |p| p.to_vec())
    }

    fn lists(lists: &Lists) -> Vec<Vec<u32>> {
        (0..lists.len()).map(|i| lists.list(i).to_vec()).collect()
    }

    #[test]
    fn no_window_crosses_a_document_and_a_cut_word_is_on_both_sides() {
        let vocabulary = vocabulary();
        let mut collector = Collector::new(&vocabulary, 4, 2, 1.0).unwrap();
        // "war ar|my sea" and "war": windows [war, ar][my, sea] and [war].
        let tokens = [0, 2, 3, 1, 0];
        let positions = [1, 2, 3, 4, 1];
        let text = Text { tokens: &tokens, positions: &positions, documents: &[0, 4, 5] };
        assert_eq!(collector.text(text, &piece).unwrap(), [0, 1, 2, 3, 4]);
        for codes in [&[(0, 1.0), (1, 2.0)][..], &[(0, 3.0)], &[(2, 0.0)], &[], &[(3, 1.0)]] {
            collector.row(codes).unwrap();
        }
        let windows = collector.finish().unwrap();
        assert_eq!(lists(&windows.words), [vec![0, 2], vec![2, 1], vec![0]]);
        assert_eq!(lists(&windows.features), [vec![0, 1], vec![], vec![3]]);
        assert_eq!(windows.fired()[0], Fired { rows: 2, sum: 4.0, max: 3.0 });
        assert_eq!(windows.density_and_mean(0), (0.4, 2.0));
    }

    #[test]
    fn position_0_takes_no_part_and_control_tokens_end_words() {
        let vocabulary = vocabulary();
        let mut collector = Collector::new(&vocabulary, 1, 8, 1.0).unwrap();
        let text = Text { tokens: &[-1, 2, -1, 3, 5, 0, 6], positions: &[0, 1, 2, 3, 4, 5, 6], documents: &[0, 7] };
        assert_eq!(collector.text(text, &piece).unwrap(), [1, 2, 3, 4, 5, 6]);
        (0..6).for_each(|_| collector.row(&[]).unwrap());
        let windows = collector.finish().unwrap();
        // " ar" and "my" are parted by the control token; the bytes of é are no longer a letter around "war".
        assert_eq!(lists(&windows.words), [vec![0]]);
        assert_eq!(windows.n_rows(), 6);
    }

    #[test]
    fn a_share_is_spread_evenly() {
        let vocabulary = vocabulary();
        let mut collector = Collector::new(&vocabulary, 1, 1, 0.25).unwrap();
        let tokens = [0; 16];
        let text = Text { tokens: &tokens, positions: &[1; 16], documents: &[0, 6, 16] };
        let rows = collector.text(text, &piece).unwrap();
        assert_eq!(rows, [3, 7, 11, 15]);
        assert!(collector.text(text, &piece).is_err());
        (0..4).for_each(|_| collector.row(&[(0, 1.0)]).unwrap());
        assert!(collector.row(&[]).is_err());
        assert_eq!(collector.finish().unwrap().len(), 4);
    }

    #[test]
    fn wrong_lengths_and_features_are_refused() {
        let vocabulary = vocabulary();
        assert!(Collector::new(&vocabulary, 1, 0, 1.0).is_err());
        assert!(Collector::new(&vocabulary, 1, 1, f64::NAN).is_err());
        let mut collector = Collector::new(&vocabulary, 1, 1, 1.0).unwrap();
        for documents in [&[0, 2][..], &[1], &[], &[0, 1, 0, 1]] {
            assert!(collector.text(Text { tokens: &[0], positions: &[1], documents }, &piece).is_err());
        }
        assert!(collector.text(Text { tokens: &[0], positions: &[], documents: &[0, 1] }, &piece).is_err());
        collector.text(Text { tokens: &[0], positions: &[1], documents: &[0, 1] }, &piece).unwrap();
        assert!(collector.row(&[(1, 1.0)]).unwrap_err().message().contains("feature 1 of 1"));
    }

    #[test]
    fn transposing_turns_windows_of_words_into_words_of_windows() {
        let mut words = Lists::new();
        for list in [&[2, 0][..], &[], &[2]] {
            words.items.extend_from_slice(list);
            words.end_list();
        }
        assert_eq!(lists(&words.transposed(3)), [vec![0], vec![], vec![0, 2]]);
        assert_eq!(words.holders(3), [1, 0, 2]);
    }
}
