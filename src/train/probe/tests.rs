use super::*;
use crate::Kind;
use crate::progress::silent;

/// `n` numbers in [−1, 1): the formula of `tests/data/probe_reference.py`.
fn noise(n: usize, salt: u64) -> Vec<f64> {
    let low = |x: u64| x & 0xffff_ffff;
    let one = |i: u64| {
        let x = low((i + 1).wrapping_mul(2_654_435_761).wrapping_add(salt * 40_503));
        let x = low((x ^ (x >> 15)).wrapping_mul(2_246_822_519));
        let x = low((x ^ (x >> 13)).wrapping_mul(3_266_489_917));
        (x ^ (x >> 16)) as f64 / 2f64.powi(31) - 1.0
    };
    (0..n as u64).map(one).collect()
}

/// The rows and labels of the reference.
fn data(n: usize, d: usize) -> (Vec<f32>, Vec<bool>) {
    let raw: Vec<f64> = noise(n * d, 7).iter().map(|&v| f64::from(v as f32)).collect();
    let scaled = |(i, v): (usize, &f64)| (v * 10f64.powi((i % d % 3) as i32 - 1) + (i % d) as f64 * 0.5) as f32;
    let x: Vec<f32> = raw.iter().enumerate().map(scaled).collect();
    let extra = noise(n, 8);
    let label = |(row, e): (&[f32], &f64)| {
        f64::from(row[0]) * 20.0 + f64::from(row[1]) - f64::from(row[2]) * 0.1 + 3.0 * e > 0.2
    };
    let labels = x.chunks(d).zip(&extra).map(label).collect();
    (x, labels)
}

#[derive(serde::Deserialize)]
struct Case {
    penalty: String,
    c: f64,
    standardize: bool,
    objective: f64,
    margins: Vec<f64>,
    weights: Vec<f64>,
}

#[derive(serde::Deserialize)]
struct Golden {
    n: usize,
    d: usize,
    labels: usize,
    cases: Vec<Case>,
}

/// The same optimum as scikit-learn's. Tolerances: 1e-6 of the objective; margins to 2e-3 of their root mean square, the
/// noise of sums in f32 on columns that are a hundred times as long as others.
#[test]
fn optima_are_those_of_scikit_learn() {
    let golden: Golden = serde_json::from_str(include_str!("../../../tests/data/probe_reference.json")).unwrap();
    let (x, labels) = data(golden.n, golden.d);
    assert_eq!(labels.iter().filter(|&&l| l).count(), golden.labels);
    assert_eq!(golden.cases.len(), 12);
    for case in &golden.cases {
        let penalty = if case.penalty == "l1" { Penalty::L1 } else { Penalty::L2 };
        let options = Options { penalty, c: case.c, standardize: case.standardize, ..Options::default() };
        let name = format!("{} C {} standardize {}", case.penalty, case.c, case.standardize);
        let probe = fit(&x, golden.d, &labels, &options, &mut silent).unwrap();
        assert!(probe.converged, "{name}: {} steps", probe.steps);
        let margins: Vec<f64> = probe.logits(&x).iter().map(|&m| f64::from(m)).collect();
        let spread: Vec<f64> = match case.standardize {
            true => (0..golden.d).map(|j| deviation(&x, golden.d, j)).collect(),
            false => vec![1.0; golden.d],
        };
        let weights: Vec<f64> = probe.weights.iter().zip(&spread).map(|(&w, s)| f64::from(w) * s).collect();
        let norm: f64 = match penalty {
            Penalty::L1 => weights.iter().map(|w| w.abs()).sum(),
            Penalty::L2 => weights.iter().map(|w| w * w).sum::<f64>() / 2.0,
        };
        let objective = norm + case.c * loss(&margins, &labels);
        assert!(objective <= case.objective * (1.0 + 1e-6), "{name}: {objective}, scikit-learn {}", case.objective);
        assert!(
            objective >= case.objective * (1.0 - 1e-4),
            "{name}: {objective} is below the optimum {}",
            case.objective
        );
        let size = (case.margins.iter().map(|m| m * m).sum::<f64>() / case.margins.len() as f64).sqrt();
        for (i, (got, want)) in margins.iter().zip(&case.margins).enumerate() {
            assert!((got - want).abs() <= 2e-3 * size, "{name}, row {i}: {got}, scikit-learn {want}");
        }
        if penalty == Penalty::L1 && case.standardize {
            for (j, (got, want)) in weights.iter().zip(&case.weights).enumerate() {
                let zero = want.abs() < 1e-6;
                assert!((*got == 0.0) == zero || want.abs() < 1e-3, "{name}, column {j}: {got}, scikit-learn {want}");
            }
        }
    }
}

