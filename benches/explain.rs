//! The estimators at their promised size, and the choice behind `data`: counting co-occurrences word by word against
//! bitsets and popcounts.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rand::Rng;
use tiller::explain::counted::{Count, count};
use tiller::explain::lens::{Condition, Lens, Mode, Sight, score};
use tiller::explain::vocabulary::{Counter, Vocabulary};
use tiller::explain::windows::{Collector, Text, Windows};
use tiller::explain::{Estimator, Explanation, Explanations, Header};
use tiller::num::rng;
use tiller::progress::silent;

const N_FEATURES: usize = 4096;
const N_WORDS: usize = 5000;
const D_MODEL: usize = 576;

fn name(word: usize) -> String {
    [17576, 676, 26, 1].iter().map(|unit| char::from(b'a' + (word / unit % 26) as u8)).collect()
}

fn vocabulary() -> Vocabulary {
    let mut counter = Counter::new();
    (0..N_WORDS).for_each(|word| counter.add(&format!("{} ", name(word)).repeat(1 + (N_WORDS - word) / 100)));
    counter.finish(N_WORDS).expect("words")
}

/// Windows of 32 tokens with about 25 words and 400 active features each, as on real text.
fn windows(vocabulary: &Vocabulary, n_tokens: usize) -> Windows {
    let mut random = rng(1);
    let tokens: Vec<i32> =
        (0..n_tokens).map(|_| ((N_WORDS as f64).powf(random.random::<f64>()) - 1.0) as i32).collect();
    let text = Text { tokens: &tokens, positions: &vec![1; n_tokens], documents: &[0, n_tokens] };
    let mut collector = Collector::new(vocabulary, N_FEATURES, 32, 1.0).expect("options");
    let rows = collector.text(text, &|token| format!(" {}", name(token as usize)).into_bytes()).expect("text");
    let mut topic = 0;
    for row in rows {
        if row % 32 == 0 {
            topic = random.random_range(0..N_FEATURES as u32);
        }
        let near =
            (0..20).map(|_| ((topic + random.random_range(0..60u32)) % N_FEATURES as u32, 1.0)).collect::<Vec<_>>();
        let far = (0..12).map(|_| (random.random_range(0..N_FEATURES as u32), 1.0));
        collector.row(&near.into_iter().chain(far).collect::<Vec<_>>()).expect("row");
    }
    collector.finish().expect("windows")
}

/// Bits of `n` things over the windows, `[n, words]`.
fn bitsets<'w>(n: usize, n_windows: usize, of: impl Fn(usize) -> &'w [u32]) -> Vec<u64> {
    let width = n_windows.div_ceil(64);
    let mut bits = vec![0u64; n * width];
    for window in 0..n_windows {
        of(window).iter().for_each(|&i| bits[i as usize * width + window / 64] |= 1 << (window % 64));
    }
    bits
}

/// How often every feature comes together with every word, by popcounts on one thread; only the sum is kept.
fn popcounts(features: &[u64], words: &[u64], width: usize) -> u64 {
    const BLOCK: usize = 32;
    let mut sum = 0;
    for features in features.chunks(BLOCK * width) {
        for words in words.chunks(BLOCK * width) {
            for feature in features.chunks(width) {
                for word in words.chunks(width) {
                    sum += feature.iter().zip(word).map(|(a, b)| u64::from((a & b).count_ones())).sum::<u64>();
                }
            }
        }
    }
    sum
}

fn data(c: &mut Criterion) {
    let vocabulary = vocabulary();
    let windows = windows(&vocabulary, 250_000);
    let mut group = c.benchmark_group("explain/data, 250k tokens");
    group.sample_size(10);
    for threads in [1, 2] {
        let options = Count { threads, ..Count::default() };
        group.bench_function(format!("word by word, threads {threads}"), |b| {
            b.iter(|| count(black_box(&windows), &options));
        });
    }
    let width = windows.len().div_ceil(64);
    let features = bitsets(N_FEATURES, windows.len(), |window| windows.features_of(window));
    let words = bitsets(N_WORDS, windows.len(), |window| windows.words_of(window));
    group.bench_function("popcounts alone, threads 1", |b| {
        b.iter(|| popcounts(black_box(&features), black_box(&words), width));
    });
    group.finish();
}

fn lens(c: &mut Criterion) {
    let mut random = rng(2);
    let decoder: Vec<f32> = (0..N_FEATURES * D_MODEL).map(|_| random.random_range(-1.0..1.0)).collect();
    let words: Vec<f32> = (0..N_WORDS * D_MODEL).map(|_| random.random_range(-0.1..0.1)).collect();
    let norm = vec![1.0; D_MODEL];
    let sight = Sight {
        n_features: N_FEATURES,
        decoder_row: &|c, row| row.copy_from_slice(&decoder[c * D_MODEL..][..D_MODEL]),
        map: None,
        norm: &norm,
        eps: 1e-5,
        words: &words,
    };
    let mut group = c.benchmark_group("explain/lens, 4096 × 5000");
    group.sample_size(10);
    for (mode, condition, threads) in [
        (Mode::Mi, Condition::Softmax, 1),
        (Mode::Mi, Condition::Softmax, 2),
        (Mode::Mi, Condition::Bayes, 2),
        (Mode::Logit, Condition::Softmax, 2),
    ] {
        let options = Lens { mode, condition, threads, ..Lens::default() };
        group.bench_function(format!("{mode:?}/{condition:?}, threads {threads}"), |b| {
            b.iter(|| score(black_box(&sight), &options, &mut silent));
        });
    }
    group.finish();
}

fn find(c: &mut Criterion) {
    let mut random = rng(3);
    let mut explanation = |feature| {
        let first = random.random_range(0..N_WORDS);
        let words = (0..50).map(|i| (name((first + i * 7) % N_WORDS), 1.0 / (i + 1) as f32)).collect();
        Explanation { feature, density: Some(0.01), mean: Some(1.0), label: None, words }
    };
    let list = (0..N_FEATURES as u32).map(&mut explanation).collect();
    let all = Explanations::new(Header::new(Estimator::Data), list).expect("explanations");
    let query = [name(700), name(707), name(714), name(721)];
    let query: Vec<&str> = query.iter().map(String::as_str).collect();
    c.bench_function("explain/find, 4096 features, 4 words", |b| b.iter(|| all.find(black_box(&query), 8)));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("explanations.jsonl");
    c.bench_function("explain/save, 4096 features", |b| b.iter(|| all.save(&path)));
    c.bench_function("explain/load, 4096 features", |b| b.iter(|| Explanations::load(&path)));
}

criterion_group!(benches, data, lens, find);
criterion_main!(benches);
