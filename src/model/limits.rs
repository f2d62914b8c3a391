//! What llama.cpp may be given: [`check`] refuses a model file on which it would abort, divide by zero, read or write
//! out of bounds, or ask for memory without end.
//!
//! llama.cpp trusts the keys of a file: it asserts on some, divides by others and sizes its buffers by the rest. What it
//! checks by itself (a missing tensor, a shape that contradicts the keys) is left to it. [`LIMITS`] holds the limits of
//! single keys, each with its reason; the functions below it hold what depends on several. The limits are wide: a model
//! that llama.cpp runs passes. Cost: the vocabulary is hashed once, 20 ms for 262,144 tokens.

use std::collections::HashMap;
use std::fmt::Display;

use super::no_model;
use crate::error::{Error, Result};
use crate::file::gguf::{Array, GgmlType, Gguf, Tensor, Value, ValueType};

/// What the values of some keys may be.
struct Limit {
    /// Keys without the architecture in front; those with a dot at the end stand for all that begin so.
    keys: &'static [&'static str],
    allowed: Allowed,
    /// Why no other value may reach llama.cpp.
    why: &'static str,
}

enum Allowed {
    /// A `u32` from the first to the second, or an array of such, one for each block.
    Count(u32, u32),
    /// An `f32` from the first to the second, or an array of such.
    Number(f32, f32),
    /// One of these strings.
    Text(&'static [&'static str]),
}

use Allowed::{Count, Number, Text};

/// Widths: sixteen times the widest there is. Products of two stay far below what 64 bits hold, and of a width and a
/// head count below 2^32.
const WIDTH: u32 = 1 << 20;
/// Heads, groups, ranks and sizes of states.
const PARTS: u32 = 1 << 16;
/// Positions: above any context that was trained, and with room to be added to and padded in 31 bits.
const POSITIONS: u32 = 1 << 30;
/// llama.cpp's `LLAMA_MAX_LAYERS`.
const BLOCKS: u32 = 512;
/// llama.cpp's `LLAMA_MAX_EXPERTS`.
const EXPERTS: u32 = 1024;
/// As many tokens as 16 of the largest vocabularies together.
const TOKENS: u32 = 1 << 22;
/// `rope.scaling.type` as llama.cpp knows it.
const ROPE_SCALING: &[&str] = &["none", "linear", "yarn", "longrope"];

