//! An instruction becomes features: the model is told, what that does to its rows is distilled, and what the features do is
//! measured.
//!
//! | step | messages | file |
//! |---|---|---|
//! | where the instruction stands: as system message or behind the user's, by which of them changes the answers more | fit | `asking.rs` |
//! | the asked model answers; rows of all layers over the same answers, asked and not, in one pass each | fit | `rows.rs` |
//! | closed-form features for sets of layers ([`train::learn`](crate::train::learn)) | choose | `layers.rs` |
//! | form, layers and strength, by answers that the asked and the unsteered model judge | choose | `trials.rs`, `dose.rs` |
//! | what it does, once | score | `report.rs` |
//!
//! *What counts*: the strongest effect of the strengths at which the text is no less likely, to the unsteered model, than what
//! it writes when it is asked, and runs in circles no more often. There is no judge and no word list, so any instruction
//! will do that the model follows.
//!
//! *Cost*: some hundred short answers, which are read about three times each; the rows of all layers are held once, in a
//! gigabyte at most. Nothing is stored. What comes out depends on the seed and on the model's arithmetic, not on threads.

pub(in crate::choose) mod asking;
pub(in crate::choose) mod dose;
mod layers;
mod pack;
mod report;
mod request;
mod rows;
pub(in crate::choose) mod trials;
mod wording;
pub(in crate::choose) mod work;

use std::sync::Arc;

use rand::seq::SliceRandom;

pub use report::{Report, Sample, Score};
pub use request::{Example, Place, Request};
pub use wording::instruction;

use crate::dictionary::{Dictionary, Info, Learned};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::num::rng;
use crate::plan::{ControlVector, Plan, Rule};
use crate::progress::Progress;
use crate::train::learn::Contrast;
use asking::{Asking, Case};
use dose::{Dose, Search};
use layers::{Candidate, Fitted};
use trials::{Frame, Sum};
use work::Work;

/// Counts up whenever the same request would give other features.
pub const VERSION: u32 = 3;

/// Messages that choose, and that score, at most.
const CHOOSE: usize = 16;
const SCORE: usize = 12;
/// Tokens of the answers that choose and score, at most: loops show in the second half of them.
const SHORT: usize = 60;
/// Messages on which places of the instruction are compared, and the tokens of their answers.
const PLACES: (usize, usize) = (4, 24);
/// Share of the answers that features are fitted on.
const KEPT: f64 = 0.6;
/// Nats a token by which asking must change the answers: less is noise.
const LEAST_GAP: f64 = 0.02;

/// What users say, when nobody says what they say.
pub fn messages() -> impl Iterator<Item = &'static str> {
    include_str!("messages.txt").lines()
}

/// What learning makes.
pub struct Outcome {
    /// The features of its layers, with what was found out about them.
    pub dictionary: Dictionary,
    /// The constant form at its own best strength, for any llama.cpp; none if the features must be silent on some messages.
    pub control_vector: Option<ControlVector>,
    /// How it was chosen and what it does.
    pub report: Report,
}

/// Messages dealt out.
struct Deal {
    fit: Vec<String>,
    choose: Vec<String>,
    score: Vec<String>,
}

impl Deal {
    /// Half fits; of the rest half chooses and half scores.
    fn of(mut messages: Vec<String>, request: &Request) -> Self {
        messages.shuffle(&mut rng(request.seed));
        let n = messages.len() / 2;
        let mut rest = messages.split_off(n);
        let mut score = rest.split_off(rest.len() / 2);
        messages.truncate(request.answers);
        rest.truncate(CHOOSE);
        score.truncate(SCORE);
        Self { fit: messages, choose: rest, score }
    }
}

