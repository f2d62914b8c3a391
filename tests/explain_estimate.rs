//! The estimators on files: a small model, shards of its rows and a dictionary whose features are its words.

use std::path::Path;
use std::slice;

use rand::Rng;
use tiller::activations::{Activations, Meta, RowType, Writer as Shards};
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::explain::harvested::{self, Data, data, lens, top_act, tuned_map};
use tiller::explain::lens::{Lens, Mode};
use tiller::explain::tuned::DEFAULT_RIDGE;
use tiller::explain::{Estimator, Explanations, Vocabulary};
use tiller::file::gguf::{Array, GgmlType, Writer};
use tiller::model::Model;
use tiller::num::rng;
use tiller::progress::silent;
use tiller::{Kind, Result};

/// Token 0 is a control token; token 1 + i is the word i with a space in front.
const N_WORDS: usize = 30;
const D_MODEL: usize = 32;
const N_ROWS: usize = 6000;

fn word(i: usize) -> String {
    let letter = |i: usize| char::from(b'a' + (i % 26) as u8);
    format!("wo{}{}", letter(i / 26), letter(i))
}

fn one_hot(at: usize, value: f32) -> Vec<f32> {
    (0..D_MODEL).map(|i| if i == at { value } else { 0.0 }).collect()
}

/// Unembedding rows are axes: word i is axis i.
fn model(dir: &Path) -> Model {
    let mut w = Writer::new();
    w.set("general.architecture", "llama");
    w.set("general.name", "Tiny");
    w.set("llama.block_count", 3u32);
    w.set("llama.embedding_length", D_MODEL as u32);
    w.set("llama.context_length", 128u64);
    w.set("llama.attention.layer_norm_rms_epsilon", 1e-6f32);
    w.set("tokenizer.ggml.model", "gpt2");
    let texts: Vec<String> =
        std::iter::once("<begin>".into()).chain((0..N_WORDS).map(|i| format!("Ġ{}", word(i)))).collect();
    w.set("tokenizer.ggml.tokens", Array::strings(&texts).unwrap());
    let kinds: Vec<i32> = (0..=N_WORDS).map(|i| if i == 0 { 3 } else { 1 }).collect();
    w.set("tokenizer.ggml.token_type", Array::numbers(&kinds));
    let embedding: Vec<f32> = (0..=N_WORDS).flat_map(|i| one_hot(i.wrapping_sub(1), 1.0)).collect();
    let bytes = |values: &[f32]| bytemuck::cast_slice(values).to_vec();
    w.tensor("token_embd.weight", &[D_MODEL, N_WORDS + 1], GgmlType::F32, bytes(&embedding));
    w.tensor("output_norm.weight", &[D_MODEL], GgmlType::F32, bytes(&[1.0; D_MODEL]));
    let path = dir.join("tiny.gguf");
    w.write(&path).unwrap();
    Model::open(&path).unwrap()
}

/// Rows of `layer`: the token's axis, which layer 1 writes `shift` further than the last one.
fn rows(
    dir: &Path,
    name: &str,
    model: &Model,
    layer: usize,
    shift: usize,
    change: impl FnOnce(&mut Meta),
) -> Activations {
    let mut meta = Meta {
        format: 1,
        model: model.name().into(),
        model_fingerprint: model.fingerprint().into(),
        layer,
        hook: "resid_post".into(),
        d_model: D_MODEL,
        dtype: RowType::F32,
        window: 60,
        n_rows: 0,
        shards: vec![],
        documents_done: 0,
        windows_done: 0,
        text: "text".into(),
        complete: false,
    };
    change(&mut meta);
    let (d_model, window) = (meta.d_model, meta.window);
    let path = dir.join(name);
    let mut shards = Shards::open(&path, meta, 2500).unwrap();
    // Other windows, other text.
    let mut random = rng(window as u64);
    let mut n_rows = 0;
    while n_rows < N_ROWS {
        let n = random.random_range(20..60);
        let tokens: Vec<i32> =
            (0..n).map(|i| if i == 0 { 0 } else { random.random_range(1..=N_WORDS as i32) }).collect();
        let noise = |v: f32, random: &mut rand_xoshiro::Xoshiro256PlusPlus| v + random.random_range(-0.05..0.05);
        let values: Vec<f32> = tokens
            .iter()
            .flat_map(|&t| one_hot(if t == 0 { D_MODEL } else { (t as usize - 1 + shift) % D_MODEL }, 4.0))
            .map(|v| noise(v, &mut random))
            .take(n * d_model)
            .collect();
        shards.window(&values, &tokens).unwrap();
        if shards.is_full() {
            shards.flush(1, 0).unwrap();
        }
        n_rows += n;
    }
    shards.finish(1, 0, true).unwrap();
    Activations::open(&path).unwrap()
}

