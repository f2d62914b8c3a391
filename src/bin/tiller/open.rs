//! Options that several commands share: how a model is opened, and how a concept in words becomes a plan.

use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::dictionary::Dictionary;
use tiller::engine::{Document, Engine, Generate, Options, each_document, requantize};
use tiller::eval::concepts::Search;
use tiller::eval::output::{self, Output};
use tiller::eval::trial;
use tiller::explain::{Explanations, Match};
use tiller::file::gguf::{GgmlType, Gguf};
use tiller::model::Model;
use tiller::plan::{Feature, Op, Plan, Rule, Strength, Unit};
use tiller::{Error, Result};

use crate::fetch::cache_dir;
use crate::output::Out;

/// How a model is run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Machine {
    /// Threads; 0 takes all
    #[arg(long, default_value_t = 0, global = false)]
    pub(crate) threads: usize,
    /// Layers to run on a GPU, if this build has one
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) gpu_layers: usize,
}

impl Machine {
    /// Threads as a number.
    pub(crate) fn n_threads(&self) -> usize {
        if self.threads > 0 { self.threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }

    /// Opens a model with these options and room for `context` tokens (0: the usual) in `sequences` sequences.
    pub(crate) fn engine(&self, path: &Path, context: usize, sequences: usize) -> Result<Engine> {
        let sequences = if context > 0 { sequences.min(context) } else { sequences };
        let options =
            Options { threads: self.threads, gpu_layers: self.gpu_layers, context, sequences, ..Options::default() };
        Engine::open(path, &options)
    }
}

/// How text is sampled. What is not given is greedy, and in the chat template what small models need.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Sampling {
    /// 0 takes the likeliest token each time [default: 0.7 in the chat template, else 0]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Share of the probability that sampling keeps [default: 0.95 in the chat template, else 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep tokens that are at least this times as likely as the likeliest [default: 0.05 in the chat template, else 0]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make tokens that the answer has had lately less likely; 1 does nothing [default: 1.1 in the chat template, else 1]
    #[arg(long, value_name = "R")]
    repeat_penalty: Option<f32>,
    /// Seed of the sampler; each turn of a conversation takes the next one
    #[arg(long, default_value_t = 0)]
    seed: u32,
}

impl Sampling {
    /// With what is usual in the chat template, or outside of it.
    pub(crate) fn generate(self, chat: bool, max_tokens: usize) -> Generate {
        let usual = if chat { Generate::chat() } else { Generate::default() };
        Generate {
            max_tokens,
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(usual.repeat_penalty),
            seed: self.seed,
            ..usual
        }
    }
}

/// Says what of the options is not in force, or may surprise.
pub(crate) fn notes(engine: &Engine, out: &Out) {
    engine.notes().iter().for_each(|note| out.note(format!("note: {note}")));
}

/// How much text a model holds at once.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Context {
    /// Tokens that the context holds, prompts and answers together; 0 takes what the model was trained with, at most 4096
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) context: usize,
}

impl Context {
    /// Opens a model with this context.
    pub(crate) fn engine(self, path: &Path, machine: &Machine, sequences: usize, out: &Out) -> Result<Engine> {
        let engine = machine.engine(path, self.context, sequences)?;
        notes(&engine, out);
        Ok(engine)
    }
}

/// Bad documents that are named; of more, the number is told.
const NAMED: usize = 5;

/// Documents of files, where each starts, and what has to be left out.
pub(crate) struct Texts<'o> {
    all: Vec<(String, Document)>,
    bad: usize,
    /// Why the first one is left out.
    first: Option<Error>,
    strict: bool,
    out: &'o Out,
}

impl<'o> Texts<'o> {
    /// Reads files: see [`documents`](tiller::engine::documents). What is no document is left out; with `strict` it is an error.
    pub(crate) fn read(paths: &[PathBuf], strict: Strict, out: &'o Out) -> Result<Self> {
        let mut texts = Self { all: Vec::new(), bad: 0, first: None, strict: strict.strict, out };
        each_document(paths, &mut |path, line, document| {
            match document {
                Ok(document) if line == 0 => texts.all.push((path.display().to_string(), document)),
                Ok(document) => texts.all.push((format!("{}:{line}", path.display()), document)),
                Err(error) => texts.leave_out(error)?,
            }
            Ok(())
        })?;
        Ok(texts)
    }

