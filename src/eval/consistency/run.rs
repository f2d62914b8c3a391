//! The whole of it on a running model.

use std::sync::Arc;

use rand::Rng;

use super::answers::{Figures, Said, agreement, figures};
use super::bench::Bench;
use super::contrast::{Contrast, Turned, row_rule, rule};
use super::groups::{self, Group};
use super::report::{Dose, Example, Report};
use super::request::Request;
use super::split::split;
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Message};
use crate::error::{Error, Result};
use crate::eval::bootstrap::interval;
use crate::hook_point::HookPoint;
use crate::num::rng;
use crate::plan::{Compiled, Plan, Route, Rule, Selector, Vector};
use crate::progress::Progress;

/// Changed answers that are told.
const EXAMPLES: usize = 12;

/// Measures how consistently the engine's model answers paraphrases, and what turning the features that tell consistent
/// answers from inconsistent ones does. No plan is in force afterwards; progress counts texts.
///
/// # Errors
/// As [`Request::check`] and [`groups::open`]; [`Mismatch`](crate::Kind::Mismatch) for a dictionary of another width or
/// several layers; [`Argument`](crate::Kind::Argument) where all pairs agree, or none does; what the engine returns;
/// [`Cancelled`](crate::Kind::Cancelled).
pub fn consistency(engine: &mut Engine, request: &Request, progress: &mut Progress<'_>) -> Result<Report> {
    request.check()?;
    engine.set_plan(None)?;
    measure(engine, request, progress)
}

fn measure(engine: &mut Engine, request: &Request, progress: &mut Progress<'_>) -> Result<Report> {
    let (target, mut notes) = Target::open(engine, request)?;
    let all = match &request.groups {
        Some(path) => groups::open(path)?,
        None => groups::built_in()?,
    };
    let parts = split(&all, request.fit, request.choose, request.seed)?;
    let chat = request.chat.unwrap_or_else(|| engine.chat(&[Message::user("a")], true).is_ok());
    let mut bench = Bench::new(engine, request, chat, &parts, progress)?;

    let prompts = bench.prompts(&parts.fit)?;
    let (_, said) = bench.ask(None, &parts.fit, &prompts, "answering, to find features")?;
    let contrast = bench.contrast((target.dictionary.as_deref(), target.point), &prompts, &said)?;
    let (features, base) = target.rule(&contrast, request)?;

    let prompts = bench.prompts(&parts.choose)?;
    let usual = figures(&bench.ask(None, &parts.choose, &prompts, "answering, to choose a strength")?.1);
    let mut doses = Vec::new();
    for &strength in &request.strengths {
        let plan = target.compile(bench.engine, &base, strength)?;
        let answered = bench.ask(Some(&plan), &parts.choose, &prompts, "answering, to choose a strength");
        match answered {
            Ok((_, said)) => doses.push(Dose { strength, figures: figures(&said) }),
            // What is too strong for the model's arithmetic has no answers.
            Err(error) if error.kind() == crate::Kind::Numeric => notes.push(format!("strength {strength}: {error}")),
            Err(error) => return Err(error),
        }
    }
    let (strength, helped) = chosen(&usual, &doses, request.slack)
        .ok_or_else(|| Error::numeric("consistency: no strength left the model's logits finite"))?;

    let plan = target.compile(bench.engine, &base, strength)?;
    let prompts = bench.prompts(&parts.score)?;
    let (texts_before, said_before) = bench.ask(None, &parts.score, &prompts, "answering, to score")?;
    let (texts_after, said_after) = bench.ask(Some(&plan), &parts.score, &prompts, "answering, to score")?;
    let mut controls = Vec::new();
    for seed in 0..request.controls as u64 {
        let other = redrawn(&base, request.seed.wrapping_add(seed));
        let plan = target.compile(bench.engine, &other, strength)?;
        controls.push(figures(&bench.ask(Some(&plan), &parts.score, &prompts, "answering under controls")?.1));
    }
    let cost = bench.cost(&plan, request.questions)?;
    let (before, after) = (figures(&said_before), figures(&said_after));
    let rose: Vec<f64> = said_before.iter().zip(&said_after).map(|(b, a)| agreement(a) - agreement(b)).collect();
    let mean = |drawn: &[usize]| drawn.iter().map(|&g| rose[g]).sum::<f64>() / drawn.len().max(1) as f64;
    Ok(Report {
        model: engine_name(bench.engine),
        chat,
        groups: [parts.fit.len(), parts.choose.len(), parts.score.len()],
        pairs: contrast.pairs(),
        length: length(&base),
        features,
        usual,
        doses,
        strength,
        helped,
        gain: after.agreement - before.agreement,
        gain_interval: interval(rose.len(), 0.95, request.seed, &mut |drawn| mean(drawn)).unwrap_or_default(),
        net_gain: net(&after) - net(&before),
        before,
        after,
        controls,
        cost,
        examples: examples(&parts.score, &texts_before, &texts_after, [&said_before, &said_after]),
        plan: Plan::new([at(&base, strength)]),
        notes,
    })
}

