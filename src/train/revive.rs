//! AuxK: features that stopped firing learn to rebuild what the live ones leave over (arXiv 2406.04093, appendix A.2).
//!
//! A feature is dead after `dead_after` rows without a code. The dead ones score every row as the live ones do; the
//! `aux_k` best rebuild the error `e` of the reconstruction, `L_aux = w/B Σ ‖Σ_j z_j W_dec[j] − e‖²`, and so get a
//! gradient that points where features are missing. While none is dead this costs nothing.

use super::score::Panels;
use super::weights::State;

/// The dead features, as a small encoder of their own.
pub(super) struct Dead {
    /// Their numbers, ascending.
    pub(super) features: Vec<u32>,
    /// Their panels.
    pub(super) panels: Panels,
}

/// Features idle for `after` rows; `None` if there are none or `aux_k` asks for none.
pub(super) fn dead(state: &State, after: u64, aux_k: usize) -> Option<Dead> {
    let features: Vec<u32> = (0..state.n as u32).filter(|&f| state.idle[f as usize] >= after).collect();
    if features.is_empty() || aux_k == 0 {
        return None;
    }
    let mut panels = Panels::new(features.len(), state.d);
    let chosen = features.iter().map(|&f| f as usize);
    panels.fill(state.d, &state.encoder.values, &state.encoder_bias.values, chosen);
    Some(Dead { features, panels })
}

/// How many features are idle for `after` rows.
pub(super) fn count(state: &State, after: u64) -> usize {
    state.idle.iter().filter(|&&idle| idle >= after).count()
}
