//! What is planted in rows comes back: a model of which the test knows everything stands in for a language model.

use rand::Rng;

use super::correlation::Moments;
use super::data::{Data, Part};
use super::featurizer::Featurizer;
use super::fitting::{fitted, probes};
use super::reading::{moments, read};
use super::request::{Fitted, Request};
use super::sentences::Concept;
use super::steering::{Bench, Chosen, choose, steer};
use super::{Reading, Steering};
use crate::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use crate::num::rng;
use crate::plan::{Compiled, Row, Scratch, Target};
use crate::progress::silent;

/// Width of a row: concept c has coordinate c.
const D: usize = 12;
/// Concepts, each an attribute of its own.
const C: usize = 4;
/// Rows that are steered.
const STEERED: usize = 32;

/// Rows in which every concept moves its own coordinate by 2, beside noise.
fn data() -> Data {
    let mut rng = rng(11);
    let mut part = |n: usize| {
        let mut part = Part::default();
        for _ in 0..n {
            let labels: Vec<bool> = (0..C).map(|_| rng.random_bool(0.5)).collect();
            let on = |j: usize| labels.get(j).map_or(0.0, |yes| if *yes { 2.0 } else { 0.0 });
            part.rows.extend((0..D).map(|j| on(j) + rng.random_range(-0.5f32..0.5)));
            part.labels.extend(labels);
        }
        part
    };
    Data { d_model: D, attributes: (0..C).collect(), train: part(600), test: part(200) }
}

/// A ReLU dictionary whose feature j reads coordinate j and writes it, and of coordinate `leaks` another one too.
fn dictionary(leaks: Option<[usize; 2]>) -> Featurizer {
    let unit: Vec<f32> = (0..D * D).map(|i| f32::from(u8::from(i % (D + 1) == 0))).collect();
    let mut decoder = unit.clone();
    if let Some([from, to]) = leaks {
        decoder[from * D + to] = 0.8;
    }
    let parts = Parts {
        d_model: D,
        encoder: unit,
        decoder,
        encoder_bias: vec![-0.5; D],
        decoder_bias: vec![0.0; D],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings { apply_b_dec_to_input: false, ..Settings::new(Activation::Relu) },
        info: Info::default(),
    };
    Featurizer::of_dictionary("planted", Dictionary::from_parts(parts).unwrap())
}

/// The rows of the later layer: those of the earlier one after the plan's edits, and `product` times the product of the
/// first two coordinates added to the third.
fn later(data: &Data, plan: Option<&Compiled>, product: f32) -> Vec<f32> {
    let mut rows = data.test.rows[..STEERED * D].to_vec();
    if let Some(plan) = plan {
        let meta: Vec<Row> = (0..STEERED as i32).map(|i| Row::new(i + 1, 0)).collect();
        plan.points.values().for_each(|ops| {
            ops.apply(&mut rows, &meta, &mut Scratch::new());
        });
    }
    rows.chunks_exact_mut(D).for_each(|row| row[2] += product * row[0] * row[1]);
    rows
}

fn measured(featurizer: &Featurizer, product: f32) -> (Chosen, Steering) {
    let data = data();
    let request = Request { pairs: 6, random: 40, threads: 1, ..Request::default() };
    let reads = probes(&data, 1, &mut silent).unwrap();
    let trained = moments(featurizer, &data.train, &data, 1).unwrap();
    let chosen = choose(featurizer, &trained, &reads, request.strength);
    let mut model = |plan: Option<Compiled>| Ok(later(&data, plan.as_ref(), product));
    let mut bench = Bench { target: Target::new(2, D), layer: 0, probes: &reads, readers: &reads, read: &mut model };
    let mut told = 0;
    let mut tell = || {
        told += 1;
        Ok(())
    };
    let steering = steer(&mut bench, featurizer, &data, &chosen, &request, &mut tell).unwrap();
    assert_eq!(told, C + 6 + 40);
    (chosen, steering)
}

