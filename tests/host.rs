//! The engine in somebody else's process: what is asked wrongly, what llama.cpp refuses and what no process survives come
//! back as errors that say what they are.
#![cfg(feature = "engine")]

mod support;

use std::path::{Path, PathBuf};

use support::tiny::{self, Tiny};
use tiller::engine::{Document, Engine, Generate, Harvest, Options, requantize};
use tiller::file::gguf::Array;
use tiller::model::Model;
use tiller::progress::silent;
use tiller::{Error, Kind};

fn options() -> Options {
    Options { threads: 1, context: 64, batch: 32, ..Options::default() }
}

fn write(tiny: &Tiny) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = tiny.write(dir.path(), "model.gguf");
    (dir, path)
}

fn refused(path: &Path, options: &Options) -> Error {
    Engine::open(path, options).err().unwrap_or_else(|| panic!("{} opens", path.display()))
}

fn three(engine: &mut Engine) -> tiller::Result<Vec<i32>> {
    let request = Generate { max_tokens: 3, ignore_end: true, ..Generate::default() };
    Ok(engine.generate("on the area", &request, &mut |_| true)?.tokens().to_vec())
}

/// `tiny` in two files; the second has no key but those of parts.
fn split(tiny: &Tiny, dir: &Path) -> [PathBuf; 2] {
    let (n, half) = (tiny.tensors.len(), tiny.tensors.len() / 2);
    let mut parts = [tiny.clone(), Tiny::default()];
    parts[1].tensors = parts[0].tensors.split_off(half);
    let mut i = 0_u16;
    parts.map(|mut part| {
        part.set("split.no", i);
        part.set("split.count", 2_u16);
        part.set("split.tensors.count", n as i32);
        i += 1;
        part.write(dir, &format!("model-0000{i}-of-00002.gguf"))
    })
}

#[test]
fn the_reason_of_a_failed_load_is_passed_on() {
    let llama = || Tiny::new("llama");
    let mut unknown = llama().with("general.architecture", "novel");
    unknown.keys.iter_mut().for_each(|key| key.name = key.name.replace("llama.", "novel."));
    let mut missing = llama();
    missing.tensors.retain(|t| t.name != "blk.1.ffn_up.weight");
    let mut shape = llama();
    shape.tensor("blk.1.ffn_up.weight").shape.swap(0, 1);
    let cases = [
        (unknown, "novel"),
        (missing, "blk.1.ffn_up.weight"),
        (shape, "blk.1.ffn_up.weight"),
        (Tiny::new("gpt2").with("tokenizer.ggml.pre", "brand-new"), "brand-new"),
        (llama().with("tokenizer.ggml.model", "brandnew"), "brandnew"),
    ];
    for (tiny, named) in &cases {
        let (_dir, path) = write(tiny);
        let message = refused(&path, &options()).message().to_owned();
        assert!(message.contains(named) && message.contains("model.gguf"), "{named}: {message}");
        assert!(!message.contains("failed to load model"), "{message}");
    }
    // Side by side, each gets its own.
    std::thread::scope(|scope| {
        for (tiny, named) in &cases {
            scope.spawn(move || {
                let (_dir, path) = write(tiny);
                for _ in 0..20 {
                    let message = refused(&path, &options()).message().to_owned();
                    assert!(message.contains(named), "{named}: {message}");
                }
            });
        }
    });
}

