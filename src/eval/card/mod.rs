//! The steering card: what a plan does, what else it does, what it costs, and a verdict with its numbers.
//!
//! | part | how | file |
//! |---|---|---|
//! | what it does in words | explanations, the lens, lifts, tokens that become likelier | `meaning.rs`, [`divergence`] |
//! | effect | as features are learned (asked = 1, unsteered = 0), or held-out words per 100 tokens | `aim.rs` |
//! | random directions | as long as the plan's own edits at the same places; their spread is σ | `random.rs` |
//! | dose and response | multiples of the plan: effect, perplexity, loops, KL | `doses.rs` |
//! | selectivity and leak | held-out words of sixteen concepts | `leak.rs` |
//! | side effects | KL a token, entropy, questions with choices | [`divergence`], [`choices`] |
//! | additivity | every rule alone and all at once | `together.rs` |
//! | cost | ms a token and bytes | `cost.rs` |
//! | verdict | the first word whose number passes its threshold | `verdict.rs` |
//! | page | HTML with inline SVG: no script, no network | `page.rs`, `chart.rs` |
//!
//! No judge and no other model. Texts are greedy, so a card comes out the same for the same seed, but for the last bits of the
//! model's arithmetic. Prompts are in no other list of tiller: learning has not seen them, and they hold no word of a concept.
//!
//! *Cost*: with the defaults some 370 texts of 48 tokens, each read two to four times.

mod aim;
mod chart;
mod cost;
mod doses;
mod further;
mod leak;
mod meaning;
mod page;
mod prompts;
mod random;
mod report;
mod request;
mod subject;
mod texts;
mod together;
mod verdict;

pub use report::{
    Additivity, Cost, Delayed, Dose, Effect, Feature, File, Fluencies, Gains, Identity, Label, Leak, Meaning, Measure,
    OneNat, Random, Report, Sample, VERSION, Whole,
};
pub use request::{Named, Request};
pub use verdict::{Check, Verdict, Word};

use super::choices::{self, Asked, Question, SideEffects};
use super::concepts::Suite;
use super::divergence::{Divergence, Turned};
use super::fluency::Broken;
use crate::engine::Engine;
use crate::error::Result;
use crate::model::Model;
use crate::plan::Route;
use crate::progress::Progress;
use aim::{Aims, refs};
use random::Drawn;
use subject::Subject;
use texts::{Bench, Depth, Text, Work, whole};

/// The crate that carries llama.cpp, with its version: a test holds it against Cargo.toml.
const LLAMA_CPP: &str = "llama-cpp-sys-2 0.1.161";
/// Tokens that are shown of those that become likelier.
const TOKENS: usize = 16;

/// Makes the card of a plan on the engine's model. No plan is in force afterwards. Open the engine with
/// [`SEQUENCES`](super::trial::SEQUENCES): texts are written side by side. Progress counts texts that were written or judged.
///
/// # Errors
/// As [`Request::check`]; what opening files, compiling the plan and the engine return;
/// [`Cancelled`](crate::Kind::Cancelled).
pub fn card(engine: &mut Engine, request: &Request, progress: &mut Progress<'_>) -> Result<Report> {
    request.check()?;
    let suite = Suite::built_in()?;
    let model = Model::open(engine.path())?;
    let subject = Subject::open(engine, &model, request)?;
    let questions = request.questions.as_deref().map_or_else(choices::built_in, choices::open)?;
    let labels = request.labels.as_deref().map(|path| further::labels(path, &subject)).transpose()?;
    let aims = Aims::of(
        &subject,
        (request.words.as_slice(), request.held_out.as_slice(), request.instruction.as_deref()),
        &suite,
    );
    let chat = prompts::is_chat(engine, request, &aims)?;
    let cases = prompts::cases(engine, request, &aims, chat, &suite)?;
    let mut pass = |step: crate::progress::Step<'_>| progress(step);
    let work = Work::new(&mut pass, expected_work(request, &subject, &aims, cases.len(), &questions));
    let mut bench = Bench { engine, cases, max_tokens: request.max_tokens, work };
    bench.engine.set_plan(None)?;
    let mut card = Report {
        version: VERSION,
        title: title(&subject, request),
        rules: subject.plan.rules.iter().map(|rule| subject.describe(rule)).collect(),
        setting: if chat { "chat" } else { "plain" }.into(),
        labels,
        command: request.command.clone(),
        notes: subject.notes.clone(),
        ..Report::default()
    };
    measure(&mut bench, (&subject, &aims, &suite), request, &mut card)?;
    bench.work.begin("features");
    let named = std::mem::take(&mut card.meaning);
    card.meaning = meaning::features(bench.engine, &model, &subject, &request.words, &mut bench.work)?;
    (card.meaning.likelier, card.meaning.unlikelier) = (named.likelier, named.unlikelier);
    bench.work.begin("questions");
    card.choices = answers(&mut bench, &subject, &questions, chat)?;
    card.delayed = further::delayed(&mut bench, &subject, request)?;
    bench.work.begin("cost");
    let prompt = bench.cases.first().map(|case| case.plain.clone()).unwrap_or_default();
    card.cost = cost::cost(bench.engine, &subject, &prompt, &mut bench.work)?;
    card.identity = identity(&model, &subject, request)?;
    card.verdict = Verdict::of(&card);
    card.seconds = bench.work.seconds();
    card.parts = bench.work.parts();
    card.plan = subject.plan;
    Ok(card)
}

