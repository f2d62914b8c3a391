//! The engine on real models. See `tests/support` for where they come from, and `agree` there for what two runs of one thing
//! have in common.
#![cfg(feature = "engine")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::agree::{self, distance};
use tiller::Kind;
use tiller::activations::{Activations, RowType};
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::engine::{Document, Engine, Generate, Harvest, Message, Options, Stop, requantize};
use tiller::eval::concepts::Effect;
use tiller::eval::expected::Expectation;
use tiller::eval::output::{self, Output};
use tiller::explain::Match;
use tiller::hook_point::{HookPoint, Site};
use tiller::model::Model;
use tiller::plan::{Compiled, Plan, Route, Rule, Strength, Target};
use tiller::progress::silent;

const TEXT: &str = "The committee met in the morning to discuss the bridge across the river, and by noon the engineers had \
                    agreed that the old stone piers could carry a railway.";

fn models() -> Vec<PathBuf> {
    [support::SMOLLM, support::GEMMA].into_iter().filter_map(support::model).collect()
}

fn open(path: &Path, hook: bool) -> Engine {
    let options =
        Options { context: 512, batch: 128, threads: support::THREADS, sequences: 4, hook, ..Options::default() };
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
    let rule = Rule::vector(direction, Strength::raw(1.0)).at_layer(layer);
    Arc::new(Plan::new([rule]).compile(&[], &engine.target(), route).unwrap())
}

/// The size of a push that moves the logits by far more than [`agree::TEXT`]: Gemma's residual stream is far larger.
fn strong(path: &Path) -> f32 {
    if path.ends_with(support::GEMMA) { 3000.0 } else { 50.0 }
}

/// The logits of a text that was not changed.
#[track_caller]
fn unchanged(found: &[f32], plain: &[f32], what: &str) {
    let apart = distance(found, plain);
    assert!(apart < agree::TEXT, "{what}: {apart:.1e}");
}

/// That it writes nothing, bit for bit, is a test of `hook_attribution.rs`.
#[test]
fn a_hook_with_nothing_to_do_changes_nothing() {
    let _turn = support::turn();
    for path in models() {
        let plain = logits(&mut open(&path, false));
        let mut engine = open(&path, true);
        unchanged(&logits(&mut engine), &plain, "hook without a plan");
        let empty = Plan::default().compile(&[], &engine.target(), Route::Auto).unwrap();
        engine.set_plan(Some(Arc::new(empty))).unwrap();
        unchanged(&logits(&mut engine), &plain, "empty plan");
        // Splitting the graph to look at a row changes nothing either.
        let every = 0..engine.n_layer();
        engine.hook_mut().capture(every).unwrap();
        unchanged(&logits(&mut engine), &plain, "all layers captured");
        assert_eq!(engine.finish().ok().unwrap().rows_edited, 0);
    }
}

/// All other tests compute with one.
#[test]
fn two_threads_compute_what_one_does() {
    let _turn = support::turn();
    let Some(path) = support::model(support::SMOLLM) else { return };
    let plain = logits(&mut open(&path, true));
    let options = Options { context: 512, batch: 128, threads: 2, ..Options::default() };
    let mut engine = Engine::open(&path, &options).unwrap();
    let middle = engine.n_layer() / 2;
    engine.hook_mut().capture([middle]).unwrap();
    unchanged(&logits(&mut engine), &plain, "two threads");
    engine.rest();
    unchanged(&logits(&mut engine), &plain, "two threads that slept");
}

#[test]
fn callback_and_control_vector_do_the_same_add() {
    let _turn = support::turn();
    for path in models() {
        let mut engine = open(&path, true);
        let plain = logits(&mut engine);
        for layer in [1, engine.n_layer() / 2, engine.n_layer() - 1] {
            let size = strong(&path);
            engine.set_plan(Some(push(&engine, layer, size, Route::Callback))).unwrap();
            let callback = logits(&mut engine);
            assert!(engine.finish().ok().unwrap().rows_edited > 0);
            engine.set_plan(Some(push(&engine, layer, size, Route::ControlVector))).unwrap();
            let vector = logits(&mut engine);
            assert_eq!(engine.finish().ok().unwrap().rows_seen, 0, "the graph adds by itself");
            let (apart, effect) = (distance(&callback, &vector), distance(&callback, &plain));
            assert!(apart < agree::TEXT, "layer {layer}: {apart:.1e} apart");
            assert!(effect > 3.0 * agree::TEXT, "layer {layer}: effect {effect:.1e}");
        }
        engine.set_plan(None).unwrap();
        unchanged(&logits(&mut engine), &plain, "a plan that was taken away leaves nothing behind");
    }
}

