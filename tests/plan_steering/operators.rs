//! What compiled plans do to rows, against a straightforward dense reference: encode everything, edit the codes, decode
//! both, and add the difference to the row, so that what the dictionary does not explain stays.

use crate::fixtures;
use crate::fixtures::{D, N_LAYER, dictionaries, error, norm, parts, plain, prompt, rows};
use std::sync::Arc;
use tiller::dictionary::{Activation, Dictionary};
use tiller::plan::{Edited, Fault, Feature, Op, Plan, Route, Row, Rule, Scratch, Strength, Target, Unit};

/// Normalised error of a steered row against the reference: f32 sums of a few dozen terms.
const TOLERANCE: f32 = 3e-6;

fn steer(
    rules: impl IntoIterator<Item = Rule>,
    dictionary: &Arc<Dictionary>,
    x: &[f32],
    meta: &[Row],
) -> (Vec<f32>, Edited) {
    let plan = Plan::new(rules);
    let compiled = plan.compile(&[("d", dictionary.clone())], &Target::new(N_LAYER, D), Route::Callback).unwrap();
    let mut out = x.to_vec();
    let mut edited = Edited::default();
    let mut scratch = Scratch::new();
    for ops in compiled.points.values() {
        edited += ops.apply(&mut out, meta, &mut scratch);
    }
    assert_eq!(scratch.take_fault(), None);
    (out, edited)
}

/// decode(f') + (x − decode(f)), where `edit` makes f' of f `[n_features]`.
fn dense(dictionary: &Dictionary, x: &[f32], edit: impl Fn(&mut [f32])) -> Vec<f32> {
    let mut codes = vec![0.0; dictionary.n_features()];
    dictionary.encode(x, &mut codes);
    let decode = |codes: &[f32]| {
        let sparse: Vec<(u32, f32)> = (0..).zip(codes.iter().copied()).collect();
        let mut out = vec![0.0; D];
        dictionary.reconstruct(x, &sparse, &mut out);
        out
    };
    let before = decode(&codes);
    edit(&mut codes);
    let after = decode(&codes);
    (0..D).map(|i| after[i] + (x[i] - before[i])).collect()
}

/// What one unit of feature `id` adds to the row, as a length.
fn unit_length(dictionary: &Dictionary, x: &[f32], id: u32) -> f32 {
    let slice = dictionary.slice(&[id]).unwrap();
    slice.decoder_norm(0) * slice.scale(x)
}

const FEATURES: [Feature; 4] =
    [Feature::new(3, 1.0), Feature::new(17, 0.5), Feature::new(0, 2.0), Feature::new(22, 1.5)];

/// The code that an operator makes of `f` at strength `s`, in raw units, as formats.md writes it.
fn operator(op: Op, f: f32, s: f32) -> f32 {
    match op {
        Op::Add => f + s,
        Op::AddActive => f + if f > 0.0 { s } else { 0.0 },
        Op::Scale => s * f,
        Op::Clamp => s,
        Op::MinClamp => f.max(s),
        Op::MaxClamp => f.min(s),
        Op::Ablate => 0.0,
        Op::Amplify => f + s * f,
        Op::Calibrate => f + (s - f).max(0.0),
        _ => unreachable!("{op:?} is no function of one code"),
    }
}

/// calibrate_spread(m) as released (methods.md §1), on given strengths, before the norm is restored.
fn spread(codes: &mut [f32], strengths: &[(u32, f32)]) {
    let lacks = |codes: &[f32], id: u32, m: f32| (m - codes[id as usize].max(0.0)).max(0.0);
    let total: f32 = strengths.iter().map(|&(id, m)| lacks(codes, id, m)).sum();
    if total > 0.0 {
        let before = codes.to_vec();
        strengths.iter().for_each(|&(id, m)| codes[id as usize] += m * lacks(&before, id, m) / total);
    }
}

