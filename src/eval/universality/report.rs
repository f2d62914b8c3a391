//! What a comparison found out, for people and for JSON.

use serde::Serialize;

use super::comparison::Similarity;
use super::matching::Steps;

/// How alike two feature spaces are. In JSON as it stands here.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One of the two.
    pub a: Side,
    /// The other.
    pub b: Side,
    /// What to know, such as a dictionary of another quantization. One line each.
    pub notes: Vec<String>,
    /// Pairs of tokens read.
    pub n_tokens: u64,
    /// Whether both models cut text in the same way, so that every token has its pair; if not, only the ends of words
    /// do.
    pub same_tokenizer: bool,
    /// Pieces of text left out, because the two tokenizers do not spell them alike or a model cannot read so many
    /// tokens.
    pub pieces_left_out: usize,
    /// Pairs of tokens left out as attention sinks, the ones at position 0 not among them.
    pub sinks: u64,
    /// Pairs of features left after each filter.
    pub steps: Steps,
    /// The mean best correlation of features of B, before any filter.
    pub mean_best_r: f64,
    /// The mean correlation of the pairs.
    pub mean_r: f64,
    /// Pairs that are compared by their decoder rows: all, or as many as were drawn.
    pub compared: usize,
    /// How alike their decoder rows are; beside subsets of features that fire, drawn on each side by itself. None of
    /// fewer than three pairs.
    pub similarity: Vec<Similarity>,
    /// The same of semantic subspaces; beside subsets of all pairs.
    pub subspaces: Vec<Subspace>,
    /// All pairs, the best correlated first.
    pub pairs: Vec<Counterpart>,
    /// Bytes that the correlations took.
    pub bytes: usize,
    /// Seconds.
    pub seconds: f64,
}

/// A feature space.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    /// The model's file name.
    pub model: String,
    /// The dictionary's file name, without its ending.
    pub dictionary: String,
    /// Where it reads, such as `blocks.19.hook_resid_post`.
    pub point: String,
    /// Features.
    pub n_features: usize,
    /// Features that fire often enough to be compared.
    pub alive: usize,
    /// Mean number of active features on the tokens read.
    pub l0: f64,
}

/// The pairs of a semantic category.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Subspace {
    /// The category.
    pub name: String,
    /// Pairs in it, of those compared.
    pub pairs: usize,
    /// None of two pairs or fewer.
    pub similarity: Vec<Similarity>,
}

/// A feature of A, its counterpart in B, and the tokens on which each is strongest.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counterpart {
    /// Number in A.
    pub a: u32,
    /// Number in B.
    pub b: u32,
    /// Pearson's correlation of their activations.
    pub r: f64,
    /// Tokens of A, or words where the tokenizers differ; the strongest first.
    pub tokens_a: Vec<String>,
    /// The same of B.
    pub tokens_b: Vec<String>,
}
