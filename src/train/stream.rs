//! Training on rows that are made while they are needed: a shuffling buffer between their source and the loop.
//!
//! Rows come in parts, in a fixed order: of part j a seeded half goes to phase j, the other half waits for phase j + 1, and
//! a phase is shuffled as a whole. So every row is seen once in a pass, beside rows of two parts, and at most two parts are
//! held, however long the text is. A checkpoint holds no rows: a run that goes on has the parts of its phase made again.

use std::path::PathBuf;

use super::checkpoint;
use super::fit::Run;
use super::many;
use super::metrics::Metrics;
use super::options::Options;
use super::rows::{Rows, Selection, Split, order};
use super::start;
use crate::Kind;
use crate::dictionary::{Dictionary, Info};
use crate::error::{Error, Result};
use crate::file::{Lock, reserve};
use crate::progress::{Progress, report};

/// The stream of the orders within phases, beside those of parts.
const PHASES: u32 = 1 << 30;

/// Makes rows part by part: `read(part, rows, alive)` appends those of a part, the same at every call, and calls `alive` now
/// and then, whose error ends it.
pub type Read<'r> = dyn FnMut(usize, &mut Vec<f32>, &mut dyn FnMut() -> Result<()>) -> Result<()> + 'r;

/// Where rows come from.
pub struct Stream<'r> {
    /// Width of a row.
    pub d_model: usize,
    /// Rows in each part.
    pub parts: Vec<usize>,
    /// What tells these rows from others.
    pub fingerprint: String,
    /// The model and the place that they belong to.
    pub info: Info,
    /// Rows to measure on, of other documents: `[n, d_model]`, or none.
    pub held_out: Vec<f32>,
    /// Makes them.
    pub read: Box<Read<'r>>,
}

/// As [`fit_many`](super::fit_many), on rows that come part by part: a dictionary for each of `options`.
/// [`Options::held_out`] is the source's to heed. Statistics are counted over the rows of the last two phases.
///
/// # Errors
/// As [`fit_many`](super::fit_many); [`Kind::Argument`](crate::Kind::Argument) for parts of fewer than two batches, and what
/// the source returns.
pub fn fit_stream(
    stream: &mut Stream<'_>,
    options: &[Options],
    checkpoints: &[PathBuf],
    progress: &mut Progress<'_>,
    on_step: &mut dyn FnMut(usize, &Metrics),
) -> Result<Vec<Dictionary>> {
    many::check(options, checkpoints)?;
    let _held = checkpoints.iter().map(|path| Lock::of_file(path)).collect::<Result<Vec<_>>>()?;
    let d = stream.d_model;
    let total: usize = stream.parts.iter().sum();
    // A single part may be shorter than two batches.
    let batch = options[0].batch.min(total / 2).max(1);
    let (seed, epochs) = (options[0].seed, options[0].epochs);
    let phases = phases(&stream.parts, batch)?;
    let held_out = std::mem::take(&mut stream.held_out);
    let n_held_out = held_out.len() / d;
    // A run has some rows to measure on, if only to measure none of them.
    let basis = if held_out.is_empty() { vec![0.0; d] } else { held_out };
    let measured = Rows::from_slice(d, &basis)?;
    let split = |n: usize| Split { train: Selection::First(n), held_out: Selection::First(n_held_out) };

    let fingerprint = stream.fingerprint.clone();
    let mut buffer = Buffer { stream, phases, seed, at: None, rows: Vec::new(), waiting: None, before: Vec::new() };
    let mut runs = Vec::with_capacity(options.len());
    for (i, options) in options.iter().enumerate() {
        options.check()?;
        let options = Options { threads: options.thread_count(), batch, ..options.clone() };
        let loaded = match checkpoints.get(i) {
            Some(path) => checkpoint::load(path, d, &options, &fingerprint)?,
            None => None,
        };
        let state = match loaded {
            Some(state) => state,
            None => {
                buffer.fill(0, 0, &mut || report(progress, 0, 0, "reading"))?;
                let rows = Rows::from_slice(d, &buffer.rows)?;
                start::start(&rows, &split(rows.len()), &options)?
            }
        };
        runs.push(Run::with_state(&measured, options, split(total), state));
    }
    let save = |runs: &[Run<'_>]| -> Result<()> {
        let each = runs.iter().zip(checkpoints);
        each.into_iter().try_for_each(|(run, path)| checkpoint::save(path, &run.state, &run.options, &fingerprint))
    };
    let steps = runs[0].steps();
    let all = steps * batch as u64;
    // Runs that were stopped at different steps catch up with the foremost.
    while let Some(step) = runs.iter().map(|run| run.state.step).min().filter(|&step| step < steps) {
        let (epoch, phase, first) = buffer.place(step, batch);
        let filled = buffer.fill(epoch, phase, &mut || report(progress, step * batch as u64, all, "reading"));
        if filled.as_ref().is_err_and(|e| e.kind() == Kind::Cancelled) {
            save(&runs)?;
        }
        filled?;
        let ids = buffer.order(epoch, phase);
        let rows = Rows::from_slice(d, &buffer.rows)?;
        for (step, ids) in (step..).zip(ids[first * batch..].chunks_exact(batch)) {
            let (mut notes, mut due, mut done) = (Vec::new(), false, 0);
            for (i, run) in runs.iter_mut().enumerate().filter(|(_, run)| run.state.step == step) {
                let metrics = run.step_on(&rows, ids)?;
                on_step(i, &metrics);
                notes.push(metrics.note());
                due |= run.save_is_due();
                done = metrics.rows;
            }
            let told = report(progress, done, all, &notes.join("  "));
            if due || told.as_ref().is_err_and(|e| e.kind() == Kind::Cancelled) {
                save(&runs)?;
            }
            told?;
        }
    }
    let last = buffer.last_rows(epochs - 1, &mut || report(progress, 0, 0, "reading"))?;
    let rows = Rows::from_slice(d, &last)?.with_info(buffer.stream.info.clone());
    runs.into_iter().map(|run| run.dictionary_over(&rows, &Selection::First(rows.len()), progress)).collect()
}

