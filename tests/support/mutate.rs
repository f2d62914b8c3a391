//! Models that are wrong in one place: every key and tensor of a [`Tiny`] set to what it must not be, keys of llama.cpp
//! that it has not, and bytes of its header flipped. The same list every time.

use tiller::file::gguf::GgmlType;

use super::tiny::{Key, Tiny};
use super::{ARRAY, BOOL, Raw, STR, U32};

/// What is wrong, and how it is made so.
pub(crate) struct Mutation {
    pub(crate) what: String,
    change: Box<dyn Fn(&mut Tiny)>,
    /// Seeds the flips of bytes in the header.
    flips: Option<u64>,
}

impl Mutation {
    fn new(what: String, change: impl Fn(&mut Tiny) + 'static) -> Self {
        Self { what, change: Box::new(change), flips: None }
    }

    /// The file.
    pub(crate) fn apply(&self, tiny: &Tiny) -> Vec<u8> {
        let mut changed = tiny.clone();
        (self.change)(&mut changed);
        let mut bytes = changed.bytes();
        if let Some(mut seed) = self.flips {
            let n = changed.header().len() as u64;
            for _ in 0..1 + next(&mut seed) % 4 {
                let at = 4 + (next(&mut seed) % (n - 4)) as usize;
                bytes[at] = next(&mut seed) as u8;
            }
        }
        bytes
    }
}

/// Every structured mutation of the model called `name`, then `flips` random ones.
pub(crate) fn all(name: &str, flips: usize) -> Vec<Mutation> {
    let tiny = Tiny::new(name);
    let mut out = Vec::new();
    for i in 0..tiny.keys.len() {
        key(&tiny, i, &mut out);
    }
    let arch = name.split('-').next().expect("a name");
    for (suffix, kind) in OTHER_KEYS {
        let key = if suffix.starts_with("tokenizer.") { (*suffix).to_owned() } else { format!("{arch}.{suffix}") };
        if tiny.keys.iter().all(|k| k.name != key) {
            values(&key, *kind, None, &mut out);
        }
    }
    for i in 0..tiny.tensors.len() {
        // The second block is made like the first.
        if !tiny.tensors[i].name.starts_with("blk.1.") {
            tensor(&tiny, i, &mut out);
        }
    }
    for i in 0..flips as u64 {
        let mut flip = Mutation::new(format!("flips {i}"), |_| {});
        flip.flips = Some(name.bytes().fold(i + 1, |sum, b| sum.wrapping_mul(31) + u64::from(b)) | 1);
        out.push(flip);
    }
    out
}

/// A shuffle that is the same every time: a few of the mutations stand for all.
pub(crate) fn shuffle<T>(list: &mut [T], mut seed: u64) {
    for i in (1..list.len()).rev() {
        list.swap(i, (next(&mut seed) % (i as u64 + 1)) as usize);
    }
}

/// Knuth's generator, its high bits.
pub(crate) fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// A letter for a type: u32, f32, bool, string.
type Kind = char;

fn key(tiny: &Tiny, i: usize, out: &mut Vec<Mutation>) {
    let Key { name, kind, bytes } = tiny.keys[i].clone();
    out.push(Mutation::new(format!("{name} removed"), move |t| drop(t.keys.remove(i))));
    out.push(Mutation::new(format!("{name} twice"), move |t| t.keys.push(t.keys[i].clone())));
    let letter = match kind {
        U32 => 'u',
        6 => 'f',
        BOOL => 'b',
        STR => 's',
        ARRAY => return array(name, bytes, out),
        other => panic!("a tiny model has no key of type {other}"),
    };
    values(&name, letter, Some(bytes), out);
}

