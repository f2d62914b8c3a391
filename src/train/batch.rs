//! One batch on its way through a step: rows, selections, codes, gradients.

use super::kernel::dot;
use super::options::{Options, Variant};
use super::parallel::each;
use super::reconstruct::{Codes, Target, Totals, reconstruct};
use super::revive::Dead;
use super::rows::Rows;
use super::score::{Block, Lane, Panels, TALL};
use super::update::{Firings, Sources, update};
use super::weights::State;
use super::{adam::Rates, batchtopk, topk};
use crate::error::Result;

/// Bytes of rows in a piece of work: they and a panel stay in the second cache while all features pass by.
const PIECE_BYTES: usize = 128 << 10;

/// The buffers of a batch.
#[derive(Default)]
pub(super) struct Batch {
    n: usize,
    /// Rows less `b_dec`, `[n, d]`.
    rows: Vec<f32>,
    /// `∂L/∂x̂`; a second `[n, d]` follows when dead features rebuild the error.
    gradients: Vec<f32>,
    lanes: Vec<Lane>,
    aux_lanes: Vec<Lane>,
    pub(super) codes: Codes,
    aux_codes: Codes,
    firings: Firings,
    /// BatchTopK's guess of where the cut will be.
    guess: Option<f32>,
}

/// What a step found out.
pub(super) struct Outcome {
    /// Of the reconstruction.
    pub(super) totals: Totals,
    /// Of the dead features' reconstruction of the error.
    pub(super) aux: Totals,
    /// `Σ ‖y − mean‖²`.
    pub(super) variance: f64,
}

