use std::ffi::c_char;

use super::activations::tiller_activations;
use super::arguments::{Options, Report, expect_len, finite, options, path, report, slice_mut, some};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::progress::{reporter, tiller_progress};
use crate::error::{Error, Result};
use crate::train::temporal::{JointOptions, Sequences, Temporal, TwoStageOptions, forecast, joint, two_stage};

/// Which latent drives which, in the same row and in later ones: z_t = sum B_k z_(t-k) + M z_t + noise. The latents are
/// features of a dictionary, or of the rows themselves. The file is safetensors: A, B, M, order.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_temporal(Temporal);

/// How a temporal model is estimated. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_temporal_options {
    /// sizeof(tiller_temporal_options).
    pub size: u32,
    /// Rows that the present may depend on; 0 means 2.
    pub lags: u32,
    /// Latents; of a dictionary, the features that say most about the text. 0 means 512.
    pub n_latents: u32,
    /// 1: go on from the two-stage estimate by gradient descent on the whole objective.
    pub joint: u32,
    /// Weight of the noise in the joint objective; 0 means 0.1.
    pub alpha: f32,
    /// Weight of sparsity in the joint objective; 0 means 0.003.
    pub beta: f32,
    /// Times that the joint estimate sees every row; 0 means 4.
    pub epochs: u32,
    /// Threads; 0 means all that the machine has. The result doesn't depend on it.
    pub threads: u32,
    /// Least effect that counts, in standard deviations; 0 means 0.05.
    pub smallest: f32,
    /// Ridge of the regression on the past, for columns of variance 1; 0 means 0.001.
    pub ridge: f32,
    /// Residuals that are unmixed, at most; 0 means 100,000.
    pub ica_rows: u32,
    /// Every so-many-th document is left out; 0 leaves out none.
    pub hold_out: u32,
    /// Chooses the order of pieces of the joint estimate.
    pub seed: u64,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_temporal_options {
    const NAME: &'static str = "tiller_temporal_options";
}

/// How well a temporal model predicts rows: variance explained, mean over latents.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_forecast {
    /// Set it to sizeof(tiller_forecast) before the call.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Rows that were predicted.
    pub n_rows: u64,
    /// From the rows before.
    pub from_past: f64,
    /// The same with the rows before taken from other places of the text.
    pub from_shuffled_past: f64,
    /// From the rows before and the latents that drive each latent in its own row.
    pub from_past_and_present: f64,
    /// The same with the rows before taken from other places of the text.
    pub from_shuffled_past_and_present: f64,
}

// SAFETY: `repr(C)`, a `u32` first, which is its size.
unsafe impl Report for tiller_forecast {
    const NAME: &'static str = "tiller_forecast";
}

impl tiller_temporal_options {
    fn stages(&self) -> Result<TwoStageOptions> {
        let default = TwoStageOptions::default();
        let or = |given: u32, default: usize| if given == 0 { default } else { given as usize };
        let real = |given: f32, default: f64, name: &str| -> Result<f64> {
            let given = finite(given, name)?;
            Ok(if given == 0.0 { default } else { given.into() })
        };
        Ok(TwoStageOptions {
            lags: or(self.lags, default.lags),
            n_latents: or(self.n_latents, 512),
            ridge: real(self.ridge, 1e-3, "tiller_temporal_options.ridge")?,
            smallest: real(self.smallest, default.smallest, "tiller_temporal_options.smallest")?,
            ica_rows: or(self.ica_rows, default.ica_rows),
            threads: self.threads as usize,
            ..default
        })
    }

    fn joint(&self, stages: TwoStageOptions) -> Result<JointOptions> {
        let default = JointOptions::default();
        let or = |given: f32, default: f32, name: &str| -> Result<f32> {
            let given = finite(given, name)?;
            Ok(if given == 0.0 { default } else { given })
        };
        Ok(JointOptions {
            lags: stages.lags,
            n_latents: stages.n_latents,
            alpha: or(self.alpha, default.alpha, "tiller_temporal_options.alpha")?,
            beta: or(self.beta, default.beta, "tiller_temporal_options.beta")?,
            epochs: if self.epochs == 0 { default.epochs } else { self.epochs },
            seed: self.seed,
            threads: stages.threads,
            two_stage: Some(stages),
            ..default
        })
    }
}

