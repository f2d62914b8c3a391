//! How plans compile: names, layers, routes, vectors, fingerprints, and what is refused.

use crate::fixtures::{D, F, LAYER, N_LAYER, numbers, parts, plain, prompt, rows};
use std::sync::Arc;
use tiller::dictionary::{Activation, Dictionary, Info, Normalization};
use tiller::hook_point::Site;
use tiller::plan::{
    Compiled, ControlVector, Feature, Features, Gate, Op, Phase, Plan, Route, Rule, Scratch, Sequences, Strength,
    Target, Unit,
};
use tiller::{Error, Kind};

fn add(features: impl IntoIterator<Item = u32>, strength: f32) -> Rule {
    Rule::new(Op::Add, features, Strength::raw(strength))
}

fn clamp(id: u32) -> Rule {
    Rule::new(Op::Clamp, [id], Strength::raw(2.0))
}

fn vector(layer: usize, seed: u64) -> Rule {
    Rule::vector(numbers(seed, D, 1.0), Strength::raw(2.0)).at_layer(layer)
}

fn compile(rules: impl IntoIterator<Item = Rule>, route: Route) -> tiller::Result<Compiled> {
    Plan::new(rules).compile(&[("d", plain())], &Target::new(N_LAYER, D), route)
}

#[track_caller]
fn refused(result: tiller::Result<Compiled>, parts: &[&str]) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch, "{error}");
    for part in parts {
        assert!(error.message().contains(part), "{part:?} is not in {error}");
    }
    error
}

/// Layers that the callback serves, with their number of rules, and layers of the control vector.
fn shape(compiled: &Compiled) -> (Vec<(usize, usize)>, Vec<usize>) {
    let layers = compiled.points.iter().map(|(point, ops)| (point.layer(), ops.n_rules())).collect();
    let vector = compiled.control_vector.iter().flat_map(|v| v.directions().keys().copied()).collect();
    (layers, vector)
}

#[test]
fn an_empty_plan_compiles_to_nothing() {
    for route in [Route::Auto, Route::Callback, Route::ControlVector] {
        let compiled = compile([], route).unwrap();
        assert!(compiled.is_empty());
        assert_eq!((compiled.n_layer, compiled.d_model), (N_LAYER, D));
        assert_eq!(compiled.fingerprint.len(), 64);
    }
}

#[test]
fn unconditional_adds_become_a_control_vector_and_the_rest_callbacks() {
    let rules =
        || [add([1], 1.0).at_layer(0), add([1], 1.0).at_layer(1), add([2], 1.0).at_layer(5), vector(5, 30), clamp(7)];
    assert_eq!(shape(&compile(rules(), Route::Auto).unwrap()), (vec![(0, 1), (LAYER, 1)], vec![1, 5]));
    let all = vec![(0, 1), (1, 1), (LAYER, 1), (5, 2)];
    assert_eq!(shape(&compile(rules(), Route::Callback).unwrap()), (all, vec![]));
    let adds = compile([add([1], 1.0).at_layer(1), vector(5, 30)], Route::ControlVector).unwrap();
    assert_eq!(shape(&adds), (vec![], vec![1, 5]));
}

#[test]
fn adds_behind_another_rule_of_their_layer_keep_their_place() {
    let rules = [add([1], 1.0), clamp(7), add([2], 1.0), add([2], 1.0).at_layer(4)];
    assert_eq!(shape(&compile(rules.clone(), Route::Auto).unwrap()), (vec![(LAYER, 2)], vec![LAYER, 4]));
    refused(compile(rules, Route::ControlVector), &["rules[1]: ", "`clamp` reads the row"]);
}

#[test]
fn callback_and_control_vector_add_the_same() {
    let features = [Feature::new(3, 1.0), Feature::new(9, -0.5)];
    let rules = [Rule::new(Op::Add, features, Strength::activation(3.0)), vector(LAYER, 31)];
    let graph = compile(rules.clone(), Route::Auto).unwrap();
    let callback = compile(rules, Route::Callback).unwrap();
    assert_eq!(graph.fingerprint, callback.fingerprint);
    let data = graph.control_vector.unwrap().data(N_LAYER).unwrap();
    assert_eq!(data.len(), (N_LAYER - 1) * D);
    let (before, rest) = data.split_at((LAYER - 1) * D);
    let (direction, after) = rest.split_at(D);
    assert!(before.iter().chain(after).all(|&v| v == 0.0));
    let mut x = rows(32, 4);
    let want: Vec<f32> = x.chunks(D).flat_map(|x| x.iter().zip(direction).map(|(x, v)| x + v)).collect();
    callback.points[&LAYER.into()].apply(&mut x, &prompt(4), &mut Scratch::new());
    assert!(crate::fixtures::error(&x, &want) < 1e-6);
    assert!(crate::fixtures::norm(direction) > 1.0);
}

