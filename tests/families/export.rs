//! What is written for SAELens and sparsify is read back as the same dictionary. That their own code reads it too is shown by
//! tests/data/families/read_back.py.

use tiller::Kind;
use tiller::dictionary::{Activation, Dictionary, Normalization, Settings};
use tiller::file::gguf::GgmlType;

use super::{Golden, data};

const SAELENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/saelens/");

fn fixtures() -> Vec<(&'static str, std::path::PathBuf)> {
    [
        ("saelens_transcoder", "saelens/transcoder"),
        ("saelens_skip_transcoder", "saelens/skip_transcoder"),
        ("saelens_jumprelu_skip_transcoder", "saelens/jumprelu_skip_transcoder"),
        ("gemma_scope_2", "gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small"),
        ("gemma_scope_2_transcoder", "gemma-scope-2-1b-pt/transcoder/layer_7_width_16k_l0_big_affine"),
        ("llama_scope", "Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x"),
        ("llama_scope_r1", "Llama-Scope-R1-Distill/400M-Slimpajama-400M-OpenR1-Math-220k/L7R"),
        ("sparsify_topk", "sparsify/layers.10"),
        ("transcoder", "qwen3-0.6b-transcoders"),
    ]
    .map(|(golden, path)| (golden, data(path)))
    .into()
}

#[test]
fn saelens_directories_hold_the_same_dictionary() {
    for (name, path) in fixtures() {
        let dictionary = Dictionary::open(&path).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("sae");
        dictionary.save_saelens(&to).unwrap();
        let copy = Dictionary::open(&to).unwrap();
        Golden::open(name).check(&copy, 1e-4, name);
        assert_eq!((copy.hook_point(), copy.layer_out()), (dictionary.hook_point(), dictionary.layer_out()), "{name}");
    }
}

/// Every architecture and normalisation of SAELens' own, written again; statistics too.
#[test]
fn saelens_directories_written_again() {
    for name in [
        "standard",
        "standard_layer_norm",
        "topk_rescaled_constant_norm",
        "jumprelu_bf16",
        "gated",
        "batchtopk",
        "flat_topk",
    ] {
        let dictionary = Dictionary::open(std::path::Path::new(&format!("{SAELENS}{name}"))).unwrap();
        let dir = tempfile::tempdir().unwrap();
        dictionary.save_saelens(dir.path()).unwrap();
        let copy = Dictionary::open(dir.path()).unwrap();
        let x: Vec<f32> = (0..8 * 30).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let (a, b) = (dictionary.encode_batch(&x, 1), copy.encode_batch(&x, 1));
        assert!(a.n_active() > 20, "{name}");
        for (r, x) in x.chunks_exact(8).enumerate() {
            let ids = |row: &[(u32, f32)]| row.iter().map(|v| v.0).collect::<Vec<_>>();
            assert_eq!(ids(a.row(r)), ids(b.row(r)), "{name}");
            assert!(
                a.row(r).iter().zip(b.row(r)).all(|(a, b)| (a.1 - b.1).abs() <= 1e-4 * a.1.abs().max(1.0)),
                "{name}"
            );
            let (mut p, mut q) = (vec![0.0; 8], vec![0.0; 8]);
            dictionary.reconstruct(x, a.row(r), &mut p);
            copy.reconstruct(x, b.row(r), &mut q);
            assert!(super::error(&q, &p) < 1e-4, "{name}");
        }
    }
}

#[test]
fn sparsify_directories_hold_the_same_dictionary() {
    for (name, path, title) in [
        ("sparsify_topk", "sparsify/layers.10", "layers.10"),
        ("sparsify_groupmax", "sparsify/layers.11", "layers.11"),
        ("sparsify_transcoder", "sparsify/layers.3.mlp", "layers.3.mlp"),
    ] {
        let dictionary = Dictionary::open(&data(path)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join(title);
        dictionary.save_sparsify(&to).unwrap();
        let copy = Dictionary::open(&to).unwrap();
        Golden::open(name).check(&copy, 1e-4, name);
        assert_eq!((copy.layer(), copy.layer_out()), (dictionary.layer(), dictionary.layer_out()), "{name}");
    }
}

/// b_dec not subtracted, inputs scaled, activations rescaled: sparsify has a word for none of it, and gets the same codes.
#[test]
fn what_sparsify_cannot_say_is_folded() {
    let golden = Golden::open("sparsify_topk");
    let parts = |change: fn(&mut Settings)| {
        let from = Dictionary::open(&data("sparsify/layers.10")).unwrap();
        let (n, d) = (from.n_features(), from.d_model());
        let (mut encoder, mut decoder) = (vec![0.0; n * d], vec![0.0; n * d]);
        encoder.chunks_exact_mut(d).enumerate().for_each(|(i, row)| from.encoder_row(i, row));
        decoder.chunks_exact_mut(d).enumerate().for_each(|(i, row)| from.decoder_row(i, row));
        let mut settings = *from.settings();
        change(&mut settings);
        tiller::dictionary::Parts {
            d_model: d,
            encoder,
            decoder,
            encoder_bias: (0..n).map(|i| (i as f32).cos()).collect(),
            decoder_bias: from.decoder_bias().to_vec(),
            threshold: None,
            gate: None,
            stats: None,
            settings,
            info: from.info().clone(),
        }
    };
    let changes: [fn(&mut Settings); 3] = [
        |s| s.apply_b_dec_to_input = false,
        |s| s.rescale_by_decoder_norm = true,
        |s| s.normalization = Normalization::ExpectedAverage { scale: 0.3 },
    ];
    for change in changes {
        let made = Dictionary::from_parts(parts(change)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        made.save_sparsify(dir.path()).unwrap();
        let copy = Dictionary::open(dir.path()).unwrap();
        assert!(copy.settings().apply_b_dec_to_input && !copy.settings().rescale_by_decoder_norm);
        let (mut a, mut b, mut p, mut q) = (vec![0.0; 64], vec![0.0; 64], vec![0.0; 16], vec![0.0; 16]);
        for x in golden.x.chunks_exact(16) {
            made.encode(x, &mut a);
            copy.encode(x, &mut b);
            assert!(super::error(&b, &a) < 1e-4, "{:?}", made.settings());
            let codes: Vec<(u32, f32)> = (0u32..).zip(a.iter().copied()).filter(|v| v.1 > 0.0).collect();
            made.reconstruct(x, &codes, &mut p);
            copy.reconstruct(x, &codes, &mut q);
            assert!(super::error(&q, &p) < 1e-4, "{:?}", made.settings());
        }
    }
}

#[test]
fn what_a_family_cannot_say_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |result: tiller::Result<()>, part: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.message().contains(part), "{error}");
    };
    let open = |path| Dictionary::open(&data(path)).unwrap();
    let saelens = |name: &str| Dictionary::open(std::path::Path::new(&format!("{SAELENS}{name}"))).unwrap();
    refused(open("sparsify/layers.11").save_saelens(dir.path()), "SAELens has no groupmax");
    refused(open("sparsify/layers.3.mlp").save_saelens(dir.path()), "topk transcoder");
    refused(saelens("gated").save_sparsify(dir.path()), "sparsify has no activation gated");
    refused(saelens("standard").save_sparsify(dir.path()), "activation relu");
    refused(saelens("topk_rescaled_constant_norm").save_sparsify(dir.path()), "constant_norm_rescale");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A source whose files cannot be used as they lie is converted once; a changed source gets another copy.
