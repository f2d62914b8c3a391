//! Temporal models on harvested rows: shards, a dictionary on top, what is refused, and the file as others read it.

use std::path::Path;
use std::sync::Arc;

use tiller::Kind;
use tiller::activations::{Activations, Meta, RowType, Writer};
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::file::safetensors::File;
use tiller::progress::silent;
use tiller::train::temporal::{Process, Sequences, Shape, Temporal, TwoStageOptions, forecast, recovery, two_stage};

const N: usize = 8;
const DOCUMENT: usize = 400;
/// Codes are never negative: the process is lifted by this.
const LIFT: f32 = 60.0;

/// Harvests rows as documents of [`DOCUMENT`] rows, each behind an attention sink at position 0.
fn harvest(directory: &Path, rows: &[f32]) -> Activations {
    let meta = Meta {
        format: 1,
        model: "toy".into(),
        model_fingerprint: "f".into(),
        layer: 3,
        hook: "resid_post".into(),
        d_model: N,
        dtype: RowType::F32,
        window: DOCUMENT + 1,
        n_rows: 0,
        shards: vec![],
        documents_done: 0,
        windows_done: 0,
        text: "t".into(),
        complete: false,
    };
    let mut writer = Writer::open(directory, meta, 2000).unwrap();
    let mut done = 0;
    for document in rows.chunks(DOCUMENT * N) {
        let mut window = vec![1e4; N];
        window.extend_from_slice(document);
        let tokens: Vec<i32> = (0..window.len() / N).map(|t| t as i32).collect();
        writer.window(&window, &tokens).unwrap();
        done += 1;
        if writer.is_full() {
            writer.flush(done, 0).unwrap();
        }
    }
    writer.finish(done, 0, true).unwrap();
    Activations::open(directory).unwrap()
}

/// A ReLU dictionary whose features are the coordinates, and as many others that never fire.
fn dictionary(layer: usize) -> Arc<Dictionary> {
    let unit: Vec<f32> = (0..2 * N * N).map(|at| if at / N == at % N { 1.0 } else { 0.0 }).collect();
    let parts = Parts {
        d_model: N,
        encoder: unit.clone(),
        decoder: unit,
        encoder_bias: vec![0.0; 2 * N],
        decoder_bias: vec![0.0; N],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings::new(Activation::Relu),
        info: Info { name: "coordinates".into(), layer: Some(layer), ..Info::default() },
    };
    Arc::new(Dictionary::from_parts(parts).unwrap())
}

fn options() -> TwoStageOptions {
    TwoStageOptions { n_latents: N, threads: 1, ..TwoStageOptions::default() }
}

#[test]
fn shards_are_rows_in_order_without_their_sinks() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::new(Shape { n_latents: N, lags: 2, seed: 4 }).unwrap();
    let x = {
        let z = process.latents(20 * DOCUMENT);
        process.mix(&z)
    };
    let rows = harvest(dir.path(), &x);
    assert!(rows.shards().len() > 2, "documents lie in several shards");
    let harvested = Sequences::from_activations(&rows).unwrap();
    assert_eq!((harvested.len(), harvested.n_documents(), harvested.width()), (20 * DOCUMENT, 20, N));
    let bounds: Vec<usize> = (0..=20).map(|k| k * DOCUMENT).collect();
    let memory = Sequences::from_rows(N, x, &bounds).unwrap();
    let a = two_stage(&harvested, &options(), &mut silent).unwrap();
    let b = two_stage(&memory, &options(), &mut silent).unwrap();
    assert_eq!((a.lagged(), a.instantaneous(), a.order()), (b.lagged(), b.instantaneous(), b.order()));
    assert_eq!((a.origin().model.as_str(), a.origin().point.map(|p| p.layer())), ("toy", Some(3)));
}

