//! What the temporal estimator finds of a known process, and how its time grows with the number of latents.
//!
//! The process is the paper's (arXiv 2509.23323): sparse B_τ and M, Laplace noise, a well-conditioned mixing. The baseline of
//! a quality is 0.9, which the paper reports as its MCC; of a time, the one of the size before: the ratio is its growth.

use tiller::Result;
use tiller::progress::Step;
use tiller::train::temporal::{Process, Recovery, Shape, TwoStageOptions, recovery, two_stage};

use super::{Args, Line, Lines, seconds};

/// Sizes if none are given: what takes seconds to a minute.
const SIZES: [usize; 4] = [16, 32, 64, 128];
const LAGS: usize = 2;
const PAPER: f64 = 0.9;

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let sizes = if args.latents.is_empty() { &SIZES[..] } else { args.latents.as_slice() };
    let seeds = args.pairs.max(1);
    for codes in [true, false] {
        let mut before = f64::NAN;
        for &n in sizes {
            let mut found = Vec::new();
            for seed in 0..seeds as u64 {
                found.push(measure(n, seed, codes, args.machine.threads, lines)?);
            }
            let mean = |of: &dyn Fn(&(f64, Recovery)) -> f64| found.iter().map(of).sum::<f64>() / found.len() as f64;
            let time = mean(&|f| f.0);
            let what = if codes { "latents given" } else { "rows" };
            let mut push = |quality: &str, value: f64, unit: &'static str, baseline: f64| {
                lines.push(Line {
                    bench: "temporal",
                    case: format!("{what}, {n} latents, {quality}"),
                    model: format!("synthetic, {} rows", n_rows(n)),
                    value,
                    unit,
                    baseline,
                    ratio: value / baseline,
                    n: seeds,
                    interval: None,
                })
            };
            if !codes {
                push("MCC", mean(&|f| f.1.mcc), "MCC", PAPER)?;
            }
            push("support of B", mean(&|f| f.1.f1_lagged), "F1", PAPER)?;
            push("support of M", mean(&|f| f.1.f1_instantaneous), "F1", PAPER)?;
            push("time", time, "s", before)?;
            lines.grow("seconds of the estimate, two lags", "latents", what, (n as f64, time));
            before = time;
        }
    }
    Ok(())
}

/// Rows that a size gets: ICA of n components needs more than n².
fn n_rows(n: usize) -> usize {
    (30_000 + 400 * n).max(n * n / 2)
}

fn measure(n: usize, seed: u64, codes: bool, threads: usize, lines: &Lines<'_>) -> Result<(f64, Recovery)> {
    let mut bar = lines.out.bar(&format!("{n} latents"), "rows");
    let mut process = Process::new(Shape { n_latents: n, lags: LAGS, seed })?;
    let z = process.latents(n_rows(n));
    let rows = if codes { process.sequences(z.clone())?.as_codes() } else { process.sequences(process.mix(&z))? };
    let options = TwoStageOptions {
        lags: LAGS,
        n_latents: n,
        ica_rows: (n * n / 2).max(100_000),
        threads,
        ..TwoStageOptions::default()
    };
    let (time, model) = seconds(|| two_stage(&rows, &options, &mut |step: Step<'_>| bar.step(step)))?;
    drop(rows);
    // A part of the rows is enough to correlate.
    let part = &z[..z.len().min(20_000 * n)];
    let recovered = if codes { part.to_vec() } else { model.encode(&process.mix(part))? };
    Ok((time, recovery(&process, &model, part, &recovered)?))
}
