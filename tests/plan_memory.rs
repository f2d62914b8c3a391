//! The hot path allocates nothing after its first call: it runs inside another program's inference loop.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use tiller::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use tiller::plan::{Gate, Op, Plan, Route, Row, Rule, Scratch, Strength, Target, Unit};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes on to `System` unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` with this layout, as all of this allocator's memory does.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn dictionary() -> Arc<Dictionary> {
    let (n, d_model) = (16, 64);
    let wave = |step: f32| (0..n * d_model).map(|i| (i as f32 * step).sin()).collect();
    let parts = Parts {
        d_model,
        encoder: wave(0.37),
        decoder: wave(0.71),
        encoder_bias: vec![0.1; n],
        decoder_bias: vec![0.2; d_model],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings::new(Activation::Relu),
        info: Info { layer: Some(2), ..Info::default() },
    };
    Arc::new(Dictionary::from_parts(parts).unwrap())
}

#[test]
fn nothing_is_allocated_after_the_first_call() {
    let gate = || Gate::new([1, 2], 0.5);
    let mut rules = Vec::new();
    for &op in Op::ALL {
        for unit in [Unit::Raw, Unit::Norm] {
            if unit == Unit::Norm && matches!(op, Op::Scale | Op::Amplify | Op::Ablate) {
                continue;
            }
            let strength = (op != Op::Ablate).then_some(Strength::new(0.3, unit));
            let mut rule = Rule::new(op, [3u32, 5, 9], strength);
            rule.norm_preserve = unit == Unit::Norm;
            rule.gate = (op == Op::Clamp).then(gate);
            if op == Op::MinClamp {
                rule.gate = Some(gate().over_sequence());
            }
            rules.push(rule);
        }
    }
    let compiled = Plan::new(rules).compile(&[("d", dictionary())], &Target::new(4, 64), Route::Callback).unwrap();
    let ops = &compiled.points[&2.into()];
    let mut x: Vec<f32> = (0..100 * 64).map(|i| (i as f32 * 0.13).cos()).collect();
    let mut scratch = Scratch::new();
    let meta =
        |from: i32, n: i32| -> Vec<Row> { (from..from + n).map(|position| Row::new(position, position % 3)).collect() };
    let (prefill, decode) = (meta(0, 100), meta(100, 1));
    assert!(ops.apply(&mut x, &prefill, &mut scratch).edited > 50);
    let before = COUNT.get();
    let again = ops.apply(&mut x, &prefill, &mut scratch);
    let one = ops.apply(&mut x[..64], &decode, &mut scratch);
    assert_eq!(COUNT.get() - before, 0, "allocations");
    assert_eq!((again.edited + again.skipped, one.edited), (100, 1));
    assert!(scratch.take_fault().is_none());
}
