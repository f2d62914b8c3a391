//! What a guard does, on messages that nothing was fitted on: three classes by set and method, beside what is simpler.
//!
//! | method | what it is |
//! |---|---|
//! | unsteered | the model as it is |
//! | system prompt | the instruction that the guard was taught with, in front of every message |
//! | canned | the guard's monitor, and a fixed sentence in place of the answer where it fires |
//! | guard | the plan |
//! | random | the plan with random directions of the same length in place of its own |
//!
//! Intervals hold 90 % of what other messages of the same kind would give ([bootstrap](crate::eval::bootstrap)).

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::figures::{Examined, line, monitors};
use super::file::Guard;
use super::learn::VERSION;
use super::phrases::{Class, class};
use super::random::random;
use super::request::INSTRUCTION;
use super::rows::Asking;
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Generate};
use crate::error::{Error, Kind, Result};
use crate::plan::{Compiled, Watched};
use crate::progress::{Progress, Step};

/// What stands in place of an answer where there is no other text.
const CANNED: &str = "I'm sorry, but I can't help with that.";
/// Prompts that are read with and without the guard to tell what it costs, and how often each.
const TIMED: (usize, usize) = (8, 3);

/// What to examine. In JSON every key but `sets` may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Examination {
    /// The messages.
    pub sets: Vec<Set>,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Random directions that the guard is held against.
    pub directions: usize,
    /// Whether the system prompt is tried, too.
    pub prompted: bool,
    /// Draws the intervals and the random directions.
    pub seed: u64,
}

impl Default for Examination {
    fn default() -> Self {
        Self { sets: Vec::new(), max_tokens: 32, directions: 0, prompted: true, seed: 0 }
    }
}

/// Messages of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// What they are called.
    pub name: String,
    /// Whether they are to be refused.
    pub refuse: bool,
    /// The messages.
    pub messages: Vec<String>,
}

/// Answers to one set.
pub(super) struct Answers {
    pub(super) classes: Vec<Class>,
    pub(super) tokens: Vec<Vec<i32>>,
    pub(super) texts: Vec<String>,
    /// The largest value of each monitor on each message.
    pub(super) values: Vec<Vec<f32>>,
}

