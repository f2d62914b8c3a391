//! Where llama.cpp's failures stop: no exception of C++ and no failed assertion passes into the host.
//!
//! llama.cpp throws (`std::bad_alloc`, unknown keys, odd templates) and asserts (`GGML_ASSERT`). [`call`] runs it inside
//! a C++ `try` (guard.cpp) and returns either as a [`Fault`]. For assertions ggml's abort callback throws, on the thread
//! that is inside [`call`] only; it also keeps ggml from starting a debugger in the host. An exception passes through
//! ggml's frames of C, which have unwind tables on x86-64 and AArch64.
//!
//! Exceptions pass only through functions that are declared `C-unwind`. So llama.cpp's functions that can fail are
//! declared once more here and are called under these names alone: in one unit of code, a second declaration as plain `C`
//! would have LLVM take them for functions that never throw.
//!
//! An assertion that fails in the middle of a graph leaves ggml's other threads waiting awake for the one that left, until
//! the process ends.
//!
//! What still ends the process: an assertion that fails on one of ggml's own threads, in a destructor, or inside the
//! hook's callback; a signal such as SIGSEGV; and an allocation of Rust that fails.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Once;

use ggml_sys as sys;

use super::log;

unsafe extern "C-unwind" {
    pub(super) fn llama_model_load_from_file(
        path: *const c_char,
        params: sys::llama_model_params,
    ) -> *mut sys::llama_model;
    pub(super) fn llama_init_from_model(
        model: *mut sys::llama_model,
        params: sys::llama_context_params,
    ) -> *mut sys::llama_context;
    pub(super) fn llama_decode(context: *mut sys::llama_context, batch: sys::llama_batch) -> i32;
    pub(super) fn llama_get_logits_ith(context: *mut sys::llama_context, i: i32) -> *mut f32;
    pub(super) fn llama_memory_clear(memory: sys::llama_memory_t, data: bool);
    pub(super) fn llama_memory_seq_rm(memory: sys::llama_memory_t, sequence: i32, from: i32, to: i32) -> bool;
    pub(super) fn llama_set_adapter_cvec(
        context: *mut sys::llama_context,
        data: *const f32,
        len: usize,
        n_embd: i32,
        first: i32,
        last: i32,
    ) -> i32;
    pub(super) fn llama_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        len: i32,
        tokens: *mut i32,
        room: i32,
        add_special: bool,
        parse_special: bool,
    ) -> i32;
    pub(super) fn llama_token_to_piece(
        vocab: *const sys::llama_vocab,
        token: i32,
        bytes: *mut c_char,
        room: i32,
        strip: i32,
        special: bool,
    ) -> i32;
    pub(super) fn llama_chat_apply_template(
        template: *const c_char,
        turns: *const sys::llama_chat_message,
        n: usize,
        answer: bool,
        bytes: *mut c_char,
        room: i32,
    ) -> i32;
    pub(super) fn llama_sampler_chain_add(chain: *mut sys::llama_sampler, sampler: *mut sys::llama_sampler);
    pub(super) fn llama_sampler_sample(
        sampler: *mut sys::llama_sampler,
        context: *mut sys::llama_context,
        i: i32,
    ) -> i32;
    pub(super) fn llama_model_quantize(
        from: *const c_char,
        to: *const c_char,
        params: *const sys::llama_model_quantize_params,
    ) -> u32;
    pub(super) fn ggml_quantize_chunk(
        kind: sys::ggml_type,
        from: *const f32,
        to: *mut c_void,
        start: i64,
        rows: i64,
        width: i64,
        importance: *const f32,
    ) -> usize;
    pub(super) fn ggml_threadpool_new(params: *mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
}

unsafe extern "C" {
    fn tiller_guard_install();
    fn tiller_guarded(
        body: unsafe extern "C-unwind" fn(*mut c_void),
        user: *mut c_void,
        what: *mut c_char,
        size: usize,
    ) -> c_int;
}

/// How a call into llama.cpp ended that did not return.
#[derive(Debug)]
pub(super) struct Fault {
    /// An assertion failed: what the call worked on is in an unknown state.
    pub(super) assertion: bool,
    /// Why, in llama.cpp's words.
    pub(super) what: String,
}