/// `key` with every value that is at an edge, and of every other type.
fn values(key: &str, kind: Kind, now: Option<Vec<u8>>, out: &mut Vec<Mutation>) {
    let mut all: Vec<(u32, Vec<u8>)> = Vec::new();
    if kind == 'u' {
        let now = now.map_or(1, |now| u32::from_le_bytes(*now.first_chunk().expect("4 bytes")));
        let near = [now.wrapping_add(1), now.wrapping_sub(1), now.wrapping_mul(2), now / 2];
        let edges = [0, 1, 2, 3, 5, 100, 511, 513, 4096, 65_535, 1 << 20, 1 << 24, 1 << 30, 1 << 31, 0xbf80_0000];
        let edges = edges.into_iter().chain(near).chain([0xf067_65ac, u32::MAX - 1, u32::MAX]);
        all.extend(edges.map(|v| (U32, v.to_le_bytes().to_vec())));
    }
    if kind == 'f' {
        let edges = [0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN];
        all.extend(edges.map(|v: f32| (6, v.to_le_bytes().to_vec())));
    }
    if kind == 'b' {
        all.extend([0u8, 1, 2, 255].map(|v| (BOOL, vec![v])));
    }
    if kind == 's' {
        let long = "x".repeat(70_000);
        let names = [
            "",
            "x",
            "llama",
            "gpt2",
            "bert",
            "t5",
            "rwkv",
            "none",
            "no_vocab",
            "plamo2",
            "gemma4",
            "test",
            "hybriddna",
            "whitespace",
            "default",
            "gpt-2",
            "yarn",
            "longrope",
            "linear",
            "phi3",
            "mamba",
            "gemma3",
            "\0",
            &long,
        ];
        all.extend(names.map(|v| (STR, Raw::default().str(v).0)));
        all.push((STR, Raw::default().u64(3).bytes(&[0xff, 0xfe, 0]).0));
        all.push((STR, Raw::default().u64(u64::MAX).0));
    }
    // Every other type, with ones; arrays of two and of none.
    for (other, width) in
        [(0, 1), (1, 1), (2, 2), (3, 2), (U32, 4), (5, 4), (6, 4), (BOOL, 1), (10, 8), (11, 8), (12, 8)]
    {
        let one: Vec<u8> = [1].into_iter().chain([0; 7]).take(width).collect();
        all.push((other, one.clone()));
        all.push((ARRAY, Raw::default().u32(other).u64(2).bytes(&one).bytes(&one).0));
        all.push((ARRAY, Raw::default().u32(other).u64(0).0));
    }
    for v in [0, u32::MAX, 0xbf80_0000] {
        all.push((ARRAY, Raw::default().u32(5).u64(2).u32(v).u32(v).0));
    }
    all.push((ARRAY, Raw::default().u32(6).u64(2).u32(f32::NAN.to_bits()).u32(0).0));
    all.push((STR, Raw::default().str("x").0));
    all.push((ARRAY, Raw::default().u32(STR).u64(1).str("x").0));
    all.push((ARRAY, Raw::default().u32(U32).u64(1 << 40).0));
    all.push((13, Vec::new()));
    for (kind, bytes) in all {
        let shown: Vec<_> = bytes.iter().take(16).collect();
        let (key, what) = (key.to_owned(), format!("{key} of type {kind}: {shown:?}"));
        out.push(Mutation::new(what, move |t| {
            let new = Key { name: key.clone(), kind, bytes: bytes.clone() };
            match t.keys.iter_mut().find(|k| k.name == key) {
                Some(old) => *old = new,
                None => t.keys.push(new),
            }
        }));
    }
}

