//! The estimators on harvested rows: from shards, a dictionary and a model to [`Explanations`].

use super::baselines::{Span, TopAct, explain_spans};
use super::counted::{Count, count};
use super::lens::{Condition, Lens, Mode, Sight, score, word_vectors};
use super::tuned::Fit;
use super::vocabulary::Counter;
use super::windows::{Collector, Text, Windows};
use super::{Estimator, Explanation, Explanations, Header, TOP_WORDS, Vocabulary};
use crate::activations::{Activations, Shard};
use crate::dictionary::{Codes, Dictionary};
use crate::error::{Error, Kind, Result};
use crate::model::{Kinship, Model, TokenKind};
use crate::progress::{Progress, report};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Rows that a thread encodes at a time: 9 MB of a 576-wide model.
const CHUNK: usize = 4096;

/// How [`data`] counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Data {
    /// Length of a window, in tokens.
    pub window: usize,
    /// Rows to count over, in windows spread evenly over the text; 0 takes all.
    pub max_rows: usize,
    /// What is kept; its threads also encode.
    pub count: Count,
}

impl Default for Data {
    fn default() -> Self {
        Self { window: 32, max_rows: 0, count: Count::default() }
    }
}

/// The bytes of a token as text: none for a control token, or one that the model does not have. So the words of a chat
/// template's marks are nobody's.
pub fn token_bytes(model: &Model, token: i32) -> Vec<u8> {
    match model.vocabulary().kind(token) {
        Some(TokenKind::Control | TokenKind::Unknown | TokenKind::Unused) | None => Vec::new(),
        Some(_) => model.token_bytes(token).unwrap_or_default(),
    }
}

/// The `n_words` most frequent words of the harvested text.
///
/// # Errors
/// [`Argument`](crate::Kind::Argument) if the text holds no word.
pub fn vocabulary(rows: &[Activations], model: &Model, n_words: usize) -> Result<Vocabulary> {
    let mut counter = Counter::new();
    let mut bytes = Vec::new();
    for shard in rows.iter().flat_map(Activations::shards) {
        for window in shard.documents().windows(2) {
            bytes.clear();
            for &token in shard.tokens().get(window[0]..window[1]).unwrap_or_default() {
                let piece = token_bytes(model, token);
                if piece.is_empty() { bytes.push(b' ') } else { bytes.extend(piece) }
            }
            counter.add_bytes(&bytes);
        }
    }
    counter.finish(n_words)
}

/// The default estimator: mutual information of features and words, counted over windows of `rows` (see
/// [`counted`](super::counted)). Density and mean activation are measured on the same rows. Progress counts rows.
///
/// Encoding is most of the cost: 2 · rows · n_features · d_model operations.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if the rows are not of the dictionary's width and layer or the model's tokens;
/// [`Argument`](crate::Kind::Argument) for options out of range; [`Cancelled`](crate::Kind::Cancelled).
pub fn data(
    rows: &[Activations],
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    options: &Data,
    progress: &mut Progress<'_>,
) -> Result<Explanations> {
    let windows = windows(rows, model, dictionary, vocabulary, options, progress)?;
    let words = count(&windows, &options.count);
    let mut header = header(Estimator::Data, model, dictionary, vocabulary)?;
    header.n_tokens = Some(windows.n_rows());
    header.mode = Some(format!("windows of {}", options.window));
    let fired = |feature: usize| Some(windows.density_and_mean(feature));
    Explanations::new(header, list(words, vocabulary, &fired)?)
}

/// Windows of `rows` with the words that occur and the features that fire in each. Progress counts rows.
///
/// # Errors
/// As [`data`].
pub fn windows(
    rows: &[Activations],
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    options: &Data,
    progress: &mut Progress<'_>,
) -> Result<Windows> {
    rows.iter().try_for_each(|rows| check_rows(rows, model, dictionary))?;
    let n_rows: usize = rows.iter().map(Activations::n_rows).sum();
    let total = if options.max_rows == 0 { n_rows } else { options.max_rows.min(n_rows) } as u64;
    let share = total.max(1) as f64 / n_rows.max(1) as f64;
    let mut collector = Collector::new(vocabulary, dictionary.n_features(), options.window, share)?;
    let mut n_done = 0;
    for shard in rows.iter().flat_map(Activations::shards) {
        let wanted = collector.text(text_of(shard), &|token| token_bytes(model, token))?;
        encode(shard, &wanted, dictionary, options.count.threads, &mut |_, codes| {
            codes.rows().try_for_each(|row| collector.row(row))?;
            n_done += codes.n_rows() as u64;
            report(progress, n_done.min(total), total, "encoding")
        })?;
    }
    let windows = collector.finish()?;
    report(progress, total, total, "counting")?;
    Ok(windows)
}

