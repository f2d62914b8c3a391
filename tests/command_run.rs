//! What the command does when something goes wrong in the middle of its work, and what it sends to a terminal. On tiny models.
#![cfg(all(feature = "cli", feature = "engine"))]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::tiny::Tiny;

/// Runs the command in `dir`, where the model is `tiny.gguf`.
fn tiller(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiller"));
    // What is kept of one test is no other's.
    command.args(args).current_dir(dir).env("XDG_CACHE_HOME", dir).output().expect("the command runs")
}

fn tiny(dir: &Path) {
    Tiny::new("llama").write(dir, "tiny.gguf");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const RUN: [&str; 6] = ["run", "tiny.gguf", "--threads", "1", "--context", "64"];

fn run(dir: &Path, more: &[&str]) -> Output {
    tiller(dir, &[&RUN[..], more].concat())
}

#[test]
fn a_full_context_ends_the_text_and_not_the_command() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let plain = run(dir.path(), &["--prompt", "the sea", "--max-tokens", "500"]);
    assert_eq!(plain.status.code(), Some(0), "{plain:?}");
    assert!(plain.stdout.len() > 20);
    let told = text(&plain.stderr);
    assert!(told.contains("the context of 64 tokens is full") && told.contains("--context"), "{told}");

    let json = run(dir.path(), &["--prompt", "the sea", "--max-tokens", "500", "--json"]);
    let made = &lines(&json)[0];
    assert_eq!((json.status.code(), &made["stop"]), (Some(0), &Value::from("context")));
    assert!(made["tokens"].as_u64().unwrap() > 30 && !made["text"].as_str().unwrap().is_empty());
    let short = run(dir.path(), &["--prompt", "the sea", "--max-tokens", "5", "--json"]);
    assert_ne!(lines(&short)[0]["stop"], "context");
    assert!(short.stderr.is_empty(), "{}", text(&short.stderr));

    let (one, other) = ("the sea", "in the ".repeat(6));
    std::fs::write(dir.path().join("p.jsonl"), format!("{{\"text\":\"{one}\"}}\n{{\"text\":\"{other}\"}}\n")).unwrap();
    let many = run(dir.path(), &["--prompts", "p.jsonl", "--max-tokens", "500"]);
    assert_eq!((many.status.code(), lines(&many).len()), (Some(0), 2), "{}", text(&many.stderr));
    assert!(lines(&many).iter().all(|made| made["stop"] == "context" && made["text"].as_str().unwrap().len() > 20));
}

