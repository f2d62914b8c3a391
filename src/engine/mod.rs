//! Floor 6: running models through llama.cpp.
//!
//! An [`Engine`] is a model, a context and a [`Hook`] in one: it generates, scores and harvests, with or without a plan.
//! It is the second way into the library; an app that has its own llama.cpp uses the [`Hook`] alone. One whose contexts
//! come from the same `llama-cpp-sys-2` finds the hook's table and callback here: [`host`], [`eval`].
//!
//! What llama.cpp throws or asserts on the calling thread comes back as an error ([`guard`] says how, and what still ends
//! the process). After a failed assertion, or a failure in the middle of a change, an engine can only be freed; what
//! llama.cpp worked on is then left as it is. The same holds in a forked child, which lacks the engine's threads. A model
//! file is checked before llama.cpp sees it; beyond these checks it is trusted.

mod conversation;
mod documents;
mod generate;
mod guard;
mod harvest;
mod host;
mod last_rows;
mod log;
mod options;
mod quantize;
mod read;
mod score;
mod stream;
mod text;
mod threads;
mod verdicts;

use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use ggml_sys as sys;

pub use conversation::{Conversation, Reply};
pub use documents::{Document, Take, documents, each_document, pairs};
pub use generate::{Generate, Generation, REPEAT_WINDOW, Stop};
pub use harvest::{Harvest, Harvested};
pub use host::{eval, host};
pub use options::Options;
pub use quantize::{convert, faster_type, packer, requantize};
pub use read::TakeRows;
pub use score::Score;
pub use stream::Streamed;
pub use text::Message;

use crate::error::{Error, Kind, Result};
use crate::hook::{Hook, Ledger, Steering};
use crate::model::Model;
use crate::plan::{Compiled, Row, Target, Watched};
use conversation::Kept;
use options::Fitted;
use threads::Threads;

/// A model that runs, with the lever attached.
///
/// Thread safety: one thread at a time; it may move between threads.
pub struct Engine {
    context: NonNull<sys::llama_context>,
    model: NonNull<sys::llama_model>,
    /// Boxed, because llama.cpp holds its address. Reached through the pointer only.
    hook: NonNull<Hook>,
    threads: ManuallyDrop<Threads>,
    path: PathBuf,
    architecture: String,
    options: Options,
    /// Positions that a sequence may have.
    positions: usize,
    /// The model was trained to make one vector of a text.
    pooled: bool,
    /// Counts what was read into the cache; a generation of an earlier reading has ended.
    epoch: u64,
    /// What a conversation left in the cache.
    kept: Kept,
    plan: Option<Arc<Compiled>>,
    /// What monitors read that the host has not taken.
    watched: Watched,
    notes: Vec<String>,
    /// The process that opened it: its threads are not in a forked child.
    process: u32,
    /// Why llama.cpp gave up; what it worked on is neither used nor freed after that.
    broken: OnceLock<String>,
}

// SAFETY: llama.cpp's objects have no thread affinity, and nothing else holds these pointers.
unsafe impl Send for Engine {}