struct Piece<'a> {
    rows: &'a [f32],
    lanes: &'a mut [Lane],
    aux_lanes: &'a mut [Lane],
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

    /// Reads, scales and centres the rows `ids`; returns `Σ ‖y − mean‖²`.
    pub(super) fn gather(&mut self, state: &State, source: &Rows<'_>, ids: &[u32], threads: usize) -> Result<f64> {
        let d = state.d;
        self.n = ids.len();
        self.rows.resize(ids.len() * d, 0.0);
        let size = piece_rows(d);
        let mut sums: Vec<Result<f64>> = ids.chunks(size).map(|_| Ok(0.0)).collect();
        let pieces = ids.chunks(size).zip(self.rows.chunks_mut(size * d)).zip(&mut sums);
        each(threads, pieces, |((ids, rows), sum)| *sum = gather_piece(state, source, ids, rows));
        sums.into_iter().sum()
    }

    /// Chooses the features of every row, and of the dead ones if there are some, by 16-bit scores.
    pub(super) fn select(&mut self, options: &Options, panels: &Panels, dead: Option<&Dead>, d: usize, threads: usize) {
        self.lanes.resize_with(self.n, Lane::default);
        self.aux_lanes.resize_with(self.n, Lane::default);
        match options.variant {
            Variant::TopK => self.scan(d, threads, dead, options.aux_k, |block, lanes| {
                topk::select(panels, block, lanes, options.k);
            }),
            Variant::BatchTopK => {
                let mut guess = match self.guess {
                    Some(guess) => guess,
                    None => self.first_guess(panels, d, options.k),
                };
                let wanted = options.k * self.n;
                self.scan(d, threads, dead, options.aux_k, |block, lanes| batchtopk::push(panels, block, lanes, guess));
                let next = loop {
                    match batchtopk::cut(&mut self.lanes, wanted, guess) {
                        Ok(next) => break next,
                        Err(lower) => guess = lower,
                    }
                    self.scan(d, threads, None, 0, |block, lanes| batchtopk::push(panels, block, lanes, guess));
                };
                self.guess = Some(next);
            }
        }
        self.codes.take(&self.lanes, |f| f);
        if let Some(dead) = dead {
            self.aux_codes.take(&self.aux_lanes, |i| dead.features[i as usize]);
        }
    }

    /// Selects whatever scores above `threshold`, and a little below: the exact values decide.
    pub(super) fn pass(&mut self, panels: &Panels, threshold: f32, d: usize, threads: usize) {
        self.lanes.resize_with(self.n, Lane::default);
        let guess = 0.999 * threshold;
        self.scan(d, threads, None, 0, |block, lanes| batchtopk::push(panels, block, lanes, guess));
        self.codes.take(&self.lanes, |f| f);
    }

    /// The rows less `b_dec`, and their codes.
    pub(super) fn rows_and_codes(&mut self) -> (&[f32], &mut Codes) {
        (&self.rows, &mut self.codes)
    }

    /// Hands every piece, in integers, to `choose`, and to the dead features.
    fn scan(
        &mut self,
        d: usize,
        threads: usize,
        dead: Option<&Dead>,
        aux_k: usize,
        choose: impl Fn(&Block, &mut [Lane]) + Sync,
    ) {
        let size = piece_rows(d);
        let rows = self.rows.chunks(size * d);
        let pieces = rows
            .zip(self.lanes.chunks_mut(size))
            .zip(self.aux_lanes.chunks_mut(size))
            .map(|((rows, lanes), aux_lanes)| Piece { rows, lanes, aux_lanes });
        each(threads, pieces, |piece| {
            let block = Block::of(piece.rows, d);
            choose(&block, piece.lanes);
            if let Some(dead) = dead {
                let k = aux_k.min(dead.features.len());
                topk::select(&dead.panels, &block, piece.aux_lanes, k);
            }
        });
    }

    /// BatchTopK's first guess, from the first rows of the batch.
    fn first_guess(&mut self, panels: &Panels, d: usize, k: usize) -> f32 {
        let n = self.n.min(4 * TALL);
        let block = Block::of(&self.rows[..n * d], d);
        batchtopk::push(panels, &block, &mut self.lanes[..n], 0.0);
        batchtopk::first_guess(&self.lanes[..n], k)
    }

    /// Values, reconstruction and gradients of what was selected.
    pub(super) fn differentiate(
        &mut self,
        state: &State,
        dead: bool,
        options: &Options,
        threads: usize,
    ) -> (Totals, Totals) {
        let (n, d) = (self.n, state.d);
        self.gradients.resize(if dead { 2 } else { 1 } * n * d, 0.0);
        let (main, aux) = self.gradients.split_at_mut(n * d);
        let weight = 2.0 / n as f32;
        let target = Target { rows: &self.rows, base: &self.rows, scale: 1.0, weight };
        let totals = reconstruct(state, &target, &mut self.codes, main, threads);
        if !dead {
            return (totals, Totals::default());
        }
        // The error that is left is −g·B/2.
        let weight_aux = weight * options.aux_weight;
        let target = Target { rows: &self.rows, base: main, scale: -1.0 / weight, weight: weight_aux };
        (totals, reconstruct(state, &target, &mut self.aux_codes, aux, threads))
    }

    /// Updates the parameters.
    pub(super) fn apply(&mut self, state: &mut State, panels: &mut Panels, dead: bool, rates: &Rates, threads: usize) {
        let lists = [&self.codes, &self.aux_codes];
        self.firings.sort(state.n, self.n, &lists[..if dead { 2 } else { 1 }]);
        let sources = Sources { rows: &self.rows, gradients: &self.gradients, firings: &self.firings, batch: self.n };
        update(state, panels, &sources, rates, threads);
    }
}

fn gather_piece(state: &State, source: &Rows<'_>, ids: &[u32], rows: &mut [f32]) -> Result<f64> {
    let mut gap = vec![0f32; state.d];
    let mut sum = 0f64;
    for (row, &id) in rows.chunks_exact_mut(state.d).zip(ids) {
        source.read(id as usize, row)?;
        row.iter_mut().for_each(|x| *x *= state.scale);
        for ((gap, &y), &mean) in gap.iter_mut().zip(&*row).zip(&state.mean) {
            *gap = y - mean;
        }
        sum += f64::from(dot(&gap, &gap));
        row.iter_mut().zip(&state.decoder_bias.values).for_each(|(x, bias)| *x -= bias);
    }
    Ok(sum)
}
