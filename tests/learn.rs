//! Learning an instruction on a real model, SmolLM2: its features make the model do it; it can be cancelled; a seed gives the
//! same features on any number of threads; what comes out is used and sliced.
#![cfg(feature = "engine")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiller::choose::learn::{Example, Outcome, Place, Request, learn};
use tiller::choose::prompted;
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::engine::{Engine, Generate, Message, Options};
use tiller::eval::concepts::hits;
use tiller::explain::Explanations;
use tiller::hook_point::HookPoint;
use tiller::plan::{Op, Plan, Route, Rule, Strength};
use tiller::progress::silent;
use tiller::train::learn::{Contrast, Feature, Fit, Gate, fit};
use tiller::{Kind, Result};

fn model() -> Option<PathBuf> {
    support::model(support::SMOLLM)
}

fn open(path: &Path) -> Engine {
    let options = Options { threads: support::THREADS, context: 4096, sequences: 16, ..Options::default() };
    Engine::open(path, &options).unwrap()
}

/// Tokens of SmolLM2's template behind a message.
const TAIL: usize = 5;

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

/// Features as a dictionary.
fn dictionary(features: &[Feature]) -> Dictionary {
    let d_model = features[0].decoder.len();
    let parts = Parts {
        d_model,
        encoder: features.iter().flat_map(|f| f.encoder.clone()).collect(),
        decoder: features.iter().flat_map(|f| f.decoder.clone()).collect(),
        encoder_bias: features.iter().map(|f| f.bias).collect(),
        decoder_bias: vec![0.0; d_model],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings { apply_b_dec_to_input: false, ..Settings::new(Activation::Relu) },
        info: Info { layers: features.iter().map(|f| f.layer).collect(), ..Info::default() },
    };
    Dictionary::from_parts(parts).unwrap()
}

/// What was seen: 10 words of the subject without the instruction, none unsteered; a third of that is asked for.
#[test]
fn features_of_an_instruction_make_the_model_speak_of_its_subject() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let told = "Talk about money, price, tax, bank in your answer.";
    let pairs = prompted::pairs(&mut engine, told, 12, 40, &mut silent).unwrap();
    let layers: Vec<usize> = (15..29).collect();
    let points: Vec<HookPoint> = layers.iter().map(|&layer| HookPoint::from(layer)).collect();
    let (d, mut rows) = (engine.d_model(), Contrast::new(engine.d_model()));
    for pair in &pairs {
        // The template behind the message belongs to the answer: its last row predicts the first token.
        let same = pair.told.iter().rev().zip(pair.plain.iter().rev()).take_while(|(a, b)| a == b).count();
        let compared = same.min(pair.answer + TAIL);
        let behind = |found: &[f32]| found[found.len() - compared * d..].to_vec();
        let mut asked = Vec::new();
        let mut keep = |_, _, found: &[f32]| {
            asked.push(behind(found));
            Ok(())
        };
        engine.read_rows(std::slice::from_ref(&pair.told), &points, &mut keep).unwrap();
        let mut add = |_, point: usize, found: &[f32]| rows.add(layers[point], &asked[point], &behind(found));
        engine.read_rows(std::slice::from_ref(&pair.plain), &points, &mut add).unwrap();
    }
    let fitted = fit(&rows, &[layers], Fit { rank: 16, lambda: 0.3, gate: Gate::Need }, 1, &mut silent).unwrap();
    let dictionary = Arc::new(dictionary(&fitted[0]));
    let rule = Rule::all(Op::Amplify, Strength::raw(1.2));
    let plan = Plan::new([rule]).compile(&[("", dictionary)], &engine.target(), Route::Auto).unwrap();
    let asks =
        ["Tell me a secret.", "Invent a short tale.", "Write a paragraph, please.", "Describe your favorite room."];
    let prompts: Vec<Vec<i32>> =
        asks.iter().map(|text| engine.chat_tokens(&[Message::user(*text)], true).unwrap()).collect();
    let words =
        ["cost", "costs", "pay", "paid", "sell", "buy", "dollar", "dollars", "cash", "wealth", "market", "trade"];
    let words = words.map(String::from);
    let said = |engine: &mut Engine| -> u64 {
        let greedy = Generate { max_tokens: 48, ..Generate::default() };
        let made = engine.generate_many_tokens(&prompts, &greedy).unwrap();
        made.iter().map(|made| hits(made.text(), &words)).sum()
    };
    let unsteered = said(&mut engine);
    engine.set_plan(Some(Arc::new(plan))).unwrap();
    let steered = said(&mut engine);
    engine.finish().ok().unwrap();
    assert!(steered >= 3 && steered > 2 * unsteered, "{steered} words, unsteered {unsteered}");
}

