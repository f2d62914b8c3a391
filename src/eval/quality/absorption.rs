//! Feature absorption, after SAEBench (arXiv 2409.14507): does a feature for "begins with S" fail on some words with S,
//! because another feature, say one for "snake", has taken its direction in?
//!
//! ```text
//! p_c      the unit direction of a probe for letter c on rows; a = x·p_c
//! main     the features of the k-sparse probe on codes: k grows while F1 on held-out words rises by 0.03
//! proj_j   f_j cos(d_j, p_c)
//! full     no main feature fires; the feature with the largest proj_j has cos ≥ 0.025 and proj_j ≥ 0.4 a
//! fraction min(A, a − M) / (min(A, a − M) + M)      M = Σ_main proj_j, A: the three largest others with cos ≥ 0.1
//!          0 where M ≥ a or A < 0.4 a; 1 where M ≤ 0
//! ```
//!
//! Words are single tokens of small letters behind some examples of the task; rows are those of the word's token. Held-out
//! words on which the probe is right count; the figures are means over letters. Ours: the same examples stand before all
//! words, and columns are standardised before they are probed.

use serde::{Deserialize, Serialize};

use super::split_words;
use crate::dictionary::Codes;
use crate::error::Result;
use crate::num::dot;
use crate::progress::silent;
use crate::train::probe::{Options, Probe, fit, k_sparse};

/// Features of a letter, at most.
const MOST_MAIN: usize = 10;
/// By how much F1 has to rise for one feature more.
const RISE: f64 = 0.03;
/// Cosines that the feature of a full absorption, and those that share one, have with the probe.
const FULL_COSINE: f32 = 0.025;
const SHARED_COSINE: f32 = 0.1;
/// Share of the projection that they make up.
const PROPORTION: f64 = 0.4;
/// Features that share one, at most.
const SHARING: usize = 3;
/// Fewest words with a letter, to train and to test on.
const LEAST: [usize; 2] = [8, 3];

/// What is absorbed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Absorption {
    /// Words that were read.
    pub words: usize,
    /// Mean over letters of the share of words that are fully absorbed.
    pub full: f64,
    /// Mean over letters of the mean fraction that is absorbed.
    pub fraction: f64,
    /// Every letter with enough words.
    pub letters: Vec<Letter>,
}

/// What is absorbed of a letter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// The letter.
    pub letter: String,
    /// Held-out words that begin with it and on which the probe is right.
    pub words: usize,
    /// Their share that is fully absorbed.
    pub full: f64,
    /// The mean fraction that is absorbed.
    pub fraction: f64,
    /// The features that stand for the letter.
    pub main: Vec<u32>,
    /// F1 of these on held-out words.
    pub f1: f64,
    /// F1 of the probe on rows there.
    pub probe_f1: f64,
}

/// Words as a model reads them.
pub struct Words<'w> {
    /// The first letter of each.
    pub letters: &'w [u8],
    /// `[words, d_model]`
    pub rows: &'w [f32],
    /// Of each row.
    pub codes: &'w Codes,
    /// The decoder rows of all features, each of length 1. `[n_features, d_model]`
    pub directions: &'w [f32],
}

/// What `words` show.
///
/// # Errors
/// As [`fit`].
pub fn absorption(words: &Words<'_>, seed: u64, threads: usize) -> Result<Absorption> {
    let n = words.letters.len();
    let (train, test) = split_words(n, seed);
    let columns = firing(words, &train);
    let mut found = Absorption { words: n, ..Absorption::default() };
    for letter in b'a'..=b'z' {
        let with = |places: &[usize]| places.iter().filter(|&&i| words.letters[i] == letter).count();
        if with(&train) < LEAST[0] || with(&test) < LEAST[1] || columns.is_empty() {
            continue;
        }
        found.letters.extend(one(words, letter, (&train, &test), &columns, threads)?);
    }
    let n = found.letters.len().max(1) as f64;
    found.full = found.letters.iter().map(|letter| letter.full).sum::<f64>() / n;
    found.fraction = found.letters.iter().map(|letter| letter.fraction).sum::<f64>() / n;
    Ok(found)
}

