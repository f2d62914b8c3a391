//! Which rows a rule reaches: phases, positions, sequences, the first row, gates.

use crate::fixtures::{D, LAYER, N_LAYER, plain, rows};
use tiller::plan::{
    Compiled, Gate, Op, Phase, Plan, Route, Row, Rule, Scratch, Selector, Sequences, Strength, Target, Unit,
};

fn row(position: i32, sequence: i32, generated: bool) -> Row {
    Row::new(position, sequence).generated(generated)
}

fn compile(rule: Rule) -> Compiled {
    Plan::new([rule]).compile(&[("d", plain())], &Target::new(N_LAYER, D), Route::Callback).unwrap()
}

/// Which of these rows the plan changes; the rows are random, no two alike.
fn reached(compiled: &Compiled, meta: &[Row]) -> Vec<bool> {
    let x = rows(20, meta.len());
    let mut y = x.clone();
    let counts = compiled.points[&LAYER.into()].apply(&mut y, meta, &mut Scratch::new());
    let reached: Vec<bool> = x.chunks(D).zip(y.chunks(D)).map(|(x, y)| x != y).collect();
    assert_eq!(counts.edited as usize, reached.iter().filter(|&&r| r).count());
    assert_eq!(counts.rows, counts.edited + counts.skipped);
    reached
}

/// Sets a feature, in every row that the selector lets it reach.
fn clamp(select: Selector) -> Compiled {
    compile(Rule::new(Op::Clamp, [5u32], Strength::raw(9.0)).select(select))
}

#[test]
fn the_first_position_is_spared_unless_included() {
    let meta = [row(0, 0, false), row(1, 0, false), row(0, 1, false)];
    assert_eq!(reached(&clamp(Selector::default()), &meta), [false, true, false]);
    let all = Selector::default().include_first(true);
    assert_eq!(reached(&clamp(all), &meta), [true; 3]);
}

#[test]
fn an_unconditional_add_reaches_the_first_position_as_a_control_vector_does() {
    let meta = [row(0, 0, false), row(1, 0, false)];
    let add = || Rule::new(Op::Add, [5u32], Strength::raw(9.0));
    assert_eq!(reached(&compile(add()), &meta), [true, true]);
    let vector = Rule::vector(vec![1.0; D], Strength::raw(1.0)).at_layer(LAYER);
    assert_eq!(reached(&compile(vector.clone()), &meta), [true, true]);
    let spared = |change: &dyn Fn(&mut Rule)| {
        let mut rule = add();
        change(&mut rule);
        assert_eq!(reached(&compile(rule), &meta), [false, true]);
    };
    spared(&|r| r.select.include_first = Some(false));
    spared(&|r| r.norm_preserve = true);
    spared(&|r| r.strength = Some(Strength::norm(0.5)));
    spared(&|r| r.select.phase = Phase::Prompt);
    spared(&|r| r.select.to = Some(9));
    spared(&|r| r.select.sequences = Sequences::Only(vec![0]));
    spared(&|r| r.gate = Some(Gate::new([1], 0.0)));
}

#[test]
fn phases_tell_the_prompt_from_what_the_model_wrote() {
    let meta = [row(1, 0, false), row(2, 0, true), row(3, 0, false)];
    assert_eq!(reached(&clamp(Selector::default()), &meta), [true, true, true]);
    assert_eq!(reached(&clamp(Selector::prompt()), &meta), [true, false, true]);
    assert_eq!(reached(&clamp(Selector::generated()), &meta), [false, true, false]);
}

#[test]
fn positions_reach_from_the_first_to_before_the_last() {
    let meta: Vec<Row> = (0..7).map(|p| row(p, 0, false)).collect();
    let reached = |select| reached(&clamp(select), &meta);
    let all = Selector::default;
    assert_eq!(reached(all().from(2).to(4)), [false, false, true, true, false, false, false]);
    assert_eq!(reached(all().from(5)), [false, false, false, false, false, true, true]);
    assert_eq!(reached(all().to(2)), [false, true, false, false, false, false, false]);
    assert_eq!(reached(all().from(u32::MAX)), [false; 7]);
}

