//! Harvesting: text in, shards of residual rows out.
//!
//! Documents are cut into windows, windows are packed side by side into batches, and each graph ends after the last wanted
//! layer: a dictionary at a third of the depth costs a third of the forward pass.

use std::path::{Path, PathBuf};

use super::Engine;
use super::documents::{Document, identity};
use crate::activations::{self, Meta, RowType, Writer};
use crate::error::{Error, Result};
use crate::hook_point::{HookPoint, Site};
use crate::model::{Kinship, Model};
use crate::plan::Row;
use crate::progress::{Progress, Step, report};

/// What is harvested.
#[derive(Clone, Debug)]
pub struct Harvest {
    /// Blocks whose rows are read. One layer goes to the directory itself, several to `layer-L` inside it.
    pub layers: Vec<usize>,
    /// The site of those blocks.
    pub site: Site,
    /// How rows are stored.
    pub dtype: RowType,
    /// Longest window, in tokens; a longer document becomes several windows.
    pub window: usize,
    /// Stop with the window that reaches this many tokens, also inside a document; 0 takes all the text. A later call with
    /// more goes on there.
    pub max_tokens: u64,
    /// Rows a shard holds at least; the last one, and one where a harvest was stopped, hold fewer.
    pub shard_rows: usize,
    /// Ends each graph after the last wanted layer. Off only to measure what that saves.
    pub early_stop: bool,
    /// Another quantization of the running model: the rows are marked as rows of that file. Of a type without fast kernels
    /// on a machine, an F16 copy (see [`requantize`](super::requantize)) holds the same weights and runs up to twice as fast.
    pub counts_as: Option<PathBuf>,
}

impl Default for Harvest {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            site: Site::ResidPost,
            dtype: RowType::F16,
            window: 512,
            max_tokens: 0,
            shard_rows: 65_536,
            early_stop: true,
            counts_as: None,
        }
    }
}

impl Harvest {
    fn point(&self, layer: usize) -> HookPoint {
        HookPoint::new(self.site, layer)
    }
}

/// What a harvest made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Harvested {
    /// Rows a layer, earlier sessions included.
    pub n_rows: u64,
    /// Tokens computed by this call.
    pub n_tokens: u64,
    /// Seconds that this call took.
    pub seconds: f64,
}

/// A harvest under way. A place in the text is the number of a document, and of a window in it.
struct Run {
    writers: Vec<(HookPoint, Writer)>,
    points: Vec<HookPoint>,
    batch: Batch,
    /// The document of each window of the batch.
    of: Vec<u64>,
    /// The first window that is not in the batch or computed.
    next: (u64, u64),
    /// The first window that is not computed.
    computed: (u64, u64),
    /// Whether the writers hold the rows up to there and no others.
    whole: bool,
    /// Tokens computed.
    n_tokens: u64,
}

/// Where a writer goes on.
fn place(writer: &Writer) -> (u64, u64) {
    (writer.meta().documents_done, writer.meta().windows_done)
}

impl Run {
    fn new(writers: Vec<(HookPoint, Writer)>) -> Self {
        let points = writers.iter().map(|(point, _)| *point).collect();
        let next = writers.first().map_or((0, 0), |(_, writer)| place(writer));
        let (batch, of) = (Batch::default(), Vec::new());
        Self { writers, points, batch, of, next, computed: next, whole: true, n_tokens: 0 }
    }

    /// Rows of a layer in complete shards.
    fn rows(&self) -> u64 {
        self.writers.first().map_or(0, |(_, writer)| writer.meta().n_rows)
    }

    fn push(&mut self, window: &[i32]) -> Result<()> {
        self.batch.push(window)?;
        self.of.push(self.next.0);
        self.next.1 += 1;
        Ok(())
    }

    /// Writes the rows that are computed. A shard ends where a batch does, so that a harvest that goes on after it computes
    /// the same batches, and rows with the same bits, as one that was not stopped.
    fn keep(&mut self) -> Result<()> {
        let (documents, windows) = self.computed;
        let writers = self.writers.iter_mut().take(if self.whole { usize::MAX } else { 0 });
        writers.into_iter().try_for_each(|(_, writer)| writer.flush(documents, windows))
    }
}

/// Windows that are computed together.
#[derive(Default)]
pub(super) struct Batch {
    tokens: Vec<i32>,
    meta: Vec<Row>,
    /// Where each window ends.
    ends: Vec<usize>,
}

/// Takes the rows of a window at one of the points, with its tokens.
pub(super) type Sink<'s> = &'s mut dyn FnMut(usize, &[f32], &[i32]) -> Result<()>;

