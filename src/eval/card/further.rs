//! What needs files: labels of features, and a temporal model's predictions.

use std::path::Path;

use super::meaning::FEATURES;
use super::report::{Delayed, Label};
use super::request::Request;
use super::subject::Subject;
use super::texts::Bench;
use crate::error::Result;
use crate::eval::temporal::{Options, side_effects};
use crate::file::text;
use crate::train::temporal::Temporal;

/// Features whose delayed effects are measured, and how strongly they are edited, in standard deviations.
const DELAYED: usize = 3;
const DELAYED_STRENGTH: f32 = 10.0;
/// The longest line of labels, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// What a temporal model predicts for the plan's features, and what is seen.
pub(super) fn delayed(bench: &mut Bench<'_, '_>, subject: &Subject, request: &Request) -> Result<Option<Vec<Delayed>>> {
    let Some(path) = &request.temporal else { return Ok(None) };
    bench.work.begin("delayed effects");
    let model = Temporal::open(path)?;
    let features = subject.plan.rules.iter().filter_map(|rule| Some((subject.assets(rule)?, rule)));
    let mut features: Vec<_> =
        features.flat_map(|(assets, rule)| rule.features.iter().map(move |f| (assets, f.id))).collect();
    features.retain(|(_, feature)| model.latent(*feature).is_some());
    features.truncate(DELAYED);
    let prompts: Vec<String> = crate::eval::trial::PROMPTS.iter().map(|&prompt| prompt.to_owned()).collect();
    let mut all = Vec::new();
    for (assets, feature) in features {
        let Some(latent) = model.latent(feature) else { continue };
        let amount = DELAYED_STRENGTH * model.deviation()[latent];
        let dictionary = (!model.features().is_empty()).then_some(&assets.dictionary);
        let work = &mut bench.work;
        let found = side_effects(
            bench.engine,
            path,
            dictionary,
            (feature, amount),
            &prompts,
            &Options::default(),
            &mut |_| work.go_on(),
        )?;
        all.extend(found.into_iter().map(|effect| Delayed {
            feature,
            tokens: effect.steps,
            correlation: effect.correlation,
            control: effect.control,
        }));
    }
    Ok(Some(all))
}

/// What a file says of the plan's features.
pub(super) fn labels(path: &Path, subject: &Subject) -> Result<Vec<Label>> {
    let named = |feature: u32| {
        let has = |rule: &crate::plan::Rule| rule.features.is_all() || rule.features.iter().any(|f| f.id == feature);
        subject.plan.rules.iter().any(has)
    };
    let mut all = Vec::new();
    text::for_each_line(path, LONGEST_LINE, |number, line| {
        let hint = "a line is an object such as {\"feature\": 7, \"universal\": true}";
        let object: std::collections::BTreeMap<String, serde_json::Value> =
            serde_json::from_str(line).map_err(|e| crate::file::json::error(&e, line, path.display(), number, hint))?;
        let feature = object.get("feature").and_then(serde_json::Value::as_u64).and_then(|id| u32::try_from(id).ok());
        // A header, as files of tiller have, is about no feature.
        let Some(feature) = feature else { return Ok(()) };
        if named(feature) && all.len() < 4 * FEATURES {
            let facts = object.into_iter().filter(|(key, _)| key != "feature").collect();
            all.push(Label { feature, facts });
        }
        Ok(())
    })?;
    Ok(all)
}
