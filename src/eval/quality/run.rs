//! The whole of it on a running model.

use std::sync::Arc;
use std::time::Instant;

use super::absorption::{Words, absorption};
use super::density::Density;
use super::geometry::geometry;
use super::labelled::{self, Labelled};
use super::recovered::recovered;
use super::report::Report;
use super::request::Request;
use super::{Meter, check_reconstructs};
use crate::dictionary::Dictionary;
use crate::engine::{Document, Engine, documents};
use crate::error::{Error, Result};
use crate::eval::self_test::{self, show, windows};
use crate::eval::sinks::Sinks;
use crate::hook_point::HookPoint;
use crate::num;
use crate::progress::{Progress, report};

/// What stands before a word whose first letter is looked for.
const EXAMPLES: &str = "tall has the first letter: T\n money has the first letter: M\n over has the first letter: O\n";
/// Letters of the shortest word.
const SHORTEST: usize = 3;
/// Texts that are read side by side.
const WAVE: usize = 32;

/// Tokens that were read.
struct Work<'p, 'q> {
    progress: &'p mut Progress<'q>,
    done: u64,
    total: u64,
    note: &'static str,
    parts: Vec<(String, f64)>,
    started: Instant,
}

impl Work<'_, '_> {
    fn step(&mut self, tokens: usize) -> Result<()> {
        self.done += tokens as u64;
        report(self.progress, self.done.min(self.total), self.total, self.note)
    }

    /// What was noted is done; `next` comes.
    fn next(&mut self, next: &'static str) {
        if !self.note.is_empty() {
            self.parts.push((self.note.to_owned(), self.started.elapsed().as_secs_f64()));
        }
        (self.note, self.started) = (next, Instant::now());
    }
}

/// Measures a dictionary on the engine's model. No plan is in force afterwards; progress counts tokens.
///
/// # Errors
/// As [`Request::check`]; [`Mismatch`](crate::Kind::Mismatch) for a dictionary that does not fit the model or reconstructs
/// something else than it reads; [`Argument`](crate::Kind::Argument) for text without two tokens; what files and the engine
/// return; [`Cancelled`](crate::Kind::Cancelled).
pub fn report_quality(engine: &mut Engine, request: &Request, progress: &mut Progress<'_>) -> Result<Report> {
    request.check()?;
    let dictionary = Arc::new(Dictionary::open(&request.dictionary)?);
    check_reconstructs(&dictionary)?;
    let fingerprint = crate::model::Model::open(engine.path())?.fingerprint().to_owned();
    let warning = dictionary.check_model(engine.d_model(), engine.n_layer(), &fingerprint)?;
    let point = dictionary
        .point()
        .ok_or_else(|| Error::argument("the dictionary does not say which layer it belongs to; name one"))?;
    engine.set_plan(None)?;
    let found = measure(engine, &dictionary, point, request, progress);
    engine.hook_mut().patch(point, None)?;
    found.map(|found| Report { notes: warning.into_iter().collect(), ..found })
}

fn measure(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    point: HookPoint,
    request: &Request,
    progress: &mut Progress<'_>,
) -> Result<Report> {
    let threads = engine.options().threads;
    let labelled = match &request.labelled {
        Some(path) => labelled::open(path, &request.label)?,
        None => Vec::new(),
    };
    let options =
        self_test::Options { max_tokens: request.max_tokens, window: request.window, ..self_test::Options::default() };
    let windows = windows(engine, &documents(&request.text)?, &options)?;
    let n_tokens: usize = windows.iter().map(Vec::len).sum();
    let scored = request.score_tokens.min(n_tokens);
    let total = n_tokens + 4 * scored + labelled.len() * request.labelled_tokens + request.words;
    let (parts, started) = (Vec::new(), Instant::now());
    let mut work = Work { progress, done: 0, total: total as u64, note: "", parts, started };

    work.next("codes");
    let mut meter = Meter::new(dictionary);
    show(engine, &mut meter, point, &windows, &mut |n| work.step(n))?;
    let sinks = Arc::new(meter.sinks().cloned().unwrap_or_else(|| Sinks::none(dictionary.d_model())));
    let mean = meter.mean_row();
    let quality = meter.finish()?;

    work.next("what the model notices");
    let recovered =
        recovered(engine, dictionary, point, &windows, (sinks.clone(), mean), scored, &mut |n| work.step(n))?;
    engine.hook_mut().patch(point, None)?;

    work.next("directions");
    let geometry = geometry(dictionary, threads);

    work.next("labelled text");
    let labels = match labelled.is_empty() {
        true => Vec::new(),
        false => {
            let (codes, rows) =
                pooled(engine, dictionary, point, &labelled, (request.labelled_tokens, &sinks), &mut work)?;
            labelled::read(&labelled, &codes, &rows, request.seed, threads)?
        }
    };

    work.next("absorption");
    let absorption = match request.words {
        0 => None,
        n => Some(letters(engine, dictionary, point, (n, request.seed), &mut work)?),
    };
    work.next("");
    let densities: Vec<f32> = quality.features.iter().map(|feature| feature.density).collect();
    Ok(Report {
        dictionary: dictionary.info().title().to_owned(),
        model: engine.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        n_features: dictionary.n_features(),
        rows: quality.n_rows,
        sinks: quality.n_sinks,
        l0: quality.l0,
        l1: quality.l1,
        fvu: quality.fvu,
        explained_variance: 1.0 - quality.fvu,
        mse: quality.mse,
        cosine: quality.cosine,
        l2_ratio: quality.l2_ratio,
        reconstruction_bias: quality.reconstruction_bias,
        scores: (&recovered).into(),
        recovered,
        density: Density::of(&densities),
        geometry,
        labels,
        absorption,
        notes: Vec::new(),
        seconds: work.parts,
    })
}

