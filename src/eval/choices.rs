//! Does a plan harm what the model knows: questions with a few choices, of which one is right.
//!
//! ```text
//! s(c)  = 1/n Σ_i log p(c_i | question, c_1 … c_{i−1})       of a choice of n tokens, in nats
//! P(c)  = exp s(c) / Σ_c' exp s(c')                          over the choices of the question
//! SER   = worsened / changed                                 the side effect rate
//! ```
//!
//! A question has *changed* if the likeliest choice is another one with the plan; it has *worsened* if that was right before.
//! SER says whether change goes wrong: a plan that changes five answers, four of them for the worse, has 0.8. Shifts of P that
//! change no answer stand beside it. The 60 questions that come with tiller are easy: a small model knows most of them, so
//! there is something to lose.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file::{json, text};

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 1 << 20;
/// Questions of a file, at most: each is read as often as it has choices, with and without the plan.
const MOST: usize = 10_000;
/// What helps against every mistake in such a file.
const HINT: &str = "a line is {\"question\": \"…\", \"choices\": [\"…\", \"…\"], \"answer\": 0}, where answer counts the choices from 0";

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What is asked.
    pub question: String,
    /// What could be answered.
    pub choices: Vec<String>,
    /// Which of these is right, from 0.
    pub answer: usize,
}

impl Question {
    fn check(&self) -> std::result::Result<(), String> {
        let n = self.choices.len();
        if self.question.trim().is_empty() {
            return Err("question: expected text, found none".into());
        }
        if n < 2 {
            return Err(format!("choices: expected two or more, found {n}"));
        }
        if let Some(at) = self.choices.iter().position(|choice| choice.trim().is_empty()) {
            return Err(format!("choices[{at}]: expected text, found none"));
        }
        if self.answer >= n {
            return Err(format!("answer: expected 0 to {}, found {}", n - 1, self.answer));
        }
        Ok(())
    }
}

/// The 60 questions of general knowledge that come with tiller.
///
/// # Errors
/// None: a test reads them.
pub fn built_in() -> Result<Vec<Question>> {
    let mut all = Vec::new();
    for (number, line) in (1..).zip(include_str!("choices.jsonl").lines()) {
        all.push(question(line, Path::new("the built-in questions"), number)?);
    }
    Ok(all)
}

/// The questions of a JSONL file, one a line.
///
/// # Errors
/// [`Io`](crate::Kind::Io); [`Format`](crate::Kind::Format) with file, line and key for what is no question, without any, or
/// with more than 10,000.
pub fn open(path: &Path) -> Result<Vec<Question>> {
    let mut all = Vec::new();
    text::for_each_line(path, LONGEST_LINE, |number, line| {
        if all.len() == MOST {
            return Err(text::wrong(path, number, format_args!("expected at most {MOST} questions, found more")));
        }
        all.push(question(line, path, number)?);
        Ok(())
    })?;
    if all.is_empty() {
        return Err(Error::format(path, "expected questions, found none").hinted(HINT));
    }
    Ok(all)
}

fn question(line: &str, path: &Path, number: usize) -> Result<Question> {
    let read: Question = serde_json::from_str(line).map_err(|e| json::error(&e, line, path.display(), number, HINT))?;
    read.check().map_err(|what| text::wrong(path, number, what).hinted(HINT))?;
    Ok(read)
}

/// What a plan did to the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SideEffects {
    /// Questions.
    pub questions: usize,
    /// Share that is right without the plan.
    pub right_before: f64,
    /// Share that is right with it.
    pub right_after: f64,
    /// Questions whose likeliest choice is another one.
    pub changed: usize,
    /// Of these, those that were right.
    pub worsened: usize,
    /// Of these, those that became right.
    pub improved: usize,
    /// Worsened over changed; none where nothing changed.
    pub rate: Option<f64>,
    /// Mean of |Δ log P| of the right choice, in nats.
    pub shift: f64,
    /// Mean of Δ log P of the right choice, in nats: below 0 the right one became less likely.
    pub drift: f64,
}

