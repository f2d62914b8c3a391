//! Every way in which an archive, an array or a pickle can be wrong gets an error that names the file and the place, and
//! costs no more memory than a small file may.

mod support;

use std::path::Path;

use support::container::pickle::{call, dict, global, int, ints, ordered_dict, program, storage, tensor, text, tuple};
use support::container::{End, Part, archive, archive_with, npy, npy_header, part, torch};
use support::memory::{self, Counting};
use tiller::Kind;
use tiller::file::Tensors;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What opening a file and reading everything in it may take: a little, and some for each byte.
fn allowed(n_bytes: usize) -> usize {
    (1 << 20) + 256 * n_bytes
}

/// Opens `bytes` as a file and reads everything in it.
fn read(bytes: &[u8]) -> Result<Vec<String>, (Kind, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a file");
    std::fs::write(&path, bytes).unwrap();
    let (result, peak) = memory::peak(|| {
        let tensors = Tensors::open(&path)?;
        for name in tensors.names() {
            let view = tensors.get(name)?;
            let _ = (view.bytes().len(), view.to_f32().is_ok(), view.to_i64().is_ok());
        }
        Ok(tensors.names().map(str::to_owned).collect())
    });
    assert!(peak <= allowed(bytes.len()), "{peak} bytes of memory for a file of {}", bytes.len());
    result.map_err(|e: tiller::Error| (e.kind(), rest(&path, e.message())))
}

/// The message behind the file's name, with which it starts.
fn rest(path: &Path, message: &str) -> String {
    let rest = message.strip_prefix(&format!("{}: ", path.display()));
    rest.unwrap_or_else(|| panic!("the message does not start with the file: {message}")).to_owned()
}

/// Each case is a file and what its error says; returns how many there were.
fn refused(kind: Kind, cases: &[(Vec<u8>, &str)]) -> usize {
    for (i, (bytes, expected)) in cases.iter().enumerate() {
        let (found, message) = read(bytes).expect_err(&format!("case {i} ({expected}) was read"));
        assert!(message.contains(expected), "case {i}: expected \"{expected}\", found \"{message}\"");
        assert_eq!(found, kind, "case {i}: {message}");
    }
    cases.len()
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/containers").join(name)).unwrap()
}

fn floats() -> Vec<u8> {
    npy(&npy_header("<f4", "(2, 3)"), &[1; 24])
}

/// A tensor that is right, over the storage of [`torch`].
fn right() -> Vec<u8> {
    tensor(&storage("FloatStorage", "0", 6), 0, &[2, 3], &[3, 1])
}

#[test]
fn the_valid_files_are_valid() {
    let _alone = memory::alone();
    assert_eq!(read(&archive(&[part("x.npy", floats()), part("notes.txt", "hello")])).unwrap(), ["x"]);
    assert_eq!(read(&archive(&[Part { deflated: true, ..part("d/x.npy", floats()) }])).unwrap(), ["d/x"]);
    let end = End { comment: b"PK\x05\x06 a comment".to_vec(), wide: true, ..End::default() };
    assert_eq!(read(&archive_with(&[part("x.npy", floats())], &end)).unwrap(), ["x"]);
    let n = (floats().len() as u64).to_le_bytes();
    let extra = [&[9, 0, 1, 0, 7, 1, 0, 16, 0][..], &n, &n].concat();
    let wide = Part { size: Some(u32::MAX), packed: Some(u32::MAX), extra, ..part("x.npy", floats()) };
    assert_eq!(read(&archive(&[wide])).unwrap(), ["x"], "sizes of 64 bits");
    let strings = part("s.npy", npy(&npy_header("<U1", "(1,)"), b"a\0\0\0"));
    assert_eq!(read(&archive(&[strings, part("x.npy", floats())])).unwrap(), ["x"], "strings beside numbers");
    assert_eq!(read(&floats()).unwrap(), ["arr_0"]);
    assert_eq!(read(&torch(&program(&[&dict(&[("w", &right())])]))).unwrap(), ["w"]);
    assert_eq!(read(&torch(&program(&[&right()]))).unwrap(), ["arr_0"]);
    let none = tensor(&storage("FloatStorage", "0", 6), 7, &[2, 0], &[2, 1]);
    assert_eq!(read(&torch(&program(&[&none]))).unwrap(), ["arr_0"], "a slice of nothing, past the end");
    assert!(read(&torch(&program(&[b"}"]))).unwrap().is_empty());
}

