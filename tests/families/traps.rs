//! Mistakes that other loaders made, silently: one test each.

use std::sync::Arc;

use tiller::dictionary::{Activation, Dictionary, Family, Normalization};
use tiller::file::gguf::GgmlType;
use tiller::file::safetensors::{Dtype, File, Writer};
use tiller::plan::{Plan, Route, Target};

use super::{Golden, copy, data, edit, error};

/// Qwen-Scope calls its matrices as SAELens does and lays them out the other way round; of square ones no shape tells.
#[test]
fn t4_a_square_decoder_lies_as_its_family_writes_it() {
    let dictionary = Dictionary::open(&data("SAE-Res-Qwen3-8B-Base-W16K-L0_3")).unwrap();
    assert_eq!((dictionary.d_model(), dictionary.n_features()), (16, 16));
    Golden::open("qwen_scope_square").check(&dictionary, 1e-4, "square");
}

/// A decoder that lies the other way round than its family writes it is read by its shape, and said to be.
#[test]
fn t4_shapes_win_over_names() {
    let (_dir, path) = copy("gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small");
    let file = File::open(&path.join("params.safetensors")).unwrap();
    let mut out = Writer::new();
    for name in file.names() {
        let view = file.tensor(name).unwrap();
        if name == "w_dec" {
            let values = view.to_f32().unwrap();
            let turned: Vec<f32> = (0..16 * 64).map(|i| values[i % 64 * 16 + i / 64]).collect();
            out.tensor(name, Dtype::F32, &[16, 64], bytemuck::cast_slice::<f32, u8>(&turned).to_vec());
        } else {
            out.tensor(name, view.dtype(), view.shape(), view.bytes().to_vec());
        }
    }
    out.write(&path.join("params.safetensors")).unwrap();
    let dictionary = Dictionary::open(&path).unwrap();
    Golden::open("gemma_scope_2").check(&dictionary, 1e-4, "turned");
    assert!(dictionary.info().notes.iter().any(|n| n.contains("w_dec lies the other way round")));
}

/// sparsify's decoder is feature-major as it lies, and b_dec is subtracted whatever `normalize_decoder` says: SAELens'
/// loader of sparsify transposes the one and asks the other.
#[test]
fn t5_sparsify_is_read_as_sparsify_reads_it() {
    for normalize in [true, false] {
        let (_dir, path) = copy("sparsify/layers.10");
        edit(&path.join("cfg.json"), |c| drop(c.insert("normalize_decoder".into(), normalize.into())));
        let dictionary = Dictionary::open(&path).unwrap();
        assert!(dictionary.settings().apply_b_dec_to_input);
        Golden::open("sparsify_topk").check(&dictionary, 1e-4, "sparsify");
    }
}

/// Autoencoders that subtract b_dec and transcoders that do not.
#[test]
fn t5_a_transcoder_leaves_its_input_alone() {
    let dictionary = Dictionary::open(&data("sparsify/layers.3.mlp")).unwrap();
    assert!(!dictionary.settings().apply_b_dec_to_input && dictionary.settings().transcodes);
    assert!(dictionary.has_skip());
}

/// TopK whose directory calls itself standard: codes have k entries, not half of all.
#[test]
fn t6_top_k_is_not_read_as_relu() {
    let saelens = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/saelens/flat_topk");
    let dictionary = Dictionary::open(&saelens).unwrap();
    assert_eq!(dictionary.activation(), Activation::TopK { k: 4 });
    let dictionary = Dictionary::open(&data("sparsify/layers.10")).unwrap();
    let codes = dictionary.encode_batch(&Golden::open("sparsify_topk").x, 1);
    assert!(codes.rows().all(|row| row.len() == 8));
}

/// The constant of the data set is applied where the files have it, and asked for where they do not.
#[test]
fn t7_the_constant_of_inputs_is_kept() {
    let path = "Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x";
    let scale = 4.0 / 6.5;
    let dictionary = Dictionary::open(&data(path)).unwrap();
    assert_eq!(dictionary.settings().normalization, Normalization::ExpectedAverage { scale });
    // Lost and given back by hand: the same codes. (The threshold of Llama Scope needs it as well.)
    let r1 = "Llama-Scope-R1-Distill/400M-Slimpajama-400M-OpenR1-Math-220k/L7R";
    let (_dir, path) = copy(r1);
    let file = File::open(&path.join("sae_weights.safetensors")).unwrap();
    let mut out = Writer::new();
    for name in file.names().filter(|name| !name.starts_with("dataset_average")) {
        let view = file.tensor(name).unwrap();
        out.tensor(name, view.dtype(), view.shape(), view.bytes().to_vec());
    }
    out.write(&path.join("sae_weights.safetensors")).unwrap();
    let lost = Dictionary::open(&path).unwrap();
    assert_eq!(lost.settings().normalization, Normalization::None);
    assert!(lost.info().notes.iter().any(|n| n.contains("mean norm")), "{:?}", lost.info());
    Golden::open("llama_scope_r1").check(&lost.with_input_scale(4.0 / 7.0).unwrap(), 1e-4, "scaled by hand");
}

/// Folding c into a copy for SAELens changes neither codes nor reconstructions, b_dec included.
#[test]
fn t7_folding_forgets_no_bias() {
    let golden = Golden::open("llama_scope");
    let path = "Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x";
    let dir = tempfile::tempdir().unwrap();
    Dictionary::open(&data(path)).unwrap().save_saelens(dir.path()).unwrap();
    let folded = Dictionary::open(dir.path()).unwrap();
    assert_eq!(folded.settings().normalization, Normalization::None);
    golden.check(&folded, 1e-4, "folded");
}