impl Engine {
    /// Opens the model file at `path`; of a model in several files, the first.
    ///
    /// # Errors
    /// As [`Model::open`] and [`Model::check_limits`]; [`Kind::Argument`] for options that do not fit the model, [`Kind::Unsupported`] for encoders,
    /// and with llama.cpp's reason where it cannot load the model or make a context.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let file = Model::open(path)?;
        file.check_limits()?;
        if file.is_encoder()? {
            return Err(options::no_decoder(&file));
        }
        let Fitted { options, positions, notes } = options.fit(&file)?;
        let threads = ManuallyDrop::new(Threads::start(options.threads)?);
        let model = load(path, &options)?;
        let mut hook = Box::new(Hook::new(host()));
        hook.set_architecture(file.architecture());
        hook.set_sequences(options.sequences);
        let hook = NonNull::from(Box::leak(hook));
        let params = context_params(&options, hook);
        // SAFETY: the model is loaded; the hook outlives the context.
        let made = guard::make(|| unsafe { guard::llama_init_from_model(model.as_ptr(), params) });
        let context = match made {
            Ok(context) => context,
            Err(fault) => {
                drop(ManuallyDrop::into_inner(threads));
                if !fault.assertion {
                    // SAFETY: each was made once; nothing holds either any more.
                    unsafe {
                        drop(Box::from_raw(hook.as_ptr()));
                        sys::llama_model_free(model.as_ptr());
                    }
                }
                let path = path.display();
                return Err(Error::unsupported(format!("{path}: llama.cpp cannot make a context: {fault}")));
            }
        };
        threads.attach(context);
        let engine = Self {
            context,
            model,
            hook,
            threads,
            path: path.to_owned(),
            architecture: file.architecture().to_owned(),
            options,
            positions,
            pooled: file.is_pooled()?,
            epoch: 0,
            kept: Kept::default(),
            plan: None,
            watched: Watched::default(),
            notes,
            process: std::process::id(),
            broken: OnceLock::new(),
        };
        // SAFETY: both live.
        let decodes = unsafe {
            !sys::llama_model_has_encoder(engine.model.as_ptr()) && !sys::llama_get_memory(context.as_ptr()).is_null()
        };
        if decodes { Ok(engine) } else { Err(options::no_decoder(&file)) }
    }

    /// The file that the model came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The options in force, with the defaults filled in.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What was not done as asked, or may surprise: fewer threads, no GPU, a context longer than the model was trained
    /// with. One line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Tokens of the longest window that is read at once: a batch, the context, and no more than the model has learned
    /// positions, where it learned them (GPT-2).
    pub fn longest(&self) -> usize {
        self.room().min(self.positions)
    }

    /// What a plan for it is compiled against.
    pub fn target(&self) -> Target {
        Target::new(self.n_layer(), self.d_model()).with_architecture(&self.architecture)
    }

    /// `general.architecture` of the model's file.
    pub fn architecture(&self) -> &str {
        &self.architecture
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
    /// What is in the KV cache was computed under the earlier plan; a new [`Engine::generate`] starts with an empty cache,
    /// and [`Engine::reply`] reads its conversation anew.
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
        plan.iter().try_for_each(|plan| self.hook_mut().check_plan(plan))?;
        let keeps = self.kept_under(plan.as_ref());
        let had = self.plan.as_ref().is_some_and(|plan| plan.control_vector.is_some());
        let vector = plan.as_ref().and_then(|plan| plan.control_vector.as_ref());
        if had || vector.is_some() {
            let data = vector.map_or(Ok(Vec::new()), |vector| vector.data(self.n_layer()))?;
            let pointer = if data.is_empty() { std::ptr::null() } else { data.as_ptr() };
            // The graph adds at every layer between the two, so they enclose no more than they must.
            let (first, last) = vector.and_then(|vector| vector.layers()).unwrap_or((1, self.n_layer()));
            let (width, first, last) = (self.d_model() as i32, first as i32, last as i32);
            let (context, len) = (self.context.as_ptr(), data.len());
            // SAFETY: llama.cpp copies the floats; there are (n_layer − 1) · d_model of them, or none.
            let set = || unsafe { guard::llama_set_adapter_cvec(context, pointer, len, width, first, last) };
            if self.change("setting a control vector", set)? != 0 {
                return Err(Error::unsupported(format!("llama.cpp refuses the control vector: {}", log::reason())));
            }
        }
        self.hook_mut().set_plan(plan.clone())?;
        self.plan = plan;
        if keeps {
            self.kept.version = self.hook_mut().plan_version();
        }
        Ok(())
    }

    /// The plan in force.
    pub fn plan(&self) -> Option<&Arc<Compiled>> {
        self.plan.as_ref()
    }

    /// A handle that sets plans without a control vector from other threads, also during a decode; see [`Steering`].
    pub fn steering(&mut self) -> Steering {
        self.hook_mut().steering()
    }

    /// What the hook saw and did since the last call, and all that went wrong; [`Ledger::ok`] makes an error of that.
    pub fn finish(&mut self) -> Ledger {
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
        if self.usable().is_ok() {
            self.threads.rest();
        }
    }

    /// Runs `body`, which asks llama.cpp, as [`guard::call`] does; `doing` says in an error what it was for. What was thrown
    /// leaves the engine usable, a failed assertion does not.
    fn ask<R: Copy>(&self, doing: &str, body: impl FnOnce() -> R) -> Result<R> {
        self.call(doing, false, body)
    }

    /// As [`Engine::ask`], where `body` changes the context: a fault of any kind leaves it half changed.
    fn change<R: Copy>(&mut self, doing: &str, body: impl FnOnce() -> R) -> Result<R> {
        self.call(doing, true, body)
    }

    fn call<R: Copy>(&self, doing: &str, changes: bool, body: impl FnOnce() -> R) -> Result<R> {
        self.usable()?;
        guard::call(body).map_err(|fault| {
            let what = format!("llama.cpp failed while {doing}: {fault}");
            if changes || fault.assertion {
                let _ = self.broken.set(what.clone());
            }
            Error::unsupported(format!("{}: {what}", self.path.display()))
        })
    }

    fn usable(&self) -> Result<()> {
        let why = if self.process != std::process::id() {
            "it was opened by another process, whose threads are not in a forked child"
        } else if let Some(why) = self.broken.get() {
            why
        } else {
            return Ok(());
        };
        let what = format!("{}: this engine can only be freed: {why}", self.path.display());
        Err(Error::unsupported(what).hinted("open the model anew"))
    }

    fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_get_vocab(self.model.as_ptr()) }
    }

    /// Forgets every sequence.
    fn forget(&mut self) -> Result<()> {
        let context = self.context.as_ptr();
        // SAFETY: the context lives.
        self.change("emptying its cache", || unsafe {
            guard::llama_memory_clear(sys::llama_get_memory(context), false);
        })
    }

    /// Runs one batch; `logits` says which tokens want them.
    fn decode(&mut self, tokens: &mut [i32], meta: &[Row], logits: &mut [i8]) -> Result<()> {
        if self.try_decode(tokens, meta, logits)? { Ok(()) } else { Err(self.full()) }
    }

    fn full(&self) -> Error {
        let (context, positions) = (self.options.context, self.positions);
        if positions < context {
            return Error::argument(format!("the text passes the {positions} positions that the model has learned"));
        }
        Error::argument(format!("the context of {context} tokens is full"))
            .hinted("give the model a larger context: --context N")
    }

    /// As `decode`; false, with nothing computed, when the context has no room for the batch.
    fn try_decode(&mut self, tokens: &mut [i32], meta: &[Row], logits: &mut [i8]) -> Result<bool> {
        debug_assert!(tokens.len() == meta.len() && tokens.len() == logits.len());
        self.usable()?;
        let rows: Vec<Row> = meta.iter().zip(&*tokens).map(|(row, &token)| row.token(token)).collect();
        self.hook_mut().announce(&rows);
        let mut positions: Vec<i32> = meta.iter().map(|row| row.position.unwrap_or(-1)).collect();
        let mut sequences: Vec<i32> = meta.iter().map(|row| row.sequence().unwrap_or(-1)).collect();
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
        let context = self.context.as_ptr();
        // SAFETY: every array of the batch has `n_tokens` entries and outlives the call; the hook is not borrowed.
        match self.change("computing", || unsafe { guard::llama_decode(context, batch) })? {
            0 => Ok(true),
            1 => {
                self.hook_mut().withdraw();
                Ok(false)
            }
            status => Err(Error::new(
                Kind::Numeric,
                format!("llama.cpp could not compute (status {status}): {}", log::reason()),
            )),
        }
    }

    /// The logits of the `i`-th token of the last batch; −1 is the last one that has logits.
    fn logits(&self, i: i32) -> Result<&[f32]> {
        let context = self.context.as_ptr();
        // SAFETY: the context lives; llama.cpp returns NULL for a token without logits.
        let logits = self.ask("reading logits", || unsafe { guard::llama_get_logits_ith(context, i) })?;
        if logits.is_null() {
            return Err(Error::argument(format!("token {i} of the batch has no logits")));
        }
        // SAFETY: llama.cpp keeps one row of the vocabulary's size until the next decode, which needs `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts(logits, self.n_vocab()) })
    }
}

