//! Rows for training straight from text: nothing is stored, whatever the text's length.
//!
//! Documents are drawn in a seeded order, some are kept out, and the windows of the others make parts that are computed when
//! the training's shuffling buffer wants them.

use std::path::PathBuf;

use rand::seq::SliceRandom;

use super::Engine;
use super::documents::{Document, identity};
use super::harvest::Batch;
use crate::dictionary::Info;
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::num::rng;
use crate::progress::{Progress, report};
use crate::train::{self, Stream};

/// Rows that are measured on, at most.
const HELD_OUT: usize = 16_384;

/// Which rows of a text are trained on.
#[derive(Clone, Debug)]
pub struct Streamed {
    /// Where they are read.
    pub point: HookPoint,
    /// Longest window, in tokens; a longer document becomes several windows, whose first rows are left out.
    pub window: usize,
    /// Stop with the window that reaches this many tokens, also inside a document; 0 takes all the text.
    pub max_tokens: u64,
    /// Rows of two parts, which are shuffled together; four batches or more. While a part is made, a quarter more is held.
    pub buffer: usize,
    /// Another quantization of the running model, as whose rows these count: see
    /// [`Harvest::counts_as`](super::Harvest::counts_as).
    pub counts_as: Option<PathBuf>,
}

impl Streamed {
    /// All the text, at `point`, through a buffer of 131,072 rows.
    pub fn at(point: impl Into<HookPoint>) -> Self {
        Self { point: point.into(), window: 512, max_tokens: 0, buffer: 1 << 17, counts_as: None }
    }
}