/// Estimates a temporal model from harvested rows, in the order of their text: of the features of `dictionary`, or, if that
/// is NULL, of latents of the rows. `checkpoint` is a file from which a joint estimate that was cancelled goes on, or NULL.
///
/// On success `*out` owns a new model; free it with tiller_temporal_free(), after tiller_temporal_save().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_train(
    rows: Option<&tiller_activations>,
    dictionary: Option<&tiller_dictionary>,
    given: *const tiller_temporal_options,
    checkpoint: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_temporal>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let rows = &some(rows, "rows")?.rows;
        // SAFETY: the header requires a struct whose `size` is set, or NULL; a C string, or NULL.
        let (given, checkpoint) = unsafe {
            (options(given)?, if checkpoint.is_null() { None } else { Some(path(checkpoint, "checkpoint")?) })
        };
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let stages = given.stages()?;
        let all = match dictionary {
            Some(d) => {
                Sequences::from_dictionary(rows, &d.dictionary, stages.n_latents, threads(&given), &mut progress)?
            }
            None => Sequences::from_activations(rows)?,
        };
        let kept = if given.hold_out == 0 { all } else { all.hold_out(given.hold_out as usize)?.0 };
        let model = match given.joint {
            0 => two_stage(&kept, &stages, &mut progress)?,
            _ => joint(&kept, &given.joint(stages)?, checkpoint, &mut progress)?,
        };
        Ok(tiller_temporal(model))
    })
}

fn threads(given: &tiller_temporal_options) -> usize {
    match given.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n as usize,
    }
}

/// Opens a file that tiller_temporal_save() wrote.
///
/// On success `*out` owns a new model; free it with tiller_temporal_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_open(
    file: *const c_char,
    out: Out<'_, tiller_temporal>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || Temporal::open(unsafe { path(file, "file") }?).map(tiller_temporal))
}

/// Writes the model as safetensors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_save(
    temporal: Option<&tiller_temporal>,
    file: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(temporal, "temporal")?.0.save(unsafe { path(file, "file") }?))
}

/// Number of latents. 0 if `temporal` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_temporal_n_latents(temporal: Option<&tiller_temporal>) -> usize {
    temporal.map_or(0, |t| t.0.n_latents())
}

/// Number of lags. 0 if `temporal` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_temporal_lags(temporal: Option<&tiller_temporal>) -> usize {
    temporal.map_or(0, |t| t.0.lags())
}

/// Width of the residual stream that the latents lie in; 0 if that is unknown or `temporal` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_temporal_d_model(temporal: Option<&tiller_temporal>) -> usize {
    temporal.and_then(|t| t.0.mixing()).map_or(0, |m| m.offset.len())
}

/// The feature of the dictionary that each latent is, in `n` = n_latents numbers; of a model of rows, 0, 1, 2, ...
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_features(
    temporal: Option<&tiller_temporal>,
    features: *mut u32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let model = &some(temporal, "temporal")?.0;
        expect_len(n, model.n_latents(), "features")?;
        // SAFETY: the header requires `n` writable numbers.
        let out = unsafe { slice_mut(features, n, "features") }?;
        match model.features() {
            [] => out.iter_mut().zip(0..).for_each(|(out, i)| *out = i),
            features => out.copy_from_slice(features),
        }
        Ok(())
    })
}

/// The latents in causal order, causes first, in `n` = n_latents numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_order(
    temporal: Option<&tiller_temporal>,
    order: *mut u32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let model = &some(temporal, "temporal")?.0;
        expect_len(n, model.n_latents(), "order")?;
        // SAFETY: the header requires `n` writable numbers.
        unsafe { slice_mut(order, n, "order") }?.copy_from_slice(model.order());
        Ok(())
    })
}

