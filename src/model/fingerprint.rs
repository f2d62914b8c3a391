//! Which model is this? A short answer that a dictionary can keep.
//!
//! A dictionary was trained on the residual stream of one model. It also serves other quantizations of the same
//! checkpoint, less surely its fine-tunes, and nothing else. So the fingerprint has three parts, 64 hexadecimal digits in
//! all, and [`Kinship`] tells from two of them how near their models are.
//!
//! | digits | part | changes with |
//! |---|---|---|
//! | 0–15 | build | architecture, number of layers, width, and the texts of the tokens and their order |
//! | 16–31 | checkpoint | the values of one-dimensional F32 tensors (norms and biases), which no quantizer touches, so it is the same for all quantizations of a checkpoint and, as far as training moved a norm at all, differs for fine-tunes |
//! | 32–63 | file | names, types and shapes of all tensors, and a sample of their bytes: 1,024 from the middle of each |
//!
//! It does not change with names, licences, chat templates, context length, rope settings, special token ids, the order
//! of keys and tensors, padding, or the container's version. An edit of a tensor outside the sampled bytes goes unseen:
//! this tells files apart that people mix up, it does not defend against forgery. Cost: the vocabulary is read once, and
//! a page of each tensor: some milliseconds.

use sha2::{Digest, Sha256};

use crate::file::gguf::{GgmlType, Gguf, Tensor};

/// Bytes sampled from each tensor. A fine-tune or another quantization changes nearly every byte of a weight matrix, so
/// one page serves as well as all.
const SAMPLE_BYTES: usize = 1024;
/// Hexadecimal digits of the build and of the checkpoint.
const PART: usize = 16;

/// How near two models are, by their fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kinship {
    /// Another architecture, size or vocabulary: nothing of one fits the other.
    Stranger,
    /// The same build with other weights: a fine-tune, or another model of the family.
    Relative,
    /// The same checkpoint in another quantization.
    Sibling,
    /// The same file, as far as sampling tells.
    Same,
}

impl Kinship {
    /// Compares two fingerprints; texts that are none are strangers unless they are equal.
    pub fn of(a: &str, b: &str) -> Self {
        let part = |s: &'_ str, from: usize| s.get(from..from + PART).map(str::to_owned);
        if a == b {
            Self::Same
        } else if part(a, 0).is_none() || part(a, 0) != part(b, 0) {
            Self::Stranger
        } else if part(a, PART).is_none() || part(a, PART) != part(b, PART) {
            Self::Relative
        } else {
            Self::Sibling
        }
    }

    /// Half a sentence on what it means, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Stranger => "another model: other architecture, size or vocabulary",
            Self::Relative => "the same kind of model with other weights, such as a fine-tune",
            Self::Sibling => "the same model in another quantization",
            Self::Same => "the same model",
        }
    }
}

/// The fingerprint of a model in one file or several; cutting it into parts changes nothing.
pub(super) fn fingerprint(parts: &[Gguf], architecture: &str, n_layer: usize, d_model: usize) -> String {
    let mut tensors: Vec<(&Gguf, &Tensor)> = super::parts::tensors(parts).collect();
    tensors.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));

    let mut build = Sha256::new();
    put(&mut build, architecture.as_bytes());
    build.update((n_layer as u64).to_le_bytes());
    build.update((d_model as u64).to_le_bytes());
    // The bytes of an array of strings have every length in them, so they cannot be read in two ways.
    let texts = parts.first().and_then(|first| first.opt_array("tokenizer.ggml.tokens").ok().flatten());
    put(&mut build, texts.map_or(&[], |a| a.raw()));

    let mut checkpoint = Sha256::new();
    // `rope_freqs` and the like are constants that some converters add.
    let kept = |t: &Tensor| t.kind == GgmlType::F32 && t.shape.len() == 1 && !t.name.starts_with("rope_");
    for (part, t) in tensors.iter().filter(|(_, t)| kept(t)) {
        put(&mut checkpoint, t.name.as_bytes());
        put(&mut checkpoint, sample(part.data(t)));
    }

    let mut file = Sha256::new();
    for (part, t) in &tensors {
        put(&mut file, t.name.as_bytes());
        file.update(t.kind.id().to_le_bytes());
        file.update((t.shape.len() as u64).to_le_bytes());
        for &d in &t.shape {
            file.update((d as u64).to_le_bytes());
        }
        put(&mut file, sample(part.data(t)));
    }
    format!("{}{}{}", hex(build, PART), hex(checkpoint, PART), hex(file, 2 * PART))
}

/// The middle of a tensor's data.
fn sample(data: &[u8]) -> &[u8] {
    let from = data.len().saturating_sub(SAMPLE_BYTES) / 2;
    data.get(from..data.len().min(from.saturating_add(SAMPLE_BYTES))).unwrap_or_default()
}

/// Hashes `bytes` behind their number, so that neighbours cannot run together.
fn put(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn hex(hash: Sha256, digits: usize) -> String {
    hash.finalize().iter().take(digits / 2).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinship_is_read_from_the_parts() {
        let print = |build: char, checkpoint: char, file: char| {
            [build, checkpoint, file, file].map(|c| c.to_string().repeat(PART)).concat()
        };
        let a = print('a', 'b', 'c');
        assert_eq!(Kinship::of(&a, &a), Kinship::Same);
        assert_eq!(Kinship::of(&a, &print('a', 'b', 'd')), Kinship::Sibling);
        assert_eq!(Kinship::of(&a, &print('a', 'd', 'c')), Kinship::Relative);
        assert_eq!(Kinship::of(&a, &print('d', 'b', 'c')), Kinship::Stranger);
        assert_eq!(Kinship::of(&a, ""), Kinship::Stranger);
        assert_eq!(Kinship::of("", "x"), Kinship::Stranger);
        assert_eq!(Kinship::of("ä".repeat(40).as_str(), &a), Kinship::Stranger);
    }

    #[test]
    fn samples_come_from_the_middle() {
        assert_eq!(sample(&[]), [0u8; 0]);
        assert_eq!(sample(&[1, 2]), [1, 2]);
        let long: Vec<u8> = (0..3000u16).map(|i| (i % 251) as u8).collect();
        assert_eq!(sample(&long), &long[988..2012]);
    }
}
