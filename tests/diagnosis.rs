//! Faults planted into the shipped dictionary are named, on rows of the model that it belongs to.
#![cfg(feature = "engine")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::Rng;
use tiller::Kind;
use tiller::dictionary::{Dictionary, Normalization, Parts, Settings};
use tiller::engine::{Document, Engine, Options, requantize};
use tiller::eval::diagnosis::{Cause, diagnose};
use tiller::eval::drift::drift;
use tiller::eval::self_test;
use tiller::hook_point::HookPoint;
use tiller::num::{norm, rng, stats};
use tiller::progress::silent;

const TEXT: &str = include_str!("../src/bin/tiller/selftest.txt");

/// The weights of a dictionary, to be changed.
fn parts(dictionary: &Dictionary) -> Parts {
    let (n, d) = (dictionary.n_features(), dictionary.d_model());
    let read = |row: fn(&Dictionary, usize, &mut [f32])| {
        let mut all = vec![0f32; n * d];
        all.chunks_exact_mut(d).enumerate().for_each(|(i, out)| row(dictionary, i, out));
        all
    };
    Parts {
        d_model: d,
        encoder: read(Dictionary::encoder_row),
        decoder: read(Dictionary::decoder_row),
        encoder_bias: dictionary.encoder_bias().to_vec(),
        decoder_bias: dictionary.decoder_bias().to_vec(),
        threshold: dictionary.thresholds().map(<[f32]>::to_vec),
        gate: None,
        stats: dictionary.feature_stats().map(<[_]>::to_vec),
        settings: *dictionary.settings(),
        info: dictionary.info().clone(),
    }
}

/// The same dictionary with decoder rows of other lengths: codes, biases and thresholds are divided by them.
fn with_norms(dictionary: &Dictionary) -> (Dictionary, Vec<f32>) {
    let mut parts = parts(dictionary);
    let mut rng = rng(5);
    let norms: Vec<f32> = (0..dictionary.n_features()).map(|_| rng.random_range(0.1..0.5)).collect();
    for (i, &n) in norms.iter().enumerate() {
        let row = i * parts.d_model..(i + 1) * parts.d_model;
        parts.decoder[row.clone()].iter_mut().for_each(|v| *v *= n);
        parts.encoder[row].iter_mut().for_each(|v| *v /= n);
        parts.encoder_bias[i] /= n;
        parts.threshold.as_mut().unwrap()[i] /= n;
    }
    (Dictionary::from_parts(parts).unwrap(), norms)
}

/// Row i becomes column i of a file that was meant the other way round.
fn transposed(rows: &[f32], n: usize, d: usize) -> Vec<f32> {
    let columns: Vec<f32> = (0..d).flat_map(|j| (0..n).map(move |i| rows[i * d + j])).collect();
    assert_eq!(columns.len(), n * d);
    columns
}

#[test]
fn planted_faults_are_named() {
    let _turn = support::turn();
    let Some(model) = support::model(support::SMOLLM) else { return };
    let path = support::shipped();
    let dictionary = Dictionary::open(Path::new(&path)).unwrap();
    let (n, d) = (dictionary.n_features(), dictionary.d_model());
    let own = dictionary.layer().unwrap();
    let mut engine =
        Engine::open(&model, &Options { threads: support::THREADS, context: 256, batch: 256, ..Options::default() })
            .unwrap();
    let tokens = engine.tokenize(TEXT, true).unwrap();
    let mut rows: BTreeMap<HookPoint, Vec<f32>> = BTreeMap::new();
    for window in tokens.chunks(256).take(2) {
        for layer in own - 2..=own + 2 {
            let all = engine.rows(window, layer).unwrap();
            rows.entry(layer.into()).or_default().extend_from_slice(&all[d..]);
        }
    }
    let norms: Vec<f32> = rows[&own.into()].chunks_exact(d).map(norm).collect();
    let scale = ((d as f64).sqrt() / stats::median(&norms)) as f32;
    let settings = *dictionary.settings();
    let set = |settings: Settings| dictionary.clone().with_settings(settings);
    let at = |layer: usize| {
        let mut info = dictionary.info().clone();
        (info.layer, info.hook) = (Some(layer), HookPoint::from(layer).to_string());
        dictionary.clone().with_info(info)
    };
    let scaled = || {
        // Trained on inputs times c: all that is not a direction is c times as large, and the file forgets c.
        let mut parts = parts(&dictionary);
        let biases = parts.encoder_bias.iter_mut().chain(&mut parts.decoder_bias);
        biases.chain(parts.threshold.as_mut().unwrap()).for_each(|v| *v *= scale);
        Dictionary::from_parts(parts).unwrap()
    };
    let (uneven, lengths) = with_norms(&dictionary);
    let folded: Vec<f32> = uneven.thresholds().unwrap().iter().zip(&lengths).map(|(t, n)| t * n).collect();
    let divided: Vec<f32> = uneven.thresholds().unwrap().iter().zip(&lengths).map(|(t, n)| t / n).collect();
    let logs: Vec<f32> = dictionary.thresholds().unwrap().iter().map(|t| t.ln()).collect();
    let weights = parts(&dictionary);
    let average = Normalization::ExpectedAverage { scale };
    let faults: Vec<(&str, Dictionary, Cause)> = vec![
        ("rows of the layer before", at(own - 1), Cause::Point(own.into())),
        ("rows of the layer after", at(own + 1), Cause::Point(own.into())),
        (
            "bias flag flipped",
            set(Settings { apply_b_dec_to_input: !settings.apply_b_dec_to_input, ..settings }),
            Cause::DecoderBias(settings.apply_b_dec_to_input),
        ),
        ("input scale dropped", scaled(), Cause::Normalization(average)),
        (
            "input scale where there is none",
            set(Settings { normalization: average, ..settings }),
            Cause::Normalization(Normalization::None),
        ),
        (
            "layer norm where there is none",
            set(Settings { normalization: Normalization::LayerNorm, ..settings }),
            Cause::Normalization(Normalization::None),
        ),
        (
            "decoder transposed",
            dictionary.clone().with_decoder(transposed(&weights.decoder, n, d)).unwrap(),
            Cause::DecoderTransposed,
        ),
        (
            "encoder transposed",
            dictionary.clone().with_encoder(transposed(&weights.encoder, n, d)).unwrap(),
            Cause::EncoderTransposed,
        ),
        ("threshold not unfolded", uneven.clone().with_thresholds(folded).unwrap(), Cause::ThresholdOverNorm),
        ("threshold unfolded twice", uneven.clone().with_thresholds(divided).unwrap(), Cause::ThresholdTimesNorm),
        ("logarithms of thresholds", dictionary.clone().with_thresholds(logs).unwrap(), Cause::ThresholdExp),
        (
            "decoder norms applied",
            uneven.clone().with_settings(Settings { rescale_by_decoder_norm: true, ..settings }),
            Cause::DecoderNorms(false),
        ),
    ];
    for sound in [&dictionary, &uneven] {
        let found = diagnose(sound, &rows, 2, &mut silent).unwrap();
        println!("as it is: {found}");
        assert_eq!(found.cause, None, "{found}");
    }
    let mut named = 0;
    for (fault, planted, cause) in &faults {
        let found = diagnose(planted, &rows, 2, &mut silent).unwrap();
        let right = found.cause == Some(*cause);
        println!("{} {fault}: {found}", if right { "ok   " } else { "WRONG" });
        named += usize::from(right);
    }
    println!("{named} of {} faults named", faults.len());
    assert!(10 * named >= 9 * faults.len(), "{named} of {}", faults.len());
}

