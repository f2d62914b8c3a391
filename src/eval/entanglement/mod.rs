//! Does steering one concept leave the others alone (arXiv 2512.15134)?
//!
//! Sentences whose concepts are known go through the model. Featurizers give their rows features: dictionaries, coders
//! and learned features from files, and others that are fitted on the rows themselves. Two questions are then asked of
//! each:
//!
//! | question | figures | file |
//! |---|---|---|
//! | does one feature say one concept? | MCC, one-to-many, k-sparse probing, DCI | [`reading`] |
//! | does steering by it move that concept alone? | effects, selectivity, leak, additivity, overlap | [`steering`] |
//!
//! The first does not answer the second: that is the paper's finding, and why both stand here side by side, with
//! supervised probes as skyline and random directions as floor. In the built-in sentences two concepts are correlated
//! by as much as the request says; a featurizer that takes one for the other shows it there.
//!
//! A sentence is one row: that of its last token, or the mean over its tokens ([`Pooling`]). No sentence is in the
//! training and in the test part. Everything random comes from the seed; what comes out does not depend on the number
//! of threads, as far as the model's own arithmetic does not.
//!
//! *Cost*: every sentence is read once, up to the layer that reads; each edit reads [`Request::steer`] sentences.
//! Memory: one row a sentence and layer, and the codes of [`Request::columns`] features.

pub mod correlation;
pub mod data;
pub mod dci;
pub mod effect;
pub mod featurizer;
pub mod fitting;
pub mod grammar;
#[cfg(test)]
mod planted;
pub mod probing;
pub mod reading;
mod report;
mod request;
#[cfg(feature = "engine")]
mod rows;
#[cfg(feature = "engine")]
mod run;
pub mod sentences;
pub mod steering;
#[cfg(test)]
mod tests;
#[cfg(feature = "engine")]
mod written;

pub use report::{Additivity, Found, Reading, Report, Run, Steering, Summary, Written};
pub use request::{BATCH, Fitted, Pooling, Request};
#[cfg(feature = "engine")]
pub use run::entanglement;