/// An array that is too short, too long, of another type, or holds what it must not.
fn array(name: String, bytes: Vec<u8>, out: &mut Vec<Mutation>) {
    let kind = u32::from_le_bytes(*bytes.first_chunk().expect("a type"));
    let n = u64::from_le_bytes(*bytes[4..].first_chunk().expect("a length"));
    let mut push = |what: &str, bytes: Vec<u8>| {
        let key = name.clone();
        out.push(Mutation::new(format!("{name} {what}"), move |t| {
            let old = t.keys.iter_mut().find(|k| k.name == key).expect("the key");
            old.bytes = bytes.clone();
        }));
    };
    for lie in [0, 1, n - 1, n + 1, 1 << 31, u64::MAX] {
        push(&format!("with its length given as {lie}"), [&bytes[..4], &lie.to_le_bytes(), &bytes[12..]].concat());
    }
    for lie in [0, 1, 4, 5, 6, 7, STR, ARRAY, 10, 13] {
        push(&format!("with its type given as {lie}"), [&lie.to_le_bytes(), &bytes[4..]].concat());
    }
    if kind == STR {
        let mut strings = Vec::new();
        let mut at = 12;
        while at < bytes.len() {
            let n = u64::from_le_bytes(*bytes[at..].first_chunk().expect("a length")) as usize;
            strings.push(bytes[at + 8..at + 8 + n].to_vec());
            at += 8 + n;
        }
        let pack = |list: &[Vec<u8>]| {
            let start = Raw::default().u32(STR).u64(list.len() as u64);
            list.iter().fold(start, |raw, s| raw.u64(s.len() as u64).bytes(s)).0
        };
        let len = strings.len();
        for keep in [0, 1, 3, 12, len / 2, len - 1] {
            push(&format!("cut to {keep}"), pack(&strings[..keep.min(len)]));
        }
        push("doubled", pack(&[&strings[..], &strings[..]].concat()));
        for i in [0, 1, 2, 11, len / 2, len - 1].map(|i| i.min(len - 1)) {
            let odd: [(&str, Vec<u8>); 9] = [
                ("empty", Vec::new()),
                ("the one before", strings[i.wrapping_sub(1).min(len - 1)].clone()),
                ("no text", vec![0xff, 0xfe, 0xc0]),
                ("a NUL", vec![0]),
                ("long", vec![b'a'; 70_000]),
                ("two spaces", b"  ".to_vec()),
                ("a newline", b"\n".to_vec()),
                ("a byte", b"<0x0A>".to_vec()),
                ("half a byte", b"<0".to_vec()),
            ];
            for (what, text) in odd {
                let mut changed = strings.clone();
                changed[i] = text;
                push(&format!("with element {i} {what}"), pack(&changed));
            }
        }
    } else if kind == 5 || kind == 6 {
        for i in [0, 1, 2, 5, 40, n / 2, n - 1] {
            let edges = [0, 1, 2, 3, 4, 5, 6, 7, 100, u32::MAX, f32::NAN.to_bits(), f32::INFINITY.to_bits()];
            for v in edges {
                let mut changed = bytes.clone();
                let at = 12 + 4 * (i.min(n - 1) as usize);
                changed[at..at + 4].copy_from_slice(&v.to_le_bytes());
                push(&format!("with element {i} {v}"), changed);
            }
        }
        for v in [0u32, 2, 3, 6, f32::NAN.to_bits()] {
            push(&format!("all {v}"), [&bytes[..12], v.to_le_bytes().repeat(n as usize).as_slice()].concat());
        }
    } else {
        for (i, v) in [(0, 0), (0, 255), (1, 255), (4, 255), (5, 1), (45, 255), (400, 255), (1027, 255), (1028, 7)] {
            let mut changed = bytes.clone();
            let at = (12 + i).min(changed.len() - 1);
            changed[at] = v;
            push(&format!("with element {i} {v}"), changed);
        }
        push("all 255", [&bytes[..12], vec![255; n as usize].as_slice()].concat());
        // A table whose every entry matches, far outside of the replacements.
        push("all 1", [&bytes[..12], &1024u32.to_le_bytes(), vec![1; n as usize - 4].as_slice()].concat());
    }
}

