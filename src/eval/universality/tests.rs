//! Measures against NumPy and SciPy, nulls against their known mean, and planted structure through the whole of it.

use rand::Rng;
use serde::Deserialize;

use super::comparison::{Chance, Similarity, compare};
use super::correlation::Codes;
use super::null::{Null, deal};
use super::request::Request;
use super::similarity::{LEAST, Measure, measure, rsa, svcca_99, svcca_top1};
use super::subspace::Category;
use super::tally::Tally;
use super::tokens::Item;
use crate::num::rng;
use crate::progress::silent;

/// `n` numbers in [−1, 1): the formula of `tests/data/similarity_reference.py`.
fn noise(n: usize, salt: u32) -> Vec<f64> {
    (1..=n as u32)
        .map(|i| {
            let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(salt * 40_503);
            x = (x ^ (x >> 15)).wrapping_mul(2_246_822_519);
            x = (x ^ (x >> 13)).wrapping_mul(3_266_489_917);
            f64::from(x ^ (x >> 16)) / 2f64.powi(31) - 1.0
        })
        .collect()
}

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    n: usize,
    d_x: usize,
    d_y: usize,
    mix: f32,
    decay: f64,
    svcca_99: f64,
    svcca_top1: f64,
    rsa: f64,
}

impl Case {
    fn rows(&self) -> [Vec<f32>; 2] {
        let rows = |d: usize, salt: u32| {
            let fall = |(i, v): (usize, f64)| (v * self.decay.powi((i % d) as i32)) as f32;
            noise(self.n * d, salt).into_iter().enumerate().map(fall).collect::<Vec<f32>>()
        };
        let (x, mut y) = (rows(self.d_x, 1), rows(self.d_y, 2));
        for (x, y) in x.chunks(self.d_x).zip(y.chunks_mut(self.d_y)) {
            y.iter_mut().zip(x).for_each(|(y, x)| *y += self.mix * x);
        }
        [x, y]
    }
}

#[test]
fn measures_agree_with_numpy_and_scipy() {
    let golden: Golden = serde_json::from_str(include_str!("../../../tests/data/similarity_reference.json")).unwrap();
    assert_eq!(golden.cases.len(), 4);
    for case in golden.cases {
        let [x, y] = case.rows();
        for (name, found, expected) in [
            ("svcca_99", svcca_99(&x, &y, case.n), case.svcca_99),
            ("svcca_top1", svcca_top1(&x, &y, case.n), case.svcca_top1),
            ("rsa", rsa(&x, &y, case.n), case.rsa),
        ] {
            let found = found.unwrap();
            assert!((found - expected).abs() <= 1e-6, "n {}: {name} {found}, expected {expected}", case.n);
        }
    }
}

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = rng(seed);
    (0..n).map(|_| rng.random_range(-1f32..1.0)).collect()
}

/// Rows of `d` columns that lie along a few axes more than along others, as decoder rows do.
fn rows(n: usize, d: usize, seed: u64) -> Vec<f32> {
    random(n * d, seed).iter().enumerate().map(|(i, v)| v * 0.9f32.powi((i % d) as i32)).collect()
}

/// x·Q for a random orthogonal Q that keeps each row's mean, on which Pearson's correlation rests: reflections at random
/// vectors of mean 0, one after the other.
fn rotated(x: &[f32], d: usize, seed: u64) -> Vec<f32> {
    let mut x = x.to_vec();
    for mirror in random(8 * d, seed).chunks(d) {
        let mean = mirror.iter().sum::<f32>() / d as f32;
        let mirror = &mirror.iter().map(|v| v - mean).collect::<Vec<f32>>()[..];
        let squares: f32 = mirror.iter().map(|v| v * v).sum();
        for row in x.chunks_mut(d) {
            let along = 2.0 * crate::num::dot(row, mirror) / squares;
            row.iter_mut().zip(mirror).for_each(|(v, m)| *v -= along * m);
        }
    }
    x
}

