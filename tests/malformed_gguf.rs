//! Every way in which a GGUF file can be wrong gets an error that names the file, the place, what was expected and what
//! was found. Files are made by hand, byte by byte.

mod support;

use support::{ARRAY, BOOL, Raw, STR, U8, U32};
use tiller::Kind;
use tiller::file::gguf::Gguf;

/// Opens `raw` under `name`; the error's kind and its message behind the path.
fn open_as(name: &str, raw: &Raw) -> Result<Gguf, (Kind, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, &raw.0).unwrap();
    Gguf::open(&path).map_err(|e| {
        let prefix = format!("{}: ", path.display());
        let rest = e.message().strip_prefix(&prefix).expect("the message starts with the path");
        (e.kind(), rest.to_owned())
    })
}

#[track_caller]
fn refused(raw: Raw, kind: Kind, expected: &str) {
    let (found_kind, found) = open_as("a.gguf", &raw).expect_err("a malformed file was opened");
    assert_eq!(found, expected);
    assert_eq!(found_kind, kind);
}

#[track_caller]
fn malformed(raw: Raw, expected: &str) {
    refused(raw, Kind::Format, expected);
}

/// One key, right, and two tensors, right: what the others are variations of.
fn valid() -> Raw {
    Raw::header(2, 2)
        .key("general.architecture", STR)
        .str("test")
        .key("words", ARRAY)
        .u32(STR)
        .u64(2)
        .str("ab")
        .str("")
        .tensor("a", &[4, 2], 0, 0)
        .tensor("b", &[32], 8, 32)
        .data(32 + 34)
}

#[test]
fn the_valid_file_is_valid() {
    let gguf = open_as("a.gguf", &valid()).unwrap();
    assert_eq!(gguf.tensors().len(), 2);
    assert_eq!(gguf.array("words").unwrap().str(0), Some("ab"));
    assert_eq!(gguf.data(gguf.tensor("b").unwrap()).len(), 34);
}

#[test]
fn version_2_is_read() {
    let mut raw = valid();
    raw.0[4] = 2;
    assert_eq!(open_as("a.gguf", &raw).unwrap().version(), 2);
}

#[test]
fn no_key_and_no_tensor_are_fine() {
    let gguf = open_as("a.gguf", &Raw::header(0, 0)).unwrap();
    assert!(gguf.keys().is_empty() && gguf.tensors().is_empty());
}

#[test]
fn cut_short_at_every_byte() {
    let raw = valid();
    for n in 0..raw.0.len() {
        let (kind, message) = open_as("a.gguf", &Raw(raw.0[..n].to_vec())).expect_err("a cut file was opened");
        assert_eq!(kind, Kind::Format, "{n}: {message}");
        assert!(message.contains("expected") && message.contains("found"), "{n}: {message}");
    }
}

#[test]
fn empty_file() {
    malformed(Raw::default(), "at byte 0: not a GGUF file: expected \"GGUF\", found an empty file");
}

#[test]
fn downloads_that_brought_something_else() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n";
    malformed(
        Raw::default().bytes(pointer),
        "at byte 0: not a GGUF file: expected \"GGUF\", found a pointer of Git LFS",
    );
    malformed(
        Raw::default().bytes(b"\n<!DOCTYPE html><html>"),
        "at byte 0: not a GGUF file: expected \"GGUF\", found an HTML page",
    );
}

#[test]
fn wrong_magic() {
    malformed(Raw::default().bytes(b"GGML\x03\0\0\0"), "at byte 0: not a GGUF file: expected \"GGUF\", found \"GGML\"");
    malformed(
        Raw::default().bytes(&[0, 255, 7, 10]),
        "at byte 0: not a GGUF file: expected \"GGUF\", found \"\\x00\\xff\\x07\\n\"",
    );
}

#[test]
fn magic_only() {
    malformed(Raw::default().bytes(b"GGUF\x03"), "at byte 4: the version: expected 4 bytes, found 1 before the end");
}

#[test]
fn version_1() {
    let raw = Raw::default().bytes(b"GGUF").u32(1);
    refused(raw, Kind::Unsupported, "GGUF version: expected 2 or 3, little-endian, found 1");
}

#[test]
fn version_0_and_version_4() {
    for v in [0, 4] {
        let raw = Raw::default().bytes(b"GGUF").u32(v);
        refused(raw, Kind::Unsupported, &format!("GGUF version: expected 2 or 3, little-endian, found {v}"));
    }
}

#[test]
fn big_endian() {
    let raw = Raw::default().bytes(b"GGUF").bytes(&3u32.to_be_bytes()).bytes(&[0; 16]);
    refused(raw, Kind::Unsupported, "GGUF version: expected 2 or 3, little-endian, found big-endian 3");
}

