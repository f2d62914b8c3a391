//! Files that NumPy and torch wrote, read back: every type, shape, element and plain value.
//! `tests/data/containers/make.py` writes them, and what is in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tiller::file::{Dtype, Tensors, UNNAMED, View, npy};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/containers")
}

fn golden() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(data().join("golden.json")).unwrap();
    let Value::Object(files) = serde_json::from_str(&text).unwrap() else { panic!("an object") };
    files
}

fn dtype(name: &str) -> Dtype {
    match name {
        "float64" => Dtype::F64,
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        other => panic!("{other}"),
    }
}

fn numbers(view: &View<'_>) -> Vec<f32> {
    match view.to_f32() {
        Ok(values) => values.into_owned(),
        Err(_) => view.to_i64().unwrap().into_iter().map(|v| v as f32).collect(),
    }
}

#[test]
fn every_file_holds_what_was_saved() {
    let golden = golden();
    assert!(golden.len() >= 17, "{}", golden.len());
    for (file, expected) in golden {
        let tensors = Tensors::open(&data().join(&file)).unwrap_or_else(|e| panic!("{e}"));
        let names: BTreeSet<&str> = tensors.names().collect();
        let wanted: BTreeSet<&str> = expected["tensors"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, wanted, "{file}");
        for (name, expected) in expected["tensors"].as_object().unwrap() {
            let view = tensors.get(name).unwrap();
            assert_eq!(view.dtype(), dtype(expected["dtype"].as_str().unwrap()), "{file} {name}");
            assert_eq!(serde_json::json!(view.shape()), expected["shape"], "{file} {name}");
            let expected: Vec<f32> =
                expected["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            assert_eq!(numbers(&view), expected, "{file} {name}");
            assert_eq!(view.bytes().len(), expected.len() * view.dtype().bitsize() / 8, "{file} {name}");
            if let Some((map, range)) = view.mapped() {
                assert_eq!(map.bytes()[range], *view.bytes(), "{file} {name}");
            }
        }
        for (name, value) in expected["values"].as_object().unwrap() {
            assert_eq!(tensors.value(name), Some(value), "{file} {name}");
        }
        assert_eq!(tensors.value("bytes"), None);
    }
}

#[test]
fn what_lies_in_order_stays_in_the_map() {
    let mapped = |file: &str, name: &str| {
        let tensors = Tensors::open(&data().join(file)).unwrap();
        tensors.get(name).unwrap().mapped().map(|(_, range)| range.start)
    };
    // torch aligns storages to 64 bytes.
    for name in ["encoder.bias", "decoder.weight", "k", "threshold"] {
        assert_eq!(mapped("state_dict.pt", name).unwrap() % 64, 0, "{name}");
    }
    assert_eq!(mapped("state_dict.pt", "encoder.weight"), None, "the transpose of the decoder");
    assert!(mapped("views.pt", "row").is_some());
    assert!(mapped("params.npz", "W_dec").is_some());
    assert!(mapped("array.npy", "arr_0").is_some());
    assert_eq!(mapped("params_deflated.npz", "W_dec"), None);
    assert_eq!(mapped("fortran.npz", "float32"), None);
    assert_eq!(mapped("big_endian.npz", "float32"), None);
    assert!(mapped("big_endian.npz", "uint8").is_some(), "bytes have no order");
}

#[test]
fn scalars_and_missing_tensors() {
    let tensors = Tensors::open(&data().join("state_dict.pt")).unwrap();
    assert_eq!(tensors.get("k").unwrap().scalar_f32().unwrap(), 3.0);
    assert_eq!(tensors.get("threshold").unwrap().scalar_f32().unwrap(), -1.0);
    let error = tensors.get("b_dec").unwrap().scalar_f32().unwrap_err();
    assert!(error.message().ends_with("tensor \"b_dec\": expected one element, found shape [4]"), "{error}");
    let error = tensors.get("bias").unwrap_err();
    let expected =
        "expected a tensor \"bias\", found b_dec, decoder.weight, encoder.bias, encoder.weight, k, threshold";
    assert!(error.message().ends_with(expected), "{error}");
    assert!(tensors.opt("bias").is_none());
}

#[test]
fn arrays_are_written_as_numpy_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["array.npy", "bf16.npy"] {
        let theirs = Tensors::open(&data().join(file)).unwrap();
        let view = theirs.get(UNNAMED).unwrap();
        let path = dir.path().join(file);
        npy::write(&path, view.dtype(), view.shape(), view.bytes()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(data().join(file)).unwrap(), "{file}");
    }
}

#[test]
fn strings_beside_numbers_are_refused_alone() {
    let tensors = Tensors::open(&data().join("strings.npz")).unwrap();
    assert_eq!(*tensors.get("bias").unwrap().to_f32().unwrap(), [0.0, 1.0]);
    for (name, descr) in [("words", "<U5"), ("objects", "|O"), ("complex", "<c16")] {
        let error = tensors.get(name).unwrap_err();
        let expected =
            format!("array \"{name}\": expected floats, integers or bools of up to 8 bytes, found type \"{descr}\"");
        assert!(error.message().ends_with(&expected), "{error}");
        assert_eq!(error.kind(), tiller::Kind::Unsupported);
        assert!(tensors.opt(name).is_none());
    }
}

#[test]
fn the_same_file_in_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("named.pt");
    let mut writer = tiller::file::safetensors::Writer::new();
    writer.tensor("b", Dtype::U8, &[2], &[1u8, 2][..]);
    writer.tensor("a", Dtype::F32, &[1], 0.5f32.to_le_bytes().to_vec());
    writer.write(&path).unwrap();
    let tensors = Tensors::open(&path).unwrap();
    assert_eq!(tensors.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(tensors.get("a").unwrap().scalar_f32().unwrap(), 0.5);
}

#[test]
fn foreign_files_are_called_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pt");
    for (bytes, expected) in [
        (&b""[..], "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"GGUF\x03\0\0\0", "found GGUF"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"\x80\x04}.", "torch.save"),
        (&[&[0; 257][..], b"ustar\0"].concat(), "tar archive"),
        (b"hello, world", "something else"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Tensors::open(&path).unwrap_err();
        let told = format!("{error}: {}", error.hint().unwrap());
        assert!(told.contains(expected), "{told}");
        assert_eq!(error.kind(), tiller::Kind::Format);
    }
}

/// `torch.save(..., pickle_protocol=4, _use_new_zipfile_serialization=False)` was taken for somebody else's pickle.
#[test]
fn old_files_of_torch_open_whatever_the_protocol_of_their_first_pickle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pt");
    let old = std::fs::read(data().join("legacy.pt")).unwrap();
    let (number, rest) = old.strip_prefix(b"\x80\x02").unwrap().split_at(13);
    let wanted = Tensors::open(&data().join("legacy.pt")).unwrap();
    let frame = [b"\x95".as_slice(), &13u64.to_le_bytes()].concat();
    for (protocol, frame) in [(3, &[][..]), (4, &frame), (4, &[]), (5, &frame)] {
        std::fs::write(&path, [&[0x80, protocol], frame, number, rest].concat()).unwrap();
        let found = Tensors::open(&path).unwrap_or_else(|e| panic!("protocol {protocol}: {e}"));
        for name in wanted.names() {
            assert_eq!(numbers(&found.get(name).unwrap()), numbers(&wanted.get(name).unwrap()), "{protocol} {name}");
        }
    }
    std::fs::write(&path, [b"\x80\x06", number, rest].concat()).unwrap();
    assert!(Tensors::open(&path).is_err());
}