/// As [`card`], from a request in JSON to a card in JSON: for borders between languages. [`Report::from_json`] and
/// [`Report::page`] make a page of it.
///
/// # Errors
/// As [`Request::from_json`] and [`card`].
pub fn card_json(engine: &mut Engine, request: &str, progress: &mut Progress<'_>) -> Result<String> {
    card(engine, &Request::from_json(request)?, progress)?.to_json()
}

/// What is measured by texts.
fn measure(
    bench: &mut Bench<'_, '_>,
    (subject, aims, suite): (&Subject, &Aims, &Suite),
    request: &Request,
    card: &mut Report,
) -> Result<()> {
    let all: Vec<usize> = (0..bench.cases.len()).collect();
    bench.work.begin("texts");
    let plan = subject.compile(bench.engine, &subject.plan, Route::Auto)?;
    let unsteered = bench.write(None, &all, Depth::Divergence(None))?;
    let asked = bench.asked()?;
    let mut turned = Turned::default();
    let with = bench.write(Some(&plan), &all, Depth::Divergence(Some(&mut turned)))?;
    let usual = whole(&refs(&unsteered), None).perplexity;
    [card.meaning.likelier, card.meaning.unlikelier] = turned.top(bench.engine, TOKENS);
    card.divergence = Divergence::of(with.iter().map(|text| &text.moved));
    card.asked_divergence = asked.as_ref().map(|asked| Divergence::of(asked.iter().map(|text| &text.moved)));
    card.fluency = Fluencies {
        without: whole(&refs(&unsteered), None),
        with: whole(&refs(&with), Some(usual)),
        asked: asked.as_ref().map(|asked| whole(&refs(asked), Some(usual))),
    };
    let sets = (with.as_slice(), unsteered.as_slice(), asked.as_deref());
    card.samples = samples(bench, sets, usual);
    card.effect = effect(aims, sets, request.seed, &mut card.notes);
    bench.work.begin("random directions");
    let sizes = random::sizes(bench, subject, &with)?;
    let drawn = Drawn::new(bench, subject, sizes, (request.directions, request.direction_texts), request.seed)?;
    let effects = drawn.effects(aims, &unsteered, asked.as_deref());
    card.random = drawn.report(&effects, usual);
    card.effect.sigma = sigma(aims, &drawn, sets, &card.random);
    bench.work.begin("doses");
    (card.doses, card.one_nat) = doses::doses(bench, subject, aims, sets, request, &mut card.notes)?;
    bench.work.begin("rules alone");
    let alone = together::alone(bench, subject)?;
    card.additivity = together::additivity(aims, &alone, sets);
    let words = leak::words(suite, aims.measure == Measure::Asked);
    let gains = |name: &str, texts: &[Text]| leak::gains(name, texts, &unsteered, &words);
    let mut rows = vec![gains("the plan", &with)];
    rows.extend(asked.as_deref().map(|asked| gains("asked", asked)));
    rows.extend(alone.iter().map(|(name, texts)| gains(&format!("alone: {name}"), texts)));
    let (rates, one) = leak::rates(&with, &words);
    let random: Vec<Vec<f64>> = drawn.texts.iter().map(|texts| leak::rates(texts, &words).0).collect();
    card.leak = leak::leak(suite, &aims.own, rows, (&rates, one), &random, card.effect.sigma);
    Ok(())
}

