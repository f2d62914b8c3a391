//! Planted words: each estimator must find, at the head of a feature's explanation, the word that the feature was made for.

use rand::Rng;
use tiller::explain::counted::{Count, count};
use tiller::explain::lens::{Condition, Lens, Mode, Sight, score, word_vectors};
use tiller::explain::tuned::{DEFAULT_RIDGE, Fit};
use tiller::explain::vocabulary::{Counter, Vocabulary};
use tiller::explain::windows::{Collector, Text, Windows};
use tiller::num::{Mat, gemm, rng};
use tiller::progress::silent;

const N_WORDS: usize = 600;
const N_FEATURES: usize = 300;

/// The share of features whose first word is the planted one.
fn led(explained: &[Vec<(u32, f32)>], planted: impl Fn(usize) -> usize) -> f64 {
    let hits =
        explained.iter().enumerate().filter(|(c, words)| words.first().is_some_and(|w| w.0 as usize == planted(*c)));
    hits.count() as f64 / explained.len() as f64
}

fn name(word: usize) -> String {
    let letter = |i: usize| char::from(b'a' + (i % 26) as u8);
    ["w", "o"].concat() + &[letter(word / 676), letter(word / 26), letter(word)].iter().collect::<String>()
}

/// A vocabulary in which word i has rank i.
fn vocabulary() -> Vocabulary {
    let mut counter = Counter::new();
    (0..N_WORDS).for_each(|word| counter.add(&format!("{} ", name(word)).repeat(N_WORDS - word)));
    counter.finish(N_WORDS).unwrap()
}

/// 100,000 tokens, word frequencies like 1 / rank. Feature c fires on most occurrences of its word, and on tokens of no
/// relation; feature 0 fires everywhere.
fn planted_windows(vocabulary: &Vocabulary, planted: impl Fn(usize) -> usize) -> Windows {
    let mut rng = rng(7);
    let mut feature_of = vec![None; N_WORDS];
    (1..N_FEATURES).for_each(|c| feature_of[planted(c)] = Some(c as u32));
    let mut tokens: Vec<i32> = Vec::new();
    let mut documents = vec![0];
    while tokens.len() < 100_000 {
        for _ in 0..rng.random_range(1..900) {
            tokens.push(((N_WORDS as f64).powf(rng.random::<f64>()) - 1.0) as i32);
        }
        documents.push(tokens.len());
    }
    let positions = vec![1; tokens.len()];
    let mut collector = Collector::new(vocabulary, N_FEATURES, 32, 1.0).unwrap();
    let text = Text { tokens: &tokens, positions: &positions, documents: &documents };
    let rows = collector.text(text, &|token| format!(" {}", name(token as usize)).into_bytes()).unwrap();
    assert_eq!(rows.len(), tokens.len());
    for &token in &tokens {
        let mut codes = vec![(0, 5.0)];
        codes.extend(feature_of[token as usize].filter(|_| rng.random_bool(0.8)).map(|c| (c, 1.5)));
        codes.extend((0..2).map(|_| (rng.random_range(1..N_FEATURES as u32), 0.5)));
        collector.row(&codes).unwrap();
    }
    collector.finish().unwrap()
}

#[test]
fn data_finds_planted_words_on_any_number_of_threads() {
    let vocabulary = vocabulary();
    let planted = |c: usize| 2 * c % N_WORDS;
    let windows = planted_windows(&vocabulary, planted);
    let explained = count(&windows, &Count::default());
    assert!(explained[0].is_empty(), "feature 0 fires in more than half of the windows");
    let share = led(&explained[1..], |c| planted(c + 1));
    println!("data: {:.1} % of planted words lead", 100.0 * share);
    assert!(share >= 0.9, "{share}");
    for threads in [2, 5] {
        assert_eq!(explained, count(&windows, &Count { threads, ..Count::default() }), "{threads} threads");
    }
}

