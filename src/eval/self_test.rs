//! Does a dictionary fit the model that is about to be steered by it?
//!
//! Rows of the residual stream of the model at hand, as quantized, go through the dictionary: L0, FVU, dead features
//! ([`quality`](super::quality)). Then the model runs on with each row replaced by its reconstruction, and with each row
//! replaced by zero: the share of the cross-entropy between the two that the reconstruction recovers says how much of what
//! the model uses the dictionary holds,
//!
//! recovered = (CE_zero − CE_reconstructed) / (CE_zero − CE_clean).
//!
//! Where the dictionary does not fit, what may be wrong is tried on some hundred of the rows ([`diagnosis`](super::diagnosis)).
//!
//! Attention sinks ([`sinks`](super::sinks)) are left as they are throughout. Costs one early-stopped pass over the
//! text, and three whole passes over a part of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnosis::{self, Diagnosis};
use super::quality::{Meter, Quality};
use super::sinks::Sinks;
use crate::dictionary::Dictionary;
use crate::engine::{Document, Engine, Score};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::progress::{Progress, report};

/// Tokens that a diagnosis looks at.
const DIAGNOSED: usize = 500;
/// Rows that are shown to the dictionary at once.
const BLOCK: usize = 1024;

/// How much text is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens for L0, FVU and dead features; few tokens make rare features look dead.
    pub max_tokens: usize,
    /// Tokens for the cross-entropies.
    pub score_tokens: usize,
    /// Longest window, in tokens.
    pub window: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_tokens: 60_000, score_tokens: 8_000, window: 256 }
    }
}

/// Cross-entropies in nats a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Of the model as it is.
    pub clean: f64,
    /// With the reconstruction in place of the residual stream.
    pub reconstructed: f64,
    /// With zero in place of the residual stream.
    pub zero: f64,
    /// Tokens scored.
    pub n_tokens: usize,
}

impl CrossEntropy {
    /// 1: the model does not notice the reconstruction; 0: it might as well be zero.
    pub fn recovered(&self) -> f64 {
        (self.zero - self.reconstructed) / (self.zero - self.clean)
    }
}

/// What [`self_test`] found.
#[derive(Clone, Debug)]
pub struct SelfTest {
    /// L0, FVU, dead features, statistics of each feature.
    pub quality: Quality,
    /// Cross-entropies.
    pub cross_entropy: CrossEntropy,
    /// Whether it fits, and if not, why.
    pub diagnosis: Diagnosis,
    /// What to know: a fingerprint that differs, for example.
    pub warnings: Vec<String>,
}

