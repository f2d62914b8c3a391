//! The strength at which chosen features do most for a wish and leave the texts whole.

use std::sync::Arc;

use tiller::choose::prompted;
use tiller::engine::{Engine, Generate, Message};
use tiller::eval::concepts::hits;
use tiller::eval::trial::{self, Comparison};
use tiller::plan::{Compiled, Route};
use tiller::{Error, Result};

use super::Writing;
use crate::output::Out;
use crate::wish::{Chosen, Named, Wish, features_table, learn_it};

/// Gains below this are chance: a word more in a few hundred.
const LEAST_GAIN: f64 = 2.0;
/// Sampled texts of the user's own prompt in a search, and the tokens of each; of the user's own kind of text, at most so many.
const SAMPLED: usize = 3;
const SAMPLED_TOKENS: usize = 40;
const OWN_TOKENS: usize = 100;
/// Other messages that are answered in the chat template.
const MESSAGES: [&str; 4] = [
    "Tell me about your day.",
    "What should I do this weekend?",
    "Describe a person you know.",
    "Give me some advice.",
];

/// The tokens of a prompt, in the chat template if that is wanted.
pub(crate) fn prompt_tokens(engine: &Engine, chat: bool, prompt: &str) -> Result<Vec<i32>> {
    if chat { engine.chat_tokens(&[Message::user(prompt)], true) } else { engine.tokenize(prompt, true) }
}

/// The strength at which the model speaks most (or least) of the words and writes whole texts: on the user's prompt, in the
/// user's template and sampling; beside them the same prompt sampled, and neutral ones, so that one text is not all.
pub(super) fn search(
    wish: &Wish,
    writing: &Writing<'_>,
    engine: &mut Engine,
    (dictionaries, chosen): (&[Named], &[Chosen]),
    out: &Out,
) -> Result<f32> {
    let (search, strength) = wish.search();
    // The plan needs what the engine is, not the engine.
    let target = engine.target();
    let named: Vec<_> = dictionaries.iter().map(|(name, d, _)| (name.as_str(), d.clone())).collect();
    let plan = |t| Ok(Arc::new(wish.plan(chosen, strength(t)).compile(&named, &target, Route::Auto)?));
    if let Some(told) = &wish.prompted {
        return as_asked(wish, told, engine, &search.strengths, &plan, out).map(strength);
    }
    let wanted = wish.wanted(chosen);
    let mut bar = out.bar("strength", "trials");
    let texts = Comparison::of(engine, sets(writing, engine)?)?;
    let spoken = texts.unsteered().iter().any(|text| hits(&text.text, &wanted) > 0);
    let found = texts.search(engine, &search, &wanted, &plan, &mut |step| bar.step(step))?;
    drop(bar);
    let text = wish.text();
    if search.suppress && !spoken {
        out.note(format!("warning: without steering no text speaks of {text:?}: the strength could not be measured"));
        return Ok(strength(search.strengths.last().copied().unwrap_or(1.0)));
    }
    match found.best {
        Some(best) if search.suppress || best.effect.gain >= LEAST_GAIN => Ok(strength(best.strength)),
        _ => {
            let what = format!(
                "at no strength that leaves the texts whole do these features make the model speak of {text:?}"
            );
            let hint = format!("{}; or give a strength: --strength 1", learn_it(text, Some(engine.path())));
            features_table(chosen, out)?;
            Err(Error::unsupported(what).hinted(hint))
        }
    }
}

/// Shares of what asking does below this are chance.
const LEAST_EFFECT: f64 = 0.05;

/// The strength at which prompted features do most of what asking does.
fn as_asked(
    wish: &Wish,
    told: &str,
    engine: &mut Engine,
    strengths: &[f32],
    plan: &dyn Fn(f32) -> Result<Arc<Compiled>>,
    out: &Out,
) -> Result<f32> {
    if wish.suppresses() {
        return Err(Error::argument("--prompted with an operator that suppresses needs a --strength"));
    }
    let mut bar = out.bar("strength", "answers");
    let doses = prompted::strength(engine, told, strengths, plan, &mut |step| bar.step(step))?;
    drop(bar);
    match prompted::best(&doses).filter(|best| best.effect >= LEAST_EFFECT) {
        Some(best) => {
            let (effect, cost) = (100.0 * best.effect, best.perplexity);
            out.note(format!("{effect:.0} % of what asking does, perplexity {cost:.2}×"));
            Ok(best.strength)
        }
        None => {
            let what = format!("at no strength that leaves the texts whole do these features do what {told:?} does");
            let hint = format!("{}; or give a strength: --strength 1", learn_it(told, Some(engine.path())));
            Err(Error::unsupported(what).hinted(hint))
        }
    }
}

/// Prompts, and how each is gone on from.
fn sets(writing: &Writing<'_>, engine: &Engine) -> Result<Vec<(Vec<Vec<i32>>, Generate)>> {
    let generate = &writing.generate;
    let own = Generate { max_tokens: generate.max_tokens.min(OWN_TOKENS), ..generate.clone() };
    let [_, sampled] = trial::drafts(generate.max_tokens.min(SAMPLED_TOKENS));
    let neutral: Vec<&str> = match writing.chat {
        true => MESSAGES.to_vec(),
        false => trial::PROMPTS.iter().take(MESSAGES.len()).copied().collect(),
    };
    let mut more: Vec<Vec<i32>> =
        neutral.iter().map(|text| prompt_tokens(engine, writing.chat, text)).collect::<Result<_>>()?;
    let mut sets = Vec::new();
    if let Some(prompt) = writing.prompt {
        let prompt = prompt_tokens(engine, writing.chat, prompt)?;
        more.extend(vec![prompt.clone(); SAMPLED]);
        sets.push((vec![prompt], own));
    }
    sets.push((more, sampled));
    Ok(sets)
}
