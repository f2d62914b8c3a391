//! The figures against NumPy, SciPy and scikit-learn: `tests/data/entanglement_reference.py`.

use serde::Deserialize;

use super::correlation::{ASSOCIATED, Mean, Moments, OneToMany, best, interval};
use super::dci::Dci;
use super::effect::{Logits, collisions, interaction, mean, overlap, selectivity};
use super::probing::{Table, probe};
use crate::progress::silent;

/// `n` numbers in [−1, 1): the formula of the reference.
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

#[derive(Deserialize)]
struct Golden {
    n: usize,
    train: usize,
    n_features: usize,
    n_concepts: usize,
    attributes: Vec<usize>,
    ks: Vec<usize>,
    correlations: Vec<f64>,
    features: Vec<usize>,
    mcc: [f64; 2],
    mcc_by_size: [f64; 2],
    l0: f64,
    deviations: Vec<f64>,
    means_with: Vec<f64>,
    one_to_many: Counts,
    relevance: Vec<f64>,
    accuracies: Vec<f64>,
    curves: Vec<Vec<f64>>,
    dci: [f64; 2],
    dci_planted: [f64; 2],
    effects: Vec<f64>,
    selectivity: Vec<f64>,
    leak: Vec<f64>,
    both: Vec<f64>,
    interaction: f64,
    overlap: f64,
}

#[derive(Deserialize)]
struct Counts {
    features: usize,
    concepts_per_feature: f64,
    shared: f64,
    features_per_concept: f64,
}

/// The reference, its codes `[n, F]` and its labels `[n, C]`.
fn golden() -> (Golden, Vec<f32>, Vec<bool>) {
    let golden: Golden = serde_json::from_str(include_str!("../../../tests/data/entanglement_reference.json")).unwrap();
    let (f, c) = (golden.n_features, golden.n_concepts);
    let labels: Vec<bool> = noise(golden.n * c, 1).iter().map(|v| *v > 0.1).collect();
    let mut codes = noise(golden.n * f, 2);
    for (row, labels) in codes.chunks_exact_mut(f).zip(labels.chunks_exact(c)) {
        let yes = |c: usize| f64::from(u8::from(labels[c]));
        (0..10).for_each(|j| row[j] += (0.25 + 0.125 * j as f64) * yes(j % c));
        row[4] += 0.875 * yes(1);
        row.iter_mut().for_each(|v| *v = (*v - 0.125).max(0.0));
        row[13] = 0.0;
    }
    (golden, codes.into_iter().map(|v| v as f32).collect(), labels)
}

fn numbers(labels: &[bool]) -> Vec<f32> {
    labels.iter().map(|&yes| f32::from(u8::from(yes))).collect()
}

fn close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}[{i}]: {a}, expected {b}");
    }
}

#[test]
fn correlations_and_counts_are_those_of_scipy() {
    let (golden, codes, labels) = golden();
    let (f, c) = (golden.n_features, golden.n_concepts);
    let (mut moments, truth) = (Moments::new(f, c), numbers(&labels));
    // In blocks of any size.
    moments.add(&codes[..100 * f], &truth[..100 * c]);
    moments.add(&codes[100 * f..], &truth[100 * c..]);
    let found = moments.correlations();
    close(&found, &golden.correlations, 1e-6, "correlations");
    close(&moments.deviations(), &golden.deviations, 1e-6, "deviations");
    close(&moments.means_with(), &golden.means_with, 1e-6, "means");
    close(&[moments.l0()], &[golden.l0], 1e-6, "L0");
    let highest = (0..f).map(|j| codes.iter().skip(j).step_by(f).copied().fold(f32::MIN, f32::max));
    assert_eq!(moments.max(), highest.collect::<Vec<f32>>());
    let chosen = best(&found, c, false);
    assert_eq!(chosen.iter().map(|b| b.feature).collect::<Vec<_>>(), golden.features);
    for (by_size, expected) in [(false, golden.mcc), (true, golden.mcc_by_size)] {
        let values: Vec<f64> = best(&found, c, by_size).iter().map(|b| b.correlation).collect();
        let mean = Mean::of(&values, &golden.attributes);
        close(&[mean.micro, mean.by_attribute], &expected, 1e-6, "MCC");
    }
    let (found, counts) = (OneToMany::of(&found, c, ASSOCIATED), golden.one_to_many);
    assert_eq!(found.features, counts.features);
    close(
        &[found.concepts_per_feature, found.shared, found.features_per_concept],
        &[counts.concepts_per_feature, counts.shared, counts.features_per_concept],
        1e-6,
        "one to many",
    );
    // The interval lies around the figure.
    let columns: Vec<Vec<f32>> =
        chosen.iter().map(|b| codes.iter().skip(b.feature).step_by(f).copied().collect()).collect();
    let truth: Vec<Vec<bool>> = (0..c).map(|c_| labels.iter().skip(c_).step_by(c).copied().collect()).collect();
    let [low, high] = interval(&columns, &truth, 1).unwrap();
    assert!(low < golden.mcc[0] && golden.mcc[0] < high && high - low < 0.1, "{low} {high}");
}

