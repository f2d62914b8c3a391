//! Several dictionaries in one pass over the rows: the same batches, read once, for every sparsity (or whatever differs).

use std::path::PathBuf;

use super::fit::Run;
use super::metrics::Metrics;
use super::options::Options;
use super::rows::Rows;
use crate::Kind;
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::file::Lock;
use crate::num::parallel::each;
use crate::progress::{Progress, report};

/// Rows that a thread reads at a time.
const PIECE: usize = 256;

/// Trains a dictionary for each of `options` on the same batches; `checkpoints` names a file for each, or none at all.
///
/// Each comes out bit for bit as [`fit`](super::fit) on its own would make it. `on_step` gets the number of the run with
/// its metrics. Memory grows with the number of runs.
///
/// # Errors
/// As [`fit`](super::fit); [`Kind::Argument`](crate::Kind::Argument) if the options differ in what decides the batches
/// (`batch`, `epochs`, `seed`, `held_out`), or there are no options.
pub fn fit_many(
    rows: &Rows<'_>,
    options: &[Options],
    checkpoints: &[PathBuf],
    progress: &mut Progress<'_>,
    on_step: &mut dyn FnMut(usize, &Metrics),
) -> Result<Vec<Dictionary>> {
    check(options, checkpoints)?;
    let _held = checkpoints.iter().map(|path| Lock::of_file(path)).collect::<Result<Vec<_>>>()?;
    let file = |i: usize| checkpoints.get(i).map(PathBuf::as_path);
    let start = |(i, options)| Run::new(rows, options, file(i));
    let mut runs = options.iter().enumerate().map(start).collect::<Result<Vec<_>>>()?;
    let mut shared = Shared { values: Vec::new(), numbers: Vec::new() };
    // Runs that were stopped at different steps catch up with the foremost.
    while let Some(step) = runs.iter().map(|run| run.state.step).min().filter(|&step| step < runs[0].steps()) {
        let mut notes = Vec::new();
        let (mut done, mut total, mut due) = (0, 0, Vec::new());
        shared.numbers.clear();
        for (i, run) in runs.iter_mut().enumerate().filter(|(_, run)| run.state.step == step) {
            if shared.numbers.is_empty() {
                shared.read(rows, run.next_rows(), options[i].thread_count())?;
            }
            let source = Rows::from_slice(rows.d_model(), &shared.values)?;
            let metrics = run.step_on(&source, &shared.numbers)?;
            on_step(i, &metrics);
            notes.push(format!("L0 {:.1} FVU {:.4}", metrics.l0, metrics.fvu));
            (done, total) = (metrics.rows, metrics.steps * run.options.batch as u64);
            due.push(run.save_is_due());
        }
        let told = report(progress, done, total, &notes.join("  "));
        if due.contains(&true) || told.as_ref().is_err_and(|e| e.kind() == Kind::Cancelled) {
            runs.iter().enumerate().try_for_each(|(i, run)| run.save(file(i)))?;
        }
        told?;
    }
    runs.into_iter().map(|run| run.dictionary(progress)).collect()
}

/// The rows of a batch, read once.
struct Shared {
    values: Vec<f32>,
    /// 0, 1, 2, …: their numbers here.
    numbers: Vec<u32>,
}

impl Shared {
    fn read(&mut self, rows: &Rows<'_>, ids: &[u32], threads: usize) -> Result<()> {
        let d = rows.d_model();
        self.values.resize(ids.len() * d, 0.0);
        self.numbers.extend(0..ids.len() as u32);
        let mut results: Vec<Result<()>> = ids.chunks(PIECE).map(|_| Ok(())).collect();
        let pieces = ids.chunks(PIECE).zip(self.values.chunks_mut(PIECE * d)).zip(&mut results);
        each(threads, pieces, |((ids, values), result)| {
            let mut pairs = ids.iter().zip(values.chunks_exact_mut(d));
            *result = pairs.try_for_each(|(&id, row)| rows.read(id as usize, row));
        });
        results.into_iter().collect()
    }
}

/// Whether `options` can share their batches, and each has a checkpoint or none has.
pub(super) fn check(options: &[Options], checkpoints: &[PathBuf]) -> Result<()> {
    let Some(first) = options.first() else {
        return Err(Error::argument("train: expected options of one run or more, found none"));
    };
    if !checkpoints.is_empty() && checkpoints.len() != options.len() {
        return Err(Error::argument(format!(
            "train: expected a checkpoint for each of {} runs or none, found {}",
            options.len(),
            checkpoints.len()
        )));
    }
    for other in options {
        let same = [
            ("batch", first.batch == other.batch),
            ("epochs", first.epochs == other.epochs),
            ("seed", first.seed == other.seed),
            ("held_out", first.held_out == other.held_out),
        ];
        if let Some((name, _)) = same.iter().find(|(_, same)| !same) {
            return Err(Error::argument(format!(
                "train option {name} must be the same in runs that share their batches"
            )));
        }
    }
    Ok(())
}
