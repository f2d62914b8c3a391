//! The joint estimator: Adam on the whole objective (arXiv 2509.23323).
//!
//! > L = ‖x − x̂‖² + α‖ε̂‖₁ + β(Σ‖B_τ‖₁ + ‖M‖₁), ε̂ = ẑ_t − M ẑ_t − Σ B_τ ẑ_{t−τ}
//!
//! Everything is linear, so the Jacobian of the latents is the parameters themselves and the gradients are a few products of
//! matrices. [D] Decoder rows keep length 1, or z would shrink to please α. β acts by a soft threshold after each step of
//! Adam, in Adam's own metric, so zeros are exact. Every `reorder_every` steps the causal order is asked again: edges that the
//! likelihood prefers the other way round are turned, and edges that the order forbids, but the gradient asks for, may push
//! their latents apart. Rows come in pieces of text, in order; only the order of the pieces is drawn.
//!
//! On codes that are given there is no x̂: what is left is convex in B and M for a given order.

use std::path::Path;

use serde::Serialize;

use super::frame::Frame;
use super::joint_batch::Batch;
use super::joint_state::State;
use super::model::Temporal;
use super::sequences::Sequences;
use super::two_stage::{TwoStageOptions, two_stage};
use crate::error::{Error, Kind, Result};
use crate::file::Lock;
use crate::progress::{Progress, report};
use crate::train::rows::order;
use crate::train::schedule::{self, Decay};

/// Targets in a piece of text.
const PIECE: usize = 64;

/// The settings of the joint estimator. All of them but `threads` and `checkpoint_every` shape the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JointOptions {
    /// Rows that the present may depend on.
    pub lags: usize,
    /// Latents of rows, at most the rows' width; codes are as many as they are.
    pub n_latents: usize,
    /// Start from the two-stage estimate; otherwise from chance.
    pub two_stage: Option<TwoStageOptions>,
    /// Weight of ‖ε̂‖₁.
    pub alpha: f32,
    /// Weight of ‖B‖₁ and ‖M‖₁.
    pub beta: f32,
    /// Weights with less effect than this at the end, in standard deviations, are 0: the last steps leave some by chance.
    pub smallest: f32,
    /// Target rows in a step.
    pub batch: usize,
    /// Times that every row is seen.
    pub epochs: u32,
    /// The learning rate after warm-up; it falls linearly over the last half.
    pub lr: f32,
    /// Steps between two looks at the causal order.
    pub reorder_every: u64,
    /// Chooses the start and the order of the pieces.
    pub seed: u64,
    /// Threads; 0: all that the machine has. The result doesn't depend on it.
    #[serde(skip)]
    pub threads: usize,
    /// Steps between two checkpoints.
    #[serde(skip)]
    pub checkpoint_every: u64,
}

impl Default for JointOptions {
    fn default() -> Self {
        Self {
            lags: 2,
            n_latents: 128,
            two_stage: Some(TwoStageOptions::default()),
            alpha: 0.1,
            beta: 0.003,
            smallest: 0.03,
            batch: 1024,
            epochs: 4,
            lr: 2e-3,
            reorder_every: 100,
            seed: 0,
            threads: 0,
            checkpoint_every: 200,
        }
    }
}

impl JointOptions {
    fn check(&self, sequences: &Sequences<'_>) -> Result<()> {
        let wrong = |name: &str, what: String, found: String| {
            Err(Error::argument(format!("temporal option {name} must be {what}, found {found}")))
        };
        if self.lags == 0 || self.lags > 64 {
            return wrong("lags", "1 to 64".into(), self.lags.to_string());
        }
        if !sequences.are_codes() && !(2..=sequences.width()).contains(&self.n_latents) {
            return wrong("n_latents", format!("2 to {}", sequences.width()), self.n_latents.to_string());
        }
        if self.two_stage.as_ref().is_some_and(|t| t.lags != self.lags) {
            return wrong("two_stage.lags", format!("lags ({})", self.lags), "another number".into());
        }
        for (name, value) in [("alpha", self.alpha), ("beta", self.beta), ("smallest", self.smallest), ("lr", self.lr)]
        {
            if !(0.0..=1e3).contains(&value) {
                return wrong(name, "0 to 1000".into(), value.to_string());
            }
        }
        if self.batch == 0 || self.epochs == 0 {
            return wrong("batch and epochs", "1 or more".into(), "0".into());
        }
        Ok(())
    }

    fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}

