use std::ffi::c_char;

use super::activations::tiller_activations;
use super::arguments::{Options, choice, expect_len, finite, options, path, slice, slice_mut, some};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::progress::{reporter, tiller_progress};
use crate::error::{Error, Result};
use crate::num::check_finite;
use crate::train::Rows;
use crate::train::dense::{self, Coder, Objective, Regularizer, Sparsity};

/// A coder whose codes are dense: ConCA, whose codes are log-posteriors of concepts, or SSAE, which codes differences of
/// rows. Row i of its decoder is the direction of code i. Its file is safetensors, which others read.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_coder(pub(super) Coder);

/// How a coder is trained. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_coder_options {
    /// sizeof(tiller_coder_options).
    pub size: u32,
    /// What is minimised: 0 ConCA, 1 SSAE (rows are then differences).
    pub objective: u32,
    /// What normalises codes: 0 LayerNorm, 1 GroupNorm, 2 BatchNorm, 3 Dropout.
    pub regularizer: u32,
    /// Groups of a GroupNorm; 0 means 4.
    pub groups: u32,
    /// The share that drops out; 0 means 0.1.
    pub dropout: f32,
    /// ConCA's g: 0 SoftPlus, 1 SELU, 2 ELU.
    pub sparsity: u32,
    /// Codes; 0 means 4,096.
    pub n_latents: u32,
    /// Rows in a step; 0 means 2,048.
    pub batch: u32,
    /// Steps; 0 means 2,000.
    pub steps: u32,
    /// The learning rate; 0 means 1e-4 for ConCA, 1e-3 for SSAE.
    pub lr: f32,
    /// ConCA's weight of g; 0 means 1e-4.
    pub alpha: f32,
    /// SSAE's largest mean of |code|; 0 means 0.005.
    pub level: f32,
    /// Steps of warm-up; 0 means 200.
    pub warm_up: u32,
    /// Threads; 0 means all that the machine has. The result doesn't depend on it.
    pub threads: u32,
    /// Chooses the start, the order of the rows and what drops out.
    pub seed: u64,
    /// Steps between two checkpoints; 0 means 500.
    pub checkpoint_every: u32,
    /// Always 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_coder_options {
    const NAME: &'static str = "tiller_coder_options";
}

impl tiller_coder_options {
    fn options(&self) -> Result<dense::Options> {
        let base = match choice(self.objective, &[0, 1], "tiller_coder_options.objective")? {
            0 => dense::Options::conca(),
            _ => dense::Options::ssae(),
        };
        let number = |given: u32, default: usize| if given == 0 { default } else { given as usize };
        let steps = |given: u32, default: u64| if given == 0 { default } else { given.into() };
        let real = |given: f32, default: f32, name: &str| match finite(given, name)? {
            0.0 => Ok(default),
            given => Ok::<_, Error>(given),
        };
        let sparsity = choice(
            self.sparsity,
            &[Sparsity::SoftPlus, Sparsity::Selu, Sparsity::Elu],
            "tiller_coder_options.sparsity",
        )?;
        let known = [
            Regularizer::LayerNorm,
            Regularizer::GroupNorm(number(self.groups, 4)),
            Regularizer::BatchNorm,
            Regularizer::Dropout(real(self.dropout, 0.1, "tiller_coder_options.dropout")?),
        ];
        Ok(dense::Options {
            objective: match base.objective {
                Objective::Conca { alpha, .. } => {
                    Objective::Conca { alpha: real(self.alpha, alpha, "tiller_coder_options.alpha")?, sparsity }
                }
                Objective::Ssae { level, dual_rate } => {
                    Objective::Ssae { level: real(self.level, level, "tiller_coder_options.level")?, dual_rate }
                }
            },
            regularizer: choice(self.regularizer, &known, "tiller_coder_options.regularizer")?,
            n_latents: number(self.n_latents, base.n_latents),
            batch: number(self.batch, base.batch),
            steps: steps(self.steps, base.steps),
            lr: real(self.lr, base.lr, "tiller_coder_options.lr")?,
            warm_up: steps(self.warm_up, base.warm_up),
            threads: self.threads as usize,
            seed: self.seed,
            checkpoint_every: steps(self.checkpoint_every, base.checkpoint_every),
            ..base
        })
    }
}

/// Trains a coder on the rows of `n_rows` directories, all of one model and layer. `checkpoint` is a file from which a run
/// that was cancelled goes on, or NULL. Progress counts rows.
///
/// On success `*out` owns a new object; free it with tiller_coder_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_coder_train(
    rows: *const *const tiller_activations,
    n_rows: usize,
    given: *const tiller_coder_options,
    checkpoint: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_coder>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_rows` pointers.
        let rows = unsafe { slice(rows, n_rows, "rows") }?.iter();
        // SAFETY: the header requires live handles.
        let rows = rows.map(|p| Ok(&some(unsafe { p.as_ref() }, "rows")?.rows)).collect::<Result<Vec<_>>>()?;
        // SAFETY: passed on from the header.
        unsafe { train(&Rows::from_activations(&rows)?, given, checkpoint, progress) }
    })
}

/// The same on rows in memory: `n` floats, rows of width `d_model` one after another. Differences of rows for SSAE.
///
/// On success `*out` owns a new object; free it with tiller_coder_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_coder_train_rows(
    rows: *const f32,
    n: usize,
    d_model: usize,
    given: *const tiller_coder_options,
    checkpoint: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_coder>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n` floats.
        let rows = unsafe { slice(rows, n, "rows") }?;
        // SAFETY: passed on from the header.
        unsafe { train(&Rows::from_slice(d_model, rows)?, given, checkpoint, progress) }
    })
}

