//! What was chosen and searched before for the same model, files, wish, prompt and sampling.

use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use tiller::model::Model;
use tiller::{Error, Result};

use super::{Wanted, Writing};
use crate::fetch::cache_dir;
use crate::plan::named_dictionary;
use crate::wish::Chosen;

/// Changes with what a search does.
const SEARCH_VERSION: u32 = 2;

pub(super) struct Kept {
    /// None where there is no place for it.
    path: Option<PathBuf>,
}

impl Kept {
    pub(super) fn of(wanted: &Wanted, writing: &Writing<'_>, model: &Model) -> Result<Self> {
        let wish = &wanted.wish;
        let mut hash = Sha256::new();
        for (name, path) in wanted.dictionary.iter().map(|text| named_dictionary(text)) {
            hash.update(name);
            hash.update(mark(path)?);
            let explanations = wish.explanations.clone().unwrap_or_else(|| path.with_extension("jsonl"));
            // A prompted choice works without.
            if explanations.is_file() || wish.prompted.is_none() {
                hash.update(mark(&explanations)?);
            }
        }
        let asked = (&wish.words, &wish.prompted, wish.features, wish.rank, wish.unit, wish.op.name());
        hash.update(format!(
            "{SEARCH_VERSION} {} {} {asked:?} {writing:?}",
            env!("CARGO_PKG_VERSION"),
            model.fingerprint()
        ));
        let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path: cache_dir().ok().map(|cache| cache.join("chosen").join(format!("{name}.json"))) })
    }

    /// None if there is none, or it cannot be read: then it is made anew.
    pub(super) fn read(&self) -> Option<(Vec<Chosen>, f32)> {
        serde_json::from_str(&tiller::file::read_text(self.path.as_ref()?, 1 << 20).ok()?).ok()
    }

    pub(super) fn write(&self, chosen: &[Chosen], strength: f32) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))?;
        }
        let text = serde_json::to_string(&(chosen, strength)).unwrap_or_default();
        tiller::file::write_atomic(path, |file| {
            file.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e))
        })
    }
}

/// What tells a file from others: what it holds; of a large one, its size and when it was written.
fn mark(path: &Path) -> Result<Vec<u8>> {
    const LARGE: u64 = 64 << 20;
    let wrong = |e| Error::io("read", path, e);
    let about = std::fs::metadata(path).map_err(wrong)?;
    if about.is_file() && about.len() <= LARGE {
        return Ok(Sha256::digest(tiller::file::read(path, LARGE)?).to_vec());
    }
    Ok(format!("{} {} {:?}", path.display(), about.len(), about.modified().ok()).into_bytes())
}
