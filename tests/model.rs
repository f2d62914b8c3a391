//! Models from outside: small ones made here, and the two real ones where TILLER_TEST_MODELS has them.

mod support;

use std::path::PathBuf;

use tiller::Kind;
use tiller::file::gguf::{Array, GgmlType, Value, Writer};
use tiller::model::{Kinship, Model, TokenKind};

const D: usize = 4;
const TOKENS: [&str; 5] = ["<s>", "Ġthe", "Ã¼", "Ċ", "<x>"];

fn bytes(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Row i of the embedding is i, i + 0.5, …; the output matrix, where there is one, holds its negative.
fn rows(sign: f32) -> Vec<u8> {
    let values: Vec<f32> = (0..TOKENS.len() * D).map(|i| sign * ((i / D) as f32 + (i % D) as f32 * 0.5)).collect();
    bytes(&values)
}

/// A model of architecture `arch` with all that a model needs; `change` may change anything.
fn tiny<'a>(arch: &str, change: impl FnOnce(&mut Writer<'a>)) -> Writer<'a> {
    let mut w = Writer::new();
    w.set("general.architecture", arch);
    w.set("general.name", "Tiny");
    w.set("general.file_type", 15u32);
    w.set(&format!("{arch}.block_count"), 3u32);
    w.set(&format!("{arch}.embedding_length"), D as u32);
    w.set(&format!("{arch}.context_length"), 128u64);
    w.set(&format!("{arch}.attention.layer_norm_rms_epsilon"), 1e-6f32);
    w.set("tokenizer.ggml.model", "gpt2");
    w.set("tokenizer.ggml.tokens", Array::strings(TOKENS).unwrap());
    w.set("tokenizer.ggml.token_type", Array::numbers(&[3i32, 1, 1, 1, 4]));
    w.set("tokenizer.ggml.bos_token_id", 0u32);
    w.set("tokenizer.ggml.eos_token_id", u32::MAX);
    change(&mut w);
    w
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, w: Writer<'_>) -> PathBuf {
        let path = self.0.path().join(name);
        w.write(&path).unwrap();
        path
    }
}

/// Embedding and final norm.
fn tensors(w: &mut Writer<'_>) {
    w.tensor("token_embd.weight", &[D, TOKENS.len()], GgmlType::F32, rows(1.0));
    w.tensor("output_norm.weight", &[D], GgmlType::F32, bytes(&[1.0, 2.0, 3.0, 4.0]));
}

fn open(w: Writer<'_>) -> tiller::Result<Model> {
    let home = Home::new();
    Model::open(&home.write("tiny.gguf", w))
}

#[track_caller]
fn refused(w: Writer<'_>, expected: &str) {
    let error = open(w).unwrap_err();
    assert_eq!(error.kind(), Kind::Format);
    assert!(error.message().ends_with(expected), "{error}");
    assert!(error.message().contains("tiny.gguf"), "{error}");
}

#[test]
fn any_architecture_opens() {
    for arch in ["llama", "gemma3", "qwen2", "a-new-one"] {
        let model = open(tiny(arch, tensors)).unwrap();
        assert_eq!((model.architecture(), model.name(), model.quantization()), (arch, "Tiny", "Q4_K_M"));
        assert_eq!((model.n_layer(), model.d_model(), model.n_vocab(), model.context_length()), (3, D, 5, 128));
        assert_eq!((model.rms_eps(), model.layer_norm()), (1e-6, false));
        assert_eq!(model.output_norm().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }
}

#[test]
fn the_unembedding_is_tied_or_its_own() {
    let mut row = [0f32; D];
    let tied = open(tiny("llama", tensors)).unwrap();
    assert!(tied.tied_unembedding());
    tied.unembedding_row(2, &mut row).unwrap();
    assert_eq!(row, [2.0, 2.5, 3.0, 3.5]);
    let own = open(tiny("llama", |w| {
        tensors(w);
        w.tensor("output.weight", &[D, TOKENS.len()], GgmlType::F32, rows(-1.0));
    }))
    .unwrap();
    assert!(!own.tied_unembedding());
    own.unembedding_row(2, &mut row).unwrap();
    assert_eq!(row, [-2.0, -2.5, -3.0, -3.5]);
}

#[test]
fn wrong_arguments_are_named() {
    let model = open(tiny("llama", tensors)).unwrap();
    let mut row = [0f32; D];
    for id in [-1, 5, i32::MAX, i32::MIN] {
        let error = model.unembedding_row(id, &mut row).unwrap_err();
        assert_eq!(error.message(), format!("token: expected a number from 0 to 4, found {id}"));
        assert_eq!((model.token_text(id), model.token_bytes(id), model.vocabulary().kind(id)), (None, None, None));
    }
    let error = model.unembedding_row(0, &mut row[1..]).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Argument, "row: expected 4 elements, found 3"));
}

