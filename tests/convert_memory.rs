//! What a SAELens directory larger than memory costs: it opens mapped, and converting it streams.
//! A test binary of its own: resident memory belongs to the process.
#![cfg(target_os = "linux")]

#[path = "support/cost.rs"]
mod cost;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use tiller::dictionary::Dictionary;
use tiller::file::gguf::GgmlType;

/// In release, as it is meant to be run; without optimisation a quarter says the same.
const SIZE: usize = if cfg!(debug_assertions) { 1 << 28 } else { 1 << 30 };
const MOST: usize = 200 << 20;

/// A JumpReLU directory of about `SIZE` bytes as a sparse file: the header by hand, the data holes.
fn write_sparse(dir: &Path, d: usize) -> usize {
    let n = SIZE / (8 * d) + 3;
    let mut at = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in
        [("W_dec", vec![n, d]), ("W_enc", vec![d, n]), ("b_dec", vec![d]), ("b_enc", vec![n]), ("threshold", vec![n])]
    {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert(name.into(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut json = serde_json::Value::Object(header).to_string().into_bytes();
    json.resize((json.len() + 8).next_multiple_of(64) - 8, b' ');
    let mut file = File::create(dir.join("sae_weights.safetensors")).unwrap();
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&json).unwrap();
    file.set_len((8 + json.len() + at) as u64).unwrap();
    let config = serde_json::json!({
        "architecture": "jumprelu", "d_in": d, "d_sae": n, "apply_b_dec_to_input": false, "normalize_activations": "none",
        "metadata": {"sae_lens_version": "6.0.0", "hook_name": "blocks.3.hook_resid_post"}});
    std::fs::write(dir.join("cfg.json"), config.to_string()).unwrap();
    n
}

/// The most that was resident since the last call.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let peak = line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024;
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak
}

#[test]
fn a_gigabyte_of_saelens_opens_mapped_and_converts_in_200_megabytes() {
    let dir = tempfile::tempdir().unwrap();
    let (d, path) = (2304, dir.path().join("a.gguf"));
    let n = write_sparse(dir.path(), d);
    peak();
    let opening = cost::cost(|| drop(Dictionary::open(dir.path()).unwrap()));
    println!("opened by {opening:?}");
    assert!(opening.faults <= 1000 && opening.read <= 1 << 20, "opening took {opening:?}");
    let dictionary = Dictionary::open(dir.path()).unwrap();
    // A few features of a matrix that lies the other way round: their columns alone.
    let slice = dictionary.slice(&[0, n as u32 - 1]).unwrap();
    slice.encode(&vec![1.0; d], &mut [0.0; 2]);
    let opened = peak();
    assert!(opened <= MOST / 2, "opening and two features took {opened} bytes");
    let loss = dictionary.convert(&path, GgmlType::Q8_0).unwrap();
    let converted = peak();
    println!("{SIZE} bytes converted with {converted} bytes resident, {opened} before");
    assert_eq!((loss.encoder.min, loss.decoder.min), (1.0, 1.0), "zeros lose nothing");
    assert!(converted <= MOST, "converting took {converted} bytes");
    assert_eq!(Dictionary::open(&path).unwrap().n_features(), n);
}
