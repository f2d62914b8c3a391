//! `tiller chat`: several turns with a model that stays loaded, steered as one goes.
//!
//! The cache is kept between turns ([`Engine::reply`] says which rows): a turn computes what is new. A change of what
//! steers, or of the system message, makes the next turn read the conversation anew, so that an answer never depends on what
//! steered before.
//!
//! Without a terminal, lines come in and answers go out as plain text; with `--json` each turn is an object.

mod input;
mod lever;

use clap::Args as Clap;
use serde_json::json;
use std::path::{Path, PathBuf};
use tiller::engine::{Conversation, Engine, Generate, Reply, Stop};
use tiller::eval::trial::SEQUENCES;
use tiller::{Error, Result};

use crate::open::{Context, Machine, Sampling};
use crate::output::{self, Out};
use crate::why;
use input::Input;
use lever::Lever;

/// Talk with a model, steered or not
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// A dictionary: FILE, or NAME=FILE if the plan names several
    #[arg(long, value_name = "[NAME=]FILE")]
    dictionary: Vec<String>,
    /// What to do to the residual stream
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Do what an instruction says ("talk about the sea"), which is learned at its first use; or steer by a file: learned
    /// features, a control vector, a plan. A factor of the strength may stand behind a colon
    #[arg(long, value_name = "TEXT|FILE[:S]")]
    steer: Vec<String>,
    /// Turn against an instruction, learned features or a control vector
    #[arg(long, value_name = "TEXT|FILE[:S]")]
    avoid: Vec<String>,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of an answer at most
    #[arg(long, default_value_t = 300, value_name = "N")]
    max_tokens: usize,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    machine: Machine,
}

/// A chat under way.
struct Chat<'a> {
    engine: Engine,
    lever: Lever,
    talk: Conversation,
    generate: Generate,
    /// Turns so far.
    turns: u32,
    out: &'a Out,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let engine = args.context.engine(&args.model, &args.machine, SEQUENCES, out)?;
    let generate = args.sampling.generate(true, args.max_tokens);
    let lever = Lever::open(&args.model, &args.dictionary, out)?;
    let mut chat = Chat { engine, lever, talk: Conversation::new(), generate, turns: 0, out };
    chat.talk.set_system(args.system.as_deref());
    // A model without a template is told before the first line.
    chat.engine.conversation_tokens(&chat.talk.clone().with("Hello"))?;
    if let Some(path) = &args.plan {
        chat.lever.load(path, &chat.engine)?;
    }
    for (requests, avoid) in [(&args.steer, false), (&args.avoid, true)] {
        requests.iter().try_for_each(|text| chat.lever.add(text, avoid, &mut chat.engine, out))?;
    }
    chat.steer()?;
    let mut input = Input::open()?;
    if input.is_terminal() {
        out.note("/help lists the commands; Ctrl-C ends an answer, Ctrl-D the chat");
        chat.tell_steering();
    }
    let mut failed = 0;
    while let Some(line) = input.line()? {
        // Ctrl-C between two answers ends none.
        if crate::interrupt::asked() {
            crate::interrupt::forget();
        }
        match chat.take(&line) {
            Ok(Next::Line) => {}
            Ok(Next::End) => break,
            Err(error) if output::is_broken_pipe(&error) => return Err(error),
            // A line that fails ends nothing.
            Err(error) => {
                output::tell(&error);
                failed += 1;
            }
        }
    }
    match failed {
        1.. if !input.is_terminal() => Err(Error::unsupported(format!("{failed} lines could not be done"))
            .hinted("each was told above, where it failed")),
        _ => Ok(()),
    }
}

/// What comes after a line.
enum Next {
    Line,
    End,
}

const HELP: [(&str, &str); 10] = [
    ("/steer TEXT|FILE[:S]", "steer by an instruction or a file as well; /steer off ends all steering"),
    ("/avoid TEXT|FILE[:S]", "turn against it"),
    ("/strength S", "multiply the strength of all that steers"),
    ("/plan [FILE]", "show what steers as a plan, or steer by a plan alone"),
    ("/compare", "the last turn once more, without and with steering"),
    ("/why", "on which tokens of the last turn the features that steer are active"),
    ("/system [TEXT]", "tell the model TEXT before the conversation, or nothing"),
    ("/reset", "forget the conversation"),
    ("/help", "these commands"),
    ("/quit", "end the chat (Ctrl-D)"),
];

