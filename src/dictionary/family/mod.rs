//! Other people's dictionaries: every public family, read as its author's code reads it.
//!
//! A family is told by what its files hold, not by what they are called: names of tensors, a configuration beside them. What
//! the files leave out (the layer, the model, the k of Qwen-Scope) is taken from the names of their directories, which is
//! where their authors put it. Orientation comes from shapes; a square matrix lies as its family writes it.
//!
//! | file | families |
//! |---|---|
//! | `saelens.rs` | SAELens, six architectures and four transcoders |
//! | `gemma_scope.rs` | Gemma Scope 1 (npz) and 2 (safetensors) |
//! | `llama_scope.rs` | Llama Scope, its R1 form, newer OpenMOSS |
//! | `sparsify.rs` | EleutherAI sparsify |
//! | `dictionary_learning.rs` | dictionary_learning, seven classes |
//! | `openai.rs`, `qwen_scope.rs`, `goodfire.rs` | one each |
//! | `transcoder.rs` | circuit-tracer's transcoders, one file a layer, and cross-layer ones |
//! | `source.rs`, `reader.rs`, `config.rs` | what all share: the files, the arrays, the keys |

mod config;
mod dictionary_learning;
mod gemma_scope;
mod goodfire;
mod llama_scope;
mod openai;
mod qwen_scope;
mod reader;
pub(super) mod saelens;
mod source;
pub(super) mod sparsify;
mod transcoder;

use std::path::{Path, PathBuf};

use super::Dictionary;
use crate::error::{Error, Result};
use reader::{Draft, Reader};
use source::Source;

/// Who made a dictionary's files, and so how they are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Our own GGUF.
    Tiller,
    /// SAELens.
    Saelens,
    /// Gemma Scope, 1 and 2.
    GemmaScope,
    /// Llama Scope and what OpenMOSS writes since.
    LlamaScope,
    /// EleutherAI's sparsify.
    Sparsify,
    /// dictionary_learning.
    DictionaryLearning,
    /// OpenAI's sparse_autoencoder.
    OpenAi,
    /// Qwen-Scope.
    QwenScope,
    /// Goodfire.
    Goodfire,
    /// Transcoders with one file a layer, and cross-layer transcoders.
    Transcoder,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Tiller,
        Self::Saelens,
        Self::GemmaScope,
        Self::LlamaScope,
        Self::Sparsify,
        Self::DictionaryLearning,
        Self::OpenAi,
        Self::QwenScope,
        Self::Goodfire,
        Self::Transcoder,
    ];

    /// The name by which people ask for it, such as `gemma_scope`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiller => "tiller",
            Self::Saelens => "saelens",
            Self::GemmaScope => "gemma_scope",
            Self::LlamaScope => "llama_scope",
            Self::Sparsify => "sparsify",
            Self::DictionaryLearning => "dictionary_learning",
            Self::OpenAi => "openai",
            Self::QwenScope => "qwen_scope",
            Self::Goodfire => "goodfire",
            Self::Transcoder => "transcoder",
        }
    }

    /// The family called `name`, with any of `-`, `_` or nothing between the words.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain = |s: &str| s.to_lowercase().replace(['-', '_', ' '], "");
        Self::ALL.into_iter().find(|family| plain(family.name()) == plain(name))
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Opens a directory or a file of another program; of `family`, if that is known.
pub(super) fn open(path: &Path, family: Option<Family>) -> Result<Dictionary> {
    let source = Source::find(path)?;
    let mut reader = Reader::new(&source);
    let (family, draft) = match family.or_else(|| recognize(&source)) {
        Some(family) => (family, read(family, &mut reader)?),
        None => return Err(unknown(&source)),
    };
    let notes = reader.into_notes();
    draft.finish(&source, family, notes)
}

/// The files whose contents decide what [`open`] gives, the weights first.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(Source::find(path)?.files())
}

