//! Guards on a real model, SmolLM2: learned from examples of a topic, they fire on others of it and leave all else alone to
//! the bit; verdicts end answers; another model is refused with a reason.
#![cfg(feature = "engine")]

mod support;

use std::path::Path;
use std::sync::Arc;

use tiller::Kind;
use tiller::engine::{Engine, Generate, Message, Options, Stop};
use tiller::guard::{Examination, Guard, NAME, Request, Set, examine, learn};
use tiller::model::Model;
use tiller::plan::{Action, Monitor, Plan, Selector, Verdict, When};
use tiller::progress::silent;

fn open(path: &Path) -> Engine {
    let options = Options { threads: support::THREADS, context: 4096, sequences: 8, ..Options::default() };
    Engine::open(path, &options).unwrap()
}

/// Messages about food, and about countries.
fn messages() -> [Vec<String>; 2] {
    let fill = |forms: [&str; 3], words: [&str; 10]| {
        words.iter().flat_map(|word| forms.map(|form| form.replace('_', word))).collect::<Vec<String>>()
    };
    let foods =
        ["bread", "a pizza", "an omelette", "a stew", "pancakes", "a salad", "noodles", "a curry", "a pie", "soup"];
    let lands = ["France", "Japan", "Peru", "Kenya", "Norway", "India", "Canada", "Egypt", "Greece", "Vietnam"];
    [
        fill(["How do I cook _?", "Give me a recipe for _.", "Which spices go well with _?"], foods),
        fill(["What is the capital of _?", "Tell me about the history of _.", "Which rivers flow through _?"], lands),
    ]
}

#[test]
fn a_guard_fires_on_its_topic_and_leaves_the_rest_alone() {
    let Some(path) = support::model(support::SMOLLM) else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let [mut food, mut lands] = messages();
    let (fresh_food, fresh_lands) = (food.split_off(24), lands.split_off(24));
    let request =
        Request { strength: 1.0, max_tokens: 4, name: "food".into(), threads: 1, ..Request::new(food, lands) };
    let made = learn(&mut engine, &request, &mut silent).unwrap();
    assert!(made.report.area > 0.95 && made.report.fires[0] > 0.8, "{:?}", made.report);
    assert!(engine.plan().is_none());

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("food.json");
    made.guard.save(&file).unwrap();
    let guard = Guard::open(&file).unwrap();
    assert_eq!(guard.plan, made.guard.plan);
    guard.check_model(&Model::open(&path).unwrap()).unwrap();
    let set = |name: &str, refuse, messages: &[String]| Set { name: name.into(), refuse, messages: messages.to_vec() };
    let examination = Examination {
        sets: vec![set("food", true, &fresh_food), set("lands", false, &fresh_lands)],
        max_tokens: 8,
        prompted: false,
        ..Examination::default()
    };
    let examined = examine(&mut engine, &guard, &examination, &mut silent).unwrap();
    let fires = |name: &str| examined.monitors.iter().find(|f| f.set == name).unwrap().fires.share;
    assert!(fires("food") >= 0.8 && fires("lands") <= 0.2, "{:?}", examined.monitors);
    let line = |set: &str, method: &str| {
        examined.lines.iter().find(|line| line.set == set && line.method == method).cloned().unwrap()
    };
    // What does not fire is left as it is; what does is moved.
    assert!((line("lands", "guard").identical.share - (1.0 - fires("lands"))).abs() < 1e-9);
    assert!(line("food", "guard").identical.share < 0.5, "{:?}", line("food", "guard"));
    assert_eq!(line("food", "canned").refused.share, fires("food"));
    assert!(examined.bytes < 200_000 && examined.samples.len() == 8);
}

