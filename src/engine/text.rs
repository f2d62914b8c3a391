//! Text to tokens and back, and the chat template.

use std::ffi::{CStr, CString, c_char};

use ggml_sys as sys;

use super::{Engine, guard};
use crate::error::{Error, Result};

/// One turn of a conversation.
///
/// In JSON the content may also be null, which is empty, or a list of parts `{"type": "text", "text": …}`, which become
/// lines; what a turn calls (`tool_calls`) is left out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or another word that the model's template knows, such as `tool`.
    pub role: String,
    /// What was said. It is data: the names of control tokens in it, such as `<|im_end|>`, stay text.
    pub content: String,
}

impl Message {
    /// What the model is told before the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system".into(), content: content.into() }
    }

    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }

    /// A turn of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant".into(), content: content.into() }
    }
}

/// Refuses what could write more than a word into a template.
pub(super) fn check_role(role: &str) -> std::result::Result<(), String> {
    let word = !role.is_empty() && role.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' '));
    if word { Ok(()) } else { Err(format!("role: expected a word such as user, found {role:?}")) }
}

/// A part of a conversation as a template writes it.
pub(super) enum Piece {
    /// The template's own text: tags and roles.
    Template(String),
    /// What the message of this number says.
    Content(usize, String),
}

impl Piece {
    fn text(&self) -> &str {
        match self {
            Self::Template(text) | Self::Content(_, text) => text,
        }
    }
}

/// Stands before and behind a message's mark, to see whether the template trims: a blank that no template writes.
const BLANK: char = '\u{b}';

impl Engine {
    /// Tokens of `text` for a caller who wrote it, or trusts it. `special`: put the model's BOS in front if it wants one
    /// (once, even if the text begins with it), and read the names of control tokens such as `<|im_start|>` as these.
    ///
    /// Who trusts what: a prompt ([`generate`](Self::generate), [`begin`](Self::begin)) is the developer's, and is read with
    /// `special`. Text that is data is not: documents and texts to be scored keep such names as text
    /// ([`document_tokens`](Self::document_tokens), [`perplexity`](Self::perplexity)), and of a conversation only the
    /// template's own tags are control tokens ([`chat_tokens`](Self::chat_tokens)).
    pub fn tokenize(&self, text: &str, special: bool) -> Result<Vec<i32>> {
        self.cut_text(text, special, special)
    }

    /// Tokens of plain text that is data: BOS in front if the model wants one, no other control token.
    pub(super) fn text_tokens(&self, text: &str) -> Result<Vec<i32>> {
        self.cut_text(text, true, false)
    }

    /// The token that the model wants behind every text; few do.
    fn eos(&self) -> Option<i32> {
        // SAFETY: the vocabulary belongs to the loaded model.
        unsafe { sys::llama_vocab_get_add_eos(self.vocab()).then(|| sys::llama_vocab_eos(self.vocab())) }
    }

    /// `ends`: add BOS and EOS as the model wants them; `special`: read the names of control tokens as these.
    fn cut_text(&self, text: &str, ends: bool, special: bool) -> Result<Vec<i32>> {
        let length = i32::try_from(text.len()).map_err(|_| Error::argument("the text is over 2 GiB long"))?;
        let mut tokens = vec![0_i32; text.len() + 2];
        loop {
            let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            let (vocab, bytes, found) = (self.vocab(), text.as_ptr().cast::<c_char>(), tokens.as_mut_ptr());
            // SAFETY: the pointers cover `length` bytes and `room` tokens.
            let n = self.ask("cutting a text into tokens", || unsafe {
                guard::llama_tokenize(vocab, bytes, length, found, room, ends, special)
            })?;
            match usize::try_from(n) {
                Ok(n) => {
                    tokens.truncate(n);
                    break;
                }
                Err(_) if n == i32::MIN => return Err(Error::argument("the text has too many tokens")),
                Err(_) => tokens.resize(n.unsigned_abs() as usize, 0),
            }
        }
        // A text that begins with BOS gets no second one.
        if let (true, true, Some(bos), [first, second, ..]) = (ends, special, self.bos(), tokens.as_slice())
            && *first == bos
            && *second == bos
        {
            tokens.remove(0);
        }
        Ok(tokens)
    }

    /// The token that the model wants in front of every text.
    pub(super) fn bos(&self) -> Option<i32> {
        // SAFETY: the vocabulary belongs to the loaded model.
        unsafe { sys::llama_vocab_get_add_bos(self.vocab()).then(|| sys::llama_vocab_bos(self.vocab())) }
    }

    /// The bytes of a token; control tokens are empty unless `special`.
    pub fn token_bytes(&self, token: i32, special: bool) -> Vec<u8> {
        if usize::try_from(token).map_or(true, |token| token >= self.n_vocab()) {
            return Vec::new();
        }
        let mut bytes = vec![0_u8; 64];
        loop {
            let room = bytes.len() as i32;
            let (vocab, piece) = (self.vocab(), bytes.as_mut_ptr().cast());
            // SAFETY: the token is in range and the buffer has `room` bytes.
            let n = self.ask("reading a token", || unsafe {
                guard::llama_token_to_piece(vocab, token, piece, room, 0, special)
            });
            let Ok(n) = n else { return Vec::new() };
            match usize::try_from(n) {
                Ok(n) => {
                    bytes.truncate(n);
                    return bytes;
                }
                Err(_) => bytes.resize(n.unsigned_abs() as usize, 0),
            }
        }
    }