    fn leave_out(&mut self, error: Error) -> Result<()> {
        if self.strict {
            return Err(error);
        }
        if self.bad < NAMED {
            self.out.note(format!("warning: {}; left out", error.message()));
        }
        self.bad += 1;
        self.first.get_or_insert(error);
        Ok(())
    }

    /// The documents that `check` accepts; if there is none, the error of the first.
    pub(crate) fn usable(mut self, check: &mut dyn FnMut(&Document) -> Result<()>) -> Result<Vec<Document>> {
        let mut good = Vec::with_capacity(self.all.len());
        for (place, document) in std::mem::take(&mut self.all) {
            match check(&document) {
                Ok(()) => good.push(document),
                Err(error) => self.leave_out(error.context(place))?,
            }
        }
        match self.first {
            Some(error) if good.is_empty() => return Err(error),
            Some(_) => {
                let n = good.len() + self.bad;
                self.out.note(format!("warning: {} of {n} documents are left out", self.bad));
            }
            None => {}
        }
        Ok(good)
    }

    /// The documents that a model can read.
    pub(crate) fn readable(self, engine: &Engine) -> Result<Vec<Document>> {
        self.usable(&mut |document| match document {
            Document::Text(_) => Ok(()),
            Document::Chat(_) => engine.document_tokens(document).map(drop),
        })
    }
}

/// What to do about documents that cannot be read.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Strict {
    /// Stop at the first document that cannot be read; otherwise it is named and left out
    #[arg(long)]
    pub(crate) strict: bool,
}

/// A copy of a model with weights of another type, made once and kept in `directory`, or in the cache folder of fetch.
pub(crate) fn requantized(
    model: &Path,
    kind: &str,
    directory: Option<&Path>,
    threads: usize,
    out: &Out,
) -> Result<PathBuf> {
    let directory = match directory {
        Some(directory) => directory.to_owned(),
        None => cache_dir()?.join("quantized"),
    };
    std::fs::create_dir_all(&directory).map_err(|e| Error::io("create", &directory, e))?;
    // Models of one name in two folders are told apart by what they hold.
    let (stem, opened) = (model.file_stem().unwrap_or_default().to_string_lossy(), Model::open(model)?);
    let mark = opened.fingerprint().get(48..).unwrap_or_default();
    let path = directory.join(format!("{stem}.{mark}.{}.gguf", kind.to_uppercase()));
    if !path.exists() {
        out.note(format!("requantizing to {kind}"));
        requantize(model, &path, kind, threads)?;
    }
    Ok(path)
}

/// The most that a copy for learning may take, on disk and in memory.
const MOST_COPY: usize = 1 << 29;

/// The copy of a model that its features are learned with: `kind` if the user asked for one; else F16, the same weights, where
/// their own type has no fast kernel and the copy is small. On AVX2, SmolLM2 in Q4_1 reads 122 tokens a second and core, in
/// F16 270.
pub(crate) fn learner(model: &Path, kind: Option<&str>, machine: &Machine, out: &Out) -> Result<Option<PathBuf>> {
    let kind = match kind {
        Some(kind) => kind,
        None if machine.gpu_layers == 0 && reads_slowly(&Gguf::open(model)?) => "f16",
        None => return Ok(None),
    };
    requantized(model, kind, None, machine.n_threads(), out).map(Some)
}

/// Whether most of a small model is of types that llama.cpp multiplies row by row: its repacked kernels leave these out.
fn reads_slowly(file: &Gguf) -> bool {
    let slow = [GgmlType::Q4_1, GgmlType::Q5_0, GgmlType::Q5_1];
    let bytes = |wanted: &dyn Fn(GgmlType) -> bool| -> usize {
        file.tensors().iter().filter(|tensor| wanted(tensor.kind)).map(|tensor| tensor.n_bytes).sum()
    };
    let n: usize = file.tensors().iter().map(|tensor| tensor.row_len() * tensor.n_rows()).sum();
    2 * bytes(&|kind| slow.contains(&kind)) > bytes(&|_| true) && n <= MOST_COPY / 2
}

/// Opens a dictionary and checks that it fits a model; what is only doubtful is noted.
pub(crate) fn dictionary(path: &Path, model: &Model, out: &Out) -> Result<Arc<Dictionary>> {
    let dictionary = Dictionary::open(path)?;
    let checked = dictionary.check_model(model.d_model(), model.n_layer(), model.fingerprint());
    if let Some(warning) = checked.map_err(|e| e.context(path.display()))? {
        out.note(format!("warning: {}: {warning}", path.display()));
    }
    Ok(Arc::new(dictionary))
}

