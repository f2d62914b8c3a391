//! A host without ggml's headers: its functions found by name, the places of fields measured.
//!
//! ggml exports functions for most of what a hook asks, but the element type, the extents, the operands and the memory
//! of a tensor are fields of a struct that changes from release to release. So [`Probed::new`] makes a few tensors
//! whose fields have known, distinctive values and looks for these values in their bytes. A field is believed if
//! exactly one place fits all samples, and if what is then read agrees with what ggml's own functions say of the same
//! tensors. Anything missing or contradictory is an error that names the function or the field.
//!
//! All of it lies in memory of ours (ggml puts the tensors of a context where it is told), and no byte is read outside
//! of it. It costs some microseconds, once.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::host::{Fields, Functions, Host, Layout, TYPE_F32, TYPE_I32, Tensor};
use super::samples::Samples;
use crate::error::{Error, Result};

/// Gives the function of a name, or NULL.
pub type Lookup<'a> = dyn FnMut(&CStr) -> *mut c_void + 'a;

/// ggml's number for 16-bit floats.
pub(super) const TYPE_F16: c_int = 1;

/// `struct ggml_init_params`.
#[repr(C)]
pub(super) struct InitParams {
    pub(super) mem_size: usize,
    pub(super) mem_buffer: *mut c_void,
    pub(super) no_alloc: bool,
}

pub(super) type Context = *mut c_void;
pub(super) type Buffer = *mut c_void;
pub(super) type Node = *mut Tensor;

/// Declares the functions that the probe needs, each a field of its name without the `ggml_`.
macro_rules! functions {
    ($($field:ident $name:literal ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        pub(super) struct Ggml {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Ggml {
            /// # Safety
            /// `lookup` gives NULL or the function of that name of one ggml.
            unsafe fn find(lookup: &mut Lookup<'_>) -> Result<Self> {
                Ok(Self {
                    $($field: {
                        let found = lookup($name);
                        if found.is_null() {
                            let name = $name.to_string_lossy();
                            return Err(Error::unsupported(format!("ggml has no function {name}: lookup gave NULL")));
                        }
                        // SAFETY: not NULL, and the caller promises the function of this name, which has this type.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(found)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    tensor_overhead c"ggml_tensor_overhead" () -> usize;
    init c"ggml_init" (InitParams) -> Context;
    free c"ggml_free" (Context);
    new_tensor_4d c"ggml_new_tensor_4d" (Context, c_int, i64, i64, i64, i64) -> Node;
    add c"ggml_add" (Context, Node, Node) -> Node;
    view_1d c"ggml_view_1d" (Context, Node, i64, usize) -> Node;
    transpose c"ggml_transpose" (Context, Node) -> Node;
    set_name c"ggml_set_name" (Node, *const c_char) -> Node;
    get_name c"ggml_get_name" (*const Tensor) -> *const c_char;
    get_data c"ggml_get_data" (*const Tensor) -> *mut c_void;
    nelements c"ggml_nelements" (*const Tensor) -> i64;
    nbytes c"ggml_nbytes" (*const Tensor) -> usize;
    is_contiguous c"ggml_is_contiguous" (*const Tensor) -> bool;
    op_desc c"ggml_op_desc" (*const Tensor) -> *const c_char;
    type_name c"ggml_type_name" (c_int) -> *const c_char;
    buffer_from_ptr c"ggml_backend_cpu_buffer_from_ptr" (*mut c_void, usize) -> Buffer;
    buffer_free c"ggml_backend_buffer_free" (Buffer);
    is_host c"ggml_backend_buffer_is_host" (Buffer) -> bool;
    tensor_alloc c"ggml_backend_tensor_alloc" (Buffer, Node, *mut c_void);
    tensor_get c"ggml_backend_tensor_get" (*const Tensor, *mut c_void, usize, usize);
    tensor_set c"ggml_backend_tensor_set" (Node, *const c_void, usize, usize);
}

/// What a probe found: ggml's functions, and where the fields of its tensor lie.
pub struct Probed {
    /// The functions that a hook calls.
    pub functions: Functions,
    /// Where the fields lie.
    pub layout: Layout,
    /// `ggml_backend_buffer_is_host`.
    pub is_host: unsafe extern "C" fn(*mut c_void) -> bool,
}

impl From<&Probed> for Host {
    fn from(probed: &Probed) -> Self {
        let &Probed { functions, layout, is_host } = probed;
        Self::new(functions, Fields::Measured { layout, is_host })
    }
}

impl Probed {
    /// Probes the ggml whose functions `lookup` finds.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) names a function that is missing;
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) a field that is not found in exactly one place, or a function that
    /// does not say what it should.
    ///
    /// # Safety
    /// For every name `lookup` gives NULL or the function of that name of one and the same ggml, which stays loaded
    /// while the host is in use.
    pub unsafe fn new(lookup: &mut Lookup<'_>) -> Result<Self> {
        // SAFETY: the caller vouches for the functions.
        let ggml = unsafe { Ggml::find(lookup) }?;
        ggml.check_types()?;
        let samples = Samples::new(&ggml)?;
        let layout = samples.measure()?;
        let functions = Functions {
            name: ggml.get_name,
            contiguous: ggml.is_contiguous,
            get: ggml.tensor_get,
            set: ggml.tensor_set,
            op: Some(ggml.op_desc),
        };
        let probed = Self { functions, layout, is_host: ggml.is_host };
        samples.check(&Host::from(&probed))?;
        Ok(probed)
    }
}

impl Ggml {
    /// Element types have the numbers that the hook knows.
    fn check_types(&self) -> Result<()> {
        for (number, name) in [(TYPE_F32, c"f32"), (TYPE_F16, c"f16"), (TYPE_I32, c"i32")] {
            // SAFETY: ggml has had more types than these since it has had a type of the highest of these numbers; a
            // smaller table is that of a release without backends, whose functions were not found.
            let found = unsafe { (self.type_name)(number) };
            // SAFETY: NULL or a NUL-terminated constant.
            expect("ggml_type_name", (!found.is_null()).then(|| unsafe { CStr::from_ptr(found) }), Some(name))?;
        }
        Ok(())
    }
}

/// `found` is what `name` should say.
pub(super) fn expect<T: PartialEq + std::fmt::Debug>(name: &str, found: T, expected: T) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::mismatch(format!("{name} says {found:?}, expected {expected:?}")))
    }
}
