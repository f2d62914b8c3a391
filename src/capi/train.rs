use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::path::Path;

use super::activations::tiller_activations;
use super::arguments::{Options, choice, finite, options, path, paths, slice, slice_mut, some, text, texts};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::progress::{reporter, tiller_progress};
use crate::activations::Activations;
use crate::error::{Error, Result};
use crate::train::{self, Rows, Variant};

/// How a dictionary is trained. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_train_options {
    /// sizeof(tiller_train_options).
    pub size: u32,
    /// Which rule keeps codes: 0 BatchTopK, 1 TopK, 2 Matryoshka, 3 ReLU, 4 P-annealing, 5 JumpReLU, 6 Gated. The last
    /// four are led to k codes a row by the weight of their penalty.
    pub variant: u32,
    /// Features of the dictionary; 0 means 4,096.
    pub n_features: u32,
    /// Codes a row; 0 means 32.
    pub k: u32,
    /// Rows in a step; 0 means 1,024.
    pub batch: u32,
    /// Times that every row is seen; 0 means 4.
    pub epochs: u32,
    /// The learning rate, for rows scaled to mean squared norm d_model; 0 means 3e-3.
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

/// Variants by their numbers in the header.
const VARIANTS: [Variant; 7] = [
    Variant::BatchTopK,
    Variant::TopK,
    Variant::Matryoshka,
    Variant::Relu,
    Variant::PAnneal,
    Variant::JumpRelu,
    Variant::Gated,
];

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_train_options {
    const NAME: &'static str = "tiller_train_options";
}

impl tiller_train_options {
    fn options(&self) -> Result<train::Options> {
        let variant = choice(self.variant, &VARIANTS, "tiller_train_options.variant")?;
        let default = train::Options::of(variant);
        let or = |given: u32, default: usize| if given == 0 { default } else { given as usize };
        let steps = |given: u32, default: u64| if given == 0 { default } else { given.into() };
        let lr = finite(self.lr, "tiller_train_options.lr")?;
        Ok(train::Options {
            variant,
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

/// The shards behind `n_rows` handles.
///
/// # Safety
/// `rows` points to `n_rows` handles that are NULL or live.
unsafe fn opened<'a>(rows: *const *const tiller_activations, n_rows: usize) -> Result<Vec<&'a Activations>> {
    // SAFETY: the caller promises `n_rows` pointers.
    let rows = unsafe { slice(rows, n_rows, "rows") }?.iter();
    // SAFETY: the caller promises live handles.
    rows.map(|p| Ok(&some(unsafe { p.as_ref() }, "rows")?.rows)).collect()
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
        // SAFETY: the header requires `n_rows` pointers to live handles.
        let rows = unsafe { opened(rows, n_rows) }?;
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

/// As tiller_train(), by a recipe: all settings as JSON, such as the one that a trained dictionary carries, or as little
/// as `{"variant":"jumprelu","k":32}`; what is left out has the variant's default, and an unknown name is an error.
/// `threads` is 0 for all that the machine has. `metrics` is a file to which every step adds a line of JSON, or NULL.
///
/// On success `*out` owns a new dictionary; free it with tiller_dictionary_free(), after tiller_dictionary_save().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_train_recipe(
    rows: *const *const tiller_activations,
    n_rows: usize,
    recipe: *const c_char,
    threads: u32,
    checkpoint: *const c_char,
    metrics: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_dictionary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_rows` pointers to live handles.
        let rows = unsafe { opened(rows, n_rows) }?;
        // SAFETY: the header requires a C string.
        let recipe = unsafe { text(recipe, "recipe") }?;
        let options = train::Options { threads: threads as usize, ..train::Options::from_json(recipe)? };
        // SAFETY: the header requires C strings, or NULL.
        let (checkpoint, metrics) = unsafe { (file(checkpoint, "checkpoint")?, file(metrics, "metrics")?) };
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        let rows = Rows::from_activations(&rows)?;
        let dictionary =
            journalled(metrics, |on_step| train::fit_with(&rows, &options, checkpoint, &mut progress, on_step))?;
        Ok(tiller_dictionary::from(dictionary))
    })
}

/// As tiller_train_recipe(), for several dictionaries in one pass over the rows: `n` recipes, such as one for every
/// sparsity, which may differ in all but `batch`, `epochs`, `seed` and `held_out`. Each dictionary comes out as on its own.
/// `checkpoints` is NULL, or as many files as recipes. Memory grows with their number.
///
/// On success `out`, an array of `n` places, owns as many new dictionaries, in the recipes' order; free each with
/// tiller_dictionary_free(). On failure nothing is written to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_train_many(
    rows: *const *const tiller_activations,
    n_rows: usize,
    recipes: *const *const c_char,
    n: usize,
    threads: u32,
    checkpoints: *const *const c_char,
    progress: Option<&tiller_progress>,
    out: *mut *mut tiller_dictionary,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n_rows` pointers to live handles, and `n` C strings.
        let (rows, recipes) = unsafe { (opened(rows, n_rows)?, texts(recipes, n, "recipes")?) };
        let options =
            |recipe: &str| Ok(train::Options { threads: threads as usize, ..train::Options::from_json(recipe)? });
        let options = recipes.into_iter().map(options).collect::<Result<Vec<_>>>()?;
        let checkpoints = if checkpoints.is_null() {
            Vec::new()
        } else {
            // SAFETY: the header requires `n` C strings.
            unsafe { paths(checkpoints, n, "checkpoints") }?
        };
        // SAFETY: the header requires a function that may be called with its `user`.
        let mut progress = unsafe { reporter(progress) };
        // SAFETY: the header requires an array of `n` pointers, which may hold anything.
        let out = unsafe { slice_mut(out.cast::<MaybeUninit<*mut tiller_dictionary>>(), n, "out") }?;
        let rows = Rows::from_activations(&rows)?;
        let made = train::fit_many(&rows, &options, &checkpoints, &mut progress, &mut |_, _| ())?;
        for (out, dictionary) in out.iter_mut().zip(made) {
            out.write(Box::into_raw(Box::new(tiller_dictionary::from(dictionary))));
        }
        Ok(())
    })
}

/// What `work` makes, with a line in `metrics` for every step that it tells of.
pub(super) fn journalled<T>(
    metrics: Option<&Path>,
    work: impl FnOnce(&mut dyn FnMut(&train::Metrics)) -> Result<T>,
) -> Result<T> {
    let mut journal = metrics.map(train::Journal::new);
    let mut written: std::result::Result<(), Error> = Ok(());
    let made = work(&mut |metrics| {
        if let (Some(journal), Ok(())) = (&mut journal, &written) {
            written = journal.push(metrics);
        }
    })?;
    written?;
    Ok(made)
}

/// A path, or NULL.
///
/// # Safety
/// `pointer` is a C string, or NULL.
pub(super) unsafe fn file<'a>(pointer: *const c_char, name: &'static str) -> Result<Option<&'a Path>> {
    // SAFETY: as the caller promises.
    if pointer.is_null() { Ok(None) } else { unsafe { path(pointer, name) }.map(Some) }
}
