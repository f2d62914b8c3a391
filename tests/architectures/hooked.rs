//! tiller's side of the test: a hook on raw ggml, with one patch.

use std::sync::{Arc, Mutex};

use tiller::hook::Hook;
use tiller::hook_point::HookPoint;
use tiller::plan::{Row, SequenceSet};

use super::support::raw::{Entry, host};

/// The rows that an edit saw, before it changed them, with their positions.
pub(crate) type Rows = Vec<(i32, Vec<f32>)>;

/// A hook that adds `(1 + position)·v` to the rows of one point. A row whose position could not be told is left alone.
pub(crate) struct Hooked {
    pub(crate) hook: Hook,
    rows: Arc<Mutex<Rows>>,
}

impl Hooked {
    /// An error is a refusal.
    pub(crate) fn new(architecture: &str, point: HookPoint, v: Vec<f32>) -> Result<Self, String> {
        let mut hook = Hook::new(host());
        hook.set_architecture(architecture);
        let rows = Arc::new(Mutex::new(Rows::new()));
        let seen = rows.clone();
        let patch = move |data: &mut [f32], meta: &[Row]| {
            for (row, meta) in data.chunks_exact_mut(v.len()).zip(meta) {
                let Some(position) = meta.position else { continue };
                seen.lock().unwrap().push((position, row.to_vec()));
                row.iter_mut().zip(&v).for_each(|(x, v)| *x += factor(position) * v);
            }
            Ok(())
        };
        hook.patch(point, Some(Box::new(patch))).map_err(|error| error.to_string())?;
        Ok(Self { hook, rows })
    }

    /// Says what the next decode holds.
    pub(crate) fn announce(&mut self, batch: &[Entry]) {
        let row = |entry: &Entry| {
            let sequences = SequenceSet::of(entry.sequences.iter().copied()).expect("sequences");
            Row::new(entry.position, entry.sequences[0]).shared_by(sequences)
        };
        self.hook.announce(&batch.iter().map(row).collect::<Vec<_>>());
    }

    /// Forgets what was seen so far, but not where the points are.
    pub(crate) fn restart(&mut self) {
        let _ = self.hook.finish();
        self.rows.lock().unwrap().clear();
    }

    /// The rows that were edited, and the first fault.
    pub(crate) fn finish(mut self) -> (Rows, Option<String>) {
        let fault = self.hook.finish().ok().err().map(|error| error.to_string());
        (std::mem::take(&mut *self.rows.lock().unwrap()), fault)
    }
}

/// How many times the vector is added to the row of a position: rows that are mistaken for each other show.
pub(crate) fn factor(position: i32) -> f32 {
    (1 + position) as f32
}
