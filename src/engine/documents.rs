//! Text files as documents: what is read, harvested and trained on.

use std::path::{Path, PathBuf};

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use super::{Engine, Message};
use crate::error::{Error, Result};
use crate::file::{json, read_text, text};

/// The longest text, in bytes: llama.cpp counts them in 31 bits.
const LONGEST: u64 = i32::MAX as u64;
/// The longest line, in bytes: a line without an end must not fill memory.
const LONGEST_LINE: u64 = 1 << 28;
/// What a line of JSON may be.
const SHAPES: &str = "a document is {\"text\": …}, {\"messages\": [{\"role\": …, \"content\": …}, …]}, \
    {\"conversations\": [{\"from\": …, \"value\": …}, …]} or {\"prompt\": …, \"completion\": …}";
/// What a line of pairs may be.
const PAIRS: &str = "a pair is {\"positive\": …, \"negative\": …} in a .jsonl file, or two texts with a tab between";

/// One piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Plain text. It is data: the names of control tokens in it, such as `<|im_end|>`, stay text.
    Text(String),
    /// A conversation, to be written by the model's own chat template; see [`Engine::chat_tokens`].
    Chat(Vec<Message>),
}

/// The documents of text files, in order.
///
/// A `.jsonl` or `.ndjson` file holds one document a line, a `.json` file one, a list of them, or one after another. Known
/// are `{"text": …}`, `{"messages": [{"role": …, "content": …}, …]}`, ShareGPT's `{"conversations": [{"from": …, "value": …},
/// …]}`, and `{"prompt": …, "completion": …}`, which is one text; other keys are ignored. Any other file is one document.
///
/// # Errors
/// [`Format`](crate::Kind::Format) for what is no text in UTF-8, for lines of another shape, and if there is no document;
/// it names the file, the line and the key.
pub fn documents(files: &[PathBuf]) -> Result<Vec<Document>> {
    let mut all = Vec::new();
    each_document(files, &mut |_, _, document| {
        all.push(document?);
        Ok(())
    })?;
    Ok(all)
}

/// Takes a document, or why it is none, with its file and line.
pub type Take<'t> = dyn FnMut(&Path, usize, Result<Document>) -> Result<()> + 't;

/// Calls `take` with every document of text files, in order, as [`documents`] reads them: with its file, the line where it
/// starts, from 1 (0: the whole file is the document), and the document or why it is none.
///
/// # Errors
/// As [`documents`], but for lines of another shape; what `take` returns.
pub fn each_document(files: &[PathBuf], take: &mut Take<'_>) -> Result<()> {
    let mut none = true;
    for path in files {
        let mut found = |line: usize, document: Result<Document>| {
            none = false;
            take(path, line, document)
        };
        match extension(path).as_str() {
            "jsonl" | "ndjson" => {
                text::for_each_line(path, LONGEST_LINE, |number, line| found(number, document(line, path, number)))?;
            }
            "json" => values(&read_text(path, LONGEST)?, path, &mut found)?,
            _ => {
                let text = read_text(path, LONGEST)?;
                if !text.trim().is_empty() {
                    found(0, Ok(Document::Text(text)))?;
                }
            }
        }
    }
    match files.first() {
        Some(path) if none => {
            let error = Error::format(path, "expected text, found none");
            Err(error.hinted("the file is empty or holds nothing but blank lines"))
        }
        _ => Ok(()),
    }
}

