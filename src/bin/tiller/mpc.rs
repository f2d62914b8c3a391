//! `tiller eval mpc`: coders and dictionaries, ranked by how well single features say what concepts are.

use clap::Args as Clap;
use serde_json::json;
use std::path::{Path, PathBuf};
use tiller::dictionary::Dictionary;
use tiller::eval::mpc::{Concept, Mpc, PAIRS, Relation, of_coder, of_dictionary, read_words};
use tiller::eval::sinks::Sinks;
use tiller::hook_point::HookPoint;
use tiller::progress::Progress;
use tiller::train::Rows;
use tiller::train::dense::Coder;
use tiller::{Error, Result};

use crate::open::Machine;
use crate::output::{Out, when_cancelled};
use crate::train::Source;

#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// Coders (.safetensors of train conca) and dictionaries to compare
    #[arg(required = true)]
    featurizers: Vec<PathBuf>,
    /// The block whose output they read, from 0 [default: what the first of them says]
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    /// Word pairs: a relation, a word and its counterpart to a line, between tabs; 27 relations are built in
    #[arg(long, value_name = "FILE.tsv")]
    pairs: Option<PathBuf>,
    /// Write the built-in pairs to a file, to be edited, and stop
    #[arg(long, value_name = "FILE.tsv")]
    write_pairs: Option<PathBuf>,
    /// Harvested rows on which reconstructions are measured
    #[arg(long, num_args = 1.., value_name = "ROWS")]
    rows: Vec<PathBuf>,
    /// So many of these rows, taken evenly
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_rows: usize,
    /// Show which feature was matched with which relation
    #[arg(long)]
    matches: bool,
    #[command(flatten)]
    machine: Machine,
}

enum Featurizer {
    Coder(Coder),
    Dictionary(Dictionary),
}

impl Featurizer {
    fn open(path: &Path) -> Result<Self> {
        // A coder says in its header what it is; everything else is left to the dictionaries' families.
        if path.is_file() && Coder::recognize(path)? {
            return Coder::open(path).map(Self::Coder);
        }
        Dictionary::open(path).map(Self::Dictionary)
    }

    fn n_features(&self) -> usize {
        match self {
            Self::Coder(coder) => coder.n_latents(),
            Self::Dictionary(dictionary) => dictionary.n_features(),
        }
    }

    fn layer(&self) -> Option<usize> {
        match self {
            Self::Coder(coder) => coder.info().layer,
            Self::Dictionary(dictionary) => dictionary.layer(),
        }
    }

    fn d_model(&self) -> usize {
        match self {
            Self::Coder(coder) => coder.d_model(),
            Self::Dictionary(dictionary) => dictionary.d_model(),
        }
    }

    fn mpc(&self, concepts: &[Concept], threads: usize, progress: &mut Progress<'_>) -> Result<Mpc> {
        match self {
            Self::Coder(coder) => of_coder(concepts, coder, threads, progress),
            Self::Dictionary(dictionary) => of_dictionary(concepts, dictionary, threads, progress),
        }
    }

    /// Σ‖x − x̂‖² over rows.
    fn error(&self, rows: &[f32], threads: usize) -> f64 {
        let d = self.d_model();
        let rebuilt = match self {
            Self::Coder(coder) => coder.decode(&coder.encode(rows, threads), threads),
            Self::Dictionary(dictionary) => {
                let codes = dictionary.encode_batch(rows, threads);
                let mut out = vec![0f32; rows.len()];
                for ((x, out), codes) in rows.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(codes.rows()) {
                    dictionary.reconstruct(x, codes, out);
                }
                out
            }
        };
        rows.iter().zip(&rebuilt).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }
}

