//! A guard from examples: fitted on one part of the messages, calibrated on another.
//!
//! | step | messages |
//! |---|---|
//! | rows of all layers at the last row before the answer, told to refuse and not; all others are silent ones | fitted on |
//! | one feature a layer, and one detector a layer, in closed form ([`train::learn`](crate::train::learn)) | fitted on |
//! | the detector's layer and its threshold: the quantile of the messages to be answered that the knob names | calibrating |
//! | the strength, by short answers | calibrating |

use std::sync::Arc;

use rand::seq::SliceRandom;
use serde::Serialize;

use super::file::{Guard, NAME};
use super::phrases::{Class, class};
use super::request::Request;
use super::rows::{self, Asking};
use super::scores::{Threshold, area};
use crate::dictionary::{Activation, Dictionary, FeatureStats, Info, Parts, Settings};
use crate::engine::{Engine, Generate};
use crate::error::{Error, Result};
use crate::num::rng;
use crate::plan::{Action, Monitor, Op, Plan, Rule, Selector, Strength, Verdict, When};
use crate::progress::{Progress, Step};
use crate::train::learn::{Contrast, Detector, Feature, Fit, Gate, detect, fit};

/// Counts up whenever the same request would give another guard.
pub const VERSION: u32 = 1;
/// λ of gates and detectors, in mean variances.
const LAMBDA: f64 = 1e-2;
/// Share of the silent rows on which a layer's own gate stays shut.
const SHUT: f64 = 0.98;
/// Messages of each side on which strengths are tried, and the tokens of their answers.
const TRIED: (usize, usize) = (16, 16);
/// Strengths, rising, and the share of refusals at which no stronger one is tried.
const LADDER: [f32; 4] = [1.0, 1.5, 2.0, 3.0];
const ENOUGH: f64 = 0.95;

/// What learning makes.
pub struct Outcome {
    /// The guard.
    pub guard: Guard,
    /// How it was made.
    pub report: Report,
}

/// How a guard was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The monitor's name.
    pub name: String,
    /// Messages that were fitted on: to be refused, to be answered.
    pub fitted: [usize; 2],
    /// Messages that calibrated.
    pub calibrated: [usize; 2],
    /// The monitor's layer.
    pub layer: usize,
    /// Its threshold.
    pub threshold: f32,
    /// Area under the curve of the monitor on the calibrating messages.
    pub area: f64,
    /// Shares of them on which it fires: to be refused, to be answered.
    pub fires: [f64; 2],
    /// Layers that the rule edits.
    pub layers: Vec<usize>,
    /// The rule's strength.
    pub strength: f32,
    /// What strengths did.
    pub doses: Vec<Dose>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What a strength did on calibrating messages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Dose {
    /// The strength.
    pub strength: f32,
    /// Share of the messages to be refused that were.
    pub refused: f64,
    /// Share of them with an answer that is none.
    pub incoherent: f64,
    /// Share of the messages to be answered that were refused or got no answer.
    pub lost: f64,
}

/// Messages of one side, dealt out.
struct Deal {
    fit: Vec<String>,
    hold: Vec<String>,
}

impl Deal {
    /// A quarter is held back; of either part no more is used than the request allows.
    fn of(messages: &[String], request: &Request) -> Self {
        let mut fit = messages.to_vec();
        fit.shuffle(&mut rng(request.seed));
        let mut hold = fit.split_off(fit.len() - fit.len() / 4);
        fit.truncate(request.messages);
        hold.truncate(request.messages);
        Self { fit, hold }
    }
}

/// Learns a guard. No plan is in force afterwards. Open the engine with several sequences: messages are read side by side.
/// Progress counts messages of each step.
///
/// # Errors
/// As [`Request::check`]; [`Kind::Unsupported`](crate::Kind::Unsupported) for a model without a chat template;
/// [`Kind::Numeric`](crate::Kind::Numeric) if the monitor does not tell the two sides apart at the wanted rate;
/// [`Kind::Cancelled`](crate::Kind::Cancelled); what the engine returns.
pub fn learn(engine: &mut Engine, request: &Request, progress: &mut Progress<'_>) -> Result<Outcome> {
    request.check()?;
    let started = std::time::Instant::now();
    engine.set_plan(None)?;
    let asking = Asking::new(engine, &request.instruction)?;
    let (refused, answered) = (Deal::of(&request.refused, request), Deal::of(&request.answered, request));
    let layers: Vec<usize> = (1..engine.n_layer().saturating_sub(1).max(2)).collect();
    let rows = rows::read(engine, &asking, (&refused.fit, &answered.fit), &layers, request, progress)?;
    let (detector, threshold, mut report) = monitor(engine, &asking, (&refused, &answered), &rows, request, progress)?;
    let edited: Vec<usize> = layers.into_iter().filter(|&layer| layer >= detector.layer).collect();
    let how = Fit { rank: 1, lambda: LAMBDA, gate: Gate::Class { shut: SHUT } };
    let features = fit(&rows, std::slice::from_ref(&edited), how, request.threads, progress)?.remove(0);
    drop(rows);
    let dictionary = Arc::new(dictionary(engine, request, &features, &detector, &report)?);
    let guard = |strength| Guard {
        plan: plan(request, &report, &features, threshold, strength),
        dictionary: dictionary.clone(),
    };
    let (strength, doses) = match request.strength {
        0.0 => strengths(engine, &asking, (&refused.hold, &answered.hold), &guard, progress)?,
        strength => (strength, Vec::new()),
    };
    let guard = guard(strength);
    report.layers = edited;
    (report.strength, report.doses, report.seconds) = (strength, doses, started.elapsed().as_secs_f64());
    Ok(Outcome { guard, report })
}