/// Estimates a temporal model by gradient descent. With `checkpoint`, the state of the run is saved there every
/// `checkpoint_every` steps, at the end and when `progress` cancels; a later call with the same rows and options goes on from
/// it and ends with the same bits. `progress` counts target rows; its note carries the parts of the loss.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for impossible options or rows without a past;
/// [`Kind::Numeric`](crate::Kind::Numeric) if it diverges, and what [`two_stage`] returns if it starts from there;
/// [`Kind::Format`](crate::Kind::Format) or [`Kind::Mismatch`](crate::Kind::Mismatch) for a checkpoint that is damaged or of
/// another run; [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn joint(
    sequences: &Sequences<'_>,
    options: &JointOptions,
    checkpoint: Option<&Path>,
    progress: &mut Progress<'_>,
) -> Result<Temporal> {
    options.check(sequences)?;
    let _held = checkpoint.map(Lock::of_file).transpose()?;
    let mut run = Run::new(sequences, options, checkpoint, progress)?;
    let steps = run.steps();
    let total = steps * run.per_step() as u64 * PIECE as u64;
    while run.state.step < steps {
        let losses = run.step()?;
        let note = format!("error {:.4}  noise {:.4}  weights {}", losses.error, losses.noise, run.state.n_weights());
        let done = run.state.step * run.per_step() as u64 * PIECE as u64;
        let told = report(progress, done, total, &note);
        let due = run.state.step == steps || run.state.step.is_multiple_of(options.checkpoint_every.max(1));
        if let Some(path) = checkpoint
            && (due || told.as_ref().is_err_and(|e| e.kind() == Kind::Cancelled))
        {
            run.state.save(path, &run.recipe()?)?;
        }
        told?;
    }
    let recipe = run.recipe()?;
    let mut model = run.state.finish(sequences, &run.frame, recipe, run.threads)?;
    model.drop_weak(options.smallest);
    Ok(model)
}

/// The parts of the loss, mean over rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// ‖x − x̂‖² over the rows' width; 0 for codes.
    pub(super) error: f64,
    /// ‖ε̂‖₁ over the number of latents.
    pub(super) noise: f64,
}

pub(super) struct Run<'a> {
    sequences: &'a Sequences<'a>,
    options: JointOptions,
    pub(super) frame: Frame,
    pub(super) state: State,
    /// Document and first target of each piece.
    pieces: Vec<(usize, usize)>,
    epoch: Option<u32>,
    drawn: Vec<u32>,
    batch: Batch,
    threads: usize,
}

impl<'a> Run<'a> {
    fn new(
        sequences: &'a Sequences<'a>,
        options: &JointOptions,
        checkpoint: Option<&Path>,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        let lags = options.lags;
        let pieces: Vec<(usize, usize)> = (0..sequences.n_documents())
            .flat_map(|d| {
                let whole = sequences.document_len(d).saturating_sub(lags) / PIECE;
                (0..whole).map(move |k| (d, lags + k * PIECE))
            })
            .collect();
        if pieces.is_empty() {
            let need = lags + PIECE;
            return Err(Error::argument(format!("rows: expected a document of {need} rows or more, found none")));
        }
        let codes = sequences.are_codes();
        let frame = if codes { Frame::standard(sequences, options.lags)? } else { Frame::even(sequences)? };
        let mut run = Self {
            sequences,
            options: options.clone(),
            state: State::empty(
                if codes { sequences.width() } else { options.n_latents },
                sequences.width(),
                lags,
                codes,
            ),
            frame,
            pieces,
            epoch: None,
            drawn: Vec::new(),
            batch: Batch::default(),
            threads: options.thread_count(),
        };
        let recipe = run.recipe()?;
        let loaded = match checkpoint {
            Some(path) => run.state.load(path, &recipe)?,
            None => false,
        };
        if !loaded {
            match &options.two_stage {
                Some(stages) => {
                    let stages =
                        TwoStageOptions { n_latents: options.n_latents, threads: options.threads, ..stages.clone() };
                    let model = two_stage(sequences, &stages, progress)?;
                    run.state.start_from(&model, &run.frame);
                }
                None => run.state.start_random(options.seed),
            }
        }
        Ok(run)
    }

    /// What tells this run from others.
    fn recipe(&self) -> Result<String> {
        let recipe = serde_json::json!({
            "estimator": "joint", "options": self.options, "rows": self.sequences.fingerprint()?,
            "n_rows": self.sequences.len(),
        });
        Ok(recipe.to_string())
    }

    /// Pieces in a step.
    fn per_step(&self) -> usize {
        self.options.batch.div_ceil(PIECE).min(self.pieces.len())
    }

    fn steps(&self) -> u64 {
        (self.pieces.len() / self.per_step()) as u64 * u64::from(self.options.epochs)
    }

