//! The architectures under test.

use super::architecture::Block::{Closed, Mixer, Mlp, Parallel, Steps, Streams};
use super::architecture::{Architecture, model};
use super::support::raw::Value;
use Value::{Count, Counts, Flag, Flags, Real};

fn plain(gguf: &'static str) -> Architecture {
    model(gguf, gguf, vec![])
}

fn with(gguf: &'static str, keys: Vec<(&'static str, Value)>) -> Architecture {
    model(gguf, gguf, keys)
}

/// Two of four experts a token.
fn experts(more: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    let mut keys =
        vec![("expert_count", Count(4)), ("expert_used_count", Count(2)), ("expert_feed_forward_length", Count(32))];
    keys.extend(more);
    keys
}

/// A state-space layer of four heads.
fn state(more: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    let mut keys = vec![
        ("ssm.conv_kernel", Count(4)),
        ("ssm.inner_size", Count(128)),
        ("ssm.state_size", Count(16)),
        ("ssm.time_step_rank", Count(4)),
        ("ssm.group_count", Count(1)),
    ];
    keys.extend(more);
    keys
}

/// A gated delta net in every other block.
fn delta(more: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    let mut keys = vec![
        ("ssm.conv_kernel", Count(4)),
        ("ssm.inner_size", Count(64)),
        ("ssm.state_size", Count(16)),
        ("ssm.time_step_rank", Count(4)),
        ("ssm.group_count", Count(2)),
        ("full_attention_interval", Count(2)),
        ("rope.dimension_sections", Counts(vec![3, 3, 2, 0])),
    ];
    keys.extend(more);
    keys
}

/// Latent attention.
fn latent(more: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    let mut keys = experts(vec![
        ("attention.head_count_kv", Count(1)),
        ("attention.q_lora_rank", Count(24)),
        ("attention.kv_lora_rank", Count(32)),
        ("attention.key_length", Count(40)),
        ("attention.value_length", Count(32)),
        ("attention.key_length_mla", Count(24)),
        ("attention.value_length_mla", Count(16)),
        ("rope.dimension_count", Count(8)),
        ("leading_dense_block_count", Count(1)),
        ("expert_shared_count", Count(1)),
        ("expert_weights_scale", Real(1.0)),
        ("expert_gating_func", Count(2)),
    ]);
    keys.extend(more);
    keys
}

/// Blocks 0 and 2 have no attention.
fn middle() -> Value {
    Counts(vec![0, 2, 0])
}

/// Every architecture of the test.
pub(crate) fn all() -> Vec<Architecture> {
    let groups = [dense(), sparse(), gemmas(), parallel(), recurrent(), closed()];
    groups.into_iter().flatten().chain(others()).collect()
}

/// The key of attention that looks back eight tokens.
fn window() -> (&'static str, Value) {
    ("attention.sliding_window", Count(8))
}

/// Attention, then one MLP.
fn dense() -> Vec<Architecture> {
    vec![
        plain("llama"),
        plain("mistral3"),
        plain("arcee"),
        plain("smollm3"),
        plain("qwen2"),
        plain("qwen3"),
        with("qwen3vl", vec![("rope.dimension_sections", Counts(vec![3, 3, 2, 0]))]),
        plain("phi3"),
        plain("olmo").all(Steps("ffn_up")),
        plain("olmo2").all(Steps("ffn_up")),
        with("gpt2", vec![("attention.head_count_kv", Count(4))]),
        model(
            "gptneox",
            "gptneox",
            vec![("attention.head_count_kv", Count(4)), ("use_parallel_residual", Flag(false))],
        ),
        plain("stablelm"),
        plain("internlm2"),
        plain("starcoder2"),
        plain("exaone4").all(Steps("ffn_up")),
        with(
            "granite",
            vec![("logit_scale", Real(2.0)), ("residual_scale", Real(0.5)), ("embedding_scale", Real(2.0))],
        ),
        plain("glm4").tokens_only(),
        with(
            "minicpm3",
            vec![
                ("attention.q_lora_rank", Count(24)),
                ("attention.kv_lora_rank", Count(32)),
                ("attention.key_length", Count(24)),
                ("rope.dimension_count", Count(8)),
                ("attention.head_count_kv", Count(4)),
            ],
        ),
        plain("nemotron"),
        plain("bitnet"),
    ]
}