fn shipped() -> Dictionary {
    Dictionary::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/smollm2-135m-l19.gguf")).unwrap()
}

/// The verdict alone, without the cross-entropies of a self-test.
#[test]
fn a_running_model_gives_the_verdict() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let mut engine =
        Engine::open(&path, &Options { context: 512, threads: support::THREADS, ..Options::default() }).unwrap();
    let text = [Document::Text(TEXT.to_owned())];
    let options = self_test::Options { max_tokens: 400, ..self_test::Options::default() };
    let mut verdict = |d: &Dictionary| self_test::diagnose(&mut engine, d, &text, &options, &mut silent).unwrap();
    let dictionary = shipped();
    let found = verdict(&dictionary);
    assert!(found.fits(), "{found}");
    let mut info = dictionary.info().clone();
    (info.layer, info.hook) = (Some(18), "blocks.18.hook_resid_post".to_owned());
    let found = verdict(&dictionary.with_info(info));
    assert_eq!(found.cause, Some(Cause::Point(HookPoint::from(19))), "{found}");
    assert!(found.to_string().contains("most likely it belongs to blocks.19.hook_resid_post"), "{found}");
}

/// The same model in more bits and in fewer: the fewer bits, the more features are others.
#[test]
fn fewer_bits_drift_further() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut models = vec![path.clone()];
    for kind in ["Q8_0", "Q2_K"] {
        models.push(dir.path().join(format!("{kind}.gguf")));
        requantize(&path, models.last().unwrap(), kind, 2).unwrap();
    }
    let dictionary = Arc::new(shipped());
    let text = [Document::Text(TEXT.to_owned())];
    let machine = Options { context: 512, threads: support::THREADS, ..Options::default() };
    let options = self_test::Options { max_tokens: 300, score_tokens: 200, window: 128 };
    let found = drift(&models, &dictionary, &text, &machine, &options, &mut silent).unwrap();
    let changed: Vec<f64> = found.iter().map(|d| d.changed).collect();
    assert_eq!(changed[0], 0.0, "the first is what the others are compared with: itself, not another reading");
    assert!(changed[1] > 0.0 && changed[1] < 0.5 * changed[2] && changed[2] < 0.9, "{changed:?}");
    for d in &found {
        let (quality, ce) = (&d.test.quality, &d.test.cross_entropy);
        assert!(quality.fvu > 0.05 && quality.fvu < 0.8, "{}: FVU {}", d.model.display(), quality.fvu);
        assert!(quality.l0 > 10.0 && quality.l0 < 100.0, "{}: L0 {}", d.model.display(), quality.l0);
        assert!(ce.clean < ce.reconstructed && ce.reconstructed < ce.zero, "{}: {ce:?}", d.model.display());
    }
    // Single log probabilities move by up to 0.15 between builds (`agree` in `tests/support`), in both directions: the mean
    // over 200 tokens by a tenth of that.
    let ce = |i: usize| found[i].test.cross_entropy.clean;
    println!("changed {changed:?}, cross-entropies {} {} {}", ce(0), ce(1), ce(2));
    assert!((ce(1) - ce(0)).abs() < 0.05 && ce(2) > ce(0) + 0.1, "{} {} {}", ce(0), ce(1), ce(2));
    // Another model is none of its quantizations.
    if let Some(other) = support::model(support::GEMMA) {
        let error = drift(&[path, other], &dictionary, &text, &machine, &options, &mut silent).unwrap_err();
        assert_eq!(error.kind(), Kind::Mismatch, "{error}");
    }
    let error = drift(&[], &dictionary, &text, &machine, &options, &mut silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument, "{error}");
}