#[test]
fn data_agrees_with_the_plain_formula() {
    let vocabulary = vocabulary();
    let windows = planted_windows(&vocabulary, |c| 2 * c % N_WORDS);
    let explained =
        count(&windows, &Count { top: N_WORDS, min_together: 1, min_evidence: 0.0, max_share: 1.0, threads: 1 });
    let n = windows.len();
    let held: Vec<Vec<bool>> = (0..n).map(|i| flags(windows.words_of(i), N_WORDS)).collect();
    let fired: Vec<Vec<bool>> = (0..n).map(|i| flags(windows.features_of(i), N_FEATURES)).collect();
    for c in (0..N_FEATURES).step_by(37) {
        let mut expected: Vec<(u32, f64)> = Vec::new();
        for w in 0..N_WORDS {
            let mut p = [[0f64; 2]; 2];
            (0..n).for_each(|i| p[usize::from(fired[i][c])][usize::from(held[i][w])] += 1.0 / n as f64);
            let margin = |a: usize, b: usize| (p[a][0] + p[a][1]) * (p[0][b] + p[1][b]);
            let term =
                |(a, b): (usize, usize)| if p[a][b] > 0.0 { p[a][b] * (p[a][b] / margin(a, b)).ln() } else { 0.0 };
            if p[1][1] - margin(1, 1) > 1e-12 {
                expected.push((w as u32, [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().map(term).sum()));
            }
        }
        let found: std::collections::HashMap<u32, f32> = explained[c].iter().copied().collect();
        assert_eq!(found.len(), expected.len(), "feature {c}");
        for (w, information) in expected {
            assert!((f64::from(found[&w]) - information).abs() < 1e-7, "feature {c}, word {w}");
        }
    }
}

fn flags(set: &[u32], n: usize) -> Vec<bool> {
    let mut flags = vec![false; n];
    set.iter().for_each(|i| flags[*i as usize] = true);
    flags
}

const D_MODEL: usize = 96;

fn gauss_rows(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = rng(seed);
    let mut gauss = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
    (0..n * D_MODEL).map(|_| scale * gauss()).collect()
}

fn times(rows: &[f32], map: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; rows.len()];
    let n = rows.len() / D_MODEL;
    gemm(Mat::new(rows, n, D_MODEL), Mat::new(map, D_MODEL, D_MODEL), false, &mut out, 2);
    out
}

/// Word vectors and decoder rows that point at their planted words. Besides, all rows share axis 0, and the ten most frequent
/// words lie along it with a larger score than the planted word's: only normalising over the features tells them apart.
struct Planting {
    words: Vec<f32>,
    decoder: Vec<f32>,
    norm: Vec<f32>,
}

/// Entries of the noise on a decoder row; its word vector's are around 0.09.
const NOISE: f32 = 0.02;

impl Planting {
    fn new(noise: f32) -> Self {
        let mut words = gauss_rows(N_WORDS, 0.09, 2);
        for (w, e) in words.chunks_mut(D_MODEL).enumerate() {
            e[0] = 0.0;
            if w < 10 {
                e.iter_mut().for_each(|v| *v *= 0.2);
                e[0] = 0.88;
            }
        }
        let mut decoder = gauss_rows(N_FEATURES, noise, 3);
        for (c, row) in decoder.chunks_mut(D_MODEL).enumerate() {
            let e = &words[planted(c) * D_MODEL..][..D_MODEL];
            row.iter_mut().zip(e).for_each(|(v, e)| *v += e);
            row[0] = 1.0;
        }
        Self { words, decoder, norm: vec![1.0; D_MODEL] }
    }

    fn explain(&self, decoder: &[f32], map: Option<&[f32]>, options: &Lens) -> Vec<Vec<(u32, f32)>> {
        let decoder_row = |c: usize, row: &mut [f32]| row.copy_from_slice(&decoder[c * D_MODEL..][..D_MODEL]);
        let sight = Sight {
            n_features: N_FEATURES,
            decoder_row: &decoder_row,
            map,
            norm: &self.norm,
            eps: 1e-5,
            words: &self.words,
        };
        score(&sight, options, &mut silent).unwrap()
    }
}

fn planted(c: usize) -> usize {
    20 + c
}

#[test]
fn lens_finds_planted_words_and_literal_shows_the_trap() {
    let planting = Planting::new(NOISE);
    let share = |mode, condition| {
        let explained = planting.explain(&planting.decoder, None, &Lens { mode, condition, ..Lens::default() });
        let share = led(&explained, planted);
        println!("lens {mode:?}/{condition:?}: {:.1} % of planted words lead", 100.0 * share);
        share
    };
    assert!(share(Mode::Mi, Condition::Softmax) >= 0.9);
    assert!(share(Mode::Mi, Condition::Bayes) >= 0.9);
    // p(w|c) log p(c|w) ≤ 0: the best is the least related.
    assert!(share(Mode::Literal, Condition::Softmax) <= 0.05);
    assert!(share(Mode::Literal, Condition::Bayes) <= 0.05);
    // What normalising over the features is for: the common words lead most features of the logit lens.
    assert!(share(Mode::Logit, Condition::Softmax) <= 0.5);
}

