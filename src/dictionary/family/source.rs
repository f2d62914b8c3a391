//! The files of somebody else's dictionary: which of them holds the weights, and what their directories are called.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file::Tensors;

/// Where families put their weights, in the order in which they are looked for.
const WEIGHTS: [&str; 9] = [
    "sae_weights.safetensors",
    "sae.safetensors",
    "params.safetensors",
    "params.npz",
    "ae.pt",
    "checkpoints/final.safetensors",
    "checkpoints/pruned.safetensors",
    "sae_weights.pt",
    "checkpoints/final.pt",
];
/// Files that hold tensors, by their ending.
const ENDINGS: [&str; 4] = ["safetensors", "npz", "pt", "pth"];
/// Files with tensors that are no weights.
const OTHERS: [&str; 3] = ["sparsity.safetensors", "examples.safetensors", "activations.safetensors"];
/// What may lie beside the weights and is read too.
const CONFIGURATIONS: [&str; 8] = [
    "cfg.json",
    "config.json",
    "hyperparams.json",
    "config.yaml",
    "wandb-config.yaml",
    "wanb-config.yaml",
    "runner_cfg.json",
    "sparsity.safetensors",
];

/// A dictionary's files.
pub(super) struct Source {
    /// As the caller named it.
    path: PathBuf,
    /// Where configurations lie: the directory of the weights, or the one above `checkpoints`.
    dir: PathBuf,
    weights: Tensors,
    /// The directories and the file of the weights from the outermost on, for what only their names say.
    names: Vec<String>,
}

impl Source {
    /// Finds and opens the weights at `path`: a directory, a file with tensors, or a configuration beside one.
    pub(super) fn find(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        let weights = if path.is_dir() {
            weights_in(path)?
        } else if matches!(ending.as_str(), "json" | "yaml") && path.is_file() {
            weights_in(path.parent().unwrap_or(Path::new(".")))?
        } else {
            path.to_path_buf()
        };
        let dir = weights.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
        let dir = match dir.file_name() {
            Some(name) if name == "checkpoints" => dir.parent().unwrap_or(&dir).to_path_buf(),
            _ => dir,
        };
        // Absolute, but links not followed: caches of downloads keep names in links and contents elsewhere.
        let whole = std::path::absolute(&weights).map_err(|e| Error::io("find", &weights, e))?;
        let names = whole.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        let weights = Tensors::open(&weights)?;
        Ok(Self { path: path.to_path_buf(), dir, weights, names })
    }

    /// As the caller named it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors.
    pub(super) fn weights(&self) -> &Tensors {
        &self.weights
    }

    /// The file `name` beside the weights, if there is one.
    pub(super) fn beside(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name)).filter(|path| path.is_file())
    }

    /// The file `name` in the directory above, if there is one.
    pub(super) fn above(&self, name: &str) -> Option<PathBuf> {
        let dir = std::path::absolute(&self.dir).ok()?;
        Some(dir.parent()?.join(name)).filter(|path| path.is_file())
    }

    fn ends(&self, ending: &str) -> bool {
        self.file_name().to_lowercase().ends_with(ending)
    }

    /// Whether the weights are NumPy's.
    pub(super) fn is_npz(&self) -> bool {
        self.ends(".npz")
    }

    /// Whether the weights are pickled by torch.
    pub(super) fn is_pickle(&self) -> bool {
        self.ends(".pt") || self.ends(".pth")
    }

    /// The file of the weights.
    pub(super) fn file_name(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }

    /// The file of the weights without its ending.
    pub(super) fn stem(&self) -> &str {
        let name = self.file_name();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }

    /// The name of the directory that holds it all.
    pub(super) fn title(&self) -> String {
        let dir = std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone());
        dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The names of the directories and of the file, innermost first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().rev().map(String::as_str)
    }

    /// The number behind `mark` in the innermost name that has one: 12 of `layer_12` behind `layer_`.
    pub(super) fn number_behind(&self, mark: &str) -> Option<usize> {
        self.names().find_map(|name| number_behind(name, mark))
    }

    /// Everything that decides what is read, the weights first.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let beside = CONFIGURATIONS.iter().filter_map(|name| self.beside(name));
        let above = CONFIGURATIONS.iter().filter_map(|name| self.above(name));
        std::iter::once(self.weights.path().to_path_buf()).chain(beside).chain(above).collect()
    }
}

/// The number behind `mark` in `name`.
pub(super) fn number_behind(name: &str, mark: &str) -> Option<usize> {
    name.match_indices(mark).find_map(|(at, _)| {
        let digits: String = name.get(at + mark.len()..)?.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

/// The weights in `dir`: by the names that families use, or the only file with tensors.
fn weights_in(dir: &Path) -> Result<PathBuf> {
    if let Some(found) = WEIGHTS.iter().map(|name| dir.join(name)).find(|path| path.is_file()) {
        return Ok(found);
    }
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let path = entry.map_err(|e| Error::io("list", dir, e))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if ENDINGS.contains(&ending.as_str()) && !OTHERS.contains(&name.as_str()) && path.is_file() {
            all.push(name);
        }
    }
    all.sort();
    match all.as_slice() {
        [only] => Ok(dir.join(only)),
        [] => {
            let names = WEIGHTS.join(", ");
            Err(Error::format(dir, format!("expected a directory with weights ({names}), found none")))
        }
        [first, .., last] => {
            let n = all.len();
            Err(Error::format(
                dir,
                format!("expected one file of weights, found {n}, {first} to {last}: name one of them"),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names() {
        assert_eq!(number_behind("layer_12", "layer_"), Some(12));
        assert_eq!(number_behind("resid_post_layer_3_width_16k", "layer_"), Some(3));
        assert_eq!(number_behind("layers.7.mlp", "layers."), Some(7));
        assert_eq!(number_behind("layer_x_layer_4", "layer_"), Some(4));
        assert_eq!(number_behind("layer", "layer_"), None);
        assert_eq!(number_behind("layer_99999999999999999999999", "layer_"), None);
    }
}
