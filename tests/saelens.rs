//! SAELens directories: the codes of SAELens' own encode (tests/data/saelens/make.py), and configurations gone wrong.

use std::path::{Path, PathBuf};

use tiller::Kind;
use tiller::dictionary::{Activation, Dictionary, Normalization};
use tiller::file::gguf::GgmlType;
use tiller::file::safetensors::{Dtype, File, Writer};

const D_IN: usize = 8;
const D_SAE: usize = 12;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/saelens").join(name)
}

/// Largest difference over the largest value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[track_caller]
fn check_golden(dictionary: &Dictionary, golden: &File, tolerance: f32, what: &str) {
    let read = |name| golden.tensor(name).unwrap().to_f32().unwrap().into_owned();
    let (rows, codes, reconstructions) = (read("x"), read("codes"), read("reconstruction"));
    let batch = dictionary.encode_batch(&rows, 2);
    for (r, x) in rows.chunks_exact(D_IN).enumerate() {
        let expected = &codes[r * D_SAE..(r + 1) * D_SAE];
        let mut f = vec![0.0; D_SAE];
        dictionary.encode(x, &mut f);
        assert!(error(&f, expected) <= tolerance, "{what} row {r}: {f:?} for {expected:?}");
        let active = |f: &[f32]| f.iter().map(|v| *v > 0.0).collect::<Vec<_>>();
        assert_eq!(active(&f), active(expected), "{what} row {r}");
        let mut x_hat = vec![0.0; D_IN];
        dictionary.reconstruct(x, batch.row(r), &mut x_hat);
        let expected = &reconstructions[r * D_IN..(r + 1) * D_IN];
        assert!(error(&x_hat, expected) <= tolerance, "{what} row {r}: {x_hat:?} for {expected:?}");
    }
}

#[test]
fn codes_and_reconstructions_are_those_of_saelens() {
    for (name, activation, normalization, apply, layer) in [
        ("standard", Activation::Relu, Normalization::None, true, 4),
        ("standard_layer_norm", Activation::Relu, Normalization::LayerNorm, false, 4),
        ("topk_rescaled_constant_norm", Activation::TopK { k: 3 }, Normalization::ConstantNorm, true, 4),
        ("jumprelu_bf16", Activation::JumpRelu, Normalization::None, false, 4),
        ("gated", Activation::Gated, Normalization::None, true, 4),
        ("batchtopk", Activation::JumpRelu, Normalization::None, true, 4),
        ("matryoshka", Activation::JumpRelu, Normalization::None, true, 4),
        // blocks.8.hook_resid_pre is the output of layer 7.
        ("flat_topk", Activation::TopK { k: 4 }, Normalization::None, true, 7),
    ] {
        let dictionary = Dictionary::open(&data(name)).unwrap();
        let settings = dictionary.settings();
        assert_eq!((settings.activation, settings.normalization), (activation, normalization), "{name}");
        assert_eq!((settings.apply_b_dec_to_input, dictionary.layer()), (apply, Some(layer)), "{name}");
        let golden = File::open(&data(name).join("golden.safetensors")).unwrap();
        check_golden(&dictionary, &golden, 1e-5, name);
        // Converted, it is the same dictionary.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        dictionary.save_gguf(&path, GgmlType::F32).unwrap();
        let converted = Dictionary::open(&path).unwrap();
        assert_eq!(converted.info(), dictionary.info());
        check_golden(&converted, &golden, 1e-5, &format!("{name}, converted"));
    }
    assert_eq!(Dictionary::open(&data("jumprelu_bf16")).unwrap().storage(), "BF16");
}

/// A copy of a fixture, with its configuration changed and its tensors replaced or left out.
#[allow(clippy::type_complexity)]
fn altered(
    name: &str,
    config: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
    tensors: &[(&str, Option<(&[usize], Vec<f32>)>)],
) -> (tempfile::TempDir, tiller::Result<Dictionary>) {
    let dir = tempfile::tempdir().unwrap();
    let mut json = serde_json::from_slice(&std::fs::read(data(name).join("cfg.json")).unwrap()).unwrap();
    config(&mut json);
    std::fs::write(dir.path().join("cfg.json"), serde_json::to_vec(&json).unwrap()).unwrap();
    let file = File::open(&data(name).join("sae_weights.safetensors")).unwrap();
    let mut out = Writer::new();
    for name in file.names().filter(|n| !tensors.iter().any(|t| t.0 == *n)) {
        let view = file.tensor(name).unwrap();
        out.tensor(name, view.dtype(), view.shape(), view.bytes());
    }
    for (name, tensor) in tensors {
        if let Some((shape, values)) = tensor {
            out.tensor(name, Dtype::F32, shape, bytemuck::cast_slice::<f32, u8>(values).to_vec());
        }
    }
    out.write(&dir.path().join("sae_weights.safetensors")).unwrap();
    let opened = Dictionary::open(dir.path());
    (dir, opened)
}

