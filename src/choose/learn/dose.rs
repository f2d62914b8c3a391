//! How strongly: short answers at rising strengths, until the text breaks.

use serde::Serialize;

use super::layers::Candidate;
use super::pack;
use super::trials::{Effect, Frame, Sum};
use super::work::Work;
use crate::dictionary::Form;
use crate::engine::Engine;
use crate::error::Result;

/// Strengths that are tried, rising.
const UP: [f32; 6] = [1.0, 1.25, 1.5, 2.0, 2.5, 3.0];
/// Where the first is too strong.
const DOWN: [f32; 3] = [0.75, 0.5, 0.25];
/// Strengths against the instruction.
const AVOID: [f32; 4] = [0.5, 1.0, 1.5, 2.0];
/// A steered text may be so much less likely than what the asked model writes: two texts of one kind differ by that much.
const MARGIN: f64 = 1.05;
/// Where asking makes text likelier, steering may make it less likely by this much.
const LEAST: f64 = 1.1;
/// A form that costs something must be this much better.
const BETTER: f64 = 1.05;
/// The share of the effect that may spill over to messages for which the instruction is not meant.
const SPILL: f64 = 0.15;

/// What a strength did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Dose {
    /// `constant` or `gated`.
    pub(super) form: &'static str,
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
struct Bounds {
    perplexity: f64,
    broken: f64,
    distinct: f64,
}

impl Bounds {
    fn of(frame: &Frame) -> Self {
        let (none, all) = (Sum::of(&frame.unsteered), Sum::of(&frame.asked));
        Self {
            perplexity: (all.perplexity / none.perplexity).max(LEAST) * MARGIN,
            // One text more than in the worse of the two.
            broken: none.broken.max(all.broken) + 1.01 / frame.cases.len().max(1) as f64,
            distinct: 0.9 * none.distinct.min(all.distinct),
        }
    }

    fn allow(&self, did: &Effect) -> bool {
        did.perplexity <= self.perplexity && did.broken <= self.broken && did.distinct >= self.distinct
    }
}

/// The largest perplexity that counts as fluent, over that of unsteered text.
pub(super) fn bound(frame: &Frame) -> f64 {
    Bounds::of(frame).perplexity
}

/// Tries strengths of a candidate: up from 1 while the text holds, else down; then once between the best and the next.
pub(super) fn search(
    engine: &mut Engine,
    candidate: &Candidate,
    (frame, unless): (&Frame, Option<&Frame>),
    work: &mut Work<'_>,
) -> Result<Vec<Dose>> {
    let bounds = Bounds::of(frame);
    let mut attempt = |strength: f32, work: &mut Work<'_>| -> Result<Dose> {
        let plan = pack::compile(engine, &candidate.dictionary, candidate.form, strength)?;
        let did = frame.effect(&frame.answers(engine, Some(&plan), false, work)?);
        let spill = match unless {
            Some(other) => {
                // In the units of the messages that it is meant for.
                let answers = other.answers(engine, Some(&plan), false, work)?;
                let moved = Sum::of(&answers).asked - Sum::of(&other.unsteered).asked;
                Some(moved / frame.gap().max(f64::MIN_POSITIVE))
            }
            None => None,
        };
        let good = bounds.allow(&did) && spill.is_none_or(|spill| spill <= SPILL);
        Ok(Dose { form: candidate.form.name(), strength, did, spill, good })
    };
    let mut doses: Vec<Dose> = Vec::new();
    for strength in UP {
        if work.is_past(0.85) && !doses.is_empty() {
            break;
        }
        doses.push(attempt(strength, work)?);
        if doses.last().is_some_and(|dose| !dose.good) {
            break;
        }
    }
    if doses.iter().all(|dose| !dose.good) {
        for strength in DOWN {
            doses.push(attempt(strength, work)?);
            if doses.last().is_some_and(|dose| dose.good) || work.is_past(0.9) {
                break;
            }
        }
    }
    let low = doses.iter().filter(|dose| dose.good).map(|dose| dose.strength).reduce(f32::max);
    let high = doses.iter().filter(|dose| !dose.good).map(|dose| dose.strength).reduce(f32::min);
    if let (Some(low), Some(high)) = (low, high)
        && low < high
        && !work.is_past(0.85)
    {
        doses.push(attempt((low + high) / 2.0, work)?);
    }
    Ok(doses)
}

/// The dose to take of all that were tried: the strongest effect of the good ones, the constant form if it is as good, for it
/// costs nothing. If none is good, the one that costs least.
pub(super) fn best(doses: &[Dose]) -> Option<&Dose> {
    let strongest = |form: Form| {
        let good = doses.iter().filter(|dose| dose.good && dose.form == form.name());
        good.max_by(|a, b| a.did.effect.total_cmp(&b.did.effect))
    };
    match (strongest(Form::Constant), strongest(Form::Gated)) {
        (Some(constant), Some(gated)) if gated.did.effect > BETTER * constant.did.effect => Some(gated),
        (Some(constant), _) => Some(constant),
        (None, Some(gated)) => Some(gated),
        (None, None) => doses.iter().min_by(|a, b| {
            (a.did.broken, a.did.perplexity)
                .partial_cmp(&(b.did.broken, b.did.perplexity))
                .unwrap_or(std::cmp::Ordering::Equal)
        }),
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
        doses.push(Dose { form: candidate.form.name(), strength: -strength, did, spill: None, good });
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
        Dose { form: form.name(), strength, did, spill: None, good }
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
        let better = [doses.as_slice(), &[dose(Gated, 1.25, 1.1, 1.2, true)]].concat();
        assert_eq!(best(&better).unwrap().strength, 1.25);
        let none = [dose(Constant, 1.0, 0.9, 3.0, false), dose(Gated, 0.5, 0.1, 1.4, false)];
        assert_eq!(best(&none).unwrap().strength, 0.5, "what costs least");
        assert_eq!(best(&[]), None);
    }
}
