//! Conversations whose cache is kept: each turn computes only what is new.
//!
//! *Which rows stay.* Those of the longest beginning that the cache and the new prompt have in common, and only as long as
//! they are what a fresh reading under the plan in force would give: a plan that does something else (another
//! [fingerprint](Compiled::fingerprint)) makes the next turn read the conversation anew. So an answer depends on the
//! conversation and the plan, never on the plans that were in force before. That costs one reading of the conversation for
//! each change of the plan. Rows of the model's own answers count as generated also when they are read again: a plan for
//! generated rows steers them as it did when they were written.
//!
//! *What is an answer.* Its tokens as they were drawn, also where the tokenizer would cut the same text in another way.
//!
//! *A full context.* Where the conversation and the next answer have no room, the oldest turns are dropped until half of
//! the context is free, so that this does not happen at every turn; the system message stays.

use std::sync::Arc;

use ggml_sys as sys;

use super::generate::{Generate, Generation};
use super::text::{Message, Piece};
use super::{Engine, guard};
use crate::error::Result;
use crate::plan::{Compiled, Row};

/// A conversation with a model: what was said, and the tokens of the model's answers.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    system: Option<Message>,
    turns: Vec<Turn>,
}

#[derive(Clone, Debug)]
struct Turn {
    message: Message,
    /// Of an answer that the model gave here: its tokens as they were drawn.
    tokens: Vec<i32>,
}

/// An answer of [`Engine::reply`].
pub struct Reply {
    /// The answer; its prompt is the whole conversation.
    pub generation: Generation,
    /// Tokens of the prompt whose rows the cache still had.
    pub kept: usize,
    /// Turns that were dropped from the front because the context was full.
    pub dropped: usize,
}

impl Reply {
    /// Tokens of the prompt that had to be computed.
    pub fn read(&self) -> usize {
        self.generation.prompt().len() - self.kept
    }
}

/// What the cache holds of a conversation, as sequence 0.
#[derive(Default)]
pub(super) struct Kept {
    /// Tokens, and whether the model wrote them.
    tokens: Vec<(i32, bool)>,
    /// [`Engine::epoch`] when they were read; another reading empties the cache.
    epoch: u64,
    /// [`Hook::plan_version`](crate::hook::Hook::plan_version) under which they were computed.
    pub(super) version: u64,
}

impl Conversation {
    /// Nothing was said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A conversation so far; a first message of the role `system` is kept however long it gets.
    pub fn of(messages: impl IntoIterator<Item = Message>) -> Self {
        let mut messages = messages.into_iter().peekable();
        let system = messages.next_if(|message| message.role == "system");
        Self { system, turns: messages.map(|message| Turn { message, tokens: Vec::new() }).collect() }
    }

    /// What was said, oldest first.
    pub fn messages(&self) -> Vec<Message> {
        self.system.iter().chain(self.turns.iter().map(|turn| &turn.message)).cloned().collect()
    }

    /// The same, with a message of the user behind it.
    #[must_use]
    pub fn with(mut self, message: impl Into<String>) -> Self {
        self.turns.push(Turn { message: Message::user(message), tokens: Vec::new() });
        self
    }

    /// Puts another system message in front, or none.
    pub fn set_system(&mut self, content: Option<&str>) {
        self.system = content.map(Message::system);
    }

    /// Forgets what was said; the system message stays.
    pub fn reset(&mut self) {
        self.turns.clear();
    }

    /// Takes back the last message of the user and all that came after it; what the user had said, if anything.
    pub fn take_back(&mut self) -> Option<String> {
        let last = self.turns.iter().rposition(|turn| turn.message.role == "user")?;
        self.turns.drain(last..).next().map(|turn| turn.message.content)
    }

    /// Drops the oldest turns up to the second message of the user; how many, 0 where there is no second one.
    fn drop_oldest(&mut self) -> usize {
        let users = self.turns.iter().enumerate().filter(|(_, turn)| turn.message.role == "user");
        let Some((second, _)) = users.map(|(i, _)| (i, ())).find(|&(i, ())| i > 0) else { return 0 };
        self.turns.drain(..second).count()
    }
}

