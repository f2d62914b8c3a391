//! Models of random weights and two blocks, half a megabyte each, made in milliseconds: llama.cpp runs them as it runs
//! real ones. A [`Tiny`] can be changed in any way before it is written, also into what no valid file holds.

use std::path::{Path, PathBuf};

use tiller::file::gguf::{Array, Value, ValueType};

/// Every model that [`Tiny::new`] makes: an architecture of llama.cpp, or one with experts or another tokenizer.
pub(crate) const NAMES: [&str; 11] =
    ["llama", "llama-moe", "llama-unigram", "gpt2", "qwen2", "gemma3", "phi3", "mamba", "rwkv6", "qwen3moe", "bert"];

/// Width of the residual stream.
pub(crate) const D: u64 = 64;
/// Blocks.
pub(crate) const BLOCKS: u32 = 2;
/// Positions that a model was trained with.
pub(crate) const CONTEXT: u32 = 128;
const HEADS: u32 = 4;
const HEADS_KV: u32 = 2;
const FF: u64 = 128;
const EXPERTS: u64 = 4;

/// A key as the file holds it.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    /// GGUF's number for the type; for an array, [`super::ARRAY`].
    pub(crate) kind: u32,
    /// The value as the file holds it.
    pub(crate) bytes: Vec<u8>,
}

/// A tensor as the file holds it.
#[derive(Clone)]
pub(crate) struct Weight {
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    /// GGUF's number for the type.
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
    /// Where its data is, counted from the first; none for the place behind that of the tensor before.
    pub(crate) offset: Option<u64>,
}

/// A model that is not written yet.
#[derive(Clone, Default)]
pub(crate) struct Tiny {
    pub(crate) keys: Vec<Key>,
    pub(crate) tensors: Vec<Weight>,
    seed: u64,
}

impl Tiny {
    /// The model called `name`, one of [`NAMES`]; always the same one.
    pub(crate) fn new(name: &str) -> Self {
        let mut tiny = Self { seed: 1, ..Self::default() };
        let arch = name.split('-').next().expect("a name");
        tiny.set("general.architecture", arch);
        // Not the name: llama.cpp expects tokens of its own where one says "phi3".
        tiny.set("general.name", "tiny");
        let key = |suffix: &str| format!("{arch}.{suffix}");
        tiny.set(&key("context_length"), CONTEXT);
        tiny.set(&key("embedding_length"), D as u32);
        tiny.set(&key("block_count"), BLOCKS);
        tiny.set(&key("feed_forward_length"), FF as u32);
        let layer_norm = matches!(arch, "gpt2" | "bert" | "rwkv6");
        tiny.set(
            &key(if layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" }),
            1e-5f32,
        );
        if !matches!(arch, "mamba" | "rwkv6") {
            tiny.set(&key("attention.head_count"), HEADS);
            tiny.set(&key("attention.head_count_kv"), if grouped(arch) { HEADS_KV } else { HEADS });
        }
        if matches!(arch, "llama" | "qwen2" | "gemma3" | "phi3" | "qwen3moe") {
            tiny.set(&key("rope.dimension_count"), D as u32 / HEADS);
            tiny.set(&key("rope.freq_base"), 10_000f32);
        }
        match name {
            "gemma3" => {
                tiny.set("gemma3.attention.key_length", D as u32 / HEADS);
                tiny.set("gemma3.attention.value_length", D as u32 / HEADS);
                tiny.set("gemma3.attention.sliding_window", 32u32);
            }
            "mamba" => {
                tiny.set("mamba.ssm.conv_kernel", 4u32);
                tiny.set("mamba.ssm.inner_size", 2 * D as u32);
                tiny.set("mamba.ssm.state_size", 16u32);
                tiny.set("mamba.ssm.time_step_rank", 4u32);
            }
            "rwkv6" => {
                tiny.set("rwkv6.wkv.head_size", 32u32);
                tiny.set("rwkv6.time_mix_extra_dim", 8u32);
                tiny.set("rwkv6.time_decay_extra_dim", 8u32);
                tiny.set("rwkv6.rescale_every_n_layers", 1u32);
            }
            "bert" => {
                tiny.set("bert.attention.causal", false);
                tiny.set("bert.pooling_type", 1u32);
                tiny.set("tokenizer.ggml.token_type_count", 2u32);
            }
            "llama-moe" | "qwen3moe" => {
                tiny.set(&key("expert_count"), EXPERTS as u32);
                tiny.set(&key("expert_used_count"), 2u32);
                if arch == "qwen3moe" {
                    tiny.set("qwen3moe.expert_feed_forward_length", FF as u32);
                }
            }
            _ => {}
        }
        match name {
            "llama-unigram" => tiny.unigram(),
            "rwkv6" => tiny.bytes_only(),
            "bert" => tiny.word_pieces(),
            _ if matches!(arch, "llama" | "gemma3" | "phi3") => tiny.sentence_piece(),
            _ => tiny.byte_pairs(if arch == "gpt2" { "gpt-2" } else { "qwen2" }),
        }
        tiny.weights(name, arch);
        tiny
    }

    /// Sets `key`; a second time, the new value takes the old one's place.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        let new = Key { name: key.to_owned(), kind: value.kind() as u32, bytes: payload(&value) };
        match self.keys.iter_mut().find(|k| k.name == key) {
            Some(old) => *old = new,
            None => self.keys.push(new),
        }
    }

