//! Floor 6: running models through llama.cpp.
//!
//! An [`Engine`] is a model, a context and a [`Hook`] in one: it generates, scores and harvests, with or without a plan.
//! It is the second way into the library; an app that has its own llama.cpp uses the [`Hook`] alone.

mod documents;
mod generate;
mod harvest;
mod host;
mod last_rows;
mod log;
mod quantize;
mod score;
mod stream;
mod text;
mod threads;

use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use ggml_sys as sys;

pub use documents::{Document, documents};
pub use generate::{Generate, Generation, Stop};
pub use harvest::{Harvest, Harvested};
pub use quantize::{convert, packer, requantize};
pub use score::Score;
pub use stream::Streamed;
pub use text::Message;

use crate::error::{Error, Kind, Result};
use crate::hook::{Hook, Report, Tensor};
use crate::plan::{Compiled, RowMeta};
use threads::Threads;

/// How a model is opened and run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads for computing; 0 takes as many as the machine has.
    pub threads: usize,
    /// Tokens that the context holds, over all sequences; 0 takes what the model was trained with, at most 4,096.
    pub context: usize,
    /// Tokens computed at once when text is read.
    pub batch: usize,
    /// Sequences that may run side by side.
    pub sequences: usize,
    /// Layers that go to a GPU, if this build has one.
    pub gpu_layers: usize,
    /// Whether the hook is installed; without it nothing can be steered through the callback or harvested. Off only to
    /// measure what the hook costs.
    pub hook: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 0, context: 0, batch: 512, sequences: 1, gpu_layers: 0, hook: true }
    }
}

/// A model that runs, with the lever attached.
///
/// Thread safety: one thread at a time; it may move between threads.
pub struct Engine {
    context: NonNull<sys::llama_context>,
    model: NonNull<sys::llama_model>,
    /// Boxed, because llama.cpp holds its address. Reached through the pointer only.
    hook: NonNull<Hook>,
    threads: Threads,
    path: PathBuf,
    options: Options,
    /// Counts what was read into the cache; a generation of an earlier reading has ended.
    epoch: u64,
    plan: Option<Arc<Compiled>>,
}

// SAFETY: llama.cpp's objects have no thread affinity, and nothing else holds these pointers.
unsafe impl Send for Engine {}

