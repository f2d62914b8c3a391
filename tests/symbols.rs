//! What the release library exports = what the header declares = `tests/abi/symbols.txt`, and C++ and Go reach all of it.
//!
//! `TILLER_BLESS=1` rewrites the list. A name that leaves it breaks programs that are out there.

#[path = "support/library.rs"]
mod library;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use library::root;

fn exported() -> BTreeSet<String> {
    let name = format!("{}tiller{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let library = library::library().join(name);
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output().expect("nm, from binutils");
    assert!(output.status.success(), "nm {}", library.display());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

/// The functions that the header declares, each with the macro that it needs, such as `tiller_engine_open TILLER_ENGINE`.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(root().join("include/tiller.h")).expect("include/tiller.h");
    let mut needs = String::new();
    let mut names = BTreeSet::new();
    let mut lines = header.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("#ifdef TILLER_") {
            needs = format!(" TILLER_{name}");
        } else if line.starts_with("#endif /* TILLER_") {
            needs.clear();
        } else if let Some(rest) = line.strip_prefix("TILLER_API") {
            let text = if rest.trim().is_empty() { *lines.peek().expect("a declaration") } else { rest };
            let name = text.split('(').next().and_then(|head| head.split([' ', '*']).next_back()).unwrap_or_default();
            names.insert(format!("{name}{needs}"));
        }
    }
    names
}

fn listed() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("tests/abi/symbols.txt")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn header_equals_list() {
    let declared = declared();
    assert!(declared.len() > 10, "read only {declared:?} from the header");
    if env::var_os("TILLER_BLESS").is_some() {
        let text: String = declared.iter().map(|name| format!("{name}\n")).collect();
        fs::write(root().join("tests/abi/symbols.txt"), text).expect("write the list");
    }
    let listed = listed();
    let new: Vec<_> = declared.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&declared).collect();
    assert!(new.is_empty() && gone.is_empty(), "tests/abi/symbols.txt: new {new:?}, gone {gone:?}");
}

#[test]
fn library_exports_the_list_and_nothing_else() {
    let has = |needs: Option<&str>| needs.is_none_or(|needs| needs == "TILLER_ENGINE" && cfg!(feature = "engine"));
    let split = |line: &String| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap_or_default(), words.next())
    };
    let wanted: BTreeSet<String> =
        listed().iter().map(split).filter(|(_, needs)| has(needs.as_deref())).map(|(name, _)| name).collect();
    let exported = exported();
    let extra: Vec<_> = exported.difference(&wanted).collect();
    let missing: Vec<_> = wanted.difference(&exported).collect();
    assert!(extra.is_empty() && missing.is_empty(), "the library: extra {extra:?}, missing {missing:?}");
}

#[test]
fn every_function_is_reachable_from_cpp_and_go() {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let cpp = read(&root().join("include/tiller.hpp"));
    let mut go = String::new();
    for entry in fs::read_dir(root().join("bindings/go")).expect("bindings/go") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".go") && !name.ends_with("_test.go") {
            go += &read(&path);
        }
    }
    let word = |text: &str, name: &str| {
        text.match_indices(name)
            .any(|(at, _)| !text[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    for line in listed() {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(word(&cpp, name), "include/tiller.hpp does not use {name}");
        assert!(word(&go, name), "bindings/go does not use {name}");
    }
}