#[test]
fn features_of_one_concept_each_are_found_selective_and_additive() {
    let (chosen, found) = measured(&dictionary(None), 0.0);
    assert_eq!(found.features, [0, 1, 2, 3]);
    // Codes reach 2.5 − 0.5 at most.
    assert!(chosen.edits.iter().all(|e| e.value > 9.0 && e.value <= 10.0), "{chosen:?}");
    assert!(found.summary.selectivity > 0.85 && found.summary.independent == 1.0, "{:?}", found.summary);
    assert!((0..C).all(|i| found.effects[i][i] > 3.0), "{:?}", found.effects);
    let additivity = found.additivity.unwrap();
    assert!(additivity.pairs == 6 && additivity.interaction < 1e-4, "{additivity:?}");
    let random = found.random.unwrap();
    assert!(random.selectivity < 0.5 && random.selectivity + 0.3 < found.summary.selectivity, "{random:?}");
    assert_eq!(found.collisions, 0.0);
}

#[test]
fn a_planted_product_of_two_concepts_shows_as_interaction_of_that_pair() {
    let (_, found) = measured(&dictionary(None), 0.5);
    let additivity = found.additivity.unwrap();
    assert_eq!(additivity.largest, [0, 1]);
    assert!(additivity.most > 0.3 && additivity.interaction > 0.05, "{additivity:?}");
}

#[test]
fn a_feature_that_writes_two_concepts_leaks() {
    let (_, clean) = measured(&dictionary(None), 0.0);
    let (_, found) = measured(&dictionary(Some([0, 1])), 0.0);
    assert!(found.leak[0] > 0.5 && clean.leak[0] < 0.1, "{} {}", found.leak[0], clean.leak[0]);
    assert!(found.selectivity[0] < 0.7 && found.selectivity[3] > 0.85, "{:?}", found.selectivity);
}

#[test]
fn a_feature_that_two_concepts_choose_is_a_collision() {
    // One feature for all: it writes every concept's coordinate.
    let direction: Vec<f32> = (0..D).map(|j| if j < C { 0.5 } else { 0.0 }).collect();
    let (_, found) = measured_one(&Featurizer::linear("one", direction, &data().middle()).unwrap());
    assert_eq!((found.collisions, &found.additivity), (1.0, &None));
    assert!(found.summary.independent == 0.0 && found.overlap > 0.999, "{found:?}");
}

/// As `measured`, without pairs to tell of.
fn measured_one(featurizer: &Featurizer) -> (Chosen, Steering) {
    let data = data();
    let request = Request { random: 1, threads: 1, ..Request::default() };
    let reads = probes(&data, 1, &mut silent).unwrap();
    let trained: Moments = moments(featurizer, &data.train, &data, 1).unwrap();
    let chosen = choose(featurizer, &trained, &reads, request.strength);
    let mut model = |plan: Option<Compiled>| Ok(later(&data, plan.as_ref(), 0.0));
    let mut bench = Bench { target: Target::new(2, D), layer: 0, probes: &reads, readers: &reads, read: &mut model };
    let steering = steer(&mut bench, featurizer, &data, &chosen, &request, &mut || Ok(())).unwrap();
    (chosen, steering)
}