impl Engine {
    /// Opens the model file at `path`.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        crate::file::open(path)?;
        log::capture();
        let mut options = options.clone();
        if options.threads == 0 {
            options.threads = std::thread::available_parallelism().map_or(1, usize::from);
        }
        let name = c_path(path)?;
        let threads = Threads::start(options.threads)?;
        // SAFETY: plain defaults.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = i32::try_from(options.gpu_layers).unwrap_or(i32::MAX);
        // SAFETY: the name is NUL-terminated and outlives the call.
        let model = unsafe { sys::llama_model_load_from_file(name.as_ptr(), params) };
        let model = NonNull::new(model)
            .ok_or_else(|| Error::format(path, format_args!("llama.cpp cannot load the model: {}", log::last())))?;
        if options.context == 0 {
            // SAFETY: the model is loaded.
            let trained = unsafe { sys::llama_model_n_ctx_train(model.as_ptr()) };
            options.context = usize::try_from(trained).unwrap_or(0).clamp(256, 4096);
        }
        // SAFETY: the pointer comes from a box and is freed as one in `drop`.
        let hook = unsafe { NonNull::new_unchecked(Box::into_raw(Box::new(Hook::new(host::table())))) };
        // SAFETY: made above; nothing else holds it yet.
        unsafe { &mut *hook.as_ptr() }.set_architecture(&architecture(model));
        let context = match Self::context(model, hook, &options) {
            Ok(context) => context,
            Err(error) => {
                // SAFETY: nothing holds either pointer any more.
                unsafe {
                    drop(Box::from_raw(hook.as_ptr()));
                    sys::llama_model_free(model.as_ptr());
                }
                return Err(error.context(path.display()));
            }
        };
        threads.attach(context);
        Ok(Self { context, model, hook, threads, path: path.to_owned(), options, epoch: 0, plan: None })
    }

    fn context(
        model: NonNull<sys::llama_model>,
        hook: NonNull<Hook>,
        options: &Options,
    ) -> Result<NonNull<sys::llama_context>> {
        let number = |n: usize, what: &str| {
            u32::try_from(n).map_err(|_| Error::argument(format!("{what} is {n}, at most {} is possible", u32::MAX)))
        };
        // SAFETY: plain defaults.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = number(options.context, "context")?;
        params.n_batch = number(options.batch.clamp(1, options.context), "batch")?;
        params.n_ubatch = params.n_batch;
        params.n_seq_max = number(options.sequences.max(1), "sequences")?;
        params.n_threads = i32::try_from(options.threads).unwrap_or(i32::MAX);
        params.n_threads_batch = params.n_threads;
        // One cell pool for all sequences: batches are then split in order, and rows stay where they were announced.
        params.kv_unified = true;
        params.no_perf = true;
        if options.hook {
            params.cb_eval = Some(eval);
            params.cb_eval_user_data = hook.as_ptr().cast();
        }
        // SAFETY: the model is loaded; the hook outlives the context.
        let context = unsafe { sys::llama_init_from_model(model.as_ptr(), params) };
        NonNull::new(context)
            .ok_or_else(|| Error::unsupported(format!("llama.cpp cannot make a context: {}", log::last())))
    }

    /// The file that the model came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The options in force, with the defaults filled in.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Number of blocks.
    pub fn n_layer(&self) -> usize {
        // SAFETY: the model is loaded.
        usize::try_from(unsafe { sys::llama_model_n_layer(self.model.as_ptr()) }).unwrap_or(0)
    }

    /// Width of the residual stream.
    pub fn d_model(&self) -> usize {
        // SAFETY: the model is loaded.
        usize::try_from(unsafe { sys::llama_model_n_embd(self.model.as_ptr()) }).unwrap_or(0)
    }

    /// Sequences that may run side by side.
    pub fn sequences(&self) -> usize {
        self.options.sequences.max(1)
    }

    /// Number of tokens of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        // SAFETY: the vocabulary belongs to the loaded model.
        usize::try_from(unsafe { sys::llama_vocab_n_tokens(self.vocab()) }).unwrap_or(0)
    }

    /// Steers by `plan` from the next token on, in place of any plan before; `None` stops steering. May be called between
    /// and during generations; the model is not reloaded.
    ///
    /// What is in the KV cache was computed under the earlier plan; a new [`Engine::generate`] starts with an empty cache.
    pub fn set_plan(&mut self, plan: Option<Arc<Compiled>>) -> Result<()> {
        if let Some(plan) = &plan {
            let (fits, has) = ((plan.n_layer, plan.d_model), (self.n_layer(), self.d_model()));
            if fits != has {
                return Err(Error::mismatch(format!(
                    "the plan was compiled for {} layers of width {}, the model has {} of width {}",
                    fits.0, fits.1, has.0, has.1
                )));
            }
            if !self.options.hook && !plan.points.is_empty() {
                return Err(Error::argument(
                    "this engine was opened without its hook: it can only apply control vectors",
                ));
            }
        }
        let had = self.plan.as_ref().is_some_and(|plan| plan.control_vector.is_some());
        let vector = plan.as_ref().and_then(|plan| plan.control_vector.as_ref());
        if had || vector.is_some() {
            let data = vector.map_or(Ok(Vec::new()), |vector| vector.data(self.n_layer()))?;
            let pointer = if data.is_empty() { std::ptr::null() } else { data.as_ptr() };
            // The graph adds at every layer between the two, so they enclose no more than they must.
            let (first, last) = vector.and_then(|vector| vector.layers()).unwrap_or((1, self.n_layer()));
            let (width, first, last) = (self.d_model() as i32, first as i32, last as i32);
            // SAFETY: llama.cpp copies the floats; there are (n_layer − 1) · d_model of them, or none.
            let status =
                unsafe { sys::llama_set_adapter_cvec(self.context.as_ptr(), pointer, data.len(), width, first, last) };
            if status != 0 {
                return Err(Error::unsupported(format!("llama.cpp refuses the control vector: {}", log::last())));
            }
        }
        self.hook_mut().set_plan(plan.clone())?;
        self.plan = plan;
        Ok(())
    }

    /// The plan in force.
    pub fn plan(&self) -> Option<&Arc<Compiled>> {
        self.plan.as_ref()
    }

    /// What the hook saw and did since the last call, or its first failure since then.
    pub fn finish(&mut self) -> Result<Report> {
        self.hook_mut().finish()
    }

    /// The hook itself, for capturing rows.
    pub fn hook_mut(&mut self) -> &mut Hook {
        // SAFETY: the box lives as long as the engine; llama.cpp uses it only inside `decode`, which needs `&mut self`.
        unsafe { self.hook.as_mut() }
    }

    /// Has the engine's threads sleep at once. They do so by themselves some milliseconds after a decode, and the next one
    /// wakes them; for programs that compute with another engine in between.
    pub fn rest(&mut self) {
        self.threads.rest();
    }

    fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_get_vocab(self.model.as_ptr()) }
    }

    /// Forgets every sequence.
    fn forget(&mut self) {
        // SAFETY: the context lives.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context.as_ptr()), false) }
    }

    /// Runs one batch; `logits` says which tokens want them.
    fn decode(&mut self, tokens: &mut [i32], meta: &[RowMeta], logits: &mut [i8]) -> Result<()> {
        debug_assert!(tokens.len() == meta.len() && tokens.len() == logits.len());
        self.hook_mut().announce(meta);
        let mut positions: Vec<i32> = meta.iter().map(|row| row.position).collect();
        let mut sequences: Vec<i32> = meta.iter().map(|row| row.sequence).collect();
        let mut one = vec![1_i32; tokens.len()];
        let mut lists: Vec<*mut i32> = sequences.iter_mut().map(std::ptr::from_mut).collect();
        let batch = sys::llama_batch {
            n_tokens: tokens.len() as i32,
            token: tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: positions.as_mut_ptr(),
            n_seq_id: one.as_mut_ptr(),
            seq_id: lists.as_mut_ptr(),
            logits: logits.as_mut_ptr(),
        };
        // SAFETY: every array of the batch has `n_tokens` entries and outlives the call; the hook is not borrowed.
        let status = unsafe { sys::llama_decode(self.context.as_ptr(), batch) };
        match status {
            0 => Ok(()),
            1 => Err(Error::argument(format!(
                "the context of {} tokens is full; open the model with a larger one",
                self.options.context
            ))),
            _ => Err(Error::new(
                Kind::Numeric,
                format!("llama.cpp could not compute (status {status}): {}", log::last()),
            )),
        }
    }

    /// The logits of the `i`-th token of the last batch.
    fn logits(&self, i: usize) -> Result<&[f32]> {
        // SAFETY: the context lives; llama.cpp returns NULL for a token without logits.
        let logits = unsafe { sys::llama_get_logits_ith(self.context.as_ptr(), i as i32) };
        if logits.is_null() {
            return Err(Error::argument(format!("token {i} of the batch has no logits")));
        }
        // SAFETY: llama.cpp keeps one row of the vocabulary's size until the next decode, which needs `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts(logits, self.n_vocab()) })
    }
}

