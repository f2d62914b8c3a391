//! Generating text, a token at a time or for many prompts side by side.

use std::ptr::NonNull;

use ggml_sys as sys;

use super::{Engine, guard};
use crate::error::{Error, Result};
use crate::plan::{Action, Passed, Row};

/// Generated tokens that [`Generate::repeat_penalty`] looks back on.
pub const REPEAT_WINDOW: i32 = 64;
/// The likeliest tokens, among which a repeat penalty chooses.
const REPEAT_AMONG: i32 = 64;

/// How text is generated.
#[derive(Clone, Debug)]
pub struct Generate {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// 0 takes the likeliest token each time (greedy).
    pub temperature: f32,
    /// Keeps the likeliest tokens that hold this much of the probability; 1 keeps all. Only with a temperature.
    pub top_p: f32,
    /// Keeps the tokens that are at least this times as likely as the likeliest; 0 keeps all. Only with a temperature.
    pub min_p: f32,
    /// Logits of the last [`REPEAT_WINDOW`] tokens that were generated are divided by it (multiplied, where negative), as in
    /// arXiv 1909.05858; 1 leaves them. What was in the prompt may be said again. Only the 64 likeliest tokens are left then.
    pub repeat_penalty: f32,
    /// Seed of the sampler. Prompt number i of a batch uses `seed + i`.
    pub seed: u32,
    /// Goes on when the model wants to end; for measurements over a fixed length.
    pub ignore_end: bool,
}

impl Default for Generate {
    fn default() -> Self {
        Self {
            max_tokens: 128,
            temperature: 0.0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            seed: 0,
            ignore_end: false,
        }
    }
}

impl Generate {
    /// Sampling for conversations: small models go in circles without it. Of eight conversations with SmolLM2-135M three looped
    /// when greedy, and none with these numbers.
    pub fn chat() -> Self {
        Self { temperature: 0.7, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.1, ..Self::default() }
    }

    /// Refuses what no sampler can do.
    fn check(&self) -> Result<()> {
        let Self { temperature, top_p, min_p, repeat_penalty, .. } = self;
        let refuse = |what: &str, found: &f32, expected: &str| {
            Err(Error::argument(format!("{what} is {found}, expected {expected}")))
        };
        if !(*temperature >= 0.0 && temperature.is_finite()) {
            return refuse("temperature", temperature, "0 or more");
        }
        if !(*top_p > 0.0 && *top_p <= 1.0) {
            return refuse("top_p", top_p, "more than 0 and at most 1");
        }
        if !(0.0..=1.0).contains(min_p) {
            return refuse("min_p", min_p, "0 to 1");
        }
        if !(*repeat_penalty >= 1.0 && repeat_penalty.is_finite()) {
            return refuse("repeat_penalty", repeat_penalty, "1 or more");
        }
        Ok(())
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model ended its answer.
    End,
    /// `max_tokens` were generated.
    Length,
    /// The caller's function asked to stop.
    Caller,
    /// The context is full: there is no room for another token.
    Context,
    /// A verdict of the plan ended it; with the action `replace` its text is the verdict's.
    Verdict,
}

impl Stop {
    /// `end`, `length`, `caller`, `context` or `verdict`.
    pub fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Length => "length",
            Self::Caller => "caller",
            Self::Context => "context",
            Self::Verdict => "verdict",
        }
    }
}

/// A generation under way: made by [`Engine::begin`], moved on by [`Engine::step`].
pub struct Generation {
    sampler: Sampler,
    options: Generate,
    epoch: u64,
    sequence: i32,
    prompt: Vec<i32>,
    tokens: Vec<i32>,
    /// Bytes of a character that is not complete yet.
    partial: Vec<u8>,
    text: String,
    stop: Option<Stop>,
    /// The text is a verdict's, in place of the answer.
    replaced: bool,
}

impl Generation {
    /// The tokens of the prompt.
    pub fn prompt(&self) -> &[i32] {
        &self.prompt
    }

