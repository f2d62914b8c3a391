//! Coders whose codes are dense: ConCA and SSAE.
//!
//! A sparse autoencoder forces most codes to be exactly zero. A coder here keeps all of them: `z = R(W_enc·x + b_enc)`,
//! `x̂ = z·W_dec + b_dec`, where R is a normalisation, not a rectifier; row `i` of `W_dec` is the direction of code `i`.
//!
//! **ConCA** (arXiv 2601.20420) reads codes as log-posteriors of concepts: a residual row is about a linear mixture of
//! `log p(z_i | x)`, and the coder unmixes it. Log-posteriors are at most about 0, where the concept is certain, so what
//! should be sparse is not the code but its exponential. The loss is
//!
//! `E‖x̂ − x‖² + α·E Σ_i |g(z_i)|`, α = 1e-4, g ∈ {SoftPlus, SELU, ELU} (an exponential below zero, a line above it),
//!
//! with R one of LayerNorm, GroupNorm, BatchNorm, Dropout: twelve variants. Best in the paper: LayerNorm and SoftPlus, the
//! default here. For SELU and ELU the norm is taken as the paper writes it, of a g that is negative below zero: it draws
//! such codes towards 0, not down.
//!
//! **SSAE** (the baseline of arXiv 2512.15134) is trained on differences Δ of rows of sentence pairs:
//! `z = LN(W_enc·(LN(Δ) − b_dec) + b_enc)`, `Δ̂ = z·W_dec + b_dec` with decoder rows of norm 1; it minimises the error
//! subject to `mean|z| ≤ level` by dual ascent on the multiplier.
//!
//! What the papers leave open, decided here: R has a trained gain and shift per latent (PyTorch's default; a LayerNorm
//! without them cannot meet SSAE's level); rows are centred and scaled to mean squared norm `d_model` before training, and
//! the trained weights are folded back to the units of the rows; rows further than three median distances from the middle
//! (attention sinks) are drawn in; the start is a tied pair with `z·W_dec ≈ x`.
//!
//! Cost: `6·n_latents·d_model` products a row and step, all of it matrix products in f32. Memory: parameters, their two
//! moments and gradients, and three matrices `[512, n_latents]`; BatchNorm needs its whole batch, `[batch, n_latents]`.
//! Nothing depends on the number of threads, and a run resumed from a checkpoint ends bit for bit as if it had never
//! stopped.

mod checkpoint;
mod coder;
mod coder_file;
mod fit;
mod frame;
mod network;
mod normalizer;
mod options;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

pub use coder::Coder;
pub use fit::{fit, fit_with};
pub use options::{Metrics, Objective, Options, Regularizer, Sparsity};
