//! What features mean, in words; and the file that says so.
//!
//! The file is JSONL. Its first line may be a header; every other line is one feature:
//!
//! ```text
//! {"kind":"tiller.explanations","version":1,"estimator":"data","n_features":4096,"n_words":5000,"n_tokens":1000000,"model":"SmolLM2…","model_fingerprint":"9f…"}
//! {"feature":17,"density":0.0121,"mean":3.42,"label":"war","words":[["war",0.0312],["army",0.0287]]}
//! ```
//!
//! `density` is the share of tokens on which the feature fires, `mean` its mean activation where it does (in the units of
//! its codes; strength is given relative to it). Both may be missing, as may `label`, which people or a language model
//! write. Words come best first; their scores are in the units of the estimator. Unknown keys are refused.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::neuronpedia;
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::file::text::{for_each_line, wrong};
use crate::file::{json, write_atomic};
use crate::model::Kinship;

const KIND: &str = "tiller.explanations";
const VERSION: u32 = 1;
/// More words a feature than this are a damaged file.
const MOST_WORDS: usize = 10_000;
/// The longest line that is read, in bytes.
pub(super) const LONGEST_LINE: u64 = 1 << 22;
/// What helps against every mistake in explanations.
const HINT: &str = "`tiller explain` writes such files; examples/files.md has every key";

/// What helps against explanations of another dictionary.
const HINT_OTHER: &str = "take the explanations that were made for this dictionary, or make them: `tiller explain`";

/// How words were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Estimator {
    /// Mutual information counted over harvested text.
    #[default]
    Data,
    /// Mutual information through the unembedding.
    Lens,
    /// The lens behind a ridge map to the final residual.
    Tuned,
    /// Words of the top activating spans, a baseline.
    TopAct,
}

impl Estimator {
    /// Every estimator.
    pub const ALL: [Self; 4] = [Self::Data, Self::Lens, Self::Tuned, Self::TopAct];

    /// `data`, `lens`, `tuned` or `topact`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Lens => "lens",
            Self::Tuned => "tuned",
            Self::TopAct => "topact",
        }
    }

    /// The estimator of that name.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) names the choices.
    pub fn from_name(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|estimator| estimator.name() == name);
        known.ok_or_else(|| Error::argument(format!("estimator: expected data, lens, tuned or topact, found {name:?}")))
    }
}

/// Where explanations come from. Everything but the estimator may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    kind: Kind,
    version: u32,
    /// How words were found.
    pub estimator: Estimator,
    /// The estimator's mode, such as `mi/softmax`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The size of the dictionary: features are numbered below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_features: Option<u32>,
    /// The size of the vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_words: Option<u32>,
    /// How many tokens were counted over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_tokens: Option<u64>,
    /// The layer of the dictionary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    /// The name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The fingerprint of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_fingerprint: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Kind {
    #[default]
    #[serde(rename = "tiller.explanations")]
    Explanations,
}

impl Header {
    /// A header that knows the estimator only.
    pub fn new(estimator: Estimator) -> Self {
        Self { version: VERSION, estimator, ..Self::default() }
    }
}

/// What one feature means.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The feature's number in its dictionary.
    pub feature: u32,
    /// The share of tokens on which it fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<f32>,
    /// Its mean activation where it fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f32>,
    /// What a person, or a language model, called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its words with their scores, best first.
    pub words: Vec<(String, f32)>,
}

impl Explanation {
    /// The first `n` words, parted by spaces.
    pub fn summary(&self, n: usize) -> String {
        let words: Vec<&str> = self.words.iter().take(n).map(|(word, _)| word.as_str()).collect();
        words.join(" ")
    }

    /// The place and score of `word`.
    pub fn score(&self, word: &str) -> Option<(usize, f32)> {
        self.words.iter().enumerate().find(|(_, (text, _))| text == word).map(|(at, (_, score))| (at, *score))
    }

    fn check(&self, n_features: Option<u32>) -> std::result::Result<(), String> {
        if let Some(n) = n_features.filter(|n| self.feature >= *n) {
            return Err(format!("feature: expected a number below {n}, found {}", self.feature));
        }
        if let Some(density) = self.density.filter(|d| !(0.0..=1.0).contains(d)) {
            return Err(format!("density: expected 0 to 1, found {density}"));
        }
        if let Some(mean) = self.mean.filter(|m| !(m.is_finite() && *m >= 0.0)) {
            return Err(format!("mean: expected a finite number of at least 0, found {mean}"));
        }
        if self.words.len() > MOST_WORDS {
            return Err(format!("words: expected at most {MOST_WORDS}, found {}", self.words.len()));
        }
        let mut seen = std::collections::HashSet::with_capacity(self.words.len());
        let mut before = f32::INFINITY;
        for (at, (word, score)) in self.words.iter().enumerate() {
            if word.trim().is_empty() {
                return Err(format!("words[{at}]: expected a word, found {word:?}"));
            }
            if !score.is_finite() {
                return Err(format!("words[{at}]: expected a finite score, found {score}"));
            }
            if *score > before {
                return Err(format!("words[{at}]: expected a score of at most {before} (best first), found {score}"));
            }
            if !seen.insert(word.as_str()) {
                return Err(format!("words[{at}]: expected each word once, found {word:?} again"));
            }
            before = *score;
        }
        Ok(())
    }
}

