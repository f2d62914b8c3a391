use std::ffi::{CString, c_char};

use super::arguments::{Report, report, some};
use super::error::tiller_status;
use super::guard::{ErrorOut, guard};
use super::text::c_string;
use crate::error::{Error, Result};
use crate::hook::Ledger;

/// What a hook saw and did. Each row counts once for each hook point that it passed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_report {
    /// Set it to sizeof(tiller_report) before the call.
    pub size: u32,
    /// Different faults; see tiller_ledger_fault().
    pub n_faults: u32,
    /// Graphs of the hook's own context: one for each micro-batch.
    pub graphs: u64,
    /// Graphs of other contexts, which passed untouched.
    pub foreign_graphs: u64,
    /// Rows of the residual stream at hook points with a plan or a capture.
    pub rows_seen: u64,
    /// Rows that a plan changed.
    pub rows_edited: u64,
    /// Rows that the plan has nothing to do with, or leaves as they are.
    pub rows_not_needed: u64,
    /// Rows that were left alone because it could not be told whether the plan reaches them, or which rows they are.
    pub rows_refused: u64,
    /// Rows put back as the model wrote them, because their edit was not finite.
    pub rows_restored: u64,
    /// Rows copied for you.
    pub rows_captured: u64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_report {
    const NAME: &'static str = "tiller_report";
}

impl From<&Ledger> for tiller_report {
    fn from(ledger: &Ledger) -> Self {
        let faults = ledger.faults.len() as u64 + ledger.more_faults;
        Self {
            size: 0,
            n_faults: u32::try_from(faults).unwrap_or(u32::MAX),
            graphs: ledger.graphs,
            foreign_graphs: ledger.foreign_graphs,
            rows_seen: ledger.rows_seen,
            rows_edited: ledger.rows_edited,
            rows_not_needed: ledger.rows_not_needed,
            rows_refused: ledger.rows_refused,
            rows_restored: ledger.rows_restored,
            rows_captured: ledger.rows_captured,
        }
    }
}

/// Fills `out`, if it is not NULL, with what `finish` gives, and says whether something went wrong.
///
/// # Safety
/// As [`report`].
pub(super) unsafe fn finished(out: *mut tiller_report, finish: impl FnOnce() -> Result<Ledger>) -> Result<()> {
    let fill = |ledger: &Ledger| {
        if out.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's contract.
        unsafe { report(out, ledger.into()) }
    };
    // Nothing is taken from the hook that `out` could not hold.
    fill(&Ledger::default())?;
    let ledger = finish()?;
    fill(&ledger)?;
    ledger.ok().map(drop)
}

/// What a hook saw and did, with what each rule of the plan did and everything that went wrong.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_ledger {
    ledger: Ledger,
    /// What each fault says.
    whats: Vec<CString>,
}

impl From<Ledger> for tiller_ledger {
    fn from(ledger: Ledger) -> Self {
        let whats = ledger.faults.iter().map(|fault| c_string(&fault.what)).collect();
        Self { ledger, whats }
    }
}

/// What one rule of the plan in force did.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_rule_report {
    /// Set it to sizeof(tiller_rule_report) before the call.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Rows that it changed.
    pub rows: u64,
    /// Rows on which it could not be judged.
    pub rows_unjudged: u64,
    /// Mean code of its features before the edit; NaN if it reads none.
    pub mean_code: f64,
    /// Mean of |x' - x| / |x| over the rows that it changed; NaN if there are none.
    pub relative_size: f64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_rule_report {
    const NAME: &'static str = "tiller_rule_report";
}

/// Something that went wrong.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_fault {
    /// Set it to sizeof(tiller_fault) before the call.
    pub size: u32,
    /// Of which kind, as a call that fails tells it.
    pub status: tiller_status,
    /// How often it came: rows where it is about rows, else graphs.
    pub count: u64,
    /// What happened, and where. Valid until the ledger is freed.
    pub what: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_fault {
    const NAME: &'static str = "tiller_fault";
}

/// The counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_ledger_report(
    ledger: Option<&tiller_ledger>,
    out: *mut tiller_report,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let ledger = &some(ledger, "ledger")?.ledger;
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, tiller_report::from(ledger)) }
    })
}

/// Number of rules that it tells of: those of the plan up to the last that did something. 0 if `ledger` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_ledger_n_rules(ledger: Option<&tiller_ledger>) -> usize {
    ledger.map_or(0, |ledger| ledger.ledger.rules.len())
}

/// What the `rule`-th rule of the plan did, counted from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_ledger_rule(
    ledger: Option<&tiller_ledger>,
    rule: usize,
    out: *mut tiller_rule_report,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let rules = &some(ledger, "ledger")?.ledger.rules;
        let tally = rules.get(rule).copied().unwrap_or_default();
        let done = tiller_rule_report {
            size: 0,
            reserved: 0,
            rows: tally.rows,
            rows_unjudged: tally.unjudged_rows().map(|(_, n)| n).sum(),
            mean_code: tally.mean_code().unwrap_or(f64::NAN),
            relative_size: tally.relative_size().unwrap_or(f64::NAN),
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, done) }
    })
}

/// Number of faults that it tells of; further ones are only counted, in tiller_report. 0 if `ledger` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_ledger_n_faults(ledger: Option<&tiller_ledger>) -> usize {
    ledger.map_or(0, |ledger| ledger.whats.len())
}

/// The `fault`-th fault, counted from 0, in the order in which they came. A fault is no failure of this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_ledger_fault(
    ledger: Option<&tiller_ledger>,
    fault: usize,
    out: *mut tiller_fault,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let tiller_ledger { ledger, whats } = some(ledger, "ledger")?;
        let (Some(found), Some(what)) = (ledger.faults.get(fault), whats.get(fault)) else {
            return Err(Error::argument(format!("fault {fault}: there are {}", whats.len())));
        };
        let told = tiller_fault { size: 0, status: found.kind.into(), count: found.count, what: what.as_ptr() };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, told) }
    })
}

/// Frees `ledger`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_ledger_free(ledger: Option<Box<tiller_ledger>>) {
    drop(ledger);
}