/// The bytes that a tensor of this type and shape has, if it is one and not too large to write.
fn size(kind: u32, shape: &[u64]) -> Option<usize> {
    let kind = GgmlType::from_id(kind)?;
    let row = kind.row_bytes(usize::try_from(shape.first().copied().unwrap_or(1)).ok()?)?;
    let rows = shape.iter().skip(1).try_fold(1u64, |n, &d| n.checked_mul(d))?;
    row.checked_mul(usize::try_from(rows).ok()?).filter(|&n| n < 1 << 22)
}

fn tensor(tiny: &Tiny, i: usize, out: &mut Vec<Mutation>) {
    let (name, shape) = (tiny.tensors[i].name.clone(), tiny.tensors[i].shape.clone());
    out.push(Mutation::new(format!("{name} removed"), move |t| drop(t.tensors.remove(i))));
    out.push(Mutation::new(format!("{name} twice"), move |t| t.tensors.push(t.tensors[i].clone())));
    for other in [
        "",
        "x.weight",
        "output.weight",
        "rope_freqs.weight",
        "blk.0.attn_q.bias",
        "blk.7.attn_q.weight",
        "blk.0.attn_qkv.weight",
    ] {
        out.push(Mutation::new(format!("{name} renamed {other}"), move |t| t.tensors[i].name = other.to_owned()));
    }
    for offset in [0, 1, 32, 1 << 20, 1 << 62, u64::MAX] {
        out.push(Mutation::new(format!("{name} at {offset}"), move |t| t.tensors[i].offset = Some(offset)));
    }
    for kind in (0..43).chain([200, u32::MAX]) {
        out.push(Mutation::new(format!("{name} said to be of type {kind}"), move |t| t.tensors[i].kind = kind));
        if let Some(n) = size(kind, &shape) {
            out.push(Mutation::new(format!("{name} of type {kind}"), move |t| {
                t.tensors[i].kind = kind;
                t.tensors[i].bytes = vec![0x11; n];
            }));
        }
    }
    let mut shapes =
        vec![vec![], vec![1], vec![0], vec![1, 1, 1, 1], shape.iter().rev().copied().collect(), shape[..1].to_vec()];
    shapes.push(shape.iter().copied().chain([1]).collect());
    shapes.push(shape.iter().copied().chain([2]).collect());
    shapes.push(shape.iter().copied().chain([0]).collect());
    for d in 0..shape.len() {
        for v in [0, 1, 2, shape[d] - 1, shape[d] + 1, 2 * shape[d], shape[d] / 2, 32, 1 << 31, 1 << 40, u64::MAX] {
            let mut changed = shape.clone();
            changed[d] = v;
            shapes.push(changed);
        }
    }
    for shape in shapes {
        let n = size(0, &shape);
        out.push(Mutation::new(format!("{name} of shape {shape:?}"), move |t| {
            t.tensors[i].shape = shape.clone();
            if let Some(n) = n {
                t.tensors[i].kind = 0;
                t.tensors[i].bytes.resize(n, 0);
            }
        }));
    }
    for (what, v) in [("NaN", f32::NAN), ("infinity", f32::INFINITY), ("1e30", 1e30), ("0", 0.0)] {
        out.push(Mutation::new(format!("{name} all {what}"), move |t| {
            let n = t.tensors[i].bytes.len() / 4;
            t.tensors[i].bytes = v.to_le_bytes().repeat(n);
        }));
    }
}

