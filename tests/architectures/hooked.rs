//! tiller's side of the test: a hook on raw ggml, with one patch.

use std::ffi::{c_char, c_int, c_void};
use std::sync::{Arc, Mutex};

use ggml_sys as sys;
use tiller::hook::{Fields, Functions, Hook, Host, Tensor};
use tiller::hook_point::HookPoint;
use tiller::plan::{Row, SequenceSet};

use super::support::raw::Entry;

/// The rows that an edit saw, before it changed them, with their positions.
pub(crate) type Rows = Vec<(i32, Vec<f32>)>;

/// A hook that adds `(1 + position)·v` to the rows of one point. A row whose position could not be told is left alone.
pub(crate) struct Hooked {
    pub(crate) hook: Hook,
    rows: Arc<Mutex<Rows>>,
}

impl Hooked {
    /// An error is a refusal.
    pub(crate) fn new(architecture: &str, point: HookPoint, v: Vec<f32>) -> Result<Self, String> {
        let mut hook = Hook::new(host());
        hook.set_architecture(architecture);
        let rows = Arc::new(Mutex::new(Rows::new()));
        let seen = rows.clone();
        let patch = move |data: &mut [f32], meta: &[Row]| {
            for (row, meta) in data.chunks_exact_mut(v.len()).zip(meta) {
                let Some(position) = meta.position else { continue };
                seen.lock().unwrap().push((position, row.to_vec()));
                row.iter_mut().zip(&v).for_each(|(x, v)| *x += factor(position) * v);
            }
            Ok(())
        };
        hook.patch(point, Some(Box::new(patch))).map_err(|error| error.to_string())?;
        Ok(Self { hook, rows })
    }

    /// Says what the next decode holds.
    pub(crate) fn announce(&mut self, batch: &[Entry]) {
        let row = |entry: &Entry| {
            let sequences = SequenceSet::of(entry.sequences.iter().copied()).expect("sequences");
            Row::new(entry.position, entry.sequences[0]).shared_by(sequences)
        };
        self.hook.announce(&batch.iter().map(row).collect::<Vec<_>>());
    }

    /// The rows that were edited, and the first fault.
    pub(crate) fn finish(mut self) -> (Rows, Option<String>) {
        let fault = self.hook.finish().ok().err().map(|error| error.to_string());
        (std::mem::take(&mut *self.rows.lock().unwrap()), fault)
    }
}

/// How many times the vector is added to the row of a position: rows that are mistaken for each other show.
pub(crate) fn factor(position: i32) -> f32 {
    (1 + position) as f32
}

/// The host's table on ggml-sys.
fn host() -> Host {
    Host::new(Functions { name, contiguous, get, set, op: Some(op) }, Fields::Asked { dtype, shape, data, src })
}

fn ggml(t: *const Tensor) -> *const sys::ggml_tensor {
    t.cast()
}

unsafe extern "C" fn name(t: *const Tensor) -> *const c_char {
    // SAFETY: the hook passes on the tensor that ggml gave it, alive for the call; the address of a field is in bounds.
    unsafe { (&raw const (*ggml(t)).name).cast() }
}

unsafe extern "C" fn op(t: *const Tensor) -> *const c_char {
    // SAFETY: as in `name`.
    unsafe { sys::ggml_op_desc(ggml(t)) }
}

unsafe extern "C" fn dtype(t: *const Tensor) -> c_int {
    // SAFETY: as in `name`.
    unsafe { (*ggml(t)).type_ as c_int }
}

unsafe extern "C" fn shape(t: *const Tensor, out: *mut i64) {
    // SAFETY: as in `name`; the hook passes room for four extents.
    unsafe { out.cast::<[i64; 4]>().write((*ggml(t)).ne) }
}

unsafe extern "C" fn contiguous(t: *const Tensor) -> bool {
    // SAFETY: as in `name`.
    unsafe { sys::ggml_is_contiguous(ggml(t)) }
}

unsafe extern "C" fn data(t: *const Tensor) -> *mut c_void {
    // SAFETY: as in `name`; the test's graphs run on the CPU.
    unsafe { (*ggml(t)).data }
}

unsafe extern "C" fn get(t: *const Tensor, to: *mut c_void, offset: usize, size: usize) {
    // SAFETY: the hook asks for bytes inside the tensor and passes room for them.
    unsafe { sys::ggml_backend_tensor_get(ggml(t), to, offset, size) }
}

unsafe extern "C" fn set(t: *mut Tensor, from: *const c_void, offset: usize, size: usize) {
    // SAFETY: the hook writes bytes inside the tensor and passes that many.
    unsafe { sys::ggml_backend_tensor_set(t.cast(), from, offset, size) }
}

unsafe extern "C" fn src(t: *const Tensor, i: c_int) -> *const Tensor {
    // SAFETY: as in `name`.
    let sources = unsafe { &(*ggml(t)).src };
    usize::try_from(i).ok().and_then(|i| sources.get(i)).map_or(std::ptr::null(), |p| p.cast_const().cast())
}