    /// The tokens generated so far, without the end token.
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// The text generated so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why it ended; `None` while it goes on.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// The token whose successor comes next, and its row; none before the first token. A generation without room for it
    /// ends.
    fn next(&mut self, positions: usize) -> Option<(i32, Row)> {
        let &last = self.tokens.last()?;
        let position = self.prompt.len() + self.tokens.len() - 1;
        match i32::try_from(position).ok().filter(|_| position < positions) {
            Some(position) => Some((last, Row::new(position, self.sequence).generated(true))),
            None => {
                self.end(Stop::Context);
                None
            }
        }
    }

    /// Ends it; what there is of an incomplete character becomes U+FFFD.
    fn end(&mut self, stop: Stop) {
        if self.stop.is_none() {
            self.stop = Some(stop);
            self.text.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.partial)));
        }
    }

    /// Ends it if a verdict on one of its rows wants that.
    pub(super) fn heed(&mut self, passed: &Passed) {
        if passed.sequence != self.sequence || self.stop.is_some() || passed.action == Action::Report {
            return;
        }
        self.end(Stop::Verdict);
        if let Some(text) = &passed.text {
            (self.text, self.replaced) = (text.as_ref().to_owned(), true);
        }
    }

    /// Takes a token in; the text that it completes.
    fn accept(&mut self, token: i32, bytes: &[u8], end: bool) -> usize {
        let before = self.text.len();
        if end && !self.options.ignore_end {
            self.end(Stop::End);
            return before;
        }
        self.tokens.push(token);
        self.partial.extend_from_slice(bytes);
        while let Some((text, rest)) = complete(&self.partial) {
            self.text.push_str(&text);
            self.partial.drain(..rest);
        }
        if self.tokens.len() >= self.options.max_tokens {
            self.end(Stop::Length);
        }
        before
    }
}

/// The complete characters in front of `bytes`, and how many bytes they are.
fn complete(bytes: &[u8]) -> Option<(String, usize)> {
    let (valid, broken) = match std::str::from_utf8(bytes) {
        Ok(_) => (bytes.len(), false),
        // A byte that no continuation can save becomes U+FFFD.
        Err(e) => (e.valid_up_to(), e.error_len().is_some()),
    };
    let taken = if valid == 0 && broken { 1 } else { valid };
    (taken > 0).then(|| (String::from_utf8_lossy(bytes.get(..taken).unwrap_or_default()).into_owned(), taken))
}

impl Engine {
    /// Reads `prompt`, special tokens included, into an empty cache and gets ready to generate. Any generation under way ends.
    pub fn begin(&mut self, prompt: &str, options: &Generate) -> Result<Generation> {
        self.begin_tokens(&self.tokenize(prompt, true)?, options)
    }

    /// As [`begin`](Self::begin), from tokens: [`chat_tokens`](Self::chat_tokens) makes those of a conversation.
    pub fn begin_tokens(&mut self, prompt: &[i32], options: &Generate) -> Result<Generation> {
        self.check_prompt(prompt, options.max_tokens).map_err(|e| e.context("the prompt"))?;
        let mut generations = self.begin_many(&[prompt.to_vec()], options, false)?;
        generations.pop().ok_or_else(|| Error::argument("the prompt is empty"))
    }

