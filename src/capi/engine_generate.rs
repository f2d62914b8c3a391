use std::ffi::{CString, c_char, c_int, c_void};

use super::arguments::{Options, options, slice_mut, some, text, texts};
use super::engine::{tiller_engine, tiller_message, turns};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::text::c_string;
use crate::engine::{Engine, Generate, Generation, Stop};
use crate::error::{Error, Result};

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
/// context is full: open the engine with a larger one, 5 a verdict of the plan ended it.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_generation_stop(generation: Option<&tiller_generation>) -> u32 {
    match generation.and_then(|g| g.generation.stop()) {
        None => 0,
        Some(Stop::End) => 1,
        Some(Stop::Length) => 2,
        Some(Stop::Caller) => 3,
        Some(Stop::Context) => 4,
        Some(Stop::Verdict) => 5,
    }
}

/// Frees `generation`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_generation_free(generation: Option<Box<tiller_generation>>) {
    drop(generation);
}
