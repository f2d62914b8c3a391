//! The loop.

use rand::Rng;
use std::path::Path;

use super::checkpoint;
use super::coder::Coder;
use super::frame::Frame;
use super::network::{Buffers, Network, Pass, Totals};
use super::options::{Metrics, Objective, Options};
use crate::Kind;
use crate::error::{Error, Result};
use crate::file::{Lock, room};
use crate::num::parallel::{count, each};
use crate::progress::{Progress, report};
use crate::train::adam::Rates;
use crate::train::rows::{Rows, generator, order};
use crate::train::schedule;
use crate::train::start::unit;
use crate::train::weights::Parameter;

/// Trains a coder on `rows`: those of a residual stream for ConCA, differences of rows for SSAE.
///
/// With `checkpoint`, the state of the run is saved there every `checkpoint_every` steps, at the end, and when `progress`
/// cancels; a later call with the same rows and options goes on from it and ends with the same bits. `progress` counts
/// rows, and its note carries error, FVU and sparsity. The coder is in the units of the rows.
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
) -> Result<Coder> {
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
) -> Result<Coder> {
    let _held = checkpoint.map(Lock::of_file).transpose()?;
    let mut run = Run::new(rows, options, checkpoint)?;
    let save = |run: &Run<'_>| match checkpoint {
        Some(path) => checkpoint::save(path, &run.state, &run.options, &rows.fingerprint()?),
        None => Ok(()),
    };
    let steps = run.options.steps;
    let total = steps * run.options.batch as u64;
    while run.state.step < steps {
        let metrics = run.step()?;
        on_step(&metrics);
        let told = report(progress, metrics.rows, total, &metrics.note());
        let due = run.state.step == steps || run.state.step.is_multiple_of(run.options.checkpoint_every.max(1));
        if due || told.as_ref().is_err_and(|e| e.kind() == Kind::Cancelled) {
            save(&run)?;
        }
        told?;
    }
    let coder = Coder::of(&run.state, &run.options, rows)?;
    coder.with_statistics(rows, &run.options, progress)
}

/// Everything that a step reads and writes; a checkpoint holds exactly this.
pub(super) struct State {
    pub(super) network: Network,
    pub(super) frame: Frame,
    /// SSAE's multiplier.
    pub(super) multiplier: f64,
    /// Steps done.
    pub(super) step: u64,
}

/// A run: the state, and what is derived from it.
pub(super) struct Run<'a> {
    rows: &'a Rows<'a>,
    pub(super) options: Options,
    pub(super) state: State,
    pub(super) buffers: Buffers,
    batch: Vec<f32>,
    epoch: Option<u32>,
    order: Vec<u32>,
}

impl<'a> Run<'a> {
    /// Starts a run, or takes it up again where `checkpoint` left it.
    pub(super) fn new(rows: &'a Rows<'a>, options: &Options, checkpoint: Option<&Path>) -> Result<Self> {
        options.check()?;
        let mut options = options.clone();
        options.threads = count(options.threads);
        options.batch = options.batch.min(rows.len());
        let loaded = match checkpoint {
            Some(path) => checkpoint::load(path, rows.d_model(), &options, &rows.fingerprint()?)?,
            None => None,
        };
        let state = match loaded {
            Some(state) => state,
            None => start(rows, &options)?,
        };
        Ok(Self::with_state(rows, options, state))
    }

    /// A run that goes on from `state`.
    pub(super) fn with_state(rows: &'a Rows<'a>, options: Options, state: State) -> Self {
        Self { rows, options, state, buffers: Buffers::default(), batch: Vec::new(), epoch: None, order: Vec::new() }
    }

    /// Does one step.
    pub(super) fn step(&mut self) -> Result<Metrics> {
        let lr = self.lr();
        let totals = self.differentiate()?;
        let Self { options, state, buffers, .. } = self;
        let n = options.batch as f64;
        if !(totals.error + totals.sparsity).is_finite() {
            let (step, lr) = (state.step, options.lr);
            return Err(Error::numeric(format!("step {step}: training diverged; lower lr ({lr})")));
        }
        let rates = Rates::new(lr, options.beta1, options.beta2, options.eps, state.step + 1);
        state.network.update(&mut buffers.gradients, options, &rates, options.threads);
        let mut sparsity = totals.sparsity / n;
        if let Objective::Ssae { level, dual_rate } = options.objective {
            sparsity /= state.network.n as f64;
            let excess = sparsity / f64::from(level) - 1.0;
            state.multiplier = (state.multiplier + f64::from(dual_rate) * excess).max(0.0);
        }
        state.step += 1;
        Ok(Metrics {
            step: state.step,
            steps: options.steps,
            rows: state.step * options.batch as u64,
            lr,
            mse: totals.error / n,
            sparsity,
            fvu: totals.error / totals.size,
            multiplier: state.multiplier,
        })
    }

