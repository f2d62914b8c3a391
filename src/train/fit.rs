//! The loop.

use std::path::Path;

use super::adam::Rates;
use super::batch::{Batch, Outcome};
use super::finish::finish;
use super::options::{Metrics, Options};
use super::rows::{Rows, order};
use super::update::Forms;
use super::weights::State;
use super::{checkpoint, revive, schedule, start};
use crate::Kind;
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::progress::{Progress, report};

/// Trains a dictionary on `rows`.
///
/// With `checkpoint`, the state of the run is saved there every `checkpoint_every` steps, at the end, and when `progress`
/// cancels; a later call with the same rows and options goes on from it and ends with the same bits. `progress` counts
/// rows, and its note carries loss, L0, FVU and the number of dead features.
///
/// The dictionary is in the units of the rows. Its thresholds and statistics are counted in a last pass over
/// `statistics_rows` of the rows: BatchTopK dictionaries encode by their threshold; those of a TopK dictionary, one for
/// each feature, chosen so that it fires as often as TopK lets it, serve steering by slices.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for impossible options;
/// [`Kind::Numeric`](crate::Kind::Numeric) if a row holds NaN or infinity, all rows are equal, or training diverges;
/// [`Kind::Format`](crate::Kind::Format) or [`Kind::Mismatch`](crate::Kind::Mismatch) if `checkpoint` is damaged or
/// belongs to another run; [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn fit(
    rows: &Rows<'_>,
    options: &Options,
    checkpoint: Option<&Path>,
    progress: &mut Progress<'_>,
) -> Result<Dictionary> {
    fit_with(rows, options, checkpoint, progress, &mut |_| ())
}

/// [`fit`], which also hands the metrics of every step to `on_step`.
///
/// # Errors
/// As [`fit`].
pub fn fit_with(
    rows: &Rows<'_>,
    options: &Options,
    checkpoint: Option<&Path>,
    progress: &mut Progress<'_>,
    on_step: &mut dyn FnMut(&Metrics),
) -> Result<Dictionary> {
    Run::new(rows, options, checkpoint)?.finish(checkpoint, progress, on_step)
}

/// A run: the state, and what is derived from it.
pub(super) struct Run<'a> {
    rows: &'a Rows<'a>,
    options: Options,
    pub(super) state: State,
    forms: Forms,
    pub(super) batch: Batch,
    /// The pass whose order is held.
    pub(super) epoch: Option<u32>,
    pub(super) order: Vec<u32>,
}

impl<'a> Run<'a> {
    /// Starts a run, or takes it up again where `checkpoint` left it.
    pub(super) fn new(rows: &'a Rows<'a>, options: &Options, checkpoint: Option<&Path>) -> Result<Self> {
        options.check()?;
        let mut options = options.clone();
        options.threads = options.thread_count();
        options.batch = options.batch.min(rows.len());
        let loaded = match checkpoint {
            Some(path) => checkpoint::load(path, rows.d_model(), &options, &rows.fingerprint()?)?,
            None => None,
        };
        let state = match loaded {
            Some(state) => state,
            None => start::start(rows, &options)?,
        };
        Ok(Self::with_state(rows, options, state))
    }

    /// A run that goes on from `state`.
    pub(super) fn with_state(rows: &'a Rows<'a>, options: Options, state: State) -> Self {
        let forms = Forms::of(&state);
        Self { rows, options, state, forms, batch: Batch::default(), epoch: None, order: Vec::new() }
    }

    /// Steps in a pass; what is left over waits for the next one's order.
    fn steps_per_epoch(&self) -> u64 {
        (self.rows.len() / self.options.batch) as u64
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps_per_epoch() * u64::from(self.options.epochs)
    }

    /// Does one step.
    pub(super) fn step(&mut self) -> Result<Metrics> {
        let per_epoch = self.steps_per_epoch();
        let epoch = (self.state.step / per_epoch) as u32;
        if self.epoch != Some(epoch) {
            self.order = order(self.rows.len(), self.options.seed, epoch);
            self.epoch = Some(epoch);
        }
        let first = (self.state.step % per_epoch) as usize * self.options.batch;
        let lr = self.lr();
        let outcome = self.advance(first, lr)?;
        let Outcome { totals, aux, spread } = outcome;
        // Weights that blew up either show in the error, or carried b_dec away from the rows.
        if !(totals.error + spread.variance).is_finite() || 2 * spread.drawn_in > self.batch.len() {
            return Err(Error::numeric(format!(
                "step {}: training diverged; lower lr ({})",
                self.state.step, self.options.lr
            )));
        }
        self.state.step += 1;
        let n = self.batch.len() as f64;
        Ok(Metrics {
            step: self.state.step,
            steps: self.steps(),
            rows: self.state.step * self.options.batch as u64,
            lr,
            loss: totals.error / n,
            aux_loss: aux.error / n,
            l0: totals.active as f64 / n,
            fvu: totals.error / spread.variance,
            dead: revive::count(&self.state, self.options.dead_after),
        })
    }

    fn lr(&self) -> f32 {
        let (options, steps) = (&self.options, self.steps());
        let decay = (steps as f64 * f64::from(options.decay_share)) as u64;
        let warm_up = options.warm_up.min(steps / 5);
        options.lr * schedule::factor(self.state.step, steps, warm_up, decay, options.decay)
    }

    fn advance(&mut self, first: usize, lr: f32) -> Result<Outcome> {
        let Self { rows, options, state, forms, batch, order, .. } = self;
        let threads = options.threads;
        let spread = batch.gather(state, rows, &order[first..first + options.batch], threads)?;
        let dead = revive::dead(state, options.dead_after, options.aux_k);
        batch.select(options, &forms.panels, dead.as_ref(), threads);
        let (totals, aux) = batch.differentiate(&forms.decoder, dead.is_some(), options, threads);
        let rates = Rates::new(lr, options.beta1, options.beta2, options.eps, state.step + 1);
        batch.apply(state, forms, dead.is_some(), &rates, threads);
        Ok(Outcome { totals, aux, spread })
    }

    /// All steps that are left, with checkpoints, then the statistics.
    fn finish(
        &mut self,
        checkpoint: Option<&Path>,
        progress: &mut Progress<'_>,
        on_step: &mut dyn FnMut(&Metrics),
    ) -> Result<Dictionary> {
        let steps = self.steps();
        let save = |run: &Self| match checkpoint {
            Some(path) => checkpoint::save(path, &run.state, &run.options, &run.rows.fingerprint()?),
            None => Ok(()),
        };
        let total = steps * self.options.batch as u64;
        while self.state.step < steps {
            let metrics = self.step()?;
            on_step(&metrics);
            let told = report(progress, metrics.rows, total, &metrics.note());
            let due = self.state.step == steps || self.state.step.is_multiple_of(self.options.checkpoint_every.max(1));
            if due || told.as_ref().is_err_and(|e| e.kind() == Kind::Cancelled) {
                save(self)?;
            }
            told?;
        }
        finish(&self.state, &self.forms.panels, self.rows, &self.options, progress)
    }
}