/// The estimators that look through the unembedding: `lens`, or `tuned` with a `map` from [`tuned_map`]. `tokenize` adds no
/// special tokens. Density and mean are those that the dictionary brings. Progress counts features.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if the dictionary is not as wide as the model;
/// [`Unsupported`](crate::Kind::Unsupported) for a model whose final norm is not an RMS norm; what `tokenize` returns;
/// [`Cancelled`](crate::Kind::Cancelled).
pub fn lens(
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    tokenize: &dyn Fn(&str) -> Result<Vec<i32>>,
    map: Option<&[f32]>,
    options: &Lens,
    progress: &mut Progress<'_>,
) -> Result<Explanations> {
    dictionary.check_model(model.d_model(), model.n_layer(), model.fingerprint())?;
    if model.layer_norm() {
        let name = model.architecture();
        return Err(Error::unsupported(format!("lens: expected a final RMS norm, but {name} has a layer norm")));
    }
    let words = word_vectors(
        vocabulary.words().iter().map(|word| word.text.as_str()),
        model.d_model(),
        tokenize,
        &|token| token_bytes(model, token),
        &|token, row| model.unembedding_row(token, row),
    )?;
    let norm = model.output_norm()?;
    let sight = Sight {
        n_features: dictionary.n_features(),
        decoder_row: &|feature, row| dictionary.decoder_row(feature, row),
        map,
        norm: &norm,
        eps: model.rms_eps(),
        words: &words,
    };
    let scores = score(&sight, options, progress)?;
    let estimator = if map.is_some() { Estimator::Tuned } else { Estimator::Lens };
    let mut header = header(estimator, model, dictionary, vocabulary)?;
    header.mode = Some(mode_name(options).to_owned());
    Explanations::new(header, list(scores, vocabulary, &|feature| brought(dictionary, feature))?)
}

fn mode_name(options: &Lens) -> &'static str {
    match (options.mode, options.condition) {
        (Mode::Mi, Condition::Softmax) => "mi/softmax",
        (Mode::Mi, Condition::Bayes) => "mi/bayes",
        (Mode::Literal, Condition::Softmax) => "literal/softmax",
        (Mode::Literal, Condition::Bayes) => "literal/bayes",
        (Mode::Logit, _) => "logit",
    }
}

