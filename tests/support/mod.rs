//! What integration tests share.
#![allow(dead_code)] // Each test binary uses a part.

pub(crate) mod agree;
pub(crate) mod container;
pub(crate) mod cost;
pub(crate) mod memory;
pub(crate) mod mutate;
#[cfg(feature = "engine")]
#[allow(unused_imports)] // as above
pub(crate) mod raw;
pub(crate) mod tiny;

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

/// The models that tests run on; TILLER_TEST_MODELS names the directory that holds them.
pub(crate) const SMOLLM: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// As [`SMOLLM`].
pub(crate) const GEMMA: &str = "gemma-3-270m-q4_k_m.gguf";
/// As [`SMOLLM`].
pub(crate) const QWEN: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";

/// The path of a test model; none, with a line on stderr, where TILLER_TEST_MODELS is not set or lacks the file.
pub(crate) fn model(name: &str) -> Option<PathBuf> {
    let Some(dir) = std::env::var_os("TILLER_TEST_MODELS") else {
        eprintln!("SKIPPED: needs {name}; set TILLER_TEST_MODELS to the directory that holds it");
        return None;
    };
    let path = Path::new(&dir).join(name);
    if !path.is_file() {
        eprintln!("SKIPPED: {} does not exist", path.display());
        return None;
    }
    Some(path)
}

/// Threads of an engine in a test: one, so that a busy machine makes it slower, but not slower than its share. Of two that
/// wait for each other awake, many times at every layer, one stands still while the other's processor has other work.
pub(crate) const THREADS: usize = 1;

/// A test that runs a model holds this: as many do at once as the machine has processors, each with [`THREADS`].
pub(crate) fn turn() -> Turn {
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    while *running >= most {
        running = ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
    }
    *running += 1;
    Turn(())
}

/// See [`turn`].
pub(crate) struct Turn(());

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// Seconds of the processor that this thread had; none where the system doesn't tell.
pub(crate) fn busy() -> Option<f64> {
    // The system books a thread's time when it stops running, or else a few times in a hundredth of a second.
    std::thread::sleep(std::time::Duration::from_micros(50));
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split_whitespace().next()?.parse::<f64>().ok().map(|ns| ns / 1e9)
}

/// A GGUF file, written byte by byte, right or wrong.
#[derive(Clone, Default)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

/// GGUF's numbers for types of values.
pub(crate) const U8: u32 = 0;
pub(crate) const U32: u32 = 4;
pub(crate) const BOOL: u32 = 7;
pub(crate) const STR: u32 = 8;
pub(crate) const ARRAY: u32 = 9;

impl Raw {
    /// Magic, version 3, and the two counts.
    pub(crate) fn header(n_tensors: u64, n_keys: u64) -> Self {
        Self::default().bytes(b"GGUF").u32(3).u64(n_tensors).u64(n_keys)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u32(self, v: u32) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    pub(crate) fn u64(self, v: u64) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    pub(crate) fn str(self, s: &str) -> Self {
        self.u64(s.len() as u64).bytes(s.as_bytes())
    }

    /// A key and the type of its value.
    pub(crate) fn key(self, key: &str, kind: u32) -> Self {
        self.str(key).u32(kind)
    }

    /// A tensor's entry.
    pub(crate) fn tensor(self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        let start = self.str(name).u32(shape.len() as u32);
        shape.iter().fold(start, |raw, &d| raw.u64(d)).u32(kind).u64(offset)
    }

    /// Zeros up to the next multiple of 32, and `n` more bytes.
    pub(crate) fn data(mut self, n: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + n, 0);
        self
    }
}

/// The dictionary that ships.
pub(crate) fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/smollm2-135m-l19.gguf")
}
