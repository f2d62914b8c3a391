//! The command accepts what the pages tell people to type. No model is there and nothing is fetched: what a command line
//! asks for fails for want of files, but the line itself is not wrong, which would be exit code 2.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use crate::pages::{self, Block, blocks, file, root};

/// What the command says, in an empty directory with nothing else to run.
fn tiller(directory: &Path, args: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiller"));
    command.args(args).current_dir(directory).env_clear().env("HOME", directory).env("PATH", directory);
    command.output().expect("the command runs")
}

fn help(args: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let args: Vec<String> = args.iter().chain(&["--help"]).map(|&arg| arg.to_owned()).collect();
    String::from_utf8(tiller(dir.path(), &args).stdout).expect("UTF-8")
}

/// The subcommands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let (_, rest) = help.split_once("\nCommands:\n").expect("commands");
    let lines = rest.lines().take_while(|line| line.starts_with("  "));
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|&name| name != "help").map(str::to_owned).collect()
}

/// Every command: those of `train`, `eval` and `guard` one by one.
fn commands() -> BTreeSet<String> {
    let nested = |name: &str| listed(&help(&[name])).into_iter().map(|sub| format!("{name} {sub}")).collect();
    let all = listed(&help(&[]));
    assert!(all.len() > 10, "{all:?}");
    all.into_iter()
        .flat_map(|name| if ["train", "eval", "guard"].contains(&name.as_str()) { nested(&name) } else { vec![name] })
        .collect()
}

/// The words of a line of a shell script: up to a comment, a pipe or a redirection.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#' | '>' | '|') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The command lines of a block, those that go on in the next line put together.
fn lines(block: &Block) -> Vec<Vec<String>> {
    block.code.replace("\\\n", " ").lines().map(words).filter(|words| !words.is_empty()).collect()
}

#[test]
fn command_lines_of_blocks_are_accepted() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut n = 0;
    for block in blocks("sh") {
        for line in lines(&block) {
            let (place, program, args) = (&block.place, line[0].as_str(), &line[1..]);
            match program {
                "tiller" => {
                    n += 1;
                    // Benches that need no model would run.
                    let looks = args[0] == "bench";
                    let args = if looks { [args, &["--help".to_owned()]].concat() } else { args.to_vec() };
                    let output = tiller(dir.path(), &args);
                    let error = String::from_utf8_lossy(&output.stderr).into_owned();
                    let code = output.status.code();
                    assert!(
                        if looks { code == Some(0) } else { code == Some(1) },
                        "{place}: {line:?}: {code:?} {error}"
                    );
                }
                "cargo" => {
                    let after = |flag| args.iter().position(|arg| arg == flag).map(|at| args[at + 1].as_str());
                    if let Some(test) = after("--test") {
                        let places = [format!("tests/{test}.rs"), format!("tests/{test}/main.rs")];
                        assert!(places.iter().any(|place| root().join(place).is_file()), "{place}: no test {test}");
                    }
                }
                script if script.starts_with("./") => {
                    assert!(root().join(script).is_file(), "{place}: {script} is not there");
                }
                other => assert_eq!(other, "grep", "{place}: what is this?"),
            }
        }
    }
    assert!(n > 30, "{n} command lines");
}

#[test]
fn commands_and_flags_between_backticks_are_known() {
    let known = commands();
    let mut flags: BTreeSet<String> = ["--no-default-features".to_owned()].into();
    for name in &known {
        let help = help(&name.split(' ').collect::<Vec<_>>());
        let names = help.split_whitespace().filter(|word| word.starts_with("--"));
        flags.extend(names.map(|word| word.split(['[', '=', ',']).next().unwrap_or(word).to_owned()));
    }
    let dir = tempfile::tempdir().expect("a directory");
    for page in pages::all() {
        for span in page.spans() {
            let mut args = words(&span);
            if span.starts_with("--") {
                assert!(flags.contains(&args[0]), "{}: {span}: no such flag", page.name);
            } else if args.first().is_some_and(|program| program == "tiller") && args.len() > 1 {
                args.remove(0);
                args.iter_mut().filter(|arg| *arg == "N").for_each(|arg| *arg = "1".into());
                args.push("--help".into());
                let output = tiller(dir.path(), &args);
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                // A flag may stand for itself, without its value.
                let known = output.status.success() || error.contains("a value is required");
                assert!(known, "{}: {span}: {error}", page.name);
            }
        }
    }
}

#[test]
fn every_command_stands_in_its_table() {
    let page = file("examples/command.md");
    let rows = page.lines().filter(|line| line.starts_with("| `tiller"));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    let names: BTreeSet<String> = names.filter_map(|name| name.strip_prefix("tiller ")).map(str::to_owned).collect();
    assert_eq!(names, commands());
}
