//! Are two feature spaces the same? (arXiv 2410.06981)
//!
//! Both models read the same text ([`pairing`]). Features are matched by the correlation of their activations
//! ([`correlation`]) and filtered by the tokens on which they are strongest ([`matching`]); the decoder rows of the
//! pairs are compared whatever the axes of their spaces ([`similarity`]), beside what chance gives ([`null`]). Semantic
//! subspaces are compared by themselves ([`subspace`]). Two models, or one model at two layers, two seeds or widths of
//! a dictionary, two quantizations: [`Request`] names files, [`Report`] says what was found.
//!
//! Where the paper's code reads the input of a block, this reads its output. Decisions of ours: a feature has to fire
//! on ten tokens or more; of several features of B that have one best match, the best correlated one keeps it; tokens
//! are compared without blanks around them and in small letters; with two tokenizers, words take the place of tokens.
//!
//! A counterpart says that the other model has this feature, too, and not that either means what its words say. A pair
//! that lacks one may be missing because the text was short: features that fire rarely need many tokens.

pub mod comparison;
pub mod correlation;
pub mod labels;
pub mod matching;
pub mod null;
pub mod pairing;
#[cfg(feature = "engine")]
mod reading;
mod report;
mod request;
pub mod similarity;
pub mod subspace;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod tokens;

pub use matching::OneToOne;
#[cfg(feature = "engine")]
pub use reading::universality;
pub use report::{Counterpart, Report, Side, Subspace};
pub use request::Request;
