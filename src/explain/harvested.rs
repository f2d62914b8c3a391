//! The estimators on harvested rows: from shards, a dictionary and a model to [`Explanations`].

use super::counted::{Count, count};
use super::lens::{Lens, Mode, Sight, score, word_vectors};
use super::tuned::Fit;
use super::vocabulary::Counter;
use super::windows::{Collector, Text};
use super::{Estimator, Explanation, Explanations, Header, Vocabulary};
use crate::activations::Activations;
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::progress::{Progress, report};

/// Rows encoded at once.
const CHUNK: usize = 4096;

/// How [`data`] counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Data {
    /// Length of a window, in tokens.
    pub window: usize,
    /// Rows to count over, spread evenly over the text; 0 takes all.
    pub max_rows: usize,
    /// What is kept.
    pub count: Count,
}

impl Default for Data {
    fn default() -> Self {
        Self { window: 32, max_rows: 0, count: Count::default() }
    }
}

/// The `n_words` most frequent words of the harvested text.
///
/// # Errors
/// [`Argument`](crate::Kind::Argument) if the text holds no word.
pub fn vocabulary(rows: &[Activations], model: &Model, n_words: usize) -> Result<Vocabulary> {
    let mut counter = Counter::new();
    for shard in rows.iter().flat_map(Activations::shards) {
        for window in shard.documents().windows(2) {
            let tokens = shard.tokens().get(window[0]..window[1]).unwrap_or_default();
            counter
                .add_bytes(&tokens.iter().flat_map(|&t| model.token_bytes(t).unwrap_or_default()).collect::<Vec<_>>());
        }
    }
    counter.finish(n_words)
}

/// The estimator `data` over harvested rows. Progress counts rows.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if rows and dictionary do not belong together;
/// [`Cancelled`](crate::Kind::Cancelled).
pub fn data(
    rows: &[Activations],
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    options: &Data,
    progress: &mut Progress<'_>,
) -> Result<Explanations> {
    let n_rows: usize = rows.iter().map(Activations::n_rows).sum();
    let share = if options.max_rows == 0 { 1.0 } else { (options.max_rows as f64 / n_rows.max(1) as f64).min(1.0) };
    let total = (n_rows as f64 * share) as u64;
    let mut collector = Collector::new(vocabulary, dictionary.n_features(), options.window, share)?;
    let d = dictionary.d_model();
    let bytes = |token: i32| model.token_bytes(token).unwrap_or_default();
    let mut done = 0;
    for all in rows {
        check(all, dictionary)?;
        for shard in all.shards() {
            let text = Text { tokens: shard.tokens(), positions: shard.positions(), documents: shard.documents() };
            for wanted in collector.text(text, &bytes)?.chunks(CHUNK) {
                let mut chunk = vec![0.0; wanted.len() * d];
                for (&row, out) in wanted.iter().zip(chunk.chunks_exact_mut(d)) {
                    shard.read(row..row + 1, out);
                }
                let codes = dictionary.encode_batch(&chunk, options.count.threads.max(1));
                codes.rows().try_for_each(|codes| collector.row(codes))?;
                done += wanted.len() as u64;
                report(progress, done, total.max(done), "")?;
            }
        }
    }
    let windows = collector.finish()?;
    let words = count(&windows, &options.count);
    let mut header = header(Estimator::Data, model, dictionary, vocabulary)?;
    header.n_tokens = Some(done);
    let fired = |feature: usize| Some(windows.density_and_mean(feature));
    Explanations::new(header, list(words, vocabulary, &fired)?)
}

/// The estimators that look through the unembedding: `lens`, or `tuned` with a `map` from [`tuned_map`]. `tokenize` adds no
/// special tokens. Progress counts features.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if the dictionary is not as wide as the model; what the lens returns.
pub fn lens(
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    tokenize: &dyn Fn(&str) -> Result<Vec<i32>>,
    map: Option<&[f32]>,
    options: &Lens,
    progress: &mut Progress<'_>,
) -> Result<Explanations> {
    let d = dictionary.d_model();
    if d != model.d_model() {
        return Err(Error::mismatch(format!("the dictionary is {d} wide, the model {}", model.d_model())));
    }
    let words = word_vectors(
        vocabulary.words().iter().map(|word| word.text.as_str()),
        d,
        tokenize,
        &|token| model.token_bytes(token).unwrap_or_default(),
        &|token, row| model.unembedding_row(token, row),
    )?;
    let norm = model.output_norm()?;
    let sight = Sight {
        n_features: dictionary.n_features(),
        decoder_row: &|i, row| dictionary.decoder_row(i, row),
        map,
        norm: &norm,
        eps: model.rms_eps(),
        words: &words,
    };
    let scores = score(&sight, options, progress)?;
    let estimator = if map.is_some() { Estimator::Tuned } else { Estimator::Lens };
    let mut header = header(estimator, model, dictionary, vocabulary)?;
    let mode = match options.mode {
        Mode::Mi => "mi",
        Mode::Literal => "literal",
        Mode::Logit => "logit",
    };
    header.mode = Some(format!("{mode}/{}", format!("{:?}", options.condition).to_lowercase()));
    let fired = |feature: usize| dictionary.stats(feature).map(|stats| (stats.density, stats.mean));
    Explanations::new(header, list(scores, vocabulary, &fired)?)
}

