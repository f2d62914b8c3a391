//! Files are opened in one place, which refuses pipes and devices, and read whole only up to a limit.

use std::path::{Path, PathBuf};

/// What opens or reads a file by a path.
const OPENERS: [&str; 4] = ["File::open(", "fs::read(", "fs::read_to_string(", "File::options("];
/// Where that may be done: the place itself, what has been looked at already, and what is no user's path.
const ALLOWED: [&str; 9] = [
    "file/input.rs",
    "file/atomic.rs",
    "train/journal.rs",                     // appends to what write_atomic made
    "bin/tiller/bench/steering/records.rs", // appends to what read_text has read
    "bin/tiller/bench/map.rs",              // measures reading itself; /proc
    "bin/tiller/fetch/archive.rs",          // packages, whose size and digest were checked
    "bin/tiller/fetch/client.rs",
    "bin/tiller/fetch/model.rs",
    "bin/tiller/fetch/corpus.rs",
];

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn every_file_is_opened_by_the_one_function() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let mut bad = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if ALLOWED.contains(&name) || name.ends_with("tests.rs") {
            continue;
        }
        for (number, line) in (1..).zip(code.lines()) {
            // Our own types that are called File are no files of the system's.
            let own = line.contains("safetensors::File::open(") || !code.contains("std::fs");
            if !own && OPENERS.iter().any(|opener| line.contains(opener)) {
                bad.push(format!("src/{name}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(bad.is_empty(), "opened without tiller::file::open, read or read_text:\n{}", bad.join("\n"));
}
