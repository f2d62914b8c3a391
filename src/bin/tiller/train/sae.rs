//! `tiller train sae`: dictionaries from harvested rows.

use std::path::{Path, PathBuf};

use clap::{Args as Clap, ValueEnum};
use serde_json::{Value, json};
use tiller::dictionary::{Dictionary, Info};
use tiller::engine::{self, Engine, Streamed};
use tiller::file::gguf::GgmlType;
use tiller::hook_point::{HookPoint, Site};
use tiller::train::{Decay, Journal, Metrics, Options, Rows, Sparsity, Variant, fit_many, fit_stream};
use tiller::{Error, Result};

use super::source::Source;
use crate::harvest::site;
use crate::open::{self, Machine, Strict, Texts};
use crate::output::Out;
use crate::paths::{check_outputs, shown};
use crate::plot;

/// A recipe has some forty numbers.
const MAX_RECIPE_BYTES: u64 = 1 << 20;

/// A sparse dictionary
#[derive(Clap)]
pub(crate) struct Args {
    /// Directories that `tiller harvest` wrote, all of one model and layer, or .npy, .npz, safetensors or torch files with
    /// rows [n, d]; without them, rows of --model that are made while they are needed
    #[arg(required_unless_present = "model")]
    rows: Vec<PathBuf>,
    #[command(flatten)]
    streaming: Streaming,
    /// The tensor that holds the rows, in files with several
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// The block whose output the rows are, from 0, where files do not say it
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    /// Which codes are kept
    #[arg(long, value_enum)]
    variant: Option<Which>,
    /// All settings as JSON, such as the recipe that a dictionary carries; other flags change them
    #[arg(long, value_name = "FILE.json")]
    recipe: Option<PathBuf>,
    /// The dictionary to write; with several sparsities, `-k32` or `-s0.5` is put before its extension
    #[arg(long, value_name = "FILE.gguf")]
    out: PathBuf,
    /// How weights are stored: f32, f16, bf16 or q8_0
    #[arg(long, default_value = "f16", value_parser = stored)]
    quant: GgmlType,
    /// Where to keep the state now and then; if the file is there, go on from it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Write the metrics of every step, a line of JSON each
    #[arg(long, value_name = "FILE.jsonl")]
    metrics: Option<PathBuf>,
    /// Draw them when the run is done
    #[arg(long, value_name = "FILE.svg", requires = "metrics")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    settings: Settings,
}

/// Rows that are never stored.
#[derive(Clap)]
struct Streaming {
    /// The model whose residual stream is read while the dictionary is trained
    #[arg(long, value_name = "FILE.gguf", requires = "text", requires = "layer", conflicts_with = "rows")]
    model: Option<PathBuf>,
    /// Text for it: .jsonl holds a document a line ("text" or "messages"), any other file is one document
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "model")]
    text: Vec<PathBuf>,
    /// Site of the block: resid_post, resid_pre, attn_out, resid_mid or mlp_out
    #[arg(long, default_value = "resid_post", value_parser = site, value_name = "SITE", requires = "model")]
    hook: Site,
    /// Longest window, in tokens
    #[arg(long, default_value_t = 512, value_name = "N", requires = "model")]
    context: usize,
    /// Stop after this many tokens, or less than a window more; 0 takes all the text
    #[arg(long, default_value_t = 0, value_name = "N", requires = "model")]
    max_tokens: u64,
    /// Rows that are shuffled together; while some are made, a quarter more is held
    #[arg(long, default_value_t = 131_072, value_name = "ROWS", requires = "model")]
    buffer: usize,
    /// Run a copy of the model requantized to this type, such as F16; the dictionary is marked as the model's
    #[arg(long, value_name = "TYPE", requires = "model")]
    run_as: Option<String>,
    #[command(flatten)]
    strict: Strict,
}