/// Attention, then experts.
fn sparse() -> Vec<Architecture> {
    vec![
        model("llama, experts", "llama", experts(vec![])),
        with("qwen3moe", experts(vec![])),
        with("phimoe", experts(vec![])),
        with("olmoe", experts(vec![("attention.head_count_kv", Count(4))])),
        with("glm4moe", experts(vec![("expert_shared_count", Count(1)), ("leading_dense_block_count", Count(1))]))
            .all(Steps("post_attention_norm"))
            .tokens_only(),
        with("llama4", experts(vec![("interleave_moe_layer_step", Count(2)), ("block_count", Count(4))])),
        with("gpt-oss", experts(vec![window()])).all(Steps("post_attention_norm")),
        with("deepseek2", latent(vec![])),
    ]
}

/// Norms behind the sublayers, embeddings of each layer, several streams.
fn gemmas() -> Vec<Architecture> {
    vec![
        plain("gemma"),
        with("gemma2", vec![window()]),
        with("gemma3", vec![window()]),
        with("gemma3n", vec![window()]).all(Streams),
        with(
            "gemma4",
            vec![
                window(),
                ("attention.sliding_window_pattern", Flags(vec![true, true, false])),
                ("embedding_length_per_layer_input", Count(16)),
                ("attention.key_length_swa", Count(16)),
                ("attention.value_length_swa", Count(16)),
            ],
        )
        .after("inp_gate"),
        model(
            "gemma4, experts",
            "gemma4",
            experts(vec![
                window(),
                ("attention.sliding_window_pattern", Flags(vec![true, true, false])),
                ("embedding_length_per_layer_input", Count(0)),
                ("attention.key_length_swa", Count(16)),
                ("attention.value_length_swa", Count(16)),
            ]),
        ),
    ]
}

/// Attention and MLP side by side.
fn parallel() -> Vec<Architecture> {
    vec![
        plain("phi2").all(Parallel),
        model(
            "gptneox, parallel",
            "gptneox",
            vec![("attention.head_count_kv", Count(4)), ("use_parallel_residual", Flag(true))],
        )
        .all(Parallel),
        plain("command-r").all(Parallel),
        with("cohere2", vec![window(), ("logit_scale", Real(1.0))]).all(Parallel),
        plain("falcon").all(Parallel),
    ]
}

