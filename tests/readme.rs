//! What the README says is so: its table of dependencies is that of `Cargo.toml`, and its examples of files are read.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tiller::explain::Explanations;
use tiller::plan::Plan;

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

/// The first block of code after `mark`.
fn block_after(text: &str, mark: &str) -> String {
    let (_, rest) = text.split_once(mark).unwrap_or_else(|| panic!("the README has lost {mark:?}"));
    let code = rest.split("```").nth(1).expect("a block of code");
    code.split_once('\n').expect("lines of code").1.to_owned()
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
    let readme = file("README.md");
    let (_, section) = readme.split_once("\n## Dependencies\n").expect("a section on dependencies");
    let section = section.split("\n## ").next().unwrap_or_default();
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
fn the_examples_of_files_are_read() {
    let readme = file("README.md");
    let plan = Plan::from_json(&block_after(&readme, "**A plan**")).unwrap();
    assert_eq!(plan.rules[0].features.len(), 2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.jsonl");
    fs::write(&path, block_after(&readme, "**Explanations**")).unwrap();
    let explanations = Explanations::load(&path).unwrap();
    assert_eq!(explanations.get(17).unwrap().label.as_deref(), Some("war"));
    assert_eq!(explanations.header().n_features, Some(4096));
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
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "{name} does not belong at the top level");
    }
    let license = file("LICENSE");
    assert!(license.contains("Permission is hereby granted") && license.contains("Apache License"));
}
