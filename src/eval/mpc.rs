//! MPC: how well single features say what a concept's log-odds are (arXiv 2601.20420).
//!
//! A concept is a relation between words, such as a country and its capital, given by pairs. On the last-token rows of its
//! words a logistic regression is fitted, and its logits stand for the concept's log-posterior. A feature's codes z are
//! compared with them by Pearson's correlation, after `exp(z − max)`: a coder's codes are log-posteriors up to scale, and
//! their exponential is what is sparse. Each concept is matched with a feature of its own, so that the mean correlation
//! is largest (Hungarian method); that mean is the MPC.
//!
//! What the paper leaves open, decided here: correlations count by their size, because which word of a pair comes first is
//! an accident; the regression has penalty L2, C = 1, on standardised columns; max is over the concept's words. The
//! exponential handicaps sparse codes, whose useful range is a line, so the MPC of the raw codes stands beside it.
//!
//! With 40 words a concept and thousands of features, some feature correlates by accident: compare only featurizers of
//! about the same number of features, and with [`Mpc::shuffled`], the MPC of the same codes for labels dealt anew.

use rand::Rng;

use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::num::{assign, check_finite, rng};
use crate::progress::{Progress, report, silent};
use crate::train::dense::Coder;
use crate::train::probe::{self, Probe};
use std::path::Path;

/// A file of word pairs has some kilobytes.
const MAX_BYTES: u64 = 16 << 20;

#[cfg(feature = "engine")]
use crate::{
    engine::{Document, Engine},
    hook_point::HookPoint,
    progress::Step,
};

/// The pairs that come with the library: 27 relations, in the format of [`Relation::parse`].
pub const PAIRS: &str = include_str!("pairs.tsv");

/// A relation between words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its name.
    pub name: String,
    /// A word without the concept, and its counterpart with it.
    pub pairs: Vec<(String, String)>,
}

impl Relation {
    /// The relations of [`PAIRS`].
    ///
    /// # Errors
    /// None, unless the library was built with other pairs.
    pub fn built_in() -> Result<Vec<Self>> {
        Self::parse(PAIRS, Path::new("built-in pairs"))
    }

    /// Reads a file in the format of [`parse`](Self::parse).
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io); as [`parse`](Self::parse).
    pub fn load(path: &Path) -> Result<Vec<Self>> {
        let text = crate::file::read_text(path, MAX_BYTES)?;
        Self::parse(&text, path)
    }

    /// Reads relations from text: a relation, a word and its counterpart to a line, between tabs; blank lines and lines that
    /// start with # are skipped. Lines of one relation need not stand together. `path` is what errors call the text.
    ///
    /// # Errors
    /// [`Kind::Format`](crate::Kind::Format) for a line that is not three fields, a relation with fewer than two pairs, or
    /// no relation at all.
    pub fn parse(text: &str, path: &Path) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
            let [name, first, second] = fields[..] else {
                let what = format!("line {number}: expected a relation and two words between tabs, found \"{line}\"");
                return Err(Error::format(path, what));
            };
            if name.is_empty() || first.is_empty() || second.is_empty() {
                return Err(Error::format(path, format!("line {number}: expected three fields, found an empty one")));
            }
            let pair = (first.to_owned(), second.to_owned());
            match all.iter_mut().find(|relation| relation.name == name) {
                Some(relation) => relation.pairs.push(pair),
                None => all.push(Self { name: name.to_owned(), pairs: vec![pair] }),
            }
        }
        if let Some(small) = all.iter().find(|relation| relation.pairs.len() < 2) {
            let what = format!("relation \"{}\": expected two pairs or more, found one", small.name);
            return Err(Error::format(path, what));
        }
        if all.is_empty() {
            return Err(Error::format(path, "expected relations, found none"));
        }
        Ok(all)
    }
}