/// What is edited.
struct Target {
    dictionary: Option<Arc<Dictionary>>,
    point: HookPoint,
}

impl Target {
    fn open(engine: &Engine, request: &Request) -> Result<(Self, Vec<String>)> {
        let Some(path) = &request.dictionary else {
            let layer = request.layer.filter(|&layer| layer < engine.n_layer()).ok_or_else(|| {
                let (last, found) = (engine.n_layer() - 1, request.layer.unwrap_or_default());
                Error::argument(format!("layer: expected 0 to {last}, found {found}"))
            })?;
            return Ok((Self { dictionary: None, point: layer.into() }, Vec::new()));
        };
        let dictionary = Arc::new(Dictionary::open(path)?);
        let fingerprint = crate::model::Model::open(engine.path())?.fingerprint().to_owned();
        let warning = dictionary.check_model(engine.d_model(), engine.n_layer(), &fingerprint)?;
        dictionary.check_one_layer("consistency")?;
        let point = dictionary.point().ok_or_else(|| {
            Error::mismatch(format!("{}: the dictionary does not say which layer it belongs to", path.display()))
        })?;
        Ok((Self { dictionary: Some(dictionary), point }, warning.into_iter().collect()))
    }

    /// The features that are turned, and the rule at strength 1.
    fn rule(&self, contrast: &Contrast, request: &Request) -> Result<(Vec<Turned>, Rule)> {
        let select = Selector { phase: request.phase, ..Selector::default().include_first(false) };
        let (features, rule) = match (&self.dictionary, request.layer) {
            (None, Some(layer)) => (Vec::new(), row_rule(&contrast.means()?, layer)),
            _ => {
                let features = contrast.features(request.features)?;
                let rule = rule(&features);
                (features, rule)
            }
        };
        Ok((features, rule.select(select)))
    }

    fn compile(&self, engine: &Engine, base: &Rule, strength: f32) -> Result<Arc<Compiled>> {
        let dictionaries: Vec<(&str, Arc<Dictionary>)> = self.dictionary.iter().map(|d| ("d", d.clone())).collect();
        Plan::new([at(base, strength)]).compile(&dictionaries, &engine.target(), Route::Auto).map(Arc::new)
    }
}

/// The rule at a strength.
fn at(base: &Rule, strength: f32) -> Rule {
    let mut rule = base.clone();
    rule.strength.iter_mut().for_each(|s| s.value = strength);
    rule
}