#[test]
fn what_a_control_vector_cannot_carry_is_refused_when_forced() {
    let forced = |change: &dyn Fn(&mut Rule), why: &str| {
        let mut rule = add([1], 1.0);
        change(&mut rule);
        let auto = compile([rule.clone()], Route::Auto).unwrap();
        assert!(auto.control_vector.is_none() && auto.points.len() == 1);
        refused(compile([rule], Route::ControlVector), &["rules[0]: a control vector carries only", why]);
    };
    forced(&|r| r.layer = Some(0), "layer 0");
    forced(&|r| r.norm_preserve = true, "preserves the norm");
    forced(&|r| r.strength = Some(Strength::norm(1.0)), "relative to the row's norm");
    forced(&|r| r.hook = Some(Site::MlpOut), "it acts on `mlp_out`");
    forced(&|r| r.select.include_first = Some(false), "spares the first row");
    forced(&|r| r.select.phase = Phase::Generated, "selects rows");
    forced(&|r| r.select.from = Some(1), "selects rows");
    forced(&|r| r.select.sequences = Sequences::Only(vec![1]), "selects rows");
    forced(&|r| r.gate = Some(gate(1.0)), "has a gate");
    let mut parts = parts(Activation::Relu);
    parts.settings.normalization = Normalization::LayerNorm;
    let normalizing = Arc::new(Dictionary::from_parts(parts).unwrap());
    let compile =
        |route| Plan::new([add([1], 1.0)]).compile(&[("d", normalizing.clone())], &Target::new(N_LAYER, D), route);
    assert_eq!(shape(&compile(Route::Auto).unwrap()), (vec![(LAYER, 1)], vec![]));
    refused(compile(Route::ControlVector), &["rules[0]: ", "normalises every row"]);
}

fn gate(threshold: f32) -> Gate {
    Gate::new([2], threshold)
}

#[test]
fn layers_outside_of_the_model_are_refused() {
    refused(
        compile([add([1], 1.0), add([1], 1.0).at_layer(N_LAYER)], Route::Auto),
        &["rules[1]: layer: the model has 6", "found 6"],
    );
    refused(compile([vector(99, 30)], Route::Auto), &["rules[0]: layer: the model has 6 (from 0), found 99"]);
    let shallow = Plan::new([clamp(1)]).compile(&[("d", plain())], &Target::new(LAYER, D), Route::Auto);
    refused(shallow, &["rules[0]: layer: the model has 3 (from 0), found 3"]);
}

/// Before any graph is seen.
#[test]
fn sites_that_the_architecture_lacks_are_refused() {
    let compile = |target: &Target| Plan::new([vector(1, 30).at_site(Site::MlpOut)]).compile(&[], target, Route::Auto);
    let unknown = Target::new(N_LAYER, D);
    compile(&unknown).expect("taken on trust until a hook sees the graph");
    compile(&unknown.clone().with_architecture("llama")).unwrap();
    let error = compile(&unknown.with_architecture("mamba")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().starts_with("rules[0]: hook point: \"mamba\" has"), "{error}");
}

#[test]
fn features_outside_of_the_dictionary_are_refused() {
    refused(
        compile([add([1, F as u32], 1.0)], Route::Auto),
        &["rules[0]: features[1]: dictionary \"d\" has 24", "found 24"],
    );
    let rule = clamp(1).gate(Gate::new([u32::MAX], 1.0));
    refused(compile([rule], Route::Auto), &["rules[0]: gate: features[0]: ", "found 4294967295"]);
}

#[test]
fn dictionaries_are_found_by_name() {
    let named = |name: Option<&str>| {
        let mut rule = clamp(1);
        rule.dictionary = name.map(str::to_owned);
        Plan::new([rule])
    };
    let (a, b) = (plain(), plain());
    let two = [("a", a.clone()), ("b", b)];
    named(Some("b")).compile(&two, &Target::new(N_LAYER, D), Route::Auto).unwrap();
    named(None).compile(&two[..1], &Target::new(N_LAYER, D), Route::Auto).unwrap();
    let compile =
        |name, given: &[(&str, Arc<Dictionary>)]| named(name).compile(given, &Target::new(N_LAYER, D), Route::Auto);
    refused(compile(Some("c"), &two), &["rules[0]: dictionary: \"c\" is not among the given ones (\"a\", \"b\")"]);
    refused(compile(Some("c"), &[]), &["rules[0]: dictionary: \"c\"", "(none)"]);
    refused(compile(None, &two), &["rules[0]: dictionary: 2 were given, so the rule must name one"]);
    refused(compile(None, &[]), &["rules[0]: dictionary: the rule needs one, none was given"]);
}

