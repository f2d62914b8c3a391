use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::arguments::{slice, some, text};
use super::error::tiller_status;
use super::ggml::tiller_ggml;
use super::guard::{ErrorOut, Out, catch, guard, make};
use super::ledger::{finished, tiller_ledger, tiller_report};
use super::plan::{tiller_compiled, tiller_point, tiller_row};
use crate::error::{Error, Result};
use crate::hook::{Captured, Hook, Ledger, Steering, Tensor as ggml_tensor};

/// Reads and edits the residual stream while your llama.cpp computes.
///
/// Its life: fill a tiller_ggml; tiller_hook_new(); before the llama context is made, set `cb_eval` of its parameters to
/// tiller_hook_eval and `cb_eval_user_data` to the hook; set a plan, change it, clear it, as often as you like; call
/// tiller_hook_finish() after a decode to learn what was done; free the context, then the hook.
///
/// A hook belongs to one context: the first whose graph it sees when it has something to do. Graphs of other contexts that
/// call it (a draft model's inherits the callback) pass untouched and are counted. See tiller_hook_rebind().
///
/// Thread safety: any thread may call tiller_hook_set_plan() and tiller_hook_check_plan() at any time; the next decode goes by
/// the plan, whole. Of the other calls one at a time: what finds the hook in use by another thread fails with
/// TILLER_E_ARGUMENT, and a graph that does runs untouched, which tiller_hook_finish() reports.
pub struct tiller_hook {
    hook: Mutex<Hook>,
    steering: Steering,
    /// Graphs' nodes that came while another thread used the hook.
    busy: AtomicU64,
    has_control_vector: AtomicBool,
}

impl tiller_hook {
    /// The hook, if no other thread is using it.
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, Hook>> {
        match self.hook.try_lock() {
            Ok(hook) => Ok(hook),
            Err(TryLockError::Poisoned(hook)) => Ok(hook.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::argument("the hook is in use by another thread")
                .hinted("give each context its own hook, and call it between decodes")),
        }
    }

    fn finish(&self) -> Result<Ledger> {
        let mut hook = self.lock()?;
        match self.busy.swap(0, Ordering::Relaxed) {
            0 => {}
            n => hook.fail(Error::argument(format!(
                "{n} nodes of graphs came while another thread used the hook, and ran untouched: give each context its own"
            ))),
        }
        Ok(hook.finish())
    }
}

/// Makes a hook with nothing to do. `ggml` is copied.
///
/// On success `*out` owns a new hook; free it with tiller_hook_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_new(
    ggml: *const tiller_ggml,
    out: Out<'_, tiller_hook>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        if ggml.is_null() {
            return Err(Error::argument("ggml is NULL"));
        }
        // SAFETY: the header requires a table whose `size` is set.
        let table = unsafe { super::arguments::options(ggml) }?;
        let hook = Hook::new(table.host()?);
        let steering = hook.steering();
        Ok(tiller_hook {
            hook: Mutex::new(hook),
            steering,
            busy: AtomicU64::new(0),
            has_control_vector: AtomicBool::new(false),
        })
    })
}

/// The callback: exactly the type of ggml_backend_sched_eval_callback. Never fails outward: a failure is kept, the model
/// runs on unsteered, and tiller_hook_finish() reports it. Returns false for a computed node only to end the graph after
/// the layer of tiller_hook_stop_after().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_eval(tensor: *mut ggml_tensor, ask: bool, hook: *mut c_void) -> bool {
    // SAFETY: the header requires `hook` to be a live tiller_hook.
    let Some(shared) = (unsafe { hook.cast::<tiller_hook>().as_ref() }) else { return !ask };
    if tensor.is_null() {
        return !ask;
    }
    let Ok(mut hook) = shared.lock() else {
        shared.busy.fetch_add(1, Ordering::Relaxed);
        return !ask;
    };
    // SAFETY: the scheduler passes a node of the graph that runs; the app's table fits it.
    catch(|| Ok(unsafe { hook.eval(tensor, ask) })).unwrap_or_else(|error| {
        hook.fail(error);
        !ask
    })
}

