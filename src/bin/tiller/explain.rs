//! `tiller explain`: what the features of a dictionary mean, in words.

use clap::{Args as Clap, ValueEnum};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use tiller::activations::Activations;
use tiller::engine::{Engine, Options};
use tiller::explain::baselines::SPANS;
use tiller::explain::counted::Count;
use tiller::explain::harvested::{self, Data};
use tiller::explain::lens::{Condition, Lens, Mode};
use tiller::explain::{Explanations, Vocabulary, tuned};
use tiller::file::write_atomic;
use tiller::model::Model;
use tiller::{Error, Result};

use crate::open::{self, Machine};
use crate::output::Out;
use crate::paths::{check_outputs, shown};

/// Explain the features of a dictionary in words
#[derive(Clap)]
pub(crate) struct Args {
    /// The dictionary
    dictionary: PathBuf,
    /// The model that it belongs to
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Rows of its layer, as `tiller harvest` writes them
    #[arg(long, num_args = 1.., value_name = "DIR")]
    rows: Vec<PathBuf>,
    /// Rows of the last layer for the same text, for the estimator tuned
    #[arg(long, value_name = "DIR")]
    final_rows: Option<PathBuf>,
    /// How words are found: counted over text, through the unembedding, through a linear map and the unembedding, or in
    /// the pieces of text on which a feature fires most
    #[arg(long, value_enum, default_value = "data")]
    estimator: Which,
    /// The words that explanations may use; if the file is missing, it is made from the rows
    #[arg(long, value_name = "FILE.json")]
    vocab: Option<PathBuf>,
    /// Words of a vocabulary that is made from the rows
    #[arg(long, default_value_t = 5000, value_name = "N")]
    vocab_size: usize,
    /// Scores of the lens
    #[arg(long, value_enum, default_value = "mi")]
    mode: WhichMode,
    /// How the lens takes p(feature | word)
    #[arg(long, value_enum, default_value = "softmax")]
    condition: WhichCondition,
    /// Rows to use, spread evenly over the text; 0 takes all
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_rows: usize,
    /// Words kept a feature
    #[arg(long, default_value_t = tiller::explain::TOP_WORDS, value_name = "N")]
    top: usize,
    /// Where to write the pieces of text of the estimator topact: JSONL with feature, row, activation, text
    #[arg(long, value_name = "FILE.jsonl")]
    spans: Option<PathBuf>,
    /// Pieces of text a feature, for the estimator topact
    #[arg(long, default_value_t = SPANS, value_name = "N")]
    n_spans: usize,
    /// Write Neuronpedia's features.jsonl and explanations.jsonl into this directory
    #[arg(long, value_name = "DIR")]
    neuronpedia: Option<PathBuf>,
    /// The names there of the model and of the source, such as gemma-2-2b 20-gemmascope-res-16k
    #[arg(long, num_args = 2, value_names = ["MODEL", "SOURCE"], requires = "neuronpedia")]
    neuronpedia_names: Vec<String>,
    /// Labels to put in: JSONL with feature and label
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// The explanations to write
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Data,
    Lens,
    Tuned,
    #[value(name = "topact")]
    TopAct,
}

#[derive(Clone, Copy, ValueEnum)]
enum WhichMode {
    Mi,
    Literal,
    Logit,
}