/// What a phase takes of its own part; the rest of the part is the next one's. All phases but the last are whole batches.
fn phases(parts: &[usize], batch: usize) -> Result<Vec<usize>> {
    if parts.is_empty() || parts.iter().any(|&rows| rows < 2 * batch) {
        let found = parts.iter().min().copied().unwrap_or(0);
        return Err(Error::argument(format!("rows: expected parts of two batches ({batch}) or more, found {found}")));
    }
    let mut waiting = 0;
    let taken = parts.iter().map(|&rows| {
        let half = rows / 2;
        let taken = half - (waiting + half) % batch;
        waiting = rows - taken;
        taken
    });
    Ok(taken.collect())
}

/// The rows of a phase, and those that wait for the next.
struct Buffer<'b, 'r> {
    stream: &'b mut Stream<'r>,
    /// Rows of its own part in each phase; one more phase takes what waits at the end.
    phases: Vec<usize>,
    seed: u64,
    /// Pass and phase that are held.
    at: Option<(u32, usize)>,
    rows: Vec<f32>,
    /// Pass, part and its second half.
    waiting: Option<(u32, usize, Vec<f32>)>,
    /// In the last phase, if it came right after the one before: the rows of that one.
    before: Vec<f32>,
}

impl Buffer<'_, '_> {
    /// Rows in a phase.
    fn len(&self, phase: usize) -> usize {
        let waiting = phase.checked_sub(1).map_or(0, |part| self.stream.parts[part] - self.phases[part]);
        waiting + self.phases.get(phase).copied().unwrap_or(0)
    }

    /// Pass, phase, and number of the batch in it, of a step.
    fn place(&self, step: u64, batch: usize) -> (u32, usize, usize) {
        let lengths: Vec<u64> = (0..=self.phases.len()).map(|phase| (self.len(phase) / batch) as u64).collect();
        let pass: u64 = lengths.iter().sum();
        let mut left = step % pass;
        let mut phase = 0;
        while left >= lengths[phase] {
            left -= lengths[phase];
            phase += 1;
        }
        ((step / pass) as u32, phase, left as usize)
    }

    /// The order of a phase's rows.
    fn order(&self, epoch: u32, phase: usize) -> Vec<u32> {
        order(self.len(phase), self.seed, PHASES + epoch * (self.phases.len() as u32 + 1) + phase as u32)
    }