#[test]
fn tokens_have_text_and_bytes() {
    let model = open(tiny("llama", tensors)).unwrap();
    let v = model.vocabulary();
    assert_eq!(model.token_text(1), Some("Ġthe"));
    assert_eq!(model.token_bytes(1).unwrap(), b" the");
    assert_eq!(model.token_bytes(2).unwrap(), "ü".as_bytes());
    assert_eq!(model.token_bytes(0).unwrap(), b"<s>");
    assert_eq!(
        (v.kind(0), v.kind(1), v.kind(4)),
        (Some(TokenKind::Control), Some(TokenKind::Normal), Some(TokenKind::UserDefined))
    );
    assert_eq!(v.decode(&[0, 1, 2, 3, 4, 99]), " theü\n<x>");
    assert_eq!((model.bos(), model.eos(), model.add_bos()), (Some(0), None, false));
}

#[test]
fn sentence_piece_defaults_are_llama_cpps() {
    let model = open(tiny("llama", |w| {
        tensors(w);
        w.set("tokenizer.ggml.model", "llama");
        w.set("tokenizer.ggml.tokens", Array::strings(["<unk>", "<s>", "</s>", "▁the", "<0x0A>"]).unwrap());
        w.set("tokenizer.ggml.token_type", Array::numbers(&[2i32, 3, 3, 1, 6]));
        w.set("tokenizer.ggml.bos_token_id", 1u32);
        w.set("tokenizer.ggml.eos_token_id", 2u32);
    }))
    .unwrap();
    assert!(model.add_bos());
    assert_eq!(model.vocabulary().unknown(), Some(0));
    assert_eq!(model.token_bytes(3).unwrap(), b" the");
    assert_eq!(model.token_bytes(4).unwrap(), b"\n");
    assert_eq!(model.vocabulary().decode(&[1, 3, 4, 2]), " the\n");
}

#[test]
fn layers_that_only_predict_ahead_do_not_count() {
    let model = open(tiny("glm4moe", |w| {
        tensors(w);
        w.set("glm4moe.nextn_predict_layers", 1u32);
    }));
    assert_eq!(model.unwrap().n_layer(), 2);
}

#[test]
fn layer_norm_is_told_from_rms_norm() {
    let mut w = Writer::new();
    w.set("general.architecture", "gpt2");
    w.set("gpt2.block_count", 1u32);
    w.set("gpt2.embedding_length", 4u32);
    w.set("gpt2.attention.layer_norm_epsilon", 1e-5f32);
    let model = open(w).unwrap();
    assert_eq!((model.layer_norm(), model.rms_eps(), model.n_vocab(), model.context_length()), (true, 1e-5, 0, 0));
    assert_eq!((model.name(), model.quantization()), ("tiny", "unknown"));
    let error = model.unembedding_row(0, &mut [0.0; 4]).unwrap_err();
    assert!(error.message().ends_with("expected a tensor \"output.weight\" or \"token_embd.weight\", found neither"));
    assert_eq!(model.output_norm().unwrap_err().kind(), Kind::Format);
}

#[test]
fn what_is_no_model_is_said() {
    let mut w = Writer::new();
    w.set("general.architecture", "sae");
    refused(w, "expected a language model, found a dictionary (general.architecture = \"sae\")");
    refused(Writer::new(), "key \"general.architecture\": expected a string, found no such key");
    let without = |key: &str| {
        let mut w = Writer::new();
        w.set("general.architecture", "llama");
        for k in ["block_count", "embedding_length"].iter().filter(|k| **k != key) {
            w.set(&format!("llama.{k}"), 4u32);
        }
        w
    };
    refused(without("block_count"), "key \"llama.block_count\": expected an integer, found no such key");
    refused(without("embedding_length"), "key \"llama.embedding_length\": expected an integer, found no such key");
}

#[test]
fn contradictions_are_refused() {
    let with = |key: &'static str, value: Value| {
        tiny("llama", move |w| {
            tensors(w);
            w.set(key, value);
        })
    };
    refused(
        with("llama.block_count", 0u32.into()),
        "expected at least one layer and a width, found 0 layers of width 4",
    );
    refused(
        with("llama.block_count", (-1i32).into()),
        "key \"llama.block_count\": expected an integer from 0, found i32 -1",
    );
    refused(with("llama.block_count", "3".into()), "key \"llama.block_count\": expected an integer from 0, found str");
    refused(
        with("llama.embedding_length", 5u32.into()),
        "tensor \"token_embd.weight\": expected shape [5, 5], found [4, 5]",
    );
    refused(
        with("tokenizer.ggml.tokens", Array::numbers(&[1u8; 5]).into()),
        "key \"tokenizer.ggml.tokens\": expected an array of str, found array of u8",
    );
    refused(
        with("tokenizer.ggml.token_type", Array::numbers(&[1i32; 4]).into()),
        "key \"tokenizer.ggml.token_type\": expected 5 elements, found 4",
    );
    let norm = tiny("llama", |w| w.tensor("output_norm.weight", &[3], GgmlType::F32, bytes(&[1.0; 3])));
    refused(norm, "tensor \"output_norm.weight\": expected shape [4], found [3]");
}

