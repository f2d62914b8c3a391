use std::ffi::{CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::Arc;

use super::arguments::{Options, Report, choice, options, path, report, slice, slice_mut, some, text, texts};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::ledger::{finished, tiller_ledger, tiller_report};
use super::model::tiller_target;
use super::plan::{SITES, tiller_compiled};
use super::progress::{reporter, tiller_progress};
use super::text::{c_string, tiller_text};
use crate::activations::RowType;
use crate::engine::{self, Engine, Generate, Generation, Harvest, Message, Stop, documents};
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
unsafe fn turns(messages: *const tiller_message, n: usize) -> Result<Vec<Message>> {
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

/// How text is generated. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_generate {
    /// sizeof(tiller_generate).
    pub size: u32,
    /// Tokens to generate at most; 0 means 128.
    pub max_tokens: u32,
    /// 0 takes the likeliest token each time.
    pub temperature: f32,
    /// Keeps the likeliest tokens that hold this much of the probability; 0 means 1, which keeps all.
    pub top_p: f32,
    /// Seed of the sampler.
    pub seed: u32,
    /// 1 goes on when the model wants to end.
    pub ignore_end: u32,
    /// A conversation to answer, in place of the prompt, which is then NULL; borrowed for the call. Only the tags of the
    /// model's chat template are control tokens: their names in a message stay text.
    pub messages: *const tiller_message,
    /// How many messages; 0 for a prompt.
    pub n_messages: usize,
    /// Keeps the tokens that are at least this times as likely as the likeliest; 0 keeps all. Only with a temperature.
    pub min_p: f32,
    /// Logits of the last 64 generated tokens are divided by it (multiplied, where negative); 0 and 1 leave them. For
    /// conversations with small models 0.7, 0.95, 0.05 and 1.1 (temperature, top_p, min_p and this) do well.
    pub repeat_penalty: f32,
}

// SAFETY: `repr(C)`, a `u32` first; the pointer is read under the header's contract only.
unsafe impl Options for tiller_generate {
    const NAME: &'static str = "tiller_generate";
}

impl tiller_generate {
    fn options(&self) -> Generate {
        let default = Generate::default();
        Generate {
            max_tokens: if self.max_tokens == 0 { default.max_tokens } else { self.max_tokens as usize },
            temperature: self.temperature,
            top_p: if self.top_p == 0.0 { default.top_p } else { self.top_p },
            seed: self.seed,
            ignore_end: self.ignore_end != 0,
            min_p: self.min_p,
            repeat_penalty: if self.repeat_penalty == 0.0 { default.repeat_penalty } else { self.repeat_penalty },
        }
    }
}

/// The tokens of a prompt, or of the conversation that stands in its place.
///
/// # Safety
/// `prompt` is a C string or NULL; `given` holds `n_messages` messages of C strings.
unsafe fn asked(engine: &Engine, prompt: *const c_char, given: &tiller_generate) -> Result<Vec<i32>> {
    if given.n_messages == 0 {
        // SAFETY: the caller's contract.
        return engine.tokenize(unsafe { text(prompt, "prompt") }?, true);
    }
    if !prompt.is_null() {
        return Err(Error::argument("prompt: expected NULL beside messages, found a text"));
    }
    // SAFETY: the caller's contract.
    engine.chat_tokens(&unsafe { turns(given.messages, given.n_messages) }?, true)
}

/// Gets each piece of text as it comes; borrowed for this call. Return 0 to go on, anything else to end the generation.
pub type tiller_stream_fn = Option<unsafe extern "C" fn(user: *mut c_void, piece: *const c_char) -> c_int>;

/// A generated text.
///
/// Thread safety: one thread at a time.
pub struct tiller_generation {
    generation: Generation,
    text: CString,
}

impl From<Generation> for tiller_generation {
    fn from(generation: Generation) -> Self {
        Self { text: c_string(generation.text()), generation }
    }
}

/// Generates a continuation of `prompt`, in which the names of control tokens are read as these; or, where `given` holds
/// messages, an answer to them. `stream` may be NULL.
///
/// On success `*out` owns a new object; free it with tiller_generation_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_generate(
    engine: Option<&mut tiller_engine>,
    prompt: *const c_char,
    given: *const tiller_generate,
    stream: tiller_stream_fn,
    user: *mut c_void,
    out: Out<'_, tiller_generation>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires a struct whose `size` is set, or NULL.
        let given = unsafe { options(given) }?;
        let engine = &mut some(engine, "engine")?.0;
        // SAFETY: the header requires a C string, or messages of such.
        let prompt = unsafe { asked(engine, prompt, &given) }?;
        let mut on_text = |piece: &str| match stream {
            // SAFETY: the header requires a function that may be called with `user`.
            Some(call) => unsafe { call(user, c_string(piece).as_ptr()) == 0 },
            None => true,
        };
        engine.generate_tokens(&prompt, &given.options(), &mut on_text).map(tiller_generation::from)
    })
}

