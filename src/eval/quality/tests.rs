//! Every figure against NumPy and scikit-learn: tests/data/quality_reference.py.

use serde_json::Value;

use super::absorption::absorbed;
use super::density::Density;
use super::geometry::geometry;
use super::labelled::{accuracy, by_difference};
use super::{Meter, Quality, Sinks};
use crate::dictionary::{Activation, Dictionary, Info, Parts, Settings};

fn reference() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/quality_reference.json")).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn near(found: f64, wanted: &Value, tolerance: f64, what: &str) {
    let wanted = wanted.as_f64().unwrap();
    assert!((found - wanted).abs() <= tolerance * wanted.abs().max(1.0), "{what}: {found} for {wanted}");
}

fn dictionary(all: &Value) -> Dictionary {
    let mut settings = Settings::new(Activation::Relu);
    settings.apply_b_dec_to_input = true;
    Dictionary::from_parts(Parts {
        d_model: all["d_model"].as_u64().unwrap() as usize,
        encoder: floats(&all["encoder"]),
        decoder: floats(&all["decoder"]),
        encoder_bias: floats(&all["encoder_bias"]),
        decoder_bias: floats(&all["decoder_bias"]),
        threshold: None,
        gate: None,
        stats: None,
        settings,
        info: Info::default(),
    })
    .unwrap()
}

fn measured(all: &Value, dictionary: &Dictionary) -> (Quality, Vec<f32>) {
    let mut meter = Meter::new(dictionary);
    meter.sinks = Some(Sinks::none(dictionary.d_model()));
    floats(&all["rows"]).chunks(40 * dictionary.d_model()).for_each(|rows| meter.add(rows, 2));
    let mean = meter.mean_row();
    (meter.finish().unwrap(), mean)
}

#[test]
fn reconstruction_and_density_are_numpys() {
    let all = reference();
    let dictionary = dictionary(&all);
    let (found, mean) = measured(&all, &dictionary);
    let wanted = &all["quality"];
    for (name, found) in [
        ("l0", found.l0),
        ("l1", found.l1),
        ("fvu", found.fvu),
        ("mse", found.mse),
        ("cosine", found.cosine),
        ("l2_ratio", found.l2_ratio),
        ("reconstruction_bias", found.reconstruction_bias),
    ] {
        near(found, &wanted[name], 1e-6, name);
    }
    for (found, wanted) in mean.iter().zip(wanted["mean_row"].as_array().unwrap()) {
        near(f64::from(*found), wanted, 1e-6, "mean_row");
    }
    let densities: Vec<f32> = found.features.iter().map(|feature| feature.density).collect();
    let (found, wanted) = (Density::of(&densities), &all["density"]);
    near(found.alive, &wanted["alive"], 1e-6, "alive");
    near(found.over_1_percent, &wanted["over_1_percent"], 1e-6, "over_1_percent");
    near(found.over_10_percent, &wanted["over_10_percent"], 1e-6, "over_10_percent");
    near(found.firing_over_10_percent, &wanted["firing_over_10_percent"], 1e-6, "firing_over_10_percent");
}

#[test]
fn directions_are_numpys() {
    let all = reference();
    let (found, wanted) = (geometry(&dictionary(&all), 2), &all["geometry"]);
    near(found.decoder_mean, &wanted["decoder_mean"], 1e-6, "decoder_mean");
    near(found.decoder_median, &wanted["decoder_median"], 1e-6, "decoder_median");
    near(found.twins, &wanted["twins"], 1e-6, "twins");
    near(found.encoder_mean, &wanted["encoder_mean"], 1e-6, "encoder_mean");
    near(found.own, &wanted["own"], 1e-6, "own");
    let first = found.nearest[0];
    near(f64::from(first.feature), &wanted["nearest"][0], 0.0, "feature");
    near(f64::from(first.other), &wanted["nearest"][1], 0.0, "other");
    near(f64::from(first.cosine), &wanted["nearest"][2], 1e-6, "cosine");
    let mut pairs: Vec<(u32, u32)> =
        found.nearest.iter().map(|n| (n.feature.min(n.other), n.feature.max(n.other))).collect();
    let n = pairs.len();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), n, "a pair is told once");
}

#[test]
fn sparse_probes_are_scikit_learns() {
    let all = reference();
    let x = floats(&all["pooled"]);
    let labels: Vec<bool> = all["labels"].as_array().unwrap().iter().map(|v| v.as_bool().unwrap()).collect();
    let width = x.len() / labels.len();
    let n = all["train"].as_u64().unwrap() as usize;
    let part = |range: std::ops::Range<usize>| (range.clone().collect::<Vec<_>>(), labels[range].to_vec());
    let (train, test) = (part(0..n), part(n..labels.len()));
    let order = by_difference(&x, width, &train.0, &train.1);
    assert_eq!(floats(&all["order"]), order.iter().map(|&c| c as f32).collect::<Vec<_>>());
    for (k, wanted) in all["accuracy"].as_object().unwrap() {
        let k: usize = k.parse().unwrap();
        near(accuracy(&x, width, &order[..k], [&train, &test], 1).unwrap(), wanted, 1e-9, "accuracy");
    }
}

#[test]
fn absorption_is_numpys() {
    let all = reference();
    let mut seen = [0; 3];
    for word in all["words"].as_array().unwrap() {
        let codes: Vec<(u32, f32)> = (0..).zip(floats(&word[0])).filter(|(_, f)| *f != 0.0).collect();
        let main: Vec<u32> = floats(&word[2]).into_iter().map(|v| v as u32).collect();
        let (fraction, full) = absorbed(&codes, &floats(&word[1]), &main, word[3].as_f64().unwrap());
        near(fraction, &word[4], 1e-6, "fraction");
        assert_eq!(full, word[5].as_bool().unwrap(), "{word}");
        seen[0] += usize::from(full);
        seen[1] += usize::from(fraction == 1.0);
        seen[2] += usize::from(fraction > 0.0 && fraction < 1.0);
    }
    assert!(seen.iter().all(|n| *n > 10), "{seen:?}");
}
