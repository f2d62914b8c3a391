//! `tiller why`: on which tokens of a text features are active, and what their directions mean.

mod page;
mod reading;

use clap::{Args as Clap, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use tiller::dictionary::Dictionary;
use tiller::engine::{Document, Engine, Generate, Message, documents};
use tiller::eval::firing::{self, Over};
use tiller::model::Model;
use tiller::{Error, Result};

use crate::open::{self, Context, Machine};
use crate::output::Out;
use crate::paths::check_outputs;
use reading::Meaning;

/// Show on which tokens of a text features are active
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// The features: a dictionary, or a file of learned features
    #[arg(long, value_name = "FILE")]
    dictionary: PathBuf,
    /// Which ones; by default those that tell most about the text, of learned features all
    #[arg(long, value_name = "N", num_args = 1..)]
    feature: Vec<u32>,
    /// Features to show, where none is named
    #[arg(short, long = "number", default_value_t = 3, value_name = "N")]
    n: usize,
    /// The text: files
    #[arg(long, num_args = 1.., value_name = "FILE", required_unless_present_any = ["prompt", "answer"], conflicts_with_all = ["prompt", "answer"])]
    text: Vec<PathBuf>,
    /// The text itself
    #[arg(long, value_name = "TEXT", conflicts_with = "answer")]
    prompt: Option<String>,
    /// A question, which the model answers in its chat template: the text is both
    #[arg(long, value_name = "TEXT")]
    answer: Option<String>,
    /// Tokens of the answer at most
    #[arg(long, default_value_t = 100, value_name = "N")]
    max_tokens: usize,
    /// Of features at several layers: their sum, the largest, or each for itself
    #[arg(long, default_value = "sum")]
    over: Layers,
    /// Also read each direction as features of this dictionary
    #[arg(long, value_name = "FILE")]
    read_by: Option<PathBuf>,
    /// What the features of --read-by mean; by default the file beside it that ends in .jsonl
    #[arg(long, value_name = "FILE")]
    explanations: Option<PathBuf>,
    /// Also write a page that a browser shows
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    context: Context,
    #[command(flatten)]
    machine: Machine,
}

/// How features at several layers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layers {
    /// Their sum
    Sum,
    /// The largest
    Max,
    /// Each for itself
    Each,
}

/// One line of values over the text.
pub(crate) struct Curve {
    /// What it shows, for people.
    pub(crate) title: String,
    /// The features behind it.
    pub(crate) features: Vec<u32>,
    /// One value a token.
    pub(crate) values: Vec<f32>,
}

/// A text as tokens and as what people see.
pub(crate) struct Shown {
    pub(crate) tokens: Vec<i32>,
    /// The text of each token; of a character that several tokens share, the last one has it.
    pub(crate) pieces: Vec<String>,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let inputs = [&args.model, &args.dictionary];
    check_outputs(&args.html, inputs.into_iter().chain(&args.read_by).chain(&args.explanations).chain(&args.text))?;
    let model = Model::open(&args.model)?;
    let dictionary = open::dictionary(&args.dictionary, &model, out)?;
    if let Some(feature) = args.feature.iter().find(|&&feature| feature as usize >= dictionary.n_features()) {
        let last = dictionary.n_features() - 1;
        return Err(Error::argument(format!("--feature: expected 0 to {last}, found {feature}")));
    }
    let mut engine = args.context.engine(&args.model, &args.machine, 1, out)?;
    let windows = args.windows(&mut engine)?;
    let features = match args.feature.as_slice() {
        [] => firing::loudest(&mut engine, &dictionary, &windows, args.n, args.machine.n_threads())?,
        some => some.to_vec(),
    };
    if features.is_empty() {
        return Err(Error::unsupported("no feature of the dictionary is active on the text"));
    }
    if !dictionary.slice(&features)?.is_exact() {
        out.note("note: the dictionary's features compete; what is shown is each one's own threshold");
    }
    let meaning = Meaning::open(args, &model, &dictionary, out)?;
    let curves = curves(&mut engine, &dictionary, &features, args.over, &windows)?;
    let shown = Shown::of(&engine, &windows);
    let readings = features.iter().map(|&feature| meaning.of(&dictionary, feature)).collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.html {
        page::write(path, &shown, &curves, &readings)?;
        out.note(format!("wrote {}", path.display()));
    }
    if out.json() {
        return out.object(&json!({
            "features": readings.iter().map(reading::Reading::json).collect::<Vec<_>>(),
            "curves": curves.iter().map(Curve::json).collect::<Vec<_>>(), "tokens": shown.json(&curves),
        }));
    }
    for curve in &curves {
        show(&shown, curve, out)?;
    }
    reading::table(&readings, out)
}