/// ‖μ⁺ − μ⁻‖ over what the rule edits.
fn length(rule: &Rule) -> f64 {
    let numbers: Vec<f32> = match &rule.vector {
        Some(Vector::Values(values)) => values.clone(),
        _ => rule.features.iter().map(|feature| feature.weight).collect(),
    };
    numbers.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// The same rule, with the sign of each number drawn anew.
fn redrawn(base: &Rule, seed: u64) -> Rule {
    let (mut rule, mut rng) = (base.clone(), rng(seed));
    let mut draw = |v: &mut f32| {
        if rng.random() {
            *v = -*v;
        }
    };
    match &mut rule.vector {
        Some(Vector::Values(values)) => values.iter_mut().for_each(draw),
        _ => rule.features.iter_mut().for_each(|feature| draw(&mut feature.weight)),
    }
    rule
}

fn net(figures: &Figures) -> f64 {
    figures.agreement - figures.across
}

/// The strength with the best agreement − across among those that cost no accuracy, and whether that is better than
/// without a plan. Where all cost accuracy, the one that costs least.
fn chosen(usual: &Figures, doses: &[Dose], slack: f64) -> Option<(f32, bool)> {
    let accuracy = |figures: &Figures| figures.accuracy.unwrap_or(0.0);
    let is_allowed = |dose: &&Dose| accuracy(&dose.figures) >= accuracy(usual) - slack;
    let best = doses.iter().filter(is_allowed).max_by(|a, b| {
        net(&a.figures).total_cmp(&net(&b.figures)).then(b.strength.total_cmp(&a.strength)) // of equals the weaker
    });
    let least = || doses.iter().max_by(|a, b| accuracy(&a.figures).total_cmp(&accuracy(&b.figures)));
    let dose = best.or_else(least)?;
    Some((dose.strength, best.is_some() && net(&dose.figures) > net(usual)))
}

fn engine_name(engine: &Engine) -> String {
    engine.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Answers that the plan changed, of all groups in turn.
fn examples(groups: &[Group], before: &[Vec<String>], after: &[Vec<String>], said: [&[Vec<Said>]; 2]) -> Vec<Example> {
    let changed = |g: usize| {
        let t = said[0][g].iter().zip(&said[1][g]).position(|(a, b)| a != b)?;
        Some(Example {
            text: groups[g].texts[t].clone(),
            before: before[g][t].trim().to_owned(),
            after: after[g][t].trim().to_owned(),
            right: groups[g].answers.first().cloned(),
        })
    };
    (0..groups.len()).filter_map(changed).take(EXAMPLES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(agreement: f64, across: f64, accuracy: f64) -> Figures {
        Figures { groups: 1, answers: 2, agreement, across, accuracy: Some(accuracy) }
    }

    #[test]
    fn the_best_strength_that_costs_no_accuracy_is_chosen() {
        let dose = |strength, figures| Dose { strength, figures };
        let usual = figures(0.5, 0.1, 0.6);
        let doses = [
            dose(1.0, figures(0.55, 0.1, 0.6)),
            dose(2.0, figures(0.6, 0.1, 0.59)),
            dose(4.0, figures(0.9, 0.1, 0.3)),
            dose(8.0, figures(1.0, 0.9, 0.6)),
        ];
        assert_eq!(chosen(&usual, &doses, 0.02), Some((2.0, true)), "4 costs accuracy, 8 always says the same");
        assert_eq!(chosen(&usual, &doses, 0.0), Some((1.0, true)));
        assert_eq!(chosen(&usual, &doses[2..3], 0.02), Some((4.0, false)), "all cost accuracy");
        assert_eq!(chosen(&figures(0.9, 0.0, 0.6), &doses, 0.02), Some((2.0, false)));
        assert_eq!(chosen(&usual, &[], 0.02), None);
    }

    #[test]
    fn controls_keep_lengths_and_draw_signs() {
        let turned = |feature, consistent| Turned { feature, consistent, inconsistent: 0.0 };
        let base = rule(&(0..64).map(|i| turned(i, 1.0 + i as f32)).collect::<Vec<_>>());
        let other = redrawn(&base, 3);
        assert_eq!(length(&other), length(&base));
        let turned = other.features.iter().zip(base.features.iter()).filter(|(a, b)| a.weight == -b.weight).count();
        assert!((16..48).contains(&turned), "{turned}");
        assert_eq!(redrawn(&base, 3), other);
        assert_ne!(redrawn(&base, 4), other);
        let vector = row_rule(&[Turned { feature: 0, consistent: 3.0, inconsistent: -1.0 }], 2);
        assert_eq!((length(&redrawn(&vector, 1)), redrawn(&vector, 1).layer), (4.0, Some(2)));
    }
}