/// `general.architecture`; empty if the model does not say.
fn architecture(model: NonNull<sys::llama_model>) -> String {
    let mut text = [0_u8; 64];
    // SAFETY: the model is loaded; the key is NUL-terminated; at most `text.len()` bytes are written, a NUL among them.
    unsafe {
        let key = c"general.architecture".as_ptr();
        sys::llama_model_meta_val_str(model.as_ptr(), key, text.as_mut_ptr().cast(), text.len())
    };
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: each was made once and is freed once, the context before what it points to.
        unsafe {
            sys::llama_free(self.context.as_ptr());
            drop(Box::from_raw(self.hook.as_ptr()));
            sys::llama_model_free(self.model.as_ptr());
        }
    }
}

/// llama.cpp's way into the hook. A panic is kept as a failure; the graph runs on.
unsafe extern "C" fn eval(tensor: *mut sys::ggml_tensor, ask: bool, user: *mut c_void) -> bool {
    // SAFETY: `user` is the engine's hook, which llama.cpp uses only while the engine is inside `decode`.
    let hook = unsafe { &mut *user.cast::<Hook>() };
    // SAFETY: the scheduler passes a node of the graph that runs; the table is that of the same ggml.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe { hook.eval(tensor.cast::<Tensor>(), ask) }))
        .unwrap_or_else(|_| {
            hook.fail(Error::new(Kind::Panic, "internal error: the hook panicked; the model ran on unsteered"));
            !ask
        })
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| Error::argument(format!("{}: the path holds a NUL byte", path.display())))
}