impl Args {
    /// The text in windows.
    fn windows(&self, engine: &mut Engine) -> Result<Vec<Vec<i32>>> {
        let mut texts = Vec::new();
        if let Some(question) = &self.answer {
            let prompt = engine.chat_tokens(&[Message::user(question)], true)?;
            let options = Generate { max_tokens: self.max_tokens, ..Generate::default() };
            let made = engine.generate_tokens(&prompt, &options, &mut |_| !crate::interrupt::asked())?;
            texts.push([prompt.as_slice(), made.tokens()].concat());
        } else if let Some(prompt) = &self.prompt {
            texts.push(engine.document_tokens(&Document::Text(prompt.clone()))?);
        } else {
            for document in documents(&self.text)? {
                texts.push(engine.document_tokens(&document)?);
            }
        }
        Ok(windows(engine, &texts))
    }
}

/// Texts in pieces that the model reads at once; what has no second token has no row that counts.
pub(crate) fn windows(engine: &Engine, texts: &[Vec<i32>]) -> Vec<Vec<i32>> {
    let parts = texts.iter().flat_map(|text| text.chunks(engine.longest()));
    parts.filter(|part| part.len() > 1).map(<[i32]>::to_vec).collect()
}

/// Curves of features: one each, or one for all that live at several layers.
pub(crate) fn curves(
    engine: &mut Engine,
    dictionary: &Arc<Dictionary>,
    features: &[u32],
    over: Layers,
    windows: &[Vec<i32>],
) -> Result<Vec<Curve>> {
    let values = firing::fire(engine, dictionary, features, windows)?;
    let over = match over {
        Layers::Sum => Some((Over::Sum, "the sum")),
        Layers::Max => Some((Over::Max, "the largest")),
        Layers::Each => None,
    };
    if let Some((over, name)) = over.filter(|_| dictionary.is_layered()) {
        let learned = dictionary.info().learned.as_ref();
        let what = learned.map_or_else(|| dictionary.info().name.clone(), |learned| learned.instruction.clone());
        let title = format!("{what:?}: {name} over {} features", features.len());
        return Ok(vec![Curve { title, features: features.to_vec(), values: firing::together(&values, over) }]);
    }
    let title = |feature: u32| match dictionary.feature_layer(feature as usize) {
        Some(layer) => format!("feature {feature} at layer {layer}"),
        None => format!("feature {feature}"),
    };
    let curve = |(&feature, values)| Curve { title: title(feature), features: vec![feature], values };
    Ok(features.iter().zip(values).map(curve).collect())
}

impl Shown {
    pub(crate) fn of(engine: &Engine, windows: &[Vec<i32>]) -> Self {
        let tokens: Vec<i32> = windows.concat();
        let mut pieces = Vec::with_capacity(tokens.len());
        let mut bytes = Vec::new();
        for (i, &token) in tokens.iter().enumerate() {
            bytes.extend(engine.token_bytes(token, true));
            // The front of a character waits for the rest of it.
            let waits = std::str::from_utf8(&bytes).is_err_and(|e| e.error_len().is_none()) && i + 1 < tokens.len();
            pieces.push(if waits {
                String::new()
            } else {
                String::from_utf8_lossy(&std::mem::take(&mut bytes)).into_owned()
            });
        }
        Self { tokens, pieces }
    }

    /// The same without its first `n` tokens.
    pub(crate) fn drop_front(&mut self, n: usize) {
        self.tokens.drain(..n);
        self.pieces.drain(..n);
    }

    /// Each token with its value on every curve.
    pub(crate) fn json(&self, curves: &[Curve]) -> Vec<serde_json::Value> {
        let token = |(i, (token, piece)): (usize, (&i32, &String))| {
            let values: Vec<f32> = curves.iter().map(|curve| curve.values[i]).collect();
            json!({"position": i, "token": token, "text": piece, "values": values})
        };
        self.tokens.iter().zip(&self.pieces).enumerate().map(token).collect()
    }
}

impl Curve {
    /// What it shows; the values stand with the tokens.
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({"title": self.title, "features": self.features, "max": self.max()})
    }

    pub(crate) fn max(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// 0 where it is silent, else 1 to 9 by the share of its largest value.
    pub(crate) fn level(&self, i: usize) -> u8 {
        let (value, max) = (self.values.get(i).copied().unwrap_or(0.0), self.max());
        if value > 0.0 && max > 0.0 { (9.0 * value / max).ceil().clamp(1.0, 9.0) as u8 } else { 0 }
    }

    /// The tokens where it is largest, with the values.
    pub(crate) fn peaks(&self, n: usize) -> Vec<(usize, f32)> {
        let mut all: Vec<(usize, f32)> = self.values.iter().copied().enumerate().filter(|(_, f)| *f > 0.0).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(n);
        all
    }
}

/// A curve for people: the text in its colours, and the words where it is largest.
pub(crate) fn show(shown: &Shown, curve: &Curve, out: &Out) -> Result<()> {
    out.line(&curve.title)?;
    out.levels(shown.pieces.iter().enumerate().map(|(i, piece)| (piece.as_str(), curve.level(i))))?;
    let peaks = curve.peaks(8);
    let peak = |&(i, f): &(usize, f32)| format!("{:?} {f:.2}", shown.pieces[i]);
    let text = if peaks.is_empty() { "silent".into() } else { peaks.iter().map(peak).collect::<Vec<_>>().join(", ") };
    out.line(format!("\nlargest: {text}\n"))
}
