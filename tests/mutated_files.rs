//! Valid files, damaged at thousands of seeded places: opening them and reading everything in them neither panics nor
//! takes more memory than a small multiple of the file.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use tiller::file::gguf::{Array, GgmlType, Gguf, Writer};
use tiller::file::safetensors::{self, Dtype};
use tiller::model::Model;

/// Counts what is allocated.
struct Counting;
static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time, so that the count is its own.
static ALONE: Mutex<()> = Mutex::new(());

/// What a reader may take for a file of some kilobytes.
const ALLOWED: usize = 2 << 20;
const ROUNDS: usize = 6000;

/// Numbers on which sizes and offsets break.
const EDGES: [u64; 12] = [0, 1, 2, 31, 33, 255, 65536, 1 << 31, u32::MAX as u64, 1 << 40, (1 << 63) - 1, u64::MAX];

fn damage(bytes: &[u8], rng: &mut Xoshiro256PlusPlus) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.random_range(1..=3) {
        if out.is_empty() {
            break;
        }
        let at = rng.random_range(0..out.len());
        match rng.random_range(0..6) {
            0 => out[at] = rng.random(),
            1 => out[at] ^= 1 << rng.random_range(0..8),
            2 => out.truncate(at),
            3 => {
                let edge = EDGES.choose(rng).unwrap().to_le_bytes();
                let n = (out.len() - at).min(8);
                out[at..at + n].copy_from_slice(&edge[..n]);
            }
            4 => {
                let piece: Vec<u8> = out[at..(at + rng.random_range(0..64)).min(out.len())].to_vec();
                let to = rng.random_range(0..=out.len());
                out.splice(to..to, piece);
            }
            _ => {
                let end = (at + rng.random_range(1..32)).min(out.len());
                out.drain(at..end);
            }
        }
    }
    out
}

/// Runs `read` on damaged copies of `valid`; returns how many it could open.
fn run(valid: &[u8], seed: u64, read: impl Fn(&Path) -> bool) -> usize {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut opened = 0;
    for round in 0..ROUNDS {
        // A new file each time: rewriting one makes some file systems flush it to the disk.
        let path = dir.path().join(format!("damaged-{round}"));
        let bytes = damage(valid, &mut rng);
        std::fs::write(&path, &bytes).unwrap();
        drop(bytes);
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        opened += usize::from(read(&path));
        let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
        std::fs::remove_file(&path).unwrap();
        assert!(peak <= ALLOWED, "round {round} of seed {seed}: {peak} bytes allocated");
    }
    opened
}

fn read_gguf(path: &Path) -> bool {
    let Ok(gguf) = Gguf::open(path) else { return false };
    for (key, value) in gguf.keys() {
        let _ = (gguf.opt_str(key), gguf.opt_u32(key), gguf.opt_f32(key), gguf.opt_bool(key), gguf.opt_usize(key));
        if let Some(array) = value.as_array() {
            for i in (0..array.len().min(50)).chain([array.len(), usize::MAX]) {
                let _ = (array.str(i), array.number::<i32>(i), array.number::<f32>(i));
            }
            let _ = (array.to_vec::<i32>(), array.to_vec::<u8>());
        }
    }
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        assert_eq!(data.len(), tensor.n_bytes, "a tensor of an open file has its data");
        for i in [0, 1, tensor.n_rows(), usize::MAX] {
            let mut row = vec![0f32; tensor.row_len().min(4096)];
            if let Some(bytes) = gguf.row(tensor, i) {
                let _ = tensor.kind.dequantize(bytes, &mut row);
            }
        }
    }
    if let Ok(model) = Model::from_gguf(gguf) {
        let _ = (model.name(), model.quantization(), model.output_norm(), model.fingerprint());
        let mut row = vec![0f32; model.d_model().min(4096)];
        for id in [-1, 0, 1, 7, i32::MAX] {
            let _ = (model.token_text(id), model.token_bytes(id), model.unembedding_row(id, &mut row));
        }
        let _ = model.vocabulary().decode(&[0, 1, 2, 3]);
    }
    true
}

fn tiny_model(path: &Path) {
    let mut w = Writer::new();
    w.set("general.architecture", "llama");
    w.set("llama.block_count", 2u32);
    w.set("llama.embedding_length", 32u32);
    w.set("llama.context_length", 64u32);
    w.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    w.set("tokenizer.ggml.model", "gpt2");
    w.set("tokenizer.ggml.tokens", Array::strings(["<s>", "Ġthe", "Ċ", "a", "b", "c", "d", "e"]).unwrap());
    w.set("tokenizer.ggml.token_type", Array::numbers(&[3i32, 1, 1, 1, 1, 1, 1, 6]));
    w.set("tokenizer.ggml.bos_token_id", 0u32);
    w.set("tokenizer.ggml.add_bos_token", true);
    w.tensor("token_embd.weight", &[32, 8], GgmlType::Q8_0, vec![1; 34 * 8]);
    w.tensor("output_norm.weight", &[32], GgmlType::F32, vec![0; 128]);
    w.tensor("blk.0.attn_norm.weight", &[32], GgmlType::F16, vec![0; 64]);
    w.tensor("blk.0.other.weight", &[32, 2, 2], GgmlType::Q4_1, vec![3; 80]);
    w.write(path).unwrap();
}

#[test]
fn damaged_gguf_files_neither_panic_nor_eat_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("valid.gguf");
    tiny_model(&path);
    assert!(read_gguf(&path) && Model::open(&path).is_ok());
    let opened = run(&std::fs::read(&path).unwrap(), 1, read_gguf);
    // Damage to names and data goes unseen, damage to the structure must not: both kinds were tried.
    assert!((ROUNDS / 50..ROUNDS / 2).contains(&opened), "{opened} of {ROUNDS} opened");
}

#[test]
fn damaged_safetensors_files_neither_panic_nor_eat_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("valid.safetensors");
    let mut w = safetensors::Writer::new();
    w.metadata("format", "pt");
    w.tensor("rows", Dtype::F16, &[7, 4], vec![1; 56]);
    w.tensor("tokens", Dtype::I32, &[7], vec![2; 28]);
    w.tensor("bias", Dtype::F32, &[3], vec![3; 12]);
    w.write(&path).unwrap();
    let read = |path: &Path| {
        let Ok(file) = safetensors::File::open(path) else { return false };
        for name in file.names() {
            let view = file.tensor(name).unwrap();
            let _ = (view.to_f32(), view.to_i64(), view.expect_shape(&[7, 4]));
        }
        true
    };
    assert!(read(&path));
    let opened = run(&std::fs::read(&path).unwrap(), 2, read);
    assert!((ROUNDS / 50..ROUNDS / 2).contains(&opened), "{opened} of {ROUNDS} opened");
}
