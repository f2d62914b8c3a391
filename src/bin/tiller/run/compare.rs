//! The same prompt without and with a plan, and asked for the same, side by side.

use serde_json::json;
use tiller::choose::learn::instruction;
use tiller::engine::{Engine, Generate};
use tiller::eval::concepts::Continuation;
use tiller::eval::fluency::Broken;
use tiller::eval::trial;
use tiller::{Error, Result};

use super::Args;
use crate::choice::{Choice, prompt_tokens};
use crate::output::Out;
use crate::wish::features_table;

/// The prompt with an instruction: behind a user's message, or as a line in front of a text.
fn asked_tokens(args: &Args, engine: &Engine, text: Option<&str>) -> Result<Vec<i32>> {
    let prompt = args.prompt.as_deref().unwrap_or_default();
    let wish = &args.wanted.wish;
    let instruction = match (text, &wish.prompted, &wish.words) {
        (Some(text), ..) => text.to_owned(),
        (None, Some(told), _) => told.clone(),
        (None, None, Some(words)) => instruction(words),
        (None, None, None) => {
            return Err(Error::argument("--asked: a plan has no words to ask for: give --asked=TEXT"));
        }
    };
    prompt_tokens(
        engine,
        args.chat,
        &if args.chat { format!("{prompt} {instruction}") } else { format!("{instruction}\n{prompt}") },
    )
}

/// The same prompt without and with the plan, and asked for the same.
pub(super) fn show(
    args: &Args,
    engine: &mut Engine,
    prompt: &[i32],
    generate: &Generate,
    choice: Option<&Choice>,
    out: &Out,
) -> Result<()> {
    let Some(choice) = choice else {
        return Err(Error::argument("--compare needs --steer, --words, --prompted or --plan"));
    };
    let one = [prompt.to_vec()];
    let without = trial::write(engine, None, &one, generate)?.remove(0);
    let usual = Some(without.perplexity());
    let mut columns = vec![("unsteered", "without steering", None, without)];
    if let Some(text) = &args.asked {
        let with = asked_tokens(args, engine, text.as_deref())?;
        let made = engine.generate_tokens(&with, generate, &mut |_| !crate::interrupt::asked())?;
        columns.push(("asked", "asked in the prompt", usual, trial::judge(engine, prompt, &made)?));
    }
    let with = trial::write(engine, Some(&choice.compiled), &one, generate)?.remove(0);
    columns.push(("steered", "with steering", usual, with));
    if columns.iter().any(|(.., made)| prompt.len() + made.n_tokens > engine.options().context) {
        super::full(engine, "a text ends there", out);
    }
    if out.json() {
        let mut all = json!({"prompt": args.prompt, "steering": choice.json()});
        for (name, _, usual, made) in &columns {
            all[name] = text_json(made, *usual);
        }
        return out.object(&all);
    }
    if !choice.chosen.is_empty() {
        features_table(&choice.chosen, out)?;
        let (strength, wish) = (choice.strength.unwrap_or_default(), &args.wanted.wish);
        out.line(format!("{} at {strength:.3}, unit {:?}\n", wish.op.name(), wish.unit).to_lowercase())?;
    }
    out.line(format!("prompt: {}", args.prompt.as_deref().unwrap_or_default()))?;
    out.table(
        &columns.iter().map(|(_, title, ..)| *title).collect::<Vec<_>>(),
        [
            columns.iter().map(|(.., made)| made.text.trim().to_owned()).collect(),
            columns.iter().map(|(.., usual, made)| made.fluency(*usual).describe()).collect(),
        ],
    )
}

/// A text and whether it is whole, for `--json`.
fn text_json(made: &Continuation, usual: Option<f64>) -> serde_json::Value {
    let fluency = made.fluency(usual);
    json!({
        "text": made.text, "tokens": made.n_tokens, "perplexity": made.perplexity(),
        "distinct_2": fluency.distinct_2(), "longest_repeat": fluency.longest_repeat,
        "broken": fluency.broken().map(Broken::name),
    })
}
