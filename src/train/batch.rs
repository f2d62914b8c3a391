//! One batch on its way through a step: rows, selections, codes, gradients.

use std::sync::{Mutex, PoisonError};

use super::codes::{Codes, Found};
use super::firings::{Firings, Source};
use super::kernel::dot;
use super::options::Options;
use super::reconstruct::{Target, Totals, reconstruct};
use super::revive::Dead;
use super::rounded::{Rounded, round};
use super::rows::Rows;
use super::score::{Block, Lane, Panels, TALL};
use super::update::{Forms, Shape, update};
use super::variant::{Rule, Variant, batchtopk, topk};
use super::weights::State;
use crate::error::Result;
use crate::num::parallel::each;

/// Bytes of rows in a piece of work: they and a panel stay in the second cache while all features pass by.
const PIECE_BYTES: usize = 224 << 10;

/// The buffers of a batch.
#[derive(Default)]
pub(super) struct Batch {
    n: usize,
    d: usize,
    /// Rows less `b_dec` (unless they keep it), `[n, d]`, filled up to whole tiles.
    rows: Rounded,
    main: Side,
    /// The same for dead features, which rebuild the error.
    aux: Side,
    /// Ends of the stretches of features that rebuild rows on their own.
    levels: Vec<u32>,
    /// BatchTopK's guess of where the cut will be.
    guess: Option<f32>,
    /// Lanes for a piece of rows, as many as there are threads.
    lanes: Mutex<Vec<Vec<Lane>>>,
}

/// Features that rebuild something.
#[derive(Default)]
struct Side {
    /// For each piece of rows, what passed.
    found: Vec<Found>,
    codes: Codes,
    /// For each level, `∂L/∂x̂ [n, d]`.
    gradients: Vec<Rounded>,
    firings: Firings,
}

/// How far a batch's rows lie from the middle.
#[derive(Clone, Copy, Default)]
pub(super) struct Spread {
    /// `Σ ‖y − mean‖²`.
    pub(super) variance: f64,
    /// Rows beyond the limit.
    pub(super) drawn_in: usize,
}

/// Rows in a piece of the scan: a multiple of the tile's height that depends on `d` alone.
fn piece_rows(d: usize) -> usize {
    (PIECE_BYTES / (2 * d) / TALL * TALL).clamp(TALL, 32 * TALL)
}

impl Batch {
    /// Rows in the batch.
    pub(super) fn len(&self) -> usize {
        self.n
    }

    /// The codes of the rows.
    pub(super) fn codes(&self) -> &Codes {
        &self.main.codes
    }

    /// The codes of live and of dead features.
    #[cfg(test)]
    pub(super) fn both_codes(&self) -> (&Codes, &Codes) {
        (&self.main.codes, &self.aux.codes)
    }

    /// Mean number of active features.
    pub(super) fn l0(&self) -> f64 {
        self.main.codes.active() as f64 / self.n as f64
    }

    /// Row `r` as the encoder sees it.
    pub(super) fn row(&self, r: usize, out: &mut [f32]) {
        out.fill(0.0);
        self.rows.add(out, 1, |_| (1.0, r));
    }

    /// The squared error of every row's reconstruction, once it is differentiated.
    pub(super) fn errors(&self) -> Vec<f64> {
        let Some(last) = self.main.gradients.last() else { return Vec::new() };
        let per_gradient = self.n as f64 / 2.0;
        let square = |r: usize| {
            let sum: f64 = last.row(r).iter().map(|&q| f64::from(q) * f64::from(q)).sum();
            sum * (f64::from(last.steps[r]) * per_gradient).powi(2)
        };
        (0..self.n).map(square).collect()
    }

    /// What the reconstruction of row `r` leaves over: −g·B/2.
    #[cfg(test)]
    pub(super) fn left_over(&self, r: usize) -> Vec<f64> {
        let Some(last) = self.main.gradients.last() else { return Vec::new() };
        let factor = f64::from(last.steps[r]) * -0.5 * self.n as f64;
        last.row(r)[..self.d].iter().map(|&q| f64::from(q) * factor).collect()
    }

