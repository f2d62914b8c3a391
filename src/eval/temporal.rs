//! Are the side effects that a temporal model predicts the ones that the language model has?
//!
//! A temporal model (arXiv 2509.23323) says what follows an edit of latent i by a: Ψ_k e_i a, k rows later. In a forward pass
//! an edit at a layer reaches later rows of that layer never, only of the layers above; what does reach them is the text: the
//! edit changes which token comes next. So the check is made on text that the model writes. Each prompt is continued some
//! times without and with the edit at its last row; the continuations are then read by the unsteered model, and the mean
//! change of every latent, k tokens after the edit, is compared with the prediction. The control is the same comparison with
//! the predictions for other latents.

use std::path::Path;
use std::sync::Arc;

use rand::Rng;

use crate::dictionary::Dictionary;
use crate::engine::{Engine, Generate};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;
use crate::num::{rng, stats};
use crate::plan::{Compiled, Op, Plan, Route, Rule, Strength};
use crate::progress::{Progress, report};
use crate::train::temporal::Temporal;

/// Latents whose predictions are the control.
const CONTROLS: usize = 50;

/// How the check is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens after the edit.
    pub steps: usize,
    /// Continuations of each prompt.
    pub samples: usize,
    /// Sampling temperature.
    pub temperature: f32,
    /// The edit brings along what it drives in the same row.
    pub propagate: bool,
    /// Seed of the sampler and of the controls.
    pub seed: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { steps: 4, samples: 8, temperature: 0.8, propagate: true, seed: 1 }
    }
}

/// Prediction and observation, `steps` tokens after the edit.
#[derive(Clone, Debug, PartialEq)]
pub struct SideEffect {
    /// Tokens after the edit, from 1.
    pub steps: usize,
    /// Ψ_k e_i a in standard deviations of each latent, `[n]`.
    pub predicted: Vec<f32>,
    /// Mean change of each latent, in its standard deviations, `[n]`.
    pub observed: Vec<f32>,
    /// Pearson correlation of the two.
    pub correlation: f64,
    /// The mean correlation of what was observed with the predictions for other latents.
    pub control: f64,
}

/// Edits `feature` (of `dictionary`, or a latent of a model of rows) by `amount` at the last row of each prompt, and compares
/// what the language model then writes with what `model`, opened from `file`, predicts. No plan is in force afterwards.
///
/// # Errors
/// [`Kind::Mismatch`](crate::Kind::Mismatch) if the parts do not belong together, [`Kind::Argument`](crate::Kind::Argument)
/// without prompts, samples or steps; what the engine returns; [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn side_effects(
    engine: &mut Engine,
    file: &Path,
    dictionary: Option<&Arc<Dictionary>>,
    (feature, amount): (u32, f32),
    prompts: &[String],
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Vec<SideEffect>> {
    let model = Temporal::open(file)?;
    let latent = model.latent(feature).ok_or_else(|| {
        Error::mismatch(format!("{}: feature {feature} is not among its {}", file.display(), model.n_latents()))
    })?;
    if prompts.is_empty() || options.samples == 0 || options.steps == 0 {
        return Err(Error::argument("side effects: expected one prompt, one sample and one step or more"));
    }
    let reader = Reader::new(&model, dictionary)?;
    let mut rule = Rule::new(Op::Add, [feature], Strength::raw(amount));
    if options.propagate || dictionary.is_none() {
        rule = rule.propagating(file);
    }
    let n = model.n_latents();
    // Sums of latents after k steps, unsteered and steered.
    let mut sums = vec![[vec![0f64; n], vec![0f64; n]]; options.steps];
    let mut counts = vec![[0usize; 2]; options.steps];
    let total = (prompts.len() * options.samples) as u64;
    for (p, prompt) in prompts.iter().enumerate() {
        let last = engine.tokenize(prompt, true)?.len().saturating_sub(1);
        let last = u32::try_from(last).map_err(|_| Error::argument("side effects: a prompt is too long"))?;
        (rule.select.from, rule.select.to, rule.select.include_first) = (Some(last), Some(last + 1), Some(true));
        let plan = Arc::new(compile(&rule, engine, dictionary)?);
        for sample in 0..options.samples {
            let seed = options.seed.wrapping_add((p * options.samples + sample) as u32);
            let generate = Generate {
                max_tokens: options.steps,
                temperature: options.temperature,
                seed,
                ignore_end: true,
                ..Generate::default()
            };
            for steered in [false, true] {
                let latents = reader.write(engine, steered.then_some(&plan), prompt, &generate)?;
                for (k, row) in latents.chunks_exact(n).enumerate().take(options.steps) {
                    counts[k][usize::from(steered)] += 1;
                    sums[k][usize::from(steered)].iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
                }
            }
            report(progress, (p * options.samples + sample + 1) as u64, total, "side effects")?;
        }
    }
    compare(&model, latent, amount, options, &sums, &counts)
}

