//! Options that several commands share: how a model is opened, how it writes, and what text it reads.

use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiller::dictionary::Dictionary;
use tiller::engine::{Document, Engine, Generate, Options, each_document, faster_type, requantize};
use tiller::file::gguf::{GgmlType, Gguf};
use tiller::model::Model;
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

/// The most bytes that a copy for learning may take, on disk and in memory.
const MOST_COPY: usize = 3 << 29;

/// The copy of a model that its features are learned with: `kind` if the user asked for one; else in a type that runs faster,
/// where that is so for most of the model and the copy is small. On AVX2 SmolLM2 in Q4_1 reads 122 tokens a second and core, in
/// F16 270; with AMX Qwen2.5-0.5B, which is mostly Q5_0, learns in 384 seconds, in Q8_0 in 170.
pub(crate) fn learner(model: &Path, kind: Option<&str>, machine: &Machine, out: &Out) -> Result<Option<PathBuf>> {
    let kind = match kind {
        Some(kind) => Some(kind.to_owned()),
        None if machine.gpu_layers == 0 => faster(&Gguf::open(model)?).map(|kind| kind.to_string()),
        None => None,
    };
    kind.map(|kind| requantized(model, &kind, None, machine.n_threads(), out)).transpose()
}

/// The type that a small model runs faster in, if that is so for most of it.
fn faster(file: &Gguf) -> Option<GgmlType> {
    let kinds = [GgmlType::Q8_0, GgmlType::F16];
    let bytes = |wanted: &dyn Fn(GgmlType) -> bool| -> usize {
        file.tensors().iter().filter(|tensor| wanted(tensor.kind)).map(|tensor| tensor.n_bytes).sum()
    };
    let (kind, slow) =
        kinds.map(|kind| (kind, bytes(&|own| faster_type(own) == Some(kind)))).into_iter().max_by_key(|(_, n)| *n)?;
    let copy = file.tensors().iter().map(|t| t.row_len() * t.n_rows()).sum::<usize>() / 16
        * if kind == GgmlType::F16 { 32 } else { 17 };
    (2 * slow > bytes(&|_| true) && copy <= MOST_COPY).then_some(kind)
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
