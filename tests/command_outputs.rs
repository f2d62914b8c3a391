//! What the command writes, and where: no device, pipe or input is replaced, work is refused before it is done in vain, and
//! any path is said and written as it is.

#![cfg(all(feature = "cli", unix))]

mod support;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tiller::file::{Dtype, npy, safetensors};

/// Runs the command with arguments of any bytes.
fn tiller<S: AsRef<OsStr>>(args: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tiller")).args(args).output().expect("the command runs")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Rows `[60, 16]`.
fn rows(path: &Path) {
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 2048.0 - 1.0;
    let bytes: Vec<u8> = (0..960).flat_map(|i| value(i).to_le_bytes()).collect();
    npy::write(path, Dtype::F32, &[60, 16], bytes).unwrap();
}

/// `tiller train sae ROWS` and what makes it short.
fn train(rows: &Path, more: &[(&str, &Path)]) -> Output {
    let mut args: Vec<OsString> = ["train", "sae"].map(OsString::from).to_vec();
    args.push(rows.into());
    let short = ["--features", "16", "--k", "2", "--epochs", "1", "--threads", "1", "--layer", "1", "--json"];
    args.extend(short.map(OsString::from));
    for (flag, value) in more {
        args.extend([OsString::from(flag), OsString::from(value)]);
    }
    tiller(&args)
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A device like `/dev/null` of our own, where we may make one: a test that fails as root must not take the machine's.
fn null_device(dir: &Path) -> PathBuf {
    let own = dir.join("null");
    let made = Command::new("mknod").arg(&own).args(["c", "1", "3"]).output().is_ok_and(|made| made.status.success());
    if made && std::fs::OpenOptions::new().write(true).open(&own).is_ok() { own } else { PathBuf::from("/dev/null") }
}

#[test]
fn devices_pipes_and_directories_are_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (input, fifo) = (dir.path().join("r.npy"), dir.path().join("pipe"));
    rows(&input);
    pipe(&fifo);
    let out = dir.path().join("s.gguf");
    let null = null_device(dir.path());
    let done = train(&input, &[("--out", &null), ("--metrics", &null)]);
    assert!(done.status.success(), "{}", told(&done));
    assert!(std::fs::metadata(&null).unwrap().file_type().is_char_device());
    for flag in ["--metrics", "--checkpoint"] {
        let refused = train(&input, &[("--out", &out), (flag, &fifo)]);
        assert!(refused.status.code() == Some(1) && told(&refused).contains("found a pipe"), "{}", told(&refused));
    }
    for (path, what) in [(fifo.as_path(), "found a pipe"), (dir.path(), "found a directory")] {
        let refused = train(&input, &[("--out", path)]);
        assert!(refused.status.code() == Some(1) && told(&refused).contains(what), "{}", told(&refused));
    }
    assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo() && !out.exists());
    let refused = train(&input, &[("--out", &dir.path().join("no/s.gguf"))]);
    assert!(told(&refused).contains("hint: make the directory"), "{}", told(&refused));
}

#[test]
fn links_and_modes_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (input, real, link) =
        (dir.path().join("r.npy"), dir.path().join("sub/real.gguf"), dir.path().join("link.gguf"));
    rows(&input);
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(&real, "old").unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("sub/real.gguf", &link).unwrap();
    let done = train(&input, &[("--out", &link)]);
    assert!(done.status.success(), "{}", told(&done));
    assert!(link.is_symlink() && std::fs::read(&real).unwrap().starts_with(b"GGUF"));
    assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Every command that reads rows or a dictionary, told to write over them.
#[test]
fn no_command_eats_its_own_input() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (input, hard) = (at("r.npy"), at("hard.npy"));
    rows(input.as_ref());
    std::fs::hard_link(&input, &hard).unwrap();
    let dictionary = at("d.gguf");
    std::fs::copy(support::shipped(), &dictionary).unwrap();
    let (before, of_dictionary) = (std::fs::read(&input).unwrap(), std::fs::read(&dictionary).unwrap());
    let calls: &[&[&str]] = &[
        &["train", "sae", &input, "--out", &input],
        &["train", "sae", &input, "--out", &hard],
        &["train", "sae", &input, "--out", &at("s.gguf"), "--metrics", &input],
        &["train", "sae", &input, "--out", &at("s.gguf"), "--checkpoint", &hard],
        &["train", "sae", &input, "--out", &at("s.gguf"), "--metrics", &at("m.jsonl"), "--plot", &input],
        &["train", "conca", &input, "--out", &input],
        &["train", "conca", &input, "--out", &at("c.safetensors"), "--dictionary", &input],
        &["train", "vector", "--positive", &input, "--negative", &hard, "--layer", "1", "--out", &hard],
        &["train", "probe", "--positive", &input, "--negative", &hard, "--layer", "1", "--out", &input],
        &["train", "ssae", &input, "--out", &hard],
        &["train", "temporal", "--rows", &at("."), "--dictionary", &dictionary, "--out", &dictionary],
        &["encode", &dictionary, "--rows", &input, "--out", &input],
        &["decode", &dictionary, "--codes", &input, "--out", &hard],
        &["convert", &dictionary, "--out", &dictionary],
        &["explain", &dictionary, "--model", &input, "--out", &dictionary],
        &["plan", "--words", "x", "--dictionary", &dictionary, "--output", &dictionary],
        &["bench", "--what", "train", "--dictionary", &dictionary, "--plot", &dictionary],
        &["train", "sae", &input, "--out", &at("same"), "--metrics", &at("same")],
    ];
    for call in calls {
        let refused = tiller(call);
        let error = told(&refused);
        assert_eq!(refused.status.code(), Some(2), "{call:?}: {error}");
        assert!(error.contains("would replace") || error.contains("two outputs"), "{call:?}: {error}");
    }
    assert!(std::fs::read(&input).unwrap() == before && std::fs::read(&dictionary).unwrap() == of_dictionary);
}