/// The rule alone, for the engine's model.
fn compile(rule: &Rule, engine: &Engine, dictionary: Option<&Arc<Dictionary>>) -> Result<Compiled> {
    let named: Vec<(&str, Arc<Dictionary>)> = dictionary.map(|d| ("", d.clone())).into_iter().collect();
    Plan::new([rule.clone()]).compile(&named, &engine.target(), Route::Callback)
}

/// Latents of the rows of a text.
struct Reader<'m> {
    model: &'m Temporal,
    dictionary: Option<&'m Arc<Dictionary>>,
    point: HookPoint,
}

impl<'m> Reader<'m> {
    fn new(model: &'m Temporal, dictionary: Option<&'m Arc<Dictionary>>) -> Result<Self> {
        let own = dictionary.and_then(|d| d.point()).or(model.origin().point);
        let point = own.ok_or_else(|| Error::mismatch("the temporal model does not say where its rows were read"))?;
        if dictionary.is_some() == model.features().is_empty() {
            let what =
                if dictionary.is_some() { "is of rows and takes none" } else { "is on a dictionary, which is missing" };
            return Err(Error::mismatch(format!("dictionary: the temporal model {what}")));
        }
        Ok(Self { model, dictionary, point })
    }

    /// Writes a continuation and returns the latents of its tokens, `[tokens, n]`, as the unsteered model reads them.
    fn write(
        &self,
        engine: &mut Engine,
        plan: Option<&Arc<Compiled>>,
        prompt: &str,
        generate: &Generate,
    ) -> Result<Vec<f32>> {
        engine.set_plan(plan.cloned())?;
        let written = engine.generate(prompt, generate, &mut |_| true);
        engine.set_plan(None)?;
        let written = written?;
        let rows = engine.rows(&[written.prompt(), written.tokens()].concat(), self.point)?;
        let rows = rows.get(written.prompt().len() * engine.d_model()..).unwrap_or_default();
        let Some(dictionary) = self.dictionary else { return self.model.encode(rows) };
        let n = self.model.n_latents();
        let codes = dictionary.encode_batch(rows, engine.options().threads.max(1));
        let mut out = vec![0f32; codes.n_rows() * n];
        for (row, out) in codes.rows().zip(out.chunks_exact_mut(n)) {
            for &(feature, value) in row {
                if let Some(latent) = self.model.latent(feature) {
                    out[latent] = value;
                }
            }
        }
        Ok(out)
    }
}

fn compare(
    model: &Temporal,
    latent: usize,
    amount: f32,
    options: &Options,
    sums: &[[Vec<f64>; 2]],
    counts: &[[usize; 2]],
) -> Result<Vec<SideEffect>> {
    let n = model.n_latents();
    let deviation = |i: usize| model.deviation()[i].max(f32::MIN_POSITIVE);
    let predict = |latent: usize| -> Result<Vec<Vec<f32>>> {
        let mut edit = vec![0f32; n];
        edit[latent] = amount;
        let mut all = model.response(&edit, options.steps)?;
        all.iter_mut().for_each(|row| row.iter_mut().enumerate().for_each(|(i, v)| *v /= deviation(i)));
        Ok(all)
    };
    let mut random = rng(u64::from(options.seed));
    let controls = (0..CONTROLS)
        .map(|_| random.random_range(0..n))
        .filter(|&other| other != latent)
        .map(predict)
        .collect::<Result<Vec<_>>>()?;
    let own = predict(latent)?;
    let mut found = Vec::with_capacity(options.steps);
    for (k, (sums, counts)) in sums.iter().zip(counts).enumerate() {
        let mean = |i: usize, steered: usize| sums[steered][i] / counts[steered].max(1) as f64;
        let observed: Vec<f32> = (0..n).map(|i| ((mean(i, 1) - mean(i, 0)) / f64::from(deviation(i))) as f32).collect();
        // Predictions that are all zero correlate with nothing.
        let correlate = |predicted: &[f32]| {
            let r = stats::pearson(predicted, &observed);
            if r.is_nan() { 0.0 } else { r }
        };
        let control = controls.iter().map(|c| correlate(&c[k + 1])).sum::<f64>() / controls.len().max(1) as f64;
        let correlation = correlate(&own[k + 1]);
        found.push(SideEffect { steps: k + 1, predicted: own[k + 1].clone(), observed, correlation, control });
    }
    Ok(found)
}