#[test]
fn weights_that_cannot_be_decoded_are_named() {
    let model = open(tiny("llama", |w| {
        w.tensor("token_embd.weight", &[D, TOKENS.len()], GgmlType::I8, vec![0; D * TOKENS.len()]);
    }))
    .unwrap();
    let error = model.unembedding_row(0, &mut [0.0; D]).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("tensor \"token_embd.weight\": elements of type i8"), "{error}");
}

/// Fingerprints of the model as it is and with one change.
fn kinship(change: impl FnOnce(&mut Writer<'_>)) -> Kinship {
    let model = |change: Box<dyn FnOnce(&mut Writer<'_>) + '_>| {
        let w = tiny("llama", |w| {
            tensors(w);
            w.tensor("blk.0.ffn_up.weight", &[32, 64], GgmlType::Q8_0, vec![7; 34 * 64]);
            w.tensor("blk.0.attn_norm.weight", &[D], GgmlType::F32, bytes(&[1.0; D]));
            change(w);
        });
        open(w).unwrap().fingerprint().to_owned()
    };
    let (a, b) = (model(Box::new(|_| ())), model(Box::new(change)));
    assert_eq!(a.len(), 64);
    assert!(a.bytes().all(|c| c.is_ascii_hexdigit()));
    Kinship::of(&a, &b)
}

#[test]
fn the_fingerprint_ignores_what_does_not_matter() {
    assert_eq!(kinship(|_| ()), Kinship::Same);
    assert_eq!(kinship(|w| w.set("general.name", "Another")), Kinship::Same);
    assert_eq!(kinship(|w| w.set("llama.context_length", 9u32)), Kinship::Same);
    assert_eq!(kinship(|w| w.set("tokenizer.chat_template", "{{ x }}")), Kinship::Same);
    assert_eq!(kinship(|w| w.set("tokenizer.ggml.bos_token_id", 1u32)), Kinship::Same);
}

#[test]
fn the_fingerprint_tells_builds_apart() {
    assert_eq!(kinship(|w| w.set("llama.block_count", 4u32)), Kinship::Stranger);
    let renamed = Array::strings(["<s>", "Ġthe", "Ã¼", "Ċ", "<y>"]).unwrap();
    assert_eq!(kinship(|w| w.set("tokenizer.ggml.tokens", renamed)), Kinship::Stranger);
}

/// The fingerprint of the tiny model with this embedding and this norm, its tensors in either order.
fn print_of(embedding: (GgmlType, Vec<u8>), norm: f32, reversed: bool) -> String {
    let norm = ("blk.0.attn_norm.weight", vec![D], GgmlType::F32, bytes(&[norm; D]));
    let mut tensors = vec![("token_embd.weight", vec![D, TOKENS.len()], embedding.0, embedding.1), norm];
    if reversed {
        tensors.reverse();
    }
    let mut w = tiny("llama", |_| ());
    for (name, shape, kind, data) in tensors {
        w.tensor(name, &shape, kind, data);
    }
    open(w).unwrap().fingerprint().to_owned()
}

#[test]
fn the_fingerprint_tells_weights_apart() {
    let halves: Vec<half::f16> = (0..TOKENS.len() * D).map(|i| half::f16::from_f32(i as f32)).collect();
    let f32s = || (GgmlType::F32, rows(1.0));
    let a = print_of(f32s(), 1.0, false);
    let requantized = print_of((GgmlType::F16, bytemuck::cast_slice(&halves).to_vec()), 1.0, false);
    let tuned = print_of((GgmlType::F32, rows(1.001)), 1.001, false);
    assert_eq!(Kinship::of(&a, &print_of(f32s(), 1.0, true)), Kinship::Same, "order of tensors");
    assert_eq!(Kinship::of(&a, &requantized), Kinship::Sibling);
    assert_eq!(Kinship::of(&a, &tuned), Kinship::Relative);
}

fn real(name: &str) -> Option<Model> {
    Some(Model::open(&support::model(name)?).unwrap())
}

#[test]
fn smollm_from_outside() {
    let Some(model) = real(support::SMOLLM) else { return };
    assert_eq!((model.architecture(), model.quantization()), ("llama", "Q4_1"));
    assert_eq!((model.n_layer(), model.d_model(), model.n_vocab(), model.context_length()), (30, 576, 49152, 8192));
    assert!(model.tied_unembedding() && !model.add_bos());
    assert_eq!((model.bos(), model.eos()), (Some(1), Some(2)));
    assert_eq!(model.token_text(1), Some("<|im_start|>"));
    assert_eq!(model.token_bytes(260).unwrap(), b" the");
    let norm = model.output_norm().unwrap();
    assert!(norm.iter().all(|w| w.is_finite()) && norm.iter().any(|w| *w > 1.0));
}

#[test]
fn gemma_from_outside() {
    let Some(model) = real(support::GEMMA) else { return };
    assert_eq!((model.architecture(), model.quantization()), ("gemma3", "Q4_K_M"));
    assert_eq!((model.n_layer(), model.d_model(), model.n_vocab(), model.context_length()), (18, 640, 262_144, 32768));
    assert!(model.tied_unembedding() && model.add_bos());
    assert_eq!((model.bos(), model.eos()), (Some(2), Some(1)));
    assert_eq!(model.token_bytes(107).unwrap(), b"\n");
    let mut row = vec![0f32; 640];
    model.unembedding_row(262_143, &mut row).unwrap();
    assert!(row.iter().all(|x| x.is_finite()));
    assert_eq!(model.output_norm().unwrap().len(), 640);
}

/// The header with its vocabulary is read, and of the weights what a fingerprint needs.
#[test]
fn real_models_open_and_are_known_by_a_part_of_their_pages() {
    for name in [support::SMOLLM, support::GEMMA] {
        let Some(path) = support::model(name) else { continue };
        let known = support::cost::cost(|| assert_eq!(Model::open(&path).unwrap().fingerprint().len(), 64));
        let size = std::fs::metadata(&path).unwrap().len();
        eprintln!("{name}: {size} bytes; {known:?}");
        assert!(known.read < 1 << 20 && 65_536 * known.faults < size, "{name}: {known:?} of {size} bytes");
    }
}

#[test]
fn the_two_real_models_are_strangers() {
    let (Some(a), Some(b)) = (real(support::SMOLLM), real(support::GEMMA)) else { return };
    assert_eq!(Kinship::of(a.fingerprint(), b.fingerprint()), Kinship::Stranger);
}

#[cfg(feature = "engine")]
#[test]
fn every_token_is_spelt_as_llama_cpp_spells_it() {
    for name in [support::SMOLLM, support::GEMMA] {
        let Some(path) = support::model(name) else { continue };
        let model = Model::open(&path).unwrap();
        let theirs = llama_pieces(&path, model.n_vocab());
        assert_eq!(theirs.special, (model.bos(), model.eos(), model.add_bos()));
        for (id, piece) in (0i32..).zip(&theirs.pieces) {
            let ours = model.token_bytes(id).unwrap();
            assert_eq!(ours, *piece, "{name}: token {id}, {:?}", model.token_text(id));
        }
    }
}

#[cfg(feature = "engine")]
struct Pieces {
    pieces: Vec<Vec<u8>>,
    special: (Option<i32>, Option<i32>, bool),
}

/// llama.cpp's own spelling of all tokens of the model at `path`, which it opens for its vocabulary only.
#[cfg(feature = "engine")]
fn llama_pieces(path: &std::path::Path, n: usize) -> Pieces {
    let c_path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: plain calls of llama.cpp's interface with a valid path; the model is freed once, after its last use.
    unsafe {
        let mut params = ggml_sys::llama_model_default_params();
        params.vocab_only = true;
        let model = ggml_sys::llama_model_load_from_file(c_path.as_ptr(), params);
        assert!(!model.is_null());
        let vocab = ggml_sys::llama_model_get_vocab(model);
        assert_eq!(ggml_sys::llama_vocab_n_tokens(vocab) as usize, n);
        let mut buffer = [0u8; 1024];
        let mut piece = |id| {
            let written = ggml_sys::llama_token_to_piece(vocab, id, buffer.as_mut_ptr().cast(), 1024, 0, true);
            buffer[..usize::try_from(written).unwrap()].to_vec()
        };
        let pieces = (0..n as i32).map(&mut piece).collect();
        let known = |id: i32| (id >= 0).then_some(id);
        let special = (
            known(ggml_sys::llama_vocab_bos(vocab)),
            known(ggml_sys::llama_vocab_eos(vocab)),
            ggml_sys::llama_vocab_get_add_bos(vocab),
        );
        ggml_sys::llama_model_free(model);
        Pieces { pieces, special }
    }
}
