//! Configurations and weights gone wrong: an error that names the file and the key or the tensor, never a panic.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tiller::Kind;
use tiller::dictionary::{Dictionary, Family};
use tiller::file::safetensors::{Dtype, File, Writer};

use super::{copy, edit};

/// Fixtures with weights in safetensors: directory, weights, configuration.
const CASES: [(&str, &str, &str); 9] = [
    ("saelens/jumprelu_skip_transcoder", "sae_weights.safetensors", "cfg.json"),
    ("gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small", "params.safetensors", "config.json"),
    ("gemma-scope-2-1b-pt/transcoder/layer_7_width_16k_l0_big_affine", "params.safetensors", "config.json"),
    ("Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x", "checkpoints/final.safetensors", "hyperparams.json"),
    ("Llama-Scope-R1-Distill/400M-Slimpajama-400M-OpenR1-Math-220k/L7R", "sae_weights.safetensors", "config.json"),
    ("openmoss/L2R", "sae_weights.safetensors", "config.json"),
    ("sparsify/layers.11", "sae.safetensors", "cfg.json"),
    ("sparsify/layers.3.mlp", "sae.safetensors", "cfg.json"),
    ("qwen3-0.6b-transcoders", "layer_6.safetensors", "config.yaml"),
];

#[track_caller]
fn refused(opened: tiller::Result<Dictionary>, kind: Kind, parts: &[&str]) {
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.message().contains(part), "\"{part}\" is not in: {error}");
    }
}

/// Rewrites weights: `change` gives another shape and values for a tensor, or none to leave it out.
fn respell(path: &Path, change: impl Fn(&str, &[usize], Vec<f32>) -> Option<(Vec<usize>, Vec<f32>)>) {
    let file = File::open(path).unwrap();
    let mut out = Writer::new();
    for name in file.names() {
        let view = file.tensor(name).unwrap();
        if let Some((shape, values)) = change(name, view.shape(), view.to_f32().unwrap().into_owned()) {
            out.tensor(name, Dtype::F32, &shape, bytemuck::cast_slice::<f32, u8>(&values).to_vec());
        }
    }
    out.write(path).unwrap();
}

/// Whatever a key becomes: the same dictionary, another one, or an error that names the file; a wrong type is never taken.
#[test]
fn every_key_of_every_configuration_spoiled() {
    let mut refusals = 0;
    for (path, _, config) in CASES.iter().filter(|case| case.2.ends_with("json")) {
        let (_dir, dir) = copy(path);
        let original = std::fs::read(dir.join(config)).unwrap();
        let keys: Vec<String> =
            serde_json::from_slice::<serde_json::Map<String, Value>>(&original).unwrap().keys().cloned().collect();
        for key in keys {
            let spoiled = [
                None,
                Some(Value::Null),
                Some(json!("nonsense")),
                Some(json!(-1)),
                Some(json!(0)),
                Some(json!(1e308)),
                Some(json!(u64::MAX)),
                Some(json!(3.5)),
                Some(json!([1])),
                Some(json!({"k": "x", "in": "x"})),
                Some(json!(false)),
            ];
            for value in spoiled {
                std::fs::write(dir.join(config), &original).unwrap();
                edit(&dir.join(config), |c| match value.clone() {
                    Some(value) => drop(c.insert(key.clone(), value)),
                    None => drop(c.remove(&key)),
                });
                match Dictionary::open(&dir) {
                    Ok(dictionary) => {
                        // What was taken can be used.
                        let mut f = vec![0.0; dictionary.n_features()];
                        dictionary.encode(&vec![1.0; dictionary.d_model()], &mut f);
                    }
                    Err(error) => {
                        assert!(
                            error.message().contains("safetensors") || error.message().contains(config),
                            "{key}: {error}"
                        );
                        refusals += 1;
                    }
                }
            }
        }
    }
    assert!(refusals > 100, "only {refusals} were refused");
}

/// A tensor left out, cut short, made flat, or full of NaN.
#[test]
fn every_tensor_spoiled() {
    for (path, weights, config) in CASES {
        let (_dir, dir) = copy(path);
        let file = dir.join(weights);
        let original = std::fs::read(&file).unwrap();
        let names: Vec<String> = File::open(&file).unwrap().names().map(str::to_owned).collect();
        for name in names {
            let spoil = |how: u32| {
                std::fs::write(&file, &original).unwrap();
                respell(&file, |n, shape, mut values| {
                    if n != name {
                        return Some((shape.to_vec(), values));
                    }
                    match how {
                        0 => return None,
                        1 if values.len() > 1 => {
                            values.pop();
                            return Some((vec![values.len()], values));
                        }
                        2 => return Some((vec![0], Vec::new())),
                        3 => values[0] = f32::NAN,
                        _ => return Some(([shape, &[1]].concat(), values)),
                    }
                    Some((shape.to_vec(), values))
                });
                // By the family's name: without a tensor it may be nobody's, or another's.
                Dictionary::open(&dir)
            };
            for how in [0, 1, 2, 4] {
                // What some families do without.
                let optional =
                    ["W_skip", "affine_skip_connection", "dataset_average"].iter().any(|o| name.starts_with(o));
                match spoil(how) {
                    Err(error) => {
                        // What is missing among the tensors may have been looked for in the configuration.
                        let named = error.message().contains("safetensors") || error.message().contains(config);
                        assert!(named, "{path} {name} {how}: {error}");
                    }
                    Ok(_) => assert!(optional, "{path}: {name} spoiled by {how} was taken"),
                }
            }
            let (vector, opened) = (!name.to_lowercase().contains("w_") && !name.ends_with("weight"), spoil(3));
            if vector && !name.contains("skip") {
                refused(opened, Kind::Format, &["NaN"]);
            }
        }
    }
}

