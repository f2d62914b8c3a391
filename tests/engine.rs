//! The engine on real models. See `tests/support` for where they come from.
#![cfg(feature = "engine")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiller::Kind;
use tiller::activations::{Activations, RowType};
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::engine::{Document, Engine, Generate, Harvest, Message, Options, Stop, requantize};
use tiller::eval::expected::Expectation;
use tiller::eval::output::{self, Output};
use tiller::explain::Match;
use tiller::hook_point::{HookPoint, Site};
use tiller::model::Model;
use tiller::plan::{Compiled, Plan, Route, Rule, Strength, Vector};
use tiller::progress::silent;

const TEXT: &str = "The committee met in the morning to discuss the bridge across the river, and by noon the engineers had \
                    agreed that the old stone piers could carry a railway.";

fn models() -> Vec<PathBuf> {
    [support::SMOLLM, support::GEMMA].into_iter().filter_map(support::model).collect()
}

fn open(path: &Path, hook: bool) -> Engine {
    let options = Options { context: 512, batch: 128, threads: 2, sequences: 4, hook, ..Options::default() };
    Engine::open(path, &options).unwrap()
}

/// The logits of every token of the text but the first.
fn logits(engine: &mut Engine) -> Vec<f32> {
    let tokens = engine.tokenize(TEXT, true).unwrap();
    let mut all = Vec::new();
    engine.score_each(&tokens, 1, &mut |_, logits| all.extend_from_slice(logits)).unwrap();
    all
}

