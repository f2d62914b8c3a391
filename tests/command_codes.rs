//! `tiller convert`, `tiller encode` and `tiller decode` on the shipped dictionary: rows and codes from anywhere, dense and
//! sparse alike, to other programs' directories and back, in ggml's types. No model is needed.

#![cfg(feature = "cli")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rand::Rng;
use serde_json::Value;
use tiller::dictionary::Dictionary;
use tiller::file::safetensors::{self, Dtype};
use tiller::file::{Tensors, npy};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/smollm2-135m-l19.gguf");
const ROWS: usize = 40;

fn tiller(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tiller")).args(args).output().expect("the command runs")
}

/// The JSON that a call prints, which has to succeed.
#[track_caller]
fn json(args: &[&str]) -> Value {
    let output = tiller(&[&["--json"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
}

/// The error of a call that has to fail, by its arguments (2) or in its work (1).
#[track_caller]
fn fails(args: &[&str]) -> String {
    let output = tiller(args);
    let code = output.status.code();
    assert!(matches!(code, Some(1 | 2)), "{args:?}: {code:?} {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// A directory with rows that the shipped dictionary explains: sums of a few of its features, and noise.
struct Place {
    dir: tempfile::TempDir,
    rows: Vec<f32>,
    d: usize,
}

impl Place {
    fn new() -> Self {
        let (dir, dictionary) = (tempfile::tempdir().unwrap(), Dictionary::open(Path::new(SHIPPED)).unwrap());
        let (d, n) = (dictionary.d_model(), dictionary.n_features());
        let mut random = tiller::num::rng(11);
        // Rare features have activations like no row's: many at once make rows that no dictionary could know.
        let often: Vec<u32> =
            (0..n as u32).filter(|&i| dictionary.stats(i as usize).unwrap().density > 0.005).collect();
        let mut rows = Vec::new();
        for _ in 0..ROWS {
            let code = |_| {
                let id = often[random.random_range(0..often.len())];
                (id, dictionary.stats(id as usize).unwrap().mean * random.random_range(1.0f32..2.0))
            };
            let codes: Vec<(u32, f32)> = (0..24).map(code).collect();
            let mut row = vec![0.0; d];
            dictionary.decode(&codes, &mut row);
            rows.extend(row.iter().map(|v| v + random.random_range(-0.1f32..0.1)));
        }
        let place = Self { dir, rows, d };
        npy::write(&place.path("rows.npy"), Dtype::F32, &[ROWS, d], bytemuck::cast_slice(&place.rows)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let tensors = Tensors::open(&self.path(name)).unwrap();
        let name = tensors.names().next().unwrap().to_owned();
        tensors.get(&name).unwrap().to_f32().unwrap().into_owned()
    }

    /// The rows again, as dense codes of `dictionary` in `out`.
    #[track_caller]
    fn encode(&self, dictionary: &str, out: &str) -> Value {
        json(&["encode", dictionary, "--rows", &self.text("rows.npy"), "--out", &self.text(out)])
    }
}

#[test]
fn dense_and_sparse_codes_decode_to_the_same_bytes() {
    let place = Place::new();
    let dense = place.encode(SHIPPED, "codes.npy");
    let sparse = place.encode(SHIPPED, "codes.safetensors");
    assert_eq!((&dense["active"], &dense["rows"]), (&sparse["active"], &Value::from(ROWS)));
    assert!(dense["active"].as_u64().unwrap() > 5 * ROWS as u64, "{dense}");
    for codes in ["codes.npy", "codes.safetensors"] {
        let out = place.text(&format!("{codes}.rows.npy"));
        json(&["decode", SHIPPED, "--codes", &place.text(codes), "--out", &out]);
    }
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert_eq!(bytes("codes.npy.rows.npy"), bytes("codes.safetensors.rows.npy"));
    // They are the rows, but for what the dictionary does not explain.
    let back = place.values("codes.npy.rows.npy");
    let d = place.d;
    let mean: Vec<f32> = (0..d).map(|j| place.rows.iter().skip(j).step_by(d).sum::<f32>() / ROWS as f32).collect();
    let error: f32 = place.rows.iter().zip(&back).map(|(a, b)| (a - b).powi(2)).sum();
    let spread: f32 = place.rows.iter().zip(mean.iter().cycle()).map(|(a, m)| (a - m).powi(2)).sum();
    assert!(error < 0.3 * spread, "{}", error / spread);
    // The codes are those of the library.
    let dictionary = Dictionary::open(Path::new(SHIPPED)).unwrap();
    let (values, mut f) = (place.values("codes.npy"), vec![0.0; dictionary.n_features()]);
    for (row, codes) in place.rows.chunks_exact(place.d).zip(values.chunks_exact(dictionary.n_features())) {
        dictionary.encode(row, &mut f);
        assert_eq!(codes, f);
    }
    // Sparse codes are plain arrays: three columns, and the shape.
    let tensors = Tensors::open(&place.path("codes.safetensors")).unwrap();
    let column = |name: &str| tensors.get(name).unwrap().to_i64().unwrap();
    assert_eq!(column("shape"), [ROWS as i64, dictionary.n_features() as i64]);
    assert!(column("row").is_sorted() && column("row").len() == column("feature").len());
}

#[test]
fn rows_come_from_every_container() {
    let place = Place::new();
    place.encode(SHIPPED, "codes.npy");
    let expected = std::fs::read(place.path("codes.npy")).unwrap();
    let bytes: &[u8] = bytemuck::cast_slice(&place.rows);
    let mut one = safetensors::Writer::new();
    one.tensor("x", Dtype::F32, &[ROWS, place.d], bytes.to_vec());
    one.write(&place.path("one.safetensors")).unwrap();
    let mut two = safetensors::Writer::new();
    two.tensor("x", Dtype::F32, &[ROWS, place.d], bytes.to_vec());
    two.tensor("y", Dtype::F32, &[1], vec![0; 4]);
    two.write(&place.path("two.safetensors")).unwrap();
    for (rows, name) in [("one.safetensors", None), ("two.safetensors", Some("x"))] {
        let (rows, out) = (place.text(rows), place.text("again.npy"));
        let mut args = vec!["encode", SHIPPED, "--rows", &rows, "--out", &out];
        args.extend(name.iter().flat_map(|name| ["--name", name]));
        json(&args);
        assert_eq!(std::fs::read(place.path("again.npy")).unwrap(), expected, "{rows}");
    }
    let error = fails(&["encode", SHIPPED, "--rows", &place.text("two.safetensors"), "--out", &place.text("x.npy")]);
    assert!(error.contains("expected one array, found x, y"), "{error}");
    let error = fails(&["encode", SHIPPED, "--rows", &place.text("rows.npy"), "--out", &place.text("x.csv")]);
    assert!(error.contains("expected .npy or .safetensors"), "{error}");
    npy::write(&place.path("narrow.npy"), Dtype::F32, &[2, 3], vec![0; 24]).unwrap();
    let error = fails(&["encode", SHIPPED, "--rows", &place.text("narrow.npy"), "--out", &place.text("x.npy")]);
    assert!(error.contains("expected rows of width 576, found 3"), "{error}");
    let error = fails(&["decode", SHIPPED, "--codes", &place.text("narrow.npy"), "--out", &place.text("x.npy")]);
    assert!(error.contains("found 3"), "{error}");
    assert!(!place.path("x.npy").exists(), "what failed leaves nothing behind");
}

#[test]
fn rows_that_are_not_finite_are_refused_by_number() {
    let place = Place::new();
    let mut rows = place.rows.clone();
    rows[17 * place.d + 3] = f32::NAN;
    let from = place.path("nan.npy");
    npy::write(&from, Dtype::F32, &[ROWS, place.d], bytemuck::cast_slice(&rows)).unwrap();
    for out in ["codes.npy", "codes.safetensors"] {
        let (from, out) = (from.to_str().unwrap(), place.path(out));
        let error = fails(&["encode", SHIPPED, "--rows", from, "--out", out.to_str().unwrap()]);
        assert!(error.contains("row 17, column 3: expected a finite number, found NaN"), "{error}");
        assert!(!out.exists());
    }
}

#[test]
fn sparse_codes_that_point_outside_are_refused() {
    let place = Place::new();
    for (row, feature, part) in [(5u32, 1u32, "row below 2"), (0, 4_000_000, "feature below")] {
        let n = Dictionary::open(Path::new(SHIPPED)).unwrap().n_features();
        let mut file = safetensors::Writer::new();
        file.tensor("row", Dtype::U32, &[1], row.to_le_bytes().to_vec());
        file.tensor("feature", Dtype::U32, &[1], feature.to_le_bytes().to_vec());
        file.tensor("value", Dtype::F32, &[1], 1f32.to_le_bytes().to_vec());
        let shape = [2i64, n as i64];
        file.tensor("shape", Dtype::I64, &[2], bytemuck::cast_slice(&shape).to_vec());
        file.write(&place.path("bad.safetensors")).unwrap();
        let error =
            fails(&["decode", SHIPPED, "--codes", &place.text("bad.safetensors"), "--out", &place.text("x.npy")]);
        assert!(error.contains("entry 0") && error.contains(part), "{error}");
    }
}

/// To SAELens and to sparsify, and from there into our own file again: the same features are active, by the same amounts.
#[test]
fn to_other_programs_and_back() {
    let place = Place::new();
    // The shipped dictionary steers by thresholds; sparsify knows only TopK, so it gets one that is.
    let shipped = Dictionary::open(Path::new(SHIPPED)).unwrap();
    let settings = tiller::dictionary::Settings {
        activation: tiller::dictionary::Activation::TopK { k: 24 },
        ..*shipped.settings()
    };
    let top_k = place.text("topk.gguf");
    shipped.with_settings(settings).save_gguf(Path::new(&top_k), tiller::file::gguf::GgmlType::F32).unwrap();
    for (dictionary, to) in [(SHIPPED, "saelens"), (&top_k, "saelens"), (&top_k, "sparsify")] {
        place.encode(dictionary, "codes.npy");
        let (out, back) = (place.text(&format!("{to}.out")), place.text("back.gguf"));
        let converted = json(&["convert", dictionary, "--to", to, "--out", &out]);
        assert!(converted["cosine"].is_null(), "{converted}");
        let converted = json(&["convert", &out, "--quant", "f32", "--out", &back, "--rows", &place.text("rows.npy")]);
        assert_eq!(converted["cosine"]["encoder"]["min"], 1.0, "{converted}");
        let l0 = &converted["quality"]["l0"];
        assert_eq!(l0[0], l0[1], "{converted}");
        for copy in [&out, &back] {
            place.encode(copy, "copy.npy");
            let (a, b) = (place.values("codes.npy"), place.values("copy.npy"));
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * a.abs().max(1.0);
            // A feature at its threshold may fall on the other side: the folded weights differ in the last bit.
            let apart = a.iter().zip(&b).filter(|pair| !close(*pair)).count();
            let active = a.iter().filter(|v| **v > 0.0).count();
            assert!(apart * 200 <= active, "{to}: {apart} of {active} differ");
        }
        std::fs::remove_dir_all(&out).unwrap();
    }
    let error = fails(&["convert", SHIPPED, "--to", "sparsify", "--out", &place.text("no")]);
    assert!(error.contains("sparsify has no activation batchtopk"), "{error}");
}

/// What a type costs is printed, and grows as bits get fewer; dictionaries of ggml's types open, encode, decode, are sliced.
#[test]
fn in_every_type_that_fits() {
    let place = Place::new();
    let rows = place.text("rows.npy");
    let mut last = 2.0;
    for (quant, at_least) in
        [("f16", 0.9999), ("q8_0", 0.999), ("q5_1", 0.995), ("q5_0", 0.995), ("q4_1", 0.98), ("q4_0", 0.98)]
    {
        let out = place.text(&format!("{quant}.gguf"));
        let said = json(&["convert", SHIPPED, "--quant", quant, "--out", &out, "--rows", &rows]);
        let mean = said["cosine"]["encoder"]["mean"].as_f64().unwrap();
        assert!(mean >= at_least && mean <= 1.0, "{quant}: {said}");
        assert!(mean <= last + 0.002, "{quant} is better than what has more bits: {said}");
        last = mean;
        let (l0, fvu) = (&said["quality"]["l0"], &said["quality"]["fvu"]);
        assert!((l0[1].as_f64().unwrap() / l0[0].as_f64().unwrap() - 1.0).abs() < 0.25, "{quant}: {said}");
        assert!(fvu[1].as_f64().unwrap() < fvu[0].as_f64().unwrap() + 0.05, "{quant}: {said}");

        let dictionary = Dictionary::open(Path::new(&out)).unwrap();
        assert_eq!(dictionary.storage().to_lowercase(), quant);
        let info = json(&["info", &out]);
        assert_eq!(info["stored_as"].as_str().unwrap().to_lowercase(), quant, "{info}");
        place.encode(&out, "codes.npy");
        let (codes, n) = (place.values("codes.npy"), dictionary.n_features());
        let mut f = vec![0.0; n];
        for (row, codes) in place.rows.chunks_exact(place.d).zip(codes.chunks_exact(n)) {
            dictionary.encode(row, &mut f);
            assert_eq!(codes, f, "{quant}");
        }
        let active: Vec<u32> = (0..n as u32).filter(|&i| f[i as usize] > 0.0).take(3).collect();
        let slice = dictionary.slice(&active).unwrap();
        let (mut few, last_row) = (vec![0.0; active.len()], &place.rows[(ROWS - 1) * place.d..]);
        slice.encode(last_row, &mut few);
        assert!(few.iter().zip(&active).all(|(f_j, &i)| *f_j == f[i as usize]), "{quant}: {few:?}");
        let (mut edited, mut direction) = (last_row.to_vec(), vec![0.0; place.d]);
        slice.edit(&[2.0, 0.0, 0.0][..active.len()], &mut edited);
        dictionary.decoder_row(active[0] as usize, &mut direction);
        let moved = edited.iter().zip(last_row).zip(&direction).all(|((e, x), d)| (e - x - 2.0 * d).abs() < 1e-4);
        assert!(moved || slice.scale(last_row) != 1.0, "{quant}");
    }
    // 576 is no multiple of 256.
    let error = fails(&["convert", SHIPPED, "--quant", "q4_k", "--out", &place.text("k.gguf")]);
    assert!(
        error.contains("Q4_K needs a width that is a multiple of 256, found 576") && error.contains("Q4_0"),
        "{error}"
    );
    let error = fails(&["convert", SHIPPED, "--quant", "iq2_xxs", "--out", &place.text("k.gguf")]);
    assert!(error.contains("importance matrix"), "{error}");
    assert!(!place.path("k.gguf").exists());
}
