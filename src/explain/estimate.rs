//! The estimators on files: activations, a dictionary and a model in, [`Explanations`] out.

use super::baselines::{Span, TopAct, explain_spans};
use super::counted::{Count, count};
use super::lens::{Condition, Lens, Mode, Sight, score, word_vectors};
use super::tuned::{DEFAULT_RIDGE, Fit};
use super::windows::{Collector, Text};
use super::{Estimator, Explanation, Explanations, Header, Vocabulary};
use crate::activations::{Activations, Shard};
use crate::dictionary::{Codes, Dictionary};
use crate::error::{Error, Result};
use crate::model::{Kinship, Model, TokenKind};
use crate::progress::{Progress, report};

/// Rows that are encoded at a time: 5 MB of a 576-wide model.
const BATCH_ROWS: usize = 2048;

/// What [`data`] does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Data {
    /// Tokens of a window.
    pub window: usize,
    /// Of more rows than this, windows spread evenly over the text are taken; 0 takes all.
    pub max_rows: u64,
    /// How pairs are counted; its threads also encode.
    pub count: Count,
}

impl Default for Data {
    fn default() -> Self {
        Self { window: 32, max_rows: 1_000_000, count: Count::default() }
    }
}

/// The bytes of a token as text: none for a control token, or one that the model does not have.
pub fn token_bytes(model: &Model, token: i32) -> Vec<u8> {
    match model.vocabulary().kind(token) {
        Some(TokenKind::Control | TokenKind::Unknown | TokenKind::Unused) | None => Vec::new(),
        Some(_) => model.token_bytes(token).unwrap_or_default(),
    }
}

/// The default estimator: mutual information of features and words, counted over windows of `rows` (see
/// [`counted`](super::counted)). Density and mean activation are measured on the same rows.
///
/// Encoding is most of the cost: 2 · rows · n_features · d_model operations.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if the rows are not of the dictionary's width and layer or the model's tokens;
/// [`Argument`](crate::Kind::Argument) for options out of range; [`Cancelled`](crate::Kind::Cancelled).
pub fn data(
    rows: &Activations,
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    options: &Data,
    progress: &mut Progress<'_>,
) -> Result<Explanations> {
    check_rows(rows, model, dictionary)?;
    let n_rows = rows.n_rows() as u64;
    let limit = if options.max_rows == 0 { n_rows } else { options.max_rows.min(n_rows) };
    let share = limit.max(1) as f64 / n_rows.max(1) as f64;
    let mut collector = Collector::new(vocabulary, dictionary.n_features(), options.window, share)?;
    let mut n_done = 0;
    for shard in rows.shards() {
        let wanted = collector.text(text_of(shard), &|token| token_bytes(model, token))?;
        for batch in wanted.chunks(BATCH_ROWS) {
            let codes = encode(shard, batch, dictionary, options.count.threads);
            codes.rows().try_for_each(|row| collector.row(row))?;
            n_done += batch.len() as u64;
            report(progress, n_done.min(limit), limit, "encoding")?;
        }
    }
    let windows = collector.finish()?;
    report(progress, limit, limit, "counting")?;
    let words = count(&windows, &options.count);
    let explain = |(feature, words): (usize, Vec<(u32, f32)>)| {
        let (density, mean) = windows.density_and_mean(feature);
        explanation(feature, words, vocabulary, Some(density), Some(mean))
    };
    let mut header = header(Estimator::Data, model, dictionary, vocabulary);
    header.n_tokens = Some(windows.n_rows());
    header.mode = Some(format!("windows of {}", options.window));
    Explanations::new(header, words.into_iter().enumerate().map(explain).collect())
}

/// The paper's estimator: the decoder rows through the model's final norm and unembedding (see [`lens`](mod@super::lens)).
/// `tokenize` must add no special tokens.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if the dictionary is not of the model's width;
/// [`Unsupported`](crate::Kind::Unsupported) for a model whose final norm is not an RMS norm; what `tokenize` returns;
/// [`Cancelled`](crate::Kind::Cancelled).
pub fn lens(
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    tokenize: &dyn Fn(&str) -> Result<Vec<i32>>,
    options: &Lens,
    progress: &mut Progress<'_>,
) -> Result<Explanations> {
    look(Estimator::Lens, model, dictionary, vocabulary, tokenize, None, options, progress)
}

