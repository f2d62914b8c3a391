//! A context on a model, and the batches that it decodes.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::{NonNull, null_mut};

use ggml_sys as sys;

use super::Model;

/// What sees the nodes of a graph: `(node, ask)`, as ggml's eval callback.
pub(crate) type Observer<'a> = dyn FnMut(*mut sys::ggml_tensor, bool) -> bool + 'a;

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
    /// A row in place of a token's embedding, as images come.
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
        let observer: *mut Observer = observer;
        // SAFETY: only the lifetime is forgotten; the seat is emptied before it ends.
        let observer = unsafe { std::mem::transmute::<*mut Observer, *mut Observer<'static>>(observer) };
        // SAFETY: the seat is this context's; no call runs on it now.
        unsafe { self.seat.write(Some(observer)) };
        let is_row = |entry: &Entry| matches!(entry.input, Input::Row(_));
        let code = match (entries.iter().any(is_row), entries.iter().all(is_row)) {
            (true, false) => self.mixed(entries),
            (rows, _) => self.uniform(entries, rows, call),
        };
        // SAFETY: as above.
        unsafe { self.seat.write(None) };
        code
    }

    /// A batch of tokens, or of rows.
    fn uniform(&mut self, entries: &[Entry], rows: bool, call: Call) -> i32 {
        let (mut tokens, mut embeddings) = (Vec::new(), Vec::new());
        for entry in entries {
            match &entry.input {
                Input::Token(token) => tokens.push(*token),
                Input::Row(row) => embeddings.extend_from_slice(row),
            }
        }
        assert!(!rows || embeddings.len() == entries.len() * self.n_embd);
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
        // SAFETY: every list of the batch has `n_tokens` entries and outlives the call.
        unsafe { call(self.pointer(), batch) }
    }

    /// A batch of tokens and rows.
    fn mixed(&mut self, entries: &[Entry]) -> i32 {
        // SAFETY: the context is alive.
        let batch = unsafe { sys::llama_batch_ext_init(self.pointer()) };
        for entry in entries {
            let (&first, more) = entry.sequences.split_first().expect("a sequence");
            let at = match &entry.input {
                // SAFETY: the batch was made above.
                Input::Token(token) => unsafe { sys::llama_batch_ext_add_token(batch, first, *token) },
                Input::Row(row) => {
                    let row = sys::llama_embd { data: row.as_ptr(), n_rows: 1, n_embd: row.len() };
                    // SAFETY: as above; the row outlives the batch.
                    unsafe { sys::llama_batch_ext_add_embd(batch, first, row) }
                }
            };
            assert!(at >= 0, "{at}");
            for &sequence in more {
                // SAFETY: as above.
                assert!(unsafe { sys::llama_batch_ext_add_seq(batch, at, sequence) });
            }
            let position = [entry.position, entry.position, entry.position, 0];
            // SAFETY: as above; as many sections as any model reads.
            assert!(unsafe { sys::llama_batch_ext_set_pos(batch, at, position.as_ptr()) });
            // SAFETY: as above.
            assert!(unsafe { sys::llama_batch_ext_set_output_logits(batch, at, entry.logits) });
        }
        // SAFETY: as above.
        let code = unsafe { sys::llama_process(self.pointer(), sys::LLAMA_PROCESS_TYPE_DECODE, batch) };
        // SAFETY: made above, freed once.
        unsafe { sys::llama_batch_ext_free(batch) };
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
