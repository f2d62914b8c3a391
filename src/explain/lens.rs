//! The estimator `lens`: explanations read off the decoder directions, the paper's own (arXiv 2502.15576).
//!
//! ```text
//! e_w     = mean unembedding row of the tokens of " " + w                                     [d_model]
//! s[c,w]  = ⟨RMSNorm_final(W_dec[c]), e_w⟩                                                    [n_features, n_words]
//! p(w|c)  = softmax of s[c,·] over the vocabulary
//! p(c|w)  = softmax of s[·,w] over all features,         or by Bayes' rule: p(w|c) / Σ_c' p(w|c')
//! mi      = p(w|c) · (log p(c|w) + log n_features)       the term of w in I(C;W) under a uniform prior
//! ```
//!
//! The paper states the objective argmax Σ_{w∈V'} p(w|c) log p(c|w). Each summand is ≤ 0, and next to 0 where p(w|c) is: so
//! sorting it in descending order returns the words *least* related to the feature. That form is here as
//! [`Mode::Literal`], to be measured, not used; a test shows the trap.
//!
//! Cost: s has 1.3 GB at 65,536 × 5,000, so it is never held: a first pass over blocks of features takes the log-sum-exp of
//! every column, a second one scores. 2 · 2 · n_features · n_words · d_model operations and one block of memory.

use super::best::Best;
use crate::error::{Error, Result};
use crate::num::parallel::each;
use crate::num::{Mat, gemm};
use crate::progress::{Progress, report};

/// Features a block: 5 MB of scores at 5,000 words.
const BLOCK: usize = 256;

/// What ranks the words of a feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// p(w|c) (log p(c|w) + log n_features).
    #[default]
    Mi,
    /// p(w|c) log p(c|w), as the paper prints it: the trap.
    Literal,
    /// s\[c,w\] itself, the logit lens.
    Logit,
}

/// How p(c|w) comes from s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The softmax of s over the features.
    #[default]
    Softmax,
    /// Bayes' rule on p(w|c), with every feature equally likely.
    Bayes,
}

/// What [`score`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lens {
    /// What ranks the words.
    pub mode: Mode,
    /// How p(c|w) is found.
    pub condition: Condition,
    /// Words kept per feature.
    pub top: usize,
    /// Threads; 0 is taken as 1. The answer does not depend on it.
    pub threads: usize,
}

impl Default for Lens {
    fn default() -> Self {
        Self { mode: Mode::Mi, condition: Condition::Softmax, top: super::TOP_WORDS, threads: 1 }
    }
}

/// What the lens looks at and through.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// The number of features.
    pub n_features: usize,
    /// Fills `[d_model]` with the decoder row of a feature.
    pub decoder_row: &'a dyn Fn(usize, &mut [f32]),
    /// A map `[d_model, d_model]` that decoder rows go through first (x·M), as [`tuned`](super::tuned) fits it.
    pub map: Option<&'a [f32]>,
    /// The weight of the final RMS norm, `[d_model]`.
    pub norm: &'a [f32],
    /// Its epsilon.
    pub eps: f32,
    /// The vectors e_w, `[n_words, d_model]`.
    pub words: &'a [f32],
}

impl Sight<'_> {
    fn check(&self) -> Result<()> {
        let d_model = self.norm.len();
        if d_model == 0 || self.words.is_empty() || !self.words.len().is_multiple_of(d_model) {
            let n = self.words.len();
            return Err(Error::argument(format!("lens: {n} values are no word vectors of width {d_model}")));
        }
        if self.map.is_some_and(|map| map.len() != d_model * d_model) {
            return Err(Error::argument(format!("lens: the map is not [{d_model}, {d_model}]")));
        }
        if self.words.iter().chain(self.norm).any(|v| !v.is_finite()) {
            return Err(Error::numeric("lens: the model's final norm or unembedding is not finite"));
        }
        Ok(())
    }

    /// RMSNorm_final of the (mapped) decoder rows `first..first + n`, `[n, d_model]`.
    fn normalized(&self, first: usize, n: usize, threads: usize) -> Result<Vec<f32>> {
        let d_model = self.norm.len();
        let mut rows = vec![0f32; n * d_model];
        for (row, feature) in rows.chunks_mut(d_model).zip(first..) {
            (self.decoder_row)(feature, row);
        }
        if let Some(map) = self.map {
            let mut mapped = vec![0f32; n * d_model];
            gemm(Mat::new(&rows, n, d_model), Mat::new(map, d_model, d_model), false, &mut mapped, threads);
            rows = mapped;
        }
        for (row, feature) in rows.chunks_mut(d_model).zip(first..) {
            let square = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / d_model as f64;
            if !square.is_finite() {
                return Err(Error::numeric(format!("lens: the decoder row of feature {feature} is not finite")));
            }
            let scale = (1.0 / (square + f64::from(self.eps)).sqrt()) as f32;
            row.iter_mut().zip(self.norm).for_each(|(v, w)| *v *= scale * w);
        }
        Ok(rows)
    }
}

