//! Gradients of the weights and Adam, feature by feature, in one pass.
//!
//! `∂L/∂W_dec[i] = Σ z_i·g` and `∂L/∂W_enc[i] = Σ ∂L/∂z_i·x` run over the rows in which feature `i` fired. The pairs
//! (row, feature) are therefore first sorted by feature; a feature's two gradients then stay in the first cache until Adam
//! has used them, and are never stored. Each feature belongs to one thread and meets its rows in their order.
//!
//! The decoder row is kept at norm 1: the part of its gradient along itself is removed, and the row rescaled after Adam.

use super::adam::{Rates, adam};
use super::kernel::{add, dot};
use super::parallel::each;
use super::reconstruct::Codes;
use super::rounded::{Rounded, round};
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

/// The firings of a batch, sorted by feature, then by row.
#[derive(Default)]
pub(super) struct Firings {
    offsets: Vec<usize>,
    firings: Vec<Firing>,
}

impl Firings {
    /// Sorts the codes.
    pub(super) fn sort(&mut self, n: usize, codes: &Codes) {
        self.offsets.clear();
        self.offsets.resize(n + 1, 0);
        for &f in &codes.features {
            self.offsets[f as usize + 1] += 1;
        }
        for f in 0..n {
            self.offsets[f + 1] += self.offsets[f];
        }
        self.firings.clear();
        self.firings.resize(codes.features.len(), Firing::default());
        // `offsets[f]` runs from the start of feature f to its end, which is the start of feature f + 1.
        for (r, at) in codes.offsets.windows(2).enumerate() {
            for j in at[0]..at[1] {
                let next = &mut self.offsets[codes.features[j] as usize];
                self.firings[*next] = Firing { row: r as u32, value: codes.values[j], slope: codes.slopes[j] };
                *next += 1;
            }
        }
        self.offsets.rotate_right(1);
        self.offsets[0] = 0;
    }

    fn of(&self, f: usize) -> &[Firing] {
        &self.firings[self.offsets[f]..self.offsets[f + 1]]
    }
}

/// What the gradients are made of: codes with the gradients of what they rebuilt.
pub(super) struct Source<'a> {
    /// `∂L/∂x̂ [batch, d]`.
    pub(super) gradients: &'a Rounded,
    /// The firings.
    pub(super) firings: &'a Firings,
}

/// Sixteen features: what one thread updates at a time.
struct Piece<'a> {
    first: usize,
    encoder: Rowset<'a>,
    decoder: Rowset<'a>,
    bias: Rowset<'a>,
    idle: &'a mut [u64],
    panel: Panel<'a>,
    rounded: (&'a mut [i16], &'a mut [f32]),
    /// `Σ_i ∂L/∂b_enc[i] · W_enc[i]`, the share of these features in the gradient of `b_dec`.
    shift: &'a mut [f32],
}

/// The forms of the weights that rows are multiplied with.
pub(super) struct Forms {
    /// The encoder.
    pub(super) panels: Panels,
    /// The decoder.
    pub(super) decoder: Rounded,
}

impl Forms {
    /// The forms of the weights in `state`.
    pub(super) fn of(state: &State) -> Self {
        let mut panels = Panels::new(state.n, state.d);
        panels.fill(state.d, &state.encoder.values, &state.encoder_bias.values, 0..state.n);
        let mut decoder = Rounded::new(state.n, state.d);
        for ((out, step), row) in decoder.chunks_mut(1).zip(state.decoder.values.chunks_exact(state.d)) {
            step[0] = round(row, out);
        }
        Self { panels, decoder }
    }
}

/// One step of Adam on all parameters; renews the forms and counts idle rows. The first source is the reconstruction of
/// `rows` (less `b_dec`, `[batch, d]`); the second, if any, that of its error by dead features.
pub(super) fn update(
    state: &mut State,
    forms: &mut Forms,
    rows: &Rounded,
    sources: &[Source<'_>],
    rates: &Rates,
    threads: usize,
) {
    let d = state.d;
    let mut shifts = vec![0f32; state.n.div_ceil(WIDE) * d];
    let mut pieces = Vec::with_capacity(state.n.div_ceil(WIDE));
    let matrices = state.encoder.chunks_mut(WIDE * d).zip(state.decoder.chunks_mut(WIDE * d));
    let vectors = state.encoder_bias.chunks_mut(WIDE).zip(state.idle.chunks_mut(WIDE));
    let rest = forms.panels.panels_mut().zip(forms.decoder.chunks_mut(WIDE)).zip(shifts.chunks_mut(d));
    for (i, (((encoder, decoder), (bias, idle)), ((panel, rounded), shift))) in
        matrices.zip(vectors).zip(rest).enumerate()
    {
        pieces.push(Piece { first: i * WIDE, encoder, decoder, bias, idle, panel, rounded, shift });
    }
    each(threads, pieces.into_iter(), |piece| piece.run(d, rows, sources, rates));

    // ∂L/∂b_dec = Σ_rows g − Σ_i ∂L/∂b_enc[i] · W_enc[i]; the reconstruction of an error has no bias.
    let mut gradient = vec![0f32; d];
    let gradients = sources[0].gradients;
    gradients.add(&mut gradient, gradients.steps.len(), |r| (1.0, r));
    shifts.chunks_exact(d).for_each(|shift| add(&mut gradient, -1.0, shift));
    let moments = &mut state.decoder_bias.moments;
    adam(rates, &mut state.decoder_bias.values, &gradient, &mut moments.first, &mut moments.second);
}

impl Piece<'_> {
    fn run(mut self, d: usize, rows: &Rounded, sources: &[Source<'_>], rates: &Rates) {
        let mut gradients = vec![0f32; 2 * d];
        let (up, down) = gradients.split_at_mut(d);
        let mut scratch = vec![0i16; d.next_multiple_of(2)];
        let batch = sources[0].gradients.steps.len() as u64;
        for lane in 0..self.idle.len() {
            let f = self.first + lane;
            self.idle[lane] = if sources[0].firings.of(f).is_empty() { self.idle[lane] + batch } else { 0 };
            up.fill(0.0);
            down.fill(0.0);
            let mut slope = 0f32;
            for source in sources {
                let firings = source.firings.of(f);
                source.gradients.add(down, firings.len(), |j| (firings[j].value, firings[j].row as usize));
                rows.add(up, firings.len(), |j| (firings[j].slope, firings[j].row as usize));
                slope += firings.iter().map(|firing| firing.slope).sum::<f32>();
            }

            let decoder = self.decoder.row(lane, d);
            add(down, -dot(down, decoder.values), decoder.values);
            adam(rates, decoder.values, down, decoder.first, decoder.second);
            unit(decoder.values);
            let width = scratch.len();
            self.rounded.1[lane] = round(decoder.values, &mut self.rounded.0[lane * width..(lane + 1) * width]);

            let encoder = self.encoder.row(lane, d);
            add(self.shift, slope, encoder.values);
            adam(rates, encoder.values, up, encoder.first, encoder.second);
            let bias = self.bias.row(lane, 1);
            adam(rates, bias.values, &[slope], bias.first, bias.second);
            self.panel.set(lane, encoder.values, bias.values[0], &mut scratch);
        }
    }
}