    /// The same model with `key` set to `value`.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// The same model without `key`.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.keys.retain(|k| k.name != key);
        self
    }

    /// The tensor called `name`.
    pub(crate) fn tensor(&mut self, name: &str) -> &mut Weight {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Adds a tensor of random numbers in F32, zeros for biases and ones for norms.
    pub(crate) fn add(&mut self, name: &str, shape: &[u64]) {
        let n = shape.iter().product::<u64>();
        let scale = (shape.first().copied().unwrap_or(1) as f32).recip().sqrt();
        let fixed = match name {
            _ if name.ends_with(".bias") => Some(0.0),
            _ if name.contains("norm") || name.ends_with("_ln.weight") || name.ends_with("ssm_d") => Some(1.0),
            _ if name.ends_with("ssm_a") => Some(-1.0),
            _ => None,
        };
        let values: Vec<f32> = (0..n).map(|_| fixed.unwrap_or_else(|| self.uniform() * scale)).collect();
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.push(Weight { name: name.to_owned(), shape: shape.to_vec(), kind: 0, bytes, offset: None });
    }

    /// From −√3 to √3: of variance 1.
    fn uniform(&mut self) -> f32 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.seed >> 40) as f32 / (1 << 24) as f32 - 0.5) * 12f32.sqrt()
    }

    /// Bytes in the file in front of the tensors' data.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut raw = super::Raw::header(self.tensors.len() as u64, self.keys.len() as u64);
        for key in &self.keys {
            raw = raw.key(&key.name, key.kind).bytes(&key.bytes);
        }
        let mut next = 0;
        for t in &self.tensors {
            raw = raw.tensor(&t.name, &t.shape, t.kind, t.offset.unwrap_or(next));
            next += (t.bytes.len() as u64).next_multiple_of(32);
        }
        raw.data(0).0
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        for t in &self.tensors {
            out.extend_from_slice(&t.bytes);
            out.resize(out.len().next_multiple_of(32), 0);
        }
        out
    }

    /// Writes the file to `dir`/`name`.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, self.bytes()).expect("a tiny model");
        path
    }

    /// Gives token `id` another text.
    pub(crate) fn set_token(&mut self, id: usize, text: &str) {
        let key = self.keys.iter_mut().find(|k| k.name == "tokenizer.ggml.tokens").expect("tokens");
        let length =
            |bytes: &[u8], at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("a length")) as usize;
        let at = (0..id).fold(12, |at, _| at + 8 + length(&key.bytes, at));
        let end = at + 8 + length(&key.bytes, at);
        key.bytes.splice(at..end, super::Raw::default().str(text).0);
    }

    fn vocabulary(&mut self, model: &str, tokens: &[(String, f32, i32)]) -> u32 {
        self.set("tokenizer.ggml.model", model);
        self.set("tokenizer.ggml.tokens", Array::strings(tokens.iter().map(|t| &t.0)).expect("tokens"));
        self.set("tokenizer.ggml.scores", Array::numbers(&tokens.iter().map(|t| t.1).collect::<Vec<_>>()));
        self.set("tokenizer.ggml.token_type", Array::numbers(&tokens.iter().map(|t| t.2).collect::<Vec<_>>()));
        tokens.len() as u32
    }

    fn sentence_piece(&mut self) {
        let mut tokens = vec![("<unk>".to_owned(), 0.0, 2), ("<s>".to_owned(), 0.0, 3), ("</s>".to_owned(), 0.0, 3)];
        tokens.extend((0..=255).map(|b| (format!("<0x{b:02X}>"), 0.0, 6)));
        let pieces = PIECES.iter().chain(&["t", "h", "e", "o", "n", "a"]);
        tokens.extend(pieces.enumerate().map(|(i, p)| (p.replace(' ', "▁"), -(i as f32), 1)));
        tokens.push(("▁".to_owned(), -99.0, 1));
        self.vocabulary("llama", &tokens);
        self.set("tokenizer.ggml.bos_token_id", 1u32);
        self.set("tokenizer.ggml.eos_token_id", 2u32);
        self.set("tokenizer.ggml.unknown_token_id", 0u32);
        self.set("tokenizer.ggml.add_bos_token", true);
    }

    fn unigram(&mut self) {
        let mut tokens = vec![("<pad>".to_owned(), 0.0, 3), ("</s>".to_owned(), 0.0, 3), ("<unk>".to_owned(), 0.0, 2)];
        let letters = (b'!'..=b'~').map(|b| char::from(b).to_string());
        tokens.extend(PIECES.iter().map(|p| p.replace(' ', "▁")).chain(letters).map(|p| (p, -3.0, 1)));
        tokens.push(("▁".to_owned(), -4.0, 1));
        self.vocabulary("t5", &tokens);
        self.set("tokenizer.ggml.eos_token_id", 1u32);
        self.set("tokenizer.ggml.unknown_token_id", 2u32);
        self.set("tokenizer.ggml.padding_token_id", 0u32);
        self.set("tokenizer.ggml.add_space_prefix", true);
        self.set("tokenizer.ggml.remove_extra_whitespaces", true);
        // A table of 256 entries that lead nowhere, and one empty replacement.
        let map: Vec<u8> = 1024u32.to_le_bytes().into_iter().chain([0; 1025]).collect();
        self.set("tokenizer.ggml.precompiled_charsmap", Array::numbers(&map));
    }

    fn byte_pairs(&mut self, pre: &str) {
        // GPT-2's map: bytes that print stand for themselves, the others for letters from 256 on.
        let prints = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..);
        let mut others = 255u32;
        let mut letter = |b: u8| {
            if prints(b) {
                char::from(b)
            } else {
                others += 1;
                char::from_u32(others).expect("a letter")
            }
        };
        let mut tokens: Vec<_> = (0..=255).map(|b| (letter(b).to_string(), 0.0, 1)).collect();
        let merges = ["Ġ t", "h e", "Ġt he", "i n", "Ġ a", "o n", "r e"];
        tokens.extend(merges.iter().map(|m| (m.replace(' ', ""), 0.0, 1)));
        tokens.push(("<|endoftext|>".to_owned(), 0.0, 3));
        let n = self.vocabulary("gpt2", &tokens);
        self.set("tokenizer.ggml.pre", pre);
        self.set("tokenizer.ggml.merges", Array::strings(merges).expect("merges"));
        self.set("tokenizer.ggml.bos_token_id", n - 1);
        self.set("tokenizer.ggml.eos_token_id", n - 1);
    }

    fn bytes_only(&mut self) {
        let mut tokens = vec![("<s>".to_owned(), 0.0, 3)];
        tokens.extend((0..=255u8).map(|b| match b {
            b' '..=b'[' | b']'..=b'~' => (char::from(b).to_string(), 0.0, 1),
            _ => (format!("\\x{b:02x}"), 0.0, 1),
        }));
        tokens.extend(PIECES.iter().map(|p| ((*p).to_owned(), 0.0, 1)));
        self.vocabulary("rwkv", &tokens);
        self.set("tokenizer.ggml.bos_token_id", 0u32);
        self.set("tokenizer.ggml.eos_token_id", 0u32);
    }

    fn word_pieces(&mut self) {
        let marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let mut tokens: Vec<_> = marks.iter().map(|m| ((*m).to_owned(), 0.0, 3)).collect();
        tokens
            .extend((b'!'..=b'~').filter(|b| !b.is_ascii_uppercase()).map(|b| (format!("▁{}", char::from(b)), 0.0, 1)));
        tokens.extend((b'a'..=b'z').map(|b| (char::from(b).to_string(), 0.0, 1)));
        self.vocabulary("bert", &tokens);
        for (name, id) in [("padding", 0), ("unknown", 1), ("bos", 2), ("seperator", 3), ("mask", 4)] {
            self.set(&format!("tokenizer.ggml.{name}_token_id"), id as u32);
        }
    }

    fn weights(&mut self, name: &str, arch: &str) {
        let tokens = self.keys.iter().find(|k| k.name == "tokenizer.ggml.tokens").expect("tokens");
        let n_vocab = u64::from_le_bytes(*tokens.bytes[4..].first_chunk().expect("a length"));
        self.add("token_embd.weight", &[D, n_vocab]);
        match arch {
            "gpt2" => self.add("position_embd.weight", &[D, u64::from(CONTEXT)]),
            "bert" => {
                self.add("position_embd.weight", &[D, u64::from(CONTEXT)]);
                self.add("token_types.weight", &[D, 2]);
            }
            _ => {}
        }
        if matches!(arch, "bert" | "rwkv6") {
            self.norm("token_embd_norm", true);
        }
        if arch != "bert" {
            self.norm("output_norm", matches!(arch, "gpt2" | "rwkv6"));
        }
        if !matches!(arch, "gpt2" | "bert" | "gemma3" | "mamba") {
            self.add("output.weight", &[D, n_vocab]);
        }
        for block in 0..BLOCKS {
            let at = |suffix: &str| format!("blk.{block}.{suffix}");
            match arch {
                "mamba" => self.mamba(&at),
                "rwkv6" => self.rwkv6(&at),
                _ => self.transformer(name, arch, &at),
            }
        }
    }

    fn norm(&mut self, name: &str, bias: bool) {
        self.add(&format!("{name}.weight"), &[D]);
        if bias {
            self.add(&format!("{name}.bias"), &[D]);
        }
    }

    fn linear(&mut self, name: &str, shape: &[u64], bias: bool) {
        self.add(&format!("{name}.weight"), shape);
        if bias {
            self.add(&format!("{name}.bias"), &shape[1..]);
        }
    }

    fn transformer(&mut self, name: &str, arch: &str, at: &dyn Fn(&str) -> String) {
        let old = matches!(arch, "gpt2" | "bert");
        let kv = if grouped(arch) { D * u64::from(HEADS_KV) / u64::from(HEADS) } else { D };
        match arch {
            "gpt2" => self.linear(&at("attn_qkv"), &[D, 3 * D], true),
            "phi3" => self.linear(&at("attn_qkv"), &[D, D + 2 * kv], false),
            _ => {
                let bias = matches!(arch, "qwen2" | "bert");
                self.linear(&at("attn_q"), &[D, D], bias);
                self.linear(&at("attn_k"), &[D, kv], bias);
                self.linear(&at("attn_v"), &[D, kv], bias);
            }
        }
        self.linear(&at("attn_output"), &[D, D], old);
        if matches!(arch, "gemma3" | "qwen3moe") {
            for norm in ["attn_q_norm.weight", "attn_k_norm.weight"] {
                self.add(&at(norm), &[D / u64::from(HEADS)]);
            }
        }
        if arch == "gemma3" {
            self.norm(&at("post_attention_norm"), false);
            self.norm(&at("post_ffw_norm"), false);
        }
        match arch {
            "bert" => {
                self.norm(&at("attn_output_norm"), true);
                self.norm(&at("layer_output_norm"), true);
            }
            _ => {
                self.norm(&at("attn_norm"), old);
                self.norm(&at("ffn_norm"), old);
            }
        }
        if matches!(name, "llama-moe" | "qwen3moe") {
            self.add(&at("ffn_gate_inp.weight"), &[D, EXPERTS]);
            self.add(&at("ffn_gate_exps.weight"), &[D, FF, EXPERTS]);
            self.add(&at("ffn_up_exps.weight"), &[D, FF, EXPERTS]);
            self.add(&at("ffn_down_exps.weight"), &[FF, D, EXPERTS]);
            return;
        }
        match arch {
            "gpt2" | "bert" => self.linear(&at("ffn_up"), &[D, FF], true),
            "phi3" => self.linear(&at("ffn_up"), &[D, 2 * FF], false),
            _ => {
                self.linear(&at("ffn_gate"), &[D, FF], false);
                self.linear(&at("ffn_up"), &[D, FF], false);
            }
        }
        self.linear(&at("ffn_down"), &[FF, D], old);
    }

    fn mamba(&mut self, at: &dyn Fn(&str) -> String) {
        self.norm(&at("attn_norm"), false);
        self.add(&at("ssm_in.weight"), &[D, 4 * D]);
        self.add(&at("ssm_conv1d.weight"), &[4, 2 * D]);
        self.add(&at("ssm_conv1d.bias"), &[2 * D]);
        self.add(&at("ssm_x.weight"), &[2 * D, 4 + 2 * 16]);
        self.add(&at("ssm_dt.weight"), &[4, 2 * D]);
        self.add(&at("ssm_dt.bias"), &[2 * D]);
        self.add(&at("ssm_a"), &[16, 2 * D]);
        self.add(&at("ssm_d"), &[2 * D]);
        self.add(&at("ssm_out.weight"), &[2 * D, D]);
    }

    fn rwkv6(&mut self, at: &dyn Fn(&str) -> String) {
        self.norm(&at("attn_norm"), true);
        self.norm(&at("attn_norm_2"), true);
        self.add(&at("time_mix_w1.weight"), &[D, 8 * 5]);
        self.add(&at("time_mix_w2.weight"), &[8, D, 5]);
        self.add(&at("time_mix_lerp_x.weight"), &[D, 1, 1]);
        self.add(&at("time_mix_lerp_fused.weight"), &[D, 1, 1, 5]);
        self.add(&at("time_mix_first.weight"), &[32, D / 32]);
        self.add(&at("time_mix_decay.weight"), &[D]);
        self.add(&at("time_mix_decay_w1.weight"), &[D, 8]);
        self.add(&at("time_mix_decay_w2.weight"), &[8, D]);
        for part in ["key", "value", "receptance", "gate", "output"] {
            self.add(&at(&format!("time_mix_{part}.weight")), &[D, D]);
        }
        self.norm(&at("time_mix_ln"), true);
        self.add(&at("channel_mix_lerp_k.weight"), &[D, 1, 1]);
        self.add(&at("channel_mix_lerp_r.weight"), &[D, 1, 1]);
        self.add(&at("channel_mix_key.weight"), &[D, FF]);
        self.add(&at("channel_mix_value.weight"), &[FF, D]);
        self.add(&at("channel_mix_receptance.weight"), &[D, D]);
    }
}