/// The explanations of a dictionary, by feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanations {
    header: Header,
    list: Vec<Explanation>,
    places: HashMap<u32, usize>,
}

impl Explanations {
    /// Puts explanations together.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if a feature comes twice or lies beyond the header's `n_features`, or if words are
    /// not best first, not finite, or come twice.
    pub fn new(header: Header, list: Vec<Explanation>) -> Result<Self> {
        let mut all = Self { header, list: Vec::with_capacity(list.len()), places: HashMap::with_capacity(list.len()) };
        for explanation in list {
            let feature = explanation.feature;
            all.push(explanation)
                .map_err(|what| Error::argument(format!("explanation of feature {feature}: {what}")))?;
        }
        Ok(all)
    }

    fn push(&mut self, explanation: Explanation) -> std::result::Result<(), String> {
        explanation.check(self.header.n_features)?;
        if self.places.insert(explanation.feature, self.list.len()).is_some() {
            return Err(format!("feature: expected each feature once, found {} again", explanation.feature));
        }
        self.list.push(explanation);
        Ok(())
    }

    /// Where they come from.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where they come from, to fill in.
    pub fn header_mut(&mut self) -> &mut Header {
        &mut self.header
    }

    /// All of them, in the order of the file.
    pub fn list(&self) -> &[Explanation] {
        &self.list
    }

    /// The explanation of `feature`.
    pub fn get(&self, feature: u32) -> Option<&Explanation> {
        self.places.get(&feature).and_then(|&at| self.list.get(at))
    }

    /// Sets or, with `None`, clears the label of `feature`.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if the feature has no explanation.
    pub fn set_label(&mut self, feature: u32, label: Option<String>) -> Result<()> {
        let explanation = self.places.get(&feature).and_then(|&at| self.list.get_mut(at));
        let explanation =
            explanation.ok_or_else(|| Error::argument(format!("label: no explanation of feature {feature}")))?;
        explanation.label = label;
        Ok(())
    }

    /// Checks that they are those of `dictionary`: its size, layer and model. The answer is a doubt, where the header does not
    /// tell.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Kind::Mismatch).
    pub fn check(&self, dictionary: &Dictionary) -> Result<Option<String>> {
        let (own, info) = (&self.header, dictionary.info());
        self.check_size(dictionary.n_features()).map_err(|e| e.hinted(HINT_OTHER))?;
        self.check_origin(info.layer, &info.model_name, &info.model_fingerprint)?;
        let silent = own.n_features.is_none() && own.layer.is_none() && own.model_fingerprint.is_none();
        Ok(silent.then(|| "the explanations do not say which dictionary they are of".to_owned()))
    }

    /// Checks that they are of this layer of this model. What either side does not tell, as an empty fingerprint, fits.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Kind::Mismatch).
    pub fn check_origin(&self, layer: Option<usize>, model: &str, fingerprint: &str) -> Result<()> {
        let own = &self.header;
        if let (Some(of), Some(layer)) = (own.layer, layer)
            && of as usize != layer
        {
            let what = format!("explanations of layer {of}, but the dictionary is of layer {layer}");
            return Err(Error::mismatch(what).hinted(HINT_OTHER));
        }
        let of = own.model_fingerprint.as_deref().unwrap_or_default();
        if !of.is_empty() && !fingerprint.is_empty() && Kinship::of(of, fingerprint) < Kinship::Sibling {
            let name = own.model.as_deref().unwrap_or("another model");
            let what = format!(
                "explanations of {name:?} (fingerprint {of}), but the dictionary is of {model:?} (fingerprint {fingerprint})"
            );
            return Err(Error::mismatch(what).hinted(HINT_OTHER));
        }
        Ok(())
    }

    /// Checks that they fit a dictionary of `n_features`.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Kind::Mismatch).
    pub fn check_size(&self, n_features: usize) -> Result<()> {
        if let Some(n) = self.header.n_features.filter(|n| *n as usize != n_features) {
            return Err(Error::mismatch(format!("explanations of {n} features, but the dictionary has {n_features}")));
        }
        match self.list.iter().find(|e| e.feature as usize >= n_features) {
            Some(e) => Err(Error::mismatch(format!("explanation of feature {} of {n_features}", e.feature))),
            None => Ok(()),
        }
    }

