//! Entanglement on a real model, SmolLM2: the known concepts are read, a steered concept moves, the report is the
//! seed's.
#![cfg(feature = "engine")]

mod support;

use std::path::{Path, PathBuf};

use tiller::Kind;
use tiller::engine::{Engine, Options};
use tiller::eval::entanglement::{Fitted, Pooling, Report, Request, entanglement, grammar};
use tiller::progress::silent;

fn open(path: &Path) -> Engine {
    let options = Options { threads: support::THREADS, context: 1024, sequences: 24, ..Options::default() };
    Engine::open(path, &options).unwrap()
}

fn model() -> Option<PathBuf> {
    support::model(support::SMOLLM)
}

/// Little of everything, in the first layers.
fn small() -> Request {
    Request {
        sentences: 400,
        layer: Some(6),
        read_layer: Some(9),
        fit: vec![Fitted::TopK, Fitted::Ssae, Fitted::DiffMean, Fitted::Probe],
        n_features: 64,
        k: 8,
        steps: 100,
        steer: 16,
        pairs: 3,
        random: 3,
        threads: 1,
        ..Request::default()
    }
}

/// What does not depend on the clock.
fn timeless(mut report: Report) -> Report {
    report.seconds = 0.0;
    for run in &mut report.runs {
        run.seconds = 0.0;
        run.featurizers.iter_mut().for_each(|found| found.seconds = [0.0; 3]);
    }
    report
}

#[test]
fn known_concepts_are_read_and_move_when_they_are_steered() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let (mut last, mut total) = (0, 0);
    let mut progress = |step: tiller::progress::Step<'_>| {
        assert!(step.done >= last, "progress goes on");
        (last, total) = (step.done, step.total);
        true
    };
    let request = Request { rho: vec![0.0, 0.9], ..small() };
    let report = entanglement(&mut engine, &request, &mut progress).unwrap();
    assert!(engine.plan().is_none());
    assert!(last > 800 && last <= total, "{last} of {total}");
    assert_eq!((report.layer, report.read_layer, &*report.pooling, report.runs.len()), (6, 9, "last", 2));
    for (run, rho) in report.runs.iter().zip([0.0, 0.9]) {
        assert!((run.phi.unwrap() - rho).abs() < 0.02 && run.rho == Some(rho), "{:?}", run.phi);
        assert_eq!((run.concepts.len(), run.sentences), (11, [320, 80]));
        assert!(run.readers.iter().all(|a| *a > 0.6), "{:?}", run.readers);
        let [topk, ssae, mean, probe] = &run.featurizers[..] else { panic!("four featurizers") };
        assert!(probe.reading.mcc.micro > 0.7, "{:?}", probe.reading.mcc);
        assert!(probe.reading.mcc.micro > topk.reading.mcc.micro, "the skyline");
        assert!(ssae.reading.pairs.is_some() && !topk.notes.is_empty(), "{:?}", topk.notes);
        for found in [topk, ssae, mean, probe] {
            let steering = found.steering.as_ref().unwrap();
            let numbers = steering.effects.iter().flatten().chain(&found.reading.sparse);
            assert!(numbers.into_iter().all(|v| v.is_finite()), "{}", found.name);
            assert!(steering.random.is_some() && steering.written.is_none(), "{}", found.name);
        }
        // A direction that is fitted for a concept moves it more than a random one.
        let moved = mean.steering.as_ref().unwrap();
        let chance = moved.random.unwrap();
        assert!(moved.summary.selectivity > chance.selectivity + 0.1, "{:?} {chance:?}", moved.summary);
        assert!(moved.summary.own > chance.own, "{:?} {chance:?}", moved.summary);
    }
}

#[test]
fn a_seed_gives_the_same_report() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let mut of = |request: &Request| timeless(entanglement(&mut engine, request, &mut silent).unwrap());
    let request = Request { fit: vec![Fitted::TopK], ..small() };
    let one = of(&request);
    assert_eq!(one, of(&Request { threads: 2, ..request.clone() }));
    assert_ne!(one, of(&Request { seed: 1, ..request }));
}

/// The dictionary that comes along, what the model writes, the mean of a sentence's rows, and sentences of a file.
#[test]
fn files_texts_and_own_sentences_are_measured() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("own.jsonl");
    let made = grammar::generate(300, 0.0, 5).unwrap();
    let lines: Vec<String> = (0..made.len())
        .map(|i| {
            let has = |name: &str| made.labels[i * 11 + made.concept(name).unwrap()];
            serde_json::json!({"sentence": made.texts[i], "past": has("past"), "now": has("present"),
                "topic": if has("science") { "science" } else { "rest" }})
            .to_string()
        })
        .collect();
    std::fs::write(&data, lines.join("\n")).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/smollm2-135m-l19.gguf");
    let request = Request {
        data: Some(data),
        attributes: [("tense".to_owned(), vec!["past".to_owned(), "now".to_owned()])].into(),
        files: vec![shipped.clone()],
        fit: Vec::new(),
        layer: None,
        read_layer: None,
        pooling: Pooling::Mean,
        steer: 8,
        pairs: 1,
        random: 1,
        generate: 6,
        ..small()
    };
    let report = entanglement(&mut engine, &request, &mut silent).unwrap();
    assert_eq!((report.layer, report.read_layer, &*report.pooling), (19, 25, "mean"));
    let run = &report.runs[0];
    assert_eq!((run.rho, run.phi, run.concepts.len()), (None, None, 4));
    assert!(run.concepts.iter().filter(|c| c.attribute == "tense").count() == 2, "{:?}", run.concepts);
    let found = &run.featurizers[0];
    assert_eq!(found.name, "smollm2-135m-l19.gguf");
    let written = found.steering.as_ref().unwrap().written.as_ref().unwrap();
    assert!(written.perplexity > 0.0 && written.effects.len() == 4, "{written:?}");
    // At another layer it does not fit.
    let elsewhere = Request { layer: Some(6), read_layer: Some(9), ..request };
    let error = entanglement(&mut engine, &elsewhere, &mut silent).unwrap_err();
    assert!(error.kind() == Kind::Mismatch && error.message().contains("layer 6"), "{error}");
}

#[test]
fn what_cannot_be_measured_is_told_and_leaves_no_plan() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let ok = Request { fit: vec![Fitted::DiffMean], ..small() };
    for (request, text) in [
        (Request { layer: Some(99), ..ok.clone() }, "layer: expected 0 to 29, found 99"),
        (Request { read_layer: Some(6), ..ok.clone() }, "read_layer: expected a layer behind 6"),
        (Request { sentences: 3, ..ok.clone() }, "sentences"),
    ] {
        let error = entanglement(&mut engine, &request, &mut silent).unwrap_err();
        assert!(error.kind() == Kind::Argument && error.message().contains(text), "{error}");
    }
    // While it reads, and while it steers.
    for after in [2, 6] {
        let mut left = after;
        let mut stop = |_: tiller::progress::Step<'_>| {
            left -= 1;
            left > 0
        };
        let error = entanglement(&mut engine, &ok, &mut stop).unwrap_err();
        assert!(error.kind() == Kind::Cancelled && engine.plan().is_none(), "{error}");
    }
}