/// The weights of a lag, `n` = n_latents * n_latents floats, row by row: entry [i][j] is how much of latent j, `lag` rows
/// before, is in latent i. Lag 0 is M, lag k is B_k.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_weights(
    temporal: Option<&tiller_temporal>,
    lag: u32,
    weights: *mut f32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let model = &some(temporal, "temporal")?.0;
        let square = model.n_latents() * model.n_latents();
        expect_len(n, square, "weights")?;
        let from = match lag as usize {
            0 => Some(model.instantaneous()),
            k => model.lagged().chunks_exact(square).nth(k - 1),
        };
        let lags = model.lags();
        let from = from.ok_or_else(|| Error::argument(format!("lag is {lag}; the model has 0 to {lags}")))?;
        // SAFETY: the header requires `n` writable floats.
        unsafe { slice_mut(weights, n, "weights") }?.copy_from_slice(from);
        Ok(())
    })
}

/// Standard deviation of each latent, `n` = n_latents floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_deviation(
    temporal: Option<&tiller_temporal>,
    deviation: *mut f32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let model = &some(temporal, "temporal")?.0;
        expect_len(n, model.n_latents(), "deviation")?;
        // SAFETY: the header requires `n` writable floats.
        unsafe { slice_mut(deviation, n, "deviation") }?.copy_from_slice(model.deviation());
        Ok(())
    })
}

/// What follows an edit of `latent` by 1: `n` = (steps + 1) * n_latents floats, the row itself first, then the rows after.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_response(
    temporal: Option<&tiller_temporal>,
    latent: u32,
    steps: u32,
    response: *mut f32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let model = &some(temporal, "temporal")?.0;
        let steps = steps as usize;
        expect_len(n, steps.saturating_add(1).saturating_mul(model.n_latents()), "response")?;
        let mut edit = vec![0.0; model.n_latents()];
        let here = edit.get_mut(latent as usize);
        *here.ok_or_else(|| Error::argument(format!("latent {latent}: the model has {}", model.n_latents())))? = 1.0;
        // SAFETY: the header requires `n` writable floats.
        let out = unsafe { slice_mut(response, n, "response") }?;
        let all = model.response(&edit, steps)?;
        out.chunks_exact_mut(model.n_latents()).zip(&all).for_each(|(out, row)| out.copy_from_slice(row));
        Ok(())
    })
}

/// The direction in the residual stream of `latent`, `n` = d_model floats: alone, or with what it drives in the same row if
/// `propagate`. A plan does the same by the key "propagate".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_direction(
    temporal: Option<&tiller_temporal>,
    latent: u32,
    propagate: bool,
    direction: *mut f32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let made = some(temporal, "temporal")?.0.direction(latent as usize, propagate)?;
        expect_len(n, made.len(), "direction")?;
        // SAFETY: the header requires `n` writable floats.
        unsafe { slice_mut(direction, n, "direction") }?.copy_from_slice(&made);
        Ok(())
    })
}

/// How well the model predicts harvested rows: with `hold_out`, only the documents that the same number left out when it was
/// estimated. `dictionary` is the one that it is on, or NULL for a model of rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_temporal_forecast(
    temporal: Option<&tiller_temporal>,
    rows: Option<&tiller_activations>,
    dictionary: Option<&tiller_dictionary>,
    hold_out: u32,
    progress: Option<&tiller_progress>,
    out: *mut tiller_forecast,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let (model, rows) = (&some(temporal, "temporal")?.0, &some(rows, "rows")?.rows);
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let all = match dictionary {
            Some(d) => Sequences::from_features(rows, &d.dictionary, model.features(), threads, &mut progress)?,
            None => Sequences::from_activations(rows)?,
        };
        let held = if hold_out == 0 { all } else { all.hold_out(hold_out as usize)?.1 };
        let found = forecast(model, &held, threads, &mut progress)?;
        let made = tiller_forecast {
            size: 0,
            reserved: 0,
            n_rows: found.rows as u64,
            from_past: found.from_past,
            from_shuffled_past: found.from_shuffled_past,
            from_past_and_present: found.from_past_and_present,
            from_shuffled_past_and_present: found.from_shuffled_past_and_present,
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, made) }
    })
}

/// Frees `temporal`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_temporal_free(temporal: Option<Box<tiller_temporal>>) {
    drop(temporal);
}