/// The table: one row for each kind of key.
const LIMITS: &[Limit] = &[
    Limit {
        keys: &["block_count"],
        allowed: Count(1, BLOCKS),
        why: "llama.cpp keeps at most 512 blocks and asserts it",
    },
    Limit {
        keys: &["embedding_length", "embedding_length_out", "features_length"],
        allowed: Count(1, WIDTH),
        why: "buffers are sized by it",
    },
    Limit {
        keys: &["context_length"],
        allowed: Count(1, POSITIONS),
        why: "positions are counted in 31 bits, and a context of none cannot be made",
    },
    Limit {
        keys: &[
            "feed_forward_length",
            "expert_feed_forward_length",
            "expert_shared_feed_forward_length",
            "expert_chunk_feed_forward_length",
            "moe_latent_size",
            "expert_latent_length",
            "embedding_length_per_layer_input",
            "dense_2_feat_in",
            "dense_2_feat_out",
            "dense_3_feat_in",
            "dense_3_feat_out",
            "target_hidden_size",
            "posnet.embedding_length",
            "convnext.embedding_length",
        ],
        allowed: Count(0, WIDTH),
        why: "buffers are sized by it",
    },
    Limit {
        keys: &["attention.head_count", "attention.head_count_kv", "decision.head_count"],
        allowed: Count(0, PARTS),
        why: "a head has at least one number",
    },
    Limit {
        keys: &[
            "attention.key_length",
            "attention.value_length",
            "attention.key_length_swa",
            "attention.value_length_swa",
            "attention.key_length_mla",
            "attention.value_length_mla",
            "attention.key_length_mla_swa",
            "attention.value_length_mla_swa",
        ],
        allowed: Count(1, PARTS),
        why: "the cache of keys and values is sized by it",
    },
    Limit {
        keys: &[
            "attention.q_lora_rank",
            "attention.kv_lora_rank",
            "attention.kv_lora_rank_swa",
            "attention.decay_lora_rank",
            "attention.iclr_lora_rank",
            "attention.value_residual_mix_lora_rank",
            "attention.gate_lora_rank",
            "attention.output_lora_rank",
            "attention.indexer.head_count",
            "attention.indexer.key_length",
            "attention.output_group_count",
            "kda.head_dim",
            "shortconv.l_cache",
            "time_mix_extra_dim",
            "time_decay_extra_dim",
            "adapters.lora_rank",
            "selector_rank",
        ],
        allowed: Count(0, PARTS),
        why: "buffers are sized by it",
    },
    Limit {
        keys: &["ssm.conv_kernel", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count"],
        allowed: Count(1, PARTS),
        why: "llama.cpp divides by it and sizes the state by it",
    },
    Limit { keys: &["ssm.inner_size"], allowed: Count(1, WIDTH), why: "llama.cpp sizes the state by it" },
    Limit { keys: &["wkv.head_size"], allowed: Count(1, PARTS), why: "llama.cpp divides by it" },
    Limit { keys: &["token_shift_count"], allowed: Count(1, 2), why: "llama.cpp asserts it" },
    Limit {
        keys: &["attention.sliding_window"],
        allowed: Count(0, 1 << 24),
        why: "llama.cpp reserves memory for each position of the window",
    },
    Limit {
        keys: &["rope.scaling.original_context_length", "attention.temperature_length"],
        allowed: Count(0, POSITIONS),
        why: "positions are counted in 31 bits",
    },
    Limit {
        keys: &["rope.dimension_count", "rope.dimension_count_swa"],
        allowed: Count(0, PARTS),
        why: "llama.cpp rotates so many numbers of a head and reads out of bounds past its end",
    },
    Limit { keys: &["expert_count"], allowed: Count(0, EXPERTS), why: "llama.cpp asserts it" },
    Limit {
        keys: &[
            "expert_used_count",
            "expert_shared_count",
            "expert_group_count",
            "expert_group_used_count",
            "experts_per_group",
        ],
        allowed: Count(0, EXPERTS),
        why: "a model has at most 1024 experts",
    },
    Limit {
        keys: &["expert_gating_func"],
        allowed: Count(0, 4),
        why: "llama.cpp aborts on a function it does not know",
    },
    Limit {
        keys: &["interleave_moe_layer_step"],
        allowed: Count(0, BLOCKS),
        why: "llama.cpp divides the number of a block by it",
    },
    Limit {
        keys: &[
            "nextn_predict_layers",
            "leading_dense_block_count",
            "decoder_block_count",
            "moe_every_n_layers",
            "n_deepstack_layers",
            "full_attention_interval",
            "hash_layer_count",
            "attention.shared_kv_layers",
            "attn_res.block_size",
            "posnet.block_count",
            "convnext.block_count",
            "decision.block_count",
            "decision.routing_block_count",
            "hrm.layers_per_stack",
        ],
        allowed: Count(0, BLOCKS),
        why: "there are at most 512 blocks",
    },
    Limit {
        keys: &[
            "num_loops",
            "hrm.h_cycles",
            "hrm.l_cycles",
            "hyper_connection.count",
            "hyper_connection.sinkhorn_iterations",
        ],
        allowed: Count(0, 64),
        why: "the graph is built so often over, into a space of fixed size",
    },
    Limit {
        keys: &["pooling_type", "classifier.pooling_type"],
        allowed: Count(0, 4),
        why: "llama.cpp aborts on a kind of pooling it does not know",
    },
    Limit {
        keys: &["vocab_size"],
        allowed: Count(0, TOKENS),
        why: "llama.cpp makes so many tokens where the file lists none",
    },
    Limit { keys: &["tokenizer.ggml.token_type_count"], allowed: Count(0, TOKENS), why: "buffers are sized by it" },
    Limit { keys: &["attention.group_norm_groups"], allowed: Count(1, PARTS), why: "llama.cpp divides by it" },
    Limit {
        keys: &[
            "attention.layer_norm_epsilon",
            "attention.layer_norm_rms_epsilon",
            "attention.group_norm_epsilon",
            "hyper_connection.epsilon",
        ],
        allowed: Number(0.0, 1.0),
        why: "ggml asserts that it is not negative; it is added to a mean square",
    },
    Limit {
        keys: &["rope.freq_base", "rope.freq_base_swa", "attention.compress_rope_freq_base"],
        allowed: Number(f32::MIN_POSITIVE, f32::MAX),
        why: "every angle is a power of it",
    },
    Limit {
        keys: &["rope.scaling.type"],
        allowed: Text(ROPE_SCALING),
        why: "llama.cpp asserts that it knows the name",
    },
];

/// Keys whose infinity means "no limit".
const MAY_BE_INFINITE: &[&str] = &["kda.gate_lower_bound"];

/// Refuses `file` if llama.cpp would not survive it.
///
/// # Errors
/// [`Kind::Format`](crate::Kind::Format) naming the key or tensor, what was expected and what was found, with a hint.
pub fn check(file: &Gguf) -> Result<()> {
    let architecture = file.str("general.architecture")?;
    if let Some(what) = no_model(architecture) {
        let what = format_args!("expected a language model, found {what} (general.architecture = \"{architecture}\")");
        return Err(Error::format(file.path(), what));
    }
    let model = Checked { file, architecture };
    model.alignment()?;
    model.keys()?;
    let blocks = model.blocks()?;
    model.heads(blocks)?;
    model.experts(blocks)?;
    model.state()?;
    model.tokens()?;
    file.tensors().iter().try_for_each(|t| model.tensor(t))
}

const CORRUPT: &str = "the file is damaged or was edited; fetch or convert the model again";

/// A file under check.
struct Checked<'a> {
    file: &'a Gguf,
    architecture: &'a str,
}

