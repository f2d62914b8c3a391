//! The engine on models that are wrong in one place each: it answers or says why not, and the process lives.
//!
//! The parent runs itself as a child with 4 GB of address space; the child opens one mutated model after the other,
//! generates a few tokens, and says before and after each which one it is. If a signal ends the child, the parent knows
//! the culprit and goes on behind it. TILLER_MUTATIONS sets how many mutations are tried, of some 100,000 that there
//! are; each number always means the same ones.
#![cfg(all(feature = "engine", target_os = "linux"))]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use tiller::engine::{Engine, Generate, Options};
use tiller::model::Model;

use support::mutate::{self, Mutation};
use support::tiny::{self, Tiny};

/// Mutations that are tried if TILLER_MUTATIONS does not say otherwise.
const DEFAULT: usize = 660;
/// Bytes in the header of each model are flipped so often.
const FLIPS: usize = 2_000;
/// Guards against a child that hangs; each mutation takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(300);
/// Says what a child does: the model, the number of mutations, the first.
const CHILD: &str = "TILLER_MUTATIONS_CHILD";

/// What still kills, with its cause in llama.cpp and why it cannot be seen before. There is nothing.
const KNOWN: &[&str] = &[];

fn mutations(name: &str, n: usize) -> Vec<Mutation> {
    let mut all = mutate::all(name, FLIPS);
    mutate::shuffle(&mut all, 7);
    all.truncate(n);
    all
}

#[test]
fn no_mutated_model_kills_the_process() {
    let total =
        std::env::var("TILLER_MUTATIONS").ok().map_or(DEFAULT, |n| n.parse().expect("TILLER_MUTATIONS: a number"));
    let each = total.div_ceil(tiny::NAMES.len());
    let (mut killed, mut sum) = (Vec::new(), BTreeMap::<String, usize>::new());
    for name in tiny::NAMES {
        let all = mutations(name, each);
        let mut counts = BTreeMap::<String, usize>::new();
        let mut from = 0;
        while from < all.len() {
            let (end, done) = child(name, each, from, &mut counts);
            let Some(end) = end else { break };
            let culprit = all.get(done).map_or("the model as it was", |m| &m.what);
            killed.push(format!("{name}: {culprit}: {end}"));
            from = done + 1;
        }
        println!("{name}: {} mutations: {counts:?}", all.len());
        counts.into_iter().for_each(|(how, n)| *sum.entry(how).or_default() += n);
    }
    println!("in all: {sum:?}, killed {}", killed.len());
    killed.retain(|k| !KNOWN.iter().any(|known| k.contains(known)));
    assert!(killed.is_empty(), "{} killed the process:\n{}", killed.len(), killed.join("\n"));
    assert!(sum["ran"] > 0 && sum["refused by the limits"] > 0 && sum["refused by the reader"] > 0, "{sum:?}");
}

/// Runs a child from mutation `from` on and counts how each went. Returns how the child died, if it did, and the number
/// of the mutation that it was at.
fn child(name: &str, n: usize, from: usize, counts: &mut BTreeMap<String, usize>) -> (Option<String>, usize) {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -v 4000000; ulimit -c 0; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "one_after_the_other", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{name} {n} {from}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child");
    let (stdout, mut stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let (send, receive) = channel();
    std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
    let said = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let (mut at, mut hung) = (from, false);
    loop {
        match receive.recv_timeout(PATIENCE) {
            Ok(line) => {
                if let Some(how) = line.strip_prefix("done ") {
                    *counts.entry(how.to_owned()).or_default() += 1;
                    at += 1;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                hung = true;
                let _ = child.kill();
            }
        }
    }
    let status = child.wait().expect("the child's end");
    let said = said.join().expect("what the child said");
    let why = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().to_owned();
    let end = if hung { "hangs".to_owned() } else { format!("{status}: {why}") };
    (Some(end).filter(|_| hung || !status.success()), at)
}

/// The child's part; in a run of all tests there is nothing to do.
#[test]
fn one_after_the_other() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let mut task = task.split(' ');
    let (name, n, from) =
        (task.next().expect("a name"), task.next().expect("a number"), task.next().expect("a number"));
    let (n, from): (usize, usize) = (n.parse().expect("a number"), from.parse().expect("a number"));
    let tiny = Tiny::new(name);
    let dir = tempfile::tempdir().expect("a directory");
    let path = tiny.write(dir.path(), "m.gguf");
    let expected = if name == "bert" { "refused as an encoder" } else { "ran" };
    assert_eq!(try_one(&path), expected, "{name} as it is");
    let mut out = std::io::stdout();
    writeln!(out).expect("a pipe");
    for mutation in mutations(name, n).iter().skip(from) {
        std::fs::write(&path, mutation.apply(&tiny)).expect("a file");
        writeln!(out, "done {}", try_one(&path)).and_then(|()| out.flush()).expect("a pipe");
    }
}

fn try_one(path: &Path) -> &'static str {
    let options = Options { threads: 1, context: 64, batch: 32, ..Options::default() };
    let mut engine = match Engine::open(path, &options) {
        Ok(engine) => engine,
        Err(error) => return by_whom(path, &error),
    };
    let request = Generate { max_tokens: 3, ignore_end: true, ..Generate::default() };
    match engine.generate("on the area Zq!", &request, &mut |_| true) {
        Ok(_) => "ran",
        Err(_) => "an error in decoding",
    }
}

/// Which check refused the file.
fn by_whom(path: &Path, error: &tiller::Error) -> &'static str {
    let Ok(model) = Model::open(path) else { return "refused by the reader" };
    match model.check_limits() {
        Err(_) => "refused by the limits",
        Ok(()) if error.message().contains("llama.cpp cannot") => "refused by llama.cpp",
        Ok(()) if model.is_encoder().unwrap_or(false) => "refused as an encoder",
        Ok(()) => "refused by the engine",
    }
}
