use rand::Rng;

use super::layer::mean_row;
use super::*;
use crate::Kind;
use crate::num::{dot, norm, rng};
use crate::progress::silent;

const D: usize = 24;

/// A run with planted directions: after layer 1 a row has moved by s·a, after layer 3 by s·a + 2·b, where s is 1 + 3 for
/// every row whose number 5 is above 0.
fn planted(n: usize, seed: u64) -> (Contrast, Vec<f32>) {
    let mut rng = rng(seed);
    let (mut rows, mut needs) = (Contrast::new(D), Vec::new());
    for _ in 0..n {
        let base: Vec<f32> = (0..D).map(|_| rng.random_range(-1f32..1.0)).collect();
        let s = if base[5] > 0.0 { 4.0 } else { 1.0 };
        let moved = |first: f32, second: f32| {
            let mut row = base.clone();
            row[0] += first;
            row[1] += second;
            row
        };
        rows.add(1, &moved(s, 0.0), &base).unwrap();
        rows.add(3, &moved(s, 2.0), &base).unwrap();
        needs.push(s);
    }
    (rows, needs)
}

/// Gates that read how much is needed.
fn need(rank: usize, lambda: f64) -> Fit {
    Fit { rank, lambda, gate: Gate::Need }
}

fn one(rows: &Contrast, set: &[usize], threads: usize) -> Vec<Feature> {
    fit(rows, &[set.to_vec()], need(1, 1e-3), threads, &mut silent).unwrap().remove(0)
}

#[test]
fn planted_directions_are_found_and_each_layer_answers_for_its_own_part() {
    let (rows, needs) = planted(600, 1);
    let found = one(&rows, &[1, 3], 1);
    assert_eq!(found.iter().map(|f| f.layer).collect::<Vec<_>>(), [1, 3]);
    let mean = needs.iter().sum::<f32>() / needs.len() as f32;
    // Random numbers sum to zero up to rounding: a single axis each.
    assert!((found[0].decoder[0] - 1.0).abs() < 1e-4 && (found[0].mean - mean).abs() < 1e-3, "{:?}", found[0]);
    assert!((found[1].decoder[1] - 1.0).abs() < 1e-4 && (found[1].mean - 2.0).abs() < 1e-3, "{:?}", found[1]);
    // Alone, the later layer answers for both.
    let alone = &one(&rows, &[3], 1)[0];
    assert!((alone.mean - mean.hypot(2.0)).abs() < 1e-2, "{} for {}", alone.mean, mean.hypot(2.0));
}

#[test]
fn the_gate_reads_where_more_is_needed() {
    let (rows, _) = planted(600, 2);
    let gate = &one(&rows, &[1], 1)[0];
    let (fresh, needs) = planted(300, 3);
    let base = &fresh.layers[&1].plain;
    let codes: Vec<f32> = base.chunks_exact(D).map(|x| gate.activation(x)).collect();
    let mean = |kind: f32| {
        let of: Vec<f32> = codes.iter().zip(&needs).filter(|(_, s)| **s == kind).map(|(f, _)| *f).collect();
        of.iter().sum::<f32>() / of.len() as f32
    };
    // The best line through a step between 1 and 4 on U(−1, 1) has the means 1.375 and 3.625 on its two sides.
    assert!((mean(1.0) - 1.375).abs() < 0.2 && (mean(4.0) - 3.625).abs() < 0.2, "{} {}", mean(1.0), mean(4.0));
}

/// Silent rows are those of messages that hold −2·c; wanted ones have nothing there.
#[test]
fn the_gate_is_shut_on_rows_with_target_zero() {
    let silent_rows = |seed| {
        let (other, _) = planted(400, seed);
        let mut rows = other.layers[&1].plain.clone();
        rows.chunks_exact_mut(D).for_each(|row| row[9] -= 3.0);
        rows
    };
    let mean = |gate: &Feature, rows: &[f32]| {
        rows.chunks_exact(D).map(|x| gate.activation(x)).sum::<f32>() / (rows.len() / D) as f32
    };
    let (mut rows, needs) = planted(400, 4);
    let (fresh, unseen) = (planted(300, 6).0.layers[&1].plain.clone(), silent_rows(7));
    let wanted = needs.iter().sum::<f32>() / needs.len() as f32;
    let open = &one(&rows, &[1], 1)[0];
    assert!(mean(open, &unseen) > 0.5 * wanted, "without silent rows the gate does not know when");
    rows.add_silent(1, &silent_rows(5)).unwrap();
    let gate = &one(&rows, &[1], 1)[0];
    assert!(mean(gate, &unseen) < 0.03 * wanted, "{}", mean(gate, &unseen));
    // Two samples of some hundred needs, each 1 or 4: their means alone differ by up to a tenth.
    assert!((mean(gate, &fresh) / wanted - 1.0).abs() < 0.15, "{} for {wanted}", mean(gate, &fresh));
}

