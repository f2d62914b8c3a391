//! Paths that a command was given: said in JSON, and looked at before the work rather than after it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tiller::file::check_writable;
use tiller::{Error, Result};

/// A path as JSON holds it. A name need not be UTF-8, and JSON knows nothing else: bytes that are none become `U+FFFD`, as
/// everywhere where a path is shown.
pub(crate) fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// Refuses files to write that cannot be written, that are the same twice, or that are one of the command's own inputs, by
/// whatever link. Commands call it first: none works for an hour and then fails, or replaces what it was to read.
pub(crate) fn check_outputs<'a>(
    outputs: impl IntoIterator<Item = &'a PathBuf>,
    inputs: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<()> {
    let inputs: Vec<&PathBuf> = inputs.into_iter().collect();
    let mut before: Vec<&PathBuf> = Vec::new();
    for output in outputs {
        check_writable(output)?;
        let twice = before.iter().copied().find(|other| same(output, other) && is_kept(output));
        if let Some(other) = twice {
            let (output, other) = (output.display(), other.display());
            return Err(Error::argument(format!("{output}: two outputs would go to one file (the other is {other})")));
        }
        if let Some(input) = inputs.iter().copied().find(|input| same(output, input) || holds(input, output)) {
            let (output, input) = (output.display(), input.display());
            let error = Error::argument(format!("{output}: would replace {input}, which the command is to read"));
            return Err(error.hinted("give the output another name"));
        }
        before.push(output);
    }
    Ok(())
}

/// Whether what is written to `path` stays there; `/dev/null` may be given twice.
fn is_kept(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |meta| meta.is_file())
}

/// Whether two paths lead to one file, which need not be there yet.
fn same(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    if let (Ok(a), Ok(b)) = (std::fs::metadata(a), std::fs::metadata(b)) {
        use std::os::unix::fs::MetadataExt;
        return (a.dev(), a.ino()) == (b.dev(), b.ino());
    }
    place(a) == place(b)
}

/// The path without links and dots, as far as it exists.
fn place(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        parent.canonicalize().unwrap_or_else(|_| parent.to_owned()).join(path.file_name().unwrap_or_default())
    })
}

/// Whether `directory` is a harvest, and `path` one of its files.
fn holds(directory: &Path, path: &Path) -> bool {
    let inside = || {
        let place = place(path);
        let name = place.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let own = name == "meta.json" || (name.starts_with("rows-") && name.ends_with(".safetensors"));
        own && place.parent().is_some_and(|parent| same(parent, directory))
    };
    directory.is_dir() && inside()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_known_by_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("rows.npy"), b"x").unwrap();
        std::fs::hard_link(at("rows.npy"), at("hard")).unwrap();
        std::fs::create_dir(at("harvest")).unwrap();
        std::fs::write(at("harvest/meta.json"), b"{}").unwrap();
        let mut outputs = vec![at("rows.npy"), at("hard"), at("harvest/../rows.npy")];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("rows.npy", at("soft")).unwrap();
            outputs.push(at("soft"));
        }
        for output in &outputs {
            let error = check_outputs([output], [&at("rows.npy")]).unwrap_err();
            assert!(error.message().contains("would replace"), "{error}");
        }
        for name in ["meta.json", "rows-00007.safetensors"] {
            assert!(check_outputs([&at("harvest").join(name)], [&at("harvest")]).is_err());
        }
        check_outputs([&at("harvest/dictionary.gguf"), &at("new")], [&at("harvest"), &at("rows.npy")]).unwrap();
        let twice = check_outputs([&at("new"), &at("harvest/../new")], []).unwrap_err();
        assert!(twice.message().contains("two outputs"), "{twice}");
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_outputs([&dir.path().to_owned()], []).unwrap_err().message().contains("found a directory"));
        let error = check_outputs([&dir.path().join("no/file")], []).unwrap_err();
        assert!(error.message().contains("no/file: cannot create"), "{error}");
        #[cfg(unix)]
        check_outputs([&PathBuf::from("/dev/null"), &PathBuf::from("/dev/null")], []).unwrap();
    }
}