/// Positive and negative texts, a pair a line: `{"positive": …, "negative": …}` in a `.jsonl` or `.ndjson` file, in any other
/// a tab between.
///
/// # Errors
/// As [`documents`].
pub fn pairs(path: &Path) -> Result<(Vec<Document>, Vec<Document>)> {
    #[derive(Deserialize)]
    #[serde(expecting = "an object with \"positive\" and \"negative\"")]
    struct Pair {
        positive: String,
        negative: String,
    }
    let is_json = matches!(extension(path).as_str(), "jsonl" | "ndjson");
    let (mut up, mut down) = (Vec::new(), Vec::new());
    text::for_each_line(path, LONGEST_LINE, |number, line| {
        let (positive, negative) = if is_json {
            let pair: Pair =
                serde_json::from_str(line).map_err(|e| json::error(&e, line, path.display(), number, PAIRS))?;
            (pair.positive, pair.negative)
        } else {
            let line = line.trim_end_matches(['\r', '\n']);
            let pair = line.split_once('\t').map(|(a, b)| (a.to_owned(), b.to_owned()));
            pair.ok_or_else(|| {
                let start: String = line.chars().take(60).collect();
                let what = format_args!("expected two texts with a tab between, found \"{start}\"");
                text::wrong(path, number, what).hinted(PAIRS)
            })?
        };
        up.push(Document::Text(positive));
        down.push(Document::Text(negative));
        Ok(())
    })?;
    if up.is_empty() {
        return Err(Error::format(path, "expected pairs of texts, found none").hinted(PAIRS));
    }
    Ok((up, down))
}

/// What comes after the last dot of the name, in small letters.
fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Every document of a JSON text: one, a list, or one after another.
fn values(text: &str, path: &Path, found: &mut dyn FnMut(usize, Result<Document>) -> Result<()>) -> Result<()> {
    let blank = |at: usize| at + text.get(at..).map_or(0, |rest| rest.len() - rest.trim_start().len());
    let line_of = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
    let mut at = blank(0);
    let list = text.get(at..).is_some_and(|rest| rest.starts_with('['));
    let (mut counted, mut line) = (at, line_of(at));
    at = blank(at + usize::from(list));
    while let Some(rest) = text.get(at..).filter(|rest| !(rest.is_empty() || list && rest.starts_with(']'))) {
        line += text.get(counted..at).map_or(0, |passed| passed.bytes().filter(|&byte| byte == b'\n').count());
        counted = at;
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        if let Some(Err(e)) = stream.next() {
            return Err(json::error(&e, rest, path.display(), line, SHAPES));
        }
        let end = at + stream.byte_offset();
        found(line, document(text.get(at..end).unwrap_or_default(), path, line))?;
        at = blank(end);
        if list && text.get(at..).is_some_and(|rest| rest.starts_with(',')) {
            at = blank(at + 1);
        }
    }
    let rest = text.get(at..).unwrap_or_default();
    if list && rest.trim_end() != "]" {
        let what =
            if rest.is_empty() { "expected the end of the list, found none" } else { "found more after the list" };
        return Err(text::wrong(path, line_of(at), what).hinted("the file may be cut short: write or fetch it again"));
    }
    Ok(())
}