/// Who says nothing of b_dec means what its own loader takes: SAELens subtracts, Gemma Scope and Llama Scope do not.
#[test]
fn t8_each_family_has_its_own_default_for_the_decoder_bias() {
    let saelens = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/saelens/standard");
    let dir = tempfile::tempdir().unwrap();
    super::copy_tree(&saelens, dir.path());
    edit(&dir.path().join("cfg.json"), |c| drop(c.remove("apply_b_dec_to_input")));
    for (path, applied) in [
        (dir.path().to_path_buf(), true),
        (data("sparsify/layers.10"), true),
        (data("gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small"), false),
        (data("Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x"), false),
        (data("qwen3-0.6b-transcoders"), false),
    ] {
        let dictionary = Dictionary::open(&path).unwrap();
        assert_eq!(dictionary.settings().apply_b_dec_to_input, applied, "{}", path.display());
    }
}

/// Rows of a model that was not centred have a mean that a dictionary of centred ones never saw; it survives conversion.
#[test]
fn t9_centred_rows_are_centred_in_every_copy() {
    let saelens = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/saelens/standard");
    let dir = tempfile::tempdir().unwrap();
    super::copy_tree(&saelens, dir.path());
    edit(&dir.path().join("cfg.json"), |c| {
        let metadata = c.get_mut("metadata").unwrap().as_object_mut().unwrap();
        metadata.insert("model_from_pretrained_kwargs".into(), serde_json::json!({"center_writing_weights": true}));
        metadata.insert("model_name".into(), "gpt2-small".into());
    });
    let dictionary = Dictionary::open(dir.path()).unwrap();
    let (gguf, other) = (dir.path().join("a.gguf"), dir.path().join("b"));
    dictionary.save_gguf(&gguf, GgmlType::F32).unwrap();
    dictionary.save_saelens(&other).unwrap();
    let x: Vec<f32> = (0..8).map(|i| (i as f32).sin()).collect();
    let shifted: Vec<f32> = x.iter().map(|v| v + 50.0).collect();
    for path in [gguf, other] {
        let copy = Dictionary::open(&path).unwrap();
        assert!(copy.settings().center_input);
        let (mut a, mut b) = (vec![0.0; 12], vec![0.0; 12]);
        dictionary.encode(&x, &mut a);
        copy.encode(&shifted, &mut b);
        assert!(error(&b, &a) < 1e-4);
        let (mut plain, mut moved) = (vec![0.0; 8], vec![0.0; 8]);
        let codes = copy.encode_batch(&shifted, 1);
        dictionary.reconstruct(&x, codes.row(0), &mut plain);
        copy.reconstruct(&shifted, codes.row(0), &mut moved);
        assert!(moved.iter().zip(&plain).all(|(m, p)| (m - p - 50.0).abs() < 1e-3), "the mean comes back");
    }
}

/// A transcoder's directions belong to the place that it writes; its codes to another, which no layer's output shows.
#[test]
fn t3_a_transcoder_steers_where_it_writes() {
    let plan = |op: &str, layer: &str| {
        let rule = format!("{{\"op\": \"{op}\", \"features\": [5], \"strength\": 2.0{layer}}}");
        Plan::from_json(&format!("{{\"version\": 1, \"rules\": [{rule}]}}")).unwrap()
    };
    let dictionary = Arc::new(Dictionary::open(&data("sparsify/layers.3.mlp")).unwrap());
    let compile = |plan: Plan| plan.compile(&[("d", dictionary.clone())], &Target::new(8, 16), Route::Callback);
    let compiled = compile(plan("add", "")).unwrap();
    let points: Vec<String> = compiled.points.keys().map(ToString::to_string).collect();
    assert_eq!(points, ["blocks.3.hook_resid_post"]);
    for layer in ["", ", \"layer\": 3", ", \"layer\": 2"] {
        let error = compile(plan("clamp", layer)).unwrap_err();
        for part in ["clamp", "blocks.3.mlp.hook_in", "blocks.3.hook_mlp_out", "`add` works, on layer 3"] {
            assert!(error.message().contains(part), "\"{part}\" is not in: {error}");
        }
    }
    assert_eq!(dictionary.check_model(16, 8, "").unwrap(), None);
    assert!(dictionary.check_model(16, 3, "").is_err(), "the model has no layer 3");
}

/// Clamping acts on silent features too: x + (v − 0)·d, with no mask of who was active.
#[test]
fn t12_a_silent_feature_can_be_clamped() {
    let path = "gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small";
    let dictionary = Dictionary::open_as(&data(path), Some(Family::GemmaScope)).unwrap();
    let golden = Golden::open("gemma_scope_2");
    let silent = golden.codes[..64].iter().position(|f| *f == 0.0).unwrap() as u32;
    let slice = dictionary.slice(&[silent]).unwrap();
    let (mut x, mut f, mut d) = (golden.x[..16].to_vec(), [9.0], [0.0; 16]);
    slice.encode(&x, &mut f);
    assert_eq!(f, [0.0]);
    slice.edit(&[5.0 - f[0]], &mut x);
    dictionary.decoder_row(silent as usize, &mut d);
    let expected: Vec<f32> = golden.x[..16].iter().zip(d).map(|(x, d)| x + 5.0 * d).collect();
    assert!(error(&x, &expected) < 1e-6);
}