/// Says which architecture's graphs the hook will see, as `general.architecture` of the GGUF file spells it: the nodes of
/// hook points other than the residual stream after a block are called differently in each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_set_architecture(
    hook: Option<&tiller_hook>,
    architecture: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires a C string.
        some(hook, "hook")?.lock()?.set_architecture(unsafe { text(architecture, "architecture") }?);
        Ok(())
    })
}

/// Says for how many sequences the context is made (`n_seq_max` of its parameters). With one, every row is of sequence 0,
/// also unannounced. tiller_llama_install() says it.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_set_sequences(
    hook: Option<&tiller_hook>,
    n_sequences: u32,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        some(hook, "hook")?.lock()?.set_sequences(n_sequences as usize);
        Ok(())
    })
}

/// Has the hook belong to the next context whose graph it sees: after a context was made anew. tiller_llama_install() does
/// it.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_rebind(hook: Option<&tiller_hook>, err: ErrorOut<'_>) -> tiller_status {
    guard(err, || {
        some(hook, "hook")?.lock()?.rebind();
        Ok(())
    })
}

/// Whether tiller_hook_set_plan() would take `compiled`: for callers that have a control vector to set first.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_check_plan(
    hook: Option<&tiller_hook>,
    compiled: Option<&tiller_compiled>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let (hook, compiled) = (some(hook, "hook")?, compiled);
        compiled.map_or(Ok(()), |compiled| hook.steering.check_plan(&compiled.plan))
    })
}

/// Steers by `compiled` from the next decode on, in place of any plan before; NULL stops steering. Sequence gates of rules
/// that stay the same keep their memory. When it fails, nothing has changed. What the plan compiled to a control vector is
/// not the hook's to apply: see tiller_compiled_control_vector(). Keeps its own reference.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_set_plan(
    hook: Option<&tiller_hook>,
    compiled: Option<&tiller_compiled>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let hook = some(hook, "hook")?;
        hook.steering.set_callback(compiled.map(|c| Arc::clone(&c.plan)))?;
        let has = compiled.is_some_and(|c| c.plan.control_vector.is_some());
        hook.has_control_vector.store(has, Ordering::Relaxed);
        Ok(())
    })
}

/// Whether the plan in force has a part that is a control vector, which llama.cpp has to be told to forget.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_has_control_vector(hook: Option<&tiller_hook>) -> bool {
    hook.is_some_and(|h| h.has_control_vector.load(Ordering::Relaxed))
}

/// Says what the next llama_decode() holds: one row for each token, in the order of the batch. It counts for that decode
/// only. `n_rows` = 0 takes the last one back: its batch was not decoded.
///
/// What a row leaves open, the graph may tell. Without an announcement nobody knows which sequences rows are of, where
/// llama.cpp keeps several in one cache, or which the model wrote: rules that depend on it leave rows alone, and
/// tiller_hook_finish() says so. Where the graph contradicts the announcement, nothing of it is believed: only rules that take
/// every row act.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_announce(
    hook: Option<&tiller_hook>,
    rows: *const tiller_row,
    n_rows: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n_rows` structs.
        let rows = super::plan::rows(unsafe { slice(rows, n_rows, "rows") }?)?;
        let mut hook = some(hook, "hook")?.lock()?;
        match &rows[..] {
            [] => hook.withdraw(),
            rows => hook.announce(rows),
        }
        Ok(())
    })
}

/// Closes the sequence gates of a sequence. Needed only where one starts anew at a later position: a state that was loaded.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_forget_sequence(
    hook: Option<&tiller_hook>,
    sequence: i32,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        some(hook, "hook")?.lock()?.forget_sequence(sequence);
        Ok(())
    })
}

/// Copies the rows at these points, after any edit, until told otherwise; take them with tiller_hook_captured().
/// `n_points` = 0 ends it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_capture(
    hook: Option<&tiller_hook>,
    points: *const tiller_point,
    n_points: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n_points` structs.
        let points = unsafe { slice(points, n_points, "points") }?;
        some(hook, "hook")?.lock()?.capture(points.iter().map(|point| point.point()).collect::<Result<Vec<_>>>()?)
    })
}

/// Any edit of the rows at a hook point: `n_rows` rows of `d_model` floats, and the token of each. Return 0, or anything else
/// to report a failure.
pub type tiller_patch_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        data: *mut f32,
        d_model: usize,
        rows: *const tiller_row,
        n_rows: usize,
    ) -> c_int,
