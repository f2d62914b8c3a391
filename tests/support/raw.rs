//! llama.cpp without tiller: any architecture as a tiny model in memory, and a context on it.
//!
//! `llama_model_init_from_user` makes a model of GGUF keys alone and asks for the numbers of every tensor. It makes the
//! optional tensors too (biases, second norms, scales), so these models run through more of a graph than most files do.
//!
//! A wrong key ends the process: llama.cpp throws where no guard stands here, or asserts.

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::{NonNull, null_mut};
use std::sync::Once;

use ggml_sys as sys;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What sees the nodes of a graph: `(node, ask)`, as ggml's eval callback.
pub(crate) type Observer<'a> = dyn FnMut(*mut sys::ggml_tensor, bool) -> bool + 'a;

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

/// What a context is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) n_ctx: u32,
    pub(crate) n_batch: u32,
    pub(crate) n_ubatch: u32,
    pub(crate) n_seq_max: u32,
    pub(crate) kv_unified: bool,
    /// Embeddings come out besides logits; encoders have nothing else.
    pub(crate) embeddings: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { n_ctx: 256, n_batch: 64, n_ubatch: 64, n_seq_max: 1, kv_unified: false, embeddings: false }
    }
}

/// What a position of a batch holds.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Token(i32),
    /// A row in place of a token's embedding, as images come. A batch holds tokens or rows.
    Row(Vec<f32>),
}

/// One position of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) input: Input,
    pub(crate) position: i32,
    pub(crate) sequences: Vec<i32>,
    pub(crate) logits: bool,
}

impl Entry {
    /// A token of one sequence.
    pub(crate) fn token(token: i32, position: i32, sequence: i32, logits: bool) -> Self {
        Self { input: Input::Token(token), position, sequences: vec![sequence], logits }
    }
}

/// A context on a model. Its observer is said with each call.
pub(crate) struct Context<'m> {
    context: NonNull<sys::llama_context>,
    /// Where llama.cpp finds the observer of the call that runs. Boxed, because llama.cpp holds its address.
    seat: NonNull<Seat>,
    n_embd: usize,
    n_vocab: usize,
    model: PhantomData<&'m Model>,
}

type Seat = Option<*mut Observer<'static>>;

impl<'m> Context<'m> {
    /// On one thread, flash attention as llama.cpp chooses. None if llama.cpp refuses.
    pub(crate) fn new(model: &'m Model, options: Options) -> Option<Self> {
        // SAFETY: takes nothing.
        let mut params = unsafe { sys::llama_context_default_params() };
        let seat = NonNull::from(Box::leak(Box::new(None)));
        (params.n_ctx, params.n_batch, params.n_ubatch) = (options.n_ctx, options.n_batch, options.n_ubatch);
        (params.n_seq_max, params.kv_unified, params.embeddings) =
            (options.n_seq_max, options.kv_unified, options.embeddings);
        (params.n_threads, params.n_threads_batch) = (1, 1);
        params.cb_eval = Some(eval);
        params.cb_eval_user_data = seat.as_ptr().cast();
        // SAFETY: the model outlives the context by its lifetime, the seat by `drop`.
        let context = unsafe { sys::llama_init_from_model(model.pointer(), params) };
        // SAFETY: the model is alive.
        let vocab = unsafe { sys::llama_model_get_vocab(model.pointer()) };
        // SAFETY: the model's own.
        let n_vocab = unsafe { sys::llama_vocab_n_tokens(vocab) } as usize;
        let Some(context) = NonNull::new(context) else {
            // SAFETY: leaked above, and no context holds it.
            drop(unsafe { Box::from_raw(seat.as_ptr()) });
            return None;
        };
        Some(Self { context, seat, n_embd: model.n_embd(), n_vocab, model: PhantomData })
    }

    /// llama.cpp's own pointer.
    pub(crate) fn pointer(&self) -> *mut sys::llama_context {
        self.context.as_ptr()
    }

    /// Has llama.cpp add a vector to the output of each block from 1 on: `values` are `[n_layer - 1, width]`.
    pub(crate) fn control(&mut self, values: &[f32], width: usize, n_layer: usize) {
        let (width, last) = (width as i32, n_layer as i32);
        // SAFETY: the context is alive; the numbers are copied.
        let code =
            unsafe { sys::llama_set_adapter_cvec(self.pointer(), values.as_ptr(), values.len(), width, 1, last) };
        assert_eq!(code, 0);
    }

