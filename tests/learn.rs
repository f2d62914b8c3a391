//! Learning an instruction on a real model, SmolLM2: it makes the model speak of what it was told, by its features and by the
//! control vector alone; it can be cancelled; a seed gives the same features on any number of threads.
#![cfg(feature = "engine")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiller::choose::learn::{Outcome, Place, Request, learn};
use tiller::dictionary::Dictionary;
use tiller::engine::{Engine, Generate, Message, Options};
use tiller::eval::concepts::{Suite, hits};
use tiller::file::gguf::GgmlType;
use tiller::plan::{ControlVector, Plan, Route, Rule, Strength, Vector};
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

/// Messages that neither come with tiller nor hold a word of the concept.
const UNSEEN: [&str; 16] = [
    "Tell me about your day.",
    "Write a short story about a long journey.",
    "Give me some advice on being patient.",
    "What do you think of a quiet evening?",
    "Tell me about an old house.",
    "Write a short story about a good morning.",
    "What do you think of a walk in the city?",
    "Give me some advice on learning something new.",
    "Write a short story about keeping a promise.",
    "Tell me about a good morning.",
    "What do you think of making new friends?",
    "Write a short story about a quiet evening.",
    "Tell me about a long journey.",
    "Write a short story about an old house.",
    "Tell me about a walk in the city.",
    "Write a short story about making new friends.",
];

/// Held-out words of the sea in answers to [`UNSEEN`] under a plan, half a word added, per 100 tokens.
fn per_100(engine: &mut Engine, plan: &Plan, dictionaries: &[(&str, Arc<Dictionary>)]) -> f64 {
    let suite = Suite::built_in().unwrap();
    let sea = suite.concepts.iter().find(|concept| concept.name == "sea").unwrap();
    let compiled = plan.compile(dictionaries, &engine.target(), Route::Auto).unwrap();
    engine.set_plan(Some(Arc::new(compiled))).unwrap();
    let prompts: Vec<_> = UNSEEN.iter().map(|m| engine.chat_tokens(&[Message::user(*m)], true).unwrap()).collect();
    let greedy = Generate { max_tokens: 50, ..Generate::default() };
    let made = engine.generate_many_tokens(&prompts, &greedy).unwrap();
    engine.finish().ok().unwrap();
    engine.set_plan(None).unwrap();
    let tokens: usize = made.iter().map(|g| g.tokens().len()).sum();
    let words: u64 = made.iter().map(|g| hits(g.text(), &sea.held_out)).sum();
    100.0 * (words as f64 + 0.5) / tokens as f64
}

#[test]
fn a_learned_instruction_makes_the_model_speak_of_it() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let request = Request {
        place: Place::Appended,
        answers: 20,
        max_tokens: 32,
        threads: 1,
        ..Request::new("Talk about the sea, the ocean and ships.")
    };
    let Outcome { dictionary, control_vector, report, .. } = learn(&mut engine, &request, &mut silent).unwrap();
    assert!(engine.plan().is_none(), "no plan is left");
    assert!(report.fluent && report.strength > 0.0 && report.score.effect > 0.0, "{report:?}");
    assert!(report.layers.iter().all(|l| (1..29).contains(l)) && dictionary.layers() == report.layers);
    assert_eq!(report.samples.len(), report.score.messages);

    let dir = tempfile::tempdir().unwrap();
    let (features, vector) = (dir.path().join("sea.gguf"), dir.path().join("vector.gguf"));
    dictionary.save_gguf(&features, GgmlType::F32).unwrap();
    control_vector.unwrap().save(&vector, engine.architecture()).unwrap();
    let opened = Arc::new(Dictionary::open(&features).unwrap());
    let learned = opened.info().learned.clone().unwrap();
    assert_eq!((learned.strength, learned.instruction.as_str()), (report.strength, request.instruction.as_str()));
    assert_eq!(opened.info().recipe, dictionary.info().recipe);

    let plain = per_100(&mut engine, &Plan::default(), &[]);
    let steered = per_100(&mut engine, &report.plan, &[("", opened.clone())]);
    // The file of the vector alone is all that another llama.cpp has.
    let directions = ControlVector::open(&vector).unwrap().directions().len();
    let added = Plan::new([Rule::vector(Vector::file(&vector, 0), Strength::raw(1.0))]);
    let added = per_100(&mut engine, &added, &[]);
    // Ten such runs of prototypes gave 5 to 30; rounding differs between machines, and 16 answers are few.
    assert!(steered > 2.0 * plain, "{steered:.2} words a hundred tokens, {plain:.2} without steering");
    assert!(directions > 1 && added > 2.0 * plain, "{added:.2} words by the vector, {plain:.2} without");
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
