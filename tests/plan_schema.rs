//! Plans as text: what is read, what is written, and what every malformed plan gets told.

use rand::Rng;
use tiller::Kind;
use tiller::plan::{Feature, Gate, Op, Plan, Rule, Selector, Strength, Unit, Vector};

/// The message that a text is refused with, which names the place.
fn refused(text: &str) -> String {
    let error = Plan::from_json(text).unwrap_err();
    assert_eq!(error.kind(), Kind::Format, "{error}");
    assert!(error.message().starts_with("plan"), "{error}");
    error.message().to_owned()
}

/// The message that a plan with this rule is refused with.
fn refused_rule(rule: &str) -> String {
    refused(&format!("{{\"version\": 1, \"rules\": [{rule}]}}"))
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// A plan that uses every key.
const FULL: &str = r#"{
  "version": 1,
  "note": "everything",
  "rules": [
    {
      "op": "min_clamp",
      "dictionary": "main",
      "layer": 19,
      "features": [812, {"id": 3301, "weight": 0.5}],
      "strength": {"value": 2.5, "unit": "activation"},
      "norm_preserve": true,
      "select": {"phase": "generated", "from": 4, "to": 400, "include_first": true, "sequences": [0, 2]},
      "gate": {"dictionary": "other", "features": [7, 8], "threshold": 0.25, "unit": "activation", "scope": "sequence"},
      "note": "a rule"
    },
    {"op": "cap", "features": [1], "strength": 3},
    {"op": "add", "layer": 3, "vector": [0.5, -1, 2e-3], "strength": {"value": 0.1, "unit": "norm"}},
    {"op": "add", "vector": {"file": "v.gguf", "shift": -1}, "strength": -1.5},
    {"op": "ablate", "features": [5], "select": {"sequences": "all"}}
  ]
}"#;

fn full() -> Plan {
    let features = [Feature::from(812), Feature::new(3301, 0.5)];
    let select = Selector::generated().from(4).to(400).include_first(true).sequences([0, 2]);
    let gate = Gate::new([7, 8], 0.25).unit(Unit::Activation).of("other").over_sequence();
    let first = Rule::new(Op::MinClamp, features, Strength::activation(2.5)).of("main").at_layer(19).preserving_norm();
    let plan = Plan::new([
        first.select(select).gate(gate).note("a rule"),
        Rule::new(Op::MaxClamp, [1u32], Strength::raw(3.0)),
        Rule::vector(vec![0.5, -1.0, 2e-3], Strength::norm(0.1)).at_layer(3),
        Rule::vector(Vector::file("v.gguf", -1), Strength::raw(-1.5)),
        Rule::new(Op::Ablate, [5u32], None),
    ]);
    plan.note("everything")
}

#[test]
fn every_key_is_read() {
    assert_eq!(Plan::from_json(FULL).unwrap(), full());
}

#[test]
fn what_is_written_reads_as_the_same_plan() {
    let text = full().to_json();
    assert_eq!(Plan::from_json(&text).unwrap(), full());
    assert_eq!(Plan::from_json(&text).unwrap().to_json(), text, "the written form is stable");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.json");
    full().save(&path).unwrap();
    assert_eq!(Plan::open(&path).unwrap(), full());
}

#[test]
fn every_operator_has_its_name() {
    for &op in Op::ALL {
        let strength = (op != Op::Ablate).then_some(Strength::raw(1.0));
        let plan = Plan::new([Rule::new(op, [1u32], strength)]);
        assert!(plan.to_json().contains(&format!("\"op\": \"{}\"", op.name())));
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    }
}

#[test]
fn defaults_are_not_written() {
    let text = Plan::new([Rule::new(Op::Ablate, [1u32], None)]).to_json();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words.join(" "), r#"{ "version": 1, "rules": [ { "op": "ablate", "features": [ 1 ] } ] }"#);
}

#[test]
fn no_rules_are_an_empty_plan() {
    assert_eq!(Plan::from_json("{\"version\": 1, \"rules\": []}").unwrap(), Plan::default());
}

