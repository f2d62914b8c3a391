//! Text to tokens and back, and the chat template.

use std::ffi::{CStr, CString, c_char};

use ggml_sys as sys;

use super::{Engine, guard};
use crate::error::{Error, Result};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }

    /// A turn of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant".into(), content: content.into() }
    }
}

impl Engine {
    /// Tokens of `text`. `special`: put the model's BOS in front if it wants one, and read control tokens such as
    /// `<|im_start|>` as such.
    pub fn tokenize(&self, text: &str, special: bool) -> Result<Vec<i32>> {
        let length = i32::try_from(text.len()).map_err(|_| Error::argument("the text is over 2 GiB long"))?;
        let mut tokens = vec![0_i32; text.len() + 2];
        loop {
            let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            let (vocab, bytes, found) = (self.vocab(), text.as_ptr().cast::<c_char>(), tokens.as_mut_ptr());
            // SAFETY: the pointers cover `length` bytes and `room` tokens.
            let n = self.ask("cutting a text into tokens", || unsafe {
                guard::llama_tokenize(vocab, bytes, length, found, room, special, special)
            })?;
            match usize::try_from(n) {
                Ok(n) => {
                    tokens.truncate(n);
                    return Ok(tokens);
                }
                Err(_) if n == i32::MIN => return Err(Error::argument("the text has too many tokens")),
                Err(_) => tokens.resize(n.unsigned_abs() as usize, 0),
            }
        }
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
    /// An error when the model has no template, or one that llama.cpp does not know.
    pub fn chat(&self, messages: &[Message], answer: bool) -> Result<String> {
        // SAFETY: the model is loaded; the template belongs to it.
        let template = unsafe { sys::llama_model_chat_template(self.model.as_ptr(), std::ptr::null()) };
        if template.is_null() {
            return Err(Error::unsupported(format!("{}: the model has no chat template", self.path().display())));
        }
        let text = |s: &str| CString::new(s).map_err(|_| Error::argument("a message holds a NUL byte"));
        let held: Vec<(CString, CString)> =
            messages.iter().map(|m| Ok((text(&m.role)?, text(&m.content)?))).collect::<Result<_>>()?;
        let turns: Vec<sys::llama_chat_message> = held
            .iter()
            .map(|(role, content)| sys::llama_chat_message { role: role.as_ptr(), content: content.as_ptr() })
            .collect();
        let mut bytes = vec![0_u8; 256 + 2 * messages.iter().map(|m| m.content.len() + 64).sum::<usize>()];
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
                return Err(Error::unsupported(format!("llama.cpp does not know the chat template \"{start}…\"")));
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
