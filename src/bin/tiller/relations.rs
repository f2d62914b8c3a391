//! `tiller relations`: what a temporal model says, in words.

use clap::Args as Clap;
use serde_json::json;
use std::path::PathBuf;
use tiller::explain::Explanations;
use tiller::train::temporal::{Relation, Temporal};
use tiller::{Error, Result};

use crate::output::Out;

/// Show which features drive which, as `tiller train temporal` found it
#[derive(Clap)]
pub(crate) struct Args {
    /// The temporal model
    model: PathBuf,
    /// What the features mean, as `tiller explain` writes it
    #[arg(long, value_name = "FILE")]
    explanations: Option<PathBuf>,
    /// Only relations of features that have an explanation, both of them
    #[arg(long, requires = "explanations", conflicts_with = "after")]
    explained: bool,
    /// How many relations of each kind
    #[arg(short, long = "number", default_value_t = 15, value_name = "N")]
    n: usize,
    /// Only relations of this feature, as cause or as effect
    #[arg(long, value_name = "ID")]
    feature: Option<u32>,
    /// Also a feature's memory of itself
    #[arg(long)]
    memory: bool,
    /// What follows an edit of --feature by one standard deviation, in this row and the next N
    #[arg(long, value_name = "N", requires = "feature")]
    after: Option<usize>,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let model = Temporal::open(&args.model)?;
    let explanations = args.explanations.as_deref().map(Explanations::load).transpose()?;
    if let Some((explanations, path)) = explanations.as_ref().zip(args.explanations.as_ref()) {
        let origin = model.origin();
        let layer = origin.point.and_then(|point| point.resid_post());
        let checked = explanations.check_origin(layer, &origin.model, &origin.model_fingerprint);
        checked.map_err(|e| e.context(path.display()))?;
    }
    let names = Names { model: &model, explanations: explanations.as_ref() };
    let latent = match args.feature {
        None => None,
        Some(id) => Some(model.latent(id).ok_or_else(|| {
            Error::argument(format!("{}: feature {id} is not among its {}", args.model.display(), model.n_latents()))
        })?),
    };
    if let (Some(latent), Some(steps)) = (latent, args.after) {
        return after(args, &names, latent, steps, out);
    }
    let all = model.relations();
    let chosen = |r: &&Relation| {
        (args.memory || r.from != r.to)
            && latent.is_none_or(|latent| latent == r.from || latent == r.to)
            && (!args.explained || [r.from, r.to].iter().all(|&latent| !names.words(latent).is_empty()))
    };
    for (kind, now) in [("in the same row", true), ("in later rows", false)] {
        let chosen: Vec<&Relation> = all.iter().filter(|r| (r.lag == 0) == now).filter(chosen).take(args.n).collect();
        if out.json() {
            chosen.iter().try_for_each(|r| out.object(&names.json(r)))?;
            continue;
        }
        out.line(format!("{kind}:"))?;
        let columns = ["lag", "strength", "from", "words", "to", "words"];
        out.table(&columns, chosen.iter().map(|r| names.row(r)))?;
    }
    Ok(())
}

/// The strongest effects of an edit, row by row.
fn after(args: &Args, names: &Names<'_>, latent: usize, steps: usize, out: &Out) -> Result<()> {
    let model = names.model;
    let mut edit = vec![0.0; model.n_latents()];
    edit[latent] = model.deviation()[latent];
    let mut rows = Vec::new();
    for (lag, effect) in model.response(&edit, steps)?.iter().enumerate() {
        let deviations = |i: usize| effect[i] / model.deviation()[i].max(f32::MIN_POSITIVE);
        let mut order: Vec<usize> = (0..effect.len()).filter(|&i| effect[i] != 0.0).collect();
        order.sort_by(|&a, &b| deviations(b).abs().total_cmp(&deviations(a).abs()).then(a.cmp(&b)));
        for i in order.into_iter().take(args.n) {
            if out.json() {
                out.object(&json!({
                    "rows_later": lag, "feature": names.id(i), "effect": effect[i], "deviations": deviations(i),
                    "words": names.words(i),
                }))?;
            }
            rows.push(vec![
                lag.to_string(),
                names.id(i).to_string(),
                format!("{:.3}", effect[i]),
                format!("{:.3}", deviations(i)),
                names.words(i),
            ]);
        }
    }
    if out.json() {
        return Ok(());
    }
    out.table(&["rows later", "feature", "effect", "deviations", "words"], rows)
}

/// Latents by what they are called.
struct Names<'m> {
    model: &'m Temporal,
    explanations: Option<&'m Explanations>,
}

impl Names<'_> {
    /// The dictionary's number of a latent, or its own.
    fn id(&self, latent: usize) -> u32 {
        self.model.features().get(latent).copied().unwrap_or(latent as u32)
    }

    fn words(&self, latent: usize) -> String {
        let explanation = self.explanations.and_then(|e| e.get(self.id(latent)));
        explanation.map_or_else(String::new, |e| e.summary(6))
    }

    fn row(&self, r: &Relation) -> Vec<String> {
        vec![
            r.lag.to_string(),
            format!("{:+.3}", r.strength),
            self.id(r.from).to_string(),
            self.words(r.from),
            self.id(r.to).to_string(),
            self.words(r.to),
        ]
    }

    fn json(&self, r: &Relation) -> serde_json::Value {
        json!({
            "lag": r.lag, "from": self.id(r.from), "to": self.id(r.to), "weight": r.weight, "strength": r.strength,
            "from_words": self.words(r.from), "to_words": self.words(r.to),
        })
    }
}
