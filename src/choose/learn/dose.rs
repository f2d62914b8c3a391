//! Which layers, how many directions and how strongly: short answers, at rising strengths until the text breaks.

use serde::Serialize;

use super::layers::Candidate;
use super::pack;
use super::trials::{Effect, Frame, Sum};
use super::work::Work;
use crate::dictionary::Form;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Strengths that are tried, rising.
const LADDER: [f32; 7] = [0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8];
/// Strengths against the instruction.
const AVOID: [f32; 4] = [0.5, 1.0, 1.5, 2.0];
/// Where asking makes text likelier, steering may make it less likely by this much.
const LEAST: f64 = 1.25;
/// Answers must stay this varied: what repeats itself a little in short ones runs in circles in long ones.
const DISTINCT: f64 = 0.92;
/// The share of texts that may be broken beyond that of unsteered ones: one of sixteen.
const BROKEN: f64 = 1.0 / 16.0;
/// A gate costs something, and its text breaks sooner: it must be this much better.
const BETTER: f64 = 1.15;
/// Strengths that lie no further apart are not told apart by a third.
const NEAR: f32 = 1.25;
/// The share of the effect that may spill over to messages for which the instruction is not meant.
const SPILL: f64 = 0.15;

/// Where a candidate begins on the ladder: a step below where most instructions stop being fluent.
fn usual(candidate: &Candidate) -> usize {
    match (candidate.form, candidate.rank) {
        (Form::Constant, _) => 5,
        (Form::Gated, 1) => 4,
        (Form::Gated, _) => 3,
    }
}

/// What a strength did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Dose {
    /// `constant` or `gated`.
    pub(super) form: &'static str,
    /// The set of layers.
    pub(super) layers: &'static str,
    /// Directions a layer.
    pub(super) rank: usize,
    pub(super) strength: f32,
    #[serde(flatten)]
    pub(super) did: Effect,
    /// The effect on messages for which the instruction is not meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spill: Option<f64>,
    /// Whether the text is as fluent as the asked model's, and nothing spills over.
    pub(super) good: bool,
}

/// What a text may cost.
pub(in crate::choose) struct Bounds {
    perplexity: f64,
    broken: f64,
    distinct: f64,
}

impl Bounds {
    pub(in crate::choose) fn of(frame: &Frame) -> Self {
        let (none, all) = (Sum::of(&frame.unsteered), Sum::of(&frame.asked));
        Self {
            perplexity: (all.perplexity / none.perplexity).max(LEAST),
            broken: none.broken + BROKEN,
            distinct: DISTINCT * none.distinct,
        }
    }

    pub(in crate::choose) fn allow(&self, did: &Effect) -> bool {
        did.perplexity <= self.perplexity && did.broken <= self.broken && did.distinct >= self.distinct
    }
}

/// The largest perplexity that counts as fluent, over that of unsteered text.
pub(super) fn bound(frame: &Frame) -> f64 {
    Bounds::of(frame).perplexity
}

/// Tries candidates on messages that nothing was fitted on.
pub(super) struct Search<'f> {
    frame: &'f Frame,
    unless: Option<&'f Frame>,
    bounds: Bounds,
    /// Every trial.
    pub(super) doses: Vec<Dose>,
}

impl<'f> Search<'f> {
    /// `unless`: messages for which the instruction is not meant.
    pub(super) fn new(frame: &'f Frame, unless: Option<&'f Frame>) -> Self {
        Self { frame, unless, bounds: Bounds::of(frame), doses: Vec::new() }
    }

    /// The best of some candidates of one form, each tried once at its usual strength.
    pub(super) fn best_of(
        &mut self,
        engine: &mut Engine,
        candidates: Vec<Candidate>,
        work: &mut Work<'_>,
    ) -> Result<Candidate> {
        let mut tried = Vec::new();
        for candidate in candidates {
            if tried.is_empty() || !work.is_past(0.5) {
                let dose = self.begin(engine, &candidate, work)?;
                tried.push((candidate, dose));
            }
        }
        let doses: Vec<Dose> = tried.iter().map(|(_, dose)| dose.clone()).collect();
        let taken = best(&doses).cloned();
        let found = tried.into_iter().find(|(_, dose)| Some(dose) == taken.as_ref());
        found.map(|(candidate, _)| candidate).ok_or_else(|| Error::numeric("no strength could be tried"))
    }

    /// Tries strengths of a candidate: up while the text holds, else down; then once between the strongest good one and the
    /// next.
    pub(super) fn strengths(&mut self, engine: &mut Engine, candidate: &Candidate, work: &mut Work<'_>) -> Result<()> {
        let begin = usual(candidate);
        let good = self.begin(engine, candidate, work)?.good;
        let rest: Vec<f32> =
            if good { LADDER[begin + 1..].to_vec() } else { LADDER[..begin].iter().rev().copied().collect() };
        for strength in rest {
            if work.is_past(0.85) || self.attempt(engine, candidate, strength, work)?.good != good {
                break;
            }
        }
        let low = self.of(candidate).filter(|dose| dose.good).map(|dose| dose.strength).reduce(f32::max);
        let high = self.of(candidate).filter(|dose| !dose.good).map(|dose| dose.strength).reduce(f32::min);
        if let (Some(low), Some(high)) = (low, high)
            && low * NEAR < high
            && !work.is_past(0.85)
        {
            self.attempt(engine, candidate, (low + high) / 2.0, work)?;
        }
        Ok(())
    }