    /// Holds the rows of a phase.
    fn fill(&mut self, epoch: u32, phase: usize, alive: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if self.at == Some((epoch, phase)) {
            return Ok(());
        }
        let last = phase == self.phases.len();
        self.before = match last && self.at == Some((epoch, phase - 1)) {
            true => std::mem::take(&mut self.rows),
            false => Vec::new(),
        };
        self.at = None;
        self.rows.clear();
        if let Some(part) = phase.checked_sub(1) {
            let held = self.waiting.take().filter(|(pass, held, _)| (*pass, *held) == (epoch, part));
            self.rows = match held {
                Some((_, _, rows)) => rows,
                None => self.part(epoch, part, alive)?.1,
            };
        }
        if phase < self.phases.len() {
            let (now, later) = self.part(epoch, phase, alive)?;
            self.rows.extend(now);
            self.waiting = Some((epoch, phase, later));
        }
        self.at = Some((epoch, phase));
        Ok(())
    }

    /// The two halves of a part, drawn by the seed.
    fn part(&mut self, epoch: u32, part: usize, alive: &mut dyn FnMut() -> Result<()>) -> Result<(Vec<f32>, Vec<f32>)> {
        let (d, n, taken) = (self.stream.d_model, self.stream.parts[part], self.phases[part]);
        let mut rows = Vec::new();
        reserve(&mut rows, n.saturating_mul(d), format_args!("part {part} of the rows"))?;
        (self.stream.read)(part, &mut rows, alive)?;
        if rows.len() != n * d {
            return Err(Error::mismatch(format!("part {part}: expected {n} rows, found {} values", rows.len())));
        }
        let drawn = order(n, self.seed, epoch * self.phases.len() as u32 + part as u32);
        let pick = |ids: &[u32]| -> Vec<f32> {
            ids.iter().flat_map(|&i| rows[i as usize * d..(i as usize + 1) * d].iter().copied()).collect()
        };
        Ok((pick(&drawn[..taken]), pick(&drawn[taken..])))
    }

