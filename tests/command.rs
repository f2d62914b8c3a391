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

#[test]
fn labels_of_counterparts_go_to_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let there = explanations(dir.path());
    let before = std::fs::read_to_string(&there).unwrap();
    let files = ["eval", "universality", "a.gguf", "a.sae", "b.gguf", "b.sae", "--text", "t.txt"];
    let with = |more: &[&'static str]| files.iter().chain(more).copied().collect::<Vec<&str>>();
    let error = fails(&[&files[..], &["--labels", &there]].concat(), 2);
    assert!(error.contains("expected a new file"), "{error}");
    assert_eq!(std::fs::read_to_string(&there).unwrap(), before);
    assert!(fails(&with(&["--explanations", "e.jsonl"]), 2).contains("--labels"));
    assert!(fails(&with(&["--layers", "3"]), 2).contains("--layers"));
    assert!(fails(&with(&["--max-tokens", "1"]), 2).contains("max_tokens: expected 3"));
    assert!(fails(&with(&[]), 1).contains("a.sae"));
    assert!(fails(&files[..6], 2).contains("--text"));
}

#[test]
fn evaluators_refuse_what_they_cannot_measure() {
    let quality = ["eval", "quality", "d.gguf", "m.gguf", "--text", "t.txt"];
    assert!(fails(&quality[..4], 2).contains("--text"));
    assert!(fails(&[&quality[..], &["--words", "3"]].concat(), 2).contains("words: expected 0, or 100"));
    assert!(fails(&[&quality[..], &["--label", "topic"]].concat(), 2).contains("--labelled"));
    assert!(fails(&quality, 1).contains("m.gguf"));
    let consistency = ["eval", "consistency", "m.gguf", "--dictionary", "d.gguf"];
    assert!(fails(&consistency[..3], 2).contains("--dictionary"));
    assert!(fails(&[&consistency[..], &["--layer", "3"]].concat(), 2).contains("--layer"));
    assert!(fails(&[&consistency[..], &["--strengths", "1,-2"]].concat(), 2).contains("strengths: expected more"));
    assert!(fails(&consistency, 1).contains("m.gguf"));
    let explained = ["eval", "explained", "d.gguf", "--model", "m.gguf", "--rows", "r", "--held-out", "h"];
    assert!(fails(&explained[..7], 2).contains("--held-out"));
    assert!(fails(&[&explained[..], &["--features", "0"]].concat(), 2).contains("features: expected 1"));
    assert!(fails(&explained, 1).contains("m.gguf"));
}

