//! `tiller run`: text from a model, steered or not, or both side by side.

use clap::Args as Clap;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::dictionary::Dictionary;
use tiller::engine::{Document, Engine, Generate, Generation, Message, Stop};
use tiller::eval::concepts::{Continuation, hits};
use tiller::eval::fluency::Broken;
use tiller::eval::trial::{self, Comparison};
use tiller::explain::Match;
use tiller::hook::Ledger;
use tiller::model::Model;
use tiller::plan::{Compiled, Op, Plan, Route};
use tiller::progress::Step;
use tiller::{Error, Result};

use crate::fetch::cache_dir;
use crate::open::{self, Context, Machine, Sampling, Strict, Texts, Wish, feature_json, features_table, instruction};
use crate::output::Out;
use crate::plan::named_dictionary;

/// Generate text, steered by a plan or by a concept in words
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// What the model goes on from; control tokens such as <|im_start|> are read as such
    #[arg(long, value_name = "TEXT", required_unless_present = "prompts")]
    prompt: Option<String>,
    /// Go on from every document of these files, side by side, and write documents, a line of JSON each: a "text" with its
    /// continuation, "messages" up to the last user's with an answer. Control tokens that are spelled in them stay text
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with_all = ["prompt", "compare", "chat"])]
    prompts: Vec<PathBuf>,
    /// A dictionary: FILE, or NAME=FILE if the plan names several
    #[arg(long, value_name = "[NAME=]FILE")]
    dictionary: Vec<String>,
    /// What to do to the residual stream
    #[arg(long, value_name = "FILE", conflicts_with = "words")]
    plan: Option<PathBuf>,
    /// Do this: learned features (FILE) or an instruction, which is learned at its first use and kept; :S multiplies its strength
    #[arg(long, value_name = "FILE|TEXT[:S]", conflicts_with_all = ["plan", "words", "dictionary"])]
    steer: Vec<String>,
    /// Turn against this; as --steer
    #[arg(long, value_name = "FILE|TEXT[:S]", conflicts_with_all = ["plan", "words", "dictionary"])]
    avoid: Vec<String>,
    #[command(flatten)]
    wish: Wish,
    /// How strongly, in the unit; auto searches the strength that speaks most of the words and stays fluent
    #[arg(long, default_value = "auto", value_name = "S|auto", allow_negative_numbers = true)]
    strength: String,
    /// Write the plan down, with the features and the strength that were chosen: give it to --plan, and nothing is searched
    #[arg(long, value_name = "FILE")]
    save_plan: Option<PathBuf>,
    /// Write the prompt as a user's message in the model's chat template, where all of it is text
    #[arg(long)]
    chat: bool,
    /// Show the text without and with the plan, side by side
    #[arg(long)]
    compare: bool,
    /// Beside them, what the model writes when it is simply asked in the prompt: "Talk about WORDS.", or this TEXT
    #[arg(long, value_name = "TEXT", num_args = 0..=1, require_equals = true, requires = "compare")]
    asked: Option<Option<String>>,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 100, value_name = "N")]
    max_tokens: usize,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    machine: Machine,
}

