//! llama.cpp without tiller: any architecture as a tiny model in memory, and a context on it.
//!
//! `llama_model_init_from_user` makes a model of GGUF keys alone and asks for the numbers of every tensor. It makes the
//! optional tensors too (biases, second norms, scales), so these models run through more of a graph than most files do.
//!
//! A wrong key ends the process: llama.cpp throws where no guard stands here, or asserts.

mod context;
mod tensor;

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::Once;

pub(crate) use context::{Context, Entry, Input, Observer, Options};
pub(crate) use tensor::{Seen, elements, name, part, see, write};
pub(crate) use tiller::engine::host;

use ggml_sys as sys;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The value of a GGUF key.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Count(u32),
    Real(f32),
    Flag(bool),
    Text(&'static str),
    Counts(Vec<u32>),
    Flags(Vec<bool>),
    Reals(Vec<f32>),
}

/// A model with random weights, the same ones every time.
pub(crate) struct Model {
    model: NonNull<sys::llama_model>,
}

impl Model {
    /// Of `keys`, without the architecture in front. None if llama.cpp refuses them; it says why on stderr.
    pub(crate) fn new(architecture: &str, keys: &[(&str, Value)]) -> Option<Self> {
        quiet();
        let metadata = Metadata::new();
        metadata.set("general.architecture", architecture);
        metadata.set("tokenizer.ggml.model", "none");
        for (key, value) in keys {
            let general = key.starts_with("tokenizer.") || key.starts_with("xielu.");
            let key = if general { (*key).to_owned() } else { format!("{architecture}.{key}") };
            metadata.set_value(&key, value);
        }
        // SAFETY: takes nothing.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = 0;
        let fill = Some(fill as unsafe extern "C" fn(*mut sys::ggml_tensor, *mut c_void));
        // SAFETY: the metadata lives during the call, which reads it; `fill` needs no data of its own.
        let model = unsafe { sys::llama_model_init_from_user(metadata.0.as_ptr(), fill, null_mut(), params) };
        NonNull::new(model).map(|model| Self { model })
    }

    /// Of a file.
    pub(crate) fn open(path: &std::path::Path) -> Option<Self> {
        quiet();
        let path = CString::new(path.to_str()?).ok()?;
        // SAFETY: takes nothing.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = 0;
        // SAFETY: the path outlives the call.
        NonNull::new(unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) }).map(|model| Self { model })
    }

    /// llama.cpp's own pointer.
    pub(crate) fn pointer(&self) -> *mut sys::llama_model {
        self.model.as_ptr()
    }

    /// Blocks.
    pub(crate) fn n_layer(&self) -> usize {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_layer(self.pointer()) as usize }
    }

    /// Numbers a row of the residual stream.
    pub(crate) fn n_embd(&self) -> usize {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_embd(self.pointer()) as usize }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: made by llama.cpp, freed once; contexts borrow the model, so none is left.
        unsafe { sys::llama_model_free(self.pointer()) }
    }
}

/// The metadata of a GGUF file that is none.
struct Metadata(NonNull<sys::gguf_context>);

impl Metadata {
    fn new() -> Self {
        // SAFETY: takes nothing.
        Self(NonNull::new(unsafe { sys::gguf_init_empty() }).expect("memory"))
    }

    fn set(&self, key: &str, text: &str) {
        let (key, text) = (CString::new(key).unwrap(), CString::new(text).unwrap());
        // SAFETY: both are copied.
        unsafe { sys::gguf_set_val_str(self.0.as_ptr(), key.as_ptr(), text.as_ptr()) }
    }

    fn set_value(&self, key: &str, value: &Value) {
        let (gguf, name) = (self.0.as_ptr(), CString::new(key).unwrap());
        let array = |kind, data: *const c_void, n| {
            // SAFETY: `data` holds `n` numbers of that kind, which are copied.
            unsafe { sys::gguf_set_arr_data(gguf, name.as_ptr(), kind, data, n) }
        };
        match value {
            // SAFETY: as in `set`.
            Value::Count(n) => unsafe { sys::gguf_set_val_u32(gguf, name.as_ptr(), *n) },
            // SAFETY: as in `set`.
            Value::Real(x) => unsafe { sys::gguf_set_val_f32(gguf, name.as_ptr(), *x) },
            // SAFETY: as in `set`.
            Value::Flag(on) => unsafe { sys::gguf_set_val_bool(gguf, name.as_ptr(), *on) },
            Value::Text(text) => self.set(key, text),
            Value::Counts(list) => array(sys::GGUF_TYPE_UINT32, list.as_ptr().cast(), list.len()),
            Value::Flags(list) => array(sys::GGUF_TYPE_BOOL, list.as_ptr().cast(), list.len()),
            Value::Reals(list) => array(sys::GGUF_TYPE_FLOAT32, list.as_ptr().cast(), list.len()),
        }
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { sys::gguf_free(self.0.as_ptr()) }
    }
}

/// Fills a tensor of a model: norms and scales with ones, matrices so that a row keeps its size, the rest with little.
unsafe extern "C" fn fill(tensor: *mut sys::ggml_tensor, _user: *mut c_void) {
    let name = name(tensor);
    // SAFETY: llama.cpp passes a tensor of the model that it makes.
    let (kind, shape, n) = unsafe { ((*tensor).type_, (*tensor).ne, sys::ggml_nelements(tensor) as usize) };
    assert_eq!(kind, sys::GGML_TYPE_F32, "{name}");
    let seed = name.bytes().fold(0x7117_u64, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut random = StdRng::seed_from_u64(seed);
    let ones = ["norm", "scale", "rope_freqs", "rope_factors", "ssm_d"];
    let (middle, spread) = if name.ends_with(".bias") {
        (0.0, 0.1)
    } else if ones.iter().any(|part| name.contains(part)) && !name.contains("_inp_") {
        (1.0, 0.0)
    } else if name.contains("ssm_a") {
        (-1.0, 0.5)
    } else if name == "token_embd.weight" {
        (0.0, 1.0)
    } else {
        (0.0, (3.0 / shape[0] as f32).sqrt().min(0.5))
    };
    let values: Vec<f32> = (0..n).map(|_| middle + spread * random.random_range(-1.0_f32..=1.0)).collect();
    // SAFETY: as many bytes as the tensor has.
    unsafe { sys::ggml_backend_tensor_set(tensor, values.as_ptr().cast(), 0, n * size_of::<f32>()) }
}

/// Keeps llama.cpp's log to warnings and errors.
fn quiet() {
    unsafe extern "C" fn print(level: sys::ggml_log_level, text: *const c_char, _user: *mut c_void) {
        if level == sys::GGML_LOG_LEVEL_ERROR {
            // SAFETY: llama.cpp logs text that ends with a NUL.
            eprint!("{}", unsafe { CStr::from_ptr(text) }.to_string_lossy());
        }
    }
    static ONCE: Once = Once::new();
    // SAFETY: puts a function that lives as long as the process in llama.cpp's place for it.
    ONCE.call_once(|| unsafe { sys::llama_log_set(Some(print), null_mut()) });
}