impl SideEffects {
    /// From the scores s `[questions][choices]` without the plan and with it, and the right choices.
    pub fn of(answers: &[usize], before: &[Vec<f64>], after: &[Vec<f64>]) -> Self {
        let n = answers.len();
        let mut all = Self { questions: n, ..Self::default() };
        let share = 1.0 / n.max(1) as f64;
        for ((&right, before), after) in answers.iter().zip(before).zip(after) {
            let (was, is) = (best(before), best(after));
            all.right_before += share * f64::from(u8::from(was == right));
            all.right_after += share * f64::from(u8::from(is == right));
            if was != is {
                all.changed += 1;
                all.worsened += usize::from(was == right);
                all.improved += usize::from(is == right);
            }
            let moved = log_share(after, right) - log_share(before, right);
            all.shift += share * moved.abs();
            all.drift += share * moved;
        }
        all.rate = (all.changed > 0).then(|| all.worsened as f64 / all.changed as f64);
        all
    }
}

/// The likeliest choice; of equal ones the first.
fn best(scores: &[f64]) -> usize {
    let mut best = 0;
    for (i, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = i;
        }
    }
    best
}

/// log P of a choice among its question's.
fn log_share(scores: &[f64], choice: usize) -> f64 {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
    scores.get(choice).map_or(f64::NEG_INFINITY, |own| own - max - sum.ln())
}

#[cfg(feature = "engine")]
pub use engine::{Asked, scores};

#[cfg(feature = "engine")]
mod engine {
    use std::sync::Arc;

    use super::Question;
    use crate::engine::{Document, Engine, Message};
    use crate::error::{Error, Result};
    use crate::plan::Compiled;

    /// Questions as tokens: what stands before each choice, and the choices.
    #[derive(Clone, Debug)]
    pub struct Asked(Vec<(Vec<i32>, Vec<Vec<i32>>)>);

    impl Asked {
        /// In the model's chat template, or as `Question: …\nAnswer:`.
        ///
        /// # Errors
        /// [`Argument`](crate::Kind::Argument) for a question that is longer than a batch; what the engine returns.
        pub fn new(engine: &Engine, questions: &[Question], chat: bool) -> Result<Self> {
            let asked = |question: &Question| {
                let text = &question.question;
                let (prompt, blank) = match chat {
                    true => (engine.chat_tokens(&[Message::user(text)], true)?, ""),
                    false => (engine.document_tokens(&Document::Text(format!("Question: {text}\nAnswer:")))?, " "),
                };
                let tokens = |choice: &String| engine.tokenize(&format!("{blank}{}", capital(choice)), false);
                let choices = question.choices.iter().map(tokens).collect::<Result<Vec<_>>>()?;
                Ok((prompt, choices))
            };
            questions.iter().map(asked).collect::<Result<Vec<_>>>().map(Self)
        }

        /// Texts that [`scores`] reads.
        pub fn n_texts(&self) -> usize {
            self.0.iter().map(|(_, choices)| choices.len()).sum()
        }
    }

    /// An answer begins with a capital.
    fn capital(text: &str) -> String {
        let mut chars = text.chars();
        chars.next().map(char::to_uppercase).into_iter().flatten().chain(chars).collect()
    }

