use std::ffi::c_char;

use super::arguments::{Options, choice, options, path, paths, some, text};
use super::dictionary::tiller_dictionary;
use super::engine::tiller_engine;
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, make};
use super::plan::SITES;
use super::progress::{reporter, tiller_progress};
use super::train::{file, journalled};
use crate::engine::{Streamed, documents};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::train::{self, fit_stream};

/// Which rows of a text are trained on. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_streamed {
    /// sizeof(tiller_streamed).
    pub size: u32,
    /// The block whose rows are read, from 0.
    pub layer: u32,
    /// The site of that block, as in tiller_point.
    pub site: u32,
    /// Longest window, in tokens; 0 means 512.
    pub window: u32,
    /// Stop after this many tokens; 0 takes all the text.
    pub max_tokens: u64,
    /// Rows that are shuffled together; 0 means 131,072. While some are made, a quarter more is held.
    pub buffer: u64,
    /// Another quantization of the running model, as whose rows these count; NULL counts them as what they are.
    pub counts_as: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first, numbers and a pointer that may be NULL.
unsafe impl Options for tiller_streamed {
    const NAME: &'static str = "tiller_streamed";
}

impl tiller_streamed {
    /// # Safety
    /// `counts_as` is a C string or NULL.
    unsafe fn streamed(&self) -> Result<Streamed> {
        let site = choice(self.site, &SITES, "tiller_streamed.site")?;
        let default = Streamed::at(HookPoint::new(site, self.layer as usize));
        let buffer = usize::try_from(self.buffer)
            .map_err(|_| Error::argument(format!("tiller_streamed.buffer: {} rows are too many", self.buffer)))?;
        Ok(Streamed {
            window: if self.window == 0 { default.window } else { self.window as usize },
            max_tokens: self.max_tokens,
            buffer: if buffer == 0 { default.buffer } else { buffer },
            counts_as: match self.counts_as.is_null() {
                true => None,
                // SAFETY: the caller's contract.
                false => Some(unsafe { path(self.counts_as, "tiller_streamed.counts_as") }?.to_owned()),
            },
            ..default
        })
    }
}

/// Trains a dictionary on text files, as tiller_engine_harvest() reads them, without storing a row: the rows go through a
/// shuffling buffer. `recipe`, `threads`, `checkpoint` and `metrics` are those of tiller_train_recipe(). A run that goes on
/// from a checkpoint makes only the rows again that its buffer held. Progress counts rows.
///
/// On success `*out` owns a new dictionary; free it with tiller_dictionary_free(), after tiller_dictionary_save().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_train(
    engine: Option<&mut tiller_engine>,
    files: *const *const c_char,
    n_files: usize,
    given: *const tiller_streamed,
    recipe: *const c_char,
    threads: u32,
    checkpoint: *const c_char,
    metrics: *const c_char,
    progress: Option<&tiller_progress>,
    out: Out<'_, tiller_dictionary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_files` C strings, and a struct whose `size` is set, or NULL.
        let (files, given) = unsafe { (paths(files, n_files, "files")?, options(given)?) };
        // SAFETY: the header requires C strings; the last two may be NULL.
        let (recipe, checkpoint, metrics) =
            unsafe { (text(recipe, "recipe")?, file(checkpoint, "checkpoint")?, file(metrics, "metrics")?) };
        // SAFETY: the header requires a C string or NULL, and a function that may be called with its `user`.
        let (streamed, mut progress) = unsafe { (given.streamed()?, reporter(progress)) };
        let options = train::Options { threads: threads as usize, ..train::Options::from_json(recipe)? };
        let text = documents(&files)?;
        let mut stream = some(engine, "engine")?.0.stream(&text, &streamed, &options, &mut progress)?;
        let checkpoints: Vec<_> = checkpoint.map(Into::into).into_iter().collect();
        let runs = std::slice::from_ref(&options);
        let mut made = journalled(metrics, |on_step| {
            fit_stream(&mut stream, runs, &checkpoints, &mut progress, &mut |_, metrics| on_step(metrics))
        })?;
        made.pop().map(tiller_dictionary::from).ok_or_else(|| Error::numeric("training made no dictionary"))
    })
}
