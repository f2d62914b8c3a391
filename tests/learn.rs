//! Learning an instruction on a real model, SmolLM2: it can be cancelled; a seed gives the same features on any number of
//! threads; what comes out is used and sliced.
#![cfg(feature = "engine")]

mod support;

use std::path::{Path, PathBuf};

use tiller::choose::learn::{Outcome, Place, Request, learn};
use tiller::engine::{Engine, Generate, Options};
use tiller::progress::silent;
use tiller::{Kind, Result};

fn model() -> Option<PathBuf> {
    support::model(support::SMOLLM)
}

fn open(path: &Path) -> Engine {
    let options = Options { threads: support::THREADS, context: 4096, sequences: 16, ..Options::default() };
    Engine::open(path, &options).unwrap()
}

/// Short: what tests of the machinery need.
fn short() -> Request {
    let messages = tiller::choose::learn::messages().take(16).map(str::to_owned).collect();
    Request {
        messages,
        place: Place::Appended,
        answers: 6,
        max_tokens: 12,
        threads: 1,
        ..Request::new("Talk about the sea.")
    }
}

/// The model runs on one thread: tests run side by side, and threads of ggml that wait for each other spin.
fn attempt(request: &Request) -> Option<Result<Outcome>> {
    let _turn = support::turn();
    model().map(|path| learn(&mut open(&path), request, &mut silent))
}

#[test]
fn a_seed_gives_the_same_features_on_any_number_of_threads() {
    let Some(one) = attempt(&short()) else { return };
    let Some(two) = attempt(&Request { threads: 2, ..short() }) else { return };
    let (one, two) = (one.unwrap(), two.unwrap());
    // The model's arithmetic may differ in rounding between runs: features of one layer are compared where both have it.
    let row = |outcome: &Outcome, i: usize| {
        let mut row = vec![0f32; outcome.dictionary.d_model()];
        outcome.dictionary.decoder_row(i, &mut row);
        row
    };
    let places = |layer: usize| {
        let at = |outcome: &Outcome| outcome.dictionary.layers().iter().position(|l| *l == layer);
        at(&one).zip(at(&two))
    };
    // Behind the first edited layer, a feature depends on which one comes before: the same set is needed.
    assert_eq!(one.dictionary.layers(), two.dictionary.layers());
    for (a, b) in (0..30).filter_map(places) {
        let (a, b) = (row(&one, a), row(&two, b));
        let cosine: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.999, "{cosine}");
    }
}

#[test]
fn cancelling_leaves_nothing() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let mut left = 3;
    let mut stop = |_: tiller::progress::Step<'_>| {
        left -= 1;
        left > 0
    };
    let error = learn(&mut engine, &short(), &mut stop).err().expect("cancelled");
    assert_eq!(error.kind(), Kind::Cancelled);
    assert!(engine.plan().is_none());
    // It still generates.
    let greedy = Generate { max_tokens: 2, ..Generate::default() };
    assert_eq!(engine.generate("The sea", &greedy, &mut |_| true).unwrap().tokens().len(), 2);
}

#[test]
fn what_cannot_be_learned_is_told() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let mut kind = |request: &Request| learn(&mut engine, request, &mut silent).err().map(|e| e.kind());
    assert_eq!(kind(&Request::new(" ")), Some(Kind::Argument));
    let long = "word ".repeat(600);
    let messages = (0..12).map(|i| format!("{i} {long}")).collect();
    assert_eq!(kind(&Request { messages, ..short() }), Some(Kind::Argument), "messages longer than a batch");
    // Blanks are no instruction that changes an answer.
    let nothing = Request { place: Place::System, ..Request { instruction: ".".into(), ..short() } };
    let error = kind(&nothing);
    assert!(matches!(error, None | Some(Kind::Unsupported)), "{error:?}");
}

#[test]
fn features_of_several_layers_are_used_and_sliced() {
    let Some(outcome) = attempt(&short()) else { return };
    let dictionary = outcome.unwrap().dictionary;
    let layer = dictionary.layers()[0];
    let one = dictionary.at_layer(layer).unwrap();
    assert_eq!((one.layer(), one.n_features(), one.layers().len()), (Some(layer), 1, 0));
    assert_eq!(one.stats(0), dictionary.stats(0));
    assert_eq!(dictionary.at_layer(0).unwrap_err().kind(), Kind::Mismatch);
    let error = dictionary.check_one_layer("encoding").unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.hint().unwrap().contains("--layer"), "{error}");
}