/// A relation's rows: those of its first words, then those of their counterparts.
#[derive(Clone, Debug, PartialEq)]
pub struct Concept {
    /// The relation's name.
    pub name: String,
    /// `[n_words, d_model]`.
    pub rows: Vec<f32>,
    /// Whether a row's word has the concept.
    pub labels: Vec<bool>,
    /// The regression's logits, one for each row.
    pub logits: Vec<f32>,
}

impl Concept {
    /// Fits the regression.
    ///
    /// # Errors
    /// Those of [`probe::fit`].
    pub fn new(name: &str, rows: Vec<f32>, d_model: usize, labels: Vec<bool>) -> Result<Self> {
        let options = probe::Options { threads: 1, ..probe::Options::default() };
        let fitted: Probe = probe::fit(&rows, d_model, &labels, &options, &mut silent).map_err(|e| e.context(name))?;
        let logits = fitted.logits(&rows);
        Ok(Self { name: name.to_owned(), rows, labels, logits })
    }
}

/// Reads the words of `relations` with a model: each word stands alone, behind a space (and BOS where the model wants it),
/// and the row at `point` of its last token is taken. Progress counts words.
///
/// # Errors
/// Those of the engine and of [`probe::fit`]; [`Kind::Cancelled`](crate::Kind::Cancelled).
#[cfg(feature = "engine")]
pub fn read_words(
    engine: &mut Engine,
    relations: &[Relation],
    point: HookPoint,
    progress: &mut Progress<'_>,
) -> Result<Vec<Concept>> {
    let total: usize = relations.iter().map(|relation| 2 * relation.pairs.len()).sum();
    let mut done = 0u64;
    let mut concepts = Vec::with_capacity(relations.len());
    for relation in relations {
        let first = relation.pairs.iter().map(|pair| &pair.0);
        let words = first.chain(relation.pairs.iter().map(|pair| &pair.1));
        let texts: Vec<Document> = words.map(|word| Document::Text(format!(" {word}"))).collect();
        let rows = engine.last_rows(&texts, point, &mut |step| {
            progress(Step { done: done + step.done, total: total as u64, note: &relation.name })
        })?;
        done += texts.len() as u64;
        let n = relation.pairs.len();
        let labels = (0..2 * n).map(|i| i >= n).collect();
        concepts.push(Concept::new(&relation.name, rows, engine.d_model(), labels)?);
    }
    Ok(concepts)
}

/// A concept and the feature that it was matched with.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Match {
    /// The relation's name.
    pub name: String,
    /// The feature.
    pub feature: usize,
    /// |Pearson| between the logits and `exp(z − max)`.
    pub correlation: f64,
}

/// How well features say what concepts are.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Mpc {
    /// Mean |Pearson| of the matched features' `exp(z − max)`.
    pub mpc: f64,
    /// The same with the codes as they are, matched anew.
    pub raw: f64,
    /// `mpc` for labels dealt anew: what chance gives.
    pub shuffled: f64,
    /// `raw` for labels dealt anew.
    pub shuffled_raw: f64,
    /// The matches behind `mpc`.
    pub matches: Vec<Match>,
}

