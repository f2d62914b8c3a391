//! Evaluators by name: a request in JSON, a report in JSON, for callers in any language.

use serde_json::{Map, Value};

use super::card;
use super::consistency::{self, consistency};
use super::entanglement::{self, entanglement};
use super::explained::{self, explained};
use super::quality::{self, report_quality};
use super::universality::{self, universality};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// The evaluators that there are.
pub const KNOWN: &[&str] = &["card", "consistency", "entanglement", "explained", "quality", "universality"];

/// Runs the evaluator that the key "evaluate" of `request` names; the other keys are its own. Returns its report.
///
/// # Errors
/// [`Kind::Argument`] for what is no JSON object, a name that is not in [`KNOWN`], and what the evaluator's request
/// refuses; what the evaluator returns.
pub fn evaluate(engine: &mut Engine, request: &str, progress: &mut Progress<'_>) -> Result<String> {
    let (name, rest) = named(request)?;
    let report = match name.as_str() {
        "card" => return card::card_json(engine, &rest, progress),
        "consistency" => {
            let request = consistency::Request::from_json(&rest)?;
            serde_json::to_string(&consistency(engine, &request, progress)?)
        }
        "explained" => {
            let request = explained::Request::from_json(&rest)?;
            serde_json::to_string(&explained(engine, &request, progress)?)
        }
        "quality" => {
            let request = quality::Request::from_json(&rest)?;
            serde_json::to_string(&report_quality(engine, &request, progress)?)
        }
        // Its request names the models.
        "universality" => {
            let request = universality::Request::from_json(&rest)?;
            serde_json::to_string(&universality(&request, progress)?)
        }
        "entanglement" => {
            let request = entanglement::Request::from_json(&rest)?;
            serde_json::to_string(&entanglement(engine, &request, progress)?)
        }
        _ => return Err(unknown(&format!("\"{name}\""))),
    };
    report.map_err(|e| Error::numeric(format!("report: {e}")))
}

/// The name of the evaluator, and the request without it.
fn named(request: &str) -> Result<(String, String)> {
    let mut all: Map<String, Value> = serde_json::from_str(request).map_err(|e| {
        let error = crate::file::json::error(&e, request, "request", 1, "a request is one JSON object");
        Error::new(Kind::Argument, error.message())
    })?;
    match all.remove("evaluate") {
        Some(Value::String(name)) => Ok((name, Value::Object(all).to_string())),
        Some(other) => Err(unknown(&other.to_string())),
        None => Err(unknown("none")),
    }
}

fn unknown(found: &str) -> Error {
    Error::argument(format!("evaluate: expected one of {}, found {found}", KNOWN.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_taken_and_the_rest_is_left() {
        let (name, rest) = named("{\"evaluate\": \"entanglement\", \"seed\": 3}").unwrap();
        assert_eq!((&*name, &*rest), ("entanglement", "{\"seed\":3}"));
        assert!(KNOWN.contains(&&*name));
        for (json, what) in [
            (
                "{}",
                "evaluate: expected one of card, consistency, entanglement, explained, quality, universality, found none",
            ),
            ("{\"evaluate\": 3}", "found 3"),
            ("[]", "request"),
            ("{\"evaluate\":", "request"),
        ] {
            let error = named(json).unwrap_err();
            assert!(error.kind() == Kind::Argument && error.message().contains(what), "{error}");
        }
    }
}
