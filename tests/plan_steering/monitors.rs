//! Monitors, conditions over them, and verdicts: what is read, when it counts, and what is refused.

use crate::fixtures::{D, LAYER, N_LAYER, numbers, parts, plain, rows};
use std::sync::Arc;
use tiller::Kind;
use tiller::dictionary::{Activation, Dictionary, Info};
use tiller::plan::{
    Action, Compiled, Monitor, Op, Plan, Route, Row, Rule, Scratch, Selector, SequenceSet, Strength, Target, Verdict,
    When,
};

/// Reads place 0 at [`LAYER`] (feature 0) and place 1 at the layer after it (feature 1).
fn two_layers() -> Arc<Dictionary> {
    let mut encoder = vec![0.0; 2 * D];
    (encoder[0], encoder[D + 1]) = (1.0, 1.0);
    let mut own = parts(Activation::Relu);
    own.encoder = encoder;
    own.decoder = numbers(2, 2 * D, 1.0);
    own.encoder_bias = vec![0.0; 2];
    own.decoder_bias = vec![0.0; D];
    own.stats = None;
    own.info = Info { layers: vec![LAYER, LAYER + 1], ..Info::default() };
    Arc::new(Dictionary::from_parts(own).unwrap())
}

fn first() -> Monitor {
    Monitor::new("first", [0], 0.5)
}

fn second() -> Monitor {
    Monitor::new("second", [1], 0.5)
}

fn edit() -> Rule {
    Rule::new(Op::Add, [1u32], Strength::raw(2.0))
}

fn compile(plan: Plan) -> Compiled {
    plan.compile(&[("d", two_layers())], &Target::new(N_LAYER, D), Route::Auto).unwrap()
}

fn row(position: i32, sequence: i32) -> Row {
    Row::new(position, sequence).generated(false)
}

/// Rows whose places 0 and 1 are as given; the others are noise.
fn input(values: &[(f32, f32)]) -> Vec<f32> {
    let mut x = rows(40, values.len());
    x.chunks_mut(D).zip(values).for_each(|(x, &(a, b))| (x[0], x[1]) = (a, b));
    x
}

/// Runs rows through both layers as one graph; which of them the later layer's rules change.
fn graph(plan: &Compiled, x: &[f32], meta: &[Row], scratch: &mut Scratch) -> Vec<bool> {
    let mut y = x.to_vec();
    for ops in plan.points.values() {
        ops.apply(&mut y, meta, scratch);
    }
    scratch.end_graph(plan);
    x.chunks(D).zip(y.chunks(D)).map(|(x, y)| x != y).collect()
}

#[test]
fn a_rule_acts_where_its_condition_holds_and_nowhere_else() {
    let values = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)];
    let (x, meta) = (input(&values), (1..5).map(|p| row(p, 0)).collect::<Vec<_>>());
    let reached = |when: When| {
        let plan = Plan::new([edit().when(when)]).watch([first(), second()]);
        graph(&compile(plan), &x, &meta, &mut Scratch::new())
    };
    let (a, b) = (|| When::fires("first"), || When::fires("second"));
    assert_eq!(reached(a()), [true, false, true, false]);
    assert_eq!(reached(When::any([a(), b()])), [true, true, true, false]);
    assert_eq!(reached(When::all([a(), b()])), [false, false, true, false]);
    assert_eq!(reached(When::unless(a())), [false, true, false, true]);
    assert_eq!(reached(When::all([a(), When::unless(b())])), [true, false, false, false]);
}

#[test]
fn what_happens_to_a_row_does_not_depend_on_the_rows_beside_it() {
    let values: Vec<(f32, f32)> = numbers(8, 24, 4.0).chunks(2).map(|v| (v[0], v[1])).collect();
    let (x, meta) = (input(&values), (1..13).map(|p| row(p, 0)).collect::<Vec<_>>());
    for monitor in [first(), first().over_sequence()] {
        let plan = compile(Plan::new([edit().when(When::fires("first"))]).watch([monitor]));
        let whole = graph(&plan, &x, &meta, &mut Scratch::new());
        let mut scratch = Scratch::new();
        let one =
            x.chunks(D).zip(&meta).flat_map(|(x, meta)| graph(&plan, x, std::slice::from_ref(meta), &mut scratch));
        assert_eq!(one.collect::<Vec<_>>(), whole);
        assert!(whole.contains(&true) && whole.contains(&false));
    }
}

