//! Layers on a GPU: the same rows are steered as on the processor, to the same logits as far as unsteered ones are.
//! Skipped where the build or the machine has no GPU; `tests/gpu.sh` builds for one.
#![cfg(feature = "engine")]

mod support;

use std::path::Path;
use std::sync::Arc;

use support::agree::{alike, distance, same_choices};
use tiller::engine::{Engine, Generate, Options};
use tiller::hook::Ledger;
use tiller::plan::{Compiled, Plan, Route, Rule, Selector, Strength};

/// More tokens than 32: from there on ggml computes on a device with weights that lie elsewhere.
const TEXT: &str = "The committee met in the morning to discuss the bridge across the river, and by noon the \
                    engineers had agreed that the old stone piers could carry a railway, if the arches between them \
                    were built anew.";
/// Times the distance of unsteered logits: other rows are rounded otherwise.
const TOLERANCE: f64 = 2.0;
/// What one last bit may do to the logits of a text, where the unsteered ones happen to be equal: see `agree`.
const FLOOR: f64 = 0.01;

fn open(path: &Path, gpu_layers: usize) -> Engine {
    let options = Options { context: 512, batch: 128, threads: support::THREADS, gpu_layers, ..Options::default() };
    Engine::open(path, &options).unwrap()
}

/// Pushes after blocks around the middle, where the devices meet, and further up.
fn plan(engine: &Engine) -> Arc<Compiled> {
    let n_layer = engine.n_layer();
    let direction: Vec<f32> = (0..engine.d_model()).map(|i| 20.0 * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect();
    let rules = [n_layer / 4, n_layer / 2 - 1, n_layer / 2, n_layer / 2 + 1, 2 * n_layer / 3].map(|layer| {
        let rule = Rule::vector(direction.clone(), Strength::raw(1.0)).at_layer(layer);
        rule.select(Selector::default().from(1))
    });
    Arc::new(Plan::new(rules).compile(&[], &engine.target(), Route::Callback).unwrap())
}

/// The logits of the text, read twice, with what the hook did each time.
fn read(engine: &mut Engine, tokens: &[i32]) -> (Vec<f32>, [Ledger; 2]) {
    let mut all = Vec::new();
    let ledgers = [(); 2].map(|()| {
        all.clear();
        engine.score_each(tokens, 1, &mut |_, logits| all.extend_from_slice(logits)).unwrap();
        engine.finish()
    });
    (all, ledgers)
}

fn rows(ledger: &Ledger) -> [u64; 5] {
    [ledger.rows_seen, ledger.rows_edited, ledger.rows_not_needed, ledger.rows_refused, ledger.rows_restored]
}

#[test]
fn layers_on_a_gpu_are_steered_as_on_the_processor() {
    let Some(path) = support::model(support::SMOLLM) else { return };
    let _turn = support::turn();
    let mut cpu = open(&path, 0);
    let tokens = cpu.tokenize(TEXT, true).unwrap();
    let prompt = cpu.tokenize("I went to the market and bought", true).unwrap();
    let generate = Generate { max_tokens: 40, ignore_end: true, ..Generate::default() };
    let (plain, _) = read(&mut cpu, &tokens);
    let plan = plan(&cpu);
    cpu.set_plan(Some(plan.clone())).unwrap();
    let (steered, [_, on_cpu]) = read(&mut cpu, &tokens);
    let on_cpu = rows(&on_cpu.ok().unwrap());
    let written = cpu.generate_tokens(&prompt, &generate, &mut |_| true).unwrap();
    let wrote = rows(&cpu.finish().ok().unwrap());
    for layers in [cpu.n_layer() + 1, cpu.n_layer() / 2] {
        let mut gpu = open(&path, layers);
        if gpu.notes().iter().any(|note| note.contains("asked for on a GPU")) {
            eprintln!("SKIPPED: no GPU");
            return;
        }
        let noise = distance(&read(&mut gpu, &tokens).0, &plain);
        gpu.set_plan(Some(plan.clone())).unwrap();
        let (found, [first, second]) = read(&mut gpu, &tokens);
        // Where a point's rows have moved to another device, the first graph's are left, and that is said.
        assert_eq!(first.rows_seen, on_cpu[0]);
        assert_eq!(rows(&first) == on_cpu, first.faults.is_empty(), "{first:?}");
        assert_eq!(rows(&second.ok().unwrap()), on_cpu);
        let (error, effect) = (distance(&found, &steered), distance(&found, &plain));
        let most = TOLERANCE * noise + FLOOR;
        println!(
            "{layers} layers: logits {noise:.1e} off unsteered, {error:.1e} off steered, {effect:.1e} by the plan"
        );
        assert!(error <= most, "{error:.1e}, expected at most {most:.1e}");
        assert!(effect >= 3.0 * most, "the plan moves the logits by {effect:.1e} only");
        let again = gpu.generate_tokens(&prompt, &generate, &mut |_| true).unwrap();
        let same = alike(again.tokens(), written.tokens());
        println!("{layers} layers: {same} of {} tokens are the same", written.tokens().len());
        assert_eq!(rows(&gpu.finish().ok().unwrap()), wrote);
        same_choices(&mut cpu, &prompt, written.tokens(), again.tokens());
    }
}
