//! The loop.

use std::path::Path;

use super::adam::Rates;
use super::batch::{Batch, Spread};
use super::finish::finish;
use super::metrics::{HeldOut, Metrics};
use super::options::Options;
use super::reconstruct::Totals;
use super::rows::{Rows, Selection, Split, order};
use super::update::{Forms, Shape};
use super::variant::Rule;
use super::weights::State;
use super::{checkpoint, resample, revive, schedule, start};
use crate::Kind;
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::file::Lock;
use crate::progress::{Progress, report};

/// Trains a dictionary on `rows`.
///
/// With `checkpoint`, the state of the run is saved there every `checkpoint_every` steps, at the end, and when `progress`
/// cancels; a later call with the same rows and options goes on from it and ends with the same bits. `progress` counts
/// rows, and its note carries loss, L0, FVU and the number of dead features.
///
/// The dictionary is in the units of the rows, and encodes by what was trained: ReLU, thresholds or gates. Thresholds of
/// the variants that choose, and all statistics, are counted in a last pass over `statistics_rows` of the rows: BatchTopK
/// and Matryoshka dictionaries encode by their threshold; those of a TopK dictionary, one for each feature, chosen so that
/// it fires as often as TopK lets it, serve steering by slices.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for impossible options;
/// [`Kind::Numeric`](crate::Kind::Numeric) if a row holds NaN or infinity, all rows are equal, or training diverges;
/// [`Kind::Format`](crate::Kind::Format) or [`Kind::Mismatch`](crate::Kind::Mismatch) if `checkpoint` is damaged or
/// belongs to another run; [`Kind::Io`](crate::Kind::Io) if another run is writing it;
/// [`Kind::Cancelled`](crate::Kind::Cancelled).
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
    let _held = checkpoint.map(Lock::of_file).transpose()?;
    Run::new(rows, options, checkpoint)?.finish(checkpoint, progress, on_step)
}

