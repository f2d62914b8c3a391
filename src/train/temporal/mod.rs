//! Which concept drives which, now and later: the temporal-instantaneous model (arXiv 2509.23323).
//!
//! Rows of text in their order, `x_t = A z_t`, are few latents that cause each other:
//!
//! > z_t = Σ_τ B_τ z_{t−τ} + M z_t + ε_t
//!
//! M is strictly lower triangular once the latents stand in causal order, the ε are independent and Laplace. The latents
//! are those of the rows themselves, or features of any dictionary (then z is given, and A its decoder directions).
//!
//! | file | owns |
//! |---|---|
//! | `sequences.rs` | rows or codes in text order, windows inside one document |
//! | `frame.rs` | standardised or whitened coordinates, chunk by chunk |
//! | `moments.rs` | lagged covariances, block Yule–Walker: Φ_τ |
//! | `ica.rs` | unmixing of residuals |
//! | `order.rs` | a causal order from weights |
//! | `sparse.rs` | M of rows: what makes B sparsest |
//! | `prune.rs` | B and M given the order: estimates, tests, a refit of what is left |
//! | `two_stage.rs` | VAR, then LiNGAM on its residuals: no iteration over all rows but that of ICA |
//! | `joint.rs` | Adam on the whole objective, with exact zeros by proximal steps |
//! | `joint_state.rs`, `joint_batch.rs` | its parameters and checkpoint; loss and gradients of a batch |
//! | `model.rs` | the result, its file, impulse responses Ψ_k |
//! | `forecast.rs` | variance explained on held-out text, beside shuffled time |
//! | `generate.rs`, `recovery.rs` | the synthetic process and what of it was found again |
//!
//! What decides the cost: covariances cost `(lags + 1)(lags + 2) / 2 · n²` products a row, ICA `4 n²` a row and step on at most
//! `ica_rows` rows, the rest is `n³`, none of it `n⁴` as LiNGAM by repeated regression is.

mod forecast;
mod frame;
mod generate;
mod ica;
mod joint;
mod joint_batch;
mod joint_state;
mod model;
mod moments;
mod order;
mod prune;
mod recovery;
mod sequences;
mod sparse;
mod two_stage;

pub use forecast::{Forecast, forecast};
pub use generate::{Process, Shape};
pub use joint::{JointOptions, joint};
pub use model::{Mixing, Origin, Relation, Temporal};
pub use recovery::{Recovery, recovery};
pub use sequences::Sequences;
pub use two_stage::{TwoStageOptions, two_stage};