/// What changes the settings of the variant or of the recipe.
#[derive(Clap)]
struct Settings {
    /// Features of the dictionary [4096]
    #[arg(long, value_name = "N")]
    features: Option<usize>,
    /// Active features a row, on average [32]; several, separated by commas, are trained in one pass over the rows
    #[arg(long, value_name = "N", value_delimiter = ',')]
    k: Vec<usize>,
    /// A fixed weight of the sparsity penalty, instead of one that leads to k; several in one pass over the rows
    #[arg(long, value_name = "X", value_delimiter = ',', conflicts_with = "k")]
    sparsity: Vec<f32>,
    /// JumpReLU: penalise the squared distance of L0 from k, by this weight
    #[arg(long, value_name = "X", conflicts_with = "sparsity")]
    quadratic: Option<f32>,
    /// Steps in which that weight rises from zero [200]
    #[arg(long, value_name = "N")]
    sparsity_warm_up: Option<u64>,
    /// Codes a row at the start, in variants with a penalty [128]; 0: as many as biases of 0 let fire
    #[arg(long, value_name = "N")]
    start_l0: Option<usize>,
    /// JumpReLU: width of the rectangle in place of the derivative of the jump [0.05]
    #[arg(long, value_name = "X")]
    bandwidth: Option<f32>,
    /// JumpReLU: thresholds at the start, with --start-l0 0 [0.05]
    #[arg(long, value_name = "X")]
    threshold: Option<f32>,
    /// JumpReLU: train logarithms of thresholds
    #[arg(long)]
    log_threshold: bool,
    /// Matryoshka: features of the nested dictionaries, ascending
    #[arg(long, value_name = "N", value_delimiter = ',')]
    prefixes: Vec<usize>,
    /// P-annealing: the exponent at the end [0.2]
    #[arg(long, value_name = "X")]
    p_end: Option<f32>,
    /// Let the norms of decoder rows be what they will
    #[arg(long)]
    free_decoder: bool,
    /// Do not subtract the decoder's bias from rows
    #[arg(long)]
    keep_bias: bool,
    /// Rows a step [1024]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Times that every row is seen [4]
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Learning rate [0.003]
    #[arg(long, value_name = "X")]
    lr: Option<f32>,
    /// Steps in which the learning rate rises [100]
    #[arg(long, value_name = "N")]
    warm_up: Option<u64>,
    /// How the learning rate falls at the end [linear]
    #[arg(long, value_enum)]
    decay: Option<Falling>,
    /// The share of the run in which it falls [0.3]
    #[arg(long, value_name = "SHARE")]
    decay_share: Option<f32>,
    /// Cut all gradients together to this norm
    #[arg(long, value_name = "NORM")]
    clip: Option<f32>,
    /// Dead features a row may use to explain what the live ones missed [64]; 0: none
    #[arg(long, value_name = "N")]
    aux_k: Option<usize>,
    /// Rows without firing after which a feature is dead [250000]
    #[arg(long, value_name = "ROWS")]
    dead_after: Option<u64>,
    /// Steps after which dead features start anew at rows that are rebuilt badly
    #[arg(long, value_name = "STEPS")]
    resample_every: Option<u64>,
    /// The share of the documents kept out of training, to measure L0 and FVU on
    #[arg(long, value_name = "SHARE")]
    held_out: Option<f32>,
    /// Steps between two such measurements [250]
    #[arg(long, value_name = "STEPS")]
    evaluate_every: Option<u64>,
    /// Seed of the start, of the order of rows and of the documents kept out [0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    #[value(name = "topk")]
    TopK,
    #[value(name = "batchtopk")]
    BatchTopK,
    Matryoshka,
    Relu,
    #[value(name = "panneal")]
    PAnneal,
    #[value(name = "jumprelu")]
    JumpRelu,
    Gated,
}

#[derive(Clone, Copy, ValueEnum)]
enum Falling {
    None,
    Linear,
    Cosine,
}

impl Which {
    fn variant(self) -> Variant {
        match self {
            Self::TopK => Variant::TopK,
            Self::BatchTopK => Variant::BatchTopK,
            Self::Matryoshka => Variant::Matryoshka,
            Self::Relu => Variant::Relu,
            Self::PAnneal => Variant::PAnneal,
            Self::JumpRelu => Variant::JumpRelu,
            Self::Gated => Variant::Gated,
        }
    }
}

pub(super) fn stored(text: &str) -> std::result::Result<GgmlType, String> {
    let kind = GgmlType::from_name(&text.to_uppercase());
    let fits = |kind: &GgmlType| [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0].contains(kind);
    kind.filter(fits).ok_or_else(|| "expected f32, f16, bf16 or q8_0".into())
}