/// A pipe without a writer was waited for, `/dev/zero` read until memory was gone.
#[test]
fn inputs_that_are_no_files_are_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("pipe");
    pipe(&fifo);
    let shipped = support::shipped();
    let shipped = shipped.to_str().unwrap();
    for (path, what) in [(fifo.to_str().unwrap(), "a pipe"), ("/dev/zero", "a device")] {
        let out = dir.path().join("out").to_str().unwrap().to_owned();
        let calls: &[&[&str]] = &[
            &["info", path],
            &["find", path, "war"],
            &["plan", "check", path],
            &["run", path, "--prompt", "x"],
            &["convert", path, "--out", &out],
            &["encode", shipped, "--rows", path, "--out", "x.npy"],
            &["decode", shipped, "--codes", path, "--out", &out],
            &["train", "sae", path, "--out", &out],
            &["train", "sae", shipped, "--recipe", path, "--out", &out],
            &["train", "vector", "--pairs", path, "--model", shipped, "--layer", "1", "--out", "v.npy"],
            &["harvest", shipped, "--text", path, "--layer", "1", "--out", &out],
            &["eval", "mpc", shipped, shipped, "--layer", "1", "--pairs", path],
        ];
        for call in calls {
            let refused = tiller(call);
            let error = told(&refused);
            assert!(refused.status.code() == Some(1) && error.contains(what), "{call:?}: {error}");
        }
    }
}

#[test]
fn paths_that_are_not_utf8_are_written_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join(OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&place).unwrap();
    let at = |name: &[u8]| -> PathBuf { place.join(OsStr::from_bytes(name)) };
    let input = at(b"r\xe9.npy");
    rows(&input);
    let check = |args: &[&OsStr], made: &Path| {
        let output = tiller(&[args, &[OsStr::new("--json")]].concat());
        assert!(output.status.success(), "{args:?}: {}", told(&output));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(said.to_string().contains("caf\u{fffd}") && made.exists(), "{args:?}: {said}");
    };
    let o = OsStr::new;
    let dictionary = at(b"s\xe9.gguf");
    let (metrics, picture) = (at(b"m\xe9.jsonl"), at(b"m\xe9.svg"));
    let batch = ("--batch", Path::new("16"));
    let done = train(&input, &[("--out", &dictionary), ("--metrics", &metrics), ("--plot", &picture), batch]);
    assert!(done.status.success() && dictionary.exists() && metrics.exists() && picture.exists(), "{}", told(&done));
    let (codes, decoded, copy) = (at(b"c\xe9.npy"), at(b"d\xe9.npy"), at(b"q\xe9.gguf"));
    let (coder, vector, probe) = (at(b"c\xe9.safetensors"), at(b"v\xe9.npy"), at(b"p\xe9.npy"));
    let (d, i) = (dictionary.as_os_str(), input.as_os_str());
    check(&[o("encode"), d, o("--rows"), i, o("--out"), codes.as_os_str()], &codes);
    check(&[o("decode"), d, o("--codes"), codes.as_os_str(), o("--out"), decoded.as_os_str()], &decoded);
    check(&[o("convert"), d, o("--out"), copy.as_os_str()], &copy);
    let small = [o("--latents"), o("8"), o("--steps"), o("3"), o("--dictionary"), copy.as_os_str()];
    check(&[&[o("train"), o("conca"), i, o("--out"), coder.as_os_str()], &small[..]].concat(), &coder);
    for (what, made) in [("vector", &vector), ("probe", &probe)] {
        let kinds = [o("--positive"), i, o("--negative"), decoded.as_os_str(), o("--layer"), o("1")];
        check(&[&[o("train"), o(what)], &kinds[..], &[o("--out"), made.as_os_str()]].concat(), made);
    }
    let explanations = at(b"e\xe9.jsonl");
    std::fs::write(&explanations, "{\"feature\":3,\"density\":0.01,\"mean\":2.0,\"words\":[[\"war\",0.5]]}\n").unwrap();
    let plan = at(b"p\xe9.json");
    let words = [o("--explanations"), explanations.as_os_str(), o("--words"), o("war")];
    check(&[&[o("plan")], &words[..], &[o("--output"), plan.as_os_str()]].concat(), &plan);
    check(&[o("plan"), o("check"), plan.as_os_str()], &plan);
    let Some(model) = support::model(support::SMOLLM) else { return };
    let (linked, text, out) = (at(b"m\xe9.gguf"), at(b"t\xe9.jsonl"), at(b"h\xe9"));
    symlink(model, &linked).unwrap();
    std::fs::write(&text, "{\"text\":\"one two three four\"}\n").unwrap();
    let how = [o("--layer"), o("1"), o("--out"), out.as_os_str()];
    check(&[&[o("harvest"), linked.as_os_str(), o("--text"), text.as_os_str()], &how[..]].concat(), &out);
}

