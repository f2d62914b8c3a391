//! Opening files and touching rows: a dictionary of 1 GB, a vocabulary of 262,144 strings, rows of several types.
#![allow(missing_docs)] // criterion_group! makes a function without any.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, criterion_group, criterion_main};
use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use tiller::file::gguf::{Array, GgmlType, Gguf, Writer};
use tiller::model::Model;

const D: usize = 2304;
const F: usize = 131_072;

/// A dictionary of 1.2 GB: the header is real, the matrices are a hole in the file.
fn dictionary(dir: &Path) -> PathBuf {
    let path = dir.join("dictionary.gguf");
    let mut w = Writer::new();
    w.set("general.architecture", "sae");
    w.tensor("enc.weight", &[D, 2], GgmlType::F16, vec![0; D * 2 * 2]);
    w.write(&path).unwrap();
    let matrix = (D * F * 2) as u64;
    let mut header = std::fs::read(&path).unwrap();
    let name = b"enc.weight";
    let at = header.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8;
    header[at..at + 8].copy_from_slice(&(2 * F as u64).to_le_bytes());
    std::fs::write(&path, &header).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(header.len() as u64 + 2 * matrix).unwrap();
    path
}

/// A model with a large vocabulary and next to no weights.
fn vocabulary(dir: &Path) -> PathBuf {
    let path = dir.join("vocabulary.gguf");
    let n = 262_144;
    let mut w = Writer::new();
    w.set("general.architecture", "gemma3");
    w.set("gemma3.block_count", 1u32);
    w.set("gemma3.embedding_length", 32u32);
    w.set("tokenizer.ggml.model", "llama");
    w.set("tokenizer.ggml.tokens", Array::strings((0..n).map(|i| format!("▁token{i}"))).unwrap());
    w.set("tokenizer.ggml.scores", Array::numbers(&vec![0f32; n]));
    w.set("tokenizer.ggml.token_type", Array::numbers(&vec![1i32; n]));
    w.tensor("token_embd.weight", &[32, n], GgmlType::Q8_0, vec![1; 34 * n]);
    w.write(&path).unwrap();
    path
}

fn open(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (dictionary, vocabulary) = (dictionary(dir.path()), vocabulary(dir.path()));
    c.bench_function("open/dictionary-1GB", |b| b.iter(|| Gguf::open(black_box(&dictionary)).unwrap()));
    c.bench_function("open/vocabulary-262144", |b| b.iter(|| Model::open(black_box(&vocabulary)).unwrap()));
    c.bench_function("fingerprint/vocabulary-262144", |b| {
        b.iter(|| Model::open(black_box(&vocabulary)).unwrap().fingerprint().len())
    });
    let gguf = Gguf::open(&dictionary).unwrap();
    gguf.map().advise_random();
    let tensor = gguf.tensor("enc.weight").unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut row = vec![0f32; D];
    c.bench_function("touch/row-anywhere", |b| {
        b.iter(|| {
            let bytes = gguf.row(tensor, rng.random_range(0..2 * F)).unwrap();
            tensor.kind.dequantize(bytes, &mut row).unwrap();
        });
    });
}

fn decode(c: &mut Criterion) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
    let n = 2304;
    for &kind in [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_K].iter() {
        if !kind.can_dequantize() {
            continue;
        }
        let size = kind.row_bytes(n).unwrap();
        // Rows start anywhere in a page, at any even address.
        let bytes: Vec<u8> = (0..size + 8192).map(|_| rng.random()).collect();
        let mut out = vec![0f32; n];
        c.bench_function(&format!("decode/{kind}-{n}"), |b| {
            b.iter(|| {
                let from = rng.random_range(0..4096) * 2;
                kind.dequantize(black_box(&bytes[from..from + size]), &mut out).unwrap();
            });
        });
    }
}

criterion_group!(benches, open, decode);
criterion_main!(benches);
