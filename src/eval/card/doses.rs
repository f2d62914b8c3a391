//! Dose and response: the plan at other strengths, on the same prompts.

use super::aim::{Aims, Sets, refs};
use super::report::{Dose, OneNat};
use super::request::Request;
use super::subject::Subject;
use super::texts::{Bench, Depth, Text, whole};
use crate::error::Result;
use crate::eval::divergence::Divergence;
use crate::plan::Route;

/// Nats at which plans are compared: the 95th percentile of KL.
const ONE_NAT: f64 = 1.0;

/// Writes the plan at other strengths; the plan itself stands among them. Also where the 95th percentile of KL is one nat.
pub(super) fn doses(
    bench: &mut Bench<'_, '_>,
    subject: &Subject,
    aims: &Aims,
    sets: Sets<'_>,
    request: &Request,
    notes: &mut Vec<String>,
) -> Result<(Vec<Dose>, Option<OneNat>)> {
    let (with, unsteered, asked) = sets;
    let usual = whole(&refs(unsteered), None).perplexity;
    let dose = |factor: f32, texts: &[Text]| {
        let (effect, interval) = aims.effect((texts, unsteered, asked), request.seed);
        let (found, moved) = (whole(&refs(texts), Some(usual)), Divergence::of(texts.iter().map(|text| &text.moved)));
        let perplexity = found.perplexity / usual;
        Dose { factor, effect, interval, perplexity, broken: found.broken(), kl: moved.mean, kl_p95: moved.p95 }
    };
    let all: Vec<usize> = (0..bench.cases.len()).collect();
    let mut found = vec![dose(1.0, with)];
    let scales = subject.plan.rules.iter().any(|rule| rule.strength.is_some());
    for &factor in request.doses.iter().filter(|factor| scales && **factor != 1.0) {
        let plan = subject.compile(bench.engine, &subject.plan.scaled(factor), Route::Auto);
        // What is too strong for the model's arithmetic has no text.
        let texts = plan.and_then(|plan| bench.write(Some(&plan), &all, Depth::Divergence(None)));
        match texts {
            Ok(texts) => found.push(dose(factor, &texts)),
            Err(error) if error.kind() == crate::Kind::Numeric => notes.push(format!("{factor} × the plan: {error}")),
            Err(error) => return Err(error),
        }
    }
    found.sort_by(|a, b| a.factor.total_cmp(&b.factor));
    let one_nat = one_nat(&found);
    Ok((found, one_nat))
}

/// The dose at which the 95th percentile of KL is one nat, on the line between the two nearest.
fn one_nat(doses: &[Dose]) -> Option<OneNat> {
    let pair = doses.windows(2).find(|pair| pair[0].kl_p95 <= ONE_NAT && pair[1].kl_p95 > ONE_NAT)?;
    let share = (ONE_NAT - pair[0].kl_p95) / (pair[1].kl_p95 - pair[0].kl_p95);
    let between = |a: f64, b: f64| a + share * (b - a);
    let effect = pair[0].effect.zip(pair[1].effect).map(|(a, b)| between(a, b));
    Some(OneNat { factor: between(pair[0].factor.into(), pair[1].factor.into()), effect })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_nat_lies_on_the_line_between_two_doses() {
        let dose = |factor, kl_p95, effect| Dose { factor, kl_p95, effect: Some(effect), ..Dose::default() };
        let found = one_nat(&[dose(0.5, 0.5, 0.2), dose(1.0, 1.5, 0.6), dose(2.0, 4.0, 0.9)]).unwrap();
        assert_eq!((found.factor, found.effect), (0.75, Some(0.4)));
        assert_eq!(one_nat(&[dose(0.5, 0.1, 0.2), dose(1.0, 0.2, 0.6)]), None, "never so far");
        assert_eq!(one_nat(&[dose(0.5, 3.0, 0.2)]), None, "always farther");
        assert_eq!(one_nat(&[]), None);
    }
}
