//! The tokens of a model: their raw text, and the bytes that they stand for.
//!
//! Raw text is what the file holds, and every family writes spaces and odd bytes in its own way: GPT-2's byte map
//! (`Ġthe`), SentencePiece's `▁the` and `<0x0A>`, RWKV's escapes. [`Vocabulary::bytes`] undoes that as llama.cpp does.
//! The texts stay in the file: opening a vocabulary of 262,144 tokens copies none of them.

use crate::error::{Error, Result};
use crate::file::gguf::{Array, Gguf};

/// How a family of tokenizers writes bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each byte is one letter of GPT-2's map.
    ByteMap,
    /// `▁` is a space; bytes without a letter are tokens of their own, `<0x0A>`.
    SentencePiece,
    /// Python's escapes: `\n`, `\x0a`, `\\`.
    Escapes,
    /// As it stands, save for tokens like `<0x0A>`.
    Plain,
}

/// What llama.cpp makes of a token, from `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// The token for what the vocabulary cannot spell.
    Unknown,
    /// A mark such as the beginning of the text; never part of it.
    Control,
    /// A piece of text that was added by hand, spelt as it stands.
    UserDefined,
    /// A reserved place.
    Unused,
    /// A single byte, `<0x0A>`.
    Byte,
}

/// The tokens of a model.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    tokens: Option<Array>,
    kinds: Option<Array>,
    spelling: Spelling,
    tokenizer: String,
    bos: Option<i32>,
    eos: Option<i32>,
    eot: Option<i32>,
    unknown: Option<i32>,
    padding: Option<i32>,
    add_bos: bool,
    add_eos: bool,
}

impl Vocabulary {
    /// Reads the keys `tokenizer.ggml.*`; a model without any has an empty vocabulary.
    pub(super) fn read(gguf: &Gguf) -> Result<Self> {
        let tokenizer = gguf.opt_str("tokenizer.ggml.model")?.unwrap_or("none");
        let pre = gguf.opt_str("tokenizer.ggml.pre")?.unwrap_or("");
        let tokens = gguf.opt_array("tokenizer.ggml.tokens")?;
        if let Some(found) = tokens.filter(|a| a.str(0).is_none() && !a.is_empty() && a.bytes(0).is_none()) {
            let found = found.kind().name();
            let what = format_args!("key \"tokenizer.ggml.tokens\": expected an array of str, found array of {found}");
            return Err(Error::format(gguf.path(), what));
        }
        let n = tokens.map_or(0, Array::len);
        let kinds = gguf.opt_array("tokenizer.ggml.token_type")?;
        if let Some(found) = kinds.filter(|a| a.len() != n) {
            let what = format_args!("key \"tokenizer.ggml.token_type\": expected {n} elements, found {}", found.len());
            return Err(Error::format(gguf.path(), what));
        }
        let special = |name: &str, default: Option<i32>| -> Result<Option<i32>> {
            let id = gguf.opt_u32(&format!("tokenizer.ggml.{name}_token_id"))?;
            // Files say "none" by an id that is no token, such as 2^32−1.
            let id = id.map_or(default, |id| i32::try_from(id).ok());
            Ok(id.filter(|&id| usize::try_from(id).is_ok_and(|id| id < n)))
        };
        let spm = tokenizer == "llama";
        let flag =
            |name: &str, default| Ok::<_, Error>(gguf.opt_bool(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default));
        Ok(Self {
            tokens: tokens.cloned(),
            kinds: kinds.cloned(),
            spelling: spelling(tokenizer, pre),
            tokenizer: tokenizer.to_owned(),
            // What llama.cpp takes for granted where a SentencePiece file says nothing.
            bos: special("bos", spm.then_some(1))?,
            eos: special("eos", spm.then_some(2))?,
            eot: special("eot", None)?,
            unknown: special("unknown", spm.then_some(0))?,
            padding: special("padding", None)?,
            add_bos: flag("add_bos_token", adds_bos(tokenizer, pre))?,
            add_eos: flag("add_eos_token", tokenizer == "t5")?,
        })
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.as_ref().map_or(0, Array::len)
    }