#[test]
fn sequences_are_steered_apart() {
    let meta = [row(1, 0, false), row(1, 7, false), row(2, 3, false), row(2, 7, true)];
    let only = Selector::default().sequences([7, 3, 7]);
    assert_eq!(reached(&clamp(only), &meta), [false, true, true, true]);
}

/// The mean code of features in each row, from the full encode.
fn means(x: &[f32], features: &[u32], weigh: impl Fn(u32) -> f32) -> Vec<f32> {
    let dictionary = plain();
    let mean = |row: &[f32]| {
        let mut codes = vec![0.0; dictionary.n_features()];
        dictionary.encode(row, &mut codes);
        features.iter().map(|&id| codes[id as usize].max(0.0) * weigh(id)).sum::<f32>() / features.len() as f32
    };
    x.chunks(D).map(mean).collect()
}

#[test]
fn a_row_gate_opens_where_the_mean_activation_reaches_the_threshold() {
    let n = 60;
    let meta: Vec<Row> = (1..=n).map(|p| row(p, 0, false)).collect();
    let features = vec![2, 9, 14];
    for unit in [Unit::Raw, Unit::Activation] {
        let dictionary = plain();
        let weigh = |id: u32| if unit == Unit::Raw { 1.0 } else { 1.0 / dictionary.stats(id as usize).unwrap().mean };
        let means = means(&rows(20, n as usize), &features, weigh);
        let mut sorted = means.clone();
        sorted.sort_by(f32::total_cmp);
        let threshold = (sorted[29] + sorted[30]) / 2.0;
        let gate = Gate::new(features.clone(), threshold).unit(unit);
        let rule = Rule::new(Op::Clamp, [5u32], Strength::raw(9.0)).gate(gate);
        let want: Vec<bool> = means.iter().map(|&m| m >= threshold).collect();
        assert_eq!(reached(&compile(rule), &meta), want);
    }
}

/// A rule whose gate hears feature 0 of [`on`], and a row that opens it or does not.
fn listening(gate: Gate, select: Selector) -> Compiled {
    compile(Rule::new(Op::Clamp, [5u32], Strength::raw(9.0)).gate(gate).select(select))
}

fn by_row() -> Gate {
    Gate::new([0], 1.0)
}

fn by_sequence() -> Gate {
    by_row().over_sequence()
}

/// Rows that have (`true`) or have not the condition of [`listening`].
fn speech(heard: &[bool]) -> Vec<f32> {
    let dictionary = plain();
    let mut direction = vec![0.0; D];
    dictionary.encoder_row(0, &mut direction);
    let rows: Vec<f32> =
        heard.iter().flat_map(|&h| direction.iter().map(move |e| if h { 9.0 * e } else { -9.0 * e })).collect();
    let means = means(&rows, &[0], |_| 1.0);
    assert!(means.iter().zip(heard).all(|(&m, &h)| (m >= 1.0) == h));
    rows
}

/// Applies to one row after another with the same scratch, and says which were changed.
fn one_by_one(compiled: &Compiled, scratch: &mut Scratch, script: &[(Row, bool)]) -> Vec<bool> {
    let step = |&(meta, heard): &(Row, bool)| {
        compiled.points[&LAYER.into()].apply(&mut speech(&[heard]), &[meta], scratch).edited == 1
    };
    script.iter().map(step).collect()
}

#[test]
fn a_sequence_gate_stays_open_for_its_own_sequence() {
    let compiled = listening(by_sequence(), Selector::default());
    let script = [
        (row(1, 0, false), false),
        (row(2, 0, false), true),
        (row(3, 0, false), false),
        (row(3, 1, false), false),
        (row(4, 0, true), false),
        (row(4, 1, false), true),
        (row(5, 1, false), false),
    ];
    let want = [false, true, true, false, true, true, true];
    assert_eq!(one_by_one(&compiled, &mut Scratch::new(), &script), want);
    let (meta, heard): (Vec<Row>, Vec<bool>) = script.into_iter().unzip();
    let (before, mut after) = (speech(&heard), speech(&heard));
    compiled.points[&LAYER.into()].apply(&mut after, &meta, &mut Scratch::new());
    let reached: Vec<bool> = before.chunks(D).zip(after.chunks(D)).map(|(x, y)| x != y).collect();
    assert_eq!(reached, want, "in one batch as one by one");
}

