//! The release library, as programs of other languages link it.
#![allow(dead_code)] // Each test binary uses a part.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the package.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The tree that this test was built in.
pub(crate) fn target_directory() -> PathBuf {
    env::current_exe().expect("this test").ancestors().nth(3).expect("target/PROFILE/deps/this").to_owned()
}

/// The directory of the release library that cargo built along with this test, with the same features.
pub(crate) fn library() -> PathBuf {
    target_directory().join("release/deps")
}

/// The directory of a guest library for valgrind, which doesn't know all instructions of this processor, and takes the
/// optimizer's early look at a field that the taken branch ignores for the use of an uninitialised value.
pub(crate) fn plain_library() -> PathBuf {
    let target = target_directory().join("plain");
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--release", "--lib", "--quiet", "--no-default-features", "--target-dir"]).arg(&target);
    build.current_dir(root()).env("RUSTFLAGS", "").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = build.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").status();
    assert!(status.expect("cargo").success(), "the library does not build");
    target.join("release")
}

/// Runs a program; its output, if it succeeds. What is missing is said as a name to install.
pub(crate) fn run(command: &mut Command, install: &str) -> String {
    // Cargo sets it for tests; it would go before the path that the program was linked with.
    let output = command.env_remove("LD_LIBRARY_PATH").output();
    let output = output.unwrap_or_else(|e| panic!("{:?}: {e}; install {install}", command.get_program()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out
}

/// Compiles a C or C++ program against the library in `library`.
pub(crate) fn compile(source: &Path, program: &Path, library: &Path, more: &[&str]) {
    let cpp = source.extension() == Some(OsStr::new("cpp"));
    let (variable, default, standard) = if cpp { ("CXX", "c++", "-std=c++17") } else { ("CC", "cc", "-std=c11") };
    let mut compiler = Command::new(env::var_os(variable).unwrap_or_else(|| default.into()));
    compiler.args([standard, "-O1", "-g", "-pthread", "-Wall", "-Wextra", "-Werror"]);
    compiler.arg("-I").arg(root().join("include")).args(more).arg(source).arg("-o").arg(program);
    compiler.arg("-L").arg(library).arg("-ltiller").arg(format!("-Wl,-rpath,{}", library.display()));
    run(&mut compiler, "a C++ compiler");
}
