//! Whether a text runs in circles. Perplexity praises that: a sentence written five times is very likely.

use std::collections::HashSet;

/// A run of so many tokens that comes a second time is a loop; answers of this length quote nothing that long.
const REPEAT: usize = 12;
/// A text with fewer distinct pairs of tokens than this is one, too.
const DISTINCT: f64 = 0.5;

/// The longest run of tokens that occurs twice, overlapping or not.
pub(super) fn longest_repeat(tokens: &[i32]) -> usize {
    let mut longest = 0;
    for shift in 1..tokens.len() {
        let mut run = 0;
        for (a, b) in tokens.iter().zip(&tokens[shift..]) {
            run = if a == b { run + 1 } else { 0 };
            longest = longest.max(run);
        }
    }
    longest
}

/// Share of neighbouring pairs that had not come before; 1 for texts without pairs.
pub(super) fn distinct_pairs(tokens: &[i32]) -> f64 {
    let pairs = tokens.len().saturating_sub(1);
    let distinct: HashSet<&[i32]> = tokens.windows(2).collect();
    if pairs == 0 { 1.0 } else { distinct.len() as f64 / pairs as f64 }
}

/// Whether an answer is none: nothing, or a loop.
pub(super) fn is_broken(tokens: &[i32]) -> bool {
    tokens.is_empty() || longest_repeat(tokens) >= REPEAT || distinct_pairs(tokens) < DISTINCT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_told_from_text() {
        let text: Vec<i32> = (0..60).map(|i| i * 7 % 61).collect();
        assert!(!is_broken(&text) && longest_repeat(&text) == 0 && distinct_pairs(&text) == 1.0);
        let sentence: Vec<i32> = (0..60).map(|i| i % 15).collect();
        assert!(is_broken(&sentence) && longest_repeat(&sentence) == 45);
        // A list whose items begin alike is text.
        let list: Vec<i32> = (0..60).map(|i| if i % 10 < 4 { i % 10 } else { 100 + i }).collect();
        assert!(!is_broken(&list) && longest_repeat(&list) == 4);
        assert!(is_broken(&[]) && is_broken(&[5; 9]) && !is_broken(&[5]));
    }
}
