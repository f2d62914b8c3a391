//! Encode and decode against formats.md §2, written down a second time in `f64`: every activation under every
//! normalisation and flag, through every way in (dense, sparse, batch, slice).

use rand::Rng;
use tiller::dictionary::{Activation, Dictionary, Gate, Info, Normalization, Parts, Settings};
use tiller::{Kind, num};

const D: usize = 24;
const F: usize = 40;
const K: usize = 5;
const GROUPS: usize = 8;
/// Of an activation or a component, relative to the largest of its row.
const TOLERANCE: f64 = 1e-5;

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = num::rng(seed);
    (0..n).map(|_| rng.random_range(-1f32..1.0)).collect()
}

fn parts(settings: Settings) -> Parts {
    let gated = settings.activation == Activation::Gated;
    let thresholds = || random(F, 5).iter().map(|v| v * 0.5 + 0.3).collect();
    Parts {
        d_model: D,
        encoder: random(F * D, 1),
        decoder: random(F * D, 2),
        encoder_bias: random(F, 3),
        decoder_bias: random(D, 4),
        threshold: matches!(settings.activation, Activation::JumpRelu | Activation::BatchTopK { .. }).then(thresholds),
        gate: gated.then(|| Gate { bias: random(F, 6), log_scale: random(F, 7) }),
        stats: None,
        settings,
        info: Info::default(),
    }
}

/// Every combination that means something.
fn all_settings() -> Vec<Settings> {
    let mut all = Vec::new();
    for activation in [
        Activation::Relu,
        Activation::TopK { k: K },
        Activation::GroupMax { k: GROUPS },
        Activation::BatchTopK { k: K },
        Activation::JumpRelu,
        Activation::Gated,
    ] {
        for normalization in [
            Normalization::None,
            Normalization::LayerNorm,
            Normalization::ConstantNorm,
            Normalization::ExpectedAverage { scale: 0.37 },
        ] {
            for flags in 0..8 {
                all.push(Settings {
                    apply_b_dec_to_input: flags & 1 != 0,
                    normalization,
                    rescale_by_decoder_norm: flags & 2 != 0,
                    center_input: flags & 4 != 0,
                    ..Settings::new(activation)
                });
            }
        }
    }
    all
}

/// The formulas.
struct Oracle<'a> {
    parts: &'a Parts,
}