#[test]
fn what_lies_in_order_takes_no_memory() {
    let _alone = memory::alone();
    const N: i64 = 1 << 20;
    let floats = storage("FloatStorage", "0", N);
    let pickle = program(&[&dict(&[
        ("rows", &tensor(&floats, 0, &[N / 64, 64], &[64, 1])),
        ("columns", &tensor(&floats, 0, &[64, N / 64], &[1, 64])),
    ])]);
    let bytes = archive(&[part("a/data.pkl", pickle), part("a/data/0", vec![1u8; 4 << 20])]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pt");
    std::fs::write(&path, bytes).unwrap();
    let (tensors, peak) = memory::peak(|| Tensors::open(&path).unwrap());
    assert!(peak < 100_000, "{peak} bytes to open");
    let (n, peak) = memory::peak(|| tensors.get("rows").unwrap().bytes().len());
    assert_eq!((n, peak), (4 << 20, 0));
    let (n, peak) = memory::peak(|| tensors.get("columns").unwrap().bytes().len());
    assert_eq!((n, peak), (4 << 20, 4 << 20), "once");
    let (_, peak) = memory::peak(|| tensors.get("columns").unwrap().bytes().len());
    assert_eq!(peak, 0, "and kept");
}

#[test]
fn cut_short_at_every_byte() {
    let _alone = memory::alone();
    let mut n = 0;
    for name in ["params.npz", "params_deflated.npz", "array.npy", "tensor.pt", "legacy.pt"] {
        let bytes = fixture(name);
        for end in 0..bytes.len() {
            let (kind, message) = read(&bytes[..end]).expect_err(name);
            assert!(matches!(kind, Kind::Format | Kind::Unsupported), "{name}, {end} bytes: {message}");
            n += 1;
        }
    }
    assert!(n > 5000, "{n}");
}

#[test]
fn pickles_cut_short_at_every_byte() {
    let _alone = memory::alone();
    let pickle = program(&[&dict(&[("w", &right()), ("k", &int(3)), ("s", &ordered_dict())])]);
    assert_eq!(read(&torch(&pickle)).unwrap(), ["w"]);
    for end in 0..pickle.len() {
        let (_, message) = read(&torch(&pickle[..end])).expect_err("half a pickle was read");
        assert!(message.starts_with("a/data.pkl, byte "), "{message}");
    }
}

#[test]
fn archives() {
    let _alone = memory::alone();
    let one = || part("x.npy", floats());
    let with = |end: End| archive_with(&[one(), part("y.npy", floats())], &end);
    let changed = |change: fn(&mut Part)| {
        let mut part = one();
        change(&mut part);
        archive(&[part, Part { name: b"y.npy".to_vec(), ..one() }])
    };
    let behind = |bytes: &[u8]| [&archive(&[one()]), bytes].concat();
    let extra = |bytes: &[u8]| Part { size: Some(u32::MAX), extra: bytes.to_vec(), ..one() };
    let mut n = refused(
        Kind::Format,
        &[
            (b"PK\x03\x04".to_vec(), "expected the end of its directory, found none"),
            (b"PK\x05\x06".to_vec(), "expected the end of its directory, found none"),
            (behind(b"x"), "expected the end of its directory, found none"),
            (behind(&[0; 70_000]), "expected the end of its directory, found none"),
            (archive(&[]), "expected arrays of NumPy or a pickle of torch in the archive, found "),
            (archive(&[part("a.txt", "x")]), "in the archive, found a.txt"),
            (with(End { n: Some(0), ..End::default() }), "expected 0 entries, found "),
            (with(End { n: Some(1), ..End::default() }), "expected 1 entries, found "),
            (with(End { n: Some(3), ..End::default() }), "102 bytes, found 3 entries"),
            (with(End { n: Some(0xffff), ..End::default() }), "found 65535 entries"),
            (with(End { n: Some(u64::MAX), wide: true, ..End::default() }), "found 18446744073709551615 entries"),
            (with(End { bytes: Some(0), ..End::default() }), "in 0 bytes, found 2 entries"),
            (with(End { bytes: Some(50), ..End::default() }), "in 50 bytes, found 2 entries"),
            (with(End { bytes: Some(0xffff_ffff), ..End::default() }), "found 4294967295 bytes at byte"),
            (with(End { bytes: Some(u64::MAX), wide: true, ..End::default() }), "found 18446744073709551615 bytes"),
            (with(End { offset: Some(0), ..End::default() }), "entry 0: expected a whole entry"),
            (with(End { offset: Some(1), ..End::default() }), "entry 0: expected a whole entry"),
            (with(End { offset: Some(0xffff_fff0), ..End::default() }), "at byte 4294967280"),
            (with(End { offset: Some(u64::MAX), wide: true, ..End::default() }), "at byte 18446744073709551615"),
            (with(End { disk: 1, ..End::default() }), "expected one part, found number 1 of several"),
            (with(End { disk: 7, wide: true, ..End::default() }), "expected one part, found number 7 of several"),
            (archive(&[one(), one()]), "expected each name once, found \"x.npy\" twice"),
            (changed(|p| p.name = b"../x.npy".to_vec()), "expected a plain relative name, found \"../x.npy\""),
            (changed(|p| p.name = b"/x.npy".to_vec()), "expected a plain relative name, found \"/x.npy\""),
            (changed(|p| p.name = b"a/../../x.npy".to_vec()), "expected a plain relative name"),
            (changed(|p| p.name = b"a\\x.npy".to_vec()), "expected a plain relative name"),
            (changed(|p| p.name = b"a\0.npy".to_vec()), "expected a plain relative name, found \"a\\0.npy\""),
            (changed(|p| p.name = b"a\n.npy".to_vec()), "expected a plain relative name"),
            (changed(|p| p.name = b"".to_vec()), "expected a plain relative name, found \"\""),
            (changed(|p| p.name = b"\xff.npy".to_vec()), "expected a name in UTF-8"),
            (changed(|p| p.local_name = Some(b"z.npy".to_vec())), "expected the header of \"x.npy\" at byte 0"),
            (changed(|p| p.local_name = Some(vec![b'x'; 400])), "expected the header of \"x.npy\" at byte 0"),
            (changed(|p| p.local_method = Some(8)), "expected the header of \"x.npy\" at byte 0"),
            (changed(|p| p.offset = Some(1)), "expected the header of \"x.npy\" at byte 1"),
            (changed(|p| p.offset = Some(u32::MAX - 1)), "at byte 4294967294"),
            (changed(|p| p.size = Some(5)), "that come to 5"),
            (changed(|p| p.size = Some(u32::MAX)), "that come to 4294967295"),
            (changed(|p| p.packed = Some(5)), "found 5 bytes that come to"),
            (changed(|p| (p.packed, p.size) = (Some(4000), Some(4000))), "found 4000 bytes that come to 4000"),
            (changed(|p| (p.packed, p.size) = (Some(300), Some(300))), "found 300 bytes that come to 300"),
            (changed(|p| (p.packed, p.size) = (Some(160), Some(160))), "\"y.npy\": expected bytes of its own"),
            (archive(&[extra(&[1, 0, 8])]), "that come to 4294967295"),
            (archive(&[extra(&[1, 0, 4, 0, 1, 2, 3, 4])]), "expected a whole entry"),
            (archive(&[extra(&[1, 0, 99, 0, 1])]), "expected a whole entry"),
            (archive(&[extra(&[1, 0, 8, 0, 255, 255, 255, 255, 255, 255, 255, 255])]), "come to 18446744073709551615"),
        ],
    );
    n += refused(
        Kind::Unsupported,
        &[
            (changed(|p| p.flags = 1), "\"x.npy\": expected readable bytes, found encrypted ones"),
            (changed(|p| p.flags = 64), "found encrypted ones"),
            (changed(|p| p.flags = 1 << 13), "found encrypted ones"),
            (changed(|p| p.method = Some(9)), "found compression 9"),
            (changed(|p| p.method = Some(12)), "found compression 12"),
            (changed(|p| p.method = Some(14)), "found compression 14"),
            (changed(|p| p.method = Some(93)), "found compression 93"),
            (changed(|p| p.method = Some(0xffff)), "found compression 65535"),
        ],
    );
    assert!(n > 50, "{n}");
}

#[test]
fn what_inflates_to_something_else() {
    let _alone = memory::alone();
    let deflated = |change: fn(&mut Part)| {
        let mut part = Part { deflated: true, ..part("x.npy", floats()) };
        change(&mut part);
        archive(&[part])
    };
    let zeros =
        |n: usize| Part { deflated: true, ..part("x.npy", npy(&npy_header("|u1", &format!("({n},)")), &vec![0; n])) };
    let cases = [
        (deflated(|p| p.crc = Some(1)), "zip entry \"x.npy\": expected the checksum 00000001, found "),
        (deflated(|p| p.size = Some(20)), "expected 20 bytes, inflated at least 21"),
        (deflated(|p| p.size = Some(0)), "expected 0 bytes, inflated at least 1"),
        (deflated(|p| p.size = Some(900)), "expected 900 bytes, inflated "),
        (deflated(|p| p.size = Some(u32::MAX - 1)), "which cannot inflate to them"),
        (deflated(|p| p.size = Some(1 << 28)), "which cannot inflate to them"),
        (deflated(|p| (p.deflated, p.method, p.data) = (false, Some(8), vec![0xff; 40])), "found damaged ones"),
        (deflated(|p| p.data.truncate(60)), "expected "),
        // 20 MB of zeros in 20 KB.
        (archive(&[zeros(20 << 20)]), "expected at most "),
        (archive(&[Part { name: b"a/data.pkl".to_vec(), ..zeros(20 << 20) }]), "expected at most "),
    ];
    refused(Kind::Format, &cases);
}

#[test]
fn many_small_bombs_in_one_archive() {
    let _alone = memory::alone();
    // Each is within what deflate can do; together they are not.
    let data = npy(&npy_header("|u1", "(8000000,)"), &vec![0; 8_000_000]);
    let bombs: Vec<Part> = (0..4).map(|i| Part { deflated: true, ..part(&format!("{i}.npy"), data.clone()) }).collect();
    let bytes = archive(&bombs);
    drop((bombs, data));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bombs.npz");
    std::fs::write(&path, &bytes).unwrap();
    let (result, peak) = memory::peak(|| Tensors::open(&path));
    let message = result.unwrap_err().message().to_owned();
    assert!(message.contains("bytes of memory, for a file of this size"), "{message}");
    assert!(peak < (20 << 20) + 40 * bytes.len(), "{peak} bytes for a file of {}", bytes.len());
}

#[test]
fn arrays() {
    let _alone = memory::alone();
    let header = |descr: &str, shape: &str, n: usize| npy(&npy_header(descr, shape), &vec![0; n]);
    let version = |major: u8, length: &[u8]| [b"\x93NUMPY", &[major, 0][..], length].concat();
    let formats = [
        (header("<f4", "(2, 3)", 23), "array: expected 24 bytes of F32 for shape [2, 3], found 23"),
        (header("<f4", "(2, 3)", 25), "expected 24 bytes of F32 for shape [2, 3], found 25"),
        (header("<f4", "()", 0), "expected 4 bytes"),
        (header("<f8", "(1,)", 4), "expected 8 bytes"),
        (header("|u1", "(9223372036854775807, 9223372036854775807)", 1), "expected more than 2^64 bytes"),
        (header("<f8", "(2305843009213693952,)", 8), "expected more than 2^64 bytes"),
        (header("<f4", "(1000000000000,)", 24), "expected 4000000000000 bytes"),
        (header("<f4", "(18446744073709551616,)", 24), "expected a tuple of sizes"),
        (header("<f4", "(-1,)", 24), "expected a tuple of sizes"),
        (header("<f4", "(2.0, 3)", 24), "expected a tuple of sizes"),
        (header("<f4", "6", 24), "expected a tuple of sizes"),
        (header("<f4", "[2, 3]", 24), "expected a tuple of sizes"),
        (header("<f4", "None", 24), "expected a tuple of sizes"),
        (header("<f4", &format!("({})", "1,".repeat(65)), 4), "expected a tuple of sizes"),
        (header("<f4", &format!("({})", "(".repeat(30_000)), 4), "expected a tuple of sizes"),
        (npy("", &[]), "header: expected a dictionary"),
        (npy("{}", &[]), "expected the keys descr, fortran_order and shape"),
        (npy("{'descr': '<f4'", &[]), "expected a comma"),
        (npy("{'descr': '<f4',", &[]), "expected a key"),
        (npy("{'a': 1}", &[]), "expected no key \"a\", found it"),
        (npy("{'\u{1b}[31m': 1}", &[]), "expected no key \"\\u{1b}[31m\""),
        (npy("{'shape': (), 'shape': ()}", &[]), "expected the key \"shape\" once"),
        (npy("{'fortran_order': None}", &[]), "expected a bool"),
        (npy("__import__('os').system('id')", &[]), "expected a dictionary"),
        (b"\x93NUMPY".to_vec(), "expected NumPy's magic and version"),
        (b"\x93NUMPY\x01".to_vec(), "expected NumPy's magic and version"),
        (version(0, &[0, 0]), "expected version 1, 2 or 3 of NumPy's format, found 0"),
        (version(4, &[0, 0, 0, 0]), "found 4"),
        (version(255, &[0, 0, 0, 0]), "found 255"),
        (version(1, &[1]), "expected the length of the header, found the end"),
        (version(2, &[1, 0, 0]), "expected the length of the header, found the end"),
        (version(1, &[200, 0]), "expected 200 bytes of header, found 0"),
        (version(3, &[255, 255, 255, 255]), "expected a header of at most 65536 bytes, found 4294967295"),
        (version(2, &[0, 0, 2, 0]), "expected a header of at most 65536 bytes, found 131072"),
        (version(3, &[1, 0, 0, 0, 0xff]), "header: expected text"),
        (archive(&[part("deep/x.npy", "\u{0}")]), "array \"deep/x\": expected NumPy's magic"),
        (archive(&[part("x.npy", "")]), "array \"x\": expected NumPy's magic"),
    ];
    let unsupported = ["|O", "<c8", "<c16", "<U7", "|S7", "<M8[ns]", "<m8", "<f16", "|V1", "|V2048", "", "f4", "!f4"];
    let unsupported: Vec<_> = unsupported.iter().map(|d| (header(d, "(1,)", 8), "found type")).collect();
    let fields = npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}", &[0; 4]);
    let n = refused(Kind::Format, &formats)
        + refused(Kind::Unsupported, &unsupported)
        + refused(Kind::Unsupported, &[(fields, "found records with fields")]);
    assert!(n > 45, "{n}");
}

