//! Work that ends early keeps what is done: a full context, a stopped harvest, a budget of tokens. On tiny models.
#![cfg(feature = "engine")]

mod support;

use std::path::{Path, PathBuf};

use support::tiny::Tiny;
use tiller::Kind;
use tiller::activations::{Activations, RowType};
use tiller::engine::{Document, Engine, Generate, Harvest, Message, Options, Stop, Streamed};
use tiller::progress::{Step, silent};
use tiller::train;

/// One thread, so that rows are the same to the bit on every machine.
fn open(path: &Path, options: Options) -> Engine {
    Engine::open(path, &Options { threads: 1, ..options }).unwrap()
}

fn model(dir: &Path) -> PathBuf {
    Tiny::new("llama").write(dir, "tiny.gguf")
}

/// Text of some `n` tokens, all different.
fn text(n: usize) -> String {
    (0..n / 8).map(|i| format!("word {i:04} ")).collect()
}

#[test]
fn a_text_ends_where_the_context_does_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&model(dir.path()), Options { context: 64, ..Options::default() });
    let room = engine.options().context;
    let options = Generate { max_tokens: 1000, ignore_end: true, ..Generate::default() };
    let mut streamed = String::new();
    let whole = engine.generate("once upon", &options, &mut |piece| {
        streamed.push_str(piece);
        true
    });
    let whole = whole.unwrap();
    assert_eq!(whole.stop(), Some(Stop::Context));
    // The last token is drawn from the last row that has room.
    assert_eq!(whole.prompt().len() + whole.tokens().len(), room + 1);
    assert_eq!(whole.text(), streamed);

    let mut steps = engine.begin("once upon", &options).unwrap();
    while engine.step(&mut steps).unwrap().is_some() {}
    assert_eq!((steps.stop(), steps.tokens()), (Some(Stop::Context), whole.tokens()));

    // A prompt that fills the context has one token after it.
    let tokens = engine.tokenize(&text(8 * room), true).unwrap();
    let full = engine.detokenize(&tokens[1..room]);
    let full = full.trim_start();
    assert_eq!(engine.tokenize(full, true).unwrap().len(), room);
    let one = engine.generate(full, &options, &mut |_| true).unwrap();
    assert_eq!((one.stop(), one.tokens().len()), (Some(Stop::Context), 1));
}

#[test]
fn in_a_wave_only_what_has_no_room_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&model(dir.path()), Options { context: 96, sequences: 4, ..Options::default() });
    let room = engine.options().context;
    let options = Generate { max_tokens: 40, ignore_end: true, ..Generate::default() };
    let long = text(5 * room / 8);
    let prompts = ["the sea".to_owned(), long, "in the".to_owned(), "a".to_owned()];
    let made = engine.generate_many(&prompts, &options).unwrap();
    let stops: Vec<_> = made.iter().map(|g| g.stop().unwrap()).collect();
    assert_eq!(stops, [Stop::Length, Stop::Context, Stop::Length, Stop::Length]);
    assert_eq!(made[1].prompt().len() + made[1].tokens().len(), room + 1);
    assert!(made.iter().enumerate().all(|(i, g)| i == 1 || g.tokens().len() == 40));
}

#[test]
fn what_is_stopped_from_outside_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&model(dir.path()), Options { context: 64, sequences: 2, ..Options::default() });
    let options = Generate { max_tokens: 30, ignore_end: true, ..Generate::default() };
    let prompts = ["the sea".to_owned(), "a".to_owned(), "in the".to_owned()];
    let mut asked = 0;
    let tokens: Vec<_> = prompts.iter().map(|prompt| engine.tokenize(prompt, true).unwrap()).collect();
    let made = engine.generate_while(&tokens, &options, &mut || {
        asked += 1;
        asked < 10
    });
    let made = made.unwrap();
    assert!(!made.is_empty() && made.len() < prompts.len(), "{}", made.len());
    assert!(made.iter().all(|g| g.stop() == Some(Stop::Caller) && !g.tokens().is_empty()));
}