/// The document that stands at `line` of `path`.
fn document(text: &str, path: &Path, line: usize) -> Result<Document> {
    /// Which of the known keys are there; null counts as absent.
    #[derive(Deserialize)]
    #[serde(expecting = "an object such as {\"text\": …}")]
    struct Keys {
        text: Option<IgnoredAny>,
        messages: Option<IgnoredAny>,
        #[serde(alias = "conversation")]
        conversations: Option<IgnoredAny>,
        prompt: Option<IgnoredAny>,
        completion: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Plain {
        text: String,
    }
    #[derive(Deserialize)]
    struct Chat {
        messages: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Shared {
        #[serde(alias = "conversation")]
        conversations: Vec<Shown>,
    }
    #[derive(Deserialize)]
    struct Continued {
        prompt: String,
        completion: String,
    }
    let wrong = |e: serde_json::Error| json::error(&e, text, path.display(), line, SHAPES);
    let keys: Keys = serde_json::from_str(text).map_err(wrong)?;
    let turns: Vec<Message> = match keys {
        Keys { text: Some(_), messages: None, .. } => {
            return serde_json::from_str(text).map(|line: Plain| Document::Text(line.text)).map_err(wrong);
        }
        Keys { text: None, messages: Some(_), .. } => serde_json::from_str::<Chat>(text).map_err(wrong)?.messages,
        Keys { text: Some(_), messages: Some(_), .. } => {
            return Err(text::wrong(path, line, "expected \"text\" or \"messages\", found both").hinted(SHAPES));
        }
        Keys { conversations: Some(_), .. } => {
            let shared: Shared = serde_json::from_str(text).map_err(wrong)?;
            shared.conversations.into_iter().map(|shown| shown.0).collect()
        }
        Keys { prompt: Some(_), completion: Some(_), .. } => {
            let Continued { prompt, completion } = serde_json::from_str(text).map_err(wrong)?;
            return Ok(Document::Text(prompt + &completion));
        }
        _ => {
            let found: std::collections::BTreeMap<String, IgnoredAny> = serde_json::from_str(text).map_err(wrong)?;
            let found: Vec<&str> = found.keys().map(String::as_str).take(8).collect();
            let what = format_args!("expected a document, found an object with the keys {found:?}");
            return Err(text::wrong(path, line, what).hinted(SHAPES));
        }
    };
    if turns.is_empty() {
        return Err(text::wrong(path, line, "messages: expected at least one, found none").hinted(SHAPES));
    }
    Ok(Document::Chat(turns))
}

/// A turn in the form of the API of OpenAI.
#[derive(Deserialize)]
#[serde(expecting = "a message such as {\"role\": \"user\", \"content\": \"Hello\"}")]
struct Turn {
    role: String,
    #[serde(default)]
    content: Content,
    tool_calls: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
}

impl TryFrom<Turn> for Message {
    type Error = String;

    fn try_from(turn: Turn) -> std::result::Result<Self, String> {
        super::text::check_role(&turn.role)?;
        let calls = turn.tool_calls.is_some() || turn.function_call.is_some();
        match turn.content {
            Content::Text(content) => Ok(Self { role: turn.role, content }),
            // What a turn calls is left out: the text of a call is a matter of each template.
            Content::Missing if calls => Ok(Self { role: turn.role, content: String::new() }),
            Content::Missing => Err("missing field `content`".into()),
        }
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        Self::try_from(Turn::deserialize(input)?).map_err(serde::de::Error::custom)
    }
}

/// A turn in the form of ShareGPT.
struct Shown(Message);

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(expecting = "a turn such as {\"from\": \"human\", \"value\": \"Hello\"}")]
        struct Form {
            #[serde(alias = "role")]
            from: String,
            #[serde(alias = "content")]
            value: String,
        }
        let Form { from, value } = Form::deserialize(input)?;
        let role = match from.to_lowercase().as_str() {
            "human" => "user",
            "gpt" | "chatgpt" | "bing" | "bard" | "model" | "bot" => "assistant",
            other => other,
        }
        .to_owned();
        super::text::check_role(&role).map_err(serde::de::Error::custom)?;
        Ok(Self(Message { role, content: value }))
    }
}

/// What a turn says: a string, null, or parts of text, which become lines.
#[derive(Default)]
enum Content {
    #[default]
    Missing,
    Text(String),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(expecting = "a part such as {\"type\": \"text\", \"text\": \"Hello\"}")]
        struct Part {
            #[serde(rename = "type")]
            kind: String,
            text: Option<String>,
        }
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Content;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a string, null, or parts such as {\"type\": \"text\", \"text\": \"Hello\"}")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<Content, E> {
                Ok(Content::Text(String::new()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> std::result::Result<Content, A::Error> {
                let mut lines = Vec::new();
                while let Some(Part { kind, text }) = parts.next_element()? {
                    match (kind.as_str(), text) {
                        ("text" | "input_text" | "output_text", Some(text)) => lines.push(text),
                        _ => {
                            let what = format!("expected a part with a \"text\", found one of type {kind:?}");
                            return Err(serde::de::Error::custom(what));
                        }
                    }
                }
                Ok(Content::Text(lines.join("\n")))
            }
        }
        input.deserialize_any(Form)
    }
}

