//! Steering cards of small plans on a real model, SmolLM2: what does nothing is called so, what is far too strong breaks
//! fluency, two rules are tried alone, and a card can be cancelled.
#![cfg(feature = "engine")]

mod support;

use std::path::{Path, PathBuf};

use tiller::Kind;
use tiller::engine::{Engine, Options};
use tiller::eval::card::{Measure, Named, Report, Request, Word, card};
use tiller::progress::silent;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/smollm2-135m-l19.gguf");

fn open(path: &Path) -> Engine {
    let options = Options { threads: support::THREADS, context: 2048, sequences: 12, ..Options::default() };
    Engine::open(path, &options).unwrap()
}

/// A card as small as one can be of these rules.
fn request(dir: &Path, rules: &str) -> Request {
    let (plan, questions) = (dir.join("plan.json"), dir.join("questions.jsonl"));
    std::fs::write(&plan, format!("{{\"version\": 1, \"rules\": [{rules}]}}")).unwrap();
    let lines = [
        "{\"question\": \"What is the capital of France?\", \"choices\": [\"Paris\", \"Berlin\"], \"answer\": 0}",
        "{\"question\": \"How many legs has a spider?\", \"choices\": [\"six\", \"eight\"], \"answer\": 1}",
    ];
    std::fs::write(&questions, lines.join("\n")).unwrap();
    Request {
        dictionaries: vec![Named { file: SHIPPED.into(), ..Named::default() }],
        texts: 4,
        max_tokens: 16,
        directions: 4,
        direction_texts: 3,
        doses: vec![2.0],
        questions: Some(questions),
        ..Request::new(plan)
    }
}

fn model() -> Option<PathBuf> {
    support::model(support::SMOLLM)
}

fn made(change: impl FnOnce(&mut Request), rules: &str) -> Option<Report> {
    let path = model()?;
    let _turn = support::turn();
    let dir = tempfile::tempdir().unwrap();
    let mut request = request(dir.path(), rules);
    change(&mut request);
    let mut engine = open(&path);
    let made = card(&mut engine, &request, &mut silent).unwrap();
    assert!(engine.plan().is_none());
    Some(made)
}

/// Feature 1640 of the shipped dictionary: sea, ocean, seas, marine, waters.
fn sea(op: &str, strength: &str) -> String {
    format!("{{\"op\": \"{op}\", \"features\": [1640], \"strength\": {strength}}}")
}

#[test]
fn a_plan_that_does_nothing_is_called_so() {
    // Its words come from the explanation; the concept that they name has others.
    let Some(card) = made(|_| (), &sea("add", "{\"value\": 0, \"unit\": \"activation\"}")) else { return };
    assert_eq!(card.verdict.word, Word::DoesNothing, "{:?}", card.verdict);
    assert!(card.divergence.mean < 1e-3 && card.effect.measure == Measure::HeldOut, "{:?}", card.effect);
    assert!(card.samples.iter().all(|sample| sample.with == sample.without && sample.asked.is_some()));
    assert_eq!((card.choices.changed, card.random.directions, card.doses.len()), (0, 0, 2));
    assert_eq!(card.identity.llama_cpp.split(' ').next(), Some("llama-cpp-sys-2"));
    assert_eq!(Report::from_json(&card.to_json().unwrap()).unwrap().page(), card.page());
    assert!(card.page().contains("does nothing"));
}

#[test]
fn a_plan_that_is_far_too_strong_breaks_fluency() {
    let Some(card) = made(|request| request.doses.clear(), &sea("add", "{\"value\": 16, \"unit\": \"norm\"}")) else {
        return;
    };
    assert_eq!(card.verdict.word, Word::BreaksFluency, "{:?}", card.verdict);
    assert!(card.divergence.mean > 1.0 && card.meaning.likelier.len() > 4, "{:?}", card.divergence);
    // Sixteen times the row at one layer: so long are random directions, too.
    let size = card.random.sizes[0];
    assert!(size.0 == 19 && (size.1 - 16.0).abs() < 0.8 && card.random.directions == 4, "{:?}", card.random);
    assert!(card.meaning.features[0].words.contains("sea") && card.meaning.features[0].lift.unwrap() > 0.0);
}

#[test]
fn two_rules_are_tried_alone_and_rules_on_generated_rows_are_read() {
    let rule = |feature: u32| {
        format!(
            "{{\"op\": \"min_clamp\", \"features\": [{feature}], \"strength\": {{\"value\": 3, \"unit\": \"activation\"}}, \
             \"select\": {{\"phase\": \"generated\"}}}}"
        )
    };
    let words = |request: &mut Request| request.words = vec!["sea".into(), "ocean".into()];
    let Some(card) = made(words, &[rule(1640), rule(12)].join(",")) else { return };
    let found = card.additivity.as_ref().expect("two rules");
    assert_eq!((found.alone.len(), found.together.len(), found.interaction.len()), (2, 1, 1));
    assert!(
        card.divergence.mean > 1e-3,
        "rows that the model wrote are edited while they are read: {:?}",
        card.divergence
    );
    // The plan, asked, and each rule.
    assert_eq!((card.leak.rows.len(), card.leak.own.as_slice()), (4, &[1][..]));
    assert!(card.cost.rows[0] > 0 && card.cost.ms_with > 0.0 && card.cost.bytes == 4 * 576 * 4, "{:?}", card.cost);
}

#[test]
fn cancelling_leaves_no_plan() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let dir = tempfile::tempdir().unwrap();
    let request = request(dir.path(), &sea("add", "{\"value\": 1, \"unit\": \"activation\"}"));
    let mut engine = open(&path);
    let mut left = 20;
    let mut stop = |_: tiller::progress::Step<'_>| {
        left -= 1;
        left > 0
    };
    assert_eq!(card(&mut engine, &request, &mut stop).unwrap_err().kind(), Kind::Cancelled);
    assert!(engine.plan().is_none());
}

#[test]
fn what_does_not_belong_together_is_told() {
    let Some(path) = model() else { return };
    let _turn = support::turn();
    let (dir, mut engine) = (tempfile::tempdir().unwrap(), open(&path));
    let good = request(dir.path(), &sea("add", "1"));
    let mut kind = |request: &Request| card(&mut engine, request, &mut silent).unwrap_err().kind();
    assert_eq!(kind(&Request { plan: dir.path().join("none.json"), ..good.clone() }), Kind::Io);
    assert_eq!(kind(&Request { plan: SHIPPED.into(), dictionaries: Vec::new(), ..good.clone() }), Kind::Mismatch);
    assert_eq!(kind(&Request { dictionaries: Vec::new(), ..good.clone() }), Kind::Mismatch);
    assert_eq!(kind(&Request { prompts: vec!["word ".repeat(3000); 4], ..good.clone() }), Kind::Argument);
    assert_eq!(kind(&Request { texts: 0, ..good }), Kind::Argument);
}
