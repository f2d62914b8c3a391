//! Neuronpedia's JSONL: features and explanations as its exports have them, read and written.
//!
//! ```text
//! {"modelId":"gemma-2-2b","layer":"20-gemmascope-res-16k","index":"17","frac_nonzero":0.012,"maxActApprox":22.7,
//!  "pos_str":[" war"," army"],"pos_values":[1.2,1.1],"explanations":[{"description":"war"}]}              features/
//! {"modelId":"gemma-2-2b","layer":"20-gemmascope-res-16k","index":"17","description":"war"}               explanations/
//! ```
//!
//! [`Explanations::load`] takes both: tokens that are whole words become words, with their logits as scores; the first
//! description becomes the label. Its files are gzipped: unpack them first. Keys that are not named here are not looked at.
//! What is written carries an explanation's words in the place of tokens, and as description its label, or its first words.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::explanations::{Estimator, Explanation, Explanations, Header, LONGEST_LINE};
use super::vocabulary::normalize;
use crate::error::{Error, Result};
use crate::file::text::{for_each_line, wrong};
use crate::file::{json, write_atomic};

/// What helps against every mistake in such a file.
const HINT: &str = "a line of Neuronpedia's exports has modelId, layer and index; unpack .gz files first";
/// Words that make up a description where there is no label.
const DESCRIBED: usize = 5;

/// A line of either kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    model_id: String,
    layer: String,
    index: Index,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, rename = "frac_nonzero")]
    frac_nonzero: Option<f32>,
    #[serde(default, rename = "pos_str")]
    pos_str: Option<Vec<String>>,
    #[serde(default, rename = "pos_values")]
    pos_values: Option<Vec<f32>>,
    #[serde(default)]
    explanations: Option<Vec<Described>>,
}

#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    description: Option<String>,
}

/// Exports write it as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Index {
    Text(String),
    Number(u32),
}

/// Whether a first line is one of theirs.
pub(super) fn is_theirs(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|line| line.get("modelId").is_some() && line.get("index").is_some())
}

/// Reads features, or explanations; of several explanations of a feature the first.
pub(super) fn load(path: &Path) -> Result<Explanations> {
    let mut header = Header::new(Estimator::Lens);
    header.mode = Some("neuronpedia".to_owned());
    let (mut list, mut places): (Vec<Explanation>, HashMap<u32, usize>) = (Vec::new(), HashMap::new());
    for_each_line(path, LONGEST_LINE, |number, text| {
        let line: Line = serde_json::from_str(text).map_err(|e| json::error(&e, text, path.display(), number, HINT))?;
        let refused = |what: String| wrong(path, number, what).hinted(HINT);
        let feature = match &line.index {
            Index::Number(feature) => *feature,
            Index::Text(text) => {
                text.parse().map_err(|_| refused(format!("index: expected a feature's number, found {text:?}")))?
            }
        };
        let layer = layer_of(&line.layer);
        if header.model.as_ref().is_some_and(|known| *known != line.model_id || header.layer != layer) {
            return Err(refused(format!("expected one source, found {} {} too", line.model_id, line.layer)));
        }
        (header.model, header.layer) = (Some(line.model_id.clone()), layer);
        let found = explanation(feature, &line).map_err(refused)?;
        match places.get(&feature) {
            None => {
                places.insert(feature, list.len());
                list.push(found);
            }
            Some(&at) if list[at].label.is_none() => list[at].label = found.label,
            Some(_) => {}
        }
        Ok(())
    })?;
    Explanations::new(header, list).map_err(|e| e.context(path.display()))
}

/// The number that a source's name begins with.
fn layer_of(source: &str) -> Option<u32> {
    source.split('-').next()?.parse().ok()
}

fn explanation(feature: u32, line: &Line) -> std::result::Result<Explanation, String> {
    let tokens = line.pos_str.as_deref().unwrap_or_default();
    let values = line.pos_values.as_deref().unwrap_or_default();
    if tokens.len() != values.len() {
        let (n, m) = (tokens.len(), values.len());
        return Err(format!("pos_values: expected {n} numbers, as many as pos_str, found {m}"));
    }
    let mut words: Vec<(String, f32)> = Vec::new();
    for (token, &value) in tokens.iter().zip(values) {
        let word = normalize(token.trim_start_matches(['Ġ', '▁', ' ']));
        if let Some(word) = word.filter(|word| words.iter().all(|(known, _)| known != word)) {
            words.push((word, value));
        }
    }
    words.sort_by(|a, b| b.1.total_cmp(&a.1));
    let inner = line.explanations.iter().flatten().filter_map(|e| e.description.as_ref());
    let label = line.description.iter().chain(inner).map(|text| text.trim()).find(|text| !text.is_empty());
    Ok(Explanation { feature, density: line.frac_nonzero, mean: None, label: label.map(str::to_owned), words })
}

impl Explanations {
    /// Writes a line of Neuronpedia's `features/` for every feature. `model` and `source` are its names, such as
    /// `gemma-2-2b` and `20-gemmascope-res-16k`.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io).
    pub fn save_neuronpedia_features(&self, path: &Path, model: &str, source: &str) -> Result<()> {
        write_lines(path, self.list().iter().map(|e| {
            let (tokens, values): (Vec<String>, Vec<f32>) =
                e.words.iter().map(|(word, score)| (format!(" {word}"), *score)).unzip();
            let mut line = json!({
                "modelId": model, "layer": source, "index": e.feature.to_string(),
                "pos_str": tokens, "pos_values": values,
                "explanations": described(e).map(|text| json!({"description": text})).into_iter().collect::<Vec<_>>(),
            });
            if let Some(density) = e.density {
                line["frac_nonzero"] = json!(density);
            }
            line
        }))
    }

