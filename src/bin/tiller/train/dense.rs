//! `tiller train conca` and `tiller train ssae`: coders whose codes are dense.

use clap::Args as Clap;
use serde_json::json;
use std::path::{Path, PathBuf};
use tiller::file::gguf::GgmlType;
use tiller::train::dense::{Coder, Metrics, Objective, Options, Regularizer, Sparsity, fit_with};
use tiller::train::{Journal, Rows};
use tiller::{Error, Result};

use super::sae::stored;
use super::source::{Kinds, Source};
use crate::open::Machine;
use crate::output::Out;
use crate::paths::{check_outputs, shown};

/// A ConCA coder: codes that are log-posteriors of concepts
#[derive(Clap)]
pub(crate) struct Conca {
    /// Directories that `tiller harvest` wrote, or .npy, .npz, safetensors or torch files with rows [n, d]
    #[arg(required = true)]
    rows: Vec<PathBuf>,
    /// The tensor that holds the rows, in files with several
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// R: layer_norm, group_norm:GROUPS, batch_norm or dropout:SHARE
    #[arg(long, default_value = "layer_norm", value_parser = parse::<Regularizer>, value_name = "R")]
    regularizer: Regularizer,
    /// g, whose norm is made small: softplus, selu or elu
    #[arg(long, default_value = "softplus", value_parser = parse::<Sparsity>, value_name = "G")]
    sparsity: Sparsity,
    /// The weight of g
    #[arg(long, default_value_t = 1e-4)]
    alpha: f32,
    /// Also write the coder as a dictionary, for plans, explanations and steering
    #[arg(long, value_name = "FILE.gguf")]
    dictionary: Option<PathBuf>,
    /// How the dictionary's weights are stored: f32, f16, bf16 or q8_0
    #[arg(long, default_value = "f16", value_parser = stored)]
    quant: GgmlType,
    #[command(flatten)]
    common: Common,
    /// Threads; 0 takes all. The result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// An SSAE: a coder of differences between paired rows
#[derive(Clap)]
pub(crate) struct Ssae {
    /// Rows that are differences already; or give --positive and --negative, or --pairs
    differences: Vec<PathBuf>,
    #[command(flatten)]
    kinds: Kinds,
    /// The largest mean of |code|
    #[arg(long, default_value_t = 0.005)]
    level: f32,
    /// How fast the multiplier grows while the level is exceeded
    #[arg(long, default_value_t = 1e-3)]
    dual_rate: f32,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clap)]
struct Common {
    /// Codes
    #[arg(long, default_value_t = 4096, value_name = "N")]
    latents: usize,
    /// Rows a step
    #[arg(long, default_value_t = 2048, value_name = "N")]
    batch: usize,
    /// Steps
    #[arg(long, default_value_t = 2000, value_name = "N")]
    steps: u64,
    /// Learning rate [default: 1e-4 for conca, 1e-3 for ssae]
    #[arg(long)]
    lr: Option<f32>,
    /// Steps of warm-up
    #[arg(long, default_value_t = 200, value_name = "N")]
    warm_up: u64,
    /// Seed of the start and of the order of rows
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The coder to write
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Where to keep the state now and then; if the file is there, go on from it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// A line of JSON for every step
    #[arg(long, value_name = "FILE.jsonl")]
    metrics: Option<PathBuf>,
}

fn parse<T: std::str::FromStr<Err = Error>>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|e: Error| e.message().to_owned())
}

impl Common {
    fn options(&self, base: Options, threads: usize) -> Options {
        Options {
            n_latents: self.latents,
            batch: self.batch,
            steps: self.steps,
            lr: self.lr.unwrap_or(base.lr),
            warm_up: self.warm_up,
            seed: self.seed,
            threads,
            ..base
        }
    }

