//! What can be wrong with a plan before any dictionary or model is known.

use super::monitor::{self, Monitor};
use super::rule::{Feature, Op, Rule, Strength, Unit, Vector};
use super::selector::{Selector, Sequences};
use super::{Plan, VERSION};
use crate::error::{Error, Result};
use std::collections::HashSet;

/// Features of all rules, gates and monitors together. Each costs an encoder and a decoder row of memory (at a width of 4,096, 32 KB),
/// and as much reading for every row that is steered: this is all of the larger dictionaries once.
pub(super) const MAX_FEATURES: usize = 1 << 16;

/// Rules act one after the other on every row, and each may hold a direction for every layer.
const MAX_RULES: usize = 1 << 10;

/// Checks a whole plan; see [`Plan::check`].
pub(super) fn plan(plan: &Plan) -> Result<()> {
    if plan.version != VERSION {
        return Err(Error::unsupported(format!("version: expected {VERSION}, found {}", plan.version)));
    }
    if plan.rules.len() > MAX_RULES {
        let found = plan.rules.len();
        return Err(Error::argument(format!("rules: expected at most {MAX_RULES} rules, found {found}")));
    }
    let named = |rule: &Rule| rule.features.len() + rule.gate.as_ref().map_or(0, |gate| gate.features.len());
    let watched: usize = plan.monitors.iter().map(|monitor| monitor.features.len()).sum();
    let named: usize = plan.rules.iter().map(named).sum::<usize>() + watched;
    if named > MAX_FEATURES {
        return Err(Error::argument(format!(
            "rules: expected at most {MAX_FEATURES} features, counted in each rule, gate and monitor that names them, found {named}"
        )));
    }
    monitor::check(&plan.monitors, &plan.verdicts)?;
    for (index, r) in plan.rules.iter().enumerate() {
        rule(r, &plan.monitors).map_err(|e| e.context(format!("rules[{index}]")))?;
    }
    Ok(())
}

fn rule(rule: &Rule, monitors: &[Monitor]) -> Result<()> {
    match (&rule.vector, rule.features.is_none()) {
        (None, true) => {
            return Err(Error::argument("features: expected at least one feature or a `vector`, found none"));
        }
        (Some(_), false) => return Err(Error::argument("expected `features` or `vector`, found both")),
        (Some(v), true) => vector(rule, v)?,
        (None, false) => features(rule)?,
    }
    if let Some(file) = &rule.propagate {
        if rule.op != Op::Add || rule.features.is_empty() {
            let what = match (&rule.vector, rule.features.is_all()) {
                (Some(_), _) => "a vector".to_owned(),
                (None, true) => "all features".to_owned(),
                (None, false) => format!("op `{}`", rule.op.name()),
            };
            return Err(Error::argument(format!("propagate: only `add` on features propagates, found {what}")));
        }
        if file.as_os_str().is_empty() {
            return Err(Error::argument("propagate: expected the file of a temporal model, found an empty name"));
        }
    }
    match (rule.strength, rule.op) {
        (Some(_), Op::Ablate) => {
            return Err(Error::argument("strength: `ablate` takes none; use `scale` or `clamp` for a partial edit"));
        }
        (None, Op::Ablate) => {}
        (None, op) => return Err(Error::argument(format!("strength: `{}` needs one, found none", op.name()))),
        (Some(s), op) => strength(op, s)?,
    }
    selector(&rule.select).map_err(|e| e.context("select"))?;
    if let Some(g) = &rule.gate {
        condition(&g.features, g.threshold, g.unit).map_err(|e| e.context("gate"))?;
    }
    rule.when.as_ref().map_or(Ok(()), |when| when.check(monitors).map_err(|e| e.context("when")))
}

