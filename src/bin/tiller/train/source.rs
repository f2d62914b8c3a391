//! Where rows come from: harvested directories, files of others, or pairs of texts that a model reads.

use clap::Args;
use std::path::PathBuf;
use tiller::activations::Activations;
use tiller::dictionary::Info;
use tiller::engine::{Engine, Options, pairs};
use tiller::hook_point::HookPoint;
use tiller::model::Model;
use tiller::train::{Rows, Table};
use tiller::{Error, Result};

use crate::open::Machine;
use crate::output::Out;

/// Opened rows.
pub(crate) enum Source {
    Shards(Vec<Activations>),
    Tables(Vec<Table>),
}

impl Source {
    /// Opens directories of `tiller harvest`, or .npy, .npz, safetensors and torch files with a matrix of rows.
    pub(crate) fn open(paths: &[PathBuf], tensor: Option<&str>) -> Result<Self> {
        let shards = paths.iter().filter(|path| path.is_dir()).count();
        if shards > 0 && shards < paths.len() {
            return Err(Error::argument("rows: expected directories or files, found both; train on one kind"));
        }
        if shards > 0 {
            return Ok(Self::Shards(paths.iter().map(|path| Activations::open(path)).collect::<Result<_>>()?));
        }
        Ok(Self::Tables(paths.iter().map(|path| Table::open(path, tensor)).collect::<Result<_>>()?))
    }

    pub(crate) fn rows(&self) -> Result<Rows<'_>> {
        match self {
            Self::Shards(all) => Rows::from_activations(&all.iter().collect::<Vec<_>>()),
            Self::Tables(all) => Rows::from_tables(&all.iter().collect::<Vec<_>>()),
        }
    }

    /// The layer that harvested rows are of.
    pub(crate) fn layer(&self) -> Option<usize> {
        match self {
            Self::Shards(all) => all.first().map(|a| a.meta().layer),
            Self::Tables(_) => None,
        }
    }
}

/// Two kinds of rows.
#[derive(Args)]
pub(crate) struct Kinds {
    /// Rows of the first kind: directories of `tiller harvest`, or .npy, .npz, safetensors or torch files
    #[arg(long, num_args = 1.., value_name = "ROWS", requires = "negative", conflicts_with = "pairs")]
    pub(crate) positive: Vec<PathBuf>,
    /// Rows of the other kind; row i of both is a pair where pairs are needed
    #[arg(long, num_args = 1.., value_name = "ROWS", requires = "positive")]
    pub(crate) negative: Vec<PathBuf>,
    /// The tensor that holds the rows, in files with several
    #[arg(long, value_name = "NAME")]
    pub(crate) tensor: Option<String>,
    /// In place of rows: pairs of texts, read by --model at --layer. A .tsv file holds a positive and a negative text to a
    /// line between a tab; a .jsonl file {"positive": …, "negative": …}. The row of a text's last token is taken
    #[arg(long, value_name = "FILE", requires = "model")]
    pub(crate) pairs: Option<PathBuf>,
    /// The model that reads the pairs
    #[arg(long, value_name = "MODEL.gguf")]
    pub(crate) model: Option<PathBuf>,
    /// Blocks whose output is taken, from 0 (harvested rows know theirs)
    #[arg(long, value_delimiter = ',', value_name = "L")]
    pub(crate) layer: Vec<usize>,
    /// Tokens of the longest text of a pair
    #[arg(long, default_value_t = 512, value_name = "N", requires = "pairs")]
    pub(crate) context: usize,
}

/// Rows of two kinds at a layer.
pub(crate) struct Pair {
    /// If it is known.
    pub(crate) layer: Option<usize>,
    pub(crate) d_model: usize,
    pub(crate) positive: Vec<f32>,
    pub(crate) negative: Vec<f32>,
    pub(crate) info: Info,
}

impl Kinds {
    /// The files that are read.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.positive.iter().chain(&self.negative).chain(&self.pairs).chain(&self.model)
    }

    /// The rows, read into memory, one pair for each layer; and the architecture of the model, if there is one.
    pub(crate) fn read(&self, machine: &Machine, out: &Out) -> Result<(Vec<Pair>, Option<String>)> {
        let Some(file) = &self.pairs else {
            if self.positive.is_empty() {
                return Err(Error::argument(
                    "expected --positive ROWS and --negative ROWS, or --pairs FILE with --model",
                ));
            }
            let (one, other) = (
                Source::open(&self.positive, self.tensor.as_deref())?,
                Source::open(&self.negative, self.tensor.as_deref())?,
            );
            let (layer, found) = (one.layer(), other.layer());
            if layer != found {
                return Err(Error::mismatch(format!(
                    "positive rows are of layer {layer:?}, negative ones of {found:?}"
                )));
            }
            let layer = self.layer.first().copied().or(layer);
            let (up, down) = (one.rows()?, other.rows()?);
            if up.d_model() != down.d_model() {
                let (a, b) = (up.d_model(), down.d_model());
                return Err(Error::mismatch(format!("positive rows have width {a}, negative rows {b}")));
            }
            let pair = Pair {
                layer,
                d_model: up.d_model(),
                positive: collect(&up)?,
                negative: collect(&down)?,
                info: up.info().clone(),
            };
            return Ok((vec![pair], None));
        };
        let Some(path) = &self.model else { return Err(Error::argument("--pairs needs --model")) };
        if self.layer.is_empty() {
            return Err(Error::argument("--pairs needs --layer"));
        }
        let (up, down) = pairs(file)?;
        let model = Model::open(path)?;
        // A text is computed at once, so that its last row is there.
        let options = Options {
            threads: machine.threads,
            gpu_layers: machine.gpu_layers,
            context: self.context,
            batch: self.context,
            ..Options::default()
        };
        let mut engine = Engine::open(path, &options)?;
        let mut bar = out.bar("read", "texts");
        let mut all = Vec::new();
        for &layer in &self.layer {
            let point = HookPoint::from(layer);
            let positive = engine.last_rows(&up, point, &mut |step| bar.step(step))?;
            let negative = engine.last_rows(&down, point, &mut |step| bar.step(step))?;
            let info = Info {
                model_name: model.name().to_owned(),
                model_fingerprint: model.fingerprint().to_owned(),
                layer: Some(layer),
                hook: point.to_string(),
                ..Info::default()
            };
            all.push(Pair { layer: Some(layer), d_model: engine.d_model(), positive, negative, info });
        }
        Ok((all, Some(model.architecture().to_owned())))
    }
}

/// All rows, one after another.
pub(crate) fn collect(rows: &Rows<'_>) -> Result<Vec<f32>> {
    let d = rows.d_model();
    let mut all: Vec<f32> = tiller::file::zeros(rows.len().saturating_mul(d), "rows")?;
    for (i, row) in all.chunks_exact_mut(d).enumerate() {
        rows.read(i, row)?;
    }
    Ok(all)
}