#[test]
fn k_of_none_and_of_more_than_all() {
    let (_dir, dir) = copy("sparsify/layers.10");
    let with = |key: &str, value: Value| {
        edit(&dir.join("cfg.json"), |c| drop(c.insert(key.into(), value)));
        Dictionary::open(&dir)
    };
    refused(with("k", json!(0)), Kind::Format, &["cfg.json", "\"k\"", "integer from 1", "found 0"]);
    refused(with("k", json!(65)), Kind::Format, &["sae.safetensors", "k: expected 1 to 64", "found 65"]);
    with("k", json!(64)).unwrap();
    with("activation", json!("groupmax")).unwrap();
    refused(with("k", json!(7)), Kind::Format, &["groupmax", "7 groups of 64"]);
    refused(with("activation", json!("gelu")), Kind::Unsupported, &["\"activation\"", "topk or groupmax", "\"gelu\""]);
}

#[test]
fn lying_sizes() {
    let (_dir, dir) = copy("sparsify/layers.10");
    let with = |value: Value| {
        edit(&dir.join("cfg.json"), |c| drop(c.insert("d_in".into(), value)));
        Dictionary::open(&dir)
    };
    refused(with(json!(17)), Kind::Format, &["\"encoder.weight\"", "64 features of width 17", "[64, 16]"]);
    refused(with(json!(4294967295u64)), Kind::Format, &["\"encoder.weight\"", "found shape [64, 16]"]);
    refused(with(json!(1u64 << 40)), Kind::Format, &["cfg.json", "\"d_in\""]);
}

#[test]
fn a_signed_top_k_is_refused() {
    let (_dir, dir) = copy("sparsify/layers.10");
    edit(&dir.join("cfg.json"), |c| drop(c.insert("signed".into(), true.into())));
    refused(Dictionary::open(&dir), Kind::Unsupported, &["cfg.json", "\"signed\""]);
}

#[test]
fn a_directory_of_nobody() {
    let dir = tempfile::tempdir().unwrap();
    refused(Dictionary::open(dir.path()), Kind::Format, &["expected a directory with weights", "found none"]);
    let write = |name: &str, tensor: &str| {
        let mut out = Writer::new();
        out.tensor(tensor, Dtype::F32, &[1], vec![0; 4]);
        out.write(&dir.path().join(name)).unwrap();
    };
    write("a.safetensors", "lm_head.weight");
    refused(
        Dictionary::open(dir.path()),
        Kind::Format,
        &["a.safetensors", "known family", "found tensors lm_head.weight"],
    );
    write("b.safetensors", "other");
    refused(Dictionary::open(dir.path()), Kind::Format, &["found 2", "a.safetensors to b.safetensors", "name one"]);
}

#[test]
fn files_that_are_missing() {
    let (_dir, dir) = copy("sparsify/layers.10");
    std::fs::remove_file(dir.join("cfg.json")).unwrap();
    refused(Dictionary::open(&dir), Kind::Format, &["cfg.json"]);
    refused(Dictionary::open(&dir.join("cfg.json")), Kind::Io, &["cfg.json"]);
    // Weights that say nothing of themselves are nobody's, not a transcoder's.
    let (_other, saelens) = copy("saelens/transcoder");
    std::fs::remove_file(saelens.join("cfg.json")).unwrap();
    refused(Dictionary::open(&saelens), Kind::Format, &["saelens: expected cfg.json"]);
    std::fs::rename(saelens.join("sae_weights.safetensors"), saelens.join("x.safetensors")).unwrap();
    refused(Dictionary::open(&saelens), Kind::Format, &["x.safetensors", "known family", "W_enc"]);
    std::fs::remove_file(dir.join("sae.safetensors")).unwrap();
    refused(Dictionary::open(&dir.join("sae.safetensors")), Kind::Io, &["sae.safetensors"]);
    refused(Dictionary::open(&dir), Kind::Format, &["layers.10"]);
    let (_dir, dir) = copy("clt-gemma-2-2b");
    std::fs::remove_file(dir.join("W_dec_2.safetensors")).unwrap();
    refused(Dictionary::open(&dir), Kind::Format, &["W_dec_2.safetensors", "found none"]);
}

/// Asked for a family that it is not of.
#[test]
fn another_family_by_name() {
    for (path, family, part) in [
        ("sparsify/layers.10", Family::Goodfire, "encoder_linear.bias"),
        ("sparsify/layers.10", Family::OpenAi, "latent_bias"),
        ("sparsify/layers.10", Family::Saelens, "\"d_sae\""),
        ("sparsify/layers.10", Family::Tiller, "layers.10"),
        ("qwen3-0.6b-transcoders", Family::GemmaScope, "threshold"),
        ("qwen3-0.6b-transcoders", Family::QwenScope, "k in the name of the directory"),
        ("qwen3-0.6b-transcoders", Family::LlamaScope, "hyperparams.json"),
        ("qwen3-0.6b-transcoders", Family::DictionaryLearning, "dict_class"),
    ] {
        let error = Dictionary::open_as(&super::data(path), Some(family)).unwrap_err();
        assert!(error.message().contains(part), "{family}: {error}");
    }
    let file: PathBuf = super::data("qwen3-0.6b-transcoders/layer_6.safetensors");
    assert!(Dictionary::open_as(&file, Some(Family::Tiller)).is_err());
}