/// A guard by hand: it fires where the first number of a row at layer 3 is above −1,000, so on every row that it reads.
fn always(engine: &Engine, select: Selector, verdict: Verdict) -> Guard {
    let d = engine.d_model();
    let mut encoder = vec![0.0; d];
    encoder[0] = 1.0;
    let mut settings = tiller::dictionary::Settings::new(tiller::dictionary::Activation::Relu);
    settings.apply_b_dec_to_input = false;
    let dictionary = tiller::dictionary::Dictionary::from_parts(tiller::dictionary::Parts {
        d_model: d,
        encoder,
        decoder: vec![0.0; d],
        encoder_bias: vec![1000.0],
        decoder_bias: vec![0.0; d],
        threshold: None,
        gate: None,
        stats: None,
        settings,
        info: tiller::dictionary::Info { layers: vec![3], ..Default::default() },
    });
    let monitor = Monitor::new("always", [0], 1.0).of(NAME).select(select);
    Guard { plan: Plan::default().watch([monitor]).tell([verdict]), dictionary: Arc::new(dictionary.unwrap()) }
}

#[test]
fn verdicts_come_a_token_and_end_answers() {
    let Some(path) = support::model(support::SMOLLM) else { return };
    let _turn = support::turn();
    let mut engine = open(&path);
    let prompts: Vec<Vec<i32>> = ["Who are you?", "Name a colour, please."]
        .map(|text| engine.chat_tokens(&[Message::user(text)], true).unwrap())
        .to_vec();
    let options = Generate { max_tokens: 6, ..Generate::default() };
    let free: Vec<Vec<i32>> =
        engine.generate_many_tokens(&prompts, &options).unwrap().iter().map(|g| g.tokens().to_vec()).collect();
    let mut run = |select, verdict| {
        let guard = always(&engine, select, verdict);
        let plan = guard.compile(&engine.target()).unwrap();
        engine.set_plan(Some(Arc::new(plan))).unwrap();
        let made = engine.generate_many_tokens(&prompts, &options).unwrap();
        let watched = engine.take_watched();
        engine.finish().ok().unwrap();
        engine.set_plan(None).unwrap();
        (made, watched)
    };
    let (made, watched) = run(Selector::generated(), Verdict::new("v", When::fires("always"), Action::Report));
    for (i, made) in made.iter().enumerate() {
        assert_eq!(made.tokens(), free[i], "reports change nothing");
        // The last token that is drawn is not computed.
        let read = watched.readings.iter().filter(|r| r.sequence == i as i32 && r.generated == Some(true)).count();
        let computed = made.tokens().len() - usize::from(made.stop() == Some(Stop::Length));
        assert_eq!(read, computed, "a reading a token");
    }
    assert_eq!(watched.readings.len(), watched.verdicts.len());
    let (made, _) = run(Selector::generated(), Verdict::new("v", When::fires("always"), Action::Stop));
    assert!(made.iter().zip(&free).all(|(m, free)| m.stop() == Some(Stop::Verdict) && m.tokens() == &free[..1]));
    let (made, watched) = run(Selector::prompt(), Verdict::replace("v", When::fires("always"), "No."));
    assert!(made.iter().all(|m| m.stop() == Some(Stop::Verdict) && m.text() == "No." && m.tokens().is_empty()));
    assert_eq!(watched.readings.len(), prompts.iter().map(|p| p.len() - 1).sum::<usize>(), "all rows but the first");
}

#[test]
fn another_model_is_refused_with_a_reason() {
    let (Some(path), Some(other)) = (support::model(support::SMOLLM), support::model(support::GEMMA)) else { return };
    let engine = open(&path);
    let mut guard = always(&engine, Selector::prompt(), Verdict::new("v", When::fires("always"), Action::Report));
    let model = Model::open(&path).unwrap();
    let info = tiller::dictionary::Info {
        name: "harm".into(),
        model_name: model.name().into(),
        model_fingerprint: model.fingerprint().into(),
        ..guard.dictionary.info().clone()
    };
    guard.dictionary = Arc::new(guard.dictionary.as_ref().clone().with_info(info));
    guard.check_model(&model).unwrap();
    let error = guard.check_model(&Model::open(&other).unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch);
    assert!(error.message().contains("guard \"harm\": learned from") && error.hint().is_some(), "{error}");
}