/// The linear map from the dictionary's layer to the last layer's residual, from rows of both at the same tokens, `max_rows`
/// of them (0: all). Position 0 takes no part. Progress counts rows.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if the two harvests are not of the same text.
pub fn tuned_map(
    from: &Activations,
    to: &Activations,
    max_rows: usize,
    ridge: f64,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<f32>> {
    let d = from.d_model();
    if to.d_model() != d {
        return Err(Error::mismatch(format!("tuned: rows of widths {d} and {}", to.d_model())));
    }
    let n_rows = from.n_rows().min(to.n_rows());
    let n_rows = if max_rows == 0 { n_rows } else { n_rows.min(max_rows) };
    let mut fit = Fit::new(d);
    let (mut x, mut y) = (Vec::with_capacity(CHUNK * d), Vec::with_capacity(CHUNK * d));
    let mut row = vec![0.0; d];
    for i in 0..n_rows {
        if (from.token(i), from.position(i)) != (to.token(i), to.position(i)) {
            return Err(Error::mismatch(format!("tuned: row {i} is of different tokens in the two harvests")));
        }
        if from.position(i) != 0 {
            from.row(i, &mut row);
            x.extend_from_slice(&row);
            to.row(i, &mut row);
            y.extend_from_slice(&row);
        }
        if x.len() >= CHUNK * d || i + 1 == n_rows {
            fit.add(&x, &y, threads)?;
            (x.clear(), y.clear());
            report(progress, i as u64 + 1, n_rows as u64, "")?;
        }
    }
    fit.solve(ridge)
}

fn check(rows: &Activations, dictionary: &Dictionary) -> Result<()> {
    let (meta, info) = (rows.meta(), dictionary.info());
    let place = rows.directory().display();
    if rows.d_model() != dictionary.d_model() {
        let (found, wanted) = (rows.d_model(), dictionary.d_model());
        return Err(Error::mismatch(format!("{place}: rows are {found} wide, the dictionary is {wanted}")));
    }
    if let Some(layer) = dictionary.layer().filter(|&layer| layer != meta.layer) {
        return Err(Error::mismatch(format!(
            "{place}: rows of layer {}, the dictionary is for layer {layer}",
            meta.layer
        )));
    }
    if !info.model_name.is_empty() && info.model_name != meta.model {
        let (found, wanted) = (&meta.model, &info.model_name);
        return Err(Error::mismatch(format!("{place}: rows of {found}, the dictionary is for {wanted}")));
    }
    Ok(())
}

fn header(estimator: Estimator, model: &Model, dictionary: &Dictionary, vocabulary: &Vocabulary) -> Result<Header> {
    let number = |n: usize| u32::try_from(n).map_err(|_| Error::argument(format!("{n} is too many to explain")));
    let mut header = Header::new(estimator);
    header.n_features = Some(number(dictionary.n_features())?);
    header.n_words = Some(number(vocabulary.len())?);
    header.layer = dictionary.layer().map(number).transpose()?;
    header.model = Some(model.name().to_owned());
    header.model_fingerprint = Some(model.fingerprint().to_owned());
    Ok(header)
}

/// Explanations from ranks of words; `fired` gives density and mean of a feature.
fn list(
    scores: Vec<Vec<(u32, f32)>>,
    vocabulary: &Vocabulary,
    fired: &dyn Fn(usize) -> Option<(f32, f32)>,
) -> Result<Vec<Explanation>> {
    let mut list = Vec::with_capacity(scores.len());
    for (feature, words) in scores.into_iter().enumerate() {
        let text = |rank: u32| vocabulary.words().get(rank as usize).map(|word| word.text.clone());
        let words = words.into_iter().filter_map(|(rank, score)| Some((text(rank)?, score))).collect();
        let (density, mean) = fired(feature).unzip();
        let feature = u32::try_from(feature).map_err(|_| Error::argument("too many features to explain"))?;
        list.push(Explanation { feature, density, mean, label: None, words });
    }
    Ok(list)
}