/// A push of `size` in a fixed direction after block `layer`.
fn push(engine: &Engine, layer: usize, size: f32, route: Route) -> Arc<Compiled> {
    let direction: Vec<f32> = (0..engine.d_model()).map(|i| size * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect();
    let rule = Rule::vector(Vector::Values(direction), Some(layer), Strength::raw(1.0));
    Arc::new(Plan::new([rule]).compile(&[], engine.n_layer(), engine.d_model(), route).unwrap())
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let diff: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (diff / b.iter().map(|&b| square(f64::from(b))).sum::<f64>()).sqrt()
}

#[test]
fn a_hook_with_nothing_to_do_changes_no_bit() {
    let _turn = support::turn();
    for path in models() {
        let plain = logits(&mut open(&path, false));
        let mut engine = open(&path, true);
        assert!(plain == logits(&mut engine), "hook without a plan: {}", path.display());
        let empty = Plan::default().compile(&[], engine.n_layer(), engine.d_model(), Route::Auto).unwrap();
        engine.set_plan(Some(Arc::new(empty))).unwrap();
        assert!(plain == logits(&mut engine), "empty plan: {}", path.display());
        // Splitting the graph to look at a row changes nothing either.
        let every = 0..engine.n_layer();
        engine.hook_mut().capture(every).unwrap();
        assert!(plain == logits(&mut engine), "all layers captured: {}", path.display());
    }
}

#[test]
fn callback_and_control_vector_do_the_same_add() {
    let _turn = support::turn();
    for path in models() {
        let mut engine = open(&path, true);
        let plain = logits(&mut engine);
        // A hundredth of the row's norm or so; Gemma's residual stream is far larger.
        let size = if path.ends_with(support::GEMMA) { 100.0 } else { 1.0 };
        for layer in [1, engine.n_layer() / 2, engine.n_layer() - 1] {
            engine.set_plan(Some(push(&engine, layer, size, Route::Callback))).unwrap();
            let callback = logits(&mut engine);
            assert!(engine.finish().unwrap().rows_edited > 0);
            engine.set_plan(Some(push(&engine, layer, size, Route::ControlVector))).unwrap();
            let vector = logits(&mut engine);
            assert_eq!(engine.finish().unwrap().rows_seen, 0, "the graph adds by itself");
            let (apart, effect) = (distance(&callback, &vector), distance(&callback, &plain));
            assert!(apart < 1e-3 && effect > 10.0 * apart, "layer {layer}: {apart:.1e} apart, effect {effect:.1e}");
        }
        engine.set_plan(None).unwrap();
        assert!(plain == logits(&mut engine), "a plan that was taken away leaves nothing behind");
    }
}

/// The rows at a hook point, by position.
fn captured(engine: &mut Engine, point: HookPoint) -> BTreeMap<i32, Vec<f32>> {
    let captured = engine.hook_mut().take_captured(point);
    let d_model = captured.rows.len() / captured.meta.len();
    captured.meta.iter().map(|row| row.position).zip(captured.rows.chunks(d_model).map(<[f32]>::to_vec)).collect()
}

#[test]
fn hook_points_are_the_terms_of_the_residual_stream() {
    let _turn = support::turn();
    for path in models() {
        let mut engine = open(&path, true);
        for layer in [0, engine.n_layer() / 2, engine.n_layer() - 1] {
            let points = Site::ALL.map(|site| HookPoint::new(site, layer));
            engine.hook_mut().capture(points).unwrap();
            logits(&mut engine);
            let report = engine.finish().unwrap();
            assert_eq!(report.rows_skipped, 0);
            let [pre, attention, middle, mlp, post] = points.map(|point| captured(&mut engine, point));
            for (before, term, after) in [(&pre, &attention, &middle), (&middle, &mlp, &post)] {
                assert!(!after.is_empty());
                for (position, after) in after {
                    let sum: Vec<f32> = before[position].iter().zip(&term[position]).map(|(a, b)| a + b).collect();
                    let apart = distance(&sum, after);
                    assert!(apart < 1e-6, "{} layer {layer}: {apart:.1e}", path.display());
                }
            }
        }
    }
}

#[test]
fn an_edit_of_what_the_mlp_adds_reaches_the_stream() {
    let _turn = support::turn();
    for path in models() {
        let mut engine = open(&path, true);
        let (layer, size) = (engine.n_layer() / 2, if path.ends_with(support::GEMMA) { 100.0 } else { 1.0 });
        let direction: Vec<f32> = (0..engine.d_model()).map(|i| size * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect();
        let mut rows = |site| {
            let mut rule = Rule::vector(Vector::Values(direction.clone()), Some(layer), Strength::raw(1.0));
            rule.hook = Some(site);
            let plan = Plan::new([rule]).compile(&[], engine.n_layer(), engine.d_model(), Route::Callback).unwrap();
            engine.set_plan(Some(Arc::new(plan))).unwrap();
            engine.hook_mut().capture([layer]).unwrap();
            logits(&mut engine);
            assert!(engine.finish().unwrap().rows_edited > 0);
            engine.hook_mut().take_captured(layer).rows
        };
        // Not the logits: a last bit that differs rounds other 8-bit activations up, and is a percent some layers later.
        let (stream, mlp, attention) = (rows(Site::ResidPost), rows(Site::MlpOut), rows(Site::AttnOut));
        assert!(distance(&stream, &mlp) < 1e-6, "{}: {}", path.display(), distance(&stream, &mlp));
        // Earlier in the block the MLP reads it, too.
        assert!(distance(&stream, &attention) > 1e-6, "{}: {}", path.display(), distance(&stream, &attention));
    }
}

#[test]
fn layer_0_and_every_row_of_the_last_layer_can_be_steered() {
    let _turn = support::turn();
    for path in models() {
        let mut engine = open(&path, true);
        let plain = logits(&mut engine);
        for layer in [0, engine.n_layer() - 1] {
            engine.set_plan(Some(push(&engine, layer, 50.0, Route::Callback))).unwrap();
            let steered = logits(&mut engine);
            let n_tokens = engine.tokenize(TEXT, true).unwrap().len() as u64;
            let report = engine.finish().unwrap();
            // The last token predicts nothing here, so the last block leaves its row out.
            let expected = if layer == 0 { n_tokens } else { n_tokens - 1 };
            assert_eq!((report.rows_edited, report.rows_skipped), (expected, 0), "layer {layer}");
            assert!(distance(&steered, &plain) > 1e-4);
        }
    }
}

/// Steering that acts on the prompt alone is the sixteenth trap of the list: each decoded token is steered, too.
#[test]
fn t16_every_decoded_token_is_steered() {
    let _turn = support::turn();
    for path in models() {
        let mut engine = open(&path, true);
        let plan = push(&engine, engine.n_layer() / 2, 1.0, Route::Callback);
        engine.set_plan(Some(plan)).unwrap();
        let options = Generate { max_tokens: 6, ignore_end: true, ..Generate::default() };
        let made = engine.generate("The bridge", &options, &mut |_| true).unwrap();
        // The last token is drawn, but never read.
        let read = (made.prompt().len() + made.tokens().len() - 1) as u64;
        let report = engine.finish().unwrap();
        assert_eq!((report.rows_seen, report.rows_edited, report.rows_skipped), (read, read, 0));
    }
}

#[test]
fn early_stop_harvests_the_same_rows() {
    let _turn = support::turn();
    let text: Vec<Document> = (0..7).map(|i| Document::Text(TEXT[i * 3..].repeat(i + 1))).collect();
    for path in models() {
        let mut engine = open(&path, true);
        let layers = vec![0, engine.n_layer() / 3];
        let dir = tempfile::tempdir().unwrap();
        let mut harvest = |name: &str, early_stop| {
            let options =
                Harvest { layers: layers.clone(), dtype: RowType::F32, window: 64, early_stop, ..Harvest::default() };
            engine.harvest(&text, &dir.path().join(name), &options, &mut silent).unwrap()
        };
        let (early, full) = (harvest("early", true), harvest("full", false));
        assert_eq!(early.n_rows, full.n_rows);
        for layer in &layers {
            let file = format!("layer-{layer}/rows-00000.safetensors");
            let read = |name: &str| std::fs::read(dir.path().join(name).join(&file)).unwrap();
            assert!(read("early") == read("full"), "layer {layer} of {}", path.display());
        }
    }
}

#[test]
fn a_harvest_goes_on_where_it_was_cut() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let text: Vec<Document> = (0..20).map(|i| Document::Text(format!("{i}. {TEXT}"))).collect();
    let mut engine = open(&path, true);
    let dir = tempfile::tempdir().unwrap();
    let options =
        |max_tokens| Harvest { layers: vec![3], window: 64, shard_rows: 100, max_tokens, ..Harvest::default() };
    let whole = dir.path().join("whole");
    engine.harvest(&text, &whole, &options(0), &mut silent).unwrap();
    let cut = dir.path().join("cut");
    let mut left = 3;
    let error = engine.harvest(&text, &cut, &options(0), &mut |_| {
        left -= 1;
        left > 0
    });
    assert_eq!(error.unwrap_err().kind(), tiller::Kind::Cancelled);
    let kept = Activations::open(&cut).unwrap();
    assert!(kept.n_rows() > 0 && !kept.meta().complete);
    drop(kept);
    engine.harvest(&text, &cut, &options(0), &mut silent).unwrap();
    let (whole, cut) = (Activations::open(&whole).unwrap(), Activations::open(&cut).unwrap());
    assert_eq!(whole.n_rows(), cut.n_rows());
    assert!(cut.meta().complete);
    let (mut a, mut b) = (vec![0.0; whole.d_model()], vec![0.0; whole.d_model()]);
    for i in 0..whole.n_rows() {
        whole.row(i, &mut a);
        cut.row(i, &mut b);
        assert_eq!((whole.token(i), whole.position(i)), (cut.token(i), cut.position(i)));
        // Windows were packed into other batches, so the last bits may differ.
        assert!(distance(&a, &b) < 1e-2, "row {i}: {}", distance(&a, &b));
    }
    let other = engine.harvest(&text[1..], &dir.path().join("cut"), &options(0), &mut silent).unwrap_err();
    assert_eq!(other.kind(), tiller::Kind::Mismatch, "{other}");
}

/// Rows of a requantized copy are nearly the model's own, and may count as such; those of another model may not.
#[test]
fn a_harvest_may_run_on_a_requantized_copy() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.gguf");
    requantize(&path, &copy, "Q8_0", 0).unwrap();
    let text = [Document::Text(TEXT.to_owned())];
    let rows = |model: &Path, name: &str, counts_as: Option<&Path>| {
        let counts_as = counts_as.map(Path::to_owned);
        let options = Harvest { layers: vec![9], counts_as, ..Harvest::default() };
        open(model, true).harvest(&text, &dir.path().join(name), &options, &mut silent)?;
        Activations::open(&dir.path().join(name))
    };
    let (own, made) = (rows(&path, "own", None).unwrap(), rows(&copy, "made", Some(&path)).unwrap());
    assert_eq!(made.meta().model_fingerprint, own.meta().model_fingerprint);
    let (mut a, mut b) = (vec![0.0; own.d_model()], vec![0.0; own.d_model()]);
    for i in 0..own.n_rows() {
        own.row(i, &mut a);
        made.row(i, &mut b);
        assert!(distance(&a, &b) < 0.1, "row {i}: {}", distance(&a, &b));
    }
    let Some(other) = support::model(support::GEMMA) else { return };
    let error = rows(&copy, "other", Some(&other)).err().expect("another model is refused");
    assert!(error.kind() == tiller::Kind::Mismatch && error.message().contains("checkpoint"), "{error}");
}

