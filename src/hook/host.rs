//! The table through which the hook sees ggml tensors.
//!
//! The library must not depend on the layout of any one ggml release, so everything that it wants to know of a tensor it
//! asks through function pointers. An app fills the table from its own `ggml.h` with the inline functions of
//! `include/tiller_llama.h`; the engine fills it from `ggml-sys`; a test fills it with a fake.

use std::ffi::{c_char, c_int, c_void};

/// A ggml tensor, seen only through a [`Host`].
#[repr(C)]
pub struct Tensor {
    _opaque: [u8; 0],
}

/// ggml's number for 32-bit floats.
pub const TYPE_F32: c_int = 0;
/// ggml's number for 32-bit integers.
pub const TYPE_I32: c_int = 26;

/// What the hook asks of ggml. Every function must accept any tensor of a graph that is being computed.
///
/// `src` may be absent: then rows are attributed by the announced batch alone.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Host {
    /// `sizeof` this struct as the app compiled it; the table only ever grows.
    pub size: u32,
    /// The tensor's name: NUL-terminated, valid while the graph lives.
    pub name: unsafe extern "C" fn(*const Tensor) -> *const c_char,
    /// ggml's number of the element type.
    pub dtype: unsafe extern "C" fn(*const Tensor) -> c_int,
    /// Writes the four extents, the contiguous one first.
    pub shape: unsafe extern "C" fn(*const Tensor, *mut i64),
    /// Whether the elements lie without gaps.
    pub contiguous: unsafe extern "C" fn(*const Tensor) -> bool,
    /// The elements, when the CPU can read and write them in place; NULL when they lie in a device's memory.
    pub data: unsafe extern "C" fn(*const Tensor) -> *mut c_void,
    /// Copies `size` bytes from `offset` of the tensor out.
    pub get: unsafe extern "C" fn(*const Tensor, *mut c_void, usize, usize),
    /// Copies `size` bytes in at `offset` of the tensor.
    pub set: unsafe extern "C" fn(*mut Tensor, *const c_void, usize, usize),
    /// The `i`-th operand of the node that computes the tensor, or NULL.
    pub src: Option<unsafe extern "C" fn(*const Tensor, c_int) -> *const Tensor>,
}
