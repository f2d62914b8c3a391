//! Consistency, the quality of a dictionary, and explanations side by side, on a model that is there.
#![cfg(feature = "engine")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tiller::Kind;
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::engine::{Engine, Options};
use tiller::eval::consistency::{Request, consistency};
use tiller::eval::evaluate::evaluate;
use tiller::eval::quality::{self, report_quality};
use tiller::file::gguf::GgmlType;
use tiller::progress::silent;

const TEXT: &str = "In May the river rose, and the old farmer walked to the church. The king of France wrote to the \
    queen about the war. On Monday morning the doctor gave the children medicine. Tax and trade made the town rich. \
    She told her brother that a window is like a market, and he laughed. The army crossed the bridge before dawn.";

fn engine(sequences: usize) -> Option<Engine> {
    let model = support::model(support::SMOLLM)?;
    let options = Options { threads: support::THREADS, context: 1024, sequences, ..Options::default() };
    Some(Engine::open(&model, &options).unwrap())
}

fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A dictionary of layer 5 with two features a coordinate, one for each sign: it reconstructs every row. With a bias of
/// −1e9 none fires, and it reconstructs zero.
fn trivial(dir: &Path, d: usize, bias: f32) -> PathBuf {
    let mut rows = vec![0.0; 2 * d * d];
    for j in 0..d {
        rows[2 * j * d + j] = 1.0;
        rows[(2 * j + 1) * d + j] = -1.0;
    }
    let dictionary = Dictionary::from_parts(Parts {
        d_model: d,
        encoder: rows.clone(),
        decoder: rows,
        encoder_bias: vec![bias; 2 * d],
        decoder_bias: vec![0.0; d],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings::new(Activation::Relu),
        info: Info { layer: Some(5), hook: "blocks.5.hook_resid_post".into(), ..Info::default() },
    })
    .unwrap();
    let path = dir.join(format!("trivial{bias}.gguf"));
    dictionary.save_gguf(&path, GgmlType::F32).unwrap();
    path
}

fn quick(dictionary: PathBuf, text: PathBuf) -> quality::Request {
    quality::Request { score_tokens: 60, words: 0, ..quality::Request::new(dictionary, vec![text]) }
}

#[test]
fn the_model_notices_no_perfect_reconstruction_and_takes_nothing_for_zero() {
    let _turn = support::turn();
    let Some(mut engine) = engine(1) else { return };
    let dir = tempfile::tempdir().unwrap();
    let text = written(dir.path(), "t.txt", TEXT);
    let d = engine.d_model();
    let perfect = report_quality(&mut engine, &quick(trivial(dir.path(), d, 0.0), text.clone()), &mut silent).unwrap();
    assert!(perfect.fvu < 1e-12 && perfect.l0 == d as f64 && (perfect.cosine - 1.0).abs() < 1e-9, "{perfect:?}");
    assert!((perfect.l2_ratio - 1.0).abs() < 1e-9 && (perfect.reconstruction_bias - 1.0).abs() < 1e-9);
    let found = &perfect.recovered;
    assert!(found.n_tokens > 40 && found.reconstructed.kl < 1e-6, "{found:?}");
    assert!((found.reconstructed.cross_entropy - found.cross_entropy).abs() < 1e-6);
    assert!(found.zero.kl > 1.0 && found.mean.kl > 1.0 && found.zero.cross_entropy > found.cross_entropy + 1.0);
    for score in [perfect.scores.ce_zero, perfect.scores.ce_mean, perfect.scores.kl_zero, perfect.scores.kl_mean] {
        assert!((score - 1.0).abs() < 1e-5, "{:?}", perfect.scores);
    }
    let nothing = report_quality(&mut engine, &quick(trivial(dir.path(), d, -1e9), text.clone()), &mut silent).unwrap();
    assert_eq!(
        (nothing.l0, nothing.density.alive, nothing.recovered.reconstructed),
        (0.0, 0.0, nothing.recovered.zero)
    );
    assert!(nothing.scores.ce_zero.abs() < 1e-9 && nothing.scores.kl_zero.abs() < 1e-9);
    assert_eq!(nothing.recovered.cross_entropy, found.cross_entropy);
    // The patch is gone.
    let again = report_quality(&mut engine, &quick(trivial(dir.path(), d, 0.0), text), &mut silent).unwrap();
    assert_eq!(again.recovered, perfect.recovered);
}