#[test]
fn a_sequence_monitor_counts_from_its_first_row_and_closes_when_that_is_taken_back() {
    let plan = compile(Plan::new([edit().when(When::fires("first"))]).watch([first().over_sequence()]));
    let mut scratch = Scratch::new();
    let one = |value: f32, position, sequence, scratch: &mut Scratch| {
        graph(&plan, &input(&[(value, 0.0)]), &[row(position, sequence)], scratch)[0]
    };
    assert!(!one(0.0, 1, 0, &mut scratch));
    assert!(one(1.0, 2, 0, &mut scratch));
    assert!(one(0.0, 3, 0, &mut scratch), "it lasts");
    assert!(!one(0.0, 3, 1, &mut scratch), "in its sequence");
    assert!(!one(0.0, 2, 0, &mut scratch), "the row that fired was computed anew");
    assert!(one(1.0, 5, 0, &mut scratch));
    scratch.forget_sequence(0);
    assert!(!one(0.0, 6, 0, &mut scratch));
}

#[test]
fn readings_and_verdicts_say_what_where_and_how_strongly() {
    let verdicts = vec![
        Verdict::replace("both", When::all([When::fires("first"), When::fires("second")]), "No."),
        Verdict::new("none", When::unless(When::any([When::fires("first"), When::fires("second")])), Action::Report),
    ];
    let plan = compile(Plan::default().watch([first(), second()]).tell(verdicts));
    assert!(!plan.is_empty());
    let mut scratch = Scratch::new();
    let meta = [row(1, 0), row(1, 2), row(2, 0).generated(true), row(0, 3)];
    let x = input(&[(0.75, 0.0), (-1.0, 0.25), (2.0, 0.5), (9.0, 9.0)]);
    assert_eq!(graph(&plan, &x, &meta, &mut scratch), [false; 4], "monitors change nothing");
    let watched = scratch.take_watched();
    let read: Vec<_> = watched.readings.iter().map(|r| (r.monitor, r.sequence, r.position, r.value, r.fired)).collect();
    let want = [(0, 0, 1, 0.75, true), (0, 2, 1, 0.0, false), (0, 0, 2, 2.0, true)];
    assert_eq!(read[..3], want, "position 0 is left out");
    assert_eq!(
        read[3..].iter().map(|r| (r.0, r.3, r.4)).collect::<Vec<_>>(),
        [(1, 0.0, false), (1, 0.25, false), (1, 0.5, true)]
    );
    assert_eq!(watched.readings[2].generated, Some(true));
    let passed: Vec<_> = watched.verdicts.iter().map(|v| (v.verdict, v.sequence, v.position, v.action)).collect();
    assert_eq!((&*watched.verdicts[1].name, watched.verdicts[1].text.as_deref()), ("both", Some("No.")));
    assert_eq!(passed, [(1, 2, 1, Action::Report), (0, 0, 2, Action::Replace)]);
    assert_eq!(scratch.take_watched(), Default::default(), "each is told once");
}

#[test]
fn unknown_rows_are_not_guessed() {
    let plan = compile(Plan::new([edit().when(When::fires("first"))]).watch([first()]));
    let mut scratch = Scratch::new();
    let x = input(&[(1.0, 0.0)]);
    let mut meta = [row(1, 0)];
    meta[0].sequences = None;
    assert_eq!(graph(&plan, &x, &meta, &mut scratch), [false]);
    assert_eq!(scratch.take_unwatched().len(), 1);
    assert_eq!(scratch.tally().take()[0].unjudged_rows().map(|(_, n)| n).sum::<u64>(), 1);
    let shared = row(1, 0).shared_by(SequenceSet::of([0, 1]).unwrap());
    assert_eq!(graph(&plan, &x, &[shared], &mut scratch), [true], "a row of several sequences is one row");
}

#[test]
fn a_graph_without_rows_to_read_is_not_asked_for() {
    let plan = compile(Plan::default().watch([first().select(Selector::prompt())]));
    let ops = &plan.points[&LAYER.into()];
    assert_eq!(ops.touches(&[row(5, 0)]), Some(true));
    assert_eq!(ops.touches(&[row(5, 0).generated(true)]), Some(false), "nothing is read while an answer is written");
}

#[test]
fn later_layers_are_not_asked_for_where_nothing_fired() {
    let plan = compile(Plan::new([edit().when(When::fires("first"))]).watch([first()]));
    let (early, late) = (&plan.points[&LAYER.into()], &plan.points[&(LAYER + 1).into()]);
    let mut scratch = Scratch::new();
    let meta = [row(1, 0), row(2, 0)];
    for (value, fires) in [(0.0, false), (1.0, true), (0.0, false)] {
        early.apply(&mut input(&[(0.0, 0.0), (value, 0.0)]), &meta, &mut scratch);
        assert_eq!(late.touches_after(&meta, &scratch), Some(fires));
        assert_eq!(late.touches(&meta), Some(true), "without what was read it may be");
        scratch.end_graph(&plan);
    }
}