/// How words become features and features a rule.
#[derive(Args, Clone, Debug)]
pub(crate) struct Wish {
    /// The concept, in words: "war army soldiers"
    #[arg(long, value_name = "WORDS")]
    pub(crate) words: Option<String>,
    /// What the dictionary's features mean; by default the file beside it that ends in .jsonl
    #[arg(long, value_name = "FILE")]
    pub(crate) explanations: Option<PathBuf>,
    /// How many features to steer, at most
    #[arg(short = 'n', long, default_value_t = 6, value_name = "N")]
    pub(crate) features: usize,
    /// What ranks the features that mean the words
    #[arg(long, default_value = "output")]
    pub(crate) rank: Rank,
    /// What to do with them: min_clamp, add, clamp, scale, ablate, amplify, calibrate, calibrate_spread, max_clamp
    #[arg(long, default_value = "min_clamp", value_parser = op)]
    pub(crate) op: Op,
    /// What a strength of 1 is: activation (the feature's mean), raw, norm (the row's length)
    #[arg(long, default_value = "activation", value_parser = unit)]
    pub(crate) unit: Unit,
}

/// What ranks the features that mean the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rank {
    /// How much likelier the model finds the words when the feature is pushed
    Output,
    /// How well the feature's explanation fits the words
    Words,
}

fn op(text: &str) -> std::result::Result<Op, String> {
    let known = Op::ALL.iter().copied().find(|op| op.name() == text);
    known
        .ok_or_else(|| format!("expected one of {}", Op::ALL.iter().map(|op| op.name()).collect::<Vec<_>>().join(", ")))
}

fn unit(text: &str) -> std::result::Result<Unit, String> {
    match text {
        "raw" => Ok(Unit::Raw),
        "activation" => Ok(Unit::Activation),
        "norm" => Ok(Unit::Norm),
        _ => Err("expected raw, activation or norm".into()),
    }
}

impl Wish {
    /// The features of `dictionary`, the file at `path`, that mean the words, best first: by their explanations alone, or by
    /// what they make `judge` say.
    pub(crate) fn choose(
        &self,
        path: Option<&Path>,
        dictionary: Option<&Arc<Dictionary>>,
        judge: Option<&mut Engine>,
        out: &Out,
    ) -> Result<Vec<Match>> {
        let path = match (&self.explanations, path) {
            (Some(path), _) => path.clone(),
            (None, Some(dictionary)) => dictionary.with_extension("jsonl"),
            (None, None) => return Err(Error::argument("--words needs --explanations FILE")),
        };
        let (explanations, words) = (Explanations::load(&path)?, self.words.as_deref().unwrap_or_default());
        if let Some(dictionary) = dictionary {
            let doubt = explanations.check(dictionary).map_err(|e| e.context(path.display()))?;
            if let Some(doubt) = doubt {
                out.note(format!("warning: {}: {doubt}", path.display()));
            }
        }
        match judge.zip(dictionary) {
            Some((engine, dictionary)) if self.rank == Rank::Output => {
                choose_by_output(engine, dictionary, &explanations, words, self.features, out)
            }
            _ => choose(&explanations, words, self.features, out),
        }
    }

    /// The rule that steers `matches` with `strength`.
    pub(crate) fn rule(&self, matches: &[Match], strength: f32) -> Rule {
        let strength = match self.op {
            Op::Ablate => None,
            Op::Scale | Op::Amplify => Some(Strength::raw(strength)),
            _ => Some(Strength::new(strength, self.unit)),
        };
        // Of what is taken away, a feature that matters less does not lose more.
        let feature = |m: &Match| if self.suppresses() { Feature::new(m.feature, 1.0) } else { feature(m) };
        let mut rule = Rule::new(self.op, matches.iter().map(feature), strength);
        rule.note.clone_from(&self.words);
        rule
    }

    /// Whether the operator makes the model speak less of the words.
    pub(crate) fn suppresses(&self) -> bool {
        matches!(self.op, Op::Ablate | Op::MaxClamp)
    }

    /// The strengths of a search, from one that hardly acts to the strongest; and what each is in the rule.
    pub(crate) fn search(&self) -> (Search, fn(f32) -> f32) {
        let quick = trial::quick();
        match self.op {
            // The cap falls from the usual activation to none.
            Op::MaxClamp => (Search { strengths: vec![0.25, 0.5, 0.75, 1.0], suppress: true, ..quick }, |t| 1.0 - t),
            // A factor of 1 does nothing.
            Op::Scale => (quick, |t| 1.0 + t),
            _ => (quick, |t| t),
        }
    }