fn read(family: Family, reader: &mut Reader<'_>) -> Result<Draft> {
    match family {
        Family::Tiller => {
            let path = reader.source().path();
            Err(Error::format(path, "expected one of our GGUF files, found a file or directory of another program"))
        }
        Family::Saelens => saelens::read(reader),
        Family::GemmaScope => gemma_scope::read(reader),
        Family::LlamaScope => llama_scope::read(reader),
        Family::Sparsify => sparsify::read(reader),
        Family::DictionaryLearning => dictionary_learning::read(reader),
        Family::OpenAi => openai::read(reader),
        Family::QwenScope => qwen_scope::read(reader),
        Family::Goodfire => goodfire::read(reader),
        Family::Transcoder => transcoder::read(reader),
    }
}

/// The family that the names of the tensors, and the configuration where these are shared, speak for.
fn recognize(source: &Source) -> Option<Family> {
    let has = |names: &[&str]| names.iter().all(|name| source.weights().opt(name).is_some());
    let beside = |file: &str| source.beside(file).is_some();
    if has(&["pre_bias", "latent_bias"]) {
        return Some(Family::OpenAi);
    }
    if has(&["encoder_linear.weight"]) {
        return Some(Family::Goodfire);
    }
    if has(&["w_enc", "w_dec"]) || (source.is_npz() && has(&["W_enc", "W_dec"])) {
        return Some(Family::GemmaScope);
    }
    if has(&["W_E", "W_D"]) || beside("hyperparams.json") {
        return Some(Family::LlamaScope);
    }
    if has(&["encoder.weight", "W_dec"]) {
        return Some(Family::Sparsify);
    }
    if has(&["encoder.weight"]) {
        let open_moss = has(&["log_jumprelu_threshold"]) || (beside("config.json") && !source.is_pickle());
        return Some(if open_moss { Family::LlamaScope } else { Family::DictionaryLearning });
    }
    if transcoder::layer_of_cross(source).is_some() {
        return Some(Family::Transcoder);
    }
    if has(&["W_enc", "W_dec"]) {
        let layer = source::number_behind(source.stem(), "layer_").is_some();
        return match source.is_pickle() {
            // dictionary_learning's classes have a threshold; Qwen-Scope's have none.
            true if has(&["threshold"]) => Some(Family::DictionaryLearning),
            true => Some(Family::QwenScope),
            false if beside(saelens::CONFIG) || source.file_name() == saelens::WEIGHTS => Some(Family::Saelens),
            false => Some(Family::Transcoder).filter(|_| layer || beside("config.yaml")),
        };
    }
    // Something is missing, and the reader of the family whose file is called so says what.
    match source.file_name() {
        saelens::WEIGHTS if beside(saelens::CONFIG) => Some(Family::Saelens),
        sparsify::WEIGHTS if beside(sparsify::CONFIG) => Some(Family::Sparsify),
        "params.npz" | "params.safetensors" => Some(Family::GemmaScope),
        "ae.pt" => Some(Family::DictionaryLearning),
        _ => None,
    }
}

/// Names what was found where no family fits.
fn unknown(source: &Source) -> Error {
    let names: Vec<&str> = source.weights().names().take(13).collect();
    let more = if names.len() > 12 { ", …" } else { "" };
    let found = match names.is_empty() {
        true => "no tensors".to_owned(),
        false => format!("tensors {}{more}", names.iter().take(12).copied().collect::<Vec<_>>().join(", ")),
    };
    let families = Family::ALL.map(Family::name).join(", ");
    Error::format(
        source.weights().path(),
        format!("expected a dictionary of a known family ({families}), found {found}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_family() {
        for family in Family::ALL {
            assert_eq!(Family::from_name(family.name()), Some(family));
            assert_eq!(Family::from_name(&family.name().to_uppercase().replace('_', "-")), Some(family));
        }
        assert_eq!(Family::from_name("other"), None);
    }
}
