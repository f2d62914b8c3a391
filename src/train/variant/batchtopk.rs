//! BatchTopK: the batch keeps its `k · batch` largest positive scores (arXiv 2412.06410).
//!
//! Scores are not kept, so what passes must be known while they are computed: every row pushes what exceeds a guess a
//! little below the cut of the step before, and the cut is then found exactly among what was pushed. A guess that let too
//! little pass is lowered and the scan repeated, so the selection never depends on the guess.

use crate::train::codes::Found;
use crate::train::score::{Block, Keep, Lane, Panels, scan};

/// The share of the last cut that the next guess is: low enough to be wrong rarely, high enough to push little.
const CAUTION: f32 = 0.85;

/// Pushes every score above `guess`.
pub(in crate::train) fn push(panels: &Panels, block: Block<'_>, lanes: &mut [Lane], guess: f32) {
    for lane in lanes.iter_mut() {
        lane.limit = guess;
        lane.items.clear();
    }
    scan(panels, block, lanes, Keep::all());
}

/// Keeps the `wanted` largest of all scores (ties: the earlier row, then the lower feature) and returns the guess
/// for the next step; or the guess to try again with, if too few were pushed.
pub(in crate::train) fn cut(found: &mut [Found], wanted: usize, guess: f32) -> Result<f32, f32> {
    let mut scores: Vec<f32> = Vec::with_capacity(found.iter().map(|found| found.items.len()).sum());
    scores.extend(found.iter().flat_map(|found| found.items.iter().map(|item| item.0)));
    if scores.len() < wanted {
        // Rows with fewer positive scores than wanted keep all of them.
        return if guess > 0.0 { Err(lower(guess)) } else { Ok(0.0) };
    }
    let (above, &mut last, _) = scores.select_nth_unstable_by(wanted - 1, |a, b| b.total_cmp(a));
    let mut ties = 1 + above.iter().filter(|&&score| score == last).count();
    for found in found {
        found.retain(|&(score, _)| {
            let tie = score == last && ties > 0;
            ties -= usize::from(tie);
            score > last || tie
        });
    }
    Ok(CAUTION * last)
}

/// The next lower guess: half, or nothing once halves no longer matter.
fn lower(guess: f32) -> f32 {
    if guess > 1e-3 { guess / 2.0 } else { 0.0 }
}

/// A first guess from the lanes of a few rows, scanned with guess 0.
pub(in crate::train) fn first_guess(lanes: &[Lane], k: usize) -> f32 {
    let mut scores: Vec<f32> = lanes.iter().flat_map(|lane| lane.items.iter().map(|item| item.0)).collect();
    let wanted = k * lanes.len();
    if scores.len() < wanted || wanted == 0 {
        return 0.0;
    }
    CAUTION * *scores.select_nth_unstable_by(wanted - 1, |a, b| b.total_cmp(a)).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(scores: &[&[f32]]) -> Found {
        let lane = |row: &&[f32]| Lane { limit: 0.0, items: row.iter().copied().zip(0..).collect() };
        let mut found = Found::default();
        found.take(&scores.iter().map(lane).collect::<Vec<_>>());
        found
    }

    #[test]
    fn the_batch_keeps_its_largest_and_ties_go_to_the_first() {
        let mut all = [found(&[&[5.0, 1.0, 2.0], &[], &[2.0, 0.5, 2.0]]), found(&[&[0.1, 0.2, 0.3]])];
        let next = cut(&mut all, 3, 0.0).unwrap();
        assert_eq!(next, CAUTION * 2.0);
        assert_eq!((&all[0].items[..], &all[0].ends[..]), (&[(5.0, 0), (2.0, 2), (2.0, 0)][..], &[2, 2, 3][..]));
        assert_eq!((all[1].items.len(), &all[1].ends[..]), (0, &[0][..]));
    }

    #[test]
    fn a_guess_too_high_is_lowered_and_too_few_positives_all_stay() {
        assert_eq!(cut(&mut [found(&[&[5.0]])], 2, 3.0), Err(1.5));
        assert_eq!(cut(&mut [found(&[&[5.0]])], 2, 1e-4), Err(0.0));
        let mut all = [found(&[&[5.0], &[1.0]])];
        assert_eq!(cut(&mut all, 9, 0.0), Ok(0.0));
        assert_eq!(all[0].ends, [1, 2]);
    }
}