/// Mean codes `[texts, n_features]` and mean rows `[texts, d_model]` of texts, attention sinks left out.
fn pooled(
    engine: &mut Engine,
    dictionary: &Dictionary,
    point: HookPoint,
    texts: &[Labelled],
    (most, sinks): (usize, &Sinks),
    work: &mut Work<'_, '_>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let (d, f) = (dictionary.d_model(), dictionary.n_features());
    let most = most.min(engine.longest());
    let (mut codes, mut rows) = (vec![0f32; texts.len() * f], vec![0f32; texts.len() * d]);
    for (first, wave) in (0..).step_by(WAVE).zip(texts.chunks(WAVE)) {
        let tokens = |text: &Labelled| {
            engine.document_tokens(&Document::Text(text.text.clone())).map(|mut tokens| {
                tokens.truncate(most);
                tokens
            })
        };
        let tokens = wave.iter().map(tokens).collect::<Result<Vec<_>>>()?;
        // A text of one token has no row but that of position 0, and stays at zero.
        let long: Vec<usize> = (0..wave.len()).filter(|&i| tokens[i].len() > 1).collect();
        let read: Vec<Vec<i32>> = long.iter().map(|&i| tokens[i].clone()).collect();
        engine.read_rows(&read, &[point], &mut |i, _, found| {
            let at = first + long[i];
            let kept: Vec<f32> = found
                .chunks_exact(d)
                .skip(1)
                .filter(|row| !sinks.contains(row))
                .flat_map(|row| row.iter().copied())
                .collect();
            let share = 1.0 / (kept.len() / d).max(1) as f32;
            let own = &mut rows[at * d..][..d];
            kept.chunks_exact(d).for_each(|row| num::axpy(share, row, own));
            for (feature, code) in dictionary.encode_batch(&kept, 1).entries() {
                codes[at * f + *feature as usize] += share * code;
            }
            Ok(())
        })?;
        work.step(wave.len() * most)?;
    }
    Ok((codes, rows))
}

/// First-letter absorption on `n` words of the model's vocabulary, taken evenly.
fn letters(
    engine: &mut Engine,
    dictionary: &Dictionary,
    point: HookPoint,
    (n, seed): (usize, u64),
    work: &mut Work<'_, '_>,
) -> Result<super::absorption::Absorption> {
    let (d, threads) = (dictionary.d_model(), engine.options().threads);
    let all: Vec<(i32, u8)> =
        (0..engine.n_vocab() as i32).filter_map(|token| Some((token, word(engine, token)?))).collect();
    let step = all.len().div_ceil(n).max(1);
    let words: Vec<(i32, u8)> = all.into_iter().step_by(step).collect();
    let before = engine.document_tokens(&Document::Text(EXAMPLES.to_owned()))?;
    let mut rows = vec![0f32; words.len() * d];
    for (first, wave) in (0..).step_by(WAVE).zip(words.chunks(WAVE)) {
        let texts: Vec<Vec<i32>> = wave.iter().map(|(token, _)| [before.as_slice(), &[*token]].concat()).collect();
        engine.read_rows(&texts, &[point], &mut |i, _, found| {
            let last = found.get(found.len().saturating_sub(d)..).unwrap_or_default();
            rows[(first + i) * d..][..d].copy_from_slice(last);
            Ok(())
        })?;
        work.step(wave.len())?;
    }
    let letters: Vec<u8> = words.iter().map(|(_, letter)| *letter).collect();
    let codes = dictionary.encode_batch(&rows, threads);
    let mut directions = vec![0f32; dictionary.n_features() * d];
    for (i, row) in directions.chunks_exact_mut(d).enumerate() {
        dictionary.decoder_row(i, row);
        let length = num::norm(row);
        if length > 0.0 {
            row.iter_mut().for_each(|v| *v /= length);
        }
    }
    let words = Words { letters: &letters, rows: &rows, codes: &codes, directions: &directions };
    absorption(&words, seed, threads)
}

/// The first letter of a token that is a whole word of small letters behind a blank.
fn word(engine: &Engine, token: i32) -> Option<u8> {
    let bytes = engine.token_bytes(token, false);
    let letters = bytes.strip_prefix(b" ")?;
    (letters.len() >= SHORTEST && letters.iter().all(u8::is_ascii_lowercase)).then(|| letters[0])
}
