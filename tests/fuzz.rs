//! Valid files, damaged at thousands of seeded places: opening them and reading everything in them neither panics nor
//! takes more memory than a small multiple of the file.
//!
//! Each [`Target`] is a reader and what it reads. A damaged file whose error nobody has seen before gets damaged further:
//! so the search gets deeper than chance takes it. The same seed gives the same files; `TILLER_FUZZ_SECONDS` makes it
//! search for that many seconds of the processor in all, with another seed each time; `TILLER_FUZZ_TARGET` names one reader for all of that time.

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::time::SystemTime;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use support::container::{End, Part, archive, archive_with, npy, npy_header, part, torch};
use support::memory::{self, Counting};
use tiller::dictionary::Dictionary;
use tiller::file::gguf::{Array, GgmlType, Gguf, Writer};
use tiller::file::safetensors::{self, Dtype};
use tiller::file::{Tensors, UNNAMED};
use tiller::model::Model;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Rng64 = Xoshiro256PlusPlus;

/// What a reader may take for a file of some kilobytes.
const ALLOWED: usize = 2 << 20;
/// Files for each target, where no time is given.
const ROUNDS: usize = 2500;
/// Damaged files that are kept to be damaged further.
const MAX_KEPT: usize = 400;

/// Numbers on which sizes and offsets break.
const EDGES: [u64; 12] = [0, 1, 2, 31, 33, 255, 65536, 1 << 31, u32::MAX as u64, 1 << 40, (1 << 63) - 1, u64::MAX];

/// A file, or a directory of them.
type Files = Vec<(String, Vec<u8>)>;

/// A reader under test.
struct Target {
    name: &'static str,
    seeds: Vec<Files>,
    /// Reads what lies in the directory, all of it.
    read: fn(&Path) -> Result<(), String>,
    /// Puts a damaged piece into a whole file, so that the damage gets past the outer checks.
    wrap: fn(Vec<u8>) -> Vec<u8>,
}

impl Target {
    fn new(name: &'static str, seeds: Vec<Vec<u8>>, read: fn(&Path) -> Result<(), String>) -> Self {
        let seeds = seeds.into_iter().map(|bytes| vec![("file".to_owned(), bytes)]).collect();
        Self { name, seeds, read, wrap: |bytes| bytes }
    }

    fn write(&self, place: &Path, files: &Files) {
        for (name, bytes) in files {
            let path = place.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, (self.wrap)(bytes.clone())).unwrap();
        }
    }

    fn run(&self, seed: u64, seconds: Option<f64>) {
        let _alone = memory::alone();
        let dir = scratch();
        let mut rng = Rng64::seed_from_u64(seed);
        let (mut kept, mut seen, mut opened, mut rounds) = (Vec::<Files>::new(), HashSet::new(), 0, 0);
        let (begun, mut spent) = (now(), 0.0);
        while seconds.map_or(rounds < ROUNDS, |seconds| spent < seconds) {
            if rounds % 100 == 99 {
                spent = now() - begun;
            }
            let from = if !kept.is_empty() && rng.random() { &kept } else { &self.seeds };
            let mut files = from.choose(&mut rng).unwrap().clone();
            let damaged = rng.random_range(0..files.len());
            files[damaged].1 = damage(&files[damaged].1, &mut rng);
            // A new directory each time: rewriting a file makes some file systems flush it to the disk.
            let place = dir.path().join(rounds.to_string());
            std::fs::create_dir(&place).unwrap();
            self.write(&place, &files);
            let (result, peak) = memory::peak(|| {
                std::panic::catch_unwind(|| (self.read)(&place)).unwrap_or_else(|_| Err("PANIC".to_owned()))
            });
            let bad = peak > ALLOWED || result.as_ref().is_err_and(|e| e == "PANIC");
            if bad {
                let kept = dir.keep().join(rounds.to_string());
                panic!("{}, seed {seed}, round {rounds}: {peak} bytes; {result:?}; see {}", self.name, kept.display());
            }
            std::fs::remove_dir_all(&place).unwrap();
            opened += usize::from(result.is_ok());
            let outcome = result.err().map(|e| shape_of(&e)).unwrap_or_default();
            if seen.insert(outcome) && kept.len() < MAX_KEPT {
                kept.push(files);
            }
            rounds += 1;
        }
        let spent = now() - begun;
        eprintln!("{}: {spent:.0} s, {rounds} files, {opened} opened, {} kinds of errors", self.name, seen.len());
        // Damage to names and data goes unseen, damage to the structure must not: both kinds were tried.
        assert!(opened > 0 && opened < rounds, "{}: {opened} of {rounds} opened", self.name);
        assert!(seen.len() > 3, "{}: {seen:?}", self.name);
    }
}