#[test]
fn the_first_part_of_a_split_model_stands_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let whole = Tiny::new("llama").write(dir.path(), "whole.gguf");
    let [first, second] = split(&Tiny::new("llama"), dir.path());
    let (joined, model) = (Model::open(&whole).unwrap(), Model::open(&first).unwrap());
    assert_eq!((model.parts().len(), joined.parts().len()), (2, 1));
    assert_eq!(model.fingerprint(), joined.fingerprint());
    let (mut a, mut b) = (vec![0.0; model.d_model()], vec![0.0; model.d_model()]);
    model.unembedding_row(5, &mut a).unwrap();
    joined.unembedding_row(5, &mut b).unwrap();
    assert_eq!((a, model.output_norm().unwrap()), (b, joined.output_norm().unwrap()));

    let mut engine = Engine::open(&first, &options()).unwrap();
    assert_eq!(three(&mut engine).unwrap(), three(&mut Engine::open(&whole, &options()).unwrap()).unwrap());
    let text = [Document::Text("on the area, in the area".into())];
    let harvest = Harvest { layers: vec![0], ..Harvest::default() };
    assert!(engine.harvest(&text, &dir.path().join("rows"), &harvest, &mut silent).unwrap().n_rows > 5);
    let copy = dir.path().join("copy.gguf");
    requantize(&first, &copy, "F16", 1).unwrap();
    assert_eq!(Model::open(&copy).unwrap().gguf().tensors().len(), joined.gguf().tensors().len());

    let error = refused(&second, &options());
    assert!(error.message().contains("expected the first of 2 parts, found part 2"), "{error}");
    assert!(error.hint().unwrap().contains("model-00001-of-00002.gguf"), "{error:?}");
    let lone = dir.path().join("lone");
    std::fs::create_dir(&lone).unwrap();
    let copied = lone.join("model-00001-of-00002.gguf");
    std::fs::copy(&first, &copied).unwrap();
    let error = refused(&copied, &options());
    assert!(error.kind() == Kind::Io && error.message().contains("model-00002-of-00002.gguf"), "{error}");
    std::fs::copy(&first, lone.join("model-00002-of-00002.gguf")).unwrap();
    let error = refused(&copied, &options());
    assert!(error.message().contains("expected part 2 of 2, found part 1 of 2"), "{error}");
    std::fs::copy(&first, lone.join("other.gguf")).unwrap();
    let error = refused(&lone.join("other.gguf"), &options());
    assert!(error.message().contains("expected a name that ends in -00001-of-00002.gguf"), "{error}");
}

#[test]
fn models_that_write_no_text_are_named() {
    let (_dir, path) = write(&Tiny::new("bert"));
    let error = refused(&path, &options());
    assert!(error.kind() == Kind::Unsupported && error.message().contains("found an encoder"), "{error}");
    // Attention that looks both ways makes an encoder of any model; llama.cpp knows some that have no such key.
    let (_dir, path) = write(&Tiny::new("llama").with("llama.attention.causal", false));
    assert!(refused(&path, &options()).message().contains("found an encoder"));
    let (_dir, path) = write(&Tiny::new("bert").without("bert.attention.causal"));
    assert!(refused(&path, &options()).message().contains("found an encoder"));
    // A decoder that was trained to make vectors has rows, but no text.
    let (_dir, path) = write(&Tiny::new("llama").with("llama.pooling_type", 3_u32));
    let mut engine = Engine::open(&path, &options()).unwrap();
    let error = three(&mut engine).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.message().contains("found an embedding model"), "{error}");
    let tokens = engine.tokenize("on the area", true).unwrap();
    assert_eq!(engine.rows(&tokens, 1).unwrap().len(), tokens.len() * engine.d_model());
}

#[test]
fn no_position_is_asked_for_that_was_not_learned() {
    let (dir, path) = write(&Tiny::new("gpt2"));
    let learned = tiny::CONTEXT as usize;
    let engine = Engine::open(&path, &Options { context: 0, ..options() }).unwrap();
    assert_eq!((engine.options().context, engine.notes()), (learned, &[][..]));
    let long = "on the area ".repeat(100);
    for sequences in [1, 4] {
        let more = Options { context: 4 * learned, batch: 4 * learned, sequences, ..options() };
        let mut engine = Engine::open(&path, &more).unwrap();
        assert!(engine.notes().iter().any(|note| note.contains("learned 128 positions")), "{:?}", engine.notes());
        assert_eq!(engine.longest(), learned);
        let error = engine.generate(&long, &Generate::default(), &mut |_| true).err().unwrap();
        assert!(error.message().contains("128 positions"), "{error}");
        let tokens = engine.tokenize(&long, true).unwrap();
        let error = engine.rows(&tokens, 0).unwrap_err();
        assert!(error.message().contains("expected 1 to 128"), "{error}");
        assert!(engine.perplexity(&long, 0).unwrap().n_tokens > learned);
        let harvest = Harvest { layers: vec![0], ..Harvest::default() };
        let rows = dir.path().join(format!("rows-{sequences}"));
        let text = [Document::Text(long.clone())];
        assert_eq!(engine.harvest(&text, &rows, &harvest, &mut silent).unwrap().n_rows, tokens.len() as u64);
    }
    // Where positions are computed, more than were trained is said, and done.
    let (_dir, path) = write(&Tiny::new("llama"));
    let mut engine = Engine::open(&path, &Options { context: 512, batch: 512, ..options() }).unwrap();
    assert!(engine.notes()[0].contains("512 tokens, the model was trained with 128"), "{:?}", engine.notes());
    let tokens = engine.tokenize(&long, true).unwrap();
    assert!(tokens.len() > learned && engine.rows(&tokens[..200], 0).is_ok());
}