/// How much of what it is meant for the plan does.
fn effect(aims: &Aims, sets: aim::Sets<'_>, seed: u64, notes: &mut Vec<String>) -> Effect {
    let (with, unsteered, asked) = sets;
    let (value, interval) = aims.effect(sets, seed);
    let known = Effect { aims: aims.names.clone(), against: aims.against, value, interval, ..Effect::default() };
    if value.is_none() {
        notes.push(aim::unmeasured(aims));
        return known;
    }
    Effect {
        measure: aims.measure,
        each: aims.each(&refs(with), &refs(unsteered), asked.map(refs).as_deref()),
        asked: asked.and_then(|texts| aims.effect_alone((texts, unsteered, Some(texts)))),
        ..known
    }
}

/// Standard deviations of the effect above the mean of random directions, on the prompts that these have.
fn sigma(aims: &Aims, drawn: &Drawn, (with, unsteered, asked): aim::Sets<'_>, random: &Random) -> Option<f64> {
    let first = |texts: &'_ [Text]| texts.iter().take(drawn.n).cloned().collect::<Vec<_>>();
    let asked = asked.map(first);
    let own = aims.effect_alone((&first(with), &first(unsteered), asked.as_deref()))?;
    let deviation = random.deviation.filter(|deviation| *deviation > 0.0)?;
    Some((own - random.mean?) / deviation)
}

fn samples(bench: &Bench<'_, '_>, (with, unsteered, asked): aim::Sets<'_>, usual: f64) -> Vec<Sample> {
    let sample = |(i, (without, with)): (usize, (&Text, &Text))| Sample {
        prompt: bench.cases[with.case].prompt.clone(),
        without: without.text.clone(),
        with: with.text.clone(),
        asked: asked.and_then(|asked| asked.get(i)).map(|text| text.text.clone()),
        broken: with.broken(Some(usual)).map(Broken::name).map(str::to_owned),
    };
    unsteered.iter().zip(with).enumerate().map(sample).collect()
}

/// What the plan does to questions.
fn answers(bench: &mut Bench<'_, '_>, subject: &Subject, questions: &[Question], chat: bool) -> Result<SideEffects> {
    let asked = Asked::new(bench.engine, questions, chat)?;
    let plan = subject.compile(bench.engine, &subject.plan, Route::Auto)?;
    let mut scores = Vec::with_capacity(2);
    for plan in [None, Some(&plan)] {
        let work = &mut bench.work;
        scores.push(choices::scores(bench.engine, plan, &asked, &mut |_| work.go_on())?);
        bench.work.step(questions.len())?;
    }
    let right: Vec<usize> = questions.iter().map(|question| question.answer).collect();
    Ok(SideEffects::of(&right, &scores[0], &scores[1]))
}

/// Texts that will be written or judged, about.
fn expected_work(request: &Request, subject: &Subject, aims: &Aims, n: usize, questions: &[Question]) -> u64 {
    let rules = subject.plan.rules.len();
    let alone = if rules > 1 { rules } else { 0 };
    let sets = 3 + request.doses.len() + alone;
    let random = request.directions * request.direction_texts.min(n);
    let judged = if aims.told.is_some() { 2 } else { 1 };
    (judged * (sets * n + random) + 2 * questions.len() + meaning::FEATURES) as u64
}

fn title(subject: &Subject, request: &Request) -> String {
    let learned = subject.plan.rules.iter().filter_map(|rule| subject.learned(rule));
    let mut told: Vec<&str> = learned.map(|learned| learned.instruction.as_str()).collect();
    told.dedup();
    let stem = || request.plan.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match (&subject.plan.note, told.is_empty()) {
        (Some(note), _) if !note.trim().is_empty() => note.clone(),
        (_, false) => told.join(" + "),
        _ if !request.words.is_empty() => request.words.join(" "),
        _ => stem(),
    }
}

fn identity(model: &Model, subject: &Subject, request: &Request) -> Result<Identity> {
    let path = model.path();
    let dictionary = |assets: &subject::Assets| {
        let (name, fingerprint) = (assets.dictionary.info().name.clone(), subject::digest(&assets.path)?);
        Ok(File { name, fingerprint, ..subject::file(&assets.path) })
    };
    Ok(Identity {
        tiller: env!("CARGO_PKG_VERSION").into(),
        llama_cpp: LLAMA_CPP.into(),
        model: File { name: model.name().into(), fingerprint: model.fingerprint().into(), ..subject::file(path) },
        dictionaries: subject.dictionaries.iter().map(dictionary).collect::<Result<_>>()?,
        plan: subject.file.clone(),
        seed: request.seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_of_llama_cpp_is_the_one_that_is_built() {
        let (name, version) = LLAMA_CPP.split_once(' ').unwrap();
        let wanted = format!("package = \"{name}\", version = \"={version}\"");
        assert!(include_str!("../../../Cargo.toml").contains(&wanted), "{wanted}");
    }
}