/// What steers, and where it came from.
struct Lever {
    plan: Plan,
    compiled: Arc<Compiled>,
    matches: Vec<Match>,
    strength: Option<f32>,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let mut engine = args.context.engine(&args.model, &args.machine, trial::SEQUENCES, out)?;
    let generate = generate(args);
    // What cannot be read is told before features are chosen, which takes its time.
    let Some(prompt) = &args.prompt else {
        let documents = Texts::read(&args.prompts, args.strict, out)?.usable(&mut |document| {
            engine.check_prompt(&engine.prompt_tokens(&asked(document))?, generate.max_tokens)
        })?;
        let lever = lever(args, &mut engine, out)?;
        engine.set_plan(lever.map(|lever| lever.compiled))?;
        return many(&mut engine, &documents, &generate, out);
    };
    let prompt = prompt_tokens(args, &engine, prompt)?;
    engine.check_prompt(&prompt, generate.max_tokens).map_err(|e| e.context("--prompt"))?;
    let lever = lever(args, &mut engine, out)?;
    if let (Some(path), Some(lever)) = (&args.save_plan, &lever) {
        lever.plan.save(path)?;
        out.note(format!("wrote {}", path.display()));
    }
    if args.compare {
        return compare(args, &mut engine, &prompt, &generate, lever.as_ref(), out);
    }
    if let Some(lever) = &lever {
        engine.set_plan(Some(lever.compiled.clone()))?;
    }
    let made = write(&mut engine, &prompt, &generate, !out.json(), out)?;
    let ledger = engine.finish();
    if out.json() {
        out.object(&json!({
            "prompt": args.prompt, "text": made.text(), "tokens": made.tokens().len(), "stop": made.stop().map(Stop::name),
            "steering": lever.as_ref().map(Lever::json),
            "ledger": recorded(&ledger),
        }))?;
    } else {
        out.line("")?;
    }
    ledger.ok().map_err(|e| e.context("the text above is not what the plan says"))?;
    match made.stop() {
        Some(Stop::Caller) => Err(Error::cancelled().hinted("what was written is above")),
        Some(Stop::Context) => {
            full(&engine, "the text ends here", out);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Says that the context was full.
fn full(engine: &Engine, what: &str, out: &Out) {
    let context = engine.options().context;
    out.note(format!("note: the context of {context} tokens is full; {what}. A larger one: --context N"));
}

/// Goes on from every document, and writes documents.
fn many(engine: &mut Engine, documents: &[Document], generate: &Generate, out: &Out) -> Result<()> {
    let mut bar = out.bar("prompts", "prompts");
    let (mut generate, mut n_full, mut n_written) = (generate.clone(), 0, 0);
    for (done, wave) in (0..).step_by(trial::SEQUENCES).zip(documents.chunks(trial::SEQUENCES)) {
        let asked: Vec<Document> = wave.iter().map(asked).collect();
        let prompts = asked.iter().map(|document| engine.prompt_tokens(document)).collect::<Result<Vec<_>>>()?;
        let step = Step { done, total: documents.len() as u64, note: "" };
        let generations = engine.generate_while(&prompts, &generate, &mut || bar.step(step))?;
        // Of a wave that was stopped, what had ended by itself is whole.
        let whole = asked.into_iter().zip(&generations).filter(|(_, made)| made.stop() != Some(Stop::Caller));
        for (document, made) in whole {
            out.object(&continued(document, made))?;
            n_full += usize::from(made.stop() == Some(Stop::Context));
            n_written += 1;
        }
        let all = documents.len();
        if n_written < all && crate::interrupt::asked() {
            return Err(Error::cancelled().hinted(format!("{n_written} of {all} documents were written, each whole")));
        }
        generate.seed = generate.seed.wrapping_add(trial::SEQUENCES as u32);
    }
    drop(bar);
    if n_full > 0 {
        full(engine, &format!("{n_full} of {n_written} texts end there, with \"stop\": \"context\""), out);
    }
    engine.finish().ok().map_err(|e| e.context("the texts are not what the plan says"))?;
    Ok(())
}

/// What the hook saw and did, for `--json`.
fn recorded(ledger: &Ledger) -> serde_json::Value {
    let rules = ledger.rules.iter().map(|rule| {
        let unjudged: serde_json::Map<_, _> =
            rule.unjudged_rows().map(|(why, n)| (why.name().to_owned(), json!(n))).collect();
        let edited = rule.rows;
        json!({
            "rows": edited, "mean_code": rule.mean_code(), "relative_size": rule.relative_size(), "unjudged": unjudged,
        })
    });
    let faults = ledger.faults.iter().map(|fault| json!({"what": fault.what, "count": fault.count}));
    json!({
        "graphs": ledger.graphs, "rows_seen": ledger.rows_seen, "rows_edited": ledger.rows_edited,
        "rows_not_needed": ledger.rows_not_needed, "rows_refused": ledger.rows_refused,
        "rows_restored": ledger.rows_restored, "rules": rules.collect::<Vec<_>>(), "faults": faults.collect::<Vec<_>>(),
    })
}

/// A document with what the model made of it.
fn continued(document: Document, made: &Generation) -> serde_json::Value {
    let stop = made.stop().map(Stop::name);
    match document {
        Document::Text(text) => json!({"text": text + made.text(), "stop": stop}),
        Document::Chat(mut messages) => {
            messages.push(Message::assistant(made.text()));
            json!({"messages": messages, "stop": stop})
        }
    }
}

/// What a document asks: a conversation without what comes after the last user's message.
fn asked(document: &Document) -> Document {
    match document {
        Document::Text(text) => Document::Text(text.clone()),
        Document::Chat(messages) => {
            let n = messages.iter().rposition(|m| m.role == "user").map_or(messages.len(), |last| last + 1);
            Document::Chat(messages.iter().take(n).cloned().collect())
        }
    }
}

/// Generates; streams to standard output if `show`.
fn write(engine: &mut Engine, prompt: &[i32], generate: &Generate, show: bool, out: &Out) -> Result<Generation> {
    let mut failed = Ok(());
    let generation = engine.generate_tokens(prompt, generate, &mut |piece| {
        if show {
            failed = out.text(piece);
        }
        failed.is_ok() && !crate::interrupt::asked()
    })?;
    failed?;
    Ok(generation)
}

/// The plan that the arguments ask for, if any.
fn lever(args: &Args, engine: &mut Engine, out: &Out) -> Result<Option<Lever>> {
    if !(args.steer.is_empty() && args.avoid.is_empty()) {
        let steering = crate::steer::resolve(engine, &args.steer, &args.avoid, out)?;
        let compiled = steering.compile(engine)?;
        return Ok(Some(Lever { plan: steering.plan, compiled, matches: Vec::new(), strength: None }));
    }
    let given = args.dictionary.iter().map(|text| named_dictionary(text));
    let given_strength = match args.strength.as_str() {
        "auto" => None,
        text => {
            let number = text.parse().ok().filter(|s: &f32| s.is_finite());
            let wrong = || Error::argument(format!("--strength: expected a number or auto, found {text:?}"));
            Some(number.ok_or_else(wrong)?)
        }
    };
    let mut dictionaries = Vec::new();
    if args.plan.is_none() && args.wish.words.is_none() {
        return match args.dictionary.first() {
            Some(_) => Err(Error::argument("--dictionary alone steers nothing: add --words or --plan")),
            None => Ok(None),
        };
    }
    let model = Model::open(&args.model)?;
    for (name, path) in given {
        dictionaries.push((name, open::dictionary(path, &model, out)?));
    }
    let named: Vec<(&str, Arc<Dictionary>)> = dictionaries.iter().map(|(name, d)| (name.as_str(), d.clone())).collect();
    let target = engine.target();
    let compile = |plan: &Plan| Ok(Arc::new(plan.compile(&named, &target, Route::Auto)?));
    if let Some(path) = &args.plan {
        let plan = Plan::open(path)?;
        let compiled = compile(&plan)?;
        return Ok(Some(Lever { plan, compiled, matches: Vec::new(), strength: None }));
    }
    let [(_, path)] = args.dictionary.iter().map(|text| named_dictionary(text)).collect::<Vec<_>>()[..] else {
        return Err(Error::argument("--words needs one --dictionary FILE"));
    };
    let dictionary = named.first().map(|(_, dictionary)| dictionary);
    let kept = Kept::of(args, &model, path)?;
    let known = if given_strength.is_none() { kept.read() } else { None };
    let (matches, strength) = match (known, given_strength) {
        (Some(known), _) => known,
        (None, Some(strength)) => (args.wish.choose(Some(path), dictionary, Some(&mut *engine), out)?, strength),
        (None, None) => {
            let matches = args.wish.choose(Some(path), dictionary, Some(&mut *engine), out)?;
            let strength = match args.wish.op {
                Op::Ablate => 0.0,
                _ => search(args, engine, &matches, &compile, out)?,
            };
            if let Err(error) = kept.write(&matches, strength) {
                out.note(format!("warning: {}; the search is not kept", error.message()));
            }
            (matches, strength)
        }
    };
    let plan = args.wish.plan(&matches, strength);
    let compiled = compile(&plan)?;
    let strength = (args.wish.op != Op::Ablate).then_some(strength);
    Ok(Some(Lever { plan, compiled, matches, strength }))
}

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

/// The strength at which the model speaks most (or least) of the words and writes whole texts: on the user's prompt, in the
/// user's template and sampling; beside them the same prompt sampled, and neutral ones, so that one text is not all.
fn search(
    args: &Args,
    engine: &mut Engine,
    matches: &[Match],
    compile: &dyn Fn(&Plan) -> Result<Arc<Compiled>>,
    out: &Out,
) -> Result<f32> {
    let words = args.wish.words.as_deref().unwrap_or_default();
    let (search, strength) = args.wish.search();
    let wanted = trial::wanted(words, matches);
    let own = Generate { max_tokens: args.max_tokens.min(OWN_TOKENS), ..generate(args) };
    let [_, sampled] = trial::drafts(args.max_tokens.min(SAMPLED_TOKENS));
    let neutral = if args.chat {
        MESSAGES.iter().map(|text| prompt_tokens(args, engine, text)).collect::<Result<Vec<_>>>()?
    } else {
        trial::PROMPTS.iter().take(4).map(|text| engine.tokenize(text, true)).collect::<Result<Vec<_>>>()?
    };
    let mut sets = Vec::new();
    let mut more = neutral;
    if let Some(prompt) = &args.prompt {
        let prompt = prompt_tokens(args, engine, prompt)?;
        more.extend(vec![prompt.clone(); SAMPLED]);
        sets.push((vec![prompt], own));
    }
    sets.push((more, sampled));
    let mut bar = out.bar("strength", "trials");
    let texts = Comparison::of(engine, sets)?;
    let spoken = texts.unsteered().iter().any(|text| hits(&text.text, &wanted) > 0);
    let plan = |t| compile(&args.wish.plan(matches, strength(t)));
    let found = texts.search(engine, &search, &wanted, &plan, &mut |step| bar.step(step))?;
    drop(bar);
    if search.suppress && !spoken {
        out.note(format!("warning: without steering no text speaks of {words:?}: the strength could not be measured"));
        return Ok(strength(search.strengths.last().copied().unwrap_or(1.0)));
    }
    match found.best {
        Some(best) if search.suppress || best.effect.gain >= LEAST_GAIN => Ok(strength(best.strength)),
        _ => {
            let what = format!(
                "at no strength that leaves the texts whole do these features make the model speak of {words:?}"
            );
            let hint = format!("{}; or give a strength: --strength 1", open::learn_it(words, Some(&args.model)));
            features_table(matches, out)?;
            Err(Error::unsupported(what).hinted(hint))
        }
    }
}

/// How the user wants text written.
fn generate(args: &Args) -> Generate {
    args.sampling.generate(args.chat, args.max_tokens)
}

/// What was chosen and searched before for the same model, files, words, operator, prompt and sampling.
struct Kept {
    /// None where there is no place for it.
    path: Option<PathBuf>,
}

/// Changes with what a search does.
const SEARCH_VERSION: u32 = 1;

impl Kept {
    fn of(args: &Args, model: &Model, dictionary: &Path) -> Result<Self> {
        let mut hash = Sha256::new();
        let explanations = args.wish.explanations.clone().unwrap_or_else(|| dictionary.with_extension("jsonl"));
        for file in [dictionary, &explanations] {
            hash.update(mark(file)?);
        }
        let (wish, how) = (&args.wish, generate(args));
        let all = format!(
            "{SEARCH_VERSION} {} {} {:?} {} {:?} {:?} {} {:?} {} {how:?}",
            env!("CARGO_PKG_VERSION"),
            model.fingerprint(),
            wish.words,
            wish.features,
            wish.rank,
            wish.unit,
            wish.op.name(),
            args.prompt,
            args.chat
        );
        hash.update(all);
        let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path: cache_dir().ok().map(|cache| cache.join("chosen").join(format!("{name}.json"))) })
    }

    /// None if there is none, or it cannot be read: then it is made anew.
    fn read(&self) -> Option<(Vec<Match>, f32)> {
        serde_json::from_str(&tiller::file::read_text(self.path.as_ref()?, 1 << 20).ok()?).ok()
    }

    fn write(&self, matches: &[Match], strength: f32) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))?;
        }
        let text = serde_json::to_string(&(matches, strength)).unwrap_or_default();
        tiller::file::write_atomic(path, |file| {
            file.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e))
        })
    }
}