#[test]
fn the_cache_holds_one_copy_of_each_state_of_a_source() {
    let (_dir, path) = super::copy("gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small");
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().join("made/on/demand");
    let golden = Golden::open("gemma_scope_2");
    let copies = || std::fs::read_dir(&cache).map_or(0, Iterator::count);
    for _ in 0..2 {
        let dictionary = Dictionary::open_cached(&path, None, &cache).unwrap();
        assert_eq!(dictionary.info().l0, Some(20));
        golden.check(&dictionary, 1e-4, "cached");
        assert_eq!(copies(), 1);
    }
    super::edit(&path.join("config.json"), |c| drop(c.insert("l0".into(), 33.into())));
    let dictionary = Dictionary::open_cached(&path, None, &cache).unwrap();
    assert_eq!((dictionary.info().l0, copies()), (Some(33), 2));
    // Both matrices of sparsify can be mapped: nothing to keep.
    Dictionary::open_cached(&data("sparsify/layers.10"), None, &cache).unwrap();
    assert_eq!(copies(), 2);
    assert_eq!(dictionary.activation(), Activation::JumpRelu);
}

#[test]
fn a_conversion_says_what_its_type_costs() {
    let dictionary = Dictionary::open(&data("gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gguf");
    for (kind, least) in [(GgmlType::F32, 1.0), (GgmlType::F16, 0.999999), (GgmlType::BF16, 0.99998)] {
        let loss = dictionary.convert(&path, kind).unwrap();
        for fidelity in [loss.encoder, loss.decoder] {
            assert!(fidelity.min >= least && fidelity.mean >= fidelity.min && fidelity.mean <= 1.0, "{kind}: {loss:?}");
        }
        assert!(kind != GgmlType::BF16 || loss.encoder.min < 1.0);
    }
}

/// Every fixture, written for others, opens again. With `TILLER_READ_BACK=DIR` the directories stay there, for SAELens and
/// sparsify to read: see tests/data/families/read_back.py.
#[test]
fn directories_for_others_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let to = std::env::var_os("TILLER_READ_BACK").map_or_else(|| dir.path().to_owned(), std::path::PathBuf::from);
    let check = |dictionary: &Dictionary, path: &std::path::Path| {
        let back = Dictionary::open(path).unwrap();
        let shape = |d: &Dictionary| (d.d_model(), d.n_features());
        assert_eq!(shape(&back), shape(dictionary), "{}", path.display());
    };
    let own = ["standard", "standard_layer_norm", "topk_rescaled_constant_norm", "jumprelu_bf16", "gated", "batchtopk"]
        .map(|name| (name, std::path::PathBuf::from(format!("{SAELENS}{name}"))));
    let fixtures = fixtures().into_iter().map(|(name, path)| (to.join("saelens").join(name), path));
    let own = own.into_iter().map(|(name, path)| (to.join("saelens_own").join(name), path));
    for (out, path) in fixtures.chain(own) {
        let dictionary = Dictionary::open(&path).unwrap();
        dictionary.save_saelens(&out).unwrap();
        check(&dictionary, &out);
    }
    for (name, path) in [
        ("sparsify_topk", "sparsify/layers.10"),
        ("sparsify_groupmax", "sparsify/layers.11"),
        ("sparsify_transcoder", "sparsify/layers.3.mlp"),
    ] {
        let (dictionary, out) = (Dictionary::open(&data(path)).unwrap(), to.join("sparsify").join(name));
        dictionary.save_sparsify(&out).unwrap();
        check(&dictionary, &out);
    }
}
