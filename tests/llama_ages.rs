//! `tiller_llama.h` compiles without a warning, in C and C++, against the headers of a llama.cpp of mid-2024, of early
//! 2025 and of today, and calls the functions that it has under the names of its time: found by the linker, or said by
//! `TILLER_LLAMA_API`. The headers are stubs with what the shim uses; behind them is a llama.cpp that computes nothing.

#[path = "support/library.rs"]
mod library;

use std::path::Path;
use std::process::Command;

use library::{library, root, run};

/// Compiles and runs `shim.c` on the stub of an age.
fn shim(age: &str, api: &str, language: &[&str; 3], said: bool, shared: bool) {
    let abi = root().join("tests/abi");
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let compiler = |name: &str, include: &[&Path]| {
        let mut compiler = Command::new(name);
        compiler.args(["-O1", "-Wall", "-Wextra", "-Werror", "-I"]).arg(abi.join(format!("llama_{age}")));
        compiler.args(include.iter().flat_map(|path| ["-I".as_ref(), path.as_os_str()]));
        compiler
    };
    let stub = at(if shared { "libllama.so" } else { "llama.o" });
    let mut cc = compiler("cc", &[]);
    cc.args(if shared { &["-shared", "-fPIC"][..] } else { &["-c"] }).arg(format!("-DAGE={api}"));
    run(cc.arg(abi.join("llama_stub.c")).arg("-o").arg(&stub), "a C compiler");
    let [name, standard, kind] = language;
    let mut cc = compiler(name, &[&root().join("include"), &abi]);
    cc.args([standard, "-x", kind]).arg(abi.join("shim.c")).args(["-x", "none"]);
    if said {
        cc.arg(format!("-DTILLER_LLAMA_API={api}"));
    }
    let (program, library) = (at("shim"), library());
    cc.arg(&stub).arg("-L").arg(&library).arg("-ltiller").arg("-o").arg(&program);
    for path in [&library, dir.path()] {
        cc.arg(format!("-Wl,-rpath,{}", path.display()));
    }
    run(&mut cc, "a C++ compiler");
    run(&mut Command::new(&program), "");
}

fn both_languages(age: &str, api: &str) {
    for language in [["cc", "-std=c11", "c"], ["c++", "-std=c++17", "c++"]] {
        shim(age, api, &language, true, true);
        if cfg!(all(unix, not(target_vendor = "apple"))) {
            shim(age, api, &language, false, true);
            shim(age, api, &language, false, false);
        }
    }
}

#[test]
fn of_mid_2024() {
    both_languages("2024", "2024");
}

#[test]
fn of_early_2025() {
    both_languages("2025", "2025");
}

#[test]
fn of_today() {
    both_languages("today", "2026");
}