    /// Reads, scales, centres, draws in and rounds the rows `ids`; returns how far they spread.
    pub(super) fn gather(
        &mut self,
        state: &State,
        source: &Rows<'_>,
        ids: &[u32],
        options: &Options,
        threads: usize,
    ) -> Result<Spread> {
        (self.n, self.d) = (ids.len(), state.d);
        self.rows.resize(ids.len().next_multiple_of(TALL), state.d);
        let size = piece_rows(state.d);
        let mut sums: Vec<Result<Spread>> = ids.chunks(size).map(|_| Ok(Spread::default())).collect();
        let pieces = ids.chunks(size).zip(self.rows.chunks_mut(size)).zip(&mut sums);
        each(threads, pieces, |((ids, (rows, steps)), sum)| {
            *sum = gather_piece(state, source, ids, options.subtract_bias, rows, steps);
        });
        sums.into_iter().try_fold(Spread::default(), |sum, piece| {
            let Spread { variance, drawn_in } = piece?;
            Ok(Spread { variance: sum.variance + variance, drawn_in: sum.drawn_in + drawn_in })
        })
    }

    /// Chooses the features of every row, and of the dead ones if there are some.
    pub(super) fn select(
        &mut self,
        options: &Options,
        rule: &Rule,
        panels: &Panels,
        dead: Option<&Dead>,
        threads: usize,
    ) {
        let aux = dead.map(|dead| (dead, options.aux_k.min(dead.features.len())));
        match options.variant {
            Variant::TopK => {
                self.scan(threads, aux, |block, lanes| topk::select(panels, block, lanes, options.k));
            }
            Variant::BatchTopK | Variant::Matryoshka => {
                let mut guess = match self.guess {
                    Some(guess) => guess,
                    None => self.first_guess(panels, options.k),
                };
                self.scan(threads, aux, |block, lanes| batchtopk::push(panels, block, lanes, guess));
                let next = loop {
                    match batchtopk::cut(&mut self.main.found, options.k * self.n, guess) {
                        Ok(next) => break next,
                        Err(lower) => guess = lower,
                    }
                    self.scan(threads, None, |block, lanes| batchtopk::push(panels, block, lanes, guess));
                };
                self.guess = Some(next);
            }
            Variant::Relu | Variant::PAnneal | Variant::JumpRelu | Variant::Gated => {
                self.scan(threads, aux, |block, lanes| batchtopk::push(panels, block, lanes, 0.0));
            }
        }
        self.main.codes.take(&self.main.found, rule, |f| f);
        if let Some(dead) = dead {
            self.aux.codes.take(&self.aux.found, &Rule::Kept, |i| dead.features[i as usize]);
        }
    }

    /// Selects whatever scores above `threshold`.
    pub(super) fn pass(&mut self, rule: &Rule, panels: &Panels, threshold: f32, threads: usize) {
        self.scan(threads, None, |block, lanes| batchtopk::push(panels, block, lanes, threshold));
        self.main.codes.take(&self.main.found, rule, |f| f);
    }

