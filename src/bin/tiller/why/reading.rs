//! What directions mean: by their own explanation, as features of another dictionary, or by the words that they point at.

use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use tiller::dictionary::Dictionary;
use tiller::explain::{Explanations, pointed, pursuit};
use tiller::model::Model;
use tiller::{Error, Result};

use super::Args;
use crate::open;
use crate::output::Out;

/// Features of a list at most.
const PARTS: usize = 8;
/// Words that are shown of a feature.
const WORDS: usize = 6;

/// What directions are read by.
pub(super) struct Meaning<'a> {
    model: &'a Model,
    /// What the features mean by their own file, if there is one.
    own: Option<Explanations>,
    read_by: Option<(Arc<Dictionary>, Option<Explanations>)>,
    /// Whether that is the features' own dictionary.
    same: bool,
    /// Whether the model's unembedding can be looked through.
    lens: bool,
}

/// What one feature means.
pub(super) struct Reading {
    feature: u32,
    layer: Option<usize>,
    own: Option<String>,
    /// Features of another dictionary, and the share that they explain.
    parts: Option<(Vec<Part>, f32)>,
    /// What the direction points at.
    words: Vec<(String, f32)>,
}

impl<'a> Meaning<'a> {
    pub(super) fn open(args: &Args, model: &'a Model, dictionary: &Dictionary, out: &Out) -> Result<Self> {
        let beside = |path: &Path| -> Result<Option<Explanations>> {
            let path = path.with_extension("jsonl");
            if path.is_file() { Explanations::load(&path).map(Some) } else { Ok(None) }
        };
        let own = if dictionary.is_layered() { None } else { beside(&args.dictionary)? };
        let read_by = match &args.read_by {
            Some(path) => {
                let other = open::dictionary(path, model, out)?;
                other.check_one_layer("reading directions")?;
                let explanations = match &args.explanations {
                    Some(path) => Some(Explanations::load(path)?),
                    None => beside(path)?,
                };
                Some((other, explanations))
            }
            None if args.explanations.is_some() => {
                return Err(Error::argument("--explanations says what the features of --read-by mean: give both"));
            }
            None => None,
        };
        let same = args.read_by.as_ref() == Some(&args.dictionary);
        Ok(Self { model, own, read_by, same, lens: !model.layer_norm() })
    }

    pub(super) fn of(&self, dictionary: &Dictionary, feature: u32) -> Result<Reading> {
        let mut row = vec![0f32; dictionary.d_out()];
        dictionary.decoder_row(feature as usize, &mut row);
        let own =
            self.own.as_ref().and_then(|own| own.get(feature)).map(|e| named(e.label.as_deref(), &e.summary(WORDS)));
        let parts = match &self.read_by {
            Some((other, explanations)) => {
                // Of its own dictionary, a feature is read by the others.
                let own = self.same.then_some(feature as usize);
                let others = |i: usize, row: &mut [f32]| {
                    if own == Some(i) { row.fill(0.0) } else { other.decoder_row(i, row) }
                };
                let read = pursuit::pursue(&row, other.n_features(), &others, PARTS)?;
                let words = |feature| {
                    let found = explanations.as_ref().and_then(|all| all.get(feature));
                    found.map_or_else(String::new, |e| named(e.label.as_deref(), &e.summary(WORDS)))
                };
                let parts = read.parts.into_iter().map(|(feature, weight)| (feature, weight, words(feature)));
                Some((parts.collect(), read.explained))
            }
            None => None,
        };
        let words = match parts.is_none() && self.lens {
            true => pointed::words(self.model, &[row], 2 * WORDS)?.pop().unwrap_or_default(),
            false => Vec::new(),
        };
        Ok(Reading { feature, layer: dictionary.feature_layer(feature as usize), own, parts, words })
    }
}

fn named(label: Option<&str>, words: &str) -> String {
    label.map_or_else(|| words.to_owned(), |label| format!("[{label}] {words}"))
}

/// A feature, its weight and its words.
type Part = (u32, f32, String);

impl Reading {
    pub(super) fn json(&self) -> serde_json::Value {
        let part = |(feature, weight, words): &Part| json!({"feature": feature, "weight": weight, "words": words});
        json!({
            "feature": self.feature, "layer": self.layer, "explanation": self.own, "points_at": self.words,
            "read_as": self.parts.as_ref().map(|(parts, _)| parts.iter().map(part).collect::<Vec<_>>()),
            "explained": self.parts.as_ref().map(|(_, explained)| explained),
        })
    }

    /// Its number, its layer, and what it means.
    pub(super) fn cells(&self) -> [String; 3] {
        let mut lines: Vec<String> = self.own.iter().cloned().collect();
        if let Some((parts, explained)) = &self.parts {
            lines.extend(parts.iter().map(|(feature, weight, words)| format!("{weight:+.2} × {feature}: {words}")));
            lines.push(format!("these are {:.0} % of the direction", 100.0 * explained));
        } else if !self.words.is_empty() {
            let words: Vec<&str> = self.words.iter().map(|(word, _)| word.as_str()).collect();
            lines.push(format!("points at: {}", words.join(" ")));
        }
        let layer = self.layer.map_or_else(String::new, |layer| layer.to_string());
        [self.feature.to_string(), layer, lines.join("\n")]
    }
}

/// What features mean, for people.
pub(super) fn table(readings: &[Reading], out: &Out) -> Result<()> {
    out.table(&["feature", "layer", "means"], readings.iter().map(|reading| reading.cells().to_vec()))
}
