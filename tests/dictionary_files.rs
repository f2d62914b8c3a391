//! Our GGUF dictionaries: round trips in every type, and files gone wrong, each with its message.

use std::path::Path;

use rand::Rng;
use tiller::dictionary::{Activation, Dictionary, FeatureStats, Gate, Info, Normalization, Parts, Settings};
use tiller::file::gguf::{GgmlType, Gguf, Value, Writer};
use tiller::{Kind, num};

const D: usize = 64;
const F: usize = 50;

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = num::rng(seed);
    (0..n).map(|_| rng.random_range(-1f32..1.0)).collect()
}

fn parts(activation: Activation) -> Parts {
    Parts {
        d_model: D,
        encoder: random(F * D, 1),
        decoder: random(F * D, 2),
        encoder_bias: random(F, 3),
        decoder_bias: random(D, 4),
        threshold: Some(random(F, 5).iter().map(|v| v + 1.0).collect()),
        gate: (activation == Activation::Gated).then(|| Gate { bias: random(F, 6), log_scale: random(F, 7) }),
        stats: Some((0..F).map(|i| FeatureStats { density: i as f32, max: 2.0, mean: 1.0 }).collect()),
        settings: Settings::new(activation),
        info: Info {
            name: "n".to_owned(),
            model_name: "m".to_owned(),
            model_fingerprint: "ff".to_owned(),
            layer: Some(3),
            hook: "blocks.3.hook_resid_post".to_owned(),
            recipe: "{\"k\": 5}".to_owned(),
            notes: vec!["one".to_owned(), "two".to_owned()],
            ..Info::default()
        },
    }
}

/// Largest difference over the largest value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn every_activation_and_flag_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gguf");
    for activation in [
        Activation::Relu,
        Activation::TopK { k: 5 },
        Activation::GroupMax { k: 10 },
        Activation::BatchTopK { k: 7 },
        Activation::JumpRelu,
        Activation::Gated,
    ] {
        for normalization in [
            Normalization::None,
            Normalization::LayerNorm,
            Normalization::ConstantNorm,
            Normalization::ExpectedAverage { scale: 0.5 },
        ] {
            let mut parts = parts(activation);
            parts.settings.normalization = normalization;
            parts.settings.apply_b_dec_to_input = normalization == Normalization::None;
            parts.settings.center_input = normalization == Normalization::ConstantNorm;
            let made = Dictionary::from_parts(parts).unwrap();
            made.save_gguf(&path, GgmlType::F32).unwrap();
            let read = Dictionary::open(&path).unwrap();
            assert_eq!((read.info(), read.settings()), (made.info(), made.settings()));
            assert_eq!((read.thresholds(), read.feature_stats()), (made.thresholds(), made.feature_stats()));
            assert_eq!(read.stats(3).unwrap().density, 3.0);
            assert_eq!((read.storage(), read.hook_point()), ("F32", "blocks.3.hook_resid_post"));
            let (x, mut a, mut b) = (random(D, 9), vec![0.0; F], vec![0.0; F]);
            made.encode(&x, &mut a);
            read.encode(&x, &mut b);
            assert_eq!(a, b, "{activation:?} {normalization:?}");
            assert!(a.iter().any(|&v| v > 0.0));
        }
    }
}