/// Recurrent layers, alone or among attention.
fn recurrent() -> Vec<Architecture> {
    vec![
        with("qwen35", delta(vec![])).all(Steps("post_attention_norm")),
        with("qwen35moe", delta(experts(vec![("expert_shared_feed_forward_length", Count(32))])))
            .all(Steps("post_attention_norm")),
        with("qwen3next", delta(experts(vec![("expert_shared_feed_forward_length", Count(32))])))
            .all(Steps("post_attention_norm")),
        with("lfm2", vec![("attention.head_count_kv", middle()), ("shortconv.l_cache", Count(3))]),
        with(
            "lfm2moe",
            experts(vec![
                ("attention.head_count_kv", middle()),
                ("shortconv.l_cache", Count(3)),
                ("expert_gating_func", Count(2)),
                ("leading_dense_block_count", Count(1)),
            ]),
        ),
        with("mamba", state(vec![])).all(Mixer),
        with("mamba2", state(vec![])).all(Mixer),
        with("jamba", state(experts(vec![("attention.head_count_kv", middle())]))),
        with(
            "granitehybrid",
            state(vec![
                ("attention.head_count_kv", middle()),
                ("residual_scale", Real(0.5)),
                ("embedding_scale", Real(2.0)),
            ]),
        ),
        with("falcon-h1", state(vec![])),
        with("plamo2", state(vec![("attention.head_count_kv", middle()), ("ssm.group_count", Count(0))])),
        with("nemotron_h", state(nemotron())).each(vec![Mixer, Mlp, Mixer, Mlp, Mixer]),
        with(
            "rwkv6",
            vec![
                ("wkv.head_size", Count(32)),
                ("time_mix_extra_dim", Count(8)),
                ("time_decay_extra_dim", Count(8)),
                ("attention.head_count", Count(0)),
                ("attention.head_count_kv", Count(0)),
            ],
        )
        .all(Steps("attn_norm_2")),
        with(
            "rwkv7",
            vec![
                ("wkv.head_size", Count(32)),
                ("attention.head_count", Count(0)),
                ("attention.head_count_kv", Count(0)),
                ("attention.decay_lora_rank", Count(8)),
                ("attention.iclr_lora_rank", Count(8)),
                ("attention.value_residual_mix_lora_rank", Count(8)),
                ("attention.gate_lora_rank", Count(8)),
            ],
        )
        .all(Steps("attn_norm_2")),
    ]
}

/// What tiller does not steer.
fn closed() -> Vec<Architecture> {
    vec![
        with(
            "bert",
            vec![
                ("tokenizer.ggml.token_type_count", Count(2)),
                ("attention.causal", Flag(false)),
                ("pooling_type", Count(0)),
                ("attention.head_count_kv", Count(4)),
            ],
        )
        .all(Closed)
        .tokens_only(),
        with(
            "t5",
            vec![
                ("attention.relative_buckets_count", Count(8)),
                ("attention.head_count_kv", Count(4)),
                ("decoder_start_token_id", Count(0)),
            ],
        )
        .all(Closed)
        .tokens_only(),
        with(
            "deepseek4",
            experts(vec![
                window(),
                ("attention.head_count_kv", Count(1)),
                ("attention.key_length", Count(32)),
                ("attention.value_length", Count(32)),
                ("rope.dimension_count", Count(8)),
                ("attention.q_lora_rank", Count(24)),
                ("expert_shared_count", Count(1)),
                ("expert_weights_scale", Real(1.0)),
                ("expert_weights_norm", Flag(true)),
                ("swiglu_clamp_exp", Real(7.0)),
                ("attention.indexer.head_count", Count(2)),
                ("attention.indexer.key_length", Count(64)),
                ("attention.indexer.top_k", Count(8)),
                ("attention.output_group_count", Count(2)),
                ("attention.output_lora_rank", Count(8)),
                ("attention.compress_rope_freq_base", Real(10000.0)),
                ("attention.compress_ratios", Counts(vec![0, 4, 128])),
                ("hyper_connection.count", Count(4)),
                ("hyper_connection.sinkhorn_iterations", Count(3)),
                ("hyper_connection.epsilon", Real(1e-6)),
                ("hash_layer_count", Count(0)),
                ("expert_gating_func", Count(4)),
            ]),
        )
        .all(Closed)
        .tokens_only(),
        with(
            "qwen4exp",
            delta(experts(vec![
                ("expert_shared_feed_forward_length", Count(32)),
                ("hyper_connection.count", Count(4)),
                ("hyper_connection.low_rank", Count(8)),
                ("attention.indexer.head_count", Count(2)),
                ("attention.indexer.key_length", Count(16)),
                ("attention.indexer.top_k", Count(8)),
            ])),
        )
        .all(Closed)
        .tokens_only(),
    ]
}

