//! The command's manners: exit codes, one line of error and one of hint, JSON for machines. No model is needed.

#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};

fn tiller(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tiller")).args(args).output().expect("the command runs")
}

/// Standard error of a call that has to fail with `code`: exactly an error and a hint.
fn fails(args: &[&str], code: i32) -> String {
    let output = tiller(args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{args:?}: {error}");
    assert!(lines[0].starts_with("error: ") && lines[1].starts_with("hint: "), "{args:?}: {error}");
    error
}

fn explanations(dir: &Path) -> String {
    let path = dir.join("e.jsonl");
    let text = r#"{"feature":3,"density":0.01,"mean":2.0,"words":[["war",0.5],["army",0.4]]}
{"feature":9,"density":0.02,"label":"the sea","words":[["ship",0.3],["sea",0.2]]}
"#;
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    assert!(fails(&["plan", "--nonsense"], 2).contains("--nonsense"));
    assert!(fails(&["harvest"], 2).contains("required arguments"));
    assert!(fails(&["plan"], 2).contains("--words"));
    assert!(fails(&["bench", "--what", "overhead"], 2).contains("--model"));
    assert_eq!(tiller(&[]).status.code(), Some(2));
}

#[test]
fn work_that_fails_exits_with_1() {
    assert!(fails(&["info", "/nonexistent/model.gguf"], 1).contains("/nonexistent/model.gguf: cannot open"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("noise");
    std::fs::write(&path, "neither fish nor flesh").unwrap();
    assert!(fails(&["info", path.to_str().unwrap()], 1).contains("found none of them"));
}

#[test]
fn help_and_version_succeed() {
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["bench", "--help"]] {
        let output = tiller(args);
        assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn features_are_found_and_become_a_plan_that_passes_its_check() {
    let dir = tempfile::tempdir().unwrap();
    let explanations = explanations(dir.path());
    let found = tiller(&["--json", "find", &explanations, "army", "war"]);
    assert!(found.status.success());
    let line: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((&line["feature"], &line["mean"]), (&3.into(), &2.0.into()));
    let table = String::from_utf8(tiller(&["find", &explanations, "--label", "sea"]).stdout).unwrap();
    assert!(table.contains("[the sea] ship sea"), "{table}");

    let plan = dir.path().join("p.json");
    let plan = plan.to_str().unwrap();
    let made = tiller(&["plan", "--explanations", &explanations, "--words", "war army", "--strength", "3", "-o", plan]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = std::fs::read_to_string(plan).unwrap();
    assert!(text.contains("\"min_clamp\"") && text.contains("\"activation\""), "{text}");
    let checked = tiller(&["--json", "plan", "check", plan]);
    let line: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((&line["valid"], &line["rules"]), (&true.into(), &1.into()));
    assert!(String::from_utf8(tiller(&["plan", "show", plan]).stdout).unwrap().contains("min_clamp"));
    assert!(String::from_utf8(tiller(&["info", plan]).stdout).unwrap().contains("plan"));
    let info = String::from_utf8(tiller(&["info", &explanations]).stdout).unwrap();
    assert!(info.contains("explanations") && info.contains("data"), "{info}");

    std::fs::write(plan, "{\"version\": 1, \"rules\": [{\"op\": \"push\"}]}").unwrap();
    assert!(fails(&["plan", "check", plan], 1).contains("push"));
}
