//! `tiller find`: features by what they mean.

use clap::Args as Clap;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use tiller::choose::portrait;
use tiller::dictionary::Dictionary;
use tiller::engine::Engine;
use tiller::eval::trial;
use tiller::explain::Explanations;
use tiller::model::Model;
use tiller::{Error, Result};

use crate::open::{self, Machine, Strict, Texts};
use crate::output::Out;
use crate::wish::{choose, feature_json, features_table, turned};

/// Find the features that mean a concept, that an instruction turns, or see one whole
#[derive(Clap)]
pub(crate) struct Args {
    /// Explanations, as `tiller explain` writes them; with --prompted those beside each dictionary (.jsonl) are taken
    #[arg(required_unless_present = "prompted", conflicts_with = "prompted")]
    explanations: Option<PathBuf>,
    /// The concept, in words
    #[arg(required_unless_present_any = ["feature", "prompted"])]
    words: Vec<String>,
    /// How many features to show
    #[arg(short, long = "number", default_value_t = 10, value_name = "N")]
    n: usize,
    /// Search the labels, not the words
    #[arg(long)]
    label: bool,
    /// Show this feature whole: its words; with --dictionary its neighbours; with --model what pushing it makes likelier; with
    /// --text the pieces that excite it most
    #[arg(long, value_name = "N", conflicts_with_all = ["words", "label"])]
    feature: Option<u32>,
    /// The features that this instruction turns in the model's own answers, such as "Talk about the sea."
    #[arg(long, value_name = "TEXT", requires_all = ["model", "dictionary"], conflicts_with_all = ["feature", "label"])]
    prompted: Option<String>,
    /// The dictionary; for --prompted several, also of several layers
    #[arg(long, value_name = "FILE")]
    dictionary: Vec<PathBuf>,
    /// The model
    #[arg(long, value_name = "FILE", requires = "dictionary")]
    model: Option<PathBuf>,
    /// Text, for --feature
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "model")]
    text: Vec<PathBuf>,
    /// Tokens of the text that are read
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    max_tokens: usize,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    machine: Machine,
}

/// Neighbours, tokens and pieces of text that are shown of a feature; how far it is pushed, relative to the row.
const SHOWN: usize = 8;
const PUSH: f32 = 0.3;

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    if let Some(instruction) = &args.prompted {
        return by_prompt(args, instruction, out);
    }
    let path = args.explanations.as_ref().ok_or_else(|| Error::argument("find needs explanations"))?;
    let explanations = Explanations::load(path)?;
    if let Some(feature) = args.feature {
        return whole(args, &explanations, feature, out);
    }
    let words = args.words.join(" ");
    let matches =
        if args.label { explanations.find_label(&words, args.n) } else { choose(&explanations, &words, args.n, out)? };
    if out.json() {
        return matches.iter().try_for_each(|found| out.object(&feature_json(found)));
    }
    features_table(&[(String::new(), matches)], out)
}

/// The engine and the dictionaries that it is asked about.
fn opened(args: &Args, out: &Out) -> Result<Option<(Engine, Vec<Arc<Dictionary>>)>> {
    let Some(path) = &args.model else { return Ok(None) };
    let model = Model::open(path)?;
    let dictionaries = args.dictionary.iter().map(|file| open::dictionary(file, &model, out)).collect::<Result<_>>()?;
    Ok(Some((args.machine.engine(path, 4096, trial::SEQUENCES)?, dictionaries)))
}

