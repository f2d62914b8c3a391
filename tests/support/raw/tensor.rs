//! Tensors of the graph that runs.

use std::ffi::CStr;

use ggml_sys as sys;

/// The name of a tensor.
pub(crate) fn name(tensor: *const sys::ggml_tensor) -> String {
    // SAFETY: callers pass a tensor of the graph that runs, whose name ends with a NUL.
    let name = unsafe { CStr::from_ptr((&raw const (*tensor).name).cast()) };
    name.to_string_lossy().into_owned()
}

/// What a tensor of a graph is.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    /// ggml's name of the operation; NONE for a leaf.
    pub(crate) op: String,
    pub(crate) shape: [i64; 4],
    /// The addresses of its operands.
    pub(crate) sources: Vec<usize>,
    /// The address of the tensor whose memory it looks at; its own where it is no view.
    pub(crate) root: usize,
    /// Where in that memory it starts, in bytes.
    pub(crate) offset: usize,
    /// llama.cpp fills it before the graph runs.
    pub(crate) input: bool,
    /// The graph computes it. llama.cpp asks about nodes of the branch that is not taken too.
    pub(crate) computed: bool,
}

/// Looks at a tensor of the graph that runs.
pub(crate) fn see(tensor: *const sys::ggml_tensor) -> Seen {
    // SAFETY: callers pass a tensor of the graph that runs.
    let t = unsafe { &*tensor };
    // SAFETY: as above; the text is ggml's own, or part of a table that lives as long as the process.
    let op = unsafe { CStr::from_ptr(sys::ggml_op_desc(tensor)) };
    Seen {
        name: name(tensor),
        op: op.to_string_lossy().into_owned(),
        shape: t.ne,
        sources: t.src.iter().filter(|source| !source.is_null()).map(|source| *source as usize).collect(),
        root: if t.view_src.is_null() { tensor as usize } else { t.view_src as usize },
        offset: t.view_offs,
        input: t.flags & sys::GGML_TENSOR_FLAG_INPUT as i32 != 0,
        computed: t.flags & sys::GGML_TENSOR_FLAG_COMPUTE as i32 != 0,
    }
}

/// The elements of an F32 tensor of the graph that runs.
pub(crate) fn elements(tensor: *const sys::ggml_tensor) -> Vec<f32> {
    // SAFETY: callers pass a tensor of the graph that runs.
    part(tensor, 0, unsafe { sys::ggml_nelements(tensor) as usize })
}

/// `len` elements from the byte `offset` on.
pub(crate) fn part(tensor: *const sys::ggml_tensor, offset: usize, len: usize) -> Vec<f32> {
    // SAFETY: callers pass a tensor of the graph that runs.
    let (kind, size) = unsafe { ((*tensor).type_, sys::ggml_nbytes(tensor)) };
    // SAFETY: as above.
    assert!(kind == sys::GGML_TYPE_F32 && unsafe { sys::ggml_is_contiguous(tensor) }, "{}", name(tensor));
    assert!(offset + len * size_of::<f32>() <= size, "{}", name(tensor));
    let mut out = vec![0.0_f32; len];
    // SAFETY: `out` has room for them, and they are in bounds.
    unsafe { sys::ggml_backend_tensor_get(tensor, out.as_mut_ptr().cast(), offset, len * size_of::<f32>()) };
    out
}

/// Puts `values` in place of elements of an F32 tensor of the graph that runs, from the byte `offset` on.
pub(crate) fn write(tensor: *mut sys::ggml_tensor, offset: usize, values: &[f32]) {
    assert_eq!(values.len(), part(tensor, offset, values.len()).len());
    // SAFETY: `part` found that many elements there.
    unsafe { sys::ggml_backend_tensor_set(tensor, values.as_ptr().cast(), offset, size_of_val(values)) }
}