/// What tells a file from others: what it holds; of a large one, its size and when it was written.
fn mark(path: &Path) -> Result<Vec<u8>> {
    const LARGE: u64 = 64 << 20;
    let wrong = |e| Error::io("read", path, e);
    let about = std::fs::metadata(path).map_err(wrong)?;
    if about.is_file() && about.len() <= LARGE {
        return Ok(Sha256::digest(tiller::file::read(path, LARGE)?).to_vec());
    }
    Ok(format!("{} {} {:?}", path.display(), about.len(), about.modified().ok()).into_bytes())
}

impl Lever {
    fn json(&self) -> serde_json::Value {
        let features: Vec<_> = self.matches.iter().map(feature_json).collect();
        json!({"features": features, "strength": self.strength, "plan": self.plan, "fingerprint": self.compiled.fingerprint})
    }
}

/// The tokens of a prompt, in the chat template if that is wanted.
fn prompt_tokens(args: &Args, engine: &Engine, prompt: &str) -> Result<Vec<i32>> {
    if args.chat { engine.chat_tokens(&[Message::user(prompt)], true) } else { engine.tokenize(prompt, true) }
}

/// The prompt with an instruction: behind a user's message, or as a line in front of a text.
fn asked_tokens(args: &Args, engine: &Engine, text: Option<&str>) -> Result<Vec<i32>> {
    let prompt = args.prompt.as_deref().unwrap_or_default();
    let instruction = match (text, &args.wish.words) {
        (Some(text), _) => text.to_owned(),
        (None, Some(words)) => instruction(words),
        (None, None) => return Err(Error::argument("--asked: a plan has no words to ask for: give --asked=TEXT")),
    };
    prompt_tokens(
        args,
        engine,
        &if args.chat { format!("{prompt} {instruction}") } else { format!("{instruction}\n{prompt}") },
    )
}