#[test]
fn smaller_types_encode_nearly_alike() {
    let dir = tempfile::tempdir().unwrap();
    let made = Dictionary::from_parts(parts(Activation::Relu)).unwrap();
    let x = random(D, 9);
    let mut exact = vec![0.0; F];
    made.encode(&x, &mut exact);
    // Half a unit in the last place of 11 and 8 bits, half a step of 127; errors of 64 products mostly cancel.
    for (kind, tolerance, bytes) in
        [(GgmlType::F16, 1e-3, 2 * D), (GgmlType::BF16, 8e-3, 2 * D), (GgmlType::Q8_0, 8e-3, 34 * D / 32)]
    {
        let path = dir.path().join(kind.name());
        made.save_gguf(&path, kind).unwrap();
        let read = Dictionary::open(&path).unwrap();
        assert_eq!(read.storage().to_lowercase(), kind.name());
        assert_eq!(Gguf::open(&path).unwrap().tensor("enc.weight").unwrap().n_bytes, bytes * F);
        let mut f = vec![0.0; F];
        read.encode(&x, &mut f);
        assert!(error(&f, &exact) < tolerance, "{}: {}", kind.name(), error(&f, &exact));
        let codes = read.encode_batch(&x.repeat(6), 1);
        let mut dense = vec![0.0; F];
        codes.row(5).iter().for_each(|&(i, f)| dense[i as usize] = f);
        assert!(error(&dense, &f) < 1e-5, "{}", kind.name());
        let (mut a, mut b) = (vec![0.0; D], vec![0.0; D]);
        made.decoder_row(7, &mut a);
        read.decoder_row(7, &mut b);
        assert!(error(&b, &a) < tolerance);
        // Saved again as it is, nothing changes: quantizing is idempotent.
        let again = dir.path().join("again");
        read.save_gguf(&again, kind).unwrap();
        let weights = |path: &Path| {
            let file = Gguf::open(path).unwrap();
            file.data(file.tensor("enc.weight").unwrap()).to_vec()
        };
        if kind != GgmlType::Q8_0 {
            assert_eq!(weights(&again), weights(&path));
        }
    }
}

/// p·‖D‖ before the activation, f/‖D‖ after it: folded on saving, the codes stay.
#[test]
fn rescaling_by_decoder_norms_is_folded_on_saving() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gguf");
    for activation in [Activation::TopK { k: 5 }, Activation::JumpRelu, Activation::Gated] {
        let mut parts = parts(activation);
        parts.settings.rescale_by_decoder_norm = true;
        let made = Dictionary::from_parts(parts).unwrap();
        made.save_gguf(&path, GgmlType::F32).unwrap();
        let read = Dictionary::open(&path).unwrap();
        assert!(!read.settings().rescale_by_decoder_norm && (read.decoder_norm(4) - 1.0).abs() < 1e-6);
        for seed in 20..25 {
            let (x, mut a, mut b) = (random(D, seed), vec![0.0; F], vec![0.0; F]);
            made.encode(&x, &mut a);
            read.encode(&x, &mut b);
            assert!(error(&b, &a) < 1e-5, "{activation:?}: {b:?} for {a:?}");
        }
    }
}

#[test]
fn types_and_widths_that_cannot_be_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gguf");
    let made = Dictionary::from_parts(parts(Activation::Relu)).unwrap();
    let error = made.save_gguf(&path, GgmlType::Q4_0).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert!(error.message().contains("F32, F16, BF16 or Q8_0") && error.message().to_lowercase().contains("q4_0"));
    let narrow = Parts {
        d_model: 40,
        encoder: random(F * 40, 1),
        decoder: random(F * 40, 1),
        decoder_bias: random(40, 1),
        ..parts(Activation::Relu)
    };
    let narrow = Dictionary::from_parts(narrow).unwrap();
    let error = narrow.save_gguf(&path, GgmlType::Q8_0).unwrap_err();
    assert_eq!(error.message(), "Q8_0 needs a width that is a multiple of 32, found 40: choose F16");
    assert!(!path.exists());
    narrow.save_gguf(&path, GgmlType::F16).unwrap();
}

