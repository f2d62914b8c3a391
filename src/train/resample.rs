//! Resampling (Anthropic, Towards Monosemanticity, 2023): dead features start anew where rows are rebuilt badly.
//!
//! Each dead feature draws a row of the batch, with a probability proportional to the square of its squared error, none
//! twice. Its decoder row becomes the row's direction; its encoder row the same, at a fifth of the mean norm of the live
//! ones; its biases and Adam's moments are reset. (The paper draws from a larger sample; a batch has as many rows as a
//! dictionary has features, and needs no second pass over the data.)

use rand::Rng;

use super::batch::Batch;
use super::kernel::dot;
use super::options::Options;
use super::rows::generator;
use super::start::unit;
use super::weights::State;

/// The norm of a new encoder row, in mean norms of the live ones.
const SHARE: f32 = 0.2;
/// The stream of the generator that draws at step 0.
const STREAM: u64 = 1 << 40;

/// Restarts features that were idle for `dead_after` rows; says whether there were some.
pub(super) fn resample(state: &mut State, batch: &Batch, options: &Options) -> bool {
    let (d, n) = (state.d, state.n);
    let is_dead = |f: usize| state.idle[f] >= options.dead_after;
    let dead: Vec<usize> = (0..n).filter(|&f| is_dead(f)).collect();
    if dead.is_empty() {
        return false;
    }
    let norm =
        |f: usize| dot(&state.encoder.values[f * d..(f + 1) * d], &state.encoder.values[f * d..(f + 1) * d]).sqrt();
    let live = n - dead.len();
    let mean = match live {
        0 => 1.0,
        _ => (0..n).filter(|&f| !is_dead(f)).map(|f| f64::from(norm(f))).sum::<f64>() / live as f64,
    };
    let mut weights: Vec<f64> = batch.errors().iter().map(|error| error * error).collect();
    let mut rng = generator(options.seed, STREAM + state.step);
    let mut row = vec![0f32; d];
    let starts = options.variant.extras(options);
    for &f in &dead {
        let Some(r) = draw(&mut weights, rng.random()) else { break };
        batch.row(r, &mut row);
        unit(&mut row);
        let at = f * d..(f + 1) * d;
        state.decoder.values[at.clone()].copy_from_slice(&row);
        row.iter_mut().for_each(|x| *x *= SHARE * mean as f32);
        state.encoder.values[at].copy_from_slice(&row);
        state.encoder.forget(f, d);
        state.decoder.forget(f, d);
        state.encoder_bias.values[f] = 0.0;
        state.encoder_bias.forget(f, 1);
        for (extra, (_, start)) in state.extras.iter_mut().zip(&starts) {
            extra.values[f] = *start;
            extra.forget(f, 1);
        }
        state.idle[f] = 0;
    }
    true
}

/// Draws an index with probability proportional to its weight, which becomes 0; `None` if none has any weight.
fn draw(weights: &mut [f64], uniform: f64) -> Option<usize> {
    let total: f64 = weights.iter().sum();
    if total.is_nan() || total <= 0.0 {
        return None;
    }
    let mut left = uniform * total;
    let found = weights.iter().position(|&weight| {
        left -= weight;
        weight > 0.0 && left <= 0.0
    });
    let found = found.or_else(|| weights.iter().rposition(|&weight| weight > 0.0))?;
    weights[found] = 0.0;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_by_weight_and_none_twice() {
        let mut weights = [0.0, 3.0, 1.0, 0.0];
        assert_eq!(draw(&mut weights, 0.76), Some(2));
        assert_eq!(weights, [0.0, 3.0, 0.0, 0.0]);
        assert_eq!(draw(&mut weights, 0.999_999), Some(1));
        assert_eq!(draw(&mut weights, 0.5), None);
        assert_eq!(draw(&mut [f64::NAN, 1.0], 0.5), None);
    }
}