    /// Whether the file holds no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The family of tokenizers: `gpt2`, `llama` (SentencePiece), `bert`, `t5`, `rwkv`, …; `none` if the file has none.
    pub fn tokenizer(&self) -> &str {
        &self.tokenizer
    }

    /// The text of token `id` as the file holds it; none if there is no such token or it is not valid UTF-8.
    pub fn text(&self, id: i32) -> Option<&str> {
        self.tokens.as_ref()?.str(usize::try_from(id).ok()?)
    }

    /// What kind of token `id` is; none if there is no such token.
    pub fn kind(&self, id: i32) -> Option<TokenKind> {
        let i = usize::try_from(id).ok().filter(|&i| i < self.len())?;
        let Some(kinds) = &self.kinds else { return Some(TokenKind::Normal) };
        let number = kinds.number::<i32>(i).or_else(|| kinds.number::<u32>(i).and_then(|n| i32::try_from(n).ok()));
        Some(match number {
            Some(2) => TokenKind::Unknown,
            Some(3) => TokenKind::Control,
            Some(4) => TokenKind::UserDefined,
            Some(6) => TokenKind::Byte,
            Some(1) => TokenKind::Normal,
            _ => TokenKind::Unused,
        })
    }

    /// The bytes that token `id` adds to a text, special tokens spelt out as they stand; none if there is no such token.
    /// A token may be part of a letter: the bytes of several make valid UTF-8, not those of one.
    pub fn bytes(&self, id: i32) -> Option<Vec<u8>> {
        let raw = self.tokens.as_ref()?.bytes(usize::try_from(id).ok()?)?;
        let kind = self.kind(id)?;
        Some(match kind {
            TokenKind::Unused => Vec::new(),
            TokenKind::Byte => byte_token(raw).map_or_else(|| raw.to_vec(), |b| vec![b]),
            _ if self.spelling == Spelling::Escapes => unescape(raw),
            TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined => raw.to_vec(),
            TokenKind::Normal => match self.spelling {
                Spelling::ByteMap => from_byte_map(raw),
                Spelling::SentencePiece => from_sentence_piece(raw),
                Spelling::Escapes | Spelling::Plain => raw.to_vec(),
            },
        })
    }

