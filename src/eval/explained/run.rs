//! The whole of it on harvested rows and a running model.

use std::path::PathBuf;
use std::sync::Arc;

use rand::seq::SliceRandom;

use super::effect::Next;
use super::n2g::patterns;
use super::report::{Method, Report, Sampled};
use super::request::Request;
use crate::activations::Activations;
use crate::dictionary::Dictionary;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::eval::bootstrap::interval;
use crate::explain::baselines::{Span, explain_spans};
use crate::explain::counted::Count;
use crate::explain::detect::Detector;
use crate::explain::harvested::{self, Data};
use crate::explain::lens::{Lens, Mode};
use crate::explain::quality::quality;
use crate::explain::tuned::DEFAULT_RIDGE;
use crate::explain::{Explanation, Explanations, Header, TOP_WORDS, Vocabulary};
use crate::model::Model;
use crate::num::parallel;
use crate::num::rng;
use crate::progress::{Progress, report};

/// Held-out windows in which a feature that is compared fires.
const LEAST: usize = 10;
/// Rows that a ridge map is fitted on, at most.
const MAP_ROWS: usize = 200_000;
/// Words of which the first tokens are looked for in what the model says.
const SAID: usize = 10;
/// Spans that a judge is shown.
const SHOWN_SPANS: usize = 5;

/// Compares the methods on the engine's model. No plan is in force afterwards; progress counts steps.
///
/// # Errors
/// As [`Request::check`]; what [`harvested`] returns for rows of another layer or model;
/// [`Argument`](crate::Kind::Argument) where no feature fires in ten held-out windows; what the engine returns;
/// [`Cancelled`](crate::Kind::Cancelled).
pub fn explained(engine: &mut Engine, request: &Request, progress: &mut Progress<'_>) -> Result<Report> {
    request.check()?;
    let model = Model::open(engine.path())?;
    let dictionary = Arc::new(Dictionary::open(&request.dictionary)?);
    let point = dictionary
        .point()
        .ok_or_else(|| Error::argument("the dictionary does not say which layer it belongs to; name one"))?;
    engine.set_plan(None)?;
    let threads = parallel::count(engine.options().threads);
    let open = |dirs: &[PathBuf]| dirs.iter().map(|dir| Activations::open(dir)).collect::<Result<Vec<_>>>();
    let (rows, held_out) = (open(&request.rows)?, open(&request.held_out)?);
    let vocabulary = harvested::vocabulary(&rows, &model, request.vocabulary)?;
    let count = Count { top: TOP_WORDS, threads, ..Count::default() };
    let options = Data { count, ..Data::default() };
    let windows = harvested::windows(&held_out, &model, &dictionary, &vocabulary, &options, progress)?;
    let detector = Detector::new(&windows, &vocabulary);
    let features = sample(&detector, dictionary.n_features(), request)?;

    let mut all: Vec<(&str, Vec<Explanation>)> = Vec::new();
    let none = |feature: u32| Explanation { feature, ..Explanation::default() };
    let chosen = |made: &Explanations| -> Vec<Explanation> {
        features.iter().map(|&f| made.get(f).cloned().unwrap_or_else(|| none(f))).collect()
    };
    let data = harvested::data(&rows, &model, &dictionary, &vocabulary, &options, progress)?;
    let n_rows = data.header().n_tokens.unwrap_or(0);
    all.push(("data", chosen(&data)));
    let map = match &request.final_rows {
        None => None,
        Some(dir) => {
            let last = Activations::open(dir)?;
            Some(harvested::tuned_map(&rows[0], &last, MAP_ROWS, DEFAULT_RIDGE, threads, progress)?)
        }
    };
    for (name, mode, map) in
        [("lens", Mode::Mi, None), ("tuned", Mode::Mi, map.as_deref()), ("logit", Mode::Logit, None)]
    {
        if name == "tuned" && map.is_none() {
            continue;
        }
        let options = Lens { mode, top: TOP_WORDS, threads, ..Lens::default() };
        let tokenize = |text: &str| engine.tokenize(text, false);
        let made = harvested::lens(&model, &dictionary, &vocabulary, &tokenize, map, &options, progress)?;
        all.push((name, chosen(&made)));
    }
    let n = request.spans;
    let (spans, made) = harvested::top_act(&rows, &model, &dictionary, &vocabulary, n, threads, progress)?;
    all.push(("topact", chosen(&made)));
    let spans: Vec<&[Span]> = features.iter().map(|&f| spans.get(f as usize).map_or(&[][..], Vec::as_slice)).collect();
    let total = 2 * features.len() as u64;
    let bytes = |token: i32| harvested::token_bytes(&model, token);
    let mut short = Vec::with_capacity(features.len());
    for (done, (&feature, spans)) in (0..).zip(features.iter().zip(&spans)) {
        report(progress, done, total, "cutting contexts")?;
        let cut = patterns(engine, &dictionary, point, feature, spans)?;
        let words = explain_spans(&cut, &vocabulary, &bytes, TOP_WORDS);
        short.push(named(feature, words, &vocabulary));
    }
    all.push(("n2g", short));
    let effects = effects(engine, &dictionary, &features, &all, request, progress)?;
    let mut sampled: Vec<Sampled> = features
        .iter()
        .zip(&spans)
        .map(|(&feature, spans)| Sampled {
            feature,
            spans: spans.iter().take(SHOWN_SPANS).map(|span| marked(span, &bytes)).collect(),
            ..Sampled::default()
        })
        .collect();
    let mut methods = Vec::new();
    for ((name, list), effects) in all.iter().zip(&effects) {
        methods.push(method(name, list, effects, (&detector, &vocabulary), request, &mut sampled)?);
    }
    Ok(Report {
        model: engine.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        dictionary: dictionary.info().title().to_owned(),
        layer: dictionary.layer(),
        rows: n_rows,
        windows: windows.len(),
        methods,
        sampled,
    })
}