    /// Generates one token; the text that it completes (it may be empty), or `None` when the generation has ended. It ends
    /// with [`Stop::Context`], and keeps what was written, when the context has no room for another token.
    ///
    /// The plan may be changed between steps.
    pub fn step<'g>(&mut self, generation: &'g mut Generation) -> Result<Option<&'g str>> {
        if generation.stop.is_some() {
            return Ok(None);
        }
        self.check_epoch(generation)?;
        let before = generation.text.len();
        // The first token is sampled from the prompt's logits, each later one after its predecessor has been computed.
        if !generation.tokens.is_empty() {
            let computed = match generation.next(self.positions) {
                Some((last, row)) => self.try_decode(&mut [last], &[row], &mut [1])? && self.keep(last),
                None => false,
            };
            if computed {
                self.heed([&mut *generation]);
            } else {
                generation.end(Stop::Context);
            }
            if generation.replaced {
                return Ok(None);
            }
            if generation.stop.is_some() {
                return Ok(generation.text.get(before..).filter(|rest| !rest.is_empty()));
            }
        }
        let token = generation.sampler.sample(self, -1)?;
        let before = generation.accept(token, &self.token_bytes(token, false), self.is_end(token));
        Ok(Some(generation.text.get(before..).unwrap_or_default()))
    }

    /// Generates a continuation of `prompt`. `on_text` gets each piece of text as it comes; false ends the generation.
    pub fn generate(
        &mut self,
        prompt: &str,
        options: &Generate,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generation> {
        self.generate_tokens(&self.tokenize(prompt, true)?, options, on_text)
    }

    /// As [`generate`](Self::generate), from tokens.
    pub fn generate_tokens(
        &mut self,
        prompt: &[i32],
        options: &Generate,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generation> {
        let mut generation = self.begin_tokens(prompt, options)?;
        self.run(&mut generation, on_text)?;
        Ok(generation)
    }

    /// Steps until the generation ends, or `on_text` says false. A text that a verdict puts in place of the answer comes last.
    pub(super) fn run(&mut self, generation: &mut Generation, on_text: &mut dyn FnMut(&str) -> bool) -> Result<()> {
        while let Some(piece) = self.step(generation)? {
            if !piece.is_empty() && !on_text(piece) {
                generation.stop.get_or_insert(Stop::Caller);
            }
        }
        if generation.replaced {
            on_text(&generation.text);
        }
        Ok(())
    }

    /// Generates a continuation of every prompt, as many side by side as the engine has sequences and its context has
    /// room for. All get the same plan. A generation for which the context has no room ends with [`Stop::Context`]; the
    /// others go on.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument), before anything is computed, for a prompt that is empty or longer than the
    /// context.
    pub fn generate_many(&mut self, prompts: &[String], options: &Generate) -> Result<Vec<Generation>> {
        let tokens: Vec<Vec<i32>> = prompts.iter().map(|prompt| self.tokenize(prompt, true)).collect::<Result<_>>()?;
        self.generate_many_tokens(&tokens, options)
    }

    /// As [`generate_many`](Self::generate_many), from tokens.
    ///
    /// # Errors
    /// See [`Engine::generate_many`].
    pub fn generate_many_tokens(&mut self, prompts: &[Vec<i32>], options: &Generate) -> Result<Vec<Generation>> {
        self.generate_while(prompts, options, &mut || true)
    }

    /// As [`Engine::generate_many_tokens`]. `go_on` is asked before each step; when it says false, what is under way ends
    /// with [`Stop::Caller`], and prompts that were not begun have no generation.
    ///
    /// # Errors
    /// See [`Engine::generate_many`].
    pub fn generate_while(
        &mut self,
        prompts: &[Vec<i32>],
        options: &Generate,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Generation>> {
        for (i, prompt) in prompts.iter().enumerate() {
            self.check_prompt(prompt, options.max_tokens).map_err(|e| e.context(format!("prompt {}", i + 1)))?;
        }
        let mut all = Vec::with_capacity(prompts.len());
        while all.len() < prompts.len() && go_on() {
            let wave = self.wave(prompts.get(all.len()..).unwrap_or_default(), options.max_tokens);
            let shifted = Generate { seed: options.seed.wrapping_add(all.len() as u32), ..options.clone() };
            let mut generations = self.begin_many(wave, &shifted, true)?;
            while generations.iter().any(|g| g.stop.is_none()) {
                if go_on() {
                    self.step_many(&mut generations)?;
                } else {
                    generations.iter_mut().for_each(|g| _ = g.stop.get_or_insert(Stop::Caller));
                }
            }
            all.append(&mut generations);
        }
        Ok(all)
    }

    /// Refuses a prompt that is empty or longer than the context. The error's advice leaves room for `more` tokens.
    ///
    /// # Errors
    /// [`Argument`](crate::Kind::Argument).
    pub fn check_prompt(&self, prompt: &[i32], more: usize) -> Result<()> {
        match prompt.len() {
            0 => Err(Error::argument("the prompt has no tokens")),
            n => self.check_room(n, more),
        }
    }

    /// Refuses `n` tokens that the context has no room for, before any is computed.
    pub(super) fn check_room(&self, n: usize, more: usize) -> Result<()> {
        let (context, trained) = (self.options.context, self.trained_context());
        if n <= self.positions {
            return Ok(());
        }
        if self.positions < context {
            let learned = self.positions;
            return Err(Error::argument(format!("{n} tokens, but the model has learned {learned} positions"))
                .hinted("shorten the text, or take a model for longer texts"));
        }
        let beyond = match trained {
            1.. if n > trained => format!(", and the model was trained with {trained}"),
            _ => String::new(),
        };
        let wanted = n.saturating_add(more);
        Err(Error::argument(format!("{n} tokens, but the context holds {context}{beyond}"))
            .hinted(format!("shorten the text, or give the model a context of {wanted} tokens: --context {wanted}")))
    }

    /// Tokens of a text that the model was trained with at most; 0 if it does not say.
    pub fn trained_context(&self) -> usize {
        // SAFETY: the model is loaded.
        usize::try_from(unsafe { sys::llama_model_n_ctx_train(self.model.as_ptr()) }).unwrap_or(0)
    }

    /// As many of `prompts` as have a sequence each and room in the cache together, with what may follow; one at least,
    /// which ends where the context does.
    fn wave<'p>(&self, prompts: &'p [Vec<i32>], max_tokens: usize) -> &'p [Vec<i32>] {
        let mut room = self.options.context;
        let fits = |prompt: &&Vec<i32>| {
            let needed = prompt.len().saturating_add(max_tokens);
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        };
        let n = prompts.iter().take(self.options.sequences.max(1)).take_while(fits).count();
        prompts.get(..n.max(1)).unwrap_or_default()
    }

    /// Refuses options that no sampler has, and models that write no text.
    pub(super) fn check_generate(&self, options: &Generate) -> Result<()> {
        options.check()?;
        if self.pooled {
            let path = self.path().display();
            let what = format!("{path}: expected a model that writes text, found an embedding model (pooling_type)");
            return Err(Error::unsupported(what).hinted("take a model that generates text"));
        }
        Ok(())
    }

    /// A generation that has nothing generated yet, of a prompt that is in the cache as `sequence`, or will be.
    pub(super) fn generation(&self, prompt: Vec<i32>, sequence: i32, options: &Generate) -> Result<Generation> {
        Ok(Generation {
            sampler: Sampler::new(options, options.seed.wrapping_add(sequence.unsigned_abs()), self.n_vocab())?,
            options: options.clone(),
            epoch: self.epoch,
            sequence,
            prompt,
            tokens: Vec::new(),
            partial: Vec::new(),
            text: String::new(),
            stop: (options.max_tokens == 0).then_some(Stop::Length),
            replaced: false,
        })
    }

    /// Reads prompts into an empty cache, one sequence each, up to one for which there is no cell left; `first` samples the
    /// first token of each while its logits are there.
    fn begin_many(&mut self, prompts: &[Vec<i32>], options: &Generate, first: bool) -> Result<Vec<Generation>> {
        self.check_generate(options)?;
        self.forget()?;
        self.epoch += 1;
        let mut generations = Vec::with_capacity(prompts.len());
        for (sequence, prompt) in (0_i32..).zip(prompts) {
            let mut generation = self.generation(prompt.clone(), sequence, options)?;
            if !self.read(prompt, sequence)? {
                if generations.is_empty() {
                    return Err(self.full());
                }
                break;
            }
            self.heed([&mut generation]);
            if first && generation.stop.is_none() {
                let token = generation.sampler.sample(self, -1)?;
                generation.accept(token, &self.token_bytes(token, false), self.is_end(token));
            }
            generations.push(generation);
        }
        Ok(generations)
    }

    /// Reads `tokens` as `sequence`, leaving the logits of the last one; whether the cache had cells for all.
    fn read(&mut self, tokens: &[i32], sequence: i32) -> Result<bool> {
        let mut done = 0;
        for chunk in tokens.chunks(self.options.batch.max(1)) {
            let mut meta = Vec::with_capacity(chunk.len());
            for i in 0..chunk.len() {
                meta.push(Row::new(self.position(done + i)?, sequence));
            }
            done += chunk.len();
            let mut logits = vec![0_i8; chunk.len()];
            if let Some(last) = logits.last_mut() {
                *last = i8::from(done == tokens.len());
            }
            if !self.try_decode(&mut chunk.to_vec(), &meta, &mut logits)? {
                self.forget_sequence(sequence)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One token more for each generation that goes on and has room.
    fn step_many(&mut self, generations: &mut [Generation]) -> Result<()> {
        let positions = self.positions;
        loop {
            let going = generations.iter_mut().filter(|g| g.stop.is_none());
            let (mut tokens, meta): (Vec<i32>, Vec<Row>) = going.filter_map(|g| g.next(positions)).unzip();
            let n = tokens.len();
            if n == 0 {
                return Ok(());
            }
            if self.try_decode(&mut tokens, &meta, &mut vec![1; n])? {
                break;
            }
            // Nothing was computed. The longest gives its cells to the others.
            let going = generations.iter_mut().filter(|g| g.stop.is_none());
            if let Some(longest) = going.max_by_key(|g| g.prompt.len() + g.tokens.len()) {
                longest.end(Stop::Context);
                let sequence = longest.sequence;
                self.forget_sequence(sequence)?;
            }
        }
        // The place of a generation's logits in the batch, from before verdicts end any.
        let places: Vec<usize> = (0..generations.len()).filter(|&g| generations[g].stop.is_none()).collect();
        self.heed(generations.iter_mut());
        for (i, place) in (0_i32..).zip(places) {
            let Some(g) = generations.get_mut(place).filter(|g| g.stop.is_none()) else { continue };
            let token = g.sampler.sample(self, i)?;
            g.accept(token, &self.token_bytes(token, false), self.is_end(token));
        }
        Ok(())
    }

    /// Frees the cells of a sequence.
    fn forget_sequence(&mut self, sequence: i32) -> Result<()> {
        let context = self.context.as_ptr();
        // SAFETY: the context lives; −1 stands for every position.
        let forget = || unsafe { guard::llama_memory_seq_rm(sys::llama_get_memory(context), sequence, -1, -1) };
        self.change("freeing a sequence", forget).map(drop)
    }

    fn check_epoch(&self, generation: &Generation) -> Result<()> {
        if generation.epoch == self.epoch {
            return Ok(());
        }
        Err(Error::argument("this generation ended when the engine read something else"))
    }

    pub(super) fn position(&self, position: usize) -> Result<i32> {
        i32::try_from(position).ok().filter(|_| position < self.positions).ok_or_else(|| self.full())
    }
}

/// Refuses NaN, logits without a finite largest one, and logits that are all the same: what is left of a row that a norm
/// could not square. −∞ alone is fine: some models forbid tokens so.
fn check_logits(logits: &[f32]) -> Result<()> {
    if let [first, _, ..] = logits
        && logits.iter().all(|v| v == first)
    {
        return Err(Error::numeric(format!("the model's logits are all {first}: no token is likelier than another")));
    }
    // 0 · v is 0 for all finite v: one pass in lanes, as most logits need no second look.
    let (chunks, rest) = logits.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, v)| *lane += 0.0 * v);
    }
    if lanes.iter().sum::<f32>() + rest.iter().map(|v| 0.0 * v).sum::<f32>() == 0.0 {
        return Ok(());
    }
    let largest = logits.iter().fold(f32::NEG_INFINITY, |m, &v| if v.is_nan() || v > m { v } else { m });
    if largest.is_finite() && !logits.iter().any(|v| v.is_nan()) {
        return Ok(());
    }
    let n = logits.iter().filter(|v| !v.is_finite()).count();
    Err(Error::numeric(format!("the model's logits are not finite: {n} of {} are NaN or infinite", logits.len())))
}

