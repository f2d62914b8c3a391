//! How likely the model finds a text: negative log-likelihood and perplexity.

use super::Engine;
use crate::error::{Error, Result};
use crate::plan::Row;

/// Floats of logits held at once while scoring; bounds memory for large vocabularies (128 MB).
const LOGITS: usize = 32 << 20;

/// How likely a text was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Sum of the negative log-likelihoods, in nats.
    pub nll: f64,
    /// Tokens scored.
    pub n_tokens: usize,
}

impl Score {
    /// Mean negative log-likelihood: the cross-entropy, in nats a token.
    pub fn cross_entropy(&self) -> f64 {
        self.nll / self.n_tokens as f64
    }

    /// exp of the cross-entropy.
    pub fn perplexity(&self) -> f64 {
        self.cross_entropy().exp()
    }
}

impl Engine {
    /// Perplexity of `text`, read in windows of at most `window` tokens (0: the whole context), each from an empty cache.
    /// The first token of each window is given, not scored. The plan in force applies. The text is data: see
    /// [`tokenize`](Self::tokenize).
    pub fn perplexity(&mut self, text: &str, window: usize) -> Result<Score> {
        let tokens = self.text_tokens(text)?;
        let window = if window == 0 { self.positions } else { window.min(self.positions) };
        if tokens.len() < 2 || window < 2 {
            return Err(Error::argument("a perplexity needs at least two tokens"));
        }
        let mut score = Score::default();
        for part in tokens.chunks(window).filter(|part| part.len() > 1) {
            let one = self.score(part, 1)?;
            score.nll += one.nll;
            score.n_tokens += one.n_tokens;
        }
        Ok(score)
    }

    /// Scores `tokens[from..]` given what stands in front of each. `from` is at least 1. The plan in force applies.
    pub fn score(&mut self, tokens: &[i32], from: usize) -> Result<Score> {
        self.score_each(tokens, from, &mut |_, _| {})
    }

    /// As [`Engine::score`]; `each` also gets the index of every scored token and the logits that predicted it.
    pub fn score_each(&mut self, tokens: &[i32], from: usize, each: &mut dyn FnMut(usize, &[f32])) -> Result<Score> {
        if from == 0 || from >= tokens.len() {
            return Err(Error::argument(format!("cannot score from token {from} of {}", tokens.len())));
        }
        // The last token is predicted and predicts nothing: it needs no room.
        self.check_room(tokens.len() - 1, 0)?;
        self.forget()?;
        self.epoch += 1;
        let size = self.options.batch.min(LOGITS / self.n_vocab().max(1)).max(1);
        let mut score = Score::default();
        let read = tokens.get(..tokens.len().min(self.positions)).unwrap_or_default();
        for (start, chunk) in (0..).step_by(size).zip(read.chunks(size)) {
            let mut meta = Vec::with_capacity(chunk.len());
            for i in 0..chunk.len() {
                meta.push(Row::new(self.position(start + i)?, 0));
            }
            // Token i is predicted by the logits of token i − 1.
            let predicts = |i: usize| start + i + 1 >= from && start + i + 1 < tokens.len();
            let mut wanted: Vec<i8> = (0..chunk.len()).map(|i| i8::from(predicts(i))).collect();
            self.decode(&mut chunk.to_vec(), &meta, &mut wanted)?;
            for i in (0..chunk.len()).filter(|&i| predicts(i)) {
                let logits = self.logits(i as i32)?;
                let next = tokens.get(start + i + 1).copied().unwrap_or(-1);
                score.nll += f64::from(nll(logits, next)?);
                score.n_tokens += 1;
                each(start + i + 1, logits);
            }
        }
        Ok(score)
    }
}

impl Engine {
    /// Reads every one of `sequences` from an empty cache, side by side; `each` gets its index, the position of a token
    /// and the logits of what comes after that token. The plan in force applies: the i-th has sequence id i.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument) if there are more than the engine has sequences, or one is longer than a batch.
    pub fn predict(&mut self, sequences: &[Vec<i32>], each: &mut dyn FnMut(usize, usize, &[f32])) -> Result<()> {
        self.predict_written(sequences, &[], each)
    }

    /// As [`Engine::predict`], of texts that the model wrote: the i-th from the token `written[i]` on, so that rules on
    /// generated rows reach the rows that they reached while it wrote. A text without such a number was given.
    ///
    /// # Errors
    /// See [`Engine::predict`].
    pub fn predict_written(
        &mut self,
        sequences: &[Vec<i32>],
        written: &[usize],
        each: &mut dyn FnMut(usize, usize, &[f32]),
    ) -> Result<()> {
        if sequences.len() > self.options.sequences.max(1) {
            let (n, has) = (sequences.len(), self.options.sequences);
            return Err(Error::argument(format!("{n} sequences to read, the engine was opened with {has}")));
        }
        let size = self.longest().min(LOGITS / self.n_vocab().max(1)).max(1);
        if let Some(long) = sequences.iter().find(|tokens| tokens.len() > size) {
            return Err(Error::argument(format!("a sequence of {} tokens, expected at most {size}", long.len())));
        }
        self.epoch += 1;
        let mut start = 0;
        while start < sequences.len() {
            // A sequence is read at once: the cells of those before it are free.
            self.forget()?;
            let (mut tokens, mut meta, mut end) = (Vec::new(), Vec::new(), start);
            while let Some(next) = sequences.get(end).filter(|next| tokens.len() + next.len() <= size) {
                for i in 0..next.len() {
                    let generated = written.get(end).is_some_and(|&from| i >= from);
                    meta.push(Row::new(self.position(i)?, end as i32).generated(generated));
                }
                tokens.extend_from_slice(next);
                end += 1;
            }
            let n = tokens.len();
            if n > 0 {
                self.decode(&mut tokens, &meta, &mut vec![1; n])?;
            }
            let places = (start..end).flat_map(|s| (0..sequences[s].len()).map(move |position| (s, position)));
            for (i, (sequence, position)) in (0..).zip(places) {
                each(sequence, position, self.logits(i)?);
            }
            start = end;
        }
        Ok(())
    }
}

/// −log softmax(logits)[token].
fn nll(logits: &[f32], token: i32) -> Result<f32> {
    let wanted = usize::try_from(token).ok().and_then(|token| logits.get(token));
    let wanted = wanted.ok_or_else(|| Error::argument(format!("token {token} is not in the vocabulary")))?;
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|&logit| (logit - max).exp()).sum();
    let nll = max + sum.ln() - wanted;
    if nll.is_finite() { Ok(nll) } else { Err(Error::numeric("the model's logits are not finite")) }
}
