//! Floor 10: the C ABI. Thin: check, convert, call, convert. No logic lives here.
//!
//! One file is one section of `include/tiller.h`, which `tests/header.rs` makes from these sources. The rules that all
//! sections share stand at the top of that header; [`guard`] is the only panic wall.
#![allow(non_camel_case_types)]
// cbindgen exports what is `pub`, and C sees these items although no Rust path leads to them.
#![allow(unreachable_pub)]

mod activations;
#[cfg(feature = "engine")]
mod adopt;
mod arguments;
mod coder;
mod codes;
mod control_vector;
mod diagnosis;
mod dictionary;
mod encode;
#[cfg(feature = "engine")]
mod engine;
#[cfg(feature = "engine")]
mod engine_evaluate;
#[cfg(feature = "engine")]
mod engine_generate;
#[cfg(feature = "engine")]
mod engine_guard;
#[cfg(feature = "engine")]
mod engine_harvest;
#[cfg(feature = "engine")]
mod engine_learn;
#[cfg(feature = "engine")]
mod engine_measure;
#[cfg(feature = "engine")]
mod engine_train;
#[cfg(feature = "engine")]
mod engine_trial;
mod error;
mod explain;
mod explanations;
mod ggml;
mod gguf;
mod guard;
mod hook;
mod ledger;
mod model;
mod mpc;
mod plan;
mod probe;
mod progress;
mod quality;
mod temporal;
mod text;
mod train;
mod vector;
mod watched;
