//! The vocabulary: every text once, a score and a type for each, special tokens that exist.

use std::collections::HashMap;

use super::{Checked, counts, describe};
use crate::error::{Error, Result};
use crate::file::gguf::{Array, Value, ValueType};

const TOKENS: &str = "tokenizer.ggml.tokens";
/// llama.cpp puts the tokens of some tokenizers into a tree, one call deep for each byte. The longest tokens that are
/// met have some hundred bytes.
const LONGEST: usize = 1024;

impl Checked<'_> {
    /// The vocabulary: every text once, a score and a type for each, special tokens that exist.
    pub(super) fn tokens(&self) -> Result<()> {
        let tokenizer = self.model.gguf().str("tokenizer.ggml.model")?;
        if matches!(tokenizer, "none" | "no_vocab") {
            let why = "llama.cpp aborts when it is asked for a token of none";
            return Err(self.wrong("tokenizer.ggml.model", "a tokenizer", format_args!("\"{tokenizer}\""), why));
        }
        let tokens = self.list(TOKENS, &[ValueType::Str])?;
        let Some(tokens) = tokens.filter(|list| !list.is_empty()) else {
            return Err(self.wrong(TOKENS, "an array of str with at least one token", "none", ""));
        };
        let texts = self.unique(tokens)?;
        let n = tokens.len();
        let as_long = |key: &str, kinds: &[ValueType]| match self.list(key, kinds)? {
            Some(list) if list.len() < n => {
                let expected = format_args!("at least {n} elements, as many as tokens");
                Err(self.wrong(key, expected, list.len(), "llama.cpp reads one for each"))
            }
            list => Ok(list),
        };
        as_long("tokenizer.ggml.scores", &[ValueType::F32, ValueType::I32])?;
        let kinds = as_long("tokenizer.ggml.token_type", &[ValueType::I32])?;
        self.list("tokenizer.ggml.merges", &[ValueType::Str])?;
        self.list("tokenizer.ggml.precompiled_charsmap", &[ValueType::I8, ValueType::U8])?;
        self.byte_tokens(tokenizer, tokens, kinds)?;
        if tokenizer == "rwkv" {
            self.first_bytes(&texts)?;
        }
        let tree = matches!(tokenizer, "rwkv" | "t5");
        if let Some((text, i)) = texts.iter().find(|(text, _)| tree && text.len() > LONGEST) {
            let expected = format_args!("tokens of at most {LONGEST} bytes");
            let why = "llama.cpp would use up the stack";
            return Err(self.wrong(TOKENS, expected, format_args!("{} in token {i}", text.len()), why));
        }
        self.special(tokenizer, n)
    }

    /// The array of `key`, which holds one of `kinds`.
    fn list(&self, key: &str, kinds: &[ValueType]) -> Result<Option<&Array>> {
        let Some(value) = self.model.gguf().get(key) else { return Ok(None) };
        match value.as_array() {
            Some(list) if kinds.contains(&list.kind()) => Ok(Some(list)),
            _ => {
                let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
                let expected = format_args!("an array of {}", names.join(" or "));
                Err(self.wrong(key, expected, describe(value), "llama.cpp reads nothing else"))
            }
        }
    }

    /// Where each text is in the vocabulary; llama.cpp asserts that none is there twice.
    fn unique<'t>(&self, tokens: &'t Array) -> Result<HashMap<&'t [u8], usize>> {
        let mut seen = HashMap::with_capacity(tokens.len());
        for i in 0..tokens.len() {
            let text = tokens.bytes(i).unwrap_or_default();
            // llama.cpp gives tokens without a text one of their own.
            if text.is_empty() {
                continue;
            }
            if let Some(first) = seen.insert(text, i) {
                let text = String::from_utf8_lossy(text);
                let why = "llama.cpp keeps tokens by their text and asserts it";
                let what = format_args!(
                    "key \"{TOKENS}\": expected every token once, found {text:?} as {first} and as {i} ({why})"
                );
                let hint = format!("convert the model again with another text for token {i}, such as \"[UNUSED_{i}]\"");
                return Err(Error::format(self.model.gguf().path(), what).hinted(hint));
            }
        }
        Ok(seen)
    }

    /// llama.cpp reads the byte out of such a token's text, `<0x0A>`, and aborts where the tokenizer has none.
    fn byte_tokens(&self, tokenizer: &str, tokens: &Array, kinds: Option<&Array>) -> Result<()> {
        const BYTE: i32 = 6;
        let Some(kinds) = kinds.filter(|_| !matches!(tokenizer, "rwkv" | "plamo2")) else { return Ok(()) };
        let fits = |i: usize| tokenizer != "bert" && tokens.bytes(i).is_some_and(|text| text.len() > 3);
        match (0..tokens.len()).find(|&i| kinds.number::<i32>(i) == Some(BYTE) && !fits(i)) {
            None => Ok(()),
            Some(i) => {
                let text = String::from_utf8_lossy(tokens.bytes(i).unwrap_or_default());
                let found = format_args!("type {BYTE}, a byte, for token {i}, {text:?}");
                let why = "llama.cpp aborts or reads past its end";
                Err(self.wrong("tokenizer.ggml.token_type", "bytes spelt <0x0A>", found, why))
            }
        }
    }

    /// RWKV's tokenizer starts over for ever at a byte that begins a token and is none itself.
    fn first_bytes(&self, texts: &HashMap<&[u8], usize>) -> Result<()> {
        let escaped = |byte: u8| {
            let hex = format!("\\x{byte:02x}");
            let short = [(b'\n', "\\n"), (b'\r', "\\r"), (b'\t', "\\t"), (b'\\', "\\\\"), (b'\'', "\\'")];
            let short = short.iter().find(|(b, _)| *b == byte).map_or(hex.clone(), |(_, text)| (*text).to_owned());
            [vec![byte], hex.into_bytes(), short.into_bytes()]
        };
        match (0..=u8::MAX).find(|&byte| !escaped(byte).iter().any(|text| texts.contains_key(text.as_slice()))) {
            None => Ok(()),
            Some(byte) => {
                let why = "llama.cpp's tokenizer does not end without it";
                Err(self.wrong(TOKENS, "each of the 256 bytes as a token", format_args!("none for byte {byte}"), why))
            }
        }
    }

    /// Special tokens exist, and those that llama.cpp puts around a text are known to it.
    fn special(&self, tokenizer: &str, n: usize) -> Result<()> {
        let exists = |id: u32| usize::try_from(id).is_ok_and(|id| id < n);
        for (key, value) in self.model.gguf().keys() {
            if !key.starts_with("tokenizer.ggml.") || !key.ends_with("_token_id") {
                continue;
            }
            match value {
                // Files say "none" by the largest number.
                Value::U32(id) if exists(*id) || *id == u32::MAX => {}
                _ => {
                    let expected = format_args!("a u32 from 0 to {}, or {} for none", n.saturating_sub(1), u32::MAX);
                    let found = counts(value).and_then(|v| v.first().copied());
                    let found = found.map_or_else(|| describe(value), |id| id.to_string());
                    return Err(self.wrong(key, expected, found, "llama.cpp would take another token in its place"));
                }
            }
        }
        let flag = |name: &str| self.model.gguf().get(&format!("tokenizer.ggml.{name}")).and_then(Value::as_bool);
        let (bos, eos, sep) = match tokenizer {
            "llama" => (Some(1), Some(2), None),
            "bert" => (Some(101), None, Some(102)),
            "t5" => (None, Some(1), None),
            "plamo2" => (Some(1), Some(2), None),
            "gemma4" | "rwkv" => (None, None, None),
            _ => (Some(11), Some(11), None),
        };
        let bert = tokenizer == "bert";
        let put = [
            ("bos", bos, bert || self.model.vocabulary.add_bos()),
            ("eos", eos, flag("add_eos_token").unwrap_or(tokenizer == "t5")),
            ("seperator", sep, bert),
        ];
        for (name, default, put) in put {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let known =
                self.model.gguf().get(&key).and_then(counts).and_then(|v| v.first().copied()).filter(|&id| exists(id));
            if put && tokenizer != "rwkv" && known.or(default).is_none_or(|id| !exists(id)) {
                let found = self.model.gguf().get(&key).map_or_else(|| "no such key".to_owned(), describe);
                let why = "llama.cpp puts this token around every text and asserts that there is one";
                return Err(self.wrong(&key, format_args!("a token from 0 to {}", n.saturating_sub(1)), found, why));
            }
        }
        Ok(())
    }
}