#[derive(Clone, Copy, ValueEnum)]
enum WhichCondition {
    Softmax,
    Bayes,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    // A vocabulary that is not there yet is made.
    let (there, new): (Vec<_>, Vec<_>) = args.vocab.iter().partition(|path| path.exists());
    let inputs = [&args.dictionary, &args.model].into_iter().chain(&args.rows).chain(&args.final_rows);
    check_outputs([&args.out].into_iter().chain(&args.spans).chain(new), inputs.chain(&args.labels).chain(there))?;
    let model = Model::open(&args.model)?;
    let dictionary = open::dictionary(&args.dictionary, &model, out)?;
    let rows = args.rows.iter().map(|dir| Activations::open(dir)).collect::<Result<Vec<_>>>()?;
    let vocabulary = vocabulary(args, &rows, &model, out)?;
    let threads = args.machine.n_threads();
    let start = std::time::Instant::now();
    let mut made = match args.estimator {
        Which::Data => {
            if rows.is_empty() {
                return Err(Error::argument("the estimator data needs --rows"));
            }
            let mut bar = out.bar("explain", "rows");
            let count = Count { top: args.top, threads, ..Count::default() };
            let options = Data { max_rows: args.max_rows, count, ..Data::default() };
            harvested::data(&rows, &model, &dictionary, &vocabulary, &options, &mut |step| bar.step(step))?
        }
        Which::Lens => lens(args, &model, &dictionary, &vocabulary, None, out)?,
        Which::Tuned => {
            let (Some(from), Some(to)) = (rows.first(), &args.final_rows) else {
                return Err(Error::argument("the estimator tuned needs --rows and --final-rows"));
            };
            let to = Activations::open(to)?;
            if to.meta().layer + 1 != model.n_layer() {
                let (found, last) = (to.meta().layer, model.n_layer() - 1);
                return Err(Error::mismatch(format!(
                    "--final-rows are of layer {found}, expected the last one, {last}"
                )));
            }
            let mut bar = out.bar("map", "rows");
            let rows = if args.max_rows == 0 { 200_000 } else { args.max_rows };
            let map = harvested::tuned_map(from, &to, rows, tuned::DEFAULT_RIDGE, threads, &mut |step| bar.step(step))?;
            drop(bar);
            lens(args, &model, &dictionary, &vocabulary, Some(&map), out)?
        }
        Which::TopAct => {
            if rows.is_empty() {
                return Err(Error::argument("the estimator topact needs --rows"));
            }
            let mut bar = out.bar("explain", "rows");
            let n = args.n_spans.max(1);
            let (spans, made) =
                harvested::top_act(&rows, &model, &dictionary, &vocabulary, n, threads, &mut |step| bar.step(step))?;
            if let Some(path) = &args.spans {
                let text = harvested::spans_jsonl(&spans, &model);
                write_atomic(path, |file| file.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e)))?;
            }
            made
        }
    };
    made.save(&args.out)?;
    // A mistake in the labels costs no explanations.
    if let Some(labels) = &args.labels {
        made.load_labels(labels)?;
        made.save(&args.out)?;
    }
    neuronpedia(args, &made)?;
    let explained = made.list().iter().filter(|e| !e.words.is_empty()).count();
    let seconds = start.elapsed().as_secs_f64();
    if out.json() {
        return out.object(&json!({
            "explanations": shown(&args.out), "estimator": made.header().estimator.name(), "features": made.list().len(),
            "explained": explained, "vocabulary": vocabulary.len(), "rows": made.header().n_tokens, "seconds": seconds,
        }));
    }
    out.facts(&[
        ("explanations", args.out.display().to_string()),
        ("estimator", made.header().estimator.name().to_owned()),
        ("features explained", format!("{explained} of {}", made.list().len())),
        ("words", vocabulary.len().to_string()),
        ("seconds", format!("{seconds:.1}")),
    ])
}

/// Writes what Neuronpedia reads, under its names or the model's own.
fn neuronpedia(args: &Args, made: &Explanations) -> Result<()> {
    let Some(dir) = &args.neuronpedia else { return Ok(()) };
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let header = made.header();
    let (own, source) = (header.model.clone().unwrap_or_default(), header.layer.unwrap_or_default());
    let source = format!("{source}-tiller-{}", header.estimator.name());
    let name = |at: usize, own: String| args.neuronpedia_names.get(at).cloned().unwrap_or(own);
    let (model, source) = (name(0, own), name(1, source));
    made.save_neuronpedia_features(&dir.join("features.jsonl"), &model, &source)?;
    made.save_neuronpedia_explanations(&dir.join("explanations.jsonl"), &model, &source)
}

fn vocabulary(args: &Args, rows: &[Activations], model: &Model, out: &Out) -> Result<Vocabulary> {
    match &args.vocab {
        Some(path) if path.exists() => Vocabulary::load(path),
        _ if rows.is_empty() => {
            Err(Error::argument("explain needs --vocab FILE that exists, or --rows to make it from"))
        }
        path => {
            let made = harvested::vocabulary(rows, model, args.vocab_size)?;
            if let Some(path) = path {
                made.save(path)?;
                out.note(format!("wrote {}", path.display()));
            }
            Ok(made)
        }
    }
}

fn lens(
    args: &Args,
    model: &Model,
    dictionary: &tiller::dictionary::Dictionary,
    vocabulary: &Vocabulary,
    map: Option<&[f32]>,
    out: &Out,
) -> Result<Explanations> {
    // Only the tokenizer is needed.
    let engine = Engine::open(&args.model, &Options { context: 256, hook: false, ..Options::default() })?;
    let options = Lens {
        mode: match args.mode {
            WhichMode::Mi => Mode::Mi,
            WhichMode::Literal => Mode::Literal,
            WhichMode::Logit => Mode::Logit,
        },
        condition: match args.condition {
            WhichCondition::Softmax => Condition::Softmax,
            WhichCondition::Bayes => Condition::Bayes,
        },
        top: args.top,
        threads: args.machine.n_threads(),
    };
    let mut bar = out.bar("explain", "features");
    let tokenize = |text: &str| engine.tokenize(text, false);
    harvested::lens(model, dictionary, vocabulary, &tokenize, map, &options, &mut |step| bar.step(step))
}