    fn outputs(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.out].into_iter().chain(&self.checkpoint).chain(&self.metrics)
    }

    fn train(&self, rows: &Rows<'_>, options: &Options, out: &Out) -> Result<(Coder, Option<Metrics>, f64)> {
        let mut bar = out.bar("train", "rows");
        let start = std::time::Instant::now();
        let (mut journal, mut told, mut last) = (self.metrics.as_deref().map(Journal::new), Ok(()), None);
        let coder = fit_with(rows, options, self.checkpoint.as_deref(), &mut |step| bar.step(step), &mut |metrics| {
            if let (Some(journal), true) = (&mut journal, told.is_ok()) {
                told = journal.line(metrics.step, metrics);
            }
            last = Some(*metrics);
        });
        let coder = coder.map_err(super::stopped(self.checkpoint.as_slice()))?;
        drop(bar);
        coder.save(&self.out)?;
        // A journal that could not be written costs no coder.
        told?;
        Ok((coder, last, start.elapsed().as_secs_f64()))
    }

    fn tell(
        &self,
        coder: &Coder,
        last: Option<Metrics>,
        n_rows: usize,
        seconds: f64,
        other: Option<&Path>,
        out: &Out,
    ) -> Result<()> {
        if out.json() {
            return out.object(&json!({
                "coder": shown(&self.out), "dictionary": other.map(shown), "rows": n_rows, "latents": coder.n_latents(),
                "regularizer": coder.regularizer().name(), "seconds": seconds, "last": last,
            }));
        }
        out.facts(&[
            ("coder", self.out.display().to_string()),
            ("dictionary", other.map_or_else(String::new, |path| path.display().to_string())),
            ("rows", n_rows.to_string()),
            ("latents", coder.n_latents().to_string()),
            ("MSE", last.map_or_else(String::new, |m| format!("{:.4}", m.mse))),
            ("FVU", last.map_or_else(String::new, |m| format!("{:.4}", m.fvu))),
            ("sparsity", last.map_or_else(String::new, |m| format!("{:.5}", m.sparsity))),
            ("seconds", format!("{seconds:.1}")),
        ])
    }
}

pub(crate) fn conca(args: &Conca, out: &Out) -> Result<()> {
    check_outputs(args.common.outputs().chain(&args.dictionary), &args.rows)?;
    let source = Source::open(&args.rows, args.tensor.as_deref())?;
    let rows = source.rows()?;
    let base = Options {
        objective: Objective::Conca { alpha: args.alpha, sparsity: args.sparsity },
        regularizer: args.regularizer,
        ..Options::conca()
    };
    let (coder, last, seconds) = args.common.train(&rows, &args.common.options(base, args.threads), out)?;
    if let Some(path) = &args.dictionary {
        coder.to_dictionary()?.save_gguf(path, args.quant)?;
    }
    args.common.tell(&coder, last, rows.len(), seconds, args.dictionary.as_deref(), out)
}

pub(crate) fn ssae(args: &Ssae, out: &Out) -> Result<()> {
    check_outputs(args.common.outputs(), args.kinds.inputs().chain(&args.differences))?;
    let base =
        Options { objective: Objective::Ssae { level: args.level, dual_rate: args.dual_rate }, ..Options::ssae() };
    let options = args.common.options(base, args.machine.threads);
    let finish = |rows: &Rows<'_>| {
        let (coder, last, seconds) = args.common.train(rows, &options, out)?;
        args.common.tell(&coder, last, rows.len(), seconds, None, out)
    };
    if !args.differences.is_empty() {
        let source = Source::open(&args.differences, args.kinds.tensor.as_deref())?;
        return finish(&source.rows()?);
    }
    if args.kinds.pairs.is_none() && !args.kinds.positive.is_empty() {
        // Rows stay on disk.
        let tensor = args.kinds.tensor.as_deref();
        let (up, down) = (Source::open(&args.kinds.positive, tensor)?, Source::open(&args.kinds.negative, tensor)?);
        let (up, down) = (up.rows()?, down.rows()?);
        return finish(&Rows::differences(&down, &up)?);
    }
    let (pairs, _) = args.kinds.read(&args.machine, out)?;
    let [pair] = &pairs[..] else {
        return Err(Error::argument("an SSAE is of one layer: give one --layer"));
    };
    let up = Rows::from_slice(pair.d_model, &pair.positive)?.with_info(pair.info.clone());
    let down = Rows::from_slice(pair.d_model, &pair.negative)?.with_info(pair.info.clone());
    finish(&Rows::differences(&down, &up)?)
}