#[test]
fn json_tells_what_the_plan_did_to_how_many_rows() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let vector = vec![0.5; support::tiny::D as usize];
    let plan = serde_json::json!({"version": 1, "rules": [
        {"op": "add", "layer": 0, "vector": vector, "strength": 1, "select": {"phase": "generated"}},
    ]});
    std::fs::write(dir.path().join("plan.json"), plan.to_string()).unwrap();
    let json = run(dir.path(), &["--prompt", "the sea", "--plan", "plan.json", "--max-tokens", "5", "--json"]);
    assert_eq!(json.status.code(), Some(0), "{}", text(&json.stderr));
    let made = &lines(&json)[0];
    let (n, ledger) = (made["tokens"].as_u64().unwrap(), &made["ledger"]);
    // The last token is drawn, and not computed.
    assert_eq!((n, ledger["rows_edited"].as_u64()), (5, Some(n - 1)), "{ledger}");
    assert!(ledger["rows_not_needed"].as_u64().unwrap() > 0, "the prompt: {ledger}");
    assert_eq!((&ledger["rows_refused"], &ledger["faults"]), (&0.into(), &serde_json::json!([])));
    let rule = &ledger["rules"][0];
    assert_eq!(
        (rule["rows"].as_u64(), &rule["mean_code"], &rule["unjudged"]),
        (Some(n - 1), &Value::Null, &serde_json::json!({}))
    );
    assert!(rule["relative_size"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_long_prompt_is_refused_with_its_length_and_the_flag_that_helps() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let long = "in the ".repeat(60);
    let refused = run(dir.path(), &["--prompt", &long, "--max-tokens", "5"]);
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{told}");
    let hint = told.lines().find(|line| line.starts_with("hint: ")).unwrap();
    assert!(told.contains("tokens, but the context holds 64") && hint.contains("--context "), "{told}");
    let wanted = hint.rsplit(' ').next().unwrap();
    let larger = tiller(
        dir.path(),
        &["run", "tiny.gguf", "--threads", "1", "--context", wanted, "--prompt", &long, "--max-tokens", "5"],
    );
    assert_eq!(larger.status.code(), Some(0), "the advice is good: {}", text(&larger.stderr));
    // Longer than the model was trained with is possible here, and said.
    let beyond = tiller(dir.path(), &["run", "tiny.gguf", "--context", "256", "--prompt", "a", "--max-tokens", "1"]);
    assert!(text(&beyond.stderr).contains("trained with 128"), "{}", text(&beyond.stderr));
}

#[test]
fn documents_that_cannot_be_read_are_named_counted_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    // The model has no chat template; the fourth is longer than the context; the fifth is no document.
    let chat = r#"{"messages":[{"role":"user","content":"hello"}]}"#;
    let long = "in the ".repeat(60);
    let all =
        format!("{{\"text\":\"the sea\"}}\n{chat}\n{{\"text\":\"on a\"}}\n{{\"text\":\"{long}\"}}\n{{\"text\":7}}\n");
    std::fs::write(dir.path().join("some.jsonl"), all).unwrap();
    std::fs::write(dir.path().join("none.jsonl"), format!("{chat}\n{chat}\n")).unwrap();

    let made = run(dir.path(), &["--prompts", "some.jsonl", "--max-tokens", "3"]);
    let told = text(&made.stderr);
    assert_eq!((made.status.code(), lines(&made).len()), (Some(0), 2), "{told}");
    for part in ["some.jsonl:2: ", "some.jsonl:4: ", "some.jsonl:5:", "3 of 5 documents are left out"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let strict = run(dir.path(), &["--prompts", "some.jsonl", "--max-tokens", "3", "--strict"]);
    assert!(!strict.status.success() && strict.stdout.is_empty());
    assert!(text(&strict.stderr).contains("error: some.jsonl:5:"), "{}", text(&strict.stderr));
    let none = run(dir.path(), &["--prompts", "none.jsonl"]);
    assert!(!none.status.success() && none.stdout.is_empty(), "nothing is no success");

    let harvest = |file: &str, out: &str, more: &[&str]| {
        let args = ["harvest", "tiny.gguf", "--text", file, "--layer", "0", "--out", out, "--threads", "1", "--json"];
        tiller(dir.path(), &[&args[..], more].concat())
    };
    let made = harvest("some.jsonl", "rows", &[]);
    assert_eq!((made.status.code(), &lines(&made)[0]["documents"]), (Some(0), &Value::from(3)));
    assert!(text(&made.stderr).contains("2 of 5 documents are left out"), "{}", text(&made.stderr));
    assert_eq!(harvest("some.jsonl", "strict", &["--strict"]).status.code(), Some(1));
    assert_eq!(harvest("none.jsonl", "none", &[]).status.code(), Some(1));
}

#[test]
fn a_budget_of_tokens_is_kept_inside_one_long_document() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    std::fs::write(dir.path().join("book.txt"), "in the sea ".repeat(5000)).unwrap();
    let shared =
        ["--text", "book.txt", "--layer", "0", "--context", "64", "--max-tokens", "1000", "--threads", "1", "--json"];
    let harvest = tiller(dir.path(), &[&["harvest", "tiny.gguf", "--out", "rows"], &shared[..]].concat());
    let tokens = lines(&harvest)[0]["tokens"].as_u64().unwrap();
    assert!((1000..1064).contains(&tokens), "{tokens}");
    let train =
        ["train", "sae", "--model", "tiny.gguf", "--out", "s.gguf", "--features", "8", "--k", "2", "--epochs", "1"];
    let train = tiller(dir.path(), &[&train[..], &["--held-out", "0", "--batch", "64"], &shared[..]].concat());
    let rows = lines(&train)[0]["rows"].as_u64().unwrap();
    assert!((900..1064).contains(&rows), "{rows}: {}", text(&train.stderr));
}

