//! What llama.cpp would die of is refused before it is asked, by name; what it runs, it gets.
#![cfg(feature = "engine")]

mod support;

use tiller::engine::{Engine, Generate, Options, requantize};
use tiller::file::gguf::{Array, GgmlType, Value};
use tiller::model::Model;
use tiller::{Error, Kind};

use support::tiny::{self, Tiny};

fn options() -> Options {
    Options { threads: 1, context: 64, batch: 32, ..Options::default() }
}

#[test]
fn every_tiny_model_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in tiny::NAMES {
        let path = Tiny::new(name).write(dir.path(), &format!("{name}.gguf"));
        if name == "bert" {
            Model::open(&path).and_then(|model| model.check_limits()).expect("an encoder within the limits");
            continue;
        }
        let mut engine = Engine::open(&path, &options()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let request = Generate { max_tokens: 3, ignore_end: true, ..Generate::default() };
        let made = engine.generate("on the area", &request, &mut |_| true).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(made.tokens().len(), 3, "{name}");
        println!("{name} {:?} {:?}", made.prompt(), made.text());
    }
}

fn open(tiny: &Tiny) -> Result<(), Error> {
    let dir = tempfile::tempdir().expect("a directory");
    Engine::open(&tiny.write(dir.path(), "m.gguf"), &options()).map(drop)
}

/// The error names the key or tensor, what was expected and found, and gives advice.
#[track_caller]
fn refused(tiny: &Tiny, expected: &str) {
    let error = open(tiny).expect_err(expected);
    assert_eq!(error.kind(), Kind::Format, "{error}");
    assert!(error.message().contains(expected), "{error}");
    assert!(error.message().contains("m.gguf") && error.hint().is_some(), "{error}");
    assert!(!error.message().contains("llama.cpp cannot"), "llama.cpp was asked: {error}");
}

fn llama(suffix: &str, value: impl Into<Value>) -> Tiny {
    Tiny::new("llama").with(&format!("llama.{suffix}"), value)
}

#[test]
fn keys_that_llama_cpp_asserts_on_or_divides_by_are_refused() {
    let key = |name: &str, what: &str| format!("key \"llama.{name}\": expected {what}");
    refused(&llama("block_count", 4096u32), &key("block_count", "a u32 from 1 to 512, found 4096"));
    refused(&llama("block_count", 2u64), &key("block_count", "a u32 from 1 to 512, found u64 2"));
    refused(&llama("context_length", 0u32), &key("context_length", "a u32 from 1 to 1073741824, found 0"));
    refused(&llama("attention.head_count", 0u32), &key("attention.head_count", "at least one head, found 0"));
    refused(&llama("attention.head_count", 5u32), "expected a divisor of the 5 heads, found 2");
    refused(&llama("attention.head_count_kv", 3u32), "expected a divisor of the 4 heads, found 3");
    let eps = "attention.layer_norm_rms_epsilon";
    refused(&llama(eps, -1f32), &key(eps, "a number from 0 to 1, found -1"));
    refused(&llama(eps, f32::NAN), &key(eps, "a number from 0 to 1, found NaN"));
    refused(&llama("rope.dimension_count", 0xbf80_0000u32), "found 3212836864");
    refused(&llama("rope.dimension_count", 8u32), "expected 16, the size of a head, found 8");
    let gemma = |n: u32| Tiny::new("gemma3").with("gemma3.rope.dimension_count", n);
    refused(&gemma(18), "expected an even number up to 16, the size of a head, found 18");
    refused(&gemma(3), "expected an even number up to 16, the size of a head, found 3");
    refused(&gemma(0), "expected a u32 from 2 to 65536, found 0");
    refused(&llama("rope.freq_base", 0f32), "expected a finite number above 0, found 0");
    refused(&llama("rope.scaling.factor", f32::INFINITY), "expected a finite number, found inf");
    refused(&llama("rope.scaling.type", "odd"), "expected one of none, linear, yarn, longrope, found \"odd\"");
    let window = Tiny::new("gemma3").with("gemma3.attention.sliding_window", 0xf067_65acu32);
    refused(&window, "key \"gemma3.attention.sliding_window\": expected a u32 from 0 to 16777216, found 4033308076");
    refused(&llama("expert_used_count", 2u32), "expected from 0 to 0, of 0 experts, found 2");
    let moe = |suffix: &str, n: u32| Tiny::new("qwen3moe").with(&format!("qwen3moe.{suffix}"), n);
    refused(&moe("expert_used_count", 5), "expected from 1 to 4, of 4 experts, found 5");
    refused(&moe("expert_group_count", 3), "expected a divisor of the 4 experts below their number, found 3");
    refused(&llama("pooling_type", 9u32), "expected a u32 from 0 to 4, found 9");
    refused(&Tiny::new("mamba").with("mamba.ssm.group_count", 0u32), "expected a u32 from 1 to 65536, found 0");
    refused(&Tiny::new("rwkv6").with("rwkv6.wkv.head_size", 0u32), "expected a u32 from 1 to 65536, found 0");
    refused(&Tiny::new("rwkv6").with("rwkv6.wkv.head_size", 24u32), "expected a divisor of embedding_length");
    refused(&Tiny::new("llama").with("general.alignment", 8u32), "expected a multiple of 32, found 8");
}

