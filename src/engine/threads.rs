//! The threads that compute graphs.
//!
//! A context without threads of its own has ggml start and end them for every part of a graph, which takes some 40 µs
//! wherever the hook splits one. Kept threads wait a few milliseconds for the next part, or the next token, before they
//! sleep.

use std::ptr::NonNull;

use ggml_sys as sys;

use super::guard;
use crate::error::{Error, Result};

/// Threads that wait for graphs; at most one context computes with them at a time.
pub(super) struct Threads(NonNull<sys::ggml_threadpool>);

impl Threads {
    /// Starts them; the thread that computes is one of the `n`.
    pub(super) fn start(n: usize) -> Result<Self> {
        /// How long they wait awake, in steps of 131,072 pauses of the processor. Less than one step is not to be had.
        const POLL: u32 = 1;
        // SAFETY: plain defaults.
        let mut params = unsafe { sys::ggml_threadpool_params_default(1) };
        let most = params.cpumask.len();
        let number = i32::try_from(n).ok().filter(|_| (1..=most).contains(&n));
        params.n_threads = number.ok_or_else(|| Error::argument(format!("threads is {n}, expected 1 to {most}")))?;
        params.poll = POLL;
        // SAFETY: the parameters are read only. Where a thread does not start, the pool and those that did are leaked.
        guard::make(|| unsafe { guard::ggml_threadpool_new(&raw mut params) })
            .map(Self)
            .map_err(|fault| Error::unsupported(format!("ggml cannot start {n} threads: {fault}")))
    }

    /// Hands them to `context`, which must be freed before they are.
    pub(super) fn attach(&self, context: NonNull<sys::llama_context>) {
        // SAFETY: both live; NULL has batches computed by the same threads.
        unsafe { sys::llama_attach_threadpool(context.as_ptr(), self.0.as_ptr(), std::ptr::null_mut()) }
    }

    /// Has them sleep until the next graph.
    pub(super) fn rest(&self) {
        // SAFETY: no graph is computed now, as that needs the engine.
        unsafe { sys::ggml_threadpool_pause(self.0.as_ptr()) }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: made once and freed once; the context that used them is gone.
        unsafe { sys::ggml_threadpool_free(self.0.as_ptr()) }
    }
}