/// Tests `dictionary` on the engine's model over `text`. A plan in force is set aside meanwhile.
///
/// # Errors
/// [`Kind::Mismatch`](crate::Kind::Mismatch) when the dictionary is for another width or a layer that the model lacks.
pub fn self_test(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    text: &[Document],
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<SelfTest> {
    let (d_model, n_layer) = (engine.d_model(), engine.n_layer());
    let fingerprint = crate::model::Model::open(engine.path())?.fingerprint().to_owned();
    let warnings = dictionary.check_model(d_model, n_layer, &fingerprint)?.into_iter().collect();
    super::quality::check_reconstructs(dictionary)?;
    let point = dictionary
        .point()
        .ok_or_else(|| Error::argument("the dictionary does not say which layer it belongs to; name one"))?;
    let plan = engine.plan().cloned();
    engine.set_plan(None)?;
    let tested = test(engine, dictionary, point, text, options, progress);
    engine.hook_mut().patch(point, None)?;
    engine.set_plan(plan)?;
    let (quality, cross_entropy, diagnosis) = tested?;
    Ok(SelfTest { quality, cross_entropy, diagnosis, warnings })
}

/// What `dictionary` is to the engine's model, and what may be wrong with it: only the [`diagnosis`](super::diagnosis) of a
/// self-test, on the first few hundred tokens of `text`. A plan in force is set aside meanwhile.
///
/// # Errors
/// As [`self_test`].
pub fn diagnose(
    engine: &mut Engine,
    dictionary: &Dictionary,
    text: &[Document],
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Diagnosis> {
    dictionary.check_model(engine.d_model(), engine.n_layer(), &dictionary.info().model_fingerprint)?;
    let point = dictionary
        .point()
        .ok_or_else(|| Error::argument("the dictionary does not say which layer it belongs to; name one"))?;
    let windows = windows(engine, text, options)?;
    let plan = engine.plan().cloned();
    engine.set_plan(None)?;
    let rows = neighbours(engine, &windows, point);
    engine.set_plan(plan)?;
    diagnosis::diagnose(dictionary, &rows?, engine.options().threads, progress)
}

fn test(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    point: HookPoint,
    text: &[Document],
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<(Quality, CrossEntropy, Diagnosis)> {
    let threads = engine.options().threads;
    let windows = windows(engine, text, options)?;
    let n_tokens: usize = windows.iter().map(Vec::len).sum();
    let score_tokens = options.score_tokens.min(n_tokens);
    let total = (n_tokens + 3 * score_tokens) as u64;
    let mut done = 0;
    let mut meter = Meter::new(dictionary);
    show(engine, &mut meter, point, &windows, &mut |n| {
        done += n as u64;
        report(progress, done, total, "L0, FVU")
    })?;
    let sinks = Arc::new(meter.sinks().cloned().unwrap_or_else(|| Sinks::none(dictionary.d_model())));
    let quality = meter.finish()?;
    let diagnosis = diagnosis::diagnose(dictionary, &neighbours(engine, &windows, point)?, threads, &mut |_| true)?;
    let mut scores = [Score::default(); 3];
    let mut left = score_tokens;
    for window in &windows {
        if left == 0 {
            break;
        }
        let window = window.get(..window.len().min(left).max(2)).unwrap_or(window);
        left = left.saturating_sub(window.len());
        for (mode, score) in scores.iter_mut().enumerate() {
            let stand = match mode {
                0 => None,
                1 => Some(Stand::Reconstruction),
                _ => Some(Stand::Row(vec![0.0; dictionary.d_model()])),
            };
            let patch = stand.map(|stand| replace(dictionary.clone(), sinks.clone(), threads, stand));
            engine.hook_mut().patch(point, patch)?;
            let one = engine.score(window, 1)?;
            engine.finish().ok()?;
            score.nll += one.nll;
            score.n_tokens += one.n_tokens;
            done += window.len() as u64;
            report(progress, done.min(total), total, "cross-entropy")?;
        }
    }
    let [clean, reconstructed, zero] = scores;
    let cross_entropy = CrossEntropy {
        clean: clean.cross_entropy(),
        reconstructed: reconstructed.cross_entropy(),
        zero: zero.cross_entropy(),
        n_tokens: clean.n_tokens,
    };
    Ok((quality, cross_entropy, diagnosis))
}

/// Shows the rows of `windows` at `point` to `meter`, but those at position 0. `tell` is told how many tokens were read.
pub(super) fn show(
    engine: &mut Engine,
    meter: &mut Meter<'_>,
    point: HookPoint,
    windows: &[Vec<i32>],
    tell: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let (threads, d_model) = (engine.options().threads, engine.d_model());
    let mut rows = Vec::new();
    for (i, window) in windows.iter().enumerate() {
        let captured = engine.rows(window, point)?;
        rows.extend_from_slice(captured.get(d_model..).unwrap_or_default());
        if rows.len() >= BLOCK * d_model || i + 1 == windows.len() {
            meter.add(&rows, threads);
            rows.clear();
        }
        tell(window.len())?;
    }
    Ok(())
}

/// Some hundred rows at `point`, and of the residual stream after the two blocks before and behind it.
fn neighbours(engine: &mut Engine, windows: &[Vec<i32>], point: HookPoint) -> Result<BTreeMap<HookPoint, Vec<f32>>> {
    let near = point.layer().saturating_sub(2)..(point.layer() + 3).min(engine.n_layer());
    let mut rows: BTreeMap<HookPoint, Vec<f32>> =
        near.map(HookPoint::from).chain([point]).map(|p| (p, Vec::new())).collect();
    let (d_model, mut left) = (engine.d_model(), DIAGNOSED);
    for window in windows {
        for (&point, rows) in &mut rows {
            rows.extend_from_slice(engine.rows(window, point)?.get(d_model..).unwrap_or_default());
        }
        left = left.saturating_sub(window.len());
        if left == 0 {
            break;
        }
    }
    Ok(rows)
}

/// Windows of the text, up to the wanted number of tokens.
pub(super) fn windows(engine: &Engine, text: &[Document], options: &Options) -> Result<Vec<Vec<i32>>> {
    let longest = options.window.min(engine.longest());
    let (mut windows, mut n_tokens) = (Vec::new(), 0);
    for document in text {
        for window in engine.document_tokens(document)?.chunks(longest.max(2)).filter(|w| w.len() > 1) {
            if n_tokens >= options.max_tokens {
                return Ok(windows);
            }
            n_tokens += window.len();
            windows.push(window.to_vec());
        }
    }
    if windows.is_empty() { Err(Error::argument("the text has no two tokens")) } else { Ok(windows) }
}

/// What takes the place of a row.
#[derive(Clone, Debug)]
pub(super) enum Stand {
    /// Its reconstruction.
    Reconstruction,
    /// This row `[d_model]`.
    Row(Vec<f32>),
}

/// Puts something in the place of each row, except for attention sinks.
pub(super) fn replace(
    dictionary: Arc<Dictionary>,
    sinks: Arc<Sinks>,
    threads: usize,
    stand: Stand,
) -> Box<crate::hook::Patch> {
    Box::new(move |rows, meta| {
        let d_model = dictionary.d_model();
        if meta.iter().any(|row| row.position.is_none()) {
            return Err(Error::mismatch("a row's position could not be told"));
        }
        let codes = matches!(stand, Stand::Reconstruction).then(|| dictionary.encode_batch(rows, threads));
        let mut row_before = vec![0.0; d_model];
        for (i, (row, meta)) in rows.chunks_exact_mut(d_model).zip(meta).enumerate() {
            if meta.position == Some(0) || sinks.contains(row) {
                continue;
            }
            match (&stand, &codes) {
                (Stand::Row(other), _) => row.copy_from_slice(other),
                (Stand::Reconstruction, None) => {}
                (Stand::Reconstruction, Some(codes)) => {
                    row_before.copy_from_slice(row);
                    dictionary.reconstruct(&row_before, codes.row(i), row);
                }
            }
        }
        Ok(())
    })
}