#[test]
fn vocabularies_that_llama_cpp_asserts_on_are_refused() {
    let vocabulary = |tokens: &[&str]| {
        let tiny = Tiny::new("gpt2").with("tokenizer.ggml.tokens", Array::strings(tokens).expect("tokens"));
        tiny.without("tokenizer.ggml.scores").without("tokenizer.ggml.token_type")
    };
    let mut twice = Tiny::new("gpt2");
    twice.set_token(261, "the");
    twice.set_token(7, "the");
    refused(&twice, "expected every token once, found \"the\" as 7 and as 261");
    refused(&vocabulary(&[]).without("tokenizer.ggml.tokens"), "expected an array of str with at least one token");
    let with = |name: &str, value: u32| Tiny::new("llama").with(&format!("tokenizer.ggml.{name}_token_id"), value);
    refused(&with("bos", 999_999), "expected a u32 from 0 to 273, or 4294967295 for none, found 999999");
    refused(&with("eos", 274), "found 274");
    open(&with("eos", u32::MAX)).expect("none is said so");
    let cut = Tiny::new("llama").with("tokenizer.ggml.scores", Array::numbers(&[0f32; 4]));
    refused(&cut, "expected at least 274 elements, as many as tokens, found 4");
    let kinds = Tiny::new("bert").with("tokenizer.ggml.token_type", Array::numbers(&[6i32; 200]));
    assert!(open(&kinds).is_err());
    let mut endless = Tiny::new("rwkv6");
    endless.set_token(98, "aa");
    refused(&endless, "expected each of the 256 bytes as a token, found none for byte 97");
    let mut deep = Tiny::new("llama-unigram");
    deep.set_token(20, &"x".repeat(70_000));
    refused(&deep, "expected tokens of at most 1024 bytes, found 70000 in token 20");
    for name in ["llama-unigram", "rwkv6"] {
        let mut long = Tiny::new(name);
        long.set_token(20, &"x".repeat(1024));
        if name == "rwkv6" {
            long.set_token(258, "\\x13");
        }
        open(&long).unwrap_or_else(|e| panic!("{name}: the stack of a thread is enough: {e}"));
    }
    refused(&Tiny::new("llama").with("tokenizer.ggml.model", "none"), "expected a tokenizer, found \"none\"");
    refused(&Tiny::new("bert").with("tokenizer.ggml.seperator_token_id", u32::MAX), "expected a token from 0 to");
}

#[test]
fn tensors_that_no_operation_reads_are_refused() {
    let typed = |name: &str, kind: GgmlType| {
        let mut tiny = Tiny::new("llama");
        let tensor = tiny.tensor(name);
        let rows = tensor.shape.iter().skip(1).product::<u64>() as usize;
        tensor.kind = kind.id();
        tensor.bytes = vec![0; rows * kind.row_bytes(tensor.shape[0] as usize).expect("whole blocks")];
        tiny
    };
    refused(&typed("output_norm.weight", GgmlType::I32), "\"output_norm.weight\": expected type F32, found i32");
    refused(&typed("output_norm.weight", GgmlType::F16), "\"output_norm.weight\": expected type F32, found f16");
    let product = "\"blk.0.attn_q.weight\": expected type F32, F16, BF16 or a quantized type";
    refused(&typed("blk.0.attn_q.weight", GgmlType::I32), product);
    refused(&typed("blk.0.attn_q.weight", GgmlType::F64), product);
    for kind in [GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0] {
        open(&typed("blk.0.attn_q.weight", kind)).expect("llama.cpp runs it");
    }
    let mut empty = Tiny::new("llama");
    empty.add("extra.weight", &[64, 0]);
    refused(&empty, "\"extra.weight\": expected no dimension of 0, found [64, 0]");
    let mut missing = Tiny::new("phi3");
    missing.tensors.retain(|t| t.name != "blk.1.attn_qkv.weight");
    refused(&missing, "expected a tensor \"blk.1.attn_qkv.weight\"");
}

#[test]
fn a_model_that_would_kill_is_not_requantized_either() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (dir.path().join("m.gguf"), dir.path().join("q.gguf"));
    Tiny::new("llama").write(dir.path(), "m.gguf");
    requantize(&from, &to, "Q8_0", 1).expect("a sound model");
    llama("block_count", 4096u32).write(dir.path(), "m.gguf");
    let error = requantize(&from, &to, "Q8_0", 1).expect_err("refused");
    assert!(error.message().contains("expected a u32 from 1 to 512, found 4096"), "{error}");
}

#[test]
fn models_that_people_run_pass() {
    for name in [support::SMOLLM, support::GEMMA] {
        let Some(path) = support::model(name) else { continue };
        Model::open(&path).and_then(|model| model.check_limits()).unwrap_or_else(|e| panic!("{e}"));
    }
}