#[test]
fn pickles_that_want_to_run_something() {
    let _alone = memory::alone();
    let wanted = [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("__builtin__", "eval"),
        ("__builtin__", "set"),
        ("subprocess", "Popen"),
        ("subprocess", "check_output"),
        ("importlib", "import_module"),
        ("pickle", "loads"),
        ("runpy", "_run_code"),
        ("socket", "socket"),
        ("shutil", "rmtree"),
        ("codecs", "decode"),
        ("_codecs", "decode"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("collections", "defaultdict"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("torch", "load"),
        ("torch", "save"),
        ("torch", "complex64"),
        ("torch", "ComplexFloatStorage"),
        ("torch", "quint8"),
        ("torch", "Storage"),
        ("torch", ""),
        ("", ""),
        ("torch.hub", "load"),
        ("torch.jit", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.storage", "TypedStorage"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("torch._utils", "_import_dotted_name"),
        ("torch.nn.modules.linear", "Linear"),
        ("dictionary_learning.dictionary", "AutoEncoder"),
        ("__main__", "Model"),
    ];
    let mut cases = Vec::new();
    let names: Vec<String> = wanted.iter().map(|(module, name)| format!("found \"{module}.{name}\"")).collect();
    for ((module, name), expected) in wanted.iter().zip(&names) {
        let run = call(&global(module, name), &[&text("touch /tmp/hacked")]);
        cases.push((torch(&program(&[&run])), expected.as_str()));
        cases.push((torch(&program(&[&dict(&[("w", &run)])])), expected.as_str()));
        let on_the_stack = [&text(module)[..], &text(name), b"\x93", &tuple(&[&text("id")]), b"R"].concat();
        cases.push((torch(&program(&[&on_the_stack])), expected.as_str()));
    }
    let n = refused(Kind::Unsupported, &cases);
    assert!(n > 120, "{n}");
}

#[test]
fn opcodes_that_torch_does_not_write() {
    let _alone = memory::alone();
    let known = b"\x80\x95.(NJKMG}])tseaubcRQqrhj\x88\x89\x8a\x8b\x8c\x8d\x8e\x85\x86\x87\x93\x94\x96XBC";
    let mut cases = Vec::new();
    for op in (0..=255u8).filter(|op| !known.contains(op)) {
        // With enough on the stack for any of them.
        cases.push((torch(&program(&[b"NNN((", &[op], b"os\nsystem\n"])), "a/data.pkl, byte 7: expected the opcodes"));
    }
    assert!(cases.len() > 200, "{}", cases.len());
    refused(Kind::Unsupported, &cases);
    let foreign = [
        (torch(b"\x80\x02(X\x02\0\0\0idios\nsystem\n."), "0x69, which makes an object of any class"),
        (torch(b"\x80\x02}\x82\x01."), "0x82, which looks a class up in a registry"),
        (torch(b"\x80\x06}."), "expected protocol 2 to 5, found 6"),
        (torch(b"\x80\x01}."), "expected protocol 2 to 5, found 1"),
        (torch(b"\x80\x00}."), "expected protocol 2 to 5, found 0"),
        (torch(b"\x80\xff}."), "expected protocol 2 to 5, found 255"),
    ];
    refused(Kind::Unsupported, &foreign);
}

#[test]
fn pickles_that_break_off_or_lie() {
    let _alone = memory::alone();
    let p = |pieces: &[&[u8]]| torch(&program(pieces));
    let cases = [
        (torch(b""), "a/data.pkl, byte 0: expected 1 more bytes, found 0"),
        (torch(b"."), "byte 0: expected a pickle that starts with its protocol"),
        (torch(b"cos\nsystem\n(tR."), "byte 0: expected a pickle that starts with its protocol"),
        (torch(b"\x80\x02}.}"), "expected one pickle, found 1 more bytes behind it"),
        (p(&[b"\x80\x02}"]), "byte 2: expected a pickle that starts with its protocol"),
        (p(&[]), "expected one object at the end, found 0"),
        (p(&[b"NN"]), "expected one object at the end, found 2"),
        (p(&[b"N("]), "found 1, and 1 open marks"),
        (p(&[b"t"]), "expected a mark on the stack"),
        (p(&[b"}u"]), "expected a mark on the stack"),
        (p(&[b"]e"]), "expected a mark on the stack"),
        (p(&[b"\x85"]), "expected an object on the stack"),
        (p(&[b"NN\x87"]), "expected an object on the stack"),
        (p(&[b"N(\x85"]), "found none since the last mark"),
        (p(&[b"N(q\x00"]), "found none since the last mark"),
        (p(&[b"\x94"]), "found none since the last mark"),
        (p(&[b"a"]), "expected an object on the stack"),
        (p(&[b"Na"]), "expected an object on the stack"),
        (p(&[b"NNa"]), "expected a list to append to"),
        (p(&[b"}(Ne"]), "expected a list to append to"),
        (p(&[b")(Ne"]), "expected a list to append to"),
        (p(&[b"](NNu"]), "expected a dictionary to put items into"),
        (p(&[b"NNNs"]), "expected a dictionary to put items into"),
        (p(&[b"}(NNNu"]), "expected keys with values, found a key without one"),
        (p(&[b"h\x00"]), "expected an object that was remembered as 0"),
        (p(&[b"Nq\x00h\x01"]), "expected an object that was remembered as 1"),
        (p(&[b"j\xff\xff\xff\xff"]), "remembered as 4294967295"),
        (p(&[b"X\xff\xff\xff\xffab"]), "expected 4294967295 more bytes"),
        (p(&[b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab"]), "more bytes"),
        (p(&[b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fab"]), "expected 9223372036854775807 more bytes"),
        (p(&[b"\x8c\xffab"]), "expected 255 more bytes"),
        (p(&[b"B\xff\xff\xff\x7fab"]), "expected 2147483647 more bytes"),
        (p(&[b"C\x09ab"]), "expected 9 more bytes"),
        (p(&[b"\x8e\0\0\0\0\0\0\0\x80ab"]), "more bytes"),
        (p(&[b"\x96\0\0\0\0\0\0\0\x80ab"]), "more bytes"),
        (p(&[b"\x8a\xff1"]), "expected 255 more bytes"),
        (p(&[b"\x8b\xff\xff\xff\xff1"]), "expected 4294967295 more bytes"),
        (p(&[b"\x8b\0\0\0\x80"]), "expected 2147483648 more bytes"),
        (p(&[b"\x95\xff\xff\xff\xff\xff\xff\xff\xff}"]), "more bytes"),
        (p(&[b"\x95\x09\0\0\0\0\0\0\0}"]), "expected 9 more bytes"),
        (p(&[b"X\x01\0\0\0\xff"]), "expected a string in UTF-8"),
        (p(&[b"c\xff\n\n"]), "expected a name in UTF-8"),
        (p(&[b"ctorch"]), "expected a name of at most 256 bytes"),
        (p(&[b"c", &[b'a'; 300], b"\nx\n"]), "expected a name of at most 256 bytes"),
        (p(&[b"NN\x93"]), "expected the names of a module and of something in it"),
        (p(&[b"NN\x93R"]), "expected the names of a module"),
        (p(&[b"N)R"]), "expected a function to call"),
        (p(&[&global("collections", "OrderedDict"), b"NR"]), "expected the arguments of a call in a tuple"),
        (p(&[&call(&global("collections", "OrderedDict"), &[b"]"])]), "expected a call that makes a tensor"),
        (p(&[&call(&global("torch", "float32"), &[])]), "expected a call that makes a tensor"),
        (p(&[&call(&global("torch", "FloatStorage"), &[&int(1 << 60)])]), "expected a call that makes a tensor"),
        (p(&[&call(&global("torch", "Size"), &[b"N"])]), "expected a shape to be a tuple"),
        (p(&[&call(&global("torch", "device"), &[b"N"])]), "expected the name of a device"),
        (p(&[&call(&ordered_dict(), &[])]), "expected a function to call"),
        (p(&[b"NNb"]), "expected attributes for a dictionary or a tensor"),
        (p(&[b"]}b"]), "expected attributes for a dictionary or a tensor"),
        (p(&[b"NQ"]), "expected a tuple as a persistent name"),
        (p(&[b")Q"]), "expected a persistent name of 5 or 6 parts, found 0"),
        (p(&[b"(NNNNNNNtQ"]), "found 7"),
        (p(&[b"(NNNNK\x01tQ"]), "expected the persistent name of a storage"),
        (p(&[b"(NNNNNtQ"]), "a storage's length: expected a number"),
        (p(&[&storage("FloatStorage", "0", -6), b"0"]), "a storage's length: expected a number from 0, found -6"),
        (p(&[b"}(]Nu"]), "expected keys that are strings or integers"),
        (p(&[b"}(}Nu"]), "the outermost dictionary: expected keys"),
        (p(&[&dict(&[("a", b"}(NNu")])]), "a: expected keys that are strings or integers"),
        (p(&[&dict(&[("a", b"N"), ("a", b"N")])]), "expected each name once, found \"a\" twice"),
        (p(&[&dict(&[("a.b", b"N"), ("a", &dict(&[("b", b"N")]))])]), "found \"a.b\" twice"),
        (p(&[&dict(&[("w", &right()), ("w", &right())])]), "found \"w\" twice"),
        (p(&[&dict(&[("w", &right()), ("w", b"N")])]), "found \"w\" twice"),
    ];
    let n = refused(Kind::Format, &cases);
    assert!(n > 60, "{n}");
}

#[test]
fn tensors_that_reach_elsewhere() {
    let _alone = memory::alone();
    let floats = storage("FloatStorage", "0", 6);
    let w = |tensor: &[u8]| torch(&program(&[&dict(&[("w", tensor)])]));
    let t = |offset: i64, shape: &[i64], strides: &[i64]| w(&tensor(&floats, offset, shape, strides));
    let rebuild = |version: &str, arguments: &[&[u8]]| w(&call(&global("torch._utils", version), arguments));
    let (zero, sizes, steps) = (int(0), ints(&[2]), ints(&[1]));
    let dims = vec![1; 65];
    let each_once = "tensor \"w\": expected elements of a storage of 24 bytes, each once, found shape";
    let cases = [
        (t(0, &[7], &[1]), each_once),
        (t(1, &[6], &[1]), each_once),
        (t(7, &[1], &[1]), each_once),
        (t(i64::MAX, &[1], &[1]), each_once),
        (t(0, &[2, 3], &[4, 1]), each_once),
        (t(0, &[i64::MAX], &[0]), each_once),
        (t(0, &[1 << 40], &[0]), each_once),
        (t(0, &[7], &[0]), each_once),
        (t(0, &[i64::MAX, i64::MAX], &[1, 1]), each_once),
        (t(0, &[2], &[i64::MAX]), each_once),
        (t(0, &[3, 3], &[1, 1]), each_once),
        (t(-1, &[2], &[1]), "a tensor's offset: expected a number from 0, found -1"),
        (t(0, &[-2], &[1]), "a tensor's shape: expected a number from 0, found -2"),
        (t(5, &[2], &[-1]), "a tensor's strides: expected a number from 0, found -1"),
        (t(0, &[2, 3], &[1]), "expected as many strides as dimensions, found 1 and 2"),
        (t(0, &[], &[1]), "expected as many strides as dimensions, found 1 and 0"),
        (t(0, &dims, &dims), "expected at most 64 dimensions, found 65"),
        (
            w(&tensor(&storage("FloatStorage", "0", 7), 0, &[2], &[1])),
            "expected 7 elements in storage \"0\", found 24 bytes",
        ),
        (w(&tensor(&storage("FloatStorage", "0", 5), 0, &[2], &[1])), "expected 5 elements"),
        (w(&tensor(&storage("DoubleStorage", "0", 6), 0, &[2], &[1])), "expected 6 elements"),
        (w(&tensor(&storage("FloatStorage", "0", i64::MAX), 0, &[2], &[1])), "expected 9223372036854775807 elements"),
        (w(&tensor(&storage("FloatStorage", "1", 6), 0, &[2], &[1])), "expected the entry \"a/data/1\", found none"),
        (
            w(&tensor(&storage("FloatStorage", "../data/0", 6), 0, &[2], &[1])),
            "expected the entry \"a/data/../data/0\"",
        ),
        (
            w(&tensor(&storage("FloatStorage", "/etc/passwd", 6), 0, &[2], &[1])),
            "expected the entry \"a/data//etc/passwd\"",
        ),
        (w(&tensor(&storage("FloatStorage", "\u{1b}\n", 6), 0, &[2], &[1])), "\"a/data/\\u{1b}\\n\""),
        (w(&tensor(&storage("UntypedStorage", "0", 24), 0, &[2], &[1])), "expected the type of a tensor's elements"),
        (w(&tensor(b"N", 0, &[2], &[1])), "expected a tensor's storage, found another object"),
        (rebuild("_rebuild_tensor_v2", &[]), "found 0 arguments"),
        (rebuild("_rebuild_tensor_v2", &[&floats, &zero, &sizes]), "found 3 arguments"),
        (rebuild("_rebuild_tensor_v2", &[&floats, &zero, &sizes, &steps]), "expected the arguments of a tensor"),
        (rebuild("_rebuild_tensor_v3", &[&floats, &zero, &sizes, &steps]), "expected the arguments of a tensor"),
        (
            rebuild("_rebuild_tensor_v3", &[&floats, &zero, &sizes, &steps, b"N", b"N", b"N"]),
            "expected the type of a tensor",
        ),
        (rebuild("_rebuild_tensor", &[&floats, &sizes, &sizes, &steps]), "a tensor's offset: expected a number"),
        (rebuild("_rebuild_tensor", &[&floats, &zero, &zero, &steps]), "a tensor's shape: expected a tuple"),
        (rebuild("_rebuild_tensor", &[&floats, &zero, b"(Nt", &steps]), "a tensor's shape: expected a number"),
        (
            rebuild("_rebuild_tensor", &[&floats, &zero, b"(G\x7f\xf8\0\0\0\0\0\0t", &steps]),
            "a tensor's shape: expected a number",
        ),
        (
            rebuild("_rebuild_tensor", &[&floats, &zero, b"(\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x7ft", &steps]),
            "a tensor's shape",
        ),
        (rebuild("_rebuild_parameter", &[b"N", b"N", b"N"]), "expected a parameter to be a tensor"),
        (rebuild("_rebuild_parameter", &[b"N"]), "expected a call that makes a tensor"),
        (
            w(&call(&global("torch._tensor", "_rebuild_from_type_v2"), &[b"N", b"N", b"N", b"N"])),
            "expected a tensor with attributes",
        ),
    ];
    let n = refused(Kind::Format, &cases);
    let negated = dict(&[("neg", b"\x88")]);
    let marked = rebuild("_rebuild_tensor_v2", &[&floats, &zero, &sizes, &steps, b"N", b"N", &negated]);
    let part_of =
        [&*tuple(&[&text("storage"), &global("torch", "FloatStorage"), &text("0"), &text("cpu"), &int(6), b")"]), b"Q"]
            .concat();
    let m = refused(
        Kind::Unsupported,
        &[
            (marked, "found one marked as negated"),
            (w(&tensor(&part_of, 0, &[2], &[1])), "expected whole storages, found a view of one"),
        ],
    );
    assert!(n + m > 40, "{n}");
}

#[test]
fn cycles_and_laughs() {
    let _alone = memory::alone();
    let p = |pieces: &[&[u8]]| torch(&program(pieces));
    let deep =
        |open: &[u8], close: &[u8], n: usize| p(&[b"}", &text("a"), &open.repeat(n), b"N", &close.repeat(n), b"s"]);
    // Each holds the one before it ten times.
    let laughs = |start: &[u8], one: fn(&[u8]) -> Vec<u8>| {
        let mut pieces = start.to_vec();
        for i in 0..30u8 {
            let get = [b'h', i];
            pieces.extend([&one(&get)[..], &[b'q', i + 1]].concat());
        }
        let all = [&b"}"[..], &text("a"), b"(", &pieces, b"ts"].concat();
        p(&[&all])
    };
    let too_large = "found a tree that is far larger than the file";
    let too_deep = "expected at most 64 dictionaries in each other, found more, or a cycle";
    let cases = [
        (p(&[b"}", &text("a"), b"]q\0h\0as"]), too_deep),
        (p(&[b"]q\0h\0a"]), too_deep),
        (p(&[b"}q\0", &text("a"), b"h\0s"]), too_deep),
        (p(&[b"}q\0", &text("a"), b"]h\0as"]), too_deep),
        (p(&[b"}", &text("a"), b"]q\0(h\0h\0h\0es"]), "expected"),
        (p(&[b"}q\0(", &text("a"), b"h\0", &text("b"), b"h\0u"]), "expected"),
        (deep(b"(", b"t", 100), too_deep),
        (deep(b"(", b"t", 100_000), too_deep),
        (deep(b"](", b"e", 50_000), too_deep),
        (deep(b"}K\x01", b"s", 50_000), too_deep),
        (p(&[b"N", &b"\x85".repeat(200_000)]), too_deep),
        (laughs(b")q\0", |get| [&b"("[..], &get.repeat(10), b"t"].concat()), too_large),
        (laughs(b"]q\0", |get| [&b"]("[..], &get.repeat(10), b"e"].concat()), too_large),
        (
            laughs(b"}q\0", |get| {
                let items: Vec<u8> = (0..10u8).flat_map(|i| [b'K', i, get[0], get[1]]).collect();
                [&b"}("[..], &items, b"u"].concat()
            }),
            "expected",
        ),
        (p(&[&b"(".repeat((1 << 20) + 2)]), "expected at most 1048576 marks, found more"),
        (p(&[&b"N".repeat((1 << 20) + 2)]), "expected at most 1048576 objects, found more"),
        (p(&[b"Nq\0", &b"h\0".repeat((1 << 20) + 2)]), "expected a stack of at most 1048576, found more"),
    ];
    refused(Kind::Format, &cases);
}

#[test]
fn a_long_list_in_many_places_is_refused_before_it_is_walked() {
    let _alone = memory::alone();
    let list = [&b"]q\0("[..], &b"K\x01".repeat(100_000), b"e"].concat();
    let places: Vec<u8> = (0..50_000).flat_map(|i| [&text(&format!("{i}"))[..], b"h\0"].concat()).collect();
    let bytes = torch(&program(&[b"}(", &text("list"), &list, &places, b"u"]));
    refused(Kind::Format, &[(bytes, "found a tree that is far larger than the file")]);
}

#[test]
fn files_of_torch_in_other_states() {
    let _alone = memory::alone();
    let pickle = program(&[&dict(&[("w", &right())])]);
    let with = |more: &[Part]| archive(&[&[part("a/data.pkl", &*pickle), part("a/data/0", [0u8; 24])], more].concat());
    assert_eq!(read(&with(&[])).unwrap(), ["w"]);
    assert_eq!(read(&with(&[part("a/byteorder", "big")])).unwrap(), ["w"]);
    refused(
        Kind::Unsupported,
        &[
            (with(&[part("a/constants.pkl", "x")]), "TorchScript"),
            (with(&[part("a/version", "11\n")]), "expected version 1 to 10 of torch's format, found \"11\""),
            (with(&[part("a/version", "0")]), "found \"0\""),
            (with(&[part("a/version", "-1")]), "found \"-1\""),
            (with(&[part("a/version", "\u{7f}")]), "found \"\\u{7f}\""),
            (with(&[part("a/version", [0xff])]), "found \"\""),
            (with(&[part("a/byteorder", "middle")]), "expected byte order little or big, found \"middle\""),
        ],
    );
    refused(
        Kind::Format,
        &[
            (with(&[part("b/data.pkl", "x")]), "expected one data.pkl in a file of torch, found several"),
            (archive(&[part("a/data.pkl", &*pickle), part("b/data/0", [0u8; 24])]), "expected the entry \"a/data/0\""),
        ],
    );
}

#[test]
fn files_of_old_torch() {
    let _alone = memory::alone();
    const START: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let facts = |little: &[u8]| program(&[&dict(&[("little_endian", little)])]);
    let w = |class: &str, len| program(&[&dict(&[("w", &tensor(&storage(class, "5", len), 0, &[2], &[1]))])]);
    let keys = |keys: &[&str]| program(&[b"](", &keys.iter().flat_map(|k| text(k)).collect::<Vec<_>>(), b"e"]);
    let version = |v| program(&[&int(v)]);
    let file = |parts: &[&[u8]]| [START, &parts.concat()].concat();
    let (v, le, object, five) = (version(1001), facts(b"\x88"), w("FloatStorage", 2), keys(&["5"]));
    let (two, data) = (2u64.to_le_bytes(), [0u8; 8]);
    assert_eq!(read(&file(&[&v, &le, &object, &five, &two, &data])).unwrap(), ["w"]);
    let again = w("HalfStorage", 2);
    let both = program(&[&dict(&[
        ("w", &tensor(&storage("FloatStorage", "5", 2), 0, &[2], &[1])),
        ("x", &tensor(&storage("HalfStorage", "5", 2), 0, &[2], &[1])),
    ])]);
    refused(
        Kind::Format,
        &[
            (file(&[]), "pickle, byte 15: expected 1 more bytes"),
            (file(&[&version(1002)]), "expected version 1001 of torch's old format"),
            (file(&[&v]), "expected 1 more bytes"),
            (file(&[&v, &le]), "expected 1 more bytes"),
            (file(&[&v, &le, &object]), "expected 1 more bytes"),
            (file(&[&v, &le, &object, b"\x80\x02}."]), "expected the keys of the storages in a list"),
            (file(&[&v, &le, &object, b"\x80\x02]Na."]), "expected the key of a storage to be a string"),
            (file(&[&v, &le, &object, &keys(&[])]), "expected the storage \"5\" behind the pickles, found none"),
            (
                file(&[&v, &le, &object, &keys(&["6"]), &two, &data]),
                "expected the storage of some tensor, found another key",
            ),
            (file(&[&v, &le, &object, &five]), "expected 2 elements, found the end"),
            (file(&[&v, &le, &object, &five, &[255; 8], &data]), "expected 2 elements, found 18446744073709551615"),
            (file(&[&v, &le, &object, &five, &two, &data[..7]]), "expected 8 bytes, found 7 before the end"),
            (
                file(&[&v, &le, &again, &five, &two, &data]),
                "expected the file to end behind its storages, found 4 more",
            ),
            (file(&[&v, &le, &both, &five, &two, &data]), "expected a storage to have one length and type, found two"),
            (file(&[&v, &le, &object, &keys(&["5", "5"]), &two, &data, &two, &data]), "expected each storage once"),
            (file(&[&v, &le, &w("FloatStorage", i64::MAX), &five, &two, &data]), "expected the storage of some tensor"),
        ],
    );
    refused(
        Kind::Unsupported,
        &[
            (file(&[&v, &facts(b"\x89"), &object, &five, &two, &data]), "expected a file of a little-endian machine"),
            (file(&[&v, b"\x80\x02}."]), "expected a file of a little-endian machine"),
            (file(&[&v, &le, &program(&[&call(&global("os", "system"), &[&text("id")])])]), "\"os.system\""),
        ],
    );
}