#[test]
fn every_operator_unit_and_dictionary_matches_the_dense_reference() {
    let x = rows(1, 9);
    let meta = prompt(9);
    let mut edits = 0;
    for (name, dictionary) in dictionaries() {
        for &op in Op::ALL {
            for unit in [Unit::Raw, Unit::Activation, Unit::Norm] {
                let plain_only = matches!(op, Op::Scale | Op::Amplify | Op::Ablate);
                if plain_only && unit != Unit::Raw {
                    continue;
                }
                for norm_preserve in [false, true] {
                    let value = if unit == Unit::Norm { 0.2 } else { 1.7 };
                    let strength = (op != Op::Ablate).then_some(Strength::new(value, unit));
                    let mut rule = Rule::new(op, FEATURES, strength);
                    if op == Op::Ablate {
                        rule.features.iter_mut().for_each(|f| f.weight = 1.0);
                    }
                    rule.norm_preserve = norm_preserve;
                    let (got, counts) = steer([rule], &dictionary, &x, &meta);
                    assert_eq!(counts.rows, 9);
                    edits += counts.edited;
                    for (x, got) in x.chunks(D).zip(got.chunks(D)) {
                        let strength = |f: &Feature| match unit {
                            // A weight is a share of the change.
                            Unit::Raw if op == Op::Scale => 1.0 + f.weight * (value - 1.0),
                            Unit::Raw => value * f.weight,
                            Unit::Activation => value * f.weight * dictionary.stats(f.id as usize).unwrap().mean,
                            _ => value * f.weight * norm(x) / unit_length(&dictionary, x, f.id),
                        };
                        let strengths: Vec<(u32, f32)> = FEATURES.iter().map(|f| (f.id, strength(f))).collect();
                        let mut want = dense(&dictionary, x, |codes| match op {
                            Op::CalibrateSpread => spread(codes, &strengths),
                            _ => strengths.iter().for_each(|&(id, s)| {
                                codes[id as usize] = operator(op, codes[id as usize], s);
                            }),
                        });
                        if norm_preserve || op == Op::CalibrateSpread {
                            let ratio = norm(x) / norm(&want);
                            want.iter_mut().for_each(|v| *v *= ratio);
                            assert!((norm(got) / norm(x) - 1.0).abs() < TOLERANCE);
                        }
                        let e = error(got, &want);
                        assert!(e < TOLERANCE, "{name}, {op:?}, {unit:?}, norm_preserve {norm_preserve}: error {e}");
                    }
                }
            }
        }
    }
    assert!(edits > 1500, "the test must move rows: {edits}");
}

/// The hot path takes features eight at a time, then one by one; [`FEATURES`] are too few for that.
#[test]
fn any_number_of_features_matches_the_dense_reference() {
    let x = rows(13, 5);
    for (name, dictionary) in dictionaries() {
        for n in [1, 7, 8, 9, 16, 23, 24] {
            for op in [Op::Add, Op::Clamp, Op::MinClamp, Op::Ablate] {
                let strength = (op != Op::Ablate).then_some(Strength::raw(0.8));
                let (got, _) = steer([Rule::new(op, 0..n, strength)], &dictionary, &x, &prompt(5));
                for (x, got) in x.chunks(D).zip(got.chunks(D)) {
                    let want = dense(&dictionary, x, |codes| {
                        codes[..n as usize].iter_mut().for_each(|f| *f = operator(op, *f, 0.8));
                    });
                    let e = error(got, &want);
                    assert!(e < TOLERANCE, "{name}, {op:?}, {n} features: error {e}");
                }
            }
        }
    }
}

#[test]
fn ablated_features_read_zero_and_the_rest_of_the_row_stays() {
    let dictionary = plain();
    let x = rows(2, 1);
    let (got, _) = steer([Rule::new(Op::Ablate, [3u32, 17], None)], &dictionary, &x, &prompt(1));
    // What moved lies in the span of the two decoder rows: solve for it, and nothing is left.
    let mut codes = vec![0.0; dictionary.n_features()];
    dictionary.encode(&x, &mut codes);
    let mut left: Vec<f32> = got.iter().zip(&x).map(|(a, b)| a - b).collect();
    let moved = norm(&left);
    let mut row = vec![0.0; D];
    for id in [3, 17] {
        dictionary.decoder_row(id, &mut row);
        left.iter_mut().zip(&row).for_each(|(l, d)| *l += codes[id] * d);
    }
    assert!(moved > 0.1 && norm(&left) / moved < 1e-5, "{moved} {}", norm(&left));
}