#[test]
fn missing_version_is_refused() {
    assert_says(&refused("{\"rules\": []}"), &["plan:1:13", "missing field `version`"]);
}

#[test]
fn missing_rules_are_refused() {
    assert_says(&refused("{\"version\": 1}"), &["missing field `rules`"]);
}

#[test]
fn newer_version_is_unsupported_whatever_else_it_says() {
    let error = Plan::from_json("{\"version\": 2, \"rules\": {}, \"news\": 1}").unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_says(error.message(), &["plan: version", "version 1", "found 2"]);
}

#[test]
fn version_of_another_type_is_refused() {
    assert_says(
        &refused("{\"version\": \"1\", \"rules\": []}"),
        &["plan:1:15: version: ", "string \"1\"", "expected u32"],
    );
}

#[test]
fn text_that_is_not_json_is_refused() {
    assert_says(&refused("rules: []"), &["plan:1:1: expected value"]);
    assert_says(&refused(""), &["EOF"]);
    assert_says(&refused("{\"version\": 1, \"rules\": []} {}"), &["trailing characters"]);
    assert_says(&refused(&"[".repeat(100_000)), &["plan:1:"]);
}

#[test]
fn truncated_text_is_refused_everywhere() {
    for end in 0..FULL.len() {
        refused(&FULL[..end]);
    }
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let mut rng = tiller::num::rng(1);
    for _ in 0..20_000 {
        let mut bytes = FULL.as_bytes().to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = rng.random_range(0x20..0x7f),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"{}[]\",:0-e.\\"[rng.random_range(0..12)]),
            }
        }
        if let Ok(plan) = Plan::from_json(&String::from_utf8(bytes).unwrap()) {
            plan.check().unwrap();
            assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
        }
    }
}

#[test]
fn unknown_key_of_the_plan_is_refused() {
    let text = "{\n  \"version\": 1,\n  \"rulez\": []\n}";
    assert_says(&refused(text), &["plan:3:9: rulez: unknown field `rulez`", "expected one of", "`rules`"]);
}

