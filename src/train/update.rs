//! Gradients of the weights and Adam, feature by feature, in one pass.
//!
//! `∂L/∂W_dec[i] = Σ f_i·g` and `∂L/∂W_enc[i] = Σ ∂L/∂u_i·x` run over the rows in which feature `i` fired. The pairs
//! (row, feature) are therefore first sorted by feature; a feature's two gradients then stay in the first cache until Adam
//! has used them, and are never stored. Each feature belongs to one thread and meets its rows in their order.
//!
//! The decoder row is kept at norm 1: the part of its gradient along itself is removed, and the row rescaled after Adam.
//! Cutting the norm of all gradients together needs that norm before the first of them is used, so they are then computed
//! twice.

use super::adam::{Rates, adam};
use super::firings::Source;
use super::kernel::{add, dot};
use super::options::Options;
use super::rounded::{Rounded, round};
use super::score::{Panel, Panels, WIDE};
use super::start::unit;
use super::variant::offset;
use super::weights::{Rowset, State};
use crate::num::parallel::each;

/// What an update needs beside the gradients.
pub(super) struct Shape<'a> {
    /// The settings of the run.
    pub(super) options: &'a Options,
    /// Adam's.
    pub(super) rates: Rates,
    /// The factor on `Σ f_i · W_dec[i]/‖W_dec[i]‖` in the gradient of a free decoder.
    pub(super) shrink: f32,
}

/// Sixteen features: what one thread updates at a time.
struct Piece<'a> {
    first: usize,
    encoder: Rowset<'a>,
    decoder: Rowset<'a>,
    bias: Rowset<'a>,
    extras: Vec<Rowset<'a>>,
    idle: &'a mut [u64],
    panel: Panel<'a>,
    rounded: (&'a mut [i16], &'a mut [f32]),
    norms: &'a mut [f32],
    /// `Σ_i ∂L/∂u_i · W_enc[i]`, the share of these features in the gradient of `b_dec`.
    shift: &'a mut [f32],
}

/// The forms of the weights that rows are multiplied with.
pub(super) struct Forms {
    /// The encoder.
    pub(super) panels: Panels,
    /// The decoder.
    pub(super) decoder: Rounded,
    /// The norms of the decoder's rows, if they are free.
    pub(super) norms: Vec<f32>,
}

impl Forms {
    /// The forms of the weights in `state`.
    pub(super) fn of(state: &State, options: &Options) -> Self {
        let mut panels = Panels::new(state.n, state.d);
        let extras = |f: usize| state.extras.iter().map(|extra| extra.values[f]).collect::<Vec<_>>();
        let bias = |f: usize| offset(options, state.encoder_bias.values[f], &extras(f));
        let biases: Vec<f32> = (0..state.n).map(bias).collect();
        panels.fill(state.d, &state.encoder.values, &biases, 0..state.n);
        let mut decoder = Rounded::new(state.n, state.d);
        let rows = state.decoder.values.chunks_exact(state.d);
        for ((out, step), row) in decoder.chunks_mut(1).zip(rows.clone()) {
            step[0] = round(row, out);
        }
        let norms = if options.unit_decoder { Vec::new() } else { rows.map(|row| dot(row, row).sqrt()).collect() };
        Self { panels, decoder, norms }
    }
}