/// [`mpc`] of the features of a dictionary.
///
/// # Errors
/// As [`mpc`]; [`Kind::Mismatch`](crate::Kind::Mismatch) for a dictionary of another width.
pub fn of_dictionary(
    concepts: &[Concept],
    dictionary: &Dictionary,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Mpc> {
    check_width(concepts, dictionary.d_model())?;
    let n = dictionary.n_features();
    let mut encode = |rows: &[f32]| {
        let codes = dictionary.encode_batch(rows, threads);
        let mut dense = vec![0f32; codes.n_rows() * n];
        for (out, row) in dense.chunks_exact_mut(n).zip(codes.rows()) {
            row.iter().for_each(|&(f, value)| out[f as usize] = value);
        }
        dense
    };
    mpc(concepts, n, &mut encode, progress)
}

/// [`mpc`] of the codes of a coder.
///
/// # Errors
/// As [`mpc`]; [`Kind::Mismatch`](crate::Kind::Mismatch) for a coder of another width.
pub fn of_coder(concepts: &[Concept], coder: &Coder, threads: usize, progress: &mut Progress<'_>) -> Result<Mpc> {
    check_width(concepts, coder.d_model())?;
    mpc(concepts, coder.n_latents(), &mut |rows| coder.encode(rows, threads), progress)
}

fn check_width(concepts: &[Concept], d_model: usize) -> Result<()> {
    match concepts.iter().find(|concept| concept.rows.len() != concept.labels.len() * d_model) {
        Some(other) => {
            let found = other.rows.len() / other.labels.len().max(1);
            Err(Error::mismatch(format!("mpc: the rows of {} have width {found}; expected {d_model}", other.name)))
        }
        None => concepts.iter().try_for_each(|concept| {
            check_finite(&concept.rows, d_model, 0).map_err(|e| e.context(format!("mpc: rows of {}", concept.name)))
        }),
    }
}

/// Matches concepts with features. `encode` gives the codes `[n, n_features]` of rows `[n, d_model]`. Progress counts
/// concepts.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) if there are more concepts than features;
/// [`Kind::Numeric`](crate::Kind::Numeric) for codes that are not finite; [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn mpc(
    concepts: &[Concept],
    n_features: usize,
    encode: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    progress: &mut Progress<'_>,
) -> Result<Mpc> {
    let mut tables = [const { Vec::<f64>::new() }; 4];
    let mut generator = rng(0);
    for (done, concept) in (1..).zip(concepts) {
        let codes = encode(&concept.rows);
        if codes.len() != concept.labels.len() * n_features {
            let (found, rows) = (codes.len(), concept.labels.len());
            let what = format!("mpc: expected {rows} rows of {n_features} codes, found {found} values");
            return Err(Error::argument(what));
        }
        if codes.iter().any(|z| !z.is_finite()) {
            return Err(Error::numeric(format!("mpc: {}: expected finite codes", concept.name)));
        }
        let truth = standardize(concept.logits.iter().map(|&v| f64::from(v)).collect());
        let chance = standardize(shuffled(concept, &mut generator)?);
        for f in 0..n_features {
            let column: Vec<f64> = codes.iter().skip(f).step_by(n_features).map(|&z| f64::from(z)).collect();
            let max = column.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponential = standardize(column.iter().map(|z| (z - max).exp()).collect());
            let column = standardize(column);
            let pairs = [(&exponential, &truth), (&column, &truth), (&exponential, &chance), (&column, &chance)];
            for (table, (a, b)) in tables.iter_mut().zip(pairs) {
                table.push(a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>().abs());
            }
        }
        report(progress, done, concepts.len() as u64, &concept.name)?;
    }
    let n = concepts.len();
    let matched = tables.iter().map(|table| assign(table, n, n_features)).collect::<Result<Vec<_>>>()?;
    let mean = |t: usize| {
        let sum: f64 = matched[t].iter().enumerate().map(|(c, &f)| tables[t][c * n_features + f]).sum();
        sum / n as f64
    };
    let matches = concepts.iter().zip(&matched[0]).enumerate().map(|(c, (concept, &feature))| {
        let correlation = tables[0][c * n_features + feature];
        Match { name: concept.name.clone(), feature, correlation }
    });
    Ok(Mpc { mpc: mean(0), raw: mean(1), shuffled: mean(2), shuffled_raw: mean(3), matches: matches.collect() })
}

/// The logits of a regression on labels dealt anew.
fn shuffled(concept: &Concept, generator: &mut impl Rng) -> Result<Vec<f64>> {
    let mut labels = concept.labels.clone();
    for j in (1..labels.len()).rev() {
        labels.swap(j, generator.random_range(0..=j as u64) as usize);
    }
    let d = concept.rows.len() / labels.len();
    let dealt = Concept::new(&concept.name, concept.rows.clone(), d, labels)?;
    Ok(dealt.logits.iter().map(|&v| f64::from(v)).collect())
}