#[track_caller]
fn refused(opened: (tempfile::TempDir, tiller::Result<Dictionary>), kind: Kind, parts: &[&str]) {
    let error = opened.1.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.message().contains(part), "\"{part}\" is not in: {error}");
    }
}

#[test]
fn an_unknown_architecture_is_named() {
    let refused = |kind: &str, what: &str| {
        let changed = altered("standard", |c| drop(c.insert("architecture".into(), kind.into())), &[]);
        refused(changed, Kind::Unsupported, &["cfg.json", "\"architecture\"", what, &format!("\"{kind}\"")]);
    };
    refused("spectral", "jumprelu");
    refused("temporal", "earlier rows");
    refused("matching_pursuit", "one after the other");
    refused("abs_topk", "negative");
}

#[test]
fn an_unknown_normalization_is_named() {
    let insert =
        |c: &mut serde_json::Map<_, _>| drop(c.insert("normalize_activations".into(), "covariance_whitening".into()));
    refused(altered("standard", insert, &[]), Kind::Unsupported, &["layer_norm", "\"covariance_whitening\""]);
}

#[test]
fn a_flat_top_k_without_k_is_not_read_as_relu() {
    let changed = altered("flat_topk", |c| drop(c.remove("activation_fn_kwargs")), &[]);
    refused(changed, Kind::Format, &["\"activation_fn_kwargs\"", "an integer \"k\""]);
}

#[test]
fn another_activation_of_a_flat_configuration_is_refused() {
    let changed = altered("flat_topk", |c| drop(c.insert("activation_fn_str".into(), "tanh-relu".into())), &[]);
    refused(changed, Kind::Unsupported, &["relu or topk", "\"tanh-relu\""]);
}

#[test]
fn a_missing_tensor_is_named() {
    refused(altered("jumprelu_bf16", |_| (), &[("threshold", None)]), Kind::Format, &["\"threshold\"", "W_dec"]);
    refused(altered("gated", |_| (), &[("r_mag", None)]), Kind::Format, &["\"r_mag\""]);
    refused(altered("standard", |_| (), &[("W_enc", None)]), Kind::Format, &["\"W_enc\""]);
}

/// Shapes say how a matrix lies; that it is not how SAELens writes it is noted.
#[test]
fn a_transposed_encoder_is_read_by_its_shape() {
    let golden = File::open(&data("standard").join("golden.safetensors")).unwrap();
    let file = File::open(&data("standard").join("sae_weights.safetensors")).unwrap();
    let w = file.tensor("W_enc").unwrap().to_f32().unwrap().into_owned();
    let turned = (0..D_SAE * D_IN).map(|i| w[i % D_IN * D_SAE + i / D_IN]).collect();
    let changed = altered("standard", |_| (), &[("W_enc", Some(([D_SAE, D_IN].as_slice(), turned)))]).1.unwrap();
    check_golden(&changed, &golden, 1e-5, "turned");
    assert!(changed.info().notes.iter().any(|n| n.contains("the other way round")));
    let w = Some(([D_SAE * D_IN].as_slice(), vec![0.0; D_SAE * D_IN]));
    refused(altered("standard", |_| (), &[("W_enc", w)]), Kind::Format, &["\"W_enc\"", "[8, 12]", "[96]"]);
}

#[test]
fn a_width_that_the_tensors_do_not_have_is_refused() {
    let changed = altered("standard", |c| drop(c.insert("d_in".into(), 16.into())), &[]);
    refused(changed, Kind::Format, &["\"W_enc\"", "[16, 12]", "[8, 12]"]);
    refused(altered("standard", |c| drop(c.remove("d_sae")), &[]), Kind::Format, &["\"d_sae\"", "found nothing"]);
    let zero = altered("standard", |c| drop(c.insert("d_in".into(), 0.into())), &[]);
    refused(zero, Kind::Format, &["\"d_in\"", "found 0"]);
}

#[test]
fn a_nan_threshold_is_refused() {
    let nan = Some(([D_SAE].as_slice(), [vec![1.0; 3], vec![f32::NAN], vec![1.0; 8]].concat()));
    refused(altered("batchtopk", |_| (), &[("threshold", nan)]), Kind::Format, &["threshold", "NaN at 3"]);
}

#[test]
fn a_configuration_that_is_no_json_or_no_directory_of_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let error = Dictionary::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Format);
    assert!(error.message().contains("sae_weights.safetensors"), "{error}");
    std::fs::write(dir.path().join("cfg.json"), b"{\"d_in\": 1, \"d_sae\": 1}").unwrap();
    std::fs::write(dir.path().join("sae_weights.safetensors"), b"").unwrap();
    let error = Dictionary::open(dir.path()).unwrap_err();
    assert!(error.message().contains("sae_weights.safetensors") && error.message().contains("empty"), "{error}");
    let weights = data("standard").join("sae_weights.safetensors");
    std::fs::copy(weights, dir.path().join("sae_weights.safetensors")).unwrap();
    std::fs::write(dir.path().join("cfg.json"), b"[1]").unwrap();
    let error = Dictionary::open(dir.path()).unwrap_err();
    assert!(error.message().contains("cfg.json: expected a JSON object"), "{error}");
}