    /// The rows of the last two phases.
    fn last_rows(&mut self, epoch: u32, alive: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f32>> {
        let last = self.phases.len();
        if self.at != Some((epoch, last)) || self.before.is_empty() {
            self.at = None;
            self.fill(epoch, last - 1, alive)?;
            self.fill(epoch, last, alive)?;
        }
        let mut rows = std::mem::take(&mut self.before);
        rows.append(&mut self.rows);
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::silent;
    use crate::train::Variant;
    use rand::Rng;

    const D: usize = 8;

    fn data(n: usize) -> Vec<f32> {
        let mut rng = crate::num::rng(5);
        (0..n * D).map(|_| rng.random_range(-1.0..1.0f32)).collect()
    }

    fn stream<'r>(rows: &'r [f32], parts: &[usize], read: &'r std::cell::Cell<usize>) -> Stream<'r> {
        let bounds: Vec<usize> = parts.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).collect();
        let lengths = parts.to_vec();
        Stream {
            d_model: D,
            parts: parts.to_vec(),
            fingerprint: "test".into(),
            info: Info { name: "streamed".into(), ..Info::default() },
            held_out: Vec::new(),
            read: Box::new(move |part, out, alive| {
                read.set(read.get() + 1);
                out.extend_from_slice(&rows[bounds[part] * D..(bounds[part] + lengths[part]) * D]);
                alive()
            }),
        }
    }

    fn options() -> Options {
        let plain = Options { n_features: 32, k: 4, batch: 50, epochs: 2, threads: 1, ..Options::default() };
        Options { variant: Variant::TopK, checkpoint_every: 3, ..plain }
    }

    #[test]
    fn every_row_is_served_once_a_pass_and_parts_mix() {
        let parts = [130, 101, 117, 260];
        let rows: Vec<f32> = (0..608).flat_map(|i| [i as f32; D]).collect();
        let read = std::cell::Cell::new(0);
        let mut source = stream(&rows, &parts, &read);
        let phases = phases(&parts, 50).unwrap();
        let mut buffer = Buffer {
            stream: &mut source,
            phases,
            seed: 3,
            at: None,
            rows: Vec::new(),
            waiting: None,
            before: Vec::new(),
        };
        for epoch in 0..2 {
            let mut seen = Vec::new();
            for phase in 0..=parts.len() {
                buffer.fill(epoch, phase, &mut || Ok(())).unwrap();
                assert_eq!(buffer.rows.len(), buffer.len(phase) * D);
                assert!(phase == parts.len() || buffer.len(phase).is_multiple_of(50), "{phase}");
                seen.extend(buffer.rows.chunks(D).map(|row| row[0] as usize));
                if phase == 1 {
                    let own = buffer.rows.chunks(D).filter(|row| row[0] >= 130.0).count();
                    assert_eq!((own, buffer.len(1)), (20, 100), "two parts are mixed in whole batches");
                }
            }
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..608), "every row once");
        }
        assert_eq!(read.get(), 8, "every part is made once a pass");
        assert_eq!(buffer.last_rows(1, &mut || Ok(())).unwrap().len(), (buffer.len(3) + buffer.len(4)) * D);
        assert_eq!(read.get(), 8, "the last two phases are still there");
        let steps: Vec<_> = (0..13).map(|step| buffer.place(step, 50)).collect();
        assert_eq!((steps[0], steps[12]), ((0, 0, 0), (1, 0, 0)));
        assert!(super::phases(&[130, 99], 50).unwrap_err().message().contains("two batches (50) or more, found 99"));
    }

    fn bits(dictionaries: &[Dictionary]) -> Vec<u32> {
        let mut row = vec![0.0; D];
        let mut all = Vec::new();
        for dictionary in dictionaries {
            for i in 0..dictionary.n_features() {
                dictionary.decoder_row(i, &mut row);
                all.extend(row.iter().map(|x| x.to_bits()));
            }
            all.extend(dictionary.feature_stats().unwrap().iter().map(|stats| stats.mean.to_bits()));
        }
        all
    }

    #[test]
    fn streamed_runs_go_on_to_the_same_bits() {
        let (rows, read) = (data(600), std::cell::Cell::new(0));
        let source = || Stream { held_out: data(40), ..stream(&rows, &[150, 150, 300], &read) };
        let both = [options(), Options { k: 2, ..options() }];
        let mut metrics = Vec::new();
        let mut note = |i: usize, m: &Metrics| metrics.push((i, *m));
        let whole = fit_stream(&mut source(), &both, &[], &mut silent, &mut note).unwrap();
        assert_eq!(metrics.len(), 48);
        let held_out = metrics.last().unwrap().1.held_out.expect("measured at the end");
        assert!(held_out.rows == 40 && held_out.fvu > 0.0, "{held_out:?}");
        assert!(whole.len() == 2 && whole[0].info().name == "streamed");
        let alone = fit_stream(&mut source(), &both[1..], &[], &mut silent, &mut |_, _| ()).unwrap();
        assert_eq!(bits(&alone), bits(&whole[1..]), "on its own");
        for stop in [2, 14, 30, 46] {
            let dir = tempfile::tempdir().unwrap();
            let paths = [dir.path().join("a.safetensors"), dir.path().join("b.safetensors")];
            let steps = std::cell::Cell::new(0);
            let mut count = |_: usize, _: &Metrics| steps.set(steps.get() + 1);
            let mut alive = |_: crate::progress::Step<'_>| steps.get() < stop;
            let stopped = fit_stream(&mut source(), &both, &paths, &mut alive, &mut count);
            assert_eq!(stopped.unwrap_err().kind(), Kind::Cancelled);
            // One of the two is set back to an older state.
            if stop == 30 {
                std::fs::remove_file(&paths[1]).unwrap();
            }
            let resumed = fit_stream(&mut source(), &both, &paths, &mut silent, &mut |_, _| ()).unwrap();
            assert_eq!(bits(&resumed), bits(&whole), "stopped at {stop}");
            let mut other = Stream { fingerprint: "others".into(), ..source() };
            let error = fit_stream(&mut other, &both, &paths, &mut silent, &mut |_, _| ()).unwrap_err();
            assert_eq!(error.kind(), Kind::Mismatch);
        }
    }

    #[test]
    fn a_run_that_is_stopped_while_rows_are_made_goes_on_where_it_was() {
        let (rows, read) = (data(600), std::cell::Cell::new(0));
        let source = || stream(&rows, &[150, 150, 300], &read);
        let runs = [Options { checkpoint_every: 1000, ..options() }];
        let whole = fit_stream(&mut source(), &runs, &[], &mut silent, &mut |_, _| ()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = [dir.path().join("run.safetensors")];
        let done = std::cell::Cell::new(0);
        let mut alive = |step: crate::progress::Step<'_>| step.note != "reading" || done.get() < 8;
        let stopped = fit_stream(&mut source(), &runs, &path, &mut alive, &mut |_, m| done.set(m.step));
        assert_eq!(stopped.unwrap_err().kind(), Kind::Cancelled);
        let mut first = None;
        let mut note = |_: usize, m: &Metrics| {
            first.get_or_insert(m.step);
        };
        let resumed = fit_stream(&mut source(), &runs, &path, &mut silent, &mut note).unwrap();
        assert_eq!((first, bits(&resumed)), (Some(done.get() + 1), bits(&whole)));
    }
}