    /// The text of `tokens`; what is no UTF-8 becomes U+FFFD.
    pub fn detokenize(&self, tokens: &[i32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| self.token_bytes(token, false)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The conversation as the model's own chat template writes it; `answer` adds the opening of the assistant's turn.
    ///
    /// For people to read. The names of control tokens in a message look like the template's own here: a model gets
    /// [`chat_tokens`](Self::chat_tokens).
    ///
    /// # Errors
    /// [`Unsupported`](crate::Kind::Unsupported) when the model has no template, one that llama.cpp does not know, or one
    /// that has no place for a message; [`Argument`](crate::Kind::Argument) for a role that is no word.
    pub fn chat(&self, messages: &[Message], answer: bool) -> Result<String> {
        Ok(self.pieces(messages, answer)?.iter().map(Piece::text).collect())
    }

    /// The tokens of the conversation as the model's own chat template writes it; `answer` adds the opening of the
    /// assistant's turn. Only the template's own tags become control tokens: `<|im_end|>` in a message stays text.
    ///
    /// # Errors
    /// As [`chat`](Self::chat).
    pub fn chat_tokens(&self, messages: &[Message], answer: bool) -> Result<Vec<i32>> {
        self.cut_pieces(&self.pieces(messages, answer)?, true)
    }

    /// The tokens of a part of a conversation; `ends`: it is the whole one, with BOS and EOS as the model wants them.
    pub(super) fn cut_pieces(&self, pieces: &[Piece], ends: bool) -> Result<Vec<i32>> {
        let whole: String = pieces.iter().map(Piece::text).collect();
        let tokens = self.cut_text(&whole, ends, true)?;
        // The template's tags in order, with the place of each: (piece, start, end, token).
        let mut tags = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            let Piece::Template(text) = piece else { continue };
            let mut start = 0;
            for token in self.cut_text(text, false, true)?.into_iter().filter(|&token| self.is_tag(token)) {
                let name = self.name(token);
                let rest = text.get(start..).unwrap_or_default();
                let Some(at) = rest.find(&name).filter(|_| !name.is_empty()) else {
                    return Err(Error::unsupported(format!(
                        "the chat template's tag {name:?} is not found in {text:?}"
                    )));
                };
                tags.push((i, start + at, start + at + name.len(), token));
                start += at + name.len();
            }
        }
        let own: Vec<i32> = tags.iter().map(|&(.., token)| token).collect();
        let front = self.bos().filter(|bos| ends && own.first() != Some(bos));
        let back = self.eos().filter(|_| ends);
        let expected = front.into_iter().chain(own.iter().copied()).chain(back);
        let known = |token: &i32| self.is_control(*token) || own.contains(token);
        if tokens.iter().copied().filter(known).eq(expected) {
            return Ok(tokens);
        }
        // A message spells a tag: what lies between the template's tags is cut by itself, as plain text.
        let names: Vec<String> = own.iter().map(|&token| self.name(token)).collect();
        let (mut tokens, mut plain, mut at) = (Vec::from_iter(front), String::new(), 0);
        for (i, piece) in pieces.iter().enumerate() {
            let mut start = 0;
            while let Some(&(_, from, to, token)) = tags.get(at).filter(|(of, ..)| *of == i) {
                plain.push_str(piece.text().get(start..from).unwrap_or_default());
                self.cut_plain(&std::mem::take(&mut plain), &names, &mut tokens)?;
                tokens.push(token);
                (start, at) = (to, at + 1);
            }
            plain.push_str(piece.text().get(start..).unwrap_or_default());
        }
        self.cut_plain(&plain, &names, &mut tokens)?;
        tokens.extend(back);
        Ok(tokens)
    }

    /// Appends the tokens of `text` without control tokens. A tag that the vocabulary holds as an ordinary word would be read
    /// as this word all the same, so a text is parted behind the first letter of each of the `names`.
    fn cut_plain(&self, text: &str, names: &[String], tokens: &mut Vec<i32>) -> Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let first = names.iter().filter_map(|name| rest.find(name.as_str())).min();
            let letter = |at: usize| rest.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
            let (part, left) = rest.split_at(first.map_or(rest.len(), |at| at + letter(at)));
            tokens.extend(self.cut_text(part, false, false)?);
            rest = left;
        }
        Ok(())
    }

    /// Whether a token of a template is a tag: a control token, or a word in brackets, as which some vocabularies hold tags.
    fn is_tag(&self, token: i32) -> bool {
        let in_brackets =
            |name: &str| [('<', '>'), ('[', ']')].iter().any(|&(a, z)| name.starts_with(a) && name.ends_with(z));
        self.is_control(token)
            || self.has_kind(token, sys::LLAMA_TOKEN_ATTR_USER_DEFINED) && in_brackets(&self.name(token))
    }

    /// Whether llama.cpp reads a token's name as the token only when told to.
    fn is_control(&self, token: i32) -> bool {
        self.has_kind(token, sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN)
    }

    fn has_kind(&self, token: i32, kinds: sys::llama_token_attr) -> bool {
        // SAFETY: the token comes from this vocabulary.
        unsafe { sys::llama_vocab_get_attr(self.vocab(), token) & kinds != 0 }
    }

    fn name(&self, token: i32) -> String {
        String::from_utf8_lossy(&self.token_bytes(token, true)).into_owned()
    }

    /// The conversation in pieces. llama.cpp writes it with a mark in place of every message, which tells the template's
    /// text from what was said, whatever that is.
    pub(super) fn pieces(&self, messages: &[Message], answer: bool) -> Result<Vec<Piece>> {
        for (i, message) in messages.iter().enumerate() {
            check_role(&message.role).map_err(|what| Error::argument(format!("message {i}: {what}")))?;
        }
        let is_blank = |content: &str| content.chars().all(is_space);
        let mark = |i: usize| format!("tiller:message:{i};");
        let marked: Vec<String> = (0..)
            .zip(messages)
            .map(|(i, m)| if is_blank(&m.content) { String::new() } else { format!("{BLANK}{}{BLANK}", mark(i)) })
            .collect();
        let written =
            self.template(messages.iter().map(|m| m.role.as_str()).zip(marked.iter().map(String::as_str)), answer)?;
        let (mut pieces, mut rest) = (Vec::new(), written.as_str());
        for (i, message) in messages.iter().enumerate().filter(|(_, m)| !is_blank(&m.content)) {
            let Some((before, after)) = rest.split_once(&mark(i)) else {
                let role = &message.role;
                return Err(Error::unsupported(format!(
                    "the model's chat template has no place for message {i}, of role {role:?}"
                )));
            };
            // A blank that is gone was trimmed.
            let (before, front) = before.strip_suffix(BLANK).map_or((before, true), |before| (before, false));
            let (after, back) = after.strip_prefix(BLANK).map_or((after, true), |after| (after, false));
            let mut content = message.content.as_str();
            if front {
                content = content.trim_start_matches(is_space);
            }
            if back {
                content = content.trim_end_matches(is_space);
            }
            pieces.push(Piece::Template(before.to_owned()));
            pieces.push(Piece::Content(i, content.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Template(rest.to_owned()));
        Ok(pieces)
    }

    /// What the model's chat template makes of turns of a role and a content each.
    fn template<'m>(&self, turns: impl Iterator<Item = (&'m str, &'m str)>, answer: bool) -> Result<String> {
        // SAFETY: the model is loaded; the template belongs to it.
        let template = unsafe { sys::llama_model_chat_template(self.model.as_ptr(), std::ptr::null()) };
        if template.is_null() {
            let error = Error::unsupported(format!("{}: the model has no chat template", self.path().display()));
            return Err(error.hinted("a base model knows no conversations: give it plain text, without --chat"));
        }
        let text = |s: &str| CString::new(s).map_err(|_| Error::argument("a role holds a NUL byte"));
        let held: Vec<(CString, CString)> =
            turns.map(|(role, content)| Ok((text(role)?, text(content)?))).collect::<Result<_>>()?;
        let turns: Vec<sys::llama_chat_message> = held
            .iter()
            .map(|(role, content)| sys::llama_chat_message { role: role.as_ptr(), content: content.as_ptr() })
            .collect();
        let mut bytes = vec![0_u8; 256 * (1 + turns.len())];
        loop {
            let room =
                i32::try_from(bytes.len()).map_err(|_| Error::argument("the conversation is over 2 GiB long"))?;
            let (first, count, out) = (turns.as_ptr(), turns.len(), bytes.as_mut_ptr().cast());
            // SAFETY: every string is NUL-terminated and outlives the call; the buffer has `room` bytes.
            let n = self.ask("writing a conversation", || unsafe {
                guard::llama_chat_apply_template(template, first, count, answer, out, room)
            })?;
            let Ok(n) = usize::try_from(n) else {
                // SAFETY: the template is a NUL-terminated string of the model.
                let start: String = unsafe { CStr::from_ptr(template) }.to_string_lossy().chars().take(60).collect();
                let error = Error::unsupported(format!("llama.cpp does not know the chat template \"{start}…\""));
                return Err(
                    error.hinted("write the turns as the model's card shows them, and give them as a plain prompt")
                );
            };
            if n <= bytes.len() {
                bytes.truncate(n);
                return String::from_utf8(bytes).map_err(|_| Error::numeric("the chat template made no UTF-8"));
            }
            bytes.resize(n, 0);
        }
    }

    /// Whether generation ends at `token`.
    pub fn is_end(&self, token: i32) -> bool {
        // SAFETY: llama.cpp accepts any token number.
        unsafe { sys::llama_vocab_is_eog(self.vocab(), token) }
    }
}

/// What llama.cpp's templates trim.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}