    /// The plan of that rule alone.
    pub(crate) fn plan(&self, matches: &[Match], strength: f32) -> Plan {
        Plan::new([self.rule(matches, strength)])
    }
}

/// What asks a model in its prompt for what `words` would steer it to.
pub(crate) fn instruction(words: &str) -> String {
    format!("Talk about {}.", words.trim())
}

/// A feature with its share of the strength.
fn feature(m: &Match) -> Feature {
    Feature::new(m.feature, m.weight)
}

/// The `n` features that mean all of `words`, best first.
pub(crate) fn choose(explanations: &Explanations, words: &str, n: usize, out: &Out) -> Result<Vec<Match>> {
    let words = known(explanations, words, out);
    some_feature(explanations.find(&words, n)?, &words, None)
}

/// The words one by one, with a warning about those that no explanation holds.
fn known<'w>(explanations: &Explanations, words: &'w str, out: &Out) -> Vec<&'w str> {
    let words: Vec<&str> = words.split_whitespace().collect();
    for word in explanations.unknown_words(&words) {
        let near = explanations.suggestions(&word, 3);
        let near = if near.is_empty() { String::new() } else { format!("; near it: {}", near.join(", ")) };
        out.note(format!("warning: no feature is explained by {word}{near}"));
    }
    words
}

fn some_feature(found: Vec<Match>, words: &[&str], model: Option<&Path>) -> Result<Vec<Match>> {
    if found.is_empty() {
        let words = words.join(" ");
        let what = format!("no feature means {words:?}: the explanations hold none of these words");
        return Err(Error::unsupported(what).hinted(learn_it(&words, model)));
    }
    Ok(found)
}

/// What helps where a dictionary has nothing for the words.
pub(crate) fn learn_it(words: &str, model: Option<&Path>) -> String {
    let model = model.map_or_else(|| "MODEL".into(), |path| path.display().to_string());
    format!("learn it: tiller learn {model} {:?}", instruction(words))
}

/// The `n` features that mean all of `words` and make the model say them most, best first.
fn choose_by_output(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    explanations: &Explanations,
    words: &str,
    n: usize,
    out: &Out,
) -> Result<Vec<Match>> {
    let words = known(explanations, words, out);
    let mut bar = out.bar("output scores", "readings");
    let options = Output::default();
    let found =
        output::choose(engine, dictionary, explanations, &words, n, Some(&options), &mut |step| bar.step(step))?;
    drop(bar);
    let found = some_feature(found, &words, Some(engine.path()))?;
    if found.iter().any(|m| m.lift.is_none()) {
        let what = format!("no feature that means {:?} makes the model say it", words.join(" "));
        let hint = format!(
            "{}; or take the features all the same: --rank words",
            learn_it(&words.join(" "), Some(engine.path()))
        );
        return Err(Error::unsupported(what).hinted(hint));
    }
    Ok(found)
}

/// The chosen features as a table.
pub(crate) fn features_table(matches: &[Match], out: &Out) -> Result<()> {
    out.table(&FEATURES, matches.iter().map(feature_row))
}

/// The columns of [`feature_row`].
pub(crate) const FEATURES: [&str; 6] = ["feature", "score", "lift", "fires on", "mean", "words"];

/// One feature as a row of a table.
pub(crate) fn feature_row(m: &Match) -> Vec<String> {
    let words: Vec<&str> = m.words.iter().take(10).map(|(word, _)| word.as_str()).collect();
    let words = words.join(" ");
    vec![
        m.feature.to_string(),
        format!("{:.3}", m.score),
        m.lift.map_or_else(String::new, |lift| format!("{lift:.2}")),
        m.density.map_or_else(String::new, |d| format!("{:.2} %", 100.0 * d)),
        m.mean.map_or_else(String::new, |mean| format!("{mean:.2}")),
        m.label.as_ref().map_or(words.clone(), |label| format!("[{label}] {words}")),
    ]
}

/// One feature as JSON.
pub(crate) fn feature_json(m: &Match) -> serde_json::Value {
    serde_json::json!({
        "feature": m.feature, "score": m.score, "weight": m.weight, "matched": m.matched,
        "lift": m.lift, "density": m.density, "mean": m.mean, "label": m.label, "words": m.words,
    })
}