#[test]
fn sequences_have_room_in_the_context_and_in_a_batch() {
    let (_dir, path) = write(&Tiny::new("llama"));
    let mut engine = Engine::open(&path, &Options { context: 256, batch: 1, sequences: 2, ..options() }).unwrap();
    assert_eq!(engine.options().batch, 2);
    let prompts = ["on the".to_owned(), "in the area".to_owned()];
    let request = Generate { max_tokens: 4, ignore_end: true, ..Generate::default() };
    assert!(engine.generate_many(&prompts, &request).unwrap().iter().all(|made| made.tokens().len() == 4));
    let error = refused(&path, &Options { context: 32, sequences: 64, ..options() });
    assert!(
        error.kind() == Kind::Argument && error.message().contains("64") && error.message().contains("32"),
        "{error}"
    );
    assert!(refused(&path, &Options { sequences: 1 << 20, ..options() }).message().contains("sequences"));
    assert!(refused(&path, &Options { context: 1 << 40, ..options() }).message().contains("context"));
}

#[test]
fn what_was_not_done_as_asked_is_said() {
    let (_dir, path) = write(&Tiny::new("llama"));
    let processors = std::thread::available_parallelism().unwrap().get();
    let engine = Engine::open(&path, &Options { threads: 4 * processors, gpu_layers: 9, ..options() }).unwrap();
    assert_eq!(engine.options().threads, processors);
    let said = engine.notes().join("\n");
    assert!(said.contains(&format!("{} threads asked for, {processors} used", 4 * processors)), "{said}");
    if cfg!(not(any(feature = "cuda", feature = "metal", feature = "vulkan"))) {
        assert!(said.contains("9 layers asked for on a GPU"), "{said}");
    }
    assert_eq!(Engine::open(&path, &options()).unwrap().notes(), &[] as &[String]);
    // The command passes it on.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tiller"));
    command.arg("run").arg(&path).args(["--prompt", "on the area", "--max-tokens", "2"]);
    let output = command.arg("--threads").arg((4 * processors).to_string()).output().expect("the command runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains(&format!("note: {} threads asked for", 4 * processors)), "{err}");
}

#[test]
fn a_token_twice_is_no_death() {
    let mut tiny = Tiny::new("llama");
    let n = tiny.tensor("token_embd.weight").shape[1];
    let texts = (0..n).map(|i| format!("t{}", i % (n - 1)));
    tiny.set("tokenizer.ggml.tokens", Array::strings(texts).unwrap());
    let (_dir, path) = write(&tiny);
    let error = refused(&path, &options());
    assert!(error.kind() == Kind::Format && error.message().contains("token"), "{error}");
}

/// A child of a process that has an engine: its threads are not there. A call that waited for them would wait for ever;
/// the alarm ends a child that does.
#[cfg(unix)]
#[test]
fn a_forked_child_gets_an_error() {
    unsafe extern "C" {
        fn fork() -> i32;
        fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
        fn alarm(seconds: u32) -> u32;
        fn _exit(status: i32) -> !;
    }
    let (_dir, path) = write(&Tiny::new("llama"));
    let threads = std::thread::available_parallelism().unwrap().get();
    let mut engine = Engine::open(&path, &Options { threads, ..options() }).unwrap();
    let before = three(&mut engine).unwrap();
    // SAFETY: the child runs this one thread and leaves by `_exit`.
    let child = unsafe { fork() };
    if child == 0 {
        // SAFETY: plain calls of the system.
        unsafe { alarm(60) };
        let error = three(&mut engine).err();
        let said = error.is_some_and(|e| e.kind() == Kind::Unsupported && e.message().contains("forked child"));
        drop(engine);
        // An engine of its own serves the child.
        let own = Engine::open(&path, &Options { threads, ..options() }).and_then(|mut engine| three(&mut engine));
        let same = own.is_ok_and(|tokens| tokens == before);
        // SAFETY: as above.
        unsafe { _exit(if said { 0 } else { 1 } + if same { 0 } else { 2 }) }
    }
    assert!(child > 0, "fork failed");
    let mut status = 0;
    // SAFETY: `status` is written before it is read.
    assert_eq!(unsafe { waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "exit status 256 and 512 are of the two checks, 14 of the alarm");
    assert_eq!(three(&mut engine).unwrap(), before);
}
