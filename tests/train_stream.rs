//! Training straight from a model and text: the rows are those of a harvest, and nothing depends on when a run was stopped.
//! For what two runs of a model have in common see `agree` in `tests/support`.
#![cfg(feature = "engine")]

mod support;

use std::path::Path;
use std::rc::Rc;

use support::agree::{self, distance};
use tiller::Kind;
use tiller::activations::{Activations, RowType};
use tiller::dictionary::Dictionary;
use tiller::engine::{Document, Engine, Harvest, Options, Streamed};
use tiller::model::Model;
use tiller::progress::silent;
use tiller::train::{self, Stream, Variant, fit_stream};

const TEXT: &str = "The committee met in the morning to discuss the bridge across the river, and by noon the engineers had \
                    agreed that the old stone piers could carry a railway.";

fn open(path: &Path) -> Engine {
    let options = Options { context: 128, batch: 128, threads: support::THREADS, sequences: 8, ..Options::default() };
    Engine::open(path, &options).unwrap()
}

fn documents(n: usize) -> Vec<Document> {
    (0..n).map(|i| Document::Text(format!("Chapter {i}. {}", TEXT.repeat(1 + i % 3)))).collect()
}

fn options() -> train::Options {
    let plain = train::Options { n_features: 64, k: 8, batch: 64, epochs: 2, held_out: 0.2, ..Default::default() };
    train::Options { variant: Variant::BatchTopK, checkpoint_every: 5, threads: 2, ..plain }
}

#[test]
fn streamed_rows_are_the_harvested_ones() {
    let _turn = support::turn();
    for path in [support::SMOLLM, support::GEMMA].into_iter().filter_map(support::model) {
        let mut engine = open(&path);
        let layer = engine.n_layer() / 3;
        let text = documents(30);
        let dir = tempfile::tempdir().unwrap();
        let harvest = Harvest { layers: vec![layer], dtype: RowType::F32, window: 64, ..Harvest::default() };
        engine.harvest(&text, dir.path(), &harvest, &mut silent).unwrap();
        let harvested = Activations::open(dir.path()).unwrap();
        let training = train::Options { held_out: 0.0, ..options() };
        let streamed = Streamed { window: 64, buffer: 600, ..Streamed::at(layer) };
        let mut stream = engine.stream(&text, &streamed, &training, &mut silent).unwrap();
        assert!(stream.parts.len() > 2 && stream.held_out.is_empty(), "{:?}", stream.parts);
        let (d, mut all, mut again) = (stream.d_model, Vec::new(), Vec::new());
        for part in 0..stream.parts.len() {
            let before = all.len();
            (stream.read)(part, &mut all, &mut || Ok(())).unwrap();
            assert_eq!(all.len() - before, stream.parts[part] * d, "part {part}");
        }
        (stream.read)(1, &mut again, &mut || Ok(())).unwrap();
        let second = &all[stream.parts[0] * d..(stream.parts[0] + stream.parts[1]) * d];
        assert_eq!(again.len(), second.len());
        for (i, (again, row)) in again.chunks_exact(d).zip(second.chunks_exact(d)).enumerate() {
            assert!(distance(again, row) < agree::ROW, "row {i} at another call: {}", distance(again, row));
        }
        assert_eq!(stream.info.layer, Some(layer));
        // Documents come in another order and beside others, so rows are matched by what is nearest.
        let mut row = vec![0.0; d];
        let mut wanted = 0;
        for i in (0..harvested.n_rows()).filter(|&i| harvested.position(i) != 0) {
            wanted += 1;
            if wanted % 40 != 0 {
                continue;
            }
            harvested.row(i, &mut row);
            let nearest = all.chunks_exact(d).map(|other| distance(other, &row)).fold(f64::INFINITY, f64::min);
            assert!(nearest < agree::ROW, "row {i}: {nearest}");
        }
        assert_eq!(all.len(), wanted * d);
    }
}