/// Seconds of the processor, or else of the clock.
fn now() -> f64 {
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    support::busy().unwrap_or_else(clock)
}

/// A directory in memory, where the system has one: a disk would take most of the time.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A message without what is particular to one file: numbers, names, paths.
fn shape_of(message: &str) -> String {
    let (mut out, mut quoted) = (String::new(), false);
    for c in message.chars().skip_while(|c| *c != ':') {
        quoted ^= c == '"';
        if !quoted && !c.is_ascii_digit() && c.is_ascii() {
            out.push(c);
        }
    }
    out
}

fn damage(bytes: &[u8], rng: &mut Rng64) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.random_range(1..=3) {
        if out.is_empty() {
            break;
        }
        let at = rng.random_range(0..out.len());
        match rng.random_range(0..7) {
            0 => out[at] = rng.random(),
            1 => out[at] ^= 1 << rng.random_range(0..8),
            2 => out.truncate(at),
            3 => {
                let edge = EDGES.choose(rng).unwrap().to_le_bytes();
                let n = (out.len() - at).min(8);
                out[at..at + n].copy_from_slice(&edge[..n]);
            }
            4 => {
                let piece: Vec<u8> = out[at..(at + rng.random_range(0..64)).min(out.len())].to_vec();
                let to = rng.random_range(0..=out.len());
                out.splice(to..to, piece);
            }
            5 => {
                let n = rng.random_range(1..5).min(out.len() - at);
                let from = rng.random_range(0..=out.len() - n);
                out.copy_within(from..from + n, at);
            }
            _ => {
                let end = (at + rng.random_range(1..32)).min(out.len());
                out.drain(at..end);
            }
        }
    }
    out
}

fn read_gguf(dir: &Path) -> Result<(), String> {
    let gguf = Gguf::open(&dir.join("file")).map_err(|e| e.to_string())?;
    for (key, value) in gguf.keys() {
        let _ = (gguf.opt_str(key), gguf.opt_u32(key), gguf.opt_f32(key), gguf.opt_bool(key), gguf.opt_usize(key));
        if let Some(array) = value.as_array() {
            for i in (0..array.len().min(50)).chain([array.len(), usize::MAX]) {
                let _ = (array.str(i), array.number::<i32>(i), array.number::<f32>(i));
            }
            let _ = (array.to_vec::<i32>(), array.to_vec::<u8>());
        }
    }
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        assert_eq!(data.len(), tensor.n_bytes, "a tensor of an open file has its data");
        for i in [0, 1, tensor.n_rows(), usize::MAX] {
            let mut row = vec![0f32; tensor.row_len().min(4096)];
            if let Some(bytes) = gguf.row(tensor, i) {
                let _ = tensor.kind.dequantize(bytes, &mut row);
            }
        }
    }
    if let Ok(model) = Model::from_gguf(gguf) {
        let _ = (model.name(), model.quantization(), model.output_norm(), model.fingerprint());
        let mut row = vec![0f32; model.d_model().min(4096)];
        for id in [-1, 0, 1, 7, i32::MAX] {
            let _ = (model.token_text(id), model.token_bytes(id), model.unembedding_row(id, &mut row));
        }
        let _ = model.vocabulary().decode(&[0, 1, 2, 3]);
    }
    Ok(())
}

fn read_safetensors(dir: &Path) -> Result<(), String> {
    let file = safetensors::File::open(&dir.join("file")).map_err(|e| e.to_string())?;
    for name in file.names() {
        let view = file.tensor(name).unwrap();
        let _ = (view.to_f32(), view.to_i64(), view.expect_shape(&[7, 4]));
    }
    Ok(())
}

