//! C, C++ and Go pass one table of cases (`tests/abi/cases.tsv`) on the release library; C under valgrind, too. With the
//! engine and a model, they also pass `tests/abi/engine.tsv`.

#[path = "support/library.rs"]
mod library;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tiller::file::gguf::{Array, GgmlType, Writer};
use tiller::file::npy;
use tiller::file::safetensors::Dtype;

use library::{compile, plain_library, root, run};

const ENGINE: bool = cfg!(feature = "engine");

/// A model of two blocks and five tokens: enough to be looked at, not to be run.
fn write_model(path: &Path) {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut w = Writer::new();
    w.set("general.architecture", "llama");
    w.set("general.name", "fixture");
    w.set("llama.block_count", 2u32);
    w.set("llama.embedding_length", 4u32);
    w.set("llama.context_length", 64u32);
    w.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    w.set("tokenizer.ggml.model", "llama");
    w.set("tokenizer.ggml.tokens", Array::strings(["<unk>", "<s>", "</s>", "▁the", "▁sea"]).expect("tokens"));
    w.set("tokenizer.ggml.token_type", Array::numbers(&[2i32, 3, 3, 1, 1]));
    w.set("tokenizer.ggml.bos_token_id", 1u32);
    w.set("tokenizer.ggml.eos_token_id", 2u32);
    w.set("tokenizer.ggml.add_bos_token", true);
    let rows: Vec<f32> = (0u8..20).map(f32::from).collect();
    w.tensor("token_embd.weight", &[4, 5], GgmlType::F32, bytes(&rows));
    w.tensor("output_norm.weight", &[4], GgmlType::F32, bytes(&[1.0; 4]));
    w.write(path).expect("the model");
}

/// A temporal model: latents 0 and 1 are features 3 and 7, with directions (1, 0) and (0, 4).
fn write_temporal(path: &Path) {
    use tiller::file::safetensors::{Dtype, Writer};
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let numbers = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut w = Writer::new();
    w.metadata("format", "tiller temporal 1");
    w.tensor("M", Dtype::F32, &[2, 2], floats(&[0.0, 0.0, 0.5, 0.0]));
    w.tensor("B", Dtype::F32, &[1, 2, 2], floats(&[0.0, 2.0, 0.0, 0.0]));
    w.tensor("A", Dtype::F32, &[2, 2], floats(&[1.0, 0.0, 0.0, 4.0]));
    w.tensor("offset", Dtype::F32, &[2], floats(&[0.0; 2]));
    w.tensor("order", Dtype::I64, &[2], numbers(&[0, 1]));
    w.tensor("features", Dtype::I64, &[2], numbers(&[3, 7]));
    w.tensor("mean", Dtype::F32, &[2], floats(&[0.0; 2]));
    w.tensor("deviation", Dtype::F32, &[2], floats(&[1.0, 2.0]));
    w.tensor("noise", Dtype::F32, &[2], floats(&[1.0; 2]));
    w.write(path).expect("the temporal model");
}

/// A fresh directory with the files that cases read, and the tables with their names filled in.
struct Fixture {
    dir: tempfile::TempDir,
    tables: Vec<PathBuf>,
}

impl Fixture {
    fn new(language: &str, with_engine: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).expect("a file");
        write_model(&at("model.gguf"));
        write_temporal(&at("temporal.safetensors"));
        let first = r#"{"feature":0,"density":0.01,"words":[["sea",3.0],["ships",2.0]]}"#;
        write("explanations.jsonl", &format!("{first}\n{{\"feature\":1,\"words\":[[\"tax\",1.5]]}}\n"));
        write("broken.jsonl", "{\"feature\": x}\n");
        let rows: Vec<u8> = [1f32, -2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        npy::write(&at("rows.npy"), Dtype::F32, &[2, 2], rows).expect("rows");
        write("pairs.tsv", "capital\tFrance\tParis\ncapital\tSpain\tMadrid\nplural\tcat\tcats\nplural\tdog\tdogs\n");
        write("text.txt", &"The ships sailed over the sea to the harbour, and the sailors sang. ".repeat(8));
        let model = if with_engine { support::model(support::SMOLLM) } else { None };
        let mut tables = Vec::new();
        for name in ["cases.tsv", "engine.tsv"] {
            let text = fs::read_to_string(root().join("tests/abi").join(name)).expect("a table");
            let text = text.replace("$DIR", &dir.path().display().to_string()).replace("$LANG", language);
            let text = text.replace("$VERSION", env!("CARGO_PKG_VERSION"));
            match &model {
                Some(path) => {
                    let shipped = root().join("examples/smollm2-135m-l19");
                    let text = text.replace("$MODEL", &path.display().to_string());
                    let text = text.replace("$DICTIONARY", &shipped.with_extension("gguf").display().to_string());
                    write(name, &text.replace("$EXPLANATIONS", &shipped.with_extension("jsonl").display().to_string()));
                }
                None if name == "engine.tsv" => continue,
                None => write(name, &text),
            }
            tables.push(at(name));
        }
        Self { dir, tables }
    }
}

fn engine_define() -> &'static [&'static str] {
    if ENGINE { &["-DTILLER_ENGINE"] } else { &[] }
}

#[test]
fn c() {
    let (library, fixture) = (library::library(), Fixture::new("c", ENGINE));
    let program = fixture.dir.path().join("runner");
    compile(&root().join("tests/abi/runner.c"), &program, &library, engine_define());
    let _turn = support::turn();
    print!("{}", run(Command::new(&program).args(&fixture.tables), ""));
}

#[test]
fn cpp() {
    let (library, fixture) = (library::library(), Fixture::new("cpp", ENGINE));
    let program = fixture.dir.path().join("runner");
    compile(&root().join("tests/abi/runner.cpp"), &program, &library, engine_define());
    let _turn = support::turn();
    print!("{}", run(Command::new(&program).args(&fixture.tables), ""));
}

/// With the garbage collector run before every handle is used.
#[test]
fn go() {
    let (library, fixture) = (library::library(), Fixture::new("go", ENGINE));
    let program = fixture.dir.path().join("runner");
    let tags = if ENGINE { "tiller_gc" } else { "tiller_gc,tiller_guest" };
    let mut go = Command::new("go");
    go.args(["build", "-tags", tags, "-o"]).arg(&program).current_dir(root().join("tests/abi/go"));
    go.env("CGO_LDFLAGS", format!("-L{0} -Wl,-rpath,{0}", library.display())).env("GOFLAGS", "-mod=mod");
    run(&mut go, "go");
    let _turn = support::turn();
    print!("{}", run(Command::new(&program).args(&fixture.tables), ""));
}

/// No invalid read or write, no use of what was never written, nothing lost. On a build for any processor, without the
/// engine: valgrind doesn't know all instructions of this one, and a model would take it an hour.
#[test]
#[cfg_attr(not(feature = "engine"), ignore = "long, and the same with the engine")]
fn c_under_valgrind() {
    let (library, fixture) = (plain_library(), Fixture::new("c", false));
    let program = fixture.dir.path().join("runner");
    compile(&root().join("tests/abi/runner.c"), &program, &library, &[]);
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible"]);
    valgrind.args(["--errors-for-leak-kinds=definite,indirect,possible", "--error-exitcode=9"]);
    valgrind.arg(format!("--suppressions={}", root().join("tests/abi/valgrind.supp").display()));
    print!("{}", run(valgrind.arg(&program).args(&fixture.tables), "valgrind"));
}
