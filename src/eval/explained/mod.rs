//! Which way to explain features is best? Six methods on the same features, side by side.
//!
//! | method | words come from |
//! |---|---|
//! | `data` | mutual information, counted over text |
//! | `lens` | mutual information through the unembedding (arXiv 2502.15576) |
//! | `tuned` | the same behind a ridge map to the last layer; needs rows of both |
//! | `logit` | the logit lens |
//! | `topact` | the spans of text on which a feature fires most |
//! | `n2g` | the shortest contexts that keep half of an activation ([`n2g`]) |
//!
//! | figure | says | where |
//! |---|---|---|
//! | diversity, lexical, dominate, total | are the words varied, and do they say something? | [`explain::quality`](crate::explain::quality) |
//! | AUC | do they predict where the feature fires, on held-out text? | [`explain::detect`](crate::explain::detect) |
//! | output, lift | are they what the feature makes the model say? | [`effect`] |
//!
//! Total rises with the number of features, so methods compare only on the same ones: those of the sample. A feature may
//! read one thing and write another; AUC asks for the first, lift for the second.

pub mod effect;
pub mod n2g;
mod report;
mod request;
mod run;

pub use report::{Method, Report, Sampled};
pub use request::Request;
pub use run::explained;