#[test]
fn a_prompt_that_is_too_long_is_refused_before_anything_is_computed() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&model(dir.path()), Options { context: 64, ..Options::default() });
    engine.hook_mut().capture([0]).unwrap();
    let options = Generate { max_tokens: 20, ..Generate::default() };
    let long = text(300);
    let n = engine.tokenize(&long, true).unwrap().len();
    let errors = [
        engine.begin(&long, &options).err(),
        engine.generate_many(&["a".to_owned(), long.clone()], &options).err(),
        engine.score(&engine.tokenize(&long, true).unwrap(), 1).err(),
    ];
    for error in errors.map(Option::unwrap) {
        assert_eq!(error.kind(), Kind::Argument);
        // A score needs no room for the last token.
        let told = |n: usize| format!("{n} tokens, but the context holds 64, and the model was trained with 128");
        assert!([n, n - 1].iter().any(|&n| error.message().contains(&told(n))), "{error}");
        assert!(error.hint().unwrap().contains("--context"), "{error:?}");
    }
    let many = engine.generate_many(&["a".to_owned(), long], &options).err().unwrap();
    assert!(many.message().starts_with("prompt 2: "), "{many}");
    assert!(engine.hook_mut().take_captured(0).rows.is_empty(), "something was computed");
}

#[test]
fn scoring_many_sequences_does_not_fill_the_context() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&model(dir.path()), Options { context: 64, batch: 64, sequences: 8, ..Options::default() });
    let tokens = engine.tokenize(&text(60), true).unwrap();
    // llama.cpp rounds a context up to 256 cells.
    let sequences = vec![tokens[..60].to_vec(); 8];
    let mut n = 0;
    engine.predict(&sequences, &mut |_, _, _| n += 1).unwrap();
    assert_eq!(n, 480);
}

/// Rows, tokens and positions of a directory, in order, whatever its shards.
fn rows(directory: &Path) -> (Vec<u32>, Vec<i32>, Vec<i32>) {
    let all = Activations::open(directory).unwrap();
    let (mut rows, mut row) = (Vec::new(), vec![0.0; all.d_model()]);
    for i in 0..all.n_rows() {
        all.row(i, &mut row);
        rows.extend(row.iter().map(|x| x.to_bits()));
    }
    let n = 0..all.n_rows();
    (rows, n.clone().map(|i| all.token(i)).collect(), n.map(|i| all.position(i)).collect())
}

/// Documents of which some have no row, some one window, and one many.
fn documents() -> Vec<Document> {
    let lengths = [20, 200, 0, 90, 1500, 10, 64, 300, 31];
    lengths.iter().map(|&n| Document::Text(text(n))).collect()
}

fn harvest() -> Harvest {
    Harvest { layers: vec![0], dtype: RowType::F32, window: 32, shard_rows: 200, ..Harvest::default() }
}

fn reader(path: &Path) -> Engine {
    open(path, Options { context: 80, batch: 80, sequences: 8, ..Options::default() })
}

#[test]
fn a_stopped_harvest_keeps_every_computed_row_and_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = reader(&model(dir.path()));
    let (text, whole) = (documents(), dir.path().join("whole"));
    let made = engine.harvest(&text, &whole, &harvest(), &mut silent).unwrap();
    let expected = rows(&whole);
    // Rows do not depend on where shards end.
    let other = dir.path().join("other");
    engine.harvest(&text, &other, &Harvest { shard_rows: 90, ..harvest() }, &mut silent).unwrap();
    assert!(rows(&other) == expected);

    let cut = dir.path().join("cut");
    let mut computed = 0;
    for stop_at in 2_u64.. {
        let (mut steps, mut told) = (0, 0);
        let ended = engine.harvest(&text, &cut, &harvest(), &mut |step: Step<'_>| {
            (steps, told) = (steps + 1, step.done);
            steps < stop_at
        });
        match ended {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), Kind::Cancelled),
        }
        computed += told;
        let kept = Activations::open(&cut).unwrap();
        assert_eq!(kept.n_rows() as u64, computed, "rows that progress told of are kept");
        assert!(!kept.meta().complete);
    }
    assert!(computed > 0 && rows(&cut) == expected, "the rows of a harvest in many pieces");
    let meta = Activations::open(&cut).unwrap().meta().clone();
    assert!(meta.complete && meta.n_rows == made.n_rows && meta.windows_done == 0);
    assert_eq!(meta.documents_done, text.len() as u64);
}