fn vector(rule: &Rule, vector: &Vector) -> Result<()> {
    if rule.op != Op::Add {
        return Err(Error::argument(format!("vector: only `add` takes a vector, found op `{}`", rule.op.name())));
    }
    if rule.dictionary.is_some() && rule.gate.is_none() {
        return Err(Error::argument("dictionary: a vector needs none; name a gate's dictionary in the gate"));
    }
    if rule.strength.is_some_and(|s| s.unit == Unit::Activation) {
        return Err(Error::argument(
            "strength.unit: expected `raw` or `norm`, found `activation`: a vector has no activation",
        ));
    }
    let Vector::Values(values) = vector else { return Ok(()) };
    if rule.layer.is_none() {
        return Err(Error::argument("layer: an inline vector needs one, found none"));
    }
    if values.is_empty() {
        return Err(Error::argument("vector: expected the model's width of numbers, found none"));
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(Error::argument(format!("vector[{i}]: expected a finite number, found {}", values[i]))),
        None => Ok(()),
    }
}

fn features(rule: &Rule) -> Result<()> {
    let mut seen = HashSet::new();
    for (index, &Feature { id, weight }) in rule.features.iter().enumerate() {
        let place = || format!("features[{index}]");
        if !seen.insert(id) {
            return Err(Error::argument(format!("{}: feature {id} is listed twice", place())));
        }
        if !weight.is_finite() {
            return Err(Error::argument(format!("{}.weight: expected a finite number, found {weight}", place())));
        }
        if rule.op == Op::Ablate && weight != 1.0 {
            return Err(Error::argument(format!("{}.weight: `ablate` has no strength to weigh; use `scale`", place())));
        }
        if rule.op.refuses_negative() && weight < 0.0 {
            let name = rule.op.name();
            return Err(Error::argument(format!("{}.weight: `{name}` needs 0 or more, found {weight}", place())));
        }
    }
    Ok(())
}

fn strength(op: Op, strength: Strength) -> Result<()> {
    let Strength { value, unit } = strength;
    if !value.is_finite() {
        return Err(Error::argument(format!("strength.value: expected a finite number, found {value}")));
    }
    if op.takes_factor() && unit != Unit::Raw {
        let name = op.name();
        return Err(Error::argument(format!(
            "strength.unit: `{name}` takes a plain factor without a unit, found {unit:?}"
        )));
    }
    if op.refuses_negative() && value < 0.0 {
        let why = if op == Op::MaxClamp { "use `clamp` to set a negative code" } else { "codes are never negative" };
        return Err(Error::argument(format!("strength.value: `{}` needs 0 or more ({why}), found {value}", op.name())));
    }
    Ok(())
}

pub(super) fn selector(select: &Selector) -> Result<()> {
    if let (from, Some(to)) = (select.from.unwrap_or(0), select.to)
        && from >= to
    {
        return Err(Error::argument(format!(
            "to: expected a position after {from} (`to` is not included), found {to}"
        )));
    }
    let Sequences::Only(ids) = &select.sequences else { return Ok(()) };
    if ids.is_empty() {
        return Err(Error::argument("sequences: expected \"all\" or at least one id, found an empty list"));
    }
    match ids.iter().position(|&id| id < 0) {
        Some(i) => Err(Error::argument(format!("sequences[{i}]: expected 0 or more, found {}", ids[i]))),
        None => Ok(()),
    }
}

/// Checks what a gate or a monitor reads.
pub(super) fn condition(features: &[u32], threshold: f32, unit: Unit) -> Result<()> {
    if features.is_empty() {
        return Err(Error::argument("features: expected at least one, found none"));
    }
    let mut seen = HashSet::new();
    if let Some(index) = features.iter().position(|&id| !seen.insert(id)) {
        return Err(Error::argument(format!("features[{index}]: feature {} is listed twice", features[index])));
    }
    if !threshold.is_finite() || threshold < 0.0 {
        return Err(Error::argument(format!("threshold: expected a finite number of 0 or more, found {threshold}")));
    }
    if unit == Unit::Norm {
        return Err(Error::argument("unit: expected `raw` or `activation`, found `norm`"));
    }
    Ok(())
}
