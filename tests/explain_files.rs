//! Malformed vocabulary, explanation and label files: each gets an error that names the file, the place, what was expected
//! and what was found.

use std::path::{Path, PathBuf};

use tiller::explain::{Explanations, Vocabulary};
use tiller::{Error, Kind};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join("file");
        std::fs::write(&path, contents).unwrap();
        path
    }
}

/// The error must be of `kind`, name the file, and hold all of `parts`.
fn assert_says(error: &Error, kind: Kind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in ["file"].iter().chain(parts) {
        assert!(error.message().contains(part), "{part:?} is not in: {error}");
    }
}

fn vocabulary_says(contents: impl AsRef<[u8]>, parts: &[&str]) {
    let files = Files::new();
    assert_says(&Vocabulary::load(&files.file(contents)).unwrap_err(), Kind::Format, parts);
}

fn explanations_say(contents: impl AsRef<[u8]>, parts: &[&str]) {
    let files = Files::new();
    assert_says(&Explanations::load(&files.file(contents)).unwrap_err(), Kind::Format, parts);
}

fn labels_say(contents: impl AsRef<[u8]>, parts: &[&str]) {
    let files = Files::new();
    let path = files.file("{\"feature\":3,\"words\":[]}\n{\"feature\":4,\"label\":\"old\",\"words\":[]}\n");
    let mut all = Explanations::load(&path).unwrap();
    let before = all.clone();
    let error = all.load_labels(&files.file(contents)).unwrap_err();
    assert_says(&error, Kind::Format, parts);
    assert_eq!(all, before, "a wrong file must change nothing");
}

const WORDS: &str = r#"{"kind":"tiller.vocabulary","version":1,"words":["#;

#[test]
fn vocabulary_missing() {
    let error = Vocabulary::load(Path::new("no/such/file")).unwrap_err();
    assert_says(&error, Kind::Io, &["cannot open"]);
}

#[test]
fn vocabulary_empty() {
    vocabulary_says("", &[":1:", "EOF"]);
}

#[test]
fn vocabulary_cut_short() {
    vocabulary_says(format!("{WORDS}\n{{\"rank\":0,\"word\":\"the\",\"co"), &[":2:", "EOF"]);
}

#[test]
fn vocabulary_not_utf8() {
    let bytes = [WORDS.as_bytes(), b"\n{\"rank\":0,\"word\":\"\xff\xfe\",\"count\":1}]}"].concat();
    vocabulary_says(bytes, &[":2:", "expected UTF-8"]);
}

#[test]
fn vocabulary_of_another_kind() {
    let text = r#"{"kind":"recipe","version":1,"words":[]}"#;
    vocabulary_says(text, &["expected \"tiller.vocabulary\"", "found \"recipe\""]);
}

