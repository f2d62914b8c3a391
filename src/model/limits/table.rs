//! The limits of single keys, each with its reason. Sizes are bounded where llama.cpp multiplies or allocates by them,
//! far above what any model has; the rest is what llama.cpp asserts.

/// What the values of some keys may be.
pub(super) struct Limit {
    /// Keys without the architecture in front, with spaces between them.
    pub(super) keys: &'static str,
    pub(super) allowed: Allowed,
    /// Why no other value may reach llama.cpp.
    pub(super) why: &'static str,
}

pub(super) enum Allowed {
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
pub(super) const LIMITS: &[Limit] = &[
    Limit { keys: "block_count", allowed: Count(1, BLOCKS), why: "llama.cpp keeps at most 512 blocks and asserts it" },
    Limit {
        keys: "embedding_length embedding_length_out features_length",
        allowed: Count(1, WIDTH),
        why: "buffers are sized by it",
    },
    Limit {
        keys: "context_length",
        allowed: Count(1, POSITIONS),
        why: "positions are counted in 31 bits, and a context of none cannot be made",
    },
    Limit {
        keys: "feed_forward_length expert_feed_forward_length expert_shared_feed_forward_length \
            expert_chunk_feed_forward_length moe_latent_size expert_latent_length \
            embedding_length_per_layer_input dense_2_feat_in dense_2_feat_out dense_3_feat_in \
            dense_3_feat_out target_hidden_size posnet.embedding_length convnext.embedding_length",
        allowed: Count(0, WIDTH),
        why: "buffers are sized by it",
    },
    Limit {
        keys: "attention.head_count attention.head_count_kv decision.head_count",
        allowed: Count(0, PARTS),
        why: "a head has at least one number",
    },
    Limit {
        keys: "attention.key_length attention.value_length attention.key_length_swa \
            attention.value_length_swa attention.key_length_mla attention.value_length_mla \
            attention.key_length_mla_swa attention.value_length_mla_swa",
        allowed: Count(1, PARTS),
        why: "the cache of keys and values is sized by it",
    },
    Limit {
        keys: "attention.q_lora_rank attention.kv_lora_rank attention.kv_lora_rank_swa \
            attention.decay_lora_rank attention.iclr_lora_rank attention.value_residual_mix_lora_rank \
            attention.gate_lora_rank attention.output_lora_rank attention.indexer.head_count \
            attention.indexer.key_length kda.head_dim shortconv.l_cache \
            time_mix_extra_dim time_decay_extra_dim adapters.lora_rank selector_rank",
        allowed: Count(0, PARTS),
        why: "buffers are sized by it",
    },
    Limit {
        keys: "ssm.conv_kernel ssm.state_size ssm.time_step_rank ssm.group_count",
        allowed: Count(1, PARTS),
        why: "llama.cpp divides by it and sizes the state by it",
    },
    Limit { keys: "ssm.inner_size", allowed: Count(1, WIDTH), why: "llama.cpp sizes the state by it" },
    Limit { keys: "token_shift_count", allowed: Count(1, 2), why: "llama.cpp asserts it" },
    Limit {
        keys: "attention.sliding_window",
        allowed: Count(0, 1 << 24),
        why: "llama.cpp reserves memory for each position of the window",
    },
    Limit {
        keys: "rope.scaling.original_context_length attention.temperature_length",
        allowed: Count(0, POSITIONS),
        why: "positions are counted in 31 bits",
    },
    Limit {
        keys: "rope.dimension_count rope.dimension_count_swa",
        allowed: Count(2, PARTS),
        why: "ggml turns so many numbers of a head: it does not end on none, and reads past the end of a head",
    },
    Limit { keys: "expert_count", allowed: Count(0, EXPERTS), why: "llama.cpp asserts it" },
    Limit {
        keys: "expert_used_count expert_shared_count expert_group_count expert_group_used_count",
        allowed: Count(0, EXPERTS),
        why: "a model has at most 1024 experts",
    },
    Limit { keys: "expert_gating_func", allowed: Count(0, 4), why: "llama.cpp aborts on a function it does not know" },
    Limit {
        keys: "interleave_moe_layer_step",
        allowed: Count(0, BLOCKS),
        why: "llama.cpp divides the number of a block by it",
    },
    Limit {
        keys: "nextn_predict_layers leading_dense_block_count decoder_block_count moe_every_n_layers \
            n_deepstack_layers full_attention_interval hash_layer_count attention.shared_kv_layers \
            attn_res.block_size posnet.block_count convnext.block_count decision.block_count \
            decision.routing_block_count hrm.layers_per_stack",
        allowed: Count(0, BLOCKS),
        why: "there are at most 512 blocks",
    },
    Limit {
        keys: "num_loops hrm.h_cycles hrm.l_cycles hyper_connection.count \
            hyper_connection.sinkhorn_iterations",
        allowed: Count(0, 64),
        why: "the graph is built so often over, into a space of fixed size",
    },
    Limit {
        keys: "pooling_type classifier.pooling_type",
        allowed: Count(0, 4),
        why: "llama.cpp aborts on a kind of pooling it does not know",
    },
    Limit {
        keys: "vocab_size",
        allowed: Count(0, TOKENS),
        why: "llama.cpp makes so many tokens where the file lists none",
    },
    Limit { keys: "tokenizer.ggml.token_type_count", allowed: Count(0, TOKENS), why: "buffers are sized by it" },
    Limit {
        keys: "wkv.head_size attention.group_norm_groups attention.output_group_count experts_per_group \
            conv_group_size",
        allowed: Count(1, PARTS),
        why: "llama.cpp divides by it",
    },
    Limit { keys: "ple.head_vocab_sizes", allowed: Count(1, u32::MAX), why: "llama.cpp divides by it" },
    Limit {
        keys: "attention.layer_norm_epsilon attention.layer_norm_rms_epsilon \
            attention.group_norm_epsilon hyper_connection.epsilon",
        allowed: Number(0.0, 1.0),
        why: "ggml asserts that it is not negative; it is added to a mean square",
    },
    Limit {
        keys: "rope.freq_base rope.freq_base_swa attention.compress_rope_freq_base",
        allowed: Number(f32::MIN_POSITIVE, f32::MAX),
        why: "every angle is a power of it",
    },
    Limit { keys: "rope.scaling.type", allowed: Text(ROPE_SCALING), why: "llama.cpp asserts that it knows the name" },
];

/// Keys whose infinity means "no limit".
pub(super) const MAY_BE_INFINITE: &[&str] = &["kda.gate_lower_bound"];

/// Architectures for which llama.cpp asserts that keys and values are equally long and turned as a whole (their graphs
/// in src/models say so).
#[rustfmt::skip]
pub(super) const ROTATES_WHOLE_HEADS: &[&str] = &[
    "apertus", "arcee", "arctic", "baichuan", "chameleon", "codeshell", "cogvlm", "cohere2moe", "dbrx", "deci",
    "deepseek", "dots1", "dream", "ernie4_5-moe", "ernie4_5", "exaone-moe", "exaone", "exaone4", "falcon",
    "granite_swa", "granite", "grok", "grovemoe", "hunyuan-moe", "hunyuan_vl", "hy_v3", "internlm2", "jais2",
    "llada-moe", "llada", "llama", "llama4", "maincoder", "mellum", "mistral3", "olmo", "olmo2", "olmoe", "orion",
    "paddleocr", "plamo", "pockettts", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe",
    "rnd1", "seed_oss", "smallthinker", "smollm3", "starcoder2", "talkie", "xverse",
];

/// Architectures for which llama.cpp asserts that keys and values are equally long.
#[rustfmt::skip]
pub(super) const HEADS_ALIKE: &[&str] = &[
    "afmoe", "bailingmoe2", "bert", "bitnet", "bloom", "chatglm", "clef", "cohere2", "command-r", "dflash",
    "eagle3", "eurobert", "glm4", "gpt2", "gptneox", "jais", "laguna", "minimax-01", "minimax-m2", "minimax-m3",
    "modern-bert", "mpt", "muse-glimmer", "nanbeige", "nemotron_h_moe", "nemotron_h", "nemotron", "neo-bert",
    "openelm", "phi2", "phi3", "qwen", "qwen35", "qwen35moe", "qwen3next", "qwen4exp", "refact", "spark2_5",
    "stablelm", "starcoder", "t5",
];
