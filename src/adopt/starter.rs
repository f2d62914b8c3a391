//! Features of some instructions, for a start: they steer in chat, where a small dictionary has nothing.

use crate::choose::learn::{self, Request};
use crate::engine::{Engine, Options};
use crate::error::{Error, Kind, Result};
use crate::eval::trial::SEQUENCES;
use crate::file::gguf::GgmlType;
use crate::progress::Progress;

use super::Job;
use super::state::Learned;

/// What is learned where nobody says, the most useful first.
pub(super) const INSTRUCTIONS: [&str; 4] = [
    "Answer in a very cheerful and happy tone.",
    "Answer in one very short sentence.",
    "Write in a very formal, official style.",
    "Talk about the sea and ships in your answer.",
];
/// The share of the time that they may take.
const SHARE: f64 = 1.0 / 3.0;
/// An instruction is begun if this part of what the last one took is left.
const ENOUGH: f64 = 0.8;

impl Job<'_> {
    /// Learns as many instructions as there is time for.
    pub(super) fn starter(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        if let Some(until) = self.state.learned_until {
            // Of the time that a finished adoption is given later, nothing goes to them.
            self.clock.begin_at(if self.state.earlier > 0.0 { 0.0 } else { until });
            return Ok(());
        }
        let instructions = self.options.instructions.clone();
        let mut longest: f64 = 0.0;
        for (i, instruction) in instructions.iter().enumerate().skip(self.state.learned.len()) {
            let left = self.clock.until(SHARE);
            if left <= 0.0 || left < ENOUGH * longest {
                break;
            }
            let (made, took) = self.clock.timed(|| self.learn(i, instruction, left, progress))?;
            longest = longest.max(took);
            self.state.learned.push(made);
            self.save()?;
        }
        let until = if instructions.is_empty() { 0.0 } else { self.clock.elapsed() / self.clock.total() };
        self.state.learned_until = Some(until);
        self.clock.begin_at(until);
        self.save()
    }

    /// Learns one in at most `seconds`, and writes its file.
    fn learn(&self, number: usize, instruction: &str, seconds: f64, progress: &mut Progress<'_>) -> Result<Learned> {
        let copy = self.state.speed.as_ref().and_then(|speed| speed.run_as.as_deref()).map(|kind| self.copy(kind));
        let options = Options { sequences: SEQUENCES, ..self.engine_options() };
        let mut engine = Engine::open(copy.as_deref().unwrap_or(self.path), &options)?;
        let request = Request {
            minutes: seconds / 60.0,
            threads: self.options.threads,
            counts_as: copy.as_ref().map(|_| self.path.to_owned()),
            ..Request::new(instruction)
        };
        let what = format!("learning {instruction:?}:");
        let made = learn::learn(&mut engine, &request, &mut |step| self.clock.tell(progress, &what, step));
        let nothing = Learned { instruction: instruction.to_owned(), ..Learned::default() };
        let made = match made {
            // A model that does not follow this one may follow the next.
            Err(error) if error.kind() == Kind::Unsupported => return Ok(nothing),
            made => made?,
        };
        let directory = self.directory.join("learned");
        std::fs::create_dir_all(&directory).map_err(|e| Error::io("create", &directory, e))?;
        let name = format!("{}-{}.gguf", number + 1, slug(instruction));
        let path = directory.join(&name);
        made.dictionary.save_gguf(&path, GgmlType::F32)?;
        let (report, sample) = (&made.report, made.report.samples.first().cloned().unwrap_or_default());
        Ok(Learned {
            file: Some(format!("learned/{name}")),
            effect: report.score.effect,
            perplexity: report.score.perplexity,
            fluent: report.fluent,
            chat: report.place != "front",
            sample: [sample.message, sample.unsteered, sample.learned],
            ..nothing
        })
    }
}

/// The longest words of a text, for a file's name.
fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 4);
    let words: Vec<String> = words.take(3).map(str::to_lowercase).collect();
    if words.is_empty() { "learned".to_owned() } else { words.join("-") }
}