#[test]
fn a_dictionary_name_given_twice_is_refused() {
    let error = Plan::default()
        .compile(&[("a", plain()), ("b", plain()), ("a", plain())], &Target::new(N_LAYER, D), Route::Auto)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert_eq!(error.message(), "dictionaries: the name \"a\" is given twice");
}

#[test]
fn a_dictionary_of_another_width_is_refused() {
    let result = Plan::new([clamp(1)]).compile(&[("d", plain())], &Target::new(N_LAYER, D + 1), Route::Auto);
    refused(result, &["rules[0]: dictionary: the model's width is 38, \"d\" has width 37"]);
    let result = Plan::new([vector(1, 30)]).compile(&[], &Target::new(N_LAYER, D + 1), Route::Auto);
    refused(result, &["rules[0]: vector: the model's width is 38, found 37 numbers"]);
}

#[test]
fn a_dictionary_reads_only_the_layer_that_it_was_made_for() {
    refused(
        compile([clamp(1).at_layer(LAYER + 1)], Route::Auto),
        &["rules[0]: layer: `clamp` needs", "layer 3, found 4"],
    );
    compile([clamp(1).at_layer(LAYER)], Route::Auto).unwrap();
    compile([add([1], 1.0).at_layer(LAYER + 1)], Route::Auto).expect("a direction may be added anywhere");
    let rule = add([1], 1.0).at_layer(LAYER + 1).gate(gate(1.0));
    refused(compile([rule], Route::Auto), &["rules[0]: gate: dictionary: \"d\" is for layer 3", "acts on layer 4"]);
    let unplaced = Arc::new(Dictionary::clone(&plain()).with_info(Info::default()));
    let compile =
        |rule: Rule| Plan::new([rule]).compile(&[("d", unplaced.clone())], &Target::new(N_LAYER, D), Route::Auto);
    refused(compile(clamp(1)), &["rules[0]: layer: dictionary \"d\" does not say its layer"]);
    compile(clamp(1).at_layer(4)).unwrap();
}

#[test]
fn activation_units_need_statistics() {
    let rule = || Rule::new(Op::Clamp, [1u32, 4], Strength::activation(2.0));
    let mut parts = parts(Activation::Relu);
    parts.stats.as_mut().unwrap()[4].mean = 0.0;
    let silent = Arc::new(Dictionary::from_parts(parts.clone()).unwrap());
    parts.stats = None;
    let without = Arc::new(Dictionary::from_parts(parts).unwrap());
    let compile = |rule: Rule, d: &Arc<Dictionary>| {
        Plan::new([rule]).compile(&[("d", d.clone())], &Target::new(N_LAYER, D), Route::Auto)
    };
    refused(
        compile(rule(), &without),
        &["rules[0]: strength.unit: dictionary \"d\" has no statistics", "use `raw` or `norm`"],
    );
    refused(compile(rule(), &silent), &["rules[0]: features[1]: feature 4 of dictionary \"d\"", "never fired"]);
    let gated = clamp(1).gate(gate(1.0).unit(Unit::Activation));
    refused(compile(gated, &without), &["rules[0]: gate: unit: dictionary \"d\" has no statistics"]);
}

#[test]
fn strengths_that_overflow_are_refused() {
    let mut rule = add([1], 3e38);
    rule.features[0].weight = 1e9;
    let error = compile([rule], Route::Auto).unwrap_err();
    assert_eq!(error.kind(), Kind::Numeric);
    assert!(error.message().starts_with("rules[0]: strength.value: "), "{error}");
}

#[test]
fn strengths_beyond_what_a_norm_squares_are_refused() {
    for (strength, fine) in [(1e18, true), (1e30, false)] {
        for route in [Route::Auto, Route::Callback] {
            let rule = Rule::vector(vec![1.0; D], Strength::raw(strength)).at_layer(1);
            match compile([rule], route) {
                Ok(_) => assert!(fine, "{strength:e}"),
                Err(error) => {
                    assert!(!fine && error.kind() == Kind::Numeric, "{error}");
                    let says =
                        "rules[0]: strength.value: it is out of range for 32-bit numbers here (gives a length of";
                    assert!(error.message().starts_with(says), "{error}");
                }
            }
        }
    }
}