fn read_tensors(dir: &Path) -> Result<(), String> {
    let file = Tensors::open(&dir.join("file")).map_err(|e| e.to_string())?;
    for name in file.names() {
        let view = file.get(name).unwrap();
        let n: usize = view.shape().iter().product();
        assert_eq!(view.bytes().len(), n * view.dtype().bitsize() / 8, "a tensor of an open file has its data");
        assert!(view.mapped().is_none_or(|(map, range)| map.bytes()[range] == *view.bytes()));
        let _ = (view.to_f32(), view.to_i64(), view.scalar_f32(), view.expect_shape(&[7, 4]));
        let _ = file.value(name);
    }
    let _ = (file.get(UNNAMED), file.value("k"));
    Ok(())
}

fn read_dictionary(dir: &Path) -> Result<(), String> {
    let dictionary = Dictionary::open(dir).map_err(|e| e.to_string())?;
    let mut codes = vec![0f32; dictionary.n_features()];
    dictionary.encode(&vec![0.5; dictionary.d_model()], &mut codes);
    Ok(())
}

/// A model so small that all of it is structure.
fn tiny_model() -> Vec<u8> {
    let mut w = Writer::new();
    w.set("general.architecture", "llama");
    w.set("llama.block_count", 2u32);
    w.set("llama.embedding_length", 32u32);
    w.set("llama.context_length", 64u32);
    w.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    w.set("tokenizer.ggml.model", "gpt2");
    w.set("tokenizer.ggml.tokens", Array::strings(["<s>", "Ġthe", "Ċ", "a", "b", "c", "d", "e"]).unwrap());
    w.set("tokenizer.ggml.token_type", Array::numbers(&[3i32, 1, 1, 1, 1, 1, 1, 6]));
    w.set("tokenizer.ggml.bos_token_id", 0u32);
    w.set("tokenizer.ggml.add_bos_token", true);
    w.tensor("token_embd.weight", &[32, 8], GgmlType::Q8_0, vec![1; 34 * 8]);
    w.tensor("output_norm.weight", &[32], GgmlType::F32, vec![0; 128]);
    w.tensor("blk.0.attn_norm.weight", &[32], GgmlType::F16, vec![0; 64]);
    w.tensor("blk.0.other.weight", &[32, 2, 2], GgmlType::Q4_1, vec![3; 80]);
    written(|path| w.write(path))
}

fn tiny_safetensors() -> Vec<u8> {
    let mut w = safetensors::Writer::new();
    w.metadata("format", "pt");
    w.tensor("rows", Dtype::F16, &[7, 4], vec![1; 56]);
    w.tensor("tokens", Dtype::I32, &[7], vec![2; 28]);
    w.tensor("bias", Dtype::F32, &[3], vec![3; 12]);
    written(|path| w.write(path))
}

fn written(write: impl FnOnce(&Path) -> tiller::Result<()>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("valid");
    write(&path).unwrap();
    std::fs::read(path).unwrap()
}

fn data(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// The files of these names that NumPy and torch wrote.
fn fixtures(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| std::fs::read(data("containers").join(name)).unwrap()).collect()
}

/// The pickle in a file of torch, which is stored.
fn pickle_in(file: &[u8]) -> Vec<u8> {
    let find = |what: &[u8], from: usize| (from..file.len()).find(|&i| file[i..].starts_with(what)).unwrap();
    let start = find(b"\x80\x02}", find(b"data.pkl", 0));
    file[start..find(b"PK\x07\x08", start)].to_vec()
}

/// A file of torch with this pickle and the storages of nested.pt.
fn whole_torch(pickle: Vec<u8>) -> Vec<u8> {
    let mut parts = vec![part("a/data.pkl", pickle), part("a/version", "3")];
    let storages = [16, 96, 16, 8].iter().enumerate();
    parts.extend(storages.map(|(key, &n)| part(&format!("a/data/{key}"), vec![1; n])));
    archive_with(&parts, &End { wide: true, ..End::default() })
}

/// The directories of dictionaries among the test data, file by file.
fn dictionaries(family: &str) -> Vec<Files> {
    let mut dirs: Vec<_> = std::fs::read_dir(data(family)).unwrap().map(|e| e.unwrap().path()).collect();
    dirs.sort();
    let files = |dir: std::path::PathBuf| {
        let mut files: Files = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
            .filter(|(name, _)| !name.starts_with("golden"))
            .collect();
        files.sort();
        files
    };
    dirs.into_iter().filter(|dir| dir.is_dir()).map(files).collect()
}

