//! What the hook costs: each case on an engine with a hook, against an engine without one, token by token.
//!
//! | case | what runs |
//! |---|---|
//! | `again` | no hook: an engine against its like, which is the noise |
//! | `installed` | the hook, without a plan |
//! | `empty` | the hook, with an empty plan |
//! | `callback-1`, `-8`, `-64` | min-clamps of that many features at one layer, two thirds up |
//! | `generated` | a min-clamp of one feature at one layer, on generated rows only |
//! | `layers-8`, `layers-all` | a min-clamp of one feature at each of eight layers, or at every layer |
//! | `compiled` | an unconditional add as a control vector |
//!
//! Each for `decode` (ms a token) and `prefill` (ms for 256 tokens).

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;
use tiller::Result;
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::engine::{Engine, Generate, Options};
use tiller::num::rng;
use tiller::plan::{Compiled, Op, Plan, Route, Rule, Selector, Strength, Target};

use super::{Args, Lines, Pairs, model_name};

/// Tokens of a prefill.
const PREFILL: usize = 256;

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    args.model.iter().try_for_each(|path| model(path, args, lines))
}

fn model(path: &Path, args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let options = Options {
        threads: args.machine.threads,
        gpu_layers: args.machine.gpu_layers,
        context: 2048,
        batch: PREFILL,
        ..Options::default()
    };
    let mut hooked = Engine::open(path, &options)?;
    let mut plain = Engine::open(path, &Options { hook: false, ..options })?;
    let name = model_name(path);
    let text = prompt(&plain)?;
    for (case, plan) in cases(hooked.n_layer(), hooked.d_model())? {
        // The control vector lives in the graph; it needs no hook and is measured without one.
        let mut bare = match case {
            "compiled" | "again" => Some(Engine::open(path, &Options { hook: false, ..plain.options().clone() })?),
            _ => None,
        };
        let steered = bare.as_mut().unwrap_or(&mut hooked);
        steered.set_plan(plan.map(Arc::new))?;
        let pairs = |usual| if args.pairs > 0 { args.pairs } else { usual };
        let wanted = |case: &str| case.contains(&args.case);
        let decoded = format!("decode/{case}");
        if wanted(&decoded) {
            let pairs = decode(steered, &mut plain, pairs(400), &format!("{name} {decoded}"), lines)?;
            lines.push(pairs.line("overhead", decoded, &name, "ms"))?;
        }
        let prefilled = format!("prefill/{case}");
        if wanted(&prefilled) {
            let (steered, plain) = (&mut || read(steered, &text), &mut || read(&mut plain, &text));
            let pairs = Pairs::measure(pairs(30), lines.out, &format!("{name} {prefilled}"), steered, plain)?;
            lines.push(pairs.line("overhead", prefilled, &name, "ms"))?;
        }
        steered.set_plan(None)?;
        steered.finish().ok()?;
    }
    Ok(())
}

/// Text of exactly [`PREFILL`] tokens.
fn prompt(engine: &Engine) -> Result<String> {
    let text = "The ship had left the harbour before the storm came, and nobody on deck spoke a word. ".repeat(30);
    let mut tokens = engine.tokenize(&text, true)?;
    tokens.truncate(PREFILL - 2);
    Ok(engine.detokenize(&tokens))
}

fn read(engine: &mut Engine, text: &str) -> Result<f64> {
    let start = Instant::now();
    engine.begin(text, &Generate::default())?;
    Ok(ended(engine, start))
}

/// Milliseconds since `start`; then the engine's threads make room for those of the other one.
fn ended(engine: &mut Engine, start: Instant) -> f64 {
    let time = start.elapsed().as_secs_f64() * 1e3;
    engine.rest();
    time
}

/// Both engines generate from the same prompt, one token each in turn.
fn decode(steered: &mut Engine, plain: &mut Engine, n: usize, label: &str, lines: &Lines<'_>) -> Result<Pairs> {
    let generate = Generate { max_tokens: n + 8, ignore_end: true, ..Generate::default() };
    let text = "It was a quiet morning in the village, and";
    let (mut a, mut b) = (steered.begin(text, &generate)?, plain.begin(text, &generate)?);
    let step = |engine: &mut Engine, generation: &mut tiller::engine::Generation| {
        let start = Instant::now();
        engine.step(generation)?;
        Ok(ended(engine, start))
    };
    // The first step only samples from the prompt's logits.
    step(steered, &mut a)?;
    step(plain, &mut b)?;
    Pairs::measure(n, lines.out, label, &mut || step(steered, &mut a), &mut || step(plain, &mut b))
}

fn cases(n_layer: usize, d_model: usize) -> Result<Vec<(&'static str, Option<Compiled>)>> {
    let dictionary = Arc::new(random(d_model, 512)?);
    let layer = n_layer * 2 / 3;
    let clamp = |n: u32, layer| Rule::new(Op::MinClamp, (0..n).map(|i| i * 7), Strength::raw(0.01)).at_layer(layer);
    let some = (0..8).map(|i| (2 * i + 1) * n_layer / 16);
    let late = clamp(1, layer).select(Selector::generated());
    let compile = |plan: Plan, route| {
        plan.compile(&[("random", dictionary.clone())], &Target::new(n_layer, d_model), route).map(Some)
    };
    let add = Rule::new(Op::Add, [3_u32], Strength::raw(0.01)).at_layer(layer);
    Ok(vec![
        ("again", None),
        ("installed", None),
        ("empty", compile(Plan::new([]), Route::Auto)?),
        ("callback-1", compile(Plan::new([clamp(1, layer)]), Route::Callback)?),
        ("callback-8", compile(Plan::new([clamp(8, layer)]), Route::Callback)?),
        ("callback-64", compile(Plan::new([clamp(64, layer)]), Route::Callback)?),
        ("generated", compile(Plan::new([late]), Route::Callback)?),
        ("layers-8", compile(Plan::new(some.map(|layer| clamp(1, layer))), Route::Callback)?),
        ("layers-all", compile(Plan::new((0..n_layer).map(|layer| clamp(1, layer))), Route::Callback)?),
        ("compiled", compile(Plan::new([add]), Route::ControlVector)?),
    ])
}

/// A dictionary of random unit directions: costs do not depend on what features mean.
fn random(d_model: usize, n_features: usize) -> Result<Dictionary> {
    let mut random = rng(1);
    let scale = (3.0 / d_model as f32).sqrt();
    let mut weights = || (0..d_model * n_features).map(|_| random.random_range(-scale..scale)).collect::<Vec<f32>>();
    Dictionary::from_parts(Parts {
        d_model,
        encoder: weights(),
        decoder: weights(),
        encoder_bias: vec![0.0; n_features],
        decoder_bias: vec![0.0; d_model],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings::new(Activation::Relu),
        info: Info::default(),
    })
}