/// llama.cpp's own sampler chain, so that a program on its own llama.cpp draws the same tokens for the same seed.
struct Sampler(NonNull<sys::llama_sampler>);

// SAFETY: a sampler has no thread affinity and one owner.
unsafe impl Send for Sampler {}

impl Sampler {
    fn new(options: &Generate, seed: u32, n_vocab: usize) -> Result<Self> {
        let n_vocab = i32::try_from(n_vocab).unwrap_or(i32::MAX);
        let &Generate { temperature, top_p, min_p, repeat_penalty, .. } = options;
        // SAFETY: plain constructors; the chain owns what is added to it.
        let chain = guard::make(|| unsafe {
            let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
            if !chain.is_null() {
                if repeat_penalty > 1.0 {
                    // Looking every token of a large vocabulary up among the last ones takes milliseconds.
                    guard::llama_sampler_chain_add(chain, sys::llama_sampler_init_top_k(REPEAT_AMONG));
                    let penalties = sys::llama_sampler_init_penalties(n_vocab, REPEAT_WINDOW, repeat_penalty, 0.0, 0.0);
                    guard::llama_sampler_chain_add(chain, penalties);
                }
                if temperature > 0.0 {
                    guard::llama_sampler_chain_add(chain, sys::llama_sampler_init_top_p(top_p, 1));
                    if min_p > 0.0 {
                        guard::llama_sampler_chain_add(chain, sys::llama_sampler_init_min_p(min_p, 1));
                    }
                    guard::llama_sampler_chain_add(chain, sys::llama_sampler_init_temp(temperature));
                    guard::llama_sampler_chain_add(chain, sys::llama_sampler_init_dist(seed));
                } else {
                    guard::llama_sampler_chain_add(chain, sys::llama_sampler_init_greedy());
                }
            }
            chain
        });
        chain.map(Self).map_err(|fault| Error::unsupported(format!("llama.cpp cannot make a sampler: {fault}")))
    }