fn by_prompt(args: &Args, instruction: &str, out: &Out) -> Result<()> {
    let Some((mut engine, dictionaries)) = opened(args, out)? else {
        return Err(Error::argument("--prompted needs --model and --dictionary"));
    };
    let mut bar = out.bar("answers", "steps");
    let turned = turned(&mut engine, instruction, &dictionaries, args.n, &mut |step| bar.step(step))?;
    drop(bar);
    let mut rows = Vec::new();
    for ((file, dictionary), turned) in args.dictionary.iter().zip(&dictionaries).zip(turned) {
        // Features without explanations are shown by their numbers.
        let beside = file.with_extension("jsonl");
        let explanations = if beside.is_file() { Some(Explanations::load(&beside)?) } else { None };
        let layer = dictionary.layer();
        for t in turned {
            let words = explanations.as_ref().and_then(|e| e.get(t.feature)).map(|e| e.summary(10)).unwrap_or_default();
            if out.json() {
                out.object(&json!({
                    "dictionary": crate::paths::shown(file), "layer": layer, "feature": t.feature, "change": t.change,
                    "told": t.told, "length": t.length, "lift": t.lift, "words": words,
                }))?;
            }
            let layer = layer.map_or_else(String::new, |layer| layer.to_string());
            let lift = t.lift.map_or_else(String::new, |lift| format!("{lift:+.3}"));
            rows.push(vec![layer, t.feature.to_string(), format!("{:+.2}", t.change), lift, words]);
        }
    }
    if out.json() { Ok(()) } else { out.table(&["layer", "feature", "change", "lift", "words"], rows) }
}

fn whole(args: &Args, explanations: &Explanations, feature: u32, out: &Out) -> Result<()> {
    let known = explanations.get(feature);
    let mut made = json!({"feature": feature, "explanation": known});
    let opened = opened(args, out)?;
    let dictionary = match (&opened, args.dictionary.as_slice()) {
        (_, [_, _, ..]) => return Err(Error::argument("--feature is one of one --dictionary")),
        (Some((_, all)), _) => all.first().cloned(),
        (None, [file]) => Some(Arc::new(Dictionary::open(file)?)),
        (None, []) => None,
    };
    if known.is_none() && dictionary.is_none() {
        return Err(Error::argument(format!("feature {feature} has no explanation")).hinted("give its --dictionary"));
    }
    let words = |feature: u32| explanations.get(feature).map(|e| e.summary(6)).unwrap_or_default();
    let mut facts = vec![("feature", feature.to_string())];
    if let Some(e) = known {
        facts.extend(e.label.clone().map(|label| ("label", label)));
        let scored: Vec<String> = e.words.iter().map(|(word, score)| format!("{word} {score:.4}")).collect();
        facts.push(("words", scored.join(", ")));
        facts.extend(e.density.map(|d| ("fires on", format!("{:.3} % of tokens", 100.0 * d))));
        facts.extend(e.mean.map(|mean| ("mean activation", format!("{mean:.2}"))));
    }
    if let Some(dictionary) = &dictionary {
        explanations.check(dictionary)?;
        let near = portrait::neighbours(dictionary, feature, SHOWN)?;
        let shown = near.iter().map(|(id, cosine)| format!("{id} ({cosine:.2}) {}", words(*id))).collect::<Vec<_>>();
        facts.push(("neighbours", shown.join("\n")));
        let near = near.iter().map(|(id, cosine)| json!({"feature": id, "cosine": cosine, "words": words(*id)}));
        made["neighbours"] = near.collect();
    }
    if let (Some((mut engine, _)), Some(dictionary)) = (opened, &dictionary) {
        let likelier = portrait::effect(&mut engine, dictionary, feature, PUSH, 2 * SHOWN)?;
        let shown = likelier.iter().map(|(token, nats)| format!("{token:?} {nats:+.1}")).collect::<Vec<_>>();
        facts.push(("makes likelier", shown.join(", ")));
        made["makes_likelier"] = likelier.iter().map(|(token, nats)| json!({"token": token, "nats": nats})).collect();
        if !args.text.is_empty() {
            let documents = Texts::read(&args.text, args.strict, out)?.readable(&engine)?;
            let mut bar = out.bar("text", "documents");
            let most = args.max_tokens;
            let spans =
                portrait::texts(&mut engine, dictionary, feature, &documents, most, SHOWN, &mut |step| bar.step(step))?;
            drop(bar);
            let shown = spans.iter().map(|(value, text)| format!("{value:.1} {}", text.replace('\n', " ")));
            facts.push(("excited most by", shown.collect::<Vec<_>>().join("\n")));
            made["texts"] = spans.iter().map(|(value, text)| json!({"activation": value, "text": text})).collect();
        }
    }
    if out.json() { out.object(&made) } else { out.facts(&facts) }
}