    /// Writes the header and the explanations.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io).
    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomic(path, |out| self.write(out).map_err(|e| Error::io("write", path, e)))
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, &self.header)?;
        out.write_all(b"\n")?;
        for explanation in &self.list {
            let mut short = explanation.clone();
            short.words.iter_mut().for_each(|(_, score)| *score = rounded(*score));
            short.density = short.density.map(rounded);
            short.mean = short.mean.map(rounded);
            serde_json::to_writer(&mut *out, &short)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Reads what [`save`](Self::save), or another program, wrote; also Neuronpedia's [exports](super::neuronpedia).
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io); [`Format`](crate::Kind::Format) reads `file:line: expected …, found …`.
    pub fn load(path: &Path) -> Result<Self> {
        let mut all = Self { header: Header::new(Estimator::Data), list: Vec::new(), places: HashMap::new() };
        let (mut first, mut theirs) = (true, false);
        for_each_line(path, LONGEST_LINE, |number, text| {
            theirs |= first && neuronpedia::is_theirs(text);
            if theirs {
                return Ok(());
            }
            if std::mem::take(&mut first) && has_kind(text) {
                let header: Header =
                    serde_json::from_str(text).map_err(|e| json::error(&e, text, path.display(), number, HINT))?;
                if header.version != VERSION {
                    return Err(wrong(
                        path,
                        number,
                        format_args!("version: expected {VERSION}, found {}", header.version),
                    ));
                }
                all.header = header;
                return Ok(());
            }
            let explanation: Explanation =
                serde_json::from_str(text).map_err(|e| json::error(&e, text, path.display(), number, HINT))?;
            all.push(explanation).map_err(|what| wrong(path, number, what).hinted(HINT))
        })?;
        if theirs {
            return neuronpedia::load(path);
        }
        if all.list.is_empty() {
            return Err(Error::format(
                path,
                format_args!("expected explanations ({KIND}), one feature a line, found none"),
            ));
        }
        Ok(all)
    }
}

/// Whether a first line is a header: a JSON object with the key `kind`.
fn has_kind(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        kind: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Probe>(text).is_ok_and(|probe| probe.kind.is_some())
}

/// Four significant digits: a third of the bytes, and more than an estimate from a million tokens can bear.
fn rounded(value: f32) -> f32 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explanation(feature: u32, words: &[(&str, f32)]) -> Explanation {
        let words = words.iter().map(|(word, score)| ((*word).to_owned(), *score)).collect();
        Explanation { feature, words, ..Explanation::default() }
    }

    #[test]
    fn what_is_saved_is_read_back_to_four_digits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.jsonl");
        let mut header = Header::new(Estimator::Tuned);
        header.n_features = Some(9);
        let list = vec![
            Explanation {
                density: Some(0.25),
                mean: Some(3.5),
                ..explanation(3, &[("war", 0.123_456), ("sea", -1e-9)])
            },
            Explanation { label: Some("a \"quoted\"\nlabel".into()), ..explanation(8, &[]) },
        ];
        let all = Explanations::new(header, list).unwrap();
        all.save(&path).unwrap();
        let back = Explanations::load(&path).unwrap();
        assert_eq!(back.header(), all.header());
        assert_eq!(back.get(3).unwrap().words, [("war".to_owned(), 0.1235), ("sea".to_owned(), -1e-9)]);
        assert_eq!(back.get(3).unwrap().density, Some(0.25));
        assert_eq!(back.get(8), all.get(8));
        assert_eq!(back.get(4), None);
    }

    #[test]
    fn sizes_that_do_not_fit_are_a_mismatch() {
        let all = Explanations::new(Header::new(Estimator::Data), vec![explanation(7, &[])]).unwrap();
        assert!(all.check_size(8).is_ok());
        assert_eq!(all.check_size(7).unwrap_err().kind(), crate::Kind::Mismatch);
        let mut header = Header::new(Estimator::Data);
        header.n_features = Some(8);
        let all = Explanations::new(header.clone(), vec![]).unwrap();
        assert_eq!(all.check_size(9).unwrap_err().kind(), crate::Kind::Mismatch);
        assert!(Explanations::new(header, vec![explanation(8, &[])]).is_err());
    }

    #[test]
    fn explanations_of_another_layer_or_model_are_a_mismatch() {
        let (own, other) = ("a".repeat(64), "b".repeat(64));
        let mut header = Header::new(Estimator::Data);
        (header.layer, header.model_fingerprint) = (Some(19), Some(own.clone()));
        let all = Explanations::new(header, vec![explanation(7, &[])]).unwrap();
        assert!(all.check_origin(Some(19), "m", &own).is_ok());
        assert!(all.check_origin(None, "", "").is_ok(), "a dictionary that does not tell is not refused");
        for (layer, fingerprint, part) in [(9, &own, "of layer 9"), (19, &other, "of \"m\" (fingerprint bbb")] {
            let error = all.check_origin(Some(layer), "m", fingerprint).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Mismatch);
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn labels_are_set_and_cleared() {
        let mut all = Explanations::new(Header::new(Estimator::Data), vec![explanation(7, &[])]).unwrap();
        all.set_label(7, Some("war".into())).unwrap();
        assert_eq!(all.get(7).unwrap().label.as_deref(), Some("war"));
        all.set_label(7, None).unwrap();
        assert_eq!(all.get(7).unwrap().label, None);
        assert!(all.set_label(1, None).is_err());
    }
}