#[test]
fn topk_with_thresholds_is_approximate_and_says_so() {
    let mut parts = parts(Activation::TopK { k: 5 });
    parts.threshold = Some(vec![0.4; fixtures::F]);
    let thresholds = Arc::new(Dictionary::from_parts(parts.clone()).unwrap());
    parts.settings.activation = Activation::JumpRelu;
    let jump = Arc::new(Dictionary::from_parts(parts).unwrap());
    let rule = || [Rule::new(Op::Clamp, FEATURES, Strength::raw(2.0))];
    let x = rows(3, 4);
    assert_eq!(steer(rule(), &thresholds, &x, &prompt(4)), steer(rule(), &jump, &x, &prompt(4)));
    let compile = |d: &Arc<Dictionary>| {
        Plan::new(rule()).compile(&[("d", d.clone())], &Target::new(N_LAYER, D), Route::Auto).unwrap().warnings
    };
    assert!(compile(&thresholds)[0].starts_with("rules[0]: ") && compile(&thresholds)[0].contains("approximation"));
    assert!(compile(&jump).is_empty());
    let whole = dictionaries().into_iter().find(|(name, _)| name == "topk").unwrap().1;
    assert!(compile(&whole)[0].contains("exact, but slow"));
}

#[test]
fn add_active_adds_where_the_feature_fires_and_nowhere_else() {
    let (x, dictionary) = (rows(14, 60), plain());
    let mut fired = [0; 2];
    for x in x.chunks(D) {
        let mut codes = vec![0.0; dictionary.n_features()];
        dictionary.encode(x, &mut codes);
        let active = codes[3] > 0.0;
        let steer = |op| steer([Rule::new(op, [3u32], Strength::raw(-0.7))], &dictionary, x, &prompt(1)).0;
        let want = if active { steer(Op::Add) } else { x.to_vec() };
        assert!(error(&steer(Op::AddActive), &want) < 1e-6);
        fired[usize::from(active)] += 1;
    }
    assert!(fired.iter().all(|n| *n > 5), "{fired:?}");
}

#[test]
fn calibrate_is_min_clamp() {
    let x = rows(4, 5);
    let by = |op| steer([Rule::new(op, FEATURES, Strength::activation(2.0))], &plain(), &x, &prompt(5));
    assert_eq!(by(Op::Calibrate), by(Op::MinClamp));
}

#[test]
fn amplify_by_minus_one_is_ablate() {
    let x = rows(5, 5);
    let amplify = steer([Rule::new(Op::Amplify, [3u32, 17], Strength::raw(-1.0))], &plain(), &x, &prompt(5));
    assert_eq!(amplify, steer([Rule::new(Op::Ablate, [3u32, 17], None)], &plain(), &x, &prompt(5)));
}

#[test]
fn edits_that_change_nothing_leave_the_bits_and_count_as_skipped() {
    let x = rows(6, 8);
    let nothing = [
        Rule::new(Op::Scale, FEATURES, Strength::raw(1.0)),
        Rule::new(Op::MinClamp, FEATURES, Strength::raw(0.0)),
        Rule::new(Op::MaxClamp, FEATURES, Strength::raw(1e9)),
        Rule::new(Op::CalibrateSpread, FEATURES, Strength::raw(0.0)),
    ];
    for mut rule in nothing {
        rule.norm_preserve = true;
        let (got, counts) = steer([rule], &plain(), &x, &prompt(8));
        assert_eq!(got, x);
        assert_eq!((counts.rows, counts.skipped), (8, 8));
    }
}

#[test]
fn strength_relative_to_the_norm_is_the_length_of_the_edit() {
    let x = rows(7, 1);
    for (name, dictionary) in dictionaries() {
        let (got, _) = steer([Rule::new(Op::Add, [5u32], Strength::norm(0.25))], &dictionary, &x, &prompt(1));
        let moved: Vec<f32> = got.iter().zip(&x).map(|(a, b)| a - b).collect();
        assert!((norm(&moved) / norm(&x) - 0.25).abs() < 1e-5, "{name}");
    }
}

#[test]
fn a_rule_sees_the_row_as_the_rules_before_it_left_it() {
    let x = rows(8, 3);
    let first = Rule::new(Op::Add, [3u32], Strength::raw(2.0));
    let second = Rule::new(Op::Scale, [17u32, 3], Strength::raw(3.0));
    let (once, _) = steer([first.clone()], &plain(), &x, &prompt(3));
    let (then, _) = steer([second.clone()], &plain(), &once, &prompt(3));
    let (both, _) = steer([first.clone(), second.clone()], &plain(), &x, &prompt(3));
    assert_eq!(both, then);
    let (reversed, _) = steer([second, first], &plain(), &x, &prompt(3));
    assert!(error(&reversed, &both) > 1e-2);
}