#[test]
fn large_means_take_no_digits_away() {
    let (golden, codes, labels) = golden();
    let (f, c) = (golden.n_features, golden.n_concepts);
    // Powers of two: the sums are exact, so the shifted codes vary by the same amounts.
    let shifted: Vec<f32> = codes.iter().map(|v| (v * 1024.0).round() / 1024.0 + 4096.0).collect();
    let plain: Vec<f32> = shifted.iter().map(|v| v - 4096.0).collect();
    let of = |codes: &[f32]| {
        let mut moments = Moments::new(f, c);
        moments.add(codes, &numbers(&labels));
        moments.correlations()
    };
    close(&of(&shifted), &of(&plain), 1e-9, "correlations");
}

#[test]
fn probes_and_dci_are_those_of_scikit_learn() {
    let (golden, codes, labels) = golden();
    let (f, c, n) = (golden.n_features, golden.n_concepts, golden.train);
    let mut relevance = vec![0.0; f * c];
    let mut accuracies = Vec::new();
    for k in 0..c {
        let truth: Vec<bool> = labels.iter().skip(k).step_by(c).copied().collect();
        let (train, test) = (Table { codes: &codes[..n * f], labels: &truth[..n] }, &truth[n..]);
        let test = Table { codes: &codes[n * f..], labels: test };
        let found = probe(train, test, f, &golden.ks, 1, &mut silent).unwrap();
        close(&found.pearson, &golden.curves[k], 1e-3, "curve");
        found.relevance.iter().enumerate().for_each(|(j, r)| relevance[j * c + k] = *r);
        accuracies.push(found.accuracy);
    }
    close(&relevance, &golden.relevance, 1e-3, "relevance");
    close(&accuracies, &golden.accuracies, 1e-3, "accuracy");
    let found = Dci::of(&relevance, c, &accuracies);
    close(&[found.disentanglement, found.completeness], &golden.dci, 1e-3, "DCI");
    let mut planted: Vec<f64> = noise(f * c, 3).iter().map(|v| v.abs().powi(3)).collect();
    planted[2 * c..3 * c].fill(0.0);
    planted.iter_mut().skip(3).step_by(c).for_each(|r| *r = 0.0);
    let found = Dci::of(&planted, c, &[0.5, 1.0]);
    close(&[found.disentanglement, found.completeness], &golden.dci_planted, 1e-6, "DCI");
    assert_eq!(found.informativeness, 0.75);
}

#[test]
fn dci_of_one_feature_a_concept_is_one_and_of_equal_relevance_zero() {
    let identity: Vec<f64> = (0..16).map(|i| f64::from(u8::from(i % 5 == 0))).collect();
    let found = Dci::of(&identity, 4, &[1.0; 4]);
    assert_eq!((found.disentanglement, found.completeness), (1.0, 1.0));
    let found = Dci::of(&[1.0; 16], 4, &[1.0; 4]);
    assert!(found.disentanglement.abs() < 1e-12 && found.completeness.abs() < 1e-12);
    let found = Dci::of(&[0.0; 16], 4, &[1.0; 4]);
    assert_eq!((found.disentanglement, found.completeness), (0.0, 0.0));
}