/// Keys that llama.cpp reads of some architecture, and their type.
const OTHER_KEYS: &[(&str, Kind)] = &[
    ("vocab_size", 'u'),
    ("embedding_length_out", 'u'),
    ("embedding_length_per_layer_input", 'u'),
    ("features_length", 'u'),
    ("leading_dense_block_count", 'u'),
    ("expert_feed_forward_length", 'u'),
    ("expert_shared_feed_forward_length", 'u'),
    ("use_parallel_residual", 'b'),
    ("expert_count", 'u'),
    ("expert_used_count", 'u'),
    ("expert_shared_count", 'u'),
    ("expert_group_count", 'u'),
    ("expert_group_used_count", 'u'),
    ("expert_weights_scale", 'f'),
    ("expert_weights_norm", 'b'),
    ("expert_gating_func", 'u'),
    ("moe_every_n_layers", 'u'),
    ("nextn_predict_layers", 'u'),
    ("n_deepstack_layers", 'u'),
    ("pooling_type", 'u'),
    ("logit_scale", 'f'),
    ("decoder_start_token_id", 'u'),
    ("decoder_block_count", 'u'),
    ("attn_logit_softcapping", 'f'),
    ("final_logit_softcapping", 'f'),
    ("swin_norm", 'b'),
    ("rescale_every_n_layers", 'u'),
    ("token_shift_count", 'u'),
    ("interleave_moe_layer_step", 'u'),
    ("full_attention_interval", 'u'),
    ("attention.head_count", 'u'),
    ("attention.head_count_kv", 'u'),
    ("attention.max_alibi_bias", 'f'),
    ("attention.clamp_kqv", 'f'),
    ("attention.key_length", 'u'),
    ("attention.value_length", 'u'),
    ("attention.key_length_swa", 'u'),
    ("attention.value_length_swa", 'u'),
    ("attention.key_length_mla", 'u'),
    ("attention.value_length_mla", 'u'),
    ("attention.layer_norm_epsilon", 'f'),
    ("attention.layer_norm_rms_epsilon", 'f'),
    ("attention.group_norm_epsilon", 'f'),
    ("attention.group_norm_groups", 'u'),
    ("attention.causal", 'b'),
    ("attention.q_lora_rank", 'u'),
    ("attention.kv_lora_rank", 'u'),
    ("attention.sliding_window", 'u'),
    ("attention.sliding_window_pattern", 'u'),
    ("attention.scale", 'f'),
    ("attention.temperature_length", 'u'),
    ("attention.temperature_scale", 'f'),
    ("rope.dimension_count", 'u'),
    ("rope.dimension_count_swa", 'u'),
    ("rope.dimension_sections", 'u'),
    ("rope.freq_base", 'f'),
    ("rope.freq_base_swa", 'f'),
    ("rope.scale_linear", 'f'),
    ("rope.scaling.type", 's'),
    ("rope.scaling.factor", 'f'),
    ("rope.scaling.attn_factor", 'f'),
    ("rope.scaling.original_context_length", 'u'),
    ("rope.scaling.finetuned", 'b'),
    ("rope.scaling.yarn_log_multiplier", 'f'),
    ("rope.scaling.yarn_ext_factor", 'f'),
    ("ssm.conv_kernel", 'u'),
    ("ssm.inner_size", 'u'),
    ("ssm.state_size", 'u'),
    ("ssm.time_step_rank", 'u'),
    ("ssm.group_count", 'u'),
    ("ssm.dt_b_c_rms", 'b'),
    ("wkv.head_size", 'u'),
    ("shortconv.l_cache", 'u'),
    ("residual_scale", 'f'),
    ("embedding_scale", 'f'),
    ("classifier.output_labels", 's'),
    ("tokenizer.ggml.add_bos_token", 'b'),
    ("tokenizer.ggml.add_eos_token", 'b'),
    ("tokenizer.ggml.add_sep_token", 'b'),
    ("tokenizer.ggml.eot_token_id", 'u'),
    ("tokenizer.ggml.bos_token_id", 'u'),
    ("tokenizer.ggml.eos_token_id", 'u'),
    ("tokenizer.ggml.unknown_token_id", 'u'),
    ("tokenizer.ggml.padding_token_id", 'u'),
    ("tokenizer.ggml.suppress_tokens", 'u'),
    ("tokenizer.ggml.pre", 's'),
    ("tokenizer.ggml.token_type_count", 'u'),
    ("tokenizer.ggml.precompiled_charsmap", 'u'),
    ("tokenizer.ggml.add_space_prefix", 'b'),
    ("tokenizer.chat_template", 's'),
];