#[test]
fn a_streamed_run_can_be_stopped_and_keeps_documents_out() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let mut engine = open(&path);
    let text = documents(60);
    let streamed = Streamed { window: 64, buffer: 600, ..Streamed::at(3) };
    let bytes = |dictionary: &Dictionary| {
        let mut row = vec![0.0; dictionary.d_model()];
        (0..dictionary.n_features())
            .flat_map(|i| {
                dictionary.decoder_row(i, &mut row);
                row.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
    };
    let mut last = None;
    // The model's rows of one reading, at every call: a run that goes on has the same bits only if its rows have.
    let mut recorded: Vec<Vec<f32>> = Vec::new();
    let mut stream = engine.stream(&text, &streamed, &options(), &mut silent).unwrap();
    for part in 0..stream.parts.len() {
        let mut rows = Vec::new();
        (stream.read)(part, &mut rows, &mut || Ok(())).unwrap();
        recorded.push(rows);
    }
    let kept_out = stream.held_out.clone();
    let replay = |stream: &mut Stream<'_>, recorded: &Rc<Vec<Vec<f32>>>, kept_out: &[f32]| {
        let rows = recorded.clone();
        stream.held_out = kept_out.to_vec();
        stream.read = Box::new(move |part, out, alive| {
            out.extend_from_slice(&rows[part]);
            alive()
        });
    };
    let recorded = Rc::new(recorded);
    replay(&mut stream, &recorded, &kept_out);
    let held_out = stream.held_out.len() / stream.d_model;
    assert!(held_out > 100 && held_out < stream.parts.iter().sum(), "{held_out}");
    let whole =
        fit_stream(&mut stream, std::slice::from_ref(&options()), &[], &mut silent, &mut |_, m| last = Some(*m))
            .unwrap();
    drop(stream);
    let last = last.unwrap().held_out.expect("measured on what was kept out");
    assert!(last.rows == held_out && last.fvu < 1.0, "{last:?}");
    let fingerprint = Model::open(&path).unwrap().fingerprint().to_owned();
    assert_eq!((&whole[0].info().model_fingerprint, whole[0].info().layer), (&fingerprint, Some(3)));
    assert_eq!(whole[0].feature_stats().unwrap().len(), 64);

    let dir = tempfile::tempdir().unwrap();
    let checkpoint = [dir.path().join("run.safetensors")];
    let mut left = 25;
    let mut stream = engine.stream(&text, &streamed, &options(), &mut silent).unwrap();
    replay(&mut stream, &recorded, &kept_out);
    let stopped = fit_stream(
        &mut stream,
        std::slice::from_ref(&options()),
        &checkpoint,
        &mut |_| {
            left -= 1;
            left > 0
        },
        &mut |_, _| (),
    );
    assert_eq!(stopped.unwrap_err().kind(), Kind::Cancelled);
    drop(stream);
    let mut stream = engine.stream(&text, &streamed, &options(), &mut silent).unwrap();
    replay(&mut stream, &recorded, &kept_out);
    let mut first = None;
    let resumed = fit_stream(&mut stream, std::slice::from_ref(&options()), &checkpoint, &mut silent, &mut |_, m| {
        first.get_or_insert(m.step);
    });
    assert!(bytes(&resumed.unwrap()[0]) == bytes(&whole[0]), "bit for bit");
    assert!(first.is_some_and(|first| first > 1), "{first:?}");
    drop(stream);
    let refused = engine.stream(&text, &streamed, &options(), &mut |_| false).err().unwrap();
    assert_eq!(refused.kind(), Kind::Cancelled, "what is kept out is read under the caller's eyes");
    let shorter =
        engine.stream(&text, &Streamed { buffer: 100, ..streamed.clone() }, &options(), &mut silent).err().unwrap();
    assert!(shorter.message().contains("256 or more, four batches"), "{shorter}");
    let none = engine.stream(&text[..1], &streamed, &options(), &mut silent).err().unwrap();
    assert!(none.message().contains("of 1 documents is 0"), "{none}");
    let layer = engine.stream(&text, &Streamed::at(30), &options(), &mut silent).err().unwrap();
    assert!(layer.message().contains("layer 30 does not exist"), "{layer}");
}

#[cfg(feature = "cli")]
#[test]
fn the_command_trains_from_text() {
    let _turn = support::turn();
    let Some(model) = support::model(support::SMOLLM) else { return };
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.jsonl");
    let lines: String = (0..40).map(|i| format!("{}\n", serde_json::json!({"text": format!("{i}. {TEXT}")}))).collect();
    std::fs::write(&text, lines).unwrap();
    let out = dir.path().join("d.gguf");
    let run = |more: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_tiller"))
            .args(["train", "sae", "-q", "--json", "--model"])
            .arg(&model)
            .arg("--text")
            .arg(&text)
            .args(["--layer", "3", "--features", "64", "--batch", "64", "--epochs", "1", "--buffer", "600"])
            .args(more)
            .arg("--out")
            .arg(&out)
            .output()
            .unwrap()
    };
    let made = run(&["--k", "4,8"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for mark in ["-k4", "-k8"] {
        let dictionary = Dictionary::open(&dir.path().join(format!("d{mark}.gguf"))).unwrap();
        assert_eq!((dictionary.n_features(), dictionary.info().layer), (64, Some(3)));
    }
    let refused = run(&["--buffer", "10"]);
    assert_eq!(refused.status.code(), Some(2), "an option twice");
    let rows = run(&["rows.npy"]);
    assert_eq!(rows.status.code(), Some(2), "rows beside a model");
}