impl Settings {
    /// Puts what was given in place of what `options` have.
    fn change(&self, options: &mut Options) {
        fn put<T: Copy>(given: Option<T>, at: &mut T) {
            if let Some(value) = given {
                *at = value;
            }
        }
        put(self.features, &mut options.n_features);
        put(self.sparsity_warm_up, &mut options.sparsity_warm_up);
        put(self.start_l0, &mut options.start_l0);
        put(self.bandwidth, &mut options.bandwidth);
        put(self.threshold, &mut options.threshold);
        put(self.p_end, &mut options.p_end);
        put(self.batch, &mut options.batch);
        put(self.epochs, &mut options.epochs);
        put(self.lr, &mut options.lr);
        put(self.warm_up, &mut options.warm_up);
        put(self.decay_share, &mut options.decay_share);
        put(self.clip, &mut options.clip);
        put(self.aux_k, &mut options.aux_k);
        put(self.dead_after, &mut options.dead_after);
        put(self.resample_every, &mut options.resample_every);
        put(self.held_out, &mut options.held_out);
        put(self.evaluate_every, &mut options.evaluate_every);
        put(self.seed, &mut options.seed);
        put(self.quadratic.map(Sparsity::Quadratic), &mut options.sparsity);
        let decay = self.decay.map(|decay| match decay {
            Falling::None => Decay::None,
            Falling::Linear => Decay::Linear,
            Falling::Cosine => Decay::Cosine,
        });
        put(decay, &mut options.decay);
        if !self.prefixes.is_empty() {
            options.prefixes.clone_from(&self.prefixes);
        }
        options.log_threshold |= self.log_threshold;
        options.unit_decoder &= !self.free_decoder;
        options.subtract_bias &= !self.keep_bias;
    }

    /// A run for each sparsity, with what tells its files from the others'.
    fn runs(&self, options: &Options) -> Vec<(String, Options)> {
        let ks = self.k.iter().map(|&k| (format!("-k{k}"), Options { k, ..options.clone() }));
        let fixed = self.sparsity.iter().map(|&s| (format!("-s{s}"), Sparsity::Fixed(s)));
        let fixed = fixed.map(|(name, sparsity)| (name, Options { sparsity, ..options.clone() }));
        let mut runs: Vec<_> = ks.chain(fixed).collect();
        if let [(name, _)] = &mut runs[..] {
            name.clear();
        }
        if runs.is_empty() { vec![(String::new(), options.clone())] } else { runs }
    }
}

