//! How much of what the model does is left with the reconstruction in place of the residual stream.
//!
//! ```text
//! CE recovered = (CE_ablated − CE_reconstructed) / (CE_ablated − CE)
//! KL recovered = (KL_ablated − KL_reconstructed) / KL_ablated            KL(model ‖ patched model), nats a token
//! ```
//!
//! Ablated: every row is replaced by zero, or by the mean row. Attention sinks stay as they are throughout.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dictionary::Dictionary;
use crate::engine::Engine;
use crate::error::Result;
use crate::eval::divergence::{kl, log_softmax};
use crate::eval::self_test::{Stand, replace};
use crate::eval::sinks::Sinks;
use crate::hook_point::HookPoint;

/// Log-probabilities that are held at once, in floats (128 MB).
const HELD: usize = 32 << 20;

/// What the model does with one thing in place of the residual stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Patched {
    /// Cross-entropy in nats a token.
    pub cross_entropy: f64,
    /// KL(model ‖ patched model), in nats a token.
    pub kl: f64,
}

/// What is left of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    /// Tokens that were scored.
    pub n_tokens: usize,
    /// Cross-entropy of the model as it is, in nats a token.
    pub cross_entropy: f64,
    /// With the reconstruction.
    pub reconstructed: Patched,
    /// With zero.
    pub zero: Patched,
    /// With the mean row.
    pub mean: Patched,
}

impl Recovered {
    /// CE recovered, against zero.
    pub fn ce_zero(&self) -> f64 {
        (self.zero.cross_entropy - self.reconstructed.cross_entropy) / (self.zero.cross_entropy - self.cross_entropy)
    }

    /// CE recovered, against the mean row.
    pub fn ce_mean(&self) -> f64 {
        (self.mean.cross_entropy - self.reconstructed.cross_entropy) / (self.mean.cross_entropy - self.cross_entropy)
    }

    /// KL recovered, against zero.
    pub fn kl_zero(&self) -> f64 {
        (self.zero.kl - self.reconstructed.kl) / self.zero.kl
    }

    /// KL recovered, against the mean row.
    pub fn kl_mean(&self) -> f64 {
        (self.mean.kl - self.reconstructed.kl) / self.mean.kl
    }
}

/// Runs the model over `windows`, at most `tokens` of them, as it is and with each of the three in place of the rows at
/// `point`. `mean` is the mean row; `tell` is told how many tokens were read. The patch is taken off only where all went
/// well: the caller does that.
///
/// # Errors
/// What the engine and `tell` return.
pub(super) fn recovered(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    point: HookPoint,
    windows: &[Vec<i32>],
    (sinks, mean): (Arc<Sinks>, Vec<f32>),
    tokens: usize,
    tell: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Recovered> {
    let threads = engine.options().threads;
    let longest = (HELD / engine.n_vocab().max(1)).max(2);
    let stands = [Stand::Reconstruction, Stand::Row(vec![0.0; mean.len()]), Stand::Row(mean)];
    let (mut left, mut n, mut clean, mut sums) = (tokens, 0, 0.0, [[0f64; 2]; 3]);
    for window in windows.iter().flat_map(|window| window.chunks(longest)).filter(|window| window.len() > 1) {
        if left < 2 {
            break;
        }
        let window = window.get(..window.len().min(left)).unwrap_or(window);
        left -= window.len();
        let mut logs = Vec::with_capacity(window.len());
        engine.hook_mut().patch(point, None)?;
        let score = engine.score_each(window, 1, &mut |_, logits| logs.push(log_softmax(logits)))?;
        (n, clean) = (n + score.n_tokens, clean + score.nll);
        tell(window.len())?;
        for (stand, [nll, divergence]) in stands.iter().zip(&mut sums) {
            let patch = replace(dictionary.clone(), sinks.clone(), threads, stand.clone());
            engine.hook_mut().patch(point, Some(patch))?;
            let mut before = logs.iter();
            let score = engine.score_each(window, 1, &mut |_, logits| {
                *divergence += before.next().map_or(0.0, |before| f64::from(kl(before, &log_softmax(logits))));
            })?;
            engine.finish().ok()?;
            *nll += score.nll;
            tell(window.len())?;
        }
    }
    let of = |[nll, divergence]: [f64; 2]| {
        let n = n.max(1) as f64;
        Patched { cross_entropy: nll / n, kl: divergence / n }
    };
    let [reconstructed, zero, mean] = sums.map(of);
    Ok(Recovered { n_tokens: n, cross_entropy: clean / n.max(1) as f64, reconstructed, zero, mean })
}