impl Engine {
    /// Harvests `text` into `directory`. What is there already (of the same text, model and layers) is kept and not
    /// computed again. When `progress` cancels, or a document cannot be read, the rows computed so far are written first: a
    /// later call goes on there, and ends with the same rows to the bit as one that was not stopped.
    ///
    /// Progress counts tokens of this call; its total is [`Harvest::max_tokens`].
    pub fn harvest(
        &mut self,
        text: &[Document],
        directory: &Path,
        options: &Harvest,
        progress: &mut Progress<'_>,
    ) -> Result<Harvested> {
        let Some(&last) = options.layers.iter().max() else { return Err(Error::argument("no layer to harvest")) };
        if last >= self.n_layer() {
            return Err(Error::argument(format!(
                "layer {last} does not exist; the model has 0 to {}",
                self.n_layer() - 1
            )));
        }
        let window = self.window(options)?;
        let started = std::time::Instant::now();
        let mut run = Run::new(self.writers(text, directory, options, window)?);
        let all_outputs = last + 1 == self.n_layer();
        self.hook_mut().capture(run.points.iter().copied())?;
        self.hook_mut().stop_after((options.early_stop && !all_outputs).then_some(last));
        let worked = self.windows(text, &mut run, window, options.max_tokens, progress);
        self.hook_mut().capture_nothing();
        self.hook_mut().stop_after(None);
        if let Err(error) = worked {
            run.keep()?;
            return Err(error);
        }
        if run.rows() + run.n_tokens == 0 {
            let none = format!("the text gives no rows: none of {} documents has two tokens or more", text.len());
            return Err(
                Error::argument(none).hinted("the files may be empty, or hold another kind of text than was meant")
            );
        }
        let (documents, windows) = run.computed;
        let mut n_rows = 0;
        for (_, writer) in run.writers {
            n_rows = writer.finish(documents, windows, documents == text.len() as u64)?.n_rows;
        }
        Ok(Harvested { n_rows, n_tokens: run.n_tokens, seconds: started.elapsed().as_secs_f64() })
    }

    /// Tokens of a window, which must not be longer than what is computed at once.
    fn window(&self, options: &Harvest) -> Result<usize> {
        let window = options.window.min(self.longest());
        if window < 2 {
            return Err(Error::argument(format!("a window of {window} tokens is too short")));
        }
        Ok(window)
    }