#[test]
fn plans_change_during_a_generation() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let mut engine = open(&path, true);
    let options = Generate { max_tokens: 24, ..Generate::default() };
    let mut run = |switch: usize| {
        let plan = push(&engine, 15, 6.0, Route::Callback);
        let mut generation = engine.begin("The old bridge", &options).unwrap();
        while engine.step(&mut generation).unwrap().is_some() {
            if generation.tokens().len() == switch {
                engine.set_plan(Some(plan.clone())).unwrap();
            }
        }
        engine.set_plan(None).unwrap();
        assert_eq!(generation.stop(), Some(Stop::Length));
        generation.tokens().to_vec()
    };
    let (never, late, early) = (run(usize::MAX), run(12), run(1));
    assert_eq!(never[..12], late[..12]);
    assert_ne!(never[12..], late[12..]);
    assert_ne!(never[1..12], early[1..12]);
}

#[test]
fn output_scores_keep_the_features_that_make_the_model_say_the_words() {
    let _turn = support::turn();
    for path in models() {
        let (mut engine, model) = (open(&path, true), Model::open(&path).unwrap());
        let d_model = engine.d_model();
        // Feature 0 points anywhere, 1 to the word, 2 is a twin of 1, 3 points away from the word.
        let war = engine.tokenize(" war", false).unwrap()[0];
        let mut word = vec![0.0; d_model];
        model.unembedding_row(war, &mut word).unwrap();
        let turned = |factor: f32| word.iter().map(move |x| factor * x);
        let anywhere = (0..d_model).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0);
        let decoder: Vec<f32> = anywhere.chain(turned(1.0)).chain(turned(1.5)).chain(turned(-1.0)).collect();
        let dictionary = Arc::new(
            Dictionary::from_parts(Parts {
                d_model,
                encoder: decoder.clone(),
                decoder,
                encoder_bias: vec![0.0; 4],
                decoder_bias: vec![0.0; d_model],
                threshold: None,
                gate: None,
                stats: None,
                settings: Settings::new(Activation::Relu),
                info: Info { layer: Some(engine.n_layer() - 2), ..Info::default() },
            })
            .unwrap(),
        );
        let candidate = |feature| Match {
            feature,
            score: 1.0,
            weight: 1.0,
            matched: Vec::new(),
            words: Vec::new(),
            label: None,
            density: None,
            mean: None,
            lift: None,
        };
        let candidates: Vec<Match> = (0..4).map(candidate).collect();
        let options = Output::default();
        let lifts = output::lifts(&mut engine, &dictionary, &[0, 1, 2, 3], &["war"], &options, &mut silent).unwrap();
        assert!(lifts[1] > 1.0 && lifts[3] < 0.0 && lifts[0] < lifts[1], "{lifts:?}");
        assert!((lifts[1] - lifts[2]).abs() < 1e-3 * lifts[1], "a push has the length asked for: {lifts:?}");
        let ranked = output::rank(&mut engine, &dictionary, &candidates, &["war"], 3, &options, &mut silent).unwrap();
        assert_eq!(ranked.iter().map(|m| m.feature).filter(|f| [1, 2].contains(f)).count(), 1, "twins are one");
        assert!([1, 2].contains(&ranked[0].feature) && ranked[0].weight == 1.0, "{ranked:?}");
        assert!(ranked.iter().all(|m| m.feature != 3) && engine.plan().is_none());
        let nothing = output::rank(&mut engine, &dictionary, &candidates[3..], &["war"], 3, &options, &mut silent);
        assert!(nothing.unwrap().is_empty());
        let cancelled = output::lifts(&mut engine, &dictionary, &[0], &["war"], &options, &mut |_| false).unwrap_err();
        assert_eq!(cancelled.kind(), Kind::Cancelled);
    }
}