    /// Reads the batch of this step and differentiates.
    pub(super) fn differentiate(&mut self) -> Result<Totals> {
        let Self { rows, options, state, buffers, batch, epoch, order: rank } = self;
        // Steps in a pass; what is left over waits for the next one's order.
        let per_epoch = (rows.len() / options.batch) as u64;
        let now = (state.step / per_epoch) as u32;
        if *epoch != Some(now) {
            *rank = order(rows.len(), options.seed, now);
            *epoch = Some(now);
        }
        let first = (state.step % per_epoch) as usize * options.batch;
        let d = rows.d_model();
        batch.resize(options.batch * d, 0.0);
        read(rows, &rank[first..first + options.batch], &state.frame, batch, options.threads)?;
        let pass = Pass {
            options,
            multiplier: state.multiplier as f32,
            first: state.step * options.batch as u64,
            threads: options.threads,
        };
        Ok(state.network.differentiate(batch, pass, buffers))
    }

    fn lr(&self) -> f32 {
        let Options { steps, decay_share, warm_up, decay, lr, .. } = self.options;
        let falling = (steps as f64 * f64::from(decay_share)) as u64;
        lr * schedule::factor(self.state.step, steps, warm_up.min(steps / 5), falling, decay)
    }
}

/// Reads rows `ids` into `out` `[ids, d]`, in their frame.
pub(super) fn read(rows: &Rows<'_>, ids: &[u32], frame: &Frame, out: &mut [f32], threads: usize) -> Result<()> {
    const PIECE: usize = 64;
    let d = rows.d_model();
    let mut done: Vec<Result<()>> = ids.chunks(PIECE).map(|_| Ok(())).collect();
    each(threads, ids.chunks(PIECE).zip(out.chunks_mut(PIECE * d)).zip(&mut done), |((ids, out), done)| {
        for (&id, row) in ids.iter().zip(out.chunks_exact_mut(d)) {
            match rows.read(id as usize, row) {
                Ok(()) => frame.enter(row),
                Err(e) => {
                    *done = Err(e);
                    return;
                }
            }
        }
    });
    done.into_iter().collect()
}

/// The state before step 0: encoder rows are random directions, the decoder is the encoder, scaled so that
/// `z·W_dec ≈ x` (rows of norm 1 for SSAE).
fn start(rows: &Rows<'_>, options: &Options) -> Result<State> {
    let (n, d) = (options.n_latents, rows.d_model());
    // Both matrices with their two moments, and the codes of a batch with their gradients.
    let floats = n.saturating_mul(d).saturating_mul(6).saturating_add(n.saturating_mul(3 * options.batch));
    room(floats.saturating_mul(size_of::<f32>()), format_args!("{n} codes of width {d}"))?;
    let frame = Frame::of(rows, options)?;
    let mut rng = generator(options.seed, 0);
    let mut encoder = vec![0f32; n * d];
    for row in encoder.chunks_exact_mut(d) {
        for x in row.iter_mut() {
            // A normal number by Box and Muller.
            let (u, angle): (f64, f64) = (1.0 - rng.random::<f64>(), std::f64::consts::TAU * rng.random::<f64>());
            *x = ((-2.0 * u.ln()).sqrt() * angle.cos()) as f32;
        }
        unit(row);
    }
    // Σ_i w_i w_iᵀ ≈ (n/d)·1 for random directions; below n = d every one of them counts in full.
    let share = (d as f32 / n as f32).min(1.0);
    let (decoder_scale, gain) = match options.objective {
        Objective::Conca { .. } => (share, 1.0),
        Objective::Ssae { .. } => (1.0, share),
    };
    let decoder = encoder.iter().map(|w| w * decoder_scale).collect();
    let gain = if options.regularizer.is_affine() { gain } else { 1.0 };
    let network = Network {
        d,
        n,
        encoder: Parameter::new(encoder),
        decoder: Parameter::new(decoder),
        encoder_bias: Parameter::new(vec![0.0; n]),
        decoder_bias: Parameter::new(vec![0.0; d]),
        gain: Parameter::new(vec![gain; n]),
        shift: Parameter::new(vec![0.0; n]),
        mean: vec![0.0; n],
        variance: vec![1.0; n],
    };
    Ok(State { network, frame, multiplier: 0.0, step: 0 })
}
