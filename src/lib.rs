//! tiller steers what a quantized language model says, from inside the llama.cpp process that an app already has, by
//! features that people can read.
//!
//! The house has floors; a file imports only from the floors below it.
//!
//! | floor | modules |
//! |---|---|
//! | 0 | [`error`], [`progress`], [`num`] |
//! | 1 | [`file`], [`hook_point`] |
//! | 2 | [`model`], [`dictionary`], [`activations`] |
//! | 3 | [`explain`], [`train`] |
//! | 4 | [`plan`] |
//! | 5 | [`hook`] |
//! | 6 | [`engine`] (feature `engine`) |
//! | 7 | [`eval`] |
//! | 8 | [`choose`] (with the engine) |
//! | 9 | [`adopt`] (with the engine), [`guard`] |
//! | 10 | `capi` and the command `tiller` |

pub mod activations;
#[cfg(feature = "engine")]
pub mod adopt;
mod capi;
#[cfg(feature = "engine")]
pub mod choose;
pub mod dictionary;
#[cfg(feature = "engine")]
pub mod engine;
pub mod error;
pub mod eval;
pub mod explain;
pub mod file;
pub mod guard;
pub mod hook;
pub mod hook_point;
pub mod model;
pub mod num;
pub mod plan;
pub mod progress;
pub mod train;

pub use error::{Error, Kind, Result};

/// The Rust of the pages, which `cargo test --doc` compiles.
#[cfg(all(doctest, feature = "engine"))]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../examples/embedding.md")]
    struct Embedding;
}