    /// Writes a line of Neuronpedia's `explanations/` for every feature with a label or words.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io).
    pub fn save_neuronpedia_explanations(&self, path: &Path, model: &str, source: &str) -> Result<()> {
        let name = format!("tiller-{}", self.header().estimator.name());
        write_lines(
            path,
            self.list().iter().filter_map(|e| {
                Some(json!({
                    "modelId": model, "layer": source, "index": e.feature.to_string(), "description": described(e)?,
                    "typeName": name, "explanationModelName": Value::Null,
                }))
            }),
        )
    }
}

/// The label, or else the first words; none without either.
fn described(explanation: &Explanation) -> Option<String> {
    let words = || Some(explanation.summary(DESCRIBED)).filter(|words| !words.is_empty());
    explanation.label.clone().or_else(words)
}

fn write_lines(path: &Path, lines: impl Iterator<Item = Value>) -> Result<()> {
    write_atomic(path, |out| {
        for line in lines {
            writeln!(out, "{line}").map_err(|e| Error::io("write", path, e))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURE: &str = r#"{"modelId":"gpt2-small","layer":"6-res_scefr-ajt","index":"650","sourceSetName":"res_scefr-ajt","maxActApprox":22.735,"frac_nonzero":0.00886,"vector":[0.1,-0.2],"pos_str":[" diameter","Ġradius","ing","▁Radius"," 12"],"pos_values":[1.23,1.1,1.05,1.0,0.9],"neg_str":[" Peb"],"neg_values":[-0.99],"explanations":[{"description":"measurements in meters","explanationModelName":"gpt-3.5-turbo","scores":[{"value":0.96}]}],"activations":[]}"#;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("batch-0.jsonl");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_feature_of_theirs_is_an_explanation() {
        let other = r#"{"modelId":"gpt2-small","layer":"6-res_scefr-ajt","index":3}"#;
        let (_dir, path) = file(&format!("{FEATURE}\n{other}\n"));
        let all = Explanations::load(&path).unwrap();
        let found = all.get(650).unwrap();
        assert_eq!(found.label.as_deref(), Some("measurements in meters"));
        let words: Vec<&str> = found.words.iter().map(|(word, _)| word.as_str()).collect();
        assert_eq!(words, ["diameter", "radius", "ing"], "a number is no word, and each word comes once");
        assert_eq!((found.density, found.words[0].1), (Some(0.00886), 1.23));
        assert_eq!((all.header().layer, all.header().model.as_deref()), (Some(6), Some("gpt2-small")));
        assert_eq!(all.get(3).unwrap().label, None);
    }

    #[test]
    fn what_is_written_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = Header::new(Estimator::Data);
        header.layer = Some(19);
        let words = vec![("war".to_owned(), 0.5), ("army".to_owned(), 0.25)];
        let list = vec![
            Explanation { feature: 3, density: Some(0.25), words: words.clone(), ..Explanation::default() },
            Explanation { feature: 8, label: Some("a \"quoted\" label".into()), ..Explanation::default() },
            Explanation { feature: 9, ..Explanation::default() },
        ];
        let all = Explanations::new(header, list).unwrap();
        let [features, explanations] = ["f.jsonl", "e.jsonl"].map(|name| dir.path().join(name));
        all.save_neuronpedia_features(&features, "smollm2-135m", "19-tiller-res").unwrap();
        all.save_neuronpedia_explanations(&explanations, "smollm2-135m", "19-tiller-res").unwrap();
        let back = Explanations::load(&features).unwrap();
        assert_eq!((back.list().len(), back.header().layer), (3, Some(19)));
        assert_eq!((&back.get(3).unwrap().words, back.get(3).unwrap().density), (&words, Some(0.25)));
        assert_eq!(back.get(3).unwrap().label.as_deref(), Some("war army"));
        assert_eq!(back.get(8).unwrap().label, all.get(8).unwrap().label);
        let back = Explanations::load(&explanations).unwrap();
        let labels: Vec<_> = back.list().iter().map(|e| (e.feature, e.label.clone().unwrap())).collect();
        assert_eq!(labels, [(3, "war army".to_owned()), (8, "a \"quoted\" label".to_owned())]);
    }

    #[test]
    fn the_first_of_several_explanations_counts() {
        let line = |text: &str| format!(r#"{{"modelId":"m","layer":"2-x","index":"5","description":"{text}"}}"#);
        let (_dir, path) = file(&[line(" "), line("first"), line("second")].join("\n"));
        let all = Explanations::load(&path).unwrap();
        assert_eq!((all.list().len(), all.get(5).unwrap().label.as_deref()), (1, Some("first")));
    }

    #[test]
    fn mistakes_are_named() {
        let ok = r#"{"modelId":"m","layer":"2-x","index":"5","description":"d"}"#;
        for (line, what) in [
            (r#"{"modelId":"m","layer":"2-x","index":"five"}"#, "index: expected a feature's number"),
            (r#"{"modelId":"other","layer":"2-x","index":"6"}"#, "expected one source"),
            (r#"{"modelId":"m","layer":"3-x","index":"6"}"#, "expected one source"),
            (r#"{"modelId":"m","layer":"2-x","index":"6","pos_str":["a"]}"#, "pos_values: expected 1"),
            (r#"{"modelId":"m","index":"6"}"#, "layer"),
        ] {
            let (_dir, path) = file(&format!("{ok}\n{line}\n"));
            let error = Explanations::load(&path).unwrap_err();
            assert!(error.message().contains(what) && error.message().contains("jsonl:2"), "{error}");
        }
    }
}