/// Whether its heads share keys and values.
fn grouped(arch: &str) -> bool {
    !matches!(arch, "gpt2" | "bert")
}

/// Pieces of words for vocabularies that have such.
const PIECES: [&str; 8] = [" the", " a", "he", "in", "on", " t", "er", "re"];

/// A value as a file holds it, behind its type.
fn payload(value: &Value) -> Vec<u8> {
    match value {
        Value::U8(v) => v.to_le_bytes().to_vec(),
        Value::I8(v) => v.to_le_bytes().to_vec(),
        Value::U16(v) => v.to_le_bytes().to_vec(),
        Value::I16(v) => v.to_le_bytes().to_vec(),
        Value::U32(v) => v.to_le_bytes().to_vec(),
        Value::I32(v) => v.to_le_bytes().to_vec(),
        Value::U64(v) => v.to_le_bytes().to_vec(),
        Value::I64(v) => v.to_le_bytes().to_vec(),
        Value::F32(v) => v.to_le_bytes().to_vec(),
        Value::F64(v) => v.to_le_bytes().to_vec(),
        Value::Bool(v) => vec![u8::from(*v)],
        Value::Str(v) => super::Raw::default().str(v).0,
        Value::Array(v) => {
            debug_assert_ne!(v.kind(), ValueType::Array);
            super::Raw::default().u32(v.kind() as u32).u64(v.len() as u64).bytes(v.raw()).0
        }
    }
}