impl Examination {
    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Kind::Argument`] for what is none, with line, column and key; as [`check`](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        let hint = "keys are sets, max_tokens, directions, prompted, seed; a set has name, refuse, messages";
        let request: Self = serde_json::from_str(text).map_err(|e| {
            let error = crate::file::json::error(&e, text, "request", 1, hint);
            Error::new(Kind::Argument, error.message()).hinted(hint)
        })?;
        request.check()?;
        Ok(request)
    }

    /// Checks what can be known without a model.
    ///
    /// # Errors
    /// [`Kind::Argument`], naming the key.
    pub fn check(&self) -> Result<()> {
        if self.sets.is_empty() {
            return Err(Error::argument("sets: expected one or more, found none"));
        }
        for (i, set) in self.sets.iter().enumerate() {
            if set.messages.is_empty() || set.messages.iter().any(|message| message.trim().is_empty()) {
                return Err(Error::argument(format!(
                    "sets[{i}].messages: expected messages, found none or an empty one"
                )));
            }
            if self.sets[..i].iter().any(|other| other.name == set.name) {
                return Err(Error::argument(format!("sets[{i}].name: {:?} is given twice", set.name)));
            }
        }
        if self.max_tokens == 0 {
            return Err(Error::argument("max_tokens: expected 1 or more, found 0"));
        }
        Ok(())
    }
}

/// Examines a guard. No plan is in force afterwards. Progress counts answers.
///
/// # Errors
/// As [`Examination::check`] and [`Guard::compile`]; [`Kind::Cancelled`](crate::Kind::Cancelled); what the engine returns.
pub fn examine(
    engine: &mut Engine,
    guard: &Guard,
    request: &Examination,
    progress: &mut Progress<'_>,
) -> Result<Examined> {
    request.check()?;
    let info = guard.dictionary.info();
    let recipe: serde_json::Value = serde_json::from_str(&info.recipe).unwrap_or_default();
    let told = recipe["instruction"].as_str().filter(|_| recipe["guard"] == VERSION).unwrap_or(INSTRUCTION);
    let asking = Asking::new(engine, told)?;
    let plan = Arc::new(guard.compile(&engine.target())?);
    let n: usize = request.sets.iter().map(|set| set.messages.len()).sum();
    let methods = 2 + usize::from(request.prompted) + request.directions;
    let mut work = Work { progress, done: 0, total: (n * methods) as u64 };
    let mut made = Examined {
        guard: info.name.clone(),
        model: crate::model::Model::open(engine.path())?.name().to_owned(),
        bytes: guard.plan.to_json().len() + bytes(&guard.dictionary),
        ..Examined::default()
    };
    let randoms = (0..request.directions as u64).map(|i| random(guard, request.seed + i)?.compile(&engine.target()));
    let randoms = randoms.map(|plan| plan.map(Arc::new)).collect::<Result<Vec<_>>>()?;
    let mut values = Vec::with_capacity(request.sets.len());
    for set in &request.sets {
        let prompts = set.messages.iter().map(|m| asking.plain(engine, m)).collect::<Result<Vec<_>>>()?;
        let told = set.messages.iter().map(|m| asking.told(engine, m)).collect::<Result<Vec<_>>>()?;
        let monitors = guard.plan.monitors.len();
        let mut run = |engine: &mut Engine, plan: Option<&Arc<Compiled>>, prompts: &[Vec<i32>]| {
            answers(engine, plan, prompts, monitors, request.max_tokens, &mut work)
        };
        let unsteered = run(engine, None, &prompts)?;
        made.lines.push(line(set, "unsteered", &unsteered, &unsteered, request.seed));
        if request.prompted {
            let prompted = run(engine, None, &told)?;
            made.lines.push(line(set, "system prompt", &prompted, &unsteered, request.seed));
        }
        let guarded = run(engine, Some(&plan), &prompts)?;
        made.lines.push(line(set, "canned", &canned(guard, &guarded, &unsteered), &unsteered, request.seed));
        made.lines.push(line(set, "guard", &guarded, &unsteered, request.seed));
        for (i, plan) in randoms.iter().enumerate() {
            let moved = run(engine, Some(plan), &prompts)?;
            made.lines.push(line(set, &format!("random {}", i + 1), &moved, &unsteered, request.seed));
        }
        let samples = guarded.texts.iter().take(4).enumerate();
        made.samples.extend(samples.map(|(i, text)| (set.name.clone(), i, text.clone())));
        values.push(guarded.values);
    }
    made.monitors = monitors(guard, &request.sets, &values, request.seed);
    let prompts = request.sets.iter().flat_map(|set| &set.messages).take(TIMED.0);
    let prompts = prompts.map(|m| asking.plain(engine, m)).collect::<Result<Vec<_>>>()?;
    (made.ms_a_prompt, made.ms_unsteered) = cost(engine, &plan, &prompts)?;
    Ok(made)
}

/// Counts answers.
struct Work<'w, 'p> {
    progress: &'w mut Progress<'p>,
    done: u64,
    total: u64,
}

impl Work<'_, '_> {
    fn step(&mut self, n: usize) -> Result<()> {
        self.done += n as u64;
        let step = Step { done: self.done, total: self.total, note: "writing answers" };
        if (self.progress)(step) { Ok(()) } else { Err(Error::cancelled()) }
    }
}

/// Greedy answers to prompts under a plan, and what its monitors read on them.
fn answers(
    engine: &mut Engine,
    plan: Option<&Arc<Compiled>>,
    prompts: &[Vec<i32>],
    monitors: usize,
    max_tokens: usize,
    work: &mut Work<'_, '_>,
) -> Result<Answers> {
    let mut all = Answers { classes: Vec::new(), tokens: Vec::new(), texts: Vec::new(), values: Vec::new() };
    engine.set_plan(plan.cloned())?;
    let mut rest = prompts;
    while !rest.is_empty() {
        let (wave, later) = rest.split_at(wave(engine, rest, max_tokens));
        rest = later;
        engine.take_watched();
        let written = engine.generate_many_tokens(wave, &Generate { max_tokens, ..Generate::default() });
        let watched = engine.take_watched();
        let hooked = engine.finish();
        let Ok(written) = written else {
            engine.set_plan(None)?;
            return written.map(|_| all);
        };
        hooked.ok()?;
        all.values.extend(values(&watched, wave.len(), monitors));
        for made in &written {
            all.classes.push(class(made.text()));
            all.tokens.push(made.tokens().to_vec());
            all.texts.push(made.text().to_owned());
        }
        work.step(wave.len())?;
    }
    engine.set_plan(None)?;
    Ok(all)
}

/// As many prompts as the engine answers side by side, so that a sequence is one of them.
fn wave(engine: &Engine, prompts: &[Vec<i32>], max_tokens: usize) -> usize {
    let mut room = engine.options().context;
    let fits = |prompt: &&Vec<i32>| {
        let needed = prompt.len() + max_tokens;
        let fits = needed <= room;
        room = room.saturating_sub(needed);
        fits
    };
    prompts.iter().take(engine.sequences()).take_while(fits).count().max(1)
}

/// The largest reading of each monitor in each sequence; 0 where it read nothing.
fn values(watched: &Watched, sequences: usize, monitors: usize) -> Vec<Vec<f32>> {
    let mut values = vec![vec![0f32; monitors]; sequences];
    for reading in &watched.readings {
        let sequence = usize::try_from(reading.sequence).ok().and_then(|sequence| values.get_mut(sequence));
        if let Some(value) = sequence.and_then(|values| values.get_mut(reading.monitor)) {
            *value = value.max(reading.value);
        }
    }
    values
}

/// The unsteered answers, with a fixed sentence where the first verdict's monitor fires.
pub(super) fn canned(guard: &Guard, guarded: &Answers, unsteered: &Answers) -> Answers {
    let threshold = guard.plan.monitors.first().map_or(f32::INFINITY, |monitor| monitor.threshold);
    let text = guard.plan.verdicts.iter().find_map(|verdict| verdict.text.as_deref()).unwrap_or(CANNED);
    let fires = |i: usize| guarded.values[i].first().is_some_and(|value| *value >= threshold);
    let n = unsteered.classes.len();
    Answers {
        classes: (0..n).map(|i| if fires(i) { class(text) } else { unsteered.classes[i] }).collect(),
        tokens: (0..n).map(|i| if fires(i) { Vec::new() } else { unsteered.tokens[i].clone() }).collect(),
        texts: Vec::new(),
        values: Vec::new(),
    }
}

/// Bytes of a guard's features, as they are saved.
fn bytes(dictionary: &Dictionary) -> usize {
    size_of::<f32>() * (2 * dictionary.n_features() + 1) * dictionary.d_model()
}

/// How much longer prompts take with the guard, in milliseconds: the median of paired runs and their quartiles; and how long
/// they take without it.
fn cost(engine: &mut Engine, plan: &Arc<Compiled>, prompts: &[Vec<i32>]) -> Result<([f64; 3], f64)> {
    let (mut more, mut without) = (Vec::new(), Vec::new());
    let one = Generate { max_tokens: 1, ..Generate::default() };
    let timed = |engine: &mut Engine, plan: Option<&Arc<Compiled>>, prompt: &Vec<i32>| -> Result<f64> {
        engine.set_plan(plan.cloned())?;
        let started = Instant::now();
        engine.generate_many_tokens(std::slice::from_ref(prompt), &one)?;
        Ok(1e3 * started.elapsed().as_secs_f64())
    };
    for round in 0..TIMED.1 {
        for prompt in prompts {
            // Which comes first changes with the round.
            let order = if round % 2 == 0 { [None, Some(plan)] } else { [Some(plan), None] };
            let mut took = [0.0; 2];
            for plan in order {
                took[usize::from(plan.is_some())] = timed(engine, plan, prompt)?;
            }
            more.push(took[1] - took[0]);
            without.push(took[0]);
        }
    }
    engine.finish().ok()?;
    engine.set_plan(None)?;
    more.sort_by(f64::total_cmp);
    without.sort_by(f64::total_cmp);
    let at = |values: &[f64], share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    Ok(([at(&more, 0.5), at(&more, 0.25), at(&more, 0.75)], at(&without, 0.5)))
}