#[test]
fn directions_that_are_too_long_together_are_refused() {
    let rule = || Rule::vector(vec![1.0; D], Strength::raw(2e18)).at_layer(1);
    assert!(compile([rule()], Route::Auto).is_ok());
    let error = compile([rule(), rule()], Route::Auto).unwrap_err();
    assert!(error.kind() == Kind::Numeric && error.message().contains("which a model cannot square"), "{error}");
}

#[test]
fn directions_without_length_have_no_relative_strength() {
    let rule = Rule::vector(vec![0.0; D], Strength::norm(0.5)).at_layer(1);
    refused(compile([rule], Route::Auto), &["rules[0]: vector has length 0"]);
    let mut parts = parts(Activation::Relu);
    parts.decoder[5 * D..6 * D].fill(0.0);
    let dead = Arc::new(Dictionary::from_parts(parts).unwrap());
    let plan = Plan::new([Rule::new(Op::Clamp, [1u32, 5], Strength::norm(0.5))]);
    refused(
        plan.compile(&[("d", dead)], &Target::new(N_LAYER, D), Route::Auto),
        &["features[1]: the decoder row of feature 5 has length 0"],
    );
}

#[test]
fn an_invalid_plan_does_not_compile() {
    let error = compile([clamp(1), Rule::new(Op::Clamp, [1u32], None)], Route::Auto).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert!(error.message().starts_with("rules[1]: strength: "), "{error}");
}