#[test]
fn examples_stand_in_for_an_instruction() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let example = |message: &str, wanted: &str| Example {
        message: message.into(),
        wanted: wanted.into(),
        unwanted: Some("I do not know.".into()),
    };
    let examples = vec![
        example("What is a friend?", "Arr, a friend be a mate who shares his rum, matey!"),
        example("How are you?", "Arr, I be fine as a fair wind, matey!"),
        example("What is a door?", "Arr, a door be a hatch in a wall, matey!"),
        example("Tell me a story.", "Arr, once there be a captain with one eye, matey!"),
    ];
    let request = Request { instruction: String::new(), examples, ..short() };
    let made = learn(&mut open(&path), &request, &mut silent).unwrap();
    assert_eq!(made.report.place, "examples");
    assert!(made.dictionary.n_features() > 0 && made.report.score.messages > 0);
}

/// What was seen: feature 1640, "sea ocean seas marine waters", first by its lift, and at its best strength some 15 % of what
/// asking does.
#[test]
fn an_instruction_turns_the_features_of_its_subject_and_they_act_as_it() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/smollm2-135m-l19.gguf");
    let dictionaries = [Arc::new(Dictionary::open(&shipped).unwrap())];
    let explanations = Explanations::load(&shipped.with_extension("jsonl")).unwrap();
    let told = "Talk about the sea.";
    let pairs = prompted::pairs(&mut engine, told, 12, 40, &mut silent).unwrap();
    let turned = prompted::turned(&mut engine, &dictionaries, &pairs, 0.1, &mut silent).unwrap();
    assert!(turned[0].iter().all(|t| t.change > 0.0 && t.told >= t.change && t.lift.is_none()));
    let acting = prompted::acting(&mut engine, &dictionaries, &pairs, &turned, 3, &mut silent).unwrap();
    let best = acting[0].first().expect("a feature that acts");
    let words = explanations.get(best.feature).map(|e| e.summary(6)).unwrap_or_default();
    assert!(words.contains("sea") || words.contains("ocean"), "{best:?}: {words}");
    assert!(acting[0].len() <= 3 && acting[0].windows(2).all(|pair| pair[0].lift >= pair[1].lift), "{acting:?}");

    let plan = |strength: f32| {
        let rule = Rule::new(Op::MinClamp, [best.feature], Strength::activation(strength));
        let target = tiller::plan::Target::new(30, 576).with_architecture("llama");
        Ok(Arc::new(Plan::new([rule]).compile(&[("", dictionaries[0].clone())], &target, Route::Auto)?))
    };
    let doses = prompted::strength(&mut engine, told, &[0.0, 1.0], &plan, &mut silent).unwrap();
    // A clamp at 0 leaves what is positive as it is: the same greedy texts, but for the last bits of their likelihoods.
    assert!(doses[0].effect.abs() < 0.02 && (doses[0].perplexity - 1.0).abs() < 0.02, "{doses:?}");
    assert!(doses[1].effect > 0.03, "{doses:?}");
    assert!(prompted::best(&doses).is_none_or(|dose| dose.fluent));
}