fn deviation(x: &[f32], d: usize, j: usize) -> f64 {
    let column: Vec<f32> = x.iter().skip(j).step_by(d).copied().collect();
    let n = column.len() as f64;
    (num::stats::variance(&column) * (n - 1.0) / n).sqrt()
}

#[test]
fn results_do_not_depend_on_threads() {
    // More values than one thread takes.
    let (x, labels) = data(22_000, 12);
    for penalty in [Penalty::L1, Penalty::L2] {
        let with = |threads| {
            let options = Options { penalty, threads, ..Options::default() };
            fit(&x, 12, &labels, &options, &mut silent).unwrap()
        };
        let one = with(1);
        assert_eq!(one, with(2));
        assert_eq!(one, with(5));
    }
}

#[test]
fn the_best_k_are_those_that_made_the_label() {
    let (n, d) = (800, 40);
    let mut x: Vec<f32> = noise(n * d, 3).iter().map(|&v| v as f32).collect();
    // Column 17 says most, column 5 something; its unit is a thousand times smaller.
    x.iter_mut().skip(5).step_by(d).for_each(|v| *v /= 1000.0);
    let labels: Vec<bool> = x.chunks(d).map(|row| 3.0 * row[17] + 1000.0 * row[5] > 0.3).collect();
    let found = k_sparse(&x, d, &labels, &[1, 2, 100], &Options::default(), &mut silent).unwrap();
    assert_eq!((&found[0].features[..], &found[1].features[..]), (&[17u32][..], &[17u32, 5][..]));
    let scores: Vec<Score> = found.iter().map(|s| s.probe.score(&x, &labels)).collect();
    assert!(scores[0].accuracy > 0.8 && scores[1].accuracy > 0.97, "{scores:?}");
    assert!(scores[1].auc > 0.99 && scores[1].pearson > scores[0].pearson, "{scores:?}");
    assert!(found[2].features.len() < 40, "columns that say nothing stay out: {:?}", found[2].features);
    let direction = found[0].probe.direction().unwrap();
    assert_eq!((direction[17], direction[5]), (1.0, 0.0));
}

#[test]
fn separable_rows_and_constant_columns_have_an_answer() {
    let x = [1f32, 7.0, 2.0, 7.0, -1.0, 7.0, -3.0, 7.0];
    let labels = [true, true, false, false];
    for penalty in [Penalty::L1, Penalty::L2] {
        for standardize in [true, false] {
            let options = Options { penalty, standardize, c: 100.0, ..Options::default() };
            let probe = fit(&x, 2, &labels, &options, &mut silent).unwrap();
            assert!(probe.weights.iter().all(|w| w.is_finite()) && probe.bias.is_finite(), "{probe:?}");
            assert_eq!(probe.score(&x, &labels).accuracy, 1.0, "{penalty:?} {standardize}: {probe:?}");
        }
    }
}

#[test]
fn a_probe_comes_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.safetensors");
    let probe = Probe { weights: vec![1.0, -2.5], bias: 0.125, steps: 3, converged: true };
    probe.save(&path).unwrap();
    let back = Probe::open(&path).unwrap();
    assert_eq!((back.weights, back.bias), (probe.weights.clone(), probe.bias));
    let array = dir.path().join("p.npy");
    probe.save_npy(&array).unwrap();
    assert_eq!(Probe::open(&array).unwrap_err().kind(), Kind::Format);
    let file = Tensors::open(&array).unwrap();
    assert_eq!(file.get(crate::file::UNNAMED).unwrap().to_f32().unwrap()[..], probe.weights[..]);
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let x = [1f32, 2.0, 3.0, 4.0];
    let error = |x: &[f32], d, labels: &[bool], options: &Options| fit(x, d, labels, options, &mut silent).unwrap_err();
    let plain = Options::default();
    assert!(error(&x, 2, &[true], &plain).message().contains("1 rows of width 2"));
    assert!(error(&x, 2, &[true, true], &plain).message().contains("2 yes among 2"));
    assert_eq!(error(&[1.0, f32::NAN, 0.0, 0.0], 2, &[true, false], &plain).kind(), Kind::Numeric);
    assert!(error(&x, 2, &[true, false], &Options { c: 0.0, ..plain }).message().contains("option c"));
    let cancelled = fit(&x, 2, &[true, false], &plain, &mut |_| false).unwrap_err();
    assert_eq!(cancelled.kind(), Kind::Cancelled);
    let none = k_sparse(&x, 2, &[true, false], &[0], &plain, &mut silent).unwrap_err();
    assert!(none.message().contains("at least 1"));
}
