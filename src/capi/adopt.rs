use std::ffi::c_char;

use super::arguments::{Options, Report, finite, options, path, paths, report, slice};
use super::error::tiller_status;
use super::guard::{ErrorOut, guard};
use super::progress::{reporter, tiller_progress};
use crate::adopt;
use crate::engine::documents;

/// How a model is adopted. Zero and NULL mean the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_adopt_options {
    /// sizeof(tiller_adopt_options).
    pub size: u32,
    /// Threads; 0 takes all.
    pub threads: u32,
    /// The time that it may take; 0 means 30.
    pub minutes: f64,
    /// Text files to learn from, as tiller_engine_harvest() reads them; without any the model writes its own text.
    pub files: *const *const c_char,
    /// How many there are.
    pub n_files: usize,
    /// Layers to try; without any three in the upper half.
    pub layers: *const u32,
    /// How many there are.
    pub n_layers: usize,
    /// Features of the dictionary; 0: one for a hundred rows.
    pub n_features: u32,
    /// Layers that go to a GPU, if this build has one.
    pub gpu_layers: u32,
    /// 1 keeps the rows and the trial dictionaries.
    pub keep: u32,
    /// Always 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, a `u32` first; zeros are NULL and 0.
unsafe impl Options for tiller_adopt_options {
    const NAME: &'static str = "tiller_adopt_options";
}

/// What an adoption made.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_adopted {
    /// Set it to sizeof(tiller_adopted) before the call.
    pub size: u32,
    /// The layer whose features steer best.
    pub layer: u32,
    /// Features of the dictionary.
    pub n_features: u64,
    /// Rows that it was trained on.
    pub n_rows: u64,
    /// Mean number of active features in a row of held-out text.
    pub l0: f64,
    /// Fraction of variance unexplained there.
    pub fvu: f64,
    /// Cross-entropy recovered there.
    pub recovered: f64,
    /// How much more often words of a concept come when the model is steered by other words of it: the median;
    /// 0 if there was no time to measure it.
    pub gain: f64,
    /// Perplexity of that text, steered over unsteered: the median; 0 likewise.
    pub perplexity: f64,
    /// Seconds that it took, earlier calls included.
    pub seconds: f64,
    /// 1 if the dictionary passes its self-test.
    pub fits: u32,
    /// Always 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_adopted {
    const NAME: &'static str = "tiller_adopted";
}

/// Makes the model file `model` steerable on this machine: tries a few layers on a small budget, takes the one whose
/// features steer concepts best, harvests, trains, explains and tests a dictionary. Writes dictionary.gguf,
/// dictionary.jsonl (its explanations) and report.md to `directory`.
///
/// Progress counts seconds; its note says what is being done. After TILLER_CANCELLED, or a crash, the same call goes on
/// where that one ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_adopt(
    model: *const c_char,
    directory: *const c_char,
    given: *const tiller_adopt_options,
    progress: Option<&tiller_progress>,
    out: *mut tiller_adopted,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires C strings, a struct whose `size` is set, or NULL, with as many files and layers as
        // it says, and a function that may be called.
        let (model, directory, given, mut progress) =
            unsafe { (path(model, "model")?, path(directory, "directory")?, options(given)?, reporter(progress)) };
        let mut options = adopt::Options::new()?;
        if given.minutes != 0.0 {
            options.minutes = f64::from(finite(given.minutes as f32, "tiller_adopt_options.minutes")?);
        }
        // SAFETY: as above.
        let (files, layers) =
            unsafe { (paths(given.files, given.n_files, "files")?, slice(given.layers, given.n_layers, "layers")?) };
        options.text = documents(&files)?;
        options.layers = layers.iter().map(|&layer| layer as usize).collect();
        options.features = given.n_features as usize;
        options.threads = given.threads as usize;
        options.gpu_layers = given.gpu_layers as usize;
        options.keep = given.keep != 0;
        let made = adopt::adopt(model, directory, &options, &mut progress)?;
        let value = tiller_adopted {
            size: 0,
            layer: made.layer as u32,
            n_features: made.tested.features.1 as u64,
            n_rows: made.tested.rows as u64,
            l0: made.tested.l0,
            fvu: made.tested.fvu,
            recovered: made.tested.recovered,
            gain: made.tested.median_gain().unwrap_or_default(),
            perplexity: made.tested.median_perplexity().unwrap_or_default(),
            seconds: made.seconds,
            fits: u32::from(made.tested.fits),
            reserved: 0,
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, value) }
    })
}
