//! Features that live at several layers: one rule acts on each at its own.

use crate::fixtures::{D, N_LAYER, parts, prompt, rows};
use std::sync::Arc;
use tiller::Kind;
use tiller::dictionary::{Activation, Dictionary, Form, Info, Learned};
use tiller::hook_point::HookPoint;
use tiller::plan::{Compiled, Gate, Op, Plan, Route, Rule, Scratch, Strength, Target};

/// Three features: at layers 1, 4 and 4.
const LAYERS: [usize; 3] = [1, 4, 4];

fn learned() -> Arc<Dictionary> {
    let dictionary = Dictionary::from_parts(parts(Activation::Relu)).unwrap().select(&[2, 5, 7]).unwrap();
    let info = Info { layer: None, layers: LAYERS.to_vec(), ..dictionary.info().clone() };
    Arc::new(dictionary.with_info(info))
}

fn compile(rule: Rule, route: Route) -> tiller::Result<Compiled> {
    Plan::new([rule]).compile(&[("", learned())], &Target::new(N_LAYER, D), route)
}

fn decoder(feature: usize) -> Vec<f32> {
    let mut row = vec![0.0; D];
    learned().decoder_row(feature, &mut row);
    row
}

#[test]
fn the_constant_form_is_a_control_vector_of_mean_increments() {
    let all = compile(Rule::all(Op::Add, Strength::activation(1.5)), Route::ControlVector).unwrap();
    let vector = all.control_vector.unwrap();
    assert!(all.points.is_empty() && vector.directions().keys().eq(&[1, 4]));
    let mean = |feature: usize| learned().stats(feature).unwrap().mean;
    for i in 0..D {
        let one = 1.5 * mean(0) * decoder(0)[i];
        let two = 1.5 * (mean(1) * decoder(1)[i] + mean(2) * decoder(2)[i]);
        // Sums of two products of f32.
        assert!((vector.directions()[&1][i] - one).abs() < 1e-5 && (vector.directions()[&4][i] - two).abs() < 1e-5);
    }
}

#[test]
fn the_gated_form_amplifies_each_feature_at_its_layer_under_one_rule() {
    let all = compile(Rule::all(Op::Amplify, Strength::raw(2.0)), Route::Auto).unwrap();
    assert!(all.control_vector.is_none());
    let mut scratch = Scratch::new();
    let mut seen = 0;
    for layer in [1, 4] {
        let given = rows(9, 4);
        let (mut steered, meta) = (given.clone(), prompt(4));
        all.points[&HookPoint::from(layer)].apply(&mut steered, &meta, &mut scratch);
        let one = learned().at_layer(layer).unwrap();
        for (r, (before, after)) in given.chunks(D).zip(steered.chunks(D)).enumerate() {
            let mut codes = vec![0.0; one.n_features()];
            one.encode(before, &mut codes);
            seen += codes.iter().filter(|f| **f > 0.0).count();
            let mut wanted = before.to_vec();
            for (i, code) in codes.iter().enumerate() {
                let mut row = vec![0.0; D];
                one.decoder_row(i, &mut row);
                wanted.iter_mut().zip(&row).for_each(|(x, d)| *x += 2.0 * code * d);
            }
            let far = wanted.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-4, "layer {layer}, row {r}: {far}");
        }
    }
    assert!(seen > 0, "no feature fired");
    assert_eq!(all.points.len(), 2);
    assert!(all.points.values().all(|point| point.n_rules() == 1));
}

#[test]
fn rules_choose_layers_and_what_does_not_fit_is_refused() {
    let of = |rule: Rule| compile(rule, Route::Callback);
    let layers = |made: Compiled| made.points.keys().map(|point| point.layer()).collect::<Vec<_>>();
    let all = || Rule::all(Op::Amplify, Strength::raw(1.0));
    assert_eq!(layers(of(all()).unwrap()), [1, 4]);
    assert_eq!(layers(of(all().at_layer(4)).unwrap()), [4]);
    assert_eq!(layers(of(Rule::new(Op::Scale, [0, 2], Strength::raw(2.0))).unwrap()), [1, 4]);
    assert_eq!(layers(of(Rule::new(Op::Add, [0], Strength::raw(2.0)).at_layer(3)).unwrap()), [3], "added anywhere");
    for (rule, text) in [
        (all().at_layer(2), "layer: none of the features"),
        (Rule::new(Op::Scale, [0, 2], Strength::raw(2.0)).at_layer(4), "layer: not every feature"),
        (all().gate(Gate::new([0], 0.5)), "is for layer 1, the rule acts on layer 4"),
        (Rule::new(Op::Scale, [3], Strength::raw(2.0)), "has 3 features"),
    ] {
        let error = of(rule).unwrap_err();
        assert!(error.kind() == Kind::Mismatch && error.message().contains(text), "{error}");
    }
    // A gate at the layer of the rule is one like any other.
    assert_eq!(layers(of(all().at_layer(1).gate(Gate::new([0], 0.5))).unwrap()), [1]);
}

#[test]
fn learned_features_bring_their_rule() {
    let learned = |form, avoid| Learned { form, strength: 1.5, avoid, ..Learned::default() };
    let strength = |rule: Rule| rule.strength.unwrap();
    let constant = Rule::learned(&learned(Form::Constant, None), 2.0);
    assert_eq!((constant.op, strength(constant)), (Op::Add, Strength::activation(3.0)));
    let gated = Rule::learned(&learned(Form::Gated, Some(0.5)), 1.0);
    assert_eq!((gated.op, strength(gated)), (Op::Amplify, Strength::raw(1.5)));
    assert_eq!(strength(Rule::learned(&learned(Form::Gated, Some(0.5)), -1.0)), Strength::raw(-0.5));
    assert_eq!(strength(Rule::learned(&learned(Form::Gated, None), -1.0)), Strength::raw(-1.5));
}

#[test]
fn files_keep_layers_and_what_was_learned() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("learned.gguf");
    let (dictionary, doses) = (learned(), "{\"doses\":[]}".to_owned());
    let about = Learned {
        instruction: "Rhyme.".into(),
        explanation: "rhymes".into(),
        form: Form::Gated,
        strength: 1.25,
        avoid: Some(0.5),
        doses,
    };
    let info = Info { learned: Some(about), ..dictionary.info().clone() };
    let written = (*dictionary).clone().with_info(info);
    written.save_gguf(&path, tiller::file::gguf::GgmlType::F32).unwrap();
    let read = Dictionary::open(&path).unwrap();
    assert_eq!(read.info(), written.info());
    assert_eq!((read.layers(), read.layer(), read.feature_layer(2)), (LAYERS.as_slice(), None, Some(4)));
    // A layer too few.
    let info = Info { layers: vec![1, 4], ..written.info().clone() };
    written.with_info(info).save_gguf(&path, tiller::file::gguf::GgmlType::F32).unwrap();
    let error = Dictionary::open(&path).unwrap_err();
    assert!(error.kind() == Kind::Format && error.message().contains("layers: expected one for each"), "{error}");
}
