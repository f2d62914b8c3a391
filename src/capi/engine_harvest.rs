use std::ffi::c_char;
use std::path::PathBuf;

use super::arguments::{Options, choice, options, path, slice, some};
use super::engine::tiller_engine;
use super::error::tiller_status;
use super::guard::{ErrorOut, guard};
use super::plan::SITES;
use super::progress::{reporter, tiller_progress};
use crate::activations::RowType;
use crate::engine::{Harvest, documents};
use crate::error::Result;

/// What is harvested. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_harvest {
    /// sizeof(tiller_harvest).
    pub size: u32,
    /// How many layers.
    pub n_layers: u32,
    /// Blocks whose rows are read. One layer goes to the directory itself, several to layer-L inside it.
    pub layers: *const u32,
    /// Stop after this many tokens; 0 takes all the text.
    pub max_tokens: u64,
    /// Longest window, in tokens; 0 means 512.
    pub window: u32,
    /// How rows are stored: 0 as 16-bit floats, 1 as 32-bit floats.
    pub dtype: u32,
    /// Rows a shard; 0 means 65,536.
    pub shard_rows: u32,
    /// 1 runs every graph to its end. To measure what stopping after the last wanted layer saves.
    pub without_early_stop: u32,
    /// The site of those blocks, as in tiller_point.
    pub site: u32,
    /// Always 0.
    pub reserved: u32,
    /// Another quantization of the running model, as whose rows these are marked; NULL marks them as what they are.
    pub counts_as: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first, numbers and pointers.
unsafe impl Options for tiller_harvest {
    const NAME: &'static str = "tiller_harvest";
}

impl tiller_harvest {
    /// # Safety
    /// `layers` holds `n_layers` numbers; `counts_as` is a C string or NULL.
    unsafe fn options(&self) -> Result<Harvest> {
        let default = Harvest::default();
        let or = |given: u32, default: usize| if given == 0 { default } else { given as usize };
        // SAFETY: the caller's contract.
        let layers = unsafe { slice(self.layers, self.n_layers as usize, "tiller_harvest.layers") }?;
        Ok(Harvest {
            layers: layers.iter().map(|&layer| layer as usize).collect(),
            dtype: choice(self.dtype, &[RowType::F16, RowType::F32], "tiller_harvest.dtype")?,
            window: or(self.window, default.window),
            max_tokens: self.max_tokens,
            shard_rows: or(self.shard_rows, default.shard_rows),
            early_stop: self.without_early_stop == 0,
            site: choice(self.site, &SITES, "tiller_harvest.site")?,
            counts_as: match self.counts_as.is_null() {
                true => None,
                // SAFETY: the caller's contract.
                false => Some(unsafe { path(self.counts_as, "tiller_harvest.counts_as") }?.to_owned()),
            },
        })
    }
}

/// Harvests text files into `directory`, for tiller_activations_open(). A .jsonl file holds one document a line, as
/// {"text": …} or {"messages": […]}; any other file is one document. What is there already, of the same text, model
/// and layers, is kept: a harvest that was cancelled goes on where it was. Progress counts tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_harvest(
    engine: Option<&mut tiller_engine>,
    files: *const *const c_char,
    n_files: usize,
    directory: *const c_char,
    given: *const tiller_harvest,
    progress: Option<&tiller_progress>,
    n_rows: Option<&mut u64>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n_files` pointers.
        let files = unsafe { slice(files, n_files, "files") }?.iter();
        // SAFETY: the header requires C strings.
        let files = files.map(|&file| unsafe { path(file, "files") }.map(PathBuf::from)).collect::<Result<Vec<_>>>()?;
        // SAFETY: the header requires a C string, and a struct whose `size` is set, or NULL.
        let (directory, given) = unsafe { (path(directory, "directory")?, options(given)?) };
        // SAFETY: the header requires `n_layers` numbers, and a function that may be called with its `user`.
        let (options, mut progress) = unsafe { (given.options()?, reporter(progress)) };
        let text = documents(&files)?;
        let harvested = some(engine, "engine")?.0.harvest(&text, directory, &options, &mut progress)?;
        if let Some(out) = n_rows {
            *out = harvested.n_rows;
        }
        Ok(())
    })
}
