//! The floors of `src/lib.rs` hold: a file imports only from the floors below it; siblings don't know each other.
//! `error` is below all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What `src/lib.rs` gives out again, and the module where it lives.
const ROOT_NAMES: [(&str, &str); 3] = [("Error", "error"), ("Kind", "error"), ("Result", "error")];

fn floors() -> BTreeMap<String, i32> {
    let source = fs::read_to_string(root().join("lib.rs")).expect("src/lib.rs");
    let mut floors = BTreeMap::new();
    for line in source.lines().filter_map(|l| l.strip_prefix("//! | ")) {
        let Some((floor, modules)) = line.split_once(" | ") else { continue };
        let Ok(floor) = floor.trim().parse::<i32>() else { continue };
        floors.extend(modules.split('`').skip(1).step_by(2).map(|name| (name.to_owned(), floor)));
    }
    floors.insert("error".into(), -1);
    floors.insert("bin".into(), 10);
    floors
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The first names of all paths in `code` that start at the crate's root, as seen from a file `depth` modules deep.
fn imports(code: &str, depth: usize, from_outside: bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut depth = depth;
    let lines: Vec<&str> = code.lines().map(|l| l.split("//").next().unwrap_or_default()).collect();
    for (i, line) in lines.iter().enumerate() {
        depth += usize::from(line.trim_start().starts_with("mod tests {"));
        let up = "super::".repeat(depth);
        let mut prefixes = vec!["crate::"];
        if from_outside {
            prefixes.push("tiller::");
        } else {
            prefixes.push(&up);
        }
        for prefix in prefixes {
            for (at, _) in line.match_indices(prefix) {
                let before = line[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                    continue;
                }
                let rest = line[at + prefix.len()..].to_owned() + &lines[i + 1..].join(" ");
                found.extend(heads(&rest).into_iter().map(|name| (i + 1, name)));
            }
        }
    }
    found
}

/// `a::b` has the head a; `{a::{b, c}, d}` has the heads a and d.
fn heads(path: &str) -> Vec<String> {
    let word = |s: &str| s.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(word(&group[start..i]));
                start = i + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.into_iter().filter(|n| !n.is_empty()).collect()
}

/// What `path` (relative to `src`) imports against the rule.
fn violations(path: &str, code: &str, floors: &BTreeMap<String, i32>) -> Vec<String> {
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').filter(|p| *p != "mod").collect();
    let own = parts[0];
    let Some(&floor) = floors.get(own) else { return vec![format!("src/{path}: {own} is on no floor of src/lib.rs")] };
    let bin = own == "bin";
    let mut bad = Vec::new();
    for (line, name) in imports(code, parts.len(), bin) {
        let name = ROOT_NAMES.iter().find(|(n, _)| *n == name).map_or(name.as_str(), |(_, module)| module);
        // Inside the command, `crate` is the command.
        match floors.get(name) {
            Some(&other) if name != own && other >= floor => {
                bad.push(format!("src/{path}:{line}: {own} (floor {floor}) imports {name} (floor {other})"));
            }
            None if !bin && name != "tests" => {
                bad.push(format!("src/{path}:{line}: {name} is on no floor of src/lib.rs"))
            }
            _ => {}
        }
    }
    bad
}

fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn every_import_goes_down() {
    let (floors, mut files, mut bad) = (floors(), Vec::new(), Vec::new());
    walk(&root(), &mut files);
    assert!(files.len() > 20, "found only {} files", files.len());
    for file in files {
        let path = file.strip_prefix(root()).expect("inside src").to_string_lossy().replace('\\', "/");
        if path != "lib.rs" {
            bad.extend(violations(&path, &fs::read_to_string(&file).expect("a source file"), &floors));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn planted_violations_are_found() {
    let floors = floors();
    assert_eq!((floors["error"], floors["num"], floors["engine"], floors["capi"]), (-1, 0, 6, 10));
    let count = |path, code| violations(path, code, &floors).len();
    assert_eq!(count("plan/mod.rs", "use crate::dictionary::Dictionary;\nuse crate::{Error, file::Map};"), 0);
    assert_eq!(count("plan/mod.rs", "use crate::engine::Engine;"), 1, "up");
    assert_eq!(count("train/adam.rs", "use crate::{\n    explain::{A, B},\n    num::dot,\n};"), 1, "a sibling");
    assert_eq!(count("train/adam.rs", "let x = super::super::hook::Hook::new();"), 1, "up by super");
    assert_eq!(count("train/adam.rs", "use super::fit;\nmod tests {\n    use super::super::fit;\n}"), 0);
    assert_eq!(count("num/mod.rs", "use crate::progress::Step;"), 1, "a sibling on floor 0");
    assert_eq!(count("num/mod.rs", "use crate::error::Error; // crate::engine"), 0);
    assert_eq!(count("bin/tiller/run.rs", "use tiller::engine::Engine;\nuse crate::table;"), 0);
    assert_eq!(count("shed.rs", ""), 1, "a module without a floor");
}