/// The same prompt without and with the plan, and asked for the same.
fn compare(
    args: &Args,
    engine: &mut Engine,
    prompt: &[i32],
    generate: &Generate,
    lever: Option<&Lever>,
    out: &Out,
) -> Result<()> {
    let Some(lever) = lever else { return Err(Error::argument("--compare needs --steer, --words or --plan")) };
    let one = [prompt.to_vec()];
    let without = trial::write(engine, None, &one, generate)?.remove(0);
    let usual = Some(without.perplexity());
    let mut columns = vec![("unsteered", "without steering", None, without)];
    if let Some(text) = &args.asked {
        let with = asked_tokens(args, engine, text.as_deref())?;
        let made = engine.generate_tokens(&with, generate, &mut |_| !crate::interrupt::asked())?;
        columns.push(("asked", "asked in the prompt", usual, trial::judge(engine, prompt, &made)?));
    }
    let with = trial::write(engine, Some(&lever.compiled), &one, generate)?.remove(0);
    columns.push(("steered", "with steering", usual, with));
    if columns.iter().any(|(.., made)| prompt.len() + made.n_tokens > engine.options().context) {
        full(engine, "a text ends there", out);
    }
    if out.json() {
        let mut all = json!({"prompt": args.prompt, "steering": lever.json()});
        for (name, _, usual, made) in &columns {
            all[name] = text_json(made, *usual);
        }
        return out.object(&all);
    }
    if !lever.matches.is_empty() {
        features_table(&lever.matches, out)?;
        let strength = lever.strength.unwrap_or_default();
        out.line(format!("{} at {strength:.3}, unit {:?}\n", args.wish.op.name(), args.wish.unit).to_lowercase())?;
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
