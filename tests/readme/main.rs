//! What the README and the pages say is so: their lines fit, their links lead somewhere, their JSON is read, their commands
//! are accepted, their C, C++ and Go compile. Their Rust is compiled by `cargo test --doc` (`src/lib.rs`).

mod code;
#[cfg(feature = "cli")]
mod command;
#[path = "../support/library.rs"]
mod library;
mod pages;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pages::{Page, blocks, file, root};
use tiller::explain::Explanations;
use tiller::plan::{Op, Plan};

/// Columns of a line; rows of tables cannot be broken.
const COLUMNS: usize = 120;
/// Lines of the README.
const LINES: usize = 150;
/// What a page may be written in. A fence without a language would be Rust to rustdoc.
const LANGUAGES: [&str; 7] = ["sh", "text", "json", "c", "cpp", "go", "rust"];

#[test]
fn lines_fit() {
    for page in pages::all() {
        for (number, line) in (1..).zip(page.text.lines()) {
            let fits = line.starts_with('|') || line.chars().count() <= COLUMNS;
            assert!(fits && line.trim_end() == line, "{}:{number}: too long, or ends in a blank", page.name);
        }
        for line in page.prose().lines() {
            assert!(line.matches('`').count() % 2 == 0, "{}: a code goes on in the next line: {line}", page.name);
        }
        for block in page.blocks() {
            assert!(LANGUAGES.contains(&block.language.as_str()), "{}: in {:?}", block.place, block.language);
        }
    }
    let n = file("README.md").lines().count();
    assert!(n <= LINES, "README.md has {n} lines");
}

#[test]
fn links_lead_somewhere_and_every_page_is_linked() {
    let all = pages::all();
    let mut linked = BTreeSet::from([PathBuf::from("README.md")]);
    for page in &all {
        for (path, heading) in page.links() {
            let place = format!("{}: {}#{heading}", page.name, path.display());
            assert!(root().join(&path).exists(), "{place} is not there");
            if !heading.is_empty() {
                let to = all.iter().find(|page| path.as_os_str() == page.name.as_str()).expect(&place);
                assert!(to.headings().contains(&heading), "{place}: headings are {:?}", to.headings());
            }
            linked.insert(path);
        }
        for span in page.spans().iter().filter(|span| span.is_ascii() && span.contains('/') && !span.contains(' ')) {
            let first = span.split('/').next().unwrap_or_default();
            let ours = ["src", "tests", "examples", "benches", "include", "bindings"].contains(&first);
            assert!(!ours || root().join(span).exists(), "{}: {span} is not there", page.name);
        }
    }
    for page in &all {
        assert!(linked.contains(&PathBuf::from(&page.name)), "no page leads to {}", page.name);
    }
}

#[test]
fn json_is_read() {
    let mut kinds = BTreeSet::new();
    for block in blocks("json") {
        if block.code.contains("\"tiller.explanations\"") {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("e.jsonl");
            fs::write(&path, &block.code).expect("a file");
            let explanations = Explanations::load(&path).unwrap_or_else(|e| panic!("{}: {e}", block.place));
            assert!(!explanations.list().is_empty(), "{}: no feature", block.place);
            kinds.insert("explanations");
        } else if block.code.contains("\"texts\"") {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("groups.jsonl");
            fs::write(&path, block.code.repeat(10)).expect("a file");
            groups(&path);
            kinds.insert("groups");
        } else if block.code.contains("\"rules\"") {
            let plan = Plan::from_json(&block.code).and_then(|plan| plan.check().map(|()| plan));
            let plan = plan.unwrap_or_else(|e| panic!("{}: {e}", block.place));
            assert!(!plan.rules.is_empty(), "{}: a plan that does nothing", block.place);
            kinds.insert("plan");
        } else {
            request(&block);
            kinds.insert("request");
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

/// Groups of paraphrases.
fn groups(path: &Path) {
    #[cfg(feature = "engine")]
    {
        let read = tiller::eval::consistency::groups::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(read.iter().all(|group| group.texts.len() > 1), "a question asked once");
    }
    assert!(path.is_file());
}

/// The request to learn, with every key's default.
fn request(block: &pages::Block) {
    #[cfg(feature = "engine")]
    {
        use tiller::choose::learn::Request;
        let read = Request::from_json(&block.code).unwrap_or_else(|e| panic!("{}: {e}", block.place));
        assert_eq!(read, Request::new(read.instruction.clone()), "{}: a default is another", block.place);
    }
    serde_json::from_str::<serde_json::Value>(&block.code).unwrap_or_else(|e| panic!("{}: {e}", block.place));
}

#[test]
fn operators_stand_in_the_page_on_files() {
    let page = file("examples/files.md");
    for op in Op::ALL {
        assert!(page.contains(&format!("\n| `{}` |", op.name())), "examples/files.md lacks {}", op.name());
    }
}

/// Figures are worth what is known of their making.
#[test]
fn every_table_of_figures_has_its_command_machine_and_date() {
    let is_date = |word: &str| {
        let parts: Vec<&str> = word.trim_matches(|c: char| !c.is_ascii_digit()).split('-').collect();
        parts.iter().map(|part| part.len()).eq([4, 2, 2]) && parts.iter().all(|part| part.parse::<u16>().is_ok())
    };
    let mut n = 0;
    for page in pages::all().iter().filter(|page| page.name.starts_with("benches/") && page.name != "benches/README.md")
    {
        for (title, section) in page.sections().into_iter().filter(|(_, section)| section.contains("\n|---")) {
            let place = format!("{}: {title}", page.name);
            assert!(section.split_whitespace().any(is_date), "{place}: no date");
            assert!(section.contains("core") || section.contains("AVX2"), "{place}: no machine");
            assert!(section.contains("`tiller ") || section.contains("`benches/peers/"), "{place}: no command");
            n += 1;
        }
    }
    assert!(n > 5, "{n} tables");
}

#[test]
fn every_dependency_has_a_reason_and_every_reason_a_dependency() {
    let mut wanted = BTreeSet::new();
    let mut inside = false;
    for line in file("Cargo.toml").lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if let (true, Some((name, _))) = (inside, line.split_once('=')) {
            wanted.insert(name.trim().to_owned());
        }
    }
    let page = Page { name: "examples/building.md".into(), text: file("examples/building.md") };
    let sections = page.sections();
    let (_, section) = sections.iter().find(|(title, _)| *title == "Dependencies").expect("a section on dependencies");
    let mut found = BTreeSet::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let name = line.split('`').nth(1).expect("a name").to_owned();
        let reason = line.trim_matches('|').split_once('|').expect("two columns").1.trim();
        assert!(reason.len() > 5, "{name} has no reason");
        assert!(found.insert(name.clone()), "{name} stands there twice");
    }
    assert!(wanted.len() > 15, "{wanted:?}");
    assert_eq!(wanted, found);
}

#[test]
fn the_top_level_holds_only_what_it_may() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "src",
        "include",
        "bindings",
        "tests",
        "benches",
        "examples",
        "target",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "{name} does not belong at the top level");
    }
    let license = file("LICENSE");
    assert!(license.contains("Permission is hereby granted") && license.contains("Apache License"));
}