/// Features that fire on three training words or more: others tell no letter.
fn firing(words: &Words<'_>, train: &[usize]) -> Vec<u32> {
    let mut counts = std::collections::BTreeMap::<u32, usize>::new();
    train.iter().flat_map(|&i| words.codes.row(i)).for_each(|(feature, _)| *counts.entry(*feature).or_default() += 1);
    counts.into_iter().filter(|(_, n)| *n >= 3).map(|(feature, _)| feature).collect()
}

/// A letter; nothing where no word is left to look at.
fn one(
    words: &Words<'_>,
    letter: u8,
    (train, test): (&[usize], &[usize]),
    columns: &[u32],
    threads: usize,
) -> Result<Option<Letter>> {
    let d = words.rows.len() / words.letters.len();
    let labels = |places: &[usize]| places.iter().map(|&i| words.letters[i] == letter).collect::<Vec<bool>>();
    let rows = |places: &[usize]| places.iter().flat_map(|&i| &words.rows[i * d..][..d]).copied().collect::<Vec<f32>>();
    let options = Options { threads, ..Options::default() };
    let (y, held_out) = (labels(train), labels(test));
    let probe = fit(&rows(train), d, &y, &options, &mut silent)?;
    let Some(direction) = probe.direction() else { return Ok(None) };
    let (main, f1) = main_features(words, columns, (train, &y), (test, &held_out), &options)?;
    let logits = probe.logits(&rows(test));
    let cosines: Vec<f32> = words.directions.chunks_exact(d).map(|row| dot(row, &direction)).collect();
    let right = (0..test.len()).filter(|&t| held_out[t] && logits[t] > 0.0);
    let seen: Vec<(f64, bool)> = right
        .map(|t| {
            let row = &words.rows[test[t] * d..][..d];
            absorbed(words.codes.row(test[t]), &cosines, &main, f64::from(dot(row, &direction)))
        })
        .collect();
    if seen.is_empty() {
        return Ok(None);
    }
    let n = seen.len() as f64;
    Ok(Some(Letter {
        letter: char::from(letter).to_string(),
        words: seen.len(),
        full: seen.iter().filter(|(_, full)| *full).count() as f64 / n,
        fraction: seen.iter().map(|(fraction, _)| fraction).sum::<f64>() / n,
        main,
        f1,
        probe_f1: f1_of(&logits, &held_out),
    }))
}

/// The features that tell a letter together, and their F1 on held-out words.
fn main_features(
    words: &Words<'_>,
    columns: &[u32],
    (train, labels): (&[usize], &[bool]),
    (test, held_out): (&[usize], &[bool]),
    options: &Options,
) -> Result<(Vec<u32>, f64)> {
    let (train, test) = (dense(words.codes, columns, train), dense(words.codes, columns, test));
    let ks: Vec<usize> = (1..=MOST_MAIN.min(columns.len())).collect();
    let Ok(curve) = k_sparse(&train, columns.len(), labels, &ks, options, &mut silent) else {
        return Ok((Vec::new(), 0.0)); // no feature tells the letter
    };
    let f1 = |probe: &Probe| f1_of(&probe.logits(&test), held_out);
    let mut best = (0, f1(&curve[0].probe));
    for (at, sparse) in curve.iter().enumerate().skip(1) {
        let next = f1(&sparse.probe);
        if next < best.1 + RISE {
            break;
        }
        best = (at, next);
    }
    Ok((curve[best.0].features.iter().map(|&column| columns[column as usize]).collect(), best.1))
}

/// Codes of some features as a table `[places, columns]`.
fn dense(codes: &Codes, columns: &[u32], places: &[usize]) -> Vec<f32> {
    let mut all = vec![0f32; places.len() * columns.len()];
    for (row, &place) in all.chunks_exact_mut(columns.len()).zip(places) {
        for (feature, f) in codes.row(place) {
            if let Ok(column) = columns.binary_search(feature) {
                row[column] = *f;
            }
        }
    }
    all
}