#[test]
fn more_tensors_than_any_model() {
    malformed(
        Raw::header(u64::MAX, 0),
        "at byte 8: the number of tensors: expected at most 131072, found 18446744073709551615",
    );
}

#[test]
fn more_keys_than_any_model() {
    malformed(Raw::header(0, 65537), "at byte 16: the number of keys: expected at most 65536, found 65537");
}

#[test]
fn more_keys_than_the_file_has_room_for() {
    malformed(Raw::header(0, 5), "at byte 24: 5 keys: expected at least 14 bytes each, found 0 in all");
}

#[test]
fn more_tensors_than_the_file_has_room_for() {
    malformed(Raw::header(3, 0), "at byte 24: 3 tensors: expected at least 24 bytes each, found 0 in all");
}

#[test]
fn key_that_leaves_the_file() {
    let raw = Raw::header(0, 1).u64(100).bytes(&[b'k'; 20]);
    malformed(raw, "at byte 32: key 0: expected 100 bytes, found 20 before the end");
}

#[test]
fn key_that_is_too_long() {
    let raw = Raw::header(0, 1).u64(65536).bytes(&[b'k'; 20]);
    malformed(raw, "at byte 24: the length of key 0: expected at most 65535, found 65536");
}

#[test]
fn key_without_a_name() {
    malformed(Raw::header(0, 1).key("", U32).u32(0), "at byte 24: key 0: expected a name, found an empty string");
}

#[test]
fn key_that_is_not_utf8() {
    let raw = Raw::header(0, 1).u64(2).bytes(b"\xff\xfe").u32(U32).u32(0);
    malformed(raw, "at byte 24: key 0: expected UTF-8, found invalid utf-8 sequence of 1 bytes from index 0");
}

#[test]
fn key_twice() {
    let raw = Raw::header(0, 2).key("k", U32).u32(0).key("k", U8).bytes(&[1]);
    malformed(raw, "at byte 41: key 1: expected a new name, found \"k\" again");
}

#[test]
fn value_of_an_unknown_type() {
    malformed(
        Raw::header(0, 1).key("k", 13).u32(0),
        "at byte 33: key \"k\": expected a value type from 0 to 12, found 13",
    );
}

#[test]
fn value_that_leaves_the_file() {
    malformed(
        Raw::header(0, 1).key("k", U32).bytes(&[0; 3]),
        "at byte 37: key \"k\": expected 4 bytes, found 3 before the end",
    );
}

#[test]
fn bool_of_two() {
    malformed(Raw::header(0, 1).key("k", BOOL).bytes(&[2]), "at byte 37: key \"k\": expected a bool, 0 or 1, found 2");
}

#[test]
fn string_that_leaves_the_file() {
    let raw = Raw::header(0, 1).key("k", STR).u64(7).bytes(b"abc");
    malformed(raw, "at byte 45: key \"k\": expected 7 bytes, found 3 before the end");
}

#[test]
fn string_that_is_too_long() {
    let raw = Raw::header(0, 1).key("k", STR).u64(u64::MAX);
    malformed(raw, "at byte 37: the length of key \"k\": expected at most 268435456, found 18446744073709551615");
}

#[test]
fn string_that_is_not_utf8() {
    let raw = Raw::header(0, 1).key("k", STR).u64(3).bytes(b"ab\xc3");
    malformed(raw, "at byte 37: key \"k\": expected UTF-8, found incomplete utf-8 byte sequence from index 2");
}

#[test]
fn array_of_an_unknown_type() {
    let raw = Raw::header(0, 1).key("k", ARRAY).u32(99).u64(0);
    malformed(raw, "at byte 37: key \"k\": expected a value type from 0 to 12, found 99");
}

#[test]
fn array_of_arrays() {
    let raw = Raw::header(0, 1).key("k", ARRAY).u32(ARRAY).u64(1).u32(U8).u64(0);
    let expected = "at byte 37: key \"k\": expected an array of numbers or strings, found an array of arrays";
    refused(raw, Kind::Unsupported, expected);
}

#[test]
fn array_that_leaves_the_file() {
    let raw = Raw::header(0, 1).key("k", ARRAY).u32(U32).u64(4).bytes(&[0; 15]);
    malformed(raw, "at byte 49: 4 elements of key \"k\": expected at least 4 bytes each, found 15 in all");
}

#[test]
fn array_whose_size_overflows() {
    let raw = Raw::header(0, 1).key("k", ARRAY).u32(U32).u64(u64::MAX);
    let expected =
        "at byte 49: 18446744073709551615 elements of key \"k\": expected at least 4 bytes each, found 0 in all";
    malformed(raw, expected);
}

