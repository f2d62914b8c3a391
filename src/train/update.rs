//! Gradients of the weights and Adam, feature by feature, in one pass.
//!
//! `∂L/∂W_dec[i] = Σ z_i·g` and `∂L/∂W_enc[i] = Σ ∂L/∂z_i·x` run over the rows in which feature `i` fired. The pairs
//! (row, feature) are therefore first sorted by feature; a feature's two gradients then stay in the first cache until Adam
//! has used them, and are never stored. Each feature belongs to one thread and meets its rows in their order.
//!
//! The decoder row is kept at norm 1: the part of its gradient along itself is removed, and the row rescaled after Adam.

use super::adam::{Rates, adam};
use super::kernel::{add, add_rows, dot};
use super::parallel::each;
use super::reconstruct::Codes;
use super::score::{Panel, Panels, WIDE};
use super::start::unit;
use super::weights::{Rowset, State};

/// A firing of a feature.
#[derive(Clone, Copy, Default)]
struct Firing {
    row: u32,
    value: f32,
    slope: f32,
}

/// The firings of a batch, sorted by feature, then by code list, then by row.
#[derive(Default)]
pub(super) struct Firings {
    offsets: Vec<usize>,
    firings: Vec<Firing>,
}

impl Firings {
    /// Sorts the positive codes; row `r` of list `l` becomes row `l · batch + r`.
    pub(super) fn sort(&mut self, n: usize, batch: usize, lists: &[&Codes]) {
        self.offsets.clear();
        self.offsets.resize(n + 1, 0);
        let positive = |codes: &Codes, j: usize| codes.values[j] > 0.0;
        for codes in lists {
            for (j, &f) in codes.features.iter().enumerate() {
                self.offsets[f as usize + 1] += usize::from(positive(codes, j));
            }
        }
        for f in 0..n {
            self.offsets[f + 1] += self.offsets[f];
        }
        self.firings.clear();
        self.firings.resize(self.offsets[n], Firing::default());
        // `offsets[f]` runs from the start of feature f to its end, which is the start of feature f + 1.
        for (l, codes) in lists.iter().enumerate() {
            for (r, at) in codes.offsets.windows(2).enumerate() {
                for j in at[0]..at[1] {
                    if positive(codes, j) {
                        let next = &mut self.offsets[codes.features[j] as usize];
                        let row = (l * batch + r) as u32;
                        self.firings[*next] = Firing { row, value: codes.values[j], slope: codes.slopes[j] };
                        *next += 1;
                    }
                }
            }
        }
        self.offsets.rotate_right(1);
        self.offsets[0] = 0;
    }

    fn of(&self, f: usize) -> &[Firing] {
        &self.firings[self.offsets[f]..self.offsets[f + 1]]
    }
}

/// What the gradients are made of.
pub(super) struct Sources<'a> {
    /// Rows less `b_dec`, `[batch, d]`.
    pub(super) rows: &'a [f32],
    /// `∂L/∂x̂` of every list of codes, `[lists · batch, d]`.
    pub(super) gradients: &'a [f32],
    /// The firings.
    pub(super) firings: &'a Firings,
    /// Rows in the batch.
    pub(super) batch: usize,
}

/// Sixteen features: what one thread updates at a time.
struct Piece<'a> {
    first: usize,
    encoder: Rowset<'a>,
    decoder: Rowset<'a>,
    bias: Rowset<'a>,
    idle: &'a mut [u64],
    panel: Panel<'a>,
    /// `Σ_i ∂L/∂b_enc[i] · W_enc[i]`, the share of these features in the gradient of `b_dec`.
    shift: &'a mut [f32],
}

/// One step of Adam on all parameters; refills the panels and counts idle rows.
pub(super) fn update(state: &mut State, panels: &mut Panels, sources: &Sources<'_>, rates: &Rates, threads: usize) {
    let d = state.d;
    let mut shifts = vec![0f32; state.n.div_ceil(WIDE) * d];
    let mut pieces = Vec::with_capacity(state.n.div_ceil(WIDE));
    let matrices = state.encoder.chunks_mut(WIDE * d).zip(state.decoder.chunks_mut(WIDE * d));
    let vectors = state.encoder_bias.chunks_mut(WIDE).zip(state.idle.chunks_mut(WIDE));
    let rest = panels.panels_mut().zip(shifts.chunks_mut(d));
    for (i, (((encoder, decoder), (bias, idle)), (panel, shift))) in matrices.zip(vectors).zip(rest).enumerate() {
        pieces.push(Piece { first: i * WIDE, encoder, decoder, bias, idle, panel, shift });
    }
    each(threads, pieces.into_iter(), |piece| piece.run(d, sources, rates));

    // ∂L/∂b_dec = Σ_rows g − Σ_i ∂L/∂b_enc[i] · W_enc[i]; the second list of codes rebuilds an error, without a bias.
    let mut gradient = vec![0f32; d];
    sources.gradients[..sources.batch * d].chunks_exact(d).for_each(|g| add(&mut gradient, 1.0, g));
    shifts.chunks_exact(d).for_each(|shift| add(&mut gradient, -1.0, shift));
    let moments = &mut state.decoder_bias.moments;
    adam(rates, &mut state.decoder_bias.values, &gradient, &mut moments.first, &mut moments.second);
}

impl Piece<'_> {
    fn run(mut self, d: usize, sources: &Sources<'_>, rates: &Rates) {
        let mut gradients = vec![0f32; 2 * d];
        let (up, down) = gradients.split_at_mut(d);
        let mut scratch = vec![0i16; d.next_multiple_of(2)];
        for lane in 0..self.idle.len() {
            let firings = sources.firings.of(self.first + lane);
            let fired = firings.iter().any(|firing| (firing.row as usize) < sources.batch);
            self.idle[lane] = if fired { 0 } else { self.idle[lane] + sources.batch as u64 };
            up.fill(0.0);
            down.fill(0.0);
            let row = |j: usize| firings[j].row as usize;
            add_rows(down, firings.len(), |j| (firings[j].value, row(j)), sources.gradients);
            add_rows(up, firings.len(), |j| (firings[j].slope, row(j) % sources.batch), sources.rows);
            let slope: f32 = firings.iter().map(|firing| firing.slope).sum();

            let decoder = self.decoder.row(lane, d);
            add(down, -dot(down, decoder.values), decoder.values);
            adam(rates, decoder.values, down, decoder.first, decoder.second);
            unit(decoder.values);

            let encoder = self.encoder.row(lane, d);
            add(self.shift, slope, encoder.values);
            adam(rates, encoder.values, up, encoder.first, encoder.second);
            let bias = self.bias.row(lane, 1);
            adam(rates, bias.values, &[slope], bias.first, bias.second);
            self.panel.set(lane, encoder.values, bias.values[0], &mut scratch);
        }
    }
}