    /// Decodes a batch under the eyes of `observer`; what `llama_decode` returned.
    pub(crate) fn decode(&mut self, batch: &[Entry], observer: &mut Observer) -> i32 {
        self.run(batch, observer, sys::llama_decode)
    }

    /// The same through `llama_encode`.
    pub(crate) fn encode(&mut self, batch: &[Entry], observer: &mut Observer) -> i32 {
        self.run(batch, observer, sys::llama_encode)
    }

    fn run(&mut self, entries: &[Entry], observer: &mut Observer, call: Call) -> i32 {
        let rows = entries.iter().any(|entry| matches!(entry.input, Input::Row(_)));
        let mut tokens: Vec<i32> = Vec::new();
        let mut embeddings: Vec<f32> = Vec::new();
        for entry in entries {
            match &entry.input {
                Input::Token(token) => tokens.push(*token),
                Input::Row(row) => {
                    assert_eq!(row.len(), self.n_embd);
                    embeddings.extend_from_slice(row);
                }
            }
        }
        assert!(tokens.is_empty() || embeddings.is_empty(), "tokens and rows in one batch");
        let mut positions: Vec<i32> = entries.iter().map(|entry| entry.position).collect();
        if rows {
            // Models whose rotary positions have four sections read that many numbers a row; for text, the last is 0.
            let one = positions.clone();
            positions.extend([&one[..], &one[..], &vec![0; one.len()]].concat());
        }
        let mut counts: Vec<i32> = entries.iter().map(|entry| entry.sequences.len() as i32).collect();
        let mut sequences: Vec<Vec<i32>> = entries.iter().map(|entry| entry.sequences.clone()).collect();
        let mut addresses: Vec<*mut i32> = sequences.iter_mut().map(|ids| ids.as_mut_ptr()).collect();
        let mut logits: Vec<i8> = entries.iter().map(|entry| i8::from(entry.logits)).collect();
        let batch = sys::llama_batch {
            n_tokens: entries.len() as i32,
            token: if rows { null_mut() } else { tokens.as_mut_ptr() },
            embd: if rows { embeddings.as_mut_ptr() } else { null_mut() },
            pos: positions.as_mut_ptr(),
            n_seq_id: counts.as_mut_ptr(),
            seq_id: addresses.as_mut_ptr(),
            logits: logits.as_mut_ptr(),
        };
        let observer: *mut Observer = observer;
        // SAFETY: only the lifetime is forgotten; the seat is emptied before it ends.
        let observer = unsafe { std::mem::transmute::<*mut Observer, *mut Observer<'static>>(observer) };
        // SAFETY: the seat is this context's; no call runs on it now.
        unsafe { self.seat.write(Some(observer)) };
        // SAFETY: every list of the batch has `n_tokens` entries and outlives the call.
        let code = unsafe { call(self.pointer(), batch) };
        // SAFETY: as above.
        unsafe { self.seat.write(None) };
        code
    }

    /// The logits of the `i`-th entry of the last batch, which had asked for them.
    pub(crate) fn logits(&self, i: usize) -> &[f32] {
        // SAFETY: the context is alive.
        let logits = unsafe { sys::llama_get_logits_ith(self.pointer(), i as i32) };
        assert!(!logits.is_null(), "no logits at {i}");
        // SAFETY: a row of the vocabulary's length, until the next decode, which takes the context mutably.
        unsafe { std::slice::from_raw_parts(logits, self.n_vocab) }
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: made by llama.cpp, freed once.
        unsafe { sys::llama_free(self.pointer()) };
        // SAFETY: leaked by `new`; the context that held it is gone.
        drop(unsafe { Box::from_raw(self.seat.as_ptr()) });
    }
}

type Call = unsafe extern "C" fn(*mut sys::llama_context, sys::llama_batch) -> i32;

unsafe extern "C" fn eval(tensor: *mut sys::ggml_tensor, ask: bool, user: *mut c_void) -> bool {
    // SAFETY: the context's seat, which `run` has filled for this call.
    let seat = unsafe { *user.cast::<Seat>() };
    match seat {
        // SAFETY: `run` holds the observer mutably and only lends it here.
        Some(observer) => unsafe { (*observer)(tensor, ask) },
        None => !ask,
    }
}

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