impl Engine {
    /// Answers `message`, the user's next one, and adds both to `conversation`. `on_text` gets each piece of text as it
    /// comes; false ends the answer, which stays in the conversation as far as it came.
    ///
    /// Rows that the cache still has are not computed again: see [`Reply::kept`]. Any other reading of the engine empties the
    /// cache, which costs one reading of the conversation at the next turn, and nothing else.
    ///
    /// # Errors
    /// As [`chat_tokens`](Self::chat_tokens); [`Argument`](crate::Kind::Argument) if the system message and `message` alone are
    /// longer than the context. Of what was said, `conversation` is then as it was.
    pub fn reply(
        &mut self,
        conversation: &mut Conversation,
        message: &str,
        options: &Generate,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Reply> {
        let mut next = conversation.clone().with(message);
        let (prompt, dropped) = self.fit(&mut next, options.max_tokens)?;
        let (mut generation, kept) = self.begin_kept(&prompt, options)?;
        let ended = self.run(&mut generation, on_text);
        let (message, tokens) = (Message::assistant(generation.text()), generation.tokens().to_vec());
        ended?;
        next.turns.push(Turn { message, tokens });
        *conversation = next;
        Ok(Reply { generation, kept, dropped })
    }

    /// The tokens of a conversation up to the opening of the model's next answer: the prompt that [`reply`](Self::reply) goes
    /// on from.
    ///
    /// # Errors
    /// As [`chat_tokens`](Self::chat_tokens).
    pub fn conversation_tokens(&self, conversation: &Conversation) -> Result<Vec<i32>> {
        Ok(self.rows_of(conversation)?.into_iter().map(|(token, _)| token).collect())
    }

    /// Drops the oldest turns while there is no room; the prompt, and how many turns that cost.
    fn fit(&self, conversation: &mut Conversation, max_tokens: usize) -> Result<(Vec<(i32, bool)>, usize)> {
        let mut prompt = self.rows_of(conversation)?;
        let wanted = max_tokens.clamp(1, self.positions.div_ceil(2));
        let mut dropped = 0;
        if prompt.len() + wanted > self.positions {
            while prompt.len() > (self.positions - wanted).min(self.positions / 2) {
                match conversation.drop_oldest() {
                    0 => break,
                    n => dropped += n,
                }
                prompt = self.rows_of(conversation)?;
            }
        }
        self.check_room(prompt.len(), max_tokens).map_err(|e| e.context("the message"))?;
        Ok((prompt, dropped))
    }

    /// Tokens of a conversation, and whether the model wrote them.
    fn rows_of(&self, conversation: &Conversation) -> Result<Vec<(i32, bool)>> {
        let pieces = self.pieces(&conversation.messages(), true)?;
        let first = usize::from(conversation.system.is_some());
        let drawn = |piece: &Piece| match piece {
            Piece::Content(i, _) => {
                let turn = i.checked_sub(first).and_then(|i| conversation.turns.get(i));
                turn.map(|turn| turn.tokens.as_slice()).filter(|tokens| !tokens.is_empty())
            }
            Piece::Template(_) => None,
        };
        let mut rows: Vec<(i32, bool)> = Vec::new();
        // What lies between two answers is cut into tokens by itself.
        for part in pieces.chunk_by(|a, b| drawn(a).is_none() && drawn(b).is_none()) {
            match part.first().and_then(drawn) {
                Some(tokens) => rows.extend(tokens.iter().map(|&token| (token, true))),
                None => rows.extend(self.cut_pieces(part, false)?.into_iter().map(|token| (token, false))),
            }
        }
        if let Some(bos) = self.bos().filter(|bos| rows.first().is_none_or(|(first, _)| first != bos)) {
            rows.insert(0, (bos, false));
        }
        Ok(rows)
    }

    /// Gets ready to generate after `prompt`, of which only what the cache lacks is computed; how much it had.
    fn begin_kept(&mut self, prompt: &[(i32, bool)], options: &Generate) -> Result<(Generation, usize)> {
        self.check_generate(options)?;
        let common = if self.has_kept() {
            // The last token is computed in any case: its logits are wanted.
            let most = prompt.len().saturating_sub(1);
            self.kept.tokens.iter().zip(prompt).take(most).take_while(|(held, token)| held == token).count()
        } else {
            0
        };
        let kept = self.cut_cache(common)?;
        self.epoch += 1;
        let (tokens, version) = (prompt.get(..kept).unwrap_or_default().to_vec(), self.hook_mut().plan_version());
        self.kept = Kept { tokens, epoch: self.epoch, version };
        let mut generation = self.generation(prompt.iter().map(|(token, _)| *token).collect(), 0, options)?;
        for chunk in prompt.get(kept..).unwrap_or_default().chunks(self.options.batch.max(1)) {
            let start = self.kept.tokens.len();
            let mut meta = Vec::with_capacity(chunk.len());
            for (i, (_, generated)) in chunk.iter().enumerate() {
                meta.push(Row::new(self.position(start + i)?, 0).generated(*generated));
            }
            let mut logits = vec![0_i8; chunk.len()];
            if let Some(last) = logits.last_mut() {
                *last = i8::from(start + chunk.len() == prompt.len());
            }
            let mut tokens: Vec<i32> = chunk.iter().map(|(token, _)| *token).collect();
            self.decode(&mut tokens, &meta, &mut logits)?;
            self.kept.tokens.extend_from_slice(chunk);
            self.heed([&mut generation]);
        }
        Ok((generation, kept))
    }

    /// Whether what a conversation left in the cache is still there, and what the plan in force would make of it.
    fn has_kept(&mut self) -> bool {
        self.kept.epoch == self.epoch && self.kept.version == self.hook_mut().plan_version()
    }

    /// Whether what is kept stays true under `plan`.
    pub(super) fn kept_under(&mut self, plan: Option<&Arc<Compiled>>) -> bool {
        fn does(plan: Option<&Arc<Compiled>>) -> Option<&str> {
            plan.filter(|plan| !plan.is_empty()).map(|plan| plan.fingerprint.as_str())
        }
        self.has_kept() && does(plan) == does(self.plan.as_ref())
    }

    /// Notes that `token`, which the model wrote, was computed; true.
    pub(super) fn keep(&mut self, token: i32) -> bool {
        if self.kept.epoch == self.epoch {
            self.kept.tokens.push((token, true));
        }
        true
    }

    /// Leaves the first `n` tokens of sequence 0 in the cache; how many there are then. Recurrent models have no rows to
    /// take away, only a state: where it has gone further, nothing is left.
    fn cut_cache(&mut self, n: usize) -> Result<usize> {
        if n > 0 && n == self.kept.tokens.len() {
            return Ok(n);
        }
        let (context, from) = (self.context.as_ptr(), self.position(n)?);
        // SAFETY: the context lives; −1 stands for the end.
        let cut = || unsafe { guard::llama_memory_seq_rm(sys::llama_get_memory(context), 0, from, -1) };
        if n > 0 && self.change("cutting its cache", cut)? {
            return Ok(n);
        }
        self.forget()?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_dropped_and_taken_back_from_one_user_to_the_next() {
        let said = [Message::system("Be kind."), Message::user("a"), Message::assistant("b"), Message::user("c")];
        let mut talk = Conversation::of(said.clone());
        assert_eq!(talk.messages(), said);
        assert_eq!((talk.drop_oldest(), talk.drop_oldest()), (2, 0), "the last message of the user stays");
        assert_eq!(talk.messages(), [Message::system("Be kind."), Message::user("c")]);
        assert_eq!((talk.take_back().as_deref(), talk.take_back()), (Some("c"), None));
        talk.set_system(None);
        assert!(talk.messages().is_empty());
    }
}
