use std::ffi::{CString, c_char};
use std::sync::Arc;

use super::arguments::{Options, Report, options, path, report, slice, slice_mut, some, text};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::ledger::{finished, tiller_ledger, tiller_report};
use super::model::tiller_target;
use super::plan::tiller_compiled;
use super::text::{c_string, tiller_text};
use crate::engine::{self, Engine, Message};
use crate::error::{Error, Result};

/// How a model is opened and run. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_engine_options {
    /// sizeof(tiller_engine_options).
    pub size: u32,
    /// Threads for computing; 0 takes as many as there are processors for this process, and more are not started.
    pub threads: u32,
    /// Tokens that the context holds, over all sequences; 0 takes what the model was trained with, at most 4,096.
    pub context: u32,
    /// Tokens computed at once when text is read; 0 means 512. No less than there are sequences.
    pub batch: u32,
    /// Sequences that may run side by side; 0 means 1. No more than the context has tokens.
    pub sequences: u32,
    /// Layers that go to a GPU, if this build has one.
    pub gpu_layers: u32,
    /// 1 leaves the hook out: then nothing can be steered through the callback or harvested. To measure its cost.
    pub without_hook: u32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_engine_options {
    const NAME: &'static str = "tiller_engine_options";
}

/// A model that this library runs by its own llama.cpp, with the lever attached.
///
/// Its life: tiller_engine_open(); tiller_engine_set_plan() as often as you like, also during a generation;
/// tiller_engine_generate(); tiller_engine_free().
///
/// Thread safety: one thread at a time; it may move between threads.
pub struct tiller_engine(pub(super) Engine, CString);

/// Opens a GGUF model; of a model in several files, the first.
///
/// On success `*out` owns a new engine; free it with tiller_engine_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_open(
    file: *const c_char,
    given: *const tiller_engine_options,
    out: Out<'_, tiller_engine>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires a C string, and a struct whose `size` is set, or NULL.
        let (file, options) = unsafe { (path(file, "file")?, engine_options(given)?) };
        let engine = Engine::open(file, &options)?;
        let architecture = c_string(&engine.target().architecture);
        Ok(tiller_engine(engine, architecture))
    })
}

/// How a model is run, with defaults.
///
/// # Safety
/// As [`options`].
pub(super) unsafe fn engine_options(given: *const tiller_engine_options) -> Result<engine::Options> {
    // SAFETY: the caller's contract.
    let given = unsafe { options(given) }?;
    let default = engine::Options::default();
    let or = |given: u32, default: usize| if given == 0 { default } else { given as usize };
    Ok(engine::Options {
        threads: or(given.threads, default.threads),
        context: or(given.context, default.context),
        batch: or(given.batch, default.batch),
        sequences: or(given.sequences, default.sequences),
        gpu_layers: or(given.gpu_layers, default.gpu_layers),
        hook: given.without_hook == 0,
    })
}

/// Number of blocks. 0 if `engine` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_engine_n_layer(engine: Option<&tiller_engine>) -> usize {
    engine.map_or(0, |e| e.0.n_layer())
}

/// Width of the residual stream. 0 if `engine` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_engine_d_model(engine: Option<&tiller_engine>) -> usize {
    engine.map_or(0, |e| e.0.d_model())
}

/// What a plan for it is compiled against, for tiller_plan_compile(). `out->architecture` is valid until `engine` is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_target(
    engine: Option<&tiller_engine>,
    out: *mut tiller_target,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let tiller_engine(engine, architecture) = some(engine, "engine")?;
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, tiller_target::new(engine.n_layer(), engine.d_model(), architecture)) }
    })
}

/// Number of tokens of the vocabulary. 0 if `engine` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_engine_n_vocab(engine: Option<&tiller_engine>) -> usize {
    engine.map_or(0, |e| e.0.n_vocab())
}

/// Tokens of `string`. `special` puts the model's BOS in front, if it wants one and `string` does not begin with it, and
/// reads the names of control tokens as these: for texts that you wrote or trust.
///
/// Writes up to `n_tokens` tokens and how many there are to `*n`. If there are more than fit, the call fails with
/// TILLER_E_ARGUMENT, but `*n` is written: call again with room for them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_tokenize(
    engine: Option<&tiller_engine>,
    string: *const c_char,
    special: bool,
    tokens: *mut i32,
    n_tokens: usize,
    n: Option<&mut usize>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires a C string, and `n_tokens` writable numbers.
        let (string, room) = unsafe { (text(string, "string")?, slice_mut(tokens, n_tokens, "tokens")?) };
        let found = some(engine, "engine")?.0.tokenize(string, special)?;
        *some(n, "n")? = found.len();
        let room = room.get_mut(..found.len());
        let room =
            room.ok_or_else(|| Error::argument(format!("tokens holds {n_tokens}; the text has {}", found.len())))?;
        room.copy_from_slice(&found);
        Ok(())
    })
}