#[test]
fn threads_and_sides_give_the_same_features() {
    let (rows, _) = planted(200, 8);
    assert_eq!(one(&rows, &[1, 3], 1), one(&rows, &[1, 3], 3));
    // Fewer rows than columns: the dual equations have the same solution.
    let (few, _) = planted(D - 4, 9);
    let gate = &one(&few, &[1], 1)[0];
    let sides = &few.layers[&1];
    let s: Vec<f32> = sides
        .asked
        .chunks(D)
        .zip(sides.plain.chunks(D))
        .map(|(a, b)| dot(&gate.decoder, a) - dot(&gate.decoder, b))
        .collect();
    let (mu, middle) = (mean_row(&sides.plain, &[true; D - 4], D), s.iter().sum::<f32>() / s.len() as f32);
    let x: Vec<f32> = sides.plain.chunks(D).flat_map(|row| row.iter().zip(&mu).map(|(v, m)| v - m)).collect();
    let y: Vec<f32> = s.iter().map(|s| s - middle).collect();
    let variance = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / D as f64;
    let w = crate::num::linalg::ridge(&x, &y, D, 1, 1e-3 * variance, 1).unwrap();
    let error = norm(&w.iter().zip(&gate.encoder).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(&w);
    assert!(error < 1e-3, "{error}");
}

#[test]
fn a_sink_of_one_run_turns_no_direction() {
    let (mut rows, _) = planted(400, 11);
    let (clean, sides) = (one(&rows, &[1], 1), rows.layers.get_mut(&1).unwrap());
    // One row of twenty differs by a hundred times as much along another axis.
    sides.asked.chunks_exact_mut(D).step_by(20).for_each(|row| row[7] += 300.0);
    let found = one(&rows, &[1], 1);
    assert!(dot(&found[0].decoder, &clean[0].decoder) > 0.999, "{:?}", found[0].decoder);
    assert!((found[0].mean / clean[0].mean - 1.0).abs() < 0.05 && found[0].max < 8.0, "{:?}", found[0]);
}

/// A row moves by 2 along axis 0, and along axis 1 by three times what it has on axis 5, either way.
#[test]
fn more_directions_bring_what_one_cannot() {
    let (mut rng, mut rows) = (rng(12), Contrast::new(D));
    for _ in 0..500 {
        let base: Vec<f32> = (0..D).map(|_| rng.random_range(-1f32..1.0)).collect();
        let mut moved = base.clone();
        moved[0] += 2.0;
        moved[1] += 3.0 * base[5];
        rows.add(1, &moved, &base).unwrap();
    }
    let set = || [vec![1]];
    let found = fit(&rows, &set(), need(2, 1e-3), 1, &mut silent).unwrap().remove(0);
    assert_eq!(found.iter().map(|f| f.direction).collect::<Vec<_>>(), [0, 1, 1]);
    // The mean along axis 1 is zero up to a thirtieth of a standard deviation.
    assert!(found[0].decoder[0] > 0.99 && found[1].decoder[1].abs() > 0.99, "{found:?}");
    assert_eq!(found[1].decoder, found[2].decoder.iter().map(|v| -v).collect::<Vec<_>>());
    let all: f32 = found.iter().map(|f| f.explained).sum();
    assert!(all > 0.98 && found[0].explained < 0.7, "{all} {}", found[0].explained);
    let x = &rows.layers[&1].plain[..D];
    let edit: f32 = found[1..].iter().map(|f| f.activation(x) * f.decoder[1]).sum();
    assert!((edit - 3.0 * x[5]).abs() < 0.1, "{edit} for {}", 3.0 * x[5]);
    let first = fit(&rows, &set(), need(1, 1e-3), 1, &mut silent).unwrap().remove(0);
    assert_eq!(first[0], found[0], "more directions leave the first as it is");
    assert_eq!(found, fit(&rows, &set(), need(2, 1e-3), 3, &mut silent).unwrap().remove(0));
    assert_eq!(fit(&rows, &set(), need(0, 0.1), 1, &mut silent).unwrap_err().kind(), Kind::Argument);
    // As many directions as the rows have: those that are left over are none.
    assert!(fit(&rows, &set(), need(D, 0.1), 1, &mut silent).is_ok());
}

#[test]
fn what_is_no_contrast_is_refused() {
    let (rows, _) = planted(40, 10);
    let kind = |rows: &Contrast, set: &[usize], lambda| {
        fit(rows, &[set.to_vec()], need(1, lambda), 1, &mut silent).unwrap_err().kind()
    };
    assert_eq!(kind(&rows, &[2], 0.1), Kind::Argument);
    assert_eq!(kind(&rows, &[3, 1], 0.1), Kind::Argument);
    assert_eq!(kind(&rows, &[], 0.1), Kind::Argument);
    assert_eq!(kind(&rows, &[1], 0.0), Kind::Argument);
    assert_eq!(fit(&rows, &[vec![1]], need(1, 0.1), 1, &mut |_| false).unwrap_err().kind(), Kind::Cancelled);
    let mut same = Contrast::new(2);
    same.add(1, &[1.0, 2.0], &[1.0, 2.0]).unwrap();
    assert_eq!(kind(&same, &[1], 0.1), Kind::Numeric);
    assert_eq!(same.add(1, &[1.0], &[1.0]).unwrap_err().kind(), Kind::Argument);
    assert_eq!(same.add(1, &[f32::NAN, 1.0], &[1.0, 1.0]).unwrap_err().kind(), Kind::Numeric);
    assert_eq!(same.add_silent(1, &[1.0, f32::INFINITY]).unwrap_err().kind(), Kind::Numeric);
}

/// Pairs whose plain row has 3 in place 7 where silent rows have noise; asking adds 2 to place 0 after layer 1.
fn classes(n: usize, seed: u64) -> Contrast {
    let mut rng = rng(seed);
    let mut rows = Contrast::new(D);
    for i in 0..2 * n {
        let mut row: Vec<f32> = (0..D).map(|_| rng.random_range(-1f32..1.0)).collect();
        if i % 2 == 0 {
            row[7] += 3.0;
            let mut asked = row.clone();
            asked[0] += 2.0;
            rows.add(1, &asked, &row).unwrap();
        } else {
            rows.add_silent(1, &row).unwrap();
        }
    }
    rows
}

#[test]
fn a_class_gate_opens_on_its_class_and_gives_the_mean_increment() {
    let rows = classes(200, 3);
    for shut in [0.9, 0.98] {
        let how = Fit { rank: 1, lambda: 1e-2, gate: Gate::Class { shut } };
        let feature = &fit(&rows, &[vec![1]], how, 1, &mut silent).unwrap().remove(0)[0];
        let sides = rows.sides(1).unwrap();
        let mean = sides.plain.chunks_exact(D).map(|x| feature.activation(x)).sum::<f32>() / 200.0;
        assert!((mean - 2.0).abs() < 1e-3 && (feature.mean - 2.0).abs() < 1e-5, "{mean} {}", feature.mean);
        let open = sides.silent.chunks_exact(D).filter(|x| feature.activation(x) > 0.0).count() as f64 / 200.0;
        assert!(open <= 1.0 - shut + 0.01, "{open}");
        assert!(feature.density > 0.95, "{}", feature.density);
    }
}

#[test]
fn a_detector_tells_the_classes_apart() {
    let (rows, fresh) = (classes(200, 3), classes(200, 4));
    let detector = detect(&rows, 1, 1e-2, 1).unwrap();
    assert_eq!(detect(&rows, 1, 1e-2, 3).unwrap(), detector, "whatever the number of threads");
    let mean = |rows: &[f32]| rows.chunks_exact(D).map(|x| detector.read(x)).sum::<f32>() / (rows.len() / D) as f32;
    let sides = fresh.sides(1).unwrap();
    assert!(mean(&sides.plain) > 0.7 && mean(&sides.silent) < 0.3);
    let mut none = Contrast::new(D);
    none.add(1, &[1.0; D], &[0.0; D]).unwrap();
    assert_eq!(detect(&none, 1, 1e-2, 1).unwrap_err().kind(), Kind::Argument);
}

/// Pairs and hard rows share a strong place; only the pairs have a weak one. Other silent rows have neither.
#[test]
fn hard_rows_teach_what_is_said_and_not_where() {
    let make = |seed: u64, hard: bool| {
        let mut rng = rng(seed);
        let mut rows = Contrast::new(D);
        for i in 0..900 {
            let mut row: Vec<f32> = (0..D).map(|_| rng.random_range(-1f32..1.0)).collect();
            let (place, said) = (i % 30 < 2, i % 30 == 0);
            row[3] += if place { 8.0 } else { 0.0 };
            row[7] += if said { 2.0 } else { 0.0 };
            match (place, said) {
                (true, true) => rows.add(1, &row.iter().map(|v| v + 1.0).collect::<Vec<_>>(), &row).unwrap(),
                (true, false) if hard => rows.add_hard(1, &row).unwrap(),
                _ => rows.add_silent(1, &row).unwrap(),
            }
        }
        rows
    };
    let fresh = make(9, true);
    let sides = fresh.sides(1).unwrap();
    let gap = |hard: bool| {
        let detector = detect(&make(8, hard), 1, 1e-2, 1).unwrap();
        let mean = |rows: &[f32]| rows.chunks_exact(D).map(|x| detector.read(x)).sum::<f32>() / 30.0;
        mean(&sides.plain) - mean(&sides.hard)
    };
    assert!(gap(true) > 0.6 && gap(true) > 1.5 * gap(false), "{} {}", gap(true), gap(false));
}
