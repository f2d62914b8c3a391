//! Memory of the estimators at the size they are promised for: 4,096 features, 5,000 words, a million tokens, 300 MB. One
//! test, so that the process's peak memory is theirs. Their time depends on the machine: `benches/explain.rs` measures it.

use rand::Rng;
use tiller::explain::counted::{Count, count};
use tiller::explain::lens::{Lens, Sight, score};
use tiller::explain::vocabulary::{Counter, Vocabulary};
use tiller::explain::windows::{Collector, Text};
use tiller::num::rng;
use tiller::progress::silent;

const N_FEATURES: usize = 4096;
const N_WORDS: usize = 5000;
const N_TOKENS: usize = 1_000_000;
const D_MODEL: usize = 576;
const N_THREADS: usize = 2;

fn name(word: usize) -> String {
    [17576, 676, 26, 1].iter().map(|unit| char::from(b'a' + (word / unit % 26) as u8)).collect()
}

fn vocabulary() -> Vocabulary {
    let mut counter = Counter::new();
    (0..N_WORDS).for_each(|word| counter.add(&format!("{} ", name(word)).repeat(1 + (N_WORDS - word) / 100)));
    counter.finish(N_WORDS).unwrap()
}

/// Peak resident memory in MB, where the system tells.
fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

#[test]
fn data_and_lens_keep_their_promise_of_memory() {
    let vocabulary = vocabulary();
    assert_eq!(vocabulary.len(), N_WORDS);
    let mut random = rng(1);

    // Each window has a topic of 60 features; a token has 20 of them and 12 others: about 400 a window, as on real text.
    let tokens: Vec<i32> =
        (0..N_TOKENS).map(|_| ((N_WORDS as f64).powf(random.random::<f64>()) - 1.0) as i32).collect();
    let positions = vec![1; N_TOKENS];
    let text = Text { tokens: &tokens, positions: &positions, documents: &[0, N_TOKENS] };
    let mut collector = Collector::new(&vocabulary, N_FEATURES, 32, 1.0).unwrap();
    let rows = collector.text(text, &|token| format!(" {}", name(token as usize)).into_bytes()).unwrap();
    let mut codes = Vec::new();
    let mut topic = 0;
    for row in rows {
        if row % 32 == 0 {
            topic = random.random_range(0..N_FEATURES as u32);
        }
        codes.clear();
        codes.extend((0..20).map(|_| ((topic + random.random_range(0..60)) % N_FEATURES as u32, 1.0)));
        codes.extend((0..12).map(|_| (random.random_range(0..N_FEATURES as u32), 1.0)));
        collector.row(&codes).unwrap();
    }
    let windows = collector.finish().unwrap();
    let explained = count(&windows, &Count { threads: N_THREADS, ..Count::default() });
    assert_eq!((windows.len(), explained.len()), (N_TOKENS / 32, N_FEATURES));
    drop((windows, explained, tokens, positions));

    let decoder: Vec<f32> = (0..N_FEATURES * D_MODEL).map(|_| random.random_range(-1.0..1.0)).collect();
    let words: Vec<f32> = (0..N_WORDS * D_MODEL).map(|_| random.random_range(-0.1..0.1)).collect();
    let decoder_row = |c: usize, row: &mut [f32]| row.copy_from_slice(&decoder[c * D_MODEL..][..D_MODEL]);
    let norm = vec![1.0; D_MODEL];
    let sight =
        Sight { n_features: N_FEATURES, decoder_row: &decoder_row, map: None, norm: &norm, eps: 1e-5, words: &words };
    let explained = score(&sight, &Lens { threads: N_THREADS, ..Lens::default() }, &mut silent).unwrap();
    assert_eq!(explained.len(), N_FEATURES);

    if let Some(peak) = peak_mb() {
        println!("peak memory: {peak} MB");
        assert!(peak <= 300, "{peak} MB");
    }
}