/// Mean 0 and norm 1, so that a sum of products is a correlation; values without spread become zeros.
fn standardize(mut values: Vec<f64>) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter_mut().for_each(|v| *v -= mean);
    let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let scale = if norm > 1e-12 * (1.0 + mean.abs()) { 1.0 / norm } else { 0.0 };
    values.iter_mut().for_each(|v| *v *= scale);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn parse(text: &str) -> Result<Vec<Relation>> {
        Relation::parse(text, Path::new("pairs.tsv"))
    }

    #[test]
    fn the_pairs_that_come_along_are_27_relations_of_20_or_more() {
        let relations = parse(PAIRS).unwrap();
        assert_eq!(relations.len(), 27);
        for relation in &relations {
            assert!(relation.pairs.len() >= 20, "{}: {}", relation.name, relation.pairs.len());
            assert!(relation.pairs.iter().all(|(a, b)| a != b), "{}", relation.name);
        }
    }

    #[test]
    fn pairs_that_are_no_pairs_are_named() {
        for (text, what) in [
            ("a\tb", "line 1: expected a relation"),
            ("# x\n\nr\ta\t\n", "line 3"),
            ("r\ta\tb\n", "found one"),
            ("# nothing\n", "found none"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Format);
            assert!(error.message().contains(what), "{text:?}: {error}");
        }
    }

    /// Rows in which coordinate c is concept c's log-odds; codes are the coordinates in another order, or noise.
    fn concepts(n: usize, words: usize) -> Vec<Concept> {
        let mut rng = rng(4);
        let d = n + 3;
        let mut one = |c: usize| {
            let labels: Vec<bool> = (0..words).map(|i| i % 2 == 0).collect();
            let mut rows = Vec::new();
            for &yes in &labels {
                for j in 0..d {
                    let noise: f32 = rng.random_range(-0.5..0.5);
                    rows.push(if j == c { if yes { 2.0 + noise } else { noise - 2.0 } } else { noise });
                }
            }
            Concept::new(&format!("c{c}"), rows, d, labels).unwrap()
        };
        (0..n).map(&mut one).collect()
    }

    #[test]
    fn planted_features_are_matched_and_noise_is_not() {
        let (n, words) = (4, 40);
        let concepts = concepts(n, words);
        let d = n + 3;
        let mut encode =
            |rows: &[f32]| rows.chunks(d).flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>()).collect();
        let found = mpc(&concepts, d, &mut encode, &mut silent).unwrap();
        let features: Vec<usize> = found.matches.iter().map(|m| m.feature).collect();
        assert_eq!(features, [6, 5, 4, 3]);
        assert!(found.raw > 0.95 && found.mpc > 0.6 && found.mpc < found.raw, "{found:?}");
        assert!(found.shuffled_raw < 0.75 && found.shuffled_raw < found.raw - 0.2, "{found:?}");
        let mut generator = rng(9);
        let mut random = |rows: &[f32]| (0..rows.len()).map(|_| generator.random_range(-1.0..1.0)).collect();
        let noise = mpc(&concepts, d, &mut random, &mut silent).unwrap();
        assert!(noise.mpc < 0.45 && noise.raw < 0.45, "{noise:?}");
    }

    #[test]
    fn codes_that_cannot_be_matched_are_refused() {
        let concepts = concepts(3, 8);
        let mut dead = |rows: &[f32]| vec![0.0; rows.len() / 6 * 3];
        let found = mpc(&concepts, 3, &mut dead, &mut silent).unwrap();
        assert_eq!((found.mpc, found.raw), (0.0, 0.0), "codes that never change say nothing");
        let kind =
            |n, encode: &mut dyn FnMut(&[f32]) -> Vec<f32>| mpc(&concepts, n, encode, &mut silent).unwrap_err().kind();
        assert_eq!(kind(2, &mut |rows| vec![0.0; rows.len() / 6 * 2]), Kind::Argument);
        assert_eq!(kind(3, &mut |_| Vec::new()), Kind::Argument);
        assert_eq!(kind(3, &mut |rows| vec![f32::NAN; rows.len() / 6 * 3]), Kind::Numeric);
    }
}