#[test]
fn unknown_key_of_a_rule_is_refused() {
    let message = refused_rule(r#"{"op": "ablate", "features": [1]}, {"op": "ablate", "featurez": [1]}"#);
    assert_says(&message, &["rules[1].featurez: unknown field `featurez`", "`features`"]);
}

#[test]
fn unknown_keys_inside_a_rule_are_refused() {
    let rule = |rest: &str| refused_rule(&format!(r#"{{"op": "add", "features": [1], {rest}}}"#));
    let message = rule(r#""strength": 1, "select": {"fase": "all"}"#);
    assert_says(&message, &["rules[0].select.fase: unknown field `fase`"]);
    let message = rule(r#""strength": 1, "gate": {"features": [1], "threshold": 1, "scop": "row"}"#);
    assert_says(&message, &["rules[0].gate.scop: unknown field `scop`"]);
    let message = rule(r#""strength": {"value": 1, "units": "raw"}"#);
    assert_says(&message, &["rules[0].strength.units: unknown field `units`"]);
    let message = refused_rule(r#"{"op": "add", "features": [1, {"id": 1, "wait": 2}], "strength": 1}"#);
    assert_says(&message, &["rules[0].features[1].wait: unknown field `wait`"]);
    let message = refused_rule(r#"{"op": "add", "vector": {"path": "v"}, "strength": 1}"#);
    assert_says(&message, &["rules[0].vector.path: unknown field `path`, expected `file` or `shift`"]);
}

#[test]
fn a_key_given_twice_is_refused() {
    let message = refused_rule(r#"{"op": "ablate", "op": "ablate", "features": [1]}"#);
    assert_says(&message, &["rules[0].op: duplicate field `op`"]);
}

#[test]
fn unknown_operator_is_refused() {
    let message = refused_rule(r#"{"op": "destroy", "features": [1]}"#);
    assert_says(&message, &["rules[0].op: unknown variant `destroy`", "`calibrate_spread`"]);
}

#[test]
fn missing_operator_is_refused() {
    assert_says(&refused_rule(r#"{"features": [1]}"#), &["rules[0]: missing field `op`"]);
}

#[test]
fn unknown_unit_phase_scope_and_sequences_are_refused() {
    let rule = |rest: &str| refused_rule(&format!(r#"{{"op": "add", "features": [1], {rest}}}"#));
    let message = rule(r#""strength": {"value": 1, "unit": "volts"}"#);
    assert_says(&message, &["rules[0].strength.unit: unknown variant `volts`", "`activation`"]);
    let message = rule(r#""strength": 1, "select": {"phase": "later"}"#);
    assert_says(&message, &["rules[0].select.phase: unknown variant `later`", "`generated`"]);
    let message = rule(r#""strength": 1, "gate": {"features": [1], "threshold": 0, "scope": "world"}"#);
    assert_says(&message, &["rules[0].gate.scope: unknown variant `world`"]);
    let message = rule(r#""strength": 1, "select": {"sequences": "some"}"#);
    assert_says(&message, &["rules[0].select.sequences: ", "\"some\"", "\"all\" or a list"]);
}

#[test]
fn all_features_come_back_as_they_were_written() {
    let text = r#"{"version": 1, "rules": [{"op": "amplify", "features": "all", "strength": 1.5}]}"#;
    let plan = Plan::from_json(text).unwrap();
    assert!(plan.rules[0].features.is_all());
    assert_eq!(plan, Plan::new([Rule::all(Op::Amplify, Strength::raw(1.5))]));
    assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    assert!(plan.to_json().contains(r#""features": "all""#));
    let message = refused_rule(r#"{"op": "add", "features": "some", "strength": 1}"#);
    assert_says(&message, &["rules[0].features: ", "\"some\"", "a list of features, or \"all\""]);
    let message = refused_rule(r#"{"op": "add", "features": "all", "strength": 1, "propagate": "t.safetensors"}"#);
    assert_says(&message, &["propagate: only `add` on features propagates, found all features"]);
}

#[test]
fn wrong_types_are_refused() {
    let rule = |rest: &str| refused_rule(&format!(r#"{{"op": "add", {rest}}}"#));
    let feature = |f: &str| rule(&format!(r#""features": [{f}], "strength": 1"#));
    let other = |rest: &str| rule(&format!(r#""features": [1], {rest}"#));
    let message = rule(r#""features": 7, "strength": 1"#);
    assert_says(&message, &["rules[0].features: invalid type: integer `7`", "a list of features, or \"all\""]);
    assert_says(&feature("\"7\""), &["rules[0].features[0]: ", "string \"7\"", "a feature: its id"]);
    assert_says(&feature("1.5"), &["rules[0].features[0]: ", "1.5"]);
    assert_says(&feature("-1"), &["rules[0].features[0]: ", "-1"]);
    assert_says(&feature("4294967296"), &["rules[0].features[0]: ", "4294967296"]);
    assert_says(&other(r#""strength": "2""#), &["rules[0].strength: ", "a strength: a number"]);
    assert_says(&other(r#""strength": {"unit": "raw"}"#), &["rules[0].strength", "missing field `value`"]);
    assert_says(&other(r#""strength": 1, "layer": -1"#), &["rules[0].layer: ", "`-1`"]);
    assert_says(&other(r#""strength": 1, "norm_preserve": 1"#), &["rules[0].norm_preserve: ", "a boolean"]);
    assert_says(&other(r#""strength": 1, "select": {"from": -2}"#), &["rules[0].select.from: ", "`-2`"]);
    assert_says(&rule(r#""vector": "v.gguf", "strength": 1"#), &["rules[0].vector: ", "a vector: a list of numbers"]);
}

#[test]
fn nan_and_infinity_are_refused() {
    let rule = |s: &str| refused_rule(&format!(r#"{{"op": "add", "features": [1], "strength": {s}}}"#));
    assert_says(&rule("NaN"), &["rules[0].strength: expected value"]);
    assert_says(&rule("Infinity"), &["rules[0].strength: expected value"]);
    assert_says(&rule("1e999"), &["rules[0].strength: number out of range"]);
    assert_says(&rule("1e39"), &["rules[0]: strength.value: expected a finite number, found inf"]);
    let message = refused_rule(r#"{"op": "add", "features": [{"id": 1, "weight": 1e39}], "strength": 1}"#);
    assert_says(&message, &["rules[0]: features[0].weight: expected a finite number, found inf"]);
    let message = refused_rule(r#"{"op": "add", "layer": 1, "vector": [0, -1e39], "strength": 1}"#);
    assert_says(&message, &["rules[0]: vector[1]: expected a finite number, found -inf"]);
    let plan = Plan::new([Rule::new(Op::Add, [1u32], Strength::raw(f32::NAN))]);
    let error = plan.check().unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert_says(error.message(), &["rules[0]: strength.value", "found NaN"]);
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(plan.save(&dir.path().join("p.json")).unwrap_err().kind(), Kind::Argument);
    assert!(!dir.path().join("p.json").exists());
}

#[test]
fn negative_is_refused_where_it_means_nothing() {
    for op in ["min_clamp", "max_clamp", "calibrate", "calibrate_spread"] {
        let message = refused_rule(&format!(r#"{{"op": "{op}", "features": [1], "strength": -1}}"#));
        assert_says(&message, &["rules[0]: strength.value", op, "0 or more", "found -1"]);
        let message =
            refused_rule(&format!(r#"{{"op": "{op}", "features": [{{"id": 1, "weight": -1}}], "strength": 1}}"#));
        assert_says(&message, &["rules[0]: features[0].weight", op, "found -1"]);
    }
    for op in ["add", "scale", "clamp", "amplify"] {
        let text = format!(r#"{{"version": 1, "rules": [{{"op": "{op}", "features": [1], "strength": -1}}]}}"#);
        Plan::from_json(&text).unwrap();
    }
}

#[test]
fn strength_that_is_missing_or_too_much_is_refused() {
    for &op in Op::ALL {
        let name = op.name();
        let message = match op {
            Op::Ablate => refused_rule(r#"{"op": "ablate", "features": [1], "strength": 1}"#),
            _ => refused_rule(&format!(r#"{{"op": "{name}", "features": [1]}}"#)),
        };
        assert_says(&message, &["rules[0]: strength: ", name]);
    }
    let message = refused_rule(r#"{"op": "ablate", "features": [{"id": 1, "weight": 0.5}]}"#);
    assert_says(&message, &["rules[0]: features[0].weight", "`scale`"]);
}

#[test]
fn a_factor_with_a_unit_is_refused() {
    for op in ["scale", "amplify"] {
        let strength = r#"{"value": 2, "unit": "norm"}"#;
        let message = refused_rule(&format!(r#"{{"op": "{op}", "features": [1], "strength": {strength}}}"#));
        assert_says(&message, &["rules[0]: strength.unit", op, "plain factor"]);
    }
}

#[test]
fn a_rule_without_features_is_refused() {
    assert_says(&refused_rule(r#"{"op": "ablate"}"#), &["rules[0]: features: expected at least one"]);
    assert_says(&refused_rule(r#"{"op": "ablate", "features": []}"#), &["rules[0]: features: expected at least one"]);
}

#[test]
fn a_feature_listed_twice_is_refused() {
    let message = refused_rule(r#"{"op": "ablate", "features": [3, 4, {"id": 3}]}"#);
    assert_says(&message, &["rules[0]: features[2]: feature 3 is listed twice"]);
}

#[test]
fn vectors_that_do_not_fit_their_rule_are_refused() {
    let rule = |rest: &str| refused_rule(&format!("{{\"strength\": 1, {rest}}}"));
    let message = rule(r#""op": "clamp", "layer": 1, "vector": [1, 2]"#);
    assert_says(&message, &["rules[0]: vector: only `add`", "`clamp`"]);
    assert_says(&rule(r#""op": "add", "layer": 1, "features": [1], "vector": [1, 2]"#), &["rules[0]: ", "found both"]);
    assert_says(&rule(r#""op": "add", "vector": [1, 2]"#), &["rules[0]: layer: an inline vector needs one"]);
    assert_says(&rule(r#""op": "add", "layer": 1, "vector": []"#), &["rules[0]: vector: expected", "found none"]);
    let message = rule(r#""op": "add", "layer": 1, "dictionary": "a", "vector": [1, 2]"#);
    assert_says(&message, &["rules[0]: dictionary: a vector needs none"]);
    assert_says(&rule(r#""op": "add", "vector": {"file": ""}"#), &["rules[0].vector", "`file` is empty"]);
    assert_says(&rule(r#""op": "add", "vector": {}"#), &["rules[0].vector", "missing field `file`"]);
    let strength = r#"{"value": 1, "unit": "activation"}"#;
    let message = refused_rule(&format!(r#"{{"op": "add", "layer": 1, "vector": [1, 2], "strength": {strength}}}"#));
    assert_says(&message, &["rules[0]: strength.unit", "a vector has no activation"]);
}

#[test]
fn selectors_that_select_nothing_are_refused() {
    let rule = |select: &str| refused_rule(&format!(r#"{{"op": "ablate", "features": [1], "select": {select}}}"#));
    assert_says(&rule(r#"{"from": 5, "to": 5}"#), &["rules[0]: select: to: expected a position after 5", "found 5"]);
    assert_says(&rule(r#"{"to": 0}"#), &["select: to: expected a position after 0"]);
    assert_says(&rule(r#"{"sequences": []}"#), &["select: sequences: ", "empty list"]);
    assert_says(&rule(r#"{"sequences": [1, -1]}"#), &["select: sequences[1]: expected 0 or more, found -1"]);
}

#[test]
fn gates_that_mean_nothing_are_refused() {
    let rule = |gate: &str| refused_rule(&format!(r#"{{"op": "ablate", "features": [1], "gate": {gate}}}"#));
    assert_says(&rule(r#"{"features": [], "threshold": 1}"#), &["rules[0]: gate: features: expected at least one"]);
    assert_says(&rule(r#"{"features": [2, 2], "threshold": 1}"#), &["gate: features[1]: feature 2 is listed twice"]);
    assert_says(&rule(r#"{"features": [2], "threshold": -0.5}"#), &["gate: threshold: ", "found -0.5"]);
    assert_says(&rule(r#"{"features": [2], "threshold": 1e39}"#), &["gate: threshold: ", "found inf"]);
    assert_says(&rule(r#"{"features": [2], "threshold": 1, "unit": "norm"}"#), &["gate: unit: ", "found `norm`"]);
    assert_says(&rule(r#"{"features": [2]}"#), &["rules[0].gate", "missing field `threshold`"]);
}

#[test]
fn a_file_is_named_with_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.json");
    std::fs::write(&path, "{\n \"version\": 1,\n \"rules\": [\n  {\"op\": \"ad\"}]}").unwrap();
    let error = Plan::open(&path).unwrap_err();
    assert_eq!(error.kind(), Kind::Format);
    assert_says(error.message(), &["mine.json:4:13: rules[0].op: unknown variant `ad`"]);
    std::fs::write(&path, "{\"version\": 1, \"rules\": [{\"op\": \"ablate\"}]}").unwrap();
    assert_says(Plan::open(&path).unwrap_err().message(), &["mine.json: rules[0]: features"]);
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.json");
    let error = Plan::open(&path).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert_says(error.message(), &["none.json"]);
    std::fs::write(&path, [b'{', 0xff, b'}']).unwrap();
    let error = Plan::open(&path).unwrap_err();
    assert_eq!(error.kind(), Kind::Format);
    assert_says(error.message(), &["none.json:1: expected UTF-8, found 0xff at byte 2"]);
    std::fs::File::create(&path).unwrap().set_len(65 << 20).unwrap();
    assert_says(Plan::open(&path).unwrap_err().message(), &["at most", "found 68157440"]);
}