/// SAELens multiplies activations by the factor before decoding: folded into the decoder here.
#[test]
fn finetuning_factors_scale_the_decoder() {
    let factor = Some(([D_SAE].as_slice(), (0..D_SAE).map(|i| 1.0 + i as f32).collect()));
    let changed = altered("standard", |_| (), &[("scaling_factor", factor)]).1.unwrap();
    let plain = Dictionary::open(&data("standard")).unwrap();
    let (mut a, mut b) = (vec![0.0; D_IN], vec![0.0; D_IN]);
    for i in 0..D_SAE {
        changed.decoder_row(i, &mut a);
        plain.decoder_row(i, &mut b);
        b.iter_mut().for_each(|v| *v *= 1.0 + i as f32);
        assert_eq!(a, b);
    }
    assert!(changed.info().notes.iter().any(|n| n.contains("finetuning")));
    assert!(plain.info().notes.is_empty());
}

/// The constant lies outside of the directory: applied if it is there, said in a note if not.
#[test]
fn expected_average_without_its_constant_is_noted() {
    let average = |c: &mut serde_json::Map<String, serde_json::Value>| {
        c.insert("normalize_activations".into(), "expected_average_only_in".into());
    };
    let unknown = altered("standard", average, &[]).1.unwrap();
    assert_eq!(unknown.settings().normalization, Normalization::None);
    assert!(unknown.info().notes.iter().any(|n| n.contains("mean norm")), "{:?}", unknown.info());
    let known = |c: &mut serde_json::Map<String, serde_json::Value>| {
        average(c);
        c.insert("norm_scaling_factor".into(), 0.25.into());
    };
    let known = altered("standard", known, &[]).1.unwrap();
    assert_eq!(known.settings().normalization, Normalization::ExpectedAverage { scale: 0.25 });
}

/// Rows of models that TransformerLens centred have no mean; models with RMS norms are never centred.
#[test]
fn centred_models_have_their_mean_subtracted() {
    for (model, centred) in [("gpt2-small", true), ("gemma-2b", false)] {
        let config = |c: &mut serde_json::Map<String, serde_json::Value>| {
            let metadata = c.get_mut("metadata").unwrap().as_object_mut().unwrap();
            metadata.insert("model_from_pretrained_kwargs".into(), serde_json::json!({"center_writing_weights": true}));
            metadata.insert("model_name".into(), model.into());
        };
        let dictionary = altered("standard", config, &[]).1.unwrap();
        assert_eq!(dictionary.settings().center_input, centred, "{model}");
        let (mut f, mut shifted) = (vec![0.0; D_SAE], vec![0.0; D_SAE]);
        let x: Vec<f32> = (0..D_IN).map(|i| (i as f32).sin()).collect();
        dictionary.encode(&x, &mut f);
        dictionary.encode(&x.iter().map(|v| v + 100.0).collect::<Vec<_>>(), &mut shifted);
        assert_eq!(error(&shifted, &f) < 1e-4, centred, "{model}");
    }
}

/// Checkpoints of training hold one threshold for all features, or logarithms.
#[test]
fn thresholds_of_training_checkpoints() {
    let batch = |c: &mut serde_json::Map<String, serde_json::Value>| {
        c.insert("architecture".into(), "batchtopk".into());
        c.insert("k".into(), 3.0.into());
    };
    let scalar = Some(([].as_slice(), vec![2.5]));
    let dictionary = altered("batchtopk", batch, &[("threshold", None), ("topk_threshold", scalar)]).1.unwrap();
    assert_eq!(dictionary.activation(), Activation::BatchTopK { k: 3 });
    check_golden(&dictionary, &File::open(&data("batchtopk").join("golden.safetensors")).unwrap(), 1e-5, "checkpoint");
    let logs = Some(([D_SAE].as_slice(), vec![2.5f32.ln(); D_SAE]));
    let dictionary = altered("batchtopk", |_| (), &[("threshold", None), ("log_threshold", logs)]).1.unwrap();
    check_golden(&dictionary, &File::open(&data("batchtopk").join("golden.safetensors")).unwrap(), 1e-5, "logarithms");
}

#[test]
fn densities_come_from_the_sparsity_file() {
    let (dir, _) = altered("standard", |_| (), &[]);
    let mut out = Writer::new();
    let logs: Vec<f32> = (0..D_SAE).map(|i| -(i as f32)).collect();
    out.tensor("sparsity", Dtype::F32, &[D_SAE], bytemuck::cast_slice::<f32, u8>(&logs).to_vec());
    out.write(&dir.path().join("sparsity.safetensors")).unwrap();
    let dictionary = Dictionary::open(dir.path()).unwrap();
    let stats = dictionary.feature_stats().unwrap();
    assert!((stats[1].density - 0.1).abs() < 1e-6 && stats[11].density == 0.0, "{stats:?}");
    assert!(stats[0].mean.is_nan(), "unknown is not zero");
}
