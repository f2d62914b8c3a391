//! Rows of many short texts at many hook points, in one pass and stored nowhere.

use super::Engine;
use super::harvest::Batch;
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;

/// Takes the rows `[tokens, d_model]` of a text at one of the points: the numbers of both, and the rows.
pub type TakeRows<'t> = dyn FnMut(usize, usize, &[f32]) -> Result<()> + 't;

impl Engine {
    /// Reads every one of `texts`, as many side by side as a batch has room for, and hands the rows at `points` on. The graph
    /// ends after the last of them; memory holds the rows of one batch. The plan in force applies.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for a layer that does not exist, or a text that is empty or longer than a
    /// batch; what `take` returns.
    pub fn read_rows(&mut self, texts: &[Vec<i32>], points: &[HookPoint], take: &mut TakeRows<'_>) -> Result<()> {
        let Some(last) = points.iter().map(|point| point.layer()).max() else { return Ok(()) };
        if last >= self.n_layer() {
            let n = self.n_layer() - 1;
            return Err(Error::argument(format!("layer {last} does not exist; the model has 0 to {n}")));
        }
        texts.iter().try_for_each(|tokens| self.check_batch(tokens.len()))?;
        self.hook_mut().capture(points.iter().copied())?;
        let is_last = last + 1 == self.n_layer();
        self.hook_mut().stop_after((!is_last).then_some(last));
        let read = self.read_batches(texts, points, take);
        self.hook_mut().capture_nothing();
        self.hook_mut().stop_after(None);
        read
    }

    fn read_batches(&mut self, texts: &[Vec<i32>], points: &[HookPoint], take: &mut TakeRows<'_>) -> Result<()> {
        let mut batch = Batch::default();
        // At each point, the texts come in order.
        let mut next = vec![0; points.len()];
        let mut sink = |point: usize, rows: &[f32], _: &[i32]| {
            next[point] += 1;
            take(next[point] - 1, point, rows)
        };
        for tokens in texts {
            if !self.fits(&batch, tokens) {
                self.harvest_batch(&mut batch, points, &mut sink)?;
            }
            batch.push(tokens)?;
        }
        self.harvest_batch(&mut batch, points, &mut sink).map(drop)
    }
}
