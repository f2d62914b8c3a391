//! What a plan may ask for: rules share what they share, and no plan asks for more than its limits.

mod support;

use std::sync::Arc;

use support::memory::{Counting, peak};
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::plan::{Gate, Op, Plan, Route, Rule, Strength, Target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const D: usize = 64;
const F: usize = 1024;

fn dictionary() -> Arc<Dictionary> {
    let wave = |step: f32| (0..F * D).map(|i| (i as f32 * step).sin()).collect();
    let parts = Parts {
        d_model: D,
        encoder: wave(0.37),
        decoder: wave(0.71),
        encoder_bias: vec![0.1; F],
        decoder_bias: vec![0.2; D],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings::new(Activation::Relu),
        info: Info { layer: Some(2), ..Info::default() },
    };
    Arc::new(Dictionary::from_parts(parts).unwrap())
}

fn rule() -> Rule {
    Rule::new(Op::Clamp, 0..F as u32, Strength::raw(1.0))
}

#[test]
fn rules_on_the_same_features_share_their_rows() {
    let dictionary = dictionary();
    let compile = |rules: Vec<Rule>| {
        let plan = Plan::new(rules);
        let (compiled, bytes) =
            peak(|| plan.compile(&[("d", dictionary.clone())], &Target::new(4, D), Route::Callback).unwrap());
        assert_eq!(compiled.points[&2.into()].n_rules(), plan.rules.len());
        bytes
    };
    let (one, many) = (compile(vec![rule()]), compile(vec![rule(); 30]));
    let gated = rule().gate(Gate::new(0..F as u32, 0.5));
    let gates = compile(vec![gated; 30]);
    // Rows are 2 MB of what a rule takes; its strengths, ids and shares are some tens of kilobytes.
    assert!(one > 1 << 20 && many < 2 * one && gates < 3 * one, "{one}, {many} and {gates} bytes");
}

#[test]
fn a_plan_beyond_its_limits_is_refused_by_name() {
    let wrong = |rules: Vec<Rule>| {
        let error = Plan::new(rules).compile(&[("d", dictionary())], &Target::new(4, D), Route::Auto).unwrap_err();
        assert_eq!(error.kind(), tiller::Kind::Argument);
        error.message().to_owned()
    };
    let error = wrong(vec![rule(); 65]);
    assert!(error.contains("at most 65536 features") && error.contains("found 66560"), "{error}");
    Plan::new(vec![rule(); 64]).check().unwrap();
    let error = wrong(vec![Rule::new(Op::Ablate, [1], None); 1025]);
    assert!(error.contains("at most 1024 rules, found 1025"), "{error}");
}
