//! The example programs in C and C++, each on its own llama.cpp, and the one in Go on the engine, write what the engine
//! writes from Rust: for an empty plan, for one that becomes a control vector, and for one that needs the callback. For what
//! two runs of a model have in common see `agree` in `tests/support`.
#![cfg(feature = "engine")]

#[path = "support/library.rs"]
mod library;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use support::agree;
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::engine::{Engine, Generate, Generation, Options};
use tiller::file::gguf::GgmlType;
use tiller::plan::{Plan, Route};

const PROMPT: &str = "The weather today is";
const TOKENS: usize = 12;
const SEED: u32 = 7;

/// Two features of fixed, scattered directions at layer 19 of a model 576 wide.
fn write_dictionary(path: &Path) {
    let d_model = 576;
    let direction = |i: u32| ((i.wrapping_mul(2_654_435_761) >> 16) as f32 / 65_536.0 - 0.5) / 7.0;
    let matrix: Vec<f32> = (0..2 * d_model as u32).map(direction).collect();
    let parts = Parts {
        d_model,
        encoder: matrix.clone(),
        decoder: matrix,
        encoder_bias: vec![0.0; 2],
        decoder_bias: vec![0.0; d_model],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings::new(Activation::Relu),
        info: Info { layer: Some(19), ..Info::default() },
    };
    let saved = Dictionary::from_parts(parts).and_then(|d| d.save_gguf(path, GgmlType::F32));
    saved.expect("the dictionary");
}

fn generate(model: &Path, dictionary: &Path, plan: &Path, draft: &Generate) -> (Engine, Generation) {
    let options = Options { context: 2048, threads: support::THREADS, ..Options::default() };
    let mut engine = Engine::open(model, &options).expect("the engine");
    let dictionary = Arc::new(Dictionary::open(dictionary).expect("the dictionary"));
    let plan = Plan::open(plan).expect("the plan");
    let compiled = plan.compile(&[("", dictionary)], &engine.target(), Route::Auto);
    engine.set_plan(Some(Arc::new(compiled.expect("a compiled plan")))).expect("the plan fits");
    let made = engine.generate(PROMPT, draft, &mut |_| true).expect("text");
    (engine, made)
}

#[test]
fn examples_write_what_the_engine_writes() {
    let Some(model) = support::model(support::SMOLLM) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    // What `cargo build` would leave in target/release, from what cargo built along with this test.
    let release = at("target/release");
    fs::create_dir_all(&release).expect("a directory");
    for name in ["libtiller.so", "libtiller.a"] {
        symlink(library::library().join(name), release.join(name)).expect("a link");
    }
    symlink(library::target_directory().join("release/build"), release.join("build")).expect("a link");
    let mut build = Command::new("bash");
    build.arg(library::root().join("examples/build.sh")).arg(dir.path()).arg(at("target"));
    library::run(&mut build, "bash");
    write_dictionary(&at("dictionary.gguf"));
    let mut texts = Vec::new();
    // Of each program's sampled texts: characters that were expected, and those that came until a draw was another one.
    let mut drawn: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (name, rules) in [
        ("empty", ""),
        ("vector", r#"{"op": "add", "features": [0, 1], "strength": 30}"#),
        ("callback", r#"{"op": "clamp", "features": [0, 1], "strength": -60}"#),
    ] {
        let plan = at(name);
        fs::write(&plan, format!(r#"{{"version": 1, "rules": [{rules}]}}"#)).expect("a plan");
        let greedy = Generate { max_tokens: TOKENS, ..Generate::default() };
        let sampled = Generate { temperature: 0.8, top_p: 0.95, seed: SEED, ..greedy.clone() };
        for (options, seed) in [(greedy, None), (sampled, Some(SEED.to_string()))] {
            let (mut engine, made) = generate(&model, &at("dictionary.gguf"), &plan, &options);
            for program in ["steer-c", "steer-cpp", "steer-go"] {
                let mut steer = Command::new(at(program));
                steer.arg(&model).arg(at("dictionary.gguf")).arg(&plan).arg(PROMPT).arg(TOKENS.to_string());
                steer.args(&seed);
                let text = library::run(&mut steer, "go");
                println!("{program}, {name} plan, {seed:?}: {text:?}, the engine {:?}", made.text());
                let text = text.strip_suffix('\n').expect("a line");
                if seed.is_none() {
                    agree::same_text(&mut engine, made.prompt(), made.tokens(), text);
                } else {
                    let (all, same) = drawn.entry(program).or_default();
                    *all += made.text().len();
                    *same += agree::alike(text.as_bytes(), made.text().as_bytes());
                }
            }
            texts.push(made.text().to_owned());
        }
    }
    for (program, (all, same)) in drawn {
        assert!(2 * same > all, "{program} draws with its seed: {same} of {all} bytes");
    }
    // What goes wrong is said, and ends the program with 1.
    let mut wrong = Command::new(at("steer-c"));
    let output = wrong.arg(&model).arg(at("dictionary.gguf")).args(["/nowhere", "x"]).output().expect("the program");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.starts_with("error: /nowhere: cannot open"), "{text}");
    let distinct: BTreeSet<&String> = texts.iter().collect();
    assert_eq!(distinct.len(), texts.len(), "a plan that doesn't steer, or a seed that doesn't matter: {texts:?}");
}
