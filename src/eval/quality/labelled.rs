//! k-sparse probing on labelled text, as SAEBench has it: do single features say what a text is?
//!
//! A text is the mean of its codes over all tokens but attention sinks. For each label, texts with it stand against as many
//! others; the k features whose means differ most on training texts enter a logistic regression, which is tested on other
//! texts. Beside it: the same of the model's own coordinates, and of all of them (the skyline).
//!
//! Ours: columns are brought to mean 0 and variance 1 first, so that the penalty (C = 1) treats them alike.

use std::collections::BTreeMap;
use std::path::Path;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::file::text;
use crate::num::rng;
use crate::progress::silent;
use crate::train::probe::{Options, fit};

/// The numbers of features that are tried.
pub const KS: [usize; 3] = [1, 2, 5];
/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 16 << 20;
/// Texts that are read, at most.
const MOST: usize = 20_000;
/// Fewest texts with a label, and labels at most.
const LEAST: usize = 8;
const MOST_LABELS: usize = 64;
/// Share of the texts that tests.
const TEST: f64 = 0.3;

/// A text with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The text.
    pub text: String,
    /// What it is.
    pub label: String,
}

/// How well a label is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The label.
    pub label: String,
    /// Texts to train and to test on, half of them with the label.
    pub texts: [usize; 2],
    /// Test accuracy of the best k features, for each of [`KS`].
    pub features: Vec<f64>,
    /// The same of the best k coordinates of the rows.
    pub coordinates: Vec<f64>,
    /// Test accuracy of all coordinates.
    pub rows: f64,
    /// The best features, the best first.
    pub best: Vec<u32>,
}

/// Texts and labels of a JSONL file: `text` and the key `label` of every object, a string or a number.
///
/// # Errors
/// [`Io`](crate::Kind::Io); [`Format`](crate::Kind::Format) with file and line for what lacks either, and with fewer than
/// two labels that have eight texts.
pub fn open(path: &Path, label: &str) -> Result<Vec<Labelled>> {
    let hint = format!("a line is {{\"text\": \"…\", \"{label}\": \"…\"}}");
    let mut all = Vec::new();
    text::for_each_line(path, LONGEST_LINE, |number, line| {
        if all.len() == MOST {
            return Ok(());
        }
        let wrong = |what: &str| text::wrong(path, number, what).hinted(&hint);
        let read: Value = serde_json::from_str(line).map_err(|e| wrong(&e.to_string()))?;
        let text = read.get("text").and_then(Value::as_str).ok_or_else(|| wrong("text: expected a string"))?;
        let label = match read.get(label) {
            Some(Value::String(label)) => label.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(yes)) => yes.to_string(),
            _ => return Err(wrong(&format!("{label}: expected a string or a number, found none"))),
        };
        all.push(Labelled { text: text.to_owned(), label });
        Ok(())
    })?;
    if labels(&all).len() < 2 {
        return Err(Error::format(path, format!("expected two labels with {LEAST} texts each")).hinted(hint));
    }
    Ok(all)
}

/// The labels with enough texts, in order.
fn labels(texts: &[Labelled]) -> Vec<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    texts.iter().for_each(|text| *counts.entry(&text.label).or_default() += 1);
    counts.into_iter().filter(|(_, n)| *n >= LEAST).map(|(label, _)| label).take(MOST_LABELS).collect()
}

/// Probes `codes` `[texts, n_features]` and `rows` `[texts, d_model]`, the means of each text, for every label that has
/// enough texts.
///
/// # Errors
/// As [`fit`].
pub fn read(texts: &[Labelled], codes: &[f32], rows: &[f32], seed: u64, threads: usize) -> Result<Vec<Reading>> {
    let widths = [codes, rows].map(|x| x.len() / texts.len().max(1));
    let mut rng = rng(seed);
    let mut all = Vec::new();
    for label in labels(texts) {
        let (mut with, mut without): (Vec<usize>, Vec<usize>) =
            (0..texts.len()).partition(|&i| texts[i].label == label);
        with.shuffle(&mut rng);
        without.shuffle(&mut rng);
        let n = with.len().min(without.len());
        let n_test = ((n as f64 * TEST) as usize).max(1);
        let part = |range: std::ops::Range<usize>| -> (Vec<usize>, Vec<bool>) {
            let places = with[range.clone()].iter().chain(&without[range.clone()]).copied().collect();
            (places, [vec![true; range.len()], vec![false; range.len()]].concat())
        };
        let (train, test) = (part(n_test..n), part(0..n_test));
        let curve = |x: &[f32], width: usize| -> Result<(Vec<f64>, Vec<u32>)> {
            let order = by_difference(x, width, &train.0, &train.1);
            let accuracy = |&k: &usize| accuracy(x, width, &order[..k.min(order.len())], [&train, &test], threads);
            Ok((KS.iter().map(accuracy).collect::<Result<_>>()?, order[..KS[2].min(order.len())].to_vec()))
        };
        let (features, best) = curve(codes, widths[0])?;
        let (coordinates, _) = curve(rows, widths[1])?;
        let every: Vec<u32> = (0..widths[1] as u32).collect();
        let skyline = accuracy(rows, widths[1], &every, [&train, &test], threads)?;
        let texts = [train.0.len(), test.0.len()];
        all.push(Reading { label: label.to_owned(), texts, features, coordinates, rows: skyline, best });
    }
    Ok(all)
}

