//! A panic inside the *release* library reaches C as TILLER_E_PANIC with its place, and is not printed.
//!
//! The library has no entry for tests, so the panic is a real one: the program refuses every new thread, as a system does
//! that has no more of them, and the standard library panics when a batch is to be encoded on several.

#[path = "support/library.rs"]
mod library;
#[cfg(feature = "engine")]
mod support;

use std::process::Command;

#[test]
fn a_panic_stops_at_the_wall() {
    let (library, dir) = (library::library(), tempfile::tempdir().expect("a directory"));
    let program = dir.path().join("panic_wall");
    library::compile(&library::root().join("tests/abi/panic_wall.c"), &program, &library, &[]);
    let output = Command::new(&program).env_remove("LD_LIBRARY_PATH").output().expect("the program");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    assert!(err.is_empty(), "the library printed: {err}");
    assert!(out.starts_with("internal error at "), "{out}");
    assert!(out.contains("thread"), "{out}");
}

/// The same of an assertion in llama.cpp, which is C: the release library gives it back as an error and starts no debugger.
#[cfg(feature = "engine")]
#[test]
fn a_failed_assertion_stops_at_the_wall() {
    let (library, dir) = (library::library(), tempfile::tempdir().expect("a directory"));
    let model = support::tiny::Tiny::new("llama").write(dir.path(), "tiny.gguf");
    let program = dir.path().join("no_threads");
    library::compile(&library::root().join("tests/abi/no_threads.c"), &program, &library, &[]);
    let output = Command::new(&program).arg(&model).env_remove("LD_LIBRARY_PATH").output().expect("the program");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if std::thread::available_parallelism().is_ok_and(|n| n.get() == 1) {
        eprintln!("SKIPPED: on one processor no second thread is asked for");
        return;
    }
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    assert!(err.is_empty(), "the library printed: {err}");
    assert!(
        out.contains("cannot start 2 threads: ggml-cpu.c:") && out.contains("GGML_ASSERT(rc == 0) failed"),
        "{out}"
    );
}