/// One step of Adam on all parameters; renews the forms and counts idle rows. The first source is the reconstruction of
/// `rows` (`[batch, d]`, as the encoder sees them); the second, if any, that of its error by dead features.
pub(super) fn update(state: &mut State, forms: &mut Forms, rows: &Rounded, sources: &[Source<'_>], shape: &Shape<'_>) {
    let (d, threads) = (state.d, shape.options.threads);
    let n_pieces = state.n.div_ceil(WIDE);
    let mut shifts = vec![0f32; n_pieces * d];
    let ctx = Context { d, rows, sources, shape };
    let cut = if shape.options.clip > 0.0 { ctx.cut(state, &mut shifts) } else { 1.0 };

    let mut pieces = Vec::with_capacity(n_pieces);
    let matrices = state.encoder.chunks_mut(WIDE * d).zip(state.decoder.chunks_mut(WIDE * d));
    let vectors = state.encoder_bias.chunks_mut(WIDE).zip(state.idle.chunks_mut(WIDE));
    let mut extras: Vec<_> = state.extras.iter_mut().map(|extra| extra.chunks_mut(WIDE)).collect();
    let mut norms = forms.norms.chunks_mut(WIDE);
    let rest = forms.panels.panels_mut().zip(forms.decoder.chunks_mut(WIDE)).zip(shifts.chunks_mut(d));
    for (i, (((encoder, decoder), (bias, idle)), ((panel, rounded), shift))) in
        matrices.zip(vectors).zip(rest).enumerate()
    {
        let extras = extras.iter_mut().filter_map(Iterator::next).collect();
        let norms = norms.next().unwrap_or_default();
        pieces.push(Piece { first: i * WIDE, encoder, decoder, bias, extras, idle, panel, rounded, norms, shift });
    }
    each(threads, pieces.into_iter(), |piece| piece.run(&ctx, cut));

    let mut gradient = ctx.decoder_bias(&shifts);
    gradient.iter_mut().for_each(|g| *g *= cut);
    let moments = &mut state.decoder_bias.moments;
    adam(&shape.rates, &mut state.decoder_bias.values, &gradient, &mut moments.first, &mut moments.second);
}

/// The gradients of one feature.
struct Gradient {
    encoder: Vec<f32>,
    decoder: Vec<f32>,
    /// By `u`, summed over the rows: what reaches `b_dec` through the encoder.
    slope: f32,
    /// By `b_enc` and the extras.
    sides: [f32; 3],
}

/// What gradients are made of.
struct Context<'a> {
    d: usize,
    rows: &'a Rounded,
    sources: &'a [Source<'a>],
    shape: &'a Shape<'a>,
}

impl Context<'_> {
    fn room(&self) -> Gradient {
        Gradient { encoder: vec![0.0; self.d], decoder: vec![0.0; self.d], slope: 0.0, sides: [0.0; 3] }
    }

    /// Fills `out` with the gradients of feature `f`, whose decoder row is `decoder`.
    fn gradient(&self, f: usize, decoder: &[f32], out: &mut Gradient) {
        out.encoder.fill(0.0);
        out.decoder.fill(0.0);
        (out.slope, out.sides) = (0.0, [0.0; 3]);
        for source in self.sources {
            let firings = source.firings.of(f);
            let pulls = source.gradients_of(f);
            pulls.add(&mut out.decoder, firings.len(), |j| (firings[j].value, firings[j].row as usize));
            self.rows.add(&mut out.encoder, firings.len(), |j| (firings[j].slope, firings[j].row as usize));
            let slope = firings.iter().map(|firing| firing.slope).sum::<f32>();
            out.slope += slope;
            match source.firings.sides_of(f) {
                [] => out.sides[0] += slope,
                sides => sides.iter().for_each(|side| (0..3).for_each(|i| out.sides[i] += side[i])),
            }
        }
        if self.shape.options.unit_decoder {
            let along = dot(&out.decoder, decoder);
            add(&mut out.decoder, -along, decoder);
        } else if self.shape.shrink > 0.0 {
            let sum = self.sources[0].firings.of(f).iter().map(|firing| firing.value).sum::<f32>();
            let norm = dot(decoder, decoder).sqrt();
            if norm > 0.0 {
                add(&mut out.decoder, self.shape.shrink * sum / norm, decoder);
            }
        }
    }

    /// `∂L/∂b_dec = Σ_rows g − Σ_i ∂L/∂u_i · W_enc[i]`, the second part where `b_dec` is subtracted from rows; the
    /// reconstruction of an error has no bias.
    fn decoder_bias(&self, shifts: &[f32]) -> Vec<f32> {
        let mut gradient = vec![0f32; self.d];
        let Some(gradients) = self.sources[0].gradients.first() else { return gradient };
        gradients.add(&mut gradient, gradients.steps.len(), |r| (1.0, r));
        if self.shape.options.subtract_bias {
            shifts.chunks_exact(self.d).for_each(|shift| add(&mut gradient, -1.0, shift));
        }
        gradient
    }

    /// The factor that cuts the norm of all gradients to `clip`.
    fn cut(&self, state: &State, shifts: &mut [f32]) -> f32 {
        let d = self.d;
        let mut squares = vec![0f64; shifts.len() / d];
        let size = WIDE * d;
        let weights = state.decoder.values.chunks(size).zip(state.encoder.values.chunks(size));
        let pieces = squares.iter_mut().zip(shifts.chunks_mut(d)).zip(weights).enumerate();
        each(self.shape.options.threads, pieces, |(i, ((square, shift), (decoder, encoder)))| {
            let mut gradient = self.room();
            let rows = decoder.chunks_exact(d).zip(encoder.chunks_exact(d));
            for (lane, (decoder, encoder)) in rows.enumerate() {
                self.gradient(i * WIDE + lane, decoder, &mut gradient);
                let Gradient { encoder: up, decoder: down, slope, sides } = &gradient;
                *square += f64::from(dot(up, up)) + f64::from(dot(down, down)) + f64::from(dot(sides, sides));
                add(shift, *slope, encoder);
            }
        });
        let bias = self.decoder_bias(shifts);
        shifts.fill(0.0);
        let norm = (squares.iter().sum::<f64>() + f64::from(dot(&bias, &bias))).sqrt() as f32;
        let clip = self.shape.options.clip;
        if norm > clip { clip / norm } else { 1.0 }
    }
}