/// The text of `n_tokens` tokens; what is no UTF-8 becomes U+FFFD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_detokenize(
    engine: Option<&tiller_engine>,
    tokens: *const i32,
    n_tokens: usize,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_tokens` numbers.
        let tokens = unsafe { slice(tokens, n_tokens, "tokens") }?;
        Ok(tiller_text::from(some(engine, "engine")?.0.detokenize(tokens).as_str()))
    })
}

/// One turn of a conversation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_message {
    /// "system", "user" or "assistant".
    pub role: *const c_char,
    /// What was said.
    pub content: *const c_char,
}

/// The conversation as the model's own chat template writes it; `answer` adds the opening of the assistant's turn.
///
/// For people to read, and for messages that you wrote: as a prompt, the names of control tokens in a message would be read
/// as control tokens. To have what others wrote answered, give the messages to tiller_engine_generate() in its options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_chat(
    engine: Option<&tiller_engine>,
    messages: *const tiller_message,
    n_messages: usize,
    answer: bool,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_messages` structs of C strings.
        let turns = unsafe { turns(messages, n_messages) }?;
        Ok(tiller_text::from(some(engine, "engine")?.0.chat(&turns, answer)?.as_str()))
    })
}

/// The turns of a conversation.
///
/// # Safety
/// `messages` holds `n` structs, whose members are C strings.
pub(super) unsafe fn turns(messages: *const tiller_message, n: usize) -> Result<Vec<Message>> {
    // SAFETY: the caller's contract.
    let messages = unsafe { slice(messages, n, "messages") }?;
    let turn = |(i, m): (usize, &tiller_message)| {
        // SAFETY: the caller's contract.
        let (role, content) = unsafe {
            (text(m.role, &format!("messages[{i}].role"))?, text(m.content, &format!("messages[{i}].content"))?)
        };
        Ok(Message { role: role.into(), content: content.into() })
    };
    messages.iter().enumerate().map(turn).collect()
}

/// Steers by `compiled` from the next token on, in place of any plan before; NULL stops steering. The model is not
/// reloaded. Keeps its own reference.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_engine_set_plan(
    engine: Option<&mut tiller_engine>,
    compiled: Option<&tiller_compiled>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || some(engine, "engine")?.0.set_plan(compiled.map(|c| Arc::clone(&c.plan))))
}

/// What the hook saw and did since the last call: fills `out`, if it is not NULL, whatever went wrong. TILLER_OK if nothing
/// did, else the first fault. tiller_engine_ledger() tells all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_finish(
    engine: Option<&mut tiller_engine>,
    out: *mut tiller_report,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let engine = some(engine, "engine")?;
        // SAFETY: the header requires a struct whose `size` is set, or NULL.
        unsafe { finished(out, || Ok(engine.0.finish())) }
    })
}

/// As tiller_engine_finish(), with what each rule did and every fault.
///
/// On success `*out` owns a new ledger; free it with tiller_ledger_free().
#[unsafe(no_mangle)]
pub extern "C" fn tiller_engine_ledger(
    engine: Option<&mut tiller_engine>,
    out: Out<'_, tiller_ledger>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || Ok(some(engine, "engine")?.0.finish().into()))
}

/// Has the engine's threads sleep at once. They do so by themselves some milliseconds after a decode, and the next one wakes
/// them; for programs that compute with something else in between.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_engine_rest(engine: Option<&mut tiller_engine>, err: ErrorOut<'_>) -> tiller_status {
    guard(err, || {
        some(engine, "engine")?.0.rest();
        Ok(())
    })
}

/// How likely a text was.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_score {
    /// Set it to sizeof(tiller_score) before the call.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Tokens scored.
    pub n_tokens: u64,
    /// Sum of their negative log-likelihoods, in nats.
    pub nll: f64,
    /// exp(nll / n_tokens).
    pub perplexity: f64,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_score {
    const NAME: &'static str = "tiller_score";
}

impl From<engine::Score> for tiller_score {
    fn from(score: engine::Score) -> Self {
        let (n_tokens, perplexity) = (score.n_tokens as u64, score.perplexity());
        Self { size: 0, reserved: 0, n_tokens, nll: score.nll, perplexity }
    }
}

/// Perplexity of `string`, read in windows of at most `window` tokens (0: the whole context). The plan in force applies.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_perplexity(
    engine: Option<&mut tiller_engine>,
    string: *const c_char,
    window: usize,
    out: *mut tiller_score,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires a C string.
        let string = unsafe { text(string, "string") }?;
        let score = some(engine, "engine")?.0.perplexity(string, window)?;
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, score.into()) }
    })
}

/// Scores tokens[from..n_tokens], each given those in front of it; `from` is at least 1. The plan in force applies.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_score(
    engine: Option<&mut tiller_engine>,
    tokens: *const i32,
    n_tokens: usize,
    from: usize,
    out: *mut tiller_score,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n_tokens` numbers.
        let tokens = unsafe { slice(tokens, n_tokens, "tokens") }?;
        let score = some(engine, "engine")?.0.score(tokens, from)?;
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, score.into()) }
    })
}

/// Frees `engine`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_engine_free(engine: Option<Box<tiller_engine>>) {
    drop(engine);
}

/// Writes the model `from` to `to` with other weights; `kind` is llama.cpp's name, such as "Q8_0" or "Q4_K_M".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_requantize(
    from: *const c_char,
    to: *const c_char,
    kind: *const c_char,
    threads: u32,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires C strings.
        let (from, to, kind) = unsafe { (path(from, "from")?, path(to, "to")?, text(kind, "kind")?) };
        engine::requantize(from, to, kind, threads as usize)
    })
}