/// Feature i is word i, in the language of a layer that is `shift` further.
fn dictionary(shift: usize, layer: usize) -> Dictionary {
    let axes: Vec<f32> = (0..N_WORDS).flat_map(|i| one_hot((i + shift) % D_MODEL, 1.0)).collect();
    let settings = Settings::new(Activation::Relu);
    Dictionary::from_parts(Parts {
        d_model: D_MODEL,
        encoder: axes.clone(),
        decoder: axes,
        encoder_bias: vec![-1.0; N_WORDS],
        decoder_bias: vec![0.0; D_MODEL],
        threshold: None,
        gate: None,
        stats: None,
        settings,
        info: Info { layer: Some(layer), ..Info::default() },
    })
    .unwrap()
}

fn all_words() -> Vocabulary {
    let text: Vec<String> = (0..N_WORDS).map(|i| format!("{} ", word(i)).repeat(100 - i)).collect();
    Vocabulary::from_texts(&text, N_WORDS).unwrap()
}

fn tokenize(text: &str) -> Result<Vec<i32>> {
    Ok((0..N_WORDS).filter(|i| text.trim() == word(*i)).map(|i| i as i32 + 1).collect())
}

/// The share of features whose first word is theirs.
fn led(all: &Explanations) -> f64 {
    let hits = all.list().iter().filter(|e| e.words.first().is_some_and(|(w, _)| *w == word(e.feature as usize)));
    hits.count() as f64 / N_WORDS as f64
}

#[test]
fn data_explains_shards() {
    let dir = tempfile::tempdir().unwrap();
    let (model, vocabulary) = (model(dir.path()), all_words());
    let (rows, dictionary) = (rows(dir.path(), "rows", &model, 1, 0, |_| ()), dictionary(0, 1));
    let mut steps = 0;
    let mut progress = |step: tiller::progress::Step<'_>| {
        steps += 1;
        step.done <= step.total
    };
    let options = Data { window: 8, max_rows: 0, ..Data::default() };
    let all = data(slice::from_ref(&rows), &model, &dictionary, &vocabulary, &options, &mut progress).unwrap();
    assert!(steps > 2);
    assert_eq!(led(&all), 1.0);
    let explanation = &all.list()[7];
    assert!((explanation.density.unwrap() - 1.0 / N_WORDS as f32).abs() < 0.01);
    assert!((explanation.mean.unwrap() - 3.0).abs() < 0.1, "4 less the bias, {:?}", explanation.mean);
    let header = all.header();
    assert_eq!((header.estimator, header.n_features, header.layer), (Estimator::Data, Some(30), Some(1)));
    let spared = rows.shards().iter().flat_map(|s| s.positions()).filter(|p| **p == 0).count();
    assert_eq!(header.n_tokens, Some((rows.n_rows() - spared) as u64));

    // The vocabulary of the harvested text holds every word, and none of the control token's.
    let harvested = harvested::vocabulary(slice::from_ref(&rows), &model, 100).unwrap();
    assert_eq!(harvested.len(), N_WORDS);
    assert_eq!(harvested.rank("begin"), None);

    // A sample of the windows says much the same.
    let options = Data { max_rows: 3000, ..options };
    let some = data(slice::from_ref(&rows), &model, &dictionary, &vocabulary, &options, &mut silent).unwrap();
    assert!(some.header().n_tokens.unwrap().abs_diff(3000) < 200);
    assert!(led(&some) > 0.9);

    // It is saved, found, and read back.
    let path = dir.path().join("e.jsonl");
    all.save(&path).unwrap();
    let found = Explanations::load(&path).unwrap().find(&[&word(4)], 1).unwrap();
    assert_eq!(found[0].feature, 4);
}

