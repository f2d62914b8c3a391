use std::ffi::{CString, c_char};
use std::sync::Arc;

use super::arguments::{Report, path, report, some};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::hook::tiller_hook;
use super::model::{tiller_model, tiller_target};
use super::plan::tiller_compiled;
use super::text::c_string;
use crate::error::Error;
use crate::guard::Guard;
use crate::plan::{Action, Watched};

/// A guard: a plan with monitors, and the features that it uses, in two files.
///
/// Its life: tiller_guard_open(); tiller_guard_check_model(); tiller_guard_compile(); hand the compiled plan to
/// tiller_hook_set_plan() or tiller_engine_set_plan(); after a decode tiller_hook_watched() has its verdicts.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_guard(pub(super) Guard);

/// Opens a guard's plan and the features beside it: the file of the same name that ends in .gguf.
///
/// On success `*out` owns a new object; free it with tiller_guard_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_guard_open(
    file: *const c_char,
    out: Out<'_, tiller_guard>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || Ok(tiller_guard(Guard::open(unsafe { path(file, "file") }?)?)))
}

/// Writes the guard's plan to `file` and its features beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_guard_save(
    guarding: Option<&tiller_guard>,
    file: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(guarding, "guard")?.0.save(unsafe { path(file, "file") }?).map(drop))
}

/// Checks that the guard was learned from this model, or another quantization of it: TILLER_OK or TILLER_E_MISMATCH.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_guard_check_model(
    guarding: Option<&tiller_guard>,
    model: Option<&tiller_model>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || some(guarding, "guard")?.0.check_model(&some(model, "model")?.model))
}

/// Resolves the guard's plan for a model. All of it goes to the callback.
///
/// On success `*out` owns a new object; free it with tiller_compiled_free(). It keeps nothing of the guard.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_guard_compile(
    guarding: Option<&tiller_guard>,
    target: *const tiller_target,
    out: Out<'_, tiller_compiled>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let guarding = some(guarding, "guard")?;
        // SAFETY: the header requires a struct whose `size` is set.
        let target = unsafe { tiller_target::read(target) }?;
        Ok(Arc::new(guarding.0.compile(&target)?).into())
    })
}

/// Frees a guard. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_guard_free(guarding: Option<Box<tiller_guard>>) {
    drop(guarding);
}

/// What a plan's monitors read, and the verdicts that followed.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_watched {
    watched: Watched,
    /// Names of monitors, a reading each, then of verdicts.
    names: Vec<CString>,
    /// Texts of verdicts.
    texts: Vec<Option<CString>>,
}

impl From<Watched> for tiller_watched {
    fn from(watched: Watched) -> Self {
        let names = watched.readings.iter().map(|r| &r.name).chain(watched.verdicts.iter().map(|v| &v.name));
        let names = names.map(|name| c_string(name)).collect();
        let texts = watched.verdicts.iter().map(|v| v.text.as_deref().map(c_string)).collect();
        Self { watched, names, texts }
    }
}

/// What a monitor read on a row.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_reading {
    /// Set it to sizeof(tiller_reading) before the call.
    pub size: u32,
    /// The monitor's place in the plan.
    pub monitor: u32,
    /// The sequence.
    pub sequence: i32,
    /// The position.
    pub position: i32,
    /// 1 the model wrote the row's token, 0 it was given, -1 nobody said.
    pub generated: i32,
    /// 1 if the value reaches the monitor's threshold.
    pub fired: u32,
    /// The mean over the monitor's features.
    pub value: f32,
    /// Always 0.
    pub reserved: u32,
    /// The monitor's name. Valid until the tiller_watched is freed.
    pub name: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_reading {
    const NAME: &'static str = "tiller_reading";
}

/// A verdict at a row.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_verdict {
    /// Set it to sizeof(tiller_verdict) before the call.
    pub size: u32,
    /// What you should do: 0 nothing, 1 end the answer, 2 end it and put `text` in its place.
    pub action: u32,
    /// The sequence.
    pub sequence: i32,
    /// The position.
    pub position: i32,
    /// The verdict's name. Valid until the tiller_watched is freed.
    pub name: *const c_char,
    /// What stands in place of the answer, or NULL. Valid until the tiller_watched is freed.
    pub text: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_verdict {
    const NAME: &'static str = "tiller_verdict";
}

/// What the monitors of the hook's plan read since the last call, and the verdicts that followed: call it after a decode, and
/// you learn of every token. At most 65,536 readings are kept for you.
///
/// On success `*out` owns a new object; free it with tiller_watched_free().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_watched(
    hook: Option<&tiller_hook>,
    out: Out<'_, tiller_watched>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || Ok(some(hook, "hook")?.lock()?.take_watched().into()))
}

/// Number of readings. 0 if `watched` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_watched_n_readings(watched: Option<&tiller_watched>) -> usize {
    watched.map_or(0, |w| w.watched.readings.len())
}

/// The `reading`-th reading, counted from 0, in the order in which they were made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_watched_reading(
    watched: Option<&tiller_watched>,
    reading: usize,
    out: *mut tiller_reading,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let tiller_watched { watched, names, .. } = some(watched, "watched")?;
        let (Some(read), Some(name)) = (watched.readings.get(reading), names.get(reading)) else {
            return Err(Error::argument(format!("reading {reading}: there are {}", watched.readings.len())));
        };
        let told = tiller_reading {
            size: 0,
            monitor: u32::try_from(read.monitor).unwrap_or(u32::MAX),
            sequence: read.sequence,
            position: read.position,
            generated: read.generated.map_or(-1, i32::from),
            fired: u32::from(read.fired),
            value: read.value,
            reserved: 0,
            name: name.as_ptr(),
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, told) }
    })
}

/// Number of verdicts. 0 if `watched` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_watched_n_verdicts(watched: Option<&tiller_watched>) -> usize {
    watched.map_or(0, |w| w.watched.verdicts.len())
}

/// The `verdict`-th verdict, counted from 0, in the order of rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_watched_verdict(
    watched: Option<&tiller_watched>,
    verdict: usize,
    out: *mut tiller_verdict,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let tiller_watched { watched, names, texts } = some(watched, "watched")?;
        let name = names.get(watched.readings.len().saturating_add(verdict));
        let (Some(passed), Some(name), Some(text)) = (watched.verdicts.get(verdict), name, texts.get(verdict)) else {
            return Err(Error::argument(format!("verdict {verdict}: there are {}", watched.verdicts.len())));
        };
        let told = tiller_verdict {
            size: 0,
            action: match passed.action {
                Action::Report => 0,
                Action::Stop => 1,
                Action::Replace => 2,
            },
            sequence: passed.sequence,
            position: passed.position,
            name: name.as_ptr(),
            text: text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr()),
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, told) }
    })
}

/// Readings and verdicts that were not kept, because nobody asked in time. 0 if `watched` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_watched_lost(watched: Option<&tiller_watched>) -> u64 {
    watched.map_or(0, |w| w.watched.lost)
}

/// Frees `watched`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_watched_free(watched: Option<Box<tiller_watched>>) {
    drop(watched);
}
