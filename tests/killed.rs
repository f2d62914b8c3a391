//! `kill -9` at chosen points: what a killed process leaves is gone on with, to the bits of a run that was not killed.

#![cfg(all(feature = "cli", unix))]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tiller::engine::{Document, Engine, Harvest, Options};
use tiller::file::{Dtype, npy};

/// Ends `child` with SIGKILL as soon as `sign` is there; it may have ended before.
fn kill_at(mut child: Child, sign: &Path) {
    while !sign.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    let _ = child.kill();
    child.wait().unwrap();
}

/// Every file below `place` but locks and temporary ones, with its bytes.
fn contents(place: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![place.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                all.insert(path.strip_prefix(place).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    all
}

const LAYERS: [usize; 3] = [3, 5, 8];
const PLACE: &str = "TILLER_TEST_HARVEST_INTO";

fn harvest(model: &Path, place: &Path) {
    let text: Vec<Document> = (0..60)
        .map(|i| Document::Text(format!("Document {i} says that {} and {} are numbers.", i * 7, i * i)))
        .collect();
    // One thread computes the same batches to the same bits on every processor; several share out sums.
    let options = Options { context: 256, batch: 256, sequences: 8, threads: 1, ..Options::default() };
    let mut engine = Engine::open(model, &options).unwrap();
    let options = Harvest { layers: LAYERS.to_vec(), window: 64, shard_rows: 100, ..Harvest::default() };
    engine.harvest(&text, place, &options, &mut tiller::progress::silent).unwrap();
}

/// What the next test runs and kills; in a run of all tests there is nothing to do.
#[test]
fn a_harvest_to_be_killed() {
    if let (Some(place), Some(model)) = (std::env::var_os(PLACE), support::model(support::SMOLLM)) {
        harvest(&model, Path::new(&place));
    }
}

#[test]
fn a_killed_harvest_goes_on_to_the_same_bits() {
    let Some(model) = support::model(support::SMOLLM) else { return };
    let _turn = support::turn();
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    harvest(&model, &whole);
    let expected = contents(&whole);
    assert!(expected.len() > 3 * 5, "{:?}", expected.keys());
    // Before the first shard of the last layer, between the layers' third, and after the fifth.
    for sign in ["layer-3/rows-00000", "layer-5/rows-00002", "layer-3/rows-00002", "layer-8/rows-00004"] {
        let place = dir.path().join(sign.replace('/', "-"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_harvest_to_be_killed"])
            .env(PLACE, &place)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        kill_at(child, &place.join(sign).with_extension("safetensors"));
        harvest(&model, &place);
        let found = contents(&place);
        assert!(found.keys().eq(expected.keys()), "{sign}: {:?}", found.keys());
        let other: Vec<_> = found.iter().filter(|(path, bytes)| expected[*path] != **bytes).map(|(p, _)| p).collect();
        assert!(other.is_empty(), "{sign}: other bytes in {other:?}");
    }
}

#[test]
fn a_killed_training_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("r.npy");
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 2048.0 - 1.0;
    npy::write(&rows, Dtype::F32, &[400, 16], (0..6400).flat_map(|i| value(i).to_le_bytes()).collect::<Vec<_>>())
        .unwrap();
    let train = |kind: &str, out: &Path, checkpoint: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiller"));
        command.args(["train", kind]).arg(&rows).arg("--out").arg(out).arg("--checkpoint").arg(checkpoint);
        match kind {
            "sae" => {
                command.args(["--features", "64", "--k", "4", "--batch", "100", "--epochs", "500", "--layer", "1"])
            }
            _ => command.args(["--latents", "64", "--batch", "100", "--steps", "2000"]),
        };
        command.args(["--threads", "1"]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    for kind in ["sae", "conca"] {
        let at = |name: &str| dir.path().join(format!("{kind}-{name}"));
        assert!(train(kind, &at("whole"), &at("whole.ckpt")).status().unwrap().success());
        // At the first checkpoint; then again at once, while the lock of the dead is still there.
        kill_at(train(kind, &at("out"), &at("ckpt")).spawn().unwrap(), &at("ckpt"));
        kill_at(train(kind, &at("out"), &at("ckpt")).spawn().unwrap(), &at("ckpt"));
        assert!(train(kind, &at("out"), &at("ckpt")).status().unwrap().success());
        for (whole, resumed) in [("whole", "out"), ("whole.ckpt", "ckpt")] {
            let (whole, resumed) = (std::fs::read(at(whole)).unwrap(), std::fs::read(at(resumed)).unwrap());
            assert!(whole == resumed, "{kind}: other bytes than of a run that was not killed");
        }
    }
}

/// Both said success, and one's rows were gone.
#[test]
fn of_two_writers_one_is_told_about_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("r.npy");
    npy::write(&rows, Dtype::F32, &[2, 1], vec![0; 8]).unwrap();
    let checkpoint = dir.path().join("c.ckpt");
    let held = tiller::file::Lock::of_file(&checkpoint).unwrap();
    for kind in ["sae", "conca"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiller"));
        command
            .args(["train", kind])
            .arg(&rows)
            .arg("--out")
            .arg(dir.path().join("o"))
            .arg("--checkpoint")
            .arg(&checkpoint);
        let refused = command.output().unwrap();
        let error = String::from_utf8_lossy(&refused.stderr);
        let who = format!("process {} on ", std::process::id());
        assert!(refused.status.code() == Some(1) && error.contains(&who) && error.contains("hint: wait"), "{error}");
    }
    drop(held);
}