/// A file with d 32 and two features, as a list of keys and tensors to spoil.
struct Draft {
    keys: Vec<(&'static str, Value)>,
    tensors: Vec<(&'static str, Vec<usize>, GgmlType, Vec<u8>)>,
}

fn floats(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

impl Draft {
    fn new() -> Self {
        let keys: Vec<(&str, Value)> = vec![
            ("general.architecture", "sae".into()),
            ("sae.version", 1u32.into()),
            ("sae.activation", "jumprelu".into()),
            ("sae.apply_b_dec_to_input", true.into()),
        ];
        let tensors = vec![
            ("enc.weight", vec![32, 2], GgmlType::F32, floats(&[1.0; 64])),
            ("dec.weight", vec![32, 2], GgmlType::F32, floats(&[1.0; 64])),
            ("enc.bias", vec![2], GgmlType::F32, floats(&[0.0; 2])),
            ("dec.bias", vec![32], GgmlType::F32, floats(&[0.0; 32])),
            ("threshold", vec![2], GgmlType::F32, floats(&[0.0; 2])),
        ];
        Self { keys, tensors }
    }

    fn key(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.keys.retain(|k| k.0 != key);
        self.keys.push((key, value.into()));
        self
    }

    fn tensor(mut self, name: &'static str, shape: &[usize], kind: GgmlType, data: Vec<u8>) -> Self {
        self = self.without(name);
        self.tensors.push((name, shape.to_vec(), kind, data));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.keys.retain(|k| k.0 != name);
        self.tensors.retain(|t| t.0 != name);
        self
    }

    fn open(self) -> tiller::Result<Dictionary> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spoiled.gguf");
        let mut file = Writer::new();
        self.keys.into_iter().for_each(|(key, value)| file.set(key, value));
        for (name, shape, kind, data) in self.tensors {
            file.tensor(name, &shape, kind, data);
        }
        file.write(&path).unwrap();
        Dictionary::open(&path)
    }

    #[track_caller]
    fn refused(self, kind: Kind, parts: &[&str]) {
        let error = self.open().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        for part in ["spoiled.gguf"].iter().chain(parts) {
            assert!(error.message().contains(part), "\"{part}\" is not in: {error}");
        }
    }
}

#[test]
fn the_draft_itself_is_fine() {
    let dictionary = Draft::new().open().unwrap();
    assert_eq!((dictionary.d_model(), dictionary.n_features()), (32, 2));
}

#[test]
fn a_language_model_is_no_dictionary() {
    Draft::new().key("general.architecture", "llama").refused(Kind::Format, &["dictionary", "\"llama\""]);
    Draft::new().without("general.architecture").refused(Kind::Format, &["\"general.architecture\""]);
}

#[test]
fn another_version() {
    Draft::new().key("sae.version", 2u32).refused(Kind::Unsupported, &["expected version 1", "found 2"]);
}

#[test]
fn an_unknown_activation() {
    Draft::new().key("sae.activation", "gelu").refused(Kind::Unsupported, &["sae.activation", "batchtopk", "\"gelu\""]);
    Draft::new().key("sae.activation", 7u32).refused(Kind::Format, &["sae.activation", "a string"]);
}

#[test]
fn an_unknown_normalization() {
    Draft::new().key("sae.normalization", "whitening").refused(Kind::Unsupported, &["layer_norm", "\"whitening\""]);
}

#[test]
fn a_k_that_is_missing_or_out_of_range() {
    Draft::new().key("sae.activation", "topk").refused(Kind::Format, &["\"sae.k\""]);
    Draft::new().key("sae.activation", "topk").key("sae.k", 3u32).refused(Kind::Format, &["1 to 2", "found 3"]);
    Draft::new().key("sae.activation", "topk").key("sae.k", 0u32).refused(Kind::Format, &["1 to 2", "found 0"]);
}

#[test]
fn an_input_scale_that_is_no_positive_number() {
    let draft = || Draft::new().key("sae.normalization", "expected_average_only_in");
    draft().refused(Kind::Format, &["\"sae.input_scale\""]);
    draft().key("sae.input_scale", 0f32).refused(Kind::Format, &["\"sae.input_scale\"", "found 0"]);
    draft().key("sae.input_scale", f32::NAN).refused(Kind::Format, &["\"sae.input_scale\"", "NaN"]);
}

#[test]
fn a_missing_tensor() {
    for name in ["enc.weight", "dec.weight", "enc.bias", "dec.bias"] {
        Draft::new().without(name).refused(Kind::Format, &[&format!("\"{name}\"")]);
    }
    Draft::new().without("threshold").refused(Kind::Format, &["jumprelu", "thresholds"]);
    Draft::new().key("sae.activation", "gated").refused(Kind::Format, &["gate"]);
}

#[test]
fn half_a_gate_and_half_of_the_statistics() {
    let two = || floats(&[0.0; 2]);
    Draft::new().tensor("gate.bias", &[2], GgmlType::F32, two()).refused(Kind::Format, &["\"gate.log_scale\""]);
    Draft::new().tensor("stats.density", &[2], GgmlType::F32, two()).refused(Kind::Format, &["\"stats.max\""]);
}

#[test]
fn a_wrong_shape() {
    let f32s = |n: usize| floats(&vec![0.0; n]);
    let draft = |name, shape: &[usize]| Draft::new().tensor(name, shape, GgmlType::F32, f32s(shape.iter().product()));
    draft("enc.weight", &[64]).refused(Kind::Format, &["\"enc.weight\"", "[64]"]);
    draft("enc.weight", &[32, 1, 2]).refused(Kind::Format, &["\"enc.weight\"", "[32, 1, 2]"]);
    draft("enc.bias", &[3]).refused(Kind::Format, &["encoder bias", "expected 2 values", "found 3"]);
    draft("dec.bias", &[2]).refused(Kind::Format, &["decoder bias", "expected 32 values", "found 2"]);
    draft("threshold", &[1]).refused(Kind::Format, &["threshold", "expected 2 values", "found 1"]);
    draft("dec.bias", &[32, 1]).refused(Kind::Format, &["\"dec.bias\"", "one dimension"]);
}

#[test]
fn encoder_and_decoder_of_different_widths() {
    let dec = |shape: &[usize]| {
        let n = shape.iter().product();
        Draft::new().tensor("dec.weight", shape, GgmlType::F32, floats(&vec![0.0; n]))
    };
    dec(&[16, 2]).refused(Kind::Format, &["decoder", "[2, 32]", "(2, 16)"]);
    dec(&[32, 3]).refused(Kind::Format, &["decoder", "[2, 32]", "(3, 32)"]);
}

#[test]
fn an_empty_dictionary() {
    let draft = Draft::new()
        .tensor("enc.weight", &[32, 0], GgmlType::F32, Vec::new())
        .tensor("dec.weight", &[32, 0], GgmlType::F32, Vec::new())
        .tensor("enc.bias", &[0], GgmlType::F32, Vec::new())
        .tensor("threshold", &[0], GgmlType::F32, Vec::new());
    let dir = tempfile::tempdir().unwrap();
    // Writer or reader: somebody must say no.
    let refused = std::panic::catch_unwind(|| draft.open().is_err());
    drop(dir);
    assert!(refused.unwrap_or(true));
}

#[test]
fn a_type_that_is_not_ours() {
    let integers = Draft::new().tensor("dec.weight", &[32, 2], GgmlType::I32, vec![0; 4 * 64]);
    integers.refused(Kind::Unsupported, &["\"dec.weight\"", "found I32"]);
    // ggml's other types are ggml's to decode.
    let draft = Draft::new().tensor("dec.weight", &[32, 2], GgmlType::Q4_0, vec![0; 2 * 18]);
    match cfg!(feature = "engine") {
        true => assert_eq!(draft.open().unwrap().d_out(), 32),
        false => {
            draft.refused(Kind::Unsupported, &["\"dec.weight\"", "F32, F16, BF16 or Q8_0", "engine", "found Q4_0"])
        }
    }
    let halves = Draft::new().tensor("enc.bias", &[2], GgmlType::F16, vec![0; 4]);
    halves.refused(Kind::Format, &["\"enc.bias\"", "F32"]);
}

#[test]
fn nan_in_a_vector() {
    let nan = || floats(&[0.0, f32::NAN]);
    Draft::new().tensor("threshold", &[2], GgmlType::F32, nan()).refused(Kind::Format, &["threshold", "NaN at 1"]);
    Draft::new().tensor("enc.bias", &[2], GgmlType::F32, nan()).refused(Kind::Format, &["encoder bias", "NaN at 1"]);
}

/// An infinite threshold is how a feature is switched off.
#[test]
fn an_infinite_threshold_silences_its_feature() {
    let draft = Draft::new().tensor("threshold", &[2], GgmlType::F32, floats(&[f32::INFINITY, 0.0]));
    let mut f = [9.0; 2];
    draft.open().unwrap().encode(&[1.0; 32], &mut f);
    assert_eq!(f, [0.0, 32.0]);
}