impl Oracle<'_> {
    fn norm(&self, i: usize) -> f64 {
        let row = &self.parts.decoder[i * D..(i + 1) * D];
        row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
    }

    /// (s(x), scale, shift), x = s·scale + shift.
    fn normalize(&self, x: &[f32]) -> (Vec<f64>, f64, f64) {
        let settings = &self.parts.settings;
        let mut x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let (mut scale, mut shift) = (1.0, 0.0);
        let layer_norm = settings.normalization == Normalization::LayerNorm;
        if settings.center_input || layer_norm {
            shift = x.iter().sum::<f64>() / D as f64;
            x.iter_mut().for_each(|v| *v -= shift);
        }
        match settings.normalization {
            Normalization::None => {}
            Normalization::LayerNorm => {
                let std = (x.iter().map(|v| v * v).sum::<f64>() / (D as f64 - 1.0)).sqrt();
                x.iter_mut().for_each(|v| *v /= std + 1e-5);
                scale = std;
            }
            Normalization::ConstantNorm => {
                let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
                x.iter_mut().for_each(|v| *v *= (D as f64).sqrt() / norm);
                scale = norm / (D as f64).sqrt();
            }
            Normalization::ExpectedAverage { scale: c } => {
                x.iter_mut().for_each(|v| *v *= f64::from(c));
                scale = 1.0 / f64::from(c);
            }
        }
        (x, scale, shift)
    }

    fn encode(&self, x: &[f32]) -> Vec<f64> {
        let Parts { settings, encoder, encoder_bias, decoder_bias, threshold, gate, .. } = self.parts;
        let mut a = self.normalize(x).0;
        if settings.apply_b_dec_to_input {
            a.iter_mut().zip(decoder_bias).for_each(|(v, b)| *v -= f64::from(*b));
        }
        let z = |i: usize| encoder[i * D..(i + 1) * D].iter().zip(&a).map(|(e, a)| f64::from(*e) * a).sum::<f64>();
        let rescale = |i| if settings.rescale_by_decoder_norm { self.norm(i) } else { 1.0 };
        let p: Vec<f64> = (0..F).map(|i| (z(i) + f64::from(encoder_bias[i])) * rescale(i)).collect();
        match settings.activation {
            Activation::Relu => p.iter().map(|p| p.max(0.0)).collect(),
            Activation::TopK { k } => {
                let mut order: Vec<usize> = (0..F).collect();
                order.sort_by(|&i, &j| p[j].total_cmp(&p[i]));
                let mut f = vec![0.0; F];
                order[..k].iter().for_each(|&i| f[i] = p[i].max(0.0));
                f
            }
            Activation::GroupMax { k } => {
                let mut f = vec![0.0; F];
                for group in (0..F).collect::<Vec<_>>().chunks(F / k) {
                    let best = group.iter().copied().max_by(|&i, &j| p[i].total_cmp(&p[j])).unwrap();
                    f[best] = p[best].max(0.0);
                }
                f
            }
            Activation::JumpRelu | Activation::BatchTopK { .. } => {
                let threshold = threshold.as_ref().unwrap();
                (0..F).map(|i| if p[i] > f64::from(threshold[i]) { p[i].max(0.0) } else { 0.0 }).collect()
            }
            Activation::Gated => {
                let gate = gate.as_ref().unwrap();
                let magnitude =
                    |i: usize| (f64::from(gate.log_scale[i]).exp() * z(i) + f64::from(encoder_bias[i])).max(0.0);
                let open = |i: usize| z(i) + f64::from(gate.bias[i]) > 0.0;
                (0..F).map(|i| if open(i) { magnitude(i) * rescale(i) } else { 0.0 }).collect()
            }
        }
    }

    fn reconstruct(&self, x: &[f32], f: &[f64]) -> Vec<f64> {
        let Parts { settings, decoder, decoder_bias, .. } = self.parts;
        let (_, scale, shift) = self.normalize(x);
        let rescale = |i| if settings.rescale_by_decoder_norm { self.norm(i) } else { 1.0 };
        let component = |j: usize| {
            let sum: f64 = (0..F).map(|i| f[i] / rescale(i) * f64::from(decoder[i * D + j])).sum();
            (sum + f64::from(decoder_bias[j])) * scale + shift
        };
        (0..D).map(component).collect()
    }
}

fn dense(codes: &[(u32, f32)]) -> Vec<f32> {
    let mut out = vec![0.0; F];
    codes.iter().for_each(|&(i, f)| out[i as usize] = f);
    out
}

#[track_caller]
fn close(found: &[f32], exact: &[f64], what: &str) {
    let largest = exact.iter().fold(0f64, |m, v| m.max(v.abs()));
    for (i, (found, exact)) in found.iter().zip(exact).enumerate() {
        assert!((f64::from(*found) - exact).abs() <= TOLERANCE * largest, "{what}, {i}: {found} for {exact}");
    }
    assert_eq!(found.len(), exact.len());
}

#[test]
fn every_rule_flag_and_way_in_agrees_with_the_formulas() {
    for settings in all_settings() {
        let parts = parts(settings);
        let oracle = Oracle { parts: &parts };
        let dictionary = Dictionary::from_parts(parts.clone()).unwrap();
        let thresholds = vec![0.1; F];
        let sliced = dictionary.slice(&(0..F as u32).rev().collect::<Vec<_>>()).unwrap();
        let n = 20;
        let rows: Vec<f32> = random(n * D, 11).iter().map(|v| v * 3.0 + 0.5).collect();
        let batch = dictionary.encode_batch(&rows, 2);
        let mut n_active = 0;
        for (r, x) in rows.chunks_exact(D).enumerate() {
            let exact = oracle.encode(x);
            let what = format!("{settings:?} row {r}");
            let (mut f, mut sparse) = (vec![f32::NAN; F], Vec::new());
            dictionary.encode(x, &mut f);
            close(&f, &exact, &format!("encode, {what}"));
            dictionary.encode_sparse(x, &mut sparse);
            assert_eq!(dense(&sparse), f, "encode_sparse, {what}");
            assert!(sparse.is_sorted_by_key(|c| c.0) && sparse.iter().all(|c| c.1 > 0.0));
            n_active += sparse.len();
            assert_eq!(batch.row(r), sparse, "encode_batch, {what}");
            let mut reversed = vec![f32::NAN; F];
            sliced.encode(x, &mut reversed);
            reversed.reverse();
            assert_eq!(reversed, f, "slice, {what}");
            assert!(sliced.is_exact());
            let mut x_hat = vec![f32::NAN; D];
            dictionary.reconstruct(x, &sparse, &mut x_hat);
            close(&x_hat, &oracle.reconstruct(x, &exact), &format!("reconstruct, {what}"));
        }
        assert!(n_active > n && n_active < n * F, "{settings:?}: the case must have active and silent features");
        // The layers that need no other row are exact by themselves; TopK without thresholds must encode in full.
        let competes = matches!(settings.activation, Activation::TopK { .. } | Activation::GroupMax { .. });
        assert_eq!(sliced.is_full(), competes);
        if sliced.is_full() {
            let approximate = dictionary.with_thresholds(thresholds).unwrap().slice(&[3]).unwrap();
            assert!(!approximate.is_exact() && !approximate.is_full());
        }
    }
}