/// Learns `request.instruction` from what it does to the engine's model. No plan is in force afterwards. Open the engine with
/// several sequences: answers are written side by side. Progress counts answers that were written, read or judged.
///
/// # Errors
/// As [`Request::check`]; [`Kind::Unsupported`](crate::Kind::Unsupported) if the model does not follow the instruction, or has
/// no chat template that a place needs; [`Kind::Cancelled`](crate::Kind::Cancelled); what the engine returns.
pub fn learn(engine: &mut Engine, request: &Request, progress: &mut Progress<'_>) -> Result<Outcome> {
    request.check()?;
    let mut pass = |step: crate::progress::Step<'_>| progress(step);
    let mut work = Work::new(&mut pass, request.minutes, expected_work(request));
    engine.set_plan(None)?;
    let told =
        if request.messages.is_empty() { messages().map(str::to_owned).collect() } else { request.messages.clone() };
    let (told, others) = (Deal::of(told, request), Deal::of(request.unless.clone(), request));
    let asking = place(engine, request, &told.fit, &mut work)?;
    let cases = |messages: &[String], n| asking.cases(engine, messages, n);
    let (fitting, silent) = (cases(&told.fit, request.max_tokens)?, cases(&others.fit, request.max_tokens)?);
    let short = request.max_tokens.min(SHORT);
    let (choosing, scoring) = (cases(&told.choose, short)?, cases(&told.score, short)?);
    let (choosing_other, scoring_other) = (cases(&others.choose, short)?, cases(&others.score, short)?);

    work.mark("placing");
    let frame = Frame::new(engine, choosing, short, &mut work)?;
    if frame.gap().is_nan() || frame.gap() < LEAST_GAP {
        let (gap, instruction) = (frame.gap(), &request.instruction);
        return Err(Error::unsupported(format!(
            "the model does not follow {instruction:?}: asking changes its answers by {gap:.3} nats a token, expected {LEAST_GAP} or more"
        ))
        .hinted("say it in other words, or take a model that follows it"));
    }
    let unless = match choosing_other.is_empty() {
        true => None,
        false => Some(Frame::new(engine, choosing_other, short, &mut work)?),
    };
    work.mark("asking");
    let rows = contrast(engine, request, (&fitting, &silent), asking.tail, &mut work)?;
    work.mark("rows");
    let (n_rows, row_bytes) = (rows.n_rows(), rows.bytes());
    let fitted = Fitted::new(engine.n_layer(), &rows, request.threads, &mut work)?;
    drop(rows);
    work.mark("fitting");
    let mut search = Search::new(&frame, unless.as_ref());
    let gated = search.best_of(engine, fitted.gated()?, &mut work)?;
    let constant = unless.is_none().then(|| gated.constant()).transpose()?;
    let candidates: Vec<&Candidate> = [Some(&gated), constant.as_ref()].into_iter().flatten().collect();
    for candidate in &candidates {
        search.strengths(engine, candidate, &mut work)?;
    }
    let own: Vec<Dose> = candidates.iter().flat_map(|candidate| search.of(candidate)).cloned().collect();
    let nothing = || Error::numeric("no strength could be tried");
    let chosen = dose::best(&own).ok_or_else(nothing)?.clone();
    let candidate = candidates.into_iter().find(|c| c.form.name() == chosen.form).ok_or_else(nothing)?;
    let against = if request.avoid { dose::against(engine, candidate, &frame, &mut work)? } else { Vec::new() };
    let good = against.iter().filter(|dose| dose.good);
    let avoid = good.max_by(|a, b| a.did.effect.total_cmp(&b.did.effect)).map(|dose| -dose.strength);

    work.mark("strengths");
    let mut report = Report {
        instruction: request.instruction.clone(),
        place: asking.name().to_owned(),
        layers: candidate.layers(),
        form: chosen.form.to_owned(),
        strength: chosen.strength,
        rank: candidate.rank,
        lambda: layers::LAMBDA,
        fluent: chosen.good,
        avoid,
        perplexity_bound: dose::bound(&frame),
        doses: report::json(&[search.doses.as_slice(), &against].concat()),
        n_rows,
        row_bytes,
        ..Report::default()
    };
    let good = |candidate: &Candidate| {
        let own: Vec<Dose> = search.of(candidate).cloned().collect();
        dose::best(&own).filter(|dose| dose.good).map(|dose| dose.strength)
    };
    (report.gated, report.constant) = (good(&gated), constant.as_ref().and_then(good));
    let vector = report.constant.zip(constant.as_ref());
    let control_vector = vector.map(|(strength, c)| pack::control_vector(&c.features, strength)).transpose()?;
    let tested = (Frame::new(engine, scoring, short, &mut work)?, scoring_other);
    score(engine, candidate, chosen.strength, tested, &mut report, &mut work)?;
    work.mark("scoring");
    let dictionary = dictionary(engine, request, candidate, &report)?;
    report.plan = Plan::new(dictionary.info().learned.as_ref().map(|learned| Rule::learned(learned, 1.0)));
    (report.seconds, report.parts) = (work.seconds(), work.parts());
    Ok(Outcome { dictionary, control_vector, report })
}