impl Checked<'_> {
    fn error(&self, what: impl Display) -> Error {
        Error::format(self.file.path(), what).hinted(CORRUPT)
    }

    fn wrong(&self, key: &str, expected: impl Display, found: impl Display, why: &str) -> Error {
        let reason = if why.is_empty() { String::new() } else { format!(" ({why})") };
        self.error(format_args!("key \"{key}\": expected {expected}, found {found}{reason}"))
    }

    fn name(&self, suffix: &str) -> String {
        match suffix.starts_with("tokenizer.") {
            true => suffix.to_owned(),
            false => format!("{}.{suffix}", self.architecture),
        }
    }

    /// The mapped data must be aligned for ggml, which asserts it.
    fn alignment(&self) -> Result<()> {
        match self.file.alignment() {
            found if found.is_multiple_of(ALIGNMENT) => Ok(()),
            found => {
                let why = "ggml reads weights in place and asserts that they start so";
                Err(self.wrong("general.alignment", format_args!("a multiple of {ALIGNMENT}"), found, why))
            }
        }
    }

    /// Holds every key against [`LIMITS`]; other floating-point keys of the architecture must be finite.
    fn keys(&self) -> Result<()> {
        for limit in LIMITS {
            for suffix in limit.keys {
                let key = self.name(suffix);
                if let Some(value) = self.file.get(&key) {
                    self.key(&key, value, limit)?;
                }
            }
        }
        let own =
            |key: &str| key.strip_prefix(self.architecture).and_then(|rest| rest.strip_prefix('.')).map(str::to_owned);
        for (key, value) in self.file.keys() {
            let Some(suffix) = own(key) else { continue };
            if MAY_BE_INFINITE.contains(&suffix.as_str()) {
                continue;
            }
            if let Some(found) = numbers(value).into_iter().flatten().find(|v| !v.is_finite()) {
                let why = "all that the model computes would be infinite or no number";
                return Err(self.wrong(key, "a finite number", found, why));
            }
        }
        Ok(())
    }

    fn key(&self, key: &str, value: &Value, limit: &Limit) -> Result<()> {
        let why = limit.why;
        match limit.allowed {
            Count(least, most) => {
                let expected = format_args!("a u32 from {least} to {most}");
                let Some(found) = counts(value) else { return Err(self.wrong(key, expected, describe(value), why)) };
                match found.into_iter().find(|v| !(least..=most).contains(v)) {
                    Some(found) => Err(self.wrong(key, expected, found, why)),
                    None => Ok(()),
                }
            }
            Number(least, most) => {
                let Some(found) = numbers(value) else { return Err(self.wrong(key, "an f32", describe(value), why)) };
                match found.into_iter().find(|v| !(least..=most).contains(v)) {
                    // The smallest number above 0 would not be understood.
                    Some(found) if least > 0.0 => Err(self.wrong(key, "a finite number above 0", found, why)),
                    Some(found) => Err(self.wrong(key, format_args!("a number from {least} to {most}"), found, why)),
                    None => Ok(()),
                }
            }
            Text(known) => match value.as_str() {
                Some(found) if known.contains(&found) => Ok(()),
                _ => Err(self.wrong(key, format_args!("one of {}", known.join(", ")), describe(value), why)),
            },
        }
    }

    /// The values of a key for each block: a single one counts for all; none where the key is missing.
    fn per_block(&self, suffix: &str, blocks: usize) -> Vec<u32> {
        match self.file.get(&self.name(suffix)).and_then(|v| Some((v, counts(v)?))) {
            Some((Value::Array(_), values)) => values,
            Some((_, values)) => values.into_iter().cycle().take(blocks).collect(),
            None => Vec::new(),
        }
    }

    /// The value of a key, that of the first block if there are several.
    fn first(&self, suffix: &str) -> Option<u32> {
        self.file.get(&self.name(suffix)).and_then(|v| counts(v)?.first().copied())
    }

    fn blocks(&self) -> Result<usize> {
        let key = self.name("block_count");
        let blocks = match self.file.get(&key) {
            Some(Value::U32(n)) => *n,
            found => return Err(self.wrong(&key, "a u32", found.map_or("no such key".to_owned(), describe), "")),
        };
        for suffix in ["nextn_predict_layers", "decoder_block_count", "posnet.block_count", "convnext.block_count"] {
            let found = self.first(suffix).unwrap_or(0);
            // Blocks that predict further tokens cannot be all.
            if found > blocks || (found == blocks && suffix == "nextn_predict_layers") {
                let expected = format_args!("no more than block_count allows, which is {blocks}");
                return Err(self.wrong(&self.name(suffix), expected, found, "llama.cpp indexes the blocks by it"));
            }
        }
        Ok(usize::try_from(blocks).unwrap_or(0))
    }

    /// Heads share the width evenly, groups of heads share keys and values evenly, and rotations stay within a head.
    fn heads(&self, blocks: usize) -> Result<()> {
        let key = self.name("attention.head_count");
        let heads = self.per_block("attention.head_count", blocks);
        let shared = self.per_block("attention.head_count_kv", blocks);
        let states = ["ssm.state_size", "wkv.head_size"].iter().any(|suffix| self.first(suffix).is_some());
        if heads.iter().all(|&n| n == 0) && !states {
            let found = if heads.is_empty() { "no such key" } else { "0" };
            return Err(self.wrong(&key, "at least one head", found, "a model without a state of its own attends"));
        }
        if let Some((n, kv)) = heads.iter().zip(&shared).find(|(n, kv)| **kv > 0 && !n.is_multiple_of(**kv)) {
            let expected = format_args!("a divisor of the {n} heads");
            return Err(self.wrong(&self.name("attention.head_count_kv"), expected, kv, "ggml asserts it"));
        }
        let Some(&n) = heads.first().filter(|n| **n > 0) else { return Ok(()) };
        let width = self.first("embedding_length").unwrap_or(0);
        let length = self.first("attention.key_length");
        if length.is_none() && !width.is_multiple_of(n) {
            let expected = format_args!("a divisor of embedding_length, which is {width}");
            return Err(self.wrong(&key, expected, n, "each head has an equal part of the width"));
        }
        let size = length.unwrap_or(width.checked_div(n).unwrap_or(0));
        let swa = self.first("attention.key_length_swa").unwrap_or(size);
        for (suffix, size) in [("rope.dimension_count", size), ("rope.dimension_count_swa", swa)] {
            let Some(found) = self.first(suffix) else { continue };
            if found > size || !found.is_multiple_of(2) {
                let expected = format_args!("an even number up to {size}, the size of a head");
                let why = "ggml turns pairs of a head's numbers and asserts that they are there";
                return Err(self.wrong(&self.name(suffix), expected, found, why));
            }
        }
        self.sections(size)
    }

    /// How the numbers of a head are shared out to the axes of an image's position.
    fn sections(&self, size: u32) -> Result<()> {
        let key = self.name("rope.dimension_sections");
        let Some(value) = self.file.get(&key) else { return Ok(()) };
        let sum = counts(value).and_then(|all| all.into_iter().try_fold(0u32, u32::checked_add));
        match sum {
            Some(sum) if (1..=size).contains(&sum) => Ok(()),
            found => {
                let expected = format_args!("numbers of a sum from 1 to {size}, the size of a head");
                let found = found.map_or_else(|| describe(value), |sum| format!("a sum of {sum}"));
                Err(self.wrong(&key, expected, found, "ggml asserts it and divides by the sum"))
            }
        }
    }

    /// What llama.cpp asserts of experts.
    fn experts(&self, blocks: usize) -> Result<()> {
        let n = self.first("expert_count").unwrap_or(0);
        let used = self.per_block("expert_used_count", blocks).into_iter().max().unwrap_or(0);
        let groups = self.first("expert_group_count").unwrap_or(0);
        let (name, why) = (|suffix| self.name(suffix), "llama.cpp asserts it");
        if used > n || (n > 0 && used == 0) {
            let expected = format_args!("from {} to {n}, of {n} experts", n.min(1));
            return Err(self.wrong(&name("expert_used_count"), expected, used, why));
        }
        if groups > 0 && (groups >= n || !n.is_multiple_of(groups)) {
            let expected = format_args!("a divisor of the {n} experts below their number");
            return Err(self.wrong(&name("expert_group_count"), expected, groups, why));
        }
        let taken = self.first("expert_group_used_count").unwrap_or(0);
        if groups > 1 && !(1..groups).contains(&taken) {
            let expected = format_args!("from 1 to {}, of {groups} groups", groups - 1);
            return Err(self.wrong(&name("expert_group_used_count"), expected, taken, why));
        }
        Ok(())
    }

    /// Sizes of recurrent states: llama.cpp multiplies them in 32 bits, divides by some and asserts that it can.
    fn state(&self) -> Result<()> {
        let width = self.first("embedding_length").unwrap_or(0);
        if let Some(found) = self.first("wkv.head_size").filter(|n| !width.is_multiple_of(*n)) {
            let expected = format_args!("a divisor of embedding_length, which is {width}");
            return Err(self.wrong(&self.name("wkv.head_size"), expected, found, "each head has an equal part of it"));
        }
        let Some(inner) = self.first("ssm.inner_size") else { return Ok(()) };
        if let Some(found) = self.first("ssm.group_count").filter(|n| !inner.is_multiple_of(*n)) {
            let expected = format_args!("a divisor of ssm.inner_size, which is {inner}");
            return Err(self.wrong(&self.name("ssm.group_count"), expected, found, "llama.cpp asserts it"));
        }
        for suffix in ["ssm.state_size", "ssm.conv_kernel"] {
            if let Some(found) = self.first(suffix).filter(|n| n.checked_mul(inner).is_none_or(|n| n > i32::MAX as u32))
            {
                let expected = format_args!("a product with ssm.inner_size, {inner}, below 2^31");
                return Err(self.wrong(&self.name(suffix), expected, found, "llama.cpp multiplies them in 32 bits"));
            }
        }
        Ok(())
    }

    /// The vocabulary: every text once, a score and a type for each, special tokens that exist.
    fn tokens(&self) -> Result<()> {
        let tokenizer = self.file.str("tokenizer.ggml.model")?;
        if matches!(tokenizer, "none" | "no_vocab") {
            let why = "llama.cpp aborts when it is asked for a token of none";
            return Err(self.wrong("tokenizer.ggml.model", "a tokenizer", format_args!("\"{tokenizer}\""), why));
        }
        let tokens = self.list(TOKENS_KEY, &[ValueType::Str])?;
        let Some(tokens) = tokens.filter(|list| !list.is_empty()) else {
            return Err(self.wrong(TOKENS_KEY, "an array of str with at least one token", "none", ""));
        };
        let texts = self.unique(tokens)?;
        let n = tokens.len();
        let as_long = |key: &str, kinds: &[ValueType]| match self.list(key, kinds)? {
            Some(list) if list.len() < n => {
                let expected = format_args!("at least {n} elements, as many as tokens");
                Err(self.wrong(key, expected, list.len(), "llama.cpp reads one for each"))
            }
            list => Ok(list),
        };
        as_long("tokenizer.ggml.scores", &[ValueType::F32, ValueType::I32])?;
        let kinds = as_long("tokenizer.ggml.token_type", &[ValueType::I32])?;
        self.list("tokenizer.ggml.merges", &[ValueType::Str])?;
        self.list("tokenizer.ggml.precompiled_charsmap", &[ValueType::I8, ValueType::U8])?;
        self.byte_tokens(tokenizer, tokens, kinds)?;
        if tokenizer == "rwkv" {
            self.first_bytes(&texts)?;
        }
        self.special(tokenizer, n)
    }

    /// The array of `key`, which holds one of `kinds`.
    fn list(&self, key: &str, kinds: &[ValueType]) -> Result<Option<&Array>> {
        let Some(value) = self.file.get(key) else { return Ok(None) };
        match value.as_array() {
            Some(list) if kinds.contains(&list.kind()) => Ok(Some(list)),
            _ => {
                let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
                let expected = format_args!("an array of {}", names.join(" or "));
                Err(self.wrong(key, expected, describe(value), "llama.cpp reads nothing else"))
            }
        }
    }

    /// Where each text is in the vocabulary; llama.cpp asserts that none is there twice.
    fn unique<'t>(&self, tokens: &'t Array) -> Result<HashMap<&'t [u8], usize>> {
        let mut seen = HashMap::with_capacity(tokens.len());
        for i in 0..tokens.len() {
            let text = tokens.bytes(i).unwrap_or_default();
            // llama.cpp gives tokens without a text one of their own.
            if text.is_empty() {
                continue;
            }
            if let Some(first) = seen.insert(text, i) {
                let text = String::from_utf8_lossy(text);
                let what = format_args!(
                    "key \"{TOKENS_KEY}\": expected every token once, found {text:?} as {first} and as {i} (llama.cpp keeps tokens by their text and asserts it)"
                );
                let hint = format!("convert the model again with another text for token {i}, such as \"[UNUSED_{i}]\"");
                return Err(Error::format(self.file.path(), what).hinted(hint));
            }
        }
        Ok(seen)
    }

    /// llama.cpp reads the byte out of such a token's text, `<0x0A>`, and aborts where the tokenizer has no such tokens.
    fn byte_tokens(&self, tokenizer: &str, tokens: &Array, kinds: Option<&Array>) -> Result<()> {
        const BYTE: i32 = 6;
        let Some(kinds) = kinds.filter(|_| !matches!(tokenizer, "rwkv" | "plamo2")) else { return Ok(()) };
        let fits = |i: usize| tokenizer != "bert" && tokens.bytes(i).is_some_and(|text| text.len() > 3);
        match (0..tokens.len()).find(|&i| kinds.number::<i32>(i) == Some(BYTE) && !fits(i)) {
            None => Ok(()),
            Some(i) => {
                let text = String::from_utf8_lossy(tokens.bytes(i).unwrap_or_default());
                let found = format_args!("type {BYTE}, a byte, for token {i}, {text:?}");
                let why = "llama.cpp aborts or reads past its end";
                Err(self.wrong("tokenizer.ggml.token_type", "bytes spelt <0x0A>", found, why))
            }
        }
    }

    /// RWKV's tokenizer starts over for ever at a byte that begins a token and is none itself.
    fn first_bytes(&self, texts: &HashMap<&[u8], usize>) -> Result<()> {
        let escaped = |byte: u8| {
            let hex = format!("\\x{byte:02x}");
            let short = [(b'\n', "\\n"), (b'\r', "\\r"), (b'\t', "\\t"), (b'\\', "\\\\"), (b'\'', "\\'")];
            let short = short.iter().find(|(b, _)| *b == byte).map_or(hex.clone(), |(_, text)| (*text).to_owned());
            [vec![byte], hex.into_bytes(), short.into_bytes()]
        };
        match (0..=u8::MAX).find(|&byte| !escaped(byte).iter().any(|text| texts.contains_key(text.as_slice()))) {
            None => Ok(()),
            Some(byte) => {
                let why = "llama.cpp's tokenizer does not end without it";
                Err(self.wrong(
                    TOKENS_KEY,
                    "each of the 256 bytes as a token",
                    format_args!("none for byte {byte}"),
                    why,
                ))
            }
        }
    }

    /// Special tokens exist, and those that llama.cpp puts around a text are known to it.
    fn special(&self, tokenizer: &str, n: usize) -> Result<()> {
        let exists = |id: u32| usize::try_from(id).is_ok_and(|id| id < n);
        for (key, value) in self.file.keys() {
            if !key.starts_with("tokenizer.ggml.") || !key.ends_with("_token_id") {
                continue;
            }
            match value {
                // Files say "none" by the largest number.
                Value::U32(id) if exists(*id) || *id == u32::MAX => {}
                _ => {
                    let expected = format_args!("a u32 from 0 to {}, or {} for none", n.saturating_sub(1), u32::MAX);
                    let found = counts(value).and_then(|v| v.first().copied());
                    let found = found.map_or_else(|| describe(value), |id| id.to_string());
                    return Err(self.wrong(key, expected, found, "llama.cpp would take another token in its place"));
                }
            }
        }
        let flag = |name: &str| self.file.get(&format!("tokenizer.ggml.{name}")).and_then(Value::as_bool);
        let vocabulary = super::Vocabulary::read(self.file)?;
        let (bos, eos, sep) = match tokenizer {
            "llama" => (Some(1), Some(2), None),
            "bert" => (Some(101), None, Some(102)),
            "t5" => (None, Some(1), None),
            "plamo2" => (Some(1), Some(2), None),
            "gemma4" | "rwkv" => (None, None, None),
            _ => (Some(11), Some(11), None),
        };
        let bert = tokenizer == "bert";
        let put = [
            ("bos", bos, bert || vocabulary.add_bos()),
            ("eos", eos, flag("add_eos_token").unwrap_or(tokenizer == "t5")),
            ("seperator", sep, bert),
        ];
        for (name, default, put) in put {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let known = self.file.get(&key).and_then(counts).and_then(|v| v.first().copied()).filter(|&id| exists(id));
            if put && tokenizer != "rwkv" && known.or(default).is_none_or(|id| !exists(id)) {
                let found = self.file.get(&key).map_or_else(|| "no such key".to_owned(), describe);
                let why = "llama.cpp puts this token around every text and asserts that there is one";
                return Err(self.wrong(&key, format_args!("a token from 0 to {}", n.saturating_sub(1)), found, why));
            }
        }
        Ok(())
    }

    /// A tensor has elements, of a type that the operation which reads it has.
    fn tensor(&self, t: &Tensor) -> Result<()> {
        let name = &t.name;
        if t.shape.contains(&0) {
            let what =
                format_args!("tensor \"{name}\": expected no dimension of 0, found {:?} (ggml divides by it)", t.shape);
            return Err(self.error(what));
        }
        let (fits, expected) = match operation(name) {
            Operation::Elementwise => (t.kind == GgmlType::F32, "F32"),
            Operation::Lookup => (matches!(t.kind, GgmlType::I32 | GgmlType::I64), "I32 or I64"),
            Operation::Product => (multiplies(t.kind), "F32, F16, BF16 or a quantized type"),
        };
        match fits {
            true => Ok(()),
            false => Err(self.error(format_args!(
                "tensor \"{name}\": expected type {expected}, found {} (ggml has no operation for it there)",
                t.kind
            ))),
        }
    }
}