/// Ctrl-C keeps the rows so far and says how to go on, and going on works.
#[test]
#[cfg(unix)]
fn ctrl_c_keeps_rows_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    // So much text that the harvest cannot end by itself before the signal comes.
    std::fs::write(dir.path().join("long.txt"), "in the sea ".repeat(300_000)).unwrap();
    let args = ["harvest", "tiny.gguf", "--text", "long.txt", "--layer", "0", "--out", "rows", "--threads", "1"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiller"));
    command.args(args).current_dir(dir.path()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    while !dir.path().join("rows").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    let told = text(&ended.stderr);
    assert!(killed.success() && ended.status.code() == Some(1), "{told}");
    assert!(told.contains("hint: the rows so far are kept") && told.contains("--resume"), "{told}");
    let meta = std::fs::read_to_string(dir.path().join("rows/meta.json")).unwrap();
    let before = serde_json::from_str::<Value>(&meta).unwrap()["n_rows"].as_u64().unwrap();
    let wanted = (before + 700).to_string();
    let on = tiller(dir.path(), &[&args[..], &["--resume", "--max-tokens", &wanted, "--json"]].concat());
    let made = &lines(&on)[0];
    assert!(made["rows"].as_u64().unwrap() >= before + 700, "{made}");
    assert_eq!(made["rows"].as_u64().unwrap() - made["tokens"].as_u64().unwrap(), before, "no row is computed twice");
}

#[test]
fn words_that_a_dictionary_has_nothing_for_stop_find_and_run_alike() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let words = [
        "{\"feature\":3,\"mean\":1.0,\"words\":[[\"sea\",0.5],[\"ocean\",0.4],[\"the\",0.3]]}",
        "{\"feature\":5,\"words\":[[\"war\",0.5]]}",
    ];
    std::fs::write(dir.path().join("s.jsonl"), words.join("\n")).unwrap();
    std::fs::write(dir.path().join("book.txt"), "in the sea on a day ".repeat(400)).unwrap();
    let train = ["train", "sae", "--model", "tiny.gguf", "--text", "book.txt", "--layer", "0", "--out", "s.gguf"];
    let small = ["--features", "8", "--k", "2", "--epochs", "1", "--held-out", "0", "--batch", "64", "--threads", "1"];
    let trained = tiller(dir.path(), &[&train[..], &small].concat());
    assert!(trained.status.success(), "{}", text(&trained.stderr));

    let steer = |words: &str, more: &[&str]| {
        let args = ["--prompt", "the sea", "--max-tokens", "5", "--dictionary", "s.gguf", "--words", words];
        run(dir.path(), &[&args, more].concat())
    };
    let line = |output: &Output| text(&output.stderr).lines().find(|l| l.starts_with("error: ")).map(str::to_owned);
    let (found, ran) = (tiller(dir.path(), &["find", "s.jsonl", "dinosaurs"]), steer("dinosaurs", &[]));
    assert!(!found.status.success() && !ran.status.success());
    assert!(line(&found).is_some() && line(&found) == line(&ran), "{:?} {:?}", line(&found), line(&ran));
    assert!(
        text(&found.stderr).contains("hint: learn it: tiller learn MODEL \"Talk about dinosaurs in your answer.\""),
        "{found:?}"
    );
    assert!(
        text(&ran.stderr).contains("learn it: tiller learn tiny.gguf \"Talk about dinosaurs in your answer.\""),
        "{ran:?}"
    );

    let near = tiller(dir.path(), &["find", "s.jsonl", "the", "occean", "war", "--json"]);
    assert!(text(&near.stderr).contains("explained by occean; near it: ocean"), "{}", text(&near.stderr));
    assert_eq!(
        lines(&near).iter().map(|m| m["feature"].as_u64().unwrap()).collect::<Vec<_>>(),
        [5],
        "no stop word counts"
    );

    // An operator without a strength needs no search; the plan that is written down does the same.
    let ablated = steer("sea", &["--rank", "words", "--op", "ablate", "--save-plan", "p.json", "--json"]);
    assert!(ablated.status.success(), "{}", text(&ablated.stderr));
    let made = &lines(&ablated)[0];
    assert_eq!(made["steering"]["plan"]["rules"][0]["op"], "ablate");
    let again = ["--prompt", "the sea", "--max-tokens", "5", "--dictionary", "s.gguf", "--plan", "p.json", "--json"];
    let again = &lines(&run(dir.path(), &again))[0];
    assert_eq!(again["steering"]["fingerprint"], made["steering"]["fingerprint"]);
}