/// The mean of |Pearson| over pairings at random is about sqrt(2 / (π (n − 1))).
#[test]
fn the_shuffled_null_of_svcca_top1_has_the_mean_that_it_should() {
    const RUNS: usize = 2000;
    for (n, published) in [(27, 0.1565), (290, 0.0469), (5050, 0.0112)] {
        let measure = Measure::SvccaTop1;
        let (x, y) = (measure.prepare(&random(n * 6, 1), n).unwrap(), measure.prepare(&random(n * 6, 2), n).unwrap());
        let null = Null::of(0.0, RUNS, 5, 2, &mut silent, &|rng| x.compare(&y, &deal(n, n, rng))).unwrap();
        let expected = (2.0 / (std::f64::consts::PI * (n as f64 - 1.0))).sqrt();
        assert!((expected - published).abs() < 1e-4);
        let error = null.sd / (RUNS as f64).sqrt();
        assert!((null.mean - expected).abs() < 4.0 * error, "n {n}: {} ± {error}, expected {expected}", null.mean);
        assert_eq!((null.p, null.runs), (1.0, RUNS), "all reach 0");
    }
}

#[test]
fn a_null_counts_runs_that_reach_the_value_on_any_number_of_threads() {
    let run = |threads: usize, observed: f64| {
        Null::of(observed, 999, 3, threads, &mut silent, &|rng| rng.random_range(0.0..1.0)).unwrap()
    };
    assert_eq!(run(1, 0.5), run(3, 0.5));
    let half = run(1, 0.5);
    assert!((half.p - 0.5).abs() < 0.06 && (half.mean - 0.5).abs() < 0.04 && (half.sd - 0.2887).abs() < 0.02);
    assert_eq!(run(1, 2.0).p, 0.001);
    let tied = Null::of(1.0, 99, 3, 1, &mut silent, &|_| 1.0 - 1e-15).unwrap();
    assert_eq!(tied.p, 1.0, "what rounding makes smaller is not smaller");
    let nothing = Null::of(0.5, 9, 3, 1, &mut silent, &|_| f64::NAN).unwrap();
    assert!(nothing.p == 1.0 && nothing.mean.is_nan(), "what has no value speaks for chance");
    let mut stop = |_: crate::progress::Step<'_>| false;
    assert_eq!(Null::of(0.0, 9, 3, 1, &mut stop, &|_| 0.0).unwrap_err().kind(), crate::Kind::Cancelled);
}

fn compared(x: &[f32], y: &[f32], n: usize) -> Vec<Similarity> {
    let chance = Chance { runs: 199, subsets: 99, seed: 1, threads: 2 };
    let d = x.len() / n;
    compare(
        [x, y],
        n,
        &chance,
        &|rng| [0, 1].map(|_| (0..n * d).map(|_| rng.random_range(-1.0..1.0)).collect()),
        "",
        &mut silent,
    )
    .unwrap()
}

#[test]
fn a_rotated_copy_is_universal_and_a_shuffled_one_is_not() {
    let (n, d) = (120, 16);
    let x = rows(n, d, 1);
    let y: Vec<f32> = rotated(&x, d, 2).iter().zip(random(n * d, 3)).map(|(v, e)| 3.0 * v + 0.02 * e).collect();
    for s in compared(&x, &y, n) {
        assert!(s.value > 0.95 && s.shuffled.p < 0.01 && s.shuffled.mean < 0.7, "{s:?}");
        assert!(s.subsets.p <= 1.0 / 11.0 + 1e-9, "{s:?}");
    }
    // By chance p is anything from 0 to 1, as often as anything else: 12 of them lie around a half.
    let mut sums = [0.0; 3];
    for seed in 0..12 {
        let order = deal(n, n, &mut rng(seed));
        let shuffled: Vec<f32> = order.iter().flat_map(|&i| y[i * d..(i + 1) * d].to_vec()).collect();
        for (sum, s) in sums.iter_mut().zip(compared(&x, &shuffled, n)) {
            assert!(s.value < 0.5, "{s:?}");
            *sum += s.shuffled.p / 12.0;
        }
    }
    assert!(sums.iter().all(|p| (0.25..0.75).contains(p)), "{sums:?}");
}

#[test]
fn what_has_no_measure_is_refused() {
    for one in Measure::ALL {
        assert_eq!(measure(one, &[1.0, 2.0], &[2.0, 1.0], 2).unwrap_err().kind(), crate::Kind::Argument);
        assert_eq!(measure(one, &[1.0; 8], &[2.0; 8], 4).unwrap_err().kind(), crate::Kind::Numeric);
        assert_eq!(measure(one, &[0.5; 7], &[2.0; 8], 4).unwrap_err().kind(), crate::Kind::Argument);
        assert!(measure(one, &[f32::NAN; 8], &random(8, 1), 4).is_err());
        let good = one.prepare(&random(12, 1), 4).unwrap();
        assert!(good.compare(&good, &[0, 1]).is_nan() && good.compare(&good, &[0, 1, 2, 9]).is_nan());
    }
}

