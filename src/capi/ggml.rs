use std::ffi::{c_char, c_int, c_void};

use super::arguments::{Report, report, some};
use super::error::tiller_status;
use super::guard::{ErrorOut, guard};
use crate::error::{Error, Result};
use crate::hook::{Fields, Functions, Host, Layout, Probed, Tensor as ggml_tensor};

/// Where fields of ggml_tensor lie, in bytes from its start. All zero where functions look there.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_ggml_layout {
    /// sizeof(struct ggml_tensor).
    pub tensor_size: u32,
    /// The element type, an int.
    pub dtype: u32,
    /// The extents, four int64_t.
    pub shape: u32,
    /// The pointers to operands.
    pub src: u32,
    /// How many of them there are.
    pub n_src: u32,
    /// The pointer to the elements.
    pub data: u32,
    /// The pointer to the buffer that holds them.
    pub buffer: u32,
    /// The pointer to the tensor that this one is a view of.
    pub view_src: u32,
    /// ggml_backend_buffer_is_host().
    pub is_host: Option<unsafe extern "C" fn(buffer: *mut c_void) -> bool>,
}

/// How the hook sees your ggml. Fill it with tiller_llama_ggml() of tiller_llama.h, which is compiled against the
/// ggml.h of your own llama.cpp; with tiller_ggml_probe(), if you have no headers; or by hand, for another runtime.
///
/// Every function must take any tensor of a graph that is being computed, and may be called from the thread that
/// computes it. All but `op` are required; without it sites inside a block are not found. With a `layout`, `dtype`, `shape`,
/// `data` and `src` are NULL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_ggml {
    /// sizeof(tiller_ggml).
    pub size: u32,
    /// The tensor's name, NUL-terminated.
    pub name: Option<unsafe extern "C" fn(tensor: *const ggml_tensor) -> *const c_char>,
    /// ggml's number of the element type.
    pub dtype: Option<unsafe extern "C" fn(tensor: *const ggml_tensor) -> c_int>,
    /// Writes the four extents, the contiguous one first.
    pub shape: Option<unsafe extern "C" fn(tensor: *const ggml_tensor, shape: *mut i64)>,
    /// Whether the elements lie without gaps.
    pub contiguous: Option<unsafe extern "C" fn(tensor: *const ggml_tensor) -> bool>,
    /// The elements, if the CPU can read and write them in place; NULL if they lie in a device's memory.
    pub data: Option<unsafe extern "C" fn(tensor: *const ggml_tensor) -> *mut c_void>,
    /// Copies `n` bytes out, from `offset` of the tensor.
    pub get: Option<unsafe extern "C" fn(tensor: *const ggml_tensor, to: *mut c_void, offset: usize, n: usize)>,
    /// Copies `n` bytes in, at `offset` of the tensor.
    pub set: Option<unsafe extern "C" fn(tensor: *mut ggml_tensor, from: *const c_void, offset: usize, n: usize)>,
    /// The `i`-th operand of the node that computes the tensor, or NULL.
    pub src: Option<unsafe extern "C" fn(tensor: *const ggml_tensor, i: c_int) -> *const ggml_tensor>,
    /// The operation that computes the tensor, as ggml_op_desc() calls it.
    pub op: Option<unsafe extern "C" fn(tensor: *const ggml_tensor) -> *const c_char>,
    /// Where the fields are that no function above reads.
    pub layout: tiller_ggml_layout,
}

// SAFETY: `repr(C)`, a `u32` first, and nullable functions.
unsafe impl super::arguments::Options for tiller_ggml {
    const NAME: &'static str = "tiller_ggml";
}

impl tiller_ggml_layout {
    fn fields(&self) -> Result<Fields> {
        let Self { tensor_size: size, dtype, shape, src, n_src, data, buffer, view_src, is_host } = *self;
        let layout = Layout { dtype, shape, src, n_src, data, buffer, view_src, size };
        if !layout.is_inside() {
            return Err(Error::argument(format!("ggml.layout has a field outside of a tensor: {layout:?}")));
        }
        Ok(Fields::Measured { layout, is_host: some(is_host, "ggml.layout.is_host")? })
    }
}

impl tiller_ggml {
    /// What the hook takes.
    pub(super) fn host(&self) -> Result<Host> {
        let functions = Functions {
            name: some(self.name, "ggml.name")?,
            contiguous: some(self.contiguous, "ggml.contiguous")?,
            get: some(self.get, "ggml.get")?,
            set: some(self.set, "ggml.set")?,
            op: self.op,
        };
        let fields = if self.layout.tensor_size == 0 {
            Fields::Asked {
                dtype: some(self.dtype, "ggml.dtype")?,
                shape: some(self.shape, "ggml.shape")?,
                data: some(self.data, "ggml.data")?,
                src: some(self.src, "ggml.src")?,
            }
        } else if self.dtype.is_some() || self.shape.is_some() || self.data.is_some() || self.src.is_some() {
            return Err(Error::argument("ggml has a layout and dtype, shape, data or src; these must be NULL"));
        } else {
            self.layout.fields()?
        };
        Ok(Host::new(functions, fields))
    }
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_ggml {
    const NAME: &'static str = "tiller_ggml";
}

impl From<Probed> for tiller_ggml {
    fn from(probed: Probed) -> Self {
        let Probed { functions: Functions { name, contiguous, get, set, op }, layout, is_host } = probed;
        let Layout { dtype, shape, src, n_src, data, buffer, view_src, size: tensor_size } = layout;
        let is_host = Some(is_host);
        let layout = tiller_ggml_layout { tensor_size, dtype, shape, src, n_src, data, buffer, view_src, is_host };
        let (dtype, shape, data, src) = (None, None, None, None);
        let (name, contiguous, get, set) = (Some(name), Some(contiguous), Some(get), Some(set));
        Self { size: 0, name, dtype, shape, contiguous, data, get, set, src, op, layout }
    }
}

/// Gives the function of a name, or NULL. dlsym() is one, with the handle of a library as `user`.
pub type tiller_lookup_fn = Option<unsafe extern "C" fn(user: *mut c_void, name: *const c_char) -> *mut c_void>;

/// Fills `*out` without ggml's headers: `lookup` finds ggml's functions, and the places of the fields of ggml_tensor
/// are measured on a few tensors that it makes. What is missing or contradicts another thing is an error that names it:
/// TILLER_E_UNSUPPORTED for a function, TILLER_E_MISMATCH for a field or for what a function says.
///
/// Set `out->size` to sizeof(tiller_ggml) before the call. The functions must be those of the one ggml that computes
/// your graphs; it stays loaded while a hook that was made of `*out` is in use.
///
/// Thread safety: as your ggml_init().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_ggml_probe(
    lookup: tiller_lookup_fn,
    user: *mut c_void,
    out: *mut tiller_ggml,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let lookup = some(lookup, "lookup")?;
        // SAFETY: the header requires a function that may be called with `user`.
        let mut find = |name: &std::ffi::CStr| unsafe { lookup(user, name.as_ptr()) };
        // SAFETY: the header requires that it gives NULL or functions of one ggml.
        let probed = unsafe { Probed::new(&mut find) }?;
        // SAFETY: the header requires a struct whose `size` is set, or NULL.
        unsafe { report(out, probed.into()) }
    })
}
