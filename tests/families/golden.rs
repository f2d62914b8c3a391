//! Codes and reconstructions are those of each family's own code, from its files and from our own copy of them.

use tiller::dictionary::{Activation, Dictionary, Family};
use tiller::file::gguf::GgmlType;

use super::{Golden, data};

const K: usize = 8;
const TOLERANCE: f32 = 1e-4;

/// A fixture: golden, path, family, activation, layer read, layer written.
type Case = (&'static str, &'static str, Family, Activation, Option<usize>, Option<usize>);

#[track_caller]
fn check((name, path, family, activation, layer, layer_out): Case) {
    let golden = Golden::open(name);
    let dictionary = Dictionary::open(&data(path)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(dictionary.activation(), activation, "{name}");
    assert_eq!((dictionary.layer(), dictionary.layer_out()), (layer, layer_out), "{name}: {:?}", dictionary.info());
    golden.check(&dictionary, TOLERANCE, name);
    let named = Dictionary::open_as(&data(path), Some(family)).unwrap();
    assert_eq!((named.info(), named.settings()), (dictionary.info(), dictionary.settings()), "{name}");
    // A fresh one: whole rows were never encoded, so nothing was turned round.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.gguf");
    let loss = named.convert(&copy, GgmlType::F32).unwrap();
    assert_eq!((loss.encoder.min, loss.decoder.min), (1.0, 1.0), "{name}");
    let copy = Dictionary::open(&copy).unwrap();
    assert_eq!((copy.info(), copy.has_skip()), (dictionary.info(), dictionary.has_skip()), "{name}");
    golden.check(&copy, TOLERANCE, &format!("{name}, converted"));
    // A few features, from the columns or rows of the file.
    if dictionary.slice(&[3]).unwrap().is_exact() {
        let ids: Vec<u32> = vec![7, 0, dictionary.n_features() as u32 - 1];
        let slice = Dictionary::open(&data(path)).unwrap().slice(&ids).unwrap();
        let (mut all, mut few) = (vec![0.0; dictionary.n_features()], [0.0; 3]);
        for x in golden.x.chunks_exact(dictionary.d_model()) {
            dictionary.encode(x, &mut all);
            slice.encode(x, &mut few);
            let expected: Vec<f32> = ids.iter().map(|&i| all[i as usize]).collect();
            assert!(super::error(&few, &expected) <= TOLERANCE, "{name}: {few:?} for {expected:?}");
        }
    }
}

#[test]
fn saelens_transcoders() {
    for (name, skip, activation) in [
        ("transcoder", false, Activation::Relu),
        ("skip_transcoder", true, Activation::Relu),
        ("jumprelu_skip_transcoder", true, Activation::JumpRelu),
    ] {
        let golden = format!("saelens_{name}");
        let path = format!("saelens/{name}");
        let dictionary = Dictionary::open(&data(&path)).unwrap();
        assert_eq!(dictionary.has_skip(), skip);
        assert_eq!(dictionary.d_out(), if name == "skip_transcoder" { 16 } else { 12 });
        assert_eq!(dictionary.info().hook_out, "blocks.4.hook_mlp_out");
        let (golden, path) = (golden.leak(), path.leak());
        check((golden, path, Family::Saelens, activation, None, Some(4)));
    }
}

#[test]
fn gemma_scope_2() {
    let of = |name, path, layer, out| (name, path, Family::GemmaScope, Activation::JumpRelu, layer, Some(out));
    check(of("gemma_scope_2", "gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small", Some(9), 9));
    let path = "gemma-scope-2-1b-pt/transcoder/layer_7_width_16k_l0_big_affine";
    check(of("gemma_scope_2_transcoder", path, None, 7));
    let info = Dictionary::open(&data(path)).unwrap().info().clone();
    assert_eq!((info.model_name.as_str(), info.l0), ("gemma-3-1b-pt", Some(20)));
}

#[test]
fn llama_scope() {
    let of = |name, path, layer, out| (name, path, Family::LlamaScope, Activation::JumpRelu, layer, Some(out));
    check(of("llama_scope", "Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x", Some(15), 15));
    check(of("llama_scope_transcoder", "Llama3_1-8B-Base-LXTC-8x/Llama3_1-8B-Base-L8TC-8x", None, 8));
    check(of("llama_scope_r1", "Llama-Scope-R1-Distill/400M-Slimpajama-400M-OpenR1-Math-220k/L7R", Some(7), 7));
    check(of("llama_scope_open_moss", "openmoss/L2R", Some(2), 2));
}

#[test]
fn sparsify() {
    let of = |name, path, activation, layer, out| (name, path, Family::Sparsify, activation, layer, Some(out));
    check(of("sparsify_topk", "sparsify/layers.10", Activation::TopK { k: K }, Some(10), 10));
    check(of("sparsify_groupmax", "sparsify/layers.11", Activation::GroupMax { k: K }, Some(11), 11));
    check(of("sparsify_transcoder", "sparsify/layers.3.mlp", Activation::TopK { k: K }, None, 3));
    let dictionary = Dictionary::open(&data("sparsify/layers.11")).unwrap();
    assert_eq!((dictionary.storage(), dictionary.info().model_name.as_str()), ("BF16", "HuggingFaceTB/SmolLM2-135M"));
}

#[test]
fn transcoders() {
    let of = |name, path, out| (name, path, Family::Transcoder, Activation::Relu, None, out);
    check(of("transcoder", "qwen3-0.6b-transcoders", Some(6)));
    check(of("transcoder", "qwen3-0.6b-transcoders/layer_6.safetensors", Some(6)));
    check(of("cross_layer_transcoder", "clt-gemma-2-2b/W_enc_2.safetensors", None));
    let dictionary = Dictionary::open(&data("clt-gemma-2-2b/W_enc_2.safetensors")).unwrap();
    assert_eq!(
        (dictionary.hook_point(), dictionary.info().model_name.as_str()),
        ("blocks.2.hook_resid_mid", "google/gemma-2-2b")
    );
    assert!(dictionary.info().notes.iter().any(|n| n.contains("3 layers")), "{:?}", dictionary.info().notes);
}

#[test]
fn gemma_scope_1() {
    let of = |name, path, layer, out| (name, path, Family::GemmaScope, Activation::JumpRelu, layer, out);
    check(of("gemma_scope", "gemma-scope-2b-pt-res/layer_5/width_16k/average_l0_7", Some(5), Some(5)));
    // Deflated.
    check(of("gemma_scope_deflated", "gemma-scope-2b-pt-mlp/layer_3/width_16k/average_l0_9", None, Some(3)));
    check(of("gemma_scope_embedding", "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", None, None));
    check(of("gemma_scope_transcoder", "gemma-scope-2b-pt-transcoders/layer_2/width_16k/average_l0_11", None, Some(2)));
    let info = |path| Dictionary::open(&data(path)).unwrap().info().clone();
    let residual = info("gemma-scope-2b-pt-res/layer_5/width_16k/average_l0_7");
    assert_eq!((residual.model_name.as_str(), residual.l0), ("gemma-2-2b", Some(7)));
    assert_eq!(residual.name, "layer_5/width_16k/average_l0_7");
    let transcoder = info("gemma-scope-2b-pt-transcoders/layer_2/width_16k/average_l0_11");
    assert_eq!(
        (transcoder.hook.as_str(), transcoder.hook_out.as_str()),
        ("blocks.2.ln2.hook_normalized", "blocks.2.hook_mlp_out")
    );
}

#[test]
fn dictionary_learning() {
    for (class, activation) in [
        ("AutoEncoder", Activation::Relu),
        ("AutoEncoderNew", Activation::Relu),
        ("GatedAutoEncoder", Activation::Gated),
        ("AutoEncoderTopK", Activation::TopK { k: K }),
        ("BatchTopKSAE", Activation::BatchTopK { k: K }),
        ("BatchTopKSAE_unset", Activation::BatchTopK { k: K }),
        ("MatryoshkaBatchTopKSAE", Activation::BatchTopK { k: K }),
        ("JumpReluAutoEncoder", Activation::JumpRelu),
    ] {
        let (golden, path) =
            (format!("dictionary_learning_{class}").leak(), format!("dictionary_learning/{class}").leak());
        check((golden, path, Family::DictionaryLearning, activation, Some(3), Some(3)));
        // What the tensors alone say.
        let alone = tempfile::tempdir().unwrap();
        std::fs::copy(data(path).join("ae.pt"), alone.path().join("ae.pt")).unwrap();
        let opened = Dictionary::open(alone.path());
        if matches!(class, "AutoEncoderTopK" | "BatchTopKSAE" | "BatchTopKSAE_unset") {
            assert!(opened.unwrap_err().message().contains("look alike"), "{class}");
        } else {
            assert_eq!(opened.unwrap().settings(), Dictionary::open(&data(path)).unwrap().settings(), "{class}");
        }
    }
    let info = Dictionary::open(&data("dictionary_learning/BatchTopKSAE_unset")).unwrap().info().clone();
    assert_eq!(info.model_name, "pythia-70m-deduped");
    assert!(info.notes.iter().any(|n| n.contains("never set")), "{:?}", info.notes);
    // DeepSeek-R1's, published without a configuration.
    let path = "DeepSeek-R1-Distill-Llama-8B-SAE-l15";
    check(("deepseek_r1", path, Family::DictionaryLearning, Activation::Relu, Some(15), Some(15)));
}

#[test]
fn openai() {
    let of = |name, path, activation, layer, out| (name, path, Family::OpenAi, activation, layer, Some(out));
    let path = "gpt2-small/resid_post_mlp_v5_32k/autoencoders/8.pt";
    check(of("openai_topk", path, Activation::TopK { k: K }, Some(8), 8));
    check(of("openai_relu", "gpt2-small/resid_delta_mlp/autoencoders/3.pt", Activation::Relu, None, 3));
    let dictionary = Dictionary::open(&data(path)).unwrap();
    assert!(dictionary.stats(2).unwrap().density > 0.0 && dictionary.stats(2).unwrap().max.is_nan());
}

#[test]
fn qwen_scope() {
    let of = |name, path, k, layer| (name, path, Family::QwenScope, Activation::TopK { k }, Some(layer), Some(layer));
    check(of("qwen_scope", "SAE-Res-Qwen3-1.7B-Base-W32K-L0_5", 5, 4));
    check(of("qwen_scope_square", "SAE-Res-Qwen3-8B-Base-W16K-L0_3/layer6.sae.pt", 3, 6));
    let info = Dictionary::open(&data("SAE-Res-Qwen3-1.7B-Base-W32K-L0_5")).unwrap().info().clone();
    assert_eq!((info.model_name.as_str(), info.name.as_str()), ("Qwen3-1.7B-Base", "layer4"));
}

#[test]
fn goodfire() {
    let path = "Llama-3.1-8B-Instruct-SAE-l19";
    check(("goodfire", path, Family::Goodfire, Activation::Relu, Some(19), Some(19)));
    let dictionary = Dictionary::open(&data(path)).unwrap();
    assert_eq!((dictionary.storage(), dictionary.info().model_name.as_str()), ("BF16", "Llama-3.1-8B-Instruct"));
}