#[test]
fn a_feature_is_shown_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dictionary = support::shipped();
    let (file, words) = (dictionary.to_str().unwrap(), dictionary.with_extension("jsonl"));
    let shown =
        tiller(dir.path(), &["find", words.to_str().unwrap(), "--feature", "4294", "--dictionary", file, "--json"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let made = &lines(&shown)[0];
    assert_eq!(made["explanation"]["feature"], 4294);
    let near = made["neighbours"].as_array().unwrap();
    let cosines: Vec<f64> = near.iter().map(|n| n["cosine"].as_f64().unwrap()).collect();
    assert!(near.len() == 8 && cosines.is_sorted_by(|a, b| a >= b) && cosines[0] < 0.9999, "{cosines:?}");
    assert!(near.iter().all(|n| n["feature"] != 4294));
    let none = tiller(dir.path(), &["find", words.to_str().unwrap(), "--feature", "99999", "--dictionary", file]);
    assert!(!none.status.success() && text(&none.stderr).contains("feature 99999 does not exist"), "{none:?}");
}

/// Whether a terminal would take a character of `bytes` as a command.
fn steers(bytes: &[u8]) -> bool {
    text(bytes).chars().any(|c| (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c))
}

#[test]
fn names_from_files_do_not_steer_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let name = "tiny\u{1b}]0;owned\u{7}\u{1b}[31m\u{9b}2J\u{202e}gnp";
    Tiny::new("llama").with("general.name", name).write(dir.path(), "tiny.gguf");
    let info = tiller(dir.path(), &["info", "tiny.gguf"]);
    assert!(info.status.success() && !steers(&info.stdout), "{}", text(&info.stdout).escape_debug());
    assert!(text(&info.stdout).contains("\\u{1b}]0;owned"), "{}", text(&info.stdout));
    let json = tiller(dir.path(), &["info", "tiny.gguf", "--json"]);
    assert!(!steers(&json.stdout) && lines(&json)[0].to_string().contains(&*Value::from(name).to_string()));

    let label = format!("{{\"feature\":3,\"label\":{},\"words\":[[\"war\u{9b}\",0.5]]}}\n", Value::from(name));
    std::fs::write(dir.path().join("e.jsonl"), label).unwrap();
    let found = tiller(dir.path(), &["find", "e.jsonl", "--label", "owned"]);
    assert!(found.status.success() && !steers(&found.stdout), "{}", text(&found.stdout).escape_debug());
    let found = tiller(dir.path(), &["find", "e.jsonl", "--label", "owned", "--json"]);
    assert!(!steers(&found.stdout) && lines(&found)[0]["label"] == *name);

    for args in [&["info", "no\u{1b}[2Jfile"][..], &["plan", "--words", "w", "--rank", "\u{1b}c"], &["--\u{1b}[1m"]] {
        let failed = tiller(dir.path(), args);
        assert!(!failed.status.success() && !steers(&failed.stderr), "{}", text(&failed.stderr).escape_debug());
    }
}