/// What is called like a path elsewhere: the plan itself, and what the model wrote.
const NO_PATHS: [&str; 5] = ["made.text", "self.plan", "text.text", "with.text", "without.text"];

/// `json!` panics on a path that is not UTF-8, after the work: a path goes into it through `shown` only.
#[test]
fn no_path_goes_into_json_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/tiller");
    let mut sources = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => sources.push((path.clone(), std::fs::read_to_string(&path).unwrap_or_default())),
            }
        }
    }
    // Fields that are paths, as the command's own structs and the library's declare them.
    let mut fields: Vec<&str> = vec!["dictionary", "explanations", "report"];
    for line in sources.iter().flat_map(|(_, text)| text.lines()).filter(|line| line.contains("PathBuf")) {
        let field = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        fields.extend(field.split_once(": ").map(|(name, _)| name));
    }
    assert!(fields.contains(&"out") && fields.len() > 30);
    let planted = bare_paths("json!({\"a\": args.out, \"b\": shown(&args.out), \"c\": self.out.len()})", &["out"]);
    assert_eq!(planted, ["args.out"]);
    for (path, text) in &sources {
        let mut bare = bare_paths(text, &fields);
        bare.retain(|value| !NO_PATHS.contains(&value.as_str()));
        assert!(bare.is_empty(), "{}: {bare:?} in json! without shown()", path.display());
    }
}

/// The values in calls of `json!` that are one of `fields` and nothing more.
fn bare_paths(text: &str, fields: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("json!(") {
        let mut depth = 0usize;
        let end = text[at..].char_indices().find(|(_, c)| {
            depth = depth + usize::from(*c == '(') - usize::from(*c == ')');
            *c == ')' && depth == 0
        });
        let body = &text[at..at + end.map_or(0, |(end, _)| end)];
        for part in body.split("\": ").skip(1) {
            let value = part.split([',', '}', '\n']).next().unwrap_or_default().trim().trim_start_matches('&');
            let owner = value.rsplit_once('.');
            if owner.is_some_and(|(_, field)| fields.contains(&field)) || value == "path" {
                found.push(value.to_owned());
            }
        }
    }
    found
}

/// Sizes that an option gives and no machine has end in an error, not in an abort.
#[test]
fn sizes_beyond_memory_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("r.npy");
    rows(&input);
    let (input, out) = (input.to_str().unwrap(), dir.path().join("out").to_str().unwrap().to_owned());
    let many = "1000000000";
    for call in [
        &["train", "sae", input, "--features", many, "--k", "2", "--layer", "1", "--out", &out][..],
        &["train", "conca", input, "--latents", many, "--out", &out],
    ] {
        let refused = Command::new("sh")
            .args(["-c", "ulimit -v 8000000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tiller")])
            .args(call)
            .output()
            .unwrap();
        let error = told(&refused);
        assert!(refused.status.code() == Some(1) && error.contains("not enough memory"), "{call:?}: {error}");
    }
}

/// 308 bytes spoke of 45 million rows: `decode` asked for 103 GB of memory.
#[test]
fn a_few_codes_of_many_rows_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shipped = support::shipped();
    let n = tiller::dictionary::Dictionary::open(&shipped).unwrap().n_features();
    let codes = dir.path().join("c.safetensors");
    let write = |rows: i64| {
        let mut file = safetensors::Writer::new();
        file.tensor("row", Dtype::U32, &[1], 0u32.to_le_bytes().to_vec());
        file.tensor("feature", Dtype::U32, &[1], 1u32.to_le_bytes().to_vec());
        file.tensor("value", Dtype::F32, &[1], 1f32.to_le_bytes().to_vec());
        file.tensor(
            "shape",
            Dtype::I64,
            &[2],
            [rows, n as i64].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>(),
        );
        file.write(&codes).unwrap();
    };
    let out = dir.path().join("x.npy");
    let decode = || {
        let (codes, out) = (codes.to_str().unwrap(), out.to_str().unwrap());
        tiller(&["decode", shipped.to_str().unwrap(), "--codes", codes, "--out", out])
    };
    write(45_000_000);
    let refused = decode();
    assert!(refused.status.code() == Some(1) && told(&refused).contains("rows for 1 codes"), "{}", told(&refused));
    assert!(!out.exists());
    write(3);
    assert!(decode().status.success());
    let rows = tiller::file::Tensors::open(&out).unwrap();
    assert_eq!(rows.get(tiller::file::UNNAMED).unwrap().shape(), [3, 576]);
}
