//! Propagating edits: a feature of a dictionary, or a latent of rows, with what it drives in the same row.

use crate::fixtures::{D, LAYER, N_LAYER, error, parts, plain, prompt, rows};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::Kind;
use tiller::dictionary::{Activation, Dictionary};
use tiller::file::safetensors::{Dtype, Writer};
use tiller::plan::{Feature, Op, Plan, Route, Rule, Scratch, Strength, Target};
use tiller::train::temporal::Temporal;

const FEATURES: [i64; 3] = [2, 5, 9];

/// 2 → 5 by 0.5, 5 → 9 by −2, and a memory of one row that an edit must not care about. Written as anyone could.
fn write(dir: &Path, on_dictionary: bool) -> PathBuf {
    let path = dir.join(if on_dictionary { "codes.safetensors" } else { "rows.safetensors" });
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let numbers = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut w = Writer::new();
    w.metadata("format", "tiller temporal 1");
    w.tensor("M", Dtype::F32, &[3, 3], floats(&[0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, -2.0, 0.0]));
    w.tensor("B", Dtype::F32, &[1, 3, 3], floats(&[0.3, 0.1, 0.0, 0.0, 0.3, 0.0, 0.0, 0.7, 0.3]));
    w.tensor("order", Dtype::I64, &[3], numbers(&[0, 1, 2]));
    for name in ["mean", "deviation", "noise"] {
        w.tensor(name, Dtype::F32, &[3], floats(&[1.0; 3]));
    }
    if on_dictionary {
        w.tensor("features", Dtype::I64, &[3], numbers(&FEATURES));
    } else {
        let a: Vec<f32> = (0..D * 3).map(|at| ((at * 7) % 11) as f32 - 5.0).collect();
        w.metadata("layer", &LAYER.to_string());
        w.tensor("A", Dtype::F32, &[D, 3], floats(&a));
        w.tensor("offset", Dtype::F32, &[D], floats(&[0.0; D]));
    }
    w.write(&path).unwrap();
    path
}

/// Σ amount · d_i
fn mixed(dictionary: &Dictionary, parts: &[(usize, f32)]) -> Vec<f32> {
    let (mut sum, mut row) = (vec![0.0; D], vec![0.0; D]);
    for &(i, amount) in parts {
        dictionary.decoder_row(i, &mut row);
        sum.iter_mut().zip(&row).for_each(|(s, v)| *s += amount * v);
    }
    sum
}

#[test]
fn a_feature_brings_along_what_it_drives() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), true);
    let dictionary = plain();
    // Relative to the plan's own directory.
    let plan = Plan::new([Rule::new(Op::Add, [2u32], Strength::raw(3.0)).propagating("codes.safetensors")]);
    plan.save(&dir.path().join("plan.json")).unwrap();
    let plan = Plan::open(&dir.path().join("plan.json")).unwrap();
    let compiled = plan.compile(&[("d", dictionary.clone())], &Target::new(N_LAYER, D), Route::Auto).unwrap();
    assert!(compiled.points.is_empty(), "a constant needs no callback");
    let found = &compiled.control_vector.as_ref().unwrap().directions()[&LAYER];
    let want = mixed(&dictionary, &[(2, 3.0), (5, 1.5), (9, -3.0)]);
    assert!(error(found, &want) < 1e-6);

    // The same through the callback, and the isolated edit beside it.
    let compiled = plan.compile(&[("d", dictionary.clone())], &Target::new(N_LAYER, D), Route::Callback).unwrap();
    let (before, mut scratch) = (rows(1, 3), Scratch::new());
    let mut after = before.clone();
    let ops = compiled.points.values().next().unwrap();
    assert_eq!(ops.apply(&mut after, &prompt(3), &mut scratch).edited, 3);
    for (after, before) in after.chunks_exact(D).zip(before.chunks_exact(D)) {
        let moved: Vec<f32> = after.iter().zip(before).map(|(a, b)| a - b).collect();
        assert!(error(&moved, &want) < 1e-5);
    }
    let alone = Plan::new([Rule::new(Op::Add, [2u32], Strength::raw(3.0))]);
    let alone = alone.compile(&[("d", dictionary.clone())], &Target::new(N_LAYER, D), Route::Auto).unwrap();
    let found = &alone.control_vector.as_ref().unwrap().directions()[&LAYER];
    assert!(error(found, &mixed(&dictionary, &[(2, 3.0)])) < 1e-6);
    assert_ne!(alone.fingerprint, compiled.fingerprint);

    // Feature 9 drives nothing now; weights and units are those of any other add.
    let stats = dictionary.feature_stats().unwrap()[5].mean;
    let rule = Rule::new(Op::Add, [Feature::new(5, 0.5)], Strength::activation(2.0)).propagating(&file);
    let compiled =
        Plan::new([rule]).compile(&[("d", dictionary.clone())], &Target::new(N_LAYER, D), Route::Auto).unwrap();
    let found = &compiled.control_vector.as_ref().unwrap().directions()[&LAYER];
    assert!(error(found, &mixed(&dictionary, &[(5, stats), (9, -2.0 * stats)])) < 1e-6);
}