    fn step(&mut self) -> Result<Losses> {
        let per_epoch = (self.pieces.len() / self.per_step()) as u64;
        let epoch = (self.state.step / per_epoch) as u32;
        if self.epoch != Some(epoch) {
            self.drawn = order(self.pieces.len(), self.options.seed, epoch);
            self.epoch = Some(epoch);
        }
        let first = (self.state.step % per_epoch) as usize * self.per_step();
        self.batch.clear();
        for &piece in &self.drawn[first..first + self.per_step()] {
            let (document, target) = self.pieces[piece as usize];
            let rows = target - self.options.lags..target + PIECE;
            self.batch.add(self.sequences, &self.frame, document, rows, self.threads)?;
        }
        let JointOptions { alpha, beta, .. } = self.options;
        let losses = self.batch.differentiate(&self.state, PIECE, alpha, self.threads);
        if !(losses.error + losses.noise).is_finite() {
            let (step, lr) = (self.state.step, self.options.lr);
            return Err(Error::numeric(format!("step {step}: training diverged; lower lr ({lr})")));
        }
        let steps = self.steps();
        let factor = schedule::factor(self.state.step, steps, (steps / 20).min(100), steps / 2, Decay::Linear);
        self.batch.apply(&mut self.state, self.options.lr * factor, beta);
        self.state.step += 1;
        // The last quarter settles the weights of the order that was found.
        let settled = self.state.step > steps - steps / 4;
        if self.options.reorder_every > 0 && !settled && self.state.step.is_multiple_of(self.options.reorder_every) {
            self.batch.reorder(&mut self.state, alpha, beta);
        }
        Ok(losses)
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate::{Process, Shape};
    use super::super::recovery::recovery;
    use super::*;
    use crate::progress::silent;

    fn process() -> (Process, Vec<f32>) {
        let mut process = Process::new(Shape { n_latents: 8, lags: 2, seed: 5 }).unwrap();
        let z = process.latents(12_000);
        (process, z)
    }

    fn options() -> JointOptions {
        JointOptions {
            n_latents: 8,
            two_stage: None,
            epochs: 80,
            lr: 1e-2,
            reorder_every: 50,
            ..JointOptions::default()
        }
    }

    /// Codes are given: B, M and the order are found from nothing.
    #[test]
    fn a_planted_process_is_found_in_its_codes() {
        let (process, z) = process();
        let rows = process.sequences(z.clone()).unwrap().as_codes();
        let model = joint(&rows, &options(), None, &mut silent).unwrap();
        let found = recovery(&process, &model, &z, &z).unwrap();
        assert!(found.f1_lagged >= 0.9 && found.f1_instantaneous >= 0.9, "{found:?}");
    }

    /// From the two-stage start on rows, A and the weights stay good and the error falls to nothing.
    #[test]
    fn a_planted_process_is_kept_on_rows() {
        let (process, z) = process();
        let x = process.mix(&z);
        let rows = process.sequences(x.clone()).unwrap();
        let options = JointOptions { two_stage: Some(TwoStageOptions::default()), epochs: 2, lr: 1e-3, ..options() };
        let model = joint(&rows, &options, None, &mut silent).unwrap();
        let found = recovery(&process, &model, &z, &model.encode(&x).unwrap()).unwrap();
        assert!(found.mcc > 0.95 && found.f1_lagged >= 0.9 && found.f1_instantaneous >= 0.8, "{found:?}");
        let mixing = model.mixing().unwrap();
        for row in mixing.directions.chunks_exact(8) {
            assert!((crate::num::norm(row) - 1.0).abs() < 1e-4, "directions have length 1");
        }
    }

    #[test]
    fn threads_and_interruptions_change_no_bit() {
        let (process, z) = process();
        let rows = process.sequences(process.mix(&z)).unwrap();
        let options = JointOptions { epochs: 1, reorder_every: 3, checkpoint_every: 2, threads: 1, ..options() };
        let whole = joint(&rows, &options, None, &mut silent).unwrap();
        let other = joint(&rows, &JointOptions { threads: 3, ..options.clone() }, None, &mut silent).unwrap();
        assert_eq!(whole, other, "threads");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        // Stopped after some rows, then again: each time the state is kept.
        for stop in [3_000, 7_000] {
            let error = joint(&rows, &options, Some(&path), &mut |step| step.done < stop).unwrap_err();
            assert_eq!(error.kind(), Kind::Cancelled);
        }
        let resumed = joint(&rows, &options, Some(&path), &mut silent).unwrap();
        assert_eq!(whole, resumed, "a resumed run ends bit for bit where an uninterrupted one does");
        let other = JointOptions { beta: 0.5, ..options };
        assert_eq!(joint(&rows, &other, Some(&path), &mut silent).unwrap_err().kind(), Kind::Mismatch);
    }

    #[test]
    fn impossible_options_are_named() {
        let (process, z) = process();
        let rows = process.sequences(z).unwrap();
        let message = |options: JointOptions| {
            let error = joint(&rows, &options, None, &mut silent).unwrap_err();
            assert_eq!(error.kind(), Kind::Argument);
            error.message().to_owned()
        };
        assert!(message(JointOptions { lags: 0, ..options() }).contains("lags must be 1 to 64, found 0"));
        assert!(message(JointOptions { n_latents: 9, ..options() }).contains("n_latents must be 2 to 8, found 9"));
        assert!(message(JointOptions { alpha: f32::NAN, ..options() }).contains("alpha"));
        assert!(message(JointOptions { batch: 0, ..options() }).contains("batch"));
    }
}