/// A fixture of a family whose directories' names say something, with all of them.
fn with_names(path: &str) -> Files {
    fn collect(root: &Path, at: &Path, out: &mut Files) {
        if !at.is_dir() {
            let name = at.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            return out.push((name, std::fs::read(at).unwrap()));
        }
        let mut inside: Vec<_> = std::fs::read_dir(at).unwrap().map(|e| e.unwrap().path()).collect();
        inside.sort();
        inside.iter().for_each(|at| collect(root, at, out));
    }
    let (root, mut files) = (data("families"), Files::new());
    collect(&root, &root.join(path), &mut files);
    files
}

/// Opens what lies at the end of a chain of directories: a file alone, or the directory that holds several.
fn read_named(dir: &Path) -> Result<(), String> {
    let mut at = dir.to_path_buf();
    while at.is_dir() {
        let mut inside = std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().path());
        match (inside.next(), inside.next()) {
            (Some(one), None) => at = one,
            _ => break,
        }
    }
    // Of a cross-layer transcoder the encoder is named.
    let encoder = at.join("W_enc_2.safetensors");
    let at = if encoder.exists() { encoder } else { at };
    read_dictionary(&at)
}

/// The families that are told by names, or lie in single files.
const NAMED: [(&str, &[&str]); 8] = [
    (
        "gemma scope",
        &[
            "gemma-scope-2b-pt-res/layer_5/width_16k/average_l0_7",
            "gemma-scope-2b-pt-mlp/layer_3/width_16k/average_l0_9",
            "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6",
            "gemma-scope-2b-pt-transcoders/layer_2/width_16k/average_l0_11",
        ],
    ),
    (
        "gemma scope 2",
        &[
            "gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small",
            "gemma-scope-2-1b-pt/transcoder/layer_7_width_16k_l0_big_affine",
        ],
    ),
    (
        "llama scope",
        &[
            "Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x",
            "Llama3_1-8B-Base-LXTC-8x/Llama3_1-8B-Base-L8TC-8x",
            "Llama-Scope-R1-Distill/400M-Slimpajama-400M-OpenR1-Math-220k/L7R",
        ],
    ),
    ("sparsify", &["sparsify/layers.10", "sparsify/layers.11", "sparsify/layers.3.mlp"]),
    ("openai", &["gpt2-small/resid_post_mlp_v5_32k/autoencoders/8.pt", "gpt2-small/resid_delta_mlp/autoencoders/3.pt"]),
    (
        "qwen scope",
        &["SAE-Res-Qwen3-1.7B-Base-W32K-L0_5/layer4.sae.pt", "SAE-Res-Qwen3-8B-Base-W16K-L0_3/layer6.sae.pt"],
    ),
    (
        "goodfire",
        &[
            "DeepSeek-R1-Distill-Llama-8B-SAE-l15/DeepSeek-R1-Distill-Llama-8B-SAE-l15.pt",
            "Llama-3.1-8B-Instruct-SAE-l19/Llama-3.1-8B-Instruct-SAE-l19.pth",
        ],
    ),
    ("transcoders", &["qwen3-0.6b-transcoders", "clt-gemma-2-2b"]),
];

/// A dictionary of ours, of every tensor that there is.
fn tiny_dictionary() -> Vec<u8> {
    let mut w = Writer::new();
    w.set("general.architecture", "sae");
    w.set("sae.version", 1u32);
    w.set("sae.activation", "gated");
    w.set("sae.apply_b_dec_to_input", true);
    w.set("sae.hook", "blocks.3.hook_resid_post");
    w.set("sae.notes", Array::strings(["one", "two"]).unwrap());
    w.tensor("enc.weight", &[32, 3], GgmlType::Q8_0, vec![1; 34 * 3]);
    w.tensor("dec.weight", &[32, 3], GgmlType::F16, vec![2; 64 * 3]);
    w.tensor("skip.weight", &[32, 32], GgmlType::BF16, vec![3; 64 * 32]);
    for (name, n) in [("enc.bias", 3), ("dec.bias", 32), ("threshold", 3), ("gate.bias", 3), ("gate.log_scale", 3)] {
        w.tensor(name, &[n], GgmlType::F32, vec![0; 4 * n]);
    }
    for name in ["stats.density", "stats.max", "stats.mean"] {
        w.tensor(name, &[3], GgmlType::F32, vec![0; 12]);
    }
    written(|path| w.write(path))
}