/// Features that fire in enough held-out windows, and in no more than half.
fn sample(detector: &Detector<'_>, n_features: usize, request: &Request) -> Result<Vec<u32>> {
    let is_usable = |feature: &u32| {
        let [fires, not] = detector.counts(*feature);
        fires >= LEAST && fires <= not
    };
    let mut features: Vec<u32> = (0..n_features as u32).filter(is_usable).collect();
    if features.is_empty() {
        return Err(Error::argument(format!(
            "held_out: expected features that fire in {LEAST} windows or more, found none"
        ))
        .hinted("harvest more held-out text"));
    }
    features.shuffle(&mut rng(request.seed));
    features.truncate(request.features);
    features.sort_unstable();
    Ok(features)
}

/// An explanation from ranks of words.
fn named(feature: u32, words: Vec<(u32, f32)>, vocabulary: &Vocabulary) -> Explanation {
    let text = |rank: u32| vocabulary.words().get(rank as usize).map(|word| word.text.clone());
    let words = words.into_iter().filter_map(|(rank, score)| Some((text(rank)?, score))).collect();
    Explanation { feature, words, ..Explanation::default() }
}

/// A span as text, the token that fires in ⟦ ⟧.
fn marked(span: &Span, bytes: &dyn Fn(i32) -> Vec<u8>) -> String {
    let part = |tokens: &[i32]| {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| bytes(token)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (before, rest) = span.tokens.split_at(span.at.min(span.tokens.len()));
    let (own, after) = rest.split_at(rest.len().min(1));
    format!("{}⟦{}⟧{}", part(before), part(own), part(after))
}

/// Of each method and feature output score and lift; none without words.
fn effects(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    features: &[u32],
    all: &[(&str, Vec<Explanation>)],
    request: &Request,
    progress: &mut Progress<'_>,
) -> Result<Vec<Vec<Option<[f64; 2]>>>> {
    let base = Next::read(engine, dictionary, None, request.push)?;
    let mut found = vec![Vec::with_capacity(features.len()); all.len()];
    let n = features.len() as u64;
    for (at, &feature) in features.iter().enumerate() {
        report(progress, n + at as u64, 2 * n, "pushing features")?;
        let next = Next::read(engine, dictionary, Some(feature), request.push)?;
        for ((_, list), found) in all.iter().zip(&mut found) {
            let first = |(word, _): &(String, f32)| engine.tokenize(&format!(" {word}"), false);
            let tokens = list[at].words.iter().take(SAID.min(request.shown)).map(first).collect::<Result<Vec<_>>>()?;
            let tokens: Vec<i32> = tokens.iter().filter_map(|tokens| tokens.first().copied()).collect();
            found.push(next.effect(&base, &tokens));
        }
    }
    Ok(found)
}

/// A method's figures; its words and figures of each feature go to `sampled`.
fn method(
    name: &str,
    list: &[Explanation],
    effects: &[Option<[f64; 2]>],
    (detector, vocabulary): (&Detector<'_>, &Vocabulary),
    request: &Request,
    sampled: &mut [Sampled],
) -> Result<Method> {
    let shown = request.shown;
    let auc: Vec<f64> = list.iter().map(|e| detector.auc(e, shown).unwrap_or(0.5)).collect();
    let known: Vec<[f64; 2]> = effects.iter().flatten().copied().collect();
    let lift: Vec<f64> = known.iter().map(|[_, lift]| *lift).collect();
    for (((one, e), auc), effect) in sampled.iter_mut().zip(list).zip(&auc).zip(effects) {
        one.words.insert(name.to_owned(), e.words.iter().take(shown).map(|(word, _)| word.clone()).collect());
        one.auc.insert(name.to_owned(), *auc);
        if let Some([_, lift]) = effect {
            one.lift.insert(name.to_owned(), *lift);
        }
    }
    let mean = |values: &[f64], drawn: &[usize]| drawn.iter().map(|&i| values[i]).sum::<f64>() / drawn.len() as f64;
    let whole = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let band = |values: &[f64]| {
        interval(values.len(), 0.95, request.seed, &mut |drawn| mean(values, drawn)).unwrap_or_default()
    };
    let made = Explanations::new(Header::default(), list.to_vec())?;
    let q = quality(&made, vocabulary, shown);
    Ok(Method {
        name: name.to_owned(),
        explained: list.iter().filter(|e| !e.words.is_empty()).count(),
        diversity: q.diversity,
        lexical: q.lexical,
        dominate: q.dominate,
        total: q.total,
        auc: whole(&auc),
        auc_interval: band(&auc),
        output: whole(&known.iter().map(|[output, _]| *output).collect::<Vec<_>>()),
        lift: whole(&lift),
        lift_interval: band(&lift),
    })
}
