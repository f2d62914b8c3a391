//! `tiller info`: what a file is and what it holds, told by its content, not its name.

use clap::Args as Clap;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::activations::Activations;
use tiller::dictionary::Dictionary;
use tiller::engine::{Engine, Options, documents};
use tiller::eval::self_test::{self, SelfTest, self_test};
use tiller::explain::{Explanations, Vocabulary};
use tiller::file::{gguf::Gguf, safetensors};
use tiller::model::Model;
use tiller::plan::Plan;
use tiller::train::temporal::Temporal;
use tiller::{Error, Result};

use crate::open::Machine;
use crate::output::Out;

/// Held-out text for a self-test without --text.
pub(crate) const TEXT: &str = include_str!("selftest.txt");

/// Show what a model, dictionary, plan, harvest or file of explanations holds
#[derive(Clap)]
pub(crate) struct Args {
    /// The file or directory
    path: PathBuf,
    /// Measure a dictionary on text: L0, FVU, cross-entropy recovered, dead features
    #[arg(long, requires = "model")]
    self_test: bool,
    /// The model that the dictionary belongs to
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Text that the dictionary was not trained on; a short one is built in
    #[arg(long, num_args = 1.., value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Tokens of the text to use at most
    #[arg(long, default_value_t = 60_000, value_name = "N")]
    max_tokens: usize,
    #[command(flatten)]
    machine: Machine,
}