/// Every reader of files.
fn targets() -> Vec<Target> {
    let deflated = |data: Vec<u8>| archive(&[Part { deflated: true, ..part("x.npy", data) }]);
    let named = NAMED.map(|(name, paths)| Target {
        seeds: paths.iter().map(|path| with_names(path)).collect(),
        ..Target::new(name, vec![], read_named)
    });
    let mut targets = vec![
        Target::new("gguf", vec![tiny_model()], read_gguf),
        Target::new("our dictionary", vec![tiny_dictionary()], read_named),
        Target::new("safetensors", vec![tiny_safetensors()], read_safetensors),
        Target::new("safetensors as tensors", vec![tiny_safetensors()], read_tensors),
        Target::new(
            "npz",
            fixtures(&["params.npz", "params_deflated.npz", "fortran.npz", "big_endian.npz", "shapes.npz"]),
            read_tensors,
        ),
        Target::new("npy", fixtures(&["array.npy", "bf16.npy", "version_2.npy", "version_3.npy"]), read_tensors),
        Target { wrap: deflated, ..Target::new("npy in npz", fixtures(&["array.npy", "version_3.npy"]), read_tensors) },
        Target {
            wrap: |header| npy(&String::from_utf8_lossy(&header), &[0; 48]),
            ..Target::new(
                "npy header",
                vec![npy_header("<f4", "(3, 4)").into(), npy_header(">i8", "(6,)").into()],
                read_tensors,
            )
        },
        Target::new(
            "torch",
            fixtures(&["state_dict.pt", "views.pt", "types.pt", "tensor.pt", "protocol_4.pt"]),
            read_tensors,
        ),
        Target::new("old torch", fixtures(&["legacy.pt", "views_legacy.pt"]), read_tensors),
        Target {
            wrap: whole_torch,
            ..Target::new("pickle", fixtures(&["nested.pt"]).iter().map(|file| pickle_in(file)).collect(), read_tensors)
        },
        Target { wrap: |bytes| torch(&bytes), ..Target::new("small pickle", vec![small_pickle()], read_tensors) },
        Target { seeds: dictionaries("saelens"), ..Target::new("saelens", vec![], read_dictionary) },
        Target {
            seeds: ["dictionary_learning", "openmoss", "saelens"]
                .map(|f| dictionaries(&format!("families/{f}")))
                .concat(),
            ..Target::new("other families", vec![], read_dictionary)
        },
    ];
    targets.extend(named);
    targets
}

/// A dictionary with a tensor and a number.
fn small_pickle() -> Vec<u8> {
    use support::container::pickle::{dict, int, program, storage, tensor};
    let w = tensor(&storage("FloatStorage", "0", 6), 0, &[2, 3], &[1, 2]);
    program(&[&dict(&[("w", &w), ("k", &int(3)), ("of", &dict(&[("a", b"K\x01")]))])])
}

#[test]
fn damaged_files_neither_panic_nor_eat_memory() {
    let targets = targets();
    for target in &targets {
        for files in &target.seeds {
            let dir = tempfile::tempdir().unwrap();
            target.write(dir.path(), files);
            let seed = (target.read)(dir.path());
            assert!(seed.is_ok(), "{}: the undamaged file: {seed:?}", target.name);
        }
    }
    let only = std::env::var("TILLER_FUZZ_TARGET").ok();
    let targets: Vec<Target> =
        targets.into_iter().filter(|target| only.as_ref().is_none_or(|only| target.name == only)).collect();
    assert!(!targets.is_empty(), "no target is called {only:?}");
    let seconds = std::env::var("TILLER_FUZZ_SECONDS").ok().and_then(|s| s.parse::<u64>().ok());
    for (i, target) in targets.iter().enumerate() {
        match seconds {
            None => target.run(i as u64, None),
            Some(seconds) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
                target.run(now.as_nanos() as u64, Some(seconds as f64 / targets.len() as f64));
            }
        }
    }
}