struct Line {
    path: PathBuf,
    n_features: usize,
    found: Mpc,
    /// Mean squared error of a row, and its share of the variance.
    error: Option<(f64, f64)>,
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    if let Some(path) = &args.write_pairs {
        return tiller::file::write_atomic(path, |file| {
            std::io::Write::write_all(file, PAIRS.as_bytes()).map_err(|e| Error::io("write", path, e))
        });
    }
    let relations = match &args.pairs {
        Some(path) => Relation::load(path)?,
        None => Relation::built_in()?,
    };
    let featurizers = args.featurizers.iter().map(|path| Featurizer::open(path)).collect::<Result<Vec<_>>>()?;
    let said = featurizers.iter().find_map(Featurizer::layer);
    let layer = args.layer.or(said).ok_or_else(|| Error::argument("no file says its layer: give it with --layer"))?;
    let mut engine = args.machine.engine(&args.model, 512, 1)?;
    for (path, featurizer) in args.featurizers.iter().zip(&featurizers) {
        if featurizer.d_model() != engine.d_model() {
            let (found, expected) = (featurizer.d_model(), engine.d_model());
            return Err(Error::mismatch(format!("{}: width {found}, the model's is {expected}", path.display())));
        }
    }
    let mut bar = out.bar("read", "words");
    let concepts = read_words(&mut engine, &relations, HookPoint::from(layer), &mut |step| bar.step(step))?;
    drop(bar);
    let rows = sample(args)?;
    let threads = args.machine.n_threads();
    let mut lines = Vec::new();
    let mut measure = |path: &PathBuf, featurizer: &Featurizer| -> Result<()> {
        let mut bar = out.bar("match", "concepts");
        let n_features = featurizer.n_features();
        let found = featurizer.mpc(&concepts, threads, &mut |step| bar.step(step))?;
        let error = rows.as_ref().map(|(rows, variance)| {
            let n = (rows.len() / featurizer.d_model()) as f64;
            let error: f64 =
                rows.chunks(512 * featurizer.d_model()).map(|block| featurizer.error(block, threads)).sum();
            (error / n, error / variance)
        });
        lines.push(Line { path: path.clone(), n_features, found, error });
        Ok(())
    };
    let measured = args.featurizers.iter().zip(&featurizers).try_for_each(|(path, one)| measure(path, one));
    if lines.is_empty() {
        return measured;
    }
    // Those that were measured before a failure, or before Ctrl-C, are shown.
    lines.sort_by(|a, b| b.found.mpc.total_cmp(&a.found.mpc));
    tell(args, &lines, out)?;
    measured.map_err(when_cancelled("those measured before are above"))
}

/// Rows to rebuild, and their squared distance from their mean.
fn sample(args: &Args) -> Result<Option<(Vec<f32>, f64)>> {
    if args.rows.is_empty() {
        return Ok(None);
    }
    let source = Source::open(&args.rows, None)?;
    let rows: Rows<'_> = source.rows()?;
    let (d, n) = (rows.d_model(), rows.len().min(args.max_rows.max(1)));
    let mut all = vec![0f32; n * d];
    for (i, row) in all.chunks_exact_mut(d).enumerate() {
        rows.read((i as u64 * rows.len() as u64 / n as u64) as usize, row)?;
    }
    // Attention sinks apart, as `eval::quality` does.
    let kept = Sinks::of(&all, d).without(&all).unwrap_or(all);
    let mut mean = vec![0f64; d];
    let count = (kept.len() / d) as f64;
    kept.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x) / count));
    let variance: f64 =
        kept.chunks_exact(d).flat_map(|row| row.iter().zip(&mean).map(|(&x, m)| (f64::from(x) - m).powi(2))).sum();
    Ok(Some((kept, variance)))
}

fn tell(args: &Args, lines: &[Line], out: &Out) -> Result<()> {
    if out.json() {
        return lines.iter().try_for_each(|line| {
            out.object(&json!({
                "file": crate::paths::shown(&line.path), "features": line.n_features, "mpc": line.found.mpc, "raw": line.found.raw,
                "shuffled": line.found.shuffled, "shuffled_raw": line.found.shuffled_raw,
                "mse": line.error.map(|e| e.0), "fvu": line.error.map(|e| e.1), "matches": line.found.matches,
            }))
        });
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let number = |value: Option<f64>, digits: usize| value.map_or_else(String::new, |v| format!("{v:.digits$}"));
    let columns = ["featurizer", "features", "MPC", "by chance", "raw codes", "by chance", "MSE", "FVU"];
    out.table(
        &columns,
        lines.iter().map(|line| {
            vec![
                name(&line.path),
                line.n_features.to_string(),
                format!("{:.4}", line.found.mpc),
                format!("{:.4}", line.found.shuffled),
                format!("{:.4}", line.found.raw),
                format!("{:.4}", line.found.shuffled_raw),
                number(line.error.map(|e| e.0), 2),
                number(line.error.map(|e| e.1), 4),
            ]
        }),
    )?;
    if args.matches {
        for line in lines {
            let rows = line.found.matches.iter();
            let rows = rows.map(|m| vec![m.name.clone(), m.feature.to_string(), format!("{:.4}", m.correlation)]);
            out.table(&[name(&line.path).as_str(), "feature", "|Pearson|"], rows)?;
        }
    }
    Ok(())
}