#[test]
fn vocabulary_of_the_future() {
    vocabulary_says(r#"{"kind":"tiller.vocabulary","version":2,"words":[]}"#, &["expected 1", "found 2"]);
}

#[test]
fn vocabulary_without_words() {
    vocabulary_says(format!("{WORDS}]}}"), &["words: expected at least one"]);
}

#[test]
fn vocabulary_with_an_unknown_key() {
    let word = r#"{"rank":0,"word":"the","count":1,"color":2}]}"#;
    vocabulary_says(format!("{WORDS}{word}"), &[":1:", "unknown field `color`"]);
}

#[test]
fn vocabulary_with_a_wrong_rank() {
    let word = r#"{"rank":1,"word":"the","count":1}]}"#;
    vocabulary_says(format!("{WORDS}{word}"), &["words[0]", "expected rank 0, found 1"]);
}

#[test]
fn vocabulary_with_a_negative_count() {
    let word = r#"{"rank":0,"word":"the","count":-1}]}"#;
    vocabulary_says(format!("{WORDS}{word}"), &["-1", "expected u64"]);
}

#[test]
fn vocabulary_with_what_is_no_word() {
    for word in ["two words", "The", "", "x", "it'"] {
        let line = format!("{WORDS}{{\"rank\":0,\"word\":\"{word}\",\"count\":1}}]}}");
        vocabulary_says(line, &["words[0]", "expected one lower-case word", &format!("found {word:?}")]);
    }
}

#[test]
fn vocabulary_that_is_not_sorted() {
    let two = r#"{"rank":0,"word":"the","count":1},{"rank":1,"word":"of","count":2}]}"#;
    vocabulary_says(format!("{WORDS}{two}"), &["words[1]", "at most 1, found 2"]);
}

#[test]
fn vocabulary_with_a_word_twice() {
    let two = r#"{"rank":0,"word":"the","count":2},{"rank":1,"word":"the","count":2}]}"#;
    vocabulary_says(format!("{WORDS}{two}"), &["each word once", "found \"the\" twice"]);
}

const HEADER: &str = r#"{"kind":"tiller.explanations","version":1,"estimator":"data","n_features":8}"#;

/// The header and one line after it.
fn after_header(line: &str) -> String {
    format!("{HEADER}\n{line}")
}

#[test]
fn explanations_missing() {
    let error = Explanations::load(Path::new("no/such/file")).unwrap_err();
    assert_says(&error, Kind::Io, &["cannot open"]);
}

#[test]
fn explanations_empty_or_header_only() {
    explanations_say("", &["expected explanations", "found none"]);
    explanations_say("\n  \n", &["found none"]);
    explanations_say(HEADER, &["found none"]);
}

#[test]
fn explanations_header_of_another_kind() {
    let header = HEADER.replace("tiller.explanations", "tiller.plan");
    explanations_say(header, &[":1:", "unknown variant `tiller.plan`", "expected `tiller.explanations`"]);
}

#[test]
fn explanations_header_of_the_future() {
    explanations_say(HEADER.replace("1,", "7,"), &[":1:", "version: expected 1, found 7"]);
}

#[test]
fn explanations_header_with_an_unknown_key_or_estimator() {
    explanations_say(HEADER.replace("n_features", "n_fish"), &[":1:", "unknown field `n_fish`"]);
    explanations_say(HEADER.replace("data", "guess"), &[":1:", "unknown variant `guess`", "`data`", "`tuned`"]);
}

#[test]
fn explanations_header_not_first() {
    explanations_say(format!("{{\"feature\":1,\"words\":[]}}\n{HEADER}"), &[":2:", "unknown field `kind`"]);
}

#[test]
fn explanations_line_cut_short() {
    explanations_say(after_header("\n{\"feature\":1,\"wor"), &[":3:17:", "EOF"]);
}

#[test]
fn explanations_line_not_utf8() {
    let bytes = [HEADER.as_bytes(), b"\n{\"feature\":1,\"label\":\"\xff\",\"words\":[]}\n"].concat();
    explanations_say(bytes, &[":2:", "expected UTF-8"]);
}

#[test]
fn explanations_line_that_never_ends() {
    explanations_say(after_header(&"[".repeat(1 << 23)), &[":2:", "expected a line of at most"]);
}

#[test]
fn explanations_line_nested_without_end() {
    let line = format!("{{\"feature\":1,\"words\":{}", "[".repeat(1 << 20));
    explanations_say(after_header(&line), &[":2:", "expected"]);
}

#[test]
fn explanations_line_of_another_type() {
    explanations_say(after_header("[1,2]"), &[":2:"]);
    explanations_say(after_header(r#"{"feature":"one","words":[]}"#), &[":2:", "\"one\"", "expected u32"]);
    explanations_say(after_header(r#"{"feature":-1,"words":[]}"#), &[":2:", "-1", "expected u32"]);
    explanations_say(after_header(r#"{"feature":1,"words":[["war"]]}"#), &[":2:", "expected a tuple of size 2"]);
}

#[test]
fn explanations_line_with_missing_or_unknown_keys() {
    explanations_say(after_header(r#"{"feature":1}"#), &[":2:", "missing field `words`"]);
    explanations_say(after_header(r#"{"feature":1,"words":[],"mood":1}"#), &[":2:", "unknown field `mood`"]);
}

#[test]
fn explanations_feature_beyond_the_dictionary() {
    explanations_say(after_header(r#"{"feature":8,"words":[]}"#), &[":2:", "below 8, found 8"]);
}

#[test]
fn explanations_feature_twice() {
    let line = r#"{"feature":1,"words":[]}"#;
    explanations_say(format!("{HEADER}\n{line}\n{line}"), &[":3:", "each feature once, found 1 again"]);
}

#[test]
fn explanations_density_or_mean_out_of_range() {
    for (key, value) in [("density", "1.5"), ("density", "-0.1"), ("mean", "-1"), ("mean", "1e39")] {
        let line = format!("{{\"feature\":1,\"{key}\":{value},\"words\":[]}}");
        explanations_say(after_header(&line), &[":2:", key, "expected", "found"]);
    }
}

#[test]
fn explanations_score_not_a_number() {
    explanations_say(after_header(r#"{"feature":1,"words":[["war",1e40]]}"#), &[":2:", "words[0]", "finite"]);
    explanations_say(after_header(r#"{"feature":1,"words":[["war",NaN]]}"#), &[":2:", "expected value"]);
    explanations_say(after_header(r#"{"feature":1,"words":[["war",null]]}"#), &[":2:", "null", "expected f32"]);
}

#[test]
fn explanations_words_not_best_first() {
    let line = r#"{"feature":1,"words":[["war",0.1],["sea",0.2]]}"#;
    explanations_say(after_header(line), &[":2:", "words[1]", "at most 0.1 (best first), found 0.2"]);
}

#[test]
fn explanations_word_empty_or_twice() {
    explanations_say(after_header(r#"{"feature":1,"words":[[" ",0.1]]}"#), &[":2:", "words[0]", "expected a word"]);
    let line = r#"{"feature":1,"words":[["war",0.2],["war",0.1]]}"#;
    explanations_say(after_header(line), &[":2:", "words[1]", "\"war\" again"]);
}

#[test]
fn explanations_with_too_many_words() {
    let words: Vec<String> = (0..10_001).map(|i| format!("[\"w{i}\",0]")).collect();
    let line = format!("{{\"feature\":1,\"words\":[{}]}}", words.join(","));
    explanations_say(after_header(&line), &[":2:", "at most 10000"]);
}

#[test]
fn explanations_without_a_header_are_read() {
    let files = Files::new();
    let path = files.file("{\"words\":[[\"war\",0.5]],\"feature\":4000000000}\r\n\n");
    let all = Explanations::load(&path).unwrap();
    assert_eq!(all.header().n_features, None);
    assert_eq!(all.get(4_000_000_000).unwrap().summary(3), "war");
}

#[test]
fn labels_cut_short() {
    labels_say("{\"feature\":3,\"label\":\"war\"}\n{\"feature\":4", &[":2:", "EOF"]);
}

#[test]
fn labels_of_an_unknown_feature() {
    labels_say(r#"{"feature":5,"label":"war"}"#, &[":1:", "expected one that has an explanation, found 5"]);
}

#[test]
fn labels_twice() {
    let line = r#"{"feature":3,"label":"war"}"#;
    labels_say(format!("{line}\n\n{line}"), &[":3:", "each feature once, found 3 again"]);
}

#[test]
fn labels_empty_or_of_another_type() {
    labels_say(r#"{"feature":3,"label":" "}"#, &[":1:", "label: expected text"]);
    labels_say(r#"{"feature":3,"label":7}"#, &[":1:", "integer `7`", "expected a string"]);
    labels_say(r#"{"feature":3,"label":"war","by":"me"}"#, &[":1:", "unknown field `by`"]);
}

#[test]
fn labels_go_out_and_come_back() {
    let files = Files::new();
    let path = files.file("{\"feature\":3,\"words\":[]}\n{\"feature\":4,\"words\":[]}\n");
    let mut all = Explanations::load(&path).unwrap();
    assert_eq!(all.load_labels(&files.file("{\"feature\":4,\"label\":\"the sea\"}\n")).unwrap(), 1);
    all.save_labels(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"feature\":4,\"label\":\"the sea\"}\n");
}

#[test]
fn any_prefix_and_any_changed_byte_of_a_good_file_is_no_panic() {
    let files = Files::new();
    let good = after_header(r#"{"feature":1,"density":0.5,"label":"é","words":[["war",0.5],["sea",0.1]]}"#);
    let words = format!("{WORDS}\n{{\"rank\":0,\"word\":\"the\",\"count\":9}}]}}");
    for text in [good, words] {
        for at in 0..text.len() {
            for byte in [b'"', b'9', b'{', 0xff] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = byte;
                for bytes in [&bytes[..], &bytes[..at]] {
                    let path = files.file(bytes);
                    let _ = Explanations::load(&path);
                    let _ = Vocabulary::load(&path);
                }
            }
        }
    }
}