>;

/// What a patch is called with.
struct User(*mut c_void);

// SAFETY: the header says that the hook, and with it the patch, is used by one thread at a time.
unsafe impl Send for User {}

/// Runs `patch` over the rows at `point` after the plan, for what no plan can say; NULL takes it away. It must not unwind.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_patch(
    hook: Option<&tiller_hook>,
    point: tiller_point,
    patch: tiller_patch_fn,
    user: *mut c_void,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let user = User(user);
        let patch = patch.map(|call| -> Box<crate::hook::Patch> {
            Box::new(move |data, meta| {
                let user = &user;
                let rows: Vec<tiller_row> = meta.iter().map(tiller_row::from).collect();
                let d_model = data.len().checked_div(rows.len()).unwrap_or(0);
                // SAFETY: the header requires a function that may be called with `user`; the arrays are as long as it says.
                match unsafe { call(user.0, data.as_mut_ptr(), d_model, rows.as_ptr(), rows.len()) } {
                    0 => Ok(()),
                    n => Err(Error::argument(format!("the patch failed ({n})"))),
                }
            })
        });
        some(hook, "hook")?.lock()?.patch(point.point()?, patch)
    })
}

/// Ends every graph after block `layer`, which saves the work above it; logits are then meaningless. For reading rows.
/// -1 lets graphs run to their end again.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_stop_after(hook: Option<&tiller_hook>, layer: i32, err: ErrorOut<'_>) -> tiller_status {
    guard(err, || {
        some(hook, "hook")?.lock()?.stop_after(usize::try_from(layer).ok());
        Ok(())
    })
}

/// Rows of one hook point, copied out of the graph.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_captured {
    captured: Captured,
    rows: Vec<tiller_row>,
}

/// The rows copied at `point` since the last call; there may be none.
///
/// On success `*out` owns a new object; free it with tiller_captured_free().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_captured(
    hook: Option<&tiller_hook>,
    point: tiller_point,
    out: Out<'_, tiller_captured>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let captured = some(hook, "hook")?.lock()?.take_captured(point.point()?);
        let rows = captured.meta.iter().map(tiller_row::from).collect();
        Ok(tiller_captured { captured, rows })
    })
}

/// What was seen and done since the last call: fills `out`, if it is not NULL, whatever went wrong. TILLER_OK if nothing
/// did, else the first fault. tiller_hook_ledger() tells all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_finish(
    hook: Option<&tiller_hook>,
    out: *mut tiller_report,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let hook = some(hook, "hook")?;
        // SAFETY: the header requires a struct whose `size` is set, or NULL.
        unsafe { finished(out, || hook.finish()) }
    })
}

/// As tiller_hook_finish(), with what each rule did and every fault.
///
/// On success `*out` owns a new ledger; free it with tiller_ledger_free().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_ledger(
    hook: Option<&tiller_hook>,
    out: Out<'_, tiller_ledger>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || Ok(some(hook, "hook")?.finish()?.into()))
}

/// Frees `hook`. Free the llama context that calls it first. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_free(hook: Option<Box<tiller_hook>>) {
    drop(hook);
}

/// Number of rows. 0 if `captured` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_captured_n_rows(captured: Option<&tiller_captured>) -> usize {
    captured.map_or(0, |c| c.rows.len())
}

/// The rows: n_rows * d_model floats, row by row. Valid until `captured` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_captured_data(captured: Option<&tiller_captured>) -> *const f32 {
    captured.map_or(std::ptr::null(), |c| c.captured.rows.as_ptr())
}

/// Width of a row; 0 if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_captured_d_model(captured: Option<&tiller_captured>) -> usize {
    captured.map_or(0, |c| c.captured.rows.len().checked_div(c.rows.len()).unwrap_or(0))
}

/// The token of each row. Valid until `captured` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_captured_tokens(captured: Option<&tiller_captured>) -> *const tiller_row {
    captured.map_or(std::ptr::null(), |c| c.rows.as_ptr())
}

/// Frees `captured`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_captured_free(captured: Option<Box<tiller_captured>>) {
    drop(captured);
}