    /// Hands every piece to `choose`, and to the dead features, of which each row gets so many.
    fn scan(&mut self, threads: usize, dead: Option<(&Dead, usize)>, choose: impl Fn(Block<'_>, &mut [Lane]) + Sync) {
        let (n, size, width) = (self.n, piece_rows(self.d), self.rows.width);
        let n_pieces = n.div_ceil(size);
        self.main.found.resize_with(n_pieces, Found::default);
        self.aux.found.resize_with(n_pieces, Found::default);
        let rows = self.rows.rows.chunks(size * width).zip(self.rows.steps.chunks(size));
        let found = self.main.found.iter_mut().zip(&mut self.aux.found);
        let idle = || self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        each(threads, rows.zip(found).enumerate(), |(i, ((rows, steps), (found, aux_found)))| {
            let mut lanes = idle().pop().unwrap_or_default();
            lanes.resize_with(size.min(n - i * size), Lane::default);
            let block = Block { width, rows, steps };
            choose(block, &mut lanes);
            found.take(&lanes);
            if let Some((dead, k)) = dead {
                topk::select(&dead.panels, block, &mut lanes, k);
                aux_found.take(&lanes);
            }
            idle().push(lanes);
        });
    }

    /// BatchTopK's first guess, from the first rows of the batch.
    fn first_guess(&mut self, panels: &Panels, k: usize) -> f32 {
        let n = self.rows.steps.len().min(8 * TALL);
        let mut lanes = vec![Lane::default(); n.min(self.n)];
        let (rows, steps) = (&self.rows.rows[..n * self.rows.width], &self.rows.steps[..n]);
        batchtopk::push(panels, Block { width: self.rows.width, rows, steps }, &mut lanes, 0.0);
        batchtopk::first_guess(&lanes, k)
    }

    /// Reconstruction and gradients of what was selected.
    pub(super) fn differentiate(
        &mut self,
        state: &State,
        decoder: &Rounded,
        rule: &Rule,
        dead: bool,
        options: &Options,
    ) -> (Totals, Totals) {
        let Self { n, d, rows, main, aux, levels, .. } = self;
        *levels = options.levels();
        let (weight, threads) = (2.0 / *n as f32, options.threads);
        let bias = if options.subtract_bias { None } else { Some(&state.decoder_bias.values[..]) };
        let target = Target { rows, scale: 1.0, bias, weight, levels };
        let totals = reconstruct(decoder, &target, rule, &mut main.codes, &mut main.gradients, *d, threads);
        let Some(left) = main.gradients.last().filter(|_| dead) else { return (totals, Totals::default()) };
        // The error that is left is −g·B/2.
        let weight = weight * options.aux_weight;
        let target = Target { rows: left, scale: -0.5 * *n as f32, bias: None, weight, levels: &[u32::MAX] };
        (totals, reconstruct(decoder, &target, &Rule::Kept, &mut aux.codes, &mut aux.gradients, *d, threads))
    }

    /// Updates the parameters.
    pub(super) fn apply(&mut self, state: &mut State, forms: &mut Forms, dead: bool, shape: &Shape<'_>) {
        let Self { rows, main, aux, levels, .. } = self;
        main.firings.sort(state.n, &main.codes);
        let mut sources = vec![Source { levels, gradients: &main.gradients, firings: &main.firings }];
        if dead {
            aux.firings.sort(state.n, &aux.codes);
            sources.push(Source { levels: &[u32::MAX], gradients: &aux.gradients, firings: &aux.firings });
        }
        update(state, forms, rows, &sources, shape);
    }
}

fn gather_piece(
    state: &State,
    source: &Rows<'_>,
    ids: &[u32],
    subtract_bias: bool,
    rows: &mut [i16],
    steps: &mut [f32],
) -> Result<Spread> {
    let d = state.d;
    let (mut row, mut gap) = (vec![0f32; d], vec![0f32; d]);
    let mut spread = Spread::default();
    let out = rows.chunks_exact_mut(d.next_multiple_of(2)).zip(steps);
    let mut ids = ids.iter();
    for (out, step) in out {
        let Some(&id) = ids.next() else {
            // Rows that fill up the last tile.
            out.fill(0);
            *step = 0.0;
            continue;
        };
        source.read(id as usize, &mut row)?;
        let bias = &state.decoder_bias.values;
        for (x, bias) in row.iter_mut().zip(bias) {
            *x = *x * state.scale - bias;
        }
        let far = dot(&row, &row).sqrt();
        if far.is_nan() || far > state.limit {
            spread.drawn_in += 1;
            row.iter_mut().for_each(|x| *x *= state.limit / far);
        }
        for i in 0..d {
            gap[i] = row[i] + bias[i] - state.mean[i];
        }
        spread.variance += f64::from(dot(&gap, &gap));
        if !subtract_bias {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
        *step = round(&row, out);
    }
    Ok(spread)
}
