//! What was learned for a bench: by instruction, and kept beside its records, so that a run that goes on learns nothing anew.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tiller::choose::learn::{Outcome, Report, Request};
use tiller::dictionary::Dictionary;
use tiller::engine::Engine;
use tiller::file::gguf::GgmlType;
use tiller::file::{read_text_if_there, write_atomic};
use tiller::plan::ControlVector;
use tiller::{Error, Kind, Result};

use crate::output::Out;
use crate::steer;

/// A report has some hundred kilobytes.
const MAX_BYTES: u64 = 64 << 20;

/// What an instruction does to the model, or why nothing can be learned from it.
pub(super) type Found = std::result::Result<Arc<Made>, String>;

/// What was learned from one instruction.
pub(super) struct Made {
    pub(super) dictionary: Arc<Dictionary>,
    pub(super) vector: Option<ControlVector>,
    pub(super) report: Report,
}

/// What lies in a file: the report, or why there is none.
#[derive(Serialize, Deserialize)]
enum Kept {
    Report(Box<Report>),
    Nothing(String),
}

/// Everything that one model has learned.
pub(super) struct Shelf<'a> {
    /// Fingerprint of the model and version of the learner.
    model: String,
    directory: Option<PathBuf>,
    threads: usize,
    out: &'a Out,
    all: BTreeMap<String, Found>,
}

impl<'a> Shelf<'a> {
    /// `keep` is the file of records; what is learned lies in a directory beside it.
    pub(super) fn new(model: &str, keep: Option<&Path>, threads: usize, out: &'a Out) -> Self {
        let directory = keep.map(|path| path.with_extension("learned"));
        Self { model: model.to_owned(), directory, threads, out, all: BTreeMap::new() }
    }

    /// What `instruction` does to the model: known, kept, or learned now.
    pub(super) fn get(&mut self, engine: &Engine, instruction: &str) -> Result<Found> {
        if let Some(found) = self.all.get(instruction) {
            return Ok(found.clone());
        }
        let place = self.directory.as_ref().map(|directory| directory.join(self.key(instruction)));
        let found = match place.as_deref().map(load).transpose()?.flatten() {
            Some(found) => found,
            None => self.learn(engine, instruction, place.as_deref())?,
        };
        self.all.insert(instruction.to_owned(), found.clone());
        Ok(found)
    }

    fn learn(&self, engine: &Engine, instruction: &str, place: Option<&Path>) -> Result<Found> {
        let request = Request { threads: self.threads, ..Request::new(instruction) };
        let found = match steer::learn(engine, request, self.out) {
            Ok(Outcome { dictionary, control_vector, report, .. }) => {
                Ok(Arc::new(Made { dictionary: Arc::new(dictionary), vector: control_vector, report }))
            }
            Err(error) if error.kind() == Kind::Unsupported => {
                self.out.note(format!("warning: {instruction}: {}", error.message()));
                Err(error.message().to_owned())
            }
            Err(error) => return Err(error),
        };
        if let Some(place) = place {
            save(place, &found, engine.architecture())?;
        }
        Ok(found)
    }

    fn key(&self, instruction: &str) -> String {
        let hash = Sha256::digest(format!("{}\n{instruction}", self.model));
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Its report is written last, so a place without one holds nothing.
fn save(place: &Path, found: &Found, architecture: &str) -> Result<()> {
    std::fs::create_dir_all(place).map_err(|e| Error::io("create", place, e))?;
    let kept = match found {
        Ok(made) => {
            made.dictionary.save_gguf(&place.join("features.gguf"), GgmlType::F32)?;
            if let Some(vector) = &made.vector {
                vector.save(&place.join("constant.gguf"), architecture)?;
            }
            Kept::Report(Box::new(made.report.clone()))
        }
        Err(why) => Kept::Nothing(why.clone()),
    };
    let json = serde_json::to_string(&kept).map_err(|e| Error::numeric(format!("report: {e}")))?;
    let path = place.join("report.json");
    write_atomic(&path, |file| file.write_all(json.as_bytes()).map_err(|e| Error::io("write", &path, e)))
}

fn load(place: &Path) -> Result<Option<Found>> {
    let path = place.join("report.json");
    let Some(json) = read_text_if_there(&path, MAX_BYTES)? else { return Ok(None) };
    // What cannot be read is learned anew.
    let report = match serde_json::from_str(&json) {
        Ok(Kept::Report(report)) => report,
        Ok(Kept::Nothing(why)) => return Ok(Some(Err(why))),
        Err(_) => return Ok(None),
    };
    let constant = place.join("constant.gguf");
    let vector = constant.is_file().then(|| ControlVector::open(&constant)).transpose()?;
    let dictionary = Arc::new(Dictionary::open(&place.join("features.gguf"))?);
    Ok(Some(Ok(Arc::new(Made { dictionary, vector, report: *report }))))
}
