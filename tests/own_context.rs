//! A program with a context of its own, made through the crate that the engine is built on: the public table and callback.
#![cfg(feature = "engine")]

mod support;

use std::sync::Arc;

use ggml_sys as sys;
use support::agree;
use support::raw::{Model, Value};
use tiller::engine::{eval, host};
use tiller::hook::Hook;
use tiller::plan::{Plan, Route, Rule, Strength, Target};

const LAYER: usize = 1;
const VOCABULARY: usize = 96;

fn model() -> Model {
    let keys = [
        ("context_length", Value::Count(64)),
        ("embedding_length", Value::Count(32)),
        ("block_count", Value::Count(3)),
        ("feed_forward_length", Value::Count(48)),
        ("vocab_size", Value::Count(VOCABULARY as u32)),
        ("attention.head_count", Value::Count(4)),
        ("attention.layer_norm_rms_epsilon", Value::Real(1e-5)),
        ("rope.dimension_count", Value::Count(8)),
    ];
    Model::new("llama", &keys).expect("a tiny model")
}

/// The logits after a few tokens, with `hook` on the graph; or with a control vector for each block from 1 on.
fn logits(model: &Model, hook: Option<&mut Hook>, vector: Option<&[f32]>) -> Vec<f32> {
    // SAFETY: takes nothing.
    let mut params = unsafe { sys::llama_context_default_params() };
    (params.n_ctx, params.n_threads, params.n_threads_batch) = (64, 1, 1);
    if let Some(hook) = hook {
        params.cb_eval = Some(eval);
        params.cb_eval_user_data = std::ptr::from_mut(hook).cast();
    }
    // SAFETY: the model is alive, and the hook outlives the context, which ends with this function.
    let context = unsafe { sys::llama_init_from_model(model.pointer(), params) };
    assert!(!context.is_null());
    if let Some(v) = vector {
        let (width, last) = (model.n_embd() as i32, model.n_layer() as i32);
        // SAFETY: the context is alive; the numbers are copied.
        assert_eq!(unsafe { sys::llama_set_adapter_cvec(context, v.as_ptr(), v.len(), width, 1, last) }, 0);
    }
    let mut tokens = [3, 14, 15, 92, 65];
    // SAFETY: the tokens outlive the batch.
    let batch = unsafe { sys::llama_batch_get_one(tokens.as_mut_ptr(), tokens.len() as i32) };
    // SAFETY: the context is alive.
    assert_eq!(unsafe { sys::llama_decode(context, batch) }, 0);
    // SAFETY: as above.
    let logits = unsafe { sys::llama_get_logits_ith(context, -1) };
    // SAFETY: a row of the vocabulary's length, until the context is used again.
    let logits = unsafe { std::slice::from_raw_parts(logits, VOCABULARY) }.to_vec();
    // SAFETY: made above, freed once.
    unsafe { sys::llama_free(context) };
    logits
}

/// llama.cpp's own control vector says what the logits have to be.
#[test]
fn a_context_of_ones_own_is_steered_through_the_public_table() {
    let model = model();
    let direction: Vec<f32> = (0..model.n_embd()).map(|i| 2.0 * ((i * 7 % 11) as f32 / 5.0 - 1.0)).collect();
    let mut vector = vec![0.0; (model.n_layer() - 1) * model.n_embd()];
    vector[(LAYER - 1) * model.n_embd()..][..model.n_embd()].copy_from_slice(&direction);

    let target = Target::new(model.n_layer(), model.n_embd()).with_architecture("llama");
    let rule = Rule::vector(direction, Strength::raw(1.0)).at_layer(LAYER);
    let plan = Plan::new([rule]).compile(&[], &target, Route::Callback).unwrap();
    let mut hook = Hook::new(host());
    hook.set_plan(Some(Arc::new(plan))).unwrap();

    let steered = logits(&model, Some(&mut hook), None);
    let ledger = hook.finish().ok().unwrap();
    assert_eq!((ledger.rows_edited, ledger.rows_refused), (5, 0));
    let (want, plain) = (logits(&model, None, Some(&vector)), logits(&model, None, None));
    let (off, moved) = (agree::distance(&steered, &want), agree::distance(&plain, &want));
    println!("{off:.1e} from the control vector's logits, which are {moved:.2} from the unsteered");
    // The weights are f32, the cache f16: a last bit that falls otherwise may move a key or a value by 5e-4.
    assert!(off < 0.01, "{off}");
    assert!(moved > 0.1, "the direction moves the logits by {moved} only");
}