    /// s `[questions][choices]` under `plan`: the mean log-likelihood of each choice's tokens, in nats. `go_on` gets the number
    /// of texts done. No plan is in force afterwards.
    ///
    /// # Errors
    /// As [`Engine::predict`]; rows that the hook had to skip; [`Cancelled`](crate::Kind::Cancelled).
    pub fn scores(
        engine: &mut Engine,
        plan: Option<&Arc<Compiled>>,
        asked: &Asked,
        go_on: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Vec<Vec<f64>>> {
        let mut scores: Vec<Vec<f64>> = asked.0.iter().map(|(_, choices)| vec![0.0; choices.len()]).collect();
        let places: Vec<(usize, usize)> =
            asked.0.iter().enumerate().flat_map(|(q, (_, choices))| (0..choices.len()).map(move |c| (q, c))).collect();
        engine.set_plan(plan.cloned())?;
        let mut read = Ok(());
        for (done, wave) in (0..).zip(places.chunks(engine.sequences())) {
            if !go_on(done * engine.sequences()) {
                read = Err(Error::cancelled());
                break;
            }
            let text = |&(q, c): &(usize, usize)| [asked.0[q].0.as_slice(), &asked.0[q].1[c]].concat();
            let texts: Vec<Vec<i32>> = wave.iter().map(text).collect();
            let written: Vec<usize> = wave.iter().map(|&(q, _)| asked.0[q].0.len()).collect();
            read = engine.predict_written(&texts, &written, &mut |i, position, logits| {
                let (q, c) = wave[i];
                let choice = &asked.0[q].1[c];
                let Some(t) = (position + 1).checked_sub(written[i]) else { return };
                let Some(&token) = choice.get(t) else { return };
                scores[q][c] += log_of(logits, token) / choice.len() as f64;
            });
            if read.is_err() {
                break;
            }
        }
        let hooked = engine.finish();
        engine.set_plan(None)?;
        read?;
        hooked.ok()?;
        Ok(scores)
    }

    /// log softmax of one token.
    fn log_of(logits: &[f32], token: i32) -> f64 {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 =
            logits.chunks(4096).map(|part| f64::from(part.iter().map(|v| (v - max).exp()).sum::<f32>())).sum();
        let own = usize::try_from(token).ok().and_then(|token| logits.get(token)).copied();
        own.map_or(f64::NEG_INFINITY, |own| f64::from(own - max) - sum.ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_easy_questions_come_with_tiller() {
        let all = built_in().unwrap();
        assert_eq!(all.len(), 60);
        let mut seen = std::collections::HashSet::new();
        for question in &all {
            assert_eq!(question.choices.len(), 4, "{question:?}");
            assert!(seen.insert(&question.question), "{question:?}");
            let distinct: std::collections::HashSet<_> = question.choices.iter().collect();
            assert_eq!(distinct.len(), 4, "{question:?}");
        }
        let right = |place| all.iter().filter(|question| question.answer == place).count();
        assert_eq!([0, 1, 2, 3].map(right), [15; 4], "no place is right more often");
    }

    #[test]
    fn the_rate_is_worsened_over_changed() {
        let before = vec![vec![0.0, -1.0], vec![0.0, -1.0], vec![-1.0, 0.0], vec![0.0, -1.0]];
        let after = vec![vec![0.0, -1.0], vec![-2.0, 0.0], vec![0.0, -1.0], vec![-1.0, 0.0]];
        // Right: 0 kept, 0 lost, 0 won, 1 won.
        let found = SideEffects::of(&[0, 0, 0, 1], &before, &after);
        assert_eq!((found.changed, found.worsened, found.improved), (3, 1, 2));
        assert!((found.rate.unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((found.right_before, found.right_after), (0.5, 0.75));
        assert!(found.shift > 0.5 && found.shift.is_finite());
        let same = SideEffects::of(&[0, 0, 0, 1], &before, &before);
        assert_eq!((same.changed, same.rate, same.shift, same.drift), (0, None, 0.0, 0.0));
        assert_eq!(SideEffects::of(&[], &[], &[]), SideEffects::default());
    }

    #[test]
    fn shares_of_a_question_sum_to_one() {
        let scores = [-3.0, 2.0, 0.5, -700.0];
        let sum: f64 = (0..4).map(|choice| log_share(&scores, choice).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12 && log_share(&scores, 9) == f64::NEG_INFINITY);
        assert_eq!((best(&scores), best(&[1.0, 1.0])), (1, 0), "of equal ones the first");
    }

    #[test]
    fn mistakes_in_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.jsonl");
        for (line, text) in [
            ("{\"question\": \"A?\", \"choices\": [\"a\"], \"answer\": 0}", "two or more"),
            ("{\"question\": \"A?\", \"choices\": [\"a\", \"b\"], \"answer\": 2}", "expected 0 to 1"),
            ("{\"question\": \" \", \"choices\": [\"a\", \"b\"], \"answer\": 1}", "question"),
            ("{\"question\": \"A?\", \"choices\": [\"a\", \"\"], \"answer\": 1}", "choices[1]"),
            ("{\"question\": \"A?\", \"choices\": [\"a\", \"b\"], \"answer\": 1, \"x\": 1}", "x"),
            ("[]", "q.jsonl"),
        ] {
            std::fs::write(&path, format!("{line}\n")).unwrap();
            let error = open(&path).unwrap_err();
            assert!(error.message().contains(text) && error.message().contains("q.jsonl"), "{error}");
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(open(&path).is_err());
        std::fs::write(&path, "{\"question\": \"A?\", \"choices\": [\"a\", \"b\"], \"answer\": 1}\n").unwrap();
        assert_eq!(open(&path).unwrap()[0].answer, 1);
    }
}