const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
/// What ggml asserts of weights that it reads where they lie.
const ALIGNMENT: usize = 32;

/// What llama.cpp does with a tensor, as its name says (`llm_tensor_info` in llama-arch.cpp).
enum Operation {
    /// A matrix, or rows that are looked up.
    Product,
    /// Added to rows, multiplied with them, or read number by number: F32 only.
    Elementwise,
    /// A table of numbers of tokens or experts.
    Lookup,
}

/// Parts of the names of tensors that are read element by element.
const ELEMENTWISE: &[&str] = &[
    "norm",
    "rope_freqs",
    "rope_factors",
    "ssm_conv1d",
    "shortconv.conv",
    "_lerp_",
    "time_mix_first",
    "time_mix_w0",
    "time_mix_a0",
    "time_mix_v0",
    "time_mix_k_k",
    "time_mix_k_a",
    "time_mix_r_k",
    "time_mix_ln",
    "attn_sinks",
    "exp_probs_b",
    "_scale.",
    "ffn_act",
];

fn operation(name: &str) -> Operation {
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    if ["tid2eid", "d2t", "token_ordering"].iter().any(|part| stem.ends_with(part)) {
        return Operation::Lookup;
    }
    // `ssm_alpha` and `ssm_dt` are matrices, and so are `time_mix_decay_w1` and `_w2`.
    let whole = ["ssm_a", "ssm_d", "time_mix_decay"].iter().any(|part| stem.ends_with(part));
    let suffix = name.ends_with(".bias") || name.ends_with(".scale");
    match whole || suffix || ELEMENTWISE.iter().any(|part| name.contains(part)) {
        true => Operation::Elementwise,
        false => Operation::Product,
    }
}

