//! What a large dictionary costs: opening touches a few pages, and steering a few features their rows alone.
//! A test binary of its own: resident memory belongs to the process.
#![cfg(target_os = "linux")]

#[path = "support/cost.rs"]
mod cost;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tiller::dictionary::Dictionary;
use tiller::plan::{Op, Plan, Route, Row, Rule, Scratch, Strength, Target};

const GIGABYTE: usize = 1 << 30;

/// A JumpReLU dictionary of `n` features as a sparse file: the header by hand, the rows of `features` all ones, the rest
/// holes. Returns its size.
fn write_sparse(path: &Path, d: usize, n: usize, q8_0: bool, features: &[u32]) -> usize {
    let row_bytes = if q8_0 { d / 32 * 34 } else { d * 4 };
    let mut header = b"GGUF".to_vec();
    let string = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    header.extend(3u32.to_le_bytes());
    header.extend(5u64.to_le_bytes());
    header.extend(4u64.to_le_bytes());
    for (key, value) in [("general.architecture", "sae"), ("sae.activation", "jumprelu")] {
        string(&mut header, key);
        header.extend(8u32.to_le_bytes());
        string(&mut header, value);
    }
    string(&mut header, "sae.version");
    header.extend(4u32.to_le_bytes());
    header.extend(1u32.to_le_bytes());
    string(&mut header, "sae.apply_b_dec_to_input");
    header.extend(7u32.to_le_bytes());
    header.push(1);
    let kind = if q8_0 { 8u32 } else { 0 };
    let mut offset = 0usize;
    for (name, shape, kind, bytes) in [
        ("enc.weight", vec![d, n], kind, n * row_bytes),
        ("dec.weight", vec![d, n], kind, n * row_bytes),
        ("enc.bias", vec![n], 0, n * 4),
        ("dec.bias", vec![d], 0, d * 4),
        ("threshold", vec![n], 0, n * 4),
    ] {
        string(&mut header, name);
        header.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|&s| header.extend((s as u64).to_le_bytes()));
        header.extend(kind.to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += bytes.next_multiple_of(32);
    }
    let data = header.len().next_multiple_of(32);
    let mut file = File::create(path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len((data + offset) as u64).unwrap();
    let row: Vec<u8> = if q8_0 {
        // Scale 1.0 in half precision, 32 ones.
        let block: Vec<u8> = [0x00, 0x3c].into_iter().chain([1; 32]).collect();
        block.repeat(d / 32)
    } else {
        bytemuck::cast_slice(&vec![1f32; d]).to_vec()
    };
    for matrix in 0..2 {
        for &i in features {
            file.write_all_at(
                &row,
                (data + matrix * (n * row_bytes).next_multiple_of(32) + i as usize * row_bytes) as u64,
            )
            .unwrap();
        }
    }
    data + offset
}

/// Resident bytes of this process, exactly: `/proc/self/status` lags behind.
fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|l| l.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_gigabyte_opens_by_a_few_pages_and_eight_features_take_two_megabytes() {
    let dir = tempfile::tempdir().unwrap();
    let d = 2304;
    for (name, q8_0, row_bytes) in [("f32.gguf", false, d * 4), ("q8_0.gguf", true, d / 32 * 34)] {
        let n = GIGABYTE / (2 * row_bytes) + 1;
        let features: Vec<u32> = (0..8).map(|i| (n as u32 - 1) / 8 * i + 77 * i).collect();
        let path = dir.path().join(name);
        let size = write_sparse(&path, d, n, q8_0, &features);
        assert!(size >= GIGABYTE);
        // The worst case: all of it in the page cache, so that the system maps neighbours along with each page.
        let mut buffer = vec![0; 1 << 20];
        let mut file = File::open(&path).unwrap();
        while file.read(&mut buffer).unwrap() > 0 {}
        drop(buffer);

        let before = resident();
        // The header, biases and thresholds: of the two matrices nothing.
        let opening = cost::cost(|| drop(Dictionary::open(&path).unwrap()));
        assert!(opening.faults <= 1000 && opening.read <= 1 << 20, "{name}: opening took {opening:?}");

        let dictionary = Dictionary::open(&path).unwrap();
        let opened = resident();
        let slice = dictionary.slice(&features).unwrap();
        let mut x = vec![0.5; d];
        let mut f = vec![0.0; features.len()];
        slice.encode(&x, &mut f);
        assert!(f.iter().all(|&f| f == 0.5 * d as f32), "{name}: the rows of the file, found {f:?}");
        slice.edit(&vec![2.0; features.len()], &mut x);
        assert!(x.iter().all(|&x| x == 16.5), "{name}: eight rows of ones, twice each");
        let steered = resident();
        let grown = steered.saturating_sub(before);
        println!(
            "{name}: {size} bytes open by {opening:?}; resident +{} open, +{grown} steering",
            opened.saturating_sub(before)
        );
        assert!(grown <= 2 << 20, "{name}: resident memory grew by {grown} bytes");

        let before = resident();
        let rule = Rule::new(Op::MinClamp, features.clone(), Strength::raw(9.0)).at_layer(0);
        let plan =
            Plan::new([rule]).compile(&[("big", Arc::new(dictionary))], &Target::new(1, d), Route::Callback).unwrap();
        let meta = [Row::new(1, 0)];
        let mut row = vec![0.0; d];
        let ops = plan.points.values().next().unwrap();
        assert_eq!(ops.apply(&mut row, &meta, &mut Scratch::default()).edited, 1);
        assert!(row.iter().all(|&x| x == 72.0), "{name}: eight features, none active, all clamped to nine");
        let grown = resident().saturating_sub(before);
        println!("{name}: +{grown} by a plan");
        assert!(grown <= 2 << 20, "{name}: resident memory grew by {grown} bytes with a plan");
    }
}