/// Codes of two signs are set exactly, together or alone, and what is orthogonal to their directions stays.
#[test]
fn edits_set_codes_and_keep_the_rest() {
    let data = data();
    let middle = data.middle();
    let dictionary = dictionary(None);
    let two = [&[1.0, 1.0][..], &[0.0; 10]].concat().into_iter().chain([&[0.0, 0.0, 3.0][..], &[0.0; 9]].concat());
    let linear = Featurizer::linear("two", two.collect(), &middle).unwrap();
    for featurizer in [&dictionary, &linear, &Featurizer::neurons(&middle)] {
        let values = [(0usize, 7.0f32), (1, 3.0)];
        let plan = featurizer.edit(&values, 0, &Target::new(2, D)).unwrap();
        let edited = later(&data, Some(&plan), 0.0);
        let plain = later(&data, None, 0.0);
        let (before, after) = (featurizer.encode(&plain, 1), featurizer.encode(&edited, 1));
        let n = featurizer.n_features();
        for (row, codes) in after.chunks_exact(n).enumerate() {
            // A code of one sign that was 0 stands for a score below that: it comes back as less.
            for (j, value) in values.into_iter().filter(|_| featurizer.is_signed()) {
                assert!((codes[j] - value).abs() < 1e-4, "{}: row {row}: {}", featurizer.name, codes[j]);
            }
            // The row has moved by Σ (f' − f)·d, no more.
            for at in 0..D {
                let moved: f32 =
                    values.iter().map(|(j, value)| (value - before[row * n + j]) * featurizer.direction(*j)[at]).sum();
                let found = edited[row * D + at] - plain[row * D + at];
                assert!((found - moved).abs() < 1e-4, "{}: {found}, expected {moved}", featurizer.name);
            }
        }
    }
}

fn reading(what: Fitted, request: &Request) -> Reading {
    let data = data();
    let featurizer = fitted(what, &data, request, &mut silent).unwrap();
    let trained = moments(&featurizer, &data.train, &data, 1).unwrap();
    read(&featurizer, &data, &trained, request, &mut silent).unwrap()
}

/// Coordinates are the concepts: everything that looks for directions finds them, and probes of one feature suffice.
#[test]
fn every_featurizer_that_can_be_fitted_reads_the_planted_concepts() {
    let request = Request { n_features: 16, k: 4, steps: 600, columns: 0, threads: 1, ..Request::default() };
    for what in Fitted::ALL {
        let found = reading(what, &request);
        let least = match what {
            Fitted::Neurons | Fitted::DiffMean | Fitted::Probe => 0.9,
            _ => 0.5,
        };
        assert!(found.by_size.micro > least, "{}: {:?}", what.name(), found.by_size);
        assert!(found.held_out.micro <= found.by_size.micro + 1e-12, "{}", what.name());
        assert_eq!(found.pairs.is_some(), what == Fitted::Ssae);
        assert!(found.dci.informativeness > 0.8, "{}: {:?}", what.name(), found.dci);
        if what == Fitted::Neurons {
            assert!(found.dci.disentanglement > 0.9 && found.sparse[0] > 0.9, "{found:?}");
            assert_eq!(found.best.iter().map(|b| b.feature).collect::<Vec<_>>(), [0, 1, 2, 3]);
            assert!((found.one_to_many.concepts_per_feature, found.one_to_many.features) == (1.0, 4));
        }
    }
}

#[test]
fn a_seed_gives_the_same_on_any_number_of_threads() {
    let request = Request { n_features: 16, k: 4, steps: 60, threads: 1, ..Request::default() };
    for what in [Fitted::TopK, Fitted::Ssae, Fitted::Probe] {
        let one = reading(what, &request);
        assert_eq!(one, reading(what, &Request { threads: 3, ..request.clone() }), "{}", what.name());
    }
}

#[test]
fn concepts_of_an_attribute_have_its_number() {
    let concept = |name: &str, attribute: &str| Concept { name: name.into(), attribute: attribute.into() };
    let sentences = super::sentences::Sentences {
        concepts: vec![concept("a", "x"), concept("b", "y"), concept("c", "x")],
        texts: vec!["one".into(), "two".into()],
        labels: vec![true, false, false, false, true, true],
    };
    let split = super::sentences::Split { train: vec![1], test: vec![0] };
    let data = Data::new(&sentences, &split, &[1.0, 2.0, 3.0, 4.0], 2);
    assert_eq!(data.attributes, [0, 1, 0]);
    assert_eq!((data.train.rows, data.test.labels), (vec![3.0, 4.0], vec![true, false, false]));
}