/// Whether ggml can multiply rows of this type and look them up. Others it would call through a NULL pointer.
fn multiplies(kind: GgmlType) -> bool {
    use GgmlType::{F64, I8, I16, I32, I64, Q8_1, Q8_K};
    !matches!(kind, I8 | I16 | I32 | I64 | F64 | Q8_1 | Q8_K)
}

/// The value as one or more counts; none if it is of another type.
fn counts(value: &Value) -> Option<Vec<u32>> {
    match value {
        Value::U32(v) => Some(vec![*v]),
        Value::Array(list) => match list.kind() {
            ValueType::U32 => list.to_vec::<u32>(),
            // Some converters write counts as signed numbers; a negative one is beyond every limit, as it is for llama.cpp.
            ValueType::I32 => Some(list.to_vec::<i32>()?.into_iter().map(|v| v as u32).collect()),
            ValueType::Bool => Some(list.raw().iter().map(|&b| u32::from(b)).collect()),
            _ => None,
        },
        _ => None,
    }
}

/// The value as one or more numbers; none if it is of another type.
fn numbers(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::F32(v) => Some(vec![*v]),
        Value::Array(list) => list.to_vec::<f32>(),
        _ => None,
    }
}

/// A value in words: its type, and what it is if that is short.
fn describe(value: &Value) -> String {
    let kind = value.describe();
    match value {
        Value::Array(list) => format!("{kind} of {} elements", list.len()),
        Value::Str(text) if text.len() < 64 => format!("{text:?}"),
        _ => match (value.as_int(), value.as_f64()) {
            (Some(v), _) => format!("{kind} {v}"),
            (_, Some(v)) => format!("{kind} {v}"),
            _ => kind.into_owned(),
        },
    }
}