/// Answers that will be written, read or judged, about.
fn expected_work(request: &Request) -> u64 {
    let (frames, silent) = if request.unless.is_empty() { (2, 0) } else { (4, 1) };
    let per_trial = 2 * CHOOSE * if silent == 1 { 2 } else { 1 };
    (request.answers * 2 * (1 + silent) + frames * 4 * CHOOSE + 6 * 8 + 7 * per_trial + PLACES.0 * 4) as u64
}

/// Where the instruction stands.
fn place(engine: &mut Engine, request: &Request, messages: &[String], work: &mut Work<'_>) -> Result<Asking> {
    let instruction = &request.instruction;
    if !request.examples.is_empty() {
        return Asking::by_examples(engine, &request.examples);
    }
    if request.place != Place::Auto {
        return Asking::new(engine, instruction, request.place);
    }
    if !asking::has_template(engine) {
        return Asking::new(engine, instruction, Place::Front);
    }
    let messages: Vec<String> = messages.iter().take(PLACES.0).cloned().collect();
    let mut best: Option<(f64, Asking)> = None;
    // Behind the message is tried first: of equal places it is the one that small models follow better.
    for place in [Place::Appended, Place::System] {
        let asking = Asking::new(engine, instruction, place)?;
        let cases = asking.cases(engine, &messages, PLACES.1)?;
        let prompts: Vec<Vec<i32>> = cases.iter().map(|case| case.asked.clone()).collect();
        let written = trials::write(engine, None, &prompts, PLACES.1, work)?;
        let changed = Sum::of(&trials::judge(engine, &cases, &written, work)?).asked;
        if best.as_ref().is_none_or(|(before, _)| changed > *before) {
            best = Some((changed, asking));
        }
    }
    best.map(|(_, asking)| asking).ok_or_else(|| Error::argument("place: none"))
}

/// Has the asked model answer, and reads its answers by both selves.
fn contrast(
    engine: &mut Engine,
    request: &Request,
    (fitting, silent): (&[Case], &[Case]),
    tail: usize,
    work: &mut Work<'_>,
) -> Result<Contrast> {
    let layers = layers::all(engine.n_layer());
    let row = layers.len() * engine.d_model() * size_of::<f32>();
    // Two rows a pair; of other messages up to four for each token of an answer.
    let texts = 2 * fitting.len() + 4 * silent.len();
    let most = (rows::MEMORY / (row * texts).max(1)).max(4);
    let mut rows = Contrast::new(engine.d_model());
    for (cases, asked) in [(fitting, true), (silent, false)] {
        for (done, wave) in (0..).zip(cases.chunks(engine.sequences().max(8))) {
            if done > 0 && work.is_past(0.3) {
                break;
            }
            let prompts: Vec<Vec<i32>> =
                wave.iter().map(|case| if asked { case.asked.clone() } else { case.plain.clone() }).collect();
            let written = trials::write(engine, None, &prompts, request.max_tokens, work)?;
            let mut answered: Vec<(&Case, &[i32])> =
                wave.iter().zip(&written).map(|(c, made)| (c, made.tokens())).collect();
            if asked {
                let judged = trials::judge(engine, wave, &written, work)?;
                answered = following(&judged).into_iter().map(|i| answered[i]).collect();
            }
            match asked {
                true => rows::add(engine, &mut rows, &answered, (&layers, tail), most, work)?,
                false => rows::add_silent(engine, &mut rows, &answered, (&layers, tail), 2 * most, work)?,
            }
        }
    }
    Ok(rows)
}

