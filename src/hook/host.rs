//! How the hook sees ggml tensors.
//!
//! The library must not depend on the layout of any one ggml release. Some questions about a tensor are answered by
//! functions that every ggml exports ([`Functions`]). The others are about fields of the tensor ([`Fields`]): either
//! the app compiled functions against its own `ggml.h` that look there (`include/tiller_llama.h`; the engine does so
//! with `ggml-sys`, a test with a fake), or, where there are no headers, the places of these fields were measured at
//! run time.

use std::ffi::{CStr, c_char, c_int, c_void};

/// A ggml tensor, seen only through a [`Host`].
#[repr(C)]
pub struct Tensor {
    _opaque: [u8; 0],
}

/// ggml's number for 32-bit floats.
pub const TYPE_F32: c_int = 0;
/// ggml's number for 32-bit integers.
pub const TYPE_I32: c_int = 26;
/// ggml's number for 64-bit integers.
pub const TYPE_I64: c_int = 27;

/// What ggml itself exports. Each function must accept any tensor of a graph that is being computed.
#[derive(Clone, Copy)]
pub struct Functions {
    /// `ggml_get_name`: NUL-terminated, valid while the graph lives.
    pub name: unsafe extern "C" fn(*const Tensor) -> *const c_char,
    /// `ggml_is_contiguous`: whether the elements lie without gaps.
    pub contiguous: unsafe extern "C" fn(*const Tensor) -> bool,
    /// `ggml_backend_tensor_get`: copies bytes out: where to, from which offset of the tensor, how many.
    pub get: unsafe extern "C" fn(*const Tensor, *mut c_void, usize, usize),
    /// `ggml_backend_tensor_set`: copies bytes in: where from, to which offset of the tensor, how many.
    pub set: unsafe extern "C" fn(*mut Tensor, *const c_void, usize, usize),
    /// `ggml_op_desc`: the name of the operation that computes the tensor, a NUL-terminated constant.
    pub op: Option<unsafe extern "C" fn(*const Tensor) -> *const c_char>,
}

/// How fields of a tensor are read.
#[derive(Clone, Copy)]
pub enum Fields {
    /// By functions that were compiled against ggml's header.
    Asked {
        /// ggml's number of the element type.
        dtype: unsafe extern "C" fn(*const Tensor) -> c_int,
        /// Writes the four extents, the contiguous one first.
        shape: unsafe extern "C" fn(*const Tensor, *mut i64),
        /// The elements, when the CPU can read and write them in place; NULL when they lie in a device's memory.
        data: unsafe extern "C" fn(*const Tensor) -> *mut c_void,
        /// The `i`-th operand of the node that computes the tensor, or NULL.
        src: unsafe extern "C" fn(*const Tensor, c_int) -> *const Tensor,
    },
    /// Where they were found.
    Measured {
        /// Where they lie.
        layout: Layout,
        /// `ggml_backend_buffer_is_host`: whether the CPU reaches the memory of a buffer.
        is_host: unsafe extern "C" fn(*mut c_void) -> bool,
    },
}

/// Where fields lie in ggml's tensor, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The element type, a C `int`.
    pub dtype: u32,
    /// The four extents, each an `int64_t`.
    pub shape: u32,
    /// The pointers to operands.
    pub src: u32,
    /// How many operands there is room for.
    pub n_src: u32,
    /// The pointer to the elements.
    pub data: u32,
    /// The pointer to the buffer that holds them.
    pub buffer: u32,
    /// The pointer to the tensor that this one is a view of.
    pub view_src: u32,
    /// Size of a tensor: every field lies inside.
    pub size: u32,
}

impl Layout {
    /// Every field lies inside of the tensor.
    pub fn is_inside(&self) -> bool {
        let pointer = size_of::<*const Tensor>() as u64;
        let fields = [
            (self.dtype, size_of::<c_int>() as u64),
            (self.shape, size_of::<[i64; 4]>() as u64),
            (self.src, u64::from(self.n_src) * pointer),
            (self.data, pointer),
            (self.buffer, pointer),
            (self.view_src, pointer),
        ];
        fields.iter().all(|&(at, len)| u64::from(at) + len <= u64::from(self.size))
    }
}

/// How a hook sees the tensors of one ggml.
///
/// Every method takes a valid tensor of a graph that is being computed, of the ggml that this was filled for.
#[derive(Clone, Copy)]
pub struct Host {
    functions: Functions,
    fields: Fields,
}

impl Host {
    /// A host of one ggml: functions and fields must be those of the same.
    pub fn new(functions: Functions, fields: Fields) -> Self {
        Self { functions, fields }
    }

    /// The name of a tensor; empty if it has none.
    ///
    /// # Safety
    /// `tensor` is valid and of this ggml, and outlives the use of the name.
    pub unsafe fn name<'a>(&self, tensor: *const Tensor) -> &'a [u8] {
        // SAFETY: the caller vouches for the tensor.
        let text = unsafe { (self.functions.name)(tensor) };
        // SAFETY: names are NUL-terminated.
        if text.is_null() { b"" } else { unsafe { CStr::from_ptr(text) }.to_bytes() }
    }