/// What [`tuned`] does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuned {
    /// The penalty of the map, relative to the mean variance of a coordinate.
    pub ridge: f64,
    /// Rows that the map is fitted on, spread evenly; 0 takes all.
    pub max_rows: u64,
    /// The lens behind the map.
    pub lens: Lens,
}

impl Default for Tuned {
    fn default() -> Self {
        Self { ridge: DEFAULT_RIDGE, max_rows: 100_000, lens: Lens::default() }
    }
}

/// The lens behind a ridge map from the dictionary's layer to the last one (see [`tuned`](mod@super::tuned)). `from` and `to`
/// hold the rows of both layers for the same text.
///
/// # Errors
/// As [`lens()`], and [`Mismatch`](crate::Kind::Mismatch) if the two directories hold different tokens.
#[expect(clippy::too_many_arguments, reason = "each is another file")]
pub fn tuned(
    from: &Activations,
    to: &Activations,
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    tokenize: &dyn Fn(&str) -> Result<Vec<i32>>,
    options: &Tuned,
    progress: &mut Progress<'_>,
) -> Result<Explanations> {
    check_rows(from, model, dictionary)?;
    let map = fit(from, to, options, progress)?;
    look(Estimator::Tuned, model, dictionary, vocabulary, tokenize, Some(&map), &options.lens, progress)
}

fn fit(from: &Activations, to: &Activations, options: &Tuned, progress: &mut Progress<'_>) -> Result<Vec<f32>> {
    let d_model = from.d_model();
    if to.d_model() != d_model || to.n_rows() != from.n_rows() {
        let what = format!(
            "tuned: expected rows of the last layer for the same text, {} of width {d_model}, found {} of width {}",
            from.n_rows(),
            to.n_rows(),
            to.d_model()
        );
        return Err(Error::mismatch(what));
    }
    let stride = match options.max_rows {
        0 => 1,
        max => (from.n_rows() as u64).div_ceil(max).max(1) as usize,
    };
    let used: Vec<usize> = (0..from.n_rows()).step_by(stride).filter(|&i| from.position(i) != 0).collect();
    let mut fit = Fit::new(d_model);
    let (mut x, mut y) = (vec![0f32; BATCH_ROWS * d_model], vec![0f32; BATCH_ROWS * d_model]);
    for rows in used.chunks(BATCH_ROWS) {
        let size = rows.len() * d_model;
        for ((&i, x), y) in rows.iter().zip(x.chunks_mut(d_model)).zip(y.chunks_mut(d_model)) {
            if (from.token(i), from.position(i)) != (to.token(i), to.position(i)) {
                let (a, b) = (from.token(i), to.token(i));
                return Err(Error::mismatch(format!(
                    "tuned: expected the same text, found tokens {a} and {b} at row {i}"
                )));
            }
            from.row(i, x);
            to.row(i, y);
        }
        fit.add(&x[..size], &y[..size], options.lens.threads)?;
        report(progress, fit.n_rows(), used.len() as u64, "fitting the map")?;
    }
    fit.solve(options.ridge)
}