/// Has llama.cpp load the model at `path`.
fn load(path: &Path, options: &Options) -> Result<NonNull<sys::llama_model>> {
    let name = c_path(path)?;
    // SAFETY: plain defaults.
    let mut params = unsafe { sys::llama_model_default_params() };
    params.n_gpu_layers = i32::try_from(options.gpu_layers).unwrap_or(i32::MAX);
    let name = name.as_ptr();
    // SAFETY: the name is NUL-terminated and outlives the call.
    guard::make(|| unsafe { guard::llama_model_load_from_file(name, params) }).map_err(|fault| {
        Error::format(path, format_args!("llama.cpp cannot load the model: {fault}"))
            .hinted("the file may be damaged, or newer than the llama.cpp of this build")
    })
}

/// llama.cpp's parameters of a context; `options` are fitted, so every number has room.
fn context_params(options: &Options, hook: NonNull<Hook>) -> sys::llama_context_params {
    // SAFETY: plain defaults.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = options.context as u32;
    params.n_batch = options.batch as u32;
    params.n_ubatch = params.n_batch;
    params.n_seq_max = options.sequences as u32;
    params.n_threads = options.threads as i32;
    params.n_threads_batch = params.n_threads;
    // One cell pool for all sequences: batches are then split in order, and rows stay where they were announced.
    params.kv_unified = true;
    params.no_perf = true;
    if options.hook {
        params.cb_eval = Some(eval);
        params.cb_eval_user_data = hook.as_ptr().cast();
    }
    params
}

