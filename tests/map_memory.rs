//! A file of 1 GB opens by a few pages, and a few rows of it cost a few pages.
//!
//! The file is sparse: it has its size, its header and holes, so the test needs neither the disk nor the time. Alone in
//! its binary, so that the process's resident memory is its own.
#![cfg(target_os = "linux")]

mod support;

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom};

use support::{Raw, STR};
use tiller::file::gguf::Gguf;

const D: u64 = 2304;
const F: u64 = 131_072;
/// ggml's number for F16.
const F16: u32 = 1;

/// Bytes of this process's memory that are in RAM.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_gigabyte_opens_at_once_and_sixteen_rows_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.gguf");
    let matrix = D * F * 2;
    let raw = Raw::header(2, 1)
        .key("general.architecture", STR)
        .str("sae")
        .tensor("enc.weight", &[D, F], F16, 0)
        .tensor("dec.weight", &[D, F], F16, matrix)
        .data(0);
    let size = raw.0.len() as u64 + 2 * matrix;
    assert!(size >= 1 << 30);
    std::fs::write(&path, &raw.0).unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.set_len(size).unwrap();

    // The hard case: everything around the rows is in the system's cache already, so that it could be mapped with them.
    let features = [3u64, 20_011, 40_009, 60_013, 77_777, 90_001, 101_010, F - 1];
    let mut around = vec![0u8; 1 << 20];
    for offset in features.iter().flat_map(|f| [f * D * 2, matrix + f * D * 2]) {
        file.seek(SeekFrom::Start(offset.saturating_sub(1 << 19))).unwrap();
        let _ = file.read(&mut around).unwrap();
    }
    drop(around);

    let opening = support::cost::cost(|| drop(black_box(Gguf::open(&path).unwrap())));
    assert!(opening.faults <= 100 && opening.read <= 1 << 16, "opening took {opening:?}");

    let before = resident();
    let gguf = Gguf::open(&path).unwrap();
    gguf.map().advise_random();
    let mut sum = 0u64;
    for name in ["enc.weight", "dec.weight"] {
        let tensor = gguf.tensor(name).unwrap();
        for f in features {
            sum += gguf.row(tensor, f as usize).unwrap().iter().map(|&b| u64::from(b)).sum::<u64>();
        }
    }
    black_box(sum);
    let grown = resident().saturating_sub(before);
    eprintln!("opened by {opening:?}; 16 rows of {} bytes: {} KB resident", D * 2, grown / 1024);
    assert!(grown <= 2 << 20, "{grown} bytes");
}
