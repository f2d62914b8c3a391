use std::ffi::c_char;

use super::arguments::{Options, choice, expect_len, options, path, slice, slice_mut, some};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::progress::{reporter, tiller_progress};
use crate::error::{Error, Result};
use crate::train::probe::{self, Penalty, Probe};

/// A logistic regression that reads a yes or no off a row: p(yes) = 1 / (1 + exp(-(weights . row + bias))).
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_probe(Probe);

/// How a probe is fitted. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_probe_options {
    /// sizeof(tiller_probe_options).
    pub size: u32,
    /// What keeps weights small: 0 L2, 1 L1 (most weights are exactly zero).
    pub penalty: u32,
    /// The weight of the data against the penalty, as in scikit-learn; 0 means 1.
    pub c: f64,
    /// Use the best so many columns alone, ranked by an L1 regression at C = 0.1; 0 means all.
    pub k: u32,
    /// 1 leaves columns as they are; else they are brought to mean 0 and variance 1 first.
    pub raw: u32,
    /// Threads; 0 means all that the machine has. The result doesn't depend on it.
    pub threads: u32,
    /// Always 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_probe_options {
    const NAME: &'static str = "tiller_probe_options";
}

/// Fits a probe to `n` floats, rows of width `d_model` one after another, and `n_labels` labels, 0 or 1, one for each row.
///
/// On success `*out` owns a new object; free it with tiller_probe_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_probe_fit(
    rows: *const f32,
    n: usize,
    d_model: usize,
    labels: *const u8,
    n_labels: usize,
    given: *const tiller_probe_options,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_probe>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires as many values, and a struct whose `size` is set, or NULL.
        let (rows, labels, given) =
            unsafe { (slice(rows, n, "rows")?, slice(labels, n_labels, "labels")?, options(given)?) };
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let label = |&l: &u8| choice(l.into(), &[false, true], "labels");
        let labels = labels.iter().map(label).collect::<Result<Vec<bool>>>()?;
        let options = probe::Options {
            penalty: choice(given.penalty, &[Penalty::L2, Penalty::L1], "tiller_probe_options.penalty")?,
            c: if given.c == 0.0 { 1.0 } else { given.c },
            standardize: given.raw == 0,
            threads: given.threads as usize,
            ..probe::Options::default()
        };
        if given.k == 0 {
            return probe::fit(rows, d_model, &labels, &options, &mut progress).map(tiller_probe);
        }
        let mut all = probe::k_sparse(rows, d_model, &labels, &[given.k as usize], &options, &mut progress)?;
        all.pop().map(|one| tiller_probe(one.probe)).ok_or_else(|| Error::argument("no probe"))
    })
}

/// Reads a probe that tiller_probe_save() wrote.
///
/// On success `*out` owns a new object; free it with tiller_probe_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_probe_open(
    file: *const c_char,
    out: Out<'_, tiller_probe>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || Probe::open(unsafe { path(file, "file") }?).map(tiller_probe))
}

/// Writes weights and bias as safetensors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_probe_save(
    probe: Option<&tiller_probe>,
    file: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(probe, "probe")?.0.save(unsafe { path(file, "file") }?))
}

/// Width of the rows. 0 if `probe` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_probe_d_model(probe: Option<&tiller_probe>) -> usize {
    probe.map_or(0, |p| p.0.weights.len())
}

/// The bias. 0 if `probe` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_probe_bias(probe: Option<&tiller_probe>) -> f32 {
    probe.map_or(0.0, |p| p.0.bias)
}

/// The weights: `n` = d_model floats. The logit rises fastest along them, so they are a direction to steer by.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_probe_weights(
    probe: Option<&tiller_probe>,
    weights: *mut f32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let probe = &some(probe, "probe")?.0;
        expect_len(n, probe.weights.len(), "weights")?;
        // SAFETY: the header requires `n` writable floats.
        unsafe { slice_mut(weights, n, "weights") }?.copy_from_slice(&probe.weights);
        Ok(())
    })
}

/// Frees `probe`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_probe_free(probe: Option<Box<tiller_probe>>) {
    drop(probe);
}