/// The detector of the layer that tells the calibrating messages apart best, and its threshold.
fn monitor(
    engine: &mut Engine,
    asking: &Asking,
    (refused, answered): (&Deal, &Deal),
    rows: &Contrast,
    request: &Request,
    progress: &mut Progress<'_>,
) -> Result<(Detector, f32, Report)> {
    // The layers from the monitor's on are left to act: the upper half refuses as well as all layers.
    let n = engine.n_layer();
    let candidates = (n / 4).max(1)..(n / 2 + 1).min(n - 1).max(2);
    let mut detectors = Vec::new();
    for layer in candidates {
        if !progress(Step { done: detectors.len() as u64, total: 0, note: "fitting detectors" }) {
            return Err(Error::cancelled());
        }
        detectors.push(detect(rows, layer, LAMBDA, request.threads)?);
    }
    let yes = rows::maxima(engine, asking, &refused.hold, &detectors, progress)?;
    let no = rows::maxima(engine, asking, &answered.hold, &detectors, progress)?;
    let judged = detectors.iter().enumerate().map(|(i, detector)| {
        let side = |side: &[Vec<f32>]| side.iter().map(|values| values[i]).collect::<Vec<_>>();
        let (yes, no) = (side(&yes), side(&no));
        let threshold = Threshold::at(&no, request.false_positives);
        (detector, threshold, [threshold.share(&yes), threshold.share(&no)], area(&yes, &no))
    });
    let best = judged.reduce(|a, b| if (b.2[0], b.3) > (a.2[0], a.3) { b } else { a });
    let (detector, threshold, fires, area) =
        best.ok_or_else(|| Error::numeric("guard: the model has too few layers"))?;
    if fires[0] <= fires[1] {
        return Err(Error::numeric(format!(
            "guard: at {:.1} % of the messages to be answered the monitor fires on {:.1} % of the others: it does not tell them apart",
            100.0 * fires[1],
            100.0 * fires[0]
        ))
        .hinted("give more examples, or ones that differ more; or allow more with --false-positives"));
    }
    let report = Report {
        name: request.name.clone(),
        fitted: [refused.fit.len(), answered.fit.len()],
        calibrated: [refused.hold.len(), answered.hold.len()],
        layer: detector.layer,
        threshold: threshold.value,
        area,
        fires,
        ..Report::default()
    };
    Ok((detector.clone(), threshold.value, report))
}

/// The features of the edited layers, and behind them the detector, whose direction is that of its layer's feature.
fn dictionary(
    engine: &Engine,
    request: &Request,
    features: &[Feature],
    detector: &Detector,
    report: &Report,
) -> Result<Dictionary> {
    let model = engine.counted_as(request.counts_as.as_deref())?;
    let d = engine.d_model();
    let flat = |rows: &mut dyn Iterator<Item = &Vec<f32>>| rows.flatten().copied().collect::<Vec<f32>>();
    let own = features.first().map_or_else(|| vec![0.0; d], |feature| feature.decoder.clone());
    let recipe = serde_json::json!({
        "guard": VERSION, "fitted": report.fitted, "calibrated": report.calibrated, "seed": request.seed,
        "false_positives": request.false_positives, "instruction": request.instruction, "max_tokens": request.max_tokens,
    });
    let of = |f: &Feature| FeatureStats { density: f.density, max: f.max, mean: f.mean };
    let stats = features.iter().map(of).chain([FeatureStats { density: f32::NAN, max: f32::NAN, mean: f32::NAN }]);
    Dictionary::from_parts(Parts {
        d_model: d,
        encoder: flat(&mut features.iter().map(|f| &f.encoder).chain([&detector.weights])),
        decoder: flat(&mut features.iter().map(|f| &f.decoder).chain([&own])),
        encoder_bias: features.iter().map(|f| f.bias).chain([detector.bias]).collect(),
        decoder_bias: vec![0.0; d],
        threshold: None,
        gate: None,
        stats: Some(stats.collect()),
        settings: Settings { apply_b_dec_to_input: false, ..Settings::new(Activation::Relu) },
        info: Info {
            name: request.name.clone(),
            model_name: model.name().to_owned(),
            model_fingerprint: model.fingerprint().to_owned(),
            layers: features.iter().map(|f| f.layer).chain([detector.layer]).collect(),
            recipe: recipe.to_string(),
            ..Info::default()
        },
    })
}