/// 2 TP / (2 TP + FP + FN) of logits above 0; 0 where all are 0.
fn f1_of(logits: &[f32], labels: &[bool]) -> f64 {
    let count =
        |said: bool, is: bool| logits.iter().zip(labels).filter(|(l, y)| (**l > 0.0) == said && **y == is).count();
    let (hit, false_alarm, missed) = (count(true, true), count(true, false), count(false, true));
    let all = 2 * hit + false_alarm + missed;
    if all == 0 { 0.0 } else { 2.0 * hit as f64 / all as f64 }
}

/// The fraction that is absorbed of a word with these codes, and whether it is so fully. `cosines` are those of all
/// decoder rows with the probe, `projection` is that of the row.
pub fn absorbed(codes: &[(u32, f32)], cosines: &[f32], main: &[u32], projection: f64) -> (f64, bool) {
    let cosine = |feature: u32| cosines.get(feature as usize).copied().unwrap_or(0.0);
    let project = |&(feature, f): &(u32, f32)| f64::from(f) * f64::from(cosine(feature));
    let is_main = |feature: u32| main.contains(&feature);
    let own: f64 = codes.iter().filter(|(feature, _)| is_main(*feature)).map(project).sum();
    let others = codes.iter().filter(|(feature, _)| !is_main(*feature) && cosine(*feature) >= SHARED_COSINE);
    let mut others: Vec<f64> = others.map(project).filter(|p| *p > 0.0).collect();
    others.sort_by(|a, b| b.total_cmp(a));
    let taken: f64 = others.iter().take(SHARING).sum();
    let fraction = if own >= projection || taken < PROPORTION * projection {
        0.0
    } else if own <= 0.0 {
        1.0
    } else {
        let part = taken.min(projection - own);
        part / (part + own)
    };
    let silent = codes.iter().all(|(feature, f)| !is_main(*feature) || *f == 0.0);
    let top = codes.iter().max_by(|a, b| project(a).total_cmp(&project(b)).then(b.0.cmp(&a.0)));
    let aligned = |top: &(u32, f32)| cosine(top.0) >= FULL_COSINE && project(top) >= PROPORTION * projection;
    (fraction, silent && projection > 0.0 && top.is_some_and(aligned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_absorbed_by_what_takes_its_projection() {
        let cosines = [0.8, 0.5, 0.2, 0.15, 0.12, 0.01, -0.3];
        let of = |codes: &[(u32, f32)], projection| absorbed(codes, &cosines, &[0], projection);
        assert_eq!(of(&[(0, 10.0)], 8.0), (0.0, false), "the letter's own feature says it all");
        assert_eq!(of(&[(1, 10.0)], 8.0), (1.0, true), "another has taken it");
        assert_eq!(of(&[(1, 4.0)], 8.0), (0.0, false), "2 is less than 0.4 × 8");
        assert!(!of(&[(5, 1000.0)], 8.0).1, "the largest is not aligned");
        assert_eq!(of(&[(5, 1000.0)], 8.0).0, 0.0);
        // M = 4, A = 4: of the 5 that are left of 9, four are taken.
        let (fraction, full) = of(&[(0, 5.0), (1, 8.0)], 9.0);
        // 5 × 0.8 is not quite 4 in 32 bits.
        assert!((fraction - 0.5).abs() < 1e-6 && !full, "{fraction}: its own feature fires");
        // Four share; three count: 1 + 0.6 + 0.48 of 4.
        let (fraction, full) = of(&[(2, 5.0), (3, 4.0), (4, 4.0), (1, 0.1)], 4.0);
        assert!(fraction == 1.0 && !full, "1 alone is less than 0.4 × 4");
        assert_eq!(of(&[], 4.0), (0.0, false));
        assert!(!of(&[(1, 10.0)], -1.0).1, "the probe says no");
    }

    #[test]
    fn f1_counts_hits_and_misses() {
        let labels = [true, true, false, false, true];
        assert!((f1_of(&[1.0, -1.0, 1.0, -1.0, 2.0], &labels) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(f1_of(&[-1.0; 5], &[false; 5]), 0.0);
    }
}