#[test]
fn array_of_more_strings_than_the_file_has_room_for() {
    let raw = Raw::header(0, 1).key("k", ARRAY).u32(STR).u64(1 << 40).str("a");
    let expected = "at byte 49: 1099511627776 elements of key \"k\": expected at least 8 bytes each, found 9 in all";
    malformed(raw, expected);
}

#[test]
fn string_of_an_array_that_leaves_the_file() {
    let raw = Raw::header(0, 1).key("k", ARRAY).u32(STR).u64(2).str("a").u64(9).bytes(b"b");
    malformed(raw, "at byte 66: string 1 of key \"k\": expected 9 bytes, found 1 before the end");
}

#[test]
fn string_of_an_array_that_is_too_long() {
    let raw = Raw::header(0, 1).key("k", ARRAY).u32(STR).u64(1).u64(1 << 60);
    let expected =
        "at byte 49: the length of string 0 of key \"k\": expected at most 268435456, found 1152921504606846976";
    malformed(raw, expected);
}

#[test]
fn strings_of_an_array_may_be_any_bytes() {
    let raw = Raw::header(0, 1).key("k", ARRAY).u32(STR).u64(1).u64(1).bytes(b"\xff");
    let gguf = open_as("a.gguf", &raw).unwrap();
    let array = gguf.array("k").unwrap();
    assert_eq!((array.bytes(0), array.str(0)), (Some(&b"\xff"[..]), None));
}

#[test]
fn alignment_of_zero_or_three_or_too_much() {
    for v in [0, 3, 1 << 17] {
        let raw = Raw::header(0, 1).key("general.alignment", U32).u32(v);
        let expected = "key \"general.alignment\": expected a u32, a power of two up to 65536, found";
        malformed(raw, &format!("{expected} {v}"));
    }
}

#[test]
fn alignment_of_another_type() {
    let raw = Raw::header(0, 1).key("general.alignment", STR).str("32");
    malformed(raw, "key \"general.alignment\": expected a u32, a power of two up to 65536, found str");
}

#[test]
fn alignment_is_obeyed() {
    let raw = |offset| {
        let head = Raw::header(1, 1).key("general.alignment", U32).u32(8).tensor("a", &[1], 0, offset);
        let n = head.0.len().next_multiple_of(8) - head.0.len() + 12;
        head.bytes(&vec![0; n])
    };
    let gguf = open_as("a.gguf", &raw(8)).unwrap();
    assert_eq!((gguf.alignment(), gguf.tensors()[0].offset % 8), (8, 0));
    malformed(raw(4), "at byte 57: tensor \"a\": expected an offset aligned to 8, found 4");
}

#[test]
fn one_part_of_a_split_model() {
    let raw = Raw::header(0, 1).key("split.count", 2).bytes(&3u16.to_le_bytes());
    let expected =
        "expected a whole GGUF file, found one of 3 parts; join them first: llama-gguf-split --merge FIRST-PART WHOLE";
    refused(raw, Kind::Unsupported, expected);
}

#[test]
fn one_part_of_a_split_model_by_its_name() {
    let (kind, message) = open_as("m-00002-of-00005.gguf", &valid()).expect_err("a part was opened");
    assert_eq!(kind, Kind::Unsupported);
    assert!(message.starts_with("expected a whole GGUF file, found one of 5 parts"), "{message}");
    open_as("m-00001-of-00001.gguf", &valid()).unwrap();
}

#[test]
fn tensor_name_that_is_too_long() {
    let raw = Raw::header(1, 0).tensor(&"n".repeat(64), &[1], 0, 0).data(4);
    malformed(raw, "at byte 24: the length of the name of tensor 0: expected at most 63, found 64");
}

#[test]
fn tensor_name_that_is_not_utf8() {
    let raw = Raw::header(1, 0).u64(1).bytes(b"\x80").u32(1).u64(1).u32(0).u64(0).data(4);
    let expected =
        "at byte 24: the name of tensor 0: expected UTF-8, found invalid utf-8 sequence of 1 bytes from index 0";
    malformed(raw, expected);
}

#[test]
fn tensor_twice() {
    let raw = Raw::header(2, 0).tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 32).data(36);
    malformed(raw, "at byte 57: tensor 1: expected a new name, found \"t\" again");
}

#[test]
fn tensor_of_five_dimensions() {
    let raw = Raw::header(1, 0).tensor("t", &[1; 5], 0, 0).data(4);
    malformed(raw, "at byte 24: tensor \"t\": expected at most 4 dimensions, found 5");
}

