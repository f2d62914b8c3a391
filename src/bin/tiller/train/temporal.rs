//! `tiller train temporal`: which feature drives which, now and later, from rows in text order.

use clap::Args as Clap;
use serde_json::json;
use std::path::PathBuf;
use tiller::activations::Activations;
use tiller::dictionary::Dictionary;
use tiller::train::temporal::{
    Forecast, JointOptions, Sequences, Temporal, TwoStageOptions, forecast, joint, two_stage,
};
use tiller::{Error, Result};

use crate::output::Out;
use crate::paths::{check_outputs, shown};

/// Which feature drives which, in the same row and in later ones
#[derive(Clap)]
pub(crate) struct Args {
    /// A directory that `tiller harvest` wrote
    #[arg(long, value_name = "DIR")]
    rows: PathBuf,
    /// The dictionary whose features are the latents; without it, latents are found in the rows themselves
    #[arg(long, value_name = "FILE")]
    dictionary: Option<PathBuf>,
    /// Rows that the present may depend on
    #[arg(long, default_value_t = 2, value_name = "N")]
    lags: usize,
    /// Latents: of the dictionary, the N features that say most about the text
    #[arg(long, default_value_t = 512, value_name = "N")]
    latents: usize,
    /// Go on from the two-stage estimate by gradient descent on the whole objective
    #[arg(long)]
    joint: bool,
    /// Weight of the noise, for --joint
    #[arg(long, default_value_t = JointOptions::default().alpha)]
    alpha: f32,
    /// Weight of the sparsity, for --joint
    #[arg(long, default_value_t = JointOptions::default().beta)]
    beta: f32,
    /// Times that every row is seen, for --joint
    #[arg(long, default_value_t = JointOptions::default().epochs, value_name = "N")]
    epochs: u32,
    /// Where to keep the state now and then, for --joint; if the file is there, go on from it
    #[arg(long, value_name = "FILE", requires = "joint")]
    checkpoint: Option<PathBuf>,
    /// Ridge of the regression on the past
    #[arg(long, default_value_t = 1e-3)]
    ridge: f64,
    /// Least effect that counts, in standard deviations
    #[arg(long, default_value_t = TwoStageOptions::default().smallest)]
    smallest: f64,
    /// Rows that are unmixed, at most
    #[arg(long, default_value_t = TwoStageOptions::default().ica_rows, value_name = "N")]
    ica_rows: usize,
    /// Steps of unmixing, at most
    #[arg(long, default_value_t = TwoStageOptions::default().ica_steps, value_name = "N")]
    ica_steps: usize,
    /// Every Nth document is held out to test the forecast on
    #[arg(long, default_value_t = 10, value_name = "N")]
    hold_out: usize,
    /// Seed of the order of pieces, for --joint
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Threads; 0 takes all. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let start = std::time::Instant::now();
    let threads = match args.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let inputs = [&args.rows].into_iter().chain(&args.dictionary);
    check_outputs([&args.out].into_iter().chain(&args.checkpoint), inputs)?;
    let rows = Activations::open(&args.rows)?;
    let mut bar = out.bar("temporal", "rows");
    let sequences = match &args.dictionary {
        None => Sequences::from_activations(&rows)?,
        Some(path) => {
            let dictionary = Dictionary::open(path)?;
            Sequences::from_dictionary(&rows, &dictionary, args.latents, threads, &mut |step| bar.step(step))
                .map_err(|e| e.context(path.display()))?
        }
    };
    let (kept, held) = sequences.hold_out(args.hold_out)?;
    let model = estimate(args, &kept, &mut |step| bar.step(step))?;
    model.save(&args.out)?;
    let forecast = forecast(&model, &held, threads, &mut |step| bar.step(step))?;
    drop(bar);
    show(args, out, (&model, &forecast), kept.len(), start.elapsed().as_secs_f64())
}

fn estimate(args: &Args, rows: &Sequences<'_>, progress: &mut tiller::progress::Progress<'_>) -> Result<Temporal> {
    let stages = TwoStageOptions {
        lags: args.lags,
        n_latents: args.latents,
        ridge: args.ridge,
        smallest: args.smallest,
        ica_rows: args.ica_rows,
        ica_steps: args.ica_steps,
        threads: args.threads,
        ..TwoStageOptions::default()
    };
    if !args.joint {
        return two_stage(rows, &stages, progress);
    }
    let options = JointOptions {
        lags: args.lags,
        n_latents: args.latents,
        two_stage: Some(stages),
        alpha: args.alpha,
        beta: args.beta,
        epochs: args.epochs,
        seed: args.seed,
        threads: args.threads,
        ..JointOptions::default()
    };
    joint(rows, &options, args.checkpoint.as_deref(), progress).map_err(super::stopped(args.checkpoint.as_slice()))
}

fn show(args: &Args, out: &Out, (model, forecast): (&Temporal, &Forecast), n_rows: usize, seconds: f64) -> Result<()> {
    let n_bytes = std::fs::metadata(&args.out).map_err(|e| Error::io("open", &args.out, e))?.len();
    let count = |weights: &[f32]| weights.iter().filter(|w| **w != 0.0).count();
    let (now, later) = (count(model.instantaneous()), count(model.lagged()));
    if out.json() {
        return out.object(&json!({
            "temporal": shown(&args.out), "rows": n_rows, "latents": model.n_latents(), "lags": model.lags(),
            "instantaneous": now, "delayed": later, "held_out": forecast, "bytes": n_bytes, "seconds": seconds,
        }));
    }
    let share = |v: f64| format!("{:.2} %", 100.0 * v);
    out.facts(&[
        ("temporal model", args.out.display().to_string()),
        ("rows", n_rows.to_string()),
        ("latents", model.n_latents().to_string()),
        ("relations in the same row", now.to_string()),
        ("relations to later rows", later.to_string()),
        ("rows held out", forecast.rows.to_string()),
        ("variance explained from the past", share(forecast.from_past)),
        ("with time shuffled", share(forecast.from_shuffled_past)),
        ("from past and present", share(forecast.from_past_and_present)),
        ("with time shuffled", share(forecast.from_shuffled_past_and_present)),
        ("bytes", n_bytes.to_string()),
        ("seconds", format!("{seconds:.1}")),
    ])
}