    /// What a candidate does at its usual strength.
    fn begin(&mut self, engine: &mut Engine, candidate: &Candidate, work: &mut Work<'_>) -> Result<Dose> {
        let tried = self.of(candidate).next().cloned();
        tried.map_or_else(|| self.attempt(engine, candidate, LADDER[usual(candidate)], work), Ok)
    }

    /// The trials of a candidate.
    pub(super) fn of(&self, candidate: &Candidate) -> impl Iterator<Item = &Dose> {
        let (form, layers, rank) = (candidate.form.name(), candidate.layers, candidate.rank);
        self.doses.iter().filter(move |d| d.form == form && d.layers == layers && d.rank == rank)
    }

    fn attempt(
        &mut self,
        engine: &mut Engine,
        candidate: &Candidate,
        strength: f32,
        work: &mut Work<'_>,
    ) -> Result<Dose> {
        let frame = self.frame;
        let plan = pack::compile(engine, &candidate.dictionary, candidate.form, strength)?;
        let did = frame.effect(&frame.answers(engine, Some(&plan), false, work)?);
        let spill = match self.unless {
            Some(other) => {
                // In the units of the messages that it is meant for.
                let answers = other.answers(engine, Some(&plan), false, work)?;
                let moved = Sum::of(&answers).asked - Sum::of(&other.unsteered).asked;
                Some(moved / frame.gap().max(f64::MIN_POSITIVE))
            }
            None => None,
        };
        let good = self.bounds.allow(&did) && spill.is_none_or(|spill| spill <= SPILL);
        let (form, layers, rank) = (candidate.form.name(), candidate.layers, candidate.rank);
        let dose = Dose { form, layers, rank, strength, did, spill, good };
        self.doses.push(dose.clone());
        Ok(dose)
    }
}

/// The good dose with the strongest effect.
fn strongest(doses: &[Dose], form: Form) -> Option<&Dose> {
    doses
        .iter()
        .filter(|dose| dose.good && dose.form == form.name())
        .max_by(|a, b| a.did.effect.total_cmp(&b.did.effect))
}

/// The dose that costs least.
fn gentlest(doses: &[Dose]) -> Option<&Dose> {
    let cost = |dose: &Dose| (dose.did.broken, dose.did.perplexity);
    doses.iter().min_by(|a, b| cost(a).partial_cmp(&cost(b)).unwrap_or(std::cmp::Ordering::Equal))
}

/// The dose to take of all that were tried: the strongest effect of the good ones, the constant form if it is as good, for it
/// costs nothing. If none is good, the one that costs least.
pub(super) fn best(doses: &[Dose]) -> Option<&Dose> {
    match (strongest(doses, Form::Constant), strongest(doses, Form::Gated)) {
        (Some(constant), Some(gated)) if gated.did.effect > BETTER * constant.did.effect => Some(gated),
        (Some(constant), _) => Some(constant),
        (None, Some(gated)) => Some(gated),
        (None, None) => gentlest(doses),
    }
}

/// Tries strengths against the instruction on messages that carry it: an effect of 1 means that nothing of it is left.
pub(super) fn against(
    engine: &mut Engine,
    candidate: &Candidate,
    frame: &Frame,
    work: &mut Work<'_>,
) -> Result<Vec<Dose>> {
    let bounds = Bounds::of(frame);
    let mut doses = Vec::new();
    for strength in AVOID {
        let plan = pack::compile(engine, &candidate.dictionary, candidate.form, -strength)?;
        let did = frame.effect(&frame.answers(engine, Some(&plan), true, work)?);
        let did = Effect { effect: 1.0 - did.effect, ..did };
        let good = bounds.allow(&did);
        let (form, layers, rank) = (candidate.form.name(), candidate.layers, candidate.rank);
        doses.push(Dose { form, layers, rank, strength: -strength, did, spill: None, good });
        if !good || work.is_past(0.9) {
            break;
        }
    }
    Ok(doses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dose(form: Form, strength: f32, effect: f64, perplexity: f64, good: bool) -> Dose {
        let did = Effect { effect, perplexity, distinct: 1.0, broken: 0.0 };
        Dose { form: form.name(), layers: "upper half", rank: 1, strength, did, spill: None, good }
    }

    #[test]
    fn the_strongest_good_dose_is_taken_and_the_free_form_where_it_is_as_good() {
        use Form::{Constant, Gated};
        let doses = [
            dose(Constant, 1.0, 0.5, 1.1, true),
            dose(Constant, 1.5, 0.9, 1.2, true),
            dose(Constant, 2.0, 2.0, 3.0, false),
            dose(Gated, 1.0, 0.93, 1.2, true),
        ];
        assert_eq!(best(&doses).unwrap().strength, 1.5);
        let better = [doses.as_slice(), &[dose(Gated, 1.25, 1.2, 1.2, true)]].concat();
        assert_eq!(best(&better).unwrap().strength, 1.25);
        let none = [dose(Constant, 1.0, 0.9, 3.0, false), dose(Gated, 0.5, 0.1, 1.4, false)];
        assert_eq!(best(&none).unwrap().strength, 0.5, "what costs least");
        assert_eq!(best(&[]), None);
    }
}