impl Piece<'_> {
    fn run(mut self, ctx: &Context<'_>, cut: f32) {
        let (d, options, rates) = (ctx.d, ctx.shape.options, &ctx.shape.rates);
        let mut gradient = ctx.room();
        let mut scratch = vec![0i16; d.next_multiple_of(2)];
        let (first, width) = (&ctx.sources[0], scratch.len());
        let batch = first.gradients.first().map_or(0, |gradients| gradients.steps.len()) as u64;
        for lane in 0..self.idle.len() {
            let f = self.first + lane;
            let fired = first.firings.of(f).iter().any(|firing| firing.value > 0.0);
            self.idle[lane] = if fired { 0 } else { self.idle[lane] + batch };

            let decoder = self.decoder.row(lane, d);
            ctx.gradient(f, decoder.values, &mut gradient);
            if cut < 1.0 {
                gradient.encoder.iter_mut().for_each(|g| *g *= cut);
                gradient.decoder.iter_mut().for_each(|g| *g *= cut);
                gradient.sides.iter_mut().for_each(|g| *g *= cut);
            }
            adam(rates, decoder.values, &gradient.decoder, decoder.first, decoder.second);
            if options.unit_decoder {
                unit(decoder.values);
            } else if let Some(norm) = self.norms.get_mut(lane) {
                *norm = dot(decoder.values, decoder.values).sqrt();
            }
            self.rounded.1[lane] = round(decoder.values, &mut self.rounded.0[lane * width..(lane + 1) * width]);

            let encoder = self.encoder.row(lane, d);
            add(self.shift, gradient.slope, encoder.values);
            adam(rates, encoder.values, &gradient.encoder, encoder.first, encoder.second);
            let bias = self.bias.row(lane, 1);
            adam(rates, bias.values, &gradient.sides[..1], bias.first, bias.second);
            let mut numbers = [0f32; 2];
            for ((extra, number), g) in self.extras.iter_mut().zip(&mut numbers).zip(&gradient.sides[1..]) {
                let extra = extra.row(lane, 1);
                adam(rates, extra.values, &[*g], extra.first, extra.second);
                options.variant.bound(options, &mut extra.values[0]);
                *number = extra.values[0];
            }
            let bias = offset(options, bias.values[0], &numbers);
            self.panel.set(lane, encoder.values, bias, &mut scratch);
        }
    }
}