impl Drop for Engine {
    fn drop(&mut self) {
        // What llama.cpp gave up on is in an unknown state, and a forked child would wait for threads that it has not.
        if self.usable().is_err() {
            return;
        }
        // SAFETY: each was made once and is freed once, the context before what it points to.
        unsafe {
            sys::llama_free(self.context.as_ptr());
            drop(Box::from_raw(self.hook.as_ptr()));
            sys::llama_model_free(self.model.as_ptr());
            ManuallyDrop::drop(&mut self.threads);
        }
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| Error::argument(format!("{}: the path holds a NUL byte", path.display())))
}

#[cfg(test)]
mod tests {
    use std::ffi::c_char;

    use super::*;

    #[test]
    fn an_engine_that_llama_gave_up_on_says_so() {
        let Some(dir) = std::env::var_os("TILLER_TEST_MODELS") else {
            eprintln!("SKIPPED: set TILLER_TEST_MODELS to the directory of the models");
            return;
        };
        let path = Path::new(&dir).join("SmolLM2-135M-Instruct.Q4_1.gguf");
        let options = Options { threads: 1, context: 64, batch: 64, ..Options::default() };
        let open = || Engine::open(&path, &options).unwrap();
        let (none, nowhere) = (std::ptr::null::<f32>(), std::ptr::null_mut::<c_char>());
        // SAFETY: it fails before it reads or writes: ggml asserts where the row starts, C++ has no vector so long.
        let assertion =
            || unsafe { guard::ggml_quantize_chunk(sys::GGML_TYPE_Q8_0, none, nowhere.cast(), 1, 1, 32, none) };
        // SAFETY: as above.
        let exception = || unsafe {
            guard::llama_chat_apply_template(c"chatml".as_ptr(), none.cast(), usize::MAX, false, nowhere, 0)
        };
        let broken = |engine: &mut Engine, why: &str| {
            let generate = Generate { max_tokens: 2, ..Generate::default() };
            let errors = [
                engine.tokenize("a", true).err(),
                engine.forget().err(),
                engine.generate("a", &generate, &mut |_| true).err(),
            ];
            for error in errors.into_iter().flatten() {
                assert!(error.message().contains("can only be freed: llama.cpp failed while"), "{error}");
                assert!(error.message().contains(why), "{error}");
            }
            assert!(engine.usable().is_err());
            engine.rest();
        };
        let mut engine = open();
        assert!(engine.ask("asking", exception).unwrap_err().message().contains("vector"));
        assert!(engine.usable().is_ok(), "nothing has changed");
        let error = engine.ask("asking", assertion).unwrap_err();
        assert!(error.kind() == Kind::Unsupported && error.message().contains("GGML_ASSERT"), "{error}");
        broken(&mut engine, "GGML_ASSERT");
        let mut engine = open();
        engine.change("changing", exception).unwrap_err();
        broken(&mut engine, "vector");
    }
}
