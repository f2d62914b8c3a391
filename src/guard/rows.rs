//! Messages as prompts, and the rows that a guard is fitted on.

use super::request::Request;
use crate::engine::{Engine, Generate, Message};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::progress::{Progress, report};
use crate::train::learn::{Contrast, Detector};

/// Bytes that the rows of all layers may take; rows of a text are thinned out to fit.
const MEMORY: usize = 1 << 30;
/// Texts that are read at once.
const WAVE: usize = 8;

/// Messages as a model reads them.
pub(super) struct Asking {
    system: Message,
}

impl Asking {
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a model without a chat template: no row stands before an answer.
    pub(super) fn new(engine: &Engine, instruction: &str) -> Result<Self> {
        if engine.chat(&[Message::user("a")], true).is_err() {
            let path = engine.path().display();
            return Err(Error::unsupported(format!("{path}: a guard needs a chat template, the model has none"))
                .hinted("take a model that was tuned to chat"));
        }
        Ok(Self { system: Message::system(instruction) })
    }

    /// A message as it is, up to the last row before its answer.
    pub(super) fn plain(&self, engine: &Engine, message: &str) -> Result<Vec<i32>> {
        prompt(engine, &[Message::user(message)], message)
    }

    /// The same behind the instruction.
    pub(super) fn told(&self, engine: &Engine, message: &str) -> Result<Vec<i32>> {
        prompt(engine, &[self.system.clone(), Message::user(message)], message)
    }
}

fn prompt(engine: &Engine, turns: &[Message], message: &str) -> Result<Vec<i32>> {
    let tokens = engine.chat_tokens(turns, true)?;
    if tokens.len() >= engine.longest() {
        let (start, n) = (message.chars().take(40).collect::<String>(), tokens.len());
        let what = format!("message {start:?}: {n} tokens, expected fewer than {}", engine.longest());
        return Err(Error::argument(what).hinted("shorten the message, or leave it out"));
    }
    Ok(tokens)
}

/// A text that is read, and the place in it of the last row before the answer.
struct Text {
    tokens: Vec<i32>,
    before: usize,
}

/// Reads the messages of both sides: of those to be refused, the last row before the answer with and without the
/// instruction; every other row but the first is one at which the guard must be silent, the same row of messages to be answered
/// above all.
pub(super) fn read(
    engine: &mut Engine,
    asking: &Asking,
    (refused, answered): (&[String], &[String]),
    layers: &[usize],
    request: &Request,
    progress: &mut Progress<'_>,
) -> Result<Contrast> {
    let d = engine.d_model();
    let points: Vec<HookPoint> = layers.iter().map(|&layer| HookPoint::from(layer)).collect();
    let total = (refused.len() + answered.len()) as u64;
    let texts = refused.len() + answered.len();
    let most = (MEMORY / (layers.len() * d * size_of::<f32>() * texts).max(1)).max(4);
    let mut rows = Contrast::new(d);
    let mut done = 0;
    for (messages, is_refused) in [(refused, true), (answered, false)] {
        for wave in messages.chunks(WAVE) {
            report(progress, done, total, "reading messages")?;
            let plain: Vec<Vec<i32>> = wave.iter().map(|m| asking.plain(engine, m)).collect::<Result<_>>()?;
            let told = wave.iter().map(|m| asking.told(engine, m)).collect::<Result<Vec<_>>>()?;
            let texts = answers(engine, plain, request.max_tokens)?;
            let mut asked = vec![Vec::new(); wave.len() * points.len()];
            if is_refused {
                engine.read_rows(&told, &points, &mut |text, point, found| {
                    asked[text * points.len() + point] = found[found.len() - d..].to_vec();
                    Ok(())
                })?;
            }
            let tokens: Vec<Vec<i32>> = texts.iter().map(|text| text.tokens.clone()).collect();
            engine.read_rows(&tokens, &points, &mut |text, point, found| {
                let before = texts[text].before;
                let row = &found[before * d..][..d];
                if is_refused {
                    rows.add(layers[point], &asked[text * points.len() + point], row)?;
                } else {
                    rows.add_hard(layers[point], row)?;
                }
                let others = (1..found.len() / d).filter(|&r| r != before);
                let every = (found.len() / d).div_ceil(most).max(1);
                let some: Vec<f32> = others.step_by(every).flat_map(|r| found[r * d..][..d].iter().copied()).collect();
                rows.add_silent(layers[point], &some)
            })?;
            done += wave.len() as u64;
        }
    }
    report(progress, done, total, "")?;
    Ok(rows)
}

/// Prompts with the start of the answer that the model gives, as far as there is room.
fn answers(engine: &mut Engine, prompts: Vec<Vec<i32>>, max_tokens: usize) -> Result<Vec<Text>> {
    let written = match max_tokens {
        0 => Vec::new(),
        _ => engine.generate_many_tokens(&prompts, &Generate { max_tokens, ..Generate::default() })?,
    };
    let room = engine.longest();
    let text = |(i, mut tokens): (usize, Vec<i32>)| {
        let before = tokens.len() - 1;
        tokens.extend(written.get(i).map_or(&[][..], |made| made.tokens()));
        tokens.truncate(room);
        Text { tokens, before }
    };
    Ok(prompts.into_iter().enumerate().map(text).collect())
}

/// The largest value of each detector over the rows of each message but the first: `[messages][detectors]`.
pub(super) fn maxima(
    engine: &mut Engine,
    asking: &Asking,
    messages: &[String],
    detectors: &[Detector],
    progress: &mut Progress<'_>,
) -> Result<Vec<Vec<f32>>> {
    let d = engine.d_model();
    let points: Vec<HookPoint> = detectors.iter().map(|detector| HookPoint::from(detector.layer)).collect();
    let mut maxima = Vec::with_capacity(messages.len());
    for wave in messages.chunks(WAVE) {
        report(progress, maxima.len() as u64, messages.len() as u64, "calibrating")?;
        let prompts: Vec<Vec<i32>> = wave.iter().map(|m| asking.plain(engine, m)).collect::<Result<_>>()?;
        let mut found = vec![vec![f32::NEG_INFINITY; detectors.len()]; wave.len()];
        engine.read_rows(&prompts, &points, &mut |text, point, rows| {
            let values = rows.chunks_exact(d).skip(1).map(|row| detectors[point].read(row));
            found[text][point] = values.fold(f32::NEG_INFINITY, f32::max);
            Ok(())
        })?;
        maxima.append(&mut found);
    }
    Ok(maxima)
}