#[test]
fn explanations_of_another_dictionary_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.jsonl").to_str().unwrap().to_owned();
    let dictionary = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/smollm2-135m-l19.gguf");
    for (n, layer, says) in
        [(9, 19, "explanations of 9 features, but the dictionary has 4814"), (4814, 3, "of layer 3")]
    {
        let header = format!(
            r#"{{"kind":"tiller.explanations","version":1,"estimator":"data","n_features":{n},"layer":{layer}}}"#
        );
        std::fs::write(&path, format!("{header}\n{}\n", r#"{"feature":3,"words":[["war",0.5]]}"#)).unwrap();
        let args = ["plan", "--dictionary", dictionary, "--explanations", &path, "--words", "war", "--strength", "1"];
        assert!(fails(&args, 1).contains(says), "{n} {layer}");
    }
}

/// Feature 3 pushes feature 9, feature 5 pushes feature 6; only 3 and 9 have words.
#[test]
fn relations_of_features_without_words_can_be_left_out() {
    use tiller::train::temporal::{Process, Sequences, Shape, TwoStageOptions, two_stage};
    let dir = tempfile::tempdir().unwrap();
    let explanations = explanations(dir.path());
    let mut codes = Process::new(Shape { n_latents: 10, lags: 1, seed: 1 }).unwrap().latents(20_000);
    let before = codes.clone();
    for (row, before) in codes.chunks_exact_mut(10).skip(1).zip(before.chunks_exact(10)) {
        row[9] += 3.0 * before[3];
        row[6] += 3.0 * before[5];
    }
    let codes = Sequences::from_rows(10, codes, &[0, 20_000]).unwrap().as_codes();
    let options = TwoStageOptions { lags: 1, ..TwoStageOptions::default() };
    let model = dir.path().join("t.safetensors");
    two_stage(&codes, &options, &mut tiller::progress::silent).unwrap().save(&model).unwrap();
    let relations = |more: &[&str]| -> Vec<(u64, u64)> {
        let args = ["--json", "relations", model.to_str().unwrap(), "--explanations", &explanations, "-n", "1000"];
        let output = tiller(&[&args, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| (line["from"].as_u64().unwrap(), line["to"].as_u64().unwrap())).collect()
    };
    let (all, explained) = (relations(&[]), relations(&["--explained"]));
    assert!(all.contains(&(5, 6)) && all.contains(&(3, 9)), "{all:?}");
    let expected = |pair: &&(u64, u64)| [3, 9].contains(&pair.0) && [3, 9].contains(&pair.1);
    assert_eq!(explained, all.iter().filter(expected).copied().collect::<Vec<_>>());
    let model = model.to_str().unwrap();
    assert!(fails(&["relations", model, "--explained"], 2).contains("--explanations"));
}

/// Rows of NumPy in; a control vector, a probe and coders out, which the library opens again.
#[test]
fn vectors_probes_and_coders_from_arrays() {
    use tiller::file::{Dtype, npy};
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let rows = |shift: f32| -> Vec<u8> {
        let value = |i: u32| {
            (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 4096.0 + if i.is_multiple_of(4) { shift } else { 0.0 }
        };
        (0..400).flat_map(|i| value(i).to_le_bytes()).collect()
    };
    npy::write(at("up.npy").as_ref(), Dtype::F32, &[100, 4], rows(3.0)).unwrap();
    npy::write(at("down.npy").as_ref(), Dtype::F32, &[100, 4], rows(0.0)).unwrap();
    let (up, down) = (at("up.npy"), at("down.npy"));
    let run = |args: &[&str]| -> serde_json::Value {
        let output = tiller(&[&["--json", "train"][..], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let pair = ["--positive", &up, "--negative", &down];

    let vector = at("v.gguf");
    let told = run(&[&["vector"][..], &pair[..], &["--method", "pca", "--layer", "3", "--out", &vector]].concat());
    assert_eq!((told["agreement"].as_f64(), told["layer"].as_u64()), (Some(1.0), Some(3)));
    let found = tiller::plan::ControlVector::open(vector.as_ref()).unwrap();
    assert!((found.directions()[&3][0] - 1.0).abs() < 1e-5);
    let error = fails(&[&["train", "vector"][..], &pair[..], &["--out", &vector]].concat(), 2);
    assert!(error.contains("--layer"), "{error}");

    let probe = at("p.safetensors");
    let told = run(&[&["probe"][..], &pair[..], &["-k", "1", "--out", &probe]].concat());
    assert_eq!((&told["test"]["accuracy"], &told["features"]), (&1.0.into(), &serde_json::json!([0])));
    let weights = tiller::train::probe::Probe::open(probe.as_ref()).unwrap().weights;
    assert!(weights[0] > 0.0 && weights[1..] == [0.0; 3], "{weights:?}");

    let (coder, dictionary) = (at("c.safetensors"), at("c.gguf"));
    let small = ["--latents", "16", "--steps", "5", "--threads", "1"];
    let args = ["conca", &up, "--regularizer", "group_norm:4", "--sparsity", "elu", "--dictionary", &dictionary];
    run(&[&args[..], &small[..], &["--out", &coder]].concat());
    assert_eq!(tiller::train::dense::Coder::open(coder.as_ref()).unwrap().n_latents(), 16);
    assert_eq!(tiller::dictionary::Dictionary::open(dictionary.as_ref()).unwrap().n_features(), 16);
    run(&[&["ssae"][..], &pair[..], &small[..], &["--out", &coder]].concat());
    assert!(tiller::train::dense::Coder::open(coder.as_ref()).unwrap().codes_differences());
}
