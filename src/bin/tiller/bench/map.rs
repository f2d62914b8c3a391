//! Opening a dictionary file of 1 GB and steering eight of its features: time, and memory that becomes resident.
//!
//! Baselines: reading the whole file, and its size. Resident memory is read from `/proc`, so Linux only.

use std::path::Path;
use std::sync::Arc;

use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::file::gguf::GgmlType;
use tiller::plan::{Compiled, Op, Plan, Route, Row, Rule, Scratch, Strength, Target};
use tiller::{Error, Result};

use super::{Args, Line, Lines, Pairs, seconds};

const D: usize = 2304;
const F: usize = 58_368;
const MIB: f64 = 1_048_576.0;

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let path = std::env::temp_dir().join(format!("tiller-bench-{}.gguf", std::process::id()));
    lines.out.note("bench map: writing a dictionary of 1 GB to the temporary directory");
    let result = make(&path).and_then(|()| measure(&path, args, lines));
    let _ = std::fs::remove_file(&path);
    result
}

fn make(path: &Path) -> Result<()> {
    let wave = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0 - 0.5;
    Dictionary::from_parts(Parts {
        d_model: D,
        encoder: (0..D * F).map(wave).collect(),
        decoder: (0..D * F).map(|i| wave(i + 1)).collect(),
        encoder_bias: vec![0.0; F],
        decoder_bias: vec![0.0; D],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings::new(Activation::Relu),
        info: Info::default(),
    })?
    .save_gguf(path, GgmlType::F32)
}

fn measure(path: &Path, args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let name = "random dictionary, 1 GB";
    let n = if args.pairs > 0 { args.pairs } else { 3 };
    let open = &mut || Ok(seconds(|| Dictionary::open(path))?.0 * 1e3);
    let read = &mut || Ok(seconds(|| std::fs::read(path).map_err(|e| Error::io("read", path, e)))?.0 * 1e3);
    let pairs = Pairs::measure(n, lines.out, "map", open, read)?;
    lines.push(pairs.line("map", "open", name, "ms"))?;

    let size = std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?.len() as f64 / MIB;
    // What the program itself and its stack need is touched once before, and what that plan holds is not used again.
    let mut rows = vec![1.0; D * 64];
    let _other = steer(path, &mut rows)?;
    let before = resident()?;
    let _kept = steer(path, &mut rows)?;
    let grown = (resident()? - before) / MIB;
    let ratio = grown / size;
    let case = "resident".to_owned();
    lines.push(Line {
        bench: "map",
        case,
        model: name.into(),
        value: grown,
        unit: "MiB",
        baseline: size,
        ratio,
        n: 1,
        interval: None,
    })
}

/// Opens the dictionary and edits 64 rows by eight of its features.
fn steer(path: &Path, rows: &mut [f32]) -> Result<Compiled> {
    let dictionary = Arc::new(Dictionary::open(path)?);
    let features: [u32; 8] = std::array::from_fn(|i| (i * F / 8 + 5) as u32);
    let rule = Rule::new(Op::MinClamp, features, Strength::raw(1.0)).at_layer(0);
    let compiled = Plan::new([rule]).compile(&[("big", dictionary)], &Target::new(2, D), Route::Callback)?;
    let meta: Vec<Row> = (0..64).map(|position| Row::new(position, 0)).collect();
    let mut scratch = Scratch::default();
    for ops in compiled.points.values() {
        ops.apply(rows, &meta, &mut scratch);
    }
    Ok(compiled)
}

/// Resident bytes of this process, file pages included. (`/proc/self/status` lags behind.)
fn resident() -> Result<f64> {
    let path = Path::new("/proc/self/smaps_rollup");
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0).ok_or_else(|| Error::format(path, "expected a line Rss, found none"))
}