/// A feature fires on the words of its topic, in both spaces under other numbers; B's decoder is A's, rotated.
struct Planted {
    n: usize,
    d: usize,
    decoder_a: Vec<f32>,
    decoder_b: Vec<f32>,
    /// The number in B of a feature of A.
    of_a: Vec<usize>,
}

impl Planted {
    fn new(matched: bool) -> Self {
        let (n, d) = (60, 12);
        let of_a = deal(n, n, &mut rng(9));
        let decoder_a = rows(n, d, 1);
        let turned = if matched { rotated(&decoder_a, d, 2) } else { rows(n, d, 77) };
        let mut decoder_b = vec![0f32; n * d];
        for (a, &b) in of_a.iter().enumerate() {
            decoder_b[b * d..(b + 1) * d].copy_from_slice(&turned[a * d..(a + 1) * d]);
        }
        Self { n, d, decoder_a, decoder_b, of_a }
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::new([self.n; 2], 1 << 20).unwrap();
        let months: Vec<&str> = "january february march april may june july august".split(' ').collect();
        let items: Vec<Item> = (0..self.n)
            .map(|topic| match topic {
                0..8 => months[topic].to_owned(),
                59 => ",".to_owned(),
                _ => format!("topic{topic}"),
            })
            .map(|text| Item { text: tally.texts.id(&text), whole: true })
            .collect();
        let mut rng = rng(3);
        for _ in 0..30 {
            let (mut offsets, mut codes) = (vec![0], [Vec::new(), Vec::new()]);
            for topic in 0..self.n {
                // Its own feature, strongly, and another one at random in each space, weakly.
                let own: f32 = rng.random_range(2.0..3.0);
                let mut other = || ((topic + rng.random_range(1..self.n)) % self.n) as u32;
                codes[0].extend([(topic as u32, own), (other(), 0.3)]);
                codes[1].extend([(self.of_a[topic] as u32, 0.5 * own), (self.of_a[other() as usize] as u32, 0.3)]);
                offsets.push(codes[0].len());
            }
            let [a, b] = &codes;
            let both = [a, b].map(|entries| Codes { offsets: &offsets, entries });
            tally.add(both, &items, 2).unwrap();
        }
        tally
    }

    fn report(&self) -> super::Report {
        let request = Request { runs: 199, subsets: 100, threads: 2, ..Request::default() };
        let rows = |decoder: &[f32], ids: &[u32]| -> Vec<f32> {
            ids.iter().flat_map(|&id| decoder[id as usize * self.d..(id as usize + 1) * self.d].to_vec()).collect()
        };
        let decoders = [&self.decoder_a, &self.decoder_b];
        let (a, b) = (|ids: &[u32]| rows(decoders[0], ids), |ids: &[u32]| rows(decoders[1], ids));
        let categories = Category::built_in().unwrap();
        self.tally().report(&request, &categories, [&a, &b], &mut silent).unwrap()
    }
}

#[test]
fn planted_features_find_their_counterparts_and_their_subspaces() {
    let planted = Planted::new(true);
    let report = planted.report();
    let steps = report.steps;
    assert_eq!((steps.correlated, steps.concept, steps.above), (60, 59, 59), "the comma is no concept");
    assert!(report.pairs.iter().all(|p| planted.of_a[p.a as usize] == p.b as usize && p.r > 0.8));
    assert!(report.pairs.windows(2).all(|two| two[0].r >= two[1].r));
    assert_eq!((report.n_tokens, report.compared, report.a.alive, report.a.l0), (1800, 59, 60, 2.0));
    for s in &report.similarity {
        assert!(s.value > 0.99 && s.shuffled.p < 0.01, "{s:?}");
    }
    let months = report.subspaces.iter().find(|s| s.name == "months").unwrap();
    assert_eq!(months.pairs, 8);
    let rsa = months.similarity.iter().find(|s| s.measure == Measure::Rsa).unwrap();
    assert!(rsa.value > 0.99 && rsa.shuffled.p < 0.01, "{rsa:?}");
    let nature = report.subspaces.iter().find(|s| s.name == "nature").unwrap();
    assert!(nature.pairs < LEAST && nature.similarity.is_empty());
    assert_eq!(report, planted.report(), "a seed gives one report");
}

#[test]
fn features_that_fire_alike_need_not_point_alike() {
    let report = Planted::new(false).report();
    assert_eq!(report.steps.above, 59);
    for s in &report.similarity {
        assert!(s.shuffled.p > 0.01, "{s:?}");
    }
}