#[test]
fn a_sequence_gate_hears_rows_that_the_rule_does_not_edit() {
    let generated = Selector::generated();
    let compiled = listening(by_sequence(), generated.clone());
    let script = [(row(1, 0, false), true), (row(2, 0, false), false), (row(3, 0, true), false)];
    assert_eq!(one_by_one(&compiled, &mut Scratch::new(), &script), [false, false, true]);
    let rows = listening(by_row(), generated);
    assert_eq!(one_by_one(&rows, &mut Scratch::new(), &script), [false, false, false]);
}

#[test]
fn a_sequence_gate_closes_when_its_sequence_goes_back_before_the_opening() {
    let compiled = listening(by_sequence(), Selector::default());
    let mut scratch = Scratch::new();
    let opening = [(row(5, 0, false), true), (row(6, 0, false), false)];
    assert_eq!(one_by_one(&compiled, &mut scratch, &opening), [true, true]);
    let after = [(row(6, 0, false), false)];
    assert_eq!(one_by_one(&compiled, &mut scratch, &after), [true], "position 6 again: the opening stands");
    let before = [(row(5, 0, false), false), (row(6, 0, false), false)];
    assert_eq!(one_by_one(&compiled, &mut scratch, &before), [false, false], "what opened was overwritten");
    assert_eq!(one_by_one(&compiled, &mut scratch, &opening), [true, true]);
    let anew = [(row(0, 0, false), false), (row(1, 0, false), false)];
    assert_eq!(one_by_one(&compiled, &mut scratch, &anew), [false, false], "a new text");
}

#[test]
fn gates_do_not_hear_the_first_position_unless_it_is_included() {
    let script = [(row(0, 0, false), true), (row(1, 0, false), false)];
    let all = Selector::default;
    for (select, want) in [(all(), [false, false]), (all().include_first(true), [true, true])] {
        let compiled = listening(by_sequence(), select);
        assert_eq!(one_by_one(&compiled, &mut Scratch::new(), &script), want);
    }
}

#[test]
fn sequence_gates_can_be_forgotten_and_end_with_their_plan() {
    let compiled = listening(by_sequence(), Selector::default());
    let mut scratch = Scratch::new();
    let open = [(row(1, 0, false), true), (row(1, 1, false), true)];
    let later = [(row(2, 0, false), false), (row(2, 1, false), false)];
    one_by_one(&compiled, &mut scratch, &open);
    assert_eq!(one_by_one(&compiled, &mut scratch, &later), [true, true]);
    scratch.forget_sequence(1);
    assert_eq!(one_by_one(&compiled, &mut scratch, &later), [true, false]);
    scratch.forget();
    assert_eq!(one_by_one(&compiled, &mut scratch, &later), [false, false]);
    one_by_one(&compiled, &mut scratch, &open);
    let again = listening(by_sequence(), Selector::default());
    assert_eq!(one_by_one(&again, &mut scratch, &later), [true, true], "the same plan, compiled again");
    let other = listening(by_sequence(), Selector::default().to(99));
    assert_eq!(one_by_one(&other, &mut scratch, &later), [false, false], "another plan");
}

#[test]
fn a_gate_reads_the_row_as_the_rules_before_it_left_it() {
    let gated = Rule::new(Op::Clamp, [5u32], Strength::raw(9.0)).gate(by_row());
    let mut direction = vec![0.0; D];
    plain().encoder_row(0, &mut direction);
    let push = Rule::vector(direction, Strength::raw(18.0)).at_layer(LAYER);
    let apply = |rules: Vec<Rule>| {
        let compiled = Plan::new(rules).compile(&[("d", plain())], &Target::new(N_LAYER, D), Route::Callback).unwrap();
        let mut x = speech(&[false]);
        compiled.points[&LAYER.into()].apply(&mut x, &[row(1, 0, false)], &mut Scratch::new());
        x
    };
    let pushed = apply(vec![push.clone()]);
    assert_eq!(apply(vec![gated.clone(), push.clone()]), pushed, "closed when it is asked first");
    assert_ne!(apply(vec![push, gated]), pushed, "open when it is asked after");
}