impl Engine {
    /// The rows of `text` for [`fit_stream`](crate::train::fit_stream) with `training`, whose seed draws the order of the
    /// documents and whose `held_out` is the share of them that is kept out. The plan in force applies.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for a layer that does not exist, a window or a buffer that is too short, or
    /// too little text; [`Kind::Mismatch`](crate::Kind::Mismatch) if `counts_as` is no other form of the model.
    pub fn stream<'e>(
        &'e mut self,
        text: &'e [Document],
        options: &Streamed,
        training: &train::Options,
        progress: &mut Progress<'_>,
    ) -> Result<Stream<'e>> {
        let point = options.point;
        if point.layer() >= self.n_layer() {
            let (layer, last) = (point.layer(), self.n_layer() - 1);
            return Err(Error::argument(format!("layer {layer} does not exist; the model has 0 to {last}")));
        }
        if options.window < 2 {
            return Err(Error::argument(format!("a window of {} tokens is too short", options.window)));
        }
        // A part can be longer by one window, the last one by two batches more.
        let part_rows = options.buffer / 2;
        if part_rows < 2 * training.batch {
            let (buffer, least) = (options.buffer, 4 * training.batch);
            return Err(Error::argument(format!("a buffer of {buffer} rows: expected {least} or more, four batches")));
        }
        let model = self.counted_as(options.counts_as.as_deref())?;
        let mut documents: Vec<&Document> = text.iter().collect();
        documents.shuffle(&mut rng(training.seed));
        let n_held_out = (f64::from(training.held_out) * documents.len() as f64).round() as usize;
        if n_held_out == documents.len() || (n_held_out == 0 && training.held_out > 0.0) {
            return Err(Error::argument(format!(
                "train option held_out: a share of {} of {} documents is {n_held_out}; expected some, and not all",
                training.held_out,
                documents.len()
            )));
        }
        let (held_out, documents) = documents.split_at(n_held_out);
        let (held_out, documents) = (held_out.to_vec(), documents.to_vec());
        let window = options.window.min(self.longest());
        let cut = self.cut(&documents, window, options.max_tokens, part_rows, 2 * training.batch)?;
        if cut.lengths.iter().sum::<usize>() < 2 {
            return Err(Error::argument("text: expected two rows or more, found fewer"));
        }
        let identity = identity(text);
        let fingerprint = format!(
            "streamed windows {identity} {} {point} {window} {} {}",
            model.fingerprint(),
            options.max_tokens,
            options.buffer
        );
        let info = Info {
            name: format!("{} layer {}", model.name(), point.layer()),
            model_name: model.name().to_owned(),
            model_fingerprint: model.fingerprint().to_owned(),
            layer: point.resid_post(),
            hook: point.to_string(),
            ..Info::default()
        };
        let d_model = self.d_model();
        let mut alive = || report(progress, 0, 0, "reading what is kept out");
        let mut measured = Vec::new();
        for document in &held_out {
            let wanted = (HELD_OUT * d_model).saturating_sub(measured.len()).div_ceil((window - 1) * d_model);
            if wanted == 0 {
                break;
            }
            alive()?;
            let place = Place { document: 0, window: wanted };
            self.stream_rows(
                &mut Tokens::of(&[document]),
                (Place::default(), place),
                point,
                window,
                &mut measured,
                &mut alive,
            )?;
        }
        measured.truncate(HELD_OUT * d_model);
        let Cut { lengths, firsts } = cut;
        let mut tokens = Tokens::of(&documents);
        let read = move |part: usize, rows: &mut Vec<f32>, alive: &mut dyn FnMut() -> Result<()>| {
            self.stream_rows(&mut tokens, (firsts[part], firsts[part + 1]), point, window, rows, alive)
        };
        Ok(Stream { d_model, parts: lengths, fingerprint, info, held_out: measured, read: Box::new(read) })
    }

    /// Cuts documents into parts of `part_rows` rows or a window more; the last one has `least` or more, if all have.
    fn cut(
        &self,
        documents: &[&Document],
        window: usize,
        max_tokens: u64,
        part_rows: usize,
        least: usize,
    ) -> Result<Cut> {
        let (mut lengths, mut firsts, mut n_tokens, mut rows) = (Vec::new(), vec![Place::default()], 0u64, 0usize);
        let mut end = Place::default();
        'text: for (i, document) in documents.iter().enumerate() {
            let tokens = self.document_tokens(document)?;
            for (j, part) in windows(&tokens, window).enumerate() {
                if max_tokens > 0 && n_tokens >= max_tokens {
                    break 'text;
                }
                if rows >= part_rows {
                    lengths.push(rows);
                    firsts.push(Place { document: i, window: j });
                    rows = 0;
                }
                n_tokens += part.len() as u64;
                rows += part.len() - 1;
                end = Place { document: i, window: j + 1 };
            }
        }
        // What is left makes the last part longer, unless it is enough for one of its own.
        match lengths.last_mut() {
            Some(last) if rows < least => {
                *last += rows;
                firsts.pop();
            }
            _ => lengths.push(rows),
        }
        firsts.push(end);
        Ok(Cut { lengths, firsts })
    }

    /// Appends the rows of windows from a place to another but those at position 0.
    fn stream_rows(
        &mut self,
        documents: &mut Tokens<'_>,
        (from, to): (Place, Place),
        point: HookPoint,
        window: usize,
        rows: &mut Vec<f32>,
        alive: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let d = self.d_model();
        let last = point.layer() + 1 == self.n_layer();
        self.hook_mut().capture([point])?;
        self.hook_mut().stop_after((!last).then_some(point.layer()));
        let mut work = || -> Result<()> {
            let mut batch = Batch::default();
            let mut take = |_: usize, found: &[f32], _: &[i32]| {
                rows.extend_from_slice(found.get(d..).unwrap_or_default());
                Ok(())
            };
            for document in from.document..=to.document {
                let first = if document == from.document { from.window } else { 0 };
                let end = if document == to.document { to.window } else { usize::MAX };
                if first >= end {
                    continue;
                }
                for part in windows(documents.get(self, document)?, window).take(end).skip(first) {
                    if !self.fits(&batch, part) {
                        self.harvest_batch(&mut batch, &[point], &mut take)?;
                        alive()?;
                    }
                    batch.push(part)?;
                }
            }
            self.harvest_batch(&mut batch, &[point], &mut take)?;
            Ok(())
        };
        let worked = work();
        self.hook_mut().capture_nothing();
        self.hook_mut().stop_after(None);
        worked
    }
}

/// The windows of a document; a last one of a single token has no rows.
fn windows(tokens: &[i32], window: usize) -> impl Iterator<Item = &[i32]> {
    tokens.chunks(window).filter(|part| part.len() > 1)
}

/// A place in the text: a document, and a window in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Place {
    document: usize,
    window: usize,
}

/// Parts of documents.
struct Cut {
    /// Rows of each.
    lengths: Vec<usize>,
    /// Where each starts; one more says where the last one ends.
    firsts: Vec<Place>,
}

/// Documents, of which one is held as tokens: a long one has several parts.
struct Tokens<'t> {
    documents: Vec<&'t Document>,
    held: Option<(usize, Vec<i32>)>,
}

impl<'t> Tokens<'t> {
    fn of(documents: &[&'t Document]) -> Self {
        Self { documents: documents.to_vec(), held: None }
    }

    fn get(&mut self, engine: &Engine, document: usize) -> Result<&[i32]> {
        if self.held.as_ref().is_none_or(|(held, _)| *held != document) {
            let text = self.documents.get(document);
            let text = text.ok_or_else(|| Error::argument(format!("there is no document {document}")))?;
            self.held = Some((document, engine.document_tokens(text)?));
        }
        Ok(self.held.as_ref().map_or(&[], |(_, tokens)| tokens))
    }
}