#[test]
fn what_a_plan_is_expected_to_do_is_calculated() {
    let _turn = support::turn();
    for path in models() {
        let (mut engine, model) = (open(&path, true), Model::open(&path).unwrap());
        let mut word = vec![0.0; engine.d_model()];
        model.unembedding_row(engine.tokenize(" war", false).unwrap()[0], &mut word).unwrap();
        let (n_layer, d_model) = (engine.n_layer(), engine.d_model());
        let toward = |size: f32| {
            let rule = Rule::vector(Vector::Values(word.clone()), Some(n_layer - 2), Strength::norm(size));
            Ok(Arc::new(Plan::new([rule]).compile(&[], n_layer, d_model, Route::Auto)?))
        };
        let prompts = ["Once upon a time".to_owned(), "Most of us".to_owned()];
        let draft = Generate { max_tokens: 8, ..Generate::default() };
        let texts = Expectation::new(&mut engine, &prompts, &draft).unwrap();
        let mut effect = |plan: &Arc<Compiled>| texts.effect(&mut engine, plan, &["war"]).unwrap();
        let nothing = Arc::new(Plan::new([]).compile(&[], n_layer, d_model, Route::Auto).unwrap());
        let none = effect(&nothing);
        // Log probabilities are kept in 16 bits.
        assert!((none.gain - 1.0).abs() < 1e-2 && (none.perplexity - 1.0).abs() < 1e-2, "{none:?}");
        let [away, little, more] = [-0.2, 0.1, 0.3].map(|size| effect(&toward(size).unwrap()));
        assert!(away.gain < 1.0 && little.gain > 1.0 && more.gain > little.gain, "{away:?} {little:?} {more:?}");
        assert!(more.perplexity > little.perplexity && little.perplexity > 0.99, "{little:?} {more:?}");
        assert_eq!(little, effect(&toward(0.1).unwrap()), "nothing is drawn");

        let search = |engine: &mut Engine| texts.at_cost(engine, 1.25, &["war"], &toward, &mut silent).unwrap();
        let found = search(&mut engine);
        let best = found.best.unwrap_or_else(|| panic!("some push costs a quarter: {found:?}"));
        assert!((best.effect.perplexity.ln() / 1.25_f64.ln() - 1.0).abs() <= 0.1, "{best:?}");
        assert!(engine.plan().is_none() && search(&mut engine).best == Some(best), "the same again");
        let cancelled = texts.at_cost(&mut engine, 1.25, &["war"], &toward, &mut |_| false).unwrap_err();
        assert_eq!(cancelled.kind(), Kind::Cancelled);
    }
}