#[test]
fn an_edit_is_what_full_reconstruction_with_the_error_term_gives() {
    for settings in all_settings() {
        let parts = parts(settings);
        let oracle = Oracle { parts: &parts };
        let slice = Dictionary::from_parts(parts.clone()).unwrap().slice(&[30, 2, 17]).unwrap();
        let x: Vec<f32> = random(D, 12).iter().map(|v| v * 3.0 + 0.5).collect();
        let (before, mut after) = (oracle.encode(&x), oracle.encode(&x));
        let deltas = [2.0, -0.5, 0.25];
        for (id, delta) in slice.ids().zip(deltas) {
            after[id as usize] += f64::from(delta);
        }
        let (with, without) = (oracle.reconstruct(&x, &after), oracle.reconstruct(&x, &before));
        let exact: Vec<f64> = (0..D).map(|j| f64::from(x[j]) + with[j] - without[j]).collect();
        let mut edited = x.clone();
        slice.edit(&deltas, &mut edited);
        close(&edited, &exact, &format!("edit, {settings:?}"));
        let mut edited = x.clone();
        slice.add_decoder(1, -0.5 * slice.scale(&x), &mut edited);
        slice.edit(&[0.0, 0.5, 0.0], &mut edited);
        if settings.normalization == Normalization::None {
            close(&edited, &x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), "there and back");
        }
    }
}

#[test]
fn batches_of_any_size_on_any_number_of_threads() {
    for activation in
        [Activation::TopK { k: K }, Activation::GroupMax { k: GROUPS }, Activation::JumpRelu, Activation::Gated]
    {
        let dictionary = Dictionary::from_parts(parts(Settings::new(activation))).unwrap();
        for n in [0, 1, 3, 4, 15, 17, 255, 300, 700] {
            let rows = random(n * D, 13);
            let codes = dictionary.encode_batch(&rows, 1);
            assert_eq!(codes.n_rows(), n);
            assert_eq!(codes.rows().map(<[_]>::len).sum::<usize>(), codes.n_active());
            for threads in [2, 3, 64] {
                assert_eq!(dictionary.encode_batch(&rows, threads), codes, "{n} rows on {threads} threads");
            }
            for (r, x) in rows.chunks_exact(D).enumerate() {
                let mut one = Vec::new();
                dictionary.encode_sparse(x, &mut one);
                assert_eq!(codes.row(r), one, "{activation:?} row {r} of {n}");
            }
        }
    }
}