/// The words of every feature, best first: `[n_features]` lists of (rank of the word, score).
///
/// # Errors
/// [`Argument`](crate::Kind::Argument) if sizes do not fit together, [`Numeric`](crate::Kind::Numeric) if a row is not finite,
/// [`Cancelled`](crate::Kind::Cancelled).
pub fn score(sight: &Sight<'_>, options: &Lens, progress: &mut Progress<'_>) -> Result<Vec<Vec<(u32, f32)>>> {
    sight.check()?;
    let n_words = sight.words.len() / sight.norm.len();
    let mut columns = Columns::new(n_words);
    let passes = if options.mode == Mode::Logit { 1 } else { 2 };
    let total = (passes * sight.n_features) as u64;
    if options.mode != Mode::Logit {
        for_each_block(sight, options.threads, |first, scores| {
            if options.condition == Condition::Bayes {
                each_row(scores, n_words, options.threads, |row| {
                    let lse = log_sum_exp(row);
                    row.iter_mut().for_each(|s| *s -= lse);
                });
            }
            columns.add(scores, options.threads);
            report(progress, first as u64, total, "normalising over the features")
        })?;
    }
    let ranking = Ranking { options, log_f: (sight.n_features as f32).ln(), columns: columns.log_sum_exp() };
    let mut all = Vec::with_capacity(sight.n_features);
    for_each_block(sight, options.threads, |first, scores| {
        let n_rows = scores.len() / n_words;
        let mut best = vec![Vec::new(); n_rows];
        let share = n_rows.div_ceil(options.threads.max(1));
        each(options.threads, scores.chunks(share * n_words).zip(best.chunks_mut(share)), |(rows, best)| {
            let mut scratch = vec![0f32; n_words];
            for (row, best) in rows.chunks(n_words).zip(best) {
                *best = ranking.rank(row, &mut scratch);
            }
        });
        all.append(&mut best);
        report(progress, total - (sight.n_features - first) as u64, total, "scoring")
    })?;
    Ok(all)
}

/// Calls `take` with the first feature and the scores s `[n, n_words]` of every block.
fn for_each_block(
    sight: &Sight<'_>,
    threads: usize,
    mut take: impl FnMut(usize, &mut [f32]) -> Result<()>,
) -> Result<()> {
    let d_model = sight.norm.len();
    let n_words = sight.words.len() / d_model;
    let mut scores = vec![0f32; BLOCK.min(sight.n_features) * n_words];
    for first in (0..sight.n_features).step_by(BLOCK) {
        let n = BLOCK.min(sight.n_features - first);
        let rows = sight.normalized(first, n, threads)?;
        let scores = &mut scores[..n * n_words];
        gemm(Mat::new(&rows, n, d_model), Mat::new(sight.words, n_words, d_model).t(), false, scores, threads.max(1));
        take(first, scores)?;
    }
    Ok(())
}

/// Runs `work` on every row of width `n`, shared out among threads.
fn each_row(rows: &mut [f32], n: usize, threads: usize, work: impl Fn(&mut [f32]) + Sync) {
    let share = (rows.len() / n).div_ceil(threads.max(1)).max(1);
    each(threads, rows.chunks_mut(share * n), |part| part.chunks_mut(n).for_each(&work));
}

fn log_sum_exp(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + row.iter().map(|s| (s - max).exp()).sum::<f32>().ln()
}

/// A running log-sum-exp of every column. Columns are shared out among threads, so each one adds its rows in order.
struct Columns {
    max: Vec<f32>,
    sum: Vec<f64>,
}