#[test]
fn an_earlier_generation_cannot_go_on_after_another_began() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let mut engine = open(&path, true);
    let mut first = engine.begin("The old bridge", &Generate::default()).unwrap();
    engine.step(&mut first).unwrap();
    engine.begin("Another prompt", &Generate::default()).unwrap();
    assert_eq!(engine.step(&mut first).unwrap_err().kind(), tiller::Kind::Argument);
}

#[test]
fn seeds_repeat_and_prompts_side_by_side_are_their_own() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let mut engine = open(&path, true);
    let options = Generate { max_tokens: 12, temperature: 0.8, top_p: 0.95, seed: 7, ..Generate::default() };
    let prompts: Vec<String> = ["The sea", "My brother", "A law", "Bread", "In winter"].map(String::from).to_vec();
    let texts = |engine: &mut Engine| -> Vec<String> {
        engine.generate_many(&prompts, &options).unwrap().iter().map(|g| g.text().to_owned()).collect()
    };
    let first = texts(&mut engine);
    assert_eq!(first, texts(&mut engine));
    assert_eq!(first.len(), 5, "more prompts than sequences");
    let alone = engine.generate(&prompts[0], &options, &mut |_| true).unwrap();
    assert_eq!(alone.text(), first[0], "the first prompt keeps the seed");
}

#[test]
fn chat_template_and_text_round_trip() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let engine = open(&path, true);
    let chat = engine.chat(&[Message::user("Hello – how are you?")], true).unwrap();
    assert!(chat.contains("<|im_start|>user\nHello – how are you?<|im_end|>\n<|im_start|>assistant\n"), "{chat}");
    let tokens = engine.tokenize("Größe: 5 × 7 = 35 🙂", false).unwrap();
    assert_eq!(engine.detokenize(&tokens), "Größe: 5 × 7 = 35 🙂");
}

#[test]
fn what_is_no_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.gguf");
    std::fs::write(&path, b"GGUF\x03\0\0\0 and nothing else").unwrap();
    let error = Engine::open(&path, &Options::default()).err().unwrap();
    assert!(error.message().contains("broken.gguf"), "{error}");
    assert_eq!(
        Engine::open(&dir.path().join("absent.gguf"), &Options::default()).err().unwrap().kind(),
        tiller::Kind::Io
    );
}
