//! Floor 3: training dictionaries (sparse autoencoders) on rows of the residual stream.
//!
//! A dictionary rebuilds a row `x` as `x̂ = b_dec + Σ_i f_i·W_dec[i]` from few codes `f_i`. [`fit`] finds the weights by
//! Adam on the mean squared error. What decides its speed is how little of the work is dense: per row only the encoder's
//! scores need all `n_features · d_model` products, everything after the selection of the `k` best touches `k` features.
//!
//! | step | cost per row | file |
//! |---|---|---|
//! | scores of all features, 16-bit integers | `n_features · d_model` products | `score.rs` |
//! | selection, fused with the scores | a compare a score | `variant/` |
//! | reconstruction, gradients of the codes | `3 · k · d_model` | `reconstruct.rs`, `variant/` |
//! | gradients of the weights, feature by feature | `2 · k · d_model` | `update.rs` |
//! | Adam, unit norm, repacking, in the same pass | `n_features · d_model / batch` | `update.rs`, `adam.rs` |
//!
//! Values come from the integers too: their rounding is about 1e-5 of ‖x‖·‖w‖ (`rounded.rs`); weights and Adam stay f32.
//! Work is cut into pieces of a fixed size and sums are taken in a fixed order: the result depends on the seed and on the
//! machine's instruction set, never on the number of threads, and a run resumed from a checkpoint ends bit for bit where
//! an uninterrupted one does.

mod adam;
mod batch;
mod checkpoint;
mod codes;
pub mod dense;
mod finish;
mod firings;
mod fit;
mod journal;
mod kernel;
pub mod learn;
mod many;
mod metrics;
mod options;
#[cfg(test)]
mod oracle;
pub mod probe;
mod reconstruct;
mod resample;
mod revive;
mod rounded;
mod rows;
mod schedule;
mod score;
mod sparsity;
mod start;
mod stream;
mod table;
pub mod temporal;
mod update;
mod variant;
pub mod vector;
mod weights;

pub use fit::{fit, fit_with};
pub use journal::Journal;
pub use many::fit_many;
pub use metrics::{HeldOut, Metrics};
pub use options::Options;
pub use rows::Rows;
pub use schedule::Decay;
pub use sparsity::Sparsity;
pub use stream::{Read, Stream, fit_stream};
pub use table::Table;
pub use variant::Variant;