#[test]
fn a_budget_of_tokens_ends_inside_a_document_and_can_be_raised() {
    let dir = tempfile::tempdir().unwrap();
    let path = model(dir.path());
    let mut engine = reader(&path);
    let book = [Document::Text(text(20_000))];
    let n = engine.document_tokens(&book[0]).unwrap().len() as u64;
    let place = dir.path().join("rows");
    let up_to = |max_tokens| Harvest { max_tokens, ..harvest() };
    for budget in [1000, 1000, 2500, 0] {
        let before = Activations::open(&place).map_or(0, |a| a.n_rows() as u64);
        let made = engine.harvest(&book, &place, &up_to(budget), &mut silent).unwrap();
        let expected = if budget == 0 { n } else { budget.next_multiple_of(32) };
        assert_eq!((made.n_rows, made.n_tokens), (expected, expected - before), "{budget}");
        assert_eq!(Activations::open(&place).unwrap().meta().complete, budget == 0);
    }
    let (_, tokens, positions) = rows(&place);
    assert_eq!(tokens, engine.document_tokens(&book[0]).unwrap(), "no token twice and none left out");
    assert!(positions.iter().enumerate().all(|(i, &p)| p as usize == i % 32));

    // Training on rows that are made while they are needed; the long document makes many parts.
    let options = train::Options { batch: 40, held_out: 0.0, ..train::Options::default() };
    let streamed = |max_tokens| Streamed { window: 32, max_tokens, buffer: 400, ..Streamed::at(0) };
    let sum = |max_tokens, engine: &mut Engine| {
        let stream = engine.stream(&book, &streamed(max_tokens), &options, &mut silent).unwrap();
        assert!(stream.parts.iter().all(|&rows| rows < 200 + 31 + 80), "{:?}", stream.parts);
        (stream.parts.iter().sum::<usize>(), stream.parts.len())
    };
    assert_eq!(sum(1000, &mut engine).0, 32 * 31, "31 rows a window of 32");
    let (all, parts) = sum(0, &mut engine);
    assert!(parts > 50 && all as u64 == n - n.div_ceil(32), "{parts} parts of {all} rows");
}

#[test]
fn streamed_parts_of_a_long_document_hold_its_rows_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = reader(&model(dir.path()));
    let text = [Document::Text(text(2000)), Document::Text(text(50)), Document::Text(text(900))];
    let place = dir.path().join("rows");
    let options = train::Options { batch: 40, held_out: 0.0, seed: 3, ..train::Options::default() };
    let streamed = Streamed { window: 32, buffer: 400, ..Streamed::at(0) };
    let mut stream = engine.stream(&text, &streamed, &options, &mut silent).unwrap();
    let (mut all, parts) = (Vec::new(), stream.parts.clone());
    for (part, &n) in parts.iter().enumerate() {
        let before = all.len();
        (stream.read)(part, &mut all, &mut || Ok(())).unwrap();
        assert_eq!((all.len() - before) / stream.d_model, n, "part {part}");
        // The same at every call.
        let mut again = Vec::new();
        (stream.read)(part, &mut again, &mut || Ok(())).unwrap();
        assert!(again == all[before..]);
    }
    let d = stream.d_model;
    drop(stream);
    engine.harvest(&text, &place, &harvest(), &mut silent).unwrap();
    let harvested = Activations::open(&place).unwrap();
    let wanted = (0..harvested.n_rows()).filter(|&i| harvested.position(i) > 0).count();
    assert_eq!(all.len() / d, wanted, "{parts:?}");
}

#[test]
fn a_document_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = reader(&model(dir.path()));
    // The model has no chat template.
    let text = [Document::Text(text(100)), Document::Chat(vec![Message::user("hello")])];
    let place = dir.path().join("rows");
    let error = engine.harvest(&text, &place, &harvest(), &mut silent).unwrap_err();
    assert!(error.message().starts_with("document 2: ") && error.kind() == Kind::Unsupported, "{error}");
}