/// The screening of a batch loses no feature, whatever rows hold: ties of equal encoder rows, outliers, zeros, numbers that
/// are none, an encoder row with an infinity.
#[test]
fn a_screened_batch_is_what_single_rows_are() {
    const D: usize = 70;
    const F: usize = 1100;
    const N: usize = 50;
    let mut encoder = random(F * D, 1);
    for i in 0..F / 3 {
        let row = encoder[i * D..(i + 1) * D].to_vec();
        encoder[(F - 1 - i) * D..(F - i) * D].copy_from_slice(&row);
    }
    encoder[40 * D..41 * D].fill(0.0);
    encoder[41 * D + 3] = f32::INFINITY;
    encoder[42 * D + 3] = 1e30;
    encoder[43 * D..44 * D].fill(1e-30);
    let mut rows = random(N * D, 2);
    rows[D..2 * D].fill(0.0);
    rows[2 * D + 5] = f32::NAN;
    rows[3 * D + 3] = f32::NEG_INFINITY;
    rows[4 * D + 3] = 5000.0;
    rows[5 * D..6 * D].iter_mut().for_each(|v| *v *= 1e-25);
    rows[6 * D..7 * D].iter_mut().for_each(|v| *v *= 1e15);
    rows[7 * D..8 * D].iter_mut().for_each(|v| *v = v.signum());
    for activation in [
        Activation::Relu,
        Activation::JumpRelu,
        Activation::TopK { k: 7 },
        Activation::TopK { k: F },
        Activation::GroupMax { k: 11 },
    ] {
        let competes = matches!(activation, Activation::TopK { .. } | Activation::GroupMax { .. });
        for rescale in [false, competes] {
            let mut bias = random(F, 3);
            bias[44] = -1e20;
            let dictionary = Dictionary::from_parts(Parts {
                d_model: D,
                encoder: encoder.clone(),
                decoder: random(F * D, 4),
                encoder_bias: bias,
                decoder_bias: vec![0.0; D],
                threshold: (activation == Activation::JumpRelu)
                    .then(|| (0..F).map(|i| if i % 50 == 7 { f32::INFINITY } else { i as f32 * 0.01 - 1.0 }).collect()),
                gate: None,
                stats: None,
                settings: Settings {
                    apply_b_dec_to_input: false,
                    rescale_by_decoder_norm: rescale,
                    ..Settings::new(activation)
                },
                info: Info::default(),
            })
            .unwrap();
            for threads in [1, 2, 5] {
                let codes = dictionary.encode_batch(&rows, threads);
                for (r, x) in rows.chunks_exact(D).enumerate() {
                    let mut one = Vec::new();
                    dictionary.encode_sparse(x, &mut one);
                    assert_eq!(codes.row(r), one, "{activation:?} rescale {rescale} row {r}, {threads} threads");
                }
                assert!(codes.n_active() > N, "{activation:?}: features are active");
            }
        }
    }
}

/// Ties and the strictness of >: p = θ is not active, and TopK prefers lower features.
#[test]
fn ties() {
    let settings = Settings { apply_b_dec_to_input: false, ..Settings::new(Activation::JumpRelu) };
    let mut parts = Parts {
        d_model: 1,
        encoder: vec![1.0, 1.0, 1.0, -1.0],
        decoder: vec![1.0; 4],
        encoder_bias: vec![0.0; 4],
        decoder_bias: vec![0.0],
        threshold: Some(vec![2.0, 1.9, -5.0, -5.0]),
        gate: None,
        stats: None,
        settings,
        info: Info::default(),
    };
    let mut f = [0.0; 4];
    Dictionary::from_parts(parts.clone()).unwrap().encode(&[2.0], &mut f);
    assert_eq!(f, [0.0, 2.0, 2.0, 0.0], "p = θ is off; a negative θ lets no negative p through");
    parts.settings.activation = Activation::TopK { k: 2 };
    parts.threshold = None;
    Dictionary::from_parts(parts).unwrap().encode(&[2.0], &mut f);
    assert_eq!(f, [2.0, 2.0, 0.0, 0.0], "the lower index wins");
}

#[test]
fn a_row_with_nan_activates_nothing() {
    for activation in [Activation::Relu, Activation::TopK { k: K }, Activation::JumpRelu, Activation::Gated] {
        let dictionary = Dictionary::from_parts(parts(Settings::new(activation))).unwrap();
        let mut x = vec![1.0; D];
        x[7] = f32::NAN;
        let (mut f, mut sparse) = (vec![1.0; F], vec![(0, 1.0)]);
        dictionary.encode(&x, &mut f);
        dictionary.encode_sparse(&x, &mut sparse);
        assert!(f.iter().all(|&v| v == 0.0) && sparse.is_empty(), "{activation:?}");
        assert_eq!(dictionary.encode_batch(&x.repeat(5), 1).n_active(), 0);
    }
}

/// A BatchTopK dictionary whose training never set a threshold keeps the k largest of each row.
#[test]
fn batch_top_k_without_thresholds_is_top_k() {
    let mut parts = parts(Settings::new(Activation::BatchTopK { k: K }));
    parts.threshold = None;
    let unset = Dictionary::from_parts(parts.clone()).unwrap();
    parts.settings.activation = Activation::TopK { k: K };
    let top_k = Dictionary::from_parts(parts).unwrap();
    let (x, mut a, mut b) = (random(D, 14), vec![0.0; F], vec![0.0; F]);
    unset.encode(&x, &mut a);
    top_k.encode(&x, &mut b);
    assert_eq!(a, b);
    assert!(unset.slice(&[0]).unwrap().is_full());
}

