use std::ffi::{CString, c_char};

use super::arguments::{Options, Report, finite, opt_text, options, path, report, some, text, texts};
use super::error::tiller_status;
use super::guard::{ErrorOut, Out, guard, make};
use super::text::{c_string, tiller_text};
use crate::error::{Error, Result};
use crate::explain::{Explanation, Explanations, Find, Match, SHOWN_WORDS, Vocabulary};

/// The words that explanations are made of: the most frequent ones of the training text, each once.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_vocabulary(pub(super) Vocabulary);

/// The `n_words` most frequent words of `n_texts` texts.
///
/// On success `*out` owns a new object; free it with tiller_vocabulary_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_vocabulary_new(
    strings: *const *const c_char,
    n_texts: usize,
    n_words: usize,
    out: Out<'_, tiller_vocabulary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_texts` C strings.
        let strings = unsafe { texts(strings, n_texts, "strings") }?;
        Vocabulary::from_texts(strings, n_words).map(tiller_vocabulary)
    })
}

/// Reads what tiller_vocabulary_save() wrote.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_vocabulary_open(
    file: *const c_char,
    out: Out<'_, tiller_vocabulary>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || Vocabulary::load(unsafe { path(file, "file") }?).map(tiller_vocabulary))
}

/// Number of words. 0 if `vocabulary` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_vocabulary_n_words(vocabulary: Option<&tiller_vocabulary>) -> usize {
    vocabulary.map_or(0, |v| v.0.len())
}

/// The word of `rank`, the most frequent one being 0.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_vocabulary_word(
    vocabulary: Option<&tiller_vocabulary>,
    rank: usize,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let words = some(vocabulary, "vocabulary")?.0.words();
        let word = words.get(rank).ok_or_else(|| Error::argument(format!("word {rank} of {}", words.len())))?;
        Ok(tiller_text::from(word.text.as_str()))
    })
}

/// Writes the words with their counts, as JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_vocabulary_save(
    vocabulary: Option<&tiller_vocabulary>,
    file: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(vocabulary, "vocabulary")?.0.save(unsafe { path(file, "file") }?))
}

/// Frees `vocabulary`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_vocabulary_free(vocabulary: Option<Box<tiller_vocabulary>>) {
    drop(vocabulary);
}

/// What the features of a dictionary mean, in words: a JSONL file with one feature a line.
///
/// Thread safety: one thread at a time.
pub struct tiller_explanations(pub(super) Explanations);

/// Reads explanations.
///
/// On success `*out` owns a new object; free it with tiller_explanations_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explanations_open(
    file: *const c_char,
    out: Out<'_, tiller_explanations>,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    make(out, err, || Explanations::load(unsafe { path(file, "file") }?).map(tiller_explanations))
}

/// Writes explanations; `file` is the old one or the new one, never half of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explanations_save(
    explanations: Option<&tiller_explanations>,
    file: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(explanations, "explanations")?.0.save(unsafe { path(file, "file") }?))
}

/// Number of features that have an explanation. 0 if `explanations` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_explanations_length(explanations: Option<&tiller_explanations>) -> usize {
    explanations.map_or(0, |e| e.0.list().len())
}

/// The number of the `i`-th feature that has one, in the order of the file; UINT32_MAX if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_explanations_feature(explanations: Option<&tiller_explanations>, i: usize) -> u32 {
    explanations.and_then(|e| e.0.list().get(i)).map_or(u32::MAX, |e| e.feature)
}

fn explanation(explanations: Option<&tiller_explanations>, feature: u32) -> Result<&Explanation> {
    let found = some(explanations, "explanations")?.0.get(feature);
    found.ok_or_else(|| Error::argument(format!("no explanation of feature {feature}")))
}

/// The best `n_words` words of a feature, parted by spaces.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_explanations_words(
    explanations: Option<&tiller_explanations>,
    feature: u32,
    n_words: usize,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || Ok(tiller_text::from(explanation(explanations, feature)?.summary(n_words).as_str())))
}

/// All that is known of a feature, as JSON: feature, density, mean, label, words with their scores.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_explanations_json(
    explanations: Option<&tiller_explanations>,
    feature: u32,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        let json = serde_json::to_string(explanation(explanations, feature)?);
        Ok(tiller_text::from(json.map_err(|e| Error::argument(e.to_string()))?.as_str()))
    })
}

/// Gives a feature a label, in place of any before; NULL takes it away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explanations_set_label(
    explanations: Option<&mut tiller_explanations>,
    feature: u32,
    label: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires a C string or NULL.
        let label = unsafe { opt_text(label, "label") }?.map(str::to_owned);
        some(explanations, "explanations")?.0.set_label(feature, label)
    })
}

/// Writes the labels as JSONL, `{"feature": 7, "label": "the sea"}` a line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explanations_save_labels(
    explanations: Option<&tiller_explanations>,
    file: *const c_char,
    err: ErrorOut<'_>,
) -> tiller_status {
    // SAFETY: the header requires a C string.
    guard(err, || some(explanations, "explanations")?.0.save_labels(unsafe { path(file, "file") }?))
}

/// Reads labels, from people or another program; `*n_labels` is how many (may be NULL). If the file is wrong, nothing
/// changes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explanations_load_labels(
    explanations: Option<&mut tiller_explanations>,
    file: *const c_char,
    n_labels: Option<&mut usize>,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        // SAFETY: the header requires a C string.
        let n = some(explanations, "explanations")?.0.load_labels(unsafe { path(file, "file") }?)?;
        if let Some(out) = n_labels {
            *out = n;
        }
        Ok(())
    })
}

/// Frees `explanations`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_explanations_free(explanations: Option<Box<tiller_explanations>>) {
    drop(explanations);
}

