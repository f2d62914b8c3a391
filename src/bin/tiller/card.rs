//! `tiller card`: what a plan does, what else it does, what it costs, and a verdict, on one page.

use clap::Args as Clap;
use std::io::Write;
use std::path::PathBuf;
use tiller::eval::card::{self, Named, Report, Request};
use tiller::eval::trial;
use tiller::file::write_atomic;
use tiller::{Error, Result};

use crate::open::{Context, Machine};
use crate::output::Out;
use crate::paths::check_outputs;
use crate::plan::named_dictionary;

/// The page that is written where nobody names one.
const PAGE: &str = "card.html";

/// Measure a plan and write its steering card: effect, side effects, cost and a verdict on one page
#[derive(Clap)]
pub(crate) struct Args {
    /// A plan, a file of learned features, or a control vector
    plan: PathBuf,
    /// The model
    model: PathBuf,
    /// A dictionary that the plan names: FILE, or NAME=FILE where there are several
    #[arg(long, value_name = "[NAME=]FILE")]
    dictionary: Vec<String>,
    /// What the features of each dictionary mean, in order; by default the file beside it that ends in .jsonl
    #[arg(long, value_name = "FILE")]
    explanations: Vec<PathBuf>,
    /// What the plan is meant to make the model speak of: the effect is then counted in words
    #[arg(long, value_name = "WORDS")]
    words: Option<String>,
    /// Other words of the same thing, which score texts; by default those of the built-in concept that --words names
    #[arg(long, value_name = "WORDS", requires = "words")]
    held_out: Option<String>,
    /// What the model is told where it is asked for the same; by default what was learned, or "Talk about WORDS"
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Prompts are users' messages in the chat template; by default for instructions, where the model has one
    #[arg(long, conflicts_with = "plain")]
    chat: bool,
    /// Prompts are beginnings of texts
    #[arg(long)]
    plain: bool,
    /// Prompts in place of tiller's own, one a line
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Multiplies the plan's strengths
    #[arg(long, default_value_t = 1.0, value_name = "S", allow_negative_numbers = true)]
    factor: f32,
    /// Texts with the plan, and without
    #[arg(long, default_value_t = Request::default().texts, value_name = "N")]
    texts: usize,
    /// Tokens of a text, at most
    #[arg(long, default_value_t = Request::default().max_tokens, value_name = "N")]
    max_tokens: usize,
    /// Random directions that the plan is held against
    #[arg(long, default_value_t = Request::default().directions, value_name = "N")]
    directions: usize,
    /// Multiples of the plan that are tried besides
    #[arg(long, value_delimiter = ',', value_name = "S,…", default_values_t = Request::default().doses)]
    doses: Vec<f32>,
    /// Questions in place of tiller's own: {"question": …, "choices": […], "answer": 0} a line
    #[arg(long, value_name = "FILE.jsonl")]
    questions: Option<PathBuf>,
    /// What is known of single features, such as which are universal: {"feature": 7, …} a line
    #[arg(long, value_name = "FILE.jsonl")]
    labels: Option<PathBuf>,
    /// A temporal model on the plan's dictionary: also compare what it predicts for later tokens with what is seen
    #[arg(long, value_name = "FILE")]
    temporal: Option<PathBuf>,
    /// Where to write the page [default: card.html; with --json none]
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// Draws the random directions and the intervals
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    machine: Machine,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let page = args.out.clone().or_else(|| (!out.json()).then(|| PathBuf::from(PAGE)));
    let request = request(args)?;
    let dictionaries: Vec<PathBuf> = request.dictionaries.iter().map(|named| named.file.clone()).collect();
    let files = [&args.plan, &args.model].into_iter().chain(&args.explanations).chain(&dictionaries);
    let files = files.chain(&args.prompts).chain(&args.questions).chain(&args.labels).chain(&args.temporal);
    check_outputs(&page, files)?;
    request.check()?;
    let mut engine = args.context.engine(&args.model, &args.machine, trial::SEQUENCES, out)?;
    let mut bar = out.bar("card", "texts");
    let made = card::card(&mut engine, &request, &mut |step| bar.step(step))?;
    drop(bar);
    if let Some(path) = &page {
        let text = made.page();
        write_atomic(path, |file| file.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e)))?;
    }
    if out.json() {
        return out.object(&made);
    }
    show(&made, out)?;
    page.iter().for_each(|path| out.note(format!("wrote {}", path.display())));
    Ok(())
}

fn request(args: &Args) -> Result<Request> {
    if args.explanations.len() > args.dictionary.len() {
        return Err(Error::argument("--explanations says what the features of --dictionary mean: give both"));
    }
    let dictionaries = args.dictionary.iter().enumerate().map(|(i, text)| {
        let (name, file) = named_dictionary(text);
        Named { name, file: file.to_owned(), explanations: args.explanations.get(i).cloned() }
    });
    let words = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        text.split([' ', ',', '\t', '\n']).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let prompts = args.prompts.as_deref().map(|path| tiller::file::read_text(path, 1 << 20)).transpose()?;
    let prompts = prompts.unwrap_or_default();
    Ok(Request {
        plan: args.plan.clone(),
        factor: args.factor,
        dictionaries: dictionaries.collect(),
        words: words(&args.words),
        held_out: words(&args.held_out),
        instruction: args.instruction.clone(),
        chat: (args.chat || args.plain).then_some(args.chat),
        prompts: prompts.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        texts: args.texts,
        max_tokens: args.max_tokens,
        directions: args.directions,
        doses: args.doses.clone(),
        questions: args.questions.clone(),
        labels: args.labels.clone(),
        temporal: args.temporal.clone(),
        seed: args.seed,
        command: command(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned())),
        ..Request::default()
    })
}

/// The command line as a shell takes it.
fn command(mut args: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    let quoted = |arg: String| match !arg.is_empty() && arg.chars().all(plain) {
        true => arg,
        false => format!("'{}'", arg.replace('\'', "'\\''")),
    };
    // Where the program lies is of no matter.
    args.next();
    std::iter::once("tiller".to_owned()).chain(args.map(quoted)).collect::<Vec<_>>().join(" ")
}

/// The verdict and its numbers.
fn show(made: &Report, out: &Out) -> Result<()> {
    out.line(format!("{}: {}", made.title, made.verdict.word.name()))?;
    out.line(made.verdict.sentence())?;
    let row = |check: &card::Check| {
        let value = check.value.map_or_else(|| "not measured".into(), |value| format!("{value:.3}"));
        let side = if check.above { "above" } else { "below" };
        let holds = if check.holds() { "yes" } else { "" };
        vec![
            check.word.name().to_owned(),
            check.what.clone(),
            value,
            format!("{side} {}", check.threshold),
            holds.into(),
        ]
    };
    out.table(&["word", "number", "measured", "holds if", ""], made.verdict.checks.iter().map(row))?;
    made.notes.iter().for_each(|note| out.note(format!("note: {note}")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_one_that_a_shell_takes() {
        let args = ["/usr/bin/tiller", "card", "a b.json", "m.gguf", "--words", "it's", "--out", "x.html", ""];
        let text = command(args.map(String::from).into_iter());
        assert_eq!(text, "tiller card 'a b.json' m.gguf --words 'it'\\''s' --out x.html ''");
    }
}