/// Columns by |mean with the label − mean without|, the largest first.
pub(super) fn by_difference(x: &[f32], width: usize, places: &[usize], labels: &[bool]) -> Vec<u32> {
    let mut difference = vec![0f64; width];
    for (&place, &with) in places.iter().zip(labels) {
        // Both halves have as many texts.
        let sign = if with { 1.0 } else { -1.0 };
        difference.iter_mut().zip(&x[place * width..][..width]).for_each(|(d, &v)| *d += sign * f64::from(v));
    }
    let mut order: Vec<u32> = (0..width as u32).collect();
    let size = |i: u32| difference[i as usize].abs();
    order.sort_by(|&a, &b| size(b).total_cmp(&size(a)).then(a.cmp(&b)));
    order
}

/// Test accuracy of a logistic regression on some columns.
pub(super) fn accuracy(
    x: &[f32],
    width: usize,
    columns: &[u32],
    [train, test]: [&(Vec<usize>, Vec<bool>); 2],
    threads: usize,
) -> Result<f64> {
    let part = |places: &[usize]| -> Vec<f32> {
        places.iter().flat_map(|&p| columns.iter().map(move |&c| x[p * width + c as usize])).collect()
    };
    let options = Options { threads, ..Options::default() };
    let probe = fit(&part(&train.0), columns.len(), &train.1, &options, &mut silent)?;
    Ok(probe.score(&part(&test.0), &test.1).accuracy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_feature_that_says_the_label_is_found() {
        let mut rng = rng(3);
        let names = ["news", "law", "song"];
        let texts: Vec<Labelled> =
            (0..120).map(|i| Labelled { text: String::new(), label: names[i % 3].into() }).collect();
        // Feature 5 says "law", 7 and 8 together "song"; the rows say nothing.
        let codes: Vec<f32> = (0..120 * 10)
            .map(|at| {
                let (i, feature) = (at / 10, at % 10);
                let noise = rng.random_range(0f32..0.4);
                match (i % 3, feature) {
                    (1, 5) => 1.0 + noise,
                    (2, 7) if i % 2 == 0 => 2.0 + noise,
                    (2, 8) if i % 2 == 1 => 2.0 + noise,
                    _ => noise,
                }
            })
            .collect();
        let rows: Vec<f32> = (0..120 * 4).map(|_| rng.random_range(-1f32..1.0)).collect();
        let found = read(&texts, &codes, &rows, 1, 1).unwrap();
        assert_eq!(found.iter().map(|r| &*r.label).collect::<Vec<_>>(), ["law", "news", "song"]);
        let [law, _, song] = &found[..] else { panic!() };
        assert_eq!((law.features[0], law.best[0], law.texts), (1.0, 5, [56, 24]));
        assert!(song.features[0] < 0.9 && song.features[1] == 1.0, "{song:?}");
        assert!(found.iter().all(|r| r.coordinates.iter().chain([&r.rows]).all(|a| *a < 0.8)), "{found:?}");
        assert_eq!(read(&texts, &codes, &rows, 1, 2).unwrap(), found);
    }

    #[test]
    fn mistakes_in_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l.jsonl");
        for (lines, what) in [
            ("{\"text\": \"a\"}", "l.jsonl:1: topic: expected"),
            ("{\"topic\": \"a\"}", "text: expected a string"),
            ("{\"text\": \"a\", \"topic\": \"b\"}", "two labels"),
            ("[", "l.jsonl:1"),
        ] {
            std::fs::write(&path, lines).unwrap();
            let error = open(&path, "topic").unwrap_err();
            assert!(error.message().contains(what), "{error}");
        }
        let line = |label: usize| format!("{{\"text\": \"t\", \"topic\": {label}}}\n");
        std::fs::write(&path, (0..16).map(|i| line(i % 2)).collect::<String>()).unwrap();
        assert_eq!(open(&path, "topic").unwrap().len(), 16);
    }
}