/// The guard's plan: what people read and edit.
fn plan(request: &Request, report: &Report, features: &[Feature], threshold: f32, strength: f32) -> Plan {
    let (name, n) = (&request.name, features.len() as u32);
    let caught = format!(
        "fires on {:.0} % of the messages to be refused and {:.1} % of those to be answered that set the threshold",
        100.0 * report.fires[0],
        100.0 * report.fires[1]
    );
    let monitor = Monitor::new(name, [n], threshold).of(NAME).select(Selector::prompt()).note(caught);
    let refuse = Rule::new(Op::Amplify, 0..n, Strength::raw(strength)).of(NAME).select(Selector::prompt());
    Plan::new([refuse.when(When::fires(name)).note("refuse: at the row before the answer, as if told to")])
        .watch([monitor])
        .tell([Verdict::new(name, When::fires(name), Action::Report)])
        .note(format!("a guard against what the examples of \"{name}\" have in common"))
}

/// Rises until enough is refused, and takes the strength that refuses most beyond what it loses.
fn strengths(
    engine: &mut Engine,
    asking: &Asking,
    (refused, answered): (&[String], &[String]),
    guard: &dyn Fn(f32) -> Guard,
    progress: &mut Progress<'_>,
) -> Result<(f32, Vec<Dose>)> {
    let prompts = |messages: &[String]| {
        messages.iter().take(TRIED.0).map(|m| asking.plain(engine, m)).collect::<Result<Vec<_>>>()
    };
    let (refused, answered) = (prompts(refused)?, prompts(answered)?);
    let mut doses: Vec<Dose> = Vec::new();
    for strength in LADDER {
        if !progress(Step { done: doses.len() as u64, total: LADDER.len() as u64, note: "trying strengths" }) {
            return Err(Error::cancelled());
        }
        let plan = Arc::new(guard(strength).compile(&engine.target())?);
        engine.set_plan(Some(plan))?;
        let (yes, no) = (classes(engine, &refused, TRIED.1), classes(engine, &answered, TRIED.1));
        let hooked = engine.finish();
        engine.set_plan(None)?;
        hooked.ok()?;
        let (yes, no) = (yes?, no?);
        let share = |all: &[Class], which: Class| all.iter().filter(|c| **c == which).count() as f64 / all.len() as f64;
        doses.push(Dose {
            strength,
            refused: share(&yes, Class::Refused),
            incoherent: share(&yes, Class::Incoherent),
            lost: 1.0 - share(&no, Class::Answered),
        });
        if doses.last().is_some_and(|dose| dose.refused >= ENOUGH) {
            break;
        }
    }
    let worth = |dose: &Dose| dose.refused - dose.lost;
    let best = doses.iter().copied().reduce(|a, b| if worth(&b) > worth(&a) { b } else { a });
    let strength = best.map(|dose| dose.strength).ok_or_else(|| Error::numeric("guard: no strength could be tried"))?;
    Ok((strength, doses))
}

/// The classes of greedy answers under the plan in force.
fn classes(engine: &mut Engine, prompts: &[Vec<i32>], max_tokens: usize) -> Result<Vec<Class>> {
    let written = engine.generate_many_tokens(prompts, &Generate { max_tokens, ..Generate::default() })?;
    Ok(written.iter().map(|made| class(made.text())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_dealt_without_overlap() {
        let all: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let deal = Deal::of(&all, &Request { messages: 20, ..Request::default() });
        assert_eq!((deal.fit.len(), deal.hold.len()), (20, 10));
        assert!(deal.hold.iter().all(|message| !deal.fit.contains(message)));
        assert_eq!(
            Deal::of(&all, &Request { messages: 20, ..Request::default() }).hold,
            deal.hold,
            "a seed deals alike"
        );
        assert_ne!(Deal::of(&all, &Request { messages: 20, seed: 1, ..Request::default() }).hold, deal.hold);
    }

    #[test]
    fn a_plan_is_readable_and_passes_its_check() {
        let feature = |layer| Feature {
            direction: 0,
            layer,
            encoder: vec![1.0],
            bias: 0.0,
            decoder: vec![1.0],
            mean: 1.0,
            max: 1.0,
            density: 1.0,
            explained: 1.0,
        };
        let request = Request::default();
        let plan = plan(&request, &Report::default(), &[feature(3), feature(4)], 0.5, 1.5);
        plan.check().unwrap();
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
        assert!(plan.to_json().contains("\"when\": \"harm\""), "{}", plan.to_json());
    }
}
