//! The checked-in header is the one that the source makes. `TILLER_BLESS=1` rewrites it.

use std::{env, fs, path::Path};

/// Sections of the header in reading order: title, file of `src/capi`, macro that its functions need.
const SECTIONS: &[(&str, &str, Option<&str>)] = &[
    ("Errors", "error", None),
    ("Texts and version", "text", None),
    ("Progress", "progress", None),
    ("GGUF files", "gguf", None),
    ("Dictionaries", "dictionary", None),
    ("Encoding and decoding", "encode", None),
    ("Models", "model", None),
    ("Explanations", "explanations", None),
    ("Harvested rows", "activations", None),
    ("Training", "train", None),
    ("Coders with dense codes", "coder", None),
    ("Directions", "vector", None),
    ("Probes", "probe", None),
    ("Rows and codes in files", "codes", None),
    ("Relations in time", "temporal", None),
    ("Quality of a dictionary", "quality", None),
    ("Why a dictionary does not fit", "diagnosis", None),
    ("Concepts that features stand for", "mpc", None),
    ("Explaining by counting", "explain", None),
    ("Plans", "plan", None),
    ("Control vectors", "control_vector", None),
    ("Your ggml", "ggml", None),
    ("What a hook did", "ledger", None),
    ("The hook in your llama.cpp", "hook", None),
    ("Guards", "watched", None),
    ("The engine", "engine", Some("TILLER_ENGINE")),
    ("Writing text with the engine", "engine_generate", Some("TILLER_ENGINE")),
    ("Reading rows with the engine", "engine_harvest", Some("TILLER_ENGINE")),
    ("Training with the engine", "engine_train", Some("TILLER_ENGINE")),
    ("Explaining and testing with the engine", "engine_measure", Some("TILLER_ENGINE")),
    ("Finding features and a strength with the engine", "engine_trial", Some("TILLER_ENGINE")),
    ("Learning an instruction with the engine", "engine_learn", Some("TILLER_ENGINE")),
    ("Learning and examining guards with the engine", "engine_guard", Some("TILLER_ENGINE")),
    ("Evaluating with the engine", "engine_evaluate", Some("TILLER_ENGINE")),
    ("Making a model steerable", "adopt", Some("TILLER_ENGINE")),
];

/// Files of `src/capi` that export nothing.
const INSIDE: [&str; 3] = ["mod", "guard", "arguments"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The source with the aliases of `guard.rs` spelled out: cbindgen reads one file at a time.
fn spell_out(source: &str) -> String {
    let source = source.replace("ErrorOut<'_>", "Out<'_, tiller_error>");
    let mut parts = source.split("Out<'_, ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('>').expect("Out<'_, T>");
        plain += &format!("Option<&mut MaybeUninit<Option<Box<{name}>>>>{rest}");
    }
    plain
}

fn section(title: &str, file: &str, needs: Option<&str>) -> String {
    let source = fs::read_to_string(root().join(format!("src/capi/{file}.rs"))).expect("a source file");
    let plain = tempfile::Builder::new().suffix(".rs").tempfile().expect("a temporary file");
    fs::write(plain.path(), spell_out(&source)).expect("write a temporary file");
    let config = cbindgen::Config::from_file(root().join("include/cbindgen.toml")).expect("include/cbindgen.toml");
    let mut part = Vec::new();
    cbindgen::Builder::new()
        .with_src(plain.path())
        .with_config(config)
        .generate()
        .unwrap_or_else(|e| panic!("src/capi/{file}.rs: {e}"))
        .write(&mut part);
    let part = String::from_utf8(part).expect("UTF-8");
    let rule = format!("/* ---- {title} {} */", "-".repeat(100 - title.len()));
    let part = part.trim();
    match needs {
        None => format!("\n{rule}\n\n{part}\n"),
        Some(needs) => format!("\n{rule}\n\n#ifdef {needs}\n\n{part}\n\n#endif /* {needs} */\n"),
    }
}

#[test]
fn header_matches_source() {
    let mut made = fs::read_to_string(root().join("include/tiller.h.in")).expect("include/tiller.h.in");
    for (title, file, needs) in SECTIONS {
        made += &section(title, file, *needs);
    }
    made += "\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* TILLER_H */\n";
    let path = root().join("include/tiller.h");
    if env::var_os("TILLER_BLESS").is_some() {
        fs::write(&path, &made).expect("write the header");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(made.lines()).take_while(|(a, b)| a == b).count() + 1;
    assert!(found == made, "include/tiller.h:{line} is old: run TILLER_BLESS=1 cargo test --release --test header");
}

#[test]
fn every_file_of_the_border_is_a_section() {
    for entry in fs::read_dir(root().join("src/capi")).expect("src/capi") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let known = SECTIONS.iter().any(|(_, file, _)| *file == name) || INSIDE.contains(&name.as_str());
        assert!(known, "src/capi/{name}.rs is not in SECTIONS of tests/header.rs");
    }
}