#[test]
fn tensor_of_four_billion_dimensions() {
    let raw = Raw::header(1, 0).str("t").u32(u32::MAX).data(64);
    malformed(raw, "at byte 24: tensor \"t\": expected at most 4 dimensions, found 4294967295");
}

#[test]
fn tensor_of_a_negative_dimension() {
    let raw = Raw::header(1, 0).tensor("t", &[u64::MAX], 0, 0).data(4);
    malformed(raw, "at byte 24: tensor \"t\": expected a dimension below 2^63, found 18446744073709551615");
}

#[test]
fn tensor_whose_size_overflows() {
    let expected = |shape: &str| {
        format!("at byte 24: tensor \"t\" of type f32, shape {shape}: expected a size below 2^63 bytes, found more")
    };
    let big = 1 << 31;
    let raw = Raw::header(1, 0).tensor("t", &[big, big, big], 0, 0).data(4);
    malformed(raw, &expected("[2147483648, 2147483648, 2147483648]"));
    let hidden = Raw::header(1, 0).tensor("t", &[big, big, big, 0], 0, 0).data(4);
    malformed(hidden, &expected("[2147483648, 2147483648, 2147483648, 0]"));
}

#[test]
fn tensor_whose_rows_overflow() {
    let raw = Raw::header(1, 0).tensor("t", &[1 << 62], 0, 0).data(4);
    let expected = "at byte 24: tensor \"t\" of type f32, shape [4611686018427387904]: expected a size below 2^63 bytes, \
                    found rows of 4611686018427387904 elements";
    malformed(raw, expected);
}

#[test]
fn tensor_of_a_type_that_ggml_never_had() {
    let raw = Raw::header(1, 0).tensor("t", &[1], 1000, 0).data(4);
    malformed(raw, "at byte 24: tensor \"t\": expected a type that ggml has, found number 1000");
}

#[test]
fn tensor_of_a_type_that_ggml_has_retired() {
    let raw = Raw::header(1, 0).tensor("t", &[32], 31, 0).data(18);
    malformed(raw, "at byte 24: tensor \"t\": expected a type that ggml has, found number 31");
}

#[test]
fn tensor_of_broken_blocks() {
    let raw = Raw::header(1, 0).tensor("t", &[33], 8, 0).data(68);
    let expected =
        "at byte 24: tensor \"t\" of type q8_0, shape [33]: expected rows of a multiple of 32 elements, found 33";
    malformed(raw, expected);
}

#[test]
fn tensor_that_is_misaligned() {
    let raw = Raw::header(1, 0).tensor("t", &[1], 0, 16).data(36);
    malformed(raw, "at byte 24: tensor \"t\": expected an offset aligned to 32, found 16");
}

#[test]
fn tensor_that_leaves_the_file() {
    let raw = Raw::header(1, 0).tensor("t", &[9], 0, 0).data(32);
    let expected = "tensor \"t\": expected 36 bytes from byte 0 of the data, which starts at byte 64 of the file, \
                    found the file's end at byte 96";
    malformed(raw, expected);
}

#[test]
fn tensor_whose_place_overflows() {
    let raw = Raw::header(1, 0).tensor("t", &[9], 0, u64::MAX - 31).data(64);
    let expected = "tensor \"t\": expected 36 bytes from byte 18446744073709551584 of the data, which starts at byte 64 of \
                    the file, found the file's end at byte 128";
    malformed(raw, expected);
}

#[test]
fn tensors_that_overlap() {
    let raw = Raw::header(2, 0).tensor("a", &[16], 0, 0).tensor("b", &[1], 0, 32).data(64);
    let expected = "tensor \"b\": expected its data behind that of the tensor before it, which ends at byte 160, \
                    found it at byte 128";
    malformed(raw, expected);
}

#[test]
fn tensors_that_share_their_data() {
    let raw = Raw::header(2, 0).tensor("a", &[1], 0, 0).tensor("b", &[1], 0, 0).data(64);
    let expected = "tensor \"b\": expected its data behind that of the tensor before it, which ends at byte 100, \
                    found it at byte 96";
    malformed(raw, expected);
}

#[test]
fn tensor_list_that_ends_early() {
    let raw = Raw::header(1, 0).str("tensor.weight").u32(1).bytes(&[0; 3]);
    malformed(raw, "at byte 49: the shape of tensor \"tensor.weight\": expected 8 bytes, found 3 before the end");
}

#[test]
fn a_directory_and_a_missing_file() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Gguf::open(dir.path()).unwrap_err().kind(), Kind::Io);
    assert_eq!(Gguf::open(&dir.path().join("none")).unwrap_err().kind(), Kind::Io);
}