#[test]
fn lens_explains_directions_and_tuned_translates_them() {
    let dir = tempfile::tempdir().unwrap();
    let (model, vocabulary) = (model(dir.path()), all_words());
    let all = lens(&model, &dictionary(0, 1), &vocabulary, &tokenize, None, &Lens::default(), &mut silent).unwrap();
    assert_eq!(led(&all), 1.0);
    assert_eq!(all.header().mode.as_deref(), Some("mi/softmax"));
    let literal = Lens { mode: Mode::Literal, ..Lens::default() };
    assert_eq!(
        led(&lens(&model, &dictionary(0, 1), &vocabulary, &tokenize, None, &literal, &mut silent).unwrap()),
        0.0
    );

    let foreign = dictionary(5, 1);
    let blind = lens(&model, &foreign, &vocabulary, &tokenize, None, &Lens::default(), &mut silent).unwrap();
    assert_eq!(led(&blind), 0.0);
    let from = rows(dir.path(), "from", &model, 1, 5, |_| ());
    let to = rows(dir.path(), "to", &model, 2, 0, |_| ());
    let map = tuned_map(&from, &to, 2000, DEFAULT_RIDGE, 2, &mut silent).unwrap();
    let all = lens(&model, &foreign, &vocabulary, &tokenize, Some(&map), &Lens::default(), &mut silent).unwrap();
    assert_eq!(led(&all), 1.0);
    assert_eq!(all.header().estimator, Estimator::Tuned);
}

#[test]
fn top_act_shows_the_tokens_that_fire() {
    let dir = tempfile::tempdir().unwrap();
    let (model, vocabulary) = (model(dir.path()), all_words());
    let rows = rows(dir.path(), "rows", &model, 1, 0, |_| ());
    let (spans, all) =
        top_act(slice::from_ref(&rows), &model, &dictionary(0, 1), &vocabulary, 20, 2, &mut silent).unwrap();
    for (feature, spans) in spans.iter().enumerate() {
        assert_eq!(spans.len(), 20);
        assert!(spans.is_sorted_by(|a, b| a.activation >= b.activation));
        for span in spans {
            assert_eq!(span.tokens[span.at] as usize, feature + 1);
            assert_eq!(rows.token(span.row as usize), span.tokens[span.at]);
        }
    }
    assert_eq!(led(&all), 1.0);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (model, vocabulary) = (model(dir.path()), all_words());
    let explain = |rows: &Activations, dictionary: &Dictionary| {
        data(slice::from_ref(rows), &model, dictionary, &vocabulary, &Data::default(), &mut silent).map(|_| ())
    };
    let good = rows(dir.path(), "good", &model, 1, 0, |_| ());
    let refused = |result: Result<()>, part: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Mismatch, "{error}");
        assert!(error.message().contains(part), "{error}");
    };
    refused(explain(&good, &dictionary(0, 2)), "rows of layer 1, the dictionary is for layer 2");
    let stranger = |meta: &mut Meta| meta.model_fingerprint = "0".repeat(64);
    refused(explain(&rows(dir.path(), "other", &model, 1, 0, stranger), &dictionary(0, 1)), "the model is \"Tiny\"");
    // A fingerprint that is none says nothing.
    let unknown = |meta: &mut Meta| meta.model_fingerprint = "?".into();
    assert!(explain(&rows(dir.path(), "unknown", &model, 1, 0, unknown), &dictionary(0, 1)).is_ok());

    let fewer = {
        let narrow = rows(dir.path(), "narrow", &model, 1, 0, |meta| meta.d_model = D_MODEL - 1);
        refused(explain(&narrow, &dictionary(0, 1)), "rows are 31 wide, the dictionary is 32");
        narrow
    };
    let map = |to: &Activations| tuned_map(&good, to, 0, DEFAULT_RIDGE, 1, &mut silent).map(|_| ());
    refused(map(&fewer), "tuned: rows of widths 32 and 31");
    refused(map(&rows(dir.path(), "others", &model, 2, 1, |meta| meta.window = 61)), "row 1 is of different tokens");
    let cancelled =
        data(slice::from_ref(&good), &model, &dictionary(0, 1), &vocabulary, &Data::default(), &mut |_| false)
            .unwrap_err();
    assert_eq!(cancelled.kind(), Kind::Cancelled);
}
