//! `tiller eval side-effects`: what a temporal model predicts of an edit, beside what the language model does.

use clap::Args as Clap;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use tiller::dictionary::Dictionary;
use tiller::eval::temporal::{Options, SideEffect, side_effects};
use tiller::eval::trial::PROMPTS;
use tiller::train::temporal::Temporal;
use tiller::{Error, Result};

use crate::open::Machine;
use crate::output::{Out, when_cancelled};

/// Whether the side effects that a temporal model predicts are the ones that the model has
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// The temporal model
    #[arg(long, value_name = "FILE")]
    temporal: PathBuf,
    /// The dictionary that it is on; none for a model of rows
    #[arg(long, value_name = "FILE")]
    dictionary: Option<PathBuf>,
    /// Features to edit, one after the other
    #[arg(long, required = true, value_delimiter = ',', value_name = "ID,…")]
    feature: Vec<u32>,
    /// How strongly, in standard deviations of the feature
    #[arg(long, default_value_t = 10.0, allow_negative_numbers = true)]
    strength: f32,
    /// Edit the feature alone, without what it drives in the same row
    #[arg(long)]
    isolated: bool,
    /// Tokens after the edit
    #[arg(long, default_value_t = Options::default().steps, value_name = "N")]
    steps: usize,
    /// Continuations of each of ten neutral prompts
    #[arg(long, default_value_t = Options::default().samples, value_name = "N")]
    samples: usize,
    #[command(flatten)]
    machine: Machine,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let model = Temporal::open(&args.temporal)?;
    let dictionary = args.dictionary.as_ref().map(|path| Dictionary::open(path).map(Arc::new)).transpose()?;
    let mut engine = args.machine.engine(&args.model, 512, 1)?;
    let prompts: Vec<String> = PROMPTS.iter().map(|&prompt| prompt.to_owned()).collect();
    let options = Options { steps: args.steps, samples: args.samples, propagate: !args.isolated, ..Options::default() };
    let mut rows = Vec::new();
    let mut work = |feature: u32| -> Result<()> {
        let latent = model.latent(feature).ok_or_else(|| {
            let (path, n) = (args.temporal.display(), model.n_latents());
            Error::argument(format!("{path}: feature {feature} is not among its {n}"))
        })?;
        let amount = args.strength * model.deviation()[latent];
        let mut bar = out.bar(&format!("feature {feature}"), "texts");
        let found = side_effects(
            &mut engine,
            &args.temporal,
            dictionary.as_ref(),
            (feature, amount),
            &prompts,
            &options,
            &mut |step| bar.step(step),
        )?;
        drop(bar);
        for effect in &found {
            if out.json() {
                out.object(&json!({
                    "feature": feature, "amount": amount, "tokens_later": effect.steps,
                    "correlation": effect.correlation, "control": effect.control,
                }))?;
            }
            rows.push(row(feature, amount, effect));
        }
        Ok(())
    };
    let worked = args.feature.iter().try_for_each(|&feature| work(feature));
    if rows.is_empty() {
        return worked;
    }
    let worked = worked.map_err(when_cancelled("the features done before are above"));
    if out.json() {
        return worked;
    }
    // Features that were done before a failure, or before Ctrl-C, are shown.
    out.table(&["feature", "amount", "tokens later", "correlation", "with other latents' predictions"], rows)?;
    worked
}

fn row(feature: u32, amount: f32, effect: &SideEffect) -> Vec<String> {
    vec![
        feature.to_string(),
        format!("{amount:.2}"),
        effect.steps.to_string(),
        format!("{:+.3}", effect.correlation),
        format!("{:+.3}", effect.control),
    ]
}