    /// Draws from the logits of the `i`-th output of the last batch; −1 is the last one.
    ///
    /// # Errors
    /// [`Numeric`](crate::Kind::Numeric) for logits of which no token can be the likeliest.
    fn sample(&mut self, engine: &Engine, i: i32) -> Result<i32> {
        check_logits(engine.logits(i)?).map_err(|e| match engine.plan {
            Some(_) => e.hinted("the plan in force is too strong for this model: give it a smaller strength"),
            None => e.hinted("the model computes no numbers without any plan: its file may be damaged"),
        })?;
        let (sampler, context) = (self.0.as_ptr(), engine.context.as_ptr());
        // SAFETY: the last batch asked for these logits; both objects live.
        engine.ask("drawing a token", || unsafe { guard::llama_sampler_sample(sampler, context, i) })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: made once, freed once.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_need_a_finite_largest_one() {
        let mut logits: Vec<f32> = (0..37).map(|i| i as f32 / 37.0).collect();
        assert!(check_logits(&logits).is_ok());
        assert!(check_logits(&[0.0; 37]).is_err());
        for at in [0, 8, 31, 36] {
            for (value, fine) in [(f32::NEG_INFINITY, true), (f32::INFINITY, false), (f32::NAN, false), (3e38, true)] {
                logits[at] = value;
                assert_eq!(check_logits(&logits).is_ok(), fine, "{value} at {at}");
            }
            logits[at] = 0.5;
        }
        assert!(check_logits(&[f32::NEG_INFINITY; 20]).is_err());
    }
}