/// How much noise on its direction each way of reading a feature bears: the mutual information never less than the logit lens.
#[test]
fn lens_bears_more_noise_than_the_logit_lens() {
    let mut shares = Vec::new();
    for noise in [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8] {
        let planting = Planting::new(noise);
        let share = |mode| led(&planting.explain(&planting.decoder, None, &Lens { mode, ..Lens::default() }), planted);
        let (mi, logit) = (share(Mode::Mi), share(Mode::Logit));
        println!("noise {noise}: mi {:.1} %, logit lens {:.1} %", 100.0 * mi, 100.0 * logit);
        shares.push((mi, logit));
    }
    assert!(shares.iter().all(|(mi, logit)| mi >= logit), "{shares:?}");
    // The sweep reaches from where all is clear to where little is.
    assert!(shares[0].0 >= 0.9 && shares[shares.len() - 1].0 <= 0.5, "{shares:?}");
}

#[test]
fn lens_does_not_depend_on_threads_and_agrees_with_the_plain_formula() {
    let planting = Planting::new(NOISE);
    for mode in [Mode::Mi, Mode::Literal, Mode::Logit] {
        for condition in [Condition::Softmax, Condition::Bayes] {
            let options = Lens { mode, condition, top: N_WORDS, threads: 1 };
            let one = planting.explain(&planting.decoder, None, &options);
            let five = planting.explain(&planting.decoder, None, &Lens { threads: 5, ..options });
            assert_eq!(one, five, "{mode:?} {condition:?}");
            let plain = plain(&planting, mode, condition);
            for (c, words) in one.iter().enumerate() {
                assert_eq!(words.len(), N_WORDS);
                let largest = plain[c].iter().fold(0f64, |m, v| m.max(v.abs()));
                for &(w, found) in words {
                    let expected = plain[c][w as usize];
                    assert!((f64::from(found) - expected).abs() < 1e-4 * largest, "{mode:?} {condition:?} {c} {w}");
                }
            }
        }
    }
}

/// The formulas of the module's head, in f64, one after the other.
fn plain(planting: &Planting, mode: Mode, condition: Condition) -> Vec<Vec<f64>> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let rms = |row: &[f32]| (dot(row, row) / D_MODEL as f64 + 1e-5).sqrt();
    let scores = |row: &[f32]| planting.words.chunks(D_MODEL).map(|e| dot(row, e) / rms(row)).collect::<Vec<f64>>();
    let s: Vec<Vec<f64>> = planting.decoder.chunks(D_MODEL).map(scores).collect();
    let shares = |values: Vec<f64>| {
        let sum: f64 = values.iter().sum();
        values.into_iter().map(|v| v / sum).collect::<Vec<f64>>()
    };
    let word_given: Vec<Vec<f64>> = s.iter().map(|row| shares(row.iter().map(|s| s.exp()).collect())).collect();
    let mut feature_given = vec![vec![0.0; N_WORDS]; N_FEATURES];
    for w in 0..N_WORDS {
        let given = match condition {
            Condition::Softmax => shares(s.iter().map(|row| row[w].exp()).collect()),
            Condition::Bayes => shares(word_given.iter().map(|row| row[w]).collect()),
        };
        given.into_iter().enumerate().for_each(|(c, p)| feature_given[c][w] = p);
    }
    let prior = (N_FEATURES as f64).ln();
    let term = |c: usize, w: usize| match mode {
        Mode::Mi => word_given[c][w] * (feature_given[c][w].ln() + prior),
        Mode::Literal => word_given[c][w] * feature_given[c][w].ln(),
        Mode::Logit => s[c][w],
    };
    (0..N_FEATURES).map(|c| (0..N_WORDS).map(|w| term(c, w)).collect()).collect()
}