impl Columns {
    fn new(n_words: usize) -> Self {
        Self { max: vec![f32::NEG_INFINITY; n_words], sum: vec![0.0; n_words] }
    }

    fn add(&mut self, scores: &[f32], threads: usize) {
        let n_words = self.max.len();
        let share = n_words.div_ceil(threads.max(1));
        let shares = self.max.chunks_mut(share).zip(self.sum.chunks_mut(share)).enumerate();
        each(threads, shares, |(i, (max, sum))| {
            let columns = i * share..i * share + max.len();
            add_columns(scores.chunks(n_words).map(|row| &row[columns.clone()]), max, sum);
        });
    }

    fn log_sum_exp(self) -> Vec<f32> {
        self.max.into_iter().zip(self.sum).map(|(max, sum)| max + sum.ln() as f32).collect()
    }
}

fn add_columns<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone, max: &mut [f32], sum: &mut [f64]) {
    let before = max.to_vec();
    for row in rows.clone() {
        max.iter_mut().zip(row).for_each(|(max, s)| *max = max.max(*s));
    }
    let mut more = vec![0f32; max.len()];
    for row in rows {
        more.iter_mut().zip(row.iter().zip(&*max)).for_each(|(more, (s, max))| *more += (s - max).exp());
    }
    for ((sum, more), (before, max)) in sum.iter_mut().zip(more).zip(before.iter().zip(&*max)) {
        // At first `before` is −∞ and `sum` 0.
        *sum = *sum * f64::from(before - max).exp() + f64::from(more);
    }
}

struct Ranking<'a> {
    options: &'a Lens,
    log_f: f32,
    /// log Σ_c of every column.
    columns: Vec<f32>,
}

impl Ranking<'_> {
    fn rank(&self, row: &[f32], scratch: &mut [f32]) -> Vec<(u32, f32)> {
        let mut best = Best::new(self.options.top);
        if self.options.mode == Mode::Logit {
            (0..).zip(row).for_each(|(w, s)| best.offer(w, *s));
            return best.into_sorted();
        }
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scratch.iter_mut().zip(row).for_each(|(e, s)| *e = (s - max).exp());
        let sum = scratch.iter().sum::<f32>();
        let shift = if self.options.condition == Condition::Bayes { max + sum.ln() } else { 0.0 };
        let prior = if self.options.mode == Mode::Mi { self.log_f } else { 0.0 };
        for (w, ((e, s), column)) in (0..).zip(scratch.iter().zip(row).zip(&self.columns)) {
            best.offer(w, e / sum * (s - shift - column + prior));
        }
        best.into_sorted()
    }
}

/// The word vectors e_w of `words`, `[n_words, d_model]`: the mean unembedding row of the tokens of " " + word, without a
/// bare space token in front.
///
/// `tokenize` must add no special tokens; `token_bytes` tells the bare space; `unembedding_row` fills `[d_model]`.
///
/// # Errors
/// [`Argument`](crate::Kind::Argument) if a word has no tokens, and what the closures return.
pub fn word_vectors<'w>(
    words: impl IntoIterator<Item = &'w str>,
    d_model: usize,
    tokenize: &dyn Fn(&str) -> Result<Vec<i32>>,
    token_bytes: &dyn Fn(i32) -> Vec<u8>,
    unembedding_row: &dyn Fn(i32, &mut [f32]) -> Result<()>,
) -> Result<Vec<f32>> {
    let mut vectors = Vec::new();
    let mut row = vec![0f32; d_model];
    for word in words {
        let tokens = tokenize(&format!(" {word}"))?;
        let tokens = match tokens.as_slice() {
            [first, rest @ ..] if !rest.is_empty() && token_bytes(*first) == b" " => rest,
            all => all,
        };
        if tokens.is_empty() {
            return Err(Error::argument(format!("lens: the tokenizer gives no token for {word:?}")));
        }
        let start = vectors.len();
        vectors.resize(start + d_model, 0f32);
        for &token in tokens {
            unembedding_row(token, &mut row)?;
            let share = 1.0 / tokens.len() as f32;
            vectors[start..].iter_mut().zip(&row).for_each(|(v, r)| *v += r * share);
        }
    }
    Ok(vectors)
}