/// Keys that some of [`others`] ask for and the rest of them does not know.
fn with_spare(keys: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("attention.sliding_window", Count(8)),
        ("attention.clamp_kqv", Real(8.0)),
        ("attention.max_alibi_bias", Real(8.0)),
        ("rope.dimension_sections", Counts(vec![3, 3, 2, 0])),
        ("logit_scale", Real(1.0)),
        ("expert_shared_count", Count(1)),
        ("expert_shared_feed_forward_length", Count(32)),
        ("expert_chunk_feed_forward_length", Count(32)),
        ("expert_weights_scale", Real(1.0)),
        ("expert_weights_norm", Flag(true)),
        ("expert_gating_func", Count(2)),
        ("expert_group_scale", Real(1.0)),
        ("experts_per_group", Count(1)),
        ("leading_dense_block_count", Count(1)),
        ("xielu.alpha_n", Real(1.0)),
        ("xielu.alpha_p", Real(1.0)),
        ("xielu.beta", Real(1.0)),
        ("xielu.eps", Real(1e-7)),
    ];
    all.retain(|(key, _)| keys.iter().all(|(own, _)| own != key));
    all.extend(keys);
    all
}

/// Architectures that need nothing of their own but a group's keys.
fn others() -> impl Iterator<Item = Architecture> {
    let dense = [
        "apertus",
        "chatglm",
        "deci",
        "ernie4_5",
        "exaone",
        "hunyuan-dense",
        "jais2",
        "maincoder",
        "minicpm",
        "muse-glimmer",
        "nanbeige",
        "paddleocr",
        "pangu-embedded",
        "plamo3",
        "qwen2vl",
        "seed_oss",
        "xverse",
    ];
    let as_many_keys =
        ["baichuan", "bloom", "codeshell", "jais", "mpt", "openelm", "orion", "plamo", "qwen", "refact", "starcoder"];
    let sparse = [
        "afmoe",
        "bailingmoe",
        "bailingmoe2",
        "cohere2moe",
        "dbrx",
        "deepseek",
        "exaone-moe",
        "granitemoe",
        "grok",
        "grovemoe",
        "hunyuan-moe",
        "hy_v3",
        "laguna",
        "mellum",
        "minimax-m2",
        "qwen2moe",
        "qwen3vlmoe",
        "smallthinker",
    ];
    let latents = ["deepseek32", "glm-dsa", "mistral4"];
    let windows = ["mimo2", "step35"];
    let dense = dense.map(|gguf| with(gguf, with_spare(vec![])));
    let as_many_keys = as_many_keys.map(|gguf| with(gguf, with_spare(vec![("attention.head_count_kv", Count(4))])));
    let sparse = sparse.map(|gguf| with(gguf, with_spare(experts(vec![]))));
    let index = || {
        vec![
            ("attention.indexer.head_count", Count(2)),
            ("attention.indexer.key_length", Count(64)),
            ("attention.indexer.top_k", Count(8)),
        ]
    };
    let latents = latents.map(|gguf| with(gguf, with_spare(latent(index()))));
    let pattern = || vec![("attention.sliding_window_pattern", Counts(vec![0, 1, 0]))];
    let windows = windows.map(|gguf| with(gguf, with_spare(experts(pattern()))));
    let hybrid =
        with("nemotron_h_moe", with_spare(experts(state(nemotron())))).each(vec![Mixer, Mlp, Mixer, Mlp, Mixer]);
    let all = dense.into_iter().chain(as_many_keys).chain(sparse).chain(latents).chain(windows).chain([hybrid]);
    all.map(|architecture| match architecture.gguf {
        "plamo" | "cohere2moe" => architecture.all(Parallel),
        "seed_oss" => architecture.all(Steps("post_attention_norm")),
        "dbrx" => architecture.all(Steps("attn_output_norm")),
        _ => architecture,
    })
}

/// A mixer and an MLP by turns, a block each; the mixer of block 2 is attention.
fn nemotron() -> Vec<(&'static str, Value)> {
    vec![
        ("block_count", Count(5)),
        ("attention.head_count_kv", Counts(vec![0, 0, 2, 0, 0])),
        ("feed_forward_length", Counts(vec![0, 96, 0, 96, 0])),
    ]
}
