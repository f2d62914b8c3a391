//! Every way in which a safetensors file can be wrong gets an error that names the file, what was expected and what was
//! found.

use tiller::Kind;
use tiller::file::safetensors::File;

fn open(bytes: &[u8]) -> Result<File, (Kind, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    std::fs::write(&path, bytes).unwrap();
    File::open(&path).map_err(|e| {
        let prefix = format!("{}: ", path.display());
        let rest = e.message().strip_prefix(&prefix).expect("the message starts with the path");
        (e.kind(), rest.to_owned())
    })
}

/// A file with this header and `n` bytes of data.
fn file(header: &str, n: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.resize(out.len() + n, 0);
    out
}

#[track_caller]
fn malformed(bytes: &[u8], expected: &str) {
    let (kind, found) = open(bytes).expect_err("a malformed file was opened");
    assert_eq!(found, expected);
    assert_eq!(kind, Kind::Format);
}

const VALID: &str = r#"{"__metadata__":{"a":"b"},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"u":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}"#;

#[test]
fn the_valid_file_is_valid() {
    let f = open(&file(VALID, 9)).unwrap();
    assert_eq!(f.names().collect::<Vec<_>>(), ["t", "u"]);
    assert_eq!(f.tensor("u").unwrap().shape(), [0usize; 0]);
}

#[test]
fn no_tensor_is_fine() {
    assert_eq!(open(&file("{}", 0)).unwrap().names().count(), 0);
}

#[test]
fn misaligned_floats_are_read_all_the_same() {
    let header =
        r#"{"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}"#;
    let mut bytes = file(header, 1);
    bytes.extend_from_slice(&1.5f32.to_le_bytes());
    let f = open(&bytes).unwrap();
    assert_eq!(*f.tensor("t").unwrap().to_f32().unwrap(), [1.5]);
}

#[test]
fn cut_short_at_every_byte() {
    let bytes = file(VALID, 9);
    for n in 0..bytes.len() {
        let (kind, message) = open(&bytes[..n]).expect_err("a cut file was opened");
        assert_eq!(kind, Kind::Format, "{n}: {message}");
        assert!(message.contains("expected") && message.contains("found"), "{n}: {message}");
    }
}

#[test]
fn empty_file() {
    malformed(&[], "not a safetensors file: expected 8 bytes of length, found 0");
}

#[test]
fn header_longer_than_any() {
    let expected = "not a safetensors file, or a damaged one: expected a header of at most 33554432 bytes, \
                    found 18446744073709551615";
    malformed(&[255; 16], expected);
}

#[test]
fn header_that_leaves_the_file() {
    malformed(&file("{}", 0)[..9], "header: expected 2 bytes, found 1 before the end of the file");
}

#[test]
fn header_that_is_no_json() {
    malformed(&file("{]", 0), "header: key must be a string at line 1 column 2");
}

#[test]
fn header_that_is_no_object() {
    malformed(&file("[]", 0), "header: invalid type: sequence, expected a JSON object at line 1 column 0");
}

#[test]
fn header_that_is_not_utf8() {
    let mut bytes = file("{\"a\":{}}", 0);
    bytes[10] = 0xff;
    malformed(&bytes, "header: invalid unicode code point at line 1 column 3");
}

#[test]
fn header_nested_too_deep() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    malformed(&file(&deep, 0), "header: recursion limit exceeded at line 1 column 132");
}

#[test]
fn tensor_twice() {
    let t = r#""t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let header = format!("{{{t},{t}}}");
    malformed(&file(&header, 1), "header: expected each tensor once, found \"t\" twice at line 1 column 105");
}

#[test]
fn tensor_of_an_unknown_type() {
    let header = r#"{"t":{"dtype":"Q8","shape":[1],"data_offsets":[0,1]}}"#;
    let (kind, message) = open(&file(header, 1)).unwrap_err();
    assert_eq!(kind, Kind::Format);
    assert!(message.starts_with("header: unknown variant `Q8`, expected one of `BOOL`"), "{message}");
}

#[test]
fn tensor_without_offsets() {
    let header = r#"{"t":{"dtype":"U8","shape":[1]}}"#;
    malformed(&file(header, 1), "header: missing field `data_offsets` at line 1 column 32");
}

#[test]
fn tensor_of_a_negative_dimension() {
    let header = r#"{"t":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#;
    malformed(&file(header, 1), "header: invalid value: integer `-1`, expected usize at line 1 column 54");
}

#[test]
fn tensor_that_leaves_the_file() {
    let header = r#"{"t":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#;
    let expected = "expected the tensors' data to end where the file ends, found 69 bytes in the file: cut short, or with \
                    bytes left over";
    malformed(&file(header, 8), expected);
}

#[test]
fn bytes_behind_the_last_tensor() {
    let header = r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let expected = "expected the tensors' data to end where the file ends, found 63 bytes in the file: cut short, or with \
                    bytes left over";
    malformed(&file(header, 2), expected);
}

#[test]
fn tensors_with_a_hole_between_them() {
    let header =
        r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"u":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#;
    let expected = "tensor \"u\": expected its data right behind the tensor before it, found a gap or an overlap";
    malformed(&file(header, 3), expected);
}

#[test]
fn tensors_that_overlap() {
    let header =
        r#"{"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"u":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
    let expected = "tensor \"u\": expected its data right behind the tensor before it, found a gap or an overlap";
    malformed(&file(header, 3), expected);
}

#[test]
fn tensor_that_ends_before_it_starts() {
    let header = r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#;
    let expected = "tensor \"t\": expected its data right behind the tensor before it, found a gap or an overlap";
    malformed(&file(header, 1), expected);
}

#[test]
fn tensor_whose_bytes_are_not_its_shapes() {
    let header = r#"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#;
    let expected = "a tensor's byte range: expected the size of its shape and type, found another (1 tensors)";
    malformed(&file(header, 4), expected);
}

#[test]
fn tensor_whose_size_overflows() {
    let header = format!(r#"{{"t":{{"dtype":"F32","shape":[{0},{0}],"data_offsets":[0,4]}}}}"#, u64::MAX);
    malformed(&file(&header, 4), "a tensor's shape: expected a size that fits 64 bits, found more");
}