#[test]
fn tuned_finds_planted_words_where_the_lens_is_blind() {
    let planting = Planting::new(NOISE);
    // The layer speaks another language: y = x·T + b for a random T; the decoder rows are those of `planting` times T⁻¹.
    let translation = gauss_rows(D_MODEL, 0.1, 5);
    let mut inverse = Fit::new(D_MODEL);
    let samples = gauss_rows(4000, 1.0, 6);
    inverse.add(&times(&samples, &translation), &samples, 2).unwrap();
    let decoder = times(&planting.decoder, &inverse.solve(1e-9).unwrap());

    let from = gauss_rows(3000, 2.0, 8);
    let noise = gauss_rows(3000, 0.05, 9);
    let mut to = times(&from, &translation);
    to.iter_mut().zip(&noise).enumerate().for_each(|(i, (y, e))| *y += e + (i % D_MODEL) as f32);
    let mut fit = Fit::new(D_MODEL);
    for (from, to) in from.chunks(700 * D_MODEL).zip(to.chunks(700 * D_MODEL)) {
        fit.add(from, to, 2).unwrap();
    }
    let map = fit.solve(1e-2 * DEFAULT_RIDGE).unwrap();
    let blind = led(&planting.explain(&decoder, None, &Lens::default()), planted);
    let tuned = led(&planting.explain(&decoder, Some(&map), &Lens::default()), planted);
    println!("tuned: {:.1} % of planted words lead, {:.1} % without the map", 100.0 * tuned, 100.0 * blind);
    assert!(tuned >= 0.9, "{tuned}");
    assert!(blind <= 0.1, "{blind}");
}

#[test]
fn a_map_needs_rows_and_a_ridge() {
    let mut fit = Fit::new(4);
    assert!(fit.add(&[0.0; 8], &[0.0; 4], 1).is_err());
    assert!(fit.add(&[f32::NAN; 4], &[0.0; 4], 1).is_err());
    assert!(fit.solve(1e-3).unwrap_err().message().contains("at least 4 rows"));
    fit.add(&gauss_rows(1, 1.0, 1), &gauss_rows(1, 1.0, 2), 1).unwrap();
    assert_eq!(fit.n_rows(), (D_MODEL / 4) as u64);
    assert!(fit.solve(0.0).is_err());
    assert!(fit.solve(1e-3).is_ok());
}

#[test]
fn word_vectors_are_means_without_a_bare_space_in_front() {
    let tokenize = |text: &str| {
        Ok(match text {
            " war" => vec![9, 1, 2],
            " sea" => vec![3],
            " " => vec![9],
            _ => vec![],
        })
    };
    let bytes = |token: i32| if token == 9 { b" ".to_vec() } else { b"x".to_vec() };
    let row = |token: i32, row: &mut [f32]| {
        row.fill(token as f32);
        Ok(())
    };
    let vectors = word_vectors(["war", "sea", ""], 2, &tokenize, &bytes, &row).unwrap();
    assert_eq!(vectors, [1.5, 1.5, 3.0, 3.0, 9.0, 9.0]);
    let error = word_vectors(["gap"], 2, &tokenize, &bytes, &row).unwrap_err();
    assert!(error.message().contains("\"gap\""));
}

#[test]
fn a_lens_refuses_what_is_not_finite_or_does_not_fit() {
    let words = [1.0, 0.0, 0.0, 1.0];
    let rows = |c: usize, row: &mut [f32]| row.fill(if c == 1 { f32::NAN } else { 1.0 });
    let sight = Sight { n_features: 2, decoder_row: &rows, map: None, norm: &[1.0; 2], eps: 1e-5, words: &words };
    let error = score(&sight, &Lens::default(), &mut silent).unwrap_err();
    assert!(error.message().contains("feature 1"), "{error}");
    let one = Sight { n_features: 1, ..sight };
    assert_eq!(score(&one, &Lens::default(), &mut silent).unwrap()[0].len(), 2);
    assert!(score(&Sight { words: &words[..3], ..one }, &Lens::default(), &mut silent).is_err());
    assert!(score(&Sight { map: Some(&words[..3]), ..one }, &Lens::default(), &mut silent).is_err());
    assert!(score(&Sight { norm: &[f32::INFINITY; 2], ..one }, &Lens::default(), &mut silent).is_err());
    let cancelled = score(&one, &Lens::default(), &mut |_| false).unwrap_err();
    assert_eq!(cancelled.kind(), tiller::Kind::Cancelled);
}