impl Chat<'_> {
    fn take(&mut self, line: &str) -> Result<Next> {
        let Some(command) = line.strip_prefix('/') else { return self.say(line).map(|()| Next::Line) };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("quit" | "exit", _) => return Ok(Next::End),
            ("help", _) => self.help()?,
            ("steer", "") => self.tell_steering(),
            ("steer", "off") => {
                self.lever.clear();
                self.steer()?;
                self.tell_steering();
            }
            ("steer" | "avoid", _) => {
                let added = self.lever.add(rest, name == "avoid", &mut self.engine, self.out);
                self.steer()?;
                added?;
                self.tell_steering();
            }
            ("strength", _) => self.strength(rest)?,
            ("plan", "") => self.show_plan()?,
            ("plan", file) => {
                self.lever.load(Path::new(file), &self.engine)?;
                self.steer()?;
                self.tell_steering();
            }
            ("compare", _) => self.compare()?,
            ("why", _) => self.why()?,
            ("system", _) => {
                self.talk.set_system(Some(rest).filter(|text| !text.is_empty()));
                self.out.note(if rest.is_empty() { "no system message" } else { "the system message is set" });
            }
            ("reset", _) => {
                self.talk.reset();
                self.out.note("the conversation is forgotten; what steers stays");
            }
            _ => {
                return Err(Error::argument(format!("/{name} is no command")).hinted("/help lists the commands"));
            }
        }
        Ok(Next::Line)
    }

    /// One turn.
    fn say(&mut self, message: &str) -> Result<()> {
        let generate = self.generate();
        let (out, mut failed) = (self.out, Ok(()));
        let reply = self.engine.reply(&mut self.talk, message, &generate, &mut |piece| {
            if !out.json() {
                failed = out.text(piece);
            }
            failed.is_ok() && !crate::interrupt::asked()
        });
        failed?;
        let reply = reply?;
        self.turns += 1;
        if out.json() {
            out.object(&self.turn(message, &reply))?;
        } else {
            out.line("")?;
        }
        if reply.dropped > 0 {
            let (n, context) = (reply.dropped, self.engine.options().context);
            out.note(format!("note: the context of {context} tokens was full: the oldest {n} messages are forgotten"));
        }
        match reply.generation.stop() {
            Some(Stop::Caller) => out.note("note: the answer was stopped"),
            Some(Stop::Verdict) => out.note("note: a verdict of the plan ended the answer"),
            Some(Stop::Length) => {
                out.note(format!("note: the answer was cut after {} tokens; --max-tokens N", generate.max_tokens));
            }
            Some(Stop::Context) => {
                out.note("note: the context is full; the answer ends here. A larger one: --context N")
            }
            _ => {}
        }
        self.engine.finish().ok().map_err(|e| e.context("the answer is not what the plan says"))?;
        Ok(())
    }

    /// How this turn is sampled.
    fn generate(&self) -> Generate {
        Generate { seed: self.generate.seed.wrapping_add(self.turns), ..self.generate.clone() }
    }

    fn turn(&self, message: &str, reply: &Reply) -> serde_json::Value {
        let made = &reply.generation;
        json!({
            "turn": self.turns, "user": message, "text": made.text(), "tokens": made.tokens().len(),
            "stop": made.stop().map(Stop::name), "prompt_tokens": made.prompt().len(), "read": reply.read(),
            "dropped": reply.dropped, "steering": self.lever.parts(), "strength": self.lever.strength,
        })
    }

    /// Puts what steers in force.
    fn steer(&mut self) -> Result<()> {
        let compiled = self.lever.compile(&self.engine)?;
        for warning in compiled.iter().flat_map(|plan| &plan.warnings) {
            self.out.note(format!("warning: {warning}"));
        }
        self.engine.set_plan(compiled)
    }

    fn tell_steering(&self) {
        let (parts, strength) = (self.lever.parts(), self.lever.strength);
        let times = if strength == 1.0 { String::new() } else { format!(", {strength} times as strongly") };
        self.out.note(match parts.as_slice() {
            [] => "nothing steers".to_owned(),
            some => format!("steering: {}{times}", some.join("; ")),
        });
    }

    fn strength(&mut self, text: &str) -> Result<()> {
        let number = text.parse().ok().filter(|s: &f32| s.is_finite());
        let before = self.lever.strength;
        self.lever.strength =
            number.ok_or_else(|| Error::argument(format!("/strength: expected a number, found {text:?}")))?;
        self.steer().inspect_err(|_| self.lever.strength = before)?;
        self.tell_steering();
        Ok(())
    }

    fn show_plan(&self) -> Result<()> {
        let plan = self.lever.plan();
        let named = self.lever.named();
        if self.out.json() {
            let files: serde_json::Map<_, _> =
                named.iter().map(|(name, path)| ((*name).to_owned(), json!(path))).collect();
            return self.out.object(&json!({"plan": plan, "dictionaries": files, "steering": self.lever.parts()}));
        }
        self.out.text(plan.to_json())?;
        named.iter().for_each(|(name, path)| self.out.note(format!("--dictionary {name}={}", path.display())));
        Ok(())
    }

    /// The last turn once more, without and with steering, from the same seed.
    fn compare(&mut self) -> Result<()> {
        let mut before = self.talk.clone();
        let message = before.take_back().ok_or_else(|| Error::argument("/compare: nothing was said yet"))?;
        let Some(plan) = self.engine.plan().cloned() else {
            return Err(Error::argument("/compare: nothing steers").hinted("/steer TEXT, or /plan FILE"));
        };
        let generate =
            Generate { seed: self.generate.seed.wrapping_add(self.turns.saturating_sub(1)), ..self.generate() };
        let mut both = Vec::with_capacity(2);
        for steered in [false, true] {
            self.engine.set_plan(steered.then(|| plan.clone()))?;
            let made = self.engine.reply(&mut before.clone(), &message, &generate, &mut |_| !crate::interrupt::asked());
            self.engine.set_plan(Some(plan.clone()))?;
            both.push(made?.generation);
        }
        self.engine.finish().ok().map_err(|e| e.context("the text is not what the plan says"))?;
        // Both are judged without steering.
        self.engine.set_plan(None)?;
        let judged: Result<Vec<f64>> = both
            .iter()
            .map(|made| match made.tokens() {
                [] => Ok(f64::NAN),
                tokens => {
                    let all = [made.prompt(), tokens].concat();
                    Ok(self.engine.score(&all, made.prompt().len())?.perplexity())
                }
            })
            .collect();
        self.engine.set_plan(Some(plan))?;
        let judged = judged?;
        if self.out.json() {
            let one =
                |i: usize| json!({"text": both[i].text(), "tokens": both[i].tokens().len(), "perplexity": judged[i]});
            return self.out.object(&json!({
                "command": "compare", "user": message, "unsteered": one(0), "steered": one(1),
                "steering": self.lever.parts(), "strength": self.lever.strength,
            }));
        }
        let perplexity = |p: &f64| format!("perplexity {p:.1}");
        self.out.table(
            &["without steering", "with steering"],
            [
                both.iter().map(|made| made.text().trim().to_owned()).collect(),
                judged.iter().map(perplexity).collect::<Vec<_>>(),
            ],
        )
    }

    /// The last turn, coloured by the features that steer, as they are active without steering.
    fn why(&mut self) -> Result<()> {
        let steering = self.lever.features();
        if steering.is_empty() {
            return Err(
                Error::argument("/why: no feature steers").hinted("/steer TEXT, or /plan FILE with a dictionary")
            );
        }
        let mut before = self.talk.clone();
        before.take_back().ok_or_else(|| Error::argument("/why: nothing was said yet"))?;
        let all = self.engine.conversation_tokens(&self.talk)?;
        let before = self.engine.conversation_tokens(&before)?;
        let alike = |pair: &(&i32, &i32)| pair.0 == pair.1;
        let start = all.iter().zip(&before).take_while(alike).count();
        // Without the opening of the next answer, which both end with.
        let end = all.len() - all.iter().rev().zip(before.iter().rev()).take_while(alike).count();
        let all = all.get(..end.max(start)).unwrap_or_default();
        // What one reading holds, of which the last turn is shown.
        let cut = all.len().saturating_sub(self.engine.longest());
        let window = [all.get(cut..).unwrap_or_default().to_vec()];
        let plan = self.engine.plan().cloned();
        self.engine.set_plan(None)?;
        let mut curves = Vec::new();
        let mut read = || -> Result<()> {
            for (dictionary, features) in &steering {
                curves.extend(why::curves(&mut self.engine, dictionary, features, why::Layers::Sum, &window)?);
            }
            Ok(())
        };
        let done = read();
        self.engine.set_plan(plan)?;
        done?;
        let mut shown = why::Shown::of(&self.engine, &window);
        let skip = start.saturating_sub(cut);
        shown.drop_front(skip);
        curves.iter_mut().for_each(|curve| _ = curve.values.drain(..skip));
        if self.out.json() {
            let titles: Vec<_> = curves.iter().map(why::Curve::json).collect();
            return self.out.object(&json!({"command": "why", "curves": titles, "tokens": shown.json(&curves)}));
        }
        curves.iter().try_for_each(|curve| why::show(&shown, curve, self.out))
    }

    fn help(&self) -> Result<()> {
        if self.out.json() {
            let names: Vec<&str> = HELP.iter().map(|(name, _)| *name).collect();
            return self.out.object(&json!({"command": "help", "commands": names}));
        }
        let rows: Vec<(&str, String)> = HELP.iter().map(|(name, what)| (*name, (*what).to_owned())).collect();
        self.out.facts(&rows)
    }
}