#[expect(clippy::too_many_arguments, reason = "the two estimators that look through a lens share it")]
fn look(
    estimator: Estimator,
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
    let words = vocabulary.words().iter().map(|word| word.text.as_str());
    let unembed = |token: i32, row: &mut [f32]| model.unembedding_row(token, row);
    let words = word_vectors(words, model.d_model(), tokenize, &|token| token_bytes(model, token), &unembed)?;
    let norm = model.output_norm()?;
    let sight = Sight {
        n_features: dictionary.n_features(),
        decoder_row: &|feature, row| dictionary.decoder_row(feature, row),
        map,
        norm: &norm,
        eps: model.rms_eps(),
        words: &words,
    };
    let scored = score(&sight, options, progress)?;
    let explain = |(feature, words): (usize, Vec<(u32, f32)>)| {
        let stats = dictionary.stats(feature);
        explanation(feature, words, vocabulary, stats.map(|s| s.density), stats.map(|s| s.mean))
    };
    let mut header = header(estimator, model, dictionary, vocabulary);
    header.mode = Some(mode_name(options).to_owned());
    Explanations::new(header, scored.into_iter().enumerate().map(explain).collect())
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

/// The top `n_spans` activating spans of every feature over all rows, and the explanations that their words give.
///
/// # Errors
/// As [`data`].
pub fn top_act(
    rows: &Activations,
    model: &Model,
    dictionary: &Dictionary,
    vocabulary: &Vocabulary,
    n_spans: usize,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<(Vec<Vec<Span>>, Explanations)> {
    check_rows(rows, model, dictionary)?;
    let mut top = TopAct::new(dictionary.n_features(), n_spans);
    let mut n_done = 0;
    for shard in rows.shards() {
        let text = text_of(shard);
        let wanted: Vec<usize> = (0..shard.n_rows()).filter(|&row| text.positions[row] != 0).collect();
        for batch in wanted.chunks(BATCH_ROWS) {
            let codes = encode(shard, batch, dictionary, threads);
            batch.iter().zip(codes.rows()).try_for_each(|(&row, codes)| top.row(text, row, codes))?;
            n_done += batch.len() as u64;
            report(progress, n_done, rows.n_rows() as u64, "encoding")?;
        }
        top.end(shard.n_rows());
    }
    let spans = top.into_spans();
    let bytes = |token: i32| token_bytes(model, token);
    let explain = |(feature, spans): (usize, &Vec<Span>)| {
        let words = explain_spans(feature as u32, spans, vocabulary, &bytes, super::TOP_WORDS);
        let stats = dictionary.stats(feature);
        Explanation { density: stats.map(|s| s.density), mean: stats.map(|s| s.mean), ..words }
    };
    let list = spans.iter().enumerate().map(explain).collect();
    let mut header = header(Estimator::TopAct, model, dictionary, vocabulary);
    header.n_tokens = Some(n_done);
    let explanations = Explanations::new(header, list)?;
    Ok((spans, explanations))
}

fn check_rows(rows: &Activations, model: &Model, dictionary: &Dictionary) -> Result<()> {
    dictionary.check_model(model.d_model(), model.n_layer(), model.fingerprint())?;
    let meta = rows.meta();
    let place = rows.directory().display();
    if rows.d_model() != dictionary.d_model() {
        let (expected, found) = (dictionary.d_model(), rows.d_model());
        return Err(Error::mismatch(format!(
            "{place}: expected rows of the dictionary's width {expected}, found {found}"
        )));
    }
    if let Some(layer) = dictionary.layer().filter(|layer| *layer != meta.layer) {
        let found = meta.layer;
        return Err(Error::mismatch(format!(
            "{place}: expected rows of the dictionary's layer {layer}, found {found}"
        )));
    }
    // A text of another length is no fingerprint: it says that the model is unknown.
    let known = meta.model_fingerprint.len() == model.fingerprint().len();
    if known && Kinship::of(&meta.model_fingerprint, model.fingerprint()) == Kinship::Stranger {
        let (theirs, ours) = (&meta.model, model.name());
        return Err(Error::mismatch(format!("{place}: expected the tokens of {ours:?}, found rows of {theirs:?}")));
    }
    Ok(())
}

fn text_of(shard: &Shard) -> Text<'_> {
    Text { tokens: shard.tokens(), positions: shard.positions(), documents: shard.documents() }
}

/// Codes of the rows `wanted` of a shard, in that order.
fn encode(shard: &Shard, wanted: &[usize], dictionary: &Dictionary, threads: usize) -> Codes {
    let d_model = dictionary.d_model();
    let mut rows = vec![0f32; wanted.len() * d_model];
    for (run, row) in wanted.iter().zip(rows.chunks_mut(d_model)) {
        shard.read(*run..run + 1, row);
    }
    dictionary.encode_batch(&rows, threads.max(1))
}

fn explanation(
    feature: usize,
    words: Vec<(u32, f32)>,
    vocabulary: &Vocabulary,
    density: Option<f32>,
    mean: Option<f32>,
) -> Explanation {
    let text = |rank: u32| vocabulary.words().get(rank as usize).map(|word| word.text.clone()).unwrap_or_default();
    let words = words.into_iter().map(|(rank, score)| (text(rank), score)).collect();
    Explanation { feature: feature as u32, density, mean, label: None, words }
}

fn header(estimator: Estimator, model: &Model, dictionary: &Dictionary, vocabulary: &Vocabulary) -> Header {
    let mut header = Header::new(estimator);
    header.n_features = u32::try_from(dictionary.n_features()).ok();
    header.n_words = u32::try_from(vocabulary.len()).ok();
    header.layer = dictionary.layer().and_then(|layer| u32::try_from(layer).ok());
    header.model = Some(model.name().to_owned());
    header.model_fingerprint = Some(model.fingerprint().to_owned());
    header
}