#[test]
fn effects_are_those_of_numpy() {
    let (golden, ..) = golden();
    let (c, n) = (golden.n_concepts, 40);
    let base: Vec<f32> = noise(n * c, 4).iter().map(|v| (v * 2.0 + 0.5) as f32).collect();
    let push = noise(c * c, 5);
    let steer = |i: usize| {
        let extra = noise(n * c, 10 + i as u64);
        let one = |(at, b): (usize, &f32)| {
            let own = if at % c == i { 3.0 } else { 0.0 };
            (f64::from(*b) + (own + push[i * c + at % c]) + 0.25 * extra[at]) as f32
        };
        base.iter().enumerate().map(one).collect::<Vec<f32>>()
    };
    let steered: Vec<Vec<f32>> = (0..c).map(steer).collect();
    let all: Vec<usize> = (0..n).collect();
    let found = Logits { n_concepts: c, base: &base, steered: &steered }.effects(&all);
    close(&found, &golden.effects, 1e-6, "effects");
    for i in 0..c {
        let (selective, leak) = selectivity(&found[i * c..(i + 1) * c], i, &golden.attributes);
        close(&[selective, leak], &[golden.selectivity[i], golden.leak[i]], 1e-6, "selectivity and leak");
    }
    let level = |logits: &[f32]| mean(logits, c, &all);
    let found = interaction(&level(&base), &level(&steered[0]), &level(&steered[2]), &golden.both);
    close(&[found], &[golden.interaction], 1e-6, "interaction");
    let space = |k: usize, salt| noise(k * 9, salt).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let (a, mut b) = (space(3, 7), space(4, 8));
    b[9..18].copy_from_slice(&a[..9]);
    close(&[overlap(&a, &b, 9)], &[golden.overlap], 1e-6, "overlap");
}

/// A concept's logit is additive in the edits, or has a product of both.
#[test]
fn a_planted_interaction_shows_and_an_additive_one_does_not() {
    let level = |a: f64, b: f64, product: f64| vec![a + 0.5 * b, b - a, 0.25 * a + product * a * b];
    // Alone: |4| + |−4| + |1| and |1.5| + |3|; together 2·4·3 more.
    for (product, expected) in [(0.0, 0.0), (2.0, 24.0 / (9.0 + 4.5))] {
        let of = |a, b| level(a, b, product);
        let found = interaction(&of(0.0, 0.0), &of(4.0, 0.0), &of(0.0, 3.0), &of(4.0, 3.0));
        assert!((found - expected).abs() < 1e-12, "{product}: {found}");
    }
    assert_eq!(interaction(&[1.0], &[1.0], &[1.0], &[1.0]), 0.0, "nothing does nothing");
}

#[test]
fn a_feature_of_one_concept_is_selective_and_one_of_two_leaks() {
    let attributes = [0, 0, 1, 2];
    assert_eq!(selectivity(&[2.0, -2.0, 0.0, 0.0], 0, &attributes), (1.0, 0.0), "its own attribute does not count");
    assert_eq!(selectivity(&[1.0, 0.0, -3.0, 1.0], 0, &attributes), (0.2, 3.0));
    assert_eq!(selectivity(&[0.0; 4], 2, &attributes), (0.0, 0.0));
    assert_eq!(selectivity(&[1.0, 0.0, 0.0, 0.0], 2, &attributes), (0.0, f64::INFINITY));
    assert_eq!(collisions(&[3, 3, 4, 5]), 0.5);
    assert_eq!(overlap(&[1.0, 0.0, 0.0, 2.0, 0.0, 0.0], &[3.0, 0.0, 0.0], 3), 1.0, "a row twice is one direction");
    assert_eq!(overlap(&[1.0, 0.0, 0.0], &[0.0, 0.0, 1.0], 3), 0.0);
}