#[test]
fn fingerprints_tell_monitors_and_conditions_apart() {
    let with = |monitor: Monitor, when: Option<When>| {
        let mut rule = edit();
        rule.when = when;
        compile(Plan::new([rule]).watch([monitor, second()])).fingerprint
    };
    let all = [
        with(first(), None),
        with(first(), Some(When::fires("first"))),
        with(first(), Some(When::fires("second"))),
        with(first(), Some(When::unless(When::fires("first")))),
        with(Monitor::new("first", [0], 0.6), Some(When::fires("first"))),
        with(first().over_sequence(), Some(When::fires("first"))),
    ];
    for (i, one) in all.iter().enumerate() {
        assert!(!all[..i].contains(one), "{i}");
    }
    let renamed = Monitor::new("other", [0], 0.5);
    assert_eq!(with(renamed, Some(When::fires("other"))), all[1], "names mean nothing");
}

#[test]
fn what_cannot_be_known_in_time_is_refused() {
    let early = Rule::new(Op::Add, [0u32], Strength::raw(2.0)).when(When::fires("second"));
    let plan = |monitor: Monitor, rule: Rule| Plan::new([rule]).watch([monitor]);
    let refused = |plan: Plan| {
        let error = plan.compile(&[("d", two_layers())], &Target::new(N_LAYER, D), Route::Auto).unwrap_err();
        assert_eq!(error.kind(), Kind::Mismatch);
        error.message().to_owned()
    };
    let message = refused(plan(second(), early.clone()));
    assert!(message.contains("rules[0]: when: \"second\" reads"), "{message}");
    let lasting = second().over_sequence().select(Selector::prompt());
    refused(plan(lasting.clone(), early.clone()));
    compile(plan(lasting, early.select(Selector::generated())));
    let mixed = Plan::default().watch([Monitor::new("a", [0, 1], 0.5)]);
    assert!(refused(mixed).contains("features of one layer"));
    let own = Plan::default().watch([Monitor::new("a", [99], 0.5)]);
    let error = own.compile(&[("d", plain())], &Target::new(N_LAYER, D), Route::Auto).unwrap_err();
    assert!(error.message().contains("monitors[0]: features[0]"), "{error}");
}

#[test]
fn plans_with_monitors_come_back_from_json_and_mistakes_are_named() {
    let text = r#"{"version": 1,
      "monitors": [{"name": "a", "features": [0], "threshold": 0.5, "select": {"phase": "prompt"}, "scope": "sequence"}],
      "verdicts": [{"name": "v", "when": {"any": ["a", {"not": {"all": ["a"]}}]}, "action": "replace", "text": "No."}],
      "rules": [{"op": "add", "features": [1], "strength": 1, "when": "a"}]}"#;
    let plan = Plan::from_json(text).unwrap();
    assert_eq!(plan.monitors, [Monitor::new("a", [0], 0.5).select(Selector::prompt()).over_sequence()]);
    assert_eq!(plan.rules[0].when, Some(When::fires("a")));
    assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    for (from, to, says) in [
        ("\"when\": \"a\"", "\"when\": \"b\"", "rules[0]: when: expected the name of a monitor (\"a\"), found \"b\""),
        ("\"all\": [\"a\"]", "\"all\": []", "verdicts[0]: when: expected at least one condition"),
        (", \"text\": \"No.\"", "", "verdicts[0]: text: `replace` needs one"),
        ("\"replace\"", "\"report\"", "verdicts[0]: text: only `replace`"),
        ("\"threshold\": 0.5", "\"threshold\": -1", "monitors[0]: threshold"),
        ("\"features\": [0], \"threshold\"", "\"features\": [], \"threshold\"", "monitors[0]: features"),
        ("\"name\": \"a\"", "\"name\": \"\"", "monitors[0]: name"),
        ("\"when\": \"a\"", "\"when\": 7", "a monitor's name"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = Plan::from_json(&text.replace(from, to)).unwrap_err();
        assert!(error.kind() == Kind::Format && error.message().contains(says), "{says}: {error}");
    }
    let deep = format!("{}\"a\"{}", "{\"not\": ".repeat(20), "}".repeat(20));
    assert!(Plan::from_json(&text.replace("\"when\": \"a\"", &format!("\"when\": {deep}"))).is_err());
}