    /// Computes what is left of `text`, until its end or until there are `max_tokens` rows.
    fn windows(
        &mut self,
        text: &[Document],
        run: &mut Run,
        window: usize,
        max_tokens: u64,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let before = run.rows();
        let total = max_tokens.saturating_sub(before);
        report(progress, 0, total, "")?;
        let mut taken = before;
        'text: for document in text.iter().skip(usize::try_from(run.next.0).unwrap_or(usize::MAX)) {
            let named = |e: Error| e.context(format!("document {}", run.next.0 + 1));
            let tokens = self.document_tokens(document).map_err(named)?;
            let parts = tokens.chunks(window).filter(|part| part.len() > 1);
            for part in parts.skip(usize::try_from(run.next.1).unwrap_or(usize::MAX)) {
                if max_tokens > 0 && taken >= max_tokens {
                    break 'text;
                }
                if !self.fits(&run.batch, part) {
                    self.compute(run)?;
                    report(progress, run.n_tokens, total, "")?;
                }
                run.push(part)?;
                taken += part.len() as u64;
            }
            run.next = (run.next.0 + 1, 0);
        }
        self.compute(run)?;
        progress(Step { done: run.n_tokens, total, note: "" }); // all is done: there is nothing left to cancel
        Ok(())
    }

    /// Computes the windows that wait, and writes a shard when it is full.
    fn compute(&mut self, run: &mut Run) -> Result<()> {
        run.whole = false;
        let (mut window, of, writers) = (0, &run.of, &mut run.writers);
        let mut take = |i: usize, rows: &[f32], tokens: &[i32]| {
            let document = of[window % of.len()];
            window += 1;
            writers[i].1.window(rows, tokens).map_err(|e| e.context(format!("document {}", document + 1)))
        };
        run.n_tokens += self.harvest_batch(&mut run.batch, &run.points, &mut take)?;
        run.of.clear();
        (run.computed, run.whole) = (run.next, true);
        if run.writers.iter().any(|(_, writer)| writer.is_full()) { run.keep() } else { Ok(()) }
    }

    /// One writer a layer.
    fn writers(
        &self,
        text: &[Document],
        directory: &Path,
        options: &Harvest,
        window: usize,
    ) -> Result<Vec<(HookPoint, Writer)>> {
        let model = self.counted_as(options.counts_as.as_deref())?;
        let identity = identity(text);
        let mut layers = options.layers.clone();
        layers.sort_unstable();
        layers.dedup();
        let one = layers.len() == 1;
        let mut writers = Vec::new();
        for layer in layers {
            let meta = Meta {
                format: 0,
                model: model.name().to_owned(),
                model_fingerprint: model.fingerprint().to_owned(),
                layer,
                hook: options.site.name().into(),
                d_model: self.d_model(),
                dtype: options.dtype,
                window,
                n_rows: 0,
                shards: Vec::new(),
                documents_done: 0,
                windows_done: 0,
                text: identity.clone(),
                complete: false,
            };
            let place = if one { directory.to_owned() } else { directory.join(format!("layer-{layer}")) };
            writers.push((options.point(layer), Writer::open(&place, meta, options.shard_rows)?));
        }
        // A kill between two layers' shards leaves one layer ahead of another.
        activations::align(writers.iter_mut().map(|(_, writer)| writer))?;
        Ok(writers)
    }

    /// The model as whose rows those of this one are marked: itself, or another quantization of it.
    ///
    /// # Errors
    /// As [`Model::open`]; [`Kind::Mismatch`](crate::Kind::Mismatch) if `other` is no other form of the model.
    pub fn counted_as(&self, other: Option<&Path>) -> Result<Model> {
        let model = Model::open(self.path())?;
        let Some(path) = other else { return Ok(model) };
        let other = Model::open(path)?;
        let kinship = Kinship::of(other.fingerprint(), model.fingerprint());
        if kinship < Kinship::Sibling {
            let (path, own) = (path.display(), self.path().display());
            return Err(Error::mismatch(format!(
                "{path}: expected the checkpoint of {own}, found {}",
                kinship.describe()
            )));
        }
        Ok(other)
    }

    /// Tokens that are computed at once: so that each row of the last block is there, and all stay within one graph.
    pub(super) fn room(&self) -> usize {
        self.options().batch.min(self.options().context)
    }

    /// Refuses `n` tokens that cannot be computed at once.
    pub(super) fn check_batch(&self, n: usize) -> Result<()> {
        if n > 0 && n <= self.longest() {
            return Ok(());
        }
        let error = Error::argument(format!("{n} tokens, expected 1 to {}: one batch", self.longest()));
        Err(if n == 0 {
            error
        } else {
            error.hinted(format!("give the model a larger batch and context: --context {n}"))
        })
    }

    /// Whether a window has room beside those of a batch.
    pub(super) fn fits(&self, batch: &Batch, window: &[i32]) -> bool {
        batch.tokens.len() + window.len() <= self.room() && batch.ends.len() < self.options().sequences.max(1)
    }

    /// The rows `[tokens.len(), d_model]` at `point` of one window, read from an empty cache; the graph ends after its block.
    pub fn rows(&mut self, tokens: &[i32], point: impl Into<HookPoint>) -> Result<Vec<f32>> {
        let point = point.into();
        let layer = point.layer();
        let n = tokens.len();
        self.check_batch(n)?;
        if layer >= self.n_layer() {
            return Err(Error::argument(format!(
                "layer {layer} does not exist; the model has 0 to {}",
                self.n_layer() - 1
            )));
        }
        let mut batch = Batch::default();
        batch.push(tokens)?;
        self.hook_mut().capture([point])?;
        self.hook_mut().stop_after(Some(layer));
        self.forget()?;
        self.epoch += 1;
        let mut logits = vec![i8::from(layer + 1 == self.n_layer()); n];
        logits[n - 1] = 1;
        let decoded = self.decode(&mut batch.tokens, &batch.meta, &mut logits);
        let captured = self.hook_mut().take_captured(point);
        self.hook_mut().capture_nothing();
        self.hook_mut().stop_after(None);
        decoded?;
        self.finish().ok()?;
        Ok(captured.rows)
    }

    /// Computes a batch, empties it and hands the rows at the captured `points` on; the number of its tokens.
    pub(super) fn harvest_batch(&mut self, batch: &mut Batch, points: &[HookPoint], sink: Sink<'_>) -> Result<u64> {
        let n = batch.tokens.len();
        if n == 0 {
            return Ok(0);
        }
        self.forget()?;
        self.epoch += 1;
        // The graph needs one output at least; rows of the last block are outputs.
        let outputs = points.iter().any(|point| point.layer() + 1 == self.n_layer());
        let mut logits = vec![i8::from(outputs); n];
        if let Some(last) = logits.last_mut() {
            *last = 1;
        }
        self.decode(&mut batch.tokens, &batch.meta, &mut logits)?;
        for (i, point) in points.iter().enumerate() {
            let captured = self.hook_mut().take_captured(*point);
            if captured.meta != batch.meta {
                let what = format!("{point} gave {} rows for {n} tokens", captured.meta.len());
                return Err(self.finish().ok().err().unwrap_or_else(|| Error::mismatch(what)));
            }
            let width = captured.rows.len() / n;
            let mut start = 0;
            for &end in &batch.ends {
                let rows = captured.rows.get(start * width..end * width).unwrap_or_default();
                sink(i, rows, batch.tokens.get(start..end).unwrap_or_default())?;
                start = end;
            }
        }
        self.finish().ok()?;
        *batch = Batch::default();
        Ok(n as u64)
    }
}

impl Batch {
    pub(super) fn push(&mut self, window: &[i32]) -> Result<()> {
        let number = |n: usize| i32::try_from(n).map_err(|_| Error::argument("the batch is too large"));
        let sequence = number(self.ends.len())?;
        for (i, &token) in window.iter().enumerate() {
            self.tokens.push(token);
            self.meta.push(Row::new(number(i)?, sequence).token(token));
        }
        self.ends.push(self.tokens.len());
        Ok(())
    }
}