/// A run: the state, and what is derived from it.
pub(super) struct Run<'a> {
    pub(super) rows: &'a Rows<'a>,
    pub(super) options: Options,
    pub(super) state: State,
    split: Split,
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
        let split = rows.split(options.held_out, options.seed)?;
        options.batch = options.batch.min(split.train.len());
        let loaded = match checkpoint {
            Some(path) => checkpoint::load(path, rows.d_model(), &options, &rows.fingerprint()?)?,
            None => None,
        };
        let state = match loaded {
            Some(state) => state,
            None => start::start(rows, &split, &options)?,
        };
        Ok(Self::with_state(rows, options, split, state))
    }

    /// A run that goes on from `state`.
    pub(super) fn with_state(rows: &'a Rows<'a>, options: Options, split: Split, state: State) -> Self {
        let forms = Forms::of(&state, &options);
        Self { rows, options, state, split, forms, batch: Batch::default(), epoch: None, order: Vec::new() }
    }

    /// Steps in a pass; what is left over waits for the next one's order.
    fn steps_per_epoch(&self) -> u64 {
        (self.split.train.len() / self.options.batch) as u64
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps_per_epoch() * u64::from(self.options.epochs)
    }

    /// The rows of the next step.
    pub(super) fn next_rows(&mut self) -> &[u32] {
        let per_epoch = self.steps_per_epoch();
        let epoch = (self.state.step / per_epoch) as u32;
        if self.epoch != Some(epoch) {
            self.order = order(self.split.train.len(), self.options.seed, epoch);
            self.split.train.name(&mut self.order);
            self.epoch = Some(epoch);
        }
        let first = (self.state.step % per_epoch) as usize * self.options.batch;
        &self.order[first..first + self.options.batch]
    }

    /// Does one step.
    pub(super) fn step(&mut self) -> Result<Metrics> {
        let ids = self.next_rows().to_vec();
        self.step_on(self.rows, &ids)
    }

    /// Does one step on rows `ids` of `source`.
    pub(super) fn step_on(&mut self, source: &Rows<'_>, ids: &[u32]) -> Result<Metrics> {
        let (lr, steps) = (self.lr(), self.steps());
        let coefficient = self.state.pressure.weight(&self.options, self.state.step, steps);
        let Outcome { totals, whole, aux, spread } = self.advance(source, ids, lr)?;
        // Weights that blew up either show in the error, or carried b_dec away from the rows.
        if !(totals.error + spread.variance).is_finite() || 2 * spread.drawn_in > self.batch.len() {
            return Err(Error::numeric(format!(
                "step {}: training diverged; lower lr ({})",
                self.state.step, self.options.lr
            )));
        }
        let n = self.batch.len() as f64;
        let l0 = totals.active as f64 / n;
        let powers = totals.penalty.powers.map(|sum| sum / n);
        self.state.pressure.note(&self.options, self.state.step, steps, l0, powers);
        self.state.step += 1;
        let held_out = match self.options.evaluate_every.max(1) {
            every if self.state.step.is_multiple_of(every) || self.state.step == steps => self.evaluate()?,
            _ => None,
        };
        Ok(Metrics {
            step: self.state.step,
            steps,
            rows: self.state.step * self.options.batch as u64,
            lr,
            loss: totals.error / n,
            penalty: totals.penalty.value / n + whole,
            coefficient,
            aux_loss: aux.error / n,
            l0,
            fvu: totals.error / spread.variance,
            dead: revive::count(&self.state, self.options.dead_after),
            held_out,
        })
    }

    fn lr(&self) -> f32 {
        let (options, steps) = (&self.options, self.steps());
        let decay = (steps as f64 * f64::from(options.decay_share)) as u64;
        let warm_up = options.warm_up.min(steps / 5);
        options.lr * schedule::factor(self.state.step, steps, warm_up, decay, options.decay)
    }

    fn advance(&mut self, source: &Rows<'_>, ids: &[u32], lr: f32) -> Result<Outcome> {
        let steps = self.steps();
        let Self { options, state, forms, batch, .. } = self;
        let threads = options.threads;
        let spread = batch.gather(state, source, ids, options, threads)?;
        let dead = revive::dead(state, options.dead_after, options.aux_k);
        let mut rule = Rule::of(options, state, &forms.norms, ids.len(), steps);
        batch.select(options, &rule, &forms.panels, dead.as_ref(), threads);
        let whole = rule.settle(options, batch.l0());
        let (totals, aux) = batch.differentiate(state, &forms.decoder, &rule, dead.is_some(), options);
        let rates = Rates::new(lr, options.beta1, options.beta2, options.eps, state.step + 1);
        batch.apply(state, forms, dead.is_some(), &Shape { options, rates, shrink: rule.shrinks_decoder() });
        let due = options.resample_every > 0 && (state.step + 1).is_multiple_of(options.resample_every);
        if due && resample::resample(state, batch, options) {
            *forms = Forms::of(state, options);
        }
        Ok(Outcome { totals, whole, aux, spread })
    }

    /// L0 and FVU on documents kept out of training, if there are some.
    fn evaluate(&mut self) -> Result<Option<HeldOut>> {
        /// Rows that are measured, at most.
        const ROWS: usize = 16_384;
        let steps = self.steps();
        let Self { rows, options, state, forms, batch, split, .. } = self;
        let ids: Vec<u32> = (0..split.held_out.len().min(ROWS) as u32).collect();
        let (mut error, mut variance, mut active) = (0.0, 0.0, 0u64);
        for ids in ids.chunks(options.batch) {
            let mut ids = ids.to_vec();
            split.held_out.name(&mut ids);
            variance += batch.gather(state, rows, &ids, options, options.threads)?.variance;
            let rule = Rule::of(options, state, &forms.norms, ids.len(), steps);
            batch.select(options, &rule, &forms.panels, None, options.threads);
            let (totals, _) = batch.differentiate(state, &forms.decoder, &rule, false, options);
            error += totals.error;
            active += totals.active;
        }
        let rows = ids.len();
        Ok((rows > 0).then(|| HeldOut { rows, l0: active as f64 / rows as f64, fvu: error / variance }))
    }

    /// Saves the state.
    pub(super) fn save(&self, checkpoint: Option<&Path>) -> Result<()> {
        match checkpoint {
            Some(path) => checkpoint::save(path, &self.state, &self.options, &self.rows.fingerprint()?),
            None => Ok(()),
        }
    }

    /// Whether the state is to be saved after this step.
    pub(super) fn save_is_due(&self) -> bool {
        let step = self.state.step;
        step == self.steps() || step.is_multiple_of(self.options.checkpoint_every.max(1))
    }

    /// All steps that are left, with checkpoints, then the statistics.
    fn finish(
        mut self,
        checkpoint: Option<&Path>,
        progress: &mut Progress<'_>,
        on_step: &mut dyn FnMut(&Metrics),
    ) -> Result<Dictionary> {
        let steps = self.steps();
        let total = steps * self.options.batch as u64;
        while self.state.step < steps {
            let metrics = self.step()?;
            on_step(&metrics);
            let told = report(progress, metrics.rows, total, &metrics.note());
            if self.save_is_due() || told.as_ref().is_err_and(|e| e.kind() == Kind::Cancelled) {
                self.save(checkpoint)?;
            }
            told?;
        }
        self.dictionary(progress)
    }

    /// The dictionary that the state is.
    pub(super) fn dictionary(mut self, progress: &mut Progress<'_>) -> Result<Dictionary> {
        let train = std::mem::replace(&mut self.split.train, Selection::First(0));
        let rows = self.rows;
        self.dictionary_over(rows, &train, progress)
    }

    /// The dictionary that the state is, with the statistics of some rows.
    pub(super) fn dictionary_over(
        self,
        rows: &Rows<'_>,
        some: &Selection,
        progress: &mut Progress<'_>,
    ) -> Result<Dictionary> {
        let Self { options, mut state, forms, batch, .. } = self;
        // Statistics have a batch of their own, and the moments have done their work.
        drop(batch);
        state.forget_moments();
        finish(state, &forms, rows, some, &options, progress)
    }
}

/// What a step found out.
struct Outcome {
    /// Of the reconstruction.
    totals: Totals,
    /// What the batch as a whole adds to the penalty.
    whole: f64,
    /// Of the dead features' reconstruction of the error.
    aux: Totals,
    /// Of the rows.
    spread: Spread,
}
