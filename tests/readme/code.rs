//! The C, C++ and Go of the pages compile against the headers and the package as they are.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::library::run;
use crate::pages::{Block, blocks, file, root};

/// Hands a source to a compiler, which only looks at it. llama.cpp's headers are those of `tests/abi`.
fn look(compiler: &str, options: &[&str], source: &Path) {
    let mut command = Command::new(compiler);
    command.args(options).args(["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-DTILLER_ENGINE"]);
    command.arg("-I").arg(root().join("include")).arg("-I").arg(root().join("tests/abi/llama_today"));
    run(command.arg(source), "a C++ compiler");
}

/// Each block of `language` inside of `before` and `after`, as a file.
fn each(language: &str, (before, after): (&str, &str), ending: &str, then: &dyn Fn(&Path)) {
    let dir = tempfile::tempdir().expect("a directory");
    let all: Vec<Block> = blocks(language);
    assert!(!all.is_empty(), "no block of {language}");
    for block in all {
        println!("{}", block.place);
        let path = dir.path().join(format!("page.{ending}"));
        fs::write(&path, format!("{before}{}{after}", block.code)).expect("a file");
        then(&path);
    }
}

/// What stands around a block of C: a model, and the parameters of a context.
const C: &str = r#"#include <stdio.h>
#include "llama.h"
#include "tiller_llama.h"
struct llama_context *llama_init_from_model(struct llama_model *model, struct llama_context_params params);
void page(struct llama_model *model, struct llama_context_params context_params);
void page(struct llama_model *model, struct llama_context_params context_params) {
    (void) model, (void) context_params;
"#;

#[test]
fn c_compiles() {
    each("c", (C, "}\n"), "c", &|source| look("cc", &["-std=c11"], source));
}

#[test]
fn cpp_compiles() {
    let before = "#include \"tiller.hpp\"\nvoid page();\nvoid page() {\n";
    each("cpp", (before, "}\n"), "cpp", &|source| look("c++", &["-std=c++17"], source));
}

/// What stands around a block of Go.
#[cfg(feature = "engine")]
const GO: &str = r#"package main

import (
	"fmt"
	"tiller"
)

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
"#;

#[cfg(feature = "engine")]
#[test]
fn go_compiles() {
    let library = crate::library::library();
    each("go", (GO, "}\n"), "go", &|source| {
        let directory = source.parent().expect("a directory");
        let package = root().join("bindings/go");
        let module =
            format!("module page\n\ngo 1.19\n\nrequire tiller v0.0.0\n\nreplace tiller => {}\n", package.display());
        fs::write(directory.join("go.mod"), module).expect("a file");
        let mut go = Command::new("go");
        // The tags are those of `tests/conformance.rs`, so that the package is compiled once.
        go.args(["build", "-tags", "tiller_gc", "-o", "page", "page.go"]).current_dir(directory);
        go.env("CGO_LDFLAGS", format!("-L{0} -Wl,-rpath,{0}", library.display())).env("GOFLAGS", "-mod=mod");
        run(&mut go, "go");
    });
}

/// rustdoc finds the Rust of the pages that `src/lib.rs` names.
#[test]
fn rust_is_compiled_by_rustdoc() {
    let source = file("src/lib.rs");
    let all = blocks("rust");
    assert!(!all.is_empty(), "no block of rust");
    for block in all {
        let (page, _) = block.place.split_once(':').expect("a place");
        assert!(source.contains(&format!("include_str!(\"../{page}\")")), "src/lib.rs does not name {page}");
    }
}