/// # Safety
/// As the header requires of the two functions above.
unsafe fn train(
    rows: &Rows<'_>,
    given: *const tiller_coder_options,
    checkpoint: *const c_char,
    progress: Option<&tiller_progress>,
) -> Result<tiller_coder> {
    // SAFETY: the header requires a struct whose `size` is set, or NULL; a C string, or NULL.
    let (given, checkpoint) =
        unsafe { (options(given)?, if checkpoint.is_null() { None } else { Some(path(checkpoint, "checkpoint")?) }) };
    // SAFETY: the header requires a function that may be called with its `user`.
    let mut progress = unsafe { reporter(progress) };
    dense::fit(rows, &given.options()?, checkpoint, &mut progress).map(tiller_coder)
}

/// Reads a coder that tiller_coder_save() wrote.
///
/// On success `*out` owns a new object; free it with tiller_coder_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_coder_open(
    file: *const c_char,
    out: Out<'_, tiller_coder>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || Coder::open(unsafe { path(file, "file") }?).map(tiller_coder))
}

/// Writes a coder as safetensors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_coder_save(
    coder: Option<&tiller_coder>,
    file: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(coder, "coder")?.0.save(unsafe { path(file, "file") }?))
}

/// Width of the rows. 0 if `coder` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_coder_d_model(coder: Option<&tiller_coder>) -> usize {
    coder.map_or(0, |c| c.0.d_model())
}

/// Number of codes. 0 if `coder` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_coder_n_latents(coder: Option<&tiller_coder>) -> usize {
    coder.map_or(0, |c| c.0.n_latents())
}

/// Codes rows: `n_rows` floats, whole rows of d_model, become `n_codes` floats, as many rows of n_latents. `threads` 0 means
/// all that the machine has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_coder_encode(
    coder: Option<&tiller_coder>,
    rows: *const f32,
    n_rows: usize,
    threads: u32,
    codes: *mut f32,
    n_codes: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let coder = &some(coder, "coder")?.0;
        // SAFETY: the header requires `n_rows` floats.
        let rows = unsafe { slice(rows, n_rows, "rows") }?;
        let n = whole(rows.len(), coder.d_model(), "rows")?;
        check_finite(rows, coder.d_model(), 0)?;
        expect_len(n_codes, n * coder.n_latents(), "codes")?;
        // SAFETY: the header requires `n_codes` writable floats.
        unsafe { slice_mut(codes, n_codes, "codes") }?.copy_from_slice(&coder.encode(rows, threads as usize));
        Ok(())
    })
}

/// The rows that codes stand for: the other way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_coder_decode(
    coder: Option<&tiller_coder>,
    codes: *const f32,
    n_codes: usize,
    threads: u32,
    rows: *mut f32,
    n_rows: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let coder = &some(coder, "coder")?.0;
        // SAFETY: the header requires `n_codes` floats.
        let codes = unsafe { slice(codes, n_codes, "codes") }?;
        let n = whole(codes.len(), coder.n_latents(), "codes")?;
        expect_len(n_rows, n * coder.d_model(), "rows")?;
        // SAFETY: the header requires `n_rows` writable floats.
        unsafe { slice_mut(rows, n_rows, "rows") }?.copy_from_slice(&coder.decode(codes, threads as usize));
        Ok(())
    })
}

fn whole(n: usize, width: usize, name: &str) -> Result<usize> {
    if n.is_multiple_of(width) {
        Ok(n / width)
    } else {
        Err(Error::argument(format!("{name} holds {n} values; expected whole rows of {width}")))
    }
}

/// The direction of code `latent`: `n` = d_model floats, for tiller_control_vector_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_coder_decoder_row(
    coder: Option<&tiller_coder>,
    latent: usize,
    row: *mut f32,
    n: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let coder = &some(coder, "coder")?.0;
        if latent >= coder.n_latents() {
            let n = coder.n_latents();
            return Err(Error::argument(format!("latent {latent}: the coder has {n}")));
        }
        expect_len(n, coder.d_model(), "row")?;
        // SAFETY: the header requires `n` writable floats.
        unsafe { slice_mut(row, n, "row") }?.copy_from_slice(coder.decoder_row(latent));
        Ok(())
    })
}

/// A dictionary with the same decoder, whose features are the codes cut off below zero: plans may add its features. A
/// coder of differences has none.
///
/// On success `*out` owns a new dictionary; free it with tiller_dictionary_free().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_coder_dictionary(
    coder: Option<&tiller_coder>,
    out: Out<'_, tiller_dictionary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || Ok(tiller_dictionary::from(some(coder, "coder")?.0.to_dictionary()?)))
}

/// Frees `coder`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_coder_free(coder: Option<Box<tiller_coder>>) {
    drop(coder);
}