#[test]
fn a_latent_of_rows_needs_no_dictionary() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), false);
    let model = Temporal::open(&file).unwrap();
    let plan = Plan::new([Rule::new(Op::Add, [0u32], Strength::raw(2.0)).propagating(&file)]);
    let compiled = plan.compile(&[], &Target::new(N_LAYER, D), Route::Auto).unwrap();
    let found = &compiled.control_vector.as_ref().unwrap().directions()[&LAYER];
    let column = |i: usize| model.direction(i, false).unwrap();
    let want: Vec<f32> = (0..D).map(|k| 2.0 * (column(0)[k] + 0.5 * column(1)[k] - column(2)[k])).collect();
    assert!(error(found, &want) < 1e-6);
    let refused = |rule: Rule, n_layer: usize, d: usize| {
        let error = Plan::new([rule]).compile(&[], &Target::new(n_layer, d), Route::Auto).unwrap_err();
        assert_eq!(error.kind(), Kind::Mismatch, "{error}");
        error.message().to_owned()
    };
    let rule = |id: u32, strength| Rule::new(Op::Add, [id], strength).propagating(&file);
    assert!(refused(rule(7, Strength::raw(1.0)), N_LAYER, D).contains("has 3 (from 0), found 7"));
    assert!(refused(rule(0, Strength::raw(1.0)), N_LAYER, D + 1).contains("the model's width is 38"));
    assert!(refused(rule(0, Strength::raw(1.0)), 2, D).contains("layer"));
    assert!(refused(rule(0, Strength::activation(1.0)), N_LAYER, D).contains("activation"));
}

#[test]
fn what_cannot_propagate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), true);
    let dictionary = Arc::new(Dictionary::from_parts(parts(Activation::Relu)).unwrap());
    let compile =
        |rule: Rule| Plan::new([rule]).compile(&[("d", dictionary.clone())], &Target::new(N_LAYER, D), Route::Auto);
    let error = compile(Rule::new(Op::Add, [3u32], Strength::raw(1.0)).propagating(&file)).unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch);
    assert!(error.message().contains("features[0]: feature 3 is not among the 3"), "{error}");
    let mut clamp = Rule::new(Op::Add, [2u32], Strength::raw(1.0)).propagating(&file);
    clamp.op = Op::Clamp;
    let error = compile(clamp).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert!(error.message().contains("propagate: only `add` on features propagates, found op `clamp`"), "{error}");
    let error =
        compile(Rule::new(Op::Add, [2u32], Strength::raw(1.0)).propagating(dir.path().join("absent"))).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.message().contains("propagate"), "{error}");
}