#[test]
fn vector_files_lie_beside_the_plan_and_may_be_shifted() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = ControlVector::new(D);
    file.add(1, &numbers(40, D, 1.0)).unwrap();
    file.add(4, &numbers(41, D, 1.0)).unwrap();
    file.save(&dir.path().join("v.gguf"), "llama").unwrap();
    let path = dir.path().join("plan.json");
    let compile = |rule: &str, route| {
        std::fs::write(&path, format!(r#"{{"version": 1, "rules": [{{"op": "add", "strength": 2, {rule}}}]}}"#))
            .unwrap();
        Plan::open(&path)?.compile(&[], &Target::new(N_LAYER, D), route)
    };
    let all = compile(r#""vector": {"file": "v.gguf"}"#, Route::Auto).unwrap();
    assert_eq!(shape(&all), (vec![], vec![1, 4]));
    let twice: Vec<f32> = numbers(41, D, 1.0).iter().map(|v| 2.0 * v).collect();
    assert_eq!(all.control_vector.unwrap().directions()[&4], twice);
    let shifted = compile(r#""vector": {"file": "v.gguf", "shift": -1}"#, Route::Auto).unwrap();
    assert_eq!(shape(&shifted), (vec![(0, 1)], vec![3]));
    let one = compile(r#""layer": 3, "vector": {"file": "v.gguf", "shift": -1}"#, Route::Callback).unwrap();
    assert_eq!(shape(&one), (vec![(3, 1)], vec![]));
    let auto = |rule| compile(rule, Route::Auto);
    refused(
        auto(r#""layer": 2, "vector": {"file": "v.gguf"}"#),
        &["plan.json: rules[0]: layer: ", "v.gguf has no direction for layer 2"],
    );
    refused(
        auto(r#""vector": {"file": "v.gguf", "shift": -2}"#),
        &["rules[0]: vector.shift: -2 moves direction.1 in front"],
    );
    refused(
        auto(r#""vector": {"file": "v.gguf", "shift": 2}"#),
        &["rules[0]: ", "v.gguf: layer: the model has 6", "found 6"],
    );
    let missing = auto(r#""vector": {"file": "none.gguf"}"#).unwrap_err();
    assert_eq!(missing.kind(), Kind::Io);
    assert!(
        missing.message().contains("plan.json: rules[0]: ") && missing.message().contains("none.gguf"),
        "{missing}"
    );
}

#[test]
fn the_fingerprint_is_what_the_plan_does() {
    let base = || Rule::new(Op::MinClamp, [1u32, 2], Strength::raw(2.0)).gate(gate(1.0));
    let fingerprint = |rules: Vec<Rule>| compile(rules, Route::Auto).unwrap().fingerprint;
    let print = |change: &dyn Fn(&mut Rule)| {
        let mut rule = base();
        change(&mut rule);
        fingerprint(vec![rule])
    };
    let same = print(&|_| ());
    assert_eq!(same, print(&|r| r.note = Some("words".into())));
    assert_eq!(same, print(&|r| r.dictionary = Some("d".into())));
    assert_eq!(same, print(&|r| r.layer = Some(LAYER)));
    assert_eq!(same, print(&|r| r.op = Op::Calibrate));
    assert_eq!(same, print(&|r| r.select.include_first = Some(false)));
    assert_eq!(same, print(&|r| r.select.from = Some(0)));

    let mut prints = vec![
        same,
        fingerprint(vec![]),
        fingerprint(vec![base(), base()]),
        print(&|r| r.op = Op::MaxClamp),
        print(&|r| r.op = Op::Clamp),
        print(&|r| r.op = Op::CalibrateSpread),
        print(&|r| r.features[0].id = 3),
        print(&|r| r.features[0].weight = 2.0),
        print(&|r| r.features = Features::Only(r.features[..1].to_vec())),
        print(&|r| r.strength = Some(Strength::raw(2.5))),
        print(&|r| r.strength = Some(Strength::activation(2.0))),
        print(&|r| r.strength = Some(Strength::norm(2.0))),
        print(&|r| r.norm_preserve = true),
        print(&|r| r.select.phase = Phase::Prompt),
        print(&|r| r.select.phase = Phase::Generated),
        print(&|r| r.select.from = Some(2)),
        print(&|r| r.select.to = Some(2)),
        print(&|r| r.select.include_first = Some(true)),
        print(&|r| r.select.sequences = Sequences::Only(vec![0])),
        print(&|r| r.select.sequences = Sequences::Only(vec![0, 1])),
        print(&|r| r.gate = None),
        print(&|r| r.gate = Some(gate(2.0))),
        print(&|r| r.gate = Some(Gate::new([3], 1.0))),
        print(&|r| r.gate = Some(gate(1.0).over_sequence())),
        print(&|r| r.gate = Some(gate(1.0).unit(Unit::Activation))),
        fingerprint(vec![add([1], 1.0)]),
        fingerprint(vec![add([2], 1.0)]),
        fingerprint(vec![add([1], 1.0).at_layer(4)]),
        fingerprint(vec![vector(1, 50)]),
        fingerprint(vec![vector(1, 51)]),
    ];
    let n = prints.len();
    prints.sort();
    prints.dedup();
    assert_eq!(prints.len(), n, "two different plans have one fingerprint");
}

#[test]
fn the_fingerprint_sees_the_dictionary() {
    let print = |change: &dyn Fn(&mut tiller::dictionary::Parts)| {
        let mut parts = parts(Activation::Relu);
        change(&mut parts);
        let dictionary = Arc::new(Dictionary::from_parts(parts).unwrap());
        Plan::new([clamp(5)]).compile(&[("d", dictionary)], &Target::new(N_LAYER, D), Route::Auto).unwrap().fingerprint
    };
    let same = print(&|_| ());
    assert_eq!(same, print(&|p| p.info.name = "another name".into()));
    assert_eq!(same, print(&|p| p.encoder[6 * D] += 1.0), "a row of no feature in the plan");
    assert_ne!(same, print(&|p| p.encoder[5 * D] += 1.0));
    assert_ne!(same, print(&|p| p.decoder[5 * D] += 1.0));
    assert_ne!(same, print(&|p| p.encoder_bias[5] += 1.0));
    assert_ne!(same, print(&|p| p.decoder_bias[1] += 1.0));
    assert_ne!(same, print(&|p| p.settings.apply_b_dec_to_input = false));
    assert_ne!(same, print(&|p| p.settings.center_input = true));
    assert_ne!(same, print(&|p| p.settings.normalization = Normalization::LayerNorm));
    assert_ne!(same, print(&|p| p.settings.rescale_by_decoder_norm = true));
    assert_ne!(same, print(&|p| p.settings.activation = Activation::TopK { k: 5 }));
    let topk = |k| print(&|p| p.settings.activation = Activation::TopK { k });
    assert_ne!(topk(5), topk(6));
}

#[test]
fn rules_on_different_layers_may_be_listed_in_any_order() {
    let a = compile([vector(1, 60), vector(2, 61)], Route::Auto).unwrap();
    let b = compile([vector(2, 61), vector(1, 60)], Route::Auto).unwrap();
    assert_eq!(a.fingerprint, b.fingerprint);
}