#[test]
fn features_of_a_dictionary_keep_their_numbers_and_directions() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::new(Shape { n_latents: N, lags: 2, seed: 6 }).unwrap();
    let z = process.latents(60 * DOCUMENT);
    let lifted: Vec<f32> = z.iter().map(|v| v + LIFT).collect();
    let rows = harvest(dir.path(), &lifted);
    let features: Vec<u32> = (0..N as u32).collect();
    let codes = Sequences::from_features(&rows, &dictionary(3), &features, 2, &mut silent).unwrap();
    let (kept, held) = codes.hold_out(5).unwrap();
    assert_eq!((kept.n_documents(), held.n_documents()), (48, 12));
    let model = two_stage(&kept, &options(), &mut silent).unwrap();
    let found = recovery(&process, &model, &z, &z).unwrap();
    assert!(found.f1_lagged >= 0.9 && found.f1_instantaneous >= 0.9, "{found:?}");
    assert!((model.mean()[0] - LIFT).abs() < 1.0);
    let ahead = forecast(&model, &held, 1, &mut silent).unwrap();
    assert!(ahead.from_past > 0.05 && ahead.from_shuffled_past < 0.0, "{ahead:?}");
    assert!(ahead.from_past_and_present > ahead.from_past, "{ahead:?}");

    // The file, as anyone reads it.
    let path = dir.path().join("t.safetensors");
    model.save(&path).unwrap();
    let file = File::open(&path).unwrap();
    assert_eq!(file.metadata("dictionary"), Some("coordinates"));
    assert_eq!(file.tensor("B").unwrap().shape(), [2, N, N]);
    assert_eq!(*file.tensor("M").unwrap().to_f32().unwrap(), *model.instantaneous());
    assert_eq!(file.tensor("features").unwrap().to_i64().unwrap(), (0..N as i64).collect::<Vec<_>>());
    let a = file.tensor("A").unwrap();
    assert_eq!(a.shape(), [N, N]);
    assert!(a.to_f32().unwrap().iter().enumerate().all(|(at, &v)| v == if at / N == at % N { 1.0 } else { 0.0 }));
    assert_eq!(Temporal::open(&path).unwrap(), model);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::new(Shape { n_latents: N, lags: 1, seed: 4 }).unwrap();
    let lifted: Vec<f32> = process.latents(4 * DOCUMENT).iter().map(|v| v + LIFT).collect();
    let rows = harvest(dir.path(), &lifted);
    let from = |dictionary: &Dictionary, features: &[u32]| {
        let made = Sequences::from_features(&rows, dictionary, features, 1, &mut silent);
        made.err().expect("an error")
    };
    let error = from(&dictionary(5), &[0, 1]);
    assert_eq!(error.kind(), Kind::Mismatch, "{error}");
    assert_eq!(from(&dictionary(3), &[1, 0]).kind(), Kind::Argument);
    assert_eq!(from(&dictionary(3), &[0, 99]).kind(), Kind::Argument);
    // Features that always fire, or never, say nothing about the text.
    let error = Sequences::from_dictionary(&rows, &dictionary(3), 8, 1, &mut silent).err().expect("an error");
    assert_eq!(error.kind(), Kind::Argument);
    assert!(error.message().contains("0.1 % to 20 %"), "{error}");
    let error = Sequences::from_dictionary(&rows, &dictionary(3), 8, 1, &mut |_| false).err().expect("an error");
    assert_eq!(error.kind(), Kind::Cancelled);
    // A dead feature is constant.
    let dead = Sequences::from_features(&rows, &dictionary(3), &[0, 12], 1, &mut silent).unwrap();
    let error = two_stage(&dead, &options(), &mut silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Numeric);
    assert!(error.message().contains("column 1 is constant"), "{error}");
    // A forecast of other latents.
    let codes = Sequences::from_features(&rows, &dictionary(3), &[0, 1, 2], 1, &mut silent).unwrap();
    let model = two_stage(&codes, &TwoStageOptions { lags: 1, ..options() }, &mut silent).unwrap();
    let others = Sequences::from_features(&rows, &dictionary(3), &[0, 1, 3], 1, &mut silent).unwrap();
    assert_eq!(forecast(&model, &others, 1, &mut silent).unwrap_err().kind(), Kind::Mismatch);
}