/// The answers that follow the instruction best, in order: a small model does not follow it every time, and what it writes
/// then teaches nothing.
fn following(judged: &[trials::Answer]) -> Vec<usize> {
    let follows = |a: &trials::Answer| (a.plain - a.asked) / a.tokens.len().max(1) as f64;
    let mut order: Vec<usize> = (0..judged.len()).filter(|&i| !judged[i].is_broken()).collect();
    order.sort_by(|&a, &b| follows(&judged[b]).total_cmp(&follows(&judged[a])).then(a.cmp(&b)));
    order.truncate((judged.len() as f64 * KEPT).ceil() as usize);
    order.sort_unstable();
    order
}

/// What the chosen features do to messages that nothing has seen.
fn score(
    engine: &mut Engine,
    candidate: &Candidate,
    strength: f32,
    (frame, others): (Frame, Vec<Case>),
    report: &mut Report,
    work: &mut Work<'_>,
) -> Result<()> {
    let plan = pack::compile(engine, &candidate.dictionary, candidate.form, strength)?;
    let answers = frame.answers(engine, Some(&plan), false, work)?;
    let mut spill = None;
    if !others.is_empty() {
        let others = Frame::new(engine, others, frame.max_tokens, work)?;
        let moved =
            Sum::of(&others.answers(engine, Some(&plan), false, work)?).asked - Sum::of(&others.unsteered).asked;
        spill = Some(moved / frame.gap());
    }
    report.score = Score::of(&frame, &frame.effect(&answers), spill);
    let triples = frame.cases.iter().zip(&frame.unsteered).zip(&frame.asked).zip(&answers);
    report.samples = triples
        .map(|(((case, unsteered), asked), learned)| Sample {
            message: case.message.clone(),
            unsteered: unsteered.text.clone(),
            asked: asked.text.clone(),
            learned: learned.text.clone(),
        })
        .collect();
    Ok(())
}

/// The file's content.
fn dictionary(engine: &Engine, request: &Request, candidate: &Candidate, report: &Report) -> Result<Dictionary> {
    let model = engine.counted_as(request.counts_as.as_deref())?;
    let recipe = serde_json::json!({
        "learned": VERSION, "place": report.place, "layers": candidate.layers, "rank": candidate.rank, "lambda": layers::LAMBDA,
        "answers": request.answers, "max_tokens": request.max_tokens, "seed": request.seed, "rows": report.n_rows,
        "own_messages": !request.messages.is_empty(), "unless": request.unless.len(), "examples": request.examples.len(),
    });
    let doses = serde_json::json!({
        "score": report.score, "perplexity_bound": report.perplexity_bound, "doses": report.doses,
    });
    let told = match request.instruction.trim() {
        "" => format!("as in {} examples", request.examples.len()),
        told => told.to_owned(),
    };
    let learned = Learned {
        instruction: told.clone(),
        explanation: told.clone(),
        form: candidate.form,
        strength: report.strength,
        avoid: report.avoid,
        doses: doses.to_string(),
    };
    let info = Info {
        name: told,
        model_name: model.name().to_owned(),
        model_fingerprint: model.fingerprint().to_owned(),
        recipe: recipe.to_string(),
        learned: Some(learned),
        ..Info::default()
    };
    pack::dictionary(&candidate.features, info)
}

impl Outcome {
    /// The dictionary, to be shared by plans.
    pub fn shared(&self) -> Arc<Dictionary> {
        Arc::new(self.dictionary.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_many_and_dealt_without_overlap() {
        let all: Vec<String> = messages().map(str::to_owned).collect();
        assert!(all.len() >= 96 && all.iter().all(|m| !m.trim().is_empty()), "{}", all.len());
        let request = Request::new("Rhyme.");
        let deal = Deal::of(all.clone(), &request);
        let mut dealt = [deal.fit.clone(), deal.choose.clone(), deal.score.clone()].concat();
        assert_eq!((deal.fit.len(), deal.choose.len(), deal.score.len()), (48, 16, 12));
        dealt.sort();
        dealt.dedup();
        assert_eq!(dealt.len(), 76, "each message once");
        assert_eq!(Deal::of(all.clone(), &request).fit, deal.fit, "a seed deals alike");
        assert_ne!(Deal::of(all, &Request { seed: 1, ..request.clone() }).fit, deal.fit);
        let few: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        let deal = Deal::of(few, &request);
        assert_eq!((deal.fit.len(), deal.choose.len(), deal.score.len()), (6, 3, 3));
    }
}