#[test]
fn a_report_of_the_shipped_dictionary_comes_from_json() {
    let _turn = support::turn();
    let Some(mut engine) = engine(1) else { return };
    let dir = tempfile::tempdir().unwrap();
    let text = written(dir.path(), "t.txt", &TEXT.repeat(3));
    let themes =
        ["The ships sailed the sea and the sailors saw the waves.", "The court heard the lawyer and the judge."];
    let line =
        |i: usize| format!("{}\n", json!({"text": format!("{} It was day {i}.", themes[i % 2]), "topic": i % 2}));
    let labelled = written(dir.path(), "l.jsonl", &(0..32).map(line).collect::<String>());
    let request = json!({"evaluate": "quality", "dictionary": support::shipped(), "text": [text], "score_tokens": 60,
        "labelled": labelled, "label": "topic", "words": 400});
    let mut last = (0, 0);
    let json = evaluate(&mut engine, &request.to_string(), &mut |step| {
        assert!(step.done >= last.0);
        last = (step.done, step.total);
        true
    })
    .unwrap();
    let report: Value = serde_json::from_str(&json).unwrap();
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {json}"));
    assert!(number("/fvu") < 0.6 && number("/l0") > 5.0 && number("/scores/ce_zero") > 0.5, "{json}");
    assert!(number("/scores/kl_zero") > 0.5 && number("/geometry/decoder_mean") < 0.95);
    assert_eq!(report["labels"].as_array().unwrap().len(), 2);
    assert!(number("/labels/0/features/0") > 0.8 && number("/labels/0/rows") > 0.9, "{}", report["labels"]);
    let letters = report["absorption"]["letters"].as_array().unwrap();
    assert!(letters.len() >= 5, "{letters:?}");
    for letter in letters {
        let share = |key: &str| letter[key].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share("full")) && (0.0..=1.0).contains(&share("fraction")));
        assert!(share("probe_f1") > 0.2, "{letter}");
    }
    let stopped = evaluate(&mut engine, &request.to_string(), &mut |_| false).unwrap_err();
    assert_eq!(stopped.kind(), Kind::Cancelled);
}

/// Six groups of two kinds each that are easy, hard, or made up.
fn groups() -> String {
    let asks = |about: &str| [format!("What is {about}?"), format!("Tell me {about}."), format!("Name {about}.")];
    let line = |kind: usize, about: &str, answer: &str| {
        format!("{}\n", json!({"kind": kind.to_string(), "texts": asks(about), "answer": answer}))
    };
    [
        line(0, "the capital of France", "Paris"),
        line(0, "the capital of Japan", "Tokyo"),
        line(1, "the colour of grass", "green"),
        line(1, "the opposite of hot", "cold"),
        line(2, "the day after Monday", "Tuesday"),
        line(2, "the month after May", "June"),
        line(3, "the largest planet", "Jupiter"),
        line(3, "the author of Hamlet", "Shakespeare"),
        line(4, "the symbol of gold", "Au"),
        line(4, "the sum of two and three", "5"),
    ]
    .concat()
}

#[test]
fn consistency_is_measured_on_groups_that_chose_nothing() {
    let _turn = support::turn();
    let Some(mut engine) = engine(8) else { return };
    let dir = tempfile::tempdir().unwrap();
    let request = Request {
        groups: Some(written(dir.path(), "g.jsonl", &groups())),
        strengths: vec![1.0, 4.0],
        controls: 1,
        features: 8,
        fit: 0.35,
        choose: 0.2,
        questions: false,
        ..Request::new(support::shipped())
    };
    let report = consistency(&mut engine, &request, &mut silent).unwrap();
    assert_eq!(report.groups, [4, 2, 4]);
    assert_eq!((report.pairs.iter().sum::<usize>(), report.features.len(), report.doses.len()), (12, 8, 2));
    assert!(report.features.windows(2).all(|f| f[0].change().abs() >= f[1].change().abs()));
    assert!((report.gain - (report.after.agreement - report.before.agreement)).abs() < 1e-12);
    assert!(report.gain_interval[0] <= report.gain && report.gain <= report.gain_interval[1]);
    assert!(
        report.cost.divergence.n_tokens > 100 && report.cost.divergence.mean >= 0.0 && report.cost.perplexity > 0.0
    );
    assert_eq!((report.controls.len(), report.plan.rules.len(), report.plan.rules[0].features.len()), (1, 1, 8));
    let again = consistency(&mut engine, &request, &mut silent).unwrap();
    assert_eq!(again, report, "a seed does the same twice");
    assert!(engine.plan().is_none());

    let rows = Request { dictionary: None, layer: Some(12), ..request.clone() };
    let report = consistency(&mut engine, &rows, &mut silent).unwrap();
    assert!(report.features.is_empty() && report.length > 0.1, "{}", report.length);
    let error = consistency(&mut engine, &Request { layer: Some(99), ..rows }, &mut silent).unwrap_err();
    assert!(error.kind() == Kind::Argument && error.message().contains("layer"), "{error}");
    assert_eq!(consistency(&mut engine, &request, &mut |_| false).unwrap_err().kind(), Kind::Cancelled);
}
