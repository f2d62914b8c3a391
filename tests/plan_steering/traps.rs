//! The silent traps of steering that others have stepped into, by their numbers in the project's list. Those of dictionaries
//! stand in `tests/families`, T16 in `tests/engine.rs`.

use crate::fixtures::{D, LAYER, N_LAYER, error, parts, plain, prompt, rows};
use std::collections::BTreeMap;
use std::sync::Arc;
use tiller::dictionary::{Activation, Dictionary};
use tiller::hook_point::{HookPoint, Site};
use tiller::plan::{
    Compiled, ControlVector, Gate, Op, Plan, Route, Row, Rule, Scratch, Selector, Strength, Target, Vector,
};

fn compile(rule: Rule, dictionary: &Arc<Dictionary>) -> Compiled {
    Plan::new([rule]).compile(&[("d", dictionary.clone())], &Target::new(N_LAYER, D), Route::Callback).unwrap()
}

fn apply(compiled: &Compiled, x: &[f32], meta: &[Row]) -> Vec<f32> {
    let mut out = x.to_vec();
    for ops in compiled.points.values() {
        ops.apply(&mut out, meta, &mut Scratch::new());
    }
    out
}

/// Files of generators that number layers from the embedding are one layer late: the rule says so, and nothing is guessed.
#[test]
fn t1_a_file_that_counts_otherwise_is_shifted_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.gguf");
    let mut vector = ControlVector::new(D);
    vector.add(3, &[1.0; D]).unwrap();
    vector.save(&path, "llama").unwrap();
    let layers = |shift| {
        let plan = Plan::new([Rule::vector(Vector::file(&path, shift), Strength::raw(1.0))]);
        let compiled = plan.compile(&[], &Target::new(N_LAYER, D), Route::Callback).unwrap();
        compiled.points.keys().map(|point| point.layer()).collect::<Vec<_>>()
    };
    assert_eq!((layers(0), layers(-1), layers(1)), (vec![3], vec![2], vec![4]));
}

