use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use super::arguments::{Report, report, slice, some, text};
use super::error::tiller_status;
use super::ggml::tiller_ggml;
use super::guard::{ErrorOut, Out, catch, guard, make};
use super::plan::{tiller_compiled, tiller_point, tiller_row};
use crate::error::{Error, Result};
use crate::hook::{Captured, Hook, Tensor as ggml_tensor};
use crate::plan::RowMeta;

/// What a hook saw and did since the last tiller_hook_finish().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_report {
    /// Set it to sizeof(tiller_report) before the call.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Rows of the residual stream at layers with a plan or a capture.
    pub rows_seen: u64,
    /// Rows that a plan changed.
    pub rows_edited: u64,
    /// Rows that a plan could have changed, but that were left alone because their token could not be told, or because
    /// the edit was not finite.
    pub rows_skipped: u64,
    /// Rows copied for you.
    pub rows_captured: u64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_report {
    const NAME: &'static str = "tiller_report";
}

impl From<crate::hook::Report> for tiller_report {
    fn from(r: crate::hook::Report) -> Self {
        let crate::hook::Report { rows_seen, rows_edited, rows_skipped, rows_captured } = r;
        Self { size: 0, reserved: 0, rows_seen, rows_edited, rows_skipped, rows_captured }
    }
}

/// Reads and edits the residual stream while your llama.cpp computes.
///
/// Its life: fill a tiller_ggml; tiller_hook_new(); before the llama context is made, set `cb_eval` of its parameters to
/// tiller_hook_eval and `cb_eval_user_data` to the hook; set a plan, change it, clear it, between any two decodes; call
/// tiller_hook_finish() after a decode to learn what was done; free the context, then the hook.
///
/// Thread safety: one thread at a time; the thread that is inside llama_decode() owns the hook while it is there.
pub struct tiller_hook {
    hook: Hook,
    has_control_vector: bool,
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
        Ok(tiller_hook { hook: Hook::new(table.host()?), has_control_vector: false })
    })
}

/// The callback: exactly the type of ggml_backend_sched_eval_callback. Never fails outward: a failure is kept, the model
/// runs on unsteered, and tiller_hook_finish() reports it. Returns false for a computed node only to end the graph after
/// the layer of tiller_hook_stop_after().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_eval(tensor: *mut ggml_tensor, ask: bool, hook: *mut c_void) -> bool {
    // SAFETY: the header requires `hook` to be a live tiller_hook which no other thread uses.
    let Some(tiller_hook { hook, .. }) = (unsafe { hook.cast::<tiller_hook>().as_mut() }) else { return !ask };
    if tensor.is_null() {
        return !ask;
    }
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
    hook: Option<&mut tiller_hook>,
    architecture: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires a C string.
        some(hook, "hook")?.hook.set_architecture(unsafe { text(architecture, "architecture") }?);
        Ok(())
    })
}

/// Steers by `compiled` from the next decode on, in place of any plan before; NULL stops steering. What the plan compiled
/// to a control vector is not the hook's to apply: see tiller_compiled_control_vector(). Keeps its own reference.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_set_plan(
    hook: Option<&mut tiller_hook>,
    compiled: Option<&tiller_compiled>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let hook = some(hook, "hook")?;
        hook.hook.set_plan(compiled.map(|c| Arc::clone(&c.plan)))?;
        hook.has_control_vector = compiled.is_some_and(|c| c.plan.control_vector.is_some());
        Ok(())
    })
}

/// Whether the plan in force has a part that is a control vector, which llama.cpp has to be told to forget.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_has_control_vector(hook: Option<&tiller_hook>) -> bool {
    hook.is_some_and(|h| h.has_control_vector)
}

/// Says what the next llama_decode() holds: one row for each token, in the order of the batch.
///
/// Without it positions come from the graph, every row counts as sequence 0, and a graph of one row past position 0 as
/// generated. With it, a batch that the graph contradicts is not steered, and tiller_hook_finish() says so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_announce(
    hook: Option<&mut tiller_hook>,
    rows: *const tiller_row,
    n_rows: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n_rows` structs.
        let rows = unsafe { slice(rows, n_rows, "rows") }?;
        some(hook, "hook")?.hook.announce(&rows.iter().map(RowMeta::from).collect::<Vec<_>>());
        Ok(())
    })
}

/// Copies the rows at these points, after any edit, until told otherwise; take them with tiller_hook_captured().
/// `n_points` = 0 ends it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_capture(
    hook: Option<&mut tiller_hook>,
    points: *const tiller_point,
    n_points: usize,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n_points` structs.
        let points = unsafe { slice(points, n_points, "points") }?;
        some(hook, "hook")?.hook.capture(points.iter().map(|point| point.point()).collect::<Result<Vec<_>>>()?)
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
    hook: Option<&mut tiller_hook>,
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
        some(hook, "hook")?.hook.patch(point.point()?, patch)
    })
}

/// Ends every graph after block `layer`, which saves the work above it; logits are then meaningless. For reading rows.
/// -1 lets graphs run to their end again.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_hook_stop_after(
    hook: Option<&mut tiller_hook>,
    layer: i32,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        some(hook, "hook")?.hook.stop_after(usize::try_from(layer).ok());
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
    hook: Option<&mut tiller_hook>,
    point: tiller_point,
    out: Out<'_, tiller_captured>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let captured = some(hook, "hook")?.hook.take_captured(point.point()?);
        let rows = captured.meta.iter().map(tiller_row::from).collect();
        Ok(tiller_captured { captured, rows })
    })
}

/// Ends a run. TILLER_OK and, if `out` is not NULL, what was seen and done since the last call; or the first failure
/// since then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_hook_finish(
    hook: Option<&mut tiller_hook>,
    out: *mut tiller_report,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let done = some(hook, "hook")?.hook.finish()?;
        // SAFETY: the header requires a struct whose `size` is set, or NULL.
        if out.is_null() { Ok(()) } else { unsafe { report(out, done.into()) } }
    })
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
