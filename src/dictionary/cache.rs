//! Converted copies of dictionaries whose files cannot be used where they lie.
//!
//! A compressed npz or a matrix stored the other way round costs seconds and memory at each opening. [`Dictionary::open_cached`]
//! converts such a source once, in the types that it has, and maps the copy from then on. The copy's name is a fingerprint of
//! the source's files (path, size, time of change), of the family and of this format, so that a changed source has another
//! name; old copies are the caller's to delete.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::{Dictionary, Family, family, gguf};
use crate::error::{Error, Result};
use crate::file::gguf::GgmlType;

/// Counts up whenever the same source would be converted to something else.
const GENERATION: u32 = 1;

impl Dictionary {
    /// Opens a dictionary as [`Dictionary::open_as`] does, by way of a converted copy in `cache` if its files cannot be
    /// mapped as they are; the directory is made if it is missing.
    ///
    /// # Errors
    /// As [`Dictionary::open_as`], and [`Kind::Io`](crate::Kind::Io) if the copy cannot be written.
    pub fn open_cached(path: &Path, family: Option<Family>, cache: &Path) -> Result<Self> {
        if super::is_ours(path, family) {
            return Self::open_as(path, family);
        }
        let copy = cache.join(format!("{}.gguf", fingerprint(&family::files(path)?, family)?));
        if copy.is_file()
            && let Ok(dictionary) = gguf::open(&copy)
        {
            return Ok(dictionary);
        }
        let dictionary = Self::open_as(path, family)?;
        if dictionary.encoder.is_mapped() && dictionary.decoder.is_mapped() {
            return Ok(dictionary);
        }
        std::fs::create_dir_all(cache).map_err(|e| Error::io("create", cache, e))?;
        dictionary.save_gguf(&copy, own_type(&dictionary))?;
        gguf::open(&copy)
    }
}

/// The type that loses nothing.
fn own_type(dictionary: &Dictionary) -> GgmlType {
    let (encoder, decoder) = (dictionary.encoder.type_name(), dictionary.decoder.type_name());
    // Folding rounds again: not in half precision.
    match encoder {
        "F16" if decoder == encoder && !dictionary.settings.rescale_by_decoder_norm => GgmlType::F16,
        "BF16" if decoder == encoder && !dictionary.settings.rescale_by_decoder_norm => GgmlType::BF16,
        _ => GgmlType::F32,
    }
}

fn fingerprint(files: &[PathBuf], family: Option<Family>) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(GENERATION.to_le_bytes());
    hash.update(family.map_or("", Family::name));
    for path in files {
        let whole = std::path::absolute(path).map_err(|e| Error::io("find", path, e))?;
        let meta = std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
        let changed = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |t| t.as_nanos());
        let name = whole.as_os_str().as_encoded_bytes();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(meta.len().to_le_bytes());
        hash.update(changed.to_le_bytes());
    }
    Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}
