//! What llama.cpp would die of is refused before it is asked, by name; what it runs, it gets.
#![cfg(feature = "engine")]

mod support;

use tiller::engine::{Engine, Generate, Options};

use support::tiny::{self, Tiny};

fn options() -> Options {
    Options { threads: 1, context: 64, batch: 32, ..Options::default() }
}

#[test]
fn every_tiny_model_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in tiny::NAMES {
        let path = Tiny::new(name).write(dir.path(), &format!("{name}.gguf"));
        let mut engine = Engine::open(&path, &options()).unwrap_or_else(|e| panic!("{name}: {e}"));
        if name == "bert" {
            continue;
        }
        let request = Generate { max_tokens: 3, ignore_end: true, ..Generate::default() };
        let made = engine.generate("on the area", &request, &mut |_| true).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(made.tokens().len(), 3, "{name}");
        println!("{name} {:?} {:?}", made.prompt(), made.text());
    }
}
