//! Floor 3: what features mean, in words.
//!
//! A feature is explained by the words of a fixed [`Vocabulary`] that tell most about it, by mutual information (arXiv
//! 2502.15576). Three estimators:
//!
//! | estimator | what it does | needs | where |
//! |---|---|---|---|
//! | `data` (default) | counts feature and word over windows of harvested text | text, any layer | [`harvested::data`], [`counted`] |
//! | `lens` | reads the decoder direction through the unembedding; the paper's own | the model | [`harvested::lens`], [`lens`] |
//! | `tuned` | the lens behind a ridge map to the final residual | rows of two layers | [`harvested::tuned_map`], [`tuned`] |
//!
//! The default is `data`: on a 135M model's middle layers the lens' words were noise, and steering by them moved nothing.
//! [`harvested`] runs them on shards. [`Explanations`] hold the words of every feature, live in a JSONL file, and are searched by the words of a concept
//! ([`Explanations::find`]). A direction that is no feature is read as a few features ([`pursuit`]) or as words ([`pointed`]).
//! [`baselines`], [`quality`] and [`detect`] stand beside them for comparison.

pub mod baselines;
mod best;
pub mod counted;
pub mod detect;
mod explanations;
mod find;
pub mod harvested;

mod labels;
pub mod lens;
pub mod neuronpedia;
pub mod pointed;
pub mod pursuit;
pub mod quality;
pub mod tuned;
pub mod vocabulary;
pub mod windows;

pub use explanations::{Estimator, Explanation, Explanations, Header};
pub use find::{Find, Match, is_stop_word, query_words};
pub use vocabulary::Vocabulary;

/// Words kept per feature.
pub const TOP_WORDS: usize = 50;
/// Words of a feature that are shown.
pub const SHOWN_WORDS: usize = 15;