/// Runs `body`, which calls llama.cpp and must neither panic nor hold what has to be dropped.
pub(super) fn call<R: Copy>(body: impl FnOnce() -> R) -> Result<R, Fault> {
    static INSTALLED: Once = Once::new();
    // SAFETY: puts a function that lives as long as the process in ggml's place for it.
    INSTALLED.call_once(|| unsafe { tiller_guard_install() });
    log::start();
    let mut state = State { body: Some(body), returned: None };
    let mut what = [0_u8; 1024];
    let user = (&raw mut state).cast();
    // SAFETY: `run` gets the state of its own type back, once; `what` has the room that is said.
    let fault = unsafe { tiller_guarded(run_of(&state), user, what.as_mut_ptr().cast(), what.len()) };
    match state.returned {
        Some(returned) if fault == 0 => Ok(returned),
        _ => {
            let text = what.split(|&byte| byte == 0).next().unwrap_or_default();
            Err(Fault { assertion: fault == 2, what: shorter(&String::from_utf8_lossy(text)) })
        }
    }
}

/// As [`call`], for a call that makes an object; NULL is a fault, whose reason llama.cpp has logged.
pub(super) fn make<T>(body: impl FnOnce() -> *mut T) -> Result<NonNull<T>, Fault> {
    NonNull::new(call(body)?).ok_or_else(Fault::logged)
}

impl Fault {
    /// A call that returned, but said that it failed.
    pub(super) fn logged() -> Self {
        Self { assertion: false, what: log::reason() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

struct State<B, R> {
    body: Option<B>,
    returned: Option<R>,
}

/// [`run`] for the types of a state, which has no names for them.
fn run_of<B: FnOnce() -> R, R>(_: &State<B, R>) -> unsafe extern "C-unwind" fn(*mut c_void) {
    run::<B, R>
}

unsafe extern "C-unwind" fn run<B: FnOnce() -> R, R>(user: *mut c_void) {
    // SAFETY: `call` passes its state, which nothing else holds during the call.
    let state = unsafe { &mut *user.cast::<State<B, R>>() };
    if let Some(body) = state.body.take() {
        state.returned = Some(body());
    }
}

/// An assertion's text starts with the path of the source file on the machine that built it; its name says enough.
fn shorter(text: &str) -> String {
    let (place, rest) = text.split_once(": ").unwrap_or(("", text));
    match place.rsplit_once(['/', '\\']) {
        Some((_, file)) if !rest.is_empty() => format!("{file}: {rest}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks ggml to pack a row from its second number on, on which it asserts, in C.
    fn assertion() -> Result<usize, Fault> {
        let (from, mut to) = ([0.5_f32; 64], [0_u8; 128]);
        let (from, to) = (from.as_ptr(), to.as_mut_ptr().cast());
        // SAFETY: room for more than a row; ggml looks at the start first.
        call(|| unsafe { ggml_quantize_chunk(sys::GGML_TYPE_Q8_0, from, to, 1, 1, 32, std::ptr::null()) })
    }

    /// Passes more turns than a vector of C++ may have.
    fn exception() -> Result<i32, Fault> {
        let (template, none) = (c"chatml".as_ptr(), std::ptr::null());
        // SAFETY: no turn is read, as there is no room for their addresses.
        call(|| unsafe { llama_chat_apply_template(template, none, usize::MAX, false, std::ptr::null_mut(), 0) })
    }

    #[test]
    fn what_llama_throws_and_asserts_comes_back() {
        for _ in 0..3 {
            let fault = assertion().unwrap_err();
            assert!(fault.assertion && fault.what.starts_with("ggml.c:"), "{fault:?}");
            assert!(fault.what.ends_with("GGML_ASSERT(start % type_traits[type].blck_size == 0) failed"), "{fault:?}");
            let fault = exception().unwrap_err();
            assert!(!fault.assertion && fault.what.contains("vector"), "{fault:?}");
            assert_eq!(call(|| 7).unwrap(), 7);
        }
        // The callback is the process's, what it throws the thread's.
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| assertion().unwrap_err().assertion)).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    }

    #[test]
    fn functions_that_can_fail_are_called_under_one_name() {
        let declared: Vec<&str> = include_str!("guard.rs")
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub(super) fn ")?.split('(').next())
            .filter(|name| name.starts_with("llama_") || name.starts_with("ggml_"))
            .collect();
        assert!(declared.len() > 10, "{declared:?}");
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine");
        for file in std::fs::read_dir(sources).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for name in &declared {
                assert!(!text.contains(&format!("sys::{name}(")), "{}: sys::{name}", path.display());
            }
        }
    }

    #[test]
    fn a_place_is_shortened_to_its_file() {
        assert_eq!(shorter("/a/b/ggml.c:12: GGML_ASSERT(x) failed"), "ggml.c:12: GGML_ASSERT(x) failed");
        assert_eq!(shorter("key not found: /a/b"), "key not found: /a/b");
        assert_eq!(shorter("out of memory"), "out of memory");
    }
}