/// `path` with `mark` before its extension.
fn marked(path: &Path, mark: &str) -> PathBuf {
    if mark.is_empty() {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(mark);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let mut options = match &args.recipe {
        Some(path) => {
            let json = tiller::file::read_text(path, MAX_RECIPE_BYTES)?;
            Options::from_json(&json).map_err(|e| e.context(path.display()))?
        }
        None => Options::of(args.variant.map_or_else(Variant::default, Which::variant)),
    };
    if let Some(variant) = args.variant {
        options.variant = variant.variant();
    }
    options.threads = args.machine.threads;
    args.settings.change(&mut options);
    let (marks, runs): (Vec<_>, Vec<_>) = args.settings.runs(&options).into_iter().unzip();
    let files = |path: &Option<PathBuf>| -> Vec<PathBuf> {
        path.iter().flat_map(|path| marks.iter().map(move |mark| marked(path, mark))).collect()
    };
    let (checkpoints, journals) = (files(&args.checkpoint), files(&args.metrics));
    let outputs = [files(&Some(args.out.clone())), checkpoints.clone(), journals.clone(), files(&args.plot)].concat();
    let inputs = args.rows.iter().chain(&args.streaming.model).chain(&args.streaming.text);
    check_outputs(&outputs, inputs.chain(&args.recipe))?;

    let mut open: Vec<Journal> = journals.iter().map(|path| Journal::new(path)).collect();
    let mut last = vec![None::<Metrics>; runs.len()];
    let mut failed = Ok(());
    let mut bar = out.bar("train", "rows");
    let start = std::time::Instant::now();
    let mut on_step = |i: usize, metrics: &Metrics| {
        last[i] = Some(*metrics);
        if let Some(journal) = open.get_mut(i)
            && failed.is_ok()
        {
            failed = journal.push(metrics);
        }
    };
    let mut train = || match &args.streaming.model {
        Some(model) => {
            let mut engine = args.streaming.engine(model, &args.machine, out)?;
            open::notes(&engine, out);
            let text = Texts::read(&args.streaming.text, args.streaming.strict, out)?.readable(&engine)?;
            let streamed = args.streaming.streamed(model, args.layer.unwrap_or_default());
            let mut stream = engine.stream(&text, &streamed, &options, &mut |step| bar.step(step))?;
            let made = fit_stream(&mut stream, &runs, &checkpoints, &mut |step| bar.step(step), &mut on_step)?;
            Ok((stream.parts.iter().sum(), made))
        }
        None => {
            let source = Source::open(&args.rows, args.tensor.as_deref())?;
            let rows = with_layer(source.rows()?, args.layer)?;
            Ok((rows.len(), fit_many(&rows, &runs, &checkpoints, &mut |step| bar.step(step), &mut on_step)?))
        }
    };
    let (n_rows, made): (usize, _) = train().map_err(super::stopped(&checkpoints))?;
    drop(bar);
    let seconds = start.elapsed().as_secs_f64();
    let mut results = Vec::new();
    for (i, dictionary) in made.iter().enumerate() {
        let path = marked(&args.out, &marks[i]);
        dictionary.save_gguf(&path, args.quant)?;
        results.push(result(&path, dictionary, &runs[i], last[i].as_ref(), n_rows, seconds)?);
    }
    // A journal that could not be written costs no dictionary.
    failed?;
    for (journal, picture) in journals.iter().zip(files(&args.plot)) {
        plot::metrics(journal, &picture)?;
    }
    show(out, &results)
}

impl Streaming {
    /// The engine that makes the rows.
    fn engine(&self, model: &Path, machine: &Machine, out: &Out) -> Result<Engine> {
        let copy = self.run_as.as_ref().map(|kind| open::requantized(model, kind, None, machine.threads, out));
        let copy = copy.transpose()?;
        let batch = self.context.max(512);
        let options = engine::Options {
            threads: machine.threads,
            gpu_layers: machine.gpu_layers,
            context: batch,
            batch,
            sequences: 64,
            ..engine::Options::default()
        };
        Engine::open(copy.as_deref().unwrap_or(model), &options)
    }

    fn streamed(&self, model: &Path, layer: usize) -> Streamed {
        Streamed {
            point: HookPoint::new(self.hook, layer),
            window: self.context,
            max_tokens: self.max_tokens,
            buffer: self.buffer,
            counts_as: self.run_as.is_some().then(|| model.to_owned()),
        }
    }
}

/// Rows of a file, said to be those of a layer.
fn with_layer(rows: Rows<'_>, layer: Option<usize>) -> Result<Rows<'_>> {
    let Some(layer) = layer else { return Ok(rows) };
    if let Some(known) = rows.info().layer.filter(|&known| known != layer) {
        return Err(Error::mismatch(format!("the rows are of layer {known}, not {layer}")));
    }
    let hook = HookPoint::from(layer).to_string();
    let info = Info { layer: Some(layer), hook, ..rows.info().clone() };
    Ok(rows.with_info(info))
}

/// What there is to say of a dictionary.
fn result(
    path: &Path,
    dictionary: &Dictionary,
    options: &Options,
    last: Option<&Metrics>,
    n_rows: usize,
    seconds: f64,
) -> Result<Value> {
    let n_bytes = std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?.len();
    let stats = dictionary.feature_stats().unwrap_or_default();
    let dead = stats.iter().filter(|stats| stats.density == 0.0).count();
    let l0: f32 = stats.iter().map(|stats| stats.density).sum();
    Ok(json!({
        "dictionary": shown(path), "variant": options.variant.name(), "rows": n_rows, "features": dictionary.n_features(),
        "k": options.k, "l0": l0, "dead": dead, "bytes": n_bytes, "seconds": seconds, "last": last,
    }))
}

/// One dictionary as facts or an object, several as a list.
fn show(out: &Out, results: &[Value]) -> Result<()> {
    if out.json() {
        return match results {
            [one] => out.object(one),
            several => out.object(&json!({ "dictionaries": several })),
        };
    }
    for one in results {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let short = |value: &Value| value.as_f64().map_or_else(String::new, |number| format!("{number:.4}"));
        let last = &one["last"];
        out.facts(&[
            ("dictionary", plain(&one["dictionary"])),
            ("variant", plain(&one["variant"])),
            ("rows", plain(&one["rows"])),
            ("features", plain(&one["features"])),
            ("active a row", short(&one["l0"])),
            ("dead", plain(&one["dead"])),
            ("FVU", short(&last["fvu"])),
            ("FVU held out", short(&last["held_out"]["fvu"])),
            ("bytes", plain(&one["bytes"])),
            ("seconds", short(&one["seconds"])),
        ])?;
    }
    Ok(())
}