/// What was found: its kind, and names with values; for a model, why no engine opens it.
struct Facts(Vec<(&'static str, Value)>, Option<Error>);

impl Facts {
    fn new(kind: &str) -> Self {
        Self(vec![("kind", json!(kind))], None)
    }

    fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }

    /// Shows them; the error of a model that no engine opens comes after.
    fn show(self, out: &Out) -> Result<()> {
        let Self(facts, refused) = self;
        let known = facts.into_iter().filter(|(_, value)| !value.is_null() && value != "");
        if out.json() {
            let why = refused.as_ref().map(|error| ("refused", json!(error.message())));
            out.object(&known.chain(why).map(|(k, v)| (k.replace(' ', "_"), v)).collect::<Map<_, _>>())?;
            return refused.map_or(Ok(()), Err);
        }
        let text = |(name, value): (&'static str, Value)| match value {
            Value::String(text) => text,
            Value::Array(list) => list.iter().map(|v| v.to_string().replace('"', "")).collect::<Vec<_>>().join(", "),
            tried if name == "doses" => doses(&tried),
            other => other.to_string(),
        };
        out.facts(&known.map(|(name, value)| (name, text((name, value)))).collect::<Vec<_>>())?;
        refused.map_or(Ok(()), Err)
    }
}

/// A strength as it was chosen, without the digits that its type adds.
fn shortened(strength: f32) -> f64 {
    (f64::from(strength) * 1e4).round() / 1e4
}

/// The strengths that learning tried, a line each.
fn doses(tried: &Value) -> String {
    let line = |dose: &Value| {
        let number = |key: &str| dose[key].as_f64().unwrap_or_default();
        let name = |key: &str| dose[key].as_str().unwrap_or_default();
        let rank = dose["rank"].as_u64().map_or_else(String::new, |rank| format!(", rank {rank}"));
        format!(
            "{} × {:.2}, {}{rank}: effect {:.0} %, perplexity × {:.2}, loops {:.0} %{}",
            name("form"),
            number("strength"),
            name("layers"),
            100.0 * number("effect"),
            number("perplexity"),
            100.0 * number("broken"),
            if dose["good"] == true { "" } else { " (too much)" },
        )
    };
    tried["doses"].as_array().map(|all| all.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap_or_default()
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let facts = look(&args.path)?;
    if !args.self_test {
        return facts.show(out);
    }
    let Some(model) = &args.model else { return Err(Error::argument("--self-test needs --model")) };
    let dictionary = Arc::new(Dictionary::open(&args.path)?);
    let texts = if args.text.is_empty() {
        vec![tiller::engine::Document::Text(TEXT.to_owned())]
    } else {
        documents(&args.text)?
    };
    let options = Options { threads: args.machine.threads, context: 512, ..Options::default() };
    let mut engine = Engine::open(model, &options)?;
    let mut bar = out.bar("self-test", "tokens");
    let options = self_test::Options { max_tokens: args.max_tokens, ..self_test::Options::default() };
    let test = self_test(&mut engine, &dictionary, &texts, &options, &mut |step| bar.step(step))?;
    drop(bar);
    test.warnings.iter().for_each(|warning| out.note(format!("warning: {}: {warning}", args.path.display())));
    tested(facts, &test, &dictionary).show(out)
}

fn tested(mut facts: Facts, test: &SelfTest, dictionary: &Dictionary) -> Facts {
    let round = |v: f64| json!((v * 1e5).round() / 1e5);
    // A short text cannot show that a feature is dead; the statistics of training can.
    let stats = dictionary.feature_stats().unwrap_or(&test.quality.features);
    let dead = stats.iter().filter(|stats| stats.density == 0.0).count() as f64 / stats.len().max(1) as f64;
    let fired = test.quality.features.iter().filter(|stats| stats.density > 0.0).count();
    facts.add("verdict", test.diagnosis.to_string());
    facts.add("tokens tested", test.quality.n_rows);
    facts.add("attention sinks set apart", test.quality.n_sinks);
    facts.add("L0", round(test.quality.l0));
    facts.add("FVU", round(test.quality.fvu));
    let ce = &test.cross_entropy;
    facts.add("mean norm", round(test.quality.mean_norm));
    facts.add("cross-entropy", round(ce.clean));
    facts.add("with reconstruction", round(ce.reconstructed));
    facts.add("with rows zeroed", round(ce.zero));
    facts.add("cross-entropy recovered", round(ce.recovered()));
    facts.add("dead", round(dead));
    facts.add("fired in the test", fired);
    facts
}

fn look(path: &Path) -> Result<Facts> {
    if path.is_dir() {
        return directory(path);
    }
    let mut start = [0; 4096];
    let mut file = tiller::file::open(path)?;
    let n = file.read(&mut start).map_err(|e| Error::io("read", path, e))?;
    let start = start.get(..n).unwrap_or_default();
    if start.starts_with(b"GGUF") {
        return gguf(path);
    }
    if start.get(8) == Some(&b'{') {
        return tensors(path);
    }
    let text = String::from_utf8_lossy(start);
    let first = text.lines().next().unwrap_or_default();
    match first.trim_start().starts_with('{') {
        true if text.contains("tiller.vocabulary") => vocabulary(path),
        true if text.contains("\"rules\"") => plan(path),
        true if first.contains("tiller.explanations") || first.contains("\"feature\"") => explanations(path),
        _ => {
            let what = "expected a model, dictionary, control vector, plan, harvest, vocabulary or explanations, found";
            Err(match tiller::file::name_contents(start) {
                Some((name, hint)) => Error::format(path, format_args!("{what} {name}")).hinted(hint),
                None => Error::format(path, format_args!("{what} none of them"))
                    .hinted("name one of these files; text and rows of arrays have nothing to tell"),
            })
        }
    }
}

fn directory(path: &Path) -> Result<Facts> {
    if path.join("cfg.json").exists() {
        return dictionary(path);
    }
    if !path.join("meta.json").exists() {
        return Err(Error::format(
            path,
            "expected a harvest (meta.json) or a SAELens dictionary (cfg.json), found neither",
        ));
    }
    let rows = Activations::open(path)?;
    let meta = rows.meta();
    let mut facts = Facts::new("harvest");
    facts.add("model", meta.model.clone());
    facts.add("model fingerprint", meta.model_fingerprint.clone());
    facts.add("layer", meta.layer);
    facts.add("hook", meta.hook.clone());
    facts.add("width", meta.d_model);
    facts.add("rows", rows.n_rows());
    facts.add("stored as", format!("{:?}", meta.dtype));
    facts.add("shards", meta.shards.len());
    facts.add("documents", meta.documents_done);
    facts.add("longest window", meta.window);
    facts.add("complete", meta.complete);
    Ok(facts)
}

fn gguf(path: &Path) -> Result<Facts> {
    // A part of a model is no whole file; the model says what is wrong with any other.
    let Ok(file) = Gguf::open(path) else { return model(path) };
    match file.str("general.architecture")? {
        "sae" => dictionary(path),
        "controlvector" => {
            let mut facts = Facts::new("control vector");
            facts.add("model", file.opt_str("controlvector.model_hint")?);
            facts.add("directions", file.tensors().iter().map(|t| t.name.clone()).collect::<Vec<_>>());
            facts.add("width", file.tensors().first().map(|t| t.row_len()));
            Ok(facts)
        }
        _ => model(path),
    }
}

fn model(path: &Path) -> Result<Facts> {
    let model = Model::open(path)?;
    let n_bytes: usize = model.parts().iter().map(|part| part.map().bytes().len()).sum();
    let n_tensors: usize = model.parts().iter().map(|part| part.tensors().len()).sum();
    let mut facts = Facts::new("model");
    facts.add("name", model.name());
    facts.add("architecture", model.architecture());
    facts.add("layers", model.n_layer());
    facts.add("width", model.d_model());
    facts.add("vocabulary", model.n_vocab());
    facts.add("tokenizer", model.vocabulary().tokenizer());
    facts.add("context", model.context_length());
    facts.add("quantization", model.quantization());
    facts.add("unembedding", if model.tied_unembedding() { "tied to the embedding" } else { "its own" });
    let token = |id: Option<i32>| id.and_then(|id| Some(format!("{id} {}", model.token_text(id)?)));
    facts.add("bos", token(model.bos()));
    facts.add("eos", token(model.eos()));
    facts.add("files", (model.parts().len() > 1).then_some(model.parts().len()));
    facts.add("tensors", n_tensors);
    facts.add("bytes", n_bytes);
    facts.add("fingerprint", model.fingerprint());
    facts.1 = model.check_limits().err();
    Ok(facts)
}

fn dictionary(path: &Path) -> Result<Facts> {
    let dictionary = Dictionary::open(path)?;
    let info = dictionary.info();
    let mut facts = Facts::new("dictionary");
    facts.add("name", info.name.clone());
    facts.add("features", dictionary.n_features());
    facts.add("width", dictionary.d_model());
    facts.add("activation", dictionary.activation().name());
    facts.add("k", dictionary.activation().k());
    facts.add("layer", dictionary.layer());
    if dictionary.is_layered() {
        let mut layers = dictionary.layers().to_vec();
        layers.dedup();
        facts.add("layers", layers);
    }
    facts.add("hook", dictionary.hook_point());
    facts.add("stored as", dictionary.storage());
    if let Some(learned) = &info.learned {
        facts.add("instruction", learned.instruction.clone());
        facts.add("explanation", learned.explanation.clone());
        facts.add("form", learned.form.name());
        facts.add("strength", shortened(learned.strength));
        facts.add("strength against", learned.avoid.map(shortened));
        let doses = serde_json::from_str(&learned.doses);
        facts.add("doses", doses.unwrap_or_else(|_| Value::from(learned.doses.clone())));
    }
    facts.add("model", info.model_name.clone());
    facts.add("model fingerprint", info.model_fingerprint.clone());
    facts.add("recipe", info.recipe.clone());
    facts.add("notes", info.notes.clone());
    if let Some(stats) = dictionary.feature_stats() {
        let l0: f32 = stats.iter().map(|s| s.density).sum();
        let dead = stats.iter().filter(|s| s.density == 0.0).count();
        facts.add("mean active features", (f64::from(l0) * 100.0).round() / 100.0);
        facts.add("dead features", dead);
    }
    Ok(facts)
}

fn tensors(path: &Path) -> Result<Facts> {
    let file = safetensors::File::open(path)?;
    if Temporal::recognize(&file) {
        return temporal(path);
    }
    let mut facts = Facts::new("safetensors");
    let describe = |name: &str| {
        let view = file.opt_tensor(name);
        view.map_or_else(|| name.to_owned(), |view| format!("{name} {:?} {:?}", view.dtype(), view.shape()))
    };
    facts.add("tensors", file.names().map(describe).collect::<Vec<_>>());
    Ok(facts)
}

fn temporal(path: &Path) -> Result<Facts> {
    let model = Temporal::open(path)?;
    let origin = model.origin();
    let count = |weights: &[f32]| weights.iter().filter(|w| **w != 0.0).count();
    let mut facts = Facts::new("temporal model");
    facts.add("latents", model.n_latents());
    facts.add("lags", model.lags());
    facts.add("relations in the same row", count(model.instantaneous()));
    facts.add("relations to later rows", count(model.lagged()));
    facts.add("of", if model.features().is_empty() { "rows" } else { "features of a dictionary" });
    facts.add("dictionary", origin.dictionary.clone());
    facts.add("model", origin.model.clone());
    facts.add("model fingerprint", origin.model_fingerprint.clone());
    facts.add("hook", origin.point.map(|point| point.to_string()));
    facts.add("recipe", model.recipe().to_owned());
    Ok(facts)
}

fn explanations(path: &Path) -> Result<Facts> {
    let explanations = Explanations::load(path)?;
    let (header, list) = (explanations.header(), explanations.list());
    let mut facts = Facts::new("explanations");
    facts.add("estimator", header.estimator.name());
    facts.add("mode", header.mode.clone());
    facts.add("features explained", list.iter().filter(|e| !e.words.is_empty()).count());
    facts.add("features", header.n_features);
    facts.add("labels", list.iter().filter(|e| e.label.is_some()).count());
    facts.add("vocabulary", header.n_words);
    facts.add("tokens", header.n_tokens);
    facts.add("layer", header.layer);
    facts.add("model", header.model.clone());
    facts.add("model fingerprint", header.model_fingerprint.clone());
    Ok(facts)
}

fn vocabulary(path: &Path) -> Result<Facts> {
    let vocabulary = Vocabulary::load(path)?;
    let mut facts = Facts::new("vocabulary");
    facts.add("words", vocabulary.len());
    facts.add("first", vocabulary.words().iter().take(10).map(|word| word.text.clone()).collect::<Vec<_>>());
    Ok(facts)
}

fn plan(path: &Path) -> Result<Facts> {
    let plan = Plan::open(path)?;
    let mut facts = Facts::new("plan");
    facts.add("version", plan.version);
    facts.add("note", plan.note.clone());
    facts.add("rules", plan.rules.len());
    facts.add("operators", plan.rules.iter().map(|rule| rule.op.name()).collect::<Vec<_>>());
    match plan.rules.iter().any(|rule| rule.features.is_all()) {
        true => facts.add("features", "all of a dictionary"),
        false => facts.add("features", plan.rules.iter().map(|rule| rule.features.len()).sum::<usize>()),
    }
    if !plan.monitors.is_empty() {
        facts.add("monitors", plan.monitors.iter().map(|monitor| monitor.name.as_str()).collect::<Vec<_>>());
        facts.add("verdicts", plan.verdicts.iter().map(|verdict| verdict.name.as_str()).collect::<Vec<_>>());
    }
    Ok(facts)
}
