use super::activations::tiller_activations;
use super::arguments::{Options, Report, options, report, some};
use super::dictionary::tiller_dictionary;
use super::error::tiller_status;
use super::guard::{ErrorOut, guard};
use super::progress::{reporter, tiller_progress};
use crate::eval::quality::{self, Quality};

/// Which rows a dictionary is measured on. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_measure {
    /// sizeof(tiller_measure).
    pub size: u32,
    /// Threads; 0 means 1.
    pub threads: u32,
    /// At most about so many rows, taken evenly from all of them; 0 means every row.
    pub max_rows: u64,
    /// 1 counts attention sinks too: rows at position 0, and rows farther from the middle than ten
    /// medians of that distance. They are few, but they rule every sum.
    pub include_sinks: u32,
    /// Always 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_measure {
    const NAME: &'static str = "tiller_measure";
}

/// How well a dictionary explains rows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_quality {
    /// Set it to sizeof(tiller_quality) before the call.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Rows shown.
    pub n_rows: u64,
    /// Rows set apart for their length, the ones at position 0 not among them.
    pub n_sinks: u64,
    /// Mean number of active features in a row.
    pub l0: f64,
    /// Fraction of variance unexplained.
    pub fvu: f64,
    /// Share of features that no row activated.
    pub dead_share: f64,
    /// Mean norm of the rows shown.
    pub mean_norm: f64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_quality {
    const NAME: &'static str = "tiller_quality";
}

impl From<&Quality> for tiller_quality {
    fn from(q: &Quality) -> Self {
        Self {
            size: 0,
            reserved: 0,
            n_rows: q.n_rows,
            n_sinks: q.n_sinks,
            l0: q.l0,
            fvu: q.fvu,
            dead_share: q.dead_share,
            mean_norm: q.mean_norm,
        }
    }
}

/// Measures a dictionary on harvested rows. Progress counts rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_dictionary_measure(
    dictionary: Option<&tiller_dictionary>,
    rows: Option<&tiller_activations>,
    given: *const tiller_measure,
    progress: Option<&tiller_progress>,
    out: *mut tiller_quality,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let (dictionary, rows) = (&some(dictionary, "dictionary")?.dictionary, &some(rows, "rows")?.rows);
        // SAFETY: the header requires a struct whose `size` is set, or NULL, and a function that may be called.
        let (given, mut progress) = unsafe { (options(given)?, reporter(progress)) };
        let options = quality::Options {
            threads: given.threads.max(1) as usize,
            max_rows: usize::try_from(given.max_rows).unwrap_or(usize::MAX),
            include_sinks: given.include_sinks != 0,
        };
        let found = quality::quality(rows, dictionary, &options, &mut progress)?;
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, tiller_quality::from(&found)) }
    })
}
