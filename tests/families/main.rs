//! Every public family against its own code's results (tests/data/families/make.py), the traps that others fell into, and
//! files gone wrong.

mod export;
mod golden;
mod malformed;
mod traps;

use std::path::{Path, PathBuf};

use tiller::dictionary::Dictionary;
use tiller::file::safetensors::File;

/// A fixture.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/families").join(name)
}

/// What a family's own code makes of some rows.
struct Golden {
    /// `[n, d_in]`
    x: Vec<f32>,
    /// `[n, n_features]`
    codes: Vec<f32>,
    /// `[n, d_out]`
    reconstruction: Vec<f32>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let file = File::open(&data("golden").join(format!("{name}.safetensors"))).unwrap();
        let read = |name| file.tensor(name).unwrap().to_f32().unwrap().into_owned();
        Self { x: read("x"), codes: read("codes"), reconstruction: read("reconstruction") }
    }

    /// Codes and reconstructions of `dictionary` are these, to `tolerance` of a row's largest value; which features are
    /// active may differ by that much around a threshold.
    #[track_caller]
    fn check(&self, dictionary: &Dictionary, tolerance: f32, what: &str) {
        self.check_codes(dictionary, tolerance, what);
        let (d_in, d_out) = (dictionary.d_model(), dictionary.d_out());
        let batch = dictionary.encode_batch(&self.x, 2);
        for (r, x) in self.x.chunks_exact(d_in).enumerate() {
            let mut found = vec![0.0; d_out];
            dictionary.reconstruct(x, batch.row(r), &mut found);
            let expected = &self.reconstruction[r * d_out..(r + 1) * d_out];
            assert!(error(&found, expected) <= tolerance, "{what} row {r}: {found:?} for {expected:?}");
        }
    }

    #[track_caller]
    fn check_codes(&self, dictionary: &Dictionary, tolerance: f32, what: &str) {
        let (d_in, n) = (dictionary.d_model(), dictionary.n_features());
        assert_eq!(self.codes.len(), self.x.len() / d_in * n, "{what}");
        let batch = dictionary.encode_batch(&self.x, 2);
        let mut active = 0;
        for (r, x) in self.x.chunks_exact(d_in).enumerate() {
            let expected = &self.codes[r * n..(r + 1) * n];
            let mut found = vec![0.0; n];
            dictionary.encode(x, &mut found);
            assert!(error(&found, expected) <= tolerance, "{what} row {r}: {found:?} for {expected:?}");
            let mut dense = vec![0.0; n];
            batch.row(r).iter().for_each(|&(i, f)| dense[i as usize] = f);
            assert!(error(&dense, expected) <= tolerance, "{what} row {r} of a batch");
            active += found.iter().zip(expected).filter(|(a, b)| (**a > 0.0) != (**b > 0.0)).count();
        }
        assert_eq!(active, 0, "{what}: other features are active");
    }
}

/// Largest difference over the largest value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// A copy of a fixture's directory, to be spoiled.
fn copy(name: &str) -> (tempfile::TempDir, PathBuf) {
    let from = data(name);
    let dir = tempfile::tempdir().unwrap();
    // Names of directories say what files do not.
    let to = dir.path().join(name);
    copy_tree(&from, &to);
    (dir, to)
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// Changes the JSON object in a file.
fn edit(path: &Path, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let mut json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
}