/// The rows at a hook point, by position.
fn captured(engine: &mut Engine, point: HookPoint) -> BTreeMap<i32, Vec<f32>> {
    let captured = engine.hook_mut().take_captured(point);
    let d_model = captured.rows.len() / captured.meta.len();
    captured
        .meta
        .iter()
        .map(|row| row.position.unwrap())
        .zip(captured.rows.chunks(d_model).map(<[f32]>::to_vec))
        .collect()
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
            let report = engine.finish().ok().unwrap();
            assert_eq!(report.rows_left(), 0);
            let [pre, attention, middle, mlp, post] = points.map(|point| captured(&mut engine, point));
            for (before, term, after) in [(&pre, &attention, &middle), (&middle, &mlp, &post)] {
                assert!(!after.is_empty());
                for (position, after) in after {
                    let sum: Vec<f32> = before[position].iter().zip(&term[position]).map(|(a, b)| a + b).collect();
                    let apart = distance(&sum, after);
                    // Within one run: an addition rounds by 6e-8.
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
        let layer = engine.n_layer() / 2;
        let size = strong(&path);
        let direction: Vec<f32> = (0..engine.d_model()).map(|i| size * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect();
        let points = [Site::ResidMid, Site::MlpOut, Site::ResidPost].map(|site| HookPoint::new(site, layer));
        let mut rows = |steered: bool| {
            let rule = Rule::vector(direction.clone(), Strength::raw(1.0)).at_layer(layer).at_site(Site::MlpOut);
            let plan = Plan::new(steered.then_some(rule));
            let plan = plan.compile(&[], &engine.target(), Route::Callback).unwrap();
            engine.set_plan(Some(Arc::new(plan))).unwrap();
            engine.hook_mut().capture(points).unwrap();
            logits(&mut engine);
            assert_eq!(engine.finish().ok().unwrap().rows_edited > 0, steered);
            points.map(|point| captured(&mut engine, point))
        };
        let ([_, plain, _], [middle, mlp, post]) = (rows(false), rows(true));
        // Position 0 is not steered.
        for (position, plain) in plain.iter().filter(|(position, _)| **position > 0) {
            let added = |to: &[f32], what: &[f32]| to.iter().zip(what).map(|(a, b)| a + b).collect::<Vec<f32>>();
            let (whole, apart) = (added(plain, &direction), distance(&mlp[position], &added(plain, &direction)));
            assert!(apart < agree::ROW, "row {position}: {apart:.1e}");
            let effect = distance(plain, &whole);
            assert!(effect > 3.0 * agree::ROW, "row {position}: effect {effect:.1e}");
            // Within one run an addition rounds by 6e-8.
            let apart = distance(&added(&middle[position], &mlp[position]), &post[position]);
            assert!(apart < 1e-6, "row {position} of {}: {apart:.1e}", path.display());
        }
    }
}

#[test]
fn layer_0_and_every_row_of_the_last_layer_can_be_steered() {
    let _turn = support::turn();
    for path in models() {
        let mut engine = open(&path, true);
        let plain = logits(&mut engine);
        for layer in [0, engine.n_layer() - 1] {
            engine.set_plan(Some(push(&engine, layer, strong(&path), Route::Callback))).unwrap();
            let steered = logits(&mut engine);
            let n_tokens = engine.tokenize(TEXT, true).unwrap().len() as u64;
            let report = engine.finish().ok().unwrap();
            // The last token predicts nothing here, so the last block leaves its row out.
            let expected = if layer == 0 { n_tokens } else { n_tokens - 1 };
            assert_eq!((report.rows_edited, report.rows_left()), (expected, 0), "layer {layer}");
            let effect = distance(&steered, &plain);
            assert!(effect > 3.0 * agree::TEXT, "layer {layer}: effect {effect:.1e}");
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
        let report = engine.finish().ok().unwrap();
        assert_eq!((report.rows_seen, report.rows_edited, report.rows_left()), (read, read, 0));
    }
}

/// The same tokens, and about the same rows. Those of most neighbours differ by more.
fn same_rows(found: &Activations, expected: &Activations) {
    assert_eq!(found.n_rows(), expected.n_rows());
    let row = |of: &Activations, i: usize| {
        let mut row = vec![0.0; of.d_model()];
        of.row(i, &mut row);
        row
    };
    for i in 0..found.n_rows() {
        assert_eq!((found.token(i), found.position(i)), (expected.token(i), expected.position(i)));
        let (found, expected) = (row(found, i), row(expected, i));
        let apart = distance(&found, &expected);
        assert!(apart < agree::ROW, "row {i}: {apart:.1e}");
    }
    let neighbour = |i: usize| distance(&row(found, i), &row(expected, i - 1));
    let others = (1..found.n_rows()).filter(|&i| neighbour(i) > agree::ROW).count();
    assert!(2 * others > found.n_rows(), "the bound tells rows apart: {others} of {}", found.n_rows());
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
            let place = |name: &str| dir.path().join(name).join(format!("layer-{layer}"));
            let [early, full] = ["early", "full"].map(|name| Activations::open(&place(name)).unwrap());
            same_rows(&early, &full);
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
    assert!(cut.meta().complete);
    same_rows(&cut, &whole);
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
    same_rows(&made, &own);
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
        let plan = push(&engine, 15, strong(&path), Route::Callback);
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
    let prompt = engine.tokenize("The old bridge", true).unwrap();
    agree::same_choices(&mut engine, &prompt, &never[..12], &late[..12]);
    // The plan acts from the next token that is read, which is the second one after it was set.
    assert!(agree::alike(&never, &late) < 16, "{never:?} {late:?}");
    assert!(agree::alike(&never, &early) < 5, "{never:?} {early:?}");
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
        let apart = f64::from(lifts[1] - lifts[2]).abs();
        assert!(apart < agree::LIKELY, "a push has the length asked for: {lifts:?}");
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

/// Shares of unlikely words follow their log probabilities, which move more than those of likely ones; perplexities are means
/// over all tokens.
fn same(a: &Effect, b: &Effect) -> bool {
    (a.gain / b.gain).ln().abs() < 2.0 * agree::LIKELY && (a.perplexity / b.perplexity).ln().abs() < agree::TEXT
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
            let rule = Rule::vector(word.clone(), Strength::norm(size)).at_layer(n_layer - 2);
            Ok(Arc::new(Plan::new([rule]).compile(&[], &Target::new(n_layer, d_model), Route::Auto)?))
        };
        let prompts = ["Once upon a time".to_owned(), "Most of us".to_owned()];
        let draft = Generate { max_tokens: 8, ..Generate::default() };
        let texts = Expectation::new(&mut engine, &prompts, &draft).unwrap();
        let mut effect = |plan: &Arc<Compiled>| texts.effect(&mut engine, plan, &["war"]).unwrap();
        let nothing = Arc::new(Plan::new([]).compile(&[], &Target::new(n_layer, d_model), Route::Auto).unwrap());
        let none = effect(&nothing);
        // The last block's push is seen at once in Gemma's logits; where nothing but the words is left to say, more is no more.
        let unit = if path.ends_with(support::GEMMA) { 0.1 } else { 1.0 };
        let [away, little, more] = [-0.2, 0.1, 0.3].map(|size| effect(&toward(unit * size).unwrap()));
        println!("{}: {away:?} {little:?} {more:?}", path.display());
        assert!(same(&none, &Effect { gain: 1.0, perplexity: 1.0, distinct: 1.0, broken: 0.0 }), "{none:?}");
        // By more than twice what `same` allows.
        let apart = |a: &Effect, b: &Effect| (a.gain / b.gain).ln() > 4.0 * agree::LIKELY;
        assert!(apart(&none, &away) && apart(&little, &none) && apart(&more, &little), "{away:?} {little:?} {more:?}");
        assert!(more.perplexity > 1.5 * little.perplexity && little.perplexity > 0.9, "{little:?} {more:?}");
        let again = effect(&toward(unit * 0.1).unwrap());
        assert!(same(&little, &again), "nothing is drawn: {little:?} {again:?}");

        let search = |engine: &mut Engine| texts.at_cost(engine, 1.25, &["war"], &toward, &mut silent).unwrap();
        let found = search(&mut engine);
        let best = found.best.unwrap_or_else(|| panic!("some push costs a quarter: {found:?}"));
        let share = best.effect.perplexity.ln() / 1.25_f64.ln();
        assert!((0.6..=1.1).contains(&share), "{best:?}");
        assert!(engine.plan().is_none());
        let again = search(&mut engine).best.unwrap();
        let apart = (again.strength / best.strength).ln().abs();
        assert!(apart < 0.3, "the same again: {best:?} {again:?}");
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
    let options = |seed| Generate { max_tokens: 12, temperature: 0.8, top_p: 0.95, seed, ..Generate::default() };
    let prompts: Vec<String> = ["The sea", "My brother", "A law", "Bread", "In winter"].map(String::from).to_vec();
    let many = |engine: &mut Engine, seed: u32| -> Vec<Vec<i32>> {
        engine.generate_many(&prompts, &options(seed)).unwrap().iter().map(|g| g.tokens().to_vec()).collect()
    };
    // Tokens that pairs of texts begin with alike. Now and then a draw falls between two tokens whose shares have moved a
    // little, and the rest of that text is another one.
    let alike = |a: &[Vec<i32>], b: &[Vec<i32>]| a.iter().zip(b).map(|(a, b)| agree::alike(a, b)).sum::<usize>();
    let first = many(&mut engine, 7);
    let all: usize = first.iter().map(Vec::len).sum();
    assert!(first.len() == 5 && all > 40, "more prompts than sequences: {first:?}");
    let again = many(&mut engine, 7);
    assert!(2 * alike(&first, &again) > all, "a seed repeats: {first:?} {again:?}");
    let alone: Vec<Vec<i32>> = (7..)
        .zip(&prompts)
        .map(|(seed, prompt)| engine.generate(prompt, &options(seed), &mut |_| true).unwrap().tokens().to_vec())
        .collect();
    assert!(2 * alike(&first, &alone) > all, "each keeps its seed: {first:?} {alone:?}");
    let other = many(&mut engine, 107);
    assert!(4 * alike(&first, &other) < all, "another seed, other texts: {first:?} {other:?}");
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