/// Add and project out look the same in a container that names no operator.
#[test]
fn t2_a_plan_names_its_operator_and_an_unknown_one_is_refused() {
    let parse = |op: &str| Plan::from_json(&format!(r#"{{"version": 1, "rules": [{{{op} "features": [1]}}]}}"#));
    let missing = parse(r#""strength": 1,"#).unwrap_err();
    assert!(missing.message().contains("op"), "{missing}");
    let unknown = parse(r#""op": "project_out", "strength": 1,"#).unwrap_err();
    assert!(unknown.message().contains("project_out"), "{unknown}");
}

/// 34 % against 3.8 % of refusals, in the study that found it.
#[test]
fn t3_codes_are_read_only_where_the_dictionary_was_trained() {
    let mut own = parts(Activation::Relu);
    own.info.layer = None;
    own.info.hook = HookPoint::new(Site::MlpOut, LAYER).to_string();
    let own = Arc::new(Dictionary::from_parts(own).unwrap());
    let rule = Rule::new(Op::Clamp, [1], Strength::raw(1.0));
    let compiled = compile(rule.clone(), &own);
    assert_eq!(compiled.points.keys().collect::<Vec<_>>(), [&HookPoint::new(Site::MlpOut, LAYER)]);
    let error = Plan::new([rule.at_site(Site::ResidPost)])
        .compile(&[("d", own)], &Target::new(N_LAYER, D), Route::Callback)
        .unwrap_err();
    assert!(error.message().contains("hook_mlp_out, found") && error.message().contains("hook_resid_post"), "{error}");
}

#[test]
fn t10_position_0_is_spared_unless_it_is_asked_for() {
    let meta: Vec<Row> = (0..3).map(|position| Row::new(position, 0)).collect();
    let x = rows(40, 3);
    let rule = Rule::new(Op::Clamp, [1], Strength::raw(5.0));
    let out = apply(&compile(rule.clone(), &plain()), &x, &meta);
    assert_eq!(out[..D], x[..D]);
    assert!(error(&out[D..], &x[D..]) > 0.01);
    let all = rule.select(Selector::default().include_first(true));
    assert!(error(&apply(&compile(all, &plain()), &x, &meta)[..D], &x[..D]) > 0.01);
}

/// A comparison that is called "smaller" and means "larger": a gate here has one meaning, at least the threshold.
#[test]
fn t11_a_gate_opens_at_its_threshold_and_above() {
    let dictionary = plain();
    let (x, meta) = (rows(41, 1), [Row::new(3, 0)]);
    let mut codes = vec![0.0; dictionary.n_features()];
    dictionary.encode(&x, &mut codes);
    let (id, code) = (0..).zip(codes).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let opens = |threshold| {
        let rule = Rule::new(Op::Clamp, [id], Strength::raw(50.0)).gate(Gate::new([id], threshold));
        apply(&compile(rule, &dictionary), &x, &meta) != x
    };
    assert_eq!([code * 0.99, code * 1.01].map(opens), [true, false]);
}

/// With the error term of the *steered* row added back, steering would do nothing.
#[test]
fn t13_the_error_term_is_that_of_the_unsteered_row() {
    let dictionary = plain();
    let (x, meta) = (rows(42, 1), [Row::new(3, 0)]);
    let residue = |x: &[f32], change: &dyn Fn(&mut Vec<f32>)| {
        let mut codes = vec![0.0; dictionary.n_features()];
        dictionary.encode(x, &mut codes);
        change(&mut codes);
        let sparse: Vec<(u32, f32)> = (0..).zip(codes).collect();
        let mut out = vec![0.0; D];
        dictionary.reconstruct(x, &sparse, &mut out);
        out
    };
    let out = apply(&compile(Rule::new(Op::Clamp, [1], Strength::raw(9.0)), &dictionary), &x, &meta);
    assert!(error(&out, &x) > 0.05, "something is steered");
    // x' − decode(f') = x − decode(f), with f' the edited codes of x.
    let (before, after) = (residue(&x, &|_| ()), residue(&x, &|codes| codes[1] = 9.0));
    let kept: Vec<f32> = (0..D).map(|i| x[i] - before[i] + after[i]).collect();
    assert!(error(&out, &kept) < 1e-5);
}

/// A prefix cache that does not ask how the prefix was steered gives one user another user's text.
#[test]
fn t14_plans_that_steer_otherwise_have_other_fingerprints() {
    let print = |strength, id| compile(Rule::new(Op::Clamp, [id], Strength::raw(strength)), &plain()).fingerprint;
    assert_eq!(print(2.0, 1), print(2.0, 1));
    let noted = Rule::new(Op::Clamp, [1], Strength::raw(2.0)).note("another name for the same");
    assert_eq!(compile(noted, &plain()).fingerprint, print(2.0, 1));
    assert!(print(2.0, 1) != print(2.5, 1) && print(2.0, 1) != print(2.0, 2));
}

/// A name that is used again for something else must not find what was kept under it.
#[test]
fn t15_a_name_given_to_another_dictionary_steers_by_that_one() {
    let mut other = parts(Activation::Relu);
    other.decoder.iter_mut().for_each(|v| *v = -*v);
    let other = Arc::new(Dictionary::from_parts(other).unwrap());
    let (x, meta) = (rows(43, 2), prompt(2));
    let rule = || Rule::new(Op::Add, [1], Strength::raw(3.0));
    let (first, second) = (compile(rule(), &plain()), compile(rule(), &other));
    assert_ne!(first.fingerprint, second.fingerprint);
    let moved = |compiled: &Compiled| {
        let out = apply(compiled, &x, &meta);
        out.iter().zip(&x).map(|(a, b)| a - b).collect::<Vec<f32>>()
    };
    let mirrored: Vec<f32> = moved(&second).iter().map(|v| -v).collect();
    assert!(error(&moved(&first), &mirrored) < 1e-4);
    let by_point: BTreeMap<_, _> = first.points.iter().map(|(p, ops)| (p.layer(), ops.n_rules())).collect();
    assert_eq!(by_point, BTreeMap::from([(LAYER, 1)]));
}
