use std::ffi::c_char;

use super::activations::tiller_activations;
use super::arguments::{Options, choice, finite, options, path, slice, some};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, make};
use super::progress::{reporter, tiller_progress};
use crate::error::Result;
use crate::train::{self, Rows, Variant};

/// How a dictionary is trained. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_train_options {
    /// sizeof(tiller_train_options).
    pub size: u32,
    /// Which rule keeps codes: 0 BatchTopK, 1 TopK.
    pub variant: u32,
    /// Features of the dictionary; 0 means 4,096.
    pub n_features: u32,
    /// Codes a row; 0 means 32.
    pub k: u32,
    /// Rows in a step; 0 means 4,096.
    pub batch: u32,
    /// Times that every row is seen; 0 means 4.
    pub epochs: u32,
    /// The learning rate, for rows scaled to mean squared norm d_model; 0 means 1e-3.
    pub lr: f32,
    /// Threads; 0 means all that the machine has. The result doesn't depend on it.
    pub threads: u32,
    /// Chooses the start and the order of the rows.
    pub seed: u64,
    /// Dead features that a row may use to explain what the live ones missed; 0 means 64.
    pub aux_k: u32,
    /// 1 leaves dead features dead.
    pub without_revival: u32,
    /// Steps of warm-up; 0 means 100.
    pub warm_up: u32,
    /// Steps between two checkpoints; 0 means 500.
    pub checkpoint_every: u32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_train_options {
    const NAME: &'static str = "tiller_train_options";
}

impl tiller_train_options {
    fn options(&self) -> Result<train::Options> {
        let default = train::Options::default();
        let or = |given: u32, default: usize| if given == 0 { default } else { given as usize };
        let steps = |given: u32, default: u64| if given == 0 { default } else { given.into() };
        let lr = finite(self.lr, "tiller_train_options.lr")?;
        Ok(train::Options {
            variant: choice(self.variant, &[Variant::BatchTopK, Variant::TopK], "tiller_train_options.variant")?,
            n_features: or(self.n_features, default.n_features),
            k: or(self.k, default.k),
            batch: or(self.batch, default.batch),
            epochs: if self.epochs == 0 { default.epochs } else { self.epochs },
            lr: if lr == 0.0 { default.lr } else { lr },
            threads: self.threads as usize,
            seed: self.seed,
            aux_k: if self.without_revival != 0 { 0 } else { or(self.aux_k, default.aux_k) },
            warm_up: steps(self.warm_up, default.warm_up),
            checkpoint_every: steps(self.checkpoint_every, default.checkpoint_every),
            ..default
        })
    }
}

/// Trains a dictionary on the rows of `n_rows` directories, all of one model and layer. `checkpoint` is a file from which
/// a run that was cancelled goes on, or NULL. Progress counts steps.
///
/// On success `*out` owns a new dictionary; free it with tiller_dictionary_free(), after tiller_dictionary_save().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_train(
    rows: *const *const tiller_activations,
    n_rows: usize,
    given: *const tiller_train_options,
    checkpoint: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_dictionary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_rows` pointers.
        let rows = unsafe { slice(rows, n_rows, "rows") }?.iter();
        // SAFETY: the header requires live handles.
        let rows = rows.map(|p| Ok(&some(unsafe { p.as_ref() }, "rows")?.rows)).collect::<Result<Vec<_>>>()?;
        // SAFETY: the header requires a struct whose `size` is set, or NULL; a C string, or NULL.
        let (given, checkpoint) = unsafe {
            (options(given)?, if checkpoint.is_null() { None } else { Some(path(checkpoint, "checkpoint")?) })
        };
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let dictionary = train::fit(&Rows::from_activations(&rows)?, &given.options()?, checkpoint, &mut progress)?;
        Ok(tiller_dictionary::from(dictionary))
    })
}