/// The linear map from the dictionary's layer to the last layer's residual, from rows of both at the same tokens, `max_rows`
/// of them spread evenly (0: all). Position 0 takes no part. Progress counts rows.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if the two harvests are not of the same text; what [`Fit`] returns.
pub fn tuned_map(
    from: &Activations,
    to: &Activations,
    max_rows: usize,
    ridge: f64,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<f32>> {
    let d_model = from.d_model();
    if to.d_model() != d_model {
        return Err(Error::mismatch(format!("tuned: rows of widths {d_model} and {}", to.d_model())));
    }
    // One of the two harvests may have gone further than the other.
    let n_rows = from.n_rows().min(to.n_rows());
    let stride = if max_rows == 0 { 1 } else { n_rows.div_ceil(max_rows).max(1) };
    let used: Vec<usize> = (0..n_rows).step_by(stride).filter(|&row| from.position(row) != 0).collect();
    let mut fit = Fit::new(d_model);
    let (mut x, mut y) = (vec![0f32; CHUNK * d_model], vec![0f32; CHUNK * d_model]);
    for rows in used.chunks(CHUNK) {
        for ((&row, x), y) in rows.iter().zip(x.chunks_mut(d_model)).zip(y.chunks_mut(d_model)) {
            if (from.token(row), from.position(row)) != (to.token(row), to.position(row)) {
                return Err(Error::mismatch(format!("tuned: row {row} is of different tokens in the two harvests")));
            }
            from.row(row, x);
            to.row(row, y);
        }
        let size = rows.len() * d_model;
        fit.add(&x[..size], &y[..size], threads)?;
        report(progress, fit.n_rows(), used.len() as u64, "fitting the map")?;
    }
    fit.solve(ridge)
}

/// The baseline: the top `n_spans` activating spans of every feature over all rows, and the explanations that their words
/// give. Progress counts rows.
///
/// # Errors
/// As [`data`].
pub fn top_act(
    rows: &[Activations],
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    n_spans: usize,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<(Vec<Vec<Span>>, Explanations)> {
    rows.iter().try_for_each(|rows| check_rows(rows, model, dictionary))?;
    let n_rows: usize = rows.iter().map(Activations::n_rows).sum();
    let mut top = TopAct::new(dictionary.n_features(), n_spans);
    let mut n_done = 0;
    for shard in rows.iter().flat_map(Activations::shards) {
        let text = text_of(shard);
        let wanted: Vec<usize> = (0..shard.n_rows()).filter(|&row| text.positions[row] != 0).collect();
        encode(shard, &wanted, dictionary, threads, &mut |chunk, codes| {
            chunk.iter().zip(codes.rows()).try_for_each(|(&row, codes)| top.row(text, row, codes))?;
            n_done += chunk.len() as u64;
            report(progress, n_done, n_rows as u64, "encoding")
        })?;
        top.end(shard.n_rows());
    }
    let spans = top.into_spans();
    let mut header = header(Estimator::TopAct, model, dictionary, vocabulary)?;
    header.n_tokens = Some(n_done);
    let bytes = |token: i32| token_bytes(model, token);
    let words = spans.iter().map(|spans| explain_spans(spans, vocabulary, &bytes, TOP_WORDS)).collect();
    let list = list(words, vocabulary, &|feature| brought(dictionary, feature))?;
    Ok((spans, Explanations::new(header, list)?))
}

/// Spans as text, a line of JSON each: "feature", "row", "activation", "text".
pub fn spans_jsonl(spans: &[Vec<Span>], model: &Model) -> String {
    let bytes = |token: i32| token_bytes(model, token);
    let mut lines = String::new();
    for (feature, spans) in spans.iter().enumerate() {
        for span in spans {
            let (row, activation, text) = (span.row, span.activation, span.text(&bytes));
            let line = serde_json::json!({"feature": feature, "row": row, "activation": activation, "text": text});
            lines += &line.to_string();
            lines.push('\n');
        }
    }
    lines
}

fn check_rows(rows: &Activations, model: &Model, dictionary: &Dictionary) -> Result<()> {
    dictionary.check_one_layer("explaining by text")?;
    dictionary.check_model(model.d_model(), model.n_layer(), model.fingerprint())?;
    let (meta, place) = (rows.meta(), rows.directory().display());
    if rows.d_model() != dictionary.d_model() {
        let (found, wanted) = (rows.d_model(), dictionary.d_model());
        return Err(Error::mismatch(format!("{place}: rows are {found} wide, the dictionary is {wanted}")));
    }
    let found = rows.point()?;
    if let Some(point) = dictionary.point().filter(|&point| point != found) {
        return Err(Error::mismatch(match (found.resid_post(), point.resid_post()) {
            (Some(found), Some(layer)) => {
                format!("{place}: rows of layer {found}, the dictionary is for layer {layer}")
            }
            _ => format!("{place}: rows of {found}, the dictionary is for {point}"),
        }));
    }
    // A text of another length is no fingerprint: it says that the model is unknown.
    let known = meta.model_fingerprint.len() == model.fingerprint().len();
    if known && Kinship::of(&meta.model_fingerprint, model.fingerprint()) == Kinship::Stranger {
        let (found, wanted) = (&meta.model, model.name());
        return Err(Error::mismatch(format!("{place}: rows of {found:?}, the model is {wanted:?}")));
    }
    Ok(())
}

fn text_of(shard: &Shard) -> Text<'_> {
    Text { tokens: shard.tokens(), positions: shard.positions(), documents: shard.documents() }
}

/// Hands `take` the codes of the rows `wanted` of a shard, some rows at a time and in that order, while `threads` threads
/// encode the next ones: nobody waits for the slowest, and nothing but `take` is done by one thread alone.
fn encode(
    shard: &Shard,
    wanted: &[usize],
    dictionary: &Dictionary,
    threads: usize,
    take: &mut dyn FnMut(&[usize], &Codes) -> Result<()>,
) -> Result<()> {
    let d_model = dictionary.d_model();
    let threads = threads.clamp(1, wanted.len().div_ceil(CHUNK).max(1));
    let work = |first: usize, codes: SyncSender<Codes>| {
        let mut rows = Vec::with_capacity(CHUNK * d_model);
        for chunk in wanted.chunks(CHUNK).skip(first).step_by(threads) {
            rows.resize(chunk.len() * d_model, 0.0);
            for (&row, out) in chunk.iter().zip(rows.chunks_exact_mut(d_model)) {
                shard.read(row..row + 1, out);
            }
            if codes.send(dictionary.encode_batch(&rows, 1)).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        let start = |first| {
            let (sender, receiver) = sync_channel(1);
            let started = std::thread::Builder::new().spawn_scoped(scope, move || work(first, sender));
            started.map(|_| receiver).map_err(|e| Error::new(Kind::Io, format!("cannot start a thread: {e}")))
        };
        let workers: Vec<Receiver<Codes>> = (0..threads).map(start).collect::<Result<_>>()?;
        for (chunk, worker) in wanted.chunks(CHUNK).zip(workers.iter().cycle()) {
            // A worker that is gone has panicked, which the scope passes on.
            let Ok(codes) = worker.recv() else { break };
            take(chunk, &codes)?;
        }
        Ok(())
    })
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

/// Density and mean of `feature` as the dictionary brings them.
fn brought(dictionary: &Dictionary, feature: usize) -> Option<(f32, f32)> {
    dictionary.stats(feature).map(|stats| (stats.density, stats.mean))
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
