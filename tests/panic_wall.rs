//! A panic inside the *release* library reaches C as TILLER_E_PANIC with its place, and is not printed.
//!
//! The library has no entry for tests, so the panic is a real one: the program refuses every new thread, as a system does
//! that has no more of them, and the standard library panics when a batch is to be encoded on several.

#[path = "support/library.rs"]
mod library;

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