    /// The text of a run of tokens, without control and unknown tokens; bytes that are no UTF-8 become `U+FFFD`.
    pub fn decode(&self, ids: &[i32]) -> String {
        let spoken = |id: &&i32| !matches!(self.kind(**id), Some(TokenKind::Control | TokenKind::Unknown));
        let bytes: Vec<u8> = ids.iter().filter(spoken).filter_map(|&id| self.bytes(id)).flatten().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<i32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<i32> {
        self.eos
    }

    /// The token that ends a turn of a conversation, where the file names one of its own.
    pub fn eot(&self) -> Option<i32> {
        self.eot
    }

    /// The token for what cannot be spelt.
    pub fn unknown(&self) -> Option<i32> {
        self.unknown
    }

    /// The token that fills up batches.
    pub fn padding(&self) -> Option<i32> {
        self.padding
    }

    /// Whether tokenizing puts [`Vocabulary::bos`] in front.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether tokenizing puts [`Vocabulary::eos`] behind.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }
}

fn spelling(tokenizer: &str, pre: &str) -> Spelling {
    match tokenizer {
        "gpt2" if matches!(pre, "gemma4" | "granite-embed-multi-311m" | "mmbert" | "sarvam-moe") => {
            Spelling::SentencePiece
        }
        "gpt2" => Spelling::ByteMap,
        "llama" | "bert" | "t5" | "gemma4" => Spelling::SentencePiece,
        "rwkv" => Spelling::Escapes,
        _ => Spelling::Plain,
    }
}

/// llama.cpp's answer where a file does not say.
fn adds_bos(tokenizer: &str, pre: &str) -> bool {
    match tokenizer {
        "llama" | "bert" | "gemma4" => true,
        "gpt2" => matches!(
            pre,
            "llama3"
                | "llama-v3"
                | "llama-bpe"
                | "falcon3"
                | "falcon-h1"
                | "pixtral"
                | "midm-2.0"
                | "lfm2"
                | "jina-v5-nano"
                | "tekken"
                | "chameleon"
        ),
        _ => false,
    }
}

/// The byte of `<0x0A>`.
fn byte_token(raw: &[u8]) -> Option<u8> {
    let digits = raw.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// GPT-2's map: printable Latin-1 letters stand for themselves, the other 68 bytes for U+0100 and up, in order.
fn from_byte_map(raw: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(raw) else { return raw.to_vec() };
    let mut out = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match mapped_byte(letter) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

fn mapped_byte(letter: char) -> Option<u8> {
    let stands_for_itself = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(letter);
    match u8::try_from(code) {
        Ok(byte) => stands_for_itself(byte).then_some(byte),
        // U+0100 on: 0x00..=0x20, then 0x7f..=0xa0, then 0xad.
        Err(_) => match code.checked_sub(0x100)? {
            i @ 0..=0x20 => u8::try_from(i).ok(),
            i @ 0x21..=0x42 => u8::try_from(i - 0x21 + 0x7f).ok(),
            0x43 => Some(0xad),
            _ => None,
        },
    }
}

/// `▁` (U+2581) is a space.
fn from_sentence_piece(raw: &[u8]) -> Vec<u8> {
    const SPACE: &[u8] = "▁".as_bytes();
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&first, tail)) = rest.split_first() {
        match rest.strip_prefix(SPACE) {
            Some(after) => {
                out.push(b' ');
                rest = after;
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// Undoes Python's escapes as RWKV's vocabulary has them.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        match bytes.next() {
            Some(b't') => out.push(b'\t'),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b'x') => {
                let digits = [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')];
                let byte = std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
                out.push(byte.unwrap_or(b'?'));
            }
            Some(other) => out.push(other),
            None => out.push(b'\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_map_has_every_byte_once() {
        let mut seen = [false; 256];
        for letter in ('\0'..='\u{2ff}').filter_map(mapped_byte) {
            assert!(!std::mem::replace(&mut seen[usize::from(letter)], true), "{letter:#x} twice");
        }
        assert!(seen.iter().all(|&s| s));
    }

    #[test]
    fn gpt2_text() {
        assert_eq!(from_byte_map("Ġthe".as_bytes()), b" the");
        assert_eq!(from_byte_map("ĊĊ".as_bytes()), b"\n\n");
        assert_eq!(from_byte_map("Ã¼".as_bytes()), "ü".as_bytes());
        assert_eq!(from_byte_map("日".as_bytes()), "日".as_bytes(), "no letter of the map: as it stands");
        assert_eq!(from_byte_map(&[0xff, 0x41]), [0xff, 0x41], "no UTF-8: as it stands");
    }

    #[test]
    fn sentence_piece_text() {
        assert_eq!(from_sentence_piece("▁the▁".as_bytes()), b" the ");
        assert_eq!(from_sentence_piece("日▁".as_bytes()), "日 ".as_bytes());
        assert_eq!(from_sentence_piece(&[0xe2, 0x96]), [0xe2, 0x96], "half of the letter");
        assert_eq!(byte_token(b"<0x0A>"), Some(b'\n'));
        assert_eq!(byte_token(b"<0xFF>"), Some(0xff));
        for wrong in [&b"<0x0>"[..], b"<0x0AB>", b"0x0A", b"<0xZZ>", b"<0x+1>x", b""] {
            assert_eq!(byte_token(wrong), None);
        }
    }

    #[test]
    fn escaped_text() {
        assert_eq!(unescape(br"a\n\x41\\"), b"a\nA\\");
        assert_eq!(unescape(br"\x4"), b"?");
        assert_eq!(unescape(b"\\"), b"\\");
    }

    #[test]
    fn bos_is_added_as_llama_cpp_does() {
        assert!(adds_bos("llama", "default"));
        assert!(adds_bos("gpt2", "llama-bpe"));
        assert!(!adds_bos("gpt2", "smollm"));
    }
}