    /// ggml's number of the element type.
    ///
    /// # Safety
    /// `tensor` is valid and of this ggml.
    pub unsafe fn dtype(&self, tensor: *const Tensor) -> c_int {
        match self.fields {
            // SAFETY: the caller vouches for the tensor.
            Fields::Asked { dtype, .. } => unsafe { dtype(tensor) },
            // SAFETY: the caller vouches for the tensor; the layout is that of its ggml.
            Fields::Measured { layout, .. } => unsafe { field(tensor, layout.dtype) },
        }
    }

    /// The four extents, the contiguous one first.
    ///
    /// # Safety
    /// `tensor` is valid and of this ggml.
    pub unsafe fn shape(&self, tensor: *const Tensor) -> [i64; 4] {
        match self.fields {
            Fields::Asked { shape, .. } => {
                let mut extents = [0; 4];
                // SAFETY: the caller vouches for the tensor; there is room for what the function promises to write.
                unsafe { shape(tensor, extents.as_mut_ptr()) };
                extents
            }
            // SAFETY: as in `dtype`.
            Fields::Measured { layout, .. } => unsafe { field(tensor, layout.shape) },
        }
    }

    /// Whether the elements lie without gaps.
    ///
    /// # Safety
    /// `tensor` is valid and of this ggml.
    pub unsafe fn contiguous(&self, tensor: *const Tensor) -> bool {
        // SAFETY: the caller vouches for the tensor.
        unsafe { (self.functions.contiguous)(tensor) }
    }

    /// The elements, when the CPU can read and write them in place; NULL when they lie in a device's memory.
    ///
    /// # Safety
    /// `tensor` is valid and of this ggml.
    pub unsafe fn data(&self, tensor: *const Tensor) -> *mut c_void {
        let (layout, is_host) = match self.fields {
            // SAFETY: the caller vouches for the tensor.
            Fields::Asked { data, .. } => return unsafe { data(tensor) },
            Fields::Measured { layout, is_host } => (layout, is_host),
        };
        // SAFETY: as in `dtype`.
        let view: *const Tensor = unsafe { field(tensor, layout.view_src) };
        let owner = if view.is_null() { tensor } else { view };
        // SAFETY: as in `dtype`; the source of a view outlives the view.
        let buffer: *mut c_void = unsafe { field(owner, layout.buffer) };
        // SAFETY: the buffer is that of a tensor of the graph that runs.
        if buffer.is_null() || !unsafe { is_host(buffer) } {
            return std::ptr::null_mut();
        }
        // SAFETY: as in `dtype`.
        unsafe { field(tensor, layout.data) }
    }

    /// Copies `n` bytes out, from `offset` of the tensor.
    ///
    /// # Safety
    /// `tensor` is valid and of this ggml, and holds these bytes; `to` has room for them.
    pub unsafe fn get(&self, tensor: *const Tensor, to: *mut c_void, offset: usize, n: usize) {
        // SAFETY: the caller vouches for the tensor and the memory.
        unsafe { (self.functions.get)(tensor, to, offset, n) }
    }

    /// Copies `n` bytes in, at `offset` of the tensor.
    ///
    /// # Safety
    /// `tensor` is valid and of this ggml, and has room for these bytes; `from` holds them.
    pub unsafe fn set(&self, tensor: *mut Tensor, from: *const c_void, offset: usize, n: usize) {
        // SAFETY: the caller vouches for the tensor and the memory.
        unsafe { (self.functions.set)(tensor, from, offset, n) }
    }

    /// The `i`-th operand of the node that computes the tensor; NULL if it has none, or if the host does not show them.
    ///
    /// # Safety
    /// `tensor` is valid and of this ggml.
    pub unsafe fn src(&self, tensor: *const Tensor, i: usize) -> *const Tensor {
        match self.fields {
            Fields::Asked { src, .. } => match c_int::try_from(i) {
                // SAFETY: the caller vouches for the tensor.
                Ok(i) => unsafe { src(tensor, i) },
                Err(_) => std::ptr::null(),
            },
            Fields::Measured { layout, .. } if i < layout.n_src as usize => {
                // SAFETY: as in `dtype`; the room for operands is part of the layout.
                unsafe { field(tensor, layout.src + (i * size_of::<*const Tensor>()) as u32) }
            }
            _ => std::ptr::null(),
        }
    }

    /// The operation that computes the tensor, as ggml calls it ("ADD", "MUL_MAT", "SILU"); `None` if the host does not
    /// say.
    ///
    /// # Safety
    /// `tensor` is valid and of this ggml.
    pub unsafe fn op(&self, tensor: *const Tensor) -> Option<&'static [u8]> {
        // SAFETY: the caller vouches for the tensor.
        let text = unsafe { self.functions.op?(tensor) };
        // SAFETY: the names of operations are NUL-terminated constants.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
    }
}

/// The field at `offset` of a tensor.
///
/// # Safety
/// The tensor has a `T` there.
unsafe fn field<T: Copy>(tensor: *const Tensor, offset: u32) -> T {
    // SAFETY: the caller promises that it is in bounds.
    let field = unsafe { tensor.cast::<u8>().add(offset as usize) };
    // SAFETY: the caller promises a `T`.
    unsafe { field.cast::<T>().read_unaligned() }
}
