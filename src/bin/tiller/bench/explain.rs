//! How long explanations take for 4,096 features and 5,000 words: `lens` against the bare product of decoder and words that
//! it cannot do without, and `data`, the counting alone, over a million tokens, against one pass over their codes.

use rand::Rng;
use tiller::Result;
use tiller::explain::counted::{Count, count};
use tiller::explain::lens::{Lens, Sight, score};
use tiller::explain::vocabulary::{Counter, Vocabulary};
use tiller::explain::windows::{Collector, Text};
use tiller::num::{Mat, gemm, rng};

use super::{Args, Lines, Pairs, seconds};

const D: usize = 576;
const F: usize = 4096;
const WORDS: usize = 5000;
const TOKENS: usize = 1_000_000;
const ACTIVE: usize = 32;

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let threads = args.machine.n_threads();
    let n = if args.pairs > 0 { args.pairs } else { 3 };
    let mut random = rng(3);
    let mut matrix = |n: usize| (0..n * D).map(|_| random.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let (decoder, words, norm) = (matrix(F), matrix(WORDS), vec![1.0; D]);
    let sight = Sight {
        n_features: F,
        decoder_row: &|i, row| row.copy_from_slice(&decoder[i * D..(i + 1) * D]),
        map: None,
        norm: &norm,
        eps: 1e-5,
        words: &words,
    };
    let options = Lens { threads, ..Lens::default() };
    let mut product = vec![0.0; F * WORDS];
    let lens = &mut || Ok(seconds(|| score(&sight, &options, &mut tiller::progress::silent))?.0);
    let bare = &mut || {
        let (rows, columns) = (Mat::new(&decoder, F, D), Mat::new(&words, WORDS, D).t());
        let product = &mut product;
        Ok(seconds(|| {
            gemm(rows, columns, false, product, threads);
            Ok(())
        })?
        .0)
    };
    let pairs = Pairs::measure(n, lines.out, "lens", lens, bare)?;
    lines.push(pairs.line("explain", "lens", "4,096 features × 5,000 words", "s"))?;

    let windows = {
        let vocabulary = vocabulary()?;
        let mut collector = Collector::new(&vocabulary, F, 32, 1.0)?;
        // Word frequencies fall like 1 / rank, as in text.
        let tokens: Vec<i32> =
            (0..TOKENS).map(|_| ((WORDS as f64).powf(random.random::<f64>()) - 1.0) as i32).collect();
        let (positions, documents) = (vec![1; TOKENS], (0..=TOKENS).step_by(500).collect::<Vec<_>>());
        let text = Text { tokens: &tokens, positions: &positions, documents: &documents };
        collector.text(text, &|token| format!(" {}", name(token as usize)).into_bytes())?;
        for _ in 0..TOKENS {
            let codes: Vec<(u32, f32)> =
                (0..ACTIVE).map(|_| (((F as f64).powf(random.random::<f64>()) - 1.0) as u32, 1.0)).collect();
            collector.row(&codes)?;
        }
        collector.finish()?
    };
    let options = Count { threads, ..Count::default() };
    let codes: Vec<u32> = (0..TOKENS * ACTIVE).map(|i| (i as u32).wrapping_mul(2_654_435_761) >> 20).collect();
    let counting = &mut || Ok(seconds(|| Ok(std::hint::black_box(count(&windows, &options))))?.0);
    let pass = &mut || {
        let mut counts = vec![0_u32; F];
        let (time, ()) = seconds(|| {
            codes.iter().for_each(|&code| counts[code as usize] += 1);
            Ok(())
        })?;
        std::hint::black_box(&counts);
        Ok(time)
    };
    let pairs = Pairs::measure(n, lines.out, "data", counting, pass)?;
    lines.push(pairs.line("explain", "data", "1,000,000 tokens, 32 active", "s"))
}

fn name(word: usize) -> String {
    let letter = |i: usize| char::from(b'a' + (i % 26) as u8);
    [letter(word / 676), letter(word / 26), letter(word), 'o', 'w'].iter().collect()
}

fn vocabulary() -> Result<Vocabulary> {
    let mut counter = Counter::new();
    (0..WORDS).for_each(|word| counter.add(&format!("{} ", name(word)).repeat(WORDS.div_ceil(word + 1))));
    counter.finish(WORDS)
}