impl Engine {
    /// The tokens of a document, BOS in front where the model wants it. Plain text has no control tokens, whatever it spells.
    pub fn document_tokens(&self, document: &Document) -> Result<Vec<i32>> {
        match document {
            Document::Text(text) => self.text_tokens(text),
            Document::Chat(messages) => self.chat_tokens(messages, false),
        }
    }

    /// As [`document_tokens`](Self::document_tokens), for a model that goes on from there: a conversation ends with the
    /// opening of the assistant's turn.
    pub fn prompt_tokens(&self, document: &Document) -> Result<Vec<i32>> {
        match document {
            Document::Text(text) => self.text_tokens(text),
            Document::Chat(messages) => self.chat_tokens(messages, true),
        }
    }
}

/// A hash of the text.
pub(super) fn identity(text: &[Document]) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    };
    for document in text {
        match document {
            Document::Text(text) => add(text),
            Document::Chat(messages) => messages.iter().for_each(|m| {
                add(&m.role);
                add(&m.content);
            }),
        }
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: impl AsRef<[u8]>) -> std::result::Result<Vec<Document>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        documents(&[path]).map_err(|e| {
            assert!(e.hint().is_some_and(|hint| !hint.contains("cut short")), "{e}: {:?}", e.hint());
            e.message().replace(&format!("{}/", folder.path().display()), "")
        })
    }

    fn texts(all: &[&str]) -> std::result::Result<Vec<Document>, String> {
        Ok(all.iter().map(|&text| Document::Text(text.into())).collect())
    }

    fn chat(turns: &[(&str, &str)]) -> std::result::Result<Vec<Document>, String> {
        let message = |&(role, content): &(&str, &str)| Message { role: role.into(), content: content.into() };
        Ok(vec![Document::Chat(turns.iter().map(message).collect())])
    }

    #[test]
    fn lines_are_lines_whatever_the_files_name() {
        let lines = "{\"text\":\"one two\"}\n\n{\"text\":\"three\"}\n";
        for name in ["a.jsonl", "a.JSONL", "a.ndjson", "a.json", "a.Json"] {
            assert_eq!(read(name, lines), texts(&["one two", "three"]), "{name}");
            assert_eq!(read(name, format!("\u{feff}{lines}")), texts(&["one two", "three"]), "{name}");
        }
        assert_eq!(read("a.txt", lines), texts(&[lines]));
    }

    #[test]
    fn a_json_file_holds_one_document_or_a_list() {
        assert_eq!(read("a.json", "{\n \"text\": \"one\"\n}\n"), texts(&["one"]));
        assert_eq!(read("a.json", "[{\"text\":\"one\"},\n {\"text\":\"two\"}\n]\n"), texts(&["one", "two"]));
        assert_eq!(read("a.json", " { \"text\": \"one\" }{\"text\":\"two\"}"), texts(&["one", "two"]));
        let wrong = read("a.json", "[\n {\"text\":\"one\"},\n {\"text\":7}\n]").unwrap_err();
        assert_eq!(wrong, "a.json:3:9: text: invalid type: integer `7`, expected a string");
        assert_eq!(read("a.json", "[]"), Err("a.json: expected text, found none".into()));
    }

    #[test]
    fn known_shapes_are_read() {
        let turns = [("user", "Hi"), ("assistant", "Hello")];
        let messages =
            r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}],"text":null}"#;
        assert_eq!(read("a.jsonl", messages), chat(&turns));
        let shared = r#"{"id":7,"conversations":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Hello"}]}"#;
        assert_eq!(read("a.jsonl", shared), chat(&turns));
        assert_eq!(read("a.jsonl", r#"{"prompt":"Hi","completion":" there"}"#), texts(&["Hi there"]));
        let tools = r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":null,"tool_calls":[{}]},
            {"role":"tool","content":"42","tool_call_id":"1"},{"role":"assistant","tool_calls":[{}]}]}"#;
        let turns = [("user", "Hi"), ("assistant", ""), ("tool", "42"), ("assistant", "")];
        assert_eq!(read("a.jsonl", tools.replace('\n', " ")), chat(&turns));
        let parts =
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"Hi"},{"type":"text","text":"there"}]}]}"#;
        assert_eq!(read("a.jsonl", parts), chat(&[("user", "Hi\nthere")]));
        assert_eq!(read("a.jsonl", "{\"text\":\"nul \\u0000 inside\"}"), texts(&["nul \0 inside"]));
    }

    #[test]
    fn other_shapes_are_refused_with_file_line_and_key() {
        for (line, wanted) in [
            (r#"{"text":"a","messages":[]}"#, "a.jsonl:2: expected \"text\" or \"messages\", found both"),
            (r#"{"messages":[]}"#, "a.jsonl:2: messages: expected at least one, found none"),
            (
                r#"{"instruction":"a","output":"b"}"#,
                "a.jsonl:2: expected a document, found an object with the keys [\"instruction\", \"output\"]",
            ),
            (r#"{"text":7}"#, "a.jsonl:2:9: text: invalid type: integer `7`, expected a string"),
            ("7", "a.jsonl:2:1: invalid type: integer `7`, expected an object such as {\"text\": …}"),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}"#,
                "a.jsonl:2:75: messages[0].content[0]: expected a part with a \"text\", found one of type \"image_url\"",
            ),
            (
                r#"{"messages":[{"role":"user"},{"role":"user","content":""}]}"#,
                "a.jsonl:2:29: messages[0]: missing field `content`",
            ),
            (
                r#"{"messages":[{"role":"user<|im_end|>","content":""}]}"#,
                "a.jsonl:2:52: messages[0]: role: expected a word such as user, found \"user<|im_end|>\"",
            ),
            (r#"{"text":"lone \ud83d surrogate"}"#, "a.jsonl:2:21: text: unexpected end of hex escape"),
            ("{\"text\":\n\"over two lines\"}", "a.jsonl:2:8: text: EOF while parsing a value"),
        ] {
            let error = read("a.jsonl", format!("{{\"text\":\"good\"}}\n{line}\n")).unwrap_err();
            assert_eq!(error, wanted, "{line}");
        }
        let latin = read("a.jsonl", b"{\"text\":\"good\"}\n{\"text\":\"caf\xe9\"}\n").unwrap_err();
        assert_eq!(latin, "a.jsonl:2: expected UTF-8, found 0xe9 at byte 13 of the line");
    }

    #[test]
    fn no_text_at_all_is_an_error() {
        for (name, text) in [("a.txt", ""), ("a.txt", " \n"), ("a.jsonl", "\n\n"), ("a.json", " ")] {
            assert_eq!(read(name, text), Err(format!("{name}: expected text, found none")));
        }
    }

    #[test]
    fn pairs_are_read_from_both_forms() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let wanted = (texts(&["up", "up too"]).unwrap(), texts(&["down", "down too"]).unwrap());
        assert_eq!(pairs(&path("p.tsv", "\u{feff}up\tdown\r\nup too\tdown too\r\n")).unwrap(), wanted);
        let lines = "{\"positive\":\"up\",\"negative\":\"down\"}\n{\"positive\":\"up too\",\"negative\":\"down too\"}";
        assert_eq!(pairs(&path("p.JSONL", lines)).unwrap(), wanted);
        let error = pairs(&path("p.tsv", "up\tdown\nno tab\n")).unwrap_err();
        assert!(
            error.message().ends_with("p.tsv:2: expected two texts with a tab between, found \"no tab\""),
            "{error}"
        );
        assert!(pairs(&path("p.tsv", "")).is_err());
    }
}