#[test]
fn parts_that_do_not_fit_are_refused_by_name() {
    let good = || parts(Settings::new(Activation::JumpRelu));
    let cases: Vec<(Parts, &str)> = vec![
        (Parts { encoder: vec![0.0; 7], ..good() }, "encoder: expected [40, 24] = 960 values, found 7"),
        (Parts { decoder: vec![0.0; F * D + 1], ..good() }, "decoder: expected [40, 24] = 960 values, found 961"),
        (Parts { decoder_bias: vec![0.0; 3], ..good() }, "decoder bias: expected 24 values, found 3"),
        (Parts { threshold: None, ..good() }, "jumprelu: expected thresholds, found none"),
        (Parts { threshold: Some(vec![0.0; 2]), ..good() }, "threshold: expected 40 values, found 2"),
        (
            Parts { encoder_bias: [vec![0.0; F - 1], vec![f32::INFINITY]].concat(), ..good() },
            "encoder bias: expected finite values, found inf at 39",
        ),
        (
            Parts { threshold: Some([vec![f32::NAN], vec![0.0; F - 1]].concat()), ..good() },
            "threshold: expected numbers, found NaN at 0",
        ),
        (Parts { stats: Some(Vec::new()), ..good() }, "statistics: expected 40, found 0"),
        (Parts { settings: Settings::new(Activation::Gated), ..good() }, "gated: expected a gate, found none"),
        (
            Parts { settings: Settings::new(Activation::TopK { k: F + 1 }), ..good() },
            "k: expected 1 to 40 (the features), found 41",
        ),
        (
            Parts { settings: Settings::new(Activation::TopK { k: 0 }), ..good() },
            "k: expected 1 to 40 (the features), found 0",
        ),
    ];
    for (parts, message) in cases {
        let error = Dictionary::from_parts(parts).unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::Argument, message));
    }
}

#[test]
fn a_slice_names_the_feature_it_cannot_take() {
    let mut parts = parts(Settings::new(Activation::Relu));
    parts.info.name = "small".to_owned();
    parts.decoder[5 * D] = f32::NAN;
    let dictionary = Dictionary::from_parts(parts).unwrap();
    let error = dictionary.slice(&[1, F as u32]).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Argument, "small: expected features 0 to 39, found 40"));
    let error = dictionary.slice(&[5]).unwrap_err();
    assert_eq!(error.kind(), Kind::Numeric);
    assert!(error.message().contains("feature 5"), "{error}");
}

#[test]
fn a_model_of_another_shape_is_an_error_and_another_fingerprint_a_warning() {
    let mut parts = parts(Settings::new(Activation::Relu));
    parts.info = Info {
        name: "small".to_owned(),
        model_name: "M".to_owned(),
        model_fingerprint: "aa".to_owned(),
        layer: Some(4),
        ..Info::default()
    };
    let dictionary = Dictionary::from_parts(parts).unwrap();
    assert_eq!(dictionary.check_model(D, 5, "aa").unwrap(), None);
    let warning = dictionary.check_model(D, 5, "bb").unwrap().unwrap();
    assert!(warning.contains("\"M\"") && warning.contains("aa") && warning.contains("bb"), "{warning}");
    let error = dictionary.check_model(D + 1, 5, "aa").unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Mismatch, "small: expected the model's width 25, found 24"));
    let error = dictionary.check_model(D, 4, "aa").unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (Kind::Mismatch, "small: made for layer 4, the model has layers 0 to 3")
    );
}

#[test]
fn an_input_scale_is_set_once_and_must_be_positive() {
    let plain = Dictionary::from_parts(parts(Settings::new(Activation::Relu))).unwrap();
    let scaled = plain.clone().with_input_scale(2.0).unwrap();
    let (x, mut a, mut b) = (random(D, 15), vec![0.0; F], vec![0.0; F]);
    scaled.encode(&x, &mut a);
    plain.encode(&x.iter().map(|v| v * 2.0).collect::<Vec<_>>(), &mut b);
    assert_eq!(a, b);
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(plain.clone().with_input_scale(bad).unwrap_err().kind(), Kind::Argument);
    }
    let layer_norm = Settings { normalization: Normalization::LayerNorm, ..Settings::new(Activation::Relu) };
    let normalized = Dictionary::from_parts(parts(layer_norm)).unwrap();
    assert_eq!(normalized.with_input_scale(2.0).unwrap_err().kind(), Kind::Argument);
}