/// How to search. Zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_find {
    /// sizeof(tiller_find).
    pub size: u32,
    /// Features that fire on a larger share of the tokens are left out; 0 means 0.1.
    pub max_density: f32,
    /// What a word counts that a feature's explanation lacks, above 0 and below 1; 0 means 0.02.
    pub floor: f32,
}

// SAFETY: `repr(C)`, a `u32` first, numbers only.
unsafe impl Options for tiller_find {
    const NAME: &'static str = "tiller_find";
}

/// Features that a search found, best first.
///
/// Thread safety: immutable; may be used from several threads at once.
pub struct tiller_matches {
    pub(super) list: Vec<Match>,
    texts: Vec<[CString; 3]>,
}

/// One of them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tiller_match {
    /// Set it to sizeof(tiller_match) before the call.
    pub size: u32,
    /// Its number in the dictionary.
    pub feature: u32,
    /// How well it means all the words, above 0 and at most 1.
    pub score: f32,
    /// Its weight in a plan: its score relative to the best match, or by its lift.
    pub weight: f32,
    /// The share of tokens on which it fires; negative if unknown.
    pub density: f32,
    /// Its mean activation where it fires; negative if unknown.
    pub mean: f32,
    /// By how many nats it makes the words likelier, as tiller_engine_rank() measured it; NaN if it did not.
    pub lift: f32,
    /// Its best words, parted by spaces. Valid, like the others, until the matches are freed.
    pub words: *const c_char,
    /// The words of the query that are among them, parted by spaces.
    pub matched: *const c_char,
    /// Its label, or "".
    pub label: *const c_char,
}

// SAFETY: `repr(C)`, a `u32` first.
unsafe impl Report for tiller_match {
    const NAME: &'static str = "tiller_match";
}

/// The at most `n_features` features that mean all of `n_words` words, best first.
///
/// On success `*out` owns a new object, which may be empty; free it with tiller_matches_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explanations_find(
    explanations: Option<&tiller_explanations>,
    words: *const *const c_char,
    n_words: usize,
    n_features: usize,
    find: *const tiller_find,
    out: Out<'_, tiller_matches>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_words` C strings, and a struct whose `size` is set, or NULL.
        let (words, given) = unsafe { (texts(words, n_words, "words")?, options(find)?) };
        let default = Find::default();
        let or = |given: f32, default: f32, name: &str| if given == 0.0 { Ok(default) } else { finite(given, name) };
        let find = Find {
            max_density: or(given.max_density, default.max_density, "tiller_find.max_density")?,
            floor: or(given.floor, default.floor, "tiller_find.floor")?,
        };
        some(explanations, "explanations")?.0.find_with(&words, n_features, &find).map(tiller_matches::from)
    })
}

impl From<Vec<Match>> for tiller_matches {
    fn from(list: Vec<Match>) -> Self {
        let texts = list.iter().map(describe).collect();
        Self { list, texts }
    }
}

fn describe(found: &Match) -> [CString; 3] {
    let words: Vec<&str> = found.words.iter().take(SHOWN_WORDS).map(|(word, _)| word.as_str()).collect();
    let label = found.label.as_deref().unwrap_or_default();
    [c_string(&words.join(" ")), c_string(&found.matched.join(" ")), c_string(label)]
}

/// The at most `n_features` features whose label holds `label` in any case, in the order of their numbers.
///
/// On success `*out` owns a new object, which may be empty; free it with tiller_matches_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explanations_find_label(
    explanations: Option<&tiller_explanations>,
    label: *const c_char,
    n_features: usize,
    out: Out<'_, tiller_matches>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires a C string.
        let label = unsafe { text(label, "label") }?;
        Ok(tiller_matches::from(some(explanations, "explanations")?.0.find_label(label, n_features)))
    })
}

/// The words of a query that no explanation holds, parted by spaces.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_explanations_unknown_words(
    explanations: Option<&tiller_explanations>,
    words: *const *const c_char,
    n_words: usize,
    out: Out<'_, tiller_text>,
    err: ErrorOut<'_>,
) -> tiller_status {
    make(out, err, || {
        // SAFETY: the header requires `n_words` C strings.
        let words = unsafe { texts(words, n_words, "words") }?;
        Ok(tiller_text::from(some(explanations, "explanations")?.0.unknown_words(&words).join(" ").as_str()))
    })
}

/// How many were found. 0 if `matches` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_matches_length(matches: Option<&tiller_matches>) -> usize {
    matches.map_or(0, |m| m.list.len())
}

/// The `i`-th match, the best one being 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_matches_get(
    matches: Option<&tiller_matches>,
    i: usize,
    out: *mut tiller_match,
    err: ErrorOut<'_>,
) -> tiller_status {
    guard(err, || {
        let matches = some(matches, "matches")?;
        let found = matches.list.get(i).zip(matches.texts.get(i));
        let (found, [words, matched, label]) =
            found.ok_or_else(|| Error::argument(format!("match {i} of {}", matches.list.len())))?;
        let value = tiller_match {
            size: 0,
            feature: found.feature,
            score: found.score,
            weight: found.weight,
            density: found.density.unwrap_or(-1.0),
            mean: found.mean.unwrap_or(-1.0),
            lift: found.lift.unwrap_or(f32::NAN),
            words: words.as_ptr(),
            matched: matched.as_ptr(),
            label: label.as_ptr(),
        };
        // SAFETY: the header requires a struct whose `size` is set.
        unsafe { report(out, value) }
    })
}

/// Frees `matches`. NULL is a no-op.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_matches_free(matches: Option<Box<tiller_matches>>) {
    drop(matches);
}