/// Generates a continuation of each of `n` prompts, as many side by side as the engine has sequences. Prompt number i
/// takes the seed plus i.
///
/// On success each of the `n` places of `out` owns a new object; free each with tiller_generation_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_generate_many(
    engine: Option<&mut tiller_engine>,
    prompts: *const *const c_char,
    n: usize,
    given: *const tiller_generate,
    out: *mut *mut tiller_generation,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n` C strings, and a struct whose `size` is set, or NULL.
        let (prompts, given) = unsafe { (texts(prompts, n, "prompts")?, options(given)?) };
        // SAFETY: the header requires `n` writable places.
        let out = unsafe { slice_mut(out, n, "out") }?;
        if given.n_messages > 0 {
            return Err(Error::argument("messages: expected none beside many prompts"));
        }
        let prompts: Vec<String> = prompts.into_iter().map(str::to_owned).collect();
        let made = some(engine, "engine")?.0.generate_many(&prompts, &given.options())?;
        for (place, generation) in out.iter_mut().zip(made) {
            *place = Box::into_raw(Box::new(tiller_generation::from(generation)));
        }
        Ok(())
    })
}

/// Reads `prompt`, or the messages in `given`, and gets ready to generate step by step. Any generation under way ends.
///
/// On success `*out` owns a new object; free it with tiller_generation_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_begin(
    engine: Option<&mut tiller_engine>,
    prompt: *const c_char,
    given: *const tiller_generate,
    out: Out<'_, tiller_generation>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires a struct whose `size` is set, or NULL.
        let given = unsafe { options(given) }?;
        let engine = &mut some(engine, "engine")?.0;
        // SAFETY: the header requires a C string, or messages of such.
        let prompt = unsafe { asked(engine, prompt, &given) }?;
        engine.begin_tokens(&prompt, &given.options()).map(tiller_generation::from)
    })
}

/// Generates one token; `*more` becomes false when the generation has ended (tiller_generation_stop() says why). The
/// plan may be changed between steps.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_engine_step(
    engine: Option<&mut tiller_engine>,
    generation: Option<&mut tiller_generation>,
    more: Option<&mut bool>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let (engine, generation) = (some(engine, "engine")?, some(generation, "generation")?);
        let more = some(more, "more")?;
        engine.0.step(&mut generation.generation)?;
        generation.text = c_string(generation.generation.text());
        *more = generation.generation.stop().is_none();
        Ok(())
    })
}

/// The text generated so far. Valid until the next step, or until `generation` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_generation_text(generation: Option<&tiller_generation>) -> *const c_char {
    generation.map_or(c"".as_ptr(), |g| g.text.as_ptr())
}

/// How many tokens were generated so far, without the end token.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_generation_n_tokens(generation: Option<&tiller_generation>) -> usize {
    generation.map_or(0, |g| g.generation.tokens().len())
}

/// The tokens generated so far. Valid until the next step, or until `generation` is freed.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_generation_tokens(generation: Option<&tiller_generation>) -> *const i32 {
    generation.map_or(std::ptr::null(), |g| g.generation.tokens().as_ptr())
}

/// How many tokens the prompt had.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_generation_n_prompt(generation: Option<&tiller_generation>) -> usize {
    generation.map_or(0, |g| g.generation.prompt().len())
}

/// Why it ended: 0 it goes on, 1 the model ended its answer, 2 `max_tokens` were generated, 3 you asked to stop, 4 the
/// context is full: open the engine with a larger one.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_generation_stop(generation: Option<&tiller_generation>) -> u32 {
    match generation.and_then(|g| g.generation.stop()) {
        None => 0,
        Some(Stop::End) => 1,
        Some(Stop::Length) => 2,
        Some(Stop::Caller) => 3,
        Some(Stop::Context) => 4,
    }
}

/// Frees `generation`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_generation_free(generation: Option<Box<tiller_generation>>) {
    drop(generation);
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

/// What is harvested. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_harvest {
    /// sizeof(tiller_harvest).
    pub size: u32,
    /// How many layers.
    pub n_layers: u32,
    /// Blocks whose rows are read. One layer goes to the directory itself, several to layer-L inside it.
    pub layers: *const u32,
    /// Stop after this many tokens; 0 takes all the text.
    pub max_tokens: u64,
    /// Longest window, in tokens; 0 means 512.
    pub window: u32,
    /// How rows are stored: 0 as 16-bit floats, 1 as 32-bit floats.
    pub dtype: u32,
    /// Rows a shard; 0 means 65,536.
    pub shard_rows: u32,
    /// 1 runs every graph to its end. To measure what stopping after the last wanted layer saves.
    pub without_early_stop: u32,
    /// The site of those blocks, as in tiller_point.
    pub site: u32,
    /// Always 0.
    pub reserved: u32,
    /// Another quantization of the running model, as whose rows these are marked; NULL marks them as what they are.
    pub counts_as: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first, numbers and pointers.
unsafe impl Options for tiller_harvest {
    const NAME: &'static str = "tiller_harvest";
}

impl tiller_harvest {
    /// # Safety
    /// `layers` holds `n_layers` numbers; `counts_as` is a C string or NULL.
    unsafe fn options(&self) -> Result<Harvest> {
        let default = Harvest::default();
        let or = |given: u32, default: usize| if given == 0 { default } else { given as usize };
        // SAFETY: the caller's contract.
        let layers = unsafe { slice(self.layers, self.n_layers as usize, "tiller_harvest.layers") }?;
        Ok(Harvest {
            layers: layers.iter().map(|&layer| layer as usize).collect(),
            dtype: choice(self.dtype, &[RowType::F16, RowType::F32], "tiller_harvest.dtype")?,
            window: or(self.window, default.window),
            max_tokens: self.max_tokens,
            shard_rows: or(self.shard_rows, default.shard_rows),
            early_stop: self.without_early_stop == 0,
            site: choice(self.site, &SITES, "tiller_harvest.site")?,
            counts_as: match self.counts_as.is_null() {
                true => None,
                // SAFETY: the caller's contract.
                false => Some(unsafe { path(self.counts_as, "tiller_harvest.counts_as") }?.to_owned()),
            },
        })
    }
}

/// Harvests text files into `directory`, for tiller_activations_open(). A .jsonl file holds one document a line, as
/// {"text": …} or {"messages": […]}; any other file is one document. What is there already, of the same text, model
/// and layers, is kept: a harvest that was cancelled goes on where it was. Progress counts tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_engine_harvest(
    engine: Option<&mut tiller_engine>,
    files: *const *const c_char,
    n_files: usize,
    directory: *const c_char,
    given: *const tiller_harvest,
    progress: Option<&tiller_progress>,
    n_rows: Option<&mut u64>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires `n_files` pointers.
        let files = unsafe { slice(files, n_files, "files") }?.iter();
        // SAFETY: the header requires C strings.
        let files = files.map(|&file| unsafe { path(file, "files") }.map(PathBuf::from)).collect::<Result<Vec<_>>>()?;
        // SAFETY: the header requires a C string, and a struct whose `size` is set, or NULL.
        let (directory, given) = unsafe { (path(directory, "directory")?, options(given)?) };
        // SAFETY: the header requires `n_layers` numbers, and a function that may be called with its `user`.
        let (options, mut progress) = unsafe { (given.options()?, reporter(progress)) };
        let text = documents(&files)?;
        let harvested = some(engine, "engine")?.0.harvest(&text, directory, &options, &mut progress)?;
        if let Some(out) = n_rows {
            *out = harvested.n_rows;
        }
        Ok(())
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