#[test]
fn rows_do_not_depend_on_the_rows_beside_them() {
    let n = 50;
    let x = rows(9, n);
    let rules = || {
        [
            Rule::new(Op::MinClamp, 0..19, Strength::activation(1.5)),
            Rule::new(Op::CalibrateSpread, [1u32, 2, 5, 9], Strength::norm(0.1)),
        ]
    };
    let (together, counts) = steer(rules(), &plain(), &x, &prompt(n));
    assert!(counts.edited > 40);
    for (i, row) in x.chunks(D).enumerate() {
        let meta = [Row::new(1 + i as i32, 0)];
        let (alone, _) = steer(rules(), &plain(), row, &meta);
        assert_eq!(alone, together[i * D..][..D], "row {i}");
    }
}

/// A plan that adds a little, then a number to the first element whose square is near the largest float.
fn overflowing() -> tiller::plan::Compiled {
    let mut far = vec![0.0; D];
    far[0] = 1e19;
    let plan = Plan::new([
        Rule::new(Op::Add, [3u32], Strength::raw(1.0)),
        Rule::vector(far, Strength::raw(1.0)).at_layer(fixtures::LAYER),
    ]);
    plan.compile(&[("d", plain())], &Target::new(N_LAYER, D), Route::Callback).unwrap()
}

#[test]
fn a_row_whose_edit_is_not_finite_is_put_back_and_reported() {
    let compiled = overflowing();
    let mut x = rows(10, 3);
    x[D] = 1e19;
    let before = x.clone();
    let mut scratch = Scratch::new();
    let counts = compiled.points[&fixtures::LAYER.into()].apply(&mut x, &prompt(3), &mut scratch);
    // 2e19 is a number, but a norm squares it.
    assert_eq!((counts.rows, counts.edited, counts.failed), (3, 2, 1));
    assert_eq!(x[D..2 * D], before[D..2 * D], "both rules' edits are undone");
    assert_eq!((x[0], x[2 * D]), (1e19, 1e19));
    let fault = scratch.take_fault().unwrap();
    assert!(matches!(fault, Fault::NotFinite { rule: 1, row, .. } if row == Row::new(2, 0)), "{fault}");
    assert!(fault.to_string().starts_with("rules[1]: the edit at blocks.3.hook_resid_post, sequence 0"));
    assert_eq!(scratch.take_fault(), None);
}

#[test]
fn a_row_of_nan_is_left_alone() {
    let mut x = rows(11, 3);
    x[D + 4] = f32::NAN;
    let before = x.clone();
    let rule = || Rule::new(Op::Clamp, FEATURES, Strength::raw(5.0));
    let compiled = Plan::new([rule()]).compile(&[("d", plain())], &Target::new(N_LAYER, D), Route::Auto).unwrap();
    let mut scratch = Scratch::new();
    let counts = compiled.points[&fixtures::LAYER.into()].apply(&mut x, &prompt(3), &mut scratch);
    assert_eq!((counts.rows, counts.edited, counts.failed), (3, 2, 1));
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&x[D..2 * D]), bits(&before[D..2 * D]));
    assert_eq!(x[..D], steer([rule()], &plain(), &before[..D], &prompt(1)).0);
    assert!(matches!(scratch.take_fault(), Some(Fault::NotFinite { rule: 0, row: Row { position: Some(2), .. }, .. })));
}

#[test]
fn rows_of_another_shape_are_refused_without_a_panic() {
    let compiled = overflowing();
    let mut scratch = Scratch::new();
    let mut x = rows(12, 2);
    let before = x.clone();
    let counts = compiled.points[&fixtures::LAYER.into()].apply(&mut x, &prompt(3), &mut scratch);
    assert_eq!((counts.rows, counts.failed), (3, 3));
    assert_eq!(x, before);
    let fault = scratch.take_fault().unwrap();
    assert!(matches!(fault, Fault::Shape { .. }));
    assert_eq!(fault.to_string(), "rows: expected 111 floats, found 74; nothing was edited");
}

#[test]
fn no_rows_are_no_work() {
    let compiled = overflowing();
    let counts = compiled.points[&fixtures::LAYER.into()].apply(&mut [], &[], &mut Scratch::new());
    assert_eq!(counts, Edited::default());
}
